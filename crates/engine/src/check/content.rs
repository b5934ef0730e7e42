//! The rules of what a message holds: text, parts with images, calls of functions.

use crate::check::code::Code;
use crate::check::judge::{Judge, Role, shortened};
use crate::check::tape::{Kind, Value};

/// The most images a sample may have.
const MAX_IMAGES: usize = 10;

/// The longest image as a data URL, in characters: 10 MiB in base64 behind its header.
const MAX_IMAGE_URL: usize = "data:image/jpeg;base64,".len() + 4 * (10 << 20) / 3;

/// What images a model is shown.
const IMAGE_TYPES: [&str; 3] = ["jpeg", "png", "webp"];

/// How a content is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As one text.
    Text,
    /// As a list of parts.
    Parts,
}

/// A content that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// How it is written; `None` where it is neither form.
    pub form: Option<Form>,
    /// How many images it has.
    pub images: usize,
    /// Whether it says nothing at all.
    pub is_blank: bool,
}

/// Judges a content by `role`, the speaker, where that is known. `at` says where it stands.
pub fn check(
    value: Value<'_, '_>,
    role: Option<Role>,
    at: &dyn Fn() -> String,
    judge: &mut Judge<'_>,
) -> Content {
    match value.kind() {
        Kind::Text(text) => {
            judge.text(text, at);
            Content { form: Some(Form::Text), images: 0, is_blank: is_blank(text) }
        }
        Kind::List(parts) => {
            let mut content = Content { form: Some(Form::Parts), images: 0, is_blank: true };
            for (index, part) in parts.enumerate() {
                check_part(part, role, &|| format!("{}[{index}]", at()), judge, &mut content);
            }
            content
        }
        _ => {
            judge.say(Code::Content, || {
                format!("{} is {}, not a string or a list of parts", at(), value.described())
            });
            Content { form: None, images: 0, is_blank: false }
        }
    }
}

/// Whether `text` says nothing.
fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

fn check_part(
    part: Value<'_, '_>,
    role: Option<Role>,
    at: &dyn Fn() -> String,
    judge: &mut Judge<'_>,
    content: &mut Content,
) {
    let Kind::Object(fields) = part.kind() else {
        return judge.say(Code::Content, || format!("{} is {}, not an object", at(), part.described()));
    };
    judge.keys(&fields, at);
    match fields.get("type").and_then(Value::text) {
        Some("text") => match fields.get("text").map(Value::kind) {
            Some(Kind::Text(text)) => {
                judge.text(text, at);
                content.is_blank &= is_blank(text);
            }
            _ => judge.say(Code::Content, || format!("{} has no string under `text`", at())),
        },
        Some("image_url") => {
            content.images += 1;
            content.is_blank = false;
            if role.is_some_and(|role| role != Role::User) {
                judge.say(Code::Image, || format!("{} is an image outside a user's message", at()));
            }
            check_image(fields.get("image_url"), at, judge);
        }
        Some(other) => judge.say(Code::Content, || {
            format!("{} has the type `{}`, not `text` or `image_url`", at(), shortened(other))
        }),
        None => judge.say(Code::Content, || format!("{} has no string under `type`", at())),
    }
}

fn check_image(image: Option<Value<'_, '_>>, at: &dyn Fn() -> String, judge: &mut Judge<'_>) {
    let url = match image.map(Value::kind) {
        Some(Kind::Object(fields)) => {
            judge.keys(&fields, || format!("{}.image_url", at()));
            fields.get("url").and_then(Value::text)
        }
        _ => None,
    };
    let Some(url) = url.filter(|url| !url.is_empty()) else {
        return judge.say(Code::Image, || format!("{} has no string under `image_url.url`", at()));
    };
    let is_image = |url: &str| {
        let kind = url.strip_prefix("data:image/").and_then(|rest| rest.split_once(";base64,"));
        kind.is_some_and(|(kind, _)| IMAGE_TYPES.contains(&kind))
    };
    if !is_image(url) {
        judge.say(Code::Image, || {
            format!("{} is `{}`, not a JPEG, PNG or WEBP as a base64 data URL", at(), shortened(url))
        });
    } else if url.len() > MAX_IMAGE_URL && url.chars().count() > MAX_IMAGE_URL {
        judge.say(Code::Image, || format!("{} is an image of more than 10 MiB", at()));
    }
}

/// Judges the number of a sample's images.
pub fn check_image_count(images: usize, judge: &mut Judge<'_>) {
    if images > MAX_IMAGES {
        judge.say(Code::ImageCount, || format!("{images} images, and the most is {MAX_IMAGES}"));
    }
}

/// Judges a message's `tool_calls`, and says whether there is at least one call.
pub fn check_tool_calls(
    value: Value<'_, '_>,
    role: Option<Role>,
    at: &dyn Fn() -> String,
    judge: &mut Judge<'_>,
) -> bool {
    if role.is_some_and(|role| role != Role::Assistant) && !value.is_null() {
        judge.say(Code::ToolCalls, || format!("{} in a message that is not the assistant's", at()));
    }
    let calls = match value.kind() {
        Kind::Null => return false,
        Kind::List(calls) => calls,
        _ => {
            judge.say(Code::ToolCalls, || format!("{} is {}, not a list", at(), value.described()));
            return false;
        }
    };
    let is_any = calls.len() > 0;
    for (index, call) in calls.enumerate() {
        if let Kind::Object(fields) = call.kind() {
            judge.keys(&fields, || format!("{}[{index}]", at()));
            if let Some(Kind::Object(function)) = fields.get("function").map(Value::kind) {
                judge.keys(&function, || format!("{}[{index}].function", at()));
            }
        }
        if let Some(fault) = fault_of_call(call) {
            judge.say(Code::ToolCalls, || format!("{}[{index}] {fault}", at()));
        }
        call.strings().for_each(|text| judge.text(text, at));
    }
    is_any
}

fn fault_of_call(call: Value<'_, '_>) -> Option<&'static str> {
    let Kind::Object(fields) = call.kind() else { return Some("is not an object") };
    let Some(Kind::Object(function)) = fields.get("function").map(Value::kind) else {
        return Some("has no object under `function`");
    };
    if function.get("name").and_then(Value::text).is_none() {
        return Some("has no string under `function.name`");
    }
    match function.get("arguments").map(Value::kind) {
        None | Some(Kind::Text(_) | Kind::Object(_)) => None,
        Some(_) => Some("has `function.arguments` that are neither a string nor an object"),
    }
}

/// Judges the list of functions that a sample offers.
pub fn check_tools(value: Value<'_, '_>, at: &'static str, judge: &mut Judge<'_>) {
    match value.kind() {
        Kind::Null => {}
        Kind::List(tools) => {
            for (index, tool) in tools.enumerate() {
                match tool.kind() {
                    Kind::Object(fields) => judge.keys(&fields, || format!("{at}[{index}]")),
                    _ => judge
                        .say(Code::Tools, || format!("{at}[{index}] is {}, not an object", tool.described())),
                }
                tool.strings().for_each(|text| judge.text(text, || at.to_owned()));
            }
        }
        _ => judge.say(Code::Tools, || format!("`{at}` is {}, not a list", value.described())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::conversation::tests::check;

    const TEXT: &str = r#"{"type": "text", "text": "a"}"#;

    fn image(url: &str) -> String {
        format!(r#"{{"type": "image_url", "image_url": {{"url": "{url}"}}}}"#)
    }

    fn sample(user: &str, assistant: &str) -> String {
        format!(
            r#"{{"messages": [{{"role": "user", "content": [{user}]}}, {{"role": "assistant", "content": {assistant}}}]}}"#
        )
    }

    #[track_caller]
    fn check_parts(user: &str, expected: &[(Code, &str)]) {
        check(&sample(user, &format!("[{TEXT}]")), expected);
    }

    #[test]
    fn parts_are_texts_and_images() {
        for kind in ["jpeg", "png", "webp"] {
            check_parts(&format!("{TEXT}, {}", image(&format!("data:image/{kind};base64,AAAA"))), &[]);
        }
        check_parts("7", &[(Code::Content, "messages[0].content[0] is a number")]);
        check_parts("{}", &[(Code::Content, "no string under `type`")]);
        check_parts(r#"{"type": "text", "text": 1}"#, &[(Code::Content, "no string under `text`")]);
        check_parts(r#"{"type": "audio"}"#, &[(Code::Content, "the type `audio`")]);
        check_parts(r#"{"type": "image_url"}"#, &[(Code::Image, "no string under `image_url.url`")]);
        check_parts(&image(""), &[(Code::Image, "no string under `image_url.url`")]);
        for url in ["https://example.org/a.png", "data:image/gif;base64,AAAA", "data:image/png,AAAA"] {
            check_parts(&image(url), &[(Code::Image, "not a JPEG, PNG or WEBP")]);
        }
    }

    #[test]
    fn an_image_has_at_most_ten_mebibytes() {
        let header = "data:image/jpeg;base64,";
        let url = |length: usize| format!("{header}{}", "A".repeat(length - header.len()));
        check_parts(&image(&url(MAX_IMAGE_URL)), &[]);
        check_parts(&image(&url(MAX_IMAGE_URL + 1)), &[(Code::Image, "more than 10 MiB")]);
    }

    #[test]
    fn a_sample_has_at_most_ten_images_all_the_users() {
        let image = image("data:image/png;base64,AAAA");
        let images = |count: usize| vec![image.as_str(); count].join(", ");
        check_parts(&images(10), &[]);
        check_parts(&images(11), &[(Code::ImageCount, "11 images")]);
        check(&sample(TEXT, &format!("[{image}]")), &[(Code::Image, "outside a user's message")]);
        let weighed = sample(&image, &format!("[{TEXT}]")).replacen('{', "{\"weight\": 1, ", 1);
        check(&weighed, &[]);
        let weighed = sample(&image, &format!("[{TEXT}]")).replace("\"user\",", "\"user\", \"weight\": 1,");
        check(&weighed, &[(Code::Weight, "has images and a weight")]);
    }

    #[test]
    fn a_conversation_is_written_in_one_form() {
        check(&sample(TEXT, "\"b\""), &[(Code::MixedContent, "messages[1]")]);
    }

    #[test]
    fn tools_are_a_list_of_objects() {
        let with =
            |tools: &str| format!(r#"{{"tools": {tools}, {}"#, &sample(TEXT, &format!("[{TEXT}]"))[1..]);
        check(&with("null"), &[]);
        check(&with("[]"), &[]);
        check(&with("{}"), &[(Code::Tools, "`tools` is an object")]);
        check(&with("[{}, 1]"), &[(Code::Tools, "tools[1] is a number")]);
    }
}
