//! convrelu's main job in burn: a small network on real digits, with ReLU and with ConvReLU, trained by burn's learner.
//!
//!     cargo run --release --example digits

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::step::StepLrSchedulerConfig;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{SgdConfig, decay::WeightDecayConfig, momentum::MomentumConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep};
use clap::Parser;
use convrelu::Layout;
use convrelu::train::Dataset;
use convrelu::train::data::digits;

use network::SmallCnn;
use progress::Line;

mod network;
mod progress;

/// Trains a small network on the digits that are bundled with convrelu, once with ReLU and once with ConvReLU: by burn's
/// learner, with its metrics, on layers of convrelu.
#[derive(Parser)]
struct Options {
    /// Passes over the training set
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Runs with different seeds, per activation
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Where burn's learner writes its logs
    #[arg(long, value_name = "DIRECTORY", default_value = "runs/digits")]
    out: PathBuf,
}

/// A digit and its label.
#[derive(Clone, Debug)]
struct Digit {
    pixels: Vec<f32>,
    label: i64,
}

/// Images `[batch, 1, 8, 8]` and their labels.
#[derive(Clone, Debug)]
struct Batch {
    images: Tensor<4>,
    labels: Tensor<1, Int>,
}

struct Stack;

impl Batcher<Digit, Batch> for Stack {
    fn batch(&self, digits: Vec<Digit>, device: &Device) -> Batch {
        let count = digits.len();
        let labels: Vec<i64> = digits.iter().map(|digit| digit.label).collect();
        let pixels: Vec<f32> = digits.into_iter().flat_map(|digit| digit.pixels).collect();
        Batch {
            images: Tensor::from_data(TensorData::new(pixels, [count, 1, 8, 8]), device),
            labels: Tensor::from_data(TensorData::new(labels, [count]), device),
        }
    }
}

impl SmallCnn {
    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let output = self.forward(batch.images);
        let loss = CrossEntropyLossConfig::new().init(&output.device()).forward(output.clone(), batch.labels.clone());
        ClassificationOutput::new(loss, output, batch.labels)
    }

    /// The share of digits classified rightly.
    fn accuracy(&self, digits: &[Digit], device: &Device) -> f64 {
        let Batch { images, labels } = Stack.batch(digits.to_vec(), device);
        let right = self.forward(images).argmax(1).flatten::<1>(0, 1).equal(labels).int().sum();
        right.into_scalar::<i64>() as f64 / digits.len() as f64
    }
}

impl TrainStep for SmallCnn {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for SmallCnn {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.classify(batch)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let (train, test) = digits::load()?;
    let (train, test) = (all(&train), all(&test));
    println!("activation  test accuracy %  parameters  seconds/run");
    for (name, trained_thresholds) in [("ReLU", false), ("ConvReLU", true)] {
        let (mut accuracies, mut seconds, mut parameters) = (Vec::new(), Vec::new(), 0);
        for seed in 1..=options.seeds {
            let start = Instant::now();
            let label = format!("{name}, seed {seed}");
            let (model, accuracy) = train_one(&label, trained_thresholds, seed, &options, &train, &test)?;
            seconds.push(start.elapsed().as_secs_f64());
            accuracies.push(100.0 * accuracy);
            // Thresholds that are not trained are none.
            parameters = model.num_params() - if trained_thresholds { 0 } else { model.thresholds() };
        }
        let accuracy = format!("{:.2} ± {:.2}", mean(&accuracies), deviation(&accuracies));
        println!("{name:<10}  {accuracy:>15}  {parameters:>10}  {:>11.1}", mean(&seconds));
    }
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample standard deviation.
fn deviation(values: &[f64]) -> f64 {
    let squares: f64 = values.iter().map(|value| (value - mean(values)).powi(2)).sum();
    (squares / (values.len().max(2) - 1) as f64).sqrt()
}

fn all(data: &Dataset) -> Vec<Digit> {
    let read = |index| {
        let mut pixels = vec![0.0; data.shape().len()];
        data.read(index, None, Layout::Nchw, &mut pixels);
        Digit { pixels, label: data.label(index) as i64 }
    };
    (0..data.len()).map(read).collect()
}

/// The settings of convrelu's main job, but for its last step of the learning rate.
fn train_one(
    label: &str,
    trained_thresholds: bool,
    seed: u64,
    options: &Options,
    train: &[Digit],
    test: &[Digit],
) -> Result<(SmallCnn, f64), Box<dyn Error>> {
    const BATCH: usize = 32;
    let epochs = options.epochs as usize;
    let inner = Device::flex();
    let device = inner.clone().autodiff();
    device.seed(seed);
    let loader = |digits: &[Digit], device: &Device| -> Arc<dyn DataLoader<Batch>> {
        let builder = DataLoaderBuilder::new(Stack).batch_size(BATCH).set_device(device.clone());
        builder.shuffle(seed).build(InMemDataset::new(digits.to_vec()))
    };
    let steps = train.len().div_ceil(BATCH) * epochs.div_ceil(2);
    let schedule = StepLrSchedulerConfig::new(0.02, steps).with_gamma(0.1).init()?;
    let sgd = SgdConfig::new()
        .with_momentum(Some(MomentumConfig { momentum: 0.9, dampening: 0.0, nesterov: false }))
        .with_weight_decay(Some(WeightDecayConfig::new(5e-4)));
    let learner = Learner::new(SmallCnn::new(trained_thresholds, &device), sgd.init(), schedule);
    let training = SupervisedTraining::new(&options.out, loader(train, &device), loader(test, &inner))
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .renderer(Box::new(Line::new(label)))
        .with_application_logger(None)
        .num_epochs(epochs);
    let result = training.launch(learner);
    if let Some(error) = result.error {
        return Err(Box::new(error));
    }
    let accuracy = result.model.accuracy(test, &inner);
    Ok((result.model, accuracy))
}
