//! Driver of the input's gradient with positions in lanes.
//!
//! For each block of inputs the kernel computes, tap by tap, the sum over output channels, and adds it in place to the input's
//! gradient or to the threshold's. A stride splits the inputs into phases: the inputs with the same residue modulo the stride are
//! read through the same taps.

use core::ops::Range;

use super::{InputGradient, Segment};
use crate::arith::product;
use crate::blocking::Planar as Blocking;
use crate::calls::BackwardInputCall;
use crate::desc::ConvDesc;
use crate::geometry::chunks;
use crate::kernel::{BackwardInputPanels, Kernels, Offsets, PanelBlock, Positions};
use crate::stage::{Block, Image, Staging, blocks};
use crate::sums::SegmentedSums;
use crate::taps::{Grid, Phase};
use crate::tuning::Tuning;
use crate::workspace::{Buffers, words};

/// The most positions per block. What the panels read of it then stays in the second-level cache.
const MOST_POSITIONS: usize = 512;

#[derive(Clone, Copy, Debug)]
pub(super) struct Planar {
    /// Blocks of inputs of one phase. Its channels are output channels.
    blocking: Blocking,
    /// The most taps that read one input.
    taps: usize,
    tile: usize,
}

/// The state of a thread: its part of the gradients and its buffers.
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
}

/// One block of one phase of one image, and the staged data that it reads.
#[derive(Clone, Copy)]
struct Site<'a> {
    phases: &'a [Phase; 3],
    image: usize,
    block: Block,
    grid: &'a Grid,
    taps: usize,
}

/// Coordinates of a block's first input and its last.
fn corners(phases: &[Phase; 3], block: &Block) -> [[usize; 3]; 2] {
    let at = |axis: usize, position: usize| phases[axis].first + position * phases[axis].step;
    let Block { start, size } = block;
    [[0, 1, 2].map(|axis| at(axis, start[axis])), [0, 1, 2].map(|axis| at(axis, start[axis] + size[axis] - 1))]
}

impl Planar {
    pub(super) const fn new(desc: &ConvDesc, tuning: &Tuning) -> Self {
        let widest = Phase::all_widest(desc);
        Self {
            blocking: Blocking::new(&widest, desc.group_out_channels(), MOST_POSITIONS, tuning),
            taps: product([widest[0].taps, widest[1].taps, widest[2].taps]),
            tile: tuning.tile,
        }
    }

    /// The buffers of one thread: offsets and numbers of a phase's taps, staged output gradients.
    pub(super) const fn buffers(&self, kernels: &Kernels) -> Buffers<3> {
        Buffers::new([self.taps, self.taps, self.blocking.staged_len(kernels.lanes)], kernels.lanes)
    }

    pub(super) fn run(
        &self,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'_>,
        grad_input: &mut InputGradient<'_>,
        sums: &mut SegmentedSums<'_>,
        workspace: &mut [f32],
    ) {
        let ([offsets, weight_taps, staged], _) = self.buffers(call.kernels).carve(workspace);
        let (offsets, weight_taps) = (words(offsets), words(weight_taps));
        Worker { plan: self, call, segment, grad_input, sums, offsets, weight_taps, staged }.run();
    }
}

impl Worker<'_, '_, '_> {
    fn run(&mut self) {
        let desc = self.call.desc;
        let panels = self.segment.panels.clone();
        let count = self.segment.packing.panels().count();
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

    /// Computes all inputs of one phase, for some panels of one group.
    fn phase(&mut self, group: usize, panels: Range<usize>, phases: &[Phase; 3]) {
        let desc = self.call.desc;
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
            let space = [0, 1, 2].map(|axis| phases[axis].within(&self.segment.space[axis]));
            for block in blocks(space, size) {
                let Some((grid, taps)) = &reached else {
                    self.write_zeros(panels.clone(), phases, image, block);
                    continue;
                };
                let site = Site { phases, image, block, grid, taps: *taps };
                for chunk in chunks(0..depth, chunk) {
                    let channels = group * depth + chunk.start..group * depth + chunk.end;
                    let staging = Staging { grid: *grid, lanes: 1, pitch, fill: 0.0 };
                    staging.copy(self.call.kernels, grad_output, channels, block, self.staged);
                    self.panels(site, panels.clone(), chunk);
                }
                self.sums.advance(block.len());
            }
        }
    }

    /// Fills the table of the taps that read a phase. Returns their number.
    fn tabulate(&mut self, phases: &[Phase; 3], grid: &Grid) -> usize {
        let [_, height, width] = self.call.desc.kernel();
        let [depths, heights, widths] = grid.taps();
        let mut taps = 0;
        for (d, h) in (0..depths).flat_map(|d| (0..heights).map(move |h| (d, h))) {
            for w in 0..widths {
                let [kd, kh, kw] = [phases[0].kernel(d), phases[1].kernel(h), phases[2].kernel(w)];
                // Both fit 32 bits: `block_size` bounds a staged plane, and `ConvDesc` bounds the number of taps.
                self.offsets[taps] = grid.tap([d, h, w]) as u32;
                self.weight_taps[taps] = ((kd * height + kh) * width + kw) as u32;
                taps += 1;
            }
        }
        taps
    }

    /// Computes some panels of a group over one block, for the staged `chunk` of the group's output channels.
    fn panels(&mut self, site: Site<'_>, panels: Range<usize>, chunk: Range<usize>) {
        let (desc, lanes, packing) = (self.call.desc, self.call.kernels.lanes, &self.segment.packing);
        let [first, last] = corners(site.phases, &site.block);
        let tensor = desc.input_tensor();
        let [_, height, width] = desc.input_size();
        let position = |[d, h, w]: [usize; 3]| (d * height + h) * width + w;
        let channels = packing.channel_of_all(desc, panels.start)..packing.channel_of_all(desc, panels.end);
        let input = self.call.input.map(|input| {
            let at = first.iter().zip(tensor.strides.spatial).map(|(at, stride)| at * stride).sum::<usize>();
            &tensor.image(input, site.image)[channels.start * tensor.strides.channel + at..]
        });
        let grad_input = self
            .grad_input
            .view
            .as_mut()
            .map(|view| view.runs(site.image, channels.clone(), position(first)..position(last) + 1));
        let depth = packing.depth(desc);
        let table = self.segment.table_start(desc, panels.start);
        let slots = channels.len() * desc.taps();
        let (_, first_panel) = packing.panel_of_all(panels.start);
        let [_, rows, columns] = site.block.size;
        self.call.kernels.backward_input(BackwardInputPanels {
            source: self.staged,
            source_pitch: self.plan.blocking.pitch,
            depth: chunk.len(),
            all_depth: desc.group_out_channels(),
            first_step: chunk.start,
            offsets: Offsets::new(&self.offsets[..site.taps]),
            weight_taps: Offsets::new(&self.weight_taps[..site.taps]),
            all_taps: desc.taps(),
            weight: &self.call.weight
                [packing.lane_of_all(panels.start) * depth..packing.lane_of_all(panels.end) * depth],
            thresholds: &self.segment.thresholds[table..][..slots],
            block: PanelBlock {
                panels: packing.panels(),
                range: first_panel..first_panel + panels.len(),
                positions: Positions {
                    rows,
                    columns,
                    source_row: site.grid.extent[2],
                    // Saturates only if there is a single row, and then no step is taken.
                    row: site.phases[1].step.saturating_mul(width),
                    column: site.phases[2].step,
                },
                tile: self.plan.tile,
            },
            input,
            step: tensor.strides.channel,
            apart: tensor.strides.spatial[2],
            grad_input,
            add: self.grad_input.add || chunk.start > 0,
            grad_thresholds: &mut self.sums.current[table * lanes..][..slots * lanes],
        });
    }

    /// Writes zeros: inputs that no tap reads have a gradient of zero.
    fn write_zeros(&mut self, panels: Range<usize>, phases: &[Phase; 3], image: usize, block: Block) {
        let Some(view) = self.grad_input.view.as_mut().filter(|_| !self.grad_input.add) else { return };
        let [[d, h, w], _] = corners(phases, &block);
        let packing = &self.segment.packing;
        let desc = self.call.desc;
        for channel in packing.channel_of_all(desc, panels.start)..packing.channel_of_all(desc, panels.end) {
            for row in 0..block.size[1] {
                let at = [d, h + row * phases[1].step, w];
                view.fill(image, channel, at, phases[2].step, block.size[2], 0.0);
            }
        }
    }
}
