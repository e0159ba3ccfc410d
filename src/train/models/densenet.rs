//! DenseNets (Huang et al. 2017).

use super::builder::{Builder, ConvSpec, at_least};
use super::entry::{Entry, Size};
use super::{ActivationPlace, Input};
use crate::train::error::TrainError;
use crate::train::layer::{AveragePool, BatchNorm, DenseBlock, Layer, PoolWindow, Sequence};

pub(super) const CIFAR: Entry = Entry::images("DenseNet-CIFAR", &[Size::Growth], cifar);
pub(super) const FORTY: Entry = Entry::images("DenseNet-40", &[Size::Growth, Size::Depth], forty);

/// The differences between DenseNets.
struct Design {
    name: &'static str,
    /// Layers per block.
    blocks: Vec<usize>,
    growth: usize,
    stem: usize,
    /// 1×1 convolutions to `4 · growth` channels before the 3×3 ones.
    bottleneck: bool,
    /// The number by which a transition divides the channels.
    compression: usize,
}

/// The network of Table 6: blocks of 6, 12, 24, 16 bottleneck layers, growth 12, 24 channels after the stem,
/// compression 0.5. The names are those of the public PyTorch code for CIFAR.
fn cifar(builder: Builder<'_>, input: Input) -> Result<Sequence, TrainError> {
    let growth = builder.config.growth.unwrap_or(12);
    let blocks = vec![6, 12, 24, 16];
    let name = "densenet-cifar";
    build(builder, input, Design { name, blocks, growth, stem: 2 * growth, bottleneck: true, compression: 2 })
}

/// The network of figure 4: 3 blocks of 8 layers (3×3, no bottleneck), growth 12, 16 channels after the stem,
/// transitions (1×1 convolution, average pooling) without compression. The figure does not give the stem and the
/// compression. They are those of Huang et al.'s networks without bottlenecks.
fn forty(builder: Builder<'_>, input: Input) -> Result<Sequence, TrainError> {
    let growth = builder.config.growth.unwrap_or(12);
    let blocks = vec![builder.config.depth.unwrap_or(8); 3];
    let name = "densenet40";
    build(builder, input, Design { name, blocks, growth, stem: 16, bottleneck: false, compression: 1 })
}

fn build(builder: Builder<'_>, input: Input, design: Design) -> Result<Sequence, TrainError> {
    let Input { shape: input, classes, .. } = input;
    let Design { name, blocks, growth, stem, bottleneck, compression } = design;
    at_least(input, 1 << (blocks.len() - 1), name)?;
    let mut builder = builder.blocks(blocks.len());
    let conv = |channels, kernel, padding| ConvSpec { channels, kernel, stride: 1, padding, bias: false };
    let mut layers = Sequence::new("", input);
    builder.conv(&mut layers, "conv1", conv(stem, &[3, 3], 1))?;
    for (index, &depth) in blocks.iter().enumerate() {
        let mut block = DenseBlock::new(&format!("dense{}", index + 1), layers.output());
        for layer in 0..depth {
            let name = format!("dense{}.{layer}", index + 1);
            let seen = block.output();
            let mut stretches = Vec::new();
            let mut body = Sequence::new(&name, seen);
            let mut norm = BatchNorm::new(&format!("{name}.bn1"), seen);
            builder.activation(&mut body, &format!("{name}.act1"), ActivationPlace::of_block(index));
            if bottleneck {
                builder.conv(&mut body, &format!("{name}.conv1"), conv(4 * growth, &[1, 1], 0))?;
                let narrow = body.output();
                stretches.push((norm, std::mem::replace(&mut body, Sequence::new(&name, narrow))));
                norm = BatchNorm::new(&format!("{name}.bn2"), narrow);
                builder.activation(&mut body, &format!("{name}.act2"), ActivationPlace::of_block(index));
                builder.conv(&mut body, &format!("{name}.conv2"), conv(growth, &[3, 3], 1))?;
            } else {
                builder.conv(&mut body, &format!("{name}.conv1"), conv(growth, &[3, 3], 1))?;
            }
            stretches.push((norm, body));
            block.push(stretches);
        }
        layers.push(block);
        if index + 1 < blocks.len() {
            let name = format!("trans{}", index + 1);
            let channels = layers.output().channels / compression;
            builder.norm(&mut layers, &format!("{name}.bn"));
            let between = ActivationPlace { block: None, feeds_convolution: true };
            builder.activation(&mut layers, &format!("{name}.act"), between);
            builder.conv(&mut layers, &format!("{name}.conv"), conv(channels, &[1, 1], 0))?;
            let window = PoolWindow { kernel: [1, 2, 2], stride: [1, 2, 2] };
            layers.push(AveragePool::new(&format!("{name}.pool"), layers.output(), window)?);
        }
    }
    builder.norm(&mut layers, "bn");
    builder.last_activation(&mut layers, "act");
    builder.classifier(&mut layers, "linear", classes);
    Ok(layers)
}
