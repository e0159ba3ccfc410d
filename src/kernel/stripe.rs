//! Kernel of the weight's gradient that sums outer products over the positions of one tap, with input channels in lanes.
//!
//! A stripe is a few vectors of input channels. For one tap, its inputs at the positions of a block that read inside are copied,
//! clamped, one after another. The copy meets one tile of output channels after another ([`StripeProducts`]). Their gradients are
//! packed once per block ([`PackTiles`]):
//!
//! ```text
//! stripe    [position][vector]            x of the tap's positions, clamped: in the first-level cache for all tiles
//! gradients [tile][position][channel]     broadcast, one line of the packed positions after another
//! tile      [channel][vector]             in registers over all positions of the block, then added to the gradient
//! ```
//!
//! For each position, a tile of `R` channels by `V` vectors takes `V` loads, `R` broadcasts and `R · V` multiply-adds.
//! Multiply-adds / loads are 24 / 14 for AVX-512 (12 × 2), 12 / 8 for AVX2 (6 × 2), and 22 / 5 for NEON (11 × 2, by lane).
//! Padding is not multiplied.
//!
//! Each shape of a tile is a function of its own. One function with all shapes would take the compiler minutes, and an
//! unoptimised build hundreds of kilobytes of stack.

use core::ops::Range;

use super::Kernel;
use super::tile::{Interleaved, Sums, add_products, few, load, outlined, store, unrolled, with_const};
use super::vector::{MOST_LANES, Vector};
use crate::geometry::{Lattice, Panels, chunks};

/// Most vectors of a stripe.
const MOST_VECTORS: usize = 2;

/// Positions that are copied together. Their inputs are read in memory order, and stay in the first-level cache until all stripes
/// have read them. (No measurement of other numbers is recorded.)
const CHUNK: usize = 16;

/// How many positions before its copy a position's cache lines are prefetched: two chunks. (No measurement of other distances is
/// recorded.)
const AHEAD: usize = 2 * CHUNK;

/// Most vectors of a stripe.
pub(super) const fn most_vectors<S: Vector>() -> usize {
    S::STRIPE[1]
}

/// Most output channels of a tile.
pub(super) const fn most_rows<S: Vector>() -> usize {
    S::STRIPE[0]
}

/// Whether tiles can read the input in place. That needs registers for the thresholds. (NEON uses them for gradients.)
pub(super) const fn reads_in_place<S: Vector>() -> bool {
    S::REGISTERS >= 32 && S::AT_HAND == 1 && !S::FEW_TILES
}

/// `to[tile][p][i] = from[p][channel i of the tile]` for the positions of a block.
pub(crate) struct PackTiles<'a> {
    /// The gradients from the first position's first channel on.
    pub(crate) from: &'a [f32],
    pub(crate) positions: Lattice<1>,
    /// Channels, in tiles.
    pub(crate) tiles: Panels,
    pub(crate) to: &'a mut [f32],
}

impl Kernel for PackTiles<'_> {
    fn check<S: Vector>(&self) {
        let Self { from, positions, tiles, to } = self;
        assert!(tiles.max() <= most_rows::<S>());
        assert!(positions.len() >= 1 && positions.last(0).saturating_add(tiles.len()) <= from.len());
        assert!(positions.len().saturating_mul(tiles.len()) <= to.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        let lattice = self.positions.joined();
        let (count, step) = (lattice.len(), lattice.steps[0][3]);
        let mut packed = 0;
        for [first] in lattice.lines(3) {
            for chunk in chunks(0..lattice.counts[3], CHUNK) {
                let from = first + chunk.start * step;
                let ahead = self.from.as_ptr().wrapping_add(from.wrapping_add(AHEAD.wrapping_mul(step)));
                if count > 1 {
                    prefetch_rows(simd, ahead, step, self.tiles.len());
                }
                for tile in self.tiles.iter() {
                    let to = tile.start * count + packed * tile.len();
                    with_const!(tile.len(), R in [1 2 3 4 5 6 7 8 9 10 11 12] if R <= most_rows::<S>() => {
                        // SAFETY: checked: the positions' channels lie in `from`, and as many in `to`.
                        unsafe {
                            let (from, to) = (self.from.as_ptr().add(from + tile.start), self.to.as_mut_ptr().add(to));
                            copy_rows::<R>(from, step, chunk.len(), to);
                        }
                    });
                }
                packed += chunk.len();
            }
        }
    }
}

/// Prefetches [`CHUNK`] rows of `len` elements.
#[inline(always)]
fn prefetch_rows<S: Vector>(simd: S, from: *const f32, step: usize, len: usize) {
    /// Elements of a cache line.
    const LINE: usize = 16;
    let mut from = from;
    for _ in 0..CHUNK {
        let mut at = 0;
        while at < len {
            simd.prefetch(from.wrapping_add(at));
            at += LINE;
        }
        from = from.wrapping_add(step);
    }
}

/// # Safety
///
/// [In reach](Vector#in-reach): `count` rows of `R` elements, `step` apart at `from`, and one after another at `to`.
#[inline(always)]
unsafe fn copy_rows<const R: usize>(from: *const f32, step: usize, count: usize, to: *mut f32) {
    let (mut from, mut to) = (from, to.cast::<[f32; R]>());
    for _ in 0..count {
        // SAFETY: in reach: the next row.
        unsafe { to.write_unaligned(from.cast::<[f32; R]>().read_unaligned()) };
        // `add` would be undefined behaviour here: after the last row, the pointers may lie beyond the buffers.
        (from, to) = (from.wrapping_add(step), to.wrapping_add(1));
    }
}

/// `sums[d] += Σ_p packed[p][d]` over packed positions.
pub(crate) struct SumTiles<'a> {
    /// The result of [`PackTiles`], followed by a vector with any contents.
    pub(crate) packed: &'a [f32],
    pub(crate) positions: usize,
    pub(crate) tiles: Panels,
    pub(crate) sums: &'a mut [f32],
}

impl Kernel for SumTiles<'_> {
    fn check<S: Vector>(&self) {
        let len = self.positions.saturating_mul(self.tiles.len());
        assert!(len.saturating_add(S::LANES) <= self.packed.len() && self.tiles.len() <= self.sums.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        /// Chains of additions. In a single chain, each addition would wait for the one before.
        const CHAINS: usize = 4;
        let mut lanes = [0.0; MOST_LANES];
        for tile in self.tiles.iter() {
            let rows = tile.len();
            let mut first = 0;
            while first < rows {
                let mut sums = [simd.splat_f32s(0.0); CHAINS];
                let mut from = self.packed.as_ptr().wrapping_add(tile.start * self.positions + first);
                // SAFETY: checked: a vector that begins at any channel of the last position ends inside the slice.
                unsafe {
                    for _ in 0..self.positions / CHAINS {
                        sums = [
                            simd.add_f32s(sums[0], simd.load(from)),
                            simd.add_f32s(sums[1], simd.load(from.add(rows))),
                            simd.add_f32s(sums[2], simd.load(from.add(2 * rows))),
                            simd.add_f32s(sums[3], simd.load(from.add(3 * rows))),
                        ];
                        from = from.wrapping_add(CHAINS * rows);
                    }
                    for _ in 0..self.positions % CHAINS {
                        sums[0] = simd.add_f32s(sums[0], simd.load(from));
                        from = from.wrapping_add(rows);
                    }
                }
                let sum = simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3]));
                // SAFETY: in reach: `lanes` is as long as the widest vector.
                unsafe { simd.store(lanes.as_mut_ptr(), sum) };
                let channels = &mut self.sums[tile.start + first..tile.end];
                channels.iter_mut().zip(&lanes[..S::LANES]).for_each(|(sum, lane)| *sum += lane);
                first += S::LANES;
            }
        }
    }
}

/// `sums[d][c] += Σ_p gradients[p][d] · f(input[p][c]; θ[c])` over the positions of a block that read inside through one tap, and
/// `outside[d] · θ[c]` where `θ > 0`, for stripes of input channels and tiles of output channels. (The driver of patches puts
/// other things than channels into lanes and rows. The names here are those of channels.)
pub(crate) struct StripeProducts<'a> {
    /// The input from the element that the first position reads of the first channel on.
    pub(crate) input: &'a [f32],
    /// The positions; there may be none. Their first steps lead through the input, their second steps through the gradients. The
    /// second steps count positions if gradients are packed in tiles, and elements if not.
    pub(crate) positions: Lattice<2>,
    /// The first position in the gradients, in the same unit.
    pub(crate) first: usize,
    /// Input channels.
    pub(crate) channels: usize,
    /// Elements from the first channel on that may be read at each position. They end before a gap.
    pub(crate) readable: usize,
    /// The vectors of the input channels, in stripes of at most [`most_vectors`].
    pub(crate) stripes: Panels,
    /// One per lane of the vectors. None if nothing is clamped.
    pub(crate) thresholds: Option<&'a [f32]>,
    /// Room for `[stripe][position][lane]`.
    pub(crate) copy: &'a mut [f32],
    /// `[tile][position][channel of the tile]` if packed. If not, all channels of a position lie side by side.
    pub(crate) gradients: &'a [f32],
    /// The number of positions that are packed in tiles. None if the gradients are not packed.
    pub(crate) packed: Option<usize>,
    /// Output channels, in tiles.
    pub(crate) tiles: Panels,
    /// Whether tiles should read the input in place, if they can. If each stripe meets a single tile, a copy costs more than it
    /// saves.
    pub(crate) in_place: bool,
    /// Whether stripes of a single vector have two chains of sums. Tiles with few rows need them. It depends on the layer and not
    /// on a task's part of it, because the order of sums depends on it.
    pub(crate) pairs: bool,
    /// One per output channel: the sum of the gradients where the tap reads padding. Only with thresholds.
    pub(crate) outside: Option<&'a [f32]>,
    /// The kernel adds to them or replaces them. Output channels are `pitch` elements apart.
    pub(crate) sums: &'a mut [f32],
    pub(crate) pitch: usize,
    pub(crate) replaces: bool,
}

impl Kernel for StripeProducts<'_> {
    fn check<S: Vector>(&self) {
        let Self { input, positions, channels, stripes, tiles, .. } = self;
        let lanes = stripes.len().saturating_mul(S::LANES);
        assert!(*channels >= 1 && channels.div_ceil(S::LANES) == stripes.len() && stripes.max() <= most_vectors::<S>());
        assert!(tiles.count() >= 1 && tiles.max() <= most_rows::<S>());
        if positions.len() > 0 {
            assert!(positions.last(0).saturating_add(*channels) <= input.len());
            let last = self.first.saturating_add(positions.last(1));
            match self.packed {
                Some(packed) => assert!(last < packed),
                None => assert!(last.saturating_add(tiles.len()) <= self.gradients.len()),
            }
        }
        assert!(self.reads_in_place::<S>() || positions.len().saturating_mul(lanes) <= self.copy.len());
        assert!(self.packed.is_none_or(|packed| packed.saturating_mul(tiles.len()) <= self.gradients.len()));
        assert!(self.thresholds.is_none_or(|thresholds| lanes <= thresholds.len()));
        assert!(self.outside.is_none_or(|outside| tiles.len() <= outside.len() && self.thresholds.is_some()));
        assert!((tiles.len() - 1).saturating_mul(self.pitch).saturating_add(*channels) <= self.sums.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(mut self, simd: S) {
        let in_place = self.reads_in_place::<S>();
        if self.positions.len() > 0 && !in_place {
            // SAFETY: the call is checked.
            unsafe { copy_stripes(simd, &mut self) };
        }
        if self.positions.len() == 1 && self.outside.is_none() {
            // SAFETY: the call is checked, and has one position.
            unsafe { add_position(simd, &mut self) };
            return;
        }
        for stripe in 0..self.stripes.count() {
            // SAFETY: the call is checked, and has the stripe; what is read in place can be.
            unsafe { sum_stripe(simd, &mut self, stripe, in_place) };
        }
    }
}

impl StripeProducts<'_> {
    /// Whether tiles read the input in place. That needs whole vectors that may be read.
    fn reads_in_place<S: Vector>(&self) -> bool {
        let lanes = self.stripes.len() * S::LANES;
        (reads_in_place::<S>() || self.thresholds.is_none())
            && self.in_place
            && self.positions.len() > 1
            && lanes <= self.readable
            && self.positions.last(0).saturating_add(lanes) <= self.input.len()
    }

    /// The offset of the gradients of a tile's first position, and the elements per unit of the positions' steps.
    #[inline(always)]
    fn gradients_of(&self, tile: &Range<usize>) -> (usize, usize) {
        match self.packed {
            Some(packed) => (tile.start * packed + self.first * tile.len(), tile.len()),
            None => (self.first + tile.start, 1),
        }
    }
}

/// Adds a single position. Nearly all of the work is then to read and write the sums, so the loops follow the sums in memory
/// order.
///
/// # Safety
///
/// The call is [checked](Kernel#checked). It has one position, and nothing outside.
unsafe fn add_position<S: Vector>(simd: S, call: &mut StripeProducts<'_>) {
    outlined!(simd => {
        let zero = simd.splat_f32s(0.0);
        let (whole, rest) = (call.channels / S::LANES * S::LANES, call.channels % S::LANES);
        let mask = simd.lanes(rest as u32);
        let mut tile = 0;
        while tile < call.tiles.count() {
            let channels = call.tiles.get(tile);
            let rows = channels.end - channels.start;
            let (first, _) = call.gradients_of(&channels);
            let mut row = 0;
            while row < rows {
                // SAFETY: checked: the gradients hold the channel's gradient at the position. The channel has one sum per input
                // channel, and the copy has at least as many lanes.
                unsafe {
                    let gradient = simd.splat_f32s(*call.gradients.as_ptr().add(first + row));
                    let sums = call.sums.as_mut_ptr().add((channels.start + row) * call.pitch);
                    let x = call.copy.as_ptr();
                    let mut lane = 0;
                    while lane < whole {
                        let product = simd.mul_add(gradient, simd.load(x.add(lane)), zero);
                        let to = sums.add(lane);
                        let sum = if call.replaces { product } else { simd.add_f32s(simd.load(to), product) };
                        simd.store(to, sum);
                        lane += S::LANES;
                    }
                    if rest > 0 {
                        let product = simd.mul_add(gradient, simd.load(x.add(lane)), zero);
                        let to = sums.add(lane);
                        let before = simd.mask_load_ptr_f32s(mask, to);
                        let sum = if call.replaces { product } else { simd.add_f32s(before, product) };
                        simd.mask_store_ptr_f32s(mask, to, sum);
                    }
                }
                row += 1;
            }
            tile += 1;
        }
    });
}

/// Computes all tiles of a stripe.
///
/// # Safety
///
/// The call is [checked](Kernel#checked), and `stripe` is one of its stripes. `in_place` is true only if the call [can read in
/// place](StripeProducts::reads_in_place).
#[inline(never)]
unsafe fn sum_stripe<S: Vector>(simd: S, call: &mut StripeProducts<'_>, stripe: usize, in_place: bool) {
    let vectors = call.stripes.get(stripe);
    let (first_lane, lanes) = (vectors.start * S::LANES, vectors.len() * S::LANES);
    let channels = lanes.min(call.channels - first_lane);
    let mut own = [0.0; MOST_LANES];
    own[..channels - (lanes - S::LANES)].fill(1.0);
    let [_, b, c, d] = call.positions.counts;
    let copied = [b * c * d * lanes, c * d * lanes, d * lanes, lanes];
    let steps = [if in_place { call.positions.steps[0] } else { copied }, call.positions.steps[1]];
    let positions = Lattice { counts: call.positions.counts, steps }.joined();
    let clamps = in_place && call.thresholds.is_some();
    for tile in call.tiles.iter() {
        let first_sum = tile.start * call.pitch + first_lane;
        let behind = call.sums.len() - first_sum;
        let (first, unit) = call.gradients_of(&tile);
        // SAFETY: checked: each offset counts the positions, channels and sums that come before, all of which lie in the slices.
        // If there is a position, the gradients of the first one are packed.
        let operands = unsafe {
            Tile {
                x: if in_place {
                    call.input.as_ptr().add(first_lane)
                } else {
                    call.copy.as_ptr().add(first_lane * call.positions.len())
                },
                gradients: call.gradients.as_ptr().wrapping_add(first),
                positions: &positions,
                unit,
                thresholds: call.thresholds.map(|thresholds| thresholds.as_ptr().add(first_lane)),
                outside: call.outside.map(|outside| outside.as_ptr().add(tile.start)),
                sums: call.sums.as_mut_ptr().add(first_sum),
                pitch: call.pitch,
                channels,
                own: own.as_ptr(),
                whole: (tile.len() - 1) * call.pitch + lanes <= behind,
                replaces: call.replaces,
                pairs: call.pairs,
            }
        };
        #[cfg(feature = "internal-testing")]
        super::seen::see::<S>(super::Tiles::BackwardWeight, usize::from(clamps), tile.len(), vectors.len());
        with_const!(vectors.len(), V in [1 2] if V <= most_vectors::<S>() => {
            with_const!(tile.len(), R in [1 2 3 4 5 6 7 8 9 10 11 12] if R <= most_rows::<S>() => {
                // SAFETY: checked: the stripe has `V` vectors, the tile `R` channels.
                unsafe {
                    if const { reads_in_place::<S>() } && clamps {
                        sum_tile::<S, R, V, true>(simd, &operands)
                    } else {
                        sum_tile::<S, R, V, false>(simd, &operands)
                    }
                }
            })
        });
    }
}

/// Copies all stripes.
///
/// # Safety
///
/// The call is [checked](Kernel#checked), and there is a position.
unsafe fn copy_stripes<S: Vector>(simd: S, call: &mut StripeProducts<'_>) {
    outlined!(simd => {
        let lattice = Lattice { counts: call.positions.counts, steps: [call.positions.steps[0]] }.joined();
        let ([na, nb, nc, count], [steps]) = (lattice.counts, lattice.steps);
        let mut to = 0;
        let mut line = 0;
        while line < na * nb * nc {
            let (a, b, c) = (line / (nb * nc), line / nc % nb, line % nc);
            let first = a * steps[0] + b * steps[1] + c * steps[2];
            let mut start = 0;
            while start < count {
                let chunk = if count - start < CHUNK { count - start } else { CHUNK };
                let lines = Places { first: first + start * steps[3], step: steps[3], count: chunk, to };
                let ahead =
                    call.input.as_ptr().wrapping_add(lines.first.wrapping_add(AHEAD.wrapping_mul(lines.step)));
                if call.positions.len() > 1 {
                    prefetch_rows(simd, ahead, lines.step, call.channels);
                }
                let mut stripe = 0;
                while stripe < call.stripes.count() {
                    // SAFETY: checked. The places are among the positions, as `copy_chunk` asks.
                    unsafe { copy_chunk(simd, call, stripe, &lines) };
                    stripe += 1;
                }
                (start, to) = (start + chunk, to + chunk);
            }
            line += 1;
        }
    });
}

/// Some positions along a line.
struct Places {
    /// Where the first lies in the input.
    first: usize,
    step: usize,
    count: usize,
    /// How many come before them.
    to: usize,
}

/// Copies one stripe of some positions.
///
/// # Safety
///
/// The call is [checked](Kernel#checked), `stripe` is one of its stripes, and the places are among its positions.
#[inline(always)]
unsafe fn copy_chunk<S: Vector>(simd: S, call: &mut StripeProducts<'_>, stripe: usize, places: &Places) {
    let vectors = call.stripes.get(stripe);
    let (first_lane, lanes) = (vectors.start * S::LANES, vectors.len() * S::LANES);
    let first = places.first + first_lane;
    let to = call.positions.len() * first_lane + places.to * lanes;
    // Whole vectors may be loaded if they end inside the input and before a gap. Lanes that are not channels of the stripe are
    // not added to the gradient.
    let whole = match call.input.len().checked_sub(first + lanes) {
        _ if first_lane + lanes > call.readable => 0,
        Some(room) if places.step * (places.count - 1) <= room => places.count,
        Some(room) => room / places.step + 1,
        None => 0,
    };
    // SAFETY: checked: the copy has room for all lanes of the stripe at its positions, and there is a threshold per lane. The
    // first `whole` places have whole vectors in the input; at the others only the lanes of channels are read.
    unsafe {
        let (from, to) = (call.input.as_ptr().add(first), call.copy.as_mut_ptr().add(to));
        let thetas = call.thresholds.map(|thresholds| thresholds.as_ptr().add(first_lane));
        with_const!(vectors.len(), V in [1 2] => match thetas {
            Some(thetas) => {
                let thetas = load::<S, V>(simd, thetas);
                copy_vectors::<S, V, true>(simd, from, places.step, whole, thetas, to);
            }
            None => copy_vectors::<S, V, false>(simd, from, places.step, whole, [simd.splat_f32s(0.0); V], to),
        });
        let channels = lanes.min(call.channels - first_lane);
        for place in whole..places.count {
            let (from, to) = (from.add(place * places.step), to.add(place * lanes));
            for lane in 0..channels {
                let x = *from.add(lane);
                *to.add(lane) = match thetas {
                    // The comparison is false for a NaN, so the NaN stays.
                    Some(thetas) if x <= *thetas.add(lane) => *thetas.add(lane),
                    _ => x,
                };
            }
            for lane in channels..lanes {
                *to.add(lane) = 0.0;
            }
        }
    }
}

/// # Safety
///
/// [In reach](Vector#in-reach): `V` vectors at each of `count` places, `step` apart at `from` and one after another at `to`.
#[inline(always)]
unsafe fn copy_vectors<S: Vector, const V: usize, const CLAMPED: bool>(
    simd: S,
    mut from: *const f32,
    step: usize,
    count: usize,
    thetas: [S::f32s; V],
    mut to: *mut f32,
) {
    for _ in 0..count {
        // SAFETY: in reach: the vectors of the next place.
        unsafe {
            few!(I in 0..V => {
                let mut x = simd.load(from.add(I * S::LANES));
                if CLAMPED {
                    x = simd.activate(x, thetas[I]);
                }
                simd.store(to.add(I * S::LANES), x);
            });
        }
        (from, to) = (from.wrapping_add(step), to.wrapping_add(V * S::LANES));
    }
}

/// The operands of a tile.
struct Tile<'a> {
    /// Vectors of the first position.
    x: *const f32,
    /// `[position][channel]`
    gradients: *const f32,
    /// The first steps count elements of `x`. The second steps count units of the gradients, of `unit` elements each.
    positions: &'a Lattice<2>,
    unit: usize,
    thresholds: Option<*const f32>,
    /// One per channel.
    outside: Option<*const f32>,
    sums: *mut f32,
    /// Distance of the channels' sums.
    pitch: usize,
    /// The number of input channels, which have sums. Other lanes have none.
    channels: usize,
    /// A vector that tells which lanes of the last vector hold a channel: it is above zero there, and zero elsewhere.
    own: *const f32,
    /// Whether whole vectors of sums are in reach.
    whole: bool,
    /// Whether sums are replaced, not added to.
    replaces: bool,
    /// Whether every other position has chains of its own.
    pairs: bool,
}

/// # Safety
///
/// [In reach](Vector#in-reach): `V` vectors of `x` and `R` gradients at each position; `V` vectors at the thresholds; one vector
/// at `own`; `R` elements at `outside`; `channels` sums of each of `R` output channels, or `V` vectors of sums if they are
/// `whole`. `V` vectors hold the channels, and `V − 1` vectors do not. There are thresholds if there is something outside, or if
/// `CLAMPS`.
unsafe fn sum_tile<S: Vector, const R: usize, const V: usize, const CLAMPS: bool>(simd: S, tile: &Tile<'_>) {
    // SAFETY: in reach, as this function asks.
    outlined!(simd => unsafe {
        let sums = sum_positions::<S, R, V, CLAMPS>(simd, tile);
        add_sums(simd, tile, sums);
    });
}

/// The sums of a tile.
///
/// # Safety
///
/// As [`sum_tile`] asks.
#[inline(always)]
unsafe fn sum_positions<S: Vector, const R: usize, const V: usize, const CLAMPS: bool>(
    simd: S,
    tile: &Tile<'_>,
) -> Sums<S, R, V> {
    unrolled!(ROW in 0..R => simd.prefetch(tile.sums.wrapping_add(ROW * tile.pitch)));
    let zero = simd.splat_f32s(0.0);
    let mut sums = [[zero; V]; R];
    if let (Some(outside), Some(thresholds)) = (tile.outside, tile.thresholds) {
        // SAFETY: in reach: `V` vectors of thresholds, `R` sums.
        unsafe {
            let thetas = load::<S, V>(simd, thresholds);
            unrolled!(ROW in 0..R => {
                let sum = simd.splat_f32s(*outside.add(ROW));
                few!(I in 0..V => {
                    sums[ROW][I] = simd.keep(simd.less_than_f32s(zero, thetas[I]), simd.mul_f32s(thetas[I], sum));
                });
            });
        }
    }
    let mut thetas = [zero; V];
    if let (true, Some(thresholds)) = (CLAMPS, tile.thresholds) {
        // SAFETY: in reach.
        thetas = unsafe { load::<S, V>(simd, thresholds) };
    }
    // A single vector has too few chains of sums to hide the latency of an addition. So every other position has chains of its
    // own.
    let mut others = [[zero; V]; R];
    let pairs = const { V == 1 && !S::FEW_TILES } && tile.pairs;
    let ([na, nb, nc, count], [x_steps, steps]) = (tile.positions.counts, tile.positions.steps);
    let steps = steps.map(|step| step * tile.unit);
    let (x_step, step) = (x_steps[3], steps[3]);
    // One loop walks all three outer axes. If there were three nested loops, the compiler would copy all sums at each level.
    let (mut a, mut b, mut c) = (0, 0, 0);
    let mut lines = na * nb * nc;
    while lines > 0 {
        let mut x = tile.x.wrapping_add(a * x_steps[0] + b * x_steps[1] + c * x_steps[2]);
        let mut g = tile.gradients.wrapping_add(a * steps[0] + b * steps[1] + c * steps[2]);
        let mut left = count;
        while pairs && left > 1 {
            // SAFETY: in reach: the next two positions.
            unsafe {
                add_products(simd, &mut sums, Interleaved::<R>(g), inputs::<S, V, CLAMPS>(simd, x, thetas));
                (x, g) = (x.wrapping_add(x_step), g.wrapping_add(step));
                add_products(simd, &mut others, Interleaved::<R>(g), inputs::<S, V, CLAMPS>(simd, x, thetas));
                (x, g) = (x.wrapping_add(x_step), g.wrapping_add(step));
            }
            left -= 2;
        }
        while left > 0 {
            // SAFETY: in reach: the next position.
            unsafe { add_products(simd, &mut sums, Interleaved::<R>(g), inputs::<S, V, CLAMPS>(simd, x, thetas)) };
            (x, g) = (x.wrapping_add(x_step), g.wrapping_add(step));
            left -= 1;
        }
        c += 1;
        if c == nc {
            (b, c) = (b + 1, 0);
        }
        if b == nb {
            (a, b) = (a + 1, 0);
        }
        lines -= 1;
    }
    if pairs {
        unrolled!(ROW in 0..R => {
            few!(I in 0..V => sums[ROW][I] = simd.add_f32s(sums[ROW][I], others[ROW][I]));
        });
    }
    sums
}

/// Vectors of the input, clamped if they have not been.
///
/// # Safety
///
/// In reach: `V` vectors.
#[inline(always)]
unsafe fn inputs<S: Vector, const V: usize, const CLAMPS: bool>(
    simd: S,
    x: *const f32,
    thetas: [S::f32s; V],
) -> [S::f32s; V] {
    // SAFETY: in reach.
    let mut x = unsafe { load::<S, V>(simd, x) };
    if CLAMPS {
        few!(I in 0..V => x[I] = simd.activate(x[I], thetas[I]));
    }
    x
}

/// Adds the sums of a tile to those in memory, or replaces them.
///
/// # Safety
///
/// As [`sum_tile`] asks.
#[inline(always)]
unsafe fn add_sums<S: Vector, const R: usize, const V: usize>(simd: S, tile: &Tile<'_>, sums: Sums<S, R, V>) {
    if !tile.whole {
        // SAFETY: as this function asks.
        unsafe { add_lanes(simd, tile, sums) }
    } else if tile.channels < V * S::LANES {
        let zero = simd.splat_f32s(0.0);
        let adds = simd.less_than_f32s(zero, simd.splat_f32s(if tile.replaces { 0.0 } else { 1.0 }));
        // The last vector has lanes that are not channels of the stripe. The values there stay.
        // SAFETY: in reach: a vector.
        let own = simd.less_than_f32s(zero, unsafe { simd.load(tile.own) });
        unrolled!(ROW in 0..R => {
            // SAFETY: in reach: `V` vectors of sums of channel `ROW`.
            unsafe {
                let to = tile.sums.add(ROW * tile.pitch);
                let before = load::<S, V>(simd, to);
                few!(I in 0..V => {
                    let mut sum = simd.add_f32s(simd.keep(adds, before[I]), sums[ROW][I]);
                    if I == V - 1 {
                        sum = simd.select_f32s(own, sum, before[I]);
                    }
                    simd.store(to.add(I * S::LANES), sum);
                });
            }
        });
    } else if tile.replaces {
        // SAFETY: in reach: `V` vectors of sums of `R` channels.
        unsafe { store(simd, sums, tile.sums, tile.pitch) }
    } else {
        unrolled!(ROW in 0..R => {
            // SAFETY: in reach: `V` vectors of sums of channel `ROW`.
            unsafe {
                let to = tile.sums.add(ROW * tile.pitch);
                let before = load::<S, V>(simd, to);
                few!(I in 0..V => simd.store(to.add(I * S::LANES), simd.add_f32s(before[I], sums[ROW][I])));
            }
        });
    }
}

/// [`add_sums`] where whole vectors are not in reach.
///
/// # Safety
///
/// As [`sum_tile`] asks.
#[inline(always)]
unsafe fn add_lanes<S: Vector, const R: usize, const V: usize>(simd: S, tile: &Tile<'_>, sums: Sums<S, R, V>) {
    let mut bounce = [[0.0; MOST_VECTORS * MOST_LANES]; R];
    // SAFETY: in reach: a row of `bounce` holds the most vectors.
    unsafe { store(simd, sums, bounce.as_mut_ptr().cast(), MOST_VECTORS * MOST_LANES) };
    for (row, values) in bounce.iter().enumerate() {
        for (lane, value) in values[..tile.channels].iter().enumerate() {
            // SAFETY: in reach: a channel's sum.
            let sum = unsafe { &mut *tile.sums.add(row * tile.pitch + lane) };
            *sum = if tile.replaces { *value } else { *sum + *value };
        }
    }
}
