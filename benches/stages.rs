//! Each stage of the hot path by itself, in bytes of input a second on one thread.
//!
//! `read`, `story`, `parse` and `convert` (parse and emit) work on the same records and
//! so add up; `emit` is quoted in bytes of output. What is expected comes from
//! `serde_json` or is pinned: a stage that became fast by doing less fails here.

mod corpus;

use std::path::PathBuf;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use ctxtune_engine::line::convert::{LineWriter, Parser};
use ctxtune_engine::line::template::Template;
use ctxtune_engine::record::story;
use ctxtune_engine::record::{self, Record};
use ctxtune_engine::source::read::{Effort, Length, PADDING, Reader};
use serde_json::Value;

use corpus::Shape;

const SEED: u64 = 42;
const RECORDS: u64 = 256;
const MAX_RECORD_BYTES: usize = 64 << 20;

/// The texts of all stories of these records: what `ast.literal_eval` and `" ".join` give in UTF-8.
const STORY_BYTES: usize = 132_883;

criterion_group! {
    name = stages;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30);
    targets = read, stories, parse_and_convert, emit
}
criterion_main!(stages);

fn read(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("there is room for a few records");
    let bytes =
        corpus::write(dir.path(), Shape::Lean, SEED, RECORDS).expect("there is room for a few records");
    let paths: Vec<PathBuf> = (0..RECORDS).map(|index| dir.path().join(format!("{index}.json"))).collect();
    let mut reader = Reader::new(MAX_RECORD_BYTES);
    group(criterion, "read", bytes).bench_function("lean", |bencher| {
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

fn stories(criterion: &mut Criterion) {
    let stories: Vec<String> = texts(Shape::Lean).iter().map(|text| text_of(&value(text)["story"])).collect();
    let bytes = stories.iter().map(String::len).sum::<usize>() as u64;
    let mut joined = String::new();
    group(criterion, "story", bytes).bench_function("lean", |bencher| {
        bencher.iter(|| {
            let mut total = 0;
            for literal in &stories {
                story::parse_literal(literal, &mut joined).expect("made-up stories are valid");
                total += joined.len();
            }
            assert_eq!(total, STORY_BYTES);
        });
    });
}

fn parse_and_convert(criterion: &mut Criterion) {
    let template = Template::chatml();
    let writer = LineWriter::new(&template);
    for (name, shape) in [("lean", Shape::Lean), ("real", Shape::Real)] {
        let texts = texts(shape);
        let bytes = texts.iter().map(String::len).sum::<usize>() as u64;
        let steps: usize = texts.iter().map(|text| steps(&value(text))).sum();
        group(criterion, "parse", bytes).bench_function(name, |bencher| {
            let mut hot = Hot::default();
            bencher.iter(|| {
                let mut total = 0;
                for text in &texts {
                    total += hot.with_record(text, |record| record.context.steps.len());
                }
                assert_eq!(total, steps);
            });
        });

        let mut hot = Hot::default();
        let mut lines = Vec::new();
        for text in &texts {
            let start = lines.len();
            hot.with_record(text, |record| writer.write_line(record, &mut lines));
            assert_carries_the_context(&lines[start..], text);
        }
        let line_bytes = lines.len();
        group(criterion, "convert", bytes).bench_function(name, |bencher| {
            bencher.iter(|| {
                lines.clear();
                for text in &texts {
                    hot.with_record(text, |record| writer.write_line(record, &mut lines));
                }
                assert_eq!(lines.len(), line_bytes);
            });
        });
    }
}

fn emit(criterion: &mut Criterion) {
    let template = Template::chatml();
    let writer = LineWriter::new(&template);
    let mut texts: Vec<Vec<u8>> = texts(Shape::Lean).into_iter().map(String::into_bytes).collect();
    let tapes: Vec<_> =
        texts.iter_mut().map(|text| simd_json::to_tape(text).expect("made-up records are JSON")).collect();
    let mut stories = vec![String::new(); tapes.len()];
    let records: Vec<Record<'_>> = tapes
        .iter()
        .zip(&mut stories)
        .map(|(tape, story)| record::parse(&tape.0, None, story).expect("made-up records are usable"))
        .collect();
    let mut lines = Vec::new();
    records.iter().for_each(|record| writer.write_line(record, &mut lines));
    let line_bytes = lines.len();
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), records.len());
    group(criterion, "emit", line_bytes as u64).bench_function("lean", |bencher| {
        bencher.iter(|| {
            lines.clear();
            records.iter().for_each(|record| writer.write_line(record, &mut lines));
            assert_eq!(lines.len(), line_bytes);
        });
    });
}

/// What a thread keeps from record to record. The text is copied before it is parsed, since
/// parsing changes it; in a run the read itself puts it there.
#[derive(Default)]
struct Hot {
    parser: Parser,
    buffer: Vec<u8>,
}

impl Hot {
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
