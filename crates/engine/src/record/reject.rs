//! Why a record was refused, and the log that keeps every refusal in rank order.
//!
//! A bad record is data, not an error: it gets a stable [`Code`], a sentence and a
//! place. The log lives in a file, not in memory, because a corpus can be all bad;
//! its validation half arrives from the highest rank downward and is turned round
//! when it is copied out. Nothing here decides whether a run fails: see `RejectLimit`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use serde::Serialize;

use crate::json::KeyText;
use crate::ratio::Ratio;

/// The stable name of a reason. New codes may be added; none changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The record is larger than `--max-record-bytes`.
    TooLarge,
    /// Nothing, or only blanks.
    Empty,
    /// Not UTF-8 text, or text with NUL bytes.
    Encoding,
    /// Not one JSON document.
    JsonSyntax,
    /// Nested deeper than 1,024 levels.
    TooDeep,
    /// A `\ud800`–`\udfff` escape without its other half, in a used key or a key's name.
    LoneSurrogate,
    /// `NaN`, `Infinity` or `-Infinity` in a used key.
    NonFinite,
    /// A number that no 64-bit integer or double holds, in a used key.
    NumberRange,
    /// A key given twice in an object whose content is used.
    DuplicateKey,
    /// A required key is absent.
    MissingKey,
    /// A used key holds something of another type.
    WrongType,
    /// `agents_names` is empty.
    NoAgents,
    /// The context has no timestep.
    NoSteps,
    /// The story looks like a Python literal and is not a list or tuple of strings.
    StoryLiteral,
    /// The story has no text.
    EmptyStory,
    /// An item of a list of observations or actions is not `agent: text`.
    AgentItem,
    /// An agent appears twice in one list of observations or actions.
    RepeatedAgent,
    /// The field given to `--group-by` is absent or not a string.
    GroupField,
    /// A member of an archive that is no plain file below it.
    HostileMember,
    /// In a chat line: `messages` is not a list of at least one object.
    Messages,
    /// In a chat line: a role is missing, no string, or unknown.
    Role,
    /// In a chat line: two messages of one role in a row.
    Alternation,
    /// In a chat line: no message is the assistant's.
    NoAssistant,
    /// In a chat line: a content is missing or neither text nor a list of parts.
    Content,
    /// In a chat line: texts and lists of parts.
    MixedContent,
    /// In a chat line: an image that no model takes.
    Image,
    /// In a chat line: too many images.
    ImageCount,
    /// In a chat line: a weight that is none.
    Weight,
    /// In a chat line: `tool_calls` where they cannot be, or malformed.
    ToolCalls,
    /// In a chat line: `tools` is not a list of objects.
    Tools,
    /// In a chat line: a reasoning that is not the assistant's, or no text.
    Reasoning,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: [Code; 31] = [
        Code::TooLarge,
        Code::Empty,
        Code::Encoding,
        Code::JsonSyntax,
        Code::TooDeep,
        Code::LoneSurrogate,
        Code::NonFinite,
        Code::NumberRange,
        Code::DuplicateKey,
        Code::MissingKey,
        Code::WrongType,
        Code::NoAgents,
        Code::NoSteps,
        Code::StoryLiteral,
        Code::EmptyStory,
        Code::AgentItem,
        Code::RepeatedAgent,
        Code::GroupField,
        Code::HostileMember,
        Code::Messages,
        Code::Role,
        Code::Alternation,
        Code::NoAssistant,
        Code::Content,
        Code::MixedContent,
        Code::Image,
        Code::ImageCount,
        Code::Weight,
        Code::ToolCalls,
        Code::Tools,
        Code::Reasoning,
    ];

    /// The code as it stands in `rejects.jsonl` and in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::TooLarge => "too_large",
            Code::Empty => "empty",
            Code::Encoding => "encoding",
            Code::JsonSyntax => "json_syntax",
            Code::TooDeep => "too_deep",
            Code::LoneSurrogate => "lone_surrogate",
            Code::NonFinite => "non_finite",
            Code::NumberRange => "number_range",
            Code::DuplicateKey => "duplicate_key",
            Code::MissingKey => "missing_key",
            Code::WrongType => "wrong_type",
            Code::NoAgents => "no_agents",
            Code::NoSteps => "no_steps",
            Code::StoryLiteral => "story_literal",
            Code::EmptyStory => "empty_story",
            Code::AgentItem => "agent_item",
            Code::RepeatedAgent => "repeated_agent",
            Code::GroupField => "group_field",
            Code::HostileMember => "hostile_member",
            Code::Messages => "messages",
            Code::Role => "role",
            Code::Alternation => "alternation",
            Code::NoAssistant => "no_assistant",
            Code::Content => "content",
            Code::MixedContent => "mixed_content",
            Code::Image => "image",
            Code::ImageCount => "image_count",
            Code::Weight => "weight",
            Code::ToolCalls => "tool_calls",
            Code::Tools => "tools",
            Code::Reasoning => "reasoning",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Why one record was refused: a code, a sentence, and where in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectReason {
    /// The stable name.
    pub code: Code,
    /// What is wrong, as a sentence fragment.
    pub reason: String,
    /// Where: a field path (`socialized_context.agents_names[1]`), or `line 3 column 14`; may be empty.
    pub at: String,
}

impl RejectReason {
    /// A reason at the field `at`.
    pub fn new(code: Code, reason: impl Into<String>, at: impl Into<String>) -> Self {
        RejectReason { code, reason: reason.into(), at: at.into() }
    }

    /// The same reason, seen from the object that holds it: `at` gains `outer` in front.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.at = match self.at.as_str() {
            "" => outer.to_owned(),
            inner if inner.starts_with('[') => format!("{outer}{inner}"),
            inner => format!("{outer}.{inner}"),
        };
        self
    }
}

/// One line of `rejects.jsonl`.
#[derive(Debug, Clone, Serialize)]
pub struct Reject<'a> {
    /// The record's key.
    pub key: KeyText<'a>,
    /// The stable name of the reason.
    pub code: &'static str,
    /// What is wrong.
    pub reason: &'a str,
    /// Where in the record; `null` where the whole record is meant.
    pub at: Option<&'a str>,
}

/// How many rejects a run bears before it publishes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectLimit {
    /// At most this many records.
    Count(u64),
    /// At most this part of the records listed.
    Part(Ratio),
}

impl RejectLimit {
    /// Whether `rejected` of `listed` records are more than the limit allows.
    pub fn is_exceeded(self, rejected: u64, listed: u64) -> bool {
        match self {
            RejectLimit::Count(limit) => rejected > limit,
            RejectLimit::Part(ratio) => ratio.is_exceeded_by(rejected, listed),
        }
    }
}

impl std::str::FromStr for RejectLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let explain = || "expected a number of records such as 20, or a percentage such as 5%".to_owned();
        match text.strip_suffix('%') {
            Some(percent) => {
                let part = Ratio::from_percent(percent).ok_or_else(explain)?;
                Ok(RejectLimit::Part(part))
            }
            None => text.parse().map(RejectLimit::Count).map_err(|_| explain()),
        }
    }
}

impl fmt::Display for RejectLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RejectLimit::Count(limit) => write!(formatter, "{limit}"),
            RejectLimit::Part(ratio) => write!(formatter, "{}%", ratio.percent()),
        }
    }
}

/// How many records were refused, and for what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RejectCounts(BTreeMap<&'static str, u64>);

impl RejectCounts {
    /// The counts under these names of codes.
    pub fn of(by_code: &BTreeMap<String, u64>) -> RejectCounts {
        let known = Code::ALL.into_iter().map(Code::as_str);
        RejectCounts(known.filter_map(|code| Some((code, *by_code.get(code)?))).collect())
    }

    /// The number of all rejects.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The codes that occurred with their numbers, in alphabetical order.
    pub fn by_code(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(code, count)| (*code, *count))
    }
}

/// The rejects of one run as JSON lines in a file, readable in rank order.
///
/// Two halves: the ascending one (train) is written as it comes; of the descending one
/// (validation) the length of each line is kept too, 4 bytes a reject, so that it can be
/// read backward.
#[derive(Debug)]
pub struct RejectLog {
    ascending: BufWriter<File>,
    descending: BufWriter<File>,
    descending_lengths: Vec<u32>,
    /// Of lines that are mixed in: behind the others, and counted by whoever mixes.
    mixed: BufWriter<File>,
    first_mixed: Option<String>,
    counts: RejectCounts,
}

impl RejectLog {
    /// A log in two unlinked temporary files below `dir`, or in the system's place for them.
    ///
    /// # Errors
    /// When no temporary file can be made.
    pub fn create(dir: Option<&std::path::Path>) -> io::Result<Self> {
        let unlinked = || match dir {
            Some(dir) => tempfile::tempfile_in(dir),
            None => tempfile::tempfile(),
        };
        Ok(RejectLog {
            ascending: BufWriter::new(unlinked()?),
            descending: BufWriter::new(unlinked()?),
            descending_lengths: Vec::new(),
            mixed: BufWriter::new(unlinked()?),
            first_mixed: None,
            counts: RejectCounts::default(),
        })
    }

    /// How many there are so far, by code.
    pub fn counts(&self) -> &RejectCounts {
        &self.counts
    }

    /// Adds a reject of higher rank than all added by this function before.
    ///
    /// # Errors
    /// When the temporary file cannot be written.
    pub fn push_ascending(&mut self, key: &[u8], reason: &RejectReason) -> io::Result<()> {
        self.count(reason);
        self.ascending.write_all(&line(key, reason)?)
    }

    /// Adds a reject of a line that was to be mixed in. It is named behind all others, and not counted.
    ///
    /// # Errors
    /// When the temporary file cannot be written.
    pub fn push_mixed(&mut self, key: &[u8], reason: &RejectReason) -> io::Result<()> {
        if self.first_mixed.is_none() {
            self.first_mixed =
                Some(format!("{}: {}: {}", String::from_utf8_lossy(key), reason.code, reason.reason));
        }
        self.mixed.write_all(&line(key, reason)?)
    }

    /// The first of those, as people read it.
    pub fn first_mixed(&self) -> Option<&str> {
        self.first_mixed.as_deref()
    }

    /// Adds a reject of lower rank than all added by this function before.
    ///
    /// # Errors
    /// When the temporary file cannot be written.
    pub fn push_descending(&mut self, key: &[u8], reason: &RejectReason) -> io::Result<()> {
        self.count(reason);
        let line = line(key, reason)?;
        let length = u32::try_from(line.len()).expect("a key and a reason are far below 4 GiB");
        self.descending_lengths.push(length);
        self.descending.write_all(&line)
    }

    fn count(&mut self, reason: &RejectReason) {
        *self.counts.0.entry(reason.code.as_str()).or_default() += 1;
    }

    /// Writes every reject to `out` as JSON lines, from the lowest rank to the highest.
    ///
    /// # Errors
    /// When a temporary file cannot be read or `out` cannot be written.
    pub fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.ascending.flush()?;
        self.descending.flush()?;
        self.mixed.flush()?;
        let ascending = self.ascending.get_mut();
        ascending.seek(SeekFrom::Start(0))?;
        io::copy(ascending, out)?;

        let descending = self.descending.get_mut();
        let mut end = descending.seek(SeekFrom::End(0))?;
        let mut line = Vec::new();
        for &length in self.descending_lengths.iter().rev() {
            end -= u64::from(length);
            line.resize(length as usize, 0);
            descending.seek(SeekFrom::Start(end))?;
            descending.read_exact(&mut line)?;
            out.write_all(&line)?;
        }
        self.mixed.get_mut().seek(SeekFrom::Start(0))?;
        io::copy(self.mixed.get_mut(), out)?;
        self.ascending.get_mut().seek(SeekFrom::End(0))?;
        self.descending.get_mut().seek(SeekFrom::End(0))?;
        Ok(())
    }

    /// The first `limit` rejects in rank order, each a line of JSON without its newline.
    ///
    /// # Errors
    /// When a temporary file cannot be read.
    pub fn first(&mut self, limit: usize) -> io::Result<Vec<String>> {
        let mut lines = FirstLines { limit, lines: vec![Vec::new()] };
        match self.write_to(&mut lines) {
            Err(error) if error.kind() != io::ErrorKind::WriteZero => return Err(error),
            _ => {}
        }
        lines.lines.truncate(limit);
        let complete = lines.lines.into_iter().filter(|line| !line.is_empty());
        complete.map(|line| String::from_utf8(line).map_err(io::Error::other)).collect()
    }
}

/// A reject as a line of `rejects.jsonl`, newline included.
///
/// # Errors
/// None that is known: text is JSON.
pub fn line(key: &[u8], reason: &RejectReason) -> io::Result<Vec<u8>> {
    let at = Some(reason.at.as_str()).filter(|at| !at.is_empty());
    let reject = Reject { key: KeyText(key), code: reason.code.as_str(), reason: &reason.reason, at };
    let mut line = serde_json::to_vec(&reject).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

/// Takes lines until it has enough, then refuses more.
struct FirstLines {
    limit: usize,
    lines: Vec<Vec<u8>>,
}

impl Write for FirstLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if self.lines.len() > self.limit {
                return Ok(0);
            }
            match byte {
                b'\n' => self.lines.push(Vec::new()),
                byte => self.lines.last_mut().expect("it begins with one line").push(byte),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_come_out_in_rank_order() {
        let mut log = RejectLog::create(None).unwrap();
        let reason = RejectReason::new(Code::Empty, "no bytes", "");
        log.push_ascending(b"rank0", &reason).unwrap();
        log.push_descending(b"rank9", &reason).unwrap();
        log.push_ascending(b"rank1", &reason).unwrap();
        log.push_descending(b"rank8", &reason).unwrap();
        let keys = |lines: Vec<String>| -> Vec<String> {
            let key = |line: String| {
                let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                line["key"].as_str().unwrap().to_owned()
            };
            lines.into_iter().map(key).collect()
        };
        assert_eq!(keys(log.first(5).unwrap()), ["rank0", "rank1", "rank8", "rank9"]);
        assert_eq!(keys(log.first(3).unwrap()), ["rank0", "rank1", "rank8"]);
        assert_eq!(log.counts().by_code().collect::<Vec<_>>(), [("empty", 4)]);
    }

    #[test]
    fn a_limit_is_a_count_or_a_part_of_the_listed() {
        let check = |text: &str, rejected, listed, expected| {
            let limit: RejectLimit = text.parse().unwrap();
            assert_eq!(limit.is_exceeded(rejected, listed), expected, "{text}");
            assert_eq!(limit.to_string(), text);
        };
        check("5%", 5, 100, false);
        check("5%", 6, 100, true);
        check("0.5%", 1, 199, true);
        check("0.5%", 1, 200, false);
        check("0%", 1, 1_000_000, true);
        check("100%", 7, 7, false);
        check("20", 20, 20, false);
        check("20", 21, 1_000, true);
        for wrong in ["", "%", "-1", "5 %", "x", "101%", "5%%"] {
            assert!(wrong.parse::<RejectLimit>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn codes_are_distinct_names() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
