//! The floor under `ctxtune prepare`: what the machine needs for the files alone.
//!
//! `floor DIR OUT --threads T --bytes B [--fsync]` lists, opens, reads and closes every
//! `*.json` below DIR and writes B bytes to two files in OUT (9 to 1) while it reads, taking
//! the SHA-256 of what it writes. It converts nothing, ranks nothing and waits for nobody:
//! every ratio is quoted against it, so it must not do more than the task demands.

#![expect(clippy::print_stdout, reason = "an example reports on stdout")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use rayon::ThreadPoolBuilder;
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

const USAGE: &str = "usage: floor DIR OUT --threads T --bytes B [--fsync]";

/// Files that a thread takes at once.
const CHUNK: usize = 64;

/// What one `write` carries; small enough to stay in the cache between hashing and writing.
const BLOCK_BYTES: usize = 256 << 10;

/// Larger than nearly every record, so that one `read` takes it whole.
const BUFFER_BYTES: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (dir, out, threads, bytes, fsync) = match arguments.as_slice() {
        [dir, out, "--threads", threads, "--bytes", bytes] => (dir, out, threads, bytes, false),
        [dir, out, "--threads", threads, "--bytes", bytes, "--fsync"] => (dir, out, threads, bytes, true),
        _ => return Err(USAGE.into()),
    };
    let (threads, bytes) = (threads.parse()?, bytes.parse()?);

    let start = Instant::now();
    let files = list(Path::new(dir))?;
    let sink = Sink::create(Path::new(out))?;
    let pipeline =
        Pipeline { files, bytes, next: AtomicUsize::new(0), owed: AtomicU64::new(0), sink: Mutex::new(sink) };
    let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
    let read = pool.broadcast(|_| pipeline.run()).into_iter().sum::<io::Result<u64>>()?;
    let mut sink = pipeline.sink.into_inner().map_err(|_| "a thread panicked while it held the files")?;
    sink.write(pipeline.owed.into_inner())?;
    if fsync {
        sink.sync(Path::new(out))?;
    }
    // Printed below: a digest nobody asks for is a digest the compiler may leave out.
    let [train, validation] = [sink.train, sink.validation].map(|side| side.digest.finalize());
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} files, {read} bytes read, {bytes} bytes written (SHA-256 {}, {}), {seconds:.3} s",
        pipeline.files.len(),
        start_of(&train),
        start_of(&validation)
    );
    Ok(())
}

fn start_of(digest: &[u8]) -> String {
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every `*.json` below `dir` that the directory itself calls a file.
fn list(dir: &Path) -> walkdir::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in WalkDir::new(dir) {
        let entry = entry?;
        if entry.file_type().is_file() && entry.file_name().as_encoded_bytes().ends_with(b".json") {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

/// What the threads share: one counter of chunks, one counter of bytes due, one writer.
struct Pipeline {
    files: Vec<PathBuf>,
    bytes: u64,
    next: AtomicUsize,
    owed: AtomicU64,
    sink: Mutex<Sink>,
}

impl Pipeline {
    /// Reads chunks until none is left and returns the bytes read. After each chunk its share
    /// of the output falls due; whoever finds the writer free writes what is due by then.
    fn run(&self) -> io::Result<u64> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut read = 0;
        loop {
            let start = self.next.fetch_add(CHUNK, Relaxed);
            if start >= self.files.len() {
                return Ok(read);
            }
            let end = self.files.len().min(start + CHUNK);
            for file in &self.files[start..end] {
                read += read_whole(file, &mut buffer)?;
            }
            self.owed.fetch_add(self.bytes_up_to(end) - self.bytes_up_to(start), Relaxed);
            self.write_due()?;
        }
    }

    fn write_due(&self) -> io::Result<()> {
        let Ok(mut sink) = self.sink.try_lock() else {
            return Ok(());
        };
        let due = self.owed.load(Relaxed);
        let now = due - due % BLOCK_BYTES as u64;
        self.owed.fetch_sub(now, Relaxed);
        sink.write(now)
    }

    fn bytes_up_to(&self, file: usize) -> u64 {
        let share = u128::from(self.bytes) * file as u128 / self.files.len() as u128;
        u64::try_from(share).expect("a share is not larger than the whole")
    }
}

/// Reads to the end of the file, of which a read that leaves room is the sign.
fn read_whole(path: &Path, buffer: &mut Vec<u8>) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut length = 0;
    loop {
        length += file.read(&mut buffer[length..])?;
        if length < buffer.len() {
            return Ok(length as u64);
        }
        buffer.resize(2 * length, 0);
    }
}

/// The two files, filled from one block, and the digests of what went into them.
struct Sink {
    block: Vec<u8>,
    train: Side,
    validation: Side,
    written: u64,
}

struct Side {
    file: File,
    digest: Sha256,
}

impl Sink {
    fn create(out: &Path) -> io::Result<Sink> {
        fs::create_dir_all(out)?;
        let side =
            |name| Ok::<_, io::Error>(Side { file: File::create(out.join(name))?, digest: Sha256::new() });
        Ok(Sink {
            block: vec![b'x'; BLOCK_BYTES],
            train: side("train.jsonl")?,
            validation: side("val.jsonl")?,
            written: 0,
        })
    }

    /// Every tenth block goes to the validation side.
    fn write(&mut self, mut bytes: u64) -> io::Result<()> {
        while bytes > 0 {
            let length = bytes.min(BLOCK_BYTES as u64);
            let block = &self.block[..length as usize];
            let is_tenth = self.written / BLOCK_BYTES as u64 % 10 == 9;
            let side = if is_tenth { &mut self.validation } else { &mut self.train };
            side.digest.update(block);
            side.file.write_all(block)?;
            self.written += length;
            bytes -= length;
        }
        Ok(())
    }

    fn sync(&mut self, out: &Path) -> io::Result<()> {
        self.train.file.sync_all()?;
        self.validation.file.sync_all()?;
        File::open(out)?.sync_all()
    }
}
