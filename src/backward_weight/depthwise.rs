//! One channel per group: see [`crate::depthwise`].

use core::ops::Range;

use super::BackwardWeightCall;
use crate::border;
use crate::depthwise::{output_lines, plane_blocks, tabulate};
use crate::desc::{ConvDesc, volume};
use crate::geometry::{Reads, SEGMENT, Segments, chunks};
use crate::kernel::{DepthwiseBackwardWeight, Kernels, Line, Walk};
use crate::layout::Layout;
use crate::stage::{Image, Staging, blocks};
use crate::sums::SegmentedSums;
use crate::taps::{Axis, Grid};
use crate::tuning::Tuning;
use crate::workspace::{Buffers, words};

/// Elements of a staged plane: it and the output gradients stay in the first-level cache.
const PLANE_LEN: usize = 4 * 1024;

/// Elements of a stretch of positions with channels last: they and what their taps read stay in the first-level cache.
const STRETCH_LEN: usize = 2048;

#[derive(Clone, Copy, Debug)]
pub(super) struct Depthwise {
    block: [usize; 3],
    grid: Grid,
}

impl Depthwise {
    pub(super) const fn new(desc: &ConvDesc, tuning: &Tuning) -> Self {
        let (block, grid) = plane_blocks(Axis::all_forward(desc), PLANE_LEN, tuning);
        Self { block, grid }
    }

    /// One thread's, channels first: offsets of the taps, thresholds and sums of a channel, a staged plane, and the output
    /// gradients of rows shorter than a vector.
    const fn plane_buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<5> {
        let (taps, lanes) = (desc.taps(), kernels.lanes);
        let grad_output = self.block[1] * self.block[2].next_multiple_of(lanes);
        Buffers::new([taps, taps * lanes, taps * lanes, self.grid.len() + lanes, grad_output], lanes)
    }

    /// One thread's, channels last: offsets of the taps, thresholds of its `channels`, their sums of the current segment of
    /// positions and of those before, and sums over padded positions.
    const fn row_buffers(desc: &ConvDesc, kernels: &Kernels, channels: usize) -> Buffers<5> {
        let sums = desc.taps() * channels;
        let before = SegmentedSums::before_len(sums, desc.batch().saturating_mul(volume(desc.output_size())));
        Buffers::new([desc.taps(), sums, sums, before, channels], kernels.lanes)
    }

    pub(super) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels, channels: usize) -> usize {
        match desc.layout() {
            Layout::Nchw => self.plane_buffers(desc, kernels).len(),
            Layout::Nhwc => Self::row_buffers(desc, kernels, channels).len(),
        }
    }

    /// Adds the gradients of the weights of some channels, `[channel][tap]`.
    pub(super) fn run(
        &self,
        call: &BackwardWeightCall<'_>,
        channels: Range<usize>,
        grad_weight: &mut [f32],
        workspace: &mut [f32],
    ) {
        match call.desc.layout() {
            Layout::Nchw => self.planes(call, channels, grad_weight, workspace),
            Layout::Nhwc => self.rows(call, channels, grad_weight, workspace),
        }
    }

    fn planes(
        &self,
        call: &BackwardWeightCall<'_>,
        channels: Range<usize>,
        grad_weight: &mut [f32],
        workspace: &mut [f32],
    ) {
        let (desc, kernels) = (call.desc, call.kernels);
        let (taps, lanes) = (desc.taps(), kernels.lanes);
        let ([offsets, thresholds, sums, staged, grad_output], _) = self.plane_buffers(desc, kernels).carve(workspace);
        let offsets: &mut [u32] = words(offsets);
        for (tap, offset) in offsets.iter_mut().enumerate() {
            // Fits: `block_size` bounds a staged plane.
            *offset = self.grid.tap(desc.kernel_position(tap)) as u32;
        }
        let staging = Staging { grid: self.grid, lanes: 1, pitch: self.grid.len(), fill: 0.0 };
        let identity = desc.output_size().map(|size| Axis::identity(size, size, 0, 1));
        let [_, height, width] = desc.output_size();
        for (channel, grad_weight) in channels.zip(grad_weight.chunks_exact_mut(taps)) {
            for (tap, theta) in thresholds.chunks_exact_mut(lanes).enumerate() {
                theta.fill(call.thresholds.at(channel, tap));
            }
            sums.fill(0.0);
            let mut segments = Segments::default();
            for image in 0..desc.batch() {
                let input = Image::of(&desc.input_tensor(), call.input, image);
                let output = Image::of(&desc.output_tensor(), call.grad_output, image);
                for block in blocks(desc.output_size().map(|size| 0..size), self.block) {
                    staging.copy(kernels, input, channel..channel + 1, block, staged);
                    let [d, h, w] = block.start;
                    let first = (d * height + h) * width + w;
                    let mut rows = Line { count: block.size[1], source_step: self.grid.extent[2], own_step: width };
                    let mut own = &output.data[channel * volume(desc.output_size())..][first..];
                    if block.size[2] < lanes {
                        // A vector would go beyond the end of a row shorter than it.
                        rows.own_step = lanes;
                        let grid = Grid { axes: identity, extent: [1, block.size[1], lanes] };
                        Staging { grid, lanes: 1, pitch: 0, fill: 0.0 }.copy(
                            kernels,
                            output,
                            channel..channel + 1,
                            block,
                            grad_output,
                        );
                        own = grad_output;
                    }
                    kernels.depthwise_backward_weight(DepthwiseBackwardWeight {
                        walk: Walk::of_positions(offsets, rows, block.size[2], lanes),
                        source: staged,
                        thresholds,
                        stretch: None,
                        grad_output: own,
                        sums,
                    });
                    if segments.advance(block.len()) {
                        add_lanes(sums, lanes, grad_weight);
                    }
                }
            }
            add_lanes(sums, lanes, grad_weight);
        }
    }

    fn rows(
        &self,
        call: &BackwardWeightCall<'_>,
        channels: Range<usize>,
        grad_weight: &mut [f32],
        workspace: &mut [f32],
    ) {
        let (desc, kernels) = (call.desc, call.kernels);
        let (taps, width, lanes) = (desc.taps(), channels.len(), kernels.lanes);
        let ([offsets, thresholds, sums, before, border], _) = Self::row_buffers(desc, kernels, width).carve(workspace);
        let offsets = words(offsets);
        for (index, thetas) in thresholds.chunks_exact_mut(lanes).enumerate() {
            let first = channels.start + index / taps * lanes;
            call.thresholds.copy_channels(first..first + lanes, index % taps, thetas, 1);
        }
        let mut segmented = SegmentedSums::new(sums, before);
        let stretch = (desc.in_channels() > lanes).then(|| (STRETCH_LEN / desc.in_channels()).max(4));
        let [depth, height, columns] = desc.output_size();
        let axes = Reads::all_forward(desc);
        let (input_tensor, output_tensor) = (desc.input_tensor(), desc.output_tensor());
        for image in 0..desc.batch() {
            let input = input_tensor.image(call.input, image);
            let grad_output = output_tensor.image(call.grad_output, image);
            let most_rows = (SEGMENT / columns).max(1);
            for (d, hs) in (0..depth).flat_map(|d| axes[1].intervals().map(move |hs| (d, hs.positions))) {
                for (hs, ws) in
                    chunks(hs.range(), most_rows).flat_map(|hs| parts_of_rows(&axes[2]).map(move |ws| (hs.clone(), ws)))
                {
                    let at = [d, hs.start, ws.start];
                    let read = |axis: usize, k| axes[axis].source_of(at[axis], k);
                    tabulate(desc, desc.input_size(), desc.input_pitch(), read, offsets);
                    let first = (d * height + hs.start) * columns + ws.start;
                    let [rows, columns] = output_lines(desc, hs.len(), ws.len());
                    kernels.depthwise_backward_weight(DepthwiseBackwardWeight {
                        walk: Walk::of_channels(offsets, rows, columns, width / lanes),
                        source: &input[channels.start..],
                        thresholds,
                        stretch,
                        grad_output: &grad_output[first * desc.output_pitch() + channels.start..],
                        sums: segmented.current,
                    });
                    segmented.advance(hs.len() * ws.len());
                }
            }
        }
        segmented.finish();
        for tap in 0..taps {
            let unpadded = border::unpadded(desc, tap);
            // Padding is zero before it is clamped.
            let padded = !border::is_inside(desc, &unpadded);
            border.fill(0.0);
            if padded {
                border::sum_outside(desc, call.grad_output, &unpadded, channels.clone(), border);
            }
            let gradients = grad_weight[tap..].iter_mut().step_by(taps);
            for (index, (gradient, outside)) in gradients.zip(&*border).enumerate() {
                let at = (index / lanes * taps + tap) * lanes + index % lanes;
                let theta = thresholds[at];
                *gradient += sums[at];
                if padded && theta > 0.0 {
                    *gradient += theta * outside;
                }
            }
        }
    }
}

/// Outputs of a row that read through the same taps, no more of them than a segment has.
fn parts_of_rows(axis: &Reads) -> impl Iterator<Item = Range<usize>> {
    axis.intervals().flat_map(|ws| chunks(ws.positions.range(), SEGMENT))
}

/// Adds sums by lanes, `[tap][lane]`, to the gradients of a channel's taps, and zeroes them.
fn add_lanes(sums: &mut [f32], lanes: usize, grad_weight: &mut [f32]) {
    for (gradient, sums) in grad_weight.iter_mut().zip(sums.chunks_exact_mut(lanes)) {
        *gradient += sums.iter().sum::<f32>();
        sums.fill(0.0);
    }
}
