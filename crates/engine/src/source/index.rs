//! Finds the records of a container: where each begins, how long it is, and its key.
//!
//! One pass over a file of lines, or over the headers of an archive; the contents are
//! read later, by rank. Nothing is ever extracted to a path: a member's name is only a
//! key, and one that could lead elsewhere is refused by name.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use memchr::memchr_iter;

use crate::error::Error;
use crate::read_buffer::ReadBuffer;
use crate::source::section::{Section, read_exact_at};
use crate::source::{HIDDEN, OTHER_ENDING, is_hidden};

/// Small enough to stay in a core's cache from the read to the search.
const BLOCK_BYTES: usize = 256 << 10;

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
    /// It is a symbolic link.
    Link = 2,
    /// It is a device, a FIFO, or something else without contents.
    Special = 3,
    /// It is a hard link to no earlier regular member.
    HardLink = 4,
    /// Its zeros were left out.
    Sparse = 5,
}

impl Refusal {
    const ALL: [Refusal; 6] = [
        Refusal::Absolute,
        Refusal::Climbing,
        Refusal::Link,
        Refusal::Special,
        Refusal::HardLink,
        Refusal::Sparse,
    ];

    /// The refusal of that number; an unknown one is [`Refusal::Special`].
    pub fn from_number(number: u64) -> Refusal {
        Refusal::ALL.into_iter().find(|refusal| *refusal as u64 == number).unwrap_or(Refusal::Special)
    }

    /// What is wrong with the member, and the command that mends what is only unusual.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Absolute => "the archive's member has an absolute name",
            Refusal::Climbing => "the archive's member has `..` in its name",
            Refusal::Link => "the archive's member is a link",
            Refusal::Special => "the archive's member is no regular file",
            Refusal::HardLink => {
                "the archive's member is a hard link to something that is no earlier regular member; pack its \
                 directory again: `tar --hard-dereference -cf NEW.tar -C DIRECTORY .`"
            }
            Refusal::Sparse => {
                "the archive's member is stored as a GNU sparse file; pack it again: \
                 `mkdir new && tar -xf ARCHIVE -C new && tar -cf NEW.tar -C new .`"
            }
        }
    }
}

/// Calls `found` with the number (among non-blank lines, from 0) and place of every non-blank line of `section`.
///
/// # Errors
/// The system's, unchanged, and those of `found`.
pub fn index_lines(
    section: &Section,
    path: &Path,
    mut found: impl FnMut(u64, Extent) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = section.reader();
    let mut block = ReadBuffer::new(BLOCK_BYTES);
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

/// Calls `found` with every member of the archive in `section` but its directories.
///
/// A hard link to an earlier regular member is a record with that member's bytes. Links come last, in a
/// second pass over the headers: their targets alone are kept in memory.
///
/// # Errors
/// [`Error::Damaged`] where the archive is cut or its headers are wrong; the system's errors; those of `found`.
pub fn index_tar(
    section: &Section,
    path: &Path,
    mut found: impl FnMut(Member<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut targets: BTreeMap<Vec<u8>, Option<Extent>> = BTreeMap::new();
    for_each_header(section, path, |header| match member(header) {
        Some(Listed::Link(_, target)) => {
            targets.insert(target.to_owned(), None);
            Ok(())
        }
        Some(Listed::Member(member)) => found(member),
        None => Ok(()),
    })?;
    if targets.is_empty() {
        return Ok(());
    }
    for_each_header(section, path, |header| {
        if let Some(Listed::Link(key, target)) = member(header) {
            let extent = targets.get(target).copied().flatten();
            return found(Member::Record(key, extent.unwrap_or(Extent::Refused(Refusal::HardLink))));
        }
        // The last member of a name is the one that a link behind it means.
        if let Some(target) = targets.get_mut(without_dot(header.name)) {
            *target = header.is_regular().then_some(header.extent);
        }
        Ok(())
    })
}

/// A member's header, as far as it matters.
struct Header<'h> {
    name: &'h [u8],
    entry_type: tar::EntryType,
    link: &'h [u8],
    is_sparse: bool,
    extent: Extent,
}

impl Header<'_> {
    fn is_regular(&self) -> bool {
        matches!(self.entry_type, tar::EntryType::Regular | tar::EntryType::Continuous) && !self.is_sparse
    }
}

/// Calls `look` with every header of the archive in `section`, which is held to be whole.
fn for_each_header(
    section: &Section,
    path: &Path,
    mut look: impl FnMut(&Header<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let damaged = |byte, reason: String| Error::Damaged { path: path.to_owned(), byte, reason };
    let size = section.length;
    let mut end = 0;
    let mut archive = tar::Archive::new(section.reader());
    for entry in archive.entries_with_seek().map_err(failed)? {
        let mut entry = entry.map_err(|error| damaged(end, error.to_string()))?;
        let is_old_sparse = entry.header().entry_type().is_gnu_sparse();
        let mut start = entry.raw_file_position();
        // What a sparse member stands for is larger than what is stored of it.
        let length = if is_old_sparse { entry.header().entry_size() } else { Ok(entry.size()) };
        let length = length.map_err(|error| damaged(end, error.to_string()))?;
        if is_old_sparse {
            start = start.saturating_add(sparse_header_bytes(section, &entry).map_err(failed)?);
        }
        end = start.saturating_add(length.checked_next_multiple_of(TAR_BLOCK).unwrap_or(u64::MAX));
        if start.saturating_add(length) > size {
            return Err(damaged(size, "the archive ends inside a member".to_owned()));
        }
        let sparse_name = sparse_name(&mut entry);
        let link = entry.link_name_bytes().unwrap_or_default();
        look(&Header {
            name: sparse_name.as_deref().unwrap_or(&entry.path_bytes()),
            entry_type: entry.header().entry_type(),
            link: without_dot(&link),
            is_sparse: is_old_sparse || sparse_name.is_some(),
            extent: Extent::Bytes(start, length),
        })?;
    }
    check_end(section, end).map_err(failed)?.map_or(Ok(()), |reason| Err(damaged(end.min(size), reason)))
}

/// The bytes of the headers behind the first one of a sparse member in the older of GNU's formats.
fn sparse_header_bytes<R: io::Read>(section: &Section, entry: &tar::Entry<'_, R>) -> io::Result<u64> {
    /// Where a block says whether another one follows.
    const IS_EXTENDED: u64 = 504;
    let mut bytes = 0;
    let mut is_extended = entry.header().as_gnu().is_some_and(tar::GnuHeader::is_extended);
    while is_extended {
        let mut flag = [0];
        let read = section.read_at(&mut flag, entry.raw_file_position() + bytes + IS_EXTENDED)?;
        is_extended = read == 1 && flag[0] == 1;
        bytes += TAR_BLOCK;
    }
    Ok(bytes)
}

/// The name of a sparse member in the newer of GNU's formats, whose header has another.
fn sparse_name<R: io::Read>(entry: &mut tar::Entry<'_, R>) -> Option<Vec<u8>> {
    let (mut is_sparse, mut name) = (false, None);
    // What cannot be read there says nothing about being sparse: values may be any bytes.
    for extension in entry.pax_extensions().ok().flatten()?.flatten() {
        is_sparse |= extension.key_bytes().starts_with(b"GNU.sparse.");
        if extension.key_bytes() == b"GNU.sparse.name" {
            name = Some(extension.value_bytes().to_owned());
        }
    }
    is_sparse.then(|| name.unwrap_or_else(|| entry.path_bytes().into_owned()))
}

/// An archive ends with a block of zeros; one that does not was cut between two members.
fn check_end(section: &Section, end: u64) -> io::Result<Option<String>> {
    if section.length < end.saturating_add(TAR_BLOCK) {
        return Ok(Some("the archive has no end mark: it was cut".to_owned()));
    }
    let mut block = [0; TAR_BLOCK as usize];
    read_exact_at(&section.file, &mut block, section.start + end)?;
    Ok(block.iter().any(|&byte| byte != 0).then(|| "what follows is no member".to_owned()))
}

/// What a header stands for.
enum Listed<'h> {
    Member(Member<'h>),
    /// A hard link named like a record: its key, and the name of its target.
    Link(&'h [u8], &'h [u8]),
}

/// What the member of this header is, if it is anything to name.
fn member<'h>(header: &Header<'h>) -> Option<Listed<'h>> {
    use tar::EntryType::{Continuous, Directory, Link, Regular, Symlink, XGlobalHeader};
    let name = header.name;
    let key = without_dot(name);
    let is_record = name.ends_with(b".json");
    let record = |extent| Some(Listed::Member(Member::Record(key, extent)));
    let refused = |refusal| record(Extent::Refused(refusal));
    let not_read = |kind| Some(Listed::Member(Member::NotRead(key, kind)));
    match header.entry_type {
        _ if is_record && name.starts_with(b"/") => refused(Refusal::Absolute),
        _ if is_record && has_part(name, |part| part == b"..") => refused(Refusal::Climbing),
        XGlobalHeader => None,
        // The oldest format knows a directory by its name alone.
        _ if name.ends_with(b"/") => None,
        Directory if !is_record => None,
        _ if has_part(name, is_hidden) => not_read(HIDDEN),
        _ if header.is_sparse => {
            if is_record {
                refused(Refusal::Sparse)
            } else {
                not_read(OTHER_ENDING)
            }
        }
        Regular | Continuous => {
            if is_record {
                record(header.extent)
            } else {
                not_read(OTHER_ENDING)
            }
        }
        Link if is_record => Some(Listed::Link(key, header.link)),
        Symlink if is_record => refused(Refusal::Link),
        Link | Symlink => not_read("link"),
        _ if is_record => refused(Refusal::Special),
        _ => not_read("special file"),
    }
}

fn has_part(name: &[u8], is_it: impl Fn(&[u8]) -> bool) -> bool {
    name.split(|&byte| byte == b'/').any(is_it)
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
    use std::sync::Arc;

    use super::*;

    /// `bytes` in the middle of a file.
    fn section_of(bytes: &[u8]) -> Section {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b"before\n", bytes, b"\nafter"].concat()).unwrap();
        Section { file: Arc::new(file), start: 7, length: bytes.len() as u64 }
    }

    fn lines(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        index_lines(&section_of(bytes), Path::new("x.jsonl"), |number, extent| {
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
    fn lines_are_found_wherever_blocks_end() {
        for length in [0, 1, 4095, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1] {
            let count = 3 * BLOCK_BYTES / (length + 1).max(1000) + 3;
            let line = [b"x".repeat(length), b"\n".to_vec()].concat();
            let found = lines(&line.repeat(count));
            let expected = if length == 0 { 0 } else { count };
            assert_eq!(found.len(), expected, "lines of {length} bytes");
            assert!(found.iter().all(|(_, found)| *found == line[..length]), "lines of {length} bytes");
        }
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
        index_tar(&section_of(bytes), Path::new("x.tar"), |member| {
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
            (b"old/", Regular, b""),
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
                ("v.json", "Special"),
                ("f.json", "Special"),
                ("d/.git/e.json", "not read: hidden"),
                ("__MACOSX/._a.json", "not read: hidden"),
                (".s", "not read: hidden"),
                ("/.abs.json", "Absolute"),
                ("../.up.json", "Climbing"),
                ("s", "not read: link"),
                ("d/./g..json", "{}"),
                ("h.json", "HardLink"),
            ]
        );
    }

    /// The header of a link from `name` to `target`.
    fn link(name: &[u8], target: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::from_byte_slice(&header(name, tar::EntryType::Link, 0)).clone();
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    #[test]
    fn a_hard_link_has_the_bytes_of_the_earlier_member_that_it_names() {
        use tar::EntryType::{Regular, Symlink};
        let end = vec![0; 1024];
        let part = |members: &[(&[u8], tar::EntryType, &[u8])]| {
            let mut bytes = archive(members);
            bytes.truncate(bytes.len() - end.len());
            bytes
        };
        let bytes = [
            link(b"early.json", b"a.json"),
            part(&[(b"./a.json", Regular, b"{1}"), (b"blob", Regular, b"{2}"), (b"s", Symlink, b"")]),
            link(b"to_record.json", b"a.json"),
            link(b"./to_blob.json", b"./blob"),
            link(b"to_link.json", b"s"),
            link(b"to_hard_link.json", b"to_record.json"),
            link(b"to_nothing.json", b"nothing"),
            link(b"not_a_record", b"blob"),
            part(&[(b"blob", Regular, b"{3}")]),
            link(b"to_newer.json", b"blob"),
            link(b".hidden.json", b"blob"),
            end,
        ];
        let found = members(&bytes.concat()).unwrap();
        let found: Vec<(&str, &str)> =
            found.iter().map(|(key, content)| (key.as_str(), content.as_deref().unwrap())).collect();
        let expected = [
            ("a.json", "{1}"),
            ("blob", "not read: other ending"),
            ("s", "not read: link"),
            ("not_a_record", "not read: link"),
            ("blob", "not read: other ending"),
            (".hidden.json", "not read: hidden"),
            ("early.json", "HardLink"),
            ("to_record.json", "{1}"),
            ("to_blob.json", "{2}"),
            ("to_link.json", "HardLink"),
            ("to_hard_link.json", "HardLink"),
            ("to_nothing.json", "HardLink"),
            ("to_newer.json", "{3}"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_extended_header_may_hold_any_bytes() {
        use tar::EntryType::{Regular, XHeader};
        let value = b"SCHILY.xattr.user.x=\n\xff\0=\n\n";
        let length = value.len() + 4;
        let extended = [format!("{length} ").as_bytes(), value, b"\n"].concat();
        assert_eq!(extended.len(), length);
        let bytes = archive(&[(b"PaxHeaders/a.json", XHeader, &extended), (b"a.json", Regular, b"{}")]);
        let found = members(&bytes).unwrap();
        assert_eq!(found, [("a.json".to_owned(), Some("{}".to_owned()))]);
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
