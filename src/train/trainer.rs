//! The training loop.

use std::ops::ControlFlow;
use std::time::Instant;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::config::{Config, TrainConfig};
use super::context::{Mode, ProfilePart};
use super::data::{Batch, Dataset, Inventory, batches};
use super::error::TrainError;
use super::layer::{LayerUnits, Units};
use super::loss::softmax_cross_entropy;
use super::models::Input;
use super::network::Network;
use super::optimizer::Optimizer;
use super::random::{Purpose, stream};

/// The figures of one epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Mean training loss.
    pub loss: f64,
    /// Share of training examples that were classified correctly during training.
    pub accuracy: f64,
    /// Mean loss on the test set after the epoch, without label smoothing.
    pub test_loss: f64,
    /// Share of test examples that are classified correctly after the epoch.
    pub test_accuracy: f64,
    /// Learning rate of the epoch.
    pub learning_rate: f32,
    /// Time of the epoch's training, in seconds.
    pub seconds: f64,
    /// Training examples per second.
    pub images_per_second: f64,
    /// Units that no test example brought above their threshold.
    pub dead_units: usize,
    /// All units.
    pub units: usize,
    /// The units of each layer. Empty if the version that trained the epoch did not record them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units_by_layer: Vec<LayerUnits>,
    /// Mean of all thresholds, if there are any.
    pub theta_mean: Option<f64>,
    /// Their standard deviation.
    pub theta_deviation: Option<f64>,
}

/// The progress of training. Together with the configuration it determines all random numbers that follow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs that are finished.
    pub epochs: usize,
    /// Examples of the current epoch that the network has seen, a whole number of steps.
    pub examples: usize,
    /// Sum of the loss over them.
    pub loss: f64,
    /// The number of them that it classified correctly.
    pub right: usize,
    /// Time spent on them, in seconds.
    pub seconds: f64,
}

/// The progress after a step, for an observer.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Examples seen in this epoch.
    pub examples: usize,
    /// Examples of an epoch.
    pub of: usize,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Accuracy of the epoch so far.
    pub accuracy: f64,
    /// Examples per second in this epoch.
    pub images_per_second: f64,
}

/// An event of an epoch. An observer sees it and may interrupt.
#[derive(Clone, Copy, Debug)]
pub enum EpochEvent<'a> {
    /// A step of the optimiser.
    Step(&'a Step),
    /// The test that ends an epoch.
    Test {
        /// Test examples seen.
        examples: usize,
        /// All of them.
        of: usize,
    },
}

/// A network in training: its weights, the optimiser, and its progress.
pub struct Trainer {
    config: Config,
    network: Network,
    optimizer: Optimizer,
    progress: Progress,
    history: Vec<Epoch>,
}

impl Trainer {
    /// An untrained network for a data set.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] for a configuration that breaks a rule or does not fit the data, [`TrainError::Kernel`].
    pub fn new(config: &Config, data: &Dataset) -> Result<Self, TrainError> {
        config.data.check()?;
        config.train.check()?;
        if data.is_empty() {
            return Err(TrainError::setting("dataset", data.name(), "it must hold at least one training example"));
        }
        let mut network = config.model.build(input(data), config.train.isa()?, config.train.seed)?;
        if network.normalizes() {
            let why = format!("{} normalises over the batch", config.model.network);
            if config.train.micro_batch() == 1 {
                let name = if config.train.batch == 1 { "batch" } else { "micro-batch" };
                return Err(TrainError::setting(name, 1, format!("{why}: it must be at least 2")));
            }
            if data.len() == 1 {
                let rule = format!("{why}: there must be at least 2 training examples");
                return Err(TrainError::setting("dataset", data.name(), rule));
            }
        }
        network.set_threads(config.train.threads());
        let TrainConfig { optimizer, momentum, nesterov, decay, .. } = config.train;
        let optimizer = Optimizer::new(optimizer, momentum, nesterov, decay);
        Ok(Self { config: config.clone(), network, optimizer, progress: Progress::default(), history: Vec::new() })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The network, to be evaluated.
    pub fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    /// The progress of training.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Finished epochs.
    pub fn history(&self) -> &[Epoch] {
        &self.history
    }

    /// Whether all epochs are finished.
    pub fn is_finished(&self) -> bool {
        self.progress.epochs >= self.config.train.epochs
    }

    /// The number of training examples of an epoch, of a data set with `examples`: all of them, or all but one that would be
    /// alone in a batch normalisation.
    pub fn epoch_len(&self, examples: usize) -> usize {
        let alone = examples % self.config.train.micro_batch() == 1 && self.network.normalizes();
        examples - usize::from(alone)
    }

    pub(super) fn parts(&self) -> (&Network, &Optimizer, &Progress, &[Epoch]) {
        (&self.network, &self.optimizer, &self.progress, &self.history)
    }

    pub(super) fn parts_mut(&mut self) -> (&mut Network, &mut Optimizer, &mut Progress, &mut Vec<Epoch>) {
        (&mut self.network, &mut self.optimizer, &mut self.progress, &mut self.history)
    }

    /// Trains to the end of the current epoch and tests. Calls `observe` after every step and every batch of the test. Returns
    /// `None` if `observe` interrupts. An interruption does not change any bit of the result, also if training continues from a
    /// checkpoint.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] if the network does not fit the data, [`TrainError::Diverged`] if a loss (in training or on the
    /// test set) or a weight is no longer finite, [`TrainError::Kernel`].
    pub fn epoch(
        &mut self,
        train: &Dataset,
        test: &Dataset,
        observe: &mut dyn FnMut(EpochEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Epoch>, TrainError> {
        for data in [train, test] {
            let layout = self.network.input().layout;
            if data.shape().with_layout(layout) != self.network.input() || data.classes() != self.network.output().len()
            {
                let value = format!("{} of {} in {} classes", data.name(), data.shape(), data.classes());
                return Err(TrainError::setting("dataset", value, "it must be what the network was built for"));
            }
        }
        let number = self.progress.epochs + 1;
        let diverged = move || TrainError::Diverged { epoch: number };
        let of_thresholds = move |error| match error {
            // Gradients that a diverged step has left.
            TrainError::Kernel(crate::Error::NanThreshold { .. }) => diverged(),
            error => error,
        };
        let trained = self.train_epoch(train, observe);
        // Checked also after an interruption, because no checkpoint may hold values with which training cannot continue.
        if trained.is_ok() && !self.network.is_finite() {
            return Err(diverged());
        }
        let broken_off = trained.map_err(of_thresholds)?;
        if broken_off {
            return Ok(None);
        }
        let micro_batch = self.config.train.micro_batch();
        let of = test.len();
        let mut see = |answers: &Answers<'_>| observe(EpochEvent::Test { examples: answers.examples, of });
        // If the test is interrupted, it begins again when the run continues: training is at the end of the epoch.
        let tested = evaluate_watched(&mut self.network, test, micro_batch, &mut see).map_err(of_thresholds)?;
        let Some(Evaluation { loss: test_loss, accuracy: test_accuracy, units }) = tested else { return Ok(None) };
        if !test_loss.is_finite() {
            return Err(diverged());
        }
        let len = self.epoch_len(train.len());
        let config = &self.config.train;
        let progress = std::mem::take(&mut self.progress);
        let count = len as f64;
        let thetas = mean_and_deviation(&self.network.thresholds());
        let epoch = Epoch {
            epoch: progress.epochs + 1,
            loss: progress.loss / count,
            accuracy: progress.right as f64 / count,
            test_loss,
            test_accuracy,
            learning_rate: config.schedule.rate(config.learning_rate, progress.epochs, config.epochs),
            seconds: progress.seconds,
            images_per_second: count / progress.seconds.max(1e-9),
            dead_units: units.dead,
            units: units.total,
            units_by_layer: self.network.units_by_layer(),
            theta_mean: thetas.map(|(mean, _)| mean),
            theta_deviation: thetas.map(|(_, deviation)| deviation),
        };
        self.progress.epochs = epoch.epoch;
        self.history.push(epoch.clone());
        Ok(Some(epoch))
    }

    /// The training part of [`epoch`](Self::epoch). Returns whether it was interrupted.
    fn train_epoch(
        &mut self,
        train: &Dataset,
        observe: &mut dyn FnMut(EpochEvent<'_>) -> ControlFlow<()>,
    ) -> Result<bool, TrainError> {
        let len = self.epoch_len(train.len());
        let config = &self.config.train;
        let (network, optimizer, progress) = (&mut self.network, &mut self.optimizer, &mut self.progress);
        let (number, seed, layout) = (progress.epochs, config.seed, network.input().layout);
        let rate = config.schedule.rate(config.learning_rate, number, config.epochs);
        let steps_before = number as u64 * len.div_ceil(config.batch) as u64;
        let mut order: Vec<usize> = (0..train.len()).collect();
        order.shuffle(&mut stream(seed, Purpose::Order, [number as u64, 0]));
        order.truncate(len);

        let (before, start) = (progress.seconds, Instant::now());
        let mut waiting = start;
        let mut seen = progress.examples;
        let rest = &order[seen.min(order.len())..];
        // Loss and number of correct answers of the micro-batches of a step.
        let mut sums = (0.0, 0);
        let mut broken_off = false;
        let step = |batch: &Batch| -> Result<ControlFlow<()>, TrainError> {
            network.profile().add(ProfilePart::Data, waiting);
            let step_len = config.batch.min(len - seen / config.batch * config.batch);
            network.set_seed_and_step(seed, ((number as u64) << 32) | seen as u64);
            network.forward(Mode::Train, &batch.input)?;
            let (loss, right) = network.backward(|logits, grad| {
                softmax_cross_entropy(logits, &batch.labels, train.classes(), config.label_smoothing, step_len, grad)
            })?;
            if !loss.is_finite() {
                return Err(TrainError::Diverged { epoch: number + 1 });
            }
            seen += batch.labels.len();
            sums = (sums.0 + loss, sums.1 + right);
            let mut flow = ControlFlow::Continue(());
            if seen.is_multiple_of(config.batch) || seen == len {
                let stepping = Instant::now();
                optimizer.step(network, rate, steps_before + seen.div_ceil(config.batch) as u64);
                network.profile().add(ProfilePart::Optimizer, stepping);
                progress.examples = seen;
                progress.loss += std::mem::take(&mut sums.0);
                progress.right += std::mem::take(&mut sums.1);
                progress.seconds = before + start.elapsed().as_secs_f64();
                flow = observe(EpochEvent::Step(&Step {
                    epoch: number + 1,
                    examples: seen,
                    of: len,
                    loss: progress.loss / seen as f64,
                    accuracy: progress.right as f64 / seen as f64,
                    images_per_second: seen as f64 / progress.seconds.max(1e-9),
                }));
                broken_off = flow.is_break();
            }
            waiting = Instant::now();
            Ok(flow)
        };
        batches(train, rest, config.micro_batch(), layout, Some((seed, number as u64)), step)?;
        Ok(broken_off)
    }
}

/// The input of a network for a data set.
pub fn input(data: &Dataset) -> Input {
    Input { shape: data.shape(), text: data.text(), classes: data.classes() }
}

/// What the network of a run reads. `None` if the version that recorded the run did not record this.
pub fn recorded_input(inventory: &Inventory) -> Option<Input> {
    let example = inventory.example.as_ref()?;
    Some(Input { shape: example.shape(), text: example.text, classes: inventory.classes })
}

/// The figures of a network on a data set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy.
    pub loss: f64,
    /// Share of examples that are classified correctly.
    pub accuracy: f64,
    /// Units, and those that no example brought above their threshold.
    pub units: Units,
}

/// Runs a network over a data set.
///
/// # Errors
///
/// [`TrainError::Kernel`].
pub fn evaluate(network: &mut Network, data: &Dataset, batch: usize) -> Result<Evaluation, TrainError> {
    let result = evaluate_watched(network, data, batch, &mut |_| ControlFlow::Continue(()))?;
    result.ok_or(TrainError::Interrupted)
}

/// What a network says of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Answers<'a> {
    /// Examples that are done, this batch included.
    pub examples: usize,
    /// The network's output, one number for each example and class, in the order of the data set.
    pub logits: &'a [f32],
    /// The classes that the examples belong to.
    pub labels: &'a [usize],
}

/// As [`evaluate`], but shows `observe` each batch. Returns `None` if `observe` interrupts.
///
/// # Errors
///
/// As [`evaluate`].
pub fn evaluate_watched(
    network: &mut Network,
    data: &Dataset,
    batch: usize,
    observe: &mut dyn FnMut(&Answers<'_>) -> ControlFlow<()>,
) -> Result<Option<Evaluation>, TrainError> {
    network.reset_units();
    let order: Vec<usize> = (0..data.len()).collect();
    let layout = network.input().layout;
    let (mut loss, mut right, mut seen, mut flow) = (0.0, 0, 0, ControlFlow::Continue(()));
    let mut grad = Vec::new();
    batches(data, &order, batch.max(1), layout, None, |batch: &Batch| -> Result<_, TrainError> {
        let logits = network.forward(Mode::Evaluate, &batch.input)?;
        grad.resize(logits.len(), 0.0);
        let sums = softmax_cross_entropy(logits, &batch.labels, data.classes(), 0.0, 1, &mut grad);
        loss += sums.0;
        right += sums.1;
        seen += batch.labels.len();
        flow = observe(&Answers { examples: seen, logits, labels: &batch.labels });
        Ok(flow)
    })?;
    let count = data.len().max(1) as f64;
    let result = Evaluation { loss: loss / count, accuracy: right as f64 / count, units: network.units() };
    Ok(flow.is_continue().then_some(result))
}

/// Mean and standard deviation of values, if there are any.
pub fn mean_and_deviation(values: &[f32]) -> Option<(f64, f64)> {
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    (!values.is_empty()).then(|| (mean, libm::sqrt(variance)))
}
