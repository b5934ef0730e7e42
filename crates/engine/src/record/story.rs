//! Turns a story into its text: prose as it is, or a Python literal, `['Mia left.', 'Chloe ran.']`,
//! its strings joined by one blank.
//!
//! Separate from the record so that the language lives in one place: the value of a literal
//! is the one CPython 3.11's `ast.literal_eval` gives, and every other text is
//! refused. Three deliberate refusals: `\N{…}`, escapes that yield a surrogate, and strings side by
//! side, which is how numpy prints a list. What Python prints for no value, for an array or for bytes
//! is no story either. It must not evaluate anything, recurse, or allocate beyond the joined text;
//! work and memory are linear in the text, whatever the text is.

use memchr::{memchr, memchr2, memchr3};

/// How a story was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoryForm {
    /// Prose.
    Prose,
    /// Prose that begins with `[` or `(`, as a Python literal does.
    BracketedProse,
    /// A list of sentences, of Python or of JSON.
    List,
}

/// What programs print for a value that is missing: no story.
const MISSING: [&str; 7] = ["nan", "NaN", "None", "null", "<NA>", "NaT", "undefined"];

/// Brackets that may be open at once, as in CPython's tokenizer.
const MAX_OPEN_BRACKETS: usize = 200;

/// Why a story literal was refused, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} (byte {at} of the story)")]
pub struct StoryError {
    /// Offset in the story text, in bytes; the text's length if it ended too early.
    pub at: usize,
    /// What was found there.
    pub kind: StoryErrorKind,
}

/// What is wrong with a story literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoryErrorKind {
    /// The text holds U+0000, which Python source cannot.
    #[error("a NUL character in the Python literal")]
    Nul,
    /// A line outside brackets begins with blanks.
    #[error("an indented line outside the brackets of the Python literal")]
    Indented,
    /// A bracket is still open where the text ends.
    #[error("a bracket of the Python literal is never closed")]
    Unclosed,
    /// A bracket closes that is not the one last opened.
    #[error("a closing bracket without its opening one in the Python literal")]
    UnmatchedBracket,
    /// More open brackets than CPython reads.
    #[error("more than {MAX_OPEN_BRACKETS} open brackets in the Python literal")]
    TooDeep,
    /// `[]` or `()`, or either as an item.
    #[error("an empty list or tuple")]
    Empty,
    /// The value is one string, or none at all.
    #[error("neither a list nor a tuple of strings")]
    NotASequence,
    /// A list or tuple where a string belongs.
    #[error("a list or tuple inside the list of strings")]
    Nested,
    /// Anything after the complete value.
    #[error("text after the end of the Python literal")]
    TrailingText,
    /// What begins neither a string nor the next item: a name, a number, an operator,
    /// a brace, a second item without a comma, a backslash that ends no line.
    #[error("unexpected `{}` in the list of strings", .0.escape_debug())]
    Unexpected(char),
    /// Bytes, an f-string or another prefix than `r` or `u`.
    #[error("a string with a prefix other than `r` or `u`")]
    Prefix,
    /// The quote that ends a string is missing.
    #[error("a string of the Python literal is not terminated")]
    UnterminatedString,
    /// Too few digits, or a code point above U+10FFFF.
    #[error("an incomplete or impossible escape in a string of the Python literal")]
    Escape,
    /// `\N{…}`.
    #[error("the escape `\\N` is not supported")]
    NamedEscape,
    /// An escape in the range U+D800 to U+DFFF, alone or in a pair.
    #[error("an escape for a lone surrogate, which is not text")]
    LoneSurrogate,
    /// Two strings side by side. Python makes one string of them; but nobody writes a story like that,
    /// and numpy prints its lists so.
    #[error(
        "two strings without a comma between them, as numpy prints lists: write the list with `json.dumps(list(story))`"
    )]
    Adjacent,
    /// The whole text is what a program prints for a missing value.
    #[error("the whole story is `{0}`, which stands for a missing value")]
    Missing(&'static str),
    /// The whole text is an array as numpy prints it.
    #[error(
        "the whole story is `array(...)`, as numpy prints an array: write it with `json.dumps(story.tolist())`"
    )]
    Array,
    /// The whole text is bytes as Python prints them.
    #[error("the whole story is `b'...'`, as Python prints bytes: decode them first")]
    Bytes,
}

/// The text of the story `text`; the sentences of a list are joined in `joined`. It may be blank.
///
/// # Errors
/// When it is half a list, or no text that anybody wrote.
pub fn read<'a>(text: &'a str, joined: &'a mut String) -> Result<(&'a str, StoryForm), StoryError> {
    let start = text.trim_start_matches(is_blank);
    let (story, form) = match start.as_bytes().first() {
        Some(b'[' | b'(') if is_literal(start) => {
            parse_literal(text, joined)?;
            (joined.as_str(), StoryForm::List)
        }
        Some(b'[' | b'(') => (text, StoryForm::BracketedProse),
        Some(b'a' | b'b') => {
            check_is_no_print(start).map_err(|kind| StoryError { at: text.len() - start.len(), kind })?;
            (text, StoryForm::Prose)
        }
        _ => (text, StoryForm::Prose),
    };
    check_is_there(story)?;
    Ok((story, form))
}

/// Whether `text` is a story as it is.
pub fn is_prose(text: &str) -> bool {
    let form = read(text, &mut String::new()).map(|(_, form)| form);
    matches!(form, Ok(StoryForm::Prose | StoryForm::BracketedProse))
}

/// Refuses a story that is only the word for a missing value.
///
/// # Errors
/// [`StoryErrorKind::Missing`].
pub fn check_is_there(story: &str) -> Result<(), StoryError> {
    let word = story.trim_matches(is_blank);
    match MISSING.into_iter().find(|missing| *missing == word) {
        Some(word) => Err(StoryError { at: 0, kind: StoryErrorKind::Missing(word) }),
        None => Ok(()),
    }
}

/// Refuses text that is a whole `array(…)` or `b'…'`; it has no blanks before it.
fn check_is_no_print(text: &str) -> Result<(), StoryErrorKind> {
    let text = text.trim_end_matches(is_blank).as_bytes();
    let is_whole = |end: Option<usize>| end == Some(text.len());
    match text {
        [b'b', b'\'' | b'"', ..] if is_whole(string_end(text, 1)) => Err(StoryErrorKind::Bytes),
        _ if text.starts_with(b"array(") && is_whole(call_end(text)) => Err(StoryErrorKind::Array),
        _ => Ok(()),
    }
}

/// The place behind the string whose quote is at `start`.
fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += memchr2(text[start], b'\\', text.get(at..)?)?;
        if text[at] == text[start] {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The place behind the parenthesis that closes the first one.
fn call_end(text: &[u8]) -> Option<usize> {
    let (mut at, mut open) = (0, 0_usize);
    loop {
        match *text.get(at)? {
            b'\'' | b'"' => at = string_end(text, at)? - 1,
            b'(' => open += 1,
            b')' if open == 1 => return Some(at + 1),
            b')' => open = open.checked_sub(1)?,
            _ => {}
        }
        at += 1;
    }
}

/// Whether a story that begins with `[` or `(` is to be read as a Python literal: behind its opening brackets
/// (of a list in a list, too) and blanks comes a string, or the bracket that closes the last of them.
fn is_literal(text: &str) -> bool {
    let inside = text.trim_start_matches(|character| is_blank(character) || matches!(character, '[' | '('));
    let outside = &text[..text.len() - inside.len()];
    let closing = match outside.trim_end_matches(is_blank).as_bytes().last() {
        Some(b'[') => b']',
        _ => b')',
    };
    inside.as_bytes().first() == Some(&closing) || begins_string(inside.as_bytes())
}

/// Whether a Python string of any kind begins here.
fn begins_string(text: &[u8]) -> bool {
    let letters = text.iter().take(3).take_while(|byte| byte.is_ascii_alphabetic()).count();
    let prefixes: [&[u8]; 13] =
        [b"", b"r", b"u", b"b", b"f", b"t", b"br", b"rb", b"fr", b"rf", b"tr", b"rt", b"ur"];
    matches!(text.get(letters), Some(b'\'' | b'"'))
        && prefixes.iter().any(|prefix| prefix.eq_ignore_ascii_case(&text[..letters]))
}

/// Python's `str.isspace` for one character: Unicode's white space and U+001C to U+001F.
pub fn is_blank(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Reads a list or tuple of strings and leaves them in `joined`, which is
/// cleared first, separated by one blank each.
///
/// # Errors
///
/// When `text` is not such a literal; `joined` then holds a part of the story.
pub fn parse_literal(text: &str, joined: &mut String) -> Result<(), StoryError> {
    joined.clear();
    // No escape is shorter than what it stands for.
    joined.reserve(text.len());
    // Both are rare: one search finds that there is neither.
    let rare = memchr2(0, b'\r', text.as_bytes());
    if let Some(at) = rare.and_then(|_| memchr(0, text.as_bytes())) {
        return Err(StoryError { at, kind: StoryErrorKind::Nul });
    }
    Literal {
        text,
        at: text.len() - text.trim_start_matches([' ', '\t']).len(),
        has_carriage_return: rare.is_some(),
        open_brackets: 0,
        strings: 0,
        sequence: Sequence::NotSeen,
        previous: Previous::Nothing,
        joined,
    }
    .read()
}

/// A literal being read.
///
/// Only one list or tuple is allowed, so the open brackets need no stack: they
/// are parentheses, but for the one that belongs to the sequence.
struct Literal<'a> {
    text: &'a str,
    at: usize,
    has_carriage_return: bool,
    open_brackets: usize,
    strings: usize,
    sequence: Sequence,
    previous: Previous,
    joined: &'a mut String,
}

/// The one list or tuple. A tuple is known as such at its first comma.
#[derive(Clone, Copy)]
enum Sequence {
    NotSeen,
    /// Its items are separated where this many brackets are open; 0 is a tuple without any.
    /// The second part is the bracket that closes it.
    Open(usize, u8),
    Closed,
}

/// The last token that counts.
#[derive(Clone, Copy, PartialEq)]
enum Previous {
    Nothing,
    Opening,
    Comma,
    String,
    Closing,
}

/// What a backslash in a string does.
#[derive(Clone, Copy, PartialEq)]
enum Backslash {
    Escapes,
    Stays,
}

impl Literal<'_> {
    fn read(&mut self) -> Result<(), StoryError> {
        self.skip_blank_lines()?;
        while let Some(byte) = self.next_token()? {
            match byte {
                b'\'' | b'"' => self.read_string(Backslash::Escapes)?,
                b',' => self.read_comma()?,
                b'[' | b'(' => self.read_opening(byte)?,
                b']' | b')' => self.read_closing(byte)?,
                b'u' | b'U' if self.is_quote_at(self.at + 1) => {
                    self.at += 1;
                    self.read_string(Backslash::Escapes)?;
                }
                b'r' | b'R' if self.is_quote_at(self.at + 1) => {
                    self.at += 1;
                    self.read_string(Backslash::Stays)?;
                }
                _ => return self.refuse_token(),
            }
        }
        match self.sequence {
            _ if self.open_brackets > 0 => self.refuse(StoryErrorKind::Unclosed),
            Sequence::NotSeen => self.refuse(StoryErrorKind::NotASequence),
            Sequence::Open(..) | Sequence::Closed => Ok(()),
        }
    }

    /// Goes to the next token and gives its first byte; `None` at the end.
    fn next_token(&mut self) -> Result<Option<u8>, StoryError> {
        while let Some(byte) = self.byte() {
            match byte {
                b' ' | b'\t' | b'\x0c' => self.at += 1,
                b'#' => self.skip_comment(),
                b'\\' => self.skip_continuation()?,
                b'\n' | b'\r' if self.open_brackets > 0 => self.at += 1,
                b'\n' | b'\r' => {
                    self.skip_blank_lines()?;
                    if self.at < self.text.len() {
                        return self.refuse(StoryErrorKind::TrailingText);
                    }
                }
                _ => return Ok(Some(byte)),
            }
        }
        Ok(None)
    }

    /// Passes blank lines and comments outside brackets, and leaves the position
    /// at a line that has neither blanks before its first token nor before its end.
    fn skip_blank_lines(&mut self) -> Result<(), StoryError> {
        let mut indent = 0_usize;
        // Blanks before the first backslash at the end of a line count for the lines joined to it.
        let mut continued_indent = 0;
        while let Some(byte) = self.byte() {
            match byte {
                b' ' | b'\t' => indent += 1,
                b'\x0c' => indent = 0,
                b'\n' | b'\r' => (indent, continued_indent) = (0, 0),
                b'#' => {
                    self.skip_comment();
                    (indent, continued_indent) = (0, 0);
                    continue;
                }
                b'\\' => {
                    if continued_indent == 0 {
                        continued_indent = indent;
                    }
                    self.skip_continuation()?;
                    continue;
                }
                _ => break,
            }
            self.at += 1;
        }
        if indent > 0 || continued_indent > 0 {
            return self.refuse(StoryErrorKind::Indented);
        }
        Ok(())
    }

    fn skip_comment(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
    }

    /// Passes a backslash and the end of its line. Python wants one more character after it.
    fn skip_continuation(&mut self) -> Result<(), StoryError> {
        let after = self.after_newline(self.at + 1);
        match after {
            Some(after) if after < self.text.len() => {
                self.at = after;
                Ok(())
            }
            _ => self.refuse(StoryErrorKind::Unexpected('\\')),
        }
    }

    fn read_opening(&mut self, bracket: u8) -> Result<(), StoryError> {
        self.expect_item()?;
        if self.open_brackets == MAX_OPEN_BRACKETS {
            return self.refuse(StoryErrorKind::TooDeep);
        }
        self.open_brackets += 1;
        if bracket == b'[' {
            if !matches!(self.sequence, Sequence::NotSeen) {
                return self.refuse(StoryErrorKind::Nested);
            }
            self.sequence = Sequence::Open(self.open_brackets, b']');
        }
        self.previous = Previous::Opening;
        self.at += 1;
        Ok(())
    }

    fn read_closing(&mut self, bracket: u8) -> Result<(), StoryError> {
        let (ends_sequence, closed_by) = match self.sequence {
            Sequence::Open(brackets, closed_by) if brackets == self.open_brackets => (true, closed_by),
            _ => (false, b')'),
        };
        if self.open_brackets == 0 || bracket != closed_by {
            return self.refuse(StoryErrorKind::UnmatchedBracket);
        }
        if self.previous == Previous::Opening {
            return self.refuse(StoryErrorKind::Empty);
        }
        if ends_sequence {
            self.sequence = Sequence::Closed;
        }
        self.open_brackets -= 1;
        self.previous = Previous::Closing;
        self.at += 1;
        Ok(())
    }

    fn read_comma(&mut self) -> Result<(), StoryError> {
        if !matches!(self.previous, Previous::String | Previous::Closing) {
            return self.refuse_token();
        }
        match self.sequence {
            Sequence::NotSeen => self.sequence = Sequence::Open(self.open_brackets, b')'),
            Sequence::Open(brackets, _) if brackets == self.open_brackets => {}
            Sequence::Open(..) | Sequence::Closed => return self.refuse(StoryErrorKind::Nested),
        }
        self.previous = Previous::Comma;
        self.at += 1;
        Ok(())
    }

    /// Whether an item may begin here.
    fn expect_item(&self) -> Result<(), StoryError> {
        match self.previous {
            Previous::Nothing | Previous::Opening | Previous::Comma => Ok(()),
            Previous::String | Previous::Closing => self.refuse_token(),
        }
    }

    /// Appends the string that begins at the quote here.
    fn read_string(&mut self, backslash: Backslash) -> Result<(), StoryError> {
        if self.previous == Previous::String {
            return self.refuse(StoryErrorKind::Adjacent);
        }
        self.expect_item()?;
        if self.strings > 0 {
            self.joined.push(' ');
        }
        self.strings += 1;
        self.previous = Previous::String;
        let (text, bytes, start) = (self.text, self.text.as_bytes(), self.at);
        let quote = bytes[start];
        let long = bytes[start..].starts_with(&[quote; 3]);
        let stop = |rest| {
            if long { memchr2(quote, b'\\', rest) } else { memchr3(quote, b'\\', b'\n', rest) }
        };
        self.at += if long { 3 } else { 1 };
        while let Some(length) = stop(&bytes[self.at..]) {
            let run = &text[self.at..self.at + length];
            if self.has_carriage_return && !long && run.contains('\r') {
                break;
            }
            self.push_lines(run);
            self.at += length;
            match bytes[self.at] {
                b'\\' => self.read_backslash(backslash)?,
                b'\n' => break,
                _ if long && !bytes[self.at..].starts_with(&[quote; 3]) => {
                    self.joined.push(char::from(quote));
                    self.at += 1;
                }
                _ => {
                    self.at += if long { 3 } else { 1 };
                    return Ok(());
                }
            }
        }
        self.at = start;
        self.refuse(StoryErrorKind::UnterminatedString)
    }

    /// Appends text in which every end of line becomes `\n`, as in Python source.
    fn push_lines(&mut self, mut run: &str) {
        if self.has_carriage_return {
            while let Some((line, rest)) = run.split_once('\r') {
                self.joined.push_str(line);
                self.joined.push('\n');
                run = rest.strip_prefix('\n').unwrap_or(rest);
            }
        }
        self.joined.push_str(run);
    }

    /// Appends what the backslash here and the characters it governs stand for.
    fn read_backslash(&mut self, backslash: Backslash) -> Result<(), StoryError> {
        if let Some(after) = self.after_newline(self.at + 1) {
            self.at = after;
            if backslash == Backslash::Stays {
                self.joined.push_str("\\\n");
            }
            return Ok(());
        }
        if backslash == Backslash::Escapes {
            return self.read_escape();
        }
        let length = match self.text.as_bytes().get(self.at + 1) {
            Some(b'\'' | b'"' | b'\\') => 2,
            _ => 1,
        };
        self.joined.push_str(&self.text[self.at..self.at + length]);
        self.at += length;
        Ok(())
    }

    fn read_escape(&mut self) -> Result<(), StoryError> {
        let character = match self.text.as_bytes().get(self.at + 1) {
            Some(byte @ (b'\\' | b'\'' | b'"')) => char::from(*byte),
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'a') => '\x07',
            Some(b'b') => '\x08',
            Some(b'f') => '\x0c',
            Some(b'v') => '\x0b',
            Some(b'0'..=b'7') => return self.read_code_point(1, 1..=3, 8),
            Some(b'x') => return self.read_code_point(2, 2..=2, 16),
            Some(b'u') => return self.read_code_point(2, 4..=4, 16),
            Some(b'U') => return self.read_code_point(2, 8..=8, 16),
            Some(b'N') => return self.refuse(StoryErrorKind::NamedEscape),
            // An escape Python does not know keeps its backslash.
            _ => {
                self.joined.push('\\');
                self.at += 1;
                return Ok(());
            }
        };
        self.joined.push(character);
        self.at += 2;
        Ok(())
    }

    /// Appends the character whose number follows the `introduction` bytes of the escape here.
    fn read_code_point(
        &mut self,
        introduction: usize,
        digits: std::ops::RangeInclusive<usize>,
        radix: u32,
    ) -> Result<(), StoryError> {
        let mut code = 0;
        let mut length = 0;
        let rest = &self.text.as_bytes()[self.at + introduction..];
        for digit in rest.iter().map_while(|byte| char::from(*byte).to_digit(radix)) {
            if length == *digits.end() {
                break;
            }
            code = code * radix + digit;
            length += 1;
        }
        match char::from_u32(code) {
            Some(character) if digits.contains(&length) => {
                self.joined.push(character);
                self.at += introduction + length;
                Ok(())
            }
            None if code < 0xe000 => self.refuse(StoryErrorKind::LoneSurrogate),
            _ => self.refuse(StoryErrorKind::Escape),
        }
    }

    /// Names what is wrong with a token that may not stand here.
    #[cold]
    fn refuse_token(&self) -> Result<(), StoryError> {
        let rest = &self.text[self.at..];
        let name = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let complete = matches!(self.sequence, Sequence::Closed) && self.open_brackets == 0;
        self.refuse(match rest.chars().next() {
            _ if complete => StoryErrorKind::TrailingText,
            _ if (1..=2).contains(&name) && self.is_quote_at(self.at + name) => StoryErrorKind::Prefix,
            first => StoryErrorKind::Unexpected(first.unwrap_or_default()),
        })
    }

    /// The position after the end of line at `at`, if there is one: `\n`, `\r\n` or `\r`.
    fn after_newline(&self, at: usize) -> Option<usize> {
        match self.text.as_bytes().get(at..)? {
            [b'\r', b'\n', ..] => Some(at + 2),
            [b'\n' | b'\r', ..] => Some(at + 1),
            _ => None,
        }
    }

    fn is_quote_at(&self, at: usize) -> bool {
        matches!(self.text.as_bytes().get(at), Some(b'\'' | b'"'))
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn refuse<T>(&self, kind: StoryErrorKind) -> Result<T, StoryError> {
        Err(StoryError { at: self.at, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::StoryErrorKind::*;
    use super::*;

    /// What a literal means: the joined text, or the place and kind of its fault.
    type Meaning = Result<&'static str, (usize, StoryErrorKind)>;

    fn check(cases: &[(&str, Meaning)]) {
        for (text, expected) in cases {
            let mut joined = String::from("an earlier story");
            let meaning = parse_literal(text, &mut joined)
                .map(|()| joined.as_str())
                .map_err(|error| (error.at, error.kind));
            assert_eq!(meaning, *expected, "{text:?}");
        }
    }

    #[test]
    fn a_list_or_tuple_of_strings_is_joined_by_one_blank() {
        check(&[
            ("['Mia left.', 'Chloe ran.']", Ok("Mia left. Chloe ran.")),
            ("('Mia left.', \"Mia's hat.\")", Ok("Mia left. Mia's hat.")),
            ("['one']", Ok("one")),
            ("['one',]", Ok("one")),
            ("('one',)", Ok("one")),
            ("('one'), 'two'", Ok("one two")),
            ("('one'),", Ok("one")),
            ("['', ' ', '']", Ok("   ")),
            ("[('one'), (('two'))]", Ok("one two")),
            ("((['one']))", Ok("one")),
            ("((('one', 'two')))", Ok("one two")),
        ]);
    }

    #[test]
    fn every_spelling_of_a_string_gives_its_value() {
        check(&[
            (r#"["it's", '"', 'é😀']"#, Ok("it's \" é😀")),
            (r"['\\ \' \a\b\f\n\r\t\v']", Ok("\\ ' \x07\x08\x0c\n\r\t\x0b")),
            (r#"["\""]"#, Ok("\"")),
            (r"['\0\7\12\3777\400\777\18']", Ok("\0\x07\n\u{ff}7\u{100}\u{1ff}\u{1}8")),
            (r"['\x41\xff\u00e9\U0001F600\U0010ffff']", Ok("Aÿé😀\u{10ffff}")),
            (r"['\d\é\8\ ']", Ok(r"\d\é\8\ ")),
            (r"[r'\n\'\\\é', R'\x']", Ok(r"\n\'\\\é \x")),
            (r"[u'\n', U'u']", Ok("\n u")),
            ("['''it's\n''', \"\"\"a\"b\"\"\"]", Ok("it's\n a\"b")),
            (r"['''\'''', '''''']", Ok("' ")),
            ("[u'four', r'\\']", Err((11, UnterminatedString))),
            ("[u'four', r'\\n']", Ok("four \\n")),
        ]);
    }

    #[test]
    fn blanks_comments_and_line_ends_between_tokens_do_not_count() {
        check(&[
            (" \t['a']", Ok("a")),
            ("\n\n['a' , \t\x0c'b' ] # end\n\n# more\n", Ok("a b")),
            ("[ # one, 'x'\n 'a' # two\r\n, 'b'\r]", Ok("a b")),
            ("[\\\n'a'\\\r\n,'b'\\\r]\\\n\n", Ok("a b")),
            ("# first\n['a']", Ok("a")),
            ("['a']\n  \n \t# last", Ok("a")),
            ("\n ['a']", Err((2, Indented))),
            ("\n \\\n['a']", Err((4, Indented))),
            ("\x0c ['a']", Err((2, Indented))),
            ("['a']\n  ", Err((8, Indented))),
            ("['a']\\\n", Err((5, Unexpected('\\')))),
            ("['a'\\ \n]", Err((4, Unexpected('\\')))),
            ("\u{a0}['a']", Err((0, Unexpected('\u{a0}')))),
            ("['a',\u{2003}'b']", Err((5, Unexpected('\u{2003}')))),
            ("['a']\u{b}", Err((5, TrailingText))),
        ]);
    }

    #[test]
    fn line_ends_in_strings_are_pythons() {
        check(&[
            ("['''a\r\nb\rc\n\rd''']", Ok("a\nb\nc\n\nd")),
            ("['a\\\nb\\\r\nc\\\rd']", Ok("abcd")),
            ("[r'a\\\r\nb']", Ok("a\\\nb")),
            ("['a\nb']", Err((1, UnterminatedString))),
            ("['a\rb']", Err((1, UnterminatedString))),
            ("['a\u{2028}b\u{85}c']", Ok("a\u{2028}b\u{85}c")),
        ]);
    }

    #[test]
    fn everything_but_strings_is_refused() {
        check(&[
            ("[f'a']", Err((1, Prefix))),
            ("['a', b'b']", Err((6, Prefix))),
            ("[t'a']", Err((1, Prefix))),
            ("[ur'a']", Err((1, Prefix))),
            ("[1]", Err((1, Unexpected('1')))),
            ("['a', None]", Err((6, Unexpected('N')))),
            ("['a' + 'b']", Err((5, Unexpected('+')))),
            ("['a' if x else 'b']", Err((5, Unexpected('i')))),
            ("[*'a']", Err((1, Unexpected('*')))),
            ("[{'a'}]", Err((1, Unexpected('{')))),
            ("[__import__('os')]", Err((1, Unexpected('_')))),
            ("['a'('b')]", Err((4, Unexpected('(')))),
            ("['a'['b']]", Err((4, Unexpected('[')))),
            ("[('a') 'b']", Err((7, Unexpected('\'')))),
            ("['a',,]", Err((5, Unexpected(',')))),
            ("[,]", Err((1, Unexpected(',')))),
            ("['a'\u{7f}]", Err((4, Unexpected('\u{7f}')))),
        ]);
    }

    #[test]
    fn other_shapes_than_one_flat_sequence_are_refused() {
        check(&[
            ("[]", Err((1, Empty))),
            ("['a', ()]", Err((7, Empty))),
            ("('a')", Err((5, NotASequence))),
            ("", Err((0, NotASequence))),
            ("['a', ['b']]", Err((6, Nested))),
            ("[('a',)]", Err((5, Nested))),
            ("(['a'], 'b')", Err((6, Nested))),
            ("['a'],", Err((5, Nested))),
            ("['a'", Err((4, Unclosed))),
            ("(['a']", Err((6, Unclosed))),
            ("['a')", Err((4, UnmatchedBracket))),
            ("('a',]", Err((5, UnmatchedBracket))),
            ("['a']]", Err((5, UnmatchedBracket))),
            ("['a'] 'b'", Err((6, TrailingText))),
            ("['a'].pop()", Err((5, TrailingText))),
            ("['a']\n;", Err((6, TrailingText))),
            ("['a", Err((1, UnterminatedString))),
            ("['a\\", Err((1, UnterminatedString))),
            ("['''a'']", Err((1, UnterminatedString))),
            ("['a\0b']", Err((3, Nul))),
            ("['a'] # \r\0", Err((9, Nul))),
        ]);
    }

    #[test]
    fn escapes_that_are_not_text_are_refused() {
        check(&[
            (r"['\x4']", Err((2, Escape))),
            (r"['\u123g']", Err((2, Escape))),
            (r"['ab\U0001F60']", Err((4, Escape))),
            (r"['\U00110000']", Err((2, Escape))),
            (r"['\Uffffffff']", Err((2, Escape))),
            (r"['\ud800']", Err((2, LoneSurrogate))),
            (r"['\ud83d\ude00']", Err((2, LoneSurrogate))),
            (r"['\U0000dfff']", Err((2, LoneSurrogate))),
            (r"['\N{DASH}']", Err((2, NamedEscape))),
            (r"[r'\N{DASH}\ud800']", Ok(r"\N{DASH}\ud800")),
        ]);
    }

    #[test]
    fn brackets_nest_as_deep_as_in_cpython_and_no_deeper() {
        let nested = |levels: usize| {
            let text = format!("{}'a',{}", "(".repeat(levels), ")".repeat(levels));
            parse_literal(&text, &mut String::new()).map_err(|error| error.kind)
        };
        assert_eq!(nested(200), Ok(()));
        assert_eq!(nested(201), Err(TooDeep));
        assert_eq!(nested(1_000_000), Err(TooDeep));
        let lists = "[".repeat(1_000_000);
        let error = parse_literal(&lists, &mut String::new()).expect_err("refused");
        assert_eq!((error.at, error.kind), (1, Nested));
    }

    #[test]
    fn the_joined_text_is_allocated_once() {
        let text = format!("['{}']", r"\ud7ff\xff\d".repeat(1000));
        let mut joined = String::new();
        parse_literal(&text, &mut joined).expect("a list of strings");
        assert!(joined.capacity() <= text.len());
    }

    #[test]
    fn strings_side_by_side_are_a_list_that_numpy_printed() {
        check(&[
            ("['a.' 'b.']", Err((6, Adjacent))),
            ("['a.'\n 'b.']", Err((7, Adjacent))),
            ("['a', 'b' u'c']", Err((11, Adjacent))),
            ("('a' \"b\")", Err((5, Adjacent))),
            ("['a'r'b']", Err((5, Adjacent))),
        ]);
    }

    /// The form of each of `texts`, all of which are usable.
    fn check_form(texts: &[&str], expected: StoryForm) {
        for text in texts {
            let mut joined = String::new();
            let (story, form) = read(text, &mut joined).expect(text);
            assert_eq!(form, expected, "{text:?}");
            assert!(form == StoryForm::List || story == *text);
        }
    }

    fn check_refused(texts: &[&str], expected: StoryErrorKind) {
        for text in texts {
            let error = read(text, &mut String::new()).expect_err(text);
            assert_eq!(error.kind, expected, "{text:?}");
        }
    }

    #[test]
    fn a_bracket_opens_a_literal_only_before_a_string_or_its_closing_bracket() {
        let literals = ["['a']", " \n[ 'a']", "('a',)", "[\u{a0}\"a\",]", "[(u'a')]", "( ( R'a',))"];
        // A no-break space is blank to a person, and nothing to Python.
        check_form(&literals[..3], StoryForm::List);
        check_form(&literals[4..], StoryForm::List);
        check_refused(&literals[3..4], Unexpected('\u{a0}'));
        check_form(
            &[
                "[Scene 1] Ada came.",
                "(Ada enters.) Bo left.",
                "\u{3000}[1]",
                "[None]",
                "(",
                "[[",
                "[)",
                "(]",
                "[I'm here.] Bo left.",
                "[Xr'a']",
                "[*'a']",
                "(‘Hello,’ said Ada.)",
                "[# 'a'\n'b']",
            ],
            StoryForm::BracketedProse,
        );
        check_form(
            &["", "  ", "Mia left [the room].", "'a', 'b'", "\u{200b}[", "\u{feff}['a']"],
            StoryForm::Prose,
        );
        check_refused(&["[]", "( )", "[()]"], Empty);
        check_refused(&["[b'a']", "[F\"a\"]", "[Rb'a']", "[t'a']", "[ur'a']"], Prefix);
        check_refused(&["[['a'], ['b']]"], Nested);
        check_refused(&["['a'] and more"], TrailingText);
    }

    #[test]
    fn what_a_program_printed_is_no_story() {
        for word in MISSING {
            check_refused(&[word, &format!(" {word}\n"), &format!("['{word}']")], Missing(word));
        }
        check_refused(
            &["array(['Ada came.', 'Bo (left).'], dtype=object)", "\narray([\")\", 'a'])\n"],
            Array,
        );
        check_refused(&["b'Ada came.'", "b\"Ada's\" "], Bytes);
        check_refused(&[r"b'a\'b'"], Bytes);
        check_form(
            &[
                "nan came.",
                "Nan",
                "none",
                "array(s) of boxes (red)",
                "array(",
                "array(')",
                "b'a' left.",
                "b'a",
                "b'a\\",
                "b",
                "b'a' and 'b'",
            ],
            StoryForm::Prose,
        );
    }

    #[test]
    fn an_error_reads_as_a_fragment_with_its_place() {
        let error = parse_literal("['a', \u{1b}]", &mut String::new()).expect_err("refused");
        let message = r"unexpected `\u{1b}` in the list of strings (byte 6 of the story)";
        assert_eq!(error.to_string(), message);
    }
}
