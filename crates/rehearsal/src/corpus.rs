//! The corpus of a rehearsal: the example records, so that the program alone can show everything.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

/// The records by their path below the corpus; made by `scripts/embed_examples.sh`.
const RECORDS: &str = include_str!("corpus.json");

/// Writes the records below `dir`, which is made.
pub fn write(dir: &Path) -> io::Result<()> {
    let records: Map<String, Value> = serde_json::from_str(RECORDS)?;
    for (name, record) in &records {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
        std::fs::write(path, record.as_str().unwrap_or_default())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_records_are_the_fixtures() {
        let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/contexts"));
        let records: Map<String, Value> = serde_json::from_str(RECORDS).unwrap();
        let mut names = Vec::new();
        for dir in [fixtures.to_owned(), fixtures.join("second_order")] {
            let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            names.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "json")));
        }
        assert_eq!(names.len(), records.len(), "run scripts/embed_examples.sh");
        for path in names {
            let name = path.strip_prefix(fixtures).unwrap().to_str().unwrap().replace('\\', "/");
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(records[&name].as_str(), Some(text.as_str()), "{name}: run scripts/embed_examples.sh");
        }
    }
}
