//! Channels last, input channels in lanes, the tensors in place.
//!
//! ```text
//! for each panel of input channels, or all at once    whichever moves less through the caches
//!   for each block of inputs                        its part of the output's gradient stays in the caches
//!     for each box of progressions                  inputs that are read through the same taps
//!       for each panel
//!         for each tile of inputs                   along the axis with the cheapest remainders    kernel/masked.rs
//!           for each tap, each output channel
//! ```
//!
//! Stride, dilation and padding end in the progressions: only taps that read an input are multiplied.

use core::ops::Range;

use super::{BackwardInputCall, InputGradient, Segment};
use crate::arith::{clamp, max, min, product};
use crate::desc::{ConvDesc, volume};
use crate::geometry::{Lattice, Panels, Progression, Reads, SEGMENT, Segments, chunks, progressions};
use crate::kernel::{Kernels, Mask, MaskedProducts};
use crate::layout::Layout;
use crate::sums::SegmentedSums;
use crate::tuning::Tuning;

/// Elements of the output's gradient per block: 64 KiB.
const BLOCK: usize = 16 * 1024;

/// Weights that boxes may pass by again and again: half of a second-level cache of 512 KiB.
const FEW_WEIGHTS: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Progressions {
    /// Images of a block, and inputs along each axis.
    block: [usize; 4],
    /// Whether all blocks of one panel come before those of the next.
    panels_first: bool,
    /// Most inputs of a tile.
    tile: usize,
}

/// Whether the algorithm can compute a layer.
pub(super) const fn applies(desc: &ConvDesc) -> bool {
    matches!(desc.layout(), Layout::Nhwc)
}

/// Most vectors of input channels per panel.
pub(super) const fn most_vectors(desc: &ConvDesc, kernels: &Kernels) -> usize {
    // Measured: three panels of two vectors are a little faster than two of three.
    if desc.group_in_channels().div_ceil(kernels.lanes) == 6 { 2 } else { kernels.masked_vectors }
}

/// Images and inputs of a block.
type Block = [Range<usize>; 4];

impl Progressions {
    pub(super) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning, panels: Panels) -> Self {
        let [outputs, inputs] = [volume(desc.output_size()), volume(desc.input_size())];
        let image = outputs.saturating_mul(desc.out_channels());
        // Inputs whose part of the output's gradient has so many elements. A segment of sums has no fewer.
        let most = min(BLOCK, tuning.staging_len) as u128 * inputs as u128 / max(image, 1) as u128;
        let most = if most > SEGMENT as u128 { SEGMENT } else { most as usize };
        let block = block(desc, min(most, tuning.positions));
        let blocks = desc.batch().div_ceil(block[0]).saturating_mul({
            let [depth, height, width] = desc.input_size();
            product([depth.div_ceil(block[1]), height.div_ceil(block[2]), width.div_ceil(block[3])])
        });
        let weights = panels.len().saturating_mul(kernels.lanes).saturating_mul(desc.taps());
        let weights = weights.saturating_mul(desc.out_channels());
        let grad_output = image.saturating_mul(desc.batch());
        Self {
            block,
            // A single block is walked once, whatever the order.
            panels_first: blocks > 1
                && weights > min(FEW_WEIGHTS, tuning.staging_len)
                && weights.saturating_mul(blocks) > grad_output.saturating_mul(panels.count()),
            tile: tuning.panel,
        }
    }

    pub(super) fn run(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut InputGradient<'_>,
        sums: &mut SegmentedSums<'_>,
    ) {
        let desc = call.desc;
        let mask = match call.input {
            None => Mask::Linear,
            Some(_) if call.thresholds.is_uniform() => Mask::Uniform,
            Some(_) => Mask::PerTap,
        };
        if mask == Mask::Linear && grad_input.view.is_none() {
            return;
        }
        let reads = Reads::all_forward(desc);
        let together = if self.panels_first { 1 } else { segment.panels.len() };
        for panels in chunks(segment.panels.clone(), together) {
            let mut segments = Segments::default();
            for block in self.blocks(desc, segment.images.clone()) {
                let [images, inputs @ ..] = block.clone();
                for axes in progressions(&reads, inputs) {
                    self.run_box(call, segment, grad_input, sums, (panels.clone(), images.clone(), axes, mask));
                }
                if segments.advance(block.iter().map(|range| range.len()).product()) {
                    let [start, end] = [panels.start, panels.end].map(|panel| segment.table_start(desc, panel));
                    sums.end_segment(start..end);
                }
            }
        }
    }

    /// The blocks of some images, in memory order.
    fn blocks(&self, desc: &ConvDesc, images: Range<usize>) -> impl Iterator<Item = Block> + use<> {
        let ([i, d, h, w], [depth, height, width]) = (self.block, desc.input_size());
        chunks(images, i).flat_map(move |images| {
            chunks(0..depth, d).flat_map(move |ds| {
                let images = images.clone();
                chunks(0..height, h).flat_map(move |hs| {
                    let (images, ds) = (images.clone(), ds.clone());
                    chunks(0..width, w).map(move |ws| [images.clone(), ds.clone(), hs.clone(), ws])
                })
            })
        })
    }

    /// Some panels at a box of progressions of some images.
    fn run_box(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut InputGradient<'_>,
        sums: &mut SegmentedSums<'_>,
        (panels, images, axes, mask): (Range<usize>, Range<usize>, [Progression; 3], Mask),
    ) {
        let (desc, packing) = (call.desc, &segment.packing);
        let (input, output) = (desc.input_tensor(), desc.output_tensor());
        let [_, height, width] = desc.kernel();
        let [d, h, w] = axes.map(|axis| axis.taps);
        let steps = axes.map(|axis| axis.inputs);
        let first = |steps: [usize; 4], [d, h, w]: [usize; 3]| {
            images.start * steps[0] + d * steps[1] + h * steps[2] + w * steps[3]
        };
        let first_input = first(input.steps([1; 3]), steps.map(|steps| steps.first));
        let first_output = first(output.steps([1; 3]), axes.map(|axis| axis.output));
        // Along each axis the next input meets the next output.
        let inputs = Lattice {
            counts: [images.len(), steps[0].count, steps[1].count, steps[2].count],
            steps: [input.steps(steps.map(|steps| steps.step)), output.steps([1; 3])],
        };
        let among_taps = [0, d.step.saturating_mul(height * width), h.step.saturating_mul(width), w.step];
        let [_, after @ ..] = output.steps(axes.map(|axis| axis.shift));
        let taps =
            Lattice { counts: [1, d.count, h.count, w.count], steps: [among_taps, [0, after[0], after[1], after[2]]] };
        let first_tap = (d.first * height + h.first) * width + w.first;
        let depth = desc.group_out_channels();
        let (group_in, depth_of_all) = (desc.group_in_channels(), packing.depth(desc));
        let first_lane = packing.lane_of_all(segment.panels.start);
        let mut next = panels.start;
        while next < panels.end {
            let (group, panel) = packing.panel_of_all(next);
            // Panels as wide are one call, but for a last one that has lanes without a channel.
            let mut count = min(packing.panels().alike(panel), panels.end - next);
            if count > 1 && packing.lane(panel + count) > group_in {
                count -= 1;
            }
            next += count;
            let [start, end] = [packing.lane(panel), packing.lane(panel + count)];
            let channels = group * group_in + start..group * group_in + min(end, group_in);
            let [start, end] = [start, end].map(|lane| group * packing.group_width() + lane);
            let table = (start - first_lane) * desc.taps()..(end - first_lane) * desc.taps();
            let view = grad_input.view.as_mut();
            call.kernels.masked(MaskedProducts {
                inputs,
                taps,
                first_tap,
                all_taps: desc.taps(),
                panels: count,
                input: call.input.map_or(&[], |input| &input[first_input + channels.start..]),
                grad_output: call.grad_output,
                first_output: first_output + group * depth,
                depth,
                weight: &call.weight[start * depth_of_all..end * depth_of_all],
                thresholds: &segment.thresholds[table.clone()],
                sums: &mut sums.current[table],
                channels: channels.len() / count,
                grad_input: view.map(|view| view.pixels_apart(images.clone(), steps, channels)),
                add: grad_input.add,
                mask,
                tile: self.tile,
            });
        }
    }
}

/// Images and inputs per axis of a block of at most `most` inputs, at least one: inner axes first.
const fn block(desc: &ConvDesc, most: usize) -> [usize; 4] {
    let [depth, height, width] = desc.input_size();
    let sizes = [desc.batch(), depth, height, width];
    let (mut block, mut left, mut axis) = ([1; 4], max(most, 1), 4);
    while axis > 0 {
        axis -= 1;
        let size = max(sizes[axis], 1);
        // Of nearly equal size.
        block[axis] = Panels::of_at_most(size, clamp(left, 1, size)).max();
        left /= block[axis];
        if block[axis] < size {
            left = 1;
        }
    }
    block
}
