//! Patches packed as columns: positions in lanes, weights broadcast.
//!
//! For each block of output positions and each chunk of input channels, planes are staged (padded; transposed, if the
//! layout is channels last), the clamped patches of a tile of positions are packed as `[step][lane]`, and all output
//! channels are multiplied with them while they stay in the first-level cache. Weights too large for the second-level
//! cache are cut into groups of panels, each of which meets several packed tiles.
//!
//! Positions are counted over whole images, so small images share tiles: no lane is lost to the end of a row.

use core::ops::Range;

use super::{ForwardCall, OutputPart, Split, panels_of_group, tabulate};
use crate::arith::{clamp, equal, max, min};
use crate::blocking::{Budget, block_size, block_sizes};
use crate::desc::ConvDesc;
use crate::geometry::{Panels, chunks};
use crate::kernel::{Kernels, Offsets, PatchColumns, Product, ProductRows, Start, TileMut, Update, View};
use crate::layout::Layout;
use crate::stage::{Block, Image, Staging, blocks, plane_pitch};
use crate::taps::{Axis, Grid};
use crate::tuning::Tuning;
use crate::weight::Packing;
use crate::workspace::{Buffers, words};

/// Elements of a chunk's weights that stay in the second-level cache while they stream by.
const WEIGHT_LEN: usize = 48 * 1024;

/// Elements of packed tiles that stay in the second-level cache beside them.
const PACKED_LEN: usize = 32 * 1024;

/// Elements of packed tiles that stay in the first-level cache, where no more are needed.
const FRESH_LEN: usize = 6 * 1024;

/// Most tiles that are packed at a time.
const MOST_TILES: usize = 8;

/// Positions of a block over several images.
const MOST_POSITIONS: usize = 512;

#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    block: [usize; 3],
    /// Images per block.
    images: usize,
    grid: Grid,
    /// The images themselves serve as their staged copy.
    in_place: bool,
    /// Distance of the channels' planes, and of images within them.
    pitch: usize,
    image_pitch: usize,
    /// Input channels at a time.
    chunk: usize,
    packing: Packing,
    /// Panels that stream by at a time.
    panels_at_once: usize,
    /// Vectors of a tile.
    vectors: usize,
    /// Tiles that are packed at a time.
    tiles_at_once: usize,
}

/// A block of some images.
#[derive(Clone)]
struct ImageBlocks {
    images: Range<usize>,
    /// Its first position, and the number of its positions, within each image.
    first: usize,
    positions: usize,
}

impl ImageBlocks {
    /// Image and position of the block's position `index`.
    fn at(&self, index: usize) -> (usize, usize) {
        (self.images.start + index / self.positions, self.first + index % self.positions)
    }

    fn len(&self) -> usize {
        self.images.len() * self.positions
    }
}

impl Columns {
    pub(super) const fn new(
        desc: &ConvDesc,
        kernels: &Kernels,
        tuning: &Tuning,
        packing: Packing,
        split: &Split,
    ) -> Self {
        let panels = packing.panels();
        let axes = Axis::all_forward(desc);
        let channels = desc.group_in_channels();
        let depth = min(kernels.product_depth, tuning.depth);
        let chunk = max(Panels::of_at_most(channels, max(depth / desc.taps(), 1)).max(), 1);
        let block = block_size(&axes, Budget::staged(tuning.positions, tuning.staging_len, chunk));
        let mut grid = Grid::new(axes, block);
        let positions = block[1] * block[2];
        let mut images = 1;
        if equal(block, desc.output_size()) {
            let staged = tuning.staging_len / grid.len().saturating_mul(chunk);
            let together = min(MOST_POSITIONS, tuning.positions) / positions;
            images = clamp(min(staged, together), 1, max(desc.batch(), 1));
        }
        let in_place = reads_in_place(desc, split, block, kernels.lanes);
        let (mut pitch, mut image_pitch) = (plane_pitch(images * grid.len()), grid.len());
        if in_place {
            grid = Grid::of_source(axes);
            (pitch, image_pitch) = (grid.len(), desc.input_tensor().image_stride);
            images = min(images, max(u32::MAX as usize / image_pitch, 1));
        }
        let steps = chunk * desc.taps();
        let vectors = min(kernels.product_vectors, tuning.tile);
        let weight_len = desc.group_out_channels().saturating_mul(steps);
        let packed_len = if weight_len <= WEIGHT_LEN { FRESH_LEN } else { PACKED_LEN };
        let tile_len = steps.saturating_mul(vectors * kernels.lanes);
        Self {
            block,
            images,
            grid,
            in_place,
            pitch,
            image_pitch,
            chunk,
            packing,
            panels_at_once: clamp(WEIGHT_LEN / steps.saturating_mul(panels.max()), 1, panels.count()),
            vectors,
            tiles_at_once: clamp(packed_len / tile_len, 1, MOST_TILES),
        }
    }

    const fn lanes(&self, kernels: &Kernels) -> usize {
        self.vectors * kernels.lanes
    }

    const fn staged_len(&self, kernels: &Kernels) -> usize {
        // The lanes beyond the last position read on.
        if self.in_place { 0 } else { self.chunk * self.pitch + kernels.lanes }
    }

    /// Positions of a block, in whole vectors.
    const fn positions_len(&self, kernels: &Kernels) -> usize {
        (self.images * self.block[1] * self.block[2]).next_multiple_of(kernels.lanes)
    }

    /// Rows of the result of a tile whose lanes are not all adjacent in the output.
    const fn result_rows(&self) -> usize {
        self.panels_at_once * self.packing.panels().max()
    }

    /// One thread's: offsets and thresholds of a chunk's steps, a block's positions, staged planes, packed tiles, and the
    /// result of a tile whose lanes are not all adjacent in the output.
    pub(super) const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<6> {
        let steps = self.chunk * desc.taps();
        let packed = self.tiles_at_once * steps * self.lanes(kernels);
        let result = self.result_rows() * self.lanes(kernels);
        let (positions, staged) = (self.positions_len(kernels), self.staged_len(kernels));
        Buffers::new([steps, steps, positions, staged, packed, result], kernels.lanes)
    }

    pub(super) fn run(&self, call: &ForwardCall<'_>, part: OutputPart<'_>) {
        let (desc, kernels) = (call.desc, call.kernels);
        let OutputPart { mut output, images, panels, space, workspace } = part;
        let ([offsets, thresholds, positions, staged, packed, result], _) =
            self.buffers(desc, kernels).carve(workspace);
        let (offsets, positions) = (words(offsets), words(positions));

        let in_channels = desc.group_in_channels();
        let count = self.packing.panels().count();
        let mut table_of = None;
        for images in chunks(images, self.images) {
            for group in panels.start / count..panels.end.div_ceil(count) {
                let panels = panels_of_group(&panels, count, group);
                for block in blocks(space.clone(), self.block) {
                    let [d, h, w] = block.start;
                    let [_, height, width] = desc.output_size();
                    let part = ImageBlocks {
                        images: images.clone(),
                        first: (d * height + h) * width + w,
                        positions: block.size[1] * block.size[2],
                    };
                    self.tabulate_positions(block, &part, positions);
                    for channels in chunks(group * in_channels..(group + 1) * in_channels, self.chunk) {
                        let first = channels.start - group * in_channels;
                        let steps = channels.len() * desc.taps();
                        if table_of != Some(channels.start) {
                            table_of = Some(channels.start);
                            tabulate(call, &self.grid, self.pitch, channels.clone(), offsets, thresholds);
                        }
                        let source = self.stage(call, channels, &part, block, staged);
                        let patches = Patches {
                            source,
                            offsets: Offsets::new(&offsets[..steps]),
                            thresholds: &thresholds[..steps],
                            first_step: first * desc.taps(),
                            positions,
                        };
                        let group_panels = GroupPanels {
                            weight: self.packing.group(desc, call.weight, group),
                            first_channel: group * desc.group_out_channels(),
                            range: panels.clone(),
                        };
                        self.multiply(call, &part, &patches, &group_panels, packed, &mut output, result);
                    }
                }
            }
        }
    }

    /// Where each position of a block reads through an offset of 0.
    fn tabulate_positions(&self, block: Block, part: &ImageBlocks, positions: &mut [u32]) {
        let origin = if self.in_place { self.grid.position(block.start) } else { 0 };
        let mut next = positions.iter_mut();
        let mut last = 0;
        for image in 0..part.images.len() {
            for row in 0..block.size[1] {
                let first = origin + image * self.image_pitch + row * self.grid.extent[2];
                for (w, position) in next.by_ref().take(block.size[2]).enumerate() {
                    // Fits: `staging_len` bounds several images, `block_size` one, `in_place` the images themselves.
                    *position = (first + w) as u32;
                    last = *position;
                }
            }
        }
        // Lanes beyond the last position are computed and dropped.
        for (position, beyond) in next.zip(1..) {
            *position = last + beyond;
        }
    }

    /// The planes of `channels` for a block of some images.
    fn stage<'a>(
        &self,
        call: &ForwardCall<'a>,
        channels: Range<usize>,
        part: &ImageBlocks,
        block: Block,
        staged: &'a mut [f32],
    ) -> &'a [f32] {
        let tensor = call.desc.input_tensor();
        if self.in_place {
            return &tensor.image_range(call.input, part.images.clone())[channels.start * self.pitch..];
        }
        let staging = Staging { grid: self.grid, lanes: 1, pitch: self.pitch, fill: 0.0 };
        for (index, image) in part.images.clone().enumerate() {
            let image = Image::of(&tensor, call.input, image);
            let staged = &mut staged[index * self.image_pitch..];
            staging.copy(call.kernels, image, channels.clone(), block, staged);
        }
        staged
    }

    /// Packs the patches of one chunk and multiplies them with some panels of weights.
    #[expect(clippy::too_many_arguments, reason = "what to multiply, and three buffers")]
    fn multiply(
        &self,
        call: &ForwardCall<'_>,
        part: &ImageBlocks,
        patches: &Patches<'_>,
        group: &GroupPanels<'_>,
        packed: &mut [f32],
        output: &mut View<'_>,
        result: &mut [f32],
    ) {
        let lanes = self.lanes(call.kernels);
        let steps = patches.thresholds.len();
        for first_tile in (0..part.len()).step_by(lanes * self.tiles_at_once) {
            let packed_tiles = (first_tile..part.len()).step_by(lanes).take(self.tiles_at_once);
            let used = (lanes * self.tiles_at_once).min(part.len() - first_tile).next_multiple_of(call.kernels.lanes);
            call.kernels.pack_columns(PatchColumns {
                source: patches.source,
                offsets: patches.offsets,
                thresholds: patches.thresholds,
                positions: &patches.positions[first_tile..][..used],
                lanes,
                columns: packed,
            });
            for range in chunks(group.range.clone(), self.panels_at_once) {
                for (index, packed) in packed_tiles.clone().zip(packed.chunks_exact(steps * lanes)) {
                    self.multiply_tile(call, part, patches, group, range.clone(), index, packed, output, result);
                }
            }
        }
    }

    /// One packed tile, the positions from `index` on, times some panels.
    #[expect(clippy::too_many_arguments, reason = "what to multiply, and three buffers")]
    fn multiply_tile(
        &self,
        call: &ForwardCall<'_>,
        part: &ImageBlocks,
        patches: &Patches<'_>,
        group: &GroupPanels<'_>,
        range: Range<usize>,
        index: usize,
        packed: &[f32],
        output: &mut View<'_>,
        result: &mut [f32],
    ) {
        let (desc, lanes) = (call.desc, call.kernels.lanes);
        let panels = self.packing.panels();
        let channels = group.first_channel + panels.start(range.start)..group.first_channel + panels.start(range.end);
        let bias = call.bias.map(|bias| &bias[channels.clone()]);
        let rows = ProductRows {
            data: group.weight,
            panels,
            range,
            depth: desc.group_in_channels() * desc.taps(),
            first_step: patches.first_step,
        };
        let used = (self.vectors * lanes).min(part.len() - index);
        let vectors = used.div_ceil(lanes);
        let product = |start, output| Product { rows, columns: packed, depth: patches.thresholds.len(), start, output };
        let whole = |v: usize| {
            let first = index + v * lanes;
            first + lanes <= part.len() && first % part.positions + lanes <= part.positions
        };
        // The same start on both ways, for which one a position takes depends on how images are shared out.
        let start = match bias {
            _ if patches.first_step > 0 => Start::Output,
            None => Start::Zero,
            Some(bias) => Start::Rows(bias),
        };
        if desc.layout() == Layout::Nchw && (0..vectors).all(whole) {
            let at = (0..vectors).map(|v| part.at(index + v * lanes));
            call.kernels.product(product(start, output.tile_of_channels(channels, at, lanes)));
            return;
        }
        let runs = || {
            let mut done = 0;
            core::iter::from_fn(move || {
                let (image, position) = part.at(index + done);
                let run = done..used.min(done + part.first + part.positions - position);
                done = run.end;
                (!run.is_empty()).then_some((image, position, run))
            })
        };
        if patches.first_step > 0 {
            for (row, channel) in result.chunks_exact_mut(vectors * lanes).zip(channels.clone()) {
                runs().for_each(|(image, position, run)| output.load_run(image, channel, position, &mut row[run]));
            }
        }
        let tile = TileMut::of_slice(result, channels.len(), vectors, lanes);
        call.kernels.product(product(start, tile));
        for (row, channel) in result.chunks_exact(vectors * lanes).zip(channels) {
            for (image, position, run) in runs() {
                output.run(image, channel, position, &row[run], Update::COPY);
            }
        }
    }
}

/// What the patches of one chunk of channels are made of.
struct Patches<'a> {
    source: &'a [f32],
    offsets: Offsets<'a>,
    thresholds: &'a [f32],
    /// Where the chunk begins among the steps of the layer.
    first_step: usize,
    /// Of the block, in whole vectors.
    positions: &'a [u32],
}

/// Some panels of one group.
struct GroupPanels<'a> {
    /// All of the group's packed weights.
    weight: &'a [f32],
    first_channel: usize,
    range: Range<usize>,
}

/// Whether patches may be packed from the images where they lie: planes, unit stride, nothing padded, and every
/// block of every thread's part made of whole vectors, so that none is read beyond the image.
const fn reads_in_place(desc: &ConvDesc, split: &Split, block: [usize; 3], lanes: usize) -> bool {
    let sizes = block_sizes(split.extents(desc), block);
    let mut i = 0;
    while i < sizes.len() {
        let [height, width] = sizes[i];
        if !(height * width).is_multiple_of(lanes) {
            return false;
        }
        i += 1;
    }
    desc.reads_whole_planes()
}
