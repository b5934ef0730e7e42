//! `prepare` end to end in bytes of input a second: both shapes on one thread and on two, and with the general
//! reader alone.
//!
//! The corpora are made from a fixed seed in a temporary directory and are in the page cache;
//! the result is made anew each time, without fsync. Comparisons with a floor and with
//! other programs need whole processes: `scripts/bench.sh`.

mod corpus;

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ctxtune_engine::line::template::Template;
use ctxtune_engine::prepare::{Durability, Mode, Options, Prepared, Purpose, Readers, prepare};
use ctxtune_engine::record::reject::RejectLimit;
use ctxtune_engine::source::{Containers, Source, SourceKind};
use ctxtune_engine::watch::Unwatched;

use corpus::Shape;

const SEED: u64 = 42;
const RECORDS: u64 = 2000;

criterion_group! {
    name = end_to_end;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .sample_size(30);
    targets = whole_runs
}
criterion_main!(end_to_end);

fn whole_runs(criterion: &mut Criterion) {
    for (name, shape) in [("lean", Shape::Lean), ("real", Shape::Real)] {
        let dir = tempfile::tempdir().expect("there is room for a small corpus");
        let records = dir.path().join("records");
        let bytes = corpus::write(&records, shape, SEED, RECORDS).expect("there is room for a small corpus");
        let mut group = criterion.benchmark_group("prepare");
        group.throughput(Throughput::Bytes(bytes));
        for (threads, readers) in [(1, Readers::Both), (2, Readers::Both), (2, Readers::General)] {
            let which = if readers == Readers::General { ", general" } else { "" };
            let options = Options { readers, ..options(&records, &dir.path().join("out"), threads) };
            group.bench_function(BenchmarkId::new(format!("{name}{which}"), threads), |bencher| {
                bencher.iter_batched(
                    || remove(&options.output_dir),
                    |()| {
                        let prepared = prepare(&options, &Unwatched).expect("a made-up corpus is usable");
                        assert_complete(&prepared, bytes);
                    },
                    criterion::BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

/// A result that stands there already would only be compared.
fn remove(output_dir: &Path) {
    if output_dir.exists() {
        std::fs::remove_dir_all(output_dir).expect("the last result is ours to remove");
    }
}

fn assert_complete(prepared: &Prepared, bytes: u64) {
    assert_eq!((prepared.train_records, prepared.val_records), (RECORDS * 9 / 10, RECORDS / 10));
    assert_eq!((prepared.counts.rejected, prepared.bytes_read), (0, bytes));
    assert!(prepared.result.is_some(), "the result is published");
}

fn options(corpus: &Path, output_dir: &Path, threads: usize) -> Options {
    Options {
        sources: vec![Source { path: corpus.to_owned(), kind: SourceKind::Directory(Containers::Skip) }],
        max_spool_bytes: 0,
        output_dir: output_dir.to_owned(),
        val_ratio: "0.1".parse().expect("0.1 is a ratio"),
        seed: SEED,
        chat: false,
        template: Template::chatml(),
        shard_records: None,
        compress: None,
        limit: None,
        mix: Vec::new(),
        group_by: None,
        max_rejects: RejectLimit::Count(0),
        only_correct: false,
        max_record_bytes: 64 << 20,
        threads: NonZeroUsize::new(threads).expect("there is at least one thread"),
        durability: Durability::NoSync,
        readers: Readers::Both,
        purpose: Purpose { mode: Mode::Publish, show: 0, name_rejects: 0 },
    }
}
