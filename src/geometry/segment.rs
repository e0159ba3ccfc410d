//! Segments: a gradient that sums over positions is a sum of partial sums, each over about [`SEGMENT`] positions.
//!
//! ```text
//! ∂w = (g₀·f₀ + … + g₈₁₉₁·f₈₁₉₁) + (g₈₁₉₂·f₈₁₉₂ + …) + …
//! ```
//!
//! The error of a single chain over all positions grows with their number. For example, a sum of ones in f32 stops growing at
//! 2²⁴. Segments depend only on the descriptor and the instruction set, so the number of threads does not change a bit of the
//! result.

use super::parts;
use crate::arith::min;

/// The positions after which a partial sum ends. The last block of a segment may exceed it. A block has at most this many
/// positions.
pub(crate) const SEGMENT: usize = 8192;

/// The most segments that have sums of their own, so that threads can share the segments. With 16 segments, 16 threads find work
/// even in layers that have nothing else to share.
pub(crate) const MOST_SEGMENTS: usize = 16;

/// The number of such segments that is worth its cost, if a task has at least `part` multiply-adds. Each segment has sums, which
/// take time to clear and to add. So each has the work of at least 12 tasks, a guess that the commit log does not measure.
pub(crate) const fn paying_segments(multiply_adds: usize, part: usize) -> usize {
    const PARTS_PER_SEGMENT: usize = 12;
    parts(MOST_SEGMENTS, multiply_adds, part.saturating_mul(PARTS_PER_SEGMENT))
}

/// Counts the positions of blocks that are added one after another, and says when the partial sum ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segments {
    /// Positions in the partial sum.
    len: usize,
}

impl Segments {
    /// Counts a block of so many positions that has just been added. Returns whether the partial sum ends with it.
    pub(crate) const fn advance(&mut self, positions: usize) -> bool {
        self.len += positions;
        let ends = self.len >= SEGMENT;
        if ends {
            self.len = 0;
        }
        ends
    }

    /// Whether the partial sum is empty.
    pub(crate) const fn is_new(&self) -> bool {
        self.len == 0
    }
}

/// The longest chain of additions in a sum over `positions`: the positions of a segment, then the segments.
pub(crate) const fn chain(positions: usize) -> usize {
    min(positions, 2 * SEGMENT) + positions.div_ceil(SEGMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_sums_hold_about_a_segment() {
        for block in [1, 2, 7, 100, 256, 1000, 2049, 4095, SEGMENT - 1, SEGMENT] {
            for positions in [0, 1, 5, 4095, 8191, 8192, 8193, 16384, 16385, 100_003] {
                let mut segments = Segments::default();
                let (mut left, mut partial, mut longest, mut ended) = (positions, 0, 0, 0);
                while left > 0 {
                    let own = block.min(left);
                    partial += own;
                    longest = longest.max(partial);
                    if segments.advance(own) {
                        assert!(partial >= SEGMENT && segments.is_new());
                        ended += 1;
                        partial = 0;
                    }
                    left -= own;
                }
                assert!(longest < 2 * SEGMENT);
                assert!(longest + ended <= chain(positions), "{block} {positions}");
            }
        }
        assert_eq!(chain(100), 101);
    }
}
