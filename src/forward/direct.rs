//! Forward driver with positions in lanes. For each block of output positions it stages the input, then runs panels of output
//! channels over the staged copy.
//!
//! The lanes hold positions in both layouts: staging transposes images with channels last. The sum over (input channel, tap) is
//! one loop over a table of offsets, so the kernel need not know rank, stride and dilation.

use super::{OutputPart, panels_of_group, tabulate};
use crate::blocking::Planar;
use crate::calls::ForwardCall;
use crate::desc::ConvDesc;
use crate::geometry::chunks;
use crate::kernel::{self, ForwardPanels, Kernels, Offsets, PanelBlock, Positions};
use crate::stage::{Image, Staging, blocks};
use crate::taps::{Axis, Grid};
use crate::tuning::Tuning;
use crate::weight::Packing;
use crate::workspace::{Buffers, words};

#[derive(Clone, Copy, Debug)]
pub(super) struct Direct {
    planar: Planar,
    grid: Grid,
    /// Whether the image itself serves as its staged copy.
    in_place: bool,
    packing: Packing,
    tile: usize,
}

impl Direct {
    pub(super) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning, packing: Packing) -> Self {
        let axes = Axis::all_forward(desc);
        let mut planar = Planar::new(&axes, desc.group_in_channels(), usize::MAX, tuning);
        let mut grid = Grid::new(axes, planar.block);
        // Scalar code is faster without a copy: to copy takes about as long as to sum. Vectors are faster with a copy: planes
        // that lie far apart would miss the caches, and the last vector of an image would read beyond it.
        let in_place = kernels.lanes == 1 && desc.reads_whole_planes();
        if in_place {
            grid = Grid::of_source(axes);
            let [_, height, width] = desc.output_size();
            planar = Planar { block: [1, height, width], chunk: desc.group_in_channels(), pitch: grid.len() };
        }
        Self { planar, grid, in_place, packing, tile: tuning.tile }
    }

    /// The buffers of one thread: offsets and thresholds of a chunk's steps, staged planes, the values from which a group's sums
    /// start.
    pub(super) const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<4> {
        let steps = self.planar.chunk * desc.taps();
        let staged = if self.in_place { 0 } else { self.planar.staged_len(kernels.lanes) };
        Buffers::new([steps, steps, staged, desc.group_out_channels()], kernels.lanes)
    }

    pub(super) fn run(&self, call: &ForwardCall<'_>, part: OutputPart<'_>) {
        let desc = call.desc;
        let Planar { block, chunk, pitch } = self.planar;
        let OutputPart { mut output, images, panels, space, workspace } = part;
        let ([offsets, thresholds, staged, start], _) = self.buffers(desc, call.kernels).carve(workspace);
        let offsets = words(offsets);

        let staging = Staging { grid: self.grid, lanes: 1, pitch, fill: 0.0 };
        let in_channels = desc.group_in_channels();
        let tensor = desc.input_tensor();
        let count = self.packing.panels().count();
        let mut table_of = None;
        for image in images {
            let source = Image::of(&tensor, call.input, image);
            for group in panels.start / count..panels.end.div_ceil(count) {
                let panels = panels_of_group(&panels, count, group);
                let first_channel = self.packing.channel_of_all(desc, group * count + panels.start);
                let out_channels = first_channel..self.packing.channel_of_all(desc, group * count + panels.end);
                let start = &mut start[..out_channels.len()];
                let depth = self.packing.depth(desc);
                let weight = &call.weight[first_channel * depth..out_channels.end * depth];
                for block in blocks(space.clone(), block) {
                    let ([d, h, w], [_, rows, columns]) = (block.start, block.size);
                    let [_, height, width] = desc.output_size();
                    let position = (d * height + h) * width + w;
                    let positions = position..position + (rows - 1) * width + columns;
                    for channels in chunks(0..in_channels, chunk) {
                        let first = channels.start;
                        let steps = channels.len() * desc.taps();
                        let input_channels = group * in_channels + first..group * in_channels + channels.end;
                        if table_of != Some(input_channels.start) {
                            table_of = Some(input_channels.start);
                            tabulate(call, &self.grid, pitch, input_channels.clone(), offsets, thresholds);
                        }
                        let source = if self.in_place {
                            &source.data[input_channels.start * pitch + self.grid.position(block.start)..]
                        } else {
                            staging.copy(call.kernels, source, input_channels, block, staged);
                            &*staged
                        };
                        let offsets = Offsets::new(&offsets[..steps]);
                        match call.bias {
                            Some(bias) if first == 0 => start.copy_from_slice(&bias[out_channels.clone()]),
                            _ => start.fill(0.0),
                        }
                        let own = Positions { rows, columns, source_row: self.grid.extent[2], row: width, column: 1 };
                        let block = PanelBlock {
                            panels: self.packing.panels(),
                            range: panels.clone(),
                            positions: own,
                            tile: self.tile,
                        };
                        let output = output.runs(image, out_channels.clone(), positions.clone());
                        let [starts, ends] = [first == 0, channels.end == in_channels];
                        // This filter changes no result: a program that never makes an epilogue has none here. But the optimiser
                        // cannot see that across the calls. The filter lets it leave the code of epilogues out.
                        let epilogue = call.epilogue.filter(|_| kernel::epilogues_made());
                        let ending =
                            epilogue.map(|epilogue| epilogue.from(out_channels.start, output.offset).of(starts, ends));
                        call.kernels.forward(ForwardPanels {
                            source,
                            offsets,
                            thresholds: &thresholds[..steps],
                            weight,
                            first_step: first * desc.taps(),
                            depth,
                            block,
                            start,
                            add: !starts && ending.is_none(),
                            output,
                            ending,
                        });
                    }
                }
            }
        }
    }
}
