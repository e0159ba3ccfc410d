//! Gradients of the input and of the thresholds in one gather.
//!
//! For each block of inputs the kernel finishes, tap by tap, the sum over output channels that reaches the tap (`G` of
//! the formulas), and adds it to the input's gradient or to the threshold's, by the mask of eq. 5 and 6. Every input's
//! gradient is written once and in one order; nothing is scattered. A stride splits the inputs into phases, each of
//! which sees the taps of its own residue.
//!
//! Padding has no input position: where a tap reads it, x̂ = 0, so its gradient goes to the threshold if θ ≥ 0 and
//! nowhere otherwise. That part is one sum per tap over the border, apart from the hot loop.

use core::ops::Range;

use crate::blocking::{Planar, Tuning, runs};
use crate::desc::ConvDesc;
use crate::kernel::{BackwardInputPanel, Offsets, Runs, Tiles, Update, View};
use crate::panels::Panels;
use crate::parallel;
use crate::plan::{Accumulation, Thresholds};
use crate::stage::{Block, Image, Staging, blocks};
use crate::taps::{Axis, Grid, Phase};
use crate::weight::pack_backward_input;
use crate::workspace::Arena;

/// Positions per block: the panel's inputs and gradients stay in the first-level cache.
const MOST_POSITIONS: usize = 512;

/// How the backward pass of the input runs on one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackwardInputPlan {
    /// Blocks of inputs of one phase; channels are output channels.
    planar: Planar,
    /// Taps that reach one input, at most.
    taps: usize,
    /// Input channels of a group.
    panels: Panels,
    tile: usize,
    /// Panels of all groups, shared out among the threads: each owns its channels' gradients.
    parts: Panels,
}

/// Operands of a call, lengths checked.
pub(crate) struct BackwardInputCall<'a> {
    pub(crate) desc: &'a ConvDesc,
    pub(crate) tiles: &'static Tiles,
    pub(crate) input: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) thresholds: Thresholds<'a>,
    pub(crate) grad_output: &'a [f32],
    pub(crate) accumulation: Accumulation,
}

/// The channels of one thread.
struct Part<'a> {
    /// Panels of all groups.
    panels: Range<usize>,
    grad_input: View<'a>,
    /// Channel and kernel position.
    grad_thresholds: Option<View<'a>>,
    weight: &'a mut [f32],
    workspace: &'a mut [f32],
}

/// A thread at work: its part of the gradients and its buffers.
struct Worker<'a, 'c> {
    plan: &'a BackwardInputPlan,
    call: &'a BackwardInputCall<'c>,
    panels: Range<usize>,
    /// First input channel of the part.
    first_channel: usize,
    grad_input: View<'a>,
    grad_thresholds: Option<View<'a>>,
    /// Packed by [`pack_backward_input`], panel after panel.
    weight: &'a mut [f32],
    // Tables over the taps of a phase.
    offsets: &'a mut [u32],
    weight_taps: &'a mut [u32],
    staged: &'a mut [f32],
    // Of one panel over one block.
    panel_input: &'a mut [f32],
    panel_grad_input: &'a mut [f32],
    panel_thresholds: &'a mut [f32],
    panel_grad_thresholds: &'a mut [f32],
    /// One per output channel of a group.
    border: &'a mut [f32],
}

/// One block of one phase of one image.
#[derive(Clone, Copy)]
struct Site<'a> {
    phases: &'a [Phase; 3],
    image: usize,
    block: Block,
    runs: Runs,
}

impl BackwardInputPlan {
    pub(crate) fn new(desc: &ConvDesc, tiles: &Tiles, tuning: &Tuning, threads: usize) -> Self {
        let widest = [0, 1, 2].map(|axis| Phase::widest(desc, axis));
        let planar = Planar::new(&widest, desc.group_out_channels(), MOST_POSITIONS, tuning);
        // With fewer panels than threads, panels are narrowed: sums do not depend on their width.
        let share = desc.in_channels().div_ceil(threads);
        let panels = Panels::of_at_most(desc.group_in_channels(), tiles.panel.min(tuning.panel).min(share));
        Self {
            planar,
            taps: widest.iter().map(|axis| axis.taps).product(),
            panels,
            tile: tuning.tile,
            parts: Panels::into_parts(desc.groups() * panels.count(), if desc.batch() == 0 { 0 } else { threads }),
        }
    }

    /// Elements of one thread's workspace, packed weights apart.
    fn part_len(&self, desc: &ConvDesc, tiles: &Tiles) -> usize {
        let width = self.panels.max();
        2 * self.taps
            + self.planar.staged_len(tiles.lanes)
            + 2 * width * self.planar.result_len(tiles.lanes)
            + self.taps * width * (1 + tiles.lanes)
            + desc.group_out_channels()
    }

    pub(crate) fn workspace_len(&self, desc: &ConvDesc, tiles: &Tiles) -> usize {
        if self.parts.count() == 0 {
            return 0;
        }
        desc.weight_len().saturating_add(self.parts.count().saturating_mul(self.part_len(desc, tiles)))
    }

    /// First input channel of a panel, counted over all groups.
    fn panel_start(&self, desc: &ConvDesc, panel: usize) -> usize {
        let (group, panel) = (panel / self.panels.count(), panel % self.panels.count());
        group * desc.group_in_channels() + self.panels.start(panel)
    }

    pub(crate) fn run(
        &self,
        call: &BackwardInputCall<'_>,
        grad_input: &mut [f32],
        mut grad_thresholds: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) {
        let desc = call.desc;
        if call.accumulation == Accumulation::Overwrite {
            // The gradients of the thresholds are sums over blocks.
            if let Some(grad_thresholds) = &mut grad_thresholds {
                grad_thresholds.fill(0.0);
            }
        }
        if self.parts.count() == 0 {
            return;
        }
        let grad_input =
            View::new(grad_input, desc.batch(), desc.in_channels(), desc.input_size(), desc.input_strides());
        let grad_thresholds =
            grad_thresholds.map(|data| View::new(data, 1, desc.in_channels(), desc.kernel(), desc.threshold_strides()));
        let (weight, workspace) = workspace.split_at_mut(desc.weight_len());
        let part_len = self.part_len(desc, call.tiles);
        let mut rest = Some((grad_input, grad_thresholds, weight, workspace));
        let jobs = self.parts.iter().map_while(move |panels| {
            let (grad_input, grad_thresholds, weight, workspace) = rest.take()?;
            let channels = self.panel_start(desc, panels.start)..self.panel_start(desc, panels.end);
            let (grad_input, grad_input_rest) = grad_input.split(1, channels.end);
            let (grad_thresholds, grad_thresholds_rest) =
                grad_thresholds.map(|view| view.split(1, channels.end)).unzip();
            let (weight, weight_rest) = weight.split_at_mut(channels.len() * desc.group_out_channels() * desc.taps());
            let (workspace, workspace_rest) = workspace.split_at_mut(part_len);
            rest = Some((grad_input_rest, grad_thresholds_rest, weight_rest, workspace_rest));
            Some(Part { panels, grad_input, grad_thresholds, weight, workspace })
        });
        parallel::for_each(self.parts.count(), jobs, &|part| self.worker(call, part).run());
    }

    /// Group and input channels (of all groups) of a panel, counted over all groups.
    fn panel(&self, desc: &ConvDesc, panel: usize) -> (usize, Range<usize>) {
        (panel / self.panels.count(), self.panel_start(desc, panel)..self.panel_start(desc, panel + 1))
    }

    fn worker<'a, 'c>(&'a self, call: &'a BackwardInputCall<'c>, part: Part<'a>) -> Worker<'a, 'c> {
        let lanes = call.tiles.lanes;
        let (width, result_len) = (self.panels.max(), self.planar.result_len(lanes));
        let mut arena = Arena::new(part.workspace);
        Worker {
            plan: self,
            call,
            first_channel: self.panel_start(call.desc, part.panels.start),
            panels: part.panels,
            grad_input: part.grad_input,
            grad_thresholds: part.grad_thresholds,
            weight: part.weight,
            offsets: arena.take_offsets(self.taps),
            weight_taps: arena.take_offsets(self.taps),
            staged: arena.take(self.planar.staged_len(lanes)),
            panel_input: arena.take(width * result_len),
            panel_grad_input: arena.take(width * result_len),
            panel_thresholds: arena.take(self.taps * width),
            panel_grad_thresholds: arena.take(self.taps * width * lanes),
            border: arena.take(call.desc.group_out_channels()),
        }
    }
}

impl Worker<'_, '_> {
    fn run(&mut self) {
        let desc = self.call.desc;
        for panel in self.panels.clone() {
            let (group, channels) = self.plan.panel(desc, panel);
            let at = self.weight_start(channels.start);
            let first = group * desc.group_in_channels();
            let channels = channels.start - first..channels.end - first;
            pack_backward_input(desc, group, channels, self.call.weight, &mut self.weight[at..]);
        }
        let count = self.plan.panels.count();
        for group in self.panels.start / count..self.panels.end.div_ceil(count) {
            let panels = self.panels.start.max(group * count)..self.panels.end.min((group + 1) * count);
            let [depths, heights, widths] = [0, 1, 2].map(|axis| Phase::count(desc, axis));
            for (d, h) in (0..depths).flat_map(|d| (0..heights).map(move |h| (d, h))) {
                for w in 0..widths {
                    let phases = [Phase::new(desc, 0, d), Phase::new(desc, 1, h), Phase::new(desc, 2, w)];
                    self.phase(group, panels.clone(), &phases);
                }
            }
            self.add_border(group, panels);
        }
    }

    /// Where the packed weights of the panel that begins at a channel lie.
    fn weight_start(&self, channel: usize) -> usize {
        (channel - self.first_channel) * self.call.desc.group_out_channels() * self.call.desc.taps()
    }

    /// All inputs of one phase, for some panels of one group.
    fn phase(&mut self, group: usize, panels: Range<usize>, phases: &[Phase; 3]) {
        let (desc, lanes) = (self.call.desc, self.call.tiles.lanes);
        let Planar { block: size, chunk, pitch } = self.plan.planar;
        let reached = if let [Some(d), Some(h), Some(w)] = phases.map(|phase| phase.gather) {
            let grid = Grid::new([d, h, w], size);
            Some((grid, self.tabulate(phases, &grid)))
        } else {
            None
        };
        let depth = desc.group_out_channels();
        for image in 0..desc.batch() {
            let data = image_of(self.call.grad_output, desc.output_image_len(), image);
            let grad_output = Image { data, strides: desc.output_strides() };
            for block in blocks(phases.map(|phase| 0..phase.positions), size) {
                let Some((grid, taps)) = reached else {
                    self.write_zeros(panels.clone(), phases, image, block);
                    continue;
                };
                let runs = runs(block.size[1], block.size[2], grid.extent[2], lanes);
                let site = Site { phases, image, block, runs };
                let staging = Staging { grid, lanes: 1, pitch, fill: 0.0 };
                for first in (0..depth).step_by(chunk) {
                    let chunk = first..depth.min(first + chunk);
                    let channels = group * depth + chunk.start..group * depth + chunk.end;
                    staging.copy(grad_output, channels, block, self.staged);
                    for panel in panels.clone() {
                        self.panel(site, panel, taps, chunk.clone());
                    }
                }
            }
        }
    }

    /// Fills the table of taps that reach a phase; their number.
    fn tabulate(&mut self, phases: &[Phase; 3], grid: &Grid) -> usize {
        let [_, height, width] = self.call.desc.kernel();
        let [depths, heights, widths] = grid.taps();
        let mut taps = 0;
        for (d, h) in (0..depths).flat_map(|d| (0..heights).map(move |h| (d, h))) {
            for w in 0..widths {
                let [kd, kh, kw] = [phases[0].kernel(d), phases[1].kernel(h), phases[2].kernel(w)];
                // Both fit: `block_size` bounds a staged plane, `ConvDesc` the number of taps.
                self.offsets[taps] = grid.tap([d, h, w]) as u32;
                self.weight_taps[taps] = ((kd * height + kh) * width + kw) as u32;
                taps += 1;
            }
        }
        taps
    }

    /// One panel of input channels over one block, for the staged `chunk` of the group's output channels.
    fn panel(&mut self, site: Site<'_>, panel: usize, taps: usize, chunk: Range<usize>) {
        let (desc, lanes) = (self.call.desc, self.call.tiles.lanes);
        let channels = self.plan.panel(desc, panel).1;
        let (width, depth) = (channels.len(), desc.group_out_channels());
        let pitch = site.runs.result_len(lanes);
        self.stage_input(site, channels.clone(), pitch);
        let slots = self.weight_taps[..taps].iter().flat_map(|tap| channels.clone().map(move |c| (*tap, c)));
        for ((tap, channel), theta) in slots.zip(self.panel_thresholds.iter_mut()) {
            *theta = self.call.thresholds.at(desc, channel, kernel_position(desc, tap as usize));
        }
        self.panel_grad_input[..width * pitch].fill(0.0);
        self.panel_grad_thresholds[..taps * width * lanes].fill(0.0);
        let weight = &self.weight[self.weight_start(channels.start)..][..width * depth * desc.taps()];
        self.call.tiles.backward_input(BackwardInputPanel {
            source: self.staged,
            source_pitch: self.plan.planar.pitch,
            depth: chunk.len(),
            offsets: Offsets::new(&self.offsets[..taps]),
            weight_taps: Offsets::new(&self.weight_taps[..taps]),
            weight: &weight[chunk.start * width..],
            weight_pitch: depth * width,
            thresholds: self.panel_thresholds,
            channels: width,
            runs: site.runs,
            input: self.panel_input,
            grad_input: self.panel_grad_input,
            pitch,
            grad_thresholds: self.panel_grad_thresholds,
            tile: self.plan.tile,
        });
        let update = match self.call.accumulation {
            Accumulation::Overwrite if chunk.start == 0 => Update::Set(0.0),
            _ => Update::Add,
        };
        for (channel, rows) in channels.clone().zip(self.panel_grad_input.chunks(pitch)) {
            write_rows(&mut self.grad_input, site, channel, rows, update);
        }
        let Some(grad_thresholds) = &mut self.grad_thresholds else { return };
        let slots = self.weight_taps[..taps].iter().flat_map(|tap| channels.clone().map(move |c| (*tap, c)));
        for ((tap, channel), lanes) in slots.zip(self.panel_grad_thresholds.chunks_exact(lanes)) {
            let sum = lanes.iter().sum::<f32>();
            grad_thresholds.row(0, channel, kernel_position(desc, tap as usize), 1, &[sum], Update::Add);
        }
    }

    /// Lays out a panel's inputs as the kernel's results will be, NaN where there is no input.
    fn stage_input(&mut self, site: Site<'_>, channels: Range<usize>, pitch: usize) {
        let desc = self.call.desc;
        self.panel_input[..channels.len() * pitch].fill(f32::NAN);
        let input = image_of(self.call.input, desc.input_image_len(), site.image);
        let input = Image { data: input, strides: desc.input_strides() };
        let grid = Grid {
            axes: site.phases.map(|phase| phase.inputs()),
            extent: [1, site.block.size[1], site.runs.result_step],
        };
        Staging { grid, lanes: 1, pitch, fill: f32::NAN }.copy(input, channels, site.block, self.panel_input);
    }

    /// Inputs that no tap reads have no gradient.
    fn write_zeros(&mut self, panels: Range<usize>, phases: &[Phase; 3], image: usize, block: Block) {
        if self.call.accumulation == Accumulation::Add {
            return;
        }
        // Every row of the block is the same row of zeros.
        let runs = Runs { count: block.size[1], len: block.size[2], source_step: 0, result_step: 0 };
        let site = Site { phases, image, block, runs };
        let zeros = &mut self.panel_grad_input[..block.size[2]];
        zeros.fill(0.0);
        for channels in panels.map(|panel| self.plan.panel(self.call.desc, panel).1) {
            for channel in channels {
                write_rows(&mut self.grad_input, site, channel, zeros, Update::Set(0.0));
            }
        }
    }

    /// Adds to the thresholds' gradients what reaches them from padding.
    fn add_border(&mut self, group: usize, panels: Range<usize>) {
        let desc = self.call.desc;
        let depth = desc.group_out_channels();
        let axes = [0, 1, 2].map(|axis| Axis::forward(desc, axis));
        for tap in 0..desc.taps() {
            let k = kernel_position(desc, tap);
            let unpadded = [0, 1, 2].map(|axis| axes[axis].unpadded(k[axis]));
            if (0..3).all(|axis| unpadded[axis].len() == axes[axis].positions) {
                continue;
            }
            for (d, sum) in self.border.iter_mut().enumerate() {
                *sum = border_sum(desc, self.call.grad_output, group * depth + d, &unpadded);
            }
            for channels in panels.clone().map(|panel| self.plan.panel(desc, panel).1) {
                let weight = &self.weight[self.weight_start(channels.start) + tap * depth * channels.len()..];
                let width = channels.len();
                let Some(grad_thresholds) = &mut self.grad_thresholds else { return };
                for (lane, channel) in channels.enumerate() {
                    if self.call.thresholds.at(desc, channel, k) >= 0.0 {
                        let weight = weight[lane..].iter().step_by(width);
                        let sum = weight.zip(&*self.border).map(|(w, g)| w * g).sum::<f32>();
                        grad_thresholds.row(0, channel, k, 1, &[sum], Update::Add);
                    }
                }
            }
        }
    }
}

fn image_of(tensor: &[f32], len: usize, image: usize) -> &[f32] {
    &tensor[image * len..][..len]
}

/// Kernel position of a tap, counted in memory order.
fn kernel_position(desc: &ConvDesc, tap: usize) -> [usize; 3] {
    let [_, height, width] = desc.kernel();
    [tap / (height * width), tap / width % height, tap % width]
}

/// Writes the rows of one channel of one block of a phase.
fn write_rows(grad_input: &mut View<'_>, site: Site<'_>, channel: usize, rows: &[f32], update: Update) {
    let Site { phases, image, block, runs } = site;
    let input = |axis: usize, position: usize| phases[axis].first + position * phases[axis].step;
    let [d, h, w] = block.start;
    for row in 0..block.size[1] {
        let values = &rows[row * runs.result_step..][..block.size[2]];
        let at = [input(0, d), input(1, h + row), input(2, w)];
        grad_input.row(image, channel, at, phases[2].step, values, update);
    }
}

/// Sum over images of one output channel's gradient where a tap reads padding: outside the box `unpadded`.
fn border_sum(desc: &ConvDesc, grad_output: &[f32], channel: usize, unpadded: &[Range<usize>; 3]) -> f32 {
    let strides = desc.output_strides();
    let [depth, height, width] = desc.output_size();
    let mut sum = 0.0;
    for image in 0..desc.batch() {
        let plane = &image_of(grad_output, desc.output_image_len(), image)[channel * strides.channel..];
        for (d, h) in (0..depth).flat_map(|d| (0..height).map(move |h| (d, h))) {
            let row = plane[d * strides.spatial[0] + h * strides.spatial[1]..].iter().step_by(strides.spatial[2]);
            let inside = if unpadded[0].contains(&d) && unpadded[1].contains(&h) { unpadded[2].clone() } else { 0..0 };
            sum += row.clone().take(inside.start).sum::<f32>();
            sum += row.take(width).skip(inside.end).sum::<f32>();
        }
    }
    sum
}
