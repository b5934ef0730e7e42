//! Decides, from names alone, which records train and which validate.
//!
//! Separate from the writer so that the decision is pure: it depends on the seed, the
//! ratio and the keys, never on contents, threads, listing order or time. It must stay
//! stable between releases: the vectors in the tests pin it, and `scripts/split.py`
//! recomputes it from the definition.

pub mod group;
pub(crate) mod leakage;

use sha2::{Digest, Sha256};

/// A place in the one order that decides everything; see [`rank`].
pub type Rank = [u8; 16];

/// The rank of `key` under `seed`: the first 16 bytes of SHA-256(`"{seed}:"` + key), big-endian.
///
/// The same in Python: `hashlib.sha256(f"{seed}:".encode() + key).digest()[:16]`.
///
/// ```
/// let rank = ctxtune_engine::split::rank(42, b"0.json");
/// assert_eq!(u128::from_be_bytes(rank), 0xff5df368f4c3e8004cccce586b30df71);
/// ```
pub fn rank(seed: u64, key: &[u8]) -> Rank {
    Ranks::new(seed).rank(key)
}

/// The ranks of many keys under one seed.
#[derive(Debug, Clone)]
pub struct Ranks(Sha256);

impl Ranks {
    /// The ranks under `seed`.
    pub fn new(seed: u64) -> Ranks {
        Ranks(Sha256::new().chain_update(format!("{seed}:")))
    }

    /// What [`rank`] gives for `key`.
    pub fn rank(&self, key: &[u8]) -> Rank {
        let digest = self.0.clone().chain_update(key).finalize();
        digest[..16].try_into().expect("a SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ratio::Ratio;

    #[test]
    fn the_vector_of_the_design_is_reproduced() {
        let mut keys: Vec<String> = (0..3533).map(|n| format!("{n}.json")).collect();
        keys.sort_by_key(|key| rank(42, key.as_bytes()));
        let train = "0.1".parse::<Ratio>().unwrap().train_count(3533) as usize;
        let stems = |keys: &[String]| -> Vec<u32> {
            keys.iter().map(|key| key.trim_end_matches(".json").parse().unwrap()).collect()
        };
        let (train, validation) = keys.split_at(train);
        let train = stems(train);
        let mut validation = stems(validation);
        validation.reverse();
        assert_eq!((train.len(), validation.len()), (3179, 354));
        assert_eq!((&train[..5], &train[3177..]), (&[1511, 3411, 2137, 3, 3246][..], &[3426, 1702][..]));
        assert_eq!((&validation[..3], &validation[352..]), (&[2532, 407, 2242][..], &[1627, 3449][..]));
    }
}
