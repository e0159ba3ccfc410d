//! Forward kernel with output channels in lanes. It broadcasts inputs in place, clamps them in registers, and multiplies only by
//! taps that read inside the input.
//!
//! A tile is `R` positions at a constant step by `V` vectors of output channels. It sums over lines of adjacent steps, which
//! oneDNN calls a batch-reduce product. Only the weights are packed. Each step costs `V` loads of weights, one load of a
//! threshold, `R` broadcasts, `R` maxima and `R · V` multiply-adds:
//!
//! | | tile | multiply-adds / loads per step | cycles at 2 FMA and 2 loads per cycle |
//! |---|---|---|---|
//! | AVX-512 | 6 × 4 | 24 / 11 | 12 |
//! | AVX2 | 6 × 2 | 12 / 9 | 6 |
//! | NEON | 7 × 3 | 21 / 5 | 10.5 |
//!
//! So the multiply-adds are the limit if maxima run beside them. NEON clamps four steps of a position at once and multiplies by a
//! lane.
//!
//! On Intel's CPUs a maximum keeps a unit from multiplying: AVX2's tile would take 9 cycles instead of 6, AVX-512's 15 instead of
//! 12. There the inputs of some tiles are clamped once, vector by vector, into a packed copy, which has a row of adjacent steps
//! per position. Then all panels use the copy, with the tiles of linear layers. The sums are the same, bit by bit.
//!
//! Each shape of a tile is a function of its own. A function with all shapes would take long to compile, and without optimisation
//! its stack frame would hold the temporaries of all shapes.

use core::hint::black_box;
use core::mem::MaybeUninit;
use core::ops::Range;

use super::Kernel;
use super::epilogue::{Channels, Ending, Finished, Tables};
use super::lines::clamp_line;
use super::tile::{Sums, few, framed, load, outlined, unrolled, with_const};
use super::vector::{MOST_LANES, Vector};
use super::view::PixelsMut;
use crate::arith::{clamp, min};
use crate::geometry::{Lattice, Panels};
use crate::workspace::{ROW_GAP, row_pitch};

/// Sums of a box of positions over the taps that all of them have: `output[p][l] = start[l] + Σ_k weight[k][l] · f(x[p][k]; θ[k])`,
/// one panel of lanes after another.
pub(crate) struct BatchReduce<'a> {
    /// The source, from the element that the first position reads through its first tap on.
    pub(crate) source: &'a [f32],
    /// The distance between what two neighbouring positions read, along each axis of the output.
    pub(crate) source_steps: [usize; 4],
    /// Steps of the sum, `[depth, height, width, channel]`: their places in the source and in the weight. None if all taps read
    /// padding.
    pub(crate) taps: Option<Lattice<2>>,
    /// `[panel][step][lane]`, from the first of the steps on.
    pub(crate) weight: &'a [f32],
    pub(crate) panels: usize,
    /// Lanes of a panel.
    pub(crate) width: usize,
    /// Elements from a panel's weights to those of the next one.
    pub(crate) pitch: usize,
    /// One per step, from the first on. None for a linear layer, which does not clamp.
    pub(crate) thresholds: Option<&'a [f32]>,
    /// One per lane.
    pub(crate) start: &'a [f32],
    pub(crate) output: PixelsMut<'a>,
    /// Most rows of a tile.
    pub(crate) tile: usize,
    /// Whether the layer has a single position.
    pub(crate) single: bool,
    /// Memory for clamped inputs, at least [`packed_len`] elements. If empty, inputs are clamped in registers.
    pub(crate) packed: &'a mut [f32],
    /// The epilogue of the sums.
    pub(crate) ending: Option<Ending<'a>>,
}

/// Elements that hold the clamped inputs of any tile of at most so many steps.
pub(crate) const fn packed_len(steps: usize) -> usize {
    steps.saturating_add(ROW_GAP).saturating_mul(MOST_ROWS)
}

/// What a tile does: multiply; clamp, too; clamp with AVX-512's encoding of a shorter vector's maximum. The last two work on the
/// first half of panels that are twice as wide as the tile, without clamps and with such.
const LINEAR: u8 = 0;
const CLAMPED: u8 = 1;
const WITH_AVX512: u8 = 2;
const LINEAR_HALF: u8 = 3;
const HALF_WITH_AVX512: u8 = 4;

/// Whether a tile clamps.
const fn clamps(mode: u8) -> bool {
    !matches!(mode, LINEAR | LINEAR_HALF)
}

/// Whether a tile needs AVX-512.
const fn needs_avx512(mode: u8) -> bool {
    matches!(mode, WITH_AVX512 | HALF_WITH_AVX512)
}

/// Vectors of a panel, if the tile has so many.
const fn panel_vectors(mode: u8, vectors: usize) -> usize {
    if matches!(mode, LINEAR_HALF | HALF_WITH_AVX512) { 2 * vectors } else { vectors }
}

/// Most rows of any tile.
const MOST_ROWS: usize = 8;

/// Elements of the largest tile: most vectors, each of most lanes, at most rows.
const MOST_TILE: usize = MOST_ROWS * 4 * MOST_LANES;

/// Most chains of additions per sum.
const MOST_CHAINS: usize = 4;

/// Chains of additions per sum, if the layer has a single position. With one chain per sum, there would be too few to hide the
/// latency of an addition.
pub(super) const fn chains<S: Vector>(vectors: usize) -> usize {
    if S::FEW_TILES { 1 } else { clamp(8 / vectors, 1, MOST_CHAINS) }
}

/// Most vectors of a tile.
pub(super) const fn most_vectors<S: Vector>() -> usize {
    if S::FEW_TILES || S::REGISTERS < 32 {
        2
    } else if S::AT_HAND > 1 {
        3
    } else {
        4
    }
}

/// Most rows of a tile with `vectors` vectors. Accumulators, a step's weights, its threshold and an input must fit the register
/// file. Where four steps of a row are loaded together, these must fit as well. Eight rows hide the latency of a multiply-add
/// even with one vector. More rows gain little, and each shape takes the compiler time.
pub(super) const fn most_rows<S: Vector>(vectors: usize) -> usize {
    let fit = if S::AT_HAND > 1 {
        (S::REGISTERS - 1 - vectors) / (vectors + 1)
    } else {
        (S::REGISTERS - 2 - vectors) / vectors
    };
    min(fit, if S::FEW_TILES { 4 } else { MOST_ROWS })
}

/// A tile with fewer rows takes as long as one with so many: two multiply-adds begin in each cycle and end four cycles later.
const fn least_rows(vectors: usize) -> usize {
    8usize.div_ceil(vectors)
}

/// The chain of step `U` of an unrolled loop, where a tile has several per sum.
const fn chain<S: Vector>(step: usize, vectors: usize, most: usize) -> usize {
    if most == 1 { 0 } else { step % chains::<S>(vectors) }
}

impl BatchReduce<'_> {
    /// Whether the outer loop runs over tiles and the inner one over panels, rather than the other way round. Then the inputs of
    /// a tile are read once, and its outputs are written one after another. But all weights are read for each tile, from the last
    /// cache if necessary.
    ///
    /// Measured on Zen 3, 1×1 layers: from 1024 to 1024 channels at 98 positions 7 to 13 % faster in four of four runs, from 512 to
    /// 1024 channels 7 to 17 %. From 256 to 64 channels it would be 7 % slower, and from 1024 to 4096 channels, whose weights take
    /// 16 MiB, three times as slow.
    fn panels_take_turns(&self, width: usize) -> bool {
        /// Elements of weights, 4 MiB: a core's share of the last cache.
        const MOST_WEIGHTS: usize = 1 << 20;
        /// The least channels: eight cache lines. Fewer do not make a stream of writes.
        const LEAST_LANES: usize = 128;
        let (lanes, weights) = (self.panels.saturating_mul(width), self.panels.saturating_mul(self.pitch));
        // At least as many lanes as steps.
        lanes >= LEAST_LANES && self.pitch <= lanes.saturating_mul(width) && weights <= MOST_WEIGHTS
    }

    /// The tiles of `vectors` vectors that cover the positions.
    #[inline(always)]
    fn tiling<S: Vector>(&self, vectors: usize) -> Tiling {
        let positions = self.positions().joined();
        let most = most_rows::<S>(vectors).min(self.tile);
        let axis = positions.tile_axis(most, least_rows(vectors));
        let rows = Panels::of_at_most(positions.counts[axis], most);
        Tiling { positions, axis, rows, steps: positions.steps.map(|steps| steps[axis]) }
    }

    /// The epilogue as tiles see it.
    fn tables(&self) -> Option<Tables> {
        self.ending.as_ref().map(|ending| ending.tables(self.output.first))
    }

    /// As [`Kernel::check`], if fewer than `dead` lanes of the last panel have no channel.
    fn check_panels<S: Vector>(&self, dead: usize) {
        let Self { panels, width, pitch, .. } = *self;
        assert!(width.is_multiple_of(S::LANES) && (1..=most_vectors::<S>()).contains(&(width / S::LANES)));
        let lanes = panels.saturating_mul(width);
        assert!(panels >= 1 && lanes <= self.start.len() && self.tile >= 1);
        let packed = self.taps.map_or(0, |taps| packed_len(taps.len()));
        assert!(self.packed.is_empty() || packed <= self.packed.len());
        assert!(lanes < self.output.channels + dead && self.output.channels <= lanes);
        if let Some(taps) = &self.taps {
            assert!(self.positions().last(0).saturating_add(taps.last(0)) < self.source.len());
            let steps = taps.last(1).saturating_add(1);
            assert!(
                (panels - 1).saturating_mul(pitch).saturating_add(steps.saturating_mul(width)) <= self.weight.len()
            );
            assert!(self.thresholds.is_none_or(|thresholds| steps <= thresholds.len()));
            // The steps of a line are adjacent in both tensors.
            assert!(taps.counts[3] == 1 || taps.steps[0][3] == 1 && taps.steps[1][3] == 1);
        }
        if let Some(ending) = &self.ending {
            ending.check(self.output.channels, self.output.last());
        }
    }

    /// Positions, in the source and in the output.
    fn positions(&self) -> Lattice<2> {
        let Lattice { counts, steps: [output] } = self.output.positions;
        Lattice { counts, steps: [self.source_steps, output] }
    }
}

/// Tiles along one axis of the positions.
struct Tiling {
    positions: Lattice<2>,
    axis: usize,
    /// Positions along it.
    rows: Panels,
    /// From one of them to the next one, in the source and in the output.
    steps: [usize; 2],
}

impl Kernel for BatchReduce<'_> {
    fn check<S: Vector>(&self) {
        // Each panel has a channel in its last vector.
        self.check_panels::<S>(S::LANES);
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(mut self, simd: S) {
        let packed = core::mem::take(&mut self.packed);
        with_const!(self.width / S::LANES, V in [1 2 3 4] if V <= most_vectors::<S>() => {
            // SAFETY: checked; there are `V` vectors, and room for clamped inputs where they are packed.
            unsafe {
                match (self.thresholds, self.taps) {
                    (Some(thresholds), Some(taps)) if !packed.is_empty() => {
                        Packed { taps, thresholds, rows: packed }.walk::<S, V>(simd, &self);
                    }
                    (Some(_), _) => walk::<S, V, CLAMPED>(simd, &self),
                    (None, _) => walk::<S, V, LINEAR>(simd, &self),
                }
            }
        });
    }
}

/// A call on a CPU with AVX-512 whose panels are one of its vectors wide. It runs with AVX2's tiles of six rows by two vectors of
/// half the lanes, which read the same packed weights and add the steps of a sum in the same order.
///
/// The tile of eight rows by one vector has 8 multiply-adds, 8 maxima and 10 loads per step. Zen 4 loads one vector of 512 bits per
/// cycle, so the loads take 10 cycles, 1.25 per row. In the tile of six rows, the 12 multiply-adds take 6 cycles, 1 per row.
///
/// A maximum that broadcasts its operand, which only AVX-512 can encode, makes one instruction of two. Measured on Zen 4, 48 to 12
/// channels, 8 × 8 positions: 0.88 of the time of the long vectors, and 0.93 to 0.97 while the core's other thread is busy. With
/// AVX2's two instructions it was 0.88 and 1.20, because then the two threads take turns to issue instructions.
///
/// A single panel of at most half as many channels is computed as one such vector, with tiles of eight rows.
#[cfg(target_arch = "x86_64")]
pub(super) struct Halves<'a>(BatchReduce<'a>);

#[cfg(target_arch = "x86_64")]
impl<'a> Halves<'a> {
    /// # Safety
    ///
    /// AVX-512 is [offered](Vector#offered).
    pub(super) const unsafe fn new(call: BatchReduce<'a>) -> Self {
        Self(call)
    }

    /// Whether the call is a single panel without a channel in its second half.
    const fn has_one<S: Vector>(call: &BatchReduce<'_>) -> bool {
        call.panels == 1 && call.output.channels <= S::LANES
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel for Halves<'_> {
    fn check<S: Vector>(&self) {
        let Self(call) = self;
        assert!(call.width == 2 * S::LANES && call.packed.is_empty());
        if Self::has_one::<S>(call) {
            call.check_panels::<S>(2 * S::LANES);
        } else {
            call.check::<S>();
            assert!(call.thresholds.is_some());
        }
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        let Self(call) = self;
        // SAFETY: checked; there are two vectors, and thresholds where the mode clamps. AVX-512 is offered: `new` asks for it. The
        // first half has all channels where it is the only one.
        unsafe {
            match (Self::has_one::<S>(&call), call.thresholds) {
                (true, None) => walk::<S, 1, LINEAR_HALF>(simd, &call),
                (true, Some(_)) => walk::<S, 1, HALF_WITH_AVX512>(simd, &call),
                (false, _) => walk::<S, 2, WITH_AVX512>(simd, &call),
            }
        }
    }
}

/// # Safety
///
/// The call is [checked](Kernel#checked); its panels have [as many vectors as the mode asks for](panel_vectors), and it has thresholds
/// where it clamps. AVX-512 is [offered](Vector#offered) where it clamps so.
#[inline(never)]
unsafe fn walk<S: Vector, const V: usize, const MODE: u8>(simd: S, call: &BatchReduce<'_>) {
    let Tiling { positions, axis, rows, steps: [source_step, output_step] } = call.tiling::<S>(V);
    let epilogue = call.tables();
    let run = |panel: usize, [source, output]: [usize; 2], tiles: Range<usize>| {
        // SAFETY: checked: the panel is one of the call.
        let panel =
            unsafe { Panel::new::<S, V>(call, call.taps.as_ref(), panel, [source_step, output_step], &epilogue) };
        for tile in tiles {
            let rows = rows.get(tile);
            let source = call.source.as_ptr().wrapping_add(source + rows.start * source_step);
            // SAFETY: checked: the positions of the tile read inside the source, and are the output's.
            unsafe {
                let output = panel.output.add(output + rows.start * output_step);
                Tile { panel: &panel, source, output }.run::<S, V, MODE>(simd, rows.len());
            }
        }
    };
    if call.panels_take_turns(V * S::LANES) {
        for line in positions.lines(axis) {
            for tile in 0..rows.count() {
                for panel in 0..call.panels {
                    run(panel, line, tile..tile + 1);
                }
            }
        }
    } else {
        for panel in 0..call.panels {
            for line in positions.lines(axis) {
                run(panel, line, 0..rows.count());
            }
        }
    }
}

/// Clamped inputs of some tiles: `[tile][row][step]`.
struct Packed<'a> {
    taps: Lattice<2>,
    thresholds: &'a [f32],
    rows: &'a mut [f32],
}

/// A tile whose inputs are packed.
#[derive(Clone, Copy)]
struct PackedTile {
    rows: usize,
    /// Where the first position lies in the output.
    output: usize,
}

/// Most tiles that are packed at a time, so that the weights of a panel are loaded from a far cache once for all of them.
const MOST_PACKED: usize = 8;

impl Packed<'_> {
    /// As the function [`walk`], with all panels in turns.
    ///
    /// # Safety
    ///
    /// The call is [checked](Kernel#checked); it has `V` vectors. The taps and the thresholds are its own, and there is room for the
    /// rows of a tile.
    #[inline(never)]
    unsafe fn walk<S: Vector, const V: usize>(self, simd: S, call: &BatchReduce<'_>) {
        let Lattice { counts, steps: [_, steps] } = self.taps;
        let pitch = row_pitch(self.taps.len());
        let [_, h, w, len] = counts;
        let taps = Lattice { counts, steps: [[h * w * len, w * len, len, 1], steps] }.joined_lines();
        let Tiling { positions, axis, rows, steps: [source_step, output_step] } = call.tiling::<S>(V);
        let epilogue = call.tables();
        let most = rows.max();
        let together = clamp(self.rows.len() / (most * pitch), 1, MOST_PACKED);
        let mut tiles = [PackedTile { rows: 0, output: 0 }; MOST_PACKED];
        let mut count = 0;
        let last = positions.len() / positions.counts[axis] * rows.count();
        let all = positions.lines(axis).flat_map(|line| rows.iter().map(move |rows| (line, rows)));
        for (index, ([source, output], rows)) in (1..).zip(all) {
            let source = source + rows.start * source_step;
            for row in 0..rows.len() {
                let to = self.rows[(count * most + row) * pitch..].as_mut_ptr();
                // SAFETY: checked: the position reads inside the source; a row has room for all steps.
                unsafe {
                    let from = call.source.as_ptr().add(source + row * source_step);
                    clamp_row(simd, &self.taps, from, self.thresholds.as_ptr(), to);
                }
            }
            tiles[count] = PackedTile { rows: rows.len(), output: output + rows.start * output_step };
            count += 1;
            if count < together && index < last {
                continue;
            }
            for panel in 0..call.panels {
                // SAFETY: checked: the panel is one of the call.
                let panel = unsafe { Panel::new::<S, V>(call, Some(&taps), panel, [pitch, output_step], &epilogue) };
                for (number, tile) in tiles[..count].iter().enumerate() {
                    // SAFETY: the rows of the tile hold all steps; checked: its positions are the output's.
                    unsafe {
                        let source = self.rows.as_ptr().add(number * most * pitch);
                        let output = panel.output.add(tile.output);
                        #[cfg(feature = "internal-testing")]
                        super::seen::see::<S>(super::Tiles::Forward, 4, tile.rows, V);
                        Tile { panel: &panel, source, output }.run::<S, V, LINEAR>(simd, tile.rows);
                    }
                }
            }
            count = 0;
        }
    }
}

/// Clamps what a position reads, one line of taps behind the other.
///
/// # Safety
///
/// [In reach](Vector#in-reach): the taps from `from` on, as many thresholds, and as many elements of `to`.
#[inline(always)]
unsafe fn clamp_row<S: Vector>(simd: S, taps: &Lattice<2>, from: *const f32, thresholds: *const f32, to: *mut f32) {
    framed!(simd => {
        let Lattice { counts: [depth, height, width, len], steps: [source, steps] } = *taps;
        let mut to = to;
        for d in 0..depth {
            for h in 0..height {
                for w in 0..width {
                    // SAFETY: in reach.
                    unsafe {
                        let from = from.add(d * source[0] + h * source[1] + w * source[2]);
                        let thresholds = thresholds.add(d * steps[0] + h * steps[1] + w * steps[2]);
                        clamp_line::<S, true>(simd, from, thresholds, len, to);
                        to = to.add(len);
                    }
                }
            }
        }
    });
}

/// A panel of a call.
struct Panel<'a, 'b> {
    call: &'a BatchReduce<'b>,
    /// As the call's, or as packed rows have them.
    taps: Option<&'a Lattice<2>>,
    /// The first position of the output, at the panel's first channel.
    output: *mut f32,
    /// One per lane.
    start: *const f32,
    /// `[step][lane]`
    weight: *const f32,
    /// Channels of the last vector.
    last: usize,
    /// From a row of a tile to the next one.
    source_step: usize,
    output_step: usize,
    epilogue: Option<&'a Tables>,
    /// The first lane, of all panels.
    first: usize,
}

impl<'a, 'b> Panel<'a, 'b> {
    /// # Safety
    ///
    /// The call is [checked](Kernel#checked). It has `V` vectors, and the panel.
    unsafe fn new<S: Vector, const V: usize>(
        call: &'a BatchReduce<'b>,
        taps: Option<&'a Lattice<2>>,
        panel: usize,
        [source_step, output_step]: [usize; 2],
        epilogue: &'a Option<Tables>,
    ) -> Self {
        let first = panel * V * S::LANES;
        // SAFETY: checked: the panel has lanes of the start, and a channel of the output.
        let (start, output) = unsafe { (call.start.as_ptr().add(first), call.output.first.add(first)) };
        Self {
            call,
            taps,
            output,
            start,
            // Not `add`: where nothing is read, it may be empty.
            weight: call.weight.as_ptr().wrapping_add(panel * call.pitch),
            last: min(call.output.channels - first - (V - 1) * S::LANES, S::LANES),
            source_step,
            output_step,
            epilogue: epilogue.as_ref(),
            first,
        }
    }
}

/// Some positions, a step apart, and a panel.
struct Tile<'a, 'b> {
    panel: &'a Panel<'a, 'b>,
    source: *const f32,
    output: *mut f32,
}

impl Tile<'_, '_> {
    /// Computes the tile, which has so many rows, and finishes it.
    ///
    /// # Safety
    ///
    /// As [`compute`](Self::compute).
    #[inline(always)]
    unsafe fn run<S: Vector, const V: usize, const MODE: u8>(&self, simd: S, rows: usize) {
        let Some(epilogue) = self.panel.epilogue else {
            // SAFETY: as this function asks.
            return unsafe { self.run_shape::<S, V, MODE>(simd, rows) };
        };
        // SAFETY: as this function asks.
        unsafe { self.run_finished::<S, V, MODE>(simd, rows, epilogue) };
    }

    /// Computes the tile into a copy, in whole vectors, and finishes it from there.
    ///
    /// # Safety
    ///
    /// As [`compute`](Self::compute). The epilogue is the call's.
    #[inline(never)]
    unsafe fn run_finished<S: Vector, const V: usize, const MODE: u8>(&self, simd: S, rows: usize, epilogue: &Tables) {
        let Panel { output_step: step, first, last, .. } = *self.panel;
        let mut copy = MaybeUninit::<[f32; MOST_TILE]>::uninit();
        let copy: *mut f32 = copy.as_mut_ptr().cast();
        // SAFETY: the tile lies in the call's output.
        let at = unsafe { self.output.offset_from_unsigned(epilogue.output) };
        let (from_step, len) = (V * S::LANES, (V - 1) * S::LANES + last);
        epilogue.ask_for(simd, at, step, rows, len);
        let panel = Panel { output_step: from_step, last: S::LANES, epilogue: None, ..*self.panel };
        let channels = Channels::InLanes(first);
        // SAFETY: as this function asks: the copy has room for the rows of any tile. Then it holds them, the outputs are those of the
        // call, and checked: so are the channels.
        unsafe {
            Tile { panel: &panel, output: copy, ..*self }.run_shape::<S, V, MODE>(simd, rows);
            epilogue.finish(simd, Finished { from: copy, from_step, at, step, rows, len, channels });
        }
    }

    /// Computes the tile, which has so many rows.
    ///
    /// # Safety
    ///
    /// As [`compute`](Self::compute).
    #[inline(always)]
    unsafe fn run_shape<S: Vector, const V: usize, const MODE: u8>(&self, simd: S, rows: usize) {
        let single = self.panel.call.single;
        with_const!(rows, R in [1 2 3 4 5 6 7 8] if R <= most_rows::<S>(V) => {
            // Halves would hide which tiles of their own instruction set have not run.
            #[cfg(feature = "internal-testing")]
            if matches!(MODE, LINEAR | CLAMPED) {
                let single = R == 1 && chains::<S>(V) > 1 && single;
                super::seen::see::<S>(super::Tiles::Forward, 2 * usize::from(single) + usize::from(MODE), R, V);
            }
            // SAFETY: as this function asks.
            unsafe {
                if const { R == 1 && chains::<S>(V) > 1 } && single {
                    self.compute::<S, R, V, { MOST_CHAINS }, MODE>(simd);
                } else {
                    self.compute::<S, R, V, 1, MODE>(simd);
                }
            }
        });
    }

    /// # Safety
    ///
    /// The call is [checked](Kernel#checked); it has `V` vectors, and thresholds where it clamps. AVX-512 is
    /// [offered](Vector#offered) where it clamps so. The panel is one of its panels, and the `R` positions of the tile are its own.
    unsafe fn compute<S: Vector, const R: usize, const V: usize, const N: usize, const MODE: u8>(&self, simd: S) {
        // SAFETY: as this function asks.
        outlined!(simd => unsafe {
            let sums = self.sum::<S, R, V, N, MODE>(simd);
            self.store(simd, sums);
        });
    }

    /// # Safety
    ///
    /// As [`compute`](Self::compute).
    #[inline(always)]
    unsafe fn sum<S: Vector, const R: usize, const V: usize, const N: usize, const MODE: u8>(
        &self,
        simd: S,
    ) -> Sums<S, R, V> {
        let Panel { call, .. } = *self.panel;
        // SAFETY: checked: there is a start for each lane.
        let start = unsafe { load::<S, V>(simd, self.panel.start) };
        let mut sums = [[[simd.splat_f32s(0.0); V]; R]; N];
        sums[0] = [start; R];
        // The cache lines of the results are fetched while the tile computes.
        unrolled!(ROW in 0..R => {
            let row = self.output.wrapping_add(ROW * self.panel.output_step);
            simd.prefetch_for_writing(row);
            if V * S::LANES > LINE {
                simd.prefetch_for_writing(row.wrapping_add(V * S::LANES - 1));
            }
        });
        let Some(taps) = self.panel.taps else { return sums[0] };
        // Hidden from the compiler. Otherwise it would give each row an address of its own, and spill these addresses.
        let source_step = black_box(self.panel.source_step);
        let thresholds = if clamps(MODE) { call.thresholds.unwrap_or(&[]).as_ptr() } else { core::ptr::null() };
        let Lattice { counts: [depth, height, width, len], steps: [source, steps] } = *taps;
        for d in 0..depth {
            for h in 0..height {
                for w in 0..width {
                    let step = d * steps[0] + h * steps[1] + w * steps[2];
                    // SAFETY: checked: the `len` steps from this one on lie in the weight, in the thresholds if there are
                    // any, and in the source of each position.
                    unsafe {
                        let line = Line {
                            source: self.source.add(d * source[0] + h * source[1] + w * source[2]),
                            source_step,
                            weight: self.panel.weight.add(step * panel_vectors(MODE, V) * S::LANES),
                            thresholds: thresholds.wrapping_add(if clamps(MODE) { step } else { 0 }),
                        };
                        line.add::<S, R, V, N, MODE>(simd, &mut sums, len);
                    }
                }
            }
        }
        let mut sum = sums[0];
        few!(CHAIN in 0..N => if CHAIN != 0 {
            few!(ROW in 0..R => {
                few!(VECTOR in 0..V => sum[ROW][VECTOR] = simd.add_f32s(sum[ROW][VECTOR], sums[CHAIN][ROW][VECTOR]));
            });
        });
        sum
    }

    /// Writes the sums, without lanes that have no channel.
    ///
    /// # Safety
    ///
    /// As [`compute`](Self::compute).
    #[inline(always)]
    unsafe fn store<S: Vector, const R: usize, const V: usize>(&self, simd: S, sums: Sums<S, R, V>) {
        let last = self.panel.last;
        // SAFETY: the `R` rows are the output's, `V - 1` whole vectors and `last` elements each.
        unrolled!(ROW in 0..R => unsafe {
            let row = self.output.add(ROW * self.panel.output_step);
            few!(VECTOR in 0..V => {
                let to = row.add(VECTOR * S::LANES);
                if VECTOR + 1 < V || last == S::LANES {
                    simd.store(to, sums[ROW][VECTOR]);
                } else {
                    simd.store_first(to, sums[ROW][VECTOR], last);
                }
            });
        });
    }
}

/// Elements of a cache line.
const LINE: usize = 16;

/// Adjacent steps of the sum.
struct Line {
    /// Of the first row; the others lie `source_step` apart.
    source: *const f32,
    source_step: usize,
    weight: *const f32,
    thresholds: *const f32,
}

/// The number of rows that share an address. An instruction can add 0, 1 or 2 times the distance of rows to it, so few registers
/// address many rows. Where several steps are loaded together, each row has an address of its own: the load advances it, which
/// saves an addition.
const fn rows_per_address<S: Vector>() -> usize {
    if S::AT_HAND > 1 { 1 } else { 3 }
}

/// Addresses of a tile with the most rows that `unrolled` counts to.
const ADDRESSES: usize = 12;

impl Line {
    /// Adds the products of `len` steps.
    ///
    /// # Safety
    ///
    /// [In reach](Vector#in-reach): `len` elements at each of `R` rows, `len` steps of [a panel's vectors](panel_vectors) of weights, and
    /// as many thresholds where it clamps. AVX-512 is [offered](Vector#offered) where it clamps so.
    #[inline(always)]
    unsafe fn add<S: Vector, const R: usize, const V: usize, const N: usize, const MODE: u8>(
        self,
        simd: S,
        sums: &mut [Sums<S, R, V>; N],
        len: usize,
    ) {
        /// Steps per iteration of the loop. With one step, the loop's counters would be a tenth of the instructions.
        const UNROLL: usize = 4;
        let step = self.source_step;
        let mut rows = [self.source; ADDRESSES];
        unrolled!(GROUP in 0..R.div_ceil(rows_per_address::<S>()) => {
            // SAFETY: in reach: the address is that of a row.
            let row = unsafe { self.source.add(GROUP * rows_per_address::<S>() * step) };
            // Hidden from the compiler. Otherwise it would compute one address from another at each step.
            rows[GROUP] = if const { S::AT_HAND > 1 } { black_box(row) } else { row };
        });
        let (mut weight, mut thresholds) = (self.weight, self.thresholds);
        let mut left = len;
        // SAFETY: in reach: no step is used that is not left.
        unsafe {
            while left >= UNROLL {
                if const { S::AT_HAND == UNROLL } {
                    add_at_hand::<S, R, V, N, MODE>(simd, sums, rows, step, weight, thresholds);
                } else {
                    few!(U in 0..UNROLL => {
                        let sums = &mut sums[const { chain::<S>(U, V, N) }];
                        add_step::<S, R, V, U, MODE>(simd, sums, rows, step, weight, thresholds);
                    });
                }
                unrolled!(GROUP in 0..R.div_ceil(rows_per_address::<S>()) => rows[GROUP] = rows[GROUP].add(UNROLL));
                weight = weight.add(UNROLL * panel_vectors(MODE, V) * S::LANES);
                if clamps(MODE) {
                    thresholds = thresholds.add(UNROLL);
                }
                left -= UNROLL;
            }
            while left > 0 {
                add_step::<S, R, V, 0, MODE>(simd, &mut sums[0], rows, step, weight, thresholds);
                unrolled!(GROUP in 0..R.div_ceil(rows_per_address::<S>()) => rows[GROUP] = rows[GROUP].add(1));
                weight = weight.add(panel_vectors(MODE, V) * S::LANES);
                if clamps(MODE) {
                    thresholds = thresholds.add(1);
                }
                left -= 1;
            }
        }
    }
}

/// [`Vector::broadcast_activated`] as `MODE` says.
///
/// # Safety
///
/// As that function asks; AVX-512 is [offered](Vector#offered) where `MODE` needs it.
#[inline(always)]
unsafe fn activated<S: Vector, const SCALE: usize, const U: usize, const MODE: u8>(
    simd: S,
    from: *const f32,
    step: usize,
    theta: S::f32s,
) -> S::f32s {
    // SAFETY: as this function asks.
    unsafe {
        if const { needs_avx512(MODE) } {
            simd.broadcast_activated::<SCALE, U, true>(from, step, theta)
        } else {
            simd.broadcast_activated::<SCALE, U, false>(from, step, theta)
        }
    }
}

/// Adds the products of step `U` from where the pointers are.
///
/// # Safety
///
/// [In reach](Vector#in-reach): the step. AVX-512 is [offered](Vector#offered) where it clamps so.
#[inline(always)]
unsafe fn add_step<S: Vector, const R: usize, const V: usize, const U: usize, const MODE: u8>(
    simd: S,
    sums: &mut Sums<S, R, V>,
    rows: [*const f32; ADDRESSES],
    step: usize,
    weight: *const f32,
    thresholds: *const f32,
) {
    // SAFETY: in reach.
    unsafe {
        let theta = simd.splat_f32s(if clamps(MODE) { *thresholds.add(U) } else { 0.0 });
        let columns = load::<S, V>(simd, weight.add(U * panel_vectors(MODE, V) * S::LANES));
        unrolled!(ROW in 0..R => {
            let row = rows[ROW / rows_per_address::<S>()];
            let scale = ROW % rows_per_address::<S>();
            let x = match scale {
                _ if !clamps(MODE) => simd.splat_f32s(*row.add(scale * step + U)),
                0 => activated::<S, 0, U, MODE>(simd, row, step, theta),
                1 => activated::<S, 1, U, MODE>(simd, row, step, theta),
                _ => activated::<S, 2, U, MODE>(simd, row, step, theta),
            };
            few!(VECTOR in 0..V => sums[ROW][VECTOR] = simd.mul_add(x, columns[VECTOR], sums[ROW][VECTOR]));
        });
    }
}

/// Adds the products of as many steps as are at hand together.
///
/// # Safety
///
/// [In reach](Vector#in-reach): the steps.
#[inline(always)]
unsafe fn add_at_hand<S: Vector, const R: usize, const V: usize, const N: usize, const MODE: u8>(
    simd: S,
    sums: &mut [Sums<S, R, V>; N],
    rows: [*const f32; ADDRESSES],
    step: usize,
    weight: *const f32,
    thresholds: *const f32,
) {
    // SAFETY: in reach: a vector has as many lanes as there are steps at hand.
    unsafe {
        let theta = if clamps(MODE) { simd.load(thresholds) } else { simd.splat_f32s(0.0) };
        let mut x = [theta; R];
        unrolled!(ROW in 0..R => {
            let own = simd.load(rows[ROW / rows_per_address::<S>()].add(ROW % rows_per_address::<S>() * step));
            x[ROW] = if clamps(MODE) { simd.activate(own, theta) } else { own };
        });
        few!(U in 0..S::AT_HAND => {
            let columns = load::<S, V>(simd, weight.add(U * V * S::LANES));
            let sums = &mut sums[const { chain::<S>(U, V, N) }];
            unrolled!(ROW in 0..R => {
                let x = simd.lane::<U>(x[ROW]);
                few!(VECTOR in 0..V => {
                    let sum = &mut sums[ROW][VECTOR];
                    *sum = simd.mul_add(x, columns[VECTOR], *sum);
                });
            });
        });
    }
}
