//! A run of any rows as a `.wandb` file: an independent reader of the log format finds every record whole.

#![no_main]

use ctxtune_service::wandb::offline::{Offline, write};
use ctxtune_service::wandb::run::{Metadata, Plan};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const BLOCK: usize = 32 << 10;
const HEAD: usize = 7;

fuzz_target!(|input: (Vec<Vec<(String, f64)>>, Vec<String>, u16)| {
    let (rows, lines, repeat) = input;
    let mut rows: Vec<Map<String, Value>> = rows
        .into_iter()
        .map(|row| row.into_iter().map(|(name, value)| (name, Value::from(value))).collect())
        .collect();
    // A text that crosses blocks, at every place that the length of the others leads to.
    if let Some(row) = rows.first_mut() {
        row.insert("long".to_owned(), Value::from("x".repeat(usize::from(repeat))));
    }
    let plan = plan();
    let summary = rows.last().cloned().unwrap_or_default();
    let mut file = Vec::new();
    let run = Offline {
        plan: &plan,
        began: 1_790_000_000.5,
        rows: Box::new(rows.iter()),
        lines: &lines,
        summary: &summary,
        exit: Some(0),
        files: vec!["manifest.json"],
    };
    write(run, &mut file).expect("memory can be written");
    let records = records(&file);
    // The run, each row, each line, the files, the summary and the exit; each begins with its number.
    assert!(records.len() >= rows.len() + lines.len() + 3, "{} records", records.len());
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record.first(), Some(&0x08), "record {index} does not begin with its number");
        assert_eq!(varint(&record[1..]), index as u64 + 1);
    }
});

fn plan() -> Plan {
    Plan {
        run: "run".to_owned(),
        tag: "run".to_owned(),
        entity: None,
        project: "project".to_owned(),
        display_name: None,
        group: None,
        job_type: None,
        tags: Vec::new(),
        notes: None,
        defaults: Metadata::default(),
        sweep: None,
        config: Map::new(),
        metrics: Vec::new(),
        is_elsewhere: false,
        no_alert: true,
        uploads_data: false,
    }
}

/// The records of a log: pieces of blocks, each with its checksum.
fn records(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut records, mut open) = (Vec::new(), None::<Vec<u8>>);
    let mut at = HEAD;
    while at < file.len() {
        let left = BLOCK - at % BLOCK;
        if left < HEAD {
            assert!(file[at..(at + left).min(file.len())].iter().all(|byte| *byte == 0), "the end of a block");
            at += left;
            continue;
        }
        let head = &file[at..at + HEAD];
        let length = usize::from(u16::from_le_bytes([head[4], head[5]]));
        assert!(HEAD + length <= left, "a piece crosses the end of its block");
        let kind_and_data = &file[at + 6..at + HEAD + length];
        let checksum = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        assert_eq!(checksum, crc32fast::hash(kind_and_data));
        let data = &kind_and_data[1..];
        match (kind_and_data[0], open.take()) {
            (1, None) => records.push(data.to_owned()),
            (2, None) => open = Some(data.to_owned()),
            (3, Some(begun)) => open = Some([&begun, data].concat()),
            (4, Some(begun)) => records.push([&begun, data].concat()),
            (kind, begun) => panic!("a piece of kind {kind}, a record begun: {}", begun.is_some()),
        }
        at += HEAD + length;
    }
    assert!(open.is_none(), "the last record has no end");
    records
}

fn varint(bytes: &[u8]) -> u64 {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}
