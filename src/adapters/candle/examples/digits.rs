//! Trains the crate's small network on its bundled digits, with candle: ReLU and ConvReLU.
//!
//! ```sh
//! cargo run --release --example digits
//! ```
//!
//! The network, the order of what it is shown and the settings are those of `convrelu digits`, the crate's main job; initial
//! values are drawn by candle.

use std::time::Instant;

use candle_core::{D, DType, Device, Module, Result, Tensor, Var};
use candle_nn::{Linear, VarBuilder, VarMap, loss};
use clap::Parser;
use convrelu::Layout;
use convrelu::train::Dataset;
use convrelu::train::data::digits;
use convrelu_candle::Options;
use convrelu_candle::nn::{Clamp, ConvRelu2d, ConvRelu2dConfig, conv_relu2d};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// Digits in a step.
const BATCH: usize = 32;

/// Trains a small network on the bundled digits with ReLU and with ConvReLU, and prints how many test digits it tells.
#[derive(Parser)]
struct Arguments {
    /// Passes over the training set
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Runs with different seeds, per activation
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
}

/// Four 3×3 convolutions of 16, 16, 32 and 32 channels; the maximum of 2×2 after two and after four of them; a linear layer.
struct Network {
    conv: [ConvRelu2d; 4],
    linear: Linear,
}

impl Network {
    /// What stands before the second and the third convolution is `clamp`; ReLU elsewhere. (The maximum of activations is the
    /// activation of the maximum, so those after the poolings belong to the convolutions that follow, too.)
    fn new(clamp: Clamp, vb: &VarBuilder<'_>) -> Result<Self> {
        let conv = |name: &str, [inputs, outputs]: [usize; 2], clamp| {
            let config = ConvRelu2dConfig { options: Options::new().padding(1), clamp, bias: true };
            conv_relu2d(inputs, outputs, 3, config, vb.pp(name))
        };
        Ok(Self {
            conv: [
                conv("conv1", [1, 16], Clamp::Linear)?,
                conv("conv2", [16, 16], clamp)?,
                conv("conv3", [16, 32], clamp)?,
                conv("conv4", [32, 32], Clamp::Relu)?,
            ],
            linear: candle_nn::linear(32 * 2 * 2, 10, vb.pp("linear"))?,
        })
    }
}

/// The maximum of 2×2. (The gradient of candle's own is a quarter of what it should be.)
fn pool(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    x.reshape((batch, channels, height / 2, 2, width / 2, 2))?.max(5)?.max(3)
}

impl Module for Network {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let [conv1, conv2, conv3, conv4] = &self.conv;
        let x = pool(&conv2.forward(&conv1.forward(images)?)?)?;
        let x = pool(&conv4.forward(&conv3.forward(&x)?)?)?;
        self.linear.forward(&x.relu()?.flatten_from(1)?)
    }
}

/// Gradient descent with momentum and weight decay, which candle's `SGD` does not have.
struct Momentum {
    variables: Vec<(Var, Option<Tensor>)>,
}

impl Momentum {
    /// The velocity keeps 9 tenths from step to step; the decay is 5 · 10⁻⁴.
    fn step(&mut self, loss: &Tensor, rate: f64) -> Result<()> {
        let gradients = loss.backward()?;
        for (variable, velocity) in &mut self.variables {
            let Some(gradient) = gradients.get(variable) else { continue };
            let gradient = (gradient + (variable.as_tensor() * 5e-4)?)?;
            let new = match velocity {
                Some(velocity) => ((&*velocity * 0.9)? + gradient)?,
                None => gradient,
            };
            variable.set(&(variable.as_tensor() - (&new * rate)?)?)?;
            *velocity = Some(new);
        }
        Ok(())
    }
}

/// All images and labels of a data set.
fn tensors(data: &Dataset) -> Result<(Tensor, Tensor)> {
    let mut images = vec![0.0; data.len() * 64];
    let mut labels = Vec::new();
    for (index, image) in images.chunks_exact_mut(64).enumerate() {
        data.read(index, None, Layout::Nchw, image);
        labels.push(data.label(index) as u32);
    }
    let images = Tensor::from_vec(images, (data.len(), 1, 8, 8), &Device::Cpu)?;
    Ok((images, Tensor::from_vec(labels, data.len(), &Device::Cpu)?))
}

/// Values as the trainer draws them: Gaussian with variance 2 / fan-in for weights, 0 for the rest.
fn initialise(variables: &VarMap, rng: &mut ChaCha8Rng) -> Result<()> {
    let data = variables.data().lock().map_err(candle_core::Error::msg)?;
    // By name: a map's own order differs from run to run.
    let mut variables: Vec<_> = data.iter().collect();
    variables.sort_by_key(|(name, _)| *name);
    for (name, variable) in variables {
        let dims = variable.dims();
        let fan_in = dims.iter().skip(1).product::<usize>();
        let deviation = if name.ends_with("weight") { (2.0 / fan_in as f32).sqrt() } else { 0.0 };
        let mut draw = || {
            let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
            deviation * radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
        };
        let values = (0..variable.elem_count()).map(|_| draw()).collect::<Vec<_>>();
        variable.set(&Tensor::from_vec(values, dims, &Device::Cpu)?)?;
    }
    Ok(())
}

/// The share of the test digits that a network tells after training.
fn train(clamp: Clamp, seed: u64, epochs: u32, train: &Dataset, test: &Dataset) -> Result<f64> {
    let variables = VarMap::new();
    let network = Network::new(clamp, &VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    initialise(&variables, &mut rng)?;
    let mut optimiser = Momentum { variables: variables.all_vars().into_iter().map(|v| (v, None)).collect() };
    let (images, labels) = tensors(train)?;
    let mut order: Vec<u32> = (0..train.len() as u32).collect();
    for epoch in 0..epochs {
        // A tenth after half of the epochs, a tenth of that after three quarters.
        let falls = i32::from(epoch >= epochs.div_ceil(2)) + i32::from(epoch >= (3 * epochs).div_ceil(4));
        let rate = 0.02 * 0.1f64.powi(falls);
        order.shuffle(&mut rng);
        for batch in order.chunks(BATCH) {
            let batch = Tensor::from_slice(batch, batch.len(), &Device::Cpu)?;
            let scores = network.forward(&images.index_select(&batch, 0)?)?;
            let loss = loss::cross_entropy(&scores, &labels.index_select(&batch, 0)?)?;
            optimiser.step(&loss, rate)?;
        }
    }
    let (images, labels) = tensors(test)?;
    let right = network.forward(&images)?.argmax(D::Minus1)?.eq(&labels)?.to_dtype(DType::F64)?;
    right.mean_all()?.to_scalar()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let Arguments { epochs, seeds } = Arguments::parse();
    let (training, test) = digits::load()?;
    println!("{} training and {} test digits, {epochs} epochs, {seeds} seeds", training.len(), test.len());
    for (name, clamp) in [("ReLU", Clamp::Relu), ("ConvReLU", Clamp::default())] {
        let start = Instant::now();
        let shares = (1..=seeds).map(|seed| train(clamp, seed, epochs, &training, &test));
        let accuracies = shares.map(|share| share.map(|share| 100.0 * share)).collect::<Result<Vec<_>>>()?;
        let seconds = start.elapsed().as_secs_f64() / seeds as f64;
        let mean = accuracies.iter().sum::<f64>() / seeds as f64;
        // Of a sample: there is none of a single run.
        let squares = accuracies.iter().map(|accuracy| (accuracy - mean).powi(2)).sum::<f64>();
        let deviation = (squares / (seeds as f64 - 1.0)).sqrt();
        println!("{name:8}  test accuracy {mean:.2} ± {deviation:.2} %  {seconds:.1} s a run");
    }
    Ok(())
}
