//! Stochastic gradient descent and its learning rates.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::network::Network;
use super::parameter::{Kind, Parameter};
use super::threads::{Threads, for_each, share};
use super::vectorized::vectorized;

/// Weight decay of each group of parameters. By default 5·10⁻⁴ for all, as in the paper's training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Decay {
    /// Weight decay of weights.
    pub weights: f32,
    /// Weight decay of thresholds, which the paper regularises as well.
    pub thresholds: f32,
    /// Weight decay of all other parameters: scales of normalisations, biases, slopes.
    pub norms_and_biases: f32,
}

impl Default for Decay {
    fn default() -> Self {
        Self { weights: 5e-4, thresholds: 5e-4, norms_and_biases: 5e-4 }
    }
}

impl Decay {
    fn of(&self, kind: Kind) -> f32 {
        match kind {
            Kind::Weight => self.weights,
            Kind::Threshold => self.thresholds,
            Kind::Norm | Kind::Bias | Kind::Slope => self.norms_and_biases,
            Kind::Buffer => 0.0,
        }
    }
}

/// SGD with momentum and weight decay, as PyTorch defines them: `g ← g + decay · p`, `v ← momentum · v + g`,
/// `p ← p − rate · v`, or with Nesterov's momentum `p ← p − rate · (g + momentum · v)`.
#[derive(Clone, Debug)]
pub struct Sgd {
    momentum: f32,
    nesterov: bool,
    decay: Decay,
    /// One per trained parameter.
    velocities: Vec<Vec<f32>>,
}

/// The numbers of one step for all elements of a parameter.
#[derive(Clone, Copy)]
struct Factors {
    rate: f32,
    momentum: f32,
    nesterov: bool,
    decay: f32,
}

vectorized! {
    fn descend<'a>(value: &'a mut [f32], grad: &'a mut [f32], velocity: &'a mut [f32], factors: Factors) {
        let Factors { rate, momentum, nesterov, decay } = factors;
        for ((value, grad), velocity) in value.iter_mut().zip(grad).zip(velocity) {
            let g = *grad + decay * *value;
            let v = momentum * *velocity + g;
            *value -= rate * if nesterov { g + momentum * v } else { v };
            *velocity = v;
            *grad = 0.0;
        }
    }
}

impl Sgd {
    /// An optimiser whose velocities are zero.
    pub fn new(momentum: f32, nesterov: bool, decay: Decay) -> Self {
        Self { momentum, nesterov, decay, velocities: Vec::new() }
    }

    /// Makes one step with a learning rate. The gradients are zero afterwards.
    pub fn step(&mut self, network: &mut Network, rate: f32) {
        let threads = Threads::new(network.threads());
        let mut index = 0;
        network.visit_mut(|parameter| {
            if parameter.is_trained() {
                self.descend(parameter, index, rate, threads);
                index += 1;
            }
        });
    }

    fn descend(&mut self, parameter: &mut Parameter, index: usize, rate: f32, threads: Threads) {
        if self.velocities.len() == index {
            self.velocities.push(vec![0.0; parameter.value.len()]);
        }
        let decay = self.decay.of(parameter.kind);
        let factors = Factors { rate, momentum: self.momentum, nesterov: self.nesterov, decay };
        let len = share(parameter.value.len(), 1, threads);
        let jobs = parameter.value.chunks_mut(len).zip(parameter.grad.chunks_mut(len));
        for_each(threads, jobs.zip(self.velocities[index].chunks_mut(len)), |((value, grad), velocity)| {
            descend(value, grad, velocity, factors);
        });
    }

    /// Velocities of the trained parameters, in their order in [`Network::state`], each in the memory order of its parameter.
    /// Empty before the first step.
    pub fn velocities(&self) -> &[Vec<f32>] {
        &self.velocities
    }

    /// The velocities, to be set when a run continues: one for each trained parameter, of the same length.
    pub fn velocities_mut(&mut self) -> &mut Vec<Vec<f32>> {
        &mut self.velocities
    }
}

/// How the learning rate falls from epoch to epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It is multiplied by a factor at each milestone.
    Step {
        /// Epochs, counted from 0, that begin with a lower rate. If empty, those of the paper, 150 and 250 of 350, in proportion
        /// to the number of epochs.
        #[serde(default)]
        milestones: Vec<usize>,
        /// The factor by which the rate is multiplied.
        factor: f32,
    },
    /// It falls along half a cosine, from the base rate down to 0 after the last epoch.
    Cosine,
}

impl Default for Schedule {
    /// The schedule of the paper.
    fn default() -> Self {
        Self::Step { milestones: Vec::new(), factor: 0.1 }
    }
}

impl fmt::Display for Schedule {
    /// In words: `times 0.1 after 2, 5 epochs`, `cosine`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { milestones, factor } if milestones.is_empty() => {
                write!(f, "times {factor} after 150/350 and 250/350 of the epochs")
            }
            Self::Step { milestones, factor } => {
                write!(f, "times {factor} after {} epochs", list(milestones).replace(',', ", "))
            }
            Self::Cosine => f.write_str("cosine"),
        }
    }
}

/// Numbers in the form of the command line.
fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

impl Schedule {
    pub(super) fn check(&self) -> Result<(), TrainError> {
        match self {
            Self::Step { milestones, .. } if !milestones.is_sorted_by(|a, b| a < b) || milestones.starts_with(&[0]) => {
                let rule = "each must be greater than the one before, the first at least 1";
                Err(TrainError::setting("milestones", list(milestones), rule))
            }
            _ => Ok(()),
        }
    }

    /// Learning rate of an epoch, counted from 0, of a run of `epochs` epochs.
    pub fn rate(&self, base: f32, epoch: usize, epochs: usize) -> f32 {
        match self {
            Self::Step { milestones, factor } => {
                // Rounded up, so that the first epoch never lies behind a milestone.
                let default = [150, 250].map(|milestone| (epochs as u128 * milestone).div_ceil(350) as usize);
                let milestones = if milestones.is_empty() { &default[..] } else { milestones };
                milestones.iter().filter(|&&milestone| milestone <= epoch).fold(base, |rate, _| rate * factor)
            }
            Self::Cosine => {
                let part = epoch as f64 / epochs.max(1) as f64;
                (f64::from(base) * 0.5 * (1.0 + libm::cos(core::f64::consts::PI * part))) as f32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(kind: Kind, grad: [f32; 2]) -> Parameter {
        let mut parameter = Parameter::new("p".to_owned(), vec![2], kind, vec![1.0, -2.0]);
        parameter.grad = grad.to_vec();
        parameter
    }

    /// Powers of two make every step exact: rate 1/4, momentum 1/2, decay 1/8, gradients 1 and 2.
    #[test]
    fn steps_are_those_computed_by_hand() {
        let decay = Decay { weights: 0.125, ..Decay::default() };
        let mut p = parameter(Kind::Weight, [1.0, 2.0]);
        let mut sgd = Sgd::new(0.5, false, decay);
        sgd.descend(&mut p, 0, 0.25, Threads::new(1));
        assert_eq!(sgd.velocities(), [[1.125, 1.75]]);
        assert_eq!((&p.value, &p.grad), (&vec![0.71875, -2.4375], &vec![0.0, 0.0]));
        // No gradient: g is the decay, 0.08984375 and −0.3046875.
        sgd.descend(&mut p, 0, 0.25, Threads::new(1));
        assert_eq!(sgd.velocities(), [[0.65234375, 0.5703125]]);
        assert_eq!(p.value, [569.0 / 1024.0, -1321.0 / 512.0]);

        let mut p = parameter(Kind::Weight, [1.0, 2.0]);
        let mut sgd = Sgd::new(0.5, true, decay);
        sgd.descend(&mut p, 0, 0.25, Threads::new(1));
        assert_eq!(sgd.velocities(), [[1.125, 1.75]]);
        assert_eq!(p.value, [0.578125, -2.65625]);
    }

    #[test]
    fn each_group_has_its_decay() {
        let decay = Decay { weights: 1.0, thresholds: 2.0, norms_and_biases: 4.0 };
        let kinds =
            [(Kind::Weight, 1.0), (Kind::Threshold, 2.0), (Kind::Norm, 4.0), (Kind::Bias, 4.0), (Kind::Slope, 4.0)];
        for (kind, decays) in kinds {
            let mut p = parameter(kind, [0.5, 1.0]);
            Sgd::new(0.0, false, decay).descend(&mut p, 0, 0.5, Threads::new(1));
            assert_eq!(p.value, [1.0 - 0.5 * (0.5 + decays), -2.0 - 0.5 * (1.0 - 2.0 * decays)]);
        }
    }

    #[test]
    fn rates_fall_as_described() {
        let paper = Schedule::default();
        let rates = [0, 149, 150, 249, 250, 349].map(|epoch| paper.rate(1.0, epoch, 350));
        assert_eq!(rates, [1.0, 1.0, 0.1, 0.1, 0.1 * 0.1, 0.1 * 0.1]);
        assert_eq!([1, 2, 4].map(|epochs| paper.rate(1.0, 0, epochs)), [1.0; 3]);
        let step = Schedule::Step { milestones: vec![1, 3], factor: 0.5 };
        assert_eq!([0, 1, 2, 3].map(|epoch| step.rate(1.0, epoch, 5)), [1.0, 0.5, 0.5, 0.25]);
        assert_eq!(paper.rate(1.0, usize::MAX / 2, usize::MAX), 0.1);
        let cosine = [0, 5, 10].map(|epoch| Schedule::Cosine.rate(2.0, epoch, 10));
        assert_eq!(cosine, [2.0, 1.0, 0.0]);
        let read: Schedule = serde_json::from_str(r#"{"step": {"factor": 0.1}}"#).unwrap();
        assert_eq!(read, paper);
        assert_eq!(serde_json::to_string(&Schedule::Cosine).unwrap(), r#""cosine""#);
    }
}
