//! Uploads and downloads against a scripted server: every cut, every redirect, every origin.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use ctxtune_service::http;
use ctxtune_service::http::body::{FileBody, Part};
use ctxtune_service::together::download::{self, Wanted, Which};
use ctxtune_service::together::file::FileId;
use ctxtune_service::together::files::{self, HandedOver, Upload};
use ctxtune_service::together::job::JobId;
use ctxtune_service::together::parts;
use ctxtune_service::together::{Error, Together};
use serde_json::{Value, json};

use crate::server::{Exchange, Request, Server};
use crate::together::{KEY, together};

fn nothing(_: u64) {}

/// Bytes that differ from place to place.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Two files of `length` bytes together.
fn body(dir: &tempfile::TempDir, length: usize) -> FileBody {
    let content = bytes(length);
    let (head, tail) = content.split_at(length / 3);
    let part = |(name, bytes): (&str, &[u8])| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Part { path, packing: None, start: 0, len: bytes.len() as u64 }
    };
    FileBody { parts: [("head", head), ("tail", tail)].into_iter().map(part).collect() }
}

fn upload<'u>(body: &'u FileBody, progress: &'u (dyn Fn(u64) + Sync)) -> Upload<'u> {
    Upload { name: "train.jsonl", body, sha256: "00ff", progress }
}

fn file(id: &str) -> FileId {
    FileId::new(id).unwrap()
}

/// Answers as the API does when a file is announced.
fn announce(exchange: &mut Exchange, location: &str) {
    exchange.reply(302, &[("Location", location), ("X-Together-File-Id", "file-1")], "");
}

/// Hands `length` bytes over to the API at `server`.
fn hand_over(server: &Server, length: usize) -> Result<HandedOver, Error> {
    let dir = tempfile::tempdir().unwrap();
    let body = body(&dir, length);
    files::hand_over(&together(server), &upload(&body, &nothing))
}

fn has_no_key(request: &Request) -> bool {
    request.headers.values().all(|value| !value.contains(KEY))
}

#[test]
fn a_file_is_announced_stored_without_the_key_and_looked_at() {
    let storage = Server::saying(200, &[], "");
    let location: &'static str = storage.url("/bucket/x?signature=secret").leak();
    let server = Server::start(move |exchange| match exchange.request.target.as_str() {
        "/v1/files" => announce(exchange, location),
        _ => exchange.json(200, json!({ "id": "file-1", "processing_status": "PENDING" })),
    });
    assert_eq!(hand_over(&server, 300_000).unwrap(), HandedOver::New(file("file-1")));
    assert_eq!(server.lines(), ["POST /v1/files", "POST /v1/files/file-1/preprocess"]);
    let requests = server.requests();
    let form = String::from_utf8_lossy(&requests[0].body).into_owned();
    for field in ["purpose\"\r\n\r\nfine-tune", "file_name\"\r\n\r\ntrain.jsonl", "checksum\"\r\n\r\n00ff"] {
        assert!(form.contains(&format!("name=\"{field}\r\n")), "{form}");
    }
    assert_eq!(requests[1].header("content-length"), Some("0"));
    let stored = &storage.requests()[0];
    assert_eq!(stored.line(), "PUT /bucket/x?signature=secret");
    assert!(has_no_key(stored));
    assert_eq!(stored.header("content-length"), Some("300000"));
    assert_eq!((stored.header("content-type"), stored.header("transfer-encoding")), (None, None));
    assert_eq!(stored.body, bytes(300_000));
}

#[test]
fn the_same_bytes_are_not_sent_twice() {
    let server = Server::start(|exchange| exchange.json(409, json!({ "file_id": "file-7" })));
    assert_eq!(hand_over(&server, 10).unwrap(), HandedOver::AlreadyThere(file("file-7")));
    assert_eq!(server.lines(), ["POST /v1/files"]);
    let server = Server::start(|exchange| exchange.json(409, json!({ "message": "conflict" })));
    assert_eq!(hand_over(&server, 10).unwrap_err().status(), Some(409));
}

#[test]
fn an_announcement_that_is_answered_otherwise_sends_nothing() {
    let check = |status: u16, headers: &'static [(&str, &str)], expected: fn(&Error) -> bool| {
        let server = Server::saying(status, headers, "{}");
        let error = hand_over(&server, 10).unwrap_err();
        assert!(expected(&error), "{status} {headers:?}: {error}");
        assert_eq!(server.lines(), ["POST /v1/files"]);
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    };
    let unreadable = |error: &Error| matches!(error, Error::Unreadable { .. });
    check(200, &[], unreadable);
    check(302, &[("Location", "https://s.example/?secret")], unreadable);
    check(302, &[("X-Together-File-Id", "file-1")], unreadable);
    check(302, &[("Location", "https://s.example/"), ("X-Together-File-Id", "../x")], unreadable);
    check(302, &[("Location", "http://s.example/?secret"), ("X-Together-File-Id", "f")], unreadable);
    check(302, &[("Location", "https://u:secret@s.example/"), ("X-Together-File-Id", "f")], unreadable);
    check(302, &[("Location", "file:///etc/secret"), ("X-Together-File-Id", "f")], unreadable);
    check(401, &[], |error| error.status() == Some(401));
    check(307, &[("Location", "https://s.example/")], |error| error.status() == Some(307));
    check(500, &[], |error| error.status() == Some(500));
}

#[test]
fn a_storage_that_leads_on_gets_the_whole_body_at_each_hop_and_never_the_key() {
    let last = Server::saying(200, &[], "");
    let onward: &'static str = last.url("/c?s=3").leak();
    // The API's own origin is a hop too, and sees no key either.
    let server = Server::start(move |exchange| match exchange.request.target.as_str() {
        "/v1/files" => announce(exchange, &exchange.url("/a?s=1")),
        "/a?s=1" => exchange.reply(307, &[("Location", "/b?s=2")], ""),
        "/b?s=2" => exchange.reply(301, &[("Location", onward)], ""),
        _ => exchange.json(200, "{}"),
    });
    hand_over(&server, 200_000).unwrap();
    let hops: Vec<Request> =
        server.requests().into_iter().chain(last.requests()).filter(|it| it.method == "PUT").collect();
    assert_eq!(hops.len(), 3);
    assert!(hops.iter().all(|hop| has_no_key(hop) && hop.body == bytes(200_000)));
}

#[test]
fn a_storage_that_leads_in_circles_or_astray_is_left() {
    let check = |location: &'static str, puts: usize| {
        let server = Server::start(move |exchange| match exchange.request.target.as_str() {
            "/v1/files" => announce(exchange, &exchange.url("/a")),
            _ => exchange.reply(308, &[("Location", location)], ""),
        });
        let error = hand_over(&server, 10).unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
        let lines = server.lines();
        assert_eq!(lines.iter().filter(|line| line.starts_with("PUT")).count(), puts, "{lines:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    };
    check("/a", 6);
    check("http://s.example/?secret", 1);
    check("ftp://127.0.0.1/", 1);
    check("", 1);
}

#[test]
fn a_storage_that_refuses_is_heard_and_its_url_is_not_told() {
    let server = Server::start(|exchange| match exchange.request.target.as_str() {
        "/v1/files" => announce(exchange, &exchange.url("/store?signature=secret")),
        _ => exchange.send("HTTP/1.1 403 No\r\nContent-Length: 7\r\n\r\nexpired"),
    });
    let error = hand_over(&server, 8 << 20).unwrap_err();
    assert_eq!(error.to_string(), format!("PUT {}: 403 from server: expired", server.url("/store")));
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    assert_eq!(server.requests().len(), 2, "one try of the whole");
}

#[test]
fn only_200_says_that_the_file_is_stored() {
    for status in [201, 204, 206, 500] {
        let server = Server::start(move |exchange| match exchange.request.target.as_str() {
            "/v1/files" => announce(exchange, &exchange.url("/store")),
            _ => exchange.reply(status, &[], ""),
        });
        assert_eq!(hand_over(&server, 10).unwrap_err().status(), Some(status));
    }
}

#[test]
fn a_file_that_shrinks_ends_the_hand_over() {
    let server = Server::start(|exchange| match exchange.request.target.as_str() {
        "/v1/files" => announce(exchange, &exchange.url("/store")),
        _ => exchange.read_body(),
    });
    let dir = tempfile::tempdir().unwrap();
    let mut body = body(&dir, 1000);
    body.parts[1].len += 1;
    let error = files::hand_over(&together(&server), &upload(&body, &nothing)).unwrap_err();
    assert!(matches!(error, Error::Http(http::Error::File { .. })), "{error}");
    assert!(!error.is_passing());
}

/// A storage for parts and the API that names it.
#[derive(Default)]
struct Parts {
    /// The tries of each part.
    tries: Mutex<BTreeMap<String, usize>>,
    /// How many parts are there at a time, now and at most.
    in_flight: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Parts {
    /// Answers for a file in eight parts; the first part but one fails `failures` times.
    fn answer(&self, exchange: &mut Exchange, failures: usize) {
        let target = exchange.request.target.clone();
        if let Some(number) = target.strip_prefix("/part/") {
            return self.take_part(exchange, number.split('?').next().unwrap(), failures);
        }
        exchange.read_body();
        match target.as_str() {
            "/v1/files/multipart/initiate" => {
                let count = exchange.request.json()["num_parts"].as_u64().unwrap();
                let mut parts: Vec<Value> = (1..=count)
                    .map(|number| {
                        let url = exchange.url(&format!("/part/{number}?signature=secret"));
                        json!({ "PartNumber": number, "URL": url, "Headers": { "x-part": number.to_string() } })
                    })
                    .collect();
                parts.reverse();
                exchange.json(200, json!({ "upload_id": "up-1", "file_id": "file-1", "parts": parts }));
            }
            "/v1/files/multipart/complete" => exchange.json(200, json!({ "file": { "id": "file-1" } })),
            _ => exchange.json(200, "{}"),
        }
    }

    fn take_part(&self, exchange: &mut Exchange, number: &str, failures: usize) {
        let tries = {
            let mut tries = self.tries.lock().unwrap();
            let count = tries.entry(number.to_owned()).or_default();
            *count += 1;
            *count
        };
        {
            let mut in_flight = self.in_flight.lock().unwrap();
            in_flight.0 += 1;
            in_flight.1 = in_flight.1.max(in_flight.0);
            self.changed.notify_all();
            // The first four wait for each other, so that they are seen to be four.
            let patience = std::time::Duration::from_secs(10);
            let _ = self.changed.wait_timeout_while(in_flight, patience, |(_, most)| *most < 4).unwrap();
        }
        exchange.read_body();
        self.in_flight.lock().unwrap().0 -= 1;
        match tries {
            tries if number == "2" && tries <= failures => exchange.json(500, "{}"),
            _ => exchange.reply(200, &[("ETag", &format!("\"tag-{number}\""))], ""),
        }
    }
}

const PART: usize = 1000;

fn hand_over_in_parts(server: &Server, begun: &mut dyn FnMut(&str, &FileId)) -> Result<HandedOver, Error> {
    let dir = tempfile::tempdir().unwrap();
    let body = body(&dir, 8 * PART - 300);
    let sent = AtomicU64::new(0);
    let progress = |bytes| sent.store(bytes, Ordering::Relaxed);
    let upload = upload(&body, &progress);
    let done = parts::hand_over_in_parts(&together(server), &upload, PART as u64, begun);
    if matches!(done, Ok(HandedOver::New(_))) {
        assert_eq!(sent.into_inner(), body.len());
    }
    done
}

#[test]
fn parts_go_four_at_a_time_and_each_is_repeated_by_itself() {
    let parts = Arc::new(Parts::default());
    let state = Arc::clone(&parts);
    let server = Server::start(move |exchange| state.answer(exchange, 2));
    let mut begun = Vec::new();
    let done = hand_over_in_parts(&server, &mut |upload, file| {
        begun.push((upload.to_owned(), file.clone(), server.requests().len()));
    });
    assert_eq!(done.unwrap(), HandedOver::New(file("file-1")));
    assert_eq!(begun, [("up-1".to_owned(), file("file-1"), 1)], "told before the first part");
    assert_eq!(parts.in_flight.lock().unwrap().1, 4);
    let tries = parts.tries.lock().unwrap().clone();
    assert_eq!(tries.values().copied().collect::<Vec<_>>(), [1, 3, 1, 1, 1, 1, 1, 1]);
    let requests = server.requests();
    let opened = requests[0].json();
    assert_eq!(opened["file_size"], 7700);
    assert_eq!((&opened["checksum"], &opened["num_parts"]), (&json!("00ff"), &json!(8)));
    let whole = bytes(8 * PART - 300);
    for request in requests.iter().filter(|request| request.method == "PUT") {
        assert!(has_no_key(request));
        let number: usize = request.header("x-part").unwrap().parse().unwrap();
        let size = whole.len().div_ceil(8);
        let expected = &whole[(number - 1) * size..(number * size).min(whole.len())];
        assert_eq!(request.body, expected, "part {number}");
    }
    let last = requests.last().unwrap();
    let tags: Vec<Value> =
        (1..=8).map(|number| json!({ "part_number": number, "etag": format!("tag-{number}") })).collect();
    assert_eq!(last.json(), json!({ "upload_id": "up-1", "file_id": "file-1", "parts": tags }));
}

#[test]
fn a_part_that_fails_for_good_takes_the_upload_back() {
    let parts = Arc::new(Parts::default());
    let state = Arc::clone(&parts);
    let server = Server::start(move |exchange| state.answer(exchange, usize::MAX));
    let error = hand_over_in_parts(&server, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.status(), Some(500), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    assert_eq!(parts.tries.lock().unwrap()["2"], 5);
    let requests = server.requests();
    let last = requests.last().unwrap();
    assert_eq!(last.line(), "POST /v1/files/multipart/abort");
    assert_eq!(last.json(), json!({ "upload_id": "up-1", "file_id": "file-1" }));
    assert!(!server.lines().contains(&"POST /v1/files/multipart/complete".to_owned()));
}

#[test]
fn parts_without_a_place_for_each_are_not_begun() {
    let check = |parts: Value| {
        let server = Server::start(move |exchange| {
            exchange.json(200, json!({ "upload_id": "u", "file_id": "f", "parts": parts }));
        });
        let mut begun = 0;
        let error = hand_over_in_parts(&server, &mut |_, _| begun += 1).unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        assert_eq!((begun, server.requests().len()), (0, 1));
    };
    let parts = |url: &str, numbers: &[u64]| -> Value {
        numbers.iter().map(|number| json!({ "part_number": number, "UploadURL": url })).collect()
    };
    check(json!([]));
    check(parts("https://s.example/?secret", &[1, 2, 3, 4, 5, 6, 7]));
    check(parts("https://s.example/?secret", &[1, 2, 3, 4, 5, 6, 7, 7]));
    check(parts("http://s.example/?secret", &[1, 2, 3, 4, 5, 6, 7, 8]));
}

#[test]
fn a_part_without_a_tag_is_not_stored() {
    let server = Server::start(|exchange| match exchange.request.target.as_str() {
        "/v1/files/multipart/initiate" => {
            let url = exchange.url("/part?secret");
            let parts: Vec<Value> =
                (1..=8).map(|number| json!({ "PartNumber": number, "URL": url })).collect();
            exchange.json(200, json!({ "upload_id": "u", "file_id": "f", "parts": parts }));
        }
        _ => exchange.reply(200, &[], "{}"),
    });
    let error = hand_over_in_parts(&server, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
    assert_eq!(server.lines().last().unwrap(), "POST /v1/files/multipart/abort");
}

#[test]
fn the_same_bytes_are_not_sent_in_parts_either() {
    let server = Server::start(|exchange| exchange.json(409, json!({ "file_id": "file-7" })));
    let done = hand_over_in_parts(&server, &mut |_, _| panic!("nothing begins"));
    assert_eq!(done.unwrap(), HandedOver::AlreadyThere(file("file-7")));
}

const ARCHIVE: usize = 300_000;

/// Answers a request for `whole`, or the range of it that is asked for, and hangs up after
/// `most` bytes.
fn give(exchange: &mut Exchange, whole: &[u8], most: usize) {
    let range = exchange.request.header("range").map(str::to_owned);
    let range = range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (start, end) = range.map_or((0, whole.len()), |(start, end)| {
        (start.parse().unwrap(), end.parse().map_or(whole.len(), |end: usize| end + 1))
    });
    let total = whole.len();
    if start >= total {
        return exchange.reply(416, &[("Content-Range", &format!("bytes */{total}"))], "");
    }
    let line = if range.is_some() {
        format!("206 Part\r\nContent-Range: bytes {start}-{}/{total}", end - 1)
    } else {
        "200 OK".to_owned()
    };
    exchange.send(format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\n\r\n", end - start));
    exchange.send(&whole[start..end.min(start.saturating_add(most))]);
}

struct Fetched {
    dir: tempfile::TempDir,
    result: Result<u64, Error>,
    progress: Vec<(u64, Option<u64>)>,
}

impl Fetched {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The archive is there, whole, and nothing beside it.
    #[track_caller]
    fn expect_whole(&self, expected: &[u8]) {
        assert_eq!(*self.result.as_ref().unwrap(), expected.len() as u64);
        assert!(std::fs::read(self.path("model.tar.zst")).unwrap() == expected, "other bytes");
        assert!(!self.path("model.tar.zst.part").exists());
        assert_eq!(self.progress.last().unwrap(), &(expected.len() as u64, Some(expected.len() as u64)));
    }
}

fn wanted(job: &JobId) -> Wanted<'_> {
    Wanted { job, checkpoint: Which::Adapter, step: Some(4) }
}

/// Fetches from `server`, where `part` is there already.
fn fetch(together: &Together, part: Option<&[u8]>) -> Fetched {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("model.tar.zst");
    if let Some(part) = part {
        std::fs::write(dir.path().join("model.tar.zst.part"), part).unwrap();
    }
    let (job, mut progress) = (JobId::new("ft-1").unwrap(), Vec::new());
    let result =
        download::fetch(together, wanted(&job), &to, &mut |bytes, total| progress.push((bytes, total)));
    Fetched { dir, result, progress }
}

fn ranges(server: &Server) -> Vec<Option<String>> {
    server.requests().iter().map(|request| request.header("range").map(str::to_owned)).collect()
}

#[test]
fn a_download_goes_on_from_the_bytes_that_are_there() {
    let whole = bytes(ARCHIVE);
    // Cut inside the first block, with not one byte, and later.
    for cuts in [[100, 50], [1, 0], [200_000, 99_999], [0, 0]] {
        let served = whole.clone();
        let server = Server::start(move |exchange| {
            give(exchange, &served, cuts.get(exchange.index).copied().unwrap_or(usize::MAX));
        });
        fetch(&together(&server), None).expect_whole(&whole);
        let from = |bytes: usize| (bytes > 0).then(|| format!("bytes={bytes}-"));
        assert_eq!(ranges(&server), [None, from(cuts[0]), from(cuts[0] + cuts[1])]);
        let expected = "GET /v1/finetune/download?ft_id=ft-1&checkpoint=adapter&checkpoint_step=4";
        assert!(server.lines().iter().all(|line| line == expected), "{:?}", server.lines());
    }
}

#[test]
fn a_download_lasts_as_long_as_it_brings_something() {
    let whole = bytes(ARCHIVE);
    let served = whole.clone();
    let server = Server::start(move |exchange| give(exchange, &served, 10_000));
    fetch(&together(&server), None).expect_whole(&whole);
    assert_eq!(server.requests().len(), 30);
    let served = whole.clone();
    let stuck =
        Server::start(move |exchange| give(exchange, &served, if exchange.index == 0 { 5 } else { 0 }));
    let fetched = fetch(&together(&stuck), None);
    let error = fetched.result.as_ref().unwrap_err();
    assert!(matches!(error, Error::Http(http::Error::Lost { .. })) && error.is_passing(), "{error}");
    assert_eq!(stuck.requests().len(), 5);
    assert_eq!(
        std::fs::read(fetched.path("model.tar.zst.part")).unwrap(),
        whole[..5],
        "kept for the next time"
    );
    assert!(!fetched.path("model.tar.zst").exists());
}

#[test]
fn a_download_goes_on_in_another_process() {
    let whole = bytes(ARCHIVE);
    let served = whole.clone();
    let server = Server::start(move |exchange| give(exchange, &served, usize::MAX));
    fetch(&together(&server), Some(&whole[..1234])).expect_whole(&whole);
    fetch(&together(&server), Some(&whole)).expect_whole(&whole);
    fetch(&together(&server), Some(&[whole.as_slice(), b"more"].concat())).expect_whole(&whole);
    let from = |bytes: usize| Some(format!("bytes={bytes}-"));
    assert_eq!(ranges(&server), [from(1234), from(ARCHIVE), from(ARCHIVE + 4), None]);
}

#[test]
fn a_server_that_takes_no_ranges_starts_again() {
    let whole = bytes(ARCHIVE);
    let served = whole.clone();
    let server = Server::start(move |exchange| {
        exchange.request.headers.remove("range");
        give(exchange, &served, if exchange.index == 0 { 1000 } else { usize::MAX });
    });
    fetch(&together(&server), None).expect_whole(&whole);
    assert_eq!(server.requests().len(), 2);
    let served = whole.clone();
    let cut = Server::start(move |exchange| {
        exchange.request.headers.remove("range");
        give(exchange, &served, 1000);
    });
    assert!(fetch(&together(&cut), None).result.is_err());
    assert_eq!(cut.requests().len(), 5, "the same bytes again are no progress");
}

#[test]
fn an_archive_that_changed_starts_again() {
    let (old, new) = (vec![b'o'; ARCHIVE], bytes(ARCHIVE - 7));
    let served = new.clone();
    let server = Server::start(move |exchange| match exchange.index {
        0 => give(exchange, &old, 1000),
        _ => give(exchange, &served, usize::MAX),
    });
    fetch(&together(&server), None).expect_whole(&new);
    assert_eq!(ranges(&server), [None, Some("bytes=1000-".to_owned()), None]);
    // The same length, but the storage says that it is another version.
    let (old, served) = (vec![b'o'; new.len()], new.clone());
    let server = Server::start(move |exchange| {
        let (from, version) = if exchange.index == 0 { (0, "\"a\"") } else { (1000, "\"b\"") };
        let total = served.len();
        match exchange.request.header("range") {
            Some(_) => exchange.reply(
                206,
                &[("ETag", version), ("Content-Range", &format!("bytes {from}-{}/{total}", total - 1))],
                &served[from..],
            ),
            None if exchange.index == 0 => {
                exchange.send(format!("HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: {total}\r\n\r\n"));
                exchange.send(&old[..1000]);
            }
            None => exchange.reply(200, &[("ETag", version)], &served),
        }
    });
    fetch(&together(&server), None).expect_whole(&new);
}

#[test]
fn a_range_that_was_not_asked_for_is_not_taken() {
    let check = |range: &'static [(&str, &str)]| {
        let whole = bytes(ARCHIVE);
        let served = whole.clone();
        let server = Server::start(move |exchange| match exchange.index {
            0 => give(exchange, &served, 1000),
            1 => exchange.reply(206, range, &served[999..2000]),
            _ => give(exchange, &served, usize::MAX),
        });
        fetch(&together(&server), None).expect_whole(&whole);
    };
    check(&[("Content-Range", "bytes 999-1999/300000")]);
    check(&[("Content-Range", "bytes 1001-2001/300000")]);
    check(&[("Content-Range", "pages 1000-2000/300000")]);
    check(&[]);
}

#[test]
fn a_part_of_the_rest_is_not_the_rest() {
    let whole = bytes(ARCHIVE);
    let served = whole.clone();
    let server = Server::start(move |exchange| match exchange.index {
        0 => give(exchange, &served, 1000),
        1 => {
            let headers = [("Content-Range", "bytes 1000-1999/300000")];
            exchange.reply(206, &headers, &served[1000..2000]);
        }
        _ => give(exchange, &served, usize::MAX),
    });
    fetch(&together(&server), None).expect_whole(&whole);
    assert_eq!(ranges(&server)[2].as_deref(), Some("bytes=2000-"));
}

#[test]
fn a_download_that_is_refused_is_not_repeated_and_one_that_is_busy_is() {
    let server = Server::saying(400, &[], "{\"message\":\"not ready\"}");
    let error = fetch(&together(&server), None).result.unwrap_err();
    assert!(error.to_string().ends_with("/v1/finetune/download: 400 from server: not ready"), "{error}");
    assert_eq!(server.requests().len(), 1);
    let busy = Server::saying(503, &[], "");
    assert_eq!(fetch(&together(&busy), None).result.unwrap_err().status(), Some(503));
    assert_eq!(busy.requests().len(), 5);
}

#[test]
fn a_download_that_leads_elsewhere_goes_there_without_the_key() {
    let whole = bytes(ARCHIVE);
    let served = whole.clone();
    let storage = Server::start(move |exchange| {
        give(exchange, &served, if exchange.index == 0 { 1000 } else { usize::MAX });
    });
    let location: &'static str = storage.url("/bucket/model?signature=secret").leak();
    let server = Server::start(move |exchange| exchange.reply(302, &[("Location", location)], ""));
    fetch(&together(&server), None).expect_whole(&whole);
    // A signed URL may have expired by the next try: it is asked for again.
    assert_eq!((server.requests().len(), storage.requests().len()), (2, 2));
    assert!(server.requests().iter().all(|request| !has_no_key(request)));
    assert!(storage.requests().iter().all(has_no_key));
    assert_eq!(storage.requests()[1].header("range"), Some("bytes=1000-"));
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let server = Server::start(|exchange| give(exchange, &bytes(10), usize::MAX));
    let job = JobId::new("ft-1").unwrap();
    let check = |to: PathBuf| {
        let error = download::fetch(&together(&server), wanted(&job), &to, &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, Error::Write { .. }) && !error.is_passing(), "{error}");
        assert!(error.to_string().contains(&to.display().to_string()), "{error}");
    };
    let dir = tempfile::tempdir().unwrap();
    check(dir.path().join("absent/model"));
    // A directory in the file's place.
    std::fs::create_dir(dir.path().join("model")).unwrap();
    check(dir.path().join("model"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named() {
    let server = Server::start(|exchange| give(exchange, &bytes(ARCHIVE), usize::MAX));
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("model");
    std::os::unix::fs::symlink("/dev/full", dir.path().join("model.part")).unwrap();
    let job = JobId::new("ft-1").unwrap();
    let error = download::fetch(&together(&server), wanted(&job), &to, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("model.part`: "), "{error}");
    assert!(matches!(error, Error::Write { .. }), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_probe_says_how_much_there_is() {
    let probe = |act: fn(&mut Exchange)| {
        let server = Server::start(act);
        let job = JobId::new("ft-1").unwrap();
        let probe = download::probe(&together(&server), wanted(&job));
        assert_eq!(server.requests().last().unwrap().header("range"), Some("bytes=0-1"));
        probe
    };
    let found = probe(|exchange| give(exchange, &bytes(ARCHIVE), usize::MAX)).unwrap();
    assert_eq!((found.bytes, found.extension, found.takes_ranges), (Some(300_000), "tar.zst", true));
    let found = probe(|exchange| {
        let headers = [("Content-Type", "application/x-tar"), ("Content-Range", "bytes 0-1/*")];
        exchange.reply(206, &headers, "ab");
    });
    let found = found.unwrap();
    assert_eq!((found.bytes, found.extension, found.takes_ranges), (None, "tar.gz", true));
    // All of it comes, and is not waited for.
    let found = probe(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 77777\r\n\r\n");
        exchange.hang();
    });
    let found = found.unwrap();
    assert_eq!((found.bytes, found.takes_ranges), (Some(77_777), false));
    let error = probe(|exchange| exchange.json(404, json!({ "message": "not ready" }))).unwrap_err();
    assert_eq!(error.status(), Some(404));
}

#[test]
fn a_probe_is_repeated() {
    let failures = AtomicUsize::new(0);
    let server = Server::start(move |exchange| match failures.fetch_add(1, Ordering::SeqCst) {
        0 => exchange.json(503, "{}"),
        1 => exchange.send("HTTP/1.1 20"),
        _ => give(exchange, &bytes(10), usize::MAX),
    });
    let job = JobId::new("ft-1").unwrap();
    assert_eq!(download::probe(&together(&server), wanted(&job)).unwrap().bytes, Some(10));
}
