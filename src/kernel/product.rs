//! Register tiles of matrix products: rows broadcast, columns in lanes.
//!
//! A tile is `R` rows by `V` vectors, `R · V` accumulators; each step of the sum costs `V` aligned loads, `R` broadcasts and
//! `R · V` multiply-adds. One side is packed for the tile and stays in the first-level cache while the other streams by:
//!
//! | | tile | multiply-adds / loads per step | cycles at 2 FMA and 2 loads per cycle | bytes streamed per cycle |
//! |---|---|---|---|---|
//! | AVX-512 | 12 × 2 | 24 / 14 | 12 | 4 |
//! | AVX2 | 6 × 2 | 12 / 8 | 6 | 4 |
//! | NEON | 8 × 3 | 24 / 5 | 12 | 2.7 |
//!
//! so the multiply-adds are the limit. NEON multiplies by a lane: a load of four elements serves four broadcasts. The loop takes
//! 1.16 instructions per multiply-add there. The clamp is paid where the patches are packed ([`pack`](super::pack)), once for
//! all output channels.

use core::ops::Range;

use super::Kernel;
use super::tile::{Interleaved, StepOperands, accumulate, framed, with_const};
use super::vector::Vector;
use super::view::TileMut;
use crate::geometry::Panels;

/// The rows of a product, `[panel][depth][row of the panel]`: some panels, and of each `first_step..first_step + depth`.
#[derive(Clone)]
pub(crate) struct ProductRows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) panels: Panels,
    pub(crate) range: Range<usize>,
    /// Steps of the whole panel.
    pub(crate) depth: usize,
    pub(crate) first_step: usize,
}

impl ProductRows<'_> {
    /// Number of rows.
    fn len(&self) -> usize {
        self.panels.start(self.range.end) - self.panels.start(self.range.start)
    }
}

/// What a sum of products starts from.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    Zero,
    /// One value per row.
    Rows(&'a [f32]),
    /// What the output holds.
    Output,
}

/// `output[r][l] = start + Σ_k rows[r][k] · columns[k][l]`
pub(crate) struct Product<'a> {
    pub(crate) rows: ProductRows<'a>,
    /// `[depth][lane]`, over the vectors of the output.
    pub(crate) columns: &'a [f32],
    pub(crate) depth: usize,
    pub(crate) start: Start<'a>,
    pub(crate) output: TileMut<'a>,
}

/// Most vectors of a tile.
pub(super) const fn most_vectors<S: Vector>() -> usize {
    S::PRODUCT[1]
}

/// Most rows of a tile.
pub(super) const fn most_rows<S: Vector>() -> usize {
    S::PRODUCT[0]
}

/// Most steps of a tile: its columns fill three quarters of a first-level cache of 32 KiB, or its rows and columns do.
pub(super) const fn most_steps<S: Vector>() -> usize {
    let fit = 6 * 1024 / (S::PRODUCT[1] * S::LANES);
    if fit < 288 { fit } else { 288 }
}

impl Kernel for Product<'_> {
    fn check<S: Vector>(&self) {
        let Self { rows, columns, depth, start, output } = self;
        let count = rows.len();
        assert!((1..=most_vectors::<S>()).contains(&output.count) && output.lanes == S::LANES);
        assert!(count >= 1 && count <= output.rows);
        assert!(depth.saturating_mul(output.count * S::LANES) <= columns.len());
        let ProductRows { data, panels, ref range, depth: whole, first_step } = *rows;
        assert!(range.end <= panels.count() && panels.max() <= most_rows::<S>());
        assert!(first_step.saturating_add(*depth) <= whole);
        assert!(panels.start(range.end).saturating_mul(whole) <= data.len());
        match start {
            Start::Rows(values) => assert!(count <= values.len()),
            Start::Zero | Start::Output => {}
        }
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        with_const!(self.output.count, V in [1 2 3] if V <= most_vectors::<S>() => {
            // SAFETY: checked; the output has `V` vectors.
            unsafe { walk::<S, V>(simd, &self) }
        });
    }
}

/// # Safety
///
/// The call is [checked](Kernel#checked), and its output has `V` vectors.
#[inline(always)]
unsafe fn walk<S: Vector, const V: usize>(simd: S, product: &Product<'_>) {
    let ProductRows { data, panels, ref range, depth, first_step } = product.rows;
    let first_row = panels.start(range.start);
    for panel in range.clone() {
        let rows = panels.get(panel);
        // SAFETY: checked: the panel lies in the data, `first_step` in the panel.
        let a = unsafe { data.as_ptr().add(rows.start * depth + first_step * rows.len()) };
        with_const!(rows.len(), R in [1 2 3 4 5 6 7 8 9 10 11 12] if R <= most_rows::<S>() => {
            // SAFETY: checked: `R` rows of `product.depth` steps lie at `a`, and have their output.
            framed!(simd => unsafe {
                tile::<S, _, R, V>(simd, product, Interleaved::<R>(a), rows.start - first_row)
            });
        });
    }
}

/// Computes the tile of the `R` rows from `row` on.
///
/// # Safety
///
/// The call is [checked](Kernel#checked), and its output has `V` vectors; `R` rows of `product.depth` steps are
/// [in reach](Vector#in-reach) at `a`; they are rows of the call, the first of which is `row`.
#[inline(always)]
unsafe fn tile<S: Vector, A: StepOperands, const R: usize, const V: usize>(
    simd: S,
    product: &Product<'_>,
    a: A,
    row: usize,
) {
    let mut out = [core::ptr::null_mut(); V];
    for (v, out) in out.iter_mut().enumerate() {
        // SAFETY: checked: the output has as many rows as the call.
        *out = unsafe { product.output.vectors[v].add(row * product.output.row_step) };
    }
    let step = product.output.row_step;
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    // SAFETY: checked: the output and what sums start from have the `R` rows and `V` vectors; columns have `V` vectors for
    // each of `depth` steps, and `a` is in reach for as many.
    unsafe {
        match product.start {
            Start::Zero => {}
            Start::Rows(values) => {
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = [simd.splat_f32s(*values.as_ptr().add(row + r)); V];
                }
            }
            Start::Output => {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.load(out[v].add(r * step));
                    }
                }
            }
        }
        let b = product.columns.as_ptr();
        accumulate(simd, &mut sums, a, b, product.depth);
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                simd.store(out[v].add(r * step), sum);
            }
        }
    }
}
