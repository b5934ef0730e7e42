//! A tuned model is used as its job's end, and the page about that, say: the Python runs, and so do the commands.

use std::process::Command;

use ctxtune_rehearsal::Script;
use serde_json::{Value, json};

use crate::check_sdk::python_with_together;
use crate::support::{Dir, Outcome, Rehearsal, program, repository};

const PAGE: &str = "docs/use-the-model.md";

/// A completed job of the seed's model, in `out`.
fn reference_job() -> (Rehearsal, String) {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    rehearsal.forward(1000.0);
    (rehearsal, job)
}

/// A completed job whose model answers as `rehearsal/contexts`, until the server ends.
fn deployed_job() -> (Rehearsal, String) {
    let (rehearsal, job) = Rehearsal::tuned(0.0);
    let deployed = rehearsal.ctxtune(["deploy", "out", "--name=contexts", "--yes", "--detach"]).expect(0);
    assert_eq!(deployed.stdout, "rehearsal/contexts\n");
    (rehearsal, job)
}

/// A server that answers for the model `contexts`, to whoever has this key.
fn vllm(key: &str) -> Rehearsal {
    let script =
        Script { key: key.to_owned(), deployed_models: vec!["contexts".to_owned()], ..Script::default() };
    Rehearsal::with(script)
}

/// The blocks of this language in the page.
fn blocks(language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(repository(PAGE)).unwrap();
    let start = format!("```{language}\n");
    let blocks = page.split(&start).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// What `script` prints, run by a Python with the client in the environment of `rehearsal`.
fn run_python(rehearsal: &Rehearsal, script: &str) -> Option<String> {
    let mut command = python_with_together()?;
    rehearsal.lend_environment(&mut command);
    command
        .current_dir(rehearsal.dir.path(""))
        .env("PYTHONPATH", rehearsal.dir.path(""))
        .args(["-c", script]);
    Some(Outcome::of(command).expect(0).stdout)
}

/// What is shown, with every command on one line.
fn unfolded(shown: &str) -> String {
    shown.replace("\\\n      ", "")
}

#[track_caller]
fn assert_context(text: &str) {
    let context: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(context["agents_names"].is_array() && context["socialized_context"].is_array(), "{context}");
}

/// The messages of every question so far.
fn asked(rehearsal: &Rehearsal) -> Vec<Value> {
    let requests = rehearsal.requests("POST /v1/chat/completions");
    let bodies = requests.iter().map(|seen| serde_json::from_slice::<Value>(&seen.body).unwrap());
    bodies.map(|body| body["messages"].clone()).collect()
}

/// A directory in which the program is `ctxtune`, and other programs are these scripts.
#[cfg(unix)]
fn programs(rehearsal: &Rehearsal, others: &[(&str, &str)]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(rehearsal.dir.path("bin")).unwrap();
    std::os::unix::fs::symlink(program(), rehearsal.dir.path("bin/ctxtune")).unwrap();
    for (name, script) in others {
        let path = rehearsal.dir.write(format!("bin/{name}"), format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

/// Runs lines of a shell that finds these programs first.
#[cfg(unix)]
fn shell(rehearsal: &Rehearsal, shell: &str, script: &str) -> Command {
    #[expect(clippy::disallowed_methods, reason = "the shell's own programs are where they are")]
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new(shell);
    rehearsal.lend_environment(&mut command);
    command.current_dir(rehearsal.dir.path("")).args(["-c", script]);
    command.env("PATH", format!("{}:{path}", rehearsal.dir.path("bin").display()));
    command
}

#[test]
fn the_python_of_the_page_calls_the_model() {
    let python = blocks("python");
    assert_eq!(python.len(), 3);
    let script = Script { deployed_models: vec!["my-project/contexts".to_owned()], ..Script::default() };
    let rehearsal = Rehearsal::with(script);
    // The published module needs LiteLLM, which takes the name as this one does.
    rehearsal.dir.write(
        "social_world_model/generation_utils.py",
        "from together import AsyncTogether\n\
         async def agenerate(model_name, template, input_values, temperature):\n    \
         provider, model = model_name.split('/', 1)\n    \
         assert provider == 'together_ai'\n    \
         messages = [{'role': 'user', 'content': template.format(**input_values)}]\n    \
         response = await AsyncTogether().chat.completions.create(model=model, messages=messages, temperature=temperature)\n    \
         return response.choices[0].message.content\n",
    );
    let server = vllm("none");
    for script in python {
        let script = script.replace("http://127.0.0.1:8000", server.server.url());
        let Some(answer) = run_python(&rehearsal, &script) else { return };
        assert_context(&answer);
    }
    assert_eq!((asked(&rehearsal).len(), server.server.seen().len()), (2, 1));
    // The first one asks with the prompt of the built-in template.
    let story = "Mia entered the lounge. Noah entered the lounge. Mia left the lounge.";
    rehearsal.ctxtune(["generate", "--model=my-project/contexts", story]).expect(0);
    let asked = asked(&rehearsal);
    assert_eq!(asked[0], asked[2]);
}

#[test]
fn the_python_at_the_end_of_a_job_asks_with_the_prompt_that_was_trained() {
    let (rehearsal, job) = Rehearsal::tuned(0.0);
    let before = rehearsal.ctxtune(["monitor", "out"]).expect(0);
    assert!(
        before.stderr.contains(&format!("\n  ctxtune deploy {job} --name contexts\n")),
        "{}",
        before.stderr
    );
    assert!(before.stderr.contains("\n    model=\"rehearsal/contexts\",\n"), "{}", before.stderr);
    rehearsal.ctxtune(["deploy", "out", "--name=mine", "--yes", "--detach"]).expect(0);
    let after = rehearsal.ctxtune(["monitor", "out", "--json"]).expect(0);
    let document = after.json();
    assert_eq!(document["next_commands"], json!([]));
    let python = document["python"].as_str().unwrap();
    assert!(
        after.stderr.contains(python) && python.contains("together_ai/rehearsal/mine"),
        "{}",
        after.stderr
    );
    let Some(answer) = run_python(&rehearsal, python) else { return };
    assert_context(&answer);
    let story = "Mia entered the lounge. Noah entered the lounge. Mia left the lounge.";
    rehearsal.ctxtune(["generate", "--out=out", story]).expect(0);
    let asked = asked(&rehearsal);
    assert_eq!((asked.len(), &asked[0]), (2, &asked[1]));
}

#[test]
fn a_template_of_ones_own_is_the_prompt_in_python_too() {
    let (rehearsal, _) = deployed_job();
    rehearsal.dir.write(
        "mine.yaml",
        "messages:\n  - role: user\n    content: \"Asked {question}\\n\\tof \\\"{story}\\\" \\\\ {not} {{x}} \u{fc}\"\n  \
         - role: assistant\n    content: \"{context}\"\n",
    );
    rehearsal.dir.prepare(&["--template=mine.yaml"]).expect(0);
    let document = rehearsal.ctxtune(["monitor", "out", "--json"]).expect(0).json();
    let python = document["python"].as_str().unwrap();
    assert!(python.contains("prepared again since"), "{python}");
    let Some(answer) = run_python(&rehearsal, python) else { return };
    assert_context(&answer);
    let story = "Mia entered the lounge. Noah entered the lounge. Mia left the lounge.";
    let content = format!("Asked Where is Noah?\n\tof \"{story}\" \\ {{not}} {{{{x}}}} \u{fc}");
    assert_eq!(asked(&rehearsal), [json!([{ "role": "user", "content": content }])]);
}

#[cfg(unix)]
#[test]
fn the_commands_at_the_end_of_a_reference_job_download_serve_and_ask() {
    let (rehearsal, job) = reference_job();
    let server = vllm("served");
    programs(&rehearsal, &[("vllm", "printf '%s\\n' \"$@\" > served")]);
    let document = rehearsal.ctxtune(["monitor", "out", "--json"]).expect(0).json();
    assert_eq!(document["python"], Value::Null);
    let commands: Vec<&str> = document["next_commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|command| command.as_str().unwrap())
        .collect();
    let shown = unfolded(&rehearsal.ctxtune(["monitor", "out"]).expect(0).stderr);
    assert!(shown.contains(&format!("\n  {}\n", commands.join("\n  "))), "{shown}");

    let extracted = Outcome::of(shell(&rehearsal, "sh", commands[0])).expect(0);
    let dir = format!("{}-adapter", &job[..11]);
    assert_eq!(extracted.stdout, format!("{dir}\n"));
    let said = format!("\n  {}\n  ctxtune generate --base-url", commands[1]);
    assert!(
        unfolded(&extracted.stderr).contains(&said),
        "what the adapter says is what the job said: {}",
        extracted.stderr
    );
    Outcome::of(shell(&rehearsal, "sh", commands[1])).expect(0);
    let expected = format!(
        "serve\nmeta-llama/Meta-Llama-3.1-8B-Instruct\n--enable-lora\n--max-lora-rank\n64\n--lora-modules\ncontexts={dir}\n"
    );
    assert_eq!(rehearsal.dir.read("served"), expected);
    let ask = commands[2].replace("http://127.0.0.1:8000", server.server.url());
    let mut ask = shell(&rehearsal, "sh", &ask);
    ask.env(ctxtune_pipeline::env::OPENAI_API_KEY, "served");
    assert_context(&Outcome::of(ask).expect(0).stdout);
}

#[cfg(unix)]
#[test]
fn the_script_for_slurm_writes_a_context_for_every_story() {
    let (rehearsal, job) = reference_job();
    let server = vllm("served");
    programs(
        &rehearsal,
        &[("vllm", "printf '%s\\n' \"$@\" > served; exec sleep 60"), ("curl", "[ -f served ]")],
    );
    let [script] = &blocks("bash")[..] else { panic!("one script") };
    let port = server.server.url().rsplit(':').next().unwrap();
    let script: String = script
        .lines()
        .map(|line| match line.split('=').next().unwrap() {
            "job" => format!("job={job}\n"),
            "out" => "out=out\n".to_owned(),
            "stories" => "stories=corpus\n".to_owned(),
            "port" => format!("port={port}\n"),
            _ => format!("{}\n", line.replace("sleep 5", "sleep 0.1")),
        })
        .collect();
    let run = || {
        let mut command = shell(&rehearsal, "bash", &script);
        command.env(ctxtune_pipeline::env::OPENAI_API_KEY, "served");
        assert_eq!(Outcome::of(command).expect(0).stdout.lines().last(), Some("generated"));
    };
    run();
    assert!(rehearsal.dir.read("served").contains("\ncontexts=adapter\n"));
    let generated = |name: &(String, Vec<u8>)| name.0.ends_with(".json") && !name.0.contains("manifest");
    assert_eq!(rehearsal.dir.tree("generated").iter().filter(|name| generated(name)).count(), 10);
    let asked = server.server.seen().len();
    run();
    assert_eq!(server.server.seen().len(), asked, "no finished story is requested twice");
}

#[test]
fn an_adapter_is_extracted_whole_into_a_new_directory() {
    let (rehearsal, _) = reference_job();
    let extract = |flags: &[&str]| rehearsal.ctxtune([&["download", "out", "--adapter"], flags].concat());
    let fields = |file: &str| {
        json!({
            "job": "string", "checkpoint": "string", "step": "null", "file": file, "bytes": "integer",
            "already_there": "boolean", "directory": "string", "base_model": "string", "lora_rank": "integer",
            "next_commands": ["string"],
        })
    };
    let document = extract(&["--extract=models/a b", "--json"]);
    assert_eq!(document.code, Some(1), "there is no `models`: {}", document.stderr);
    std::fs::create_dir(rehearsal.dir.path("models")).unwrap();
    let document =
        extract(&["--extract=models/a b", "--json"]).expect(0).document("download", fields("null"));
    let tree = rehearsal.dir.tree("models");
    let names: Vec<&str> = tree.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a b/adapter_config.json", "a b/adapter_model.safetensors"], "the archive is gone");
    let config: Value = serde_json::from_slice(&tree[0].1).unwrap();
    assert_eq!(
        (&document["lora_rank"], &document["base_model"]),
        (&config["r"], &json!("meta-llama/Meta-Llama-3.1-8B-Instruct"))
    );
    let serve = document["next_commands"][0].as_str().unwrap();
    assert!(serve.ends_with(" --max-lora-rank 64 --lora-modules 'contexts=models/a b'"), "{serve}");

    let before = rehearsal.server.seen().len();
    for there in ["models/a b", "models"] {
        let refused = extract(&["--extract", there]).expect(1);
        assert!(refused.stderr.contains("exists, and nothing is unpacked into it"), "{}", refused.stderr);
    }
    assert_eq!(rehearsal.server.seen().len(), before, "nothing is asked for");

    let kept = extract(&["--extract=b", "-o", "kept.tar.zst", "--json"]).expect(0);
    let kept = kept.document("download", fields("string"));
    assert_eq!((&kept["file"], rehearsal.dir.exists("kept.tar.zst")), (&json!("kept.tar.zst"), true));
    // What was there before stays.
    let path = extract(&[]).expect(0).stdout;
    extract(&["--extract=c"]).expect(0);
    assert!(rehearsal.dir.exists(path.trim_end()));
    assert_eq!(rehearsal.dir.tree("b"), rehearsal.dir.tree("c"));
    let merged = rehearsal.ctxtune(["download", "out", "--extract=m"]).expect(0);
    assert!(merged.stderr.contains("  vllm serve m --served-model-name contexts\n"), "{}", merged.stderr);
}

#[test]
fn a_rehearsal_names_no_command_for_a_server_that_is_gone() {
    let run = Dir::new().ctxtune(["rehearse", "--job-seconds=0.2"]).expect(0);
    assert!(!run.stderr.contains("vllm serve") && !run.stderr.contains("import Together"), "{}", run.stderr);
}
