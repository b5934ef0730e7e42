//! Bytes into requests, and replies into bytes: HTTP/1.1, no more than a client needs.

use std::fmt::Display;
use std::io::{self, BufRead, Read};

use http::StatusCode;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::reply::{Content, Reply};

pub const KEPT_BYTES: usize = 64 << 20;
const MAX_HEAD_BYTES: u64 = 64 << 10;
const MAX_HEADERS: usize = 128;
/// Of a line that begins or ends a chunk.
const MAX_CHUNK_LINE_BYTES: u64 = 1 << 10;

/// The error of a client that does not speak HTTP/1.1; every other one is of the connection.
fn malformed(reason: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

#[derive(Debug)]
pub struct Head {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// Whether the client takes another reply on this connection.
    pub is_kept_alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    /// Its first [`KEPT_BYTES`].
    pub kept: Vec<u8>,
    pub bytes: u64,
    /// SHA-256 of all that arrived, lower-case hexadecimal.
    pub sha256: String,
    pub is_whole: bool,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// How the end of the body is found; an error where the headers contradict each other.
    pub fn framing(&self) -> io::Result<Framing> {
        match (self.header("transfer-encoding"), self.header("content-length")) {
            (None, None) => Ok(Framing::None),
            (None, Some(length)) => match length.parse() {
                Ok(bytes) => Ok(Framing::Length(bytes)),
                Err(_) => Err(malformed(format!("content-length `{length}`"))),
            },
            (Some(_), Some(_)) => Err(malformed("content-length beside transfer-encoding")),
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            (Some(coding), None) => Err(malformed(format!("transfer-encoding `{coding}`"))),
        }
    }
}

/// Reads up to the blank line that ends a head; nothing when the client closed before one.
pub fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut bytes = Vec::new();
    loop {
        let left = MAX_HEAD_BYTES.saturating_sub(bytes.len() as u64);
        let read = reader.by_ref().take(left).read_until(b'\n', &mut bytes)?;
        match bytes.as_slice() {
            [] => return Ok(None),
            // Blank lines between two requests are allowed.
            b"\r\n" | b"\n" => bytes.clear(),
            _ if left == 0 => return Err(malformed("the head is too long")),
            _ if read == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if bytes.ends_with(b"\n\r\n") || bytes.ends_with(b"\n\n") => break,
            _ => {}
        }
    }
    parse_head(&bytes).map(Some)
}

fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(bytes).map_err(malformed)?;
    let (Some(method), Some(target), true) = (request.method, request.path, status.is_complete()) else {
        return Err(malformed("the head is incomplete"));
    };
    let mut known = Vec::with_capacity(request.headers.len());
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(malformed)?;
        known.push((header.name.to_owned(), value.to_owned()));
    }
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut head = Head { method, target, headers: known, is_kept_alive: false };
    let connection = head.header("connection").unwrap_or_default().to_ascii_lowercase();
    head.is_kept_alive = request.version == Some(1) && !connection.contains("close");
    Ok(head)
}

/// Reads a body, of which no more than `limit` bytes where there is a limit; it is whole only below that.
pub fn read_body(reader: &mut impl BufRead, framing: Framing, limit: Option<u64>) -> io::Result<Body> {
    let (mut body, mut hash) = (Body::default(), Sha256::new());
    let limit = limit.unwrap_or(u64::MAX);
    body.is_whole = match framing {
        Framing::None => limit > 0,
        Framing::Length(bytes) => {
            drain(reader, bytes.min(limit), &mut body, &mut hash)?;
            bytes < limit
        }
        Framing::Chunked => loop {
            let line = read_line(reader)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let bytes = u64::from_str_radix(digits, 16);
            let bytes = bytes.map_err(|_| malformed(format!("size of a chunk `{digits}`")))?;
            if bytes == 0 {
                while !read_line(reader)?.is_empty() {}
                break true;
            }
            let left = limit - body.bytes;
            drain(reader, bytes.min(left), &mut body, &mut hash)?;
            if bytes >= left {
                break false;
            }
            read_line(reader)?;
        },
    };
    body.sha256 = hex(&hash.finalize());
    Ok(body)
}

fn drain(reader: &mut impl BufRead, bytes: u64, body: &mut Body, hash: &mut Sha256) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let available = reader.fill_buf()?;
        let taken = available.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if taken == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = &available[..taken];
        hash.update(bytes);
        let room = KEPT_BYTES.saturating_sub(body.kept.len());
        body.kept.extend_from_slice(&bytes[..taken.min(room)]);
        body.bytes += taken as u64;
        left -= taken as u64;
        reader.consume(taken);
    }
    Ok(())
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.by_ref().take(MAX_CHUNK_LINE_BYTES).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = String::from_utf8(line).map_err(malformed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The head of `reply`, dated `now`, and its body as they go over the wire.
pub fn wired(reply: &Reply, now: Timestamp) -> (Vec<u8>, Vec<u8>) {
    let status = StatusCode::from_u16(reply.status).ok();
    let reason = status.and_then(|status| status.canonical_reason()).unwrap_or("Unknown");
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT");
    let mut head = format!("HTTP/1.1 {} {reason}\r\nDate: {date}\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = match &reply.content {
        Content::Whole(bytes) => {
            head.push_str(&format!("Content-Length: {}\r\n", bytes.len()));
            bytes.clone()
        }
        Content::Frames(frames) => {
            head.push_str("Transfer-Encoding: chunked\r\n");
            let chunk =
                |frame: &Vec<u8>| [format!("{:x}\r\n", frame.len()).as_bytes(), frame, b"\r\n"].concat();
            let mut bytes: Vec<u8> = frames.iter().flat_map(chunk).collect();
            bytes.extend_from_slice(b"0\r\n\r\n");
            bytes
        }
    };
    head.push_str("\r\n");
    (head.into_bytes(), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The requests on a connection: method and target, body, whether another one may follow.
    fn check(bytes: &str, expected: &[(&str, &str, bool)]) {
        let mut reader = bytes.as_bytes();
        let mut requests = Vec::new();
        while let Some(head) = read_head(&mut reader).unwrap() {
            let body = read_body(&mut reader, head.framing().unwrap(), None).unwrap();
            assert!(body.is_whole);
            assert_eq!(body.bytes, body.kept.len() as u64);
            let line = format!("{} {}", head.method, head.target);
            requests.push((line, String::from_utf8(body.kept).unwrap(), head.is_kept_alive));
        }
        let seen: Vec<_> = requests.iter().map(|(line, body, kept)| (&line[..], &body[..], *kept)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_connection_carries_one_request_after_the_other() {
        check("", &[]);
        check("GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n", &[("GET /a?b=c", "", true)]);
        check(
            "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\r\nGET /b HTTP/1.1\r\nConnection: close\r\n\r\n",
            &[("POST /a", "abc", true), ("GET /b", "", false)],
        );
        check("GET /a HTTP/1.0\r\n\r\n", &[("GET /a", "", false)]);
    }

    #[test]
    fn chunks_are_joined() {
        check(
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: r\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
            &[("POST /a", "abcde", true), ("GET /b", "", true)],
        );
    }

    #[track_caller]
    fn check_refused(bytes: &str, expected: &str) {
        let mut reader = bytes.as_bytes();
        let head = read_head(&mut reader);
        let body = head.and_then(|head| read_body(&mut reader, head.unwrap().framing()?, None));
        let error = body.unwrap_err();
        let is_malformed = error.kind() == io::ErrorKind::InvalidData;
        assert_eq!(
            (is_malformed, error.to_string().contains(expected)),
            (expected != "end of file", true),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        check_refused("\u{1}\u{2}\r\n\r\n", "invalid");
        check_refused("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "content-length `x`");
        check_refused("GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer-encoding `gzip`");
        check_refused("GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", "end of file");
        check_refused("GET / HTTP/1.1\r\nHost", "end of file");
        check_refused(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 17)), "the head is too long");
        check_refused("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "size of a chunk `xyz`");
    }

    #[test]
    fn a_body_is_cut_at_any_byte() {
        for limit in 0..7 {
            let body = |framing, bytes: &str| read_body(&mut bytes.as_bytes(), framing, Some(limit)).unwrap();
            let plain = body(Framing::Length(5), "abcde");
            assert_eq!((plain.bytes, plain.is_whole), (limit.min(5), limit > 5));
            assert_eq!(plain.kept.len() as u64, plain.bytes);
            let chunked = body(Framing::Chunked, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
            assert_eq!(chunked, plain);
        }
    }

    #[test]
    fn a_reply_is_dated_and_measured() {
        let now = Timestamp::from_second(1_785_836_945).unwrap();
        let reply = Reply { status: 200, headers: Vec::new(), content: Content::Whole(b"hi".to_vec()) };
        let head = String::from_utf8(wired(&reply, now).0).unwrap();
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\nDate: Tue, 04 Aug 2026 09:49:05 GMT\r\nContent-Length: 2\r\n\r\n"
        );
        let frames = vec![b"data: a\n\n".to_vec(), b"x".to_vec()];
        let reply = Reply { status: 200, headers: Vec::new(), content: Content::Frames(frames) };
        assert_eq!(wired(&reply, now).1, b"9\r\ndata: a\n\n\r\n1\r\nx\r\n0\r\n\r\n");
    }
}
