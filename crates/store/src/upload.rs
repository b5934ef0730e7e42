//! Objects in the making. Their name is known last, so their bytes wait in an unlinked file of this machine.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};

use ctxtune_engine::storage::NewObject;
use futures_util::stream::{self, TryStreamExt};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt};

use crate::client::Client;
use crate::runner::Runner;

/// What is put by one request, and the least a part of a larger object has.
const PART: u64 = 16 << 20;
/// How many parts an object may have, and some to spare.
const MOST_PARTS: u64 = 9_500;
/// How many parts are on their way at once.
const AT_ONCE: usize = 4;

pub struct Upload<'b> {
    runner: &'b Runner,
    client: &'b Client,
    file: BufWriter<File>,
    bytes: u64,
}

impl Upload<'_> {
    pub fn begin<'b>(
        runner: &'b Runner,
        client: &'b Client,
        scratch: &std::path::Path,
    ) -> io::Result<Upload<'b>> {
        let file = tempfile::tempfile_in(scratch).map_err(|error| {
            io::Error::new(error.kind(), format!("no temporary file in `{}`: {error}", scratch.display()))
        })?;
        Ok(Upload { runner, client, file: BufWriter::new(file), bytes: 0 })
    }
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewObject for Upload<'_> {
    /// A store that has an object has it for good: `is_durable` asks for nothing more.
    fn finish(self: Box<Self>, name: &str, _: bool) -> io::Result<()> {
        let Upload { runner, client, file, bytes } = *self;
        let path = client.path(name)?;
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        runner.persist(|| {
            file.rewind()?;
            if bytes > PART {
                large(runner, client, &path, &mut file, bytes)
            } else {
                small(runner, client, &path, &mut file)
            }
        })
    }
}

fn small(runner: &Runner, client: &Client, path: &Path, file: &mut File) -> io::Result<()> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let put = client.store.put(path, bytes.into());
    runner.wait(async { put.await.map_err(|error| client.failed(&error)) }).map(drop)
}

fn large(runner: &Runner, client: &Client, path: &Path, file: &mut File, bytes: u64) -> io::Result<()> {
    let begun = client.store.put_multipart(path);
    let mut upload = runner.wait(async { begun.await.map_err(|error| client.failed(&error)) })?;
    let result = parts(runner, client, &mut *upload, file, bytes);
    if result.is_err() {
        // Parts are kept, and billed, until somebody says that they are not wanted. The error is the first one.
        runner.tidy(upload.abort());
    }
    result
}

/// Puts the bytes of `file` as parts, `AT_ONCE` of them in memory.
fn parts(
    runner: &Runner,
    client: &Client,
    upload: &mut dyn MultipartUpload,
    file: &mut File,
    bytes: u64,
) -> io::Result<()> {
    let size = PART.max(bytes.div_ceil(MOST_PARTS));
    let failed = |error: object_store::Error| client.failed(&error);
    let work = async {
        let sent = stream::iter((0..bytes.div_ceil(size)).map(Ok)).map_ok(|_| {
            let mut part = Vec::new();
            let read = file.take(size).read_to_end(&mut part);
            let sent = upload.put_part(part.into());
            async move {
                read?;
                sent.await.map_err(failed)
            }
        });
        sent.try_buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok::<_, io::Error>(())
    };
    runner.wait(work)?;
    runner.wait(async { upload.complete().await.map_err(failed) }).map(drop)
}
