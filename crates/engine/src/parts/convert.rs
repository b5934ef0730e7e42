//! Converts one part: what all of its records become, in the order in which a merge wants it.
//!
//! A converted part is a function of the plan and the bytes of its inputs. Whatever else happens (a disk is full, a
//! file cannot be read, an input is not what it was) ends without a record, so a part that is there is whole and right.

use std::io::{self, Write};
use std::path::Path;

use crate::error::Error;
use crate::output::manifest::{Counts, Hex};
use crate::output::publish::Durability;
use crate::parts::aside::{Aside, scratch_error};
use crate::parts::fetch::fetch;
use crate::parts::part::{PART_SCHEMA, PartRecord, Sections};
use crate::parts::plan::{PartPlan, Plan};
use crate::parts::rows::{Row, write_group, write_key, write_mark, write_reject};
use crate::parts::settings::Means;
use crate::parts::work::{DigestObject, Record, Step, Work};
use crate::prepare::{Arrival, Options, Run, Selection, Verdict, threads};
use crate::record::reject;
use crate::source::input::{Input, Pin, Root, What};
use crate::source::list::{self, Corpus};
use crate::source::names::{NameLog, write_names};
use crate::source::spool::Spool;
use crate::split::leakage::Mark;
use crate::split::{Rank, Ranks};
use crate::watch::Watch;

/// Converts `part` of the plan in `work`, unless that is done. `None` where the result was published meanwhile.
///
/// # Errors
/// What ends a preparation too; [`Error::Changed`] where an input is not what was planned; the store's.
pub fn convert(
    work: &Work,
    plan: &Plan,
    part: u64,
    means: &Means,
    watch: &dyn Watch,
) -> Result<Option<Record<PartRecord>>, Error> {
    watch.step("part", part, plan.body.parts);
    work.attempt(Step::Part(part), &plan.id, plan.body.settings.is_durable, || {
        let planned = plan.part(part);
        let mut options = plan.options(work, means)?;
        if planned.mix > 0 {
            options = Options { chat: true, group_by: None, ..options };
        }
        let (inputs, roots) = (plan.inputs(work, &planned)?, plan.roots(work)?);
        check_room(work, means, &planned, &inputs)?;
        check_pins(&inputs, &roots)?;
        let converting = Converting { work, plan, part, options: &options, means, watch };
        let record = converting.convert(&inputs, &roots);
        // What is wrong with one that changed meanwhile is that.
        if !matches!(record, Err(Error::Interrupted)) {
            check_pins(&inputs, &roots)?;
        }
        record
    })
}

/// One part while it is converted.
struct Converting<'c> {
    work: &'c Work,
    plan: &'c Plan,
    part: u64,
    options: &'c Options,
    means: &'c Means,
    watch: &'c dyn Watch,
}

/// What is sorted before it is written: eight bytes and a rank or two.
#[derive(Default)]
struct Marks(Vec<(Mark, Rank, Rank)>);

impl Marks {
    fn write(mut self, is_grouped: bool, out: &mut impl Write) -> io::Result<u64> {
        self.0.sort_unstable();
        let mut rows = Vec::new();
        let mut bytes = 0;
        for chunk in self.0.chunks(4096) {
            rows.clear();
            for (mark, rank, group) in chunk {
                write_mark(*mark, rank, is_grouped.then_some(group), &mut rows);
            }
            out.write_all(&rows)?;
            bytes += rows.len() as u64;
        }
        Ok(bytes)
    }
}

impl Converting<'_> {
    fn convert(&self, inputs: &[Input], roots: &[Root]) -> Result<PartRecord, Error> {
        let (options, scratch) = (self.options, self.means.scratch.as_deref());
        let pool = threads(options.threads)?;
        let mut spool = Spool::new(scratch, options.max_spool_bytes);
        let arrival = Arrival::new(options, &pool, self.watch);
        let corpus = Corpus {
            sources: &[],
            skip: None,
            within: b"",
            seed: options.seed,
            convert: Some(&|plain, limit, store, found| arrival.convert(plain, limit, store, found)),
            converts_plain_files: options.group_by.is_some(),
        };
        let fetched = fetch(inputs, roots, options, self.means, &mut spool, self.watch)?;
        let listing =
            pool.install(|| list::list_inputs(&corpus, roots, inputs, &fetched, &mut spool, self.watch))?;
        let is_grouped = options.group_by.is_some();
        let (ranks, sink) = (Ranks::new(options.seed), |error| self.work.failed("")(error));

        let [mut rows, mut keys, mut rejects] =
            [Aside::new(scratch)?, Aside::new(scratch)?, Aside::new(scratch)?];
        let (mut stories, mut agents, mut groups) = (Marks::default(), Marks::default(), Vec::new());
        let mut warned = NameLog::new(scratch);
        let mut counts = Counts { listed: listing.len() as u64, ..Counts::default() };
        let (mut bytes_read, mut sections) = (0, Sections::default());
        let mut object = self.work.begin()?;
        let run = Run { options, watch: self.watch, pool: &pool, listing: &listing, output: None };
        run.pass(&Selection::All, |batch| {
            bytes_read += batch.bytes_read;
            let mut lengths = batch.lengths.iter();
            for (position, verdict) in &batch.verdicts {
                let key = listing.key(*position as usize);
                match verdict {
                    Verdict::Skipped => {
                        counts.skipped += 1;
                        counts.is_correct.r#false += 1;
                    }
                    Verdict::Rejected(reason) => {
                        counts.rejected += 1;
                        *counts.rejected_by_code.entry(reason.code.as_str().to_owned()).or_default() += 1;
                        let line = reject::line(key, reason).map_err(scratch_error(scratch))?;
                        rejects.add(|out| write_reject(&ranks.rank(key), &line, out))?;
                    }
                    Verdict::Accepted(marks) => {
                        let (rank, group) = (ranks.rank(key), marks.group);
                        let line = *lengths.next().expect("each accepted record has a line");
                        let row = Row { rank, group, line, key: key.len() as u16 };
                        rows.add(|out| row.write(is_grouped, out))?;
                        keys.add(|out| out.extend_from_slice(key))?;
                        stories.0.push((marks.story, rank, group));
                        if !options.chat {
                            agents.0.push((marks.agents, rank, group));
                        }
                        if is_grouped {
                            groups.push(group);
                        }
                        counts.accepted += 1;
                        counts.is_correct.count(marks.is_correct);
                        for warning in marks.warnings.iter() {
                            *counts.warnings.count_mut(warning) += 1;
                            warned.push(warning.as_str(), key).map_err(Error::NameLog)?;
                        }
                    }
                }
            }
            object.add(&batch.lines)
        })?;
        sections.lines = object.bytes;
        sections.rows = rows.copy(&mut object).map_err(sink)?;
        sections.keys = keys.copy(&mut object).map_err(sink)?;
        sections.rejects = rejects.copy(&mut object).map_err(sink)?;
        sections.listed = buffered(&mut object, listing.keys(), write_key)?;
        groups.sort_unstable();
        let by_group = groups.chunk_by(|one, other| one == other);
        sections.groups =
            buffered(&mut object, by_group, |group, out| write_group(&group[0], group.len() as u64, out))?;
        sections.stories = stories.write(is_grouped, &mut object).map_err(sink)?;
        sections.agents = agents.write(is_grouped, &mut object).map_err(sink)?;
        for (names, bytes) in [(&warned, &mut sections.warned), (&*listing.not_read, &mut sections.not_read)]
        {
            let mut written = Vec::new();
            write_names(names, &mut written).map_err(Error::NameLog)?;
            object.add(&written)?;
            *bytes = written.len() as u64;
        }
        self.watch.check_stop()?;
        let is_durable = options.durability == Durability::Sync;
        let (name, digest) = object.finish(&format!("parts/{:05}", self.part), is_durable)?;
        Ok(PartRecord {
            schema: PART_SCHEMA.to_owned(),
            plan: self.plan.id.clone(),
            part: self.part,
            object: name,
            bytes: digest.bytes,
            sha256: digest.sha256,
            sections,
            counts,
            bytes_read,
            unpacked: spool.limit.used(),
            keys_sha256: Hex(&listing.keys_sha256).to_string(),
        })
    }
}

/// Adds what `write` makes of each of `items` to `out`, block by block; how many bytes.
fn buffered<T>(
    out: &mut DigestObject<'_>,
    items: impl Iterator<Item = T>,
    write: impl Fn(T, &mut Vec<u8>),
) -> Result<u64, Error> {
    let before = out.bytes;
    let mut block = Vec::new();
    for item in items {
        write(item, &mut block);
        if block.len() >= 1 << 18 {
            out.add(&block)?;
            block.clear();
        }
    }
    out.add(&block)?;
    Ok(out.bytes - before)
}

/// Fails where a pinned input is not what it was.
fn check_pins(inputs: &[Input], roots: &[Root]) -> Result<(), Error> {
    for input in inputs {
        let Some(pin) = input.pin else { continue };
        let path = input.path(roots);
        let seen = std::fs::metadata(&path).and_then(|seen| Pin::of(&seen));
        if seen.map_err(|source| Error::Read { path: path.clone(), source })? != pin {
            return Err(Error::Changed { path });
        }
    }
    Ok(())
}

/// Fails where there is not even room for as much as the part has.
fn check_room(work: &Work, means: &Means, part: &PartPlan, inputs: &[Input]) -> Result<(), Error> {
    let is_kept = |input: &Input| {
        let is_compressed = matches!(&input.what, What::Container(kind, _) if kind.is_compressed());
        is_compressed || input.object.is_some()
    };
    let scratch = means.scratch.clone().unwrap_or_else(tempfile::env::temp_dir);
    let scratch = Some(&*scratch).filter(|_| inputs.iter().any(is_kept));
    for dir in work.dir().into_iter().chain(scratch) {
        match free_bytes(dir) {
            Some(free) if free < part.bytes => {
                return Err(Error::NoRoom { dir: dir.to_owned(), free, needed: part.bytes });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Bytes that may be written below `dir`, where the system says.
#[cfg(unix)]
fn free_bytes(dir: &Path) -> Option<u64> {
    let free = rustix::fs::statvfs(dir).ok()?;
    Some(free.f_bavail.saturating_mul(free.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}
