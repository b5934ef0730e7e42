//! gzip as files hold it: one member behind the other, and zeros behind the last.
//!
//! Tapes and some tools fill a file up with zeros, which `gzip` itself passes over. Anything else behind
//! the last member is an error: it may be a member whose beginning was damaged.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The plain bytes of all members of `R`.
#[derive(Debug)]
pub struct Gunzip<R> {
    /// `None` only while the next member is opened, and behind the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gunzip<R> {
    /// Reads `packed` from its first member on.
    pub fn new(packed: R) -> Gunzip<R> {
        Gunzip { member: Some(GzDecoder::new(packed)) }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.member else { return Ok(0) };
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let packed = self.member.take().map(GzDecoder::into_inner);
            self.member = packed.map(next_member).transpose()?.flatten();
        }
    }
}

/// The member that begins here; `None` where only zeros follow.
fn next_member<R: BufRead>(mut packed: R) -> io::Result<Option<GzDecoder<R>>> {
    let mut has_zeros = false;
    loop {
        let block = packed.fill_buf()?;
        let zeros = block.iter().take_while(|byte| **byte == 0).count();
        match (block.len(), zeros) {
            (0, _) => return Ok(None),
            (length, zeros) if zeros < length && has_zeros | (zeros > 0) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "zeros, then more, behind the gzip data",
                ));
            }
            (_, 0) => return Ok(Some(GzDecoder::new(packed))),
            _ => {}
        }
        has_zeros = true;
        packed.consume(zeros);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use super::*;

    fn packed(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn plain(bytes: &[u8], block: usize) -> io::Result<String> {
        let mut text = String::new();
        Gunzip::new(BufReader::with_capacity(block, bytes)).read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn members_are_joined_and_zeros_behind_them_are_nothing() {
        for block in [1, 2, 7, 64, 4096] {
            let members = [packed("one "), packed(""), packed("two")].concat();
            assert_eq!(plain(&members, block).unwrap(), "one two");
            for zeros in [1, 511, 10_240] {
                let padded = [members.clone(), vec![0; zeros]].concat();
                assert_eq!(plain(&padded, block).unwrap(), "one two", "{zeros} zeros, blocks of {block}");
            }
        }
    }

    #[test]
    fn anything_else_behind_a_member_is_an_error() {
        let member = packed("one");
        for rest in [&b"x"[..], b"\0x", &[&[0; 600], packed("two").as_slice()].concat(), &member[..9]] {
            assert!(plain(&[&member, rest].concat(), 512).is_err(), "{rest:?}");
        }
    }
}
