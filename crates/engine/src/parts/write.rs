//! Writes one shard from the lines of all parts, and its rows of `keys.tsv`.
//!
//! Each part has the shard's lines between two places, by rank; a merge of these ranges is the shard. No file stays
//! open and few bytes of each part are in memory, however many parts there are. Lines are merged on one thread,
//! compressed, digested and written on another.

use std::io::Write;
use std::sync::mpsc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::output::compress::{Packed, Packer};
use crate::output::key_lines::KeyLines;
use crate::output::manifest::Hex;
use crate::output::publish::Durability;
use crate::output::shard::shard_name;
use crate::parts::merge::Merge;
use crate::parts::mixing::{PlacedLine, read_placed};
use crate::parts::part::{Part, PartRecord, Section};
use crate::parts::plan::Plan;
use crate::parts::rows::{Place, RowStream};
use crate::parts::settings::Means;
use crate::parts::span::Span;
use crate::parts::split::{SplitObject, SplitRecord};
use crate::parts::work::{Content, DigestObject, Record, Step, Work};
use crate::prepare::Options;
use crate::split::Rank;
use crate::watch::Watch;

/// The schema of the records of shards.
const SCHEMA: &str = "ctxtune.shard/1";

/// What the blocks of lines of all parts take in memory together.
const LINES_BYTES: usize = 256 << 20;

/// The same of their rows, and of their keys.
const ROWS_BYTES: usize = 64 << 20;

/// Lines are handed on in blocks of about this size.
const BLOCK_BYTES: usize = 1 << 20;

/// Blocks that wait for the disk.
const BLOCKS: usize = 4;

/// What is known of a written shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// `ctxtune.shard/1`.
    pub schema: String,
    /// The plan that it belongs to.
    pub plan: String,
    /// Its number, from 0: first those that train.
    pub shard: u64,
    /// The name it will have.
    pub file: String,
    /// Its lines.
    pub records: u64,
    /// The object that holds them.
    pub object: String,
    /// The object's size.
    pub bytes: u64,
    /// The object's SHA-256.
    pub sha256: String,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// The SHA-256 before compression.
    pub plain_sha256: String,
    /// Its rows of `keys.tsv`.
    pub keys: SplitObject,
}

impl Content for ShardRecord {
    fn plan(&self) -> &str {
        &self.plan
    }

    fn objects(&self) -> Vec<&str> {
        vec![&self.object, &self.keys.name]
    }
}

/// The split of the plan in `work`.
///
/// # Errors
/// [`Error::NotYet`] where there is none.
pub fn split_of(work: &Work, plan: &Plan) -> Result<SplitRecord, Error> {
    match work.record::<SplitRecord>(Step::Split, &plan.id)? {
        Some(record) => Ok(record.content),
        None => Err(Error::NotYet { what: format!("the split in `{}`", work.shown()) }),
    }
}

/// Writes `shard` of the plan in `work`, unless that is done. `None` where the result was published meanwhile.
///
/// # Errors
/// [`Error::NotYet`] where there is no split; [`Error::Differ`] where a part is another one than was split; the store's.
pub fn write(
    work: &Work,
    plan: &Plan,
    shard: u64,
    means: &Means,
    watch: &dyn Watch,
) -> Result<Option<Record<ShardRecord>>, Error> {
    work.attempt(Step::Shard(shard), &plan.id, plan.body.settings.is_durable, || {
        let split = split_of(work, plan)?;
        watch.step("shard", shard, split.shards);
        let options = plan.options(work, means)?;
        let pins = object(work, &split.parts)?;
        let mut parts = Vec::with_capacity(plan.body.parts as usize);
        for (number, pin) in (0..plan.body.parts).zip(pins.chunks(32)) {
            let step = Step::Part(number);
            let differs = || Error::Differ { record: work.storage.shown(&step.record()) };
            let record: Record<PartRecord> = work.record(step, &plan.id)?.ok_or_else(differs)?;
            let part = Part::of(&record, plan.part(number).mix);
            if part.digest != pin {
                return Err(differs());
            }
            parts.push(part);
        }
        let side = ShardSide::of(&split, &options, shard);
        Writing { work, plan, options: &options, watch, parts: &parts, split: &split, side }.write(shard)
    })
}

/// A small object whose digest is known.
fn object(work: &Work, object: &SplitObject) -> Result<Vec<u8>, Error> {
    let bytes = work.get(&object.name)?.unwrap_or_default();
    if Hex(&Sha256::digest(&bytes)).to_string() != object.sha256 {
        let reason = "it is not as it was written".to_owned();
        return Err(Error::Altered { object: work.storage.shown(&object.name), reason });
    }
    Ok(bytes)
}

/// A shard among those of its side.
#[derive(Debug)]
struct ShardSide {
    trains: bool,
    /// Its number on its side.
    index: u64,
    /// How many shards that has.
    count: u64,
    /// Lines of the side before its own, and behind its last one.
    start: u64,
    end: u64,
}

impl ShardSide {
    fn of(split: &SplitRecord, options: &Options, shard: u64) -> ShardSide {
        let trains = shard < split.train_shards;
        let (index, count, records) = match trains {
            true => (shard, split.train_shards, split.train_records),
            false => (shard - split.train_shards, split.shards - split.train_shards, split.val_records),
        };
        let each = options.shard_records.map_or(u64::MAX, std::num::NonZeroU64::get);
        let start = index.saturating_mul(each);
        ShardSide { trains, index, count, start, end: records.min(start.saturating_add(each)) }
    }

    fn name(&self) -> &'static str {
        if self.trains { "train" } else { "val" }
    }
}

struct Writing<'w> {
    work: &'w Work,
    plan: &'w Plan,
    options: &'w Options,
    watch: &'w dyn Watch,
    parts: &'w [Part],
    split: &'w SplitRecord,
    side: ShardSide,
}

impl Writing<'_> {
    fn write(&self, shard: u64) -> Result<ShardRecord, Error> {
        let count = self.options.shard_records.map(|_| (self.side.index as usize, self.side.count as usize));
        let file = shard_name(self.side.name(), count, self.options.compress);
        let mut keys = self.work.begin()?;
        let (packed, object) = std::thread::scope(|scope| {
            let (full, blocks) = mpsc::sync_channel::<Vec<u8>>(BLOCKS);
            let (spare, used) = mpsc::channel();
            let writing = scope.spawn(move || self.pack(&blocks, &spare));
            let merged = self.merge(&file, &mut keys, &mut |block| {
                // Where nobody takes it any more, the other thread says why.
                let _ = full.send(std::mem::replace(block, used.try_recv().unwrap_or_default()));
                block.clear();
            });
            drop(full);
            let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            merged.and(written)
        })?;
        let is_durable = self.options.durability == Durability::Sync;
        let (name, digest) = keys.finish(&format!("shards/{shard:05}-keys"), is_durable)?;
        Ok(ShardRecord {
            schema: SCHEMA.to_owned(),
            plan: self.plan.id.clone(),
            shard,
            file,
            records: self.side.end - self.side.start,
            object,
            bytes: packed.bytes,
            sha256: packed.sha256,
            plain_bytes: packed.plain_bytes,
            plain_sha256: packed.plain_sha256,
            keys: SplitObject { name, bytes: digest.bytes, sha256: digest.sha256 },
        })
    }

    /// Writes what comes through `blocks` to an object; each block goes back by `spare`.
    fn pack(
        &self,
        blocks: &mpsc::Receiver<Vec<u8>>,
        spare: &mpsc::Sender<Vec<u8>>,
    ) -> Result<(Packed, String), Error> {
        let failed = |error| self.work.failed("shards/")(error);
        let object = self.work.storage.begin().map_err(failed)?;
        let mut packer = Packer::new(self.options.compress, object).map_err(failed)?;
        for block in blocks {
            packer.write_all(&block).map_err(failed)?;
            let _ = spare.send(block);
        }
        let (object, packed) = packer.finish().map_err(failed)?;
        let (side, number) = (self.side.name(), self.side.index);
        let name = format!("shards/{side}-{number:05}-{}", &packed.sha256[..32]);
        object.finish(&name, self.options.durability == Durability::Sync).map_err(failed)?;
        Ok((packed, name))
    }

    /// Hands the lines of the shard on in blocks, and writes its rows of `keys.tsv` to `keys`.
    fn merge(
        &self,
        file: &str,
        keys: &mut DigestObject<'_>,
        full: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<(), Error> {
        let mixed = self.mixed()?;
        let mut mixed = mixed.iter().peekable();
        let mut own = self.own()?;
        let last_train = self.split.last_train_group();
        let trains =
            |group: &Rank| last_train.as_ref().is_none_or(|last| (group <= last) == self.side.trains);
        let mut rows = KeyLines::new(self.side.name(), file, 0);
        let (mut lines, mut key_rows) = (Vec::new(), Vec::new());
        for place in self.side.start..self.side.end {
            if let Some(line) = mixed.next_if(|line| line.place == place) {
                let part = &self.parts[line.part as usize];
                let mut span = part.section(self.work, Section::Lines, 0);
                lines.extend_from_slice(span.get(line.start, line.length as usize, false)?);
                rows.write(&line.key, &mut key_rows);
            } else {
                own.next(&trains, &mut lines, &mut |key| rows.write(key, &mut key_rows))?;
            }
            if lines.len() >= BLOCK_BYTES {
                full(&mut lines);
                keys.add(&key_rows)?;
                key_rows.clear();
                self.watch.check_stop()?;
            }
        }
        full(&mut lines);
        keys.add(&key_rows)
    }

    /// The lines that are mixed into this shard, by place.
    fn mixed(&self) -> Result<Vec<PlacedLine>, Error> {
        if !self.side.trains || self.split.mix.is_empty() {
            return Ok(Vec::new());
        }
        let mut lines = read_placed(&object(self.work, &self.split.mixed)?);
        lines.retain(|line| (self.side.start..self.side.end).contains(&line.place));
        Ok(lines)
    }

    /// The lines of the corpus between the places of this shard.
    fn own(&self) -> Result<OwnLines, Error> {
        let corpus: Vec<&Part> = self.parts.iter().filter(|part| part.mix == 0).collect();
        let is_grouped = self.options.group_by.is_some();
        // Those of the validation side ascend by rank, as those of training do: the first shard lies last.
        let point = match self.side.trains {
            true => self.side.index,
            false => self.split.train_shards + 1 + (self.side.count - self.side.index - 1),
        };
        let row_bytes = corpus.len() * Place::BYTES;
        let mut places = vec![0; 2 * row_bytes];
        let name = &self.split.places.name;
        let read = self.work.storage.read_at(name, point * row_bytes as u64, &mut places);
        read.map_err(self.work.failed(name))?;
        let place = |bytes: &[u8], part: usize| Place::read(&bytes[part * Place::BYTES..]);
        let (starts, ends) = places.split_at(row_bytes);
        let ranges: Vec<(&Part, Place, Place)> = (0..)
            .zip(&corpus)
            .map(|(number, part)| (*part, place(starts, number), place(ends, number)))
            .filter(|(_, start, end)| start.rows < end.rows)
            .collect();
        let block = |bytes: usize, most: usize| (bytes / ranges.len().max(1)).clamp(256, most);
        let (lines_block, rows_block) = (block(LINES_BYTES, BLOCK_BYTES), block(ROWS_BYTES, 64 << 10));
        let section = |part: &Part, section, block| part.section(self.work, section, block);
        let stream = |(part, start, end): &(&Part, Place, Place)| {
            let rows = section(part, Section::Rows, rows_block);
            RowStream::new(rows, is_grouped, !self.side.trains, *start, *end)
        };
        Ok(OwnLines {
            rows: Merge::new(ranges.iter().map(stream).collect::<Result<_, _>>()?),
            lines: ranges.iter().map(|(part, ..)| section(part, Section::Lines, lines_block)).collect(),
            keys: ranges.iter().map(|(part, ..)| section(part, Section::Keys, rows_block)).collect(),
            is_backward: !self.side.trains,
        })
    }
}

/// The lines of the corpus in the order of a shard.
struct OwnLines {
    rows: Merge<RowStream>,
    lines: Vec<Span>,
    keys: Vec<Span>,
    is_backward: bool,
}

impl OwnLines {
    /// Adds the next line whose group is on this side to `out`, and hands its key to `key`.
    fn next(
        &mut self,
        is_here: &dyn Fn(&Rank) -> bool,
        out: &mut Vec<u8>,
        key: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        while let Some((part, stream)) = self.rows.peek() {
            let (row, place) = (*stream.row(), stream.place());
            let is_here = is_here(&row.group);
            if is_here {
                let line = self.lines[part].get(place.lines, row.line as usize, self.is_backward)?;
                out.extend_from_slice(line);
                key(self.keys[part].get(place.keys, row.key.into(), self.is_backward)?);
            }
            self.rows.advance()?;
            if is_here {
                return Ok(());
            }
        }
        Ok(())
    }
}
