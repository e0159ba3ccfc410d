//! The forward pass: for each block of output positions, stage the input, then run panels of output channels over it.
//!
//! Positions lie in lanes whatever the layout: staging transposes channels-last images on the way. The reduction over
//! (input channel, tap) is one loop over a table of offsets, so rank, stride and dilation do not reach the kernel.

use super::{ForwardCall, OutputPart, Split, panels_of_group, tabulate};
use crate::blocking::{Planar, block_sizes, runs};
use crate::desc::ConvDesc;
use crate::geometry::chunks;
use crate::kernel::{ForwardPanel, Kernels, Offsets, Update, View};
use crate::stage::{Block, Image, Staging, blocks};
use crate::taps::{Axis, Grid};
use crate::tuning::Tuning;
use crate::weight::Packing;
use crate::workspace::{Buffers, words};

/// Elements of a panel's result that stay in the first-level cache beside what the kernel reads.
const RESULT_LEN: usize = 16 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Direct {
    planar: Planar,
    grid: Grid,
    /// The image itself serves as its staged copy.
    in_place: bool,
    packing: Packing,
    tile: usize,
}

impl Direct {
    pub(super) const fn new(
        desc: &ConvDesc,
        kernels: &Kernels,
        tuning: &Tuning,
        packing: Packing,
        split: &Split,
    ) -> Self {
        let axes = Axis::all_forward(desc);
        let mut planar = Planar::new(&axes, desc.group_in_channels(), RESULT_LEN / packing.panels().max(), tuning);
        let mut grid = Grid::new(axes, planar.block);
        let in_place = reads_in_place(desc, split, planar.block, kernels.lanes);
        if in_place {
            grid = Grid::of_source(axes);
            planar.pitch = grid.len();
            planar.chunk = desc.group_in_channels();
        }
        Self { planar, grid, in_place, packing, tile: tuning.tile }
    }

    /// One thread's: offsets and thresholds of a chunk's steps, staged planes, a panel's result.
    pub(super) const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<4> {
        let steps = self.planar.chunk * desc.taps();
        let staged = if self.in_place { 0 } else { self.planar.staged_len(kernels.lanes) };
        let result = self.packing.panels().max() * self.planar.result_len(kernels.lanes);
        Buffers::new([steps, steps, staged, result], kernels.lanes)
    }

    pub(super) fn run(&self, call: &ForwardCall<'_>, part: OutputPart<'_>) {
        let (desc, lanes) = (call.desc, call.kernels.lanes);
        let Planar { block, chunk, pitch } = self.planar;
        let OutputPart { mut output, images, panels, space, workspace } = part;
        let ([offsets, thresholds, staged, result], _) = self.buffers(desc, call.kernels).carve(workspace);
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
                for block in blocks(space.clone(), block) {
                    let runs = runs(block.size[1], block.size[2], self.grid.extent[2], lanes);
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
                        for panel in panels.clone() {
                            let panel = group * count + panel;
                            let out_channel = self.packing.channel_of_all(desc, panel);
                            let width = self.packing.channel_of_all(desc, panel + 1) - out_channel;
                            let filters = self.packing.panel(desc, call.weight, panel);
                            let result_pitch = runs.result_len(lanes);
                            call.kernels.forward(ForwardPanel {
                                source,
                                offsets,
                                thresholds: &thresholds[..steps],
                                weight: &filters[first * desc.taps() * width..][..steps * width],
                                channels: width,
                                runs,
                                result,
                                pitch: result_pitch,
                                tile: self.tile,
                            });
                            for (c, rows) in (out_channel..).zip(result.chunks(result_pitch)).take(width) {
                                let update = match call.bias {
                                    _ if first > 0 => Update::Add,
                                    None => Update::Set(0.0),
                                    Some(bias) => Update::Set(bias[c]),
                                };
                                write_rows(&mut output, image, c, block, rows, runs.result_step, update);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Writes the rows of one channel of one block.
fn write_rows(
    output: &mut View<'_>,
    image: usize,
    channel: usize,
    block: Block,
    rows: &[f32],
    row_step: usize,
    update: Update,
) {
    let [d, h, w] = block.start;
    for row in 0..block.size[1] {
        let values = &rows[row * row_step..][..block.size[2]];
        output.row(image, channel, [d, h + row, w], 1, values, update);
    }
}

/// Whether the kernels may read the image where it lies: planes, unit stride, nothing padded, and every block of
/// every thread's part made of whole vectors, so that none is read beyond the image.
const fn reads_in_place(desc: &ConvDesc, split: &Split, block: [usize; 3], lanes: usize) -> bool {
    let sizes = block_sizes(split.extents(desc), block);
    let mut i = 0;
    while i < sizes.len() {
        let [height, width] = sizes[i];
        if !runs(height, width, desc.input_size()[2], lanes).len.is_multiple_of(lanes) {
            return false;
        }
        i += 1;
    }
    desc.reads_whole_planes()
}
