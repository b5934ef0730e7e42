//! Bytes of a connection into requests, and replies into bytes: HTTP/1.1, no more than a client needs.
//!
//! Separate so that a fault can stop at any byte of either direction. It knows nothing of
//! files or jobs, and never keeps more of a body than its reader asks for.

use std::io::{self, BufRead, Read, Write};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::reply::{Content, Reply};

/// The longest head that is read, in bytes.
const MAX_HEAD_BYTES: u64 = 64 << 10;

/// The most headers of a request.
const MAX_HEADERS: usize = 128;

/// The longest line that begins or ends a chunk, in bytes.
const MAX_CHUNK_LINE_BYTES: u64 = 1 << 10;

/// Why no request came out of a connection.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection failed or ended in the middle.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The client does not speak HTTP/1.1.
    #[error("malformed request: {0}")]
    Malformed(String),
}

/// The first line and the headers of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// As sent: `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// In their order, with the names as sent.
    pub headers: Vec<(String, String)>,
    /// Whether the client takes another reply on this connection.
    pub is_kept_alive: bool,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, the last of them empty.
    Chunked,
}

/// What arrived of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    /// Its first bytes, as many as were asked for.
    pub kept: Vec<u8>,
    /// How many arrived.
    pub bytes: u64,
    /// SHA-256 of all that arrived, lower-case hexadecimal.
    pub sha256: String,
    /// Whether it arrived to its end.
    pub is_whole: bool,
}

impl Head {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// How the end of the body is found.
    ///
    /// # Errors
    /// When the headers contradict each other.
    pub fn framing(&self) -> Result<Framing, WireError> {
        let is_chunked = match self.header("transfer-encoding") {
            Some(coding) if coding.eq_ignore_ascii_case("chunked") => true,
            Some(coding) => return Err(WireError::Malformed(format!("transfer-encoding `{coding}`"))),
            None => false,
        };
        match self.header("content-length") {
            Some(_) if is_chunked => {
                Err(WireError::Malformed("content-length beside transfer-encoding".to_owned()))
            }
            Some(length) => match length.parse() {
                Ok(bytes) => Ok(Framing::Length(bytes)),
                Err(_) => Err(WireError::Malformed(format!("content-length `{length}`"))),
            },
            None if is_chunked => Ok(Framing::Chunked),
            None => Ok(Framing::None),
        }
    }
}

/// The value of the first of `headers` that has this name, in any case.
pub fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Reads up to the blank line that ends a head; nothing when the client closed before one.
///
/// # Errors
/// When the connection fails, or what arrives is no head.
pub fn read_head(reader: &mut impl BufRead) -> Result<Option<Head>, WireError> {
    let mut bytes = Vec::new();
    loop {
        let left = MAX_HEAD_BYTES.saturating_sub(bytes.len() as u64);
        let read = reader.by_ref().take(left).read_until(b'\n', &mut bytes)?;
        match bytes.as_slice() {
            [] => return Ok(None),
            // Blank lines between two requests are allowed.
            b"\r\n" | b"\n" => bytes.clear(),
            _ if left == 0 => return Err(WireError::Malformed("the head is too long".to_owned())),
            _ if read == 0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ if bytes.ends_with(b"\n\r\n") || bytes.ends_with(b"\n\n") => break,
            _ => {}
        }
    }
    parse_head(&bytes).map(Some)
}

fn parse_head(bytes: &[u8]) -> Result<Head, WireError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let malformed = |error: &dyn std::fmt::Display| WireError::Malformed(error.to_string());
    let status = request.parse(bytes).map_err(|error| malformed(&error))?;
    let (Some(method), Some(target), true) = (request.method, request.path, status.is_complete()) else {
        return Err(WireError::Malformed("the head is incomplete".to_owned()));
    };
    let mut known = Vec::with_capacity(request.headers.len());
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|error| malformed(&error))?;
        known.push((header.name.to_owned(), value.to_owned()));
    }
    let connection = header(&known, "connection").unwrap_or_default().to_ascii_lowercase();
    let is_kept_alive = match request.version {
        Some(1) => !connection.contains("close"),
        _ => connection.contains("keep-alive"),
    };
    Ok(Head { method: method.to_owned(), target: target.to_owned(), headers: known, is_kept_alive })
}

/// How much of a body is read, and how much of that is kept.
#[derive(Debug, Clone, Copy)]
pub struct Appetite {
    /// Bytes to keep.
    pub keep: usize,
    /// Bytes after which reading ends, wherever the body would.
    pub limit: Option<u64>,
}

/// Reads a body.
///
/// # Errors
/// When the connection fails or the chunks are malformed.
pub fn read_body(reader: &mut impl BufRead, framing: Framing, appetite: Appetite) -> Result<Body, WireError> {
    let mut sink = Sink { keep: appetite.keep, hash: Sha256::new(), body: Body::default() };
    let mut left = appetite.limit.unwrap_or(u64::MAX);
    sink.body.is_whole = match framing {
        Framing::None => left > 0,
        Framing::Length(bytes) => {
            sink.drain(reader, bytes.min(left))?;
            appetite.limit.is_none_or(|limit| bytes < limit)
        }
        Framing::Chunked => loop {
            let line = read_line(reader)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let bytes = u64::from_str_radix(digits, 16)
                .map_err(|_| WireError::Malformed(format!("size of a chunk `{digits}`")))?;
            if bytes == 0 {
                while !read_line(reader)?.is_empty() {}
                break true;
            }
            if bytes >= left {
                sink.drain(reader, left)?;
                break false;
            }
            sink.drain(reader, bytes)?;
            left -= bytes;
            read_line(reader)?;
        },
    };
    sink.body.sha256 = hex(&sink.hash.finalize());
    Ok(sink.body)
}

struct Sink {
    keep: usize,
    hash: Sha256,
    body: Body,
}

impl Sink {
    fn drain(&mut self, reader: &mut impl BufRead, bytes: u64) -> Result<(), WireError> {
        let mut left = bytes;
        while left > 0 {
            let available = reader.fill_buf()?;
            let taken = available.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if taken == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let bytes = &available[..taken];
            self.hash.update(bytes);
            let room = self.keep.saturating_sub(self.body.kept.len());
            self.body.kept.extend_from_slice(&bytes[..taken.min(room)]);
            self.body.bytes += taken as u64;
            left -= taken as u64;
            reader.consume(taken);
        }
        Ok(())
    }
}

fn read_line(reader: &mut impl BufRead) -> Result<String, WireError> {
    let mut line = Vec::new();
    reader.by_ref().take(MAX_CHUNK_LINE_BYTES).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let line = String::from_utf8(line).map_err(|error| WireError::Malformed(error.to_string()))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The head and the body of a reply as they go over the wire.
pub struct Wired {
    /// Status line and headers, with the blank line.
    pub head: Vec<u8>,
    /// The body, in chunks where its length is not said in advance.
    pub body: Vec<u8>,
}

/// Lays out `reply`, dated `now`.
pub fn wired(reply: &Reply, now: Timestamp) -> Wired {
    let mut head = format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status));
    head.push_str(&format!("Date: {}\r\n", http_date(now)));
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
    Wired { head: head.into_bytes(), body }
}

/// Asks for the body that a client holds back until it is wanted.
///
/// # Errors
/// When the connection fails.
pub fn write_continue(writer: &mut impl Write) -> io::Result<()> {
    writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
}

/// `Tue, 04 Aug 2026 09:30:00 GMT`, as the `Date` header wants it.
fn http_date(now: Timestamp) -> String {
    now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        302 => "Found",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        416 => "Range Not Satisfiable",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_ALL: Appetite = Appetite { keep: 1 << 20, limit: None };

    /// The requests on a connection: method and target, body, whether another one may follow.
    fn check(bytes: &str, expected: &[(&str, &str, bool)]) {
        let mut reader = bytes.as_bytes();
        let mut requests = Vec::new();
        while let Some(head) = read_head(&mut reader).unwrap() {
            let body = read_body(&mut reader, head.framing().unwrap(), KEEP_ALL).unwrap();
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
        let error = match read_head(&mut reader) {
            Ok(head) => head.unwrap().framing().and_then(|framing| read_body(&mut reader, framing, KEEP_ALL)),
            Err(error) => Err(error),
        };
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        check_refused("\u{1}\u{2}\r\n\r\n", "malformed request");
        check_refused("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "content-length `x`");
        check_refused("GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer-encoding `gzip`");
        check_refused("GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", "the connection failed");
        check_refused("GET / HTTP/1.1\r\nHost", "the connection failed");
        check_refused(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 17)), "the head is too long");
        check_refused("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "size of a chunk `xyz`");
    }

    #[test]
    fn a_body_is_cut_at_any_byte() {
        for limit in 0..7 {
            let body = |framing, bytes: &str| {
                let appetite = Appetite { keep: 2, limit: Some(limit) };
                read_body(&mut bytes.as_bytes(), framing, appetite).unwrap()
            };
            let plain = body(Framing::Length(5), "abcde");
            assert_eq!((plain.bytes, plain.is_whole), (limit.min(5), limit > 5));
            assert_eq!(plain.kept.len() as u64, limit.min(2));
            let chunked = body(Framing::Chunked, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
            assert_eq!(chunked, plain);
        }
    }

    #[test]
    fn a_reply_is_dated_and_measured() {
        let now = Timestamp::from_second(1_785_836_945).unwrap();
        let reply = Reply { status: 200, headers: Vec::new(), content: Content::Whole(b"hi".to_vec()) };
        let wired_reply = wired(&reply, now);
        let head = String::from_utf8(wired_reply.head).unwrap();
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\nDate: Tue, 04 Aug 2026 09:49:05 GMT\r\nContent-Length: 2\r\n\r\n"
        );
        let frames = vec![b"data: a\n\n".to_vec(), b"x".to_vec()];
        let reply = Reply { status: 200, headers: Vec::new(), content: Content::Frames(frames) };
        assert_eq!(wired(&reply, now).body, b"9\r\ndata: a\n\n\r\n1\r\nx\r\n0\r\n\r\n");
    }
}
