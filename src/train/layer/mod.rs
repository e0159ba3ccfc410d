//! Layers: forward and backward over a batch of dense images.
//!
//! A new layer is a file here with a [`Layer`], and its `mod` and `pub use` below. Networks push it to a [`Sequence`]. The tests
//! of all layers are one table, `cases` in `src/train/tests/layers.rs`. If the layer is of a new kind, it needs a line in the
//! table of [`LayerKind`], which profiles use. For exports, a layer says what it computes ([`Layer::operation`]). If no layer has
//! computed it so far, that is a new variant of [`Operation`] and an arm in `src/train/onnx/layers.rs`.

mod activation;
mod conv;
mod dense_block;
mod dropout;
mod embedding;
mod flatten;
mod linear;
mod norm;
mod operation;
mod pool;
mod residual;
mod sequence;

#[cfg(feature = "onnx")]
pub(super) use activation::SELU;
pub use activation::{Activate, Pointwise, Sharing};
pub use conv::{Clamp, Conv};
pub use dense_block::DenseBlock;
pub use dropout::Dropout;
pub use embedding::{Embedding, OneHot};
pub use flatten::Flatten;
pub use linear::Linear;
pub use norm::BatchNorm;
pub use operation::{Clamped, Operation, Table};
pub use pool::{AveragePool, GlobalAveragePool, MaxPool, PoolWindow};
pub use residual::Residual;
pub use sequence::Sequence;

use super::context::Context;
use super::named::named;
use super::parameter::Parameter;
use super::shape::{Channels, Shape};
use super::threads::{for_each, share};
use super::vectorized::vectorized;
use crate::error::Error;
use crate::layout::Layout;

/// The kind of a layer, for the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LayerKind {
    /// Convolution and ConvReLU: the crate's kernels.
    Convolution,
    /// Fully connected.
    Linear,
    /// Batch normalisation.
    Normalization,
    /// Activations that no convolution absorbs.
    Activation,
    /// Max, average and global average pooling.
    Pooling,
    /// Dropout.
    Dropout,
    /// Embeddings and one-hot codes.
    Embedding,
    /// Layers that move or add tensors: flattening, concatenation, residual addition.
    Join,
    /// A layer made of other layers. The profile counts these instead.
    Composite,
}

named!(
    LayerKind,
    "kind of layer",
    [
        Convolution = "convolution",
        Normalization = "normalization",
        Activation = "activation",
        Pooling = "pooling",
        Linear = "linear",
        Dropout = "dropout",
        Embedding = "embedding",
        Join = "join",
        Composite = "composite",
    ]
);

/// Units with a threshold: channels of an activation, or pairs of input channel and tap of a ConvReLU layer. A unit is dead if
/// its input never exceeded its threshold. It then had the same constant output for every image (or one on the same straight
/// line).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Units {
    /// Units that never exceeded their threshold.
    pub dead: usize,
    /// All units.
    pub total: usize,
}

impl std::ops::Add for Units {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { dead: self.dead + other.dead, total: self.total + other.total }
    }
}

/// The units of one layer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerUnits {
    /// Name of the layer.
    pub layer: String,
    /// Units that never exceeded their threshold.
    pub dead: usize,
    /// All units.
    pub total: usize,
}

/// A layer of a [`Network`](super::Network). It may keep state from a forward pass for the backward pass that follows.
pub trait Layer: Send {
    /// Unique in its network, the prefix of its parameters' names.
    fn name(&self) -> &str;

    /// Its kind.
    fn kind(&self) -> LayerKind;

    /// Shape of the output for one image.
    fn output(&self) -> Shape;

    /// What it computes in evaluation. Without a description a network cannot be written in another form.
    fn operation(&self) -> Operation<'_> {
        Operation::Opaque
    }

    /// Computes `output` from `input`, both [`Context::batch`] images.
    ///
    /// # Errors
    ///
    /// [`Error`] of the kernels, for example if a threshold has become NaN.
    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error>;

    /// Adds the parameters' gradients to [`Parameter::grad`], and overwrites `grad_input` if it is given. `input` is the input of
    /// the last forward pass, and `grad_output` the gradient of the loss with respect to its output.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    fn backward(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error>;

    /// As [`forward`](Self::forward), but `output` is a wider tensor, of which the layer writes the channels `at`.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    fn forward_into(
        &mut self,
        context: &mut Context,
        input: &[f32],
        output: &mut [f32],
        at: Channels,
    ) -> Result<(), Error> {
        if at.is_dense() {
            return self.forward(context, input, output);
        }
        let mut dense = context.take(at.len());
        let result = self.forward(context, input, &mut dense);
        copy(context, &dense, Channels::all(self.output(), context.batch), output, at);
        context.give(dense);
        result
    }

    /// As [`backward`](Self::backward), but `grad_output` is a wider tensor, of which the layer reads the channels `at`.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    fn backward_from(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        at: Channels,
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        if at.is_dense() {
            return self.backward(context, input, grad_output, grad_input);
        }
        let mut dense = context.take(at.len());
        copy(context, grad_output, at, &mut dense, Channels::all(self.output(), context.batch));
        let result = self.backward(context, input, &dense, grad_input);
        context.give(dense);
        result
    }

    /// Visits all tensors of the state, in a fixed order.
    fn visit<'a>(&'a self, _: &mut dyn FnMut(&'a Parameter)) {}

    /// As [`visit`](Self::visit), but the visitor may change the tensors.
    fn visit_mut(&mut self, _: &mut dyn FnMut(&mut Parameter)) {}

    /// Visits this layer, or each layer in it, that has units: its name, and its units since the last
    /// [`reset_units`](Self::reset_units) in passes for evaluation.
    fn visit_units(&self, _: &mut dyn FnMut(&str, Units)) {}

    /// The sum of all units that [`visit_units`](Self::visit_units) visits.
    fn units(&self) -> Units {
        let mut sum = Units::default();
        self.visit_units(&mut |_, units| sum = sum + units);
        sum
    }

    /// Resets the record of units.
    fn reset_units(&mut self) {}
}

/// The greatest value that each channel has reached.
#[derive(Clone, Debug)]
struct Peaks(Vec<f32>);

impl Peaks {
    fn new(channels: usize) -> Self {
        Self(vec![f32::NEG_INFINITY; channels])
    }

    fn reset(&mut self) {
        self.0.fill(f32::NEG_INFINITY);
    }

    /// Updates the values with a batch of images of a given shape.
    fn record(&mut self, context: &Context, shape: Shape, images: &[f32]) {
        let runs = shape.runs(context.batch());
        let images = &images[..runs.outer * runs.step()];
        match shape.layout {
            Layout::Nchw => {
                let channels = share(runs.channels, runs.outer * runs.inner, context.threads);
                let jobs = self.0.chunks_mut(channels).enumerate();
                for_each(context.threads, jobs, |(job, peaks)| {
                    for image in images.chunks_exact(runs.step()) {
                        let planes = image[job * channels * runs.inner..].chunks_exact(runs.inner);
                        peaks.iter_mut().zip(planes).for_each(|(peak, plane)| *peak = peak.max(greatest(plane)));
                    }
                });
            }
            Layout::Nhwc => greatest_rows(images, &mut self.0),
        }
    }

    /// Channels that never exceeded `threshold`.
    fn dead(&self, threshold: f32) -> usize {
        self.0.iter().filter(|&&peak| peak <= threshold).count()
    }
}

vectorized! {
    fn greatest<'a>(plane: &'a [f32]) -> f32 {
        const LANES: usize = super::vectorized::LANES;
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (whole, rest) = plane.as_chunks::<LANES>();
        for x in whole {
            for (lane, &x) in lanes.iter_mut().zip(x) {
                *lane = if x > *lane { x } else { *lane };
            }
        }
        lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |peak, &x| if x > peak { x } else { peak })
    }

    fn greatest_rows<'a>(rows: &'a [f32], peaks: &'a mut [f32]) {
        for row in rows.chunks_exact(peaks.len()) {
            for (peak, &x) in peaks.iter_mut().zip(row) {
                *peak = if x > *peak { x } else { *peak };
            }
        }
    }

    /// `to += from`.
    fn add<'a>(from: &'a [f32], to: &'a mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    }
}

/// `to += from` on all threads.
fn add_all(context: &Context, from: &[f32], to: &mut [f32]) {
    let len = share(to.len(), 1, context.threads);
    for_each(context.threads, to.chunks_mut(len).zip(from.chunks(len)), |(to, from)| add(from, to));
}

/// Copies channels from one tensor into another, on all threads.
fn copy(context: &Context, from: &[f32], source: Channels, to: &mut [f32], target: Channels) {
    let step = source.runs.step();
    let steps = share(source.runs.outer, step, context.threads);
    let jobs = to.chunks_mut(steps * target.pitch).zip(from.chunks(steps * source.pitch));
    for_each(context.threads, jobs, |(to, from)| {
        for (to, from) in to.chunks_mut(target.pitch).zip(from.chunks(source.pitch)) {
            to[target.offset..][..step].copy_from_slice(&from[source.offset..][..step]);
        }
    });
}
