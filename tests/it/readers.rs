//! The quick reader changes no byte: what both readers make of a corpus is what the general one makes of it.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use ctxtune_engine::prepare::{Error, Mode, Purpose, Readers, prepare};
use ctxtune_engine::record::reject::RejectLimit;
use ctxtune_engine::split::group::GroupBy;
use ctxtune_engine::watch::Unwatched;
use ctxtune_pipeline::config::PrepareChoices;

use crate::real_data;
use crate::support::{Dir, assert_same_tree, repository};

#[path = "../../benches/corpus.rs"]
mod made_up;

/// Enough for several batches on either side.
const RECORDS: u64 = 300;

/// Holds what both readers make of `source` on so many threads against what the general one makes of it on one,
/// with groups and without.
fn check(source: &Path, threads: &[usize]) {
    let dir = Dir::new();
    let result = |out: &str, readers: Readers, group_by: Option<&str>, threads: usize| {
        let choices = PrepareChoices {
            sources: vec![source.to_owned()],
            output_dir: Some(dir.path(out)),
            group_by: group_by.map(|by| by.parse::<GroupBy>().unwrap()),
            max_rejects: Some("100%".parse::<RejectLimit>().unwrap()),
            no_sync: true,
            ..PrepareChoices::default()
        };
        let purpose = Purpose { mode: Mode::Publish, show: 0, name_rejects: 0 };
        let mut options = choices.resolve(purpose, NonZeroUsize::new(threads).unwrap()).unwrap();
        options.readers = readers;
        match prepare(&options, &Unwatched) {
            Ok(_) => Some(dir.tree(out)),
            // A directory of nothing but bad records: what is told of them has to be the same, too.
            Err(Error::NothingAccepted { failed, .. }) => {
                let report = std::fs::read(failed.report.unwrap()).unwrap();
                Some(vec![("rejects".to_owned(), report)])
            }
            Err(error) => panic!("{error}"),
        }
    };
    for group_by in [None, Some("agents"), Some("story")] {
        let by = group_by.unwrap_or("none");
        let expected = result(&format!("general-{by}"), Readers::General, group_by, 1);
        for &threads in threads {
            let found = result(&format!("both-{by}-{threads}"), Readers::Both, group_by, threads);
            let what = format!("{}, {by}, {threads} threads", source.display());
            assert_same_tree(&found.unwrap(), expected.as_ref().unwrap(), &what);
        }
    }
}

#[test]
fn the_quick_reader_changes_no_byte_of_the_fixtures() {
    check(&repository("fixtures/contexts"), &[1, 2, 5]);
    check(&repository("fixtures/malformed"), &[1, 2, 5]);
}

#[test]
fn the_quick_reader_changes_no_byte_of_made_up_corpora() {
    let dir = Dir::new();
    for (name, shape) in [("lean", made_up::Shape::Lean), ("real", made_up::Shape::Real)] {
        made_up::write(&dir.path(name), shape, 7, RECORDS).unwrap();
        check(&dir.path(name), &[1, 2, 5]);
        check(&in_lines(&dir, name), &[2]);
    }
}

#[test]
fn the_quick_reader_changes_no_byte_of_real_records() {
    if let Some(corpus) = real_data::corpus() {
        check(corpus, &[2]);
    }
}

/// The same records as compressed lines.
fn in_lines(dir: &Dir, name: &str) -> PathBuf {
    let line = |(_, bytes): &(String, Vec<u8>)| {
        let value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        format!("{value}\n")
    };
    let lines: String = dir.tree(name).iter().map(line).collect();
    dir.write(format!("{name}.jsonl.zst"), zstd::encode_all(lines.as_bytes(), 1).unwrap())
}
