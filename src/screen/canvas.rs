//! Lines at the end of a terminal that are drawn over themselves.
//!
//! Separate from what the lines say. It is shared: a retry of the transport, told from another thread,
//! is printed above the lines without tearing them. The cursor is hidden only inside one write, so
//! that whatever ends the program, it is there. Nothing is ever drawn higher than the terminal.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use console::{Term, measure_text_width, truncate_str};

use crate::screen::fold::folded;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// The lines and where they are drawn; clones draw on the same.
#[derive(Clone)]
pub struct Canvas(Arc<Mutex<Drawing>>);

/// Where what is said while a command waits goes; retries come from several threads.
#[derive(Clone, Default)]
pub enum Notices {
    #[default]
    Said,
    Above(Canvas),
    /// As above, but retries nowhere: whoever watches for hours is told once that requests fail, by a screen.
    WithoutRetries(Option<Canvas>),
}

struct Drawing {
    out: Box<dyn Write + Send>,
    size: Box<dyn Fn() -> Size + Send>,
    lines: Vec<String>,
    /// The terminal's size when they were drawn.
    drawn_on: Option<Size>,
}

/// What is typed is not shown as long as this lives. The end of a line that somebody types would move the
/// cursor away from the lines, and their first ones would stay above the next drawing. It is read later, by
/// whoever comes next.
#[cfg(unix)]
pub struct Unechoed(Option<rustix::termios::Termios>);

#[cfg(unix)]
impl Unechoed {
    /// Begins, where standard input is a terminal of which this program is in the foreground.
    pub fn begin() -> Unechoed {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        let modes = in_foreground().then(|| tcgetattr(&stdin).ok()).flatten();
        if let Some(mut quiet) = modes.clone() {
            quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
            // Where it cannot be, what is typed is shown.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &quiet);
        }
        Unechoed(modes)
    }
}

#[cfg(unix)]
impl Drop for Unechoed {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        if let Some(modes) = self.0.take().filter(|_| in_foreground()) {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &modes);
        }
    }
}

/// Whether the terminal is this program's to change: from the background that would stop it.
#[cfg(unix)]
fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

#[cfg(not(unix))]
pub struct Unechoed;

#[cfg(not(unix))]
impl Unechoed {
    pub fn begin() -> Unechoed {
        Unechoed
    }
}

impl Canvas {
    pub fn on_stderr() -> Canvas {
        let size = || {
            let (rows, columns) = Term::stderr().size_checked().unwrap_or((24, 80));
            Size { columns: columns.into(), rows: rows.into() }
        };
        Canvas::new(Box::new(std::io::stderr()), Box::new(size))
    }

    pub fn new(out: Box<dyn Write + Send>, size: Box<dyn Fn() -> Size + Send>) -> Canvas {
        Canvas(Arc::new(Mutex::new(Drawing { out, size, lines: Vec::new(), drawn_on: None })))
    }

    pub fn size(&self) -> Size {
        self.with(|drawing| (drawing.size)())
    }

    /// Draws `lines` over those drawn before; what does not fit is cut off.
    pub fn draw(&self, lines: Vec<String>) {
        self.with(|drawing| drawing.draw(&[], lines));
    }

    /// Prints `text` above the lines, for good; no word of it is broken.
    pub fn print_above(&self, text: &str) {
        self.with(|drawing| {
            let text = folded(text, (drawing.size)().columns);
            let text: Vec<String> = text.lines().map(str::to_owned).collect();
            let lines = drawing.lines.clone();
            drawing.draw(&text, lines);
        });
    }

    /// Draws `lines`, of any number, over those drawn before and leaves them to the scrollback.
    pub fn leave(&self, lines: &[String]) {
        self.with(|drawing| drawing.draw(lines, Vec::new()));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Drawing) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drawing {
    fn draw(&mut self, above: &[String], lines: Vec<String>) {
        let size = (self.size)();
        // The last column stays free: a full line would leave the cursor in doubt. So does the last row.
        let width = size.columns.saturating_sub(1).max(1);
        let height = size.rows.saturating_sub(1).max(1);
        let fit = |line: &String| truncate_str(line, width, "").into_owned();
        let lines: Vec<String> = lines.iter().take(height).map(fit).collect();
        if above.is_empty() && lines == self.lines && self.drawn_on == Some(size) {
            return;
        }
        let mut text = String::from("\u{1b}[?25l\r");
        match self.rows_drawn(size) {
            0 => {}
            rows => text.push_str(&format!("\u{1b}[{rows}A")),
        }
        for line in above.iter().chain(&lines) {
            text.push_str(line);
            text.push_str("\u{1b}[K\n");
        }
        text.push_str("\u{1b}[J\u{1b}[?25h");
        // Nobody sees it: nothing to be done, and no reason to fail.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        self.lines = lines;
        self.drawn_on = Some(size);
    }

    /// The rows that the lines take now: a terminal that was made narrower has broken them.
    fn rows_drawn(&self, size: Size) -> usize {
        let columns = size.columns.max(1);
        let rows = self.lines.iter().map(|line| measure_text_width(line).div_ceil(columns).max(1));
        rows.sum::<usize>().min(size.rows.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal that keeps what is written.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn canvas(sizes: &[(usize, usize)]) -> (Canvas, Paper) {
        let paper = Paper::default();
        let sizes = Mutex::new(sizes.to_vec());
        let size = move || {
            let mut sizes = sizes.lock().unwrap();
            let (columns, rows) = if sizes.len() > 1 { sizes.remove(0) } else { sizes[0] };
            Size { columns, rows }
        };
        (Canvas::new(Box::new(paper.clone()), Box::new(size)), paper)
    }

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    /// What was written since the last look, with ESC as `^`.
    fn taken(paper: &Paper) -> String {
        String::from_utf8(std::mem::take(&mut *paper.0.lock().unwrap())).unwrap().replace('\u{1b}', "^")
    }

    #[test]
    fn lines_are_drawn_over_themselves_and_only_when_they_change() {
        let (canvas, paper) = canvas(&[(80, 24)]);
        canvas.draw(lines(&["a", "b"]));
        assert_eq!(taken(&paper), "^[?25l\ra^[K\nb^[K\n^[J^[?25h");
        canvas.draw(lines(&["a", "b"]));
        assert_eq!(taken(&paper), "");
        canvas.draw(lines(&["c"]));
        assert_eq!(taken(&paper), "^[?25l\r^[2Ac^[K\n^[J^[?25h");
        canvas.print_above("told");
        assert_eq!(taken(&paper), "^[?25l\r^[1Atold^[K\nc^[K\n^[J^[?25h");
        canvas.leave(&lines(&["d", "e"]));
        canvas.draw(lines(&["f"]));
        assert_eq!(taken(&paper), "^[?25l\r^[1Ad^[K\ne^[K\n^[J^[?25h^[?25l\rf^[K\n^[J^[?25h");
    }

    #[test]
    fn nothing_is_wider_or_higher_than_the_terminal() {
        let (canvas, paper) = canvas(&[(6, 3)]);
        canvas.draw(lines(&["123456789", "漢字漢字", "c", "d"]));
        assert_eq!(taken(&paper), "^[?25l\r12345^[K\n漢字^[K\n^[J^[?25h");
    }

    #[test]
    fn lines_that_a_narrower_terminal_broke_are_drawn_over_too() {
        let (canvas, paper) = canvas(&[(80, 24), (10, 24)]);
        canvas.draw(lines(&["0123456789abcde", ""]));
        taken(&paper);
        canvas.draw(lines(&["x"]));
        assert!(taken(&paper).starts_with("^[?25l\r^[3Ax"));
    }
}
