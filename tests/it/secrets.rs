//! The key is nowhere but in the `Authorization` of calls to its own origin, whatever a server does.

use std::fs::Permissions;
use std::path::Path;

use ctxtune_pipeline::env;
use ctxtune_rehearsal::faults::{Action, Side, When};
use ctxtune_rehearsal::{Outcome as End, Script};

use crate::service::{FILES, STORAGE, Stranger, rule};
use crate::support::{Outcome, Rehearsal, at_once};

/// In the shape of a real one.
const KEY: &str = "tgp_v1_3xAmPlE-oNlY_9f8e7d6c5b4a3210";

/// Parts of it that nothing else holds: a cut key is a key given away, too.
const PARTS: [&str; 3] = ["3xAmPlE", "oNlY_9f8e", "5b4a3210"];

const FINETUNE: [&str; 7] = ["finetune", "corpus", "-o", "out", "--no-sync", "--yes", "--timeout=50"];

/// A server that takes that key only.
fn scene() -> Rehearsal {
    let script = Script { key: KEY.to_owned(), job_seconds: 0.2, verdict_seconds: 0.0, ..Script::default() };
    let rehearsal = Rehearsal::with(script);
    rehearsal.dir.corpus(10);
    rehearsal
}

/// Runs the program with the key in its environment.
fn with_key(rehearsal: &Rehearsal, arguments: &[&str]) -> Outcome {
    let mut command = rehearsal.command(arguments);
    command.env(env::TOGETHER_API_KEY, KEY).env(env::CTXTUNE_GRACE_SECONDS, "0");
    Outcome::of(command)
}

#[track_caller]
fn check_text(text: &str, what: &str) {
    for part in PARTS {
        assert!(!text.contains(part), "{what}: {part} in {text}");
    }
}

/// Neither what was printed, nor any file, nor the storage has the key.
#[track_caller]
fn check_silent(rehearsal: &Rehearsal, run: &Outcome, what: &str) {
    check_text(&run.stdout, what);
    check_text(&run.stderr, what);
    assert!(!run.stderr.contains("panicked"), "{what}: {}", run.stderr);
    for (name, content) in rehearsal.dir.tree("") {
        check_text(&name, what);
        if Path::new(&name).file_name().is_some_and(|name| name != ".env") {
            check_text(&String::from_utf8_lossy(&content), &format!("{what}: the file {name}"));
        }
    }
    for seen in rehearsal.server.seen() {
        check_text(&seen.path, what);
        check_text(&String::from_utf8_lossy(&seen.body), what);
        let headers = seen.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        check_text(&format!("{:?}", headers.collect::<Vec<_>>()), what);
        if seen.is_storage {
            assert_eq!(seen.authorization, None, "{what}");
        }
    }
    assert_eq!(rehearsal.server.violations(), Vec::<String>::new(), "{what}");
}

#[test]
fn a_run_that_succeeds_leaves_the_key_nowhere() {
    let rehearsal = scene();
    for arguments in [
        &["submit", "out", "--dry-run"][..],
        &["submit", "out", "--dry-run", "--json"],
        &["upload", "out", "-v"],
        &["submit", "out", "--yes", "--json"],
        &["monitor", "out", "--events"],
        &["monitor", "out", "--json", "--svg=curve.svg", "-v"],
        &["monitor", "--last"],
        &["status", "out", "--json"],
        &["jobs", "-v"],
        &["files", "list", "--json"],
        &["checkpoints", "out"],
        &["download", "out", "--adapter", "-o", "got"],
        &["doctor", "out", "--json"],
        &["finetune", "corpus", "-o", "out", "--no-sync", "--yes", "--json", "-v"],
    ] {
        if arguments[0] == "submit" && !rehearsal.dir.exists("out") {
            rehearsal.dir.prepare(&[]).expect(0);
        }
        let run = with_key(&rehearsal, arguments).expect(0);
        check_silent(&rehearsal, &run, &arguments.join(" "));
    }
    assert!(rehearsal.dir.exists("state/ctxtune/jobs.jsonl") && rehearsal.dir.exists("curve.svg"));
}

#[test]
fn using_the_model_leaves_the_key_nowhere() {
    let rehearsal = scene();
    with_key(&rehearsal, &[&FINETUNE[..], &["--base-model=Qwen/Qwen3-8B"]].concat()).expect(0);
    const MODEL: &str = "--model=rehearsal/contexts";
    for arguments in [
        &["deploy", "out", "--name=contexts", "--yes", "--detach", "-v"][..],
        &["deploy", "out", "--name=contexts", "--json", "--stop-after=never"],
        &["endpoints", "--json"],
        &["status", "out"],
        &["doctor", "out"],
        &["generate", "Mia left. Noah ran.", MODEL, "--stream", "-v"],
        &["generate", "Mia left. Noah ran.", MODEL, "--json"],
        &["generate", "corpus", "-o", "gen", MODEL, "--yes", "-v"],
        &["score", "--models=Qwen/Qwen3-8B,rehearsal/contexts", "--val=out", "--yes", "--json", "-v"],
        &["endpoints", "stop", "contexts", "--json"],
    ] {
        let run = with_key(&rehearsal, arguments).expect(0);
        check_silent(&rehearsal, &run, &arguments.join(" "));
    }
    // Refusals that hold what was sent.
    let echo = format!("your key is {KEY}, and your key is {KEY}");
    let refusal = Action::Status { status: 400, headers: Vec::new(), body: echo, side: Side::Before };
    rehearsal.fail([rule("POST /v", When::Always, refusal.clone()), rule("GET /v2", When::Always, refusal)]);
    for arguments in [
        &["deploy", "out", "--name=contexts", "--yes"][..],
        &["endpoints", "--json"],
        &["endpoints", "stop", "contexts"],
        &["generate", "Mia left. Noah ran.", MODEL, "--json"],
        &["generate", "corpus", "-o", "other", MODEL, "--yes", "-v"],
    ] {
        let run = with_key(&rehearsal, arguments);
        assert_ne!(run.code, Some(0), "{arguments:?}");
        check_silent(&rehearsal, &run, &arguments.join(" "));
    }
}

/// Every request of the pipeline by its line, with no ids.
const LINES: [&str; 17] = [
    "GET /v3/whoami$",
    "GET /v1/fine-tunes/models/limits$",
    "GET /v1/fine-tunes/models/supported$",
    "GET /v1/fine-tunes$",
    "POST /v1/files$",
    "PUT /storage",
    "POST /v1/files/*/preprocess",
    "GET /v1/files/*",
    "POST /v1/fine-tunes/estimate-price$",
    "POST /v1/fine-tunes$",
    "GET /v1/fine-tunes/ft-*",
    "GET /v1/fine-tunes/*/events",
    "GET /v1/fine-tunes/*/metrics",
    "POST /v1/fine-tunes/*/cancel",
    "GET /v1/fine-tunes/*/checkpoints",
    "DELETE /v1/files/*",
    "GET /v1/finetune/download",
];

/// Commands that ask for `line`, the whole pipeline first.
fn commands(line: &str) -> Vec<&'static [&'static str]> {
    let submit: [&[&str]; 2] = [
        &["submit", "out", "--yes", "--json", "--n-epochs=2"],
        &["submit", "out", "--yes", "--json", "--base-model=nobody/knows"],
    ];
    let small: [&[&str]; 9] = [
        &["monitor", "ft-0123abcd", "--json", "--timeout=10"],
        &["status", "ft-0123abcd"],
        &["jobs", "--json"],
        &["files"],
        &["files", "delete", "file-0123abcd", "--yes", "--json"],
        &["cancel", "ft-0123abcd", "--yes", "--json"],
        &["checkpoints", "ft-0123abcd"],
        &["download", "ft-0123abcd", "--json"],
        &["doctor", "out"],
    ];
    let is_of_submission = LINES[..10].contains(&line);
    let is_of_others = LINES[10..].contains(&line)
        || ["GET /v3/whoami$", "GET /v1/fine-tunes$", "GET /v1/files/*"].contains(&line);
    let submit = submit.into_iter().filter(|_| is_of_submission);
    let small = small.into_iter().filter(|_| is_of_others);
    std::iter::once(&FINETUNE[..]).chain(submit).chain(small).collect()
}

/// Runs the pipeline, its parts and their documents into `action` at each request in turn.
fn run_into(action: &Action) {
    at_once(LINES, |line| {
        let rehearsal = scene();
        rehearsal.fail([rule(line, When::Always, action.clone())]);
        let what = format!("{line} {action:?}");
        for arguments in commands(line) {
            let run = with_key(&rehearsal, arguments);
            check_silent(&rehearsal, &run, &what);
        }
    });
    for line in ["initiate", "complete", "abort"].map(|step| format!("POST /v1/files/multipart/{step}")) {
        let rehearsal = scene();
        rehearsal.dir.prepare(&[]).expect(0);
        // What fails at the storage is aborted.
        let lost = rule(&format!("PUT {STORAGE}"), When::Always, Action::Reset(Side::Before));
        let is_abort = line.ends_with("abort");
        let rules = [rule(&line, When::Always, action.clone())].into_iter().chain(is_abort.then_some(lost));
        rehearsal.fail(rules);
        let mut command = rehearsal.command(["upload", "out", "--json"]);
        command.env(env::TOGETHER_API_KEY, KEY).env(env::CTXTUNE_MULTIPART_THRESHOLD, "1");
        check_silent(&rehearsal, &Outcome::of(command), &format!("{line} {action:?}"));
        assert!(!rehearsal.requests(&line).is_empty(), "{line}");
    }
}

#[test]
fn a_server_that_echoes_the_key_is_not_repeated() {
    run_into(&Action::EchoKey);
}

#[test]
fn a_page_that_echoes_the_key_is_not_repeated() {
    // In a body that is no JSON, in JSON of no known shape, and cut in the middle.
    let page = format!("<html><title>Bearer {KEY}</title><body>{KEY}</body></html>");
    run_into(&Action::Status { status: 403, headers: Vec::new(), body: page, side: Side::Before });
    let json = format!(r#"{{"weird": ["{KEY}"], "more": "{}"}}"#, KEY.repeat(200));
    run_into(&Action::Body(json));
}

#[test]
fn a_redirect_of_the_api_is_not_followed() {
    let stranger = Stranger::new();
    for line in LINES.iter().filter(|line| !line.starts_with("PUT")) {
        let rehearsal = scene();
        rehearsal.fail([rule(line, When::Always, Action::Redirect(format!("{}{{path}}", stranger.url)))]);
        let run = with_key(&rehearsal, &FINETUNE);
        check_silent(&rehearsal, &run, line);
        assert_eq!(stranger.heard(), "", "{line}");
    }
}

#[test]
fn an_upload_that_leads_elsewhere_goes_without_the_key() {
    let stranger = Stranger::new();
    let rehearsal = scene();
    let put =
        rule(&format!("PUT {STORAGE}"), When::Always, Action::Redirect(format!("{}/kept", stranger.url)));
    rehearsal.fail([put]);
    let run = with_key(&rehearsal, &FINETUNE);
    check_silent(&rehearsal, &run, "the PUT");
    // The hand-off itself names the other place.
    let headers = vec![
        ("Location".to_owned(), format!("{}/signed?secret=1", stranger.url)),
        ("X-Together-File-Id".to_owned(), "file-1".to_owned()),
    ];
    let announced = Action::Status { status: 302, headers, body: String::new(), side: Side::Before };
    rehearsal.fail([rule(&format!("POST {FILES}"), When::Always, announced)]);
    let run = with_key(&rehearsal, &FINETUNE);
    check_silent(&rehearsal, &run, "the hand-off");
    let heard = stranger.heard();
    assert!(heard.contains("PUT /kept ") && heard.contains("PUT /signed?secret=1 "), "{heard}");
    assert!(heard.contains("{\"messages\":"), "the body went along");
    check_text(&heard, "the stranger");
    assert!(!heard.to_ascii_lowercase().contains("authorization"), "{heard}");
}

#[test]
fn words_of_events_and_jobs_that_hold_the_key_are_redacted() {
    let script = Script {
        key: KEY.to_owned(),
        job_seconds: 0.2,
        verdict_seconds: 0.0,
        outcome: End::Error,
        ..Script::default()
    };
    let rehearsal = Rehearsal::with(script);
    rehearsal.dir.corpus(10);
    let events = format!(
        r#"{{"data":[{{"type":"JOB_ERROR","level":"Error","message":"token {KEY} \u001b[31mrefused","created_at":"2026-11-24T00:00:00Z","step":0}}]}}"#
    );
    rehearsal.fail([rule("GET /v1/fine-tunes/*/events", When::Always, Action::Body(events))]);
    let run = with_key(&rehearsal, &FINETUNE).expect(6);
    check_silent(&rehearsal, &run, "finetune");
    for arguments in
        [&["monitor", "out", "--events"][..], &["monitor", "out", "--json"], &["submit", "out", "--yes"]]
    {
        let run = with_key(&rehearsal, arguments).expect(6);
        check_silent(&rehearsal, &run, &arguments.join(" "));
        assert!(!run.stdout.contains('\u{1b}') && !run.stderr.contains('\u{1b}'));
    }
}

#[test]
fn a_missing_key_is_named_before_anything_is_done() {
    let rehearsal = scene();
    rehearsal.dir.prepare(&[]).expect(0);
    for arguments in [
        &["upload", "out"][..],
        &["submit", "out", "--yes"],
        &["monitor", "ft-0123abcd"],
        &["finetune", "corpus", "-o", "fresh", "--yes"],
    ] {
        let mut command = rehearsal.command(arguments);
        command.env_remove(env::TOGETHER_API_KEY);
        let run = Outcome::of(command).expect(4);
        let (error, hint) = run.stderr.split_once("hint:").unwrap();
        assert!(error.contains("error: TOGETHER_API_KEY environment variable not set\n"), "{}", run.stderr);
        assert!(hint.contains(".env"), "{}", run.stderr);
    }
    assert!(!rehearsal.dir.exists("fresh"));
    assert_eq!(rehearsal.server.seen(), []);
}

#[test]
fn a_key_that_is_refused_is_not_shown() {
    let rehearsal = scene();
    rehearsal.dir.prepare(&[]).expect(0);
    let wrong = "tgp_v1_wrong-0123456789";
    let mut command = rehearsal.command(["submit", "out", "--yes"]);
    command.env(env::TOGETHER_API_KEY, wrong);
    let run = Outcome::of(command).expect(4);
    assert!(run.stderr.contains("TOGETHER_API_KEY") && !run.stderr.contains(wrong), "{}", run.stderr);
    assert_eq!(rehearsal.server.seen().len(), 1, "a refused key is not tried again");
}

fn without_key(rehearsal: &Rehearsal, arguments: &[&str]) -> Outcome {
    let mut command = rehearsal.command(arguments);
    command.env_remove(env::TOGETHER_API_KEY);
    Outcome::of(command)
}

#[cfg(unix)]
fn write_env(rehearsal: &Rehearsal, name: &str, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let path = rehearsal.dir.write(name, text);
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_key_in_dotenv_is_used_and_the_environment_wins() {
    let rehearsal = scene();
    rehearsal.dir.prepare(&[]).expect(0);
    write_env(&rehearsal, ".env", &format!("# mine\nexport TOGETHER_API_KEY='{KEY}'\n"), 0o600);
    let run = without_key(&rehearsal, &["submit", "out", "--yes"]).expect(0);
    assert!(!run.stderr.contains("others can read"), "{}", run.stderr);
    check_silent(&rehearsal, &run, ".env");
    write_env(&rehearsal, ".env", "TOGETHER_API_KEY=another\n", 0o600);
    without_key(&rehearsal, &["monitor", "out"]).expect(4);
    with_key(&rehearsal, &["monitor", "out"]).expect(0);
    // An empty variable is none.
    write_env(&rehearsal, ".env", &format!("TOGETHER_API_KEY={KEY}\n"), 0o600);
    let mut empty = rehearsal.command(["monitor", "out"]);
    empty.env(env::TOGETHER_API_KEY, "");
    Outcome::of(empty).expect(0);
    // Also beside the configuration file.
    std::fs::remove_file(rehearsal.dir.path(".env")).unwrap();
    write_env(&rehearsal, "training/.env", &format!("TOGETHER_API_KEY={KEY}\n"), 0o600);
    rehearsal.dir.write("training/finetune_config.yaml", "n_epochs: 3\n");
    without_key(&rehearsal, &["monitor", "out"]).expect(4);
    let config = "--config-path=training/finetune_config.yaml";
    let run = without_key(&rehearsal, &["submit", "out", "--yes", config]).expect(0);
    check_silent(&rehearsal, &run, "training/.env");
}

#[test]
fn a_url_in_dotenv_does_not_get_the_key_of_the_environment() {
    let rehearsal = scene();
    rehearsal.dir.prepare(&[]).expect(0);
    let url = "TOGETHER_BASE_URL=https://elsewhere.invalid\n";
    write_env(&rehearsal, ".env", url, 0o600);
    let run = |key: bool| {
        let mut command = rehearsal.command(["jobs", "--json"]);
        command.env_remove(env::TOGETHER_BASE_URL);
        if !key {
            command.env_remove(env::TOGETHER_API_KEY);
        }
        Outcome::of(command)
    };
    let refused = run(true).expect(2);
    assert_eq!(refused.json()["error"]["code"], "base_url");
    assert!(refused.stderr.contains("elsewhere.invalid"), "{}", refused.stderr);
    // A key of the same file may go where the file says: what is refused then is the setting of this test.
    write_env(&rehearsal, ".env", &format!("{url}TOGETHER_API_KEY={KEY}\n"), 0o600);
    assert_eq!(run(false).expect(2).json()["error"]["code"], "test_setting");
}

#[cfg(unix)]
#[test]
fn a_dotenv_that_others_can_read_is_warned_about() {
    let rehearsal = scene();
    rehearsal.dir.prepare(&[]).expect(0);
    for mode in [0o644, 0o640, 0o604] {
        write_env(&rehearsal, ".env", &format!("TOGETHER_API_KEY={KEY}\n"), mode);
        let run = without_key(&rehearsal, &["submit", "out", "--yes"]).expect(0);
        assert!(run.stderr.contains("chmod 600 .env"), "{mode:o}: {}", run.stderr);
        check_silent(&rehearsal, &run, "a readable .env");
    }
}

#[cfg(unix)]
#[test]
fn a_line_of_dotenv_that_cannot_be_read_is_never_shown() {
    let rehearsal = scene();
    rehearsal.dir.prepare(&[]).expect(0);
    for (text, exit) in [
        (format!("TOGETHER_API_KEY {KEY}\n"), 2),
        (format!("{KEY}\n"), 4),
        (format!("{KEY} {KEY}\n"), 4),
        (format!("TOGETHER_API_KEY=\"{KEY}\n"), 2),
        (format!("TOGETHER_API_KEY={KEY} and more\n"), 4),
        (format!("A=${{{KEY}\nB={KEY}'\n"), 4),
        (format!("\u{1b}]0;{KEY}\u{7}\n"), 4),
    ] {
        write_env(&rehearsal, ".env", &text, 0o600);
        let run = without_key(&rehearsal, &["submit", "out", "--yes", "-v", "--json"]);
        assert_eq!(run.code, Some(exit), "{text:?}: {}", run.stderr);
        check_silent(&rehearsal, &run, &text.escape_debug().to_string());
        assert!(!run.stderr.contains('\u{1b}'), "{}", run.stderr);
    }
    let bytes = [b"TOGETHER_API_KEY=\xff\xfe".as_slice(), KEY.as_bytes()].concat();
    std::fs::write(rehearsal.dir.path(".env"), bytes).unwrap();
    let run = without_key(&rehearsal, &["submit", "out", "--yes"]).expect(2);
    check_silent(&rehearsal, &run, "not UTF-8");
}

#[test]
fn a_key_that_no_header_can_carry_is_an_error_that_does_not_show_it() {
    let rehearsal = scene();
    rehearsal.dir.prepare(&[]).expect(0);
    let mut command = rehearsal.command(["submit", "out", "--yes", "--json"]);
    command.env(env::TOGETHER_API_KEY, format!("{KEY}\n\u{7f}{KEY}"));
    let run = Outcome::of(command);
    assert!(run.code != Some(0));
    check_silent(&rehearsal, &run, "a broken key");
    // White space around it is no part of it.
    let mut command = rehearsal.command(["submit", "out", "--yes", "--json"]);
    command.env(env::TOGETHER_API_KEY, format!(" {KEY}\n"));
    Outcome::of(command).expect(0);
}

#[test]
fn a_key_that_an_editor_has_changed_stops_the_command_before_it_asks_anybody() {
    let rehearsal = scene();
    rehearsal.dir.prepare(&[]).expect(0);
    let other = ["generate", "--base-url", rehearsal.server.url(), "--model", "m", "Mia left."];
    let cases: [(&str, &[&str]); 4] = [
        (env::TOGETHER_API_KEY, &["submit", "out", "--yes"]),
        (env::TOGETHER_API_KEY, &["finetune", "corpus", "-o", "fresh", "--yes"]),
        (env::WANDB_API_KEY, &["submit", "out", "--yes"]),
        (env::OPENAI_API_KEY, &other),
    ];
    for (name, arguments) in cases {
        for (key, code) in [
            (format!("\u{201c}{KEY}\u{201d}"), "U+201C"),
            (format!("{KEY}\u{200b}"), "U+200B"),
            (format!("\u{feff}{KEY}"), "U+FEFF"),
            (format!("{KEY}\n{KEY}"), "U+000A"),
        ] {
            let mut command = rehearsal.command(arguments.iter().chain(&["--json"]));
            command.env(env::TOGETHER_API_KEY, KEY).env(name, key);
            let run = Outcome::of(command).expect(4);
            assert_eq!(run.json()["error"]["code"], "bad_key", "{}", run.stderr);
            assert!(run.stderr.contains(name) && run.stderr.contains(code), "{}", run.stderr);
            check_silent(&rehearsal, &run, name);
        }
    }
    assert!(rehearsal.server.seen().is_empty());
    // So does one that stands in a netrc, which is for a host.
    rehearsal.dir.write(".netrc", format!("machine api.wandb.ai password \u{201c}{KEY}\u{201d}"));
    let mut command = rehearsal.command(["submit", "out", "--yes"]);
    command.env(env::TOGETHER_API_KEY, KEY).env(env::NETRC, rehearsal.dir.path(".netrc"));
    let run = Outcome::of(command).expect(4);
    assert!(run.stderr.contains("api.wandb.ai") && run.stderr.contains(".netrc"), "{}", run.stderr);
    check_text(&run.stderr, "netrc");
    // Whoever does not log needs no such key.
    let mut command = rehearsal.command(["submit", "out", "--yes", "--wandb", "off"]);
    command.env(env::TOGETHER_API_KEY, KEY).env(env::WANDB_API_KEY, "“x”");
    Outcome::of(command).expect(0);
}

#[test]
fn after_tg_login_the_hint_says_that_a_key_is_needed() {
    let rehearsal = scene();
    rehearsal.dir.write("credentials.json", "{}");
    let run = |arguments: &[&str]| {
        let mut command = rehearsal.command(arguments);
        command.env_remove(env::TOGETHER_API_KEY).env(env::TOGETHER_CREDENTIALS_PATH, "credentials.json");
        Outcome::of(command).expect(4)
    };
    for arguments in [&["jobs"][..], &["submit", "out", "--yes"], &["doctor"]] {
        rehearsal.dir.prepare(&[]).expect(0);
        let run = run(arguments);
        assert!(
            run.stderr.contains("`tg login` left OAuth credentials in `credentials.json`"),
            "{}",
            run.stderr
        );
    }
    std::fs::remove_file(rehearsal.dir.path("credentials.json")).unwrap();
    assert!(!run(&["jobs"]).stderr.contains("tg login"));
}

#[test]
fn a_key_goes_nowhere_without_tls_but_to_this_machine() {
    let rehearsal = scene();
    rehearsal.dir.prepare(&[]).expect(0);
    for url in
        ["http://192.0.2.1", "http://example.test/v1", "https://user:secret@example.test", "ftp://127.0.0.1"]
    {
        let run = with_key(&rehearsal, &["submit", "out", "--yes", "--base-url", url]).expect(2);
        assert!(!run.stderr.contains("secret"), "{}", run.stderr);
        check_silent(&rehearsal, &run, url);
    }
}

#[test]
fn further_headers_go_to_the_api_only_and_may_not_replace_the_key() {
    let rehearsal = scene();
    rehearsal.dir.prepare(&[]).expect(0);
    let mut command = rehearsal.command(["submit", "out", "--yes"]);
    command.env(env::TOGETHER_API_KEY, KEY);
    command.env(
        env::TOGETHER_CUSTOM_HEADERS,
        "X-Team: 7\nAuthorization: Bearer other\nHost: example.test\nnonsense",
    );
    Outcome::of(command).expect(0);
    for seen in rehearsal.server.seen() {
        let has_team =
            seen.headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("x-team") && value == "7");
        assert_eq!(has_team, !seen.is_storage, "{}", seen.path);
    }
}
