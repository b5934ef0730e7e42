//! JSON as Python's `json` reads it, token by token.
//!
//! Python also takes `NaN`, `Infinity`, `-Infinity`, half a surrogate pair in a string, and numbers of
//! any size; JSON parsers refuse them. `prepare` accepts such values where nobody uses them, `check`
//! reports them, and answers of services may hold them: all read here, so that they mean the same and
//! use the same words. It never recurses, keeps one byte for each open bracket, and decides nothing.

use serde_json::Value;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `[` or `{`.
    Open,
    /// `]` or `}`.
    Close,
    /// `,`
    Comma,
    /// `:`
    Colon,
    /// The name of a member of an object, and where the first half of a surrogate pair stands in it.
    Key(Option<usize>),
    /// A string, likewise.
    String(Option<usize>),
    /// A number of JSON's grammar, of any size.
    Number,
    /// `NaN`, `Infinity` or `-Infinity`.
    NonFinite,
    /// `true`, `false` or `null`.
    Word,
}

/// One token; offsets are bytes of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub start: usize,
    /// The byte behind it.
    pub end: usize,
    /// How many brackets hold it; a bracket holds itself.
    pub depth: usize,
}

/// The most brackets that may be open in a document of a service.
const MOST_DEPTH: usize = 120;

/// The document in `bytes`, as a service wrote it. A number that is none (`NaN`, `Infinity`, one beyond the
/// largest double) is `null`: it is a gap, and no reason to refuse the rest.
pub fn read(bytes: &[u8]) -> Option<Value> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Some(value);
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let mut finite = String::with_capacity(text.len());
    let mut tokens = Tokens::new(text, MOST_DEPTH);
    while let Some(token) = tokens.next_token().ok()? {
        let written = &text[token.start..token.end];
        let is_number = match token.kind {
            Kind::NonFinite => false,
            Kind::Number => written.parse().is_ok_and(f64::is_finite),
            _ => true,
        };
        finite.push_str(if is_number { written } else { "null" });
    }
    serde_json::from_str(&finite).ok()
}

/// Why Python refuses a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// The byte at which it is seen.
    pub at: usize,
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// It breaks the grammar.
    Syntax(&'static str),
    /// A string holds this byte without an escape.
    Control(u8),
    /// More brackets are open than allowed.
    TooDeep,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    /// Behind `[`.
    ValueOrEnd,
    Key,
    /// Behind `{`.
    KeyOrEnd,
    Colon,
    /// Behind a value.
    CommaOrEnd,
}

/// The tokens of one document.
pub struct Tokens<'t> {
    bytes: &'t [u8],
    at: usize,
    /// The brackets that are open.
    open: Vec<u8>,
    next: Next,
    max_depth: usize,
}

impl<'t> Tokens<'t> {
    /// The tokens of `text`, in which at most `max_depth` brackets may be open.
    pub fn new(text: &'t str, max_depth: usize) -> Self {
        Tokens { bytes: text.as_bytes(), at: 0, open: Vec::new(), next: Next::Value, max_depth }
    }

    /// The next token; none at the end of the document.
    ///
    /// # Errors
    /// When Python refuses the text here.
    pub fn next_token(&mut self) -> Result<Option<Token>, Fault> {
        self.at += self.rest().iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        let start = self.at;
        if self.next == Next::CommaOrEnd && self.open.is_empty() {
            return match self.peek() {
                None => Ok(None),
                Some(_) => Err(self.syntax("something behind the document")),
            };
        }
        let before = self.open.len();
        let kind = self.token()?;
        Ok(Some(Token { kind, start, end: self.at, depth: before.max(self.open.len()) }))
    }

    fn token(&mut self) -> Result<Kind, Fault> {
        match (self.next, self.peek(), self.open.last()) {
            (_, None, _) => Err(self.syntax("the text ends within the document")),
            (Next::ValueOrEnd | Next::CommaOrEnd, Some(b']'), Some(b'['))
            | (Next::KeyOrEnd | Next::CommaOrEnd, Some(b'}'), Some(b'{')) => {
                self.open.pop();
                Ok(self.take(1, Kind::Close, Next::CommaOrEnd))
            }
            (Next::CommaOrEnd, Some(b','), Some(open)) => {
                let next = if *open == b'{' { Next::Key } else { Next::Value };
                Ok(self.take(1, Kind::Comma, next))
            }
            (Next::CommaOrEnd, _, Some(b'{')) => Err(self.syntax("expected `,` or `}`")),
            (Next::CommaOrEnd, _, _) => Err(self.syntax("expected `,` or `]`")),
            (Next::Key | Next::KeyOrEnd, Some(b'"'), _) => {
                let half = self.string()?;
                Ok(self.take(0, Kind::Key(half), Next::Colon))
            }
            (Next::Key | Next::KeyOrEnd, _, _) => Err(self.syntax("expected a key in quotes")),
            (Next::Colon, Some(b':'), _) => Ok(self.take(1, Kind::Colon, Next::Value)),
            (Next::Colon, _, _) => Err(self.syntax("expected `:` behind a key")),
            (Next::Value | Next::ValueOrEnd, Some(byte), _) => self.value(byte),
        }
    }

    fn value(&mut self, byte: u8) -> Result<Kind, Fault> {
        if matches!(byte, b'[' | b'{') {
            if self.open.len() == self.max_depth {
                return Err(Fault { kind: FaultKind::TooDeep, at: self.at });
            }
            self.open.push(byte);
            let next = if byte == b'{' { Next::KeyOrEnd } else { Next::ValueOrEnd };
            return Ok(self.take(1, Kind::Open, next));
        }
        let words = ["true", "false", "null"].map(|word| (word, Kind::Word));
        let others = ["NaN", "Infinity", "-Infinity"].map(|word| (word, Kind::NonFinite));
        let mut words = words.into_iter().chain(others);
        if let Some((word, kind)) = words.find(|(word, _)| self.rest().starts_with(word.as_bytes())) {
            return Ok(self.take(word.len(), kind, Next::CommaOrEnd));
        }
        let kind = match byte {
            b'"' => Kind::String(self.string()?),
            b'-' | b'0'..=b'9' => {
                self.number()?;
                Kind::Number
            }
            _ => return Err(self.syntax("expected a value")),
        };
        Ok(self.take(0, kind, Next::CommaOrEnd))
    }

    fn take(&mut self, bytes: usize, kind: Kind, next: Next) -> Kind {
        self.at += bytes;
        self.next = next;
        kind
    }

    fn number(&mut self) -> Result<(), Fault> {
        self.at += usize::from(self.peek() == Some(b'-'));
        let whole = self.digits();
        if whole == 0 {
            return Err(self.syntax("expected a digit"));
        }
        if whole > 1 && self.bytes[self.at - whole] == b'0' {
            // Python reads the zero alone, and then wants a comma.
            self.at -= whole - 1;
            return Err(self.syntax("a number that begins with 0"));
        }
        // A point or an `e` without digits is left where it is, and is no comma.
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.at -= usize::from(self.digits() == 0);
        }
        let mark = self.at;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                self.at = mark;
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        digits
    }

    /// Passes a string; gives where the first half of a surrogate pair stands in it.
    fn string(&mut self) -> Result<Option<usize>, Fault> {
        self.at += 1;
        let mut half = None;
        loop {
            self.at += self.rest().iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count();
            match self.peek() {
                None => return Err(self.syntax("the text ends within a string")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(half);
                }
                Some(b'\\') => {
                    let escape = Escape::at(self.bytes, self.at).map_err(|reason| self.syntax(reason))?;
                    if matches!(escape, Escape::Half(_)) {
                        half.get_or_insert(self.at);
                    }
                    self.at += escape.length();
                }
                Some(byte) => return Err(Fault { kind: FaultKind::Control(byte), at: self.at }),
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'t [u8] {
        &self.bytes[self.at..]
    }

    fn syntax(&self, reason: &'static str) -> Fault {
        Fault { kind: FaultKind::Syntax(reason), at: self.at }
    }
}

/// What a backslash in a JSON string begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// A backslash and one character.
    Short,
    /// `\uXXXX` for a character.
    Unit,
    /// Two of them for one character.
    Pair,
    /// Half of a surrogate pair without the other half.
    Half(u16),
}

impl Escape {
    /// The escape at the backslash at `at`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn at(bytes: &[u8], at: usize) -> Result<Escape, &'static str> {
        match bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(Escape::Short),
            Some(b'u') => {
                let unit = unit(bytes, at).ok_or("`\\u` without four hexadecimal digits")?;
                let has_low = || unit_at_is_low(bytes, at + 6);
                Ok(match unit {
                    0xd800..0xdc00 if has_low() => Escape::Pair,
                    0xd800..0xe000 => Escape::Half(unit),
                    _ => Escape::Unit,
                })
            }
            _ => Err("a backslash before something that it does not escape"),
        }
    }

    /// Its bytes.
    pub fn length(self) -> usize {
        match self {
            Escape::Short => 2,
            Escape::Unit | Escape::Half(_) => 6,
            Escape::Pair => 12,
        }
    }
}

fn unit_at_is_low(bytes: &[u8], at: usize) -> bool {
    unit(bytes, at).is_some_and(|low| (0xdc00..0xe000).contains(&low))
}

/// The value of the `\uXXXX` at `at`, if one is there.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)? as u16))
}

/// What is said of `NaN` and its like, here `word`.
pub fn non_finite(word: &str) -> String {
    format!("`{word}` is no JSON, though Python writes and reads it")
}

/// What is said of half a surrogate pair, here `unit`.
pub fn half_of_a_character(unit: u16) -> String {
    format!("`\\u{unit:04x}` is half of a character, without the other half")
}
