//! The API client against a scripted server: what is asked, what is believed, who sees the key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ctxtune_service::together::Tries;
use ctxtune_service::together::endpoints::{Endpoints, NewDeployment};
use ctxtune_service::together::file::{FileId, Processing};
use ctxtune_service::together::hardware::Config;
use ctxtune_service::together::job::{JobId, Status};
use ctxtune_service::together::jobs::Availability;
use ctxtune_service::together::parts;
use ctxtune_service::together::project::Project;
use ctxtune_service::together::{BaseUrl, Certainty, Error, Together, files, jobs};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::server::{PATIENT, Request, Server, asker};

pub const KEY: &str = "tgp_v1_do-not-print";

/// The API at `server`, with a key.
pub fn together(server: &Server) -> Together {
    let base = BaseUrl::parse(&server.url("/v1/")).unwrap();
    Together::new(asker(PATIENT, None).client, base, Some(SecretString::from(KEY)), Vec::new())
}

/// A server that answers every request with that JSON.
fn answering(status: u16, body: Value) -> Server {
    Server::start(move |exchange| exchange.json(status, &body))
}

fn has_key(request: &Request) -> bool {
    request.header("authorization") == Some(&format!("Bearer {KEY}"))
}

fn job_id() -> JobId {
    JobId::new("ft-1").unwrap()
}

#[test]
fn every_call_asks_what_the_api_understands() {
    let server = Server::start(|exchange| {
        let line = exchange.request.line();
        let answer = match line.as_str() {
            "GET /v1/fine-tunes" => json!({ "data": [{ "id": "ft-1", "status": "queued" }] }),
            "GET /v1/fine-tunes/ft-1/metrics?global_step_from=3" => {
                json!({ "metrics": [{ "train/loss": 1 }] })
            }
            "GET /v1/fine-tunes/models/supported" => json!({ "models": ["a", "b"] }),
            line if line.ends_with("/events") => json!({ "data": [{ "type": "JOB_START" }] }),
            line if line.ends_with("/checkpoints") => json!({ "data": [{ "step": 4 }] }),
            "GET /v1/files" => json!({ "data": [{ "id": "file-1" }] }),
            _ => json!({ "id": "file-1", "status": "running" }),
        };
        exchange.json(200, &answer);
    });
    let together = together(&server);
    let file = FileId::new("file-1").unwrap();
    assert_eq!(jobs::list(&together).unwrap()[0].status.as_str(), "queued");
    assert_eq!(jobs::retrieve(&together, &job_id()).unwrap().status.as_str(), "running");
    assert_eq!(jobs::create(&together, &json!({ "model": "m" })).unwrap().id.as_str(), "file-1");
    jobs::cancel(&together, &job_id()).unwrap();
    assert_eq!(jobs::events(&together, &job_id()).unwrap()[0].kind, "job_start");
    assert_eq!(jobs::metrics(&together, &job_id(), Some(3)).unwrap()[0].train_loss, Some(1.0));
    assert_eq!(jobs::checkpoints(&together, &job_id(), Tries::Many).unwrap()[0].step, Some(4));
    assert_eq!(jobs::supported(&together).unwrap(), ["a", "b"]);
    jobs::limits(&together, "meta/Llama 3").unwrap().unwrap();
    jobs::estimate(&together, &json!({ "n_epochs": 3 })).unwrap();
    assert_eq!(files::list(&together).unwrap()[0].processing, Processing::Untold);
    files::retrieve(&together, &file).unwrap();
    files::delete(&together, &file).unwrap();
    let expected = [
        "GET /v1/fine-tunes",
        "GET /v1/fine-tunes/ft-1",
        "POST /v1/fine-tunes",
        "POST /v1/fine-tunes/ft-1/cancel",
        "GET /v1/fine-tunes/ft-1/events",
        "GET /v1/fine-tunes/ft-1/metrics?global_step_from=3",
        "GET /v1/fine-tunes/ft-1/checkpoints",
        "GET /v1/fine-tunes/models/supported",
        "GET /v1/fine-tunes/models/limits?model_name=meta%2FLlama%203",
        "POST /v1/fine-tunes/estimate-price",
        "GET /v1/files",
        "GET /v1/files/file-1",
        "DELETE /v1/files/file-1",
    ];
    assert_eq!(server.lines(), expected);
    let requests = server.requests();
    assert!(requests.iter().all(has_key));
    assert!(requests.iter().all(|request| request.header("accept") == Some("application/json")));
    assert_eq!(requests[2].json(), json!({ "model": "m" }));
}

#[test]
fn a_job_is_created_by_one_post_whatever_comes_back() {
    for status in [408, 429, 500, 502, 503] {
        let server = answering(status, json!({ "message": "busy" }));
        let error = jobs::create(&together(&server), &json!({})).unwrap_err();
        assert_eq!((error.status(), server.connections()), (Some(status), 1));
    }
    let server = Server::start(|exchange| exchange.read_body());
    let error = jobs::create(&together(&server), &json!({})).unwrap_err();
    assert_eq!((error.certainty(), server.connections()), (Certainty::Unknown, 1), "{error}");
    let server = Server::saying(503, &[("Retry-After", "1")], "");
    let error = jobs::create(&together(&server), &json!({})).unwrap_err();
    assert_eq!((error.certainty(), server.connections()), (Certainty::NotAccepted, 1), "{error}");
}

#[test]
fn what_may_arrive_twice_is_repeated() {
    let check = |call: fn(&Together)| {
        let server = Server::start(|exchange| match exchange.index {
            0 => exchange.json(502, "{}"),
            1 => exchange.read_body(),
            _ => exchange.json(200, json!({ "id": "ft-1", "status": "running", "data": [], "models": [] })),
        });
        call(&together(&server));
        let lines = server.lines();
        assert!(lines.len() == 3 && lines.iter().all(|line| *line == lines[0]), "{lines:?}");
    };
    check(|together| drop(jobs::list(together).unwrap()));
    check(|together| drop(jobs::retrieve(together, &job_id()).unwrap()));
    check(|together| drop(jobs::cancel(together, &job_id()).unwrap()));
    check(|together| drop(jobs::estimate(together, &json!({})).unwrap()));
    check(|together| drop(together.whoami().unwrap()));
    check(|together| files::delete(together, &FileId::new("f").unwrap()).unwrap());
    check(|together| parts::abort_parts(together, "u", &FileId::new("f").unwrap()).unwrap());
}

#[test]
fn without_a_key_nothing_is_sent() {
    let server = answering(200, json!({}));
    let base = BaseUrl::parse(&server.url("")).unwrap();
    let together = Together::new(asker(PATIENT, None).client, base, None, Vec::new());
    assert!(matches!(together.whoami().unwrap_err(), Error::NoKey));
    assert!(matches!(jobs::create(&together, &json!({})).unwrap_err(), Error::NoKey));
    assert_eq!(server.connections(), 0);
}

#[test]
fn own_headers_go_along_but_do_not_frame_or_authorize() {
    let server = answering(200, json!({}));
    let headers = [("X-Team", "a"), ("Authorization", "Basic b"), ("Content-Length", "9"), ("Accept", "c/d")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let base = BaseUrl::parse(&server.url("")).unwrap();
    let key = Some(SecretString::from(KEY));
    Together::new(asker(PATIENT, None).client, base, key, headers).whoami().unwrap();
    let request = &server.requests()[0];
    assert_eq!((request.header("x-team"), request.header("accept")), (Some("a"), Some("c/d")));
    assert!(has_key(request) && request.header("content-length").is_none());
}

#[test]
fn an_api_that_redirects_is_not_followed() {
    let elsewhere = answering(200, json!({ "id": "ft-1", "status": "running" }));
    let url: &'static str = elsewhere.url("/v1/fine-tunes").leak();
    for status in [301, 302, 303, 307, 308] {
        let server = Server::start(move |exchange| exchange.reply(status, &[("Location", url)], ""));
        let error = jobs::create(&together(&server), &json!({})).unwrap_err();
        assert_eq!((error.status(), error.certainty()), (Some(status), Certainty::Unknown));
        assert!(jobs::list(&together(&server)).is_err());
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn an_answer_that_is_none_is_not_believed() {
    let check = |body: &'static str| {
        let server = Server::saying(200, &[], body);
        let together = together(&server);
        let results = [
            jobs::create(&together, &json!({})).map(drop),
            jobs::retrieve(&together, &job_id()).map(drop),
            jobs::list(&together).map(drop),
            jobs::events(&together, &job_id()).map(drop),
            jobs::limits(&together, "m").map(drop),
            jobs::estimate(&together, &json!({})).map(drop),
            files::retrieve(&together, &FileId::new("f").unwrap()).map(drop),
        ];
        for (index, result) in results.into_iter().enumerate() {
            let error = result.expect_err(&format!("{index} believes {body:?}"));
            assert!(matches!(error, Error::Unreadable { .. } | Error::Page { .. }), "{error}");
            assert_eq!((error.certainty(), error.is_passing()), (Certainty::Unknown, true), "{error}");
        }
    };
    check("<html><title>Welcome to the hotel</title></html>");
    check("{\"id\": \"ft-1\", \"stat");
    check("");
    check("null");
    check("\"ok\"");
}

#[test]
fn a_web_page_in_place_of_an_answer_is_called_that() {
    let page = "the answer is a web page and not the API: a proxy or a login page";
    let check = |headers: &'static [(&str, &str)], body: &'static str, expected: &str| {
        let server = Server::saying(200, headers, body);
        let error = jobs::list(&together(&server)).unwrap_err();
        assert_eq!((error.certainty(), error.is_passing()), (Certainty::Unknown, true));
        assert_eq!(error.to_string(), format!("GET {}: {expected}", server.url("/v1/fine-tunes")), "{body}");
    };
    let title = format!("{page}: Welcome to the hotel");
    check(&[], "\u{feff}\n<html><title>Welcome to the hotel</title></html>", &title);
    check(&[], "<html><title>Welcome to the hotel</title></html>", &title);
    check(&[], " <!-- a proxy -->", page);
    check(&[("Content-Type", "text/html; charset=utf-8")], "Please log in", page);
    check(
        &[("Content-Type", "text/plain")],
        "Please log in",
        "the answer cannot be understood: it is no JSON: Please log in",
    );
    // What is labelled carelessly and is a document is one.
    let careless = Server::saying(200, &[("Content-Type", "text/html")], r#"{"data":[]}"#);
    assert_eq!(jobs::list(&together(&careless)).unwrap().len(), 0);
    // A whole site where the API should be.
    let site = Server::saying(404, &[], "<html><title>Not found</title></html>");
    assert!(together(&site).whoami().unwrap_err().to_string().ends_with(&format!("{page}: Not found")));
}

#[test]
fn numbers_that_are_none_leave_gaps_in_an_answer() {
    let body = r#"{"metrics":[{"train/global_step":1,"train/loss":NaN,"a":"NaN, Infinity"},
        {"train/global_step":2,"train/loss":-Infinity,"eval/loss":Infinity},{"train/global_step":3,"train/loss":1e999},
        {"train/global_step":4,"train/loss":0.5}]}"#;
    let rows = jobs::metrics(&together(&Server::saying(200, &[], body)), &job_id(), None).unwrap();
    assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2, 3, 4].map(Some));
    assert_eq!(rows.iter().filter_map(|row| row.train_loss).collect::<Vec<_>>(), [0.5]);
    assert_eq!(rows[0].object["a"], "NaN, Infinity");
    let broken = Server::saying(200, &[], r#"{"metrics":[{"train/loss":NaN}"#);
    assert!(matches!(jobs::metrics(&together(&broken), &job_id(), None), Err(Error::Unreadable { .. })));
}

/// A server that creates, and denies for a while what it has created; and how often it was asked for it.
fn denying(times: usize) -> (Server, Arc<AtomicUsize>) {
    let denied = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&denied);
    let server = Server::start(move |exchange| {
        let is_creation = exchange.request.method == "POST" && !exchange.request.target.ends_with("/cancel");
        if !is_creation && count.fetch_add(1, Ordering::SeqCst) < times {
            return exchange.json(404, json!({ "message": "no such thing" }));
        }
        exchange.json(200, json!({ "id": "x-1", "name": "p/e/x", "status": "pending" }));
    });
    (server, denied)
}

#[test]
fn what_was_created_a_moment_ago_and_is_denied_is_asked_for_again() {
    let project = Project { id: "p".to_owned(), slug: None };
    let id = JobId::new("x-1").unwrap();
    let [cr, of] = ["cr_1", "p"].map(str::to_owned);
    let config = Config { id: cr, project_id: of, hardware: None, is_for_adapters: false };
    let create_deployment = |together: &Together| {
        let new = NewDeployment { name: "x", model: "ml_1", config: &config, idle_minutes: None };
        Endpoints { together, project: &project }.create_deployment("e", &new)
    };
    let jobs = |together: &Together| {
        jobs::create(together, &json!({})).map(drop)?;
        jobs::cancel(together, &id).map(drop)?;
        jobs::retrieve(together, &id).map(drop)
    };
    let endpoints = |together: &Together| {
        Endpoints { together, project: &project }.create("x").map(drop)?;
        Endpoints { together, project: &project }.retrieve("x-1").map(drop)
    };
    let deployments = |together: &Together| {
        create_deployment(together).map(drop)?;
        Endpoints { together, project: &project }.scale(("e", "x-1"), 1).map(drop)?;
        Endpoints { together, project: &project }.deployment(("e", "x-1")).map(drop)
    };
    type CreateAndRead<'c> = &'c dyn Fn(&Together) -> Result<(), Error>;
    let all: [CreateAndRead<'_>; 3] = [&jobs, &endpoints, &deployments];
    for (number, create_and_read) in all.into_iter().enumerate() {
        let (server, _) = denying(3);
        create_and_read(&together(&server)).unwrap_or_else(|error| panic!("{number}: {error}"));
        // Two minutes and no more.
        let (server, denied) = denying(usize::MAX);
        assert_eq!(create_and_read(&together(&server)).unwrap_err().status(), Some(404), "{number}");
        let denied = denied.load(Ordering::SeqCst);
        assert!((40..=61).contains(&denied), "{number}: {denied} times, every two seconds");
    }
    // What nobody here has created is not there.
    let (server, denied) = denying(usize::MAX);
    assert_eq!(jobs::retrieve(&together(&server), &id).unwrap_err().status(), Some(404));
    assert_eq!(denied.load(Ordering::SeqCst), 1);
    // Nor is what was removed again.
    let (server, denied) = denying(usize::MAX);
    let together = together(&server);
    create_deployment(&together).unwrap();
    let api = Endpoints { together: &together, project: &project };
    api.delete_deployment(("e", "x-1")).unwrap();
    let error = api.deployment(("e", "x-1")).unwrap_err();
    assert_eq!((error.status(), denied.load(Ordering::SeqCst)), (Some(404), 2));
}

#[test]
fn the_words_of_a_refusal_are_shown_without_keys_and_queries() {
    let body =
        json!({ "error": { "message": format!("bad \u{1b}[1mkey {KEY} or w-secret"), "code": "odd" } });
    let server = answering(400, body);
    let together = together(&server);
    let error = jobs::create(&together, &json!({ "wandb_key": "w-secret" })).unwrap_err();
    let expected =
        format!("POST {}: 400 from server: bad [1mkey [key] or [key] (odd)", server.url("/v1/fine-tunes"));
    assert_eq!(error.to_string(), expected);
    let error = jobs::metrics(&together, &job_id(), Some(1)).unwrap_err();
    assert!(!format!("{error} {error:?} {together:?}").contains(KEY), "{error:?}");
    assert!(!error.to_string().contains("global_step_from"), "{error}");
}

#[test]
fn a_job_of_a_list_is_missed_only_if_it_has_no_id() {
    let list = |data: Value| jobs::list(&together(&answering(200, data)));
    let found = list(json!([{ "id": "a" }, { "status": "running" }, 7, { "id": "b", "status": "Running" }]));
    let found: Vec<(String, Status)> =
        found.unwrap().into_iter().map(|job| (job.id.to_string(), job.status)).collect();
    assert_eq!(found, [("a".to_owned(), Status::new("")), ("b".to_owned(), Status::new("running"))]);
    let error = list(json!({ "data": [{ "id": "../a", "status": "running" }] })).unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
}

#[test]
fn limits_are_read_as_far_as_they_are_given() {
    let object = json!({
        "model_name": "m", "max_num_epochs": 20, "min_learning_rate": 1e-7, "max_seq_length_sft": 8192,
        "supports_full_training": false, "lora_training": { "max_rank": 64, "min_batch_size": 8 },
    });
    let limits = jobs::limits(&together(&answering(200, object)), "m").unwrap().unwrap();
    assert_eq!((limits.max_num_epochs, limits.max_num_evals), (Some(20), None));
    assert_eq!((limits.min_learning_rate, limits.max_seq_length), (Some(1e-7), Some(8192)));
    let lora = limits.lora.unwrap();
    assert_eq!((lora.max_rank, lora.default_rank, lora.min_batch_size), (Some(64), None, Some(8)));
    assert_eq!((limits.full, limits.supports_full_training), (None, Some(false)));
    let unknown = answering(404, json!({ "message": "not tunable" }));
    assert_eq!(jobs::limits(&together(&unknown), "m").unwrap(), None);
}

#[test]
fn an_estimate_is_there_unless_the_server_says_no() {
    let estimate = |object: Value| jobs::estimate(&together(&answering(200, object)), &json!({})).unwrap();
    let there = estimate(json!({ "estimated_total_price": 4.2, "allowed_to_proceed": false }));
    assert_eq!(there.availability, Availability::Available);
    assert_eq!((there.dollars, there.allowed_to_proceed, there.user_limit), (Some(4.2), Some(false), None));
    let no = estimate(json!({ "estimation_available": false, "unavailable_reason": "train_file_invalid" }));
    assert_eq!(no.availability, Availability::Unavailable("train_file_invalid".to_owned()));
    assert_eq!(no.dollars, None);
}

#[test]
fn an_identity_is_read_as_far_as_it_is_given() {
    let whole = Server::start(|exchange| {
        let body = json!({
            "type": "project_api_key", "api_key": { "id": "k" }, "organization": { "id": "o", "name": "Org" },
            "project": { "id": "p", "name": "Project", "slug": "proj" },
        });
        let headers = [("Date", "Tue, 24 Nov 2026 10:00:05 GMT")];
        exchange.reply(200, &headers, body.to_string());
    });
    let identity = together(&whole).whoami().unwrap();
    assert_eq!(identity.project_slug.as_deref(), Some("proj"));
    assert_eq!(identity.organization_name.as_deref(), Some("Org"));
    assert_eq!(identity.key_id.as_deref(), Some("k"));
    assert_eq!(identity.date, "2026-11-24T10:00:05Z".parse().ok());
    let old = together(&answering(404, json!({ "message": "no such route" }))).whoami().unwrap();
    assert_eq!((old.project_id, old.key_id), (None, None));
    let error = together(&answering(401, json!({ "error": { "message": "bad key" } }))).whoami().unwrap_err();
    assert_eq!((error.status(), error.certainty()), (Some(401), Certainty::Refused));
}

#[test]
fn a_file_that_is_gone_is_removed() {
    let gone = answering(404, json!({ "message": "no such file" }));
    files::delete(&together(&gone), &FileId::new("f").unwrap()).unwrap();
    parts::abort_parts(&together(&gone), "u", &FileId::new("f").unwrap()).unwrap();
}

#[test]
fn an_api_on_this_machine_may_have_an_address_of_version_six() {
    let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: there is no IPv6 here");
        return;
    };
    let base = BaseUrl::parse(&format!("http://{}/v1", listener.local_addr().unwrap())).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let count = std::io::Read::read(&mut stream, &mut head).unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"data\":[]}";
        std::io::Write::write_all(&mut stream, answer).unwrap();
        String::from_utf8_lossy(&head[..count]).into_owned()
    });
    let key = Some(SecretString::from(KEY));
    let together = Together::new(asker(PATIENT, None).client, base, key, Vec::new());
    assert!(jobs::list(&together).unwrap().is_empty());
    assert!(server.join().unwrap().contains(KEY), "its own origin");
}
