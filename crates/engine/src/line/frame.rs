//! What a line has between the texts of a timestep, written again for the next one.
//!
//! A step that is known to name the agents of the step before differs from it in its texts only, in the line as
//! in the record. The pieces between them are copied from where they were first written, which costs a third of
//! putting them together. Whatever is not known to fit is put together by the caller.

use crate::record::context::Text;

/// A copy of so many bytes costs a third of one whose length has to be looked at. Most pieces are shorter.
const PIECE_BYTES: usize = 48;

/// The pieces of the step that was put together last.
#[derive(Debug, Default)]
pub struct Frame {
    /// Where in the line each piece begins and ends: before each text, and behind the last one.
    pieces: Vec<(usize, usize)>,
    /// Where the next piece begins.
    start: usize,
}

impl Frame {
    /// The next step is put together at the end of `line`.
    pub fn begin(&mut self, line: &[u8]) {
        self.pieces.clear();
        self.start = line.len();
    }

    /// A piece has been put together; `write` writes the text behind it.
    #[inline]
    pub fn text<'a>(&mut self, line: &mut Vec<u8>, text: Text<'a>, write: &impl Fn(&mut Vec<u8>, Text<'a>)) {
        self.end(line);
        write(line, text);
        self.start = line.len();
    }

    /// The last piece has been put together.
    #[inline]
    pub fn end(&mut self, line: &[u8]) {
        self.pieces.push((self.start, line.len()));
    }

    /// Writes a step of the same pieces with these `texts`, unless their numbers do not fit.
    #[inline]
    pub fn repeat<'a>(
        &self,
        line: &mut Vec<u8>,
        texts: impl Iterator<Item = Text<'a>> + Clone,
        write: &impl Fn(&mut Vec<u8>, Text<'a>),
    ) -> bool {
        if self.pieces.len() != texts.clone().count() + 1 {
            return false;
        }
        let mut pieces = self.pieces.iter();
        for (text, piece) in texts.zip(&mut pieces) {
            repeat_piece(line, *piece);
            write(line, text);
        }
        pieces.for_each(|piece| repeat_piece(line, *piece));
        true
    }
}

#[inline(always)]
fn repeat_piece(line: &mut Vec<u8>, (start, end): (usize, usize)) {
    let length = end - start;
    if length <= PIECE_BYTES && start + PIECE_BYTES <= line.len() {
        let whole = line.len() + length;
        line.extend_from_within(start..start + PIECE_BYTES);
        line.truncate(whole);
    } else {
        line.extend_from_within(start..end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(line: &mut Vec<u8>, text: Text<'_>) {
        line.extend_from_slice(text.to_real().as_bytes());
    }

    #[test]
    fn pieces_of_any_length_are_written_again() {
        for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 200] {
            let piece = "p".repeat(length);
            let mut line = b"before".to_vec();
            let mut frame = Frame::default();
            frame.begin(&line);
            for text in ["a", "b"] {
                line.extend_from_slice(piece.as_bytes());
                frame.text(&mut line, Text::Plain(text), &write);
            }
            line.extend_from_slice(b"end");
            frame.end(&line);
            let texts = |texts: &[&'static str]| texts.iter().copied().map(Text::Plain).collect::<Vec<_>>();
            assert!(frame.repeat(&mut line, texts(&["c", ""]).into_iter(), &write));
            assert!(!frame.repeat(&mut line, texts(&["c"]).into_iter(), &write));
            assert!(!frame.repeat(&mut line, texts(&["c", "d", "e"]).into_iter(), &write));
            let expected = format!("before{piece}a{piece}bend{piece}c{piece}end");
            assert_eq!(String::from_utf8(line).unwrap(), expected, "{length}");
        }
    }

    #[test]
    fn a_step_that_was_never_put_together_is_not_repeated() {
        assert!(!Frame::default().repeat(&mut Vec::new(), std::iter::once(Text::Plain("a")), &write));
        assert!(!Frame::default().repeat(&mut Vec::new(), std::iter::empty(), &write));
    }
}
