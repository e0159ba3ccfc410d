//! Fully connected layer.

use rand::rngs::ChaCha8Rng;

use super::{Context, Layer};
use crate::error::Error;
use crate::matmul::{Matrix, matmul};
use crate::train::data::Shape;
use crate::train::init::he;
use crate::train::parameter::{Kind, Parameter};

/// `y = W x + b` over all elements of an image: `weight` `[out, in]`, `bias` `[out]`.
#[derive(Debug)]
pub struct Linear {
    name: String,
    inputs: usize,
    outputs: usize,
    parameters: [Parameter; 2],
}

impl Linear {
    /// A layer with He's initialisation and a bias of zero.
    pub fn new(name: &str, input: Shape, outputs: usize, rng: &mut ChaCha8Rng) -> Self {
        let inputs = input.len();
        let weight = he(rng, outputs * inputs, inputs);
        let parameters = [
            Parameter::new(format!("{name}.weight"), vec![outputs, inputs], Kind::Weight, weight),
            Parameter::new(format!("{name}.bias"), vec![outputs], Kind::Bias, vec![0.0; outputs]),
        ];
        Self { name: name.to_owned(), inputs, outputs, parameters }
    }
}

impl Layer for Linear {
    fn name(&self) -> &str {
        &self.name
    }

    fn output(&self) -> Shape {
        Shape { channels: self.outputs, size: [1; 3] }
    }

    fn forward(&mut self, context: Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let [weight, bias] = &self.parameters;
        for row in output.chunks_exact_mut(self.outputs) {
            row.copy_from_slice(&bias.value);
        }
        let weight = Matrix::rows(&weight.value, self.inputs).transposed();
        let input = Matrix::rows(input, self.inputs);
        matmul([context.batch, self.inputs, self.outputs], input, weight, true, output);
        Ok(())
    }

    fn backward(
        &mut self,
        context: Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let [weight, bias] = &mut self.parameters;
        for row in grad_output.chunks_exact(self.outputs) {
            bias.grad.iter_mut().zip(row).for_each(|(bias, g)| *bias += g);
        }
        let grad_output = Matrix::rows(grad_output, self.outputs);
        let input = Matrix::rows(input, self.inputs);
        let shape = [self.outputs, context.batch, self.inputs];
        matmul(shape, grad_output.transposed(), input, true, &mut weight.grad);
        if let Some(grad_input) = grad_input {
            let weight = Matrix::rows(&weight.value, self.inputs);
            matmul([context.batch, self.outputs, self.inputs], grad_output, weight, false, grad_input);
        }
        Ok(())
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }
}
