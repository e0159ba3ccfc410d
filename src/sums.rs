//! Sums over positions, in segments. A single chain of additions over tens of millions of positions would lose what it adds once
//! the sum has grown: an f32 holds 24 bits, so 2²⁵ ones, added one after another, give 2²⁴.
//!
//! Every gradient that sums over positions (∂b, ∂w, ∂θ) is a sum of partial sums over about [`SEGMENT`] positions each. The
//! beginnings of segments depend on the descriptor and the instruction set, never on threads.

use core::ops::Range;

use crate::geometry::{SEGMENT, Segments, chunks};
use crate::layout::TensorLayout;

/// Many sums at a time: the sums of the current segment of positions, and those of all segments before it.
pub(crate) struct SegmentedSums<'a> {
    /// The sums of the current segment. Callers add to these.
    pub(crate) current: &'a mut [f32],
    /// As long as `current`, or empty where one segment holds all positions.
    before: &'a mut [f32],
    segments: Segments,
}

impl<'a> SegmentedSums<'a> {
    /// Elements of the sums before the current segment, for `len` sums over so many positions.
    pub(crate) const fn before_len(len: usize, positions: usize) -> usize {
        if positions > SEGMENT { len } else { 0 }
    }

    /// Sums that are zero.
    pub(crate) fn new(current: &'a mut [f32], before: &'a mut [f32]) -> Self {
        current.fill(0.0);
        before.fill(0.0);
        Self { current, before, segments: Segments::default() }
    }

    /// Says that so many more positions have been added to every sum.
    pub(crate) fn advance(&mut self, positions: usize) {
        if self.segments.advance(positions) {
            self.end_segment(0..self.current.len());
        }
    }

    /// Ends the segment of some sums.
    pub(crate) fn end_segment(&mut self, sums: Range<usize>) {
        if let Some(before) = self.before.get_mut(sums.clone()) {
            for (before, current) in before.iter_mut().zip(&mut self.current[sums]) {
                *before += core::mem::take(current);
            }
        }
    }

    /// Multiplies each sum by its number in `by`.
    pub(crate) fn multiply(&mut self, by: &[f32]) {
        self.current.iter_mut().zip(by).for_each(|(sum, by)| *sum *= by);
        self.before.iter_mut().zip(by).for_each(|(sum, by)| *sum *= by);
    }

    /// Makes `current` the sums over all segments.
    pub(crate) fn finish(self) {
        self.current.iter_mut().zip(self.before).for_each(|(current, before)| *current += *before);
    }
}

/// The sum of rows of elements.
struct SegmentedSum {
    /// The sum of short rows.
    short: f32,
    /// The sum of long rows, as sixteen partial sums. With a single one, each addition would wait for the one before.
    long: [f32; 16],
    positions: usize,
    before: f32,
}

impl SegmentedSum {
    const ZERO: Self = Self { short: 0.0, long: [0.0; 16], positions: 0, before: 0.0 };

    /// Adds the elements of rows of planes.
    fn add(&mut self, data: &[f32], Strip { rows, row_step, len }: Strip) {
        if len < self.long.len() {
            let mut sum = 0.0;
            for row in 0..rows {
                for v in &data[row * row_step..][..len] {
                    sum += v;
                }
            }
            self.short += sum;
            self.advance(rows * len);
            return;
        }
        for row in 0..rows {
            for part in data[row * row_step..][..len].chunks(SEGMENT) {
                // Local copies, which the compiler keeps in registers.
                let (mut long, mut short) = (self.long, 0.0);
                let (chunks, rest) = part.as_chunks::<16>();
                for chunk in chunks {
                    long.iter_mut().zip(chunk).for_each(|(sum, v)| *sum += v);
                }
                rest.iter().for_each(|v| short += v);
                self.long = long;
                self.short += short;
                self.advance(part.len());
            }
        }
    }

    fn advance(&mut self, positions: usize) {
        self.positions += positions;
        if self.positions >= SEGMENT {
            *self = Self { before: self.value(), ..Self::ZERO };
        }
    }

    fn value(&self) -> f32 {
        self.before + self.short + self.long.iter().sum::<f32>()
    }
}

/// A box of positions.
pub(crate) type Positions = [Range<usize>; 3];

/// Adds to `sums`, one for each of some channels, their elements in boxes of positions of all images.
pub(crate) fn add_positions(
    tensor: &TensorLayout,
    data: &[f32],
    boxes: &[Positions],
    channels: Range<usize>,
    sums: &mut [f32],
) {
    if tensor.channels_last() {
        /// Channels whose sums stay in registers or in the first-level cache.
        const MOST: usize = 64;
        let mut first = channels.start;
        for sums in sums[..channels.len()].chunks_mut(MOST) {
            let (mut current, mut before) = ([0.0; MOST], [0.0; MOST]);
            let mut segmented = SegmentedSums::new(&mut current[..sums.len()], &mut before[..sums.len()]);
            for_each_strip(tensor, data, boxes, |data, Strip { rows, row_step, len }| {
                for row in 0..rows {
                    let mut pixels = data[row * row_step + first..].chunks(tensor.strides.spatial[2]);
                    for part in chunks(0..len, SEGMENT) {
                        for pixel in pixels.by_ref().take(part.len()) {
                            segmented.current.iter_mut().zip(pixel).for_each(|(sum, v)| *sum += v);
                        }
                        segmented.advance(part.len());
                    }
                }
            });
            segmented.finish();
            sums.iter_mut().zip(&current).for_each(|(sum, current)| *sum += current);
            first += sums.len();
        }
    } else {
        for (channel, sum) in channels.zip(sums) {
            let mut segmented = SegmentedSum::ZERO;
            let first = channel * tensor.strides.channel;
            for_each_strip(tensor, data, boxes, |data, strip| segmented.add(&data[first..], strip));
            *sum += segmented.value();
        }
    }
}

/// Rows of positions at a constant distance. Together they are no longer than a segment, unless there is only one row.
#[derive(Clone, Copy)]
struct Strip {
    rows: usize,
    row_step: usize,
    /// Positions of a row.
    len: usize,
}

/// Visits the rows of boxes of positions, in strips. The visitor gets the data from the first channel of a strip's first position
/// on, and the strip. Rows that follow one another without a gap are one row.
#[inline(always)]
fn for_each_strip(tensor: &TensorLayout, data: &[f32], boxes: &[Positions], mut visit: impl FnMut(&[f32], Strip)) {
    let ([depth_stride, row_step, pixel_stride], [_, _, width]) = (tensor.strides.spatial, tensor.size);
    let image_len = tensor.image_len();
    for image in 0..tensor.images {
        let image = &data[image * tensor.image_stride..][..image_len];
        for [ds, hs, ws] in boxes {
            if hs.is_empty() || ws.is_empty() {
                continue;
            }
            let (rows, len) = if ws.len() == width { (1, hs.len() * width) } else { (hs.len(), ws.len()) };
            for d in ds.clone() {
                let plane = &image[d * depth_stride + hs.start * row_step + ws.start * pixel_stride..];
                if rows * len <= SEGMENT {
                    visit(plane, Strip { rows, row_step, len });
                    continue;
                }
                for rows in chunks(0..rows, (SEGMENT / len).max(1)) {
                    visit(&plane[rows.start * row_step..], Strip { rows: rows.len(), row_step, len });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::layout::Layout;
    use std::vec;

    #[test]
    fn millions_of_ones_are_counted() {
        let count = (1 << 25) + 12_345;
        let mut sum = SegmentedSum::ZERO;
        let ones = vec![1.0; 1_000_003];
        for chunk in 0..count / ones.len() {
            let _ = chunk;
            sum.add(&ones, Strip { rows: 1, row_step: 0, len: ones.len() });
        }
        sum.add(&ones, Strip { rows: 1, row_step: 0, len: count % ones.len() });
        assert!((f64::from(sum.value()) / count as f64 - 1.0).abs() < 1e-5);
    }

    #[test]
    fn boxes_are_summed_in_any_layout() {
        let (channels, size) = (3, [2, 4, 5]);
        for (layout, pitch) in [(Layout::Nchw, 3 * 40 + 7), (Layout::Nhwc, 8)] {
            let tensor = TensorLayout::new(layout, 2, channels, size, pitch);
            let data: vec::Vec<f32> = (0..tensor.len()).map(|i| (i % 97) as f32).collect();
            let boxes = [[0..1, 1..3, 0..5], [1..2, 0..4, 2..4]];
            let mut sums = [1.0; 2];
            add_positions(&tensor, &data, &boxes, 1..3, &mut sums);
            for (c, sum) in (1..).zip(sums) {
                let mut expected = 1.0;
                for n in 0..2 {
                    for [ds, hs, ws] in boxes.clone() {
                        for (d, (h, w)) in ds.flat_map(|d| {
                            let ws = ws.clone();
                            hs.clone().flat_map(move |h| ws.clone().map(move |w| (h, w))).map(move |at| (d, at))
                        }) {
                            let strides = tensor.strides;
                            let [ds, hs, ws] = strides.spatial;
                            expected += data[n * tensor.image_stride + c * strides.channel + d * ds + h * hs + w * ws];
                        }
                    }
                }
                assert_eq!(sum, expected, "{layout:?}, channel {c}");
            }
        }
    }
}
