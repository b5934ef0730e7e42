//! A `text/event-stream` gives the same events wherever the network cuts it.

#![no_main]

use ctxtune_service::http::sse::{Event, Stream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, cuts) = input;
    let mut whole = Vec::new();
    let mut stream = Stream::default();
    stream.push(&bytes, &mut |event| whole.push(event)).expect("an input is shorter than the limit");
    stream.finish(&mut |event| whole.push(event));

    let mut in_parts: Vec<Event> = Vec::new();
    let mut stream = Stream::default();
    let mut rest = bytes.as_slice();
    for cut in cuts {
        let (part, after) = rest.split_at(usize::from(cut).min(rest.len()));
        stream.push(part, &mut |event| in_parts.push(event)).expect("an input is shorter than the limit");
        rest = after;
    }
    stream.push(rest, &mut |event| in_parts.push(event)).expect("an input is shorter than the limit");
    stream.finish(&mut |event| in_parts.push(event));
    assert_eq!(whole, in_parts);
});
