//! The config, metadata, checkpoints and alert of a job's W&B run.
//!
//! Pure. The body of a creation and the job object of the service have the same fields, so that one function
//! reads both: for `submit`, and for a `monitor` on another machine. The keys are those of the configuration file.

use serde_json::{Map, Value, json};

use crate::job::parameters::{Parameters, place};
use crate::job::price::dollars_text;
use crate::job::progress::Progress;
use crate::job::tag::TAG_DIGITS;
use ctxtune_service::together::{Checkpoint, Ending, Job, whole};
use ctxtune_service::wandb::run::{Alert, JOB_KEY, Metadata, RESOLVED_KEY, Severity};

const JOB_TYPE: &str = "fine-tune";

/// The parameters that a job may inherit from the checkpoint it starts from.
pub(crate) const INHERITED: [&str; 6] =
    ["base_model", "lora", "lora_rank", "lora_alpha", "lora_dropout", "lora_trainable_modules"];

const MOST_TAG: usize = 64;

/// Every parameter of a job, by its key in the configuration file; what was not sent is `null`. `body` is the
/// body of its creation, or the job as the service shows it.
pub fn parameters(body: &Value) -> Map<String, Value> {
    let suffix = body.get("suffix").and_then(Value::as_str).filter(|text| !text.is_empty());
    let value = |key: &str| match (key, body.pointer(&place(key))) {
        ("lora", Some(Value::String(kind))) => json!(!kind.eq_ignore_ascii_case("full")),
        ("lora", _) => Value::Null,
        ("suffix", _) => json!(suffix.map(|suffix| split_tag(suffix).0)),
        (_, value) => value.cloned().unwrap_or_default(),
    };
    Parameters::keys().into_iter().map(|key| (key.clone(), value(&key))).collect()
}

/// A suffix without the tag at its end, and the tag where it has one.
pub(crate) fn split_tag(suffix: &str) -> (&str, Option<&str>) {
    let (own, last) = suffix.rsplit_once('-').unwrap_or(("", suffix));
    let is_tag = last.len() == TAG_DIGITS && last.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_tag { (own, Some(last)) } else { (suffix, None) }
}

pub(crate) fn job_keys(job: &Job) -> Map<String, Value> {
    let (train, val) = job.file_ids();
    let keys =
        [(JOB_KEY, json!(job.id.as_str())), ("train_file_id", json!(train)), ("val_file_id", json!(val))];
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

pub fn of_job(job: &Job) -> Map<String, Value> {
    let mut config = parameters(&job.object);
    if let Some(model) = job.model() {
        config.insert("base_model".to_owned(), model.into());
    }
    config.insert("lora".to_owned(), (!job.trains_all_weights()).into());
    config.extend(job_keys(job));
    config
}

/// The values that the service derived, as far as they are known, under a key of their own.
pub fn resolved(progress: &Progress) -> Map<String, Value> {
    let job = progress.job();
    let ended = job.filter(|job| job.status.ending().is_some());
    let values = [
        ("batch_size", job.and_then(|job| whole(&job.object, &["batch_size"]))),
        ("total_steps", progress.total_steps()),
        ("token_count", ended.and_then(Job::token_count).filter(|count| *count > 0)),
    ];
    under_resolved(values)
}

/// The known ones of `values`, under the key of derived values; empty where none is known.
pub(crate) fn under_resolved<const N: usize>(values: [(&str, Option<u64>); N]) -> Map<String, Value> {
    let known = values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
    let known: Map<String, Value> = known.collect();
    let is_empty = known.is_empty();
    std::iter::once((RESOLVED_KEY.to_owned(), Value::Object(known))).filter(|_| !is_empty).collect()
}

/// The default metadata of a new run; `notes` is the command.
pub fn metadata(job: &Job, notes: Option<String>) -> Metadata {
    let kind = if job.trains_all_weights() { "full" } else { "lora" };
    let model = job.model().and_then(|model| model.rsplit('/').next().map(str::to_owned));
    let tags = ["ctxtune", kind].map(str::to_owned).into_iter().chain(model);
    let tags = tags.map(|tag| tag.chars().take(MOST_TAG).collect()).filter(|tag: &String| !tag.is_empty());
    Metadata { display_name: job.suffix(), job_type: Some(JOB_TYPE.to_owned()), tags: tags.collect(), notes }
}

/// The summary fields with step and path of every checkpoint, and of the one with the lowest evaluation loss.
pub fn checkpoints(checkpoints: &[Checkpoint], progress: &Progress) -> Map<String, Value> {
    let value = |checkpoint: &Checkpoint| json!({ "step": checkpoint.step, "path": checkpoint.path, "kind": checkpoint.kind });
    let loss = |checkpoint: &&Checkpoint| {
        let point = progress.eval().find(|point| Some(point.step) == checkpoint.step)?;
        Some(point.loss)
    };
    let evaluated = checkpoints.iter().filter_map(|checkpoint| Some((checkpoint, loss(&checkpoint)?)));
    let best = evaluated.min_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(best, _)| value(best));
    let mut sorted: Vec<&Checkpoint> = checkpoints.iter().collect();
    sorted.sort_by_key(|checkpoint| checkpoint.step);
    let mut fields = Map::new();
    if !sorted.is_empty() {
        fields.insert("checkpoints".to_owned(), sorted.into_iter().map(value).collect());
    }
    fields.extend(best.map(|best| ("best_checkpoint".to_owned(), best)));
    fields
}

pub fn alert(progress: &Progress, ending: Ending, page: Option<&str>) -> Option<Alert> {
    let job = progress.job()?;
    let (verb, severity) = match ending {
        Ending::Completed => ("completed", Severity::Info),
        Ending::Cancelled => ("cancelled", Severity::Warn),
        Ending::Failed => ("failed", Severity::Error),
    };
    let name = job.suffix().unwrap_or_else(|| job.id.to_string());
    let loss =
        progress.last_eval().map(|last| format!("validation loss: {:.4} at step {}", last.loss, last.step));
    let best = progress.best_eval().map(|best| format!("best: {:.4} at step {}", best.loss, best.step));
    let lines = [
        Some(format!("The fine-tuning job {} {verb} ({}).", job.id, job.status)),
        loss,
        best,
        progress.price().map(|price| format!("price: {}", dollars_text(price))),
        job.model_output_name().filter(|_| ending == Ending::Completed).map(|name| format!("model: {name}")),
        page.map(str::to_owned),
    ];
    let text = lines.into_iter().flatten().collect::<Vec<_>>().join("\n");
    Some(Alert { title: format!("{verb}: {name}"), text, severity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::parameters::tests::{seed, settled};
    use crate::job::parameters::{BatchSize, Files, Parameters, TrainOnInputs};
    use ctxtune_service::together::job::MetricRow;

    fn job(object: Value) -> Job {
        Job::read(&object).unwrap()
    }

    #[test]
    fn every_value_that_is_sent_is_there() {
        let all = Parameters {
            early_stopping: true,
            early_stopping_patience: Some(4),
            early_stopping_min_delta: Some(0.25),
            early_stopping_warmup_evals: Some(5),
            max_seq_length: Some(4096),
            gradient_accumulation_steps: Some(2),
            batch_size: BatchSize::Samples(8),
            train_on_inputs: TrainOnInputs::Always(true),
            ..seed()
        };
        let files = Files { train: "file-t", val: Some("file-v") };
        let body = settled(all).body(files, "mine-0123abcd");
        let mut config = parameters(&body);
        assert_eq!(config["from_checkpoint"], Value::Null);
        config.retain(|_, value| !value.is_null());
        let expected = json!({
            "base_model": "meta-llama/Meta-Llama-3.1-8B-Instruct", "n_epochs": 3, "n_evals": 3, "n_checkpoints": 3, "learning_rate": 1e-5, "batch_size": 8, "lora": true,
            "lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.0, "lora_trainable_modules": "all-linear",
            "lr_scheduler": "cosine", "min_lr_ratio": 0.0, "lr_num_cycles": 0.5, "warmup_ratio": 0.0,
            "weight_decay": 0.0, "max_grad_norm": 1.0, "packing": true, "max_seq_length": 4096,
            "gradient_accumulation_steps": 2, "train_on_inputs": true, "random_seed": 42, "suffix": "mine",
            "early_stopping": true, "early_stopping_patience": 4, "early_stopping_min_delta": 0.25,
            "early_stopping_warmup_evals": 5,
        });
        assert_eq!(Value::Object(config), expected);
        let full = job(json!({ "id": "ft-1", "status": "running", "training_type": { "type": "Full" } }));
        let config = of_job(&full);
        assert_eq!((&config["lora"], &config["lora_rank"]), (&json!(false), &Value::Null));
    }

    #[test]
    fn a_suffix_is_told_from_its_tag() {
        assert_eq!(split_tag("a-b-0123abcd"), ("a-b", Some("0123abcd")));
        assert_eq!(split_tag("0123abcd"), ("", Some("0123abcd")));
        assert_eq!(split_tag("a-0123abcg"), ("a-0123abcg", None));
        assert_eq!(split_tag("plain"), ("plain", None));
    }

    #[test]
    fn what_the_service_worked_out_is_under_a_key_of_its_own() {
        let mut progress = Progress::default();
        progress.absorb_job(job(json!({
            "id": "ft-1", "status": "running", "batch_size": "max", "total_steps": 80, "token_count": 7,
        })));
        assert_eq!(Value::Object(resolved(&progress)), json!({ "resolved": { "total_steps": 80 } }));
        progress.absorb_job(job(json!({
            "id": "ft-1", "status": "completed", "batch_size": 16, "total_steps": 80, "token_count": 7,
        })));
        let expected = json!({ "resolved": { "batch_size": 16, "total_steps": 80, "token_count": 7 } });
        assert_eq!(Value::Object(resolved(&progress)), expected);
        assert!(resolved(&Progress::default()).is_empty());
    }

    #[test]
    fn the_best_checkpoint_is_the_one_whose_step_evaluated_best() {
        let mut progress = Progress::default();
        let row = |(step, loss)| MetricRow::read(&json!({ "train/global_step": step, "eval/loss": loss }));
        progress.absorb_metrics(&[(10, 1.0), (15, 0.25), (20, 0.5), (30, 0.75)].map(row));
        let saved = |step: u64| Checkpoint::read(&json!({ "step": step, "path": format!("s3://{step}") }));
        let fields = checkpoints(&[saved(30), saved(20), saved(10)], &progress);
        let steps: Vec<&Value> =
            fields["checkpoints"].as_array().unwrap().iter().map(|saved| &saved["step"]).collect();
        assert_eq!(steps, [10, 20, 30], "in the order of steps");
        assert_eq!(fields["best_checkpoint"]["path"], "s3://20");
        assert!(checkpoints(&[saved(40)], &progress).get("best_checkpoint").is_none());
        assert!(checkpoints(&[], &progress).is_empty());
    }

    #[test]
    fn an_alert_says_how_it_ended_and_what_there_is_now() {
        let mut progress = Progress::default();
        progress.absorb_job(job(json!({
            "id": "ft-1", "status": "completed", "suffix": "mine-0123abcd", "model_output_name": "a/b",
        })));
        let alert = |ending| super::alert(&progress, ending, Some("https://page")).unwrap();
        let completed = alert(Ending::Completed);
        assert_eq!(
            (completed.title.as_str(), completed.severity),
            ("completed: mine-0123abcd", Severity::Info)
        );
        assert!(completed.text.contains("model: a/b") && completed.text.ends_with("\nhttps://page"));
        assert_eq!(alert(Ending::Failed).severity, Severity::Error);
        assert!(!alert(Ending::Failed).text.contains("model: "));
        assert!(super::alert(&Progress::default(), Ending::Failed, None).is_none());
    }

    #[test]
    fn a_run_is_named_after_its_job() {
        let object = json!({
            "id": "ft-1", "status": "running", "suffix": "mine-0123abcd", "model": format!("a/{}", "m".repeat(99)),
        });
        let words = metadata(&job(object), Some("ctxtune finetune x".to_owned()));
        assert_eq!(words.display_name.as_deref(), Some("mine-0123abcd"));
        assert_eq!(
            (words.job_type.as_deref(), words.notes.as_deref()),
            (Some("fine-tune"), Some("ctxtune finetune x"))
        );
        assert_eq!(
            (&words.tags[..2], words.tags[2].len()),
            (&["ctxtune".to_owned(), "lora".to_owned()][..], 64)
        );
    }
}
