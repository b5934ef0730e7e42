//! The names of the files that hold a model's answers, made of the keys of the records they answer.
//!
//! Here because whoever writes answers and whoever looks for them must agree. The record `x.json` has its
//! answer in `x.json`, and in `x.invalid.json` why there is none. A record that is itself named
//! `x.invalid.json`, as the file of an earlier run is, shares these two names, unless another record needs
//! them: then its whole name comes first, `x.invalid.json.json`. Pure.

use std::collections::BTreeSet;

/// What the name of a record and of an answer ends in.
pub const VALID: &str = ".json";

/// What the name of a file that says why there is no answer ends in.
pub const INVALID: &str = ".invalid.json";

/// Bytes of the longest file name that file systems in common use take.
pub const MOST_NAME_BYTES: usize = 255;

/// Names for the answers to the records of one listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AnswerNames {
    /// Keys whose answers are named by the whole key.
    whole: BTreeSet<Vec<u8>>,
}

impl AnswerNames {
    /// Names for records with these keys. A subset of them must be given the same names: list all records,
    /// also where only some are asked about.
    pub fn of<'k>(keys: impl Iterator<Item = &'k [u8]> + Clone) -> AnswerNames {
        let mut shared: Vec<&[u8]> = keys.clone().filter(|key| key.ends_with(INVALID.as_bytes())).collect();
        if shared.is_empty() {
            return AnswerNames::default();
        }
        shared.sort_unstable();
        let mut taken: BTreeSet<&[u8]> =
            keys.filter(|key| !key.ends_with(INVALID.as_bytes())).map(short_stem).collect();
        let mut whole = BTreeSet::new();
        for key in shared {
            let stem = short_stem(key);
            if is_free(&taken, stem) {
                taken.insert(stem);
            } else {
                whole.insert(key.to_vec());
            }
        }
        AnswerNames { whole }
    }

    /// What both names of the answer to the record with this key begin with: [`VALID`] and [`INVALID`] follow.
    pub fn stem<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        if self.whole.contains(key) { key } else { short_stem(key) }
    }
}

fn short_stem(key: &[u8]) -> &[u8] {
    let stem = key.strip_suffix(INVALID.as_bytes()).or_else(|| key.strip_suffix(VALID.as_bytes()));
    stem.unwrap_or(key)
}

/// Whether none of the two names with this stem is one of those that are taken.
fn is_free(taken: &BTreeSet<&[u8]>, stem: &[u8]) -> bool {
    let between = INVALID.strip_suffix(VALID).unwrap_or_default().as_bytes();
    let above = [stem, between].concat();
    let below = stem.strip_suffix(between);
    !taken.contains(stem) && !taken.contains(&*above) && below.is_none_or(|below| !taken.contains(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two names of every answer, in the order of `keys`.
    fn names(keys: &[&str]) -> Vec<[String; 2]> {
        let bytes = keys.iter().map(|key| key.as_bytes());
        let names = AnswerNames::of(bytes.clone());
        let both = |key: &[u8]| {
            let stem = String::from_utf8(names.stem(key).to_vec()).unwrap();
            [VALID, INVALID].map(|ending| format!("{stem}{ending}"))
        };
        bytes.map(both).collect()
    }

    #[track_caller]
    fn check(keys: &[&str], stems: &[&str]) {
        let expected: Vec<[String; 2]> =
            stems.iter().map(|stem| [format!("{stem}.json"), format!("{stem}.invalid.json")]).collect();
        assert_eq!(names(keys), expected, "{keys:?}");
        let all: BTreeSet<String> = names(keys).into_iter().flatten().collect();
        assert_eq!(all.len(), 2 * keys.len(), "no two records share a file: {all:?}");
    }

    #[test]
    fn a_record_named_like_an_invalid_answer_gives_way_to_the_one_that_needs_the_name() {
        check(&["a.json", "b/c.json", "#7", "x.jsonl/#7"], &["a", "b/c", "#7", "x.jsonl/#7"]);
        check(&["x.invalid.json", "y.json"], &["x", "y"]);
        check(&["x.invalid.json", "x.json"], &["x.invalid.json", "x"]);
        check(&["x.json", "x.invalid.json"], &["x", "x.invalid.json"]);
        check(&["#3.invalid.json", "#3"], &["#3.invalid.json", "#3"]);
        check(&["x.invalid.json", "x.invalid.invalid.json"], &["x.invalid.json", "x.invalid"]);
        check(
            &["x.json", "x.invalid.json", "x.invalid.invalid.json"],
            &["x", "x.invalid.json", "x.invalid.invalid.json"],
        );
        check(&["x.invalid", "x.invalid.json"], &["x.invalid", "x.invalid.json"]);
    }
}
