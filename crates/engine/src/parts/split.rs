//! Decides, from what all parts left, what `prepare` decides of a whole corpus: the same judgement, the same cut.
//!
//! Every stream of every part is sorted, so one pass over each of them finds equal keys, the boundary between groups,
//! the places of the shards in every part, and what the sides share. Memory grows with the number of parts, never with
//! that of records.

use std::io::{self, Write};
use std::sync::Arc;

use rayon::ThreadPool;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address::address;
use crate::error::{Error, FailedRejects};
use crate::json::KeyText;
use crate::output::manifest::{Counts, FileDigest, Grouping, Hex, Leakage, Mixed};
use crate::output::publish::{Durability, Output};
use crate::parts::aside::Aside;
use crate::parts::merge::{Merge, Stream};
use crate::parts::mixing::{Chosen, choose};
use crate::parts::part::{Part, PartRecord, Section};
use crate::parts::plan::Plan;
use crate::parts::rows::{
    FixedStream, GROUP_BYTES, GROUPED_MARK_BYTES, KeyStream, MARK_BYTES, Place, RejectStream, Row, RowStream,
    read_group, read_mark,
};
use crate::parts::settings::Means;
use crate::parts::span::Span;
use crate::parts::stored::StoredOutput;
use crate::parts::work::{Content, DigestObject, Record, Step, Work};
use crate::prepare::{MIX_PREFIX, Options, mix_places, threads};
use crate::record::reject::RejectCounts;
use crate::source::names::NameLog;
use crate::split::Rank;
use crate::split::group::GroupCut;
use crate::watch::Watch;

/// The schema of the records of splits.
const SCHEMA: &str = "ctxtune.split/1";

/// What the blocks of all streams of one merge take in memory.
const MERGE_BYTES: usize = 10 << 20;

/// A merge looks this often whether it is to stop.
const ENTRIES_BETWEEN_LOOKS: u64 = 1 << 16;

/// What is known of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRecord {
    /// Shards of both sides: those that train have the first numbers.
    pub shards: u64,
    /// Training lines, with those that are mixed in.
    pub train_records: u64,
    /// Validation lines.
    pub val_records: u64,
    /// `ctxtune.split/1`.
    pub schema: String,
    /// The plan that it is the split of.
    pub plan: String,
    /// Shards that train.
    pub train_shards: u64,
    /// Numbers of records.
    pub counts: Counts,
    /// What validation shares with training.
    pub leakage: Leakage,
    /// The groups, where the split was made by groups.
    pub grouping: Option<Grouping>,
    /// What is mixed in, by file.
    pub mix: Vec<Mixed>,
    /// Of each file that is mixed in, the highest rank of a line that is, in hexadecimal.
    pub last_mixed: Vec<Option<String>>,
    /// The highest rank of a group that trains, in hexadecimal; only where the split was made by groups.
    pub last_train_group: Option<String>,
    /// Bytes of records that were read.
    pub bytes_read: u64,
    /// SHA-256 of all keys, sorted bytewise, each followed by NUL.
    pub keys_sha256: String,
    /// The digests of the parts' records.
    pub parts: SplitObject,
    /// Where in every part the shards begin and end.
    pub places: SplitObject,
    /// The lines that are mixed in, by place.
    pub mixed: SplitObject,
    /// `rejects.jsonl`.
    pub rejects: SplitObject,
}

/// An object that belongs to a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitObject {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

impl SplitRecord {
    /// The highest rank of a group that trains; `None` where there are no groups.
    pub fn last_train_group(&self) -> Option<Rank> {
        self.last_train_group.as_deref().and_then(read_rank)
    }

    /// The highest rank of a line of the file of this number, from 1, that is mixed in.
    pub fn last_mixed(&self, mix: u64) -> Option<Rank> {
        let last = self.last_mixed.get(usize::try_from(mix).ok()?.checked_sub(1)?)?;
        last.as_deref().and_then(read_rank)
    }
}

fn show_rank(rank: Rank) -> String {
    Hex(&rank).to_string()
}

fn read_rank(digits: &str) -> Option<Rank> {
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

impl Content for SplitRecord {
    fn plan(&self) -> &str {
        &self.plan
    }

    fn objects(&self) -> Vec<&str> {
        [&self.parts, &self.places, &self.mixed, &self.rejects].map(|object| object.name.as_str()).to_vec()
    }
}

/// Splits what the parts of the plan in `work` became, unless that is done. `None` where the result was published
/// meanwhile.
///
/// # Errors
/// [`Error::NotYet`] where a part is missing; where `prepare` fails for what it found in the data; the store's.
pub fn split(
    work: &Work,
    plan: &Plan,
    means: &Means,
    watch: &dyn Watch,
) -> Result<Option<Record<SplitRecord>>, Error> {
    work.attempt(Step::Split, &plan.id, plan.body.settings.is_durable, || {
        let options = plan.options(work, means)?;
        let pool = threads(options.threads)?;
        let mut parts = Vec::with_capacity(plan.body.parts as usize);
        let mut records = Totals::default();
        work.each_record(
            plan.body.parts,
            Step::Part,
            &plan.id,
            &mut |number, record: Record<PartRecord>| {
                let part = Part::of(&record, plan.part(number).mix);
                records.add(&record.content, part.mix);
                parts.push(part);
                watch.check_stop()
            },
        )?;
        records.counts.not_regular = plan.body.not_regular;
        Splitting {
            work,
            plan,
            options: &options,
            means,
            watch,
            pool: &pool,
            parts: &parts,
            totals: &records,
        }
        .split()
    })
}

/// What all parts have together.
#[derive(Debug, Default)]
struct Totals {
    counts: Counts,
    bytes_read: u64,
    unpacked: u64,
    /// Of each file that is mixed in: its records, and the digest of its keys.
    mixed: Vec<(u64, String)>,
}

impl Totals {
    fn add(&mut self, part: &PartRecord, mix: u64) {
        self.bytes_read += part.bytes_read;
        self.unpacked += part.unpacked;
        if mix > 0 {
            self.mixed.push((part.counts.listed, part.keys_sha256.clone()));
        } else {
            self.counts.add(&part.counts);
        }
    }
}

/// Which side a record is on.
#[derive(Debug, Clone, Copy)]
struct Sides {
    /// The highest rank (of a group, where there are any) that trains.
    last_train: Option<Rank>,
    /// The highest rank of a record that trains and has a line.
    last_kept: Option<Rank>,
    is_grouped: bool,
}

impl Sides {
    fn trains(&self, rank: &Rank, group: &Rank) -> bool {
        self.last_train
            .as_ref()
            .is_some_and(|last| if self.is_grouped { group <= last } else { rank <= last })
    }

    fn is_kept(&self, rank: &Rank) -> bool {
        self.last_kept.as_ref().is_some_and(|last| rank <= last)
    }
}

/// The numbers of lines before the shards of a side, ascending, and behind its last one.
fn bounds(records: u64, shard_records: u64) -> Vec<u64> {
    let mut bounds: Vec<u64> =
        (0..records.div_ceil(shard_records)).map(|shard| shard * shard_records).collect();
    bounds.push(records);
    bounds
}

struct Splitting<'s> {
    work: &'s Work,
    plan: &'s Plan,
    options: &'s Options,
    means: &'s Means,
    watch: &'s dyn Watch,
    pool: &'s ThreadPool,
    parts: &'s [Part],
    totals: &'s Totals,
}

/// What the walk over all rows finds.
struct Walked {
    places: SplitObject,
    sides: Sides,
}

impl Splitting<'_> {
    fn split(&self) -> Result<SplitRecord, Error> {
        let counts = &self.totals.counts;
        self.check_counts()?;
        let exact = self.options.val_ratio.train_count(counts.accepted);
        let (cut, last_group) = self.cut_groups(exact)?;
        let train = cut.as_ref().map_or(exact, |cut| cut.train);
        let val = counts.accepted - train;
        self.check_sides(train, val, cut.as_ref())?;
        let kept = self.options.limit.map_or(train, |limit| train.min(limit.get()));
        let chosen = choose(
            self.work,
            &self.plan.body.settings.mix,
            self.parts,
            &self.totals.mixed,
            kept,
            self.options,
        )?;
        let places = mix_places(self.options.seed, chosen.lines.len(), kept);
        let train_bounds = bounds(kept + chosen.lines.len() as u64, self.shard_records());
        let val_bounds = bounds(val, self.shard_records());
        let own = |bound: &u64| bound - places.partition_point(|place| place < bound) as u64;
        let points = Points {
            train: train_bounds.iter().map(own).collect(),
            val: val_bounds.iter().rev().map(|bound| val - bound).collect(),
        };
        let (keys, walked) =
            self.pool.join(|| self.check_keys(), || self.walk(&points, train, kept, last_group));
        let keys_sha256 = keys?;
        let Walked { places: place_object, sides } = walked?;
        let leakage = self.leakage(&sides, &chosen)?;
        let rejects = self.object("split/rejects", |out| {
            self.merge_rejects(&mut |line| out.add(line))?;
            chosen.rejects.iter().try_for_each(|line| out.add(line))
        })?;
        let mixed = self.object("split/mixed", |out| chosen.write(&places, out))?;
        let parts =
            self.object("split/parts", |out| self.parts.iter().try_for_each(|part| out.add(&part.digest)))?;
        let shards = |bounds: &[u64]| bounds.len() as u64 - 1;
        let val_shards = if self.options.val_ratio.is_zero() { 0 } else { shards(&val_bounds) };
        Ok(SplitRecord {
            shards: shards(&train_bounds) + val_shards,
            train_records: kept + chosen.lines.len() as u64,
            val_records: val,
            schema: SCHEMA.to_owned(),
            plan: self.plan.id.clone(),
            train_shards: shards(&train_bounds),
            counts: Counts { beyond_limit: train - kept, ..counts.clone() },
            leakage,
            grouping: cut.map(|cut| Grouping {
                groups: cut.groups,
                train_groups: cut.train_groups,
                deviation: cut.deviation(),
            }),
            mix: chosen.mixed,
            last_mixed: chosen.last.into_iter().map(|rank| rank.map(show_rank)).collect(),
            last_train_group: last_group.map(show_rank),
            bytes_read: self.totals.bytes_read,
            keys_sha256,
            parts,
            places: place_object,
            mixed,
            rejects,
        })
    }

    fn shard_records(&self) -> u64 {
        self.options.shard_records.map_or(u64::MAX, std::num::NonZeroU64::get)
    }

    fn corpus(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.mix == 0)
    }

    /// Blocks of the streams of a merge.
    fn block_bytes(&self) -> usize {
        (MERGE_BYTES / self.parts.len().max(1)).clamp(512, 256 << 10)
    }

    fn merge<S: Stream>(
        &self,
        section: Section,
        open: impl Fn(&Part, Span) -> Result<S, Error>,
    ) -> Result<Merge<S>, Error> {
        let stream = |part: &Part| open(part, part.section(self.work, section, self.block_bytes()));
        Ok(Merge::new(self.corpus().map(stream).collect::<Result<_, _>>()?))
    }

    /// Writes an object of the split.
    fn object(
        &self,
        prefix: &str,
        write: impl FnOnce(&mut DigestObject<'_>) -> Result<(), Error>,
    ) -> Result<SplitObject, Error> {
        let mut object = self.work.begin()?;
        write(&mut object)?;
        let is_durable = self.options.durability == Durability::Sync;
        let (name, FileDigest { bytes, sha256 }) = object.finish(prefix, is_durable)?;
        Ok(SplitObject { name, bytes, sha256 })
    }

    /// Fails as `prepare` does where too little is accepted, and leaves what it leaves.
    fn check_counts(&self) -> Result<(), Error> {
        let Counts { listed, accepted, rejected, skipped, .. } = self.totals.counts;
        if self.totals.unpacked > self.options.max_spool_bytes {
            let limit = self.options.max_spool_bytes;
            return Err(Error::SpoolLimit { path: self.work.shown().into(), limit });
        }
        let limit = self.options.max_rejects;
        let is_over = limit.is_exceeded(rejected, listed);
        if listed > 0 && accepted > 0 && !is_over {
            return Ok(());
        }
        self.check_keys()?;
        if listed == 0 {
            let mut not_read = NameLog::new(self.means.scratch.as_deref());
            self.plan.not_read(self.work, &mut not_read)?;
            let sources = format!("the sources of `{}`", self.work.shown());
            return Err(Error::NothingListed { sources, root: None, not_read: Arc::new(not_read) });
        }
        let failed = self.failed_rejects()?;
        Err(match accepted {
            0 => Error::NothingAccepted { listed, skipped, failed },
            _ => Error::TooManyRejects { listed, limit, failed },
        })
    }

    fn failed_rejects(&self) -> Result<FailedRejects, Error> {
        let mut first = Vec::new();
        let counts = RejectCounts::of(&self.totals.counts.rejected_by_code);
        if counts.total() == 0 {
            return Ok(FailedRejects { counts, rejects: first, report: None });
        }
        let mut write = |out: &mut dyn Write| {
            self.merge_rejects(&mut |line| {
                if first.len() < self.means.name_rejects {
                    first.push(String::from_utf8_lossy(line).trim_end().to_owned());
                }
                let path = self.options.output_dir.clone();
                out.write_all(line).map_err(|source| Error::Write { path, source })
            })
        };
        let report = match address(&self.options.output_dir) {
            Some(output) => {
                let output = StoredOutput::open(output, self.plan.order(), &*self.means.stores)?;
                output.write_failed_rejects(write)?.into()
            }
            None => {
                let output = Output::open(&self.options.output_dir, self.options.durability)?;
                let mut written = Ok(());
                let report = output.write_failed_rejects(|out| {
                    written = write(out);
                    if written.is_ok() { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
                });
                written?;
                report?
            }
        };
        Ok(FailedRejects { counts, rejects: first, report: Some(report) })
    }

    fn merge_rejects(&self, each: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let mut rejects = self.merge(Section::Rejects, |_, span| RejectStream::new(span))?;
        while let Some((_, reject)) = rejects.peek() {
            each(reject.line())?;
            rejects.advance()?;
        }
        Ok(())
    }

    fn check_sides(&self, train: u64, val: u64, cut: Option<&GroupCut>) -> Result<(), Error> {
        let ratio = self.options.val_ratio;
        let side = match (train, val) {
            (0, _) => "train",
            (_, 0) if !ratio.is_zero() => "validation",
            _ => return Ok(()),
        };
        self.check_keys()?;
        let groups = cut.map(|cut| format!(", {} groups", cut.groups)).unwrap_or_default();
        Err(Error::EmptySide { side, accepted: self.totals.counts.accepted, ratio, groups })
    }

    /// Fails where a key is there twice, or belongs to what is mixed in; gives the digest of all.
    fn check_keys(&self) -> Result<String, Error> {
        let mut keys = self.merge(Section::Listed, |_, span| KeyStream::new(span))?;
        let mut digest = Sha256::new();
        let mut last: Option<(usize, Vec<u8>)> = None;
        let is_mixed = !self.plan.body.settings.mix.is_empty();
        let mut number = 0u64;
        while let Some((part, stream)) = keys.peek() {
            let key = stream.key();
            let place = |part: usize| format!("part {part} of the plan");
            if let Some((before, _)) = last.as_ref().filter(|(_, last)| last == key) {
                let (first, second) = (place(*before), place(part));
                return Err(Error::EqualKeys { key: KeyText(key).to_json(), first, second });
            }
            if is_mixed && key.starts_with(MIX_PREFIX) {
                let place = |what: &str| format!("{what} whose keys begin with `mix/`");
                let (first, second) = (place("in the corpus,"), place("in --mix,"));
                return Err(Error::EqualKeys { key: KeyText(key).to_json(), first, second });
            }
            digest.update(key);
            digest.update([0]);
            let (before, text) = last.get_or_insert_default();
            *before = part;
            text.clear();
            text.extend_from_slice(key);
            keys.advance()?;
            number += 1;
            self.look(number)?;
        }
        Ok(Hex(&digest.finalize()).to_string())
    }

    fn look(&self, number: u64) -> Result<(), Error> {
        if number.is_multiple_of(ENTRIES_BETWEEN_LOOKS) { self.watch.check_stop() } else { Ok(()) }
    }

    /// The boundary between groups, and the highest rank of a group that trains.
    fn cut_groups(&self, exact: u64) -> Result<(Option<GroupCut>, Option<Rank>), Error> {
        if self.options.group_by.is_none() {
            return Ok((None, None));
        }
        let mut groups = self.merge(Section::Groups, |_, span| FixedStream::<GROUP_BYTES>::new(span))?;
        let (mut cut, mut last_train) = (GroupCut::new(exact), None);
        let mut current: Option<(Rank, u64)> = None;
        let mut number = 0;
        let mut end = |group: Option<(Rank, u64)>| {
            if let Some((rank, records)) = group
                && cut.add(records)
            {
                last_train = Some(rank);
            }
        };
        while let Some((_, stream)) = groups.peek() {
            let (rank, records) = read_group(stream.row());
            current = match current {
                Some((same, before)) if same == rank => Some((same, before + records)),
                other => {
                    end(other);
                    Some((rank, records))
                }
            };
            groups.advance()?;
            number += 1;
            self.look(number)?;
        }
        end(current);
        Ok((Some(cut), last_train))
    }

    /// Goes through all lines by rank: which side they are on, and where in each part the shards begin.
    fn walk(
        &self,
        points: &Points,
        train: u64,
        kept: u64,
        last_group: Option<Rank>,
    ) -> Result<Walked, Error> {
        let is_grouped = self.options.group_by.is_some();
        let mut rows = self.merge(Section::Rows, |part, span| {
            RowStream::new(span, is_grouped, false, Place::default(), part.end())
        })?;
        let mut sides = Sides { last_train: last_group, last_kept: None, is_grouped };
        let (mut trained, mut validated) = (0, 0);
        let scratch = self.means.scratch.as_deref();
        let mut places = [Aside::new(scratch)?, Aside::new(scratch)?];
        let mut next = [0, 0];
        let mut dump = |side: usize, points: &[u64], at: u64, rows: &Merge<RowStream>| {
            while points.get(next[side]) == Some(&at) {
                rows.streams()
                    .iter()
                    .try_for_each(|stream| places[side].add(|out| stream.place().write(out)))?;
                next[side] += 1;
            }
            Ok::<(), Error>(())
        };
        while let Some((_, stream)) = rows.peek() {
            let Row { rank, group, .. } = *stream.row();
            if if is_grouped { sides.trains(&rank, &group) } else { trained < train } {
                dump(0, &points.train, trained, &rows)?;
                trained += 1;
                if trained <= kept {
                    sides.last_kept = Some(rank);
                }
                if !is_grouped {
                    sides.last_train = Some(rank);
                }
            } else {
                dump(1, &points.val, validated, &rows)?;
                validated += 1;
            }
            rows.advance()?;
            self.look(trained + validated)?;
        }
        dump(0, &points.train, trained, &rows)?;
        dump(1, &points.val, validated, &rows)?;
        let places = self.object("split/places", |out| {
            places
                .into_iter()
                .try_for_each(|side| side.copy(out).map(drop))
                .map_err(self.work.failed("split/places"))
        })?;
        Ok(Walked { places, sides })
    }

    fn leakage(&self, sides: &Sides, chosen: &Chosen) -> Result<Leakage, Error> {
        let shared = |section| match sides.is_grouped {
            true => self.shared::<GROUPED_MARK_BYTES>(section, sides, chosen),
            false => self.shared::<MARK_BYTES>(section, sides, chosen),
        };
        if self.options.chat {
            return Ok(Leakage { val_sharing_text: Some(shared(Section::Stories)?), ..Leakage::default() });
        }
        let (story, agents) = self.pool.join(|| shared(Section::Stories), || shared(Section::Agents));
        Ok(Leakage {
            val_sharing_story: Some(story?),
            val_sharing_agents: Some(agents?),
            ..Leakage::default()
        })
    }

    /// How many validation records have a mark that a training record has too. Of chat lines those that are mixed in
    /// train as well.
    fn shared<const BYTES: usize>(
        &self,
        section: Section,
        sides: &Sides,
        chosen: &Chosen,
    ) -> Result<u64, Error> {
        let mut marks = self.merge(section, |_, span| FixedStream::<BYTES>::new(span))?;
        let mut mixed = if self.options.chat { chosen.texts.iter() } else { [].iter() }.peekable();
        let (mut shared, mut number) = (0, 0);
        let (mut current, mut validated, mut trains) = (None, 0, false);
        while let Some((_, stream)) = marks.peek() {
            let (mark, rank, group) = read_mark(stream.row());
            if current != Some(mark) {
                shared += if trains { validated } else { 0 };
                while mixed.next_if(|text| **text < mark).is_some() {}
                (current, validated, trains) = (Some(mark), 0, mixed.peek() == Some(&&mark));
            }
            match sides.trains(&rank, &group) {
                true => trains |= sides.is_kept(&rank),
                false => validated += 1,
            }
            marks.advance()?;
            number += 1;
            self.look(number)?;
        }
        Ok(shared + if trains { validated } else { 0 })
    }
}

/// The numbers of lines of a side at which the places in all parts are kept, ascending by rank.
struct Points {
    train: Vec<u64>,
    val: Vec<u64>,
}
