//! A small network for small images. The program trains it if no command is given.

use super::builder::{Builder, ConvSpec, at_least};
use super::entry::Entry;
use super::{ActivationPlace, Input};
use crate::train::error::TrainError;
use crate::train::layer::Sequence;

pub(super) const SMALL_CNN: Entry = Entry::images("small-cnn", &[], build);

/// Four 3×3 convolutions in two blocks of 16 and 32 channels, max pooling after each block, and one linear layer.
///
/// The activation between the convolutions of block 1 and the one between the blocks belong to block 1. The activation inside
/// block 2 belongs to block 2.
fn build(builder: Builder<'_>, input: Input) -> Result<Sequence, TrainError> {
    let Input { shape: input, classes, .. } = input;
    at_least(input, 4, "small-cnn")?;
    let mut builder = builder.blocks(2);
    let mut layers = Sequence::new("", input);
    let conv = |channels| ConvSpec { channels, kernel: &[3, 3], stride: 1, padding: 1, bias: true };
    builder.conv(&mut layers, "conv1", conv(16))?;
    builder.activation(&mut layers, "act1", ActivationPlace::of_block(0));
    builder.conv(&mut layers, "conv2", conv(16))?;
    builder.max_pool(&mut layers, "pool1", [1, 2, 2])?;
    builder.activation(&mut layers, "act2", ActivationPlace::of_block(0));
    builder.conv(&mut layers, "conv3", conv(32))?;
    builder.activation(&mut layers, "act3", ActivationPlace::of_block(1));
    builder.conv(&mut layers, "conv4", conv(32))?;
    builder.max_pool(&mut layers, "pool2", [1, 2, 2])?;
    builder.last_activation(&mut layers, "act4");
    builder.flatten(&mut layers, "flatten");
    builder.linear(&mut layers, "linear", classes);
    Ok(layers)
}
