//! `ctxtune report` and the pages that other commands leave: what is on them, and what never is.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Dir, Outcome, Rehearsal, python, record, repository, shared_data, skip};
use crate::sweep::{quick, sweep};

/// What would leave its place if anything forgot to escape it, also within a script.
const HOSTILE: &str = "</script></title><img src=x onerror=alert(document.domain)> \"' & <b>";

/// The most that a page may have.
const MOST_BYTES: usize = 1_000_000;

/// Where the browser's pictures of both pages stay: to be seen by whoever changes the page.
const SHOTS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/report");

const FINETUNE: [&str; 6] = ["finetune", "corpus", "-o", "out", "--no-sync", "--yes"];

/// The page at `name`; nothing in it can be markup of a record, name this machine's directories, or reach elsewhere.
#[track_caller]
fn page(dir: &Dir, name: &str) -> String {
    let page = dir.read(name);
    assert!(page.starts_with("<!doctype html>\n<!-- ctxtune report"), "{name}");
    assert!(page.len() < MOST_BYTES, "{name} has {} bytes", page.len());
    for root in [dir.path(""), std::fs::canonicalize(dir.path("")).unwrap()] {
        assert!(!page.contains(root.to_str().unwrap().trim_end_matches('/')), "{name} names its directory");
    }
    let without_namespace = page.replace("http://www.w3.org/2000/svg", "");
    for markup in ["<img", "<b>", "<i>", " src=\"", "href=\"http", "url(", " style=\""] {
        assert!(!without_namespace.contains(markup), "{name} holds {markup}");
    }
    assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (1, 1), "{name}");
    page
}

#[track_caller]
fn expect_all(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "{text} is missing");
    }
}

/// A corpus with a hostile record, two rejects of one code, and two samples of the same bytes.
fn hostile() -> Dir {
    let dir = Dir::new();
    dir.corpus(12);
    let mut hostile = record(90);
    hostile["story"] = json!(format!("Mia said {HOSTILE}."));
    hostile["socialized_context"]["socialized_context"][0]["state"] = json!(HOSTILE);
    dir.write("corpus/hostile <i>.json", hostile.to_string());
    dir.write("corpus/again.json", record(3).to_string());
    for name in ["bad1", "bad2"] {
        dir.write(format!("corpus/{name}.json"), json!({ "story": "x" }).to_string());
    }
    dir.prepare(&["--max-rejects=9", "--val-ratio=0.3"]).expect(0);
    dir
}

#[test]
fn a_page_of_data_shows_all_of_it_and_the_markup_of_no_record() {
    let dir = hostile();
    let run = dir.ctxtune(["report", "out", "-o", "data.html", "--offline"]).expect(0);
    assert_eq!(run.stdout, "data.html\n");
    let page = page(&dir, "data.html");
    expect_all(
        &page,
        &[
            "<title>Report of out</title>",
            ">Split</h3>",
            ">Leakage</h3>",
            "--group-by agents",
            ">Rejects</h3>",
            "missing_key",
            "bad1.json",
            "bad2.json",
            ">Check</h3>",
            "<td>duplicate</td>",
            ">Lengths</h3>",
            "The longest samples.",
            ">Agents and steps</h3>",
            ">Samples</h3>",
        ],
    );
    assert_eq!(page.matches("<details").count(), 10, "ten samples");
    assert_eq!(page.matches("<span class=\"trained\">{").count(), 10, "one answer each");
    assert!(page.contains("<span class=\"marker\">&lt;|begin_of_text|&gt;"), "as the model sees it");
}

#[test]
fn the_page_recomputes_the_split() {
    let Some(mut python) = python() else { return };
    let dir = Dir::new();
    dir.corpus(40).prepare(&["--seed=7"]).expect(0);
    dir.ctxtune(["report", "out", "--offline"]).expect(0);
    let page = page(&dir, "report.html");
    let code = page.split("<pre>").find(|part| part.starts_with("import hashlib")).unwrap();
    let code = code
        .split("</pre>")
        .next()
        .unwrap()
        .replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&#39;", "'");
    let out = python.arg("-c").arg(&code).current_dir(dir.path("out")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let wrong = code.replace("b\"7:\"", "b\"8:\"");
    assert_ne!(wrong, code);
    let out = Command::new(python.get_program())
        .arg("-c")
        .arg(&wrong)
        .current_dir(dir.path("out"))
        .output()
        .unwrap();
    assert!(!out.status.success(), "another seed gives another split");
}

#[test]
fn the_page_of_the_published_contexts_is_small() {
    let Some(archive) = shared_data("contexts_tomi_train_3533.tar.gz") else { return };
    let dir = Dir::new();
    let archive = archive.to_str().unwrap();
    dir.ctxtune(["prepare", archive, "-o", "out", "--no-sync", "-q"]).expect(0);
    let document = dir.ctxtune(["report", "out", "--offline", "--json"]).expect(0);
    let document = document.document(
        "report",
        json!({
            "file": "string", "bytes": "integer",
            "outs": [{ "name": "string", "samples": "integer", "jobs": [], "sweeps": [], "troubles": [] }],
        }),
    );
    assert_eq!(document["outs"][0]["samples"], 3533);
    let page = page(&dir, "report.html");
    assert_eq!(document["bytes"], page.len());
    expect_all(&page, &[">3,533</dd>", ">3,179</dd>", ">354</dd>", "73.2 %"]);
}

#[test]
fn what_is_no_report_is_never_replaced_and_what_is_no_data_is_no_page() {
    let dir = Dir::new();
    dir.corpus(10).prepare(&[]).expect(0);
    dir.write("mine.html", "<!doctype html>\n<p>mine");
    let run = dir.ctxtune(["report", "out", "-o", "mine.html", "--offline"]).expect(2);
    assert!(run.stderr.contains("hint: name another file"), "{}", run.stderr);
    assert_eq!(dir.read("mine.html"), "<!doctype html>\n<p>mine");
    let run = dir.ctxtune(["report", "corpus", "--offline"]).expect(2);
    assert!(run.stderr.contains("no prepared data") && !dir.exists("report.html"), "{}", run.stderr);
    dir.ctxtune(["report", "out", "out", "--offline"]).expect(0);
    dir.ctxtune(["report", "out", "--offline"]).expect(0);
    assert_eq!(page(&dir, "report.html").matches(">Data</h2>").count(), 1, "a report is replaced");
}

#[test]
fn finetune_leaves_a_page_with_its_curves_and_it_changes_no_exit_code() {
    let rehearsal = Rehearsal::with(quick());
    rehearsal.dir.corpus(20);
    let flags = [&FINETUNE[..], &["--learning-rate=2e-5", "--base-model=Qwen/Qwen3-8B"]].concat();
    let run = rehearsal.ctxtune(&flags).expect(0);
    let page_of_job = page(&rehearsal.dir, "out/report.html");
    let job = rehearsal.ledgers()[0]["job"].as_str().unwrap().to_owned();
    expect_all(
        &page_of_job,
        &[
            &format!("Job {job}</h2>"),
            "data-name=\"train\" data-colour=",
            "data-name=\"validation\"",
            "data-up=\"learning rate\"",
            "<td>learning_rate</td>\n<td>2e-5</td>\n<td>flag</td>",
            "<td>n_epochs</td>\n<td>3</td>\n<td>default</td>",
            "From the job&#39;s ledger",
            ">billed</dt>",
            ">estimated</dt>",
            ">duration</dt>",
            "best validation loss",
            "Use the model",
            "The limit of ",
            run.stdout.trim_end(),
        ],
    );
    assert!(rehearsal.dir.result("out", &[]).is_some(), "the data is as the manifest says");
    let manifest = rehearsal.dir.manifest();
    assert!(manifest["files"].get("report.html").is_none(), "{manifest}");
    // With a key the service is asked, else the ledger is read.
    rehearsal.ctxtune(["report", "out"]).expect(0);
    expect_all(&page(&rehearsal.dir, "report.html"), &["As the service said at", "data-name=\"train\""]);
    rehearsal.ctxtune(["report", "out", "--offline"]).expect(0);
    expect_all(&page(&rehearsal.dir, "report.html"), &["From the job&#39;s ledger", "data-name=\"train\""]);
    // A file of somebody else's is left alone, for one warning.
    rehearsal.dir.write("out/report.html", "mine");
    let run = rehearsal.ctxtune(&flags).expect(0);
    assert_eq!(run.stderr.matches("warning: cannot write `out/report.html`").count(), 1, "{}", run.stderr);
    assert_eq!(rehearsal.dir.read("out/report.html"), "mine");
    std::fs::remove_file(rehearsal.dir.path("out/report.html")).unwrap();
    rehearsal.ctxtune(flags.iter().chain(&["--no-report"])).expect(0);
    assert!(!rehearsal.dir.exists("out/report.html"));
}

#[test]
fn without_an_answer_of_the_service_the_page_has_what_was_seen_before() {
    let rehearsal = Rehearsal::with(quick());
    rehearsal.dir.corpus(20);
    rehearsal.ctxtune(FINETUNE).expect(0);
    let mut command = rehearsal.command(["report", "out"]);
    command.env("TOGETHER_API_KEY", "another-key");
    let run = Outcome::of(command).expect(0);
    assert!(run.stderr.contains("warning: the service did not answer about"), "{}", run.stderr);
    let page = page(&rehearsal.dir, "report.html");
    expect_all(&page, &["Not in this report: the service did not answer", "data-name=\"train\""]);
    assert!(!page.contains("another-key"));
}

/// A sweep over two parameters, whose page is in `out`.
fn swept() -> Rehearsal {
    let rehearsal = Rehearsal::with(quick());
    rehearsal.dir.corpus(10);
    let file = "method: grid\nname: a <i> sweep\nmetric: {name: val/loss, goal: minimize}\nparameters:\n  learning_rate: {values: [1e-6, 5e-5]}\n  lora_rank: {values: [8, 32]}\n";
    rehearsal.dir.write("sweep.yaml", file);
    Outcome::of(sweep(&rehearsal, &["--yes"])).expect(0);
    rehearsal
}

#[test]
fn a_sweep_leaves_a_page_with_its_ranking_and_its_curves() {
    let rehearsal = swept();
    let page = page(&rehearsal.dir, "out/report.html");
    expect_all(
        &page,
        &[
            "Sweep a &lt;i&gt; sweep</h2>",
            "<tr class=\"best\">",
            "aria-label=\"The runs over one another\"",
            "aria-label=\"learning_rate against val/loss\"",
            "aria-label=\"lora_rank against val/loss\"",
            "data-name=\"4 learning_rate=5e-5  lora_rank=32\"",
        ],
    );
    let ranks: Vec<&str> =
        page.split("<td class=\"num\">").skip(1).filter_map(|cell| cell.split('<').next()).collect();
    assert!(["1", "2", "3", "4"].iter().all(|rank| ranks.contains(rank)), "{ranks:?}");
    assert!(!page.contains(">Job ft-"), "its jobs are rows of its table");
}

#[test]
fn a_score_leaves_a_page_with_the_worst_beside_their_references() {
    let dir = Dir::new();
    for number in 0..6 {
        let mut gold = record(number);
        let agent = format!("Agent{}", number % 5);
        let step = &mut gold["socialized_context"]["socialized_context"][0];
        step["observations"][&agent] = json!(format!("the box {HOSTILE} is red"));
        dir.write(format!("gold/{number}.json"), gold.to_string());
        dir.write(format!("tuned/{number}.json"), gold.to_string());
        let answer = if number == 0 { json!({ "x": 1 }) } else { record(number) };
        dir.write(format!("base/{number}.json"), answer.to_string());
    }
    let gold = dir.path("gold");
    let score = |page: &str| {
        dir.ctxtune(["score", gold.to_str().unwrap(), "base", "tuned", "--report", page, "--resamples=50"])
    };
    score("score.html").expect(0);
    let page = page(&dir, "score.html");
    expect_all(
        &page,
        &[
            ">Scores</h2>",
            "aria-label=\"Scores with their intervals\"",
            "B - A, its 95 % interval",
            "The worst answers of A",
            "invalid: missing_key",
            "<del>the box &lt;/script&gt;",
            "<ins>none</ins>",
        ],
    );
    assert!(!page.contains("The worst answers of B"), "they are perfect");
    dir.write("mine.html", "mine");
    let run = score("mine.html").expect(0);
    assert!(run.stderr.contains("warning: cannot write `mine.html`"), "{}", run.stderr);
    assert_eq!(dir.read("mine.html"), "mine");
}

/// A browser, and a Python that drives it.
fn browser() -> Option<Command> {
    let is_there =
        |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
    let browser = ["chromium", "google-chrome"].into_iter().find(is_there);
    let mut python = python()?;
    let has_driver = Command::new(python.get_program()).args(["-c", "import playwright"]).output();
    if !has_driver.is_ok_and(|out| out.status.success()) {
        skip("chromium", "Python has no `playwright`, which drives a browser");
        return None;
    }
    let Some(browser) = browser else {
        skip("chromium", "there is no chromium");
        return None;
    };
    python.arg(repository("tests/it/report_page.py")).arg(browser);
    Some(python)
}

#[test]
fn a_browser_opens_the_pages_without_a_request_or_an_error() {
    let Some(mut python) = browser() else { return };
    let rehearsal = swept();
    let dir = &rehearsal.dir;
    // A job that is no run of the sweep, too.
    rehearsal.ctxtune(["submit", "out", "--yes", "--n-epochs=4"]).expect(0);
    rehearsal.ctxtune(["monitor", "out"]).expect(0);
    rehearsal.ctxtune(["report", "out", "-o", "job.html"]).expect(0);
    let hostile = hostile();
    hostile.ctxtune(["report", "out", "-o", "data.html", "--offline"]).expect(0);
    python.arg(dir.path("job.html")).arg(hostile.path("data.html")).arg(SHOTS);
    let out = python.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    for page in ["job", "data"] {
        assert_eq!((&said[page]["errors"], &said[page]["requests"]), (&json!([]), &json!([])), "{said}");
        // Dark where that is preferred, light elsewhere.
        assert_ne!(said[page]["dark"], said[page]["light"], "{said}");
        assert_eq!(said[page]["wide"], false, "nothing is wider than the window: {said}");
    }
    let headings = said["job"]["headings"].as_array().unwrap();
    let has = |begins: &str| headings.iter().any(|heading| heading.as_str().unwrap().starts_with(begins));
    assert!(has("Data") && has("Job ft-") && has("Sweep"), "{said}");
    assert_eq!(said["job"]["unnamed"], json!([]), "every picture and table says what it is: {said}");
    let hover = said["job"]["hover"].as_str().unwrap();
    assert!(
        hover.starts_with("step ") && hover.contains("train: ") && hover.contains("validation: "),
        "{said}"
    );
    assert_eq!(said["job"]["keys"].as_str().unwrap().lines().next(), Some("step 1"), "{said}");
    assert_eq!(said["job"]["printed"], true, "a print opens what is folded: {said}");
    assert_eq!(said["data"]["alerts"], 0, "{said}");
    assert!(
        said["data"]["text"].as_str().unwrap().contains("<img src=x onerror=alert(document.domain)>"),
        "{said}"
    );
}
