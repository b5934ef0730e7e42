//! Uploads in parts: initiate, the parts, complete, abort.
//!
//! Separate from single uploads because the parts come in any order and in parallel, and the
//! client puts their tags together in the end. What comes out is a [`File`] like any other.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::files::{Announced, File, Multipart, Part, Stored, begin, check_put, denied};
use crate::reply::Reply;
use crate::state::{KEPT_BYTES, Now, Request, State};
use crate::wire::{Body, hex};

/// The most parts of an upload.
const MAX_PARTS: u64 = 250;

/// `POST /v1/files/multipart/initiate`.
///
/// # Errors
/// The reply to a client that says something wrong, or that has uploaded the same before.
pub fn initiate(state: &mut State, body: &Value, now: Now) -> Result<Reply, Reply> {
    let known = ["file_name", "file_size", "num_parts", "purpose", "file_type", "checksum"];
    only(body, &known)?;
    let announced = Announced {
        purpose: text(body, "purpose")?,
        name: text(body, "file_name")?,
        kind: text(body, "file_type")?,
        checksum: Some(text(body, "checksum")?),
    };
    let (bytes, count) = (number(body, "file_size")?, number(body, "num_parts")?);
    if count == 0 || count > MAX_PARTS || count > bytes {
        return Err(Reply::field("num_parts", format!("{count} parts for {bytes} bytes")));
    }
    let file = begin(state, announced, now)?;
    let id = state.next_id("upload-");
    let part = |number: u64| {
        let url = format!("{}/storage/parts/{id}/{number}?signature=rehearsal", state.storage);
        json!({ "PartNumber": number, "URL": url, "Headers": { "x-amz-part": number.to_string() } })
    };
    let parts: Vec<Value> = (1..=count).map(part).collect();
    let reply = json!({ "upload_id": id, "file_id": file.id, "parts": parts });
    state.multiparts.push(Multipart {
        id,
        file_id: file.id.clone(),
        bytes,
        parts: vec![None; usize::try_from(count).unwrap_or_default()],
    });
    state.files.push(file);
    Ok(Reply::json(200, &reply))
}

/// `PUT` of a part to its signed URL.
///
/// # Errors
/// The storage's reply to a client that breaks the protocol.
pub fn store_part(state: &mut State, request: &Request, place: (&str, &str)) -> Result<Reply, Reply> {
    check_put(state, request)?;
    let (id, number) = place;
    if request.head.header("x-amz-part") != Some(number) {
        state.accuse(format!("{}: the headers that go with the part are missing", request.path));
        return Err(denied());
    }
    let upload = state.multiparts.iter_mut().find(|upload| upload.id == id).ok_or_else(denied)?;
    let index = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    let slot = index.and_then(|index| upload.parts.get_mut(index)).ok_or_else(denied)?;
    let etag = request.body.sha256[..32].to_owned();
    let mut body = request.body.clone();
    if upload.bytes > KEPT_BYTES as u64 {
        // Too much to keep: then only sizes and tags are compared in the end.
        body.kept.clear();
    }
    *slot = Some(Part { body, etag: etag.clone() });
    Ok(Reply::bytes(200, "application/xml", Vec::new()).with("ETag", format!("\"{etag}\"")))
}

/// `POST /v1/files/multipart/complete`.
///
/// # Errors
/// When parts are missing or are not the ones that arrived.
pub fn complete(state: &mut State, body: &Value, now: Now) -> Result<Reply, Reply> {
    only(body, &["upload_id", "file_id", "parts"])?;
    let upload = named(state, body)?.clone();
    let parts = upload.parts.iter().flatten().collect::<Vec<&Part>>();
    if parts.len() != upload.parts.len() {
        return Err(Reply::field("parts", "not all parts are uploaded"));
    }
    let listed = body["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_same = |(index, (part, listed)): (usize, (&&Part, &Value))| {
        listed["part_number"].as_u64() == Some(index as u64 + 1)
            && listed["etag"].as_str() == Some(&part.etag)
    };
    if listed.len() != parts.len() || !parts.iter().zip(listed).enumerate().all(is_same) {
        return Err(Reply::field("parts", "the parts are not the uploaded ones in ascending order"));
    }
    let stored = Stored::new(joined(&parts, upload.bytes));
    let checksum = state.file(&upload.file_id).and_then(|file| file.announced.checksum.clone());
    check_whole(state, &upload, (&stored, checksum))?;
    let file = finish(state, &upload, stored, now)?;
    Ok(Reply::json(200, &json!({ "file": file.value(now) })))
}

fn check_whole(
    state: &mut State,
    upload: &Multipart,
    (stored, checksum): (&Stored, Option<String>),
) -> Result<(), Reply> {
    let is_kept = upload.bytes <= KEPT_BYTES as u64;
    let breach = if stored.bytes != upload.bytes {
        format!("the parts have {} bytes, announced were {}", stored.bytes, upload.bytes)
    } else if is_kept && checksum.is_some_and(|checksum| checksum != stored.sha256) {
        format!("the parts have SHA-256 {}, which was not announced", stored.sha256)
    } else {
        return Ok(());
    };
    state.accuse(format!("multipart {}: {breach}", upload.id));
    Err(Reply::field("parts", breach))
}

fn finish<'s>(state: &'s mut State, upload: &Multipart, stored: Stored, now: Now) -> Result<&'s File, Reply> {
    let delay = std::time::Duration::try_from_secs_f64(state.script.verdict_seconds).unwrap_or_default();
    state.multiparts.retain(|known| known.id != upload.id);
    let file = state.files.iter_mut().find(|file| file.id == upload.file_id);
    let file = file.ok_or_else(|| Reply::error(404, format!("file {} not found", upload.file_id)))?;
    file.stored = Some(stored);
    file.verdict_at = Some(now.elapsed + delay);
    Ok(file)
}

/// `POST /v1/files/multipart/abort`.
///
/// # Errors
/// When there is no such upload.
pub fn abort(state: &mut State, body: &Value) -> Result<Reply, Reply> {
    only(body, &["upload_id", "file_id"])?;
    let upload = named(state, body)?.clone();
    state.multiparts.retain(|known| known.id != upload.id);
    state.files.retain(|file| file.id != upload.file_id);
    Ok(Reply::json(200, &json!({ "message": "upload aborted" })))
}

fn named<'s>(state: &'s State, body: &Value) -> Result<&'s Multipart, Reply> {
    let (id, file_id) = (text(body, "upload_id")?, text(body, "file_id")?);
    let is_named = |upload: &&Multipart| upload.id == id && upload.file_id == file_id;
    let none = || Reply::error(404, format!("upload {id} of file {file_id} not found"));
    state.multiparts.iter().find(is_named).ok_or_else(none)
}

/// The parts as one body. What was not kept is not in its digest.
fn joined(parts: &[&Part], announced: u64) -> Body {
    let mut body = Body { is_whole: true, ..Body::default() };
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(&part.body.kept);
        body.bytes += part.body.bytes;
        body.kept.extend_from_slice(&part.body.kept);
    }
    if announced > KEPT_BYTES as u64 {
        // Nothing to judge: stands for a file that is fit.
        body.kept = b"{\"text\":\"not kept\"}\n".to_vec();
    }
    body.sha256 = hex(&hash.finalize());
    body
}

fn only(body: &Value, known: &[&str]) -> Result<(), Reply> {
    let Some(fields) = body.as_object() else { return Err(Reply::error(400, "the body is no JSON object")) };
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Reply::field(name, format!("`{name}` is not known"))),
        None => Ok(()),
    }
}

fn text(body: &Value, name: &str) -> Result<String, Reply> {
    let wrong = || Reply::field(name, format!("`{name}` is missing or no string"));
    body[name].as_str().map(str::to_owned).ok_or_else(wrong)
}

fn number(body: &Value, name: &str) -> Result<u64, Reply> {
    let wrong = || Reply::field(name, format!("`{name}` is missing or no number of things"));
    body[name].as_u64().ok_or_else(wrong)
}
