//! Walks simd-json's tape: a flat list of nodes, in the order of the text.
//!
//! Types are checked on the way, and objects are walked in their own order. It knows JSON,
//! but not what a record is.

use simd_json::{Node, StaticNode};

use crate::record::reject::{Code, RejectReason};

/// A value on the parser's tape.
#[derive(Clone, Copy)]
pub struct Cursor<'n, 'a> {
    nodes: &'n [Node<'a>],
    index: usize,
}

impl<'n, 'a> Cursor<'n, 'a> {
    /// The value that the whole tape holds.
    pub fn root(nodes: &'n [Node<'a>]) -> Self {
        Cursor { nodes, index: 0 }
    }

    /// The node the value begins with.
    pub fn node(self) -> Node<'a> {
        self.nodes[self.index]
    }

    /// The index of the node behind this value and all it holds.
    fn end(self) -> usize {
        match self.node() {
            Node::Object { count, .. } | Node::Array { count, .. } => self.index + 1 + count,
            Node::String(_) | Node::Static(_) => self.index + 1,
        }
    }

    /// The reason for refusing the value at `at`, where `expected` should be.
    pub fn wrong_type(self, at: &str, expected: &str) -> RejectReason {
        let found = match self.node() {
            Node::String(_) => "a string",
            Node::Object { .. } => "an object",
            Node::Array { .. } => "a list",
            Node::Static(StaticNode::Bool(_)) => "a boolean",
            Node::Static(StaticNode::Null) => "null",
            Node::Static(_) => "a number",
        };
        RejectReason::new(Code::WrongType, format!("expected {expected}, found {found}"), at)
    }

    /// The string here.
    ///
    /// # Errors
    /// When it is something else; `at` is the place to name.
    pub fn string(self, at: &str) -> Result<&'a str, RejectReason> {
        match self.node() {
            Node::String(text) => Ok(text),
            _ => Err(self.wrong_type(at, "a string")),
        }
    }

    /// The boolean here, or `None` for null.
    ///
    /// # Errors
    /// When it is something else; `at` is the place to name.
    pub fn optional_bool(self, at: &str) -> Result<Option<bool>, RejectReason> {
        match self.node() {
            Node::Static(StaticNode::Bool(value)) => Ok(Some(value)),
            Node::Static(StaticNode::Null) => Ok(None),
            _ => Err(self.wrong_type(at, "true, false or null")),
        }
    }

    /// The fields of the object here.
    ///
    /// # Errors
    /// When it is something else; `at` is the place to name.
    pub fn object(self, at: &str) -> Result<Fields<'n, 'a>, RejectReason> {
        match self.node() {
            Node::Object { len, .. } => Ok(Fields { items: self.items(len) }),
            _ => Err(self.wrong_type(at, "an object")),
        }
    }

    /// The items of the list here.
    ///
    /// # Errors
    /// When it is something else; `at` is the place to name.
    pub fn list(self, at: &str) -> Result<Items<'n, 'a>, RejectReason> {
        match self.node() {
            Node::Array { len, .. } => Ok(self.items(len)),
            _ => Err(self.wrong_type(at, "a list")),
        }
    }

    fn items(self, len: usize) -> Items<'n, 'a> {
        Items { nodes: self.nodes, index: self.index + 1, len }
    }
}

/// The items of a list, in order.
pub struct Items<'n, 'a> {
    nodes: &'n [Node<'a>],
    index: usize,
    len: usize,
}

impl Items<'_, '_> {
    /// How many are left.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl<'n, 'a> Iterator for Items<'n, 'a> {
    type Item = Cursor<'n, 'a>;

    fn next(&mut self) -> Option<Cursor<'n, 'a>> {
        self.len = self.len.checked_sub(1)?;
        let item = Cursor { nodes: self.nodes, index: self.index };
        self.index = item.end();
        Some(item)
    }
}

/// The keys and values of an object, in order.
pub struct Fields<'n, 'a> {
    items: Items<'n, 'a>,
}

impl<'n, 'a> Iterator for Fields<'n, 'a> {
    type Item = (&'a str, Cursor<'n, 'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let items = &mut self.items;
        items.len = items.len.checked_sub(1)?;
        let Node::String(key) = items.nodes[items.index] else { return None };
        let value = Cursor { nodes: items.nodes, index: items.index + 1 };
        items.index = value.end();
        Some((key, value))
    }
}

impl<'a> Fields<'_, 'a> {
    /// Refuses an object with a repeated key; `keys` is room to compare them in.
    ///
    /// # Errors
    /// [`Code::DuplicateKey`], naming one of them.
    pub fn check_duplicates(self, keys: &mut Vec<&'a str>) -> Result<(), RejectReason> {
        keys.clear();
        keys.extend(self.map(|(key, _)| key));
        match first_duplicate(keys) {
            Some(key) => {
                Err(RejectReason::new(Code::DuplicateKey, format!("the key `{key}` appears twice"), key))
            }
            None => Ok(()),
        }
    }
}

/// Some key that `keys` holds twice. Sorts a long list, since a hostile record may have a million keys.
pub fn first_duplicate<'a>(keys: &mut [&'a str]) -> Option<&'a str> {
    if keys.len() > 32 {
        keys.sort_unstable();
        return keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
    }
    let repeats = |(index, key): (usize, &&'a str)| keys[..index].contains(key).then_some(*key);
    keys.iter().enumerate().find_map(repeats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_found_among_many_keys() {
        let mut keys: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let find = |keys: &[String]| {
            let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            first_duplicate(&mut keys).map(str::to_owned)
        };
        assert_eq!(find(&keys), None);
        keys.push("42".to_owned());
        assert_eq!(find(&keys), Some("42".to_owned()));
        assert_eq!(find(&keys[42..]), Some("42".to_owned()));
        assert_eq!(find(&keys[90..100]), None);
    }
}
