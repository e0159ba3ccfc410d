//! Fully connected layer.

use rand::rngs::ChaCha8Rng;

use super::{Layer, LayerKind, Operation, add};
use crate::error::Error;
use crate::matmul::{Matrix, matmul};
use crate::train::context::Context;
use crate::train::init::WeightInit;
use crate::train::parameter::{Kind, Parameter};
use crate::train::shape::Shape;
use crate::train::threads::for_each;

/// Rows of a product that one job computes. It changes the bits of the result, so it does not depend on the number of threads.
const ROWS: usize = 32;

/// `y = W x + b` over all elements of an image: `weight` `[out, in]`, `bias` `[out]`.
#[derive(Debug)]
pub struct Linear {
    name: String,
    inputs: usize,
    outputs: usize,
    parameters: [Parameter; 2],
}

impl Linear {
    /// A layer for inputs of a given shape, in their memory order.
    pub fn new(name: &str, input: Shape, outputs: usize, init: WeightInit, rng: &mut ChaCha8Rng) -> Self {
        let inputs = input.len();
        let weight = init.weight(rng, outputs * inputs, inputs);
        let bias = init.bias(rng, outputs, inputs);
        let parameters = [
            Parameter::new(format!("{name}.weight"), vec![outputs, inputs], Kind::Weight, weight),
            Parameter::new(format!("{name}.bias"), vec![outputs], Kind::Bias, bias),
        ];
        Self { name: name.to_owned(), inputs, outputs, parameters }
    }
}

impl Layer for Linear {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Linear
    }

    fn output(&self) -> Shape {
        Shape::new(self.outputs, [1; 3])
    }

    fn operation(&self) -> Operation<'_> {
        let [weight, bias] = &self.parameters;
        Operation::Linear { weight, bias }
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let (inputs, outputs, [weight, bias]) = (self.inputs, self.outputs, &self.parameters);
        let jobs = output.chunks_mut(ROWS * outputs).zip(input.chunks(ROWS * inputs));
        for_each(context.threads, jobs, |(output, input)| {
            for row in output.chunks_exact_mut(outputs) {
                row.copy_from_slice(&bias.value);
            }
            let weight = Matrix::rows(&weight.value, inputs).transposed();
            let rows = output.len() / outputs;
            matmul([rows, inputs, outputs], Matrix::rows(input, inputs), weight, true, output);
        });
        Ok(())
    }

    fn backward(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let (inputs, outputs, batch) = (self.inputs, self.outputs, context.batch);
        let [weight, bias] = &mut self.parameters;
        for row in grad_output.chunks_exact(outputs) {
            add(row, &mut bias.grad);
        }
        for_each(context.threads, weight.grad.chunks_mut(ROWS * inputs).enumerate(), |(job, grad)| {
            let rows = grad.len() / inputs;
            let grad_output = Matrix::rows(&grad_output[job * ROWS..], outputs).transposed();
            matmul([rows, batch, inputs], grad_output, Matrix::rows(input, inputs), true, grad);
        });
        if let Some(grad_input) = grad_input {
            let jobs = grad_input.chunks_mut(ROWS * inputs).zip(grad_output.chunks(ROWS * outputs));
            for_each(context.threads, jobs, |(grad_input, grad_output)| {
                let rows = grad_input.len() / inputs;
                let weight = Matrix::rows(&weight.value, inputs);
                matmul([rows, outputs, inputs], Matrix::rows(grad_output, outputs), weight, false, grad_input);
            });
        }
        Ok(())
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        self.parameters.iter().for_each(visit);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        self.parameters.iter_mut().for_each(visit);
    }
}
