//! Building blocks that all networks share.

use super::{Activation, ActivationPlace, ModelConfig};
use crate::desc::ConvDesc;
use crate::isa::Isa;
use crate::train::error::TrainError;
use crate::train::layer::{
    Activate, BatchNorm, Clamp, Conv, Embedding, Flatten, GlobalAveragePool, Layer, Linear, MaxPool, Pointwise,
    PoolWindow, Sequence,
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
    /// How the next convolution clamps its input.
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

    /// Sets the number of blocks. The last block is [`Region::Last`](super::Region::Last).
    pub(super) fn blocks(mut self, blocks: usize) -> Self {
        self.blocks = blocks;
        self
    }

    /// The random numbers of the next layer with initial values. They do not depend on the activations around it.
    fn rng(&mut self) -> rand::rngs::ChaCha8Rng {
        self.next += 1;
        stream(self.seed, Purpose::Init, [self.next, 0])
    }

    /// Adds the activation of a place. If it feeds a convolution, that convolution may compute it.
    pub(super) fn activation(&mut self, layers: &mut Sequence, name: &str, place: ActivationPlace) {
        let activation = place.activation(self.config, self.blocks);
        match activation {
            Activation::Relu if place.feeds_convolution => self.clamp = Clamp::Relu,
            Activation::Convrelu if place.feeds_convolution => {
                self.clamp = Clamp::Trained(self.config.threshold_init);
            }
            _ => {
                // It has a stream of its own, so the layers after it keep theirs.
                let mut rng = stream(self.seed, Purpose::Init, [self.next, 1]);
                layers.push(Activate::new(name, layers.output(), self.config.pointwise(activation), &mut rng));
            }
        }
    }

    /// Adds the ReLU before a classifier. It is never replaced.
    pub(super) fn last_activation(&mut self, layers: &mut Sequence, name: &str) {
        let mut rng = stream(self.seed, Purpose::Init, [self.next, 1]);
        layers.push(Activate::new(name, layers.output(), Pointwise::Relu, &mut rng));
    }

    /// Adds a convolution. It computes the activation before it, if [`activation`](Self::activation) has left it to the
    /// convolution.
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

    /// Adds a batch normalisation.
    pub(super) fn norm(&mut self, layers: &mut Sequence, name: &str) {
        layers.push(BatchNorm::new(name, layers.output()));
    }

    /// Adds a layer of vectors for the words of a vocabulary.
    pub(super) fn embedding(&mut self, layers: &mut Sequence, name: &str, vocabulary: usize, dimensions: usize) {
        let deviation = self.config.embedding_deviation.unwrap_or(1.0);
        let layer = Embedding::new(name, layers.output(), vocabulary, dimensions, deviation, &mut self.rng());
        layers.push(layer);
    }

    /// Adds a fully connected layer. Its input has one position.
    pub(super) fn linear(&mut self, layers: &mut Sequence, name: &str, outputs: usize) {
        let init = self.config.weight_init;
        let layer = Linear::new(name, layers.output(), outputs, init, &mut self.rng());
        layers.push(layer);
    }

    /// Adds max pooling over windows without overlap.
    pub(super) fn max_pool(&mut self, layers: &mut Sequence, name: &str, kernel: [usize; 3]) -> Result<(), TrainError> {
        layers.push(MaxPool::new(name, layers.output(), PoolWindow { kernel, stride: kernel })?);
        Ok(())
    }

    /// Adds a layer that makes all elements channels.
    pub(super) fn flatten(&mut self, layers: &mut Sequence, name: &str) {
        layers.push(Flatten::new(name, layers.output()));
    }

    /// Adds the mean of each channel, and a linear layer after it.
    pub(super) fn classifier(&mut self, layers: &mut Sequence, name: &str, classes: usize) {
        layers.push(GlobalAveragePool::new("pool", layers.output()));
        self.linear(layers, name, classes);
    }
}

/// Refuses images that are smaller than a network can use.
pub(super) fn at_least(shape: Shape, least: usize, network: &'static str) -> Result<(), TrainError> {
    let [_, height, width] = shape.size;
    if height >= least && width >= least {
        return Ok(());
    }
    let rule =
        format!("it pools, so images must have at least {least} × {least} pixels, these have {height} × {width}");
    Err(TrainError::setting("network", network, rule))
}
