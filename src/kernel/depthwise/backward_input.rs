//! The backward pass of the input: a tile's inputs and their gradients in registers, sums of the thresholds' gradients in the
//! first-level cache.

use pulp::MemMask;

use super::{
    EDGE, INSIDE, MOST_TAPS, Own, PARTIAL, Place, SegmentWords, ThetaTable, Thetas, TileSegment, Walk, load, store,
};
use crate::kernel::Kernel;
use crate::kernel::tile::{outlined, with_const};
use crate::kernel::vector::{INFINITE, Vector};
use crate::kernel::view::PixelsMut;

/// With `G[k][p][c] = w[k][c] · source[p + k][c]`: `grad_input[p][c]` is the sum of `G` over the taps whose threshold
/// `input[p][c]` exceeds (added to, if `add`), and `sums` are over the positions that do not exceed it. NaN inputs do neither.
///
/// - With a threshold per tap, `sums[k][c]` is of the source alone: the weight multiplies all of it. Where some weights are not
///   `finite`, it is of `G`, for zero times such a weight is NaN.
/// - With one threshold for all, `sums[0][c]` is of `G` over all taps.
/// - Without thresholds, all of `G` goes to the inputs, whatever they are, and there are no sums.
pub(crate) struct DepthwiseBackwardInput<'a> {
    pub(crate) walk: Walk<'a>,
    /// As many as the walk has.
    pub(crate) room: &'a mut [SegmentWords],
    pub(crate) source: &'a [f32],
    /// `[vector][tap][lane]`
    pub(crate) weight: &'a [f32],
    pub(crate) finite: bool,
    pub(crate) thetas: Thetas<'a>,
    /// None where there are no thresholds.
    pub(crate) input: Option<Own<'a>>,
    /// None where only sums are wanted.
    pub(crate) grad_input: Option<PixelsMut<'a>>,
    pub(crate) add: bool,
    /// `[vector][tap][lane]`, added to.
    pub(crate) sums: &'a mut [f32],
}

/// Kinds of thresholds and sums: one per tap of the source, and of weighted gradients; one for all; none.
const PER_TAP: usize = 0;
const WEIGHTED: usize = 1;
const UNIFORM: usize = 2;
const LINEAR: usize = 3;

/// Most positions of a tile. With a threshold per tap there are inputs, their gradients, and a weight, a threshold and a sum of
/// each tap; else the gradients and the weights.
const fn most_rows<S: Vector>(kind: usize) -> usize {
    match (S::REGISTERS, kind) {
        // Rare.
        (_, WEIGHTED) => 1,
        _ if S::FEW_TILES && S::LANES > 1 => 2,
        (32.., _) => 8,
        (_, PER_TAP) => 4,
        _ => 7,
    }
}

impl Kernel for DepthwiseBackwardInput<'_> {
    fn check<S: Vector>(&self) {
        let Self { walk, room, source, weight, thetas, input, grad_input, sums, .. } = self;
        let sums = if *thetas == Thetas::Linear { usize::MAX } else { sums.len() };
        walk.check::<S>(source.len(), &[weight.len(), thetas.len(), sums], room);
        assert!(input.is_some() || *thetas == Thetas::Linear);
        if let Some(input) = input {
            walk.check_own(input);
        }
        if let Some(pixels) = grad_input {
            walk.check_pixels(pixels);
        }
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(mut self, simd: S) {
        // SAFETY: checked.
        unsafe {
            match self.thetas {
                Thetas::PerTap(_) if self.finite => walk::<S, PER_TAP>(simd, &mut self),
                Thetas::PerTap(_) => walk::<S, WEIGHTED>(simd, &mut self),
                Thetas::Uniform(_) => walk::<S, UNIFORM>(simd, &mut self),
                Thetas::Linear => walk::<S, LINEAR>(simd, &mut self),
            }
        }
    }
}

/// A tile's inputs and their gradients, and the distances of its positions in them.
#[derive(Clone, Copy)]
struct Inputs {
    input: *const f32,
    input_step: usize,
    /// Null where it is not wanted.
    grad_input: *mut f32,
    grad_input_step: usize,
}

/// # Safety
///
/// The call is [checked](Kernel#checked).
#[inline(never)]
unsafe fn walk<S: Vector, const THETAS: usize>(simd: S, call: &mut DepthwiseBackwardInput<'_>) {
    let (vectors, partial) = call.walk.vectors::<S>();
    let whole = vectors * S::LANES;
    // What is not read begins anywhere, with steps that are not used.
    let Own { data, steps } = call.input.unwrap_or(Own { data: &INFINITE, steps: [0; 2] });
    let (grad_input, [_, _, grad_row, grad_step]) = match &call.grad_input {
        Some(pixels) => (pixels.first, pixels.positions.steps[0]),
        None => (core::ptr::null_mut(), [0; 4]),
    };
    let (walk, splat) = (call.walk, call.thetas.splat());
    let thetas = call.thetas.table(&splat);
    let room = core::mem::take(&mut call.room);
    walk.for_each_tile::<S>(most_rows::<S>(THETAS), room, |tile, segments| {
        let source = call.source.as_ptr().wrapping_add(tile.row * walk.rows.source_step);
        let place = Place { segments, source, lanes: [0, whole], partial };
        let rest = Place { lanes: [whole, whole + 1], ..place };
        // Used where there is a next one, which lies in the tensor then.
        let own = Inputs {
            input: data.as_ptr().wrapping_add(tile.row * steps[0] + tile.position * steps[1]),
            input_step: steps[1],
            grad_input: grad_input.wrapping_add(tile.row * grad_row + tile.position * grad_step),
            grad_input_step: grad_step,
        };
        with_const!(tile.len, R in [1 2 3 4 5 6 7 8] if R <= most_rows::<S>(THETAS) => {
            // SAFETY: checked; the tile lies in the walk, and as many vectors follow as there are channels for.
            unsafe {
                if whole > 0 && tile.kind == INSIDE {
                    outlined!(simd => positions::<S, R, INSIDE, THETAS>(simd, call, thetas, place, own));
                } else if whole > 0 {
                    outlined!(simd => positions::<S, R, EDGE, THETAS>(simd, call, thetas, place, own));
                }
                if partial > 0 {
                    outlined!(simd => positions::<S, R, PARTIAL, THETAS>(simd, call, thetas, rest, own));
                }
            }
        });
    });
}

/// A tile of `R` positions.
///
/// # Safety
///
/// The call is [checked](Kernel#checked). The place is that of `R` positions of a row, whose inputs and gradients those given are;
/// the lanes are channels of the call. Of [`INSIDE`] tiles, all taps read inside.
#[inline(always)]
unsafe fn positions<S: Vector, const R: usize, const KIND: usize, const THETAS: usize>(
    simd: S,
    call: &mut DepthwiseBackwardInput<'_>,
    thetas: ThetaTable,
    place: Place<'_>,
    own: Inputs,
) {
    let Walk { tap_step, taps, columns, .. } = call.walk;
    let (zero, mask) = (simd.splat_f32s(0.0), simd.mask_between_m32s(0, place.partial as u32));
    for lane in (place.lanes[0]..place.lanes[1]).step_by(S::LANES) {
        // SAFETY: checked: the inputs and their gradients are the call's, and there are weights, thresholds and sums for all taps
        // and lanes.
        unsafe {
            let weight = call.weight.as_ptr().add(lane * taps);
            // Where there are none, they are not used.
            let sums = call.sums.as_mut_ptr().wrapping_add(lane * taps);
            let mut x = [zero; R];
            if THETAS != LINEAR {
                let mut from = own.input.wrapping_add(lane);
                for x in &mut x {
                    *x = load::<S, KIND>(simd, mask, from);
                    from = from.wrapping_add(own.input_step);
                }
            }
            let mut gradients = [zero; R];
            for &words in place.segments {
                let segment = TileSegment::of(words);
                let taps = Taps {
                    source: place.source.wrapping_add(segment.source).wrapping_add(lane),
                    source_step: columns.source_step,
                    inside: segment.inside,
                    weight: weight.add(segment.table),
                    thetas: thetas.at(lane * taps + segment.table),
                    sums: sums.wrapping_add(segment.table),
                    step: tap_step * S::LANES as isize,
                };
                with_const!(segment.taps, T in [1 2 3] => {
                    add::<S, R, T, KIND, THETAS>(simd, &x, &mut gradients, taps, mask);
                });
            }
            if THETAS == UNIFORM {
                let theta = simd.load(thetas.at(0));
                let mut held = simd.load(sums);
                for r in 0..R {
                    let holds = simd.less_than_or_equal_f32s(x[r], theta);
                    held = simd.add_f32s(held, simd.keep(holds, gradients[r]));
                    gradients[r] = simd.discard(holds, gradients[r]);
                }
                simd.store(sums, held);
            }
            if THETAS != LINEAR {
                // A NaN exceeds nothing, though it is not less or equal either.
                for r in 0..R {
                    gradients[r] = simd.keep(simd.less_than_or_equal_f32s(x[r], x[r]), gradients[r]);
                }
            }
            let mut to = own.grad_input.wrapping_add(lane);
            if own.grad_input.is_null() {
                continue;
            }
            if call.add {
                for gradient in gradients {
                    store::<S, KIND>(simd, mask, to, simd.add_f32s(load::<S, KIND>(simd, mask, to), gradient));
                    to = to.wrapping_add(own.grad_input_step);
                }
            } else {
                for gradient in gradients {
                    store::<S, KIND>(simd, mask, to, gradient);
                    to = to.wrapping_add(own.grad_input_step);
                }
            }
        }
    }
}

/// What a segment's taps read, their coefficients and sums.
#[derive(Clone, Copy)]
struct Taps {
    source: *const f32,
    source_step: usize,
    inside: u32,
    // Of the first tap, and from a tap to the next one.
    weight: *const f32,
    thetas: *const f32,
    sums: *mut f32,
    step: isize,
}

/// Adds the `T` taps of a segment.
///
/// # Safety
///
/// [In reach](Vector#in-reach): the coefficients and sums of the taps; what they read, where it is inside.
#[inline(always)]
unsafe fn add<S: Vector, const R: usize, const T: usize, const KIND: usize, const THETAS: usize>(
    simd: S,
    x: &[S::f32s; R],
    gradients: &mut [S::f32s; R],
    taps: Taps,
    mask: MemMask<S::m32s>,
) {
    if THETAS == PER_TAP {
        // SAFETY: in reach.
        unsafe { add_by_tap::<S, R, T, KIND>(simd, x, gradients, taps, mask) };
        return;
    }
    let (mut weights, mut thetas) = ([simd.splat_f32s(0.0); T], [simd.splat_f32s(0.0); T]);
    let mut sums = [simd.splat_f32s(0.0); T];
    let mut at = taps.source;
    // SAFETY: in reach.
    unsafe {
        for t in 0..T {
            weights[t] = simd.load(taps.weight.offset(t as isize * taps.step));
            if THETAS == WEIGHTED {
                thetas[t] = simd.load(taps.thetas.offset(t as isize * taps.step));
                sums[t] = simd.load(taps.sums.offset(t as isize * taps.step));
            }
        }
        for j in 0..R + T - 1 {
            if KIND == INSIDE || taps.inside >> j & 1 != 0 {
                let g = load::<S, KIND>(simd, mask, at);
                for t in 0..T {
                    if j < t || j - t >= R {
                        continue;
                    }
                    let r = j - t;
                    if THETAS == WEIGHTED {
                        let holds = simd.less_than_or_equal_f32s(x[r], thetas[t]);
                        let g = simd.mul_f32s(weights[t], g);
                        sums[t] = simd.add_f32s(sums[t], simd.keep(holds, g));
                        gradients[r] = simd.add_f32s(gradients[r], simd.discard(holds, g));
                    } else {
                        gradients[r] = simd.mul_add(weights[t], g, gradients[r]);
                    }
                }
            }
            at = at.wrapping_add(taps.source_step);
        }
        if THETAS == WEIGHTED {
            for (t, sum) in sums.into_iter().enumerate() {
                simd.store(taps.sums.offset(t as isize * taps.step), sum);
            }
        }
    }
}

/// The same with a threshold per tap, tap by tap: masks are many, and registers few.
///
/// # Safety
///
/// As [`add`]. Weights are finite.
#[inline(always)]
unsafe fn add_by_tap<S: Vector, const R: usize, const T: usize, const KIND: usize>(
    simd: S,
    x: &[S::f32s; R],
    gradients: &mut [S::f32s; R],
    taps: Taps,
    mask: MemMask<S::m32s>,
) {
    /// At least what the largest tile reads.
    const MOST: usize = 8 + MOST_TAPS - 1;

    // Zeros outside add nothing: the weights are finite.
    let mut g = [simd.splat_f32s(0.0); MOST];
    let mut at = taps.source;
    // SAFETY: in reach.
    unsafe {
        for (j, g) in g.iter_mut().enumerate().take(R + T - 1) {
            if KIND == INSIDE || taps.inside >> j & 1 != 0 {
                *g = load::<S, KIND>(simd, mask, at);
            }
            at = at.wrapping_add(taps.source_step);
        }
        for t in 0..T {
            let offset = t as isize * taps.step;
            let (weight, theta) = (simd.load(taps.weight.offset(offset)), simd.load(taps.thetas.offset(offset)));
            let mut sum = simd.load(taps.sums.offset(offset));
            for r in 0..R {
                let holds = simd.less_than_or_equal_f32s(x[r], theta);
                sum = simd.add_f32s(sum, simd.keep(holds, g[r + t]));
                gradients[r] = simd.mul_add(weight, simd.discard(holds, g[r + t]), gradients[r]);
            }
            simd.store(taps.sums.offset(offset), sum);
        }
    }
}
