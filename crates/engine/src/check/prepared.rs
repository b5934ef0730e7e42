//! Compares a prepared directory with what its manifest says, and checks its shards.
//!
//! Sizes and digests of the shards and of the other files, the digests of both sides, and
//! the numbers of records. The README is left out: people may edit it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::check::code::Code;
use crate::check::file::{check_file, check_source};
use crate::check::lines::Source;
use crate::check::{Error, Run, Watch};
use crate::output::manifest::{self, FileDigest, Hex, Manifest, Side};

/// The dataset card beside the shards.
const CARD: &str = "README.md";

/// Bytes read at once for a digest.
const READ_BYTES: usize = 1 << 20;

/// A directory whose shards are to be mapped back to the records they came from.
#[derive(Debug)]
pub struct Prepared {
    /// The directory.
    pub dir: PathBuf,
    /// The shards with as many lines as they should have: path of the report, name.
    pub shards: Vec<(u32, String)>,
}

/// Checks the prepared directory `dir`.
///
/// # Errors
/// When there is no manifest to believe, a file cannot be read, or somebody asked to stop.
pub fn check_prepared(run: &mut Run<'_>, dir: &Path) -> Result<(), Error> {
    let manifest = Manifest::read(dir)?;
    let manifest_path = run.add_path(&dir.join(manifest::FILE_NAME));
    for fault in contradictions(&manifest) {
        run.say(manifest_path, Code::ManifestSum, fault);
    }
    let mut prepared = Prepared { dir: dir.to_owned(), shards: Vec::new() };
    let watch = run.watch;
    // The digests keep one thread busy while the others check.
    let verified = std::thread::scope(|scope| {
        let verifying = scope.spawn(|| verify(dir, &manifest, watch));
        for (_, side) in manifest.sides() {
            for shard in side.shards.iter().filter(|shard| is_file(&dir.join(&shard.file))) {
                let path = dir.join(&shard.file);
                match &shard.uncompressed {
                    None => check_file(run, &path)?,
                    Some(expected) => match Source::unpack(&path, expected, watch)? {
                        Ok(source) => {
                            let next = run.paths.len() as u32;
                            run.unpacked.insert(next, expected.clone());
                            check_source(run, &source, &path.with_extension(""))?;
                        }
                        Err(reason) => {
                            let path = run.path_of(&path);
                            run.say(path, Code::ChangedFile, reason);
                            continue;
                        }
                    },
                }
                let report = run.files.last().expect("it was just checked");
                let (path, records) = (report.path, report.lines - report.blank_lines);
                if records == shard.records {
                    prepared.shards.push((path, shard.file.clone()));
                } else {
                    let fault = format!("{records} samples, and the manifest says {}", shard.records);
                    run.say(path, Code::RecordCount, fault);
                }
            }
        }
        verifying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    for Mismatch { name, code, reason } in verified {
        let path = run.path_of(&dir.join(name));
        run.say(path, code, reason);
    }
    run.prepared.push(prepared);
    Ok(())
}

fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// Where the manifest's own numbers do not add up.
fn contradictions(manifest: &Manifest) -> Vec<String> {
    let mut faults = Vec::new();
    let mut compare = |what: String, says: u64, sum: u64| {
        if says != sum {
            faults.push(format!("{what}: {says}, and the parts add up to {sum}"));
        }
    };
    let mut accepted = manifest.counts.beyond_limit;
    let sums: Vec<(&str, &Side, Side)> =
        manifest.sides().map(|(name, side)| (name, side, Side::of(side.shards.clone()))).collect();
    for (name, side, sum) in &sums {
        compare(format!("records of {name}"), side.records, sum.records);
        compare(format!("bytes of {name}"), side.bytes, sum.bytes);
        if side.uncompressed.is_some() {
            compare(format!("uncompressed bytes of {name}"), side.content().0, sum.content().0);
        }
        accepted += side.records;
    }
    let mixed = manifest.mix.iter().map(|mixed| mixed.records).fold(0, u64::saturating_add);
    compare("accepted records".to_owned(), manifest.counts.accepted.saturating_add(mixed), accepted);
    for (name, side, sum) in &sums {
        let mut digests = vec![("", side.sha256.as_str(), sum.sha256.as_str())];
        digests
            .extend(side.uncompressed.iter().map(|_| (" uncompressed", side.content().1, sum.content().1)));
        for (which, says, digest) in digests.into_iter().filter(|(_, says, digest)| says != digest) {
            faults.push(format!("SHA-256 of {name}{which}: {says}, and its shards' digests give {digest}"));
        }
    }
    faults
}

/// A file that is not what the manifest says.
struct Mismatch {
    name: String,
    code: Code,
    reason: String,
}

/// Reads every file of the manifest but the card.
fn verify(dir: &Path, manifest: &Manifest, watch: &dyn Watch) -> Result<Vec<Mismatch>, Error> {
    let mut found = Vec::new();
    for shard in manifest.sides().flat_map(|(_, side)| &side.shards) {
        let expected = FileDigest { bytes: shard.bytes, sha256: shard.sha256.clone() };
        verify_file(dir, &shard.file, &expected, watch, &mut found)?;
    }
    for (name, expected) in manifest.files.iter().filter(|(name, _)| *name != CARD) {
        verify_file(dir, name, expected, watch, &mut found)?;
    }
    Ok(found)
}

fn verify_file(
    dir: &Path,
    name: &str,
    expected: &FileDigest,
    watch: &dyn Watch,
    found: &mut Vec<Mismatch>,
) -> Result<(), Error> {
    let path = dir.join(name);
    let mut say = |code, reason| found.push(Mismatch { name: name.to_owned(), code, reason });
    if !is_file(&path) {
        say(Code::MissingFile, "the manifest names it, and it is not there".to_owned());
        return Ok(());
    }
    let FileDigest { bytes, sha256 } = digest_of(&path, watch)?;
    if bytes != expected.bytes {
        say(Code::ChangedFile, format!("{bytes} bytes, and the manifest says {}", expected.bytes));
    } else if sha256 != expected.sha256 {
        say(Code::ChangedFile, format!("its SHA-256 is {sha256}, and the manifest says {}", expected.sha256));
    }
    Ok(())
}

fn digest_of(path: &Path, watch: &dyn Watch) -> Result<FileDigest, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    loop {
        watch.check_stop()?;
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
    Ok(FileDigest { bytes, sha256: Hex(&hasher.finalize()).to_string() })
}
