//! One channel per group: see [`crate::depthwise`].

use super::{ForwardCall, Part};
use crate::blocking::{Tuning, block_size};
use crate::depthwise::{by_tap, input_of, stretches, tabulate};
use crate::desc::ConvDesc;
use crate::kernel::{CopyBlock, DepthwiseForward, TileMut, Tiles, Walk};
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
    pub(super) fn new(desc: &ConvDesc, tuning: &Tuning) -> Self {
        let axes = [0, 1, 2].map(|axis| Axis::forward(desc, axis));
        let most = PLANE_LEN.min(tuning.staging_len);
        let block = block_size(&axes, tuning.positions, |grid, _| grid.len() <= most);
        Self { block, grid: Grid::new(axes, block) }
    }

    /// Elements of a block's result, gaps between rows included.
    fn result_len(&self, tiles: &Tiles) -> usize {
        ((self.block[1] - 1) * self.grid.extent[2] + self.block[2]).next_multiple_of(tiles.lanes)
    }

    pub(super) fn workspace_len(&self, desc: &ConvDesc, tiles: &Tiles) -> usize {
        match desc.layout() {
            Layout::Nchw => {
                let staged = self.grid.len() + tiles.lanes;
                total([desc.taps(), desc.taps(), staged, self.result_len(tiles)], tiles.lanes)
            }
            Layout::Nhwc => {
                let coefficients = desc.taps() * desc.in_channels();
                total([coefficients, coefficients, desc.in_channels(), desc.taps()], tiles.lanes)
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
        let (desc, tiles) = (call.desc, call.tiles);
        let (taps, lanes) = (desc.taps(), tiles.lanes);
        let Part { mut output, images, panels: channels, space, workspace } = part;
        let mut arena = Arena::new(workspace, tiles.lanes);
        let offsets = arena.take_offsets(taps);
        let thresholds = arena.take(taps);
        let staged = arena.take(self.grid.len() + lanes);
        let result = arena.take(self.result_len(tiles));
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
                for (tap, theta) in thresholds.iter_mut().enumerate() {
                    *theta = call.thresholds.at(desc, channel, desc.kernel_position(tap));
                }
                for block in blocks(space.clone(), self.block) {
                    staging.copy(tiles, source, channel..channel + 1, block, staged);
                    let row = self.grid.extent[2];
                    let count = ((block.size[1] - 1) * row + block.size[2]).div_ceil(lanes);
                    tiles.depthwise_forward(DepthwiseForward {
                        walk: Walk { offsets, source_step: lanes, count, width: lanes, splat: true },
                        source: staged,
                        weight: &call.weight[channel * taps..][..taps],
                        thresholds,
                        start: &[call.bias.map_or(0.0, |bias| bias[channel])],
                        output: TileMut::of_slice(result, count, 1, lanes),
                    });
                    let [d, h, w] = block.start;
                    let first = (d * height + h) * width + w;
                    let end = first + (block.size[1] - 1) * width + block.size[2];
                    tiles.copy(CopyBlock {
                        from: result,
                        from_plane: 0,
                        from_row: row,
                        step: 1,
                        to: output.run_mut(image, channel, first..end),
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
        let (desc, tiles) = (call.desc, call.tiles);
        let (taps, channels) = (desc.taps(), desc.in_channels());
        let Part { mut output, images, space, workspace, .. } = part;
        let mut arena = Arena::new(workspace, tiles.lanes);
        let weight = arena.take(taps * channels);
        let thresholds = arena.take(taps * channels);
        let start = arena.take(channels);
        let offsets = arena.take_offsets(taps);
        by_tap(tiles, desc, call.weight, weight);
        for (tap, thetas) in thresholds.chunks_exact_mut(channels).enumerate() {
            call.thresholds.copy_tap(desc, tap, thetas);
        }
        match call.bias {
            Some(bias) => start.copy_from_slice(&bias[..channels]),
            None => start.fill(0.0),
        }
        let [_, height, width] = desc.output_size();
        let complete = |w: usize| {
            let last = desc.kernel()[2] - 1;
            input_of(desc, 2, w, 0).is_some() && input_of(desc, 2, w, last).is_some()
        };
        let [ds, hs, ws] = space;
        for image in images {
            let source = &call.input[image * desc.input_image_len()..][..desc.input_image_len()];
            for (d, h) in ds.clone().flat_map(|d| hs.clone().map(move |h| (d, h))) {
                for stretch in stretches(ws.clone(), 1, complete) {
                    let at = [d, h, stretch.first];
                    tabulate(desc, desc.input_size(), |axis, k| input_of(desc, axis, at[axis], k), offsets);
                    let position = (d * height + h) * width + stretch.first;
                    tiles.depthwise_forward(DepthwiseForward {
                        walk: Walk {
                            offsets,
                            // One position is walked where this would overflow.
                            source_step: desc.stride()[2].saturating_mul(channels),
                            count: stretch.count,
                            width: channels,
                            splat: false,
                        },
                        source,
                        weight,
                        thresholds,
                        start,
                        output: output.tile_of_pixels(image, position, 1, stretch.count),
                    });
                }
            }
        }
    }
}
