//! Depthwise convolutions: every channel is convolved with itself alone, so there is nothing to broadcast a loaded value
//! to.
//!
//! Lanes are the channels (channels last) or consecutive positions (planes). Per vector and tap, forward needs a load, a
//! maximum and a multiply-add, and the weight and threshold of the tap, which a tile of positions shares: 2 + 2/R
//! instructions per multiply-add. Loads are the limit: one per multiply-add, two per cycle, half of the peak. The backward
//! pass of the input multiplies, then compares, masks and adds twice: eight instructions.

use core::ops::Range;

use pulp::WithSimd;

use super::pack::MOST_LANES;
use super::planar::with_const;
use super::vector::Vector;
use super::view::TileMut;

/// The offset of a tap that reads padding.
pub(crate) const ABSENT: u32 = u32::MAX;

/// Positions and lanes that a kernel walks: `count` positions, `width` lanes at each, all within one channel if
/// `splat`.
#[derive(Clone, Copy)]
pub(crate) struct Walk<'a> {
    /// Per tap: where position 0 reads the source.
    pub(crate) offsets: &'a [u32],
    pub(crate) source_step: usize,
    pub(crate) count: usize,
    /// Whole vectors.
    pub(crate) width: usize,
    /// Weights and thresholds are one per tap, else one per tap and lane.
    pub(crate) splat: bool,
}

impl Walk<'_> {
    /// Asserts that the source holds all that is read.
    fn check(&self, lanes: usize, source: usize) {
        assert!(self.width.is_multiple_of(lanes) && self.count >= 1 && (!self.splat || self.width == lanes));
        let last = self.offsets.iter().filter(|&&offset| offset != ABSENT).max();
        if let Some(&last) = last {
            let end = (self.count - 1).saturating_mul(self.source_step).saturating_add(self.width);
            assert!(end.saturating_add(last as usize) <= source);
        }
    }

    /// Elements of the weights, of the thresholds.
    fn coefficients(&self) -> usize {
        self.offsets.len() * if self.splat { 1 } else { self.width }
    }
}

/// `output[p][l] = start[l] + Σ_k weight[k][l] · f(source[offset[k] + p · step + l]; θ[k][l])`
pub(crate) struct DepthwiseForward<'a> {
    pub(crate) walk: Walk<'a>,
    pub(crate) source: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) thresholds: &'a [f32],
    /// One per lane, or one.
    pub(crate) start: &'a [f32],
    pub(crate) output: TileMut<'a>,
}

/// With `G[k][p][l] = weight[k][l] · source[offset[k] + p · step + l]`: `grad_input[p][l]` is the sum of `G` over the taps
/// whose threshold `input[p][l]` exceeds (added to, if `add`); `sums[k][l]` adds `G` over the positions that do not exceed it. NaN
/// inputs do neither.
pub(crate) struct DepthwiseBackwardInput<'a> {
    pub(crate) walk: Walk<'a>,
    pub(crate) source: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) thresholds: &'a [f32],
    pub(crate) input: &'a [f32],
    /// Rows as far apart as positions of the input.
    pub(crate) grad_input: TileMut<'a>,
    pub(crate) add: bool,
    pub(crate) sums: &'a mut [f32],
}

/// `sums[k][l] += Σ_p grad_output[p · grad_output_step + l] · f(source[offset[k] + p · step + l]; θ[k][l])`, for the taps that are
/// not [`ABSENT`].
pub(crate) struct DepthwiseBackwardWeight<'a> {
    pub(crate) walk: Walk<'a>,
    pub(crate) source: &'a [f32],
    pub(crate) thresholds: &'a [f32],
    pub(crate) grad_output: &'a [f32],
    pub(crate) grad_output_step: usize,
    /// Rows like the walk, and their distances in source and output gradient.
    pub(crate) rows: usize,
    pub(crate) source_row: usize,
    pub(crate) grad_output_row: usize,
    /// Lanes in use at the last position of each row: products of the others are no part of the sum.
    pub(crate) tail: usize,
    pub(crate) sums: &'a mut [f32],
}

/// Most positions of a tile, forward.
const fn most_forward<S: Vector>() -> usize {
    if S::REGISTERS >= 32 { 12 } else { 8 }
}

/// Most positions of a tile, backward.
const MOST_BACKWARD: usize = 4;

/// Most taps of a tile, backward of the weight: a sum and a threshold for each.
const fn most_taps<S: Vector>() -> usize {
    if S::REGISTERS >= 32 { 9 } else { 5 }
}

/// Positions whose sums are added to memory at once, backward of the weight with several vectors of lanes.
const STRETCH: usize = 16;

/// Entry of [`DepthwiseForward`] for one instruction set.
///
/// # Safety
///
/// The instruction set of `S` is available.
pub(super) unsafe fn forward<S: Vector>(call: DepthwiseForward<'_>) {
    // SAFETY: the caller's.
    let simd = unsafe { S::token() };
    let DepthwiseForward { walk, source, weight, thresholds, start, output } = &call;
    walk.check(S::LANES, source.len());
    assert!(walk.coefficients() <= weight.len() && walk.coefficients() <= thresholds.len());
    assert!(start.len() >= if walk.splat { 1 } else { walk.width });
    assert!(output.count == 1 && walk.width <= output.lanes && walk.count <= output.rows);
    simd.vectorize(Forward { simd, call });
}

struct Forward<'a, S> {
    simd: S,
    call: DepthwiseForward<'a>,
}

impl<S: Vector> WithSimd for Forward<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<T: pulp::Simd>(self, _: T) {
        let Self { simd, call } = self;
        let mut first = 0;
        while first < call.walk.count {
            let rows = most_forward::<S>().min(call.walk.count - first);
            for lane in (0..call.walk.width).step_by(S::LANES) {
                with_const!(rows, R in [1 2 3 4 5 6 7 8 9 10 11 12] => if R <= most_forward::<S>() {
                    // SAFETY: `forward` has checked every length.
                    unsafe { forward_tile::<S, R>(simd, &call, lane, first) }
                });
            }
            first += rows;
        }
    }
}

/// A weight or threshold of a tap, in all lanes.
///
/// # Safety
///
/// `at` lies within the coefficients, whole vectors of them unless `splat`.
#[inline(always)]
unsafe fn coefficient<S: Vector>(simd: S, at: *const f32, splat: bool) -> S::f32s {
    // SAFETY: the caller's.
    unsafe { if splat { simd.splat_f32s(*at) } else { simd.load(at) } }
}

/// # Safety
///
/// The checks of [`forward`]; `R` positions follow `first`, a vector of lanes `lane`.
#[inline(always)]
unsafe fn forward_tile<S: Vector, const R: usize>(simd: S, call: &DepthwiseForward<'_>, lane: usize, first: usize) {
    let Walk { offsets, source_step, width, splat, .. } = call.walk;
    let (pitch, own) = if splat { (1, 0) } else { (width, lane) };
    // SAFETY: the caller's, for every pointer below.
    unsafe {
        let mut sums = [coefficient(simd, call.start.as_ptr().add(own), splat); R];
        for (k, &offset) in offsets.iter().enumerate() {
            let w = coefficient(simd, call.weight.as_ptr().add(k * pitch + own), splat);
            let theta = coefficient(simd, call.thresholds.as_ptr().add(k * pitch + own), splat);
            if offset == ABSENT {
                let padded = simd.activate(simd.splat_f32s(0.0), theta);
                for sum in &mut sums {
                    *sum = simd.mul_add_e_f32s(w, padded, *sum);
                }
                continue;
            }
            let x = call.source.as_ptr().add(offset as usize + first * source_step + lane);
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = simd.mul_add_e_f32s(w, simd.activate(simd.load(x.add(r * source_step)), theta), *sum);
            }
        }
        let step = call.output.row_step;
        let to = call.output.vectors[0].add(first * step + lane);
        for (r, sum) in sums.into_iter().enumerate() {
            simd.store(to.add(r * step), sum);
        }
    }
}

/// Entry of [`DepthwiseBackwardInput`] for one instruction set.
///
/// # Safety
///
/// The instruction set of `S` is available.
pub(super) unsafe fn backward_input<S: Vector>(call: DepthwiseBackwardInput<'_>) {
    // SAFETY: the caller's.
    let simd = unsafe { S::token() };
    let DepthwiseBackwardInput { walk, source, weight, thresholds, input, grad_input, sums, .. } = &call;
    walk.check(S::LANES, source.len());
    assert!(walk.coefficients() <= weight.len() && walk.coefficients() <= thresholds.len());
    assert!(grad_input.count == 1 && walk.width <= grad_input.lanes && walk.count <= grad_input.rows);
    assert!((walk.count - 1).saturating_mul(grad_input.row_step).saturating_add(walk.width) <= input.len());
    assert!(walk.offsets.len() * walk.width <= sums.len());
    simd.vectorize(BackwardInput { simd, call });
}

struct BackwardInput<'a, S> {
    simd: S,
    call: DepthwiseBackwardInput<'a>,
}

impl<S: Vector> WithSimd for BackwardInput<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<T: pulp::Simd>(self, _: T) {
        let Self { simd, mut call } = self;
        let mut first = 0;
        while first < call.walk.count {
            let rows = MOST_BACKWARD.min(call.walk.count - first);
            for lane in (0..call.walk.width).step_by(S::LANES) {
                with_const!(rows, R in [1 2 3 4] => {
                    // SAFETY: `backward_input` has checked every length.
                    unsafe { backward_input_tile::<S, R>(simd, &mut call, lane, first) }
                });
            }
            first += rows;
        }
    }
}

/// # Safety
///
/// The checks of [`backward_input`]; `R` positions follow `first`, a vector of lanes `lane`.
#[inline(always)]
unsafe fn backward_input_tile<S: Vector, const R: usize>(
    simd: S,
    call: &mut DepthwiseBackwardInput<'_>,
    lane: usize,
    first: usize,
) {
    let Walk { offsets, source_step, width, splat, .. } = call.walk;
    let (pitch, own) = if splat { (1, 0) } else { (width, lane) };
    let zero = simd.splat_f32s(0.0);
    let step = call.grad_input.row_step;
    // SAFETY: the caller's, for every pointer below.
    unsafe {
        let mut x = [zero; R];
        for (r, x) in x.iter_mut().enumerate() {
            *x = simd.load(call.input.as_ptr().add((first + r) * step + lane));
        }
        let mut passed = [zero; R];
        for (k, &offset) in offsets.iter().enumerate() {
            if offset == ABSENT {
                continue;
            }
            let w = coefficient(simd, call.weight.as_ptr().add(k * pitch + own), splat);
            let theta = coefficient(simd, call.thresholds.as_ptr().add(k * pitch + own), splat);
            let g = call.source.as_ptr().add(offset as usize + first * source_step + lane);
            let mut held = zero;
            for r in 0..R {
                // Multiplied before it is masked: zero times an infinite weight would be NaN.
                let g = simd.mul_f32s(w, simd.load(g.add(r * source_step)));
                passed[r] = simd.add_f32s(passed[r], simd.keep(simd.greater_than_f32s(x[r], theta), g));
                held = simd.add_f32s(held, simd.keep(simd.less_than_or_equal_f32s(x[r], theta), g));
            }
            let to = call.sums.as_mut_ptr().add(k * width + lane);
            simd.store(to, simd.add_f32s(simd.load(to), held));
        }
        let to = call.grad_input.vectors[0].add(first * step + lane);
        for (r, passed) in passed.into_iter().enumerate() {
            let before = if call.add { simd.load(to.add(r * step)) } else { zero };
            simd.store(to.add(r * step), simd.add_f32s(before, passed));
        }
    }
}

/// Entry of [`DepthwiseBackwardWeight`] for one instruction set.
///
/// # Safety
///
/// The instruction set of `S` is available.
pub(super) unsafe fn backward_weight<S: Vector>(call: DepthwiseBackwardWeight<'_>) {
    // SAFETY: the caller's.
    let simd = unsafe { S::token() };
    let DepthwiseBackwardWeight { walk, thresholds, sums, .. } = &call;
    assert!(call.rows >= 1 && (1..=S::LANES).contains(&call.tail));
    let last_row = (call.rows - 1).saturating_mul(call.source_row);
    walk.check(S::LANES, call.source.len().saturating_sub(last_row));
    assert!(walk.coefficients() <= thresholds.len() && walk.offsets.len() * walk.width <= sums.len());
    let last_row = (call.rows - 1).saturating_mul(call.grad_output_row);
    let last = (walk.count - 1).saturating_mul(call.grad_output_step).saturating_add(walk.width);
    assert!(last_row.saturating_add(last) <= call.grad_output.len());
    simd.vectorize(BackwardWeight { simd, call });
}

struct BackwardWeight<'a, S> {
    simd: S,
    call: DepthwiseBackwardWeight<'a>,
}

impl<S: Vector> WithSimd for BackwardWeight<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<T: pulp::Simd>(self, _: T) {
        let Self { simd, mut call } = self;
        // With several vectors of lanes, a stretch of positions that stays in the first-level cache.
        let stretch = if call.walk.splat { call.walk.count } else { STRETCH };
        for first in (0..call.walk.count).step_by(stretch) {
            let positions = first..call.walk.count.min(first + stretch);
            for lane in (0..call.walk.width).step_by(S::LANES) {
                let mut next = 0;
                while next < call.walk.offsets.len() {
                    // The next taps that are not absent.
                    let mut taps = [0; 9];
                    let mut count = 0;
                    while next < call.walk.offsets.len() && count < most_taps::<S>() {
                        if call.walk.offsets[next] != ABSENT {
                            taps[count] = next;
                            count += 1;
                        }
                        next += 1;
                    }
                    if count == 0 {
                        break;
                    }
                    with_const!(count, N in [1 2 3 4 5 6 7 8 9] => if N <= most_taps::<S>() {
                        let mut own = [0; N];
                        own.copy_from_slice(&taps[..N]);
                        // SAFETY: `backward_weight` has checked every length.
                        unsafe { backward_weight_tile::<S, N>(simd, &mut call, lane, positions.clone(), own) }
                    });
                }
            }
        }
    }
}

/// # Safety
///
/// The checks of [`backward_weight`]; the taps are not absent, positions lie in the walk, and a vector of lanes
/// follows `lane`.
#[inline(always)]
unsafe fn backward_weight_tile<S: Vector, const T: usize>(
    simd: S,
    call: &mut DepthwiseBackwardWeight<'_>,
    lane: usize,
    positions: Range<usize>,
    taps: [usize; T],
) {
    let Walk { offsets, source_step, width, splat, .. } = call.walk;
    let (pitch, own) = if splat { (1, 0) } else { (width, lane) };
    let zero = simd.splat_f32s(0.0);
    // SAFETY: the caller's, for every pointer below.
    unsafe {
        let mut thetas = [zero; T];
        let mut x = [call.source.as_ptr(); T];
        for t in 0..T {
            thetas[t] = coefficient(simd, call.thresholds.as_ptr().add(taps[t] * pitch + own), splat);
            x[t] = x[t].add(offsets[taps[t]] as usize + lane);
        }
        let mut sums = [zero; T];
        let mut lane_numbers = [0.0; MOST_LANES];
        for (l, number) in lane_numbers.iter_mut().enumerate() {
            *number = l as f32;
        }
        let in_use = simd.greater_than_f32s(simd.splat_f32s(call.tail as f32), simd.load(lane_numbers.as_ptr()));
        // The position whose lanes are not all in use.
        let partial = if call.tail < S::LANES { call.walk.count - 1 } else { call.walk.count };
        for row in 0..call.rows {
            let g = call.grad_output.as_ptr().add(row * call.grad_output_row + lane);
            let at = row * call.source_row;
            for p in positions.start..positions.end.min(partial) {
                let g = simd.load(g.add(p * call.grad_output_step));
                for t in 0..T {
                    let x = simd.activate(simd.load(x[t].add(at + p * source_step)), thetas[t]);
                    sums[t] = simd.mul_add_e_f32s(g, x, sums[t]);
                }
            }
            if positions.end > partial {
                let g = simd.keep(in_use, simd.load(g.add(partial * call.grad_output_step)));
                for t in 0..T {
                    let x = simd.activate(simd.load(x[t].add(at + partial * source_step)), thetas[t]);
                    sums[t] = simd.mul_add_e_f32s(g, simd.keep(in_use, x), sums[t]);
                }
            }
        }
        for (tap, sum) in taps.into_iter().zip(sums) {
            let to = call.sums.as_mut_ptr().add(tap * width + lane);
            simd.store(to, simd.add_f32s(simd.load(to), sum));
        }
    }
}
