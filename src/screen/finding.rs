//! What a check found, and how it is said: a line each, and what the worst of them means.

use serde::{Serialize, Serializer};

use crate::screen::report::{Style, Terminal};
use ctxtune_pipeline::text::{counted, one_line};
use ctxtune_pipeline::{Exit, Failure};

/// What is worst, worst first: without a key nothing can be asked, without a network nothing be known.
const ORDER: [Exit; 4] = [Exit::Key, Exit::Network, Exit::Usage, Exit::Failed];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Ok,
    /// It works, and may not be what is meant.
    Warn,
    Fail(Exit),
    /// Not there and not needed, or not to be known.
    Off,
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail(_) => "fail",
            Level::Off => "off",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `ok`, `warn`, `fail` (a job would fail) or `off` (not needed, or not known).
    pub level: Level,
    /// What was found.
    pub said: String,
    /// What to do, where there is something.
    pub hint: Option<String>,
}

impl Finding {
    pub fn ok(said: impl Into<String>) -> Finding {
        Finding { level: Level::Ok, said: said.into(), hint: None }
    }

    pub fn off(said: impl Into<String>) -> Finding {
        Finding { level: Level::Off, said: said.into(), hint: None }
    }

    pub fn warn(said: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { level: Level::Warn, said: said.into(), hint: Some(hint.into()) }
    }

    pub fn fail(exit: Exit, said: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { level: Level::Fail(exit), said: said.into(), hint: Some(hint.into()) }
    }

    pub fn of(failure: Failure) -> Finding {
        let exit = if ORDER.contains(&failure.exit) { failure.exit } else { Exit::Failed };
        Finding { level: Level::Fail(exit), said: failure.message, hint: failure.hint }
    }
}

#[derive(Serialize)]
pub struct Findings<'t> {
    #[serde(skip)]
    terminal: &'t Terminal,
    /// The checks, in their order.
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    /// Its name.
    name: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

impl<'t> Findings<'t> {
    pub fn new(terminal: &'t Terminal) -> Findings<'t> {
        Findings { terminal, checks: Vec::new() }
    }

    pub fn terminal(&self) -> &'t Terminal {
        self.terminal
    }

    pub fn add(&mut self, name: &'static str, finding: Finding) {
        let (word, style) = match finding.level {
            Level::Ok => ("ok", None),
            Level::Warn => ("warn", Some(Style::Notice)),
            Level::Fail(_) => ("FAIL", Some(Style::Error)),
            Level::Off => ("off", None),
        };
        let word = format!("{word:<4}");
        let word = style.map_or(word.clone(), |style| self.terminal.paint(style, &word));
        let hint = finding.hint.as_ref().map(|hint| format!(" -> {hint}")).unwrap_or_default();
        let text = one_line(&format!("{}{hint}", finding.said));
        self.terminal
            .say(&format!("{word}  {}  {text}", self.terminal.paint(Style::Label, &format!("{name:<12}"))));
        self.checks.push(Check { name, finding });
    }

    /// The failure that the worst of them is, with what to do about that one.
    pub fn failure(&self) -> Option<Failure> {
        let failed: Vec<(&str, Exit, &Finding)> = self.failed().collect();
        let of_kind = |exit: &Exit| failed.iter().find(|(_, failed, _)| failed == exit);
        let (_, exit, worst) = ORDER.iter().find_map(of_kind)?;
        let names: Vec<&str> = failed.iter().map(|(name, ..)| *name).collect();
        let of = counted(self.checks.len() as u64, "check");
        let message = format!("{} of {of} failed: {}", names.len(), names.join(", "));
        Some(Failure { exit: *exit, code: "checks_failed", message, hint: worst.hint.clone() })
    }

    fn failed(&self) -> impl Iterator<Item = (&'static str, Exit, &Finding)> {
        self.checks.iter().filter_map(|Check { name, finding }| match finding.level {
            Level::Fail(exit) => Some((*name, exit, finding)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_the_failures_decides() {
        let terminal = Terminal::new(
            crate::args::OutputFlags { quiet: true, ..Default::default() },
            "doctor",
            ctxtune_pipeline::signals::Signals::default(),
        );
        let check = |exits: &[Exit], expected: Option<Exit>| {
            let mut findings = Findings::new(&terminal);
            findings.add("a", Finding::warn("w", "h"));
            for exit in exits {
                findings.add("b", Finding::fail(*exit, "f", "h"));
            }
            assert_eq!(findings.failure().map(|failure| failure.exit), expected);
        };
        check(&[], None);
        check(&[Exit::Failed], Some(Exit::Failed));
        check(&[Exit::Failed, Exit::Usage], Some(Exit::Usage));
        check(&[Exit::Usage, Exit::Network, Exit::Failed], Some(Exit::Network));
        check(&[Exit::Network, Exit::Key], Some(Exit::Key));
    }
}
