//! Buckets, as the environment says how they are reached. A build without the feature `cloud` says that it has none.

use std::path::Path;
use std::sync::Arc;

use crate::screen::report::Terminal;
use ctxtune_engine::address::address;
use ctxtune_engine::parts::Work;
use ctxtune_engine::prepare::Error;
use ctxtune_engine::storage::Stores;

/// What opens buckets; temporary files go to `scratch`. Nothing is asked for before the first is opened.
#[cfg(feature = "cloud")]
pub fn stores(terminal: &Terminal, scratch: Option<&Path>) -> Arc<dyn Stores> {
    let scratch = scratch.map_or_else(std::env::temp_dir, Path::to_owned);
    Arc::new(cloud::Lazy::new(terminal.signals.clone(), scratch))
}

/// What opens buckets: nothing.
#[cfg(not(feature = "cloud"))]
pub fn stores(_: &Terminal, _: Option<&Path>) -> Arc<dyn Stores> {
    Arc::new(ctxtune_engine::storage::NoStores)
}

/// The working directory at `path`, on this machine or in a bucket.
pub fn work(path: &Path, stores: &dyn Stores) -> Result<Work, Error> {
    let Some(address) = address(path) else { return Ok(Work::local(path)) };
    let storage = stores.open(address);
    storage.map(Work::remote).map_err(|source| Error::Store { object: address.to_owned(), source })
}

#[cfg(feature = "cloud")]
mod cloud {
    use std::collections::BTreeMap;
    use std::io;
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::{Duration, SystemTime};

    use ctxtune_engine::storage::{Storage, Stores};
    use ctxtune_pipeline::{Signals, env};
    use ctxtune_store::{Buckets, Settings};

    use crate::session::environment::of_stores;

    /// How long an answer, or its next bytes, are waited for.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[derive(Debug)]
    pub struct Lazy {
        signals: Signals,
        scratch: PathBuf,
        buckets: Mutex<Option<Arc<Buckets>>>,
    }

    impl Lazy {
        pub fn new(signals: Signals, scratch: PathBuf) -> Lazy {
            Lazy { signals, scratch, buckets: Mutex::default() }
        }

        fn settings(&self) -> Settings {
            let variables: BTreeMap<String, String> = of_stores();
            let either =
                |name: &str| variables.get(name).or_else(|| variables.get(&name.to_lowercase())).cloned();
            let proxy = env::PROXIES.iter().find_map(|name| either(name));
            let signals = self.signals.clone();
            Settings {
                home: variables.get(env::HOME).map(PathBuf::from),
                proxy: proxy.map(|proxy| (proxy, either(env::NO_PROXY).unwrap_or_default())),
                aws: "aws".into(),
                scratch: self.scratch.clone(),
                patience: PATIENCE,
                now,
                is_stopped: Arc::new(move || signals.is_stopped()),
                variables,
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    fn now() -> SystemTime {
        SystemTime::now()
    }

    impl Stores for Lazy {
        fn open(&self, address: &str) -> io::Result<Arc<dyn Storage>> {
            let buckets = {
                let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
                match &*buckets {
                    Some(buckets) => Arc::clone(buckets),
                    None => Arc::clone(buckets.insert(Arc::new(Buckets::new(self.settings())?))),
                }
            };
            buckets.open(address)
        }
    }
}
