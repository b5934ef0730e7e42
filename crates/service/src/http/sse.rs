//! Bytes of a `text/event-stream` into its events, wherever the network cuts them.
//!
//! Pure: no socket, no clock, and no idea of what an event says. Lines are put together as bytes, so a
//! character split over two reads is whole again; whoever parses the data sees whether it is UTF-8. The rules
//! are those of <https://html.spec.whatwg.org/multipage/server-sent-events.html>, but for the end of the
//! stream: an event that no blank line ends counts there, since servers end so.

/// The most bytes of a line and of an event: an answer is never so long.
pub const MOST_BYTES: usize = 16 << 20;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its `event` field; empty where there is none.
    pub name: String,
    /// Its `data` fields, joined by newlines.
    pub data: Vec<u8>,
}

/// An event or a line is longer than [`MOST_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {MOST_BYTES} bytes")]
pub struct TooLong;

#[derive(Debug, Default)]
pub struct Stream {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    /// Whether the last byte was a carriage return: a line feed after it is the same line's end.
    after_return: bool,
    /// Whether a line has ended: a byte order mark stands before the first only.
    has_begun: bool,
}

impl Stream {
    /// Takes the next bytes and gives every event that they complete to `take`. Fails when an event has become
    /// too long.
    pub fn push(&mut self, bytes: &[u8], take: &mut dyn FnMut(Event)) -> Result<(), TooLong> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', rest);
            let (part, ending) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + self.event.data.len() + part.len() > MOST_BYTES {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            let Some(&ending_byte) = ending.first() else { return Ok(()) };
            self.after_return = ending_byte == b'\r';
            self.end_line(take);
            rest = &ending[1..];
        }
        Ok(())
    }

    /// Takes the end of the stream: a last line without its end and a last event without its blank
    /// line are given to `take` too.
    pub fn finish(mut self, take: &mut dyn FnMut(Event)) {
        if !self.line.is_empty() {
            self.end_line(take);
        }
        self.end_event(take);
    }

    fn end_line(&mut self, take: &mut dyn FnMut(Event)) {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.has_begun, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            return self.end_event(take);
        }
        let colon = memchr::memchr(b':', &line);
        let (name, value) = match colon {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (&line[..], &b""[..]),
        };
        match name {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
            }
            b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
            // A comment has no name; ids and delays are for clients that come back.
            _ => {}
        }
        line.clear();
        self.line = line;
    }

    fn end_event(&mut self, take: &mut dyn FnMut(Event)) {
        let event = std::mem::take(&mut self.event);
        if std::mem::take(&mut self.has_data) {
            take(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(parts: &[&[u8]]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut take = |event: Event| found.push((event.name, String::from_utf8(event.data).unwrap()));
        let mut stream = Stream::default();
        for part in parts {
            stream.push(part, &mut take).unwrap();
        }
        stream.finish(&mut take);
        found
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<(String, String)> =
            expected.iter().map(|(name, data)| ((*name).to_owned(), (*data).to_owned())).collect();
        let bytes = text.as_bytes();
        assert_eq!(events(&[bytes]), expected, "{text:?}");
        for at in 0..=bytes.len() {
            assert_eq!(events(&[&bytes[..at], &bytes[at..]]), expected, "{text:?} cut at {at}");
        }
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(events(&bytewise), expected, "{text:?} byte by byte");
    }

    #[test]
    fn lines_end_in_every_way_there_is() {
        for end in ["\n", "\r\n", "\r"] {
            check(&format!("data: a{end}{end}data: b{end}{end}"), &[("", "a"), ("", "b")]);
        }
        check("data: a\r\n\r\ndata: b\n\r\n", &[("", "a"), ("", "b")]);
    }

    #[test]
    fn comments_unknown_fields_and_empty_events_say_nothing() {
        check(": hello\n\ndata: a\n: keep alive\nid: 7\nretry: 10\n\n\n\n:\n\n", &[("", "a")]);
        check("", &[]);
        check("event: ping\n\ndata: a\n\n", &[("", "a")]);
    }

    #[test]
    fn data_of_several_lines_is_joined() {
        check("data: {\ndata:\"x\":  1\ndata: }\n\n", &[("", "{\n\"x\":  1\n}")]);
        check("data\ndata\n\n", &[("", "\n")]);
        check("data:  one blank goes\n\n", &[("", " one blank goes")]);
    }

    #[test]
    fn an_event_may_have_a_name_and_a_stream_a_byte_order_mark() {
        check(
            "\u{feff}event: error\ndata: {\"error\":1}\n\ndata: é😀\n\n",
            &[("error", "{\"error\":1}"), ("", "é😀")],
        );
    }

    #[test]
    fn what_no_blank_line_ends_counts_at_the_end() {
        check("data: a\n\ndata: [DONE]", &[("", "a"), ("", "[DONE]")]);
        check("data: a\n\ndata: [DONE]\n", &[("", "a"), ("", "[DONE]")]);
    }

    #[test]
    fn an_endless_line_and_an_endless_event_are_refused() {
        for piece in [vec![b'x'; 1 << 20], b"data: 0123456789abcdef0123456789abcdef\n".repeat(30_000)] {
            let mut stream = Stream::default();
            let mut push = || stream.push(&piece, &mut |_| panic!("no event ends"));
            assert!((0..64).any(|_| push() == Err(TooLong)));
        }
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            lines in proptest::collection::vec("(data: ?|event:|:|id:)?[a-zé😀:\u{feff} ]{0,6}(\r\n|\n|\r|\n\n)", 0..12),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let text = lines.concat();
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let parts: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(events(&parts), events(&[bytes]));
        }
    }
}
