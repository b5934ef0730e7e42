//! `ctxtune distributed slurm`: array jobs of Slurm for what is missing, and with `--submit` all that follows.
//!
//! Slurm requeues some of the tasks that a lost node held, and fails others. So it is told to requeue none, and arrays are
//! submitted until nothing is missing. `sbatch --wait` tells when one has ended; what it did is in WORK.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::args::SlurmArgs;
use crate::commands::data::distributed::{here, publish};
use crate::commands::data::prepare::{Retry, say_failed_prepare};
use crate::screen::prepared::Bar;
use crate::screen::report::Terminal;
use crate::session::clock::SystemClock;
use crate::session::environment;
use crate::session::stores::work;
use ctxtune_engine::parts::{self, Means, Missing, Plan, Work, missing, ranges};
use ctxtune_engine::prepare::Error;
use ctxtune_pipeline::slurm::{Array, LOGS, ROUNDS, TASKS, divided, fatal, gave_up};
use ctxtune_pipeline::text::counted;
use ctxtune_pipeline::ui::Ui;
use ctxtune_pipeline::{Exit, Failure, env};
use ctxtune_service::clock::{Clock, Stopped};

/// How often it is asked whether a job has ended, or a signal has come.
const TICK: Duration = Duration::from_millis(250);

/// After how many of those WORK is read: what is missing, and what failed.
const TICKS: u32 = 20;

/// The longest pause before something is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What an array does.
#[derive(Clone, Copy)]
struct Kind {
    missing: Missing,
    command: &'static str,
    /// What it is done with, and the flag for their numbers.
    unit: &'static str,
}

const PARTS: Kind = Kind { missing: Missing::Parts, command: "convert", unit: "part" };
const SHARDS: Kind = Kind { missing: Missing::Shards, command: "write", unit: "shard" };

pub fn run(args: &SlurmArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let environment = environment::of_engine();
    let cannot = |what: &str, error| Failure::failed("slurm", format!("{what}: {error}"), "check the path");
    let program = environment.path(env::CTXTUNE_BIN).map_or_else(std::env::current_exe, Ok);
    let failed = |error: Error| terminal.signals.explain(Failure::of_parts(error));
    let means = here(terminal);
    let work = work(&args.work.work_dir, &*means.stores).map_err(failed)?;
    let (dir, logs) = match (work.dir(), &args.log_dir) {
        (None, None) => {
            let message = "Slurm writes logs to a directory, and WORK is none";
            return Err(Failure::new(
                Exit::Usage,
                "log_dir",
                message,
                "name one that all nodes see: --log-dir",
            ));
        }
        (Some(dir), None) => (std::path::absolute(dir), std::path::absolute(dir.join(LOGS))),
        (Some(dir), Some(logs)) => (std::path::absolute(dir), std::path::absolute(logs)),
        (None, Some(logs)) => (Ok(args.work.work_dir.clone()), std::path::absolute(logs)),
    };
    let Some(plan) = Plan::load(&work).map_err(failed)? else {
        // The result is published.
        let bar = Bar::new(terminal);
        return if args.submit { publish(&args.work.work_dir, bar, terminal) } else { Ok(Exit::Done) };
    };
    let slurm = Slurm {
        plan,
        work,
        work_dir: args.work.work_dir.clone(),
        means,
        dir: dir.map_err(|error| cannot("cannot tell where WORK is", error))?,
        logs: logs.map_err(|error| cannot("cannot tell where logs go", error))?,
        program: program.map_err(|error| cannot("cannot tell where this program is", error))?,
        options: &args.options,
        clock: SystemClock::new(terminal.signals.clone(), environment::time_scale()),
        terminal,
    };
    if args.submit { slurm.submit() } else { slurm.print() }
}

struct Slurm<'s> {
    plan: Plan,
    work: Work,
    work_dir: PathBuf,
    means: Means,
    /// WORK, as an absolute path where it is one.
    dir: PathBuf,
    logs: PathBuf,
    program: PathBuf,
    options: &'s [String],
    clock: SystemClock,
    terminal: &'s Terminal,
}

impl Slurm<'_> {
    /// Prints the script of the parts that are missing, else of the shards.
    fn print(&self) -> Result<Exit, Failure> {
        for kind in [PARTS, SHARDS] {
            let missing = self.missing(kind)?;
            if !missing.is_empty() {
                return Ok(self.terminal.deliver(self.script(kind, &missing)?.as_bytes()));
            }
        }
        self.terminal.say("nothing is missing: `ctxtune distributed publish` is next");
        Ok(Exit::Done)
    }

    fn submit(&self) -> Result<Exit, Failure> {
        self.all(PARTS)?;
        let mut retry = Retry::new(self.terminal);
        loop {
            let bar = Bar::new(self.terminal);
            let Err(error) = parts::split(&self.work, &self.plan, &self.means, &bar) else { break };
            drop(bar);
            if let Err(error) = retry.wait(error) {
                return Ok(say_failed_prepare(error, Failure::of_parts, self.terminal));
            }
        }
        self.all(SHARDS)?;
        publish(&self.work_dir, Bar::new(self.terminal), self.terminal)
    }

    /// Submits arrays until nothing is missing.
    fn all(&self, kind: Kind) -> Result<(), Failure> {
        let (mut missing, mut idle) = (self.missing(kind)?, 0);
        while !missing.is_empty() {
            let mut job = Job::submit(&self.script(kind, &missing)?)?;
            self.terminal.say(&format!("job {}: {}", job.id, counted(missing.len() as u64, kind.unit)));
            if let Err(failure) = self.watch(&mut job, kind, missing.len()) {
                job.cancel(self.terminal);
                return Err(failure);
            }
            let left = self.missing(kind)?;
            idle = if left.len() < missing.len() { 0 } else { idle + 1 };
            missing = left;
            if idle == ROUNDS {
                return Err(gave_up(&self.logs, &job.id));
            }
            if idle > 0 {
                self.pause(idle)?;
            }
        }
        Ok(())
    }

    /// Waits until `job` has ended. Fails on a signal, and where a task has failed for good.
    fn watch(&self, job: &mut Job, kind: Kind, count: usize) -> Result<(), Failure> {
        let line = self.terminal.status_line();
        for tick in 1.. {
            let has_ended = job.has_ended();
            if has_ended || tick % TICKS == 0 {
                if let Some(failure) = fatal(&self.logs, &job.id) {
                    return Err(failure);
                }
                let done = count.saturating_sub(self.missing(kind)?.len());
                line.show(&format!("{}: {done} of {}", kind.command, counted(count as u64, kind.unit)));
            }
            if has_ended {
                break;
            }
            self.wait(TICK)?;
        }
        Ok(())
    }

    fn missing(&self, kind: Kind) -> Result<Vec<u64>, Failure> {
        let found = missing(&self.work, &self.plan, kind.missing);
        let found = self.work.unless_over(&self.plan.id, found).map_err(|error| self.explain(error))?;
        Ok(found.unwrap_or_default())
    }

    /// The script for `missing`; the directory of its logs is there then.
    fn script(&self, kind: Kind, missing: &[u64]) -> Result<String, Failure> {
        let made = std::fs::create_dir_all(&self.logs);
        made.map_err(|source| self.explain(Error::Write { path: self.logs.clone(), source }))?;
        let tasks = max_array_size().map_or(TASKS, |size| size.min(TASKS));
        let array = Array {
            program: &self.program,
            work_dir: &self.dir,
            log_dir: &self.logs,
            command: kind.command,
            flag: kind.unit,
            tasks: &divided(missing, tasks, ranges::show),
            options: self.options,
        };
        Ok(array.script())
    }

    fn explain(&self, error: Error) -> Failure {
        self.terminal.signals.explain(Failure::of_parts(error))
    }

    fn pause(&self, attempt: u32) -> Result<(), Failure> {
        self.wait(LONGEST_PAUSE.min(Duration::from_secs(1 << attempt.min(6))))
    }

    fn wait(&self, duration: Duration) -> Result<(), Failure> {
        self.clock.wait(duration).map_err(|Stopped| {
            let exit = self.terminal.signals.exit();
            let hint = "what is committed is kept: run the same command again to resume";
            Failure::new(exit, "interrupted", "stopped by a signal", hint)
        })
    }
}

/// A job, and the `sbatch` that ends when it does.
struct Job {
    id: String,
    sbatch: Child,
}

impl Job {
    fn submit(script: &str) -> Result<Job, Failure> {
        let mut command = Command::new("sbatch");
        command.args(["--wait", "--parsable", "--no-requeue"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The terminal's Ctrl-C is ours: the job is cancelled first.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut sbatch = command.spawn().map_err(|error| {
            let hint = "run it where jobs are submitted; without --submit it prints the script";
            Failure::new(Exit::Usage, "sbatch", format!("cannot run `sbatch`: {error}"), hint)
        })?;
        let mut line = String::new();
        if let (Some(mut stdin), Some(stdout)) = (sbatch.stdin.take(), sbatch.stdout.take()) {
            // Where it ends early, what it says tells why.
            let _ = stdin.write_all(script.as_bytes());
            drop(stdin);
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        // `ID`, or `ID;CLUSTER`.
        let id = line.trim().split(';').next().unwrap_or_default().to_owned();
        if !id.is_empty() {
            return Ok(Job { id, sbatch });
        }
        let said = sbatch.wait_with_output().map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
        );
        let hint = "options of sbatch stand behind `--`; run the same command again to resume";
        Err(Failure::new(Exit::Network, "sbatch", format!("no job was submitted: {said}"), hint))
    }

    fn has_ended(&mut self) -> bool {
        // One that cannot be asked is not waited for.
        !matches!(self.sbatch.try_wait(), Ok(None))
    }

    /// Cancels the job, and waits until it has ended.
    fn cancel(mut self, terminal: &Terminal) {
        if self.has_ended() {
            return;
        }
        if Command::new("scancel").arg(&self.id).status().is_ok_and(|status| status.success()) {
            let _ = self.sbatch.wait();
        } else {
            terminal.warn(&format!("the job may still run: `scancel {}` ends it", self.id));
            let _ = self.sbatch.kill();
        }
    }
}

/// The cluster's limit of tasks, where it tells one.
fn max_array_size() -> Option<u64> {
    let output = Command::new("scontrol").args(["show", "config"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("MaxArraySize"))?;
    line.trim_start_matches([' ', '=']).trim().parse().ok()
}
