//! Dense blocks (Huang et al. 2017): every layer sees all features before it.

use std::time::Instant;

use super::norm::{Channels, Moments};
use super::{BatchNorm, Layer, LayerKind, Sequence, Units};
use crate::error::Error;
use crate::train::context::{Context, Mode, Part, grown};
use crate::train::parameter::Parameter;
use crate::train::shape::Shape;

/// Layers that each normalise all features before them and put new ones in front: `x ← [body(norm(x)), x]`.
///
/// All features lie in one tensor, whose last channels are those that a layer sees, so nothing is concatenated over and
/// over; a channel's moments, the same for every layer, are computed once.
pub struct DenseBlock {
    name: String,
    input: Shape,
    layers: Vec<DenseLayer>,
    /// All features of the last batch.
    features: Vec<f32>,
    /// Their moments.
    moments: Moments,
}

struct DenseLayer {
    norm: BatchNorm,
    body: Sequence,
    /// What the body saw.
    normalized: Vec<f32>,
}

impl DenseBlock {
    /// No layers yet, for images of a shape.
    pub fn new(name: &str, input: Shape) -> Self {
        Self {
            name: name.to_owned(),
            input,
            layers: Vec::new(),
            features: Vec::new(),
            moments: Moments::new(input.channels),
        }
    }

    /// Adds a layer.
    ///
    /// # Panics
    ///
    /// If the normalisation is not for all features so far, or the body changes their positions.
    pub fn push(&mut self, norm: BatchNorm, body: Sequence) {
        let seen = self.output();
        assert_eq!(norm.shape(), seen, "a dense layer normalises all features before it");
        assert_eq!(body.output().with_channels(seen.channels), seen, "a dense layer keeps positions");
        self.moments = Moments::new(seen.channels + body.output().channels);
        self.layers.push(DenseLayer { norm, body, normalized: Vec::new() });
    }
}

impl Layer for DenseBlock {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Composite
    }

    fn output(&self) -> Shape {
        let grown = self.layers.iter().map(|layer| layer.body.output().channels).sum::<usize>();
        self.input.with_channels(self.input.channels + grown)
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let (batch, total) = (context.batch, self.output().channels);
        let features = grown(&mut self.features, output.len());
        let mut last = self.input;
        let start = Instant::now();
        copy(last, batch, (input, Slot::all(last)), (features, Slot::last_of(total, last)));
        context.profile.add(Part::Forward(LayerKind::Join), start);
        let moments = &mut self.moments;
        let training = context.mode == Mode::Train;
        if training {
            let start = Instant::now();
            moments.compute(context, input, Channels::last_of(last.channels, last, batch), total - last.channels);
            context.profile.add(Part::Forward(LayerKind::Normalization), start);
        }
        for DenseLayer { norm, body, normalized } in &mut self.layers {
            let start = Instant::now();
            let at = Channels::last_of(total, last, batch);
            let normalized = grown(normalized, batch * last.len());
            norm.normalize(context, features, at, training.then_some(&*moments), normalized);
            context.profile.add(Part::Forward(LayerKind::Normalization), start);

            let new = body.output();
            let mut made = context.take(batch * new.len());
            body.forward(context, normalized, &mut made)?;
            let start = Instant::now();
            let slot = Slot { total, first: total - last.channels - new.channels };
            copy(new, batch, (&made, Slot::all(new)), (features, slot));
            context.profile.add(Part::Forward(LayerKind::Join), start);
            if training {
                let start = Instant::now();
                let at = Channels::last_of(new.channels, new, batch);
                moments.compute(context, &made, at, total - last.channels - new.channels);
                context.profile.add(Part::Forward(LayerKind::Normalization), start);
            }
            context.give(made);
            last = last.with_channels(last.channels + new.channels);
        }
        let start = Instant::now();
        output.copy_from_slice(features);
        context.profile.add(Part::Forward(LayerKind::Join), start);
        Ok(())
    }

    fn backward(
        &mut self,
        context: &mut Context,
        _: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let (batch, mut last) = (context.batch, self.output());
        let total = last.channels;
        let start = Instant::now();
        let mut grads = context.take(grad_output.len());
        grads.copy_from_slice(grad_output);
        context.profile.add(Part::Backward(LayerKind::Join), start);
        let features = &self.features[..grad_output.len()];
        for DenseLayer { norm, body, normalized } in self.layers.iter_mut().rev() {
            let new = body.output();
            let seen = norm.shape();
            let start = Instant::now();
            let mut reached = context.take(batch * new.len());
            copy(new, batch, (&grads, Slot::last_of(total, last)), (&mut reached, Slot::all(new)));
            context.profile.add(Part::Backward(LayerKind::Join), start);

            let mut grad_normalized = context.take(batch * seen.len());
            let normalized = &normalized[..batch * seen.len()];
            body.backward(context, normalized, &reached, Some(&mut grad_normalized[..]))?;
            let start = Instant::now();
            let at = Channels::last_of(total, seen, batch);
            norm.differentiate(context, features, at, &grad_normalized, Some(&mut grads[..]), true);
            context.profile.add(Part::Backward(LayerKind::Normalization), start);
            context.give(grad_normalized);
            context.give(reached);
            last = seen;
        }
        if let Some(grad_input) = grad_input {
            copy(last, batch, (&grads, Slot::last_of(total, last)), (grad_input, Slot::all(last)));
        }
        context.give(grads);
        Ok(())
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        for layer in &self.layers {
            layer.norm.visit(visit);
            layer.body.visit(visit);
        }
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        for layer in &mut self.layers {
            layer.norm.visit_mut(visit);
            layer.body.visit_mut(visit);
        }
    }

    fn units(&self) -> Units {
        self.layers.iter().map(|layer| layer.body.units()).fold(Units::default(), |sum, units| sum + units)
    }

    fn reset_units(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.body.reset_units());
    }
}

/// Channels of a tensor: all that it has, and the first of those meant.
#[derive(Clone, Copy)]
struct Slot {
    total: usize,
    first: usize,
}

impl Slot {
    fn all(shape: Shape) -> Self {
        Self { total: shape.channels, first: 0 }
    }

    fn last_of(total: usize, shape: Shape) -> Self {
        Self { total, first: total - shape.channels }
    }
}

/// Copies the channels of a shape from one tensor into another.
fn copy(shape: Shape, batch: usize, (from, source): (&[f32], Slot), (to, target): (&mut [f32], Slot)) {
    let runs = shape.runs(batch);
    let rows = from.chunks_exact(source.total * runs.inner).zip(to.chunks_exact_mut(target.total * runs.inner));
    for (from, to) in rows {
        let from = &from[source.first * runs.inner..][..runs.step()];
        to[target.first * runs.inner..][..runs.step()].copy_from_slice(from);
    }
}
