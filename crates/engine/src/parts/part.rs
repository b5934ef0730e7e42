//! A converted part: what is known of it, and where in its object what lies.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::output::manifest::Counts;
use crate::parts::rows::Place;
use crate::parts::span::Span;
use crate::parts::work::{Content, Record, Work};

/// The schema of the records of parts.
pub const PART_SCHEMA: &str = "ctxtune.part/1";

/// What is known of a converted part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRecord {
    /// `ctxtune.part/1`.
    pub schema: String,
    /// The plan that it is a part of.
    pub plan: String,
    /// Its number, from 0.
    pub part: u64,
    /// The object that holds what it became.
    pub object: String,
    /// The object's size.
    pub bytes: u64,
    /// The object's SHA-256.
    pub sha256: String,
    /// Where in the object what lies, in this order.
    pub sections: Sections,
    /// Numbers of its records.
    pub counts: Counts,
    /// Bytes of records that were read.
    pub bytes_read: u64,
    /// Bytes that its compressed container unpacked to.
    pub unpacked: u64,
    /// SHA-256 of its keys, sorted bytewise, each followed by NUL.
    pub keys_sha256: String,
}

/// The bytes of each section of a converted part, in the order in which they lie one behind the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sections {
    /// Lines, by rank.
    pub lines: u64,
    /// What is known of each line, by rank.
    pub rows: u64,
    /// The keys of the lines, by rank.
    pub keys: u64,
    /// Rejects, by rank.
    pub rejects: u64,
    /// All keys, bytewise.
    pub listed: u64,
    /// Groups and their numbers of records, by rank.
    pub groups: u64,
    /// Stories, or the texts of chat lines, by mark.
    pub stories: u64,
    /// Sets of agents, by mark.
    pub agents: u64,
    /// The names of accepted records with something odd.
    pub warned: u64,
    /// The names of what is not read in archives.
    pub not_read: u64,
}

impl Content for PartRecord {
    fn plan(&self) -> &str {
        &self.plan
    }

    fn objects(&self) -> Vec<&str> {
        vec![&self.object]
    }
}

/// A converted part, as far as it is needed again and again.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its object.
    pub object: Arc<str>,
    /// Where its sections begin; one more says where the last one ends.
    starts: [u64; 10],
    /// How many lines it has.
    pub lines: u64,
    /// As in its plan.
    pub mix: u64,
    /// The SHA-256 of its record.
    pub digest: [u8; 32],
}

/// A section of a converted part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Lines,
    Rows,
    Keys,
    Rejects,
    Listed,
    Groups,
    Stories,
    Agents,
    Warned,
}

impl Part {
    /// What its record says.
    pub fn of(record: &Record<PartRecord>, mix: u64) -> Part {
        let sections = &record.content.sections;
        let bytes = [
            sections.lines,
            sections.rows,
            sections.keys,
            sections.rejects,
            sections.listed,
            sections.groups,
            sections.stories,
            sections.agents,
            sections.warned,
        ];
        let mut starts = [0; 10];
        (0..9).for_each(|index| starts[index + 1] = starts[index] + bytes[index]);
        Part {
            object: record.content.object.as_str().into(),
            starts,
            lines: record.content.counts.accepted,
            mix,
            digest: Sha256::digest(&record.line).into(),
        }
    }

    /// One of its sections, read by blocks of `block_bytes`.
    pub fn section(&self, work: &Work, section: Section, block_bytes: usize) -> Span {
        let [start, end] = [section as usize, section as usize + 1].map(|index| self.starts[index]);
        Span::new(&work.storage, &self.object, start, end - start, block_bytes)
    }

    /// The place behind all of its lines.
    pub fn end(&self) -> Place {
        let bytes = |section: Section| self.starts[section as usize + 1] - self.starts[section as usize];
        Place { rows: self.lines, lines: bytes(Section::Lines), keys: bytes(Section::Keys) }
    }
}
