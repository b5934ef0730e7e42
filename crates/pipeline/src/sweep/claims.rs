//! Which run of a sweep is next, and what is set aside for it: the book, shared by threads.
//!
//! The book's mutex is held for a look and a write, never over a request or a wait. A run's estimate is counted
//! from the moment it is claimed, so that a second thread finds only what is left; the job's own numbers
//! replace it when the job is known, and what was certainly not created is given back.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::job::ledger::LedgerError;
use crate::sweep::book::{Book, Trial};
use ctxtune_service::together::Job;

/// A book that several threads take runs from.
pub struct Claims {
    out: PathBuf,
    cap: Option<f64>,
    suggestions: Option<Suggestions>,
    state: Mutex<State>,
}

/// That W&B chooses the values of runs that are not in the book yet.
#[derive(Debug, Clone, Copy)]
pub struct Suggestions {
    pub count: usize,
    /// What the dearest of them is estimated at, in dollars.
    pub dearest: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// To start this run of the book, or to go on with it.
    Run(usize),
    /// To ask for values; what the dearest run costs is set aside until they are there.
    Ask,
    Nothing,
}

pub struct Ended {
    pub book: Book,
    /// Whether a run was not started for the cap's sake.
    pub is_short: bool,
}

struct State {
    book: Book,
    /// Runs that a thread has, or had.
    claimed: BTreeSet<usize>,
    /// Those of them that were free before, and whose job is not known yet.
    reserved: BTreeSet<usize>,
    asked: usize,
    is_stopped: bool,
    is_short: bool,
}

impl Claims {
    /// Runs of `book`, which is kept in the output directory `out`, within `cap` dollars.
    pub fn new(out: PathBuf, book: Book, cap: Option<f64>, suggestions: Option<Suggestions>) -> Claims {
        let state = State {
            book,
            claimed: BTreeSet::new(),
            reserved: BTreeSet::new(),
            asked: 0,
            is_stopped: false,
            is_short: false,
        };
        Claims { out, cap, suggestions, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no further run begin: something failed.
    pub fn stop(&self) {
        self.state().is_stopped = true;
    }

    pub fn end(self) -> Ended {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ended { book: state.book, is_short: state.is_short }
    }

    pub fn trial(&self, index: usize) -> Trial {
        self.state().book.trials[index].clone()
    }

    /// What to do next: first the runs that may be billed already, since they are counted in any case; then a
    /// free one; then one that is not in the book yet. What it may cost is set aside. Fails when the book
    /// cannot be written; nothing is claimed then.
    pub fn next(&self) -> Result<Next, LedgerError> {
        let mut state = self.state();
        if state.is_stopped {
            return Ok(Next::Nothing);
        }
        let is_open = |(index, trial): &(usize, &Trial)| !trial.has_ended() && !state.claimed.contains(index);
        let mut open = state.book.trials.iter().enumerate().filter(is_open);
        let bound = open.clone().find(|(_, trial)| !trial.is_free());
        let next = bound.or_else(|| open.next());
        if let Some((index, is_free, estimate)) =
            next.map(|(index, trial)| (index, trial.is_free(), trial.estimate))
        {
            if is_free {
                return self.reserve(&mut state, index, estimate);
            }
            state.claimed.insert(index);
            return Ok(Next::Run(index));
        }
        match self.suggestions {
            Some(suggestions) if state.book.trials.len() + state.asked < suggestions.count => {
                if !self.has_room(&state, suggestions.dearest) {
                    state.is_short = true;
                    return Ok(Next::Nothing);
                }
                state.asked += 1;
                Ok(Next::Ask)
            }
            _ => Ok(Next::Nothing),
        }
    }

    /// Whether one more run at this estimate keeps the cap, besides all that is set aside.
    fn has_room(&self, state: &State, estimate: Option<f64>) -> bool {
        let dearest = self.suggestions.and_then(|suggestions| suggestions.dearest);
        let aside = match state.asked {
            0 => Some(0.0),
            asked => dearest.map(|dearest| dearest * asked as f64),
        };
        let needed = estimate.zip(aside).map(|(estimate, aside)| estimate + aside);
        state.book.has_room_for(needed, self.cap)
    }

    fn reserve(&self, state: &mut State, index: usize, estimate: Option<f64>) -> Result<Next, LedgerError> {
        if !self.has_room(state, estimate) {
            state.is_short = true;
            return Ok(Next::Nothing);
        }
        state.book.trials[index].status = Some(Trial::INTENDED.to_owned());
        if let Err(error) = state.book.write(&self.out) {
            state.book.trials[index].status = None;
            return Err(error);
        }
        state.claimed.insert(index);
        state.reserved.insert(index);
        Ok(Next::Run(index))
    }

    /// Takes the run that was asked for into the book, and claims it if the cap has room for it: it is kept
    /// in any case, since it is not suggested again.
    pub fn suggested(&self, trial: Trial) -> Result<Next, LedgerError> {
        let mut state = self.state();
        state.asked = state.asked.saturating_sub(1);
        let estimate = trial.estimate;
        state.book.trials.push(trial);
        state.book.write(&self.out)?;
        if state.is_stopped {
            return Ok(Next::Nothing);
        }
        let index = state.book.trials.len() - 1;
        self.reserve(&mut state, index, estimate)
    }

    /// Gives back what was set aside for a suggestion that did not come.
    pub(crate) fn not_suggested(&self) {
        let mut state = self.state();
        state.asked = state.asked.saturating_sub(1);
    }

    pub fn bind(&self, index: usize, job: &Job) -> Result<(), LedgerError> {
        self.state().reserved.remove(&index);
        self.change(index, |trial| {
            trial.job = Some(job.id.clone());
            trial.status = Some(job.status.as_str().to_owned());
            trial.price = job.price();
        })
    }

    /// Gives back what was set aside for a run whose job was certainly not created by this claim. An earlier
    /// claim that left its outcome open stays counted.
    pub fn release(&self, index: usize) -> Result<(), LedgerError> {
        let mut state = self.state();
        if !state.reserved.remove(&index) {
            return Ok(());
        }
        state.book.trials[index].status = None;
        state.book.write(&self.out)
    }

    pub fn change(&self, index: usize, change: impl FnOnce(&mut Trial)) -> Result<(), LedgerError> {
        let mut state = self.state();
        change(&mut state.book.trials[index]);
        state.book.write(&self.out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::sweep::book::ROUNDING;

    fn free(estimate: f64) -> Trial {
        Trial { estimate: Some(estimate), ..Trial::new(vec![("n_epochs".to_owned(), json!(1))]) }
    }

    fn book(trials: impl IntoIterator<Item = Trial>) -> Book {
        let mut book = Book::new("a".to_owned(), Vec::new());
        book.trials = trials.into_iter().collect();
        book
    }

    fn job(number: usize, status: &str, dollars: f64) -> Job {
        let nano = (dollars * 1e9) as u64;
        Job::read(&json!({ "id": format!("ft-{number}"), "status": status, "total_price": nano })).unwrap()
    }

    #[test]
    fn a_claimed_run_counts_before_it_has_a_job() {
        let out = tempfile::tempdir().unwrap();
        let claims = Claims::new(out.path().to_owned(), book([free(30.0), free(30.0)]), Some(40.0), None);
        assert_eq!(claims.next().unwrap(), Next::Run(0));
        assert_eq!(claims.next().unwrap(), Next::Nothing, "60 of 40");
        let kept = Book::read(out.path(), "a").unwrap().unwrap();
        assert!((kept.spent() - 30.0).abs() < ROUNDING, "also for whoever reads the book after a kill");
        // The job turns out cheaper.
        claims.bind(0, &job(0, "completed", 5.0)).unwrap();
        assert_eq!(claims.next().unwrap(), Next::Run(1));
        assert!(claims.end().is_short);
    }

    #[test]
    fn what_was_certainly_not_created_is_given_back_and_what_may_exist_is_not() {
        let out = tempfile::tempdir().unwrap();
        let intended = Trial { status: Some(Trial::INTENDED.to_owned()), ..free(10.0) };
        let claims = Claims::new(out.path().to_owned(), book([free(10.0), intended]), None, None);
        assert_eq!(claims.next().unwrap(), Next::Run(1), "what may be billed already comes first");
        assert_eq!(claims.next().unwrap(), Next::Run(0));
        claims.release(0).unwrap();
        claims.release(1).unwrap();
        let kept = Book::read(out.path(), "a").unwrap().unwrap();
        assert_eq!([kept.trials[0].is_free(), kept.trials[1].is_free()], [true, false]);
    }

    #[test]
    fn a_suggestion_under_way_counts_as_the_dearest_and_is_kept_without_room() {
        let out = tempfile::tempdir().unwrap();
        let suggestions = Suggestions { count: 3, dearest: Some(20.0) };
        let begin = || Claims::new(out.path().to_owned(), book([]), Some(45.0), Some(suggestions));
        let claims = begin();
        assert_eq!([claims.next().unwrap(), claims.next().unwrap()], [Next::Ask, Next::Ask]);
        assert_eq!(claims.next().unwrap(), Next::Nothing, "60 of 45");
        assert_eq!(claims.suggested(free(20.0)).unwrap(), Next::Run(0));
        assert_eq!(claims.suggested(free(30.0)).unwrap(), Next::Nothing, "dearer than it could be");
        assert_eq!(Book::read(out.path(), "a").unwrap().unwrap().trials.len(), 2);
        let claims = begin();
        for _ in 0..5 {
            assert_eq!(claims.next().unwrap(), Next::Ask);
            claims.not_suggested();
        }
    }

    #[test]
    fn no_more_are_asked_for_than_there_are_runs() {
        let out = tempfile::tempdir().unwrap();
        let suggestions = Suggestions { count: 2, dearest: None };
        let claims = Claims::new(out.path().to_owned(), book([]), None, Some(suggestions));
        assert_eq!([claims.next().unwrap(), claims.next().unwrap()], [Next::Ask, Next::Ask]);
        assert_eq!(claims.next().unwrap(), Next::Nothing);
        claims.suggested(free(1.0)).unwrap();
        assert_eq!(claims.next().unwrap(), Next::Nothing);
    }

    #[test]
    fn after_a_stop_nothing_is_begun() {
        let out = tempfile::tempdir().unwrap();
        let claims = Claims::new(out.path().to_owned(), book([free(1.0)]), None, None);
        claims.stop();
        assert_eq!(claims.next().unwrap(), Next::Nothing);
        assert_eq!(claims.suggested(free(1.0)).unwrap(), Next::Nothing);
    }

    /// How the creation of a job goes.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fate {
        Created,
        /// It exists, and nobody was told.
        Lost,
        Refused,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn whatever_is_billed_stays_within_the_cap(
            estimates in prop::collection::vec(0.0..30.0_f64, 1..8),
            fates in prop::collection::vec(prop_oneof![Just(Fate::Created), Just(Fate::Lost), Just(Fate::Refused)], 8),
            part in 0.0..1.2_f64,
            threads in 1..5_usize,
            known in 0..8_usize,
        ) {
            let out = tempfile::tempdir().unwrap();
            let cap = part * estimates.iter().sum::<f64>();
            let known = known.min(estimates.len());
            let dearest = estimates.iter().copied().fold(0.0, f64::max);
            let suggestions = Suggestions { count: estimates.len(), dearest: Some(dearest) };
            // What exists at the service, by the run: billed at its estimate.
            let billed = Mutex::new(vec![0.0; estimates.len()]);
            let mut kept = book(estimates[..known].iter().map(|estimate| free(*estimate)));
            // A second run of the program finds what the first one left open.
            for round in 0..2 {
                let claims = Claims::new(out.path().to_owned(), kept.clone(), Some(cap), Some(suggestions));
                let work = || loop {
                    let next = match claims.next().unwrap() {
                        Next::Ask => {
                            // Threads ask one after the other, and write the book in any order.
                            std::thread::yield_now();
                            let index = claims.state().book.trials.len().min(estimates.len() - 1);
                            claims.suggested(free(estimates[index])).unwrap()
                        }
                        next => next,
                    };
                    let Next::Run(index) = next else { return };
                    let estimate = claims.trial(index).estimate.unwrap();
                    let fate = if round == 0 { fates[index] } else { Fate::Created };
                    if fate != Fate::Refused {
                        let mut billed = billed.lock().unwrap();
                        billed[index] = estimate;
                        assert!(billed.iter().sum::<f64>() <= cap + ROUNDING, "{billed:?} of {cap}");
                    }
                    std::thread::yield_now();
                    match fate {
                        Fate::Created => {
                            claims.bind(index, &job(index, "running", 0.0)).unwrap();
                            // It comes out cheaper, and the next run may use what is left.
                            let price = estimate * 0.9;
                            billed.lock().unwrap()[index] = price;
                            claims.bind(index, &job(index, "completed", price)).unwrap();
                        }
                        Fate::Lost => {}
                        Fate::Refused => claims.release(index).unwrap(),
                    }
                };
                std::thread::scope(|scope| {
                    for _ in 0..threads {
                        scope.spawn(work);
                    }
                });
                kept = claims.end().book;
                prop_assert!(kept.trials.len() <= estimates.len());
            }
        }
    }
}
