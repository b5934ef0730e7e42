//! Checks one file: all threads judge its blocks, and one report grows in the order of the lines.

use std::ops::ControlFlow;
use std::path::Path;

use crate::check::code::{Code, Stage};
use crate::check::conversation::Format;
use crate::check::judge::Role;
use crate::check::lines::{BLOCK, Source};
use crate::check::ordered::in_order;
use crate::check::stats::Tokens;
use crate::check::structure::{BadLine, SINGLE_UPLOAD_BYTES, Structure, fault_of_file};
use crate::check::worker::{BlockReport, Tally, Worker};
use crate::check::{Error, Run};

/// What a check says of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// Which path of the report it is.
    pub path: u32,
    /// Bytes of the file; of a compressed one those that it unpacks to.
    pub bytes: u64,
    /// Lines, blank ones included.
    pub lines: u64,
    /// Lines of only blanks.
    pub blank_lines: u64,
    /// Lines that are objects.
    pub samples: u64,
    /// The client's verdict.
    pub structure: Structure,
    /// Whether the server would take every sample; `None` for a file that was not opened.
    pub is_conversation_passed: Option<bool>,
    /// Samples by format.
    pub formats: [u64; Format::ALL.len()],
    /// The tokens of all its samples.
    pub tokens: Tokens,
    /// Messages by role.
    pub roles: [u64; Role::ALL.len()],
}

/// Checks the regular file at `path`, which becomes the next path of the report.
///
/// # Errors
/// When it cannot be read, or somebody asked to stop.
pub fn check_file(run: &mut Run<'_>, path: &Path) -> Result<(), Error> {
    check_source(run, &Source::open(path)?, path)
}

/// Checks `source`, which becomes the next path of the report and is uploaded as `named`.
///
/// # Errors
/// When it cannot be read, or somebody asked to stop.
pub fn check_source(run: &mut Run<'_>, source: &Source, named: &Path) -> Result<(), Error> {
    let index = run.add_path(&source.path);
    let errors_before = run.findings.errors(Stage::Conversation);
    if let Some((code, reason)) = fault_of_file(named, source.size) {
        run.say(index, code, reason);
        run.files.push(FileReport {
            path: index,
            bytes: source.size,
            lines: 0,
            blank_lines: 0,
            samples: 0,
            structure: Structure::unopened(source.size),
            is_conversation_passed: None,
            formats: Default::default(),
            tokens: Tokens::default(),
            roles: Default::default(),
        });
        return Ok(());
    }
    if source.size > SINGLE_UPLOAD_BYTES {
        let reason = "larger than 5 GiB: it is uploaded in parts, not in one request";
        run.say(index, Code::MultipartUpload, reason.to_owned());
    }
    run.watch.expects(source.size);
    let mut merged = Merged::new(index);
    let tally = judge_blocks(run, source, &mut merged)?;
    if merged.lines == merged.blank_lines {
        run.say(index, Code::NoSamples, "the file has only blank lines".to_owned());
    }
    run.tally.merge(&tally);
    run.files.push(FileReport {
        path: index,
        bytes: source.size,
        lines: merged.lines,
        blank_lines: merged.blank_lines,
        samples: merged.samples,
        structure: Structure::of(source.size, merged.is_utf8, merged.first_bad, merged.samples),
        is_conversation_passed: Some(run.findings.errors(Stage::Conversation) == errors_before),
        formats: tally.formats,
        tokens: tally.tokens.total(),
        roles: tally.roles,
    });
    Ok(())
}

fn judge_blocks(run: &mut Run<'_>, source: &Source, merged: &mut Merged) -> Result<Tally, Error> {
    let (options, watch, pool) = (run.options, run.watch, run.pool);
    let workers = in_order(
        pool,
        source.blocks(),
        || Worker::new(options, source),
        |worker, block| {
            watch.check_stop()?;
            worker.judge_block(block)
        },
        |report| {
            merged.append(report, run);
            watch.checked(BLOCK as u64);
            ControlFlow::Continue(())
        },
    )?;
    let mut tally = Tally::default();
    workers.iter().for_each(|worker| tally.merge(&worker.tally));
    Ok(tally)
}

/// What the blocks so far say.
struct Merged {
    path: u32,
    lines: u64,
    blank_lines: u64,
    samples: u64,
    is_utf8: bool,
    first_bad: Option<BadLine>,
    /// The format of the first sample that has one, and its line.
    format: Option<(Format, u64)>,
}

impl Merged {
    fn new(path: u32) -> Self {
        Merged { path, lines: 0, blank_lines: 0, samples: 0, is_utf8: true, first_bad: None, format: None }
    }

    fn append(&mut self, mut block: BlockReport, run: &mut Run<'_>) {
        self.find_other_formats(&mut block);
        let lines = self.lines;
        run.findings.append(block.findings, self.path, lines);
        run.longest.append(block.longest, self.path, lines);
        run.add_digests(&block.digests);
        if let (None, Some(bad)) = (self.first_bad, block.first_bad) {
            self.first_bad = Some(BadLine { line: bad.line + lines, ..bad });
        }
        self.lines += block.lines;
        self.blank_lines += block.blank_lines;
        self.samples += block.samples;
        self.is_utf8 &= block.is_utf8;
    }

    /// All samples of a file have the format of its first one.
    fn find_other_formats(&mut self, block: &mut BlockReport) {
        let Some(&(line, first)) = block.formats.first() else { return };
        let (expected, since) = *self.format.get_or_insert((first, self.lines + u64::from(line)));
        for &(line, format) in block.formats.iter().filter(|(_, format)| *format != expected) {
            block.findings.begin_line();
            block.findings.push(Code::MixedFormats, Some(u64::from(line)), || {
                format!("{} in a file that has {} since line {since}", format.as_str(), expected.as_str())
            });
        }
    }
}
