//! The backward pass of the weight: a tile's output gradients in registers, sums of a segment's taps beside them.

use pulp::MemMask;

use super::{EDGE, INSIDE, Own, PARTIAL, Place, SegmentWords, ThetaTable, Thetas, TileSegment, Walk, load};
use crate::kernel::Kernel;
use crate::kernel::tile::{outlined, with_const};
use crate::kernel::vector::Vector;

/// `sums[k][c] += Σ_p grad_output[p][c] · f(source[p + k][c]; θ[k][c])` over the positions that read inside through tap `k`, and
/// `outside[k][c] += Σ_p grad_output[p][c]` over the others; `bias[c]` over all.
pub(crate) struct DepthwiseBackwardWeight<'a> {
    pub(crate) walk: Walk<'a>,
    /// As many as the walk has.
    pub(crate) room: &'a mut [SegmentWords],
    /// None where the others alone are wanted.
    pub(crate) inputs: Option<Inputs<'a>>,
    pub(crate) grad_output: Own<'a>,
    /// `[vector][tap][lane]`; perhaps not wanted.
    pub(crate) outside: Option<&'a mut [f32]>,
    /// `[vector][lane]`; perhaps not wanted.
    pub(crate) bias: Option<&'a mut [f32]>,
}

/// What the weights are multiplied by, and their gradients.
pub(crate) struct Inputs<'a> {
    pub(crate) source: &'a [f32],
    pub(crate) thetas: Thetas<'a>,
    /// `[vector][tap][lane]`, added to.
    pub(crate) sums: &'a mut [f32],
}

/// Which sums there are: those of padding and the bias alone; those of clamped inputs, or of inputs as they are, too.
const OUTSIDE: usize = 0;
const CLAMPED: usize = 1;
const LINEAR: usize = 2;

/// Most positions of a tile: their gradients, thresholds and sums of a segment, an input.
const fn most_rows<S: Vector>() -> usize {
    if S::FEW_TILES && S::LANES > 1 { 2 } else { 8 }
}

impl Kernel for DepthwiseBackwardWeight<'_> {
    fn check<S: Vector>(&self) {
        let Self { walk, room, inputs, grad_output, outside, bias } = self;
        walk.check_own(grad_output);
        let lanes = walk.channels.next_multiple_of(S::LANES);
        assert!(bias.as_ref().is_none_or(|bias| lanes <= bias.len()));
        let outside = outside.as_ref().map_or(usize::MAX, |outside| outside.len());
        match inputs {
            Some(Inputs { source, thetas, sums }) => {
                walk.check::<S>(source.len(), &[thetas.len(), sums.len(), outside], room);
            }
            // There is no source to be read.
            None => walk.check::<S>(usize::MAX, &[outside], room),
        }
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(mut self, simd: S) {
        // SAFETY: checked.
        unsafe {
            match self.inputs.as_ref().map(|inputs| inputs.thetas) {
                None => walk::<S, OUTSIDE>(simd, &mut self),
                Some(Thetas::Linear) => walk::<S, LINEAR>(simd, &mut self),
                Some(_) => walk::<S, CLAMPED>(simd, &mut self),
            }
        }
    }
}

/// # Safety
///
/// The call is [checked](Kernel#checked), and its inputs are what the kind says.
#[inline(never)]
unsafe fn walk<S: Vector, const SUMS: usize>(simd: S, call: &mut DepthwiseBackwardWeight<'_>) {
    let (vectors, partial) = call.walk.vectors::<S>();
    let whole = vectors * S::LANES;
    let Own { data, steps } = call.grad_output;
    let (walk, thetas) = (call.walk, call.inputs.as_ref().map_or(Thetas::Linear, |inputs| inputs.thetas));
    let splat = thetas.splat();
    let mut tables = Tables {
        source: core::ptr::null(),
        thetas: thetas.table(&splat),
        sums: core::ptr::null_mut(),
        outside: call.outside.as_mut().map(|outside| outside.as_mut_ptr()),
        bias: call.bias.as_mut().map(|bias| bias.as_mut_ptr()),
    };
    if let Some(inputs) = &mut call.inputs {
        tables.source = inputs.source.as_ptr();
        tables.sums = inputs.sums.as_mut_ptr();
    }
    let room = core::mem::take(&mut call.room);
    walk.for_each_tile::<S>(most_rows::<S>(), room, |tile, segments| {
        if SUMS == OUTSIDE && tile.kind == INSIDE && walk.outside.is_empty() && tables.bias.is_none() {
            return;
        }
        let source = tables.source.wrapping_add(tile.row * walk.rows.source_step);
        let place = Place { segments, source, lanes: [0, whole], partial };
        let rest = Place { lanes: [whole, whole + 1], ..place };
        let own = data.as_ptr().wrapping_add(tile.row * steps[0] + tile.position * steps[1]);
        with_const!(tile.len, R in [1 2 3 4 5 6 7 8] if R <= most_rows::<S>() => {
            // SAFETY: checked; the tile lies in the walk, and as many vectors follow as there are channels for.
            unsafe {
                if whole > 0 && tile.kind == INSIDE && SUMS != OUTSIDE {
                    outlined!(simd => positions::<S, R, INSIDE, SUMS>(simd, &walk, tables, place, own, steps[1]));
                } else if whole > 0 {
                    outlined!(simd => positions::<S, R, EDGE, SUMS>(simd, &walk, tables, place, own, steps[1]));
                }
                if partial > 0 {
                    outlined!(simd => positions::<S, R, PARTIAL, SUMS>(simd, &walk, tables, rest, own, steps[1]));
                }
            }
        });
    });
}

/// Where the tables of a call begin.
#[derive(Clone, Copy)]
struct Tables {
    thetas: ThetaTable,
    /// These two where there are inputs.
    source: *const f32,
    sums: *mut f32,
    outside: Option<*mut f32>,
    bias: Option<*mut f32>,
}

/// A tile of `R` positions.
///
/// # Safety
///
/// The walk and the tables are those of a [checked](Kernel#checked) call, and the place is that of `R` positions of a row, whose output gradients
/// lie `step` apart from `own` on; the lanes are channels of the call. Of [`INSIDE`] tiles, all taps read inside.
#[inline(always)]
unsafe fn positions<S: Vector, const R: usize, const KIND: usize, const SUMS: usize>(
    simd: S,
    walk: &Walk<'_>,
    tables: Tables,
    place: Place<'_>,
    own: *const f32,
    step: usize,
) {
    let Walk { tap_step, outside, outside_taps, taps, columns, .. } = *walk;
    let mask = simd.mask_between_m32s(0, place.partial as u32);
    for lane in (place.lanes[0]..place.lanes[1]).step_by(S::LANES) {
        // SAFETY: checked: the gradients are the call's, and there are thresholds and sums for all taps and lanes.
        unsafe {
            let mut g = [simd.splat_f32s(0.0); R];
            let mut from = own.wrapping_add(lane);
            for g in &mut g {
                *g = load::<S, KIND>(simd, mask, from);
                from = from.wrapping_add(step);
            }
            let outside_sums = tables.outside.map(|sums| sums.add(lane * taps));
            if tables.bias.is_some() || outside_sums.is_some() && !outside.is_empty() {
                let mut sum = g[0];
                for g in &g[1..] {
                    sum = simd.add_f32s(sum, *g);
                }
                if let Some(bias) = tables.bias {
                    add_to(simd, bias.add(lane), sum);
                }
                if let Some(sums) = outside_sums {
                    for &first in outside {
                        for tap in first as usize..first as usize + outside_taps {
                            add_to(simd, sums.add(tap * S::LANES), sum);
                        }
                    }
                }
            }
            for &words in place.segments {
                let segment = TileSegment::of(words);
                let in_table = lane * taps + segment.table;
                let taps = Taps {
                    source: place.source.wrapping_add(segment.source).wrapping_add(lane),
                    source_step: columns.source_step,
                    inside: segment.inside,
                    thetas: tables.thetas.at(in_table),
                    // Without inputs they are not used.
                    sums: tables.sums.wrapping_add(in_table),
                    outside: outside_sums.map(|sums| sums.add(segment.table)),
                    step: tap_step * S::LANES as isize,
                    theta_step: tap_step * (S::LANES & tables.thetas.bits) as isize,
                };
                with_const!(segment.taps, T in [1 2 3] => {
                    add::<S, R, T, KIND, SUMS>(simd, &g, taps, mask);
                });
            }
        }
    }
}

/// Adds to a sum.
///
/// # Safety
///
/// [In reach](Vector#in-reach): a vector at `to`.
#[inline(always)]
unsafe fn add_to<S: Vector>(simd: S, to: *mut f32, value: S::f32s) {
    // SAFETY: in reach.
    unsafe { simd.store(to, simd.add_f32s(simd.load(to), value)) }
}

/// What a segment's taps read, their thresholds and sums.
#[derive(Clone, Copy)]
struct Taps {
    source: *const f32,
    source_step: usize,
    inside: u32,
    // Of the first tap, and from a tap to the next one.
    thetas: *const f32,
    theta_step: isize,
    sums: *mut f32,
    outside: Option<*mut f32>,
    step: isize,
}

/// Adds the gradients of the `T` taps of a segment.
///
/// # Safety
///
/// [In reach](Vector#in-reach): the thresholds and sums of the taps that the kind has; what they read, where it is inside.
#[inline(always)]
unsafe fn add<S: Vector, const R: usize, const T: usize, const KIND: usize, const SUMS: usize>(
    simd: S,
    g: &[S::f32s; R],
    taps: Taps,
    mask: MemMask<S::m32s>,
) {
    let (mut thetas, mut sums) = ([simd.splat_f32s(0.0); T], [simd.splat_f32s(0.0); T]);
    let mut at = taps.source;
    // SAFETY: in reach.
    unsafe {
        if SUMS != OUTSIDE {
            for t in 0..T {
                sums[t] = simd.load(taps.sums.offset(t as isize * taps.step));
                if SUMS == CLAMPED {
                    thetas[t] = simd.load(taps.thetas.offset(t as isize * taps.theta_step));
                }
            }
        }
        for j in 0..R + T - 1 {
            if KIND == INSIDE || taps.inside >> j & 1 != 0 {
                if SUMS != OUTSIDE {
                    let x = load::<S, KIND>(simd, mask, at);
                    for t in 0..T {
                        if j >= t && j - t < R {
                            let x = if SUMS == CLAMPED { simd.activate(x, thetas[t]) } else { x };
                            sums[t] = simd.mul_add(g[j - t], x, sums[t]);
                        }
                    }
                }
            } else if let Some(outside) = taps.outside {
                for t in 0..T {
                    if j >= t && j - t < R {
                        add_to(simd, outside.offset(t as isize * taps.step), g[j - t]);
                    }
                }
            }
            at = at.wrapping_add(taps.source_step);
        }
        if SUMS != OUTSIDE {
            for (t, sum) in sums.into_iter().enumerate() {
                simd.store(taps.sums.offset(t as isize * taps.step), sum);
            }
        }
    }
}
