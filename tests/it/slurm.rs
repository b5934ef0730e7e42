//! `ctxtune distributed slurm` with an `sbatch` that runs the tasks here. `scripts/engines.sh slurm` tries Slurm itself.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::{Dir, Outcome, assert_same_tree, signal, wait_until};

/// Runs the tasks of the script one after the other, but those that `lost` names as `JOB-TASK`; where `held` is, it then
/// waits until the job is cancelled.
const SBATCH: &str = r#"#!/bin/bash
mkdir -p jobs
job=$(($(ls jobs | wc -l) + 1))
cat >jobs/$job
echo "$*" >>arguments
if grep -q partition=nowhere jobs/$job; then
    echo 'sbatch: error: invalid partition specified: nowhere' >&2
    exit 1
fi
echo "$job;cluster"
eval "output=$(sed -n 's/^#SBATCH --output=//p' jobs/$job)"
for task in $(seq 0 "$(sed -n 's/^#SBATCH --array=0-//p' jobs/$job)"); do
    if ! grep -qsx "$job-$task" lost; then
        log=${output//%A/$job}
        SLURM_ARRAY_JOB_ID=$job SLURM_ARRAY_TASK_ID=$task bash jobs/$job 2>"${log//%a/$task}"
    fi
done
if [ -e held ]; then
    touch holds
    until [ -e cancelled ]; do sleep 0.01; done
fi
"#;

/// Twelve records, planned in parts of one, and the programs of a cluster whose arrays have `tasks` tasks at most.
fn planned(tasks: usize) -> Dir {
    let dir = Dir::new();
    let scontrol = format!("#!/bin/sh\necho 'MaxArraySize            = {tasks}'\n");
    let scancel = "#!/bin/sh\necho \"$*\" >cancelled\n";
    for (name, script) in [("sbatch", SBATCH), ("scancel", scancel), ("scontrol", &*scontrol)] {
        let path = dir.write(format!("bin/{name}"), script);
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    dir.corpus(12).prepare(&[]).expect(0);
    std::fs::rename(dir.path("out"), dir.path("expected")).unwrap();
    dir.ctxtune(["distributed", "plan", "corpus", "-o", "out", "--work-dir", "work", "--part-bytes=1"])
        .expect(0);
    dir
}

fn slurm(dir: &Dir, more: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "the shell's own programs are where they are")]
    let path = std::env::var("PATH").unwrap();
    let mut command = dir.command(["distributed", "slurm", "--work-dir", "work"].iter().chain(more));
    command.env("PATH", format!("{}:{path}", dir.path("bin").display()));
    command
}

fn jobs(dir: &Dir) -> usize {
    std::fs::read_dir(dir.path("jobs")).unwrap().count()
}

#[test]
fn arrays_are_submitted_until_nothing_is_missing_then_the_result_is_published() {
    let dir = planned(5);
    // Two tasks of the first array are lost, and one of the second.
    dir.write("lost", "1-0\n1-4\n2-1\n");
    let run = Outcome::of(slurm(&dir, &["--submit", "--", "--time=1:00:00"])).expect(0);
    assert!(run.stdout.ends_with("/out\n"), "{}", run.stdout);
    assert_same_tree(&dir.tree("out"), &dir.tree("expected"), "out");
    assert!(!dir.exists("work"));
    let first = dir.read("jobs/1");
    assert!(
        first.contains("\n#SBATCH --array=0-4\n") && first.contains("\n#SBATCH --time=1:00:00\n"),
        "{first}"
    );
    assert!(first.contains("\nparts=(0-2 3-5 6-7 8-9 10-11)\n"), "{first}");
    assert!(dir.read("jobs/2").contains("\nparts=(0 1 2 10 11)\n"), "{}", dir.read("jobs/2"));
    assert!(dir.read("jobs/3").contains("\nparts=(1)\n"), "{}", dir.read("jobs/3"));
    assert!(dir.read("jobs/4").contains(" write "), "{}", dir.read("jobs/4"));
    assert_eq!(dir.read("arguments"), "--wait --parsable --no-requeue\n".repeat(4));
}

#[test]
fn the_printed_script_is_for_what_is_missing_now() {
    let dir = planned(5);
    let script = Outcome::of(slurm(&dir, &[])).expect(0).stdout;
    assert!(
        script.starts_with("#!/bin/bash\n#SBATCH ") && script.contains("\nparts=(0-2 3-5 6-7 8-9 10-11)\n"),
        "{script}"
    );
    dir.ctxtune(["distributed", "convert", "--work-dir", "work", "--part", "0-10"]).expect(0);
    let script = Outcome::of(slurm(&dir, &["--", "--partition=a b"])).expect(0).stdout;
    assert!(
        script.contains("\n#SBATCH '--partition=a b'\n") && script.contains("\nparts=(11)\n"),
        "{script}"
    );
    dir.ctxtune(["distributed", "convert", "--work-dir", "work", "--part", "11"]).expect(0);
    let early = Outcome::of(slurm(&dir, &[])).expect(5);
    assert!(early.stderr.contains("the split in"), "{}", early.stderr);
    dir.ctxtune(["distributed", "split", "--work-dir", "work"]).expect(0);
    let script = Outcome::of(slurm(&dir, &[])).expect(0).stdout;
    assert!(script.contains("\nshards=(0"), "{script}");
    dir.ctxtune(["distributed", "write", "--work-dir", "work", "--shard", "0-1"]).expect(0);
    assert_eq!(Outcome::of(slurm(&dir, &[])).expect(0).stdout, "", "nothing is missing");
}

#[test]
fn a_task_that_no_repetition_changes_stops_the_run() {
    let dir = planned(5);
    std::fs::remove_file(dir.path("corpus/0.json")).unwrap();
    let run = Outcome::of(slurm(&dir, &["--submit"])).expect(3);
    assert!(run.stderr.contains("0.json"), "{}", run.stderr);
    assert_eq!((jobs(&dir), dir.exists("out")), (1, false));
}

#[test]
fn a_run_that_commits_nothing_any_more_gives_up() {
    let dir = planned(5);
    let lost: String = (1..=20).map(|job| format!("{job}-0\n")).collect();
    dir.write("lost", lost);
    let mut run = slurm(&dir, &["--submit"]);
    run.env(ctxtune_pipeline::env::CTXTUNE_TIME_SCALE, "0.001");
    let run = Outcome::of(run).expect(5);
    // 3 parts, then one, and that five times more.
    assert_eq!(jobs(&dir), 7, "{}", run.stderr);
    assert!(run.stderr.contains("same command again"), "{}", run.stderr);
}

#[test]
fn a_job_that_is_refused_is_said_in_the_words_of_slurm() {
    let dir = planned(5);
    let run = Outcome::of(slurm(&dir, &["--submit", "--", "--partition=nowhere"])).expect(5);
    assert!(run.stderr.contains("invalid partition specified: nowhere"), "{}", run.stderr);
    let mut without = slurm(&dir, &["--submit"]);
    without.env("PATH", dir.path("nowhere"));
    let run = Outcome::of(without).expect(2);
    assert!(run.stderr.contains("sbatch"), "{}", run.stderr);
}

#[test]
fn a_stopped_run_cancels_its_job() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let dir = planned(5);
        dir.write("held", "");
        dir.write("lost", "1-0\n");
        let mut child =
            slurm(&dir, &["--submit"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until(&mut child, || dir.exists("holds"));
        signal(child.id(), name);
        let run = Outcome::from(child.wait_with_output().unwrap()).expect(code);
        assert_eq!(dir.read("cancelled"), "1\n");
        assert!(run.stderr.contains("same command again"), "{}", run.stderr);
    }
}
