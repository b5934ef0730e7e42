//! The text of a GraphQL document into operations and fragments, and the text of a schema into types.
//!
//! Separate from the meaning of both: it knows the grammar, as far as clients of this service use
//! it, and refuses the rest (directives, subscriptions, block strings). It knows no field.

use serde_json::{Map, Value};

use crate::wandb::token::{Token, tokens};

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 32;

/// A document: what a client sends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// In their order.
    pub operations: Vec<Operation>,
    /// By name.
    pub fragments: Vec<(String, Vec<Selection>)>,
}

/// A query or a mutation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// `Query` or `Mutation`: the type that its fields are of.
    pub root: &'static str,
    /// Empty where there is none.
    pub name: String,
    /// What its text declares.
    pub variables: Vec<Argument>,
    /// What it asks for.
    pub selections: Vec<Selection>,
}

/// A name with its type: a variable, or an argument or field of an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    /// Without `$`.
    pub name: String,
    /// What it takes.
    pub kind: Type,
    /// What it is where nobody says it.
    pub default: Option<Literal>,
}

/// A type as it is referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// `String`
    Named(String),
    /// `[String]`
    List(Box<Type>),
    /// `String!`
    Required(Box<Type>),
}

/// One line of what is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// A field.
    Field(Field),
    /// `...Name`
    Spread(String),
    /// `... on Type { … }`
    Inline(Vec<Selection>),
}

/// A field that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// What it is called in the answer.
    pub key: String,
    /// What it is called in the schema.
    pub name: String,
    /// With what.
    pub arguments: Vec<(String, Literal)>,
    /// What is asked for of it.
    pub selections: Vec<Selection>,
}

/// A value in the text.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `$name`
    Variable(String),
    /// A number, a string, a truth value, null, or the name of an enum's value.
    Plain(Value),
    /// `[…]`
    List(Vec<Literal>),
    /// `{name: …}`
    Object(Vec<(String, Literal)>),
}

/// A type of a schema with its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// As others refer to it.
    pub name: String,
    /// In their order; none for a scalar.
    pub fields: Vec<Member>,
}

/// A field as a schema has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// As it is asked for.
    pub name: String,
    /// What it takes.
    pub arguments: Vec<Argument>,
    /// What it gives.
    pub kind: Type,
}

impl Type {
    /// The name inside all lists.
    pub fn base(&self) -> &str {
        match self {
            Type::Named(name) => name,
            Type::List(inner) | Type::Required(inner) => inner.base(),
        }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Type::Named(name) => formatter.write_str(name),
            Type::List(inner) => write!(formatter, "[{inner}]"),
            Type::Required(inner) => write!(formatter, "{inner}!"),
        }
    }
}

/// Reads a document.
///
/// # Errors
/// What is wrong with it, as a server of GraphQL says it.
pub fn document(text: &str) -> Result<Document, String> {
    let mut reader = Reader::new(text)?;
    let mut document = Document::default();
    while let Some(token) = reader.peek().cloned() {
        match &token {
            Token::Mark('{') => {
                let selections = reader.selections(0)?;
                let operation =
                    Operation { root: "Query", name: String::new(), variables: Vec::new(), selections };
                document.operations.push(operation);
            }
            Token::Name(name) if name == "query" || name == "mutation" => {
                let root = if name == "query" { "Query" } else { "Mutation" };
                reader.next += 1;
                document.operations.push(reader.operation(root)?);
            }
            Token::Name(name) if name == "fragment" => {
                reader.next += 1;
                let name = reader.name()?;
                reader.word("on")?;
                reader.name()?;
                document.fragments.push((name, reader.selections(0)?));
            }
            other => return Err(unexpected(Some(other))),
        }
    }
    if document.operations.is_empty() { Err("Must provide an operation.".to_owned()) } else { Ok(document) }
}

/// Reads a schema: `type`, `input` and `scalar`.
///
/// # Errors
/// What is wrong with it.
pub fn schema(text: &str) -> Result<Vec<Definition>, String> {
    let mut reader = Reader::new(text)?;
    let mut definitions = Vec::new();
    while reader.peek().is_some() {
        let kind = reader.name()?;
        let name = reader.name()?;
        let mut fields = Vec::new();
        if kind != "scalar" {
            reader.mark('{')?;
            while !reader.took('}') {
                let name = reader.name()?;
                let arguments = reader.arguments_of_member()?;
                reader.mark(':')?;
                fields.push(Member { name, arguments, kind: reader.kind(0)? });
            }
        }
        definitions.push(Definition { name, fields });
    }
    Ok(definitions)
}

struct Reader {
    tokens: Vec<Token>,
    next: usize,
}

impl Reader {
    fn new(text: &str) -> Result<Reader, String> {
        Ok(Reader { tokens: tokens(text)?, next: 0 })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn took(&mut self, mark: char) -> bool {
        let is_there = self.peek() == Some(&Token::Mark(mark));
        self.next += usize::from(is_there);
        is_there
    }

    fn mark(&mut self, mark: char) -> Result<(), String> {
        if self.took(mark) { Ok(()) } else { Err(unexpected(self.peek())) }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            other => Err(unexpected(other)),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        let name = self.name()?;
        if name == word { Ok(()) } else { Err(unexpected(Some(&Token::Name(name)))) }
    }

    fn operation(&mut self, root: &'static str) -> Result<Operation, String> {
        let name = if matches!(self.peek(), Some(Token::Name(_))) { self.name()? } else { String::new() };
        let mut variables = Vec::new();
        if self.took('(') {
            while !self.took(')') {
                self.mark('$')?;
                variables.push(self.argument()?);
            }
        }
        Ok(Operation { root, name, variables, selections: self.selections(0)? })
    }

    fn arguments_of_member(&mut self) -> Result<Vec<Argument>, String> {
        let mut arguments = Vec::new();
        if self.took('(') {
            while !self.took(')') {
                arguments.push(self.argument()?);
            }
        }
        Ok(arguments)
    }

    fn argument(&mut self) -> Result<Argument, String> {
        let name = self.name()?;
        self.mark(':')?;
        let kind = self.kind(0)?;
        let default = if self.took('=') { Some(self.literal(0)?) } else { None };
        Ok(Argument { name, kind, default })
    }

    fn kind(&mut self, depth: usize) -> Result<Type, String> {
        let depth = deeper(depth)?;
        let kind = if self.took('[') {
            let inner = self.kind(depth)?;
            self.mark(']')?;
            Type::List(Box::new(inner))
        } else {
            Type::Named(self.name()?)
        };
        Ok(if self.took('!') { Type::Required(Box::new(kind)) } else { kind })
    }

    fn selections(&mut self, depth: usize) -> Result<Vec<Selection>, String> {
        let depth = deeper(depth)?;
        self.mark('{')?;
        let mut selections = Vec::new();
        while !self.took('}') {
            selections.push(self.selection(depth)?);
        }
        if selections.is_empty() { Err(unexpected(Some(&Token::Mark('}')))) } else { Ok(selections) }
    }

    fn selection(&mut self, depth: usize) -> Result<Selection, String> {
        if self.took('.') {
            let name = self.name()?;
            if name != "on" {
                return Ok(Selection::Spread(name));
            }
            self.name()?;
            return Ok(Selection::Inline(self.selections(depth)?));
        }
        let key = self.name()?;
        let name = if self.took(':') { self.name()? } else { key.clone() };
        let arguments = if self.took('(') { self.named_literals(')', depth)? } else { Vec::new() };
        let has_more = self.peek() == Some(&Token::Mark('{'));
        let selections = if has_more { self.selections(depth)? } else { Vec::new() };
        Ok(Selection::Field(Field { key, name, arguments, selections }))
    }

    fn named_literals(&mut self, end: char, depth: usize) -> Result<Vec<(String, Literal)>, String> {
        let mut named: Vec<(String, Literal)> = Vec::new();
        while !self.took(end) {
            let name = self.name()?;
            if named.iter().any(|(known, _)| *known == name) {
                return Err(format!("There can be only one argument named \"{name}\"."));
            }
            self.mark(':')?;
            named.push((name, self.literal(depth)?));
        }
        Ok(named)
    }

    fn literal(&mut self, depth: usize) -> Result<Literal, String> {
        let depth = deeper(depth)?;
        let token = self.peek().cloned();
        self.next += 1;
        Ok(match token {
            Some(Token::Mark('$')) => Literal::Variable(self.name()?),
            Some(Token::Plain(value)) => Literal::Plain(value),
            Some(Token::Name(name)) => Literal::Plain(match name.as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                _ => Value::String(name),
            }),
            Some(Token::Mark('[')) => {
                let mut items = Vec::new();
                while !self.took(']') {
                    items.push(self.literal(depth)?);
                }
                Literal::List(items)
            }
            Some(Token::Mark('{')) => Literal::Object(self.named_literals('}', depth)?),
            other => return Err(unexpected(other.as_ref())),
        })
    }
}

impl Literal {
    /// What it is with these variables; nothing where it is a variable that was not given.
    pub fn value(&self, variables: &Map<String, Value>) -> Option<Value> {
        match self {
            Literal::Variable(name) => variables.get(name).cloned(),
            Literal::Plain(value) => Some(value.clone()),
            Literal::List(items) => {
                let item = |item: &Literal| item.value(variables).unwrap_or(Value::Null);
                Some(Value::Array(items.iter().map(item).collect()))
            }
            Literal::Object(fields) => Some(Value::Object(values(fields, variables))),
        }
    }
}

/// Named literals with these variables.
pub fn values(named: &[(String, Literal)], variables: &Map<String, Value>) -> Map<String, Value> {
    let value = |(name, literal): &(String, Literal)| Some((name.clone(), literal.value(variables)?));
    named.iter().filter_map(value).collect()
}

fn deeper(depth: usize) -> Result<usize, String> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err("The document is nested too deeply.".to_owned()) }
}

fn unexpected(token: Option<&Token>) -> String {
    match token {
        None => "Syntax Error: Unexpected <EOF>.".to_owned(),
        Some(Token::Name(name)) => format!("Syntax Error: Unexpected Name \"{name}\"."),
        Some(Token::Plain(value)) => format!("Syntax Error: Unexpected {value}."),
        Some(Token::Mark(mark)) => format!("Syntax Error: Unexpected \"{mark}\"."),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The keys that an operation asks for, `(` after a field with arguments.
    fn outline(selections: &[Selection]) -> String {
        let each = |selection: &Selection| match selection {
            Selection::Spread(name) => format!("...{name}"),
            Selection::Inline(inner) => format!("...{{{}}}", outline(inner)),
            Selection::Field(field) => {
                let arguments = if field.arguments.is_empty() { "" } else { "()" };
                let inner = outline(&field.selections);
                let inner = if inner.is_empty() { inner } else { format!("{{{inner}}}") };
                let name = if field.key == field.name { String::new() } else { format!(":{}", field.name) };
                format!("{}{name}{arguments}{inner}", field.key)
            }
        };
        selections.iter().map(each).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let read = document(text).map(|document| outline(&document.operations[0].selections));
        assert_eq!(read.as_deref(), expected.map_err(str::to_owned).as_ref().copied());
    }

    #[test]
    fn documents_are_read() {
        check("{ viewer { id } }", Ok("viewer{id}"));
        check("query V { viewer { id, teams { edges } } } # end", Ok("viewer{id teams{edges}}"));
        check("query ($a: [String!]! = [\"x\"]) { p(name: $a) { a: b ...F ... on T { c } } }", {
            Ok("p(){a:b ...F ...{c}}")
        });
        check("mutation M { u(input: {id: 1, on: true, l: [1.5, null], e: RED}) { ok } }", Ok("u(){ok}"));
    }

    #[test]
    fn what_is_no_document_is_refused() {
        check("", Err("Must provide an operation."));
        check("query {", Err("Syntax Error: Unexpected <EOF>."));
        check("query { }", Err("Syntax Error: Unexpected \"}\"."));
        check("{ a(b: \"c) }", Err("Syntax Error: Unterminated string."));
        check("{ a @skip }", Err("Syntax Error: Unexpected character: \"@\"."));
        check("subscription { a }", Err("Syntax Error: Unexpected Name \"subscription\"."));
        check("{ a(b: 1, b: 2) }", Err("There can be only one argument named \"b\"."));
        check(&"{ a ".repeat(100), Err("The document is nested too deeply."));
        check(&format!("{{ a(b: {}", "[".repeat(100)), Err("The document is nested too deeply."));
    }

    #[test]
    fn literals_take_the_values_of_variables() {
        let read = document("{ a(b: {c: $c, d: $d, e: [$d, 1, RED]}) }").unwrap();
        let Selection::Field(field) = &read.operations[0].selections[0] else { panic!("no field") };
        let variables = json!({ "c": "x" }).as_object().unwrap().clone();
        let expected = json!({ "b": { "c": "x", "e": [null, 1, "RED"] } });
        assert_eq!(Value::Object(values(&field.arguments, &variables)), expected);
    }

    #[test]
    fn types_are_shown_as_they_are_written() {
        let read = document("query ($a: [String!]!, $b: ID) { a }").unwrap();
        let shown: Vec<String> =
            read.operations[0].variables.iter().map(|variable| variable.kind.to_string()).collect();
        assert_eq!(shown, ["[String!]!", "ID"]);
    }
}
