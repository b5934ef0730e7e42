//! Whom a model is asked through, which model, with which template, and what a refusal means.
//!
//! The Together key goes to Together only: another server gets a key of its own, or none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::config::asking::AskingArgs;
use crate::config::{DEFAULT_OUTPUT_DIR, read_template};
use crate::deploy::running;
use crate::env;
use crate::failure::{Exit, Failure};
use crate::generate::budget::Budget;
use crate::generate::many::is_about_the_model;
use crate::generate::prompt;
use crate::generate::request::{Delivery, Parameters};
use crate::job::ledger::Run;
use crate::job::mismatch::Mismatch;
use crate::job::model::REFERENCE;
use crate::job::price::dollars_text;
use crate::session::{Runtime, Session};
use crate::ui::{Detail, Ui};
use ctxtune_engine::line::template::Template;
use ctxtune_engine::output::manifest::{self, Manifest};
use ctxtune_service::http::Timeouts;
use ctxtune_service::together::chat::{Chat, INFERENCE_URL, Usage};
use ctxtune_service::together::{self, BaseUrl, Ending, jobs};

/// An answer takes longer than a call of the API: it is written while we wait.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    call: Duration::from_secs(600),
    idle: Duration::from_secs(300),
};

/// LiteLLM's name for the service before a model's name; the service itself does not know it.
const PREFIX: &str = "together_ai/";

pub struct Target {
    pub chat: Chat,
    /// Whether `--base-url` named it.
    pub is_foreign: bool,
    pub model: String,
    /// The job that the model came from, where OUT knows it.
    pub run: Option<Run>,
}

pub struct Choice<'c> {
    pub model: Option<&'c str>,
    pub out: Option<&'c Path>,
    pub template: Option<&'c Path>,
    pub base_url: Option<&'c str>,
}

impl Choice<'_> {
    /// The server and the model. Where OUT says which model, the service is asked under which name it answers.
    pub fn target(&self, session: &Session) -> Result<Target, Failure> {
        let (mut model, run) = self.model(session)?;
        let client = session.client(TIMEOUTS)?;
        let base = session.together.base().clone();
        let chat = if self.base_url.is_some() {
            let key = foreign_key(session, &base)?;
            Chat::new(client, base, key, Vec::new())
        } else {
            session.require_key()?;
            let job = run.as_ref().and_then(|run| run.job.as_ref()).filter(|_| self.model.is_none());
            model = job.and_then(|job| running::callable_name(session, job, None)).unwrap_or(model);
            let is_moved = session.environment.get(env::TOGETHER_BASE_URL).is_some();
            let own = BaseUrl::parse(INFERENCE_URL)
                .map_err(|error| Failure::failed("base_url", error, "name a server with --base-url"))?;
            let key = session.environment.key(env::TOGETHER_API_KEY)?;
            Chat::new(client, if is_moved { base } else { own }, key, session.custom_headers())
        };
        Ok(Target { chat, is_foreign: self.base_url.is_some(), model, run })
    }

    fn out(&self) -> PathBuf {
        self.out.map_or_else(|| DEFAULT_OUTPUT_DIR.into(), Path::to_owned)
    }

    fn model(&self, session: &Session) -> Result<(String, Option<Run>), Failure> {
        let out = self.out();
        let api = session.together.base().origin();
        let missing = |message: String, hint: &str| Failure::usage("no_model", message, hint);
        if let Some(model) = self.model {
            let name = model.strip_prefix(PREFIX).unwrap_or(model);
            if name != model {
                session.ui.say(&format!("the model's name at the service is {name}"));
            }
            if name.trim().is_empty() {
                return Err(missing("--model has no name in it".to_owned(), "name a model"));
            }
            // What OUT knows of it only serves to explain a refusal.
            let runs = Run::read_all(&out).unwrap_or_default();
            let run = runs.into_iter().rev().find(|run| run.model.as_deref() == Some(name));
            return Ok((name.to_owned(), run));
        }
        if self.base_url.is_some() {
            let message = "--base-url needs --model: its server has names of its own";
            return Err(missing(message.to_owned(), "its /v1/models lists them"));
        }
        session.require_key()?;
        refresh_statuses(session, &out)?;
        let runs: Vec<Run> = Run::read_all(&out)?.into_iter().filter(|run| run.account.api == api).collect();
        // A job has a name for its model long before it has the model.
        let is_done = |run: &&Run| run.ending() == Some(Ending::Completed);
        let with_model = || runs.iter().rev().filter(|run| run.model.is_some());
        if let Some(run) = with_model().find(is_done).or_else(|| with_model().next()) {
            let newest = runs.iter().rev().find(|run| run.job.is_some()).filter(|run| !is_done(run));
            if let Some((job, status)) = newest.and_then(|run| run.job.as_ref().zip(run.status.as_ref())) {
                let other = run.job.as_ref().filter(|other| *other != job);
                let other = other.map(|other| format!("; the model of the job {other} is asked"));
                session.ui.say(&format!(
                    "the job {job} was {status} when it was last asked for: `ctxtune monitor {job}` asks how it stands{}",
                    other.unwrap_or_default()
                ));
            }
            return Ok((run.model.clone().unwrap_or_default(), Some(run.clone())));
        }
        let message = format!("`{}` knows no tuned model at {api}", out.display());
        Err(missing(message, "name one with --model, or its directory with --out"))
    }

    /// Where OUT holds other data than the model was trained on: by the job that OUT knows the model from,
    /// else by its newest one, where OUT was named.
    fn mismatch(&self, session: &Session, target: &mut Target) -> Option<Mismatch> {
        let out = self.out();
        let manifest = Manifest::read(&out).ok()?;
        if let Some(run) = &target.run {
            return Mismatch::of(&out, run, &manifest);
        }
        self.out?;
        let newest = Mismatch::of_newest(&out, &manifest)?;
        // An endpoint's name says nothing; the weights behind it may be those of an older job.
        let weights = target.weights(session).unwrap_or_default();
        let names = |object: &String| weights.split(['/', ' ']).any(|part| part == object);
        let is_behind = |run: &Run| run.model_object.as_ref().is_some_and(names);
        target.run = Run::read_all(&out).unwrap_or_default().into_iter().rev().find(is_behind);
        match &target.run {
            Some(run) => Mismatch::of(&out, run, &manifest),
            None => Some(newest),
        }
    }

    /// The template of prompts, and where it comes from, for people.
    pub fn template(&self, ui: &dyn Ui) -> Result<(Template, String), Failure> {
        let out = self.out();
        let manifest = match self.out {
            Some(out) => Some(Manifest::read(out)?),
            None => Manifest::read_file(&out.join(manifest::FILE_NAME))?,
        };
        let is_without = manifest.as_ref().is_some_and(|manifest| manifest.template.is_none());
        let trained = manifest.and_then(|manifest| manifest.template);
        let (template, place) = match (self.template, &trained) {
            (Some(name), trained) => {
                let template = read_template(name)?;
                if trained.as_ref().is_some_and(|trained| trained.text != template.text) {
                    ui.warn(&format!(
                        "`{}` was prepared with another template: a model tuned with it has seen no such prompt",
                        out.display()
                    ));
                }
                (template, "--template".to_owned())
            }
            (None, Some(trained)) => {
                let parsed = Template::parse(&trained.text, &trained.name);
                let template = parsed.map_err(|error| {
                    let message = format!("the template in the manifest of `{}`: {error}", out.display());
                    Failure::data("template", message, "prepare the directory again")
                })?;
                (template, out.display().to_string())
            }
            (None, None) => {
                if is_without {
                    ui.warn(&format!(
                        "`{}` holds chat lines of your own: a model tuned with them has not seen the built-in prompt; \
                         --template names another",
                        out.display()
                    ));
                }
                (Template::chatml(), "built in".to_owned())
            }
        };
        prompt::check(&template).map_err(|error| {
            let hint = "name a template with --template whose context stands in its last message only";
            Failure::usage("template", error, hint)
        })?;
        Ok((template, place))
    }
}

/// Refreshes the statuses of the newest jobs of `out` from the service, up to the first one that is complete:
/// the ledger has a job that was never monitored as it was at its submission.
fn refresh_statuses(session: &Session, out: &Path) -> Result<(), Failure> {
    let api = session.together.base().origin();
    let runs = Run::read_all(out)?;
    for run in runs.iter().rev().filter(|run| run.account.api == api) {
        let (Some(id), ending) = (&run.job, run.ending()) else { continue };
        let ending = match ending {
            Some(ending) => Some(ending),
            None => match jobs::retrieve(&session.together, id) {
                Ok(job) => {
                    session.note_status(Some(out), &job);
                    job.status.ending()
                }
                Err(error) => {
                    let failure = session.explain(error);
                    if session.signals.is_stopped() {
                        return Err(failure);
                    }
                    session.ui.warn(&format!("how {id} is cannot be told: {}", failure.message));
                    None
                }
            },
        };
        if ending == Some(Ending::Completed) {
            return Ok(());
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    pub temperature: f64,
    /// Above 0, at most 1; absent where it is the server's own.
    pub top_p: Option<f64>,
    /// Of the first answer to a story.
    pub seed: Option<u64>,
}

pub struct Setup {
    pub session: Session,
    pub target: Target,
    pub template: Template,
    template_place: String,
    pub parameters: Parameters,
    /// What it may cost, which several models may share.
    pub budget: Arc<Budget>,
    pub mismatch: Option<Mismatch>,
}

/// The server that is asked: the one that `--base-url` names, else Together.
pub fn server(asking: &AskingArgs, runtime: Runtime) -> Result<Session, Failure> {
    match &asking.base_url {
        Some(url) => Session::other(url, runtime),
        None => Session::new(None, runtime),
    }
}

pub fn budget(asking: &AskingArgs) -> Result<Arc<Budget>, Failure> {
    if asking.max_cost.is_some() && asking.price_per_million.is_none() {
        return Err(Failure::unspent(
            "no_price",
            "--max-cost needs a price, which the service does not tell",
            "add --price-per-million USD, from the service's price list",
        ));
    }
    Ok(Arc::new(Budget::new(asking.price_per_million, asking.max_cost)))
}

impl Setup {
    /// Finds out whom to ask and how. Nothing is sent but [`Choice::target`]'s look.
    pub fn new(
        session: Session,
        choice: &Choice<'_>,
        asking: &AskingArgs,
        sampling: Sampling,
        budget: &Arc<Budget>,
    ) -> Result<Setup, Failure> {
        let mut target = choice.target(&session)?;
        let (template, template_place) = choice.template(&*session.ui)?;
        let mismatch = choice.mismatch(&session, &mut target);
        let parameters = Parameters {
            model: target.model.clone(),
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            max_tokens: asking.max_tokens.get(),
            seed: sampling.seed,
            stop: asking.stop.clone(),
            schema: (!asking.no_schema).then_some(template.context.form),
        };
        let budget = budget.clone();
        Ok(Setup { session, target, template, template_place, parameters, budget, mismatch })
    }

    pub fn say(&self) {
        self.target.say(&self.session);
        self.session.ui.label("template", &format!("{} ({})", self.template.name, self.template_place));
    }

    /// Warns where stories and answers go over plain http to another machine: once a command.
    pub fn warn_if_in_clear(&self) {
        let base = self.target.chat.base();
        if base.is_in_clear() {
            self.session.ui.warn(&format!(
                "{} is not this machine, and http is not encrypted: stories and answers can be read on the way",
                base.origin()
            ));
        }
    }
}

/// The refusal to send a request that could cost more than is allowed.
pub fn over_budget(setup: &Setup, most_tokens: u64) -> Failure {
    let most = setup.budget.dollars(most_tokens).map(dollars_text).unwrap_or_default();
    let spent = setup.budget.spent();
    let spent =
        setup.budget.dollars(spent.known.total() + spent.unknown).map(dollars_text).unwrap_or_default();
    Failure::unspent(
        "over_max_cost",
        format!("the next answer could cost {most}, and {spent} of --max-cost are spent"),
        "raise --max-cost, or lower --max-tokens; what is finished stays",
    )
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageReport {
    /// Of the prompts.
    pub prompt_tokens: u64,
    /// Of the answers.
    pub completion_tokens: u64,
    /// Of both.
    pub total_tokens: u64,
}

impl UsageReport {
    pub fn of(usage: Usage) -> UsageReport {
        UsageReport {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.total(),
        }
    }
}

fn foreign_key(session: &Session, base: &BaseUrl) -> Result<Option<secrecy::SecretString>, Failure> {
    let environment = &session.environment;
    let key = environment.get(env::OPENAI_API_KEY).map(str::trim);
    if key.is_some() && key == environment.get(env::TOGETHER_API_KEY).map(str::trim) {
        let message =
            format!("{} is the Together key, which is not sent to {}", env::OPENAI_API_KEY, base.origin());
        let hint = format!("unset {}, or set it to that server's own key", env::OPENAI_API_KEY);
        return Err(Failure::usage("foreign_key", message, hint));
    }
    environment.key(env::OPENAI_API_KEY)
}

impl Target {
    /// Whether answers are paid for: only a server on this machine that somebody named is free.
    pub(crate) fn is_paid(&self) -> bool {
        !(self.is_foreign && self.chat.base().is_loopback())
    }

    pub fn streamed(&self) -> Delivery {
        if self.is_foreign { Delivery::StreamWithUsage } else { Delivery::Stream }
    }

    fn say(&self, session: &Session) {
        let key = match (self.is_foreign, session.environment.place(env::OPENAI_API_KEY)) {
            (false, _) => String::new(),
            (true, Some(place)) => format!(", with {} of {place}", env::OPENAI_API_KEY),
            (true, None) => ", without a key".to_owned(),
        };
        session.ui.label("model", &format!("{} at {}{key}", self.model, self.chat.base().origin()));
    }

    /// What the model's name stands for, where the service says it.
    pub fn weights(&self, session: &Session) -> Option<String> {
        if self.is_foreign { None } else { running::weights(session, &self.model) }
    }

    /// Says what runs at the service and costs money by the minute: whoever asks may have deployed it.
    pub fn say_running(&self, session: &Session) {
        if self.is_foreign || session.ui.detail() == Detail::Quiet {
            return;
        }
        let running = running::glance(session, None);
        running::say_running(running.as_deref().unwrap_or_default(), &*session.ui);
    }

    /// An error of the server as the terminal shows it; `again` says what repeating the command does.
    pub fn explain(&self, session: &Session, error: together::Error, again: &str) -> Failure {
        if is_about_the_model(&error) && !self.is_foreign {
            return Failure::usage("model_not_available", &error, self.how_to_deploy());
        }
        let status = error.status();
        let mut failure = session.explain(error);
        match (status, failure.exit) {
            (Some(404), _) => {
                failure.hint =
                    Some(format!("is `{}` the model's name there? check --model and the URL", self.model));
            }
            (_, Exit::Key) if self.is_foreign => {
                failure.hint = Some(format!(
                    "set {} to that server's key; the Together key is not sent to --base-url",
                    env::OPENAI_API_KEY
                ));
            }
            (Some(400 | 422), _) => {
                failure.hint = Some(
                    "if the server objects to response_format, leave it out with --no-schema".to_owned(),
                );
            }
            (_, Exit::Network | Exit::Interrupted) if failure.code != "not_the_api" => {
                failure.hint = Some(again.to_owned())
            }
            _ => {}
        }
        failure
    }

    fn how_to_deploy(&self) -> String {
        let base = self.run.as_ref().and_then(|run| run.body["model"].as_str()).unwrap_or_default();
        let job = self.run.as_ref().and_then(|run| run.job.as_ref()).map_or("JOB", |job| job.as_str());
        if self.run.is_none() && self.model.ends_with(REFERENCE) {
            return format!(
                "`{}` can be tuned and not asked; `{}` may be what is meant",
                self.model,
                self.model.trim_end_matches(REFERENCE)
            );
        }
        if base.ends_with(REFERENCE) {
            return format!(
                "its base {base} cannot be deployed at Together: `ctxtune download {job} --adapter --extract DIR` \
                 ends with the commands that serve the adapter and ask it"
            );
        }
        format!(
            "a tuned model answers only while an endpoint runs it, which is billed by the minute: \
             `ctxtune deploy {job} --name EP` deploys it and prints the name for --model \
             (a model whose base ends in {REFERENCE} cannot be deployed: \
             `ctxtune download {job} --adapter --extract DIR` ends with the commands that serve it)"
        )
    }
}
