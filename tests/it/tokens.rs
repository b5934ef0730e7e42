//! Counted tokens against those of the libraries that models are trained with.
//!
//! The tokenizers are Meta's own, from the Python package `llama-models`, and what tests/it/tokens.py makes; without
//! that package these tests skip.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use ctxtune_tokens::{Tokenizer, read};

use crate::real_data::corpus;
use crate::support::{Dir, Rehearsal, python, repository, skip};

const TEXTS: usize = 10_000;

/// Lets the oracles speak into `dir`, and gives Meta's file.
fn meta_model(dir: &Dir, texts: usize) -> Option<PathBuf> {
    let mut probe = python()?;
    let probe = probe.args(["-c", "import llama_models, tiktoken, tokenizers"]).output().unwrap();
    if !probe.status.success() {
        skip("python", "this Python has no `llama-models`, `tiktoken` or `tokenizers`");
        return None;
    }
    let script = repository("tests/it/tokens.py");
    let run = python()?.arg(script).arg(dir.path("")).arg(texts.to_string()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    Some(String::from_utf8(run.stdout).unwrap().trim_end().into())
}

#[test]
fn the_bound_is_never_below_and_a_models_own_tokenizer_is_exact() {
    let dir = Dir::new();
    let Some(model) = meta_model(&dir, TEXTS) else { return };
    let meta = read(&model).unwrap();
    let llama = read(&dir.path("llama.json")).unwrap();
    assert!(meta.has_llama_3_vocabulary() && llama.has_llama_3_vocabulary());
    let exact = [
        ("meta", meta),
        ("llama", llama),
        ("qwen", read(&dir.path("qwen.json")).unwrap()),
        ("gpt2", read(&dir.path("gpt2.json")).unwrap()),
    ];
    assert!(!exact[2].1.has_llama_3_vocabulary());
    let bound = Tokenizer::bound();
    let (mut compared, mut young) = (0, 0);
    for line in dir.read("counts.jsonl").lines() {
        let counts: Value = serde_json::from_str(line).unwrap();
        let text = counts["text"].as_str().unwrap();
        let at_most = bound.count(text).tokens;
        for (name, tokenizer) in &exact {
            let count = tokenizer.count(text);
            let expected = counts[name].as_u64().unwrap();
            assert_eq!(tokenizer.ends(text).len() as u64, count.tokens, "{name}: {text:?}");
            // Only letters that are younger than the oracle may make a difference, and then it is said.
            if counts["is_assigned"] == true || !count.is_about {
                assert_eq!(count.tokens, expected, "{name}: {text:?}");
                compared += 1;
            }
            young += usize::from(count.is_about);
            if ["meta", "llama"].contains(name) {
                assert!(at_most >= expected, "{at_most} < {expected}: {text:?}");
            }
        }
    }
    assert!(compared > TEXTS && young > TEXTS / 2, "{compared} {young}");
}

#[test]
fn cl100ks_ranks_are_the_first_of_metas() {
    let dir = Dir::new();
    let Some(model) = meta_model(&dir, 1) else { return };
    let (meta, bound) = (read(&model).unwrap(), Tokenizer::bound());
    assert_eq!((bound.tokens().len(), meta.tokens().len()), (100_256, 128_000));
    assert!(bound.tokens().zip(meta.tokens()).all(|(ours, theirs)| ours == theirs));
    let known: BTreeSet<&[u8]> = bound.tokens().collect();
    assert!(meta.tokens().skip(100_256).all(|token| !known.contains(token)));
}

/// JSON as Python's `json.dumps` writes it.
fn dumps(value: &Value) -> String {
    struct Python;
    impl serde_json::ser::Formatter for Python {
        fn begin_array_value<W: ?Sized + std::io::Write>(
            &mut self,
            out: &mut W,
            is_first: bool,
        ) -> std::io::Result<()> {
            if is_first { Ok(()) } else { out.write_all(b", ") }
        }

        fn begin_object_key<W: ?Sized + std::io::Write>(
            &mut self,
            out: &mut W,
            is_first: bool,
        ) -> std::io::Result<()> {
            self.begin_array_value(out, is_first)
        }

        fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
            out.write_all(b": ")
        }
    }
    let mut text = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Python)).unwrap();
    String::from_utf8(text).unwrap()
}

/// The text: the user's message of the built-in template (`ctxtune prepare`), and each record's whole
/// `socialized_context`, its manual included, as `json.dumps` writes it.
#[test]
fn the_totals_of_the_real_records_are_those_that_were_measured() {
    let Some(corpus) = corpus() else { return };
    let dir = Dir::new();
    let Some(model) = meta_model(&dir, 1) else { return };
    dir.ctxtune(["prepare", corpus.to_str().unwrap(), "-o", "out", "--no-sync"]).expect(0);
    let mut texts: Vec<String> = Vec::new();
    for side in ["out/train.jsonl", "out/val.jsonl"] {
        for line in dir.read(side).lines() {
            let sample: Value = serde_json::from_str(line).unwrap();
            texts.push(sample["messages"][1]["content"].as_str().unwrap().to_owned());
        }
    }
    let contexts = std::fs::read_dir(corpus).unwrap().map(|entry| {
        let record: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        dumps(&record["socialized_context"])
    });
    texts.extend(contexts);
    let total = |tokenizer: &Tokenizer| texts.iter().map(|text| tokenizer.count(text).tokens).sum::<u64>();
    assert_eq!(texts.iter().map(String::len).sum::<usize>(), 24_093_917);
    assert_eq!(
        (total(&Tokenizer::bound()), total(&read(Path::new(&model)).unwrap())),
        (6_103_651, 6_103_355)
    );
}

#[test]
fn what_data_costs_is_said_before_its_upload_at_the_last_rate_of_the_model() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(20);
    rehearsal.dir.prepare(&[]).expect(0);
    let first = rehearsal.ctxtune(["submit", "out", "--yes"]).expect(0).stderr;
    assert!(first.contains("tokens over 3 epochs and 3 evaluations\n"), "{first}");
    let second = rehearsal.ctxtune(["submit", "out", "--yes", "--n-epochs=1"]).expect(0).stderr;
    let said = second.lines().find(|line| line.contains("at the rate seen on 20")).unwrap();
    assert!(said.contains("at most ") && said.contains("over 1 epoch and 1 evaluation: about $"), "{said}");
    let full = rehearsal.ctxtune(["submit", "out", "--yes", "--lora=false"]).stderr;
    assert!(!full.contains("at the rate"), "an adapter's rate is not that of all weights: {full}");
}
