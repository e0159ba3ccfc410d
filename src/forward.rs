//! The forward pass: for each block of output positions, stage the input, then run panels of output channels over it.
//!
//! Positions lie in lanes whatever the layout: staging transposes channels-last images on the way. The reduction over
//! (input channel, tap) is one loop over a table of offsets, so rank, stride and dilation do not reach the kernel.

use core::ops::Range;

use crate::blocking::{Planar, Tuning, runs};
use crate::desc::{ConvDesc, volume};
use crate::kernel::{ForwardPanel, Offsets, Tiles, Update, View};
use crate::layout::Layout;
use crate::panels::Panels;
use crate::parallel;
use crate::plan::Thresholds;
use crate::stage::{Block, Image, Staging, blocks};
use crate::taps::{Axis, Grid};
use crate::workspace::Arena;

/// Elements of a panel's result that stay in the first-level cache beside what the kernel reads.
const RESULT_LEN: usize = 16 * 1024;

/// How the forward pass of one layer runs on one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardPlan {
    planar: Planar,
    grid: Grid,
    /// The image itself serves as its staged copy.
    direct: bool,
    /// Output channels of a group.
    pub(crate) panels: Panels,
    tile: usize,
    split: Split,
}

/// What the threads share out among themselves. Outputs do not depend on it: each is summed in one order.
#[derive(Clone, Copy, Debug)]
struct Split {
    /// Axis of the output: 0 images, 1 panels of channels, 2 to 4 depth, height, width.
    axis: usize,
    /// Images, panels of all groups, or positions.
    parts: Panels,
}

/// The output that one thread computes.
struct Part<'a> {
    output: View<'a>,
    /// Panels of all groups.
    panels: Range<usize>,
    workspace: &'a mut [f32],
}

/// Operands of a call, lengths checked.
pub(crate) struct ForwardCall<'a> {
    pub(crate) desc: &'a ConvDesc,
    pub(crate) tiles: &'static Tiles,
    pub(crate) input: &'a [f32],
    /// Packed by [`pack_forward`](crate::weight::pack_forward).
    pub(crate) weight: &'a [f32],
    pub(crate) thresholds: Thresholds<'a>,
    pub(crate) bias: Option<&'a [f32]>,
}

impl ForwardPlan {
    pub(crate) fn new(desc: &ConvDesc, tiles: &Tiles, tuning: &Tuning, threads: usize) -> Self {
        let axes = [Axis::forward(desc, 0), Axis::forward(desc, 1), Axis::forward(desc, 2)];
        let panels = Panels::of_at_most(desc.group_out_channels(), tiles.panel.min(tuning.panel));
        let mut planar = Planar::new(&axes, desc.group_in_channels(), RESULT_LEN / panels.max(), tuning);
        let mut grid = Grid::new(axes, planar.block);
        let direct = reads_in_place(desc, &axes, planar.block, tiles.lanes);
        if direct {
            grid = Grid::of_source(axes);
            planar.pitch = grid.len();
            planar.chunk = desc.group_in_channels();
        }
        let split = Split::new(desc, panels, tiles, threads);
        Self { planar, grid, direct, panels, tile: tuning.tile, split }
    }

    /// Elements of one thread's workspace.
    fn part_len(&self, desc: &ConvDesc, tiles: &Tiles) -> usize {
        let steps = self.planar.chunk * desc.taps();
        let staged = if self.direct { 0 } else { self.planar.staged_len(tiles.lanes) };
        2 * steps + staged + self.panels.max() * self.planar.result_len(tiles.lanes)
    }

    /// Elements of workspace, packed weights apart.
    pub(crate) fn workspace_len(&self, desc: &ConvDesc, tiles: &Tiles) -> usize {
        self.split.parts.count().saturating_mul(self.part_len(desc, tiles))
    }

    pub(crate) fn run(&self, call: &ForwardCall<'_>, output: &mut [f32], workspace: &mut [f32]) {
        let desc = call.desc;
        let part_len = self.part_len(desc, call.tiles);
        let output = View::new(output, desc.batch(), desc.out_channels(), desc.output_size(), desc.output_strides());
        let Split { axis, parts } = self.split;
        let mut rest = Some((output, workspace));
        let jobs = parts.iter().map_while(move |range| {
            let (output, workspace) = rest.take()?;
            let end = if axis == 1 { self.panel_start(desc, range.end) } else { range.end };
            let (output, output_rest) = output.split(axis, end);
            let (workspace, workspace_rest) = workspace.split_at_mut(part_len);
            rest = Some((output_rest, workspace_rest));
            let panels = if axis == 1 { range } else { 0..desc.groups() * self.panels.count() };
            Some(Part { output, panels, workspace })
        });
        parallel::for_each(parts.count(), jobs, &|part| self.run_part(call, part));
    }

    /// First output channel of a panel, counted over all groups.
    fn panel_start(&self, desc: &ConvDesc, panel: usize) -> usize {
        let (group, panel) = (panel / self.panels.count(), panel % self.panels.count());
        group * desc.group_out_channels() + self.panels.start(panel)
    }

    fn run_part(&self, call: &ForwardCall<'_>, part: Part<'_>) {
        let (desc, lanes) = (call.desc, call.tiles.lanes);
        let Planar { block, chunk, pitch } = self.planar;
        let Part { mut output, panels, workspace } = part;
        let mut arena = Arena::new(workspace);
        let offsets = arena.take_offsets(chunk * desc.taps());
        let thresholds = arena.take(chunk * desc.taps());
        let staged = arena.take(if self.direct { 0 } else { self.planar.staged_len(lanes) });
        let result = arena.take(self.panels.max() * self.planar.result_len(lanes));

        let staging = Staging { grid: self.grid, lanes: 1, pitch, fill: 0.0 };
        let space = [output.claim(2), output.claim(3), output.claim(4)];
        let in_channels = desc.group_in_channels();
        let mut table_of = None;
        for image in output.claim(0) {
            let image_input = &call.input[image * desc.input_image_len()..][..desc.input_image_len()];
            let source = Image { data: image_input, strides: desc.input_strides() };
            for group in panels.start / self.panels.count()..panels.end.div_ceil(self.panels.count()) {
                for block in blocks(space.clone(), block) {
                    let runs = runs(block.size[1], block.size[2], self.grid.extent[2], lanes);
                    for first in (0..in_channels).step_by(chunk) {
                        let channels = first..in_channels.min(first + chunk);
                        let steps = channels.len() * desc.taps();
                        let input_channels = group * in_channels + first..group * in_channels + channels.end;
                        if table_of != Some(input_channels.start) {
                            table_of = Some(input_channels.start);
                            self.tabulate(call, input_channels.clone(), offsets, thresholds);
                        }
                        let source = if self.direct {
                            &image_input[input_channels.start * pitch + self.grid.position(block.start)..]
                        } else {
                            staging.copy(source, input_channels, block, staged);
                            &*staged
                        };
                        let offsets = Offsets::new(&offsets[..steps]);
                        for panel in 0..self.panels.count() {
                            if !panels.contains(&(group * self.panels.count() + panel)) {
                                continue;
                            }
                            let panel = self.panels.get(panel);
                            let width = panel.len();
                            let out_channel = group * desc.group_out_channels() + panel.start;
                            let filters = &call.weight[out_channel * in_channels * desc.taps()..];
                            let result_pitch = runs.result_len(lanes);
                            call.tiles.forward(ForwardPanel {
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

    /// Fills the table of (input channel, tap): where to read, and the threshold.
    fn tabulate(&self, call: &ForwardCall<'_>, channels: Range<usize>, offsets: &mut [u32], thresholds: &mut [f32]) {
        let [depth, height, width] = self.grid.taps();
        let mut table = offsets.iter_mut().zip(thresholds);
        for (index, channel) in channels.enumerate() {
            for (d, h) in (0..depth).flat_map(|d| (0..height).map(move |h| (d, h))) {
                for (w, (offset, theta)) in (0..width).zip(&mut table) {
                    // Fits: chunks of several channels are bounded by the staging length, single channels by
                    // `block_size`, images read in place by `reads_in_place`.
                    *offset = (index * self.planar.pitch + self.grid.tap([d, h, w])) as u32;
                    *theta = call.thresholds.at(call.desc, channel, [d, h, w]);
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

/// Whether the kernels may read the image where it lies: planes, unit stride, nothing padded, and every block made of
/// whole vectors, so that none is read beyond the image.
fn reads_in_place(desc: &ConvDesc, axes: &[Axis; 3], block: [usize; 3], lanes: usize) -> bool {
    let sizes = |axis: usize| [block[axis], (axes[axis].positions - 1) % block[axis] + 1];
    let whole_vectors = |height, width| runs(height, width, axes[2].source, lanes).len.is_multiple_of(lanes);
    desc.layout() == Layout::Nchw
        && desc.stride() == [1; 3]
        && desc.padding_before() == [0; 3]
        && desc.padding_after() == [0; 3]
        && desc.input_image_len() <= u32::MAX as usize
        && sizes(1).iter().all(|&height| sizes(2).iter().all(|&width| whole_vectors(height, width)))
}

impl Split {
    /// Images if they share out evenly, else positions where there are enough of them, else panels of channels.
    fn new(desc: &ConvDesc, panels: Panels, tiles: &Tiles, threads: usize) -> Self {
        let of = |axis, len| Self { axis, parts: Panels::into_parts(len, threads) };
        let (batch, output) = (desc.batch(), desc.output_size());
        if threads <= 1 || batch.is_multiple_of(threads) || batch / 4 >= threads {
            return of(0, batch);
        }
        // Enough that each thread's share still fills its tiles.
        let longest = if output[0] >= threads {
            0
        } else if output[1] >= threads {
            1
        } else {
            2
        };
        if volume(output) >= threads.saturating_mul(16 * tiles.lanes) && output[longest] >= threads {
            return of(2 + longest, output[longest]);
        }
        of(1, desc.groups() * panels.count())
    }
}
