//! Depthwise kernel of the forward pass. The sums of a tile's positions are in registers.

use core::mem::MaybeUninit;

use super::{
    EDGE, INSIDE, MOST_READ, PARTIAL, Place, Prepared, SegmentWords, ThetaTable, Thetas, Tile, Walk, all_lanes, apart,
    in_table, load, mask_of, spread,
};
use crate::arith::min;
use crate::kernel::Kernel;
use crate::kernel::epilogue::{Channels, Ending, Finished, Tables as EpilogueTables};
use crate::kernel::tile::{outlined, with_const};
use crate::kernel::vector::{MOST_LANES, Vector};
use crate::kernel::view::PixelsMut;

/// `output[p][c] = start[c] + Σ_k w[k][c] · f(x̂[p + k][c]; θ[k][c])`
pub(crate) struct DepthwiseForward<'a> {
    pub(crate) walk: Walk<'a>,
    /// As many as the walk has.
    pub(crate) room: &'a mut [SegmentWords],
    /// Of strips: two vectors per tap, and one.
    pub(crate) spread: &'a mut [f32],
    pub(crate) source: &'a [f32],
    /// `[vector][tap][lane]`
    pub(crate) weight: &'a [f32],
    pub(crate) thetas: Thetas<'a>,
    /// `[vector][lane]`
    pub(crate) start: &'a [f32],
    pub(crate) output: PixelsMut<'a>,
    /// What becomes of the sums.
    pub(crate) ending: Option<Ending<'a>>,
}

/// Lanes of a tile that is finished from a copy: some vectors at a time.
const fn copied_lanes<S: Vector>() -> usize {
    4 * S::LANES
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
        let Self { walk, room, spread, source, weight, thetas, start, output, ending } = self;
        walk.check::<S>(source.len(), &[weight.len(), thetas.len()], room);
        walk.check_spread::<S>(walk.taps.saturating_mul(2).saturating_add(1), spread);
        assert!(walk.channels().next_multiple_of(S::LANES) <= start.len());
        walk.check_pixels(output);
        if let Some(ending) = ending {
            ending.check(walk.channels(), output.last());
        }
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
    let (walk, spread_to) = (call.walk, call.spread.as_mut_ptr());
    let [_, _, row_step, column_step] = call.output.positions.steps[0];
    let splat = call.thetas.splat();
    let mut tables = Tables {
        weight: call.weight.as_ptr(),
        thetas: call.thetas.table(&splat),
        start: call.start.as_ptr(),
        start_step: if walk.strips { 0 } else { S::LANES },
        output_step: column_step,
    };
    let epilogue = call.ending.as_ref().map(|ending| ending.tables(call.output.first));
    let segments = walk.prepare::<S>(core::mem::take(&mut call.room));
    let tiles = walk.tiles::<S>(most_rows::<S>());
    for row in 0..walk.rows.count {
        if walk.strips {
            let channel = in_table::<S>(row, walk.taps);
            let (taps, thetas) = (walk.taps, tables.thetas);
            let len = taps * S::LANES;
            // SAFETY: checked: the channel has a weight and a threshold per tap, and a start; there is room for their vectors.
            outlined!(simd => unsafe {
                spread(simd, call.weight.as_ptr().add(channel), taps, spread_to);
                if thetas.bits != 0 {
                    spread(simd, call.thetas.table(&splat).at(channel), taps, spread_to.add(len));
                }
                spread(simd, call.start.as_ptr().add(row), 1, spread_to.add(2 * len));
            });
            // SAFETY: as above.
            unsafe {
                tables.weight = spread_to;
                tables.start = spread_to.add(2 * len);
                if thetas.bits != 0 {
                    tables.thetas.first = spread_to.add(len);
                }
            }
        }
        let source = call.source.as_ptr().wrapping_add(row * walk.rows.source_step);
        tiles.for_each::<S>(&walk, source, segments, |tile, place| {
            // Steps are used where there is a next one, which lies in the output then.
            let at = row.wrapping_mul(row_step).wrapping_add(tile.position.wrapping_mul(column_step));
            if let Some(epilogue) = &epilogue {
                let channels = |lane| if walk.strips { Channels::One(row) } else { Channels::InLanes(lane) };
                // SAFETY: checked; the tile lies in the walk, and its outputs from `at` on.
                unsafe { finished::<S, LINEAR>(simd, &walk, &tables, &tile, &place, (epilogue, at, channels)) };
            } else {
                // SAFETY: checked; the tile lies in the walk.
                unsafe {
                    compute::<S, LINEAR>(simd, &walk, &tables, &tile, &place, call.output.first.wrapping_add(at))
                };
            }
        });
    }
}

/// Computes a tile, some vectors of lanes at a time, into a copy, and finishes it from there.
///
/// # Safety
///
/// As [`positions`], of the lanes that the tile stores. They lie from the index `at` on in the output of the epilogue, which is the
/// call's and has the channels that a lane belongs to.
#[inline(never)]
unsafe fn finished<S: Vector, const LINEAR: bool>(
    simd: S,
    walk: &Walk<'_>,
    tables: &Tables,
    tile: &Tile,
    place: &Place<'_>,
    (epilogue, at, channels): (&EpilogueTables, usize, impl Fn(usize) -> Channels),
) {
    let mut copy = MaybeUninit::<[f32; 8 * 4 * MOST_LANES]>::uninit();
    let copy: *mut f32 = copy.as_mut_ptr().cast();
    let into_copy = Tables { output_step: copied_lanes::<S>(), ..*tables };
    for lane in (place.lanes[0]..place.lanes[1]).step_by(copied_lanes::<S>()) {
        let lanes = [lane, min(place.lanes[1], lane + copied_lanes::<S>())];
        let own = if tile.kind == PARTIAL { place.own } else { [0, lanes[1] - lane] };
        let sums = Finished {
            from: copy.wrapping_add(own[0]),
            from_step: copied_lanes::<S>(),
            at: at.wrapping_add(lane + own[0]),
            step: tables.output_step,
            rows: tile.len,
            len: own[1] - own[0],
            channels: channels(lane),
        };
        // SAFETY: as this function asks. The copy has room for the lanes; then it holds those that are the tile's own.
        unsafe {
            compute::<S, LINEAR>(simd, walk, &into_copy, tile, &Place { lanes, ..*place }, copy.wrapping_sub(lane));
            epilogue.finish(simd, sums);
        }
    }
}

/// Computes a tile by the body of its length and kind.
///
/// # Safety
///
/// As [`positions`].
#[inline(always)]
unsafe fn compute<S: Vector, const LINEAR: bool>(
    simd: S,
    walk: &Walk<'_>,
    tables: &Tables,
    tile: &Tile,
    place: &Place<'_>,
    to: *mut f32,
) {
    with_const!(tile.len, R in [1 2 3 4 5 6 7 8] if R <= most_rows::<S>() => {
        // SAFETY: as this function asks.
        unsafe {
            match tile.kind {
                INSIDE => outlined!(simd => positions::<S, R, INSIDE, LINEAR>(simd, walk, *tables, *place, to)),
                EDGE => outlined!(simd => positions::<S, R, EDGE, LINEAR>(simd, walk, *tables, *place, to)),
                _ => outlined!(simd => positions::<S, R, PARTIAL, LINEAR>(simd, walk, *tables, *place, to)),
            }
        }
    });
}

/// Where the tables of a row begin.
#[derive(Clone, Copy)]
struct Tables {
    weight: *const f32,
    thetas: ThetaTable,
    start: *const f32,
    /// From a vector to the next one.
    start_step: usize,
    /// From a position to the next one.
    output_step: usize,
}

/// A tile of `R` positions.
///
/// # Safety
///
/// The walk and the tables are those of a [checked](Kernel#checked) call. The place is that of `R` positions of a row, whose outputs
/// lie from `to` on; the lanes are the call's. Of [`INSIDE`] tiles, all taps read inside.
#[inline(always)]
unsafe fn positions<S: Vector, const R: usize, const KIND: usize, const LINEAR: bool>(
    simd: S,
    walk: &Walk<'_>,
    tables: Tables,
    place: Place<'_>,
    to: *mut f32,
) {
    let Walk { tap_step, outside, outside_taps, columns, .. } = *walk;
    let own = mask_of::<S, KIND>(simd, place.own);
    let per_vector = walk.per_lane() * S::LANES;
    let (mut table, mut lane) = (place.lanes[0] * walk.per_lane(), place.lanes[0]);
    let mut start_from = tables.start.wrapping_add(lane / S::LANES * tables.start_step);
    while lane < place.lanes[1] {
        // SAFETY: checked: there are a start, weights and thresholds for all taps and lanes.
        unsafe {
            let weight = tables.weight.wrapping_add(table);
            let mut start = simd.load(start_from);
            if !LINEAR {
                for &first in outside {
                    for tap in first as usize..first as usize + outside_taps {
                        let theta = simd.load(tables.thetas.at(table + tap * S::LANES));
                        start = add_padded(simd, start, simd.load(weight.add(tap * S::LANES)), theta);
                    }
                }
            }
            let mut sums = [start; R];
            let source = place.source.wrapping_add(lane);
            for &words in place.segments {
                let segment = Prepared::of(words);
                let taps = Taps {
                    source: source.wrapping_add(segment.source),
                    source_step: columns.source_step,
                    inside: segment.inside::<KIND>(place.position),
                    lanes: segment.lanes(lane),
                    weight: weight.wrapping_add(segment.table),
                    thetas: tables.thetas.at(table + segment.table),
                    step: tap_step * S::LANES as isize,
                    theta_step: tap_step * (S::LANES & tables.thetas.bits) as isize,
                };
                with_const!(segment.taps, T in [1 2 3] => {
                    if KIND == PARTIAL && all_lanes::<S>(taps.lanes) {
                        add::<S, R, T, EDGE, LINEAR>(simd, &mut sums, taps);
                    } else {
                        add::<S, R, T, KIND, LINEAR>(simd, &mut sums, taps);
                    }
                });
            }
            let mut to = to.wrapping_add(lane);
            for sum in sums {
                if KIND == PARTIAL && !place.stored {
                    simd.mask_store_ptr_f32s(own, to, sum);
                } else {
                    simd.store(to, sum);
                }
                to = to.wrapping_add(tables.output_step);
            }
        }
        lane += S::LANES;
        table += per_vector;
        start_from = start_from.wrapping_add(tables.start_step);
    }
}

/// What a segment's taps read, and their coefficients.
#[derive(Clone, Copy)]
struct Taps {
    source: *const f32,
    source_step: usize,
    inside: u32,
    lanes: [usize; 2],
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
) {
    let (mut weights, mut thetas) = ([simd.splat_f32s(0.0); T], [simd.splat_f32s(0.0); T]);
    let mask = mask_of::<S, KIND>(simd, taps.lanes);
    let at = apart::<MOST_READ>(taps.source, taps.source_step);
    // SAFETY: in reach.
    unsafe {
        for t in 0..T {
            weights[t] = simd.load(taps.weight.offset(t as isize * taps.step));
            if !LINEAR {
                thetas[t] = simd.load(taps.thetas.offset(t as isize * taps.theta_step));
            }
        }
        // Those of lanes that read padding.
        let mut inner = weights;
        if KIND == PARTIAL {
            for t in 0..T {
                let padded = if LINEAR { simd.splat_f32s(0.0) } else { padded_weight(simd, weights[t], thetas[t]) };
                inner[t] = simd.select_f32s(mask.mask(), weights[t], padded);
            }
        }
        for j in 0..R + T - 1 {
            if KIND == INSIDE || taps.inside >> j & 1 != 0 {
                let x = load::<S, KIND>(simd, mask, at[j]);
                for t in 0..T {
                    if j >= t && j - t < R {
                        let x = if LINEAR { x } else { simd.activate(x, thetas[t]) };
                        sums[j - t] = simd.mul_add(inner[t], x, sums[j - t]);
                    }
                }
            } else if !LINEAR {
                for t in 0..T {
                    if j >= t && j - t < R {
                        sums[j - t] = add_padded(simd, sums[j - t], weights[t], thetas[t]);
                    }
                }
            }
        }
    }
}

/// Adds what a tap does where it reads padding.
#[inline(always)]
fn add_padded<S: Vector>(simd: S, sum: S::f32s, weight: S::f32s, theta: S::f32s) -> S::f32s {
    simd.mul_add(padded_weight(simd, weight, theta), simd.activate(simd.splat_f32s(0.0), theta), sum)
}

/// Padding is zero: where it stays zero it adds nothing, not even times an infinite weight.
#[inline(always)]
fn padded_weight<S: Vector>(simd: S, weight: S::f32s, theta: S::f32s) -> S::f32s {
    simd.keep(simd.greater_than_f32s(theta, simd.splat_f32s(0.0)), weight)
}
