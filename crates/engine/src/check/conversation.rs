//! The rules that the server applies to a sample after the upload.
//!
//! They are those of the last client that had them, and what the server has taken since:
//! functions, reasoning, weights of samples. A sample has exactly one of four formats and
//! no column beside it. All faults of a sample are said, not the first one.

use crate::check::code::Code;
use crate::check::content::{self, check_image_count, check_tools};
use crate::check::judge::{Judge, Role, shortened};
use crate::check::messages::{check_answer, check_messages};
use crate::check::tape::{Fields, Kind, Value};

/// What a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text`
    Text,
    /// `messages`
    Messages,
    /// `prompt` and `completion`
    Completion,
    /// `input`, `preferred_output` and `non_preferred_output`
    Preference,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 4] = [Format::Text, Format::Messages, Format::Completion, Format::Preference];

    /// The format's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Messages => "messages",
            Format::Completion => "prompt+completion",
            Format::Preference => "preference",
        }
    }

    fn may_have(self, column: &str) -> bool {
        let columns: &[&str] = match self {
            Format::Text => &["text", "weight"],
            Format::Messages => &["messages", "tools", "weight"],
            Format::Completion => &["prompt", "completion", "weight"],
            Format::Preference => &["input", "preferred_output", "non_preferred_output", "weight"],
        };
        columns.contains(&column)
    }
}

/// The columns that have rules.
#[derive(Default)]
struct Columns<'n, 'i> {
    text: Option<Value<'n, 'i>>,
    messages: Option<Value<'n, 'i>>,
    prompt: Option<Value<'n, 'i>>,
    completion: Option<Value<'n, 'i>>,
    input: Option<Value<'n, 'i>>,
    preferred: Option<Value<'n, 'i>>,
    non_preferred: Option<Value<'n, 'i>>,
    tools: Option<Value<'n, 'i>>,
    weight: Option<Value<'n, 'i>>,
}

/// The columns of one format.
enum Body<'n, 'i> {
    Text(Value<'n, 'i>),
    Messages(Value<'n, 'i>),
    Completion(Value<'n, 'i>, Value<'n, 'i>),
    Preference(Value<'n, 'i>, [Value<'n, 'i>; 2]),
}

impl<'n, 'i> Columns<'n, 'i> {
    fn of(sample: &Fields<'n, 'i>) -> Self {
        let mut columns = Columns::default();
        for (column, value) in sample.clone() {
            let slot = match column {
                "text" => &mut columns.text,
                "messages" => &mut columns.messages,
                "prompt" => &mut columns.prompt,
                "completion" => &mut columns.completion,
                "input" => &mut columns.input,
                "preferred_output" => &mut columns.preferred,
                "non_preferred_output" => &mut columns.non_preferred,
                "tools" => &mut columns.tools,
                "weight" => &mut columns.weight,
                _ => continue,
            };
            *slot = Some(value);
        }
        columns
    }

    /// Each format that is there whole.
    fn bodies(&self) -> impl Iterator<Item = (Format, Body<'n, 'i>)> {
        let answers = self.preferred.zip(self.non_preferred).map(|(one, other)| [one, other]);
        let bodies = [
            self.text.map(|text| (Format::Text, Body::Text(text))),
            self.messages.map(|messages| (Format::Messages, Body::Messages(messages))),
            self.prompt
                .zip(self.completion)
                .map(|(prompt, completion)| (Format::Completion, Body::Completion(prompt, completion))),
            self.input
                .zip(answers)
                .map(|(input, answers)| (Format::Preference, Body::Preference(input, answers))),
        ];
        bodies.into_iter().flatten()
    }
}

/// Judges a sample, and says what format it has if it has one.
pub fn check(sample: &Fields<'_, '_>, judge: &mut Judge<'_>) -> Option<Format> {
    judge.keys(sample, || "the sample".to_owned());
    let columns = Columns::of(sample);
    let mut bodies = columns.bodies();
    let (format, body) = match (bodies.next(), bodies.next()) {
        (Some(only), None) => only,
        (Some((first, _)), Some((second, _))) => {
            judge.say(Code::SeveralFormats, || {
                format!("the columns of {} and of {} in one sample", first.as_str(), second.as_str())
            });
            return None;
        }
        (None, _) => {
            judge.say(Code::NoFormat, || format!("{}: no format has these", named_columns(sample)));
            return None;
        }
    };
    for (column, _) in sample.clone().filter(|(column, _)| !format.may_have(column)) {
        judge.say(Code::ExtraColumn, || {
            format!("the column `{}` does not belong to {}", shortened(column), format.as_str())
        });
    }
    columns.weight.into_iter().for_each(|weight| check_sample_weight(weight, judge));
    match body {
        Body::Text(text) => check_plain(text, "text", Role::User, judge),
        Body::Messages(messages) => {
            check_messages(messages, "messages", true, judge);
            if let Some(tools) = columns.tools {
                judge.uncounted();
                check_tools(tools, "tools", judge);
            }
        }
        Body::Completion(prompt, completion) => {
            check_plain(prompt, "prompt", Role::User, judge);
            check_plain(completion, "completion", Role::Assistant, judge);
        }
        Body::Preference(input, [preferred, non_preferred]) => {
            check_input(input, judge);
            check_output(preferred, "preferred_output", judge);
            check_output(non_preferred, "non_preferred_output", judge);
        }
    }
    Some(format)
}

fn check_sample_weight(weight: Value<'_, '_>, judge: &mut Judge<'_>) {
    let is_weight = match weight.kind() {
        Kind::Integer(weight) => weight >= 0,
        Kind::Float(weight) => weight >= 0.0,
        _ => false,
    };
    if !is_weight {
        judge.say(Code::Weight, || "the sample's `weight` is not a number from 0 upward".to_owned());
    }
}

fn named_columns(sample: &Fields<'_, '_>) -> String {
    let mut names: Vec<String> =
        sample.clone().take(6).map(|(column, _)| format!("`{}`", shortened(column))).collect();
    if names.len() > 5 {
        names[5] = "more".to_owned();
    }
    if names.is_empty() { "no columns".to_owned() } else { format!("the columns {}", names.join(", ")) }
}

/// A column that is a content by itself.
fn check_plain(value: Value<'_, '_>, column: &str, speaker: Role, judge: &mut Judge<'_>) {
    judge.message(None);
    let content = content::check(value, Some(speaker), &|| format!("`{column}`"), judge);
    check_image_count(content.images, judge);
    if speaker == Role::Assistant && content.is_blank {
        judge.say(Code::EmptyAssistant, || format!("`{column}` has no text"));
    }
}

/// The question of a preference pair.
fn check_input(value: Value<'_, '_>, judge: &mut Judge<'_>) {
    let Kind::Object(fields) = value.kind() else {
        return judge.say(Code::Preference, || format!("`input` is {}, not an object", value.described()));
    };
    judge.keys(&fields, || "`input`".to_owned());
    let Some(messages) = fields.get("messages") else {
        return judge.say(Code::Preference, || "`input` has no `messages`".to_owned());
    };
    if check_messages(messages, "input.messages", false, judge) == Some(Role::Assistant) {
        judge.say(Code::Preference, || "the last of `input.messages` is the assistant's".to_owned());
    }
    if let Some(tools) = fields.get("tools") {
        check_tools(tools, "input.tools", judge);
    }
}

/// One answer of a preference pair: a list of one message of the assistant.
fn check_output(value: Value<'_, '_>, column: &'static str, judge: &mut Judge<'_>) {
    let only = match value.kind() {
        Kind::List(mut messages) if messages.len() == 1 => messages.next().map(Value::kind),
        _ => None,
    };
    let Some(Kind::Object(fields)) = only else {
        return judge.say(Code::Preference, || format!("`{column}` is not a list of exactly one message"));
    };
    check_answer(&fields, &|| format!("{column}[0]"), judge);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::check::finding::{Findings, Keep};
    use crate::check::judge::SpecialTokens;

    /// The format of a sample, and what is said of it.
    pub fn judged(json: &str) -> (Option<Format>, Vec<(Code, String)>) {
        let mut json = json.as_bytes().to_vec();
        let tape = simd_json::to_tape(&mut json).unwrap();
        let Kind::Object(sample) = Value::root(&tape.0).kind() else { panic!("a sample is an object") };
        let (mut findings, mut roles) = (Findings::new(Keep::All), [0; Role::ALL.len()]);
        let special_tokens = SpecialTokens::default();
        let format = super::check(&sample, &mut Judge::new(&mut findings, &mut roles, &special_tokens, 1));
        let said = findings.kept().iter().map(|found| (found.code, found.message.clone())).collect();
        (format, said)
    }

    /// Fails unless exactly these are said of the sample, each with these words in it.
    #[track_caller]
    pub fn check(json: &str, expected: &[(Code, &str)]) {
        let (_, said) = judged(json);
        let codes: Vec<Code> = said.iter().map(|(code, _)| *code).collect();
        let expected_codes: Vec<Code> = expected.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, expected_codes, "{json}: {said:?}");
        for ((_, message), (_, words)) in said.iter().zip(expected) {
            assert!(message.contains(words), "`{words}` is not in `{message}`");
        }
    }

    const MESSAGES: &str =
        r#""messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]"#;
    const ANSWER: &str = r#"[{"role": "assistant", "content": "b"}]"#;

    #[test]
    fn each_format_is_recognised() {
        for (json, format) in [
            (r#"{"text": "a"}"#.to_owned(), Format::Text),
            (format!("{{{MESSAGES}}}"), Format::Messages),
            (
                format!(r#"{{{MESSAGES}, "tools": [{{"type": "function"}}], "weight": 0.5}}"#),
                Format::Messages,
            ),
            (r#"{"prompt": "a", "completion": "b", "weight": 0}"#.to_owned(), Format::Completion),
            (
                format!(
                    r#"{{"input": {{"messages": [{{"role": "user", "content": "a"}}], "tools": null}},
                        "preferred_output": {ANSWER}, "non_preferred_output": {ANSWER}}}"#
                ),
                Format::Preference,
            ),
        ] {
            assert_eq!(judged(&json), (Some(format), Vec::new()), "{json}");
        }
    }

    #[test]
    fn a_sample_has_one_format_and_no_other_column() {
        check("{}", &[(Code::NoFormat, "no columns")]);
        check(r#"{"prompt": "a", "x": 1}"#, &[(Code::NoFormat, "`prompt`, `x`")]);
        check(r#"{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}"#, &[(Code::NoFormat, "`e`, more")]);
        check(&format!(r#"{{"text": "a", {MESSAGES}}}"#), &[(Code::SeveralFormats, "text and of messages")]);
        check(
            r#"{"text": "a", "prompt": "b", "tools": [], "id": 7}"#,
            &[(Code::ExtraColumn, "`prompt`"), (Code::ExtraColumn, "`tools`"), (Code::ExtraColumn, "`id`")],
        );
    }

    #[test]
    fn the_weight_of_a_sample_is_a_number_from_0_upward() {
        for (weight, is_right) in [
            ("0", true),
            ("2.5", true),
            ("-1", false),
            ("-0.5", false),
            ("true", false),
            ("\"1\"", false),
            ("null", false),
        ] {
            let expected: &[_] = if is_right { &[] } else { &[(Code::Weight, "from 0 upward")] };
            check(&format!(r#"{{"text": "a", "weight": {weight}}}"#), expected);
        }
    }

    #[test]
    fn plain_columns_are_contents() {
        check(r#"{"text": 7}"#, &[(Code::Content, "`text` is a number")]);
        check(
            r#"{"prompt": null, "completion": ""}"#,
            &[(Code::Content, "`prompt` is null"), (Code::EmptyAssistant, "`completion`")],
        );
        check(
            r#"{"prompt": [{"type": "text", "text": "a"}], "completion": [{"type": "text", "text": " "}]}"#,
            &[(Code::EmptyAssistant, "`completion`")],
        );
    }

    #[test]
    fn a_preference_pair_is_a_question_and_two_answers() {
        let pair = |input: &str, preferred: &str| {
            format!(
                r#"{{"input": {input}, "preferred_output": {preferred}, "non_preferred_output": {ANSWER}}}"#
            )
        };
        let question = r#"{"messages": [{"role": "user", "content": "a"}]}"#;
        check(&pair("[]", ANSWER), &[(Code::Preference, "`input` is a list")]);
        check(&pair("{}", ANSWER), &[(Code::Preference, "no `messages`")]);
        check(&pair(r#"{"messages": []}"#, ANSWER), &[(Code::Messages, "`input.messages` is empty")]);
        check(
            &pair(&format!("{{{MESSAGES}}}"), ANSWER),
            &[(Code::Preference, "the last of `input.messages`")],
        );
        for wrong in ["[]", "{}", "null", "[1]", &ANSWER.replace(']', ", 1]")] {
            check(&pair(question, wrong), &[(Code::Preference, "exactly one message")]);
        }
        check(
            &pair(question, r#"[{"role": "user", "content": "b"}]"#),
            &[(Code::Preference, "preferred_output[0] is not the assistant's")],
        );
        check(&pair(question, r#"[{"role": "assistant"}]"#), &[(Code::Content, "no `content`")]);
        check(&pair(question, r#"[{"content": "b"}]"#), &[(Code::Role, "no `role`")]);
    }

    #[test]
    fn a_special_token_is_said_once_a_sample() {
        check(
            r#"{"prompt": "a<|eot_id|>", "completion": "<|eot_id|>"}"#,
            &[(Code::SpecialToken, "`prompt` holds `<|eot_id|>`")],
        );
        check(r#"{"text": "\u003c|im_start|\u003e"}"#, &[(Code::SpecialToken, "`<|im_start|>`")]);
    }

    #[test]
    fn of_a_column_given_twice_the_last_one_counts() {
        let twice = (Code::DuplicateKey, "the sample has the key `text` twice");
        check(r#"{"text": 1, "text": "a"}"#, &[twice]);
        check(r#"{"text": "a", "text": 1}"#, &[twice, (Code::Content, "a number")]);
    }
}
