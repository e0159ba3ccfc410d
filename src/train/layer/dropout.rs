//! Dropout (Srivastava et al. 2014).

use rand::Rng;

use super::{Layer, LayerKind, Operation};
use crate::error::Error;
use crate::train::context::{Context, Mode};
use crate::train::random::{Purpose, stream};
use crate::train::shape::Shape;
use crate::train::threads::{for_each, share};
use crate::train::vectorized::vectorized;

/// Inverted dropout. In training, an element becomes 0 with probability `rate`, and is divided by `1 − rate` otherwise. In
/// evaluation the layer changes nothing.
///
/// The seed, the step, the layer's index and the place of an element in memory decide whether it is dropped. So the two layouts
/// drop different elements.
#[derive(Debug)]
pub struct Dropout {
    name: String,
    shape: Shape,
    rate: f32,
    index: u64,
    /// 1 for each element of the last training batch that was kept, else 0.
    kept: Vec<u8>,
}

impl Dropout {
    /// A layer for images of a given shape. `index` tells the dropout layers of a network apart.
    ///
    /// # Panics
    ///
    /// If `rate` is not in `[0, 1)`.
    pub fn new(name: &str, shape: Shape, rate: f32, index: u64) -> Self {
        assert!((0.0..1.0).contains(&rate), "a dropout rate of {rate} is not in [0, 1)");
        Self { name: name.to_owned(), shape, rate, index, kept: Vec::new() }
    }

    /// Multiplies the kept elements by the scale that keeps the mean.
    fn apply(&self, context: &Context, from: &[f32], to: &mut [f32]) {
        let scale = 1.0 / (1.0 - self.rate);
        let len = share(to.len(), 1, context.threads);
        let jobs = from.chunks(len).zip(self.kept.chunks(len)).zip(to.chunks_mut(len));
        for_each(context.threads, jobs, |((from, kept), to)| select(from, kept, scale, to));
    }
}

vectorized! {
    fn select<'a>(from: &'a [f32], kept: &'a [u8], scale: f32, to: &'a mut [f32]) {
        for ((from, kept), to) in from.iter().zip(kept).zip(to) {
            *to = if *kept == 0 { 0.0 } else { scale * from };
        }
    }
}

impl Layer for Dropout {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Dropout
    }

    fn output(&self) -> Shape {
        self.shape
    }

    fn operation(&self) -> Operation<'_> {
        Operation::Identity
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        if context.mode == Mode::Evaluate {
            output.copy_from_slice(input);
            return Ok(());
        }
        let (seed, step) = context.seed_and_step();
        let mut rng = stream(seed, Purpose::Dropout, [step, self.index]);
        // 16 bits decide about an element, so the rate is exact to 1 in 131,072.
        let dropped = (self.rate * 65536.0).round() as u32;
        self.kept.clear();
        self.kept.reserve(input.len() + 3);
        while self.kept.len() < input.len() {
            let bits = rng.next_u64();
            let keep = |at: u32| u8::from((bits >> (16 * at)) as u32 & 0xffff >= dropped);
            self.kept.extend([0, 1, 2, 3].map(keep));
        }
        self.kept.truncate(input.len());
        self.apply(context, input, output);
        Ok(())
    }

    fn backward(
        &mut self,
        context: &mut Context,
        _: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        if let Some(grad_input) = grad_input {
            self.apply(context, grad_output, grad_input);
        }
        Ok(())
    }
}
