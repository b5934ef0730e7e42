//! What a sweep may choose from: its `parameters` into domains, and those into suggestions.
//!
//! Bayesian search is not here: whoever asks for it gets draws.

use serde_json::{Map, Value, json};

use crate::faults::chance;

#[derive(Debug, Default)]
pub struct Space {
    leaves: Vec<(Vec<String>, Domain)>,
}

#[derive(Debug)]
enum Domain {
    /// One of these; a constant is one of one.
    Values(Vec<Value>),
    Integers(i64, i64),
    Numbers(f64, f64),
    /// The same, equally dense in every order of magnitude.
    Magnitudes(f64, f64),
}

/// Reads `parameters`. The error says which of them cannot be read, and why.
pub fn space(parameters: &Value) -> Result<Space, String> {
    let mut space = Space::default();
    add(&mut space, &[], parameters)?;
    if space.leaves.is_empty() { Err("parameters: there are none".to_owned()) } else { Ok(space) }
}

fn add(space: &mut Space, path: &[String], parameters: &Value) -> Result<(), String> {
    let parameters = parameters.as_object().ok_or("parameters: no mapping")?;
    for (name, said) in parameters {
        let path = [path, std::slice::from_ref(name)].concat();
        if let Some(inner) = said.get("parameters") {
            add(space, &path, inner)?;
            continue;
        }
        let domain = domain(said).map_err(|why| format!("parameters.{}: {why}", path.join(".")))?;
        space.leaves.push((path, domain));
    }
    Ok(())
}

fn domain(said: &Value) -> Result<Domain, String> {
    let number = |name: &str| said[name].as_f64().ok_or_else(|| format!("`{name}` is no number"));
    let is_given = |name: &str| said.get(name).is_some();
    let are_integers = said["min"].is_i64() && said["max"].is_i64();
    let usual = match said {
        _ if is_given("value") => "constant",
        _ if is_given("values") => "categorical",
        _ if is_given("min") && are_integers => "int_uniform",
        _ if is_given("min") => "uniform",
        _ => return Err("neither `value`, `values` nor `min` and `max`".to_owned()),
    };
    let domain = match said["distribution"].as_str().unwrap_or(usual) {
        "constant" => Domain::Values(vec![said["value"].clone()]),
        "categorical" => {
            let values = said["values"].as_array().filter(|values| !values.is_empty());
            Domain::Values(values.ok_or("`values` is no list with something in it")?.clone())
        }
        "int_uniform" => {
            let integer = |name: &str| said[name].as_i64().ok_or_else(|| format!("`{name}` is no integer"));
            Domain::Integers(integer("min")?, integer("max")?)
        }
        "uniform" => Domain::Numbers(number("min")?, number("max")?),
        "log_uniform_values" => Domain::Magnitudes(number("min")?, number("max")?),
        other => return Err(format!("the distribution {other} is not known to this rehearsal")),
    };
    let is_empty = match domain {
        Domain::Integers(min, max) => min > max,
        Domain::Numbers(min, max) => min > max,
        Domain::Magnitudes(min, max) => min > max || min <= 0.0,
        _ => false,
    };
    if is_empty { Err("its range is empty".to_owned()) } else { Ok(domain) }
}

impl Domain {
    fn points(&self) -> Option<u64> {
        match self {
            Domain::Values(values) => Some(values.len() as u64),
            Domain::Integers(min, max) => max.abs_diff(*min).checked_add(1),
            _ => None,
        }
    }

    fn point(&self, index: u64) -> Value {
        match self {
            Domain::Values(values) => values[index as usize].clone(),
            Domain::Integers(min, _) => json!(min.saturating_add_unsigned(index)),
            Domain::Numbers(min, _) | Domain::Magnitudes(min, _) => json!(min),
        }
    }

    fn draw(&self, chance: f64) -> Value {
        match self {
            Domain::Numbers(min, max) => json!(min + chance * (max - min)),
            Domain::Magnitudes(min, max) => json!((min.ln() + chance * (max.ln() - min.ln())).exp()),
            _ => {
                let points = self.points().unwrap_or(1);
                self.point(((chance * points as f64) as u64).min(points - 1))
            }
        }
    }
}

impl Space {
    pub fn endless(&self) -> Option<String> {
        let endless = self.leaves.iter().find(|(_, domain)| domain.points().is_none());
        endless.map(|(path, _)| path.join("."))
    }

    /// The point of this number of the grid: the last parameter changes fastest. Nothing after the last.
    pub fn grid(&self, number: u64) -> Option<Map<String, Value>> {
        let mut left = number;
        let mut values = Vec::new();
        for (path, domain) in self.leaves.iter().rev() {
            let points = domain.points()?;
            values.push((path, domain.point(left % points)));
            left /= points;
        }
        values.reverse();
        if left > 0 { None } else { Some(nested(values)) }
    }

    pub fn random(&self, seed: u64, number: u64) -> Map<String, Value> {
        let mut values = Vec::new();
        for (index, (path, domain)) in self.leaves.iter().enumerate() {
            values.push((path, domain.draw(chance(&[seed, number, index as u64]))));
        }
        nested(values)
    }

    /// The first value of `config` (every key holds an object with `value`) that was not offered.
    pub fn not_offered(&self, config: &Value) -> Option<(String, Value)> {
        self.leaves.iter().find_map(|(path, domain)| {
            let Domain::Values(offered) = domain else { return None };
            let top = config.get(&path[0])?.get("value")?;
            let value = path[1..].iter().try_fold(top, |inner, name| inner.get(name))?;
            let is_offered = offered.iter().any(|one| is_equal(one, value));
            (!is_offered).then(|| (path.join("."), value.clone()))
        })
    }
}

/// `{name: {"value": …}}`, with objects where a path has more than one part.
fn nested(values: Vec<(&Vec<String>, Value)>) -> Map<String, Value> {
    let mut arguments = json!({});
    for (path, value) in values {
        let mut place = &mut arguments[path[0].as_str()]["value"];
        for name in &path[1..] {
            place = &mut place[name.as_str()];
        }
        *place = value;
    }
    arguments.as_object().cloned().unwrap_or_default()
}

fn is_equal(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parameters: Value) -> Space {
        space(&parameters).unwrap()
    }

    /// The values of suggestions, a line each.
    fn shown(suggestions: impl Iterator<Item = Map<String, Value>>) -> Vec<String> {
        let values = |suggestion: Map<String, Value>| {
            let values: Vec<String> = suggestion.values().map(|value| value["value"].to_string()).collect();
            values.join(" ")
        };
        suggestions.map(values).collect()
    }

    #[test]
    fn a_grid_is_exhaustive_and_its_last_parameter_changes_fastest() {
        let space = of(json!({
            "a": { "values": ["x", 1e-6] },
            "b": { "value": true },
            "c": { "min": 2, "max": 4 },
        }));
        let points = shown((0..).map_while(|number| space.grid(number)));
        let expected =
            ["\"x\" true 2", "\"x\" true 3", "\"x\" true 4", "1e-6 true 2", "1e-6 true 3", "1e-6 true 4"];
        assert_eq!(points, expected);
        assert_eq!(space.endless(), None);
        assert_eq!(of(json!({ "a": { "min": 0.0, "max": 1.0 } })).endless().as_deref(), Some("a"));
    }

    #[test]
    fn nested_parameters_are_suggested_as_objects() {
        let space = of(json!({ "o": { "parameters": { "a": { "values": [1, 2] }, "b": { "value": 3 } } } }));
        assert_eq!(Value::Object(space.grid(1).unwrap()), json!({ "o": { "value": { "a": 2, "b": 3 } } }));
        assert_eq!(
            space.not_offered(&json!({ "o": { "value": { "a": 5 } } })),
            Some(("o.a".to_owned(), json!(5)))
        );
    }

    #[test]
    fn draws_depend_on_seed_and_number_alone_and_stay_in_range() {
        let space = of(json!({
            "a": { "values": [1, 2, 3] },
            "b": { "min": 1e-6, "max": 1e-3, "distribution": "log_uniform_values" },
            "c": { "min": 1, "max": 6 },
        }));
        let draws = |seed| shown((0..50).map(|number| space.random(seed, number)));
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        for number in 0..50 {
            let draw = space.random(1, number);
            assert!((1..=3).contains(&draw["a"]["value"].as_i64().unwrap()));
            assert!((1e-6..=1e-3).contains(&draw["b"]["value"].as_f64().unwrap()));
            assert!((1..=6).contains(&draw["c"]["value"].as_i64().unwrap()));
        }
    }

    #[test]
    fn only_offered_values_of_categories_are_allowed() {
        let space = of(json!({ "a": { "values": [8, 16] }, "b": { "min": 0, "max": 1 } }));
        let not_offered =
            |value: Value| space.not_offered(&json!({ "a": { "value": value }, "b": { "value": 7 } }));
        assert_eq!(not_offered(json!(8)), None);
        assert_eq!(not_offered(json!(16.0)), None);
        assert_eq!(not_offered(json!("8")), Some(("a".to_owned(), json!("8"))));
        assert_eq!(space.not_offered(&json!({})), None);
    }

    #[test]
    fn parameters_that_make_no_sense_are_refused() {
        let refused = |parameters: Value, expected: &str| {
            let why = space(&parameters).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        refused(json!({}), "there are none");
        refused(json!({ "a": { "values": [] } }), "parameters.a: `values` is no list");
        refused(json!({ "a": { "min": 2, "max": 1 } }), "its range is empty");
        refused(json!({ "a": { "min": "1e-6", "max": 1 } }), "`min` is no number");
        refused(json!({ "a": {} }), "neither `value`");
        refused(json!({ "a": { "min": 1, "max": 2, "distribution": "beta" } }), "beta is not known");
        refused(json!({ "a": { "min": 0.0, "max": 2.0, "distribution": "log_uniform_values" } }), "is empty");
    }
}
