//! One channel per group: see [`crate::depthwise`]. With channels first, for strides of 1.

use super::{BackwardInputCall, Segment, image_of};
use crate::arith::equal;
use crate::blocking::Tuning;
use crate::depthwise::{self, Stretch, by_vector, output_of, plane_blocks, stretches, tabulate};
use crate::desc::{ConvDesc, volume};
use crate::kernel::{DepthwiseBackwardInput, Kernels, Line, View, Walk};
use crate::layout::Layout;
use crate::plan::Accumulation;
use crate::stage::{Image, Staging, blocks};
use crate::taps::{Grid, Phase};
use crate::workspace::{Arena, total};

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

    pub(super) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels) -> usize {
        match desc.layout() {
            Layout::Nchw => {
                let inputs = self.inputs_len(kernels);
                let coefficients = 2 * desc.taps() * kernels.lanes;
                total([coefficients, desc.taps(), self.grid.len() + kernels.lanes, inputs, inputs], kernels.lanes)
            }
            Layout::Nhwc => {
                let coefficients = desc.taps() * desc.in_channels();
                total([2 * coefficients, coefficients, desc.taps()], kernels.lanes)
            }
        }
    }

    pub(super) fn run(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut View<'_>,
        sums: &mut [f32],
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
        grad_input: &mut View<'_>,
        sums: &mut [f32],
        workspace: &mut [f32],
    ) {
        let (desc, kernels) = (call.desc, call.kernels);
        let (taps, lanes) = (desc.taps(), kernels.lanes);
        let mut arena = Arena::new(workspace, kernels.lanes);
        let coefficients = arena.take(2 * taps * lanes);
        let offsets = arena.take_offsets(taps);
        let staged = arena.take(self.grid.len() + lanes);
        let input = arena.take(self.inputs_len(kernels));
        let result = arena.take(self.inputs_len(kernels));

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
        for image in segment.images.clone() {
            let of = |data, strides| Image { data, strides };
            let grad_output = of(image_of(call.grad_output, desc.output_image_len(), image), desc.output_strides());
            let inputs = of(image_of(call.input, desc.input_image_len(), image), desc.input_strides());
            for (index, channel) in segment.panels.clone().enumerate() {
                for (tap, vectors) in coefficients.chunks_exact_mut(2 * lanes).enumerate() {
                    let (weight, theta) = vectors.split_at_mut(lanes);
                    weight.fill(call.weight[channel * taps + tap]);
                    theta.fill(segment.thresholds[index * taps + tap]);
                }
                for block in blocks(desc.input_size().map(|size| 0..size), self.block) {
                    staging.copy(kernels, grad_output, channel..channel + 1, block, staged);
                    let [d, h, w] = block.start;
                    let first = (d * rows + h) * columns + w;
                    let end = first + (block.size[1] - 1) * columns + block.size[2];
                    let grad_input = grad_input.run_mut(image, channel, first..end);
                    let add = call.accumulation == Accumulation::Add;
                    let sums = &mut sums[index * taps * lanes..][..taps * lanes];
                    let mut run = |walk, input: &[f32], grad_input: &mut [f32], add| {
                        let (source, coefficients, sums) = (&*staged, &*coefficients, &mut *sums);
                        let (input, grad_input) = (Some(input), Some(grad_input));
                        let call = DepthwiseBackwardInput { walk, source, coefficients, input, grad_input, add, sums };
                        kernels.depthwise_backward_input(call);
                    };
                    if block.size[2] >= lanes {
                        let lines = Line { count: block.size[1], source_step: row, own_step: columns };
                        let input = &inputs.data[channel * plane..][first..end];
                        run(Walk::of_positions(offsets, lines, block.size[2], lanes), input, grad_input, add);
                        continue;
                    }
                    // Rows shorter than a vector, and the gaps between them, are one. What is no input compares as neither.
                    let len = ((block.size[1] - 1) * row + block.size[2]).next_multiple_of(lanes);
                    let axes = phases.map(|phase| phase.inputs());
                    let as_result = Grid { axes, extent: [1, block.size[1], row] };
                    input[..len].fill(f32::NAN);
                    Staging { grid: as_result, lanes: 1, pitch: 0, fill: f32::NAN }.copy(
                        kernels,
                        inputs,
                        channel..channel + 1,
                        block,
                        input,
                    );
                    let lines = Line { count: 1, source_step: 0, own_step: 0 };
                    run(Walk::of_positions(offsets, lines, len, lanes), input, result, false);
                    for (result, to) in result.chunks(row).zip(grad_input.chunks_mut(columns)).take(block.size[1]) {
                        for (to, result) in to.iter_mut().zip(&result[..block.size[2]]) {
                            *to = if add { *to + result } else { *result };
                        }
                    }
                }
            }
        }
    }

    fn rows(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut View<'_>,
        sums: &mut [f32],
        workspace: &mut [f32],
    ) {
        let (desc, kernels) = (call.desc, call.kernels);
        let (taps, channels) = (desc.taps(), desc.in_channels());
        let mut arena = Arena::new(workspace, kernels.lanes);
        let lanes = kernels.lanes;
        let coefficients = arena.take(2 * taps * channels);
        let partial = arena.take(taps * channels);
        let offsets = arena.take_offsets(taps);
        by_vector(kernels, taps, call.weight, coefficients, 2);
        by_vector(kernels, taps, segment.thresholds, &mut coefficients[lanes..], 2);
        partial.fill(0.0);
        let [depth, height, width] = desc.input_size();
        let [_, stride_h, stride_w] = desc.stride();
        // The taps that any input of a residue has, are had by those that all of them reach inside.
        let complete = |axis: usize, residue: usize| {
            let (stride, padding) = (desc.stride()[axis], desc.padding_before()[axis]);
            let in_phase =
                move |k: &usize| (residue + padding) % stride == k.saturating_mul(desc.dilation()[axis]) % stride;
            let taps = || (0..desc.kernel()[axis]).filter(in_phase);
            let [first, last] = [taps().next(), taps().next_back()];
            move |i| [first, last].into_iter().flatten().all(|k| output_of(desc, axis, i, k).is_some())
        };
        for image in segment.images.clone() {
            let grad_output = image_of(call.grad_output, desc.output_image_len(), image);
            let input = image_of(call.input, desc.input_image_len(), image);
            for (d, h) in (0..depth).flat_map(|d| (0..stride_h.min(height)).map(move |h| (d, h))) {
                for hs in stretches(h..height, stride_h, complete(1, h)) {
                    for w in 0..stride_w.min(width) {
                        for ws in stretches(w..width, stride_w, complete(2, w)) {
                            let at = [d, hs.first, ws.first];
                            tabulate(desc, desc.output_size(), |axis, k| output_of(desc, axis, at[axis], k), offsets);
                            let line = |stretch: &Stretch, size: [usize; 2]| {
                                let [source_step, own] = size.map(|size| size * channels);
                                Line { count: stretch.count, source_step, own_step: own.saturating_mul(stretch.step) }
                            };
                            let rows = line(&hs, [desc.output_size()[2], width]);
                            let columns = line(&ws, [1, 1]);
                            let first = (d * height + hs.first) * width + ws.first;
                            let end = first + (hs.count - 1) * hs.step * width + (ws.count - 1) * ws.step + 1;
                            kernels.depthwise_backward_input(DepthwiseBackwardInput {
                                walk: Walk::of_channels(offsets, rows, columns, channels / lanes),
                                source: grad_output,
                                coefficients,
                                input: Some(&input[first * channels..]),
                                grad_input: Some(grad_input.pixels_mut(image, first..end)),
                                add: call.accumulation == Accumulation::Add,
                                sums: partial,
                            });
                        }
                    }
                }
            }
        }
        for (sums, partial) in sums.chunks_exact_mut(taps * lanes).zip(partial.chunks_exact(taps * lanes)) {
            for (tap, partial) in partial.chunks_exact(lanes).enumerate() {
                for (sum, partial) in sums[tap..].iter_mut().step_by(taps).zip(partial) {
                    *sum += partial;
                }
            }
        }
    }
}
