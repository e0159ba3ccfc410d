//! Descriptions of what layers compute in evaluation. Exports read them.

use super::{BatchNorm, Pointwise, PoolWindow, Sequence};
use crate::desc::ConvDesc;
use crate::train::parameter::Parameter;

/// What a layer computes in evaluation. Parameters hold their values in their own [layout](Parameter::layout).
#[derive(Clone)]
#[non_exhaustive]
pub enum Operation<'a> {
    /// No description. It is the default of a [`Layer`](super::Layer) of another crate.
    Opaque,
    /// The input, unchanged.
    Identity,
    /// Layers one after the other.
    Sequence(&'a Sequence),
    /// `body(x) + shortcut(x)`, or `body(x) + x` without a shortcut.
    Sum {
        /// One side.
        body: &'a Sequence,
        /// The other side. If None, the input itself.
        shortcut: Option<&'a Sequence>,
    },
    /// Layers that each put new channels in front of all that they see: `x ← [layer(x), x]`. Each layer is a list of
    /// normalisations, each with the layers behind it.
    Dense(Vec<Vec<(&'a BatchNorm, &'a Sequence)>>),
    /// A convolution, of the input or of the clamped input.
    Convolution {
        /// Its geometry. The batch does not matter.
        desc: &'a ConvDesc,
        /// How the input is clamped.
        clamped: Clamped<'a>,
        /// `[out, in / groups, …]`.
        weight: &'a Parameter,
        /// `[out]`.
        bias: Option<&'a Parameter>,
    },
    /// `weight · x + bias` over all elements.
    Linear {
        /// `[out, in]`.
        weight: &'a Parameter,
        /// `[out]`.
        bias: &'a Parameter,
    },
    /// `weight · (x − mean) / √(variance + epsilon) + bias` per channel.
    Normalization {
        /// `[channels]`.
        weight: &'a Parameter,
        /// `[channels]`.
        bias: &'a Parameter,
        /// `[channels]`.
        mean: &'a Parameter,
        /// `[channels]`.
        variance: &'a Parameter,
        /// Added to the variance.
        epsilon: f64,
    },
    /// A function of one element at a time, and its trained slopes or thresholds, if it has any.
    Activation(Pointwise, Option<&'a Parameter>),
    /// The greatest value of each window.
    MaxPool(PoolWindow),
    /// The mean of each window.
    AveragePool(PoolWindow),
    /// The mean of each channel.
    GlobalAveragePool,
    /// All elements as channels, channels before positions.
    Flatten,
    /// A vector for each token, as channels.
    Lookup(Table<'a>),
}

/// How a convolution clamps its input.
#[derive(Clone, Copy)]
pub enum Clamped<'a> {
    /// Not at all.
    No,
    /// ReLU.
    Relu,
    /// `max(x, θ)`: a threshold per input channel and tap, `[in, …]`.
    Thresholds(&'a Parameter),
}

/// Vectors of tokens.
#[derive(Clone, Copy)]
pub enum Table<'a> {
    /// Trained vectors, `[vocabulary, dim]`. The vector of token 0 is zero, whatever the first row of the tensor holds.
    Trained(&'a Parameter),
    /// Token `k` is a 1 in channel `k − 1` of this many. Token 0 is zero.
    OneHot(usize),
}
