//! Counts the validation records that share a story or a set of agents with training.
//!
//! A model that has seen a validation story, or its cast, is measured too kindly. Each text is represented
//! by a mark of eight bytes: at a million records the chance that two different texts are taken for the same
//! is about one in forty million. Marks of records prepared on different machines can be compared.

use twox_hash::XxHash3_64;

/// Eight bytes that stand for a text.
pub type Mark = u64;

/// The mark of `text`: its XXH3-64 with seed 0, as the algorithm's specification defines it for every
/// machine. It is no protection against texts made to look alike; nothing here is trusted to it.
pub fn mark(text: &[u8]) -> Mark {
    XxHash3_64::oneshot(text)
}

/// How many of `validation` also occur in `train`.
pub fn count_shared(train: impl Iterator<Item = Mark>, validation: impl Iterator<Item = Mark>) -> u64 {
    let mut train: Vec<Mark> = train.collect();
    train.sort_unstable();
    validation.filter(|mark| train.binary_search(mark).is_ok()).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first `length` bytes of the buffer with which the reference implementation checks itself.
    fn reference_bytes(length: usize) -> Vec<u8> {
        let mut state: u64 = 2_654_435_761;
        let byte = |_| {
            let byte = state.to_be_bytes()[0];
            state = state.wrapping_mul(11_400_714_785_074_694_797);
            byte
        };
        (0..length).map(byte).collect()
    }

    #[test]
    fn marks_are_those_of_the_reference_implementation() {
        let check = |length, expected| assert_eq!(mark(&reference_bytes(length)), expected, "{length} bytes");
        check(0, 0x2d06800538d394c2);
        check(1, 0xc44bdff4074eecdb);
        check(4, 0xe5dc74bc51848a51);
        check(16, 0x981b17d36c7498c9);
        check(128, 0xfcff24126754d861);
        check(240, 0x81c3c2b67f568ccf);
        check(241, 0xc5a639ecd2030e5e);
        check(4160, 0x4f323b15321e94e1);
    }

    #[test]
    fn each_validation_record_counts_once() {
        let shared = count_shared([3, 1, 3, 2].into_iter(), [3, 3, 4, 1].into_iter());
        assert_eq!(shared, 3);
        assert_eq!(count_shared([].into_iter(), [1].into_iter()), 0);
    }
}
