//! A sweep: which values of which parameters are tried, and in which order.
//!
//! The file is the one that Weights & Biases takes, and means what it means there: a key that is not carried
//! out is refused by name, never dropped. What is not about the search (program, command, description) is
//! carried along unread. `grid` is every combination, the last parameter varying fastest; `random` draws from
//! SHA-256 over seed, number and name, so that anybody draws the same. `bayes` is W&B's affair: it learns from
//! runs. See <https://docs.wandb.ai/guides/sweeps/sweep-config-keys>.

pub mod agent;
pub mod book;
pub mod claims;
pub mod make;
pub mod price;
pub mod run;
pub mod runs;
pub mod start;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use ctxtune_engine::yaml;

const MOST_COMBINATIONS: usize = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("cannot read `{path}`: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{path}` is no sweep: {reason}")]
    Unfit { path: PathBuf, reason: String },
}

/// Who runs the sweep, which decides what its file may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// This program: all that it does not carry out as W&B does is refused.
    Native,
    /// `wandb agent`: W&B draws the values and ends runs early itself.
    Agent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Grid,
    Random,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Less is better.
    Minimize,
    /// More is better.
    Maximize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name: `val/loss`, `eval/loss`, `train/loss`.
    pub name: String,
    /// Which way is better.
    pub goal: Goal,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Domain {
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

#[derive(Debug, Clone)]
pub struct Sweep {
    pub method: Method,
    pub metric: Metric,
    pub parameters: Vec<(String, Domain)>,
    /// What is varied by distributions that W&B draws and this program does not; only of an agent's sweep.
    pub drawn_elsewhere: Vec<String>,
    pub run_cap: Option<u64>,
    /// What W&B shows as the sweep's name, if the file says.
    pub name: Option<String>,
    /// The W&B project of the sweep, if the file says.
    pub project: Option<String>,
    /// The W&B user or team of the sweep, if the file says.
    pub entity: Option<String>,
    /// The whole document, numbers that YAML 1.1 takes for text made numbers.
    pub document: Map<String, Value>,
}

/// Top-level keys that are used or may stand there without changing what is tried.
const KEYS: [&str; 12] = [
    "method",
    "metric",
    "parameters",
    "run_cap",
    "name",
    "project",
    "entity",
    "description",
    "program",
    "command",
    "apiVersion",
    "kind",
];

/// Top-level keys of W&B that only `wandb agent` carries out.
const AGENT_KEYS: [&str; 2] = ["early_terminate", "controller"];
/// Top-level keys of W&B that neither carries out with a command of its own.
const OTHER_KEYS: [&str; 4] = ["job", "image_uri", "metrics", "scheduler"];
const METRIC_KEYS: [&str; 4] = ["name", "goal", "impute", "impute_while_running"];

/// The distributions of W&B that are drawn here, each as W&B draws it, and the keys beside `distribution`.
const DRAWN: [(&str, &[&str]); 5] = [
    ("constant", &["value"]),
    ("categorical", &["values"]),
    ("int_uniform", &["min", "max"]),
    ("uniform", &["min", "max"]),
    ("log_uniform_values", &["min", "max"]),
];

const NOT_DRAWN: [(&str, &[&str]); 13] = [
    ("categorical_w_probabilities", &["values", "probabilities"]),
    ("log_uniform", &["min", "max"]),
    ("inv_log_uniform", &["min", "max"]),
    ("inv_log_uniform_values", &["min", "max"]),
    ("q_uniform", &["min", "max", "q"]),
    ("q_log_uniform", &["min", "max", "q"]),
    ("q_log_uniform_values", &["min", "max", "q"]),
    ("normal", &["mu", "sigma"]),
    ("log_normal", &["mu", "sigma"]),
    ("q_normal", &["mu", "sigma", "q"]),
    ("q_log_normal", &["mu", "sigma", "q"]),
    ("beta", &["a", "b"]),
    ("q_beta", &["a", "b", "q"]),
];

impl Sweep {
    pub fn read(path: &Path, runner: Runner) -> Result<Sweep, SweepError> {
        let bytes =
            std::fs::read(path).map_err(|source| SweepError::Read { path: path.to_owned(), source })?;
        let sweep = yaml::text(bytes).and_then(|text| Sweep::parse(&text, runner));
        sweep.map_err(|reason| SweepError::Unfit { path: path.to_owned(), reason })
    }

    pub fn parse(text: &str, runner: Runner) -> Result<Sweep, String> {
        let document: Value = yaml::parse(text)?;
        let Value::Object(mut document) = document else {
            return Err("it is not a mapping of keys to values".to_owned());
        };
        document.keys().try_for_each(|key| check_key(key, runner))?;
        let method = match document.get("method").and_then(Value::as_str) {
            Some("grid") => Method::Grid,
            Some("random") => Method::Random,
            Some("bayes") => Method::Bayes,
            other => {
                return Err(format!("`method` is {other:?}, not grid, random or bayes").replace("Some", ""));
            }
        };
        let metric = read_metric(document.get("metric"), method, runner)?;
        let Some(Value::Object(parameters)) = document.get_mut("parameters") else {
            return Err("`parameters` is not a mapping of names to values".to_owned());
        };
        parameters.values_mut().for_each(numbers_as_numbers);
        if parameters.is_empty() {
            return Err("`parameters` is empty: there is nothing to vary".to_owned());
        }
        let (mut drawn, mut drawn_elsewhere) = (Vec::new(), Vec::new());
        for (name, said) in parameters.iter() {
            match read_domain(said, runner).map_err(|reason| format!("`parameters.{name}` {reason}"))? {
                Some(domain) => drawn.push((name.clone(), domain)),
                None => drawn_elsewhere.push(name.clone()),
            }
        }
        Ok(Sweep {
            method,
            metric,
            parameters: drawn,
            drawn_elsewhere,
            run_cap: read_run_cap(document.get("run_cap"))?,
            name: read_text(&document, "name")?,
            project: read_text(&document, "project")?,
            entity: read_text(&document, "entity")?,
            document,
        })
    }

    /// Every combination once, the last parameter varying fastest.
    pub fn grid(&self) -> Result<Vec<Assignment>, String> {
        let mut lists = Vec::new();
        for (name, domain) in &self.parameters {
            let values = match domain {
                Domain::Values(values) => distinct(values),
                Domain::IntUniform(least, most) => integers(*least, *most).ok_or_else(too_many)?,
                Domain::Uniform(..) | Domain::LogUniform(..) => {
                    return Err(format!("`parameters.{name}` has no list of values, and a grid needs one"));
                }
            };
            lists.push((name, values));
        }
        product(&lists).ok_or_else(too_many)
    }

    /// What is held against a model's limits where W&B chooses the values: every combination of the listed
    /// values and of both ends of every range. Where those are too many, combinations that hold each of them
    /// at least once.
    pub(crate) fn probes(&self) -> Vec<Assignment> {
        let lists: Vec<(&String, Vec<Value>)> =
            self.parameters.iter().map(|(name, domain)| (name, domain.extremes())).collect();
        product(&lists).unwrap_or_else(|| {
            let count = lists.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
            let probe = |index: usize| {
                let value = |values: &Vec<Value>| values[index.min(values.len() - 1)].clone();
                lists.iter().map(|(name, values)| ((*name).clone(), value(values))).collect()
            };
            (0..count).map(probe).collect()
        })
    }

    /// Every combination of the parameters in `keys`, the others at one of their values. Nothing where one
    /// of them is a range of real numbers, or the combinations are too many to be listed.
    pub fn combinations_of(&self, keys: &[&str]) -> Option<Vec<Assignment>> {
        let mut lists = Vec::new();
        for (name, domain) in &self.parameters {
            let values = match domain {
                _ if !keys.contains(&name.as_str()) => domain.extremes().into_iter().take(1).collect(),
                Domain::Values(values) => distinct(values),
                Domain::IntUniform(least, most) => integers(*least, *most)?,
                Domain::Uniform(..) | Domain::LogUniform(..) => return None,
            };
            lists.push((name, values));
        }
        product(&lists)
    }

    /// The draw with this number, counted from 0.
    pub fn draw(&self, seed: u64, number: u64) -> Assignment {
        let value =
            |(name, domain): &(String, Domain)| (name.clone(), draw_from(domain, part(seed, number, name)));
        self.parameters.iter().map(value).collect()
    }
}

impl Domain {
    /// Every listed value, or both ends of a range.
    pub(crate) fn extremes(&self) -> Vec<Value> {
        match self {
            Domain::Values(values) => distinct(values),
            Domain::IntUniform(least, most) => vec![Value::from(*least), Value::from(*most)],
            Domain::Uniform(least, most) | Domain::LogUniform(least, most) => vec![real(*least), real(*most)],
        }
    }
}

fn too_many() -> String {
    format!("it has more than {MOST_COMBINATIONS} combinations")
}

/// Each value once; `1` and `1.0` are the same, as to W&B.
fn distinct(values: &[Value]) -> Vec<Value> {
    let is_same = |one: &Value, other: &Value| match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    };
    let mut kept: Vec<Value> = Vec::new();
    for value in values {
        if !kept.iter().any(|known| is_same(known, value)) {
            kept.push(value.clone());
        }
    }
    kept
}

/// All whole numbers of a range, unless they are too many to be listed.
fn integers(least: i64, most: i64) -> Option<Vec<Value>> {
    (most.abs_diff(least) < MOST_COMBINATIONS as u64).then(|| (least..=most).map(Value::from).collect())
}

/// Every combination of the values, the last list varying fastest, unless they are too many.
fn product(lists: &[(&String, Vec<Value>)]) -> Option<Vec<Assignment>> {
    let count = lists.iter().try_fold(1_usize, |count, (_, values)| count.checked_mul(values.len()))?;
    if count > MOST_COMBINATIONS {
        return None;
    }
    let mut product: Vec<Assignment> = vec![Vec::new()];
    for (name, values) in lists {
        let with = |begun: &Assignment, value: &Value| {
            begun.iter().cloned().chain([((*name).clone(), value.clone())]).collect()
        };
        product = product.iter().flat_map(|begun| values.iter().map(|value| with(begun, value))).collect();
    }
    Some(product)
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
        Domain::Uniform(least, most) => real((least + part * (most - least)).clamp(*least, *most)),
        Domain::IntUniform(least, most) => {
            let count = most.abs_diff(*least) as f64 + 1.0;
            Value::from(least.saturating_add_unsigned((part * count) as u64).min(*most))
        }
        Domain::LogUniform(least, most) => {
            real((least.ln() + part * (most.ln() - least.ln())).exp().clamp(*least, *most))
        }
    }
}

fn real(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn check_key(key: &str, runner: Runner) -> Result<(), String> {
    if KEYS.contains(&key) || (runner == Runner::Agent && AGENT_KEYS.contains(&key)) {
        return Ok(());
    }
    if AGENT_KEYS.contains(&key) {
        return Err(format!(
            "`{key}` is not supported by `sweep run`; `sweep init` hands the sweep to `wandb agent`, which supports it"
        ));
    }
    if OTHER_KEYS.contains(&key) {
        return Err(format!("`{key}` is not supported"));
    }
    let known = KEYS.into_iter().chain(AGENT_KEYS);
    let near = known.filter(|known| strsim::damerau_levenshtein(known, key) <= 2);
    let near = near.min_by_key(|known| strsim::damerau_levenshtein(known, key));
    Err(format!(
        "unknown key `{key}`{}",
        near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
    ))
}

fn read_text(document: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match document.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(other) => Err(format!("`{key}` is {other}, not text")),
    }
}

fn read_run_cap(said: Option<&Value>) -> Result<Option<u64>, String> {
    match said {
        None => Ok(None),
        Some(said) => match said.as_u64().filter(|cap| *cap > 0) {
            Some(cap) => Ok(Some(cap)),
            None => Err(format!("`run_cap` must be a whole number of at least 1, got {said}")),
        },
    }
}

fn read_metric(said: Option<&Value>, method: Method, runner: Runner) -> Result<Metric, String> {
    let Some(said) = said else {
        if method == Method::Bayes {
            return Err("`method: bayes` needs a `metric`".to_owned());
        }
        return Ok(Metric { name: "val/loss".to_owned(), goal: Goal::Minimize });
    };
    let fields = said.as_object().ok_or("`metric` is not a mapping")?;
    for key in fields.keys().map(String::as_str).filter(|key| !METRIC_KEYS.contains(key)) {
        match (key, runner) {
            ("target", Runner::Agent) => {}
            ("target", Runner::Native) => {
                return Err("`metric.target` is not supported by `sweep run`".to_owned());
            }
            _ => return Err(format!("unknown key `metric.{key}`")),
        }
    }
    let name = fields.get("name").and_then(Value::as_str).ok_or("`metric.name` is no text")?;
    let goal = match fields.get("goal") {
        None => Goal::Minimize,
        Some(goal) if goal == "minimize" => Goal::Minimize,
        Some(goal) if goal == "maximize" => Goal::Maximize,
        Some(other) => return Err(format!("`metric.goal` is {other}, not minimize or maximize")),
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

/// The domain of a parameter; nothing where only W&B draws from it.
fn read_domain(said: &Value, runner: Runner) -> Result<Option<Domain>, String> {
    let fields = said.as_object().ok_or("is not a mapping such as `values: [1, 2]`")?;
    if fields.contains_key("parameters") {
        return Err(
            "has nested `parameters`, which are not supported: a job's parameters are flat".to_owned()
        );
    }
    let distribution = match fields.get("distribution") {
        None => usual_distribution(fields)?,
        Some(Value::String(name)) => name.as_str(),
        Some(other) => return Err(format!("has the distribution {other}, which is not a name")),
    };
    let drawn = DRAWN.iter().find(|(name, _)| *name == distribution);
    let (_, keys) = drawn
        .or_else(|| NOT_DRAWN.iter().find(|(name, _)| *name == distribution))
        .ok_or_else(|| format!("has the unknown distribution `{distribution}`"))?;
    if drawn.is_none() && runner == Runner::Native {
        let what = match distribution {
            "categorical_w_probabilities" => {
                "has `probabilities`, which `sweep run` does not support".to_owned()
            }
            other => format!("has the distribution `{other}`, which `sweep run` does not support"),
        };
        let supported: Vec<&str> = DRAWN.iter().map(|(name, _)| *name).collect();
        return Err(format!("{what}; supported: {}", supported.join(", ")));
    }
    let is_strange = |key: &&String| *key != "distribution" && !keys.contains(&key.as_str());
    if let Some(key) = fields.keys().find(is_strange) {
        return Err(format!("has the key `{key}`, which the distribution {distribution} does not take"));
    }
    if drawn.is_none() {
        return Ok(None);
    }
    match distribution {
        "constant" => Ok(Some(Domain::Values(vec![fields.get("value").ok_or("has no `value`")?.clone()]))),
        "categorical" => {
            let values = fields.get("values").and_then(Value::as_array).filter(|values| !values.is_empty());
            Ok(Some(Domain::Values(values.ok_or("has no list of `values`, or an empty one")?.clone())))
        }
        _ => range(distribution, fields).map(Some),
    }
}

/// The distribution that W&B takes where none is named.
fn usual_distribution(fields: &Map<String, Value>) -> Result<&'static str, String> {
    let has = |key: &str| fields.contains_key(key);
    match (fields.get("min"), fields.get("max")) {
        _ if has("values") && has("probabilities") => Ok("categorical_w_probabilities"),
        _ if has("values") => Ok("categorical"),
        _ if has("value") => Ok("constant"),
        (Some(least), Some(most)) if least.is_i64() && most.is_i64() => Ok("int_uniform"),
        (Some(least), Some(most)) if least.is_f64() && most.is_f64() => Ok("uniform"),
        (Some(least), Some(most)) => Err(format!(
            "has the bounds {least} and {most}: W&B wants both as integers or both as floats, or a `distribution`"
        )),
        _ => Err("has neither `values`, `value` nor `min` and `max`".to_owned()),
    }
}

fn range(distribution: &str, fields: &Map<String, Value>) -> Result<Domain, String> {
    let bound = |key: &str| fields.get(key).filter(|bound| bound.is_number());
    let (Some(least), Some(most)) = (bound("min"), bound("max")) else {
        return Err("has a `min` or a `max` that is not a number".to_owned());
    };
    let (low, high) = (least.as_f64().unwrap_or(f64::NAN), most.as_f64().unwrap_or(f64::NAN));
    if low.partial_cmp(&high) != Some(std::cmp::Ordering::Less) || !(high - low).is_finite() {
        return Err(format!("has the bounds {least} and {most}: `min` must be below `max`"));
    }
    match (distribution, least.as_i64().zip(most.as_i64())) {
        ("int_uniform", Some((least, most))) => Ok(Domain::IntUniform(least, most)),
        ("int_uniform", None) => {
            Err(format!("has the bounds {least} and {most}: int_uniform takes integers"))
        }
        ("log_uniform_values", _) if low <= 0.0 => {
            Err(format!("has the `min` {least}: log_uniform_values takes bounds above 0"))
        }
        ("log_uniform_values", _) => Ok(Domain::LogUniform(low, high)),
        _ => Ok(Domain::Uniform(low, high)),
    }
}

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

    fn parsed(text: &str) -> Result<Sweep, String> {
        Sweep::parse(text, Runner::Native)
    }

    #[test]
    fn the_seeds_grid_has_every_combination_once_the_last_parameter_fastest() {
        let grid = parsed(SEED).unwrap().grid().unwrap();
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
        let sweep = parsed(text).unwrap();
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
    fn probes_are_every_combination_of_values_and_ends_unless_they_are_too_many() {
        let text = "method: random\nparameters:\n  lora_rank: {values: [8, 16, 128, 16]}\n  n_epochs: {min: 1, max: 4}\n";
        let probes = parsed(text).unwrap().probes();
        let pairs: Vec<_> = probes.iter().map(|probe| (probe[0].1.clone(), probe[1].1.clone())).collect();
        let expected: Vec<_> =
            [8, 16, 128].iter().flat_map(|rank| [1, 4].map(|epochs| (json!(rank), json!(epochs)))).collect();
        assert_eq!(pairs, expected);
        let many: Vec<u64> = (0..200).collect();
        let text = format!(
            "method: random\nparameters: {{a: {{values: {many:?}}}, b: {{values: {many:?}}}, c: {{min: 1, max: 9}}}}"
        );
        let probes = parsed(&text).unwrap().probes();
        assert_eq!(probes.len(), 200);
        for (index, count) in [(0, 200), (1, 200), (2, 2)] {
            let mut values: Vec<String> = probes.iter().map(|probe| probe[index].1.to_string()).collect();
            values.sort();
            values.dedup();
            assert_eq!(values.len(), count);
        }
    }

    #[test]
    fn combinations_of_some_parameters_leave_the_others_at_one_value() {
        let text = "method: random\nparameters:\n  a: {min: 1, max: 3}\n  b: {min: 0.0, max: 1.0}\n  c: {values: [x, y]}\n";
        let sweep = parsed(text).unwrap();
        let count = |keys: &[&str]| sweep.combinations_of(keys).map(|combinations| combinations.len());
        assert_eq!(
            (count(&["a", "c"]), count(&["a"]), count(&[]), count(&["b"])),
            (Some(6), Some(3), Some(1), None)
        );
        assert!(sweep.combinations_of(&["a", "c"]).unwrap().iter().all(|values| values[1].1 == json!(0.0)));
        let large = parsed("method: random\nparameters: {a: {min: 1, max: 10001}, b: {value: 1}}").unwrap();
        assert_eq!(large.combinations_of(&["a"]), None);
        let widest = format!("method: random\nparameters: {{a: {{min: {}, max: {}}}}}", i64::MIN, i64::MAX);
        let widest = parsed(&widest).unwrap();
        assert_eq!(widest.combinations_of(&["a"]), None);
        assert!((0..50).all(|number| widest.draw(1, number)[0].1.is_i64()));
    }

    #[test]
    fn equal_values_of_a_grid_are_one_combination() {
        let grid =
            parsed("method: grid\nparameters: {a: {values: [1, 1.0, 2, 1]}, b: {values: [x, x]}}").unwrap();
        assert_eq!(grid.grid().unwrap().len(), 2);
    }

    #[test]
    fn numbers_that_python_takes_for_text_are_numbers() {
        let sweep = parsed("method: grid\nparameters:\n  learning_rate: {values: ['1e-6', \"5\", max]}\n");
        let Domain::Values(values) = sweep.unwrap().parameters[0].1.clone() else { panic!("values") };
        assert_eq!(values, [json!(1e-6), json!(5), json!("max")]);
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let error = parsed(text).map(|_| ()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_no_sweep_is_refused_with_its_place() {
        check_refused("- a", "mapping");
        check_refused("method: guess\nparameters: {a: {value: 1}}", "`method`");
        check_refused("method: grid", "`parameters`");
        check_refused("method: grid\nparameters: {}", "empty");
        check_refused("method: grid\nparameters: {a: {values: []}}", "`parameters.a`");
        check_refused("method: grid\nparameters: {a: 3}", "`parameters.a`");
        check_refused("method: random\nparameters: {a: {min: 2, max: 1}}", "`parameters.a`");
        check_refused("method: random\nparameters: {a: {min: 1, max: 1}}", "`parameters.a`");
        check_refused("method: random\nparameters: {a: {min: -1.7e308, max: 1.7e308}}", "`parameters.a`");
        check_refused("method: grid\nmetric: {name: x, goal: up}\nparameters: {a: {value: 1}}", "up");
        check_refused("method: bayes\nparameters: {a: {value: 1}}", "`metric`");
        for cap in ["0", "-1", "2.5", "many"] {
            check_refused(
                &format!("method: grid\nrun_cap: {cap}\nparameters: {{a: {{value: 1}}}}"),
                "`run_cap`",
            );
        }
        let uniform = parsed("method: grid\nparameters: {a: {min: 0.1, max: 0.2}}").unwrap();
        assert!(uniform.grid().unwrap_err().contains("`parameters.a`"));
        let large = "method: grid\nparameters: {a: {min: 1, max: 1000}, b: {min: 1, max: 1000}}";
        assert!(parsed(large).unwrap().grid().unwrap_err().contains("10000"));
    }

    /// A sweep of one parameter with this definition.
    fn with_parameter(definition: &str) -> String {
        format!("method: random\nparameters: {{a: {definition}}}")
    }

    #[test]
    fn a_distribution_is_drawn_as_wandb_draws_it_or_refused_by_name() {
        let drawn = |definition: &str| parsed(&with_parameter(definition)).unwrap().parameters[0].1.clone();
        assert_eq!(drawn("{min: 1, max: 3}"), Domain::IntUniform(1, 3));
        assert_eq!(drawn("{min: 1.0, max: 3.0}"), Domain::Uniform(1.0, 3.0));
        assert_eq!(drawn("{distribution: uniform, min: 1, max: 3}"), Domain::Uniform(1.0, 3.0));
        assert_eq!(
            drawn("{distribution: log_uniform_values, min: 1e-3, max: 3}"),
            Domain::LogUniform(1e-3, 3.0)
        );
        assert_eq!(drawn("{distribution: categorical, values: [1]}"), Domain::Values(vec![json!(1)]));
        assert_eq!(drawn("{distribution: constant, value: 1}"), Domain::Values(vec![json!(1)]));
        for (distribution, keys) in NOT_DRAWN {
            let keys: String = keys
                .iter()
                .map(|key| format!(", {key}: {}", if key.ends_with('s') { "[1]" } else { "1" }))
                .collect();
            let text = with_parameter(&format!("{{distribution: {distribution}{keys}}}"));
            let named =
                if distribution == "categorical_w_probabilities" { "probabilities" } else { distribution };
            check_refused(&text, &format!("`{named}`"));
            let agents = Sweep::parse(&text, Runner::Agent).unwrap();
            assert_eq!((agents.parameters.len(), agents.drawn_elsewhere), (0, vec!["a".to_owned()]));
        }
        check_refused(&with_parameter("{values: [1, 2], probabilities: [0.9, 0.1]}"), "`probabilities`");
        check_refused(&with_parameter("{parameters: {b: {value: 1}}}"), "nested");
        check_refused(&with_parameter("{min: 1, max: 2.5}"), "1 and 2.5");
        check_refused(&with_parameter("{distribution: int_uniform, min: 1, max: 2.5}"), "int_uniform");
        check_refused(
            &with_parameter("{distribution: log_uniform_values, min: 0, max: 1}"),
            "log_uniform_values",
        );
        check_refused(&with_parameter("{distribution: gamma, min: 1, max: 2}"), "`gamma`");
        check_refused(&with_parameter("{values: [1], min: 1}"), "`min`");
        check_refused(&with_parameter("{min: 1, max: 2, q: 2}"), "`q`");
        check_refused(&with_parameter("{value: 1, note: x}"), "`note`");
        assert!(Sweep::parse(&with_parameter("{distribution: gamma, a: 1}"), Runner::Agent).is_err());
    }

    #[test]
    fn a_key_is_carried_out_or_refused_by_name() {
        let with = |line: &str| format!("{line}\nmethod: grid\nparameters: {{a: {{value: 1}}}}");
        let sweep =
            parsed(&with("project: mine\nentity: team\nname: ranks\ndescription: d\nprogram: x.py")).unwrap();
        assert_eq!([sweep.project, sweep.entity, sweep.name].map(Option::unwrap), ["mine", "team", "ranks"]);
        for key in AGENT_KEYS {
            check_refused(&with(&format!("{key}: {{type: cloud}}")), &format!("`{key}`"));
            assert!(Sweep::parse(&with(&format!("{key}: {{type: cloud}}")), Runner::Agent).is_ok());
        }
        for key in OTHER_KEYS {
            check_refused(&with(&format!("{key}: x")), &format!("`{key}`"));
        }
        check_refused(&with("metrix: {}"), "did you mean `metric`?");
        check_refused(&with("earl_terminate: {}"), "did you mean `early_terminate`?");
        check_refused(&with("zzzzzz: 1"), "`zzzzzz`");
        check_refused(&with("project: 3"), "`project`");
        check_refused(&with("metric: {name: val/loss, target: 0.1}"), "`metric.target`");
        check_refused(&with("metric: {name: val/loss, gaol: minimize}"), "`metric.gaol`");
        assert!(parsed(&with("metric: {name: val/loss, impute: worst}")).is_ok());
    }

    #[test]
    fn values_are_shown_as_people_write_them() {
        let values = vec![("learning_rate".to_owned(), json!(1e-5)), ("batch_size".to_owned(), json!("max"))];
        assert_eq!(shown_values(&values), "learning_rate=1e-5  batch_size=max");
    }
}
