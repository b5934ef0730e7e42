//! A set of generated answers, matched with the references by their keys.
//!
//! The answer to the reference `K` is the record `K`; or `K.json`, since a set written file by file has
//! no other name for a line `#3` (`K.json` for a reference `K.invalid.json`, too); or `K` as `*.invalid.json`, what was left of answers that were invalid to
//! the last, with their reason. What answers no reference is extra.

use std::path::Path;

use crate::prepare::records::Records;
use crate::score::{Error, Options, Watched, source};

const JSON: &[u8] = b".json";
const INVALID: &[u8] = b".invalid.json";

/// The answers by their keys.
#[derive(Debug)]
pub struct Generated {
    records: Records,
    /// Keys and positions, by key.
    keys: Vec<(Vec<u8>, usize)>,
}

/// Where the answer to a reference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A record at this position.
    Record(usize),
    /// Only the reason why there is none.
    Refused(usize),
}

/// What belongs to what.
#[derive(Debug, PartialEq, Eq)]
pub struct Matched {
    /// For each reference, where its answer is.
    pub answers: Vec<Option<Found>>,
    /// The keys of what answers none, in their order.
    pub extra: Vec<Vec<u8>>,
}

impl Generated {
    /// Lists the answers at `path`.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn list(path: &Path, options: &Options, watch: &Watched<'_>) -> Result<Generated, Error> {
        let source = source(path)?;
        let records = Records::list(&[source], options.max_spool_bytes, watch)?;
        let mut keys: Vec<(Vec<u8>, usize)> =
            (0..records.len()).map(|position| (records.key(position).to_vec(), position)).collect();
        keys.sort_unstable();
        Ok(Generated { records, keys })
    }

    /// The answers themselves.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Finds the answers to the references with the keys `gold`.
    pub fn matched<'k>(&self, gold: impl Iterator<Item = &'k [u8]>) -> Matched {
        let mut is_used = vec![false; self.keys.len()];
        let mut take = |key: &[u8]| {
            let place = self.keys.binary_search_by(|(known, _)| known.as_slice().cmp(key)).ok()?;
            is_used[place] = true;
            Some(self.keys[place].1)
        };
        let answers = gold.map(|key| {
            let refusal = key.strip_suffix(INVALID);
            let stem = refusal.or_else(|| key.strip_suffix(JSON));
            let refused = take(&[stem.unwrap_or(key), INVALID].concat()).map(Found::Refused);
            let record = match (refusal, stem) {
                // A story that was once refused may have its answer now, under the name without that.
                (Some(stem), _) => take(&[stem, JSON].concat()).or_else(|| take(key)),
                (None, Some(_)) => take(key),
                (None, None) => take(key).or_else(|| take(&[key, JSON].concat())),
            };
            // A later attempt that succeeded counts, whatever was left of an earlier one.
            record.map(Found::Record).or(refused)
        });
        let answers = answers.collect();
        let unused = self.keys.iter().zip(&is_used).filter(|(_, is_used)| !**is_used);
        let extra = unused.map(|((key, _), _)| key.clone()).collect();
        Matched { answers, extra }
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};

    use super::*;
    use crate::score::Watch;

    struct Unwatched;

    impl Watch for Unwatched {
        fn expects(&self, _: u64) {}
        fn scored(&self) {}
        fn is_stopped(&self) -> bool {
            false
        }
    }

    #[test]
    fn answers_are_found_by_their_keys() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "a.json",
            "b.invalid.json",
            "c.json",
            "c.invalid.json",
            "#0.json",
            "#1.invalid.json",
            "x.json",
            "e.json",
        ] {
            std::fs::write(dir.path().join(name), "{}").unwrap();
        }
        let options = Options {
            gold: dir.path().to_owned(),
            limit: None,
            generated: Vec::new(),
            seed: 0,
            resamples: NonZeroU32::MIN,
            threads: NonZeroUsize::MIN,
            max_record_bytes: 10,
            max_spool_bytes: 10,
        };
        let generated = Generated::list(dir.path(), &options, &Watched(&Unwatched)).unwrap();
        let gold: [&[u8]; 7] = [b"a.json", b"b.json", b"c.json", b"#0", b"#1", b"d.json", b"e.invalid.json"];
        let matched = generated.matched(gold.into_iter());
        let name = |position: usize| String::from_utf8(generated.records().key(position).to_vec()).unwrap();
        let found: Vec<Option<(bool, String)>> = matched
            .answers
            .iter()
            .map(|found| match found {
                Some(Found::Record(position)) => Some((true, name(*position))),
                Some(Found::Refused(position)) => Some((false, name(*position))),
                None => None,
            })
            .collect();
        let expected = [
            Some((true, "a.json".to_owned())),
            Some((false, "b.invalid.json".to_owned())),
            Some((true, "c.json".to_owned())),
            Some((true, "#0.json".to_owned())),
            Some((false, "#1.invalid.json".to_owned())),
            None,
            Some((true, "e.json".to_owned())),
        ];
        assert_eq!(found, expected);
        assert_eq!(matched.extra, [b"x.json".to_vec()]);
    }
}
