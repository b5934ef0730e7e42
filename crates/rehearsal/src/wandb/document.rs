//! The text of a GraphQL document into the fields that it asks for, as far as clients of runs and sweeps need it.
//!
//! Not a GraphQL parser: one operation, whose types and declarations of variables are skipped; no fragments and
//! no directives. It knows no field: a test checks the documents of our own client against a schema.

use serde_json::{Map, Value, json};

const MAX_DEPTH: usize = 32;

#[derive(Debug, PartialEq)]
pub struct Operation {
    pub is_mutation: bool,
    pub fields: Vec<Field>,
}

#[derive(Debug, PartialEq)]
pub struct Field {
    /// Its name in the answer: the alias, where there is one.
    pub key: String,
    pub name: String,
    /// An object with variables resolved, or null where there are no arguments.
    pub arguments: Value,
    pub fields: Vec<Field>,
}

/// Reads a document. The error is in the words of GraphQL servers.
pub fn operation(text: &str, variables: &Map<String, Value>) -> Result<Operation, String> {
    let tokens = tokens(text)?;
    let is_mutation = tokens.first() == Some(&"mutation");
    if !tokens.first().is_some_and(|first| ["query", "mutation", "{"].contains(first)) {
        return Err("Must provide an operation.".to_owned());
    }
    let mut depth = 0_usize;
    let is_start = |token: &&str| {
        match *token {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && *token == "{"
    };
    let next = tokens.iter().position(is_start).unwrap_or(tokens.len());
    let mut reader = Reader { tokens: &tokens, variables, next };
    let fields = reader.selection()?;
    if reader.next < tokens.len() { Err(reader.unexpected()) } else { Ok(Operation { is_mutation, fields }) }
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Names, numbers, strings with their quotes, and single marks. Commas and comments are left out.
fn tokens(text: &str) -> Result<Vec<&str>, String> {
    let (mut tokens, mut rest, mut depth) = (Vec::new(), text, 0_usize);
    while let Some(first) = rest.chars().next() {
        let until = |is_inside: fn(char) -> bool| rest.find(|c: char| !is_inside(c)).unwrap_or(rest.len());
        let length = match first {
            '{' | '}' | '[' | ']' | '(' | ')' | ':' | '!' | '=' | '$' => 1,
            '-' | '0'..='9' => until(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)),
            '_' | 'a'..='z' | 'A'..='Z' => until(is_of_name),
            '"' => {
                // A string of GraphQL without line ends is one of JSON.
                let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                strings.next().and_then(Result::ok).ok_or("Syntax Error: Unterminated string.")?;
                strings.byte_offset()
            }
            ' ' | '\t' | '\r' | '\n' | ',' | '#' => {
                let length = if first == '#' { until(|c| c != '\n') } else { 1 };
                rest = &rest[length..];
                continue;
            }
            other => return Err(format!("Syntax Error: Unexpected character: \"{other}\".")),
        };
        match first {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err("The document is nested too deeply.".to_owned());
        }
        tokens.push(&rest[..length]);
        rest = &rest[length..];
    }
    Ok(tokens)
}

struct Reader<'r> {
    tokens: &'r [&'r str],
    variables: &'r Map<String, Value>,
    next: usize,
}

impl<'r> Reader<'r> {
    fn unexpected(&self) -> String {
        format!("Syntax Error: Unexpected \"{}\".", self.tokens.get(self.next).unwrap_or(&"<EOF>"))
    }

    fn took(&mut self, mark: &str) -> bool {
        let is_next = self.tokens.get(self.next) == Some(&mark);
        self.next += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, mark: &str) -> Result<(), String> {
        if self.took(mark) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn name(&mut self) -> Result<&'r str, String> {
        let is_name = |token: &&&str| token.starts_with(|c: char| is_of_name(c) && !c.is_ascii_digit());
        let name = self.tokens.get(self.next).filter(is_name).ok_or_else(|| self.unexpected())?;
        self.next += 1;
        Ok(name)
    }

    fn selection(&mut self) -> Result<Vec<Field>, String> {
        self.expect("{")?;
        let mut fields = Vec::new();
        loop {
            fields.push(self.field()?);
            if self.took("}") {
                return Ok(fields);
            }
        }
    }

    fn field(&mut self) -> Result<Field, String> {
        let key = self.name()?;
        let name = if self.took(":") { self.name()? } else { key };
        let arguments = if self.took("(") { self.object(")")? } else { Value::Null };
        let has_fields = self.tokens.get(self.next) == Some(&"{");
        let fields = if has_fields { self.selection()? } else { Vec::new() };
        Ok(Field { key: key.to_owned(), name: name.to_owned(), arguments, fields })
    }

    fn object(&mut self, end: &str) -> Result<Value, String> {
        let mut object = Map::new();
        while !self.took(end) {
            let name = self.name()?.to_owned();
            self.expect(":")?;
            if let Some(value) = self.value()? {
                object.insert(name, value);
            }
        }
        Ok(Value::Object(object))
    }

    /// A value; nothing where it is a variable that was not sent.
    fn value(&mut self) -> Result<Option<Value>, String> {
        if self.took("$") {
            return Ok(self.variables.get(self.name()?).cloned());
        }
        if self.took("{") {
            return self.object("}").map(Some);
        }
        if self.took("[") {
            let mut items = Vec::new();
            while !self.took("]") {
                items.push(self.value()?.unwrap_or_default());
            }
            return Ok(Some(Value::Array(items)));
        }
        // A number, a string, true, false or null; another name is one of an enum.
        let token = self.tokens.get(self.next).ok_or_else(|| self.unexpected())?;
        let Ok(value) = serde_json::from_str(token) else { return Ok(Some(json!(self.name()?))) };
        self.next += 1;
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields with their arguments, after their alias.
    fn outline(fields: &[Field]) -> String {
        let each = |Field { key, name, arguments, fields }: &Field| {
            let alias = if key == name { String::new() } else { format!("{key}:") };
            let arguments = if arguments.is_null() { String::new() } else { arguments.to_string() };
            let inner = if fields.is_empty() { String::new() } else { format!("{{{}}}", outline(fields)) };
            format!("{alias}{name}{arguments}{inner}")
        };
        fields.iter().map(each).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let variables = json!({ "a": "x", "n": null });
        let read = operation(text, variables.as_object().unwrap());
        let read = read.map(|operation| outline(&operation.fields));
        assert_eq!(read.as_deref(), expected.map_err(str::to_owned).as_ref().copied());
    }

    #[test]
    fn fields_are_read_with_their_arguments() {
        check("{ viewer { id } }", Ok("viewer{id}"));
        check("query V { viewer { id, teams { edges } } } # end", Ok("viewer{id teams{edges}}"));
        check(
            "query ($a: [String!]! = [{b: \"}\"}], $m: Int) { p(name: $a, more: $m, none: $n) { a: b } }",
            Ok("p{\"name\":\"x\",\"none\":null}{a:b}"),
        );
        check(
            "mutation M { u(input: {id: -1.5e3, on: true, l: [$a, null, $m], e: RED, s: \"c\\\"\"}) { ok } }",
            Ok(
                "u{\"input\":{\"id\":-1500.0,\"on\":true,\"l\":[\"x\",null,null],\"e\":\"RED\",\"s\":\"c\\\"\"}}{ok}",
            ),
        );
    }

    #[test]
    fn what_is_no_document_is_refused() {
        check("", Err("Must provide an operation."));
        check("query A { a } mutation B { b }", Err("Syntax Error: Unexpected \"mutation\"."));
        check("{ a { ...F } }", Err("Syntax Error: Unexpected character: \".\"."));
        check("query {", Err("Syntax Error: Unexpected \"<EOF>\"."));
        check("query { }", Err("Syntax Error: Unexpected \"}\"."));
        check("{ a(b: \"c) }", Err("Syntax Error: Unterminated string."));
        check("{ a(b: 1.2.3) }", Err("Syntax Error: Unexpected \"1.2.3\"."));
        check("{ a(b: \"\"\"c\"\"\") }", Err("Syntax Error: Unexpected \"\"c\"\"."));
        check("{ a @skip }", Err("Syntax Error: Unexpected character: \"@\"."));
        check("subscription { a }", Err("Must provide an operation."));
        check(&format!("{}{}", "{a".repeat(40), "}".repeat(40)), Err("The document is nested too deeply."));
        check(&format!("{{ a(b: {}) }}", "[".repeat(40)), Err("The document is nested too deeply."));
    }
}
