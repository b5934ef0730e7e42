//! Each stage of the hot path by itself, on one thread, for both shapes.
//!
//! `list`, `read`, `scan` and `story` are quoted in bytes of input a second; `write` and `hash` in bytes of
//! output. `scan` has the general reader beside the quick one. What is expected comes from `serde_json` or is
//! pinned: a stage that became fast by doing less fails here.

mod corpus;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use ctxtune_engine::line::convert::LineWriter;
use ctxtune_engine::line::template::Template;
use ctxtune_engine::output::manifest::Hex;
use ctxtune_engine::record::Record;
use ctxtune_engine::record::parser::{PADDING, Parser, Readers};
use ctxtune_engine::record::story;
use ctxtune_engine::source::read::{Effort, Length, Reader};
use ctxtune_engine::source::records::Records;
use ctxtune_engine::source::{Containers, Source};
use ctxtune_engine::watch::Unwatched;
use serde_json::Value;
use sha2::{Digest, Sha256};

use corpus::Shape;

const SEED: u64 = 42;
const RECORDS: u64 = 256;

/// A shape, and what is known of its records.
struct Known {
    name: &'static str,
    shape: Shape,
    /// The texts of all stories: what `ast.literal_eval` and `" ".join` give, in bytes of UTF-8.
    story_bytes: usize,
    /// The SHA-256 of all lines in the order of the records, as `line` of `scripts/baseline.py` writes them.
    sha256: &'static str,
}

const SHAPES: [Known; 2] = [
    Known {
        name: "lean",
        shape: Shape::Lean,
        story_bytes: 132_883,
        sha256: "77950775c422df5ba229edad87b85577be4e7423235284a0a81251b6370854ca",
    },
    Known {
        name: "real",
        shape: Shape::Real,
        story_bytes: 116_593,
        sha256: "17d83728ac969d079a22cfc72e51903fe045003e79a0cbb87075eab775cbef0a",
    },
];

criterion_group! {
    name = stages;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30);
    targets = list_and_read, stories, scan, write_and_hash
}
criterion_main!(stages);

fn list_and_read(criterion: &mut Criterion) {
    for Known { name, shape, .. } in SHAPES {
        let dir = tempfile::tempdir().expect("there is room for a few records");
        let bytes = corpus::write(dir.path(), shape, SEED, RECORDS).expect("there is room for a few records");
        let source = Source::of(dir.path(), Containers::Skip).expect("a directory is a source");
        group(criterion, "list", bytes).bench_function(name, |bencher| {
            bencher.iter(|| {
                let records = Records::list(std::slice::from_ref(&source), 0, &Unwatched);
                assert_eq!(records.expect("the directory was just made").len() as u64, RECORDS);
            });
        });
        let paths: Vec<PathBuf> =
            (0..RECORDS).map(|index| dir.path().join(format!("{index}.json"))).collect();
        let mut reader = Reader::new(64 << 20);
        group(criterion, "read", bytes).bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut total = 0;
                for path in &paths {
                    match reader.read(path, Effort::OneRead).expect("the file was just written") {
                        Length::Bytes(length) => total += length as u64,
                        Length::TooLarge => panic!("no record is this large"),
                    }
                }
                assert_eq!(total, bytes);
            });
        });
    }
}

fn stories(criterion: &mut Criterion) {
    for Known { name, shape, story_bytes, .. } in SHAPES {
        let stories: Vec<String> = texts(shape).iter().map(|text| text_of(&value(text)["story"])).collect();
        let bytes = stories.iter().map(String::len).sum::<usize>() as u64;
        let mut joined = String::new();
        group(criterion, "story", bytes).bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut total = 0;
                for literal in &stories {
                    story::parse_literal(literal, &mut joined).expect("made-up stories are valid");
                    total += joined.len();
                }
                assert_eq!(total, story_bytes);
            });
        });
    }
}

fn scan(criterion: &mut Criterion) {
    for Known { name, shape, .. } in SHAPES {
        let texts = texts(shape);
        let bytes = texts.iter().map(String::len).sum::<usize>() as u64;
        let steps: usize = texts.iter().map(|text| steps(&value(text))).sum();
        let mut group = group(criterion, "scan", bytes);
        for (which, readers) in [("", Readers::Both), (", general", Readers::General)] {
            let mut hot = Hot::new(readers);
            group.bench_function(format!("{name}{which}"), |bencher| {
                bencher.iter(|| {
                    let mut total = 0;
                    for text in &texts {
                        total += hot.with_record(text, |record| record.context.steps.len());
                    }
                    assert_eq!(total, steps);
                });
            });
        }
    }
}

fn write_and_hash(criterion: &mut Criterion) {
    let template = Template::chatml();
    let writer = LineWriter::new(&template);
    for Known { name, shape, sha256, .. } in SHAPES {
        let texts = texts(shape);
        let mut hot = Hot::new(Readers::Both);
        let mut lines = Vec::new();
        for text in &texts {
            let start = lines.len();
            hot.with_record(text, |record| writer.write_line(record, &mut lines));
            assert_carries_the_context(&lines[start..], text);
        }
        let bytes = lines.len();
        group(criterion, "write", bytes as u64).bench_function(name, |bencher| {
            // A record is borrowed from its reader: each is written as often as is asked for before the next is read.
            bencher.iter_custom(|times| {
                let (mut line, mut total, mut elapsed) = (Vec::new(), 0, Duration::ZERO);
                for text in &texts {
                    hot.with_record(text, |record| {
                        let start = Instant::now();
                        for _ in 0..times {
                            line.clear();
                            writer.write_line(record, &mut line);
                        }
                        elapsed += start.elapsed();
                    });
                    total += line.len();
                }
                assert_eq!(total, bytes);
                elapsed
            });
        });
        group(criterion, "hash", bytes as u64).bench_function(name, |bencher| {
            bencher.iter(|| assert_eq!(Hex(&Sha256::digest(&lines)).to_string(), sha256));
        });
    }
}

/// What a thread keeps from record to record. The text is copied before it is parsed, since
/// parsing changes it; in a run the read itself puts it there.
struct Hot {
    parser: Parser,
    buffer: Vec<u8>,
}

impl Hot {
    fn new(readers: Readers) -> Hot {
        Hot { parser: Parser::new(readers), buffer: Vec::new() }
    }

    fn with_record<T>(&mut self, text: &str, look: impl FnOnce(&Record<'_>) -> T) -> T {
        self.buffer.resize(self.buffer.len().max(text.len() + PADDING), 0);
        self.buffer[..text.len()].copy_from_slice(text.as_bytes());
        match self.parser.with_record(&mut self.buffer, text.len(), None, look) {
            Ok(looked) => looked,
            Err(failure) => {
                panic!("a made-up record was refused: {}", failure.explain(text.as_bytes()).reason)
            }
        }
    }
}

fn group<'c>(criterion: &'c mut Criterion, stage: &str, bytes: u64) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(stage);
    group.throughput(Throughput::Bytes(bytes));
    group
}

fn texts(shape: Shape) -> Vec<String> {
    (0..RECORDS).map(|index| corpus::record(shape, SEED, index)).collect()
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).expect("made-up records are JSON")
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("made-up records have text here").to_owned()
}

fn steps(record: &Value) -> usize {
    record["socialized_context"]["socialized_context"].as_array().map_or(0, Vec::len)
}

/// The assistant's message is the record's own context without the manual.
fn assert_carries_the_context(line: &[u8], text: &str) {
    let example: Value = serde_json::from_slice(line).expect("a line is JSON");
    let learnt = value(&text_of(&example["messages"][2]["content"]));
    let mut context = value(text)["socialized_context"].take();
    context.as_object_mut().expect("a context is an object").shift_remove("context_manual");
    assert_eq!(learnt, context);
}
