//! Files: the hand-off to the storage, the verdict on them, their list and their content.
//!
//! Separate from uploads in parts, which end in the same [`File`]. The storage is another
//! origin, and whoever sends it the key is accused.

use std::time::Duration;

use serde_json::{Value, json};

use crate::form;
use crate::reply::{Content, Reply};
use crate::state::{Now, Request, State};
use crate::verdict::{Verdict, verdict};
use crate::wire::{Body, Framing};

/// What an upload says about its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// `fine-tune`, `eval`, ….
    pub purpose: String,
    /// Its base name.
    pub name: String,
    /// `jsonl`, `csv`, `parquet`.
    pub kind: String,
    /// SHA-256, where the client says one.
    pub checksum: Option<String>,
}

/// A file, from its announcement on.
#[derive(Debug, Clone)]
pub struct File {
    /// `file-…`.
    pub id: String,
    /// What the client said.
    pub announced: Announced,
    /// When it was announced.
    pub created: Now,
    /// The path of its signed URL.
    pub upload_path: String,
    /// What arrived at the storage.
    pub stored: Option<Stored>,
    /// When its verdict is there; nothing before it was asked for.
    pub verdict_at: Option<Duration>,
}

/// The bytes of a file.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The first of them.
    pub kept: Vec<u8>,
    /// How many there are.
    pub bytes: u64,
    /// Of all.
    pub sha256: String,
    /// What the service will say.
    pub verdict: Verdict,
}

/// A part of an upload in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What arrived.
    pub body: Body,
    /// As the storage named it.
    pub etag: String,
}

/// An upload in parts.
#[derive(Debug, Clone)]
pub struct Multipart {
    /// `upload-…`.
    pub id: String,
    /// The file that it becomes.
    pub file_id: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// By number, from 1.
    pub parts: Vec<Option<Part>>,
}

const PURPOSES: [&str; 4] = ["fine-tune", "calibration", "eval", "batch-api"];
const KINDS: [&str; 3] = ["jsonl", "csv", "parquet"];

impl Stored {
    /// What arrived as one body.
    pub fn new(body: Body) -> Stored {
        let is_whole = body.bytes == body.kept.len() as u64;
        let verdict = verdict(&body.kept, is_whole);
        Stored { kept: body.kept, bytes: body.bytes, sha256: body.sha256, verdict }
    }
}

impl File {
    /// Whether its upload came to an end.
    pub fn is_there(&self) -> bool {
        self.stored.is_some() && self.verdict_at.is_some()
    }

    /// `PENDING`, then the verdict; nothing before it was asked for.
    pub fn status(&self, now: Now) -> Option<&'static str> {
        let (stored, at) = (self.stored.as_ref()?, self.verdict_at?);
        Some(if now.elapsed < at { "PENDING" } else { stored.verdict.status() })
    }

    /// As the API writes it.
    pub fn value(&self, now: Now) -> Value {
        let mut value = json!({
            "id": self.id,
            "object": "file",
            "created_at": self.created.time.as_second(),
            "filename": self.announced.name,
            "bytes": self.stored.as_ref().map_or(0, |stored| stored.bytes),
            "purpose": self.announced.purpose,
            "FileType": self.announced.kind,
        });
        if let (Some(status), Some(stored)) = (self.status(now), &self.stored) {
            value["processing_status"] = json!(status);
            if status != "PENDING" {
                value["validation_report"] = stored.verdict.report(&self.id);
            }
        }
        value
    }
}

/// `POST /v1/files`: where to put the bytes.
///
/// # Errors
/// The reply to a client that says something wrong, or that has uploaded the same before.
pub fn announce(state: &mut State, request: &Request, now: Now) -> Result<Reply, Reply> {
    let content_type = request.head.header("content-type").unwrap_or_default();
    let fields = form::fields(content_type, &request.body.kept).map_err(|error| Reply::error(400, error))?;
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let required = |name: &str| field(name).ok_or_else(|| Reply::field(name, format!("`{name}` is missing")));
    let announced = Announced {
        purpose: required("purpose")?,
        name: required("file_name")?,
        kind: required("file_type")?,
        checksum: field("checksum"),
    };
    let known = ["purpose", "file_name", "file_type", "checksum"];
    if let Some((name, _)) = fields.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(Reply::field(name, format!("`{name}` is not known")));
    }
    let file = begin(state, announced, now)?;
    let location = format!("{}{}", state.storage, file.upload_path);
    let reply = Reply { status: 302, headers: Vec::new(), content: Content::Whole(Vec::new()) };
    let reply = reply.with("Location", location).with("X-Together-File-Id", &file.id);
    state.files.push(file);
    Ok(reply)
}

/// A file that is not yet there, unless one of the same content is.
///
/// # Errors
/// The reply to a client that says something wrong, or that has uploaded the same before.
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
        let same = |file: &&File| {
            file.is_there() && file.stored.as_ref().is_some_and(|stored| stored.sha256 == *checksum)
        };
        if let Some(file) = state.files.iter().find(same) {
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

/// `PUT` to the signed URL.
///
/// # Errors
/// The storage's reply to a client that breaks the protocol.
pub fn store(state: &mut State, request: &Request) -> Result<Reply, Reply> {
    check_put(state, request)?;
    let is_meant = |file: &&mut File| file.upload_path == request.head.target && !file.is_there();
    let Some(file) = state.files.iter_mut().find(is_meant) else {
        return Err(denied());
    };
    let checksum = file.announced.checksum.clone();
    if let Some(checksum) = checksum.filter(|checksum| *checksum != request.body.sha256) {
        let breach = format!(
            "{}: the bytes have SHA-256 {}, announced was {checksum}",
            request.path, request.body.sha256
        );
        state.accuse(breach);
        return Err(storage_error(400, "BadDigest", "the checksum did not match the content"));
    }
    file.stored = Some(Stored::new(request.body.clone()));
    Ok(Reply::bytes(200, "application/xml", Vec::new())
        .with("ETag", format!("\"{}\"", &request.body.sha256[..32])))
}

/// What every `PUT` to the storage must be.
///
/// # Errors
/// The storage's reply to another one.
pub fn check_put(state: &mut State, request: &Request) -> Result<(), Reply> {
    let mut breaches = Vec::new();
    match request.head.framing() {
        Ok(Framing::Chunked) => breaches.push("a PUT in chunks"),
        Ok(Framing::None) => breaches.push("a PUT without Content-Length"),
        _ => {}
    }
    if request.head.header("content-type").is_some() {
        breaches.push("a PUT with a Content-Type that was not signed");
    }
    for breach in &breaches {
        state.accuse(format!("{}: {breach}", request.path));
    }
    match breaches.first() {
        Some(breach) => Err(storage_error(411, "MissingContentLength", breach)),
        None => Ok(()),
    }
}

/// What the storage says to a URL that it did not sign.
pub fn denied() -> Reply {
    storage_error(403, "AccessDenied", "the signature does not match or is used up")
}

/// The storage's own shape of an error.
pub fn storage_error(status: u16, code: &str, message: &str) -> Reply {
    let text =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Reply::bytes(status, "application/xml", text.into_bytes())
}

/// `POST /v1/files/{id}/preprocess`.
///
/// # Errors
/// When the file is not known or its bytes are not there.
pub fn preprocess(state: &mut State, id: &str, now: Now) -> Result<Reply, Reply> {
    let delay = Duration::try_from_secs_f64(state.script.verdict_seconds).unwrap_or(Duration::ZERO);
    let Some(file) = state.files.iter_mut().find(|file| file.id == id) else { return Err(unknown(id)) };
    if file.stored.is_none() {
        return Err(Reply::error(400, format!("file {id} is not uploaded")));
    }
    file.verdict_at.get_or_insert(now.elapsed + delay);
    Ok(Reply::json(200, &file.value(now)))
}

/// `GET /v1/files`.
pub fn list(state: &State, now: Now) -> Reply {
    let there = state.files.iter().filter(|file| file.is_there());
    let files: Vec<Value> = there.map(|file| file.value(now)).collect();
    Reply::json(200, &json!({ "data": files }))
}

/// `GET /v1/files/{id}`.
///
/// # Errors
/// When there is none.
pub fn get(state: &State, id: &str, now: Now) -> Result<Reply, Reply> {
    let file = state.file(id).ok_or_else(|| unknown(id))?;
    Ok(Reply::json(200, &file.value(now)))
}

/// `GET /v1/files/{id}/content`.
///
/// # Errors
/// When there is none, or it was too large to keep.
pub fn content(state: &State, id: &str) -> Result<Reply, Reply> {
    let file = state.file(id).ok_or_else(|| unknown(id))?;
    match &file.stored {
        Some(stored) if stored.kept.len() as u64 == stored.bytes => {
            Ok(Reply::bytes(200, "application/octet-stream", stored.kept.clone()))
        }
        Some(_) => Err(Reply::error(500, "a rehearsal keeps only the first 64 MiB of a file")),
        None => Err(unknown(id)),
    }
}

/// `DELETE /v1/files/{id}`.
///
/// # Errors
/// When there is none.
pub fn delete(state: &mut State, id: &str) -> Result<Reply, Reply> {
    let index = state.files.iter().position(|file| file.id == id).ok_or_else(|| unknown(id))?;
    state.files.remove(index);
    Ok(Reply::json(200, &json!({ "id": id, "deleted": true })))
}

fn unknown(id: &str) -> Reply {
    Reply::error(404, format!("file {id} not found"))
}
