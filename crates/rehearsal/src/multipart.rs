//! Uploads in parts: initiate, the parts, complete, abort.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::files::{begin, check_put, denied, stored, verdict_at};
use crate::reply::{Handled, Reply};
use crate::request::{Now, Request, number, only, text};
use crate::state::State;
use crate::state::files::{Announced, Multipart};
use crate::wire::{Body, KEPT_BYTES, hex};

const MAX_PARTS: u64 = 250;

pub fn initiate(state: &mut State, body: &Value, now: Now) -> Handled {
    only(body, &["file_name", "file_size", "num_parts", "purpose", "file_type", "checksum"])?;
    let announced = Announced {
        purpose: text(body, "purpose")?.to_owned(),
        name: text(body, "file_name")?.to_owned(),
        kind: text(body, "file_type")?.to_owned(),
        checksum: Some(text(body, "checksum")?.to_owned()),
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
    let file_id = file.id.clone();
    state.multiparts.push(Multipart { id, file_id, bytes, parts: vec![None; count as usize] });
    state.files.push(file);
    Ok(Reply::ok(&reply))
}

/// `PUT` of a part to its signed URL.
pub fn store_part(state: &mut State, request: &Request, id: &str, number: &str) -> Handled {
    check_put(state, request)?;
    if request.head.header("x-amz-part") != Some(number) {
        state.record_violation(format!("{}: the headers of the part are missing", request.path));
        return Err(denied());
    }
    let upload = state.multiparts.iter_mut().find(|upload| upload.id == id).ok_or_else(denied)?;
    let index = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    let slot = index.and_then(|index| upload.parts.get_mut(index)).ok_or_else(denied)?;
    let mut body = request.body.clone();
    if upload.bytes > KEPT_BYTES as u64 {
        // Too much to keep: then only sizes and tags are compared in the end.
        body.kept.clear();
    }
    *slot = Some(body);
    Ok(stored(&request.body.sha256))
}

pub fn complete(state: &mut State, body: &Value, now: Now) -> Handled {
    only(body, &["upload_id", "file_id", "parts"])?;
    let upload = &state.multiparts[position(state, body)?];
    let parts = upload.parts.iter().flatten().collect::<Vec<&Body>>();
    if parts.len() != upload.parts.len() {
        return Err(Reply::field("parts", "not all parts are uploaded"));
    }
    let listed = |(part, number): (&&Body, u64)| json!({ "part_number": number, "etag": part.sha256[..32] });
    if body["parts"] != parts.iter().zip(1..).map(listed).collect::<Value>() {
        return Err(Reply::field("parts", "the parts are not the uploaded ones in ascending order"));
    }
    let whole = joined(&parts);
    let announced = state.file(&upload.file_id).and_then(|file| file.announced.checksum.as_ref());
    let breach = if whole.bytes != upload.bytes {
        Some(format!("the parts have {} bytes, announced were {}", whole.bytes, upload.bytes))
    } else if whole.is_whole && announced.is_some_and(|checksum| *checksum != whole.sha256) {
        Some(format!("the parts have SHA-256 {}, which was not announced", whole.sha256))
    } else {
        None
    };
    if let Some(breach) = breach {
        let violation = format!("multipart {}: {breach}", upload.id);
        state.record_violation(violation);
        return Err(Reply::field("parts", breach));
    }
    let at = verdict_at(state, now);
    let upload = take(state, body)?;
    let file = state.files.iter_mut().find(|file| file.id == upload.file_id);
    let file = file.ok_or_else(|| Reply::error(404, format!("file {} not found", upload.file_id)))?;
    file.store(whole);
    file.verdict_at = Some(at);
    Ok(Reply::ok(&json!({ "file": file.value(now) })))
}

pub fn abort(state: &mut State, body: &Value) -> Handled {
    only(body, &["upload_id", "file_id"])?;
    let upload = take(state, body)?;
    state.files.retain(|file| file.id != upload.file_id);
    Ok(Reply::ok(&json!({ "message": "upload aborted" })))
}

fn position(state: &State, body: &Value) -> Result<usize, Reply> {
    let (id, file_id) = (text(body, "upload_id")?, text(body, "file_id")?);
    let is_named = |upload: &Multipart| upload.id == id && upload.file_id == file_id;
    let none = || Reply::error(404, format!("upload {id} of file {file_id} not found"));
    state.multiparts.iter().position(is_named).ok_or_else(none)
}

fn take(state: &mut State, body: &Value) -> Result<Multipart, Reply> {
    let index = position(state, body)?;
    Ok(state.multiparts.remove(index))
}

/// The parts as one body, which is whole where all of them were kept.
fn joined(parts: &[&Body]) -> Body {
    let (mut body, mut hash) = (Body { is_whole: true, ..Body::default() }, Sha256::new());
    for part in parts {
        hash.update(&part.kept);
        body.is_whole &= part.kept.len() as u64 == part.bytes;
        body.bytes += part.bytes;
        body.kept.extend_from_slice(&part.kept);
    }
    if !body.is_whole {
        // Nothing to judge: stands for a file that is fit.
        body.kept = b"{\"text\":\"not kept\"}\n".to_vec();
    }
    body.sha256 = hex(&hash.finalize());
    body
}
