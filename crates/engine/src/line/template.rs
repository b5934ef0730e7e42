//! Says how a record becomes messages: which roles, which texts, and how the context is written.
//!
//! A template is data, read from YAML once and compiled into segments whose fixed parts
//! are already escaped, so that the converter only copies. The same template asks the
//! tuned model later, which is why its full text goes into the manifest. It knows no
//! files: whoever has the text parses it.

use serde::Deserialize;

use crate::json::{Charset, escape_once};
use crate::record::TextField;
use crate::yaml;

/// The built-in template: the documented chat format (system, user, assistant).
pub const CHATML: &str = include_str!("chatml.yaml");

/// How the keys of observations and actions are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// `{"Mia": "none"}`
    #[default]
    Object,
    /// `["Mia: none"]`
    List,
}

/// The layout of the context inside the assistant's message: `context` of a template. A field is a key, and
/// what is left out is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContextLayout {
    /// How observations and actions are written.
    pub form: Form,
    /// Spaces a level, at most 16, or `None` for one line.
    pub indent: Option<u64>,
    /// Whether other characters than ASCII are escaped.
    pub ascii: bool,
}

impl ContextLayout {
    /// The characters that it is written in.
    pub fn charset(&self) -> Charset {
        if self.ascii { Charset::Ascii } else { Charset::Utf8 }
    }
}

/// A piece of a training line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Bytes that are the same in every line, escaped.
    Fixed(Vec<u8>),
    /// A text of the record.
    Text(TextField),
    /// The context as JSON text.
    Context,
}

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name, for people.
    pub name: String,
    /// Its full YAML text, as read.
    pub text: String,
    /// The line, newline excluded.
    pub segments: Vec<Segment>,
    /// How the context is written.
    pub context: ContextLayout,
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages name them")]
pub enum TemplateError {
    #[error("not a template: {0}")]
    Yaml(String),
    #[error("no assistant message contains {{context}}")]
    NoContext,
    #[error("message {0} contains {{context}}, but only the assistant may say it")]
    ContextInPrompt(usize),
    #[error("message {index} has the role `{role}`: {rule}")]
    Role {
        /// Counted from 1.
        index: usize,
        role: String,
        rule: &'static str,
    },
    #[error("context.indent is {0}; it is at most 16")]
    Indent(u64),
}

/// A template as its file spells it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateFile {
    #[serde(default)]
    name: Option<String>,
    messages: Vec<MessageFile>,
    #[serde(default)]
    context: ContextLayout,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageFile {
    role: String,
    content: String,
}

impl Template {
    /// The built-in template.
    pub fn chatml() -> Template {
        Template::parse(CHATML, "chatml").expect("the built-in template is valid: a test reads it")
    }

    /// Compiles the YAML `text`; `name` is used where the text gives none.
    ///
    /// Exactly the tokens `{story}`, `{question}`, `{answer}` and `{context}` are replaced;
    /// every other brace stands for itself.
    ///
    /// # Errors
    /// When the text is not a template or could not be trained with.
    pub fn parse(text: &str, name: &str) -> Result<Template, TemplateError> {
        let file: TemplateFile = yaml::parse(text).map_err(TemplateError::Yaml)?;
        check_roles(&file.messages)?;
        if let Some(indent) = file.context.indent.filter(|&indent| indent > 16) {
            return Err(TemplateError::Indent(indent));
        }
        Ok(Template {
            name: file.name.unwrap_or_else(|| name.to_owned()),
            text: text.to_owned(),
            segments: compile(&file.messages),
            context: file.context,
        })
    }
}

fn check_roles(messages: &[MessageFile]) -> Result<(), TemplateError> {
    let mut previous = "";
    for (index, message) in messages.iter().enumerate() {
        let rule = match message.role.as_str() {
            "system" if index > 0 => Some("a system message comes first"),
            "system" | "user" | "assistant" if message.role == previous => Some("roles alternate"),
            "assistant" if matches!(previous, "" | "system") => Some("the user speaks before the assistant"),
            "system" | "user" | "assistant" => None,
            _ => Some("roles are system, user and assistant"),
        };
        if let Some(rule) = rule {
            return Err(TemplateError::Role { index: index + 1, role: message.role.clone(), rule });
        }
        if message.role != "assistant" && message.content.contains("{context}") {
            return Err(TemplateError::ContextInPrompt(index + 1));
        }
        previous = &message.role;
    }
    match messages.last() {
        Some(last) if last.role == "assistant" && last.content.contains("{context}") => Ok(()),
        Some(last) if last.role != "assistant" => Err(TemplateError::Role {
            index: messages.len(),
            role: last.role.clone(),
            rule: "the last message is the assistant's",
        }),
        _ => Err(TemplateError::NoContext),
    }
}

fn compile(messages: &[MessageFile]) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut fixed = br#"{"messages":["#.to_vec();
    for (index, message) in messages.iter().enumerate() {
        if index > 0 {
            fixed.push(b',');
        }
        fixed.extend_from_slice(br#"{"role":""#);
        escape_once(&mut fixed, &message.role);
        fixed.extend_from_slice(br#"","content":""#);
        let mut rest = message.content.as_str();
        while let Some((before, token, after)) = next_token(rest) {
            escape_once(&mut fixed, before);
            segments.push(Segment::Fixed(std::mem::take(&mut fixed)));
            segments.push(token);
            rest = after;
        }
        escape_once(&mut fixed, rest);
        fixed.extend_from_slice(br#""}"#);
    }
    fixed.extend_from_slice(b"]}");
    segments.push(Segment::Fixed(fixed));
    segments
}

/// The text before the first token, the token, and the text behind it.
fn next_token(text: &str) -> Option<(&str, Segment, &str)> {
    let texts = TextField::ALL.map(|field| (field.key(), Segment::Text(field)));
    let tokens = texts.into_iter().chain([("context", Segment::Context)]);
    let found = tokens.filter_map(|(key, token)| {
        let braced = format!("{{{key}}}");
        Some((text.find(&braced)?, braced.len(), token))
    });
    let (start, length, token) = found.min_by_key(|(start, ..)| *start)?;
    Some((&text[..start], token, &text[start + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(segments: &[Segment]) -> String {
        let text = |segment: &Segment| match segment {
            Segment::Fixed(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            Segment::Text(field) => format!("<{field:?}>"),
            Segment::Context => "<Context>".to_owned(),
        };
        segments.iter().map(text).collect()
    }

    #[test]
    fn the_built_in_template_is_valid() {
        let template = Template::chatml();
        assert_eq!(template.name, "chatml");
        let ContextLayout { form, indent, ascii, .. } = template.context;
        assert_eq!((form, indent, ascii), (Form::Object, None, false));
        let line = line(&template.segments);
        assert!(
            line.starts_with(
                r#"{"messages":[{"role":"system","content":"You are dissecting the TOMI scenarios."#
            ),
            "{line}"
        );
        assert!(line.ends_with(
            r#""},{"role":"user","content":"Generate a detailed socialized context for the following story:\n\n<Story>"},{"role":"assistant","content":"<Context>"}]}"#
        ), "{line}");
    }

    #[test]
    fn only_the_four_tokens_are_replaced() {
        let yaml = r#"
messages:
  - {role: user, content: '{story}{{story}} {Story} { story } {x} "{question}" {answer}{'}
  - {role: assistant, content: 'a{context}b'}
"#;
        let template = Template::parse(yaml, "t").unwrap();
        assert_eq!(
            line(&template.segments),
            r#"{"messages":[{"role":"user","content":"<Story>{<Story>} {Story} { story } {x} \"<Question>\" <Answer>{"},{"role":"assistant","content":"a<Context>b"}]}"#
        );
    }

    #[test]
    fn a_template_that_cannot_train_is_refused() {
        let check = |messages: &str, expected: &str| {
            let error = Template::parse(&format!("messages: [{messages}]"), "t").unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        let user = "{role: user, content: u}";
        let assistant = "{role: assistant, content: '{context}'}";
        check(&format!("{user}, {{role: assistant, content: c}}"), "no assistant message contains {context}");
        check(
            &format!("{{role: user, content: '{{context}}'}}, {assistant}"),
            "message 1 contains {context}",
        );
        check(&format!("{user}, {user}, {assistant}"), "roles alternate");
        check(&format!("{user}, {{role: system, content: s}}, {assistant}"), "comes first");
        check(&format!("{user}, {assistant}, {user}"), "last message is the assistant's");
        check(assistant, "the user speaks before");
        check("{role: tool, content: t}", "roles are system, user and assistant");
        check("", "no assistant message");
        check("{role: user}", "content");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let messages =
            "messages: [{role: user, content: u}, {role: assistant, content: '{context}'}]\ncontext:";
        assert!(Template::parse(&format!("{messages} {{indent: 16}}"), "t").is_ok());
        for (yaml, key) in [("mesages: []", "mesages"), (&format!("{messages} {{indnt: 2}}"), "indnt")] {
            let error = Template::parse(yaml, "t").unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        let error = Template::parse(&format!("{messages} {{indent: 17}}"), "t").unwrap_err();
        assert_eq!(error, TemplateError::Indent(17));
    }
}
