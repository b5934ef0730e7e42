//! The seed's command line, on a terminal with somebody who answers.

use std::io::Write;
use std::process::{Command, Stdio};

use ctxtune_pipeline::env;
use ctxtune_rehearsal::{Script, WANDB_KEY};
use serde_json::json;

use crate::server::Server;
use crate::support::{Outcome, Rehearsal, program, python};

/// The keys of the seed's configuration file, with its values.
const SEED_CONFIG: &str = "\
base_model: meta-llama/Meta-Llama-3.1-8B-Instruct
n_epochs: 3
learning_rate: 1.0e-5
batch_size: \"max\"
lora: true
lora_rank: 64
lora_alpha: 16
n_checkpoints: 1
val_ratio: 0.1
seed: 42
wandb_project: social-world-model-finetuning
wandb_run_name: null
";

const SEED_COMMAND: [&str; 4] = [
    "finetune",
    "--config-path=training/finetune_config.yaml",
    "--data-dir=contexts",
    "--output-dir=training/output",
];

/// Runs a program on a terminal of its own, and types its first argument as soon as its second one is
/// shown. It prints what the terminal showed and ends with the program's exit code.
pub const PERSON: &str = r#"
import os, pty, select, sys, time
answer, question = (text.encode().decode("unicode_escape").encode() for text in sys.argv[1:3])
command = sys.argv[3:]
child, terminal = pty.fork()
if child == 0:
    os.execv(command[0], command)
shown, answered, end = b"", False, time.monotonic() + 60
while time.monotonic() < end:
    if not select.select([terminal], [], [], 0.2)[0]:
        continue
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    shown += piece
    if not answered and question in shown:
        answered = True
        os.write(terminal, answer)
else:
    os.kill(child, 9)
sys.stdout.buffer.write(shown)
sys.stdout.flush()
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.write("\nanswered\n" if answered else "\nnot asked\n")
sys.exit(code if code >= 0 else 200 - code)
"#;

/// A server of quick jobs, and the seed's directory.
fn scene() -> Rehearsal {
    let script = Script { job_seconds: 0.5, verdict_seconds: 0.0, ..Script::default() };
    let rehearsal = Rehearsal::with(script);
    rehearsal.dir.corpus(20);
    std::fs::rename(rehearsal.dir.path("corpus"), rehearsal.dir.path("contexts")).unwrap();
    rehearsal.dir.write("training/finetune_config.yaml", SEED_CONFIG);
    rehearsal
}

/// What a terminal shows of the command, answered with `answer`.
fn on_a_terminal(rehearsal: &Rehearsal, answer: &str, arguments: &[&str]) -> Option<Outcome> {
    typing(rehearsal, (answer, "[y/N] "), arguments)
}

/// What a terminal shows of the command, into which `answer` is typed once `question` is there.
fn typing(rehearsal: &Rehearsal, (answer, question): (&str, &str), arguments: &[&str]) -> Option<Outcome> {
    let mut command: Command = python()?;
    rehearsal.lend_environment(&mut command);
    command.args(["-c", PERSON, answer, question, program()]).args(arguments);
    command.current_dir(rehearsal.dir.path("")).env("TERM", "xterm");
    Some(Outcome::of(command))
}

/// The lines that a terminal of any height has in the end, its scrollback included.
fn scrollback(shown: &str) -> Vec<String> {
    let (mut lines, mut row, mut column) = (vec![Vec::new()], 0_usize, 0_usize);
    let mut characters = shown.chars();
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{1b}' => {
                let mut sequence = String::new();
                while !sequence.ends_with(|last: char| last.is_ascii_alphabetic()) {
                    sequence.extend(characters.next());
                }
                let count = sequence[1..sequence.len() - 1].parse().unwrap_or(1);
                match sequence.chars().last() {
                    Some('A') => row = row.saturating_sub(count),
                    Some('K') => lines[row].truncate(column),
                    Some('J') => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    _ => {}
                }
            }
            character => {
                lines[row].resize(column, ' ');
                lines[row].push(character);
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    lines.into_iter().map(|line| line.into_iter().collect()).collect()
}

/// What was shown, without colours and without what was erased again.
fn plain(shown: &str) -> String {
    let mut plain = String::new();
    for line in shown.replace("\r\n", "\n").lines() {
        let mut rest = line.rsplit('\r').next().unwrap_or_default();
        while let Some(start) = rest.find("\u{1b}[") {
            plain.push_str(&rest[..start]);
            let sequence = &rest[start + 2..];
            let end = sequence.find(|character: char| character.is_ascii_alphabetic());
            rest = &sequence[end.map_or(sequence.len(), |end| end + 1)..];
        }
        plain.push_str(rest);
        plain.push('\n');
    }
    plain
}

#[test]
fn the_seeds_command_goes_through_its_four_steps_to_the_models_name() {
    let rehearsal = scene();
    let Some(run) = on_a_terminal(&rehearsal, "y\\n", &SEED_COMMAND) else { return };
    let run = run.expect(0);
    let shown = plain(&run.stdout);
    let mut from = 0;
    for part in [
        "Together AI Fine-Tuning Pipeline",
        "settings from training/finetune_config.yaml",
        "Step 1: Preparing data",
        "\u{2713} Data preparation complete",
        "Step 2: Uploading files to Together AI",
        "\u{2713} train.jsonl uploaded: file-",
        "Step 3: Creating fine-tuning job",
        "Start this job for about $",
        "\u{2713} fine-tuning job created: ft-",
        "Step 4: Monitoring fine-tuning job",
    ] {
        let place = shown[from..].find(part).unwrap_or_else(|| panic!("{part} in {shown}"));
        from += place + part.len();
    }
    let model = rehearsal.jobs()[0]["model_output_name"].as_str().unwrap().to_owned();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[lines.len() - 3..], [model.as_str(), "", "answered"], "{shown}");
    rehearsal.check_protocol();
    let job = &rehearsal.jobs()[0];
    assert_eq!((&job["n_epochs"], &job["learning_rate"]), (&3.into(), &1e-5.into()));
    assert_eq!(job["training_type"]["lora_r"], 64);

    // Again: everything is there, and nobody is asked.
    let again = on_a_terminal(&rehearsal, "n\\n", &SEED_COMMAND).unwrap().expect(0);
    let shown = plain(&again.stdout);
    assert!(shown.contains("found (completed)") && shown.ends_with("not asked\n"), "{shown}");
    assert_eq!(rehearsal.server.jobs_created(), 1);
}

#[test]
fn the_page_of_the_wandb_run_is_above_the_block_and_at_the_end() {
    let rehearsal = scene();
    let Some(mut command) = python() else { return };
    rehearsal.lend_environment(&mut command);
    command.args(["-c", PERSON, "y\\n", "[y/N] ", program()]).args(SEED_COMMAND);
    command.current_dir(rehearsal.dir.path("")).env("TERM", "xterm");
    command.env(env::WANDB_API_KEY, WANDB_KEY).env(env::WANDB_BASE_URL, rehearsal.server.url());
    let run = Outcome::of(command).expect(0);
    let page =
        format!("/rehearsal/social-world-model-finetuning/runs/{}", rehearsal.server.wandb_runs()[0].name);
    let shown = plain(&run.stdout);
    let lines: Vec<usize> =
        shown.lines().enumerate().filter(|(_, line)| line.contains(&page)).map(|(at, _)| at).collect();
    assert_eq!(lines.len(), 2, "{shown}");
    let block = shown.lines().position(|line| line.contains("next look in"));
    let ended = shown.lines().position(|line| line.contains("the job is complete")).unwrap();
    assert!(block.is_some() && lines[0] < ended && lines[1] > ended, "{shown}");
    let above = run.stdout.split(&page).next().unwrap();
    let drawn = above.rfind("\u{1b}[?25l").unwrap();
    // The cursor is hidden while the canvas prints something above its lines.
    assert!(!above[drawn..].contains("?25h"), "it is drawn over: {:?}", &above[drawn..]);
}

#[test]
fn a_dumb_terminal_gets_plain_lines() {
    let rehearsal = scene();
    let Some(mut command) = python() else { return };
    rehearsal.lend_environment(&mut command);
    command.args(["-c", PERSON, "y\\n", "[y/N] ", program()]).args(SEED_COMMAND);
    command.current_dir(rehearsal.dir.path("")).env("TERM", "dumb");
    let shown = Outcome::of(command).expect(0).stdout;
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{2713}'), "{shown:?}");
    assert!(shown.contains("status: completed"), "{shown}");
}

#[test]
fn whoever_does_not_say_yes_starts_nothing() {
    let rehearsal = scene();
    for answer in ["n\\n", "\\n", "yess\\n", "no y\\n", "\\x04"] {
        let Some(run) = on_a_terminal(&rehearsal, answer, &SEED_COMMAND) else { return };
        let run = run.expect(9);
        assert!(run.stdout.contains("the answer was no"), "{}", run.stdout);
    }
    assert_eq!((rehearsal.creations(), rehearsal.files().len()), (0, 2));
    on_a_terminal(&rehearsal, "YES\\n", &SEED_COMMAND).unwrap().expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 1);
}

#[test]
fn an_interrupt_at_the_question_ends_it_promptly() {
    let rehearsal = scene();
    let start = std::time::Instant::now();
    let Some(run) = on_a_terminal(&rehearsal, "\\x03", &SEED_COMMAND) else { return };
    let run = run.expect(130);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    assert!(run.stdout.contains("[y/N]"), "{}", run.stdout);
    let echoed = run.stdout.lines().find(|line| line.contains("^C"));
    assert!(echoed.is_some_and(|line| !line.contains("error:")), "{}", run.stdout);
    assert_eq!(rehearsal.creations(), 0);
}

#[test]
fn an_interrupt_while_watching_on_a_terminal_says_how_to_go_on() {
    let rehearsal = scene();
    rehearsal.server.set_script(|script| script.job_seconds = 1000.0);
    let monitor = ["finetune", "contexts", "-o", "out", "--yes", "--no-sync"];
    let Some(run) = typing(&rehearsal, ("\\x03", "pending"), &monitor) else { return };
    let shown = plain(&run.expect(130).stdout);
    let job = rehearsal.jobs()[0].clone();
    let resume = format!("ctxtune monitor {}", job["id"].as_str().unwrap());
    assert!(shown.contains(&resume), "{shown}");
    assert_eq!(job["status"], "pending");
}

#[test]
fn an_answer_that_nobody_at_a_terminal_gave_is_none() {
    let rehearsal = scene();
    let mut command = rehearsal.command(SEED_COMMAND);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended before anybody wrote.
    let _ = child.stdin.take().unwrap().write_all(b"y\n");
    Outcome::from(child.wait_with_output().unwrap()).expect(9);
    assert_eq!(rehearsal.server.seen(), []);
}

#[test]
fn many_stories_are_asked_about_only_after_a_yes_at_the_terminal() {
    let rehearsal = scene();
    let many = ["generate", "contexts", "-o", "gen", "--model", "Qwen/Qwen3-8B", "--price-per-million=1"];
    let Some(run) = on_a_terminal(&rehearsal, "n\\n", &many) else { return };
    let shown = plain(&run.expect(9).stdout);
    assert!(shown.contains("Ask Qwen/Qwen3-8B about 20 stories, for at most about $0.1"), "{shown}");
    assert!(shown.contains("nothing was asked: the answer was no"), "{shown}");
    assert_eq!(rehearsal.requests("POST /v1/chat/completions"), []);
    let run = on_a_terminal(&rehearsal, "y\\n", &many).unwrap().expect(0);
    assert!(plain(&run.stdout).contains("valid     20 of 20"), "{}", run.stdout);
    let run = on_a_terminal(&rehearsal, "", &many).unwrap().expect(0);
    assert!(run.stdout.contains("not asked"), "nothing is left to agree to: {}", run.stdout);
}

#[test]
fn a_deployment_is_created_only_after_a_yes_to_its_price() {
    let (rehearsal, _) = Rehearsal::tuned(0.1);
    let deploy = ["deploy", "out", "--name=contexts", "--stop-after=30s"];
    let Some(no) = on_a_terminal(&rehearsal, "n\n", &deploy) else { return };
    let no = no.expect(9);
    assert!(plain(&no.stdout).contains("Deploy it for 30s, for about $0.03? [y/N]"), "{}", no.stdout);
    assert_eq!(rehearsal.server.deployments_created(), 0);
    let yes = on_a_terminal(&rehearsal, "y\n", &deploy).unwrap().expect(0);
    assert!(plain(&yes.stdout).contains("30s is over"), "{}", yes.stdout);
    assert_eq!(rehearsal.server.deployments_created(), 1);
    // An interrupt while it is held stops it.
    let interrupted =
        typing(&rehearsal, ("\\x03", "this process stops it"), &[&deploy[..3], &["--yes"]].concat());
    let interrupted = interrupted.unwrap().expect(130);
    assert!(plain(&interrupted.stdout).contains("scaled to zero"), "{}", interrupted.stdout);
}

#[test]
fn control_characters_of_a_streamed_answer_are_shown_escaped_on_a_terminal() {
    let rehearsal = scene();
    let server = Server::start(|exchange| {
        exchange.read_body();
        let content = "line 1\n\ttab \u{1b}[2Jclear\u{7}\r end";
        let frame = json!({ "choices": [{ "delta": { "content": content }, "finish_reason": "stop" }] });
        let frames = format!("data: {frame}\n\ndata: [DONE]\n\n");
        exchange.reply(200, &[("Content-Type", "text/event-stream")], frames);
    });
    let url = server.url("");
    let stream = ["generate", "Mia left.", "--stream", "--model=m", "--attempts=1", "--base-url", &url];
    let Some(run) = on_a_terminal(&rehearsal, "", &stream) else { return };
    let run = run.expect(3);
    let escaped = "line 1\r\n\ttab \\u{1b}[2Jclear\\u{7}\\r end";
    assert!(run.stdout.contains(escaped), "{}", run.stdout);
    assert!(!run.stdout.contains("\u{1b}[2J") && !run.stdout.contains('\u{7}'), "{}", run.stdout);
}

#[test]
fn what_is_typed_while_a_job_is_watched_leaves_no_stale_lines() {
    let rehearsal = scene();
    rehearsal.server.set_script(|script| script.job_seconds = 3.0);
    let finetune = ["finetune", "contexts", "-o", "out", "--yes", "--no-sync"];
    let Some(run) = typing(&rehearsal, ("\\n\\nnext command\\n", "next look in"), &finetune) else { return };
    let run = run.expect(0);
    assert!(run.stdout.ends_with("answered\n"), "{}", run.stdout);
    let lines = scrollback(&run.stdout);
    assert!(lines.iter().any(|line| line.starts_with("the job is complete")), "{lines:#?}");
    let stale: Vec<&String> = lines
        .iter()
        .filter(|line| ["next look in", "next command", "queue:"].iter().any(|part| line.contains(part)))
        .collect();
    assert_eq!(stale, Vec::<&String>::new(), "{lines:#?}");
    assert!(run.stdout.matches("next look in").count() > 2, "the block was drawn again and again");
}
