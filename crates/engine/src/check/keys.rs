//! Maps lines of a prepared directory back to the records they came from.
//!
//! `keys.tsv` is read once, from front to back, and only the lines that somebody will see
//! are looked for in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use crate::check::lenient;
use crate::check::prepared::Prepared;
use crate::check::{Error, Run};

const KEYS: &str = "keys.tsv";

/// Keys as JSON strings, by path of the report and line; at first without the keys.
type Wanted = BTreeMap<(u32, u64), Option<String>>;

/// Finds the keys of the findings that were kept and of the longest samples.
///
/// # Errors
/// When `keys.tsv` is there and cannot be read.
pub fn find_keys(run: &mut Run<'_>) -> Result<(), Error> {
    if run.prepared.is_empty() {
        return Ok(());
    }
    let found = run.findings.kept().iter().filter_map(|finding| Some((finding.path, finding.line?)));
    let longest = run.longest.samples().iter().map(|long| (long.path, long.line));
    let mut wanted: Wanted = found.chain(longest).map(|place| (place, None)).collect();
    for prepared in &run.prepared {
        read_keys(prepared, &mut wanted)?;
    }
    for finding in run.findings.kept_mut() {
        if let Some(line) = finding.line {
            finding.key = wanted.get(&(finding.path, line)).cloned().flatten();
        }
    }
    run.longest_keys = run
        .longest
        .samples()
        .iter()
        .map(|long| wanted.get(&(long.path, long.line)).cloned().flatten())
        .collect();
    Ok(())
}

fn read_keys(prepared: &Prepared, wanted: &mut Wanted) -> Result<(), Error> {
    let path = prepared.dir.join(KEYS);
    let failed = |source| Error::Read { path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        // That it is missing has been said.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut left =
        wanted.keys().filter(|(path, _)| prepared.shards.iter().any(|(shard, _)| shard == path)).count();
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut row = Vec::new();
    while left > 0 && reader.read_until(b'\n', &mut row).map_err(failed)? > 0 {
        let found = place_and_key(&row, prepared);
        if let Some((slot, key)) = found.and_then(|(place, key)| Some((wanted.get_mut(&place)?, key))) {
            left -= usize::from(slot.is_none());
            *slot = Some(key.to_owned());
        }
        row.clear();
    }
    Ok(())
}

/// What a row `split, line, shard, key` says; nothing for the header and for what is not such a row.
fn place_and_key<'r>(row: &'r [u8], prepared: &Prepared) -> Option<((u32, u64), &'r str)> {
    let mut columns = std::str::from_utf8(row).ok()?.trim_end_matches('\n').splitn(4, '\t').skip(1);
    let line = columns.next()?.parse().ok()?;
    let shard = columns.next()?;
    let (path, _) = prepared.shards.iter().find(|(_, name)| name == shard)?;
    // A damaged row may hold anything; a key with undecodable bytes is a string all the same.
    let key = columns.next().filter(|key| key.starts_with('"') && lenient::judge(key.as_bytes()).is_ok())?;
    Some(((*path, line), key))
}
