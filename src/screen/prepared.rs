//! How far a preparation is, what it prepared, and what it rejected.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::screen::names::{say_names, say_not_read};
use crate::screen::report::{Style, Terminal};
use ctxtune_engine::line::example::Example;
use ctxtune_engine::output::manifest::Mixed;
use ctxtune_engine::prepare::{Error, Options, Prepared, Published, Watch};
use ctxtune_engine::record::warning::Warning;
use ctxtune_pipeline::text::{counted, grouped, percent, printable, sized, without_surrogates};

pub struct Bar<'s> {
    terminal: &'s Terminal,
    drawn: ProgressBar,
    bytes: AtomicU64,
    rejects: AtomicU64,
    start: Instant,
}

impl<'s> Bar<'s> {
    pub fn new(terminal: &'s Terminal) -> Self {
        let drawn = if terminal.may_draw() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if terminal.may_draw() {
            drawn.enable_steady_tick(Duration::from_millis(100));
        }
        Bar { terminal, drawn, bytes: AtomicU64::new(0), rejects: AtomicU64::new(0), start: Instant::now() }
    }

    /// From the listing, whose end nobody knows, to the conversion.
    fn begin_conversion(&self) {
        let style =
            ProgressStyle::with_template("{prefix}{bar:20} {human_pos}/{human_len} {msg}, {eta} left");
        self.drawn.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.drawn.reset_elapsed();
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.drawn.finish_and_clear();
    }
}

impl Watch for Bar<'_> {
    fn listed(&self, records: u64) {
        self.drawn.set_message(format!("listing: {}", counted(records, "record")));
        self.drawn.set_length(records);
    }

    fn converted(&self, records: u64, bytes: u64, rejects: u64) {
        if self.drawn.is_hidden() {
            return;
        }
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let rejects = self.rejects.fetch_add(rejects, Ordering::Relaxed) + rejects;
        if self.drawn.position() == 0 {
            self.begin_conversion();
        }
        // A grouped run visits the records twice.
        let visited = self.drawn.position() + records;
        if self.drawn.length().is_some_and(|length| visited > length) {
            self.drawn.set_length(visited.max(self.drawn.length().unwrap_or(0) * 2));
        }
        self.drawn.inc(records);
        let seconds = self.drawn.elapsed().as_secs_f64().max(0.001);
        let (files, rate) =
            ((self.drawn.position() as f64 / seconds) as u64, (bytes as f64 / seconds) as u64);
        self.drawn.set_message(format!(
            "{}/s, {}/s, {}",
            grouped(files),
            sized(rate),
            counted(rejects, "reject")
        ));
    }

    fn stored(&self, objects: u64, bytes: u64, requests: u64) {
        let (objects, requests) = (counted(objects, "object"), counted(requests, "request"));
        self.drawn
            .suspend(|| self.terminal.label("reads", &format!("{objects}, {}, by {requests}", sized(bytes))));
    }

    fn step(&self, what: &str, number: u64, of: u64) {
        self.bytes.store(0, Ordering::Relaxed);
        self.rejects.store(0, Ordering::Relaxed);
        self.drawn.set_position(0);
        self.drawn.set_prefix(format!("{what} {} of {of}: ", number + 1));
        let style = ProgressStyle::with_template("{spinner} {prefix}{msg}");
        self.drawn.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        self.drawn.set_message("");
    }

    fn publishing(&self, step: &str) {
        self.drawn.set_message(format!("publishing: {step}"));
    }

    fn is_stopped(&self) -> bool {
        self.terminal.signals.is_stopped()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

pub fn show_examples(prepared: &Prepared, terminal: &Terminal) {
    for (index, line) in prepared.shown.iter().enumerate() {
        terminal.say(&terminal.paint(Style::Label, &format!("example {} of train", index + 1)));
        let Ok(example) = Example::from_line(line) else {
            // A chat line may hold parts or calls of functions.
            terminal.say(&printable(&String::from_utf8_lossy(line)));
            continue;
        };
        for message in &example.messages {
            terminal.say(&terminal.paint(Style::Notice, &format!("[{}]", message.role)));
            terminal.say(&printable(&message.content));
        }
        terminal.say("");
    }
}

pub fn summarize(options: &Options, prepared: &Prepared, duration: Duration, terminal: &Terminal) {
    let counts = &prepared.counts;
    let say = |label: &str, text: String| terminal.label(label, &text);
    let mut found = counted(counts.listed, "record");
    // What was named as a source is not known any more where the shards of a plan are published.
    if !options.sources.is_empty() {
        found.push_str(&format!(" in {}", options.shown_sources().replace('`', "")));
    }
    say("found", found);
    say_not_read(&prepared.not_read, terminal);
    say("accepted", accepted(options, prepared));
    say_rejects(
        &prepared.rejects,
        counts.rejected_by_code.iter().map(|(code, count)| (code.as_str(), *count)),
        terminal,
    );
    say("split", split(options, prepared));
    for mixed in &prepared.mix {
        say("mix", mixed_in(mixed));
    }
    say("leakage", leakage(options, prepared));
    if let Some(text) = warnings(prepared) {
        say("warnings", text);
    }
    say_names(&prepared.warned, terminal);
    if let Some((manifest, published)) = &prepared.result {
        let shards = |side: &ctxtune_engine::output::manifest::Side, name: &str| match side.shards.as_slice()
        {
            [shard] => format!("{} {}", shard.file, sized(side.bytes)),
            shards => format!("{} {name} shards {}", shards.len(), sized(side.bytes)),
        };
        let files: Vec<String> = manifest.sides().map(|(name, side)| shards(side, name)).collect();
        let verb = if *published == Published::New { "wrote" } else { "unchanged" };
        say(verb, format!("{}: {}", shown_path(&options.output_dir), files.join(", ")));
    }
    let seconds = duration.as_secs_f64();
    let rate = prepared.bytes_read as f64 / seconds.max(0.000_001);
    say("took", format!("{seconds:.2} s, {} read, {}/s", sized(prepared.bytes_read), sized(rate as u64)));
    if prepared.has_no_locks {
        terminal.warn("this file system has no locks: a file kept other runs out; after a crash it may have to be deleted by hand");
    }
    if prepared.kept_readme {
        terminal.warn("the README.md in the output directory is not ours and stays; without our card `load_dataset` may need `data_files`");
    }
}

fn accepted(options: &Options, prepared: &Prepared) -> String {
    let counts = &prepared.counts;
    let mut text = grouped(counts.accepted);
    if options.only_correct {
        text.push_str(&format!(", and {} with is_correct: false skipped", grouped(counts.skipped)));
    } else if counts.is_correct.r#false > 0 {
        text.push_str(&format!(
            ", {} of them with is_correct: false (--only-correct leaves them out)",
            grouped(counts.is_correct.r#false)
        ));
    }
    text
}

fn split(options: &Options, prepared: &Prepared) -> String {
    let beyond = prepared.counts.beyond_limit;
    let mixed: u64 = prepared.mix.iter().map(|mixed| mixed.records).sum();
    let records = prepared.train_records - mixed;
    let first = match beyond {
        0 => String::new(),
        beyond => format!(" (the first of {}: --limit)", grouped(records + beyond)),
    };
    let mixed = if mixed > 0 { format!(" + {} mixed in", grouped(mixed)) } else { String::new() };
    let mut text = format!(
        "{} train{first}{mixed} + {} validation, seed {}, ratio {}",
        grouped(records),
        grouped(prepared.val_records),
        options.seed,
        options.val_ratio
    );
    if let (Some(by), Some(grouping)) = (&options.group_by, &prepared.grouping) {
        text.push_str(&format!(
            "; by {by}: {} of {} groups train, {:+} records from the exact count",
            grouped(grouping.train_groups),
            grouped(grouping.groups),
            grouping.deviation
        ));
    }
    printable(&text)
}

fn mixed_in(mixed: &Mixed) -> String {
    let (records, listed) = (grouped(mixed.records), counted(mixed.listed, "line"));
    let mut text = format!("{records} of {listed} of {} in train ({} asked for)", mixed.file, mixed.asked);
    let warned = mixed.warnings.iter().map(|(warning, count)| (*count, warning.as_str()));
    for (count, what) in
        std::iter::once((mixed.rejected, "rejected")).chain(warned).filter(|(count, _)| *count > 0)
    {
        text.push_str(&format!(", {} {what}", grouped(count)));
    }
    printable(&text)
}

fn leakage(options: &Options, prepared: &Prepared) -> String {
    let val = prepared.val_records;
    let of = |shared: u64| format!("{} of {} ({})", grouped(shared), grouped(val), percent(shared, val));
    let shared = prepared.leakage;
    if let Some(text) = shared.val_sharing_text {
        return format!("validation shares with train: user messages {}", of(text));
    }
    let [story, agents] =
        [shared.val_sharing_story, shared.val_sharing_agents].map(Option::unwrap_or_default);
    let remedy = match (story, agents) {
        (0, 0) => "",
        (0, _) => " (--group-by agents removes it)",
        (_, 0) => " (--group-by story removes it)",
        _ => " (--group-by story or agents removes the one or the other)",
    };
    let remedy = if options.group_by.is_some() { "" } else { remedy };
    format!("validation shares with train: story {}, set of agents {}{remedy}", of(story), of(agents))
}

fn warnings(prepared: &Prepared) -> Option<String> {
    let mut warnings = prepared.counts.warnings;
    let said: Vec<String> = Warning::ALL
        .into_iter()
        .map(|warning| (*warnings.count_mut(warning), oddity(warning)))
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", counted(count, "record")))
        .collect();
    (!said.is_empty()).then(|| said.join("; "))
}

pub fn oddity(warning: Warning) -> &'static str {
    match warning {
        Warning::AgentMissingFromStep => "with an agent missing from a step",
        Warning::AgentNotInNames => "with an agent not in agents_names",
        Warning::MixedTags => "mixing [SAME AS …] and <same_as… /> tags",
        Warning::SpecialTokens => "with special tokens such as <|eot_id|> in their text",
        Warning::BracketedProse => "whose story begins with a bracket and was read as prose, not as a list",
        Warning::NulCharacters => "with NUL characters (U+0000) in their text",
        Warning::ReplacementCharacters => {
            "with replacement characters (U+FFFD) in their text, left where it was decoded wrongly"
        }
        Warning::RoleOrder => "with a system message that is not the first one, or begun by the assistant",
        Warning::EmptyAssistant => "with an assistant message without text",
        Warning::RepeatedKeys => "with a key twice in a message: the last one counts",
        Warning::OtherColumns => "with columns other than messages, tools and weight, which are left out",
    }
}

pub fn say_failed(error: &Error, terminal: &Terminal) {
    if let Error::TooManyRejects { failed, .. } | Error::NothingAccepted { failed, .. } = error {
        say_rejects(&failed.rejects, failed.counts.by_code(), terminal);
    }
    if let Error::NothingListed { not_read, .. } = error {
        say_not_read(not_read, terminal);
    }
}

/// Names the first rejects, and how many more there are of each code.
fn say_rejects<'c>(rejects: &[String], by_code: impl Iterator<Item = (&'c str, u64)>, terminal: &Terminal) {
    let by_code: Vec<(&str, u64)> = by_code.collect();
    let total: u64 = by_code.iter().map(|(_, count)| count).sum();
    let codes: Vec<String> =
        by_code.iter().map(|(code, count)| format!("{code} {}", grouped(*count))).collect();
    let codes = if codes.is_empty() { String::new() } else { format!(": {}", codes.join(", ")) };
    terminal.say(&format!("{} {}{codes}", terminal.paint(Style::Label, "rejected "), grouped(total)));
    let mut named: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    for reject in rejects {
        let Ok(reject) = serde_json::from_str::<Value>(&without_surrogates(reject)) else { continue };
        let text = |field: &str| reject[field].as_str().unwrap_or_default().to_owned();
        *named.entry(text("code")).or_default() += 1;
        let at = if text("at").is_empty() { String::new() } else { format!(" at {}", text("at")) };
        let line = format!("  {}: {}: {}{at}", text("key"), text("code"), text("reason"));
        terminal.say(&printable(&line).replace('\n', "\\n"));
    }
    let more: Vec<String> = by_code
        .iter()
        .map(|(code, count)| (code, count - named.get(*code).copied().unwrap_or(0)))
        .filter(|(_, more)| *more > 0)
        .map(|(code, more)| format!("{} {code}", grouped(more)))
        .collect();
    if !more.is_empty() {
        terminal.say(&format!("  and more: {}", more.join(", ")));
    }
}

fn shown_path(path: &Path) -> String {
    printable(&path.to_string_lossy())
}
