//! Positions in lanes.
//!
//! For each block of inputs the kernel finishes, tap by tap, the sum over output channels and adds it to the input's
//! gradient or to the threshold's. A stride splits the inputs into phases, each of which sees the taps of its own residue.

use core::ops::Range;

use super::{BackwardInputCall, InputGradient, Segment};
use crate::blocking::Planar as Blocking;
use crate::desc::ConvDesc;
use crate::geometry::{Panels, chunks};
use crate::kernel::{BackwardInputPanel, Kernels, Offsets, Runs, Update, View};
use crate::stage::{Block, Image, Staging, blocks};
use crate::sums::SegmentedSums;
use crate::taps::{Grid, Phase};
use crate::tuning::Tuning;
use crate::workspace::{Buffers, words};

/// Positions per block: the panel's inputs and gradients stay in the first-level cache.
const MOST_POSITIONS: usize = 512;

#[derive(Clone, Copy, Debug)]
pub(super) struct Planar {
    /// Blocks of inputs of one phase; channels are output channels.
    blocking: Blocking,
    /// Taps that reach one input, at most.
    taps: usize,
    /// Input channels of a group.
    panels: Panels,
    tile: usize,
}

/// A thread at work: its part of the gradients and its buffers.
struct Worker<'a, 'v, 's> {
    plan: &'a Planar,
    call: &'a BackwardInputCall<'a>,
    segment: &'a Segment<'a>,
    grad_input: &'a mut InputGradient<'v>,
    /// `[panel][tap][channel][lane]`
    sums: &'a mut SegmentedSums<'s>,
    // Tables over the taps of a phase.
    offsets: &'a mut [u32],
    weight_taps: &'a mut [u32],
    staged: &'a mut [f32],
    // Of one panel over one block.
    panel_input: &'a mut [f32],
    panel_grad_input: &'a mut [f32],
}

/// One block of one phase of one image.
#[derive(Clone, Copy)]
struct PhaseBlock<'a> {
    phases: &'a [Phase; 3],
    image: usize,
    block: Block,
    runs: Runs,
}

impl Planar {
    pub(super) const fn new(desc: &ConvDesc, tuning: &Tuning, panels: Panels) -> Self {
        let widest = Phase::all_widest(desc);
        Self {
            blocking: Blocking::new(&widest, desc.group_out_channels(), MOST_POSITIONS, tuning),
            taps: widest[0].taps * widest[1].taps * widest[2].taps,
            panels,
            tile: tuning.tile,
        }
    }

    /// One thread's: offsets and numbers of a phase's taps, staged output gradients, a panel's inputs and their gradients.
    pub(super) const fn buffers(&self, kernels: &Kernels) -> Buffers<5> {
        let panel = self.panels.max() * self.blocking.result_len(kernels.lanes);
        Buffers::new([self.taps, self.taps, self.blocking.staged_len(kernels.lanes), panel, panel], kernels.lanes)
    }

    /// Group and input channels (of all groups) of a panel, counted over all groups.
    fn panel(&self, desc: &ConvDesc, panel: usize) -> (usize, Range<usize>) {
        let group = panel / self.panels.count();
        let channels = self.panels.get(panel % self.panels.count());
        let first = group * desc.group_in_channels();
        (group, first + channels.start..first + channels.end)
    }

    pub(super) fn run(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut InputGradient<'_>,
        sums: &mut SegmentedSums<'_>,
        workspace: &mut [f32],
    ) {
        let ([offsets, weight_taps, staged, panel_input, panel_grad_input], _) =
            self.buffers(call.kernels).carve(workspace);
        let (offsets, weight_taps) = (words(offsets), words(weight_taps));
        let plan = self;
        let mut worker = Worker {
            plan,
            call,
            segment,
            grad_input,
            sums,
            offsets,
            weight_taps,
            staged,
            panel_input,
            panel_grad_input,
        };
        worker.run();
    }
}

impl Worker<'_, '_, '_> {
    fn run(&mut self) {
        let desc = self.call.desc;
        let panels = self.segment.panels.clone();
        let count = self.plan.panels.count();
        for group in panels.start / count..panels.end.div_ceil(count) {
            let panels = panels.start.max(group * count)..panels.end.min((group + 1) * count);
            let [depths, heights, widths] = [0, 1, 2].map(|axis| Phase::count(desc, axis));
            for (d, h) in (0..depths).flat_map(|d| (0..heights).map(move |h| (d, h))) {
                for w in 0..widths {
                    let phases = [Phase::new(desc, 0, d), Phase::new(desc, 1, h), Phase::new(desc, 2, w)];
                    self.phase(group, panels.clone(), &phases);
                }
            }
        }
    }

    /// All inputs of one phase, for some panels of one group.
    fn phase(&mut self, group: usize, panels: Range<usize>, phases: &[Phase; 3]) {
        let (desc, lanes) = (self.call.desc, self.call.kernels.lanes);
        let Blocking { block: size, chunk, pitch } = self.plan.blocking;
        let reached = if let [Some(d), Some(h), Some(w)] = phases.map(|phase| phase.gather) {
            let grid = Grid::new([d, h, w], size);
            Some((grid, self.tabulate(phases, &grid)))
        } else {
            None
        };
        let depth = desc.group_out_channels();
        for image in self.segment.images.clone() {
            let grad_output = Image::of(&desc.output_tensor(), self.call.grad_output, image);
            for block in blocks(phases.map(|phase| 0..phase.positions), size) {
                let Some((grid, taps)) = reached else {
                    self.write_zeros(panels.clone(), phases, image, block);
                    continue;
                };
                let runs = Runs::of(block.size[1], block.size[2], grid.extent[2], lanes);
                let site = PhaseBlock { phases, image, block, runs };
                let staging = Staging { grid, lanes: 1, pitch, fill: 0.0 };
                for chunk in chunks(0..depth, chunk) {
                    let channels = group * depth + chunk.start..group * depth + chunk.end;
                    staging.copy(self.call.kernels, grad_output, channels, block, self.staged);
                    for panel in panels.clone() {
                        self.panel(site, panel, taps, chunk.clone());
                    }
                }
                self.sums.advance(block.len());
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
    fn panel(&mut self, site: PhaseBlock<'_>, panel: usize, taps: usize, chunk: Range<usize>) {
        let (desc, lanes) = (self.call.desc, self.call.kernels.lanes);
        let (_, channels) = self.plan.panel(desc, panel);
        let (width, depth) = (channels.len(), desc.group_out_channels());
        let pitch = site.runs.result_len(lanes);
        if let Some(input) = self.call.input {
            self.stage_input(input, site, channels.clone(), pitch);
        }
        self.panel_grad_input[..width * pitch].fill(0.0);
        let weight = self.segment.packing.panel(desc, self.call.weight, panel);
        let table = self.segment.table_start(desc, panel);
        self.call.kernels.backward_input(BackwardInputPanel {
            source: self.staged,
            source_pitch: self.plan.blocking.pitch,
            depth: chunk.len(),
            offsets: Offsets::new(&self.offsets[..taps]),
            weight_taps: Offsets::new(&self.weight_taps[..taps]),
            weight: &weight[chunk.start * width..],
            weight_pitch: depth * width,
            thresholds: &self.segment.thresholds[table..][..width * desc.taps()],
            channels: width,
            runs: site.runs,
            input: self.call.input.map(|_| &*self.panel_input),
            grad_input: self.panel_grad_input,
            pitch,
            grad_thresholds: &mut self.sums.current[table * lanes..][..width * desc.taps() * lanes],
            tile: self.plan.tile,
        });
        let update = if self.grad_input.add || chunk.start > 0 { Update::Add } else { Update::Set(0.0) };
        if let Some(view) = &mut self.grad_input.view {
            for (channel, rows) in channels.clone().zip(self.panel_grad_input.chunks(pitch)) {
                write_rows(view, site, channel, rows, update);
            }
        }
    }

    /// Lays out a panel's inputs as the kernel's results will be, NaN where there is no input.
    fn stage_input(&mut self, input: &[f32], site: PhaseBlock<'_>, channels: Range<usize>, pitch: usize) {
        let desc = self.call.desc;
        self.panel_input[..channels.len() * pitch].fill(f32::NAN);
        let input = Image::of(&desc.input_tensor(), input, site.image);
        let grid = Grid {
            axes: site.phases.map(|phase| phase.inputs()),
            extent: [1, site.block.size[1], site.runs.result_step],
        };
        Staging { grid, lanes: 1, pitch, fill: f32::NAN }.copy(
            self.call.kernels,
            input,
            channels,
            site.block,
            self.panel_input,
        );
    }

    /// Inputs that no tap reads have no gradient.
    fn write_zeros(&mut self, panels: Range<usize>, phases: &[Phase; 3], image: usize, block: Block) {
        let Some(view) = self.grad_input.view.as_mut().filter(|_| !self.grad_input.add) else { return };
        // Every row of the block is the same row of zeros.
        let runs = Runs { count: block.size[1], len: block.size[2], source_step: 0, result_step: 0 };
        let site = PhaseBlock { phases, image, block, runs };
        let zeros = &mut self.panel_grad_input[..block.size[2]];
        zeros.fill(0.0);
        for channels in panels.map(|panel| self.plan.panel(self.call.desc, panel).1) {
            for channel in channels {
                write_rows(view, site, channel, zeros, Update::Set(0.0));
            }
        }
    }
}

/// Writes the rows of one channel of one block of a phase.
fn write_rows(grad_input: &mut View<'_>, site: PhaseBlock<'_>, channel: usize, rows: &[f32], update: Update) {
    let PhaseBlock { phases, image, block, runs } = site;
    let input = |axis: usize, position: usize| phases[axis].first + position * phases[axis].step;
    let [d, h, w] = block.start;
    for row in 0..block.size[1] {
        let values = &rows[row * runs.result_step..][..block.size[2]];
        let at = [input(0, d), input(1, h + row), input(2, w)];
        grad_input.row(image, channel, at, phases[2].step, values, update);
    }
}
