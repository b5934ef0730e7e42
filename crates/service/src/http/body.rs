//! Ranges of files read as one request body; of compressed files ranges of what they unpack to.
//!
//! A body must be sent again from its beginning: the files are opened anew at each try, one at a time, however
//! many shards there are. A file that is shorter than promised fails, as the length has been announced by then.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::{error, fmt};

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Zstd,
    Gzip,
}

/// A range of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub path: PathBuf,
    /// How it is compressed. Then it is unpacked from its beginning, whatever the range.
    pub packing: Option<Packing>,
    pub start: u64,
    pub len: u64,
}

/// Ranges of files, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileBody {
    pub parts: Vec<Part>,
}

#[derive(Debug)]
pub struct Unreadable {
    pub path: PathBuf,
    pub source: io::Error,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot read `{}`: {}", self.path.display(), self.source)
    }
}

impl error::Error for Unreadable {}

impl FileBody {
    pub fn len(&self) -> u64 {
        self.parts.iter().map(|part| part.len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its `len` bytes from `start` on; less where it ends before.
    pub fn slice(&self, start: u64, len: u64) -> FileBody {
        let end = start.saturating_add(len);
        let mut parts = Vec::new();
        let mut offset = 0;
        for part in &self.parts {
            let (from, to) = (start.max(offset), end.min(offset + part.len));
            if from < to {
                let start = part.start + (from - offset);
                parts.push(Part { start, len: to - from, ..part.clone() });
            }
            offset += part.len;
        }
        FileBody { parts }
    }

    /// A reader of all of it. Its errors hold an [`Unreadable`].
    pub fn open(&self) -> Reader {
        Reader { parts: self.parts.clone(), next: 0, current: None }
    }
}

pub struct Reader {
    parts: Vec<Part>,
    next: usize,
    /// The open file and what is left of its part.
    current: Option<(Box<dyn Read + Send>, u64)>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some((file, left)) = &mut self.current
                && *left > 0
            {
                let path = &self.parts[self.next - 1].path;
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                let count =
                    read_some(file, &mut buffer[..most]).map_err(|source| unreadable(path, source))?;
                *left -= count as u64;
                return Ok(count);
            }
            let Some(part) = self.parts.get(self.next) else { return Ok(0) };
            self.current = Some((open_at(part).map_err(|source| unreadable(&part.path, source))?, part.len));
            self.next += 1;
        }
    }
}

fn open_at(part: &Part) -> io::Result<Box<dyn Read + Send>> {
    let mut file = File::open(&part.path)?;
    let Some(packing) = part.packing else {
        file.seek(SeekFrom::Start(part.start))?;
        return Ok(Box::new(file));
    };
    let file = BufReader::with_capacity(64 << 10, file);
    let mut plain: Box<dyn Read + Send> = match packing {
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
    };
    io::copy(&mut plain.by_ref().take(part.start), &mut io::sink())?;
    Ok(plain)
}

/// At least one byte.
fn read_some(file: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter"));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn unreadable(path: &std::path::Path, source: io::Error) -> io::Error {
    io::Error::other(Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of the given parts of files with the given contents.
    fn body(dir: &tempfile::TempDir, files: &[(&str, u64, u64)]) -> FileBody {
        let part = |(index, (text, start, len)): (usize, &(&str, u64, u64))| {
            let path = dir.path().join(format!("{index}"));
            std::fs::write(&path, text).unwrap();
            Part { path, packing: None, start: *start, len: *len }
        };
        FileBody { parts: files.iter().enumerate().map(part).collect() }
    }

    fn read(body: &FileBody) -> String {
        let mut text = String::new();
        body.open().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn ranges_of_files_are_one_body_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let body = body(&dir, &[("abcd", 1, 2), ("", 0, 0), ("efgh", 0, 4)]);
        assert_eq!((body.len(), body.is_empty()), (6, false));
        assert_eq!(read(&body), "bcefgh");
        assert_eq!(read(&body), "bcefgh");
        assert_eq!(read(&FileBody::default()), "");
    }

    #[test]
    fn every_slice_is_that_piece_of_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let body = body(&dir, &[("abcd", 1, 3), ("efgh", 0, 4), ("ijk", 2, 1)]);
        let whole = read(&body);
        for start in 0..=9 {
            for len in 0..=9 {
                let end = (start + len).min(whole.len());
                let expected = whole.get(start.min(end)..end).unwrap_or_default();
                assert_eq!(read(&body.slice(start as u64, len as u64)), expected, "{start} {len}");
            }
        }
        assert_eq!(read(&body.slice(2, u64::MAX)), whole[2..]);
    }

    #[test]
    fn every_slice_of_compressed_files_is_that_piece_of_what_they_unpack_to() {
        let dir = tempfile::tempdir().unwrap();
        let mut body = body(&dir, &[("abcd", 0, 4), ("efgh", 0, 4)]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, b"abcd").unwrap();
        std::fs::write(dir.path().join("0"), gzip.finish().unwrap()).unwrap();
        std::fs::write(dir.path().join("1"), zstd::encode_all(&b"efgh"[..], 1).unwrap()).unwrap();
        body.parts[0].packing = Some(Packing::Gzip);
        body.parts[1].packing = Some(Packing::Zstd);
        for start in 0..=8 {
            for len in 0..=8 - start {
                assert_eq!(read(&body.slice(start as u64, len as u64)), "abcdefgh"[start..start + len]);
            }
        }
        body.parts[1].len = 5;
        let error = body.open().read_to_end(&mut Vec::new()).unwrap_err();
        let unreadable: &Unreadable = error.get_ref().unwrap().downcast_ref().unwrap();
        assert_eq!(unreadable.source.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_that_shrank_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let body = body(&dir, &[("ab", 0, 2), ("cd", 0, 3)]);
        let error = body.open().read_to_end(&mut Vec::new()).unwrap_err();
        let unreadable: &Unreadable = error.get_ref().unwrap().downcast_ref().unwrap();
        assert_eq!(unreadable.path, dir.path().join("1"));
        assert_eq!(unreadable.source.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_that_is_gone_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let body = body(&dir, &[("ab", 0, 2)]);
        std::fs::remove_file(dir.path().join("0")).unwrap();
        let error = body.open().read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains(&dir.path().join("0").display().to_string()), "{error}");
    }
}
