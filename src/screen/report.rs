//! How things are said: errors with their hints, numbers with their units, one JSON document.
//!
//! Printing never panics: a closed pipe ends in silence, a full disk under stdout in an exit code.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::OutputFlags;
use crate::screen::canvas::Notices;
use crate::screen::fold::folded;
use ctxtune_pipeline::text::printable;
use ctxtune_pipeline::{Exit, Failure, Signals, env};

pub const SCHEMA: &str = "ctxtune.cli/1";

/// The two output streams and how to use them.
#[derive(Clone)]
pub struct Terminal {
    pub(crate) notices: Arc<Mutex<Notices>>,
    /// What asks the command to stop.
    pub signals: Signals,
    flags: OutputFlags,
    /// The command that documents name.
    command: String,
    stderr_is_terminal: bool,
    /// Whether lines can be redrawn on stderr: a terminal, and not a `TERM=dumb` one.
    can_move_cursor: bool,
    has_colour: bool,
    stdout_has_colour: bool,
    has_unicode: bool,
    banner: Option<&'static str>,
}

/// A field at the end of a document, a list that may be too long to be built: it is written item by item.
pub struct LongList<'l> {
    pub name: &'static str,
    /// Writes the items with commas between them.
    pub write: &'l dyn Fn(&mut dyn Write) -> io::Result<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Error,
    Notice,
    Label,
}

impl Terminal {
    /// Checks the streams, `NO_COLOR` and `TERM`.
    pub fn new(flags: OutputFlags, command: &str, signals: Signals) -> Terminal {
        #[expect(clippy::disallowed_methods, reason = "the terminal is where the environment is read")]
        let variable = |name: &str| std::env::var_os(name).unwrap_or_default();
        let stderr_is_terminal = io::stderr().is_terminal();
        let can_move_cursor = stderr_is_terminal && variable(env::TERM) != "dumb";
        let may_colour = variable(env::TERM) != "dumb" && variable(env::NO_COLOR).is_empty();
        let has_colour = can_move_cursor && may_colour;
        let stdout_has_colour = may_colour && io::stdout().is_terminal();
        // The first variable that is set decides, as in C's `setlocale`.
        let locale = env::LOCALES.map(variable).into_iter().find(|value| !value.is_empty());
        let locale = locale.unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let has_unicode = can_move_cursor && (locale.contains("utf-8") || locale.contains("utf8"));
        Terminal {
            notices: Arc::default(),
            signals,
            flags,
            command: command.to_owned(),
            stderr_is_terminal,
            can_move_cursor,
            has_colour,
            stdout_has_colour,
            has_unicode,
            banner: None,
        }
    }

    #[must_use]
    pub fn with_banner(self, banner: &'static str) -> Terminal {
        Terminal { banner: Some(banner), ..self }
    }

    pub fn banner(&self) -> Option<&'static str> {
        self.banner
    }

    pub fn flags(&self) -> OutputFlags {
        self.flags
    }

    /// Whether text on stdout may have colours.
    pub fn paints_stdout(&self) -> bool {
        self.stdout_has_colour
    }

    pub fn may_draw(&self) -> bool {
        self.can_move_cursor && !self.flags.quiet
    }

    /// A bar on stderr whose length is not known yet; hidden where none may be drawn.
    pub fn bar(&self, template: &str) -> ProgressBar {
        let bar = if self.may_draw() { ProgressBar::no_length() } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template(template);
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    /// Says that a step is done, behind a check mark where the terminal can show one.
    pub fn done(&self, text: &str) {
        let mark = if self.has_unicode { "\u{2713} " } else { "" };
        self.say(&printable(&format!("{mark}{text}")));
    }

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
        if self.flags.quiet {
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
        if !self.flags.quiet {
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
    pub fn put_question(&self, question: &str) {
        let mut stderr = io::stderr().lock();
        // Nobody sees it: then nobody answers, and that is no.
        let _ = stderr.write_all(printable(question).as_bytes()).and_then(|()| stderr.flush());
    }

    /// Shows a piece of a streamed answer, unless `--quiet`: unchanged, but a terminal gets control characters
    /// escaped.
    pub fn piece(&self, text: &str) {
        if !self.flags.quiet {
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

    pub fn warn(&self, text: &str) {
        self.say(&format!("{} {text}", self.paint(Style::Notice, "warning:")));
    }

    /// Ends a successful command: its one line of data, or the JSON document with `fields`.
    pub fn succeed(&self, line: Option<&[u8]>, fields: Map<String, Value>) -> Exit {
        self.succeed_with(line, fields, &[])
    }

    /// The same, where the fields are a report's.
    pub fn report(&self, line: Option<&[u8]>, report: &impl Serialize) -> Exit {
        self.succeed(line, fields(report))
    }

    /// The same, with more fields of the document.
    pub fn succeed_with(
        &self,
        line: Option<&[u8]>,
        fields: Map<String, Value>,
        lists: &[LongList<'_>],
    ) -> Exit {
        if self.flags.json {
            let document = document(&self.command, Exit::Done, Value::Null, fields);
            return self.delivered(write_document(&document, lists));
        }
        match line {
            Some(line) => self.deliver(&[line, b"\n"].concat()),
            None => Exit::Done,
        }
    }

    /// Ends a failed command: error and hint on stderr, and the JSON document if asked for.
    pub fn fail(&self, failure: &Failure, fields: Map<String, Value>) -> Exit {
        self.fail_with(failure, fields, &[])
    }

    pub fn fail_with(&self, failure: &Failure, fields: Map<String, Value>, lists: &[LongList<'_>]) -> Exit {
        if failure.exit == Exit::Interrupted && self.stderr_is_terminal {
            // The terminal has echoed `^C` and left the cursor behind it.
            self.say_always("");
        }
        self.say_always(&format!("{} {}", self.paint(Style::Error, "error:"), printable(&failure.message)));
        if let Some(hint) = &failure.hint {
            self.say_always(&format!("{} {}", self.paint(Style::Notice, "hint:"), printable(hint)));
        }
        if self.flags.json {
            let document = document(&self.command, failure.exit, json!(failure), fields);
            // The exit code already says that it failed.
            let _ = write_document(&document, lists);
        }
        failure.exit
    }

    /// Writes data to stdout. A reader that has gone is no error; a full disk is.
    pub fn deliver(&self, bytes: &[u8]) -> Exit {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        self.delivered(written)
    }

    fn delivered(&self, written: io::Result<()>) -> Exit {
        match written {
            Ok(()) => Exit::Done,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Err(error) => {
                self.say_always(&format!(
                    "{} {}: cannot write to standard output: {error}",
                    self.paint(Style::Error, "error:"),
                    self.command
                ));
                Exit::Failed
            }
        }
    }
}

pub fn fields(report: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(report) {
        Ok(Value::Object(fields)) => fields,
        // A report is a struct whose keys are text.
        _ => Map::new(),
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
