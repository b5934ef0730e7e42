//! Publication: OUT is the whole old result, the whole new one, or has no manifest; the next
//! run mends it, and what is not ours is never touched.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::support::{Dir, Tree, names};

/// The arguments of a run from `corpus` to `out`.
fn prepare<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    [&["prepare", "corpus", "-o", "out", "--no-sync"], flags].concat()
}

/// What such a run leaves in an empty directory.
fn pristine(dir: &Dir, flags: &[&str]) -> Tree {
    dir.ctxtune([&["prepare", "corpus", "-o", "pristine", "--no-sync"], flags].concat()).expect(0);
    let tree = dir.tree("pristine");
    std::fs::remove_dir_all(dir.path("pristine")).unwrap();
    tree
}

/// A corpus of 20 records and an old result in four shards, which is returned.
fn with_old_result(dir: &Dir) -> Tree {
    dir.corpus(20).ctxtune(prepare(&["--shard-records=6"])).expect(0);
    dir.tree("out")
}

#[test]
fn an_unchanged_result_is_not_touched() {
    let dir = Dir::new();
    dir.corpus(10);
    let new = dir.ctxtune(prepare(&["--json"])).expect(0);
    assert_eq!(new.json()["published"], "new");
    let before = stamps(&dir);
    let again = dir.ctxtune(prepare(&["--json", "--threads=3"])).expect(0);
    assert_eq!(again.json()["published"], "unchanged");
    assert_eq!(stamps(&dir), before);
}

/// Name, time of change and inode of each file of the result.
fn stamps(dir: &Dir) -> Vec<(String, std::time::SystemTime, u64)> {
    #[cfg(unix)]
    let inode = |file: &std::fs::Metadata| std::os::unix::fs::MetadataExt::ino(file);
    #[cfg(not(unix))]
    let inode = |_: &std::fs::Metadata| 0;
    let stamp = |(name, _): (String, Vec<u8>)| {
        let file = dir.path("out").join(&name).metadata().unwrap();
        (name, file.modified().unwrap(), inode(&file))
    };
    dir.tree("out").into_iter().map(stamp).collect()
}

#[test]
fn a_damaged_file_of_the_result_is_made_again() {
    let dir = Dir::new();
    let whole = with_old_result(&dir);
    dir.write("out/train-00001-of-00003.jsonl", "cut");
    dir.ctxtune(prepare(&["--shard-records=6"])).expect(0);
    assert_eq!(dir.tree("out"), whole);
}

#[test]
fn foreign_files_survive() {
    let dir = Dir::new();
    dir.write("out/notes.txt", "mine");
    dir.write("out/train-00000-of-00009.jsonl", "mine, though it looks like a shard");
    dir.write("out/deep/manifest.json", "mine");
    let foreign = dir.tree("out");
    with_old_result(&dir);
    dir.ctxtune(prepare(&[])).expect(0);
    let left = dir.tree("out");
    assert!(foreign.iter().all(|file| left.contains(file)), "{:?}", names(&left));
    assert_eq!(left.len(), foreign.len() + dir.result("out", &[]).unwrap().len());
}

#[test]
fn a_foreign_file_in_the_way_is_refused_before_anything_is_changed() {
    let dir = Dir::new();
    dir.corpus(20);
    let check = |file: &str, flags: &[&str]| {
        dir.write(format!("out/{file}"), "mine");
        let before = dir.tree("out");
        let refused = dir.ctxtune(prepare(&[&["--json"], flags].concat())).expect(1);
        assert_eq!(refused.json()["error"]["code"], "foreign_file");
        assert!(refused.stderr.contains(file), "{}", refused.stderr);
        assert_eq!(dir.tree("out"), before);
        std::fs::remove_file(dir.path("out").join(file)).unwrap();
    };
    for file in ["train.jsonl", "val.jsonl", "keys.tsv", "rejects.jsonl"] {
        check(file, &[]);
    }
    check("train-00001-of-00003.jsonl", &["--shard-records=6"]);
    dir.ctxtune(prepare(&["--shard-records=6"])).expect(0);
    check("train.jsonl", &[]);
    check("val-00001-of-00002.jsonl", &["--shard-records=1"]);
}

#[test]
fn a_foreign_readme_stays_and_is_spoken_of() {
    let dir = Dir::new();
    dir.write("out/README.md", "mine");
    dir.corpus(20);
    for flags in [&[][..], &["--seed=2"], &["--shard-records=6"], &["--shard-records=6"]] {
        let run = dir.ctxtune(prepare(flags)).expect(0);
        assert!(run.stderr.contains("README.md") && run.stderr.contains("not ours"), "{}", run.stderr);
        assert_eq!(dir.read("out/README.md"), "mine");
        assert!(dir.result("out", &["README.md"]).is_some());
    }
}

#[test]
fn our_readme_is_replaced_until_the_user_edits_it() {
    let dir = Dir::new();
    dir.corpus(20);
    dir.ctxtune(prepare(&[])).expect(0);
    let first = dir.read("out/README.md");
    let replaced = dir.ctxtune(prepare(&["--seed=2"])).expect(0);
    assert_ne!(dir.read("out/README.md"), first);
    assert!(!replaced.stderr.contains("README.md"), "{}", replaced.stderr);

    let edited = dir.read("out/README.md") + "\nAnd a word of mine.\n";
    dir.write("out/README.md", &edited);
    for flags in [["--seed=2"], ["--seed=3"]] {
        let run = dir.ctxtune(prepare(&flags)).expect(0);
        assert!(run.stderr.contains("README.md"), "{}", run.stderr);
        assert_eq!(dir.read("out/README.md"), edited);
    }
}

#[test]
fn a_manifest_that_is_not_one_is_refused() {
    let dir = Dir::new();
    dir.corpus(20);
    let valid = String::from_utf8(pristine(&dir, &[]).swap_remove(2).1).unwrap();
    let check = |content: &[u8]| {
        dir.plant("out", &vec![("manifest.json".to_owned(), content.to_vec())]);
        let refused = dir.ctxtune(prepare(&["--json"])).expect(1);
        assert_eq!(refused.json()["error"]["code"], "foreign_manifest");
        assert!(refused.stderr.contains("manifest.json"), "{}", refused.stderr);
        assert_eq!(dir.tree("out"), [("manifest.json".to_owned(), content.to_vec())]);
    };
    check(b"");
    check(b"{}");
    check(b"\xff\xfe");
    check(valid.replace("ctxtune.manifest/1", "ctxtune.manifest/9").as_bytes());
    check(&valid.as_bytes()[..valid.len() / 2]);
}

#[test]
fn a_manifest_that_cannot_be_read_is_refused() {
    let dir = Dir::new();
    dir.corpus(20).write("out/manifest.json/mine.txt", "mine");
    let before = dir.tree("out");
    let refused = dir.ctxtune(prepare(&[])).expect(1);
    assert!(refused.stderr.contains("manifest.json"), "{}", refused.stderr);
    assert_eq!(dir.tree("out"), before);
}

#[test]
fn a_manifest_that_names_files_elsewhere_removes_none_of_them() {
    let dir = Dir::new();
    with_old_result(&dir);
    let elsewhere = dir.write("precious.txt", "mine");
    let valid = dir.read("out/manifest.json");
    for name in ["../precious.txt", elsewhere.to_str().unwrap()] {
        let mut manifest: serde_json::Value = serde_json::from_str(&valid).unwrap();
        manifest["files"][name] = json!({ "bytes": 4, "sha256": "0" });
        dir.write("out/manifest.json", manifest.to_string());
        dir.ctxtune(prepare(&["--seed=2"]));
        assert!(elsewhere.exists(), "`{name}` was removed");
    }
}

#[test]
fn the_corpus_as_output_is_refused_and_untouched() {
    let dir = Dir::new();
    dir.corpus(20);
    std::fs::create_dir(dir.path("beside")).unwrap();
    let before = dir.tree("corpus");
    let mut spellings = vec!["corpus", "corpus/", "corpus/.", "beside/../corpus"];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("corpus", dir.path("link")).unwrap();
        spellings.push("link");
    }
    for output in spellings {
        let refused = dir.ctxtune(["prepare", "corpus", "-o", output, "--json"]).expect(2);
        assert_eq!(refused.json()["error"]["code"], "output_is_corpus");
        assert_eq!(dir.tree("corpus"), before, "-o {output}");
    }
}

#[test]
fn an_output_inside_the_corpus_is_not_read_as_input() {
    let dir = Dir::new();
    let whole = pristine(dir.corpus(20), &[]);
    let inputs = dir.tree("corpus");
    let absolute = dir.path("corpus/out");
    for output in ["corpus/out", "corpus/out/", "corpus/../corpus/out", absolute.to_str().unwrap()] {
        let run = dir.ctxtune(["prepare", "corpus", "-o", output, "--no-sync", "--json"]).expect(0);
        assert_eq!(run.json()["counts"]["listed"], 20, "-o {output}");
        assert_eq!(dir.tree("corpus/out"), whole, "-o {output}");
    }
    std::fs::remove_dir_all(dir.path("corpus/out")).unwrap();
    assert_eq!(dir.tree("corpus"), inputs);
}

#[test]
fn a_corpus_inside_the_output_is_left_alone() {
    let dir = Dir::new();
    let whole = pristine(dir.corpus(20), &[]);
    let inputs = dir.tree("corpus");
    for _ in 0..2 {
        dir.ctxtune(["prepare", "corpus", "-o", ".", "--no-sync"]).expect(0);
        assert_eq!(dir.tree("corpus"), inputs);
        assert_eq!(dir.result(".", &[]), Some(whole.clone()));
    }
}

#[test]
fn shards_of_the_old_result_are_removed() {
    let dir = Dir::new();
    dir.corpus(20);
    for shard_records in ["--shard-records=1", "--shard-records=7", "--shard-records=50"] {
        let whole = pristine(&dir, &[shard_records]);
        dir.ctxtune(prepare(&[shard_records])).expect(0);
        assert_eq!(dir.tree("out"), whole, "{shard_records}");
    }
    dir.ctxtune(prepare(&[])).expect(0);
    assert_eq!(dir.tree("out"), pristine(&dir, &[]));
    dir.ctxtune(prepare(&["--val-ratio=0"])).expect(0);
    assert!(!dir.exists("out/val.jsonl"));
}

#[test]
fn a_run_over_the_limit_keeps_the_old_result_and_leaves_all_its_reasons() {
    let dir = Dir::new();
    let old = with_old_result(&dir);
    for number in 0..7 {
        dir.write(format!("corpus/bad{number}.json"), "{");
    }
    let failed = dir.ctxtune(prepare(&[])).expect(3);
    let reasons = dir.read("out/rejects-failed.jsonl");
    assert_eq!(reasons.lines().count(), 7);
    assert!(failed.stderr.contains("rejects-failed.jsonl"), "{}", failed.stderr);
    let mut expected = old;
    expected.push(("rejects-failed.jsonl".to_owned(), reasons.into_bytes()));
    expected.sort();
    assert_eq!(dir.tree("out"), expected);
}

#[test]
fn the_next_success_removes_the_reasons_of_a_failure() {
    let dir = Dir::new();
    let old = with_old_result(&dir);
    let fail = || {
        dir.write("corpus/bad.json", "{");
        dir.ctxtune(prepare(&["--strict"])).expect(3);
        assert!(dir.exists("out/rejects-failed.jsonl"));
        std::fs::remove_file(dir.path("corpus/bad.json")).unwrap();
    };
    fail();
    let unchanged = dir.ctxtune(prepare(&["--shard-records=6", "--json"])).expect(0);
    assert_eq!(unchanged.json()["published"], "unchanged");
    assert_eq!(dir.tree("out"), old);
    fail();
    dir.ctxtune(prepare(&["--seed=2"])).expect(0);
    assert_eq!(dir.tree("out"), pristine(&dir, &["--seed=2"]));
}

#[test]
fn a_first_run_over_the_limit_leaves_its_reasons_and_nothing_else() {
    let dir = Dir::new();
    dir.write("corpus/bad.json", "{");
    dir.ctxtune(prepare(&[])).expect(3);
    assert_eq!(names(&dir.tree("out")), ["rejects-failed.jsonl"]);
}

#[test]
fn a_failure_before_anything_is_read_leaves_no_directory() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("corpus")).unwrap();
    dir.ctxtune(prepare(&[])).expect(3);
    assert!(!dir.exists("out"));
}

#[test]
fn a_second_run_is_told_which_process_holds_the_output() {
    let dir = Dir::new();
    with_old_result(&dir);
    let mut lock = File::create(dir.path("out/.ctxtune.lock")).unwrap();
    lock.write_all(b"process 4242 on another-machine").unwrap();
    lock.try_lock().unwrap();
    // Windows lets nobody read a locked file, so the names must do there.
    let before = if cfg!(unix) { dir.tree("out") } else { Vec::new() };

    let second = dir.ctxtune(prepare(&["--seed=2", "--json"])).expect(1);
    assert_eq!(second.json()["error"]["code"], "locked");
    if cfg!(unix) {
        assert!(second.stderr.contains("process 4242 on another-machine"), "{}", second.stderr);
        assert_eq!(dir.tree("out"), before);
    }
    drop(lock);
    dir.ctxtune(prepare(&["--seed=2"])).expect(0);
    assert_eq!(dir.tree("out"), pristine(&dir, &["--seed=2"]));
}

#[test]
fn runs_that_start_together_leave_one_whole_result() {
    let dir = Dir::new();
    dir.corpus(50);
    let flags = [["--seed=1"], ["--seed=2"], ["--shard-records=6"], ["--shard-records=9"]];
    let wholes = flags.map(|flags| pristine(&dir, &flags));
    for _ in 0..5 {
        let runs = flags.map(|flags| {
            let mut command = dir.command(prepare(&flags));
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        let codes = runs.map(|mut run| run.wait().unwrap().code());
        assert!(codes.contains(&Some(0)), "{codes:?}");
        assert!(codes.iter().all(|code| matches!(code, Some(0 | 1))), "{codes:?}");
        let left = dir.tree("out");
        assert!(wholes.contains(&left), "{:?}", names(&left));
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let dir = Dir::new();
    dir.corpus(20).write("corpus/bad.json", "{");
    let check = |flags: &[&str], code| {
        let before = dir.tree(".");
        dir.ctxtune(prepare(&[&["--dry-run"], flags].concat())).expect(code);
        assert_eq!(dir.tree("."), before);
    };
    check(&[], 0);
    check(&["--strict"], 3);
    assert!(!dir.exists("out"));
    dir.ctxtune(prepare(&[])).expect(0);
    check(&["--seed=2", "--shard-records=6", "--group-by=story"], 0);
    check(&["--strict"], 3);
}

/// Killed processes: Windows makes no promise about them.
#[cfg(unix)]
mod killed {
    use std::num::{NonZeroU64, NonZeroUsize};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use ctxtune_engine::output::compress::Compress;
    use ctxtune_engine::prepare::{Error, Mode, Purpose, Watch};
    use ctxtune_pipeline::config::PrepareChoices;

    use super::*;
    use crate::support::record;

    /// Fractions of 1 that look random, spread evenly: a low-discrepancy sequence.
    fn moment(round: u32) -> f64 {
        (f64::from(round) * 0.618_033_988_749_895).fract()
    }

    #[test]
    fn a_run_killed_at_any_of_200_moments_leaves_a_whole_result_or_none() {
        let dir = Dir::new();
        dir.corpus(300);
        let settings = [["--seed=1", "--shard-records=7"], ["--seed=2", "--shard-records=40"]];
        let wholes = settings.each_ref().map(|flags| pristine(&dir, flags));
        let durabilities = [&["prepare", "corpus", "-o", "out"][..], &prepare(&[])];
        let run_times = durabilities.map(|arguments| {
            let start = Instant::now();
            for flags in settings.iter().cycle().take(4) {
                dir.ctxtune([arguments, flags].concat()).expect(0);
            }
            start.elapsed() / 4
        });
        // Both now hold the second setting's result, so the first is next.
        let (mut killed, mut without_manifest) = (0, 0);
        for round in 0..200 {
            let (old, new) = ((round as usize + 1) % 2, round as usize % 2);
            // One run in five waits for the disk: its moments lie elsewhere, and it takes long.
            let durability = usize::from(round % 5 != 0);
            let mut run = dir
                .command([durabilities[durability], &settings[new]].concat())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let (start, delay) = (Instant::now(), run_times[durability].mul_f64(moment(round)));
            while start.elapsed() < delay {
                std::hint::spin_loop();
            }
            run.kill().unwrap();
            killed += u32::from(run.wait().unwrap().signal() == Some(9));

            let left = dir.result("out", &[]);
            without_manifest += u32::from(left.is_none());
            assert!(
                left.as_ref().is_none_or(|left| [&wholes[old], &wholes[new]].contains(&left)),
                "round {round}: {:?}",
                left.as_ref().map(names)
            );
            dir.ctxtune(prepare(&settings[new])).expect(0);
            assert_eq!(names(&dir.tree("out")), names(&wholes[new]), "round {round}");
            assert_eq!(dir.tree("out"), wholes[new], "round {round}");
        }
        eprintln!("{killed} of 200 were killed in time, {without_manifest} of them left no manifest");
        assert!(killed > 0);
    }

    const DIES_AT: &str = "CTXTUNE_TEST_DIES_AT";

    struct DiesAt {
        step: usize,
        steps: AtomicUsize,
    }

    impl Watch for DiesAt {
        fn listed(&self, _: u64) {}
        fn converted(&self, _: u64, _: u64, _: u64) {}
        fn is_stopped(&self) -> bool {
            false
        }
        fn publishing(&self, _: &str) {
            if self.steps.fetch_add(1, Ordering::SeqCst) == self.step {
                std::process::abort();
            }
        }
    }

    /// Proves nothing by itself: this is the process that the tests below start. It prepares
    /// `corpus` into `out` with the library and dies before the given step of publication.
    #[test]
    fn child() -> Result<(), Error> {
        #[expect(clippy::disallowed_methods, reason = "a child knows by the environment that it is one")]
        let Ok(dies_at) = std::env::var(DIES_AT) else { return Ok(()) };
        let (step, shard_records) = dies_at.split_once(' ').unwrap();
        let choices = PrepareChoices {
            sources: vec!["corpus".into()],
            output_dir: Some("out".into()),
            shard_records: shard_records.parse::<NonZeroU64>().ok(),
            compress: shard_records.parse::<Compress>().ok(),
            ..PrepareChoices::default()
        };
        let purpose = Purpose { mode: Mode::Publish, show: 0, name_rejects: 0 };
        let options = choices.resolve(purpose, NonZeroUsize::MIN).unwrap();
        let watch = DiesAt { step: step.parse().unwrap(), steps: AtomicUsize::new(0) };
        ctxtune_engine::prepare::prepare(&options, &watch).map(|_| ())
    }

    /// Whether the child got to its end.
    fn child_survives(dir: &Dir, step: usize, shard_records: &str) -> bool {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "publish::killed::child"])
            .env(DIES_AT, format!("{step} {shard_records}"))
            .current_dir(dir.path(""))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(child.status.success() || child.status.signal() == Some(6), "{said}");
        child.status.success()
    }

    /// Kills a run that replaces the result in shards of `old` records (`None`: there is no
    /// result) with one in shards of `new` (`one`: a file a side, `zst`: compressed) before each step of its
    /// publication, and lets runs of both kinds mend what it leaves.
    #[track_caller]
    fn check(old: Option<&str>, new: &str, readme: Option<&str>) {
        let flags = |shard_records: &str| match shard_records {
            "one" => vec![],
            "zst" => vec!["--compress=zst".to_owned()],
            number => vec![format!("--shard-records={number}")],
        };
        let dir = Dir::new();
        dir.corpus(12);
        let foreign: &[&str] = if readme.is_some() { &["README.md"] } else { &[] };
        let run = |shard_records: &str| {
            let flags = flags(shard_records);
            dir.ctxtune(prepare(&flags.iter().map(String::as_str).collect::<Vec<_>>())).expect(0);
        };
        let start = || {
            let before = readme.map(|text| ("README.md".to_owned(), text.as_bytes().to_vec()));
            dir.plant("out", &before.into_iter().collect());
            if let Some(old) = old {
                run(old);
            }
            (dir.result("out", foreign), dir.tree("out"))
        };
        let wholes: Vec<(&str, Tree, Tree)> = old
            .into_iter()
            .chain([new])
            .map(|shard_records| {
                start();
                run(shard_records);
                (shard_records, dir.result("out", foreign).unwrap(), dir.tree("out"))
            })
            .collect();
        let new_result = Some(&wholes.last().unwrap().1);
        for (mending, _, mended) in &wholes {
            let mut step = 0;
            loop {
                let (old_result, _) = start();
                let survived = child_survives(&dir, step, new);
                let left = dir.result("out", foreign);
                let is_whole = left == old_result || left.as_ref() == new_result;
                assert!(left.is_none() || is_whole, "step {step}: {:?}", names(&dir.tree("out")));
                if let Some(readme) = readme {
                    assert_eq!(dir.read("out/README.md"), readme, "step {step}");
                }
                run(mending);
                assert_eq!(names(&dir.tree("out")), names(mended), "step {step}");
                assert_eq!(dir.tree("out"), *mended, "step {step}");
                if survived {
                    break;
                }
                step += 1;
            }
            // At the least: aside, four files, synced, manifest, synced, staging.
            assert!(step >= 9, "only {step} steps");
        }
    }

    #[test]
    fn a_first_publication_killed_at_any_step_is_mended() {
        check(None, "one", None);
        check(None, "4", None);
    }

    #[test]
    fn a_replacement_with_other_file_names_killed_at_any_step_is_mended() {
        check(Some("4"), "one", None);
        check(Some("one"), "4", None);
        check(Some("one"), "zst", None);
        check(Some("zst"), "4", None);
    }

    #[test]
    fn a_replacement_with_the_same_file_names_killed_at_any_step_is_mended() {
        check(Some("12"), "11", None);
    }

    #[test]
    fn a_foreign_readme_survives_a_kill_at_any_step() {
        check(None, "one", Some("mine"));
        check(Some("4"), "one", Some("mine"));
    }

    #[test]
    fn a_run_that_fails_over_a_half_published_result_leaves_no_half() {
        let dir = Dir::new();
        with_old_result(&dir);
        assert!(!child_survives(&dir, 3, "one"));
        dir.write("corpus/bad.json", "{");
        dir.ctxtune(prepare(&["--strict"])).expect(3);
        assert_eq!(names(&dir.tree("out")), ["rejects-failed.jsonl"]);
    }

    #[test]
    fn litter_of_a_killed_run_is_cleaned_by_a_run_that_changes_nothing() {
        let dir = Dir::new();
        let whole = with_old_result(&dir);
        dir.write("out/.ctxtune-staging/train-00000.jsonl", record(0).to_string());
        dir.write("out/.ctxtune.lock", "process 4242 on another-machine");
        dir.ctxtune(prepare(&["--shard-records=6"])).expect(0);
        assert_eq!(dir.tree("out"), whole);
    }

    /// Long enough for any disk; only a hang takes longer.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_lock_ends_with_the_process_that_held_it() {
        let dir = Dir::new();
        let whole = pristine(dir.corpus(300), &["--shard-records=1"]);
        let start = Instant::now();
        let mut run =
            dir.command(prepare(&["--shard-records=1", "-q"])).stdout(Stdio::null()).spawn().unwrap();
        while !dir.exists("out/.ctxtune.lock") && run.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE);
        }
        run.kill().unwrap();
        run.wait().unwrap();
        dir.ctxtune(prepare(&["--shard-records=1"])).expect(0);
        assert_eq!(dir.tree("out"), whole);
    }
}
