//! Driver of the weight's gradient for few input channels: products of patches.
//!
//! The patch of a position holds what the position reads through all taps, clamped and padded: a row of `taps × channels`
//! elements. The patches of a block of positions make a matrix. Its product with the gradients of the same positions is the
//! block's part of the gradient of the weight. One of the two matrices is in the lanes and the other in the rows. The driver
//! chooses the arrangement that leaves fewer lanes empty. For example, the first layer of a network has 3 channels, so 27 taps ×
//! channels, and 64 output channels: there the output channels are in the lanes. Each patch ends with a 1, whose product is the
//! gradient of the bias.
//!
//! ```text
//! for each slab of output channels
//!   for each block of positions
//!     the patches are copied, clamped     they and the gradients stay in the caches
//!     for each stripe of lanes            of gradients as they lie, or of patches
//!       for each tile of rows             sums in registers over the block, then added to those of the slab
//!   the sums are transposed into the gradient
//! ```

use core::ops::Range;

use super::stripes::block_of;
use crate::arith::{clamp, max, min};
use crate::calls::BackwardWeightCall;
use crate::desc::{ConvDesc, volume};
use crate::geometry::{Interval, Lattice, Panels, Reads, Segments, Steps, chunks};
use crate::kernel::{ClampLines, Kernels, StripeProducts};
use crate::layout::Layout;
use crate::pixels::{Blocks, Budget, Copies, Pixels, Reading, Source, Window};
use crate::stage::{Block, blocks};
use crate::strided;
use crate::sums::Positions;
use crate::tuning::Tuning;
use crate::weight::channel_and_tap_strides;
use crate::workspace::Buffers;

/// The most elements of a patch. Layers with more channels use other algorithms.
const MOST_STEPS: usize = 1024;

/// The least output channels. With fewer, copying the patches would cost too much beside the products.
const LEAST_OUTPUTS: usize = 16;

/// The least positions of a layer. With fewer, adding the sums to the gradient would take as long as the products.
const FEWEST_POSITIONS: usize = 64;

/// Elements of the patches and the gradients of a block: 128 KiB, a part of the second-level cache.
const BLOCK_LEN: usize = 32 * 1024;

/// The least and the most positions of a block, if the layer has so many. With fewer, loading and storing the sums would take a
/// noticeable share of the time.
const LEAST_POSITIONS: usize = 32;
const MOST_POSITIONS: usize = 512;

/// The most elements of a slab's sums: 160 KiB.
const SUMS_LEN: usize = 40 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Patches {
    /// Images, and positions along each axis, of a block.
    block: [usize; 4],
    /// Output channels per slab.
    slab: usize,
    /// Whether output channels are in the lanes. If not, patches are.
    outputs_in_lanes: bool,
    /// Elements from a patch to the next.
    pitch: usize,
    most_vectors: usize,
    most_rows: usize,
    /// How windows of the input are copied, the channels of a group at a time. None if the input and the gradients are read in
    /// place.
    copies: Option<Copies>,
}

/// The buffers of a thread.
struct Scratch<'a> {
    /// `[position][tap][channel]`
    patches: &'a mut [f32],
    /// A copy of the gradients that cannot be read in place.
    copy: &'a mut [f32],
    /// The threshold of each element of a patch, and the value of padding there.
    thresholds: &'a mut [f32],
    padding: &'a mut [f32],
    /// `[row][lane]`
    sums: &'a mut [f32],
    /// Copies of a window of the input and of a block's gradients. Empty if both are read in place.
    window: &'a mut [f32],
    grad_output: &'a mut [f32],
}

/// Taps × channels of a patch.
const fn steps(desc: &ConvDesc) -> usize {
    desc.taps().saturating_mul(desc.group_in_channels())
}

/// Whether the algorithm can compute a layer and is the faster one. That is so in two cases:
///
/// - There are enough output channels to be worth the copy, and the input channels do not fill a vector, not even those of the
///   `together` taps that can share the lanes.
/// - There is one tap with few input channels, and the output channels, which are read in place, fill their vectors.
pub(super) const fn suits(desc: &ConvDesc, kernels: &Kernels, together: usize) -> bool {
    let (lanes, channels, outputs) = (kernels.lanes, desc.group_in_channels(), desc.group_out_channels());
    let filled = together * channels;
    let fills = together > 1 && filled * 4 >= filled.next_multiple_of(lanes) * 3;
    let few = channels < lanes && !fills && outputs >= LEAST_OUTPUTS;
    // With channels first the gradients are copied in any case, so the limit is lower.
    let most = lanes * if matches!(desc.tensor_layout(), Layout::Nhwc) { 8 } else { 4 };
    let single = desc.taps() == 1 && desc.groups() == 1 && channels <= most && outputs.is_multiple_of(lanes);
    let positions = desc.batch().saturating_mul(volume(desc.output_size()));
    lanes > 1 && (few || single) && steps(desc) <= MOST_STEPS && positions >= FEWEST_POSITIONS
}

/// Whether output channels are in the lanes, because that leaves fewer lanes empty.
const fn outputs_in_lanes(desc: &ConvDesc, kernels: &Kernels) -> bool {
    let (steps, outputs) = (steps(desc), desc.group_out_channels());
    let [with_outputs, with_steps] =
        [outputs.next_multiple_of(kernels.lanes), (steps + 1).next_multiple_of(kernels.lanes)];
    with_outputs.saturating_mul(steps) <= with_steps.saturating_mul(outputs)
}

impl Patches {
    /// Output channels that stay together in one task.
    pub(super) const fn unit(desc: &ConvDesc, kernels: &Kernels) -> usize {
        if outputs_in_lanes(desc, kernels) { kernels.lanes } else { 1 }
    }

    /// `own` is the most output channels of one task. None if not even the window of one position fits.
    pub(super) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning, own: usize) -> Option<Self> {
        let (steps, outputs) = (steps(desc), desc.group_out_channels());
        let most_vectors = min(kernels.stripe_vectors, tuning.tile);
        let outputs_in_lanes = outputs_in_lanes(desc, kernels);
        let pitch = if outputs_in_lanes { steps + 1 } else { (steps + 1).next_multiple_of(kernels.lanes) };
        // Whole stripes, because tasks consist of whole stripes.
        let stripe = kernels.lanes * most_vectors;
        let most = max(SUMS_LEN / pitch / stripe, 1) * stripe;
        let all = min(outputs, most);
        // Does not depend on the threads, because the order of the sums depends on the blocks.
        let len = min(BLOCK_LEN, tuning.staging_len);
        let positions = min(clamp(len / (pitch + all), LEAST_POSITIONS, MOST_POSITIONS), tuning.positions);
        let (block, copies) = match desc.tensor_layout() {
            Layout::Nhwc => (block_of(desc, positions), None),
            Layout::Nchw => {
                let channels = desc.group_in_channels();
                let per_position = pitch + 2 * all;
                let most = min(4 * BLOCK_LEN, tuning.staging_len.saturating_mul(2));
                let budget = Budget { per_group: channels, per_position, most, positions };
                let groups = Panels::into_parts(desc.groups(), desc.groups());
                match Blocks::of_groups(desc, Reading::Forward, groups, budget) {
                    Some(Blocks { images, block: [d, h, w], copies }) => ([images, d, h, w], Some(copies)),
                    None => return None,
                }
            }
        };
        Some(Self {
            block,
            slab: min(clamp(own, 1, outputs), most),
            outputs_in_lanes,
            pitch,
            most_vectors,
            most_rows: min(kernels.stripe_rows, tuning.panel),
            copies,
        })
    }

    /// Rows of the sums, and elements of one.
    const fn sums(&self, desc: &ConvDesc, kernels: &Kernels) -> [usize; 2] {
        if self.outputs_in_lanes {
            [steps(desc) + 1, self.slab.next_multiple_of(kernels.lanes)]
        } else {
            [self.slab, self.pitch]
        }
    }

    /// The buffers of one thread, in the order of [`Scratch`]. Saturates, because layers that no memory could hold are planned as
    /// well.
    pub(super) const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<7> {
        let [images, depth, height, width] = self.block;
        let positions = images.saturating_mul(depth * height * width);
        let [rows, lanes] = self.sums(desc, kernels);
        // The kernel reads patches in place, except where a block has a single position. It copies that one.
        let copied = if self.outputs_in_lanes { positions } else { 1 };
        let (window, grad_output) = match &self.copies {
            None => (0, 0),
            // A vector of lanes may read beyond the last position's channels.
            Some(copies) => (copies.len(), positions.saturating_mul(self.slab).saturating_add(kernels.lanes)),
        };
        let patches = positions.saturating_mul(self.pitch);
        let steps = steps(desc);
        let sums = rows.saturating_mul(lanes);
        Buffers::new([patches, copied.saturating_mul(lanes), steps, steps, sums, window, grad_output], kernels.lanes)
    }

    /// Adds the gradients of some output channels, in the order of the layout, at some positions.
    pub(super) fn run(
        &self,
        call: &BackwardWeightCall<'_>,
        positions: &Positions,
        channels: Range<usize>,
        grad_weight: &mut [f32],
        mut grad_bias: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) {
        let desc = call.desc;
        let ([patches, copy, thresholds, padding, sums, window, grad_output], _) =
            self.buffers(desc, call.kernels).carve(workspace);
        let mut scratch = Scratch { patches, copy, thresholds, padding, sums, window, grad_output };
        let (filter, per_group) = (steps(desc), desc.group_out_channels());
        // The lanes behind the 1 are computed and dropped.
        for patch in scratch.patches.chunks_exact_mut(self.pitch) {
            patch[filter..].fill(0.0);
            patch[filter] = 1.0;
        }
        for group in channels.start / per_group..channels.end.div_ceil(per_group) {
            let own = channels.start.max(group * per_group)..channels.end.min((group + 1) * per_group);
            self.prepare(call, group, &mut scratch);
            for slab in chunks(own, self.slab) {
                let first = slab.start - channels.start;
                let mut out = (
                    &mut grad_weight[first * filter..][..slab.len() * filter],
                    grad_bias.as_mut().map(|bias| &mut bias[first..][..slab.len()]),
                );
                let mut segments = Segments::default();
                for images in chunks(0..desc.batch(), self.block[0]) {
                    let [_, size @ ..] = self.block;
                    for block in blocks(positions.clone(), size) {
                        self.run_block(call, group, &slab, (&images, &block), segments.is_new(), &mut scratch);
                        if segments.advance(images.len() * block.len()) {
                            self.unpack(call, scratch.sums, &mut out);
                        }
                    }
                }
                if !segments.is_new() {
                    self.unpack(call, scratch.sums, &mut out);
                }
            }
        }
    }

    /// Fills the thresholds of a group's patches and the values of padding, `max(0, θ)`.
    fn prepare(&self, call: &BackwardWeightCall<'_>, group: usize, scratch: &mut Scratch<'_>) {
        let Scratch { thresholds, padding, .. } = scratch;
        padding.fill(0.0);
        if call.thresholds.is_linear() {
            return;
        }
        let channels = call.desc.group_in_channels();
        for (tap, thresholds) in thresholds.chunks_exact_mut(channels).enumerate() {
            call.thresholds.copy_channels(group * channels..(group + 1) * channels, tap, thresholds, 1);
        }
        for (padding, theta) in padding.iter_mut().zip(&**thresholds) {
            *padding = theta.max(0.0);
        }
    }

    /// Adds a block's part to the sums of a slab, or replaces them with it.
    fn run_block(
        &self,
        call: &BackwardWeightCall<'_>,
        group: usize,
        slab: &Range<usize>,
        (images, block): (&Range<usize>, &Block),
        replaces: bool,
        scratch: &mut Scratch<'_>,
    ) {
        let (desc, kernels) = (call.desc, call.kernels);
        let inputs = group * desc.group_in_channels()..(group + 1) * desc.group_in_channels();
        let axes = Reading::Forward.read(&Reads::all_forward(desc), block);
        let mut source = Source::new(self.copies, &desc.input_tensor(), images.clone(), axes);
        let input = source.of_group(group, kernels, &desc.input_tensor(), call.input, scratch.window);
        let thresholds = (!call.thresholds.is_linear()).then_some(&*scratch.thresholds);
        let clamps = (thresholds, &*scratch.padding);
        self.copy_patches(call, (input, source.pixels()), inputs, (images, block), clamps, scratch.patches);

        let mut gradients = (call.grad_output, Pixels::of(&desc.output_tensor()));
        let mut readable =
            if desc.output_pitch() > desc.out_channels() { desc.out_channels() - slab.start } else { usize::MAX };
        if self.copies.is_some() {
            let axes = [0, 1, 2].map(|axis| Steps { first: block.start[axis], step: 1, count: block.size[axis] });
            let window = Window { images: images.clone(), axes, channels: slab.clone(), pitch: slab.len() };
            window.copy(kernels, &desc.output_tensor(), call.grad_output, scratch.grad_output);
            (gradients, readable) = ((&*scratch.grad_output, window.pixels()), usize::MAX);
        }
        let [d, h, w] = block.size;
        let own = [d * h * w, h * w, w, 1].map(|step| step * self.pitch);
        let (gradients, pixels) = gradients;
        let gradients = &gradients[pixels.at(images.start, block.start, slab.start)..];
        let (patches, others) = (&*scratch.patches, pixels.steps([1; 3]));
        let (outputs, elements) = (slab.len(), steps(desc) + 1);
        let ([lanes, rows], [from_lanes, from_rows], steps, readable) = if self.outputs_in_lanes {
            ([outputs, elements], [gradients, patches], [others, own], readable)
        } else {
            ([elements, outputs], [patches, gradients], [own, others], usize::MAX)
        };
        let [_, pitch] = self.sums(desc, kernels);
        kernels.stripe_products(StripeProducts {
            input: from_lanes,
            positions: Lattice { counts: [images.len(), d, h, w], steps },
            first: 0,
            channels: lanes,
            readable,
            stripes: Panels::of_at_most(lanes.div_ceil(kernels.lanes), self.most_vectors),
            thresholds: None,
            copy: &mut *scratch.copy,
            gradients: from_rows,
            packed: None,
            tiles: Panels::of_at_most(rows, self.most_rows),
            in_place: true,
            pairs: !self.outputs_in_lanes || desc.group_out_channels() <= kernels.lanes,
            outside: None,
            sums: &mut *scratch.sums,
            pitch,
            replaces,
        });
    }

    /// Copies the patches of a block's positions, clamped.
    fn copy_patches(
        &self,
        call: &BackwardWeightCall<'_>,
        (input, pixels): (&[f32], &Pixels),
        channels: Range<usize>,
        (images, block): (&Range<usize>, &Block),
        (thresholds, padding): (Option<&[f32]>, &[f32]),
        patches: &mut [f32],
    ) {
        let (desc, kernels) = (call.desc, call.kernels);
        let reads = Reads::all_forward(desc);
        let intervals = |axis: usize| reads[axis].intervals_in(block.start[axis]..block.start[axis] + block.size[axis]);
        let [d, h, w] = block.size;
        let own = [d * h * w, h * w, w, 1].map(|step| step * self.pitch);
        let theirs = pixels.steps(desc.stride());
        let [_, heights, widths] = desc.kernel();
        // Taps along the width that read neighbouring pixels are copied as one line.
        let adjacent = pixels.steps(desc.dilation().map(|dilation| max(dilation, 1)))[3] == channels.len();
        for interval in intervals(0).flat_map(|d| intervals(1).flat_map(move |h| intervals(2).map(move |w| [d, h, w])))
        {
            let positions = interval.map(|Interval { positions, .. }| positions.range());
            let taps = interval.map(|Interval { taps, .. }| taps.range());
            let counts = [images.len(), positions[0].len(), positions[1].len(), positions[2].len()];
            let at = [0, 1, 2].map(|axis| (positions[axis].start - block.start[axis]) * own[1 + axis]);
            let to = &mut patches[at.iter().sum()..];
            if taps.iter().zip(desc.kernel()).any(|(taps, all)| taps.len() < all) {
                let places = Lattice { counts, steps: [[0; 4], own] };
                kernels.clamp_lines(ClampLines { from: padding, places, len: padding.len(), thresholds: None, to });
            }
            let together = if adjacent { taps[2].len() } else { 1 };
            for (d, h) in taps[0].clone().flat_map(|d| taps[1].clone().map(move |h| (d, h))) {
                for w in taps[2].clone().step_by(max(together, 1)) {
                    let reads = [0, 1, 2]
                        .map(|axis| reads[axis].source_of(positions[axis].start, [d, h, w][axis]).unwrap_or(0));
                    let step = ((d * heights + h) * widths + w) * channels.len();
                    kernels.clamp_lines(ClampLines {
                        from: &input[pixels.at(images.start, reads, channels.start)..],
                        places: Lattice { counts, steps: [theirs, own] },
                        len: together * channels.len(),
                        thresholds: thresholds.map(|thresholds| &thresholds[step..]),
                        to: &mut to[step..],
                    });
                }
            }
        }
    }

    /// Adds the sums of a slab to its filters, which have the order of the layout, and to its biases.
    fn unpack(
        &self,
        call: &BackwardWeightCall<'_>,
        sums: &[f32],
        (grad_weight, grad_bias): &mut (&mut [f32], Option<&mut [f32]>),
    ) {
        let desc = call.desc;
        let (steps, channels) = (steps(desc), desc.group_in_channels());
        let (channel_step, tap_step) = channel_and_tap_strides(desc);
        let [_, pitch] = self.sums(desc, call.kernels);
        // The first of an output channel's sums, and the distance from one to the next.
        let first = |d: usize| if self.outputs_in_lanes { d } else { d * pitch };
        let step = if self.outputs_in_lanes { pitch } else { 1 };
        for (d, filter) in grad_weight.chunks_exact_mut(steps).enumerate() {
            let sums = &sums[first(d)..];
            if step == 1 && channel_step == 1 {
                strided::add(&sums[..steps], filter, 1);
                continue;
            }
            let mut at = 0;
            for tap in 0..desc.taps() {
                for channel in 0..channels {
                    filter[tap * tap_step + channel * channel_step] += sums[at];
                    at += step;
                }
            }
        }
        for (d, bias) in grad_bias.iter_mut().flat_map(|bias| bias.iter_mut()).enumerate() {
            *bias += sums[first(d) + steps * step];
        }
    }
}
