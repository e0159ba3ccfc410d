//! Input channels in lanes.
//!
//! For each block of inputs (of several images, where they are small) and each tap, a table pairs the inputs that the tap
//! reads with the outputs that read them: stride, dilation and padding end there. The table serves all images and all
//! panels of input channels. With channels last, the kernel reads and writes the tensors themselves; with channels
//! first, the block's output gradients are transposed once, a panel's inputs and gradients once per panel.
//!
//! A block's weights at one tap (depth × panel) and its inputs and gradients stay in the first-level cache.

use core::ops::Range;

use super::{BackwardInputCall, Segment, image_of};
use crate::arith::{clamp, equal, max, min, product};
use crate::blocking::{Halving, Tuning};
use crate::desc::ConvDesc;
use crate::kernel::{GatherPanel, Kernels, Pairs, TileMut, TransposeBlock, Update, View};
use crate::layout::Layout;
use crate::panels::{Panels, chunks};
use crate::plan::Accumulation;
use crate::stage::{Block, Image, Staging, blocks};
use crate::taps::{Axis, Grid};
use crate::workspace::{Arena, total};

/// Positions per block: a panel's inputs and gradients stay in the first-level cache.
const MOST_POSITIONS: usize = 256;

/// Elements of the tables of pairs.
const PAIRS_LEN: usize = 16 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Gather {
    /// Inputs of a block.
    block: [usize; 3],
    /// Images per block.
    images: usize,
    /// Outputs that a block's inputs meet, at most, per axis.
    reach: [usize; 3],
    /// Taps whose pairs are tabulated at a time.
    taps: usize,
    /// Output channels of a group that are summed over at a time.
    chunk: Panels,
    /// Vectors of input channels of a group.
    vectors: Panels,
    /// Most rows of a tile.
    tile: usize,
}

/// Whether the algorithm can compute a layer: row numbers fit 32 bits.
pub(super) const fn applies(desc: &ConvDesc) -> bool {
    max(desc.input_image_len(), desc.output_image_len()) <= u32::MAX as usize
}

/// A thread at work.
struct Worker<'a, 'v> {
    plan: &'a Gather,
    call: &'a BackwardInputCall<'a>,
    segment: &'a Segment<'a>,
    grad_input: &'a mut View<'v>,
    /// `[panel][tap][lane]`
    sums: &'a mut [f32],
    pairs: &'a mut [[u32; 2]],
    /// End of each tap's pairs.
    ends: &'a mut [u32],
    // Channels first: transposed copies.
    grad_output: &'a mut [f32],
    panel_input: &'a mut [f32],
    panel_grad_input: &'a mut [f32],
}

/// A block of some images.
#[derive(Clone)]
struct Site {
    images: Range<usize>,
    block: Block,
    /// The outputs that its inputs meet.
    outputs: Block,
    /// Its first position in an image.
    first: usize,
}

impl Site {
    /// Positions of the block, which follow one another in each image.
    fn positions(&self) -> Range<usize> {
        self.first..self.first + self.block.len()
    }
}

impl Gather {
    pub(super) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning, vectors: Panels) -> Self {
        let axes = Axis::all_positions(desc.input_size());
        let chunk = Panels::of_at_most(desc.group_out_channels(), min(kernels.product_depth, tuning.depth));
        let most = min(MOST_POSITIONS, tuning.positions);
        let mut halving = Halving::new(&axes, most);
        loop {
            let staged = product(reach(desc, halving.grid().extent)).saturating_mul(chunk.max());
            if halving.done(matches!(desc.layout(), Layout::Nhwc) || staged <= tuning.staging_len) {
                break;
            }
            halving.halve();
        }
        let block = halving.balanced();
        let reach = reach(desc, block);
        let positions = block[1] * block[2];
        let mut images = 1;
        if equal(block, desc.input_size()) {
            let staged = tuning.staging_len / max(product(reach).saturating_mul(chunk.max()), 1);
            let addressable = u32::MAX as usize / max(max(desc.input_image_len(), desc.output_image_len()), 1);
            images = clamp(min(min(most / positions, max(staged, 1)), addressable), 1, max(desc.batch(), 1));
        }
        Self {
            block,
            images,
            reach,
            taps: clamp(PAIRS_LEN / (images * positions), 1, desc.taps()),
            chunk,
            vectors,
            tile: tuning.panel,
        }
    }

    const fn lanes(&self, kernels: &Kernels) -> usize {
        self.vectors.max() * kernels.lanes
    }

    const fn positions(&self) -> usize {
        self.images * self.block[1] * self.block[2]
    }

    /// Elements of the transposed copies of output gradients, and of a panel's inputs.
    const fn copies(&self, desc: &ConvDesc, kernels: &Kernels) -> [usize; 2] {
        let outputs = product(self.reach).saturating_mul(self.images);
        let grad_output =
            if matches!(desc.layout(), Layout::Nchw) { outputs.saturating_mul(self.chunk.max()) } else { 0 };
        [grad_output, self.positions() * self.lanes(kernels)]
    }

    pub(super) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels) -> usize {
        let [grad_output, panel] = self.copies(desc, kernels);
        total([2 * self.taps * self.positions(), self.taps, grad_output, panel, panel], kernels.lanes)
    }

    pub(super) fn run(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut View<'_>,
        sums: &mut [f32],
        workspace: &mut [f32],
    ) {
        let [grad_output, panel] = self.copies(call.desc, call.kernels);
        let mut arena = Arena::new(workspace, call.kernels.lanes);
        let worker = Worker {
            plan: self,
            call,
            segment,
            grad_input,
            sums,
            pairs: arena.take_pairs(self.taps * self.positions()),
            ends: arena.take_offsets(self.taps),
            grad_output: arena.take(grad_output),
            panel_input: arena.take(panel),
            panel_grad_input: arena.take(panel),
        };
        worker.run();
    }
}

/// Outputs that a block of inputs may meet, per axis.
const fn reach(desc: &ConvDesc, inputs: [usize; 3]) -> [usize; 3] {
    let mut outputs = [0; 3];
    let mut i = 0;
    while i < 3 {
        let span = inputs[i].saturating_add(desc.dilation()[i].saturating_mul(desc.kernel()[i] - 1));
        outputs[i] = min((span.saturating_sub(1) / desc.stride()[i]).saturating_add(1), desc.output_size()[i]);
        i += 1;
    }
    outputs
}

/// The output that reads input `i` through tap `k`, if any.
fn output_of(desc: &ConvDesc, axis: usize, i: usize, k: usize) -> Option<usize> {
    let at = (i + desc.padding_before()[axis]).checked_sub(k * desc.dilation()[axis])?;
    let stride = desc.stride()[axis];
    let o = at / stride;
    (at.is_multiple_of(stride) && o < desc.output_size()[axis]).then_some(o)
}

/// The inputs among `range` that a tap reads: the first of them, the output that reads it, and their number; they are
/// `stride` apart, their outputs adjacent.
fn row_of(desc: &ConvDesc, range: Range<usize>, k: usize) -> (usize, usize, usize) {
    let (stride, shift) = (desc.stride()[2], k * desc.dilation()[2]);
    let padding = desc.padding_before()[2];
    // The first input that is not read from before the first output, in the tap's phase.
    let from = range.start.max(shift.saturating_sub(padding));
    let padded = from + padding - shift;
    let output = padded.div_ceil(stride);
    let first = from + (output * stride - padded);
    if first >= range.end || output >= desc.output_size()[2] {
        return (range.start, 0, 0);
    }
    let count = (range.end - first).div_ceil(stride).min(desc.output_size()[2] - output);
    (first, output, count)
}

impl Worker<'_, '_> {
    fn run(mut self) {
        let (desc, plan) = (self.call.desc, self.plan);
        let Segment { images, panels, .. } = self.segment;
        let count = plan.vectors.count();
        for block in blocks(desc.input_size().map(|size| 0..size), plan.block) {
            // What the tables hold: some taps, for some number of images.
            let mut tabulated = None;
            for images in chunks(images.clone(), plan.images) {
                let ([d, h, w], [_, height, width]) = (block.start, desc.input_size());
                let first = (d * height + h) * width + w;
                let site = Site { images, block, outputs: self.outputs(block), first };
                for group in panels.start / count..panels.end.div_ceil(count) {
                    let panels = panels.start.max(group * count)..panels.end.min((group + 1) * count);
                    for chunk in plan.chunk.iter() {
                        self.stage_grad_output(&site, group, chunk.clone());
                        for taps in chunks(0..desc.taps(), plan.taps) {
                            if tabulated != Some((taps.start, site.images.len())) {
                                tabulated = Some((taps.start, site.images.len()));
                                self.tabulate(&site, taps.clone());
                            }
                            let first = taps.start == 0 && chunk.start == 0;
                            for panel in panels.clone() {
                                self.panel(&site, panel, taps.clone(), chunk.clone(), first);
                            }
                        }
                    }
                }
            }
        }
    }

    /// The box of outputs that a block of inputs meets.
    fn outputs(&self, block: Block) -> Block {
        let desc = self.call.desc;
        let mut outputs = Block { start: [0; 3], size: [0; 3] };
        for axis in 0..3 {
            let reach = desc.dilation()[axis] * (desc.kernel()[axis] - 1);
            let first = block.start[axis] + desc.padding_before()[axis];
            let start = first.saturating_sub(reach).div_ceil(desc.stride()[axis]);
            let end = ((first + block.size[axis] - 1) / desc.stride()[axis] + 1).min(desc.output_size()[axis]);
            outputs.start[axis] = start.min(end);
            outputs.size[axis] = end.saturating_sub(start);
        }
        outputs
    }

    /// Tabulates the pairs of rows of `taps`: rows of the output's gradient and of the input, as the kernel sees them.
    fn tabulate(&mut self, site: &Site, taps: Range<usize>) {
        let desc = self.call.desc;
        let Site { images, block, outputs, .. } = site;
        // Inputs count from the block; outputs from its copy, or from the image.
        let (output_first, output_size) = match desc.layout() {
            Layout::Nchw => (outputs.start, outputs.size),
            Layout::Nhwc => ([0; 3], desc.output_size()),
        };
        let row = |size: [usize; 3], first: [usize; 3], at: [usize; 3]| {
            ((at[0] - first[0]) * size[1] + at[1] - first[1]) * size[2] + at[2] - first[2]
        };
        let (inputs, out_positions) = (block.len(), output_size.iter().product::<usize>());
        let (mut next, mut used) = (self.pairs.iter_mut(), 0);
        for (tap, end) in taps.zip(self.ends.iter_mut()) {
            let [kd, kh, kw] = desc.kernel_position(tap);
            let (first_w, output_w, count) = row_of(desc, block.start[2]..block.start[2] + block.size[2], kw);
            for image in 0..images.len() {
                for d in block.start[0]..block.start[0] + block.size[0] {
                    let Some(od) = output_of(desc, 0, d, kd) else { continue };
                    for h in block.start[1]..block.start[1] + block.size[1] {
                        let Some(oh) = output_of(desc, 1, h, kh) else { continue };
                        if count == 0 {
                            continue;
                        }
                        let o = image * out_positions + row(output_size, output_first, [od, oh, output_w]);
                        let i = image * inputs + row(block.size, block.start, [d, h, first_w]);
                        // Fits: `applies` bounds an image, `new` several of them.
                        let (mut o, mut i, step) = (o as u32, i as u32, desc.stride()[2] as u32);
                        for pair in next.by_ref().take(count) {
                            *pair = [o, i];
                            o += 1;
                            i = i.wrapping_add(step);
                        }
                        used += count;
                    }
                }
            }
            *end = used as u32;
        }
    }

    /// Transposes the output gradients that a block meets, where channels come first.
    fn stage_grad_output(&mut self, site: &Site, group: usize, chunk: Range<usize>) {
        let desc = self.call.desc;
        if desc.layout() == Layout::Nhwc || site.outputs.len() == 0 {
            return;
        }
        let channels = group * desc.group_out_channels() + chunk.start..group * desc.group_out_channels() + chunk.end;
        let len = site.outputs.len() * chunk.len();
        for (image, out) in site.images.clone().zip(self.grad_output.chunks_exact_mut(len)) {
            let data = image_of(self.call.grad_output, desc.output_image_len(), image);
            let image = Image { data, strides: desc.output_strides() };
            let axes = Axis::all_positions(desc.output_size());
            let staging = Staging { grid: Grid::new(axes, site.outputs.size), lanes: chunk.len(), pitch: 0, fill: 0.0 };
            staging.copy(self.call.kernels, image, channels.clone(), site.outputs, out);
        }
    }

    /// One panel of input channels over one block, for some taps and output channels of its group; `first` for the
    /// first of both.
    fn panel(&mut self, site: &Site, panel: usize, taps: Range<usize>, chunk: Range<usize>, first: bool) {
        let (call, desc, plan) = (self.call, self.call.desc, self.plan);
        let (count, lanes) = (plan.vectors.count(), call.kernels.lanes);
        let (group, vectors) = (panel / count, plan.vectors.get(panel % count));
        let width = vectors.len() * lanes;
        let group_in = desc.group_in_channels();
        let own = vectors.start * lanes..group_in.min(vectors.end * lanes);
        let channels = group * group_in + own.start..group * group_in + own.end;
        // Where the panel lies in the tables, and where they begin.
        let start = |panel: usize| {
            (panel / count * plan.vectors.len() + plan.vectors.start(panel % count)) * lanes * desc.taps()
        };
        let table = start(panel) - start(self.segment.panels.start);
        let thresholds = &self.segment.thresholds[table..][..width * desc.taps()];
        let sums = &mut self.sums[table..][..width * desc.taps()];
        let depth = desc.group_out_channels();
        let weight = &call.weight[start(panel) * depth..][..width * depth * desc.taps()];

        let staged = desc.layout() == Layout::Nchw;
        let (grad_output, grad_output_pitch) = if staged {
            (&*self.grad_output, chunk.len())
        } else {
            let first = site.images.start * desc.output_image_len() + group * depth + chunk.start;
            (&call.grad_output[first..], desc.out_channels())
        };
        // With channels last and whole vectors of channels, the tensors themselves.
        let in_place = !staged && channels.len() == width;
        let rows = site.images.len() * site.block.len();
        let input = if in_place {
            let first = site.images.start * desc.input_image_len() + site.first * desc.in_channels();
            &call.input[first + channels.start..]
        } else {
            copy_panel(call, site, channels.clone(), width, self.panel_input);
            &*self.panel_input
        };
        let replace = first && call.accumulation == Accumulation::Overwrite;
        // Begin with a tap that every input of the block has, if there is one: it needs no zeros to add to.
        let pairs_of = |index: usize| {
            let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
            Pairs::new(&self.pairs[start..self.ends[index] as usize])
        };
        let fresh = !in_place || replace;
        let complete = (0..taps.len()).find(|&index| fresh && pairs_of(index).len() == rows);
        if complete.is_none() {
            if !in_place {
                self.panel_grad_input[..rows * width].fill(0.0);
            } else if replace {
                in_tensor(self.grad_input, site, channels.clone(), lanes).clear(0..rows);
            }
        }
        for index in complete.into_iter().chain((0..taps.len()).filter(|&index| Some(index) != complete)) {
            let pairs = pairs_of(index);
            if pairs.len() == 0 {
                continue;
            }
            let tap = taps.start + index;
            let grad_input = if in_place {
                in_tensor(self.grad_input, site, channels.clone(), lanes)
            } else {
                TileMut::of_slice(self.panel_grad_input, rows, vectors.len(), lanes)
            };
            call.kernels.gather(GatherPanel {
                pairs,
                grad_output,
                grad_output_pitch,
                depth: chunk.len(),
                weight: &weight[(tap * depth + chunk.start) * width..],
                thresholds: &thresholds[tap * width..],
                input: Some(input),
                grad_input,
                replace: Some(index) == complete,
                grad_thresholds: &mut sums[tap * width..][..width],
                tile: plan.tile,
            });
        }
        if !in_place {
            let update = if replace { Update::Set(0.0) } else { Update::Add };
            self.write_panel(site, channels, width, update);
        }
    }

    /// Writes the gradients of a panel's inputs from their copy.
    fn write_panel(&mut self, site: &Site, channels: Range<usize>, width: usize, update: Update) {
        let len = site.block.len();
        for (index, image) in site.images.clone().enumerate() {
            let panel = &self.panel_grad_input[index * len * width..][..len * width];
            match self.call.desc.layout() {
                Layout::Nhwc => {
                    for (position, pixel) in site.positions().zip(panel.chunks_exact(width)) {
                        self.grad_input.pixel(image, channels.start, position, &pixel[..channels.len()], update);
                    }
                }
                Layout::Nchw if update == Update::Set(0.0) => {
                    let positions = self.call.desc.input_image_len() / self.call.desc.in_channels();
                    self.call.kernels.transpose(TransposeBlock {
                        from: panel,
                        from_step: width,
                        from_column: 1,
                        to: &mut self.grad_input.planes_mut(image, channels.clone())[site.first..],
                        to_step: positions,
                        rows: len,
                        columns: channels.len(),
                    });
                }
                Layout::Nchw => {
                    // The copy of the inputs has served.
                    self.call.kernels.transpose(TransposeBlock {
                        from: panel,
                        from_step: width,
                        from_column: 1,
                        to: self.panel_input,
                        to_step: len,
                        rows: len,
                        columns: channels.len(),
                    });
                    for (channel, plane) in channels.clone().zip(self.panel_input.chunks_exact(len)) {
                        self.grad_input.run(image, channel, site.first, plane, update);
                    }
                }
            }
        }
    }
}

/// The gradients of a panel's inputs where they belong.
fn in_tensor<'v>(grad_input: &'v mut View<'_>, site: &Site, channels: Range<usize>, lanes: usize) -> TileMut<'v> {
    if site.images.len() == 1 {
        grad_input.tile_of_positions(site.images.start, site.positions(), channels, lanes)
    } else {
        grad_input.tile_of_images(site.images.clone(), channels, lanes)
    }
}

/// Copies a panel's inputs, `[position][lane]`.
fn copy_panel(call: &BackwardInputCall<'_>, site: &Site, channels: Range<usize>, width: usize, copy: &mut [f32]) {
    let desc = call.desc;
    let axes = Axis::all_positions(desc.input_size());
    let staging = Staging { grid: Grid::new(axes, site.block.size), lanes: width, pitch: 0, fill: 0.0 };
    for (image, copy) in site.images.clone().zip(copy.chunks_exact_mut(site.block.len() * width)) {
        let image = Image { data: image_of(call.input, desc.input_image_len(), image), strides: desc.input_strides() };
        staging.copy(call.kernels, image, channels.clone(), site.block, copy);
    }
}
