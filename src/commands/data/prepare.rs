//! `ctxtune prepare`: progress while it runs, a summary that reads in ten lines.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::args::PrepareArgs;
use crate::screen::names::{Shown, counts_value, write_names};
use crate::screen::prepared::{Bar, say_failed, show_examples, summarize, without_surrogates};
use crate::screen::report::{LongList, Terminal};
use crate::session::environment::config_file;
use ctxtune_engine::prepare::{Error, Mode, Options, Prepared, Published, Purpose, prepare};
use ctxtune_engine::source::names::NameLog;
use ctxtune_pipeline::config::ConfigError;
use ctxtune_pipeline::failure::Exit;
use ctxtune_pipeline::job::data::{NAMED, not_prepared, threads};
use ctxtune_pipeline::job::mismatch::Mismatch;
use ctxtune_pipeline::shell;
use ctxtune_pipeline::signals::Signals;

const COMMAND: &str = "prepare";

/// Runs the command.
pub fn run(args: &PrepareArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let options = match resolve(args) {
        Ok(options) => options,
        Err(error) => return terminal.fail(COMMAND, &error.into(), Map::new()),
    };
    let start = Instant::now();
    let prepared = prepare(&options, &Bar::new(signals, terminal.may_draw()));
    let duration = start.elapsed();
    match prepared {
        Ok(prepared) => {
            show_examples(&prepared, terminal);
            summarize(&options, &prepared, duration, terminal);
            let mismatch = Mismatch::of_prepared(&options, &prepared);
            mismatch.iter().for_each(|mismatch| mismatch.warn(terminal));
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
            say_failed(&error, terminal);
            let fields = failed_fields(&error);
            let failure = not_prepared(error, signals);
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
        name_rejects: if names_all { usize::MAX - 1 } else { NAMED },
    };
    choices.resolve(purpose, threads())
}

/// Writes the names in `log`.
fn write_list(log: &NameLog, shown: Shown) -> impl Fn(&mut dyn Write) -> io::Result<()> {
    move |out| write_names(log, shown, out)
}

fn next_command(options: &Options, prepared: &Prepared) -> String {
    match &prepared.result {
        None => "the same without --dry-run".to_owned(),
        Some(_) => format!("ctxtune check {}", shell::path(&options.output_dir)),
    }
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

fn failed_fields(error: &Error) -> Map<String, Value> {
    let mut fields = Map::new();
    if let Error::NothingListed { not_read, .. } = error {
        fields.insert("not_read_by_kind".to_owned(), counts_value(not_read));
    }
    if let Error::TooManyRejects { failed, .. } | Error::NothingAccepted { failed, .. } = error {
        let by_code: Map<String, Value> =
            failed.counts.by_code().map(|(code, count)| (code.to_owned(), json!(count))).collect();
        fields.insert("rejected_by_code".to_owned(), Value::Object(by_code));
        fields.insert("rejects".to_owned(), rejects_value(&failed.rejects));
        let report = failed.report.as_ref().map(|path| path.to_string_lossy());
        fields.insert("rejects_file".to_owned(), json!(report));
    }
    fields
}
