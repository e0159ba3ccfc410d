//! Sums of outer products over the positions of one tap, input channels in lanes: the gradient of the weight with channels
//! last.
//!
//! A stripe is a few vectors of input channels. At one tap, the positions of a block that read inside are copied from it,
//! clamped, one after another ([`StripeProducts`]); against them go tiles of output channels, whose gradients are packed once
//! per block ([`PackTiles`]):
//!
//! ```text
//! stripe    [position][vector]            x of the tap's positions, clamped: in the first-level cache for all tiles
//! gradients [tile][position][channel]     broadcast, one line of the packed positions after another
//! tile      [channel][vector]             in registers over all positions of the block, then added to the gradient
//! ```
//!
//! Each position costs a tile of `R` channels by `V` vectors `V` loads, `R` broadcasts and `R · V` multiply-adds (AVX-512
//! 12 × 2: 24 / 14, AVX2 6 × 2: 12 / 8, NEON 11 × 2, by lane: 22 / 5). Nothing is multiplied by padding.
//!
//! Each shape of tile is a function of its own, which the plain code around calls: one function with all of them would take
//! the compiler minutes, and an unoptimised build hundreds of kilobytes of stack.

use core::marker::PhantomData;

use pulp::{Simd, WithSimd};

use super::Kernel;
use super::tile::{Interleaved, Sums, add_products, load, unrolled, with_const};
use super::vector::{MOST_LANES, Vector};
use crate::geometry::{Lattice, Panels};

/// Most vectors of a stripe.
const MOST_VECTORS: usize = 2;

/// Most output channels of a tile.
const MOST_ROWS: usize = 12;

/// Most vectors of a stripe.
pub(super) const fn most_vectors<S: Vector>() -> usize {
    S::STRIPE[1]
}

/// Most output channels of a tile.
pub(super) const fn most_rows<S: Vector>() -> usize {
    S::STRIPE[0]
}

/// `to[tile][p][i] = from[p][channel i of the tile]` for the positions of a block.
pub(crate) struct PackTiles<'a> {
    /// From the first position's first channel on.
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
    unsafe fn run<S: Vector>(self, _: S) {
        let lattice = self.positions.joined();
        let count = lattice.len();
        for tile in self.tiles.iter() {
            with_const!(tile.len(), R in [1 2 3 4 5 6 7 8 9 10 11 12] => if const { R <= most_rows::<S>() } {
                // SAFETY: checked: the positions' channels lie in `from`, the tile and those before it, packed, in `to`.
                unsafe {
                    let to = self.to.as_mut_ptr().add(tile.start * count);
                    pack_tile::<R>(self.from.as_ptr().add(tile.start), &lattice, to);
                }
            });
        }
    }
}

/// # Safety
///
/// [In reach](Vector#in-reach): `R` elements at each place of the lattice from `from` on, and as many one after another at `to`.
#[inline(never)]
unsafe fn pack_tile<const R: usize>(from: *const f32, lattice: &Lattice<1>, to: *mut f32) {
    let (mut to, step) = (to.cast::<[f32; R]>(), lattice.steps[0][3]);
    for [first] in lattice.lines(3) {
        // SAFETY: in reach: the line begins at a place of the lattice.
        let mut from = unsafe { from.add(first) };
        for _ in 0..lattice.counts[3] {
            // SAFETY: in reach: the next place.
            unsafe { to.write_unaligned(from.cast::<[f32; R]>().read_unaligned()) };
            // Not `add`: after the last place they may point beyond the buffers.
            (from, to) = (from.wrapping_add(step), to.wrapping_add(1));
        }
    }
}

/// `sums[d][c] += Σ_p gradients[p][d] · f(input[p][c]; θ[c])` over the positions of a block that read inside through one tap,
/// and `outside[d] · θ[c]` where `θ > 0`, for a stripe of input channels and all tiles of output channels.
pub(crate) struct StripeProducts<'a> {
    /// From where the first position reads the first channel on.
    pub(crate) input: &'a [f32],
    /// The positions, perhaps none: in the input and, counted in positions, among those that are packed.
    pub(crate) positions: Lattice<2>,
    /// Where the first one is packed.
    pub(crate) first: usize,
    /// Channels of the stripe, at most [`most_vectors`] vectors.
    pub(crate) channels: usize,
    /// One per lane of the stripe's vectors; none where nothing is clamped.
    pub(crate) thresholds: Option<&'a [f32]>,
    /// Room for `[position][lane]`.
    pub(crate) stripe: &'a mut [f32],
    /// `[tile][position][channel of the tile]`
    pub(crate) gradients: &'a [f32],
    /// Positions that are packed there.
    pub(crate) packed: usize,
    /// Output channels, in tiles.
    pub(crate) tiles: Panels,
    /// One per output channel: the sum of the gradients where the tap reads padding. Only with thresholds.
    pub(crate) outside: Option<&'a [f32]>,
    /// Added to. Output channels are `pitch` apart.
    pub(crate) sums: &'a mut [f32],
    pub(crate) pitch: usize,
}

impl Kernel for StripeProducts<'_> {
    fn check<S: Vector>(&self) {
        let Self { input, positions, channels, tiles, .. } = self;
        let lanes = channels.next_multiple_of(S::LANES);
        assert!((1..=most_vectors::<S>() * S::LANES).contains(channels));
        assert!(tiles.count() >= 1 && tiles.max() <= most_rows::<S>());
        if positions.len() > 0 {
            assert!(positions.last(0).saturating_add(*channels) <= input.len());
            assert!(self.first.saturating_add(positions.last(1)) < self.packed);
        }
        assert!(positions.len().saturating_mul(lanes) <= self.stripe.len());
        assert!(self.packed.saturating_mul(tiles.len()) <= self.gradients.len());
        assert!(self.thresholds.is_none_or(|thresholds| lanes <= thresholds.len()));
        assert!(self.outside.is_none_or(|outside| tiles.len() <= outside.len() && self.thresholds.is_some()));
        assert!((tiles.len() - 1).saturating_mul(self.pitch).saturating_add(*channels) <= self.sums.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        // SAFETY: the call is checked.
        unsafe { walk(simd, self) }
    }
}

/// Copies the stripe, then computes tile after tile.
///
/// # Safety
///
/// The call is [checked](Kernel#checked).
#[inline(never)]
unsafe fn walk<S: Vector>(simd: S, call: StripeProducts<'_>) {
    let vectors = call.channels.div_ceil(S::LANES);
    let pitch = vectors * S::LANES;
    with_const!(vectors, V in [1 2] => if const { V <= most_vectors::<S>() } {
        let lattice = Lattice { counts: call.positions.counts, steps: [call.positions.steps[0]] }.joined();
        let copy = Copy {
            input: call.input,
            lattice,
            channels: call.channels,
            thresholds: call.thresholds.map(<[f32]>::as_ptr),
            to: call.stripe.as_mut_ptr(),
        };
        // SAFETY: checked: the positions' channels lie in the input, and their lanes have room in the stripe.
        unsafe { copy_stripe::<S, V>(simd, &copy) };
    });
    let [_, b, c, d] = call.positions.counts;
    let steps = [[b * c * d * pitch, c * d * pitch, d * pitch, pitch], call.positions.steps[1]];
    let positions = Lattice { counts: call.positions.counts, steps }.joined();
    for tile in call.tiles.iter() {
        let first = tile.start * call.packed + call.first * tile.len();
        // SAFETY: checked: so many packed positions and channels come before, with their sums.
        let operands = unsafe {
            Tile {
                x: call.stripe.as_ptr(),
                gradients: call.gradients.as_ptr().wrapping_add(first),
                positions,
                thresholds: call.thresholds.map(<[f32]>::as_ptr),
                outside: call.outside.map(|outside| outside.as_ptr().add(tile.start)),
                sums: call.sums.as_mut_ptr().add(tile.start * call.pitch),
                pitch: call.pitch,
                channels: call.channels,
            }
        };
        with_const!(vectors, V in [1 2] => if const { V <= most_vectors::<S>() } {
            with_const!(tile.len(), R in [1 2 3 4 5 6 7 8 9 10 11 12] => if const { R <= most_rows::<S>() } {
                // SAFETY: checked: the stripe has `V` vectors, the tile `R` channels.
                unsafe { sum_tile::<S, R, V>(simd, &operands) }
            })
        });
    }
}

/// A stripe to be copied.
struct Copy<'a> {
    input: &'a [f32],
    lattice: Lattice<1>,
    channels: usize,
    thresholds: Option<*const f32>,
    to: *mut f32,
}

/// # Safety
///
/// [In reach](Vector#in-reach): in the input, the channels at each place of the lattice; `V` vectors, which are as many as the
/// channels need, at the thresholds and, for each place, at `to`.
#[inline(never)]
unsafe fn copy_stripe<S: Vector, const V: usize>(simd: S, copy: &Copy<'_>) {
    /// What is copied where the instructions of `S` may be used.
    struct InReach<'a, S, const V: usize>(S, &'a Copy<'a>);

    impl<S: Vector, const V: usize> WithSimd for InReach<'_, S, V> {
        type Output = ();

        #[inline(always)]
        fn with_simd<T: Simd>(self, _: T) {
            // SAFETY: in reach, where this was made.
            unsafe {
                match self.1.thresholds {
                    Some(thetas) => {
                        let thetas = load::<S, V>(self.0, thetas);
                        copy_lines::<S, V, true>(self.0, self.1, thetas);
                    }
                    None => copy_lines::<S, V, false>(self.0, self.1, [self.0.splat_f32s(0.0); V]),
                }
            }
        }
    }

    simd.vectorize(InReach::<S, V>(simd, copy));
}

/// # Safety
///
/// As [`copy_stripe`] asks.
#[inline(always)]
unsafe fn copy_lines<S: Vector, const V: usize, const CLAMPED: bool>(simd: S, copy: &Copy<'_>, thetas: [S::f32s; V]) {
    let Copy { input, ref lattice, channels, thresholds, to } = *copy;
    let (counts, [steps]) = (lattice.counts, lattice.steps);
    let step = steps[3];
    let mut to = to;
    let (mut a, mut b, mut c) = (0, 0, 0);
    if lattice.len() == 0 {
        return;
    }
    loop {
        let first = a * steps[0] + b * steps[1] + c * steps[2];
        // Whole vectors may be loaded as long as they end in the input; what is no channel of the stripe is not added up.
        let whole = match input.len().checked_sub(first + V * S::LANES) {
            Some(room) if step * (counts[3] - 1) <= room => counts[3],
            Some(room) => room / step + 1,
            None => 0,
        };
        let mut from = input.as_ptr().wrapping_add(first);
        for _ in 0..whole {
            // SAFETY: in reach: the vectors end in the input, and there is room for each place.
            unsafe {
                unrolled!(I in 0..V => {
                    let mut x = simd.load(from.add(I * S::LANES));
                    if CLAMPED {
                        x = simd.activate(x, thetas[I]);
                    }
                    simd.store(to.add(I * S::LANES), x);
                });
            }
            (from, to) = (from.wrapping_add(step), to.wrapping_add(V * S::LANES));
        }
        for _ in whole..counts[3] {
            for lane in 0..V * S::LANES {
                // SAFETY: in reach: a channel of the place; thresholds and room for all lanes.
                unsafe {
                    let mut x = if lane < channels { *from.add(lane) } else { 0.0 };
                    if let Some(thetas) = thresholds {
                        let theta = *thetas.add(lane);
                        // A NaN stays.
                        x = if x <= theta { theta } else { x };
                    }
                    *to.add(lane) = x;
                }
            }
            (from, to) = (from.wrapping_add(step), to.wrapping_add(V * S::LANES));
        }
        c += 1;
        if c == counts[2] {
            (b, c) = (b + 1, 0);
        }
        if b == counts[1] {
            (a, b) = (a + 1, 0);
        }
        if a == counts[0] {
            return;
        }
    }
}

/// The operands of a tile.
struct Tile {
    /// Vectors of the first position.
    x: *const f32,
    /// `[position][channel]`
    gradients: *const f32,
    /// Steps in `x` in elements, in the gradients in positions.
    positions: Lattice<2>,
    thresholds: Option<*const f32>,
    /// One per channel.
    outside: Option<*const f32>,
    sums: *mut f32,
    /// Distance of the channels' sums.
    pitch: usize,
    /// Input channels: those that have sums.
    channels: usize,
}

/// # Safety
///
/// [In reach](Vector#in-reach): `V` vectors of `x` and `R` gradients at each position, `V` vectors at the thresholds, `R` elements at
/// `outside`, `channels` sums of each of `R` output channels. The channels are more than `V − 1` vectors hold, and not more than
/// `V`. There are thresholds where there is something outside.
#[inline(never)]
unsafe fn sum_tile<S: Vector, const R: usize, const V: usize>(simd: S, tile: &Tile) {
    /// A tile that is summed where the instructions of `S` may be used.
    struct InReach<'a, S, const R: usize, const V: usize>(S, &'a Tile, PhantomData<[[S; V]; R]>);

    impl<S: Vector, const R: usize, const V: usize> WithSimd for InReach<'_, S, R, V> {
        type Output = ();

        #[inline(always)]
        fn with_simd<T: Simd>(self, _: T) {
            // SAFETY: in reach, where this was made.
            unsafe {
                let sums = sum_positions::<S, R, V>(self.0, self.1);
                add_sums(self.0, self.1, sums);
            }
        }
    }

    simd.vectorize(InReach::<S, R, V>(simd, tile, PhantomData));
}

/// The sums of a tile.
///
/// # Safety
///
/// As [`sum_tile`] asks.
#[inline(always)]
unsafe fn sum_positions<S: Vector, const R: usize, const V: usize>(simd: S, tile: &Tile) -> Sums<S, R, V> {
    let zero = simd.splat_f32s(0.0);
    let mut sums = [[zero; V]; R];
    if let (Some(outside), Some(thresholds)) = (tile.outside, tile.thresholds) {
        // SAFETY: in reach: `V` vectors of thresholds, `R` sums.
        unsafe {
            let thetas = load::<S, V>(simd, thresholds);
            unrolled!(ROW in 0..R => {
                let sum = simd.splat_f32s(*outside.add(ROW));
                unrolled!(I in 0..V => {
                    sums[ROW][I] = simd.keep(simd.less_than_f32s(zero, thetas[I]), simd.mul_f32s(thetas[I], sum));
                });
            });
        }
    }
    let ([na, nb, nc, count], [x_steps, steps]) = (tile.positions.counts, tile.positions.steps);
    let (x_step, step) = (x_steps[3], steps[3] * R);
    let mut a = 0;
    while a < na {
        let mut b = 0;
        while b < nb {
            let mut c = 0;
            while c < nc {
                let mut x = tile.x.wrapping_add(a * x_steps[0] + b * x_steps[1] + c * x_steps[2]);
                let mut g = tile.gradients.wrapping_add((a * steps[0] + b * steps[1] + c * steps[2]) * R);
                let mut left = count;
                while left > 0 {
                    // SAFETY: in reach: the next position.
                    unsafe { add_products(simd, &mut sums, Interleaved::<R>(g), load::<S, V>(simd, x)) };
                    (x, g) = (x.wrapping_add(x_step), g.wrapping_add(step));
                    left -= 1;
                }
                c += 1;
            }
            b += 1;
        }
        a += 1;
    }
    sums
}

/// Adds the sums of a tile to those in memory.
///
/// # Safety
///
/// As [`sum_tile`] asks.
#[inline(always)]
unsafe fn add_sums<S: Vector, const R: usize, const V: usize>(simd: S, tile: &Tile, sums: Sums<S, R, V>) {
    if tile.channels == V * S::LANES {
        unrolled!(ROW in 0..R => {
            // SAFETY: in reach: `V` vectors of sums of channel `ROW`.
            unsafe {
                let to = tile.sums.add(ROW * tile.pitch);
                let before = load::<S, V>(simd, to);
                unrolled!(I in 0..V => simd.store(to.add(I * S::LANES), simd.add_f32s(before[I], sums[ROW][I])));
            }
        });
        return;
    }
    // The last vector has lanes that are no channels.
    let mut bounce = [[0.0; MOST_VECTORS * MOST_LANES]; R];
    unrolled!(ROW in 0..R => {
        let row = bounce[ROW].as_mut_ptr();
        // SAFETY: in reach: a row of `bounce` holds the most vectors.
        unrolled!(I in 0..V => unsafe { simd.store(row.add(I * S::LANES), sums[ROW][I]) });
    });
    for (row, values) in bounce.iter().enumerate() {
        for (lane, value) in values[..tile.channels].iter().enumerate() {
            // SAFETY: in reach: a channel's sum.
            unsafe { *tile.sums.add(row * tile.pitch + lane) += *value };
        }
    }
}

const _: () = assert!(MOST_ROWS <= 12, "`unrolled!` goes no further");
