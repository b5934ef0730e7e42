//! The text of a `.env` file as name and value pairs, read as python-dotenv 1.2 reads it.
//!
//! Own code because no crate agrees with python-dotenv, which reads the same file in the user's own
//! scripts: a test compares the two on generated files. Pure text: what a line that is not understood
//! means for a run is `environment`'s decision. One difference: a line that is not UTF-8 is skipped
//! like any other that is not understood, where python-dotenv refuses the whole file.

use std::collections::BTreeMap;

use ctxtune_pipeline::env;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dotenv {
    /// Values by name; a name without `=` has none and is left out.
    pub variables: BTreeMap<String, String>,
    pub skipped: Vec<Skipped>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// The line it begins on, from 1.
    pub line: usize,
    /// Whether a name of [`env::SERVICES`] stands in it.
    pub names_service: bool,
}

/// Reads `bytes`; `${NAME}` is the value of `NAME` in `process`, else the one that the file gave it before.
/// Nothing where the file is not text in UTF-8 but, say, in UTF-16.
pub fn read(bytes: &[u8], process: &BTreeMap<String, String>) -> Option<Dotenv> {
    // No variable holds a NUL; in UTF-16, which PowerShell writes, every other byte is one.
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.contains(&0) {
        return None;
    }
    let text = Text::decode(bytes);
    let mut reader = Reader { text: &text.decoded, at: 0 };
    let (mut values, mut skipped) = (BTreeMap::<String, Option<String>>::new(), Vec::new());
    let (mut line, mut counted) = (1, 0);
    while reader.skip_spaces() {
        let start = reader.at;
        line += newlines(&text.decoded[counted..start]);
        counted = start;
        let statement = reader.statement();
        if statement.is_none() {
            reader.skip_line();
        }
        match statement.filter(|statement| !text.is_damaged(start, statement.end)) {
            Some(Statement { name: Some(name), value, .. }) => {
                let value = value.map(|value| expanded(&value, process, &values));
                values.insert(name, value);
            }
            Some(Statement { name: None, .. }) => {}
            None => {
                let names_service = names_service(&text.decoded[start..reader.at]);
                skipped.push(Skipped { line, names_service });
            }
        }
    }
    let variables = values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    Some(Dotenv { variables, skipped })
}

/// A file's text without byte order mark and carriage returns.
struct Text {
    decoded: String,
    /// Where in it bytes stood that are not UTF-8.
    damaged: Vec<usize>,
}

impl Text {
    fn decode(bytes: &[u8]) -> Text {
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let mut text = Text { decoded: String::with_capacity(bytes.len()), damaged: Vec::new() };
        let mut after_return = false;
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\n' if after_return => {}
                    '\r' => text.decoded.push('\n'),
                    character => text.decoded.push(character),
                }
                after_return = character == '\r';
            }
            if !chunk.invalid().is_empty() {
                after_return = false;
                text.damaged.push(text.decoded.len());
                text.decoded.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    fn is_damaged(&self, start: usize, end: usize) -> bool {
        let first = self.damaged.partition_point(|&at| at < start);
        self.damaged.get(first).is_some_and(|&at| at < end)
    }
}

/// One statement: a binding, or a comment, which has no name.
struct Statement {
    name: Option<String>,
    value: Option<String>,
    /// Where name and value end; a comment may follow.
    end: usize,
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, is_wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|character| !is_wanted(character)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Skips white space, over lines; whether something follows.
    fn skip_spaces(&mut self) -> bool {
        self.take(is_space);
        self.at < self.text.len()
    }

    fn skip_line(&mut self) {
        self.take(|character| character != '\n');
        self.take_newline();
    }

    fn take_newline(&mut self) -> bool {
        let is_newline = self.rest().starts_with('\n');
        self.at += usize::from(is_newline);
        is_newline
    }

    /// Reads one statement with the end of its line. Nothing where it is none; then the rest of the line is
    /// still to be read.
    fn statement(&mut self) -> Option<Statement> {
        self.skip_export();
        let name = match self.peek() {
            Some('#') => None,
            Some('\'') => Some(self.quoted_name()?),
            _ => Some(self.take(|character| !is_space(character) && !"=#".contains(character)))
                .filter(|name| !name.is_empty())
                .map(|name| Some(name.to_owned()))?,
        };
        let mut end = self.at;
        self.take(is_blank);
        let mut value = None;
        if self.rest().starts_with('=') {
            self.at += 1;
            let blanks = self.take(is_blank);
            // `NAME= # comment` has no value, `NAME=#value` has one.
            let is_comment = !blanks.is_empty() && self.rest().starts_with('#');
            let (text, its_end) = if is_comment { (String::new(), self.at) } else { self.value()? };
            (value, end) = (Some(text), its_end);
        }
        self.take(is_blank);
        if self.rest().starts_with('#') {
            self.take(|character| character != '\n');
        }
        let is_whole = self.take_newline() || self.rest().is_empty();
        is_whole.then_some(Statement { name, value, end })
    }

    fn skip_export(&mut self) {
        if let Some(after) = self.rest().strip_prefix("export")
            && after.starts_with(is_blank)
        {
            self.at += "export".len();
            self.take(is_blank);
        }
    }

    /// `'name'`, which may hold anything but a quote.
    fn quoted_name(&mut self) -> Option<String> {
        let (name, _) = self.rest().get(1..)?.split_once('\'')?;
        self.at += name.len() + 2;
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn value(&mut self) -> Option<(String, usize)> {
        match self.peek() {
            Some('\'') => self.quoted_value('\'', |escaped| "\\'".contains(escaped).then_some(escaped)),
            Some('"') => self.quoted_value('"', double_quote_escape),
            _ => {
                let start = self.at;
                let line = self.take(|character| character != '\n');
                let value = without_comment(line).trim_end_matches(is_space);
                Some((value.to_owned(), start + value.len()))
            }
        }
    }

    /// A value between quotes, over lines. A backslash keeps the quote after it from being the end; what it
    /// stands for with the next character is `decode`'s, and it stays where that is nothing.
    fn quoted_value(
        &mut self,
        quote: char,
        decode: impl Fn(char) -> Option<char>,
    ) -> Option<(String, usize)> {
        let mut value = String::new();
        let mut characters = self.rest().char_indices().skip(1);
        loop {
            match characters.next()? {
                (at, character) if character == quote => {
                    self.at += at + 1;
                    return Some((value, self.at));
                }
                (_, '\\') => {
                    let (_, escaped) = characters.next()?;
                    match decode(escaped) {
                        Some(decoded) => value.push(decoded),
                        None => value.extend(['\\', escaped]),
                    }
                }
                (_, character) => value.push(character),
            }
        }
    }
}

/// What `\x` stands for between double quotes.
fn double_quote_escape(escaped: char) -> Option<char> {
    Some(match escaped {
        '\\' | '\'' | '"' => escaped,
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        _ => return None,
    })
}

/// `line` up to the first `#` behind white space.
fn without_comment(line: &str) -> &str {
    let is_comment = |(at, _): &(usize, &str)| line[..*at].ends_with(is_space);
    line.match_indices('#').find(is_comment).map_or(line, |(at, _)| &line[..at])
}

/// White space as Python's `\s` knows it.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

fn is_blank(character: char) -> bool {
    is_space(character) && character != '\n'
}

fn newlines(text: &str) -> usize {
    text.matches('\n').count()
}

/// `value` with `${NAME}` and `${NAME:-default}` replaced. A name that nobody knows is empty.
fn expanded(
    value: &str,
    process: &BTreeMap<String, String>,
    before: &BTreeMap<String, Option<String>>,
) -> String {
    let (mut text, mut rest) = (String::new(), value);
    while let Some(start) = rest.find("${") {
        let Some((name, default, end)) = variable(&rest[start + 2..]) else {
            text.push_str(&rest[..start + 2]);
            rest = &rest[start + 2..];
            continue;
        };
        text.push_str(&rest[..start]);
        text.push_str(match (process.get(name), before.get(name)) {
            (Some(value), _) => value,
            (None, Some(value)) => value.as_deref().unwrap_or_default(),
            (None, None) => default,
        });
        rest = &rest[start + 2 + end..];
    }
    text + rest
}

/// The name and the default of a variable, and where what follows its `}` begins.
fn variable(text: &str) -> Option<(&str, &str, usize)> {
    let (inside, _) = text.split_once('}')?;
    let end = inside.len() + 1;
    match inside.split_once(':') {
        None => Some((inside, "", end)),
        Some((name, default)) => Some((name, default.strip_prefix('-')?, end)),
    }
}

fn names_service(text: &str) -> bool {
    let words = text.split(|character: char| character != '_' && !character.is_ascii_alphanumeric());
    words.into_iter().any(|word| env::SERVICES.iter().any(|service| word.starts_with(service)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variables, and the lines that are not understood; one that names a service is negative.
    #[track_caller]
    fn check(text: impl AsRef<[u8]>, variables: &[(&str, &str)], skipped: &[i64]) {
        let process = BTreeMap::from([("HOME".to_owned(), "/home/mia".to_owned())]);
        let file = read(text.as_ref(), &process).unwrap();
        let expected = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        assert_eq!(file.variables, expected.collect());
        let sign = |skipped: &Skipped| skipped.line as i64 * if skipped.names_service { -1 } else { 1 };
        assert_eq!(file.skipped.iter().map(sign).collect::<Vec<_>>(), skipped);
    }

    #[test]
    fn what_people_write_is_read() {
        check(
            "A=1\nB = 2\nexport C=3\n# D=4\n\nE=\nF\n",
            &[("A", "1"), ("B", "2"), ("C", "3"), ("E", "")],
            &[],
        );
        check(
            "A=hello world\nMY-VAR=it's\nJ={\"a\": 1}",
            &[("A", "hello world"), ("MY-VAR", "it's"), ("J", "{\"a\": 1}")],
            &[],
        );
        check(
            "A='x \\' y'\nB=\"x\\ty\\z\"#c\nC=a #c\nD=a#b\nE= #c",
            &[("A", "x ' y"), ("B", "x\ty\\z"), ("C", "a"), ("D", "a#b"), ("E", "")],
            &[],
        );
        check("A='one\n# two'\nB=2", &[("A", "one\n# two"), ("B", "2")], &[]);
    }

    #[test]
    fn a_byte_order_mark_and_carriage_returns_are_no_part_of_it() {
        check("\u{feff}A=1\r\nB=2\rC='3\r\n4'\r\n", &[("A", "1"), ("B", "2"), ("C", "3\n4")], &[]);
    }

    #[test]
    fn a_variable_is_replaced_and_the_process_wins() {
        check(
            "A=1\nB=${A}/${HOME}\nHOME=/root\nC='${NO:-x}${NO}'\nA\nD=${A:-x}",
            &[("B", "1//home/mia"), ("C", "x"), ("D", ""), ("HOME", "/root")],
            &[],
        );
        check("A=$HOME ${HOME ${B:x}${C", &[("A", "$HOME ${HOME ${B:x}${C")], &[]);
    }

    #[test]
    fn a_statement_that_is_not_understood_is_skipped_alone_and_its_line_named() {
        check("A=1\n\nB C\n=3\nD=4\n", &[("A", "1"), ("D", "4")], &[3, 4]);
        check("A=\"x\nB=2\n", &[("B", "2")], &[1]);
        check("A=\"x\n\" y\nB=2\n", &[("B", "2")], &[1]);
        check(
            "TOGETHER_API_KEY: x\nexport WANDB_MODE disabled\nMY_HF_HOME x\nA HF_TOKEN",
            &[],
            &[-1, -2, 3, -4],
        );
        check("A=\"x\nOPENAI_API_KEY=\"y\"\n", &[], &[-1]);
    }

    #[test]
    fn what_is_not_utf8_is_skipped_unless_it_is_a_comment() {
        check(b"A=Ren\xe9\nB=2 # \xe9\n# \xe9\nC\xe9=3\n\xe9", &[("B", "2")], &[1, 4, 5]);
        assert_eq!(read(b"\xff\xfeA\0=\x001\0", &BTreeMap::new()), None);
        assert_eq!(read(b"A\0=\x001\0", &BTreeMap::new()), None);
    }
}
