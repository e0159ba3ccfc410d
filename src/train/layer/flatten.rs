//! Flattening.

use super::{Layer, LayerKind, Operation};
use crate::error::Error;
use crate::layout::Layout;
use crate::strided::transpose;
use crate::train::context::Context;
use crate::train::shape::Shape;

/// Makes channels of all elements of an image, in PyTorch's order (channels before positions), in both layouts. So the weights of
/// a linear layer behind it do not depend on the layout.
#[derive(Debug)]
pub struct Flatten {
    name: String,
    input: Shape,
}

impl Flatten {
    /// A layer for images of a given shape.
    pub fn new(name: &str, input: Shape) -> Self {
        Self { name: name.to_owned(), input }
    }

    /// Copies images between the two orders. `rows` and `columns` are those of the source.
    fn copy(&self, from: &[f32], to: &mut [f32], rows: usize, columns: usize) {
        match self.input.layout {
            Layout::Nchw => to.copy_from_slice(from),
            Layout::Nhwc => {
                for (from, to) in from.chunks_exact(rows * columns).zip(to.chunks_exact_mut(rows * columns)) {
                    transpose(from, columns, to, rows, rows, columns);
                }
            }
        }
    }
}

impl Layer for Flatten {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Join
    }

    fn output(&self) -> Shape {
        Shape { channels: self.input.len(), size: [1; 3], layout: self.input.layout }
    }

    fn operation(&self) -> Operation<'_> {
        Operation::Flatten
    }

    fn forward(&mut self, _: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        self.copy(input, output, self.input.positions(), self.input.channels);
        Ok(())
    }

    fn backward(
        &mut self,
        _: &mut Context,
        _: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        if let Some(grad_input) = grad_input {
            self.copy(grad_output, grad_input, self.input.channels, self.input.positions());
        }
        Ok(())
    }
}
