//! What a check found, line by line, and what the data looks like.

use std::time::Duration;

use indicatif::ProgressBar;

use crate::screen::report::{Style, Terminal};
use ctxtune_engine::check::code::{Code, Level, Stage};
use ctxtune_engine::check::conversation::Format;
use ctxtune_engine::check::counter::Method;
use ctxtune_engine::check::finding::Finding;
use ctxtune_engine::check::judge::Role;
use ctxtune_engine::check::stats::{Histogram, TokenLengths, Tokens};
use ctxtune_engine::check::{FileReport, Report, Watch};
use ctxtune_pipeline::job::data::NAMED;
use ctxtune_pipeline::text::{counted, grouped, percent, printable, sized};

const BARS: usize = 8;
const BAR_WIDTH: u64 = 30;

pub struct Bar<'s> {
    terminal: &'s Terminal,
    drawn: ProgressBar,
}

impl<'s> Bar<'s> {
    pub fn new(terminal: &'s Terminal) -> Self {
        let drawn = terminal.bar("{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
        drawn.set_length(0);
        drawn.enable_steady_tick(Duration::from_millis(100));
        Bar { terminal, drawn }
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.drawn.finish_and_clear();
    }
}

impl Watch for Bar<'_> {
    fn expects(&self, bytes: u64) {
        self.drawn.inc_length(bytes);
    }

    fn checked(&self, bytes: u64) {
        if !self.drawn.is_hidden() {
            self.drawn.inc(bytes);
        }
    }

    fn is_stopped(&self) -> bool {
        self.terminal.signals.is_stopped()
    }
}

/// Shows what was checked; `how` says how tokens were counted.
pub fn summarize(report: &Report, how: &str, duration: Duration, terminal: &Terminal) {
    let say = |label: &str, text: String| {
        terminal.say(&format!(
            "{} {}",
            terminal.paint(Style::Label, &format!("{label:<12}")),
            printable(&text)
        ));
    };
    let sum = |of: fn(&FileReport) -> u64| report.files.iter().map(of).sum::<u64>();
    let bytes = sum(|file| file.bytes);
    let rate = bytes as f64 / duration.as_secs_f64().max(1e-6);
    say(
        "checked",
        format!(
            "{}, {}, {}, {} in {:.2} s ({}/s)",
            counted(report.files.len() as u64, "file"),
            counted(sum(|file| file.samples), "sample"),
            counted(sum(|file| file.blank_lines), "blank line"),
            sized(bytes),
            duration.as_secs_f64(),
            sized(rate as u64),
        ),
    );
    for stage in [Stage::Structure, Stage::Conversation] {
        say(stage.as_str(), verdict(report, stage));
    }
    say("formats", by_name(&totals(report, |file| file.formats), Format::ALL.map(Format::as_str)));
    say("roles", by_name(&totals(report, |file| file.roles), Role::ALL.map(Role::as_str)));
    say("duplicates", counted(report.findings.count(Code::Duplicate), "sample"));
    if report.lengths.count() > 0 {
        say("length", quantiles(&report.lengths, |bytes| format!("{} B", grouped(bytes))));
        say("tokens", format!("{}; {how}", token_quantiles(report)));
        let total = report.tokens.total();
        let about = match report.tokens.about {
            0 => String::new(),
            samples => format!("; of {} only about", counted(samples, "sample")),
        };
        say("all tokens", format!("{}{about}", range(total, report.method)));
        match report.method {
            Method::About => draw_histogram(&report.lengths, "B", terminal),
            _ => draw_histogram(&report.tokens.high, "tokens", terminal),
        }
        say_longest(report, terminal);
    }
}

fn verdict(report: &Report, stage: Stage) -> String {
    match report.findings.errors(stage) {
        0 if stage == Stage::Conversation && report.lengths.count() == 0 => "nothing to check".to_owned(),
        0 => "passed".to_owned(),
        errors => counted(errors, "error"),
    }
}

fn totals<const N: usize>(report: &Report, of: fn(&FileReport) -> [u64; N]) -> [u64; N] {
    let mut totals = [0; N];
    for file in &report.files {
        totals.iter_mut().zip(of(file)).for_each(|(total, more)| *total += more);
    }
    totals
}

fn by_name<const N: usize>(counts: &[u64; N], names: [&str; N]) -> String {
    let named = names.iter().zip(counts).filter(|(_, count)| **count > 0);
    let named: Vec<String> = named.map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
    if named.is_empty() { "none".to_owned() } else { named.join(", ") }
}

fn range(tokens: Tokens, method: Method) -> String {
    match method {
        Method::Exact if tokens.low == tokens.high => grouped(tokens.high),
        Method::AtMost => format!("at most {}", grouped(tokens.high)),
        _ => format!("{}–{}", grouped(tokens.low), grouped(tokens.high)),
    }
}

fn token_quantiles(report: &Report) -> String {
    let TokenLengths { low, high, .. } = &report.tokens;
    let shown = |low, high| match report.method {
        Method::About => format!("{}–{}", grouped(low), grouped(high)),
        _ => grouped(high),
    };
    let quantile = |percent| shown(low.quantile(percent), high.quantile(percent));
    format!(
        "least {}, median {}, 90 % up to {}, 99 % up to {}, most {}",
        shown(low.least(), high.least()),
        quantile(50),
        quantile(90),
        quantile(99),
        shown(low.most(), high.most()),
    )
}

fn quantiles(lengths: &Histogram, shown: impl Fn(u64) -> String) -> String {
    format!(
        "least {}, median {}, 90 % up to {}, 99 % up to {}, most {}",
        shown(lengths.least()),
        shown(lengths.quantile(50)),
        shown(lengths.quantile(90)),
        shown(lengths.quantile(99)),
        shown(lengths.most())
    )
}

fn draw_histogram(lengths: &Histogram, unit: &str, terminal: &Terminal) {
    let bars = lengths.bars(BARS);
    let highest = bars.iter().map(|bar| bar.samples).max().unwrap_or(1).max(1);
    let width = grouped(lengths.most()).len();
    for bar in bars {
        let length = (bar.samples * BAR_WIDTH).div_ceil(highest) as usize;
        terminal.say(&format!(
            "  {:>width$}–{:<width$} {unit} {:<30} {} ({})",
            grouped(bar.from),
            grouped(bar.to),
            "#".repeat(length),
            grouped(bar.samples),
            percent(bar.samples, lengths.count()),
        ));
    }
}

fn say_longest(report: &Report, terminal: &Terminal) {
    terminal.say(&terminal.paint(Style::Label, "longest"));
    for (long, key) in &report.longest {
        let key = key.as_ref().map(|key| format!(", record {key}")).unwrap_or_default();
        terminal.say(&printable(&format!(
            "  {}:{}: {} B, {} tokens{key}",
            report.path(long.path).display(),
            long.line,
            grouped(long.bytes),
            range(long.tokens, report.method),
        )));
    }
}

pub fn say_findings(report: &Report, terminal: &Terminal) {
    for level in [Level::Warning, Level::Error] {
        for code in Code::all().filter(|code| code.level() == level) {
            let count = report.findings.count(code);
            if count == 0 {
                continue;
            }
            let style = if level == Level::Error { Style::Error } else { Style::Notice };
            let heading = terminal.paint(style, &format!("{} {code}", level.as_str()));
            terminal.say(&format!("{heading} ({}): {}", code.stage().as_str(), grouped(count)));
            let limit = if terminal.flags().verbose { usize::MAX } else { NAMED };
            let mut shown = 0;
            for finding in report.findings.kept().iter().filter(|kept| kept.code == code).take(limit) {
                terminal.say(&printable(&line_of(report, finding)));
                shown += 1;
            }
            if count > shown {
                terminal.say(&format!("  and {} more", grouped(count - shown)));
            }
        }
    }
}

/// `file:line: code: message`, and the record's key where it is known.
fn line_of(report: &Report, finding: &Finding) -> String {
    let path = report.path(finding.path).display();
    let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
    let key = finding.key.as_ref().map(|key| format!(" (record {key})")).unwrap_or_default();
    format!("{path}{line}: {}: {}{key}", finding.code, finding.message)
}
