//! Two threads for what is asked of a store, and blocking until it is answered or somebody asks the program to stop.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select, select_all};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// How often somebody is asked whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// How often something is done that is left to us to do again.
pub const TRIES: usize = 5;
/// What is waited between these.
const PAUSE: Duration = Duration::from_millis(200);
/// How long is waited for what is tidied up.
const LAST: Duration = Duration::from_secs(20);

pub struct Runner {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    is_stopped: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Runner {
    pub fn new(is_stopped: Arc<dyn Fn() -> bool + Send + Sync>) -> io::Result<Runner> {
        let runtime =
            Builder::new_multi_thread().worker_threads(2).thread_name("store").enable_all().build()?;
        Ok(Runner { runtime: Some(runtime), is_stopped })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("only dropping takes it")
    }

    /// The result of `work`, or the kind `Interrupted`.
    pub fn wait<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let stopped = async {
            while !(self.is_stopped)() {
                tokio::time::sleep(LOOK).await;
            }
        };
        self.runtime().block_on(async {
            match select(pin!(work), pin!(stopped)).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            }
        })
    }

    /// Does work that may be done again, until its answer is not lost.
    pub fn persist<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        for _ in 1..TRIES {
            match work() {
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => self.pause()?,
                result => return result,
            }
        }
        work()
    }

    /// Waits a little before the next try.
    pub fn pause(&self) -> io::Result<()> {
        self.wait(async {
            tokio::time::sleep(PAUSE).await;
            Ok(())
        })
    }

    /// The first result of what was begun, which is no longer among it.
    pub fn first<T: Send + 'static>(&self, begun: &mut Vec<Begun<T>>) -> io::Result<T> {
        let (result, number) = self.wait(async {
            let results = begun.iter_mut().map(|begun| Box::pin(begun.result()));
            let (result, number, _) = select_all(results).await;
            Ok((result, number))
        })?;
        drop(begun.swap_remove(number));
        result
    }

    /// Does what tidies up, though the program is asked to stop, and not for long.
    pub fn tidy(&self, work: impl Future) {
        let _ = self.runtime().block_on(async { tokio::time::timeout(LAST, work).await });
    }

    /// Begins work on the threads.
    pub fn begin<T: Send + 'static>(
        &self,
        work: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> Begun<T> {
        Begun(self.runtime().spawn(work))
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Not even for a name that is being looked up.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Work on the threads, which ends when this is dropped.
pub struct Begun<T>(JoinHandle<io::Result<T>>);

impl<T> Begun<T> {
    pub async fn result(&mut self) -> io::Result<T> {
        (&mut self.0).await.map_err(io::Error::other)?
    }
}

impl<T> Drop for Begun<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
