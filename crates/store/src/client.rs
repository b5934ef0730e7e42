//! How a bucket is asked: the library's client, and S3's own requests beside it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ctxtune_engine::storage::{Object, Unusable};
use http::Method;
use http::header::{IF_MATCH, RANGE};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};

use crate::address::{Address, Service};
use crate::connector::Connector;
use crate::failure::{Refusal, of_store};
use crate::list;
use crate::s3::{self, Wire};
use crate::settings::Settings;

/// What the library gives of every service.
pub trait Store: ObjectStore + PaginatedListStore {}

impl<S: ObjectStore + PaginatedListStore> Store for S {}

/// How the bucket is asked.
pub struct Client {
    pub address: Address,
    pub store: Arc<dyn Store>,
    /// S3's own requests; other services have none.
    pub wire: Option<Arc<Wire>>,
}

/// A client of the place, which is there and lets us in.
pub async fn connect(address: Address, settings: &Settings, connector: &Connector) -> io::Result<Client> {
    let named = |error: io::Error| match Unusable::within(&error) {
        Some(_) => error,
        None => io::Error::new(error.kind(), format!("cannot reach `{}`: {error}", address.root)),
    };
    if address.service != Service::S3 {
        let store = other(&address, settings, connector)?;
        let client = Client { address: address.clone(), store, wire: None };
        client.other_page(&address.prefix, None).await.map_err(named)?;
        return Ok(client);
    }
    let mut region = s3::region(settings).to_owned();
    loop {
        let (store, wire) = s3::clients(&address, settings, connector, &region).await?;
        match list::page(&wire, &address.prefix, &list::Range::default(), 1).await {
            // The bucket is elsewhere, and the answer says where.
            Err(Refusal { region: Some(own), .. }) if own != region && region == s3::region(settings) => {
                region = own
            }
            Err(refusal) => return Err(named(refusal.into_io(&address.bucket))),
            Ok(_) => return Ok(Client { address, store: Arc::new(store), wire: Some(Arc::new(wire)) }),
        }
    }
}

/// A bucket of a service that is not tested.
fn other(address: &Address, settings: &Settings, connector: &Connector) -> Result<Arc<dyn Store>, Unusable> {
    let variables = || settings.variables.iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let retries = s3::retries(settings)?;
    let store: object_store::Result<Arc<dyn Store>> = match address.service {
        Service::Azure => {
            let builder = variables().fold(MicrosoftAzureBuilder::new(), |builder, (name, value)| {
                name.parse::<AzureConfigKey>().map_or(builder.clone(), |key| builder.with_config(key, value))
            });
            let builder = builder.with_container_name(&address.bucket).with_retry(retries);
            builder.with_http_connector(connector.clone()).build().map(|store| Arc::new(store) as _)
        }
        _ => {
            let builder = variables().fold(GoogleCloudStorageBuilder::new(), |builder, (name, value)| {
                name.parse::<GoogleConfigKey>().map_or(builder.clone(), |key| builder.with_config(key, value))
            });
            let builder = builder.with_bucket_name(&address.bucket).with_retry(retries);
            builder.with_http_connector(connector.clone()).build().map(|store| Arc::new(store) as _)
        }
    };
    store
        .map_err(|error| Unusable::Address(format!("cannot use the settings of `{}`: {error}", address.root)))
}

/// A key that the library can ask for: it takes keys for paths, and drops or refuses what is none.
pub fn path_of(key: &str) -> Option<Path> {
    Path::parse(key).ok().filter(|path| path.as_ref() == key)
}

fn unaskable(key: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("the key `{key}` is none that can be asked for"))
}

impl Client {
    /// The same bucket at another place.
    pub fn at(&self, address: Address) -> Client {
        Client { address, store: Arc::clone(&self.store), wire: self.wire.clone() }
    }

    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.address.prefix)
    }

    pub fn shown(&self, name: &str) -> String {
        format!("{}{}", self.address.root, self.key(name))
    }

    /// What a new object is put as.
    pub fn path(&self, name: &str) -> io::Result<Path> {
        let key = self.key(name);
        path_of(&key).ok_or_else(|| unaskable(&key))
    }

    pub fn failed(&self, error: &object_store::Error) -> io::Error {
        of_store(error, &self.address.bucket)
    }

    pub fn refused(&self, refusal: Refusal) -> io::Error {
        refusal.into_io(&self.address.bucket)
    }

    /// The bytes of an object, or of a range of them, if its tag is the one given.
    pub async fn get(&self, name: &str, range: Option<Range<u64>>, tag: &str) -> io::Result<Bytes> {
        let key = self.key(name);
        let tag = Some(tag).filter(|tag| !tag.is_empty());
        if let Some(path) = path_of(&key) {
            let range = range.map(GetRange::Bounded);
            let options = GetOptions { range, if_match: tag.map(str::to_owned), ..GetOptions::default() };
            let read = async { self.store.get_opts(&path, options).await?.bytes().await };
            return read.await.map_err(|error| self.failed(&error));
        }
        // A URL goes another way at these.
        let is_lost = key.split('/').any(|component| component == "." || component == "..");
        let wire = self.wire.as_ref().filter(|_| !is_lost).ok_or_else(|| unaskable(&key))?;
        let range = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let mut headers = Vec::new();
        headers.extend(tag.map(|tag| (IF_MATCH, tag)));
        headers.extend(range.as_deref().map(|range| (RANGE, range)));
        wire.ask(Method::GET, &key, &[], &headers).await.map_err(|refusal| self.refused(refusal))
    }

    /// An object of a listing by its name below the place.
    pub fn below(&self, mut object: Object) -> io::Result<Object> {
        match object.name.strip_prefix(&self.address.prefix) {
            Some(name) if !name.is_empty() => object.name = name.to_owned(),
            _ => {
                return Err(io::Error::other(format!(
                    "the key `{}` names nothing below its prefix",
                    object.name
                )));
            }
        }
        Ok(object)
    }

    /// A page of a listing of another service, and how to ask for the next one.
    pub async fn other_page(
        &self,
        key: &str,
        token: Option<String>,
    ) -> io::Result<(Vec<Object>, Option<String>)> {
        let options = PaginatedListOptions { page_token: token, ..PaginatedListOptions::default() };
        let prefix = Some(key).filter(|key| !key.is_empty());
        let page = self.store.list_paginated(prefix, options).await.map_err(|error| self.failed(&error))?;
        let objects = page.result.objects.into_iter().map(|seen| Object {
            name: seen.location.into(),
            bytes: seen.size,
            tag: seen.e_tag.unwrap_or_default(),
        });
        Ok((objects.collect(), page.page_token))
    }

    /// The uploads that are open below the place, some of them.
    pub async fn unfinished(&self, wire: &Wire) -> Result<Vec<(String, String)>, Refusal> {
        let prefix = self.address.prefix.as_str();
        let query = [("encoding-type", "url"), ("prefix", prefix), ("uploads", "")];
        list::uploads(&wire.ask(Method::GET, "", &query, &[]).await?)
    }
}
