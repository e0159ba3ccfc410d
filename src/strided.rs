//! Strided loops over slices. `Iterator::step_by` would cost about ten instructions per element here.

/// `to[i · to_step] = from[i · from_step]` for `i < count`.
#[inline]
pub(crate) fn copy(from: &[f32], from_step: usize, to: &mut [f32], to_step: usize, count: usize) {
    if from_step == 1 && to_step == 1 {
        to[..count].copy_from_slice(&from[..count]);
        return;
    }
    for i in 0..count {
        to[i * to_step] = from[i * from_step];
    }
}

/// `to[i · to_step] += from[i]` for all of `from`.
#[inline]
pub(crate) fn add(from: &[f32], to: &mut [f32], to_step: usize) {
    if to_step == 1 {
        // Eight at a time, and all eight sums before the first store. `from` is no longer than a panel, too short for the
        // compiler's own vectorised loop to begin.
        let (to, to_rest) = to[..from.len()].as_chunks_mut::<8>();
        let (from, from_rest) = from.as_chunks::<8>();
        for (to, from) in to.iter_mut().zip(from) {
            *to = core::array::from_fn(|i| to[i] + from[i]);
        }
        to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to += from);
        return;
    }
    for (i, from) in from.iter().enumerate() {
        to[i * to_step] += from;
    }
}

/// Fills `to` with copies of `pattern`, one after another. The last one may be cut.
pub(crate) fn repeat(pattern: &[f32], to: &mut [f32]) {
    /// Elements that are copied at a time. A short pattern would not be worth a call, and a part of this length stays in the
    /// cache.
    const TOGETHER: usize = 1024;
    let together = pattern.len() * (TOGETHER / pattern.len()).max(1);
    let (first, rest) = to.split_at_mut(together.min(to.len()));
    for part in first.chunks_mut(pattern.len()) {
        part.copy_from_slice(&pattern[..part.len()]);
    }
    for part in rest.chunks_mut(together) {
        part.copy_from_slice(&first[..part.len()]);
    }
}

/// `to[c · to_step + r] = from[r · from_step + c]` for `r < rows`, `c < columns`.
///
/// It works on squares of four, checks the bounds once per square, and moves its sixteen elements through registers. It is for
/// the trainer. The kernels have [`TransposeBlock`](crate::kernel::TransposeBlock).
#[cfg(feature = "std")]
pub(crate) fn transpose(from: &[f32], from_step: usize, to: &mut [f32], to_step: usize, rows: usize, columns: usize) {
    let (whole_rows, whole_columns) = (rows / 4 * 4, columns / 4 * 4);
    for r in (0..whole_rows).step_by(4) {
        for c in (0..whole_columns).step_by(4) {
            square(&from[r * from_step + c..], from_step, &mut to[c * to_step + r..], to_step);
        }
        for c in whole_columns..columns {
            copy(&from[r * from_step + c..], from_step, &mut to[c * to_step + r..], 1, 4);
        }
    }
    for r in whole_rows..rows {
        copy(&from[r * from_step..], 1, &mut to[r..], to_step, columns);
    }
}

/// The transpose of a square of four. It is written out because the compiler does not inline closures over arrays here.
#[cfg(feature = "std")]
#[inline(always)]
fn square(from: &[f32], from_step: usize, to: &mut [f32], to_step: usize) {
    let row = |r: usize| -> [f32; 4] {
        let row = &from[r * from_step..][..4];
        [row[0], row[1], row[2], row[3]]
    };
    let rows = [row(0), row(1), row(2), row(3)];
    for c in 0..4 {
        to[c * to_step..][..4].copy_from_slice(&[rows[0][c], rows[1][c], rows[2][c], rows[3][c]]);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn steps_are_kept() {
        let from = [1.0, 2.0, 3.0, 4.0, 5.0];
        let mut to = [0.0; 5];
        copy(&from, 2, &mut to, 1, 3);
        assert_eq!(to, [1.0, 3.0, 5.0, 0.0, 0.0]);
        copy(&from, 1, &mut to, 1, 5);
        assert_eq!(to, from);
        add(&from[..2], &mut to, 3);
        assert_eq!(to, [2.0, 2.0, 3.0, 6.0, 5.0]);
        add(&from, &mut to, 1);
        assert_eq!(to, [3.0, 4.0, 6.0, 10.0, 10.0]);
    }

    #[test]
    fn patterns_are_repeated() {
        let pattern: [f32; 1500] = core::array::from_fn(|i| i as f32);
        for (period, len) in [(1, 0), (1, 5), (3, 2), (3, 3000), (16, 1024), (700, 3000), (1500, 3100)] {
            let mut to = [-1.0; 3200];
            repeat(&pattern[..period], &mut to[..len]);
            for (i, to) in to.iter().enumerate() {
                assert_eq!(*to, if i < len { (i % period) as f32 } else { -1.0 }, "{period} {len}");
            }
        }
    }

    #[cfg(feature = "std")]
    #[test]
    fn every_element_changes_places() {
        for (rows, columns) in [(1, 1), (3, 5), (4, 4), (4, 7), (9, 4), (10, 11)] {
            let (from_step, to_step) = (columns + 2, rows + 3);
            let from = std::vec::Vec::from_iter((0..rows * from_step).map(|i| i as f32));
            let mut to = std::vec![-1.0; columns * to_step];
            transpose(&from, from_step, &mut to, to_step, rows, columns);
            for (i, to) in to.iter().enumerate() {
                let (c, r) = (i / to_step, i % to_step);
                assert_eq!(*to, if r < rows { from[r * from_step + c] } else { -1.0 });
            }
        }
    }
}
