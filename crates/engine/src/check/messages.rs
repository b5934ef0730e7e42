//! The rules of a conversation's messages: who speaks, in which order, and what with.

use crate::check::code::Code;
use crate::check::content::{self, Content, Form, check_image_count, check_tool_calls};
use crate::check::judge::{Judge, Role, shortened};
use crate::check::tape::{Fields, Kind, Value};

/// What is known of a conversation between two of its messages.
#[derive(Default)]
struct Course {
    previous: Option<Role>,
    has_assistant: bool,
    form: Option<Form>,
    is_mixed: bool,
    images: usize,
}

/// Judges a conversation, and says who has the last word.
pub fn check_messages(
    value: Value<'_, '_>,
    path: &'static str,
    needs_assistant: bool,
    judge: &mut Judge<'_>,
) -> Option<Role> {
    let messages = match value.kind() {
        Kind::List(messages) if messages.len() > 0 => messages,
        Kind::List(_) => {
            judge.say(Code::Messages, || format!("`{path}` is empty"));
            return None;
        }
        _ => {
            judge.say(Code::Messages, || format!("`{path}` is {}, not a list", value.described()));
            return None;
        }
    };
    let mut course = Course::default();
    for (index, message) in messages.enumerate() {
        let at = move || format!("{path}[{index}]");
        match message.kind() {
            Kind::Object(fields) => check_message(&fields, index, &at, &mut course, judge),
            _ => {
                judge.say(Code::Messages, || format!("{} is {}, not an object", at(), message.described()));
                course.previous = None;
            }
        }
    }
    if course.images > 0 {
        judge.uncounted();
    }
    check_image_count(course.images, judge);
    if needs_assistant && !course.has_assistant {
        judge.say(Code::NoAssistant, || format!("`{path}` has no message of the assistant"));
    }
    course.previous
}

/// The fields of a message that have rules.
#[derive(Default)]
struct Message<'n, 'i> {
    role: Option<Value<'n, 'i>>,
    content: Option<Value<'n, 'i>>,
    weight: Option<Value<'n, 'i>>,
    tool_calls: Option<Value<'n, 'i>>,
    reasoning: [Option<(&'i str, Value<'n, 'i>)>; 2],
}

impl<'n, 'i> Message<'n, 'i> {
    fn of(fields: &Fields<'n, 'i>) -> Self {
        let mut message = Message::default();
        for (key, value) in fields.clone() {
            match key {
                "role" => message.role = Some(value),
                "content" => message.content = Some(value),
                "weight" => message.weight = Some(value),
                "tool_calls" => message.tool_calls = Some(value),
                "reasoning" => message.reasoning[0] = Some((key, value)),
                "reasoning_content" => message.reasoning[1] = Some((key, value)),
                _ => {}
            }
        }
        message
    }
}

fn check_message(
    fields: &Fields<'_, '_>,
    index: usize,
    at: &dyn Fn() -> String,
    course: &mut Course,
    judge: &mut Judge<'_>,
) {
    judge.keys(fields, at);
    let message = Message::of(fields);
    let role = check_role(message.role, at, judge);
    judge.message(role);
    check_turn(role, index, at, course, judge);
    course.has_assistant |= role == Some(Role::Assistant);
    course.previous = role;
    check_reasoning(&message, role, at, judge);
    let content = check_said(&message, role, at, judge);
    course.images += content.images;
    check_weight(message.weight, content.images, at, judge);
    match (course.form, content.form) {
        (None, form) => course.form = form,
        (Some(first), Some(form)) if first != form && !course.is_mixed => {
            course.is_mixed = true;
            judge.say(Code::MixedContent, || {
                format!("{}: texts and lists of parts in one conversation", at())
            });
        }
        _ => {}
    }
}

fn check_role(role: Option<Value<'_, '_>>, at: &dyn Fn() -> String, judge: &mut Judge<'_>) -> Option<Role> {
    let Some(value) = role else {
        judge.say(Code::Role, || format!("{} has no `role`", at()));
        return None;
    };
    let Some(name) = value.text() else {
        judge.say(Code::Role, || format!("{}.role is {}, not a string", at(), value.described()));
        return None;
    };
    let role = Role::named(name);
    if role.is_none() {
        judge.say(Code::Role, || {
            format!("{}.role is `{}`, not system, user, assistant or tool", at(), shortened(name))
        });
    }
    role
}

/// Judges who speaks after whom. Results of several calls at once stand one behind the other.
fn check_turn(
    role: Option<Role>,
    index: usize,
    at: &dyn Fn() -> String,
    course: &Course,
    judge: &mut Judge<'_>,
) {
    let Some(role) = role else { return };
    if course.previous == Some(role) && role != Role::Tool {
        judge.say(Code::Alternation, || format!("{} is the second of `{}` in a row", at(), role.as_str()));
    } else if role == Role::System && index > 0 {
        judge.say(Code::RoleOrder, || format!("{} is a system message, and not the first", at()));
    } else if index == 0 && matches!(role, Role::Assistant | Role::Tool) {
        judge.say(Code::RoleOrder, || format!("{} is of `{}`: nobody has asked", at(), role.as_str()));
    }
}

fn check_reasoning(
    message: &Message<'_, '_>,
    role: Option<Role>,
    at: &dyn Fn() -> String,
    judge: &mut Judge<'_>,
) {
    for (key, value) in message.reasoning.iter().flatten() {
        match value.kind() {
            Kind::Null => continue,
            Kind::Text(text) => judge.text(text, || format!("{}.{key}", at())),
            _ => {
                judge.say(Code::Reasoning, || {
                    format!("{}.{key} is {}, not a string", at(), value.described())
                });
            }
        }
        if role.is_some_and(|role| role != Role::Assistant) {
            judge.say(Code::Reasoning, || format!("{}.{key} in a message that is not the assistant's", at()));
        }
    }
}

/// Judges what a message says: its content, its calls, or both.
fn check_said(
    message: &Message<'_, '_>,
    role: Option<Role>,
    at: &dyn Fn() -> String,
    judge: &mut Judge<'_>,
) -> Content {
    let calls_at = || format!("{}.tool_calls", at());
    if message.tool_calls.is_some() || message.reasoning.iter().any(Option::is_some) {
        judge.uncounted();
    }
    let has_calls = message.tool_calls.is_some_and(|calls| check_tool_calls(calls, role, &calls_at, judge));
    let content = match message.content {
        Some(value) if !(has_calls && value.is_null()) => {
            content::check(value, role, &|| format!("{}.content", at()), judge)
        }
        _ => {
            if !has_calls {
                judge.say(Code::Content, || format!("{} has no `content`", at()));
            }
            Content { form: None, images: 0, is_blank: false }
        }
    };
    if role == Some(Role::Assistant) && content.is_blank && !has_calls {
        judge.say(Code::EmptyAssistant, || format!("{} has no text", at()));
    }
    content
}

fn check_weight(
    weight: Option<Value<'_, '_>>,
    images: usize,
    at: &dyn Fn() -> String,
    judge: &mut Judge<'_>,
) {
    let Some(weight) = weight else { return };
    match weight.kind() {
        Kind::Integer(0) | Kind::Bool(false) => {}
        // Python's `true` is an integer, and equals 1.
        Kind::Integer(1) | Kind::Bool(true) => {
            if images > 0 {
                judge.say(Code::Weight, || format!("{} has images and a weight other than 0", at()));
            }
        }
        _ => judge.say(Code::Weight, || format!("{}.weight is neither 0 nor 1", at())),
    }
}

/// Judges an answer of a preference pair.
pub fn check_answer(fields: &Fields<'_, '_>, at: &dyn Fn() -> String, judge: &mut Judge<'_>) {
    judge.keys(fields, at);
    let message = Message::of(fields);
    let role = check_role(message.role, at, judge);
    if role.is_some_and(|role| role != Role::Assistant) {
        judge.say(Code::Preference, || format!("{} is not the assistant's", at()));
    }
    judge.message(role);
    check_reasoning(&message, role, at, judge);
    check_said(&message, role, at, judge);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::conversation::tests::check;

    const USER: &str = r#"{"role": "user", "content": "a"}"#;
    const ASSISTANT: &str = r#"{"role": "assistant", "content": "b"}"#;
    const SYSTEM: &str = r#"{"role": "system", "content": "s"}"#;
    const CALL: &str = r#"{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}"#;
    const RESULT: &str = r#"{"role": "tool", "tool_call_id": "1", "content": "r"}"#;

    #[track_caller]
    fn check_all(messages: &[&str], expected: &[(Code, &str)]) {
        check(&format!(r#"{{"messages": [{}]}}"#, messages.join(", ")), expected);
    }

    #[test]
    fn a_key_that_stands_twice_in_a_used_object_is_warned_of() {
        let sample = |messages: &str, more: &str| format!(r#"{{"messages": [{messages}]{more}}}"#);
        let (user, assistant) =
            (r#"{"role": "user", "content": "a"}"#, r#"{"role": "assistant", "content": "b"}"#);
        let both = format!("{user}, {assistant}");
        let doubled = |at: &'static str| [(Code::DuplicateKey, at)];
        check(
            &sample(&both, &format!(r#", "messages": [{both}]"#)),
            &doubled("the sample has the key `messages` twice"),
        );
        let twice = r#"{"role": "assistant", "content": "b", "cont\u0065nt": "c"}"#;
        check(&sample(&format!("{user}, {twice}"), ""), &doubled("messages[1] has the key `content` twice"));
        let part = r#"{"role": "user", "content": [{"type": "text", "text": "a", "text": "b"}]}"#;
        let parts = r#"{"role": "assistant", "content": [{"type": "text", "text": "a"}]}"#;
        check(
            &sample(&format!("{part}, {parts}"), ""),
            &doubled("messages[0].content[0] has the key `text`"),
        );
        let call = r#"{"role": "assistant", "tool_calls": [{"function": {"name": "f", "name": "g"}}]}"#;
        check(
            &sample(&format!("{user}, {call}"), ""),
            &doubled("messages[1].tool_calls[0].function has the key"),
        );
        let tools = r#", "tools": [{"type": "function", "type": "x"}]"#;
        check(&sample(&both, tools), &doubled("tools[0] has the key `type` twice"));
        // Many keys, and one of them twice.
        let many: String = (0..40).map(|number| format!(r#", "x{number}": 1"#)).collect();
        let long = format!(r#"{{"role": "user", "content": "a"{many}, "x39": 2}}, {assistant}"#);
        check(&sample(&long, ""), &doubled("messages[0] has the key `x39` twice"));
        check(&sample(&both, ""), &[]);
    }

    #[test]
    fn messages_are_a_list_of_objects() {
        check(r#"{"messages": "a"}"#, &[(Code::Messages, "`messages` is a string")]);
        check(r#"{"messages": []}"#, &[(Code::Messages, "`messages` is empty")]);
        check_all(&[USER, "7", ASSISTANT], &[(Code::Messages, "messages[1] is a number")]);
    }

    #[test]
    fn roles_are_known_and_alternate() {
        check_all(&[SYSTEM, USER, ASSISTANT, USER, ASSISTANT], &[]);
        check_all(&[USER, ASSISTANT, USER], &[]);
        check_all(&[USER, USER, ASSISTANT], &[(Code::Alternation, "messages[1] is the second of `user`")]);
        check_all(&[SYSTEM, SYSTEM, USER, ASSISTANT], &[(Code::Alternation, "`system`")]);
        check_all(&[USER, SYSTEM, ASSISTANT], &[(Code::RoleOrder, "messages[1]")]);
        check_all(&[ASSISTANT], &[(Code::RoleOrder, "nobody has asked")]);
        check_all(&[SYSTEM, USER], &[(Code::NoAssistant, "`messages`")]);
        check_all(&[r#"{"content": "a"}"#, ASSISTANT], &[(Code::Role, "messages[0] has no `role`")]);
        check_all(&[r#"{"role": 1, "content": "a"}"#, ASSISTANT], &[(Code::Role, "is a number")]);
        check_all(
            &[r#"{"role": "human", "content": "a"}"#, ASSISTANT],
            &[(Code::Role, "`human`, not system, user, assistant or tool")],
        );
    }

    #[test]
    fn calls_and_their_results_are_messages() {
        check_all(&[USER, CALL, RESULT, ASSISTANT], &[]);
        check_all(&[USER, CALL, RESULT, RESULT, ASSISTANT], &[]);
        check_all(&[USER, &CALL.replace("\"tool_calls\"", "\"content\": null, \"tool_calls\"")], &[]);
        let on_user = CALL.replace("assistant", "user");
        check_all(&[&on_user, ASSISTANT], &[(Code::ToolCalls, "not the assistant's")]);
        check_all(&[USER, &CALL.replace("\"name\"", "\"nom\"")], &[(Code::ToolCalls, "`function.name`")]);
        check_all(&[USER, &CALL.replace("\"{}\"", "7")], &[(Code::ToolCalls, "neither a string")]);
        check_all(
            &[USER, r#"{"role": "assistant", "tool_calls": [7, {}]}"#],
            &[(Code::ToolCalls, "tool_calls[0] is not an object"), (Code::ToolCalls, "[1] has no object")],
        );
        check_all(
            &[USER, r#"{"role": "assistant", "tool_calls": []}"#],
            &[(Code::Content, "messages[1] has no `content`")],
        );
        check_all(
            &[USER, r#"{"role": "assistant", "content": "", "tool_calls": {}}"#],
            &[(Code::ToolCalls, "an object, not a list"), (Code::EmptyAssistant, "messages[1]")],
        );
    }

    #[test]
    fn only_the_assistant_reasons() {
        let reasoning = |role: &str, key: &str, value: &str| {
            format!(r#"{{"role": "{role}", "content": "c", "{key}": {value}}}"#)
        };
        for key in ["reasoning", "reasoning_content"] {
            check_all(&[USER, &reasoning("assistant", key, "\"r\"")], &[]);
            check_all(&[&reasoning("user", key, "null"), ASSISTANT], &[]);
            check_all(&[USER, &reasoning("assistant", key, "[]")], &[(Code::Reasoning, "is a list")]);
            check_all(
                &[&reasoning("user", key, "\"r\""), ASSISTANT],
                &[(Code::Reasoning, "not the assistant's")],
            );
        }
    }

    #[test]
    fn a_message_says_something() {
        check_all(&[r#"{"role": "user"}"#, ASSISTANT], &[(Code::Content, "messages[0] has no `content`")]);
        check_all(&[r#"{"role": "user", "content": null}"#, ASSISTANT], &[(Code::Content, "is null")]);
        check_all(
            &[USER, r#"{"role": "assistant", "content": " \n"}"#],
            &[(Code::EmptyAssistant, "messages[1] has no text")],
        );
        check_all(&[r#"{"role": "user", "content": ""}"#, ASSISTANT], &[]);
    }

    #[test]
    fn a_weight_of_a_message_is_0_or_1() {
        for (weight, is_right) in [
            ("0", true),
            ("1", true),
            ("true", true),
            ("2", false),
            ("1.0", false),
            ("\"1\"", false),
            ("null", false),
        ] {
            let weighed = format!(r#"{{"role": "assistant", "content": "b", "weight": {weight}}}"#);
            let expected: &[_] =
                if is_right { &[] } else { &[(Code::Weight, "messages[1].weight is neither 0 nor 1")] };
            check_all(&[USER, &weighed], expected);
        }
    }
}
