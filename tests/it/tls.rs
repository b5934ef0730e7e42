//! TLS and proxies: whom the transport trusts, and through whom it goes.
//!
//! The certificates of the system are read from the environment of a process, so that the
//! asking is done by this binary run again. Skips where `python3` or `openssl` is missing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use ctxtune_service::http::{Body, Call, Error, Method, proxy};

use crate::server::{PATIENT, Server, asker};

/// Names the URL for [`asks_the_url_that_it_is_given`].
const URL: &str = "CTXTUNE_TEST_URL";

/// Answers every TLS client, and tells the port of each connection that came.
const SERVER: &str = r#"
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, peer = listener.accept()
    print(peer[1], flush=True)
    try:
        with context.wrap_socket(connection, server_side=True) as stream:
            stream.recv(65536)
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    except OSError:
        pass
"#;

fn get(url: &str) -> Call<'static> {
    let url = url.to_owned();
    Call { method: Method::Get, url, key: None, headers: Vec::new(), body: Body::Empty }
}

/// Not a test of its own: what the others run with certificates of their choice.
#[test]
#[ignore = "run by the other tests here"]
fn asks_the_url_that_it_is_given() {
    #[expect(clippy::disallowed_methods, reason = "the test's own variable")]
    let url = std::env::var(URL).unwrap();
    let asker = asker(PATIENT, None);
    match asker.client.repeat(&get(&url)) {
        Ok(answer) => println!("\noutcome: {}", answer.status),
        Err(Error::Tls { reason, .. }) => println!("\noutcome: tls: {reason}"),
        Err(other) => println!("\noutcome: {other}"),
    }
}

/// What became of asking `url` with the certificates in `trusted`, or those of the system.
fn outcome(url: &str, trusted: Option<&Path>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tls::asks_the_url_that_it_is_given", "--ignored", "--nocapture"]);
    command.env(URL, url).env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    if let Some(trusted) = trusted {
        command.env("SSL_CERT_FILE", trusted);
    }
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let line = output.lines().find_map(|line| line.strip_prefix("outcome: "));
    line.unwrap_or_else(|| panic!("no outcome in {output}")).to_owned()
}

/// Makes `ca.pem`, and `leaf.pem` with `leaf.key` for 127.0.0.1; whether that could be done.
fn make_certificates(dir: &Path) -> bool {
    let extensions = "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
    std::fs::write(dir.join("leaf.ext"), extensions).unwrap();
    let commands = [
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem",
        "req -new -newkey rsa:2048 -nodes -subj /CN=test -keyout leaf.key -out leaf.csr",
        "x509 -req -days 2 -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile leaf.ext -out leaf.pem",
    ];
    commands.iter().all(|arguments| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(dir).stdin(Stdio::null());
        command.output().is_ok_and(|output| output.status.success())
    })
}

/// An HTTPS server in Python; ends with its owner.
struct Https {
    child: Child,
    lines: Receiver<String>,
    port: u16,
}

impl Https {
    fn start(dir: &Path) -> Option<Https> {
        let mut command = Command::new("python3");
        command.args(["-c", SERVER, "leaf.pem", "leaf.key"]).current_dir(dir);
        let mut child = command.stdout(Stdio::piped()).spawn().ok()?;
        let output = BufReader::new(child.stdout.take()?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let port = lines.recv().ok()?.parse().ok()?;
        Some(Https { child, lines, port })
    }

    /// How many connections came since the last time somebody asked.
    fn connections(&self) -> usize {
        // Connections are served in turn: once this one is told of, all before it are.
        let last = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let port = last.local_addr().unwrap().port().to_string();
        drop(last);
        self.lines.iter().take_while(|line| *line != port).count()
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn only_a_server_with_a_trusted_certificate_is_asked_and_another_not_twice() {
    let dir = tempfile::tempdir().unwrap();
    if !make_certificates(dir.path()) {
        eprintln!("skipped: openssl makes no certificates here");
        return;
    }
    let Some(server) = Https::start(dir.path()) else {
        eprintln!("skipped: python3 serves no TLS here");
        return;
    };
    let url = format!("https://127.0.0.1:{}/", server.port);
    assert_eq!(outcome(&url, Some(&dir.path().join("ca.pem"))), "200");
    assert_eq!(server.connections(), 1);
    let refused = outcome(&url, None);
    assert!(refused.starts_with("tls: invalid peer certificate"), "{refused}");
    assert_eq!(server.connections(), 1, "a TLS error is not repeated");
    // The name counts too: the certificate is for 127.0.0.1.
    let other = outcome(&format!("https://localhost:{}/", server.port), Some(&dir.path().join("ca.pem")));
    assert!(other.starts_with("tls: invalid peer certificate"), "{other}");
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_server_that_does_not_speak_tls_is_not_asked_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let (sender, connections) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = sender.send(());
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let asker = asker(PATIENT, None);
    let error = asker.client.repeat(&get(&url)).unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    assert_eq!((connections.try_iter().count(), asker.clock.waits().len()), (1, 0));
}

#[test]
fn a_proxy_is_asked_for_a_tunnel_and_passed_by_for_exceptions() {
    let proxy_server = Server::saying(502, &[], "");
    let origin = Server::saying(200, &[], "{}");
    let through = |exceptions: &str| Some(proxy::parse(&proxy_server.url(""), exceptions).unwrap());
    let asker_with = |exceptions: &str| asker(PATIENT, through(exceptions));
    let error = asker_with("").client.send(&get("https://api.example/v1/x?secret")).unwrap_err();
    assert!(matches!(error, Error::NotSent { .. }), "{error}");
    assert!(error.to_string().contains("502") && !error.to_string().contains("secret"), "{error}");
    assert_eq!(proxy_server.lines(), ["CONNECT api.example:443"]);
    // Passed by: the name cannot be found, and the proxy hears nothing of it.
    let host = format!("{}.example", "a".repeat(64));
    let error = asker_with("other.org, example").client.send(&get(&format!("https://{host}/"))).unwrap_err();
    assert!(matches!(error, Error::NotSent { .. }), "{error}");
    // This machine is never asked through a proxy.
    assert_eq!(asker_with("").client.send(&get(&origin.url("/"))).unwrap().status, 200);
    assert_eq!(proxy_server.connections(), 1);
    assert_eq!(origin.lines(), ["GET /"]);
}

#[test]
fn a_tunnel_carries_the_request_and_only_the_proxy_sees_its_password() {
    // The tunnel ends at a server that speaks no TLS: what arrives there is a TLS greeting.
    let (sender, arrived) = channel();
    let sender = std::sync::Mutex::new(sender);
    let proxy_server = Server::start(move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\n\r\n");
        let mut greeting = [0; 3];
        let _ = exchange.stream.read_exact(&mut greeting);
        sender.lock().unwrap().send(greeting).unwrap();
    });
    let url = proxy_server.url("").replace("http://", "http://user:pass@");
    let asker = asker(PATIENT, Some(proxy::parse(&url, "").unwrap()));
    assert!(asker.client.send(&get("https://api.example/secret")).is_err());
    assert_eq!(arrived.recv().unwrap()[..2], [22, 3]);
    let request = &proxy_server.requests()[0];
    assert_eq!(request.header("proxy-authorization"), Some("Basic dXNlcjpwYXNz"));
    assert_eq!(request.header("host"), Some("api.example:443"));
}
