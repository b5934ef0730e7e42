//! Takes prepared files to the service: once each, whole, and found fit by the service itself.
//!
//! A side of the split is one file at the service, whatever its shards. What the ledger knows is
//! not uploaded again; what a killed process began in parts is aborted and begun anew, since
//! signed URLs are secrets and are not kept. A hand-off is tried three times as a whole, each time
//! with a fresh URL. Nothing is trained on here, and nothing costs money.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::job::ledger::{Account, LedgerError, UploadRecord, UploadState, Uploads};
use ctxtune_engine::output::compress::Compress;
use ctxtune_engine::output::manifest::{Hex, Manifest};
use ctxtune_engine::source::unpack::open_plain;
use ctxtune_service::http::body::{FileBody, Packing, Part};
use ctxtune_service::together::file::Processing;
use ctxtune_service::together::files::{self, HandedOver, Upload};
use ctxtune_service::together::parts::{PART_BYTES, abort_parts, hand_over_in_parts};
use ctxtune_service::together::{self, Certainty, FileId, Together};
use ctxtune_service::{Clock, Stopped};

/// Above this size a file goes in parts: the service's limit for a single request, 5 GiB.
pub(crate) const MULTIPART_THRESHOLD: u64 = 5 << 30;
/// The largest file the service takes: 50.1 GiB.
pub const MOST_BYTES: u64 = 53_794_465_382;
/// Tries of a whole hand-off.
const TRIES: u32 = 3;
/// The first wait between such tries; it doubles.
const BACKOFF: Duration = Duration::from_secs(1);
/// How long the service may look at a file before somebody else should look at the service.
const LONGEST_VERDICT: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("cannot upload `{name}`: {source}")]
    Api { name: String, source: together::Error },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("cannot read `{path}`: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{path}` is not what the manifest says: it has changed since it was checked")]
    Changed { path: PathBuf },
    #[error("`{name}` has {bytes} bytes, and the service takes {MOST_BYTES}")]
    TooLarge { name: String, bytes: u64 },
    #[error("the service found `{name}` unfit for training: {report}{place}")]
    Invalid {
        name: String,
        report: String,
        /// The source record of the line it names, or nothing.
        place: String,
    },
    #[error("the service could not check `{name}` ({file_id}): {said}")]
    Failed { name: String, file_id: String, said: String },
    #[error("the service has not judged `{name}` ({file_id}) after {} minutes: it is {status}", LONGEST_VERDICT.as_secs() / 60)]
    StillWaiting { name: String, file_id: String, status: String },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A file to upload: one side of a prepared directory, or any JSONL file.
#[derive(Debug, Clone)]
pub struct SideFile {
    /// What stdout calls it: `train`, `val`, or the file as it was named.
    pub label: String,
    pub name: String,
    pub body: FileBody,
    /// What the ledger knows it by: a side's digest, or the SHA-256 of a single file.
    pub sha256: String,
    /// The SHA-256 of each part of the body, as the manifest says.
    part_sha256: Vec<String>,
    /// Lines of `keys.tsv` that belong to it, if it was prepared: directory and side.
    pub keys: Option<(PathBuf, &'static str)>,
}

impl SideFile {
    pub fn bytes(&self) -> u64 {
        self.body.len()
    }

    /// SHA-256 of all its bytes, which the service compares. Of several shards nobody knows it before: they are
    /// read, and each is held against the manifest on the way. Fails when a shard cannot be read or has
    /// changed, or somebody asked to stop.
    pub fn checksum(&self, clock: &dyn Clock) -> Result<String, UploadError> {
        let ([_, _, ..], shards) = (self.body.parts.as_slice(), &self.part_sha256) else {
            return Ok(self.sha256.clone());
        };
        let mut joined = Sha256::new();
        for (part, expected) in self.body.parts.iter().zip(shards) {
            let mut own = Sha256::new();
            read_blocks(&part.path, clock, |block| {
                own.update(block);
                joined.update(block);
            })?;
            if Hex(&own.finalize()).to_string() != *expected {
                return Err(UploadError::Changed { path: part.path.clone() });
            }
        }
        Ok(Hex(&joined.finalize()).to_string())
    }
}

/// The sides of the prepared directory `out`, training first, with the digests of the manifest.
pub fn sides(out: &Path, manifest: &Manifest) -> Vec<SideFile> {
    let side_file = |(side_name, side): (&'static str, &ctxtune_engine::output::manifest::Side)| {
        let part = |shard: &ctxtune_engine::output::manifest::Shard| Part {
            path: out.join(&shard.file),
            packing: Compress::of_name(&shard.file).map(|compress| match compress {
                Compress::Zst => Packing::Zstd,
                Compress::Gz => Packing::Gzip,
            }),
            start: 0,
            len: shard.content().0,
        };
        SideFile {
            label: side_name.to_owned(),
            name: format!("{side_name}.jsonl"),
            body: FileBody { parts: side.shards.iter().map(part).collect() },
            sha256: side.content().1.to_owned(),
            part_sha256: side.shards.iter().map(|shard| shard.content().1.to_owned()).collect(),
            keys: Some((out.to_owned(), side_name)),
        }
    };
    manifest.sides().map(side_file).collect()
}

/// The JSONL file at `path`, read once for its digest.
pub(crate) fn loose_file(path: &Path, clock: &dyn Clock) -> Result<SideFile, UploadError> {
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    read_blocks(path, clock, |block| {
        hasher.update(block);
        bytes += block.len() as u64;
    })?;
    let sha256 = Hex(&hasher.finalize()).to_string();
    Ok(SideFile {
        label: path.to_string_lossy().into_owned(),
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        body: FileBody { parts: vec![Part { path: path.to_owned(), packing: None, start: 0, len: bytes }] },
        part_sha256: vec![sha256.clone()],
        sha256,
        keys: None,
    })
}

/// Hands every block of the file at `path`, unpacked where its name says that it is compressed, to `take`.
fn read_blocks(path: &Path, clock: &dyn Clock, mut take: impl FnMut(&[u8])) -> Result<(), UploadError> {
    let failed = |source| UploadError::Read { path: path.to_owned(), source };
    let mut file = open_plain(path).map_err(failed)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        if clock.is_stopped() {
            return Err(Stopped.into());
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => take(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Step<'s> {
    Begun,
    /// So many bytes of this try have left.
    Sent(u64),
    AlreadyThere,
    Again {
        reason: &'s str,
        after: Duration,
        left: u32,
    },
    /// The bytes are there, and the service is looking at them.
    Waiting {
        status: &'s str,
        waited: Duration,
    },
}

pub(crate) struct Uploader<'u> {
    pub together: &'u Together,
    pub account: &'u Account,
    pub multipart_threshold: u64,
    /// Told how it goes on; from several threads.
    pub tell: &'u (dyn Fn(Step<'_>) + Sync),
}

impl Uploader<'_> {
    fn clock(&self) -> &dyn Clock {
        self.together.client().clock()
    }

    /// Brings `side` to the service, unless it is there, and waits for the service's verdict. A file of a
    /// prepared directory is kept in `ledger`.
    pub fn upload(&self, side: &SideFile, mut ledger: Option<&mut Uploads>) -> Result<FileId, UploadError> {
        if side.bytes() > MOST_BYTES {
            return Err(UploadError::TooLarge { name: side.name.clone(), bytes: side.bytes() });
        }
        let known = match &mut ledger {
            Some(ledger) => self.known(side, ledger)?,
            None => None,
        };
        let file_id = match known {
            Some(file_id) => {
                (self.tell)(Step::AlreadyThere);
                file_id
            }
            None => self.hand_over(side, ledger.as_deref_mut())?,
        };
        let verdict = self.wait_for_verdict(side, &file_id);
        if let Some(ledger) = ledger {
            match &verdict {
                Ok(()) => ledger.put(self.record(side, &file_id, UploadState::Verified))?,
                // The same bytes would be unfit again; the next look is at the service's own answer.
                Err(UploadError::Invalid { .. } | UploadError::Failed { .. }) => {
                    ledger.forget(self.account, &side.sha256)?;
                }
                Err(_) => {}
            }
        }
        verdict.map(|()| file_id)
    }

    fn record(&self, side: &SideFile, file_id: &FileId, state: UploadState) -> UploadRecord {
        UploadRecord {
            account: self.account.clone(),
            sha256: side.sha256.clone(),
            bytes: side.bytes(),
            name: side.name.clone(),
            file_id: file_id.as_str().to_owned(),
            state,
        }
    }

    /// The file's id, if the ledger knows it and the service has not lost it.
    fn known(&self, side: &SideFile, ledger: &mut Uploads) -> Result<Option<FileId>, UploadError> {
        let Some(record) = ledger.find(self.account, &side.sha256).cloned() else { return Ok(None) };
        let Some(file_id) = FileId::new(&record.file_id) else { return Ok(None) };
        let failed = |source| UploadError::Api { name: side.name.clone(), source };
        match record.state {
            UploadState::Begun { upload_id } => {
                match abort_parts(self.together, &upload_id, &file_id) {
                    // Refused: the service has forgotten it already.
                    Ok(()) | Err(together::Error::Refused { .. }) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            UploadState::Uploaded | UploadState::Verified => match files::retrieve(self.together, &file_id) {
                Ok(_) => return Ok(Some(file_id)),
                Err(error) if error.status() == Some(404) => {}
                Err(error) => return Err(failed(error)),
            },
        }
        ledger.forget(self.account, &side.sha256)?;
        Ok(None)
    }

    /// The whole hand-off, three times at the most.
    fn hand_over(&self, side: &SideFile, mut ledger: Option<&mut Uploads>) -> Result<FileId, UploadError> {
        let mut wait = BACKOFF;
        let checksum = side.checksum(self.clock())?;
        for left in (0..TRIES).rev() {
            (self.tell)(Step::Begun);
            let error = match self.hand_over_once(side, &checksum, ledger.as_deref_mut()) {
                Ok(file_id) => return Ok(file_id),
                Err(UploadError::Api { source, .. }) if left > 0 && is_worth_another_try(&source) => source,
                Err(error) => return Err(error),
            };
            let after = error.retry_after().unwrap_or(wait);
            (self.tell)(Step::Again { reason: &error.to_string(), after, left });
            self.clock().wait(after)?;
            wait *= 2;
        }
        unreachable!("the last try returns")
    }

    fn hand_over_once(
        &self,
        side: &SideFile,
        checksum: &str,
        mut ledger: Option<&mut Uploads>,
    ) -> Result<FileId, UploadError> {
        let progress = |bytes| (self.tell)(Step::Sent(bytes));
        let upload = Upload { name: &side.name, body: &side.body, sha256: checksum, progress: &progress };
        let mut unwritten = Ok(());
        let handed_over = if side.bytes() > self.multipart_threshold {
            let mut begun = |upload_id: &str, file_id: &FileId| {
                let state = UploadState::Begun { upload_id: upload_id.to_owned() };
                if let Some(ledger) = ledger.as_deref_mut() {
                    unwritten = ledger.put(self.record(side, file_id, state));
                }
            };
            hand_over_in_parts(self.together, &upload, PART_BYTES, &mut begun)
        } else {
            files::hand_over(self.together, &upload)
        };
        unwritten?;
        let failed = |source| UploadError::Api { name: side.name.clone(), source };
        let file_id = match handed_over.map_err(failed)? {
            HandedOver::New(file_id) => file_id,
            HandedOver::AlreadyThere(file_id) => {
                (self.tell)(Step::AlreadyThere);
                self.have_looked_at(&file_id);
                file_id
            }
        };
        if let Some(ledger) = ledger {
            ledger.put(self.record(side, &file_id, UploadState::Uploaded))?;
        }
        Ok(file_id)
    }

    /// A process that was killed between the last byte and the request to look at them leaves a file
    /// that nobody ever looks at.
    fn have_looked_at(&self, file_id: &FileId) {
        let is_waiting = |processing: &Processing| matches!(processing, Processing::Waiting(_));
        if files::retrieve(self.together, file_id).is_ok_and(|file| is_waiting(&file.processing)) {
            // Where it is being looked at already, this is refused or changes nothing.
            let _ = files::preprocess(self.together, file_id);
        }
    }

    fn wait_for_verdict(&self, side: &SideFile, file_id: &FileId) -> Result<(), UploadError> {
        let start = self.clock().elapsed();
        let mut wait = Duration::from_millis(500);
        loop {
            let file = files::retrieve(self.together, file_id)
                .map_err(|source| UploadError::Api { name: side.name.clone(), source })?;
            let name = side.name.clone();
            let id = file_id.as_str().to_owned();
            let status = match file.processing {
                Processing::Completed | Processing::Untold => return Ok(()),
                Processing::Invalid(report) => {
                    let place = place(side, &report);
                    return Err(UploadError::Invalid { name, report, place });
                }
                Processing::Failed(said) => return Err(UploadError::Failed { name, file_id: id, said }),
                Processing::Waiting(status) => status,
            };
            let waited = self.clock().elapsed().saturating_sub(start);
            if waited > LONGEST_VERDICT {
                return Err(UploadError::StillWaiting { name, file_id: id, status });
            }
            (self.tell)(Step::Waiting { status: &status, waited });
            self.clock().wait(wait)?;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }
}

/// A signed URL that has expired is refused with 403; a fresh one may not be.
fn is_worth_another_try(error: &together::Error) -> bool {
    match error {
        together::Error::Refused { method, status: 403, .. } => *method == "PUT",
        error => error.is_passing() || error.certainty() == Certainty::NotAccepted,
    }
}

/// ` (record "12.json")` for the line that `report` names.
fn place(side: &SideFile, report: &str) -> String {
    let line = line_in(report);
    let key = line.and_then(|line| side.keys.as_ref().and_then(|(out, name)| key_of(out, name, line)));
    key.map(|key| format!(" (record {key})")).unwrap_or_default()
}

/// The number behind the first `line` in `report`.
fn line_in(report: &str) -> Option<u64> {
    let lower = report.to_ascii_lowercase();
    lower.split("line").skip(1).find_map(|rest| {
        let rest = rest.trim_start_matches(|character: char| !character.is_alphanumeric());
        let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

/// The key of the `line`-th example (from 1) of a side, as a JSON string, from `keys.tsv`.
fn key_of(out: &Path, side: &str, line: u64) -> Option<String> {
    let file = BufReader::new(File::open(out.join("keys.tsv")).ok()?);
    let is_of_side = |row: &String| row.split('\t').next() == Some(side);
    let row = file
        .lines()
        .map_while(Result::ok)
        .filter(is_of_side)
        .nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    row.splitn(4, '\t').nth(3).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_a_report_names_is_found() {
        let check = |report: &str, expected| assert_eq!(line_in(report), expected, "{report}");
        check("Invalid sample on line 17: role", Some(17));
        check("Line: 3", Some(3));
        check("line_number=8", None);
        check("the newline at the end of line 2", Some(2));
        check("no number here", None);
    }

    #[test]
    fn a_line_of_a_side_is_mapped_to_its_record_over_all_shards() {
        let out = tempfile::tempdir().unwrap();
        let rows = concat!(
            "split\tline\tshard\tkey\n",
            "train\t1\ttrain-00000-of-00002.jsonl\t\"a.json\"\n",
            "train\t1\ttrain-00001-of-00002.jsonl\t\"b.json\"\n",
            "val\t1\tval.jsonl\t\"c.json\"\n",
        );
        std::fs::write(out.path().join("keys.tsv"), rows).unwrap();
        assert_eq!(key_of(out.path(), "train", 2).as_deref(), Some("\"b.json\""));
        assert_eq!(key_of(out.path(), "val", 1).as_deref(), Some("\"c.json\""));
        assert_eq!(key_of(out.path(), "val", 2), None);
        assert_eq!(key_of(out.path(), "val", 0), None);
    }
}
