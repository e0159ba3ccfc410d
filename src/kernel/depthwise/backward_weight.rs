//! Depthwise kernel of the weight's gradient. A tile's output gradients are in registers, and the sums of a segment's taps beside
//! them.

use super::{
    EDGE, INSIDE, MOST_READ, Own, PAIRED, PARTIAL, Place, Prepared, SQUARE, SegmentWords, ThetaTable, Thetas, Tile,
    Walk, all_lanes, apart, few_positions, gather, in_table, load, mask_of,
};
use crate::kernel::Kernel;
use crate::kernel::tile::{few, outlined, unrolled, with_const};
use crate::kernel::vector::Vector;

/// `sums[k][c] += Σ_p grad_output[p][c] · f(source[p + k][c]; θ[k][c])` over the positions that read inside through tap `k`, and
/// `outside[k][c] += Σ_p grad_output[p][c]` over the others; `bias[c]` over all.
pub(crate) struct DepthwiseBackwardWeight<'a> {
    pub(crate) walk: Walk<'a>,
    /// As many as the walk has.
    pub(crate) room: &'a mut [SegmentWords],
    /// Of strips: three vectors per tap, and one.
    pub(crate) spread: &'a mut [f32],
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

/// Most positions of a tile of one row: their gradients, thresholds and sums of a segment, an input.
const fn most_positions<S: Vector>() -> usize {
    if S::FEW_TILES { few_positions::<S>() } else { 8 }
}

impl Kernel for DepthwiseBackwardWeight<'_> {
    fn check<S: Vector>(&self) {
        let Self { walk, room, spread, inputs, grad_output, outside, bias } = self;
        walk.check_own(grad_output);
        walk.check_spread::<S>(walk.taps.saturating_mul(3).saturating_add(1), spread);
        let lanes = walk.channels().next_multiple_of(S::LANES);
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
    let Own { data, steps } = call.grad_output;
    let (walk, thetas) = (call.walk, call.inputs.as_ref().map_or(Thetas::Linear, |inputs| inputs.thetas));
    let splat = thetas.splat();
    let mut all = Tables {
        source: core::ptr::null(),
        thetas: thetas.table(&splat),
        sums: core::ptr::null_mut(),
        outside: call.outside.as_mut().map(|outside| outside.as_mut_ptr()),
        bias: call.bias.as_mut().map(|bias| bias.as_mut_ptr()),
        grad_steps: steps,
    };
    if let Some(inputs) = &mut call.inputs {
        all.source = inputs.source.as_ptr();
        all.sums = inputs.sums.as_mut_ptr();
    }
    let segments = walk.prepare::<S>(core::mem::take(&mut call.room));
    let one = walk.tiles::<S>(1, most_positions::<S>());
    // The bias must have the same sums where the weights are not wanted.
    let paired = (SUMS != OUTSIDE || call.outside.is_none()) && walk.pairs::<S>();
    let two = paired.then(|| walk.tiles::<S>(2, PAIRED));
    for lanes in walk.chunks() {
        let mut row = 0;
        while row < walk.rows.count {
            // SAFETY: checked: the row's channel has thresholds and sums, and there is room for their vectors.
            let tables = if walk.strips { unsafe { all.spread(simd, &walk, row, call.spread) } } else { all };
            let source = all.source.wrapping_add(row * walk.rows.source_step);
            let tiles = two.as_ref().filter(|two| row + two.rows <= walk.rows.count).unwrap_or(&one);
            tiles.for_each::<S>(&walk, lanes, source, segments, |tile, place| {
                if SUMS == OUTSIDE && tile.kind == INSIDE && walk.outside.is_empty() && tables.bias.is_none() {
                    return;
                }
                let own = data.as_ptr().wrapping_add(row * steps[0] + tile.position * steps[1]);
                // SAFETY: checked; the tiles lie in the walk.
                unsafe { compute::<S, SUMS>(simd, &walk, &tables, &tile, &place, own) };
            });
            if walk.strips {
                // SAFETY: as above.
                unsafe { tables.gather(simd, &walk, row, all) };
            }
            row += tiles.rows;
        }
    }
}

/// Adds the gradients of tiles by the body of their length and kind.
///
/// # Safety
///
/// As [`positions`] and [`two_rows`], of each tile.
#[inline(always)]
unsafe fn compute<S: Vector, const SUMS: usize>(
    simd: S,
    walk: &Walk<'_>,
    tables: &Tables,
    tile: &Tile,
    place: &Place<'_>,
    own: *const f32,
) {
    let [row_step, step] = tables.grad_steps;
    let after = |positions: usize| (place.after(positions, walk), own.wrapping_add(positions.wrapping_mul(step)));
    if tile.rows == 2 && tile.kind != PARTIAL {
        with_const!(tile.len, R in [1 2 3 4] if S::REGISTERS >= 32 => {
            // SAFETY: as this function asks.
            unsafe {
                if tile.kind == INSIDE || SUMS == OUTSIDE {
                    alike!(simd, tile, R, at in after => two_rows::<S, R, INSIDE, SUMS>(simd, walk, *tables, at));
                } else {
                    alike!(simd, tile, R, at in after => two_rows::<S, R, EDGE, SUMS>(simd, walk, *tables, at));
                }
            }
        });
        return;
    }
    for row in 0..tile.rows {
        let after = |positions: usize| {
            let (place, own) = after(positions);
            (place.below(row, walk), own.wrapping_add(row.wrapping_mul(row_step)))
        };
        with_const!(tile.len, R in [1 2 3 4 5 6 7 8] if R <= most_positions::<S>() => {
            // SAFETY: as this function asks.
            unsafe {
                match tile.kind {
                    INSIDE if SUMS != OUTSIDE => {
                        alike!(simd, tile, R, at in after => positions::<S, R, INSIDE, SUMS>(simd, walk, *tables, at));
                    }
                    INSIDE | EDGE => alike!(simd, tile, R, at in after => positions::<S, R, EDGE, SUMS>(simd, walk, *tables, at)),
                    _ => alike!(simd, tile, R, at in after => positions::<S, R, PARTIAL, SUMS>(simd, walk, *tables, at)),
                }
            }
        });
    }
}

/// Where the tables of a call, or of a row, begin.
#[derive(Clone, Copy)]
struct Tables {
    thetas: ThetaTable,
    /// These two where there are inputs.
    source: *const f32,
    sums: *mut f32,
    outside: Option<*mut f32>,
    bias: Option<*mut f32>,
    /// From the gradients of a row, and from that of a position, to the next ones.
    grad_steps: [usize; 2],
}

impl Tables {
    /// Vectors for a channel: its thresholds in all lanes, and sums that begin with zeros.
    ///
    /// # Safety
    ///
    /// [In reach](Vector#in-reach): the thresholds of the channel; three vectors per tap, and one.
    unsafe fn spread<S: Vector>(self, simd: S, walk: &Walk<'_>, channel: usize, to: &mut [f32]) -> Self {
        let len = walk.taps * S::LANES;
        // SAFETY: in reach.
        let thetas = unsafe { self.thetas.spread(simd, channel, walk.taps, to.as_mut_ptr()) };
        let mut tables = Self { thetas, ..self };
        to[len..3 * len + S::LANES].fill(0.0);
        tables.sums = to[len..].as_mut_ptr();
        tables.outside = self.outside.map(|_| to[2 * len..].as_mut_ptr());
        tables.bias = self.bias.map(|_| to[3 * len..].as_mut_ptr());
        tables
    }

    /// Adds a channel's sums to those of the call.
    ///
    /// # Safety
    ///
    /// [In reach](Vector#in-reach): the sums of both.
    unsafe fn gather<S: Vector>(self, simd: S, walk: &Walk<'_>, channel: usize, all: Self) {
        let (taps, at) = (walk.taps, in_table::<S>(channel, walk.taps));
        // SAFETY: in reach.
        outlined!(simd => unsafe {
            if !all.sums.is_null() {
                gather(simd, self.sums, taps, all.sums.add(at));
            }
            if let (Some(own), Some(all)) = (self.outside, all.outside) {
                gather(simd, own, taps, all.add(at));
            }
            if let (Some(own), Some(all)) = (self.bias, all.bias) {
                gather(simd, own, 1, all.add(channel));
            }
        });
    }
}

/// A tile of `R` positions.
///
/// # Safety
///
/// The walk and the tables are those of a [checked](Kernel#checked) call, and the place is that of `R` positions of a row, whose output gradients
/// lie from `own` on; the lanes are the call's. Of [`INSIDE`] tiles, all taps read inside.
#[inline(always)]
unsafe fn positions<S: Vector, const R: usize, const KIND: usize, const SUMS: usize>(
    simd: S,
    walk: &Walk<'_>,
    tables: Tables,
    (place, own): (Place<'_>, *const f32),
) {
    let Walk { tap_step, outside, outside_taps, columns, .. } = *walk;
    let mask = mask_of::<S, KIND>(simd, place.own);
    let per_vector = walk.per_lane() * S::LANES;
    let (mut table, mut lane) = (place.lanes[0] * walk.per_lane(), place.lanes[0]);
    while lane < place.lanes[1] {
        // SAFETY: checked: the gradients are the call's, and there are thresholds and sums for all taps and lanes.
        unsafe {
            let mut g = [simd.splat_f32s(0.0); R];
            let mut from = own.wrapping_add(lane);
            for g in &mut g {
                *g = load::<S, KIND>(simd, mask, from);
                from = from.wrapping_add(tables.grad_steps[1]);
            }
            let outside_sums = tables.outside.map(|sums| sums.wrapping_add(table));
            if tables.bias.is_some() || outside_sums.is_some() && !outside.is_empty() {
                let mut sum = g[0];
                for g in &g[1..] {
                    sum = simd.add_f32s(sum, *g);
                }
                if let Some(bias) = tables.bias {
                    add_to(simd, bias.wrapping_add(if walk.strips { 0 } else { lane }), sum);
                }
                if let Some(sums) = outside_sums {
                    for &first in outside {
                        for tap in first as usize..first as usize + outside_taps {
                            add_to(simd, sums.add(tap * S::LANES), sum);
                        }
                    }
                }
            }
            let source = place.source.wrapping_add(lane);
            for &words in place.segments {
                let segment = Prepared::of(words);
                let taps = Taps {
                    source: source.wrapping_add(segment.source),
                    source_step: columns.source_step,
                    inside: segment.inside::<KIND>(place.position),
                    lanes: segment.lanes(lane),
                    own: place.own,
                    thetas: tables.thetas.at(table + segment.table),
                    // Without inputs they are not used.
                    sums: tables.sums.wrapping_add(table + segment.table),
                    outside: outside_sums.map(|sums| sums.add(segment.table)),
                    step: tap_step * S::LANES as isize,
                    theta_step: tap_step * (S::LANES & tables.thetas.bits) as isize,
                };
                with_const!(segment.taps, T in [1 2 3] => {
                    // Where some lanes are another's, their zeros meet what may be infinite.
                    if KIND == PARTIAL && all_lanes::<S>(taps.lanes) && all_lanes::<S>(place.own) {
                        add::<S, R, T, EDGE, SUMS>(simd, &g, taps);
                    } else {
                        add::<S, R, T, KIND, SUMS>(simd, &g, taps);
                    }
                });
            }
        }
        lane += S::LANES;
        table += per_vector;
    }
}

/// A tile of `R` positions of two rows, which [share](Walk::pairs) what they read: what the first row reads through a kernel row, the
/// second one reads through the kernel row before. The sums of all taps are in registers.
///
/// # Safety
///
/// As [`positions`], of both rows. There are inputs, or the bias alone is wanted.
#[inline(always)]
unsafe fn two_rows<S: Vector, const R: usize, const KIND: usize, const SUMS: usize>(
    simd: S,
    walk: &Walk<'_>,
    tables: Tables,
    (place, own): (Place<'_>, *const f32),
) {
    const TAPS: usize = SQUARE * SQUARE;
    let (rows, inside) = place.of_pair::<KIND>(walk);
    let theta_step = S::LANES & tables.thetas.bits;
    let zero = simd.splat_f32s(0.0);
    let mut lane = place.lanes[0];
    while lane < place.lanes[1] {
        let table = lane * TAPS;
        let thetas_from = tables.thetas.at(table);
        // SAFETY: checked: the gradients are the call's, and there are thresholds and sums for all taps and lanes.
        unsafe {
            let mut g = [[zero; R]; 2];
            for (row, g) in g.iter_mut().enumerate() {
                let mut from = own.wrapping_add(lane).wrapping_add(row.wrapping_mul(tables.grad_steps[0]));
                for g in g {
                    *g = simd.load(from);
                    from = from.wrapping_add(tables.grad_steps[1]);
                }
            }
            if let Some(bias) = tables.bias {
                let mut sum = simd.add_f32s(g[0][0], g[1][0]);
                for (above, below) in g[0][1..].iter().zip(&g[1][1..]) {
                    sum = simd.add_f32s(sum, simd.add_f32s(*above, *below));
                }
                add_to(simd, bias.wrapping_add(lane), sum);
            }
            if SUMS == OUTSIDE {
                lane += S::LANES;
                continue;
            }
            let (mut thetas, mut sums) = ([zero; TAPS], [zero; TAPS]);
            for tap in 0..TAPS {
                sums[tap] = simd.load(tables.sums.add(table + tap * S::LANES));
                if SUMS == CLAMPED {
                    thetas[tap] = simd.load(thetas_from.add(tap * theta_step));
                }
            }
            few!(ROW in 0..SQUARE + 1 => {
                let row = ROW;
                let at = apart::<{ PAIRED + SQUARE - 1 }>(rows[row].wrapping_add(lane), walk.columns.source_step);
                for j in 0..R + SQUARE - 1 {
                    let is_inside = KIND == INSIDE || inside >> j & 1 != 0;
                    let x = if is_inside { simd.load(at[j]) } else { zero };
                    for (q, g) in g.iter().enumerate() {
                        for t in 0..SQUARE {
                            if row >= q && row - q < SQUARE && j >= t && j - t < R {
                                let tap = (row - q) * SQUARE + t;
                                if is_inside {
                                    let x = if SUMS == CLAMPED { simd.activate(x, thetas[tap]) } else { x };
                                    sums[tap] = simd.mul_add(g[j - t], x, sums[tap]);
                                } else if let Some(outside) = tables.outside {
                                    add_to(simd, outside.add(table + tap * S::LANES), g[j - t]);
                                }
                            }
                        }
                    }
                }
            });
            for (tap, sum) in sums.into_iter().enumerate() {
                simd.store(tables.sums.add(table + tap * S::LANES), sum);
            }
        }
        lane += S::LANES;
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
    lanes: [usize; 2],
    /// The lanes that are no other vector's.
    own: [usize; 2],
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
) {
    let (mut thetas, mut sums) = ([simd.splat_f32s(0.0); T], [simd.splat_f32s(0.0); T]);
    let Taps { lanes: [start, end], own, .. } = taps;
    let inner = mask_of::<S, KIND>(simd, [start.max(own[0]), end.min(own[1])]);
    let at = apart::<MOST_READ>(taps.source, taps.source_step);
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
                    let x = load::<S, KIND>(simd, inner, at[j]);
                    for t in 0..T {
                        if j >= t && j - t < R {
                            let x = if SUMS == CLAMPED { simd.activate(x, thetas[t]) } else { x };
                            sums[t] = if KIND == PARTIAL {
                                // Zero times what is infinite would be NaN.
                                let product = simd.mul_f32s(g[j - t], x);
                                simd.add_f32s(sums[t], simd.keep(inner.mask(), product))
                            } else {
                                simd.mul_add(g[j - t], x, sums[t])
                            };
                        }
                    }
                }
            } else if SUMS == OUTSIDE && KIND == EDGE {
                for t in 0..T {
                    if j >= t && j - t < R {
                        sums[t] = simd.add_f32s(sums[t], g[j - t]);
                    }
                }
            } else if let (Some(outside), true) = (taps.outside, KIND == EDGE) {
                for t in 0..T {
                    if j >= t && j - t < R {
                        add_to(simd, outside.offset(t as isize * taps.step), g[j - t]);
                    }
                }
            }
        }
        if SUMS != OUTSIDE {
            for (t, sum) in sums.into_iter().enumerate() {
                simd.store(taps.sums.offset(t as isize * taps.step), sum);
            }
        } else if let (Some(outside), true) = (taps.outside, KIND == EDGE) {
            for (t, sum) in sums.into_iter().enumerate() {
                add_to(simd, outside.offset(t as isize * taps.step), sum);
            }
        }
        if KIND != PARTIAL || start <= own[0] && end >= own[1] && taps.inside.trailing_ones() as usize >= R + T - 1 {
            return;
        }
        if let Some(outside) = taps.outside {
            for t in 0..T {
                let to = outside.offset(t as isize * taps.step);
                let mut sum = simd.load(to);
                for (r, &g) in g.iter().enumerate() {
                    let inside = taps.inside >> (r + t) & 1 != 0;
                    let padded = if inside { simd.discard(inner.mask(), g) } else { g };
                    sum = simd.add_f32s(sum, padded);
                }
                simd.store(to, sum);
            }
        }
    }
}
