//! What a sweep may cost, and a yes to the whole of it.
//!
//! Every distinct estimate is asked for once. Where this program chooses the values the sweep costs what its
//! runs are estimated at together; where W&B does, it costs the dearest of all that could be chosen, for
//! every run. A space with more estimates than are asked for has no known price.

use std::sync::PoisonError;

use crate::failure::Failure;
use crate::job::cost::running_beside;
use crate::job::expected::Expected;
use crate::job::parameters::PRICED;
use crate::job::price::{Extent, Price, dollars_text};
use crate::job::submit::estimate;
use crate::session::Session;
use crate::session::consent::{ASK_AGAIN, Spending};
use crate::sweep::Sweep;
use crate::sweep::book::{Book, ROUNDING};
use crate::sweep::make::Combination;
use crate::sweep::runs::{Estimates, Runs};
use crate::text::counted;
use ctxtune_service::together::jobs::{self, Availability};

pub const MOST_ESTIMATES: usize = 200;
/// So many estimates take a while, and that is said.
const MANY_ESTIMATES: usize = 10;

impl Estimates {
    pub fn price(&self, session: &Session, runs: &Runs, of: &Combination) -> Result<Price, Failure> {
        let body = of.settled.estimate_body(runs.files());
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().get(&body.to_string()).cloned();
        let estimate = match found {
            Some(found) => Ok(found),
            None => estimate(session, &body)?,
        };
        let price = match estimate {
            Ok(estimate) => {
                // Why there is no estimate may pass.
                if estimate.availability == Availability::Available {
                    known().insert(body.to_string(), estimate.clone());
                }
                Price::of(&estimate, &of.settled, Extent::of(&runs.manifest, &of.settled, &of.limits))
            }
            Err(reason) => Price::unknown(reason),
        };
        // What the service forbids is forbidden before the first job, too.
        price.check(None)?;
        Ok(price)
    }
}

/// What the runs cost that W&B has not chosen yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Space {
    pub estimates: usize,
    pub cheapest: f64,
    pub dearest: f64,
}

pub struct Quote {
    /// What was spent, and what is still to start: in dollars, where that is known.
    pub total: Option<f64>,
    pub reason: Option<String>,
    pub space: Option<Space>,
    pub to_start: usize,
}

impl Quote {
    /// What the runs of `book` cost, of which one may not be known for the reason in `unknown`, and as many
    /// more as W&B will choose out of a space that may have no known price either.
    pub fn of(
        book: &Book,
        to_choose: Option<(usize, Result<Space, String>)>,
        unknown: Option<String>,
    ) -> Quote {
        let open = book.trials.iter().filter(|trial| trial.job.is_none() && !trial.has_ended());
        let free: Vec<Option<f64>> =
            open.clone().filter(|trial| trial.is_free()).map(|trial| trial.estimate).collect();
        let (more, space, reason) = match to_choose {
            Some((more, Ok(space))) => (more, Some(space), None),
            Some((more, Err(reason))) => (more, None, Some(reason)),
            None => (0, None, None),
        };
        let is_known = book.is_spent_known() && free.iter().all(Option::is_some);
        let unestimated = || unknown.unwrap_or_else(|| "the service does not estimate every run".to_owned());
        let reason = reason.or_else(|| (!is_known).then(unestimated));
        let chosen = space.as_ref().map_or(0.0, |space| space.dearest * more as f64);
        let total = book.spent() + free.iter().flatten().sum::<f64>() + chosen;
        Quote { total: reason.is_none().then_some(total), reason, space, to_start: open.count() + more }
    }
}

/// Asks for the estimates of the runs of `book` that can still be billed and lack one; why one is not known.
pub(crate) fn price_book(session: &Session, runs: &Runs, book: &mut Book) -> Result<Option<String>, Failure> {
    let has_val = runs.manifest.val.is_some();
    let mut made = Vec::new();
    for (index, trial) in book.trials.iter().enumerate() {
        if !trial.has_ended() && (trial.job.is_none() || trial.estimate.is_none()) {
            made.push((index, runs.template.make(session, &trial.values, has_val)?));
        }
    }
    let mut unknown = None;
    if announce(session, made.iter().map(|(_, of)| of), runs) > MOST_ESTIMATES {
        made.iter().for_each(|(index, _)| book.trials[*index].estimate = None);
        return Ok(Some(format!("its runs have more than {MOST_ESTIMATES} different estimates")));
    }
    for (index, of) in made {
        let price = runs.estimates.price(session, runs, &of)?;
        book.trials[index].estimate = price.dollars;
        if price.dollars.is_none() {
            unknown = unknown.or(price.reason);
        }
    }
    Ok(unknown)
}

/// What W&B could choose, priced; or why that is not known.
pub(crate) fn price_space(
    session: &Session,
    runs: &Runs,
    sweep: &Sweep,
) -> Result<Result<Space, String>, Failure> {
    let too_many =
        || Ok(Err(format!("what W&B could choose has more than {MOST_ESTIMATES} different estimates")));
    let Some(combinations) = sweep.combinations_of(&PRICED) else { return too_many() };
    let has_val = runs.manifest.val.is_some();
    let made: Vec<Combination> = combinations
        .iter()
        .map(|values| runs.template.make(session, values, has_val))
        .collect::<Result<_, _>>()?;
    let estimates = announce(session, made.iter(), runs);
    if estimates > MOST_ESTIMATES {
        return too_many();
    }
    let (mut cheapest, mut dearest) = (f64::INFINITY, 0.0_f64);
    for of in &made {
        let price = runs.estimates.price(session, runs, of)?;
        let Some(dollars) = price.dollars else {
            return Ok(Err(price.reason.unwrap_or_default()));
        };
        cheapest = cheapest.min(dollars);
        dearest = dearest.max(dollars);
    }
    Ok(Ok(Space { estimates, cheapest, dearest }))
}

/// How many different estimates these are; many are announced.
fn announce<'c>(session: &Session, made: impl Iterator<Item = &'c Combination>, runs: &Runs) -> usize {
    let bodies: std::collections::BTreeSet<String> =
        made.map(|of| of.settled.estimate_body(runs.files()).to_string()).collect();
    if (MANY_ESTIMATES..=MOST_ESTIMATES).contains(&bodies.len()) {
        session.ui.say(&format!("asking for {} estimates", bodies.len()));
    }
    bodies.len()
}

/// Shows the quote, and gets a yes to it.
pub fn agree(
    session: &Session,
    runs: &Runs,
    book: &Book,
    quote: &Quote,
    spending: Spending,
) -> Result<(), Failure> {
    let started = book.trials.iter().filter(|trial| trial.job.is_some()).count();
    let count = counted((started + quote.to_start) as u64, "run");
    let name = runs.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    let sweep = format!("{name}{count}, {} of them still to start", quote.to_start);
    session.ui.label("sweep", &sweep);
    let spent = format!("{} of it spent or running", dollars_text(book.spent()));
    let price = match (quote.total, &quote.reason) {
        (Some(total), _) => format!("about {} for the whole sweep, {spent}", dollars_text(total)),
        (None, reason) => format!("not known: {}", reason.clone().unwrap_or_default()),
    };
    session.ui.label("price", &price);
    if let Some(space) = &quote.space {
        session.ui.say(&format!(
            "          W&B chooses the values: every run is counted at the dearest of {}, {} to {}",
            counted(space.estimates as u64, "estimate"),
            dollars_text(space.cheapest),
            dollars_text(space.dearest)
        ));
    }
    if quote.to_start == 0 {
        return Ok(());
    }
    let listed = jobs::list(&session.together).map_err(|error| session.explain(error))?;
    let mut running = running_beside(&listed, &runs.out, &runs.account, runs.manifest.train.content().1)?;
    running.retain(|beside| book.trials.iter().all(|trial| trial.job.as_ref() != Some(&beside.job.id)));
    let first = book.trials.first().map(|trial| trial.values.clone()).unwrap_or_default();
    let model = runs.template.make(session, &first, runs.manifest.val.is_some())?.limits.model_name;
    session.ui.say(&format!("each run, at most {} at a time:", runs.parallel));
    session.ui.expected(&Expected::of(&listed, &model, None));
    session.ui.running(&running);
    match (spending, quote.total) {
        (Spending::Agreed { max_cost: Some(cap) }, Some(total)) if total > cap + ROUNDING => {
            let message = format!(
                "the sweep is estimated at {}, and --max-cost is {}",
                dollars_text(total),
                dollars_text(cap)
            );
            let hint =
                "raise --max-cost, or try less: --count N, fewer values, fewer epochs; nothing was started";
            Err(Failure::unspent("over_max_cost", message, hint))
        }
        (Spending::Agreed { max_cost: Some(_) }, None) => {
            let reason = quote.reason.clone().unwrap_or_default();
            let message =
                format!("the price of the sweep is not known, which no --max-cost allows: {reason}");
            let hint = "start it without a cap by --yes, or vary fewer values; nothing was started";
            Err(Failure::unspent("no_estimate", message, hint))
        }
        (Spending::Asked, total) => {
            let question = match total {
                Some(total) => format!("Start this sweep for about {}?", dollars_text(total)),
                None => "Start this sweep, at a price that is not known?".to_owned(),
            };
            session.confirm(&question, "the sweep was not started", ASK_AGAIN)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sweep::book::Trial;
    use ctxtune_service::together::job::JobId;

    fn trial(status: Option<&str>, job: Option<&str>, estimate: Option<f64>) -> Trial {
        let values = vec![("n_epochs".to_owned(), json!(1))];
        Trial {
            status: status.map(str::to_owned),
            job: job.and_then(JobId::new),
            estimate,
            ..Trial::new(values)
        }
    }

    #[test]
    fn a_quote_counts_every_run_once() {
        let mut book = Book::new("a".to_owned(), Vec::new());
        book.trials = vec![
            trial(Some("running"), Some("ft-1"), Some(4.0)),
            trial(Some(Trial::INTENDED), None, Some(2.0)),
            trial(None, None, Some(1.0)),
        ];
        let space = Space { estimates: 2, cheapest: 3.0, dearest: 10.0 };
        let quote = Quote::of(&book, Some((3, Ok(space))), None);
        assert_eq!((quote.total, quote.to_start), (Some(37.0), 5));
        let quote = Quote::of(&book, None, None);
        assert_eq!((quote.total, quote.to_start), (Some(7.0), 2));
    }

    #[test]
    fn a_quote_is_not_known_where_one_run_is_not() {
        let mut book = Book::new("a".to_owned(), Vec::new());
        let quote = Quote::of(&book, Some((1, Err("endless".to_owned()))), None);
        assert_eq!((quote.total, quote.reason.as_deref()), (None, Some("endless")));
        for unknown in [
            trial(None, None, None),
            trial(Some(Trial::INTENDED), None, None),
            trial(Some("running"), Some("ft-1"), None),
        ] {
            book.trials = vec![trial(None, None, Some(1.0)), unknown];
            let quote = Quote::of(&book, None, Some("no answer".to_owned()));
            assert_eq!((quote.total, quote.reason.as_deref()), (None, Some("no answer")));
        }
    }
}
