//! The text of a GraphQL document into tokens.
//!
//! Separate from the grammar above it. Commas and comments are nothing here; a character that no
//! document of ours has, such as `@`, is refused.

use serde_json::Value;

/// A word of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A name or a keyword.
    Name(String),
    /// A number or a string.
    Plain(Value),
    /// One of `{}[]():!=$`, or `.` for `...`.
    Mark(char),
}

/// Reads the tokens of a text.
///
/// # Errors
/// At the first character that begins none, or a string or number that is none.
pub fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            ' ' | '\t' | '\r' | '\n' | ',' => 1,
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '{' | '}' | '[' | ']' | '(' | ')' | ':' | '!' | '=' | '$' => {
                tokens.push(Token::Mark(first));
                1
            }
            '.' if rest.starts_with("...") => {
                tokens.push(Token::Mark('.'));
                3
            }
            '"' => {
                // A string of GraphQL without line ends is one of JSON.
                let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                let value = values.next().and_then(Result::ok).ok_or("Syntax Error: Unterminated string.")?;
                tokens.push(Token::Plain(Value::String(value)));
                values.byte_offset()
            }
            '-' | '0'..='9' => {
                let is_of_number = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
                let length = rest.find(|c| !is_of_number(c)).unwrap_or(rest.len());
                let number: serde_json::Number = serde_json::from_str(&rest[..length])
                    .map_err(|_| format!("Syntax Error: Invalid number {}.", &rest[..length]))?;
                tokens.push(Token::Plain(Value::Number(number)));
                length
            }
            '_' | 'a'..='z' | 'A'..='Z' => {
                let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let length = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
                tokens.push(Token::Name(rest[..length].to_owned()));
                length
            }
            other => return Err(format!("Syntax Error: Unexpected character: \"{other}\".")),
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_into_tokens() {
        let name = |name: &str| Token::Name(name.to_owned());
        let seen = tokens("a_1,{ # b }\n...-1.5e3 \"c\\\"\\u00e9\" $d").unwrap();
        let expected = [
            name("a_1"),
            Token::Mark('{'),
            Token::Mark('.'),
            Token::Plain(Value::from(-1500.0)),
            Token::Plain(Value::from("c\"é")),
            Token::Mark('$'),
            name("d"),
        ];
        assert_eq!(seen, expected);
        for strange in ["..", "1.2.3", "\"a", "\"\"\"a\"\"\"b\"", "é", "a & b"] {
            assert!(tokens(strange).is_err(), "{strange}");
        }
    }
}
