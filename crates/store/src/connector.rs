//! The HTTP client of a place: how long it waits, and for what.
//!
//! The library's own would end every request after 30 seconds, however large it is. Here an answer may take as long as
//! its next bytes come within the patience that was asked for, and a request as long as its size needs.

use std::time::Duration;

use ctxtune_engine::storage::Unusable;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use reqwest::{NoProxy, Proxy, redirect};

use crate::settings::Settings;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// The slowest upload that is still one, in bytes a second.
const SLOWEST: u64 = 32 << 10;
/// From this length of a request on, its own bytes are what takes the time.
const LARGE: usize = 64 << 10;
/// What is on this machine, or on the machine's own network: never asked for through a proxy.
const DIRECT: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16";

/// Two clients that share nothing but their configuration.
#[derive(Debug, Clone)]
pub struct Connector {
    answers: reqwest::Client,
    uploads: reqwest::Client,
    patience: Duration,
}

impl Connector {
    /// Clients that follow no redirect and read no environment.
    pub fn new(settings: &Settings) -> Result<Connector, Unusable> {
        // Whichever library of this process comes first; it is the same for all.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let unusable = |error: reqwest::Error| {
            Unusable::Address(format!("cannot use the settings: {}", error.without_url()))
        };
        let client = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("ctxtune/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .http1_only()
                .connect_timeout(CONNECT.min(settings.patience))
                .no_proxy();
            Ok(match &settings.proxy {
                None => builder,
                Some((url, direct)) => {
                    let no_proxy = NoProxy::from_string(&format!("{DIRECT},{direct}"));
                    builder.proxy(Proxy::all(url).map_err(unusable)?.no_proxy(no_proxy))
                }
            })
        };
        Ok(Connector {
            answers: client()?.read_timeout(settings.patience).build().map_err(unusable)?,
            uploads: client()?.build().map_err(unusable)?,
            patience: settings.patience,
        })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let bytes = request.body().content_length();
        if bytes < LARGE {
            return self.answers.call(request).await;
        }
        let longest = self.patience + Duration::from_secs(bytes as u64 / SLOWEST);
        let answer = tokio::time::timeout(longest, self.uploads.call(request)).await;
        answer.unwrap_or_else(|late| Err(HttpError::new(HttpErrorKind::Timeout, late)))
    }
}
