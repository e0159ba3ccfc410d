//! Intervals: positions in a row that read inside through the same taps.
//!
//! ```text
//! taps      none    0..1   0..2   0..3 ...   1..3   2..3   none
//! positions ──────┬──────┬──────┬──────────┬──────┬──────┬──────
//! ```
//!
//! Each tap reads inside from one position up to another one. The taps that read inside change only at these positions. So there
//! are at most `2 · taps + 1` intervals. One division finds the next change.

use super::reads::Reads;
use super::span::Span;
use crate::arith::min;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) positions: Span,
    /// The taps that read inside, or [`Span::EMPTY`].
    pub(crate) taps: Span,
}

/// The intervals of some positions, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intervals {
    reads: Reads,
    /// Positions that are left.
    rest: Span,
}

impl Intervals {
    pub(super) const fn new(reads: Reads, positions: Span) -> Self {
        Self { reads, rest: positions }
    }

    /// `Iterator::next` for `const fn`.
    pub(crate) const fn advance(&mut self) -> Option<Interval> {
        let Span { start, end } = self.rest;
        if start >= end {
            return None;
        }
        let taps = self.reads.taps_of(start);
        let mut next = self.change_after(start);
        // Positions without a tap belong together.
        while taps.is_empty() && next < end && self.reads.taps_of(next).is_empty() {
            next = self.change_after(next);
        }
        self.rest.start = min(next, end);
        Some(Interval { positions: Span { start, end: self.rest.start }, taps })
    }

    /// The next position at which the taps change: a tap that read before the source now reads inside it, or a tap that read
    /// inside now reads behind it.
    const fn change_after(&self, position: usize) -> usize {
        let reads = &self.reads;
        let (before, until) = (reads.taps_before(0, position), reads.taps_before(reads.source, position));
        let mut next = reads.positions;
        if before > 0 {
            next = min(next, reads.reaches(0, before - 1));
        }
        if until > 0 {
            next = min(next, reads.reaches(reads.source, until - 1));
        }
        next
    }

    /// The number of intervals that are left.
    #[cfg_attr(not(test), expect(dead_code, reason = "plans over classes of positions will"))]
    pub(crate) const fn remaining(mut self) -> usize {
        let mut count = 0;
        while self.advance().is_some() {
            count += 1;
        }
        count
    }
}

impl Iterator for Intervals {
    type Item = Interval;

    fn next(&mut self) -> Option<Interval> {
        self.advance()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::super::shapes::{axes, extreme_axes, valid};
    use super::*;
    use crate::desc::ConvDesc;

    /// The taps of an output, one by one.
    fn taps(desc: &ConvDesc, o: usize) -> Vec<usize> {
        (0..desc.kernel()[2]).filter(|&k| valid(desc, 2, o, k).is_some()).collect()
    }

    #[test]
    fn intervals_are_the_runs_of_outputs_with_the_same_taps() {
        for desc in axes() {
            let reads = Reads::forward(&desc, 2);
            let outputs = desc.output_size()[2];
            for range in [0..outputs, outputs / 3..outputs - outputs / 4] {
                let mut expected: Vec<(usize, usize, Vec<usize>)> = Vec::new();
                for o in range.clone() {
                    let taps = taps(&desc, o);
                    match expected.last_mut() {
                        Some((_, end, last)) if *last == taps => *end += 1,
                        _ => expected.push((o, o + 1, taps)),
                    }
                }
                let found = reads.intervals_in(range.clone());
                assert_eq!(found.remaining(), expected.len());
                let found = found.map(|interval| {
                    let Span { start, end } = interval.positions;
                    (start, end, interval.taps.range().collect::<Vec<_>>())
                });
                assert!(found.eq(expected), "{desc:?} {range:?}");
            }
        }
    }

    #[test]
    fn far_intervals_are_found_at_once() {
        for desc in extreme_axes() {
            let reads = Reads::forward(&desc, 2);
            let (mut next, mut last) = (0, None);
            for Interval { positions, taps: found } in reads.intervals() {
                assert_eq!(positions.start, next, "{desc:?}");
                assert!(!positions.is_empty() && last != Some(found), "{desc:?}");
                for o in [positions.start, positions.start + positions.len() / 2, positions.end - 1] {
                    assert!(found.range().eq(taps(&desc, o)), "{desc:?} {o}");
                }
                (next, last) = (positions.end, Some(found));
            }
            assert_eq!(next, desc.output_size()[2]);
        }
    }

    #[test]
    fn an_empty_range_has_none() {
        let reads = Reads::forward(&axes().next().unwrap(), 2);
        assert_eq!(reads.intervals_in(1..1).next(), None);
    }

    #[test]
    fn a_plan_can_count_them() {
        const DESC: ConvDesc = match ConvDesc::conv1d(1, 1, 1, [9], [3]).padding([1]).build() {
            Ok(desc) => desc,
            Err(_) => panic!("a constant descriptor"),
        };
        const COUNT: usize = Reads::forward(&DESC, 2).intervals().remaining();
        assert_eq!(COUNT, 3);
    }
}
