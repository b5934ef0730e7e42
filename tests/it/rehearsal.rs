//! The rehearsal server over raw sockets: the upload of a file, a job's course, and every fault.
//!
//! Raw, because a client library hides what is to be seen: a reset, a cut, a missing reply. The
//! clock is a fake one, so hours pass in no time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use ctxtune::session::clock::ServerClock;
use ctxtune_pipeline::config::TuneChoices;
use ctxtune_pipeline::job::limits::settle;
use ctxtune_pipeline::job::parameters::Files;
use ctxtune_rehearsal::faults::{Action, Faults, Rule, Side, When};
use ctxtune_rehearsal::{Outcome, Script, Server, Stage};
use ctxtune_service::together::jobs::Limits;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{FakeClock, training_keys};

/// When the server is started.
const NOW: i64 = 1_785_836_945;

const AUTHORIZATION: &str = "Authorization: Bearer rehearsal-key\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const SAMPLE: &str =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n";

/// What came back on a connection that was closed then.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Reset,
    /// Head and body; both empty when there was no reply.
    Bytes(String, Vec<u8>),
}

impl Heard {
    #[track_caller]
    fn status(&self) -> u16 {
        self.head().split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[track_caller]
    fn head(&self) -> &str {
        let Heard::Bytes(head, _) = self else { panic!("{self:?}") };
        head
    }

    #[track_caller]
    fn body(&self) -> &[u8] {
        let Heard::Bytes(_, body) = self else { panic!("{self:?}") };
        body
    }

    #[track_caller]
    fn header(&self, name: &str) -> Option<String> {
        let prefix = format!("{name}: ");
        self.head().lines().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(self.body()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A server with its clock.
struct Stand {
    clock: Arc<FakeClock>,
    server: Server,
}

impl Stand {
    fn new(faults: Faults) -> Stand {
        let clock = FakeClock::at(NOW);
        let script = Script { faults, job_seconds: 100.0, ..Script::default() };
        let server = Server::start(script, Arc::new(ServerClock(clock.clone()))).unwrap();
        Stand { clock, server }
    }

    /// One request on a connection of its own. `headers` end with line ends.
    fn ask(&self, line: &str, headers: &str, body: impl AsRef<[u8]>) -> Heard {
        let body = body.as_ref();
        let length = if body.is_empty() && line.starts_with("GET") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        self.ask_raw(line, &format!("{headers}{length}"), body)
    }

    fn ask_raw(&self, line: &str, headers: &str, body: &[u8]) -> Heard {
        // An absolute URL is one of the storage.
        let (method, target) = line.split_once(' ').unwrap();
        let (origin, target) = match target.strip_prefix("http://") {
            Some(rest) => (rest.split('/').next().unwrap(), &rest[rest.find('/').unwrap()..]),
            None => (self.server.url().trim_start_matches("http://"), target),
        };
        let mut stream = TcpStream::connect(origin).unwrap();
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: {origin}\r\nConnection: close\r\n{headers}\r\n");
        // A server that resets in the middle lets writing fail.
        let _ = stream.write_all(&[head.as_bytes(), body].concat());
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Heard::Reset,
            Err(error) => panic!("{line}: {error}"),
        }
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |start| start + 4);
        let body = bytes.split_off(end);
        Heard::Bytes(String::from_utf8(bytes).unwrap(), body)
    }

    fn get(&self, path: &str) -> Heard {
        self.ask(&format!("GET {path}"), AUTHORIZATION, "")
    }

    fn post(&self, path: &str, body: &Value) -> Heard {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask(&format!("POST {path}"), &format!("{AUTHORIZATION}{JSON}"), body)
    }

    /// Where the bytes go, and the file's id.
    #[track_caller]
    fn announce(&self, content: &str) -> (String, String) {
        let heard = self.ask("POST /v1/files", &format!("{AUTHORIZATION}{FORM}"), form(content));
        assert_eq!(heard.status(), 302, "{heard:?}");
        (heard.header("Location").unwrap(), heard.header("X-Together-File-Id").unwrap())
    }

    #[track_caller]
    fn upload(&self, content: &str) -> String {
        let (location, id) = self.announce(content);
        assert_eq!(self.ask(&format!("PUT {location}"), "", content).status(), 200);
        let preprocessed = self.post(&format!("/v1/files/{id}/preprocess"), &Value::Null);
        assert_eq!(preprocessed.json()["processing_status"], "PENDING");
        id
    }

    /// A file that is fit, and the id of a job that trains on it.
    #[track_caller]
    fn job(&self, more: Value) -> String {
        let file = self.upload(SAMPLE);
        self.clock.advance(1.0);
        let mut order = order(&file);
        for (name, value) in more.as_object().unwrap() {
            order[name] = value.clone();
        }
        let heard = self.post("/v1/fine-tunes", &order);
        assert_eq!(heard.status(), 200, "{heard:?}");
        heard.json()["id"].as_str().unwrap().to_owned()
    }
}

fn form(content: &str) -> String {
    let checksum: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("purpose=fine-tune&file_name=train.jsonl&file_type=jsonl&checksum={checksum}")
}

fn order(file: &str) -> Value {
    json!({ "training_file": file, "model": "Qwen/Qwen3-8B", "n_epochs": 2, "suffix": "mine-01234567" })
}

fn rule(path: &str, action: Action) -> Faults {
    let rules = vec![Rule { method: None, path: path.to_owned(), when: When::Always, times: None, action }];
    Faults { rules, ..Faults::default() }
}

#[test]
fn a_file_is_uploaded_judged_and_given_back() {
    let stand = Stand::new(Faults::default());
    let id = stand.upload(SAMPLE);
    assert_eq!(stand.get(&format!("/v1/files/{id}")).json()["processing_status"], "PENDING");
    stand.clock.advance(0.3);
    let file = stand.get(&format!("/v1/files/{id}")).json();
    assert_eq!((&file["processing_status"], &file["bytes"]), (&json!("COMPLETED"), &json!(SAMPLE.len())));
    assert_eq!(file["validation_report"]["nlines"], 1);
    assert_eq!(stand.get(&format!("/v1/files/{id}/content")).body(), SAMPLE.as_bytes());
    assert_eq!(stand.get("/v1/files").json()["data"][0]["id"], json!(id));
    let again = stand.ask("POST /v1/files", &format!("{AUTHORIZATION}{FORM}"), form(SAMPLE));
    assert_eq!((again.status(), &again.json()["file_id"]), (409, &json!(id)));
    let deleted = stand.ask(&format!("DELETE /v1/files/{id}"), AUTHORIZATION, "");
    assert_eq!(deleted.json(), json!({ "id": id, "deleted": true }));
    assert_eq!(stand.get(&format!("/v1/files/{id}")).status(), 404);
    assert_eq!(stand.server.violations(), Vec::<String>::new());
}

#[test]
fn an_unfit_file_is_refused_by_line_and_trains_nothing() {
    let stand = Stand::new(Faults::default());
    let id = stand.upload(&format!("{SAMPLE}[]\n"));
    stand.clock.advance(1.0);
    let file = stand.get(&format!("/v1/files/{id}")).json();
    assert_eq!(file["processing_status"], "INVALID_FORMAT");
    assert_eq!(file["validation_report"]["error"], "line 2: is no JSON object");
    let refused = stand.post("/v1/fine-tunes", &order(&id));
    assert_eq!((refused.status(), stand.server.jobs_created()), (400, 0));
    assert_eq!(refused.json()["error"]["param"], "training_file");
    let estimate = stand.post("/v1/fine-tunes/estimate-price", &json!({ "training_file": id }));
    assert_eq!(estimate.json()["unavailable_reason"], "train_file_invalid");
}

#[test]
fn a_violation_of_the_protocol_is_recorded() {
    let stand = Stand::new(Faults::default());
    let (location, _) = stand.announce(SAMPLE);
    let put = format!("PUT {location}");
    assert_eq!(stand.ask(&put, "", "other bytes").status(), 400);
    assert_eq!(stand.ask_raw(&put, "Transfer-Encoding: chunked\r\n", b"0\r\n\r\n").status(), 411);
    assert_eq!(stand.ask_raw(&put, "", b"").status(), 411);
    assert_eq!(stand.ask(&put, "X-Key: rehearsal-key\r\n", SAMPLE).status(), 200);
    let words = ["SHA-256", "in chunks", "without Content-Length", "the key arrived at the storage"];
    let violations = stand.server.violations();
    assert_eq!(violations.len(), words.len(), "{violations:?}");
    for (violation, word) in violations.iter().zip(words) {
        assert!(violation.contains(word), "{violation}");
    }
    let last = stand.server.seen().pop().unwrap();
    assert!(last.is_storage && last.status == 200 && last.body == SAMPLE.as_bytes());
}

#[test]
fn only_the_right_key_is_let_in() {
    let stand = Stand::new(Faults::default());
    for headers in ["", "Authorization: Bearer other\r\n", "Authorization: rehearsal-key\r\n"] {
        let refused = stand.ask("GET /v3/whoami", headers, "");
        assert_eq!((refused.status(), &refused.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    }
    let known = stand.get("/v3/whoami");
    assert_eq!(known.json()["project"]["id"], "proj-rehearsal");
    assert_eq!(known.header("Date").unwrap(), "Tue, 04 Aug 2026 09:49:05 GMT");
    assert_eq!(stand.get("/v1/v1/files").status(), 404);
}

#[test]
fn parts_become_a_file() {
    let stand = Stand::new(Faults::default());
    let content = SAMPLE.repeat(3);
    let start = |content: &str| {
        let checksum: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let body = json!({
            "file_name": "train.jsonl", "file_size": content.len(), "num_parts": 2,
            "purpose": "fine-tune", "file_type": "jsonl", "checksum": checksum,
        });
        stand.post("/v1/files/multipart/initiate", &body).json()
    };
    let upload = start(&content);
    let half = content.len().div_ceil(2);
    // In any order.
    let put = |part: &Value, bytes: &str| {
        let number = &part["PartNumber"];
        let url = part["URL"].as_str().unwrap();
        let heard = stand.ask(&format!("PUT {url}"), &format!("x-amz-part: {number}\r\n"), bytes);
        let etag = heard.header("ETag").unwrap().trim_matches('"').to_owned();
        json!({ "part_number": number, "etag": etag })
    };
    let second = put(&upload["parts"][1], &content[half..]);
    let complete = |parts: Value| {
        let body = json!({ "upload_id": upload["upload_id"], "file_id": upload["file_id"], "parts": parts });
        stand.post("/v1/files/multipart/complete", &body)
    };
    assert_eq!(complete(json!([second])).status(), 400);
    let first = put(&upload["parts"][0], &content[..half]);
    assert_eq!(complete(json!([second, first])).status(), 400);
    let file = complete(json!([first, second])).json();
    assert_eq!(file["file"]["bytes"], json!(content.len()));
    let id = file["file"]["id"].as_str().unwrap();
    assert_eq!(stand.get(&format!("/v1/files/{id}/content")).body(), content.as_bytes());

    let upload = start(SAMPLE);
    let body = json!({ "upload_id": upload["upload_id"], "file_id": upload["file_id"] });
    assert_eq!(stand.post("/v1/files/multipart/abort", &body).status(), 200);
    assert_eq!(stand.post("/v1/files/multipart/abort", &body).status(), 404);
    assert_eq!(stand.server.violations(), Vec::<String>::new());
}

#[test]
fn every_parameter_of_a_job_is_known_to_the_strict_body() {
    let stand = Stand::new(Faults::default());
    let limits = Limits::read("", &Value::Null);
    let keys = training_keys();
    assert!(keys.len() > 25, "{keys:?}");
    for key in keys {
        let choices = ["true", "1", "linear"]
            .iter()
            .find_map(|value| TuneChoices::of_values(&[(key.clone(), json!(value))]).ok())
            .unwrap();
        let parameters = choices.resolve(TuneChoices::default(), 42);
        let body = settle(parameters, &limits, true).body(Files { train: "f", val: None }, "s");
        let said = stand.post("/v1/fine-tunes", &body).json()["error"]["message"].to_string();
        assert!(!said.contains("is not known"), "{key}: {said}");
    }
    let unknown = stand.post("/v1/fine-tunes", &json!({ "label": 1 })).json();
    assert_eq!(unknown["error"]["message"], "`label` is not known");
}

#[test]
fn a_job_goes_its_course() {
    let stand = Stand::new(Faults::default());
    let id = stand.job(json!({}));
    let get = |part: &str| stand.get(&format!("/v1/fine-tunes/{id}{part}")).json();
    assert_eq!(get("")["status"], "pending");
    assert_eq!(stand.get(&format!("/v1/finetune/download?ft_id={id}")).status(), 404);
    stand.clock.advance(50.0);
    let job = get("");
    assert_eq!(job["status"], "running");
    let running_price = job["total_price"].as_u64().unwrap();
    stand.clock.advance(50.0);
    let job = get("");
    assert_eq!(job["status"], "completed");
    assert!(job["total_price"].as_u64().unwrap() > running_price && running_price > 0);
    assert!(job["model_object_id"].as_str().unwrap().starts_with("ml_"));
    assert_eq!(get("/events")["data"].as_array().unwrap().last().unwrap()["type"], "JOB_COMPLETE");
    let rows = get("/metrics?global_step_from=19")["metrics"].clone();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    assert!(rows[0]["timestamp"].as_i64().unwrap() > 1 << 53);
    assert_eq!(get("/metrics?resolution=5")["metrics"].as_array().unwrap().len(), 5);
    assert_eq!(get("/checkpoints")["data"][0]["step"], 20);
    let listed = stand.get("/v1/fine-tunes").json()["data"][0].clone();
    assert_eq!((&listed["suffix"], &listed["id"]), (&json!("mine-01234567"), &json!(id)));
    let whole = stand.get(&format!("/v1/finetune/download?ft_id={id}"));
    let headers = format!("{AUTHORIZATION}Range: bytes=100-\r\n");
    let rest = stand.ask(&format!("GET /v1/finetune/download?ft_id={id}"), &headers, "");
    assert_eq!((rest.status(), rest.body()), (206, &whole.body()[100..]));
    let tar = zstd::decode_all(whole.body()).unwrap();
    let names: Vec<_> = tar::Archive::new(&tar[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["config.json", "model.safetensors"]);
}

#[test]
fn a_job_can_be_cancelled_once_and_can_fail() {
    let stand = Stand::new(Faults::default());
    let id = stand.job(json!({}));
    stand.clock.advance(30.0);
    let cancel = || stand.post(&format!("/v1/fine-tunes/{id}/cancel"), &Value::Null);
    assert_eq!(cancel().json()["status"], "cancel_requested");
    assert_eq!(cancel().status(), 400);
    stand.clock.advance(10.0);
    assert_eq!(stand.get(&format!("/v1/fine-tunes/{id}")).json()["status"], "cancelled");

    stand.server.set_script(|script| script.outcome = Outcome::UserError);
    let file = stand.get("/v1/files").json()["data"][0]["id"].as_str().unwrap().to_owned();
    let id = stand.post("/v1/fine-tunes", &order(&file)).json()["id"].as_str().unwrap().to_owned();
    stand.clock.advance(99.0);
    assert_eq!(stand.get(&format!("/v1/fine-tunes/{id}")).json()["status"], "user_error");
    assert_eq!(stand.server.jobs_created(), 2);
}

#[test]
fn chat_answers_whole_and_as_a_stream() {
    let stand = Stand::new(Faults::default());
    let mut body =
        json!({ "model": "Qwen/Qwen3-8B", "messages": [{ "role": "user", "content": "Mia naps." }] });
    let whole = stand.post("/v1/chat/completions", &body).json();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["agents_names"], json!(["Mia"]));
    body["stream"] = json!(true);
    let stream = stand.post("/v1/chat/completions", &body);
    let frames = String::from_utf8(stream.body().to_vec()).unwrap();
    let frames: Vec<&str> = frames.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let (last, chunks) = frames.split_last().unwrap();
    assert_eq!(*last, "[DONE]");
    let chunks = chunks.iter().map(|chunk| serde_json::from_str::<Value>(chunk).unwrap());
    let joined: String =
        chunks.map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap().to_owned()).collect();
    assert_eq!(joined, text);
    body["model"] = json!("rehearsal/Qwen3-8B-mine-01234567-aaaaaaaa");
    let refused = stand.post("/v1/chat/completions", &body);
    assert_eq!((refused.status(), &refused.json()["error"]["code"]), (400, &json!("model_not_available")));
}

/// What a fault makes of the creation of a job: what the client hears, and the jobs there are then.
#[track_caller]
fn check(action: Action, jobs: usize, is_heard: impl Fn(&Heard) -> bool) {
    let stand = Stand::new(Faults::default());
    let file = stand.upload(SAMPLE);
    stand.clock.advance(1.0);
    stand.server.set_script(|script| script.faults = rule("/v1/fine-tunes", action.clone()));
    let heard = stand.post("/v1/fine-tunes", &order(&file));
    assert!(is_heard(&heard), "{action:?}: {heard:?}");
    assert_eq!(stand.server.jobs_created(), jobs, "{action:?}");
    let status = if matches!(&heard, Heard::Bytes(head, _) if !head.is_empty()) { heard.status() } else { 0 };
    assert_eq!(stand.server.seen().last().unwrap().status, status, "{action:?}");
}

#[test]
fn a_status_comes_with_or_without_the_deed() {
    let status = |side| Action::Status { status: 503, headers: Vec::new(), body: String::new(), side };
    check(status(Side::Before), 0, |heard| heard.status() == 503 && heard.json()["error"].is_object());
    check(status(Side::After), 1, |heard| heard.status() == 503);
    let headers = vec![("Retry-After".to_owned(), "7".to_owned())];
    let busy = Action::Status { status: 429, headers, body: "slow down".to_owned(), side: Side::Before };
    check(busy, 0, |heard| heard.header("Retry-After").unwrap() == "7" && heard.body() == b"slow down");
}

#[test]
#[cfg(unix)]
fn a_connection_is_reset_before_after_and_within_a_request() {
    let is_reset = |heard: &Heard| *heard == Heard::Reset;
    check(Action::Reset(Side::Before), 0, is_reset);
    check(Action::Reset(Side::After), 1, is_reset);
    check(Action::ResetAfterBytes(0), 0, is_reset);
    check(Action::ResetAfterBytes(10), 0, is_reset);
    check(Action::ResetAfterBytes(1 << 20), 1, |heard| heard.status() == 200);
    check(Action::ResetAfterPercent(50.0), 0, is_reset);
}

#[test]
fn a_reply_is_lost_cut_replaced_or_late() {
    check(Action::LoseReply, 1, |heard| *heard == Heard::Bytes(String::new(), Vec::new()));
    check(Action::CutReply(5), 1, |heard| heard.status() == 200 && heard.body().len() == 5);
    check(Action::CutReply(0), 1, |heard| heard.status() == 200 && heard.body().is_empty());
    check(Action::Body("<html>".to_owned()), 1, |heard| heard.status() == 200 && heard.body() == b"<html>");
    check(Action::Hang(3600.0), 1, |heard| heard.header("Date").unwrap().contains("10:49:0"));
    check(Action::Trickle(1000), 1, |heard| heard.json()["status"] == "pending");
    check(Action::EchoKey, 0, |heard| {
        heard.json()["error"]["message"].to_string().contains("Bearer rehearsal-key")
    });
    let elsewhere = Action::Redirect("{storage}/elsewhere{path}".to_owned());
    check(elsewhere, 0, |heard| {
        heard.status() == 307 && heard.header("Location").unwrap().ends_with("/elsewhere/v1/fine-tunes")
    });
}

#[test]
fn a_cut_body_is_seen_as_far_as_it_came() {
    let stand = Stand::new(rule("/storage", Action::ResetAfterBytes(20)));
    let (location, _) = stand.announce(SAMPLE);
    stand.ask(&format!("PUT {location}"), "", SAMPLE);
    let seen = stand.server.seen().pop().unwrap();
    assert_eq!((seen.body_bytes, &seen.body[..], seen.status), (20, &SAMPLE.as_bytes()[..20], 0));
}

#[test]
fn lists_are_spoiled_as_the_script_says() {
    let text = "{shuffle_events: true, double_events: true, nan_metrics: true, omit: [suffix, model_output_name], statuses: {40: model_downloading}}";
    let stand = Stand::new(crate::support::faults(text));
    let id = stand.job(json!({}));
    stand.clock.advance(45.0);
    let job = stand.get(&format!("/v1/fine-tunes/{id}")).json();
    assert_eq!(job["status"], "model_downloading");
    assert!(job.get("suffix").is_none() && job.get("model_output_name").is_none());
    stand.clock.advance(60.0);
    assert_eq!(stand.get(&format!("/v1/fine-tunes/{id}")).json()["status"], "completed");
    let events = stand.get(&format!("/v1/fine-tunes/{id}/events")).json()["data"].clone();
    let hashes: Vec<&str> =
        events.as_array().unwrap().iter().map(|event| event["hash"].as_str().unwrap()).collect();
    let mut distinct = hashes.clone();
    distinct.sort_unstable();
    assert_ne!(hashes, distinct);
    distinct.dedup();
    assert_eq!(hashes.len(), distinct.len() * 2);
    let metrics = stand.get(&format!("/v1/fine-tunes/{id}/metrics"));
    let text = String::from_utf8_lossy(metrics.body());
    for loss in ["null", "\"NaN\"", "NaN", "-Infinity"] {
        assert!(text.contains(&format!("\"train/loss\":{loss},")), "{loss}: {text}");
    }
}

#[test]
fn a_watcher_is_told_before_and_after_the_deed_and_before_the_reply() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&told);
    let clock = FakeClock::at(NOW);
    let watch = Arc::new(move |stage: Stage, seen: &ctxtune_rehearsal::Seen| {
        record.lock().unwrap().push((stage, seen.path.clone(), seen.status));
    });
    let server =
        Server::start_watched(0, Script::default(), Arc::new(ServerClock(clock.clone())), watch).unwrap();
    let stand = Stand { clock, server };
    assert_eq!(stand.get("/v1/files").status(), 200);
    let path = "/v1/files".to_owned();
    assert_eq!(*told.lock().unwrap(), [(Stage::Received, path.clone(), 0), (Stage::Acted, path, 0)]);
}

#[test]
fn a_connection_is_kept_and_a_body_asked_for() {
    let stand = Stand::new(Faults::default());
    let mut stream = TcpStream::connect(stand.server.url().trim_start_matches("http://")).unwrap();
    let mut ask = |bytes: &str, until: &str| {
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains(until) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            heard.push(byte[0]);
        }
    };
    ask(&format!("GET /v3/whoami HTTP/1.1\r\n{AUTHORIZATION}\r\n"), "\"name\":\"Rehearsal\"}}");
    let head = "POST /v1/files HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n";
    ask(&format!("{head}{AUTHORIZATION}{JSON}\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    ask("{}", "is no form");
    // Dropping the server closes the connection, though the client would keep it.
    drop(stand);
    let rest = stream.read_to_end(&mut Vec::new());
    assert!(rest.is_ok_and(|bytes| bytes < 200));
}

/// `api:` and the key, as the Basic scheme has them.
const WANDB: &str = "Authorization: Basic YXBpOnJlaGVhcnNhbHJlaGVhcnNhbHJlaGVhcnNhbHJlaGVhcnNhbHJlaGU=\r\n";

impl Stand {
    fn graphql(&self, query: &str) -> Heard {
        let body = json!({ "query": query }).to_string();
        self.ask("POST /graphql", &format!("{WANDB}{JSON}"), body)
    }

    /// Sends rows to the stream of the run `a/b` of the project `p`.
    fn stream(&self, offset: usize, rows: &[Value]) -> Heard {
        let content: Vec<String> = rows.iter().map(Value::to_string).collect();
        let body = json!({ "files": { "wandb-history.jsonl": { "offset": offset, "content": content } } });
        let line = "POST /files/rehearsal/p/a%20b/file_stream";
        self.ask(line, &format!("{WANDB}{JSON}"), body.to_string())
    }

    #[track_caller]
    fn begin_run(&self) {
        let begin = "mutation { upsertBucket(input: {name: \"a b\", modelName: \"p\"}) { inserted } }";
        let heard = self.graphql(begin);
        assert_eq!(heard.json(), json!({ "data": { "upsertBucket": { "inserted": true } } }));
    }
}

#[test]
fn a_run_is_logged_to_wandb() {
    let stand = Stand::new(Faults::default());
    stand.begin_run();
    assert_eq!(stand.stream(0, &[json!({ "_step": 0 })]).json(), json!({}));
    stand.server.set_script(|script| script.wandb_stop = true);
    let end = json!({ "complete": true, "exitcode": 0 }).to_string();
    let heard = stand.ask("POST /files/rehearsal/p/a%20b/file_stream", &format!("{WANDB}{JSON}"), end);
    assert_eq!(heard.json(), json!({ "stopped": true }));
    let runs = stand.server.wandb_runs();
    let run = &runs[0];
    assert_eq!((run.state.as_str(), run.exit_code, run.requests), ("finished", Some(0), 2));
    assert_eq!(
        (run.name.as_str(), run.project.as_str(), &run.history),
        ("a b", "p", &vec![json!({ "_step": 0 })])
    );
    // The same from outside, without a key.
    let outside = stand.ask("GET /rehearsal/wandb/runs", "", "").json();
    assert_eq!(outside[0]["history"], json!([{ "_step": 0 }]));
    assert_eq!(stand.ask("GET /rehearsal/p/runs/a%20b", "", "").status(), 200);
    assert_eq!(stand.server.violations(), Vec::<String>::new());
}

#[test]
fn wandb_s_key_is_its_own() {
    let stand = Stand::new(Faults::default());
    let body = json!({ "query": "{ viewer { id } }" }).to_string();
    let heard = stand.ask("POST /graphql", &format!("{AUTHORIZATION}{JSON}"), &body);
    assert_eq!(heard.status(), 401);
    let heard = stand.ask("POST /graphql", JSON, &body);
    assert_eq!((heard.status(), heard.json()), (200, json!({ "data": { "viewer": null } })));
    assert_eq!(stand.ask("GET /v1/files", WANDB, "").status(), 401);
    let heard = stand.ask("POST /files/rehearsal/p/a/file_stream", &format!("{AUTHORIZATION}{JSON}"), "{}");
    assert_eq!(heard.status(), 401);
}

#[test]
fn faults_meet_wandb_by_its_paths() {
    let stand = Stand::new(rule("/files/*/file_stream", Action::LoseReply));
    stand.begin_run();
    let row = [json!({ "_step": 0 })];
    assert_eq!(stand.stream(0, &row), Heard::Bytes(String::new(), Vec::new()));
    // What was lost was only the reply, and saying it again does no harm.
    stand.server.set_script(|script| script.faults = Faults::default());
    assert_eq!(stand.stream(0, &row).json(), json!({}));
    assert_eq!(stand.server.wandb_runs()[0].history, row);
    assert_eq!(stand.stream(2, &row).status(), 400);
    assert_eq!(stand.server.violations().len(), 1, "{:?}", stand.server.violations());
}

#[test]
fn a_run_s_file_goes_to_the_storage_without_the_key() {
    let stand = Stand::new(Faults::default());
    stand.begin_run();
    let ask = "mutation { createRunFiles(input: {projectName: \"p\", runName: \"a b\", files: [\"config.yaml\"]}) { uploadHeaders files { uploadUrl } } }";
    let answer = stand.graphql(ask).json();
    let url = answer["data"]["createRunFiles"]["files"][0]["uploadUrl"].as_str().unwrap();
    assert_eq!(answer["data"]["createRunFiles"]["uploadHeaders"], json!(["x-ms-blob-type:BlockBlob"]));
    let header = "x-ms-blob-type: BlockBlob\r\n";
    assert_eq!(stand.ask(&format!("PUT {url}"), header, "x: 1").status(), 200);
    assert_eq!(stand.server.wandb_runs()[0].files, ["config.yaml"]);
    assert_eq!(stand.server.violations(), Vec::<String>::new());
    assert_eq!(stand.ask(&format!("PUT {url}"), &format!("{WANDB}{header}"), "x: 1").status(), 200);
    assert!(stand.server.violations()[0].contains("the key arrived at the storage"));
    assert_eq!(stand.ask(&format!("PUT {url}"), "", "x: 1").status(), 403);
    assert!(stand.server.violations()[1].contains("upload header"));
    let other = url.replace("config.yaml", "other.yaml");
    assert_eq!(stand.ask(&format!("PUT {other}"), header, "x: 1").status(), 403);
    assert!(stand.server.violations()[2].contains("nobody asked"));
}

#[test]
fn a_faults_file_that_is_wrong_is_a_usage_error() {
    let dir = crate::support::Dir::new();
    dir.write("faults.yaml", "rules:\n  - { path: /, do: { hangs: 1 } }\n");
    let refused = dir.ctxtune(["rehearse", "--serve", "--faults", "faults.yaml"]).expect(2);
    assert!(refused.stderr.contains("hangs"), "{}", refused.stderr);
}

#[test]
#[cfg(unix)]
fn the_program_serves_until_a_signal_and_names_every_violation() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let dir = crate::support::Dir::new();
    let mut command = dir.command(["rehearse", "--serve", "--key", "another-key"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let mut stream = TcpStream::connect(url.trim().strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(b"nonsense\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
    crate::support::signal(child.id(), "TERM");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{said}");
    for part in [
        "nothing is trained",
        "TOGETHER_API_KEY=another-key",
        "WANDB_API_KEY=rehearsal",
        "violation: malformed request",
        "1 violation",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
