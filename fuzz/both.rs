//! One record as the engine reads it, the quick path first, and by the general path alone.

use ctxtune_engine::line::convert::LineWriter;
use ctxtune_engine::line::template::Template;
use ctxtune_engine::record::parser::{Parser, padded};
use ctxtune_engine::record::{self, Record};
use ctxtune_engine::record::unused::{self, Reader};

/// Asserts that both ways come to one verdict and one line, in a parser that is new and in one that has just
/// read the same record.
pub fn assert_equal(bytes: &[u8]) {
    let template = Template::chatml();
    let writer = LineWriter::new(&template);
    let line = |record: &Record<'_>| {
        let mut line = Vec::new();
        writer.write_line(record, &mut line);
        line
    };
    let general = general(bytes, line);
    let mut parser = Parser::default();
    for _ in 0..2 {
        let engine = parser.with_record_again(&mut padded(bytes), bytes.len(), None, line);
        let shown = |line: &Vec<u8>| String::from_utf8_lossy(line).into_owned();
        assert_eq!(engine.as_ref().ok().map(shown), general.as_ref().map(shown));
    }
}

/// What the tape's reader makes of the record; nothing where it refuses.
fn general(bytes: &[u8], line: impl FnOnce(&Record<'_>) -> Vec<u8>) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).ok()?;
    let mut fit = unused::overwritten(text, Reader::Record(None)).ok()?;
    let tape = simd_json::to_tape(&mut fit).ok()?;
    record::parse(&tape.0, None, &mut String::new()).ok().as_ref().map(line)
}
