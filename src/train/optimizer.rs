//! Stochastic gradient descent.

use super::network::Network;
use super::parameter::Kind;

/// SGD with momentum and weight decay, as PyTorch defines them: `v ← momentum · v + g + decay · p`, `p ← p − rate · v`.
#[derive(Clone, Debug)]
pub struct Sgd {
    momentum: f32,
    weight_decay: f32,
    threshold_decay: f32,
    /// One per parameter, in the order of the network.
    velocity: Vec<Vec<f32>>,
}

impl Sgd {
    /// An optimiser at rest. `weight_decay` is for weights, `threshold_decay` for thresholds (the paper regularises
    /// both); biases have none.
    pub fn new(momentum: f32, weight_decay: f32, threshold_decay: f32) -> Self {
        Self { momentum, weight_decay, threshold_decay, velocity: Vec::new() }
    }

    /// One step at a learning rate; gradients are zero afterwards.
    pub fn step(&mut self, network: &mut Network, rate: f32) {
        for (index, parameter) in network.parameters_mut().enumerate() {
            if self.velocity.len() == index {
                self.velocity.push(vec![0.0; parameter.value.len()]);
            }
            let decay = match parameter.kind {
                Kind::Weight => self.weight_decay,
                Kind::Threshold => self.threshold_decay,
                Kind::Bias => 0.0,
            };
            let elements = parameter.value.iter_mut().zip(&mut parameter.grad).zip(&mut self.velocity[index]);
            for ((value, grad), velocity) in elements {
                *velocity = self.momentum * *velocity + *grad + decay * *value;
                *value -= rate * *velocity;
                *grad = 0.0;
            }
        }
    }
}
