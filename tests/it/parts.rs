//! Work in parts leaves what `prepare` leaves, whatever the corpus, the parts, their order and how often they are tried.

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;

use ctxtune_engine::parts::{self, Means, Missing, PlanOrder, Work};
use ctxtune_engine::prepare::{Error, Mode, Options, Prepared, Purpose, Readers, prepare};
use ctxtune_engine::storage::NoStores;
use ctxtune_engine::watch::Unwatched;
use ctxtune_pipeline::config::PrepareChoices;
use ctxtune_pipeline::failure::Failure;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::json;

use crate::support::{Dir, assert_same_tree};

/// A record, or something that is none.
fn content(number: usize, kind: u8) -> String {
    let (agent, story) = (format!("Agent{}", number % 4), format!("Door {} opened.", number % 7));
    let context = json!({
        "agents_names": [agent],
        "socialized_context": [{ "timestep": "0", "state": "none", "observations": { &agent: "none" },
            "actions": { &agent: format!("opened door {number}") } }],
    });
    let record = json!({
        "story": story, "question": "Where?", "answer": "here", "topic": format!("topic {}", number % 3),
        "is_correct": number.is_multiple_of(3), "socialized_context": context,
    });
    match kind {
        0 => "{".to_owned(),
        1 => json!({ "story": story }).to_string(),
        2 => String::new(),
        // A story with something odd.
        3 => record.to_string().replace("Where?", "Where <|eot_id|>?"),
        _ => record.to_string(),
    }
}

fn chat_line(number: usize, kind: u8) -> String {
    match kind {
        0 => "{}".to_owned(),
        1 => json!({ "messages": [{ "role": "user", "content": "?" }] }).to_string(),
        _ => json!({ "topic": format!("topic {}", number % 3), "messages": [
            { "role": "user", "content": format!("question {}?", number % 9) },
            { "role": "assistant", "content": if kind == 2 { "<|x|>".to_owned() } else { format!("answer {number}") } },
        ] })
        .to_string(),
    }
}

/// What stands in the files of a corpus, and how they are prepared.
#[derive(Debug, Clone)]
struct Case {
    kinds: Vec<u8>,
    /// How each record is packed.
    places: Vec<u8>,
    chat: bool,
    val_ratio: &'static str,
    seed: u64,
    group_by: Option<&'static str>,
    shard_records: Option<u64>,
    limit: Option<u64>,
    compress: Option<&'static str>,
    mix: Option<&'static str>,
    max_rejects: &'static str,
    only_correct: bool,
    part_bytes: u64,
    pin: bool,
    order: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let records = (0usize..60).prop_flat_map(|count| {
        let kinds = prop_oneof![
            4 => proptest::collection::vec(3u8..40, count),
            1 => proptest::collection::vec(0u8..20, count),
            1 => proptest::collection::vec(0u8..3, count),
        ];
        (kinds, proptest::collection::vec(0u8..8, count))
    });
    let split = (
        prop_oneof![Just("0"), Just("0.1"), Just("0.2"), Just("0.25"), Just("0.3"), Just("0.5")],
        0u64..5,
        prop_oneof![3 => Just(None), 1 => Just(Some("story")), 1 => Just(Some("agents")), 1 => Just(Some("topic"))],
        prop_oneof![Just(None), (1u64..9).prop_map(Some)],
        prop_oneof![3 => Just(None), 1 => (1u64..30).prop_map(Some)],
        prop_oneof![3 => Just(None), 1 => Just(Some("3")), 1 => Just(Some("25%")), 1 => Just(Some("50"))],
    );
    let limits =
        (prop_oneof![4 => Just("100%"), 1 => Just("5%"), 1 => Just("3")], proptest::bool::weighted(0.2));
    let parts = (
        prop_oneof![Just(1u64), Just(700), Just(3000), Just(1 << 30)],
        any::<bool>(),
        any::<u64>(),
        proptest::bool::weighted(0.2),
        prop_oneof![4 => Just(None), 1 => Just(Some("zst")), 1 => Just(Some("gz"))],
    );
    (records, split, limits, parts).prop_map(
        |(
            (kinds, places),
            (val_ratio, seed, group_by, shard_records, limit, mix),
            (max_rejects, only_correct),
            (part_bytes, pin, order, chat, compress),
        )| {
            let group_by = if chat { group_by.map(|_| "topic") } else { group_by };
            let only_correct = only_correct && !chat;
            Case {
                kinds,
                places,
                chat,
                val_ratio,
                seed,
                group_by,
                shard_records,
                limit,
                compress,
                mix,
                max_rejects,
                only_correct,
                part_bytes,
                pin,
                order,
            }
        },
    )
}

impl Case {
    /// Writes the corpus: files in directories whose names sort badly, lines with blank ones between them, archives.
    fn write(&self, dir: &Dir) {
        std::fs::create_dir_all(dir.path("corpus/empty")).unwrap();
        let mut packed: [Vec<(usize, String)>; 4] = Default::default();
        for (number, (kind, place)) in self.kinds.iter().zip(&self.places).enumerate() {
            let text = if self.chat { chat_line(number, *kind) } else { content(number, *kind) };
            match place {
                0 => drop(dir.write(format!("corpus/a/{number}.json"), text)),
                1 => drop(dir.write(format!("corpus/a-b/{number}.json"), text)),
                2 => drop(dir.write(format!("corpus/a.c/\u{e9} \"{number}\"\t.json"), text)),
                3 => drop(dir.write(format!("corpus/{number}.json"), text)),
                _ => packed[usize::from(*place) - 4].push((number, text)),
            }
        }
        let [plain, gz, zst, members] = packed;
        let lines = |records: &[(usize, String)], end: &str| -> Vec<u8> {
            let lines: Vec<&str> = records.iter().map(|(_, text)| text.as_str()).collect();
            [lines.join(&format!("{end}\n{end}")).as_bytes(), end.as_bytes()].concat()
        };
        dir.write("corpus/plain.jsonl", lines(&plain, "\n"));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&lines(&gz, "\r\n")).unwrap();
        dir.write("corpus/more.jsonl.gz", encoder.finish().unwrap());
        dir.write("corpus/a/other.ndjson.zst", zstd::encode_all(&lines(&zst, "\n")[..], 1).unwrap());
        let mut builder = tar::Builder::new(Vec::new());
        for (number, text) in &members {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, format!("./{number}/x.json"), text.as_bytes()).unwrap();
        }
        dir.write("corpus/packed.tar", builder.into_inner().unwrap());
        let general: Vec<String> = (0..30).map(|number| chat_line(number, (number % 7) as u8)).collect();
        dir.write("general.jsonl", general.join("\n"));
    }

    fn options(&self, dir: &Dir, out: &str) -> Options {
        let mix = self.mix.map(|amount| format!("{}={amount}", dir.path("general.jsonl").display()));
        let choices = PrepareChoices {
            sources: vec![dir.path("corpus")],
            containers: true,
            output_dir: Some(dir.path(out)),
            val_ratio: Some(self.val_ratio.parse().unwrap()),
            seed: Some(self.seed),
            group_by: self.group_by.map(|by| by.parse().unwrap()),
            shard_records: self.shard_records.map(|records| records.try_into().unwrap()),
            compress: self.compress.map(|compress| compress.parse().unwrap()),
            limit: self.limit.map(|limit| limit.try_into().unwrap()),
            mix: mix.iter().map(|mix| mix.parse().unwrap()).collect(),
            chat: self.chat,
            max_rejects: Some(self.max_rejects.parse().unwrap()),
            only_correct: self.only_correct,
            no_sync: true,
            ..PrepareChoices::default()
        };
        let purpose = Purpose { mode: Mode::Publish, show: 0, name_rejects: 5 };
        choices.resolve(purpose, NonZeroUsize::new(2).unwrap()).unwrap()
    }

    /// The numbers below `count` in an order that the case decides, some of them twice.
    fn order(&self, count: u64) -> Vec<u64> {
        let mut numbers: Vec<u64> =
            (0..count).chain((0..count).filter(|number| number % 3 == self.order % 3)).collect();
        numbers.sort_by_key(|number| ctxtune_engine::split::rank(self.order, &number.to_le_bytes()));
        numbers
    }

    /// Prepares in parts, step by step.
    fn prepare_in_parts(&self, dir: &Dir, out: &str) -> Result<Prepared, Error> {
        let options = self.options(dir, out);
        let work = Work::local(&dir.path(format!("{out}.work")));
        let means = means();
        let order = PlanOrder {
            options: &options,
            part_bytes: Some(self.part_bytes),
            pin: self.pin,
            scratch: None,
            stores: &NoStores,
            asked: "",
        };
        let plan = parts::plan_anew(&order, &work, &Unwatched)?;
        assert_eq!(parts::plan_anew(&order, &work, &Unwatched)?.id, plan.id);
        let mut lines = vec![None; plan.body.parts as usize];
        for part in self.order(plan.body.parts) {
            let line = parts::convert(&work, &plan, part, &means, &Unwatched)?.unwrap().line;
            assert_eq!(*lines[part as usize].get_or_insert(line.clone()), line);
        }
        assert!(parts::missing(&work, &plan, Missing::Parts)?.is_empty());
        let split = parts::split(&work, &plan, &means, &Unwatched)?.unwrap();
        assert_eq!(parts::split(&work, &plan, &means, &Unwatched)?.unwrap().line, split.line);
        assert_eq!(parts::missing(&work, &plan, Missing::Shards)?.len() as u64, split.content.shards);
        for shard in self.order(split.content.shards) {
            parts::write(&work, &plan, shard, &means, &Unwatched)?;
        }
        let prepared = parts::publish(&work, &plan, &means, &Unwatched)?.unwrap();
        assert!(!dir.exists(format!("{out}.work")), "WORK goes");
        Ok(prepared)
    }
}

fn means() -> Means {
    Means {
        threads: NonZeroUsize::new(2).unwrap(),
        scratch: None,
        name_rejects: 5,
        readers: Readers::default(),
        stores: Arc::new(NoStores),
    }
}

/// What a summary says of a run.
fn said(prepared: &Prepared) -> String {
    let mut said = format!("{:?} {} {}", prepared.counts, prepared.train_records, prepared.val_records);
    said +=
        &format!("{:?} {:?} {:?} {:?}", prepared.leakage, prepared.grouping, prepared.mix, prepared.rejects);
    for log in [&prepared.not_read, &prepared.warned] {
        let mut all = Vec::new();
        log.all(|kind, key| {
            all.push(format!("{} {kind}", key.escape_ascii()));
            Ok(())
        })
        .unwrap();
        all.sort();
        said += &all.join("\n");
        said += &format!("\n{:?}", log.by_kind().collect::<Vec<_>>());
    }
    said
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let dir = Dir::new();
    case.write(&dir);
    let whole = prepare(&case.options(&dir, "whole"), &Unwatched);
    let parts = case.prepare_in_parts(&dir, "parts");
    match (&whole, &parts) {
        (Ok(whole), Ok(parts)) => prop_assert_eq!(said(parts), said(whole)),
        (Err(_), Err(_)) => {}
        _ => prop_assert!(false, "{:?} and {:?}", whole.err(), parts.err()),
    }
    let trees = ["parts", "whole"].map(|name| if dir.exists(name) { dir.tree(name) } else { Vec::new() });
    assert_same_tree(&trees[0], &trees[1], "in parts");
    if let (Err(whole), Err(parts)) = (whole, parts) {
        let (whole, parts) = (Failure::from(whole), Failure::from(parts));
        prop_assert_eq!(
            (parts.exit, parts.code),
            (whole.exit, whole.code),
            "{} | {}",
            parts.message,
            whole.message
        );
        if ["rejects", "empty_side", "mix"].contains(&whole.code) {
            prop_assert_eq!(parts.message, whole.message);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_parts_in_any_order_leave_what_prepare_leaves(case in cases()) {
        check(&case)?;
    }
}
