//! Fetches inputs that lie in buckets: nothing else is converted from a network.
//!
//! Records go one behind the other into the spool, in the order in which they are read; a container goes into an
//! unlinked file of its own. What is not as it was when it was listed is an error, never other bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::address::place_of;
use crate::error::Error;
use crate::parts::settings::Means;
use crate::prepare::Options;
use crate::source::input::{Input, Root, Seen, What};
use crate::source::section::Section;
use crate::source::spool::Spool;
use crate::source::{Containers, Source, SourceKind};
use crate::split::{Rank, Ranks};
use crate::storage::{Object, Storage, Stores};
use crate::watch::Watch;

/// What was fetched of each of `inputs`; `None` for those that lie on this machine.
pub fn fetch(
    inputs: &[Input],
    roots: &[Root],
    options: &Options,
    means: &Means,
    spool: &mut Spool,
    watch: &dyn Watch,
) -> Result<Vec<Option<Section>>, Error> {
    let (mut fetched, ranks) = (vec![None; inputs.len()], Ranks::new(options.seed));
    let mut records: BTreeMap<String, Vec<(Rank, usize, Object)>> = BTreeMap::new();
    for (number, input) in inputs.iter().enumerate() {
        let Some(seen) = &input.object else { continue };
        let address = input.address(roots);
        let length = match &input.what {
            // Nobody looks at its bytes.
            What::Record if seen.bytes > options.max_record_bytes as u64 => {
                fetched[number] = Some(Section { length: seen.bytes, ..spool.store.section()? });
                continue;
            }
            What::Record => {
                let (place, object) = place(input, roots, &address, seen);
                records.entry(place).or_default().push((ranks.rank(&input.key), number, object));
                continue;
            }
            What::Container(..) => 0..seen.bytes,
            What::Lines(_, range) => range.start..range.end,
        };
        fetched[number] = Some(container(&address, seen, length, means.scratch.as_deref(), &*means.stores)?);
    }
    for (place, mut records) in records {
        records.sort_unstable_by(|one, other| one.0.cmp(&other.0).then(one.1.cmp(&other.1)));
        let (numbers, objects): (Vec<usize>, Vec<Object>) =
            records.into_iter().map(|(_, number, object)| (number, object)).unzip();
        let storage = means.stores.open(&place).map_err(|error| failed(&place, error))?;
        let (mut done, mut failure) = (0, None);
        let read = storage.read_all(&objects, &mut |index, bytes| {
            let section = watch.check_stop().and_then(|()| {
                let mut section = spool.store.section()?;
                spool.store.append(&mut section, bytes)?;
                Ok(section)
            });
            match section {
                Ok(section) => fetched[numbers[index]] = Some(section),
                Err(error) => {
                    failure = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
            }
            done = index + 1;
            Ok(())
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        read.map_err(|error| {
            failed(&storage.shown(objects.get(done).map_or("", |object| &object.name)), error)
        })?;
    }
    Ok(fetched)
}

/// The place that a record lies in, and the object there.
fn place(input: &Input, roots: &[Root], shown: &str, seen: &Seen) -> (String, Object) {
    let root = roots[usize::from(input.root)].path.to_string_lossy();
    let (place, name) = match shown.strip_prefix(&*root) {
        Some(name) if !root.ends_with("://") => (&*root, name.strip_prefix('/').unwrap_or(name)),
        _ => place_of(shown),
    };
    (place.to_owned(), Object { name: name.to_owned(), bytes: seen.bytes, tag: seen.tag.clone() })
}

/// A range of the object at `address`, in an unlinked file.
pub fn container(
    address: &str,
    seen: &Seen,
    range: std::ops::Range<u64>,
    scratch: Option<&Path>,
    stores: &dyn Stores,
) -> Result<Section, Error> {
    let file = match scratch {
        Some(dir) => tempfile::tempfile_in(dir),
        None => tempfile::tempfile(),
    };
    let dir = scratch.unwrap_or(Path::new("a temporary file"));
    let mut file = file.map_err(|source| Error::Write { path: dir.to_owned(), source })?;
    let (storage, name) = open(address, stores)?;
    let object = Object { name: name.to_owned(), bytes: seen.bytes, tag: seen.tag.clone() };
    let length = range.end - range.start;
    storage.read_through(&object, range, &mut file).map_err(|error| failed(address, error))?;
    Ok(Section { file: Arc::new(file), start: 0, length })
}

/// What a listing says of the object at `address`.
pub fn look(address: &str, stores: &dyn Stores) -> Result<(Seen, u64), Error> {
    let (storage, name) = open(address, stores)?;
    let found = storage.find(name).map_err(|error| failed(address, error))?;
    let found = found.ok_or_else(|| failed(address, io::ErrorKind::NotFound.into()))?;
    let requests = storage.requests(&found);
    Ok((Seen { bytes: found.bytes, tag: found.tag }, requests))
}

fn open<'a>(address: &'a str, stores: &dyn Stores) -> Result<(Arc<dyn Storage>, &'a str), Error> {
    let (place, name) = place_of(address);
    Ok((stores.open(place).map_err(|error| failed(address, error))?, name))
}

/// What a store said of the input at `address`.
pub fn failed(address: &str, error: io::Error) -> Error {
    let path = address.into();
    match error.kind() {
        io::ErrorKind::StaleNetworkFileHandle => Error::Changed { path },
        io::ErrorKind::Interrupted => Error::Interrupted,
        _ => Error::Read { path, source: error },
    }
}

/// `sources` with those in buckets whose last component has a `*` replaced by what it matches, in the order of its bytes:
/// what a shell does for names on this machine.
///
/// # Errors
/// When nothing matches, or what does is no source; the store's.
pub fn expand(sources: &[Source], stores: &dyn Stores) -> Result<Vec<Source>, Error> {
    let mut expanded = Vec::with_capacity(sources.len());
    for source in sources {
        let pattern = source.address().map(place_of).filter(|(_, pattern)| pattern.contains('*'));
        let Some((place, pattern)) = pattern else {
            expanded.push(source.clone());
            continue;
        };
        let storage = stores.open(place).map_err(|error| failed(place, error))?;
        let (literal, _) = pattern.split_once('*').unwrap_or_default();
        let mut matching = BTreeSet::new();
        let listed = storage.list(literal, &mut |object| {
            let (name, end) = match object.name.find('/') {
                Some(slash) => (&object.name[..slash], "/"),
                None => (&*object.name, ""),
            };
            if matches(pattern, name) {
                matching.insert(storage.shown(name) + end);
            }
            Ok(())
        });
        listed.map_err(|error| failed(place, error))?;
        let none = |path: &Path, said: &str| Error::NoCorpus {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, said),
        };
        if matching.is_empty() {
            return Err(none(&source.path, "nothing matches"));
        }
        let containers = match source.kind {
            SourceKind::Directory(containers) => containers,
            _ => Containers::Skip,
        };
        for found in matching {
            let path = PathBuf::from(&found);
            match Source::of(&path, containers) {
                Some(Source { kind: SourceKind::Directory(_), .. }) if !found.ends_with('/') => {
                    return Err(none(&path, "it is no record and no container"));
                }
                found => expanded.extend(found),
            }
        }
    }
    Ok(expanded)
}

/// Whether `name` is what `pattern` says, in which `*` stands for any bytes.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(found) = rest.find(part) else { return false };
        rest = &rest[found + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_bytes() {
        let check = |pattern: &str, name: &str, is_matching: bool| {
            assert_eq!(matches(pattern, name), is_matching, "{pattern} {name}");
        };
        check("*.jsonl", "a.jsonl", true);
        check("*.jsonl", ".jsonl", true);
        check("a*b*c", "abc", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "acb", false);
        check("a*a", "a", false);
        check("a*", "b", false);
    }
}
