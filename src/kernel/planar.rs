//! Kernels with positions in lanes: sums of broadcast weights times vectors of consecutive positions.
//!
//! A tile is `MR` vectors of positions by `NR` channels, held in `MR · NR` accumulators. Each step of the sum costs `MR`
//! loads (at any alignment: a tap is a shift), `NR` broadcasts and `MR · NR` multiply-adds:
//!
//! | | tile | multiply-adds / loads per step | cycles at 2 FMA and 2 loads per cycle |
//! |---|---|---|---|
//! | AVX-512 | 2 × 12 | 24 / 14 | 12 |
//! | AVX2 | 2 × 6 | 12 / 8 | 6 |
//! | NEON | 2 × 12 | 24 / 5 | 12 |
//! | plain Rust, 32 registers | 3 × 8 | 24 / 11 | 12 |
//!
//! (on NEON, which multiplies by a lane, a load of four weights serves four broadcasts) so the multiply-adds are the limit
//! as long as the staged planes come from L2 (11 bytes per cycle for 2 × 12) and a panel of weights stays in L1 or L2. The clamp is one `max` per vector loaded, `1/NR` per multiply-add, on ports that
//! multiply-adds leave free.

use core::mem::MaybeUninit;
use core::ops::Range;

use super::offsets::Offsets;
use super::tile::{Interleaved, Sums, add_products, add_to, framed, load, panel_widths, store, unrolled, with_const};
use super::vector::{MOST_LANES, Vector, inputs_or_infinite};
use super::view::RowsMut;
use super::{Kernel, VECTORS};
use crate::arith::{max, min};
use crate::geometry::Panels;

/// Runs of consecutive positions that a kernel walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Number of runs.
    pub(crate) count: usize,
    /// Positions of each run.
    pub(crate) len: usize,
    /// Distance of runs in the staged source.
    pub(crate) source_step: usize,
    /// Distance of runs in the kernel's result (and in its other per-position operands).
    pub(crate) result_step: usize,
}

impl Runs {
    /// Those of a block of `height` rows of `width` positions whose staged rows are `row` apart: row by row, or in one run across
    /// the gaps between rows where that takes fewer vectors.
    pub(crate) const fn of(height: usize, width: usize, row: usize, lanes: usize) -> Self {
        let across = (height - 1) * row + width;
        if height == 1 || across.div_ceil(lanes) < height * width.div_ceil(lanes) {
            Self { count: 1, len: across, source_step: row, result_step: row }
        } else {
            Self { count: height, len: width, source_step: row, result_step: width.next_multiple_of(lanes) }
        }
    }

    /// Elements from the start of the first run to the end of the last one's last whole vector, at distance `step`.
    const fn span(&self, step: usize, lanes: usize) -> usize {
        match self.count {
            0 => 0,
            // Saturates: the bounds checks that rest on it must not wrap.
            count => (count - 1).saturating_mul(step).saturating_add(self.len.next_multiple_of(lanes)),
        }
    }

    /// Elements of one channel of the kernel's result.
    pub(crate) const fn result_len(&self, lanes: usize) -> usize {
        self.span(self.result_step, lanes)
    }

    /// Elements of the staged source that position offset 0 touches.
    const fn source_len(&self, lanes: usize) -> usize {
        self.span(self.source_step, lanes)
    }
}

/// Elements of the largest tile: in vectors, or of 32 accumulators where there are none.
const MOST_TILE: usize = if VECTORS { 4 * 12 * MOST_LANES } else { 32 };

/// Vectors of positions, from one of a run on.
struct Tile {
    run: usize,
    at: usize,
    vectors: usize,
}

/// Room for a tile.
type TileCopy = MaybeUninit<[f32; MOST_TILE]>;

/// Panels of output channels over one block: `output[c][p] (+)= start[c] + Σ_i weight[i][c] · f(source[offset[i] + p]; θ[i])`.
pub(crate) struct ForwardPanels<'a> {
    pub(crate) source: &'a [f32],
    pub(crate) offsets: Offsets<'a>,
    /// One per offset.
    pub(crate) thresholds: &'a [f32],
    /// `[panel][step][channel]`, of the panels that are computed.
    pub(crate) weight: &'a [f32],
    /// Steps of a panel's weights, and which of them the first offset is.
    pub(crate) depth: usize,
    pub(crate) first_step: usize,
    /// A group's, of the widths of [`Kernels::panel`](super::Kernels::panel), and those that are computed.
    pub(crate) panels: Panels,
    pub(crate) range: Range<usize>,
    /// Positions of the block.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Distance of rows of positions in the source.
    pub(crate) source_row: usize,
    /// One per channel of the range.
    pub(crate) start: &'a [f32],
    /// Whether the output is added to.
    pub(crate) add: bool,
    /// A row per channel of the range, of positions that include the block's.
    pub(crate) output: RowsMut<'a>,
    /// Distance of rows of positions among those of the output.
    pub(crate) output_row: usize,
    /// Most vectors of positions per tile.
    pub(crate) tile: usize,
}

/// One panel of input channels over one block of inputs. With the sum over output channels
/// `G[k][c][p] = Σ_d weight[weight_taps[k]][d][c] · source[d · source_pitch + offset[k] + p]`:
///
/// ```text
/// grad_input[c][p]   += G[k][c][p] where input[c][p] > θ[k][c]
/// grad_thresholds[k][c] += G[k][c][p] where input[c][p] ≤ θ[k][c], lane by lane
/// ```
///
/// Positions that are no inputs hold NaN in `input`, which is neither. Without `input` the layer is linear, all thresholds are
/// −∞: every position exceeds them, those that are no inputs too.
pub(crate) struct BackwardInputPanel<'a> {
    pub(crate) source: &'a [f32],
    pub(crate) source_pitch: usize,
    /// Output channels to sum over.
    pub(crate) depth: usize,
    /// One per tap.
    pub(crate) offsets: Offsets<'a>,
    /// Which tap of the weight each one is.
    pub(crate) weight_taps: Offsets<'a>,
    /// `[weight tap][depth][channel]`, the first two axes `weight_pitch` and `channels` apart.
    pub(crate) weight: &'a [f32],
    pub(crate) weight_pitch: usize,
    /// `[weight tap][channel]`.
    pub(crate) thresholds: &'a [f32],
    /// Channels of the panel: one of [`Kernels::panel`](super::Kernels::panel).
    pub(crate) channels: usize,
    pub(crate) runs: Runs,
    /// `[channel][pitch]`.
    pub(crate) input: Option<&'a [f32]>,
    /// `[channel][pitch]`, added to.
    pub(crate) grad_input: &'a mut [f32],
    pub(crate) pitch: usize,
    /// `[weight tap][channel][lanes]`, added to.
    pub(crate) grad_thresholds: &'a mut [f32],
    /// Most vectors of positions per tile.
    pub(crate) tile: usize,
}

/// A panel over one block, as the walk over its runs sees it: tiles of vectors of positions by channels.
trait Tiles: Kernel {
    fn channels(&self) -> usize;
    fn runs(&self) -> Runs;
    /// Most vectors of positions per tile.
    fn most(&self) -> usize;

    /// One tile of `MR` vectors of positions by `NR` channels, at an offset in the source and one in the results.
    ///
    /// # Safety
    ///
    /// The panel is [checked](Kernel#checked), `NR` is [`channels`](Self::channels), and the `MR` vectors lie within a run.
    unsafe fn run_tile<S: Vector, const MR: usize, const NR: usize>(&mut self, simd: S, source: usize, result: usize);
}

/// Vectors of positions in a tile with `channels` channels: accumulators, a vector of the source per vector of
/// positions, and two broadcasts must fit the register file, or accumulators are spilled in the hot loop. Where weights are
/// held together, so must they be, the threshold, and two vectors of the next step.
const fn tile_vectors<S: Vector>(channels: usize) -> usize {
    let others = if S::AT_HAND == 1 { 2 } else { 3 + channels.div_ceil(S::AT_HAND) };
    let fit = (S::REGISTERS - others) / (channels + 1);
    if fit < S::TILE { fit } else { S::TILE }
}

/// The vectors of positions of the widest tile, of at most `most`, in a panel of `channels`.
const fn widest_tile<S: Vector>(channels: usize, most: usize) -> usize {
    let fit = tile_vectors::<S>(channels);
    if most >= fit {
        fit
    } else if !S::FEW_TILES {
        most
    } else if channels >= 4 && most >= 2 {
        2
    } else {
        // The last positions of a few channels: rarely many.
        1
    }
}

/// Walks a panel.
///
/// # Safety
///
/// The panel is [checked](Kernel#checked).
#[inline(always)]
unsafe fn walk<S: Vector, P: Tiles>(simd: S, panel: P) {
    with_const!(panel.channels(), NR in [1 2 3 4 5 6 7 8 9 10 11 12] if panel_widths::<S>().contains(NR) => {
        // SAFETY: checked; `NR` is the panel's width.
        unsafe { walk_runs::<S, P, NR>(simd, panel) }
    });
}

/// Walks the runs of a panel, with the constant of its width.
///
/// # Safety
///
/// The panel is [checked](Kernel#checked), and `NR` is its width.
#[inline(always)]
unsafe fn walk_runs<S: Vector, P: Tiles, const NR: usize>(simd: S, mut panel: P) {
    let (runs, most) = (panel.runs(), panel.most());
    for run in 0..runs.count {
        let (mut source, mut result) = (run * runs.source_step, run * runs.result_step);
        let mut left = runs.len.div_ceil(S::LANES);
        while left > 0 {
            let tile = widest_tile::<S>(NR, left.min(most));
            with_const!(tile, MR in [1 2 3 4] if MR == widest_tile::<S>(NR, MR) => {
                // SAFETY: checked; `tile` vectors remain of the run.
                framed!(simd => unsafe { panel.run_tile::<S, MR, NR>(simd, source, result) });
            });
            source += tile * S::LANES;
            result += tile * S::LANES;
            left -= tile;
        }
    }
}

impl ForwardPanels<'_> {
    /// How the positions lie in vectors.
    const fn runs(&self, lanes: usize) -> Runs {
        let (rows, columns) = if self.one_row() { (1, self.rows * self.columns) } else { (self.rows, self.columns) };
        Runs::of(rows, columns, self.source_row, lanes)
    }

    /// Whether rows of positions follow one another without a gap.
    const fn one_row(&self) -> bool {
        self.source_row == self.columns && self.output_row == self.columns
    }

    /// Whether the last tile of a run ends with it, and computes some positions twice: nothing is read behind the run then.
    const fn ends_with_runs(&self, runs: &Runs, lanes: usize) -> bool {
        lanes > 1 && !self.add && !self.gaps(runs) && runs.len >= lanes
    }

    /// Elements of the source from the first position's first offset to the last one that is read.
    const fn source_len(&self, runs: &Runs, lanes: usize) -> usize {
        if self.ends_with_runs(runs, lanes) {
            (runs.count - 1).saturating_mul(runs.source_step).saturating_add(runs.len)
        } else {
            runs.source_len(lanes)
        }
    }

    /// Positions at which all panels take turns. Of few weights, those of a tile: what it reads stays in the first-level cache. Of
    /// weights of more than half a second-level cache of 512 KiB, which would come from the last one for each tile, as many as
    /// keep what they read in the other half.
    fn turn(&self) -> usize {
        const MOST_WEIGHTS: usize = 64 * 1024;
        const MOST_READ: usize = 32 * 1024;
        if self.weight.len() <= MOST_WEIGHTS { 1 } else { MOST_READ / max(self.offsets.table().len(), 1) }
    }
}

impl Kernel for ForwardPanels<'_> {
    fn check<S: Vector>(&self) {
        let (steps, runs) = (self.offsets.table().len(), self.runs(S::LANES));
        let Self { panels, range, .. } = self;
        assert!(range.start < range.end && range.end <= panels.count() && self.tile >= 1);
        assert!(panel_widths::<S>().contains(panels.max()) && panel_widths::<S>().contains(panels.min()));
        assert!(self.source_len(&runs, S::LANES).saturating_add(self.offsets.max()) <= self.source.len());
        assert!(steps <= self.thresholds.len() && self.first_step.saturating_add(steps) <= self.depth);
        let first = panels.start(range.start);
        let channels = panels.start(range.end) - first;
        assert!(channels.saturating_mul(self.depth) <= self.weight.len());
        assert!(self.output.rows == channels && channels <= self.start.len());
        let positions = (self.rows - 1).saturating_mul(self.output_row).saturating_add(self.columns);
        assert!(self.rows >= 1 && self.columns >= 1 && positions <= self.output.len);
        assert!(self.rows == 1 || self.columns <= self.source_row);
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        let runs = self.runs(S::LANES);
        // Vectors that may end with the run.
        let most = if self.ends_with_runs(&runs, S::LANES) { runs.len / S::LANES } else { usize::MAX };
        // Where code is to be small, there is no such cache either.
        let mut copy = TileCopy::uninit();
        let turn = if S::FEW_TILES { usize::MAX } else { self.turn() };
        for run in 0..runs.count {
            let mut first = 0;
            while first < runs.len {
                let mut at = first;
                for panel in self.range.clone() {
                    at = first;
                    while at < runs.len && (at == first || at - first < turn) {
                        let left = (runs.len - at).div_ceil(S::LANES).min(self.tile).min(most);
                        // A tile for all panels, of whatever width.
                        let vectors = widest_tile::<S>(self.panels.max(), left);
                        let vectors = widest_tile::<S>(self.panels.min(), vectors);
                        if most < usize::MAX {
                            at = at.min(runs.len - vectors * S::LANES);
                        }
                        // SAFETY: checked; so many vectors remain of the run, and the last of them has a position in it.
                        unsafe { self.tile_of(simd, panel, Tile { run, at, vectors }, &runs, &mut copy) };
                        at += vectors * S::LANES;
                    }
                }
                first = at;
            }
        }
    }
}

impl ForwardPanels<'_> {
    /// One panel at a tile. `copy` is room for one.
    ///
    /// # Safety
    ///
    /// The call is [checked](Kernel#checked), the panel is one of its, and the vectors lie in the run, where the last one has a
    /// position.
    #[inline(always)]
    unsafe fn tile_of<S: Vector>(
        &self,
        simd: S,
        panel: usize,
        Tile { run, at, vectors }: Tile,
        runs: &Runs,
        copy: &mut TileCopy,
    ) {
        let width = self.panels.start(panel + 1) - self.panels.start(panel);
        let first = self.panels.start(panel) - self.panels.start(self.range.start);
        let RowsMut { first: output, step, apart, .. } = self.output;
        let lanes = vectors * S::LANES;
        // Where code is to be small, one way will do.
        let whole = !S::FEW_TILES && apart == 1 && !self.gaps(runs) && at + lanes <= runs.len;
        let row = output.wrapping_add(first * step + run * self.output_row + at);
        let copy: *mut f32 = copy.as_mut_ptr().cast();
        with_const!(width, NR in [1 2 3 4 5 6 7 8 9 10 11 12] if panel_widths::<S>().contains(NR) => {
            with_const!(vectors, MR in [1 2 3 4] if MR == widest_tile::<S>(NR, MR) => {
                framed!(simd => {
                    // SAFETY: checked: the vectors lie in the run, `NR` channels are the panel's, and rows of the output; where the
                    // tile is whole, so are the positions in each. A copy has room for any tile.
                    unsafe {
                        if whole {
                            self.ask_for::<S, MR, NR>(simd, row);
                        }
                        let sums = self.sum::<S, MR, NR>(simd, first, run * runs.source_step + at);
                        if !whole {
                            store(simd, sums, copy, MR * S::LANES);
                        } else if self.add {
                            add_to(simd, sums, row, step);
                        } else {
                            store(simd, sums, row, step);
                        }
                    }
                })
            })
        });
        if !whole {
            // SAFETY: as many rows of the copy have been written.
            let tile = unsafe { core::slice::from_raw_parts(copy, width * lanes) };
            // SAFETY: checked; the positions are the run's, the channels the panel's.
            unsafe { self.scatter(tile, lanes, first, run, at..min(at + lanes, runs.len), runs) };
        }
    }

    /// Asks for the cache lines that a tile will write: each channel's lie in a plane of its own, which no CPU foresees.
    #[inline(always)]
    fn ask_for<S: Vector, const MR: usize, const NR: usize>(&self, simd: S, row: *const f32) {
        /// Steps below which writing is no wait.
        const FEW_STEPS: usize = 48;
        if self.offsets.table().len() < FEW_STEPS {
            return;
        }
        unrolled!(N in 0..NR => {
            let row = row.wrapping_add(N * self.output.step);
            simd.prefetch_for_writing(row);
            if MR * S::LANES > 16 {
                simd.prefetch_for_writing(row.wrapping_add(16));
            }
        });
    }

    /// The sums of a tile: the panel whose first channel is `first`, the positions from an offset in the source on.
    ///
    /// # Safety
    ///
    /// As [`tile_of`](Self::tile_of); the panel has `NR` channels, the tile `MR` vectors.
    #[inline(always)]
    unsafe fn sum<S: Vector, const MR: usize, const NR: usize>(
        &self,
        simd: S,
        first: usize,
        at: usize,
    ) -> Sums<S, NR, MR> {
        let mut sums = [[simd.splat_f32s(0.0); MR]; NR];
        // SAFETY: checked: starts are as many as channels.
        unrolled!(N in 0..NR => sums[N] = [simd.splat_f32s(unsafe { *self.start.as_ptr().add(first + N) }); MR]);
        let (trips, rest) = self.offsets.trips::<S>();
        // They advance by wrapping arithmetic, because those after the last offset are never read.
        let mut theta = self.thresholds.as_ptr();
        // SAFETY: checked: the panel's weights lie behind those before it; the vectors lie in a run, which begins in the source.
        let (mut weight, source) = unsafe {
            (self.weight.as_ptr().add(first * self.depth + self.first_step * NR), self.source.as_ptr().add(at))
        };
        for trip in trips {
            unrolled!(STEP in 0..S::STEPS => {
                // SAFETY: checked: the vectors at the largest offset; a threshold and `NR` weights for each.
                unsafe { forward_step::<S, MR, NR>(simd, &mut sums, source.add(trip[STEP] as usize), theta, weight) };
                theta = theta.wrapping_add(1);
                weight = weight.wrapping_add(NR);
            });
        }
        for &offset in rest {
            // SAFETY: checked: the vectors at the largest offset; a threshold and `NR` weights for each.
            unsafe { forward_step::<S, MR, NR>(simd, &mut sums, source.add(offset as usize), theta, weight) };
            theta = theta.wrapping_add(1);
            weight = weight.wrapping_add(NR);
        }
        sums
    }

    /// Writes some positions of a run for some channels, from the one that is `first` on: a tile of rows of `pitch`.
    ///
    /// # Safety
    ///
    /// The call is [checked](Kernel#checked), the positions are of the run, the channels the call's.
    #[inline(never)]
    unsafe fn scatter(
        &self,
        tile: &[f32],
        pitch: usize,
        first: usize,
        run: usize,
        positions: Range<usize>,
        runs: &Runs,
    ) {
        let RowsMut { first: output, step, apart, .. } = self.output;
        // Parts of rows of positions, between which there may be gaps.
        let gaps = self.gaps(runs);
        let row_len = if gaps { max(self.source_row, 1) } else { usize::MAX };
        let at = positions.start;
        let (mut line, mut column) = if gaps { (at / row_len, at % row_len) } else { (run, at) };
        let mut done = 0;
        while done < positions.len() {
            let part = min(row_len - column, positions.len() - done);
            let len = if gaps { min(self.columns.saturating_sub(column), part) } else { part };
            for (n, sums) in tile.chunks_exact(pitch).enumerate() {
                let mut to = output.wrapping_add((first + n) * step + (line * self.output_row + column) * apart);
                for sum in &sums[done..done + len] {
                    // SAFETY: checked: the channels are rows of the output, the positions lie in each.
                    unsafe { *to = if self.add { *to + sum } else { *sum } };
                    // Not `add`: after the last element it may point beyond the tensor.
                    to = to.wrapping_add(apart);
                }
            }
            (done, column) = (done + part, column + part);
            if column == row_len {
                (line, column) = (line + 1, 0);
            }
        }
    }

    /// Whether runs go on over what lies between rows of positions.
    const fn gaps(&self, runs: &Runs) -> bool {
        runs.count == 1 && runs.len > self.columns && !self.one_row()
    }
}

/// `sums[n][m] += weight[n] · f(x[m]; θ)`
///
/// # Safety
///
/// [In reach](Vector#in-reach): `MR` vectors at `x`, a threshold at `theta`, `NR` weights at `weight`.
#[inline(always)]
unsafe fn forward_step<S: Vector, const MR: usize, const NR: usize>(
    simd: S,
    sums: &mut Sums<S, NR, MR>,
    x: *const f32,
    theta: *const f32,
    weight: *const f32,
) {
    // SAFETY: in reach: one threshold, and what `load` and `add_products` take.
    unsafe {
        let theta = simd.splat_f32s(*theta);
        let mut x = load::<S, MR>(simd, x);
        unrolled!(M in 0..MR => x[M] = simd.activate(x[M], theta));
        add_products(simd, sums, Interleaved::<NR>(weight), x);
    }
}

impl Kernel for BackwardInputPanel<'_> {
    fn check<S: Vector>(&self) {
        let (lanes, taps) = (S::LANES, self.offsets.table().len());
        assert!(panel_widths::<S>().contains(self.channels) && self.depth >= 1 && self.tile >= 1);
        let deepest = (self.depth - 1).saturating_mul(self.source_pitch).saturating_add(self.offsets.max());
        assert!(self.runs.source_len(lanes).saturating_add(deepest) <= self.source.len());
        assert!(self.weight_taps.table().len() == taps);
        let last_tap = self.weight_taps.max().saturating_mul(self.weight_pitch);
        assert!(self.depth.saturating_mul(self.channels).saturating_add(last_tap) <= self.weight.len());
        let slots = self.weight_taps.max().saturating_add(1).saturating_mul(self.channels);
        assert!(slots <= self.thresholds.len() && slots.saturating_mul(lanes) <= self.grad_thresholds.len());
        let planes = (self.channels - 1).saturating_mul(self.pitch);
        let result = planes.saturating_add(self.runs.result_len(lanes));
        assert!(self.input.is_none_or(|input| result <= input.len()) && result <= self.grad_input.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        // SAFETY: checked, as `walk` asks.
        unsafe { walk(simd, self) }
    }
}

impl Tiles for BackwardInputPanel<'_> {
    fn channels(&self) -> usize {
        self.channels
    }

    fn runs(&self) -> Runs {
        self.runs
    }

    fn most(&self) -> usize {
        self.tile
    }

    #[inline(always)]
    unsafe fn run_tile<S: Vector, const MR: usize, const NR: usize>(&mut self, simd: S, at: usize, result: usize) {
        let zero = simd.splat_f32s(0.0);
        let (offsets, weight_taps) = (self.offsets.table(), self.weight_taps.table());
        let (input, look) = inputs_or_infinite(self.input);
        let (grad_input, grad_thresholds) = (self.grad_input.as_mut_ptr(), self.grad_thresholds.as_mut_ptr());
        for (&offset, &weight_tap) in offsets.iter().zip(weight_taps) {
            let tap = weight_tap as usize;
            let mut sums = [[zero; MR]; NR];
            // SAFETY: checked: the vectors at the largest offset in each of `depth` channels, weights and thresholds up to the
            // last tap, and the run in each plane of inputs and gradients; what stands in for inputs has the
            // `MR` vectors. Pointers advance by wrapping arithmetic, because the one after the last channel is never read.
            unsafe {
                let mut g = self.source.as_ptr().add(at + offset as usize);
                let mut weight = self.weight.as_ptr().add(tap * self.weight_pitch);
                for _ in 0..self.depth {
                    add_products(simd, &mut sums, Interleaved::<NR>(weight), load::<S, MR>(simd, g));
                    g = g.wrapping_add(self.source_pitch);
                    weight = weight.wrapping_add(NR);
                }
                // A copy, for the loop below indexes it: the sums themselves would live in memory all through the loop above.
                let mut finished = [[zero; MR]; NR];
                store(simd, sums, finished.as_mut_ptr().cast(), MR * S::LANES);
                for (n, sums) in finished.iter().enumerate() {
                    let theta = simd.splat_f32s(*self.thresholds.as_ptr().add(tap * NR + n));
                    let to_theta = grad_thresholds.add((tap * NR + n) * S::LANES);
                    let mut clamped = simd.load(to_theta);
                    let x = input.add((n * self.pitch + result) & look);
                    for (m, &sum) in sums.iter().enumerate() {
                        let index = n * self.pitch + result + m * S::LANES;
                        let x = simd.load(x.add(m * S::LANES));
                        let to_input = grad_input.add(index);
                        let passed = simd.keep(simd.greater_than_f32s(x, theta), sum);
                        simd.store(to_input, simd.add_f32s(simd.load(to_input), passed));
                        let held = simd.keep(simd.less_than_or_equal_f32s(x, theta), sum);
                        clamped = simd.add_f32s(clamped, held);
                    }
                    simd.store(to_theta, clamped);
                }
            }
        }
    }
}
