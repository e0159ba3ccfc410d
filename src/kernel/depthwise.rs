//! Depthwise convolutions: every channel is convolved with itself alone, so there is nothing to broadcast a loaded value
//! to.
//!
//! Lanes are the channels (channels last) or consecutive positions (planes). Forward and the backward pass of the input
//! keep a tile of positions in registers and walk the taps; that of the weight keeps a group of taps and walks the positions.
//! Forward needs, per tap, a maximum that loads and a multiply-add, so loads are the limit: one per multiply-add and two
//! per cycle, half of the peak if none crosses a cache line. The backward pass of the weight needs the same two; that of the
//! input multiplies, compares, masks twice and adds twice, six instructions on four ports, a sixth of the peak.

use core::array::from_fn;
use core::ops::Range;

use super::Kernel;
use super::tile::with_const;
use super::vector::{MOST_LANES, Vector, inputs_or_infinite};

/// The offset of a tap that reads padding.
pub(crate) const ABSENT: u32 = u32::MAX;

/// Most taps of a kernel.
pub(crate) const MOST_TAPS: usize = 128;

/// Positions `source_step` apart in the tensor that taps read, and `own_step` apart in the pass's other tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) count: usize,
    pub(crate) source_step: usize,
    pub(crate) own_step: usize,
}

impl Line {
    /// Elements from the first to the last position, in the source and in the others.
    fn span(&self) -> [usize; 2] {
        [self.source_step, self.own_step].map(|step| self.count.saturating_sub(1).saturating_mul(step))
    }
}

/// A vector of positions beside those of each row that are whole vectors: where it begins in the row, in all tensors, and
/// its lanes that belong to no other.
#[derive(Clone, Debug)]
struct Odd {
    at: usize,
    lanes: Range<usize>,
}

/// Rows of positions that a kernel walks, `vectors` of lanes at each.
#[derive(Clone, Debug)]
pub(crate) struct Walk<'a> {
    /// Per tap: where the first position reads the source.
    offsets: &'a [u32],
    rows: Line,
    columns: Line,
    odd: Option<Odd>,
    vectors: usize,
}

impl<'a> Walk<'a> {
    /// Vectors of lanes at a box of positions, which is walked along its rows unless they are one position long.
    pub(crate) fn of_channels(offsets: &'a [u32], rows: Line, columns: Line, vectors: usize) -> Self {
        let (rows, columns) = if columns.count == 1 { (columns, rows) } else { (rows, columns) };
        Self { offsets, rows, columns, odd: None, vectors }
    }

    /// Rows of positions in lanes, `len` long. The last vector of a row may overlap the one before; in rows shorter than a
    /// vector it goes beyond the end.
    pub(crate) fn of_positions(offsets: &'a [u32], rows: Line, len: usize, lanes: usize) -> Self {
        let columns = Line { count: len / lanes, source_step: lanes, own_step: lanes };
        let odd = match len % lanes {
            0 => None,
            _ if len < lanes => Some(Odd { at: 0, lanes: 0..len }),
            last => Some(Odd { at: len - lanes, lanes: lanes - last..lanes }),
        };
        Self { offsets, rows, columns, odd, vectors: 1 }
    }

    /// Asserts that the source and the other tensors hold all that is read and written, and that there are `per_tap`
    /// vectors of coefficients for each vector of lanes and tap.
    fn check(&self, lanes: usize, [source, own]: [usize; 2], coefficients: usize, per_tap: usize) {
        assert!(
            self.rows.count >= 1 && (self.columns.count >= 1 || self.odd.is_some()) && self.offsets.len() <= MOST_TAPS
        );
        let width = self.vectors.saturating_mul(lanes);
        assert!(width.saturating_mul(self.offsets.len()).saturating_mul(per_tap) <= coefficients);
        let mut row = self.columns.span().map(|last| last.saturating_add(width));
        if let Some(odd) = &self.odd {
            assert!(self.vectors == 1 && odd.lanes.end <= lanes);
            row = row.map(|len| len.max(odd.at.saturating_add(lanes)));
        }
        let rows = self.rows.span();
        let last = self.offsets.iter().filter(|&&offset| offset != ABSENT).max();
        if let Some(&last) = last {
            assert!(row[0].saturating_add(rows[0]).saturating_add(last as usize) <= source);
        }
        assert!(row[1].saturating_add(rows[1]) <= own);
    }
}

/// `output[p][l] = start[l] + Σ_k w[k][l] · f(source[offset[k] + p][l]; θ[k][l])`
pub(crate) struct DepthwiseForward<'a> {
    pub(crate) walk: Walk<'a>,
    pub(crate) source: &'a [f32],
    /// `[vector][tap][w, θ][lane]`
    pub(crate) coefficients: &'a [f32],
    /// `[vector][lane]`
    pub(crate) start: &'a [f32],
    pub(crate) output: &'a mut [f32],
}

/// With `G[k][p][l] = w[k][l] · source[offset[k] + p][l]`: `grad_input[p][l]` is the sum of `G` over the taps whose
/// threshold `input[p][l]` exceeds (added to, if `add`); `sums[k][l]` adds `G` over the positions that do not exceed it. NaN
/// inputs do neither.
///
/// Without `input` the layer is linear, all thresholds are −∞: every position exceeds them, even NaN and −∞. Without
/// `grad_input` only `sums` are wanted.
pub(crate) struct DepthwiseBackwardInput<'a> {
    pub(crate) walk: Walk<'a>,
    pub(crate) source: &'a [f32],
    /// `[vector][tap][w, θ][lane]`
    pub(crate) coefficients: &'a [f32],
    pub(crate) input: Option<&'a [f32]>,
    pub(crate) grad_input: Option<&'a mut [f32]>,
    pub(crate) add: bool,
    /// `[vector][tap][lane]`
    pub(crate) sums: &'a mut [f32],
}

/// `sums[k][l] += Σ_p grad_output[p][l] · f(source[offset[k] + p][l]; θ[k][l])`, for the taps that are not [`ABSENT`].
pub(crate) struct DepthwiseBackwardWeight<'a> {
    pub(crate) walk: Walk<'a>,
    pub(crate) source: &'a [f32],
    /// `[vector][tap][lane]`
    pub(crate) thresholds: &'a [f32],
    /// Positions of a row over which the vectors take turns; none where each keeps its sums in registers for all rows. Sums
    /// depend on it, so it must not depend on how many vectors a thread has.
    pub(crate) stretch: Option<usize>,
    pub(crate) grad_output: &'a [f32],
    /// `[vector][tap][lane]`
    pub(crate) sums: &'a mut [f32],
}

/// Elements `r` steps from `at`, for small constants `r`: chained, so that two registers hold the multiples of the step.
///
/// # Safety
///
/// [In reach](Vector#in-reach): the elements.
#[inline(always)]
unsafe fn apart<const R: usize>(at: *const f32, step: usize) -> [*const f32; R] {
    let mut all = [at; R];
    for r in 1..R {
        // SAFETY: in reach: the element, and those before it that it is counted from.
        all[r] = unsafe { if r % 4 == 0 { all[r - 4].add(4 * step) } else { all[r / 4 * 4].add(r % 4 * step) } };
    }
    all
}

/// Cuts `count` positions into tiles of at most `most`, as even as can be. Divides once, not for each tile.
fn tiles(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let tiles = count.div_ceil(most);
    let (size, larger) = (count / tiles.max(1), count % tiles.max(1));
    let mut end = 0;
    (0..tiles).map(move |tile| {
        let start = end;
        end += size + usize::from(tile < larger);
        start..end
    })
}

/// Most positions of a tile, forward: their sums, a weight, a threshold and maxima fit sixteen registers.
const MOST_FORWARD: usize = 8;

/// Most positions of a tile, backward: their inputs and gradients, three more per tap, products and masks.
const MOST_BACKWARD: usize = 4;

impl Kernel for DepthwiseForward<'_> {
    fn check<S: Vector>(&self) {
        let Self { walk, source, coefficients, start, output } = self;
        walk.check(S::LANES, [source.len(), output.len()], coefficients.len(), 2);
        assert!(walk.vectors * S::LANES <= start.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(mut self, simd: S) {
        let Walk { rows, columns, odd, vectors, .. } = self.walk.clone();
        let tiles = tiles(columns.count, MOST_FORWARD);
        for row in 0..rows.count {
            let at = [row * rows.source_step, row * rows.own_step];
            for tile in tiles.clone() {
                let at = [at[0] + tile.start * columns.source_step, at[1] + tile.start * columns.own_step];
                for lane in (0..vectors * S::LANES).step_by(S::LANES) {
                    with_const!(tile.len(), R in [1 2 3 4 5 6 7 8] => {
                        // SAFETY: checked; the tile lies in a row of the walk.
                        unsafe { forward_tile::<S, R>(simd, &mut self, lane, at) }
                    });
                }
            }
            if let Some(odd) = &odd {
                // SAFETY: checked; the odd vector lies in each row of the walk.
                unsafe { forward_tile::<S, 1>(simd, &mut self, 0, at.map(|at| at + odd.at)) }
            }
        }
    }
}

/// # Safety
///
/// The call is [checked](Kernel#checked); `R` positions of a row, or its odd vector, begin at `source` and `to`, and a vector follows
/// `lane`.
#[inline(always)]
unsafe fn forward_tile<S: Vector, const R: usize>(
    simd: S,
    call: &mut DepthwiseForward<'_>,
    lane: usize,
    [source, to]: [usize; 2],
) {
    let Walk { offsets, columns, .. } = call.walk;
    // SAFETY: checked: the positions read inside the source through each tap that is present, and lie in the output; each
    // tap has a weight and a threshold per lane.
    unsafe {
        let mut coefficients = call.coefficients.as_ptr().add(lane * 2 * offsets.len());
        // Beyond the source, perhaps, where all taps are absent.
        let source = call.source.as_ptr().wrapping_add(source + lane);
        let mut sums = [simd.load(call.start.as_ptr().add(lane)); R];
        for &offset in offsets {
            let (weight, theta) = (simd.load(coefficients), simd.load(coefficients.add(S::LANES)));
            coefficients = coefficients.add(2 * S::LANES);
            if offset == ABSENT {
                // Padding is zero: where it stays zero it adds nothing, not even times an infinite weight.
                let zero = simd.splat_f32s(0.0);
                let weight = simd.keep(simd.greater_than_f32s(theta, zero), weight);
                let padded = simd.activate(zero, theta);
                for sum in &mut sums {
                    *sum = simd.mul_add(weight, padded, *sum);
                }
                continue;
            }
            let x = apart::<R>(source.add(offset as usize), columns.source_step);
            for r in 0..R {
                sums[r] = simd.mul_add(weight, simd.activate(simd.load(x[r]), theta), sums[r]);
            }
        }
        let to = apart::<R>(call.output.as_mut_ptr().add(to + lane), columns.own_step);
        for r in 0..R {
            simd.store(to[r].cast_mut(), sums[r]);
        }
    }
}

impl Kernel for DepthwiseBackwardInput<'_> {
    fn check<S: Vector>(&self) {
        let Self { walk, source, coefficients, input, grad_input, sums, .. } = self;
        let own = input.map_or(usize::MAX, <[f32]>::len).min(grad_input.as_ref().map_or(usize::MAX, |own| own.len()));
        walk.check(S::LANES, [source.len(), own], coefficients.len() / 2, 1);
        walk.check(S::LANES, [source.len(), own], sums.len(), 1);
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(mut self, simd: S) {
        let Walk { rows, columns, odd, vectors, .. } = self.walk.clone();
        let mut unwanted = [0.0; MOST_LANES];
        let own = Own {
            input: inputs_or_infinite(self.input),
            grad_input: match &mut self.grad_input {
                Some(own) => (own.as_mut_ptr(), usize::MAX),
                None => (unwanted.as_mut_ptr(), 0),
            },
        };
        let tiles = tiles(columns.count, MOST_BACKWARD);
        for row in 0..rows.count {
            let at = [row * rows.source_step, row * rows.own_step];
            if let Some(odd) = &odd {
                // First: it writes zeros where it overlaps others.
                let counts = lanes_between(simd, &odd.lanes);
                // SAFETY: checked; the odd vector lies in each row of the walk.
                unsafe { backward_input_tile::<S, 1>(simd, &mut self, own, 0, at.map(|at| at + odd.at), Some(counts)) }
            }
            for tile in tiles.clone() {
                let at = [at[0] + tile.start * columns.source_step, at[1] + tile.start * columns.own_step];
                for lane in (0..vectors * S::LANES).step_by(S::LANES) {
                    with_const!(tile.len(), R in [1 2 3 4] => {
                        // SAFETY: checked; the tile lies in a row of the walk.
                        unsafe { backward_input_tile::<S, R>(simd, &mut self, own, lane, at, None) }
                    });
                }
            }
        }
    }
}

/// Where the inputs and their gradients begin, and the bits of offsets that count: none where a vector stands in for them.
#[derive(Clone, Copy)]
struct Own {
    input: (*const f32, usize),
    grad_input: (*mut f32, usize),
}

/// # Safety
///
/// The call is [checked](Kernel#checked), and `own` is its own; `R` positions of a row, or its odd vector, of which only some
/// lanes count, begin at `source` and `at`, and a vector follows `lane`.
#[inline(always)]
unsafe fn backward_input_tile<S: Vector, const R: usize>(
    simd: S,
    call: &mut DepthwiseBackwardInput<'_>,
    own: Own,
    lane: usize,
    [source, at]: [usize; 2],
    counts: Option<S::m32s>,
) {
    let Walk { offsets, columns, .. } = call.walk;
    let zero = simd.splat_f32s(0.0);
    // SAFETY: checked: the positions read inside the source through each tap that is present, and lie in the inputs and
    // gradients; each tap has a weight, a threshold and a sum per lane. A vector that stands in for a tensor is met at its
    // beginning alone.
    unsafe {
        let mut coefficients = call.coefficients.as_ptr().add(lane * 2 * offsets.len());
        let mut sums = call.sums.as_mut_ptr().add(lane * offsets.len());
        // Beyond the source, perhaps, where all taps are absent.
        let source = call.source.as_ptr().wrapping_add(source + lane);
        let (input, look) = own.input;
        let input = apart::<R>(input.add((at + lane) & look), columns.own_step & look);
        let mut x = [zero; R];
        for r in 0..R {
            x[r] = simd.load(input[r]);
            if let Some(counts) = counts {
                x[r] = simd.select_f32s(counts, x[r], simd.splat_f32s(f32::NAN));
            }
        }
        let mut passed = [zero; R];
        for &offset in offsets {
            if offset != ABSENT {
                let (weight, theta) = (simd.load(coefficients), simd.load(coefficients.add(S::LANES)));
                let g = apart::<R>(source.add(offset as usize), columns.source_step);
                let mut held = zero;
                for r in 0..R {
                    // Multiplied before it is masked: zero times an infinite weight would be NaN.
                    let g = simd.mul_f32s(weight, simd.load(g[r]));
                    let holds = simd.less_than_or_equal_f32s(x[r], theta);
                    held = simd.add_f32s(held, simd.keep(holds, g));
                    passed[r] = simd.add_f32s(passed[r], simd.discard(holds, g));
                }
                simd.store(sums, simd.add_f32s(simd.load(sums), held));
            }
            coefficients = coefficients.add(2 * S::LANES);
            sums = sums.add(S::LANES);
        }
        let (to, keep) = own.grad_input;
        let to = apart::<R>(to.add((at + lane) & keep), columns.own_step & keep);
        for r in 0..R {
            let before = if call.add { simd.load(to[r]) } else { zero };
            // A NaN exceeds nothing, though it is not less or equal either.
            let passed = simd.keep(simd.less_than_or_equal_f32s(x[r], x[r]), passed[r]);
            simd.store(to[r].cast_mut(), simd.add_f32s(before, passed));
        }
    }
}

/// Most taps of a group, backward of the weight: a threshold and a sum each, the gradient, the maxima.
const fn most_taps<S: Vector>() -> usize {
    if S::REGISTERS >= 32 { 9 } else { 6 }
}

impl Kernel for DepthwiseBackwardWeight<'_> {
    fn check<S: Vector>(&self) {
        let Self { walk, source, thresholds, grad_output, sums, .. } = self;
        walk.check(S::LANES, [source.len(), grad_output.len()], thresholds.len().min(sums.len()), 1);
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(mut self, simd: S) {
        let Walk { offsets, rows, columns, .. } = self.walk.clone();
        let (mut present, mut taps) = ([0; MOST_TAPS + 1], 0);
        for (k, &offset) in offsets.iter().enumerate() {
            // Fits: there are at most MOST_TAPS.
            present[taps] = k as u8;
            taps += usize::from(offset != ABSENT);
        }
        let groups = taps.div_ceil(most_taps::<S>());
        let (stretch, together) = self.stretch.map_or((usize::MAX, rows.count), |stretch| (stretch, 1));
        for row in (0..rows.count).step_by(together) {
            for start in (0..columns.count.max(1)).step_by(stretch) {
                let positions = start..columns.count.min(start.saturating_add(stretch));
                for group in 0..groups {
                    let own = &present[taps * group / groups..taps * (group + 1) / groups];
                    with_const!(own.len(), N in [1 2 3 4 5 6 7 8 9] if N <= most_taps::<S>() => {
                        let taps: [usize; N] = from_fn(|t| own[t] as usize);
                        // SAFETY: checked; rows and positions lie in the walk, and absent taps were left out.
                        unsafe { backward_weight_group(simd, &mut self, taps, row..row + together, positions.clone()) }
                    });
                }
            }
        }
    }
}

/// # Safety
///
/// The call is [checked](Kernel#checked); the taps are not absent, rows and positions lie in the walk.
#[inline(always)]
unsafe fn backward_weight_group<S: Vector, const T: usize>(
    simd: S,
    call: &mut DepthwiseBackwardWeight<'_>,
    taps: [usize; T],
    rows: Range<usize>,
    positions: Range<usize>,
) {
    let Walk { offsets, columns, rows: Line { source_step, own_step, .. }, ref odd, vectors } = call.walk;
    for lane in (0..vectors * S::LANES).step_by(S::LANES) {
        // SAFETY: checked: a vector follows `lane` at each position; the positions lie in the gradients and, as the taps are
        // present, read inside the source; each tap has a threshold and a sum per lane.
        unsafe {
            let thresholds = call.thresholds.as_ptr().add(lane * offsets.len());
            // Loops, for closures are not sure to be inlined where the instruction set is.
            let (mut thetas, mut sums) = ([simd.splat_f32s(0.0); T], [simd.splat_f32s(0.0); T]);
            let mut x = [call.source.as_ptr(); T];
            for t in 0..T {
                thetas[t] = simd.load(thresholds.add(taps[t] * S::LANES));
                x[t] = x[t].add(offsets[taps[t]] as usize + lane);
            }
            for row in rows.clone() {
                let (mut at, mut own) = (row * source_step, row * own_step + lane);
                if let Some(odd) = odd {
                    let counts = lanes_between(simd, &odd.lanes);
                    let g = simd.keep(counts, simd.load(call.grad_output.as_ptr().add(own + odd.at)));
                    for t in 0..T {
                        let x = simd.activate(simd.load(x[t].add(at + odd.at)), thetas[t]);
                        sums[t] = simd.mul_add(g, simd.keep(counts, x), sums[t]);
                    }
                }
                at += positions.start * columns.source_step;
                own += positions.start * columns.own_step;
                for _ in positions.clone() {
                    let g = simd.load(call.grad_output.as_ptr().add(own));
                    for t in 0..T {
                        sums[t] = simd.mul_add(g, simd.activate(simd.load(x[t].add(at)), thetas[t]), sums[t]);
                    }
                    at = at.wrapping_add(columns.source_step);
                    own = own.wrapping_add(columns.own_step);
                }
            }
            let to = call.sums.as_mut_ptr().add(lane * offsets.len());
            for t in 0..T {
                let to = to.add(taps[t] * S::LANES);
                simd.store(to, simd.add_f32s(simd.load(to), sums[t]));
            }
        }
    }
}

/// The lanes of a range.
#[inline(always)]
fn lanes_between<S: Vector>(simd: S, range: &Range<usize>) -> S::m32s {
    let counts: [f32; MOST_LANES] = from_fn(|lane| if range.contains(&lane) { 1.0 } else { 0.0 });
    // SAFETY: a vector has at most MOST_LANES lanes.
    let counts = unsafe { simd.load(counts.as_ptr()) };
    simd.greater_than_f32s(counts, simd.splat_f32s(0.0))
}
