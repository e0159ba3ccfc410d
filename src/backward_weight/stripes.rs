//! Driver of the weight's gradient that sums outer products over the positions that read inside.
//!
//! Input channels are in the lanes. A stripe, a few vectors of input channels at one tap, meets one tile of output channels after
//! another. With channels last, the driver reads the input and updates the gradient of the weight in place. With channels first,
//! it transposes the [window](crate::pixels) of each block, and transposes the sums of a slab, for a few input channels, once. It
//! never pads:
//!
//! ```text
//! for each slab of output channels (and a few input channels)
//!   for each block of positions                 x and gradients stay in the second-level cache
//!     the gradients are packed in tiles
//!     for each tap                              a box of the block's positions reads inside
//!       for each stripe of input channels       copied, clamped: it stays in the first-level cache
//!         for each tile of output channels      sums in registers over the box, then added to the gradient
//! ```
//!
//! Padding has the same value at all positions. So its part of the gradient is `max(0, θ)` times the sum of the gradients at
//! these positions. The driver adds this part together with the first block, if `θ > 0`.
//!
//! Each block is a segment of the sums over positions ([`crate::sums`]), so the gradient itself is the only sum to keep. If there
//! are more than [`MOST_BLOCKS`] blocks, the blocks of each 8192 positions are summed apart first.

use core::ops::Range;

use crate::arith::{clamp, max, min};
use crate::border;
use crate::calls::BackwardWeightCall;
use crate::desc::{ConvDesc, volume};
use crate::geometry::{Lattice, Panels, Reads, SEGMENT, Segments, Steps, chunks};
use crate::kernel::{Kernels, PackTiles, RowsMut, StripeProducts, SumTiles, TransposeBlock};
use crate::layout::Layout;
use crate::operands::{Accumulation, Gradient};
use crate::pixels::{Blocks, Budget, Pixels, Reading, Window};
use crate::strided;
use crate::sums::{Positions, add_positions};
use crate::tuning::Tuning;
use crate::workspace::Buffers;

/// Elements of input and gradients of a block: 256 KiB, which stay in the second-level cache.
const BLOCK_LEN: usize = 64 * 1024;

/// Elements of a stripe and the gradients of a tile: 24 KiB, which stay in the first-level cache.
const TILE_LEN: usize = 6 * 1024;

/// A block of at most this many positions is not shrunk to fit the cache. With fewer, loading and storing the gradient of the
/// weight would take a noticeable share of the time.
const FEW_POSITIONS: usize = 128;

/// Input channels that are copied together, because neighbouring elements share cache lines: 64 channels are four lines.
const COPIED_CHANNELS: usize = 64;

/// Elements that are copied together where there are few positions. There most of the traffic is the gradient of the weight, so
/// each pass over it should be long.
const LEAST_COPIED: usize = 2048;

/// The most blocks whose sums are added to the gradient one after another. The chain of additions is then no longer than
/// [`chain`](crate::geometry::chain) promises.
const MOST_BLOCKS: usize = SEGMENT;

/// Elements of all copies of a block, where its window is copied: 240 KiB.
const COPIED_LEN: usize = 60 * 1024;

/// The output channels of a slab, where its gradients are copied.
const COPIED_SLAB: usize = 128;

/// Elements of sums that are transposed: 160 KiB.
const TRANSPOSED_LEN: usize = 40 * 1024;

/// The output channels of a slab. Their packed gradients stay in the second-level cache beside the input.
const SLAB_CHANNELS: usize = 256;

#[derive(Clone, Copy, Debug)]
pub(super) struct Stripes {
    /// Images, and positions along each axis, of a block.
    block: [usize; 4],
    /// Output channels per slab.
    slab: usize,
    /// Vectors of a group's input channels, and how many of them are copied at a time: whole stripes.
    vectors: usize,
    copied: usize,
    /// Vectors that are summed at a time.
    at_once: usize,
    /// Most vectors of a stripe.
    most_vectors: usize,
    /// Most output channels of a tile.
    most_rows: usize,
    /// Whether gradients are packed separately for each column of taps, without the positions at which these taps read padding.
    /// The rows of packed positions then follow one another without gaps.
    by_column: bool,
    /// Sums beside the gradient, for segments of positions or for transposition: as many as a slab has weights, or 0.
    sums: usize,
    /// The most pixels of a window, if it is copied, a few input channels at a time.
    window: Option<usize>,
}

/// The buffers of a thread.
struct Scratch<'a> {
    taps: TapBuffers<'a>,
    /// Copies of a window of the input and of a block's gradients. Empty if both are read in place.
    window: &'a mut [f32],
    grad_output: &'a mut [f32],
}

/// The buffers that every tap uses.
struct TapBuffers<'a> {
    /// `[stripe][position][lane]`
    copy: &'a mut [f32],
    /// `[tile][position][output channel]`
    gradients: &'a mut [f32],
    /// One per lane of a copy.
    thresholds: &'a mut [f32],
    /// Sums of the gradients at the positions where a tap reads padding, `[tap][output channel of a slab]`.
    outside: &'a mut [f32],
    /// Sums of the current segment of positions, `[output channel][tap][input channel]`. Empty if the gradient itself is the sum.
    sums: &'a mut [f32],
}

/// The gradients that a block adds to: those of some output channels of one group.
struct Slab<'a> {
    group: usize,
    /// Counted over all groups.
    channels: Range<usize>,
    /// Vectors of the group's input channels, and the input channels themselves.
    vectors: Range<usize>,
    inputs: Range<usize>,
    /// The gradients of their filters.
    grad_weight: Option<&'a mut [f32]>,
    /// Whether they replace the values of their buffer.
    replaces: bool,
    grad_bias: Option<&'a mut [f32]>,
}

/// The largest block of at most `most` positions that is cut along one axis only. It holds all positions along the axes behind
/// that one, and a single one along those before.
pub(super) const fn block_of(desc: &ConvDesc, most: usize) -> [usize; 4] {
    let most = if most >= 16 { most / 16 * 16 } else { most };
    let [depth, height, width] = desc.output_size();
    let counts = [max(desc.batch(), 1), depth, height, width];
    let mut block = [1; 4];
    let (mut inner, mut axis) = (1, 4);
    while axis > 0 {
        axis -= 1;
        let room = most / inner;
        if room < counts[axis] {
            let part = Panels::of_at_most(counts[axis], max(room, 1)).max();
            // Rows then begin at multiples of a vector. (And sums of ones stay exact for longer.)
            block[axis] = if axis == 3 && room >= 16 { part.next_multiple_of(16) } else { part };
            break;
        }
        block[axis] = counts[axis];
        inner *= counts[axis];
    }
    block
}

/// The number of blocks.
const fn blocks(desc: &ConvDesc, block: [usize; 4]) -> usize {
    let [depth, height, width] = desc.output_size();
    let counts = [desc.batch(), depth, height, width];
    let (mut blocks, mut axis) = (1usize, 0);
    while axis < 4 {
        blocks = blocks.saturating_mul(counts[axis].div_ceil(block[axis]));
        axis += 1;
    }
    blocks
}

/// Whether the algorithm can compute a layer.
pub(super) const fn applies(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning) -> bool {
    matches!(desc.tensor_layout(), Layout::Nhwc) || copied_blocks(desc, kernels, tuning).is_some()
}

/// Vectors of a group's input channels, and how many of them are copied at a time: whole stripes.
const fn input_vectors(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning) -> [usize; 2] {
    let most = min(kernels.stripe_vectors, tuning.tile);
    let vectors = desc.group_in_channels().div_ceil(kernels.lanes);
    let positions = max(desc.batch(), 1).saturating_mul(volume(desc.output_size()));
    let channels = max(COPIED_CHANNELS, LEAST_COPIED / positions);
    [vectors, min(vectors, max(channels / kernels.lanes / most, 1) * most)]
}

/// Whether the taps come last in a filter. Then sums with input channels in the lanes have to be transposed.
const fn taps_last(desc: &ConvDesc) -> bool {
    matches!(desc.layout(), Layout::Nchw) && desc.taps() > 1
}

/// Output channels of a slab, where blocks are copied.
const fn copied_slab(desc: &ConvDesc, copied_lanes: usize) -> usize {
    let filter = desc.taps().saturating_mul(copied_lanes);
    let most = if taps_last(desc) { clamp(TRANSPOSED_LEN / filter, 1, COPIED_SLAB) } else { COPIED_SLAB };
    Panels::of_at_most(desc.group_out_channels(), most).max()
}

/// The blocks whose windows are copied.
const fn copied_blocks(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning) -> Option<Blocks> {
    let [_, copied] = input_vectors(desc, kernels, tuning);
    let lanes = copied * kernels.lanes;
    let slab = copied_slab(desc, lanes);
    let budget = Budget {
        per_group: lanes,
        // For the gradients, for their tiles, and for a stripe.
        per_position: 2 * slab + lanes,
        most: min(COPIED_LEN, tuning.staging_len.saturating_mul(2)),
        positions: min(TILE_LEN / (kernels.stripe_vectors * kernels.lanes + kernels.stripe_rows), tuning.positions),
    };
    Blocks::new(desc, Reading::Forward, budget)
}

impl Stripes {
    /// `own` is the most output channels of one task.
    pub(super) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning, own: usize) -> Self {
        let (inputs, outputs) = (desc.group_in_channels(), desc.group_out_channels());
        let copies = match desc.tensor_layout() {
            Layout::Nhwc => None,
            Layout::Nchw => copied_blocks(desc, kernels, tuning),
        };
        let [vectors, copied] = input_vectors(desc, kernels, tuning);
        let slab = if copies.is_some() || taps_last(desc) {
            copied_slab(desc, copied * kernels.lanes)
        } else {
            Panels::of_at_most(outputs, SLAB_CHANNELS).max()
        };
        let len = min(BLOCK_LEN, tuning.staging_len.saturating_mul(2));
        let most_vectors = min(kernels.stripe_vectors, tuning.tile);
        // A single tap reads each input once, so only the channels that are copied together have to stay in the cache.
        let read = if desc.taps() == 1 { copied * kernels.lanes } else { inputs };
        let fit = TILE_LEN / (kernels.stripe_vectors * kernels.lanes + kernels.stripe_rows);
        let most = clamp(len / (read + slab), min(FEW_POSITIONS, fit), fit);
        let most = min(most, tuning.positions);
        // Does not depend on the threads, because the order of the sums depends on the blocks.
        let (block, window) = match copies {
            None => (block_of(desc, most), None),
            Some(Blocks { images, block: [d, h, w], copies }) => ([images, d, h, w], Some(copies.window())),
        };
        let slab = Panels::of_at_most(clamp(own, 1, outputs), slab).max();
        let filter = desc.taps().saturating_mul(inputs);
        let at_once = if taps_last(desc) { copied } else { vectors };
        let apart = blocks(desc, block) > min(MOST_BLOCKS, tuning.depth) || taps_last(desc);
        let inputs = min(at_once * kernels.lanes, inputs);
        let sums = if apart { slab.saturating_mul(desc.taps()).saturating_mul(inputs) } else { 0 };
        // To pack an element costs about half a cycle. To begin a row of positions costs about eight cycles beside its tiles.
        let (columns, width) = (desc.kernel()[2], block[3]);
        let padded = desc.padding_before()[2] > 0 || desc.padding_after()[2] > 0;
        let by_column = padded && (width * 8).saturating_mul(columns - 1) < filter;
        Self {
            block,
            slab,
            vectors,
            copied,
            at_once,
            most_vectors,
            most_rows: min(kernels.stripe_rows, tuning.panel),
            by_column,
            sums,
            window,
        }
    }

    /// The buffers of one thread, in the order of [`Scratch`]. Saturates, because layers that no memory could hold are planned as
    /// well.
    pub(super) const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<7> {
        let [images, depth, height, width] = self.block;
        let positions = images.saturating_mul(depth * height * width);
        let lanes = self.copied * kernels.lanes;
        // A vector of lanes may read beyond the last packed position's channels.
        let gradients = positions.saturating_mul(self.slab).saturating_add(kernels.lanes);
        let outside = if desc.has_padding() { self.slab.saturating_mul(desc.taps()) } else { 0 };
        let copy = positions.saturating_mul(lanes);
        let (window, grad_output) = match self.window {
            None => (0, 0),
            Some(window) => (window.saturating_mul(lanes), positions.saturating_mul(self.slab)),
        };
        Buffers::new([copy, gradients, lanes, outside, self.sums, window, grad_output], kernels.lanes)
    }

    /// Computes the gradients of some output channels at some positions. Those of the weights have the order of the layout. Those of
    /// the biases are added to their buffer.
    pub(super) fn run(
        &self,
        call: &BackwardWeightCall<'_>,
        positions: &Positions,
        channels: Range<usize>,
        grad_weight: Option<Gradient<'_>>,
        mut grad_bias: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) {
        let desc = call.desc;
        let ([copy, gradients, thresholds, outside, sums, window, grad_output], _) =
            self.buffers(desc, call.kernels).carve(workspace);
        let taps = TapBuffers { copy, gradients, thresholds, outside, sums };
        let mut scratch = Scratch { taps, window, grad_output };
        let replaces = grad_weight.as_ref().is_some_and(|gradient| gradient.accumulation == Accumulation::Overwrite);
        let mut grad_weight = grad_weight.map(|gradient| gradient.values);
        let (filter, per_group) = (desc.group_in_channels() * desc.taps(), desc.group_out_channels());
        for group in channels.start / per_group..channels.end.div_ceil(per_group) {
            let own = channels.start.max(group * per_group)..channels.end.min((group + 1) * per_group);
            for slab in chunks(own, self.slab) {
                let first = slab.start - channels.start;
                let mut slab = Slab {
                    group,
                    vectors: 0..0,
                    inputs: 0..0,
                    grad_weight: grad_weight.as_mut().map(|all| &mut all[first * filter..][..slab.len() * filter]),
                    replaces,
                    grad_bias: grad_bias.as_mut().map(|all| &mut all[first..][..slab.len()]),
                    channels: slab,
                };
                self.sum_outside(call, positions, &slab, scratch.taps.outside);
                for vectors in chunks(0..self.vectors, self.at_once) {
                    let lanes = |vector: usize| (vector * call.kernels.lanes).min(desc.group_in_channels());
                    slab.inputs = lanes(vectors.start)..lanes(vectors.end);
                    (slab.vectors, slab.replaces) = (vectors, replaces);
                    self.run_slab(call, positions, &mut slab, &mut scratch);
                    // The first input channels have summed the gradient of the bias. The others must not do it again.
                    slab.grad_bias = None;
                }
            }
        }
    }

    fn run_slab(&self, call: &BackwardWeightCall<'_>, all: &Positions, slab: &mut Slab<'_>, scratch: &mut Scratch<'_>) {
        let tiles = Panels::of_at_most(slab.channels.len(), self.most_rows);
        let (mut first, mut segments) = (true, Segments::default());
        for images in chunks(0..call.desc.batch(), self.block[0]) {
            for depths in chunks(all[0].clone(), self.block[1]) {
                for rows in chunks(all[1].clone(), self.block[2]) {
                    for columns in chunks(all[2].clone(), self.block[3]) {
                        let positions = [images.clone(), depths.clone(), rows.clone(), columns];
                        let count = positions.iter().map(Range::len).product();
                        let packed = if self.by_column { 0..0 } else { positions[3].clone() };
                        let begins = segments.is_new();
                        let mut block = Block { all, positions, packed, tiles, first, begins };
                        self.run_block(call, slab, &mut block, scratch);
                        first = false;
                        if segments.advance(count) {
                            slab.end_segment(call, scratch.taps.sums);
                        }
                    }
                }
            }
        }
        if !segments.is_new() {
            slab.end_segment(call, scratch.taps.sums);
        }
    }

    /// Sums the gradients at the positions where taps read padding.
    fn sum_outside(&self, call: &BackwardWeightCall<'_>, positions: &Positions, slab: &Slab<'_>, sums: &mut [f32]) {
        if slab.grad_weight.is_none() || call.thresholds.is_linear() {
            return;
        }
        for (tap, sums) in sums.chunks_exact_mut(self.slab).enumerate() {
            let unpadded = border::unpadded(call.desc, tap);
            if !border::is_inside(positions, &unpadded) {
                let sums = &mut sums[..slab.channels.len()];
                sums.fill(0.0);
                let channels = slab.channels.clone();
                border::sum_outside(call.desc, call.grad_output, positions, &unpadded, channels, sums);
            }
        }
    }

    /// Adds one block's part to the gradients of a slab.
    fn run_block(
        &self,
        call: &BackwardWeightCall<'_>,
        slab: &mut Slab<'_>,
        block: &mut Block<'_>,
        scratch: &mut Scratch<'_>,
    ) {
        let desc = call.desc;
        let tensor = desc.output_tensor();
        let mut grad_output = (call.grad_output, Pixels::of(&tensor));
        if self.window.is_some() {
            let [images, axes @ ..] = block.positions.clone();
            let axes = axes.map(|range| Steps { first: range.start, step: 1, count: range.len() });
            let window = Window { images, axes, channels: slab.channels.clone(), pitch: slab.channels.len() };
            window.copy(call.kernels, &tensor, call.grad_output, scratch.grad_output);
            grad_output = (&*scratch.grad_output, window.pixels());
        }
        if !self.by_column {
            pack(call, grad_output, slab, block, scratch.taps.gradients);
        }
        if let Some(sums) = slab.grad_bias.as_deref_mut() {
            if self.by_column || self.sums > 0 {
                if block.first {
                    let all = core::slice::from_ref(block.all);
                    add_positions(&tensor, call.grad_output, all, slab.channels.clone(), sums);
                }
            } else {
                call.kernels.sum_tiles(SumTiles {
                    packed: scratch.taps.gradients,
                    positions: block.packed_len(),
                    tiles: block.tiles,
                    sums,
                });
            }
        }
        if slab.grad_weight.is_none() {
            return;
        }
        let reads = Reads::all_forward(desc);
        // The copy of a window serves all taps.
        let at_once = if self.window.is_some() { self.copied } else { self.vectors };
        for vectors in chunks(slab.vectors.clone(), at_once) {
            let mut input = (call.input, Pixels::of(&desc.input_tensor()));
            if self.window.is_some() {
                let [images, axes @ ..] = block.positions.clone();
                let axes = [0, 1, 2].map(|axis| reads[axis].read_by(axes[axis].clone()));
                let (first, channels) = (slab.group * desc.group_in_channels(), desc.group_in_channels());
                let lanes = [vectors.start, vectors.end].map(|vector| (vector * call.kernels.lanes).min(channels));
                let channels = first + lanes[0]..first + lanes[1];
                let window = Window { images, axes, channels, pitch: self.copied * call.kernels.lanes };
                window.copy(call.kernels, &desc.input_tensor(), call.input, scratch.window);
                input = (&*scratch.window, window.pixels());
            }
            let input = Input { data: input.0, pixels: input.1, vectors };
            self.run_taps(call, slab, block, &input, grad_output, &mut scratch.taps);
        }
    }

    /// Computes all taps of a block, for some vectors of input channels.
    fn run_taps(
        &self,
        call: &BackwardWeightCall<'_>,
        slab: &mut Slab<'_>,
        block: &mut Block<'_>,
        input: &Input<'_>,
        grad_output: (&[f32], Pixels),
        buffers: &mut TapBuffers<'_>,
    ) {
        let [depths, heights, widths] = call.desc.kernel();
        for w in 0..widths {
            if self.by_column {
                let inside = intersection(&block.positions[3], &Reads::forward(call.desc, 2).unpadded(w).range());
                if !inside.is_empty() && inside != block.packed {
                    block.packed = inside;
                    pack(call, grad_output, slab, block, buffers.gradients);
                }
            }
            for (d, h) in (0..depths).flat_map(|d| (0..heights).map(move |h| (d, h))) {
                self.run_tap(call, slab, block, [d, h, w], input, buffers);
            }
        }
    }

    /// Adds the part of one tap of a block: that of the positions that read inside, and with the first block also that of the
    /// positions of all blocks that read padding.
    fn run_tap(
        &self,
        call: &BackwardWeightCall<'_>,
        slab: &mut Slab<'_>,
        block: &Block<'_>,
        tap: [usize; 3],
        &Input { data: input, pixels, ref vectors }: &Input<'_>,
        scratch: &mut TapBuffers<'_>,
    ) {
        let Slab { group, channels: ref own, ref inputs, grad_weight: Some(ref mut grad_weight), replaces, .. } = *slab
        else {
            return;
        };
        let (desc, lanes) = (call.desc, call.kernels.lanes);
        // A segment's own sums hold only the input channels of the slab.
        let filter = inputs.len() * desc.taps();
        let (sums, replaces) = match &mut scratch.sums[..] {
            [] => (&mut **grad_weight, replaces && block.first),
            sums => (&mut sums[..own.len() * filter], block.begins),
        };
        let (channels, index) = (desc.group_in_channels(), tap_index(desc, tap));
        let pads = block.first
            && !call.thresholds.is_linear()
            && !border::is_inside(block.all, &border::unpadded(desc, index));
        let outside = pads.then(|| &scratch.outside[index * self.slab..][..own.len()]);
        let Inside { positions, reads, packed } = inside(desc, block, tap, &pixels);
        if positions.len() == 0 && outside.is_none() && !replaces {
            return;
        }
        for vectors in chunks(vectors.clone(), self.copied) {
            let first = vectors.start * lanes;
            let count = channels.min(vectors.end * lanes) - first;
            let first_channel = group * channels + first;
            // The gaps between pixels must not be read.
            let gaps = desc.input_pitch() > desc.in_channels();
            let readable = if self.window.is_none() && gaps { desc.in_channels() - first_channel } else { usize::MAX };
            let at = if positions.len() == 0 { 0 } else { pixels.at(block.positions[0].start, reads, first_channel) };
            let thresholds = &mut scratch.thresholds[..vectors.len() * lanes];
            // The results of a lane without a channel are dropped, so any threshold will do.
            thresholds[count..].fill(0.0);
            call.thresholds.copy_channels(first_channel..first_channel + count, index, thresholds, 1);
            call.kernels.stripe_products(StripeProducts {
                input: &input[at..],
                positions,
                first: packed,
                channels: count,
                readable,
                stripes: Panels::of_at_most(vectors.len(), self.most_vectors),
                thresholds: (!call.thresholds.is_linear()).then_some(&*thresholds),
                copy: &mut *scratch.copy,
                gradients: &*scratch.gradients,
                packed: Some(block.packed_len()),
                tiles: block.tiles,
                // Whether a whole group is a single tile. It depends on the group and not on this task's part of it, because the
                // order of sums depends on it.
                in_place: call.desc.group_out_channels() <= self.most_rows,
                pairs: true,
                outside,
                sums: &mut sums[index * inputs.len() + first - inputs.start..],
                pitch: filter,
                replaces,
            });
        }
    }
}

/// The data that the taps of a block read: some vectors of a group's channels, in the input or in a copy of a window.
struct Input<'a> {
    data: &'a [f32],
    pixels: Pixels,
    vectors: Range<usize>,
}

/// A block of positions.
struct Block<'a> {
    /// Those of all blocks.
    all: &'a Positions,
    /// Along [image, depth, height, width].
    positions: [Range<usize>; 4],
    /// The columns whose gradients are packed.
    packed: Range<usize>,
    /// The output channels of the slab, in tiles.
    tiles: Panels,
    /// Whether it is the first block of the slab.
    first: bool,
    /// Whether it is the first block of a segment of positions.
    begins: bool,
}

impl Slab<'_> {
    /// Adds the separate sums of a segment, if there are any, to the gradient. The first segment may replace it.
    fn end_segment(&mut self, call: &BackwardWeightCall<'_>, sums: &[f32]) {
        let Some(gradient) = self.grad_weight.as_deref_mut().filter(|_| !sums.is_empty()) else { return };
        let replaces = core::mem::take(&mut self.replaces);
        if !taps_last(call.desc) {
            for (gradient, sum) in gradient.iter_mut().zip(sums) {
                *gradient = if replaces { *sum } else { *gradient + *sum };
            }
            return;
        }
        let (taps, channels) = (call.desc.taps(), self.inputs.len());
        let filters = gradient.chunks_exact_mut(call.desc.group_in_channels() * taps);
        for (filter, sums) in filters.zip(sums.chunks_exact(channels * taps)) {
            let filter = &mut filter[self.inputs.start * taps..self.inputs.end * taps];
            if replaces {
                let to = RowsMut::of_slice(filter, channels, taps, taps);
                call.kernels.transpose(TransposeBlock { from: sums, from_step: channels, from_column: 1, to });
            } else {
                for (tap, sums) in sums.chunks_exact(channels).enumerate() {
                    strided::add(sums, &mut filter[tap..], taps);
                }
            }
        }
    }
}

impl Block<'_> {
    /// Positions whose gradients are packed.
    fn packed_len(&self) -> usize {
        let [images, depths, rows, _] = &self.positions;
        images.len() * depths.len() * rows.len() * self.packed.len()
    }
}

fn intersection(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// The number of a tap in memory order.
const fn tap_index(desc: &ConvDesc, [d, h, w]: [usize; 3]) -> usize {
    let [_, heights, widths] = desc.kernel();
    (d * heights + h) * widths + w
}

/// Packs the gradients of a block's columns for the tiles of a slab.
fn pack(
    call: &BackwardWeightCall<'_>,
    (grad_output, pixels): (&[f32], Pixels),
    slab: &Slab<'_>,
    block: &Block<'_>,
    gradients: &mut [f32],
) {
    let [images, depths, rows, _] = &block.positions;
    let first = pixels.at(images.start, [depths.start, rows.start, block.packed.start], slab.channels.start);
    let counts = [images.len(), depths.len(), rows.len(), block.packed.len()];
    call.kernels.pack_tiles(PackTiles {
        from: &grad_output[first..],
        positions: Lattice { counts, steps: [pixels.steps([1; 3])] },
        tiles: block.tiles,
        to: gradients,
    });
}

/// The positions of a block that read inside through a tap: in the input and, counted in positions, among the packed ones.
struct Inside {
    positions: Lattice<2>,
    /// The coordinates that the first position reads, if there is one.
    reads: [usize; 3],
    /// The number of the first position among the packed ones.
    packed: usize,
}

fn inside(desc: &ConvDesc, block: &Block<'_>, tap: [usize; 3], pixels: &Pixels) -> Inside {
    let [images, ..] = &block.positions;
    let mut counts = [images.len(), 0, 0, 0];
    let (mut first, mut packed) = ([0; 3], 0);
    let extents = [1, block.positions[1].len(), block.positions[2].len(), block.packed.len()];
    for axis in 0..3 {
        let reads = Reads::forward(desc, axis);
        let own = if axis == 2 { &block.packed } else { &block.positions[1 + axis] };
        let inside = intersection(own, &reads.unpadded(tap[axis]).range());
        counts[1 + axis] = inside.len();
        let source = if inside.is_empty() { None } else { reads.source_of(inside.start, tap[axis]) };
        first[axis] = source.unwrap_or(0);
        packed = packed * extents[1 + axis] + (inside.start - own.start);
    }
    let [_, d, h, w] = extents;
    let steps = [pixels.steps(desc.stride()), [d * h * w, h * w, w, 1]];
    Inside { positions: Lattice { counts, steps }, reads: first, packed }
}
