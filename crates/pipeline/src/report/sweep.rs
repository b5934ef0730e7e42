//! What is known of the sweeps of a directory, from their ledgers.

use std::path::Path;

use serde::Serialize;

use crate::job::ledger::LedgerError;
use crate::report::path::without_path;
use crate::sweep::book::{Book, SWEEPS_DIR};
use crate::sweep::{Goal, Metric};
use ctxtune_service::together::JobId;

#[derive(Debug, Serialize)]
pub struct SweepReport {
    /// Its id.
    pub id: String,
    /// What its runs are ranked by; the validation loss where its ledger is too old to say it.
    pub metric: Metric,
    /// The numbers of its runs from 0, best first, those without a value at the end.
    pub order: Vec<usize>,
    /// How many of them have a value.
    pub ranked: usize,
    /// Its ledger.
    pub book: Book,
}

impl SweepReport {
    fn of(book: Book) -> SweepReport {
        let default = Metric { name: "val/loss".to_owned(), goal: Goal::Minimize };
        let metric = book.metric.clone().unwrap_or(default);
        let mut order: Vec<usize> = book.ranking(metric.goal).into_iter().map(|(index, _)| index).collect();
        let ranked = order.len();
        let others: Vec<usize> = (0..book.trials.len()).filter(|index| !order.contains(index)).collect();
        order.extend(others);
        SweepReport { id: book.id.clone(), metric, order, ranked, book }
    }

    pub(crate) fn has_job(&self, job: &JobId) -> bool {
        self.book.trials.iter().any(|trial| trial.job.as_ref() == Some(job))
    }

    /// The parameters that its runs vary, in the order of its file.
    pub fn varied(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = Vec::new();
        for (key, _) in self.book.trials.iter().flat_map(|trial| &trial.values) {
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
        keys
    }
}

pub(crate) fn of(out: &Path, troubles: &mut Vec<String>) -> Vec<SweepReport> {
    let mut ids: Vec<String> = std::fs::read_dir(out.join(SWEEPS_DIR))
        .map(|entries| {
            let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect()
        })
        // A directory without sweeps is the rule.
        .unwrap_or_default();
    ids.sort_unstable();
    let read = |id: &String| -> Result<Option<SweepReport>, LedgerError> {
        Ok(Book::read(out, id)?.filter(|book| !book.trials.is_empty()).map(SweepReport::of))
    };
    let mut sweeps = Vec::new();
    for id in &ids {
        match read(id) {
            Ok(sweep) => sweeps.extend(sweep),
            Err(error) => troubles.push(without_path(&error.to_string(), out)),
        }
    }
    sweeps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::book::Point;

    #[test]
    fn runs_are_ranked_by_the_metric_of_the_sweep() {
        let dir = tempfile::tempdir().unwrap();
        let values = |rank: u64| vec![("lora_rank".to_owned(), rank.into())];
        let mut book = Book::new("0a".to_owned(), vec![values(8), values(16), values(32)]);
        for (index, value) in [(0, 1.5), (2, 1.25)] {
            book.trials[index].last = Some(Point { step: 4, value });
        }
        book.write(dir.path()).unwrap();
        let sweep = of(dir.path(), &mut Vec::new()).remove(0);
        assert_eq!((sweep.order, sweep.ranked), (vec![2, 0, 1], 2));
        assert_eq!(sweep.metric.name, "val/loss", "an old ledger does not say it");
        book.metric = Some(Metric { name: "accuracy".to_owned(), goal: Goal::Maximize });
        book.write(dir.path()).unwrap();
        std::fs::write(dir.path().join("sweeps/zz.json"), "[]").unwrap();
        let mut troubles = Vec::new();
        let sweep = of(dir.path(), &mut troubles).remove(0);
        assert_eq!((&sweep.order[..], sweep.varied()), (&[0, 2, 1][..], vec!["lora_rank"]));
        assert!(
            troubles[0].contains("zz.json") && !troubles[0].contains(&*dir.path().to_string_lossy()),
            "{troubles:?}"
        );
    }
}
