//! ReLU.

use super::{Context, Layer, Mode, Peaks, Units};
use crate::adarelu;
use crate::error::Error;
use crate::plan::Accumulation;
use crate::train::data::Shape;

/// `max(0, x)` (eq. 1): AdaReLU whose one threshold stays 0.
#[derive(Debug)]
pub struct Relu {
    name: String,
    shape: Shape,
    peaks: Peaks,
}

impl Relu {
    /// A ReLU for images of a shape.
    pub fn new(name: &str, shape: Shape) -> Self {
        Self { name: name.to_owned(), shape, peaks: Peaks::new(shape.channels) }
    }
}

impl Layer for Relu {
    fn name(&self) -> &str {
        &self.name
    }

    fn output(&self) -> Shape {
        self.shape
    }

    fn forward(&mut self, context: Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        if context.mode == Mode::Evaluate {
            self.peaks.record(input, self.shape.positions());
        }
        adarelu::forward(input, &[0.0], 1, output)
    }

    fn backward(
        &mut self,
        _: Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let Some(grad_input) = grad_input else { return Ok(()) };
        adarelu::backward(input, &[0.0], 1, grad_output, grad_input, &mut [0.0], Accumulation::Overwrite)
    }

    fn units(&self) -> Units {
        Units { dead: self.peaks.0.iter().filter(|&&peak| peak <= 0.0).count(), total: self.peaks.0.len() }
    }

    fn reset_units(&mut self) {
        self.peaks.reset();
    }
}
