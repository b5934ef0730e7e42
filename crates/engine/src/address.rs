//! Addresses of places and objects in stores, where paths are asked for.
//!
//! They are told from paths by their scheme, and taken as they are: nothing in them is percent-encoded.

use std::io;
use std::path::{Path, PathBuf};

/// What addresses of places in stores begin with.
pub const SCHEMES: [&str; 3] = ["s3://", "gs://", "az://"];

/// `path` as the address of a place in a store, if it is one.
pub fn address(path: &Path) -> Option<&str> {
    path.to_str().filter(|text| SCHEMES.iter().any(|scheme| text.starts_with(scheme)))
}

/// `path`, absolute; an address is.
///
/// # Errors
/// The system's.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    if address(path).is_some() { Ok(path.to_owned()) } else { std::path::absolute(path) }
}

/// The place that an object lies in, and its name there.
pub fn place_of(address: &str) -> (&str, &str) {
    let after = address.find("://").map_or(0, |scheme| scheme + 3);
    match address[after..].rfind('/') {
        Some(slash) => (&address[..after + slash + 1], &address[after + slash + 1..]),
        None => (address, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_place_and_a_name() {
        assert_eq!(place_of("s3://b/p/x"), ("s3://b/p/", "x"));
        assert_eq!(place_of("s3://b/x"), ("s3://b/", "x"));
        assert_eq!(place_of("s3://b"), ("s3://b", ""));
        assert_eq!(address(Path::new("s3://b/p")), Some("s3://b/p"));
        assert_eq!(address(Path::new("http://b/p")).or(address(Path::new("s3:/b"))), None);
        assert_eq!(absolute(Path::new("gs://b//p/")).unwrap(), Path::new("gs://b//p/"));
    }
}
