//! Which request goes wrong, and how: rules as a file says them, and the pure decision for one request.
//!
//! The same requests in the same order meet the same faults. It decides; it never touches a connection.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// All that goes wrong; by default nothing. A file says it in YAML or JSON.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// The first rule that fits a request decides about it.
    pub rules: Vec<Rule>,
    pub seed: u64,
    pub shuffle_events: bool,
    pub double_events: bool,
    /// Statuses that nobody documented: from a second of a job until its status changes. In a file, a mapping.
    #[serde(deserialize_with = "by_second")]
    pub statuses: Vec<(f64, String)>,
    pub omit: Vec<String>,
    pub nan_metrics: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawRule")]
pub struct Rule {
    /// Any, unless one is named.
    pub method: Option<String>,
    /// The beginning of a path; with `*` a pattern for the whole path; with `$` at its end a whole
    /// path. Without the query.
    pub path: String,
    pub when: When,
    pub times: Option<u64>,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq)]
pub enum When {
    Always,
    /// These, counted from 1.
    Nth(Vec<u64>),
    Every(u64),
    /// This part of them, chosen by the seed and the number of the request.
    Rate(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Before,
    /// It is carried out, and only its reply is lost.
    After,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Another answer. A `body` that is empty becomes the API's shape of an error.
    Status {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
        side: Side,
    },
    Reset(Side),
    ResetAfterBytes(u64),
    ResetAfterPercent(f64),
    /// Carried out, then closed without a byte.
    LoseReply,
    /// Carried out, and answered after so many seconds.
    Hang(f64),
    /// Carried out; only so many bytes of the reply's body are sent, behind its whole head.
    CutReply(u64),
    /// Carried out; a 200 with this instead of the reply's body.
    Body(String),
    /// Carried out; so many milliseconds before each byte of the reply.
    Trickle(u64),
    /// Not carried out; a 307. `{api}`, `{storage}` and `{path}` in it are replaced.
    Redirect(String),
    /// Not carried out; a 400 whose message quotes the `Authorization` header.
    EchoKey,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    fitted: u64,
    used: u64,
}

impl Action {
    pub(crate) fn lets_act(&self) -> bool {
        match self {
            Action::Reset(side) | Action::Status { side, .. } => *side == Side::After,
            Action::Redirect(_) | Action::EchoKey => false,
            _ => true,
        }
    }
}

impl Faults {
    /// What happens to the request of this number. `counts` has one for each rule, and is updated.
    pub(crate) fn decide(
        &self,
        counts: &mut [Count],
        number: usize,
        method: &str,
        path: &str,
    ) -> Option<&Action> {
        let mut decided = None;
        for (index, (rule, count)) in self.rules.iter().zip(counts).enumerate() {
            if !rule.fits(method, path) {
                continue;
            }
            count.fitted += 1;
            let is_chosen = match &rule.when {
                When::Always => true,
                When::Nth(numbers) => numbers.contains(&count.fitted),
                When::Every(period) => count.fitted.is_multiple_of(*period),
                When::Rate(rate) => chance(&[self.seed, number as u64, index as u64]) < *rate,
            };
            if is_chosen && decided.is_none() && rule.times.is_none_or(|times| count.used < times) {
                count.used += 1;
                decided = Some(&rule.action);
            }
        }
        decided
    }
}

impl Rule {
    fn fits(&self, method: &str, path: &str) -> bool {
        self.method.as_ref().is_none_or(|known| known.eq_ignore_ascii_case(method))
            && match self.path.strip_suffix('$') {
                Some(whole) => is_like(whole, path),
                None if self.path.contains('*') => is_like(&self.path, path),
                None => path.starts_with(&self.path),
            }
    }
}

/// Whether `text` is `pattern`, where `*` stands for anything.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((first, others)) = pattern.split_once('*') else { return text == pattern };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let (middle, last) = others.rsplit_once('*').unwrap_or(("", others));
    for part in middle.split('*') {
        let Some(start) = rest.find(part) else { return false };
        rest = &rest[start + part.len()..];
    }
    rest.ends_with(last)
}

/// A number in [0, 1) that `words` decide alone.
pub(crate) fn chance(words: &[u64]) -> f64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in words {
        // The finalizer of SplitMix64: every bit of the input moves every bit of the output.
        state = state.wrapping_add(*word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    (state >> 11) as f64 / (1_u64 << 53) as f64
}

/// The second as a number, in ascending order.
fn by_second<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(f64, String)>, D::Error> {
    let mut statuses = Vec::new();
    for (second, status) in BTreeMap::<String, String>::deserialize(deserializer)? {
        match second.parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 0.0 => statuses.push((number, status)),
            _ => return Err(D::Error::custom(format!("statuses: `{second}` is no number of seconds"))),
        }
    }
    statuses.sort_by(|left, right| left.0.total_cmp(&right.0));
    Ok(statuses)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    method: Option<String>,
    path: String,
    nth: Option<Vec<u64>>,
    every: Option<u64>,
    rate: Option<f64>,
    times: Option<u64>,
    #[serde(rename = "do")]
    action: RawAction,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAction {
    status: Option<u16>,
    headers: Option<BTreeMap<String, String>>,
    body: Option<String>,
    acts: Option<bool>,
    reset: Option<Side>,
    reset_after_bytes: Option<u64>,
    reset_after_percent: Option<f64>,
    lose_reply: Option<bool>,
    hang: Option<f64>,
    cut_reply: Option<u64>,
    trickle: Option<u64>,
    redirect: Option<String>,
    echo_key: Option<bool>,
}

impl TryFrom<RawRule> for Rule {
    type Error = String;

    fn try_from(raw: RawRule) -> Result<Rule, String> {
        let when = match (raw.nth, raw.every, raw.rate) {
            (None, None, None) => When::Always,
            (Some(numbers), None, None) if !numbers.contains(&0) => When::Nth(numbers),
            (Some(_), None, None) => return Err("`nth` counts from 1".to_owned()),
            (None, Some(0), None) => return Err("`every` is at least 1".to_owned()),
            (None, Some(period), None) => When::Every(period),
            (None, None, Some(rate)) if (0.0..=1.0).contains(&rate) => When::Rate(rate),
            (None, None, Some(rate)) => return Err(format!("`rate` is between 0 and 1, not {rate}")),
            _ => return Err("only one of `nth`, `every`, `rate`".to_owned()),
        };
        Ok(Rule { method: raw.method, path: raw.path, when, times: raw.times, action: raw.action.resolve()? })
    }
}

impl RawAction {
    fn resolve(self) -> Result<Action, String> {
        let is_status = self.status.is_some();
        if !is_status && (self.headers.is_some() || self.acts.is_some()) {
            return Err("`headers` and `acts` go with `status`".to_owned());
        }
        if self.lose_reply == Some(false) || self.echo_key == Some(false) {
            return Err("`lose_reply` and `echo_key` are true or not there".to_owned());
        }
        if self.hang.is_some_and(|seconds| !seconds.is_finite() || seconds < 0.0) {
            return Err("`hang` is a number of seconds".to_owned());
        }
        if self.reset_after_percent.is_some_and(|part| !(0.0..=100.0).contains(&part)) {
            return Err("`reset_after_percent` is between 0 and 100".to_owned());
        }
        if self.status.is_some_and(|status| !(200..=599).contains(&status)) {
            return Err("`status` is between 200 and 599".to_owned());
        }
        let (body_of_status, body) = if is_status { (self.body, None) } else { (None, self.body) };
        let status = self.status.map(|status| Action::Status {
            status,
            headers: self.headers.unwrap_or_default().into_iter().collect(),
            body: body_of_status.unwrap_or_default(),
            side: if self.acts == Some(true) { Side::After } else { Side::Before },
        });
        let named = [
            ("status", status),
            ("reset", self.reset.map(Action::Reset)),
            ("reset_after_bytes", self.reset_after_bytes.map(Action::ResetAfterBytes)),
            ("reset_after_percent", self.reset_after_percent.map(Action::ResetAfterPercent)),
            ("lose_reply", self.lose_reply.map(|_| Action::LoseReply)),
            ("hang", self.hang.map(Action::Hang)),
            ("cut_reply", self.cut_reply.map(Action::CutReply)),
            ("body", body.map(Action::Body)),
            ("trickle", self.trickle.map(Action::Trickle)),
            ("redirect", self.redirect.map(Action::Redirect)),
            ("echo_key", self.echo_key.map(|_| Action::EchoKey)),
        ];
        let mut given = named.into_iter().filter_map(|(name, action)| Some((name, action?)));
        match (given.next(), given.next()) {
            (None, _) => Err("`do` names nothing to do".to_owned()),
            (Some((_, action)), None) => Ok(action),
            (Some((first, _)), Some((second, _))) => Err(format!("`do` names both `{first}` and `{second}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str, when: When, times: Option<u64>) -> Faults {
        let rules =
            vec![Rule { method: None, path: path.to_owned(), when, times, action: Action::LoseReply }];
        Faults { rules, ..Faults::default() }
    }

    /// Which of twelve equal requests meet the fault, from 1.
    #[track_caller]
    fn check(faults: &Faults, expected: &[usize]) {
        let mut counts = vec![Count::default(); faults.rules.len()];
        let hit =
            (1..=12).filter(|number| faults.decide(&mut counts, *number, "GET", "/v1/files/a").is_some());
        assert_eq!(hit.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_rule_chooses_among_the_requests_that_fit() {
        check(&rule("/v1/files", When::Nth(vec![1, 3]), None), &[1, 3]);
        check(&rule("/v1/files", When::Every(5), None), &[5, 10]);
        check(&rule("/v1/files", When::Always, Some(2)), &[1, 2]);
        check(&rule("/v1/fine-tunes", When::Always, None), &[]);
        check(&rule("/v1/files$", When::Always, None), &[]);
        check(&rule("/v1/files/a$", When::Nth(vec![2]), None), &[2]);
        check(&rule("/v1/files", When::Rate(0.0), None), &[]);
        check(&rule("/v1/files", When::Rate(1.0), Some(1)), &[1]);
    }

    #[test]
    fn a_rate_is_met_and_depends_on_nothing_but_seed_and_number() {
        let faults = rule("/", When::Rate(0.3), None);
        let hits = || {
            let mut counts = [Count::default()];
            (0..1000).filter(|number| faults.decide(&mut counts, *number, "GET", "/a").is_some()).count()
        };
        assert!((250..350).contains(&hits()), "{}", hits());
        assert_eq!(hits(), hits());
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(is_like("/v1/fine-tunes/*/cancel", "/v1/fine-tunes/ft-1/cancel"));
        assert!(!is_like("/v1/fine-tunes/*/cancel", "/v1/fine-tunes/ft-1/cancel/x"));
        assert!(is_like("*/files*", "/v1/files"));
        assert!(!is_like("/v1/fine-tunes*x", "/v1/fine-tunes"));
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_all_are_counted() {
        let mut faults = rule("/a", When::Nth(vec![1]), None);
        faults.rules.push(Rule {
            method: Some("get".to_owned()),
            action: Action::EchoKey,
            when: When::Nth(vec![1, 2]),
            ..faults.rules[0].clone()
        });
        let mut counts = [Count::default(); 2];
        let mut decided = || faults.decide(&mut counts, 0, "GET", "/a").cloned();
        assert_eq!([decided(), decided(), decided()], [Some(Action::LoseReply), Some(Action::EchoKey), None]);
    }

    /// What the text of a file says, or why it is refused.
    fn parse(text: &str) -> Result<Faults, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_says_it_in_yaml_or_json() {
        let yaml = "
rules:
  - { method: POST, path: /v1/fine-tunes, nth: [1], do: { status: 500, body: oops, acts: true } }
  - { path: '/v1/*/events', rate: 0.3, times: 2, do: { reset: after } }
seed: 7
statuses: { 2.0: model_downloading, 1: odd }
omit: [suffix]
";
        let faults = parse(yaml).unwrap();
        assert_eq!(faults.rules[1].action, Action::Reset(Side::After));
        assert_eq!(faults.rules[1].when, When::Rate(0.3));
        assert_eq!(
            faults.rules[0].action,
            Action::Status { status: 500, headers: Vec::new(), body: "oops".to_owned(), side: Side::After }
        );
        assert_eq!(faults.statuses, [(1.0, "odd".to_owned()), (2.0, "model_downloading".to_owned())]);
        let json = r#"{"rules":[{"path":"/","do":{"body":"<html>"}}],"statuses":{"2.0":"x"}}"#;
        assert_eq!(parse(json).unwrap().rules[0].action, Action::Body("<html>".to_owned()));
        assert_eq!(parse("{}").unwrap(), Faults::default());
    }

    #[test]
    fn the_example_is_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/faults.yaml");
        let faults = parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(faults.rules.len() >= 11 && faults.shuffle_events, "{faults:?}");
    }

    #[track_caller]
    fn check_refused(action: &str, expected: &str) {
        let text =
            format!("rules:\n  - {{ path: /, do: {{ lose_reply: true }} }}\n  - {{ path: /, {action} }}");
        let error = parse(&text).unwrap_err();
        assert!(error.contains(expected) && error.contains("line 3"), "{error}");
    }

    #[test]
    fn a_rule_that_says_nothing_sensible_is_refused_with_its_place() {
        check_refused("do: {}", "`do` names nothing to do");
        check_refused("do: { hang: 1, trickle: 2 }", "`do` names both `hang` and `trickle`");
        check_refused("do: { hang: 1, acts: true }", "`headers` and `acts` go with `status`");
        check_refused("do: { hang: -1 }", "`hang` is a number of seconds");
        check_refused("do: { status: 42 }", "`status` is between 200 and 599");
        check_refused("every: 0, do: { hang: 1 }", "`every` is at least 1");
        check_refused("nth: [0], do: { hang: 1 }", "`nth` counts from 1");
        check_refused("rate: 3, do: { hang: 1 }", "`rate` is between 0 and 1, not 3");
        check_refused("nth: [1], rate: 0.5, do: { hang: 1 }", "only one of");
        check_refused("do: { hangs: 1 }", "hangs");
        check_refused("do: { reset: during }", "during");
        check_refused("dot: 1", "dot");
        let error = parse("statuses: { soon: x }").unwrap_err();
        assert!(error.contains("statuses: `soon` is no number of seconds"), "{error}");
    }
}
