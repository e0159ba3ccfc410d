//! One channel per group: see [`crate::depthwise`].

use core::ops::Range;

use super::BackwardWeightCall;
use crate::blocking::Tuning;
use crate::border;
use crate::depthwise::{output_lines, plane_blocks, tabulate};
use crate::desc::{ConvDesc, volume};
use crate::geometry::Reads;
use crate::kernel::{DepthwiseBackwardWeight, Kernels, Line, Walk};
use crate::layout::Layout;
use crate::stage::{Image, Staging, blocks};
use crate::taps::{Axis, Grid};
use crate::workspace::{Arena, total};

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

    pub(super) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels, channels: usize) -> usize {
        let taps = desc.taps();
        match desc.layout() {
            Layout::Nchw => {
                let grad_output = self.block[1] * self.block[2].next_multiple_of(kernels.lanes);
                total(
                    [taps, taps * kernels.lanes, taps * kernels.lanes, self.grid.len() + kernels.lanes, grad_output],
                    kernels.lanes,
                )
            }
            Layout::Nhwc => total([taps, taps * channels, taps * channels, desc.out_channels()], kernels.lanes),
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
        let mut arena = Arena::new(workspace, kernels.lanes);
        let offsets = arena.take_offsets(taps);
        let thresholds = arena.take(taps * lanes);
        let sums = arena.take(taps * lanes);
        let staged = arena.take(self.grid.len() + lanes);
        let grad_output = arena.take(self.block[1] * self.block[2].next_multiple_of(lanes));
        for (tap, offset) in offsets.iter_mut().enumerate() {
            // Fits: `block_size` bounds a staged plane.
            *offset = self.grid.tap(desc.kernel_position(tap)) as u32;
        }
        let staging = Staging { grid: self.grid, lanes: 1, pitch: self.grid.len(), fill: 0.0 };
        let identity = desc.output_size().map(|size| Axis::identity(size, size, 0, 1));
        let [_, height, width] = desc.output_size();
        for (channel, grad_weight) in channels.zip(grad_weight.chunks_exact_mut(taps)) {
            for (tap, theta) in thresholds.chunks_exact_mut(lanes).enumerate() {
                theta.fill(call.thresholds.at(desc, channel, desc.kernel_position(tap)));
            }
            sums.fill(0.0);
            for image in 0..desc.batch() {
                let input = &call.input[image * desc.input_image_len()..][..desc.input_image_len()];
                let input = Image { data: input, strides: desc.input_strides() };
                let data = &call.grad_output[image * desc.output_image_len()..][..desc.output_image_len()];
                let output = Image { data, strides: desc.output_strides() };
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
                }
            }
            for (gradient, sums) in grad_weight.iter_mut().zip(sums.chunks_exact(lanes)) {
                *gradient += sums.iter().sum::<f32>();
            }
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
        let mut arena = Arena::new(workspace, kernels.lanes);
        let offsets = arena.take_offsets(taps);
        let thresholds = arena.take(taps * width);
        let sums = arena.take(taps * width);
        let border = arena.take(desc.out_channels());
        for (index, thetas) in thresholds.chunks_exact_mut(lanes).enumerate() {
            let (first, k) = (channels.start + index / taps * lanes, desc.kernel_position(index % taps));
            for (lane, theta) in thetas.iter_mut().enumerate() {
                *theta = call.thresholds.at(desc, first + lane, k);
            }
        }
        sums.fill(0.0);
        let stretch = (desc.in_channels() > lanes).then(|| (STRETCH_LEN / desc.in_channels()).max(4));
        let [depth, height, columns] = desc.output_size();
        let axes = Reads::all_forward(desc);
        for image in 0..desc.batch() {
            let input = &call.input[image * desc.input_image_len()..][..desc.input_image_len()];
            let grad_output = &call.grad_output[image * desc.output_image_len()..][..desc.output_image_len()];
            for (d, hs) in (0..depth).flat_map(|d| axes[1].intervals().map(move |hs| (d, hs.positions))) {
                for ws in axes[2].intervals().map(|ws| ws.positions) {
                    let at = [d, hs.start, ws.start];
                    tabulate(desc, desc.input_size(), |axis, k| axes[axis].source_of(at[axis], k), offsets);
                    let first = (d * height + hs.start) * columns + ws.start;
                    let [rows, columns] = output_lines(desc, hs.len(), ws.len());
                    kernels.depthwise_backward_weight(DepthwiseBackwardWeight {
                        walk: Walk::of_channels(offsets, rows, columns, width / lanes),
                        source: &input[channels.start..],
                        thresholds,
                        stretch,
                        grad_output: &grad_output[first * desc.out_channels() + channels.start..],
                        sums,
                    });
                }
            }
        }
        for tap in 0..taps {
            // Padding is zero before it is clamped.
            border.fill(0.0);
            border::sum_outside(desc, call.grad_output, &border::unpadded(desc, tap), border);
            let gradients = grad_weight[tap..].iter_mut().step_by(taps);
            for (index, (gradient, outside)) in gradients.zip(&border[channels.clone()]).enumerate() {
                let at = (index / lanes * taps + tap) * lanes + index % lanes;
                let theta = thresholds[at];
                let padded = if theta > 0.0 && *outside != 0.0 { theta * outside } else { 0.0 };
                *gradient += sums[at] + padded;
            }
        }
    }
}
