//! Copies and transpositions of strided blocks, for staging and for storing results.
//!
//! A row has about a hundred bytes. A call of the C library for each row, or a bounds check for each element, would cost more
//! than the copy. Here each block is checked once, and no function of the C library is called.

use super::Kernel;
use super::vector::Vector;
use super::view::RowsMut;
use crate::arith::min;

/// `to[plane][row][i] = from[plane][row][i · step]`
pub(crate) struct CopyBlock<'a> {
    pub(crate) from: &'a [f32],
    /// Distances of planes, of rows, and of elements.
    pub(crate) from_plane: usize,
    pub(crate) from_row: usize,
    pub(crate) step: usize,
    pub(crate) to: &'a mut [f32],
    pub(crate) to_plane: usize,
    pub(crate) to_row: usize,
    pub(crate) planes: usize,
    pub(crate) rows: usize,
    pub(crate) len: usize,
}

/// `to[c][r] = from[r · from_step + c · from_column]` for all of `to`, whose rows are of adjacent elements.
pub(crate) struct TransposeBlock<'a> {
    pub(crate) from: &'a [f32],
    pub(crate) from_step: usize,
    pub(crate) from_column: usize,
    pub(crate) to: RowsMut<'a>,
}

/// The number of elements from the first one to the last, both included. Each axis is (count, distance). Saturates.
fn span(axes: &[(usize, usize)]) -> usize {
    axes.iter().fold(1usize, |len, &(count, distance)| len.saturating_add((count - 1).saturating_mul(distance)))
}

impl CopyBlock<'_> {
    fn is_empty(&self) -> bool {
        self.planes == 0 || self.rows == 0 || self.len == 0
    }
}

impl Kernel for CopyBlock<'_> {
    fn check<S: Vector>(&self) {
        if self.is_empty() {
            return;
        }
        let Self { planes, rows, len, .. } = *self;
        assert!(span(&[(planes, self.from_plane), (rows, self.from_row), (len, self.step)]) <= self.from.len());
        assert!(span(&[(planes, self.to_plane), (rows, self.to_row), (len, 1)]) <= self.to.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        if self.is_empty() {
            return;
        }
        for plane in 0..self.planes {
            for row in 0..self.rows {
                // SAFETY: checked: the last element of the last row lies in both slices.
                unsafe {
                    let from = self.from.as_ptr().add(plane * self.from_plane + row * self.from_row);
                    let to = self.to.as_mut_ptr().add(plane * self.to_plane + row * self.to_row);
                    match self.step {
                        1 => copy_row(simd, from, to, self.len),
                        // With a constant step, the compiler makes shuffles of the loop.
                        2 => copy_strided(from, 2, to, self.len),
                        step => copy_strided(from, step, to, self.len),
                    }
                }
            }
        }
    }
}

/// # Safety
///
/// [In reach](Vector#in-reach): `len` elements at `from`, and `len` at `to` that do not overlap them.
#[inline(always)]
unsafe fn copy_row<S: Vector>(simd: S, from: *const f32, to: *mut f32, len: usize) {
    // SAFETY: in reach: the last vector ends where the row ends.
    unsafe {
        if len < S::LANES {
            for i in 0..len {
                *to.add(i) = *from.add(i);
            }
            return;
        }
        let mut i = 0;
        while i + S::LANES <= len {
            simd.store(to.add(i), simd.load(from.add(i)));
            i += S::LANES;
        }
        if i < len {
            let last = len - S::LANES;
            simd.store(to.add(last), simd.load(from.add(last)));
        }
    }
}

/// # Safety
///
/// [In reach](Vector#in-reach): `len` elements `step` apart at `from`, and `len` elements at `to`.
#[inline(always)]
unsafe fn copy_strided(from: *const f32, step: usize, to: *mut f32, len: usize) {
    for i in 0..len {
        // SAFETY: in reach: `i < len`.
        unsafe { *to.add(i) = *from.add(i * step) };
    }
}

impl TransposeBlock<'_> {
    fn is_empty(&self) -> bool {
        self.to.len == 0 || self.to.rows == 0
    }
}

impl Kernel for TransposeBlock<'_> {
    fn check<S: Vector>(&self) {
        if self.is_empty() {
            return;
        }
        let RowsMut { rows, len, apart, .. } = self.to;
        assert!(apart == 1 || len <= 1);
        assert!(span(&[(len, self.from_step), (rows, self.from_column)]) <= self.from.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        if self.is_empty() {
            return;
        }
        let Self { from, from_step, from_column, to } = self;
        let RowsMut { first: to, rows: columns, step: to_step, len: rows, .. } = to;
        let block = Transposed { from: from.as_ptr(), from_step, from_column, to, to_step, rows, columns };
        // Rows a multiple of 4096 bytes apart share one set of eight lines in the first-level cache.
        let most = if from_step.is_multiple_of(1024) || to_step.is_multiple_of(1024) { 8 } else { S::SQUARE };
        let fits = |side: usize| side <= min(most, S::SQUARE) && side <= rows && side <= columns;
        // SAFETY: checked: the last element of the last row lies in the slice. The call alone writes the rows of `to`. Squares fit.
        unsafe {
            if from_column != 1 {
                if fits(4) { block.squares_apart() } else { block.elements() }
            } else if fits(16) {
                block.squares::<S, 16>(simd);
            } else if fits(8) {
                block.squares::<S, 8>(simd);
            } else if fits(4) {
                block.squares::<S, 4>(simd);
            } else {
                block.elements();
            }
        }
    }
}

/// `to[c · to_step + r] = from[r · from_step + c · from_column]`
struct Transposed {
    from: *const f32,
    from_step: usize,
    from_column: usize,
    to: *mut f32,
    to_step: usize,
    rows: usize,
    columns: usize,
}

/// The starts of parts of `len` that cover `all`, which is at least as much. The last two may overlap.
#[inline(always)]
fn covering(all: usize, len: usize) -> impl Iterator<Item = usize> + Clone {
    (0..all).step_by(len).map(move |start| min(start, all - len))
}

impl Transposed {
    /// By squares, the last of which overlap those before.
    ///
    /// # Safety
    ///
    /// [In reach](Vector#in-reach): the rows of `from` and those of `to`. They are as long as a square, and as many.
    #[inline(always)]
    unsafe fn squares<S: Vector, const SIDE: usize>(&self, simd: S) {
        if S::SQUARE < SIDE {
            return;
        }
        let Self { from, from_step, to, to_step, rows, columns, .. } = *self;
        // The rows that lie further apart are read, or written, from end to end.
        let by_columns = from_step < to_step;
        let [outer, inner] = if by_columns { [columns, rows] } else { [rows, columns] };
        // Where lines that nobody reads lie between rows, the CPU does not guess which lines come next. It guesses well where rows
        // follow one another.
        let guide = !by_columns && from_step >= columns + LINE;
        for o in covering(outer, SIDE) {
            if guide {
                let ahead = from.wrapping_add((o + AHEAD).wrapping_mul(from_step));
                prefetch_rows(simd, ahead, from_step, SIDE, columns);
            }
            for i in covering(inner, SIDE) {
                let [r, c] = if by_columns { [i, o] } else { [o, i] };
                // SAFETY: in reach: `r + SIDE <= rows` and `c + SIDE <= columns`.
                unsafe {
                    simd.transpose::<SIDE>(from.add(r * from_step + c), from_step, to.add(c * to_step + r), to_step)
                };
            }
        }
    }

    /// By squares of four, as [`squares`](Self::squares).
    ///
    /// # Safety
    ///
    /// As [`squares`](Self::squares).
    #[inline(always)]
    unsafe fn squares_apart(&self) {
        let Self { from, from_step, from_column, to, to_step, rows, columns } = *self;
        for r in covering(rows, 4) {
            for c in covering(columns, 4) {
                // SAFETY: in reach: `r + 4 <= rows` and `c + 4 <= columns`.
                unsafe {
                    let (from, to) = (from.add(r * from_step + c * from_column), to.add(c * to_step + r));
                    transpose_apart(from, from_step, from_column, to, to_step);
                }
            }
        }
    }

    /// One element after the other.
    ///
    /// # Safety
    ///
    /// [In reach](Vector#in-reach): the rows of `from` and those of `to`.
    #[inline(always)]
    unsafe fn elements(&self) {
        let Self { from, from_step, from_column, to, to_step, rows, columns } = *self;
        for r in 0..rows {
            for c in 0..columns {
                // SAFETY: in reach.
                unsafe { *to.add(c * to_step + r) = *from.add(r * from_step + c * from_column) };
            }
        }
    }
}

/// Elements of a line of the caches.
const LINE: usize = 16;

/// How many rows ahead they are fetched: so many that they arrive from the third-level cache in time. Behind the last row of a block
/// there lies, as a rule, the first one of the next.
const AHEAD: usize = 32;

/// Fetches the lines of `rows` rows, `step` apart, with `columns` elements each. They need not be in any allocation.
#[inline(always)]
fn prefetch_rows<S: Vector>(simd: S, first: *const f32, step: usize, rows: usize, columns: usize) {
    for row in 0..rows {
        let row = first.wrapping_add(row.wrapping_mul(step));
        for line in (0..columns).step_by(LINE) {
            simd.prefetch(row.wrapping_add(line));
        }
        simd.prefetch(row.wrapping_add(columns - 1));
    }
}

/// The transpose of a square of four whose elements are `from_column` apart.
///
/// # Safety
///
/// [In reach](Vector#in-reach): four rows of four, `from_step` apart at `from`, `to_step` apart at `to`.
#[inline(always)]
unsafe fn transpose_apart(from: *const f32, from_step: usize, from_column: usize, to: *mut f32, to_step: usize) {
    for c in 0..4 {
        // SAFETY: in reach: element `c` of each of the four rows; row `c` of `to`.
        unsafe {
            let from = from.add(c * from_column);
            let column = [*from, *from.add(from_step), *from.add(2 * from_step), *from.add(3 * from_step)];
            to.add(c * to_step).cast::<[f32; 4]>().write_unaligned(column);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use crate::isa::Isa;
    use crate::kernel::{CopyBlock, RowsMut, TransposeBlock};
    use std::vec::Vec;

    #[test]
    fn every_element_changes_places() {
        for kernels in Isa::available().filter_map(Isa::kernels) {
            let sizes = [(1, 1), (3, 5), (4, 4), (8, 8), (4, 7), (9, 4), (10, 11), (17, 24), (33, 9)];
            for ((rows, columns), from_column) in
                sizes.into_iter().flat_map(|size| [0, 1, 2, 3].map(|column| (size, column)))
            {
                let (from_step, to_step) = (columns * from_column + 2, rows + 3);
                let from = Vec::from_iter((0..rows * from_step).map(|i| i as f32));
                let mut to = std::vec![-1.0; columns * to_step];
                kernels.transpose(TransposeBlock {
                    from: &from,
                    from_step,
                    from_column,
                    to: RowsMut::of_slice(&mut to, columns, to_step, rows),
                });
                for (i, to) in to.iter().enumerate() {
                    let (c, r) = (i / to_step, i % to_step);
                    let expected = if r < rows { from[r * from_step + c * from_column] } else { -1.0 };
                    assert_eq!(*to, expected, "{rows}×{columns} by {from_column}");
                }
            }
        }
    }

    #[test]
    fn rows_keep_their_distances() {
        for kernels in Isa::available().filter_map(Isa::kernels) {
            for (len, step) in [(1, 1), (3, 1), (8, 1), (19, 1), (40, 1), (1, 2), (5, 2), (21, 2), (7, 3)] {
                let (planes, rows) = (2, 3);
                let (from_row, to_row) = (len * step + 1, len + 2);
                let from = Vec::from_iter((0..planes * rows * from_row).map(|i| i as f32));
                let mut to = std::vec![-1.0; planes * rows * to_row];
                kernels.copy(CopyBlock {
                    from: &from,
                    from_plane: rows * from_row,
                    from_row,
                    step,
                    to: &mut to,
                    to_plane: rows * to_row,
                    to_row,
                    planes,
                    rows,
                    len,
                });
                for (i, to) in to.iter().enumerate() {
                    let (row, e) = (i / to_row, i % to_row);
                    assert_eq!(*to, if e < len { from[row * from_row + e * step] } else { -1.0 }, "{len} by {step}");
                }
            }
        }
    }
}
