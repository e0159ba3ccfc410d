//! One channel per group: see [`crate::depthwise`].

use super::{ForwardCall, OutputPart};
use crate::depthwise::{by_vector, output_lines, plane_blocks, tabulate};
use crate::desc::ConvDesc;
use crate::geometry::Reads;
use crate::kernel::{CopyBlock, DepthwiseForward, Kernels, Line, Walk};
use crate::layout::Layout;
use crate::stage::{Image, Staging, blocks};
use crate::taps::{Axis, Grid};
use crate::tuning::Tuning;
use crate::workspace::{Buffers, words};

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

    /// One thread's, channels first: weights and thresholds of a channel, its bias, offsets of the taps, a staged plane, and
    /// the result of rows shorter than a vector.
    const fn plane_buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<5> {
        let lanes = kernels.lanes;
        let (coefficients, staged) = (2 * desc.taps() * lanes, self.grid.len() + lanes);
        Buffers::new([coefficients, lanes, desc.taps(), staged, self.result_len(kernels)], lanes)
    }

    /// One thread's, channels last: weights and thresholds of all channels, their bias, offsets of the taps.
    const fn row_buffers(desc: &ConvDesc, kernels: &Kernels) -> Buffers<3> {
        let coefficients = 2 * desc.taps() * desc.in_channels();
        Buffers::new([coefficients, desc.in_channels(), desc.taps()], kernels.lanes)
    }

    pub(super) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels) -> usize {
        match desc.layout() {
            Layout::Nchw => self.plane_buffers(desc, kernels).len(),
            Layout::Nhwc => Self::row_buffers(desc, kernels).len(),
        }
    }

    pub(super) fn run(&self, call: &ForwardCall<'_>, part: OutputPart<'_>) {
        match call.desc.layout() {
            Layout::Nchw => self.planes(call, part),
            Layout::Nhwc => self.rows(call, part),
        }
    }

    fn planes(&self, call: &ForwardCall<'_>, part: OutputPart<'_>) {
        let (desc, kernels) = (call.desc, call.kernels);
        let (taps, lanes) = (desc.taps(), kernels.lanes);
        let OutputPart { mut output, images, panels: channels, space, workspace } = part;
        let ([coefficients, start, offsets, staged, result], _) = self.plane_buffers(desc, kernels).carve(workspace);
        let offsets: &mut [u32] = words(offsets);
        for (tap, offset) in offsets.iter_mut().enumerate() {
            // Fits: `block_size` bounds a staged plane.
            *offset = self.grid.tap(desc.kernel_position(tap)) as u32;
        }
        let staging = Staging { grid: self.grid, lanes: 1, pitch: self.grid.len(), fill: 0.0 };
        let [_, height, width] = desc.output_size();
        for image in images {
            let source = Image::of(&desc.input_tensor(), call.input, image);
            for channel in channels.clone() {
                for (tap, vectors) in coefficients.chunks_exact_mut(2 * lanes).enumerate() {
                    let (weight, theta) = vectors.split_at_mut(lanes);
                    weight.fill(call.weight[channel * taps + tap]);
                    theta.fill(call.thresholds.at(channel, tap));
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

    fn rows(&self, call: &ForwardCall<'_>, part: OutputPart<'_>) {
        let (desc, kernels) = (call.desc, call.kernels);
        let (taps, channels) = (desc.taps(), desc.in_channels());
        let OutputPart { mut output, images, space, workspace, .. } = part;
        let ([coefficients, start, offsets], _) = Self::row_buffers(desc, kernels).carve(workspace);
        let offsets = words(offsets);
        by_vector(kernels, taps, call.weight, coefficients, 2);
        for tap in 0..taps {
            let thetas = &mut *start;
            call.thresholds.copy_channels(0..channels, tap, thetas, 1);
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
            let source = desc.input_tensor().image(call.input, image);
            for (d, hs) in ds.clone().flat_map(|d| axes[1].intervals_in(hs.clone()).map(move |hs| (d, hs.positions))) {
                for ws in axes[2].intervals_in(ws.clone()).map(|ws| ws.positions) {
                    let at = [d, hs.start, ws.start];
                    let read = |axis: usize, k| axes[axis].source_of(at[axis], k);
                    tabulate(desc, desc.input_size(), desc.input_pitch(), read, offsets);
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
