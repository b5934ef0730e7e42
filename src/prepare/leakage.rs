//! Counts the validation records that share a story or a set of agents with training.
//!
//! A model that has seen a validation story, or its cast, is measured too kindly. Each
//! text is represented by the first 8 bytes of its SHA-256: at a million records the
//! chance that two different texts are taken for the same is about one in forty million.

use sha2::{Digest, Sha256};

/// Eight bytes that stand for a text.
pub type Fingerprint = u64;

/// The fingerprint of `text`: the first 8 bytes of its SHA-256, big-endian.
pub fn fingerprint(text: &[u8]) -> Fingerprint {
    let digest = Sha256::digest(text);
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
}

/// How many of `validation` also occur in `train`.
pub fn count_shared(
    train: impl Iterator<Item = Fingerprint>,
    validation: impl Iterator<Item = Fingerprint>,
) -> u64 {
    let mut train: Vec<Fingerprint> = train.collect();
    train.sort_unstable();
    validation.filter(|fingerprint| train.binary_search(fingerprint).is_ok()).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_validation_record_counts_once() {
        let shared = count_shared([3, 1, 3, 2].into_iter(), [3, 3, 4, 1].into_iter());
        assert_eq!(shared, 3);
        assert_eq!(count_shared([].into_iter(), [1].into_iter()), 0);
    }
}
