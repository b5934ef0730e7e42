//! What a run has been told already, small enough to stand in its summary.
//!
//! Two programs that never met agree through it: whoever goes on with a run reads it at the service, and logs
//! what is not in it. Steps are written as progressions, since training shows every step, or every tenth.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The key of a summary that holds it.
pub(crate) const LOGGED_KEY: &str = "ctxtune/logged";
/// The key of a summary that holds who writes the run.
pub(crate) const WRITER_KEY: &str = "ctxtune/writer";

/// What makes a row the same row when it comes again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// A kind of point at a step, logged once.
    Point(String, u64),
    /// A value that is logged when it is another than before.
    Change(String, Value),
}

/// Who writes a run. Of two the later one goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Writer {
    /// One more than that of whoever wrote before.
    pub generation: u64,
    /// What tells two of one generation apart.
    pub id: String,
}

impl Writer {
    pub fn of(summary: &Map<String, Value>) -> Option<Writer> {
        let (generation, id) = summary.get(WRITER_KEY)?.as_str()?.split_once(' ')?;
        Some(Writer { generation: generation.parse().ok()?, id: id.to_owned() })
    }

    pub fn text(&self) -> String {
        format!("{} {}", self.generation, self.id)
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Logged {
    points: BTreeMap<String, BTreeSet<u64>>,
    last: BTreeMap<String, Value>,
    lines: BTreeSet<String>,
    /// The exit code, once the run was told of its end.
    pub exit: Option<i32>,
}

impl Logged {
    pub fn of(summary: &Map<String, Value>) -> Logged {
        let text = summary.get(LOGGED_KEY).and_then(Value::as_str);
        text.map(Logged::read).unwrap_or_default()
    }

    /// Reads what [`Logged::text`] wrote; what is not understood was not logged.
    pub fn read(text: &str) -> Logged {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let object = |key: &str| value.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
        let points = object("points");
        let lines = value.get("lines").and_then(Value::as_array);
        Logged {
            points: points.into_iter().map(|(kind, steps)| (kind, expanded(&steps))).collect(),
            last: object("last").into_iter().collect(),
            lines: lines.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
            exit: value.get("exit").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok()),
        }
    }

    pub fn text(&self) -> String {
        let points: Map<String, Value> =
            self.points.iter().map(|(kind, steps)| (kind.clone(), progressions(steps))).collect();
        json!({ "points": points, "last": self.last, "lines": self.lines, "exit": self.exit }).to_string()
    }

    /// Takes a row; whether it is new.
    pub fn insert(&mut self, key: &Key) -> bool {
        match key {
            Key::Point(kind, step) => self.points.entry(kind.clone()).or_default().insert(*step),
            Key::Change(name, value) => self.last.insert(name.clone(), value.clone()).as_ref() != Some(value),
        }
    }

    /// Takes a line of the console; whether it is new.
    pub(crate) fn insert_line(&mut self, line: &str) -> bool {
        let digest = Sha256::digest(line.as_bytes());
        self.lines.insert(digest[..4].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Steps as progressions: a number, or `[first, last, stride]`.
fn progressions(steps: &BTreeSet<u64>) -> Value {
    let steps: Vec<u64> = steps.iter().copied().collect();
    let mut runs = Vec::new();
    let mut rest = steps.as_slice();
    while let [first, tail @ ..] = rest {
        let stride = tail.first().map_or(1, |next| next - first);
        let count = 1 + tail.iter().zip(1..).take_while(|(step, n)| **step == first + n * stride).count();
        if count < 3 {
            runs.push(json!(first));
            rest = tail;
        } else {
            runs.push(json!([first, rest[count - 1], stride]));
            rest = &rest[count..];
        }
    }
    Value::Array(runs)
}

/// The most steps that a progression from outside may stand for.
const MOST_STEPS: u64 = 10_000_000;

fn expanded(runs: &Value) -> BTreeSet<u64> {
    let mut steps = BTreeSet::new();
    for run in runs.as_array().into_iter().flatten() {
        match (run.as_u64(), serde_json::from_value::<[u64; 3]>(run.clone())) {
            (Some(step), _) => {
                steps.insert(step);
            }
            (None, Ok([first, last, stride]))
                if stride > 0 && last.saturating_sub(first) / stride < MOST_STEPS =>
            {
                steps.extend((first..=last).step_by(usize::try_from(stride).unwrap_or(usize::MAX)));
            }
            _ => {}
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(kind: &str, step: u64) -> Key {
        Key::Point(kind.to_owned(), step)
    }

    fn change(value: &str) -> Key {
        Key::Change("status".to_owned(), json!(value))
    }

    #[track_caller]
    fn check(steps: &[u64], expected: Value) {
        let steps: BTreeSet<u64> = steps.iter().copied().collect();
        assert_eq!(progressions(&steps), expected);
        assert_eq!(expanded(&expected), steps);
    }

    #[test]
    fn steps_are_written_as_progressions() {
        check(&[], json!([]));
        check(&[7], json!([7]));
        check(&[7, 9], json!([7, 9]));
        check(&[1, 2, 3, 4], json!([[1, 4, 1]]));
        check(&[10, 20, 30, 31, 50, 60, 70], json!([[10, 30, 10], 31, [50, 70, 10]]));
        check(&(1..=100_000).collect::<Vec<_>>(), json!([[1, 100_000, 1]]));
    }

    #[test]
    fn progressions_from_outside_do_no_harm() {
        let strange = json!([[1, 5, 0], [1, u64::MAX, 1], [5, 1, 1], "x", [1, 2], 3]);
        assert_eq!(expanded(&strange), BTreeSet::from([3]));
        assert_eq!(Logged::read("nothing"), Logged::default());
        assert_eq!(Logged::read("[1]"), Logged::default());
    }

    #[test]
    fn what_is_logged_is_not_new_also_after_it_was_written_and_read() {
        let mut logged = Logged::default();
        assert!(logged.insert(&point("train", 1)) && logged.insert(&point("eval", 1)));
        assert!(logged.insert(&change("running")) && logged.insert_line("a"));
        logged.exit = Some(6);
        let mut read = Logged::read(&logged.text());
        assert_eq!(read, logged);
        assert!(!read.insert(&point("train", 1)) && !read.insert(&change("running")));
        assert!(!read.insert_line("a") && read.insert_line("b"));
        assert!(read.insert(&change("completed")) && read.insert(&change("running")), "it has changed");
    }

    #[test]
    fn of_two_writers_the_later_one_goes_on() {
        let writer = |generation, id: &str| Writer { generation, id: id.to_owned() };
        assert!(writer(2, "a") > writer(1, "b") && writer(2, "b") > writer(2, "a"));
        let summary = json!({ WRITER_KEY: writer(3, "x").text() });
        assert_eq!(Writer::of(summary.as_object().unwrap()), Some(writer(3, "x")));
        assert_eq!(Writer::of(&Map::new()), None);
    }
}
