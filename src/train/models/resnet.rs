//! ResNet-18 (He et al. 2016) for small images: a 3×3 stem without pooling.

use super::builder::{Builder, ConvSpec, at_least};
use super::entry::Entry;
use super::{ActivationPlace, Input};
use crate::train::error::TrainError;
use crate::train::layer::{Layer, Residual, Sequence};

pub(super) const RESNET18: Entry = Entry::images("ResNet-18", &[], build);

/// Channels and stride of each stage of two residual blocks.
const STAGES: [(usize, usize); 4] = [(64, 1), (128, 2), (256, 2), (512, 2)];

/// The names are those of the public PyTorch code for CIFAR.
fn build(builder: Builder<'_>, input: Input) -> Result<Sequence, TrainError> {
    let Input { shape: input, classes, .. } = input;
    at_least(input, 8, "resnet18")?;
    let mut builder = builder.blocks(STAGES.len());
    // It also feeds a shortcut, so no convolution can compute it.
    let shared = ActivationPlace { block: None, feeds_convolution: false };
    let three = |channels, stride| ConvSpec { channels, kernel: &[3, 3], stride, padding: 1, bias: false };
    let mut layers = Sequence::new("", input);
    builder.conv(&mut layers, "conv1", three(64, 1))?;
    builder.norm(&mut layers, "bn1");
    builder.activation(&mut layers, "act1", shared);
    for (stage, (channels, stride)) in STAGES.into_iter().enumerate() {
        for (block, stride) in [stride, 1].into_iter().enumerate() {
            let name = format!("layer{}.{block}", stage + 1);
            let from = layers.output();
            let mut body = Sequence::new(&name, from);
            builder.conv(&mut body, &format!("{name}.conv1"), three(channels, stride))?;
            builder.norm(&mut body, &format!("{name}.bn1"));
            builder.activation(&mut body, &format!("{name}.act1"), ActivationPlace::of_block(stage));
            builder.conv(&mut body, &format!("{name}.conv2"), three(channels, 1))?;
            builder.norm(&mut body, &format!("{name}.bn2"));
            let shortcut = if body.output() == from {
                None
            } else {
                let mut shortcut = Sequence::new(&format!("{name}.shortcut"), from);
                let one = ConvSpec { channels, kernel: &[1, 1], stride, padding: 0, bias: false };
                builder.conv(&mut shortcut, &format!("{name}.shortcut.0"), one)?;
                builder.norm(&mut shortcut, &format!("{name}.shortcut.1"));
                Some(shortcut)
            };
            layers.push(Residual::new(body, shortcut));
            if stage + 1 == STAGES.len() && block == 1 {
                builder.last_activation(&mut layers, &format!("{name}.act2"));
            } else {
                builder.activation(&mut layers, &format!("{name}.act2"), shared);
            }
        }
    }
    builder.classifier(&mut layers, "linear", classes);
    Ok(layers)
}
