//! A `.env` file of any bytes: what it says is the same each time, and what is skipped is named by a line it has.

#![no_main]

use std::collections::BTreeMap;

use ctxtune::session::dotenv;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let process = BTreeMap::from([("HOME".to_owned(), "/home/user".to_owned())]);
    let read = dotenv::read(bytes, &process);
    assert_eq!(read, dotenv::read(bytes, &process));
    let Some(read) = read else { return };
    // Each of `\n`, `\r\n` and `\r` ends a line.
    let lines = 1 + bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    let mut last = 1;
    for skipped in &read.skipped {
        assert!((last..=lines).contains(&skipped.line), "line {} of {lines}", skipped.line);
        last = skipped.line;
    }

    // A statement in front changes nothing that stands behind it but the numbers of lines.
    let name = "CTXTUNE_FUZZ";
    if bytes.windows(name.len()).any(|part| part == name.as_bytes()) {
        return;
    }
    let mut longer = format!("{name}='x'\n").into_bytes();
    longer.extend_from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let mut after = dotenv::read(&longer, &process).expect("a line of ASCII in front makes no other encoding");
    assert_eq!(after.variables.remove(name).as_deref(), Some("x"));
    assert_eq!(after.variables, read.variables);
    assert_eq!(after.skipped.len(), read.skipped.len());
});
