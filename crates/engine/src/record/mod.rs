//! Turns parsed JSON into a [`Record`]: what a template may ask for, checked and borrowed.
//!
//! The rules of a usable record are here and nowhere else. Text is borrowed from the
//! parser's buffer and arrives as it was written; order is kept, since the model learns
//! it. Agents and what they observe stay lists of pairs: no map ever stands between
//! input and output.

pub mod buffers;
pub mod context;
pub mod diagnose;
pub(crate) mod layout;
pub mod parser;
pub mod reject;
pub mod scan;
pub mod scanner;
pub(crate) mod sentences;
pub mod shape;
pub mod story;
pub(crate) mod tape;
pub mod unused;
pub mod warning;

use simd_json::{Node, StaticNode};

pub use crate::record::context::{AgentText, Context, Step, Text, Timestep};
use crate::record::reject::{Code, RejectReason};
use crate::record::story::{StoryError, StoryForm, is_blank};
use crate::record::tape::{Cursor, first_duplicate};

/// One usable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// The story's sentences joined by one blank, or its prose as it is.
    pub story: &'a str,
    /// How the story was given.
    pub story_form: StoryForm,
    /// The question about the story.
    pub question: &'a str,
    /// The answer that came with the context.
    pub answer: &'a str,
    /// What `is_correct` says, if it is there.
    pub is_correct: Option<bool>,
    /// The context to learn.
    pub context: Context<'a>,
    /// The string under the key given to [`parse`].
    pub group_field: Option<&'a str>,
    /// Whether a text may hold U+0000; `true` also where nobody looked.
    pub may_hold_nul: bool,
}

/// A text of a record that a template may ask for: its key in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextField {
    /// `{story}`
    Story,
    /// `{question}`
    Question,
    /// `{answer}`
    Answer,
}

impl TextField {
    /// All of them.
    pub const ALL: [TextField; 3] = [TextField::Story, TextField::Question, TextField::Answer];

    /// Its key.
    pub fn key(self) -> &'static str {
        match self {
            TextField::Story => "story",
            TextField::Question => "question",
            TextField::Answer => "answer",
        }
    }

    /// What `record` has there.
    pub fn of<'a>(self, record: &Record<'a>) -> &'a str {
        match self {
            TextField::Story => record.story,
            TextField::Question => record.question,
            TextField::Answer => record.answer,
        }
    }
}

/// Reads the record whose parsed nodes are `nodes`.
///
/// `group_field` names a further top-level string to borrow. `story_text` is room for the
/// story where it has to be joined.
///
/// # Errors
/// The first thing that makes the record unusable, with its place.
pub fn parse<'a>(
    nodes: &[Node<'a>],
    group_field: Option<&str>,
    story_text: &'a mut String,
) -> Result<Record<'a>, RejectReason> {
    let root = Cursor::root(nodes);
    let mut keys = Vec::with_capacity(16);
    root.object("")?.check_duplicates(&mut keys)?;
    let mut record = RootFields::default();
    for (key, value) in root.object("")? {
        match key {
            "story" => record.story = Some(value),
            "question" => record.question = Some(value),
            "answer" => record.answer = Some(value),
            "socialized_context" => record.context = Some(value),
            "is_correct" => record.is_correct = Some(value),
            _ => {}
        }
        if group_field == Some(key) {
            record.group_field = Some(value);
        }
    }
    let RootFields { story, question, answer, is_correct, context, group_field: found } = record;
    let group_field = match group_field {
        Some(name) => Some(group_text(name, found)?),
        None => None,
    };
    let question = required(question, "question")?.string("question")?;
    let answer = required(answer, "answer")?.string("answer")?;
    let is_correct = match is_correct {
        Some(value) => value.optional_bool("is_correct")?,
        None => None,
    };
    let context = context_of(required(context, "socialized_context")?, &mut keys)
        .map_err(|reason| reason.within("socialized_context"))?;
    // Last, since it is the only part that is copied.
    let (story, story_form) = story_of(required(story, "story")?, story_text)?;
    Ok(Record { story, story_form, question, answer, is_correct, context, group_field, may_hold_nul: true })
}

/// Reads the context alone, of a record that may lack all else, or of a context that stands by itself
/// (`agents_names` and its list of steps at the top, as a model writes it).
///
/// # Errors
/// The first thing that makes the context unusable, with its place.
pub fn parse_context<'a>(nodes: &[Node<'a>]) -> Result<Context<'a>, RejectReason> {
    let root = Cursor::root(nodes);
    let mut keys = Vec::with_capacity(16);
    root.object("")?.check_duplicates(&mut keys)?;
    let (mut is_bare, mut context) = (false, None);
    for (key, value) in root.object("")? {
        match key {
            "socialized_context" => context = Some(value),
            "agents_names" => is_bare = true,
            _ => {}
        }
    }
    if is_bare {
        return context_of(root, &mut keys);
    }
    context_of(required(context, "socialized_context")?, &mut keys)
        .map_err(|reason| reason.within("socialized_context"))
}

#[derive(Default)]
struct RootFields<'n, 'a> {
    story: Option<Cursor<'n, 'a>>,
    question: Option<Cursor<'n, 'a>>,
    answer: Option<Cursor<'n, 'a>>,
    is_correct: Option<Cursor<'n, 'a>>,
    context: Option<Cursor<'n, 'a>>,
    group_field: Option<Cursor<'n, 'a>>,
}

fn group_text<'a>(name: &str, value: Option<Cursor<'_, 'a>>) -> Result<&'a str, RejectReason> {
    let reason = |what| RejectReason::new(Code::GroupField, what, name);
    let value = value.ok_or_else(|| reason("the field to group by is missing"))?;
    value.string(name).map_err(|_| reason("the field to group by is not a string"))
}

fn story_of<'a>(
    value: Cursor<'_, 'a>,
    story_text: &'a mut String,
) -> Result<(&'a str, StoryForm), RejectReason> {
    let (story, form) = match value.node() {
        Node::String(text) => story::read(text, story_text).map_err(|error| story_reason(text, error))?,
        Node::Array { .. } => {
            story_text.clear();
            for (index, item) in value.list("story")?.enumerate() {
                if index > 0 {
                    story_text.push(' ');
                }
                story_text.push_str(item.string(&format!("story[{index}]"))?);
            }
            story::check_is_there(story_text).map_err(|error| story_reason(story_text, error))?;
            (story_text.as_str(), StoryForm::List)
        }
        _ => return Err(value.wrong_type("story", "a string or a list of strings")),
    };
    if story.chars().all(is_blank) {
        return Err(RejectReason::new(Code::EmptyStory, "the story has no text", "story"));
    }
    Ok((story, form))
}

/// The reason for refusing the story `text`.
pub fn story_reason(text: &str, error: StoryError) -> RejectReason {
    let character = text[..error.at].chars().count() + 1;
    RejectReason::new(Code::StoryLiteral, error.kind.to_string(), format!("story, character {character}"))
}

fn context_of<'a>(value: Cursor<'_, 'a>, keys: &mut Vec<&'a str>) -> Result<Context<'a>, RejectReason> {
    value.object("")?.check_duplicates(keys)?;
    let (mut names, mut steps) = (None, None);
    for (key, value) in value.object("")? {
        match key {
            "agents_names" => names = Some(value),
            "socialized_context" => steps = Some(value),
            _ => {}
        }
    }
    let names = required(names, "agents_names")?;
    let list = names.list("agents_names")?;
    let mut agents_names = Vec::with_capacity(list.len());
    for (index, name) in list.enumerate() {
        let at = |reason: RejectReason| reason.within(&format!("agents_names[{index}]"));
        agents_names.push(name.string("").map_err(at)?);
    }
    if agents_names.is_empty() {
        return Err(RejectReason::new(Code::NoAgents, "there is no agent", "agents_names"));
    }

    let mut buffers = StepBuffers { names: colon_names(&agents_names), pairs: Vec::new(), keys };
    let list = required(steps, "socialized_context")?.list("socialized_context")?;
    if list.len() == 0 {
        return Err(RejectReason::new(Code::NoSteps, "there is no timestep", "socialized_context"));
    }
    buffers.pairs.reserve(list.len() * agents_names.len() * 2);
    let mut steps = Vec::with_capacity(list.len());
    for (index, step) in list.enumerate() {
        let step = step_of(step, index, &mut buffers)
            .map_err(|reason| reason.within(&format!("socialized_context[{index}]")))?;
        steps.push(step);
    }
    let pairs = buffers.pairs;
    Ok(Context::new(agents_names, steps, pairs, false).expect("there are agents and steps"))
}

/// What the steps of a context share.
struct StepBuffers<'k, 'a> {
    /// See [`split_item`].
    names: Vec<&'a str>,
    pairs: Vec<AgentText<'a>>,
    /// What is used to compare keys in.
    keys: &'k mut Vec<&'a str>,
}

fn step_of<'a>(
    value: Cursor<'_, 'a>,
    index: usize,
    buffers: &mut StepBuffers<'_, 'a>,
) -> Result<Step<'a>, RejectReason> {
    value.object("")?.check_duplicates(buffers.keys)?;
    let mut timestep = Timestep::Place(index);
    let (mut state, mut observations, mut actions) = (None, None, None);
    for (key, value) in value.object("")? {
        match key {
            "timestep" => timestep = timestep_of(value, timestep)?,
            "state" => state = Some(value),
            "observations" => observations = Some(value),
            "actions" => actions = Some(value),
            _ => {}
        }
    }
    let state = required(state, "state")?.string("state").map(Text::Real)?;
    let start = buffers.pairs.len();
    pairs_of(required(observations, "observations")?, buffers)
        .map_err(|reason| reason.within("observations"))?;
    let middle = buffers.pairs.len();
    pairs_of(required(actions, "actions")?, buffers).map_err(|reason| reason.within("actions"))?;
    Ok(Step::new(timestep, state, (start, middle), (middle, buffers.pairs.len())))
}

fn timestep_of<'a>(value: Cursor<'_, 'a>, place: Timestep<'a>) -> Result<Timestep<'a>, RejectReason> {
    match value.node() {
        Node::String(text) => Ok(Timestep::Text(Text::Real(text))),
        Node::Static(StaticNode::I64(number)) => Ok(Timestep::Number(i128::from(number))),
        Node::Static(StaticNode::U64(number)) => Ok(Timestep::Number(i128::from(number))),
        Node::Static(StaticNode::Null) => Ok(place),
        _ => Err(value.wrong_type("timestep", "a string or an integer")),
    }
}

/// Appends the pairs of one observations or actions value, in either form.
fn pairs_of<'a>(value: Cursor<'_, 'a>, buffers: &mut StepBuffers<'_, 'a>) -> Result<(), RejectReason> {
    let StepBuffers { names, pairs, keys } = buffers;
    match value.node() {
        Node::Object { .. } => {
            value.object("")?.check_duplicates(keys)?;
            for (agent, text) in value.object("")? {
                let text = text.string("").map_err(|reason| reason.within(agent))?;
                pairs.push((agent, Text::Real(text)));
            }
        }
        Node::Array { .. } => {
            let start = pairs.len();
            for (index, item) in value.list("")?.enumerate() {
                let at = |reason: RejectReason| reason.within(&format!("[{index}]"));
                let (agent, text) = item.string("").and_then(|item| split_item(item, names)).map_err(at)?;
                pairs.push((agent, Text::Real(text)));
            }
            keys.clear();
            keys.extend(pairs[start..].iter().map(|(agent, _)| *agent));
            if let Some(agent) = first_duplicate(keys) {
                let reason = format!("the agent `{agent}` appears twice");
                return Err(RejectReason::new(Code::RepeatedAgent, reason, ""));
            }
        }
        _ => return Err(value.wrong_type("", "an object or a list of strings")),
    }
    Ok(())
}

/// The names that items of the list form are to be matched against, the longest first: none, unless some name
/// holds a colon, at which [`split_item`] would else cut it.
pub fn colon_names<'a>(agents_names: &[&'a str]) -> Vec<&'a str> {
    if !agents_names.iter().any(|name| name.contains(':')) {
        return Vec::new();
    }
    let mut names: Vec<&str> =
        agents_names.iter().copied().filter(|name| !name.chars().all(is_blank)).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    names
}

/// An item of the list form, `agent: text`: the first of `names` that the item begins with, or else all up to
/// the first colon; both sides trimmed. `names` are those of [`colon_names`].
///
/// # Errors
/// When there is no colon, or nothing before it.
pub fn split_item<'a>(item: &'a str, names: &[&'a str]) -> Result<(&'a str, &'a str), RejectReason> {
    let start = item.trim_start_matches(is_blank);
    let text_of = |name: &&str| start.strip_prefix(*name)?.trim_start_matches(is_blank).strip_prefix(':');
    if let Some((name, text)) = names.iter().find_map(|name| Some((*name, text_of(name)?))) {
        return Ok((name, text.trim_matches(is_blank)));
    }
    let reason = |what| RejectReason::new(Code::AgentItem, what, "");
    let (agent, text) = item.split_once(':').ok_or_else(|| reason("the item is not `agent: text`"))?;
    match agent.trim_matches(is_blank) {
        "" => Err(reason("the item has no agent before the colon")),
        agent => Ok((agent, text.trim_matches(is_blank))),
    }
}

fn required<'n, 'a>(value: Option<Cursor<'n, 'a>>, key: &str) -> Result<Cursor<'n, 'a>, RejectReason> {
    value.ok_or_else(|| RejectReason::new(Code::MissingKey, format!("the key `{key}` is missing"), key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: &str = r#"{"timestep":"0","state":"s","observations":{"A":"o"},"actions":["A: a"]}"#;

    fn with_record<T>(json: &str, look: impl FnOnce(Result<Record<'_>, RejectReason>) -> T) -> T {
        let mut bytes = json.as_bytes().to_vec();
        let tape = simd_json::to_tape(&mut bytes).unwrap();
        let mut story_text = String::new();
        look(parse(&tape.0, Some("f"), &mut story_text))
    }

    fn record(story: &str, names: &str, steps: &str) -> String {
        format!(
            r#"{{"story":{story},"question":"q","answer":"a","f":"g","x":{{"y":[1,{{}}],"y":2}},
            "socialized_context":{{"agents_names":{names},"socialized_context":{steps},"context_manual":"m"}}}}"#
        )
    }

    fn check_reject(json: &str, code: Code, at: &str) {
        with_record(json, |result| {
            let reason = result.expect_err(json);
            assert_eq!((reason.code, reason.at.as_str()), (code, at), "{json}");
        });
    }

    #[test]
    fn a_record_is_read_in_its_own_order() {
        let steps = r#"[{"actions":{},"observations":["B : x: y ","A:"],"state":"","timestep":7},
            {"state":"t","observations":{"B":"1","A":"2"},"actions":[],"timestep":null},
            {"state":"u","observations":{},"actions":{"A":"3"}}]"#;
        with_record(&record(r#"["One.","Two."]"#, r#"["B","A"]"#, steps), |record| {
            let record = record.unwrap();
            assert_eq!((record.story, record.question, record.answer), ("One. Two.", "q", "a"));
            assert_eq!((record.is_correct, record.group_field), (None, Some("g")));
            let context = &record.context;
            assert_eq!(context.agents_names, ["B", "A"]);
            let timesteps: Vec<_> = context.steps.iter().map(|step| step.timestep).collect();
            assert_eq!(timesteps, [Timestep::Number(7), Timestep::Place(1), Timestep::Place(2)]);
            assert_eq!(
                context.observations(&context.steps[0]),
                [("B", Text::Real("x: y")), ("A", Text::Real(""))]
            );
            assert_eq!(
                context.observations(&context.steps[1]),
                [("B", Text::Real("1")), ("A", Text::Real("2"))]
            );
            assert_eq!(context.actions(&context.steps[2]), [("A", Text::Real("3"))]);
            assert!(context.misses_an_agent());
            assert!(!context.names_a_stranger());
        });
    }

    #[test]
    fn a_context_needs_nothing_around_it() {
        let check = |json: &str, expected: Result<usize, &str>| {
            let mut bytes = json.as_bytes().to_vec();
            let tape = simd_json::to_tape(&mut bytes).unwrap();
            let found = parse_context(&tape.0);
            let found = found.as_ref().map(|context| context.steps.len());
            assert_eq!(found.map_err(|reason| reason.at.as_str()), expected, "{json}");
        };
        let context = format!(r#"{{"agents_names":["A"],"socialized_context":[{STEP}]}}"#);
        check(&context, Ok(1));
        check(&format!(r#"{{"socialized_context":{context},"story":3}}"#), Ok(1));
        check(r#"{"agents_names":["A"],"socialized_context":[]}"#, Err("socialized_context"));
        check(r#"{"agents_names":["A"]}"#, Err("socialized_context"));
        let inner = "socialized_context.socialized_context";
        check(r#"{"socialized_context":{"agents_names":["A"],"socialized_context":[]}}"#, Err(inner));
        check(r#"{"story":"s"}"#, Err("socialized_context"));
        check("[]", Err(""));
    }

    #[test]
    fn a_story_is_prose_a_literal_or_a_list() {
        let check = |story: &str, expected: &str| {
            with_record(&record(story, r#"["A"]"#, &format!("[{STEP}]")), |record| {
                assert_eq!(record.unwrap().story, expected);
            });
        };
        check(r#""  Mia left. ""#, "  Mia left. ");
        check(r#""['Mia left.', 'She saw \"it\".']""#, "Mia left. She saw \"it\".");
        check(r#"["Mia left.","x"]"#, "Mia left. x");
        check(r#""[Scene 1] Mia left.""#, "[Scene 1] Mia left.");
    }

    #[test]
    fn what_is_unusable_is_named_with_its_place() {
        let story = r#""s""#;
        let names = r#"["A"]"#;
        let check = |story: &str, names: &str, steps: &str, code, at: &str| {
            check_reject(&record(story, names, steps), code, at);
        };
        let steps = format!("[{STEP}]");
        check("3", names, &steps, Code::WrongType, "story");
        check("\" \"", names, &steps, Code::EmptyStory, "story");
        check("[]", names, &steps, Code::EmptyStory, "story");
        check("[1]", names, &steps, Code::WrongType, "story[0]");
        check(r#""['a', 3]""#, names, &steps, Code::StoryLiteral, "story, character 7");
        check(r#""['é' 'b']""#, names, &steps, Code::StoryLiteral, "story, character 6");
        check(r#"" nan""#, names, &steps, Code::StoryLiteral, "story, character 1");
        check(r#"["None"]"#, names, &steps, Code::StoryLiteral, "story, character 1");
        check(r#"" b'a'""#, names, &steps, Code::StoryLiteral, "story, character 2");
        check(story, "[]", &steps, Code::NoAgents, "socialized_context.agents_names");
        check(story, "[\"A\",1]", &steps, Code::WrongType, "socialized_context.agents_names[1]");
        check(story, "{}", &steps, Code::WrongType, "socialized_context.agents_names");
        check(story, names, "[]", Code::NoSteps, "socialized_context.socialized_context");
        let step = "socialized_context.socialized_context[1]";
        let check_step = |second: &str, code, at: &str| {
            check(story, names, &format!("[{STEP},{second}]"), code, &format!("{step}{at}"));
        };
        check_step("3", Code::WrongType, "");
        check_step(r#"{"observations":{},"actions":{}}"#, Code::MissingKey, ".state");
        check_step(r#"{"state":"","actions":{}}"#, Code::MissingKey, ".observations");
        check_step(r#"{"state":"","observations":{}}"#, Code::MissingKey, ".actions");
        check_step(r#"{"state":"","state":"","observations":{},"actions":{}}"#, Code::DuplicateKey, ".state");
        check_step(r#"{"state":"","observations":{"A":1},"actions":{}}"#, Code::WrongType, ".observations.A");
        check_step(r#"{"state":"","observations":["x"],"actions":{}}"#, Code::AgentItem, ".observations[0]");
        check_step(
            r#"{"state":"","observations":{},"actions":["A:"," :x"]}"#,
            Code::AgentItem,
            ".actions[1]",
        );
        check_step(
            r#"{"state":"","observations":{},"actions":["A:","A :"]}"#,
            Code::RepeatedAgent,
            ".actions",
        );
        check_step(
            r#"{"state":"","observations":{"A":"","A":""},"actions":{}}"#,
            Code::DuplicateKey,
            ".observations.A",
        );
        check_step(
            r#"{"timestep":1.0,"state":"","observations":{},"actions":{}}"#,
            Code::WrongType,
            ".timestep",
        );
        check_step(
            r#"{"timestep":true,"state":"","observations":{},"actions":{}}"#,
            Code::WrongType,
            ".timestep",
        );
        check_reject("[]", Code::WrongType, "");
        check_reject(r#"{"x":1,"x":2}"#, Code::DuplicateKey, "x");
        check_reject(r#"{"f":1}"#, Code::GroupField, "f");
        check_reject("{}", Code::GroupField, "f");
        check_reject(r#"{"f":""}"#, Code::MissingKey, "question");
    }

    #[test]
    fn an_item_belongs_to_the_longest_name_it_begins_with() {
        let check = |item: &str, names: &[&str], expected: Option<(&str, &str)>| {
            assert_eq!(split_item(item, &colon_names(names)).ok(), expected, "{item}");
        };
        let names = ["Dr: Who", "Dr", "Dr: Who: Jr", "", "B "];
        check("Dr: Who: came: in ", &names, Some(("Dr: Who", "came: in")));
        check(" \u{a0}Dr: Who \t: x", &names, Some(("Dr: Who", "x")));
        check("Dr: Who: Jr: y", &names, Some(("Dr: Who: Jr", "y")));
        check("Dr: Whom: y", &names, Some(("Dr", "Whom: y")));
        check("B : y", &names, Some(("B ", "y")));
        check("Mia : y: z", &names, Some(("Mia", "y: z")));
        check(": y", &names, None);
        check("Dr Who", &names, None);
        // Without a colon in a name the first one of the item decides, as ever.
        check("B : y", &["B ", "B"], Some(("B", "y")));
        assert!(colon_names(&["B ", "A"]).is_empty());
    }

    #[test]
    fn agents_are_compared_with_the_names() {
        let check = |observations: &str, misses, stranger| {
            let step =
                format!(r#"[{{"state":"","observations":{observations},"actions":{{"A":"","B":""}}}}]"#);
            with_record(&record(r#""s""#, r#"["A","B"]"#, &step), |record| {
                let context = record.unwrap().context;
                assert_eq!((context.misses_an_agent(), context.names_a_stranger()), (misses, stranger));
            });
        };
        check(r#"{"A":"","B":""}"#, false, false);
        check(r#"{"B":"","A":""}"#, false, false);
        check(r#"{"A":""}"#, true, false);
        check(r#"{"A":"","B":"","C":""}"#, false, true);
        check(r#"{"A":"","C":""}"#, true, true);
    }
}
