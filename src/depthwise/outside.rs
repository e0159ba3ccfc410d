//! Sums of output gradients over the positions that read padding, for each tap.
//!
//! Only the edges of an image have such positions. Where the driver copies pixels, it copies those of the edges for this.

use core::ops::Range;

use super::geometry::{Direction, Rows, Strips};
use super::{Blocking, Field, Plane, Tables, axes_of, ranges_of};
use crate::arith::{max, min};
use crate::border::{self, is_inside, unpadded};
use crate::desc::ConvDesc;
use crate::geometry::{Reads, SEGMENT, Segments};
use crate::kernel::{DepthwiseBackwardWeight, Kernels};
use crate::stage::{blocks, largest_block};

/// The value or zero. A mask, and no branch, so that the compiler uses vectors.
pub(super) const fn where_true(condition: bool, value: f32) -> f32 {
    f32::from_bits(value.to_bits() & 0_u32.wrapping_sub(condition as u32))
}

pub(super) struct Outside<'a> {
    desc: &'a ConvDesc,
    kernels: &'static Kernels,
    /// `[vector][tap][lane]`
    sums: &'a mut [f32],
    segments: Segments,
}

/// The output gradients of some channels of an image. Their numbers among all channels and in the sums differ.
pub(super) struct Gradients<'a> {
    pub(super) data: &'a [f32],
    pub(super) image: usize,
    pub(super) channels: Range<usize>,
    pub(super) in_sums: Range<usize>,
}

impl<'a> Outside<'a> {
    /// Sums that are zero.
    pub(super) fn new(desc: &'a ConvDesc, kernels: &'static Kernels, sums: &'a mut [f32]) -> Self {
        sums.fill(0.0);
        Self { desc, kernels, sums, segments: Segments::default() }
    }

    /// The table of sums, for a kernel that adds to it.
    pub(super) fn sums(&mut self) -> &mut [f32] {
        self.sums
    }

    /// Adds the positions of a box that lie at the edges of the image.
    pub(super) fn add(
        &mut self,
        blocking: &Blocking,
        g: &Gradients<'_>,
        [in_depths, rows, columns]: [Range<usize>; 3],
        window: &mut [f32],
        tables: &mut Tables<'_>,
    ) {
        let desc = self.desc;
        let most = blocking.window.map_or(SEGMENT, |window| min(window, SEGMENT));
        let [depths, heights, widths] = Reads::all_forward(desc);
        let [kd, kh, kw] = desc.kernel();
        // All taps read inside from the first position at which the first tap does to the last position at which the last tap
        // does.
        let (start, end) = (widths.unpadded(0).start, widths.unpadded(kw - 1).end);
        let depths = depths.intervals_in(in_depths);
        for (d, h) in depths.flat_map(|d| heights.intervals_in(rows.clone()).map(move |h| (d, h))) {
            let edges = if (d.taps.len(), h.taps.len()) == (kd, kh) && start < end {
                [columns.start..min(start, columns.end), max(end, columns.start)..columns.end]
            } else {
                [columns.clone(), 0..0]
            };
            for w in edges {
                let region = [d.positions.range(), h.positions.range(), w];
                let size = largest_block([region[0].len(), region[1].len(), region[2].len().max(1)], most);
                for block in blocks(region, size) {
                    self.add_box(blocking, g, ranges_of(&block), window, tables);
                }
            }
        }
    }

    /// Adds the positions of a box that read padding. Copies them where the blocking copies pixels.
    pub(super) fn add_box(
        &mut self,
        blocking: &Blocking,
        g: &Gradients<'_>,
        positions: [Range<usize>; 3],
        window: &mut [f32],
        tables: &mut Tables<'_>,
    ) {
        if positions.iter().any(Range::is_empty) {
            return;
        }
        let [copied, _] = blocking.pitches();
        let at = (g.image, axes_of(&positions));
        let field = Field::new(self.kernels, copied, (&self.desc.output_tensor(), g.data), at, &g.channels, window);
        self.add_field(blocking, g, &field, positions, tables);
    }

    /// Adds the positions of a box that read padding, from a field that holds them.
    pub(super) fn add_field(
        &mut self,
        blocking: &Blocking,
        g: &Gradients<'_>,
        field: &Field<'_>,
        positions: [Range<usize>; 3],
        tables: &mut Tables<'_>,
    ) {
        let (desc, taps, lanes) = (self.desc, self.desc.taps(), self.kernels.lanes);
        let (width, own) = (blocking.width(&g.channels, lanes), g.in_sums.start * taps);
        let own = own..own + width.next_multiple_of(lanes) * taps;
        Rows::all(&Reads::all_forward(desc), Direction::Forward, positions).for_each(|rows| {
            let (walk, room, spread) = tables.walk(desc, &rows, None, width, true);
            self.kernels.depthwise_backward_weight(DepthwiseBackwardWeight {
                walk,
                room,
                spread,
                inputs: None,
                grad_output: field.rows(&rows),
                outside: Some(&mut self.sums[own.clone()]),
                bias: None,
            });
        });
    }

    /// Adds the positions of a box of an image that read padding, with columns in the lanes, for some channels.
    pub(super) fn add_strips(
        &mut self,
        data: &[f32],
        image: usize,
        channels: Range<usize>,
        positions: [Range<usize>; 3],
        tables: &mut Tables<'_>,
    ) {
        if positions.iter().any(Range::is_empty) {
            return;
        }
        let (desc, tensor) = (self.desc, self.desc.output_tensor());
        let plane = Plane::new(&tensor, data, image, channels.start);
        let reads = Reads::all_forward(desc);
        Strips::all(&reads, Direction::Forward, positions, self.kernels.lanes).for_each(|strips| {
            let (walk, room, spread) = tables.strips(desc, &strips, None, channels.len(), true);
            self.kernels.depthwise_backward_weight(DepthwiseBackwardWeight {
                walk,
                room,
                spread,
                inputs: None,
                grad_output: plane.own(&strips),
                outside: Some(&mut *self.sums),
                bias: None,
            });
        });
    }

    /// Says that positions have been added to all sums. Returns whether it is time to [`take`](Self::take) them.
    pub(super) fn advance(&mut self, positions: usize) -> bool {
        self.segments.advance(positions)
    }

    /// Visits the sums of the taps that read padding somewhere, with their places, and sets them to zero. `part` of the table
    /// consists of whole vectors.
    pub(super) fn take(&mut self, part: Range<usize>, mut visit: impl FnMut(Range<usize>, &[f32])) {
        if self.sums.is_empty() {
            return;
        }
        let (desc, lanes) = (self.desc, self.kernels.lanes);
        let taps = desc.taps();
        let padded = |tap: &usize| !is_inside(&border::all(desc), &unpadded(desc, *tap));
        let mut next = 0;
        while let Some(start) = (next..taps).find(padded) {
            let end = (start..taps).find(|tap| !padded(tap)).unwrap_or(taps);
            for first in part.clone().step_by(taps * lanes) {
                let own = first + start * lanes..first + end * lanes;
                visit(own.clone(), &self.sums[own]);
            }
            next = end;
        }
        self.sums[part].fill(0.0);
    }
}
