//! A set of generated answers, matched with the references by their keys.
//!
//! The answer to the reference `K` is the record of the name that `generate` gives it (`x.json` for `x.json`,
//! `#3.json` for a line `#3`: see [`crate::answer_file`]), or the record `K`, as other programs have it; else the
//! `*.invalid.json` of that name, what was left of answers that were invalid to the last, with their reason.
//! What answers no reference is extra.

use std::path::Path;

use crate::answer_file::{AnswerNames, INVALID, VALID};
use crate::score::{Error, Options, Watched, source};
use crate::source::records::Records;

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
        let source = source(path, options.containers)?;
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

    /// Where in the list of keys this one is.
    fn find(&self, key: &[u8]) -> Option<usize> {
        self.keys.binary_search_by(|(known, _)| known.as_slice().cmp(key)).ok()
    }

    /// Finds the answers to the references with the keys `gold`, whose names are `names`.
    pub fn matched<'k>(&self, gold: impl Iterator<Item = &'k [u8]>, names: &AnswerNames) -> Matched {
        let mut is_used = vec![false; self.keys.len()];
        let mut take = |key: &[u8]| {
            let place = self.find(key)?;
            is_used[place] = true;
            Some(self.keys[place].1)
        };
        let answers = gold.map(|key| {
            let stem = names.stem(key);
            let refused = take(&[stem, INVALID.as_bytes()].concat()).map(Found::Refused);
            let named = [stem, VALID.as_bytes()].concat();
            // A line's own key first; but a file that is named like an invalid answer is one, unless the record
            // that it would belong to has an answer.
            let order = if key.ends_with(VALID.as_bytes()) { [&named, key] } else { [key, &named] };
            let may_be_refusal = |name: &[u8]| {
                let other = name.strip_suffix(INVALID.as_bytes()).filter(|_| name == stem);
                other.is_some_and(|other| self.find(&[other, VALID.as_bytes()].concat()).is_none())
            };
            let record = order.into_iter().filter(|name| !may_be_refusal(name)).find_map(&mut take);
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
    use crate::source::Containers;

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
            // Two records of which one is named like the other's invalid answer: both answered, and neither.
            "f.json",
            "f.invalid.json.json",
            "g.invalid.json",
            "g.invalid.json.invalid.json",
            // Answered by a program that keeps names as they are; one answered, one missing.
            "h.json",
            "h.invalid.json",
            "i.invalid.json",
        ] {
            std::fs::write(dir.path().join(name), "{}").unwrap();
        }
        let options = Options {
            gold: dir.path().to_owned(),
            limit: None,
            containers: Containers::Skip,
            generated: Vec::new(),
            seed: 0,
            resamples: NonZeroU32::MIN,
            threads: NonZeroUsize::MIN,
            max_record_bytes: 10,
            max_spool_bytes: 10,
        };
        let generated = Generated::list(dir.path(), &options, &Watched(&Unwatched)).unwrap();
        let gold = [
            "a.json",
            "b.json",
            "c.json",
            "#0",
            "#1",
            "d.json",
            "e.invalid.json",
            "f.json",
            "f.invalid.json",
            "g.json",
            "g.invalid.json",
            "h.json",
            "h.invalid.json",
            "i.json",
            "i.invalid.json",
        ];
        let gold = gold.iter().map(|key| key.as_bytes());
        let matched = generated.matched(gold.clone(), &AnswerNames::of(gold));
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
            Some((true, "f.json".to_owned())),
            Some((true, "f.invalid.json.json".to_owned())),
            Some((false, "g.invalid.json".to_owned())),
            Some((false, "g.invalid.json.invalid.json".to_owned())),
            Some((true, "h.json".to_owned())),
            Some((true, "h.invalid.json".to_owned())),
            Some((false, "i.invalid.json".to_owned())),
            None,
        ];
        assert_eq!(found, expected);
        assert_eq!(matched.extra, [b"x.json".to_vec()]);
    }
}
