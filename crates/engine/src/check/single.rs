//! Judges one chat line that stands alone, for whoever takes such lines as they are.

use simd_json::Node;

use crate::check::code::{Code, Level};
use crate::check::conversation;
use crate::check::finding::{Findings, Keep};
use crate::check::judge::{Judge, Role, SpecialTokens};
use crate::check::lenient;
use crate::check::lines::PADDING;
use crate::check::tape::{Kind, Value};
use crate::check::worker::Parser;

/// A buffer grown by one huge line is given back beyond this size.
const KEPT_BYTES: usize = 4 << 20;

/// One thread's tools, to be reused for every line.
#[derive(Default)]
pub struct LineJudge {
    parser: Parser,
    bytes: Vec<u8>,
    special_tokens: SpecialTokens,
}

/// An error in a line: its stable name, and what is wrong.
pub type Fault = (Code, String);

impl LineJudge {
    /// The warnings of `line`, an object without blanks around it; `asked` gets the texts of its user messages,
    /// in order, each behind a NUL.
    ///
    /// # Errors
    /// The first reason why it is not fit for training.
    pub fn judge(&mut self, line: &str, asked: &mut Vec<u8>) -> Result<Vec<Code>, Fault> {
        let LineJudge { parser, bytes, special_tokens } = self;
        let mut judged = Ok(Vec::new());
        let mut look = |bytes: &mut Vec<u8>| {
            let length = bytes.len();
            bytes.resize(length + PADDING, 0);
            parser.with_tape(bytes, length, |nodes| judged = judge(nodes, special_tokens, asked))
        };
        bytes.clear();
        // One huge line must not leave its room behind.
        bytes.shrink_to(KEPT_BYTES);
        bytes.extend_from_slice(line.as_bytes());
        if !look(bytes) {
            let mut accepted = lenient::judge(line.as_bytes()).map_err(|fault| (fault.code, fault.reason))?;
            if let Some(fault) = accepted.faults.into_iter().next() {
                return Err((fault.code, fault.reason));
            }
            let is_parsed = look(&mut accepted.copy);
            debug_assert!(is_parsed, "the copy is made for the parser");
        }
        judged
    }
}

fn judge(
    nodes: &[Node<'_>],
    special_tokens: &SpecialTokens,
    asked: &mut Vec<u8>,
) -> Result<Vec<Code>, Fault> {
    let Kind::Object(sample) = Value::root(nodes).kind() else {
        return Err((Code::NotObject, "not an object".to_owned()));
    };
    let (mut findings, mut roles) = (Findings::new(Keep::All), [0; Role::ALL.len()]);
    conversation::check(&sample, &mut Judge::new(&mut findings, &mut roles, special_tokens, 1));
    let found = findings.kept();
    if let Some(error) = found.iter().find(|found| found.code.level() == Level::Error) {
        return Err((error.code, error.message.clone()));
    }
    asked.clear();
    asked.shrink_to(KEPT_BYTES);
    if let Some(Kind::List(messages)) = sample.get("messages").map(Value::kind) {
        for message in messages {
            let Kind::Object(message) = message.kind() else { continue };
            if message.get("role").and_then(Value::text) == Some(Role::User.as_str()) {
                for text in message.get("content").into_iter().flat_map(Value::strings) {
                    asked.push(0);
                    asked.extend_from_slice(text.as_bytes());
                }
            }
        }
    }
    Ok(found.iter().map(|found| found.code).collect())
}
