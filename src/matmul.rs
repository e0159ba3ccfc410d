//! Matrix products by the crate `gemm`, behind slices whose lengths are checked.

use gemm::Parallelism;

/// A strided matrix: element `(r, c)` is `data[r · row_step + c · column_step]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row_step: usize,
    pub(crate) column_step: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows of `columns` elements lie one after another.
    pub(crate) fn rows(data: &'a [f32], columns: usize) -> Self {
        Self { data, row_step: columns, column_step: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { row_step: self.column_step, column_step: self.row_step, ..self }
    }

    /// # Panics
    ///
    /// If an element of `rows` × `columns` lies beyond the data.
    fn check(&self, rows: usize, columns: usize) {
        assert!(rows >= 1 && columns >= 1);
        let last = (rows - 1) * self.row_step + (columns - 1) * self.column_step;
        assert!(last < self.data.len(), "a matrix of {rows} × {columns} ends beyond its {} elements", self.data.len());
    }
}

/// `out = out · keep + a · b` for dense rows: `a` is `m` × `k`, `b` `k` × `n`, `out` `m` × `n`.
///
/// # Panics
///
/// If a matrix is shorter than its shape.
#[allow(unsafe_code)]
pub(crate) fn matmul([m, k, n]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, keep: bool, out: &mut [f32]) {
    if m == 0 || n == 0 {
        return;
    }
    a.check(m, k);
    b.check(k, n);
    assert!(m * n <= out.len());
    // SAFETY: the checks above show that every element that the product reads or writes lies inside its slice. The length of a
    // slice fits `isize`, so the steps do, too. `out` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            keep,
            a.data.as_ptr(),
            a.column_step as isize,
            a.row_step as isize,
            b.data.as_ptr(),
            b.column_step as isize,
            b.row_step as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_transposes() {
        let a = Matrix::rows(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3);
        let b = Matrix::rows(&[1.0, 0.0, 2.0, 1.0, 0.0, 1.0], 2);
        let mut out = [1.0; 4];
        matmul([2, 3, 2], a, b, false, &mut out);
        assert_eq!(out, [5.0, 5.0, 14.0, 11.0]);
        matmul([2, 3, 2], b.transposed(), a.transposed(), true, &mut out);
        assert_eq!(out, [10.0, 19.0, 19.0, 22.0]);
    }
}
