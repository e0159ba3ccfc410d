//! Dense blocks (Huang et al. 2017): every layer reads all features that came before it.

use std::ops::Range;
use std::time::Instant;

use super::norm::{Debts, Moments};
use super::{BatchNorm, Layer, LayerKind, Operation, Sequence, Units, copy};
use crate::error::Error;
use crate::train::context::{Buffer, Context, Mode, ProfilePart, grown};
use crate::train::parameter::Parameter;
use crate::train::shape::{Channels, Shape};

/// About the elements of a stretch's input that pass through its layers together. So many stay in the caches of a core or two
/// until the next layer reads them. The number changes the bits of the result.
const TOGETHER: usize = 1 << 18;

/// Layers each of which normalises all features before it and puts new ones in front: `x ← [body(norm(x)), x]`.
///
/// All features lie in one tensor, and a layer reads its last channels. The last convolution of the layer writes the new features
/// into the same tensor, and reads their gradients there. So nothing is concatenated. The moments of a channel are the same for
/// every layer, and are computed once.
///
/// The memory is slower than the arithmetic. So only a few images at a time pass through a normalisation and the layers behind
/// it, while they are in the cache. The normalised values are not kept. The backward pass computes them again, which is faster
/// than to read them.
pub struct DenseBlock {
    name: String,
    input: Shape,
    layers: Vec<Vec<Stretch>>,
    /// All features of the last batch.
    features: Vec<f32>,
    /// Their moments.
    moments: Moments,
    /// The sums of the gradients of the features.
    debts: Debts,
}

/// A normalisation, which needs the moments of a whole batch, and the layers behind it, which work image by image.
struct Stretch {
    norm: BatchNorm,
    body: Sequence,
    /// The output of the body, if another stretch of the same layer follows.
    made: Vec<f32>,
}

impl Stretch {
    /// The images of a batch that pass through together.
    fn pieces(&self, batch: usize) -> Pieces {
        let each = (TOGETHER / self.norm.shape().len().max(1)).clamp(1, batch.max(1));
        Pieces { each, left: 0..batch }
    }
}

/// Ranges of images, all but the last as long as one another.
struct Pieces {
    each: usize,
    left: Range<usize>,
}

impl Pieces {
    /// Images of the longest.
    fn most(&self) -> usize {
        self.each
    }
}

impl Iterator for Pieces {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let piece = self.left.start..(self.left.start + self.each).min(self.left.end);
        self.left.start = piece.end;
        (!piece.is_empty()).then_some(piece)
    }
}

/// The tensor of all features.
#[derive(Clone, Copy)]
struct Wide(Shape);

impl Wide {
    fn all(self, batch: usize) -> Channels {
        Channels::all(self.0, batch)
    }

    /// As many channels as `shape` has, from `first` on.
    fn at(self, first: usize, shape: Shape, batch: usize) -> Channels {
        Channels::of(self.0.channels, first, shape, batch)
    }

    /// The last channels, as many as `shape` has.
    fn last(self, shape: Shape, batch: usize) -> Channels {
        self.at(self.before(shape), shape, batch)
    }

    /// How many channels lie before them.
    fn before(self, shape: Shape) -> usize {
        self.0.channels - shape.channels
    }
}

/// Some images of a tensor of a shape.
fn part<'a>(tensor: &'a [f32], shape: Shape, images: &Range<usize>) -> &'a [f32] {
    &tensor[images.start * shape.len()..images.end * shape.len()]
}

/// The same, to be changed.
fn part_mut<'a>(tensor: &'a mut [f32], shape: Shape, images: &Range<usize>) -> &'a mut [f32] {
    &mut tensor[images.start * shape.len()..images.end * shape.len()]
}

/// The input of a stretch that takes a shape: the output of the stretch before it, or else features.
fn source<'a>(
    before: &'a [Stretch],
    features: &'a [f32],
    wide: Wide,
    shape: Shape,
    images: &Range<usize>,
) -> (&'a [f32], Channels) {
    match before.last() {
        Some(before) => (part(&before.made, shape, images), Channels::all(shape, images.len())),
        None => (part(features, wide.0, images), wide.last(shape, images.len())),
    }
}

/// Channels that a layer puts in front.
fn made_by(layer: &[Stretch]) -> usize {
    layer.last().map_or(0, |stretch| stretch.body.output().channels)
}

impl DenseBlock {
    /// A block without layers, for images of a given shape.
    pub fn new(name: &str, input: Shape) -> Self {
        Self {
            name: name.to_owned(),
            input,
            layers: Vec::new(),
            features: Vec::new(),
            moments: Moments::new(input.channels),
            debts: Debts::new(input.channels),
        }
    }

    /// Adds a layer: normalisations, each with the layers behind it.
    ///
    /// # Panics
    ///
    /// - If there is no normalisation.
    /// - If the first normalisation is not for all features so far, or another one not for the output before it.
    /// - If the number of positions changes.
    /// - If a layer behind a normalisation does not work image by image. Convolutions, activations and pooling do.
    pub fn push(&mut self, stretches: impl IntoIterator<Item = (BatchNorm, Sequence)>) {
        let seen = self.output();
        let mut reached = seen;
        let mut layer = Vec::new();
        for (norm, body) in stretches {
            assert_eq!(
                norm.shape(),
                reached,
                "a dense layer normalises all features before it, or what it has made of them"
            );
            assert_eq!(body.input(), reached, "what follows a normalisation takes what it makes");
            for layer in body.layers() {
                let whole =
                    matches!(layer.kind(), LayerKind::Normalization | LayerKind::Dropout | LayerKind::Composite);
                assert!(!whole, "{}: a dense layer gives it some images at a time", layer.name());
            }
            reached = body.output();
            assert_eq!(reached.with_channels(seen.channels), seen, "a dense layer keeps positions");
            layer.push(Stretch { norm, body, made: Vec::new() });
        }
        assert!(!layer.is_empty(), "a dense layer begins with a normalisation");
        let channels = seen.channels + reached.channels;
        (self.moments, self.debts) = (Moments::new(channels), Debts::new(channels));
        self.layers.push(layer);
    }

    /// Gives the context its batch back after a pass. A pass that has failed leaves no state for the next one.
    fn end(&mut self, context: &mut Context, batch: usize, result: Result<(), Error>) -> Result<(), Error> {
        context.batch = batch;
        if result.is_err() {
            self.moments.reset();
            self.layers.iter_mut().flatten().for_each(|stretch| stretch.norm.reset());
        }
        result
    }

    /// [`forward`](Layer::forward), which leaves the context with the batch of a piece.
    fn forward_pieces(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let (batch, wide) = (context.batch, Wide(self.output()));
        let training = context.mode == Mode::Train;
        // The input of the next layer.
        let mut seen = self.input;
        let Self { layers, features, moments, .. } = self;
        let features = grown(features, output.len());
        let count = batch * seen.positions();
        timed(context, ProfilePart::Forward(LayerKind::Join), |context| {
            copy(context, input, Channels::all(seen, batch), features, wide.last(seen, batch));
        });
        if training {
            timed(context, ProfilePart::Forward(LayerKind::Normalization), |context| {
                moments.add(context, input, Channels::all(seen, batch), wide.before(seen));
                moments.finish(wide.before(seen)..wide.0.channels, count);
            });
        }
        for layer in layers {
            for index in 0..layer.len() {
                let (before, rest) = layer.split_at_mut(index);
                let Some((stretch, after)) = rest.split_first_mut() else { break };
                let pieces = stretch.pieces(batch);
                let Stretch { norm, body, made } = stretch;
                let (shape, out) = (norm.shape(), body.output());
                norm.prepare(context.mode, count, before.is_empty().then_some(&*moments));
                let made = grown(made, if after.is_empty() { 0 } else { batch * out.len() });
                for piece in pieces {
                    context.batch = piece.len();
                    let mut normalized = context.take(piece.len() * shape.len());
                    timed(context, ProfilePart::Forward(LayerKind::Normalization), |context| {
                        let (x, at) = source(before, features, wide, shape, &piece);
                        norm.apply(context, x, at, &mut normalized);
                    });
                    let (to, at, sums, first) = match after.first_mut() {
                        Some(next) => {
                            (part_mut(made, out, &piece), Channels::all(out, piece.len()), next.norm.moments_mut(), 0)
                        }
                        None => {
                            let first = wide.before(seen) - out.channels;
                            let at = wide.at(first, out, piece.len());
                            (part_mut(features, wide.0, &piece), at, &mut *moments, first)
                        }
                    };
                    body.forward_into(context, &normalized, to, at)?;
                    if training {
                        timed(context, ProfilePart::Forward(LayerKind::Normalization), |context| {
                            sums.add(context, to, at, first);
                        });
                    }
                    context.give(normalized);
                }
            }
            let new = made_by(layer);
            if training {
                moments.finish(wide.before(seen) - new..wide.before(seen), count);
            }
            seen = seen.with_channels(seen.channels + new);
        }
        context.batch = batch;
        timed(context, ProfilePart::Forward(LayerKind::Join), |context| {
            copy(context, &*features, wide.all(batch), output, wide.all(batch));
        });
        Ok(())
    }

    /// [`backward`](Layer::backward), which leaves the context with the batch of a piece.
    fn backward_pieces(
        &mut self,
        context: &mut Context,
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        const NORMALIZATION: ProfilePart = ProfilePart::Backward(LayerKind::Normalization);
        let (batch, wide) = (context.batch, Wide(self.output()));
        let Self { input, layers, features, moments, debts, .. } = self;
        let features = &features[..grad_output.len()];
        let count = batch * wide.0.positions();
        debts.reset(moments);
        let mut grads = context.take(grad_output.len());
        timed(context, ProfilePart::Backward(LayerKind::Join), |context| {
            copy(context, grad_output, wide.all(batch), &mut grads, wide.all(batch));
        });
        for layer in layers.iter_mut().rev() {
            let seen = layer[0].norm.shape();
            // The gradient of the input of the stretch behind.
            let mut reached: Option<Buffer> = None;
            for index in (0..layer.len()).rev() {
                let (before, rest) = layer.split_at_mut(index);
                let Some((stretch, after)) = rest.split_first_mut() else { break };
                let pieces = stretch.pieces(batch);
                let Stretch { norm, body, made } = stretch;
                let (shape, out) = (norm.shape(), body.output());
                let inside = !before.is_empty();
                let mut grad = context.take(if inside { batch * shape.len() } else { pieces.most() * shape.len() });
                let mut normalized = context.take(pieces.most() * shape.len());
                let mut grad_made = context.take(if after.is_empty() { 0 } else { pieces.most() * out.len() });
                for piece in pieces {
                    let images = piece.len();
                    context.batch = images;
                    let (x, from) = source(before, features, wide, shape, &piece);
                    let normalized = &mut normalized[..images * shape.len()];
                    let grad =
                        if inside { part_mut(&mut grad, shape, &piece) } else { &mut grad[..images * shape.len()] };
                    timed(context, NORMALIZATION, |context| norm.apply(context, x, from, normalized));
                    body.replay(context, normalized)?;
                    match (after.first(), &reached) {
                        (Some(next), Some(reached)) => {
                            let grad_made = &mut grad_made[..images * out.len()];
                            timed(context, NORMALIZATION, |context| {
                                let (x, g) = (part(made, out, &piece), part(reached, out, &piece));
                                next.norm.differentiate(context, x, g, grad_made);
                            });
                            body.backward(context, normalized, grad_made, Some(&mut *grad))?;
                        }
                        _ => {
                            // All layers behind have added to the gradient of what this one made.
                            let first = wide.before(seen) - out.channels;
                            let (g, at) = (part_mut(&mut grads, wide.0, &piece), wide.at(first, out, images));
                            timed(context, NORMALIZATION, |context| {
                                debts.settle(context, part(features, wide.0, &piece), at, first, g);
                            });
                            body.backward_from(context, normalized, g, at, Some(&mut *grad))?;
                        }
                    }
                    timed(context, NORMALIZATION, |context| {
                        let advance = (!inside).then(|| part_mut(&mut grads, wide.0, &piece));
                        norm.add_gradients(context, x, from, grad, advance);
                    });
                }
                norm.finish_gradients(count);
                [normalized, grad_made].into_iter().for_each(|buffer| context.give(buffer));
                reached.replace(grad).into_iter().for_each(|done| context.give(done));
            }
            layer[0].norm.owe(debts);
            reached.into_iter().for_each(|done| context.give(done));
        }
        context.batch = batch;
        if let Some(grad_input) = grad_input {
            let at = wide.last(*input, batch);
            timed(context, NORMALIZATION, |context| {
                debts.settle(context, features, at, wide.before(*input), &mut grads);
            });
            timed(context, ProfilePart::Backward(LayerKind::Join), |context| {
                copy(context, &grads, at, grad_input, Channels::all(*input, batch));
            });
        }
        context.give(grads);
        Ok(())
    }
}

/// Adds the time that something takes to the profile.
fn timed<T>(context: &mut Context, part: ProfilePart, work: impl FnOnce(&mut Context) -> T) -> T {
    let start = Instant::now();
    let result = work(context);
    context.profile.add(part, start);
    result
}

impl Layer for DenseBlock {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Composite
    }

    fn output(&self) -> Shape {
        let grown = self.layers.iter().map(|layer| made_by(layer)).sum::<usize>();
        self.input.with_channels(self.input.channels + grown)
    }

    fn operation(&self) -> Operation<'_> {
        fn stretches(layer: &[Stretch]) -> Vec<(&BatchNorm, &Sequence)> {
            layer.iter().map(|stretch| (&stretch.norm, &stretch.body)).collect()
        }
        Operation::Dense(self.layers.iter().map(|layer| stretches(layer)).collect())
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let batch = context.batch;
        let result = self.forward_pieces(context, input, output);
        self.end(context, batch, result)
    }

    fn backward(
        &mut self,
        context: &mut Context,
        _: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let batch = context.batch;
        let result = self.backward_pieces(context, grad_output, grad_input);
        self.end(context, batch, result)
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        for stretch in self.layers.iter().flatten() {
            stretch.norm.visit(visit);
            stretch.body.visit(visit);
        }
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        for stretch in self.layers.iter_mut().flatten() {
            stretch.norm.visit_mut(visit);
            stretch.body.visit_mut(visit);
        }
    }

    fn visit_units(&self, visit: &mut dyn FnMut(&str, Units)) {
        self.layers.iter().flatten().for_each(|stretch| stretch.body.visit_units(visit));
    }

    fn reset_units(&mut self) {
        self.layers.iter_mut().flatten().for_each(|stretch| stretch.body.reset_units());
    }
}
