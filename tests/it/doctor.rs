//! What `doctor` finds: each fault with its line, its exit code and what to do.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::{Outcome, Rehearsal};

/// Runs `doctor` with `flags` in an environment with these changes; an empty value takes a variable away.
#[track_caller]
fn doctor(rehearsal: &Rehearsal, flags: &[&str], variables: &[(&str, &str)], exit: i32) -> Outcome {
    let mut command = rehearsal.command([&["doctor", "--json"], flags].concat());
    for (name, value) in variables {
        match *value {
            "" => command.env_remove(name),
            value => command.env(name, value),
        };
    }
    Outcome::of(command).expect(exit)
}

/// The check of this name, with its level at the front of what was said and what to do.
#[track_caller]
fn check(run: &Outcome, name: &str, level: &str, said: &str) {
    let document = run.json();
    let checks = document["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    let text = format!("{} {}", check["said"].as_str().unwrap(), check["hint"].as_str().unwrap_or_default());
    assert!(check["level"] == level && text.contains(said), "{name} is not {level} with {said}: {check}");
    assert!(level == "ok" || level == "off" || check["hint"].is_string(), "what to do? {check}");
}

#[test]
fn a_healthy_set_up_has_a_line_a_check_and_changes_nothing() {
    let rehearsal = Rehearsal::new();
    let run = rehearsal.ctxtune(["doctor"]).expect(0);
    assert_eq!(run.stdout, "");
    let names: Vec<&str> = run.stderr.lines().map(|line| line[6..18].trim_end()).collect();
    let expected = [
        "base_url",
        "proxy",
        "certificates",
        "key",
        "account",
        "clock",
        "config",
        "model",
        "deployment",
        "values",
        "endpoints",
        "output",
        "data",
        "wandb",
        "state",
    ];
    assert_eq!(names, expected, "{}", run.stderr);
    assert!(run.stderr.contains("warn  data          not prepared yet -> ctxtune prepare"), "{}", run.stderr);
    assert!(!rehearsal.dir.exists("training") && !rehearsal.dir.exists("state"));
    assert!(rehearsal.server.seen().iter().all(|seen| seen.method == "GET"));
    assert_eq!(rehearsal.ctxtune(["doctor", "-q"]).expect(0).stderr, "");
}

#[test]
fn the_document_of_a_doctor_is_pinned() {
    let rehearsal = Rehearsal::new();
    let run = doctor(&rehearsal, &[], &[], 0);
    let fields = |hint: &str| json!({ "checks": [{ "name": "string", "level": "string", "said": "string", "hint": hint }] });
    run.document("doctor", fields("null"));
    let run = doctor(&rehearsal, &["--base-url=http://example.com"], &[], 2);
    assert_eq!(run.document("doctor", fields("string"))["error"]["code"], "checks_failed");
}

#[test]
fn a_prepared_directory_is_looked_at() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(10).prepare(&[]).expect(0);
    let before = rehearsal.dir.tree("out");
    let run = doctor(&rehearsal, &["out"], &[], 0);
    check(&run, "output", "ok", "`out` can be written to");
    check(&run, "data", "ok", "9 training + 1 validation examples");
    assert_eq!(rehearsal.dir.tree("out"), before);
    rehearsal.dir.write("out/manifest.json", "{}");
    check(&doctor(&rehearsal, &["out"], &[], 0), "data", "warn", "prepare the directory again");
}

#[test]
fn the_key_is_judged_and_never_shown() {
    let rehearsal = Rehearsal::new();
    let run = doctor(&rehearsal, &[], &[("TOGETHER_API_KEY", "")], 4);
    check(&run, "key", "fail", "export TOGETHER_API_KEY");
    check(&run, "account", "off", "cannot be asked");
    check(&run, "model", "off", "cannot be asked");
    assert!(rehearsal.server.seen().is_empty());

    let run = doctor(&rehearsal, &[], &[("TOGETHER_API_KEY", "'tgp-secret'")], 4);
    check(&run, "key", "warn", "quotation marks");
    check(&run, "account", "fail", "check TOGETHER_API_KEY");
    assert!(!format!("{}{}", run.stdout, run.stderr).contains("tgp-secret"), "{}", run.stderr);

    let run =
        doctor(&rehearsal, &[], &[("TOGETHER_API_KEY", "“tgp-secret”"), ("WANDB_API_KEY", "w\u{200b}")], 4);
    check(&run, "key", "fail", "U+201C");
    check(&run, "wandb", "fail", "U+200B");
    check(&run, "account", "off", "cannot be asked");
    assert!(!format!("{}{}", run.stdout, run.stderr).contains("tgp-secret"), "{}", run.stderr);

    rehearsal.dir.write(".env", "TOGETHER_API_KEY=rehearsal-key\n");
    let run = doctor(&rehearsal, &[], &[("TOGETHER_API_KEY", "")], 0);
    check(&run, "key", "ok", "`.env`");
    check(&run, "account", "ok", "project Rehearsal, organization Rehearsal");
    assert!(!format!("{}{}", run.stdout, run.stderr).contains("rehearsal-key"), "{}", run.stderr);
}

#[test]
fn the_network_and_the_way_to_it_are_judged() {
    let rehearsal = Rehearsal::new();
    check(&doctor(&rehearsal, &[], &[], 0), "base_url", "ok", "TOGETHER_BASE_URL of the environment");
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let run = doctor(&rehearsal, &["--base-url", &closed], &[], 5);
    check(&run, "base_url", "ok", "--base-url");
    check(&run, "account", "fail", "check the network");
    check(&run, "clock", "off", "told no time");

    let run = doctor(&rehearsal, &[], &[("HTTPS_PROXY", "http://me:hush@proxy.example:3128")], 0);
    check(
        &run,
        "proxy",
        "ok",
        "http://proxy.example:3128 (HTTPS_PROXY), which the base URL is asked without",
    );
    assert!(!run.stdout.contains("hush"), "{}", run.stdout);
    let run = doctor(&rehearsal, &[], &[("HTTPS_PROXY", "socks5://proxy.example:1080")], 2);
    check(&run, "proxy", "fail", "HTTPS_PROXY");
    check(&run, "account", "off", "cannot be asked");
}

#[test]
fn a_bundle_of_certificates_must_be_one() {
    let rehearsal = Rehearsal::new();
    let bundle = |path: &str, exit| doctor(&rehearsal, &[], &[("SSL_CERT_FILE", path)], exit);
    check(&bundle("nowhere.pem", 5), "certificates", "fail", "cannot read `nowhere.pem`");
    rehearsal.dir.write("empty.pem", "");
    check(&bundle("empty.pem", 5), "certificates", "fail", "no certificate");
    rehearsal.dir.write("good.pem", "-----BEGIN CERTIFICATE-----\n");
    check(&bundle("good.pem", 0), "certificates", "ok", "`good.pem`");
    rehearsal.dir.write(".env", "SSL_CERT_FILE=good.pem\n");
    check(&doctor(&rehearsal, &[], &[], 0), "certificates", "warn", "export SSL_CERT_FILE=good.pem");
}

#[test]
fn clocks_that_differ_are_noticed() {
    let rehearsal = Rehearsal::new();
    check(&doctor(&rehearsal, &[], &[], 0), "clock", "ok", "as the service's");
    rehearsal.forward(3600.0);
    check(&doctor(&rehearsal, &[], &[], 0), "clock", "warn", "behind the service's");
}

#[test]
fn values_over_a_limit_and_unknown_models_are_named() {
    let rehearsal = Rehearsal::new();
    let run = doctor(&rehearsal, &["--lora_rank=128", "--n-epochs=99"], &[], 2);
    check(&run, "values", "fail", "`lora_rank` must be between 1 and 64, got 128 (chosen by flag)");
    check(&run, "values", "fail", "`n_epochs` must be between 1 and 20, got 99");
    check(&run, "model", "ok", "tunable twin of meta-llama/Meta-Llama-3.1-8B-Instruct)");
    check(&run, "deployment", "warn", "only downloaded");
    let run = doctor(&rehearsal, &["--base-model=Qwen/Qwen3-8b"], &[], 2);
    check(&run, "model", "fail", "Qwen/Qwen3-8B");
    check(&run, "values", "off", "not known");
    let run = doctor(
        &rehearsal,
        &["--base-model=Qwen/Qwen3-8B", "--learning-rate=1e-4", "--lora-alpha=128"],
        &[],
        0,
    );
    check(&run, "deployment", "ok", "nothing");
    check(&run, "values", "ok", "within the model's limits");
}

#[test]
fn the_configuration_file_is_the_one_that_is_named() {
    let rehearsal = Rehearsal::new();
    let run = doctor(&rehearsal, &[], &[], 0);
    check(&run, "config", "ok", "no file");
    rehearsal.dir.write("training/finetune_config.yaml", "lora_rank: 128\noutput_dir: elsewhere\n");
    let run = doctor(&rehearsal, &[], &[], 0);
    check(&run, "config", "warn", "--config-path=training/finetune_config.yaml");
    let run = doctor(&rehearsal, &["--config-path=training/finetune_config.yaml"], &[], 2);
    check(&run, "values", "fail", "chosen by file");
    check(&run, "output", "ok", "`elsewhere`");
    rehearsal.dir.write("bad.yaml", "lora_rnak: 128\n");
    let run = doctor(&rehearsal, &["--config=bad.yaml"], &[], 2);
    check(&run, "config", "fail", "did you mean `lora_rank`?");
    check(&run, "model", "off", "configuration");
    check(&run, "output", "off", "configuration");
}

#[test]
fn an_output_directory_that_cannot_be_written_is_a_failure() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.write("file", "mine");
    let run = doctor(&rehearsal, &["file"], &[], 1);
    check(&run, "output", "fail", "`file` is no directory");
    // A missing key is worse.
    doctor(&rehearsal, &["file"], &[("TOGETHER_API_KEY", "")], 4);
    doctor(&rehearsal, &["file", "--lora-rank=128"], &[], 2);
    if cfg!(target_os = "linux") {
        check(&doctor(&rehearsal, &["/proc"], &[], 1), "output", "fail", "cannot write to `/proc`");
    }
}

#[test]
fn a_key_of_wandb_is_found_where_wandb_leaves_it() {
    let rehearsal = Rehearsal::new();
    let none = doctor(&rehearsal, &[], &[], 0);
    check(&none, "wandb", "off", "no key for https://api.forge.coreweave.com (the default)");
    check(&none, "wandb", "off", "export WANDB_API_KEY");
    let netrc = rehearsal.dir.write("netrc", "machine api.wandb.ai\n  login user\n  password hush-hush\n");
    let netrc = netrc.to_str().unwrap();
    let found = |variables: &[(&str, &str)], said: &str| {
        let run = doctor(&rehearsal, &[], variables, 0);
        check(&run, "wandb", "ok", said);
        assert!(!format!("{}{}", run.stdout, run.stderr).contains("hush-hush"), "{}", run.stderr);
    };
    found(&[("NETRC", netrc)], &format!("machine api.wandb.ai of `{netrc}`"));
    found(&[("NETRC", netrc)], "https://api.forge.coreweave.com (the default)");
    let old = ("WANDB_BASE_URL", "https://api.wandb.ai");
    found(&[("NETRC", netrc), old], "https://api.wandb.ai (WANDB_BASE_URL of the environment)");
    rehearsal.dir.write("forge", "machine api.forge.coreweave.com\n  login user\n  password hush-hush\n");
    let forge = rehearsal.dir.path("forge");
    found(&[("NETRC", forge.to_str().unwrap()), old], "machine api.forge.coreweave.com");
    rehearsal.dir.write("home/.netrc", "default login user password hush-hush");
    found(&[("HOME", rehearsal.dir.path("home").to_str().unwrap())], ".netrc");
    rehearsal.dir.write(".env", "WANDB_API_KEY=hush-hush\n");
    found(&[("NETRC", netrc)], "`.env` (WANDB_API_KEY)");
    found(&[("WANDB_API_KEY", "hush-hush")], "the environment (WANDB_API_KEY)");
    for (name, value) in [("WANDB_DISABLED", "true"), ("WANDB_MODE", "disabled")] {
        check(&doctor(&rehearsal, &[], &[(name, value)], 0), "wandb", "off", name);
    }
    let page = ("WANDB_BASE_URL", "https://forge.coreweave.com/wandb");
    check(&doctor(&rehearsal, &[], &[page], 0), "wandb", "warn", "is not the API");
}

#[test]
fn a_state_directory_is_looked_at_and_not_made() {
    let rehearsal = Rehearsal::new();
    check(&doctor(&rehearsal, &[], &[], 0), "state", "ok", "made with the first job");
    check(&doctor(&rehearsal, &[], &[("XDG_STATE_HOME", "")], 0), "state", "warn", "set XDG_STATE_HOME");
    rehearsal.dir.write("state/ctxtune", "in the way");
    let run = doctor(&rehearsal, &[], &[], 0);
    check(&run, "state", "warn", "cannot write");
    let checks: Vec<Value> = run.json()["checks"].as_array().unwrap().clone();
    assert_eq!(checks.len(), 15);
}
