//! Networks as data, and which of their activations are replaced by what.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::data::Shape;
use super::error::TrainError;
use super::init::ThresholdInit;
use super::layer::{Conv, Linear, MaxPool, Relu};
use super::network::Network;
use crate::desc::ConvDesc;

/// What stands in the places that a [`Replacement`] covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// ReLU (eq. 1), the baseline.
    Relu,
    /// ConvReLU (eq. 8): the activation merges with the convolution that it feeds.
    ConvRelu,
}

impl Activation {
    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relu => "ReLU",
            Self::ConvRelu => "ConvReLU",
        }
    }
}

/// A set of blocks, one bit each.
pub type Blocks = u32;

/// The first block (R1 of the paper).
pub const FIRST: Blocks = 1;

/// Every block (R3 of the paper).
pub const ALL: Blocks = Blocks::MAX;

/// Which activation replaces ReLU in which blocks; elsewhere ReLU stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replacement {
    /// The activation.
    pub activation: Activation,
    /// The blocks, the first in bit 0.
    pub blocks: Blocks,
}

/// One step of a network's description.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// 3×3 convolution, stride 1, as large as its input.
    Conv { channels: usize },
    /// The activation that belongs to a block.
    Activate { block: u32 },
    /// 2×2 max pooling.
    Pool,
    /// Fully connected, one output per class.
    Classify,
}

/// Four convolutions in two blocks, for images of 4×4 pixels and more: 16 and 32 channels, pooling after each block, one
/// linear layer.
///
/// The activations between the convolutions of block 1, and the one between the blocks, belong to block 1; the one
/// inside block 2 to block 2. The last one feeds no convolution and stays ReLU.
const SMALL_CNN: [Step; 11] = [
    Step::Conv { channels: 16 },
    Step::Activate { block: 0 },
    Step::Conv { channels: 16 },
    Step::Activate { block: 0 },
    Step::Pool,
    Step::Conv { channels: 32 },
    Step::Activate { block: 1 },
    Step::Conv { channels: 32 },
    Step::Activate { block: u32::BITS },
    Step::Pool,
    Step::Classify,
];

/// The small CNN of the main job: about 17,000 parameters on the digits.
///
/// # Errors
///
/// [`TrainError`] where the images are too small for it.
pub fn small_cnn(input: Shape, classes: usize, replacement: Replacement, seed: u64) -> Result<Network, TrainError> {
    let [_, height, width] = input.size;
    if height < 4 || width < 4 {
        let rule = "small_cnn pools twice, so images must have at least 4×4 pixels";
        return Err(TrainError::Setting { name: "image size", value: format!("{height}×{width}"), rule });
    }
    build(&SMALL_CNN, input, classes, replacement, ThresholdInit::Zero, seed)
}

/// Builds a network from its steps.
///
/// A ConvReLU leaves out the activation and gives the next convolution thresholds; a pooling between them does not
/// matter, because the maximum commutes with a monotone activation.
fn build(
    steps: &[Step],
    input: Shape,
    classes: usize,
    replacement: Replacement,
    thresholds: ThresholdInit,
    seed: u64,
) -> Result<Network, TrainError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut network = Network::new(input);
    let mut merged = false;
    let mut counts = [0; 3];
    let mut numbered = |kind: usize, name: &str| {
        counts[kind] += 1;
        format!("{name}{}", counts[kind])
    };
    for step in steps {
        let shape = network.output();
        match *step {
            Step::Conv { channels } => {
                let desc = ConvDesc::conv3d(1, shape.channels, channels, shape.size, [1, 3, 3]).padding([0, 1, 1]);
                let thresholds = merged.then_some(thresholds);
                network.push(Conv::new(&numbered(0, "conv"), desc.build()?, thresholds, &mut rng));
                merged = false;
            }
            Step::Activate { block } => {
                let covered = block < u32::BITS && replacement.blocks & (1 << block) != 0;
                let activation = if covered { replacement.activation } else { Activation::Relu };
                match activation {
                    Activation::Relu => network.push(Relu::new(&numbered(1, "relu"), shape)),
                    Activation::ConvRelu => merged = true,
                }
            }
            Step::Pool => network.push(MaxPool::new(&numbered(2, "pool"), shape)),
            Step::Classify => network.push(Linear::new("linear", shape, classes, &mut rng)),
        }
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::layer::{Context, Mode};

    const INPUT: Shape = Shape { channels: 1, size: [1, 8, 8] };

    fn network(activation: Activation, blocks: Blocks) -> Network {
        small_cnn(INPUT, 10, Replacement { activation, blocks }, 7).unwrap()
    }

    #[test]
    fn replacement_adds_a_threshold_per_input_channel_and_tap() {
        let plain = network(Activation::Relu, ALL);
        assert_eq!(plain.parameter_count(), (9 + 1) * 16 + (144 + 1) * 16 + (144 + 1) * 32 + (288 + 1) * 32 + 1290);
        assert_eq!(plain.thresholds().count(), 0);
        // conv2 and conv3 have 16 input channels, conv4 has 32.
        assert_eq!(network(Activation::ConvRelu, FIRST).thresholds().count(), 2 * 16 * 9);
        assert_eq!(network(Activation::ConvRelu, 2).thresholds().count(), 32 * 9);
        assert_eq!(network(Activation::ConvRelu, ALL).thresholds().count(), (2 * 16 + 32) * 9);
    }

    #[test]
    fn zero_thresholds_compute_what_relu_does() {
        let context = Context { batch: 3, threads: 1, mode: Mode::Evaluate };
        let [relu, convrelu] = [Activation::Relu, Activation::ConvRelu].map(|activation| {
            let mut network = network(activation, ALL);
            // Thresholds of zero draw no random numbers, so both networks have the same weights.
            network.input_mut(3).iter_mut().enumerate().for_each(|(i, x)| *x = libm::sinf(i as f32));
            network.forward(context).unwrap().to_vec()
        });
        for (a, b) in relu.iter().zip(&convrelu) {
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{a} {b}");
        }
    }

    #[test]
    fn too_small_an_image_is_refused() {
        let replacement = Replacement { activation: Activation::Relu, blocks: ALL };
        let shape = Shape { channels: 1, size: [1, 3, 8] };
        let error = small_cnn(shape, 2, replacement, 1).err().unwrap().to_string();
        assert!(error.starts_with("image size is 3×8: "), "{error}");
    }
}
