//! Patches packed as rows: output channels in lanes, clamped inputs broadcast. For tensors with channels last.
//!
//! For each block of output positions and each chunk of (tap, input channel), the clamped patches are packed as
//! `[position][step]`: channels are adjacent in the image, so these are vector copies, and nothing is staged. Each panel
//! of weights then stays in the first-level cache while the rows stream by, and outputs are written where they belong.

use core::ops::Range;

use super::{ForwardCall, OutputPart, panels_of_group};
use crate::arith::{clamp, equal, max, min};
use crate::blocking::{Budget, block_size};
use crate::desc::ConvDesc;
use crate::geometry::{Panels, Reads, TapRuns, chunks, classes_in};
use crate::kernel::{Kernels, PatchRows, PatchRun, Product, ProductRows, Start, TileMut, Update, View};
use crate::layout::Layout;
use crate::stage::{Block, blocks};
use crate::taps::Axis;
use crate::tuning::Tuning;
use crate::weight::Packing;
use crate::workspace::{Buffers, words, words_len};

#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    block: [usize; 3],
    /// Images per block.
    images: usize,
    /// Taps of a run: whole kernel rows where they are adjacent in the image.
    taps_per_run: usize,
    /// Steps at a time.
    chunk: usize,
    packing: Packing,
    /// Most rows of a tile.
    tile: usize,
}

/// Whether the algorithm can compute a layer.
pub(super) const fn applies(desc: &ConvDesc) -> bool {
    let run_len = desc.kernel()[2].saturating_mul(desc.group_in_channels());
    matches!(desc.layout(), Layout::Nhwc) && max(desc.input_tensor().image_stride, run_len) <= u32::MAX as usize
}

impl Rows {
    pub(super) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning, packing: Packing) -> Self {
        let axes = Axis::all_forward(desc);
        let depth = desc.group_in_channels() * desc.taps();
        let chunk = Panels::of_at_most(depth, min(kernels.product_depth, tuning.depth)).max();
        let most = clamp(tuning.staging_len / max(chunk, 1), 1, tuning.positions);
        let block = block_size(&axes, Budget::positions(most));
        let mut images = 1;
        if equal(block, desc.output_size()) {
            let addressable = u32::MAX as usize / desc.input_tensor().image_stride;
            images = clamp(min(most / (block[1] * block[2]), addressable), 1, max(desc.batch(), 1));
        }
        Self {
            block,
            images,
            taps_per_run: TapRuns::new(desc, desc.input_tensor().strides).most_taps(),
            chunk,
            packing,
            tile: tuning.panel,
        }
    }

    /// Positions of a block.
    const fn positions(&self) -> usize {
        self.images * self.block[1] * self.block[2]
    }

    /// Lanes of a panel.
    const fn lanes(&self, kernels: &Kernels) -> usize {
        self.packing.panels().max() * kernels.lanes
    }

    const fn runs_per_row(&self, desc: &ConvDesc) -> usize {
        desc.taps() / self.taps_per_run
    }

    /// One thread's: the runs of a block's patches, thresholds of a chunk's steps, packed rows, a panel's bias, and the result
    /// of a panel with lanes that have no channel.
    pub(super) const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<5> {
        let runs = words_len::<PatchRun>(self.positions().saturating_mul(self.runs_per_row(desc)));
        let lanes = self.lanes(kernels);
        let rows = self.positions() * self.chunk;
        Buffers::new([runs, self.chunk, rows, lanes, self.block[1] * self.block[2] * lanes], kernels.lanes)
    }

    pub(super) fn run(&self, call: &ForwardCall<'_>, part: OutputPart<'_>) {
        let desc = call.desc;
        let OutputPart { mut output, images, panels, space, workspace } = part;
        let ([runs, thresholds, rows, bias, result], _) = self.buffers(desc, call.kernels).carve(workspace);
        let runs = words(runs);

        let depth = desc.group_in_channels() * desc.taps();
        let count = self.packing.panels().count();
        let tensor = desc.input_tensor();
        for block in blocks(space, self.block) {
            // The table holds for all images, and for all groups.
            let mut tabulated = None;
            for images in chunks(images.clone(), self.images) {
                if tabulated != Some(images.len()) {
                    tabulated = Some(images.len());
                    self.tabulate_runs(desc, images.len(), block, runs);
                }
                let source = tensor.image_range(call.input, images.clone());
                for group in panels.start / count..panels.end.div_ceil(count) {
                    let panels = panels_of_group(&panels, count, group);
                    for steps in chunks(0..depth, self.chunk) {
                        tabulate_thresholds(call, group, steps.clone(), thresholds);
                        call.kernels.pack_rows(PatchRows {
                            source: &source[group * desc.group_in_channels()..],
                            runs: &runs[..images.len() * block.len() * self.runs_per_row(desc)],
                            run_len: self.taps_per_run * desc.group_in_channels(),
                            runs_per_row: self.runs_per_row(desc),
                            steps: steps.clone(),
                            thresholds,
                            rows,
                        });
                        for panel in panels.clone() {
                            let panel = self.panel(call, group, panel, steps.clone(), bias);
                            for (index, image) in images.clone().enumerate() {
                                let rows = &rows[index * block.len() * steps.len()..];
                                self.multiply(call, &panel, image, block, rows, &mut output, result);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Where every run of every position of a block of some images comes from, in the first group.
    fn tabulate_runs(&self, desc: &ConvDesc, images: usize, block: Block, table: &mut [PatchRun]) {
        let per_position = self.runs_per_row(desc);
        let table = &mut table[..images * block.len() * per_position];
        // Runs that read padding alone are empty.
        table.fill([0; 3]);
        let (runs, group_in) = (TapRuns::new(desc, desc.input_tensor().strides), desc.group_in_channels());
        let image_stride = desc.input_tensor().image_stride;
        let ([_, step_h, step_w], [_, kernel_h, kernel_w]) = (runs.steps(), desc.kernel());
        let [_, rows, columns] = block.size;
        let range = |axis: usize| block.start[axis]..block.start[axis] + block.size[axis];
        // A block is one position deep.
        for class in classes_in(&Reads::all_forward(desc), [range(0), range(1), range(2)]) {
            let [_, hs, ws] = class.positions;
            for run in runs.of(&class) {
                let [d, h, w] = run.tap;
                let index = ((d * kernel_h + h) * kernel_w + w) / self.taps_per_run;
                let start = w % self.taps_per_run * group_in;
                for (image, h) in (0..images).flat_map(|image| (0..hs.len()).map(move |h| (image, h))) {
                    let row = image * image_stride + run.offset + h * step_h;
                    let position = (image * rows + hs.start - block.start[1] + h) * columns + ws.start - block.start[2];
                    let own = &mut table[position * per_position..][..ws.len() * per_position];
                    for (w, own) in own.chunks_exact_mut(per_position).enumerate() {
                        // Fits: `new` bounds what the images of a block hold, `applies` a run.
                        own[index] = [row + w * step_w, start, start + run.elements].map(|n| n as u32);
                    }
                }
            }
        }
    }

    /// A panel of output channels of a group.
    fn panel<'a>(
        &self,
        call: &ForwardCall<'a>,
        group: usize,
        panel: usize,
        steps: Range<usize>,
        bias: &'a mut [f32],
    ) -> Panel<'a> {
        let (desc, lanes) = (call.desc, call.kernels.lanes);
        let panel = group * self.packing.panels().count() + panel;
        let width = self.packing.lane_of_all(panel + 1) - self.packing.lane_of_all(panel);
        let channels = self.packing.channel_of_all(desc, panel)..self.packing.channel_of_all(desc, panel + 1);
        let weight = self.packing.panel(desc, call.weight, panel);
        let start = match call.bias {
            _ if steps.start > 0 => Start::Output,
            None => Start::Zero,
            Some(values) => {
                bias[..channels.len()].copy_from_slice(&values[channels.clone()]);
                bias[channels.len()..].fill(0.0);
                Start::Lanes(bias)
            }
        };
        Panel {
            weight: &weight[steps.start * width..steps.end * width],
            depth: steps.len(),
            vectors: width / lanes,
            channels,
            start,
        }
    }

    /// The packed rows of one image's block times one panel.
    #[expect(clippy::too_many_arguments, reason = "what to multiply, and two buffers")]
    fn multiply(
        &self,
        call: &ForwardCall<'_>,
        panel: &Panel<'_>,
        image: usize,
        block: Block,
        rows: &[f32],
        output: &mut View<'_>,
        result: &mut [f32],
    ) {
        let lanes = call.kernels.lanes;
        let [_, height, width] = call.desc.output_size();
        let [d, h, w] = block.start;
        let first = (d * height + h) * width + w;
        let rows = ProductRows::Plain { data: rows, pitch: panel.depth, count: block.len(), tile: self.tile };
        let product = |start, output| Product { rows, columns: panel.weight, depth: panel.depth, start, output };
        let width = panel.vectors * lanes;
        if panel.channels.len() == width {
            let tile = output.tile_of_positions(image, first..first + block.len(), panel.channels.clone(), lanes);
            call.kernels.product(product(panel.start, tile));
            return;
        }
        // Lanes without a channel must not reach the output.
        let (start, add) = match panel.start {
            Start::Output => (Start::Zero, true),
            start => (start, false),
        };
        let tile = TileMut::of_slice(result, block.len(), panel.vectors, lanes);
        call.kernels.product(product(start, tile));
        let update = if add { Update::Add } else { Update::Set(0.0) };
        for (position, row) in (first..).zip(result.chunks_exact(width)).take(block.len()) {
            output.pixel(image, panel.channels.start, position, &row[..panel.channels.len()], update);
        }
    }
}

/// A panel of output channels at some steps.
struct Panel<'a> {
    /// `[step][lane]`
    weight: &'a [f32],
    depth: usize,
    vectors: usize,
    /// Counted over all groups.
    channels: Range<usize>,
    start: Start<'a>,
}

/// Thresholds of some steps of (tap, input channel of a group).
fn tabulate_thresholds(call: &ForwardCall<'_>, group: usize, steps: Range<usize>, thresholds: &mut [f32]) {
    let group_in = call.desc.group_in_channels();
    let mut step = steps.start;
    while step < steps.end {
        // Channels of one tap are adjacent.
        let (tap, channel) = (step / group_in, step % group_in);
        let len = (group_in - channel).min(steps.end - step);
        let first = group * group_in + channel;
        call.thresholds.copy_channels(first..first + len, tap, &mut thresholds[step - steps.start..], 1);
        step += len;
    }
}
