//! All steps of a plan on this machine, those that are done left out.

use std::sync::Arc;

use crate::address::address;
use crate::error::Error;
use crate::output::manifest::{FILE_NAME, Manifest, ManifestError};
use crate::parts::convert::convert;
use crate::parts::plan::{Plan, PlanOrder, plan};
use crate::parts::publish::publish;
use crate::parts::settings::Means;
use crate::parts::split::split;
use crate::parts::work::{PUBLISHED, Work};
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

/// Prepares `order` in parts, in `work`: what is done there already is not done again.
///
/// # Errors
/// Those of the steps.
pub fn prepare_in_parts(
    order: &PlanOrder<'_>,
    work: &Work,
    means: &Means,
    watch: &dyn Watch,
) -> Result<Prepared, Error> {
    if work.get(PUBLISHED)?.is_some() && order.is_planned(work)? {
        work.clear()?;
        return published(order);
    }
    let plan = plan(order, work, watch)?;
    let steps = || -> Result<Option<Prepared>, Error> {
        for part in missing(work, &plan, Missing::Parts)? {
            if convert(work, &plan, part, means, watch)?.is_none() {
                return Ok(None);
            }
        }
        let Some(split) = split(work, &plan, means, watch)? else { return Ok(None) };
        for shard in 0..split.content.shards {
            if write(work, &plan, shard, means, watch)?.is_none() {
                return Ok(None);
            }
        }
        publish(work, &plan, means, watch)
    };
    match steps() {
        Ok(Some(prepared)) => Ok(prepared),
        // Somebody else was quicker, or a run was killed while it cleared the directory.
        Ok(None) => published(order),
        Err(error) if work.is_published().unwrap_or(false) => published(order).map_err(|_| error),
        Err(error) => Err(error),
    }
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
fn published(order: &PlanOrder<'_>) -> Result<Prepared, Error> {
    let output = &order.options.output_dir;
    let manifest = match address(output) {
        None => Manifest::read(output)?,
        Some(address) => stored_manifest(address, order.stores)?,
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
