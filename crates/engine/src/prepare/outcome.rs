//! What became of a record as bytes, kept until its turn comes by rank.
//!
//! An entry is the record's line, or the words of its reject, and behind it a trailer of a fixed length: so
//! the line is written straight into the entry. The last of the trailer is the offset of the record in its
//! container, as `list` expects. Entries live no longer than the process.

use crate::prepare::batch::Verdict;
use crate::prepare::tally::Marks;
use crate::record::reject::{Code, RejectReason};
use crate::record::warning::WarningSet;

/// The bytes of a trailer.
const TRAILER_BYTES: usize = 53;

/// What an entry says beside its line.
#[derive(Debug)]
pub struct Outcome {
    /// The record's fate.
    pub verdict: Verdict,
    /// The offset of the record in the plain bytes of its container.
    pub start: u64,
    /// How many bytes of it were read.
    pub bytes: u64,
}

const ACCEPTED: u8 = 0;
const SKIPPED: u8 = 1;
const REJECTED: u8 = 2;

impl Outcome {
    /// Ends the entry at the end of `entries`, to which the line of an accepted record was written.
    pub fn write(&self, entries: &mut Vec<u8>) {
        let (kind, code, marks) = match &self.verdict {
            Verdict::Accepted(marks) => (ACCEPTED, 0, *marks),
            Verdict::Skipped => (SKIPPED, 0, Marks::default()),
            Verdict::Rejected(reason) => {
                entries.extend_from_slice(reason.reason.as_bytes());
                entries.extend_from_slice(reason.at.as_bytes());
                // Where the one text ends and the other begins.
                let marks = Marks { story: reason.reason.len() as u64, ..Marks::default() };
                (REJECTED, reason.code as u8, marks)
            }
        };
        let is_correct = marks.is_correct.map_or(2, u8::from);
        entries.extend_from_slice(&marks.group);
        entries.extend_from_slice(&[kind, code, is_correct]);
        entries.extend_from_slice(&marks.warnings.bits().to_le_bytes());
        for number in [marks.story, marks.agents, self.bytes, self.start] {
            entries.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Reads an entry; its first bytes, as many as are given too, are the line.
    pub fn read(entry: &[u8]) -> (Outcome, usize) {
        let (text, trailer) = entry.split_at(entry.len() - TRAILER_BYTES);
        let number = |at: usize| u64::from_le_bytes(trailer[at..at + 8].try_into().expect("eight bytes"));
        let [kind, code, is_correct] = [16, 17, 18].map(|index| trailer[index]);
        let warnings = u16::from_le_bytes([trailer[19], trailer[20]]);
        let [story, agents, bytes, start] = [21, 29, 37, 45].map(number);
        let (verdict, line) = match kind {
            ACCEPTED => {
                let marks = Marks {
                    story,
                    agents,
                    content: 0,
                    group: trailer[..16].try_into().expect("sixteen bytes"),
                    is_correct: (is_correct < 2).then_some(is_correct == 1),
                    warnings: WarningSet::from_bits(warnings),
                };
                (Verdict::Accepted(marks), text.len())
            }
            SKIPPED => (Verdict::Skipped, 0),
            _ => {
                let (reason, at) = text.split_at(story as usize);
                let [reason, at] = [reason, at].map(|text| String::from_utf8_lossy(text).into_owned());
                (Verdict::Rejected(RejectReason { code: Code::ALL[usize::from(code)], reason, at }), 0)
            }
        };
        (Outcome { verdict, start, bytes }, line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::warning::Warning;

    fn check(verdict: Verdict, line: &str) {
        let mut entries = line.as_bytes().to_vec();
        let expected = format!("{verdict:?}");
        Outcome { verdict, start: 5 << 40, bytes: 77 }.write(&mut entries);
        let (outcome, length) = Outcome::read(&entries);
        assert_eq!((format!("{:?}", outcome.verdict), length), (expected, line.len()));
        assert_eq!((outcome.start, outcome.bytes), (5 << 40, 77));
    }

    #[test]
    fn an_entry_keeps_all_that_is_known_of_a_record() {
        for is_correct in [None, Some(false), Some(true)] {
            let warnings = WarningSet::of(|warning| warning == Warning::OtherColumns);
            let marks =
                Marks { story: u64::MAX, agents: 3, content: 0, group: [9; 16], is_correct, warnings };
            check(Verdict::Accepted(marks), "{\"messages\":[]}\n");
        }
        check(Verdict::Skipped, "");
        for code in Code::ALL {
            check(Verdict::Rejected(RejectReason::new(code, "not é", "socialized_context[1]")), "");
        }
        check(Verdict::Rejected(RejectReason::new(Code::Empty, "", "")), "");
    }
}
