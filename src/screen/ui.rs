//! The terminal as the person's side of a workflow.

use std::io::{self, BufRead, IsTerminal};
use std::sync::{Arc, PoisonError, mpsc};
use std::time::Duration;

use indicatif::ProgressBar;

use crate::args::OutputFlags;
use crate::screen::canvas::{Canvas, Notices};
use crate::screen::report::{Style, Terminal};
use crate::screen::{checked, plan, prepared};
use ctxtune_engine::check;
use ctxtune_engine::prepare::{self, Options, Prepared};
use ctxtune_pipeline::Ui;
use ctxtune_pipeline::job::cost::Beside;
use ctxtune_pipeline::job::expected::Expected;
use ctxtune_pipeline::job::plan::Plan;
use ctxtune_pipeline::job::price::Price;
use ctxtune_pipeline::text::printable;
use ctxtune_pipeline::ui::{Detail, Progress, StatusLine};
use ctxtune_service::Stopped;

impl Terminal {
    /// From now on what workflows say goes there; also for clones of this terminal.
    pub fn send_notices(&self, notices: Notices) {
        *self.notices.lock().unwrap_or_else(PoisonError::into_inner) = notices;
    }

    fn notices(&self) -> Notices {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn ui(&self) -> Arc<dyn Ui> {
        Arc::new(self.clone())
    }
}

impl Ui for Terminal {
    fn say(&self, text: &str) {
        let text = printable(text);
        match self.notices() {
            Notices::Above(canvas) | Notices::WithoutRetries(Some(canvas)) => canvas.print_above(&text),
            Notices::Said | Notices::WithoutRetries(None) => Terminal::say(self, &text),
        }
    }

    fn done(&self, text: &str) {
        Terminal::done(self, text);
    }

    fn warn(&self, text: &str) {
        Terminal::warn(self, &printable(text));
    }

    fn label(&self, label: &str, text: &str) {
        Terminal::label(self, label, text);
    }

    fn retry(&self, text: &str) {
        if !matches!(self.notices(), Notices::WithoutRetries(_)) {
            Ui::say(self, text);
        }
    }

    fn step(&self, number: u32, what: &str) {
        Terminal::say(self, "");
        let banner = self.banner().map(|banner| format!(" ({banner})")).unwrap_or_default();
        let step = self.paint(Style::Label, &format!("Step {number}: {what}"));
        Terminal::say(self, &format!("{step}{banner}"));
    }

    fn plan(&self, plan: &Plan<'_>) {
        plan::show(plan, self);
    }

    fn price(&self, price: &Price) {
        plan::show_price(price, self);
    }

    fn expected(&self, expected: &Expected) {
        plan::show_expected(expected, self);
    }

    fn running(&self, running: &[Beside]) {
        plan::show_running(running, self);
    }

    fn has_person(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    fn ask(&self, question: &str) -> Result<bool, Stopped> {
        self.put_question(&format!("{question} [y/N] "));
        // A read from a terminal goes on after a signal: somebody else waits for it.
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let answer = io::stdin().lock().read_line(&mut line).map(|_| line);
            // Nobody listens any more after a signal.
            let _ = send.send(answer.unwrap_or_default());
        });
        loop {
            match receive.recv_timeout(Duration::from_millis(50)) {
                Ok(answer) => {
                    return Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) if self.signals.is_stopped() => return Err(Stopped),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }

    fn watch_prepare<'u>(&'u self) -> Box<dyn prepare::Watch + 'u> {
        Box::new(prepared::Bar::new(self))
    }

    fn prepared(&self, options: &Options, prepared: &Prepared, duration: Duration) {
        prepared::summarize(options, prepared, duration, self);
    }

    fn not_prepared(&self, error: &prepare::Error) {
        prepared::say_failed(error, self);
    }

    fn watch_check<'u>(&'u self) -> Box<dyn check::Watch + 'u> {
        Box::new(checked::Bar::new(self))
    }

    fn findings(&self, report: &check::Report) {
        checked::say_findings(report, self);
    }

    fn detail(&self) -> Detail {
        match self.flags() {
            OutputFlags { quiet: true, .. } => Detail::Quiet,
            OutputFlags { verbose: true, .. } => Detail::Verbose,
            _ => Detail::Normal,
        }
    }

    fn status_line<'u>(&'u self) -> Box<dyn StatusLine + 'u> {
        let canvas = self.may_draw().then(Canvas::on_stderr);
        // Single tries are counted; with many at a time each would be a line.
        match &canvas {
            _ if !self.flags().verbose => self.send_notices(Notices::WithoutRetries(None)),
            Some(canvas) => self.send_notices(Notices::Above(canvas.clone())),
            None => {}
        }
        Box::new(Redrawn { canvas, terminal: self })
    }

    fn progress(&self, name: &str, total: u64) -> Box<dyn Progress> {
        let drawn = self.bar("{prefix} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left {msg}");
        drawn.set_length(total);
        drawn.set_prefix(name.to_owned());
        Box::new(Bar { drawn, terminal: self.clone() })
    }
}

struct Bar {
    drawn: ProgressBar,
    terminal: Terminal,
}

impl Progress for Bar {
    fn at(&self, bytes: u64) {
        if bytes == 0 {
            self.drawn.reset();
        }
        self.drawn.set_position(bytes);
    }

    fn waiting(&self, text: &str) {
        self.drawn.set_message(printable(text));
    }

    fn warn(&self, text: &str) {
        self.drawn.suspend(|| Ui::warn(&self.terminal, text));
    }

    fn is_drawn(&self) -> bool {
        !self.drawn.is_hidden()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.drawn.finish_and_clear();
    }
}

struct Redrawn<'t> {
    canvas: Option<Canvas>,
    terminal: &'t Terminal,
}

impl StatusLine for Redrawn<'_> {
    fn show(&self, text: &str) {
        match &self.canvas {
            Some(canvas) => canvas.draw(vec![text.to_owned()]),
            None => Terminal::say(self.terminal, text),
        }
    }

    fn is_redrawn(&self) -> bool {
        self.canvas.is_some()
    }
}

impl Drop for Redrawn<'_> {
    fn drop(&mut self) {
        if let Some(canvas) = &self.canvas {
            canvas.draw(Vec::new());
        }
        self.terminal.send_notices(Notices::Said);
    }
}
