//! The stable names of everything a check can find.
//!
//! One table says for each code at which stage it is found and whether it makes a file
//! unfit. Nothing here looks at data. New codes may be added; none changes its meaning.

use std::fmt;

/// Where in the check something is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// What the client's own check looks at before an upload.
    Structure,
    /// What the server looks at after it.
    Conversation,
    /// The length of samples.
    Length,
    /// What a prepared directory says of itself.
    Prepared,
}

impl Stage {
    /// The stage as it stands in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Structure => "structure",
            Stage::Conversation => "conversation",
            Stage::Length => "length",
            Stage::Prepared => "prepared",
        }
    }
}

/// Whether a finding makes the data unfit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The data is not fit.
    Error,
    /// Worth a look.
    Warning,
}

impl Level {
    /// The level as it stands in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
        }
    }
}

/// The stable name of a kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The file's name does not end in `.jsonl`.
    Extension,
    /// The file is larger than any upload may be.
    FileTooLarge,
    /// The file has no bytes.
    EmptyFile,
    /// The file has only blank lines.
    NoSamples,
    /// A line is not UTF-8.
    Encoding,
    /// A line is not one JSON document.
    JsonSyntax,
    /// A line is JSON, but no object.
    NotObject,
    /// An integer has more than 4,300 digits.
    NumberRange,
    /// A line is nested deeper than 10,000 levels.
    TooDeep,
    /// `NaN` or `Infinity`, which JSON does not know.
    NonFinite,
    /// A `\ud800`–`\udfff` escape without its other half.
    LoneSurrogate,
    /// A line is longer than 1 GiB.
    LineTooLong,
    /// The columns are those of no format.
    NoFormat,
    /// The columns are those of two formats at once.
    SeveralFormats,
    /// A column that the sample's format does not have.
    ExtraColumn,
    /// The sample's format is not that of the file's first sample.
    MixedFormats,
    /// `messages` is not a list of at least one object.
    Messages,
    /// A role is missing, no string, or unknown.
    Role,
    /// Two messages of one role in a row.
    Alternation,
    /// No message is the assistant's.
    NoAssistant,
    /// A content is missing or neither text nor a list of parts.
    Content,
    /// Texts and lists of parts in one sample.
    MixedContent,
    /// An image that is not a JPEG, PNG or WEBP of at most 10 MiB in a user's message.
    Image,
    /// More than ten images in one sample.
    ImageCount,
    /// A message's weight is not 0 or 1, a sample's weight is not a number from 0 upward.
    Weight,
    /// `tool_calls` where they cannot be, or not a list of functions.
    ToolCalls,
    /// `tools` is not a list of objects.
    Tools,
    /// A reasoning that is not the assistant's, or no text.
    Reasoning,
    /// A preference pair that is not a question and two answers.
    Preference,
    /// A system message that is not the first one, or a conversation that the assistant begins.
    RoleOrder,
    /// An assistant message or a completion without text.
    EmptyAssistant,
    /// A text holds something like `<|eot_id|>`, which a tokenizer may read as its own.
    SpecialToken,
    /// A key stands twice in one object, and whoever reads it keeps one of the two.
    DuplicateKey,
    /// The sample is the same as an earlier one.
    Duplicate,
    /// The file is too large for one request and is uploaded in parts.
    MultipartUpload,
    /// By the lowest estimate the sample has more tokens than allowed.
    OverMaxTokens,
    /// By the highest estimate the sample has more tokens than allowed.
    NearMaxTokens,
    /// A file that the manifest names is not there.
    MissingFile,
    /// A file is not the one that the manifest describes.
    ChangedFile,
    /// A shard has another number of samples than the manifest says.
    RecordCount,
    /// The manifest contradicts itself.
    ManifestSum,
}

use Level::{Error, Warning};
use Stage::{Conversation, Length, Prepared, Structure};

/// Each code's name, stage and level, in the order of the variants.
const TABLE: [(Code, &str, Stage, Level); 41] = [
    (Code::Extension, "extension", Structure, Error),
    (Code::FileTooLarge, "file_too_large", Structure, Error),
    (Code::EmptyFile, "empty_file", Structure, Error),
    (Code::NoSamples, "no_samples", Structure, Error),
    (Code::Encoding, "encoding", Structure, Error),
    (Code::JsonSyntax, "json_syntax", Structure, Error),
    (Code::NotObject, "not_object", Structure, Error),
    (Code::NumberRange, "number_range", Structure, Error),
    (Code::TooDeep, "too_deep", Structure, Error),
    (Code::NonFinite, "non_finite", Structure, Error),
    (Code::LoneSurrogate, "lone_surrogate", Structure, Error),
    (Code::LineTooLong, "line_too_long", Structure, Error),
    (Code::NoFormat, "no_format", Conversation, Error),
    (Code::SeveralFormats, "several_formats", Conversation, Error),
    (Code::ExtraColumn, "extra_column", Conversation, Error),
    (Code::MixedFormats, "mixed_formats", Conversation, Error),
    (Code::Messages, "messages", Conversation, Error),
    (Code::Role, "role", Conversation, Error),
    (Code::Alternation, "alternation", Conversation, Error),
    (Code::NoAssistant, "no_assistant", Conversation, Error),
    (Code::Content, "content", Conversation, Error),
    (Code::MixedContent, "mixed_content", Conversation, Error),
    (Code::Image, "image", Conversation, Error),
    (Code::ImageCount, "image_count", Conversation, Error),
    (Code::Weight, "weight", Conversation, Error),
    (Code::ToolCalls, "tool_calls", Conversation, Error),
    (Code::Tools, "tools", Conversation, Error),
    (Code::Reasoning, "reasoning", Conversation, Error),
    (Code::Preference, "preference", Conversation, Error),
    (Code::RoleOrder, "role_order", Conversation, Warning),
    (Code::EmptyAssistant, "empty_assistant", Conversation, Warning),
    (Code::SpecialToken, "special_token", Conversation, Warning),
    (Code::DuplicateKey, "duplicate_key", Conversation, Warning),
    (Code::Duplicate, "duplicate", Conversation, Warning),
    (Code::MultipartUpload, "multipart_upload", Structure, Warning),
    (Code::OverMaxTokens, "over_max_tokens", Length, Error),
    (Code::NearMaxTokens, "near_max_tokens", Length, Warning),
    (Code::MissingFile, "missing_file", Prepared, Error),
    (Code::ChangedFile, "changed_file", Prepared, Error),
    (Code::RecordCount, "record_count", Prepared, Error),
    (Code::ManifestSum, "manifest_sum", Prepared, Error),
];

impl Code {
    /// How many codes there are.
    pub const COUNT: usize = TABLE.len();

    /// Every code, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Code> {
        TABLE.iter().map(|(code, ..)| *code)
    }

    /// The code as it stands in reports.
    pub fn as_str(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// Where it is found.
    pub fn stage(self) -> Stage {
        TABLE[self as usize].2
    }

    /// Whether it makes the data unfit.
    pub fn level(self) -> Level {
        TABLE[self as usize].3
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_row_and_its_own_name() {
        let mut names = std::collections::BTreeSet::new();
        for (index, code) in Code::all().enumerate() {
            assert_eq!(code as usize, index, "{code}");
            assert!(names.insert(code.as_str()), "{code} twice");
        }
    }
}
