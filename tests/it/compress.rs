//! `--compress`: the same lines in smaller files, for everything that reads OUT.

use ctxtune_pipeline::env;
use serde_json::{Value, json};

use crate::support::{
    Dir, Outcome, Rehearsal, Tree, assert_same_tree, names, python, record, skip, unpacked,
};

const HOW: [&str; 2] = ["zst", "gz"];

/// Holds the result in `packed` against the one in `plain` that differs from it in `--compress` alone.
const COMPARE: &str = r#"
import gzip, hashlib, json, pathlib, subprocess, sys
plain, packed, how = pathlib.Path("plain"), pathlib.Path("packed"), sys.argv[1]
sha256 = lambda content: hashlib.sha256(content).hexdigest()
load = lambda out: json.loads((out / "manifest.json").read_bytes())

def unpack(path):
    if how == "gz":
        return gzip.decompress(path.read_bytes())
    return subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout

before, after = load(plain), load(packed)
assert after["options"].pop("compress") == how
expected = {"manifest.json", *after.pop("files")}
before.pop("files")
for side in ("train", "val"):
    one, other = before.pop(side), after.pop(side)
    if one is None:
        assert other is None
        continue
    for was, shard in zip(one["shards"], other["shards"], strict=True):
        assert shard["file"] == f"{was['file']}.{how}" and shard["records"] == was["records"]
        expected.add(shard["file"])
        content = (packed / shard["file"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(content), sha256(content))
        assert unpack(packed / shard["file"]) == (plain / was["file"]).read_bytes()
        assert shard["uncompressed"] == {"bytes": was["bytes"], "sha256": was["sha256"]}
    assert other["uncompressed"] == {"bytes": one["bytes"], "sha256": one["sha256"]}
    assert other["bytes"] == sum(shard["bytes"] for shard in other["shards"]) < one["bytes"]
    digests = [shard["sha256"] for shard in other["shards"]]
    joined = "".join(f"{digest}\n" for digest in digests).encode()
    assert other["sha256"] == (digests[0] if len(digests) == 1 else sha256(joined))
assert before == after
assert expected == {path.name for path in packed.iterdir()}
keys = (packed / "keys.tsv").read_bytes()
assert keys.replace(f".jsonl.{how}\t".encode(), b".jsonl\t") == (plain / "keys.tsv").read_bytes()
assert (packed / "rejects.jsonl").read_bytes() == (plain / "rejects.jsonl").read_bytes()
"#;

fn has_zstd() -> bool {
    let found = std::process::Command::new("zstd").arg("--version").output().is_ok();
    if !found {
        skip("zstd", "there is no zstd");
    }
    found
}

/// What `way` leaves in the new directory `out`.
fn result(dir: &Dir, out: &str, way: &[&str]) -> Tree {
    let _ = std::fs::remove_dir_all(dir.path(out));
    dir.ctxtune(["prepare", "--no-sync", "--max-rejects=20%", "-o", out].iter().chain(way)).expect(0);
    dir.tree(out)
}

#[test]
fn threads_change_no_byte_and_other_tools_unpack_what_is_written_without_compression() {
    let dir = Dir::new();
    for number in 0..140 {
        // Some are rejected, so that lines move from one side to the other.
        let content = if number % 7 == 3 { "{".to_owned() } else { record(number).to_string() };
        dir.write(format!("corpus/{number}.json"), content);
    }
    dir.chat_lines("general.jsonl", 60);
    for way in [
        &["corpus"][..],
        &["corpus", "--val-ratio=0.4", "--shard-records=20"],
        &["corpus", "--val-ratio=0.4", "--group-by=agents", "--shard-records=7"],
        &["corpus", "--limit=40"],
        &["corpus", "--mix=general.jsonl=10%", "--val-ratio=0", "--shard-records=50"],
        &["general.jsonl", "--chat", "--shard-records=16"],
    ] {
        result(&dir, "plain", way);
        for how in HOW {
            let packed = |threads| result(&dir, "packed", &[way, &["--compress", how, threads]].concat());
            let expected = packed("--threads=1");
            for threads in ["--threads=2", "--threads=5"] {
                assert_same_tree(&packed(threads), &expected, &format!("{way:?}, {how}, {threads}"));
            }
            let Some(mut python) = python().filter(|_| how == "gz" || has_zstd()) else { continue };
            python.args(["-c", COMPARE, how]).current_dir(dir.path(""));
            Outcome::of(python).expect(0);
        }
    }
}

#[test]
fn shards_of_another_compression_are_replaced_and_foreign_files_are_not() {
    let dir = Dir::new();
    dir.corpus(30);
    let ways: [&[&str]; 4] =
        [&["corpus"], &["corpus", "--compress=zst"], &["corpus", "--compress=gz"], &["corpus"]];
    for way in ways.iter().chain([&ways[2], &ways[1]]) {
        let expected = result(&dir, "pristine", way);
        dir.ctxtune([&["prepare", "--no-sync", "-o", "out"], *way].concat()).expect(0);
        assert_same_tree(&dir.tree("out"), &expected, &format!("{way:?}"));
    }
    let again = dir.ctxtune(["prepare", "corpus", "-o", "out", "--compress=zst", "--json"]).expect(0);
    assert_eq!(again.json()["published"], "unchanged");
    let shards = &again.json()["train"]["shards"];
    assert_eq!(shards[0]["uncompressed"], dir.manifest()["train"]["uncompressed"]);
    // `train.jsonl` is nobody's business now, and `val.jsonl.gz` is in the way of the next run.
    dir.write("out/train.jsonl", "mine");
    dir.write("out/val.jsonl.gz", "mine");
    let before = dir.tree("out");
    let refused = dir.prepare(&["--compress=gz"]).expect(1);
    assert!(refused.stderr.contains("val.jsonl.gz"), "{}", refused.stderr);
    assert_eq!(names(&dir.tree("out")), names(&before));
    dir.prepare(&["--compress=zst", "--seed=2"]).expect(0);
    assert_eq!(dir.read("out/train.jsonl"), "mine");
}

#[test]
fn the_key_of_the_configuration_file_is_the_flag() {
    let dir = Dir::new();
    dir.corpus(20).write("c.yaml", "compress: zst\n");
    let by_flag = result(&dir, "flag", &["corpus", "--compress=zst"]);
    assert_same_tree(&result(&dir, "file", &["corpus", "--config=c.yaml"]), &by_flag, "file");
    let over = result(&dir, "over", &["corpus", "--config=c.yaml", "--compress=gz"]);
    assert!(names(&over).contains(&"train.jsonl.gz"));
    // A file that is taken as it is is not compressed.
    dir.ctxtune(["prepare", "corpus", "-o", "plain", "--no-sync"]).expect(0);
    let refused = dir.ctxtune(["finetune", "plain/train.jsonl", "--as-is", "--compress=gz", "-o", "job"]);
    assert!(refused.expect(2).stderr.contains("taken as it is"));
}

/// A corpus in `plain`, and compressed in `out`.
fn both(dir: &Dir, how: &str, more: &[&str]) {
    // One of them twice.
    dir.corpus(40).write("corpus/again.json", record(7).to_string());
    result(dir, "plain", &[&["corpus"], more].concat());
    result(dir, "out", &[&["corpus", "--compress", how], more].concat());
}

#[test]
fn check_and_preview_and_report_say_of_a_compressed_result_what_they_say_of_a_plain_one() {
    for (how, more) in [("zst", &[][..]), ("gz", &["--shard-records=9", "--val-ratio=0.3"])] {
        let dir = Dir::new();
        both(&dir, how, more);
        let document = |command: &str, out: &str| {
            let mut said = dir.ctxtune([command, out, "--json"]).expect(0).json();
            said.as_object_mut().unwrap().remove("seconds");
            let said = said.to_string().replace(".jsonl.zst", ".jsonl").replace(".jsonl.gz", ".jsonl");
            let said = said.replace(&format!("\"{out}"), "\"plain").replace(&format!(" {out}/"), " plain/");
            serde_json::from_str::<Value>(&said).unwrap()
        };
        for command in ["check", "preview"] {
            assert_eq!(document(command, "out"), document(command, "plain"), "{command}");
        }
        for out in ["out", "plain"] {
            dir.ctxtune(["report", out, "-o", &format!("{out}.html")]).expect(0);
        }
        let page = |out: &str| {
            let page = dir
                .read(format!("{out}.html"))
                .replace(".jsonl.zst", ".jsonl")
                .replace(".jsonl.gz", ".jsonl");
            // What follows speaks of the lines; what precedes of the files' sizes and digests as well.
            page[page.find("<h3>Leakage").unwrap()..].replace(&format!(" {out}/"), " plain/")
        };
        assert_eq!(page("out"), page("plain"));
    }
}

#[test]
fn score_reads_the_validation_side_of_a_compressed_result() {
    for (how, more) in [("gz", &["--val-ratio=0.5"][..]), ("zst", &["--val-ratio=0.5", "--shard-records=3"])]
    {
        let dir = Dir::new();
        both(&dir, how, more);
        let run = dir.ctxtune(["score", "out", "corpus"]).expect(0);
        assert_eq!(run.stdout, "1.0000\n", "{}", run.stderr);
        assert!(run.stderr.contains("21 of 21 valid"), "{}", run.stderr);
    }
}

/// What `check out` says: `file code`, in its order.
fn said(dir: &Dir) -> Vec<String> {
    let report = dir.ctxtune(["check", "out", "--json"]).expect(3).json();
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|found| format!("{} {}", found["file"].as_str().unwrap(), found["code"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_compressed_shard_that_is_not_what_the_manifest_says_is_found() {
    let dir = Dir::new();
    dir.corpus(40);
    for how in HOW {
        let shard = format!("out/train.jsonl.{how}");
        let compress = format!("--compress={how}");
        let pristine = result(&dir, "out", &["corpus", &compress]);
        let bytes = std::fs::read(dir.path(&shard)).unwrap();
        let changed = format!("{shard} changed_file");
        // Cut: neither the file nor what it unpacks to.
        dir.write(&shard, &bytes[..bytes.len() / 2]);
        assert_eq!(said(&dir), [&*changed, &changed]);
        // Other bytes of the same lines.
        let lines = unpacked(&shard, bytes.clone());
        let again = match how {
            "zst" => zstd::encode_all(&lines[..], 9).unwrap(),
            _ => [&bytes[..], &[0; 9]].concat(),
        };
        dir.write(&shard, again);
        assert_eq!(said(&dir), [&*changed]);
        dir.plant("out", &pristine);
        // A manifest that knows the file, and not what it unpacks to.
        let edit = |change: &dyn Fn(&mut Value)| {
            dir.plant("out", &pristine);
            let mut manifest = dir.manifest();
            change(&mut manifest);
            dir.write("out/manifest.json", manifest.to_string());
        };
        edit(&|manifest| manifest["train"]["shards"][0]["uncompressed"]["sha256"] = json!("0".repeat(64)));
        assert_eq!(said(&dir), ["out/manifest.json manifest_sum", &changed]);
        edit(&|manifest| manifest["train"]["shards"][0]["uncompressed"]["bytes"] = json!(10));
        assert_eq!(said(&dir), ["out/manifest.json manifest_sum", &changed]);
        // Whoever cannot know what it unpacks to uploads none of it.
        for shard in [true, false] {
            edit(&|manifest| {
                let side = &mut manifest["train"];
                let place = if shard { &mut side["shards"][0] } else { side };
                place.as_object_mut().unwrap().remove("uncompressed");
            });
            let run = dir.ctxtune(["check", "out", "--json"]).expect(3);
            assert_eq!(run.json()["error"]["code"], "foreign_manifest");
        }
    }
}

#[test]
fn what_is_uploaded_is_unpacked_and_known_by_its_lines() {
    let sharded = ["--shard-records=7", "--val-ratio=0.3"];
    for (how, more, threshold) in [
        ("zst", &[][..], None),
        ("gz", &sharded, None),
        ("gz", &[], Some("10")),
        ("zst", &sharded, Some("10")),
    ] {
        let rehearsal = Rehearsal::new();
        both(&rehearsal.dir, how, more);
        let upload = |out: &str| {
            let mut command = rehearsal.command(["upload", out, "--json"]);
            command.envs(threshold.map(|bytes| (env::CTXTUNE_MULTIPART_THRESHOLD, bytes)));
            Outcome::of(command).expect(0).json()
        };
        let compressed = upload("out");
        let files = rehearsal.files();
        assert_eq!(files.len(), 2);
        // The rehearsal compares what came with the checksum that was announced; the same bytes are the same file.
        assert_eq!(compressed["uploads"], upload("plain")["uploads"], "{more:?}");
        assert_eq!(rehearsal.files(), files);
        for (side, file) in ["train", "val"].iter().zip(&files) {
            assert_eq!(file["filename"], format!("{side}.jsonl"));
            assert_eq!(file["bytes"], rehearsal.dir.manifest()[side]["uncompressed"]["bytes"]);
        }
        rehearsal.check_protocol();
    }
}

#[test]
fn a_job_on_the_same_lines_is_the_same_job_whether_they_are_compressed() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(20, &[]);
    for how in HOW {
        rehearsal.dir.prepare(&["--compress", how]).expect(0);
        let again = rehearsal.ctxtune(["submit", "out", "--yes"]).expect(0);
        assert_eq!(again.stdout.trim_end(), job, "{}", again.stderr);
        assert!(!again.stderr.contains("prepared again"), "{}", again.stderr);
    }
    assert_eq!((rehearsal.creations(), rehearsal.files().len()), (1, 2));
    let run = rehearsal.ctxtune(["finetune", "corpus", "-o", "new", "--compress=zst", "--detach", "--yes"]);
    run.expect(0);
    assert!(rehearsal.dir.exists("new/train.jsonl.zst"));
    assert_eq!(rehearsal.files().len(), 2);
}
