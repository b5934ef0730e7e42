//! The commands that make sources of what is none, for hints.

use std::path::Path;

use crate::shell;
use ctxtune_engine::error::Repack;
use ctxtune_engine::source::names::NameLog;
use ctxtune_engine::source::{Compression, OTHER_ENDING, Unsupported, container_of_name, unsupported};

/// What to do about `path`, which is no source.
pub fn remedy(path: &Path, unsupported: Unsupported) -> String {
    let name = shell::path(path);
    // Without its last ending.
    let stem = shell::path(&path.with_extension(""));
    match unsupported {
        Unsupported::Url => download(&path.to_string_lossy()),
        Unsupported::Csv => pandas("read_csv", path),
        Unsupported::Parquet => pandas("read_parquet", path),
        Unsupported::Zip => format!("unpack it: `unzip {name} -d DIR`, then name DIR"),
        Unsupported::CompressedRecord(Compression::Zstd) => {
            format!("unpack it: `zstd -d {name}`, then name {stem}")
        }
        Unsupported::CompressedRecord(_) => format!("unpack it: `gunzip {name}`, then name {stem}"),
        Unsupported::Xz => format!("unpack it: `xz -d {name}`, then name {stem}"),
        Unsupported::Bzip2 => format!("unpack it: `bunzip2 {name}`, then name {stem}"),
        Unsupported::Capitals => "rename it, with its ending in lower case".to_owned(),
    }
}

fn download(url: &str) -> String {
    let name = shell::word(url);
    match url.split_once("://") {
        Some(("s3", path)) if container_of_name(path.as_bytes()).is_some() => {
            format!("copy it first: `aws s3 cp {name} .`, then name the file")
        }
        Some(("s3", _)) => format!("copy it first: `aws s3 sync {name} DIR`, then name DIR"),
        Some(("gs", _)) => {
            format!("copy it first: `gcloud storage cp --recursive {name} DIR`, then name DIR")
        }
        Some(("hf", path)) => {
            let repository = path.strip_prefix("datasets/").unwrap_or(path);
            let repository: Vec<&str> = repository.split('/').take(2).collect();
            let repository = shell::word(&repository.join("/"));
            format!(
                "download it first: `hf download --repo-type dataset {repository} --local-dir DIR`, then name DIR"
            )
        }
        _ => format!("download it first: `curl -LO {name}`, then name the file"),
    }
}

fn pandas(read: &str, path: &Path) -> String {
    let python = |path: &Path| path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    let (from, to) = (python(path), python(&path.with_extension("jsonl")));
    let script =
        format!("import pandas; pandas.{read}(\"{from}\").to_json(\"{to}\", orient=\"records\", lines=True)");
    let to = shell::path(&path.with_extension("jsonl"));
    format!("convert it to JSON lines: `python3 -c {}`, then name {to}", shell::word(&script))
}

/// What to do about the first of what was not read below `root`, where something is known of it.
pub(crate) fn remedy_for_first(root: Option<&Path>, not_read: &NameLog) -> Option<String> {
    let mut found = None;
    let read = not_read.first(|kind, key| {
        let key = str::from_utf8(key).ok().filter(|_| kind == OTHER_ENDING && found.is_none());
        let path = key.zip(root).map(|(key, root)| root.join(key));
        let known = path.and_then(|path| Some(remedy(&path, unsupported(&path)?)));
        found = found.take().or(known);
        Ok(())
    });
    read.ok().and(found)
}

/// What to do about the container at `path`, which is whole.
pub(crate) fn repacked(path: &Path, repack: Repack) -> String {
    let option = match repack {
        Repack::Dictionary => "-D DICTIONARY",
        Repack::Window => "--long=31",
    };
    let name = path.file_name().unwrap_or(path.as_os_str());
    let new = shell::word(&format!("new-{}", name.to_string_lossy()));
    format!("compress it again: `zstd -dc {option} {} | zstd -o {new}`", shell::path(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_remedy_is_a_command() {
        let check = |name: &str, expected: &str| {
            let path = Path::new(name);
            let remedy = remedy(path, unsupported(path).unwrap());
            assert!(remedy.contains(expected), "{name}: {remedy}");
        };
        check("s3://b/k", "`aws s3 sync s3://b/k DIR`");
        check("s3://b/k.jsonl", "`aws s3 cp s3://b/k.jsonl .`");
        check("gs://b/k.jsonl", "`gcloud storage cp --recursive gs://b/k.jsonl DIR`");
        check("hf://datasets/me/tomi/data/x.jsonl", "--repo-type dataset me/tomi --local-dir DIR`");
        check("https://host/x.jsonl", "`curl -LO https://host/x.jsonl`");
        check("a/x.csv", "pandas.read_csv(\"a/x.csv\").to_json(\"a/x.jsonl\"");
        check("x.PARQUET", "pandas.read_parquet(\"x.PARQUET\").to_json(\"x.jsonl\"");
        check("it's.zip", "`unzip 'it'\\''s.zip' -d DIR`");
        check("x.json.gz", "`gunzip x.json.gz`, then name x.json");
        check("x.json.zst", "`zstd -d x.json.zst`, then name x.json");
        check("x.tar.xz", "then name x.tar");
        check("x.jsonl.bz2", "then name x.jsonl");
        check("x.JSON", "rename");
    }
}
