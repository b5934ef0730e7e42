//! A model's answer into a context that is whole and consistent, or into the reason why it is none.
//!
//! What a context must be is the engine's own rule: an answer that passes here is one that `prepare` takes. On
//! top come what a model gets wrong and a corpus may have: agents that come and go, timesteps out of sequence.

use serde_json::value::RawValue;

use ctxtune_engine::line::convert::LineWriter;
use ctxtune_engine::line::example::Example;
use ctxtune_engine::line::template::{ContextLayout, Form, Segment, Template};
use ctxtune_engine::record::parser::with_single_record;
use ctxtune_engine::record::{AgentText, Context, Record, Timestep};
use ctxtune_service::together::chat::Completion;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It ended before it was whole.
    Cut,
    Empty,
    NotJson,
    /// It is JSON, and no context.
    Shape,
    /// Its agents are not the same in all steps.
    Agents,
    /// Its timesteps are not in sequence.
    Timesteps,
    /// The server refuses to answer this story.
    Refused,
    /// The model refuses to answer, in so many words.
    Refusal,
    /// The server's content filter withheld the answer, or its end.
    ContentFilter,
    /// It has parts, and none of them is text.
    ContentParts,
    /// It has the API key in it, and was discarded.
    EchoesKey,
}

impl Fault {
    pub const ALL: [Fault; 11] = [
        Fault::Cut,
        Fault::Empty,
        Fault::NotJson,
        Fault::Shape,
        Fault::Agents,
        Fault::Timesteps,
        Fault::Refused,
        Fault::Refusal,
        Fault::ContentFilter,
        Fault::ContentParts,
        Fault::EchoesKey,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Cut => "cut",
            Fault::Empty => "empty",
            Fault::NotJson => "not_json",
            Fault::Shape => "shape",
            Fault::Agents => "agents",
            Fault::Timesteps => "timesteps",
            Fault::Refused => "refused",
            Fault::Refusal => "refusal",
            Fault::ContentFilter => "content_filter",
            Fault::ContentParts => "content_parts",
            Fault::EchoesKey => "echoes_key",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    pub fault: Fault,
    pub reason: String,
}

impl Flaw {
    fn new(fault: Fault, reason: impl Into<String>) -> Flaw {
        Flaw { fault, reason: reason.into() }
    }

    pub fn echoes_key() -> Flaw {
        Flaw::new(Fault::EchoesKey, "the answer contains the API key and was discarded")
    }
}

/// Judges a whole answer: its text, and where that is no context, what stands in its place.
pub fn judge_completion(completion: &Completion) -> Result<String, Flaw> {
    let Some(content) = &completion.content else { return Err(Flaw::echoes_key()) };
    let finish_reason = completion.finish_reason.as_deref();
    judge(content, finish_reason).map_err(|flaw| {
        match (&completion.refusal, completion.other_parts.as_slice()) {
            (Some(words), _) => {
                Flaw::new(Fault::Refusal, format!("the model refused to answer: {}", words.trim()))
            }
            _ if finish_reason == Some("content_filter") => Flaw::new(
                Fault::ContentFilter,
                "the server's content filter withheld the answer (finish_reason: content_filter)",
            ),
            (None, [_, ..]) if flaw.fault == Fault::Empty => Flaw::new(
                Fault::ContentParts,
                format!(
                    "the answer has no text, only parts of other types: {}",
                    completion.other_parts.join(", ")
                ),
            ),
            _ => flaw,
        }
    })
}

/// Reads the context in `answer`, which ended for `finish_reason`, and gives it as JSON on one line in
/// the form `object`.
fn judge(answer: &str, finish_reason: Option<&str>) -> Result<String, Flaw> {
    let text = json_in(answer);
    let is_cut = finish_reason == Some("length");
    let cut = || Flaw::new(Fault::Cut, "the answer was cut at max_tokens (finish_reason: length)");
    if text.is_empty() {
        return Err(if is_cut { cut() } else { Flaw::new(Fault::Empty, "the answer is empty") });
    }
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| match is_cut {
        true => cut(),
        false => Flaw::new(Fault::NotJson, format!("the answer is not JSON: {error}")),
    })?;
    in_form(raw.get(), Form::Object, consistent)
}

/// A valid context, as JSON in either form, in the form `form`, on one line.
pub fn reformed(context: &str, form: Form) -> Result<String, Flaw> {
    in_form(context, form, |_| Ok(()))
}

/// What is looked through for JSON: not what the model thought before, and the inside of a fence.
fn json_in(answer: &str) -> &str {
    let answer = answer.trim();
    let answer = match answer.strip_prefix("<think>").and_then(|rest| rest.split_once("</think>")) {
        Some((_, said)) => said.trim(),
        None => answer,
    };
    if answer.starts_with(['{', '[']) {
        return answer;
    }
    let blocks = answer.split("```").skip(1).step_by(2);
    // The first line of a block names its language.
    let inside = |block: &'_ str| block.find('\n').map(|end| end + 1);
    let mut blocks = blocks.map(|block| inside(block).map_or(block, |start| &block[start..]).trim());
    blocks.find(|block| block.starts_with(['{', '['])).unwrap_or(answer)
}

fn in_form(
    context: &str,
    form: Form,
    look: impl FnOnce(&Context<'_>) -> Result<(), Flaw>,
) -> Result<String, Flaw> {
    // The engine reads whole records.
    let record = format!(r#"{{"story":"-","question":"","answer":"","socialized_context":{context}}}"#);
    let written = with_single_record(record.as_bytes(), |record| {
        look(&record.context)?;
        Ok(written(record, form))
    });
    written.unwrap_or_else(|refused| {
        let at = refused.at.strip_prefix("socialized_context").unwrap_or(&refused.at);
        let at = at.trim_start_matches('.');
        let place = if at.is_empty() { String::new() } else { format!(" at {at}") };
        Err(Flaw::new(Fault::Shape, format!("the answer is no context: {}{place}", refused.reason)))
    })
}

fn written(record: &Record<'_>, form: Form) -> String {
    let fixed = |text: &[u8]| Segment::Fixed(text.to_vec());
    let template = Template {
        name: String::new(),
        text: String::new(),
        segments: vec![
            fixed(br#"{"messages":[{"role":"assistant","content":""#),
            Segment::Context,
            fixed(br#""}]}"#),
        ],
        context: ContextLayout { form, ..ContextLayout::default() },
    };
    let mut line = Vec::new();
    LineWriter::new(&template).write_line(record, &mut line);
    let example = Example::from_line(&line).expect("the engine writes lines that can be read");
    example.messages.into_iter().map(|message| message.content).collect()
}

/// Agents who are the same in every step, and timesteps in sequence.
fn consistent(context: &Context<'_>) -> Result<(), Flaw> {
    let agents = &context.agents_names;
    let agents_flaw = |reason: String| Err(Flaw::new(Fault::Agents, reason));
    for (index, name) in agents.iter().enumerate() {
        if name.trim().is_empty() {
            return agents_flaw("agents_names has a name without text".to_owned());
        }
        if agents[..index].contains(name) {
            return agents_flaw(format!("agents_names has `{name}` twice"));
        }
    }
    for (index, step) in context.steps.iter().enumerate() {
        let lists = [("observations", context.observations(step)), ("actions", context.actions(step))];
        for (what, pairs) in lists {
            if let Some(reason) = inconsistency(agents, pairs) {
                return agents_flaw(format!("{what} of step {index} {reason}"));
            }
        }
    }
    in_sequence(context)
}

/// Timesteps that count up by one from 0 or 1; or names (`07:30`), each of them once.
fn in_sequence(context: &Context<'_>) -> Result<(), Flaw> {
    let flaw = |index: usize, what: String| {
        let timestep = shown(context.steps[index].timestep);
        Err(Flaw::new(Fault::Timesteps, format!("step {index} has the timestep `{timestep}`, {what}")))
    };
    let numbers: Vec<Option<i128>> = context.steps.iter().map(|step| number(step.timestep)).collect();
    let Some(first) = numbers[0] else {
        for (index, step) in context.steps.iter().enumerate() {
            let is_again =
                context.steps[..index].iter().any(|other| shown(other.timestep) == shown(step.timestep));
            if is_again || numbers[index].is_some() {
                return flaw(
                    index,
                    if is_again { "which an earlier one has" } else { "the first has a name" }.to_owned(),
                );
            }
        }
        return Ok(());
    };
    if !(0..=1).contains(&first) {
        return flaw(0, "not 0 or 1".to_owned());
    }
    let expected = first..;
    match numbers.iter().zip(expected).position(|(said, expected)| *said != Some(expected)) {
        Some(index) => flaw(index, format!("not {}", first + index as i128)),
        None => Ok(()),
    }
}

fn inconsistency(agents: &[&str], pairs: &[AgentText<'_>]) -> Option<String> {
    if let Some(missing) = agents.iter().find(|name| pairs.iter().all(|(agent, _)| agent != *name)) {
        return Some(format!("lack `{missing}`"));
    }
    let stranger = pairs.iter().find(|(agent, _)| !agents.contains(agent));
    stranger.map(|(agent, _)| format!("name `{agent}`, who is not in agents_names"))
}

fn number(timestep: Timestep<'_>) -> Option<i128> {
    match timestep {
        Timestep::Number(number) => Some(number),
        // The place in the list stands for what is not given.
        Timestep::Place(place) => i128::try_from(place).ok(),
        Timestep::Text(text) => text.to_real().trim().parse().ok(),
    }
}

fn shown(timestep: Timestep<'_>) -> String {
    match timestep {
        Timestep::Number(number) => number.to_string(),
        Timestep::Place(place) => place.to_string(),
        Timestep::Text(text) => text.to_real().into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"agents_names": ["Mia", "Noé"], "socialized_context": [{"timestep": "0", "state": "s", "observations": {"Mia": "a \"b\"\n: c", "Noé": "none"}, "actions": {"Mia": "none", "Noé": "runs"}}]}"#;
    const LIST: &str = r#"{"agents_names": ["Mia", "Noé"], "socialized_context": [{"timestep": "0", "state": "s", "observations": ["Mia: a \"b\"\n: c", "Noé: none"], "actions": ["Mia: none", "Noé: runs"]}]}"#;

    fn steps(agents: &str, steps: &str) -> String {
        format!(r#"{{"agents_names":[{agents}],"socialized_context":[{steps}]}}"#)
    }

    fn step(timestep: &str) -> String {
        format!(r#"{{"timestep":{timestep},"state":"s","observations":{{"A":"o"}},"actions":{{"A":"a"}}}}"#)
    }

    #[track_caller]
    fn check(answer: &str, finish_reason: &str, fault: Fault, reason: &str) {
        let flaw = judge(answer, Some(finish_reason)).unwrap_err();
        assert_eq!(flaw.fault, fault, "{flaw:?}");
        assert!(flaw.reason.contains(reason), "{flaw:?}");
    }

    #[test]
    fn both_forms_are_read_and_the_object_is_written() {
        assert_eq!(judge(GOOD, None).as_deref(), Ok(GOOD));
        assert_eq!(judge(LIST, Some("stop")).as_deref(), Ok(GOOD));
        assert_eq!(reformed(GOOD, Form::List).as_deref(), Ok(LIST));
        assert_eq!(reformed(LIST, Form::Object).as_deref(), Ok(GOOD));
    }

    #[test]
    fn json_is_found_in_a_fence_and_behind_thoughts() {
        let pretty = serde_json::from_str::<serde_json::Value>(GOOD).unwrap();
        let pretty = serde_json::to_string_pretty(&pretty).unwrap();
        for answer in [
            format!("```json\n{pretty}\n```"),
            format!("Here it is:\n\n```\n{GOOD}\n```\nDone."),
            format!("```text\nfirst\n```\n```json\r\n{GOOD}```"),
            format!("<think>\n{{\"x\": 1}}\n</think>\n\n{GOOD}"),
            format!("\n\n {GOOD} \n"),
        ] {
            assert_eq!(judge(&answer, Some("stop")).as_deref(), Ok(GOOD), "{answer}");
        }
    }

    #[test]
    fn what_stands_in_place_of_an_answer_is_called_by_its_name() {
        let check = |completion: Completion, expected: Result<&str, (Fault, &str)>| {
            let judged = judge_completion(&completion);
            let judged =
                judged.as_ref().map(String::as_str).map_err(|flaw| (flaw.fault, flaw.reason.as_str()));
            assert_eq!(judged, expected, "{completion:?}");
        };
        let answer =
            |content: &str| Completion { content: Some(content.to_owned()), ..Completion::default() };
        let refused =
            |content: &str| Completion { refusal: Some(" I cannot. ".to_owned()), ..answer(content) };
        let filtered = |content: &str| Completion {
            finish_reason: Some("content_filter".to_owned()),
            ..answer(content)
        };
        let parts = |content: &str| {
            let other_parts = ["image_url", "audio"].map(str::to_owned).to_vec();
            Completion { other_parts, ..answer(content) }
        };
        let refusal = Err((Fault::Refusal, "the model refused to answer: I cannot."));
        check(refused(""), refusal);
        check(refused("no JSON"), refusal);
        let filter = "the server's content filter withheld the answer (finish_reason: content_filter)";
        check(filtered(""), Err((Fault::ContentFilter, filter)));
        check(filtered("{\"agents_names\": ["), Err((Fault::ContentFilter, filter)));
        let none = "the answer has no text, only parts of other types: image_url, audio";
        check(parts(" "), Err((Fault::ContentParts, none)));
        for good in [refused(GOOD), filtered(GOOD), parts(GOOD), answer(GOOD)] {
            check(good, Ok(GOOD));
        }
        check(answer(""), Err((Fault::Empty, "the answer is empty")));
        check(Completion::default(), Err((Fault::EchoesKey, &Flaw::echoes_key().reason)));
    }

    #[test]
    fn an_answer_that_is_no_context_says_why() {
        check("", "stop", Fault::Empty, "empty");
        check("<think>hm</think>", "stop", Fault::Empty, "empty");
        check("I cannot do that.", "stop", Fault::NotJson, "not JSON");
        check(&format!("{GOOD} {GOOD}"), "stop", Fault::NotJson, "trailing");
        check(r#"{}, "story": "x""#, "stop", Fault::NotJson, "trailing");
        check(&GOOD[..GOOD.len() - 9], "stop", Fault::NotJson, "not JSON");
        check(&GOOD[..GOOD.len() - 9], "length", Fault::Cut, "finish_reason: length");
        check("", "length", Fault::Cut, "finish_reason: length");
        check("[1]", "stop", Fault::Shape, "");
        check("{}", "stop", Fault::Shape, "the key `agents_names` is missing at agents_names");
        check(&steps("", &step("0")), "stop", Fault::Shape, "no agent at agents_names");
        check(&steps(r#""A""#, ""), "stop", Fault::Shape, "no timestep");
        check(
            &steps(r#""A""#, r#"{"state":"s"}"#),
            "stop",
            Fault::Shape,
            "socialized_context[0].observations",
        );
        check(&GOOD.replace("runs", "\\ud800"), "stop", Fault::Shape, "");
    }

    #[test]
    fn agents_must_be_the_same_in_every_step() {
        check(&steps(r#""A","B""#, &step("0")), "stop", Fault::Agents, "observations of step 0 lack `B`");
        let second = step("1").replace(r#""actions":{"A":"a"}"#, r#""actions":{"A":"a","Z":"z"}"#);
        let both = format!("{},{second}", step("0"));
        check(&steps(r#""A""#, &both), "stop", Fault::Agents, "actions of step 1 name `Z`");
        check(&steps(r#""A","A""#, &step("0")), "stop", Fault::Agents, "`A` twice");
        check(&steps(r#"" ""#, &step("0")), "stop", Fault::Agents, "without text");
    }

    #[test]
    fn timesteps_must_be_in_sequence() {
        let sequence = |timesteps: &[&str]| {
            let all: Vec<String> = timesteps.iter().map(|timestep| step(timestep)).collect();
            steps(r#""A""#, &all.join(","))
        };
        let names = ["\"07:30\"", "\"08:15\""];
        for good in [&["\"0\"", "1", "\"2\""][..], &["1", "2"], &["null", "null"], &["\"1\""], &names] {
            assert!(judge(&sequence(good), None).is_ok(), "{good:?}");
        }
        check(&sequence(&["\"0\"", "\"2\""]), "stop", Fault::Timesteps, "step 1 has the timestep `2`, not 1");
        check(&sequence(&["2"]), "stop", Fault::Timesteps, "not 0 or 1");
        check(&sequence(&["0", "0"]), "stop", Fault::Timesteps, "`0`, not 1");
        check(
            &sequence(&["\"a\"", "\"b\"", "\"a\""]),
            "stop",
            Fault::Timesteps,
            "`a`, which an earlier one has",
        );
        check(&sequence(&["\"a\"", "1"]), "stop", Fault::Timesteps, "step 1 has the timestep `1`, the first");
        check(&sequence(&["0", "\"b\""]), "stop", Fault::Timesteps, "`b`, not 1");
    }

    #[test]
    fn a_cut_answer_that_is_whole_is_taken() {
        assert!(judge(GOOD, Some("length")).is_ok());
    }
}
