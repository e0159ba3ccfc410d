//! Kernels of the forward pass and of the input's gradient with positions in lanes: sums of broadcast weights times vectors of
//! consecutive positions.
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
//! NEON multiplies by a lane, so a load of four weights serves four broadcasts.
//!
//! So the multiply-adds are the limit, as long as the staged planes come from the second-level cache (11 bytes per cycle for 2 ×
//! 12) and a panel of weights stays in the first or second level. The clamp is one `max` per loaded vector, that is `1/NR` per
//! multiply-add.

use core::mem::MaybeUninit;
use core::ops::Range;

use super::epilogue::{Channels, Ending, Finished, made};
use super::offsets::Offsets;
use super::tile::{
    Interleaved, Sums, add_products, add_to, few, framed, load, outlined, panel_widths, store, unrolled, with_const,
};
use super::vector::{INFINITE, MOST_LANES, Vector, ZEROS};
use super::view::RowsMut;
use super::{Kernel, VECTORS};
use crate::arith::min;
use crate::geometry::Panels;

/// Positions of a block, and their layout in the planes that a kernel reads and writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positions {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Distance of rows in the source, where the positions of a row are adjacent.
    pub(crate) source_row: usize,
    /// Distances of rows, and of the positions of a row, in the planes of the other tensors, counted in their positions.
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// Runs of positions that are adjacent in the source. A vector may begin at any position of a run.
#[derive(Clone, Copy, Debug)]
struct Runs {
    count: usize,
    /// Positions of each.
    len: usize,
    /// Distance in the source.
    source_step: usize,
    /// Rows of positions in one run, and their distance. There may be gaps between the rows, which hold no positions.
    rows: usize,
    row: usize,
}

impl Positions {
    /// One run per row, or one run across the gaps between rows if that takes fewer vectors.
    const fn runs(&self, lanes: usize) -> Runs {
        let Self { rows, columns, source_row, .. } = *self;
        if self.one_row() {
            let len = rows * columns;
            return Runs { count: 1, len, source_step: source_row, rows: 1, row: len };
        }
        let across = (rows - 1) * source_row + columns;
        if VECTORS && across.div_ceil(lanes) < rows * columns.div_ceil(lanes) {
            Runs { count: 1, len: across, source_step: source_row, rows, row: source_row }
        } else {
            Runs { count: rows, len: columns, source_step: source_row, rows: 1, row: columns }
        }
    }

    /// Whether rows follow one another without a gap in all tensors.
    const fn one_row(&self) -> bool {
        self.source_row == self.columns && self.row == self.columns && self.column == 1
    }

    /// Positions of a plane from the block's first to its last; saturates.
    const fn span(&self) -> usize {
        let last = (self.rows - 1).saturating_mul(self.row);
        last.saturating_add((self.columns - 1).saturating_mul(self.column)).saturating_add(1)
    }
}

impl Runs {
    /// Whether runs have gaps. Without vectors they never have.
    const fn gaps(&self) -> bool {
        VECTORS && self.rows > 1
    }

    /// The row of a position of a run, and the position's number in the row.
    const fn place(&self, run: usize, at: usize) -> (usize, usize) {
        if self.gaps() { (at / self.row, at % self.row) } else { (run, at) }
    }

    /// Elements of the source from the first position to the end of the last position's vector. If vectors end with runs, to the
    /// last position.
    const fn source_len(&self, lanes: usize, end_with_runs: bool) -> usize {
        let last = if end_with_runs { self.len } else { self.len.next_multiple_of(lanes) };
        // Saturates: the bounds checks that rest on it must not wrap.
        (self.count - 1).saturating_mul(self.source_step).saturating_add(last)
    }
}

/// Some panels of channels over a block.
#[derive(Clone, Debug)]
pub(crate) struct PanelBlock {
    /// The panels of a group, with the widths of [`Kernels::panel`](super::Kernels::panel), and the range of those to compute.
    pub(crate) panels: Panels,
    pub(crate) range: Range<usize>,
    pub(crate) positions: Positions,
    /// Most vectors of positions per tile.
    pub(crate) tile: usize,
}

impl PanelBlock {
    fn check<S: Vector>(&self) {
        let Self { panels, range, positions, tile } = self;
        assert!(range.start < range.end && range.end <= panels.count() && *tile >= 1);
        assert!(panel_widths::<S>().contains(panels.max()) && panel_widths::<S>().contains(panels.min()));
        let Positions { rows, columns, source_row, .. } = *positions;
        assert!(rows >= 1 && columns >= 1 && (rows == 1 || columns <= source_row));
    }

    /// Channels of all panels that are computed.
    #[inline(always)]
    const fn channels(&self) -> usize {
        self.panels.start(self.range.end) - self.panels.start(self.range.start)
    }

    /// The channels of one of them, counted from the first.
    #[inline(always)]
    const fn channels_of(&self, panel: usize) -> Range<usize> {
        let Range { start, end } = self.panels.get(panel);
        let first = self.panels.start(self.range.start);
        start - first..end - first
    }
}

/// Elements of the largest tile: vectors, or 32 accumulators in builds without vectors.
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
    pub(crate) block: PanelBlock,
    /// One per channel of the range.
    pub(crate) start: &'a [f32],
    /// Whether the output is added to.
    pub(crate) add: bool,
    /// A row per channel of the range, of positions that include the block's.
    pub(crate) output: RowsMut<'a>,
    /// The epilogue of the sums. If there is one, only the epilogue adds to the output.
    pub(crate) ending: Option<Ending<'a>>,
}

/// Panels of input channels over one block of inputs. With the sum over some output channels
/// `G[k][c][p] = Σ_d weight[weight_taps[k]][d][c] · source[d · source_pitch + offset[k] + p]`:
///
/// ```text
/// grad_input[c][p]  (+)= Σ_k G[k][c][p] where input[c][p] > θ[k][c]
/// grad_thresholds[k][c] += G[k][c][p] where input[c][p] ≤ θ[k][c], lane by lane
/// ```
///
/// Without `input` the layer is linear: all thresholds are −∞, and every position exceeds them.
pub(crate) struct BackwardInputPanels<'a> {
    pub(crate) source: &'a [f32],
    pub(crate) source_pitch: usize,
    /// Output channels to sum over: their number, the number of all, and the first one.
    pub(crate) depth: usize,
    pub(crate) all_depth: usize,
    pub(crate) first_step: usize,
    /// One per tap that reads.
    pub(crate) offsets: Offsets<'a>,
    /// The number of each tap in the weight, and the number of taps there.
    pub(crate) weight_taps: Offsets<'a>,
    pub(crate) all_taps: usize,
    /// `[panel][weight tap][depth][channel]`, of the panels that are computed.
    pub(crate) weight: &'a [f32],
    /// `[panel][weight tap][channel]`.
    pub(crate) thresholds: &'a [f32],
    pub(crate) block: PanelBlock,
    /// The input from the block's first position on. Channels are `step` and positions `apart` elements away from each other, as
    /// in the gradient.
    pub(crate) input: Option<&'a [f32]>,
    pub(crate) step: usize,
    pub(crate) apart: usize,
    /// A row per channel of the range, of positions that include the block's.
    pub(crate) grad_input: Option<RowsMut<'a>>,
    /// Whether it is added to.
    pub(crate) add: bool,
    /// `[panel][weight tap][channel][lanes]`. The kernel adds to it.
    pub(crate) grad_thresholds: &'a mut [f32],
}

/// Vectors of positions in a tile with `channels` channels. Accumulators, a vector of the source per vector of positions, and two
/// broadcasts must fit the register file. Otherwise the hot loop spills accumulators. Where registers hold several weights,
/// these, the threshold and two vectors of the next step must fit as well.
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
        // This case is rare: the last positions of a run, or panels of fewer than four channels.
        1
    }
}

/// A call that computes tiles along the runs of its block.
trait Tiles: Kernel {
    fn block(&self) -> &PanelBlock;

    /// Whether the last tile of a run ends where the run ends. It then computes some positions a second time.
    fn ends_with_runs(&self, _runs: &Runs, _lanes: usize) -> bool {
        false
    }

    /// One panel at a tile.
    ///
    /// # Safety
    ///
    /// The call is [checked](Kernel#checked), and has the panel. All vectors of the tile begin in the run. If tiles [end with
    /// runs](Self::ends_with_runs), no vector reaches beyond the end of the run.
    unsafe fn run_tile<S: Vector>(&mut self, simd: S, panel: usize, tile: Tile, runs: &Runs);

    /// The number of elements of the source that the kernel reads at offset 0, counted from the first position.
    fn source_len(&self, lanes: usize) -> usize {
        let runs = self.block().positions.runs(lanes);
        runs.source_len(lanes, self.ends_with_runs(&runs, lanes))
    }
}

/// Walks all tiles of a panel, then those of the next panel. A panel reads and writes few planes, in the order of their
/// positions.
///
/// # Safety
///
/// The call is [checked](Kernel#checked).
#[inline(always)]
unsafe fn walk<S: Vector, C: Tiles>(simd: S, mut call: C) {
    let PanelBlock { panels, range, positions, tile: most_vectors } = call.block().clone();
    let runs = positions.runs(S::LANES);
    // The number of vectors with which a tile may end with the run.
    let most = if call.ends_with_runs(&runs, S::LANES) { runs.len / S::LANES } else { usize::MAX };
    for panel in range {
        let channels = panels.get(panel).len();
        for run in 0..runs.count {
            let mut next = 0;
            while next < runs.len {
                let left = (runs.len - next).div_ceil(S::LANES).min(most_vectors).min(most);
                let vectors = widest_tile::<S>(channels, left);
                let at = if most < usize::MAX { next.min(runs.len - vectors * S::LANES) } else { next };
                let tile = Tile { run, at, vectors };
                // SAFETY: checked. The run has at least this many vectors left, and the last of them begins in the run.
                unsafe {
                    if S::FEW_TILES {
                        // A function of its own has a small stack frame, and the code to access a small frame is short.
                        outlined!(simd => call.run_tile(simd, panel, tile, &runs));
                    } else {
                        call.run_tile(simd, panel, tile, &runs);
                    }
                }
                next = at + vectors * S::LANES;
            }
        }
    }
}

/// Some channels at some positions of a run: their places in planes and in a tile.
struct Cells<'a> {
    positions: &'a Positions,
    runs: &'a Runs,
    run: usize,
    /// Those of the run.
    range: Range<usize>,
    channels: usize,
    /// Elements from a channel to the next one, and from a position.
    step: usize,
    apart: usize,
    /// Length of the tile's rows.
    pitch: usize,
}

impl Cells<'_> {
    /// Moves each element.
    ///
    /// # Safety
    ///
    /// In reach: the elements of both. The caller alone may write those that the function writes.
    #[inline(never)]
    unsafe fn exchange(&self, tile: *mut f32, planes: *mut f32, way: Way) {
        self.for_each(tile, planes, |_, cell, plane| {
            // SAFETY: in reach.
            unsafe {
                match way {
                    Way::Load => *cell = *plane,
                    Way::Store => *plane = *cell,
                    Way::Add => *plane += *cell,
                }
            }
        });
    }

    /// Finishes each sum and stores it. The channels begin with `first`, whose plane is the first one.
    ///
    /// # Safety
    ///
    /// As [`exchange`](Self::exchange).
    #[inline(never)]
    unsafe fn end(&self, tile: *const f32, planes: *mut f32, ending: &Ending<'_>, first: usize) {
        self.for_each(tile.cast_mut(), planes, |channel, cell, plane| {
            // SAFETY: in reach; a plane's elements lie behind the first one's.
            unsafe {
                let element = plane.offset_from_unsigned(planes) + first * self.step;
                *plane = ending.one(*cell, first + channel, element, &*plane);
            }
        });
    }

    /// Visits each element: its channel, and its places in a tile and in planes.
    #[inline(always)]
    fn for_each(&self, tile: *mut f32, planes: *mut f32, mut visit: impl FnMut(usize, *mut f32, *mut f32)) {
        let Self { positions, runs, .. } = *self;
        let (mut line, mut column) = runs.place(self.run, self.range.start);
        let apart = self.apart.wrapping_mul(positions.column);
        let mut done = 0;
        while done < self.range.len() {
            let part = min(runs.row - column, self.range.len() - done);
            let len = if runs.gaps() { min(positions.columns.saturating_sub(column), part) } else { part };
            let row = line * positions.row * self.apart + column * apart;
            for channel in 0..self.channels {
                // `add` would be undefined behaviour here: after the last element, the pointer may lie beyond the tensor.
                let mut plane = planes.wrapping_add(channel * self.step + row);
                let mut cell = tile.wrapping_add(channel * self.pitch + done);
                for _ in 0..len {
                    visit(channel, cell, plane);
                    (cell, plane) = (cell.wrapping_add(1), plane.wrapping_add(apart));
                }
            }
            (done, column) = (done + part, column + part);
            if column == runs.row {
                (line, column) = (line + 1, 0);
            }
        }
    }
}

/// The direction in which elements move between planes and a tile.
#[derive(Clone, Copy)]
enum Way {
    /// The tile gets them.
    Load,
    /// The planes get them.
    Store,
    /// They are added to the planes.
    Add,
}

impl Way {
    /// To the planes.
    const fn back(add: bool) -> Self {
        if add { Self::Add } else { Self::Store }
    }
}

impl Tiles for ForwardPanels<'_> {
    fn block(&self) -> &PanelBlock {
        &self.block
    }

    fn ends_with_runs(&self, runs: &Runs, lanes: usize) -> bool {
        // An output that the epilogue adds must not be computed twice.
        let adds = self.add || self.ending.is_some_and(|ending| ending.adds());
        lanes > 1 && !adds && !runs.gaps() && runs.len >= lanes
    }

    #[inline(always)]
    unsafe fn run_tile<S: Vector>(&mut self, simd: S, panel: usize, tile: Tile, runs: &Runs) {
        let Tile { run, at, vectors } = tile;
        let channels = self.block.channels_of(panel);
        let (first, width, positions) = (channels.start, channels.len(), &self.block.positions);
        let RowsMut { first: output, step, apart, .. } = self.output;
        let lanes = vectors * S::LANES;
        // With few shapes of tiles, the code must be small. So every tile then goes through a copy.
        let whole = !S::FEW_TILES && apart == 1 && !runs.gaps() && at + lanes <= runs.len;
        let row = output.wrapping_add(first * step + run * positions.row + at);
        let stored = whole && self.ending.is_none();
        let mut copy = TileCopy::uninit();
        let copy: *mut f32 = copy.as_mut_ptr().cast();
        with_const!(width, NR in [1 2 3 4 5 6 7 8 9 10 11 12] if panel_widths::<S>().contains(NR) => {
            with_const!(vectors, MR in [1 2 3 4] if MR == widest_tile::<S>(NR, MR) => {
                framed!(simd => {
                    // SAFETY: checked: the vectors lie in the run. The panel has `NR` channels, and the output has a row for
                    // each. If the tile is whole, each row holds all its positions. A copy has room for any tile.
                    unsafe {
                        if whole {
                            self.ask_for::<S, MR, NR>(simd, row);
                        }
                        let sums = self.sum::<S, MR, NR>(simd, first, run * runs.source_step + at);
                        if !stored {
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
        if !stored {
            let range = at..min(at + lanes, runs.len);
            let cells = Cells { positions, runs, run, range, channels: width, step, apart, pitch: lanes };
            // SAFETY: the tile has written one row of the copy per channel. Checked: the output has a row per channel, and each
            // row holds the positions.
            unsafe {
                match &self.ending {
                    Some(ending) if S::LANES > 1 => self.finish(simd, ending, &cells, first, copy, whole),
                    Some(ending) if made() => cells.end(copy, output.wrapping_add(first * step), ending, first),
                    _ => cells.exchange(copy, output.wrapping_add(first * step), Way::back(self.add)),
                }
            }
        }
    }
}

impl Kernel for ForwardPanels<'_> {
    fn check<S: Vector>(&self) {
        let (steps, channels) = (self.offsets.table().len(), self.block.channels());
        assert!(self.source_len(S::LANES).saturating_add(self.offsets.max()) <= self.source.len());
        assert!(steps <= self.thresholds.len() && self.first_step.saturating_add(steps) <= self.depth);
        assert!(channels.saturating_mul(self.depth) <= self.weight.len() && channels <= self.start.len());
        let span = self.block.positions.span();
        assert!(self.output.rows == channels && span <= self.output.len);
        if let (Some(ending), true) = (&self.ending, S::LANES > 1) {
            let RowsMut { step, apart, .. } = self.output;
            let last = (channels - 1).saturating_mul(step).saturating_add((span - 1).saturating_mul(apart));
            ending.check(channels, last);
        }
        self.block.check::<S>();
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        // SAFETY: checked, as `walk` asks.
        unsafe { walk(simd, self) }
    }
}

impl ForwardPanels<'_> {
    /// Finishes a tile from a copy. If it is `whole`, its positions are adjacent in the output.
    ///
    /// # Safety
    ///
    /// The call is [checked](Kernel#checked), and the ending is its own. The cells are those of a tile whose channels begin with
    /// `first`. The copy holds the sums of the cells in rows of whole vectors.
    #[inline(never)]
    unsafe fn finish<S: Vector>(
        &self,
        simd: S,
        ending: &Ending<'_>,
        cells: &Cells<'_>,
        first: usize,
        copy: *mut f32,
        whole: bool,
    ) {
        let tables = ending.tables(self.output.first);
        let (rows, len, plane) = (cells.channels, cells.pitch, first * cells.step);
        let mut sums =
            Finished { from: copy, from_step: len, at: 0, step: len, rows, len, channels: Channels::PerRow(first) };
        // SAFETY: as this function asks. If the tile is not whole, it is finished in the copy. Its residual is a copy as well,
        // with zeros in lanes without a position.
        unsafe {
            if whole {
                sums.at = plane + cells.run * cells.positions.row + cells.range.start;
                sums.step = cells.step;
                tables.finish(simd, sums);
                return;
            }
            let mut residual = MaybeUninit::<[f32; MOST_TILE]>::zeroed();
            let residual: *mut f32 = residual.as_mut_ptr().cast();
            if !tables.residual.is_empty() {
                cells.exchange(residual, tables.residual.at(plane).cast_mut(), Way::Load);
            }
            let residual = if tables.residual.is_empty() { tables.residual.at(0) } else { residual.cast_const() };
            tables.onto(copy, residual).finish(simd, sums);
            cells.exchange(copy, self.output.first.wrapping_add(plane), Way::Store);
        }
    }

    /// Prefetches the cache lines that a tile will write. Each channel has a plane of its own, and no CPU predicts such
    /// addresses.
    #[inline(always)]
    fn ask_for<S: Vector, const MR: usize, const NR: usize>(&self, simd: S, row: *const f32) {
        /// With fewer steps, tiles do not wait for their writes, so no prefetch is needed. (No measurement of other limits is
        /// recorded.)
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

    /// The sums of a tile: the panel whose first channel is `first`, the positions from offset `at` of the source on.
    ///
    /// # Safety
    ///
    /// As [`run_tile`](Tiles::run_tile); the panel has `NR` channels, and the `MR` vectors of the tile begin in a run of the source.
    #[inline(always)]
    unsafe fn sum<S: Vector, const MR: usize, const NR: usize>(
        &self,
        simd: S,
        first: usize,
        at: usize,
    ) -> Sums<S, NR, MR> {
        let mut sums = [[simd.splat_f32s(0.0); MR]; NR];
        unrolled!(N in 0..NR => {
            // SAFETY: checked: starts are as many as channels.
            let start = simd.splat_f32s(unsafe { *self.start.as_ptr().add(first + N) });
            few!(M in 0..MR => sums[N][M] = start);
        });
        let (trips, rest) = self.offsets.trips::<S>();
        // These pointers advance by `wrapping_add`: after the last offset they may lie beyond the slices, and nothing reads
        // there.
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

impl Tiles for BackwardInputPanels<'_> {
    fn block(&self) -> &PanelBlock {
        &self.block
    }

    #[inline(always)]
    unsafe fn run_tile<S: Vector>(&mut self, simd: S, panel: usize, tile: Tile, runs: &Runs) {
        let Tile { run, at, vectors } = tile;
        let channels = self.block.channels_of(panel);
        let (channel, width, positions) = (channels.start, channels.len(), &{ self.block.positions });
        let (lanes, step) = (vectors * S::LANES, self.step);
        let adjacent = self.apart == 1 && positions.column == 1;
        // With few shapes of tiles, the code must be small. So every tile then goes through a copy.
        let whole = !S::FEW_TILES && adjacent && !runs.gaps() && at + lanes <= runs.len;
        let range = at..min(at + lanes, runs.len);
        let (mut input_copy, mut copy) = (TileCopy::uninit(), TileCopy::uninit());
        let (input_copy, copy): (*mut f32, *mut f32) = (input_copy.as_mut_ptr().cast(), copy.as_mut_ptr().cast());
        let cells = Cells { positions, runs, run, range, channels: width, step, apart: self.apart, pitch: lanes };
        let plane = channel * step;
        let place = plane.wrapping_add(run * positions.row + at);
        let (mut input, mut input_step, mut to, mut to_step) = (INFINITE.as_ptr(), 0, copy, lanes);
        if let Some(own) = self.input {
            if whole {
                (input, input_step) = (own.as_ptr().wrapping_add(place), step);
            } else {
                // SAFETY: a copy has room for any tile. Checked: the inputs are the call's.
                unsafe {
                    for cell in 0..width * lanes {
                        // Cells without a position have no input. A NaN stands there, because its gradient goes nowhere.
                        *input_copy.add(cell) = f32::NAN;
                    }
                    cells.exchange(input_copy, own.as_ptr().wrapping_add(plane).cast_mut(), Way::Load);
                }
                (input, input_step) = (input_copy, lanes);
            }
        }
        let grad_input = self.grad_input.as_ref().map(|rows| rows.first);
        let (mut before, mut before_step) = (ZEROS.as_ptr(), 0);
        if let Some(own) = grad_input.filter(|_| whole) {
            (to, to_step) = (own.wrapping_add(place), step);
            if self.add {
                (before, before_step) = (to, to_step);
            }
        }
        let at = run * runs.source_step + at;
        let place = Place { input, input_step, before, before_step, to, to_step };
        with_const!(width, NR in [1 2 3 4 5 6 7 8 9 10 11 12] if panel_widths::<S>().contains(NR) => {
            with_const!(vectors, MR in [1 2 3 4] if MR == widest_tile::<S>(NR, MR) => {
                // SAFETY: checked: the panel has `NR` channels, and the vectors lie in the run. The inputs and gradients of the
                // tile lie in the planes if the tile is whole, and in the copies if not.
                framed!(simd => unsafe { self.tile::<S, MR, NR>(simd, channel, at, place) })
            })
        });
        if let Some(own) = grad_input.filter(|_| !whole) {
            // SAFETY: the copy has been written. Checked: the channels are rows of the gradient, the positions lie in each.
            unsafe { cells.exchange(copy, own.wrapping_add(plane), Way::back(self.add)) };
        }
    }
}

impl Kernel for BackwardInputPanels<'_> {
    fn check<S: Vector>(&self) {
        self.block.check::<S>();
        let Self { depth, all_taps, .. } = self;
        let (channels, span) = (self.block.channels(), self.block.positions.span());
        assert!(*depth >= 1 && self.first_step.saturating_add(*depth) <= self.all_depth);
        let deepest = (depth - 1).saturating_mul(self.source_pitch).saturating_add(self.offsets.max());
        assert!(self.source_len(S::LANES).saturating_add(deepest) <= self.source.len());
        assert!(self.weight_taps.table().len() == self.offsets.table().len() && self.weight_taps.max() < *all_taps);
        let slots = channels.saturating_mul(*all_taps);
        assert!(slots.saturating_mul(self.all_depth) <= self.weight.len());
        assert!(slots <= self.thresholds.len() && slots.saturating_mul(S::LANES) <= self.grad_thresholds.len());
        let last = (span - 1).saturating_mul(self.apart);
        let last = (channels - 1).saturating_mul(self.step).saturating_add(last);
        assert!(self.input.is_none_or(|input| last < input.len()));
        assert!(self.grad_input.as_ref().is_none_or(|rows| {
            rows.rows == channels && rows.step == self.step && rows.apart == self.apart && span <= rows.len
        }));
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        // SAFETY: checked, as `walk` asks.
        unsafe { walk(simd, self) }
    }
}

impl BackwardInputPanels<'_> {
    /// A tile of the panel whose first channel is `channel`, from an offset in the source on.
    ///
    /// # Safety
    ///
    /// As [`run_tile`](Tiles::run_tile). The panel has `NR` channels and the tile `MR` vectors, and so have the rows at `place`.
    #[inline(always)]
    unsafe fn tile<S: Vector, const MR: usize, const NR: usize>(
        &mut self,
        simd: S,
        channel: usize,
        at: usize,
        mut place: Place,
    ) {
        let zero = simd.splat_f32s(0.0);
        let Place { input, input_step, to, to_step, .. } = place;
        if !S::FEW_TILES {
            unrolled!(N in 0..NR => {
                let (input, to) = (input.wrapping_add(N * input_step), to.wrapping_add(N * to_step));
                simd.prefetch(input);
                simd.prefetch_for_writing(to);
                if MR * S::LANES > 16 {
                    simd.prefetch(input.wrapping_add(16));
                    simd.prefetch_for_writing(to.wrapping_add(16));
                }
            });
        }
        for (&offset, &weight_tap) in self.offsets.table().iter().zip(self.weight_taps.table()) {
            let tap = channel * self.all_taps + weight_tap as usize * NR;
            let mut sums = [[zero; MR]; NR];
            // SAFETY: checked: the vectors at the largest offset in each of `depth` channels, weights and thresholds up to the
            // last tap, and as many vectors of their gradients. In reach: the inputs and gradients of the tile. Pointers advance
            // by `wrapping_add`: after the last channel they may lie beyond the slices, and nothing reads there.
            unsafe {
                let mut g = self.source.as_ptr().add(at + offset as usize);
                let mut weight = self.weight.as_ptr().add(tap * self.all_depth + self.first_step * NR);
                for _ in 0..self.depth {
                    add_products(simd, &mut sums, Interleaved::<NR>(weight), load::<S, MR>(simd, g));
                    g = g.wrapping_add(self.source_pitch);
                    weight = weight.wrapping_add(NR);
                }
                let thetas = self.thresholds.as_ptr().add(tap);
                let held = self.grad_thresholds.as_mut_ptr().add(tap * S::LANES);
                if S::FEW_TILES {
                    // A copy, because the loop below indexes it. Without the copy, the sums would be in memory during the loop
                    // above.
                    let mut finished = [[zero; MR]; NR];
                    store(simd, sums, finished.as_mut_ptr().cast(), MR * S::LANES);
                    for (n, sums) in finished.iter().enumerate() {
                        place.mask(simd, n, sums, thetas, held);
                    }
                } else {
                    unrolled!(N in 0..NR => place.mask(simd, N, &sums[N], thetas, held));
                }
            }
            (place.before, place.before_step) = (to, to_step);
        }
    }
}

/// The inputs of a tile, the values that their gradients had before, and where the gradients are stored. Each step leads from a
/// channel to the next one.
#[derive(Clone, Copy)]
struct Place {
    input: *const f32,
    input_step: usize,
    before: *const f32,
    before_step: usize,
    to: *mut f32,
    to_step: usize,
}

impl Place {
    /// Sends a channel's sums to the gradient of the input or to that of the threshold.
    ///
    /// # Safety
    ///
    /// In reach: `MR` vectors of each channel of the tile at each of the three pointers, a threshold per channel, and a vector of
    /// each threshold's gradient. `n` is one of the channels.
    #[inline(always)]
    unsafe fn mask<S: Vector, const MR: usize>(
        &self,
        simd: S,
        n: usize,
        sums: &[S::f32s; MR],
        thetas: *const f32,
        held: *mut f32,
    ) {
        // SAFETY: in reach.
        unsafe {
            let theta = simd.splat_f32s(*thetas.add(n));
            let held = held.add(n * S::LANES);
            let mut own = simd.load(held);
            few!(M in 0..MR => {
                let x = simd.load(self.input.add(n * self.input_step + M * S::LANES));
                let before = simd.load(self.before.add(n * self.before_step + M * S::LANES));
                let [passes, stops] = simd.divide(x, theta);
                simd.store(self.to.add(n * self.to_step + M * S::LANES), simd.add_where(passes, before, sums[M]));
                own = simd.add_where(stops, own, sums[M]);
            });
            simd.store(held, own);
        }
    }
}
