//! Work in parts that is killed, stopped, starved and lied to: whatever happens, the next attempt leaves what `prepare`
//! leaves, and nothing beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    Dir, Outcome, PATIENCE, SmallDisk, Tree, assert_same_tree, names, program, record, sha256, signal, skip,
    wait_until,
};

/// What stands behind a command that plans.
const ORDER: [&str; 7] = ["corpus", "-o", "out", "--no-sync", "--part-bytes=2700", "--work-dir", "work"];

/// A corpus, and what `prepare` makes of it.
struct Scene {
    dir: Dir,
    whole: Tree,
}

impl Scene {
    /// 40 records and a reject.
    fn new() -> Scene {
        let dir = Dir::new();
        dir.corpus(40).write("corpus/bad.json", "{");
        Scene::of(dir)
    }

    /// Of a directory with a corpus.
    fn of(dir: Dir) -> Scene {
        let expected = Dir::new();
        let out = expected.path("out");
        dir.ctxtune(["prepare", "corpus", "--no-sync", "-o", out.to_str().unwrap()]).expect(0);
        Scene { whole: expected.tree("out"), dir }
    }

    /// A step that is not the plan, with what stands behind it.
    fn step(&self, step: &str, more: &[&str]) -> Outcome {
        Outcome::of(self.command(&[&["distributed", step, "--work-dir", "work"], more].concat()))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.dir.command(arguments);
        command.env("CTXTUNE_TIME_SCALE", "0.001");
        command
    }

    /// Plans; the number of parts.
    fn plan(&self) -> u64 {
        let run = self.dir.ctxtune(["distributed", "plan"].iter().chain(&ORDER)).expect(0);
        run.json()["parts"].as_u64().unwrap()
    }

    /// Goes up to this step, that one included, by what `status` says.
    fn go_on_to(&self, last: &str) {
        for step in ["plan", "convert", "split", "write", "publish"] {
            let missing = |what: &str| self.step("status", &["--missing", what]).expect(0).stdout;
            match step {
                "plan" => drop(self.plan()),
                "convert" => drop(self.step(step, &["--part", missing("parts").trim_end()]).expect(0)),
                "write" => drop(self.step(step, &["--shard", missing("shards").trim_end()]).expect(0)),
                _ => drop(self.step(step, &[]).expect(0)),
            }
            if step == last {
                return;
            }
        }
    }

    /// The whole command again.
    fn prepare(&self) -> Outcome {
        Outcome::of(self.command(&[&["prepare"], &ORDER[..]].concat()))
    }

    /// The result is there, and nothing else.
    #[track_caller]
    fn check_done(&self, what: &str) {
        assert_same_tree(&self.dir.tree("out"), &self.whole, what);
        let beside = entries(&self.dir, "");
        assert!(
            beside.iter().all(|name| ["corpus", "hub", "out"].contains(&name.as_str())),
            "{what}: {beside:?}"
        );
    }

    /// WORK as it is now.
    fn keep(&self) -> Tree {
        self.dir.tree("work")
    }

    /// Makes WORK what was kept, and OUT nothing.
    fn set_back(&self, work: &Tree) {
        self.dir.plant("work", work);
        for name in ["parts", "split", "shards", "plan", "done"] {
            fs::create_dir_all(self.dir.path("work").join(name)).unwrap();
        }
        if work.is_empty() {
            fs::remove_dir_all(self.dir.path("work")).unwrap();
        }
        let _ = fs::remove_dir_all(self.dir.path("out"));
    }

    /// `script` run by a shell with the program and `arguments` as `"$@"`.
    fn sh(&self, script: &str, arguments: &[&str]) -> Outcome {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", program()]).args(arguments).current_dir(self.dir.path(""));
        shell.env("CTXTUNE_TIME_SCALE", "0.001");
        Outcome::of(shell)
    }
}

fn entries(dir: &Dir, name: &str) -> Vec<String> {
    let entries = fs::read_dir(dir.path(name)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A command whose waits are long enough for another one to end.
fn patient(mut command: Command) -> Command {
    command.env("CTXTUNE_TIME_SCALE", "0.5");
    command
}

/// Every attempt of which nothing is finished.
fn unfinished(dir: &Dir) -> usize {
    let Ok(entries) = fs::read_dir(dir.path("work")) else { return 0 };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(".unfinished-")).count()
}

fn quiet(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> Outcome {
    Outcome::from(child.wait_with_output().unwrap())
}

const STEPS: [(&str, &str, &[&str]); 6] = [
    ("", "plan", &[]),
    ("plan", "convert", &["--part", "0-4"]),
    ("convert", "split", &[]),
    ("split", "write", &["--shard", "0-1"]),
    ("write", "publish", &[]),
    ("", "prepare", &[]),
];

impl Scene {
    fn arguments<'a>(&self, step: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        match step {
            "prepare" => [&["prepare"], &ORDER[..]].concat(),
            "plan" => [&["distributed", "plan"], &ORDER[..]].concat(),
            step => [&["distributed", step, "--work-dir", "work"], more].concat(),
        }
    }

    /// WORK before this step.
    fn before(&self, last: &str) -> Tree {
        if last.is_empty() {
            return Vec::new();
        }
        self.go_on_to(last);
        let work = self.keep();
        fs::remove_dir_all(self.dir.path("work")).unwrap();
        work
    }

    /// The step again after it was killed, and then all that is left.
    #[track_caller]
    fn check_again(&self, step: &str, arguments: &[&str], what: &str) {
        let again = Outcome::of(self.command(arguments));
        let is_over = step == "publish" && again.code == Some(2) && self.is_cleared();
        assert!(again.code == Some(0) || is_over, "{what}: {:?} {}", again.code, again.stderr);
        if is_over {
            let _ = fs::remove_dir(self.dir.path("work"));
        } else {
            self.prepare().expect(0);
        }
        self.check_done(what);
    }

    /// WORK is gone, or empty: all was done but its removal.
    fn is_cleared(&self) -> bool {
        fs::read_dir(self.dir.path("work")).map_or(true, |mut entries| entries.next().is_none())
    }
}

#[test]
fn every_command_killed_at_any_moment_is_resumed_by_the_next_attempt() {
    let scene = Scene::new();
    assert_eq!(scene.plan(), 5);
    fs::remove_dir_all(scene.dir.path("work")).unwrap();
    let mut killed = 0;
    for (last, step, more) in STEPS {
        let work = scene.before(last);
        let arguments = scene.arguments(step, more);
        scene.set_back(&work);
        let start = Instant::now();
        Outcome::of(scene.command(&arguments)).expect(0);
        let run_time = start.elapsed();
        for round in 0..8 {
            scene.set_back(&work);
            let (start, delay) = (Instant::now(), run_time.mul_f64((f64::from(round) * 0.618_034).fract()));
            let mut child = quiet(scene.command(&arguments));
            while start.elapsed() < delay {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            killed += u32::from(child.wait().unwrap().signal() == Some(9));
            scene.check_again(step, &arguments, &format!("{step}, round {round}"));
        }
    }
    assert!(killed > 20, "{killed} of 48 were killed in time");
}

fn has_strace() -> bool {
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    let works = works.is_ok_and(|strace| strace.status.success());
    if !works {
        skip("strace", "strace is not here, or may not trace");
    }
    works
}

impl Scene {
    fn strace(&self, flags: &[&str], arguments: &[&str]) -> Outcome {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(self.dir.path("strace.log")).args(flags).arg(program());
        strace.args(arguments).current_dir(self.dir.path("")).env("CTXTUNE_TIME_SCALE", "0.001");
        Outcome::of(strace)
    }
}

#[test]
fn a_publication_killed_at_any_change_of_a_directory_is_finished_by_the_next_one() {
    if !has_strace() {
        return;
    }
    let scene = Scene::new();
    let work = scene.before("write");
    let arguments = scene.arguments("publish", &[]);
    for calls in ["?link,linkat", "?rename,?renameat,renameat2", "?unlink,unlinkat", "?rmdir,?mkdir,mkdirat"]
    {
        let mut call = 1;
        loop {
            scene.set_back(&work);
            let (trace, inject) =
                (format!("--trace={calls}"), format!("--inject={calls}:signal=KILL:when={call}"));
            let run = scene.strace(&[&trace, &inject], &arguments);
            fs::remove_file(scene.dir.path("strace.log")).unwrap();
            if run.code.is_some() {
                break;
            }
            // In turn by each of the commands that may come next.
            match call % 2 {
                0 => drop(scene.prepare().expect(0)),
                _ => {
                    let again = Outcome::of(scene.command(&arguments));
                    assert!(again.code == Some(0) || scene.is_cleared(), "{calls} {call}: {}", again.stderr);
                    let _ = fs::remove_dir(scene.dir.path("work"));
                }
            }
            scene.check_done(&format!("{calls}, call {call}"));
            call += 1;
        }
        assert!(call > 2, "{calls}: no call was hit");
    }
}

#[test]
fn two_publishers_at_once_leave_one_whole_result() {
    let scene = Scene::new();
    let work = scene.before("write");
    for round in 0..6 {
        scene.set_back(&work);
        let runs =
            [(); 2].map(|()| quiet(patient(scene.command(&scene.arguments("publish", &[]))))).map(ended);
        // One that begins when all is over finds no plan.
        let is_good = |run: &Outcome| run.code == Some(0) || run.stderr.contains("no plan");
        for run in &runs {
            assert!(is_good(run), "round {round}: {:?} {}", run.code, run.stderr);
        }
        assert!(runs.iter().any(|run| run.code == Some(0)));
        scene.check_done(&format!("round {round}"));
    }
}

#[test]
fn whole_preparations_at_once_all_end_well() {
    let scene = Scene::new();
    for round in 0..6 {
        let runs =
            [(); 3].map(|()| quiet(patient(scene.command(&scene.arguments("prepare", &[]))))).map(ended);
        for run in runs {
            run.expect(0);
        }
        scene.check_done(&format!("round {round}"));
        fs::remove_dir_all(scene.dir.path("out")).unwrap();
    }
}

/// A corpus whose conversion takes long enough to be stopped.
fn large() -> Scene {
    let dir = Dir::new();
    dir.corpus(600);
    Scene::of(dir)
}

#[test]
fn an_attempt_that_is_stopped_across_publication_leaves_nothing() {
    let scene = large();
    let order = [&["--part-bytes=1GiB"], &ORDER[..4], &ORDER[5..]].concat();
    for (last, step, flag) in [("plan", "convert", "--part=0"), ("split", "write", "--shard=0")] {
        let plan = [&["distributed", "plan"], &order[..]].concat();
        scene.dir.ctxtune(plan).expect(0);
        if last == "split" {
            scene.step("convert", &["--part=0"]).expect(0);
            scene.step("split", &[]).expect(0);
        }
        let mut late =
            quiet(scene.command(&["distributed", step, "--work-dir", "work", flag, "--threads=1"]));
        wait_until(&mut late, || unfinished(&scene.dir) > 0);
        signal(late.id(), "STOP");
        Outcome::of(scene.command(&[&["prepare"], &order[..]].concat())).expect(0);
        scene.check_done(step);
        signal(late.id(), "CONT");
        let late = ended(late).expect(0);
        // Nothing, or the line of a commit that was quicker than the signal.
        assert!(late.stderr.is_empty() && late.stdout.lines().count() < 2, "{step}: {}", late.stderr);
        scene.check_done(step);
        fs::remove_dir_all(scene.dir.path("out")).unwrap();
    }
}

#[test]
fn of_two_attempts_that_read_different_inputs_the_first_is_kept() {
    let scene = large();
    let order = [&["--part-bytes=1GiB"], &ORDER[..4], &ORDER[5..]].concat();
    scene.dir.ctxtune([&["distributed", "plan"], &order[..]].concat()).expect(0);
    let convert = ["distributed", "convert", "--work-dir", "work", "--part=0", "--threads=1"];
    let mut first = quiet(scene.command(&convert));
    wait_until(&mut first, || unfinished(&scene.dir) > 0);
    signal(first.id(), "STOP");
    scene.dir.write("corpus/1.json", record(1001).to_string());
    let second = Outcome::of(scene.command(&convert)).expect(0);
    let kept = scene.keep();
    // Whether it has read the record or not: it is not what the second one has read.
    scene.dir.write("corpus/1.json", record(1002).to_string());
    signal(first.id(), "CONT");
    let first = ended(first).expect(1);
    assert!(
        first.stderr.contains("done/part-00000.json") && first.stderr.contains("hint:"),
        "{}",
        first.stderr
    );
    assert_eq!(first.stdout, "");
    let is_kept =
        |tree: &Tree| tree.iter().filter(|(name, _)| !name.starts_with(".unfinished")).cloned().collect();
    let (kept, now): (Tree, Tree) = (is_kept(&kept), is_kept(&scene.keep()));
    assert_same_tree(&now, &kept, "what was committed");
    assert_eq!(Outcome::of(scene.command(&convert)).expect(0).stdout, second.stdout);
}

#[test]
fn a_repeated_step_prints_the_same_line_and_needs_no_input() {
    let scene = Scene::new();
    scene.go_on_to("convert");
    let converted = scene.step("convert", &["--part", "0-4"]).expect(0).stdout;
    assert_eq!(converted.lines().count(), 5);
    fs::rename(scene.dir.path("corpus"), scene.dir.path("elsewhere")).unwrap();
    assert_eq!(scene.step("convert", &["--part", "0,2-4,1,0"]).expect(0).stdout, converted);
    for line in converted.lines() {
        assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["schema"], "ctxtune.part/1");
    }
    let split = scene.step("split", &[]).expect(0);
    assert_eq!(split.json()["shards"], 2);
    assert_eq!(scene.step("split", &[]).expect(0).stdout, split.stdout);
    let written = scene.step("write", &["--shard", "1,0"]).expect(0).stdout;
    assert_eq!(written.lines().count(), 2);
    assert_eq!(scene.step("write", &["--shard", "0-1"]).expect(0).stdout, written);
    let work = scene.keep();
    let published = scene.step("publish", &[]).expect(0);
    assert_eq!(published.stdout, format!("{}\n", fs::canonicalize(scene.dir.path("out")).unwrap().display()));
    // Once more, by the command for all of it.
    scene.set_back(&work);
    scene.prepare().expect(0);
    assert_same_tree(&scene.dir.tree("out"), &scene.whole, "without its inputs");
    assert!(!scene.dir.exists("work"));
}

#[test]
fn a_plan_outlives_the_files_that_name_its_inputs() {
    let dir = Dir::new();
    dir.corpus(20).write(
        "template.yaml",
        "messages: [{role: user, content: '{story}'}, {role: assistant, content: '{context}'}]\n",
    );
    let template = crate::support::repository("fixtures/templates/question.yaml");
    let template = fs::read_dir(template.parent().unwrap()).unwrap().next().unwrap().unwrap().path();
    fs::copy(template, dir.path("template.yaml")).unwrap();
    dir.write("list", (0..20).map(|number| format!("corpus/{number}.json\n")).collect::<String>());
    dir.write("settings.yaml", "seed: 7\nval_ratio: 0.2\n");
    let order =
        ["--files-from=list", "--template=template.yaml", "--config=settings.yaml", "-o", "out", "--no-sync"];
    dir.ctxtune([&["prepare"], &order[..]].concat()).expect(0);
    let whole = dir.tree("out");
    fs::remove_dir_all(dir.path("out")).unwrap();
    let parts = [&order[..], &["--work-dir=work", "--part-bytes=1000"]].concat();
    let plan = dir.ctxtune([&["distributed", "plan"], &parts[..]].concat()).expect(0);
    // The settings lie elsewhere now: they say the same.
    fs::rename(dir.path("settings.yaml"), dir.path("moved.yaml")).unwrap();
    let moved: Vec<&str> = parts
        .iter()
        .map(|flag| if flag.starts_with("--config") { "--config=moved.yaml" } else { flag })
        .collect();
    let again = dir.ctxtune([&["distributed", "plan"], &moved[..]].concat()).expect(0);
    assert_eq!(again.stdout, plan.stdout);
    for gone in ["moved.yaml", "template.yaml", "list"] {
        fs::remove_file(dir.path(gone)).unwrap();
        let again = dir.ctxtune([&["distributed", "plan"], &parts[..]].concat()).expect(0);
        assert_eq!(again.stdout, plan.stdout, "without {gone}");
    }
    // In other words it is another order, of which too much is gone.
    dir.ctxtune([&["distributed", "plan", "--seed=8"], &parts[..]].concat()).expect(2);
    dir.ctxtune([&["prepare"], &parts[..]].concat()).expect(0);
    assert_same_tree(&dir.tree("out"), &whole, "without settings, template and list");
    assert!(!dir.exists("work"));
}

#[test]
fn another_order_is_refused_and_a_file_that_came_later_ignored() {
    let scene = Scene::new();
    scene.plan();
    for other in [&["--seed=2"][..], &["--pin"], &["--val-ratio=0.2"], &["--compress=gz"], &["--limit=3"]] {
        let plan = [&["distributed", "plan"], &ORDER[..], other].concat();
        let refused = scene.dir.ctxtune(plan).expect(2);
        assert!(refused.stderr.contains("another") && refused.stderr.contains("hint:"), "{}", refused.stderr);
        Outcome::of(scene.command(&[&["prepare"], &ORDER[..], other].concat())).expect(2);
    }
    scene.dir.write("corpus/late.json", record(99).to_string());
    scene.go_on_to("publish");
    assert_same_tree(&scene.dir.tree("out"), &scene.whole, "with a file that came later");
}

#[test]
fn an_altered_byte_of_what_was_planned_is_found_before_it_matters() {
    let scene = Scene::new();
    scene.dir.write("corpus/notes.txt", "not read").metadata().unwrap();
    fs::create_dir(scene.dir.path("corpus/named.json")).unwrap();
    scene.plan();
    let planned = scene.keep();
    assert_eq!(planned.len(), 4, "{:?}", names(&planned));
    scene.go_on_to("write");
    let done = scene.keep();
    for (name, content) in &planned {
        // Its first byte, its last one, and some between.
        let places =
            (0..content.len()).step_by((content.len() / 12).max(1)).chain(content.len().checked_sub(1));
        let altered = places.map(|place| {
            let mut altered = content.clone();
            altered[place] ^= 1;
            altered
        });
        for altered in altered.chain([content[..content.len() - 1].to_vec(), Vec::new()]) {
            scene.set_back(if name.contains("not-read") { &done } else { &planned });
            scene.dir.write(format!("work/{name}"), altered);
            let run = match name.as_str() {
                name if name.contains("not-read") => scene.step("publish", &[]),
                _ => scene.step("convert", &["--part", "0-4"]),
            };
            let run = run.expect(2);
            assert!(run.stderr.contains(name) && run.stderr.contains("hint:"), "{}", run.stderr);
        }
        scene.set_back(if name.contains("not-read") { &done } else { &planned });
        fs::remove_file(scene.dir.path(format!("work/{name}"))).unwrap();
        scene.prepare_fails_or_plans_again(name);
    }
}

impl Scene {
    fn prepare_fails_or_plans_again(&self, name: &str) {
        if name == "plan.json" {
            self.step("convert", &["--part=0"]).expect(2);
            return;
        }
        self.prepare().expect(2);
        assert!(!self.dir.exists("out"), "{name}");
    }
}

#[test]
fn a_plan_of_another_version_is_refused() {
    let scene = Scene::new();
    scene.plan();
    let text = scene.dir.read("work/plan.json");
    let this = format!("\"tool\":\"ctxtune {}\"", env!("CARGO_PKG_VERSION"));
    for (from, to) in [(this.as_str(), "\"tool\":\"ctxtune 0.0.1\""), ("ctxtune.plan/1", "ctxtune.plan/2")] {
        let body = text.split_once("\"body\":").unwrap().1.trim_end().strip_suffix('}').unwrap();
        let other = body.replace(from, to);
        assert_ne!(other, body);
        let plan = sha256(other.as_bytes());
        scene.dir.write("work/plan.json", format!("{{\"plan\":\"{plan}\",\"body\":{other}}}\n"));
        for step in [&["convert", "--part=0"][..], &["split"], &["publish"], &["status", "--missing=parts"]] {
            let run = scene.step(step[0], &step[1..]).expect(2);
            assert!(
                run.stderr.contains("ctxtune 0.0.1") || run.stderr.contains("ctxtune.plan/2"),
                "{}",
                run.stderr
            );
        }
        scene.prepare().expect(2);
    }
}

#[test]
fn steps_in_the_wrong_order_say_what_is_missing() {
    let scene = Scene::new();
    for step in [&["convert", "--part=0"][..], &["split"], &["write", "--shard=0"], &["publish"]] {
        let run = scene.step(step[0], &step[1..]).expect(2);
        assert!(run.stderr.contains("no plan in `work`"), "{}", run.stderr);
        assert!(!scene.dir.exists("work"));
    }
    scene.plan();
    for step in [&["write", "--shard=0"][..], &["publish"], &["status", "--missing=shards"]] {
        let run = scene.step(step[0], &step[1..]).expect(5);
        assert!(run.stderr.contains("the split"), "{}", run.stderr);
    }
    scene.step("convert", &["--part=1,3"]).expect(0);
    assert_eq!(scene.step("status", &["--missing=parts"]).expect(0).stdout, "0,2,4\n");
    let run = scene.step("split", &[]).expect(5);
    assert!(run.stderr.contains("0,2,4"), "{}", run.stderr);
    for wrong in [",", "x", "5", "0-5", "3-1", "-1", "0,", "1 2"] {
        scene.step("convert", &[&format!("--part={wrong}")]).expect(2);
    }
    scene.step("convert", &["--part=0,2,4"]).expect(0);
    assert_eq!(scene.step("status", &["--missing=parts"]).expect(0).stdout, "\n");
    scene.step("split", &[]).expect(0);
    scene.step("write", &["--shard=1"]).expect(0);
    scene.step("write", &["--shard=2"]).expect(2);
    let run = scene.step("publish", &[]).expect(5);
    assert!(run.stderr.contains("shard 0"), "{}", run.stderr);
    assert!(!scene.dir.exists("out"), "nothing is made before publication");
    scene.go_on_to("publish");
    scene.check_done("in the end");
}

#[test]
fn an_input_that_is_not_what_it_was_ends_with_3() {
    let lines: String = (0..40).map(|number| format!("{}\n", record(number))).collect();
    let dir = Dir::new();
    dir.corpus(6).write("corpus/lines.jsonl", &lines);
    let order =
        ["corpus", "--containers", "-o", "out", "--no-sync", "--work-dir", "work", "--part-bytes=4000"];
    let check = |pin: &[&str], change: &dyn Fn(), is_changed: bool| {
        dir.ctxtune([&["distributed", "plan"], &order[..], pin].concat()).expect(0);
        let missing = ["distributed", "status", "--work-dir", "work", "--missing=parts"];
        let parts = dir.ctxtune(missing).expect(0).stdout;
        change();
        let convert = ["distributed", "convert", "--work-dir", "work", "--part", parts.trim_end()];
        let run = dir.ctxtune(convert).expect(if is_changed { 3 } else { 0 });
        let has_hint = run.stderr.contains("delete the working directory");
        assert_eq!(has_hint, is_changed, "{}", run.stderr);
        fs::remove_dir_all(dir.path("work")).unwrap();
        let _ = fs::remove_dir_all(dir.path("corpus"));
        dir.corpus(6);
        dir.write("corpus/lines.jsonl", &lines);
    };
    let touch = |name: &str| {
        let file = fs::File::options().write(true).open(dir.path(name)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    };
    let remove = |name: &str| fs::remove_file(dir.path(name)).unwrap();
    let make_directory = |name: &str| {
        remove(name);
        fs::create_dir(dir.path(name)).unwrap();
    };
    // A container is pinned.
    check(&[], &|| drop(dir.write("corpus/lines.jsonl", format!("{lines}\n"))), true);
    check(&[], &|| drop(dir.write("corpus/lines.jsonl", &lines[1..])), true);
    check(&[], &|| touch("corpus/lines.jsonl"), true);
    check(&[], &|| remove("corpus/lines.jsonl"), true);
    check(&[], &|| make_directory("corpus/lines.jsonl"), true);
    // A record that is a file only where that is asked for.
    check(&[], &|| touch("corpus/1.json"), false);
    check(&["--pin"], &|| touch("corpus/1.json"), true);
    check(&[], &|| drop(dir.write("corpus/1.json", record(50).to_string())), false);
    check(&["--pin"], &|| drop(dir.write("corpus/1.json", record(500).to_string())), true);
    for pin in [&[][..], &["--pin"]] {
        check(pin, &|| remove("corpus/1.json"), true);
        check(pin, &|| make_directory("corpus/1.json"), true);
    }
    check(&[], &|| fs::rename(dir.path("corpus"), dir.path("moved")).unwrap(), true);
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

#[test]
fn an_input_that_cannot_be_read_is_tried_again_later() {
    let scene = Scene::new();
    let set_mode = |name: &str, mode: u32| {
        fs::set_permissions(scene.dir.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    scene.plan();
    set_mode("", 0o755);
    for name in ["work", "work/parts", "work/done"] {
        set_mode(name, 0o777);
    }
    let mut script = "exec \"$@\"".to_owned();
    if is_root() {
        // Permissions do not bind root: it becomes nobody, if nobody can run the program.
        let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
        script = format!("exec {nobody} \"$@\"");
        if scene.sh(&format!("exec {nobody} test -x \"$1\""), &[]).code != Some(0) {
            return skip("user", "the program cannot be run as nobody");
        }
    }
    set_mode("corpus/7.json", 0);
    let convert = ["distributed", "convert", "--work-dir", "work", "--part", "0-4"];
    let run = scene.sh(&script, &convert).expect(5);
    assert!(run.stderr.contains("7.json") && run.stderr.contains("(os error 13)"), "{}", run.stderr);
    assert_eq!(unfinished(&scene.dir), 0);
    let missing = scene.step("status", &["--missing=parts"]).expect(0).stdout;
    assert_eq!(missing.trim_end().split(',').count() + run.stdout.lines().count(), 5, "{missing}");
    set_mode("corpus/7.json", 0o644);
    scene.sh(&script, &convert).expect(0);
    scene.prepare().expect(0);
    scene.check_done("once it can be read");
}

#[test]
fn a_full_disk_ends_with_5_and_room_lets_the_same_command_go_on() {
    let scene = Scene::new();
    let Some(disk) = SmallDisk::mount(&scene.dir.path("disk"), "size=1m") else { return };
    let order = ["prepare", "corpus", "-o", "disk/out", "--work-dir=disk/work", "--part-bytes=2700"];
    let (mut pages, mut failed) = (9, 0);
    loop {
        disk.remount(&format!("size={}", pages * 4096));
        let run = Outcome::of(scene.command(&order));
        if run.code == Some(0) {
            break;
        }
        let run = run.expect(5);
        assert_eq!(run.stdout, "");
        assert!(
            run.stderr.contains("(os error 28)") || run.stderr.contains("has room for"),
            "{}",
            run.stderr
        );
        assert!(!scene.dir.exists("disk/out/manifest.json"));
        let work = entries(&scene.dir, "disk/work");
        assert!(!work.iter().any(|name| name.starts_with(".unfinished")), "{work:?}");
        (pages, failed) = (pages + 3, failed + 1);
    }
    assert!(failed > 3, "only {failed} runs had too little room");
    assert_same_tree(&scene.dir.tree("disk/out"), &scene.whole, "with room");
    assert_eq!(entries(&scene.dir, "disk"), ["out"]);
    // Scratch files have a place of their own.
    fs::remove_dir_all(scene.dir.path("disk/out")).unwrap();
    disk.remount("size=8k");
    scene.dir.write("disk/full", [0; 8192]);
    scene.plan();
    let convert = ["distributed", "convert", "--work-dir=work", "--part=0-4", "--scratch-dir=disk"];
    let run = Outcome::of(scene.command(&convert)).expect(5);
    assert!(run.stderr.contains("(os error 28)"), "{}", run.stderr);
    assert_eq!(scene.step("status", &["--missing=parts"]).expect(0).stdout, "0-4\n");
    scene.prepare().expect(0);
    assert_same_tree(&scene.dir.tree("out"), &scene.whole, "with other scratch files");
}

#[test]
fn a_file_size_limit_ends_with_5() {
    let scene = Scene::new();
    scene.plan();
    let run =
        scene.sh("ulimit -f 8; exec \"$@\"", &["distributed", "convert", "--work-dir", "work", "--part=0-4"]);
    let run = run.expect(5);
    assert!(run.stderr.contains("(os error 27)"), "{}", run.stderr);
    assert_eq!(unfinished(&scene.dir), 0);
    scene.prepare().expect(0);
    scene.check_done("without the limit");
}

#[test]
fn places_that_lie_within_each_other_are_refused() {
    let dir = Dir::new();
    dir.corpus(5).write("lines.jsonl", record(1).to_string());
    std::os::unix::fs::symlink(dir.path("corpus"), dir.path("link")).unwrap();
    for (out, work) in [
        ("out", "out/work"),
        ("out", "out"),
        ("around/out", "around"),
        ("out", "corpus/work"),
        ("out", "corpus"),
        ("out", "link/work"),
        ("out", "corpus/../corpus/deep/work"),
        ("corpus/out", "corpus/out.ctxtune-work"),
    ] {
        for command in [&["prepare"][..], &["distributed", "plan"]] {
            let run = dir.ctxtune([command, &["corpus", "-o", out, "--work-dir", work]].concat()).expect(2);
            assert!(run.stderr.contains("lie within each other"), "{out} {work}: {}", run.stderr);
        }
        assert_eq!(
            entries(&dir, ".").into_iter().filter(|name| name != "hub").collect::<Vec<_>>(),
            ["corpus", "lines.jsonl", "link"]
        );
    }
    if fs::symlink_metadata("/dev/shm").is_ok_and(|shm| {
        use std::os::unix::fs::MetadataExt;
        shm.dev() != fs::metadata(dir.path("")).unwrap().dev()
    }) {
        let other = tempfile::tempdir_in("/dev/shm").unwrap();
        let work = other.path().join("work");
        let work = work.to_str().unwrap();
        for command in [&["prepare"][..], &["distributed", "plan"]] {
            let run = dir.ctxtune([command, &["corpus", "-o", "out", "--work-dir", work]].concat()).expect(2);
            assert!(run.stderr.contains("another file system"), "{}", run.stderr);
        }
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
        assert!(!dir.exists("out"));
    }
    // The output below a source is no source.
    let order = ["prepare", "corpus", "-o", "corpus/out", "--no-sync"];
    dir.ctxtune(order).expect(0);
    let whole = dir.tree("corpus/out");
    for _ in 0..2 {
        dir.ctxtune([&order[..], &["--work-dir", "work"]].concat()).expect(0);
        assert_same_tree(&dir.tree("corpus/out"), &whole, "below a source");
    }
    for once in ["-", "fifo.jsonl"] {
        if once != "-" {
            assert!(Command::new("mkfifo").arg(dir.path(once)).status().unwrap().success());
        }
        for command in [&["prepare"][..], &["distributed", "plan"]] {
            let run = dir.ctxtune([command, &[once, "-o", "out", "--work-dir", "work"]].concat()).expect(2);
            assert!(run.stderr.contains("read once only"), "{}", run.stderr);
        }
    }
    for flag in ["--dry-run", "--show=1"] {
        for command in [&["prepare"][..], &["distributed", "plan"]] {
            dir.ctxtune([command, &["corpus", "-o", "out", "--work-dir", "work", flag]].concat()).expect(2);
        }
    }
    assert!(!dir.exists("out") && !dir.exists("work"));
}

#[test]
fn steps_run_from_any_working_directory() {
    let scene = Scene::new();
    scene.plan();
    for name in ["a", "a/b"] {
        fs::create_dir(scene.dir.path(name)).unwrap();
    }
    let run = |cwd: &str, arguments: &[&str]| {
        let mut command = scene.command(arguments);
        command.current_dir(scene.dir.path(cwd));
        Outcome::of(command).expect(0)
    };
    run("a/b", &["distributed", "convert", "--work-dir", "../../work", "--part=0-2"]);
    run("a", &["distributed", "convert", "--work-dir", "../work", "--part=3-4"]);
    run("corpus", &["distributed", "split", "--work-dir", "../work"]);
    let work = scene.dir.path("work");
    run("/", &["distributed", "write", "--work-dir", work.to_str().unwrap(), "--shard=0-1"]);
    run("work", &["distributed", "publish", "--work-dir", "."]);
    fs::remove_dir_all(scene.dir.path("a")).unwrap();
    scene.check_done("from five directories");
}

#[test]
fn what_lies_in_the_output_is_treated_as_prepare_treats_it() {
    let scene = Scene::new();
    let old = ["prepare", "corpus", "-o", "out", "--no-sync", "--shard-records=9"];
    scene.dir.ctxtune(old).expect(0);
    let before = scene.dir.tree("out");
    scene.dir.write("out/mine.txt", "mine");
    scene.go_on_to("write");
    let untouched = scene.dir.tree("out").into_iter().filter(|(name, _)| name != "mine.txt").collect();
    assert_same_tree(&untouched, &before, "before publication");
    scene.step("publish", &[]).expect(0);
    assert_eq!(scene.dir.read("out/mine.txt"), "mine");
    fs::remove_file(scene.dir.path("out/mine.txt")).unwrap();
    scene.check_done("over an old result");
    // Equal: not touched.
    let times = || -> Vec<_> {
        let modified =
            |(name, _): (String, _)| fs::metadata(scene.dir.path("out").join(name)).unwrap().modified();
        scene.dir.tree("out").into_iter().map(modified).map(Result::unwrap).collect()
    };
    let untouched = times();
    let run = Outcome::of(scene.command(&[&["prepare", "--json"], &ORDER[..]].concat())).expect(0);
    assert_eq!(run.json()["published"], "unchanged");
    assert_eq!(times(), untouched);
    // A foreign file in the way.
    for foreign in ["train.jsonl", "keys.tsv", "manifest.json"] {
        fs::remove_dir_all(scene.dir.path("out")).unwrap();
        scene.dir.write(format!("out/{foreign}"), "mine");
        let plain = scene.dir.prepare(&[]);
        let run = scene.prepare().expect(plain.code.unwrap());
        assert_eq!(run.stderr.lines().next(), plain.stderr.lines().next());
        assert_eq!(scene.dir.tree("out"), [(foreign.to_owned(), b"mine".to_vec())]);
        assert!(!scene.dir.exists("work"), "it is found before anything is done");
    }
}

#[test]
fn a_failed_run_leaves_what_prepare_leaves() {
    let dir = Dir::new();
    dir.corpus(20);
    dir.prepare(&["--shard-records=6"]).expect(0);
    let old = dir.tree("out");
    for number in 0..7 {
        dir.write(format!("corpus/bad{number}.json"), "{");
    }
    let order = ["prepare", "corpus", "--no-sync", "-o"];
    for (more, code) in [(&[][..], 3), (&["--max-rejects=6"], 3), (&["--only-correct", "--strict"], 3)] {
        for prior in [false, true] {
            let outs = ["plain", "parts"];
            for out in outs {
                let _ = fs::remove_dir_all(dir.path(out));
                if prior {
                    dir.plant(out, &old);
                }
            }
            let plain = dir.ctxtune([&order[..], &["plain"], more].concat()).expect(code);
            let parts = ["parts", "--work-dir=work", "--part-bytes=1000"];
            // The same again, from what is there.
            for _ in 0..2 {
                let run = dir.ctxtune([&order[..], &parts, more].concat()).expect(code);
                let first = |run: &Outcome| run.stderr.lines().next().unwrap().replace("plain", "parts");
                assert_eq!(first(&run), first(&plain));
                assert!(run.stderr.contains("delete the working directory"), "{}", run.stderr);
            }
            let trees = outs.map(|out| if dir.exists(out) { dir.tree(out) } else { Vec::new() });
            assert_same_tree(&trees[1], &trees[0], &format!("{more:?} {prior}"));
            fs::remove_dir_all(dir.path("work")).unwrap();
        }
    }
    // What cannot be planned leaves nothing.
    fs::create_dir(dir.path("empty")).unwrap();
    for source in ["empty", "nowhere"] {
        let plain = dir.ctxtune(["prepare", source, "-o", "new"]);
        let run =
            dir.ctxtune(["prepare", source, "-o", "new", "--work-dir=work"]).expect(plain.code.unwrap());
        assert_eq!(run.stderr, plain.stderr);
        assert!(!dir.exists("new") && !dir.exists("work"));
    }
}

#[test]
fn published_files_have_the_permissions_that_prepare_gives_them() {
    let scene = Scene::new();
    let modes = |name: &str| -> Vec<(String, u32)> {
        let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode();
        let files = scene.dir.tree(name).into_iter();
        let mut modes: Vec<_> =
            files.map(|(file, _)| (file.clone(), mode(scene.dir.path(name).join(file)))).collect();
        modes.push((String::new(), mode(scene.dir.path(name))));
        modes
    };
    for umask in ["077", "022", "002"] {
        let script = format!("umask {umask}; exec \"$@\"");
        scene.sh(&script, &["prepare", "corpus", "-o", "plain", "--no-sync"]).expect(0);
        scene.sh(&script, &[&["prepare"], &ORDER[..]].concat()).expect(0);
        assert_eq!(modes("out"), modes("plain"), "umask {umask}");
        for name in ["out", "plain"] {
            fs::remove_dir_all(scene.dir.path(name)).unwrap();
        }
    }
}

#[test]
fn only_what_must_survive_a_power_loss_is_synced() {
    if !has_strace() {
        return;
    }
    let scene = Scene::new();
    let prepare = ["prepare", "corpus", "-o", "out", "--work-dir", "work", "--part-bytes=2700"];
    for (more, is_synced) in [(&["--no-sync"][..], false), (&[], true)] {
        scene.strace(&["--trace=fsync,fdatasync,sync,syncfs"], &[&prepare[..], more].concat()).expect(0);
        assert_eq!(!scene.dir.read("strace.log").trim().is_empty(), is_synced, "{more:?}");
        fs::remove_dir_all(scene.dir.path("out")).unwrap();
    }
}

#[test]
fn files_of_somebody_else_in_the_working_directory_stay() {
    let scene = Scene::new();
    for name in ["work/mine.txt", "work/parts/mine.txt", "work/done/mine.json", "work/plan/notes"] {
        scene.dir.write(name, "mine");
    }
    scene.prepare().expect(0);
    assert_same_tree(&scene.dir.tree("out"), &scene.whole, "beside other files");
    let left = scene.dir.tree("work");
    assert_eq!(names(&left), ["done/mine.json", "mine.txt", "parts/mine.txt", "plan/notes"]);
}

#[cfg(target_os = "linux")]
#[test]
fn names_of_any_bytes_give_what_prepare_gives() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = Dir::new();
    let bytes: [&[u8]; 12] = [
        b"a/1.json",
        b"a-b/1.json",
        b"a.c/1.json",
        b"new\nline.json",
        b"quo\"te'.json",
        b"tab\t.json",
        b"\xff\xfe.json",
        "\u{e9}.json".as_bytes(),
        "e\u{301}.json".as_bytes(),
        b" .json",
        b"%41.json",
        b"a/\\n.json",
    ];
    for (number, name) in bytes.iter().enumerate() {
        dir.write(std::path::Path::new("corpus").join(OsStr::from_bytes(name)), record(number).to_string());
    }
    dir.write("corpus/.hidden.json", record(50).to_string());
    dir.write("corpus/.hidden/x.json", record(51).to_string());
    dir.write("elsewhere/1.json", record(52).to_string());
    std::os::unix::fs::symlink(dir.path("elsewhere"), dir.path("corpus/linked")).unwrap();
    std::os::unix::fs::symlink(dir.path("elsewhere/1.json"), dir.path("corpus/link.json")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path("corpus/broken.json")).unwrap();
    assert!(Command::new("mkfifo").arg(dir.path("corpus/fifo.json")).status().unwrap().success());
    let run = |more: &[&str]| {
        let run = dir.ctxtune([&["prepare", "corpus", "--no-sync", "-v", "--json"], more].concat()).expect(0);
        let mut document = run.json();
        for field in ["seconds", "output_dir"] {
            document.as_object_mut().unwrap().remove(field);
        }
        document
    };
    let plain = run(&["-o", "plain"]);
    for size in ["1", "500", "1GiB"] {
        let parts = run(&["-o", "parts", "--work-dir=work", "--part-bytes", size]);
        assert_eq!(parts, plain, "{size}");
        assert_same_tree(&dir.tree("parts"), &dir.tree("plain"), size);
        fs::remove_dir_all(dir.path("parts")).unwrap();
    }
}

#[test]
fn a_stopped_publisher_is_told_of_and_its_signal_ends_a_wait() {
    let scene = Scene::new();
    scene.go_on_to("write");
    let lock = scene.dir.write("out/.ctxtune.lock", "process 4242 on another-machine");
    let lock = fs::File::options().write(true).open(lock).unwrap();
    lock.try_lock().unwrap();
    let run = Outcome::of(scene.command(&["distributed", "publish", "--work-dir", "work"])).expect(5);
    assert!(run.stderr.contains("process 4242 on another-machine"), "{}", run.stderr);
    assert!(run.stderr.contains("trying again"), "{}", run.stderr);
    let mut waiting = scene.command(&["distributed", "publish", "--work-dir", "work"]);
    waiting.env("CTXTUNE_TIME_SCALE", "1000");
    let mut waiting = waiting.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(waiting.stderr.as_mut().unwrap()), &mut said)
        .unwrap();
    assert!(said.contains("trying again"), "{said}");
    signal(waiting.id(), "TERM");
    let start = Instant::now();
    assert_eq!(waiting.wait().unwrap().code(), Some(143));
    assert!(start.elapsed() < PATIENCE);
    drop(lock);
    scene.step("publish", &[]).expect(0);
    scene.check_done("in the end");
}
