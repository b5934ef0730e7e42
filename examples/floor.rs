//! The floor under `ctxtune prepare`: what the machine needs for the files alone.
//!
//! `floor SOURCE OUT --threads T --bytes B [--fsync]` lists, opens, reads and closes every
//! `*.json` below the directory SOURCE, or unpacks the `.jsonl`, `.jsonl.gz` or `.jsonl.zst` SOURCE and
//! finds the ends of its lines, and writes B bytes to two files in OUT (9 to 1) while it reads, taking
//! the SHA-256 of what it writes. It converts nothing, ranks nothing and waits for nobody:
//! every ratio is quoted against it, so it must not do more than the task demands.

#![expect(clippy::print_stdout, reason = "an example reports on stdout")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Seek, Write};
use std::iter::Sum;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use flate2::bufread::MultiGzDecoder;
use memchr::memchr_iter;
use rayon::ThreadPoolBuilder;
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

const USAGE: &str = "usage: floor SOURCE OUT --threads T --bytes B [--fsync]";

/// Files that a thread takes at once.
const CHUNK: usize = 64;

/// What one `write` carries; small enough to stay in the cache between hashing and writing.
const BLOCK_BYTES: usize = 256 << 10;

/// Larger than nearly every record, so that one `read` takes it whole.
const BUFFER_BYTES: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (source, out, threads, bytes, fsync) = match arguments.as_slice() {
        [source, out, "--threads", threads, "--bytes", bytes] => (source, out, threads, bytes, false),
        [source, out, "--threads", threads, "--bytes", bytes, "--fsync"] => {
            (source, out, threads, bytes, true)
        }
        _ => return Err(USAGE.into()),
    };
    let (threads, bytes) = (threads.parse()?, bytes.parse()?);

    let start = Instant::now();
    let source = Path::new(source);
    let input = if source.is_dir() {
        Input::Files { files: list(source)?, next: AtomicUsize::new(0) }
    } else {
        Input::Container(Mutex::new(Container::open(source)?))
    };
    let sink = Mutex::new(Sink::create(Path::new(out))?);
    let pipeline = Pipeline { input, bytes, owed: AtomicU64::new(0), sink };
    let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
    let read = pool.broadcast(|_| pipeline.run()).into_iter().sum::<io::Result<Read>>()?;
    let mut sink = pipeline.sink.into_inner().map_err(|_| "a thread panicked while it held the files")?;
    sink.write(pipeline.owed.into_inner())?;
    if fsync {
        sink.sync(Path::new(out))?;
    }
    // Printed below: a digest nobody asks for is a digest the compiler may leave out.
    let [train, validation] = [sink.train, sink.validation].map(|side| side.digest.finalize());
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} records, {} bytes read, {bytes} bytes written (SHA-256 {}, {}), {seconds:.3} s",
        read.records,
        read.bytes,
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

/// What was read.
#[derive(Default)]
struct Read {
    records: u64,
    bytes: u64,
}

impl Sum for Read {
    fn sum<I: Iterator<Item = Read>>(parts: I) -> Read {
        parts.fold(Read::default(), |all, part| Read {
            records: all.records + part.records,
            bytes: all.bytes + part.bytes,
        })
    }
}

/// What is read.
enum Input {
    /// Files, and the next one that no thread has taken.
    Files { files: Vec<PathBuf>, next: AtomicUsize },
    /// One file of lines, unpacked by whoever finds it free.
    Container(Mutex<Container>),
}

/// A file of lines while it is unpacked.
struct Container {
    plain: Box<dyn io::Read + Send>,
    packed: File,
    packed_bytes: u64,
}

impl Container {
    fn open(path: &Path) -> io::Result<Container> {
        let packed = File::open(path)?;
        // Shares its position with `packed`, which so says how much is unpacked.
        let reader = BufReader::with_capacity(BLOCK_BYTES, packed.try_clone()?);
        let plain: Box<dyn io::Read + Send> = match path.extension().and_then(|extension| extension.to_str())
        {
            Some("gz") => Box::new(MultiGzDecoder::new(reader)),
            Some("zst") => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
            _ => Box::new(packed.try_clone()?),
        };
        Ok(Container { plain, packed_bytes: packed.metadata()?.len(), packed })
    }

    /// Unpacks a block: its bytes, and how many of the packed ones were taken so far.
    fn read(&mut self, block: &mut [u8]) -> io::Result<(usize, u64)> {
        let read = self.plain.read(block)?;
        Ok((read, self.packed.stream_position()?))
    }
}

/// What the threads share: what is read, one counter of bytes due, one writer.
struct Pipeline {
    input: Input,
    bytes: u64,
    owed: AtomicU64,
    sink: Mutex<Sink>,
}

impl Pipeline {
    /// Reads until nothing is left and returns what it has read. After each chunk its share
    /// of the output falls due; whoever finds the writer free writes what is due by then.
    fn run(&self) -> io::Result<Read> {
        match &self.input {
            Input::Files { files, next } => self.run_files(files, next),
            Input::Container(container) => self.run_lines(container),
        }
    }

    fn run_files(&self, files: &[PathBuf], next: &AtomicUsize) -> io::Result<Read> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut read = Read::default();
        loop {
            let start = next.fetch_add(CHUNK, Relaxed);
            if start >= files.len() {
                return Ok(read);
            }
            let end = files.len().min(start + CHUNK);
            for file in &files[start..end] {
                read.bytes += read_whole(file, &mut buffer)?;
            }
            read.records += (end - start) as u64;
            let share = |file: usize| self.share(file as u64, files.len() as u64);
            self.owed.fetch_add(share(end) - share(start), Relaxed);
            self.write_due()?;
        }
    }

    fn run_lines(&self, container: &Mutex<Container>) -> io::Result<Read> {
        let mut block = vec![0; BLOCK_BYTES];
        let mut read = Read::default();
        loop {
            let length = {
                let mut container = container.lock().map_err(|_| io::Error::other("a thread panicked"))?;
                let before = container.packed.stream_position()?;
                let (length, after) = container.read(&mut block)?;
                let share = |position: u64| self.share(position, container.packed_bytes);
                self.owed.fetch_add(share(after) - share(before), Relaxed);
                length
            };
            if length == 0 {
                return Ok(read);
            }
            read.records += memchr_iter(b'\n', &block[..length]).count() as u64;
            read.bytes += length as u64;
            self.write_due()?;
        }
    }

    /// The bytes that are due once `part` of `whole` is read.
    fn share(&self, part: u64, whole: u64) -> u64 {
        let share = u128::from(self.bytes) * u128::from(part) / u128::from(whole.max(1));
        u64::try_from(share).expect("a share is not larger than the whole")
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
