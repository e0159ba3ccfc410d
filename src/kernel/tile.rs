//! Register tiles: rows of vectors of sums, to which each step adds a column of operands times a row of vectors.
//!
//! All loops over registers are unrolled by hand, for an array that is indexed by a variable lives in memory: where the
//! compiler optimises for size, it would not unroll them, and where an epilogue is long, it gives up.

use super::vector::Vector;

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
