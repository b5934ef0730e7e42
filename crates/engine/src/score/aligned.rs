//! References beside their answers, step by step, as they were compared: for whoever shows the worst of them.
//!
//! Read again for the few that are shown; a scoring keeps no texts.

use serde::Serialize;

use crate::score::generated::{Found, Generated};
use crate::score::gold::Gold;
use crate::score::resolve::{Resolved, ResolvedStep, Told};
use crate::score::{Error, Options, Watch, Watched};
use crate::source::records::RecordReader;

/// A reference beside its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Aligned {
    /// The reference's key.
    #[serde(skip)]
    pub key: Vec<u8>,
    /// The texts of each step; those of the one that is longer at the end.
    pub steps: Vec<Vec<Pair>>,
}

/// A text of the reference and what is in its place in the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// What it is: `state`, or an agent and `sees` or `does`.
    pub what: String,
    /// The reference's; nothing where it has none.
    pub gold: Option<String>,
    /// The answer's.
    pub answer: Option<String>,
}

/// The references `keys` beside their answers in the set `index` of `options`, tags resolved. What cannot be read, and
/// what is no usable context, has no texts.
///
/// # Errors
/// When the sources cannot be listed or read again.
pub fn align(
    options: &Options,
    index: usize,
    keys: &[Vec<u8>],
    watch: &dyn Watch,
) -> Result<Vec<Aligned>, Error> {
    let watched = Watched(watch);
    let gold = Gold::list(&options.gold, options, &watched)?;
    let generated = Generated::list(&options.generated[index], options, &watched)?;
    let matched = generated.matched(gold.keys().iter().map(|(key, _)| key.as_slice()), &gold.names);
    let mut golds = gold.reader(options.max_record_bytes);
    let mut answers = RecordReader::new(generated.records(), options.max_record_bytes);
    let mut aligned = Vec::new();
    for key in keys {
        let Ok(place) = gold.keys().binary_search_by(|(known, _)| known.cmp(key)) else { continue };
        let left = golds.with_context(gold.keys()[place].1, |context| owned(&Resolved::of(context)))?;
        let right = match matched.answers[place] {
            Some(Found::Record(position)) => {
                answers.with_context(position, |context| owned(&Resolved::of(context)))?.unwrap_or_default()
            }
            Some(Found::Refused(_)) | None => Vec::new(),
        };
        aligned.push(Aligned { key: key.clone(), steps: pairs(left.unwrap_or_default(), right) });
    }
    Ok(aligned)
}

/// The texts of a step by what they are.
type Texts = Vec<(String, String)>;

fn owned(context: &Resolved<'_>) -> Vec<Texts> {
    let texts = |step: &ResolvedStep<'_>| {
        let mut texts = vec![("state".to_owned(), step.state.to_string())];
        let told = |told: &[Told<'_>], verb: &str| -> Texts {
            told.iter().map(|(agent, text)| (format!("{agent} {verb}"), text.to_string())).collect()
        };
        texts.extend(told(&step.observations, "sees"));
        texts.extend(told(&step.actions, "does"));
        texts
    };
    context.steps.iter().map(texts).collect()
}

fn pairs(gold: Vec<Texts>, answer: Vec<Texts>) -> Vec<Vec<Pair>> {
    let length = gold.len().max(answer.len());
    let (mut gold, mut answer) = (gold.into_iter(), answer.into_iter());
    let step = |_| {
        let mut rest = answer.next().unwrap_or_default();
        let mut pairs: Vec<Pair> = Vec::new();
        for (what, text) in gold.next().unwrap_or_default() {
            let place = rest.iter().position(|(other, _)| *other == what);
            let answer = place.map(|place| rest.remove(place).1);
            pairs.push(Pair { what, gold: Some(text), answer });
        }
        pairs.extend(rest.into_iter().map(|(what, text)| Pair { what, gold: None, answer: Some(text) }));
        pairs
    };
    (0..length).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_beside_those_of_the_same_step_and_agent() {
        let texts = |texts: &[(&str, &str)]| -> Texts {
            texts.iter().map(|(what, text)| ((*what).to_owned(), (*text).to_owned())).collect()
        };
        let gold = vec![texts(&[("state", "none"), ("Mia sees", "a box")]), texts(&[("state", "dark")])];
        let answer = vec![texts(&[("state", "none"), ("Noah sees", "a cat"), ("Mia sees", "a bag")])];
        let pairs = pairs(gold, answer);
        let shown = |pair: &Pair| {
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            format!("{}: {} / {}", pair.what, text(&pair.gold), text(&pair.answer))
        };
        let first: Vec<String> = pairs[0].iter().map(shown).collect();
        assert_eq!(first, ["state: none / none", "Mia sees: a box / a bag", "Noah sees: - / a cat"]);
        assert_eq!(pairs[1].iter().map(shown).collect::<Vec<_>>(), ["state: dark / -"]);
    }
}
