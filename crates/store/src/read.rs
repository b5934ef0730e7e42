//! Reading: the bytes of many objects, or of one large object, by many requests at once and in their order.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ctxtune_engine::storage::Object;

use crate::client::Client;
use crate::runner::{Begun, Runner};

/// How many requests are open at once.
const WINDOW: usize = 256;
/// How many bytes are held at once, those that are asked for included; a single piece may be larger.
const WINDOW_BYTES: u64 = 64 << 20;
/// What is asked for at once of a large object: as much as a slow line brings within the patience.
const PIECE: u64 = 8 << 20;

/// What one request asks for.
#[derive(Debug)]
struct Piece {
    /// The number of its object.
    number: usize,
    /// `None` for a whole object.
    range: Option<Range<u64>>,
    bytes: u64,
    is_last: bool,
}

/// How many there are of an object.
pub fn requests(object: &Object) -> u64 {
    object.bytes.div_ceil(PIECE).max(1)
}

/// The pieces of a range of an object; one also of an empty one, whose tag is looked at.
fn pieces(number: usize, object: &Object, of: Range<u64>) -> impl Iterator<Item = Piece> {
    let count = (of.end - of.start).div_ceil(PIECE).max(1);
    let is_whole = count == 1 && of == (0..object.bytes);
    (0..count).map(move |index| {
        let start = of.start + index * PIECE;
        let range = start..of.end.min(start + PIECE);
        let (length, is_last) = (range.end - range.start, index + 1 == count);
        Piece { number, range: (!is_whole).then_some(range), bytes: length, is_last }
    })
}

/// Calls `each` with the number of an object, bytes of it, and whether they are its last, in order; of all of their bytes,
/// or of a range of each.
pub fn read(
    runner: &Runner,
    client: &Arc<Client>,
    objects: &[Object],
    range: Option<Range<u64>>,
    each: &mut dyn FnMut(usize, Bytes, bool) -> io::Result<()>,
) -> io::Result<()> {
    let of = |object: &Object| range.clone().unwrap_or(0..object.bytes);
    let numbered = objects.iter().enumerate();
    let mut pieces = numbered.flat_map(|(number, object)| pieces(number, object, of(object))).peekable();
    let (mut asked, mut held): (VecDeque<(Piece, Begun<Bytes>)>, u64) = (VecDeque::new(), 0);
    loop {
        let has_room =
            |piece: &Piece| asked.is_empty() || asked.len() < WINDOW && held + piece.bytes <= WINDOW_BYTES;
        if let Some(piece) = pieces.next_if(has_room) {
            held += piece.bytes;
            let object = objects[piece.number].clone();
            let work = whole(client.clone(), object, piece.range.clone(), piece.bytes);
            asked.push_back((piece, runner.begin(work)));
            continue;
        }
        let Some((piece, mut request)) = asked.pop_front() else { return Ok(()) };
        let bytes = runner.wait(request.result())?;
        each(piece.number, bytes, piece.is_last)?;
        held -= piece.bytes;
    }
}

/// The bytes of a piece, which are as many as the listing says.
async fn whole(
    client: Arc<Client>,
    object: Object,
    range: Option<Range<u64>>,
    bytes: u64,
) -> io::Result<Bytes> {
    let read = client.get(&object.name, range, &object.tag).await?;
    if read.len() as u64 != bytes {
        let said = format!("it has other bytes than when it was listed ({} instead of {bytes})", read.len());
        return Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, said));
    }
    Ok(read)
}
