//! Batch normalisation (Ioffe and Szegedy 2015).
//!
//! The memory limits its speed: an element takes longer to arrive than to compute. So it reads a tensor once for all moments, and
//! once to normalise it. It also works in pieces: a [dense block](super::DenseBlock) gives it a few images at a time, while they
//! are in the cache.

use super::{Layer, LayerKind, Operation};
use crate::error::Error;
use crate::layout::Layout;
use crate::train::context::{Context, Mode};
use crate::train::parameter::{Kind, Parameter};
use crate::train::shape::{Channels, Runs, Shape};
use crate::train::shares::Shares;
use crate::train::threads::for_each;
use crate::train::vectorized::{LANES, fold, vectorized};

/// Added to the variance, as in PyTorch.
const EPSILON: f64 = 1e-5;
/// Weight of the newest batch in the running statistics, as in PyTorch.
const MOMENTUM: f32 = 0.1;
/// Rows of a channels-last tensor that have a sum of their own. The number changes the bits of the result.
const ROWS: usize = 1024;
/// The number of terms of a partial sum. Those of moments are a value near the mean, Σ (x − value) and Σ (x − value)². Those of
/// gradients are 0, Σ g and Σ g · (x − mean).
const TERMS: usize = 3;

/// `y = weight · (x − mean) / √(variance + 10⁻⁵) + bias` for each channel. Training uses the moments of the batch, evaluation the
/// running moments. Parameters and buffers have PyTorch's names.
#[derive(Debug)]
pub struct BatchNorm {
    name: String,
    shape: Shape,
    /// weight, bias, running mean, running variance.
    state: [Parameter; 4],
    /// The moments of the last training batch.
    moments: Moments,
    /// The sums of the gradients that have come back.
    sums: Sums,
    /// The factors of the passes for each channel.
    factors: Factors,
}

/// Mean and (biased) variance of each channel over a batch. The batch may come in pieces.
#[derive(Debug)]
pub(super) struct Moments {
    mean: Vec<f64>,
    variance: Vec<f64>,
    sums: Sums,
}

/// Per channel: `y = a · (x − mean) + bias`, and backward `dx = a · g + b · (x − mean) + c`.
#[derive(Debug, Default)]
struct Factors {
    mean: Vec<f32>,
    a: Vec<f32>,
    bias: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

/// Terms that are missing in the gradient of some channels: `Σ b · (x − mean) + Σ c`, summed over the
/// [normalisations](BatchNorm::finish_gradients) of these channels. One pass over memory [adds](Self::settle) them for all.
#[derive(Debug)]
pub(super) struct Debts {
    mean: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

/// The gradients of the output, and what the pass over them needs.
struct Gradients<'a> {
    /// Dense.
    g: &'a [f32],
    /// The mean of each channel, and the factor `a`.
    factors: [&'a [f32]; 2],
    /// A tensor that lies as the input, to which `a · g` is added. Empty if there is none.
    scaled: &'a mut [f32],
}

/// Two sums per channel: of moments Σ x and Σ x², of gradients Σ g and Σ g · (x − mean).
#[derive(Debug)]
struct Sums(Vec<[f64; 2]>);

impl Sums {
    /// Sums of so many channels.
    fn new(channels: usize) -> Self {
        Self(vec![[0.0; 2]; channels])
    }

    /// Adds those of a tensor `x`, or of one and its gradients, to the channels from `first` on. Every channel is summed in one
    /// order, whatever the number of threads.
    fn add(&mut self, context: &mut Context, at: Channels, x: &[f32], gradients: Option<Gradients<'_>>, first: usize) {
        let Runs { outer, channels, inner } = at.runs;
        let threads = context.threads;
        let totals = &mut self.0[first..first + channels];
        let sums_gradients = gradients.is_some();
        let mut add = |channel: usize, count: usize, [near, sum, squares]: [f32; TERMS]| {
            let ([near, sum, squares], count) = ([near, sum, squares].map(f64::from), count as f64);
            let total = &mut totals[channel];
            total[0] += sum + near * count;
            total[1] += if sums_gradients { squares } else { squares + near * (2.0 * sum + near * count) };
        };
        match at.layout {
            Layout::Nchw => {
                // [image][channel][term]
                let mut parts = context.take(outer * channels * TERMS);
                let shares = Shares::new(at.runs, threads);
                let terms = Channels { runs: Runs { inner: TERMS, ..at.runs }, ..at }.dense();
                let jobs = shares.of_mut(&mut parts, terms);
                match gradients {
                    None => for_each(threads, jobs, |(share, parts)| {
                        let (x, at) = share.of(x, at);
                        plane_moments(x, at, parts);
                    }),
                    Some(Gradients { g, factors, scaled }) => {
                        let mut scaled = shares.of_mut(scaled, at);
                        let jobs = jobs.map(|job| (job, scaled.next()));
                        for_each(threads, jobs, |((share, parts), scaled)| {
                            let ((x, own), (g, g_at)) = (share.of(x, at), share.of(g, at.dense()));
                            let dx = scaled.map_or(&mut [][..], |(_, dx)| dx);
                            plane_products(x, g, [own, g_at], share.of_channels(factors), parts, dx);
                        });
                    }
                }
                for (plane, part) in parts.as_chunks::<TERMS>().0.iter().enumerate() {
                    add(plane % channels, inner, *part);
                }
                context.give(parts);
            }
            Layout::Nhwc => {
                // [block][term][channel]
                let mut parts = context.take(outer.div_ceil(ROWS) * TERMS * channels);
                let block = |index: usize| index * ROWS..((index + 1) * ROWS).min(outer);
                let jobs = parts.chunks_mut(TERMS * channels).enumerate();
                match gradients {
                    None => for_each(threads, jobs, |(index, part)| {
                        let rows = block(index);
                        row_moments(&x[rows.start * at.pitch..], at, rows.len(), part);
                    }),
                    Some(Gradients { g, factors, scaled }) => {
                        let mut scaled = scaled.chunks_mut(ROWS * at.pitch);
                        let jobs = jobs.map(|job| (job, scaled.next().unwrap_or_default()));
                        for_each(threads, jobs, |((index, part), dx)| {
                            let rows = block(index);
                            let g = &g[rows.start * channels..rows.end * channels];
                            row_products(&x[rows.start * at.pitch..], g, at, factors, part, dx);
                        });
                    }
                }
                for (index, part) in parts.chunks_exact(TERMS * channels).enumerate() {
                    for channel in 0..channels {
                        add(channel, block(index).len(), [0, 1, 2].map(|term| part[term * channels + channel]));
                    }
                }
                context.give(parts);
            }
        }
    }

    /// Forgets all.
    fn reset(&mut self) {
        self.0.fill([0.0; 2]);
    }

    /// The sums of a channel. They become zero.
    fn take(&mut self, channel: usize) -> [f64; 2] {
        std::mem::take(&mut self.0[channel])
    }
}

impl Moments {
    /// Room for so many channels.
    pub(super) fn new(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], variance: vec![0.0; channels], sums: Sums::new(channels) }
    }

    /// Drops the pieces of a batch whose rest will not come.
    pub(super) fn reset(&mut self) {
        self.sums.reset();
    }

    /// Sees some images of a batch: the channels of `x` that `at` names are those from `first` on.
    pub(super) fn add(&mut self, context: &mut Context, x: &[f32], at: Channels, first: usize) {
        self.sums.add(context, at, x, None, first);
    }

    /// Computes those of channels that have seen all of a batch, `count` values each.
    pub(super) fn finish(&mut self, channels: std::ops::Range<usize>, count: usize) {
        let count = count.max(1) as f64;
        for c in channels {
            let [sum, squares] = self.sums.take(c);
            let mean = sum / count;
            self.mean[c] = mean;
            // A NaN stays a NaN.
            let variance = squares / count - mean * mean;
            self.variance[c] = if variance < 0.0 { 0.0 } else { variance };
        }
    }
}

impl Debts {
    /// None, for so many channels.
    pub(super) fn new(channels: usize) -> Self {
        let [mean, b, c] = [(); 3].map(|()| vec![0.0; channels]);
        Self { mean, b, c }
    }

    /// Forgets all, for channels with these moments.
    pub(super) fn reset(&mut self, moments: &Moments) {
        self.mean.iter_mut().zip(&moments.mean).for_each(|(to, mean)| *to = *mean as f32);
        [&mut self.b, &mut self.c].into_iter().for_each(|debts| debts.fill(0.0));
    }

    /// Adds the missing terms to the channels `at` of `dx`. They lie as those of `x`, and their first number is `first`.
    pub(super) fn settle(&self, context: &Context, x: &[f32], at: Channels, first: usize, dx: &mut [f32]) {
        let channels = first..first + at.runs.channels;
        let factors = [&self.mean, &self.b, &self.c].map(|values| &values[channels.clone()]);
        let jobs = Shares::new(at.runs, context.threads).of_mut(dx, at);
        for_each(context.threads, jobs, |(share, dx)| {
            let (x, at) = share.of(x, at);
            settle(x, at, share.of_channels(factors), dx);
        });
    }
}

/// The planes of a tensor, a plane being a channel of an image.
#[inline(always)]
fn planes(x: &[f32], at: Channels) -> impl Iterator<Item = &[f32]> {
    let Runs { outer, inner, .. } = at.runs;
    x.chunks(at.pitch).take(outer).flat_map(move |x| x[at.offset..][..at.runs.step()].chunks_exact(inner))
}

/// The same, to be changed. None of an empty tensor.
#[inline(always)]
fn planes_mut(x: &mut [f32], at: Channels) -> impl Iterator<Item = &mut [f32]> {
    let Runs { outer, inner, .. } = at.runs;
    x.chunks_mut(at.pitch).take(outer).flat_map(move |x| x[at.offset..][..at.runs.step()].chunks_exact_mut(inner))
}

vectorized! {
    /// The terms of the moments of planes. The value near the mean is the mean of the first elements, so a few values that are far
    /// from all others do not spoil the sums.
    fn plane_moments<'a>(x: &'a [f32], at: Channels, parts: &'a mut [f32]) {
        for (part, x) in parts.as_chunks_mut::<TERMS>().0.iter_mut().zip(planes(x, at)) {
            let (whole, rest) = x.as_chunks::<LANES>();
            let near = match whole.first() {
                Some(lanes) => fold(*lanes) / LANES as f32,
                None => rest.iter().sum::<f32>() / rest.len() as f32,
            };
            let [mut sums, mut squares] = [[0.0f32; LANES]; 2];
            for x in whole {
                for i in 0..LANES {
                    let d = x[i] - near;
                    sums[i] += d;
                    squares[i] += d * d;
                }
            }
            for (i, x) in rest.iter().enumerate() {
                let d = x - near;
                sums[i] += d;
                squares[i] += d * d;
            }
            *part = [near, fold(sums), fold(squares)];
        }
    }

    /// The terms of the sums of gradients, of planes. Then `dx += a · g`, while `g` is in the first cache, unless `dx` is empty. It
    /// lies as `x`.
    fn plane_products<'a>(
        x: &'a [f32],
        g: &'a [f32],
        at: [Channels; 2],
        factors: [&'a [f32]; 2],
        parts: &'a mut [f32],
        dx: &'a mut [f32],
    ) {
        let ([mean, a], inner) = (factors, at[0].runs.inner);
        let mut planes_of_dx = planes_mut(dx, at[0]);
        let channels = (0..mean.len()).cycle();
        let read = planes(x, at[0]).zip(planes(g, at[1])).zip(channels);
        for (part, ((x, g), channel)) in parts.as_chunks_mut::<TERMS>().0.iter_mut().zip(read) {
            let (x, g, mean) = (&x[..inner], &g[..inner], mean[channel]);
            let [mut sums, mut products] = [[0.0f32; LANES]; 2];
            let ((whole_x, rest_x), (whole_g, rest_g)) = (x.as_chunks::<LANES>(), g.as_chunks::<LANES>());
            for (x, g) in whole_x.iter().zip(whole_g) {
                for i in 0..LANES {
                    sums[i] += g[i];
                    products[i] += g[i] * (x[i] - mean);
                }
            }
            for (i, (x, g)) in rest_x.iter().zip(rest_g).enumerate() {
                sums[i] += g;
                products[i] += g * (x - mean);
            }
            *part = [0.0, fold(sums), fold(products)];
            if let Some(dx) = planes_of_dx.next() {
                let a = a[channel];
                dx.iter_mut().zip(g).for_each(|(dx, g)| *dx += a * g);
            }
        }
    }

    /// As [`plane_moments`], for every channel of some rows that hold all channels.
    fn row_moments<'a>(x: &'a [f32], at: Channels, rows: usize, part: &'a mut [f32]) {
        let channels = at.runs.channels;
        part.fill(0.0);
        let (near, sums) = part.split_at_mut(channels);
        let (sums, squares) = sums.split_at_mut(channels);
        let few = rows.min(LANES);
        for row in x.chunks(at.pitch).take(few) {
            near.iter_mut().zip(&row[at.offset..]).for_each(|(near, x)| *near += x);
        }
        near.iter_mut().for_each(|near| *near /= few as f32);
        for row in x.chunks(at.pitch).take(rows) {
            let row = &row[at.offset..][..channels];
            for (((x, near), sum), square) in row.iter().zip(&*near).zip(&mut *sums).zip(&mut *squares) {
                let d = x - near;
                *sum += d;
                *square += d * d;
            }
        }
    }

    /// As [`plane_products`], for every channel of some rows that hold all channels. `g` is dense.
    fn row_products<'a>(
        x: &'a [f32],
        g: &'a [f32],
        at: Channels,
        factors: [&'a [f32]; 2],
        part: &'a mut [f32],
        dx: &'a mut [f32],
    ) {
        let ([mean, a], channels) = (factors, at.runs.channels);
        part.fill(0.0);
        let (sums, products) = part[channels..].split_at_mut(channels);
        let mut rows_of_dx = dx.chunks_mut(at.pitch);
        for (row, g) in x.chunks(at.pitch).zip(g.chunks_exact(channels)) {
            let row = &row[at.offset..][..channels];
            for ((((x, g), mean), sum), product) in row.iter().zip(g).zip(mean).zip(&mut *sums).zip(&mut *products) {
                *sum += g;
                *product += g * (x - mean);
            }
            if let Some(dx) = rows_of_dx.next() {
                let dx = &mut dx[at.offset..][..channels];
                dx.iter_mut().zip(g).zip(a).for_each(|((dx, g), a)| *dx += a * g);
            }
        }
    }

    /// `y = a · (x − mean) + bias`, over outer steps.
    fn scale<'a>(x: &'a [f32], at: [Channels; 2], factors: [&'a [f32]; 3], y: &'a mut [f32]) {
        let [mean, a, bias] = factors;
        for (x, y) in x.chunks(at[0].pitch).zip(y.chunks_mut(at[1].pitch)) {
            let x = &x[at[0].offset..];
            map([x, x], y, at[0].runs, [mean, a, bias, a], |x, _, _, [mean, a, bias, _]| a * (x - mean) + bias);
        }
    }

    /// `dx += b · (x − mean) + c`, over outer steps. `dx` lies as `x`.
    fn settle<'a>(x: &'a [f32], at: Channels, factors: [&'a [f32]; 3], dx: &'a mut [f32]) {
        let [mean, b, c] = factors;
        for (x, dx) in x.chunks(at.pitch).zip(dx.chunks_mut(at.pitch)) {
            let (x, dx) = (&x[at.offset..], &mut dx[at.offset..]);
            map([x, x], dx, at.runs, [mean, b, c, c], |x, _, dx, [mean, b, c, _]| dx + (b * (x - mean) + c));
        }
    }

    /// `dx = a · g + b · (x − mean) + c`, over outer steps. All lie alike.
    fn combine<'a>(x: &'a [f32], g: &'a [f32], at: Channels, factors: [&'a [f32]; 4], dx: &'a mut [f32]) {
        for ((x, g), dx) in x.chunks(at.pitch).zip(g.chunks(at.pitch)).zip(dx.chunks_mut(at.pitch)) {
            map([x, g], dx, at.runs, factors, |x, g, _, [mean, a, b, c]| a * g + (b * (x - mean) + c));
        }
    }
}

/// `y = f(x, g, y, factors of the channel)` over one outer step.
#[inline(always)]
fn map(
    [x, g]: [&[f32]; 2],
    y: &mut [f32],
    runs: Runs,
    [p, q, r, s]: [&[f32]; 4],
    f: impl Fn(f32, f32, f32, [f32; 4]) -> f32 + Copy,
) {
    let Runs { channels, inner, .. } = runs;
    let len = runs.step();
    let (x, g, y) = (&x[..len], &g[..len], &mut y[..len]);
    let [p, q, r, s] = [&p[..channels], &q[..channels], &r[..channels], &s[..channels]];
    if inner == 1 {
        for i in 0..channels {
            y[i] = f(x[i], g[i], y[i], [p[i], q[i], r[i], s[i]]);
        }
        return;
    }
    let planes = x.chunks_exact(inner).zip(g.chunks_exact(inner)).zip(y.chunks_exact_mut(inner));
    for (channel, ((x, g), y)) in planes.enumerate() {
        let factors = [p[channel], q[channel], r[channel], s[channel]];
        x.iter().zip(g).zip(y).for_each(|((x, g), y)| *y = f(*x, *g, *y, factors));
    }
}

impl BatchNorm {
    /// A layer with weights of one and biases of zero.
    pub fn new(name: &str, shape: Shape) -> Self {
        let tensor = |tensor: &str, kind, value: f32| {
            Parameter::new(format!("{name}.{tensor}"), vec![shape.channels], kind, vec![value; shape.channels])
        };
        let state = [
            tensor("weight", Kind::Norm, 1.0),
            tensor("bias", Kind::Bias, 0.0),
            tensor("running_mean", Kind::Buffer, 0.0),
            tensor("running_var", Kind::Buffer, 1.0),
        ];
        let [mean, a, bias, b, c] = [(); 5].map(|()| vec![0.0; shape.channels]);
        Self {
            name: name.to_owned(),
            shape,
            state,
            moments: Moments::new(shape.channels),
            sums: Sums::new(shape.channels),
            factors: Factors { mean, a, bias, b, c },
        }
    }

    /// Shape of its input and output.
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// The moments of a batch, for who hands it over in pieces.
    pub(super) fn moments_mut(&mut self) -> &mut Moments {
        &mut self.moments
    }

    /// Drops the pieces of a batch whose rest will not come.
    pub(super) fn reset(&mut self) {
        self.moments.reset();
        self.sums.reset();
    }

    /// Prepares to normalise a batch of `count` values per channel. In training, its moments are those of all values that
    /// [`Moments::add`] has got, or the last ones of `moments`. In evaluation, they are the running moments.
    pub(super) fn prepare(&mut self, mode: Mode, count: usize, moments: Option<&Moments>) {
        let channels = self.shape.channels;
        let [weight, bias, running_mean, running_variance] = &mut self.state;
        if mode == Mode::Train {
            match moments {
                Some(Moments { mean, variance, .. }) => {
                    let first = mean.len() - channels;
                    self.moments.mean.copy_from_slice(&mean[first..]);
                    self.moments.variance.copy_from_slice(&variance[first..]);
                }
                None => self.moments.finish(0..channels, count),
            }
        }
        if mode == Mode::Train && count > 0 {
            // The running variance is the unbiased estimate, as in PyTorch.
            let unbiased = count as f64 / (count.max(2) - 1) as f64;
            for c in 0..channels {
                let Moments { mean, variance, .. } = &self.moments;
                let running = [&mut running_mean.value[c], &mut running_variance.value[c]];
                for (running, newest) in running.into_iter().zip([mean[c], variance[c] * unbiased]) {
                    *running += MOMENTUM * (newest as f32 - *running);
                }
            }
        }
        for c in 0..channels {
            let (mean, variance) = match mode {
                Mode::Train => (self.moments.mean[c], self.moments.variance[c]),
                Mode::Evaluate => (running_mean.value[c].into(), running_variance.value[c].into()),
            };
            let a = f64::from(weight.value[c]) * inverse_deviation(variance);
            self.factors.a[c] = a as f32;
            self.factors.mean[c] = mean as f32;
            // The rounding error of the mean as an f32 matters if the deviation is small.
            self.factors.bias[c] = (f64::from(bias.value[c]) - rest(mean) * a) as f32;
        }
    }

    /// Normalises some images of the batch: the channels of `x` that `at` names, into a dense `y`.
    pub(super) fn apply(&self, context: &Context, x: &[f32], at: Channels, y: &mut [f32]) {
        let Factors { mean, a, bias, .. } = &self.factors;
        let jobs = Shares::new(at.runs, context.threads).of_mut(y, at.dense());
        for_each(context.threads, jobs, |(share, y)| {
            let (x, own) = share.of(x, at);
            scale(x, [own, share.at(at.dense())], share.of_channels([mean, a, bias]), y);
        });
    }

    /// Adds the gradients `g` of some images of the batch to the sums. They are dense, and are those of the output of
    /// [`apply`](Self::apply). Adds the part of the gradient of the input that does not need the whole batch to the channels `at` of
    /// `advance`, if there is one. The rest is a [debt](Self::owe).
    pub(super) fn add_gradients(
        &mut self,
        context: &mut Context,
        x: &[f32],
        at: Channels,
        g: &[f32],
        advance: Option<&mut [f32]>,
    ) {
        let Factors { mean, a, .. } = &self.factors;
        self.sums.add(
            context,
            at,
            x,
            Some(Gradients { g, factors: [mean, a], scaled: advance.unwrap_or_default() }),
            0,
        );
    }

    /// Adds the gradients of the parameters, after [`add_gradients`](Self::add_gradients) has got the whole batch of `count`
    /// values per channel.
    pub(super) fn finish_gradients(&mut self, count: usize) {
        let count = count.max(1) as f64;
        let [weight, bias, ..] = &mut self.state;
        for c in 0..self.shape.channels {
            let [sum, products] = self.sums.take(c);
            let rest = rest(self.moments.mean[c]);
            let products = products - rest * sum;
            let inverse = inverse_deviation(self.moments.variance[c]);
            bias.grad[c] += sum as f32;
            weight.grad[c] += (products * inverse) as f32;
            let a = f64::from(weight.value[c]) * inverse;
            let b = -a * inverse * inverse * products / count;
            self.factors.b[c] = b as f32;
            self.factors.c[c] = (-a * sum / count - b * rest) as f32;
        }
    }

    /// The gradient `dx` of some images of the batch, from their values and the gradients of the output, after
    /// [`finish_gradients`](Self::finish_gradients). All are dense.
    pub(super) fn differentiate(&self, context: &Context, x: &[f32], g: &[f32], dx: &mut [f32]) {
        let Factors { mean, a, b, c, .. } = &self.factors;
        let at = Channels::all(self.shape, context.batch);
        let jobs = Shares::new(at.runs, context.threads).of_mut(dx, at);
        for_each(context.threads, jobs, |(share, dx)| {
            let ((x, own), (g, _)) = (share.of(x, at), share.of(g, at));
            combine(x, g, own, share.of_channels([mean, a, b, c]), dx);
        });
    }

    /// Adds the rest to the debts of its channels, which are the last ones of `debts`.
    pub(super) fn owe(&self, debts: &mut Debts) {
        let first = debts.b.len() - self.shape.channels;
        debts.b[first..].iter_mut().zip(&self.factors.b).for_each(|(sum, b)| *sum += b);
        debts.c[first..].iter_mut().zip(&self.factors.c).for_each(|(sum, c)| *sum += c);
    }
}

fn inverse_deviation(variance: f64) -> f64 {
    1.0 / libm::sqrt(variance + EPSILON)
}

/// The difference between a mean and its value as an `f32`.
fn rest(mean: f64) -> f64 {
    mean - f64::from(mean as f32)
}

impl Layer for BatchNorm {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Normalization
    }

    fn output(&self) -> Shape {
        self.shape
    }

    fn operation(&self) -> Operation<'_> {
        let [weight, bias, mean, variance] = &self.state;
        Operation::Normalization { weight, bias, mean, variance, epsilon: EPSILON }
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let at = Channels::all(self.shape, context.batch);
        if context.mode == Mode::Train {
            self.moments.add(context, input, at, 0);
        }
        self.prepare(context.mode, at.count(), None);
        self.apply(context, input, at, output);
        Ok(())
    }

    fn backward(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let at = Channels::all(self.shape, context.batch);
        self.add_gradients(context, input, at, grad_output, None);
        self.finish_gradients(at.count());
        if let Some(grad_input) = grad_input {
            self.differentiate(context, input, grad_output, grad_input);
        }
        Ok(())
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        self.state.iter().for_each(visit);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        self.state.iter_mut().for_each(visit);
    }
}
