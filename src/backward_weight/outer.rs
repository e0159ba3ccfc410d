//! Driver of the weight's gradient that sums outer products over staged blocks, with input channels in lanes.
//!
//! A block holds output positions, of several images where these are small. For each block the driver stages the input with its
//! channels in vectors, and the output's gradient in panels of output channels. Each (panel, tap, vectors) is one register tile,
//! which sums over the block. Where there are fewer channels than lanes, the channels of a row of taps, which are adjacent, share
//! the lanes.
//!
//! The sums of all blocks are added to a packed gradient of a slab of input and output channels, which stays in the second-level
//! cache. Each slab is unpacked once.

use core::ops::Range;

use crate::arith::{clamp, equal, max, min};
use crate::blocking::{Budget, block_size};
use crate::calls::BackwardWeightCall;
use crate::desc::{ConvDesc, volume};
use crate::geometry::{Panels, Segments, chunks};
use crate::kernel::{Kernels, Offsets, RowsMut, TransposeBlock, WeightPanels};
use crate::stage::{Block, Image, Staging, blocks};
use crate::strided;
use crate::sums::Positions;
use crate::taps::{Axis, Grid};
use crate::tuning::Tuning;
use crate::weight::channel_and_tap_strides;
use crate::workspace::{Buffers, words};

/// The most positions per block. A panel of output gradients then stays in the first-level cache.
const MOST_POSITIONS: usize = 256;

/// The most elements of a slab's packed gradient: 256 KiB, which stay in the second-level cache.
const SLAB_LEN: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    block: [usize; 3],
    /// Images per block.
    images: usize,
    grid: Grid,
    /// Taps along the width whose channels share the lanes: all of them, or one.
    pub(super) taps_in_lanes: usize,
    /// The vectors of a group, in panels.
    vectors: Panels,
    /// Panels of vectors per slab.
    slab_vectors: usize,
    /// Output channels per slab.
    slab_channels: usize,
    /// Most output channels of a tile.
    most_rows: usize,
}

/// The buffers of a thread.
struct Scratch<'a> {
    positions: &'a mut [u32],
    /// `[panel of output channels][position][channel]`.
    grad_output: &'a mut [f32],
    /// `[grid position][lane]`.
    input: &'a mut [f32],
    /// One per lane.
    thresholds: &'a mut [f32],
    /// `[vectors of input channels][tap][output channel][lane]`, for a slab.
    grad_weight: &'a mut [f32],
    /// The part of a filter that belongs to the slab, transposed.
    unpacked: &'a mut [f32],
}

/// The gradients that are summed together: some vectors of input channels times some output channels of one group.
#[derive(Clone)]
struct Slab {
    group: usize,
    /// Panels of vectors.
    vectors: Range<usize>,
    /// Counted over all groups.
    channels: Range<usize>,
}

/// Taps along the width whose channels can share the lanes: all of them, or one.
pub(super) const fn taps_in_lanes(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning) -> usize {
    let channels = desc.group_in_channels();
    let adjacent = desc.groups() == 1 && desc.dilation()[2] == 1 && desc.stride()[2] == 1;
    let most = min(kernels.vectors, tuning.tile) * kernels.lanes;
    let fits = desc.kernel()[2].saturating_mul(channels) <= most;
    if channels < kernels.lanes && adjacent && fits { desc.kernel()[2] } else { 1 }
}

impl Outer {
    /// `own` is the most output channels of one thread.
    pub(super) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning, own: usize) -> Self {
        let axes = Axis::all_forward(desc);
        let taps_in_lanes = taps_in_lanes(desc, kernels, tuning);
        let channels = desc.group_in_channels() * taps_in_lanes;
        let vectors = Panels::of_at_most(channels.div_ceil(kernels.lanes), min(kernels.vectors, tuning.tile));
        let lanes = vectors.max() * kernels.lanes;

        let taps = desc.taps() / taps_in_lanes;
        let all = desc.group_out_channels();
        let own = clamp(own, 1, all);
        let slab_len = min(SLAB_LEN, tuning.staging_len.saturating_mul(2));
        let per_channel = taps.saturating_mul(vectors.len() * kernels.lanes);
        // Computed from all channels and not from a thread's share: blocks depend on it, and the order of the sums on them.
        let (slab_vectors, most_channels) = if per_channel.saturating_mul(all) <= slab_len {
            (vectors.count(), all)
        } else {
            // As square as possible, because each side is staged again for every slab along the other side.
            let side = (slab_len / taps).isqrt();
            let slab_vectors = clamp(side / lanes, 1, vectors.count());
            let most = max(slab_len / taps.saturating_mul(slab_vectors * lanes), 1);
            (slab_vectors, Panels::of_at_most(all, most).max())
        };

        let most = min(MOST_POSITIONS, tuning.positions);
        let budget =
            Budget { positions: most, len: tuning.staging_len, per_staged: lanes, per_position: most_channels };
        let block = block_size(&axes, budget);
        let grid = Grid::new(axes, block);
        let positions = block[1] * block[2];
        let mut images = 1;
        if equal(block, desc.output_size()) {
            let staged = grid.len().saturating_mul(lanes).saturating_add(positions * most_channels);
            images = clamp(min(most / positions, tuning.staging_len / max(staged, 1)), 1, max(desc.batch(), 1));
        }
        Self {
            block,
            images,
            grid,
            taps_in_lanes,
            vectors,
            slab_vectors,
            slab_channels: Panels::of_at_most(own, most_channels).max(),
            most_rows: tuning.panel,
        }
    }

    /// Channels that lie side by side at a staged position.
    const fn staged_lanes(&self, desc: &ConvDesc, kernels: &Kernels) -> usize {
        if self.taps_in_lanes > 1 { desc.group_in_channels() } else { self.vectors.max() * kernels.lanes }
    }

    /// The buffers of one thread, in the order of [`Scratch`]. Saturates, because layers that no memory could hold are planned as
    /// well.
    pub(super) const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<6> {
        let positions = volume(self.block) * self.images;
        let lanes = self.vectors.max() * kernels.lanes;
        let taps = desc.taps() / self.taps_in_lanes;
        let staged = self.grid.len().saturating_mul(self.images).saturating_mul(self.staged_lanes(desc, kernels));
        let lens = [
            positions,
            positions.saturating_mul(self.slab_channels),
            // A vector of lanes may read beyond the last position's channels.
            staged.saturating_add(lanes),
            lanes,
            taps.saturating_mul(self.slab_vectors * lanes).saturating_mul(self.slab_channels),
            taps.saturating_mul(lanes),
        ];
        Buffers::new(lens, kernels.lanes)
    }

    /// Adds the gradients of the weights of some output channels, in the order of the layout, at some positions.
    pub(super) fn run(
        &self,
        call: &BackwardWeightCall<'_>,
        all_positions: &Positions,
        channels: Range<usize>,
        all_grad_weight: &mut [f32],
        workspace: &mut [f32],
    ) {
        let desc = call.desc;
        let ([positions, grad_output, input, thresholds, grad_weight, unpacked], _) =
            self.buffers(desc, call.kernels).carve(workspace);
        let positions = words(positions);
        let mut buffers = Scratch { positions, grad_output, input, thresholds, grad_weight, unpacked };
        // Lanes without a channel are never written, but kernels read them and drop the results.
        buffers.input.fill(0.0);
        let (filter, per_group) = (desc.group_in_channels() * desc.taps(), desc.group_out_channels());
        let first_channel = channels.start;
        for group in channels.start / per_group..channels.end.div_ceil(per_group) {
            let own = channels.start.max(group * per_group)..channels.end.min((group + 1) * per_group);
            for channels in chunks(own, self.slab_channels) {
                for vectors in chunks(0..self.vectors.count(), self.slab_vectors) {
                    let slab = Slab { group, vectors, channels: channels.clone() };
                    let out = (slab.channels.start - first_channel) * filter;
                    let out = &mut all_grad_weight[out..][..slab.channels.len() * filter];
                    buffers.grad_weight.fill(0.0);
                    let mut segments = Segments::default();
                    for images in chunks(0..desc.batch(), self.images) {
                        for block in blocks(all_positions.clone(), self.block) {
                            self.run_block(call, &slab, images.clone(), block, &mut buffers);
                            if segments.advance(images.len() * block.len()) {
                                self.unpack(call, &slab, &mut buffers, out);
                                buffers.grad_weight.fill(0.0);
                            }
                        }
                    }
                    if !segments.is_new() {
                        self.unpack(call, &slab, &mut buffers, out);
                    }
                }
            }
        }
    }

    /// Adds one block's part to the packed gradient of a slab.
    fn run_block(
        &self,
        call: &BackwardWeightCall<'_>,
        slab: &Slab,
        images: Range<usize>,
        block: Block,
        buffers: &mut Scratch<'_>,
    ) {
        let (desc, kernels) = (call.desc, call.kernels);
        let pitch = self.staged_lanes(desc, kernels);
        let mut next = buffers.positions.iter_mut();
        for image in 0..images.len() {
            for row in 0..block.size[1] {
                let first = image * self.grid.len() + row * self.grid.extent[2];
                for (w, position) in next.by_ref().take(block.size[2]).enumerate() {
                    // Fits 32 bits: `block_size` bounds one staged plane, `staging_len` bounds several.
                    *position = ((first + w) * pitch) as u32;
                }
            }
        }
        let count = images.len() * block.len();
        let positions = Offsets::new(&buffers.positions[..count]);

        // Panels of output channels, in the order in which the tiles of all vectors read them.
        let panels = kernels.rows(self.vectors.max()).panels(slab.channels.len(), self.most_rows);
        let identity = Axis::all_positions(desc.output_size());
        for (index, image) in images.clone().enumerate() {
            let grad_output = Image::of(&desc.output_tensor(), call.grad_output, image);
            for panel in panels.iter() {
                let grid = Grid::new(identity, block.size);
                let staging = Staging { grid, lanes: panel.len(), pitch: 0, fill: 0.0 };
                let at = panel.start * count + index * block.len() * panel.len();
                let channels = slab.channels.start + panel.start..slab.channels.start + panel.end;
                staging.copy(kernels, grad_output, channels, block, &mut buffers.grad_output[at..]);
            }
        }

        let [depths, heights, _] = desc.kernel();
        let widths = desc.kernel()[2] / self.taps_in_lanes;
        let mut packed = &mut buffers.grad_weight[..];
        for vectors in slab.vectors.clone().map(|panel| self.vectors.get(panel)) {
            let lanes = vectors.len() * kernels.lanes;
            let first_lane = vectors.start * kernels.lanes;
            let first = slab.group * desc.group_in_channels();
            let channels = if self.taps_in_lanes > 1 {
                first..first + desc.group_in_channels()
            } else {
                first + first_lane..first + desc.group_in_channels().min(first_lane + lanes)
            };
            // The vectors of every panel lie as far apart as those of the widest one.
            let staging = Staging { grid: self.grid, lanes: pitch, pitch: 0, fill: 0.0 };
            for (index, image) in images.clone().enumerate() {
                let input = Image::of(&desc.input_tensor(), call.input, image);
                let out = &mut buffers.input[index * self.grid.len() * pitch..];
                staging.copy(kernels, input, channels.clone(), block, out);
            }
            for (d, h) in (0..depths).flat_map(|d| (0..heights).map(move |h| (d, h))) {
                for w in 0..widths {
                    let first_tap = (d * heights + h) * desc.kernel()[2] + w;
                    let thetas = &mut buffers.thresholds[..lanes];
                    // The results of a lane without a channel are dropped, so any threshold will do.
                    thetas[channels.len() * self.taps_in_lanes..].fill(0.0);
                    for (tap, thetas) in (first_tap..).zip(thetas.chunks_mut(channels.len())).take(self.taps_in_lanes) {
                        call.thresholds.copy_channels(channels.clone(), tap, thetas, 1);
                    }
                    let (tile, rest) = packed.split_at_mut(panels.len() * lanes);
                    packed = rest;
                    kernels.backward_weight(WeightPanels {
                        input: &buffers.input[self.grid.tap([d, h, w]) * pitch..],
                        positions,
                        grad_output: buffers.grad_output,
                        thresholds: &buffers.thresholds[..lanes],
                        panels,
                        vectors: vectors.len(),
                        grad_weight: tile,
                    });
                }
            }
        }
    }

    /// Adds the packed gradient of a slab to `out`, its filters in the order of the layout.
    fn unpack(&self, call: &BackwardWeightCall<'_>, slab: &Slab, buffers: &mut Scratch<'_>, out: &mut [f32]) {
        let desc = call.desc;
        let (in_channels, kw) = (desc.group_in_channels(), self.taps_in_lanes);
        let taps = desc.taps() / kw;
        let count = slab.channels.len();
        let (channel_step, tap_step) = channel_and_tap_strides(desc);
        let mut packed = &buffers.grad_weight[..];
        for vectors in slab.vectors.clone().map(|panel| self.vectors.get(panel)) {
            let lanes = vectors.len() * call.kernels.lanes;
            let first = vectors.start * call.kernels.lanes;
            let used = lanes.min(in_channels * kw - first);
            let (panel, rest) = packed.split_at(lanes * taps * count);
            packed = rest;
            for (d, filter) in out.chunks_exact_mut(in_channels * desc.taps()).enumerate() {
                if channel_step == 1 {
                    // The lanes are adjacent in the filter as well.
                    for tap in 0..taps {
                        let lanes = &panel[(tap * count + d) * lanes..][..used];
                        strided::add(lanes, &mut filter[first + tap * kw * tap_step..], 1);
                    }
                } else if kw == 1 {
                    call.kernels.transpose(TransposeBlock {
                        from: &panel[d * lanes..],
                        from_step: count * lanes,
                        from_column: 1,
                        to: RowsMut::of_slice(buffers.unpacked, used, taps, taps),
                    });
                    strided::add(&buffers.unpacked[..used * taps], &mut filter[first * taps..], 1);
                } else {
                    for tap in 0..taps {
                        let lanes = &panel[(tap * count + d) * lanes..][..used];
                        for (w, channels) in lanes.chunks_exact(in_channels).enumerate() {
                            strided::add(channels, &mut filter[(tap * kw + w) * tap_step..], channel_step);
                        }
                    }
                }
            }
        }
    }
}
