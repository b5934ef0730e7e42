//! Paths in what is said, which a report leaves out.

use std::path::Path;

/// `text` without the directories before the name of `out`: a report is read elsewhere.
pub fn without_path(text: &str, out: &Path) -> String {
    let absolute = std::fs::canonicalize(out).unwrap_or_else(|_| out.to_owned());
    let name = absolute.file_name().map_or_else(|| "out".into(), |name| name.to_string_lossy());
    let mut text = text.to_owned();
    for path in [absolute.to_string_lossy(), out.to_string_lossy()] {
        if path.contains('/') {
            text = text.replace(path.trim_end_matches('/'), &name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_left_out_of_what_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("my out");
        std::fs::create_dir(&out).unwrap();
        let said = format!("cannot read `{}/keys.tsv`: no", out.display());
        assert_eq!(without_path(&said, &out), "cannot read `my out/keys.tsv`: no");
        assert_eq!(without_path("from a/b/out/", Path::new("a/b/out")), "from out/");
        assert_eq!(without_path("--out out", Path::new("out")), "--out out");
    }
}
