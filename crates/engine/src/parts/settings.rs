//! What decides the bytes of a result, as a plan keeps it: options in the words in which they are given.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::line::template::Template;
use crate::output::compress::Compress;
use crate::output::manifest::TemplateUsed;
use crate::output::publish::Durability;
use crate::prepare::{Amount, Mode, Options, Purpose, Readers};
use crate::source::input::path_of;
use crate::storage::Stores;

/// The options of a preparation but for sources, places and threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    val_ratio: String,
    seed: u64,
    chat: bool,
    template: TemplateUsed,
    shard_records: Option<NonZeroU64>,
    compress: Option<Compress>,
    limit: Option<NonZeroU64>,
    /// What is mixed in: what stands before the keys of its lines, and how many of them.
    pub mix: Vec<MixSetting>,
    group_by: Option<String>,
    max_rejects: String,
    only_correct: bool,
    max_record_bytes: usize,
    max_spool_bytes: u64,
    /// Whether results wait for the disk.
    pub is_durable: bool,
}

/// A file that is mixed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixSetting {
    /// What stands before the keys of its lines, escaped.
    pub prefix: String,
    /// As in `--mix`.
    amount: String,
    /// The file as it was given.
    path: String,
}

impl MixSetting {
    /// How many lines are mixed in.
    pub fn amount(&self) -> Option<Amount> {
        self.amount.parse().ok()
    }

    /// The file as it was given.
    pub fn path(&self) -> PathBuf {
        unescape_path(&self.path).unwrap_or_default()
    }
}

/// What one command brings along: nothing of it decides a byte.
#[derive(Debug, Clone)]
pub struct Means {
    /// Threads that convert.
    pub threads: NonZeroUsize,
    /// Where temporary files go; `None` for the system's place for them.
    pub scratch: Option<PathBuf>,
    /// How many of the first rejects to give back.
    pub name_rejects: usize,
    /// Which readers records are shown to.
    pub readers: Readers,
    /// What opens buckets.
    pub stores: Arc<dyn Stores>,
}

impl Settings {
    /// Those of `options`; `prefixes` are what stands before the keys of what is mixed in.
    pub fn of(options: &Options, prefixes: &[Vec<u8>]) -> Settings {
        let mix = options.mix.iter().zip(prefixes);
        Settings {
            val_ratio: options.val_ratio.to_string(),
            seed: options.seed,
            chat: options.chat,
            template: TemplateUsed {
                name: options.template.name.clone(),
                text: options.template.text.clone(),
            },
            shard_records: options.shard_records,
            compress: options.compress,
            limit: options.limit,
            mix: mix
                .map(|(mix, prefix)| MixSetting {
                    prefix: escape(prefix),
                    amount: mix.amount.to_string(),
                    path: escape_path(&mix.source.path),
                })
                .collect(),
            group_by: options.group_by.as_ref().map(ToString::to_string),
            max_rejects: options.max_rejects.to_string(),
            only_correct: options.only_correct,
            max_record_bytes: options.max_record_bytes,
            max_spool_bytes: options.max_spool_bytes,
            is_durable: options.durability == Durability::Sync,
        }
    }

    /// The options that these are, for a result in `output_dir`; `None` where one of them is of another version.
    pub fn options(&self, output_dir: &Path, means: &Means) -> Option<Options> {
        Some(Options {
            sources: Vec::new(),
            max_spool_bytes: self.max_spool_bytes,
            output_dir: output_dir.to_owned(),
            val_ratio: self.val_ratio.parse().ok()?,
            seed: self.seed,
            chat: self.chat,
            template: Template::parse(&self.template.text, &self.template.name).ok()?,
            shard_records: self.shard_records,
            compress: self.compress,
            limit: self.limit,
            mix: Vec::new(),
            group_by: self.group_by.as_deref().and_then(|by| by.parse().ok()),
            max_rejects: self.max_rejects.parse().ok()?,
            only_correct: self.only_correct,
            max_record_bytes: self.max_record_bytes,
            threads: means.threads,
            durability: if self.is_durable { Durability::Sync } else { Durability::NoSync },
            readers: means.readers,
            purpose: Purpose { mode: Mode::Publish, show: 0, name_rejects: means.name_rejects },
        })
    }
}

/// Bytes as text: every byte that is no visible character of ASCII, and `%`, as `%` and two hexadecimal digits.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'%' | 0..=b' ' | 0x7f.. => text.push_str(&format!("%{byte:02x}")),
            byte => text.push(char::from(byte)),
        }
    }
    text
}

/// The bytes that [`escape`] made text of.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match first {
            b'%' => {
                let (digits, behind) = rest.split_at_checked(2)?;
                rest = behind;
                u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(bytes)
}

/// A path as text, whatever its bytes.
pub fn escape_path(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

/// The path that [`escape_path`] made text of.
pub fn unescape_path(text: &str) -> Option<PathBuf> {
    path_of(&unescape(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_text_and_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&escape(&all)), Some(all));
        assert_eq!(escape(b"/a b/\xc3\xa9%.json"), "/a%20b/%c3%a9%25.json");
        for wrong in ["%", "%4", "%xx"] {
            assert_eq!(unescape(wrong), None);
        }
    }
}
