//! Chat lines that are mixed into the training lines: how many of each file, which ones, and where.
//!
//! Which: the usable lines of a file whose keys rank lowest. Where: of the places in `train.jsonl`, counted from
//! 0, those rank lowest as `mix@0`, `mix@1`…; the lines take them by rank. So both are functions of seed, keys
//! and counts, as the split is. The validation side is never touched.

use std::collections::BinaryHeap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::str::FromStr;

use crate::output::manifest::Mixed;
use crate::ratio::Ratio;
use crate::source::section::read_exact_at;
use crate::source::{Source, plain_name, prefixes};
use crate::split::leakage::Mark;
use crate::split::{Rank, Ranks};

/// What stands before the keys of mixed lines.
pub const PREFIX: &[u8] = b"mix/";

/// What holds wherever there is a line.
const HAS_FILE: &str = "lines are mixed in, so there is a file for them";

/// A file of chat lines, and how many of them are mixed in.
#[derive(Debug, Clone)]
pub struct Mix {
    /// The file.
    pub source: Source,
    /// How many.
    pub amount: Amount,
}

/// How many lines are mixed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Lines(u64),
    /// So large a part of all training lines, the mixed ones included.
    Share(Ratio),
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let amount = match text.strip_suffix('%') {
            Some(percent) => Ratio::from_percent(percent).filter(|share| !share.is_zero()).map(Amount::Share),
            None => text.parse().ok().filter(|lines| *lines > 0).map(Amount::Lines),
        };
        amount.ok_or_else(|| "expected a number of lines such as 500, or a share such as 5%".to_owned())
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Lines(lines) => write!(formatter, "{lines}"),
            Amount::Share(share) => write!(formatter, "{}%", share.percent()),
        }
    }
}

/// How many lines of each of these stand beside `records` training records; `None` where the shares leave no
/// room for records.
pub fn counts(amounts: &[Amount], records: u64) -> Option<Vec<u64>> {
    let shares: Vec<Ratio> = amounts
        .iter()
        .filter_map(|amount| match amount {
            Amount::Share(share) => Some(*share),
            Amount::Lines(_) => None,
        })
        .collect();
    let fixed = amounts.iter().map(|amount| match amount {
        Amount::Lines(lines) => *lines,
        Amount::Share(_) => 0,
    });
    let whole = Ratio::whole(fixed.fold(records, u64::saturating_add), &shares)?;
    let count = |amount: &Amount| match amount {
        Amount::Lines(lines) => *lines,
        Amount::Share(share) => share.of(whole),
    };
    Some(amounts.iter().map(count).collect())
}

/// What stands before the keys of the lines of each of `mixes`.
pub fn key_prefixes(mixes: &[Mix]) -> Vec<Vec<u8>> {
    let sources: Vec<Source> = mixes.iter().map(|mix| mix.source.clone()).collect();
    let names = match sources.as_slice() {
        [only] => vec![[&plain_name(base_name(&only.path)).0, &b"/"[..]].concat()],
        several => prefixes(several),
    };
    names.into_iter().map(|name| [PREFIX, &name].concat()).collect()
}

fn base_name(path: &Path) -> &[u8] {
    path.file_name().unwrap_or_default().as_encoded_bytes()
}

/// The chosen lines while they wait for their places.
#[derive(Debug, Default)]
pub struct MixedLines {
    /// The lines one behind the other, in an unlinked file; none where nothing is mixed in.
    file: Option<BufWriter<File>>,
    length: u64,
    /// By file, then by rank.
    lines: Vec<MixedLine>,
    /// What was chosen of each file.
    pub chosen: Vec<Mixed>,
}

/// A chosen line.
#[derive(Debug)]
pub struct MixedLine {
    rank: Rank,
    /// The key of its source.
    pub key: Vec<u8>,
    /// Stands for its user's texts.
    pub text: Mark,
    start: u64,
    length: u64,
}

impl MixedLines {
    /// None yet; they wait in a file below `dir`, or in the system's place for such.
    ///
    /// # Errors
    /// When no temporary file can be made.
    pub fn new(dir: Option<&Path>) -> io::Result<MixedLines> {
        let file = dir.map_or_else(tempfile::tempfile, tempfile::tempfile_in)?;
        Ok(MixedLines { file: Some(BufWriter::new(file)), ..MixedLines::default() })
    }

    /// Adds a line to those of [`MixedLines::new`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, ranks: &Ranks, key: &[u8], text: Mark, line: &[u8]) -> io::Result<()> {
        self.file.as_mut().expect(HAS_FILE).write_all(line)?;
        let (start, length) = (self.length, line.len() as u64);
        self.lines.push(MixedLine { rank: ranks.rank(key), key: key.to_owned(), text, start, length });
        self.length += length;
        Ok(())
    }

    /// The lines by rank, once all are there.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn by_rank(&mut self) -> io::Result<&[MixedLine]> {
        self.file.as_mut().map_or(Ok(()), BufWriter::flush)?;
        self.lines.sort_unstable_by(|one, other| (one.rank, &one.key).cmp(&(other.rank, &other.key)));
        Ok(&self.lines)
    }

    /// Reads `line` to `bytes`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, line: &MixedLine, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.resize(line.length as usize, 0);
        read_exact_at(self.file.as_ref().expect(HAS_FILE).get_ref(), bytes, line.start)
    }

    /// The lines, in the order in which they are.
    pub fn lines(&self) -> &[MixedLine] {
        &self.lines
    }
}

/// The places of `count` lines among `records` others, ascending: those that rank lowest.
pub fn places(seed: u64, count: usize, records: u64) -> Vec<u64> {
    let ranks = Ranks::new(seed);
    let mut lowest: BinaryHeap<(Rank, u64)> = BinaryHeap::with_capacity(count + 1);
    for place in 0..records + count as u64 {
        let rank = ranks.rank(format!("mix@{place}").as_bytes());
        if lowest.len() < count {
            lowest.push((rank, place));
        } else if let Some(mut highest) = lowest.peek_mut().filter(|highest| rank < highest.0) {
            *highest = (rank, place);
        }
    }
    let mut places: Vec<u64> = lowest.into_iter().map(|(_, place)| place).collect();
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_part_of_all_training_lines() {
        let check = |amounts: &[&str], records, expected: Option<&[u64]>| {
            let amounts: Vec<Amount> = amounts.iter().map(|amount| amount.parse().unwrap()).collect();
            assert_eq!(counts(&amounts, records).as_deref(), expected, "{amounts:?}");
        };
        check(&[], 900, Some(&[]));
        check(&["10%"], 900, Some(&[100]));
        check(&["5"], 900, Some(&[5]));
        check(&["100", "20%"], 700, Some(&[100, 200]));
        check(&["12.5%", "50%"], 3, Some(&[1, 4]));
        check(&["1%"], 50, Some(&[0]));
        check(&["10%"], 3179, Some(&[353]));
        check(&["100%"], 9, None);
        check(&["60%", "40%"], 9, None);
        // More lines than can be counted.
        check(&["99.9999999999999%"], u64::MAX, None);
    }

    #[test]
    fn an_amount_is_a_number_or_a_share() {
        for text in ["0", "0%", "-1", "", "%", "101%", "five"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
        for text in ["500", "5%", "0.25%"] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
    }
}
