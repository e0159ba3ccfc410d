//! The forward pass: sums of a tile's positions in registers.

use pulp::MemMask;

use super::{EDGE, INSIDE, PARTIAL, Place, SegmentWords, ThetaTable, Thetas, TileSegment, Walk, load, store};
use crate::kernel::Kernel;
use crate::kernel::tile::{outlined, with_const};
use crate::kernel::vector::Vector;
use crate::kernel::view::PixelsMut;

/// `output[p][c] = start[c] + Σ_k w[k][c] · f(x̂[p + k][c]; θ[k][c])`
pub(crate) struct DepthwiseForward<'a> {
    pub(crate) walk: Walk<'a>,
    /// As many as the walk has.
    pub(crate) room: &'a mut [SegmentWords],
    pub(crate) source: &'a [f32],
    /// `[vector][tap][lane]`
    pub(crate) weight: &'a [f32],
    pub(crate) thetas: Thetas<'a>,
    /// `[vector][lane]`
    pub(crate) start: &'a [f32],
    pub(crate) output: PixelsMut<'a>,
}

/// Most positions of a tile: their sums, weights and thresholds of a segment, a maximum.
const fn most_rows<S: Vector>() -> usize {
    match (S::REGISTERS, S::FEW_TILES && S::LANES > 1) {
        (_, true) => 2,
        (32.., _) => 8,
        _ => 7,
    }
}

impl Kernel for DepthwiseForward<'_> {
    fn check<S: Vector>(&self) {
        let Self { walk, room, source, weight, thetas, start, output } = self;
        walk.check::<S>(source.len(), &[weight.len(), thetas.len()], room);
        assert!(walk.channels.next_multiple_of(S::LANES) <= start.len());
        walk.check_pixels(output);
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(mut self, simd: S) {
        // SAFETY: checked.
        unsafe {
            if self.thetas == Thetas::Linear {
                walk::<S, true>(simd, &mut self)
            } else {
                walk::<S, false>(simd, &mut self)
            }
        }
    }
}

/// # Safety
///
/// The call is [checked](Kernel#checked).
#[inline(never)]
unsafe fn walk<S: Vector, const LINEAR: bool>(simd: S, call: &mut DepthwiseForward<'_>) {
    let room = core::mem::take(&mut call.room);
    let call = &*call;
    let (vectors, partial) = call.walk.vectors::<S>();
    let whole = vectors * S::LANES;
    let [_, _, row_step, column_step] = call.output.positions.steps[0];
    let splat = call.thetas.splat();
    let thetas = call.thetas.table(&splat);
    call.walk.for_each_tile::<S>(most_rows::<S>(), room, |tile, segments| {
        let source = call.source.as_ptr().wrapping_add(tile.row * call.walk.rows.source_step);
        let place = Place { segments, source, lanes: [0, whole], partial };
        let rest = Place { lanes: [whole, whole + 1], ..place };
        // Used where there is a next one, which lies in the output then.
        let to = call.output.first.wrapping_add(tile.row * row_step + tile.position * column_step);
        with_const!(tile.len, R in [1 2 3 4 5 6 7 8] if R <= most_rows::<S>() => {
            // SAFETY: checked; the tile lies in the walk, and as many vectors follow as there are channels for.
            unsafe {
                if whole > 0 && tile.kind == INSIDE {
                    outlined!(simd => positions::<S, R, INSIDE, LINEAR>(simd, call, thetas, place, to, column_step));
                } else if whole > 0 {
                    outlined!(simd => positions::<S, R, EDGE, LINEAR>(simd, call, thetas, place, to, column_step));
                }
                if partial > 0 {
                    outlined!(simd => positions::<S, R, PARTIAL, LINEAR>(simd, call, thetas, rest, to, column_step));
                }
            }
        });
    });
}

/// A tile of `R` positions.
///
/// # Safety
///
/// The call is [checked](Kernel#checked). The place is that of `R` positions of a row, whose outputs lie `step` apart from `to` on;
/// the lanes are channels of the call. Of [`INSIDE`] tiles, all taps read inside.
#[inline(always)]
unsafe fn positions<S: Vector, const R: usize, const KIND: usize, const LINEAR: bool>(
    simd: S,
    call: &DepthwiseForward<'_>,
    thetas: ThetaTable,
    place: Place<'_>,
    to: *mut f32,
    step: usize,
) {
    let Walk { tap_step, outside, outside_taps, taps, columns, .. } = call.walk;
    let mask = simd.mask_between_m32s(0, place.partial as u32);
    for lane in (place.lanes[0]..place.lanes[1]).step_by(S::LANES) {
        // SAFETY: checked: there are a start, weights and thresholds for all taps and lanes.
        unsafe {
            let weight = call.weight.as_ptr().add(lane * taps);
            let mut start = simd.load(call.start.as_ptr().add(lane));
            if !LINEAR {
                for &first in outside {
                    for tap in first as usize..first as usize + outside_taps {
                        let theta = simd.load(thetas.at((lane * taps) + tap * S::LANES));
                        start = add_padded(simd, start, simd.load(weight.add(tap * S::LANES)), theta);
                    }
                }
            }
            let mut sums = [start; R];
            for &words in place.segments {
                let segment = TileSegment::of(words);
                let taps = Taps {
                    source: place.source.wrapping_add(segment.source).wrapping_add(lane),
                    source_step: columns.source_step,
                    inside: segment.inside,
                    weight: weight.add(segment.table),
                    thetas: thetas.at(lane * taps + segment.table),
                    step: tap_step * S::LANES as isize,
                    theta_step: tap_step * (S::LANES & thetas.bits) as isize,
                };
                with_const!(segment.taps, T in [1 2 3] => {
                    add::<S, R, T, KIND, LINEAR>(simd, &mut sums, taps, mask);
                });
            }
            let mut to = to.wrapping_add(lane);
            for sum in sums {
                store::<S, KIND>(simd, mask, to, sum);
                to = to.wrapping_add(step);
            }
        }
    }
}

/// What a segment's taps read, and their coefficients.
#[derive(Clone, Copy)]
struct Taps {
    source: *const f32,
    source_step: usize,
    inside: u32,
    // Of the first tap, and from a tap to the next one.
    weight: *const f32,
    thetas: *const f32,
    step: isize,
    theta_step: isize,
}

/// Adds the `T` taps of a segment.
///
/// # Safety
///
/// [In reach](Vector#in-reach): the coefficients of the taps; what they read, where it is inside.
#[inline(always)]
unsafe fn add<S: Vector, const R: usize, const T: usize, const KIND: usize, const LINEAR: bool>(
    simd: S,
    sums: &mut [S::f32s; R],
    taps: Taps,
    mask: MemMask<S::m32s>,
) {
    let (mut weights, mut thetas) = ([simd.splat_f32s(0.0); T], [simd.splat_f32s(0.0); T]);
    let mut at = taps.source;
    // SAFETY: in reach.
    unsafe {
        for t in 0..T {
            weights[t] = simd.load(taps.weight.offset(t as isize * taps.step));
            if !LINEAR {
                thetas[t] = simd.load(taps.thetas.offset(t as isize * taps.theta_step));
            }
        }
        for j in 0..R + T - 1 {
            if KIND == INSIDE || taps.inside >> j & 1 != 0 {
                let x = load::<S, KIND>(simd, mask, at);
                for t in 0..T {
                    if j >= t && j - t < R {
                        let x = if LINEAR { x } else { simd.activate(x, thetas[t]) };
                        sums[j - t] = simd.mul_add(weights[t], x, sums[j - t]);
                    }
                }
            } else if !LINEAR {
                for t in 0..T {
                    if j >= t && j - t < R {
                        sums[j - t] = add_padded(simd, sums[j - t], weights[t], thetas[t]);
                    }
                }
            }
            at = at.wrapping_add(taps.source_step);
        }
    }
}

/// Adds what a tap does where it reads padding.
#[inline(always)]
fn add_padded<S: Vector>(simd: S, sum: S::f32s, weight: S::f32s, theta: S::f32s) -> S::f32s {
    // Padding is zero: where it stays zero it adds nothing, not even times an infinite weight.
    let zero = simd.splat_f32s(0.0);
    simd.mul_add(simd.keep(simd.greater_than_f32s(theta, zero), weight), simd.activate(zero, theta), sum)
}
