//! The fixed order of examples whose files are sorted by class.

use rand::seq::SliceRandom;

use crate::train::random::{Purpose, stream};

/// Seed of the shuffle of files that are sorted by class. It is not a setting, because it is a part of the data set.
pub const SHUFFLE_SEED: u64 = 2020;

/// A fixed order for files that are sorted by class.
pub(super) fn shuffled(len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut stream(SHUFFLE_SEED, Purpose::Order, [0, 0]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_shuffle_is_a_permutation_and_stays_as_it_is() {
        let order = shuffled(100);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..100) && order == shuffled(100));
        // Another order would be another split of Movie Review.
        assert_eq!(shuffled(8530)[..4], [8355, 4200, 8178, 3706]);
    }
}
