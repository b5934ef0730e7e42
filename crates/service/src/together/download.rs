//! A trained model as an archive, brought to a file.
//!
//! What has been written to `NAME.part` is kept, and the next try asks for the rest. `NAME` appears when all of
//! it is there, and not before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use crate::http::{Answer, Body, Error as HttpError, Method, Piece, without_query};
use crate::together::follow::follow;
use crate::together::job::JobId;
use crate::together::{Error, Together};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The base model with the adapter worked in.
    Merged,
    Adapter,
    Full,
}

#[derive(Debug, Clone, Copy)]
pub struct Wanted<'w> {
    pub job: &'w JobId,
    pub checkpoint: Which,
    /// The step of the checkpoint; absent for the last one.
    pub step: Option<u64>,
}

/// What is known of an archive before it is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub bytes: Option<u64>,
    /// The ending that its name should have: `tar.zst` or `tar.gz`.
    pub extension: &'static str,
    pub takes_ranges: bool,
}

/// Asks what the archive is like, by its first two bytes.
pub fn probe(together: &Together, wanted: Wanted<'_>) -> Result<Probe, Error> {
    let url = url(together, wanted);
    let mut tries = 0;
    loop {
        let mut seen = None;
        let mut sink = |piece: Piece<'_>| match piece {
            Piece::Head(head) => {
                seen = Some(head.clone());
                // A server may send all of it, which nobody wants to hear.
                Err(io::Error::other("enough is known"))
            }
            Piece::Bytes(_) => Ok(()),
        };
        let answer = ask(together, &url, Some("bytes=0-1".to_owned()), &mut sink);
        if let Some(head) = seen {
            if head.is_html() {
                return Err(together.asked(Method::Get, &url).page(&head));
            }
            return Ok(read_probe(&head));
        }
        tries += 1;
        another_try(together, (&url, tries), answer)?;
    }
}

fn read_probe(head: &Answer) -> Probe {
    let is_gzip = head.header("content-type").is_some_and(|kind| kind.contains("x-tar"));
    let takes_ranges = head.status == 206;
    let bytes = if takes_ranges { range_of(head).and_then(|range| range.total) } else { length(head) };
    Probe { bytes, extension: if is_gzip { "tar.gz" } else { "tar.zst" }, takes_ranges }
}

/// Brings the archive to the file `to`, however often the connection breaks, as long as each few tries bring
/// some of it; gives back its length. `progress` hears the bytes there and the bytes in all. Fails when the
/// server refuses, brings nothing for as many tries as the client's policy has, or the file cannot be written.
/// What was brought is kept for the next time.
pub fn fetch(
    together: &Together,
    wanted: Wanted<'_>,
    to: &Path,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<u64, Error> {
    let url = url(together, wanted);
    let mut part = Part::open(to, progress)?;
    let (mut tries, mut most_written) = (0, part.written);
    loop {
        let answer = part.fetch_rest(together, &url)?;
        if part.is_whole(&answer) {
            return part.finish(to);
        }
        // A server that starts again and again brings nothing new.
        tries = if part.written > most_written { 1 } else { tries + 1 };
        most_written = most_written.max(part.written);
        another_try(together, (&url, tries), part.as_failure(&url, answer))?;
    }
}

struct Part<'p> {
    path: PathBuf,
    file: File,
    written: u64,
    total: Option<u64>,
    etag: Option<String>,
    progress: &'p mut dyn FnMut(u64, Option<u64>),
}

/// An answer and the URL that gave it in the end.
type Fetched = Result<(Answer, String), Error>;

enum Trouble {
    Write(io::Error),
    /// It does not go on where the file ends, or is of another archive.
    Changed,
    /// It is a web page: nothing of the archive.
    Page,
}

impl<'p> Part<'p> {
    fn open(to: &Path, progress: &'p mut dyn FnMut(u64, Option<u64>)) -> Result<Part<'p>, Error> {
        let mut name = to.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let opened = opened.and_then(|mut file| Ok((file.seek(io::SeekFrom::End(0))?, file)));
        let (written, file) = opened.map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(Part { path, file, written, total: None, etag: None, progress })
    }

    /// Asks for what is missing and writes it. Fails when it cannot be written. That nothing came is no error
    /// here.
    fn fetch_rest(&mut self, together: &Together, url: &str) -> Result<Fetched, Error> {
        let range = (self.written > 0).then(|| format!("bytes={}-", self.written));
        let mut trouble = None;
        let mut sink = |piece: Piece<'_>| {
            self.take(piece).map_err(|why| {
                trouble = Some(why);
                io::Error::other("it is not taken")
            })
        };
        let answer = ask(together, url, range, &mut sink);
        match trouble {
            Some(Trouble::Page) => {
                let url = without_query(url).to_owned();
                let reason = "the answer is a web page: a proxy or a login page".to_owned();
                return Ok(Err(HttpError::Lost { url, reason }.into()));
            }
            Some(Trouble::Write(source)) => return Err(self.cannot_write(source)),
            Some(Trouble::Changed) => self.start_again()?,
            None => {}
        }
        if let Ok((answer, _)) = &answer
            && answer.status == 416
            && range_of(answer).and_then(|range| range.total) != Some(self.written)
        {
            self.start_again()?;
        }
        Ok(answer)
    }

    fn take(&mut self, piece: Piece<'_>) -> Result<(), Trouble> {
        match piece {
            Piece::Head(head) => self.take_head(head),
            Piece::Bytes(bytes) => {
                self.file.write_all(bytes).map_err(Trouble::Write)?;
                self.written += bytes.len() as u64;
                (self.progress)(self.written, self.total);
                Ok(())
            }
        }
    }

    fn take_head(&mut self, head: &Answer) -> Result<(), Trouble> {
        let etag = head.header("etag").map(str::to_owned);
        if head.is_html() {
            return Err(Trouble::Page);
        }
        if head.status == 200 {
            // The server sends all of it, whatever was asked.
            self.truncate().map_err(Trouble::Write)?;
            self.total = length(head);
        } else {
            let range = range_of(head).ok_or(Trouble::Changed)?;
            let is_other = |known: bool, same: bool| known && !same;
            let is_changed = range.start != Some(self.written)
                || is_other(self.total.is_some(), range.total == self.total)
                || is_other(self.etag.is_some(), etag == self.etag)
                || range.total.is_some_and(|total| total < self.written);
            if is_changed {
                return Err(Trouble::Changed);
            }
            self.total = range.total;
        }
        self.etag = etag;
        (self.progress)(self.written, self.total);
        Ok(())
    }

    fn truncate(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.written = 0;
        Ok(())
    }

    fn start_again(&mut self) -> Result<(), Error> {
        self.truncate().map_err(|source| self.cannot_write(source))?;
        (self.total, self.etag) = (None, None);
        Ok(())
    }

    fn is_whole(&self, answer: &Fetched) -> bool {
        match answer {
            Ok((answer, _)) if matches!(answer.status, 200 | 206) => {
                self.total.is_none_or(|total| total == self.written)
            }
            Ok((answer, _)) if answer.status == 416 => {
                self.written > 0 && range_of(answer).and_then(|range| range.total) == Some(self.written)
            }
            _ => false,
        }
    }

    /// An answer that ended too early as the failure that it is.
    fn as_failure(&self, url: &str, answer: Fetched) -> Fetched {
        let reason = match &answer {
            Ok((answer, _)) if matches!(answer.status, 200 | 206) => "it ended too early",
            Ok((answer, _)) if answer.status == 416 => "what was there is of another archive",
            Err(Error::Http(HttpError::Sink { .. })) => "it has changed meanwhile",
            _ => return answer,
        };
        let url = without_query(url).to_owned();
        Err(HttpError::Lost { url, reason: reason.to_owned() }.into())
    }

    fn finish(self, to: &Path) -> Result<u64, Error> {
        let done = self.file.sync_all().and_then(|()| fs::rename(&self.path, to));
        done.map_err(|source| Error::Write { path: to.to_owned(), source })?;
        // Where a directory cannot be synced, its system sees to that by itself.
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _ = File::open(dir).and_then(|dir| dir.sync_all());
        (self.progress)(self.written, Some(self.written));
        Ok(self.written)
    }

    fn cannot_write(&self, source: io::Error) -> Error {
        Error::Write { path: self.path.clone(), source }
    }
}

fn ask(
    together: &Together,
    url: &str,
    range: Option<String>,
    sink: &mut dyn FnMut(Piece<'_>) -> io::Result<()>,
) -> Fetched {
    let mut attempt = |url: &str| {
        let mut call = together.call(Method::Get, url, Body::Empty)?;
        call.headers.retain(|(name, _)| name != "accept");
        call.headers.extend(range.clone().map(|range| ("range".to_owned(), range)));
        Ok(together.client.stream(&call, sink)?)
    };
    follow(together, (Method::Get, url), &mut attempt)
}

fn another_try(together: &Together, (url, tries): (&str, u32), answer: Fetched) -> Result<(), Error> {
    let (answer, url) = match answer {
        Ok((answer, url)) => (Ok(answer), url),
        Err(Error::Http(error)) => (Err(error), url.to_owned()),
        Err(other) => return Err(other),
    };
    let what = format!("GET {}", without_query(&url));
    if together.client.wait_for_another_try(&what, tries, &answer)? {
        return Ok(());
    }
    Err(together.asked(Method::Get, &url).refused(&answer?))
}

#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    /// Its first byte; absent where the range cannot be had.
    start: Option<u64>,
    total: Option<u64>,
}

/// `bytes 5-9/100`, `bytes 5-9/*`, `bytes */100`.
fn range_of(answer: &Answer) -> Option<ContentRange> {
    let (range, total) =
        answer.header("content-range")?.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let start = range.split_once('-').and_then(|(start, _)| start.trim().parse().ok());
    Some(ContentRange { start, total: total.trim().parse().ok() })
}

fn length(answer: &Answer) -> Option<u64> {
    answer.header("content-length")?.trim().parse().ok()
}

fn url(together: &Together, wanted: Wanted<'_>) -> String {
    let checkpoint = match wanted.checkpoint {
        Which::Merged => "merged",
        Which::Adapter => "adapter",
        Which::Full => "model_output_path",
    };
    let step = wanted.step.map(|step| format!("&checkpoint_step={step}")).unwrap_or_default();
    together.url(&format!("/v1/finetune/download?ft_id={}&checkpoint={checkpoint}{step}", wanted.job))
}
