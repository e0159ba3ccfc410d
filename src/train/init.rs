//! Initial values.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

/// How thresholds begin (paper, Table 4).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ThresholdInit {
    /// θ = 0, where ConvReLU is ReLU: the paper's best.
    #[default]
    Zero,
    /// Gaussian with mean 0 and this standard deviation.
    Gaussian(f32),
    /// Gaussian with mean 0 and variance `2 / (n_in + n_out)`.
    Glorot,
}

impl ThresholdInit {
    /// `len` thresholds of a layer with `fan_in` and `fan_out` channels times taps.
    pub(super) fn sample(self, rng: &mut ChaCha8Rng, len: usize, fan_in: usize, fan_out: usize) -> Vec<f32> {
        match self {
            Self::Zero => vec![0.0; len],
            Self::Gaussian(deviation) => gaussian(rng, len, deviation),
            Self::Glorot => gaussian(rng, len, libm::sqrtf(2.0 / (fan_in + fan_out) as f32)),
        }
    }
}

/// He initialisation: Gaussian with variance `2 / fan_in`.
pub(super) fn he(rng: &mut ChaCha8Rng, len: usize, fan_in: usize) -> Vec<f32> {
    gaussian(rng, len, libm::sqrtf(2.0 / fan_in as f32))
}

/// Box and Muller's transform, through `libm` so that every platform draws the same numbers.
fn gaussian(rng: &mut ChaCha8Rng, len: usize, deviation: f32) -> Vec<f32> {
    let mut draw = || {
        // In (0, 1]: the logarithm of 0 is not finite.
        let radius = libm::sqrtf(-2.0 * libm::logf(1.0 - rng.random::<f32>()));
        deviation * radius * libm::cosf(core::f32::consts::TAU * rng.random::<f32>())
    };
    (0..len).map(|_| draw()).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn moments_are_those_of_the_distribution() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values = he(&mut rng, 20_000, 50);
        let mean = values.iter().sum::<f32>() / 20_000.0;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.005 && (variance / 0.04 - 1.0).abs() < 0.05, "{mean} {variance}");
        assert_eq!(ThresholdInit::Zero.sample(&mut rng, 3, 1, 1), [0.0; 3]);
    }
}
