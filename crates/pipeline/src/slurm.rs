//! Array jobs of Slurm that convert the parts, or write the shards, which are missing: their script, and what failed tasks
//! leave.
//!
//! Nothing here runs a command. What is missing is known from WORK alone, never from what Slurm says of a job: the
//! task of a lost node may be requeued, or not. Why a task failed is in a mark that it leaves beside its log.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};
use crate::shell;

/// The directory in WORK with logs and marks of tasks.
pub const LOGS: &str = "logs";

/// How many arrays in a row may commit nothing before the run gives up.
pub const ROUNDS: u32 = 5;

/// The least that a cluster allows as `MaxArraySize`, unless its administrator has changed it, less one.
pub const TASKS: u64 = 1000;

/// An array job to submit.
#[derive(Debug)]
pub struct Array<'a> {
    /// The program that tasks run.
    pub program: &'a Path,
    /// WORK, which is absolute.
    pub work_dir: &'a Path,
    /// Where logs and marks of tasks go; absolute, too.
    pub log_dir: &'a Path,
    /// The command: `convert` or `write`.
    pub command: &'a str,
    /// Its flag that takes numbers, without dashes.
    pub flag: &'a str,
    /// What that flag is in each task.
    pub tasks: &'a [String],
    /// Further options of `sbatch`.
    pub options: &'a [String],
}

impl Array<'_> {
    /// The script, for `sbatch`. A task that fails leaves its exit code as `JOB_TASK.exit` beside its log.
    pub fn script(&self) -> String {
        // Slurm replaces `%A` and `%a`; a `%` of the path is none of those.
        let log = format!("{}/%A_%a.log", self.log_dir.to_string_lossy().replace('%', "%%"));
        let options: String =
            self.options.iter().map(|option| format!("#SBATCH {}\n", shell::word(option))).collect();
        format!(
            "#!/bin/bash\n\
             #SBATCH --job-name=ctxtune-{command}\n\
             #SBATCH --array=0-{last}\n\
             #SBATCH --output={log}\n\
             {options}\
             {flag}s=({tasks})\n\
             {program} distributed {command} --work-dir={work_dir} --threads=\"${{SLURM_CPUS_PER_TASK:-1}}\" \\\n    \
             --{flag}=\"${{{flag}s[SLURM_ARRAY_TASK_ID]}}\" >/dev/null && exit\n\
             code=$?\n\
             echo \"$code\" >{dir}/\"${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID.exit\"\n\
             exit \"$code\"\n",
            command = self.command,
            last = self.tasks.len().saturating_sub(1),
            log = shell::word(&log),
            flag = self.flag,
            tasks = self.tasks.join(" "),
            program = shell::path(self.program),
            work_dir = shell::path(self.work_dir),
            dir = shell::path(self.log_dir),
        )
    }
}

/// `missing` in at most `tasks` lists of consecutive numbers, as even as they can be, each as `write` names it.
pub fn divided(missing: &[u64], tasks: u64, write: impl Fn(&[u64]) -> String) -> Vec<String> {
    let (count, mut rest) = (missing.len(), missing);
    let tasks = usize::try_from(tasks).unwrap_or(usize::MAX).clamp(1, count.max(1));
    let sizes = (0..tasks).map(|task| count / tasks + usize::from(task < count % tasks));
    let lists = sizes.filter_map(|size| rest.split_off(..size).filter(|list| !list.is_empty()));
    lists.map(write).collect()
}

/// What stops a run: the first failure of a task of `job` that no repetition changes, else `None`.
pub fn fatal(logs: &Path, job: &str) -> Option<Failure> {
    failures(logs, job).find(|failure| failure.exit != Exit::Network)
}

/// What the run ends with where arrays, the last of which is `job`, commit nothing any more.
pub fn gave_up(logs: &Path, job: &str) -> Failure {
    let said = failures(logs, job).last().map_or("no task said why".to_owned(), |failure| failure.message);
    let message = format!("{ROUNDS} arrays in a row committed nothing: {said}");
    let hint = format!("see {}; run the same command again to resume", shell::path(logs));
    Failure::new(Exit::Network, "no_progress", message, hint)
}

/// The failures of the tasks of `job`, as far as they have left a mark.
fn failures(logs: &Path, job: &str) -> impl Iterator<Item = Failure> {
    let prefix = format!("{job}_");
    let files = fs::read_dir(logs).into_iter().flatten().flatten().map(|file| file.path());
    let is_mark = move |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&prefix) && name.ends_with(".exit")
    };
    files.filter(is_mark).filter_map(|mark| {
        // Not yet written, or not yet visible here.
        let code: i32 = fs::read_to_string(&mark).ok()?.trim().parse().ok()?;
        let log = fs::read_to_string(mark.with_extension("log")).unwrap_or_default();
        Some(failure(code, &log))
    })
}

/// A task that ended with `code` as a failure in its own words.
fn failure(code: i32, log: &str) -> Failure {
    let exit = match code {
        1 => Exit::Failed,
        3 => Exit::Data,
        4 => Exit::Key,
        // 126 and 127: there is no program.
        2 | 126 | 127 => Exit::Usage,
        // Also what a signal ended: the machine was about to be taken away, or out of memory.
        _ => Exit::Network,
    };
    let said = |label: &str| log.lines().rev().find_map(|line| line.strip_prefix(label));
    let last = || log.lines().last().unwrap_or("it said nothing");
    let message = format!("a task ended with exit code {code}: {}", said("error: ").unwrap_or_else(last));
    Failure { exit, code: "task", message, hint: said("hint: ").map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parts_are_divided_evenly_and_in_order() {
        let check = |missing: &[u64], tasks, expected: &[&str]| {
            let write = |list: &[u64]| list.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
            assert_eq!(divided(missing, tasks, write), expected);
        };
        check(&[3, 7, 8], 10, &["3", "7", "8"]);
        check(&[3, 7, 8, 9, 20], 2, &["3,7,8", "9,20"]);
        check(&[3, 7], 0, &["3,7"]);
        check(&[], 5, &[]);
    }

    #[cfg(unix)]
    #[test]
    fn the_script_runs_the_parts_of_its_index_and_leaves_a_mark_where_that_fails() {
        use std::os::unix::fs::PermissionsExt;
        use std::process::Command;

        let dir = tempfile::tempdir().unwrap();
        // What Slurm and a shell may read otherwise.
        let work_dir = dir.path().join("it's 100% $work");
        let logs = work_dir.join(LOGS);
        fs::create_dir_all(&logs).unwrap();
        let program = dir.path().join("my program");
        fs::write(&program, "#!/bin/sh\necho \"error: words\nhint: h\" >&2; exit ${5#*,}\n").unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let tasks = ["0-2,0".to_owned(), "3-5,3".to_owned(), "6,5".to_owned()];
        let options = ["--comment=a 'b'".to_owned()];
        let array = Array {
            program: &program,
            work_dir: &work_dir,
            log_dir: &logs,
            command: "convert",
            flag: "part",
            tasks: &tasks,
            options: &options,
        };
        let script = array.script();
        assert!(script.contains("\n#SBATCH --array=0-2\n"), "{script}");
        assert!(script.contains(r"it'\''s 100%% $work/logs/%A_%a.log'"), "{script}");
        assert!(script.contains("\n#SBATCH '--comment=a '\\''b'\\'''\n"), "{script}");
        for (task, code) in [0, 3, 5].into_iter().enumerate() {
            let mut command = Command::new("bash");
            command
                .args(["-c", &script])
                .env("SLURM_ARRAY_JOB_ID", "17")
                .env("SLURM_ARRAY_TASK_ID", task.to_string());
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{output:?}");
            fs::write(logs.join(format!("17_{task}.log")), output.stderr).unwrap();
        }
        let fatal = fatal(&logs, "17").unwrap();
        assert_eq!(fatal.exit, Exit::Data);
        assert_eq!(fatal.hint.as_deref(), Some("h"));
        assert!(super::fatal(&logs, "1").is_none(), "the marks of other jobs are theirs");
        assert_eq!(failures(&logs, "17").count(), 2, "a task that is done leaves none");
    }

    #[test]
    fn what_a_signal_ended_is_tried_again() {
        let exits = [1, 2, 3, 5, 127, 137, 143].map(|code| failure(code, "error: words\n").exit);
        let (again, usage) = (Exit::Network, Exit::Usage);
        assert_eq!(exits, [Exit::Failed, usage, Exit::Data, again, usage, again, again]);
    }
}
