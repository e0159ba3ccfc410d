//! Random numbers that depend on their index. A stream depends on the seed, the purpose and the index, not on numbers that were
//! drawn before. So neither threads nor an interruption change it, and a checkpoint need not hold a generator's state.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// The purpose of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Initial values of the parameters.
    Init = 1,
    /// Order of the examples. The index is the epoch.
    Order = 2,
    /// Crops and flips. The index is the epoch and the example.
    Augment = 3,
    /// Dropout masks. The index is the layer and the step.
    Dropout = 4,
    /// Values of synthetic data.
    Synthetic = 5,
}

/// The stream of a seed for a purpose and an index.
pub(super) fn stream(seed: u64, purpose: Purpose, index: [u64; 2]) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, index[0], index[1]]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Gaussian numbers with mean 0, by Box and Muller's transform. It uses the crate `libm`, so that every platform draws the same
/// numbers.
pub(super) fn gaussian(rng: &mut ChaCha8Rng, len: usize, deviation: f32) -> Vec<f32> {
    let mut draw = || {
        // In (0, 1], because the logarithm of 0 is not finite.
        let radius = libm::sqrtf(-2.0 * libm::logf(1.0 - rng.random::<f32>()));
        deviation * radius * libm::cosf(core::f32::consts::TAU * rng.random::<f32>())
    };
    (0..len).map(|_| draw()).collect()
}

/// Numbers that are uniform over `[-bound, bound)`.
pub(super) fn uniform(rng: &mut ChaCha8Rng, len: usize, bound: f32) -> Vec<f32> {
    (0..len).map(|_| bound * (2.0 * rng.random::<f32>() - 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut rng = stream(1, Purpose::Init, [0, 0]);
        for (values, variance) in [(gaussian(&mut rng, 20_000, 0.2), 0.04), (uniform(&mut rng, 20_000, 0.6), 0.12)] {
            let mean = values.iter().sum::<f32>() / 20_000.0;
            let found = values.iter().map(|v| v * v).sum::<f32>() / 20_000.0;
            assert!(mean.abs() < 0.01 && (found / variance - 1.0).abs() < 0.05, "{mean} {found}");
        }
    }

    #[test]
    fn places_have_streams_of_their_own() {
        let draw = |seed, purpose, index| stream(seed, purpose, index).random::<u64>();
        let first = draw(1, Purpose::Order, [0, 0]);
        assert_eq!(first, draw(1, Purpose::Order, [0, 0]));
        for other in [
            draw(2, Purpose::Order, [0, 0]),
            draw(1, Purpose::Augment, [0, 0]),
            draw(1, Purpose::Order, [1, 0]),
            draw(1, Purpose::Order, [0, 1]),
        ] {
            assert_ne!(first, other);
        }
    }
}
