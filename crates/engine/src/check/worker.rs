//! One thread's work on the lines of one block: structure first, then the rules of a sample.
//!
//! What depends on the order of the file (lines, findings, digests) leaves as a report a
//! block; what does not (lengths, roles) stays with the worker until the file is done.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use simd_json::{Buffers, Node, Tape};

use crate::check::code::Code;
use crate::check::conversation::{self, Format};
use crate::check::counter::{Counter, Method};
use crate::check::finding::{Findings, Keep};
use crate::check::judge::{Judge, Role, SpecialTokens};
use crate::check::lenient::{self, Fault};
use crate::check::lines::{Line, MAX_LINE, PADDING, Source, Window};
use crate::check::longest::Longest;
use crate::check::stats::{Histogram, TokenLengths, Tokens, estimate};
use crate::check::structure::{BadLine, stripped};
use crate::check::tape::{Kind, Value};
use crate::check::{Error, Options};

/// Parser buffers beyond this belong to one huge line and are given back.
const KEPT_BYTES: usize = 8 << 20;

/// What a block's lines say. Lines are counted from 1 within the block.
#[derive(Debug)]
pub struct BlockReport {
    /// Lines that begin in the block.
    pub lines: u64,
    /// Lines of only blanks.
    pub blank_lines: u64,
    /// Lines that are objects.
    pub samples: u64,
    /// What was found.
    pub findings: Findings,
    /// A digest of each sample, in order.
    pub digests: Vec<u64>,
    /// The line and the format of each sample that has one.
    pub formats: Vec<(u32, Format)>,
    /// The longest samples.
    pub longest: Longest,
    /// The first line that ends the client's check.
    pub first_bad: Option<BadLine>,
    /// Whether everything is UTF-8.
    pub is_utf8: bool,
}

impl BlockReport {
    fn new(keep: Keep) -> Self {
        BlockReport {
            lines: 0,
            blank_lines: 0,
            samples: 0,
            findings: Findings::new(keep),
            digests: Vec::new(),
            formats: Vec::new(),
            longest: Longest::default(),
            first_bad: None,
            is_utf8: true,
        }
    }

    /// Takes note of a fault of the line that was counted last.
    fn refuse(&mut self, fault: Fault, before: usize) {
        self.is_utf8 &= fault.code != Code::Encoding;
        self.first_bad
            .get_or_insert(BadLine { line: self.lines, is_not_object: fault.code == Code::NotObject });
        let line = Some(self.lines);
        self.findings.push(fault.code, line, || match fault.code {
            Code::NotObject => fault.reason,
            _ => format!("{}, at byte {}", fault.reason, before + fault.at),
        });
    }
}

/// What is counted without regard to order.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The samples' lengths as they stand in the file, in bytes.
    pub lengths: Histogram,
    /// The samples' tokens.
    pub tokens: TokenLengths,
    /// Messages by role.
    pub roles: [u64; Role::ALL.len()],
    /// Samples by format.
    pub formats: [u64; Format::ALL.len()],
}

impl Tally {
    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Tally) {
        self.lengths.merge(&other.lengths);
        self.tokens.merge(&other.tokens);
        self.roles.iter_mut().zip(other.roles).for_each(|(count, more)| *count += more);
        self.formats.iter_mut().zip(other.formats).for_each(|(count, more)| *count += more);
    }
}

/// A digest of a sample's bytes: equal samples have equal ones, and others almost surely not.
/// At a million samples the chance of one false pair is about one in forty million.
pub fn digest(sample: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0).build_hasher();
    hasher.write(sample);
    hasher.finish()
}

/// One thread's tools.
pub struct Worker<'r> {
    options: &'r Options,
    source: &'r Source,
    window: Window,
    parser: Parser,
    special_tokens: SpecialTokens,
    /// What this thread counted.
    pub tally: Tally,
}

impl<'r> Worker<'r> {
    /// Tools for the lines of `source`.
    pub fn new(options: &'r Options, source: &'r Source) -> Self {
        Worker {
            options,
            source,
            window: Window::new(MAX_LINE),
            parser: Parser::default(),
            special_tokens: SpecialTokens::default(),
            tally: Tally::default(),
        }
    }

    /// Judges the lines that begin in the block `index`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn judge_block(&mut self, index: usize) -> Result<BlockReport, Error> {
        let mut report = BlockReport::new(self.options.keep);
        self.window.fill(self.source, index)?;
        while let Some(line) = self.window.next_line(self.source)? {
            report.lines += 1;
            report.findings.begin_line();
            match line {
                Line::At { start, end } => self.judge_line(start, end, &mut report)?,
                Line::TooLong => {
                    let reason = format!("longer than {MAX_LINE} bytes, and not checked");
                    report.refuse(Fault { code: Code::LineTooLong, reason, at: MAX_LINE }, 0);
                }
            }
        }
        Ok(report)
    }

    fn judge_line(&mut self, start: usize, end: usize, report: &mut BlockReport) -> Result<(), Error> {
        let text = stripped(&self.window.bytes_from(start)[..end - start]);
        if text.is_empty() {
            report.blank_lines += 1;
            return Ok(());
        }
        let (before, length) = (text.start, text.len());
        let start = start + before;
        let position = self.window.position(start);
        let Worker { options, window, parser, special_tokens, tally, source } = self;
        let bytes = window.bytes_from(start);
        let mut sample =
            Sample { options, special_tokens, tally, report, digest: digest(&bytes[..length]), length };
        if parser.with_tape(bytes, length, |nodes| sample.judge(nodes)) {
            return Ok(());
        }
        // Parsing has changed the bytes.
        let mut pristine = vec![0; length];
        source.read_exact(&mut pristine, position)?;
        match lenient::judge(&pristine) {
            Err(fault) => sample.report.refuse(fault, before),
            Ok(mut accepted) => {
                accepted.faults.drain(..).for_each(|fault| sample.report.refuse(fault, before));
                let length = accepted.copy.len();
                accepted.copy.resize(length + PADDING, 0);
                let is_parsed = parser.with_tape(&mut accepted.copy, length, |nodes| sample.judge(nodes));
                debug_assert!(is_parsed, "the copy is made for the parser");
            }
        }
        Ok(())
    }
}

/// A sample on its way through the rules.
struct Sample<'s> {
    options: &'s Options,
    special_tokens: &'s SpecialTokens,
    tally: &'s mut Tally,
    report: &'s mut BlockReport,
    digest: u64,
    /// Bytes of its line.
    length: usize,
}

impl Sample<'_> {
    fn judge(&mut self, nodes: &[Node<'_>]) {
        let root = Value::root(nodes);
        let Kind::Object(fields) = root.kind() else {
            let reason = format!("{} where an object is expected", root.described());
            return self.report.refuse(Fault { code: Code::NotObject, reason, at: 0 }, 0);
        };
        let Sample { report, tally, .. } = self;
        report.samples += 1;
        report.digests.push(self.digest);
        let counter = self.options.counter.as_deref();
        let mut judge = Judge::new(&mut report.findings, &mut tally.roles, self.special_tokens, report.lines)
            .counting(counter);
        let format = conversation::check(&fields, &mut judge);
        if format.is_some_and(|format| format != Format::Messages) {
            judge.uncounted();
        }
        let texts = judge.texts();
        let tokens = counter.map_or_else(|| estimate(texts.weight), |counter| counter.sample(&texts));
        let is_about = counter.is_some() && texts.is_about;
        if let Some(limit) = self.options.max_tokens {
            let method = counter.filter(|_| !is_about).map_or(Method::About, Counter::method);
            check_tokens(tokens, method, limit, &mut judge);
        }
        if let Some(format) = format {
            tally.formats[format as usize] += 1;
            report.formats.push((report.lines as u32, format));
        }
        tally.lengths.record(self.length as u64);
        tally.tokens.record(tokens, is_about);
        report.longest.offer(self.length as u64, report.lines, tokens);
    }
}

fn check_tokens(Tokens { low, high }: Tokens, method: Method, limit: u64, judge: &mut Judge<'_>) {
    let said = || match method {
        Method::Exact => format!("{low} tokens, and the most is {limit}"),
        Method::AtMost => {
            format!("at most {high} tokens, an estimated {low} at least, and the most is {limit}")
        }
        Method::About => format!("an estimated {low} to {high} tokens, and the most is {limit}"),
    };
    if low > limit {
        judge.say(Code::OverMaxTokens, said);
    } else if high > limit {
        judge.say(Code::NearMaxTokens, said);
    }
}

/// The fast parser with its buffers, to be reused for every line of a thread.
pub struct Parser {
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for Parser {
    fn default() -> Self {
        Parser { buffers: Buffers::default(), tape: Tape::null().reset() }
    }
}

impl Parser {
    /// Parses the first `length` bytes, behind which are [`PADDING`] more, and hands the nodes to
    /// `look`; or refuses them. The bytes are changed: strings are unescaped in place.
    pub fn with_tape(&mut self, bytes: &mut [u8], length: usize, look: impl FnOnce(&[Node<'_>])) -> bool {
        let mut tape = std::mem::replace(&mut self.tape, Tape::null()).reset();
        let parsed = simd_json::fill_tape_padded(bytes, length, &mut self.buffers, &mut tape);
        let is_parsed = parsed.is_ok();
        if is_parsed {
            look(&tape.0);
        }
        self.tape = tape.reset();
        if length > KEPT_BYTES {
            *self = Parser::default();
        }
        is_parsed
    }
}
