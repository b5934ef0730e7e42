//! One thread's work on one chat line: its columns are carried as they are written, and judged by the rules of
//! `check`.
//!
//! A line of the result is `{"messages":…}` with `tools` and `weight` where they are there, each byte for byte,
//! but for line ends between its tokens, which a line cannot have. It writes no file.

use std::borrow::Cow;

use crate::check::code;
use crate::check::single::LineJudge;
use crate::error::Error;
use crate::prepare::batch::{Fingerprints, RecordBatch, Verdict};
use crate::prepare::options::Options;
use crate::prepare::tally::{Marks, content_digest};
use crate::record::diagnose::encoding;
use crate::record::reject::{Code, RejectReason};
use crate::record::warning::{Warning, WarningSet};
use crate::source::read::{Bytes, Effort, named};
use crate::split::group::{GroupBy, write_field_key};
use crate::split::leakage::mark;
use crate::split::{Rank, rank};
use ctxtune_python_json::{Fault, FaultKind, Kind, Tokens};

/// The columns that a training line has, in the order of the line; the first one is required.
const CARRIED: [&str; 3] = ["messages", "tools", "weight"];

/// As deep as `check` reads.
const MAX_DEPTH: usize = 10_000;

/// One thread's tools.
pub struct ChatConverter<'r> {
    options: &'r Options,
    fingerprints: Fingerprints,
    judge: LineJudge,
    asked: Vec<u8>,
    key: Vec<u8>,
}

impl<'r> ChatConverter<'r> {
    /// Converts as `options` say.
    pub fn new(options: &'r Options, fingerprints: Fingerprints) -> Self {
        ChatConverter {
            options,
            fingerprints,
            judge: LineJudge::default(),
            asked: Vec::new(),
            key: Vec::new(),
        }
    }

    /// The fate of `record`, whose line goes to `batch`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn convert(&mut self, record: &mut impl Bytes, batch: &mut RecordBatch) -> Result<Verdict, Error> {
        let mut judged = Err(RejectReason::new(Code::Empty, "", ""));
        // What was cut short by the first read is no JSON yet.
        for effort in [Effort::OneRead, Effort::ToTheEnd] {
            judged = match record.read(effort)? {
                Ok(length) => {
                    if effort == Effort::OneRead {
                        batch.bytes_read += length as u64;
                    }
                    self.judge(&record.buffer()[..length], batch)
                }
                Err(reason) => Err(reason),
            };
            if judged.is_ok() {
                break;
            }
        }
        Ok(match judged {
            Ok(marks) => Verdict::Accepted(marks),
            Err(reason) => Verdict::Rejected(named(record, reason)?),
        })
    }

    fn judge(&mut self, bytes: &[u8], batch: &mut RecordBatch) -> Result<Marks, RejectReason> {
        let field = self.options.group_by.as_ref().and_then(GroupBy::field);
        let document = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let refused = |reason| encoding(bytes).unwrap_or(reason);
        let text = str::from_utf8(document)
            .map_err(|error| refused(RejectReason::new(Code::Encoding, error.to_string(), "")))?;
        let columns = Columns::of(text, field).map_err(refused)?;
        let group = self.group(field, &columns)?;
        let line = columns.line()?;
        let warned = self.judge.judge(&line, &mut self.asked).map_err(reject)?;
        let has = |code: code::Code| warned.contains(&code);
        let warnings = WarningSet::of(|warning| match warning {
            Warning::SpecialTokens => has(code::Code::SpecialToken),
            Warning::RoleOrder => has(code::Code::RoleOrder),
            Warning::EmptyAssistant => has(code::Code::EmptyAssistant),
            Warning::RepeatedKeys => has(code::Code::DuplicateKey),
            Warning::OtherColumns => columns.has_others,
            _ => false,
        });
        // Where nobody asks anything, only the same line says the same.
        let asked = if self.asked.is_empty() { line.as_bytes() } else { &self.asked };
        let content = match (group, self.fingerprints) {
            (Some(_), Fingerprints::Grouped) => content_digest(bytes),
            _ => 0,
        };
        batch.lines.extend_from_slice(line.as_bytes());
        batch.lines.push(b'\n');
        batch.lengths.push(line.len() as u64 + 1);
        let group = group.unwrap_or_default();
        Ok(Marks { story: mark(asked), agents: 0, content, group, is_correct: None, warnings })
    }

    /// The rank of the group of the line, where the split is grouped by `field`.
    fn group(&mut self, field: Option<&str>, columns: &Columns<'_>) -> Result<Option<Rank>, RejectReason> {
        let Some(field) = field else { return Ok(None) };
        let text = columns.group.and_then(|written| serde_json::from_str::<Cow<'_, str>>(written).ok());
        let refused = || {
            let what = if columns.group.is_some() { "not a string" } else { "missing" };
            RejectReason::new(Code::GroupField, format!("the field of --group-by is {what}"), field)
        };
        write_field_key(&text.ok_or_else(refused)?, &mut self.key);
        Ok(Some(rank(self.options.seed, &self.key)))
    }
}

/// The columns of a line as they are written.
#[derive(Default)]
struct Columns<'t> {
    carried: [Option<&'t str>; CARRIED.len()],
    group: Option<&'t str>,
    /// Whether there is a column that is neither carried nor the field of the group.
    has_others: bool,
}

impl<'t> Columns<'t> {
    fn of(text: &'t str, group_field: Option<&str>) -> Result<Columns<'t>, RejectReason> {
        let mut columns = Columns::default();
        let mut tokens = Tokens::new(text, MAX_DEPTH);
        let mut key: Option<Cow<'_, str>> = None;
        let mut value = None;
        let mut is_first = true;
        while let Some(token) = tokens.next_token().map_err(refusal)? {
            let written = &text[token.start..token.end];
            if std::mem::take(&mut is_first) && written != "{" {
                return Err(RejectReason::new(Code::WrongType, "not an object", ""));
            }
            match (token.depth, token.kind) {
                (1, Kind::Open | Kind::Colon) => {}
                (1, Kind::Key(_)) => {
                    // A name that is no text names nothing that is used.
                    key = Some(serde_json::from_str(written).unwrap_or_default());
                }
                (1, Kind::Comma | Kind::Close) => {
                    if let (Some(key), Some((start, end))) = (key.take(), value.take()) {
                        columns.add(&key, &text[start..end], group_field)?;
                    }
                }
                _ => value = Some((value.map_or(token.start, |(start, _)| start), token.end)),
            }
        }
        Ok(columns)
    }

    fn add(&mut self, key: &str, written: &'t str, group_field: Option<&str>) -> Result<(), RejectReason> {
        let carried = CARRIED.iter().position(|column| *column == key);
        let is_group = group_field == Some(key);
        let mut is_twice = false;
        if let Some(index) = carried {
            is_twice |= self.carried[index].replace(written).is_some();
        }
        if is_group {
            is_twice |= self.group.replace(written).is_some();
        }
        self.has_others |= carried.is_none() && !is_group;
        match is_twice {
            true => Err(RejectReason::new(Code::DuplicateKey, "given twice", key)),
            false => Ok(()),
        }
    }

    /// The training line, without its end.
    fn line(&self) -> Result<String, RejectReason> {
        if self.carried[0].is_none() {
            return Err(RejectReason::new(Code::MissingKey, "missing", CARRIED[0]));
        }
        let mut line = String::new();
        for (column, written) in CARRIED.iter().zip(self.carried) {
            let Some(written) = written else { continue };
            line.push_str(if line.is_empty() { "{\"" } else { ",\"" });
            line.push_str(column);
            line.push_str("\":");
            match written.contains(['\n', '\r']) {
                true => line.push_str(&written.replace(['\n', '\r'], " ")),
                false => line.push_str(written),
            }
        }
        line.push('}');
        Ok(line)
    }
}

fn refusal(fault: Fault) -> RejectReason {
    let (code, reason) = match fault.kind {
        FaultKind::Syntax(reason) => (Code::JsonSyntax, reason.to_owned()),
        FaultKind::Control(byte) => {
            (Code::JsonSyntax, format!("the control character 0x{byte:02x} in a string, not escaped"))
        }
        FaultKind::TooDeep => (Code::TooDeep, format!("nested deeper than {MAX_DEPTH} levels")),
    };
    RejectReason::new(code, reason, format!("byte {}", fault.at + 1))
}

/// What `check` says of a line, as a reject of that name.
fn reject((code, message): (code::Code, String)) -> RejectReason {
    let same = Code::ALL.into_iter().find(|known| known.as_str() == code.as_str());
    let at = message.split([' ', ':']).next().filter(|at| at.starts_with("messages[")).unwrap_or_default();
    RejectReason::new(same.unwrap_or(Code::Messages), message.clone(), at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<String, Code> {
        Columns::of(text, Some("topic")).and_then(|columns| columns.line()).map_err(|reason| reason.code)
    }

    #[test]
    fn columns_are_carried_byte_for_byte() {
        let check = |text: &str, expected: &str| assert_eq!(line(text).unwrap(), expected);
        check(r#"{"messages":[]}"#, r#"{"messages":[]}"#);
        check(r#" { "messages" : [ {"a": "\u00e9\/é"} ] } "#, r#"{"messages":[ {"a": "\u00e9\/é"} ]}"#);
        check(
            r#"{"weight": 1e0, "id": NaN, "messages": [1], "topic": "a", "tools": [{"b": [2]}]}"#,
            r#"{"messages":[1],"tools":[{"b": [2]}],"weight":1e0}"#,
        );
        check("{\"messages\": [\n  1,\r\n  2\n]}", "{\"messages\":[   1,    2 ]}");
        check(r#"{"mess\u0061ges": "x"}"#, r#"{"messages":"x"}"#);
    }

    #[test]
    fn a_line_without_messages_of_its_own_is_refused() {
        let check = |text: &str, expected: Code| assert_eq!(line(text), Err(expected), "{text}");
        check("[]", Code::WrongType);
        check("{}", Code::MissingKey);
        check(r#"{"message": []}"#, Code::MissingKey);
        check(r#"{"x": {"messages": []}}"#, Code::MissingKey);
        check(r#"{"messages": [], "messages": []}"#, Code::DuplicateKey);
        check(r#"{"messages": [], "topic": "a", "topic": "a"}"#, Code::DuplicateKey);
        check(r#"{"messages": []"#, Code::JsonSyntax);
        check(r#"{"messages": []} {}"#, Code::JsonSyntax);
        check("{\"messages\": \"a\nb\"}", Code::JsonSyntax);
    }

    #[test]
    fn each_error_of_a_chat_line_has_a_reject_of_its_name() {
        let of_other_formats =
            ["no_format", "several_formats", "extra_column", "mixed_formats", "preference"];
        let of_files =
            ["extension", "file_too_large", "empty_file", "no_samples", "line_too_long", "not_object"];
        for code in code::Code::all() {
            let is_of_line = matches!(code.stage(), code::Stage::Structure | code::Stage::Conversation)
                && code.level() == crate::check::code::Level::Error
                && ![&of_other_formats[..], &of_files].concat().contains(&code.as_str());
            let is_known = Code::ALL.into_iter().any(|known| known.as_str() == code.as_str());
            assert!(is_known || !is_of_line, "{code}");
        }
    }
}
