//! The corpus of a rehearsal: the example records, so that the program alone can show everything.

use std::io;
use std::path::Path;

/// The records, by their path below the corpus.
const RECORDS: [(&str, &[u8]); 24] = [
    ("0.json", include_bytes!("../../fixtures/contexts/0.json")),
    ("1.json", include_bytes!("../../fixtures/contexts/1.json")),
    ("10.json", include_bytes!("../../fixtures/contexts/10.json")),
    ("11.json", include_bytes!("../../fixtures/contexts/11.json")),
    ("12.json", include_bytes!("../../fixtures/contexts/12.json")),
    ("13.json", include_bytes!("../../fixtures/contexts/13.json")),
    ("14.json", include_bytes!("../../fixtures/contexts/14.json")),
    ("15.json", include_bytes!("../../fixtures/contexts/15.json")),
    ("16.json", include_bytes!("../../fixtures/contexts/16.json")),
    ("17.json", include_bytes!("../../fixtures/contexts/17.json")),
    ("18.json", include_bytes!("../../fixtures/contexts/18.json")),
    ("19.json", include_bytes!("../../fixtures/contexts/19.json")),
    ("2.json", include_bytes!("../../fixtures/contexts/2.json")),
    ("3.json", include_bytes!("../../fixtures/contexts/3.json")),
    ("4.json", include_bytes!("../../fixtures/contexts/4.json")),
    ("5.json", include_bytes!("../../fixtures/contexts/5.json")),
    ("6.json", include_bytes!("../../fixtures/contexts/6.json")),
    ("7.json", include_bytes!("../../fixtures/contexts/7.json")),
    ("8.json", include_bytes!("../../fixtures/contexts/8.json")),
    ("9.json", include_bytes!("../../fixtures/contexts/9.json")),
    ("second_order/0.json", include_bytes!("../../fixtures/contexts/second_order/0.json")),
    ("second_order/1.json", include_bytes!("../../fixtures/contexts/second_order/1.json")),
    ("second_order/2.json", include_bytes!("../../fixtures/contexts/second_order/2.json")),
    ("second_order/3.json", include_bytes!("../../fixtures/contexts/second_order/3.json")),
];

/// Writes the records below `dir`, which is made.
///
/// # Errors
/// When one cannot be written.
pub fn write(dir: &Path) -> io::Result<()> {
    for (name, record) in RECORDS {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
        std::fs::write(path, record)?;
    }
    Ok(())
}
