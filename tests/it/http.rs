//! The transport against a server that misbehaves: what is an answer, what is lost, in what time.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ctxtune_service::http::body::{FileBody, Part};
use ctxtune_service::http::{Body, Call, Error, Key, Method, Timeouts, proxy};
use secrecy::SecretString;
use serde_json::json;

use crate::server::{Asker, Exchange, HASTY, PATIENT, Server, asker};

fn get(url: String) -> Call<'static> {
    Call { method: Method::Get, url, key: None, headers: Vec::new(), body: Body::Empty }
}

fn nothing(_: u64) {}

/// A body of `length` bytes in a file of its own.
fn file(dir: &tempfile::TempDir, length: usize) -> FileBody {
    let path = dir.path().join("body");
    std::fs::write(&path, vec![b'x'; length]).unwrap();
    FileBody { parts: vec![Part { path, packing: None, start: 0, len: length as u64 }] }
}

fn put<'c>(url: String, body: &'c FileBody) -> Call<'c> {
    Call { method: Method::Put, url, key: None, headers: Vec::new(), body: Body::File(body, &nothing) }
}

fn discard(_: &[u8]) -> io::Result<()> {
    Ok(())
}

/// What became of a call, for comparisons.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::Invalid { .. } => "invalid",
        Error::NotSent { .. } => "not sent",
        Error::Tls { .. } => "tls",
        Error::Lost { .. } => "lost",
        Error::TooLarge { .. } => "too large",
        Error::File { .. } => "file",
        Error::Sink { .. } => "sink",
        Error::Stopped => "stopped",
    }
}

#[test]
fn a_call_is_sent_as_it_is_described() {
    let server = Server::saying(201, &[("X-Odd", "1")], "{\"a\":1}");
    let Asker { client, .. } = asker(PATIENT, None);
    let (key, document) = (SecretString::from("k-1"), json!({ "b": [1] }));
    let headers = vec![("X-Own".to_owned(), "2".to_owned())];
    let (method, body) = (Method::Post, Body::Json(&document));
    let call = Call { method, url: server.url("/p?q=1"), key: Some(Key::Bearer(&key)), headers, body };
    let answer = client.send(&call).unwrap();
    assert_eq!((answer.status, answer.header("x-odd")), (201, Some("1")));
    assert_eq!(answer.json().unwrap(), json!({ "a": 1 }));
    let request = &server.requests()[0];
    assert_eq!((request.line().as_str(), request.json()), ("POST /p?q=1", document.clone()));
    assert_eq!(request.header("authorization"), Some("Bearer k-1"));
    assert_eq!(request.header("user-agent"), Some("ctxtune-test/1"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("x-own"), Some("2"));
    assert_eq!(request.header("accept-encoding"), None);
}

#[test]
fn every_method_frames_its_body() {
    let server = Server::saying(200, &[], "");
    let Asker { client, .. } = asker(PATIENT, None);
    for method in [Method::Get, Method::Delete, Method::Post] {
        client.send(&Call { method, ..get(server.url("/")) }).unwrap();
    }
    let fields = [("purpose", "fine-tune".to_owned())];
    let (method, body) = (Method::Post, Body::Form(&fields));
    client.send(&Call { method, body, ..get(server.url("/")) }).unwrap();
    let requests = server.requests();
    let lengths: Vec<_> = requests.iter().map(|request| request.header("content-length")).collect();
    assert_eq!(&lengths[..3], [None, Some("0"), Some("0")]);
    assert!(requests[3].header("content-type").unwrap().starts_with("multipart/form-data; boundary="));
    assert!(String::from_utf8_lossy(&requests[3].body).contains("name=\"purpose\"\r\n\r\nfine-tune\r\n"));
    assert!(requests.iter().all(|request| request.header("transfer-encoding").is_none()));
}

#[test]
fn no_connection_is_used_twice() {
    // One that the server has just closed would make a lost call out of a sound one.
    let server = Server::start(|exchange| {
        exchange.reply(200, &[("Connection", "keep-alive")], "{}");
        exchange.hang();
    });
    let Asker { client, .. } = asker(PATIENT, None);
    for _ in 0..3 {
        client.send(&get(server.url("/"))).unwrap();
    }
    assert_eq!((server.connections(), server.requests().len()), (3, 3));
}

#[test]
fn no_redirect_is_followed() {
    let server = Server::start(|exchange| {
        let location = exchange.url("/elsewhere");
        exchange.reply(302, &[("Location", &location)], "moved");
    });
    let Asker { client, .. } = asker(PATIENT, None);
    let answer = client.send(&get(server.url("/"))).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (302, b"moved".as_slice()));
    assert_eq!(server.lines(), ["GET /"]);
}

#[test]
fn a_call_is_repeated_through_the_clock_until_the_answer_is_worth_having() {
    let server = Server::start(|exchange| match exchange.index {
        0 => exchange.reply(503, &[("Retry-After", "7")], "busy"),
        1 => exchange.send("HTTP/1.1 200 OK\r\nContent-Le"),
        2 => exchange.reply(429, &[("Retry-After", "Tue, 24 Nov 2026 11:00:00 GMT")], ""),
        _ => exchange.reply(200, &[], "{}"),
    });
    let Asker { client, clock, told } = asker(PATIENT, None);
    let answer = client.repeat(&get(server.url("/a?secret=1"))).unwrap();
    assert_eq!((answer.status, server.requests().len()), (200, 4));
    let waits = clock.waits();
    assert_eq!((waits.len(), waits[0], waits[2]), (3, Duration::from_secs(7), Duration::from_secs(60)));
    assert!(waits[1] <= Duration::from_secs(1), "{waits:?}");
    let told = told.lock().unwrap();
    let left: Vec<u32> = told.iter().map(|notice| notice.tries_left).collect();
    assert_eq!(left, [4, 3, 2]);
    assert_eq!(told[0].what, format!("GET {}: 503", server.url("/a")));
    assert!(told.iter().all(|notice| !notice.what.contains("secret")), "{told:?}");
}

#[test]
fn the_last_answer_is_given_back_when_the_tries_are_used_up() {
    let server = Server::saying(500, &[], "still broken");
    let Asker { client, clock, .. } = asker(PATIENT, None);
    let answer = client.repeat(&get(server.url("/"))).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (500, b"still broken".as_slice()));
    assert_eq!((server.requests().len(), clock.waits().len()), (5, 4));
}

#[test]
fn what_is_no_use_is_not_repeated_and_one_try_is_one_try() {
    let server = Server::saying(400, &[], "");
    let Asker { client, clock, .. } = asker(PATIENT, None);
    assert_eq!(client.repeat(&get(server.url("/"))).unwrap().status, 400);
    let broken = Server::saying(503, &[], "");
    assert_eq!(client.send(&get(broken.url("/"))).unwrap().status, 503);
    assert_eq!((server.connections(), broken.connections(), clock.waits().len()), (1, 1, 0));
}

#[test]
fn a_server_that_is_not_there_was_not_sent_anything() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Asker { client, clock, .. } = asker(PATIENT, None);
    let url = format!("http://127.0.0.1:{port}/a?secret=1");
    let error = client.send(&get(url.clone())).unwrap_err();
    assert_eq!(kind(&error), "not sent", "{error}");
    assert_eq!(kind(&client.repeat(&get(url)).unwrap_err()), "not sent");
    assert_eq!(clock.waits().len(), 4);
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[test]
fn a_name_that_cannot_be_found_was_not_sent_anything() {
    let Asker { client, .. } = asker(PATIENT, None);
    let name = format!("http://{}.example/", "a".repeat(64)); // longer than a label may be
    let error = client.send(&get(name)).unwrap_err();
    assert_eq!(kind(&error), "not sent", "{error}");
}

#[test]
fn what_cannot_be_a_request_is_said_at_once_and_without_the_key() {
    let Asker { client, clock, .. } = asker(PATIENT, None);
    let key = SecretString::from("secret\nkey");
    let check = |call: Call<'_>| {
        let error = client.repeat(&call).unwrap_err();
        assert_eq!(kind(&error), "invalid", "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    };
    check(Call { key: Some(Key::Bearer(&key)), ..get("http://127.0.0.1:1/".to_owned()) });
    check(Call {
        headers: vec![("a b".to_owned(), "secret".to_owned())],
        ..get("http://127.0.0.1:1/".to_owned())
    });
    for url in ["", "/v1", "ftp://127.0.0.1/", "http:///x", "http://a b/?secret"] {
        check(get(url.to_owned()));
    }
    assert!(clock.waits().is_empty());
}

/// Calls a server that does `act`, hastily, and says what became of it.
#[track_caller]
fn check_hasty(
    act: impl Fn(&mut Exchange) + Send + Sync + 'static,
    expected: &str,
    call: impl Fn(&Asker, String) -> Result<(), Error>,
) {
    let server = Server::start(act);
    let asker = asker(HASTY, None);
    let begun = Instant::now();
    let error = call(&asker, server.url("/a?secret=1")).unwrap_err();
    let took = begun.elapsed();
    assert_eq!(kind(&error), expected, "{error}");
    assert!(took < Duration::from_secs(10), "{error} after {took:?}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
}

fn send(asker: &Asker, url: String) -> Result<(), Error> {
    asker.client.send(&get(url)).map(drop)
}

fn download(asker: &Asker, url: String) -> Result<(), Error> {
    asker.client.download(&get(url), &mut discard).map(drop)
}

/// More than fits into buffers.
fn upload(asker: &Asker, url: String) -> Result<(), Error> {
    let dir = tempfile::tempdir().unwrap();
    asker.client.send(&put(url, &file(&dir, 32 << 20))).map(drop)
}

fn upload_little(asker: &Asker, url: String) -> Result<(), Error> {
    let dir = tempfile::tempdir().unwrap();
    asker.client.send(&put(url, &file(&dir, 100_000))).map(drop)
}

#[test]
fn a_server_that_never_answers_is_lost() {
    check_hasty(Exchange::hang, "lost", send);
    check_hasty(Exchange::hang, "lost", download);
    check_hasty(Exchange::hang, "lost", upload);
    // Takes the file and says nothing.
    check_hasty(Exchange::hang, "lost", upload_little);
}

#[test]
fn a_server_that_answers_a_byte_at_a_time_is_lost() {
    let head = |exchange: &mut Exchange| {
        exchange.read_body();
        exchange.send("HTTP/1.1 200 O");
        exchange.trickle(b"O");
    };
    check_hasty(head, "lost", send);
    check_hasty(head, "lost", download);
    check_hasty(head, "lost", upload_little);
    let body = |exchange: &mut Exchange| {
        exchange.read_body();
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        exchange.trickle(b"x");
    };
    check_hasty(body, "lost", send);
    check_hasty(body, "lost", download);
    check_hasty(body, "lost", upload_little);
}

#[test]
fn endless_headers_are_lost() {
    let act = |exchange: &mut Exchange| {
        exchange.send("HTTP/1.1 200 OK\r\n");
        while exchange.stream.take_error().unwrap().is_none() {
            let line = format!("X: {}\r\n", "x".repeat(1000));
            if io::Write::write_all(&mut exchange.stream, line.as_bytes()).is_err() {
                return;
            }
        }
    };
    check_hasty(act, "lost", send);
    check_hasty(
        |exchange| {
            exchange.send("HTTP/1.1 200 OK\r\n");
            exchange.trickle(b"X: y\r\n")
        },
        "lost",
        send,
    );
    check_hasty(
        |exchange| {
            exchange.send("HTTP/1.1 200 OK\r\n");
            exchange.trickle(b"X: y\r\n")
        },
        "lost",
        download,
    );
}

#[test]
fn an_endless_body_is_too_large() {
    let server = Server::start(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        while io::Write::write_all(&mut exchange.stream, chunk.as_bytes()).is_ok() {}
    });
    let error = asker(PATIENT, None).client.send(&get(server.url("/"))).unwrap_err();
    assert_eq!(kind(&error), "too large", "{error}");
}

#[test]
fn an_answer_that_is_cut_is_lost() {
    let check = |answer: &'static str| {
        let server = Server::start(move |exchange| exchange.send(answer));
        let Asker { client, .. } = asker(PATIENT, None);
        let error = client.send(&get(server.url("/"))).unwrap_err();
        assert_eq!(kind(&error), "lost", "{answer:?}: {error}");
        let error = client.download(&get(server.url("/")), &mut discard).unwrap_err();
        assert_eq!(kind(&error), "lost", "{answer:?}: {error}");
    };
    check("");
    check("HTTP/1.1 200 OK");
    check("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc");
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc");
    check("this is no HTTP at all\r\n\r\n");
}

#[test]
fn a_reader_that_takes_a_byte_at_a_time_is_lost() {
    // Each write moves something, so that no timeout for a single one ends it.
    let act = |exchange: &mut Exchange| {
        exchange.send("HTTP/1.1 100 Continue\r\n\r\n");
        let mut byte = [0; 1];
        while io::Read::read(&mut exchange.stream, &mut byte).is_ok_and(|count| count > 0) {
            // There is always more to read: only a wait for a byte from nowhere takes time.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    check_hasty(act, "lost", upload);
}

#[test]
fn a_signal_ends_a_call_that_hangs() {
    let check = |act: fn(&mut Exchange), call: fn(&Asker, String) -> Result<(), Error>| {
        let (sender, hangs) = std::sync::mpsc::channel();
        let sender = std::sync::Mutex::new(sender);
        let server = Server::start(move |exchange| {
            let _ = sender.lock().unwrap().send(());
            act(exchange);
        });
        let asker = asker(PATIENT, None);
        let clock = std::sync::Arc::clone(&asker.clock);
        let signal = std::thread::spawn(move || {
            hangs.recv().unwrap();
            clock.stop();
            Instant::now()
        });
        let error = call(&asker, server.url("/")).unwrap_err();
        let took = signal.join().unwrap().elapsed();
        assert_eq!(kind(&error), "stopped", "{error}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    };
    check(Exchange::hang, send);
    check(Exchange::hang, download);
    check(Exchange::hang, upload);
    check(Exchange::hang, |asker, url| {
        asker.client.send(&Call { method: Method::Post, ..get(url) }).map(drop)
    });
    check(
        |exchange| {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
            exchange.trickle(b"x");
        },
        download,
    );
}

#[test]
fn after_a_signal_nothing_is_sent_and_nothing_repeated() {
    let server = Server::saying(503, &[], "");
    let asker = asker(PATIENT, None);
    asker.clock.stop();
    assert_eq!(kind(&send(&asker, server.url("/")).unwrap_err()), "stopped");
    assert_eq!((server.connections(), asker.clock.waits().len()), (0, 0));
}

#[test]
fn a_post_on_its_way_may_bring_its_answer_after_a_signal() {
    // An answer spares the next run the question whether it arrived.
    let asker = asker(PATIENT, None);
    let clock = std::sync::Arc::clone(&asker.clock);
    let server = Server::start(move |exchange| {
        clock.stop();
        exchange.pause(150);
        exchange.reply(200, &[], "{}");
    });
    let answer = asker.client.send(&Call { method: Method::Post, ..get(server.url("/")) });
    assert_eq!(answer.unwrap().status, 200);
}

#[test]
fn a_file_is_put_with_its_length_and_nothing_else() {
    let server = Server::start(|exchange| {
        exchange.read_body();
        exchange.reply(200, &[], "");
    });
    let dir = tempfile::tempdir().unwrap();
    let Asker { client, .. } = asker(PATIENT, None);
    for (index, length) in [0, 1, 100_000, 3 << 20].into_iter().enumerate() {
        let (body, most) = (file(&dir, length), AtomicU64::new(0));
        let progress = |bytes: u64| {
            most.fetch_max(bytes, Ordering::Relaxed);
        };
        let call = Call { body: Body::File(&body, &progress), ..put(server.url("/s"), &body) };
        assert_eq!(client.send(&call).unwrap().status, 200);
        assert_eq!(most.into_inner(), length as u64);
        let request = &server.requests()[index];
        assert_eq!(request.header("content-length"), Some(length.to_string().as_str()));
        assert_eq!(request.body.len(), length);
        for absent in ["transfer-encoding", "content-type", "authorization"] {
            assert_eq!(request.header(absent), None, "{absent}");
        }
    }
}

#[test]
fn a_file_that_shrinks_is_named_and_not_sent_again() {
    let server = Server::start(|exchange| exchange.read_body());
    let dir = tempfile::tempdir().unwrap();
    let Asker { client, clock, .. } = asker(PATIENT, None);
    let mut body = file(&dir, 1000);
    body.parts[0].len += 1;
    let error = client.repeat(&put(server.url("/"), &body)).unwrap_err();
    assert_eq!(kind(&error), "file", "{error}");
    assert!(error.to_string().contains(&dir.path().join("body").display().to_string()), "{error}");
    assert!(server.connections() <= 1 && clock.waits().is_empty());
}

#[test]
fn a_file_is_sent_from_its_beginning_at_each_try() {
    let server = Server::start(|exchange| match exchange.index {
        0 => exchange.read_of_body(1000),
        _ => exchange.reply(200, &[], ""),
    });
    let dir = tempfile::tempdir().unwrap();
    let body = file(&dir, 200_000);
    let answer = asker(PATIENT, None).client.repeat(&put(server.url("/"), &body)).unwrap();
    assert_eq!((answer.status, server.requests()[1].body.len()), (200, 200_000));
}

#[test]
fn a_storage_that_refuses_before_it_reads_is_heard() {
    let server = Server::start(|exchange| {
        exchange.send("HTTP/1.1 403 No\r\nContent-Length: 7\r\n\r\nexpired");
    });
    let dir = tempfile::tempdir().unwrap();
    let body = file(&dir, 8 << 20);
    let answer = asker(PATIENT, None).client.send(&put(server.url("/"), &body)).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (403, b"expired".as_slice()));
}

#[test]
fn a_storage_that_hangs_up_in_the_middle_is_lost() {
    let server = Server::start(|exchange| exchange.read_of_body(1 << 20));
    let dir = tempfile::tempdir().unwrap();
    let body = file(&dir, 16 << 20);
    let error = asker(PATIENT, None).client.send(&put(server.url("/"), &body)).unwrap_err();
    assert_eq!(kind(&error), "lost", "{error}");
}

#[test]
fn a_storage_that_cannot_be_asked_gets_the_file_unasked() {
    let server = Server::start(|exchange| match exchange.request.header("expect") {
        Some(_) => exchange.send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"),
        None => exchange.reply(200, &[], ""),
    });
    let dir = tempfile::tempdir().unwrap();
    let body = file(&dir, 2 << 20);
    assert_eq!(asker(PATIENT, None).client.send(&put(server.url("/"), &body)).unwrap().status, 200);
    assert_eq!(server.requests()[1].body.len(), 2 << 20);
}

#[test]
fn a_download_goes_to_its_receiver_and_other_answers_do_not() {
    let server = Server::start(|exchange| match exchange.request.target.as_str() {
        "/ok" => exchange.reply(200, &[], "x".repeat(1_000_000)),
        _ => exchange.reply(404, &[], "none"),
    });
    let Asker { client, .. } = asker(PATIENT, None);
    let mut received = 0;
    let mut sink = |bytes: &[u8]| {
        received += bytes.len();
        Ok(())
    };
    let answer = client.download(&get(server.url("/ok")), &mut sink).unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let answer = client.download(&get(server.url("/no")), &mut sink).unwrap();
    assert_eq!((answer.status, answer.body.as_slice(), received), (404, b"none".as_slice(), 1_000_000));
    let mut broken = |_: &[u8]| Err(io::Error::other("full"));
    let error = client.download(&get(server.url("/ok")), &mut broken).unwrap_err();
    assert_eq!((kind(&error), error.to_string().ends_with("full")), ("sink", true), "{error}");
}

#[test]
fn nothing_that_is_debugged_shows_a_secret() {
    let (key, document) = (SecretString::from("secret"), json!({ "wandb_key": "secret" }));
    let headers = vec![("X-Auth".to_owned(), "secret".to_owned())];
    let call = Call {
        key: Some(Key::Bearer(&key)),
        headers: headers.clone(),
        body: Body::Json(&document),
        ..get("https://a.example/p?sig=secret".to_owned())
    };
    let answer = ctxtune_service::http::Answer { status: 302, headers, body: b"secret".to_vec() };
    let client = asker(PATIENT, Some(proxy::parse("http://u:secret@127.0.0.1:1", "").unwrap())).client;
    let text = format!("{call:?} {answer:?} {client:?}");
    assert!(text.contains("https://a.example/p") && !text.contains("secret"), "{text}");
}

#[test]
fn the_default_timeouts_are_those_that_are_documented() {
    let Timeouts { connect, call, idle } = Timeouts::DEFAULT;
    assert_eq!([connect, call, idle].map(|it| it.as_secs()), [10, 60, 60]);
}
