//! A run as the file that `wandb sync` uploads.
//!
//! Separate because the format is another program's: records of protocol buffers in the log format of
//! LevelDB, with a plain CRC-32. Only what an upload needs is written: the run, its rows, its console,
//! its summary, its end. The file is written whole; its name and place are the caller's.

use std::io::{self, Write};

use flate2::Crc;
use serde_json::{Map, Value};

use crate::wandb::run::{Plan, document};

const BLOCK: usize = 32 << 10;
/// Bytes before the data of a piece: checksum, length, kind.
const HEAD: usize = 7;
/// What the file begins with: its mark, a number, its version.
const START: [u8; HEAD] = [b':', b'W', b'&', b'B', 0xE1, 0xBE, 0];

pub struct Offline<'o> {
    pub plan: &'o Plan,
    /// When it began, in seconds since 1970.
    pub began: f64,
    /// Its rows, each with its `_step`.
    pub rows: Box<dyn Iterator<Item = &'o Map<String, Value>> + 'o>,
    pub lines: &'o [String],
    pub summary: &'o Map<String, Value>,
    /// Its exit code, once it has ended.
    pub exit: Option<i32>,
    /// Names of its files, which are in the directory `files` beside it.
    pub files: Vec<&'o str>,
}

pub fn write(run: Offline<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut log = Log { out, place: HEAD };
    log.out.write_all(&START)?;
    let mut number = 0;
    let mut record = |field: u32, message: Message| {
        number += 1;
        let record = Message::default().number(1, number).message(field, &message);
        log.append(&record.0)
    };
    record(17, run_record(run.plan, run.began))?;
    for row in run.rows {
        let step = row.get("_step").and_then(Value::as_u64).unwrap_or(0);
        record(2, items(row).message(2, &Message::default().number(1, step)))?;
    }
    for line in run.lines {
        let timestamp = timestamp(run.began);
        record(13, Message::default().number(1, 1).message(2, &timestamp).text(3, &format!("{line}\n")))?;
    }
    if !run.summary.is_empty() {
        record(3, items(run.summary))?;
    }
    if !run.files.is_empty() {
        let file = |message: Message, name: &&str| message.message(1, &Message::default().text(1, name));
        record(6, run.files.iter().fold(Message::default(), file))?;
    }
    if let Some(code) = run.exit {
        // A negative number would take ten bytes; exit codes are none.
        record(18, Message::default().number(1, u64::from(code.unsigned_abs())))?;
    }
    Ok(())
}

fn run_record(plan: &Plan, began: f64) -> Message {
    let plan = plan.clone().with_defaults();
    let config = document(&plan.config, &plan.metrics);
    let config = config.as_object().map(|config| {
        let values =
            config.iter().filter_map(|(key, value)| Some((key.clone(), value.get("value")?.clone())));
        items(&values.collect())
    });
    let optional = |message: Message, field: u32, text: &Option<String>| match text {
        Some(text) => message.text(field, text),
        None => message,
    };
    let mut message = Message::default().text(1, &plan.run);
    message = optional(message, 2, &plan.entity).text(3, &plan.project);
    message = message.message(4, &config.unwrap_or_default());
    message = optional(message, 6, &plan.group);
    message = optional(message, 7, &plan.job_type);
    message = optional(message, 8, &plan.display_name);
    message = optional(message, 9, &plan.notes);
    for tag in &plan.tags {
        message = message.text(10, tag);
    }
    message = optional(message, 12, &plan.sweep);
    message.message(17, &timestamp(began))
}

fn timestamp(seconds: f64) -> Message {
    let seconds = seconds.max(0.0);
    Message::default().number(1, seconds as u64).number(2, (seconds.fract() * 1e9) as u64)
}

/// Names with values, as histories, summaries and configurations have them.
fn items(values: &Map<String, Value>) -> Message {
    values.iter().fold(Message::default(), |message, (key, value)| {
        message.message(1, &Message::default().text(1, key).text(16, &value.to_string()))
    })
}

#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn number(mut self, field: u32, number: u64) -> Message {
        self.varint(u64::from(field << 3));
        self.varint(number);
        self
    }

    fn bytes(mut self, field: u32, bytes: &[u8]) -> Message {
        self.varint(u64::from(field << 3 | 2));
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, field: u32, text: &str) -> Message {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u32, message: &Message) -> Message {
        self.bytes(field, &message.0)
    }
}

struct Log<'l> {
    out: &'l mut dyn Write,
    place: usize,
}

impl Log<'_> {
    /// Appends a record, in pieces where it does not fit into the block.
    fn append(&mut self, mut record: &[u8]) -> io::Result<()> {
        let mut is_first = true;
        loop {
            if BLOCK - self.place < HEAD {
                self.out.write_all(&[0; HEAD][..BLOCK - self.place])?;
                self.place = 0;
            }
            let count = record.len().min(BLOCK - self.place - HEAD);
            let (piece, rest) = record.split_at(count);
            let kind = match (is_first, rest.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let mut checksum = Crc::new();
            checksum.update(&[kind]);
            checksum.update(piece);
            self.out.write_all(&checksum.sum().to_le_bytes())?;
            self.out.write_all(&(count as u16).to_le_bytes())?;
            self.out.write_all(&[kind])?;
            self.out.write_all(piece)?;
            self.place += HEAD + count;
            if rest.is_empty() {
                return Ok(());
            }
            (record, is_first) = (rest, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The records of a log, read by the rules of the format; panics at any breach.
    fn records(log: &[u8]) -> Vec<Vec<u8>> {
        assert_eq!(log[..HEAD], START);
        let (mut records, mut open) = (Vec::new(), None::<Vec<u8>>);
        for (number, block) in log.chunks(BLOCK).enumerate() {
            let mut rest = if number == 0 { &block[HEAD..] } else { block };
            while rest.len() >= HEAD {
                let (head, body) = rest.split_at(HEAD);
                let (piece, after) = body.split_at(usize::from(u16::from_le_bytes([head[4], head[5]])));
                let mut checksum = Crc::new();
                checksum.update(&head[6..]);
                checksum.update(piece);
                assert_eq!(checksum.sum().to_le_bytes(), head[..4]);
                match head[6] {
                    1 => records.push(piece.to_vec()),
                    2 => assert!(open.replace(piece.to_vec()).is_none()),
                    3 => open.as_mut().unwrap().extend(piece),
                    4 => {
                        let mut record = open.take().unwrap();
                        record.extend(piece);
                        records.push(record);
                    }
                    kind => panic!("a piece of kind {kind}"),
                }
                rest = after;
            }
            assert!(rest.iter().all(|byte| *byte == 0));
        }
        assert!(open.is_none());
        records
    }

    fn logged(records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = START.to_vec();
        let mut log = Log { out: &mut bytes, place: HEAD };
        records.iter().for_each(|record| log.append(record).unwrap());
        bytes
    }

    #[test]
    fn a_checksum_is_the_one_of_everybody() {
        let mut checksum = Crc::new();
        checksum.update(b"123456789");
        assert_eq!(checksum.sum(), 0xCBF4_3926);
        // python3: zlib.crc32(b"\x01abc").to_bytes(4, "little")
        assert_eq!(logged(&[b"abc".to_vec()])[HEAD..], *b"\xa9\x20\x9d\x53\x03\x00\x01abc");
    }

    #[test]
    fn records_of_every_length_are_read_as_they_were_written() {
        let first = BLOCK - 2 * HEAD;
        let around = (0..20).map(|less| first - less);
        for len in around.chain([0, 1, first + 1, BLOCK, 70_000, 3 * BLOCK]) {
            let written = vec![vec![7; len], vec![9; 5], vec![]];
            assert_eq!(records(&logged(&written)), written, "{len}");
        }
    }

    #[test]
    fn a_run_has_its_rows_summary_and_end() {
        let plan = Plan { run: "r1".to_owned(), project: "p".to_owned(), ..Plan::default() };
        let rows = [json!({ "_step": 0, "loss": 0.5 }), json!({ "_step": 300 })];
        let rows: Vec<_> = rows.iter().map(|row| row.as_object().unwrap().clone()).collect();
        let summary = json!({ "loss": 0.5 });
        let mut bytes = Vec::new();
        let run = Offline {
            plan: &plan,
            began: 1.5,
            rows: Box::new(rows.iter()),
            lines: &["a".to_owned()],
            summary: summary.as_object().unwrap(),
            exit: Some(7),
            files: vec!["a.json"],
        };
        write(run, &mut bytes).unwrap();
        let records = records(&bytes);
        assert_eq!(records.len(), 7);
        let row = b"\x08\x02\x12\x1f\x0a\x0b\x0a\x05_step\x82\x01\x010\x0a\x0c\x0a\x04loss\x82\x01\x030.5\x12\x02\x08\x00";
        assert_eq!(records[1], row);
        assert!(records[2].ends_with(b"\x12\x03\x08\xac\x02"));
        assert_eq!(records[5], b"\x08\x06\x32\x0a\x0a\x08\x0a\x06a.json");
        assert_eq!(records[6], b"\x08\x07\x92\x01\x02\x08\x07");
    }
}
