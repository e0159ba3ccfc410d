//! Input channels in lanes.
//!
//! For each block of inputs (of several images, where they are small) and each tap, a table pairs the inputs that the tap
//! reads with the outputs that read them: stride, dilation and padding end there. The table serves all images and all
//! panels of input channels. With channels last, the kernel reads and writes the tensors themselves; with channels
//! first, the block's output gradients are transposed once, a panel's inputs and gradients once per panel.
//!
//! A block's weights at one tap (depth × panel) and its inputs and gradients stay in the first-level cache.

use core::ops::Range;

use super::{BackwardInputCall, InputGradient, Segment};
use crate::arith::{clamp, equal, max, min, product};
use crate::blocking::Halving;
use crate::desc::ConvDesc;
use crate::geometry::{Panels, Reads, chunks};
use crate::kernel::{GatherPanel, Kernels, Pairs, TileMut, TransposeBlock, Update, View};
use crate::layout::Layout;
use crate::stage::{Block, Image, Staging, blocks};
use crate::sums::SegmentedSums;
use crate::taps::{Axis, Grid};
use crate::tuning::Tuning;
use crate::workspace::{Buffers, words, words_len};

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
    max(desc.input_tensor().image_stride, desc.output_tensor().image_stride) <= u32::MAX as usize
}

/// A thread at work.
struct Worker<'a, 'v, 's> {
    plan: &'a Gather,
    call: &'a BackwardInputCall<'a>,
    segment: &'a Segment<'a>,
    grad_input: &'a mut InputGradient<'v>,
    /// `[panel][tap][lane]`
    sums: &'a mut SegmentedSums<'s>,
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
struct InputBlocks {
    images: Range<usize>,
    block: Block,
    /// The outputs that its inputs meet.
    outputs: Block,
    /// Its first position in an image.
    first: usize,
}

impl InputBlocks {
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
            let addressable =
                u32::MAX as usize / max(desc.input_tensor().image_stride, desc.output_tensor().image_stride);
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

    /// One thread's: pairs of some taps, where each tap's end, transposed output gradients, a panel's inputs and their
    /// gradients.
    pub(super) const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<5> {
        let [grad_output, panel] = self.copies(desc, kernels);
        let pairs = words_len::<[u32; 2]>(self.taps * self.positions());
        Buffers::new([pairs, self.taps, grad_output, panel, panel], kernels.lanes)
    }

    pub(super) fn run(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut InputGradient<'_>,
        sums: &mut SegmentedSums<'_>,
        workspace: &mut [f32],
    ) {
        let ([pairs, ends, grad_output, panel_input, panel_grad_input], _) =
            self.buffers(call.desc, call.kernels).carve(workspace);
        let (pairs, ends) = (words(pairs), words(ends));
        let plan = self;
        let worker =
            Worker { plan, call, segment, grad_input, sums, pairs, ends, grad_output, panel_input, panel_grad_input };
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

/// The inputs among `range` that a tap reads: the first of them, the output that reads it, and their number; they are
/// `stride` apart, their outputs adjacent.
fn row_of(reads: &Reads, range: Range<usize>, k: usize) -> (usize, usize, usize) {
    let outputs = reads.positions_of(range.clone(), k);
    let first = if outputs.is_empty() { None } else { reads.source_of(outputs.start, k) };
    (first.unwrap_or(range.start), outputs.start, outputs.len())
}

impl Worker<'_, '_, '_> {
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
                let site = InputBlocks { images, block, outputs: self.outputs(block), first };
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
                self.sums.advance(site.images.len() * block.len());
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
    fn tabulate(&mut self, site: &InputBlocks, taps: Range<usize>) {
        let desc = self.call.desc;
        let InputBlocks { images, block, outputs, .. } = site;
        // Inputs count from the block; outputs from its copy, or from the image.
        let (output_first, output_size) = match desc.layout() {
            Layout::Nchw => (outputs.start, outputs.size),
            Layout::Nhwc => ([0; 3], desc.output_size()),
        };
        let row = |size: [usize; 3], first: [usize; 3], at: [usize; 3]| {
            ((at[0] - first[0]) * size[1] + at[1] - first[1]) * size[2] + at[2] - first[2]
        };
        let axes = Reads::all_forward(desc);
        let (inputs, out_positions) = (block.len(), output_size.iter().product::<usize>());
        let (mut next, mut used) = (self.pairs.iter_mut(), 0);
        for (tap, end) in taps.zip(self.ends.iter_mut()) {
            let [kd, kh, kw] = desc.kernel_position(tap);
            let (first_w, output_w, count) = row_of(&axes[2], block.start[2]..block.start[2] + block.size[2], kw);
            for image in 0..images.len() {
                for d in block.start[0]..block.start[0] + block.size[0] {
                    let Some(od) = axes[0].position_of(d, kd) else { continue };
                    for h in block.start[1]..block.start[1] + block.size[1] {
                        let Some(oh) = axes[1].position_of(h, kh) else { continue };
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
    fn stage_grad_output(&mut self, site: &InputBlocks, group: usize, chunk: Range<usize>) {
        let desc = self.call.desc;
        if desc.layout() == Layout::Nhwc || site.outputs.len() == 0 {
            return;
        }
        let channels = group * desc.group_out_channels() + chunk.start..group * desc.group_out_channels() + chunk.end;
        let len = site.outputs.len() * chunk.len();
        for (image, out) in site.images.clone().zip(self.grad_output.chunks_exact_mut(len)) {
            let image = Image::of(&desc.output_tensor(), self.call.grad_output, image);
            let axes = Axis::all_positions(desc.output_size());
            let staging = Staging { grid: Grid::new(axes, site.outputs.size), lanes: chunk.len(), pitch: 0, fill: 0.0 };
            staging.copy(self.call.kernels, image, channels.clone(), site.outputs, out);
        }
    }

    /// One panel of input channels over one block, for some taps and output channels of its group; `first` for the
    /// first of both.
    fn panel(&mut self, site: &InputBlocks, panel: usize, taps: Range<usize>, chunk: Range<usize>, first: bool) {
        let (call, desc, plan) = (self.call, self.call.desc, self.plan);
        let (count, lanes) = (plan.vectors.count(), call.kernels.lanes);
        let (group, vectors) = (panel / count, plan.vectors.get(panel % count));
        let width = vectors.len() * lanes;
        let group_in = desc.group_in_channels();
        let own = vectors.start * lanes..group_in.min(vectors.end * lanes);
        let channels = group * group_in + own.start..group * group_in + own.end;
        let table = self.segment.table_start(desc, panel);
        let thresholds = &self.segment.thresholds[table..][..width * desc.taps()];
        let sums = &mut self.sums.current[table..][..width * desc.taps()];
        let depth = desc.group_out_channels();
        let weight = self.segment.packing.panel(desc, call.weight, panel);

        let staged = desc.layout() == Layout::Nchw;
        let (grad_output, grad_output_pitch) = if staged {
            (&*self.grad_output, chunk.len())
        } else {
            let first = site.images.start * desc.output_tensor().image_stride + group * depth + chunk.start;
            (&call.grad_output[first..], desc.output_pitch())
        };
        // With channels last and whole vectors of channels, the tensors themselves.
        let mut view = self.grad_input.view.as_mut().filter(|_| !staged && channels.len() == width);
        let in_place = view.is_some();
        let rows = site.images.len() * site.block.len();
        let input = match call.input {
            Some(input) if in_place => {
                let first = site.images.start * desc.input_tensor().image_stride + site.first * desc.input_pitch();
                Some(&input[first + channels.start..])
            }
            Some(input) => {
                copy_panel(call, input, site, channels.clone(), width, self.panel_input);
                Some(&*self.panel_input)
            }
            None => None,
        };
        let replace = first && !self.grad_input.add;
        // Begin with a tap that every input of the block has, if there is one: it needs no zeros to add to.
        let pairs_of = |index: usize| {
            let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
            Pairs::new(&self.pairs[start..self.ends[index] as usize])
        };
        let fresh = !in_place || replace;
        let complete = (0..taps.len()).find(|&index| fresh && pairs_of(index).len() == rows);
        if complete.is_none() {
            match &mut view {
                None => self.panel_grad_input[..rows * width].fill(0.0),
                Some(view) if replace => in_tensor(view, site, channels.clone(), lanes).clear(0..rows),
                Some(_) => {}
            }
        }
        for index in complete.into_iter().chain((0..taps.len()).filter(|&index| Some(index) != complete)) {
            let pairs = pairs_of(index);
            if pairs.len() == 0 {
                continue;
            }
            let tap = taps.start + index;
            let grad_input = match &mut view {
                Some(view) => in_tensor(view, site, channels.clone(), lanes),
                None => TileMut::of_slice(self.panel_grad_input, rows, vectors.len(), lanes),
            };
            call.kernels.gather(GatherPanel {
                pairs,
                grad_output,
                grad_output_pitch,
                depth: chunk.len(),
                weight: &weight[(tap * depth + chunk.start) * width..],
                thresholds: &thresholds[tap * width..],
                input,
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
    fn write_panel(&mut self, site: &InputBlocks, channels: Range<usize>, width: usize, update: Update) {
        let Some(view) = &mut self.grad_input.view else { return };
        let len = site.block.len();
        for (index, image) in site.images.clone().enumerate() {
            let panel = &self.panel_grad_input[index * len * width..][..len * width];
            match self.call.desc.layout() {
                Layout::Nhwc => {
                    for (position, pixel) in site.positions().zip(panel.chunks_exact(width)) {
                        view.pixel(image, channels.start, position, &pixel[..channels.len()], update);
                    }
                }
                Layout::Nchw if update == Update::Set(0.0) => {
                    let positions = self.call.desc.input_tensor().positions();
                    self.call.kernels.transpose(TransposeBlock {
                        from: panel,
                        from_step: width,
                        from_column: 1,
                        to: &mut view.planes_mut(image, channels.clone())[site.first..],
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
                        view.run(image, channel, site.first, plane, update);
                    }
                }
            }
        }
    }
}

/// The gradients of a panel's inputs where they belong.
fn in_tensor<'v>(
    grad_input: &'v mut View<'_>,
    site: &InputBlocks,
    channels: Range<usize>,
    lanes: usize,
) -> TileMut<'v> {
    if site.images.len() == 1 {
        grad_input.tile_of_positions(site.images.start, site.positions(), channels, lanes)
    } else {
        grad_input.tile_of_images(site.images.clone(), channels, lanes)
    }
}

/// Copies a panel's inputs, `[position][lane]`.
fn copy_panel(
    call: &BackwardInputCall<'_>,
    input: &[f32],
    site: &InputBlocks,
    channels: Range<usize>,
    width: usize,
    copy: &mut [f32],
) {
    let desc = call.desc;
    let axes = Axis::all_positions(desc.input_size());
    let staging = Staging { grid: Grid::new(axes, site.block.size), lanes: width, pitch: 0, fill: 0.0 };
    for (image, copy) in site.images.clone().zip(copy.chunks_exact_mut(site.block.len() * width)) {
        let image = Image::of(&desc.input_tensor(), input, image);
        staging.copy(call.kernels, image, channels.clone(), site.block, copy);
    }
}
