//! Files of the account: handed over, listed, removed.
//!
//! A hand-over is one try of the whole, with a signed URL of its own. The bytes go to a storage that never sees
//! the key. See <https://docs.together.ai/reference/upload-file>.

use std::time::Duration;

use serde_json::Value;

use crate::http::body::FileBody;
use crate::http::{Answer, Body, Method};
use crate::together::file::{FileId, FileObject};
use crate::together::follow::{Place, put};
use crate::together::job::text;
use crate::together::{Error, Together, Tries};

pub struct Upload<'u> {
    /// The name that the file gets, with its ending.
    pub name: &'u str,
    pub body: &'u FileBody,
    /// Their SHA-256 in lower-case hexadecimal digits.
    pub sha256: &'u str,
    /// Told the bytes sent so far; starts again at 0 when they are sent again.
    pub progress: &'u (dyn Fn(u64) + Sync),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandedOver {
    New(FileId),
    AlreadyThere(FileId),
}

impl HandedOver {
    pub fn id(&self) -> &FileId {
        match self {
            HandedOver::New(id) | HandedOver::AlreadyThere(id) => id,
        }
    }
}

/// Hands a file over in one piece: announces it, sends it where the server says, and lets
/// the server look at it. One try; it may be repeated without harm.
pub fn hand_over(together: &Together, upload: &Upload<'_>) -> Result<HandedOver, Error> {
    let url = together.url("/v1/files");
    let fields = [
        ("purpose", "fine-tune".to_owned()),
        ("file_name", upload.name.to_owned()),
        ("file_type", "jsonl".to_owned()),
        ("checksum", upload.sha256.to_owned()),
    ];
    let answer = together.answer(Method::Post, &url, Body::Form(&fields), Tries::One)?;
    if let Some(id) = already_there(&answer) {
        return Ok(HandedOver::AlreadyThere(id));
    }
    let asked = together.asked(Method::Post, &url);
    if answer.is_success() {
        return Err(asked.unreadable("it does not say where the file goes", &answer));
    }
    if answer.status != 302 {
        return Err(asked.refused(&answer));
    }
    let place = answer.header("location").filter(|place| together.base().may_send_to(place));
    let place = place.ok_or_else(|| asked.unreadable("it names no place for the file", &answer))?;
    let id = answer.header("x-together-file-id").and_then(FileId::new);
    let id = id.ok_or_else(|| asked.unreadable("it names no id for the file", &answer))?;
    let place = Place { url: place.to_owned(), headers: Vec::new() };
    let body = Body::File(upload.body, upload.progress);
    let (stored, url) = put(together, &place, body, Tries::One)?;
    let asked = together.asked(Method::Put, &url);
    if stored.status != 200 {
        return Err(asked.refused(&stored));
    }
    if stored.is_page() {
        return Err(asked.page(&stored));
    }
    note_created(together, &id);
    preprocess(together, &id)?;
    Ok(HandedOver::New(id))
}

pub(in crate::together) fn note_created(together: &Together, id: &FileId) {
    for path in [format!("/v1/files/{id}"), format!("/v1/files/{id}/preprocess")] {
        together.note_created(path, Duration::ZERO);
    }
}

/// Has the server look at a file whose bytes it has.
pub fn preprocess(together: &Together, id: &FileId) -> Result<(), Error> {
    together.ask(Method::Post, &format!("/v1/files/{id}/preprocess"), Body::Empty, Tries::Many)?;
    Ok(())
}

/// The id in an answer that says that the same bytes are there.
pub(in crate::together) fn already_there(answer: &Answer) -> Option<FileId> {
    let value = answer.json().filter(|_| answer.status == 409)?;
    FileId::new(&text(&value, &["file_id", "id"])?)
}

pub fn list(together: &Together) -> Result<Vec<FileObject>, Error> {
    let value = together.get("/v1/files")?;
    Ok(items(together, "/v1/files", &value)?.iter().filter_map(FileObject::read).collect())
}

pub fn retrieve(together: &Together, id: &FileId) -> Result<FileObject, Error> {
    let path = format!("/v1/files/{id}");
    together.object((Method::Get, &path), Body::Empty, Tries::Many, (FileObject::read, "file"))
}

/// Removes a file. One that is not there is removed.
pub fn delete(together: &Together, id: &FileId) -> Result<(), Error> {
    match together.ask(Method::Delete, &format!("/v1/files/{id}"), Body::Empty, Tries::Many) {
        Err(Error::Refused { status: 404, .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The items of a list, bare or below `data`.
pub(in crate::together) fn items<'v>(
    together: &Together,
    path: &str,
    value: &'v Value,
) -> Result<&'v Vec<Value>, Error> {
    let list = value.get("data").unwrap_or(value).as_array();
    list.ok_or_else(|| together.unlike((Method::Get, path), value, "it is no list"))
}
