//! Max pooling.

use super::{Context, Layer};
use crate::error::Error;
use crate::train::data::Shape;

/// Max pooling over windows of 2×2 without overlap; an odd last row or column is left out.
#[derive(Debug)]
pub struct MaxPool {
    name: String,
    input: Shape,
    /// Where each output of the last batch came from.
    sources: Vec<u32>,
}

/// Extent of a window, and distance of windows.
const WINDOW: usize = 2;

impl MaxPool {
    /// A pooling layer for images of a shape.
    pub fn new(name: &str, input: Shape) -> Self {
        Self { name: name.to_owned(), input, sources: Vec::new() }
    }
}

impl Layer for MaxPool {
    fn name(&self) -> &str {
        &self.name
    }

    fn output(&self) -> Shape {
        let [depth, height, width] = self.input.size;
        Shape { channels: self.input.channels, size: [depth, height / WINDOW, width / WINDOW] }
    }

    fn forward(&mut self, _: Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let [_, height, width] = self.input.size;
        let [_, out_height, out_width] = self.output().size;
        self.sources.clear();
        let planes = input.chunks_exact(height * width).zip(output.chunks_exact_mut(out_height * out_width));
        for (plane, (x, y)) in planes.enumerate() {
            for (p, y) in y.iter_mut().enumerate() {
                let corner = p / out_width * WINDOW * width + p % out_width * WINDOW;
                let mut source = corner;
                for offset in [1, width, width + 1] {
                    // Not `<=`: of equal values the first counts; a NaN is passed on.
                    if x[corner + offset] > x[source] || x[corner + offset].is_nan() {
                        source = corner + offset;
                    }
                }
                *y = x[source];
                self.sources.push((plane * height * width + source) as u32);
            }
        }
        Ok(())
    }

    fn backward(
        &mut self,
        _: Context,
        _: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let Some(grad_input) = grad_input else { return Ok(()) };
        grad_input.fill(0.0);
        for (&source, g) in self.sources.iter().zip(grad_output) {
            grad_input[source as usize] += g;
        }
        Ok(())
    }
}
