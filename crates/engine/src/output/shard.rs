//! Writes one side of the split as shards, and can take lines back from its end.
//!
//! The two sides grow toward each other while nobody knows yet how many records will be
//! accepted; [`move_tail`] then moves the few lines that rejects displaced. Digests are
//! taken while writing and rewound with the file, so that nothing is read twice but
//! those tails. A dry run counts and writes nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rayon::ThreadPool;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::output::compress::{Compress, Packed, Packer};
use crate::output::manifest::{Hex, Shard, Side};
use crate::output::reserve::Reserve;
use crate::watch::Watch;

/// A rewind reads at most about this much (twice that in very large files).
const SNAPSHOT_SPACING: u64 = 4 << 20;

/// More snapshots than this are thinned.
const MAX_SNAPSHOTS: usize = 256;

/// The block in which a file is read backward.
const BACKWARD_BLOCK: u64 = 256 << 10;

/// A SHA-256 that can forget the last bytes it saw.
#[derive(Debug, Clone)]
struct RewindableDigest {
    state: Sha256,
    length: u64,
    snapshots: Vec<(u64, Sha256)>,
    spacing: u64,
}

impl RewindableDigest {
    fn new() -> Self {
        RewindableDigest { state: Sha256::new(), length: 0, snapshots: Vec::new(), spacing: SNAPSHOT_SPACING }
    }

    fn update(&mut self, bytes: &[u8]) {
        let last = self.snapshots.last().map_or(0, |(offset, _)| *offset);
        if self.length >= last + self.spacing {
            self.snapshots.push((self.length, self.state.clone()));
            if self.snapshots.len() > MAX_SNAPSHOTS {
                let mut index = 0;
                self.snapshots.retain(|_| {
                    index += 1;
                    index % 2 == 0
                });
                self.spacing *= 2;
            }
        }
        self.state.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Forgets all behind `length`; `read` gives the bytes of a range again.
    fn rewind(
        &mut self,
        length: u64,
        read: impl FnOnce(u64, u64, &mut Sha256) -> io::Result<()>,
    ) -> io::Result<()> {
        self.snapshots.retain(|(offset, _)| *offset <= length);
        let (start, state) = self.snapshots.last().cloned().unwrap_or_else(|| (0, Sha256::new()));
        self.state = state;
        read(start, length, &mut self.state)?;
        self.length = length;
        Ok(())
    }

    fn hex(&self) -> String {
        Hex(&self.state.clone().finalize()).to_string()
    }
}

/// Lines are copied in blocks of about this size.
const COPY_BYTES: usize = 1 << 20;

/// One shard while it is staged.
#[derive(Debug)]
struct StagedShard {
    path: PathBuf,
    records: u64,
    digest: RewindableDigest,
}

/// A system error and the file it concerns.
pub type FileError = (PathBuf, io::Error);

/// The published name of a shard of `side`; `place` is its number and how many there are, where names number them.
pub fn shard_name(side: &str, place: Option<(usize, usize)>, compress: Option<Compress>) -> String {
    let number = place.map(|(index, count)| format!("-{index:05}-of-{count:05}")).unwrap_or_default();
    let ending = compress.map(|compress| format!(".{compress}")).unwrap_or_default();
    format!("{side}{number}.jsonl{ending}")
}

/// One side of the split while it is staged.
#[derive(Debug)]
pub struct SideWriter {
    name: &'static str,
    /// What its staged shards are called.
    stem: &'static str,
    /// Where the shards are staged; `None` in a dry run.
    staging: Option<PathBuf>,
    shard_records: u64,
    shards: Vec<StagedShard>,
    /// The last shard's file.
    file: Option<File>,
    /// What is reserved for it.
    reserve: Reserve,
    /// Whether names number the shards.
    is_sharded: bool,
    records: u64,
}

impl SideWriter {
    /// A side called `name` (`train` or `val`), staged in `staging` as `stem`, with at most
    /// `shard_records` lines a file.
    pub fn new(
        name: &'static str,
        stem: &'static str,
        staging: Option<&Path>,
        shard_records: Option<u64>,
    ) -> Self {
        SideWriter {
            name,
            stem,
            staging: staging.map(Path::to_owned),
            shard_records: shard_records.unwrap_or(u64::MAX),
            shards: Vec::new(),
            file: None,
            reserve: Reserve::default(),
            is_sharded: shard_records.is_some(),
            records: 0,
        }
    }

    /// The number of lines.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Appends lines, newlines included; `lengths` gives the bytes of each. Both are left with what is not
    /// appended yet, so that whoever makes room on a full disk can try again.
    ///
    /// # Errors
    /// When a shard cannot be written.
    pub fn append(&mut self, lines: &mut &[u8], lengths: &mut &[u64]) -> Result<(), FileError> {
        if self.staging.is_none() {
            self.records += lengths.len() as u64;
            return Ok(());
        }
        while !lengths.is_empty() {
            let room = match self.shards.last() {
                Some(shard) if shard.records < self.shard_records => self.shard_records - shard.records,
                _ => {
                    self.start_shard()?;
                    self.shard_records
                }
            };
            let taken = lengths.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (now, later) = lengths.split_at(taken);
            let bytes = if later.is_empty() { lines.len() } else { now.iter().sum::<u64>() as usize };
            self.write(&lines[..bytes], taken as u64)?;
            *lines = &lines[bytes..];
            *lengths = later;
        }
        Ok(())
    }

    /// Gives back the disk space that is reserved and not used. Whether there was any.
    fn give_back(&mut self) -> Result<bool, FileError> {
        match (&self.file, self.shards.last()) {
            (Some(file), Some(shard)) => {
                let given = self.reserve.give_back(file, shard.digest.length);
                given.map_err(|error| (shard.path.clone(), error))
            }
            _ => Ok(false),
        }
    }

    /// Gives back what is reserved and reserves no more. Whether there was any.
    ///
    /// # Errors
    /// When a shard cannot be cut to its length.
    pub fn end_reserve(&mut self) -> Result<bool, FileError> {
        self.reserve.end();
        self.give_back()
    }

    fn start_shard(&mut self) -> Result<(), FileError> {
        self.give_back()?;
        let staging = self.staging.as_ref().expect("only a staged side has shards");
        let path = staging.join(format!("{}-{:05}.jsonl", self.stem, self.shards.len()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        self.file = Some(file.map_err(|error| (path.clone(), error))?);
        self.shards.push(StagedShard { path, records: 0, digest: RewindableDigest::new() });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], records: u64) -> Result<(), FileError> {
        let shard = self.shards.last_mut().expect("append starts one");
        let file = self.file.as_mut().expect("append starts one");
        let length = shard.digest.length;
        // A side of one write needs none.
        if length > 0 {
            self.reserve.grow(file, length, length + bytes.len() as u64);
        }
        file.write_all(bytes).map_err(|error| {
            // What was written before the disk was full is written again by whoever tries again.
            let _ = file.seek(SeekFrom::Start(length));
            (shard.path.clone(), error)
        })?;
        self.records += records;
        shard.records += records;
        shard.digest.update(bytes);
        Ok(())
    }

    /// Takes up to `limit` lines from the end of the last shard and hands each to `take`, the last one first.
    /// Gives the number taken.
    fn take_from_last_shard(
        &mut self,
        limit: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), FileError>,
    ) -> Result<u64, FileError> {
        let shard = self.shards.last_mut().expect("the caller knows there are lines");
        let path = shard.path.clone();
        let failed = |error: io::Error| (path.clone(), error);
        let file = self.file.as_mut().expect("the last shard is open");
        let count = limit.min(shard.records);
        let mut lines = BackwardLines { file: &mut *file, start: shard.digest.length, buffer: Vec::new() };
        for _ in 0..count {
            take(&lines.next().map_err(failed)?)?;
        }
        let kept = lines.start + lines.buffer.len() as u64;
        file.set_len(kept).map_err(failed)?;
        shard.digest.rewind(kept, |start, end, state| hash_range(file, start, end, state)).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        shard.records -= count;
        self.records -= count;
        if shard.records == 0 {
            self.drop_last_shard()?;
        }
        Ok(count)
    }

    fn drop_last_shard(&mut self) -> Result<(), FileError> {
        self.file = None;
        if let Some(shard) = self.shards.pop() {
            std::fs::remove_file(&shard.path).map_err(|error| (shard.path, error))?;
        }
        if let Some(shard) = self.shards.last() {
            let file = OpenOptions::new().read(true).write(true).open(&shard.path);
            let file = file.and_then(|mut file| file.seek(SeekFrom::End(0)).map(|_| file));
            self.file = Some(file.map_err(|error| (shard.path.clone(), error))?);
        }
        Ok(())
    }

    /// Ends the side: compresses its shards, on all threads of `pool`, gives each its published name and returns what
    /// the manifest says of it.
    ///
    /// # Errors
    /// When a shard cannot be compressed or renamed, or somebody asked to stop.
    pub fn finish(
        mut self,
        compress: Option<Compress>,
        pool: &ThreadPool,
        watch: &dyn Watch,
    ) -> Result<Side, Error> {
        self.end_reserve().map_err(write_error)?;
        let SideWriter { name, shards, is_sharded, .. } = self;
        let count = shards.len();
        let finished = |(index, shard): (usize, StagedShard)| {
            let file = shard_name(name, is_sharded.then_some((index, count)), compress);
            let path = shard.path.with_file_name(&file);
            let packed = match compress {
                Some(compress) => shard.pack(compress, &path, watch)?,
                None => {
                    std::fs::rename(&shard.path, path).map_err(|error| write_error((shard.path, error)))?;
                    Packed::plain(shard.digest.length, shard.digest.hex())
                }
            };
            Ok(Shard::of(file, shard.records, packed))
        };
        let shards =
            pool.install(|| shards.into_par_iter().enumerate().map(finished).collect::<Result<_, _>>());
        shards.map(Side::of)
    }
}

/// A shard or its copy could not be written.
pub fn write_error((path, source): FileError) -> Error {
    Error::Write { path, source }
}

impl StagedShard {
    /// Compresses the shard to `path` and deletes it.
    fn pack(&self, compress: Compress, path: &Path, watch: &dyn Watch) -> Result<Packed, Error> {
        let unread = |source| Error::Read { path: self.path.clone(), source };
        let failed = |source| write_error((path.to_owned(), source));
        let mut plain = File::open(&self.path).map_err(unread)?;
        let mut packer =
            File::create_new(path).and_then(|file| Packer::new(Some(compress), file)).map_err(failed)?;
        let mut block = vec![0; COPY_BYTES];
        loop {
            watch.check_stop()?;
            match plain.read(&mut block) {
                Ok(0) => break,
                Ok(read) => packer.write_all(&block[..read]).map_err(failed)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unread(error)),
            }
        }
        let (_, packed) = packer.finish().map_err(failed)?;
        if packed.plain_sha256 != self.digest.hex() {
            return Err(unread(io::Error::other("its bytes are not those that were written")));
        }
        std::fs::remove_file(&self.path).map_err(|error| write_error((self.path.clone(), error)))?;
        Ok(packed)
    }
}

/// The lines of a side from the first on, while it is still staged.
#[derive(Debug)]
pub struct StagedLines {
    /// The shards that are not read yet.
    shards: std::vec::IntoIter<StagedShard>,
    open: Option<(PathBuf, BufReader<File>)>,
    /// Lines of a dry run, which are only counted.
    counted: u64,
    is_dry: bool,
}

impl SideWriter {
    /// Its lines, to be read from the first on.
    ///
    /// # Errors
    /// When a shard cannot be cut to its length.
    pub fn into_lines(mut self) -> Result<StagedLines, FileError> {
        self.end_reserve()?;
        let (counted, is_dry) = (self.records, self.staging.is_none());
        Ok(StagedLines { shards: self.shards.into_iter(), open: None, counted, is_dry })
    }
}

impl StagedLines {
    /// Appends the next `count` lines to `side`, or as many as there are.
    ///
    /// # Errors
    /// When a shard cannot be read or written.
    pub fn copy(&mut self, count: u64, side: &mut SideWriter) -> Result<(), FileError> {
        if self.is_dry {
            let copied = count.min(self.counted);
            self.counted -= copied;
            side.records += copied;
            return Ok(());
        }
        let (mut lines, mut lengths) = (Vec::new(), Vec::new());
        for left in (0..count).rev() {
            let length = self.read(&mut lines)?;
            lengths.extend((length > 0).then_some(length));
            if length == 0 || left == 0 || lines.len() >= COPY_BYTES {
                side.append(&mut &lines[..], &mut &lengths[..])?;
                lines.clear();
                lengths.clear();
            }
            if length == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Adds the next line to `lines`, and gives its bytes; 0 where there is none.
    fn read(&mut self, lines: &mut Vec<u8>) -> Result<u64, FileError> {
        loop {
            if let Some((path, file)) = &mut self.open {
                let read = file.read_until(b'\n', lines).map_err(|error| (path.clone(), error))?;
                if read > 0 {
                    return Ok(read as u64);
                }
                std::fs::remove_file(&*path).map_err(|error| (path.clone(), error))?;
            }
            let Some(shard) = self.shards.next() else {
                self.open = None;
                return Ok(0);
            };
            let file = File::open(&shard.path).map_err(|error| (shard.path.clone(), error))?;
            self.open = Some((shard.path, BufReader::with_capacity(COPY_BYTES, file)));
        }
    }

    /// Deletes what was not read.
    ///
    /// # Errors
    /// When a shard cannot be deleted.
    pub fn delete(self) -> Result<(), FileError> {
        let open = self.open.map(|(path, _)| path);
        for path in open.into_iter().chain(self.shards.map(|shard| shard.path)) {
            std::fs::remove_file(&path).map_err(|error| (path, error))?;
        }
        Ok(())
    }
}

/// Moves `count` lines from the end of `from` to the end of `to`, one by one, the last one first.
///
/// # Errors
/// When a shard cannot be read or written.
pub fn move_tail(from: &mut SideWriter, to: &mut SideWriter, count: u64) -> Result<(), FileError> {
    if from.staging.is_none() {
        from.records -= count;
        to.records += count;
        return Ok(());
    }
    from.end_reserve()?;
    to.end_reserve()?;
    let mut left = count;
    while left > 0 {
        left -= from.take_from_last_shard(left, |mut line| {
            let lengths = [line.len() as u64];
            to.append(&mut line, &mut &lengths[..])
        })?;
    }
    Ok(())
}

/// Adds the bytes `start..end` of `file` to `state`.
fn hash_range(file: &mut File, start: u64, end: u64, state: &mut Sha256) -> io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    let mut left = end - start;
    let mut block = vec![0; left.min(BACKWARD_BLOCK) as usize];
    while left > 0 {
        let length = left.min(block.len() as u64) as usize;
        file.read_exact(&mut block[..length])?;
        state.update(&block[..length]);
        left -= length as u64;
    }
    Ok(())
}

/// The lines of a file from the last to the first.
struct BackwardLines<'f> {
    file: &'f mut File,
    /// Where `buffer` begins in the file.
    start: u64,
    buffer: Vec<u8>,
}

impl BackwardLines<'_> {
    /// The line before the ones given so far, newline included.
    fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            // The last byte is the newline of the line itself.
            let body = self.buffer.len().saturating_sub(1);
            let newline = memchr::memrchr(b'\n', &self.buffer[..body]);
            match newline {
                Some(newline) => return Ok(self.buffer.split_off(newline + 1)),
                None if self.start == 0 => return Ok(std::mem::take(&mut self.buffer)),
                None => self.load()?,
            }
        }
    }

    /// Puts the block before the buffer in front of it.
    fn load(&mut self) -> io::Result<()> {
        let length = self.start.min(BACKWARD_BLOCK.max(self.buffer.len() as u64));
        self.start -= length;
        let mut block = vec![0; length as usize];
        self.file.seek(SeekFrom::Start(self.start))?;
        self.file.read_exact(&mut block)?;
        block.append(&mut self.buffer);
        self.buffer = block;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::watch::Unwatched;

    fn line(number: usize) -> String {
        format!("{number}:{}\n", "x".repeat(number * 7919 % 300))
    }

    /// Writes 0.. to `from` and `to`, moves, and gives what a single pass would have written.
    fn check(from_lines: usize, to_lines: usize, moved: usize, shard_records: Option<u64>) {
        let directory = tempfile::tempdir().unwrap();
        let mut from = SideWriter::new("train", "train", Some(directory.path()), shard_records);
        let mut to = SideWriter::new("val", "val", Some(directory.path()), shard_records);
        let write = |side: &mut SideWriter, lines: &[String]| {
            for batch in lines.chunks(5) {
                let lengths: Vec<u64> = batch.iter().map(|line| line.len() as u64).collect();
                side.append(&mut batch.concat().as_bytes(), &mut &lengths[..]).unwrap();
            }
        };
        let from_written: Vec<String> = (0..from_lines).map(line).collect();
        let to_written: Vec<String> = (1000..1000 + to_lines).map(line).collect();
        write(&mut from, &from_written);
        write(&mut to, &to_written);
        move_tail(&mut from, &mut to, moved as u64).unwrap();

        let (kept, tail) = from_written.split_at(from_lines - moved);
        let mut received = to_written.clone();
        received.extend(tail.iter().rev().cloned());
        for (side, expected) in [(from, kept.to_vec()), (to, received)] {
            let side = side.finish(None, &pool(), &Unwatched).unwrap();
            assert_eq!(side.records, expected.len() as u64);
            let mut joined = Vec::new();
            for shard in &side.shards {
                let bytes = std::fs::read(directory.path().join(&shard.file)).unwrap();
                assert_eq!(shard.sha256, Hex(&Sha256::digest(&bytes)).to_string());
                assert_eq!(shard.records as usize, memchr::memchr_iter(b'\n', &bytes).count());
                assert!(shard.records > 0 && shard.records <= shard_records.unwrap_or(u64::MAX));
                joined.extend_from_slice(&bytes);
            }
            assert_eq!(String::from_utf8(joined).unwrap(), expected.concat());
        }
    }

    fn pool() -> ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap()
    }

    #[test]
    fn a_compression_can_be_stopped() {
        struct Stopped;
        impl Watch for Stopped {
            fn listed(&self, _: u64) {}
            fn converted(&self, _: u64, _: u64, _: u64) {}
            fn publishing(&self, _: &str) {}
            fn is_stopped(&self) -> bool {
                true
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let mut side = SideWriter::new("train", "train", Some(directory.path()), None);
        side.append(&mut &b"{}\n"[..], &mut &[3][..]).unwrap();
        let error = side.finish(Some(Compress::Gz), &pool(), &Stopped).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
    }

    #[test]
    fn a_shard_that_is_not_read_back_as_it_was_written_is_not_compressed() {
        let directory = tempfile::tempdir().unwrap();
        let mut side = SideWriter::new("train", "train", Some(directory.path()), None);
        side.append(&mut &b"{}\n"[..], &mut &[3][..]).unwrap();
        let path = side.shards[0].path.clone();
        std::fs::write(&path, "[]\n").unwrap();
        let error = side.finish(Some(Compress::Zst), &pool(), &Unwatched).unwrap_err();
        assert!(matches!(&error, Error::Read { path: of, .. } if *of == path), "{error}");
    }

    #[test]
    fn moved_lines_leave_both_sides_as_if_written_in_one_pass() {
        check(20, 3, 0, None);
        check(20, 3, 7, None);
        check(20, 0, 20, None);
        check(20, 3, 7, Some(4));
        check(20, 3, 20, Some(4));
        check(20, 3, 13, Some(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_move_is_as_one_pass(from in 1usize..60, to in 0usize..20, part in 0.0..=1.0f64, shard in proptest::option::of(1u64..9)) {
            check(from, to, (from as f64 * part) as usize, shard);
        }
    }

    #[test]
    fn a_digest_rewinds_to_any_length() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut digest = RewindableDigest { spacing: 1000, ..RewindableDigest::new() };
        bytes.chunks(777).for_each(|chunk| digest.update(chunk));
        assert!(digest.snapshots.len() <= MAX_SNAPSHOTS);
        for length in [2_999_999, 1_500_000, 700, 0] {
            digest
                .rewind(length, |start, end, state| {
                    state.update(&bytes[start as usize..end as usize]);
                    Ok(())
                })
                .unwrap();
            assert_eq!(digest.hex(), Hex(&Sha256::digest(&bytes[..length as usize])).to_string());
        }
    }
}
