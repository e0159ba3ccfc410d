//! The convolutional text network of Zhang, Zhao and LeCun 2015.

use super::builder::{Builder, ConvSpec};
use super::entry::{Entry, Size};
use super::{ActivationPlace, Input};
use crate::train::data::Text;
use crate::train::error::TrainError;
use crate::train::layer::{Dropout, Layer, OneHot, Sequence};

pub(super) const TEXT_CNN: Entry = Entry {
    title: "text-cnn",
    reads_text: true,
    sizes: &[Size::Features, Size::Units, Size::Embedding, Size::Dropout],
    build,
};

/// Kernel of each convolution, and whether max pooling over 3 follows.
const CONVOLUTIONS: [(usize, bool); 6] = [(7, true), (7, true), (3, false), (3, false), (3, false), (3, true)];

/// Six convolutions, and three fully connected layers with dropout between them.
///
/// Characters are one-hot, and the convolutions have no padding, as published. Words are embedded. Because sentences are short,
/// the convolutions of words keep the length.
fn build(builder: Builder<'_>, input: Input) -> Result<Sequence, TrainError> {
    let Input { shape: input, text, classes } = input;
    let mut builder = builder.blocks(3);
    let config = builder.config;
    let (features, units) = (config.features.unwrap_or(256), config.units.unwrap_or(1024));
    let mut layers = Sequence::new("", input);
    let words = match text {
        Some(Text::Words(vocabulary)) => {
            let dimensions = config.embedding.unwrap_or(128);
            builder.embedding(&mut layers, "embedding", vocabulary, dimensions);
            if let Some(rate) = config.embedding_dropout {
                // The number tells it apart from the dropout between the fully connected layers.
                layers.push(Dropout::new("embedding_dropout", layers.output(), rate, 0));
            }
            true
        }
        Some(Text::Characters(alphabet)) => {
            let sizes = [
                ("embedding", config.embedding.map(|dimensions| dimensions.to_string())),
                ("embedding-deviation", config.embedding_deviation.map(|deviation| deviation.to_string())),
                ("embedding-dropout", config.embedding_dropout.map(|rate| rate.to_string())),
            ];
            for (name, value) in sizes {
                if let Some(value) = value {
                    return Err(TrainError::setting(name, value, "characters come one-hot, only words are embedded"));
                }
            }
            layers.push(OneHot::new("characters", input, alphabet));
            false
        }
        None => return Err(TrainError::setting("network", "text-cnn", "text-cnn needs text")),
    };
    let length = input.size[2];
    let too_short = |_| {
        let least = if words { 27 } else { 123 };
        TrainError::setting("length", length, format!("text-cnn pools, so texts must have at least {least} tokens"))
    };
    for (index, (kernel, pooled)) in CONVOLUTIONS.into_iter().enumerate() {
        let padding = if words { kernel / 2 } else { 0 };
        let conv = ConvSpec { channels: features, kernel: &[kernel], stride: 1, padding, bias: true };
        builder.conv(&mut layers, &format!("conv{}", index + 1), conv).map_err(too_short)?;
        if pooled {
            builder.max_pool(&mut layers, &format!("pool{}", index + 1), [1, 1, 3]).map_err(too_short)?;
        }
        let name = format!("act{}", index + 1);
        if index + 1 < CONVOLUTIONS.len() {
            builder.activation(&mut layers, &name, ActivationPlace::of_block(index / 2));
        } else {
            builder.activation(&mut layers, &name, ActivationPlace { block: Some(2), feeds_convolution: false });
        }
    }
    builder.flatten(&mut layers, "flatten");
    for index in 1..=2 {
        builder.linear(&mut layers, &format!("fc{index}"), units);
        let behind = ActivationPlace { block: None, feeds_convolution: false };
        builder.activation(&mut layers, &format!("fc{index}_act"), behind);
        layers.push(Dropout::new(&format!("dropout{index}"), layers.output(), config.dropout, index));
    }
    builder.linear(&mut layers, "fc3", classes);
    Ok(layers)
}
