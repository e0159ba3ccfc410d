//! The SIMD vocabulary of the kernels: `pulp`'s, with what eq. 4 needs and the size of the register file.
//!
//! A second element type (bf16, int8) would enter here: as an associated accumulator and operand type beside `f32s`,
//! with its own loads and multiply-add; tiles and tables are written in lanes and registers, not in bytes.

use pulp::Simd;

use super::copy::transpose_4;

/// A `pulp` token for which the kernels are built.
pub(super) trait Vector: Simd {
    /// Lanes of a vector.
    const LANES: usize = Self::F32_LANES;
    /// Vector registers that a tile's accumulators and operands share.
    const REGISTERS: usize;
    /// Most channels per panel in tiles with positions in lanes.
    const PANEL: usize;
    /// Most vectors of positions per tile with positions in lanes, and of channels with channels in lanes.
    const TILE: usize;
    /// Most rows and vectors of a tile of a matrix product.
    const PRODUCT: [usize; 2];

    /// Side of the squares that [`transpose`](Self::transpose) takes.
    const SQUARE: usize = 4;

    /// Elements of which one load puts all at hand for [`lane`](Self::lane); 1 where broadcasts come from memory.
    const AT_HAND: usize = 1;

    /// Steps per trip of a loop that follows a table: a trip's counters and addresses cost as much as two multiply-adds, and
    /// where vectors are short they find no idle ports.
    const STEPS: usize = 1;

    /// A token for code that runs after detection.
    ///
    /// # Safety
    ///
    /// The CPU and the operating system offer the instruction set.
    unsafe fn token() -> Self;

    /// `x` if `x > θ`, else `θ` (eq. 4), and NaN where `x` is NaN; `θ` is never NaN.
    ///
    /// The order matters: VMAXPS returns its second operand when either is NaN (FMAX the NaN).
    #[inline(always)]
    fn activate(self, x: Self::f32s, theta: Self::f32s) -> Self::f32s {
        self.max_f32s(theta, x)
    }

    /// `value` where the mask holds, else zero.
    #[inline(always)]
    fn keep(self, mask: Self::m32s, value: Self::f32s) -> Self::f32s {
        self.select_f32s(mask, value, self.splat_f32s(0.0))
    }

    /// `value` where the mask does not hold, else zero.
    #[inline(always)]
    fn discard(self, mask: Self::m32s, value: Self::f32s) -> Self::f32s {
        self.select_f32s(mask, self.splat_f32s(0.0), value)
    }

    /// `to[c][r] = from[r][c]` for a square of [`SQUARE`](Self::SQUARE), rows `from_step` and `to_step` apart.
    ///
    /// # Safety
    ///
    /// The square is readable at `from` and writable at `to`.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: the caller's.
        unsafe { transpose_4(from, from_step, to, to_step) }
    }

    /// Reads one vector.
    ///
    /// # Safety
    ///
    /// `LANES` elements at `from` are readable.
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::f32s {
        // SAFETY: the caller's; `f32s` is plain data of LANES elements.
        unsafe { from.cast::<Self::f32s>().read_unaligned() }
    }

    /// The broadcast of one of the first [`AT_HAND`](Self::AT_HAND) lanes.
    #[inline(always)]
    fn lane(self, _value: Self::f32s, _lane: usize) -> Self::f32s {
        unreachable!("broadcasts come from memory")
    }

    /// Writes one vector.
    ///
    /// # Safety
    ///
    /// `LANES` elements at `to` are writable.
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::f32s) {
        // SAFETY: the caller's; `f32s` is plain data of LANES elements.
        unsafe { to.cast::<Self::f32s>().write_unaligned(value) }
    }
}

/// `N` elements that lie together, to be broadcast one by one.
#[derive(Clone, Copy)]
pub(super) struct Together<S: Vector, const N: usize> {
    from: *const f32,
    /// The elements themselves, where vectors have several at hand.
    held: [S::f32s; MOST_HELD],
}

/// Vectors that hold the rows of a tile.
const MOST_HELD: usize = 3;

impl<S: Vector, const N: usize> Together<S, N> {
    /// Whether elements are loaded together: not where one at a time needs no more instructions.
    const HELD: bool = S::AT_HAND > 1 && N >= S::AT_HAND && N <= MOST_HELD * S::AT_HAND;

    /// First element of a vector: the last vector overlaps the one before where `N` is no multiple.
    const fn first(vector: usize) -> usize {
        let whole = vector * S::AT_HAND;
        if whole + S::AT_HAND <= N { whole } else { N - S::AT_HAND }
    }

    /// # Safety
    ///
    /// `N` elements at `from` are readable, as long as the result is used.
    #[inline(always)]
    pub(super) unsafe fn new(simd: S, from: *const f32) -> Self {
        let mut held = [simd.splat_f32s(0.0); MOST_HELD];
        if Self::HELD {
            // Only the first `AT_HAND` lanes are looked at, and vectors that have several at hand have no more.
            const { assert!(S::AT_HAND == 1 || S::AT_HAND == S::LANES) };
            for (v, held) in held.iter_mut().enumerate().take(N.div_ceil(S::AT_HAND)) {
                // SAFETY: the caller's; `first` leaves room for a vector.
                *held = unsafe { simd.load(from.add(Self::first(v))) };
            }
        }
        Self { from, held }
    }

    /// The broadcast of element `index`, which is less than `N`.
    #[inline(always)]
    pub(super) fn broadcast(&self, simd: S, index: usize) -> S::f32s {
        assert!(index < N);
        if Self::HELD {
            let vector = index / S::AT_HAND;
            simd.lane(self.held[vector], index - Self::first(vector))
        } else {
            // SAFETY: `new`'s caller has `N` readable elements there.
            simd.splat_f32s(unsafe { *self.from.add(index) })
        }
    }
}

impl Vector for pulp::Scalar {
    // What the smallest targets with floating-point registers have to offer.
    const REGISTERS: usize = 16;
    const PANEL: usize = 4;
    const TILE: usize = 4;
    const PRODUCT: [usize; 2] = [4, 3];

    unsafe fn token() -> Self {
        Self::new()
    }

    #[inline(always)]
    fn activate(self, x: f32, theta: f32) -> f32 {
        // Plain Rust's maximum drops a NaN.
        if x <= theta { theta } else { x }
    }
}

#[cfg(feature = "internal-testing")]
impl Vector for pulp::Scalar512b {
    const REGISTERS: usize = 32;
    const PANEL: usize = 12;
    const TILE: usize = 4;
    const PRODUCT: [usize; 2] = [12, 2];

    unsafe fn token() -> Self {
        Self
    }

    #[inline(always)]
    fn activate(self, x: Self::f32s, theta: Self::f32s) -> Self::f32s {
        self.select_f32s(self.less_than_or_equal_f32s(x, theta), theta, x)
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for pulp::x86::V3 {
    const REGISTERS: usize = 16;
    const PANEL: usize = 6;
    const TILE: usize = 4;
    const PRODUCT: [usize; 2] = [6, 2];

    // A blend looks at sign bits only, so the compiler compares again before it ands.
    #[inline(always)]
    fn keep(self, mask: Self::m32s, value: Self::f32s) -> Self::f32s {
        let mask: core::arch::x86_64::__m256 = pulp::cast(mask);
        pulp::cast(self.avx._mm256_and_ps(mask, pulp::cast(value)))
    }

    #[inline(always)]
    fn discard(self, mask: Self::m32s, value: Self::f32s) -> Self::f32s {
        let mask: core::arch::x86_64::__m256 = pulp::cast(mask);
        pulp::cast(self.avx._mm256_andnot_ps(mask, pulp::cast(value)))
    }

    const SQUARE: usize = 8;

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: the caller's.
        unsafe { transpose_8(self, from, from_step, to, to_step) }
    }

    unsafe fn token() -> Self {
        // SAFETY: the caller's.
        unsafe { Self::new_unchecked() }
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for pulp::x86::V4 {
    const REGISTERS: usize = 32;
    const PANEL: usize = 12;
    const TILE: usize = 4;
    const PRODUCT: [usize; 2] = [12, 2];

    const SQUARE: usize = 8;

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: the caller's; AVX-512 includes AVX2.
        unsafe { transpose_8(*self, from, from_step, to, to_step) }
    }

    unsafe fn token() -> Self {
        // SAFETY: the caller's.
        unsafe { Self::new_unchecked() }
    }
}

/// The transpose of a square of eight, in three rounds of shuffles.
///
/// # Safety
///
/// Eight rows of eight, `from_step` apart, are readable at `from`, and writable, `to_step` apart, at `to`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose_8(simd: pulp::x86::V3, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
    use core::arch::x86_64::{__m128, __m256};

    let avx = simd.avx;
    let mut halves = [avx._mm256_setzero_ps(); 8];
    // Rows r and r + 4 side by side, once for the left four columns and once for the right four.
    for (i, half) in halves.iter_mut().enumerate() {
        // SAFETY: the caller's; four elements of rows `i % 4` and `i % 4 + 4`.
        let [low, high] = unsafe {
            let from = from.add(i % 4 * from_step + i / 4 * 4);
            [from, from.add(4 * from_step)].map(|from| from.cast::<__m128>().read_unaligned())
        };
        *half = avx._mm256_insertf128_ps::<1>(avx._mm256_castps128_ps256(low), high);
    }
    let mut columns = halves;
    for side in 0..2 {
        let rows: [__m256; 4] = [halves[4 * side], halves[4 * side + 1], halves[4 * side + 2], halves[4 * side + 3]];
        let low01 = avx._mm256_unpacklo_ps(rows[0], rows[1]);
        let high01 = avx._mm256_unpackhi_ps(rows[0], rows[1]);
        let low23 = avx._mm256_unpacklo_ps(rows[2], rows[3]);
        let high23 = avx._mm256_unpackhi_ps(rows[2], rows[3]);
        columns[4 * side] = avx._mm256_shuffle_ps::<0b01_00_01_00>(low01, low23);
        columns[4 * side + 1] = avx._mm256_shuffle_ps::<0b11_10_11_10>(low01, low23);
        columns[4 * side + 2] = avx._mm256_shuffle_ps::<0b01_00_01_00>(high01, high23);
        columns[4 * side + 3] = avx._mm256_shuffle_ps::<0b11_10_11_10>(high01, high23);
    }
    for (c, column) in columns.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { to.add(c * to_step).cast::<__m256>().write_unaligned(column) };
    }
}

#[cfg(target_arch = "aarch64")]
impl Vector for pulp::aarch64::Neon {
    const REGISTERS: usize = 32;
    const PANEL: usize = 12;
    const TILE: usize = 4;
    const PRODUCT: [usize; 2] = [8, 3];

    unsafe fn token() -> Self {
        // SAFETY: the caller's.
        unsafe { Self::new_unchecked() }
    }

    const AT_HAND: usize = 4;
    const STEPS: usize = 2;

    // A multiply-add takes its factor from any lane, so this costs nothing.
    #[inline(always)]
    fn lane(self, value: Self::f32s, lane: usize) -> Self::f32s {
        let value = pulp::cast(value);
        pulp::cast(match lane {
            0 => self.neon.vdupq_laneq_f32::<0>(value),
            1 => self.neon.vdupq_laneq_f32::<1>(value),
            2 => self.neon.vdupq_laneq_f32::<2>(value),
            _ => self.neon.vdupq_laneq_f32::<3>(value),
        })
    }
}
