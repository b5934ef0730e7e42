//! Who agrees that money is spent, or that something is undone: a flag, or a person at a terminal.

use std::io::{self, BufRead, IsTerminal};
use std::sync::mpsc;
use std::time::Duration;

use crate::args::SpendingArgs;
use crate::exit::{Exit, Failure};
use crate::screen::report::Terminal;
use crate::signals::Signals;
use ctxtune_service::clock::Stopped;

/// How spending is agreed to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spending {
    /// By flags: `--yes`, or `--max-cost` as the cap of the estimate, or both.
    Agreed {
        /// The cap in dollars.
        max_cost: Option<f64>,
    },
    /// By the answer to a question.
    Asked,
    /// Not at all: nobody is there to be asked.
    Impossible,
}

impl Spending {
    /// What the flags and the terminal allow.
    pub fn of(args: &SpendingArgs) -> Spending {
        Spending::of_flags(args.yes, args.max_cost)
    }

    /// What `--yes`, `--max-cost` and the terminal allow.
    pub fn of_flags(yes: bool, max_cost: Option<f64>) -> Spending {
        match (yes, max_cost) {
            (_, Some(cap)) => Spending::Agreed { max_cost: Some(cap) },
            (true, None) => Spending::Agreed { max_cost: None },
            (false, None) if has_person() => Spending::Asked,
            (false, None) => Spending::Impossible,
        }
    }

    /// The refusal where nobody can agree. Nothing has left the machine then.
    pub fn refusal() -> Failure {
        Failure::new(
            Exit::Unspent,
            "no_consent",
            "a job costs money, and nobody is at a terminal to agree to it",
            "agree with --max-cost USD (a cap of the estimate) or --yes",
        )
    }
}

/// Whether a person can be asked and answer.
pub fn has_person() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks at the terminal; only `y` and `yes` agree.
///
/// # Errors
/// When a signal comes before the answer.
pub fn ask(question: &str, signals: &Signals, terminal: &Terminal) -> Result<bool, Stopped> {
    terminal.ask(&format!("{question} [y/N] "));
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
            Ok(answer) => return Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")),
            Err(mpsc::RecvTimeoutError::Timeout) if signals.is_stopped() => return Err(Stopped),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(false),
        }
    }
}
