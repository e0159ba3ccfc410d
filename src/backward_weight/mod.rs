//! Gradients of the weight and of the bias.
//!
//! Input channels lie in lanes: for each block of output positions the input is staged channels-last in vectors, the
//! output gradient in panels of output channels, and each (panel, tap, vectors) is one register tile summed over the
//! block. Partial sums of blocks meet in a packed gradient, unpacked once at the end.

mod depthwise;

use core::ops::Range;

use crate::blocking::{Tuning, block_size};
use crate::depthwise::applies;
use crate::desc::{ConvDesc, volume};
use crate::kernel::{Offsets, Tiles, WeightTile};
use crate::layout::Layout;
use crate::panels::Panels;
use crate::parallel;
use crate::plan::{Accumulation, Thresholds};
use crate::stage::{Block, Image, Staging, blocks};
use crate::strided;
use crate::taps::{Axis, Grid};
use crate::weight::channel_and_tap_strides;
use crate::workspace::Arena;

use depthwise::Depthwise;

/// Positions per block: a panel of output gradients stays in the first-level cache.
const MOST_POSITIONS: usize = 256;

/// How the backward pass of the weight runs on one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackwardWeightPlan {
    block: [usize; 3],
    grid: Grid,
    /// Vectors of input channels of a group.
    vectors: Panels,
    /// Most output channels per tile.
    rows: usize,
    /// One channel per group has a driver of its own.
    depthwise: Option<Depthwise>,
    /// Output channels that are not cut.
    unit: usize,
    /// Units of output channels of all groups, shared out among the threads: each owns its channels' gradients.
    parts: Panels,
    /// Elements of one thread's workspace.
    part_len: usize,
}

/// Operands of a call, lengths checked.
pub(crate) struct BackwardWeightCall<'a> {
    pub(crate) desc: &'a ConvDesc,
    pub(crate) tiles: &'static Tiles,
    pub(crate) input: &'a [f32],
    pub(crate) thresholds: Thresholds<'a>,
    pub(crate) grad_output: &'a [f32],
    pub(crate) accumulation: Accumulation,
}

/// The output channels of one thread, with their gradients and its workspace.
struct Part<'a> {
    channels: Range<usize>,
    grad_weight: &'a mut [f32],
    grad_bias: Option<&'a mut [f32]>,
    workspace: &'a mut [f32],
}

/// A thread's buffers.
struct Buffers<'a> {
    positions: &'a mut [u32],
    /// `[panel of output channels][position][channel]`.
    grad_output: &'a mut [f32],
    /// `[grid position][lane]`.
    input: &'a mut [f32],
    /// One per lane.
    thresholds: &'a mut [f32],
    /// `[vectors of input channels][tap][output channel][lane]`, for the part's channels of one group.
    grad_weight: &'a mut [f32],
}

impl BackwardWeightPlan {
    pub(crate) fn new(desc: &ConvDesc, tiles: &Tiles, tuning: &Tuning, threads: usize) -> Self {
        let axes = [0, 1, 2].map(|axis| Axis::forward(desc, axis));
        let vectors =
            Panels::of_at_most(desc.group_in_channels().div_ceil(tiles.lanes), tiles.vectors.min(tuning.tile));
        let block = block_size(&axes, MOST_POSITIONS.min(tuning.positions), |grid, positions| {
            let staged = grid.len().saturating_mul(vectors.max() * tiles.lanes);
            staged.saturating_add(positions * desc.group_out_channels()) <= tuning.staging_len
        });
        let depthwise = (applies(desc, tiles) && tuning.depthwise).then(|| Depthwise::new(desc, tuning));
        let unit = if depthwise.is_some() && desc.layout() == Layout::Nhwc { tiles.lanes } else { 1 };
        let mut plan = Self {
            block,
            grid: Grid::new(axes, block),
            vectors,
            rows: tiles.rows(vectors.max()).min(tuning.panel),
            depthwise,
            unit,
            parts: Panels::into_parts(desc.out_channels() / unit, if desc.batch() == 0 { 0 } else { threads }),
            part_len: 0,
        };
        plan.part_len = match &plan.depthwise {
            Some(driver) => driver.workspace_len(desc, tiles, plan.parts.max() * unit),
            None => plan.general_len(desc, tiles),
        };
        plan
    }

    /// The most output channels of one group that one part holds.
    fn part_channels(&self, desc: &ConvDesc) -> usize {
        self.parts.max().min(desc.group_out_channels())
    }

    /// Elements of one thread's workspace; saturates, as the layers that no memory could hold show.
    fn general_len(&self, desc: &ConvDesc, tiles: &Tiles) -> usize {
        let positions = volume(self.block);
        let lanes = self.vectors.max() * tiles.lanes;
        positions
            .saturating_mul(self.part_channels(desc))
            .saturating_add(positions + self.grid.len() * lanes + lanes)
            .saturating_add(self.packed_len(desc, tiles))
    }

    /// Elements of a part's packed gradient.
    fn packed_len(&self, desc: &ConvDesc, tiles: &Tiles) -> usize {
        let padded_filter = (self.vectors.len() * tiles.lanes).saturating_mul(desc.taps());
        padded_filter.saturating_mul(self.part_channels(desc))
    }

    pub(crate) fn workspace_len(&self) -> usize {
        self.parts.count().saturating_mul(self.part_len)
    }

    pub(crate) fn run(
        &self,
        call: &BackwardWeightCall<'_>,
        grad_weight: &mut [f32],
        mut grad_bias: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) {
        let desc = call.desc;
        if call.accumulation == Accumulation::Overwrite {
            grad_weight.fill(0.0);
            if let Some(grad_bias) = &mut grad_bias {
                grad_bias.fill(0.0);
            }
        }
        if self.parts.count() == 0 {
            return;
        }
        let filter = desc.group_in_channels() * desc.taps();
        let Self { unit, part_len, .. } = *self;
        let mut rest = Some((grad_weight, grad_bias, workspace));
        let jobs = self.parts.iter().map_while(move |units| {
            let channels = units.start * unit..units.end * unit;
            let (grad_weight, grad_bias, workspace) = rest.take()?;
            let (grad_weight, grad_weight_rest) = grad_weight.split_at_mut(channels.len() * filter);
            let (grad_bias, grad_bias_rest) = grad_bias.map(|bias| bias.split_at_mut(channels.len())).unzip();
            let (workspace, workspace_rest) = workspace.split_at_mut(part_len);
            rest = Some((grad_weight_rest, grad_bias_rest, workspace_rest));
            Some(Part { channels, grad_weight, grad_bias, workspace })
        });
        parallel::for_each(self.parts.count(), jobs, &|part| self.run_part(call, part));
    }

    fn run_part(&self, call: &BackwardWeightCall<'_>, part: Part<'_>) {
        let desc = call.desc;
        let Part { channels, grad_weight, grad_bias, workspace } = part;
        if let Some(grad_bias) = grad_bias {
            add_bias_gradient(desc, call.grad_output, channels.clone(), grad_bias);
        }
        if let Some(driver) = &self.depthwise {
            driver.run(call, channels, grad_weight, workspace);
            return;
        }
        let (positions, lanes) = (volume(self.block), self.vectors.max() * call.tiles.lanes);
        let mut arena = Arena::new(workspace);
        let mut buffers = Buffers {
            positions: arena.take_offsets(positions),
            grad_output: arena.take(positions * self.part_channels(desc)),
            input: arena.take(self.grid.len() * lanes),
            thresholds: arena.take(lanes),
            grad_weight: arena.take(self.packed_len(desc, call.tiles)),
        };
        let (filter, per_group) = (desc.group_in_channels() * desc.taps(), desc.group_out_channels());
        for group in channels.start / per_group..channels.end.div_ceil(per_group) {
            let own = channels.start.max(group * per_group)..channels.end.min((group + 1) * per_group);
            buffers.grad_weight.fill(0.0);
            for image in 0..desc.batch() {
                for block in blocks(desc.output_size().map(|size| 0..size), self.block) {
                    self.run_block(call, group, own.clone(), image, block, &mut buffers);
                }
            }
            let out = &mut grad_weight[(own.start - channels.start) * filter..][..own.len() * filter];
            self.unpack(call, own.len(), buffers.grad_weight, out);
        }
    }

    /// Adds one block's part to the packed gradient of `own`, output channels of one group.
    fn run_block(
        &self,
        call: &BackwardWeightCall<'_>,
        group: usize,
        own: Range<usize>,
        image: usize,
        block: Block,
        buffers: &mut Buffers<'_>,
    ) {
        let desc = call.desc;
        let width = block.size[2];
        for (p, position) in buffers.positions[..block.len()].iter_mut().enumerate() {
            // Fits: `block_size` bounds a staged plane.
            *position = (p / width * self.grid.extent[2] + p % width) as u32;
        }
        let positions = Offsets::new(&buffers.positions[..block.len()]);

        // Panels of output channels, as the tiles of all vectors will read them.
        let rows = Panels::of_at_most(own.len(), self.rows);
        let data = &call.grad_output[image * desc.output_image_len()..][..desc.output_image_len()];
        let grad_output = Image { data, strides: desc.output_strides() };
        let identity = desc.output_size().map(|size| Axis::identity(size, size, 0, 1));
        for panel in rows.iter() {
            let staging = Staging { grid: Grid::new(identity, block.size), lanes: panel.len(), pitch: 0, fill: 0.0 };
            let out = &mut buffers.grad_output[panel.start * block.len()..];
            staging.copy(call.tiles, grad_output, own.start + panel.start..own.start + panel.end, block, out);
        }

        let data = &call.input[image * desc.input_image_len()..][..desc.input_image_len()];
        let input = Image { data, strides: desc.input_strides() };
        let mut packed = &mut buffers.grad_weight[..];
        for vectors in self.vectors.iter() {
            let lanes = vectors.len() * call.tiles.lanes;
            let first = group * desc.group_in_channels() + vectors.start * call.tiles.lanes;
            let end = (group + 1) * desc.group_in_channels();
            let channels = first..end.min(first + lanes);
            let staging = Staging { grid: self.grid, lanes, pitch: 0, fill: 0.0 };
            staging.copy(call.tiles, input, channels.clone(), block, buffers.input);
            let [depths, heights, widths] = desc.kernel();
            for (d, h) in (0..depths).flat_map(|d| (0..heights).map(move |h| (d, h))) {
                for w in 0..widths {
                    for (lane, theta) in buffers.thresholds[..lanes].iter_mut().enumerate() {
                        // A lane without a channel is computed and dropped.
                        let channel = channels.start + lane.min(channels.len() - 1);
                        *theta = call.thresholds.at(desc, channel, [d, h, w]);
                    }
                    for panel in rows.iter() {
                        let (tile, rest) = packed.split_at_mut(panel.len() * lanes);
                        packed = rest;
                        call.tiles.backward_weight(WeightTile {
                            input: &buffers.input[self.grid.tap([d, h, w]) * lanes..],
                            positions,
                            grad_output: &buffers.grad_output[panel.start * block.len()..],
                            thresholds: &buffers.thresholds[..lanes],
                            channels: panel.len(),
                            vectors: vectors.len(),
                            grad_weight: tile,
                        });
                    }
                }
            }
        }
    }

    /// Adds the packed gradient of `channels` output channels to `out`, in the order of the layout.
    fn unpack(&self, call: &BackwardWeightCall<'_>, channels: usize, packed: &[f32], out: &mut [f32]) {
        let desc = call.desc;
        let (in_channels, taps) = (desc.group_in_channels(), desc.taps());
        let filter = in_channels * taps;
        let (channel_step, tap_step) = channel_and_tap_strides(desc);
        for vectors in self.vectors.iter() {
            let lanes = vectors.len() * call.tiles.lanes;
            let first = vectors.start * call.tiles.lanes;
            let used = lanes.min(in_channels - first);
            let packed = &packed[first * taps * channels..][..lanes * taps * channels];
            for (d, out) in out.chunks_exact_mut(filter).enumerate() {
                for tap in 0..taps {
                    let packed = &packed[(tap * channels + d) * lanes..][..used];
                    strided::add(packed, &mut out[first * channel_step + tap * tap_step..], channel_step);
                }
            }
        }
    }
}

/// Adds the sums of the output's gradient over images and positions (eq. for ∂E/∂b) for `channels`.
fn add_bias_gradient(desc: &ConvDesc, grad_output: &[f32], channels: Range<usize>, grad_bias: &mut [f32]) {
    let positions = volume(desc.output_size());
    for image in grad_output.chunks_exact(desc.output_image_len()).take(desc.batch()) {
        match desc.layout() {
            Layout::Nchw => {
                let planes = image.chunks_exact(positions).skip(channels.start);
                for (bias, plane) in grad_bias.iter_mut().zip(planes) {
                    *bias += sum(plane);
                }
            }
            Layout::Nhwc => {
                for pixel in image.chunks_exact(desc.out_channels()) {
                    grad_bias.iter_mut().zip(&pixel[channels.clone()]).for_each(|(bias, g)| *bias += g);
                }
            }
        }
    }
}

/// A sum in sixteen partial sums: one would wait for each addition, and round more.
fn sum(values: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    let chunks = values.chunks_exact(16);
    let tail = chunks.remainder();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, v)| *sum += v);
    }
    sums.iter().chain(tail).sum()
}
