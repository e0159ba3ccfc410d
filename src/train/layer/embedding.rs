//! Tokens as vectors.

use rand::rngs::ChaCha8Rng;

use super::{Layer, LayerKind, Operation, Table};
use crate::error::Error;
use crate::layout::Layout;
use crate::train::context::Context;
use crate::train::parameter::{Kind, Parameter};
use crate::train::random::gaussian;
use crate::train::shape::Shape;
use crate::train::threads::{for_each, share};

/// A token, which images hold as a float. A fraction is cut off. Negative numbers, NaN and numbers above `last` become 0, the
/// padding.
fn token(id: f32, last: usize) -> usize {
    let id = id as usize;
    if id > last { 0 } else { id }
}

/// Calls `place(token, offset of the position's first channel, step from channel to channel)` for an image's positions.
fn places(image: &[f32], shape: Shape, last: usize, mut place: impl FnMut(usize, usize, usize)) {
    for (position, &id) in image.iter().enumerate() {
        let (first, step) = match shape.layout {
            Layout::Nchw => (position, image.len()),
            Layout::Nhwc => (position * shape.channels, 1),
        };
        place(token(id, last), first, step);
    }
}

/// One trained vector per token: `weight` `[vocabulary, dim]`. The input has one channel, which holds tokens as floats. The
/// output has `dim` channels for each position. Token 0 is padding: its vector is zero and never trained. A number outside of the
/// vocabulary counts as padding.
#[derive(Debug)]
pub struct Embedding {
    name: String,
    output: Shape,
    weight: Parameter,
}

impl Embedding {
    /// A layer for texts of a shape. Its vectors begin as Gaussian numbers with mean 0 and standard deviation `deviation`.
    ///
    /// # Panics
    ///
    /// If the input does not have one channel, or the vocabulary is empty.
    pub fn new(name: &str, input: Shape, vocabulary: usize, dim: usize, deviation: f32, rng: &mut ChaCha8Rng) -> Self {
        assert!(input.channels == 1 && vocabulary > 0, "tokens are one channel, and there are some");
        let mut value = gaussian(rng, vocabulary * dim, deviation);
        value[..dim].fill(0.0);
        let weight = Parameter::new(format!("{name}.weight"), vec![vocabulary, dim], Kind::Weight, value);
        Self { name: name.to_owned(), output: input.with_channels(dim), weight }
    }

    fn last(&self) -> usize {
        self.weight.shape[0] - 1
    }
}

impl Layer for Embedding {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Embedding
    }

    fn output(&self) -> Shape {
        self.output
    }

    fn operation(&self) -> Operation<'_> {
        Operation::Lookup(Table::Trained(&self.weight))
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let (shape, last, dim) = (self.output, self.last(), self.output.channels);
        let images = share(context.batch, shape.len(), context.threads);
        let mut zeros = context.take(dim);
        zeros.fill(0.0);
        let (weight, zeros_ref) = (&self.weight.value, &zeros[..]);
        let jobs = input.chunks(images * shape.positions()).zip(output.chunks_mut(images * shape.len()));
        for_each(context.threads, jobs, |(input, output)| {
            for (image, y) in input.chunks_exact(shape.positions()).zip(output.chunks_exact_mut(shape.len())) {
                places(image, shape, last, |token, first, step| {
                    // The padding's vector is never read, so no change of the weights changes the padding.
                    let vector = if token == 0 { zeros_ref } else { &weight[token * dim..][..dim] };
                    if step == 1 {
                        y[first..][..dim].copy_from_slice(vector);
                    } else {
                        y[first..].iter_mut().step_by(step).zip(vector).for_each(|(y, v)| *y = *v);
                    }
                });
            }
        });
        context.give(zeros);
        Ok(())
    }

    fn backward(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let (shape, last, dim) = (self.output, self.last(), self.output.channels);
        // Every thread reads all tokens and adds up the gradients of its own part of the vocabulary. So the order of each sum is
        // fixed.
        let tokens = self.weight.shape[0].div_ceil(context.threads());
        for_each(context.threads, self.weight.grad.chunks_mut(tokens * dim).enumerate(), |(job, grad)| {
            let own = job * tokens..job * tokens + grad.len() / dim;
            for (image, g) in input.chunks_exact(shape.positions()).zip(grad_output.chunks_exact(shape.len())) {
                places(image, shape, last, |token, first, step| {
                    if token == 0 || !own.contains(&token) {
                        return;
                    }
                    let grad = &mut grad[(token - own.start) * dim..][..dim];
                    if step == 1 {
                        super::add(&g[first..][..dim], grad);
                    } else {
                        grad.iter_mut().zip(g[first..].iter().step_by(step)).for_each(|(grad, g)| *grad += g);
                    }
                });
            }
        });
        if let Some(grad_input) = grad_input {
            grad_input.fill(0.0);
        }
        Ok(())
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        visit(&self.weight);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        visit(&mut self.weight);
    }
}

/// Writes a 1 into channel `k − 1` for token `k`, and zeros for token 0 and for numbers beyond the channels.
#[derive(Debug)]
pub struct OneHot {
    name: String,
    output: Shape,
}

impl OneHot {
    /// A layer for texts of a shape.
    ///
    /// # Panics
    ///
    /// If the input does not have one channel.
    pub fn new(name: &str, input: Shape, channels: usize) -> Self {
        assert_eq!(input.channels, 1, "tokens are one channel");
        Self { name: name.to_owned(), output: input.with_channels(channels) }
    }
}

impl Layer for OneHot {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Embedding
    }

    fn output(&self) -> Shape {
        self.output
    }

    fn operation(&self) -> Operation<'_> {
        Operation::Lookup(Table::OneHot(self.output.channels))
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let shape = self.output;
        let images = share(context.batch, shape.len(), context.threads);
        let jobs = input.chunks(images * shape.positions()).zip(output.chunks_mut(images * shape.len()));
        for_each(context.threads, jobs, |(input, output)| {
            output.fill(0.0);
            for (image, y) in input.chunks_exact(shape.positions()).zip(output.chunks_exact_mut(shape.len())) {
                places(image, shape, shape.channels, |token, first, step| {
                    if token > 0 {
                        y[first + (token - 1) * step] = 1.0;
                    }
                });
            }
        });
        Ok(())
    }

    fn backward(&mut self, _: &mut Context, _: &[f32], _: &[f32], grad_input: Option<&mut [f32]>) -> Result<(), Error> {
        if let Some(grad_input) = grad_input {
            grad_input.fill(0.0);
        }
        Ok(())
    }
}
