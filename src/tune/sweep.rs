//! A sweep: which values of which parameters are tried, and in which order.
//!
//! Pure. The file is the one that Weights & Biases takes; what is not about the search (program,
//! command, description) is carried along unread. `grid` is every combination, the last parameter
//! varying fastest; `random` draws from SHA-256 over seed, number and name, so that anybody draws
//! the same. `bayes` is W&B's affair: it learns from runs. See
//! <https://docs.wandb.ai/guides/sweeps/sweep-config-keys>.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

/// The most combinations a grid may have.
const MOST_COMBINATIONS: usize = 10_000;

/// Why a file is no sweep.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// It cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not what it must be.
    #[error("`{path}` is no sweep: {reason}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

/// How values are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Every combination.
    Grid,
    /// Draws.
    Random,
    /// What earlier runs suggest.
    Bayes,
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Method::Grid => "grid",
            Method::Random => "random",
            Method::Bayes => "bayes",
        })
    }
}

/// Whether less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Less is better.
    Minimize,
    /// More is better.
    Maximize,
}

/// What runs are ranked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Its name: `val/loss`, `eval/loss`, `train/loss`.
    pub name: String,
    /// Which way is better.
    pub goal: Goal,
}

/// The values a parameter may take.
#[derive(Debug, Clone, PartialEq)]
pub enum Domain {
    /// One of these.
    Values(Vec<Value>),
    /// A real number between two, both inclusive.
    Uniform(f64, f64),
    /// A whole number between two, both inclusive.
    IntUniform(i64, i64),
    /// A real number between two whose logarithm is uniform.
    LogUniform(f64, f64),
}

/// A value for every parameter, in the order of the file.
pub type Assignment = Vec<(String, Value)>;

/// A sweep's file, read.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// How values are chosen.
    pub method: Method,
    /// What runs are ranked by.
    pub metric: Metric,
    /// What is varied.
    pub parameters: Vec<(String, Domain)>,
    /// The most runs, if the file says.
    pub run_cap: Option<u64>,
    /// The whole document, numbers that YAML 1.1 takes for text made numbers.
    pub document: Map<String, Value>,
}

impl Sweep {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or is no sweep.
    pub fn read(path: &Path) -> Result<Sweep, SweepError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SweepError::Read { path: path.to_owned(), source })?;
        Sweep::parse(&text).map_err(|reason| SweepError::Unfit { path: path.to_owned(), reason })
    }

    /// Reads YAML.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Sweep, String> {
        let document: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let Value::Object(mut document) = document else {
            return Err("it is not a mapping of keys to values".to_owned());
        };
        let method = match document.get("method").and_then(Value::as_str) {
            Some("grid") => Method::Grid,
            Some("random") => Method::Random,
            Some("bayes") => Method::Bayes,
            other => {
                return Err(format!("`method` is {other:?}, not grid, random or bayes").replace("Some", ""));
            }
        };
        let metric = read_metric(document.get("metric"))?;
        let Some(Value::Object(parameters)) = document.get_mut("parameters") else {
            return Err("`parameters` is not a mapping of names to values".to_owned());
        };
        parameters.values_mut().for_each(numbers_as_numbers);
        let read = |(name, domain): (&String, &Value)| Ok((name.clone(), read_domain(name, domain)?));
        let parameters: Vec<(String, Domain)> = parameters.iter().map(read).collect::<Result<_, String>>()?;
        if parameters.is_empty() {
            return Err("`parameters` is empty: there is nothing to vary".to_owned());
        }
        let run_cap = document.get("run_cap").and_then(Value::as_u64);
        Ok(Sweep { method, metric, parameters, run_cap, document })
    }

    /// Every combination, the last parameter varying fastest.
    ///
    /// # Errors
    /// When a parameter has no list of values, or there are too many combinations.
    pub fn grid(&self) -> Result<Vec<Assignment>, String> {
        let mut grid: Vec<Assignment> = vec![Vec::new()];
        for (name, domain) in &self.parameters {
            let values = match domain {
                Domain::Values(values) => values.clone(),
                Domain::IntUniform(least, most) => (*least..=*most).map(Value::from).collect(),
                Domain::Uniform(..) | Domain::LogUniform(..) => {
                    return Err(format!("`parameters.{name}` has no list of values, and a grid needs one"));
                }
            };
            if grid.len().saturating_mul(values.len()) > MOST_COMBINATIONS {
                return Err(format!("it has more than {MOST_COMBINATIONS} combinations"));
            }
            let with = |begun: &Assignment, value: &Value| {
                begun.iter().cloned().chain([(name.clone(), value.clone())]).collect()
            };
            grid = grid.iter().flat_map(|begun| values.iter().map(|value| with(begun, value))).collect();
        }
        Ok(grid)
    }

    /// Combinations that hold every value of every list, and both ends of every range, at least once: what
    /// is checked where somebody else chooses the values.
    pub fn probes(&self) -> Vec<Assignment> {
        let extremes = |domain: &Domain| match domain {
            Domain::Values(values) => values.clone(),
            Domain::IntUniform(least, most) => vec![Value::from(*least), Value::from(*most)],
            Domain::Uniform(least, most) | Domain::LogUniform(least, most) => vec![real(*least), real(*most)],
        };
        let extremes: Vec<(String, Vec<Value>)> =
            self.parameters.iter().map(|(name, domain)| (name.clone(), extremes(domain))).collect();
        let count = extremes.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        let probe = |index: usize| {
            let value = |values: &Vec<Value>| values[index.min(values.len() - 1)].clone();
            extremes.iter().map(|(name, values)| (name.clone(), value(values))).collect()
        };
        (0..count).map(probe).collect()
    }

    /// The draw with this number, counted from 0.
    pub fn draw(&self, seed: u64, number: u64) -> Assignment {
        let value =
            |(name, domain): &(String, Domain)| (name.clone(), draw_from(domain, part(seed, number, name)));
        self.parameters.iter().map(value).collect()
    }
}

/// A number from 0 to below 1: the first 53 bits of SHA-256(`seed:number:name`).
fn part(seed: u64, number: u64, name: &str) -> f64 {
    let digest = Sha256::digest(format!("{seed}:{number}:{name}"));
    let bits = digest.iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn draw_from(domain: &Domain, part: f64) -> Value {
    match domain {
        Domain::Values(values) => {
            values[((part * values.len() as f64) as usize).min(values.len() - 1)].clone()
        }
        Domain::Uniform(least, most) => real(least + part * (most - least)),
        Domain::IntUniform(least, most) => {
            let count = (most - least) as f64 + 1.0;
            Value::from((least + (part * count) as i64).min(*most))
        }
        Domain::LogUniform(least, most) => real((least.ln() + part * (most.ln() - least.ln())).exp()),
    }
}

fn real(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn read_metric(metric: Option<&Value>) -> Result<Metric, String> {
    let Some(metric) = metric else {
        return Ok(Metric { name: "val/loss".to_owned(), goal: Goal::Minimize });
    };
    let name = metric.get("name").and_then(Value::as_str).ok_or("`metric.name` is no text")?;
    let goal = match metric.get("goal").and_then(Value::as_str) {
        None | Some("minimize") => Goal::Minimize,
        Some("maximize") => Goal::Maximize,
        Some(other) => return Err(format!("`metric.goal` is `{other}`, not minimize or maximize")),
    };
    Ok(Metric { name: name.to_owned(), goal })
}

/// YAML 1.1, which Python reads, takes `1e-6` for text: what looks like a number is one.
fn numbers_as_numbers(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            let whole = text.parse::<i64>().ok().map(Value::from);
            if let Some(number) = whole.or_else(|| text.parse().ok().map(real)).filter(|n| !n.is_null()) {
                *value = number;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(numbers_as_numbers),
        Value::Object(fields) => fields.values_mut().for_each(numbers_as_numbers),
        _ => {}
    }
}

fn read_domain(name: &str, domain: &Value) -> Result<Domain, String> {
    let at = |reason: &str| format!("`parameters.{name}` {reason}");
    if let Some(values) = domain.get("values") {
        let values = values.as_array().filter(|values| !values.is_empty());
        return values
            .map(|values| Domain::Values(values.clone()))
            .ok_or_else(|| at("has an empty `values`"));
    }
    if let Some(value) = domain.get("value") {
        return Ok(Domain::Values(vec![value.clone()]));
    }
    let bound = |key: &str| domain.get(key).filter(|bound| bound.is_number());
    let (Some(least), Some(most)) = (bound("min"), bound("max")) else {
        return Err(at("has neither `values`, `value` nor `min` and `max`"));
    };
    let (low, high) = (least.as_f64().unwrap_or(f64::NAN), most.as_f64().unwrap_or(f64::NAN));
    if low.partial_cmp(&high).is_none_or(std::cmp::Ordering::is_gt) {
        return Err(at("has a `min` above its `max`"));
    }
    let whole = least.as_i64().zip(most.as_i64());
    match (domain.get("distribution").and_then(Value::as_str), whole) {
        (None | Some("int_uniform"), Some((least, most))) => Ok(Domain::IntUniform(least, most)),
        (None | Some("uniform"), _) => Ok(Domain::Uniform(low, high)),
        (Some("log_uniform_values"), _) if low > 0.0 => Ok(Domain::LogUniform(low, high)),
        (Some(other), _) => Err(at(&format!(
            "has the distribution `{other}`; known here: int_uniform, uniform, log_uniform_values (min above 0)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The seed's sweep, its rank list cut to the model's cap.
    const SEED: &str = "program: training/finetune_socialized_context.py
method: grid
metric:
  name: val/loss
  goal: minimize
parameters:
  learning_rate:
    values: [1e-6, 5e-6, 1e-5, 5e-5]
  n_epochs:
    values: [2, 3, 5]
  lora_rank:
    values: [32, 64]
";

    #[test]
    fn the_seeds_grid_has_every_combination_once_the_last_parameter_fastest() {
        let grid = Sweep::parse(SEED).unwrap().grid().unwrap();
        assert_eq!(grid.len(), 24);
        let values = |index: usize| grid[index].iter().map(|(_, value)| value.clone()).collect::<Vec<_>>();
        assert_eq!(values(0), [json!(1e-6), json!(2), json!(32)]);
        assert_eq!(values(1), [json!(1e-6), json!(2), json!(64)]);
        assert_eq!(values(23), [json!(5e-5), json!(5), json!(64)]);
        let mut texts: Vec<String> = grid.iter().map(|assignment| format!("{assignment:?}")).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 24);
    }

    #[test]
    fn draws_are_reproducible_and_within_their_domains() {
        let text = "method: random
parameters:
  learning_rate: {distribution: log_uniform_values, min: 1e-6, max: 1e-3}
  n_epochs: {min: 1, max: 4}
  warmup_ratio: {min: 0.0, max: 0.1}
  lora_rank: {values: [8, 16]}
  batch_size: {value: max}
";
        let sweep = Sweep::parse(text).unwrap();
        let mut epochs = std::collections::BTreeSet::new();
        for number in 0..200 {
            let draw = sweep.draw(42, number);
            assert_eq!(draw, sweep.draw(42, number));
            let value = |index: usize| &draw[index].1;
            assert!((1e-6..=1e-3).contains(&value(0).as_f64().unwrap()));
            epochs.insert(value(1).as_i64().unwrap());
            assert!((0.0..=0.1).contains(&value(2).as_f64().unwrap()));
            assert!([json!(8), json!(16)].contains(value(3)));
            assert_eq!(value(4), "max");
        }
        assert_eq!(epochs.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_ne!(sweep.draw(42, 0), sweep.draw(43, 0));
        // python3 -c "import hashlib;print(int.from_bytes(hashlib.sha256(b'42:0:n_epochs').digest()[:8],'big')>>11)"
        assert_eq!((part(42, 0, "n_epochs") * (1_u64 << 53) as f64) as u64, PYTHON);
    }

    /// What Python computes for the draw named in the test above.
    const PYTHON: u64 = 7147651969958625;

    #[test]
    fn probes_hold_every_value_and_both_ends() {
        let text =
            "method: bayes\nparameters:\n  lora_rank: {values: [8, 16, 128]}\n  n_epochs: {min: 1, max: 4}\n";
        let probes = Sweep::parse(text).unwrap().probes();
        let of = |name: &str| -> Vec<Value> {
            probes.iter().flatten().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
        };
        assert_eq!(
            (of("lora_rank"), of("n_epochs")),
            (vec![json!(8), json!(16), json!(128)], vec![json!(1), json!(4), json!(4)])
        );
    }

    #[test]
    fn numbers_that_python_takes_for_text_are_numbers() {
        let sweep =
            Sweep::parse("method: grid\nparameters:\n  learning_rate: {values: ['1e-6', \"5\", max]}\n");
        let Domain::Values(values) = sweep.unwrap().parameters[0].1.clone() else { panic!("values") };
        assert_eq!(values, [json!(1e-6), json!(5), json!("max")]);
    }

    #[test]
    fn what_is_no_sweep_is_refused_with_its_place() {
        let check = |text: &str, expected: &str| {
            let error = Sweep::parse(text).map(|_| ()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("- a", "mapping");
        check("method: guess\nparameters: {a: {value: 1}}", "`method`");
        check("method: grid", "`parameters`");
        check("method: grid\nparameters: {}", "empty");
        check("method: grid\nparameters: {a: {values: []}}", "`parameters.a`");
        check("method: grid\nparameters: {a: 3}", "`parameters.a`");
        check("method: random\nparameters: {a: {min: 2, max: 1}}", "`min` above");
        check("method: random\nparameters: {a: {min: 1, max: 2, distribution: beta}}", "`beta`");
        check("method: grid\nmetric: {name: x, goal: up}\nparameters: {a: {value: 1}}", "`up`");
        let uniform = Sweep::parse("method: grid\nparameters: {a: {min: 0.1, max: 0.2}}").unwrap();
        assert!(uniform.grid().unwrap_err().contains("`parameters.a`"));
        let large = "method: grid\nparameters: {a: {min: 1, max: 1000}, b: {min: 1, max: 1000}}";
        assert!(Sweep::parse(large).unwrap().grid().unwrap_err().contains("10000"));
    }
}
