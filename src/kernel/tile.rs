//! Register tiles: rows of vectors of sums, to which each step adds a column of operands times a row of vectors.
//!
//! All loops over registers are unrolled by macros, because an array that is indexed by a variable lives in memory. The compiler
//! would not unroll them where it optimises for size, and gives up where an epilogue is long.
//!
//! Unsafe functions require that their rows, steps and vectors are [in reach](Vector#in-reach). Their constants and depths give
//! the numbers of these.

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

/// [`unrolled`] for at most 4. In nested loops the compiler has to expand a body for every literal, also for those that are never
/// used.
macro_rules! few {
    ($i:ident in 0..$n:expr => $body:expr) => {
        unrolled!($i $n; $body; 0 1 2 3)
    };
}
pub(super) use few;

/// Runs `$body` with the constant `$name` equal to `$value`. The value must be in the list, and the condition must hold for it.
/// Nothing is compiled for other values.
macro_rules! with_const {
    ($value:expr, $name:ident in [$($literal:literal)*] if $holds:expr => $body:expr) => {
        with_const!($value, $name in [$($literal)*] => if const { $holds } {
            $body
        })
    };
    ($value:expr, $name:ident in [$($literal:literal)*] => $body:expr) => {
        match $value {
            $($literal => { const $name: usize = $literal; $body })*
            other => unreachable!("no kernel for {other}"),
        }
    };
}
pub(super) use with_const;

/// Runs `$body`, where the instructions of `$simd` may be used, in a function of its own. All that it calls must be inlined.
///
/// Each shape of a tile is such a function. A function with all shapes would take long to compile. Without optimisation it would
/// also need much stack, because each temporary value of each shape has a place of its own.
///
/// The function stands where the macro is used, because the compiler makes one unit of machine code of each module. If all tiles
/// came from this module, one core would compile most of the library, while the others wait.
macro_rules! outlined {
    ($simd:expr => $body:expr) => {{
        #[inline(never)]
        fn outline<S: $crate::kernel::vector::Vector>(simd: S, body: impl FnOnce()) {
            simd.vectorize(body);
        }
        outline(
            $simd,
            #[inline(always)]
            || $body,
        )
    }};
}
pub(super) use outlined;

/// As [`outlined`], but an optimising compiler may inline `$body`, which it does if there is only one caller. It is for parts of
/// a tile, and for tiles so short that a call would take a noticeable share of the time.
macro_rules! framed {
    ($simd:expr => $body:expr) => {
        $crate::kernel::tile::frame(
            $simd,
            #[inline(always)]
            || $body,
        )
    };
}
pub(super) use framed;

/// What [`framed`] calls.
#[inline(always)]
pub(super) fn frame<S: Vector>(simd: S, body: impl FnOnce()) {
    simd.vectorize(body);
}

/// `[row][vector]`
pub(super) type Sums<S, const R: usize, const V: usize> = [[<S as pulp::Simd>::f32s; V]; R];

/// The operands of the rows at one step.
pub(super) trait Operand: Copy {
    /// That of row `I`, in all lanes.
    ///
    /// # Safety
    ///
    /// In reach: the operands of all rows, of which `I` is one.
    unsafe fn broadcast<S: Vector, const I: usize>(self, simd: S) -> S::f32s;
}

/// `R` rows side by side.
#[derive(Clone, Copy)]
pub(super) struct Interleaved<const R: usize>(pub(super) *const f32);

impl<const R: usize> Operand for Interleaved<R> {
    #[inline(always)]
    unsafe fn broadcast<S: Vector, const I: usize>(self, simd: S) -> S::f32s {
        // SAFETY: in reach: `R` operands lie side by side.
        unsafe { simd.broadcast::<I, R>(self.0) }
    }
}

/// `sums[r][v] += a[r] · b[v]`
///
/// # Safety
///
/// In reach: `R` rows at `a`.
#[inline(always)]
pub(super) unsafe fn add_products<S: Vector, A: Operand, const R: usize, const V: usize>(
    simd: S,
    sums: &mut Sums<S, R, V>,
    a: A,
    b: [S::f32s; V],
) {
    unrolled!(ROW in 0..R => {
        // SAFETY: in reach: `ROW < R`.
        let a = unsafe { a.broadcast::<S, ROW>(simd) };
        few!(VECTOR in 0..V => sums[ROW][VECTOR] = simd.mul_add(a, b[VECTOR], sums[ROW][VECTOR]));
    });
}

/// `V` vectors that follow one another.
///
/// # Safety
///
/// In reach: the vectors at `from`.
#[inline(always)]
pub(super) unsafe fn load<S: Vector, const V: usize>(simd: S, from: *const f32) -> [S::f32s; V] {
    let mut vectors = [simd.splat_f32s(0.0); V];
    // SAFETY: in reach: `VECTOR < V`.
    few!(VECTOR in 0..V => vectors[VECTOR] = unsafe { simd.load(from.add(VECTOR * S::LANES)) });
    vectors
}

/// Writes the sums, rows `row_step` apart.
///
/// # Safety
///
/// In reach: `V` vectors that follow one another at each of `R` rows.
#[inline(always)]
pub(super) unsafe fn store<S: Vector, const R: usize, const V: usize>(
    simd: S,
    sums: Sums<S, R, V>,
    first: *mut f32,
    row_step: usize,
) {
    // SAFETY: in reach: `ROW < R` and `VECTOR < V`.
    unrolled!(ROW in 0..R => unsafe {
        let row = first.add(ROW * row_step);
        few!(VECTOR in 0..V => simd.store(row.add(VECTOR * S::LANES), sums[ROW][VECTOR]));
    });
}

/// Adds the sums to rows `row_step` apart.
///
/// # Safety
///
/// As [`store`].
#[inline(always)]
pub(super) unsafe fn add_to<S: Vector, const R: usize, const V: usize>(
    simd: S,
    sums: Sums<S, R, V>,
    first: *mut f32,
    row_step: usize,
) {
    // SAFETY: in reach: `ROW < R` and `VECTOR < V`.
    unrolled!(ROW in 0..R => unsafe {
        let row = first.add(ROW * row_step);
        few!(VECTOR in 0..V => {
            let to = row.add(VECTOR * S::LANES);
            simd.store(to, simd.add_f32s(simd.load(to), sums[ROW][VECTOR]));
        });
    });
}

/// Channels of a panel.
pub(super) const fn panel_widths<S: Vector>() -> Widths {
    Widths::new(S::PANEL, if S::FEW_TILES { S::PANEL / 2 } else { S::PANEL })
}
