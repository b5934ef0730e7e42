//! Names behind a count, shown: the first few, all with `--verbose`; as lines, and in the JSON document.
//!
//! A name that cannot be read back from its temporary file is left out: its count is said all the same.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::screen::report::Terminal;
use ctxtune_engine::source::CONTAINER;
use ctxtune_engine::source::names::NameLog;
use ctxtune_pipeline::text::{grouped, printable};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    First,
    All,
}

impl Shown {
    /// All with `--verbose`.
    pub fn by(terminal: &Terminal) -> Shown {
        if terminal.flags().verbose { Shown::All } else { Shown::First }
    }
}

fn each(
    log: &NameLog,
    shown: Shown,
    look: impl FnMut(&'static str, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    match shown {
        Shown::First => log.first(look),
        Shown::All => log.all(look),
    }
}

/// The kinds with their numbers: `hidden 3, linked directory 1`.
fn counts(log: &NameLog) -> String {
    let shown = |(kind, count)| {
        let hint = if kind == CONTAINER { " (--containers reads them)" } else { "" };
        format!("{kind} {}{hint}", grouped(count))
    };
    log.by_kind().map(shown).collect::<Vec<_>>().join(", ")
}

/// Says what lies in the sources and is not read, if anything does.
pub fn say_not_read(log: &NameLog, terminal: &Terminal) {
    if log.total() > 0 {
        terminal.label("not read", &format!("{}: {}", grouped(log.total()), counts(log)));
        say_names(log, terminal);
    }
}

pub fn say_not_read_in(source: &Path, log: &NameLog, terminal: &Terminal) {
    let total = grouped(log.total());
    terminal.label("not read", &format!("{total} in {}: {}", source.display(), counts(log)));
    say_names(log, terminal);
}

/// Says the names, a line each, and how many more there are.
pub fn say_names(log: &NameLog, terminal: &Terminal) {
    if terminal.flags().quiet {
        return;
    }
    let mut said = 0;
    // What cannot be read is not said, and counted below.
    let _ = each(log, Shown::by(terminal), |kind, key| {
        said += 1;
        let line = format!("  {}: {kind}", key_text(key));
        terminal.say(&printable(&line).replace('\n', "\\n"));
        Ok(())
    });
    if log.total() > said {
        terminal.say(&format!("  and {} more (-v names them)", grouped(log.total() - said)));
    }
}

#[derive(Serialize)]
pub struct Named {
    /// The key of the file or record.
    key: String,
    /// What it is.
    kind: &'static str,
}

impl Named {
    fn of(kind: &'static str, key: &[u8]) -> Named {
        Named { key: key_text(key), kind }
    }
}

/// The kinds with their numbers, for the document.
pub fn counts_value(log: &NameLog) -> Map<String, Value> {
    log.by_kind().map(|(kind, count)| (kind.to_owned(), json!(count))).collect()
}

/// The first names, for the document; nothing where they cannot be read.
pub fn first_names(log: &NameLog) -> Option<Vec<Named>> {
    let mut names = Vec::new();
    let read = log.first(|kind, key| {
        names.push(Named::of(kind, key));
        Ok(())
    });
    read.ok().map(|()| names)
}

/// Writes the names as objects with `key` and `kind`, commas between them.
pub fn write_names(log: &NameLog, shown: Shown, out: &mut dyn Write) -> io::Result<()> {
    let mut separator = "";
    each(log, shown, |kind, key| {
        write!(out, "{separator}{}", json!(Named::of(kind, key)))?;
        separator = ",";
        Ok(())
    })
}

/// A key as text: a byte that is not UTF-8 becomes `\xff`.
fn key_text(key: &[u8]) -> String {
    let mut text = String::new();
    for chunk in key.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_any_bytes_is_text() {
        assert_eq!(key_text(b"a/\xff\xc3\xa9\xfe.json"), "a/\\xff\u{e9}\\xfe.json");
        let mut log = NameLog::default();
        log.push("FIFO", b"\xff\n\"").unwrap();
        log.push("socket", b"a").unwrap();
        let mut out = Vec::new();
        write_names(&log, Shown::First, &mut out).unwrap();
        let list: Value = serde_json::from_slice(&[b"[", out.as_slice(), b"]"].concat()).unwrap();
        let expected = json!([{ "key": "a", "kind": "socket" }, { "key": "\\xff\n\"", "kind": "FIFO" }]);
        assert_eq!(list, expected);
    }
}
