//! Naive eq. 8 and its gradients: an oracle for tests, generic over `f32` and `f64`.
//!
//! There is one loop per index, in the order of the formulas, with no regard for speed. Each value comes with the sum of its
//! absolute terms ([`Sum::magnitude`]), because the bound of the rounding error scales with it.

use crate::desc::{ConvDesc, volume};
use crate::geometry::chain;
use crate::layout::Strides;

/// A scalar the oracle can compute with: `f32` or `f64`.
pub trait Real: Copy + PartialOrd + core::ops::Add<Output = Self> + core::ops::Mul<Output = Self> {
    /// Zero.
    const ZERO: Self;
    /// The least finite number.
    const LOWEST: Self;
    /// `self · b + c` with a single rounding, the same on every target.
    fn fma(self, b: Self, c: Self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const LOWEST: Self = Self::MIN;
    fn fma(self, b: Self, c: Self) -> Self {
        libm::fmaf(self, b, c)
    }
    fn abs(self) -> Self {
        libm::fabsf(self)
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const LOWEST: Self = Self::MIN;
    fn fma(self, b: Self, c: Self) -> Self {
        libm::fma(self, b, c)
    }
    fn abs(self) -> Self {
        libm::fabs(self)
    }
}

/// A sum of products together with the sum of their absolute values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sum<T> {
    /// `Σ a·b`.
    pub value: T,
    /// `Σ |a·b|`. The error of an f32 evaluation in any order is at most a small multiple of `terms · ε` times this.
    pub magnitude: T,
}

impl<T: Real> Sum<T> {
    /// The empty sum.
    pub const ZERO: Self = Self { value: T::ZERO, magnitude: T::ZERO };

    fn add(&mut self, a: T, b: T) {
        self.value = a.fma(b, self.value);
        self.magnitude = a.abs().fma(b.abs(), self.magnitude);
    }
}

/// How far an f32 evaluation of a sum of `terms` products may lie from the exact value, in any order, with or without fused
/// multiply-adds.
///
/// The bound is `γ · magnitude` with `γ = 2 (terms + 8) · 2⁻²⁴`, plus the underflow of each term. The factor 2 stands for at most
/// two roundings per step: one of the product and one of the sum. The 8 covers bias, partial sums and the addition to what a
/// buffer holds.
pub fn error_bound(terms: usize, magnitude: f64) -> f64 {
    const UNIT_ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;
    const SMALLEST: f64 = f32::MIN_POSITIVE as f64 * f32::EPSILON as f64;
    2.0 * (terms + 8) as f64 * (UNIT_ROUNDOFF * magnitude + SMALLEST)
}

/// [`error_bound`] of a gradient that sums over `positions`, the output positions of all images.
///
/// `terms` is the number of products per position: 1 for the gradients of the weight and of the bias, the output channels of a
/// group for that of the thresholds. The kernels sum segments of about 8192 positions, and then the segments. So the error grows
/// with the length of a segment plus the number of segments, not with the number of positions.
pub fn gradient_error_bound(terms: usize, positions: usize, magnitude: f64) -> f64 {
    error_bound(terms.saturating_add(chain(positions)), magnitude)
}

/// Thresholds as the oracle takes them.
#[derive(Clone, Copy, Debug)]
pub enum Thetas<'a, T> {
    /// One per input channel and tap, in the order of [`Thresholds::PerTap`](crate::Thresholds::PerTap).
    PerTap(&'a [T]),
    /// The same everywhere. −∞ makes the layer linear: then the gradient always goes to the input.
    Uniform(T),
}

impl<T: Real> Thetas<'_, T> {
    fn at(&self, index: usize) -> T {
        match self {
            Self::PerTap(thetas) => thetas[index],
            Self::Uniform(theta) => *theta,
        }
    }

    /// The index of a threshold's gradient.
    fn gradient_index(&self, index: usize) -> usize {
        match self {
            Self::PerTap(_) => index,
            Self::Uniform(_) => 0,
        }
    }

    fn is_linear(&self) -> bool {
        matches!(self, Self::Uniform(theta) if *theta < T::LOWEST)
    }

    /// The activated input of a term. `None` where it is padding with θ ≤ 0, which contributes nothing even if it meets an
    /// infinity or a NaN.
    fn activated(&self, term: &Term, input: &[T]) -> Option<T> {
        let theta = self.at(term.threshold);
        match term.input {
            Some(i) => Some(activate(input[i], theta)),
            None if theta > T::ZERO => Some(theta),
            None => None,
        }
    }
}

/// AdaReLU of one value (eq. 4): `x` if `x > θ`, else `θ`; a NaN stays NaN.
pub fn activate<T: Real>(x: T, theta: T) -> T {
    if x <= theta { theta } else { x }
}

/// One (image, output channel, output position, input channel, tap) of the sum in eq. 8.
struct Term {
    output: usize,
    /// `None` where the tap reads padding.
    input: Option<usize>,
    threshold: usize,
    weight: usize,
    out_channel: usize,
    /// Whether this is the first term of its output element.
    first: bool,
}

fn offset(strides: Strides, channel: usize, [d, h, w]: [usize; 3]) -> usize {
    channel * strides.channel + d * strides.spatial[0] + h * strides.spatial[1] + w * strides.spatial[2]
}

fn positions(size: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..size[0]).flat_map(move |d| (0..size[1]).flat_map(move |h| (0..size[2]).map(move |w| [d, h, w])))
}

/// The input position that output position `o` reads through tap `k`, if it is not padding.
fn source(desc: &ConvDesc, o: [usize; 3], k: [usize; 3]) -> Option<[usize; 3]> {
    let mut i = [0; 3];
    for axis in 0..3 {
        let padded = o[axis] * desc.stride()[axis] + k[axis] * desc.dilation()[axis];
        i[axis] = padded.checked_sub(desc.padding_before()[axis]).filter(|&i| i < desc.input_size()[axis])?;
    }
    Some(i)
}

/// Visits every term of every output element: the nest of loops that eq. 8 is.
fn for_each_term(desc: &ConvDesc, mut visit: impl FnMut(Term)) {
    let (group_in, group_out) = (desc.group_in_channels(), desc.group_out_channels());
    let (input_tensor, output_tensor) = (desc.input_tensor(), desc.output_tensor());
    for n in 0..desc.batch() {
        for out_channel in 0..desc.out_channels() {
            let group = out_channel / group_out;
            for o in positions(desc.output_size()) {
                let output = n * output_tensor.image_stride + offset(output_tensor.strides, out_channel, o);
                let mut first = true;
                for c in 0..group_in {
                    let in_channel = group * group_in + c;
                    for k in positions(desc.kernel()) {
                        visit(Term {
                            output,
                            input: source(desc, o, k)
                                .map(|i| n * input_tensor.image_stride + offset(input_tensor.strides, in_channel, i)),
                            threshold: offset(desc.threshold_strides(), in_channel, k),
                            weight: out_channel * group_in * volume(desc.kernel())
                                + offset(desc.weight_strides(), c, k),
                            out_channel,
                            first,
                        });
                        first = false;
                    }
                }
            }
        }
    }
}

/// Forward pass (eq. 8 with bias). Shapes are those of [`ConvRelu::forward`](crate::ConvRelu::forward). The function overwrites
/// `output`, but not the gaps between its pixels or images. Padding with θ ≤ 0 contributes nothing, whatever the weight is.
///
/// # Panics
///
/// If a slice is shorter than the descriptor asks.
pub fn forward<T: Real>(
    desc: &ConvDesc,
    input: &[T],
    weight: &[T],
    thresholds: Thetas<'_, T>,
    bias: Option<&[T]>,
    output: &mut [Sum<T>],
) {
    for_each_term(desc, |term| {
        let y = &mut output[term.output];
        if term.first {
            let b = bias.map_or(T::ZERO, |bias| bias[term.out_channel]);
            *y = Sum { value: b, magnitude: b.abs() };
        }
        if let Some(activated) = thresholds.activated(&term, input) {
            y.add(weight[term.weight], activated);
        }
    });
}

/// What an [`Epilogue`](crate::Epilogue) makes of an output: `clamp(scale · y + shift + residual, low, high)`. A NaN stays one.
/// The magnitude is that of the terms before the clamp. The clamp never moves two values farther apart, so the [`error_bound`] is
/// that of a sum with two terms more. (The error of underflow grows with the scale. The bound covers it for scales up to 2.)
pub fn epilogue<T: Real>(y: Sum<T>, scale: T, shift: T, residual: T, [low, high]: [T; 2]) -> Sum<T> {
    let value = scale.fma(y.value, shift) + residual;
    let value = if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    };
    Sum { value, magnitude: scale.abs().fma(y.magnitude, shift.abs()) + residual.abs() }
}

/// Gradients of the input and of the thresholds (eq. 5 and 6). A tie `x = θ` goes to the threshold, and a NaN input passes its
/// gradient to neither. If one threshold of −∞ serves all, the whole gradient goes to the input, and the function does not read
/// the input. It overwrites both gradients, but not the gaps between pixels or images.
///
/// # Panics
///
/// If a slice is shorter than the descriptor asks.
pub fn backward_input<T: Real>(
    desc: &ConvDesc,
    input: &[T],
    weight: &[T],
    thresholds: Thetas<'_, T>,
    grad_output: &[T],
    grad_input: &mut [Sum<T>],
    grad_thresholds: &mut [Sum<T>],
) {
    zero_channels(desc, grad_input);
    grad_thresholds.fill(Sum::ZERO);
    for_each_term(desc, |term| {
        let (g, w) = (grad_output[term.output], weight[term.weight]);
        if thresholds.is_linear() {
            if let Some(i) = term.input {
                grad_input[i].add(g, w);
            }
            return;
        }
        let x = term.input.map_or(T::ZERO, |i| input[i]);
        let theta = thresholds.at(term.threshold);
        if x > theta {
            if let Some(i) = term.input {
                grad_input[i].add(g, w);
            }
        } else if x <= theta {
            grad_thresholds[thresholds.gradient_index(term.threshold)].add(g, w);
        }
    });
}

/// Zeroes the gradients of an input's channels, not what lies between.
fn zero_channels<T: Real>(desc: &ConvDesc, grad_input: &mut [Sum<T>]) {
    let tensor = desc.input_tensor();
    for n in 0..desc.batch() {
        for c in 0..desc.in_channels() {
            for i in positions(desc.input_size()) {
                grad_input[n * tensor.image_stride + offset(tensor.strides, c, i)] = Sum::ZERO;
            }
        }
    }
}

/// Gradients of the weight and of the bias. Both are overwritten. Padding with θ ≤ 0 contributes nothing, whatever the
/// gradient of the output is.
///
/// # Panics
///
/// If a slice is shorter than the descriptor asks.
pub fn backward_weight<T: Real>(
    desc: &ConvDesc,
    input: &[T],
    thresholds: Thetas<'_, T>,
    grad_output: &[T],
    grad_weight: &mut [Sum<T>],
    grad_bias: &mut [Sum<T>],
) {
    grad_weight[..desc.weight_len()].fill(Sum::ZERO);
    grad_bias[..desc.bias_len()].fill(Sum::ZERO);
    for_each_term(desc, |term| {
        let g = grad_output[term.output];
        if term.first {
            let b = &mut grad_bias[term.out_channel];
            *b = Sum { value: b.value + g, magnitude: b.magnitude + g.abs() };
        }
        if let Some(activated) = thresholds.activated(&term, input) {
            grad_weight[term.weight].add(g, activated);
        }
    });
}
