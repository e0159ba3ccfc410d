//! Layers: forward and backward over a batch of dense images (NCHW), buffers owned by the [`Network`](super::Network).

mod conv;
mod linear;
mod pool;
mod relu;

pub use conv::Conv;
pub use linear::Linear;
pub use pool::MaxPool;
pub use relu::Relu;

use super::data::Shape;
use super::parameter::Parameter;
use crate::error::Error;

/// Whether a forward pass belongs to training or to evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A backward pass follows.
    Train,
    /// Layers record which of their units are alive.
    Evaluate,
}

/// What a pass is about.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Images in the batch.
    pub batch: usize,
    /// Threads that the kernels may use.
    pub threads: usize,
    /// Training or evaluation.
    pub mode: Mode,
}

/// Units with a threshold: channels of a ReLU, or (input channel, tap) of a ConvReLU layer. A unit is dead if its input
/// never exceeded its threshold, so that it passed the same constant for every image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Units that never exceeded their threshold.
    pub dead: usize,
    /// All units.
    pub total: usize,
}

/// A layer of a [`Network`](super::Network).
pub trait Layer: Send {
    /// Unique in its network.
    fn name(&self) -> &str;

    /// Shape of the output for one image.
    fn output(&self) -> Shape;

    /// Computes `output` from `input`, both `context.batch` images.
    ///
    /// # Errors
    ///
    /// [`Error`] of the kernels, as when a threshold has become NaN.
    fn forward(&mut self, context: Context, input: &[f32], output: &mut [f32]) -> Result<(), Error>;

    /// Adds the parameters' gradients to [`Parameter::grad`] and, if asked, overwrites `grad_input`; `input` is that
    /// of the last forward pass.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    fn backward(
        &mut self,
        context: Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error>;

    /// Trained tensors.
    fn parameters(&self) -> &[Parameter] {
        &[]
    }

    /// Trained tensors, to be updated.
    fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut []
    }

    /// Units seen since [`reset_units`](Self::reset_units), in passes that evaluate.
    fn units(&self) -> Units {
        Units::default()
    }

    /// Forgets what was seen.
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

    fn record(&mut self, images: &[f32], positions: usize) {
        for image in images.chunks_exact(self.0.len() * positions) {
            for (peak, plane) in self.0.iter_mut().zip(image.chunks_exact(positions)) {
                *peak = plane.iter().fold(*peak, |peak, &x| peak.max(x));
            }
        }
    }
}

/// A buffer that grows to what a pass needs and is used again by the next.
fn grown(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
