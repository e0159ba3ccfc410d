//! One channel per group: see [`crate::depthwise`]. With channels first, for strides of 1.

use super::{BackwardInputCall, InputGradient, Segment};
use crate::arith::equal;
use crate::depthwise::{self, by_vector, plane_blocks, shorter, tabulate};
use crate::desc::{ConvDesc, volume};
use crate::geometry::{Progressions, Reads, SEGMENT, Segments, Steps};
use crate::kernel::{DepthwiseBackwardInput, Kernels, Line, Walk};
use crate::layout::Layout;
use crate::stage::{Image, Staging, blocks};
use crate::sums::SegmentedSums;
use crate::taps::{Grid, Phase};
use crate::tuning::Tuning;
use crate::workspace::{Buffers, words};

/// Elements of a staged plane: it, the inputs and their gradients stay in the first-level cache.
const PLANE_LEN: usize = 2 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Depthwise {
    block: [usize; 3],
    /// Output gradients of a block's inputs.
    grid: Grid,
}

/// Whether the algorithm can compute a layer.
pub(super) const fn applies(desc: &ConvDesc, kernels: &Kernels) -> bool {
    depthwise::applies(desc, kernels) && (matches!(desc.layout(), Layout::Nhwc) || equal(desc.stride(), [1; 3]))
}

impl Depthwise {
    pub(super) const fn new(desc: &ConvDesc, tuning: &Tuning) -> Self {
        let (block, grid) = plane_blocks(Phase::all_widest(desc), PLANE_LEN, tuning);
        Self { block, grid }
    }

    /// Elements of a block's inputs, gaps between rows included.
    const fn inputs_len(&self, kernels: &Kernels) -> usize {
        // A row more than the last run needs: staging lays out whole rows.
        (self.block[1] * self.grid.extent[2]).next_multiple_of(kernels.lanes) + kernels.lanes
    }

    /// One thread's, channels first: weights and thresholds of a channel, offsets of the taps, staged output gradients, and
    /// the inputs and their gradients of rows shorter than a vector.
    const fn plane_buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<5> {
        let (lanes, inputs) = (kernels.lanes, self.inputs_len(kernels));
        let (coefficients, staged) = (2 * desc.taps() * lanes, self.grid.len() + lanes);
        Buffers::new([coefficients, desc.taps(), staged, inputs, inputs], lanes)
    }

    /// One thread's, channels last: weights and thresholds of all channels, sums of a segment by vectors, offsets of the taps.
    const fn row_buffers(desc: &ConvDesc, kernels: &Kernels) -> Buffers<3> {
        let coefficients = desc.taps() * desc.in_channels();
        Buffers::new([2 * coefficients, coefficients, desc.taps()], kernels.lanes)
    }

    pub(super) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels) -> usize {
        match desc.layout() {
            Layout::Nchw => self.plane_buffers(desc, kernels).len(),
            Layout::Nhwc => Self::row_buffers(desc, kernels).len(),
        }
    }

    pub(super) fn run(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut InputGradient<'_>,
        sums: &mut SegmentedSums<'_>,
        workspace: &mut [f32],
    ) {
        match call.desc.layout() {
            Layout::Nchw => self.planes(call, segment, grad_input, sums, workspace),
            Layout::Nhwc => self.rows(call, segment, grad_input, sums, workspace),
        }
    }

    fn planes(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut InputGradient<'_>,
        sums: &mut SegmentedSums<'_>,
        workspace: &mut [f32],
    ) {
        let (desc, kernels) = (call.desc, call.kernels);
        let (taps, lanes) = (desc.taps(), kernels.lanes);
        let ([coefficients, offsets, staged, input, result], _) = self.plane_buffers(desc, kernels).carve(workspace);
        let offsets: &mut [u32] = words(offsets);

        let phases = [0, 1, 2].map(|axis| Phase::new(desc, axis, 0));
        let [Some(depth), Some(height), Some(width)] = phases.map(|phase| phase.gather) else {
            unreachable!("with a stride of 1 every tap reaches the only phase");
        };
        let grid = Grid::new([depth, height, width], self.block);
        let [_, kh, kw] = desc.kernel();
        for (d, h, w) in
            (0..depth.taps).flat_map(|d| (0..height.taps).flat_map(move |h| (0..width.taps).map(move |w| (d, h, w))))
        {
            let k = (phases[0].kernel(d) * kh + phases[1].kernel(h)) * kw + phases[2].kernel(w);
            // Fits: `block_size` bounds a staged plane.
            offsets[k] = grid.tap([d, h, w]) as u32;
        }
        let staging = Staging { grid, lanes: 1, pitch: grid.len(), fill: 0.0 };
        let row = grid.extent[2];
        let [_, rows, columns] = desc.input_size();
        let plane = volume(desc.input_size());
        // Long planes end segments of their own, short ones share them.
        let long = plane >= SEGMENT;
        for image in segment.images.clone() {
            let grad_output = Image::of(&desc.output_tensor(), call.grad_output, image);
            let inputs = call.input.map(|input| Image::of(&desc.input_tensor(), input, image));
            for (index, channel) in segment.panels.clone().enumerate() {
                let weights = segment.packing.panel(desc, call.weight, channel);
                for (tap, vectors) in coefficients.chunks_exact_mut(2 * lanes).enumerate() {
                    let (weight, theta) = vectors.split_at_mut(lanes);
                    weight.fill(weights[tap]);
                    theta.fill(segment.thresholds[index * taps + tap]);
                }
                let own_sums = index * taps * lanes..(index + 1) * taps * lanes;
                let mut segments = Segments::default();
                for block in blocks(desc.input_size().map(|size| 0..size), self.block) {
                    staging.copy(kernels, grad_output, channel..channel + 1, block, staged);
                    let [d, h, w] = block.start;
                    let first = (d * rows + h) * columns + w;
                    let end = first + (block.size[1] - 1) * columns + block.size[2];
                    let to = grad_input.view.as_mut().map(|view| view.run_mut(image, channel, first..end));
                    let add = grad_input.add;
                    let own = &mut sums.current[own_sums.clone()];
                    let mut run = |walk, input: Option<&[f32]>, grad_input: Option<&mut [f32]>, add| {
                        let (source, coefficients, sums) = (&*staged, &*coefficients, &mut *own);
                        let call = DepthwiseBackwardInput { walk, source, coefficients, input, grad_input, add, sums };
                        kernels.depthwise_backward_input(call);
                    };
                    if block.size[2] >= lanes {
                        let lines = Line { count: block.size[1], source_step: row, own_step: columns };
                        let input = inputs.map(|inputs| &inputs.data[channel * plane..][first..end]);
                        run(Walk::of_positions(offsets, lines, block.size[2], lanes), input, to, add);
                    } else {
                        // Rows shorter than a vector, and the gaps between them, are one. What is no input compares as
                        // neither.
                        let len = ((block.size[1] - 1) * row + block.size[2]).next_multiple_of(lanes);
                        let lines = Line { count: 1, source_step: 0, own_step: 0 };
                        let axes = phases.map(|phase| phase.inputs());
                        let as_result = Grid { axes, extent: [1, block.size[1], row] };
                        if let Some(inputs) = inputs {
                            input[..len].fill(f32::NAN);
                            Staging { grid: as_result, lanes: 1, pitch: 0, fill: f32::NAN }.copy(
                                kernels,
                                inputs,
                                channel..channel + 1,
                                block,
                                input,
                            );
                        }
                        let own_input = inputs.map(|_| &*input);
                        run(Walk::of_positions(offsets, lines, len, lanes), own_input, Some(&mut *result), false);
                        let rows = to.into_iter().flat_map(|to| to.chunks_mut(columns));
                        for (result, to) in result.chunks(row).zip(rows).take(block.size[1]) {
                            for (to, result) in to.iter_mut().zip(&result[..block.size[2]]) {
                                *to = if add { *to + result } else { *result };
                            }
                        }
                    }
                    if segments.advance(block.len()) || long && end == plane {
                        sums.end_segment(own_sums.clone());
                    }
                }
            }
            if !long {
                sums.advance(plane);
            }
        }
    }

    fn rows(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut InputGradient<'_>,
        sums: &mut SegmentedSums<'_>,
        workspace: &mut [f32],
    ) {
        let (desc, kernels) = (call.desc, call.kernels);
        let (taps, channels) = (desc.taps(), desc.in_channels());
        let lanes = kernels.lanes;
        let ([coefficients, partial, offsets], _) = Self::row_buffers(desc, kernels).carve(workspace);
        let offsets = words(offsets);
        by_vector(kernels, taps, call.weight, coefficients, 2);
        by_vector(kernels, taps, segment.thresholds, &mut coefficients[lanes..], 2);
        partial.fill(0.0);
        let [depth, height, width] = desc.input_size();
        let axes = Reads::all_forward(desc);
        let (own, source) = (desc.input_tensor(), desc.output_tensor());
        let [[_, own_row, own_pixel], [_, source_row, source_pixel]] = [own, source].map(|t| t.strides.spatial);
        let mut segments = Segments::default();
        for image in segment.images.clone() {
            let grad_output = source.image(call.grad_output, image);
            let input = call.input.map(|input| own.image(input, image));
            let most_rows = (SEGMENT / width).max(1);
            for (d, hs) in (0..depth).flat_map(|d| parts(&axes[1], most_rows).map(move |hs| (d, hs))) {
                for ws in parts(&axes[2], SEGMENT) {
                    let at = [d, hs.first, ws.first];
                    let read = |axis: usize, k| axes[axis].position_of(at[axis], k);
                    tabulate(desc, desc.output_size(), desc.output_pitch(), read, offsets);
                    let line = |inputs: Steps, [source_step, own]: [usize; 2]| Line {
                        count: inputs.count,
                        source_step,
                        own_step: own.saturating_mul(inputs.step),
                    };
                    let rows = line(hs, [source_row, own_row]);
                    let columns = line(ws, [source_pixel, own_pixel]);
                    let first = (d * height + hs.first) * width + ws.first;
                    let end = first + (hs.count - 1) * hs.step * width + (ws.count - 1) * ws.step + 1;
                    kernels.depthwise_backward_input(DepthwiseBackwardInput {
                        walk: Walk::of_channels(offsets, rows, columns, channels / lanes),
                        source: grad_output,
                        coefficients,
                        input: input.map(|input| &input[first * own_pixel..]),
                        grad_input: grad_input.view.as_mut().map(|view| view.pixels_mut(image, first..end)),
                        add: grad_input.add,
                        sums: partial,
                    });
                    if segments.advance(hs.count * ws.count) {
                        add_partial(partial, sums, taps, lanes);
                        sums.end_segment(0..sums.current.len());
                    }
                }
            }
        }
        add_partial(partial, sums, taps, lanes);
    }
}

/// Inputs of an axis that are read through the same taps, at most so many of them together.
fn parts(axis: &Reads, most: usize) -> impl Iterator<Item = Steps> {
    Progressions::new(axis).flat_map(move |progression| shorter(progression.inputs, most))
}

/// Adds sums by vectors, `[vector][tap][lane]`, to those by channel and tap, and zeroes them.
fn add_partial(partial: &mut [f32], sums: &mut SegmentedSums<'_>, taps: usize, lanes: usize) {
    for (sums, partial) in sums.current.chunks_exact_mut(taps * lanes).zip(partial.chunks_exact_mut(taps * lanes)) {
        for (tap, partial) in partial.chunks_exact_mut(lanes).enumerate() {
            for (sum, partial) in sums[tap..].iter_mut().step_by(taps).zip(partial) {
                *sum += core::mem::take(partial);
            }
        }
    }
}
