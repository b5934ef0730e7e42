//! Compressed shards: the same bytes on every machine, from any number of threads and whatever the writes.
//!
//! One zstd frame or one gzip member a file, at a fixed level. Level 3 of zstd takes no method whose choice depends
//! on the processor, and the header of gzip holds neither a time nor a name. What is written is passed on in blocks of
//! a fixed size, since what an encoder makes of its input may depend on where the input was cut.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::output::hex::Hex;

/// What an encoder is given at once.
const BLOCK_BYTES: usize = 256 << 10;

/// Zstandard's own default.
const ZSTD_LEVEL: i32 = 3;

/// The default of gzip.
const GZIP_LEVEL: flate2::Compression = flate2::Compression::new(6);

/// How shards are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compress {
    /// Zstandard, `.zst`.
    Zst,
    /// gzip, `.gz`.
    Gz,
}

impl Compress {
    /// How a file of this name is compressed.
    pub fn of_name(name: &str) -> Option<Compress> {
        let is_end = |compress: &Compress| {
            name.strip_suffix(compress.extension()).is_some_and(|name| name.ends_with('.'))
        };
        [Compress::Zst, Compress::Gz].into_iter().find(is_end)
    }

    /// What a compressed file's name ends in, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Compress::Zst => "zst",
            Compress::Gz => "gz",
        }
    }
}

impl fmt::Display for Compress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.extension())
    }
}

impl FromStr for Compress {
    type Err = String;

    fn from_str(text: &str) -> Result<Compress, String> {
        match text {
            "zst" => Ok(Compress::Zst),
            "gz" => Ok(Compress::Gz),
            _ => Err("expected zst or gz".to_owned()),
        }
    }
}

/// What went through a [`Packer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the file.
    pub bytes: u64,
    /// Their SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// Their SHA-256.
    pub plain_sha256: String,
}

impl Packed {
    /// What was not compressed.
    pub fn plain(bytes: u64, sha256: String) -> Packed {
        Packed { bytes, sha256: sha256.clone(), plain_bytes: bytes, plain_sha256: sha256 }
    }
}

/// Compresses what is written to it, or passes it on as it is, and takes the digests of both. After an error what it
/// has passed on is incomplete.
pub struct Packer<W: Write> {
    encoder: Encoder<W>,
    /// What is not passed on yet.
    block: Vec<u8>,
    /// Of what was written; unused where nothing is compressed.
    plain: Tally,
}

enum Encoder<W: Write> {
    None(DigestWriter<W>),
    Zst(zstd::stream::write::Encoder<'static, DigestWriter<W>>),
    Gz(GzEncoder<DigestWriter<W>>),
}

impl<W: Write> Packer<W> {
    /// Writes to `out`.
    ///
    /// # Errors
    /// When an encoder cannot be made.
    pub fn new(compress: Option<Compress>, out: W) -> io::Result<Packer<W>> {
        let out = DigestWriter::new(out);
        let encoder = match compress {
            None => Encoder::None(out),
            Some(Compress::Zst) => {
                let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Encoder::Zst(encoder)
            }
            Some(Compress::Gz) => Encoder::Gz(GzEncoder::new(out, GZIP_LEVEL)),
        };
        Ok(Packer { encoder, block: Vec::new(), plain: Tally::default() })
    }

    /// Ends the frame or member and gives back what was written to.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<(W, Packed)> {
        self.pass_on()?;
        let (out, is_compressed) = match self.encoder {
            Encoder::None(out) => (out, false),
            Encoder::Zst(encoder) => (encoder.finish()?, true),
            Encoder::Gz(encoder) => (encoder.finish()?, true),
        };
        let DigestWriter { mut out, tally } = out;
        out.flush()?;
        let packed = Packed::plain(tally.bytes, tally.hex());
        let packed = match is_compressed {
            true => Packed { plain_bytes: self.plain.bytes, plain_sha256: self.plain.hex(), ..packed },
            false => packed,
        };
        Ok((out, packed))
    }

    fn pass_on(&mut self) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::None(out) => out.write_all(&self.block)?,
            Encoder::Zst(out) => out.write_all(&self.block)?,
            Encoder::Gz(out) => out.write_all(&self.block)?,
        }
        if !matches!(self.encoder, Encoder::None(_)) {
            self.plain.add(&self.block);
        }
        self.block.clear();
        Ok(())
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What is passed on as it is may be cut anywhere.
        if let Encoder::None(out) = &mut self.encoder {
            return out.write(bytes);
        }
        if self.block.len() == BLOCK_BYTES {
            self.pass_on()?;
        }
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Passes nothing on: where a block ends would then depend on when it is called.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes counted and their digest.
#[derive(Default)]
pub(crate) struct Tally {
    digest: Sha256,
    pub(crate) bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub(crate) fn hex(self) -> String {
        Hex(&self.digest.finalize()).to_string()
    }
}

/// Takes the digest of what `out` takes.
pub(crate) struct DigestWriter<W> {
    pub(crate) out: W,
    pub(crate) tally: Tally,
}

impl<W: Write> DigestWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        DigestWriter { out, tally: Tally::default() }
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.tally.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// What `plain` becomes when it is written in pieces of `piece` bytes.
    fn packed(compress: Option<Compress>, plain: &[u8], piece: usize) -> (Vec<u8>, Packed) {
        let mut packer = Packer::new(compress, Vec::new()).unwrap();
        plain.chunks(piece).for_each(|piece| {
            packer.write_all(piece).unwrap();
            packer.flush().unwrap();
        });
        packer.finish().unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        Hex(&Sha256::digest(bytes)).to_string()
    }

    fn lines(bytes: usize) -> Vec<u8> {
        let lines = (0u64..).flat_map(|n| format!("{{\"n\": {n}, \"h\": {}}}\n", n * n % 9973).into_bytes());
        lines.take(bytes).collect()
    }

    #[test]
    fn packed_bytes_do_not_depend_on_the_writes_and_unpack_to_what_was_written() {
        for bytes in [0, 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 17] {
            let plain = lines(bytes);
            for compress in [None, Some(Compress::Zst), Some(Compress::Gz)] {
                let (file, counts) = packed(compress, &plain, plain.len().max(1));
                assert!(compress.is_none() || bytes < 100 || file.len() < plain.len() / 2);
                for piece in [1000, BLOCK_BYTES - 1, 2 * BLOCK_BYTES] {
                    assert_eq!(packed(compress, &plain, piece), (file.clone(), counts.clone()));
                }
                let mut unpacked = Vec::new();
                match compress {
                    None => unpacked.clone_from(&file),
                    Some(Compress::Zst) => unpacked = zstd::decode_all(&file[..]).unwrap(),
                    Some(Compress::Gz) => {
                        flate2::read::GzDecoder::new(&file[..]).read_to_end(&mut unpacked).unwrap();
                    }
                }
                assert_eq!(unpacked, plain);
                let expected = Packed {
                    bytes: file.len() as u64,
                    sha256: hex(&file),
                    plain_bytes: plain.len() as u64,
                    plain_sha256: hex(&plain),
                };
                assert_eq!(counts, expected);
            }
        }
    }

    #[test]
    fn the_gzip_header_holds_no_time_and_no_name_and_zstd_has_a_checksum() {
        let (gzip, _) = packed(Some(Compress::Gz), b"x", 1);
        assert_eq!(gzip[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
        let (zstd, _) = packed(Some(Compress::Zst), b"x", 1);
        assert_eq!(zstd[4] & 0b100, 0b100, "content checksum of the frame header descriptor");
    }

    #[test]
    fn an_encoder_that_writes_other_bytes_is_noticed() {
        let plain = lines(3 * BLOCK_BYTES);
        let digest = |compress| packed(Some(compress), &plain, 4096).1.sha256[..8].to_owned();
        assert_eq!([digest(Compress::Zst), digest(Compress::Gz)], ["d9743e5f", "505978b6"]);
    }

    #[test]
    fn an_error_of_the_writer_is_that_of_the_packer() {
        for compress in [None, Some(Compress::Zst), Some(Compress::Gz)] {
            let mut room = [0; 10];
            let mut packer = Packer::new(compress, &mut room[..]).unwrap();
            let written = packer.write_all(&lines(4 * BLOCK_BYTES));
            let error = written.and_then(|()| packer.finish().map(drop)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        }
    }
}
