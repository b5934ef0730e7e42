//! Which request goes wrong, and how: rules as a file says them, and the pure decision for one request.
//!
//! Separate from the server so that a rule is tested without a socket, and so that the same
//! requests in the same order meet the same faults. It decides; it never touches a connection.

use std::collections::BTreeMap;

use serde::Deserialize;

/// All that goes wrong; by default nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// The first rule that fits a request decides about it.
    pub rules: Vec<Rule>,
    /// For rules with a rate.
    pub seed: u64,
    /// Events come out of order.
    pub shuffle_events: bool,
    /// Every event comes twice.
    pub double_events: bool,
    /// Statuses that nobody documented: from a second of a job's course until its status changes.
    pub statuses: Vec<(f64, String)>,
    /// Fields that are left out of jobs.
    pub omit: Vec<String>,
    /// Some losses are no numbers.
    pub nan_metrics: bool,
}

/// What happens to some requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Any, unless one is named.
    pub method: Option<String>,
    /// The beginning of a path; with `*` a pattern for the whole path; with `$` at its end a whole
    /// path. Without the query.
    pub path: String,
    /// Which of the requests that fit.
    pub when: When,
    /// How often at most.
    pub times: Option<u64>,
    /// What is done.
    pub action: Action,
}

/// Which of the requests that fit a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// All.
    Always,
    /// These, counted from 1.
    Nth(Vec<u64>),
    /// Every so many.
    Every(u64),
    /// This part of them, chosen by the seed and the number of the request.
    Rate(f64),
}

/// Whether the server still does what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The request is not carried out.
    Before,
    /// It is carried out, and only its reply is lost.
    After,
}

/// What is done to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Another answer. A `body` that is empty becomes the API's shape of an error.
    Status {
        /// The HTTP status.
        status: u16,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// The body as it is.
        body: String,
        /// Whether the request is carried out.
        side: Side,
    },
    /// The connection is reset.
    Reset(Side),
    /// The connection is reset after so many bytes of the request's body.
    ResetAfterBytes(u64),
    /// The connection is reset after this part of the request's body.
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

/// How often a rule fitted and was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    fitted: u64,
    used: u64,
}

impl Faults {
    /// What happens to the request of this number. `counts` has one for each rule, and is brought up to date.
    pub fn decide(&self, counts: &mut [Count], number: usize, line: (&str, &str)) -> Option<&Action> {
        let mut decided = None;
        for (index, (rule, count)) in self.rules.iter().zip(counts).enumerate() {
            if !rule.fits(line) {
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
    fn fits(&self, (method, path): (&str, &str)) -> bool {
        let is_method = self.method.as_ref().is_none_or(|known| known.eq_ignore_ascii_case(method));
        is_method
            && match self.path.strip_suffix('$') {
                Some(whole) => is_like(whole, path),
                None if self.path.contains('*') => is_like(&self.path, path),
                None => path.starts_with(&self.path),
            }
    }
}

/// Whether `text` is `pattern`, where `*` stands for anything.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(start) = rest.find(part) else { return false };
        rest = &rest[start + part.len()..];
    }
    false
}

/// A number in [0, 1) that `words` decide alone.
pub fn chance(words: &[u64]) -> f64 {
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

/// Why a faults file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultsError {
    /// A rule that says nothing sensible.
    #[error("rule {number}: {reason}")]
    Rule {
        /// From 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A second of `statuses` that is no number.
    #[error("statuses: `{0}` is no number of seconds")]
    Second(String),
}

/// A faults file, as YAML or JSON says it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultsFile {
    rules: Vec<RawRule>,
    seed: u64,
    shuffle_events: bool,
    double_events: bool,
    statuses: BTreeMap<String, String>,
    omit: Vec<String>,
    nan_metrics: bool,
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

impl FaultsFile {
    /// What the file says.
    ///
    /// # Errors
    /// When a rule contradicts itself, or a second of `statuses` is no number.
    pub fn resolve(self) -> Result<Faults, FaultsError> {
        let mut rules = Vec::new();
        for (index, rule) in self.rules.into_iter().enumerate() {
            let failed = |reason| FaultsError::Rule { number: index + 1, reason };
            rules.push(rule.resolve().map_err(failed)?);
        }
        let second = |(second, status): (String, String)| match second.parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 0.0 => Ok((number, status)),
            _ => Err(FaultsError::Second(second)),
        };
        let mut statuses = self.statuses.into_iter().map(second).collect::<Result<Vec<_>, _>>()?;
        statuses.sort_by(|left, right| left.0.total_cmp(&right.0));
        Ok(Faults {
            rules,
            seed: self.seed,
            shuffle_events: self.shuffle_events,
            double_events: self.double_events,
            statuses,
            omit: self.omit,
            nan_metrics: self.nan_metrics,
        })
    }
}

impl RawRule {
    fn resolve(self) -> Result<Rule, String> {
        let when = match (self.nth, self.every, self.rate) {
            (None, None, None) => When::Always,
            (Some(numbers), None, None) if !numbers.contains(&0) => When::Nth(numbers),
            (Some(_), None, None) => return Err("`nth` counts from 1".to_owned()),
            (None, Some(0), None) => return Err("`every` is at least 1".to_owned()),
            (None, Some(period), None) => When::Every(period),
            (None, None, Some(rate)) if (0.0..=1.0).contains(&rate) => When::Rate(rate),
            (None, None, Some(rate)) => return Err(format!("`rate` is between 0 and 1, not {rate}")),
            _ => return Err("only one of `nth`, `every`, `rate`".to_owned()),
        };
        let action = self.action.resolve()?;
        Ok(Rule { method: self.method, path: self.path, when, times: self.times, action })
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
        let body = self.body.clone().filter(|_| !is_status);
        let named = [
            ("status", self.status_action()),
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
        let mut given = named.into_iter().filter_map(|(name, action)| action.map(|action| (name, action)));
        match (given.next(), given.next()) {
            (None, _) => Err("`do` names nothing to do".to_owned()),
            (Some((_, action)), None) => Ok(action),
            (Some((first, _)), Some((second, _))) => Err(format!("`do` names both `{first}` and `{second}`")),
        }
    }

    fn status_action(&self) -> Option<Action> {
        let side = if self.acts == Some(true) { Side::After } else { Side::Before };
        let headers = self.headers.clone().unwrap_or_default().into_iter().collect();
        let body = self.body.clone().unwrap_or_default();
        self.status.map(|status| Action::Status { status, headers, body, side })
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
            (1..=12).filter(|number| faults.decide(&mut counts, *number, ("GET", "/v1/files/a")).is_some());
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
            (0..1000).filter(|number| faults.decide(&mut counts, *number, ("GET", "/a")).is_some()).count()
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
        let mut decided = || faults.decide(&mut counts, 0, ("GET", "/a")).cloned();
        assert_eq!([decided(), decided(), decided()], [Some(Action::LoseReply), Some(Action::EchoKey), None]);
    }

    /// What the text of a file says, or why it is refused.
    fn parse(text: &str) -> Result<Faults, String> {
        let file: FaultsFile = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        file.resolve().map_err(|error| error.to_string())
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
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_rule_that_says_nothing_sensible_is_refused_by_number() {
        check_refused("do: {}", "rule 2: `do` names nothing to do");
        check_refused("do: { hang: 1, trickle: 2 }", "rule 2: `do` names both `hang` and `trickle`");
        check_refused("do: { hang: 1, acts: true }", "rule 2: `headers` and `acts` go with `status`");
        check_refused("do: { hang: -1 }", "rule 2: `hang` is a number of seconds");
        check_refused("do: { status: 42 }", "rule 2: `status` is between 200 and 599");
        check_refused("every: 0, do: { hang: 1 }", "rule 2: `every` is at least 1");
        check_refused("nth: [0], do: { hang: 1 }", "rule 2: `nth` counts from 1");
        check_refused("rate: 3, do: { hang: 1 }", "rule 2: `rate` is between 0 and 1, not 3");
        check_refused("nth: [1], rate: 0.5, do: { hang: 1 }", "rule 2: only one of");
        check_refused("do: { hangs: 1 }", "hangs");
        check_refused("do: { reset: during }", "during");
        check_refused("dot: 1", "dot");
        assert_eq!(parse("statuses: { soon: x }"), Err(FaultsError::Second("soon".to_owned()).to_string()));
    }
}
