//! Faults of the system under the output: whatever fails, the run says what and where, gives
//! its space back, and OUT stays whole or is mended by the next run.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Dir, Outcome, SmallDisk, Tree, assert_same_tree, names, program, record, sha256, skip};

/// The run whose result is there before.
const OLD: [&str; 6] = ["prepare", "corpus", "-o", "out", "--no-sync", "--shard-records=9"];
/// The run that faults befall: its files have other names, and a reject makes it move a tail.
const NEW: [&str; 5] = ["prepare", "corpus", "-o", "out", "--threads=1"];

/// A corpus with one reject, an old result in `out`, and what faults may leave of it.
struct Scene {
    dir: Dir,
    old: Tree,
    new: Tree,
}

impl Scene {
    fn new() -> Scene {
        let dir = Dir::new();
        // With a bad record at ratio 0.1 the count of train falls from 36 to 35: its last line moves.
        dir.corpus(39).write("corpus/bad.json", "{");
        let result_of = |arguments: &[&str]| {
            dir.ctxtune(arguments).expect(0);
            let tree = dir.tree("out");
            std::fs::remove_dir_all(dir.path("out")).unwrap();
            tree
        };
        let (old, new) = (result_of(&OLD), result_of(&NEW));
        dir.plant("out", &old);
        Scene { dir, old, new }
    }

    /// `script` run by a shell with the program and `arguments` as `"$@"`.
    fn sh(&self, script: &str, arguments: &[&str]) -> Outcome {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", program()]).args(arguments).current_dir(self.dir.path(""));
        Outcome::of(shell)
    }

    fn set_mode(&self, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(self.dir.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A clean failure before publication: told, nothing left behind, the old result as it was.
    #[track_caller]
    fn check_old_intact(&self, run: Outcome, path: &str, reason: &str) {
        let run = run.expect(1);
        assert!(run.stderr.contains(path) && run.stderr.contains(reason), "{}", run.stderr);
        assert_eq!(run.stdout, "");
        assert_eq!(names(&self.dir.tree("out")), names(&self.old));
        assert_eq!(self.dir.tree("out"), self.old);
    }

    /// OUT holds the old result or the new one, whole, or has no manifest; another run mends it.
    #[track_caller]
    fn check_promise(&self, what: &str) {
        let left = self.dir.result("out", &[]);
        let is_whole = |left: &Tree| [&self.old, &self.new].contains(&left);
        assert!(left.as_ref().is_none_or(is_whole), "{what}: {:?}", left.as_ref().map(names));
        self.dir.ctxtune(NEW).expect(0);
        assert_eq!(names(&self.dir.tree("out")), names(&self.new), "{what}");
        assert_eq!(self.dir.tree("out"), self.new, "{what}");
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

#[test]
fn a_file_size_limit_ends_in_an_error_not_in_a_signal() {
    let scene = Scene::new();
    // In blocks of 512 bytes; the lock's file is written first, then a shard of 32 kB.
    for blocks in [1, 16, 48] {
        let run = scene.sh(&format!("ulimit -f {blocks}; exec \"$@\""), &NEW);
        scene.check_old_intact(run, "out/.ctxtune-staging/", "File too large (os error 27)");
    }
}

#[test]
fn a_lock_that_cannot_be_written_leaves_no_litter() {
    let scene = Scene::new();
    let run = scene.sh("ulimit -f 0; exec \"$@\"", &NEW);
    scene.check_old_intact(run, "out/.ctxtune.lock", "File too large (os error 27)");
    let first = ["prepare", "corpus", "-o", "first"];
    scene.sh("ulimit -f 0; exec \"$@\"", &first).expect(1);
    assert!(!scene.dir.exists("first"));
}

/// Runs on a disk that holds the old result and ever more beside it, until a run succeeds.
fn check_full_disk(limit: impl Fn(usize) -> String) {
    let scene = Scene::new();
    let Some(disk) = SmallDisk::mount(&scene.dir.path("out"), "size=16m") else { return };
    let refill = || {
        for name in names(&scene.dir.tree("out")) {
            std::fs::remove_file(scene.dir.path("out").join(name)).unwrap();
        }
        for (name, content) in &scene.old {
            scene.dir.write(Path::new("out").join(name), content);
        }
    };
    refill();
    let mut room = 0;
    loop {
        disk.remount(&limit(room));
        let free = disk.free();
        let run = scene.sh("exec \"$@\"", &NEW);
        if run.code == Some(0) {
            break;
        }
        scene.check_old_intact(run, "out", "No space left on device (os error 28)");
        assert_eq!(disk.free(), free, "space is given back");
        room += 1;
    }
    assert_eq!(scene.dir.tree("out"), scene.new);
    assert!(room > 3, "only {room} runs had too little room");
}

#[test]
fn a_disk_without_space_keeps_the_old_result_and_gets_its_space_back() {
    // The old result takes about a page for each of its 8 files, and 10 for its shards.
    check_full_disk(|pages| format!("size={}", (18 + pages) * 4096));
}

#[test]
fn a_disk_without_inodes_keeps_the_old_result_and_gets_its_space_back() {
    check_full_disk(|inodes| format!("size=16m,nr_inodes={}", 10 + inodes));
}

/// Records whose lines take several writes a side: from the second one on, disk space is reserved.
fn large_corpus(records: usize) -> Dir {
    let dir = Dir::new();
    for number in 0..records {
        let mut record = record(number);
        record["story"] = "Mia left. ".repeat(800).into();
        dir.write(format!("corpus/{number}.json"), record.to_string());
    }
    dir
}

#[test]
fn what_one_side_has_reserved_is_there_for_the_other() {
    let dir = large_corpus(800);
    // The result takes 7 MB; a reservation of the first side, 16 MiB, leaves too little for the second one.
    let Some(_disk) = SmallDisk::mount(&dir.path("disk"), "size=18m") else { return };
    dir.ctxtune(["prepare", "corpus", "-o", "disk/out", "--val-ratio=0.5", "--threads=1"]).expect(0);
}

#[test]
fn a_disk_that_is_full_while_a_shard_is_compressed_keeps_the_old_result() {
    let dir = Dir::new();
    for number in 0..60 {
        let mut record = record(number);
        // Digests, which take half their room when they are compressed.
        let story: String = (0..600).map(|part| sha256(format!("{number} {part}").as_bytes())).collect();
        record["story"] = story.into();
        dir.write(format!("corpus/{number}.json"), record.to_string());
    }
    let Some(disk) = SmallDisk::mount(&dir.path("disk"), "size=3m") else { return };
    let prepare = ["prepare", "corpus", "-o", "disk/out", "--val-ratio=0"];
    dir.ctxtune(prepare.iter().chain(&["--limit=2"])).expect(0);
    let (old, free) = (dir.tree("disk/out"), disk.free());
    for how in ["zst", "gz"] {
        let run = dir.ctxtune(prepare.iter().chain(&["--compress", how])).expect(1);
        let shard = format!("train.jsonl.{how}`");
        assert!(run.stderr.contains(&shard) && run.stderr.contains("(os error 28)"), "{}", run.stderr);
        assert_same_tree(&dir.tree("disk/out"), &old, how);
        assert_eq!(disk.free(), free, "space is given back");
    }
    dir.ctxtune(prepare).expect(0);
    // What is left has no room for what a check unpacks.
    dir.prepare(&["--compress=zst"]).expect(0);
    let mut check = dir.command(["check", "out"]);
    check.env("TMPDIR", dir.path("disk"));
    let run = Outcome::of(check).expect(1);
    for words in ["cannot unpack `out/train.jsonl.zst`", "(os error 28)", "TMPDIR"] {
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
}

#[test]
fn no_space_stays_reserved_behind_a_result() {
    use std::os::unix::fs::MetadataExt;
    let dir = large_corpus(400);
    dir.ctxtune(["prepare", "corpus", "-o", "out", "--shard-records=300"]).expect(0);
    for name in ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"] {
        let metadata = std::fs::metadata(dir.path("out").join(name)).unwrap();
        let taken = metadata.blocks() * 512;
        assert!(taken < metadata.len() + (1 << 20), "{name}: {taken} of {}", metadata.len());
    }
}

#[test]
fn a_read_only_disk_is_named() {
    let scene = Scene::new();
    let Some(disk) = SmallDisk::mount(&scene.dir.path("disk"), "size=1m") else { return };
    disk.remount("ro");
    let arguments = ["prepare", "corpus", "-o", "disk/new"];
    let run = scene.dir.ctxtune(arguments).expect(1);
    assert!(run.stderr.contains("`disk/new`") && run.stderr.contains("(os error 30)"), "{}", run.stderr);
}

#[test]
fn an_output_directory_that_cannot_be_made_is_named() {
    let scene = Scene::new();
    let occupied = scene.dir.write("file", "mine");
    for (output, reason) in [("/proc/ctxtune/out", "(os error 2)"), ("file/out", "(os error 20)")] {
        let run = scene.dir.ctxtune(["prepare", "corpus", "-o", output]).expect(1);
        assert!(run.stderr.contains(output) && run.stderr.contains(reason), "{}", run.stderr);
    }
    assert_eq!(std::fs::read(occupied).unwrap(), b"mine");
}

#[test]
fn an_output_directory_of_somebody_else_is_named() {
    let scene = Scene::new();
    scene.set_mode("", 0o755);
    scene.set_mode("out", 0o555);
    let mut script = "exec \"$@\"".to_owned();
    if is_root() {
        // Permissions do not bind root: it becomes nobody, if nobody can run the program.
        let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
        script = format!("exec {nobody} \"$@\"");
        if scene.sh(&format!("exec {nobody} test -x \"$1\""), &[]).code != Some(0) {
            return skip("user", "the program cannot be run as nobody");
        }
    }
    let run = scene.sh(&script, &NEW);
    scene.check_old_intact(run, "out/.ctxtune.lock", "Permission denied (os error 13)");
    let run = scene.sh(&script, &["prepare", "corpus", "-o", "out/new"]);
    scene.check_old_intact(run, "out/new", "Permission denied (os error 13)");
    scene.set_mode("out", 0o755);
}

#[test]
fn more_threads_than_a_user_may_have_are_a_clean_error() {
    let scene = Scene::new();
    scene.set_mode("", 0o755);
    scene.set_mode("out", 0o777);
    let mut limit = "prlimit --nproc=20".to_owned();
    if is_root() {
        // The limit does not bind root: it becomes a user who has no other process.
        limit.push_str(" setpriv --reuid=61234 --regid=61234 --clear-groups");
    }
    if scene.sh(&format!("exec {limit} test -x \"$1\""), &[]).code != Some(0) {
        return skip("system", "the program cannot be run with a limit on threads");
    }
    let arguments = [&NEW[..4], &["--threads=4000"]].concat();
    let run = scene.sh(&format!("exec {limit} \"$@\""), &arguments);
    scene.check_old_intact(run, "cannot start threads", "(os error 11)");
}

/// Lets system calls fail with strace; absent or forbidden, the tests skip.
mod injected {
    use super::*;

    /// The system calls that change OUT, each with its name on every architecture.
    const MKDIR: &str = "?mkdir,mkdirat";
    const OPEN: &str = "?open,openat";
    const RENAME: &str = "?rename,?renameat,renameat2";
    const REMOVE: &str = "?unlink,?rmdir,unlinkat";
    const SYNC: &str = "fsync,fdatasync";
    const LOCK: &str = "flock";
    const THREAD: &str = "?clone,?clone3";

    fn has_strace() -> bool {
        let works = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
        let works = works.is_ok_and(|strace| strace.status.success());
        if !works {
            skip("strace", "strace is not here, or may not trace");
        }
        works
    }

    /// Runs the program with `fault` injected into `calls`, where they concern one of `paths` (if
    /// any are given). `None` if no call was hit.
    fn run_with(scene: &Scene, calls: &str, fault: &str, paths: &[PathBuf]) -> Option<Outcome> {
        let log = scene.dir.path("strace.log");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(&log);
        strace.arg(format!("--trace={calls}")).arg(format!("--inject={calls}:{fault}"));
        for path in paths {
            strace.arg("-P").arg(path);
        }
        let out = scene.dir.path("out");
        strace.arg(program()).args(NEW.map(|argument| match argument {
            // strace compares paths as they are written.
            "out" => out.to_str().unwrap(),
            argument => argument,
        }));
        strace.current_dir(scene.dir.path(""));
        let outcome = Outcome::of(strace);
        // A killed call does not return, and strace ends as the program did.
        let was_hit = outcome.code.is_none() || !hit_call(scene).is_empty();
        was_hit.then_some(outcome)
    }

    /// The call that failed in the last run, as strace tells it.
    fn hit_call(scene: &Scene) -> String {
        let log = scene.dir.read("strace.log");
        log.lines().find(|line| line.contains("(INJECTED")).unwrap_or_default().to_owned()
    }

    /// The directory OUT, everything a run can have in it, and in staging.
    fn paths_in_out(scene: &Scene) -> Vec<PathBuf> {
        let out = scene.dir.path("out");
        let staging = out.join(".ctxtune-staging");
        let staged = ["old-manifest.json", "train-00000.jsonl", "val-00000.jsonl"];
        let files = names(&scene.old).into_iter().chain(names(&scene.new)).chain(staged);
        let mut paths: Vec<PathBuf> = files.flat_map(|file| [out.join(file), staging.join(file)]).collect();
        paths.extend([out.join(".ctxtune.lock"), out, staging]);
        paths
    }

    /// Lets the first, the second, … call fail until none is left to fail.
    #[track_caller]
    fn check_each(calls: &str, error: &str, paths: fn(&Scene) -> Vec<PathBuf>) {
        if !has_strace() {
            return;
        }
        let scene = Scene::new();
        let paths = paths(&scene);
        let mut call = 1;
        loop {
            scene.dir.plant("out", &scene.old);
            let fault = format!("error={error}:when={call}");
            let Some(run) = run_with(&scene, calls, &fault, &paths) else { break };
            let what = format!("{calls}:{fault}: {}", run.stderr);
            assert!(!run.stderr.contains("panicked"), "{what}");
            assert!(matches!(run.code, Some(0 | 1)), "{:?} {what}", run.code);
            if run.code == Some(1) {
                assert!(run.stderr.contains("(os error "), "{what}");
                let where_it_was = ["/out", "standard output", "threads"];
                assert!(where_it_was.iter().any(|place| run.stderr.contains(place)), "{what}");
            }
            // Cleaning up removes files, and lists a directory: a fault can meet just that.
            let hits_cleaning = calls == REMOVE || calls == OPEN && hit_call(&scene).contains("O_DIRECTORY");
            if !hits_cleaning {
                check_space_given_back(&scene, &what);
            }
            // Without a lock nobody knows whose file it is.
            let may_leave_lock = hits_cleaning || calls == LOCK;
            assert!(may_leave_lock || !scene.dir.exists("out/.ctxtune.lock"), "{what}");
            scene.check_promise(&what);
            call += 1;
        }
        assert!(call > 1, "no call failed");
    }

    /// Nothing stays in staging but, where publication had begun, the two manifests.
    #[track_caller]
    fn check_space_given_back(scene: &Scene, what: &str) {
        let left = scene.dir.tree("out");
        let staged = names(&left).into_iter().filter_map(|name| name.strip_prefix(".ctxtune-staging/"));
        let staged: Vec<&str> = staged.collect();
        assert!(staged.is_empty() || scene.dir.result("out", &[]).is_none(), "{staged:?} {what}");
        assert!(
            staged.iter().all(|name| ["old-manifest.json", "manifest.json"].contains(name)),
            "{staged:?} {what}"
        );
    }

    /// Kills the run at the first, the second, … call until none is left.
    fn check_kills(calls: &str, paths: fn(&Scene) -> Vec<PathBuf>) {
        if !has_strace() {
            return;
        }
        let scene = Scene::new();
        let paths = paths(&scene);
        let mut call = 1;
        loop {
            scene.dir.plant("out", &scene.old);
            let fault = format!("signal=KILL:when={call}");
            let run = run_with(&scene, calls, &fault, &paths);
            scene.check_promise(&format!("{calls}:{fault}"));
            if run.is_none() {
                break;
            }
            call += 1;
        }
        assert!(call > 1, "no call was hit");
    }

    fn anywhere(_: &Scene) -> Vec<PathBuf> {
        Vec::new()
    }

    #[test]
    fn no_directory_can_be_made() {
        check_each(MKDIR, "EROFS", anywhere);
    }

    #[test]
    fn no_file_can_be_opened() {
        check_each(OPEN, "EMFILE", paths_in_out);
    }

    #[test]
    fn a_file_system_that_reserves_nothing_gives_the_same_result() {
        if !has_strace() {
            return;
        }
        let dir = large_corpus(400);
        dir.ctxtune(["prepare", "corpus", "-o", "out"]).expect(0);
        for error in ["EOPNOTSUPP", "EINVAL", "ENOSPC"] {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "strace.log", "--trace=fallocate"]);
            strace.arg(format!("--inject=fallocate:error={error}")).arg(program());
            strace.args(["prepare", "corpus", "-o", error]).current_dir(dir.path(""));
            Outcome::of(strace).expect(0);
            assert!(dir.read("strace.log").contains("(INJECTED)"));
            assert_same_tree(&dir.tree(error), &dir.tree("out"), error);
        }
    }

    #[test]
    fn no_byte_can_be_written() {
        check_each("write", "ENOSPC", anywhere);
        check_each("ftruncate", "EIO", anywhere);
    }

    #[test]
    fn no_staged_byte_can_be_read() {
        check_each("?read,?pread64,lseek", "EIO", paths_in_out);
    }

    #[test]
    fn no_file_can_be_renamed() {
        check_each(RENAME, "EACCES", anywhere);
    }

    #[test]
    fn no_file_can_be_removed() {
        check_each(REMOVE, "EIO", anywhere);
    }

    #[test]
    fn nothing_can_be_synced() {
        check_each(SYNC, "EIO", anywhere);
    }

    #[test]
    fn no_lock_can_be_had() {
        check_each(LOCK, "EIO", anywhere);
    }

    #[test]
    fn no_thread_can_be_started() {
        check_each(THREAD, "EAGAIN", anywhere);
    }

    #[test]
    fn a_run_killed_at_any_system_call_keeps_the_promise() {
        for calls in [MKDIR, RENAME, REMOVE, SYNC, LOCK, "ftruncate"] {
            check_kills(calls, anywhere);
        }
        check_kills(OPEN, paths_in_out);
    }

    #[test]
    fn a_directory_that_cannot_be_synced_is_no_error() {
        if !has_strace() {
            return;
        }
        let scene = Scene::new();
        let out = scene.dir.path("out");
        let directories = [out.clone(), out.join(".ctxtune-staging")];
        let run = run_with(&scene, SYNC, "error=EINVAL", &directories).unwrap().expect(0);
        assert!(!run.stderr.contains("warning"), "{}", run.stderr);
        assert_eq!(scene.dir.tree("out"), scene.new);
    }

    #[test]
    fn a_file_system_without_locks_is_used_with_a_warning() {
        if !has_strace() {
            return;
        }
        for error in ["ENOLCK", "ENOSYS", "EOPNOTSUPP"] {
            let scene = Scene::new();
            let run = run_with(&scene, LOCK, &format!("error={error}"), &[]).unwrap().expect(0);
            assert!(run.stderr.contains("warning") && run.stderr.contains("no locks"), "{}", run.stderr);
            assert_eq!(scene.dir.tree("out"), scene.new);
        }
    }
}
