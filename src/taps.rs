//! Which source coordinate a position reads through a tap, and where that lies in a staged copy.
//!
//! Both the forward pass (outputs read inputs) and the backward pass of the input (inputs read output gradients) are
//! gathers: along each axis, position `p` reads through tap `t` the source coordinate
//!
//! ```text
//! origin + (t mod segments) · segment_step + stride · (p + (t / segments) · shift)
//! ```
//!
//! A staged copy holds, for each segment, the coordinates `origin + segment · segment_step + stride · e` for consecutive `e`. In
//! this copy, every gather has stride one and every tap is one constant offset, whatever the stride and the dilation of the
//! layer. A stride that shares no factor with the dilation splits the taps into as many segments as the stride has phases. If the
//! taps lie so far apart that the gaps between them would take more room than the taps, each tap has a segment of its own.

use core::ops::Range;

use crate::arith::gcd;
use crate::desc::ConvDesc;
use crate::geometry::{self, Reads, Steps};

/// One axis of a gather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    /// Positions of the pass along the axis.
    pub(crate) positions: usize,
    /// Extent of the source. Coordinates outside of it are padding.
    pub(crate) source: usize,
    /// Taps, numbered by ascending source coordinate.
    pub(crate) taps: usize,
    stride: usize,
    segments: usize,
    segment_step: usize,
    shift: usize,
    origin: isize,
}

impl Axis {
    /// Outputs that read inputs: `o · stride + t · dilation − padding`.
    pub(crate) const fn forward(desc: &ConvDesc, axis: usize) -> Self {
        Self::of(Reads::forward(desc, axis))
    }

    /// Positions that read a source through taps.
    const fn of(reads: Reads) -> Self {
        let Reads { positions, source, taps, stride, dilation, origin } = reads;
        let common = gcd(stride, dilation);
        Self {
            positions,
            source,
            taps,
            stride,
            segments: stride / common,
            segment_step: dilation,
            shift: dilation / common,
            origin,
        }
        .normalized()
    }

    /// [`forward`](Self::forward) along all axes.
    pub(crate) const fn all_forward(desc: &ConvDesc) -> [Self; 3] {
        [Self::forward(desc, 0), Self::forward(desc, 1), Self::forward(desc, 2)]
    }

    /// All positions of a tensor, along all axes.
    pub(crate) const fn all_positions([d, h, w]: [usize; 3]) -> [Self; 3] {
        [Self::identity(d, d, 0, 1), Self::identity(h, h, 0, 1), Self::identity(w, w, 0, 1)]
    }

    /// Positions `start, start + step, …` of a tensor, read as they are.
    pub(crate) const fn identity(positions: usize, source: usize, start: usize, step: usize) -> Self {
        Self {
            positions,
            source,
            taps: 1,
            stride: step,
            segments: 1,
            segment_step: 0,
            shift: 0,
            origin: start as isize,
        }
    }

    /// The same axis without the segments that no tap reads. They need not be staged.
    const fn normalized(mut self) -> Self {
        if self.segments > self.taps {
            self.segments = self.taps;
        }
        self
    }

    /// The smaller of two stagings for blocks of `positions`: taps that share segments, or a segment for each tap.
    const fn for_block(self, positions: usize) -> Self {
        let sparse = Self {
            segments: self.taps,
            // Taps t and t + 1 are segment_step apart when they lie in different segments, and shift · stride when
            // there is but one segment.
            segment_step: if self.segments == 1 { self.shift * self.stride } else { self.segment_step },
            ..self
        };
        // Saturates. A layer whose sizes overflow here is too large to be computed, so the choice does not matter.
        let (apart, shared) = (positions, positions.saturating_add(self.reach()));
        if self.taps.saturating_mul(apart) < self.segments.saturating_mul(shared) { sparse } else { self }
    }

    /// Extra elements that the last tap of a segment reads beyond the positions.
    pub(crate) const fn reach(&self) -> usize {
        (self.taps - 1) / self.segments * self.shift
    }

    /// The coordinate of element 0 of a segment of the block that begins at `position`.
    const fn coordinate(&self, segment: usize, position: usize) -> isize {
        self.origin + (segment * self.segment_step + position * self.stride) as isize
    }

    /// The elements `e < len` of a segment, of the block that begins at `position`, that lie inside the source.
    pub(crate) fn inside(&self, segment: usize, position: usize, len: usize) -> core::ops::Range<usize> {
        let first = self.coordinate(segment, position);
        let from = if first < 0 { first.unsigned_abs().div_ceil(self.stride) } else { 0 };
        let until = match self.source as isize - first {
            room if room <= 0 => 0,
            room => (room as usize).div_ceil(self.stride),
        };
        let until = until.min(len);
        from.min(until)..until
    }

    /// The source coordinate of element `e`, which [`inside`](Self::inside) has found to lie in the source.
    pub(crate) const fn source_index(&self, segment: usize, position: usize, element: usize) -> usize {
        (self.coordinate(segment, position) + (element * self.stride) as isize) as usize
    }

    /// Distance of consecutive elements in the source.
    pub(crate) const fn stride(&self) -> usize {
        self.stride
    }
}

/// One phase of the backward pass of the input along one axis: the inputs `first, first + stride, …`, all of which
/// are read through the same taps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    /// First input of the phase.
    pub(crate) first: usize,
    /// Step between its inputs.
    pub(crate) step: usize,
    /// How those inputs read the output gradient; `None` where no tap reaches them.
    pub(crate) gather: Option<Axis>,
    /// The kernel positions of the taps of `gather`, the last first.
    taps: Steps,
    /// Inputs of the phase.
    pub(crate) positions: usize,
}

impl Phase {
    /// How many phases an axis has.
    pub(crate) const fn count(desc: &ConvDesc, axis: usize) -> usize {
        geometry::Phase::count(&Reads::forward(desc, axis))
    }

    /// The inputs of the phase that lie in a range of the axis.
    pub(crate) fn within(&self, range: &Range<usize>) -> Range<usize> {
        let before = |end: usize| end.saturating_sub(self.first).div_ceil(self.step).min(self.positions);
        before(range.start)..before(range.end)
    }

    /// Phase `first` of an axis.
    pub(crate) const fn new(desc: &ConvDesc, axis: usize, first: usize) -> Self {
        let geometry::Phase { inputs, taps, reads } = geometry::Phase::new(&Reads::forward(desc, axis), first);
        let gather = if taps.count == 0 { None } else { Some(Axis::of(reads)) };
        Self { first, step: inputs.step, gather, taps, positions: inputs.count }
    }

    /// The most inputs and taps that any phase of an axis has, as a gather.
    pub(crate) const fn widest(desc: &ConvDesc, axis: usize) -> Axis {
        let (stride, dilation) = (desc.stride()[axis], desc.dilation()[axis]);
        let common = gcd(stride, dilation);
        Axis {
            positions: desc.input_size()[axis].div_ceil(stride),
            source: desc.output_size()[axis],
            taps: desc.kernel()[axis].div_ceil(stride / common),
            stride: 1,
            segments: 1,
            segment_step: 0,
            shift: dilation / common,
            origin: 0,
        }
    }

    /// [`widest`](Self::widest) along all axes.
    pub(crate) const fn all_widest(desc: &ConvDesc) -> [Axis; 3] {
        [Self::widest(desc, 0), Self::widest(desc, 1), Self::widest(desc, 2)]
    }

    /// The kernel position of tap `t`. A later tap reads a later output, so it lies earlier in the kernel.
    pub(crate) const fn kernel(&self, tap: usize) -> usize {
        self.taps.at(self.taps.count - 1 - tap)
    }
}

/// The staged copy of one channel for blocks of at most `block` positions: all segments of all axes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) axes: [Axis; 3],
    /// Staged elements of one segment, per axis.
    pub(crate) extent: [usize; 3],
}

impl Grid {
    pub(crate) const fn new(axes: [Axis; 3], block: [usize; 3]) -> Self {
        let mut grid = Self { axes, extent: [0; 3] };
        let mut i = 0;
        while i < 3 {
            grid.axes[i] = axes[i].for_block(block[i]);
            grid.extent[i] = block[i].saturating_add(grid.axes[i].reach());
            i += 1;
        }
        grid
    }

    /// The source itself, where positions read it with stride one and no padding, in NCHW order.
    pub(crate) const fn of_source(axes: [Axis; 3]) -> Self {
        Self { axes, extent: [axes[0].source, axes[1].source, axes[2].source] }
    }

    /// Elements of one channel. Saturates, so that an impossible size counts as too large.
    pub(crate) const fn len(&self) -> usize {
        let mut len = 1usize;
        let mut i = 0;
        while i < 3 {
            len = len.saturating_mul(self.extent[i]).saturating_mul(self.axes[i].segments);
            i += 1;
        }
        len
    }

    pub(crate) const fn segments(&self) -> [usize; 3] {
        [self.axes[0].segments, self.axes[1].segments, self.axes[2].segments]
    }

    pub(crate) const fn taps(&self) -> [usize; 3] {
        [self.axes[0].taps, self.axes[1].taps, self.axes[2].taps]
    }

    /// Offset of the first element of a row of a segment.
    pub(crate) const fn row(&self, segment: [usize; 3], d: usize, h: usize) -> usize {
        let segments = self.segments();
        let segment = (segment[0] * segments[1] + segment[1]) * segments[2] + segment[2];
        ((segment * self.extent[0] + d) * self.extent[1] + h) * self.extent[2]
    }

    /// Offset of a position in the copy that [`of_source`](Self::of_source) is.
    pub(crate) const fn position(&self, [d, h, w]: [usize; 3]) -> usize {
        self.row([0; 3], d, h) + w
    }

    /// Offset at which position 0 of a block reads through a tap.
    pub(crate) const fn tap(&self, tap: [usize; 3]) -> usize {
        let [d, h, w] = self.axes;
        let segment = [tap[0] % d.segments, tap[1] % h.segments, tap[2] % w.segments];
        self.row(segment, tap[0] / d.segments * d.shift, tap[1] / h.segments * h.shift) + tap[2] / w.segments * w.shift
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    /// The source coordinate that the staged copy holds where `tap` of the position at `offset` in the block looks.
    fn staged(axis: Axis, start: usize, offset: usize, tap: usize) -> isize {
        axis.coordinate(tap % axis.segments, start)
            + ((offset + tap / axis.segments * axis.shift) * axis.stride) as isize
    }

    #[test]
    fn every_tap_reads_the_coordinate_of_the_formula() {
        for (kernel, stride, dilation, padding, size) in
            [(1, 1, 1, 0, 4), (3, 1, 1, 1, 9), (5, 2, 1, 2, 9), (4, 3, 2, 1, 15), (3, 4, 6, 7, 9), (2, 2, 50, 50, 3)]
        {
            let desc = ConvDesc::conv1d(1, 1, 1, [size], [kernel])
                .stride([stride])
                .dilation([dilation])
                .padding([padding])
                .build()
                .unwrap();
            let axis = Axis::forward(&desc, 2);
            for block in 1..=axis.positions {
                let axis = axis.for_block(block);
                for (start, offset) in (0..axis.positions).flat_map(|s| (0..block).map(move |o| (s, o))) {
                    for tap in 0..kernel {
                        let expected = ((start + offset) * stride + tap * dilation) as isize - padding as isize;
                        assert_eq!(staged(axis, start, offset, tap), expected);
                    }
                }
            }
            let mut seen = 0;
            for first in 0..Phase::count(&desc, 2) {
                let phase = Phase::new(&desc, 2, first);
                seen += phase.positions;
                let Some(gather) = phase.gather else { continue };
                for block in 1..=phase.positions {
                    let gather = gather.for_block(block);
                    for (t, tap) in (0..phase.positions).flat_map(|t| (0..gather.taps).map(move |k| (t, k))) {
                        let output = staged(gather, t, 0, tap);
                        let input = output * stride as isize + (phase.kernel(tap) * dilation) as isize;
                        assert_eq!(input - padding as isize, (first + t * stride) as isize);
                    }
                }
            }
            assert_eq!(seen, size);
        }
    }

    #[test]
    fn far_taps_do_not_stage_the_gap() {
        let desc = ConvDesc::conv1d(1, 1, 1, [1], [2])
            .dilation([100_000_000])
            .padding_before_after([100_000_000], [0])
            .build()
            .unwrap();
        let axis = Axis::forward(&desc, 2);
        let one = Axis::identity(1, 1, 0, 1);
        assert_eq!(Grid::new([one, one, axis], [1, 1, 1]).len(), 2);
        let phase = Phase::new(&desc, 2, 0);
        assert_eq!(Grid::new([one, one, phase.gather.unwrap()], [1, 1, 1]).len(), 2);
    }
}
