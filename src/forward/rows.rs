//! Patches packed as rows: output channels in lanes, clamped inputs broadcast. For tensors with channels last.
//!
//! For each block of output positions and each chunk of (tap, input channel), the clamped patches are packed as
//! `[position][step]`: channels are adjacent in the image, so these are vector copies, and nothing is staged. Each panel
//! of weights then stays in the first-level cache while the rows stream by, and outputs are written where they belong.

use core::ops::Range;

use super::{ForwardCall, Part, panels_of_group};
use crate::arith::{clamp, equal, max, min};
use crate::blocking::{Budget, Tuning, block_size};
use crate::desc::ConvDesc;
use crate::geometry::{Panels, Reads, Runs, chunks, classes_in};
use crate::kernel::{Kernels, PatchRows, Product, Rows as ProductRows, Run, Start, TileMut, Update, View};
use crate::layout::Layout;
use crate::plan::Thresholds;
use crate::stage::{Block, blocks};
use crate::taps::Axis;
use crate::workspace::{Arena, total};

#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    block: [usize; 3],
    /// Images per block.
    images: usize,
    /// Taps of a run: whole kernel rows where they are adjacent in the image.
    taps_per_run: usize,
    /// Steps at a time.
    chunk: usize,
    /// Vectors of output channels of a group.
    vectors: Panels,
    /// Most rows of a tile.
    tile: usize,
}

/// Whether the algorithm can compute a layer.
pub(super) const fn applies(desc: &ConvDesc) -> bool {
    let run_len = desc.kernel()[2].saturating_mul(desc.group_in_channels());
    matches!(desc.layout(), Layout::Nhwc) && max(desc.input_image_len(), run_len) <= u32::MAX as usize
}

impl Rows {
    pub(super) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning, vectors: Panels) -> Self {
        let axes = Axis::all_forward(desc);
        let depth = desc.group_in_channels() * desc.taps();
        let chunk = Panels::of_at_most(depth, min(kernels.product_depth, tuning.depth)).max();
        let most = clamp(tuning.staging_len / max(chunk, 1), 1, tuning.positions);
        let block = block_size(&axes, Budget::positions(most));
        let mut images = 1;
        if equal(block, desc.output_size()) {
            let addressable = u32::MAX as usize / desc.input_image_len();
            images = clamp(min(most / (block[1] * block[2]), addressable), 1, max(desc.batch(), 1));
        }
        Self {
            block,
            images,
            taps_per_run: Runs::new(desc, desc.input_strides()).most_taps(),
            chunk,
            vectors,
            tile: tuning.panel,
        }
    }

    /// Positions of a block.
    const fn positions(&self) -> usize {
        self.images * self.block[1] * self.block[2]
    }

    /// Lanes of a panel.
    const fn lanes(&self, kernels: &Kernels) -> usize {
        self.vectors.max() * kernels.lanes
    }

    const fn runs_per_row(&self, desc: &ConvDesc) -> usize {
        desc.taps() / self.taps_per_run
    }

    pub(super) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels) -> usize {
        let runs = self.positions().saturating_mul(self.runs_per_row(desc));
        let runs = runs.saturating_mul(size_of::<Run>() / size_of::<f32>());
        let lanes = self.lanes(kernels);
        let rows = self.positions() * self.chunk;
        total([runs, self.chunk, rows, lanes, self.block[1] * self.block[2] * lanes], kernels.lanes)
    }

    pub(super) fn run(&self, call: &ForwardCall<'_>, part: Part<'_>) {
        let desc = call.desc;
        let Part { mut output, images, panels, space, workspace } = part;
        let lanes = self.lanes(call.kernels);
        let mut arena = Arena::new(workspace, call.kernels.lanes);
        let runs = arena.take_runs(self.positions() * self.runs_per_row(desc));
        let thresholds = arena.take(self.chunk);
        let rows = arena.take(self.positions() * self.chunk);
        let bias = arena.take(lanes);
        let result = arena.take(self.block[1] * self.block[2] * lanes);

        let depth = desc.group_in_channels() * desc.taps();
        let count = self.vectors.count();
        for block in blocks(space, self.block) {
            // The table holds for all images, and for all groups.
            let mut tabulated = None;
            for images in chunks(images.clone(), self.images) {
                if tabulated != Some(images.len()) {
                    tabulated = Some(images.len());
                    self.tabulate_runs(desc, images.len(), block, runs);
                }
                let source = &call.input[images.start * desc.input_image_len()..images.end * desc.input_image_len()];
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
    fn tabulate_runs(&self, desc: &ConvDesc, images: usize, block: Block, table: &mut [Run]) {
        let per_position = self.runs_per_row(desc);
        let table = &mut table[..images * block.len() * per_position];
        // Runs that read padding alone are empty.
        table.fill([0; 3]);
        let (runs, group_in) = (Runs::new(desc, desc.input_strides()), desc.group_in_channels());
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
                    let row = image * desc.input_image_len() + run.offset + h * step_h;
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
        let depth = desc.group_in_channels() * desc.taps();
        let vectors = self.vectors.get(panel);
        let width = vectors.len() * lanes;
        let first = vectors.start * lanes;
        let channels = first..desc.group_out_channels().min(first + width);
        let packed = self.vectors.len() * lanes * depth * group + first * depth;
        let own = |c: usize| group * desc.group_out_channels() + c;
        let channels = own(channels.start)..own(channels.end);
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
            weight: &call.weight[packed + steps.start * width..packed + steps.end * width],
            depth: steps.len(),
            vectors: vectors.len(),
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
    let (desc, group_in) = (call.desc, call.desc.group_in_channels());
    match call.thresholds {
        Thresholds::Uniform(theta) => thresholds[..steps.len()].fill(theta),
        Thresholds::PerTap(thetas) => {
            let mut step = steps.start;
            while step < steps.end {
                // Channels of one tap are adjacent.
                let (tap, channel) = (step / group_in, step % group_in);
                let len = (group_in - channel).min(steps.end - step);
                let from = &thetas[tap * desc.in_channels() + group * group_in + channel..][..len];
                thresholds[step - steps.start..][..len].copy_from_slice(from);
                step += len;
            }
        }
    }
}
