//! A place in a bucket.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ctxtune_engine::storage::{NewObject, Object, Storage, Stores};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::Method;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutOptions};

use crate::address::parse;
use crate::client::{Client, connect, path_of};
use crate::connector::Connector;
use crate::list;
use crate::read;
use crate::runner::{Runner, TRIES};
use crate::settings::Settings;
use crate::upload::Upload;

/// The largest object that a store copies by one request.
const MOST_COPIED: u64 = 5 << 30;
/// A place in a bucket.
pub struct Bucket {
    runner: Arc<Runner>,
    client: Arc<Client>,
    scratch: PathBuf,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Bucket").field(&self.client.address).finish()
    }
}

/// Buckets, each of which is asked only once whether it is there and lets us in.
pub struct Buckets {
    settings: Settings,
    connector: Connector,
    runner: Arc<Runner>,
    open: Mutex<BTreeMap<String, Client>>,
}

impl fmt::Debug for Buckets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Buckets").finish_non_exhaustive()
    }
}

impl Buckets {
    /// None of them open.
    ///
    /// # Errors
    /// [`Unusable`](ctxtune_engine::storage::Unusable) within for settings that are none; the system's for threads.
    pub fn new(settings: Settings) -> io::Result<Buckets> {
        let connector = Connector::new(&settings)?;
        let runner = Arc::new(Runner::new(settings.is_stopped.clone())?);
        Ok(Buckets { settings, connector, runner, open: Mutex::default() })
    }
}

impl Stores for Buckets {
    fn open(&self, address: &str) -> io::Result<Arc<dyn Storage>> {
        let address = parse(address)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match open.get(&address.root) {
            Some(client) => client.at(address),
            None => {
                let client = self.runner.wait(connect(address, &self.settings, &self.connector))?;
                open.insert(client.address.root.clone(), client.at(client.address.clone()));
                client
            }
        };
        let (runner, client) = (Arc::clone(&self.runner), Arc::new(client));
        Ok(Arc::new(Bucket { runner, client, scratch: self.settings.scratch.clone() }))
    }
}

impl Storage for Bucket {
    fn shown(&self, name: &str) -> String {
        self.client.shown(name)
    }

    fn path(&self, _: &str) -> Option<PathBuf> {
        None
    }

    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self.runner.wait(self.client.get(name, None, "")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(|bytes| Some(bytes.into())),
        }
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let range = offset..offset + buffer.len() as u64;
        let bytes = self.runner.wait(self.client.get(name, Some(range), ""))?;
        if bytes.len() != buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    /// Where the answer to a request is lost, `false` may mean the object that this very call has put.
    fn put_new(&self, name: &str, bytes: &[u8], _: bool) -> io::Result<bool> {
        let path = self.client.path(name)?;
        let bytes = Bytes::copy_from_slice(bytes);
        for _ in 0..TRIES {
            let options = PutOptions::from(PutMode::Create);
            let put = self.client.store.put_opts(&path, bytes.clone().into(), options);
            let error = match self.runner.wait(async { Ok(put.await) })? {
                Ok(_) => return Ok(true),
                Err(error) => error,
            };
            let said = self.client.failed(&error);
            match error {
                // A store also says so where another one is being put, which may come to nothing.
                StoreError::AlreadyExists { .. } if self.find(name)?.is_some() => return Ok(false),
                StoreError::AlreadyExists { .. } => {}
                _ if said.kind() == io::ErrorKind::ConnectionAborted => {}
                // A store that cannot put so.
                _ if matches!(error, StoreError::NotImplemented { .. })
                    || said.to_string().starts_with("501 ") =>
                {
                    if self.find(name)?.is_some() {
                        return Ok(false);
                    }
                    let put = self.client.store.put(&path, bytes.into());
                    return self
                        .runner
                        .wait(async { put.await.map_err(|error| self.client.failed(&error)) })
                        .map(|_| true);
                }
                _ => return Err(said),
            }
            self.runner.pause()?;
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "no answer to several requests"))
    }

    fn begin(&self) -> io::Result<Box<dyn NewObject + '_>> {
        Ok(Box::new(Upload::begin(&self.runner, &self.client, &self.scratch)?))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Object) -> io::Result<()>) -> io::Result<()> {
        let (client, key) = (&self.client, self.client.key(prefix));
        let mut give =
            |objects: Vec<Object>| objects.into_iter().try_for_each(|object| each(client.below(object)?));
        if let Some(wire) = &client.wire {
            let mut next = Some(list::Range::default());
            while let Some(range) = next {
                let page = async {
                    list::page(wire, &key, &range, list::MOST)
                        .await
                        .map_err(|refusal| client.refused(refusal))
                };
                let page = self.runner.wait(page)?;
                give(page.objects)?;
                next = page.rest;
            }
            return Ok(());
        }
        let mut token = None;
        loop {
            let (objects, next) = self.runner.wait(client.other_page(&key, token))?;
            give(objects)?;
            let Some(next) = next.filter(|next| !next.is_empty()) else { return Ok(()) };
            token = Some(next);
        }
    }

    fn list_unordered(&self, each: &mut dyn FnMut(Object) -> io::Result<()>) -> io::Result<()> {
        if self.client.wire.is_none() {
            return self.list("", each);
        }
        let mut waiting = vec![list::Range::default()];
        let mut asked = Vec::new();
        loop {
            // One that may be cut makes two.
            while asked.len() < list::RANGES
                && let Some(range) = waiting.pop()
            {
                let is_cut = asked.len() + waiting.len() + 1 < list::RANGES;
                let client = self.client.clone();
                asked.push(self.runner.begin(async move {
                    let Some(wire) = &client.wire else { return Ok(Default::default()) };
                    let step = list::step(wire, &client.address.prefix, &range, is_cut).await;
                    step.map_err(|refusal| client.refused(refusal))
                }));
            }
            if asked.is_empty() {
                return Ok(());
            }
            let (objects, ranges) = self.runner.first(&mut asked)?;
            waiting.extend(ranges);
            objects.into_iter().try_for_each(|object| each(self.client.below(object)?))?;
        }
    }

    fn find(&self, name: &str) -> io::Result<Option<Object>> {
        let (client, key) = (&self.client, self.client.key(name));
        self.runner.wait(async {
            if let Some(wire) = &client.wire {
                // Of the keys that begin so, it is the first.
                let page = list::page(wire, &key, &list::Range::default(), 1).await;
                let first = page.map_err(|refusal| client.refused(refusal))?.objects.pop();
                return first
                    .filter(|object| object.name == key)
                    .map(|object| client.below(object))
                    .transpose();
            }
            match client.store.head(&client.path(name)?).await {
                Ok(seen) => {
                    let tag = seen.e_tag.unwrap_or_default();
                    Ok(Some(Object { name: name.to_owned(), bytes: seen.size, tag }))
                }
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(client.failed(&error)),
            }
        })
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.delete_all(&[name.to_owned()])
    }

    fn delete_all(&self, names: &[String]) -> io::Result<()> {
        let client = &self.client;
        let paths = names.iter().map(|name| client.path(name)).collect::<io::Result<Vec<Path>>>()?;
        self.runner.persist(|| {
            let gone = client.store.delete_stream(stream::iter(paths.clone()).map(Ok).boxed());
            let gone = gone.try_for_each(|_| async { Ok(()) });
            match self.runner.wait(async { Ok(gone.await) })? {
                Err(error) if !matches!(error, StoreError::NotFound { .. }) => Err(client.failed(&error)),
                _ => Ok(()),
            }
        })
    }

    fn copy_from(&self, from: &dyn Storage, object: &Object, name: &str, is_durable: bool) -> io::Result<()> {
        let client = &self.client;
        let shown = from.shown(&object.name);
        let own = shown.strip_prefix(&client.address.root).filter(|_| object.bytes <= MOST_COPIED);
        if let Some(from) = own.and_then(path_of) {
            let to = client.path(name)?;
            let copied = || client.store.copy(&from, &to);
            return self.runner.persist(|| {
                self.runner.wait(async { copied().await.map_err(|error| client.failed(&error)) })
            });
        }
        let mut new = self.begin()?;
        from.read_through(object, 0..object.bytes, &mut new)?;
        new.finish(name, is_durable)
    }

    fn end_unfinished(&self) -> io::Result<()> {
        let client = &self.client;
        let Some(wire) = &client.wire else { return Ok(()) };
        self.runner.wait(async {
            loop {
                let open = client.unfinished(wire).await.map_err(|refusal| client.refused(refusal))?;
                if open.is_empty() {
                    return Ok(());
                }
                for (key, id) in open {
                    match wire.ask(Method::DELETE, &key, &[("uploadId", &id)], &[]).await {
                        Err(refusal) if refusal.status != Some(404) => return Err(client.refused(refusal)),
                        _ => {}
                    }
                }
            }
        })
    }

    fn requests(&self, object: &Object) -> u64 {
        read::requests(object)
    }

    fn read_through(&self, object: &Object, range: Range<u64>, to: &mut dyn Write) -> io::Result<()> {
        let object = std::slice::from_ref(object);
        read::read(&self.runner, &self.client, object, Some(range), &mut |_, bytes, _| to.write_all(&bytes))
    }

    fn read_all(
        &self,
        objects: &[Object],
        each: &mut dyn FnMut(usize, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut pieces = Vec::new();
        read::read(&self.runner, &self.client, objects, None, &mut |number, bytes, is_last| {
            if is_last && pieces.is_empty() {
                return each(number, &bytes);
            }
            pieces.extend_from_slice(&bytes);
            if is_last {
                each(number, &pieces)?;
                pieces.clear();
            }
            Ok(())
        })
    }
}
