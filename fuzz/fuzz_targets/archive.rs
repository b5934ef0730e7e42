//! A container of any bytes (the first one chooses its kind): it is listed and every record read, or refused with
//! an error; the same each time; nothing but its own temporary file is touched.

#![no_main]

use std::io::Write;
use std::path::Path;

use ctxtune_engine::source::records::{RecordReader, Records};
use ctxtune_engine::source::{Containers, Source};
use ctxtune_engine::watch::Unwatched;
use libfuzzer_sys::fuzz_target;

const SUFFIXES: [&str; 6] = [".tar", ".jsonl", ".tar.gz", ".jsonl.gz", ".tar.zst", ".jsonl.zst"];

/// A kilobyte of zstd may unpack to gigabytes.
const MAX_SPOOL_BYTES: u64 = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    let suffix = SUFFIXES[usize::from(kind) % SUFFIXES.len()];
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().expect("there is room for a file");
    file.write_all(bytes).expect("there is room for an input");
    assert_eq!(contents(file.path()), contents(file.path()));
});

/// Every key with its record's bytes or why there are none, or why the container is refused.
fn contents(path: &Path) -> Result<Vec<(Vec<u8>, String)>, String> {
    let source = Source::of(path, Containers::default()).expect("its name says what it is");
    let records = Records::list(&[source], MAX_SPOOL_BYTES, &Unwatched).map_err(|error| error.to_string())?;
    let mut reader = RecordReader::new(&records, 1 << 16);
    let mut contents = Vec::new();
    for position in 0..records.len() {
        let bytes = reader.bytes(position).map_err(|error| error.to_string())?;
        contents.push((records.key(position).to_owned(), format!("{bytes:?}")));
    }
    let mut keys: Vec<&[u8]> = contents.iter().map(|(key, _)| key.as_slice()).collect();
    keys.sort_unstable();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "two records have one key");
    Ok(contents)
}
