//! Groups: records that must not be torn apart by the split, and where to cut between them.
//!
//! A group's key is compact JSON, so that anyone can recompute its rank. Groups ascend by
//! rank; the cut is the group boundary nearest to the exact count. Pure: keys and counts
//! in, a decision out.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use crate::json::escape_once;
use crate::ratio::Ratio;
use crate::record::Record;
use crate::split::Rank;

/// What makes a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    /// The story's text.
    Story,
    /// The set of agents.
    Agents,
    /// The record's top-level string of this name.
    Field(String),
}

impl FromStr for GroupBy {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "story" => GroupBy::Story,
            "agents" => GroupBy::Agents,
            field => GroupBy::Field(field.to_owned()),
        })
    }
}

impl fmt::Display for GroupBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            GroupBy::Story => "story",
            GroupBy::Agents => "agents",
            GroupBy::Field(field) => field,
        })
    }
}

impl GroupBy {
    /// The top-level field to read, if the group is made by one.
    pub fn field(&self) -> Option<&str> {
        match self {
            GroupBy::Field(field) => Some(field),
            GroupBy::Story | GroupBy::Agents => None,
        }
    }
}

/// Writes the key of the group of `record` to `key`: a JSON string, or the array of its agents.
pub fn write_group_key(by: &GroupBy, record: &Record<'_>, key: &mut Vec<u8>) {
    key.clear();
    match by {
        GroupBy::Story => write_string(record.story, key),
        GroupBy::Agents => write_agents_key(&record.context.agents_names, key),
        GroupBy::Field(_) => write_field_key(record.group_field.unwrap_or_default(), key),
    }
}

/// Writes the key of the group of the records with `text` in their field to `key`.
pub fn write_field_key(text: &str, key: &mut Vec<u8>) {
    key.clear();
    write_string(text, key);
}

/// Writes the distinct names in the order of their code points as a JSON array, `["Chloe","Mia"]`, to `key`.
pub fn write_agents_key(names: &[&str], key: &mut Vec<u8>) {
    key.clear();
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    key.push(b'[');
    for (index, name) in sorted.into_iter().enumerate() {
        if index > 0 {
            key.push(b',');
        }
        write_string(name, key);
    }
    key.push(b']');
}

fn write_string(text: &str, key: &mut Vec<u8>) {
    key.push(b'"');
    escape_once(key, text);
    key.push(b'"');
}

/// Which records train, decided by groups.
#[derive(Debug, PartialEq, Eq)]
pub struct GroupedSplit {
    /// Positions in rank order of the records that train, ascending; then those that validate, descending.
    pub order: Vec<u32>,
    /// How many of `order` train.
    pub train: usize,
    /// Groups in all.
    pub groups: u64,
    /// Groups that train.
    pub train_groups: u64,
    /// Training records more (or fewer) than the exact count.
    pub deviation: i64,
}

/// The boundary between groups that is nearest to the exact count, found while their sizes come by rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCut {
    exact: u64,
    records: u64,
    /// Groups so far.
    pub groups: u64,
    /// Records that train.
    pub train: u64,
    /// Groups that train: the first ones.
    pub train_groups: u64,
}

impl GroupCut {
    /// For groups of which `exact` records would train if they could be torn apart.
    pub fn new(exact: u64) -> GroupCut {
        GroupCut { exact, records: 0, groups: 0, train: 0, train_groups: 0 }
    }

    /// The next group has so many records. Whether it trains, as far as is known: then all before it do.
    pub fn add(&mut self, records: u64) -> bool {
        self.records += records;
        self.groups += 1;
        // Boundaries only move away from `exact` once they have passed it; on a tie the smaller stays.
        let is_nearer = self.records.abs_diff(self.exact) < self.train.abs_diff(self.exact);
        if is_nearer {
            (self.train, self.train_groups) = (self.records, self.groups);
        }
        is_nearer
    }

    /// Training records more (or fewer) than the exact count.
    pub fn deviation(&self) -> i64 {
        self.train as i64 - self.exact as i64
    }
}

/// Splits the records at `accepted` positions (ascending), whose groups have the ranks that `group_rank` gives.
pub fn split_groups(accepted: Vec<u32>, group_rank: impl Fn(u32) -> Rank, ratio: Ratio) -> GroupedSplit {
    let mut cut = GroupCut::new(ratio.train_count(accepted.len() as u64));
    let mut order = accepted;
    order.sort_unstable_by_key(|&position| (group_rank(position), position));
    let by_group = order.chunk_by(|one, other| group_rank(*one) == group_rank(*other));
    for group in by_group {
        cut.add(group.len() as u64);
    }
    let train = cut.train as usize;
    order[..train].sort_unstable();
    order[train..].sort_unstable_by(|a, b| b.cmp(a));
    let (groups, train_groups) = (cut.groups, cut.train_groups);
    GroupedSplit { order, train, groups, train_groups, deviation: cut.deviation() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_key_is_a_sorted_set() {
        let mut key = Vec::new();
        write_agents_key(&["Mia", "Chloe", "Mia", "É\""], &mut key);
        assert_eq!(String::from_utf8(key).unwrap(), "[\"Chloe\",\"Mia\",\"É\\\"\"]");
    }

    /// Groups of the given sizes in rank order; expects the number of training records.
    fn check(sizes: &[usize], ratio: &str, train: usize, deviation: i64) {
        let groups: Vec<u8> =
            sizes.iter().enumerate().flat_map(|(group, &size)| vec![group as u8; size]).collect();
        let total = groups.len() as u32;
        let rank = |position: u32| {
            let mut rank = Rank::default();
            rank[0] = groups[position as usize];
            rank
        };
        let split = split_groups((0..total).collect(), rank, ratio.parse().unwrap());
        assert_eq!((split.train, split.deviation), (train, deviation), "{sizes:?}");
        assert_eq!(split.groups, sizes.len() as u64);
        let mut expected: Vec<u32> = (0..train as u32).collect();
        expected.extend((train as u32..total).rev());
        assert_eq!(split.order, expected);
    }

    #[test]
    fn the_cut_is_the_nearest_boundary() {
        check(&[1; 10], "0.1", 9, 0);
        check(&[4, 4, 2], "0.1", 8, -1);
        check(&[5, 5], "0.1", 10, 1);
        check(&[2, 8, 10], "0.5", 10, 0);
        check(&[4, 4, 2], "0.4", 4, -2); // 4 and 8 are both 2 away from 6: the smaller train
        check(&[3, 3, 3, 1], "0.3", 6, -1);
        check(&[9, 1], "0.9", 0, -1); // nothing is nearer to 1 than 0
        check(&[5], "0", 5, 0);
        check(&[], "0.1", 0, 0);
    }
}
