//! Listings: a page holds at most a thousand keys, in the order of their bytes.
//!
//! Many keys are listed as ranges of keys at the same time. Nothing is known of the keys before, so a range that turns
//! out long is cut while it is listed: a page of one key says whether anything lies behind a guess.

use ctxtune_engine::storage::Object;
use http::Method;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::failure::Refusal;
use crate::s3::Wire;

/// How many ranges are listed at a time.
pub const RANGES: usize = 32;

/// How many keys a page has at most.
pub const MOST: usize = 1000;

/// Keys behind `after` and up to `end`, where there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range {
    pub after: String,
    pub end: Option<String>,
}

/// A page of a listing: its objects, and the rest of the range.
pub struct Page {
    /// With their whole keys.
    pub objects: Vec<Object>,
    pub rest: Option<Range>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    contents: Vec<Entry>,
    #[serde(default)]
    is_truncated: bool,
    encoding_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    size: u64,
    #[serde(rename = "ETag", default)]
    e_tag: String,
}

/// A page of at most `most` keys that begin with `prefix`.
pub async fn page(wire: &Wire, prefix: &str, range: &Range, most: usize) -> Result<Page, Refusal> {
    let most = most.to_string();
    // XML cannot hold every key: they come encoded.
    let mut query = vec![("encoding-type", "url"), ("list-type", "2"), ("max-keys", &most)];
    query.extend((!prefix.is_empty()).then_some(("prefix", prefix)));
    query.extend((!range.after.is_empty()).then_some(("start-after", range.after.as_str())));
    let answer = wire.ask(Method::GET, "", &query, &[]).await?;
    read(&answer, range).map_err(unreadable)
}

fn unreadable(said: String) -> Refusal {
    Refusal { status: Some(0), said: format!("the answer is no listing: {said}"), region: None }
}

/// An answer in XML.
fn xml<T: for<'a> Deserialize<'a>>(answer: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(answer).map_err(|error| error.to_string())?;
    quick_xml::de::from_str(text).map_err(|error| error.to_string())
}

/// A key as a listing has it.
fn decoded(key: String, encoding: Option<&str>) -> Result<String, String> {
    if encoding != Some("url") {
        return Ok(key);
    }
    let spaced = key.replace('+', " ");
    Ok(percent_decode_str(&spaced).decode_utf8().map_err(|_| format!("`{key}` is no UTF-8"))?.into_owned())
}

fn read(answer: &[u8], range: &Range) -> Result<Page, String> {
    let answer: Answer = xml(answer)?;
    let encoding = answer.encoding_type.as_deref();
    let mut objects = Vec::with_capacity(answer.contents.len());
    let mut last = None;
    for entry in answer.contents {
        let key = decoded(entry.key, encoding)?;
        if range.end.as_ref().is_some_and(|end| key > *end) {
            return Ok(Page { objects, rest: None });
        }
        last = Some(key.clone());
        // What consoles make to show a folder.
        if entry.size > 0 || !key.ends_with('/') {
            objects.push(Object { name: key, bytes: entry.size, tag: entry.e_tag });
        }
    }
    let rest = match (answer.is_truncated, last) {
        (false, _) => None,
        (true, Some(after)) if after > range.after => Some(Range { after, end: range.end.clone() }),
        // It would be asked for the same page for ever.
        (true, _) => return Err("it is not in the order of its keys".to_owned()),
    };
    Ok(Page { objects, rest })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(default)]
    upload: Vec<OpenUpload>,
    encoding_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OpenUpload {
    key: String,
    upload_id: String,
}

/// The keys and ids of a listing of open uploads.
pub fn uploads(answer: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    let answer: Uploads = xml(answer).map_err(unreadable)?;
    let encoding = answer.encoding_type.as_deref();
    let uploads = answer.upload.into_iter();
    uploads.map(|upload| Ok((decoded(upload.key, encoding).map_err(unreadable)?, upload.upload_id))).collect()
}

/// A page of a range, and what is left of it: in two ranges where `is_cut` asks for that and the keys allow it.
pub async fn step(
    wire: &Wire,
    prefix: &str,
    range: &Range,
    is_cut: bool,
) -> Result<(Vec<Object>, Vec<Range>), Refusal> {
    let page = page(wire, prefix, range, MOST).await?;
    let Some(mut rest) = page.rest else { return Ok((page.objects, Vec::new())) };
    let mut ranges = Vec::new();
    if is_cut && let Some(place) = cut(wire, prefix, &rest).await? {
        ranges.push(Range { after: place.clone(), end: rest.end.replace(place) });
    }
    ranges.push(rest);
    Ok((page.objects, ranges))
}

/// A place to cut what is left of a range, with keys behind it; `None` where none is found. The keys differ from the
/// last one listed at some place behind the prefix: the earliest where anything follows is taken, and there a
/// character in the middle of those that can follow.
async fn cut(wire: &Wire, prefix: &str, range: &Range) -> Result<Option<String>, Refusal> {
    let mut known = prefix.to_owned();
    for character in range.after.strip_prefix(prefix).unwrap_or_default().chars().take(MOST_PLACES) {
        let guess = |code: u32| Some(format!("{known}{}", char::from_u32(code)?));
        let lowest = character as u32 + 1;
        if lowest < TOP && is_followed(wire, prefix, range, guess(lowest)).await? {
            let mut high = TOP;
            while high - lowest > 1 {
                let middle = lowest + (high - lowest) / 2;
                if is_followed(wire, prefix, range, guess(middle)).await? {
                    return Ok(guess(middle));
                }
                high = middle;
            }
            return Ok(guess(lowest));
        }
        known.push(character);
    }
    Ok(None)
}

/// Whether the range has a key behind `place`.
async fn is_followed(
    wire: &Wire,
    prefix: &str,
    range: &Range,
    place: Option<String>,
) -> Result<bool, Refusal> {
    let Some(after) = place.filter(|place| range.end.as_ref().is_none_or(|end| place < end)) else {
        return Ok(false);
    };
    let page = page(wire, prefix, &Range { after, end: range.end.clone() }, 1).await?;
    Ok(!page.objects.is_empty())
}

/// One more than the last character that is guessed: letters, digits and punctuation.
const TOP: u32 = 0x7f;
/// How many characters behind the prefix are tried.
const MOST_PLACES: usize = 64;
