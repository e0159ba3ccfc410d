//! Depthwise kernel of the forward pass. The sums of a tile's positions are in registers.

use core::mem::MaybeUninit;

use super::{
    EDGE, INSIDE, MOST_READ, PAIRED, PARTIAL, Place, Prepared, SQUARE, SegmentWords, ThetaTable, Thetas, Tile, Walk,
    all_lanes, apart, few_positions, in_table, load, mask_of, spread,
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

/// Most positions of a tile of one row: their sums, weights and thresholds of a segment, a maximum.
const fn most_positions<S: Vector>() -> usize {
    if S::FEW_TILES {
        return few_positions::<S>();
    }
    if S::REGISTERS >= 32 { 8 } else { 7 }
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
    let walk = call.walk;
    let [_, _, row_step, column_step] = call.output.positions.steps[0];
    let splat = call.thetas.splat();
    let all = Tables {
        weight: call.weight.as_ptr(),
        thetas: call.thetas.table(&splat),
        start: call.start.as_ptr(),
        start_step: if walk.strips { 0 } else { S::LANES },
        output_steps: [row_step, column_step],
    };
    let epilogue = call.ending.as_ref().map(|ending| ending.tables(call.output.first));
    let segments = walk.prepare::<S>(core::mem::take(&mut call.room));
    let one = walk.tiles::<S>(1, most_positions::<S>());
    let two = walk.pairs::<S>().then(|| walk.tiles::<S>(2, PAIRED));
    for lanes in walk.chunks() {
        let mut row = 0;
        while row < walk.rows.count {
            // SAFETY: checked: the row's channel has coefficients and a start, and there is room for their vectors.
            let tables = if walk.strips { unsafe { all.spread(simd, &walk, row, call.spread) } } else { all };
            let source = call.source.as_ptr().wrapping_add(row * walk.rows.source_step);
            let tiles = two.as_ref().filter(|two| row + two.rows <= walk.rows.count).unwrap_or(&one);
            tiles.for_each::<S>(&walk, lanes, source, segments, |tile, place| {
                // Steps are used where there is a next one, which lies in the output then.
                let at = row.wrapping_mul(row_step).wrapping_add(tile.position.wrapping_mul(column_step));
                if let Some(epilogue) = &epilogue {
                    let channels = |lane| if walk.strips { Channels::One(row) } else { Channels::InLanes(lane) };
                    // SAFETY: checked; the tiles lie in the walk, and their outputs from `at` on.
                    unsafe { finished::<S, LINEAR>(simd, &walk, &tables, &tile, &place, (epilogue, at, channels)) };
                } else {
                    // SAFETY: checked; the tiles lie in the walk.
                    unsafe {
                        compute::<S, LINEAR>(simd, &walk, &tables, &tile, &place, call.output.first.wrapping_add(at))
                    };
                }
            });
            row += tiles.rows;
        }
    }
}

/// Computes tiles, some vectors of lanes at a time, into a copy, and finishes them from there.
///
/// # Safety
///
/// As [`positions`], of the lanes that the tiles store. They lie from the index `at` on in the output of the epilogue, which is the
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
    let [row_step, step] = tables.output_steps;
    let copied_steps = [tile.len * copied_lanes::<S>(), copied_lanes::<S>()];
    let into_copy = Tables { output_steps: copied_steps, ..*tables };
    for index in 0..tile.count {
        let at = at.wrapping_add((index * tile.len).wrapping_mul(step));
        let (tile, place) = (Tile { count: 1, ..*tile }, place.after(index * tile.len, walk));
        for lane in (place.lanes[0]..place.lanes[1]).step_by(copied_lanes::<S>()) {
            let lanes = [lane, min(place.lanes[1], lane + copied_lanes::<S>())];
            let own = if tile.kind == PARTIAL { place.own } else { [0, lanes[1] - lane] };
            let place = Place { lanes, ..place };
            // SAFETY: as this function asks. The copy has room for the lanes of eight positions.
            unsafe { compute::<S, LINEAR>(simd, walk, &into_copy, &tile, &place, copy.wrapping_sub(lane)) };
            for row in 0..tile.rows {
                let sums = Finished {
                    from: copy.wrapping_add(row * copied_steps[0] + own[0]),
                    from_step: copied_steps[1],
                    at: at.wrapping_add(row.wrapping_mul(row_step)).wrapping_add(lane + own[0]),
                    step,
                    rows: tile.len,
                    len: own[1] - own[0],
                    channels: channels(lane),
                };
                // SAFETY: as this function asks. The copy holds the lanes that are the tile's own.
                unsafe { epilogue.finish(simd, sums) };
            }
        }
    }
}

/// Computes tiles by the body of their length and kind.
///
/// # Safety
///
/// As [`positions`] and [`two_rows`], of each tile.
#[inline(always)]
unsafe fn compute<S: Vector, const LINEAR: bool>(
    simd: S,
    walk: &Walk<'_>,
    tables: &Tables,
    tile: &Tile,
    place: &Place<'_>,
    to: *mut f32,
) {
    let [row_step, step] = tables.output_steps;
    let after = |positions: usize| (place.after(positions, walk), to.wrapping_add(positions.wrapping_mul(step)));
    if tile.rows == 2 && tile.kind != PARTIAL {
        with_const!(tile.len, R in [1 2 3 4] if S::REGISTERS >= 32 => {
            // SAFETY: as this function asks.
            unsafe {
                if tile.kind == INSIDE {
                    alike!(simd, tile, R, at in after => two_rows::<S, R, INSIDE, LINEAR>(simd, walk, *tables, at));
                } else {
                    alike!(simd, tile, R, at in after => two_rows::<S, R, EDGE, LINEAR>(simd, walk, *tables, at));
                }
            }
        });
        return;
    }
    for row in 0..tile.rows {
        let after = |positions: usize| {
            let (place, to) = after(positions);
            (place.below(row, walk), to.wrapping_add(row.wrapping_mul(row_step)))
        };
        with_const!(tile.len, R in [1 2 3 4 5 6 7 8] if R <= most_positions::<S>() => {
            // SAFETY: as this function asks.
            unsafe {
                match tile.kind {
                    INSIDE => alike!(simd, tile, R, at in after => positions::<S, R, INSIDE, LINEAR>(simd, walk, *tables, at)),
                    EDGE => alike!(simd, tile, R, at in after => positions::<S, R, EDGE, LINEAR>(simd, walk, *tables, at)),
                    _ => alike!(simd, tile, R, at in after => positions::<S, R, PARTIAL, LINEAR>(simd, walk, *tables, at)),
                }
            }
        });
    }
}

/// Where the tables of a row begin.
#[derive(Clone, Copy)]
struct Tables {
    weight: *const f32,
    thetas: ThetaTable,
    start: *const f32,
    /// From a vector to the next one.
    start_step: usize,
    /// From a row, and from a position, to the next one.
    output_steps: [usize; 2],
}

impl Tables {
    /// Vectors for a channel: its coefficients and its start in all lanes.
    ///
    /// # Safety
    ///
    /// [In reach](Vector#in-reach): the coefficients and the start of the channel; two vectors per tap, and one.
    unsafe fn spread<S: Vector>(self, simd: S, walk: &Walk<'_>, channel: usize, to: &mut [f32]) -> Self {
        let (taps, at) = (walk.taps, in_table::<S>(channel, walk.taps));
        let (weight, rest) = to.split_at_mut(taps * S::LANES);
        let (thetas, start) = rest.split_at_mut(taps * S::LANES);
        let (weight, thetas, start) = (weight.as_mut_ptr(), thetas.as_mut_ptr(), start.as_mut_ptr());
        // SAFETY: in reach.
        let thetas = unsafe { self.thetas.spread(simd, channel, taps, thetas) };
        // SAFETY: in reach.
        outlined!(simd => unsafe {
            spread(simd, self.weight.add(at), taps, weight);
            spread(simd, self.start.add(channel), 1, start);
        });
        Self { weight, thetas, start, ..self }
    }
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
    (place, to): (Place<'_>, *mut f32),
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
                let read = Read {
                    source: source.wrapping_add(segment.source),
                    step: columns.source_step,
                    inside: segment.inside::<KIND>(place.position),
                    lanes: segment.lanes(lane),
                };
                let taps = Taps {
                    weight: weight.wrapping_add(segment.table),
                    thetas: tables.thetas.at(table + segment.table),
                    step: tap_step * S::LANES as isize,
                    theta_step: tap_step * (S::LANES & tables.thetas.bits) as isize,
                };
                with_const!(segment.taps, T in [1 2 3] => {
                    if KIND == PARTIAL && all_lanes::<S>(read.lanes) {
                        add::<S, 1, R, T, EDGE, LINEAR>(simd, [&mut sums], &read, [taps]);
                    } else {
                        add::<S, 1, R, T, KIND, LINEAR>(simd, [&mut sums], &read, [taps]);
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
                to = to.wrapping_add(tables.output_steps[1]);
            }
        }
        lane += S::LANES;
        table += per_vector;
        start_from = start_from.wrapping_add(tables.start_step);
    }
}

/// A tile of `R` positions of two rows, which [share](Walk::pairs) what they read: what the first row reads through a kernel row, the
/// second one reads through the kernel row before.
///
/// # Safety
///
/// As [`positions`], of both rows.
#[inline(always)]
unsafe fn two_rows<S: Vector, const R: usize, const KIND: usize, const LINEAR: bool>(
    simd: S,
    walk: &Walk<'_>,
    tables: Tables,
    (place, to): (Place<'_>, *mut f32),
) {
    let (rows, inside) = place.of_pair::<KIND>(walk);
    let theta_step = S::LANES & tables.thetas.bits;
    let [row_step, step] = tables.output_steps;
    let mut lane = place.lanes[0];
    while lane < place.lanes[1] {
        let table = lane * SQUARE * SQUARE;
        let (weight, thetas) = (tables.weight.wrapping_add(table), tables.thetas.at(table));
        let [x0, x1, x2, x3] = rows.map(|row| Read {
            source: row.wrapping_add(lane),
            step: walk.columns.source_step,
            inside,
            lanes: [0, S::LANES],
        });
        let [first, second, third] = [0, 1, 2].map(|row| Taps {
            weight: weight.wrapping_add(row * SQUARE * S::LANES),
            thetas: thetas.wrapping_add(row * SQUARE * theta_step),
            step: S::LANES as isize,
            theta_step: theta_step as isize,
        });
        // SAFETY: checked: there are a start, weights and thresholds for all taps and lanes.
        unsafe {
            let start = simd.load(tables.start.wrapping_add(lane));
            let (mut above, mut below) = ([start; R], [start; R]);
            add::<S, 1, R, SQUARE, KIND, LINEAR>(simd, [&mut above], &x0, [first]);
            add::<S, 2, R, SQUARE, KIND, LINEAR>(simd, [&mut above, &mut below], &x1, [second, first]);
            add::<S, 2, R, SQUARE, KIND, LINEAR>(simd, [&mut above, &mut below], &x2, [third, second]);
            add::<S, 1, R, SQUARE, KIND, LINEAR>(simd, [&mut below], &x3, [third]);
            let mut to = to.wrapping_add(lane);
            for (above, below) in above.into_iter().zip(below) {
                simd.store(to, above);
                simd.store(to.wrapping_add(row_step), below);
                to = to.wrapping_add(step);
            }
        }
        lane += S::LANES;
    }
}

/// What a segment's taps read: what the positions read through the first tap, and the positions and lanes that are inside.
#[derive(Clone, Copy)]
struct Read {
    source: *const f32,
    step: usize,
    inside: u32,
    lanes: [usize; 2],
}

/// The coefficients of a segment's first tap, and the distances to the next one.
#[derive(Clone, Copy)]
struct Taps {
    weight: *const f32,
    thetas: *const f32,
    step: isize,
    theta_step: isize,
}

/// Adds the `T` taps of a segment to the sums of `Q` rows. The rows read the same, each through taps of its own.
///
/// # Safety
///
/// [In reach](Vector#in-reach): the coefficients of the taps; what they read, where it is inside.
#[inline(always)]
unsafe fn add<S: Vector, const Q: usize, const R: usize, const T: usize, const KIND: usize, const LINEAR: bool>(
    simd: S,
    sums: [&mut [S::f32s; R]; Q],
    read: &Read,
    taps: [Taps; Q],
) {
    let zero = simd.splat_f32s(0.0);
    let (mut weights, mut thetas) = ([[zero; T]; Q], [[zero; T]; Q]);
    let mask = mask_of::<S, KIND>(simd, read.lanes);
    let at = apart::<MOST_READ>(read.source, read.step);
    // SAFETY: in reach.
    unsafe {
        for q in 0..Q {
            for t in 0..T {
                weights[q][t] = simd.load(taps[q].weight.offset(t as isize * taps[q].step));
                if !LINEAR {
                    thetas[q][t] = simd.load(taps[q].thetas.offset(t as isize * taps[q].theta_step));
                }
            }
        }
        // Those of lanes that read padding.
        let mut inner = weights;
        if KIND == PARTIAL {
            for q in 0..Q {
                for t in 0..T {
                    let padded = if LINEAR { zero } else { padded_weight(simd, weights[q][t], thetas[q][t]) };
                    inner[q][t] = simd.select_f32s(mask.mask(), weights[q][t], padded);
                }
            }
        }
        for j in 0..R + T - 1 {
            if KIND == INSIDE || read.inside >> j & 1 != 0 {
                let x = load::<S, KIND>(simd, mask, at[j]);
                for q in 0..Q {
                    for t in 0..T {
                        if j >= t && j - t < R {
                            let x = if LINEAR { x } else { simd.activate(x, thetas[q][t]) };
                            sums[q][j - t] = simd.mul_add(inner[q][t], x, sums[q][j - t]);
                        }
                    }
                }
            } else if !LINEAR {
                for q in 0..Q {
                    for t in 0..T {
                        if j >= t && j - t < R {
                            sums[q][j - t] = add_padded(simd, sums[q][j - t], weights[q][t], thetas[q][t]);
                        }
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
