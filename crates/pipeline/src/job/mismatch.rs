//! The data that a job was trained on, beside the data that its directory holds now.
//!
//! A directory can be prepared again after a job was trained. Its validation records may then be part of the
//! training data, and its template may differ: commands that use both warn, and `score --val` refuses.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::failure::Failure;
use crate::job::ledger::Run;
use crate::ui::Ui;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_engine::prepare::{Options, Prepared};
use ctxtune_service::together::JobId;

/// Digits of a digest that people are shown.
const SHOWN: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    #[serde(skip)]
    out: PathBuf,
    /// The job.
    job: JobId,
    /// The digests of what it was trained on.
    trained: Digests,
    /// The digests of what the directory holds.
    prepared: Digests,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Digests {
    /// SHA-256 of the training file in hexadecimal.
    pub train: String,
    /// SHA-256 of the validation file in hexadecimal.
    pub val: Option<String>,
}

impl Digests {
    fn shown(&self) -> String {
        let short = |digest: &str| digest.get(..SHOWN).unwrap_or(digest).to_owned();
        let val = self.val.as_deref().map_or("no validation".to_owned(), |val| format!("val {}", short(val)));
        format!("train {}, {val}", short(&self.train))
    }
}

impl Mismatch {
    /// How the data of `run`'s job differs from that of `manifest` in `out`; nothing where it is the same.
    pub fn of(out: &Path, run: &Run, manifest: &Manifest) -> Option<Mismatch> {
        let trained = Digests { train: run.train_sha256.clone(), val: run.val_sha256.clone() };
        let prepared = Digests {
            train: manifest.train.content().1.to_owned(),
            val: manifest.val.as_ref().map(|val| val.content().1.to_owned()),
        };
        let job = run.job.clone()?;
        (trained != prepared).then(|| Mismatch { out: out.to_owned(), job, trained, prepared })
    }

    /// How the data of the newest job of `out` differs from that of `manifest`. Ledgers that
    /// cannot be read are ignored: this is a warning only.
    pub(crate) fn of_newest(out: &Path, manifest: &Manifest) -> Option<Mismatch> {
        let runs = Run::read_all(out).unwrap_or_default();
        let newest = runs.iter().rev().find(|run| run.job.is_some())?;
        Mismatch::of(out, newest, manifest)
    }

    /// How the data of the newest job of the output directory differs from what was just prepared there.
    pub fn of_prepared(options: &Options, prepared: &Prepared) -> Option<Mismatch> {
        let (manifest, _) = prepared.result.as_ref()?;
        Mismatch::of_newest(&options.output_dir, manifest)
    }

    /// The same of this job, where `out` knows it.
    pub fn of_job(out: &Path, job: &JobId) -> Option<Mismatch> {
        let runs = Run::read_all(out).unwrap_or_default();
        let run = runs.iter().find(|run| run.job.as_ref() == Some(job))?;
        Mismatch::of(out, run, &Manifest::read(out).ok()?)
    }

    fn message(&self) -> String {
        format!(
            "the job {} was trained on other data ({}) than `{}` holds now ({})",
            self.job,
            self.trained.shown(),
            self.out.display(),
            self.prepared.shown()
        )
    }

    pub fn warn(&self, ui: &dyn Ui) {
        ui.warn(&self.message());
    }

    /// The refusal to score one by the other.
    pub fn refusal(&self) -> Failure {
        let hint = "prepare the directory with the job's records and options, or name one that holds its data; \
                    --allow-mismatch scores anyway, on records that may be part of the training data";
        Failure::data("data_mismatch", self.message(), hint)
    }
}
