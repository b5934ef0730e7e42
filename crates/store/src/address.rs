//! `s3://bucket/prefix`: which service, which bucket, and what the keys of the place begin with.
//!
//! Keys are bytes as people see them: nothing in an address is percent-encoded.

use ctxtune_engine::address::SCHEMES;
use ctxtune_engine::storage::Unusable;

/// The service of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    S3,
    Google,
    Azure,
}

const SERVICES: [Service; 3] = [Service::S3, Service::Google, Service::Azure];

/// A place in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub service: Service,
    /// `s3://bucket/`.
    pub root: String,
    pub bucket: String,
    /// Empty, or it ends in `/`: what is below `s3://b/p` is no `s3://b/p2`.
    pub prefix: String,
}

/// The place that `text` names.
pub fn parse(text: &str) -> Result<Address, Unusable> {
    let found = SCHEMES
        .iter()
        .zip(SERVICES)
        .find_map(|(scheme, service)| Some((service, *scheme, text.strip_prefix(scheme)?)));
    let Some((service, scheme, rest)) = found else {
        return Err(Unusable::Address(format!(
            "`{text}` is no address of a bucket, such as s3://bucket/prefix"
        )));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_name = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    if bucket.is_empty() || !bucket.chars().all(is_name) {
        return Err(Unusable::Address(format!("`{text}` names no bucket")));
    }
    let end = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "/" };
    Ok(Address {
        service,
        root: format!("{scheme}{bucket}/"),
        bucket: bucket.to_owned(),
        prefix: format!("{prefix}{end}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_a_prefix_that_ends_in_a_slash() {
        let check = |text: &str, bucket: &str, prefix: &str| {
            let address = parse(text).unwrap();
            assert_eq!((address.bucket.as_str(), address.prefix.as_str()), (bucket, prefix), "{text}");
        };
        check("s3://b", "b", "");
        check("s3://b/", "b", "");
        check("s3://b/p", "b", "p/");
        check("gs://b/p/", "b", "p/");
        check("s3://b.c/p%20 ?#/ä", "b.c", "p%20 ?#/ä/");
        check("s3://b//p", "b", "/p/");
        for text in ["s3://", "s3:///p", "s3://b:80/p", "s3://u@b/p", "http://b/p", "b/p"] {
            assert!(matches!(parse(text), Err(Unusable::Address(_))), "{text}");
        }
    }
}
