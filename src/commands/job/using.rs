//! How a tuned model is used: the Python that calls it, or the commands that download and serve it.
//!
//! What is printed here is to be copied: it is never folded, its words are quoted, and its prompt is the one
//! that the model was trained with. Nothing is deployed here.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::screen::report::Terminal;
use ctxtune_engine::line::template::Template;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_engine::record::TextField;
use ctxtune_pipeline::deploy::running;
use ctxtune_pipeline::generate::prompt;
use ctxtune_pipeline::generate::story::Story;
use ctxtune_pipeline::job::mismatch::Mismatch;
use ctxtune_pipeline::job::model::REFERENCE;
use ctxtune_pipeline::text::{one_line, printable};
use ctxtune_pipeline::{Session, shell};
use ctxtune_service::together::Job;
use ctxtune_service::together::endpoints::own_project;

/// The name that the printed commands give an endpoint, and an adapter at vLLM.
pub const NAME: &str = "contexts";
const STORY: &str = "Mia entered the lounge. Noah entered the lounge. Mia left the lounge.";
/// Characters of a job's id that tell it from others in one directory.
const SHOWN_OF_ID: usize = 11;
/// The ranks that vLLM's `--max-lora-rank` takes.
const VLLM_RANKS: [u64; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];
/// What the service adds to the name of its own copy of a base model.
const OWN_COPY: &str = "__TOG__FT";

/// The tokens of a template that are the caller's own texts, with something to try them with.
const TEXTS: [(&str, &str); 3] =
    [("{story}", STORY), ("{question}", "Where is Noah?"), ("{answer}", "in the lounge")];
/// Columns of the printed Python.
const COLUMNS: usize = 79;
const INDENT: &str = "            ";

#[derive(Serialize)]
pub struct Use {
    /// What it needs before.
    #[serde(skip)]
    pub note: String,
    /// Commands of a shell, in their order.
    #[serde(rename = "next_commands")]
    pub commands: Vec<String>,
    /// Python that calls the model; `null` where it cannot be deployed at the service.
    pub python: Option<String>,
}

impl Use {
    /// How the model of `job`, which is complete, is used; `out` is the directory of its data, if it is here. Without a
    /// session nobody is asked whether it is deployed already.
    pub fn of(session: Option<&Session>, job: &Job, out: Option<&Path>) -> Use {
        let base = job.model().unwrap_or_default();
        if base.ends_with(REFERENCE) || job.has_adapter_only() {
            let reason = if base.ends_with(REFERENCE) {
                format!("{} cannot be deployed at Together", one_line(&base))
            } else {
                "there is only the adapter, which cannot be deployed at Together".to_owned()
            };
            return Use::download(&reason, job, out);
        }
        let project = session.and_then(|session| own_project(&session.together));
        let running = session
            .zip(project.clone())
            .and_then(|(session, project)| running::callable_name(session, &job.id, Some(project)));
        let slug = project.and_then(|project| project.slug);
        let name = running.clone().unwrap_or_else(|| match &slug {
            Some(slug) => format!("{slug}/{NAME}"),
            None => format!("PROJECT/{NAME}"),
        });
        let (note, commands) = match running {
            Some(name) => (format!("it is deployed, and answers as {}", one_line(&name)), Vec::new()),
            None => (
                "a tuned model can be called while an endpoint runs it, which is billed by the minute"
                    .to_owned(),
                vec![format!("ctxtune deploy {} --name {NAME}", job.id)],
            ),
        };
        Use { note, commands, python: Some(python(&name, &Prompt::of(out, job))) }
    }

    /// By downloading the adapter and serving it with its base model, as far as the job says which.
    fn download(reason: &str, job: &Job, out: Option<&Path>) -> Use {
        let id: String = job.id.as_str().chars().take(SHOWN_OF_ID).collect();
        let dir = format!("{id}-adapter");
        let rank = job.lora_rank().unwrap_or(VLLM_RANKS[4]);
        let base = job.model().unwrap_or_default();
        let commands = vec![
            format!("ctxtune download {} --adapter --extract {dir}", job.id),
            serve_adapter(Path::new(&dir), base.trim_end_matches(REFERENCE), rank),
            ask(out),
        ];
        Use {
            note: format!("{reason}: download it and serve it with its base model"),
            commands,
            python: None,
        }
    }

    pub fn say(&self, terminal: &Terminal) {
        terminal.label("next", &self.note);
        say_commands(&self.commands, terminal);
        if let Some(python) = &self.python {
            let when = if self.commands.is_empty() { "" } else { ", once it is deployed" };
            terminal.label("Python", &format!("pip install together{when}:"));
            terminal.copyable(&format!("\n{python}"));
        }
    }
}

pub fn say_commands(commands: &[String], terminal: &Terminal) {
    for command in commands {
        let folded = shell::folded(&printable(command), COLUMNS - 2);
        terminal.copyable(&format!("  {}", folded.replace('\n', "\n  ")));
    }
}

pub fn serve_adapter(dir: &Path, base: &str, rank: u64) -> String {
    let rank = VLLM_RANKS.into_iter().find(|allowed| *allowed >= rank).unwrap_or(rank);
    let path = dir.to_string_lossy();
    // `name=path` has no way to write these in a path.
    let module = if path.contains(['=', ',']) {
        serde_json::json!({ "name": NAME, "path": path }).to_string()
    } else {
        format!("{NAME}={path}")
    };
    format!(
        "vllm serve {} --enable-lora --max-lora-rank {rank} --lora-modules {}",
        shell::word(base),
        shell::word(&module)
    )
}

pub fn serve_model(dir: &Path) -> String {
    format!("vllm serve {} --served-model-name {NAME}", shell::path(dir))
}

/// The command that asks what the two above serve, with the prompt of `out`.
pub fn ask(out: Option<&Path>) -> String {
    let out = out.map(|out| format!(" --out {}", shell::path(out))).unwrap_or_default();
    let story = shell::word("Mia left the lounge.");
    format!("ctxtune generate --base-url http://127.0.0.1:8000/v1 --model {NAME}{out} {story}")
}

/// The base model that an adapter's configuration names. The service names its own copy, which nobody else can
/// load: then the job's model is meant, by the name that it has elsewhere.
pub fn public_base(named: &str, job: &Job) -> String {
    let is_path = named.starts_with(['/', '.']);
    if named.contains('/') && !is_path && !named.ends_with(OWN_COPY) && !named.ends_with(REFERENCE) {
        return named.to_owned();
    }
    let model = job.model().unwrap_or_else(|| named.trim_end_matches(OWN_COPY).to_owned());
    model.trim_end_matches(REFERENCE).to_owned()
}

struct Prompt {
    template: Template,
    place: String,
}

impl Prompt {
    fn of(out: Option<&Path>, job: &Job) -> Prompt {
        let read = |out: &Path| {
            let manifest = Manifest::read(out).ok()?;
            let Some(trained) = manifest.template else {
                let place =
                    "the built-in prompt: put one like those of your chat lines in its place".to_owned();
                return Some(Prompt { template: Template::chatml(), place });
            };
            let template = Template::parse(&trained.text, &trained.name).ok()?;
            prompt::check(&template).ok()?;
            let place = out.display();
            let place = match Mismatch::of_job(out, &job.id) {
                Some(_) => {
                    format!("the prompt of {place}, which was prepared again since: is it this job's?")
                }
                None => format!("the prompt that it was trained with, from {place}"),
            };
            Some(Prompt { template, place })
        };
        out.and_then(read).unwrap_or_else(|| Prompt {
            template: Template::chatml(),
            place: "the built-in prompt: the prepared data of this job is not here".to_owned(),
        })
    }
}

fn python(name: &str, prompt: &Prompt) -> String {
    // Their tokens stand where the texts would: a template has none of them left.
    let token = |field: TextField| format!("{{{}}}", field.key());
    let others = TextField::ALL.map(|field| (field, token(field))).into();
    let story = Story { text: token(TextField::Story), others, ..Story::default() };
    let messages = prompt::messages(&prompt.template, &story).unwrap_or_default();
    let mut texts = String::new();
    for (token, example) in TEXTS {
        if messages.iter().any(|message| message.content.contains(token)) {
            let _ = writeln!(texts, "{} = {}", token.trim_matches(['{', '}']), literal(example));
        }
    }
    let mut shown = String::new();
    for message in messages {
        let lines: String =
            literals(&message.content).iter().map(|line| format!("{INDENT}{line}\n")).collect();
        let role = literal(&message.role);
        let _ = writeln!(shown, "        {{\"role\": {role}, \"content\": (\n{lines}        )}},");
    }
    let place = printable(&one_line(&prompt.place));
    let model = literal(name);
    let prefixed = literal(&format!("together_ai/{name}"));
    format!(
        "from together import Together\n\n\
         client = Together()  # reads TOGETHER_API_KEY\n\
         {texts}\
         # {place}\n\
         response = client.chat.completions.create(\n    model={model},\n    messages=[\n{shown}    ],\n    \
         temperature=0.7,\n)\n\
         print(response.choices[0].message.content)\n\
         # with agenerate or LiteLLM: model_name={prefixed}"
    )
}

/// `text` as string literals of Python that stand one below the other; where tokens of a template are in it, as
/// ones that are filled.
fn literals(text: &str) -> Vec<String> {
    let is_filled = TEXTS.iter().any(|(token, _)| text.contains(token));
    let quote = if is_filled { "f\"" } else { "\"" };
    let room = COLUMNS - INDENT.len() - quote.len() - 1;
    let (mut lines, mut line, mut ends_line) = (Vec::new(), String::new(), false);
    for word in text.split_inclusive([' ', '\n']) {
        let mut escaped = escaped(word);
        if is_filled {
            escaped = escaped.replace('{', "{{").replace('}', "}}");
            for (token, _) in TEXTS {
                escaped = escaped.replace(&format!("{{{token}}}"), token);
            }
        }
        let is_full = line.chars().count() + escaped.chars().count() > room;
        if !line.is_empty() && (is_full || ends_line && word != "\n") {
            lines.push(std::mem::take(&mut line));
        }
        line.push_str(&escaped);
        ends_line = word.ends_with('\n');
    }
    lines.push(line);
    lines.into_iter().map(|line| format!("{quote}{line}\"")).collect()
}

fn literal(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// `text` for between the quotes of a string literal of Python.
fn escaped(text: &str) -> String {
    let escape = |character: char| match character {
        '"' | '\\' => format!("\\{character}"),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        '\r' => "\\r".to_owned(),
        character if character.is_control() => format!("\\u{:04x}", u32::from(character)),
        character => character.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(object: &Value) -> Job {
        Job::read(object).unwrap()
    }

    #[test]
    fn an_adapter_is_served_with_its_base_at_a_rank_that_vllm_takes() {
        let check = |dir: &str, rank, expected: &str| {
            let command = serve_adapter(Path::new(dir), "a/b", rank);
            let (head, tail) = command.split_once(" --max-lora-rank ").unwrap();
            assert_eq!((head, tail), ("vllm serve a/b --enable-lora", expected));
        };
        check("dir", 64, "64 --lora-modules contexts=dir");
        check("dir", 48, "64 --lora-modules contexts=dir");
        check("dir", 2, "8 --lora-modules contexts=dir");
        check("my dir", 600, "600 --lora-modules 'contexts=my dir'");
        check("a=b", 1, r#"1 --lora-modules '{"name":"contexts","path":"a=b"}'"#);
    }

    #[test]
    fn the_base_of_an_adapter_is_a_name_that_others_can_load() {
        let check = |named: &str, model: Option<&str>, expected: &str| {
            let job = job(&json!({ "id": "ft-1", "status": "completed", "model": model }));
            assert_eq!(public_base(named, &job), expected, "{named}");
        };
        let llama = "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference";
        let own = "togethercomputer/Meta-Llama-3.1-8B-Instruct-Reference__TOG__FT";
        check(own, Some(llama), "meta-llama/Meta-Llama-3.1-8B-Instruct");
        check(own, None, "togethercomputer/Meta-Llama-3.1-8B-Instruct");
        check("/mnt/models/1", Some(llama), "meta-llama/Meta-Llama-3.1-8B-Instruct");
        check(llama, None, "meta-llama/Meta-Llama-3.1-8B-Instruct");
        check("Qwen/Qwen3-8B", Some("Qwen/Qwen3-8B"), "Qwen/Qwen3-8B");
        check("other/base", Some("Qwen/Qwen3-8B"), "other/base");
    }

    #[test]
    fn a_prompt_is_python_that_says_the_same() {
        let check = |text: &str, expected: &[&str]| assert_eq!(literals(text), expected, "{text}");
        check("", &[r#""""#]);
        check(r#"a "b" \ {c}"#, &[r#""a \"b\" \\ {c}""#]);
        check("tell:\n\n{story}", &[r#"f"tell:\n\n""#, r#"f"{story}""#]);
        check(r#"{"a": {{story}}} {x}"#, &[r#"f"{{\"a\": {{{story}}}}} {{x}}""#]);
        check("\u{1b}\ttab", &[r#""\u001b\ttab""#]);
        let long = literals(&"word ".repeat(100));
        assert!(long.len() > 5 && long.iter().all(|line| line.len() <= COLUMNS - INDENT.len()), "{long:?}");
    }
}
