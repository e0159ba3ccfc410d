//! Segments: gradients that sum over positions are sums of partial sums, of at most [`SEGMENT`] positions each.
//!
//! ```text
//! ∂w = (g₀·f₀ + … + g₄₀₉₅·f₄₀₉₅) + (g₄₀₉₆·f₄₀₉₆ + …) + …
//! ```
//!
//! One chain over all positions rounds in proportion to their number: ones in f32 add up to no more than 2²⁴. Segments
//! depend on the descriptor and the instruction set alone, so the bits do not depend on threads.

use crate::arith::min;

/// The most positions of a partial sum.
pub(crate) const SEGMENT: usize = 4096;

/// Tells a driver that adds block after block of positions when to fold its partial sum into the whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segments {
    /// Positions in the partial sum.
    len: usize,
}

#[cfg_attr(not(test), expect(dead_code, reason = "backward passes that sum in segments will"))]
impl Segments {
    /// Whether to fold before the next block, of so many positions (at most [`SEGMENT`]), is added.
    ///
    /// What is left at the end is folded too.
    pub(crate) const fn advance(&mut self, positions: usize) -> bool {
        assert!(positions <= SEGMENT, "a block is part of one segment");
        let full = self.len + positions > SEGMENT;
        self.len = if full { positions } else { self.len + positions };
        full
    }
}

/// The longest chain of additions in a sum over `positions`: those of a segment, then the segments.
///
/// Blocks need not divide a segment, but two segments in a row hold more than [`SEGMENT`] positions together.
#[cfg_attr(not(test), expect(dead_code, reason = "backward passes that sum in segments will"))]
pub(crate) const fn chain(positions: usize) -> usize {
    min(positions, SEGMENT) + 2 * (positions / (SEGMENT + 1)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_sums_hold_at_most_a_segment() {
        for block in [1, 2, 7, 100, 256, 1000, 1366, 2048, 2049, 3000, 4095, SEGMENT] {
            for positions in [0, 1, 5, 4095, 4096, 4097, 8192, 8193, 100_003] {
                let mut segments = Segments::default();
                let (mut left, mut partial, mut longest, mut folds) = (positions, 0, 0, 0);
                while left > 0 {
                    let own = block.min(left);
                    if segments.advance(own) {
                        folds += 1;
                        partial = 0;
                    }
                    partial += own;
                    longest = longest.max(partial);
                    left -= own;
                }
                assert!(longest <= SEGMENT);
                assert!(longest + folds + 1 <= chain(positions), "{block} {positions}");
                if SEGMENT.is_multiple_of(block) {
                    assert_eq!(folds + 1, positions.div_ceil(SEGMENT).max(1));
                }
            }
        }
        assert_eq!(chain(100), 101);
    }
}
