//! The steps of training: stochastic gradient descent or Adam, and their learning rates.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::named::named;
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

/// How the gradients change the parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Stochastic gradient descent with momentum, as in the paper.
    #[default]
    Sgd,
    /// Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019, "AdamW"). The size of its steps does not
    /// depend on the scale of the gradients, which helps parameters that rarely have one, such as vectors of words.
    Adam,
}

named!(Rule, "optimizer", [Sgd = "sgd", Adam = "adam"]);

/// Share of its past that Adam's mean of squared gradients keeps per step: β₂ of the paper, with its default value.
const SQUARES_KEPT: f64 = 0.999;

/// What Adam adds to the root of a squared gradient, so that it never divides by zero: ε of the paper, with its default value.
const ROOT_OFFSET: f32 = 1e-8;

/// An optimiser: a rule with its momentum, its weight decay and what it remembers of past gradients.
///
/// The rules are as PyTorch defines them (`SGD`, `AdamW`), where `g` is the gradient, `p` the parameter, and `n` the number of the
/// step, from 1:
///
/// - SGD: `g ← g + decay · p`, `v ← momentum · v + g`, `p ← p − rate · v`, or with Nesterov's momentum
///   `p ← p − rate · (g + momentum · v)`.
/// - Adam: `v ← momentum · v + (1 − momentum) · g`, `s ← β₂ · s + (1 − β₂) · g²`,
///   `p ← p − rate · decay · p − rate · v / (1 − momentumⁿ) / (√(s / (1 − β₂ⁿ)) + ε)`, with β₂ = 0.999 and ε = 10⁻⁸.
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: Rule,
    momentum: f32,
    nesterov: bool,
    decay: Decay,
    memory: Memory,
}

/// What an optimiser remembers: for each trained parameter, in the order of [`Network::state`], as many elements as it has, in its
/// memory order. All are empty before the first step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Velocities of SGD, or means of the gradients of Adam: `v` in [`Optimizer`].
    pub velocities: Vec<Vec<f32>>,
    /// Means of the squared gradients of Adam: `s` in [`Optimizer`]. SGD has none.
    pub squares: Vec<Vec<f32>>,
}

/// The numbers of one step of SGD for all elements of a parameter.
#[derive(Clone, Copy)]
struct Descent {
    rate: f32,
    momentum: f32,
    nesterov: bool,
    decay: f32,
}

/// The numbers of one step of Adam for all elements of a parameter.
#[derive(Clone, Copy)]
struct Adaption {
    /// Learning rate, divided by the sum of the weights of the gradients in their mean.
    rate: f32,
    momentum: f32,
    /// Learning rate times weight decay.
    shrinkage: f32,
    /// Weight of the newest squared gradient in their mean.
    square_weight: f32,
    /// 1 / √(sum of the weights of the squared gradients in their mean).
    root_scale: f32,
}

vectorized! {
    fn descend<'a>(value: &'a mut [f32], grad: &'a mut [f32], velocity: &'a mut [f32], factors: Descent) {
        let Descent { rate, momentum, nesterov, decay } = factors;
        for ((value, grad), velocity) in value.iter_mut().zip(grad).zip(velocity) {
            let g = *grad + decay * *value;
            let v = momentum * *velocity + g;
            *value -= rate * if nesterov { g + momentum * v } else { v };
            *velocity = v;
            *grad = 0.0;
        }
    }

    fn adapt<'a>(
        value: &'a mut [f32],
        grad: &'a mut [f32],
        velocity: &'a mut [f32],
        square: &'a mut [f32],
        factors: Adaption,
    ) {
        let Adaption { rate, momentum, shrinkage, square_weight, root_scale } = factors;
        for (((value, grad), velocity), square) in value.iter_mut().zip(grad).zip(velocity).zip(square) {
            let g = *grad;
            let v = momentum * *velocity + (1.0 - momentum) * g;
            let s = (1.0 - square_weight) * *square + square_weight * (g * g);
            let p = *value - shrinkage * *value;
            *value = p - rate * v / (root_scale * s.sqrt() + ROOT_OFFSET);
            (*velocity, *square, *grad) = (v, s, 0.0);
        }
    }
}

impl Optimizer {
    /// An optimiser that remembers nothing. `momentum` is that of SGD, or the share of its past that Adam's mean of gradients keeps
    /// per step (β₁). `nesterov` is for SGD only.
    pub fn new(rule: Rule, momentum: f32, nesterov: bool, decay: Decay) -> Self {
        Self { rule, momentum, nesterov, decay, memory: Memory::default() }
    }

    /// Makes one step with a learning rate. `number` counts the steps of a run from 1. The gradients are zero afterwards.
    pub fn step(&mut self, network: &mut Network, rate: f32, number: u64) {
        let threads = Threads::new(network.threads());
        threads.inside(|| {
            let mut index = 0;
            network.visit_mut(|parameter| {
                if parameter.is_trained() {
                    self.change(parameter, index, rate, number, threads);
                    index += 1;
                }
            });
        });
    }

    fn change(&mut self, parameter: &mut Parameter, index: usize, rate: f32, number: u64, threads: Threads) {
        let Self { rule, momentum, nesterov, decay, ref mut memory } = *self;
        let decay = decay.of(parameter.kind);
        let Parameter { value, grad, .. } = parameter;
        let size = value.len();
        let at = |memories: &mut Vec<Vec<f32>>| {
            if memories.len() == index {
                memories.push(vec![0.0; size]);
            }
        };
        at(&mut memory.velocities);
        let len = share(size, 1, threads);
        let jobs = value.chunks_mut(len).zip(grad.chunks_mut(len)).zip(memory.velocities[index].chunks_mut(len));
        match rule {
            Rule::Sgd => {
                let factors = Descent { rate, momentum, nesterov, decay };
                for_each(threads, jobs, |((value, grad), velocity)| descend(value, grad, velocity, factors));
            }
            Rule::Adam => {
                at(&mut memory.squares);
                // In f64, because early sums of weights of the squares are near 1 − β₂, a small difference of large numbers.
                let weights = |kept: f64| 1.0 - libm::pow(kept, number as f64);
                let factors = Adaption {
                    rate: (f64::from(rate) / weights(momentum.into())) as f32,
                    momentum,
                    shrinkage: rate * decay,
                    square_weight: (1.0 - SQUARES_KEPT) as f32,
                    root_scale: (1.0 / libm::sqrt(weights(SQUARES_KEPT))) as f32,
                };
                for_each(threads, jobs.zip(memory.squares[index].chunks_mut(len)), |(((value, grad), v), s)| {
                    adapt(value, grad, v, s, factors);
                });
            }
        }
    }

    /// The rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// What it remembers.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What it remembers, to be set when a run continues.
    pub fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
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
        let mut sgd = Optimizer::new(Rule::Sgd, 0.5, false, decay);
        sgd.change(&mut p, 0, 0.25, 1, Threads::new(1));
        assert_eq!(sgd.memory().velocities, [[1.125, 1.75]]);
        assert_eq!((&p.value, &p.grad), (&vec![0.71875, -2.4375], &vec![0.0, 0.0]));
        // No gradient: g is the decay, 0.08984375 and −0.3046875.
        sgd.change(&mut p, 0, 0.25, 2, Threads::new(1));
        assert_eq!(sgd.memory().velocities, [[0.65234375, 0.5703125]]);
        assert_eq!(p.value, [569.0 / 1024.0, -1321.0 / 512.0]);

        let mut p = parameter(Kind::Weight, [1.0, 2.0]);
        let mut sgd = Optimizer::new(Rule::Sgd, 0.5, true, decay);
        sgd.change(&mut p, 0, 0.25, 1, Threads::new(1));
        assert_eq!(sgd.memory().velocities, [[1.125, 1.75]]);
        assert_eq!(p.value, [0.578125, -2.65625]);
    }

    /// Against the rule in f64. Momentum 0 and a constant gradient make `v / (1 − momentumⁿ)` and `√(s / (1 − β₂ⁿ))` equal in size,
    /// so that a step is the learning rate.
    #[test]
    fn adam_follows_its_rule() {
        let mut p = parameter(Kind::Weight, [3.0, -1e-3]);
        let no_decay = Decay { weights: 0.0, ..Decay::default() };
        let mut adam = Optimizer::new(Rule::Adam, 0.0, false, no_decay);
        for number in 1..=3 {
            p.grad = vec![3.0, -1e-3];
            adam.change(&mut p, 0, 0.25, number, Threads::new(1));
        }
        assert!((p.value[0] - 0.25).abs() < 1e-5 && (p.value[1] + 1.25).abs() < 1e-4, "{:?}", p.value);

        let decay = Decay { weights: 0.125, ..Decay::default() };
        let mut p = parameter(Kind::Weight, [0.0; 2]);
        let mut adam = Optimizer::new(Rule::Adam, 0.75, false, decay);
        let (mut value, mut v, mut s) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
        for (number, grad) in [[1.0f32, 2.0], [0.0, -0.5], [-0.25, 0.0]].into_iter().enumerate() {
            p.grad = grad.to_vec();
            adam.change(&mut p, 0, 0.5, number as u64 + 1, Threads::new(1));
            assert_eq!(p.grad, [0.0; 2]);
            for i in 0..2 {
                let g = f64::from(grad[i]);
                v[i] = 0.75 * v[i] + 0.25 * g;
                s[i] = 0.999 * s[i] + 0.001 * g * g;
                let step = number as i32 + 1;
                let root = (s[i] / (1.0 - 0.999f64.powi(step))).sqrt() + 1e-8;
                value[i] -= 0.5 * (0.125 * value[i] + v[i] / (1.0 - 0.75f64.powi(step)) / root);
                for (found, expected) in [
                    (p.value[i], value[i]),
                    (adam.memory().velocities[0][i], v[i]),
                    (adam.memory().squares[0][i], s[i]),
                ] {
                    let error = (f64::from(found) - expected).abs();
                    assert!(error <= 1e-5 * expected.abs(), "step {step}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn each_group_has_its_decay() {
        let decay = Decay { weights: 1.0, thresholds: 2.0, norms_and_biases: 4.0 };
        let kinds =
            [(Kind::Weight, 1.0), (Kind::Threshold, 2.0), (Kind::Norm, 4.0), (Kind::Bias, 4.0), (Kind::Slope, 4.0)];
        for (kind, decays) in kinds {
            let mut p = parameter(kind, [0.5, 1.0]);
            Optimizer::new(Rule::Sgd, 0.0, false, decay).change(&mut p, 0, 0.5, 1, Threads::new(1));
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
