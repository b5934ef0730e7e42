//! `ctxtune prepare`: progress while it runs, a summary that reads in ten lines.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::args::PrepareArgs;
use crate::commands::job::mismatch::Mismatch;
use crate::exit::{Exit, Failure};
use crate::screen::names::{Shown, counts_value, say_names, say_not_read, write_names};
use crate::screen::report::{LongList, Style, Terminal, counted, grouped, percent, printable, sized};
use crate::screen::shell;
use crate::session::environment::config_file;
use crate::signals::Signals;
use ctxtune_engine::line::example::Example;
use ctxtune_engine::prepare::{
    Error, FailedRejects, Mode, Options, Prepared, Published, Purpose, Watch, prepare,
};
use ctxtune_engine::record::warning::Warning;
use ctxtune_engine::source::names::NameLog;
use ctxtune_pipeline::config::{ConfigError, PrepareChoices};

const COMMAND: &str = "prepare";

/// How many rejects, or passed-over files, a summary names unless it is to name all.
const REJECTS_NAMED: usize = 5;

/// Runs the command.
pub fn run(args: &PrepareArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let options = match resolve(args) {
        Ok(options) => options,
        Err(error) => return terminal.fail(COMMAND, &error.into(), Map::new()),
    };
    match prepare_drawn(&options, signals, terminal) {
        Ok((prepared, duration)) => {
            show_examples(&prepared, terminal);
            summarize(&options, &prepared, duration, terminal);
            let mismatch = say_mismatch(&options, &prepared, terminal);
            terminal.label("next", &next_command(&options, &prepared));
            let out = options.output_dir.as_os_str().as_encoded_bytes();
            let line = (options.purpose.mode == Mode::Publish).then_some(out);
            let mut fields = document(&options, &prepared, duration);
            Mismatch::add(mismatch.as_ref(), &mut fields);
            let shown = Shown::by(terminal);
            let (not_read, warned) =
                (write_list(&prepared.not_read, shown), write_list(&prepared.warned, shown));
            let lists = [
                LongList { name: "not_read", write: &not_read },
                LongList { name: "warned_records", write: &warned },
            ];
            terminal.succeed_with(COMMAND, line, fields, &lists)
        }
        Err(error) => {
            let not_read = match &error {
                Error::NothingListed { not_read, .. } => Some(Arc::clone(not_read)),
                _ => None,
            };
            let (failure, fields) = explain(error, signals, terminal);
            let write = not_read.as_deref().map(|log| write_list(log, Shown::by(terminal)));
            let list = write.as_ref().map(|write| LongList { name: "not_read", write });
            terminal.fail_with(COMMAND, &failure, fields, list.as_slice())
        }
    }
}

fn resolve(args: &PrepareArgs) -> Result<Options, ConfigError> {
    let mut choices = args.corpus.choices.clone();
    if let Some(file) = config_file(args.corpus.config_path.as_deref())? {
        choices = choices.over(file.prepare_choices()?);
    }
    let names_all = args.dry_run || args.voice.verbose;
    let purpose = Purpose {
        mode: if args.dry_run { Mode::DryRun } else { Mode::Publish },
        show: args.show,
        name_rejects: if names_all { usize::MAX - 1 } else { REJECTS_NAMED },
    };
    choices.resolve(purpose, cores())
}

/// Writes the names in `log`.
fn write_list(log: &NameLog, shown: Shown) -> impl Fn(&mut dyn Write) -> io::Result<()> {
    move |out| write_names(log, shown, out)
}

/// Prepares as a step of something larger: publishes, and says the summary.
///
/// # Errors
/// When the choices cannot be resolved, or nothing is published.
pub fn prepare_corpus(
    choices: PrepareChoices,
    signals: &Signals,
    terminal: &Terminal,
) -> Result<Options, Failure> {
    let purpose = Purpose { mode: Mode::Publish, show: 0, name_rejects: REJECTS_NAMED };
    let options = choices.resolve(purpose, cores())?;
    let (prepared, duration) =
        prepare_drawn(&options, signals, terminal).map_err(|error| explain(error, signals, terminal).0)?;
    summarize(&options, &prepared, duration, terminal);
    say_mismatch(&options, &prepared, terminal);
    Ok(options)
}

/// Says where the newest job of the output directory was trained on other data than is there now.
fn say_mismatch(options: &Options, prepared: &Prepared, terminal: &Terminal) -> Option<Mismatch> {
    let (manifest, _) = prepared.result.as_ref()?;
    let mismatch = Mismatch::of_newest(&options.output_dir, manifest)?;
    mismatch.warn(terminal);
    Some(mismatch)
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Prepares with progress on a terminal.
fn prepare_drawn(
    options: &Options,
    signals: &Signals,
    terminal: &Terminal,
) -> Result<(Prepared, Duration), Error> {
    let bar = Bar::new(signals, terminal.may_draw());
    let start = Instant::now();
    let result = prepare(options, &bar);
    let duration = start.elapsed();
    bar.drawn.finish_and_clear();
    result.map(|prepared| (prepared, duration))
}

fn explain(error: Error, signals: &Signals, terminal: &Terminal) -> (Failure, Map<String, Value>) {
    let mut fields = Map::new();
    if let Error::TooManyRejects { failed, .. } | Error::NothingAccepted { failed, .. } = &error {
        say_rejects(&failed.rejects, failed.counts.by_code(), terminal);
        fields = failed_fields(failed);
    }
    if let Error::NothingListed { not_read, .. } = &error {
        say_not_read(not_read, terminal);
        fields.insert("not_read_by_kind".to_owned(), counts_value(not_read));
    }
    let is_interrupted = matches!(error, Error::Interrupted);
    let mut failure = Failure::from(error);
    if is_interrupted {
        failure.exit = signals.exit();
    }
    (failure, fields)
}

/// Draws progress on a terminal and passes signals on.
struct Bar<'s> {
    signals: &'s Signals,
    drawn: ProgressBar,
    bytes: AtomicU64,
    rejects: AtomicU64,
    start: Instant,
}

impl<'s> Bar<'s> {
    fn new(signals: &'s Signals, may_draw: bool) -> Self {
        let drawn = if may_draw { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if may_draw {
            drawn.enable_steady_tick(Duration::from_millis(100));
        }
        Bar { signals, drawn, bytes: AtomicU64::new(0), rejects: AtomicU64::new(0), start: Instant::now() }
    }

    /// From the listing, whose end nobody knows, to the conversion.
    fn begin_conversion(&self) {
        let style = ProgressStyle::with_template("{bar:20} {human_pos}/{human_len} {msg}, {eta} left");
        self.drawn.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.drawn.reset_elapsed();
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

    fn publishing(&self, step: &str) {
        self.drawn.set_message(format!("publishing: {step}"));
    }

    fn is_stopped(&self) -> bool {
        self.signals.is_stopped()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

fn show_examples(prepared: &Prepared, terminal: &Terminal) {
    for (index, line) in prepared.shown.iter().enumerate() {
        let Ok(example) = Example::from_line(line) else { continue };
        terminal.say(&terminal.paint(Style::Label, &format!("example {} of train", index + 1)));
        for message in &example.messages {
            terminal.say(&terminal.paint(Style::Notice, &format!("[{}]", message.role)));
            terminal.say(&printable(&message.content));
        }
        terminal.say("");
    }
}

fn summarize(options: &Options, prepared: &Prepared, duration: Duration, terminal: &Terminal) {
    let counts = &prepared.counts;
    let say = |label: &str, text: String| terminal.label(label, &text);
    let found = counted(counts.listed, "record");
    say("found", format!("{found} in {}", options.shown_sources().replace('`', "")));
    say_not_read(&prepared.not_read, terminal);
    say("accepted", accepted(options, prepared));
    say_rejects(
        &prepared.rejects,
        counts.rejected_by_code.iter().map(|(code, count)| (code.as_str(), *count)),
        terminal,
    );
    say("split", split(options, prepared));
    say("leakage", leakage(options, prepared));
    if let Some(text) = warnings(prepared) {
        say("warnings", text);
        say_names(&prepared.warned, terminal);
    }
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

fn next_command(options: &Options, prepared: &Prepared) -> String {
    match &prepared.result {
        None => "the same without --dry-run".to_owned(),
        Some(_) => format!("ctxtune check {}", shell::path(&options.output_dir)),
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
    let mut text = format!(
        "{} train + {} validation, seed {}, ratio {}",
        grouped(prepared.train_records),
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

fn leakage(options: &Options, prepared: &Prepared) -> String {
    let val = prepared.val_records;
    let of = |shared: u64| format!("{} of {} ({})", grouped(shared), grouped(val), percent(shared, val));
    let shared = prepared.leakage;
    let remedy = match (shared.val_sharing_story, shared.val_sharing_agents) {
        (0, 0) => "",
        (0, _) => " (--group-by agents removes it)",
        (_, 0) => " (--group-by story removes it)",
        _ => " (--group-by story or agents removes the one or the other)",
    };
    let remedy = if options.group_by.is_some() { "" } else { remedy };
    format!(
        "validation shares with train: story {}, set of agents {}{remedy}",
        of(shared.val_sharing_story),
        of(shared.val_sharing_agents)
    )
}

fn warnings(prepared: &Prepared) -> Option<String> {
    let mut warnings = prepared.counts.warnings;
    let said: Vec<String> = Warning::ALL
        .into_iter()
        .map(|warning| (*warning.count_in(&mut warnings), oddity(warning)))
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", counted(count, "record")))
        .collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// What is odd in records of this kind.
fn oddity(warning: Warning) -> &'static str {
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

/// JSON that serde_json reads: a key's undecodable bytes are `\udcXX` escapes, shown as `\xXX`.
pub fn without_surrogates(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(start) = rest.find('\\') {
        text.push_str(&rest[..start]);
        let escape = &rest[start..];
        // An escaped backslash is passed over whole: what follows it is text.
        let (shown, after) = match escape.strip_prefix("\\udc") {
            Some(digits) => ("\\\\x", digits),
            None => escape.split_at(2),
        };
        text.push_str(shown);
        rest = after;
    }
    text.push_str(rest);
    text
}

fn shown_path(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// The fields of the JSON document beside the common ones.
fn document(options: &Options, prepared: &Prepared, duration: Duration) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("output_dir", json!(options.output_dir.to_string_lossy()));
    put("dry_run", json!(options.purpose.mode == Mode::DryRun));
    put(
        "published",
        json!(prepared.result.as_ref().map(|(_, published)| match published {
            Published::New => "new",
            Published::Unchanged => "unchanged",
        })),
    );
    put("counts", json!(prepared.counts));
    put("split", json!({ "train": prepared.train_records, "val": prepared.val_records }));
    put("leakage", json!(prepared.leakage));
    put("grouping", json!(prepared.grouping));
    put("rejects", rejects_value(&prepared.rejects));
    put("not_read_by_kind", counts_value(&prepared.not_read));
    let manifest = prepared.result.as_ref().map(|(manifest, _)| manifest);
    put("train", json!(manifest.map(|manifest| &manifest.train)));
    put("val", json!(manifest.and_then(|manifest| manifest.val.as_ref())));
    put("bytes_read", json!(prepared.bytes_read));
    put("seconds", json!(duration.as_secs_f64()));
    fields
}

fn rejects_value(rejects: &[String]) -> Value {
    rejects
        .iter()
        .map(|reject| serde_json::from_str::<Value>(&without_surrogates(reject)).unwrap_or(Value::Null))
        .collect()
}

fn failed_fields(failed: &FailedRejects) -> Map<String, Value> {
    let by_code: Map<String, Value> =
        failed.counts.by_code().map(|(code, count)| (code.to_owned(), json!(count))).collect();
    let mut fields = Map::new();
    fields.insert("rejected_by_code".to_owned(), Value::Object(by_code));
    fields.insert("rejects".to_owned(), rejects_value(&failed.rejects));
    fields
        .insert("rejects_file".to_owned(), json!(failed.report.as_ref().map(|path| path.to_string_lossy())));
    fields
}
