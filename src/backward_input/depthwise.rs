//! One channel per group: see [`crate::depthwise`]. With channels first, for strides of 1.

use super::{BackwardInputCall, Segment, image_of};
use crate::blocking::{Tuning, block_size};
use crate::depthwise::{self, by_tap, output_of, stretches, tabulate};
use crate::desc::ConvDesc;
use crate::kernel::{CopyBlock, DepthwiseBackwardInput, TileMut, Tiles, Update, View, Walk};
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
pub(super) fn applies(desc: &ConvDesc, tiles: &Tiles) -> bool {
    depthwise::applies(desc, tiles) && (desc.layout() == Layout::Nhwc || desc.stride() == [1; 3])
}

impl Depthwise {
    pub(super) fn new(desc: &ConvDesc, tuning: &Tuning) -> Self {
        let axes = [0, 1, 2].map(|axis| Phase::widest(desc, axis));
        let most = PLANE_LEN.min(tuning.staging_len);
        let block = block_size(&axes, tuning.positions, |grid, _| grid.len() <= most);
        Self { block, grid: Grid::new(axes, block) }
    }

    /// Elements of a block's inputs, gaps between rows included.
    fn inputs_len(&self, tiles: &Tiles) -> usize {
        // A row more than the last run needs: staging lays out whole rows.
        (self.block[1] * self.grid.extent[2]).next_multiple_of(tiles.lanes) + tiles.lanes
    }

    pub(super) fn workspace_len(&self, desc: &ConvDesc, tiles: &Tiles) -> usize {
        match desc.layout() {
            Layout::Nchw => {
                let inputs = self.inputs_len(tiles);
                total([desc.taps(), self.grid.len() + tiles.lanes, inputs, inputs], tiles.lanes)
            }
            Layout::Nhwc => {
                let coefficients = desc.taps() * desc.in_channels();
                total([coefficients, coefficients, coefficients, desc.taps()], tiles.lanes)
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
        let (desc, tiles) = (call.desc, call.tiles);
        let (taps, lanes) = (desc.taps(), tiles.lanes);
        let mut arena = Arena::new(workspace, tiles.lanes);
        let offsets = arena.take_offsets(taps);
        let staged = arena.take(self.grid.len() + lanes);
        let input = arena.take(self.inputs_len(tiles));
        let result = arena.take(self.inputs_len(tiles));

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
        for image in segment.images.clone() {
            let of = |data, strides| Image { data, strides };
            let grad_output = of(image_of(call.grad_output, desc.output_image_len(), image), desc.output_strides());
            let inputs = of(image_of(call.input, desc.input_image_len(), image), desc.input_strides());
            for (index, channel) in segment.panels.clone().enumerate() {
                for block in blocks(desc.input_size().map(|size| 0..size), self.block) {
                    staging.copy(tiles, grad_output, channel..channel + 1, block, staged);
                    let count = ((block.size[1] - 1) * row + block.size[2]).div_ceil(lanes);
                    // What is no input compares as neither.
                    let axes = phases.map(|phase| phase.inputs());
                    let as_result = Grid { axes, extent: [1, block.size[1], row] };
                    input[..count * lanes].fill(f32::NAN);
                    Staging { grid: as_result, lanes: 1, pitch: 0, fill: f32::NAN }.copy(
                        tiles,
                        inputs,
                        channel..channel + 1,
                        block,
                        input,
                    );
                    tiles.depthwise_backward_input(DepthwiseBackwardInput {
                        walk: Walk { offsets, source_step: lanes, count, width: lanes, splat: true },
                        source: staged,
                        weight: &call.weight[channel * taps..][..taps],
                        thresholds: &segment.thresholds[index * taps..][..taps],
                        input,
                        grad_input: TileMut::of_slice(result, count, 1, lanes),
                        add: false,
                        sums: &mut sums[index * taps * lanes..][..taps * lanes],
                    });
                    let [d, h, w] = block.start;
                    let first = (d * rows + h) * columns + w;
                    if call.accumulation == Accumulation::Overwrite {
                        let end = first + (block.size[1] - 1) * columns + block.size[2];
                        tiles.copy(CopyBlock {
                            from: result,
                            from_plane: 0,
                            from_row: row,
                            step: 1,
                            to: grad_input.run_mut(image, channel, first..end),
                            to_plane: 0,
                            to_row: columns,
                            planes: 1,
                            rows: block.size[1],
                            len: block.size[2],
                        });
                    } else {
                        for (r, result) in result.chunks(row).take(block.size[1]).enumerate() {
                            let position = first + r * columns;
                            grad_input.run(image, channel, position, &result[..block.size[2]], Update::Add);
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
        let (desc, tiles) = (call.desc, call.tiles);
        let (taps, channels) = (desc.taps(), desc.in_channels());
        let mut arena = Arena::new(workspace, tiles.lanes);
        let weight = arena.take(taps * channels);
        let thresholds = arena.take(taps * channels);
        let partial = arena.take(taps * channels);
        let offsets = arena.take_offsets(taps);
        by_tap(tiles, desc, call.weight, weight);
        by_tap(tiles, desc, segment.thresholds, thresholds);
        partial.fill(0.0);
        let [depth, height, width] = desc.input_size();
        let stride = desc.stride()[2];
        for image in segment.images.clone() {
            let grad_output = image_of(call.grad_output, desc.output_image_len(), image);
            let input = image_of(call.input, desc.input_image_len(), image);
            for (d, h) in (0..depth).flat_map(|d| (0..height).map(move |h| (d, h))) {
                for residue in 0..stride.min(width) {
                    // The taps that any input of this residue has, are had by those that all of them reach inside.
                    let complete = |w: usize| {
                        let padded = w + desc.padding_before()[2];
                        (0..desc.kernel()[2]).all(|k| {
                            let shift = k * desc.dilation()[2];
                            let in_phase = padded % stride == shift % stride;
                            !in_phase || output_of(desc, 2, w, k).is_some()
                        })
                    };
                    for stretch in stretches(residue..width, stride, complete) {
                        let at = [d, h, stretch.first];
                        tabulate(desc, desc.output_size(), |axis, k| output_of(desc, axis, at[axis], k), offsets);
                        let position = (d * height + h) * width + stretch.first;
                        tiles.depthwise_backward_input(DepthwiseBackwardInput {
                            walk: Walk {
                                offsets,
                                source_step: channels,
                                count: stretch.count,
                                width: channels,
                                splat: false,
                            },
                            source: grad_output,
                            weight,
                            thresholds,
                            input: &input[position * channels..],
                            grad_input: grad_input.tile_of_pixels(image, position, stretch.step, stretch.count),
                            add: call.accumulation == Accumulation::Add,
                            sums: partial,
                        });
                    }
                }
            }
        }
        for (tap, partial) in partial.chunks_exact(channels).enumerate() {
            for (sum, partial) in sums[tap..].iter_mut().step_by(taps).zip(partial) {
                *sum += partial;
            }
        }
    }
}
