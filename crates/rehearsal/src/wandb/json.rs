//! JSON as Python's `json` writes it.

use serde_json::Value;

/// JSON as Python writes it: `NaN` and the infinities become strings.
pub fn read_json(text: &str) -> Result<Value, serde_json::Error> {
    let mut json = String::with_capacity(text.len());
    let mut is_string = false;
    for part in text.split_inclusive('"') {
        if is_string {
            json.push_str(part);
            let inside = part.strip_suffix('"').unwrap_or(part);
            let backslashes = inside.len() - inside.trim_end_matches('\\').len();
            is_string = backslashes % 2 == 1;
        } else {
            let words = part.replace("NaN", "\"NaN\"").replace("Infinity", "\"Infinity\"");
            json.push_str(&words.replace("-\"Infinity\"", "\"-Infinity\""));
            is_string = true;
        }
    }
    serde_json::from_str(&json)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_json_lacks_become_strings() {
        let check = |text: &str, expected: Value| assert_eq!(read_json(text).unwrap(), expected);
        check(
            r#"{"a": NaN, "b": [-Infinity, Infinity, 1]}"#,
            json!({ "a": "NaN", "b": ["-Infinity", "Infinity", 1] }),
        );
        check(
            r#"{"NaN": "is NaN \" NaN \\", "é": NaN, "": ""}"#,
            json!({ "NaN": "is NaN \" NaN \\", "é": "NaN", "": "" }),
        );
        assert!(read_json("{\"a\": nan}").is_err());
    }
}
