//! One thread's work on one record: read, parse, judge, write its line into the batch.
//!
//! Decides between the three fates of a record (accepted, skipped, rejected) and tells
//! them from the one fate of a run: a file that cannot be read ends it. It writes no file.

use memchr::{memchr, memchr3_iter};

use crate::error::Error;
use crate::json::Charset;
use crate::line::convert::LineWriter;
use crate::prepare::batch::{Fingerprints, RecordBatch, Verdict};
use crate::prepare::chat::ChatConverter;
use crate::prepare::options::Options;
use crate::prepare::tally::{ContentDigest, Marks, content_digest};
use crate::record::parser::{ParseFailure, Parser};
use crate::record::story::StoryForm;
use crate::record::warning::{Warning, WarningSet};
use crate::record::{Record, TextField};
use crate::source::read::{Bytes, Effort, named};
use crate::special_token;
use crate::split::group::{GroupBy, write_agents_key, write_group_key};
use crate::split::leakage::mark;
use crate::split::{Rank, rank};

/// Turns parsed records into lines and verdicts.
struct Judge<'r> {
    options: &'r Options,
    lines: &'r LineWriter<'r>,
    fingerprints: Fingerprints,
    key: Vec<u8>,
}

/// One thread's tools.
pub struct Converter<'r> {
    judge: Judge<'r>,
    parser: Parser,
    /// In their place where the records are chat lines.
    chat: Option<ChatConverter<'r>>,
}

impl<'r> Converter<'r> {
    /// Converts as `options` say, writing with `lines`.
    pub fn new(options: &'r Options, lines: &'r LineWriter<'r>, fingerprints: Fingerprints) -> Self {
        Converter {
            judge: Judge { options, lines, fingerprints, key: Vec::new() },
            parser: Parser::new(options.readers),
            chat: options.chat.then(|| ChatConverter::new(options, fingerprints)),
        }
    }

    /// The fate of `record`, whose line goes to `batch`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn convert(&mut self, record: &mut impl Bytes, batch: &mut RecordBatch) -> Result<Verdict, Error> {
        if let Some(chat) = &mut self.chat {
            return chat.convert(record, batch);
        }
        let verdict = match record.read(Effort::OneRead)? {
            Err(reason) => Verdict::Rejected(reason),
            Ok(length) => {
                batch.bytes_read += length as u64;
                let Converter { judge, parser, .. } = self;
                let (buffer, field) = (record.buffer(), judge.group_field());
                let content = judge.content(&buffer[..length]);
                let look = |record: &Record<'_>| judge.verdict(record, content, batch);
                match parser.with_record(buffer, length, field, look) {
                    Ok(verdict) => verdict,
                    Err(ParseFailure::Record(reason)) => Verdict::Rejected(reason),
                    Err(ParseFailure::Json(_)) => self.convert_again(record, batch)?,
                }
            }
        };
        match verdict {
            Verdict::Rejected(reason) => Ok(Verdict::Rejected(named(record, reason)?)),
            verdict => Ok(verdict),
        }
    }

    /// The second, patient look at a record that is not JSON: parsing has changed its bytes, and a
    /// read may have been cut short.
    fn convert_again(&mut self, record: &mut impl Bytes, batch: &mut RecordBatch) -> Result<Verdict, Error> {
        let length = match record.read(Effort::ToTheEnd)? {
            Ok(length) => length,
            Err(reason) => return Ok(Verdict::Rejected(reason)),
        };
        let Converter { judge, parser, .. } = self;
        let (buffer, field) = (record.buffer(), judge.group_field());
        // Of the bytes as they are: the parser overwrites some.
        let content = judge.content(&buffer[..length]);
        let look = |record: &Record<'_>| judge.verdict(record, content, batch);
        let verdict = parser.with_record_again(buffer, length, field, look);
        Ok(verdict.unwrap_or_else(Verdict::Rejected))
    }
}

impl<'r> Judge<'r> {
    fn group_field(&self) -> Option<&'r str> {
        self.options.group_by.as_ref().and_then(GroupBy::field)
    }

    /// Stands for the bytes of a record, where they have to be known again.
    fn content(&self, bytes: &[u8]) -> ContentDigest {
        match (&self.options.group_by, self.fingerprints) {
            (Some(_), Fingerprints::Grouped) => content_digest(bytes),
            _ => ContentDigest::default(),
        }
    }

    /// The fate of `record`, whose line goes to `batch`.
    fn verdict(&mut self, record: &Record<'_>, content: ContentDigest, batch: &mut RecordBatch) -> Verdict {
        if self.options.only_correct && record.is_correct == Some(false) {
            return Verdict::Skipped;
        }
        let start = batch.lines.len();
        self.lines.write_line(record, &mut batch.lines);
        let line = &batch.lines[start..];
        batch.lengths.push(line.len() as u64);
        let suspicions = Suspicions::of(line, self.options.template.context.charset());
        let mut marks = marks(record, &suspicions, &mut self.key);
        marks.content = content;
        if let Some(by) = &self.options.group_by {
            write_group_key(by, record, &mut self.key);
            marks.group = rank(self.options.seed, &self.key);
        }
        Verdict::Accepted(marks)
    }
}

/// The marks of `record`, whose line is `line`; `key` is room for its agents.
fn marks(record: &Record<'_>, line: &Suspicions, key: &mut Vec<u8>) -> Marks {
    write_agents_key(&record.context.agents_names, key);
    Marks {
        story: mark(record.story.as_bytes()),
        agents: mark(key),
        content: 0,
        group: Rank::default(),
        is_correct: record.is_correct,
        warnings: warnings(record, line),
    }
}

/// What is odd in `record`, which is only looked through for what its line is suspected of.
fn warnings(record: &Record<'_>, line: &Suspicions) -> WarningSet {
    let context = &record.context;
    let prompts = TextField::ALL.map(|field| field.of(record));
    let any_of_context = |is_odd: fn(&str) -> bool| context.texts().any(|text| is_odd(&text));
    let any = |is_odd: fn(&str) -> bool| prompts.into_iter().any(is_odd) || any_of_context(is_odd);
    WarningSet::of(|warning| match warning {
        Warning::AgentMissingFromStep => context.misses_an_agent(),
        Warning::AgentNotInNames => context.names_a_stranger(),
        Warning::MixedTags => line.has_bracket_tag && mixes_tags(record),
        Warning::SpecialTokens => line.has_token && any(|text| special_token::find(text).is_some()),
        Warning::BracketedProse => record.story_form == StoryForm::BracketedProse,
        // A literal has escapes of its own.
        Warning::NulCharacters => {
            let has_nul = |text: &str| memchr(0, text.as_bytes()).is_some();
            has_nul(record.story) || (record.may_hold_nul && any(has_nul))
        }
        Warning::RoleOrder | Warning::EmptyAssistant | Warning::RepeatedKeys | Warning::OtherColumns => false,
        // A template need not ask for all of them.
        Warning::ReplacementCharacters => {
            prompts.into_iter().any(has_replacement)
                || (line.has_replacement && any_of_context(has_replacement))
        }
    })
}

/// What a line may hold.
struct Suspicions {
    /// `<|`.
    has_token: bool,
    /// `[SAME AS`.
    has_bracket_tag: bool,
    /// U+FFFD, as it is or escaped.
    has_replacement: bool,
}

impl Suspicions {
    /// One pass for the rarest byte of each.
    fn of(line: &[u8], charset: Charset) -> Self {
        let has_replacement = charset == Charset::Ascii;
        let mut found = Suspicions { has_token: false, has_bracket_tag: false, has_replacement };
        for place in memchr3_iter(b'|', b'[', 0xef, line) {
            found.has_token |= line[..=place].ends_with(b"<|");
            found.has_bracket_tag |= line[place..].starts_with(b"[SAME AS");
            found.has_replacement |= line[place..].starts_with("\u{fffd}".as_bytes());
        }
        found
    }
}

/// Whether `text` holds U+FFFD, whose first byte is rare: nearly always one quick search finds none.
fn has_replacement(text: &str) -> bool {
    memchr(0xef, text.as_bytes()).is_some() && text.contains(char::REPLACEMENT_CHARACTER)
}

fn mixes_tags(record: &Record<'_>) -> bool {
    let has = |tag: &str| record.context.texts().any(|text| text.contains(tag));
    has("[SAME AS") && has("<same_as")
}
