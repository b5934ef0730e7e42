//! How things are said: errors with their hints, numbers with their units, one JSON document.
//!
//! Printing never panics: a closed pipe ends in silence, a full disk under stdout in an
//! exit code.

use std::io::{self, IsTerminal, Write};

use console::{Term, measure_text_width, strip_ansi_codes};
use serde_json::{Map, Value, json};

use crate::args::Voice;
use crate::env;
use crate::exit::{Exit, Failure};
use ctxtune_pipeline::job::cost::Cost;
use ctxtune_pipeline::job::price::dollars_text;

/// The schema of the `--json` document.
pub const SCHEMA: &str = "ctxtune.cli/1";

/// The two output streams and how to use them.
#[derive(Debug, Clone)]
pub struct Terminal {
    voice: Voice,
    stderr_is_terminal: bool,
    /// Whether lines can be redrawn on stderr: a terminal, and not a `TERM=dumb` one.
    can_move_cursor: bool,
    has_colour: bool,
    has_unicode: bool,
    banner: Option<&'static str>,
}

/// A field at the end of a document, a list that may be too long to be built: it is written item by item.
pub struct LongList<'l> {
    /// The field's name.
    pub name: &'static str,
    /// Writes the items with commas between them.
    pub write: &'l dyn Fn(&mut dyn Write) -> io::Result<()>,
}

/// A colour on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Errors.
    Error,
    /// Warnings and hints.
    Notice,
    /// The name of what follows.
    Label,
}

impl Terminal {
    /// Checks the streams, `NO_COLOR` and `TERM`.
    pub fn new(voice: Voice) -> Terminal {
        #[expect(clippy::disallowed_methods, reason = "the terminal is where the environment is read")]
        let variable = |name: &str| std::env::var_os(name).unwrap_or_default();
        let stderr_is_terminal = io::stderr().is_terminal();
        let can_move_cursor = stderr_is_terminal && variable(env::TERM) != "dumb";
        let has_colour = can_move_cursor && variable(env::NO_COLOR).is_empty();
        // The first variable that is set decides, as in C's `setlocale`.
        let locale = env::LOCALES.map(variable).into_iter().find(|value| !value.is_empty());
        let locale = locale.unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let has_unicode = can_move_cursor && (locale.contains("utf-8") || locale.contains("utf8"));
        Terminal { voice, stderr_is_terminal, can_move_cursor, has_colour, has_unicode, banner: None }
    }

    /// The same streams, whose every screen carries `banner`.
    #[must_use]
    pub fn with_banner(self, banner: &'static str) -> Terminal {
        Terminal { banner: Some(banner), ..self }
    }

    /// The line that every screen carries.
    pub fn banner(&self) -> Option<&'static str> {
        self.banner
    }

    /// How much to say.
    pub fn voice(&self) -> Voice {
        self.voice
    }

    /// Whether a progress bar may be drawn.
    pub fn may_draw(&self) -> bool {
        self.can_move_cursor && !self.voice.quiet
    }

    /// Says that a step is done, behind a check mark where the terminal can show one.
    pub fn done(&self, text: &str) {
        let mark = if self.has_unicode { "\u{2713} " } else { "" };
        self.say(&printable(&format!("{mark}{text}")));
    }

    /// `text` in `style`, where there is colour.
    pub fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Error => "1;31",
            Style::Notice => "1;33",
            Style::Label => "1;36",
        };
        if self.has_colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Says something to people, unless `--quiet`.
    pub fn say(&self, text: &str) {
        if self.voice.quiet {
            return;
        }
        match self.columns() {
            // A command stays on one line, so that it can be copied whole: here, or between backquotes.
            Some(columns) if !text.contains("ctxtune ") || text.contains('`') => {
                self.say_always(&folded(text, columns));
            }
            _ => self.say_always(text),
        }
    }

    /// Says lines that are to be copied, unless `--quiet`: code or commands, of which none is folded.
    pub fn copyable(&self, text: &str) {
        if !self.voice.quiet {
            self.say_always(text);
        }
    }

    /// The width of the terminal that stderr is, if it is one.
    pub fn columns(&self) -> Option<usize> {
        let (_, columns) = self.stderr_is_terminal.then(|| Term::stderr().size_checked())??;
        Some(usize::from(columns))
    }

    fn say_always(&self, text: &str) {
        // Nobody reads: nothing to be done, and no reason to fail.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Puts a question, also under `--quiet`; the answer comes on the same line.
    pub fn ask(&self, question: &str) {
        let mut stderr = io::stderr().lock();
        // Nobody sees it: then nobody answers, and that is no.
        let _ = stderr.write_all(printable(question).as_bytes()).and_then(|()| stderr.flush());
    }

    /// Shows a piece of a streamed answer, unless `--quiet`: unchanged, but a terminal gets control characters
    /// escaped.
    pub fn piece(&self, text: &str) {
        if !self.voice.quiet {
            let text = if self.stderr_is_terminal { printable(text) } else { text.to_owned() };
            let mut stderr = io::stderr().lock();
            // Nobody reads: nothing to be done.
            let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        }
    }

    /// Says something under a label of nine characters, as summaries do.
    pub fn label(&self, label: &str, text: &str) {
        self.say(&format!("{} {}", self.paint(Style::Label, &format!("{label:<9}")), printable(text)));
    }

    /// Says a warning, unless `--quiet`.
    pub fn warn(&self, text: &str) {
        self.say(&format!("{} {text}", self.paint(Style::Notice, "warning:")));
    }

    /// Ends a successful command: its one line of data, or the JSON document with `fields`.
    pub fn succeed(&mut self, command: &str, line: Option<&[u8]>, fields: Map<String, Value>) -> Exit {
        self.succeed_with(command, line, fields, &[])
    }

    /// The same, with more fields of the document.
    pub fn succeed_with(
        &mut self,
        command: &str,
        line: Option<&[u8]>,
        fields: Map<String, Value>,
        lists: &[LongList<'_>],
    ) -> Exit {
        if self.voice.json {
            let document = document(command, Exit::Done, Value::Null, fields);
            return self.delivered(command, write_document(&document, lists));
        }
        match line {
            Some(line) => self.deliver(command, &[line, b"\n"].concat()),
            None => Exit::Done,
        }
    }

    /// Ends a failed command: error and hint on stderr, and the JSON document if asked for.
    pub fn fail(&mut self, command: &str, failure: &Failure, fields: Map<String, Value>) -> Exit {
        self.fail_with(command, failure, fields, &[])
    }

    /// The same, with more fields of the document.
    pub fn fail_with(
        &mut self,
        command: &str,
        failure: &Failure,
        fields: Map<String, Value>,
        lists: &[LongList<'_>],
    ) -> Exit {
        if failure.exit == Exit::Interrupted && self.stderr_is_terminal {
            // The terminal has echoed `^C` and left the cursor behind it.
            self.say_always("");
        }
        self.say_always(&format!("{} {}", self.paint(Style::Error, "error:"), printable(&failure.message)));
        if let Some(hint) = &failure.hint {
            self.say_always(&format!("{} {}", self.paint(Style::Notice, "hint:"), printable(hint)));
        }
        if self.voice.json {
            let error = json!({ "code": failure.code, "message": failure.message, "hint": failure.hint });
            let document = document(command, failure.exit, error, fields);
            // The exit code already says that it failed.
            let _ = write_document(&document, lists);
        }
        failure.exit
    }

    /// Writes data to stdout. A reader that has gone is no error; a full disk is.
    pub fn deliver(&mut self, command: &str, bytes: &[u8]) -> Exit {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        self.delivered(command, written)
    }

    fn delivered(&mut self, command: &str, written: io::Result<()>) -> Exit {
        match written {
            Ok(()) => Exit::Done,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Err(error) => {
                self.say_always(&format!(
                    "{} {command}: cannot write to standard output: {error}",
                    self.paint(Style::Error, "error:")
                ));
                Exit::Failed
            }
        }
    }
}

fn write_document(document: &Value, lists: &[LongList<'_>]) -> io::Result<()> {
    let mut text = document.to_string();
    text.pop();
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    stdout.write_all(text.as_bytes())?;
    for LongList { name, write } in lists {
        write!(stdout, ",\"{name}\":[")?;
        write(&mut stdout)?;
        stdout.write_all(b"]")?;
    }
    writeln!(stdout, "}}")?;
    stdout.flush()
}

fn document(command: &str, exit: Exit, error: Value, fields: Map<String, Value>) -> Value {
    let mut document = Map::new();
    document.insert("schema".to_owned(), SCHEMA.into());
    document.insert("command".to_owned(), command.into());
    document.insert("ok".to_owned(), (exit == Exit::Done).into());
    document.insert("exit".to_owned(), (exit as u8).into());
    document.insert("error".to_owned(), error);
    document.extend(fields);
    Value::Object(document)
}

/// `text` without characters that would command the terminal; newlines and tabs stay.
pub fn printable(text: &str) -> String {
    let show = |character: char| match character {
        '\n' | '\t' => character.to_string(),
        character if character.is_control() => character.escape_default().to_string(),
        character => character.to_string(),
    };
    text.chars().map(show).collect()
}

/// `text` with no line wider than `columns`, broken at blanks only and indented as the line began: a word or
/// number that is wider stays whole. What is behind a label continues behind it, or at the first column where
/// only that has room for a word.
pub fn folded(text: &str, columns: usize) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| folded_line(line, columns)).collect();
    lines.join("\n")
}

fn folded_line(line: &str, columns: usize) -> String {
    if measure_text_width(line) < columns {
        return line.to_owned();
    }
    let plain = strip_ansi_codes(line);
    let is_labelled =
        plain.as_bytes().get(9) == Some(&b' ') && plain.as_bytes().get(10).is_some_and(|byte| *byte != b' ');
    let blanks = plain.len() - plain.trim_start().len();
    let indent = if is_labelled && blanks == 0 { 10 } else { blanks }.min(columns / 2);
    let mut text = String::new();
    let mut width = 0;
    for word in words(line, columns) {
        let bare = measure_text_width(word.trim_end());
        let fits_at_start_only = bare < columns && indent + bare >= columns;
        if width + bare >= columns && (width > indent || fits_at_start_only && width > 0) {
            let indent = if fits_at_start_only { 0 } else { indent };
            text.truncate(text.trim_end().len());
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            width = indent;
        }
        text.push_str(&word);
        width += measure_text_width(&word);
    }
    text
}

/// The words of `line`, each with the blanks behind it; what stands between backquotes is one, if it fits.
fn words(line: &str, columns: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for piece in line.split_inclusive(' ') {
        let is_open =
            |word: &&mut String| word.matches('`').count() % 2 == 1 && word.len() + piece.len() < columns;
        match words.last_mut().filter(is_open) {
            Some(word) => word.push_str(piece),
            None => words.push(piece.to_owned()),
        }
    }
    words
}

/// A cost for people: what is not final has `~` in front; nothing where nobody knows.
pub fn marked(cost: Cost) -> String {
    let mark = if matches!(cost, Cost::Billed(_)) { "" } else { "~" };
    cost.dollars().map_or_else(String::new, |amount| format!("{mark}{}", dollars_text(amount)))
}

/// `3179` as `3,179`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun: `1 record`, `2 records`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Bytes in decimal units: `18.2 MB`.
pub fn sized(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if amount < 999.95 || unit == "GB" {
            return if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1000.0;
    }
    unreachable!("the last unit takes everything")
}

/// `part` of `whole` in per cent with one decimal; 0.0 of nothing.
pub fn percent(part: u64, whole: u64) -> String {
    let percent = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    format!("{percent:.1} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            (grouped(0), grouped(999), grouped(1000), grouped(1_234_567)),
            ("0".into(), "999".into(), "1,000".into(), "1,234,567".into())
        );
        assert_eq!((counted(1, "record"), counted(0, "record")), ("1 record".into(), "0 records".into()));
        assert_eq!(
            (sized(999), sized(1000), sized(999_960), sized(18_200_000)),
            ("999 B".into(), "1.0 kB".into(), "1.0 MB".into(), "18.2 MB".into())
        );
        assert_eq!((percent(259, 354), percent(0, 0)), ("73.2 %".into(), "0.0 %".into()));
    }

    #[test]
    fn no_word_or_number_is_broken() {
        let check = |text: &str, columns, expected: &str| assert_eq!(folded(text, columns), expected);
        check("short", 80, "short");
        check(
            "price     about $4.80 for 1,234,567 tokens",
            24,
            "price     about $4.80\n          for 1,234,567\n          tokens",
        );
        check("  key  value", 10, "  key\n  value");
        check("page      https://a.b/12345678", 21, "page\nhttps://a.b/12345678");
        check("page      https://a.b/12345678", 20, "page      https://a.b/12345678");
        check("one 0123456789abcdef two", 10, "one\n0123456789abcdef\ntwo");
        check("it is shown by `ctxtune jobs -n 0` alone", 26, "it is shown by\n`ctxtune jobs -n 0` alone");
        check("an open ` stays a character", 20, "an open\n` stays a character");
        let text = "warning: the value 1,234.5678 of learning_rate is above what the model allows";
        for columns in 12..90 {
            let lines = folded(text, columns);
            assert!(lines.lines().all(|line| line.len() < columns || !line.trim().contains(' ')), "{lines}");
            assert_eq!(
                lines.split_whitespace().collect::<Vec<_>>(),
                text.split_whitespace().collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_terminal_is_not_commanded() {
        assert_eq!(printable("a\u{1b}[31mb\u{7}\n\tc"), "a\\u{1b}[31mb\\u{7}\n\tc");
    }
}
