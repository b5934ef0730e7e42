//! Whether an operation fits the schema, and its variables the operation.
//!
//! Separate from carrying it out, so that a client is refused before anything happens, in the words
//! that servers of GraphQL use: clients look for them. It is stricter than they are in one thing: a
//! variable that is sent but not declared is refused too.

use serde_json::{Map, Value};

use crate::wandb::syntax::{
    Argument, Definition, Document, Field, Literal, Member, Operation, Selection, Type, schema,
};
use crate::wandb::text;

/// How often fragments may stand in each other.
const MAX_DEPTH: usize = 32;

/// The types of the service.
#[derive(Debug, Clone)]
pub struct Schema {
    types: Vec<Definition>,
}

impl Schema {
    /// The one that this server speaks.
    pub fn new() -> Schema {
        let types =
            schema(include_str!("schema.graphql")).expect("the schema of this crate is read by a test");
        Schema { types }
    }

    /// The field of this name of a type.
    pub fn member(&self, of: &str, name: &str) -> Option<&Member> {
        self.definition(of)?.fields.iter().find(|member| member.name == name)
    }

    fn definition(&self, name: &str) -> Option<&Definition> {
        self.types.iter().find(|definition| definition.name == name)
    }

    fn is_object(&self, name: &str) -> bool {
        self.definition(name).is_some_and(|definition| !definition.fields.is_empty())
    }
}

/// The variables as the operation sees them, with its defaults.
///
/// # Errors
/// The first thing that does not fit.
pub fn validate(
    schema: &Schema,
    document: &Document,
    operation: &Operation,
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    let mut check = Check { schema, document, operation, used: Vec::new() };
    check.selections(operation.root, &operation.selections, 0)?;
    let declared = &operation.variables;
    if let Some(unused) = declared.iter().find(|variable| !check.used.contains(&variable.name)) {
        let place = match operation.name.as_str() {
            "" => String::new(),
            name => format!(" in operation \"{name}\""),
        };
        return Err(format!("Variable \"${}\" is never used{place}.", unused.name));
    }
    if let Some(strange) = given.keys().find(|name| declared.iter().all(|known| known.name != **name)) {
        return Err(format!("Variable \"${strange}\" is not declared."));
    }
    let mut variables = Map::new();
    for variable in declared {
        let value = match given.get(&variable.name) {
            Some(value) => Some(value.clone()),
            None => variable.default.as_ref().and_then(|literal| literal.value(&Map::new())),
        };
        let what = format!("Variable \"${}\"", variable.name);
        match value {
            Some(value) => {
                fits(schema, &variable.kind, &value)
                    .map_err(|why| format!("{what} got invalid value: {why}"))?;
                variables.insert(variable.name.clone(), value);
            }
            None if matches!(variable.kind, Type::Required(_)) => {
                return Err(format!("{what} of required type \"{}\" was not provided.", variable.kind));
            }
            None => {}
        }
    }
    Ok(variables)
}

/// The fields that selections come to, fragments resolved.
pub fn fields<'d>(document: &'d Document, selections: &'d [Selection]) -> Vec<&'d Field> {
    let mut fields = Vec::new();
    for selection in selections {
        match selection {
            Selection::Field(field) => fields.push(field),
            Selection::Inline(inner) => fields.extend(self::fields(document, inner)),
            Selection::Spread(name) => {
                let fragment = document.fragments.iter().find(|(known, _)| known == name);
                fields.extend(fragment.into_iter().flat_map(|(_, inner)| self::fields(document, inner)));
            }
        }
    }
    fields
}

struct Check<'c> {
    schema: &'c Schema,
    document: &'c Document,
    operation: &'c Operation,
    used: Vec<String>,
}

impl Check<'_> {
    fn selections(&mut self, of: &str, selections: &[Selection], depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err("Fragments stand in each other.".to_owned());
        }
        for selection in selections {
            match selection {
                Selection::Field(field) => self.field(of, field, depth)?,
                Selection::Inline(inner) => self.selections(of, inner, depth + 1)?,
                Selection::Spread(name) => {
                    let document = self.document;
                    let fragment = document.fragments.iter().find(|(known, _)| known == name);
                    let (_, inner) = fragment.ok_or_else(|| format!("Unknown fragment \"{name}\"."))?;
                    self.selections(of, inner, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, of: &str, field: &Field, depth: usize) -> Result<(), String> {
        let name = &field.name;
        if name == "__typename" {
            return Ok(());
        }
        let schema = self.schema;
        let member = schema
            .member(of, name)
            .ok_or_else(|| format!("Cannot query field \"{name}\" on type \"{of}\"."))?;
        let place = format!("field \"{name}\" of type \"{of}\"");
        self.named(&member.arguments, &field.arguments, &place)?;
        match (schema.is_object(member.kind.base()), field.selections.is_empty()) {
            (true, true) => Err(format!(
                "Field \"{name}\" of type \"{}\" must have a selection of subfields.",
                member.kind
            )),
            (false, false) => Err(format!(
                "Field \"{name}\" must not have a selection since type \"{}\" has no subfields.",
                member.kind
            )),
            (true, false) => self.selections(member.kind.base(), &field.selections, depth + 1),
            (false, true) => Ok(()),
        }
    }

    /// Arguments, or the fields of an input.
    fn named(&mut self, known: &[Argument], given: &[(String, Literal)], place: &str) -> Result<(), String> {
        for (name, literal) in given {
            let argument = known
                .iter()
                .find(|argument| argument.name == *name)
                .ok_or_else(|| format!("Unknown argument \"{name}\" on {place}."))?;
            self.literal(&argument.kind, literal)?;
        }
        let is_missing = |argument: &&Argument| {
            matches!(argument.kind, Type::Required(_)) && given.iter().all(|(name, _)| *name != argument.name)
        };
        match known.iter().find(is_missing) {
            Some(missing) => Err(format!(
                "Argument \"{}\" of required type \"{}\" was not provided on {place}.",
                missing.name, missing.kind
            )),
            None => Ok(()),
        }
    }

    fn literal(&mut self, kind: &Type, literal: &Literal) -> Result<(), String> {
        match literal {
            Literal::Variable(name) => self.variable(kind, name),
            Literal::Plain(value) => fits(self.schema, kind, value),
            Literal::List(items) => {
                let (Type::List(inner) | Type::Required(inner)) = kind else {
                    return Err(format!("A list is no {kind}."));
                };
                let inner = if let Type::List(inner) = inner.as_ref() { inner } else { inner };
                items.iter().try_for_each(|item| self.literal(inner, item))
            }
            Literal::Object(fields) => {
                let schema = self.schema;
                let input = schema.definition(kind.base()).filter(|input| !input.fields.is_empty());
                let input = input.ok_or_else(|| format!("An object is no {kind}."))?;
                let known: Vec<Argument> = input.fields.iter().map(as_argument).collect();
                self.fields_of_input(&known, fields, &input.name)
            }
        }
    }

    fn fields_of_input(
        &mut self,
        known: &[Argument],
        fields: &[(String, Literal)],
        input: &str,
    ) -> Result<(), String> {
        if let Some((name, _)) = fields.iter().find(|(name, _)| known.iter().all(|field| field.name != *name))
        {
            return Err(format!("Field \"{name}\" is not defined by type \"{input}\"."));
        }
        self.named(known, fields, &format!("input \"{input}\""))
    }

    fn variable(&mut self, kind: &Type, name: &str) -> Result<(), String> {
        let declared = self.operation.variables.iter().find(|variable| variable.name == name);
        let declared = declared.ok_or_else(|| format!("Variable \"${name}\" is not defined."))?;
        self.used.push(name.to_owned());
        let has_default = declared.default.is_some();
        if is_at_least(&declared.kind, kind) || (has_default && is_at_least(&required(&declared.kind), kind))
        {
            return Ok(());
        }
        Err(format!(
            "Variable \"${name}\" of type \"{}\" used in position expecting type \"{kind}\".",
            declared.kind
        ))
    }
}

fn as_argument(member: &Member) -> Argument {
    Argument { name: member.name.clone(), kind: member.kind.clone(), default: None }
}

fn required(kind: &Type) -> Type {
    Type::Required(Box::new(kind.clone()))
}

/// Whether every value of `kind` is one of `wanted`.
fn is_at_least(kind: &Type, wanted: &Type) -> bool {
    match (kind, wanted) {
        (Type::Required(kind), Type::Required(wanted)) => is_at_least(kind, wanted),
        (Type::Required(kind), wanted) => is_at_least(kind, wanted),
        (Type::List(kind), Type::List(wanted)) => is_at_least(kind, wanted),
        (Type::Named(kind), Type::Named(wanted)) => kind == wanted,
        _ => false,
    }
}

/// Why a value is none of this type.
fn fits(schema: &Schema, kind: &Type, value: &Value) -> Result<(), String> {
    match (kind, value) {
        (Type::Required(_), Value::Null) => {
            Err(format!("Expected non-nullable type \"{kind}\" not to be null."))
        }
        (Type::Required(inner), _) => fits(schema, inner, value),
        (_, Value::Null) => Ok(()),
        (Type::List(inner), Value::Array(items)) => {
            items.iter().try_for_each(|item| fits(schema, inner, item))
        }
        // One item stands for a list of it.
        (Type::List(inner), item) => fits(schema, inner, item),
        (Type::Named(name), value) => fits_named(schema, name, value),
    }
}

fn fits_named(schema: &Schema, name: &str, value: &Value) -> Result<(), String> {
    let is_fit = match (name, value) {
        ("String", Value::String(_)) | ("ID", Value::String(_) | Value::Number(_)) => true,
        ("Boolean", Value::Bool(_)) | ("Float", Value::Number(_)) => true,
        ("Int", Value::Number(number)) => number.is_i64(),
        // Milliseconds.
        ("Duration", Value::Number(number)) => number.is_u64(),
        ("AlertSeverity", Value::String(text)) => ["INFO", "WARN", "ERROR"].contains(&text.as_str()),
        ("JSONString", Value::String(text)) => {
            let read: Result<Value, _> = serde_json::from_str(&text::finite(text));
            return read.map(drop).map_err(|error| format!("the JSONString is no JSON: {error}"));
        }
        (name, Value::Object(fields)) if schema.is_object(name) => return fits_input(schema, name, fields),
        _ => false,
    };
    if is_fit { Ok(()) } else { Err(format!("Expected type \"{name}\", found {value}.")) }
}

fn fits_input(schema: &Schema, name: &str, fields: &Map<String, Value>) -> Result<(), String> {
    for (field, value) in fields {
        let member = schema
            .member(name, field)
            .ok_or_else(|| format!("Field \"{field}\" is not defined by type \"{name}\"."))?;
        fits(schema, &member.kind, value)?;
    }
    let members = schema.definition(name).map_or(&[][..], |definition| &definition.fields);
    let is_missing =
        |member: &&Member| matches!(member.kind, Type::Required(_)) && !fields.contains_key(&member.name);
    match members.iter().find(is_missing) {
        Some(missing) => {
            Err(format!("Field \"{}\" of required type \"{}\" was not provided.", missing.name, missing.kind))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wandb::syntax::document;

    #[track_caller]
    fn check(text: &str, variables: Value, expected: Result<Value, &str>) {
        let document = document(text).unwrap();
        let variables = variables.as_object().unwrap();
        let valid = validate(&Schema::new(), &document, &document.operations[0], variables);
        assert_eq!(valid.map(Value::Object), expected.map_err(str::to_owned));
    }

    #[test]
    fn what_clients_send_is_valid() {
        check("{ viewer { __typename id teams { edges { node { name } } } } }", json!({}), Ok(json!({})));
        check(
            "query R($p: String, $n: String! = \"x\") { model(name: $p) { bucket(name: $n, missingOk: true) { ...F } } } fragment F on Run { id }",
            json!({ "p": null }),
            Ok(json!({ "p": null, "n": "x" })),
        );
        check(
            "mutation ($n: String!, $c: JSONString, $t: [String!]) { upsertBucket(input: {name: $n, config: $c, tags: $t}) { inserted } }",
            json!({ "n": "a", "c": "{\"a\": NaN}", "t": "one" }),
            Ok(json!({ "n": "a", "c": "{\"a\": NaN}", "t": "one" })),
        );
        check(
            "mutation ($e: String!, $s: AlertSeverity = INFO, $d: Duration) { notifyScriptableRunAlert(input: {entityName: $e, projectName: $e, runName: $e, title: $e, text: $e, severity: $s, waitDuration: $d}) { success } }",
            json!({ "e": "a", "d": 60_000 }),
            Ok(json!({ "e": "a", "s": "INFO", "d": 60_000 })),
        );
        check(
            "mutation ($i: UpsertBucketInput!) { upsertBucket(input: $i) { inserted } }",
            json!({ "i": { "name": "a" } }),
            Ok(json!({ "i": { "name": "a" } })),
        );
    }

    #[test]
    fn unknown_fields_are_refused() {
        let refused = |text: &str, expected: &str| check(text, json!({}), Err(expected));
        refused("{ nobody { id } }", "Cannot query field \"nobody\" on type \"Query\".");
        refused("{ viewer { id age } }", "Cannot query field \"age\" on type \"User\".");
        refused("{ viewer }", "Field \"viewer\" of type \"User\" must have a selection of subfields.");
        refused("{ viewer { id { x } } }", {
            "Field \"id\" must not have a selection since type \"ID!\" has no subfields."
        });
        refused("{ project(names: \"a\") { id } }", {
            "Unknown argument \"names\" on field \"project\" of type \"Query\"."
        });
        refused("{ project(name: 1) { id } }", "Expected type \"String\", found 1.");
        refused("{ project { run { id } } }", {
            "Argument \"name\" of required type \"String!\" was not provided on field \"run\" of type \"Project\"."
        });
        refused("mutation { upsertBucket(input: {nam: \"a\"}) { inserted } }", {
            "Field \"nam\" is not defined by type \"UpsertBucketInput\"."
        });
        refused("{ viewer { ...F } }", "Unknown fragment \"F\".");
        refused("{ viewer { ...F } } fragment F on User { ...F }", "Fragments stand in each other.");
    }

    #[test]
    fn variables_are_declared_used_and_of_their_type() {
        let text = "query Q($n: String) { project(name: $n) { id } }";
        let refused = |text: &str, variables: Value, expected: &str| check(text, variables, Err(expected));
        refused("query Q($n: String) { viewer { id } }", json!({}), {
            "Variable \"$n\" is never used in operation \"Q\"."
        });
        refused("{ project(name: $n) { id } }", json!({}), "Variable \"$n\" is not defined.");
        refused(text, json!({ "m": 1 }), "Variable \"$m\" is not declared.");
        refused(text, json!({ "n": 1 }), {
            "Variable \"$n\" got invalid value: Expected type \"String\", found 1."
        });
        refused("query ($n: String) { project { run(name: $n) { id } } }", json!({}), {
            "Variable \"$n\" of type \"String\" used in position expecting type \"String!\"."
        });
        refused("query ($n: String!) { project { run(name: $n) { id } } }", json!({}), {
            "Variable \"$n\" of required type \"String!\" was not provided."
        });
        refused("query ($n: String!) { project { run(name: $n) { id } } }", json!({ "n": null }), {
            "Variable \"$n\" got invalid value: Expected non-nullable type \"String!\" not to be null."
        });
        let text = "mutation ($s: AlertSeverity, $d: Duration) { notifyScriptableRunAlert(input: {entityName: \"e\", projectName: \"p\", runName: \"r\", title: \"t\", text: \"t\", severity: $s, waitDuration: $d}) { success } }";
        refused(text, json!({ "s": "info" }), {
            "Variable \"$s\" got invalid value: Expected type \"AlertSeverity\", found \"info\"."
        });
        refused(text, json!({ "d": 0.5 }), {
            "Variable \"$d\" got invalid value: Expected type \"Duration\", found 0.5."
        });
        let text = "mutation ($c: JSONString) { upsertBucket(input: {config: $c}) { inserted } }";
        let document = document(text).unwrap();
        let variables = json!({ "c": "{" });
        let valid =
            validate(&Schema::new(), &document, &document.operations[0], variables.as_object().unwrap());
        assert!(valid.unwrap_err().contains("the JSONString is no JSON"));
    }
}
