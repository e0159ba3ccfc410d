//! One channel per group: see [`crate::depthwise`].

use super::{ForwardCall, Part};
use crate::blocking::Tuning;
use crate::depthwise::{by_vector, output_lines, plane_blocks, tabulate};
use crate::desc::ConvDesc;
use crate::geometry::Reads;
use crate::kernel::{CopyBlock, DepthwiseForward, Kernels, Line, Walk};
use crate::layout::Layout;
use crate::stage::{Image, Staging, blocks};
use crate::taps::{Axis, Grid};
use crate::workspace::{Arena, total};

/// Elements of a staged plane: it and the result stay in the first-level cache.
const PLANE_LEN: usize = 4 * 1024;

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

    /// Elements of a block's result, gaps between rows included.
    const fn result_len(&self, kernels: &Kernels) -> usize {
        ((self.block[1] - 1) * self.grid.extent[2] + self.block[2]).next_multiple_of(kernels.lanes)
    }

    pub(super) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels) -> usize {
        match desc.layout() {
            Layout::Nchw => {
                let staged = self.grid.len() + kernels.lanes;
                let coefficients = 2 * desc.taps() * kernels.lanes;
                total([coefficients, kernels.lanes, desc.taps(), staged, self.result_len(kernels)], kernels.lanes)
            }
            Layout::Nhwc => {
                let coefficients = 2 * desc.taps() * desc.in_channels();
                total([coefficients, desc.in_channels(), desc.taps()], kernels.lanes)
            }
        }
    }

    pub(super) fn run(&self, call: &ForwardCall<'_>, part: Part<'_>) {
        match call.desc.layout() {
            Layout::Nchw => self.planes(call, part),
            Layout::Nhwc => self.rows(call, part),
        }
    }

    fn planes(&self, call: &ForwardCall<'_>, part: Part<'_>) {
        let (desc, kernels) = (call.desc, call.kernels);
        let (taps, lanes) = (desc.taps(), kernels.lanes);
        let Part { mut output, images, panels: channels, space, workspace } = part;
        let mut arena = Arena::new(workspace, kernels.lanes);
        let coefficients = arena.take(2 * taps * lanes);
        let start = arena.take(lanes);
        let offsets = arena.take_offsets(taps);
        let staged = arena.take(self.grid.len() + lanes);
        let result = arena.take(self.result_len(kernels));
        for (tap, offset) in offsets.iter_mut().enumerate() {
            // Fits: `block_size` bounds a staged plane.
            *offset = self.grid.tap(desc.kernel_position(tap)) as u32;
        }
        let staging = Staging { grid: self.grid, lanes: 1, pitch: self.grid.len(), fill: 0.0 };
        let [_, height, width] = desc.output_size();
        for image in images {
            let data = &call.input[image * desc.input_image_len()..][..desc.input_image_len()];
            let source = Image { data, strides: desc.input_strides() };
            for channel in channels.clone() {
                for (tap, vectors) in coefficients.chunks_exact_mut(2 * lanes).enumerate() {
                    let (weight, theta) = vectors.split_at_mut(lanes);
                    weight.fill(call.weight[channel * taps + tap]);
                    theta.fill(call.thresholds.at(desc, channel, desc.kernel_position(tap)));
                }
                start.fill(call.bias.map_or(0.0, |bias| bias[channel]));
                for block in blocks(space.clone(), self.block) {
                    staging.copy(kernels, source, channel..channel + 1, block, staged);
                    let [d, h, w] = block.start;
                    let first = (d * height + h) * width + w;
                    let end = first + (block.size[1] - 1) * width + block.size[2];
                    let (row, output) = (self.grid.extent[2], output.run_mut(image, channel, first..end));
                    let run = |walk, output: &mut [f32]| {
                        let (source, coefficients, start) = (&*staged, &*coefficients, &*start);
                        kernels.depthwise_forward(DepthwiseForward { walk, source, coefficients, start, output });
                    };
                    if block.size[2] >= lanes {
                        let rows = Line { count: block.size[1], source_step: row, own_step: width };
                        run(Walk::of_positions(offsets, rows, block.size[2], lanes), output);
                        continue;
                    }
                    // Rows shorter than a vector, and the gaps between them, are one.
                    let rows = Line { count: 1, source_step: 0, own_step: 0 };
                    let len = ((block.size[1] - 1) * row + block.size[2]).next_multiple_of(lanes);
                    run(Walk::of_positions(offsets, rows, len, lanes), result);
                    kernels.copy(CopyBlock {
                        from: result,
                        from_plane: 0,
                        from_row: row,
                        step: 1,
                        to: output,
                        to_plane: 0,
                        to_row: width,
                        planes: 1,
                        rows: block.size[1],
                        len: block.size[2],
                    });
                }
            }
        }
    }

    fn rows(&self, call: &ForwardCall<'_>, part: Part<'_>) {
        let (desc, kernels) = (call.desc, call.kernels);
        let (taps, channels) = (desc.taps(), desc.in_channels());
        let Part { mut output, images, space, workspace, .. } = part;
        let mut arena = Arena::new(workspace, kernels.lanes);
        let coefficients = arena.take(2 * taps * channels);
        let start = arena.take(channels);
        let offsets = arena.take_offsets(taps);
        by_vector(kernels, taps, call.weight, coefficients, 2);
        for tap in 0..taps {
            let thetas = &mut *start;
            call.thresholds.copy_tap(desc, tap, thetas);
            let own = coefficients.chunks_exact_mut(kernels.lanes).skip(2 * tap + 1).step_by(2 * taps);
            for (to, thetas) in own.zip(thetas.chunks_exact(kernels.lanes)) {
                to.copy_from_slice(thetas);
            }
        }
        match call.bias {
            Some(bias) => start.copy_from_slice(&bias[..channels]),
            None => start.fill(0.0),
        }
        let [_, height, width] = desc.output_size();
        let axes = Reads::all_forward(desc);
        let [ds, hs, ws] = space;
        for image in images {
            let source = &call.input[image * desc.input_image_len()..][..desc.input_image_len()];
            for (d, hs) in ds.clone().flat_map(|d| axes[1].intervals_in(hs.clone()).map(move |hs| (d, hs.positions))) {
                for ws in axes[2].intervals_in(ws.clone()).map(|ws| ws.positions) {
                    let at = [d, hs.start, ws.start];
                    tabulate(desc, desc.input_size(), |axis, k| axes[axis].source_of(at[axis], k), offsets);
                    let [rows, columns] = output_lines(desc, hs.len(), ws.len());
                    let first = (d * height + hs.start) * width + ws.start;
                    let end = first + (hs.len() - 1) * width + ws.len();
                    kernels.depthwise_forward(DepthwiseForward {
                        walk: Walk::of_channels(offsets, rows, columns, channels / kernels.lanes),
                        source,
                        coefficients,
                        start,
                        output: output.pixels_mut(image, first..end),
                    });
                }
            }
        }
    }
}
