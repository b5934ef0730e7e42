//! How many objects a second are read from a bucket, beside a plain loop of as many requests at once.
//!
//! The server is on this machine, and takes 40 ms for each answer, as a store does: scripts/bench_bucket.sh runs it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement fails by panicking, and prints")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use ctxtune_engine::storage::Stores;
use ctxtune_store::{Buckets, Settings};

const OBJECTS: usize = 20_000;
const BYTES: usize = 8_600;
const AT_ONCE: usize = 256;
const LATENCY: Duration = Duration::from_millis(40);

/// The head of a request, without what ends it; `None` at the end of the connection.
fn head(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let (mut head, mut line) = (String::new(), String::new());
    while stream.read_line(&mut line).ok()? > 2 {
        head.push_str(&std::mem::take(&mut line));
    }
    (!head.is_empty()).then_some(head)
}

fn serve(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream);
    let body = vec![b'x'; BYTES];
    while let Some(head) = head(&mut reader) {
        let listing = head.contains("list-type=2").then(|| listing(&head));
        thread::sleep(LATENCY);
        let content = listing.as_ref().map_or(&body[..], |listing| listing.as_bytes());
        let modified = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT";
        let head = format!(
            "HTTP/1.1 200 OK\r\nETag: \"e\"\r\n{modified}\r\nContent-Length: {}\r\n\r\n",
            content.len()
        );
        if reader.get_mut().write_all(&[head.as_bytes(), content].concat()).is_err() {
            return;
        }
    }
}

fn listing(head: &str) -> String {
    let after =
        head.split_once("start-after=").map_or("", |(_, after)| after.split([' ', '&']).next().unwrap());
    let mut pieces = after.split('%');
    let mut after = pieces.next().unwrap().to_owned();
    for piece in pieces {
        after.push(char::from(u8::from_str_radix(&piece[..2], 16).unwrap()));
        after.push_str(&piece[2..]);
    }
    let (mut first, mut last) = (0, OBJECTS);
    while first < last {
        let middle = usize::midpoint(first, last);
        if format!("{middle:06}") > after { last = middle } else { first = middle + 1 }
    }
    let most = head.split_once("max-keys=").unwrap().1;
    let most: usize = most.split(['&', ' ']).next().unwrap().parse().unwrap();
    let end = OBJECTS.min(first + most);
    let entries: String = (first..end)
        .map(|number| {
            format!("<Contents><Key>{number:06}</Key><Size>{BYTES}</Size><ETag>\"e\"</ETag></Contents>")
        })
        .collect();
    format!("<ListBucketResult><IsTruncated>{}</IsTruncated>{entries}</ListBucketResult>", end < OBJECTS)
}

/// Objects a second of a plain loop.
fn plain(address: std::net::SocketAddr) -> f64 {
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let threads: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let next = Arc::clone(&next);
            thread::spawn(move || {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut stream = BufReader::new(stream);
                let mut body = vec![0; BYTES];
                while next.fetch_add(1, Ordering::Relaxed) < OBJECTS {
                    stream.get_mut().write_all(b"GET /b/000000 HTTP/1.1\r\nHost: s3\r\n\r\n").unwrap();
                    head(&mut stream).unwrap();
                    stream.read_exact(&mut body).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    OBJECTS as f64 / start.elapsed().as_secs_f64()
}

/// Objects a second of `read_all`.
fn ours(address: std::net::SocketAddr) -> f64 {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "k".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "s".to_owned()),
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
    ];
    let settings = Settings {
        variables: variables.map(|(name, value)| (name.to_owned(), value)).into(),
        home: None,
        proxy: None,
        aws: "aws".into(),
        scratch: std::env::temp_dir(),
        patience: Duration::from_secs(60),
        now: || UNIX_EPOCH,
        is_stopped: Arc::new(|| false),
    };
    let storage = Buckets::new(settings).unwrap().open("s3://b").unwrap();
    let mut objects = Vec::new();
    let begun = Instant::now();
    let mut keep = |object| {
        objects.push(object);
        Ok(())
    };
    storage.list_unordered(&mut keep).unwrap();
    println!("listing: {} names in {:.2} s", objects.len(), begun.elapsed().as_secs_f64());
    let (start, mut read) = (Instant::now(), 0);
    let mut each = |_, bytes: &[u8]| {
        read += bytes.len();
        Ok(())
    };
    storage.read_all(&objects, &mut each).unwrap();
    assert_eq!(read, OBJECTS * BYTES);
    OBJECTS as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(|| serve(stream));
        }
    });
    for _ in 0..3 {
        let (plain, ours) = (plain(address), ours(address));
        println!("plain {plain:.0}/s, read_all {ours:.0}/s: {:.0} %", 100.0 * ours / plain);
    }
}
