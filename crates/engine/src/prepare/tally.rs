//! What a run remembers of its records: a few bytes each, in rank order.
//!
//! Everything counted or decided after the conversion comes from here: leakage, groups,
//! the order of `keys.tsv`. Twenty bytes a record without groups, forty-four with them;
//! never a text.

use sha2::{Digest, Sha256};

use crate::output::manifest::{Counts, DataKind, IsCorrect, Leakage, Warnings};
use crate::prepare::mix::MixedLine;
use crate::record::warning::WarningSet;
use crate::split::Rank;
use crate::split::leakage::{Mark, count_shared};

/// Eight bytes that stand for a record's bytes as they were read.
pub type ContentDigest = u64;

/// The first eight bytes of the SHA-256 of `bytes`. It notices a file that changes between two passes, and
/// so must not be easy to forge, as a mark may be.
pub fn content_digest(bytes: &[u8]) -> ContentDigest {
    let digest = Sha256::digest(bytes);
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
}

/// What is remembered of an accepted record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    /// Stands for the story's text, or for the user's of a chat line.
    pub story: Mark,
    /// Stands for the set of agents.
    pub agents: Mark,
    /// Stands for the file's bytes; only where the split is grouped.
    pub content: ContentDigest,
    /// The rank of the record's group; only where the split is grouped.
    pub group: Rank,
    /// What the record says of its answer.
    pub is_correct: Option<bool>,
    /// What is odd in it.
    pub warnings: WarningSet,
}

/// The records' marks by position in rank order.
#[derive(Debug)]
pub struct Tally {
    is_accepted: Vec<bool>,
    stories: Vec<Mark>,
    agents: Vec<Mark>,
    contents: Vec<ContentDigest>,
    groups: Vec<Rank>,
    /// Accepted records so far.
    pub accepted: u64,
    /// Skipped records so far.
    pub skipped: u64,
    is_correct: IsCorrect,
    warnings: Warnings,
}

impl Tally {
    /// A tally of `records` listed records; `is_grouped` says whether groups are to be remembered.
    pub fn new(records: usize, is_grouped: bool) -> Self {
        let grouped = if is_grouped { records } else { 0 };
        Tally {
            is_accepted: vec![false; records],
            stories: vec![0; records],
            agents: vec![0; records],
            contents: vec![0; grouped],
            groups: vec![Rank::default(); grouped],
            accepted: 0,
            skipped: 0,
            is_correct: IsCorrect::default(),
            warnings: Warnings::default(),
        }
    }

    /// Remembers the accepted record at `position`.
    pub fn accept(&mut self, position: u32, marks: &Marks) {
        let index = position as usize;
        self.accepted += 1;
        self.is_accepted[index] = true;
        self.stories[index] = marks.story;
        self.agents[index] = marks.agents;
        if let (Some(content), Some(group)) = (self.contents.get_mut(index), self.groups.get_mut(index)) {
            *content = marks.content;
            *group = marks.group;
        }
        self.is_correct.count(marks.is_correct);
        for warning in marks.warnings.iter() {
            *self.warnings.count_mut(warning) += 1;
        }
    }

    /// Remembers a record left out by `--only-correct`.
    pub fn skip(&mut self) {
        self.skipped += 1;
        self.is_correct.r#false += 1;
    }

    /// Whether the record at `position` was accepted with these bytes; only where groups are remembered.
    pub fn is_same(&self, position: u32, content: ContentDigest) -> bool {
        self.is_accepted[position as usize] && self.contents[position as usize] == content
    }

    /// The rank of the group of the record at `position`.
    pub fn group(&self, position: u32) -> Rank {
        self.groups[position as usize]
    }

    /// The positions of the accepted records, ascending.
    pub fn accepted_positions(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        let accepted = self.is_accepted.iter().enumerate().filter(|(_, is_accepted)| **is_accepted);
        accepted.map(|(position, _)| position as u32)
    }

    /// What the validation records share with the training records. The two counts run in the current rayon pool.
    /// Of chat lines the texts stand where the stories of contexts do; `mixed` are those of lines that train too.
    pub fn leakage<'o>(&self, order: &'o Order<'o>, kind: DataKind, mixed: &[MixedLine]) -> Leakage {
        let shared = |of: &[Mark]| {
            let pick = |position: u32| of[position as usize];
            count_shared(order.train(self).map(pick), order.validation(self).map(pick))
        };
        if kind == DataKind::Chat {
            let text = |position: u32| self.stories[position as usize];
            let train = order.train(self).map(text).chain(mixed.iter().map(|line| line.text));
            let shared = count_shared(train, order.validation(self).map(text));
            return Leakage { val_sharing_text: Some(shared), ..Leakage::default() };
        }
        let (story, agents) = rayon::join(|| shared(&self.stories), || shared(&self.agents));
        Leakage { val_sharing_story: Some(story), val_sharing_agents: Some(agents), ..Leakage::default() }
    }

    /// The counts, to which the caller adds what it knows of rejects and of the listing.
    pub fn counts(&self) -> Counts {
        Counts {
            accepted: self.accepted,
            skipped: self.skipped,
            is_correct: self.is_correct,
            warnings: self.warnings,
            ..Counts::default()
        }
    }
}

/// The final order of the examples.
#[derive(Debug)]
pub struct Order<'o> {
    /// These positions, training ones first; `None`: the accepted records by rank, the validation side from the
    /// last one downward.
    pub grouped: Option<&'o [u32]>,
    /// How many are on the train side of the split.
    pub train: usize,
    /// How many of those have a line: the first ones.
    pub kept: usize,
}

impl Order<'_> {
    /// The positions of the training records in the order of their lines.
    pub fn train<'t>(&'t self, tally: &'t Tally) -> Box<dyn Iterator<Item = u32> + 't> {
        match self.grouped {
            None => Box::new(tally.accepted_positions().take(self.kept)),
            Some(order) => Box::new(order[..self.kept].iter().copied()),
        }
    }

    /// The positions of the validation records in the order of their lines.
    pub fn validation<'t>(&'t self, tally: &'t Tally) -> Box<dyn Iterator<Item = u32> + 't> {
        match self.grouped {
            None => Box::new(tally.accepted_positions().rev().take(tally.accepted as usize - self.train)),
            Some(order) => Box::new(order[self.train..].iter().copied()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_digest_is_the_beginning_of_the_sha256() {
        assert_eq!(content_digest(b"abc"), 0xba78_16bf_8f01_cfea);
    }
}
