//! All steps of a plan on this machine, those that are done left out.

use std::path::Path;
use std::sync::Arc;

use crate::address::address;
use crate::error::Error;
use crate::output::manifest::{FILE_NAME, Manifest, ManifestError};
use crate::parts::convert::convert;
use crate::parts::plan::{Plan, PlanOrder, plan};
use crate::parts::publish::publish;
use crate::parts::settings::Means;
use crate::parts::split::{SplitRecord, split};
use crate::parts::work::Work;
use crate::parts::write::{split_of, write};
use crate::prepare::{Prepared, Published};
use crate::source::names::NameLog;
use crate::storage::{Object, Stores};
use crate::watch::Watch;

/// What may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Parts that are not converted.
    Parts,
    /// Shards that are not written.
    Shards,
}

/// The numbers of parts or shards of the plan in `work` that are not there yet.
///
/// # Errors
/// [`Error::NotYet`] for shards where there is no split; the store's.
pub fn missing(work: &Work, plan: &Plan, of: Missing) -> Result<Vec<u64>, Error> {
    let (prefix, count) = match of {
        Missing::Parts => ("done/part-", plan.body.parts),
        Missing::Shards => ("done/shard-", split_of(work, plan)?.shards),
    };
    let mut is_there = vec![false; count as usize];
    let mut note = |object: Object| {
        let number = object.name.strip_prefix(prefix).and_then(|name| name.strip_suffix(".json"));
        let number = number.and_then(|number| number.parse::<usize>().ok());
        if let Some(there) = number.and_then(|number| is_there.get_mut(number)) {
            *there = true;
        }
        Ok(())
    };
    work.storage.list(prefix, &mut note).map_err(work.failed(prefix))?;
    Ok((0..count).filter(|number| !is_there[*number as usize]).collect())
}

/// Gets each error, waits, and lets the work be tried again; or gives the error to end with.
pub type Again<'a> = &'a mut dyn FnMut(Error) -> Result<(), Error>;

/// Prepares `order` in parts, in `work`: what is done there already is not done again.
///
/// # Errors
/// Those of the steps.
pub fn prepare_in_parts(
    order: &PlanOrder<'_>,
    work: &Work,
    means: &Means,
    watch: &dyn Watch,
    again: Again<'_>,
) -> Result<Prepared, Error> {
    loop {
        let published = match plan(order, work, watch) {
            Ok(Some(plan)) => match resume(&plan, work, means, watch, again)? {
                Some(prepared) => return Ok(prepared),
                None => continue,
            },
            Ok(None) => Plan::published(work)?,
            Err(error) => {
                again(error)?;
                continue;
            }
        };
        // One that was published and not cleared altogether is over, whosever it is.
        work.clear()?;
        if let Some(plan) = published
            && order.is_of(&plan)?
        {
            return result_in(&order.options.output_dir, order.stores);
        }
    }
}

/// Plans `order` in `work` as [`plan`] does; what was published there and not cleared altogether is over.
///
/// # Errors
/// As [`plan`].
pub fn plan_anew(order: &PlanOrder<'_>, work: &Work, watch: &dyn Watch) -> Result<Plan, Error> {
    loop {
        match plan(order, work, watch)? {
            Some(plan) => return Ok(plan),
            None => work.clear()?,
        }
    }
}

/// Does what is left to do of `plan` in `work`. `None` where the plan is gone, and the output is not its result.
///
/// # Errors
/// Those of the steps.
pub fn resume(
    plan: &Plan,
    work: &Work,
    means: &Means,
    watch: &dyn Watch,
    again: Again<'_>,
) -> Result<Option<Prepared>, Error> {
    let output = plan.output(work)?;
    let mut known = None;
    loop {
        let is_published = || {
            Plan::published(work).map(|published| published.is_some_and(|published| published.id == plan.id))
        };
        if is_published()? {
            work.clear()?;
            return result_in(&output, &*means.stores).map(Some);
        }
        let done = work.unless_over(&plan.id, steps(plan, work, means, watch, &mut known));
        match done.map(Option::flatten) {
            Ok(Some(prepared)) => return Ok(Some(prepared)),
            // Somebody else was quicker. As long as the mark is there it says so itself.
            Ok(None) if is_published()? => {}
            Ok(None) => {
                let there = result_in(&output, &*means.stores).ok();
                return Ok(there.filter(|there| known.is_some_and(|split| is_result_of(&split, there))));
            }
            Err(error) => again(error)?,
        }
    }
}

/// All steps of `plan`; `None` where it was published meanwhile.
fn steps(
    plan: &Plan,
    work: &Work,
    means: &Means,
    watch: &dyn Watch,
    known: &mut Option<SplitRecord>,
) -> Result<Option<Prepared>, Error> {
    for part in missing(work, plan, Missing::Parts)? {
        if convert(work, plan, part, means, watch)?.is_none() {
            return Ok(None);
        }
    }
    let Some(split) = split(work, plan, means, watch)? else { return Ok(None) };
    let shards = known.insert(split.content).shards;
    for shard in 0..shards {
        if write(work, plan, shard, means, watch)?.is_none() {
            return Ok(None);
        }
    }
    publish(work, plan, means, watch)
}

/// Whether what is in the output is what was split so.
fn is_result_of(split: &SplitRecord, there: &Prepared) -> bool {
    let keys = there.result.as_ref().map(|(manifest, _)| &manifest.keys_sha256);
    keys == Some(&split.keys_sha256)
        && there.counts == split.counts
        && there.leakage == split.leakage
        && (there.train_records, there.val_records) == (split.train_records, split.val_records)
}

/// The manifest of the result at `address`.
///
/// # Errors
/// When there is none; the store's.
pub fn stored_manifest(address: &str, stores: &dyn Stores) -> Result<Manifest, Error> {
    let failed = |source| Error::Store { object: address.to_owned(), source };
    let storage = stores.open(address).map_err(failed)?;
    let bytes = storage.get(FILE_NAME).map_err(failed)?;
    let bytes = bytes.ok_or_else(|| ManifestError::Missing(address.into()))?;
    Ok(Manifest::parse(storage.shown(FILE_NAME).as_ref(), &bytes)?)
}

/// What is known of a result that is there.
fn result_in(output: &Path, stores: &dyn Stores) -> Result<Prepared, Error> {
    let manifest = match address(output) {
        None => Manifest::read(output)?,
        Some(address) => stored_manifest(address, stores)?,
    };
    Ok(Prepared {
        counts: manifest.counts.clone(),
        train_records: manifest.train.records,
        val_records: manifest.val.as_ref().map_or(0, |val| val.records),
        leakage: manifest.leakage,
        grouping: manifest.grouping,
        mix: manifest.mix.clone(),
        bytes_read: 0,
        rejects: Vec::new(),
        not_read: Arc::new(NameLog::default()),
        warned: Arc::new(NameLog::default()),
        shown: Vec::new(),
        result: Some((manifest, Published::Unchanged)),
        has_no_locks: false,
        kept_readme: false,
    })
}
