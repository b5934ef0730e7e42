//! Takes JSONL files that are split already as a result: copied byte for byte, and described by a manifest.
//!
//! Whoever uploads, resumes or checks then needs no second way: a job finds its data where all jobs do. Whether
//! the files are fit for training is for `check` to say.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::output::compress::Packed;
use crate::output::manifest::{
    Counts, DataKind, Hex, IsCorrect, Leakage, Manifest, OptionsUsed, SCHEMA, Shard, Side,
};
use crate::output::publish::{Durability, Output, Published};
use crate::watch::Watch;
use sha2::{Digest, Sha256};

/// Files that are split already.
#[derive(Debug, Clone)]
pub struct GivenFiles {
    /// The training file.
    pub train: PathBuf,
    /// The validation file.
    pub val: Option<PathBuf>,
    /// Where they are taken to; made if it is not there.
    pub output_dir: PathBuf,
    /// The seed that a job has by default.
    pub seed: u64,
    /// Whether the result is to survive a power loss.
    pub durability: Durability,
}

impl GivenFiles {
    /// Copies the files to the output directory and publishes them.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the output directory holds something else of that name.
    pub fn take(&self, watch: &dyn Watch) -> Result<(Manifest, Published), Error> {
        let output = Output::open(&self.output_dir, self.durability)?;
        output.check_foreign(["train.jsonl", "val.jsonl"])?;
        let train = copy(&output, &self.train, "train.jsonl", watch)?;
        let val = self.val.as_ref().map(|val| copy(&output, val, "val.jsonl", watch)).transpose()?;
        let records = train.records + val.as_ref().map_or(0, |val| val.records);
        let mut manifest = Manifest {
            schema: SCHEMA.to_owned(),
            tool: concat!("ctxtune ", env!("CARGO_PKG_VERSION")).to_owned(),
            options: OptionsUsed {
                kind: DataKind::Files,
                seed: self.seed,
                val_ratio: "given".to_owned(),
                group_by: None,
                shard_records: None,
                compress: None,
                limit: None,
                only_correct: false,
                max_record_bytes: 1 << 30,
            },
            counts: Counts {
                listed: records,
                accepted: records,
                is_correct: IsCorrect { missing: records, ..IsCorrect::default() },
                ..Counts::default()
            },
            leakage: Leakage::default(),
            grouping: None,
            mix: Vec::new(),
            template: None,
            keys_sha256: Hex(&Sha256::digest(b"")).to_string(),
            train,
            val,
            files: BTreeMap::new(),
        };
        let published = output.publish(&mut manifest, watch)?;
        Ok((manifest, published))
    }
}

/// Stages the file at `path` as `name`.
fn copy(output: &Output, path: &Path, name: &str, watch: &dyn Watch) -> Result<Side, Error> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut lines = BufReader::with_capacity(1 << 20, file);
    let (mut records, mut failure) = (0, None);
    let mut line_is_blank = true;
    let digest = output.stage(name, |out| {
        loop {
            if let Err(error) = watch.check_stop() {
                failure = Some(error);
                break;
            }
            let block = match lines.fill_buf() {
                Ok([]) => break,
                Ok(block) => block,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    failure = Some(unreadable(error));
                    break;
                }
            };
            for part in block.split_inclusive(|&byte| byte == b'\n') {
                line_is_blank &= part.iter().all(u8::is_ascii_whitespace);
                if part.ends_with(b"\n") {
                    records += u64::from(!std::mem::replace(&mut line_is_blank, true));
                }
            }
            out.write_all(block)?;
            let length = block.len();
            lines.consume(length);
        }
        records += u64::from(!line_is_blank);
        Ok(())
    })?;
    match failure {
        Some(error) => Err(error),
        None => {
            let packed = Packed::plain(digest.bytes, digest.sha256);
            Ok(Side::of(vec![Shard::of(name.to_owned(), records, packed)]))
        }
    }
}
