//! Initial values.

use std::fmt;
use std::str::FromStr;

use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::named::named;
use super::random::{gaussian, uniform};

/// Initial thresholds (table 4 of the paper).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThresholdInit {
    /// θ = 0, with which ConvReLU begins as ReLU. The best one in the paper.
    #[default]
    Zero,
    /// Gaussian with mean 0 and this standard deviation ("random" in the paper, which gives no scale).
    Gaussian(f32),
    /// Uniform on `[-bound, bound)`.
    Uniform(f32),
    /// Gaussian with mean 0 and variance `2 / (n_in + n_out)`, both counted in channels times taps.
    Glorot,
}

impl fmt::Display for ThresholdInit {
    /// The form on the command line: `zero`, `gaussian:0.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("zero"),
            Self::Gaussian(scale) => write!(f, "gaussian:{scale}"),
            Self::Uniform(scale) => write!(f, "uniform:{scale}"),
            Self::Glorot => f.write_str("glorot"),
        }
    }
}

impl FromStr for ThresholdInit {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        let (name, scale) = text.split_once(':').map_or((text, None), |(name, scale)| (name, scale.parse().ok()));
        match (name, scale, text.contains(':')) {
            ("zero", None, false) => Ok(Self::Zero),
            ("glorot", None, false) => Ok(Self::Glorot),
            ("gaussian", Some(scale), _) => Ok(Self::Gaussian(scale)),
            ("uniform", Some(scale), _) => Ok(Self::Uniform(scale)),
            _ => {
                let rule = "it must be zero, glorot, gaussian:SCALE or uniform:SCALE, where SCALE is a number";
                Err(TrainError::setting("threshold-init", text, rule))
            }
        }
    }
}

impl ThresholdInit {
    /// `len` thresholds of a layer with `fan_in` and `fan_out` channels times taps.
    pub(super) fn sample(self, rng: &mut ChaCha8Rng, len: usize, fan_in: usize, fan_out: usize) -> Vec<f32> {
        match self {
            Self::Zero => vec![0.0; len],
            Self::Gaussian(deviation) => gaussian(rng, len, deviation),
            Self::Uniform(bound) => uniform(rng, len, bound),
            Self::Glorot => gaussian(rng, len, libm::sqrtf(2.0 / (fan_in + fan_out) as f32)),
        }
    }
}

/// Initial weights and biases of convolutions and linear layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightInit {
    /// He et al. 2015: Gaussian with variance `2 / fan_in`, biases zero.
    #[default]
    He,
    /// PyTorch's default: weights and biases uniform within `1 / √fan_in`.
    Pytorch,
}

named!(WeightInit, "weight-init", [He = "he", Pytorch = "pytorch"]);

impl WeightInit {
    /// `len` weights of a layer that sums over `fan_in` inputs.
    pub(super) fn weight(self, rng: &mut ChaCha8Rng, len: usize, fan_in: usize) -> Vec<f32> {
        match self {
            Self::He => gaussian(rng, len, libm::sqrtf(2.0 / fan_in as f32)),
            Self::Pytorch => uniform(rng, len, 1.0 / libm::sqrtf(fan_in as f32)),
        }
    }

    /// The biases of such a layer.
    pub(super) fn bias(self, rng: &mut ChaCha8Rng, len: usize, fan_in: usize) -> Vec<f32> {
        match self {
            Self::He => vec![0.0; len],
            Self::Pytorch => uniform(rng, len, 1.0 / libm::sqrtf(fan_in as f32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::random::{Purpose, stream};

    #[test]
    fn names_go_both_ways() {
        for text in ["zero", "glorot", "gaussian:0.1", "uniform:2"] {
            assert_eq!(text.parse::<ThresholdInit>().unwrap().to_string(), text);
        }
        for text in ["one", "zero:1", "gaussian", "gaussian:", "gaussian:much"] {
            let message = text.parse::<ThresholdInit>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("threshold-init is {text}: it must be zero, ")), "{message}");
        }
        assert_eq!("he".parse::<WeightInit>().unwrap(), WeightInit::He);
    }

    #[test]
    fn scales_follow_the_layer() {
        let mut rng = stream(1, Purpose::Init, [0, 0]);
        let variance = |values: &[f32]| values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        let he = WeightInit::He.weight(&mut rng, 20_000, 50);
        assert!((variance(&he) / 0.04 - 1.0).abs() < 0.05);
        let pytorch = WeightInit::Pytorch.weight(&mut rng, 20_000, 25);
        assert!(pytorch.iter().all(|w| w.abs() <= 0.2) && (variance(&pytorch) * 75.0 - 1.0).abs() < 0.05);
        assert_eq!(WeightInit::He.bias(&mut rng, 2, 25), [0.0; 2]);
        assert!(WeightInit::Pytorch.bias(&mut rng, 100, 25).iter().any(|&b| b != 0.0));
        assert_eq!(ThresholdInit::Zero.sample(&mut rng, 3, 1, 1), [0.0; 3]);
        let glorot = ThresholdInit::Glorot.sample(&mut rng, 20_000, 20, 30);
        assert!((variance(&glorot) / 0.04 - 1.0).abs() < 0.05);
    }
}
