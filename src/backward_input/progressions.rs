//! Driver of the input's gradient with input channels in lanes.
//!
//! The driver reads and writes tensors with channels last in place. If tensors have channels first, it transposes the
//! [window](crate::pixels) of each block, the inputs of each panel, and their gradients.
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
//! The progressions absorb stride, dilation and padding: the kernel multiplies only by taps that read an input.

use core::ops::Range;

use super::{InputGradient, Segment};
use crate::arith::{clamp, max, min, product};
use crate::calls::BackwardInputCall;
use crate::desc::{ConvDesc, volume};
use crate::geometry::{Lattice, Panels, Progression, Reads, SEGMENT, Segments, Steps, chunks, progressions};
use crate::kernel::{Kernels, Mask, MaskedProducts, View};
use crate::layout::Layout;
use crate::pixels::{Blocks, Budget, Copies, Pixels, Reading, Results, Source, Window};
use crate::stage;
use crate::sums::SegmentedSums;
use crate::tuning::Tuning;
use crate::weight::Packing;
use crate::workspace::Buffers;

/// Elements of the output's gradient per block: 64 KiB, which stay in the second-level cache.
const BLOCK: usize = 16 * 1024;

/// Elements of a copied window, a panel's inputs and their gradients: 160 KiB, so that a panel's weights fit the second-level
/// cache beside them.
const COPIED_LEN: usize = 40 * 1024;

/// Elements of weights that every box may read again: 256 KiB, half of a second-level cache of 512 KiB.
const FEW_WEIGHTS: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Progressions {
    /// Images of a block, and inputs along each axis.
    block: [usize; 4],
    /// Whether a panel runs over all blocks before the next panel begins.
    panels_first: bool,
    copies: Option<Copies>,
    /// Elements of a panel's copied inputs, and of their gradients, if tensors have channels first.
    copied: usize,
    /// Most inputs of a tile.
    tile: usize,
}

/// The blocks whose windows are copied.
const fn copied_blocks(desc: &ConvDesc, tuning: &Tuning, packing: &Packing) -> Option<Blocks> {
    let budget = Budget {
        per_group: desc.group_out_channels(),
        per_position: 2 * packing.panel_width(),
        most: min(COPIED_LEN, tuning.staging_len.saturating_mul(4)),
        positions: min(SEGMENT, tuning.positions),
    };
    Blocks::new(desc, Reading::Backward, budget)
}

/// Whether windows of a layer with channels last are copied. Of the pixels that a tile reads, each group has few lines far apart.
/// If the distance is a power of two, they share a few sets of the first-level cache.
///
/// Measured on Zen 4, 2 to 64 groups of 8 to 128 channels, 3 × 3 taps: 0.44 to 0.99 of the time with AVX-512, 0.36 to 1.05 with AVX2.
const fn copies_groups(desc: &ConvDesc) -> bool {
    desc.groups() > 1 && desc.taps() > 1
}

/// Whether the algorithm can compute a layer.
pub(super) const fn applies(desc: &ConvDesc, tuning: &Tuning, packing: &Packing) -> bool {
    matches!(desc.tensor_layout(), Layout::Nhwc) || copied_blocks(desc, tuning, packing).is_some()
}

/// Most vectors of input channels per panel.
pub(super) const fn most_vectors(desc: &ConvDesc, kernels: &Kernels) -> usize {
    // Three panels of two vectors were measured to be a little faster than two panels of three.
    if desc.group_in_channels().div_ceil(kernels.lanes) == 6 { 2 } else { kernels.masked_vectors }
}

/// Images and inputs of a block.
type Block = [Range<usize>; 4];

impl Progressions {
    pub(super) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning, packing: &Packing) -> Self {
        let transposes = matches!(desc.tensor_layout(), Layout::Nchw);
        if (transposes || copies_groups(desc))
            && let Some(blocks) = copied_blocks(desc, tuning, packing)
        {
            let [d, h, w] = blocks.block;
            return Self {
                block: [blocks.images, d, h, w],
                panels_first: false,
                copies: Some(blocks.copies),
                copied: if transposes { blocks.positions() * packing.panel_width() } else { 0 },
                tile: tuning.panel,
            };
        }
        let panels = packing.panels();
        let [outputs, inputs] = [volume(desc.output_size()), volume(desc.input_size())];
        let image = outputs.saturating_mul(desc.out_channels());
        // The inputs of a block whose part of the output's gradient has at most `BLOCK` elements. A block is not longer than a
        // segment of sums.
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
            // With a single block the order makes no difference.
            panels_first: blocks > 1
                && weights > min(FEW_WEIGHTS, tuning.staging_len)
                && weights.saturating_mul(blocks) > grad_output.saturating_mul(panels.count()),
            copies: None,
            copied: 0,
            tile: tuning.panel,
        }
    }

    /// Whether gradients are computed in a copy.
    pub(super) const fn copies(&self) -> bool {
        self.copied > 0
    }

    /// The buffers of one thread: the copy of a window, a panel's inputs, and their gradients.
    pub(super) const fn buffers(&self, kernels: &Kernels) -> Buffers<3> {
        let window = match &self.copies {
            None => 0,
            Some(copies) => copies.len(),
        };
        Buffers::new([window, self.copied, self.copied], kernels.lanes)
    }

    pub(super) fn run(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut InputGradient<'_>,
        sums: &mut SegmentedSums<'_>,
        workspace: &mut [f32],
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
        let ([copy, inputs, gradients], _) = self.buffers(call.kernels).carve(workspace);
        let reads = Reads::all_forward(desc);
        let together = if self.panels_first { 1 } else { segment.panels.len() };
        for panels in chunks(segment.panels.clone(), together) {
            let mut segments = Segments::default();
            for block in self.blocks(segment) {
                let [images, ranges @ ..] = block.clone();
                let axes = [0, 1, 2].map(|axis| reads[axis].readers(ranges[axis].clone()));
                let mut source = Source::new(self.copies, &desc.output_tensor(), images.clone(), axes);
                let at_once = if source.is_copy() { 1 } else { panels.len() };
                for panels in chunks(panels.clone(), at_once) {
                    let (group, _) = segment.packing.panel_of_all(panels.start);
                    let grad_output =
                        source.of_group(group, call.kernels, &desc.output_tensor(), call.grad_output, &mut *copy);
                    let mut site = Site {
                        call,
                        segment,
                        images: images.clone(),
                        mask,
                        tile: self.tile,
                        grad_output,
                        outputs: *source.pixels(),
                        input: call.input,
                        inputs: Pixels::of(&desc.input_tensor()),
                        grad_input: &mut *grad_input,
                        origin: None,
                    };
                    let mut boxes = |site: &mut Site<'_, '_, '_>| {
                        for axes in progressions(&reads, ranges.clone()) {
                            site.run_box(sums, panels.clone(), axes);
                        }
                    };
                    if self.copies() {
                        site.copied(&ranges, panels.start, [&mut *inputs, &mut *gradients], boxes);
                    } else {
                        boxes(&mut site);
                    }
                }
                if segments.advance(block.iter().map(|range| range.len()).product()) {
                    let [start, end] = [panels.start, panels.end].map(|panel| segment.table_start(desc, panel));
                    sums.end_segment(start..end);
                }
            }
        }
    }

    /// The blocks of a segment, in memory order.
    fn blocks(&self, segment: &Segment<'_>) -> impl Iterator<Item = Block> + use<> {
        let ([i, d, h, w], [depths, heights, widths]) = (self.block, segment.space.clone());
        chunks(segment.images.clone(), i).flat_map(move |images| {
            let (heights, widths) = (heights.clone(), widths.clone());
            chunks(depths.clone(), d).flat_map(move |ds| {
                let (images, widths) = (images.clone(), widths.clone());
                chunks(heights.clone(), h).flat_map(move |hs| {
                    let (images, ds) = (images.clone(), ds.clone());
                    chunks(widths.clone(), w).map(move |ws| [images.clone(), ds.clone(), hs.clone(), ws])
                })
            })
        })
    }
}

/// A block of inputs for some panels: the places of all that the panels read and write.
struct Site<'a, 'b, 'v> {
    call: &'b BackwardInputCall<'a>,
    segment: &'b Segment<'a>,
    images: Range<usize>,
    mask: Mask,
    tile: usize,
    grad_output: &'b [f32],
    outputs: Pixels,
    input: Option<&'b [f32]>,
    inputs: Pixels,
    grad_input: &'b mut InputGradient<'v>,
    /// The first input of the copy, where the gradient is computed in one.
    origin: Option<[usize; 3]>,
}

impl Site<'_, '_, '_> {
    /// Runs boxes of one panel over copies of its inputs and gradients.
    fn copied(
        self,
        ranges: &[Range<usize>; 3],
        panel: usize,
        [inputs, gradients]: [&mut [f32]; 2],
        mut boxes: impl FnMut(&mut Site<'_, '_, '_>),
    ) {
        let (call, packing) = (self.call, &self.segment.packing);
        let desc = call.desc;
        let channels = packing.channel_of_all(desc, panel)..packing.channel_of_all(desc, panel + 1);
        let width = packing.lane_of_all(panel + 1) - packing.lane_of_all(panel);
        let axes = [0, 1, 2].map(|axis| Steps { first: ranges[axis].start, step: 1, count: ranges[axis].len() });
        let window = Window { images: self.images.clone(), axes, channels: channels.clone(), pitch: width };
        let input = self.input.map(|input| {
            window.copy(call.kernels, &desc.input_tensor(), input, inputs);
            &*inputs
        });
        let block = stage::Block { start: axes.map(|axis| axis.first), size: axes.map(|axis| axis.count) };
        let results = Results { images: self.images.clone(), block, width };
        let InputGradient { view, add } = self.grad_input;
        if let Some(start) = call.start {
            results.begin(&start[channels.clone()], gradients);
        } else if let Some(view) = view
            && *add
        {
            results.load(call.kernels, view, channels.clone(), gradients);
        }
        let origin = Some(block.start);
        let tensor = &results.tensor();
        let mut own = InputGradient { view: None, add: *add || call.start.is_some() };
        if view.is_some() {
            own.view = Some(View::new(&mut *gradients, tensor));
        }
        boxes(&mut Site { input, inputs: window.pixels(), grad_input: &mut own, origin, ..self });
        if let Some(view) = view {
            results.store(call.kernels, gradients, channels, view, None);
        }
    }

    /// Computes some panels at a box of progressions.
    fn run_box(&mut self, sums: &mut SegmentedSums<'_>, panels: Range<usize>, axes: [Progression; 3]) {
        let (desc, packing) = (self.call.desc, &self.segment.packing);
        let [_, height, width] = desc.kernel();
        let [d, h, w] = axes.map(|axis| axis.taps);
        let steps = axes.map(|axis| axis.inputs);
        let reached = d.count > 0 && h.count > 0 && w.count > 0;
        // Along each axis, the next input of a progression meets the next output.
        let inputs = Lattice {
            counts: [self.images.len(), steps[0].count, steps[1].count, steps[2].count],
            steps: [self.inputs.steps(steps.map(|steps| steps.step)), self.outputs.steps([1; 3])],
        };
        let among_taps = [0, d.step.saturating_mul(height * width), h.step.saturating_mul(width), w.step];
        let [_, after @ ..] = self.outputs.steps(axes.map(|axis| axis.shift));
        let taps =
            Lattice { counts: [1, d.count, h.count, w.count], steps: [among_taps, [0, after[0], after[1], after[2]]] };
        let first_tap = (d.first * height + h.first) * width + w.first;
        let (depth, depth_of_all) = (desc.group_out_channels(), packing.depth(desc));
        let first_lane = packing.lane_of_all(self.segment.panels.start);
        let mut next = panels.start;
        while next < panels.end {
            let (group, panel) = packing.panel_of_all(next);
            // Panels of the same width share one call. A last panel with lanes without a channel has a call of its own.
            let mut count = min(packing.panels().alike(panel), panels.end - next);
            if count > 1 && packing.lane(panel + count) > desc.group_in_channels() {
                count -= 1;
            }
            let channels = packing.channel_of_all(desc, next)..packing.channel_of_all(desc, next + count);
            let [start, end] = [next, next + count].map(|panel| packing.lane_of_all(panel));
            next += count;
            let table = (start - first_lane) * desc.taps()..(end - first_lane) * desc.taps();
            let first = steps.map(|steps| steps.first);
            let input =
                self.input.map_or(&[][..], |input| &input[self.inputs.at(self.images.start, first, channels.start)..]);
            let first_output = if reached {
                self.outputs.at(self.images.start, axes.map(|axis| axis.output), group * depth)
            } else {
                0
            };
            // A copy has room for lanes without a channel.
            let width = if self.origin.is_some() { end - start } else { channels.len() };
            let grad_input = self.grad_input.view.as_mut().map(|view| match self.origin {
                None => view.pixels_apart(self.images.clone(), steps, channels.clone()),
                Some(origin) => {
                    let mut own = steps;
                    own.iter_mut().zip(origin).for_each(|(steps, origin)| steps.first -= origin);
                    view.pixels_apart(0..self.images.len(), own, 0..width)
                }
            });
            self.call.kernels.masked(MaskedProducts {
                inputs,
                taps,
                first_tap,
                all_taps: desc.taps(),
                panels: count,
                input,
                grad_output: self.grad_output,
                first_output,
                depth,
                weight: &self.call.weight[start * depth_of_all..end * depth_of_all],
                thresholds: &self.segment.thresholds[table.clone()],
                sums: &mut sums.current[table],
                channels: width / count,
                grad_input,
                add: self.grad_input.add,
                mask: self.mask,
                tile: self.tile,
            });
        }
    }
}

/// Images and inputs per axis of a block of at most `most` inputs, and of at least one. It takes inner axes whole before outer
/// ones.
const fn block(desc: &ConvDesc, most: usize) -> [usize; 4] {
    let [depth, height, width] = desc.input_size();
    let sizes = [desc.batch(), depth, height, width];
    let (mut block, mut left, mut axis) = ([1; 4], max(most, 1), 4);
    while axis > 0 {
        axis -= 1;
        let size = max(sizes[axis], 1);
        // Blocks of nearly equal size.
        block[axis] = Panels::of_at_most(size, clamp(left, 1, size)).max();
        left /= block[axis];
        if block[axis] < size {
            left = 1;
        }
    }
    block
}
