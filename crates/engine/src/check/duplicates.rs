//! Finds samples that occur twice, in one file or in several, with eight bytes a sample.
//!
//! The first pass leaves a digest of each sample and no line. Only if some digest occurs
//! twice the files are read again, without parsing, to name the lines; by then the digests
//! that occur once have made room for those lines.

use std::ops::ControlFlow;
use std::path::PathBuf;

use rayon::slice::ParallelSliceMut;

use crate::check::code::Code;
use crate::check::finding::{Finding, Findings, Keep};
use crate::check::lines::{Line, MAX_LINE, Source, Window};
use crate::check::ordered::in_order;
use crate::check::structure::stripped;
use crate::check::worker::digest;
use crate::check::{Error, Run};

/// Bits of a place that are its line.
const LINE_BITS: u32 = 44;

/// Counts and names the samples that are the same as an earlier one of the run.
///
/// # Errors
/// When a file cannot be read again, or somebody asked to stop.
pub fn find_duplicates(run: &mut Run<'_>) -> Result<(), Error> {
    let mut digests = std::mem::take(&mut run.digests);
    run.pool.install(|| digests.par_sort_unstable());
    let duplicates = keep_repeated(&mut digests);
    run.findings.count_only(Code::Duplicate, duplicates);
    if duplicates == 0 {
        return Ok(());
    }
    digests.shrink_to_fit();
    let mut search = Search {
        // A place of 0 is none: lines are counted from 1.
        first_places: vec![0; digests.len()],
        digests: &digests,
        wanted: match run.findings.keep() {
            Keep::First(limit) => limit as u64,
            Keep::All => duplicates,
        },
    };
    let opened: Vec<u32> = run.files.iter().filter(|file| file.samples > 0).map(|file| file.path).collect();
    for path in opened {
        if search.wanted == 0 {
            break;
        }
        search.look_through(path, run)?;
    }
    Ok(())
}

/// Leaves one of each digest that occurs more than once in the sorted `digests`, and says how many
/// samples repeat an earlier one.
fn keep_repeated(digests: &mut Vec<u64>) -> u64 {
    let (mut kept, mut repeats) = (0, 0);
    let mut start = 0;
    while start < digests.len() {
        let digest = digests[start];
        let run = digests[start..].iter().take_while(|other| **other == digest).count();
        if run > 1 {
            digests[kept] = digest;
            kept += 1;
            repeats += run as u64 - 1;
        }
        start += run;
    }
    digests.truncate(kept);
    repeats
}

struct Search<'d> {
    /// The digests that occur more than once, sorted.
    digests: &'d [u64],
    /// Where each was seen first: path and line in one number.
    first_places: Vec<u64>,
    /// How many findings are still to be named.
    wanted: u64,
}

impl Search<'_> {
    fn look_through(&mut self, path: u32, run: &mut Run<'_>) -> Result<(), Error> {
        let (watch, pool, digests) = (run.watch, run.pool, self.digests);
        let file = &run.paths[path as usize];
        let source = match run.unpacked.get(&path) {
            None => Source::open(file)?,
            Some(expected) => {
                Source::unpack(file, expected, watch)?.map_err(|_| Error::Changed { path: file.clone() })?
            }
        };
        let mut lines = 0;
        let Run { findings, paths, .. } = run;
        in_order(
            pool,
            source.blocks(),
            || Window::new(MAX_LINE),
            |window, block| {
                watch.check_stop()?;
                repeated_lines(&source, window, block, digests)
            },
            |(hits, block_lines)| {
                for (line, index) in hits {
                    self.meet(path, lines + line, index, paths, findings);
                }
                lines += block_lines;
                if self.wanted == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )?;
        Ok(())
    }

    fn meet(&mut self, path: u32, line: u64, index: usize, paths: &[PathBuf], findings: &mut Findings) {
        let first = self.first_places[index];
        if first == 0 {
            self.first_places[index] = (u64::from(path) << LINE_BITS) | line;
            return;
        }
        self.wanted = self.wanted.saturating_sub(1);
        let first_line = first & ((1 << LINE_BITS) - 1);
        let place = match (first >> LINE_BITS) as u32 {
            same if same == path => format!("line {first_line}"),
            other => format!("{}:{first_line}", paths[other as usize].display()),
        };
        let message = format!("the same sample as {place}");
        findings.keep_counted(Finding { path, line: Some(line), code: Code::Duplicate, message, key: None });
    }
}

/// Lines with a digest that occurs more than once, and which one it is.
type Hits = Vec<(u64, usize)>;

/// The hits of a block, and how many lines begin in it.
fn repeated_lines(
    source: &Source,
    window: &mut Window,
    block: usize,
    digests: &[u64],
) -> Result<(Hits, u64), Error> {
    let (mut hits, mut lines) = (Vec::new(), 0);
    window.fill(source, block)?;
    while let Some(line) = window.next_line(source)? {
        lines += 1;
        if let Line::At { start, end } = line {
            let line = &window.bytes_from(start)[..end - start];
            if let Ok(index) = digests.binary_search(&digest(&line[stripped(line)])) {
                hits.push((lines, index));
            }
        }
    }
    Ok((hits, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_repeated_digest_stays() {
        let check = |digests: &[u64], expected: &[u64], repeats| {
            let mut digests = digests.to_vec();
            assert_eq!((keep_repeated(&mut digests), digests.as_slice()), (repeats, expected));
        };
        check(&[], &[], 0);
        check(&[1, 2, 3], &[], 0);
        check(&[1, 1, 2, 3, 3, 3], &[1, 3], 3);
        check(&[7, 7, 7], &[7], 2);
    }
}
