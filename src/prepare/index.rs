//! Finds the records of a container: where each begins, how long it is, and its key.
//!
//! One pass over a file of lines, or over the headers of an archive; the contents are
//! read later, by rank. Nothing is ever extracted to a path: a member's name is only a
//! key, and one that could lead elsewhere is refused by name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use memchr::memchr_iter;

use crate::prepare::Error;
use crate::prepare::source::{HIDDEN, OTHER_ENDING, is_hidden};

const BLOCK_BYTES: usize = 1 << 20;

/// The block in which an archive counts.
const TAR_BLOCK: u64 = 512;

/// Where a record's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// In a container: the offset of the first byte, and how many.
    Bytes(u64, u64),
    /// Nowhere: the member is refused.
    Refused(Refusal),
}

/// Why an archive's member is refused by its name or kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Refusal {
    /// Its name is absolute.
    Absolute = 0,
    /// Its name climbs (`..`).
    Climbing = 1,
    /// It is a link.
    Link = 2,
    /// It is a device, a FIFO, or something else without contents.
    Special = 3,
}

impl Refusal {
    /// The refusal of that number; an unknown one is [`Refusal::Special`].
    pub fn from_number(number: u64) -> Refusal {
        let all = [Refusal::Absolute, Refusal::Climbing, Refusal::Link];
        all.into_iter().find(|refusal| *refusal as u64 == number).unwrap_or(Refusal::Special)
    }

    /// What is wrong with the member.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Absolute => "the archive's member has an absolute name",
            Refusal::Climbing => "the archive's member has `..` in its name",
            Refusal::Link => "the archive's member is a link",
            Refusal::Special => "the archive's member is no regular file",
        }
    }
}

/// Calls `found` with the number (among non-blank lines, from 0) and place of every non-blank line of `file`.
///
/// # Errors
/// The system's, unchanged, and those of `found`.
pub fn index_lines(
    file: &mut File,
    path: &Path,
    mut found: impl FnMut(u64, Extent) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut line = Line { number: 0, start: 0, is_blank: true };
    let mut offset = 0;
    loop {
        let length = match file.read(&mut block) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        let mut from = 0;
        for newline in memchr_iter(b'\n', &block[..length]) {
            line.look_at(&block[from..newline]);
            line.end(offset + newline as u64, &mut found)?;
            from = newline + 1;
        }
        line.look_at(&block[from..length]);
        offset += length as u64;
    }
    line.end(offset, &mut found)
}

struct Line {
    number: u64,
    start: u64,
    is_blank: bool,
}

impl Line {
    fn look_at(&mut self, part: &[u8]) {
        self.is_blank = self.is_blank && part.iter().all(u8::is_ascii_whitespace);
    }

    /// The line ends before `end`; the next one begins behind it.
    fn end(
        &mut self,
        end: u64,
        found: &mut impl FnMut(u64, Extent) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.is_blank {
            found(self.number, Extent::Bytes(self.start, end - self.start))?;
            self.number += 1;
        }
        *self = Line { number: self.number, start: end + 1, is_blank: true };
        Ok(())
    }
}

/// What an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member<'n> {
    /// A member `*.json`: its key and its place.
    Record(&'n [u8], Extent),
    /// A member that is no directory and is not read: its key, and what it is.
    NotRead(&'n [u8], &'static str),
}

/// Calls `found` with every member of the archive `file` but its directories.
///
/// # Errors
/// [`Error::Damaged`] where the archive is cut or its headers are wrong; the system's errors; those of `found`.
pub fn index_tar(
    file: &mut File,
    path: &Path,
    mut found: impl FnMut(Member<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let damaged = |byte, reason: String| Error::Damaged { path: path.to_owned(), byte, reason };
    let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut end = 0;
    {
        let mut archive = tar::Archive::new(&mut *file);
        let entries = archive.entries_with_seek().map_err(failed)?;
        for entry in entries {
            let entry = entry.map_err(|error| damaged(end, error.to_string()))?;
            let (start, length) = (entry.raw_file_position(), entry.header().entry_size());
            let length = length.map_err(|error| damaged(end, error.to_string()))?.max(entry.size());
            end = start.saturating_add(length.next_multiple_of(TAR_BLOCK));
            if start.saturating_add(length) > size {
                return Err(damaged(size, "the archive ends inside a member".to_owned()));
            }
            let name = entry.path_bytes();
            if let Some(member) = member(&name, entry.header().entry_type(), Extent::Bytes(start, length)) {
                found(member)?;
            }
        }
    }
    check_end(file, end, size).map_err(failed)?.map_or(Ok(()), |reason| Err(damaged(end.min(size), reason)))
}

/// An archive ends with a block of zeros; one that does not was cut between two members.
fn check_end(file: &mut File, end: u64, size: u64) -> io::Result<Option<String>> {
    if size < end + TAR_BLOCK {
        return Ok(Some("the archive has no end mark: it was cut".to_owned()));
    }
    let mut block = [0; TAR_BLOCK as usize];
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut block)?;
    Ok(block.iter().any(|&byte| byte != 0).then(|| "what follows is no member".to_owned()))
}

/// What the member `name` is, if it is anything to name; `extent` is the place of its bytes.
fn member(name: &[u8], entry_type: tar::EntryType, extent: Extent) -> Option<Member<'_>> {
    use tar::EntryType::{Continuous, Directory, Link, Regular, Symlink, XGlobalHeader};
    let key = without_dot(name);
    let is_record = name.ends_with(b".json");
    let mut parts = name.split(|&byte| byte == b'/');
    if is_record && name.starts_with(b"/") {
        return Some(Member::Record(key, Extent::Refused(Refusal::Absolute)));
    }
    if is_record && parts.clone().any(|part| part == b"..") {
        return Some(Member::Record(key, Extent::Refused(Refusal::Climbing)));
    }
    match entry_type {
        XGlobalHeader => None,
        Directory if !is_record => None,
        _ if parts.any(is_hidden) => Some(Member::NotRead(key, HIDDEN)),
        Regular | Continuous if is_record => Some(Member::Record(key, extent)),
        Link | Symlink if is_record => Some(Member::Record(key, Extent::Refused(Refusal::Link))),
        _ if is_record => Some(Member::Record(key, Extent::Refused(Refusal::Special))),
        Regular | Continuous => Some(Member::NotRead(key, OTHER_ENDING)),
        Link | Symlink => Some(Member::NotRead(key, "link")),
        _ => Some(Member::NotRead(key, "special file")),
    }
}

fn without_dot(name: &[u8]) -> &[u8] {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    name
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn lines(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        index_lines(&mut file_of(bytes), Path::new("x.jsonl"), |number, extent| {
            let Extent::Bytes(start, length) = extent else { panic!("a line is never refused") };
            found.push((number, bytes[start as usize..(start + length) as usize].to_vec()));
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn only_lines_with_text_count() {
        let check = |bytes: &[u8], expected: &[&[u8]]| {
            let expected: Vec<(u64, Vec<u8>)> =
                expected.iter().enumerate().map(|(number, line)| (number as u64, line.to_vec())).collect();
            assert_eq!(lines(bytes), expected);
        };
        check(b"", &[]);
        check(b"\n \n\r\n", &[]);
        check(b"a\nb", &[b"a", b"b"]);
        check(b"a\r\n\n  b \n", &[b"a\r", b"  b "]);
    }

    #[test]
    fn a_line_may_be_longer_than_a_block() {
        let long = [b"x".repeat(BLOCK_BYTES * 2 + 5), b"\ny\n".to_vec()].concat();
        let found = lines(&long);
        assert_eq!(
            (found.len(), found[0].1.len(), found[1].1.as_slice()),
            (2, BLOCK_BYTES * 2 + 5, &b"y"[..])
        );
    }

    fn header(name: &[u8], entry_type: tar::EntryType, size: u64) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(entry_type);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn archive(members: &[(&[u8], tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, entry_type, content) in members {
            bytes.extend(header(name, *entry_type, content.len() as u64));
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn members(bytes: &[u8]) -> Result<Vec<(String, Option<String>)>, Error> {
        let mut found = Vec::new();
        index_tar(&mut file_of(bytes), Path::new("x.tar"), |member| {
            let (key, content) = match member {
                Member::Record(key, Extent::Bytes(start, length)) => {
                    (key, bytes[start as usize..(start + length) as usize].to_vec())
                }
                Member::Record(key, Extent::Refused(refusal)) => (key, format!("{refusal:?}").into_bytes()),
                Member::NotRead(key, kind) => (key, format!("not read: {kind}").into_bytes()),
            };
            found.push((String::from_utf8(key.to_vec()).unwrap(), String::from_utf8(content).ok()));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn members_are_found_and_hostile_ones_refused() {
        use tar::EntryType::{Char, Directory, Fifo, Link, Regular, Symlink};
        let bytes = archive(&[
            (b"./", Directory, b""),
            (b"./a.json", Regular, b"{}"),
            (b"b.txt", Regular, b"no"),
            (b"d/c.json", Regular, &b"x".repeat(1000)),
            (b"/abs.json", Regular, b"{}"),
            (b"d/../up.json", Regular, b"{}"),
            (b"s.json", Symlink, b""),
            (b"h.json", Link, b""),
            (b"v.json", Char, b""),
            (b"f.json", Fifo, b""),
            (b"./d/.git/e.json", Regular, b"{}"),
            (b"__MACOSX/._a.json", Regular, b"{}"),
            (b"./.hidden/", Directory, b""),
            (b".s", Symlink, b""),
            (b"/.abs.json", Regular, b"{}"),
            (b"../.up.json", Regular, b"{}"),
            (b"s", Symlink, b""),
            (b"d/./g..json", Regular, b"{}"),
        ]);
        let found = members(&bytes).unwrap();
        let short: Vec<(&str, &str)> = found
            .iter()
            .map(|(key, content)| (key.as_str(), content.as_deref().unwrap()))
            .map(|(key, content)| (key, if content.len() > 100 { "long" } else { content }))
            .collect();
        assert_eq!(
            short,
            [
                ("a.json", "{}"),
                ("b.txt", "not read: other ending"),
                ("d/c.json", "long"),
                ("/abs.json", "Absolute"),
                ("d/../up.json", "Climbing"),
                ("s.json", "Link"),
                ("h.json", "Link"),
                ("v.json", "Special"),
                ("f.json", "Special"),
                ("d/.git/e.json", "not read: hidden"),
                ("__MACOSX/._a.json", "not read: hidden"),
                (".s", "not read: hidden"),
                ("/.abs.json", "Absolute"),
                ("../.up.json", "Climbing"),
                ("s", "not read: link"),
                ("d/./g..json", "{}"),
            ]
        );
    }

    #[test]
    fn a_cut_archive_is_damaged_wherever_it_is_cut() {
        let bytes = archive(&[
            (b"a.json", tar::EntryType::Regular, b"{}"),
            (b"b.json", tar::EntryType::Regular, &b"y".repeat(700)),
        ]);
        assert_eq!(members(&bytes).unwrap().len(), 2);
        for cut in [100, 512, 513, 600, 1024, 1500, 1536, 2000, 2559, 2560, 2700] {
            let result = members(&bytes[..cut]);
            assert!(matches!(result, Err(Error::Damaged { .. })), "cut at {cut}: {result:?}");
        }
        let mut damaged = bytes.clone();
        damaged[1024 + 150] ^= 1;
        assert!(matches!(members(&damaged), Err(Error::Damaged { .. })));
    }
}
