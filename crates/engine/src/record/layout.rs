//! Says what a rejected record is, where it is data in another common layout, and which command makes
//! records of it.
//!
//! A third, cold look at records that are already rejected: it changes the words of a reason, never its
//! code or place, and accepts nothing. It reads JSON leniently, without recursion and without a copy,
//! since what it looks at may be broken, or a file of all records. Commands name FILE and NEW, not the
//! file itself: what is written about a record does not depend on where it lies.

use crate::record::reject::{Code, RejectReason};

/// How a record lies in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// As a file, or a member of an archive.
    File,
    /// As a line.
    Line,
}

/// The keys that a record's root needs.
const ROOT: [&str; 4] = ["story", "question", "answer", "socialized_context"];

/// The key that a chat line needs.
const MESSAGES: &str = "messages";

/// Writes values over several lines, or all of them in one list, as one a line.
const ONE_A_LINE: &str = r#"jq -c 'if type == "array" then .[] else . end' FILE > NEW.jsonl"#;

/// The part of a text that is JSON, for jq.
const INNER_JSON: &str = r#"capture("(?<json>[{\\[][\\s\\S]*[}\\]])").json | fromjson"#;

/// Whether a record that is refused with `code` may be one of another layout.
pub fn has_words_for(code: Code) -> bool {
    matches!(code, Code::JsonSyntax | Code::WrongType | Code::MissingKey)
}

/// `reason`, in better words where `bytes` are a layout that is known; `bytes` are the rejected record.
pub fn name(bytes: &[u8], unit: Unit, reason: RejectReason) -> RejectReason {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
    let named = match reason.code {
        Code::JsonSyntax => of_broken(text, unit),
        Code::WrongType => of_root(text, unit).or_else(|| of_text(text, &reason.at)),
        Code::MissingKey => of_other_kind(text, &reason.at)
            .or_else(|| of_wrapped(text, &reason.at))
            .or_else(|| of_misspelt(text, &reason.at)),
        _ => None,
    };
    match named {
        Some(words) => RejectReason { reason: words, ..reason },
        None => reason,
    }
}

/// Whether a file that begins with `bytes` is only a pointer of Git's large file storage.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

fn of_broken(text: &[u8], unit: Unit) -> Option<String> {
    if is_lfs_pointer(text) {
        return Some("a Git LFS pointer, not the file itself: `git lfs pull` fetches it".to_owned());
    }
    if text.starts_with(b"```") && unit == Unit::File {
        return Some(format!("JSON in a Markdown code fence: `jq -cRs '{INNER_JSON}' FILE > NEW`"));
    }
    let (first, rest) = value(text);
    let rest = rest.trim_ascii_start();
    if first.starts_with(b"{") && rest.starts_with(b"{") {
        return Some("several JSON objects, not one record: `jq -c . FILE > NEW.jsonl`".to_owned());
    }
    let is_piece = match text {
        b"{" | b"[" | b"[{" => true,
        [b'}' | b']', ..] => true,
        [b'"', ..] => matches!(rest.first(), None | Some(b':' | b',')),
        [b'{', ..] => rest == b",",
        _ => false,
    };
    (is_piece && unit == Unit::Line).then(piece)
}

/// A line of a file that is one JSON list, or of indented JSON.
fn piece() -> String {
    format!("a piece of a JSON value that is written over several lines: `{ONE_A_LINE}`")
}

fn of_root(text: &[u8], unit: Unit) -> Option<String> {
    match text.first()? {
        b'[' => {
            let (first, _) = value(text[1..].trim_ascii_start());
            let is_record = first.starts_with(b"{");
            is_record
                .then(|| "a JSON list of records, not one record: `jq -c '.[]' FILE > NEW.jsonl`".to_owned())
        }
        b'"' if begins_json(&text[1..]) => {
            Some("JSON text inside a JSON string: `jq -c fromjson FILE > NEW`".to_owned())
        }
        b'"' if unit == Unit::Line => Some(piece()),
        _ => None,
    }
}

/// A value at `at` that is text though it should be an object or a list.
fn of_text(text: &[u8], at: &str) -> Option<String> {
    let key = at.rsplit('.').next()?;
    if !["socialized_context", "agents_names", "observations", "actions"].contains(&key) {
        return None;
    }
    let inside = follow(text, at)?.strip_prefix(b"\"")?;
    let fits = |command: &str| format!("jq -c '(.. | .{key}? | strings) |= {command}' FILE > NEW");
    if inside.windows(3).any(|three| three == b"```") {
        return Some(format!("JSON text in a Markdown code fence: `{}`", fits(&format!("({INNER_JSON})"))));
    }
    begins_json(inside).then(|| format!("JSON text inside a JSON string: `{}`", fits("fromjson")))
}

/// A chat line among contexts, or a context among chat lines.
fn of_other_kind(text: &[u8], at: &str) -> Option<String> {
    let has = |name: &[u8]| fields(text).any(|(key, _)| key == name);
    if at == MESSAGES {
        return has(b"socialized_context")
            .then(|| "a context, to be prepared without --chat, and not a chat line: missing".to_owned());
    }
    (ROOT.contains(&at) && has(MESSAGES.as_bytes()))
        .then(|| "a chat line, which --chat takes as it is, and not a context: missing".to_owned())
}

/// Records that lie deeper in the object that should be one.
fn of_wrapped(text: &[u8], at: &str) -> Option<String> {
    if !ROOT.contains(&at) || fields(text).any(|(key, _)| is_one_of(&ROOT, key)) {
        return None;
    }
    let is_list_of_objects =
        |value: &[u8]| value.starts_with(b"[") && value[1..].trim_ascii_start().starts_with(b"{");
    let lists: Vec<&str> = fields(text)
        .filter(|(_, value)| is_list_of_objects(value))
        .map(|(key, _)| str::from_utf8(key).ok().filter(|key| is_plain(key)))
        .collect::<Option<_>>()?;
    if !lists.is_empty() {
        let paths: Vec<String> = lists.iter().map(|key| format!(".[\"{key}\"][]")).collect();
        let named = lists.join("\", \"");
        let paths = paths.join(", ");
        return Some(format!(
            "the records are in a list, at \"{named}\": `jq -c '{paths}' FILE > NEW.jsonl`"
        ));
    }
    let (_, first) = fields(text).next()?;
    let holds_records = fields(first).any(|(key, _)| is_one_of(&ROOT, key));
    holds_records
        .then(|| "the records are the values of one object: `jq -c '.[]' FILE > NEW.jsonl`".to_owned())
}

/// A key that looks like the missing one at `at`.
fn of_misspelt(text: &[u8], at: &str) -> Option<String> {
    let (holder, missing) = at.rsplit_once('.').unwrap_or(("", at));
    let keys = fields(follow(text, holder)?).map(|(key, _)| key);
    let keys = keys.filter_map(|key| str::from_utf8(key).ok()).filter(|key| is_plain(key));
    let found = keys.filter(|key| *key != missing).find(|key| is_like(key, missing))?;
    Some(format!(
        "the key `{missing}` is missing; \"{found}\" is there instead: `jq -c '(.. | objects | select(has(\"{found}\"))) |= \
         with_entries(if .key == \"{found}\" then .key = \"{missing}\" else . end)' FILE > NEW`"
    ))
}

/// Whether `key` is `wanted` but for case, marks between words, or a letter or two.
fn is_like(key: &str, wanted: &str) -> bool {
    let letters = |text: &str| -> String {
        text.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let (key, wanted) = (letters(key), letters(wanted));
    let most = if wanted.len() < 8 { 1 } else { 2 };
    let is_alias = wanted == "agentsnames" && key == "agents";
    is_alias || strsim::damerau_levenshtein(&key, &wanted) <= most
}

/// Whether `key` may stand in a command as it is.
fn is_plain(key: &str) -> bool {
    !key.is_empty() && !key.chars().any(|character| character.is_control() || "\\'`".contains(character))
}

fn is_one_of(names: &[&str], key: &[u8]) -> bool {
    names.iter().any(|name| name.as_bytes() == key)
}

/// Whether the inside of a JSON string begins as JSON does.
fn begins_json(inside: &[u8]) -> bool {
    matches!(inside.trim_ascii_start(), [b'{' | b'[', b'\\' | b'{' | b'[' | b' ', ..])
}

/// The value at a path such as `a.b[0]`, if each step is there.
fn follow<'t>(text: &'t [u8], path: &str) -> Option<&'t [u8]> {
    let mut here = text;
    for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
        here = match step.strip_suffix(']') {
            Some(index) => items(here).nth(index.parse().ok()?)?,
            None => fields(here).find(|(key, _)| *key == step.as_bytes())?.1,
        };
    }
    Some(here)
}

/// Keys, as they are written, and values of an object; nothing of anything else.
fn fields(object: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = object.strip_prefix(b"{").unwrap_or_default();
    std::iter::from_fn(move || {
        let (key, behind) = value(rest.trim_ascii_start());
        let key = key.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let behind = behind.trim_ascii_start().strip_prefix(b":")?;
        let (found, behind) = value(behind.trim_ascii_start());
        rest = behind.trim_ascii_start().strip_prefix(b",").unwrap_or_default();
        Some((key, found))
    })
}

/// The items of a list; nothing of anything else.
fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list.strip_prefix(b"[").unwrap_or_default();
    std::iter::from_fn(move || {
        let (found, behind) = value(rest.trim_ascii_start());
        rest = behind.trim_ascii_start().strip_prefix(b",").unwrap_or_default();
        (!found.is_empty()).then_some(found)
    })
}

/// The value at the start of `text`, and what is behind it; all of the text where it does not end.
fn value(text: &[u8]) -> (&[u8], &[u8]) {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at += string_length(&text[at..]),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' | b',' | b':' if depth == 0 => break,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            byte if depth == 0 && byte.is_ascii_whitespace() => break,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            break;
        }
    }
    text.split_at(at)
}

/// The length of the string at the start of `text`, quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command that is named for `text`, refused with `code` at `at`.
    fn command(text: &str, unit: Unit, code: Code, at: &str) -> Option<String> {
        let before = RejectReason::new(code, "before", at);
        let named = name(text.as_bytes(), unit, before.clone());
        assert_eq!((named.code, &named.at), (code, &before.at));
        let command = named.reason.rsplit('`').nth(1).map(str::to_owned);
        assert_eq!(command.is_none(), named == before, "{}", named.reason);
        command
    }

    const RECORD: &str = r#"{"story": "}{\"[", "question": "q", "answer": NaN, "x": [{"a": [1, 2]}]}"#;

    #[test]
    fn broken_json_is_told_by_what_is_there() {
        let check = |text: &str, unit, expected: Option<&str>| {
            let found = command(text, unit, Code::JsonSyntax, "");
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        let lines = Some("jq -c . FILE > NEW.jsonl");
        check(&format!("{RECORD}\n{RECORD}\n"), Unit::File, lines);
        check(&format!("\u{feff}{RECORD} {RECORD}"), Unit::Line, lines);
        check("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", Unit::File, Some("git lfs pull"));
        for piece in ["{", "[", "]", "},", "  }, {", "\"story\": \"x\",", "\"Mia: left\",", "\"a\" : ["] {
            check(piece, Unit::Line, Some(ONE_A_LINE));
            check(piece, Unit::File, None);
        }
        check(&format!("{RECORD},"), Unit::Line, Some(ONE_A_LINE));
        for broken in ["{\"cut\": ", "{\"cut\": [{", "{} x", "", "x", "{\"a\" 1}", "\"", "\\", "<html>"] {
            check(broken, Unit::File, None);
        }
        check("{\"cut\": [{\"a\": ", Unit::Line, None);
    }

    #[test]
    fn another_root_is_told_by_what_it_holds() {
        let check = |text: &str, unit, expected: Option<&str>| {
            let found = command(text, unit, Code::WrongType, "");
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check(&format!("[ {RECORD}]"), Unit::File, Some("jq -c '.[]' FILE > NEW.jsonl"));
        check(r#""{\"story\": 1}""#, Unit::File, Some("jq -c fromjson FILE > NEW"));
        check(r#""Mia left.""#, Unit::Line, Some(ONE_A_LINE));
        for other in ["[]", "[1]", "3", "\"Mia left.\"", "null"] {
            check(other, Unit::File, None);
        }
    }

    #[test]
    fn a_value_that_is_text_is_told_by_its_path() {
        let check = |text: &str, at: &str, expected: Option<&str>| {
            let found = command(text, Unit::File, Code::WrongType, at);
            let expected = expected.map(|expected| format!("jq -c '(.. | .{expected}' FILE > NEW"));
            assert_eq!(found, expected, "{text}");
        };
        let fenced = r#"{"a": ["]"], "socialized_context": "Here:\n```json\n{}\n```"}"#;
        let command = format!("socialized_context? | strings) |= ({INNER_JSON})");
        check(fenced, "socialized_context", Some(&command));
        let encoded = r#"{"socialized_context": {"agents_names": "[\"A\"]", "socialized_context": "[{}]"}}"#;
        let at = "socialized_context.agents_names";
        check(encoded, at, Some("agents_names? | strings) |= fromjson"));
        let at = "socialized_context.socialized_context";
        check(encoded, at, Some("socialized_context? | strings) |= fromjson"));
        let step = r#"{"socialized_context": {"socialized_context": [0, {"actions": "{\"A\": 1}"}]}}"#;
        let at = "socialized_context.socialized_context[1].actions";
        check(step, at, Some("actions? | strings) |= fromjson"));
        check(step, "socialized_context.socialized_context[2].actions", None);
        check(r#"{"socialized_context": "(none)"}"#, "socialized_context", None);
        check(r#"{"socialized_context": 3}"#, "socialized_context", None);
    }

    #[test]
    fn records_that_lie_deeper_are_told_by_their_key() {
        let check = |text: &str, at: &str, expected: Option<&str>| {
            let found = command(text, Unit::File, Code::MissingKey, at);
            let expected = expected.map(|expected| format!("jq -c '{expected}' FILE > NEW.jsonl"));
            assert_eq!(found, expected, "{text}");
        };
        let wrapped = format!(r#"{{"version": 1, "data": [{RECORD}]}}"#);
        check(&wrapped, "question", Some(r#".["data"][]"#));
        check(&wrapped, "socialized_context.agents_names", None);
        let both = format!(r#"{{"train": [{RECORD}], "my val": [ {RECORD}], "none": []}}"#);
        check(&both, "question", Some(r#".["train"][], .["my val"][]"#));
        check(&format!(r#"{{"it's": [{RECORD}]}}"#), "question", None);
        check(&format!(r#"{{"7": {RECORD}, "8": {RECORD}}}"#), "question", Some(".[]"));
        check(r#"{"story": "x", "data": [{}]}"#, "question", None);
        check("{}", "question", None);
    }

    #[test]
    fn a_misspelt_key_is_told_by_its_likeness() {
        let check = |text: &str, at: &str, expected: Option<&str>| {
            let found = command(text, Unit::File, Code::MissingKey, at);
            let renames =
                |key: &str| found.as_ref().is_some_and(|found| found.contains(&format!("has(\"{key}\")")));
            assert!(expected.map_or(found.is_none(), renames), "{text}: {found:?}");
        };
        for key in ["agent_names", "agents_name", "agentsNames", "AGENTS_NAMES", "agent names", "agents"] {
            let text = format!(r#"{{"socialized_context": {{"{key}": ["A"], "socialized_context": []}}}}"#);
            check(&text, "socialized_context.agents_names", Some(key));
        }
        check(r#"{"Story": "x", "score": 1}"#, "story", Some("Story"));
        check(r#"{"score": 1}"#, "story", None);
        check(r#"{"questions": 1}"#, "question", Some("questions"));
        check(r#"{"socialised_context": 1}"#, "socialized_context", Some("socialised_context"));
        let step = r#"{"socialized_context": {"socialized_context": [{"observation": {}}]}}"#;
        let at = "socialized_context.socialized_context[0].observations";
        check(step, at, Some("observation"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_a_panic(text in "[{}\\[\\]\",:\\\\ a`\n]{0,40}") {
            for code in [Code::JsonSyntax, Code::WrongType, Code::MissingKey] {
                for at in ["", "question", "socialized_context", "socialized_context[1].actions"] {
                    for unit in [Unit::File, Unit::Line] {
                        name(text.as_bytes(), unit, RejectReason::new(code, "", at));
                    }
                }
            }
        }
    }
}
