//! Publishes the shards of a plan as `prepare` publishes its own, and clears the working directory.
//!
//! Files are linked into staging, not moved: whatever is killed, the working directory has them until the result is
//! there. It goes last.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use crate::address::address;
use crate::error::Error;
use crate::output::card;
use crate::output::compress::{DigestWriter, Packed};
use crate::output::key_lines::{HEADER, KEYS};
use crate::output::manifest::{FileDigest, Manifest, Shard, Side};
use crate::output::publish::{Durability, Output, digest_of};
use crate::parts::mixing::each_warned;
use crate::parts::part::{Part, PartRecord};
use crate::parts::plan::Plan;
use crate::parts::settings::Means;
use crate::parts::split::SplitRecord;
use crate::parts::stored::{Content, StoredOutput};
use crate::parts::work::{Record, Step, Work};
use crate::parts::write::{ShardRecord, split_of};
use crate::prepare::{Options, Prepared, REJECTS, manifest};
use crate::source::names::NameLog;
use crate::split::Ranks;
use crate::storage::{Object, Stores};
use crate::watch::Watch;

/// Publishes what the plan in `work` became, and clears `work`. `None` where that was done before, or by somebody else
/// meanwhile.
///
/// # Errors
/// [`Error::NotYet`] where a shard is missing; those of publication; the store's.
pub fn publish(
    work: &Work,
    plan: &Plan,
    means: &Means,
    watch: &dyn Watch,
) -> Result<Option<Prepared>, Error> {
    let published = work.unless_over(&plan.id, publish_once(work, plan, means, watch))?;
    work.clear()?;
    Ok(published)
}

fn publish_once(work: &Work, plan: &Plan, means: &Means, watch: &dyn Watch) -> Result<Prepared, Error> {
    let split = split_of(work, plan)?;
    let options = plan.options(work, means)?;
    let mut shards = Vec::with_capacity(split.shards as usize);
    work.each_record(split.shards, Step::Shard, &plan.id, &mut |_, record: Record<ShardRecord>| {
        shards.push(record.content);
        Ok(())
    })?;
    let publishing = Publishing { work, plan, options: &options, watch, split: &split, shards: &shards };
    let prepared = match address(&options.output_dir) {
        None => publishing.publish()?,
        Some(output) => publishing.publish_to_store(output, &*means.stores)?,
    };
    plan.mark_published(work, options.durability == Durability::Sync)?;
    Ok(prepared)
}

struct Publishing<'p> {
    work: &'p Work,
    plan: &'p Plan,
    options: &'p Options,
    watch: &'p dyn Watch,
    split: &'p SplitRecord,
    shards: &'p [ShardRecord],
}

impl Publishing<'_> {
    fn publish(&self) -> Result<Prepared, Error> {
        let output = Output::open(&self.options.output_dir, self.options.durability)?;
        let names = self.shards.iter().map(|shard| shard.file.as_str()).chain([KEYS, REJECTS]);
        output.check_foreign(names)?;
        for shard in self.shards {
            self.watch.check_stop()?;
            self.stage(&shard.object, &output.staging().join(&shard.file), shard.bytes)?;
        }
        let rejects = &self.split.rejects;
        self.stage(&rejects.name, &output.staging().join(REJECTS), rejects.bytes)?;
        let mut prepared = self.prepared(output.has_no_locks())?;
        let mut manifest = self.manifest(&prepared);
        self.stage_keys(&output, &mut manifest)?;
        self.watch.check_stop()?;
        prepared.kept_readme = !output.may_write_card()?;
        let published = output.publish(&mut manifest, self.watch)?;
        prepared.result = Some((manifest, published));
        Ok(prepared)
    }

    /// The same in a bucket.
    fn publish_to_store(&self, address: &str, stores: &dyn Stores) -> Result<Prepared, Error> {
        let output = StoredOutput::open(address, self.plan.order(), stores)?;
        let mut prepared = self.prepared(false)?;
        let mut manifest = self.manifest(&prepared);
        let mut keys = DigestWriter::new(io::sink());
        self.write_keys(&mut keys)?;
        let keys = FileDigest { bytes: keys.tally.bytes, sha256: keys.tally.hex() };
        let card = complete(&mut manifest, keys.clone());
        let mut files: Vec<(&str, Content<'_>)> = Vec::new();
        for shard in self.shards {
            files.push((&shard.file, Content::Object(&shard.object, shard.bytes)));
        }
        let rejects = &self.split.rejects;
        files.push((REJECTS, Content::Object(&rejects.name, rejects.bytes)));
        let write_keys = |out: &mut dyn Write| self.write_keys(out);
        files.push((KEYS, Content::Written(&write_keys, keys.bytes)));
        files.push((card::FILE_NAME, Content::Bytes(card.as_bytes())));
        self.watch.check_stop()?;
        self.watch.publishing("files are copied in the bucket");
        let is_durable = self.options.durability == Durability::Sync;
        let json = manifest.to_json();
        let work = &*self.work.storage;
        let published = output.publish(self.plan.order(), work, &files, &json, is_durable)?;
        prepared.result = Some((manifest, published));
        Ok(prepared)
    }

    /// The manifest but for `keys.tsv` and the card.
    fn manifest(&self, prepared: &Prepared) -> Manifest {
        let rejects = &self.split.rejects;
        let (train, val) = self.shards.split_at(self.split.train_shards as usize);
        let val = (!self.options.val_ratio.is_zero()).then(|| side(val));
        let mut manifest = manifest(self.options, prepared, self.split.keys_sha256.clone(), side(train), val);
        let digest = FileDigest { bytes: rejects.bytes, sha256: rejects.sha256.clone() };
        manifest.files.insert(REJECTS.to_owned(), digest);
        manifest
    }

    /// What a preparation says of itself, but for the result.
    fn prepared(&self, has_no_locks: bool) -> Result<Prepared, Error> {
        let mut not_read = NameLog::default();
        self.plan.not_read(self.work, &mut not_read)?;
        let mut warned = NameLog::default();
        let ranks = Ranks::new(self.options.seed);
        for number in 0..self.plan.body.parts {
            let Some(record) = self.work.record::<PartRecord>(Step::Part(number), &self.plan.id)? else {
                continue;
            };
            let part = Part::of(&record, self.plan.part(number).mix);
            let last = self.split.last_mixed(part.mix);
            each_warned(self.work, &part, &mut |kind, key| {
                let is_chosen = part.mix == 0 || last.is_some_and(|last| ranks.rank(key) <= last);
                if is_chosen { warned.push(kind, key) } else { Ok(()) }
            })?;
        }
        Ok(Prepared {
            counts: self.split.counts.clone(),
            train_records: self.split.train_records,
            val_records: self.split.val_records,
            leakage: self.split.leakage,
            grouping: self.split.grouping,
            mix: self.split.mix.clone(),
            bytes_read: self.split.bytes_read,
            rejects: self.first_rejects()?,
            not_read: Arc::new(not_read),
            warned: Arc::new(warned),
            shown: Vec::new(),
            result: None,
            has_no_locks,
            kept_readme: false,
        })
    }

    /// As many of the first rejects as are asked for, without their newlines.
    fn first_rejects(&self) -> Result<Vec<String>, Error> {
        let (rejects, limit) = (&self.split.rejects, self.options.purpose.name_rejects);
        let (mut text, mut lines) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < rejects.bytes && lines.len() < limit {
            let start = text.len();
            text.resize(start + (rejects.bytes - at).min(64 << 10) as usize, 0);
            let read = self.work.storage.read_at(&rejects.name, at, &mut text[start..]);
            read.map_err(self.work.failed(&rejects.name))?;
            at += (text.len() - start) as u64;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            let found = text.drain(..whole).collect::<Vec<u8>>();
            lines.extend(found.lines().map_while(Result::ok).take(limit - lines.len()));
        }
        Ok(lines)
    }

    /// Puts the object `name` at `path`: as a link where the file system has links.
    fn stage(&self, name: &str, path: &Path, bytes: u64) -> Result<(), Error> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let altered = |reason: String| Error::Altered { object: self.work.storage.shown(name), reason };
        match self.work.storage.path(name).map(|from| (std::fs::hard_link(&from, path), from)) {
            Some((Ok(()), _)) => {}
            Some((Err(error), _)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.work.failed(name)(error));
            }
            Some((Err(_), from)) => drop(std::fs::copy(&from, path).map_err(failed)?),
            None => {
                let object = Object { name: name.to_owned(), bytes, tag: String::new() };
                let mut file = File::create(path).map_err(failed)?;
                let read = self.work.storage.read_through(&object, 0..bytes, &mut file);
                read.map_err(self.work.failed(name))?;
            }
        }
        match std::fs::metadata(path).map_err(failed)?.len() {
            length if length == bytes => Ok(()),
            length => Err(altered(format!("it has {length} bytes, and had {bytes}"))),
        }
    }

    fn stage_keys(&self, output: &Output, manifest: &mut Manifest) -> Result<(), Error> {
        let mut failure = None;
        let digest = output.stage(KEYS, |out| {
            self.write_keys(out).map_err(|error| {
                failure = Some(error);
                io::ErrorKind::Other.into()
            })
        });
        if let Some(error) = failure {
            return Err(error);
        }
        manifest.files.insert(KEYS.to_owned(), digest?);
        Ok(())
    }

    fn write_keys(&self, out: &mut dyn Write) -> Result<(), Error> {
        let failed = |source| Error::Write { path: self.options.output_dir.join(KEYS), source };
        out.write_all(HEADER).map_err(failed)?;
        for shard in self.shards {
            let mut block = vec![0; BLOCK_BYTES];
            let mut at = 0;
            while at < shard.keys.bytes {
                let length = (shard.keys.bytes - at).min(block.len() as u64) as usize;
                let read = self.work.storage.read_at(&shard.keys.name, at, &mut block[..length]);
                read.map_err(self.work.failed(&shard.keys.name))?;
                out.write_all(&block[..length]).map_err(failed)?;
                at += length as u64;
            }
        }
        Ok(())
    }
}

/// What is read at once of the rows of `keys.tsv`.
const BLOCK_BYTES: usize = 1 << 20;

/// Adds what is known of `keys.tsv`, and the card, which is returned.
fn complete(manifest: &mut Manifest, keys: FileDigest) -> String {
    manifest.files.insert(KEYS.to_owned(), keys);
    let card = card::card(manifest);
    manifest.files.insert(card::FILE_NAME.to_owned(), digest_of(card.as_bytes()));
    card
}

/// What the manifest says of a side with these shards.
fn side(shards: &[ShardRecord]) -> Side {
    let shard = |shard: &ShardRecord| {
        let packed = Packed {
            bytes: shard.bytes,
            sha256: shard.sha256.clone(),
            plain_bytes: shard.plain_bytes,
            plain_sha256: shard.plain_sha256.clone(),
        };
        Shard::of(shard.file.clone(), shard.records, packed)
    };
    Side::of(shards.iter().map(shard).collect())
}
