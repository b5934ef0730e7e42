//! The arguments of `generate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use ctxtune_engine::line::template::Form;
use ctxtune_pipeline::config::asking::AskingArgs;
use ctxtune_pipeline::value::{ruled, whole};

const GENERATE_HELP: &str = "\
Examples:
  ctxtune generate --model my-project/contexts \"Mia entered. Noah left.\"
  ctxtune generate --out out --story-file story.txt --stream
  ctxtune generate --out out --show-prompt \"Mia entered. Noah left.\"
  ctxtune generate --base-url http://gpu7:8000 --model contexts - < story.txt
  ctxtune generate stories.jsonl -o gen --model Qwen/Qwen3-8B --yes
  ctxtune generate in -o gen --out out --yes && ctxtune prepare gen -o out2

stdout: the context as JSON; with --show-prompt the messages; with --output-dir that directory. Run again, it \
requests no finished story twice. One story needs no confirmation. Many need --yes, --max-cost or an answer at the \
terminal, but for a server on this machine that --base-url names. A request without an answer is repeated, and the \
lost answer may be billed too.
Exit codes: 0 all valid, 1 failed, 2 usage, or a model that cannot be asked, 3 stories without a context, \
4 key, 5 network (run it again), 9 refused to spend, 130 SIGINT, 143 SIGTERM.";

/// How observations and actions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WrittenForm {
    /// {"Mia": "none"}
    Object,
    /// ["Mia: none"]
    List,
}

impl From<WrittenForm> for Form {
    fn from(form: WrittenForm) -> Form {
        match form {
            WrittenForm::Object => Form::Object,
            WrittenForm::List => Form::List,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = GENERATE_HELP)]
pub struct GenerateArgs {
    /// A story, or - for one on standard input; with --output-dir sources of stories, as `prepare` reads
    /// them: records, or JSONL lines with a `story`
    #[arg(value_name = "STORY|SOURCE", required_unless_present = "story_file")]
    pub inputs: Vec<PathBuf>,
    /// The story is in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["inputs", "output_dir"])]
    pub story_file: Option<PathBuf>,
    /// The model's name at the server [default: the newest tuned model that OUT knows, by the name of the
    /// endpoint that `deploy` runs it on]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// The prepared directory that the model was tuned with: its template is used [default: training/output,
    /// where there is one]
    #[arg(long, value_name = "OUT")]
    pub out: Option<PathBuf>,
    /// Another layout of the prompt: the built-in `chatml`, or a YAML file [default: OUT's, else chatml]
    #[arg(long, value_name = "chatml|FILE")]
    pub template: Option<PathBuf>,
    /// Print the messages for the story as one line of JSON, and send nothing
    #[arg(long, conflicts_with = "output_dir")]
    pub show_prompt: bool,
    /// How the context on stdout is written
    #[arg(long, value_name = "FORM", default_value = "object", conflicts_with = "output_dir")]
    pub form: WrittenForm,
    /// Show the answer on stderr as it comes
    #[arg(long, conflicts_with = "output_dir")]
    pub stream: bool,

    /// Write a record for every story of the sources here
    #[arg(short, long, value_name = "GEN", help_heading = "Many stories")]
    pub output_dir: Option<PathBuf>,
    /// Also read the .jsonl, .ndjson and .tar files (also compressed) below a directory
    #[arg(long, help_heading = "Many stories", requires = "output_dir")]
    pub containers: bool,
    /// Ask again about stories that ended without a context
    #[arg(long, help_heading = "Many stories", requires = "output_dir")]
    pub retry_invalid: bool,

    /// From 0 to 2
    #[arg(long, value_name = "T", default_value = "0.7", value_parser = temperature, help_heading = "Answers")]
    pub temperature: f64,
    /// Above 0, at most 1 [default: the server's]
    #[arg(long, value_name = "P", value_parser = part, help_heading = "Answers")]
    pub top_p: Option<f64>,
    /// Seed of the first answer to a story; each further one takes the next number
    #[arg(long, value_name = "N", help_heading = "Answers", value_parser = whole::<u64>)]
    pub seed: Option<u64>,

    #[command(flatten)]
    pub asking: AskingArgs,
}

fn temperature(text: &str) -> Result<f64, String> {
    ruled(text, "from 0 to 2", |number| (0.0..=2.0).contains(&number))
}

fn part(text: &str) -> Result<f64, String> {
    ruled(text, "above 0, at most 1", |number| number > 0.0 && number <= 1.0)
}
