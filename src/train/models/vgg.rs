//! VGG-16 (Simonyan and Zisserman 2015) with batch normalisation and one linear layer, as is usual for CIFAR.

use super::builder::{Builder, ConvSpec, at_least};
use super::entry::Entry;
use super::{ActivationPlace, Input};
use crate::train::error::TrainError;
use crate::train::layer::Sequence;

pub(super) const VGG16: Entry = Entry::images("VGG-16", &[], build);

/// Channels of the convolutions between two poolings.
const BLOCKS: [&[usize]; 5] = [&[64, 64], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]];

/// An activation belongs to the block of the convolution before it. The names are those of the public PyTorch code for CIFAR, in
/// which the ReLUs and poolings have numbers, too.
fn build(builder: Builder<'_>, input: Input) -> Result<Sequence, TrainError> {
    let Input { shape: input, classes, .. } = input;
    at_least(input, 1 << BLOCKS.len(), "vgg16")?;
    let mut builder = builder.blocks(BLOCKS.len());
    let mut layers = Sequence::new("", input);
    let mut number = 0;
    for (block, channels) in BLOCKS.iter().enumerate() {
        for (index, &channels) in channels.iter().enumerate() {
            let last = index + 1 == BLOCKS[block].len();
            let conv = ConvSpec { channels, kernel: &[3, 3], stride: 1, padding: 1, bias: true };
            builder.conv(&mut layers, &format!("features.{number}"), conv)?;
            builder.norm(&mut layers, &format!("features.{}", number + 1));
            if last {
                // Pooling comes before the activation, because the maximum commutes with it and leaves it a quarter of the work.
                builder.max_pool(&mut layers, &format!("features.{}", number + 3), [1, 2, 2])?;
            }
            let name = format!("features.{}", number + 2);
            if last && block + 1 == BLOCKS.len() {
                builder.last_activation(&mut layers, &name);
            } else {
                builder.activation(&mut layers, &name, ActivationPlace::of_block(block));
            }
            number += if last { 4 } else { 3 };
        }
    }
    builder.classifier(&mut layers, "classifier", classes);
    Ok(layers)
}
