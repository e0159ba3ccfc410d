//! Steps of training: forward, loss, backward, gradient descent. Both sides differ in their convolutions only.

use std::hint::black_box;
use std::time::Duration;

use candle_core::{DType, Device, Module, ModuleT, Result, Tensor};
use candle_nn::{BatchNorm, Conv2dConfig, Linear, Optimizer, SGD, VarBuilder, VarMap};
use convrelu_candle::nn::{Clamp, ConvRelu2dConfig, conv_relu2d};

use crate::report::{Pass, Row};
use crate::{Call, Failure, interleaved, is_same};

/// Images in a step, of 3 × 32 × 32.
const BATCH: usize = 8;

/// Whose convolutions a network has.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Ours,
    Candles,
}

/// A plain convolution of either side, then batch normalisation.
struct Conv {
    conv: Box<dyn Module>,
    norm: BatchNorm,
}

impl Conv {
    /// Without bias; padded so that the stride alone changes the size.
    fn new(
        side: Side,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        groups: usize,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let config = Conv2dConfig { padding: kernel / 2, stride, groups, ..Default::default() };
        let conv: Box<dyn Module> = match side {
            Side::Ours => {
                let config = ConvRelu2dConfig { clamp: Clamp::Linear, bias: false, options: config.into() };
                Box::new(conv_relu2d(channels[0], channels[1], kernel, config, vb.clone())?)
            }
            Side::Candles => Box::new(candle_nn::conv2d_no_bias(channels[0], channels[1], kernel, config, vb.clone())?),
        };
        Ok(Self { conv, norm: candle_nn::batch_norm(channels[1], 1e-5, vb.pp("norm"))? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward_t(&self.conv.forward(x)?, true)
    }
}

/// Layers one after another; a residual block has a shortcut around two of them.
enum Part {
    Activated(Conv),
    Residual { first: Conv, second: Conv, shortcut: Option<Conv> },
}

/// A network for images of 32 × 32 pixels in 10 classes.
struct Network {
    parts: Vec<Part>,
    linear: Linear,
}

impl Network {
    /// The ResNet-18 of CIFAR: four stages of two blocks.
    fn resnet18(side: Side, vb: &VarBuilder<'_>) -> Result<Self> {
        let mut parts = vec![Part::Activated(Conv::new(side, [3, 64], 3, 1, 1, vb.pp("stem"))?)];
        let mut channels = 64;
        for (stage, outputs) in [64, 128, 256, 512].into_iter().enumerate() {
            for block in 0..2 {
                let vb = vb.pp(format!("stage{stage}.{block}"));
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let shortcut = (channels != outputs)
                    .then(|| Conv::new(side, [channels, outputs], 1, stride, 1, vb.pp("shortcut")));
                parts.push(Part::Residual {
                    first: Conv::new(side, [channels, outputs], 3, stride, 1, vb.pp("first"))?,
                    second: Conv::new(side, [outputs; 2], 3, 1, 1, vb.pp("second"))?,
                    shortcut: shortcut.transpose()?,
                });
                channels = outputs;
            }
        }
        Ok(Self { parts, linear: candle_nn::linear(channels, 10, vb.pp("linear"))? })
    }

    /// As MobileNet: depthwise 3×3 and 1×1 in turns.
    fn mobilenet(side: Side, vb: &VarBuilder<'_>) -> Result<Self> {
        let mut parts = vec![Part::Activated(Conv::new(side, [3, 32], 3, 1, 1, vb.pp("stem"))?)];
        let mut channels = 32;
        let pairs = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)];
        for (index, (outputs, stride)) in pairs.into_iter().enumerate() {
            let vb = vb.pp(format!("pair{index}"));
            parts.push(Part::Activated(Conv::new(side, [channels; 2], 3, stride, channels, vb.pp("depthwise"))?));
            parts.push(Part::Activated(Conv::new(side, [channels, outputs], 1, 1, 1, vb.pp("pointwise"))?));
            channels = outputs;
        }
        Ok(Self { parts, linear: candle_nn::linear(channels, 10, vb.pp("linear"))? })
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let mut x = images.clone();
        for part in &self.parts {
            x = match part {
                Part::Activated(conv) => conv.forward(&x)?.relu()?,
                Part::Residual { first, second, shortcut } => {
                    let sum = second.forward(&first.forward(&x)?.relu()?)?;
                    let around = shortcut.as_ref().map_or_else(|| Ok(x.clone()), |shortcut| shortcut.forward(&x))?;
                    (sum + around)?.relu()?
                }
            };
        }
        self.linear.forward(&x.mean((2, 3))?)
    }
}

/// A network in training.
struct Training {
    network: Network,
    optimiser: SGD,
    images: Tensor,
    labels: Tensor,
    variables: VarMap,
}

impl Training {
    fn new(build: fn(Side, &VarBuilder<'_>) -> Result<Network>, side: Side, images: &Tensor) -> Result<Self> {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let network = build(side, &vb)?;
        let optimiser = SGD::new(variables.all_vars(), 1e-3)?;
        let labels = Tensor::arange(0u32, BATCH as u32, &Device::Cpu)?;
        Ok(Self { network, optimiser, images: images.clone(), labels, variables })
    }

    /// Takes over the other network's variables, which have the same names.
    fn equal(&self, other: &Self) -> Result<()> {
        let (data, others) = (self.variables.data().lock(), other.variables.data().lock());
        let (Ok(data), Ok(others)) = (data, others) else { candle_core::bail!("a thread has panicked") };
        data.iter().try_for_each(|(name, variable)| match others.get(name) {
            Some(other) => variable.set(other),
            None => candle_core::bail!("the other network has no {name}"),
        })
    }

    /// The loss before the step.
    fn step(&mut self) -> Result<f32> {
        let scores = self.network.forward(&self.images)?;
        let loss = candle_nn::loss::cross_entropy(&scores, &self.labels)?;
        self.optimiser.backward_step(&loss)?;
        loss.to_scalar()
    }
}

/// Measures all networks whose names contain a text.
pub(crate) fn measure(
    threads: u32,
    only: &str,
    rounds: u32,
    sample: Duration,
    found: &mut dyn FnMut(Row) -> std::result::Result<(), Failure>,
) -> std::result::Result<(), Failure> {
    let images = Tensor::randn(0f32, 1.0, (BATCH, 3, 32, 32), &Device::Cpu)?;
    type Build = fn(Side, &VarBuilder<'_>) -> Result<Network>;
    let networks: [(&str, Build); 2] = [("resnet18", Network::resnet18), ("mobilenet", Network::mobilenet)];
    for (name, build) in networks.into_iter().filter(|(name, _)| name.contains(only)) {
        let mut ours = Training::new(build, Side::Ours, &images)?;
        let mut candles = Training::new(build, Side::Candles, &images)?;
        ours.equal(&candles)?;
        // The second loss tells whether gradients were the same as well.
        let losses = |training: &mut Training| Ok::<_, candle_core::Error>([training.step()?, training.step()?]);
        let (ours_found, candles_found) = (losses(&mut ours)?, losses(&mut candles)?);
        if !is_same(&ours_found, &candles_found) {
            return Err(format!("{name}: the sides' losses differ: {ours_found:?}, {candles_found:?}").into());
        }
        let call = |training: &mut Training| _ = black_box(training.step().expect("as before"));
        let ours: Call<'_> = Box::new(move || call(&mut ours));
        let candles: Call<'_> = Box::new(move || call(&mut candles));
        let (ours_us, candle_us) = interleaved(ours, Some(candles), rounds, sample);
        let shape = format!("{BATCH} × 3 × 32 × 32");
        found(Row { threads, name: name.to_owned(), shape, pass: Pass::Step, ours_us, candle_us })?;
    }
    Ok(())
}
