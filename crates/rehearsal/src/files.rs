//! Files: the upload to the storage, the verdict on them, their list and their content.
//!
//! The storage is another origin, which must never see the key.

use std::time::Duration;

use serde_json::json;

use crate::form;
use crate::reply::{Handled, Reply};
use crate::request::{Now, Request};
use crate::state::State;
use crate::state::files::{Announced, File};
use crate::wire::Framing;

const PURPOSES: [&str; 4] = ["fine-tune", "calibration", "eval", "batch-api"];
const KINDS: [&str; 3] = ["jsonl", "csv", "parquet"];

/// `POST /v1/files`: where to put the bytes.
pub fn announce(state: &mut State, request: &Request, now: Now) -> Handled {
    let content_type = request.head.header("content-type").unwrap_or_default();
    let fields = form::fields(content_type, &request.body.kept).map_err(|error| Reply::error(400, error))?;
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let required = |name: &str| field(name).ok_or_else(|| Reply::missing(name));
    let announced = Announced {
        purpose: required("purpose")?,
        name: required("file_name")?,
        kind: required("file_type")?,
        checksum: field("checksum"),
    };
    let known = ["purpose", "file_name", "file_type", "checksum"];
    if let Some((name, _)) = fields.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(Reply::unknown(name));
    }
    let file = begin(state, announced, now)?;
    let location = format!("{}{}", state.storage, file.upload_path);
    let reply = Reply::redirect(302, location).with("X-Together-File-Id", &file.id);
    state.files.push(file);
    Ok(reply)
}

/// A file that is not yet there, unless one of the same content is.
pub fn begin(state: &mut State, announced: Announced, now: Now) -> Result<File, Reply> {
    if !PURPOSES.contains(&announced.purpose.as_str()) {
        return Err(Reply::field("purpose", format!("purpose `{}` is not known", announced.purpose)));
    }
    if !KINDS.contains(&announced.kind.as_str()) {
        return Err(Reply::field("file_type", format!("file type `{}` is not known", announced.kind)));
    }
    if announced.name.is_empty() || announced.name.contains('/') {
        return Err(Reply::field("file_name", "the file name is no base name"));
    }
    if let Some(checksum) = &announced.checksum {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if checksum.len() != 64 || !checksum.bytes().all(is_hex) {
            return Err(Reply::field("checksum", "the checksum is no SHA-256 in lower-case hexadecimal"));
        }
        let is_same = |file: &&File| {
            file.is_there() && file.stored.as_ref().is_some_and(|(body, _)| body.sha256 == *checksum)
        };
        if let Some(file) = state.files.iter().find(is_same) {
            let message = format!("a file with the same content exists: {}", file.id);
            let error = json!({ "message": message, "type": "conflict", "param": null, "code": null });
            return Err(Reply::json(409, &json!({ "file_id": file.id, "error": error })));
        }
    }
    let id = state.next_id("file-");
    let token = state.next_id("");
    let upload_path = format!("/storage/{token}?signature={}", state.next_id(""));
    Ok(File { id, announced, created: now, upload_path, stored: None, verdict_at: None })
}

pub fn store(state: &mut State, request: &Request) -> Handled {
    check_put(state, request)?;
    let is_meant = |file: &&mut File| file.upload_path == request.head.target && !file.is_there();
    let file = state.files.iter_mut().find(is_meant).ok_or_else(denied)?;
    let (announced, arrived) = (&file.announced.checksum, &request.body.sha256);
    if let Some(checksum) = announced.as_ref().filter(|checksum| *checksum != arrived) {
        let violation =
            format!("{}: the bytes have SHA-256 {arrived}, announced was {checksum}", request.path);
        state.record_violation(violation);
        return Err(storage_error(400, "BadDigest", "the checksum did not match the content"));
    }
    file.store(request.body.clone());
    Ok(stored(arrived))
}

pub fn stored(sha256: &str) -> Reply {
    Reply::bytes(200, "application/xml", Vec::new()).with("ETag", format!("\"{}\"", &sha256[..32]))
}

/// Refuses a `PUT` to the storage that no signed URL allows.
pub fn check_put(state: &mut State, request: &Request) -> Result<(), Reply> {
    let breach = match request.head.framing() {
        Ok(Framing::Chunked) => "a PUT in chunks",
        Ok(Framing::None) => "a PUT without Content-Length",
        _ if request.head.header("content-type").is_some() => "a PUT with a Content-Type that was not signed",
        _ => return Ok(()),
    };
    state.record_violation(format!("{}: {breach}", request.path));
    Err(storage_error(411, "MissingContentLength", breach))
}

pub fn denied() -> Reply {
    storage_error(403, "AccessDenied", "the signature does not match or is used up")
}

fn storage_error(status: u16, code: &str, message: &str) -> Reply {
    let text =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Reply::bytes(status, "application/xml", text.into_bytes())
}

/// `POST /v1/files/{id}/preprocess`: asks for the verdict.
pub fn preprocess(state: &mut State, request: &Request, id: &str, now: Now) -> Handled {
    if request.body.bytes > 0 {
        return Err(Reply::error(400, "preprocess takes no body"));
    }
    let at = verdict_at(state, now);
    let file = state.files.iter_mut().find(|file| file.id == id).ok_or_else(|| missing(id))?;
    if file.stored.is_none() {
        return Err(Reply::error(400, format!("file {id} is not uploaded")));
    }
    file.verdict_at.get_or_insert(at);
    Ok(Reply::ok(&file.value(now)))
}

pub fn verdict_at(state: &State, now: Now) -> Duration {
    now.elapsed + Duration::try_from_secs_f64(state.script.verdict_seconds).unwrap_or_default()
}

pub fn list(state: &State, now: Now) -> Reply {
    let there = state.files.iter().filter(|file| file.is_there());
    Reply::ok(&json!({ "data": there.map(|file| file.value(now)).collect::<Vec<_>>() }))
}

pub fn get(state: &State, id: &str, now: Now) -> Handled {
    state.file(id).map(|file| Reply::ok(&file.value(now))).ok_or_else(|| missing(id))
}

pub fn content(state: &State, id: &str) -> Handled {
    let (body, _) = state.file(id).and_then(|file| file.stored.as_ref()).ok_or_else(|| missing(id))?;
    if body.kept.len() as u64 == body.bytes {
        Ok(Reply::bytes(200, "application/octet-stream", body.kept.clone()))
    } else {
        Err(Reply::error(500, "a rehearsal keeps only the first 64 MiB of a file"))
    }
}

pub fn delete(state: &mut State, id: &str) -> Handled {
    let index = state.files.iter().position(|file| file.id == id).ok_or_else(|| missing(id))?;
    state.files.remove(index);
    Ok(Reply::ok(&json!({ "id": id, "deleted": true })))
}

fn missing(id: &str) -> Reply {
    Reply::error(404, format!("file {id} not found"))
}
