//! What a check found: counted always, kept within limits.
//!
//! A file can have a fault in every line, so findings are counted in full but kept only
//! as far as somebody will look at them. Messages are made when they are kept, not before.

use crate::check::code::{Code, Level, Stage};

/// In one line, findings of one code beyond this many are counted, not kept: a single
/// hostile line must not fill the memory.
pub const KEPT_IN_LINE: u8 = 100;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which path of the report it concerns.
    pub path: u32,
    /// The line, counted from 1; `None` where the whole file is meant.
    pub line: Option<u64>,
    /// Its stable name.
    pub code: Code,
    /// What is wrong, as a sentence fragment.
    pub message: String,
    /// The source record's key as a JSON string, where a prepared directory knows it.
    pub key: Option<String>,
}

/// How many findings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The first so many of each code.
    First(usize),
    /// All of them.
    All,
}

/// Findings of one chunk, or of a whole run.
#[derive(Debug, Clone)]
pub struct Findings {
    keep: Keep,
    counts: [u64; Code::COUNT],
    kept_counts: [usize; Code::COUNT],
    kept: Vec<Finding>,
    in_line: [u8; Code::COUNT],
}

impl Findings {
    /// None yet.
    pub fn new(keep: Keep) -> Findings {
        Findings {
            keep,
            counts: [0; Code::COUNT],
            kept_counts: [0; Code::COUNT],
            kept: Vec::new(),
            in_line: [0; Code::COUNT],
        }
    }

    /// How many are kept of each code.
    pub fn keep(&self) -> Keep {
        self.keep
    }

    /// Says that what follows is about another line.
    pub fn begin_line(&mut self) {
        self.in_line = [0; Code::COUNT];
    }

    /// Counts a finding and keeps it, with its message, if there is room.
    pub fn push(&mut self, code: Code, line: Option<u64>, message: impl FnOnce() -> String) {
        let index = code as usize;
        self.counts[index] += 1;
        self.in_line[index] = self.in_line[index].saturating_add(1);
        if self.has_room(code) && self.in_line[index] <= KEPT_IN_LINE {
            self.keep_one(Finding { path: 0, line, code, message: message(), key: None });
        }
    }

    fn has_room(&self, code: Code) -> bool {
        match self.keep {
            Keep::First(limit) => self.kept_counts[code as usize] < limit,
            Keep::All => true,
        }
    }

    fn keep_one(&mut self, finding: Finding) {
        self.kept_counts[finding.code as usize] += 1;
        self.kept.push(finding);
    }

    /// Takes over what was found in a later chunk of the file `path`, which begins behind `lines` lines.
    pub fn append(&mut self, mut later: Findings, path: u32, lines: u64) {
        for (count, more) in self.counts.iter_mut().zip(later.counts) {
            *count += more;
        }
        // What concerns the chunk as a whole was found last.
        later.kept.sort_by_key(|finding| finding.line);
        for mut finding in later.kept {
            if self.has_room(finding.code) {
                finding.path = path;
                finding.line = finding.line.map(|line| line + lines);
                self.keep_one(finding);
            }
        }
    }

    /// How many there are of `code`.
    pub fn count(&self, code: Code) -> u64 {
        self.counts[code as usize]
    }

    /// Counts findings of `code` that others will keep.
    pub fn count_only(&mut self, code: Code, more: u64) {
        self.counts[code as usize] += more;
    }

    /// Keeps a finding that is already counted.
    pub fn keep_counted(&mut self, finding: Finding) {
        if self.has_room(finding.code) {
            self.keep_one(finding);
        }
    }

    /// How many errors there are at `stage`.
    pub fn errors(&self, stage: Stage) -> u64 {
        let counts = |code: &Code| code.stage() == stage && code.level() == Level::Error;
        Code::all().filter(counts).map(|code| self.count(code)).sum()
    }

    /// How many there are of `level`.
    pub fn total(&self, level: Level) -> u64 {
        Code::all().filter(|code| code.level() == level).map(|code| self.count(code)).sum()
    }

    /// Those that were kept, by file and line.
    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }

    /// The same, to be completed.
    pub fn kept_mut(&mut self) -> &mut [Finding] {
        &mut self.kept
    }

    /// Puts those that were kept into the order of files and lines; within a line they stay as they came.
    pub fn sort(&mut self) {
        self.kept.sort_by_key(|finding| (finding.path, finding.line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &Findings, code: Code) -> Vec<u64> {
        findings.kept().iter().filter(|kept| kept.code == code).filter_map(|kept| kept.line).collect()
    }

    #[test]
    fn the_first_of_each_code_are_kept_and_all_are_counted() {
        let mut run = Findings::new(Keep::First(2));
        for chunk in 0..3 {
            let mut later = Findings::new(run.keep());
            for line in [2, 1] {
                later.push(Code::Role, Some(line), || "bad".to_owned());
            }
            later.push(Code::Encoding, Some(5), || panic_unless(chunk < 3));
            run.append(later, 0, chunk * 10);
        }
        assert_eq!((run.count(Code::Role), run.count(Code::Encoding)), (6, 3));
        assert_eq!(lines(&run, Code::Role), [1, 2]);
        assert_eq!(lines(&run, Code::Encoding), [5, 15]);
        assert_eq!((run.errors(Stage::Conversation), run.total(Level::Error)), (6, 9));
    }

    fn panic_unless(is_right: bool) -> String {
        assert!(is_right);
        String::new()
    }

    #[test]
    fn one_line_does_not_fill_the_memory() {
        let mut findings = Findings::new(Keep::All);
        for _ in 0..3 {
            findings.begin_line();
            (0..1000).for_each(|_| findings.push(Code::Role, Some(1), String::new));
        }
        assert_eq!(findings.count(Code::Role), 3000);
        assert_eq!(findings.kept().len(), 3 * usize::from(KEPT_IN_LINE));
    }
}
