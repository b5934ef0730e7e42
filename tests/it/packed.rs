//! Containers as sources: the same records give the same bytes however they are packed.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Dir, Outcome, record};

const RECORDS: usize = 40;

/// The corpus as lines, in the order of their numbers.
fn lines() -> String {
    (0..RECORDS).map(|number| format!("{}\n", record(number))).collect()
}

/// An archive of `members`, as `tar` would write it.
fn tar_of<'m>(members: impl IntoIterator<Item = (&'m str, Vec<u8>)>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn corpus_tar(prefix: &str) -> Vec<u8> {
    let names: Vec<String> = (0..RECORDS).map(|number| format!("{prefix}{number}.json")).collect();
    tar_of(
        names
            .iter()
            .enumerate()
            .map(|(number, name)| (name.as_str(), record(number).to_string().into_bytes())),
    )
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn prepare(dir: &Dir, sources: &[&str], out: &str) -> Outcome {
    dir.ctxtune(["prepare"].iter().chain(sources).chain(&["-o", out, "--no-sync"]))
}

#[track_caller]
fn assert_same(dir: &Dir, one: &str, other: &str) {
    assert!(dir.tree(one) == dir.tree(other), "{one} and {other} differ");
}

#[test]
fn an_archive_gives_the_bytes_of_its_directory() {
    let dir = Dir::new();
    dir.corpus(RECORDS);
    prepare(&dir, &["corpus"], "directory").expect(0);
    let plain = corpus_tar("./");
    for (name, bytes) in [("a.tar", plain.clone()), ("b.tar.gz", gzip(&plain)), ("c.tar.zst", zstd(&plain))] {
        dir.write(name, bytes);
        prepare(&dir, &[name], name.split('.').next().unwrap()).expect(0);
        assert_same(&dir, "directory", name.split('.').next().unwrap());
    }
}

#[test]
fn lines_give_the_same_bytes_however_they_come() {
    let dir = Dir::new();
    dir.write("plain.jsonl", lines());
    prepare(&dir, &["plain.jsonl"], "plain").expect(0);
    assert_eq!(dir.read("plain/keys.tsv").matches("\"#").count(), RECORDS);
    let spaced = format!("\n \r\n{}", lines().replace('\n', "\r\n\n"));
    let others = [
        ("x.ndjson", spaced.into_bytes()),
        ("y.jsonl.gz", gzip(lines().as_bytes())),
        ("z.jsonl.zst", zstd(lines().as_bytes())),
    ];
    for (name, bytes) in others {
        dir.write(name, bytes);
        prepare(&dir, &[name], "other").expect(0);
        assert_same(&dir, "plain", "other");
    }
    let mut child = dir.command(["prepare", "-", "-o", "stdin", "--no-sync"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_same(&dir, "plain", "stdin");
}

#[test]
fn several_members_or_frames_are_one_stream() {
    let dir = Dir::new();
    let text = lines();
    let (first, second) = text.split_at(text.find('\n').unwrap() + 1);
    dir.write("plain.jsonl", lines());
    dir.write("two.jsonl.gz", [gzip(first.as_bytes()), gzip(second.as_bytes())].concat());
    dir.write("two.jsonl.zst", [zstd(first.as_bytes()), zstd(second.as_bytes())].concat());
    prepare(&dir, &["plain.jsonl"], "plain").expect(0);
    for name in ["two.jsonl.gz", "two.jsonl.zst"] {
        prepare(&dir, &[name], "two").expect(0);
        assert_same(&dir, "plain", "two");
    }
}

#[test]
fn with_several_sources_each_key_begins_with_its_source() {
    let dir = Dir::new();
    dir.corpus(3);
    dir.write("more.jsonl.gz", gzip(lines().as_bytes()));
    dir.write("old.tar", corpus_tar("d/"));
    prepare(&dir, &["corpus", "more.jsonl.gz", "old.tar"], "out").expect(0);
    let keys = dir.read("out/keys.tsv");
    for key in ["\"corpus/0.json\"", "\"more.jsonl/#39\"", "\"old.tar/d/7.json\""] {
        assert!(keys.contains(key), "{key} in {keys}");
    }
}

#[test]
fn equal_keys_are_refused_by_name() {
    let dir = Dir::new();
    dir.write("a/c.jsonl", lines());
    dir.write("b/c.jsonl", lines());
    let outcome = prepare(&dir, &["a/c.jsonl", "b/c.jsonl"], "out").expect(3);
    for part in ["\"c.jsonl/#", "a/c.jsonl at byte", "b/c.jsonl at byte"] {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
    let twice = tar_of([("x.json", b"{}".to_vec()), ("x.json", b"{}".to_vec())]);
    dir.write("twice.tar", twice);
    assert!(prepare(&dir, &["twice.tar"], "out").expect(3).stderr.contains("\"x.json\" is there twice"));
}

#[test]
fn a_cut_container_fails_the_run_and_names_the_byte() {
    let dir = Dir::new();
    let (tar, text) = (corpus_tar(""), lines());
    let containers = [
        ("a.tar", tar.clone()),
        ("b.tar.gz", gzip(&tar)),
        ("c.tar.zst", zstd(&tar)),
        ("d.jsonl.gz", gzip(text.as_bytes())),
        ("e.jsonl.zst", zstd(text.as_bytes())),
    ];
    for (name, bytes) in containers {
        for keep in [bytes.len() / 3, bytes.len() - bytes.len() / 10 - 5] {
            dir.write(name, &bytes[..keep]);
            let outcome = prepare(&dir, &[name], "out").expect(3);
            assert!(outcome.stderr.contains(&format!("`{name}` is damaged at byte")), "{}", outcome.stderr);
            assert!(!dir.exists("out"));
        }
    }
}

#[test]
fn a_flipped_bit_in_a_compressed_container_is_found() {
    let dir = Dir::new();
    let mut bytes = gzip(lines().as_bytes());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    dir.write("x.jsonl.gz", bytes);
    assert!(prepare(&dir, &["x.jsonl.gz"], "out").expect(3).stderr.contains("damaged at byte"));
}

#[test]
fn a_decompression_bomb_stops_at_the_limit() {
    let dir = Dir::new();
    dir.write("bomb.jsonl.zst", zstd(&vec![b' '; 50 << 20]));
    let outcome =
        dir.ctxtune(["prepare", "bomb.jsonl.zst", "-o", "out", "--max-spool-bytes", "1MiB"]).expect(3);
    assert!(outcome.stderr.contains("unpacks to more than 1048576 bytes"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("--max-spool-bytes"), "{}", outcome.stderr);
    assert!(!dir.exists("out"));
}

#[test]
fn hostile_members_are_rejected_by_name_and_never_extracted() {
    let dir = Dir::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut member = |name: &[u8], entry_type: tar::EntryType, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(entry_type);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    };
    let good = record(1).to_string();
    for number in 0..9 {
        member(format!("good{number}.json").as_bytes(), tar::EntryType::Regular, good.as_bytes());
    }
    member(b"../climbs.json", tar::EntryType::Regular, good.as_bytes());
    member(b"/tmp/absolute.json", tar::EntryType::Regular, good.as_bytes());
    member(b"link.json", tar::EntryType::Symlink, b"");
    member(b"device.json", tar::EntryType::Block, b"");
    dir.write("sub/hostile.tar", builder.into_inner().unwrap());
    let before = dir.tree("sub").len();
    dir.ctxtune(["prepare", "sub/hostile.tar", "-o", "out", "--max-rejects", "4"]).expect(0);
    let rejects = dir.read("out/rejects.jsonl");
    for key in ["../climbs.json", "/tmp/absolute.json", "link.json", "device.json"] {
        assert!(
            rejects.contains(&format!("{{\"key\":\"{key}\",\"code\":\"hostile_member\"")),
            "{key}: {rejects}"
        );
    }
    assert_eq!(rejects.lines().count(), 4);
    assert_eq!(dir.tree("sub").len(), before);
    assert!(!dir.exists("climbs.json") && !dir.exists("sub/climbs.json"));
}

#[test]
fn hidden_members_are_passed_over_and_hostile_ones_stay_rejects() {
    let dir = Dir::new();
    dir.corpus(RECORDS);
    prepare(&dir, &["corpus"], "directory").expect(0);
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    for number in 0..RECORDS {
        // As macOS packs a directory.
        members.push((format!("./._{number}.json"), b"Mac OS X".to_vec()));
        members.push((format!("./{number}.json"), record(number).to_string().into_bytes()));
    }
    for name in ["./.git/0.json", "__MACOSX/._x.json", "a/__MACOSX/0.json", "notes.txt", ".gitignore"] {
        members.push((name.to_owned(), record(0).to_string().into_bytes()));
    }
    dir.write("a.tar", tar_of(members.iter().map(|(name, content)| (name.as_str(), content.clone()))));
    let run = dir.ctxtune(["prepare", "a.tar", "-o", "out", "--no-sync", "--json", "--strict"]).expect(0);
    assert_same(&dir, "directory", "out");
    let by_kind = serde_json::json!({ "hidden": RECORDS + 4, "other ending": 1 });
    assert_eq!(run.json()["not_read_by_kind"], by_kind);
    assert_eq!(run.json()["not_read"][0], serde_json::json!({ "key": "._0.json", "kind": "hidden" }));
}

#[test]
fn bad_lines_are_rejected_with_their_number() {
    let dir = Dir::new();
    dir.write("x.jsonl", format!("{}\n\n{{\"cut\": \n{}\n", lines().trim_end(), record(77)));
    dir.ctxtune(["prepare", "x.jsonl", "-o", "out", "--max-rejects", "1"]).expect(0);
    let rejects = dir.read("out/rejects.jsonl");
    assert!(rejects.starts_with(&format!("{{\"key\":\"#{RECORDS}\",\"code\":\"json_syntax\"")), "{rejects}");
}

#[test]
fn files_from_names_records_and_sources() {
    let dir = Dir::new();
    dir.corpus(RECORDS);
    prepare(&dir, &["corpus"], "directory").expect(0);
    for (separator, list) in [("\n", "lines.txt"), ("\0", "nul.txt")] {
        let names: Vec<String> = (0..RECORDS).rev().map(|number| format!("./{number}.json")).collect();
        dir.write(format!("corpus/{list}"), names.join(separator));
        let mut command = dir.command(["prepare", "--files-from", list, "-o", "../listed", "--no-sync"]);
        command.current_dir(dir.path("corpus"));
        Outcome::of(command).expect(0);
        assert_same(&dir, "directory", "listed");
    }
    dir.write("more.jsonl", lines());
    dir.write("both.txt", "corpus\r\nmore.jsonl\n");
    prepare(&dir, &["--files-from", "both.txt"], "both").expect(0);
    assert!(dir.read("both/keys.tsv").contains("\"more.jsonl/#0\""));
}

#[test]
fn what_is_no_source_is_a_usage_error() {
    let dir = Dir::new();
    dir.write("notes.txt", "hello");
    assert!(prepare(&dir, &["notes.txt"], "out").expect(2).stderr.contains("`notes.txt` is no directory"));
    dir.write("empty.txt", "");
    assert!(prepare(&dir, &["--files-from", "empty.txt"], "out").expect(2).stderr.contains("no corpus"));
    let twice = dir.ctxtune(["prepare", "-", "--files-from", "-", "-o", "out"]).expect(2);
    assert!(twice.stderr.contains("standard input can be read once only"), "{}", twice.stderr);
    assert!(!dir.exists("out"));
}

#[test]
fn an_oversized_line_is_rejected_and_its_neighbours_convert() {
    let dir = Dir::new();
    let long = format!("{{\"story\": \"{}\"}}\n", "x".repeat(5000));
    dir.write("x.jsonl", format!("{}{long}{}\n", lines(), record(99)));
    let arguments = ["prepare", "x.jsonl", "-o", "out", "--max-record-bytes", "4000", "--max-rejects", "1"];
    dir.ctxtune(arguments).expect(0);
    assert!(dir.read("out/rejects.jsonl").contains("too_large"));
    assert_eq!(dir.read("out/keys.tsv").lines().count(), RECORDS + 2);
}
