//! What a line has between the texts of a timestep, written again for the next one.
//!
//! A step that is known to name the agents of the step before differs from it in its texts only, in the line as
//! in the record. The pieces between them are copied from where they were first written, which costs a third of
//! putting them together. Whatever is not known to fit is put together by the caller.

use crate::record::context::{AgentText, Text};

/// How texts are escaped in a line. A trait, since nothing but a type is sure to be inlined: a closure that was
/// left a call cost 45 instructions a text, of seventy texts a record.
pub trait Escaping {
    /// Appends `text` to `line`.
    fn write(line: &mut Vec<u8>, text: Text<'_>);
}

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

    /// A piece has been put together; `text` is behind it.
    #[inline(always)]
    pub fn text<E: Escaping>(&mut self, line: &mut Vec<u8>, text: Text<'_>) {
        self.end(line);
        E::write(line, text);
        self.start = line.len();
    }

    /// The last piece has been put together.
    #[inline]
    pub fn end(&mut self, line: &[u8]) {
        self.pieces.push((self.start, line.len()));
    }

    /// Writes a step of the same pieces with this state and the texts of `pairs`, unless their number does not
    /// fit.
    #[inline(always)]
    pub fn repeat<E: Escaping>(
        &self,
        line: &mut Vec<u8>,
        state: Text<'_>,
        pairs: [&[AgentText<'_>]; 2],
    ) -> bool {
        let [first, others @ .., last] = self.pieces.as_slice() else { return false };
        let [observations, actions] = pairs;
        if others.len() != observations.len() + actions.len() {
            return false;
        }
        let (to_observations, to_actions) = others.split_at(observations.len());
        repeat_piece(line, *first);
        E::write(line, state);
        for (pieces, pairs) in [(to_observations, observations), (to_actions, actions)] {
            for (piece, (_, text)) in pieces.iter().zip(pairs) {
                repeat_piece(line, *piece);
                E::write(line, *text);
            }
        }
        repeat_piece(line, *last);
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

    struct AsIs;

    impl Escaping for AsIs {
        fn write(line: &mut Vec<u8>, text: Text<'_>) {
            line.extend_from_slice(text.to_real().as_bytes());
        }
    }

    const A: AgentText<'static> = ("A", Text::Plain("a"));
    const B: AgentText<'static> = ("B", Text::Plain("b"));

    #[test]
    fn pieces_of_any_length_are_written_again() {
        for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 200] {
            let piece = "p".repeat(length);
            let mut line = b"before".to_vec();
            let mut frame = Frame::default();
            frame.begin(&line);
            for text in ["state", "x", "y"] {
                line.extend_from_slice(piece.as_bytes());
                frame.text::<AsIs>(&mut line, Text::Plain(text));
            }
            line.extend_from_slice(b"end");
            frame.end(&line);
            let mut repeat = |pairs| frame.repeat::<AsIs>(&mut line, Text::Plain(""), pairs);
            assert!(repeat([&[A], &[B]]));
            assert!(repeat([&[], &[B, A]]));
            assert!(!repeat([&[A], &[]]));
            assert!(!repeat([&[A, B], &[A]]));
            let again = |first: &str, other: &str| format!("{piece}{piece}{first}{piece}{other}end");
            let expected =
                format!("before{piece}state{piece}x{piece}yend{}{}", again("a", "b"), again("b", "a"));
            assert_eq!(String::from_utf8(line).unwrap(), expected, "{length}");
        }
    }

    #[test]
    fn a_step_that_was_never_put_together_is_not_repeated() {
        assert!(!Frame::default().repeat::<AsIs>(&mut Vec::new(), Text::Plain("a"), [&[], &[]]));
    }
}
