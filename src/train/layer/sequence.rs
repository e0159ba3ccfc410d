//! Layers that run one after another.

use std::time::Instant;

use super::{Layer, LayerKind, Operation, Units, copy};
use crate::error::Error;
use crate::train::context::{Buffer, Context, ProfilePart, grown};
use crate::train::parameter::Parameter;
use crate::train::shape::{Channels, Shape};

/// Layers that run one after another, with the tensors between them.
pub struct Sequence {
    name: String,
    input: Shape,
    layers: Vec<Link>,
}

struct Link {
    layer: Box<dyn Layer>,
    /// Elements of the layer's output for one image.
    len: usize,
    /// The output, if another layer follows. It grows to the largest batch and is used again.
    output: Vec<f32>,
}

impl Sequence {
    /// A sequence without layers, for images of a given shape.
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

    /// Computes the outputs of all layers but the last again. A backward pass reads them.
    pub(super) fn replay(&mut self, context: &mut Context, input: &[f32]) -> Result<(), Error> {
        let Some((_, links)) = self.layers.split_last_mut() else { return Ok(()) };
        advance(links, context, input).map(|_| ())
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
    part: fn(LayerKind) -> ProfilePart,
    pass: impl FnOnce(&mut dyn Layer, &mut Context) -> T,
) -> T {
    let start = Instant::now();
    let result = pass(layer, context);
    if layer.kind() != LayerKind::Composite {
        context.profile.add(part(layer.kind()), start);
    }
    result
}

/// Runs layers forward, each into its own buffer. Returns the output of the last one, or the input if there is no layer.
fn advance<'a>(links: &'a mut [Link], context: &mut Context, mut input: &'a [f32]) -> Result<&'a [f32], Error> {
    for Link { layer, len, output } in links {
        let output = grown(output, context.batch * *len);
        timed(context, &mut **layer, ProfilePart::Forward, |layer, context| layer.forward(context, input, output))?;
        input = output;
    }
    Ok(input)
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

    fn operation(&self) -> Operation<'_> {
        Operation::Sequence(self)
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let at = Channels::all(self.output(), context.batch);
        self.forward_into(context, input, output, at)
    }

    fn forward_into(
        &mut self,
        context: &mut Context,
        input: &[f32],
        output: &mut [f32],
        at: Channels,
    ) -> Result<(), Error> {
        let Some((last, links)) = self.layers.split_last_mut() else {
            copy(context, input, Channels::all(self.input, context.batch), output, at);
            return Ok(());
        };
        let input = advance(links, context, input)?;
        timed(context, &mut *last.layer, ProfilePart::Forward, |layer, context| {
            layer.forward_into(context, input, output, at)
        })
    }

    fn backward(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let at = Channels::all(self.output(), context.batch);
        self.backward_from(context, input, grad_output, at, grad_input)
    }

    fn backward_from(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        at: Channels,
        mut grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        if self.layers.is_empty() {
            if let Some(grad_input) = grad_input {
                copy(context, grad_output, at, grad_input, Channels::all(self.input, context.batch));
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
            let mut grad = (index > 0).then(|| context.take(input.len()));
            let into = if index > 0 { grad.as_deref_mut() } else { grad_input.take() };
            timed(context, layer, ProfilePart::Backward, |layer, context| match &reached {
                Some(reached) => layer.backward(context, input, reached, into),
                None => layer.backward_from(context, input, grad_output, at, into),
            })?;
            std::mem::replace(&mut reached, grad).into_iter().for_each(|done| context.give(done));
        }
        Ok(())
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        self.layers.iter().for_each(|link| link.layer.visit(visit));
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        self.layers.iter_mut().for_each(|link| link.layer.visit_mut(visit));
    }

    fn visit_units(&self, visit: &mut dyn FnMut(&str, Units)) {
        self.layers().for_each(|layer| layer.visit_units(visit));
    }

    fn reset_units(&mut self) {
        self.layers.iter_mut().for_each(|link| link.layer.reset_units());
    }
}
