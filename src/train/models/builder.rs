//! Building blocks that all networks share.

use super::{Activation, ModelConfig, Place};
use crate::desc::ConvDesc;
use crate::isa::Isa;
use crate::train::error::TrainError;
use crate::train::layer::{
    Activate, BatchNorm, Clamp, Conv, Embedding, Flatten, GlobalAveragePool, Layer, Linear, MaxPool, Pointwise,
    Sequence, Window,
};
use crate::train::random::{Purpose, stream};
use crate::train::shape::Shape;

/// Adds layers to sequences, with the settings, the kernels and the random numbers of a network.
pub(super) struct Builder<'a> {
    pub(super) config: &'a ModelConfig,
    isa: Isa,
    seed: u64,
    /// Number of the next layer with initial values.
    next: u64,
    /// What the next convolution does to its input first.
    clamp: Clamp,
    blocks: usize,
}

/// A convolution: output channels, kernel, stride and padding on each of its spatial axes.
#[derive(Clone, Copy)]
pub(super) struct ConvSpec<'a> {
    pub(super) channels: usize,
    pub(super) kernel: &'a [usize],
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) bias: bool,
}

impl<'a> Builder<'a> {
    pub(super) fn new(config: &'a ModelConfig, isa: Isa, seed: u64) -> Self {
        Self { config, isa, seed, next: 0, clamp: Clamp::Linear, blocks: 0 }
    }

    /// Blocks of the network, of which the last is [`Region::Last`](super::Region::Last).
    pub(super) fn blocks(mut self, blocks: usize) -> Self {
        self.blocks = blocks;
        self
    }

    /// Random numbers of the next layer with initial values, the same whatever the activations around it are.
    fn rng(&mut self) -> rand::rngs::ChaCha8Rng {
        self.next += 1;
        stream(self.seed, Purpose::Init, [self.next, 0])
    }

    /// The activation of a place; where it feeds a convolution, that convolution may take it over.
    pub(super) fn activation(&mut self, layers: &mut Sequence, name: &str, place: Place) {
        let activation = place.activation(self.config, self.blocks);
        match activation {
            Activation::Relu if place.feeds_convolution => self.clamp = Clamp::Relu,
            Activation::Convrelu if place.feeds_convolution => {
                self.clamp = Clamp::Trained(self.config.threshold_init);
            }
            _ => {
                // Its own stream: the layers behind it keep theirs.
                let mut rng = stream(self.seed, Purpose::Init, [self.next, 1]);
                layers.push(Activate::new(name, layers.output(), self.config.pointwise(activation), &mut rng));
            }
        }
    }

    /// The ReLU before a classifier, which is never replaced.
    pub(super) fn last_activation(&mut self, layers: &mut Sequence, name: &str) {
        let mut rng = stream(self.seed, Purpose::Init, [self.next, 1]);
        layers.push(Activate::new(name, layers.output(), Pointwise::Relu, &mut rng));
    }

    /// A convolution, with the activation that waits for it.
    pub(super) fn conv(&mut self, layers: &mut Sequence, name: &str, spec: ConvSpec<'_>) -> Result<(), TrainError> {
        let Shape { channels, size: [d, h, w], layout } = layers.output();
        let ConvSpec { channels: out, kernel, stride, padding, bias } = spec;
        let desc = match *kernel {
            [k] => {
                let desc = ConvDesc::conv1d(1, channels, out, [w], [k]).stride([stride]).padding([padding]);
                desc.layout(layout).build()
            }
            [kh, kw] => {
                let desc = ConvDesc::conv2d(1, channels, out, [h, w], [kh, kw]);
                desc.stride([stride; 2]).padding([padding; 2]).layout(layout).build()
            }
            [kd, kh, kw] => {
                let desc = ConvDesc::conv3d(1, channels, out, [d, h, w], [kd, kh, kw]);
                desc.stride([stride; 3]).padding([padding; 3]).layout(layout).build()
            }
            _ => unreachable!("a convolution has one to three spatial axes"),
        }?;
        let clamp = std::mem::replace(&mut self.clamp, Clamp::Linear);
        let init = self.config.weight_init;
        let layer = Conv::new(name, desc, self.isa, clamp, bias, init, &mut self.rng())?;
        layers.push(layer);
        Ok(())
    }

    /// A batch normalisation.
    pub(super) fn norm(&mut self, layers: &mut Sequence, name: &str) {
        layers.push(BatchNorm::new(name, layers.output()));
    }

    /// Vectors for the words of a vocabulary.
    pub(super) fn embedding(&mut self, layers: &mut Sequence, name: &str, vocabulary: usize, dimensions: usize) {
        let deviation = self.config.embedding_deviation.unwrap_or(1.0);
        let layer = Embedding::new(name, layers.output(), vocabulary, dimensions, deviation, &mut self.rng());
        layers.push(layer);
    }

    /// A fully connected layer; what lies before it has one position.
    pub(super) fn linear(&mut self, layers: &mut Sequence, name: &str, outputs: usize) {
        let init = self.config.weight_init;
        let layer = Linear::new(name, layers.output(), outputs, init, &mut self.rng());
        layers.push(layer);
    }

    /// Max pooling over windows without overlap.
    pub(super) fn max_pool(&mut self, layers: &mut Sequence, name: &str, kernel: [usize; 3]) -> Result<(), TrainError> {
        layers.push(MaxPool::new(name, layers.output(), Window { kernel, stride: kernel })?);
        Ok(())
    }

    /// All elements as channels.
    pub(super) fn flatten(&mut self, layers: &mut Sequence, name: &str) {
        layers.push(Flatten::new(name, layers.output()));
    }

    /// The mean of each channel, and a linear layer on it.
    pub(super) fn classifier(&mut self, layers: &mut Sequence, name: &str, classes: usize) {
        layers.push(GlobalAveragePool::new("pool", layers.output()));
        self.linear(layers, name, classes);
    }
}

/// Fails where images are smaller than a network can use.
pub(super) fn at_least(shape: Shape, least: usize, network: &'static str) -> Result<(), TrainError> {
    let [_, height, width] = shape.size;
    if height >= least && width >= least {
        return Ok(());
    }
    let rule =
        format!("it pools, so images must have at least {least} × {least} pixels, these have {height} × {width}");
    Err(TrainError::setting("network", network, rule))
}
