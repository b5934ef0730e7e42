//! Chooses the lines that are mixed in, from what the parts of their files became: as `prepare` does, by rank until
//! there are enough.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::output::manifest::Mixed;
use crate::parts::merge::Stream;
use crate::parts::part::{Part, Section};
use crate::parts::rows::{FixedStream, MARK_BYTES, Place, RejectStream, RowStream, read_mark, write_key};
use crate::parts::settings::{MixSetting, unescape};
use crate::parts::work::{DigestObject, Work};
use crate::prepare::{Amount, MIX_PREFIX, Options, mix_counts};
use crate::source::names::NameLog;
use crate::split::leakage::Mark;
use crate::split::{Rank, Ranks};

/// Blocks of the few streams that are read here.
const BLOCK_BYTES: usize = 64 << 10;

/// The lines that are mixed in.
#[derive(Debug, Default)]
pub struct Chosen {
    /// By rank.
    pub lines: Vec<ChosenLine>,
    /// What was chosen of each file.
    pub mixed: Vec<Mixed>,
    /// Those that were rejected before there were enough, as lines.
    pub rejects: Vec<Vec<u8>>,
    /// What stands for the texts of users, ascending.
    pub texts: Vec<Mark>,
    /// The highest rank that was chosen of each file.
    pub last: Vec<Option<Rank>>,
}

/// A line that is mixed in.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChosenLine {
    rank: Rank,
    key: Vec<u8>,
    /// Its place in `train.jsonl` is none of the choice.
    part: u64,
    start: u64,
    length: u64,
}

/// A line that is mixed in, as the shards are told of it.
#[derive(Debug, PartialEq, Eq)]
pub struct PlacedLine {
    /// Its place among all training lines.
    pub place: u64,
    /// The part that it lies in.
    pub part: u64,
    /// Where it begins among the lines of that part.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
    /// Its key.
    pub key: Vec<u8>,
}

impl Chosen {
    /// Writes the lines, which go to `places`.
    ///
    /// # Errors
    /// The store's.
    pub fn write(&self, places: &[u64], out: &mut DigestObject<'_>) -> Result<(), Error> {
        let mut row = Vec::new();
        for (line, place) in self.lines.iter().zip(places) {
            row.clear();
            for number in [*place, line.part, line.start, line.length] {
                row.extend_from_slice(&number.to_be_bytes());
            }
            write_key(&line.key, &mut row);
            out.add(&row)?;
        }
        Ok(())
    }
}

/// Reads the lines that [`Chosen::write`] wrote.
pub fn read_placed(mut rows: &[u8]) -> Vec<PlacedLine> {
    let mut lines = Vec::new();
    while rows.len() >= 34 {
        let number = |at: usize| u64::from_be_bytes(rows[at..at + 8].try_into().expect("eight bytes"));
        let [place, part, start, length] = [0, 8, 16, 24].map(number);
        let (key, rest) = rows[34..].split_at(usize::from(u16::from_be_bytes([rows[32], rows[33]])));
        lines.push(PlacedLine { place, part, start, length, key: key.to_vec() });
        rows = rest;
    }
    lines
}

/// A file that is mixed in, of which `listed` lines have keys with the digest `keys_sha256`.
struct Choosing<'c> {
    work: &'c Work,
    setting: &'c MixSetting,
    amount: Amount,
    number: u64,
    part: &'c Part,
    listed: u64,
    keys_sha256: &'c str,
    options: &'c Options,
}

/// Chooses what is mixed into `records` training records. `listed` says of each file how many lines it has, and the
/// digest of their keys.
///
/// # Errors
/// Where `prepare` fails for what it finds in those files; the store's.
pub fn choose(
    work: &Work,
    settings: &[MixSetting],
    parts: &[Part],
    listed: &[(u64, String)],
    records: u64,
    options: &Options,
) -> Result<Chosen, Error> {
    let mut chosen = Chosen::default();
    let amounts: Vec<Amount> = settings.iter().filter_map(MixSetting::amount).collect();
    let counts = mix_counts(&amounts, records).ok_or_else(|| Error::Mix {
        path: settings[0].path(),
        reason: "the shares leave almost no room for records".to_owned(),
    })?;
    let mixed = (0..).zip(parts).filter(|(_, part)| part.mix > 0);
    let files = settings.iter().zip(amounts).zip(listed).zip(mixed);
    for ((((setting, amount), (listed, keys_sha256)), (number, part)), count) in files.zip(counts) {
        let (listed, keys_sha256) = (*listed, keys_sha256.as_str());
        Choosing { work, setting, amount, number, part, listed, keys_sha256, options }
            .choose(count, &mut chosen)?;
    }
    chosen.lines.sort_unstable();
    chosen.texts.sort_unstable();
    Ok(chosen)
}

/// The file as it stands in the keys of its lines.
fn file(setting: &MixSetting) -> String {
    let prefix = unescape(&setting.prefix).unwrap_or_default();
    let name = prefix.strip_prefix(MIX_PREFIX).unwrap_or(&prefix);
    String::from_utf8_lossy(name.strip_suffix(b"/").unwrap_or(name)).into_owned()
}

impl Choosing<'_> {
    fn choose(&self, count: u64, chosen: &mut Chosen) -> Result<(), Error> {
        let failed = |reason: String| Error::Mix { path: self.setting.path(), reason };
        let (listed, limit) = (self.listed, self.options.max_rejects);
        let section = |section| self.part.section(self.work, section, BLOCK_BYTES);
        let mut rows =
            RowStream::new(section(Section::Rows), false, false, Place::default(), self.part.end())?;
        let mut rejects = RejectStream::new(section(Section::Rejects))?;
        let mut keys = section(Section::Keys);
        let (mut visited, mut found, mut rejected) = (0, 0, 0);
        let mut last = None;
        while found < count {
            // As many as are missing, as `prepare` does: what it says of too many rejects depends on that.
            let end = listed.min(visited + (count - found));
            if visited == end {
                return Err(failed(format!(
                    "{found} of its {listed} lines are usable, and {count} are asked for"
                )));
            }
            for _ in visited..end {
                if rows.is_over() || !rejects.is_over() && rejects.rank() < &rows.row().rank {
                    chosen.rejects.push(rejects.line().to_vec());
                    rejected += 1;
                    rejects.advance()?;
                    continue;
                }
                let (row, place) = (*rows.row(), rows.place());
                chosen.lines.push(ChosenLine {
                    rank: row.rank,
                    key: keys.get(place.keys, row.key.into(), false)?.to_vec(),
                    part: self.number,
                    start: place.lines,
                    length: row.line,
                });
                last = Some(row.rank);
                found += 1;
                rows.advance()?;
            }
            visited = end;
            if limit.is_exceeded(rejected, listed) {
                let first = chosen.rejects.first().map(|line| first_reject(line)).unwrap_or_default();
                return Err(failed(format!(
                    "{rejected} of its {listed} lines are rejected, and the limit is {limit}: {first}"
                )));
            }
        }
        self.add_texts(last, chosen)?;
        chosen.last.push(last);
        chosen.mixed.push(Mixed {
            file: file(self.setting),
            asked: self.amount.to_string(),
            listed,
            rejected,
            records: found,
            warnings: self.warnings(last)?,
            keys_sha256: self.keys_sha256.to_owned(),
        });
        Ok(())
    }

    fn add_texts(&self, last: Option<Rank>, chosen: &mut Chosen) -> Result<(), Error> {
        let texts = self.part.section(self.work, Section::Stories, BLOCK_BYTES);
        let mut texts = FixedStream::<MARK_BYTES>::new(texts)?;
        while !texts.is_over() {
            let (text, rank, _) = read_mark(texts.row());
            if last.is_some_and(|last| rank <= last) {
                chosen.texts.push(text);
            }
            texts.advance()?;
        }
        Ok(())
    }

    /// How many of the lines up to `last` have something odd, by kind.
    fn warnings(&self, last: Option<Rank>) -> Result<BTreeMap<String, u64>, Error> {
        let mut warnings = BTreeMap::new();
        each_warned(self.work, self.part, &mut |kind, key| {
            if last.is_some_and(|last| Ranks::new(self.options.seed).rank(key) <= last) {
                *warnings.entry(kind.to_owned()).or_default() += 1;
            }
            Ok(())
        })?;
        Ok(warnings)
    }
}

/// Calls `each` with kind and key of every record of `part` with something odd.
///
/// # Errors
/// The store's; those of `each`.
pub fn each_warned(
    work: &Work,
    part: &Part,
    each: &mut dyn FnMut(&'static str, &[u8]) -> std::io::Result<()>,
) -> Result<(), Error> {
    let mut names = part.section(work, Section::Warned, BLOCK_BYTES);
    let mut log = NameLog::default();
    log.push_all(names.get(0, names.length() as usize, false)?).map_err(Error::NameLog)?;
    log.all(|kind, key| each(kind, key)).map_err(Error::NameLog)
}

/// A reject as people read it.
fn first_reject(line: &[u8]) -> String {
    let reject: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    let text = |field: &str| reject[field].as_str().unwrap_or_default().to_owned();
    format!("{}: {}: {}", text("key"), text("code"), text("reason"))
}
