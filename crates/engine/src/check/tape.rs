//! A parsed sample, seen value by value.
//!
//! The parser leaves a flat tape of nodes; this walks it without building anything. Of a
//! key that is given twice the last one counts, as in Python.

use std::collections::BTreeSet;

use simd_json::{Node, StaticNode};

/// A value on the tape.
#[derive(Debug, Clone, Copy)]
pub struct Value<'n, 'i> {
    nodes: &'n [Node<'i>],
    index: usize,
}

/// What a value is.
#[derive(Debug, Clone)]
pub enum Kind<'n, 'i> {
    /// A string.
    Text(&'i str),
    /// An object.
    Object(Fields<'n, 'i>),
    /// A list.
    List(Items<'n, 'i>),
    /// A number without a fraction or exponent.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `null`
    Null,
}

impl<'n, 'i> Value<'n, 'i> {
    /// The value that the whole tape is.
    pub fn root(nodes: &'n [Node<'i>]) -> Self {
        Value { nodes, index: 0 }
    }

    /// What it is.
    pub fn kind(self) -> Kind<'n, 'i> {
        match self.nodes[self.index] {
            Node::String(text) => Kind::Text(text),
            Node::Object { len, .. } => Kind::Object(Fields { items: self.items(len) }),
            Node::Array { len, .. } => Kind::List(self.items(len)),
            Node::Static(StaticNode::I64(number)) => Kind::Integer(i128::from(number)),
            Node::Static(StaticNode::U64(number)) => Kind::Integer(i128::from(number)),
            Node::Static(StaticNode::F64(number)) => Kind::Float(number),
            Node::Static(StaticNode::Bool(value)) => Kind::Bool(value),
            Node::Static(StaticNode::Null) => Kind::Null,
        }
    }

    /// Its text, if it is one.
    pub fn text(self) -> Option<&'i str> {
        match self.nodes[self.index] {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        matches!(self.nodes[self.index], Node::Static(StaticNode::Null))
    }

    /// Every string at any depth of it, keys included.
    pub fn strings(self) -> impl Iterator<Item = &'i str> + 'n {
        self.nodes[self.index..self.end()].iter().filter_map(|node| match node {
            Node::String(text) => Some(*text),
            _ => None,
        })
    }

    /// Its type as words: `a string`.
    pub fn described(self) -> &'static str {
        match self.kind() {
            Kind::Text(_) => "a string",
            Kind::Object(_) => "an object",
            Kind::List(_) => "a list",
            Kind::Integer(_) | Kind::Float(_) => "a number",
            Kind::Bool(_) => "a boolean",
            Kind::Null => "null",
        }
    }

    /// The index of the node behind this value and all it holds.
    fn end(self) -> usize {
        match self.nodes[self.index] {
            Node::Object { count, .. } | Node::Array { count, .. } => self.index + 1 + count,
            Node::String(_) | Node::Static(_) => self.index + 1,
        }
    }

    fn items(self, len: usize) -> Items<'n, 'i> {
        Items { nodes: self.nodes, index: self.index + 1, len }
    }
}

/// The items of a list, in order.
#[derive(Debug, Clone)]
pub struct Items<'n, 'i> {
    nodes: &'n [Node<'i>],
    index: usize,
    len: usize,
}

impl<'n, 'i> Iterator for Items<'n, 'i> {
    type Item = Value<'n, 'i>;

    fn next(&mut self) -> Option<Value<'n, 'i>> {
        self.len = self.len.checked_sub(1)?;
        let item = Value { nodes: self.nodes, index: self.index };
        self.index = item.end();
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for Items<'_, '_> {}

/// The keys and values of an object, in order.
#[derive(Debug, Clone)]
pub struct Fields<'n, 'i> {
    items: Items<'n, 'i>,
}

impl<'n, 'i> Fields<'n, 'i> {
    /// The first key that stands there a second time.
    pub fn doubled(&self) -> Option<&'i str> {
        let mut seen = BTreeSet::new();
        // Most objects have a handful of keys: looking back is cheaper than a set, which a hostile one needs.
        let is_small = self.items.len <= 8;
        let mut keys = self.clone().map(|(key, _)| key).enumerate();
        let is_again = |(index, key): &(usize, &'i str)| match is_small {
            true => self.clone().take(*index).any(|(earlier, _)| earlier == *key),
            false => !seen.insert(*key),
        };
        keys.find(is_again).map(|(_, key)| key)
    }

    /// The value of the last field named `key`.
    pub fn get(&self, key: &str) -> Option<Value<'n, 'i>> {
        self.clone().filter(|(name, _)| *name == key).last().map(|(_, value)| value)
    }
}

impl<'n, 'i> Iterator for Fields<'n, 'i> {
    type Item = (&'i str, Value<'n, 'i>);

    fn next(&mut self) -> Option<Self::Item> {
        self.items.len = self.items.len.checked_sub(1)?;
        let key = Value { nodes: self.items.nodes, index: self.items.index };
        let value = Value { nodes: key.nodes, index: key.index + 1 };
        self.items.index = value.end();
        Some((key.text().expect("the parser puts a string before each value of an object"), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_behind_nested_ones() {
        let mut json = br#"{"a": [1, {"b": [2.5, "x"]}, true], "c": null, "a": {"d": -7}}"#.to_vec();
        let tape = simd_json::to_tape(&mut json).unwrap();
        let Kind::Object(fields) = Value::root(&tape.0).kind() else { panic!("an object") };
        let seen: Vec<_> = fields.clone().map(|(key, value)| (key, value.described())).collect();
        assert_eq!(seen, [("a", "a list"), ("c", "null"), ("a", "an object")]);
        let last = fields.get("a").unwrap();
        assert_eq!(last.strings().collect::<Vec<_>>(), ["d"]);
        let first = fields.clone().next().unwrap().1;
        assert_eq!(first.strings().collect::<Vec<_>>(), ["b", "x"]);
        let Kind::List(items) = first.kind() else { panic!("a list") };
        assert_eq!((items.len(), items.map(Value::described).last()), (3, Some("a boolean")));
        assert!(fields.get("e").is_none());
    }
}
