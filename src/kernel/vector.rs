//! The SIMD vocabulary of the kernels: that of `pulp`, the operations of eq. 4 to 6, and the size of the register file.

use pulp::{MemMask, Simd};

use super::VECTORS;
use crate::isa::Isa;

/// The most lanes of a vector.
pub(super) const MOST_LANES: usize = 16;

/// Infinite vectors, as many as a tile reads side by side. They stand for the inputs of a linear layer, because ∞ exceeds every
/// threshold below it.
pub(super) static INFINITE: [f32; 4 * MOST_LANES] = [f32::INFINITY; 4 * MOST_LANES];

/// The values from which the sums of a tile start if they are not added to others.
pub(super) static ZEROS: [f32; 4 * MOST_LANES] = [0.0; 4 * MOST_LANES];

/// A `pulp` token for which the kernels are built.
///
/// # Offered
///
/// An instruction set is *offered* if the CPU has it and the operating system saves its registers. [`token`](Self::token)
/// requires that. A token is the proof of it from then on.
///
/// # In reach
///
/// Every unsafe function of the kernels says which elements it reads and writes at its pointers. Such elements are *in reach* if
/// they lie in one allocation, may be read (or written, if the function writes them), and are aligned as the elements of a slice
/// are.
pub(super) trait Vector: Simd {
    /// The instruction set.
    const ISA: Isa;
    /// Lanes of a vector.
    const LANES: usize = Self::F32_LANES;
    /// Vector registers that a tile's accumulators and operands share.
    const REGISTERS: usize;
    /// Most channels per panel in tiles with positions in lanes.
    const PANEL: usize;
    /// Most vectors of positions per tile with positions in lanes, and of channels with channels in lanes.
    const TILE: usize;
    /// Most output channels and vectors of input channels of a tile of the weight's gradient with channels last.
    const STRIPE: [usize; 2];
    /// Whether only some shapes of tiles are compiled. Without vectors, smaller tiles for the last positions and channels gain
    /// little, and each shape takes flash.
    const FEW_TILES: bool = false;

    /// Side of the largest squares that [`transpose`](Self::transpose) takes: 4, 8 or 16. 1 if squares are not worth their code.
    const SQUARE: usize = 4;

    /// The number of elements that one load brings into a register, from which [`broadcast`](Self::broadcast) then takes them. 1
    /// if each broadcast loads its element from memory.
    const AT_HAND: usize = 1;

    /// Steps per iteration of a loop that follows a table. The counters and addresses of an iteration cost as much as two
    /// multiply-adds. With short vectors there are no idle ports for them.
    const STEPS: usize = 1;

    /// A token for code that runs after detection.
    ///
    /// # Safety
    ///
    /// The instruction set is [offered](Self#offered).
    unsafe fn token() -> Self;

    /// `x` if `x > θ`, else `θ` (eq. 4), and NaN where `x` is NaN. `θ` is never NaN.
    ///
    /// The order of the operands matters: VMAXPS returns its second operand if either is NaN. (FMAX returns the NaN.)
    #[inline(always)]
    fn activate(self, x: Self::f32s, theta: Self::f32s) -> Self::f32s {
        self.max_f32s(theta, x)
    }

    /// `x` if `x < high`, else `high`, and NaN where `x` is NaN; `high` is never NaN. The order matters, as above.
    #[inline(always)]
    fn limit(self, x: Self::f32s, high: Self::f32s) -> Self::f32s {
        self.min_f32s(high, x)
    }

    /// The masks of the gradients that go to `x`, and of those that go to `θ` (eq. 5 and 6). Both comparisons are false for a
    /// NaN, so its gradient goes to neither.
    #[inline(always)]
    fn divide(self, x: Self::f32s, theta: Self::f32s) -> [Self::m32s; 2] {
        [self.less_than_f32s(theta, x), self.greater_than_or_equal_f32s(theta, x)]
    }

    /// `sum + value` where the mask holds, else `sum`, or `sum + 0`.
    #[inline(always)]
    fn add_where(self, mask: Self::m32s, sum: Self::f32s, value: Self::f32s) -> Self::f32s {
        self.add_f32s(sum, self.keep(mask, value))
    }

    /// `a · b + c`, in one rounding where the instruction set has that.
    #[inline(always)]
    fn mul_add(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        self.mul_add_e_f32s(a, b, c)
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

    /// `to[c][r] = from[r][c]` for a square, rows `from_step` and `to_step` apart. `SIDE` is 4, or twice or four times that, up to
    /// [`SQUARE`](Self::SQUARE).
    ///
    /// # Safety
    ///
    /// [In reach](Self#in-reach): the square at `from` and that at `to`.
    #[inline(always)]
    unsafe fn transpose<const SIDE: usize>(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: in reach: the side is 4, unless this is overridden.
        unsafe { transpose_4(from, from_step, to, to_step) }
    }

    /// Element `I` of `R` consecutive ones, in all lanes.
    ///
    /// # Safety
    ///
    /// [In reach](Self#in-reach): `R` elements at `from`; `I < R`.
    #[inline(always)]
    unsafe fn broadcast<const I: usize, const R: usize>(self, from: *const f32) -> Self::f32s {
        // SAFETY: in reach: it is one of the `R`.
        self.splat_f32s(unsafe { *from.add(I) })
    }

    /// `f(x; θ)` of element `x` at `SCALE · step + U` from `from`, in all lanes.
    ///
    /// # Safety
    ///
    /// [In reach](Self#in-reach): that element. `SCALE` is at most 2. AVX-512 is [offered](Self#offered) where `WITH_AVX512`.
    #[inline(always)]
    unsafe fn broadcast_activated<const SCALE: usize, const U: usize, const WITH_AVX512: bool>(
        self,
        from: *const f32,
        step: usize,
        theta: Self::f32s,
    ) -> Self::f32s {
        // SAFETY: in reach.
        self.activate(self.splat_f32s(unsafe { *from.add(SCALE * step + U) }), theta)
    }

    /// Lane `I` of a vector, in all lanes. For instruction sets with elements [at hand](Self::AT_HAND).
    #[inline(always)]
    fn lane<const I: usize>(self, _: Self::f32s) -> Self::f32s {
        unreachable!("no elements at hand")
    }

    /// Reads one vector.
    ///
    /// # Safety
    ///
    /// [In reach](Self#in-reach): `LANES` elements at `from`.
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::f32s {
        // SAFETY: in reach; `f32s` is plain data of LANES elements, whatever their bits.
        unsafe { from.cast::<Self::f32s>().read_unaligned() }
    }

    /// Prefetches a cache line that will be read or written. The address may be any. Does nothing on CPUs that predict enough
    /// themselves.
    #[inline(always)]
    fn prefetch(self, _: *const f32) {}

    /// Writes the first `len` elements of a vector, at most all of them.
    ///
    /// # Safety
    ///
    /// [In reach](Self#in-reach): `len` elements at `to`.
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, value: Self::f32s, len: usize) {
        // SAFETY: in reach: the mask holds for the first `len` lanes.
        unsafe { self.mask_store_ptr_f32s(self.lanes(len as u32), to, value) }
    }

    /// The first `len` elements of a vector, at most all of them, and zeros.
    ///
    /// # Safety
    ///
    /// [In reach](Self#in-reach): `len` elements at `from`.
    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, len: usize) -> Self::f32s {
        // SAFETY: in reach: a whole vector, or the lanes that the mask holds for.
        unsafe {
            if len == Self::LANES { self.load(from) } else { self.mask_load_ptr_f32s(self.lanes(len as u32), from) }
        }
    }

    /// The first lanes, for loads and stores.
    #[inline(always)]
    fn lanes(self, len: u32) -> MemMask<Self::m32s> {
        self.mask_between_m32s(0, len)
    }

    /// Tells the CPU that the cache line of an address will be written. The address may be any.
    #[inline(always)]
    fn prefetch_for_writing(self, address: *const f32) {
        // SAFETY: the instruction reads and writes nothing, whatever the address; CPUs that lack it do nothing.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        unsafe {
            core::arch::asm!("prefetchw [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = address;
    }

    /// Writes one vector.
    ///
    /// # Safety
    ///
    /// [In reach](Self#in-reach): `LANES` elements at `to`.
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::f32s) {
        // SAFETY: in reach; `f32s` is plain data of LANES elements.
        unsafe { to.cast::<Self::f32s>().write_unaligned(value) }
    }
}

/// Whether plain Rust has 32 floating-point registers. x86-64 has 16, and some targets have none. (`cfg` does not show RISC-V's
/// extension F. It shows Zicsr, which F implies.)
const MANY_REGISTERS: bool = cfg!(any(
    target_arch = "aarch64",
    all(target_arch = "arm", target_abi = "eabihf"),
    all(any(target_arch = "riscv32", target_arch = "riscv64"), target_feature = "zicsr"),
));

impl Vector for pulp::Scalar {
    const ISA: Isa = Isa::Scalar;
    const REGISTERS: usize = if MANY_REGISTERS { 32 } else { 16 };
    const PANEL: usize = if MANY_REGISTERS { 8 } else { 4 };
    const TILE: usize = 4;
    const STRIPE: [usize; 2] = [4, 2];
    const FEW_TILES: bool = true;
    // Squares only pay if the compiler makes shuffles of them.
    const SQUARE: usize = if VECTORS { 4 } else { 1 };

    unsafe fn token() -> Self {
        Self::new()
    }

    // A load that is known to be aligned. Floating-point units without unaligned loads would need more instructions.
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> f32 {
        // SAFETY: in reach, and elements in reach are aligned.
        unsafe { from.read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: f32) {
        // SAFETY: in reach, and elements in reach are aligned.
        unsafe { to.write(value) }
    }

    #[inline(always)]
    fn activate(self, x: f32, theta: f32) -> f32 {
        // Plain Rust's maximum drops a NaN.
        if x <= theta { theta } else { x }
    }

    #[inline(always)]
    fn limit(self, x: f32, high: f32) -> f32 {
        if x >= high { high } else { x }
    }
}

#[cfg(all(feature = "internal-testing", target_arch = "x86_64"))]
impl Vector for pulp::Scalar512b {
    const ISA: Isa = Isa::Emulated512;
    // Fewer and smaller tiles than those of AVX-512. The compiler sees each vector as sixteen scalars. With tiles as large as
    // those of AVX-512, these kernels took longer to compile than all others together.
    const REGISTERS: usize = 12;
    const PANEL: usize = 4;
    const TILE: usize = 2;
    const STRIPE: [usize; 2] = [2, 2];
    const FEW_TILES: bool = true;

    unsafe fn token() -> Self {
        Self
    }

    #[inline(always)]
    fn activate(self, x: Self::f32s, theta: Self::f32s) -> Self::f32s {
        self.select_f32s(self.less_than_or_equal_f32s(x, theta), theta, x)
    }

    #[inline(always)]
    fn limit(self, x: Self::f32s, high: Self::f32s) -> Self::f32s {
        self.select_f32s(self.less_than_or_equal_f32s(high, x), high, x)
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for pulp::x86::V3 {
    const ISA: Isa = Isa::Avx2;
    const REGISTERS: usize = 16;
    const PANEL: usize = 6;
    const TILE: usize = 4;
    const STRIPE: [usize; 2] = [6, 2];

    // `pulp` selects with a blend, which looks only at sign bits. The compiler then makes two instructions of it: a comparison
    // and an `and`. Here it is the `and` alone.
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

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        prefetch(from);
    }

    #[inline(always)]
    unsafe fn broadcast_activated<const SCALE: usize, const U: usize, const WITH_AVX512: bool>(
        self,
        from: *const f32,
        step: usize,
        theta: Self::f32s,
    ) -> Self::f32s {
        // SAFETY: in reach; `self` proves that there is AVX, and AVX-512 is offered where it is used.
        pulp::cast(unsafe { broadcast_activated::<SCALE, U, WITH_AVX512>(from, step, pulp::cast(theta)) })
    }

    const SQUARE: usize = 8;

    #[inline(always)]
    unsafe fn transpose<const SIDE: usize>(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: in reach.
        unsafe {
            match SIDE {
                8 => transpose_8(self, from, from_step, to, to_step),
                _ => transpose_4(from, from_step, to, to_step),
            }
        }
    }

    unsafe fn token() -> Self {
        // SAFETY: offered, which is all that `pulp` asks.
        unsafe { Self::new_unchecked() }
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for pulp::x86::V4 {
    const ISA: Isa = Isa::Avx512;
    const REGISTERS: usize = 32;
    const PANEL: usize = 12;
    const TILE: usize = 4;
    const STRIPE: [usize; 2] = [12, 2];

    // One instruction with a mask. `pulp`'s mask carries functions, and around calls of these the compiler saves all registers.
    #[inline(always)]
    fn lanes(self, len: u32) -> MemMask<Self::m32s> {
        MemMask::new(self.mask_between_m32s(0, len).mask())
    }

    // The same instruction as `pulp`'s, with fewer copies of the operands. In a build without optimisation, those copies would
    // fill the stack.
    #[inline(always)]
    fn mul_add(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        use core::arch::x86_64::{__m512, _mm512_fmadd_ps};
        use core::mem::transmute;
        use pulp::f32x16;

        // SAFETY: `self` proves that there is AVX-512; vectors are plain data of sixteen elements.
        unsafe {
            transmute::<__m512, f32x16>(_mm512_fmadd_ps(
                transmute::<f32x16, __m512>(a),
                transmute::<f32x16, __m512>(b),
                transmute::<f32x16, __m512>(c),
            ))
        }
    }

    // As for `mul_add`.
    #[inline(always)]
    fn activate(self, x: Self::f32s, theta: Self::f32s) -> Self::f32s {
        use core::arch::x86_64::{__m512, _mm512_max_ps};
        use core::mem::transmute;
        use pulp::f32x16;

        // SAFETY: `self` proves that there is AVX-512; vectors are plain data of sixteen elements.
        unsafe {
            transmute::<__m512, f32x16>(_mm512_max_ps(
                transmute::<f32x16, __m512>(theta),
                transmute::<f32x16, __m512>(x),
            ))
        }
    }

    // As for `mul_add`.
    #[inline(always)]
    fn keep(self, mask: Self::m32s, value: Self::f32s) -> Self::f32s {
        use core::arch::x86_64::{__m512, _mm512_maskz_mov_ps};
        use core::mem::transmute;
        use pulp::f32x16;

        // SAFETY: `self` proves that there is AVX-512; vectors are plain data of sixteen elements.
        unsafe { transmute::<__m512, f32x16>(_mm512_maskz_mov_ps(mask.0, transmute::<f32x16, __m512>(value))) }
    }

    // One instruction instead of two.
    #[inline(always)]
    fn add_where(self, mask: Self::m32s, sum: Self::f32s, value: Self::f32s) -> Self::f32s {
        use core::arch::x86_64::{__m512, _mm512_mask_add_ps};
        use core::mem::transmute;
        use pulp::f32x16;

        // SAFETY: `self` proves that there is AVX-512; vectors are plain data of sixteen elements.
        unsafe {
            let sum = transmute::<f32x16, __m512>(sum);
            transmute::<__m512, f32x16>(_mm512_mask_add_ps(sum, mask.0, sum, transmute::<f32x16, __m512>(value)))
        }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        prefetch(from);
    }

    const SQUARE: usize = 16;

    #[inline(always)]
    unsafe fn transpose<const SIDE: usize>(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: in reach.
        unsafe {
            match SIDE {
                16 => transpose_16(self, from, from_step, to, to_step),
                8 => transpose_8(*self, from, from_step, to, to_step),
                _ => transpose_4(from, from_step, to, to_step),
            }
        }
    }

    unsafe fn token() -> Self {
        // SAFETY: offered, which is all that `pulp` asks.
        unsafe { Self::new_unchecked() }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch(from: *const f32) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    // SAFETY: every x86-64 CPU has this instruction, and it faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) };
}

/// [`Vector::broadcast_activated`] for AVX2, in one register and as one block of assembly. If the compiler saw two instructions,
/// it would move the broadcasts of several rows together, and, with twelve sums in sixteen registers, spill them. With AVX-512's
/// encoding, the maximum is the only instruction: it broadcasts its operand.
///
/// # Safety
///
/// [In reach](Vector#in-reach): the element; there is AVX, and AVX-512 where `WITH_AVX512`. `SCALE` is at most 2.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx,avx2,fma")]
unsafe fn broadcast_activated<const SCALE: usize, const U: usize, const WITH_AVX512: bool>(
    from: *const f32,
    step: usize,
    theta: core::arch::x86_64::__m256,
) -> core::arch::x86_64::__m256 {
    use core::arch::asm;

    /// The element at an address. The threshold is the first operand and the element the second, as in [`Vector::activate`].
    macro_rules! activated {
        ($address:literal $($step:tt)*) => {{
            let x;
            if const { WITH_AVX512 } {
                asm!(
                    concat!("vmaxps {x}, {theta}, dword ptr [", $address, " + {offset}]{{1to8}}"),
                    x = out(ymm_reg) x,
                    theta = in(ymm_reg) theta,
                    from = in(reg) from,
                    $($step)*
                    offset = const U * size_of::<f32>(),
                    options(pure, readonly, nostack, preserves_flags),
                );
            } else {
                asm!(
                    concat!("vbroadcastss {x}, dword ptr [", $address, " + {offset}]"),
                    "vmaxps {x}, {theta}, {x}",
                    x = out(ymm_reg) x,
                    theta = in(ymm_reg) theta,
                    from = in(reg) from,
                    $($step)*
                    offset = const U * size_of::<f32>(),
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            x
        }};
    }

    // SAFETY: in reach; there is what the encoding needs.
    unsafe {
        match SCALE {
            0 => activated!("{from}"),
            1 => activated!("{from} + 4*{step}" step = in(reg) step,),
            _ => activated!("{from} + 8*{step}" step = in(reg) step,),
        }
    }
}

/// The transpose of a square of four, through arrays: the compiler makes shuffles of it.
///
/// # Safety
///
/// [In reach](Vector#in-reach): four rows of four, `from_step` apart at `from`, `to_step` apart at `to`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "an index into each of four rows")]
unsafe fn transpose_4(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
    // SAFETY: in reach: an array is one of the four rows.
    unsafe {
        let rows: [[f32; 4]; 4] = [
            from.cast::<[f32; 4]>().read_unaligned(),
            from.add(from_step).cast::<[f32; 4]>().read_unaligned(),
            from.add(2 * from_step).cast::<[f32; 4]>().read_unaligned(),
            from.add(3 * from_step).cast::<[f32; 4]>().read_unaligned(),
        ];
        for c in 0..4 {
            let column = [rows[0][c], rows[1][c], rows[2][c], rows[3][c]];
            to.add(c * to_step).cast::<[f32; 4]>().write_unaligned(column);
        }
    }
}

/// The transpose of a square of eight, in three rounds of shuffles.
///
/// # Safety
///
/// [In reach](Vector#in-reach): eight rows of eight, `from_step` apart at `from`, `to_step` apart at `to`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose_8(simd: pulp::x86::V3, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
    use core::arch::x86_64::{__m128, __m256};

    let avx = simd.avx;
    let mut halves = [avx._mm256_setzero_ps(); 8];
    // Rows r and r + 4 side by side, once for the left four columns and once for the right four.
    for (i, half) in halves.iter_mut().enumerate() {
        // SAFETY: in reach: one half of row `i % 4` and one half of row `i % 4 + 4`.
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
        // SAFETY: in reach: one of the eight rows of `to`.
        unsafe { to.add(c * to_step).cast::<__m256>().write_unaligned(column) };
    }
}

/// The transpose of a square of sixteen. Loads bring four rows' quarters into one register, so two rounds of shuffles are left.
///
/// # Safety
///
/// [In reach](Vector#in-reach): sixteen rows of sixteen, `from_step` apart at `from`, `to_step` apart at `to`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose_16(simd: pulp::x86::V4, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
    use core::arch::x86_64::{__m128, __m512};

    let avx512 = simd.avx512f;
    for quarter in 0..4 {
        // Four columns of rows r, r + 4, r + 8 and r + 12, side by side.
        let mut rows = [avx512._mm512_setzero_ps(); 4];
        for (r, row) in rows.iter_mut().enumerate() {
            // SAFETY: in reach: a quarter of one of the sixteen rows.
            let [a, b, c, d] = [0, 4, 8, 12].map(|below| unsafe {
                from.add((r + below) * from_step + 4 * quarter).cast::<__m128>().read_unaligned()
            });
            let low = avx512._mm512_mask_broadcast_f32x4(avx512._mm512_castps128_ps512(a), 0x00f0, b);
            *row = avx512._mm512_mask_broadcast_f32x4(avx512._mm512_mask_broadcast_f32x4(low, 0x0f00, c), 0xf000, d);
        }
        let low01 = avx512._mm512_unpacklo_ps(rows[0], rows[1]);
        let high01 = avx512._mm512_unpackhi_ps(rows[0], rows[1]);
        let low23 = avx512._mm512_unpacklo_ps(rows[2], rows[3]);
        let high23 = avx512._mm512_unpackhi_ps(rows[2], rows[3]);
        let columns: [__m512; 4] = [
            avx512._mm512_shuffle_ps::<0b01_00_01_00>(low01, low23),
            avx512._mm512_shuffle_ps::<0b11_10_11_10>(low01, low23),
            avx512._mm512_shuffle_ps::<0b01_00_01_00>(high01, high23),
            avx512._mm512_shuffle_ps::<0b11_10_11_10>(high01, high23),
        ];
        for (c, column) in columns.into_iter().enumerate() {
            // SAFETY: in reach: one of the sixteen rows of `to`.
            unsafe { to.add((4 * quarter + c) * to_step).cast::<__m512>().write_unaligned(column) };
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl Vector for pulp::aarch64::Neon {
    const ISA: Isa = Isa::Neon;
    const REGISTERS: usize = 32;
    const PANEL: usize = 12;
    const TILE: usize = 4;
    const STRIPE: [usize; 2] = [11, 2];
    const AT_HAND: usize = 4;
    const STEPS: usize = 2;

    unsafe fn token() -> Self {
        // SAFETY: offered, which is all that `pulp` asks.
        unsafe { Self::new_unchecked() }
    }

    #[inline(always)]
    fn lane<const I: usize>(self, vector: Self::f32s) -> Self::f32s {
        const { assert!(I < 4) };
        pulp::cast(duplicate(self, pulp::cast(vector), I))
    }

    // Multiply-adds can take a lane of a vector, so one load brings four elements. If `R` is not a multiple of four, the last
    // four overlap those before.
    #[inline(always)]
    unsafe fn broadcast<const I: usize, const R: usize>(self, from: *const f32) -> Self::f32s {
        use core::arch::aarch64::float32x4_t;

        if R < 4 {
            // SAFETY: in reach: it is one of the `R`.
            return self.splat_f32s(unsafe { *from.add(I) });
        }
        let first = if I / 4 * 4 + 4 <= R { I / 4 * 4 } else { R - 4 };
        // SAFETY: in reach: the four elements are among the `R`.
        let four = unsafe { from.add(first).cast::<float32x4_t>().read_unaligned() };
        pulp::cast(duplicate(self, four, I - first))
    }
}

/// Lane `lane`, at most 3, in all lanes. It is a constant wherever this is inlined.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn duplicate(
    simd: pulp::aarch64::Neon,
    four: core::arch::aarch64::float32x4_t,
    lane: usize,
) -> core::arch::aarch64::float32x4_t {
    match lane {
        0 => simd.neon.vdupq_laneq_f32::<0>(four),
        1 => simd.neon.vdupq_laneq_f32::<1>(four),
        2 => simd.neon.vdupq_laneq_f32::<2>(four),
        _ => simd.neon.vdupq_laneq_f32::<3>(four),
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl Vector for pulp::wasm::Simd128 {
    const ISA: Isa = Isa::Simd128;
    // WebAssembly has locals, not registers. The engine maps them to the sixteen registers of x86-64, or to the 32 of AArch64.
    const REGISTERS: usize = 16;
    const PANEL: usize = 6;
    const TILE: usize = 4;
    const STRIPE: [usize; 2] = [6, 2];

    // There is no fused multiply-add without relaxed SIMD.
    #[inline(always)]
    fn mul_add(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        self.add_f32s(self.mul_f32s(a, b), c)
    }

    unsafe fn token() -> Self {
        // SAFETY: offered, which is all that `pulp` asks.
        unsafe { Self::new_unchecked() }
    }
}
