//! What layers compute in evaluation, as data: for who writes a network in another form.

use super::{BatchNorm, Pointwise, PoolWindow, Sequence};
use crate::desc::ConvDesc;
use crate::train::parameter::Parameter;

/// What a layer computes in evaluation. Parameters hold their values in their own [layout](Parameter::layout).
#[derive(Clone)]
#[non_exhaustive]
pub enum Operation<'a> {
    /// Something that has no description: what a [`Layer`](super::Layer) of another crate is unless it says more.
    Opaque,
    /// The input, unchanged.
    Identity,
    /// Layers one after the other.
    Sequence(&'a Sequence),
    /// `body(x) + shortcut(x)`; without a shortcut `body(x) + x`.
    Sum {
        /// One side.
        body: &'a Sequence,
        /// The other; the input itself where there is none.
        shortcut: Option<&'a Sequence>,
    },
    /// Layers that each put new channels in front of all that they see: `x ← [layer(x), x]`. Each layer is a list of
    /// normalisations, each with the layers behind it.
    Dense(Vec<Vec<(&'a BatchNorm, &'a Sequence)>>),
    /// A convolution, of the input or of the clamped input.
    Convolution {
        /// Its geometry; the batch does not matter.
        desc: &'a ConvDesc,
        /// What happens to the input first.
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
    /// A function of one element at a time; its slopes or thresholds, if it has trained ones.
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

/// What a convolution does to its input first.
#[derive(Clone, Copy)]
pub enum Clamped<'a> {
    /// Nothing.
    No,
    /// ReLU.
    Relu,
    /// `max(x, θ)`: a threshold per input channel and tap, `[in, …]`.
    Thresholds(&'a Parameter),
}

/// Vectors of tokens.
#[derive(Clone, Copy)]
pub enum Table<'a> {
    /// Those of tokens from 1 on, `[vocabulary, dim]`; that of token 0 is zero, whatever the tensor's first row holds.
    Trained(&'a Parameter),
    /// Token `k` is a one in channel `k − 1` of so many; token 0 is zero.
    OneHot(usize),
}
