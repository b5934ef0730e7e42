//! `ctxtune doctor`: looks at everything that a job needs, before the job needs it.
//!
//! One line a check, as soon as it is known. It asks the service who the key belongs to and what
//! the model allows, and creates nothing there; here it writes and removes one temporary file in a
//! directory that is there already. No key is shown, nor anything of a proxy's password.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::args::DoctorArgs;
use crate::commands::job::finetune::find_config;
use crate::commands::machine::{certificates, data, key, output, state, wandb};
use crate::commands::model::endpoints;
use crate::screen::finding::{Finding, Findings};
use crate::screen::report::{Terminal, fields};
use crate::session;
use crate::session::environment::{self, Configured, configured};
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_pipeline::deploy::running;
use ctxtune_pipeline::job::limits::{Row, gives_adapter_only, rows, settle};
use ctxtune_pipeline::job::model::{self, Chosen};
use ctxtune_pipeline::job::parameters::Parameters;
use ctxtune_pipeline::job::plan;
use ctxtune_pipeline::session::{base_url_of, proxy};
use ctxtune_pipeline::text::grouped;
use ctxtune_pipeline::{Environment, Exit, Failure, Session, env, shell};
use ctxtune_service::Stopped;
use ctxtune_service::together::project::Project;
use ctxtune_service::together::{Identity, Together};

/// The most seconds that two clocks may differ.
const SKEW_SECONDS: i64 = 30;
/// The seed of a split that nothing was said about.
const SEED: u64 = 42;

pub fn run(args: &DoctorArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let screen = terminal.clone();
    let mut findings = Findings::new(&screen);
    let examined = examine(args, &mut findings);
    let failure = match examined {
        Ok(()) => findings.failure(),
        Err(stopped) => Some(terminal.signals.explain(stopped)),
    };
    Ok(match failure {
        Some(failure) => terminal.fail(&failure, fields(&findings)),
        None => terminal.report(None, &findings),
    })
}

fn examine(args: &DoctorArgs, findings: &mut Findings<'_>) -> Result<(), Stopped> {
    let environment = match environment::read(args.config_path.as_deref(), findings.terminal()) {
        Ok(environment) => environment,
        // Which service would be asked is not known, so none is.
        Err(failure) => {
            findings.add("dotenv", Finding::of(failure));
            return Ok(());
        }
    };
    findings.add("base_url", place(args, &environment));
    findings.add("proxy", way(args, &environment));
    findings.add("certificates", certificates(&environment));
    findings.add("key", key(&environment));
    let (wandb, journal) = (wandb(&environment), environment.journal());
    let has_key = environment.get(env::TOGETHER_API_KEY).is_some();
    let session = session::start(&args.remote, environment, findings.terminal());
    let known = identity(session.ok().filter(|_| has_key), findings);
    stop(findings.terminal())?;
    let settings = settings(args);
    findings.add("config", config(args, settings.as_ref()));
    model(known.as_ref().map(|(session, _)| session), settings.as_ref().ok(), findings);
    stop(findings.terminal())?;
    let running = known.as_ref().and_then(|(session, whose)| {
        let project = Project::of(whose)?;
        running::glance(session, Some(project))
    });
    findings.add("endpoints", endpoints::finding(running.as_deref()));
    stop(findings.terminal())?;
    let out = settings.map_or_else(|_| args.output_dir.clone(), |settings| Some(settings.out));
    let unknown = || Finding::off("not known: the configuration cannot be read");
    findings.add("output", out.as_deref().map_or_else(unknown, output));
    findings.add("data", out.as_deref().map_or_else(unknown, data));
    findings.add("wandb", wandb);
    findings.add("state", state(journal.as_deref()));
    Ok(())
}

fn stop(terminal: &Terminal) -> Result<(), Stopped> {
    if terminal.signals.is_stopped() { Err(Stopped) } else { Ok(()) }
}

/// Where the API is, and who says so.
fn place(args: &DoctorArgs, environment: &Environment) -> Finding {
    let from = match (&args.remote.base_url, environment.place(env::TOGETHER_BASE_URL)) {
        (Some(_), _) => "--base-url".to_owned(),
        (None, Some(place)) => format!("{} of {place}", env::TOGETHER_BASE_URL),
        (None, None) => "the default".to_owned(),
    };
    let base = base_url_of(args.remote.base_url.as_deref(), environment);
    match base.and_then(|base| environment.refuse_test_settings(&base).map(|()| base)) {
        Ok(base) if base.is_loopback() => Finding::ok(format!("{base} ({from}), on this machine")),
        Ok(base) => Finding::ok(format!("{base} ({from})")),
        Err(failure) => Finding::of(failure),
    }
}

/// The proxy, without the password in its URL.
fn way(args: &DoctorArgs, environment: &Environment) -> Finding {
    let base = base_url_of(args.remote.base_url.as_deref(), environment).ok();
    let uri: Option<ureq::http::Uri> = base.and_then(|base| base.as_str().parse().ok());
    match proxy(environment) {
        Ok(None) => Finding::ok("none"),
        Ok(Some((name, proxy))) => {
            let url = format!(
                "{}://{}:{}",
                proxy.protocol().to_string().to_ascii_lowercase(),
                proxy.host(),
                proxy.port()
            );
            let is_passed = uri.is_some_and(|uri| proxy.is_no_proxy(&uri));
            let passed = if is_passed { ", which the base URL is asked without" } else { "" };
            Finding::ok(format!("{url} ({name}){passed}"))
        }
        Err(failure) => Finding::of(failure),
    }
}

/// Asks whose key it is, and compares the clocks. Gives the service if it lets us in, and whose it is.
fn identity(session: Option<Session>, findings: &mut Findings<'_>) -> Option<(Session, Identity)> {
    let untold = || Finding::off("not known: the service told no time");
    let Some(session) = session else {
        findings.add("account", Finding::off("not known: the service cannot be asked"));
        findings.add("clock", untold());
        return None;
    };
    match session.together.whoami() {
        Ok(identity) => {
            findings.add("account", account(&session.together, &identity));
            findings.add("clock", identity.date.map_or_else(untold, |theirs| clock(&session, theirs)));
            Some((session, identity))
        }
        Err(error) => {
            let failure = session.explain(error);
            let exit = if failure.exit == Exit::Key { Exit::Key } else { Exit::Network };
            findings.add("account", Finding::of(Failure { exit, ..failure }));
            findings.add("clock", untold());
            None
        }
    }
}

fn account(together: &Together, identity: &Identity) -> Finding {
    let named = [
        ("project", identity.project_name.as_ref().or(identity.project_id.as_ref())),
        ("organization", identity.organization_name.as_ref()),
    ];
    let named: Vec<String> =
        named.iter().filter_map(|(what, name)| Some(format!("{what} {}", (*name)?))).collect();
    if named.is_empty() {
        let said = format!("{} does not say whose key it is", together.base().origin());
        return Finding::warn(
            said,
            "is this base URL meant? the model's check shows whether the key is accepted",
        );
    }
    Finding::ok(format!("the key is accepted: {}", named.join(", ")))
}

fn clock(session: &Session, theirs: Timestamp) -> Finding {
    let ahead = session.clock.now().duration_since(theirs).as_secs();
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let said = format!("{} s {direction} the service's", ahead.abs());
    if ahead.abs() > SKEW_SECONDS {
        return Finding::warn(said, "set this machine's clock, best from the network");
    }
    Finding::ok(if ahead.abs() <= 1 { "as the service's".to_owned() } else { said })
}

#[derive(Clone)]
struct Settings {
    out: PathBuf,
    parameters: Parameters,
    has_val: bool,
}

fn settings(args: &DoctorArgs) -> Result<Settings, Failure> {
    let Configured { data, tune, .. } = configured(args.config_path.as_deref())?;
    let out = args.output_dir.clone().unwrap_or_else(|| data.out());
    let manifest = Manifest::read(&out).ok();
    let seed = manifest.as_ref().map(|manifest| manifest.options.seed).or(data.seed).unwrap_or(SEED);
    Ok(Settings {
        out,
        parameters: args.choices.clone().resolve(tune, seed),
        // What is not prepared will be, and has validation data by default.
        has_val: manifest.is_none_or(|manifest| manifest.val.is_some()),
    })
}

/// The file that was read, or the one that `finetune` would read.
fn config(args: &DoctorArgs, settings: Result<&Settings, &Failure>) -> Finding {
    match (settings, &args.config_path, find_config()) {
        (Err(failure), ..) => Finding::of(failure.clone()),
        (Ok(_), Some(path), _) => Finding::ok(format!("`{}`", path.display())),
        (Ok(_), None, Some(path)) => {
            let said = format!("`{}` is left out here, and `ctxtune finetune` reads it", path.display());
            Finding::warn(said, format!("check with it: --config-path={}", shell::path(&path)))
        }
        (Ok(_), None, None) => Finding::ok("no file: the flags and the defaults"),
    }
}

fn model(session: Option<&Session>, settings: Option<&Settings>, findings: &mut Findings<'_>) {
    let chosen = match (session, settings) {
        (Some(session), Some(settings)) => choose(session, settings),
        (None, _) => Err(Finding::off("not known: the service cannot be asked")),
        (_, None) => Err(Finding::off("not known: the configuration cannot be read")),
    };
    match chosen {
        Ok((chosen, settings)) => {
            findings.add("model", limits(&chosen));
            findings.add("deployment", deployment(&chosen, &settings.parameters));
            findings.add("values", values(&chosen, settings));
        }
        Err(finding) => {
            findings.add("model", finding);
            findings.add("deployment", Finding::off("not known without the model"));
            findings.add("values", Finding::off("not known without the model's limits"));
        }
    }
}

fn choose(session: &Session, settings: &Settings) -> Result<(Chosen, Settings), Finding> {
    let mut settings = settings.clone();
    match model::choose(&session.together, &mut settings.parameters) {
        Ok(chosen) => Ok((chosen, settings)),
        Err(error) => Err(Finding::of(session.explain(error))),
    }
}

fn values(chosen: &Chosen, settings: Settings) -> Finding {
    let settled = settle(settings.parameters, &chosen.limits, settings.has_val);
    let rows = rows(&settled, &chosen.limits, settings.has_val);
    if let Err(failure) = plan::refuse(&rows, &chosen.limits) {
        return Finding::of(failure);
    }
    let note = |row: &Row| Some(format!("{} {}: {}", row.key, row.value, row.note?));
    let notes: Vec<String> = rows.iter().filter_map(note).collect();
    match notes.as_slice() {
        [] => Finding::ok(format!("all {} are within the model's limits", rows.len())),
        notes => Finding::warn(notes.join("; "), "change them if they are not meant"),
    }
}

fn limits(chosen: &Chosen) -> Finding {
    let limits = &chosen.limits;
    let most = [
        (limits.max_num_epochs, "epochs"),
        (limits.lora.and_then(|lora| lora.max_rank), "LoRA rank"),
        (limits.max_seq_length, "tokens a sequence"),
    ];
    let most: Vec<String> =
        most.iter().filter_map(|(most, what)| Some(format!("{what} up to {}", grouped((*most)?)))).collect();
    let colon = if most.is_empty() { "" } else { ": " };
    let name = &limits.model_name;
    let twin = chosen.replaced.as_ref().map(|name| format!(" (the tunable twin of {name})"));
    Finding::ok(format!("{name}{}{colon}{}", twin.unwrap_or_default(), most.join(", ")))
}

fn deployment(chosen: &Chosen, parameters: &Parameters) -> Finding {
    if gives_adapter_only(parameters, &chosen.limits) {
        return Finding::warn(
            "LoRA is not merged into this model: a job gives an adapter only, which cannot be deployed at Together",
            "to deploy it there, tune another --base-model: ctxtune models lists them",
        );
    }
    if parameters.from_checkpoint.is_some() {
        return Finding::off("not known of a checkpoint: it is as its base model");
    }
    if chosen.is_download_only(parameters) {
        return Finding::warn(
            "what is tuned from a -Reference model cannot be deployed at Together, only downloaded",
            "to deploy it there, tune another --base-model: ctxtune models lists them",
        );
    }
    Finding::ok("nothing in the model's name speaks against it")
}
