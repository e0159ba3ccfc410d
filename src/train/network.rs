//! A sequence of layers and the buffers between them.

use super::data::Shape;
use super::layer::{Context, Layer, Units};
use super::parameter::{Kind, Parameter};
use crate::error::Error;

/// Layers one after the other. Buffers grow to the largest batch and are used again.
pub struct Network {
    input: Shape,
    layers: Vec<Box<dyn Layer>>,
    /// Input of each layer, then the output of the last.
    activations: Vec<Vec<f32>>,
    /// Gradients of a layer's output and input, in turn.
    grads: [Vec<f32>; 2],
}

impl Network {
    /// A network for images of a shape.
    pub fn new(input: Shape) -> Self {
        Self { input, layers: Vec::new(), activations: vec![Vec::new()], grads: [Vec::new(), Vec::new()] }
    }

    /// Adds a layer that takes [`output`](Self::output) as its input.
    pub fn push(&mut self, layer: impl Layer + 'static) {
        self.layers.push(Box::new(layer));
        self.activations.push(Vec::new());
    }

    /// Shape of an input image.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// Shape of the last layer's output.
    pub fn output(&self) -> Shape {
        self.layers.last().map_or(self.input, |layer| layer.output())
    }

    /// The layers.
    pub fn layers(&self) -> impl Iterator<Item = &dyn Layer> {
        self.layers.iter().map(|layer| &**layer)
    }

    /// Trained tensors of all layers.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.layers.iter().flat_map(|layer| layer.parameters())
    }

    /// Trained tensors of all layers, to be updated.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        self.layers.iter_mut().flat_map(|layer| layer.parameters_mut())
    }

    /// Number of trained values.
    pub fn parameter_count(&self) -> usize {
        self.parameters().map(|parameter| parameter.value.len()).sum()
    }

    /// All thresholds θ.
    pub fn thresholds(&self) -> impl Iterator<Item = f32> {
        let thresholds = self.parameters().filter(|parameter| parameter.kind == Kind::Threshold);
        thresholds.flat_map(|parameter| parameter.value.iter().copied())
    }

    /// Units of all layers.
    pub fn units(&self) -> Units {
        self.layers
            .iter()
            .map(|layer| layer.units())
            .fold(Units::default(), |sum, units| Units { dead: sum.dead + units.dead, total: sum.total + units.total })
    }

    /// Forgets which units were alive.
    pub fn reset_units(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.reset_units());
    }

    /// The buffer to fill with the input of the next forward pass.
    pub fn input_mut(&mut self, batch: usize) -> &mut [f32] {
        let len = batch * self.input.len();
        self.activations[0].resize(len, 0.0);
        &mut self.activations[0]
    }

    /// Runs all layers on what [`input_mut`](Self::input_mut) holds; the output of the last one.
    ///
    /// # Errors
    ///
    /// Those of the layers.
    pub fn forward(&mut self, context: Context) -> Result<&[f32], Error> {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let (inputs, outputs) = self.activations.split_at_mut(index + 1);
            outputs[0].resize(context.batch * layer.output().len(), 0.0);
            layer.forward(context, &inputs[index], &mut outputs[0])?;
        }
        Ok(&self.activations[self.layers.len()])
    }

    /// Adds the gradients of all parameters, given by `loss` from the output and a buffer for the output's gradient;
    /// what `loss` returns.
    ///
    /// # Errors
    ///
    /// Those of the layers.
    pub fn backward<T>(&mut self, context: Context, loss: impl FnOnce(&[f32], &mut [f32]) -> T) -> Result<T, Error> {
        let output = &self.activations[self.layers.len()];
        let [grad_output, grad_input] = &mut self.grads;
        grad_output.resize(output.len(), 0.0);
        let result = loss(output, grad_output);
        for (index, layer) in self.layers.iter_mut().enumerate().rev() {
            let input = &self.activations[index];
            // No one asks for the gradient of the images.
            let wanted = index > 0;
            if wanted {
                grad_input.resize(input.len(), 0.0);
            }
            layer.backward(context, input, grad_output, wanted.then_some(&mut grad_input[..]))?;
            std::mem::swap(grad_output, grad_input);
        }
        Ok(result)
    }
}
