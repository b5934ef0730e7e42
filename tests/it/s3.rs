//! Buckets, against an S3 server in memory, and through a proxy that commits the faults of networks and stores.

use std::collections::BTreeMap;
use std::io;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use ctxtune_engine::storage::{Object, Storage, Stores, Unusable};
use ctxtune_store::{Buckets, Settings};
use serde_json::json;

use crate::real_data::corpus as corpus_of_3533;
use crate::server::{Exchange, Server};
use crate::support::{
    Dir, Outcome, Tree, assert_same_tree, at_once, names as tree_names, python, record, repository, signal,
    skip, wait_until,
};

/// The server of this process.
pub struct Moto {
    port: u16,
    /// It ends when its standard input does.
    _process: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

static MOTO: LazyLock<Option<Moto>> = LazyLock::new(|| {
    let mut python = python()?;
    let server = python.arg(repository("tests/it/s3_server.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = server.stderr(Stdio::null()).spawn().unwrap();
    let (stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut port = String::new();
    stdout.read_line(&mut port).unwrap();
    let Ok(port) = port.trim().parse() else {
        child.wait().unwrap();
        return None;
    };
    Some(Moto { port, _process: child, pipes: Mutex::new((stdin, stdout)) })
});

const AUTHORIZED: &str = "Authorization: AWS4-HMAC-SHA256 Credential=K/20260101/us-east-1/s3/aws4_request";

impl Moto {
    /// The server, or a word that it is not here.
    pub fn get() -> Option<&'static Moto> {
        if MOTO.is_none() {
            skip("s3", "moto is not here: pip install 'moto[server]'");
        }
        MOTO.as_ref()
    }

    /// A bucket with objects whose content is their key.
    fn fill<K: AsRef<str>>(&self, bucket: &str, keys: impl IntoIterator<Item = K>) {
        let keys: Vec<String> = keys.into_iter().map(|key| key.as_ref().to_owned()).collect();
        let mut pipes = self.pipes.lock().unwrap();
        writeln!(pipes.0, "{}", json!({ "bucket": bucket, "keys": keys })).unwrap();
        pipes.1.read_line(&mut String::new()).unwrap();
    }

    /// The files below `dir`, as objects whose keys begin with `prefix`.
    pub fn upload(&self, bucket: &str, prefix: &str, dir: &Path) {
        let mut pipes = self.pipes.lock().unwrap();
        let order = json!({ "bucket": bucket, "keys": [], "prefix": prefix, "dir": dir });
        writeln!(pipes.0, "{order}").unwrap();
        pipes.1.read_line(&mut String::new()).unwrap();
    }

    /// The objects at `address`.
    fn tree(&self, address: &str) -> Tree {
        let storage = self.open(address);
        let objects = listed(&*storage, "");
        objects.iter().map(|object| (object.name.clone(), bytes_of(&*storage, object).unwrap())).collect()
    }

    /// The program in `dir`, with keys for this server.
    fn ctxtune(&self, dir: &Dir, arguments: &[&str]) -> Outcome {
        Outcome::of(command(dir, &self.url(), arguments))
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A shell's line that lets programs find this server.
    pub fn export(&self) -> String {
        let variables = settings(&self.url()).variables;
        variables.iter().map(|(name, value)| format!("export {name}='{value}'; ")).collect()
    }

    fn open(&self, address: &str) -> Arc<dyn Storage> {
        open(address, &settings(&self.url())).unwrap()
    }

    /// Whether the bucket has uploads that are open.
    fn has_open_uploads(&self, bucket: &str) -> bool {
        let answer = self.ask(&format!("GET /{bucket}?uploads= HTTP/1.1"), b"");
        assert!(answer.contains("ListMultipartUploadsResult"), "{answer}");
        answer.contains("<UploadId>")
    }

    fn ask(&self, line: &str, body: &[u8]) -> String {
        let head = format!(
            "{line}\r\nHost: s3\r\nContent-Length: {}\r\nConnection: close\r\n{AUTHORIZED}\r\n\r\n",
            body.len()
        );
        String::from_utf8(self.exchange(&[head.as_bytes(), body].concat())).unwrap()
    }

    fn exchange(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    /// What the server answers to a request that came elsewhere.
    fn answer(&self, exchange: &mut Exchange) -> Vec<u8> {
        exchange.read_body();
        let request = &exchange.request;
        let mut head = format!("{} HTTP/1.1\r\nConnection: close\r\n", request.line());
        for (name, value) in request.headers.iter().filter(|(name, _)| *name != "connection") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.exchange(&[format!("{head}\r\n").as_bytes(), &request.body].concat())
    }
}

/// Those of somebody with keys, who waits two seconds and asks ten times.
fn settings(endpoint: &str) -> Settings {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIDTEST"),
        ("AWS_SECRET_ACCESS_KEY", "SECRETTEST"),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_REGION", "us-east-1"),
    ];
    Settings {
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        home: None,
        proxy: None,
        aws: "no-such-command".into(),
        scratch: std::env::temp_dir(),
        patience: Duration::from_secs(2),
        now: || UNIX_EPOCH,
        is_stopped: Arc::new(|| false),
    }
}

fn open(address: &str, settings: &Settings) -> io::Result<Arc<dyn Storage>> {
    Buckets::new(settings.clone())?.open(address)
}

/// The program in `dir`, with keys for the server at `endpoint`.
fn command(dir: &Dir, endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = dir.command(arguments);
    command.envs(settings(endpoint).variables).env("HOME", dir.path("")).env("AWS_MAX_ATTEMPTS", "3");
    command
}

fn with(mut settings: Settings, name: &str, value: &str) -> Settings {
    settings.variables.insert(name.to_owned(), value.to_owned());
    settings
}

/// Settings without keys.
fn keyless(endpoint: &str) -> Settings {
    let mut settings = with(settings(endpoint), "AWS_METADATA_ENDPOINT", "http://127.0.0.1:9");
    settings.variables.retain(|name, _| !name.contains("KEY"));
    settings
}

fn keep<T>(all: &mut Vec<T>, one: T) -> io::Result<()> {
    all.push(one);
    Ok(())
}

fn listed(storage: &dyn Storage, prefix: &str) -> Vec<Object> {
    let mut objects = Vec::new();
    storage.list(prefix, &mut |object| keep(&mut objects, object)).unwrap();
    objects
}

fn names(storage: &dyn Storage) -> Vec<String> {
    listed(storage, "").into_iter().map(|object| object.name).collect()
}

fn put(storage: &dyn Storage, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut object = storage.begin()?;
    object.write_all(bytes)?;
    object.finish(name, true)
}

fn bytes_of(storage: &dyn Storage, object: &Object) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    storage.read_through(object, 0..object.bytes, &mut bytes).map(|()| bytes)
}

/// 17 MiB and some: two parts when it is put, three requests when it is read.
fn large() -> Vec<u8> {
    (0..(17_u32 << 20) + 5).map(|number| (number >> 3) as u8 ^ number as u8).collect()
}

#[test]
fn a_bucket_holds_objects_as_a_directory_does() {
    let Some(moto) = Moto::get() else { return };
    moto.fill("holds", ["p2/other", "p/"]);
    let storage = moto.open("s3://holds/p");
    assert!(storage.put_new("a", b"first", true).unwrap());
    assert!(!storage.put_new("a", b"second", true).unwrap());
    assert_eq!(storage.get("a").unwrap().unwrap(), b"first");
    assert_eq!(storage.get("b").unwrap(), None);
    let mut buffer = [0; 3];
    storage.read_at("a", 2, &mut buffer).unwrap();
    assert_eq!(&buffer, b"rst");
    for offset in [3, 5, 9] {
        let short = storage.read_at("a", offset, &mut buffer).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof, "{offset}: {short}");
    }
    assert_eq!(storage.read_at("b", 0, &mut buffer).unwrap_err().kind(), io::ErrorKind::NotFound);
    drop(storage.begin().unwrap());
    put(&*storage, "d/b", b"xy").unwrap();
    put(&*storage, "d/b", b"xyz").unwrap();
    assert_eq!(names(&*storage), ["a", "d/b"]);
    assert_eq!(storage.shown("d/b"), "s3://holds/p/d/b");
    let object = storage.find("d/b").unwrap().unwrap();
    assert_eq!((object.bytes, &object), (3, &listed(&*storage, "d/")[0]));
    assert_eq!(storage.find("d/").unwrap(), None);
    // From another place of the bucket, of another bucket, of this machine.
    moto.fill("other", [""; 0]);
    let (near, far) = (moto.open("s3://holds/copies"), moto.open("s3://other"));
    near.copy_from(&*storage, &object, "near", true).unwrap();
    far.copy_from(&*storage, &object, "far", true).unwrap();
    assert_eq!(near.get("near").unwrap().unwrap(), b"xyz");
    assert_eq!(far.get("far").unwrap().unwrap(), b"xyz");
    storage.delete("a").unwrap();
    storage.delete_all(&["a".to_owned(), "d/b".to_owned()]).unwrap();
    assert_eq!(names(&*storage), [""; 0]);
    assert_eq!(names(&*moto.open("s3://holds")), ["copies/near", "p2/other"]);
}

#[test]
fn one_of_sixteen_puts_an_object_where_there_is_none() {
    let Some(moto) = Moto::get() else { return };
    moto.fill("once", [""; 0]);
    let storages: Vec<_> = (0..16).map(|number| (moto.open("s3://once"), number)).collect();
    let won = at_once(storages, |(storage, number)| {
        let won = storage.put_new("commit", format!("{number}").as_bytes(), true).unwrap();
        won.then_some(number)
    });
    let winners: Vec<i32> = won.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    let commit = moto.open("s3://once").get("commit").unwrap().unwrap();
    assert_eq!(commit, winners[0].to_string().into_bytes());
}

#[test]
fn a_store_that_cannot_put_only_where_nothing_is_holds_objects_all_the_same() {
    let Some(moto) = Moto::get() else { return };
    moto.fill("simple", [""; 0]);
    let simple = Server::start(move |exchange| match exchange.request.header("if-none-match") {
        Some(_) => {
            exchange.reply(501, &[("Connection", "close")], "<Error><Code>NotImplemented</Code></Error>")
        }
        None => {
            let answer = moto.answer(exchange);
            exchange.send(answer);
        }
    });
    let settings = with(settings(&simple.url("")), "AWS_MAX_ATTEMPTS", "1");
    let storage = open("s3://simple", &settings).unwrap();
    assert!(storage.put_new("a", b"first", true).unwrap());
    assert!(!storage.put_new("a", b"second", true).unwrap());
    let disabled = open("s3://simple", &with(settings, "AWS_CONDITIONAL_PUT", "disabled")).unwrap();
    assert!(disabled.put_new("b", b"first", true).unwrap());
    assert!(!disabled.put_new("b", b"second", true).unwrap());
    assert_eq!(
        moto.tree("s3://simple"),
        [("a".to_owned(), b"first".to_vec()), ("b".to_owned(), b"first".to_vec())]
    );
}

#[test]
fn an_object_that_changed_since_it_was_listed_is_not_read() {
    let Some(moto) = Moto::get() else { return };
    moto.fill("pinned", ["aa", "odd//key"]);
    let storage = moto.open("s3://pinned");
    let objects = listed(&*storage, "");
    moto.ask("PUT /pinned/aa HTTP/1.1", b"bb");
    moto.ask("PUT /pinned/odd//key HTTP/1.1", b"odd//kex");
    for object in &objects {
        let error = bytes_of(&*storage, object).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StaleNetworkFileHandle, "{error}");
    }
    let longer = Object { bytes: 3, tag: String::new(), ..objects[0].clone() };
    let error = bytes_of(&*storage, &longer).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StaleNetworkFileHandle, "{error}");
    storage.delete("aa").unwrap();
    assert_eq!(bytes_of(&*storage, &objects[0]).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_large_object_goes_in_parts_and_leaves_no_upload_open() {
    let Some(moto) = Moto::get() else { return };
    moto.fill("large", [""; 0]);
    let (storage, bytes) = (moto.open("s3://large"), large());
    put(&*storage, "whole", &bytes).unwrap();
    let object = storage.find("whole").unwrap().unwrap();
    assert!(object.tag.contains("-2"), "{object:?} is not of two parts");
    assert_eq!(storage.requests(&object), 3);
    assert!(bytes_of(&*storage, &object).unwrap() == bytes);
    put(&*storage, "x", b"x").unwrap();
    let mut read = Vec::new();
    let objects = listed(&*storage, "");
    storage.read_all(&objects, &mut |number, bytes| keep(&mut read, (number, bytes.to_vec()))).unwrap();
    assert!(read == [(0, bytes.clone()), (1, b"x".to_vec())]);
    // The second part is refused for good.
    let refusing = Server::start(move |exchange| match exchange.request.target.contains("partNumber=2") {
        true => exchange.reply(403, &[("Connection", "close")], "<Error><Code>AccessDenied</Code></Error>"),
        false => {
            let answer = moto.answer(exchange);
            exchange.send(answer);
        }
    });
    let refused = open("s3://large", &settings(&refusing.url(""))).unwrap();
    let error = put(&*refused, "half", &bytes).unwrap_err();
    assert!(matches!(Unusable::within(&error), Some(Unusable::Key { .. })), "{error}");
    assert!(refusing.lines().iter().any(|line| line.starts_with("DELETE /large/half?uploadId=")));
    assert!(!moto.has_open_uploads("large"));
    assert_eq!(names(&*storage), ["whole", "x"]);
    // What somebody left who was killed.
    moto.ask("POST /large/left/by%20a?uploads= HTTP/1.1", b"");
    moto.ask("POST /large/kept?uploads= HTTP/1.1", b"");
    moto.open("s3://large/left").end_unfinished().unwrap();
    assert!(moto.has_open_uploads("large"));
    storage.end_unfinished().unwrap();
    assert!(!moto.has_open_uploads("large"));
}

#[test]
fn every_key_is_listed_and_read_whatever_it_is_called() {
    let Some(moto) = Moto::get() else { return };
    let odd = [
        "//a",
        "/lead",
        "a",
        "a b+c%20&d=é.json",
        "a b/",
        "a-b",
        "a.c",
        "a/x",
        "a//x",
        "caf\u{e9}",
        "cafe\u{301}",
        "q\"<&>'`\\",
        "tab\there",
        "\u{1}",
        "trail /x ",
        "%",
        "%2F",
        "~",
        "🦀",
    ];
    moto.fill(
        "odd",
        odd.iter().map(|key| format!("p/{key}")).chain(["p".to_owned(), "p/folder/".to_owned()]),
    );
    let storage = moto.open("s3://odd/p/");
    // What has no bytes and ends in a slash shows a folder.
    let mut expected: Vec<&str> = odd.iter().copied().filter(|key| !key.ends_with('/')).collect();
    expected.sort_unstable();
    assert_eq!(names(&*storage), expected);
    let objects = listed(&*storage, "");
    let mut read = Vec::new();
    storage
        .read_all(&objects, &mut |_, bytes| keep(&mut read, String::from_utf8(bytes.to_vec()).unwrap()))
        .unwrap();
    assert_eq!(read, expected.iter().map(|key| format!("p/{key}")).collect::<Vec<_>>());
    for key in &expected {
        assert_eq!(storage.find(key).unwrap().unwrap().name, *key);
        let mut last = [0];
        storage.read_at(key, key.len() as u64 + 1, &mut last).unwrap();
        assert_eq!(last[0], *key.as_bytes().last().unwrap());
    }
    // Which a URL cannot hold.
    moto.fill("odd", ["q/a/../b"]);
    let storage_of_dots = moto.open("s3://odd/q");
    let error = bytes_of(&*storage_of_dots, &listed(&*storage_of_dots, "")[0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    let error = storage.put_new("a//b", b"", true).unwrap_err();
    assert!(error.to_string().contains("the key `p/a//b`"), "{error}");
}

#[test]
fn thousands_of_keys_are_listed_at_once_and_each_once() {
    let Some(moto) = Moto::get() else { return };
    let mut expected: Vec<String> = (0..5_300).map(|number| format!("{number:06}.json")).collect();
    expected.extend((0..2_100).map(|number| format!("d{}/{number}", number % 7)));
    moto.fill("thousands", expected.iter().map(|key| format!("in/{key}")).chain(["in0".to_owned()]));
    let through = Server::start(move |exchange| {
        let answer = moto.answer(exchange);
        exchange.send(answer);
    });
    let storage = open("s3://thousands/in", &settings(&through.url(""))).unwrap();
    let mut found = Vec::new();
    storage.list_unordered(&mut |object| keep(&mut found, object.name)).unwrap();
    found.sort_unstable();
    expected.sort_unstable();
    assert!(found == expected, "{} of {}", found.len(), expected.len());
    let lines = through.lines();
    let after = |line: &&String| line.contains("max-keys=1000") && line.contains("start-after=in%2Fd");
    assert!(lines.iter().find(|line| line.contains("start-after")).is_some(), "{lines:#?}");
    assert!(lines.iter().any(|line| after(&line)), "{lines:#?}");
    assert!(names(&*storage) == expected);
}

/// A proxy that commits a fault at every second request of a kind, the first included.
fn faulty(moto: &'static Moto, fault: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Server {
    let seen: Mutex<BTreeMap<String, usize>> = Mutex::default();
    Server::start(move |exchange| {
        let times = {
            let mut seen = seen.lock().unwrap();
            // Each upload has an id of its own.
            let line = exchange.request.line();
            let line = line.split("uploadId=").next().unwrap();
            let times = seen.entry(line.to_owned()).or_default();
            *times += 1;
            *times
        };
        if times % 2 == 1 {
            return fault(exchange);
        }
        let answer = moto.answer(exchange);
        exchange.send(answer);
    })
}

/// Everything that is asked of a store, through `proxy`.
fn works_through(moto: &'static Moto, proxy: &Server, bucket: &str) {
    moto.fill(bucket, (0..40).map(|number| format!("in/{number}")).chain(["in/odd//key".to_owned()]));
    let storage = open(&format!("s3://{bucket}"), &settings(&proxy.url(""))).unwrap();
    let objects = listed(&*storage, "in/");
    assert_eq!(objects.len(), 41);
    let mut read = Vec::new();
    storage.read_all(&objects, &mut |number, bytes| keep(&mut read, (number, bytes.to_vec()))).unwrap();
    let expected: Vec<_> =
        objects.iter().map(|object| object.name.clone().into_bytes()).enumerate().collect();
    assert!(read == expected);
    let bytes = large();
    put(&*storage, "out/large", &bytes).unwrap();
    put(&*storage, "out/small", b"small").unwrap();
    let object = storage.find("out/large").unwrap().unwrap();
    assert!(bytes_of(&*storage, &object).unwrap() == bytes);
    let won = storage.put_new("out/commit", b"commit", true).unwrap();
    // Where the answer is lost it is not known who has put it.
    assert_eq!(storage.get("out/commit").unwrap().unwrap(), b"commit");
    assert!(!storage.put_new("out/commit", b"other", true).unwrap() || !won);
    storage.copy_from(&*storage, &object, "out/copy", true).unwrap();
    assert_eq!(storage.find("out/copy").unwrap().unwrap().bytes, bytes.len() as u64);
    storage.delete_all(&["out/large".to_owned(), "out/small".to_owned()]).unwrap();
    assert_eq!(listed(&*storage, "out/").len(), 2);
    // One may be open whose id was in a lost answer.
    storage.end_unfinished().unwrap();
    assert!(!moto.has_open_uploads(bucket));
}

#[test]
fn a_store_that_asks_to_slow_down_is_asked_again() {
    let Some(moto) = Moto::get() else { return };
    let proxy = faulty(moto, |exchange| {
        let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
        exchange.reply(503, &[("Connection", "close")], body);
    });
    works_through(moto, &proxy, "slow-down");
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let Some(moto) = Moto::get() else { return };
    // The request is done, and its connection closed without a word.
    let proxy = faulty(moto, move |exchange| drop(moto.answer(exchange)));
    works_through(moto, &proxy, "lost");
}

#[test]
fn a_body_that_ends_early_is_read_on() {
    let Some(moto) = Moto::get() else { return };
    let proxy = faulty(moto, move |exchange| {
        let answer = moto.answer(exchange);
        exchange.send(&answer[..answer.len() - 1]);
    });
    works_through(moto, &proxy, "cut");
}

#[test]
fn a_body_that_stops_coming_is_asked_for_again() {
    let Some(moto) = Moto::get() else { return };
    moto.fill("stops", ["a", "b", "c//d"]);
    let proxy = faulty(moto, move |exchange| {
        let answer = moto.answer(exchange);
        exchange.send(&answer[..answer.len() - 1]);
        exchange.hang();
    });
    let hasty = Settings { patience: Duration::from_millis(300), ..settings(&proxy.url("")) };
    let storage = open("s3://stops", &hasty).unwrap();
    for object in listed(&*storage, "") {
        assert_eq!(bytes_of(&*storage, &object).unwrap(), object.name.as_bytes());
    }
}

#[test]
fn a_store_that_is_gone_is_said_with_what_the_system_said() {
    let Some(moto) = Moto::get() else { return };
    moto.fill("gone", ["a"]);
    let is_gone = Arc::new(AtomicBool::new(false));
    let gone = Arc::clone(&is_gone);
    let proxy = Server::start(move |exchange| {
        if !gone.load(Ordering::SeqCst) {
            let answer = moto.answer(exchange);
            exchange.send(answer);
        }
    });
    let storage = open("s3://gone", &with(settings(&proxy.url("")), "AWS_MAX_ATTEMPTS", "2")).unwrap();
    let object = storage.find("a").unwrap().unwrap();
    is_gone.store(true, Ordering::SeqCst);
    let before = proxy.lines().len();
    let error = bytes_of(&*storage, &object).unwrap_err();
    assert_eq!(proxy.lines().len() - before, 2);
    assert!(Unusable::within(&error).is_none(), "{error}");
}

#[test]
fn a_bucket_that_is_not_there_is_no_trouble_of_the_network() {
    let Some(moto) = Moto::get() else { return };
    let error = open("s3://not-there/p", &settings(&moto.url())).unwrap_err();
    let Some(Unusable::NoBucket { bucket, .. }) = Unusable::within(&error) else { panic!("{error}") };
    assert_eq!(bucket, "not-there");
    assert!(
        error.to_string().starts_with("the bucket `not-there` does not exist: 404 Not Found: NoSuchBucket"),
        "{error}"
    );
}

#[test]
fn an_endpoint_off_this_machine_is_encrypted_unless_told() {
    let refused = open("s3://b", &settings("http://store.example:1")).unwrap_err();
    assert!(matches!(Unusable::within(&refused), Some(Unusable::Address(_))), "{refused}");
    assert!(refused.to_string().contains("AWS_ALLOW_HTTP=true"), "{refused}");
    let unreadable =
        open("s3://b", &with(settings("http://127.0.0.1:9"), "AWS_MAX_ATTEMPTS", "0")).unwrap_err();
    assert!(matches!(Unusable::within(&unreadable), Some(Unusable::Address(_))), "{unreadable}");
}

#[test]
fn a_refusal_shows_neither_keys_nor_tokens() {
    let server = Server::saying(
        403,
        &[("Connection", "close")],
        "<Error><Code>InvalidToken</Code><Message>The provided token is malformed.</Message><Token-0>TOKENTEST</Token-0>\
         <AWSAccessKeyId>AKIDTEST</AWSAccessKeyId></Error>",
    );
    let settings = with(settings(&server.url("")), "AWS_SESSION_TOKEN", "TOKENTEST");
    let error = open("s3://b", &settings).unwrap_err();
    let Some(Unusable::Key { message, hint }) = Unusable::within(&error) else { panic!("{error}") };
    assert_eq!(
        message,
        "the store refuses the credentials: 403 Forbidden: InvalidToken: The provided token is malformed."
    );
    assert!(hint.contains("aws configure export-credentials --format env"), "{hint}");
    assert!(server.requests()[0].header("authorization").unwrap().contains("AKIDTEST"));
}

const EMPTY: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

#[test]
fn a_bucket_of_another_region_is_asked_there() {
    let server = Server::start(|exchange| {
        let is_there = exchange.request.header("authorization").unwrap().contains("/eu-west-1/s3/");
        let elsewhere = [("x-amz-bucket-region", "eu-west-1"), ("Connection", "close")];
        match is_there {
            true => exchange.reply(200, &elsewhere[1..], EMPTY),
            false => exchange.reply(301, &elsewhere, "<Error><Code>PermanentRedirect</Code></Error>"),
        }
    });
    open("s3://b", &settings(&server.url(""))).unwrap();
    assert_eq!(server.lines().len(), 2);
}

#[test]
fn who_has_no_key_is_told_how_to_get_one() {
    let error = open("s3://b", &keyless("http://127.0.0.1:9")).unwrap_err();
    let Some(Unusable::Key { message, hint }) = Unusable::within(&error) else { panic!("{error}") };
    assert!(message.starts_with("no credentials for `s3://b/`: "), "{message}");
    assert!(hint.contains("aws configure export-credentials --format env"), "{hint}");
    let metadata = Server::start(Exchange::hang);
    let off = with(keyless("http://127.0.0.1:9"), "AWS_METADATA_ENDPOINT", &metadata.url(""));
    let error = open("s3://b", &with(off, "AWS_EC2_METADATA_DISABLED", "true")).unwrap_err();
    assert_eq!(error.to_string(), "no credentials for `s3://b/`: no variable and no profile has any");
    assert!(metadata.lines().is_empty());
    let named = with(keyless("http://127.0.0.1:9"), "AWS_PROFILE", "team");
    let error = open("s3://b", &named).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no credentials for `s3://b/`: no credentials of the profile `team`: the AWS CLI, `aws`, which knows profiles, is \
         not here"
    );
}

#[test]
fn an_instance_knows_its_own_credentials() {
    let metadata = Server::start(|exchange| {
        let close = [("Connection", "close")];
        match exchange.request.line().as_str() {
            "PUT /latest/api/token" => exchange.reply(200, &close, "metadata-token"),
            "GET /latest/meta-data/iam/security-credentials/" => exchange.reply(200, &close, "role"),
            _ => {
                let credentials = json!({
                    "AccessKeyId": "AKIDINSTANCE", "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z",
                });
                exchange.reply(200, &close, credentials.to_string());
            }
        }
    });
    let store = Server::saying(200, &[("Connection", "close")], EMPTY);
    open("s3://b", &with(keyless(&store.url("")), "AWS_METADATA_ENDPOINT", &metadata.url(""))).unwrap();
    let request = &store.requests()[0];
    assert!(request.header("authorization").unwrap().contains("Credential=AKIDINSTANCE/"));
    assert_eq!(request.header("x-amz-security-token"), Some("t"));
}

/// Seconds since 1970, on the clock of the test below.
static NOW: AtomicUsize = AtomicUsize::new(0);

#[test]
#[cfg(unix)]
fn the_keys_of_a_profile_are_asked_for_again_before_they_end() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    let script = "#!/bin/sh\necho \"$@\" >>calls\n[ -e broken ] && { echo 'the session has ended' >&2; exit 255; }\n\
                  n=$(wc -l <calls)\necho '{\"Version\": 1, \"AccessKeyId\": \"AKID'$n'\", \"SecretAccessKey\": \"s\", \
                  \"SessionToken\": \"t\", \"Expiration\": \"1970-01-01T01:00:0'$n'Z\"}'\n";
    let aws = dir.write(
        "aws",
        script
            .replace("calls", &dir.path("calls").display().to_string())
            .replace("broken", &dir.path("broken").display().to_string()),
    );
    std::fs::set_permissions(&aws, std::fs::Permissions::from_mode(0o755)).unwrap();
    dir.write(".aws/config", "[default]\nregion = eu-west-1\n");
    let store = Server::saying(200, &[("Connection", "close")], EMPTY);
    let settings = Settings {
        home: Some(dir.path("")),
        aws: aws.into(),
        now: || UNIX_EPOCH + Duration::from_secs(NOW.load(Ordering::SeqCst) as u64),
        ..keyless(&store.url(""))
    };
    let storage = open("s3://b", &settings).unwrap();
    let asked_at = |second: usize| {
        NOW.store(second, Ordering::SeqCst);
        storage.find("a").map(|_| {
            let requests = store.requests();
            let text = requests.last().unwrap().header("authorization").unwrap();
            text.split(['=', '/']).nth(1).unwrap().to_owned()
        })
    };
    assert_eq!(asked_at(2_000).unwrap(), "AKID1");
    assert_eq!(asked_at(3_000).unwrap(), "AKID2");
    dir.write("broken", "");
    assert_eq!(asked_at(3_599).unwrap(), "AKID2");
    assert_eq!(dir.read("calls").lines().next(), Some("configure export-credentials --format process"));
    let error = open("s3://b", &settings).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no credentials for `s3://b/`: no credentials of the profile `default`: the session has ended"
    );
}

#[test]
fn who_is_asked_to_stop_waits_for_no_answer() {
    let server = Server::start(Exchange::hang);
    let begun = Instant::now();
    let patient = Settings {
        patience: Duration::from_secs(600),
        is_stopped: Arc::new(move || begun.elapsed() > Duration::from_millis(300)),
        ..settings(&server.url(""))
    };
    assert_eq!(open("s3://b", &patient).unwrap_err().kind(), io::ErrorKind::Interrupted);
}

/// A corpus of every kind: records, containers, what is not read.
fn corpus(dir: &Dir) {
    dir.corpus(30);
    let lines =
        |from: usize| (from..from + 20).map(|number| record(number).to_string() + "\n").collect::<String>();
    dir.write("corpus/a/b.jsonl", lines(100));
    dir.write("corpus/a-b/more.jsonl.zst", zstd::encode_all(lines(200).as_bytes(), 1).unwrap());
    let mut builder = tar::Builder::new(Vec::new());
    for number in 0..10 {
        let text = record(300 + number).to_string();
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, format!("{number}/x.json"), text.as_bytes()).unwrap();
    }
    dir.write("corpus/packed.tar", builder.into_inner().unwrap());
    dir.write("corpus/bad.json", "{}");
    dir.write("corpus/large.json", record(500).to_string() + &" ".repeat(9_000));
    dir.write("corpus/a b%20+\u{e9}.json", record(400).to_string());
    dir.write("corpus/.hidden/0.json", "no");
    dir.write("corpus/z.json/0.json", "no");
    dir.write("corpus/notes.txt", "no");
    dir.chat_lines("general.jsonl", 20);
}

const HOW: [&str; 9] = [
    "--containers",
    "--max-record-bytes=9000",
    "--max-rejects",
    "5",
    "--shard-records",
    "20",
    "--val-ratio",
    "0.2",
    "--seed=7",
];

#[test]
fn from_a_bucket_to_a_bucket_the_bytes_are_those_of_a_directory() {
    let Some(moto) = Moto::get() else { return };
    let dir = Dir::new();
    corpus(&dir);
    moto.upload("to-bucket", "in/corpus/", &dir.path("corpus"));
    dir.ctxtune([&["prepare", "corpus", "-o", "out", "--mix", "general.jsonl=3"][..], &HOW].concat())
        .expect(0);
    let expected = dir.tree("out");
    let [from, to, parts] = ["s3://to-bucket/in/corpus", "s3://to-bucket/out", "--part-bytes=9000"];
    let bucket = [&["prepare", from, "-o", to, "--mix", "general.jsonl=3", parts][..], &HOW].concat();
    let run = moto.ctxtune(&dir, &bucket).expect(0);
    assert!(run.stderr.contains("reads     36 objects, "), "{}", run.stderr);
    assert!(run.stderr.contains("by 36 requests"), "{}", run.stderr);
    assert_eq!(run.stdout, format!("{to}\n"));
    assert_same_tree(&moto.tree(to), &expected, "from bucket to bucket");
    assert!(moto.tree("s3://to-bucket/out.ctxtune-work").is_empty(), "WORK goes");
    assert!(!moto.has_open_uploads("to-bucket"));
    // Once more nothing is touched.
    let run = moto.ctxtune(&dir, &[&bucket[..], &["--json"]].concat()).expect(0);
    assert_eq!(run.json()["published"], "unchanged");
    // Another result is not written over it, nor over what is not ours.
    let run = moto.ctxtune(&dir, &[&bucket[..7], &["--containers", "--seed=8", "--json"]].concat()).expect(2);
    assert_eq!(run.json()["error"]["code"], "other_result");
    assert_same_tree(&moto.tree(to), &expected, "untouched");
    moto.fill("to-bucket", ["foreign/x"]);
    let run = moto.ctxtune(&dir, &["prepare", "corpus", "-o", "s3://to-bucket/foreign", "--json"]).expect(1);
    assert_eq!(run.json()["error"]["code"], "foreign_file");
    // From a bucket to this machine, and from this machine to a bucket.
    moto.ctxtune(&dir, &[&["prepare", from, "-o", "here", "--mix", "general.jsonl=3"][..], &HOW].concat())
        .expect(0);
    assert_same_tree(&dir.tree("here"), &expected, "from a bucket");
    let there = "s3://to-bucket/there";
    moto.ctxtune(&dir, &[&["prepare", "corpus", "-o", there, "--mix", "general.jsonl=3"][..], &HOW].concat())
        .expect(0);
    assert_same_tree(&moto.tree(there), &expected, "to a bucket");
    // It is checked there, by its own name.
    let run = moto.ctxtune(&dir, &["check", there, "--json"]).expect(0);
    assert_eq!(run.json()["paths"][0], there);
    assert!(run.json()["files"][0]["file"].as_str().unwrap().starts_with("s3://to-bucket/there/train-"));
    let run = moto.ctxtune(&dir, &["submit", there, "--json"]).expect(2);
    assert!(run.json()["error"]["hint"].as_str().unwrap().contains("`aws s3 sync s3://to-bucket/there DIR`"));
}

#[test]
fn sources_in_a_bucket_are_named_as_files_are() {
    let Some(moto) = Moto::get() else { return };
    let dir = Dir::new();
    corpus(&dir);
    moto.upload("named", "corpus/", &dir.path("corpus"));
    let prepare = |sources: &[&str], out: &str| {
        let how = ["-o", out, "--part-bytes", "4000", "--scratch-dir", "."];
        moto.ctxtune(&dir, &[&["prepare"][..], sources, &how].concat()).expect(0);
        dir.tree(out)
    };
    let local = prepare(&["corpus/a/b.jsonl", "corpus/packed.tar"], "local");
    let names = ["s3://named/corpus/a/b.jsonl", "s3://named/corpus/packed.tar"];
    assert_same_tree(&prepare(&names, "remote"), &local, "containers by name");
    dir.write("list", names.join("\n"));
    assert_same_tree(&prepare(&["--files-from", "list"], "listed"), &local, "a list");
    assert_same_tree(&prepare(&["corpus/a/b.jsonl", names[1]], "mixed"), &local, "here and there");
    let local = prepare(&["corpus/1.json", "corpus/10.json"], "local-2");
    let remote = prepare(&["s3://named/corpus/1*.json"], "remote-2");
    assert_eq!(tree_names(&remote), tree_names(&local));
    // What is mixed in may lie there too; the manifest says where.
    let mixed = |general: &str, out: &str| {
        let mut tree = prepare(&["corpus/a/b.jsonl", "--mix", &format!("{general}=5")], out);
        tree.retain(|(name, _)| name != "manifest.json" && name != "README.md");
        tree
    };
    moto.upload(
        "named",
        "general/",
        dir.write("general/general.jsonl", dir.read("general.jsonl")).parent().unwrap(),
    );
    let local = mixed("general.jsonl", "local-3");
    assert_same_tree(&mixed("s3://named/general/general.jsonl", "remote-3"), &local, "mixed in");
    let run = moto.ctxtune(&dir, &["prepare", "s3://named/corpus/x*", "-o", "none", "--json"]).expect(2);
    assert!(run.json()["error"]["message"].as_str().unwrap().contains("nothing matches"), "{}", run.stdout);
}

#[test]
fn a_dry_run_of_a_bucket_only_lists() {
    let Some(moto) = Moto::get() else { return };
    let dir = Dir::new();
    corpus(&dir);
    moto.upload("dry", "corpus/", &dir.path("corpus"));
    let through = Server::start(move |exchange| {
        let answer = moto.answer(exchange);
        exchange.send(answer);
    });
    let arguments = ["prepare", "s3://dry/corpus", "--dry-run", "--json"];
    let run = Outcome::of(command(&dir, &through.url(""), &arguments)).expect(0);
    assert_eq!((&run.json()["objects"], &run.json()["requests"]), (&json!(33), &json!(33)));
    assert!(through.lines().iter().all(|line| line.contains("list-type=2")), "{:?}", through.lines());
}

#[test]
fn an_object_that_changed_since_the_plan_is_an_error_of_the_data() {
    let Some(moto) = Moto::get() else { return };
    let dir = Dir::new();
    dir.corpus(4);
    moto.upload("changing", "in/", &dir.path("corpus"));
    let plan = |work: &str| {
        let plan = ["distributed", "plan", "s3://changing/in", "-o", "s3://changing/out", "--work-dir", work];
        moto.ctxtune(&dir, &plan).expect(0);
    };
    let [one, two] = ["s3://changing/one", "s3://changing/two"];
    plan(one);
    plan(two);
    moto.ask("PUT /changing/in/2.json HTTP/1.1", record(77).to_string().as_bytes());
    let run = moto.ctxtune(&dir, &["distributed", "convert", "--work-dir", one, "--part", "0"]).expect(3);
    assert!(run.stderr.contains("`s3://changing/in/2.json` changed"), "{}", run.stderr);
    moto.open("s3://changing/in").delete("2.json").unwrap();
    moto.ctxtune(&dir, &["distributed", "convert", "--work-dir", two, "--part", "0"]).expect(3);
    let missing = ["distributed", "status", "--work-dir", two, "--missing", "parts"];
    assert_eq!(moto.ctxtune(&dir, &missing).expect(0).stdout, "0\n");
}

#[test]
fn a_run_whose_store_is_away_goes_on_where_it_was() {
    let Some(moto) = Moto::get() else { return };
    let dir = Dir::new();
    dir.corpus(40);
    moto.upload("away", "in/", &dir.path("corpus"));
    dir.prepare(&["--shard-records", "8"]).expect(0);
    // Away after ever more requests.
    let left = Arc::new(AtomicUsize::new(0));
    let rest = Arc::clone(&left);
    let through = Server::start(move |exchange| {
        if rest.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            let answer = moto.answer(exchange);
            exchange.send(answer);
        }
    });
    let arguments = [
        "prepare",
        "s3://away/in",
        "-o",
        "s3://away/out",
        "--shard-records",
        "8",
        "--part-bytes",
        "2000",
        "--no-sync",
    ];
    let mut runs = 0;
    for requests in (10..).step_by(25) {
        left.store(requests, Ordering::SeqCst);
        let mut command = command(&dir, &through.url(""), &arguments);
        command.env("AWS_MAX_ATTEMPTS", "1");
        let run = Outcome::of(command);
        runs += 1;
        match run.code {
            Some(0) => break,
            code => assert_eq!(code, Some(5), "{}", run.stderr),
        }
    }
    assert!(runs > 3, "{runs}");
    assert_same_tree(&moto.tree("s3://away/out"), &dir.tree("out"), "after all");
}

#[test]
#[cfg(unix)]
fn an_interrupt_waits_for_no_store() {
    let Some(moto) = Moto::get() else { return };
    let dir = Dir::new();
    dir.corpus(3);
    moto.upload("hangs", "in/", &dir.path("corpus"));
    let hanging = Server::start(move |exchange| match exchange.request.target.starts_with("/hangs/in/") {
        true => exchange.hang(),
        false => {
            let answer = moto.answer(exchange);
            exchange.send(answer);
        }
    });
    let arguments = ["prepare", "s3://hangs/in", "-o", "out"];
    let mut child = command(&dir, &hanging.url(""), &arguments).stderr(Stdio::null()).spawn().unwrap();
    wait_until(&mut child, || hanging.lines().iter().any(|line| line.starts_with("GET /hangs/in/")));
    signal(child.id(), "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!dir.exists("out"));
}

#[test]
fn a_failed_run_leaves_its_rejects_in_the_bucket() {
    let Some(moto) = Moto::get() else { return };
    let dir = Dir::new();
    dir.corpus(2).write("corpus/bad.json", "{}");
    moto.upload("failed", "in/", &dir.path("corpus"));
    let arguments = ["prepare", "s3://failed/in", "-o", "s3://failed/out", "--json"];
    let run = moto.ctxtune(&dir, &arguments).expect(3);
    assert_eq!(run.json()["rejects_file"], "s3://failed/out/rejects-failed.jsonl");
    dir.prepare(&[]).expect(3);
    assert_same_tree(&moto.tree("s3://failed/out"), &dir.tree("out"), "failed");
    let arguments = [&arguments[..], &["--max-rejects", "1", "--work-dir", "s3://failed/other"]].concat();
    moto.ctxtune(&dir, &arguments).expect(0);
    assert!(moto.open("s3://failed/out").find("rejects-failed.jsonl").unwrap().is_none());
}

#[test]
fn what_a_bucket_needs_is_said_by_the_exit_code() {
    let Some(moto) = Moto::get() else { return };
    let dir = Dir::new();
    let check = |command: &mut Command, exit: i32, code: &str| {
        let run = Outcome::from(command.output().unwrap()).expect(exit);
        assert_eq!(run.json()["error"]["code"], code, "{}", run.stdout);
        assert!(!run.stderr.contains("SECRETTEST") && !run.stdout.contains("SECRETTEST"));
    };
    let prepare = ["prepare", "s3://not-there/in", "-o", "out", "--json"];
    check(&mut command(&dir, &moto.url(), &prepare), 2, "no_bucket");
    let mut keyless = command(&dir, &moto.url(), &prepare);
    keyless.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    check(keyless.env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9"), 4, "store_key");
    check(command(&dir, "http://127.0.0.1:9", &prepare).env("AWS_MAX_ATTEMPTS", "1"), 5, "read");
    moto.fill("there", ["in/x.txt"]);
    check(
        &mut command(&dir, &moto.url(), &["prepare", "s3://there/in", "-o", "out", "--json"]),
        3,
        "nothing_listed",
    );
    let whole = ["prepare", "s3://there/in", "-o", "s3://there", "--json"];
    check(&mut command(&dir, &moto.url(), &whole), 2, "work_dir");
    let within = ["prepare", "s3://there/in", "-o", "out", "--work-dir", "s3://there/in/work", "--json"];
    check(&mut command(&dir, &moto.url(), &within), 2, "work_dir");
}

#[test]
fn the_published_records_go_from_bucket_to_bucket() {
    let (Some(data), Some(moto)) = (corpus_of_3533(), Moto::get()) else { return };
    let dir = Dir::new();
    moto.upload("published", "in/", data);
    dir.ctxtune(["prepare", data.to_str().unwrap(), "-o", "out"]).expect(0);
    moto.ctxtune(&dir, &["prepare", "s3://published/in", "-o", "s3://published/out"]).expect(0);
    assert_same_tree(&moto.tree("s3://published/out"), &dir.tree("out"), "the published records");
}
