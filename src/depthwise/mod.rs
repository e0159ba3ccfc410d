//! Depthwise layers, in which each output channel has a single input channel: geometry and drivers of all passes. The gradient of
//! the weight also takes groups of a few channels, as several depthwise layers.
//!
//! The lanes hold channels. Tensors with channels last are read and written in place. Of tensors with channels first, windows are
//! transposed, a few vectors of channels at a time ([`crate::pixels`]). Where the rows of planes are long, and neighbouring
//! columns read neighbouring inputs, the lanes hold columns instead ([`Strips`]), and nothing is copied.
//!
//! ```text
//! for each image
//!   for each group of channels                  all of them, channels last
//!     for each block of positions               it stays in the second-level cache
//!       (channels first: its windows are transposed)
//!       for each box of rows                    they read inside through the same kernel rows
//!         a call of the kernel
//! ```
//!
//! | module | |
//! |---|---|
//! | [`geometry`] | rows, phases of columns, segments of taps |
//! | [`forward`], [`backward_input`], [`backward_weight`] | the drivers |

pub(crate) mod backward_input;
pub(crate) mod backward_weight;
pub(crate) mod forward;
mod geometry;
mod outside;

use core::ops::Range;

use crate::arith::{clamp, max, min, product};
use crate::desc::{ConvDesc, volume};
use crate::geometry::{Panels, Reads, SEGMENT, Steps};
use crate::kernel::{CopyBlock, Kernels, Line, Own, RowsMut, SegmentWords, Thetas, TransposeBlock, Walk};
use crate::layout::{Layout, TensorLayout};
use crate::pixels::{Blocks, Budget, Pixels, Reading, Window};
use crate::stage::{Block, largest_block};
use crate::thresholds::ThresholdTable;
use crate::tuning::Tuning;
use crate::workspace::{ROW_GAP, words};

use geometry::{Rows, Strips};

/// Elements of a block's copies, and of all channels that are copied together: 384 KiB, a part of the second-level cache. What a
/// walk sets up is paid once for so many channels. (Zen 4: with 64 KiB, layers of 14×14 pixels took 1.3 to 1.6 times as long.)
const COPIED_LEN: usize = 96 * 1024;

/// The most vectors of channels that are copied together.
const MOST_TOGETHER: usize = 32;

/// Elements of a block where nothing is copied: 1 MiB, about a second-level cache. Smaller blocks need more walks, and what these set
/// up costs more than the cache gives.
const BLOCK_LEN: usize = 256 * 1024;

/// Elements of coefficients and sums that stay in the first-level cache: 32 KiB. The second number bounds the tensors for which
/// channels are cut into chunks: in larger ones, each chunk would walk over too many pages of memory again.
const CHUNK_LEN: usize = 8 * 1024;
const CHUNKED_LEN: usize = 512 * 1024;

/// How a pass walks its tensors.
#[derive(Clone, Copy, Debug)]
struct Blocking {
    /// Positions along each axis.
    block: [usize; 3],
    /// The channels of a block, and those that go through all rows of a kernel's call together.
    channels: usize,
    chunk: usize,
    /// Elements from a pixel of a copy to the next one.
    pitch: usize,
    /// The most pixels that a block reads, if they are copied.
    window: Option<usize>,
    /// Whether the block's own pixels are copied as well.
    copies_own: bool,
    /// Whether columns are in the lanes.
    strips: bool,
}

/// Whether a tile reads more pixels at once than the first-level cache holds of them, so that they are copied. Pixels a multiple of
/// 4096 bytes apart share one set of eight lines. What the cache fetches ahead needs these lines, too, so a few more pixels than
/// lines are already twice as slow. A copy costs less than that, but more than a layer with few taps loses.
const fn far_apart(desc: &ConvDesc, pitch: usize) -> bool {
    const TILE: usize = 8;
    const MOST_LINES: usize = 16;
    let [depth, height, width] = desc.kernel();
    pitch.is_multiple_of(1024) && (TILE + width - 1).saturating_mul(depth * height) > MOST_LINES
}

/// Whether tables of offsets, which have 32 bits, reach all elements of an image.
const fn fits_tables(desc: &ConvDesc) -> bool {
    max(desc.input_tensor().image_len(), desc.output_tensor().image_len()) < u32::MAX as usize
}

/// Whether a layer is depthwise, with one output channel for each input channel.
const fn is_depthwise(desc: &ConvDesc) -> bool {
    desc.group_in_channels() == 1 && desc.group_out_channels() == 1 && fits_tables(desc)
}

impl Blocking {
    /// That of a pass of a depthwise layer; None if the layer is not depthwise.
    const fn of_depthwise(
        desc: &ConvDesc,
        kernels: &Kernels,
        tuning: &Tuning,
        reading: Reading,
        lens: [usize; 2],
    ) -> Option<Self> {
        if is_depthwise(desc) { Self::new(desc, kernels, tuning, reading, lens, [1; 2]) } else { None }
    }

    /// The blocking of a pass of a layer that is depthwise. Its tensors have `own` elements per position and channel, and its tables
    /// `tables` elements per tap and channel. `apart` are the distances of two channels of a pixel, in the source and in the pass's
    /// own tensors, where channels are last. None if not even the window of one position fits.
    const fn new(
        desc: &ConvDesc,
        kernels: &Kernels,
        tuning: &Tuning,
        reading: Reading,
        [own, tables]: [usize; 2],
        apart: [usize; 2],
    ) -> Option<Self> {
        let lanes = kernels.lanes;
        let channels = desc.in_channels();
        let (size, source, far_apart) = match reading {
            Reading::Forward => (desc.output_size(), volume(desc.input_size()), far_apart(desc, desc.input_pitch())),
            Reading::Backward => (desc.input_size(), volume(desc.output_size()), far_apart(desc, desc.output_pitch())),
        };
        let most = min(tuning.positions, SEGMENT);
        let per_vector = tables * desc.taps() * lanes;
        let vectors = max(min(CHUNK_LEN, tuning.staging_len) / per_vector, 2);
        let all = channels.div_ceil(lanes);
        let transposes = !matches!(desc.tensor_layout(), Layout::Nhwc);
        if matches!(desc.layout(), Layout::Nchw) && Strips::apply(desc) && size[2] / lanes >= tuning.strips && lanes > 1
        {
            let block = largest_block(size, most);
            return Some(Self {
                block,
                channels,
                chunk: all * lanes,
                pitch: channels,
                window: None,
                copies_own: false,
                strips: true,
            });
        }
        let copies_source = transposes || far_apart || apart[0] > 1;
        let copies_own = transposes || apart[1] > 1;
        if !(copies_source || copies_own) {
            let most = clamp(min(BLOCK_LEN, tuning.staging_len.saturating_mul(6)) / (own + 1) / channels, 1, most);
            let len = (own * volume(size) + source).saturating_mul(channels);
            let vectors = if len > CHUNKED_LEN { all } else { vectors };
            let chunk = Panels::of_at_most(all, vectors).max() * lanes;
            return Some(Self {
                block: largest_block(size, most),
                channels,
                chunk,
                pitch: channels,
                window: None,
                copies_own,
                strips: false,
            });
        }
        let plane = (own * volume(size)).saturating_add(source).saturating_mul(lanes);
        // Pixels are an odd number of vectors or of cache lines apart, so that they lie in different sets of the first-level cache.
        let (together, pitch, most_copied) = if transposes {
            let together = Panels::of_at_most(all, clamp(COPIED_LEN / plane, 1, MOST_TOGETHER)).max();
            (together, (together | 1) * lanes, COPIED_LEN)
        } else {
            (all, ((all * lanes).div_ceil(ROW_GAP) | 1) * ROW_GAP, BLOCK_LEN / 2)
        };
        let budget = Budget {
            per_group: pitch,
            per_position: own * pitch,
            most: min(most_copied, tuning.staging_len.saturating_mul(4)),
            positions: most,
        };
        let Some(Blocks { block, .. }) = Blocks::of_groups(desc, reading, Panels::of_at_most(1, 1), budget) else {
            return None;
        };
        let window = if copies_source { Some(reading.window(&Reads::all_forward(desc), block)) } else { None };
        let chunk = Panels::of_at_most(together, vectors).max() * lanes;
        Some(Self { block, channels: together * lanes, chunk, pitch, window, copies_own, strips: false })
    }

    /// Elements of a copied window.
    const fn window_len(&self) -> usize {
        match self.window {
            Some(window) => window.saturating_mul(self.pitch),
            None => 0,
        }
    }

    /// Elements of a copy of a block's positions.
    const fn block_len(&self) -> usize {
        if self.copies_own { product(self.block).saturating_mul(self.pitch) } else { 0 }
    }

    /// Elements of `tables` vectors per tap of strips, and one vector more.
    const fn spread_len(&self, desc: &ConvDesc, kernels: &Kernels, tables: usize) -> usize {
        let vectors = desc.taps().saturating_mul(tables).saturating_add(1);
        if self.strips { vectors.saturating_mul(kernels.lanes) } else { 0 }
    }

    /// Elements from a pixel to the next: in a copied window, if there is one, and in copies of a block's own pixels.
    fn pitches(&self) -> [Option<usize>; 2] {
        [self.window.map(|_| self.pitch), self.copies_own.then_some(self.pitch)]
    }

    /// Channels of a kernel's call for a group. They are whole vectors if all pixels are copied.
    fn width(&self, channels: &Range<usize>, lanes: usize) -> usize {
        if self.window.is_some() && self.copies_own { channels.len().next_multiple_of(lanes) } else { channels.len() }
    }
}

/// Elements of two tables: that of the segments of a walk and of a tile, and that of kernel rows.
const fn table_lens(desc: &ConvDesc) -> [usize; 2] {
    [desc.taps().saturating_mul(2 * size_of::<SegmentWords>() / size_of::<f32>()), desc.taps()]
}

/// The channels of a chunk, and the memory for the tables of a walk.
struct Tables<'a> {
    chunk: usize,
    segments: &'a mut [f32],
    outside: &'a mut [f32],
    /// Vectors of strips.
    spread: &'a mut [f32],
}

impl Tables<'_> {
    /// The walk over some rows of at most `width` channels, which may read a source, and the memory for its segments. `wanted`
    /// says whether taps that read only padding are part of it.
    fn walk(
        &mut self,
        desc: &ConvDesc,
        rows: &Rows,
        source: Option<&Field<'_>>,
        width: usize,
        wanted: bool,
    ) -> (Walk<'_>, &mut [SegmentWords], &mut [f32]) {
        let step = |apart: [usize; 3], axis: usize| source.map_or(0, |source| source.pixels.steps(apart)[axis]);
        let at = |coordinates| source.map_or(0, |source| source.at(coordinates));
        let (segments, room) = words(self.segments).split_at_mut(desc.taps());
        let segments = rows.tabulate(desc.kernel(), at, width, wanted, segments);
        let outside = if wanted { rows.tabulate_outside(desc.kernel(), words(self.outside)) } else { &[] };
        let walk = Walk {
            segments,
            tap_step: rows.columns.tap_step(),
            outside,
            outside_taps: desc.kernel()[2],
            taps: desc.taps(),
            rows: Line { count: rows.heights.positions.count, source_step: step([0, rows.heights.source_step, 0], 2) },
            columns: Line {
                count: rows.columns.positions.count,
                source_step: step([0, 0, rows.columns.source_step], 3),
            },
            lanes: width,
            chunk: self.chunk,
            strips: false,
        };
        (walk, room, &mut *self.spread)
    }

    /// The walk over strips of some channels.
    fn strips(
        &mut self,
        desc: &ConvDesc,
        strips: &Strips,
        source: Option<&Plane<'_>>,
        channels: usize,
        wanted: bool,
    ) -> (Walk<'_>, &mut [SegmentWords], &mut [f32]) {
        let [depth, height, width] = desc.kernel();
        let (segments, room) = words(self.segments).split_at_mut(desc.taps());
        let at = |coordinates| source.map_or(0, |source| source.step(coordinates));
        let segments = strips.tabulate([depth, height, width], at, wanted, segments);
        let outside = if wanted { strips.tabulate_outside(desc.kernel(), words(self.outside)) } else { &[] };
        let (_, _, count) = strips.positions();
        let walk = Walk {
            segments,
            tap_step: strips.tap_step(desc.kernel()),
            outside,
            outside_taps: width,
            taps: desc.taps(),
            rows: Line { count: channels, source_step: source.map_or(0, |source| source.tensor.strides.channel) },
            columns: Line { count, source_step: at(strips.source_step()) },
            lanes: strips.width(),
            chunk: strips.whole_width(),
            strips: true,
        };
        (walk, room, &mut *self.spread)
    }
}

/// The planes of an image from a channel on.
struct Plane<'a> {
    data: &'a [f32],
    tensor: &'a TensorLayout,
}

impl<'a> Plane<'a> {
    fn new(tensor: &'a TensorLayout, data: &'a [f32], image: usize, channel: usize) -> Self {
        Self { data: &tensor.image(data, image)[channel * tensor.strides.channel..], tensor }
    }

    /// Elements between two positions that are `apart` positions away. Saturates: with a single position the step is never taken.
    fn step(&self, apart: [usize; 3]) -> usize {
        let [_, d, h, w] = self.tensor.steps(apart);
        d.saturating_add(h).saturating_add(w)
    }

    /// The positions of strips.
    fn own(&self, strips: &Strips) -> Own<'a> {
        let (first, apart, _) = strips.positions();
        Own { data: &self.data[self.step(first)..], steps: [self.tensor.strides.channel, self.step(apart)] }
    }
}

/// Some channels of the pixels of an image, in the tensor or in a copy.
struct Field<'a> {
    /// The data from the first channel on.
    data: &'a [f32],
    pixels: Pixels,
    image: usize,
    channel: usize,
}

impl<'a> Field<'a> {
    /// Some channels of a tensor at some coordinates along each axis. They are copied if there is a copy.
    fn new(
        kernels: &Kernels,
        copied: Option<usize>,
        (tensor, data): (&TensorLayout, &'a [f32]),
        (image, axes): (usize, [Steps; 3]),
        channels: &Range<usize>,
        copy: &'a mut [f32],
    ) -> Self {
        let Some(pitch) = copied else {
            let data = &tensor.image(data, image)[channels.start..];
            return Self { data, pixels: Pixels::of(tensor), image: 0, channel: 0 };
        };
        let window = Window { images: image..image + 1, axes, channels: channels.clone(), pitch };
        window.copy(kernels, tensor, data, copy);
        Self { data: copy, pixels: window.pixels(), image, channel: channels.start }
    }

    /// The offset of the first channel of a pixel.
    fn at(&self, coordinates: [usize; 3]) -> usize {
        self.pixels.at(self.image, coordinates, self.channel)
    }

    /// Rows of positions.
    fn rows(&self, rows: &Rows) -> Own<'_> {
        let [d, h, w] = positions_of(rows);
        let [_, _, row, position] = self.pixels.steps([0, h.step, w.step]);
        Own { data: &self.data[self.at([d.first, h.first, w.first])..], steps: [row, position] }
    }
}

/// The positions of rows, along each axis.
const fn positions_of(rows: &Rows) -> [Steps; 3] {
    [rows.depths.positions, rows.heights.positions, rows.columns.positions]
}

/// The coordinates of a box.
fn axes_of(positions: &[Range<usize>; 3]) -> [Steps; 3] {
    [0, 1, 2].map(|axis| Steps { first: positions[axis].start, step: 1, count: positions[axis].len() })
}

/// A block as ranges.
fn ranges_of(block: &Block) -> [Range<usize>; 3] {
    [0, 1, 2].map(|axis| block.start[axis]..block.start[axis] + block.size[axis])
}

/// The thresholds as the kernels read them: from a table if each tap has its own.
pub(crate) fn thetas_of<'a>(thresholds: &ThresholdTable<'_>, table: &'a [f32]) -> Thetas<'a> {
    if thresholds.is_linear() {
        Thetas::Linear
    } else if thresholds.is_uniform() {
        Thetas::Uniform(thresholds.at(0, 0))
    } else {
        Thetas::PerTap(table)
    }
}

/// Fills a table with the thresholds of some channels, `[vector][tap][lane]`, if each tap has its own. Lanes without a channel
/// hold zeros.
pub(crate) fn tabulate(
    kernels: &Kernels,
    desc: &ConvDesc,
    thresholds: &ThresholdTable<'_>,
    channels: Range<usize>,
    table: &mut [f32],
) {
    if thresholds.is_uniform() {
        return;
    }
    let (taps, lanes) = (desc.taps(), kernels.lanes);
    let [channel, tap] = thresholds.strides();
    let table = &mut table[..channels.len().next_multiple_of(lanes) * taps];
    let whole = channels.len() / lanes;
    if channel == 1 && whole > 0 {
        kernels.copy(CopyBlock {
            from: thresholds.from(channels.start),
            from_plane: lanes,
            from_row: tap,
            step: 1,
            to: table,
            to_plane: taps * lanes,
            to_row: lanes,
            planes: whole,
            rows: taps,
            len: lanes,
        });
    }
    let done = if channel == 1 { whole } else { 0 };
    for (vector, table) in table.chunks_exact_mut(taps * lanes).enumerate().skip(done) {
        let first = vector * lanes;
        let used = min(channels.len() - first, lanes);
        if used < lanes {
            table.fill(0.0);
        }
        kernels.transpose(TransposeBlock {
            from: thresholds.from(channels.start + first),
            from_step: channel,
            from_column: tap,
            to: RowsMut::of_slice(table, taps, lanes, used),
        });
    }
}

/// The thresholds of a group of channels. The first channel is the first of a vector.
fn thetas_from<'a>(thetas: Thetas<'a>, start: usize) -> Thetas<'a> {
    match thetas {
        Thetas::PerTap(table) => Thetas::PerTap(&table[start..]),
        other => other,
    }
}
