//! A network: its layers, its input, and the passes through it.

use std::time::Instant;

use super::context::{Context, Mode, Profile, ProfilePart, grown};
use super::layer::{Layer, LayerUnits, Sequence, Units};
use super::parameter::{Kind, Parameter};
use super::shape::Shape;
use super::threads::Threads;
use crate::error::Error;

/// A sequence of layers with buffers for its input, its output and the output's gradient. The buffers grow to the largest batch
/// and are used again.
pub struct Network {
    layers: Sequence,
    context: Context,
    input: Vec<f32>,
    output: Vec<f32>,
    grad_output: Vec<f32>,
}

impl Network {
    /// A network of these layers.
    pub fn new(layers: Sequence) -> Self {
        let context = Context::new(0, 1, Mode::Evaluate);
        Self { layers, context, input: Vec::new(), output: Vec::new(), grad_output: Vec::new() }
    }

    /// Shape of an input image.
    pub fn input(&self) -> Shape {
        self.layers.input()
    }

    /// Shape of the output.
    pub fn output(&self) -> Shape {
        self.layers.output()
    }

    /// The layers.
    pub fn layers(&self) -> &Sequence {
        &self.layers
    }

    /// All tensors of the state, in a fixed order.
    pub fn state(&self) -> Vec<&Parameter> {
        let mut state = Vec::new();
        self.layers.visit(&mut |parameter| state.push(parameter));
        state
    }

    /// Visits all tensors of the state, which the visitor may change, in the order of [`state`](Self::state).
    pub fn visit_mut(&mut self, mut visit: impl FnMut(&mut Parameter)) {
        self.layers.visit_mut(&mut visit);
    }

    /// Number of trained values.
    pub fn parameter_count(&self) -> usize {
        self.state().iter().filter(|parameter| parameter.is_trained()).map(|parameter| parameter.value.len()).sum()
    }

    /// Whether it normalises over the batch. A batch of one example would then equal its own mean.
    pub fn normalizes(&self) -> bool {
        self.state().iter().any(|parameter| parameter.kind == Kind::Norm)
    }

    /// Whether all values of its state are finite.
    pub fn is_finite(&self) -> bool {
        self.state().iter().all(|parameter| parameter.value.iter().all(|value| value.is_finite()))
    }

    /// All thresholds θ.
    pub fn thresholds(&self) -> Vec<f32> {
        let state = self.state();
        let thresholds = state.iter().filter(|parameter| parameter.kind == Kind::Threshold);
        thresholds.flat_map(|parameter| parameter.value.iter().copied()).collect()
    }

    /// Units of all layers.
    pub fn units(&self) -> Units {
        self.layers.units()
    }

    /// Units of each layer that has any, in the order of the layers.
    pub fn units_by_layer(&self) -> Vec<LayerUnits> {
        let mut layers = Vec::new();
        self.layers.visit_units(&mut |name, Units { dead, total }| {
            layers.push(LayerUnits { layer: name.to_owned(), dead, total });
        });
        layers
    }

    /// Resets the record of units that were alive.
    pub fn reset_units(&mut self) {
        self.layers.reset_units();
    }

    /// The number of threads that the layers may use. It does not change results.
    pub fn set_threads(&mut self, threads: usize) {
        self.context.threads = Threads::new(threads);
    }

    /// Threads that the layers, and the optimiser, may use.
    pub fn threads(&self) -> usize {
        self.context.threads()
    }

    /// Seed of the run and number of the next pass. They determine which units dropout drops.
    pub fn set_seed_and_step(&mut self, seed: u64, step: u64) {
        (self.context.seed, self.context.step) = (seed, step);
    }

    /// The time that each part has taken.
    pub fn profile(&mut self) -> &mut Profile {
        &mut self.context.profile
    }

    /// Runs all layers on a batch of images. Returns the output of the last one.
    ///
    /// # Errors
    ///
    /// Those of the layers.
    ///
    /// # Panics
    ///
    /// If `images` does not hold a whole number of images.
    pub fn forward(&mut self, mode: Mode, images: &[f32]) -> Result<&[f32], Error> {
        let len = self.input().len();
        assert!(images.len().is_multiple_of(len), "{} elements are not images of {len}", images.len());
        let batch = images.len() / len;
        (self.context.batch, self.context.mode) = (batch, mode);
        let start = Instant::now();
        let input = grown(&mut self.input, images.len());
        input.copy_from_slice(images);
        self.context.profile.add(ProfilePart::Data, start);
        let output = grown(&mut self.output, batch * self.layers.output().len());
        let (layers, context) = (&mut self.layers, &mut self.context);
        context.threads.inside(|| layers.forward(context, input, output))?;
        Ok(output)
    }

    /// Adds the gradients of all parameters, for the last [`forward`](Self::forward). `loss` receives the output and fills a
    /// buffer with the output's gradient. Returns what `loss` returns.
    ///
    /// # Errors
    ///
    /// Those of the layers.
    pub fn backward<T>(&mut self, loss: impl FnOnce(&[f32], &mut [f32]) -> T) -> Result<T, Error> {
        let batch = self.context.batch;
        let output = &self.output[..batch * self.layers.output().len()];
        let grad_output = grown(&mut self.grad_output, output.len());
        let start = Instant::now();
        let result = loss(output, grad_output);
        self.context.profile.add(ProfilePart::Loss, start);
        let input = &self.input[..batch * self.layers.input().len()];
        // Nobody needs the gradient of the images.
        let (layers, context) = (&mut self.layers, &mut self.context);
        context.threads.inside(|| layers.backward(context, input, grad_output, None))?;
        Ok(result)
    }
}
