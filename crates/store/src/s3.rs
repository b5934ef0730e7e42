//! S3: the library's client, and beside it the requests that it makes otherwise than they are needed here.
//!
//! The library takes keys for paths: it cannot ask for `a//b` or `a\tb`, and reads `dir/` in a listing as `dir`. So
//! listings, and objects with such keys, are asked for here, signed by the library.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ctxtune_engine::storage::Unusable;
use http::{HeaderMap, Method, StatusCode};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody};
use object_store::{ClientOptions, RetryConfig};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::address::Address;
use crate::connector::Connector;
use crate::credentials::{is_named, profile};
use crate::failure::{KEY_HINT, Refusal, innermost, said};
use crate::settings::Settings;

/// What stays as it is in the query of a URL.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What stays as it is in its path.
const IN_PATH: &AsciiSet = &IN_QUERY.remove(b'/');

/// How often a request is made at most, as the tools of AWS read it, with a default for long runs.
pub fn retries(settings: &Settings) -> Result<RetryConfig, Unusable> {
    let attempts = match settings.variable("AWS_MAX_ATTEMPTS").map(str::parse) {
        None => 10,
        Some(Ok(attempts)) if attempts > 0 => attempts,
        Some(_) => return Err(Unusable::Address("AWS_MAX_ATTEMPTS is no number from 1 on".to_owned())),
    };
    Ok(RetryConfig { max_retries: attempts - 1, ..RetryConfig::default() })
}

/// The region to begin with: the bucket's own is learnt from the first answer.
pub fn region(settings: &Settings) -> &str {
    let named = settings.variable("AWS_REGION").or_else(|| settings.variable("AWS_DEFAULT_REGION"));
    named.unwrap_or("us-east-1")
}

fn is_yes(settings: &Settings, name: &str) -> bool {
    settings.variable(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
}

/// How long is waited for a machine that may be no instance: nobody answers where it is none.
const PATIENCE_FOR_INSTANCE: Duration = Duration::from_secs(2);

/// The URL of the bucket: below a custom endpoint as a path; else as a host, where its name can be one.
fn endpoint(address: &Address, settings: &Settings, region: &str) -> Result<String, Unusable> {
    let custom = settings.variable("AWS_ENDPOINT_URL_S3").or_else(|| settings.variable("AWS_ENDPOINT_URL"));
    let bucket = &address.bucket;
    let Some(custom) = custom else {
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        return Ok(match bucket.contains('.') {
            true => format!("https://s3.{region}.{domain}/{bucket}"),
            false => format!("https://{bucket}.s3.{region}.{domain}"),
        });
    };
    let custom = custom.trim_end_matches('/');
    let unusable = |why: &str| Err(Unusable::Address(format!("the endpoint `{custom}` {why}")));
    let Ok(url) = reqwest::Url::parse(custom) else { return unusable("is no URL") };
    let is_loopback = matches!(url.host_str(), Some(host) if host == "localhost" || host == "[::1]" || host.starts_with("127."));
    match url.scheme() {
        "https" => {}
        "http" if is_loopback || is_yes(settings, "AWS_ALLOW_HTTP") => {}
        "http" => return unusable("is not encrypted: set AWS_ALLOW_HTTP=true where that is meant"),
        _ => return unusable("is neither https nor http"),
    }
    let is_of_bucket = is_yes(settings, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST");
    Ok(if is_of_bucket { custom.to_owned() } else { format!("{custom}/{bucket}") })
}

/// The requests that are made here.
#[derive(Debug)]
pub struct Wire {
    client: HttpClient,
    /// The URL of the bucket.
    endpoint: String,
    pub region: String,
    /// `None` for a bucket that is asked without a signature.
    credentials: Option<AwsCredentialProvider>,
    pays: bool,
    retries: usize,
}

/// The library's client and ours, of one bucket in one region.
pub async fn clients(
    address: &Address,
    settings: &Settings,
    connector: &Connector,
    region: &str,
) -> Result<(AmazonS3, Wire), Unusable> {
    let retry = retries(settings)?;
    let endpoint = endpoint(address, settings, region)?;
    let no_key = |error: &object_store::Error| Unusable::Key {
        message: format!("no credentials for `{}`: {}", address.root, said(&innermost(error).to_string())),
        hint: KEY_HINT.to_owned(),
    };
    let mut builder = AmazonS3Builder::new();
    for (name, value) in &settings.variables {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()
            && !value.is_empty()
        {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_bucket_name(&address.bucket)
        .with_region(region)
        .with_endpoint(&endpoint)
        .with_virtual_hosted_style_request(true)
        .with_http_connector(connector.clone());
    builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, &endpoint);
    let is_signed = builder.get_config_value(&AmazonS3ConfigKey::SkipSignature).as_deref() != Some("true");
    let pays = settings.variable("AWS_REQUEST_PAYER").is_some_and(|value| value != "false");
    // Who is nobody's instance learns so at once, not after all attempts.
    let soon = RetryConfig { max_retries: 1.min(retry.max_retries), ..retry.clone() };
    let credentials: AwsCredentialProvider = match profile(settings) {
        Some(profile) => Arc::new(profile),
        None if !is_named(settings) && is_yes(settings, "AWS_EC2_METADATA_DISABLED") => {
            let message =
                format!("no credentials for `{}`: no variable and no profile has any", address.root);
            return Err(Unusable::Key { message, hint: KEY_HINT.to_owned() });
        }
        None => {
            let patience = match is_named(settings) {
                true => settings.patience,
                false => settings.patience.min(PATIENCE_FOR_INSTANCE),
            };
            let connector = Connector::new(&Settings { patience, ..settings.clone() })?;
            let library = builder.clone().with_retry(soon).with_http_connector(connector).build();
            library.map_err(|error| no_key(&error))?.credentials().clone()
        }
    };
    if is_signed {
        credentials.get_credential().await.map_err(|error| no_key(&error))?;
    }
    let s3 = builder.with_credentials(credentials.clone()).with_retry(retry.clone()).build();
    let s3 = s3.map_err(|error| {
        Unusable::Address(format!("cannot use the settings of `{}`: {error}", address.root))
    })?;
    let client = connector.connect(&ClientOptions::default()).map_err(|error| no_key(&error))?;
    let region = region.to_owned();
    let credentials = is_signed.then_some(credentials);
    Ok((s3, Wire { client, endpoint, region, credentials, pays, retries: retry.max_retries }))
}

impl Wire {
    /// The answer to a request without a body, whole; again after what may pass.
    pub async fn ask(
        &self,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
        headers: &[(http::HeaderName, &str)],
    ) -> Result<Bytes, Refusal> {
        let mut pause = Duration::from_millis(100);
        for retry in 0.. {
            match self.ask_once(&method, key, query, headers).await {
                Err(refusal) if retry < self.retries && may_pass(refusal.status) => {
                    tokio::time::sleep(pause).await
                }
                result => return result,
            }
            pause = (pause * 2).min(Duration::from_secs(15));
        }
        unreachable!("the last retry returns")
    }

    async fn ask_once(
        &self,
        method: &Method,
        key: &str,
        query: &[(&str, &str)],
        headers: &[(http::HeaderName, &str)],
    ) -> Result<Bytes, Refusal> {
        let unsent = |said: String| Refusal { status: Some(0), said, region: None };
        let mut url = format!("{}/{}", self.endpoint, utf8_percent_encode(key, IN_PATH));
        for (number, (name, value)) in query.iter().enumerate() {
            let (mark, value) = (if number == 0 { '?' } else { '&' }, utf8_percent_encode(value, IN_QUERY));
            url.push_str(&format!("{mark}{name}={value}"));
        }
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let mut request =
            request.body(HttpRequestBody::empty()).map_err(|error| unsent(error.to_string()))?;
        let lost = |error: &(dyn std::error::Error + 'static)| Refusal {
            status: None,
            said: said(&innermost(error).to_string()),
            region: None,
        };
        if let Some(credentials) = &self.credentials {
            let credential = credentials.get_credential().await.map_err(|error| lost(&error))?;
            let authorizer =
                AwsAuthorizer::new(&credential, "s3", &self.region).with_request_payer(self.pays);
            authorizer.try_authorize(&mut request, None).map_err(|error| lost(&error))?;
        }
        let answer = self.client.execute(request).await.map_err(|error| lost(&error))?;
        let (parts, body) = answer.into_parts();
        let body = body.bytes().await.map_err(|error| lost(&error))?;
        if parts.status.is_success() {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body);
        Err(Refusal {
            status: Some(parts.status.as_u16()),
            said: said(&format!("{}: {text}", parts.status)),
            region: region_of(&parts.headers),
        })
    }
}

fn region_of(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("x-amz-bucket-region")?.to_str().ok()?.to_owned())
}

/// Whether the same request may be answered otherwise later.
fn may_pass(status: Option<u16>) -> bool {
    match status {
        None => true,
        Some(status) => {
            status >= 500
                || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS]
                    .iter()
                    .any(|other| other.as_u16() == status)
        }
    }
}
