//! Disk space reserved ahead of a file that grows, so that the file system need not find it write by write.
//!
//! A reservation never decides whether a run succeeds: a file system that has none to give is not asked
//! again, and what is reserved is given back as soon as somebody else needs it.

use std::fs::File;
use std::io;

/// Bytes reserved in one go.
const RESERVED_BYTES: u64 = 16 << 20;

/// What is reserved for one file, which may be replaced by another one after [`Reserve::give_back`].
#[derive(Debug, Default)]
pub struct Reserve {
    /// Space may be reserved up to this offset.
    end: u64,
    /// Whether nothing is reserved any more.
    is_over: bool,
}

impl Reserve {
    /// Reserves space for `file`, which is `length` bytes long, to grow to `end` bytes and somewhat beyond.
    pub fn grow(&mut self, file: &File, length: u64, end: u64) {
        if self.is_over || end <= self.end {
            return;
        }
        let start = self.end.max(length);
        self.end = end.next_multiple_of(RESERVED_BYTES);
        // Not supported here, or no space left: in both cases the next write says what matters.
        self.is_over = allocate(file, start, self.end - start).is_err();
    }

    /// Gives back what is reserved behind the `length` bytes of `file`. Whether there was anything.
    ///
    /// # Errors
    /// The system's.
    pub fn give_back(&mut self, file: &File, length: u64) -> io::Result<bool> {
        let had_any = self.end > length;
        self.end = 0;
        if had_any {
            // To the length that the file has: only what is allocated behind it goes.
            file.set_len(length)?;
        }
        Ok(had_any)
    }

    /// Reserves nothing from now on.
    pub fn end(&mut self) {
        self.is_over = true;
    }
}

/// Allocates `bytes` of `file` from `start` on without making it longer.
#[cfg(target_os = "linux")]
fn allocate(file: &File, start: u64, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    Ok(fallocate(file, FallocateFlags::KEEP_SIZE, start, bytes)?)
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &File, _start: u64, _bytes: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
