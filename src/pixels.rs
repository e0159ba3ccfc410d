//! Pixels with their channels together, as kernels with channels in lanes read and write them. A tensor with channels last
//! already consists of such pixels. If a tensor has channels first, or pixels that lie too far apart, the driver copies windows
//! of it.
//!
//! ```text
//! for each block of positions
//!   copy the window that they read        [image][depth][height][width][channel], transposed if need be
//!   for each panel of channels
//!     compute                             into [image][depth][height][width][channel of the panel]
//!     store the results                   transposed back
//! ```
//!
//! A block is as large as fits the second-level cache together with its window ([`Blocks`]). To transpose an element costs a third
//! of a cycle to a cycle. The element then serves one multiply-add for each tap and each channel of the other tensor. If these are few, kernels
//! with positions in lanes are faster.

use core::ops::Range;

use crate::arith::{clamp, max, product};
use crate::desc::ConvDesc;
use crate::geometry::{Panels, Reads, Steps, chunks};
use crate::kernel::{CopyBlock, Epilogue, FinishRows, Kernels, RowsMut, TransposeBlock, View};
use crate::layout::{Layout, TensorLayout};
use crate::stage::Block;
use crate::strided;
use crate::workspace::row_pitch;

/// Where pixels lie: some images, and along each axis some coordinates at a constant step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pixels {
    // The place of the first pixel's first channel.
    image: usize,
    first: [usize; 3],
    channel: usize,
    /// Coordinates from a pixel to the next one, per axis.
    step: [usize; 3],
    /// Elements from a pixel to the next one, along images and axes.
    strides: [usize; 4],
}

impl Pixels {
    /// A tensor's own.
    pub(crate) fn of(tensor: &TensorLayout) -> Self {
        Self { image: 0, first: [0; 3], channel: 0, step: [1; 3], strides: tensor.steps([1; 3]) }
    }

    /// The offset of a channel of one pixel.
    pub(crate) fn at(&self, image: usize, coordinates: [usize; 3], channel: usize) -> usize {
        let [i, d, h, w] = self.strides;
        let along = |axis: usize| steps_of(coordinates[axis] - self.first[axis], self.step[axis]);
        (image - self.image) * i + along(0) * d + along(1) * h + along(2) * w + channel - self.channel
    }

    /// Elements from an image to the next, and to the pixels that are `apart` coordinates away along each axis. Saturates: a step
    /// along an axis with a single pixel is never taken.
    pub(crate) fn steps(&self, apart: [usize; 3]) -> [usize; 4] {
        let [i, strides @ ..] = self.strides;
        let [d, h, w] = [0, 1, 2].map(|axis| steps_of(apart[axis], self.step[axis]).saturating_mul(strides[axis]));
        [i, d, h, w]
    }
}

/// `coordinates / step`. Skips the division, which is slow, where the step is 1.
const fn steps_of(coordinates: usize, step: usize) -> usize {
    if step == 1 { coordinates } else { coordinates / step }
}

/// A box of pixels to copy, a few channels of them.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) images: Range<usize>,
    /// Coordinates along each axis.
    pub(crate) axes: [Steps; 3],
    pub(crate) channels: Range<usize>,
    /// Elements from a pixel of the copy to the next one, at least the channels.
    pub(crate) pitch: usize,
}

impl Window {
    /// How the copy lies in memory.
    pub(crate) fn pixels(&self) -> Pixels {
        let [depth, height, width] = self.axes.map(|axis| axis.count);
        let row = width * self.pitch;
        Pixels {
            image: self.images.start,
            first: self.axes.map(|axis| axis.first),
            channel: self.channels.start,
            step: self.axes.map(|axis| axis.step),
            strides: [depth * height * row, height * row, row, self.pitch],
        }
    }

    /// Copies the pixels of a tensor.
    pub(crate) fn copy(&self, kernels: &Kernels, tensor: &TensorLayout, data: &[f32], to: &mut [f32]) {
        let [depths, heights, widths] = self.axes;
        let (len, [sd, sh, sw]) = (self.channels.len(), tensor.strides.spatial);
        if len == 0 || heights.count == 0 || widths.count == 0 {
            return;
        }
        // Rows that follow one another without a gap are copied as one row.
        let whole = heights.step == 1 && widths.step == 1 && widths.count == tensor.size[2];
        let (rows, row) = if whole { (1, heights.count * widths.count) } else { (heights.count, widths.count) };
        let slab = rows * row * self.pitch;
        let mut to = to.chunks_exact_mut(slab);
        for image in self.images.clone() {
            let first = image * tensor.image_stride + self.channels.start * tensor.strides.channel;
            let first = first + heights.first * sh + widths.first * sw;
            // The copy has room for all slabs.
            for (depth, to) in (0..depths.count).zip(&mut to) {
                let from = &data[first + depths.at(depth) * sd..];
                // The channels of a pixel lie together, or some apart.
                if tensor.channels_last() || tensor.strides.channel < sw {
                    kernels.copy(CopyBlock {
                        from,
                        from_plane: heights.step.saturating_mul(sh),
                        from_row: widths.step.saturating_mul(sw),
                        step: tensor.strides.channel,
                        to,
                        to_plane: row * self.pitch,
                        to_row: self.pitch,
                        planes: rows,
                        rows: row,
                        len,
                    });
                    continue;
                }
                for (h, to) in to.chunks_exact_mut(row * self.pitch).enumerate() {
                    kernels.transpose(TransposeBlock {
                        from: &from[h * heights.step * sh..],
                        from_step: tensor.strides.channel,
                        from_column: widths.step,
                        to: RowsMut::of_slice(to, row, self.pitch, len),
                    });
                }
            }
        }
    }
}

/// Which part of a tensor is copied for a block of positions: the channels of a few groups at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copies {
    groups: Panels,
    per_group: usize,
    /// Most pixels of a window.
    window: usize,
}

impl Copies {
    /// Groups with fewer channels are copied together with neighbouring groups, because neighbouring elements share cache lines:
    /// 64 channels are four lines. (No measurement of other numbers is recorded.)
    const LEAST_CHANNELS: usize = 64;

    /// Groups that are copied together.
    const fn groups(groups: usize, per_group: usize) -> Panels {
        Panels::of_at_most(groups, clamp(Self::LEAST_CHANNELS / per_group, 1, groups))
    }

    /// Elements from a pixel of a copy to the next one.
    const fn pitch(&self) -> usize {
        row_pitch(self.groups.max() * self.per_group)
    }

    /// Most pixels of a window.
    pub(crate) const fn window(&self) -> usize {
        self.window
    }

    /// Elements of the largest copy.
    pub(crate) const fn len(&self) -> usize {
        self.window.saturating_mul(self.pitch())
    }

    /// The channels that are copied together with those of a group, these included.
    fn channels(&self, group: usize) -> Range<usize> {
        let Range { start, end } = self.groups.get(self.groups.index(group));
        start * self.per_group..end * self.per_group
    }
}

/// The source of a block: a tensor, or the copy of a window of it.
pub(crate) struct Source {
    /// Whether the copy holds the window's channels yet.
    copied: Option<(Copies, Window, bool)>,
    pixels: Pixels,
}

impl Source {
    /// The source of a block that reads some images at some coordinates along each axis.
    pub(crate) fn new(copies: Option<Copies>, tensor: &TensorLayout, images: Range<usize>, axes: [Steps; 3]) -> Self {
        match copies {
            None => Self { copied: None, pixels: Pixels::of(tensor) },
            Some(copies) => {
                let window = Window { images, axes, channels: copies.channels(0), pitch: copies.pitch() };
                Self { pixels: window.pixels(), copied: Some((copies, window, false)) }
            }
        }
    }

    /// The buffer that holds the pixels of a group: `data`, or `copy`. The copy is filled first if it does not hold them yet.
    pub(crate) fn of_group<'a>(
        &mut self,
        group: usize,
        kernels: &Kernels,
        tensor: &TensorLayout,
        data: &'a [f32],
        copy: &'a mut [f32],
    ) -> &'a [f32] {
        let Some((copies, window, copied)) = &mut self.copied else { return data };
        let channels = copies.channels(group);
        if !*copied || window.channels != channels {
            (window.channels, *copied) = (channels, true);
            self.pixels = window.pixels();
            window.copy(kernels, tensor, data, copy);
        }
        copy
    }

    /// Whether it is a copy.
    pub(crate) const fn is_copy(&self) -> bool {
        self.copied.is_some()
    }

    /// How the pixels of the last group lie in their buffer.
    pub(crate) const fn pixels(&self) -> &Pixels {
        &self.pixels
    }
}

/// Results of a block of some images, one panel of channels.
pub(crate) struct Results {
    pub(crate) images: Range<usize>,
    pub(crate) block: Block,
    /// Lanes of the panel.
    pub(crate) width: usize,
}

impl Results {
    /// The results as a tensor whose first image and first position are those of the block.
    pub(crate) fn tensor(&self) -> TensorLayout {
        TensorLayout::new(Layout::Nhwc, self.images.len(), self.width, self.block.size, self.width)
    }

    /// Loads the values that [`store`](Self::store) would overwrite.
    pub(crate) fn load(&self, kernels: &Kernels, from: &mut View<'_>, channels: Range<usize>, to: &mut [f32]) {
        self.rows(from.size(), to.len(), |index, image, positions| {
            let to = &mut to[index * positions.len() * self.width..][..positions.len() * self.width];
            for (lane, channel) in channels.clone().enumerate() {
                kernels.transpose(TransposeBlock {
                    from: from.run_mut(image, channel, positions.clone()),
                    from_step: 1,
                    from_column: 1,
                    to: RowsMut::of_slice(&mut to[lane..], positions.len(), self.width, 1),
                });
            }
        });
    }

    /// Fills the first lanes of each pixel with one value per channel, the others with zeros.
    pub(crate) fn begin(&self, values: &[f32], to: &mut [f32]) {
        let pixels = self.images.len() * self.block.len();
        let (first, rest) = to[..pixels * self.width].split_at_mut(self.width);
        let (own, others) = first.split_at_mut(values.len());
        own.copy_from_slice(values);
        others.fill(0.0);
        strided::repeat(first, rest);
    }

    /// Stores the first lanes of each pixel as channels of planes. An epilogue changes them before.
    pub(crate) fn store(
        &self,
        kernels: &Kernels,
        from: &[f32],
        channels: Range<usize>,
        to: &mut View<'_>,
        epilogue: Option<&Epilogue<'_>>,
    ) {
        if let Some(epilogue) = epilogue {
            return self.finish(kernels, from, channels, to, epilogue);
        }
        self.rows(to.size(), from.len(), |index, image, positions| {
            kernels.transpose(TransposeBlock {
                from: &from[index * positions.len() * self.width..][..positions.len() * self.width],
                from_step: self.width,
                from_column: 1,
                to: to.runs(image, channels.clone(), positions),
            });
        });
    }

    /// As [`store`](Self::store), with an epilogue. The first lanes are transposed into a copy in the first-level cache, from
    /// where the epilogue takes them.
    #[inline(never)]
    fn finish(
        &self,
        kernels: &Kernels,
        from: &[f32],
        channels: Range<usize>,
        to: &mut View<'_>,
        epilogue: &Epilogue<'_>,
    ) {
        /// Elements of the copy, 8 KiB.
        const COPY: usize = 2048;
        /// The least positions in a row of the copy, unless there are fewer. The transposition works on squares of vectors.
        const LEAST: usize = 16;
        let mut copy = [0.0; COPY];
        self.rows(to.size(), from.len(), |index, image, positions| {
            let from = &from[index * positions.len() * self.width..];
            for own in chunks(channels.clone(), COPY / LEAST) {
                let most = COPY / own.len() / LEAST * LEAST;
                for part in chunks(positions.clone(), most) {
                    kernels.transpose(TransposeBlock {
                        from: &from[(part.start - positions.start) * self.width + own.start - channels.start..],
                        from_step: self.width,
                        from_column: 1,
                        to: RowsMut::of_slice(&mut copy, own.len(), part.len(), part.len()),
                    });
                    let from_step = part.len();
                    let to = to.runs(image, own.clone(), part);
                    let ending = epilogue.from(own.start, to.offset);
                    kernels.finish_rows(FinishRows { from: &copy, from_step, to, ending });
                }
            }
        });
    }

    /// Visits the runs of the block's positions. The positions of a run are adjacent in a plane of the given size. The visitor
    /// gets the number of the run, its image and its positions.
    fn rows(&self, size: [usize; 3], room: usize, mut visit: impl FnMut(usize, usize, Range<usize>)) {
        let ([d, h, w], [depth, height, width]) = (self.block.start, self.block.size);
        let [_, heights, widths] = size;
        // The rows of a whole plane are one run.
        let (rows, len) = if width == widths { (1, height * width) } else { (height, width) };
        assert!(self.images.len() * self.block.len() * self.width <= room);
        let mut index = 0;
        for image in self.images.clone() {
            for (d, h) in (d..d + depth).flat_map(|d| (h..h + rows).map(move |h| (d, h))) {
                let position = (d * heights + h) * widths + w;
                visit(index, image, position..position + len);
                index += 1;
            }
        }
    }
}

/// Which window a block of positions has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Outputs read inputs.
    Forward,
    /// Inputs read outputs.
    Backward,
}

impl Reading {
    /// Most pixels that a box of positions reads; saturates.
    pub(crate) const fn window(self, reads: &[Reads; 3], block: [usize; 3]) -> usize {
        product([self.most(&reads[0], block[0]), self.most(&reads[1], block[1]), self.most(&reads[2], block[2])])
    }

    /// What a box of positions reads, along each axis.
    pub(crate) fn read(self, reads: &[Reads; 3], block: &Block) -> [Steps; 3] {
        [0, 1, 2].map(|axis| {
            let positions = block.start[axis]..block.start[axis] + block.size[axis];
            match self {
                Self::Forward => reads[axis].read_by(positions),
                Self::Backward => reads[axis].readers(positions),
            }
        })
    }

    /// Most coordinates along an axis that so many positions in a row read.
    const fn most(self, reads: &Reads, positions: usize) -> usize {
        match self {
            Self::Forward => reads.most_read(positions),
            Self::Backward => reads.most_readers(positions),
        }
    }
}

/// A block of at most this many positions may take [`MOST_FOR_FEW`] times the elements of its budget. Each block reads all
/// weights of the layer again, so blocks must not be too small. If planes are small, tiles run along the images, and a block
/// needs several images. (No measurement of other numbers is recorded.)
const FEW_POSITIONS: usize = 192;

/// The factor by which such a block may exceed its budget, which is a part of the second-level cache. It still fits a core's
/// share of the last cache: 8 times 160 KiB are 1.25 MiB.
const MOST_FOR_FEW: usize = 8;

/// Blocks of positions whose windows are copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    /// Images of a block, and its positions along each axis.
    pub(crate) images: usize,
    pub(crate) block: [usize; 3],
    pub(crate) copies: Copies,
}

/// What a block may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Channels per group of what is copied.
    pub(crate) per_group: usize,
    /// Elements of a position's results.
    pub(crate) per_position: usize,
    /// Elements of the copy and the results together.
    pub(crate) most: usize,
    /// Positions.
    pub(crate) positions: usize,
}

impl Blocks {
    /// The largest blocks that a budget allows. A block holds all positions along the inner axes and some along one axis (images
    /// are the outermost axis). None if not even one position fits.
    pub(crate) const fn new(desc: &ConvDesc, reading: Reading, budget: Budget) -> Option<Self> {
        Self::of_groups(desc, reading, Copies::groups(desc.groups(), budget.per_group), budget)
    }

    /// As [`new`](Self::new), with groups that the caller has chosen to copy together.
    pub(crate) const fn of_groups(desc: &ConvDesc, reading: Reading, groups: Panels, budget: Budget) -> Option<Self> {
        let size = match reading {
            Reading::Forward => desc.output_size(),
            Reading::Backward => desc.input_size(),
        };
        let [depth, height, width] = size;
        let of = Plan { reads: Reads::all_forward(desc), reading, groups, budget };
        let size = [max(desc.batch(), 1), depth, height, width];
        let (mut block, mut cut) = (size, 0);
        while !of.fits(block) {
            if block[cut] == 1 {
                cut += 1;
                if cut == block.len() {
                    return None;
                }
            }
            // Bisection for the most positions along this axis. `fit` positions fit, and `over` positions do not.
            let (mut fit, mut over) = (1, block[cut]);
            while over - fit > 1 {
                let middle = fit + (over - fit) / 2;
                block[cut] = middle;
                if of.fits(block) { fit = middle } else { over = middle }
            }
            block[cut] = fit;
        }
        block[cut] = Panels::of_at_most(size[cut], block[cut]).max();
        let [images, d, h, w] = block;
        let block = [d, h, w];
        let copies = Copies { groups, per_group: budget.per_group, window: images.saturating_mul(of.window(block)) };
        Some(Self { images, block, copies })
    }

    /// Most positions of a block.
    pub(crate) const fn positions(&self) -> usize {
        self.images * product(self.block)
    }
}

/// The numbers from which the size of a block follows.
struct Plan {
    reads: [Reads; 3],
    reading: Reading,
    groups: Panels,
    budget: Budget,
}

impl Plan {
    /// Most pixels of a block's window in an image; saturates.
    const fn window(&self, block: [usize; 3]) -> usize {
        self.reading.window(&self.reads, block)
    }

    /// Elements of an image's part of a block; saturates.
    const fn elements(&self, block: [usize; 3]) -> usize {
        let per_pixel = row_pitch(self.groups.max() * self.budget.per_group);
        let window = self.window(block).saturating_mul(per_pixel);
        window.saturating_add(product(block).saturating_mul(self.budget.per_position))
    }

    /// Whether a block of so many images and positions stays within the budget.
    const fn fits(&self, [images, d, h, w]: [usize; 4]) -> bool {
        let positions = product([d, h, w]).saturating_mul(images);
        let elements = self.elements([d, h, w]).saturating_mul(images);
        let most = self.budget.most;
        let few = positions <= FEW_POSITIONS && elements <= most.saturating_mul(MOST_FOR_FEW);
        positions <= self.budget.positions && (elements <= most || few)
    }
}
