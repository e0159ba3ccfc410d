//! The training loop.

use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use super::data::Dataset;
use super::error::TrainError;
use super::layer::{Context, Mode, Units};
use super::loss::softmax_cross_entropy;
use super::network::Network;
use super::optimizer::Sgd;

/// Settings of [`fit`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Passes over the training set.
    pub epochs: usize,
    /// Images per step.
    pub batch: usize,
    /// Learning rate at the start; a tenth of it from half of the epochs, a hundredth from three quarters.
    pub learning_rate: f32,
    /// Momentum of SGD.
    pub momentum: f32,
    /// Decay of weights.
    pub weight_decay: f32,
    /// Decay of thresholds.
    pub threshold_decay: f32,
    /// Seed of the order of the images.
    pub seed: u64,
    /// Threads that the kernels use.
    pub threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            epochs: 30,
            batch: 32,
            learning_rate: 0.02,
            momentum: 0.9,
            weight_decay: 5e-4,
            threshold_decay: 5e-4,
            seed: 1,
            threads: 1,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), TrainError> {
        let setting = |name, value, rule| Err(TrainError::Setting { name, value, rule });
        if self.batch == 0 {
            return setting("batch", "0".to_owned(), "it must be at least 1");
        }
        for (name, value) in [
            ("learning rate", self.learning_rate),
            ("momentum", self.momentum),
            ("weight decay", self.weight_decay),
            ("threshold decay", self.threshold_decay),
        ] {
            if !value.is_finite() || value < 0.0 {
                return setting(name, value.to_string(), "it must be a finite number, 0 or greater");
            }
        }
        Ok(())
    }

    /// Learning rate of an epoch, counted from 0 (the paper's schedule, in shares of the whole).
    fn rate(&self, epoch: usize) -> f32 {
        if 4 * epoch >= 3 * self.epochs {
            self.learning_rate * 0.01
        } else if 2 * epoch >= self.epochs {
            self.learning_rate * 0.1
        } else {
            self.learning_rate
        }
    }
}

/// What one epoch came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// From 1.
    pub number: usize,
    /// Mean training loss.
    pub loss: f32,
    /// Share of training images classified rightly, while training.
    pub train_accuracy: f32,
    /// Share of test images classified rightly, after the epoch.
    pub test_accuracy: f32,
    /// Units that no test image brought above their threshold.
    pub units: Units,
    /// Time since training began.
    pub seconds: f64,
}

/// Trains a network and tests it after every epoch, which `observe` is shown.
///
/// # Errors
///
/// [`TrainError::Setting`] for a configuration that makes no sense, [`TrainError::Diverged`] when the loss is no longer
/// finite, and [`TrainError::Kernel`].
pub fn fit(
    network: &mut Network,
    train: &Dataset,
    test: &Dataset,
    config: &Config,
    mut observe: impl FnMut(&Epoch),
) -> Result<Vec<Epoch>, TrainError> {
    config.check()?;
    if train.shape() != network.input() {
        let rule = "the training images must have the shape that the network was built for";
        return Err(TrainError::Setting { name: "image shape", value: format!("{:?}", train.shape()), rule });
    }
    let start = Instant::now();
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut optimizer = Sgd::new(config.momentum, config.weight_decay, config.threshold_decay);
    let mut order: Vec<usize> = (0..train.len()).collect();
    let mut labels = Vec::with_capacity(config.batch);
    let mut history = Vec::with_capacity(config.epochs);
    for epoch in 0..config.epochs {
        order.shuffle(&mut rng);
        let (mut loss, mut right) = (0.0, 0);
        for batch in order.chunks(config.batch) {
            gather(network, train, batch, &mut labels);
            let context = Context { batch: batch.len(), threads: config.threads, mode: Mode::Train };
            network.forward(context)?;
            let (batch_loss, batch_right) = network
                .backward(context, |logits, grad| softmax_cross_entropy(logits, &labels, train.classes(), grad))?;
            if !batch_loss.is_finite() {
                return Err(TrainError::Diverged { epoch: epoch + 1 });
            }
            loss += f64::from(batch_loss) * batch.len() as f64;
            right += batch_right;
            optimizer.step(network, config.rate(epoch));
        }
        let test_accuracy = evaluate(network, test, config.batch, config.threads)?;
        let count = train.len().max(1);
        let epoch = Epoch {
            number: epoch + 1,
            loss: (loss / count as f64) as f32,
            train_accuracy: right as f32 / count as f32,
            test_accuracy,
            units: network.units(),
            seconds: start.elapsed().as_secs_f64(),
        };
        observe(&epoch);
        history.push(epoch);
    }
    Ok(history)
}

/// Share of images classified rightly; the layers' [`units`](Network::units) are those of this data set afterwards.
///
/// # Errors
///
/// [`TrainError::Kernel`].
pub fn evaluate(network: &mut Network, data: &Dataset, batch: usize, threads: usize) -> Result<f32, TrainError> {
    network.reset_units();
    let all: Vec<usize> = (0..data.len()).collect();
    let (mut labels, mut right) = (Vec::new(), 0);
    for batch in all.chunks(batch.max(1)) {
        gather(network, data, batch, &mut labels);
        let context = Context { batch: batch.len(), threads, mode: Mode::Evaluate };
        let logits = network.forward(context)?;
        for (logits, &label) in logits.chunks_exact(data.classes()).zip(&labels) {
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            right += usize::from(logits.iter().position(|&logit| logit == best) == Some(label));
        }
    }
    Ok(right as f32 / data.len().max(1) as f32)
}

/// Copies images into the network's input and their labels beside them.
fn gather(network: &mut Network, data: &Dataset, indices: &[usize], labels: &mut Vec<usize>) {
    let input = network.input_mut(indices.len());
    for (image, &index) in input.chunks_exact_mut(data.shape().len()).zip(indices) {
        image.copy_from_slice(data.image(index));
    }
    labels.clear();
    labels.extend(indices.iter().map(|&index| data.label(index)));
}
