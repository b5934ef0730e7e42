//! Rows that wait in an unlinked temporary file until it is their turn to be written.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::Error;

/// Rows on their way to a section, in an unlinked file.
pub struct Aside {
    file: BufWriter<File>,
    row: Vec<u8>,
}

impl Aside {
    /// None yet, in a file below `dir` or in the system's place for temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(dir: Option<&Path>) -> Result<Aside, Error> {
        let file = dir.map_or_else(tempfile::tempfile, tempfile::tempfile_in).map_err(scratch_error(dir))?;
        Ok(Aside { file: BufWriter::with_capacity(1 << 18, file), row: Vec::new() })
    }

    /// Adds what `write` writes.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        self.row.clear();
        write(&mut self.row);
        self.file.write_all(&self.row).map_err(scratch_error(None))
    }

    /// Copies all of it behind what `out` has; how many bytes.
    ///
    /// # Errors
    /// When it cannot be read; those of `out`.
    pub fn copy(mut self, out: &mut impl Write) -> io::Result<u64> {
        self.file.flush()?;
        let file = self.file.get_mut();
        file.seek(SeekFrom::Start(0))?;
        let mut block = vec![0; 1 << 18];
        let mut bytes = 0;
        loop {
            match file.read(&mut block)? {
                0 => return Ok(bytes),
                read => out.write_all(&block[..read])?,
            }
            bytes = file.stream_position()?;
        }
    }
}

/// What the system said of a temporary file below `dir`.
pub fn scratch_error(dir: Option<&Path>) -> impl FnOnce(io::Error) -> Error {
    let path = dir.unwrap_or(Path::new("a temporary file")).to_owned();
    |source| Error::Write { path, source }
}
