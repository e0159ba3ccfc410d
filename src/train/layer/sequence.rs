//! Layers one after the other.

use std::time::Instant;

use super::{Layer, LayerKind, Units};
use crate::error::Error;
use crate::train::context::{Buffer, Context, Part, grown};
use crate::train::parameter::Parameter;
use crate::train::shape::Shape;

/// Layers one after the other, with the activations between them.
pub struct Sequence {
    name: String,
    input: Shape,
    layers: Vec<Link>,
}

struct Link {
    layer: Box<dyn Layer>,
    /// Elements of the layer's output for one image.
    len: usize,
    /// The output, if another layer follows; it grows to the largest batch and is used again.
    output: Vec<f32>,
}

impl Sequence {
    /// No layers yet, for images of a shape.
    pub fn new(name: &str, input: Shape) -> Self {
        Self { name: name.to_owned(), input, layers: Vec::new() }
    }

    /// Adds a layer that takes [`output`](Layer::output) as its input.
    pub fn push(&mut self, layer: impl Layer + 'static) {
        let len = layer.output().len();
        self.layers.push(Link { layer: Box::new(layer), len, output: Vec::new() });
    }

    /// Shape of an input image.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// The layers.
    pub fn layers(&self) -> impl Iterator<Item = &dyn Layer> {
        self.layers.iter().map(|link| &*link.layer)
    }
}

/// Runs a pass of a layer and adds its time to the profile, unless its own layers do.
fn timed<T>(
    context: &mut Context,
    layer: &mut dyn Layer,
    part: fn(LayerKind) -> Part,
    pass: impl FnOnce(&mut dyn Layer, &mut Context) -> T,
) -> T {
    let start = Instant::now();
    let result = pass(layer, context);
    if layer.kind() != LayerKind::Composite {
        context.profile.add(part(layer.kind()), start);
    }
    result
}

impl Layer for Sequence {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Composite
    }

    fn output(&self) -> Shape {
        self.layers.last().map_or(self.input, |link| link.layer.output())
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let Some((last, links)) = self.layers.split_last_mut() else {
            output.copy_from_slice(input);
            return Ok(());
        };
        let mut input = input;
        for Link { layer, len, output } in links {
            let output = grown(output, context.batch * *len);
            timed(context, &mut **layer, Part::Forward, |layer, context| layer.forward(context, input, output))?;
            input = output;
        }
        timed(context, &mut *last.layer, Part::Forward, |layer, context| layer.forward(context, input, output))
    }

    fn backward(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        mut grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        if self.layers.is_empty() {
            if let Some(grad_input) = grad_input {
                grad_input.copy_from_slice(grad_output);
            }
            return Ok(());
        }
        // The gradient that reaches the layer's output, once it is no longer the caller's.
        let mut reached: Option<Buffer> = None;
        for index in (0..self.layers.len()).rev() {
            let (before, after) = self.layers.split_at_mut(index);
            let layer = &mut *after[0].layer;
            let batch = context.batch;
            let input = before.last().map_or(input, |link| &link.output[..batch * link.len]);
            let grad_output = reached.as_deref().unwrap_or(grad_output);
            if index == 0 {
                let grad_input = grad_input.take();
                timed(context, layer, Part::Backward, |layer, context| {
                    layer.backward(context, input, grad_output, grad_input)
                })?;
            } else {
                let mut grad = context.take(input.len());
                let into = Some(&mut grad[..]);
                timed(context, layer, Part::Backward, |layer, context| {
                    layer.backward(context, input, grad_output, into)
                })?;
                if let Some(done) = reached.replace(grad) {
                    context.give(done);
                }
            }
        }
        reached.into_iter().for_each(|buffer| context.give(buffer));
        Ok(())
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        self.layers.iter().for_each(|link| link.layer.visit(visit));
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        self.layers.iter_mut().for_each(|link| link.layer.visit_mut(visit));
    }

    fn units(&self) -> Units {
        self.layers().map(Layer::units).fold(Units::default(), |sum, units| sum + units)
    }

    fn reset_units(&mut self) {
        self.layers.iter_mut().for_each(|link| link.layer.reset_units());
    }
}
