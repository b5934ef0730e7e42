//! One run over a listed corpus: the passes over its records, the judgement, the files.
//!
//! The batch loop of the engine. Without groups one pass converts both sides toward each
//! other and the tails are put right; with groups a first pass finds out who is accepted
//! and where the cut lies. Everything in memory is counted by the record, never by the byte.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::ThreadPool;

use crate::error::{Error, FailedRejects};
use crate::json::KeyText;
use crate::line::convert::LineWriter;
use crate::output::key_lines::{KEYS, SideKeys, write_key_lines};
use crate::output::manifest::{
    Counts, DataKind, Grouping, Hex, Leakage, Manifest, Mixed, OptionsUsed, SCHEMA, Side, TemplateUsed,
};
use crate::output::publish::{Output, Published};
use crate::output::shard::{SideWriter, move_tail, write_error};
use crate::parallel::{Next, run_in_order};
use crate::prepare::batch::{RecordBatch, Verdict};
use crate::prepare::mix::{self, Amount, Mix, MixedLines};
use crate::prepare::options::Options;
use crate::prepare::tally::{Order, Tally};
use crate::prepare::visit::Visitor;
use crate::record::reject::RejectLog;
use crate::source::ahead::{Visit, Visits, with_readers};
use crate::source::list::{self, Corpus, Listing};
use crate::source::names::NameLog;
use crate::source::spool::Spool;
use crate::split::Ranks;
use crate::split::group::{GroupBy, GroupedSplit, split_groups};
use crate::watch::Watch;

/// Records a chunk: their lines fill a write of some hundred KiB. Chunks of 64 take 3 % more processor time.
const CHUNK_RECORDS: usize = 128;

/// The file that names the rejects.
pub const REJECTS: &str = "rejects.jsonl";

/// What a run did.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Counts of records.
    pub counts: Counts,
    /// Training examples.
    pub train_records: u64,
    /// Validation examples.
    pub val_records: u64,
    /// What validation shares with training.
    pub leakage: Leakage,
    /// The groups, where the split was made by groups.
    pub grouping: Option<Grouping>,
    /// What was mixed into the training lines, by file.
    pub mix: Vec<Mixed>,
    /// Bytes of records read; with groups every record is read twice.
    pub bytes_read: u64,
    /// The rejects in rank order as JSON lines: as many as asked for.
    pub rejects: Vec<String>,
    /// What lies in the sources and was not read: its key, and what it is.
    pub not_read: Arc<NameLog>,
    /// The accepted records with something odd, by the names of [`crate::record::warning::Warning`].
    pub warned: Arc<NameLog>,
    /// The first training lines, as many as asked for.
    pub shown: Vec<Vec<u8>>,
    /// What was published; `None` in a dry run.
    pub result: Option<(Manifest, Published)>,
    /// Whether the output's file system has no locks, so that a mere file kept other runs out.
    pub has_no_locks: bool,
    /// Whether a README that is not ours was left where it is.
    pub kept_readme: bool,
}

/// What all steps of one run share.
#[derive(Clone, Copy)]
pub struct Run<'r> {
    /// What to prepare, and how.
    pub options: &'r Options,
    /// Where to report.
    pub watch: &'r dyn Watch,
    /// The threads.
    pub pool: &'r ThreadPool,
    /// The records.
    pub listing: &'r Listing,
    /// Where the result goes; `None` in a dry run.
    pub output: Option<&'r Output>,
}

/// What the passes over the records leave behind.
struct Converted {
    tally: Tally,
    rejects: RejectLog,
    warned: NameLog,
    bytes_read: u64,
    shown: Vec<Vec<u8>>,
    sides: Sides,
    grouped: Option<GroupedSplit>,
}

/// Both sides while they are staged.
struct Sides {
    train: SideWriter,
    val: SideWriter,
}

impl Sides {
    fn append(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let (mut lines, mut lengths) = (&batch.lines[..], &batch.lengths[..]);
        let Sides { train, val } = self;
        let (side, other) = if batch.trains { (train, val) } else { (val, train) };
        match side.append(&mut lines, &mut lengths) {
            Err((path, error)) if is_full(&error) => {
                // What both have reserved may be just what is missing.
                let given_back = [side.end_reserve(), other.end_reserve()];
                match given_back.into_iter().any(|given| given.is_ok_and(|had_any| had_any)) {
                    true => side.append(&mut lines, &mut lengths).map_err(write_error),
                    false => Err(write_error((path, error))),
                }
            }
            result => result.map_err(write_error),
        }
    }
}

/// `others` at `places` among `items`: the first of them, where there are not that many.
fn interleaved<T>(items: Vec<T>, others: impl IntoIterator<Item = T>, places: &[u64]) -> Vec<T> {
    let mut all = Vec::new();
    let mut items = items.into_iter();
    for (other, &place) in others.into_iter().zip(places) {
        all.extend(items.by_ref().take(place as usize - all.len()));
        all.push(other);
    }
    all.extend(items);
    all
}

/// Whether there was no space left to write to.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The records that a pass visits, and in which order.
pub enum Selection<'v> {
    /// By rank, all of them.
    All,
    /// The first so many by rank upward, then the others from the last one downward.
    BothEnds(usize),
    /// These positions; the first so many train.
    Chosen(&'v [u32], usize),
}

/// The visits of one pass. No chunk lies on both sides.
struct Pass<'v> {
    selection: &'v Selection<'v>,
    listed: usize,
    /// How many records are visited.
    total: usize,
    /// How many of them train.
    train: usize,
}

impl Pass<'_> {
    fn new<'v>(selection: &'v Selection<'v>, listed: usize) -> Pass<'v> {
        let (total, train) = match selection {
            Selection::All => (listed, listed),
            Selection::BothEnds(train) => (listed, *train),
            Selection::Chosen(positions, train) => (positions.len(), *train),
        };
        Pass { selection, listed, total, train }
    }

    fn train_chunks(&self) -> usize {
        self.train.div_ceil(CHUNK_RECORDS)
    }
}

impl Visits for Pass<'_> {
    fn chunks(&self) -> usize {
        self.train_chunks() + (self.total - self.train).div_ceil(CHUNK_RECORDS)
    }

    fn of_chunk(&self, chunk: usize) -> Range<usize> {
        let (start, end) = match chunk.checked_sub(self.train_chunks()) {
            None => (chunk * CHUNK_RECORDS, self.train),
            Some(chunk) => (self.train + chunk * CHUNK_RECORDS, self.total),
        };
        start..end.min(start + CHUNK_RECORDS)
    }

    fn position(&self, visit: usize) -> u32 {
        match self.selection {
            Selection::BothEnds(train) if visit >= *train => (self.listed - 1 - (visit - train)) as u32,
            Selection::All | Selection::BothEnds(_) => visit as u32,
            Selection::Chosen(positions, _) => positions[visit],
        }
    }
}

/// The manifest of what was `prepared` but for the files beside the shards.
pub fn manifest(
    options: &Options,
    prepared: &Prepared,
    keys_sha256: String,
    train: Side,
    val: Option<Side>,
) -> Manifest {
    Manifest {
        schema: SCHEMA.to_owned(),
        tool: concat!("ctxtune ", env!("CARGO_PKG_VERSION")).to_owned(),
        options: OptionsUsed {
            kind: kind(options),
            seed: options.seed,
            val_ratio: options.val_ratio.to_string(),
            group_by: options.group_by.as_ref().map(GroupBy::to_string),
            shard_records: options.shard_records.map(NonZeroU64::get),
            compress: options.compress,
            limit: options.limit.map(NonZeroU64::get),
            only_correct: options.only_correct,
            max_record_bytes: options.max_record_bytes as u64,
        },
        counts: prepared.counts.clone(),
        leakage: prepared.leakage,
        grouping: prepared.grouping,
        mix: prepared.mix.clone(),
        template: (!options.chat).then(|| TemplateUsed {
            name: options.template.name.clone(),
            text: options.template.text.clone(),
        }),
        keys_sha256,
        train,
        val,
        files: BTreeMap::new(),
    }
}

fn kind(options: &Options) -> DataKind {
    if options.chat { DataKind::Chat } else { DataKind::Contexts }
}

impl Run<'_> {
    /// Converts, judges and publishes.
    ///
    /// # Errors
    /// Whatever keeps the result from being complete.
    pub fn prepare(&self) -> Result<Prepared, Error> {
        let mut converted = match self.options.group_by {
            None => self.convert_by_rank()?,
            Some(_) => self.convert_by_group()?,
        };
        self.judge(&mut converted)?;
        let train = converted.sides.train.records();
        let kept = self.options.limit.map_or(train, |limit| train.min(limit.get()));
        if kept < train {
            converted.sides.train = self.first_lines(converted.sides.train, kept)?;
            converted.shown.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        }
        let mut mixed = self.choose_mixed(kept, &mut converted)?;
        let places = self.place_mixed(&mut mixed, &mut converted)?;
        let order = Order {
            grouped: converted.grouped.as_ref().map(|split| &split.order[..]),
            train: train as usize,
            kept: kept as usize,
        };
        let tally = &converted.tally;
        let leakage = self.pool.install(|| tally.leakage(&order, kind(self.options), mixed.lines()));
        let grouping = converted.grouped.as_ref().map(|split| Grouping {
            groups: split.groups,
            train_groups: split.train_groups,
            deviation: split.deviation,
        });
        let shown_rejects = self.shown_rejects(&mut converted.rejects)?;
        let mut prepared = Prepared {
            counts: Counts { beyond_limit: train - kept, ..self.counts(&converted) },
            train_records: converted.sides.train.records(),
            val_records: converted.sides.val.records(),
            leakage,
            grouping,
            mix: std::mem::take(&mut mixed.chosen),
            bytes_read: converted.bytes_read,
            rejects: shown_rejects,
            not_read: Arc::clone(&self.listing.not_read),
            warned: Arc::new(converted.warned),
            shown: converted.shown,
            result: None,
            has_no_locks: self.output.is_some_and(Output::has_no_locks),
            kept_readme: false,
        };
        if let Some(output) = self.output {
            let finish = |side: SideWriter| side.finish(self.options.compress, self.pool, self.watch);
            let Sides { train, val } = converted.sides;
            let val = (!self.options.val_ratio.is_zero()).then(|| finish(val)).transpose()?;
            let train = finish(train)?;
            let keys_sha256 = Hex(&self.listing.keys_sha256).to_string();
            let mut manifest = manifest(self.options, &prepared, keys_sha256, train, val);
            self.stage_rejects(output, &mut converted.rejects, &mut manifest)?;
            self.stage_keys(output, &order, &converted.tally, (&mixed, &places), &mut manifest)?;
            self.watch.check_stop()?;
            prepared.kept_readme = !output.may_write_card()?;
            let published = output.publish(&mut manifest, self.watch)?;
            prepared.result = Some((manifest, published));
        }
        Ok(prepared)
    }

    /// One pass: both sides grow toward each other, then the tails are put right.
    fn convert_by_rank(&self) -> Result<Converted, Error> {
        let listed = self.listing.len();
        let mut converted = self.start()?;
        let expected = self.options.val_ratio.train_count(listed as u64) as usize;
        let Converted { tally, rejects, warned, bytes_read, shown, sides, .. } = &mut converted;
        self.pass(&Selection::BothEnds(expected), |batch| {
            *bytes_read += batch.bytes_read;
            self.count(batch, tally, rejects, warned)?;
            self.show(batch, shown);
            sides.append(batch)
        })?;
        let exact = self.options.val_ratio.train_count(tally.accepted);
        let Sides { train, val } = sides;
        let moved = match train.records().checked_sub(exact) {
            Some(surplus) => move_tail(train, val, surplus),
            None => move_tail(val, train, exact - train.records()),
        };
        moved.map_err(write_error)?;
        shown.truncate(usize::try_from(exact).unwrap_or(usize::MAX));
        Ok(converted)
    }

    /// Two passes: the first finds out which records are accepted and to which groups they
    /// belong, the second writes. A file that changed in between ends the run.
    fn convert_by_group(&self) -> Result<Converted, Error> {
        let mut converted = self.start()?;
        let Converted { tally, rejects, warned, bytes_read, shown, sides, grouped } = &mut converted;
        self.pass(&Selection::All, |batch| {
            *bytes_read += batch.bytes_read;
            self.count(batch, tally, rejects, warned)
        })?;
        // Judged before the second pass as well, which a failed run need not make.
        if self.is_over_limit(rejects) || tally.accepted == 0 {
            return Ok(converted);
        }
        let accepted = tally.accepted_positions().collect();
        let split = split_groups(accepted, |position| tally.group(position), self.options.val_ratio);
        self.pass(&Selection::Chosen(&split.order, split.train), |batch| {
            *bytes_read += batch.bytes_read;
            for (position, verdict) in &batch.verdicts {
                match verdict {
                    Verdict::Accepted(marks) if tally.is_same(*position, marks.content) => {}
                    _ => return Err(Error::Changed { path: self.path(*position) }),
                }
            }
            self.show(batch, shown);
            sides.append(batch)
        })?;
        *grouped = Some(split);
        Ok(converted)
    }

    /// The lines that are mixed into `records` training records.
    fn choose_mixed(&self, records: u64, converted: &mut Converted) -> Result<MixedLines, Error> {
        let mixes = &self.options.mix;
        if mixes.is_empty() {
            return Ok(MixedLines::default());
        }
        let staging = self.output.map(Output::staging);
        let mut mixed = MixedLines::new(staging.as_deref()).map_err(|source| self.reject_error(source))?;
        if let Some(key) =
            (0..self.listing.len()).map(|at| self.listing.key(at)).find(|key| key.starts_with(mix::PREFIX))
        {
            let place = |what: &str| format!("{what} whose keys begin with `mix/`");
            let (first, second) = (place("in the corpus,"), place("in --mix,"));
            return Err(Error::EqualKeys { key: KeyText(key).to_json(), first, second });
        }
        let amounts: Vec<Amount> = mixes.iter().map(|mix| mix.amount).collect();
        let counts = mix::counts(&amounts, records).ok_or_else(|| Error::Mix {
            path: mixes[0].source.path.clone(),
            reason: "the shares leave almost no room for records".to_owned(),
        })?;
        let options = Options { chat: true, group_by: None, ..self.options.clone() };
        let mut spool = Spool::new(staging.as_deref(), self.options.max_spool_bytes);
        for ((mix, within), count) in mixes.iter().zip(mix::key_prefixes(mixes)).zip(counts) {
            let corpus = Corpus {
                sources: std::slice::from_ref(&mix.source),
                skip: None,
                within: &within,
                seed: self.options.seed,
                convert: None,
                converts_plain_files: false,
            };
            let listing = self.pool.install(|| list::list(&corpus, &mut spool, self.watch))?;
            let run = Run { options: &options, listing: &listing, ..*self };
            run.choose(mix, &within, count, converted, &mut mixed)?;
        }
        Ok(mixed)
    }

    /// Adds to `mixed` the first `count` usable lines of the listing, which is that of `mix`.
    fn choose(
        &self,
        mix: &Mix,
        within: &[u8],
        count: u64,
        converted: &mut Converted,
        mixed: &mut MixedLines,
    ) -> Result<(), Error> {
        let failed = |reason: String| Error::Mix { path: mix.source.path.clone(), reason };
        let listed = self.listing.len();
        let ranks = Ranks::new(self.options.seed);
        let Converted { rejects, warned, .. } = converted;
        let mut warnings: BTreeMap<String, u64> = BTreeMap::new();
        let (mut visited, mut chosen, mut rejected) = (0, 0, 0);
        while chosen < count {
            // Exactly as many as are missing: which lines are looked at must not depend on chunks.
            let end = listed.min(visited + usize::try_from(count - chosen).unwrap_or(usize::MAX));
            if visited == end {
                let of = format!("{chosen} of its {listed} lines are usable, and {count} are asked for");
                return Err(failed(of));
            }
            let positions: Vec<u32> = (visited as u32..end as u32).collect();
            self.pass(&Selection::Chosen(&positions, positions.len()), |batch| {
                let mut line = 0;
                let mut lengths = batch.lengths.iter();
                for (position, verdict) in &batch.verdicts {
                    let key = self.listing.key(*position as usize);
                    let kept = match verdict {
                        Verdict::Accepted(marks) => {
                            let start = line;
                            line += *lengths.next().expect("each accepted record has a line") as usize;
                            chosen += 1;
                            for warning in marks.warnings.iter() {
                                *warnings.entry(warning.as_str().to_owned()).or_default() += 1;
                                warned.push(warning.as_str(), key).map_err(Error::NameLog)?;
                            }
                            mixed.push(&ranks, key, marks.story, &batch.lines[start..line])
                        }
                        Verdict::Rejected(reason) => {
                            rejected += 1;
                            rejects.push_mixed(key, reason)
                        }
                        Verdict::Skipped => Ok(()),
                    };
                    kept.map_err(|source| self.reject_error(source))?;
                }
                Ok(())
            })?;
            visited = end;
            if self.options.max_rejects.is_exceeded(rejected, listed as u64) {
                let limit = self.options.max_rejects;
                let first = rejects.first_mixed().unwrap_or_default();
                return Err(failed(format!(
                    "{rejected} of its {listed} lines are rejected, and the limit is {limit}: {first}"
                )));
            }
        }
        mixed.chosen.push(Mixed {
            file: String::from_utf8_lossy(&within[mix::PREFIX.len()..within.len() - 1]).into_owned(),
            asked: mix.amount.to_string(),
            listed: listed as u64,
            rejected,
            records: chosen,
            warnings,
            keys_sha256: Hex(&self.listing.keys_sha256).to_string(),
        });
        Ok(())
    }

    /// Puts the lines of `mixed` among the training lines; gives their places.
    fn place_mixed(&self, mixed: &mut MixedLines, converted: &mut Converted) -> Result<Vec<u64>, Error> {
        let failed = |source| self.reject_error(source);
        if mixed.by_rank().map_err(failed)?.is_empty() {
            return Ok(Vec::new());
        }
        let train = std::mem::replace(&mut converted.sides.train, self.side("train", "train-mixed"));
        let places = mix::places(self.options.seed, mixed.lines().len(), train.records());
        let into = &mut converted.sides.train;
        let mut lines = train.into_lines().map_err(write_error)?;
        let mut text = Vec::new();
        let mut shown = Vec::new();
        for (line, &place) in mixed.lines().iter().zip(&places) {
            lines.copy(place - into.records(), into).map_err(write_error)?;
            mixed.read(line, &mut text).map_err(failed)?;
            let mut line = &text[..];
            let lengths = [line.len() as u64];
            into.append(&mut line, &mut &lengths[..]).map_err(write_error)?;
            if place < self.options.purpose.show as u64 {
                shown.push(text.clone());
            }
        }
        lines.copy(u64::MAX, into).map_err(write_error)?;
        converted.shown = interleaved(std::mem::take(&mut converted.shown), shown, &places);
        converted.shown.truncate(self.options.purpose.show);
        Ok(places)
    }

    /// A side of which the first `count` lines of `train` are left. The split has to be known before: which
    /// records validate depends on all of them.
    fn first_lines(&self, train: SideWriter, count: u64) -> Result<SideWriter, Error> {
        let mut kept = self.side("train", "train-kept");
        let mut lines = train.into_lines().map_err(write_error)?;
        lines.copy(count, &mut kept).map_err(write_error)?;
        lines.delete().map_err(write_error)?;
        Ok(kept)
    }

    /// An empty side `name`, whose shards are staged under the name `stem`.
    fn side(&self, name: &'static str, stem: &'static str) -> SideWriter {
        let staging = self.output.map(Output::staging);
        SideWriter::new(name, stem, staging.as_deref(), self.options.shard_records.map(NonZeroU64::get))
    }

    fn start(&self) -> Result<Converted, Error> {
        let staging = self.output.map(Output::staging);
        Ok(Converted {
            tally: Tally::new(self.listing.len(), self.options.group_by.is_some()),
            rejects: RejectLog::create(staging.as_deref()).map_err(|source| self.reject_error(source))?,
            warned: NameLog::new(staging.as_deref()),
            bytes_read: 0,
            shown: Vec::new(),
            sides: Sides { train: self.side("train", "train"), val: self.side("val", "val") },
            grouped: None,
        })
    }

    /// Converts the records of `selection` on all threads and hands them to `sink` in its order.
    ///
    /// # Errors
    /// When a record cannot be read; those of `sink`.
    pub fn pass(
        &self,
        selection: &Selection<'_>,
        mut sink: impl FnMut(&RecordBatch) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let pass = Pass::new(selection, self.listing.len());
        let train_chunks = pass.train_chunks();
        let lines = LineWriter::new(&self.options.template);
        with_readers(self.listing, &pass, self.options.threads.get(), self.watch, |readers| {
            run_in_order(
                self.pool,
                || Visitor::new(self.options, self.listing, &lines, readers.turns()),
                RecordBatch::default,
                |_, chunk| Ok(Next::of(chunk, pass.chunks())),
                |visitor, chunk, batch, part| {
                    batch.trains = chunk < train_chunks;
                    for number in pass.of_chunk(chunk) {
                        self.watch.check_stop()?;
                        visitor.visit(Visit { chunk, number, position: pass.position(number) }, batch)?;
                        part(batch)?;
                    }
                    Ok(())
                },
                |batch| {
                    sink(batch)?;
                    let is_reject = |(_, verdict): &&(u32, Verdict)| matches!(verdict, Verdict::Rejected(_));
                    let rejects = batch.verdicts.iter().filter(is_reject).count();
                    self.watch.converted(batch.verdicts.len() as u64, batch.bytes_read, rejects as u64);
                    Ok(())
                },
            )
        })
    }

    fn count(
        &self,
        batch: &RecordBatch,
        tally: &mut Tally,
        rejects: &mut RejectLog,
        warned: &mut NameLog,
    ) -> Result<(), Error> {
        for (position, verdict) in &batch.verdicts {
            match verdict {
                Verdict::Accepted(marks) => {
                    tally.accept(*position, marks);
                    for warning in marks.warnings.iter() {
                        let key = self.listing.key(*position as usize);
                        warned.push(warning.as_str(), key).map_err(Error::NameLog)?;
                    }
                }
                Verdict::Skipped => tally.skip(),
                Verdict::Rejected(reason) => {
                    let key = self.listing.key(*position as usize);
                    let pushed = match batch.trains {
                        true => rejects.push_ascending(key, reason),
                        false => rejects.push_descending(key, reason),
                    };
                    pushed.map_err(|source| self.reject_error(source))?;
                }
            }
        }
        Ok(())
    }

    fn show(&self, batch: &RecordBatch, shown: &mut Vec<Vec<u8>>) {
        if !batch.trains || shown.len() >= self.options.purpose.show {
            return;
        }
        let lines = batch.lines.split_inclusive(|&byte| byte == b'\n');
        shown.extend(lines.take(self.options.purpose.show - shown.len()).map(<[u8]>::to_vec));
    }

    fn path(&self, position: u32) -> PathBuf {
        let mut path = PathBuf::new();
        self.listing.place(position as usize, &mut path);
        path
    }

    fn reject_error(&self, source: io::Error) -> Error {
        match self.output {
            Some(output) => Error::Write { path: output.staging(), source },
            None => Error::RejectLog(source),
        }
    }

    fn is_over_limit(&self, rejects: &RejectLog) -> bool {
        self.options.max_rejects.is_exceeded(rejects.counts().total(), self.listing.len() as u64)
    }

    /// Ends the run where its result would not be worth publishing.
    fn judge(&self, converted: &mut Converted) -> Result<(), Error> {
        let listed = self.listing.len() as u64;
        let accepted = converted.tally.accepted;
        if accepted == 0 {
            let failed = self.failed_rejects(&mut converted.rejects)?;
            return Err(Error::NothingAccepted { listed, skipped: converted.tally.skipped, failed });
        }
        if self.is_over_limit(&converted.rejects) {
            let failed = self.failed_rejects(&mut converted.rejects)?;
            return Err(Error::TooManyRejects { listed, limit: self.options.max_rejects, failed });
        }
        let ratio = self.options.val_ratio;
        let side = match (converted.sides.train.records(), converted.sides.val.records()) {
            (0, _) => "train",
            (_, 0) if !ratio.is_zero() => "validation",
            _ => return Ok(()),
        };
        let groups = converted.grouped.as_ref().map(|split| format!(", {} groups", split.groups));
        Err(Error::EmptySide { side, accepted, ratio, groups: groups.unwrap_or_default() })
    }

    fn failed_rejects(&self, rejects: &mut RejectLog) -> Result<FailedRejects, Error> {
        let report = match self.output {
            Some(output) if rejects.counts().total() > 0 => {
                Some(output.write_failed_rejects(|out| rejects.write_to(out))?)
            }
            _ => None,
        };
        let counts = rejects.counts().clone();
        Ok(FailedRejects { counts, rejects: self.shown_rejects(rejects)?, report })
    }

    fn shown_rejects(&self, rejects: &mut RejectLog) -> Result<Vec<String>, Error> {
        let limit = self.options.purpose.name_rejects;
        rejects.first(limit).map_err(|source| self.reject_error(source))
    }

    fn counts(&self, converted: &Converted) -> Counts {
        let rejects = converted.rejects.counts();
        Counts {
            listed: self.listing.len() as u64,
            rejected: rejects.total(),
            not_regular: self.listing.not_regular,
            rejected_by_code: rejects.by_code().map(|(code, count)| (code.to_owned(), count)).collect(),
            ..converted.tally.counts()
        }
    }

    fn stage_rejects(
        &self,
        output: &Output,
        rejects: &mut RejectLog,
        manifest: &mut Manifest,
    ) -> Result<(), Error> {
        let digest = output.stage(REJECTS, |out| rejects.write_to(out))?;
        manifest.files.insert(REJECTS.to_owned(), digest);
        Ok(())
    }

    fn stage_keys(
        &self,
        output: &Output,
        order: &Order<'_>,
        tally: &Tally,
        (mixed, places): (&MixedLines, &[u64]),
        manifest: &mut Manifest,
    ) -> Result<(), Error> {
        let sides: Vec<SideKeys<'_>> = manifest
            .sides()
            .map(|(name, side)| {
                let is_train = name == "train";
                let positions = if is_train { order.train(tally) } else { order.validation(tally) };
                let mut positions: Vec<u32> = positions.collect();
                if is_train && !places.is_empty() {
                    let first = self.listing.len() as u32;
                    positions = interleaved(positions, (first..).take(places.len()), places);
                }
                SideKeys { name, side, positions }
            })
            .collect();
        let keys: Vec<&[u8]> = mixed.lines().iter().map(|line| line.key.as_slice()).collect();
        let digest =
            output.stage(KEYS, |out| write_key_lines(&sides, self.listing, &keys, self.pool, out))?;
        manifest.files.insert(KEYS.to_owned(), digest);
        Ok(())
    }
}
