//! Register tiles: rows of vectors of sums, to which each step adds a column of operands times a row of vectors.
//!
//! All loops over registers are unrolled by hand, for an array that is indexed by a variable lives in memory: where the
//! compiler optimises for size, it would not unroll them, and where an epilogue is long, it gives up.

use super::vector::Vector;
use crate::geometry::Widths;

/// Runs `$body` for each constant `$i < $n`, at most 12.
macro_rules! unrolled {
    ($i:ident in 0..$n:expr => $body:expr) => {
        unrolled!($i $n; $body; 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    ($i:ident $n:expr; $body:expr; $($value:literal)*) => {
        $(if const { $value < $n } {
            const $i: usize = $value;
            $body
        })*
    };
}
pub(super) use unrolled;

/// Runs `$body` with the constant `$name` equal to `$value`, for the values listed.
macro_rules! with_const {
    ($value:expr, $name:ident in [$($literal:literal)*] => $body:expr) => {
        match $value {
            $($literal => { const $name: usize = $literal; $body })*
            other => unreachable!("no kernel for {other}"),
        }
    };
}
pub(super) use with_const;

/// `[row][vector]`
pub(super) type Sums<S, const R: usize, const V: usize> = [[<S as pulp::Simd>::f32s; V]; R];

/// The operands of the rows at one step.
pub(super) trait Operand: Copy {
    /// That of row `I`, in all lanes.
    ///
    /// # Safety
    ///
    /// There is such a row.
    unsafe fn broadcast<S: Vector, const I: usize>(self, simd: S) -> S::f32s;
}

/// `R` rows side by side.
#[derive(Clone, Copy)]
pub(super) struct Interleaved<const R: usize>(pub(super) *const f32);

impl<const R: usize> Operand for Interleaved<R> {
    #[inline(always)]
    unsafe fn broadcast<S: Vector, const I: usize>(self, simd: S) -> S::f32s {
        // SAFETY: the caller's.
        unsafe { simd.broadcast::<I, R>(self.0) }
    }
}

/// The operands of the rows, step by step.
pub(super) trait Steps: Copy {
    /// Those of step `k + U`; the `N` steps from `k` on are used together.
    ///
    /// # Safety
    ///
    /// There are such steps, and `U < N`.
    unsafe fn at<const U: usize, const N: usize>(self, k: usize) -> impl Operand;
}

/// `[step][row]`
impl<const R: usize> Steps for Interleaved<R> {
    #[inline(always)]
    unsafe fn at<const U: usize, const N: usize>(self, k: usize) -> impl Operand {
        // SAFETY: the caller's.
        Self(unsafe { self.0.add((k + U) * R) })
    }
}

/// `[row][step]`
#[derive(Clone, Copy)]
pub(super) struct Separate<const R: usize>(pub(super) [*const f32; R]);

impl<const R: usize> Steps for Separate<R> {
    #[inline(always)]
    unsafe fn at<const U: usize, const N: usize>(self, k: usize) -> impl Operand {
        /// The pointers of the rows, and the first of `N` steps, of which it is step `U`.
        #[derive(Clone, Copy)]
        struct Step<const R: usize, const U: usize, const N: usize>([*const f32; R], usize);

        impl<const R: usize, const U: usize, const N: usize> Operand for Step<R, U, N> {
            #[inline(always)]
            unsafe fn broadcast<S: Vector, const I: usize>(self, simd: S) -> S::f32s {
                // SAFETY: the caller's, and that of `at`.
                unsafe { simd.broadcast::<U, N>(self.0[I].add(self.1)) }
            }
        }
        Step::<R, U, N>(self.0, k)
    }
}

/// `sums[r][v] += a[r] · b[v]`
///
/// # Safety
///
/// `a` has `R` rows.
#[inline(always)]
pub(super) unsafe fn add_products<S: Vector, A: Operand, const R: usize, const V: usize>(
    simd: S,
    sums: &mut Sums<S, R, V>,
    a: A,
    b: [S::f32s; V],
) {
    unrolled!(ROW in 0..R => {
        // SAFETY: the caller's.
        let a = unsafe { a.broadcast::<S, ROW>(simd) };
        unrolled!(VECTOR in 0..V => sums[ROW][VECTOR] = simd.mul_add(a, b[VECTOR], sums[ROW][VECTOR]));
    });
}

/// `sums[r][v] += Σ_k a[r][k] · b[k][v]`
///
/// # Safety
///
/// `a` has `R` rows of `depth` steps, `b` that many steps of `V` vectors.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Vector, A: Steps, const R: usize, const V: usize>(
    simd: S,
    sums: &mut Sums<S, R, V>,
    a: A,
    b: *const f32,
    depth: usize,
) {
    /// Steps per trip of the loop: its counters would cost a tenth of the instructions.
    const UNROLL: usize = 4;
    let whole = depth / UNROLL * UNROLL;
    let mut k = 0;
    // SAFETY: the caller's, for each step.
    unsafe {
        while k < whole {
            unrolled!(U in 0..UNROLL => {
                let columns = load::<S, V>(simd, b.add((k + U) * V * S::LANES));
                add_products(simd, sums, a.at::<U, UNROLL>(k), columns);
            });
            k += UNROLL;
        }
        while k < depth {
            add_products(simd, sums, a.at::<0, 1>(k), load::<S, V>(simd, b.add(k * V * S::LANES)));
            k += 1;
        }
    }
}

/// `V` vectors that follow one another.
///
/// # Safety
///
/// They are readable.
#[inline(always)]
pub(super) unsafe fn load<S: Vector, const V: usize>(simd: S, from: *const f32) -> [S::f32s; V] {
    let mut vectors = [simd.splat_f32s(0.0); V];
    // SAFETY: the caller's.
    unrolled!(VECTOR in 0..V => vectors[VECTOR] = unsafe { simd.load(from.add(VECTOR * S::LANES)) });
    vectors
}

/// Writes the sums, rows `row_step` apart.
///
/// # Safety
///
/// At each row, `V` vectors that follow one another are writable.
#[inline(always)]
pub(super) unsafe fn store<S: Vector, const R: usize, const V: usize>(
    simd: S,
    sums: Sums<S, R, V>,
    first: *mut f32,
    row_step: usize,
) {
    // SAFETY: the caller's.
    unrolled!(ROW in 0..R => unsafe {
        let row = first.add(ROW * row_step);
        unrolled!(VECTOR in 0..V => simd.store(row.add(VECTOR * S::LANES), sums[ROW][VECTOR]));
    });
}

/// Channels of a panel.
pub(super) const fn panel_widths<S: Vector>() -> Widths {
    Widths::new(S::PANEL, if S::FEW_TILES { S::PANEL / 2 } else { S::PANEL })
}
