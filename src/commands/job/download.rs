//! `ctxtune download`: the weights of a job as an archive, under a name that says what it is.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::args::DownloadArgs;
use crate::commands::job::using::{ask, public_base, say_commands, serve_adapter, serve_model};
use crate::screen::report::Terminal;
use crate::session;
use ctxtune_pipeline::job::mismatch::Mismatch;
use ctxtune_pipeline::job::model::gives_adapter_only;
use ctxtune_pipeline::text::{counted, one_line, printable, sized};
use ctxtune_pipeline::{Exit, Failure, Session, shell};
use ctxtune_service::together::download::{Probe, Wanted, Which, fetch, probe};
use ctxtune_service::together::unpack::{require_absent, unpack};
use ctxtune_service::together::{self, Ending, Job, JobId, jobs};

/// The most characters of a file's name that are taken from the service.
const NAME_CHARACTERS: usize = 120;
const ADAPTER_CONFIG: &str = "adapter_config.json";

struct Fetched {
    job: Job,
    which: Which,
    step: Option<u64>,
    path: PathBuf,
    bytes: u64,
    was_there: bool,
    extracted: Option<Extracted>,
    /// The directory of the job's data, if it is here.
    out: Option<PathBuf>,
    mismatch: Option<Mismatch>,
}

struct Extracted {
    dir: PathBuf,
    files: usize,
    bytes: u64,
    /// Where a server finds the model: `dir`, or one directory in it.
    model: PathBuf,
    /// The base model and the rank of an adapter, as its own configuration has them.
    adapter: Option<(String, u64)>,
    is_archive_kept: bool,
}

#[derive(Serialize)]
struct Report {
    /// The job.
    job: JobId,
    /// `merged`, `adapter` or `full`: which weights.
    checkpoint: &'static str,
    /// The step of `--checkpoint`; `null`: the last one.
    step: Option<u64>,
    /// The archive; `null` where it was removed after `--extract`.
    file: Option<String>,
    /// Its length in bytes.
    bytes: u64,
    /// Whether it was there before.
    already_there: bool,
    /// The directory of `--extract`; `null` without it.
    directory: Option<String>,
    /// The base model of an extracted adapter, else `null`.
    base_model: Option<String>,
    /// The rank of an extracted adapter, else `null`.
    lora_rank: Option<u64>,
    /// Shell commands that unpack it, or serve it and ask it.
    next_commands: Vec<String>,
    /// Only where the directory of the job's data holds other data now.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_mismatch: Option<Mismatch>,
}

pub fn run(args: &DownloadArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let fetched = download(args, terminal)?;
    fetched.say(terminal);
    let extracted = fetched.extracted.as_ref();
    let path = extracted.map_or(&fetched.path, |extracted| &extracted.dir);
    Ok(terminal.report(Some(path.as_os_str().as_encoded_bytes()), &fetched.report()))
}

fn download(args: &DownloadArgs, terminal: &Terminal) -> Result<Fetched, Failure> {
    if let Some(dir) = &args.extract {
        require_absent(dir)?;
    }
    let session = session::open(&args.remote, terminal)?;
    let id = session.job(Some(&args.target))?;
    let job = jobs::retrieve(&session.together, &id).map_err(|error| session.explain(error))?;
    let target = Some(Path::new(&args.target));
    session.note_status(target, &job);
    let out = session.directory_of(target, &id);
    let mismatch = out.as_ref().and_then(|out| Mismatch::of_job(out, &id));
    if let Some(mismatch) = &mismatch {
        mismatch.warn(terminal);
    }
    let which = which(args, &session, &job, terminal)?;
    if args.checkpoint.is_none() {
        require_end(&job)?;
    }
    let wanted = Wanted { job: &id, checkpoint: which, step: args.checkpoint };
    let explain = |error: together::Error| explain(&session, error, &job);
    let known = probe(&session.together, wanted).map_err(explain)?;
    let name = name(&job, wanted, known.extension);
    let path = match (&args.output, args.extract.as_deref().and_then(Path::parent)) {
        // Beside DIR, where there must be room for that too.
        (None, Some(beside)) => beside.join(name),
        (output, _) => place(output.as_deref(), &name),
    };
    let there = there(&path, &known)?;
    let bytes = match there {
        Some(bytes) => bytes,
        None => fetch_with_bar(&session, wanted, &path, terminal).map_err(explain)?,
    };
    let was_there = there.is_some();
    let mut fetched = Fetched {
        job: job.clone(),
        which,
        step: args.checkpoint,
        path,
        bytes,
        was_there,
        extracted: None,
        out,
        mismatch,
    };
    if let Some(dir) = &args.extract {
        let keeps_archive = args.output.is_some() || was_there;
        fetched.extracted = Some(fetched.extract(dir, keeps_archive, &session, terminal)?);
    }
    Ok(fetched)
}

fn fetch_with_bar(
    session: &Session,
    wanted: Wanted<'_>,
    path: &Path,
    terminal: &Terminal,
) -> Result<u64, together::Error> {
    let bar = bar(path, terminal);
    let mut progress = |written: u64, total: Option<u64>| {
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(written);
    };
    let bytes = fetch(&session.together, wanted, path, &mut progress);
    bar.finish_and_clear();
    bytes
}

impl Fetched {
    /// Unpacks the archive to `dir`, and removes it unless it is to be kept.
    fn extract(
        &self,
        dir: &Path,
        keeps_archive: bool,
        session: &Session,
        terminal: &Terminal,
    ) -> Result<Extracted, Failure> {
        let unpacked = unpack(&self.path, dir, session.clock.as_ref());
        let unpacked = unpacked.map_err(|error| session.explain(error))?;
        let is_config = |file: &&PathBuf| file.file_name().is_some_and(|name| name == ADAPTER_CONFIG);
        let config = unpacked.files.iter().filter(is_config).min_by_key(|file| file.components().count());
        let config = config.map(|config| dir.join(config));
        let mut is_archive_kept = true;
        if !keeps_archive {
            match std::fs::remove_file(&self.path) {
                Ok(()) => is_archive_kept = false,
                Err(error) => {
                    terminal.warn(&printable(&format!("cannot remove `{}`: {error}", self.path.display())));
                }
            }
        }
        Ok(Extracted {
            dir: dir.to_owned(),
            files: unpacked.files.len(),
            bytes: unpacked.bytes,
            model: config.as_deref().and_then(Path::parent).unwrap_or(dir).to_owned(),
            adapter: config.and_then(|config| read_adapter(&config)),
            is_archive_kept,
        })
    }

    fn say(&self, terminal: &Terminal) {
        let how = if self.was_there { "is already there" } else { "downloaded" };
        let removed = match &self.extracted {
            Some(extracted) if !extracted.is_archive_kept => ", unpacked and removed",
            _ => "",
        };
        let size = sized(self.bytes);
        terminal.label("weights", &format!("{} {how} ({size}){removed}", self.path.display()));
        if let Some(extracted) = &self.extracted {
            let files = counted(extracted.files as u64, "file");
            let size = sized(extracted.bytes);
            terminal.label("directory", &format!("{} ({files}, {size})", extracted.dir.display()));
        }
        if self.extracted.is_some() {
            terminal.label("next", "serve it, then ask it:");
            say_commands(&self.next_commands(), terminal);
        } else {
            terminal.label("next", &unpacking(&self.path));
        }
    }

    fn report(&self) -> Report {
        let extracted = self.extracted.as_ref();
        let adapter = extracted.and_then(|extracted| extracted.adapter.as_ref());
        let is_kept = extracted.is_none_or(|extracted| extracted.is_archive_kept);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Report {
            job: self.job.id.clone(),
            checkpoint: word(self.which),
            step: self.step,
            file: is_kept.then(|| text(&self.path)),
            bytes: self.bytes,
            already_there: self.was_there,
            directory: extracted.map(|extracted| text(&extracted.dir)),
            base_model: adapter.map(|(base, _)| public_base(base, &self.job)),
            lora_rank: adapter.map(|(_, rank)| *rank),
            next_commands: self.next_commands(),
            data_mismatch: self.mismatch.clone(),
        }
    }

    fn next_commands(&self) -> Vec<String> {
        let Some(extracted) = &self.extracted else { return vec![unpacking(&self.path)] };
        let serve = match (&extracted.adapter, self.which) {
            (Some((base, rank)), _) => serve_adapter(&extracted.model, &public_base(base, &self.job), *rank),
            (None, Which::Adapter) => {
                let base = self.job.model().unwrap_or_default();
                let rank = self.job.lora_rank().unwrap_or_default();
                serve_adapter(&extracted.model, &public_base(&base, &self.job), rank)
            }
            (None, Which::Merged | Which::Full) => serve_model(&extracted.model),
        };
        vec![serve, ask(self.out.as_deref())]
    }
}

/// The base model and the largest rank in an adapter's configuration.
fn read_adapter(config: &Path) -> Option<(String, u64)> {
    let config: Value = serde_json::from_slice(&std::fs::read(config).ok()?).ok()?;
    let ranks = config["rank_pattern"].as_object().into_iter().flat_map(Map::values);
    let rank = ranks.chain([&config["r"]]).filter_map(Value::as_u64).max()?;
    Some((config["base_model_name_or_path"].as_str()?.to_owned(), rank))
}

fn which(args: &DownloadArgs, session: &Session, job: &Job, terminal: &Terminal) -> Result<Which, Failure> {
    match (job.trains_all_weights(), args.adapter) {
        (true, true) => Err(Failure::usage(
            "no_adapter",
            format!("the job {} trains all weights and has no adapter", job.id),
            "leave out --adapter",
        )),
        (true, false) => Ok(Which::Full),
        (false, true) => Ok(Which::Adapter),
        (false, false) if gives_adapter_only(&session.together, job) => {
            let reason = format!("LoRA is not merged into {}", job.model().unwrap_or_default());
            if args.merged {
                let message = format!("the job {} has no merged weights: {reason}", job.id);
                let hint = "leave out --merged: the adapter is downloaded, and is used with its base model";
                return Err(Failure::usage("no_merged", message, hint));
            }
            terminal.label("note", &one_line(&format!("{reason}: there is only the adapter")));
            Ok(Which::Adapter)
        }
        (false, false) => Ok(Which::Merged),
    }
}

/// Refuses where the last weights are not there, or never will be.
fn require_end(job: &Job) -> Result<(), Failure> {
    let id = &job.id;
    let kept =
        format!("`ctxtune checkpoints {id}` lists what was kept; --checkpoint STEP fetches one of them");
    let (exit, code, hint) = match job.status.ending() {
        Some(Ending::Completed) => return Ok(()),
        Some(Ending::Failed) => (Exit::JobFailed, "job_failed", kept),
        Some(Ending::Cancelled) => (Exit::JobCancelled, "job_cancelled", kept),
        None => (
            Exit::JobRunning,
            "job_running",
            format!(
                "`ctxtune monitor {id}` waits for its end; --checkpoint STEP fetches what is kept so far"
            ),
        ),
    };
    let message = format!("the job {id} has no finished model: it is {}", job.status);
    Err(Failure::new(exit, code, message, hint))
}

/// The service's refusal, which is most often about the step.
fn explain(session: &Session, error: together::Error, job: &Job) -> Failure {
    let is_about_step = matches!(error.status(), Some(400 | 404));
    let failure = session.explain(error);
    if is_about_step {
        let hint = format!("`ctxtune checkpoints {}` lists the steps whose weights were kept", job.id);
        return Failure { exit: Exit::Usage, code: "no_checkpoint", hint: Some(hint), ..failure };
    }
    if matches!(failure.exit, Exit::Interrupted | Exit::Terminated) {
        let hint = "run the same command again: it resumes where it stopped".to_owned();
        return Failure { hint: Some(hint), ..failure };
    }
    failure
}

/// A file's name that says what is in it and is one wherever it goes.
fn name(job: &Job, wanted: Wanted<'_>, extension: &str) -> String {
    let model = job.model_output_name().unwrap_or_default();
    let safe = |character: char| match character {
        '.' | '_' | '-' => character,
        character if character.is_ascii_alphanumeric() => character,
        _ => '-',
    };
    let last = model.rsplit('/').next().unwrap_or_default();
    let stem: String = last.chars().take(NAME_CHARACTERS).map(safe).collect();
    let stem = match stem.trim_matches(['.', '-']) {
        "" => job.id.as_str(),
        stem => stem,
    };
    let step = wanted.step.map(|step| format!("-step-{step}")).unwrap_or_default();
    format!("{stem}{step}-{}.{extension}", word(wanted.checkpoint))
}

fn word(which: Which) -> &'static str {
    match which {
        Which::Merged => "merged",
        Which::Adapter => "adapter",
        Which::Full => "full",
    }
}

/// Where the file goes: in this directory, in that directory, or exactly there.
fn place(output: Option<&Path>, name: &str) -> PathBuf {
    match output {
        None => PathBuf::from(name),
        Some(dir) if dir.is_dir() => dir.join(name),
        Some(file) => file.to_owned(),
    }
}

/// The length of the archive where it stands at `path` already.
fn there(path: &Path, known: &Probe) -> Result<Option<u64>, Failure> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(None) };
    let bytes =
        std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    if let Some(bytes) = bytes.filter(|bytes| known.bytes == Some(*bytes)) {
        return Ok(Some(bytes));
    }
    let found = match bytes {
        Some(bytes) => format!("a file of {bytes} bytes"),
        None if metadata.is_file() => "a file".to_owned(),
        None => "something that is no file".to_owned(),
    };
    let here = known.bytes.map_or("unknown length".to_owned(), |bytes| format!("{bytes} bytes"));
    let message =
        format!("`{}` is {found}, and the archive has {here}: it is not written over", path.display());
    Err(Failure::failed("in_the_way", message, "move it away, or name another place with --output"))
}

fn bar(path: &Path, terminal: &Terminal) -> ProgressBar {
    let bar = terminal.bar("{prefix} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
    bar.set_prefix(one_line(&path.file_name().unwrap_or_default().to_string_lossy()));
    bar
}

fn unpacking(path: &Path) -> String {
    let is_gzip = path.extension().is_some_and(|extension| extension.as_encoded_bytes().ends_with(b"gz"));
    let flags = if is_gzip { "-xzf" } else { "--zstd -xf" };
    format!("tar {flags} {}", shell::path(path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(model: &str, step: Option<u64>, expected: &str) {
        let object = json!({ "id": "ft-1", "status": "completed", "model_output_name": model });
        let job = Job::read(&object).unwrap();
        let wanted = Wanted { job: &job.id, checkpoint: Which::Adapter, step };
        assert_eq!(name(&job, wanted, "tar.zst"), expected, "{model}");
    }

    #[test]
    fn a_name_says_what_is_in_the_file_and_stays_in_its_directory() {
        check("me/Llama-8B-gen-0a1b", None, "Llama-8B-gen-0a1b-adapter.tar.zst");
        check("me/Llama-8B:gen:ft-1", Some(40), "Llama-8B-gen-ft-1-step-40-adapter.tar.zst");
        check("", None, "ft-1-adapter.tar.zst");
        check("me/", None, "ft-1-adapter.tar.zst");
        check("../..", None, "ft-1-adapter.tar.zst");
        check("a/..\\x\u{1b}[31m", None, "x--31m-adapter.tar.zst");
        check("a/-rf", None, "rf-adapter.tar.zst");
    }

    #[test]
    fn a_path_is_quoted_for_the_shell_where_it_must_be() {
        let check = |path: &str, expected: &str| assert_eq!(unpacking(Path::new(path)), expected);
        check("a-b_1.tar.zst", "tar --zstd -xf a-b_1.tar.zst");
        check("/m/a.tar.gz", "tar -xzf /m/a.tar.gz");
        check("my model's.tar.zst", r"tar --zstd -xf 'my model'\''s.tar.zst'");
    }
}
