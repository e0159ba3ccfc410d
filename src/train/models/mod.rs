//! The networks of the paper, and the activations that replace ReLU in them.
//!
//! A network names the places of its activations ([`ActivationPlace`]): the block of each, and whether it feeds exactly one
//! convolution.
//! The configuration says which activation stands there: an [`Activation`] in a [`Region`], and ReLU elsewhere. ReLU and ConvReLU
//! need no layer of their own where they feed a convolution, because the convolution clamps its input when it loads it.
//!
//! | network | blocks | places outside blocks (replaced with [`Region::All`] only) |
//! |---|---|---|
//! | `small-cnn` | the convolutions before each of two poolings | none |
//! | `densenet-cifar` | dense blocks of 6, 12, 24, 16 bottleneck layers | the transitions |
//! | `densenet40` | dense blocks of 8 layers each | the transitions |
//! | `vgg16` | the convolutions between two poolings | none |
//! | `resnet18` | the four stages: the ReLU inside each residual block | after the stem and after the additions, which also feed shortcuts, so never ConvReLU |
//! | `text-cnn` | convolutions 1 and 2, 3 and 4, 5 and 6 | after the fully connected layers, never ConvReLU |
//!
//! The activation before the classifier's pooling feeds no convolution, so it always stays ReLU. Max pooling may stand between an
//! activation and its convolution, because the maximum commutes with a monotone activation.
//!
//! A new network is a file with a function that builds it and an entry that describes it, its `mod` here, and one line in the
//! table [`Architecture`]. The parser, the configuration, the help text and the names in tables follow from that line.

mod builder;
mod densenet;
mod entry;
mod resnet;
mod small_cnn;
mod text_cnn;
mod vgg;

use serde::{Deserialize, Serialize};

pub use super::data::Text;
use super::error::TrainError;
use super::init::{ThresholdInit, WeightInit};
use super::layer::{Pointwise, Sharing};
use super::named::{named, table};
use super::network::Network;
use super::shape::Shape;
use crate::isa::Isa;
use crate::layout::Layout;
use builder::Builder;
use entry::{Entry, Size};

table! {
    /// A network's architecture: the table of all of them.
    pub enum Architecture: Entry, "network" {
        /// Four convolutions, for small images.
        SmallCnn = "small-cnn" => small_cnn::SMALL_CNN,
        /// The bottleneck DenseNet that the paper's Table 6 counts.
        DensenetCifar = "densenet-cifar" => densenet::CIFAR,
        /// The DenseNet of the paper's figure 4.
        Densenet40 = "densenet40" => densenet::FORTY,
        /// VGG-16 with batch normalisation and one linear layer.
        Vgg16 = "vgg16" => vgg::VGG16,
        /// ResNet-18 for small images.
        Resnet18 = "resnet18" => resnet::RESNET18,
        /// Six convolutions and three fully connected layers over text.
        TextCnn = "text-cnn" => text_cnn::TEXT_CNN,
    }
}

impl Architecture {
    /// The paper's name, or the usual one.
    pub const fn title(self) -> &'static str {
        self.entry().title
    }

    /// Whether it reads texts; else it reads images.
    pub const fn reads_text(self) -> bool {
        self.entry().reads_text
    }
}

/// The activation in the places of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// ReLU (eq. 1), the baseline.
    Relu,
    /// LeakyReLU (eq. 2) with a slope of 0.01.
    LeakyRelu,
    /// PReLU: LeakyReLU with a trained slope per layer or channel.
    Prelu,
    /// ELU (eq. 3) with α = 1.
    Elu,
    /// SELU.
    Selu,
    /// AdaReLU (eq. 4): a trained threshold per layer, channel or element.
    Adarelu,
    /// ConvReLU (eq. 8): the activation merges with the convolution that it feeds.
    Convrelu,
}

/// The blocks in which the activation replaces ReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Region {
    /// The first block (R1 of the paper).
    First,
    /// The last block (R2).
    Last,
    /// Everywhere (R3; "(A)" behind the name of an activation).
    All,
}

named!(
    Activation,
    "activation",
    [
        Relu = "relu",
        LeakyRelu = "leaky-relu",
        Prelu = "prelu",
        Elu = "elu",
        Selu = "selu",
        Adarelu = "adarelu",
        Convrelu = "convrelu",
    ]
);
named!(Region, "region", [First = "first", Last = "last", All = "all"]);
named!(Sharing, "sharing", [Layer = "layer", Channel = "channel", Element = "element"]);

impl Activation {
    /// Whether it has trained thresholds.
    pub const fn has_thresholds(self) -> bool {
        matches!(self, Self::Convrelu | Self::Adarelu)
    }

    /// The name in the paper's tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relu => "ReLU",
            Self::LeakyRelu => "LeakyReLU",
            Self::Prelu => "PReLU",
            Self::Elu => "ELU",
            Self::Selu => "SELU",
            Self::Adarelu => "AdaReLU",
            Self::Convrelu => "ConvReLU",
        }
    }
}

/// A network and everything that determines its initial state but the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelConfig {
    /// The architecture.
    pub network: Architecture,
    /// What replaces ReLU.
    pub activation: Activation,
    /// Where.
    pub region: Region,
    /// Which values share a coefficient of PReLU or a threshold of AdaReLU.
    pub sharing: Sharing,
    /// Initial thresholds.
    pub threshold_init: ThresholdInit,
    /// Initial weights.
    pub weight_init: WeightInit,
    /// Memory order of activations.
    pub channels_last: bool,
    /// DenseNets: features that a layer adds (12).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<usize>,
    /// `densenet40`: layers per block (8).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    /// `text-cnn`: features of a convolution (256; 1024 in the large network).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<usize>,
    /// `text-cnn`: units of a fully connected layer (1024; 2048 in the large network).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<usize>,
    /// `text-cnn`: dimensions of a word embedding (128).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<usize>,
    /// `text-cnn`: standard deviation of the initial word vectors (1, as in PyTorch). Adam moves every value by about the learning
    /// rate per step. So it soon changes small vectors altogether, while large ones stay near their random beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_deviation: Option<f32>,
    /// `text-cnn`: share of the elements of the word vectors that dropout zeroes (0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_dropout: Option<f32>,
    /// `text-cnn`: share of units that dropout zeroes.
    pub dropout: f32,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            network: Architecture::SmallCnn,
            activation: Activation::Relu,
            region: Region::First,
            sharing: Sharing::Layer,
            threshold_init: ThresholdInit::Zero,
            weight_init: WeightInit::He,
            channels_last: false,
            growth: None,
            depth: None,
            features: None,
            units: None,
            embedding: None,
            embedding_deviation: None,
            embedding_dropout: None,
            dropout: 0.5,
        }
    }
}

/// What a network reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Shape of an example.
    pub shape: Shape,
    /// Token ids of text; `None` for images.
    pub text: Option<Text>,
    /// Number of classes.
    pub classes: usize,
}

/// A place of an activation in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationPlace {
    /// Its block, from 0; `None` outside blocks.
    pub block: Option<usize>,
    /// Whether it feeds exactly one convolution, and nothing else.
    pub feeds_convolution: bool,
}

impl ActivationPlace {
    const fn of_block(block: usize) -> Self {
        Self { block: Some(block), feeds_convolution: true }
    }

    /// The activation at this place, in a network of this many blocks.
    fn activation(self, config: &ModelConfig, blocks: usize) -> Activation {
        // Partial replacement covers the same places for all activations: those where ConvReLU can stand.
        let covered = match config.region {
            Region::First => self.feeds_convolution && self.block == Some(0),
            Region::Last => self.feeds_convolution && self.block == Some(blocks - 1),
            Region::All => self.feeds_convolution || config.activation != Activation::Convrelu,
        };
        if covered { config.activation } else { Activation::Relu }
    }
}

impl ModelConfig {
    /// The layer that a pointwise activation is.
    fn pointwise(&self, activation: Activation) -> Pointwise {
        match activation {
            // In a place that feeds no convolution.
            Activation::Relu | Activation::Convrelu => Pointwise::Relu,
            Activation::LeakyRelu => Pointwise::LeakyRelu(0.01),
            Activation::Prelu => Pointwise::PRelu { sharing: self.sharing },
            Activation::Elu => Pointwise::Elu(1.0),
            Activation::Selu => Pointwise::Selu,
            Activation::Adarelu => Pointwise::AdaRelu { sharing: self.sharing, init: self.threshold_init },
        }
    }

    /// The same network without settings that do not matter to it, so that configurations of one network are equal.
    #[must_use]
    pub fn relevant(&self) -> Self {
        let (plain, sizes) = (Self::default(), self.network.entry().sizes);
        let size = |size: Size, value: Option<usize>| value.filter(|_| sizes.contains(&size));
        let keep = |condition: bool, given, plain| if condition { given } else { plain };
        let mut model = self.clone();
        model.growth = size(Size::Growth, self.growth);
        model.depth = size(Size::Depth, self.depth);
        model.features = size(Size::Features, self.features);
        model.units = size(Size::Units, self.units);
        model.embedding = size(Size::Embedding, self.embedding);
        for (setting, given) in [
            (&mut model.embedding_deviation, self.embedding_deviation),
            (&mut model.embedding_dropout, self.embedding_dropout),
        ] {
            *setting = given.filter(|_| sizes.contains(&Size::Embedding));
        }
        model.dropout = keep(sizes.contains(&Size::Dropout), self.dropout, plain.dropout);
        if self.activation == Activation::Relu {
            model.region = plain.region;
        }
        if !self.activation.has_thresholds() {
            model.threshold_init = plain.threshold_init;
        }
        if !matches!(self.activation, Activation::Prelu | Activation::Adarelu) {
            model.sharing = plain.sharing;
        }
        model
    }

    /// Settings that the network or the activation has no use for, and that are not as [`relevant`](Self::relevant) leaves
    /// them: their names, values, and what they break.
    pub fn useless(&self) -> Vec<(&'static str, String, String)> {
        let (relevant, network) = (self.relevant(), self.network);
        let size = |value: Option<usize>| value.map_or(String::new(), |value| value.to_string());
        let number = |value: Option<f32>| value.map_or(String::new(), |value| value.to_string());
        let of_network = format!("the network {network} has no such setting");
        let of_activation = format!("the activation {} has no such setting", self.activation);
        let region = "ReLU stands everywhere, the region is that of another activation".to_owned();
        let settings = [
            ("growth", size(self.growth), size(relevant.growth), &of_network),
            ("depth", size(self.depth), size(relevant.depth), &of_network),
            ("features", size(self.features), size(relevant.features), &of_network),
            ("units", size(self.units), size(relevant.units), &of_network),
            ("embedding", size(self.embedding), size(relevant.embedding), &of_network),
            (
                "embedding-deviation",
                number(self.embedding_deviation),
                number(relevant.embedding_deviation),
                &of_network,
            ),
            ("embedding-dropout", number(self.embedding_dropout), number(relevant.embedding_dropout), &of_network),
            ("dropout", self.dropout.to_string(), relevant.dropout.to_string(), &of_network),
            ("region", self.region.to_string(), relevant.region.to_string(), &region),
            ("threshold-init", self.threshold_init.to_string(), relevant.threshold_init.to_string(), &of_activation),
            ("sharing", self.sharing.to_string(), relevant.sharing.to_string(), &of_activation),
        ];
        let useless = settings.into_iter().filter(|(_, given, used, _)| given != used);
        useless.map(|(name, given, _, rule)| (name, given, rule.clone())).collect()
    }

    /// Builds the network for an input and the kernels of an instruction set; the seed determines the initial values.
    /// Networks that differ in their activations only begin with the same weights.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] where a setting makes no sense or the input does not fit, [`TrainError::Kernel`].
    pub fn build(&self, input: Input, isa: Isa, seed: u64) -> Result<Network, TrainError> {
        let layout = if self.channels_last { Layout::Nhwc } else { Layout::Nchw };
        let shape = input.shape.with_layout(layout);
        if input.classes == 0 || shape.is_empty() {
            let value = format!("examples of {shape} in {} classes", input.classes);
            return Err(TrainError::setting("dataset", value, "it must have elements and classes"));
        }
        if input.text.is_some() != self.network.reads_text() {
            let (needs, has) = if input.text.is_some() { ("images", "text") } else { ("text", "images") };
            let rule = format!("it needs {needs}, and the data set is {has}");
            return Err(TrainError::setting("network", self.network, rule));
        }
        // They are mistakes, so they are not ignored.
        if let Some((name, value, rule)) = self.useless().into_iter().next() {
            return Err(TrainError::setting(name, value, rule));
        }
        for (name, value) in [
            ("growth", self.growth),
            ("depth", self.depth),
            ("features", self.features),
            ("units", self.units),
            ("embedding", self.embedding),
        ] {
            if value.is_some_and(|value| value == 0 || value > 1 << 16) {
                return Err(TrainError::setting(name, value.unwrap_or(0), "it must be from 1 to 65536"));
            }
        }
        if let Some(deviation) = self.embedding_deviation
            && !(deviation.is_finite() && deviation > 0.0)
        {
            let rule = "it must be a finite number greater than 0";
            return Err(TrainError::setting("embedding-deviation", deviation, rule));
        }
        for (name, rate) in [("dropout", Some(self.dropout)), ("embedding-dropout", self.embedding_dropout)] {
            if let Some(rate) = rate.filter(|rate| !(0.0..1.0).contains(rate)) {
                return Err(TrainError::setting(name, rate, "it must be at least 0 and less than 1"));
            }
        }
        let scale = match self.threshold_init {
            ThresholdInit::Gaussian(scale) | ThresholdInit::Uniform(scale) => scale,
            ThresholdInit::Zero | ThresholdInit::Glorot => 1.0,
        };
        if !(scale.is_finite() && scale >= 0.0) {
            return Err(TrainError::setting("threshold-init", scale, "its scale must be finite, 0 or greater"));
        }
        let layers = (self.network.entry().build)(Builder::new(self, isa, seed), Input { shape, ..input })?;
        Ok(Network::new(layers))
    }
}

#[cfg(test)]
mod tests;
