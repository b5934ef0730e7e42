//! A file too large for one piece, handed over in parts.
//!
//! Parts are sent four at a time and each is repeated by itself. What fails in the end is taken back, so that
//! the storage keeps no pieces; a killed process leaves that to the next one, which was told the upload's id in
//! time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::http::{Body, Method};
use crate::together::file::{FileId, FileObject, Processing};
use crate::together::files::{HandedOver, Upload, already_there, note_created, retrieve};
use crate::together::follow::{Place, put};
use crate::together::job::{text, whole};
use crate::together::{Error, Together, Tries};

/// The length that parts have as a rule.
pub const PART_BYTES: u64 = 250 << 20;
/// The most parts of one file; beyond, parts grow.
const MOST_PARTS: u64 = 250;
const IN_FLIGHT: usize = 4;

/// Hands a file over in parts. `begun` hears the upload's and the file's id before the first part is sent, for
/// [`abort_parts`]; parts have at least `part_bytes`. Fails when any step fails for good; what was sent is taken back then, as far as that
/// succeeds.
pub fn hand_over_in_parts(
    together: &Together,
    upload: &Upload<'_>,
    part_bytes: u64,
    begun: &mut dyn FnMut(&str, &FileId),
) -> Result<HandedOver, Error> {
    let plan = Plan::new(upload.body.len(), part_bytes);
    let url = together.url("/v1/files/multipart/initiate");
    let body = json!({
        "file_name": upload.name,
        "file_size": plan.bytes,
        "num_parts": plan.parts,
        "purpose": "fine-tune",
        "file_type": "jsonl",
        "checksum": upload.sha256,
    });
    let answer = together.answer(Method::Post, &url, Body::Json(&body), Tries::One)?;
    if let Some(id) = already_there(&answer) {
        return Ok(HandedOver::AlreadyThere(id));
    }
    let asked = together.asked(Method::Post, &url);
    let value = asked.value(&answer)?;
    // The answer itself is not shown: its URLs are secrets.
    let places = places(together, &value, plan);
    let opened = text(&value, &["upload_id"]).zip(text(&value, &["file_id"]).and_then(|id| FileId::new(&id)));
    let (Some((upload_id, file_id)), Some(places)) = (opened, places) else {
        let nothing = crate::http::Answer { body: Vec::new(), ..answer };
        return Err(asked.unreadable("it does not say where the parts go", &nothing));
    };
    begun(&upload_id, &file_id);
    let sent = send_all(together, upload, plan, &places);
    let done = sent.and_then(|tags| {
        let completed = complete(together, (&upload_id, &file_id), &tags);
        completed.or_else(|error| completed_before(together, (upload, &file_id), error))
    });
    if done.is_err() {
        // The first error is the one to report.
        let _ = abort_parts(together, &upload_id, &file_id);
    }
    done
}

/// Takes back what was sent of an upload in parts. One that is not there is taken back.
pub fn abort_parts(together: &Together, upload_id: &str, file_id: &FileId) -> Result<(), Error> {
    let body = json!({ "upload_id": upload_id, "file_id": file_id.as_str() });
    let url = together.url("/v1/files/multipart/abort");
    let answer = together.answer(Method::Post, &url, Body::Json(&body), Tries::Many)?;
    if answer.is_success() || answer.status == 404 {
        Ok(())
    } else {
        Err(together.asked(Method::Post, &url).refused(&answer))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    bytes: u64,
    parts: u64,
    /// The length of every part but the last, which may be shorter.
    part_bytes: u64,
}

impl Plan {
    fn new(bytes: u64, part_bytes: u64) -> Plan {
        let parts = bytes.div_ceil(part_bytes.max(1)).clamp(1, MOST_PARTS);
        let part_bytes = bytes.div_ceil(parts);
        Plan { bytes, parts, part_bytes }
    }
}

/// Where each part goes, by its number; nothing unless there is a place for each, where we may go.
fn places(together: &Together, value: &Value, plan: Plan) -> Option<Vec<Place>> {
    let listed = value.get("parts")?.as_array()?;
    let place = |number: u64| {
        let part = listed.iter().find(|part| whole(part, &["PartNumber", "part_number"]) == Some(number))?;
        let url = text(part, &["URL", "UploadURL", "url", "upload_url"])?;
        let headers = part.get("Headers").or_else(|| part.get("headers")).and_then(Value::as_object);
        let headers = headers.into_iter().flatten();
        let headers = headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        together.base().may_send_to(&url).then(|| Place { url, headers: headers.collect() })
    };
    (listed.len() as u64 == plan.parts).then(|| (1..=plan.parts).map(place).collect())?
}

/// Sends all parts, four at a time; the tags that the storage gave them, in order.
fn send_all(
    together: &Together,
    upload: &Upload<'_>,
    plan: Plan,
    places: &[Place],
) -> Result<Vec<String>, Error> {
    let sent: Vec<AtomicU64> = places.iter().map(|_| AtomicU64::new(0)).collect();
    let next = AtomicUsize::new(0);
    let has_failed = AtomicBool::new(false);
    let work = || {
        let mut done = Vec::new();
        while !has_failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(place) = places.get(index) else { break };
            let progress = |bytes: u64| {
                sent[index].store(bytes, Ordering::Relaxed);
                (upload.progress)(sent.iter().map(|part| part.load(Ordering::Relaxed)).sum());
            };
            let part = upload.body.slice(index as u64 * plan.part_bytes, plan.part_bytes);
            let tag = send(together, place, Body::File(&part, &progress));
            has_failed.fetch_or(tag.is_err(), Ordering::Relaxed);
            done.push((index, tag));
        }
        done
    };
    let mut done = run_beside(IN_FLIGHT.min(places.len()), &work);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, tag)| tag).collect()
}

/// What `count` threads that do `work` bring together; fewer where there are no more to be
/// had, this one at least.
fn run_beside<T: Send>(count: usize, work: &(impl Fn() -> Vec<T> + Sync)) -> Vec<T> {
    thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let threads: Vec<_> = (1..count).map_while(spawn).collect();
        let mut brought = work();
        for thread in threads {
            match thread.join() {
                Ok(more) => brought.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        brought
    })
}

/// Sends one part, repeatedly if need be; the tag that the storage gave it.
fn send(together: &Together, place: &Place, body: Body<'_>) -> Result<String, Error> {
    let (answer, url) = put(together, place, body, Tries::Many)?;
    let asked = together.asked(Method::Put, &url);
    if !answer.is_success() {
        return Err(asked.refused(&answer));
    }
    let tag = answer.header("etag").map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
    let tag = tag.filter(|tag| !tag.is_empty()).ok_or_else(|| asked.unreadable("it has no ETag", &answer))?;
    Ok(tag.to_owned())
}

fn complete(
    together: &Together,
    (upload_id, file_id): (&str, &FileId),
    tags: &[String],
) -> Result<HandedOver, Error> {
    let parts: Vec<Value> =
        (1..).zip(tags).map(|(number, tag)| json!({ "part_number": number, "etag": tag })).collect();
    let body = json!({ "upload_id": upload_id, "file_id": file_id.as_str(), "parts": parts });
    let path = "/v1/files/multipart/complete";
    let value = together.ask(Method::Post, path, Body::Json(&body), Tries::Many)?;
    let file = FileObject::read(value.get("file").unwrap_or(&value));
    let file = file.ok_or_else(|| together.unlike((Method::Post, path), &value, "it is no file"))?;
    note_created(together, &file.id);
    Ok(HandedOver::New(file.id))
}

/// A completion whose reply was lost is refused when it is repeated: then the file itself tells.
fn completed_before(
    together: &Together,
    (upload, file_id): (&Upload<'_>, &FileId),
    error: Error,
) -> Result<HandedOver, Error> {
    if !matches!(error, Error::Refused { status: 400 | 404 | 409 | 410 | 422, .. }) {
        return Err(error);
    }
    match retrieve(together, file_id) {
        Ok(file) if file.bytes == Some(upload.body.len()) && file.processing != Processing::Untold => {
            Ok(HandedOver::New(file.id))
        }
        _ => Err(error),
    }
}
