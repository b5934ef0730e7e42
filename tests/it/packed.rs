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
fn sources_of_one_base_name_are_told_apart_by_their_directories() {
    let dir = Dir::new();
    for name in ["a/x/c.jsonl", "b/x/c.jsonl", "b/y/c.jsonl"] {
        dir.write(name, lines());
    }
    dir.write("b/y/d.jsonl", lines());
    let sources = ["a/x/c.jsonl", "b/x/c.jsonl", "./b/../b/y/c.jsonl", "b/y/d.jsonl"];
    prepare(&dir, &sources, "out").expect(0);
    let keys = dir.read("out/keys.tsv");
    for prefix in ["a/x/c.jsonl", "b/x/c.jsonl", "y/c.jsonl", "d.jsonl"] {
        assert_eq!(keys.matches(&format!("\t\"{prefix}/#")).count(), RECORDS, "{prefix}: {keys}");
    }
    // The same from elsewhere: no path that is not needed decides a key.
    let mut command = dir.command(["prepare", "c.jsonl", "../x/c.jsonl", "../../a/x/c.jsonl", "d.jsonl"]);
    command.args(["-o", "../../again", "--no-sync"]).current_dir(dir.path("b/y"));
    Outcome::of(command).expect(0);
    assert_same(&dir, "out", "again");
}

#[test]
fn equal_keys_are_refused_by_name() {
    let dir = Dir::new();
    dir.write("a/c.jsonl", lines());
    dir.write("a/c.jsonl.gz", gzip(lines().as_bytes()));
    let outcome = prepare(&dir, &["a/c.jsonl", "a/c.jsonl.gz"], "out").expect(3);
    for part in ["c.jsonl/#", "a/c.jsonl at byte", "a/c.jsonl.gz at byte"] {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
    prepare(&dir, &["a/c.jsonl", "a/c.jsonl"], "out").expect(3);
    let twice = tar_of([("x.json", b"{}".to_vec()), ("x.json", b"{}".to_vec())]);
    dir.write("twice.tar", twice);
    assert!(prepare(&dir, &["twice.tar"], "out").expect(3).stderr.contains("\"x.json\" is there twice"));
}

/// A directory `mixed` of records and containers: 2 records, 40 in each of six containers.
fn mixed() -> Dir {
    let dir = Dir::new();
    let tar = corpus_tar("./t/");
    dir.write("mixed/0.json", record(0).to_string());
    dir.write("mixed/sub/1.json", record(1).to_string());
    dir.write("mixed/x.jsonl", lines());
    dir.write("mixed/sub/x.ndjson.gz", gzip(lines().as_bytes()));
    dir.write("mixed/sub/y.jsonl.zst", zstd(lines().as_bytes()));
    dir.write("mixed/a.tar", &tar);
    dir.write("mixed/sub/a.tgz", gzip(&tar));
    dir.write("mixed/sub/b.tzst", zstd(&tar));
    // Never read: hidden, and inside of no directory of containers.
    dir.write("mixed/.z.jsonl", "{");
    dir.write("mixed/sub/__MACOSX/z.jsonl", "{");
    dir
}

const MIXED: [&str; 8] = [
    "0.json",
    "sub/1.json",
    "x.jsonl/#0",
    "sub/x.ndjson/#7",
    "sub/y.jsonl/#39",
    "a.tar/t/7.json",
    "sub/a.tar/t/39.json",
    "sub/b.tar/t/0.json",
];

#[test]
fn containers_in_a_directory_are_read_on_request() {
    let dir = mixed();
    let run = dir.ctxtune(["prepare", "mixed", "-o", "without", "--no-sync", "--json"]).expect(0);
    assert_eq!(run.json()["counts"]["listed"], 2);
    let by_kind = serde_json::json!({ "container": 6, "hidden": 2 });
    assert_eq!(run.json()["not_read_by_kind"], by_kind);
    assert!(run.stderr.contains("--containers"), "{}", run.stderr);

    let flags = ["mixed", "-o", "out", "--no-sync", "--containers", "--strict", "--json"];
    let run = dir.ctxtune(["prepare"].iter().chain(&flags)).expect(0);
    assert_eq!(run.json()["counts"]["listed"], 2 + 6 * RECORDS);
    assert_eq!(run.json()["not_read_by_kind"], serde_json::json!({ "hidden": 2 }));
    let keys = dir.read("out/keys.tsv");
    for key in MIXED {
        assert!(keys.contains(&format!("\"{key}\"\n")), "{key} in {keys}");
    }

    dir.write("config.yaml", "data_dir: mixed\ncontainers: true\n");
    dir.ctxtune(["prepare", "--config", "config.yaml", "-o", "by_file", "--no-sync"]).expect(0);
    assert_same(&dir, "out", "by_file");
}

#[test]
fn containers_have_the_keys_that_they_have_as_several_sources() {
    let dir = mixed();
    for name in ["0.json", "sub/1.json"] {
        std::fs::remove_file(dir.path("mixed").join(name)).unwrap();
    }
    prepare(&dir, &["mixed/sub", "--containers"], "directory").expect(0);
    let sources = ["mixed/sub/b.tzst", "mixed/sub/x.ndjson.gz", "mixed/sub/a.tgz", "mixed/sub/y.jsonl.zst"];
    prepare(&dir, &sources, "sources").expect(0);
    assert_same(&dir, "directory", "sources");
}

#[test]
fn an_output_directory_among_the_containers_is_not_read() {
    let dir = mixed();
    for round in ["first", "again"] {
        let run = prepare(&dir, &["mixed", "--containers", "--json"], "mixed/out").expect(0);
        assert_eq!(run.json()["counts"]["listed"], 2 + 6 * RECORDS, "{round}");
    }
}

#[cfg(unix)]
#[test]
fn there_may_be_more_containers_than_a_process_may_have_files_open() {
    let dir = Dir::new();
    for number in 0..150 {
        dir.write(format!("many/{number}.jsonl"), format!("{}\n", record(number)));
        dir.write(format!("many/{number}.ndjson.gz"), gzip(record(number).to_string().as_bytes()));
    }
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -n 96 && exec \"$@\"", "sh", crate::support::program()]);
    shell.args(["prepare", "many", "--containers", "-o", "out", "--no-sync"]).current_dir(dir.path(""));
    Outcome::of(shell).expect(0);
    assert_eq!(dir.manifest()["counts"]["accepted"], 300);
    for row in dir.key_rows() {
        let number: usize = row.key.split('.').next().unwrap().parse().unwrap();
        assert!(dir.texts(&row.key)[1].contains(&format!("door {number}.")), "{}", row.key);
    }
}

#[test]
fn every_command_that_reads_records_reads_containers() {
    let dir = mixed();
    let run = dir.ctxtune(["score", "mixed", "mixed", "--containers", "--json", "-q"]).expect(0);
    assert_eq!(run.json()["gold"]["references"], 2 + 6 * RECORDS);
    let run =
        dir.ctxtune(["rehearse", "mixed", "--containers", "-o", "out", "--job-seconds", "0.3"]).expect(0);
    assert!(run.stderr.contains(&format!("{} records in mixed", 2 + 6 * RECORDS)), "{}", run.stderr);
}

#[test]
fn short_names_of_compressed_archives_are_archives() {
    let dir = Dir::new();
    let plain = corpus_tar("./");
    dir.write("a.tar", &plain);
    prepare(&dir, &["a.tar"], "plain").expect(0);
    for (name, bytes) in [("a.tgz", gzip(&plain)), ("a.tzst", zstd(&plain))] {
        dir.write(name, bytes);
        prepare(&dir, &[name], "short").expect(0);
        assert_same(&dir, "plain", "short");
    }
}

#[test]
fn zeros_behind_gzip_are_padding_and_anything_else_is_damage() {
    let dir = Dir::new();
    dir.write("plain.jsonl", lines());
    prepare(&dir, &["plain.jsonl"], "plain").expect(0);
    let packed = gzip(lines().as_bytes());
    dir.write("x.jsonl.gz", [&packed[..], &[0; 10_240]].concat());
    prepare(&dir, &["x.jsonl.gz"], "padded").expect(0);
    assert_same(&dir, "plain", "padded");
    dir.write("x.jsonl.gz", [&packed[..], &[0; 512], &packed].concat());
    assert!(prepare(&dir, &["x.jsonl.gz"], "out").expect(3).stderr.contains("is damaged at byte"));
}

/// Runs `script` in `dir`; `false` (and a word) where a tool that it needs is not here.
fn run_script(dir: &Dir, tools: &[&str], script: &str) -> bool {
    for tool in tools {
        let found = std::process::Command::new(tool).arg("--version").output();
        let is_gnu =
            |output: &std::process::Output| *tool != "tar" || output.stdout.starts_with(b"tar (GNU tar)");
        if !found.is_ok_and(|output| output.status.success() && is_gnu(&output)) {
            crate::support::skip(tool, &format!("{tool} is not here"));
            return false;
        }
    }
    let mut shell = std::process::Command::new("sh");
    shell.args(["-ec", script]).current_dir(dir.path(""));
    Outcome::of(shell).expect(0);
    true
}

/// The command in the reason for refusing `key`.
fn command_for(dir: &Dir, key: &str) -> String {
    let rejects = dir.json_lines("out/rejects.jsonl");
    let reject = rejects.iter().find(|reject| reject["key"] == key).unwrap();
    assert_eq!(reject["code"], "hostile_member");
    reject["reason"].as_str().unwrap().split('`').nth(1).unwrap().to_owned()
}

#[test]
fn a_sparse_member_is_refused_with_the_command_that_packs_it_again() {
    for format in ["gnu", "posix", "posix --sparse-version=0.1"] {
        let dir = Dir::new();
        dir.corpus(RECORDS);
        // Blanks behind a record, most of them holes: they read as NUL bytes, so the record is a reject.
        let pack = format!(
            "cp corpus/3.json tail; truncate -s 3M corpus/3.json; cat tail >> corpus/3.json
             for n in 1 2 3 4 5 6 7 8 9; do truncate -s +1M corpus/3.json; cat tail >> corpus/3.json; done
             tar --sparse --format={format} -C corpus -cf sparse.tar ."
        );
        if !run_script(&dir, &["tar"], &pack) {
            return;
        }
        let run = ["prepare", "sparse.tar", "-o", "out", "--no-sync", "--max-rejects", "1"];
        dir.ctxtune(run).expect(0);
        assert_eq!(dir.manifest()["counts"]["listed"], RECORDS, "{format}");
        let command = command_for(&dir, "3.json").replace("ARCHIVE", "sparse.tar");
        assert!(run_script(&dir, &["tar"], &command));
        prepare(&dir, &["NEW.tar", "--max-rejects", "1"], "packed").expect(0);
        prepare(&dir, &["corpus", "--max-rejects", "1"], "directory").expect(0);
        assert_same(&dir, "packed", "directory");
    }
}

#[test]
fn a_hard_link_is_read_where_the_archive_has_its_target() {
    let dir = Dir::new();
    dir.corpus(RECORDS);
    let pack = "for n in 3 17 20; do rm corpus/$n.json; ln corpus/2.json corpus/$n.json; done
        tar --sort=name -C corpus -cf whole.tar .
        tar -C corpus -cf cut.tar $(cd corpus && ls *.json) && tar --delete -f cut.tar 17.json";
    if !run_script(&dir, &["tar"], pack) {
        return;
    }
    prepare(&dir, &["corpus"], "directory").expect(0);
    prepare(&dir, &["whole.tar"], "whole").expect(0);
    assert_same(&dir, "directory", "whole");

    // `17.json` was the first of the four, and is gone.
    let run = ["prepare", "cut.tar", "-o", "out", "--no-sync", "--max-rejects", "3"];
    dir.ctxtune(run).expect(0);
    std::fs::remove_file(dir.path("corpus/17.json")).unwrap();
    assert_eq!(dir.json_lines("out/rejects.jsonl").len(), 3);
    let command = command_for(&dir, "20.json").replace("DIRECTORY", "corpus");
    assert!(run_script(&dir, &["tar"], &command));
    prepare(&dir, &["NEW.tar", "--strict"], "packed").expect(0);
    prepare(&dir, &["corpus", "--strict"], "directory").expect(0);
    assert_same(&dir, "packed", "directory");
}

#[test]
fn zstd_with_a_dictionary_is_named_with_the_command_that_unpacks_it() {
    let dir = Dir::new();
    dir.corpus(200);
    dir.write("x.jsonl", lines());
    let pack = "zstd -q --train corpus/*.json -o DICTIONARY --maxdict=4096
        zstd -q -D DICTIONARY x.jsonl -o y.jsonl.zst; zstd -q --long=31 --ultra -22 x.jsonl -o z.jsonl.zst";
    if !run_script(&dir, &["zstd"], pack) {
        return;
    }
    prepare(&dir, &["x.jsonl"], "plain").expect(0);
    let refused = dir.ctxtune(["prepare", "y.jsonl.zst", "-o", "out", "--json"]).expect(3);
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "repack");
    let command = error["hint"].as_str().unwrap().split('`').nth(1).unwrap().to_owned();
    assert!(run_script(&dir, &["zstd"], &command));
    prepare(&dir, &["new-y.jsonl.zst"], "packed").expect(0);
    assert_same(&dir, "plain", "packed");
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
fn a_list_of_files_may_begin_with_a_byte_order_mark() {
    let dir = Dir::new();
    dir.corpus(RECORDS);
    let names: String = (0..RECORDS).map(|number| format!("corpus/{number}.json\r\n")).collect();
    dir.write("plain.txt", &names);
    dir.write("bom.txt", format!("\u{feff}{names}"));
    prepare(&dir, &["--files-from", "plain.txt"], "plain").expect(0);
    prepare(&dir, &["--files-from", "bom.txt"], "bom").expect(0);
    assert_same(&dir, "plain", "bom");
    dir.write("utf16.txt", "\u{feff}a.json\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
    assert!(prepare(&dir, &["--files-from", "utf16.txt"], "out").expect(2).stderr.contains("UTF-16"));
}

#[test]
fn a_list_that_names_what_is_not_there_or_is_there_already_says_on_which_line() {
    let dir = Dir::new();
    dir.corpus(3);
    let check = |list: &str, parts: [&str; 2]| {
        dir.write("list.txt", list);
        let run = prepare(&dir, &["--files-from", "list.txt", "--json"], "out").expect(2);
        assert_eq!(run.json()["error"]["code"], "config");
        assert!(parts.iter().all(|part| run.stderr.contains(part)), "{}", run.stderr);
    };
    check(
        "corpus/0.json\n\ncorpus/typo.json\n",
        ["`list.txt:3` names `corpus/typo.json`: no such file", "correct the list"],
    );
    check(
        "corpus/0.json\0corpus/typo.json\0",
        ["`list.txt:2` names `corpus/typo.json`: no such file", "correct the list"],
    );
    check(
        "corpus/*.json\n",
        ["`list.txt:1` names `corpus/*.json`: no such file", "patterns are not expanded"],
    );
    check(
        "corpus/0.json\ncorpus/1.json\r\ncorpus/0.json\n",
        ["`list.txt:3` names `corpus/0.json`", "first as number 1"],
    );
    assert!(!dir.exists("out"));
    // So does a record that is named by itself.
    let run = prepare(&dir, &["corpus/0.json", "corpus/typo.json"], "out").expect(2);
    assert!(run.stderr.contains("`corpus/typo.json`") && !run.stderr.contains("meanwhile"), "{}", run.stderr);
    let run = prepare(&dir, &["corpus/0.json", "corpus/0.json"], "out").expect(3);
    assert!(run.stderr.contains("name it once"), "{}", run.stderr);
}

#[test]
fn what_is_no_source_is_a_usage_error() {
    let dir = Dir::new();
    dir.write("notes.txt", "hello");
    assert!(prepare(&dir, &["notes.txt"], "out").expect(2).stderr.contains("unsupported source `notes.txt`"));
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

/// Lines of every fate, over several blocks: good, broken, blank, too large, with both line ends, without a last
/// one.
fn lines_of_every_fate() -> String {
    let line = |number: usize| match number % 50 {
        7 => record(number).to_string()[..40].to_owned(),
        11 => " \t\r".to_owned(),
        13 => format!("{{\"story\": \"{}\"}}", "x".repeat(300_000)),
        17 if number < 50 => " ".repeat(600_000),
        23 => format!("{}\r", record(number)),
        29 => record(number).to_string().replace("\"story\"", "\"Story\""),
        _ => record(number).to_string(),
    };
    (0..400).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn lines_that_are_converted_as_they_arrive_give_the_bytes_of_lines_read_at_random() {
    let dir = Dir::new();
    let text = lines_of_every_fate();
    dir.write("x.jsonl", &text);
    dir.write("y.jsonl.gz", gzip(text.as_bytes()));
    dir.write("z.jsonl.zst", zstd(text.as_bytes()));
    let prepare = |source: &str, out: &str, threads: &str| {
        let run = ["prepare", source, "-o", out, "--no-sync", "--threads", threads, "--max-rejects", "99%"];
        dir.ctxtune(run.iter().chain(&["--max-record-bytes", "200000", "--only-correct", "--json"]))
            .expect(0)
            .json()
    };
    let expected = prepare("x.jsonl", "plain", "2");
    assert_eq!(expected["counts"]["listed"], 400 - 8 - 1);
    assert_eq!(expected["counts"]["rejected_by_code"]["too_large"], 8);
    for (source, threads) in [("y.jsonl.gz", "1"), ("y.jsonl.gz", "2"), ("z.jsonl.zst", "5")] {
        let run = prepare(source, "other", threads);
        assert_same(&dir, "plain", "other");
        for field in ["counts", "bytes_read", "leakage", "rejects", "warned_records"] {
            assert_eq!(run[field], expected[field], "{source}: {field}");
        }
    }
}

#[test]
fn grouped_lines_train_where_their_groups_do_in_a_directory() {
    let dir = Dir::new();
    dir.corpus(RECORDS).write("x.jsonl", lines());
    dir.write("y.jsonl.gz", gzip(lines().as_bytes()));
    for by in ["agents", "story"] {
        // A group's side depends on its own key, and not on the keys of its records.
        let sides = ["corpus", "x.jsonl", "y.jsonl.gz"].map(|source| {
            let run = ["prepare", source, "-o", "out", "--no-sync", "--group-by", by, "--val-ratio", "0.3"];
            dir.ctxtune(run).expect(0);
            ["out/train.jsonl", "out/val.jsonl"].map(|side| {
                let mut lines: Vec<String> = dir.read(side).lines().map(str::to_owned).collect();
                lines.sort();
                lines
            })
        });
        assert!(sides.iter().all(|side| *side == sides[0]), "{by}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_line_without_end_is_not_kept_in_memory() {
    let dir = Dir::new();
    let mut text = lines().into_bytes();
    text.resize(text.len() + (300 << 20), b'x');
    dir.write("x.jsonl.zst", zstd(&text));
    // 300 MB of line in 150 MB of address space, which holds the program and its stacks too.
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -v 150000 && exec \"$0\" \"$@\"", crate::support::program()]);
    shell.args(["prepare", "x.jsonl.zst", "-o", "out", "--no-sync", "--threads", "2", "--max-rejects", "1"]);
    shell.args(["--max-record-bytes", "1000000"]).env("MALLOC_ARENA_MAX", "1").current_dir(dir.path(""));
    Outcome::of(shell).expect(0);
    assert!(dir.read("out/rejects.jsonl").starts_with("{\"key\":\"#40\",\"code\":\"too_large\""));
}
