//! The values of a run as people write them.

use serde_json::Value;

use crate::sweep::Assignment;

/// `learning_rate=1e-5  n_epochs=3`.
pub fn shown_values(values: &Assignment) -> String {
    let one = |(key, value): &(String, Value)| format!("{key}={}", shown_value(value));
    values.iter().map(one).collect::<Vec<_>>().join("  ")
}

/// A value as people write it: `1e-5`.
pub fn shown_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(real) if number.is_f64() && real != 0.0 && real.abs() < 1e-3 => format!("{real:e}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_shown_as_people_write_them() {
        let values = vec![("learning_rate".to_owned(), json!(1e-5)), ("batch_size".to_owned(), json!("max"))];
        assert_eq!(shown_values(&values), "learning_rate=1e-5  batch_size=max");
    }
}
