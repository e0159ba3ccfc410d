//! What positions read through taps, along one axis.
//!
//! ```text
//! position p reads through tap t the source coordinate   origin + p · stride + t · dilation
//! ```
//!
//! Coordinates outside `0..source` are padding. Outputs read inputs in this form. Inputs also read outputs in this form, if the
//! inputs have the same residue modulo the stride ([`Phase`](super::Phase)).

use core::ops::Range;

use super::interval::Intervals;
use super::span::{Span, Steps};
use crate::arith::{max, min};
use crate::desc::ConvDesc;

/// One axis. All coordinates that positions read fit `isize`, because [`ConvDesc`] has checked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reads {
    pub(crate) positions: usize,
    /// Extent of the source.
    pub(crate) source: usize,
    pub(crate) taps: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    pub(crate) origin: isize,
}

impl Reads {
    /// Outputs that read inputs along an axis.
    pub(crate) const fn forward(desc: &ConvDesc, axis: usize) -> Self {
        let taps = desc.kernel()[axis];
        Self {
            positions: desc.output_size()[axis],
            source: desc.input_size()[axis],
            taps,
            stride: desc.stride()[axis],
            // The dilation of a single tap has no meaning, so it may be any number in the descriptor.
            dilation: if taps == 1 { 1 } else { desc.dilation()[axis] },
            origin: -(desc.padding_before()[axis] as isize),
        }
    }

    /// Positions that read a source as it is.
    pub(crate) const fn same(positions: usize) -> Self {
        Self { positions, source: positions, taps: 1, stride: 1, dilation: 1, origin: 0 }
    }

    /// [`forward`](Self::forward) along all axes.
    pub(crate) const fn all_forward(desc: &ConvDesc) -> [Self; 3] {
        [Self::forward(desc, 0), Self::forward(desc, 1), Self::forward(desc, 2)]
    }

    /// The distance between what two neighbouring taps read.
    pub(crate) const fn dilation(&self) -> usize {
        self.dilation
    }

    /// The coordinate that a position reads through a tap. It may be padding.
    pub(super) const fn coordinate(&self, position: usize, tap: usize) -> isize {
        self.origin + (position * self.stride) as isize + (tap * self.dilation) as isize
    }

    /// The source that a position reads through a tap, unless it is padding.
    pub(crate) const fn source_of(&self, position: usize, tap: usize) -> Option<usize> {
        let at = self.coordinate(position, tap);
        if at >= 0 && (at as usize) < self.source { Some(at as usize) } else { None }
    }

    /// The position that reads a source through a tap, if any.
    #[cfg(test)]
    pub(crate) const fn position_of(&self, source: usize, tap: usize) -> Option<usize> {
        let steps = source as isize - self.coordinate(0, tap);
        if steps < 0 || !(steps as usize).is_multiple_of(self.stride) {
            return None;
        }
        let position = steps as usize / self.stride;
        if position < self.positions { Some(position) } else { None }
    }

    /// The first position that reads `coordinate` or a later one through a tap. It may lie beyond the last position.
    pub(super) const fn reaches(&self, coordinate: usize, tap: usize) -> usize {
        let steps = coordinate as isize - self.coordinate(0, tap);
        if steps > 0 { (steps as usize).div_ceil(self.stride) } else { 0 }
    }

    /// The positions that read one of `sources` through a tap.
    pub(crate) const fn positions_of(&self, sources: Range<usize>, tap: usize) -> Span {
        let end = min(self.reaches(sources.end, tap), self.positions);
        Span { start: min(self.reaches(sources.start, tap), end), end }
    }

    /// The positions that read inside through a tap; the others read padding.
    pub(crate) const fn unpadded(&self, tap: usize) -> Span {
        self.positions_of(0..self.source, tap)
    }

    /// The sources that some positions read. With a single tap they are exactly these, otherwise all from the first to the last.
    pub(crate) const fn read_by(&self, positions: Range<usize>) -> Steps {
        let Range { start, end } = positions;
        if self.taps == 1 {
            let inside = self.unpadded(0);
            let (start, end) = (max(start, inside.start), min(end, inside.end));
            let count = end.saturating_sub(start);
            let first = if count > 0 { self.coordinate(start, 0) as usize } else { 0 };
            return Steps { first, step: self.stride, count };
        }
        let first = if start < end { self.coordinate(start, 0) } else { 0 };
        let last = if start < end { self.coordinate(end - 1, self.taps - 1) + 1 } else { 0 };
        let first = if first < 0 { 0 } else { first as usize };
        let last = if last < 0 { 0 } else { min(last as usize, self.source) };
        Steps { first, step: 1, count: last.saturating_sub(first) }
    }

    /// The most sources that so many positions in a row [read](Self::read_by), and at least 1. Saturates.
    pub(crate) const fn most_read(&self, positions: usize) -> usize {
        if self.taps == 1 {
            return min(positions, self.source);
        }
        let reach = (self.taps - 1).saturating_mul(self.dilation);
        min(
            positions.saturating_sub(1).saturating_mul(self.stride).saturating_add(reach).saturating_add(1),
            self.source,
        )
    }

    /// The positions that read one of some sources in a row, or padding between them.
    pub(crate) const fn readers(&self, sources: Range<usize>) -> Steps {
        let end = min(self.reaches(sources.end, 0), self.positions);
        let first = min(self.reaches(sources.start, self.taps - 1), end);
        Steps { first, step: 1, count: end - first }
    }

    /// The most [readers](Self::readers) of so many sources in a row. Saturates.
    pub(crate) const fn most_readers(&self, sources: usize) -> usize {
        let reach = (self.taps - 1).saturating_mul(self.dilation);
        min(sources.saturating_sub(1).saturating_add(reach) / self.stride + 1, self.positions)
    }

    /// The number of taps that read before `coordinate` at a position. They are the first taps.
    pub(super) const fn taps_before(&self, coordinate: usize, position: usize) -> usize {
        let room = coordinate as isize - self.coordinate(position, 0);
        if room > 0 { min((room as usize).div_ceil(self.dilation), self.taps) } else { 0 }
    }

    /// The taps through which a position reads inside.
    pub(crate) const fn taps_of(&self, position: usize) -> Span {
        let taps = Span { start: self.taps_before(0, position), end: self.taps_before(self.source, position) };
        // There are none if all sources lie between two taps.
        if taps.is_empty() { Span::EMPTY } else { taps }
    }

    /// All positions, cut where the taps that read inside change.
    #[cfg(test)]
    pub(crate) const fn intervals(&self) -> Intervals {
        self.intervals_in(0..self.positions)
    }

    /// The positions of a range, cut where the taps that read inside change.
    pub(crate) const fn intervals_in(&self, positions: Range<usize>) -> Intervals {
        Intervals::new(*self, Span { start: positions.start, end: max(positions.start, positions.end) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::shapes::{axes, extreme_axes, valid};
    use super::*;

    #[test]
    fn reading_and_being_read_are_the_formula() {
        for desc in axes() {
            let reads = Reads::forward(&desc, 2);
            let (inputs, outputs) = (desc.input_size()[2], desc.output_size()[2]);
            for tap in 0..desc.kernel()[2] {
                for o in 0..outputs {
                    assert_eq!(reads.source_of(o, tap), valid(&desc, 2, o, tap), "{desc:?}");
                }
                for i in 0..inputs {
                    let reader = (0..outputs).find(|&o| valid(&desc, 2, o, tap) == Some(i));
                    assert_eq!(reads.position_of(i, tap), reader, "{desc:?}");
                }
                // A range from any input to the end, and one from the start to any input.
                for sources in (0..=inputs).flat_map(|i| [i..inputs, 0..i]) {
                    let readers =
                        || (0..outputs).filter(|&o| valid(&desc, 2, o, tap).is_some_and(|i| sources.contains(&i)));
                    assert!(reads.positions_of(sources.clone(), tap).range().eq(readers()), "{desc:?} {sources:?}");
                }
            }
        }
    }

    #[test]
    fn windows_hold_what_is_read() {
        for desc in axes() {
            let reads = Reads::forward(&desc, 2);
            let (inputs, outputs, taps) = (desc.input_size()[2], desc.output_size()[2], desc.kernel()[2]);
            for (start, end) in (0..outputs).flat_map(|start| (start + 1..=outputs).map(move |end| (start, end))) {
                let Steps { first, step, count } = reads.read_by(start..end);
                assert!(count <= reads.most_read(end - start) && (count == 0 || first + (count - 1) * step < inputs));
                for i in (start..end).flat_map(|o| (0..taps).filter_map(move |tap| reads.source_of(o, tap))) {
                    assert!(i >= first && (i - first).is_multiple_of(step) && (i - first) / step < count, "{desc:?}");
                }
            }
            for (start, end) in (0..inputs).flat_map(|start| (start + 1..=inputs).map(move |end| (start, end))) {
                let Steps { first, count, .. } = reads.readers(start..end);
                assert!(count <= reads.most_readers(end - start) && first + count <= outputs);
                for o in (start..end).flat_map(|i| (0..taps).filter_map(move |tap| reads.position_of(i, tap))) {
                    assert!((first..first + count).contains(&o), "{desc:?}");
                }
            }
        }
    }

    #[test]
    fn far_coordinates_do_not_overflow() {
        for desc in extreme_axes() {
            let reads = Reads::forward(&desc, 2);
            for tap in 0..desc.kernel()[2] {
                let readers = reads.unpadded(tap);
                for o in [0, readers.start, readers.end - usize::from(!readers.is_empty()), reads.positions - 1] {
                    if o < reads.positions {
                        let source = reads.source_of(o, tap);
                        assert_eq!(source, valid(&desc, 2, o, tap), "{desc:?}");
                        assert_eq!(source.is_some(), readers.range().contains(&o), "{desc:?}");
                        if let Some(i) = source {
                            assert_eq!(reads.position_of(i, tap), Some(o), "{desc:?}");
                        }
                    }
                }
            }
        }
    }
}
