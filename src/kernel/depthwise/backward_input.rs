//! Depthwise kernel of the gradients of input and thresholds. A tile's inputs and their gradients are in registers, the sums of
//! the thresholds' gradients in the first-level cache.

use super::{
    EDGE, INSIDE, MOST_READ, Own, PARTIAL, Place, Prepared, SegmentWords, ThetaTable, Thetas, Walk, all_lanes, apart,
    few_positions, gather, in_table, load, mask_of, spread,
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
    /// Of strips: three vectors per tap.
    pub(crate) spread: &'a mut [f32],
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
    /// Whether a tile goes through all rows before the next tile, so that its set-up is paid once. Rows that the caches do not
    /// hold are better read from end to end. (Rows of strips are channels, which have coefficients of their own.)
    pub(crate) rows_together: bool,
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
        _ if S::FEW_TILES => few_positions::<S>(),
        (32.., _) => 8,
        (_, PER_TAP) => 4,
        _ => 7,
    }
}

impl Kernel for DepthwiseBackwardInput<'_> {
    fn check<S: Vector>(&self) {
        let Self { walk, room, spread, source, weight, thetas, input, grad_input, sums, .. } = self;
        walk.check_spread::<S>(walk.taps.saturating_mul(3), spread);
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

/// # Safety
///
/// The call is [checked](Kernel#checked).
#[inline(never)]
unsafe fn walk<S: Vector, const THETAS: usize>(simd: S, call: &mut DepthwiseBackwardInput<'_>) {
    // What is not read begins anywhere, with steps that are not used.
    let Own { data, steps } = call.input.unwrap_or(Own { data: &INFINITE, steps: [0; 2] });
    let (grad_input, [_, _, grad_row, grad_step]) = match &call.grad_input {
        Some(pixels) => (pixels.first, pixels.positions.steps[0]),
        None => (core::ptr::null_mut(), [0; 4]),
    };
    let (walk, splat) = (call.walk, call.thetas.splat());
    let all = Tables {
        weight: call.weight.as_ptr(),
        thetas: call.thetas.table(&splat),
        sums: call.sums.as_mut_ptr(),
        input_step: steps[1],
        grad_step,
        add: call.add,
    };
    let segments = walk.prepare::<S>(core::mem::take(&mut call.room));
    let tiles = walk.tiles::<S>(1, most_rows::<S>(THETAS));
    let together = if walk.strips || !call.rows_together { 1 } else { walk.rows.count };
    for (lanes, row) in
        walk.chunks().flat_map(|lanes| (0..walk.rows.count).step_by(together).map(move |row| (lanes, row)))
    {
        // SAFETY: checked: the row's channel has coefficients and sums, and there is room for their vectors.
        let tables = if walk.strips { unsafe { all.spread(simd, &walk, row, call.spread) } } else { all };
        let source = call.source.as_ptr().wrapping_add(row * walk.rows.source_step);
        tiles.for_each::<S>(&walk, lanes, source, segments, |tile, place| {
            // Used where there is a next one, which lies in the tensor then.
            let own = Inputs {
                input: data.as_ptr().wrapping_add(row * steps[0] + tile.position * steps[1]),
                grad_input: grad_input.wrapping_add(row * grad_row + tile.position * grad_step),
                wanted: !grad_input.is_null(),
                rows: together,
                row_steps: [walk.rows.source_step, steps[0], grad_row],
            };
            let after = |positions: usize| (place.after(positions, &walk), own.after(positions, &all));
            with_const!(tile.len, R in [1 2 3 4 5 6 7 8] if R <= most_rows::<S>(THETAS) => {
                // SAFETY: checked; the tile lies in the walk.
                unsafe {
                    match tile.kind {
                        INSIDE => alike!(simd, tile, R, at in after => positions::<S, R, INSIDE, THETAS>(simd, &walk, tables, at)),
                        EDGE => alike!(simd, tile, R, at in after => positions::<S, R, EDGE, THETAS>(simd, &walk, tables, at)),
                        _ => alike!(simd, tile, R, at in after => positions::<S, R, PARTIAL, THETAS>(simd, &walk, tables, at)),
                    }
                }
            });
        });
        if walk.strips && THETAS != LINEAR {
            let at = in_table::<S>(row, walk.taps);
            // One that serves all taps has but the sums of the first.
            let taps = if THETAS == UNIFORM { 1 } else { walk.taps };
            // SAFETY: as above.
            outlined!(simd => unsafe { gather(simd, tables.sums, taps, all.sums.add(at)) });
        }
    }
}

/// Where the tables of a call, or of a row, begin.
#[derive(Clone, Copy)]
struct Tables {
    weight: *const f32,
    thetas: ThetaTable,
    /// Where there are none, they are not used.
    sums: *mut f32,
    /// From a position to the next one.
    input_step: usize,
    grad_step: usize,
    add: bool,
}

impl Tables {
    /// Vectors for a channel: its coefficients in all lanes, and sums that begin with zeros.
    ///
    /// # Safety
    ///
    /// [In reach](Vector#in-reach): the coefficients of the channel; three vectors per tap.
    unsafe fn spread<S: Vector>(self, simd: S, walk: &Walk<'_>, channel: usize, to: &mut [f32]) -> Self {
        let (taps, at) = (walk.taps, in_table::<S>(channel, walk.taps));
        let (weight, rest) = to.split_at_mut(taps * S::LANES);
        let (thetas, sums) = rest.split_at_mut(taps * S::LANES);
        sums[..taps * S::LANES].fill(0.0);
        let (weight, thetas) = (weight.as_mut_ptr(), thetas.as_mut_ptr());
        // SAFETY: in reach.
        let thetas = unsafe { self.thetas.spread(simd, channel, taps, thetas) };
        // SAFETY: in reach.
        outlined!(simd => unsafe { spread(simd, self.weight.add(at), taps, weight) });
        Self { weight, thetas, sums: sums.as_mut_ptr(), ..self }
    }
}

/// A tile's inputs and their gradients.
#[derive(Clone, Copy)]
struct Inputs {
    input: *const f32,
    grad_input: *mut f32,
    wanted: bool,
    /// The rows, and the distances from one to the next: of what they read, of inputs, and of their gradients.
    rows: usize,
    row_steps: [usize; 3],
}

impl Inputs {
    /// Those of a tile some positions further.
    #[inline(always)]
    const fn after(self, positions: usize, tables: &Tables) -> Self {
        let input = self.input.wrapping_add(positions.wrapping_mul(tables.input_step));
        Self { input, grad_input: self.grad_input.wrapping_add(positions.wrapping_mul(tables.grad_step)), ..self }
    }
}

/// A tile of `R` positions, in some rows.
///
/// # Safety
///
/// The walk and the tables are those of a [checked](Kernel#checked) call. The place is that of `R` positions of the first row, whose inputs
/// and gradients those given are; the lanes are the call's. Of [`INSIDE`] tiles, all taps read inside.
#[inline(always)]
unsafe fn positions<S: Vector, const R: usize, const KIND: usize, const THETAS: usize>(
    simd: S,
    walk: &Walk<'_>,
    tables: Tables,
    (place, own): (Place<'_>, Inputs),
) {
    let Walk { tap_step, columns, .. } = *walk;
    let (zero, mask) = (simd.splat_f32s(0.0), mask_of::<S, KIND>(simd, place.own));
    let per_vector = walk.per_lane() * S::LANES;
    let Inputs { mut input, mut grad_input, wanted, rows, row_steps } = own;
    let mut first = place.source;
    for _ in 0..rows {
        let (mut table, mut lane) = (place.lanes[0] * walk.per_lane(), place.lanes[0]);
        while lane < place.lanes[1] {
            // SAFETY: checked: the inputs and their gradients are the call's, and there are weights, thresholds and sums for all taps
            // and lanes.
            unsafe {
                let weight = tables.weight.wrapping_add(table);
                let sums = tables.sums.wrapping_add(table);
                let mut x = [zero; R];
                if THETAS != LINEAR {
                    let mut from = input.wrapping_add(lane);
                    for x in &mut x {
                        *x = load::<S, KIND>(simd, mask, from);
                        if KIND == PARTIAL {
                            // It is on neither side of a threshold.
                            *x = simd.select_f32s(mask.mask(), *x, simd.splat_f32s(f32::NAN));
                        }
                        from = from.wrapping_add(tables.input_step);
                    }
                }
                let mut gradients = [zero; R];
                let source = first.wrapping_add(lane);
                for &words in place.segments {
                    let segment = Prepared::of(words);
                    let taps = Taps {
                        source: source.wrapping_add(segment.source),
                        source_step: columns.source_step,
                        inside: segment.inside::<KIND>(place.position),
                        lanes: segment.lanes(lane),
                        weight: weight.wrapping_add(segment.table),
                        thetas: tables.thetas.at(table + segment.table),
                        sums: sums.wrapping_add(segment.table),
                        step: tap_step * S::LANES as isize,
                    };
                    with_const!(segment.taps, T in [1 2 3] => {
                        if KIND == PARTIAL && all_lanes::<S>(taps.lanes) {
                            add::<S, R, T, EDGE, THETAS>(simd, &x, &mut gradients, taps);
                        } else {
                            add::<S, R, T, KIND, THETAS>(simd, &x, &mut gradients, taps);
                        }
                    });
                }
                if THETAS == UNIFORM {
                    let theta = simd.load(tables.thetas.at(0));
                    let mut held = simd.load(sums);
                    for r in 0..R {
                        let holds = simd.less_than_or_equal_f32s(x[r], theta);
                        held = simd.add_where(holds, held, gradients[r]);
                        gradients[r] = simd.discard(holds, gradients[r]);
                    }
                    simd.store(sums, held);
                }
                for r in 0..R {
                    if THETAS != LINEAR {
                        // A NaN exceeds nothing, though it is not less or equal either.
                        gradients[r] = simd.keep(simd.less_than_or_equal_f32s(x[r], x[r]), gradients[r]);
                    } else if KIND == PARTIAL {
                        gradients[r] = simd.keep(mask.mask(), gradients[r]);
                    }
                }
                let mut to = grad_input.wrapping_add(lane);
                if wanted {
                    for mut gradient in gradients {
                        if KIND == PARTIAL && !place.stored {
                            if tables.add {
                                gradient = simd.add_f32s(simd.mask_load_ptr_f32s(mask, to), gradient);
                            }
                            simd.mask_store_ptr_f32s(mask, to, gradient);
                        } else {
                            if tables.add {
                                gradient = simd.add_f32s(simd.load(to), gradient);
                            }
                            simd.store(to, gradient);
                        }
                        to = to.wrapping_add(tables.grad_step);
                    }
                }
            }
            lane += S::LANES;
            table += per_vector;
        }
        // Wrap around behind the last row, where they are not used.
        first = first.wrapping_add(row_steps[0]);
        input = input.wrapping_add(row_steps[1]);
        grad_input = grad_input.wrapping_add(row_steps[2]);
    }
}

/// What a segment's taps read, their coefficients and sums.
#[derive(Clone, Copy)]
struct Taps {
    source: *const f32,
    source_step: usize,
    inside: u32,
    lanes: [usize; 2],
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
) {
    if THETAS == PER_TAP {
        // SAFETY: in reach.
        unsafe { add_by_tap::<S, R, T, KIND>(simd, x, gradients, taps) };
        return;
    }
    let (mut weights, mut thetas) = ([simd.splat_f32s(0.0); T], [simd.splat_f32s(0.0); T]);
    let mut sums = [simd.splat_f32s(0.0); T];
    let mask = mask_of::<S, KIND>(simd, taps.lanes);
    let at = apart::<MOST_READ>(taps.source, taps.source_step);
    // SAFETY: in reach.
    unsafe {
        for t in 0..T {
            weights[t] = simd.load(taps.weight.offset(t as isize * taps.step));
            if KIND == PARTIAL {
                // What is not finite times zero would be NaN.
                weights[t] = simd.keep(mask.mask(), weights[t]);
            }
            if THETAS == WEIGHTED {
                thetas[t] = simd.load(taps.thetas.offset(t as isize * taps.step));
                sums[t] = simd.load(taps.sums.offset(t as isize * taps.step));
            }
        }
        for (j, at) in at.into_iter().enumerate().take(R + T - 1) {
            if KIND != INSIDE && taps.inside >> j & 1 == 0 {
                continue;
            }
            let g = load::<S, KIND>(simd, mask, at);
            for t in 0..T {
                if j < t || j - t >= R {
                    continue;
                }
                let r = j - t;
                if THETAS == WEIGHTED {
                    let holds = simd.less_than_or_equal_f32s(x[r], thetas[t]);
                    let g = simd.mul_f32s(weights[t], g);
                    sums[t] = simd.add_where(holds, sums[t], g);
                    gradients[r] = simd.add_f32s(gradients[r], simd.discard(holds, g));
                } else {
                    gradients[r] = simd.mul_add(weights[t], g, gradients[r]);
                }
            }
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
) {
    // Zeros outside add nothing: the weights are finite.
    let mut g = [simd.splat_f32s(0.0); MOST_READ];
    let mask = mask_of::<S, KIND>(simd, taps.lanes);
    let at = apart::<MOST_READ>(taps.source, taps.source_step);
    // SAFETY: in reach.
    unsafe {
        for (j, g) in g.iter_mut().enumerate().take(R + T - 1) {
            if KIND == INSIDE || taps.inside >> j & 1 != 0 {
                *g = load::<S, KIND>(simd, mask, at[j]);
            }
        }
        for t in 0..T {
            let offset = t as isize * taps.step;
            let (weight, theta) = (simd.load(taps.weight.offset(offset)), simd.load(taps.thetas.offset(offset)));
            let mut sum = simd.load(taps.sums.offset(offset));
            for r in 0..R {
                let holds = simd.less_than_or_equal_f32s(x[r], theta);
                sum = simd.add_where(holds, sum, g[r + t]);
                gradients[r] = simd.mul_add(weight, simd.discard(holds, g[r + t]), gradients[r]);
            }
            simd.store(taps.sums.offset(offset), sum);
        }
    }
}
