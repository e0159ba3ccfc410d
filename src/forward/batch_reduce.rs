//! Forward driver with output channels in lanes. It multiplies only by taps that read inside the input.
//!
//! The driver reads and writes tensors with channels last in place. If a tensor has channels first, it transposes the
//! [window](crate::pixels) of each block. It also copies windows if the pixels of a group lie far apart.
//!
//! Positions that read inside through the same taps are a class. For each block of positions and each panel of output channels,
//! the driver calls the kernel once per class: for a box of positions times a box of taps, both at constant steps. Taps that read
//! padding add the same to every position of a class. So the sums of a class start from what its padded taps add.

use core::ops::Range;

use super::OutputPart;
use crate::arith::{clamp, equal, max, min, product};
use crate::calls::ForwardCall;
use crate::desc::{ConvDesc, volume};
use crate::geometry::{Class, Lattice, Reads, chunks, classes_in};
use crate::kernel::{self, BatchReduce as TileCall, Kernels, PaddedTap, View};
use crate::layout::Layout;
use crate::pixels::{Blocks, Budget, Copies, Pixels, Reading, Results, Source};
use crate::stage::{Block, blocks, largest_block};
use crate::tuning::Tuning;
use crate::weight::Packing;
use crate::workspace::Buffers;

/// Elements of the input that a block of positions reads: 1 MiB. All panels of output channels read them, one after another, so
/// they stay in a core's share of the last cache and stream from there. (Blocks of 64 to 256 KiB, for the second-level cache,
/// were up to a fifth slower on Zen 3: each block loads all panels of weights again, and blocks have edges.)
const BLOCK_LEN: usize = 256 * 1024;

/// Elements of a copied window and the results of a panel: 160 KiB, so that a panel's weights fit the second-level cache beside
/// them.
const COPIED_LEN: usize = 40 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct BatchReduce {
    /// Images per block.
    images: usize,
    block: [usize; 3],
    /// The copies of the input. None if the input is read in place.
    copies: Option<Copies>,
    /// Whether results are transposed before they are stored.
    transposes: bool,
    packing: Packing,
    /// Most rows of a tile.
    tile: usize,
    /// Whether inputs are clamped once for all panels. If None, the CPU decides.
    packs: Option<bool>,
    /// Whether vectors are halved where they can. If None, the CPU decides.
    halves: Option<bool>,
}

/// The blocks whose windows are copied.
const fn copied_blocks(desc: &ConvDesc, tuning: &Tuning, packing: &Packing) -> Option<Blocks> {
    let budget = Budget {
        per_group: desc.group_in_channels(),
        per_position: packing.panel_width(),
        most: min(COPIED_LEN, tuning.staging_len.saturating_mul(4)),
        positions: tuning.positions,
    };
    Blocks::new(desc, Reading::Forward, budget)
}

/// Elements of a group's weights that stay in a core's share of the last cache: 4 MiB.
const MOST_WEIGHTS: usize = 1 << 20;

/// Elements of clamped inputs: 64 KiB, which stay in the second-level cache while weights stream through it. A single tile may
/// need more, up to 160 KiB.
const PACKED_LEN: usize = 16 * 1024;
const MOST_PACKED_LEN: usize = 40 * 1024;

/// Elements of clamped inputs, or 0 if they are never packed. The CPU decides whether they are packed. It does not decide how
/// many elements there are, so that a workspace serves all CPUs with the same instruction set.
const fn packed_len(desc: &ConvDesc, packing: &Packing, kernels: &Kernels) -> usize {
    const POSSIBLE: bool = cfg!(any(target_arch = "x86_64", feature = "internal-testing"));
    let one = kernel::packed_len(packing.depth(desc));
    if !POSSIBLE || kernels.lanes == 1 || is_single(desc) || one > MOST_PACKED_LEN {
        return 0;
    }
    let positions = desc.batch().saturating_mul(volume(desc.output_size()));
    max(one, min(PACKED_LEN, one.saturating_mul(positions)))
}

/// Whether a layer has a single position.
const fn is_single(desc: &ConvDesc) -> bool {
    desc.batch() == 1 && equal(desc.output_size(), [1; 3])
}

/// Whether the algorithm can compute a layer.
pub(super) const fn applies(desc: &ConvDesc, tuning: &Tuning, packing: &Packing) -> bool {
    !transposes(desc) || copied_blocks(desc, tuning, packing).is_some()
}

/// Whether the layer's tensors have channels first.
const fn transposes(desc: &ConvDesc) -> bool {
    matches!(desc.tensor_layout(), Layout::Nchw)
}

/// Whether windows of a layer with channels last are copied. The pixels of a group are a multiple of 4096 bytes apart, so that the
/// rows of a tile share a few sets of the first-level cache. Or the input is so large that the groups, one after another, would read
/// a few lines of each pixel from memory, over which the CPU fetches badly.
///
/// Measured on Zen 4, 8 images of 28 × 28 positions, 3 × 3 taps: 32 groups of 15 or 16 channels, 12 MiB, 0.51 to 0.71 of the time; 32
/// groups of 8 channels, 6 MiB, no difference.
const fn copies_groups(desc: &ConvDesc) -> bool {
    /// Elements of the input: 8 MiB, a core's share of the last cache.
    const LARGE: usize = 2 << 20;
    /// Channels of a group: four lines.
    const FEW_CHANNELS: usize = 64;
    let elements = desc.input_tensor().image_len().saturating_mul(desc.batch());
    let large = elements > LARGE && desc.group_in_channels() < FEW_CHANNELS && desc.taps() > 1;
    desc.groups() > 1 && (large || desc.input_pitch().is_multiple_of(1024))
}

impl BatchReduce {
    pub(super) const fn new(desc: &ConvDesc, tuning: &Tuning, packing: Packing) -> Self {
        let transposes = transposes(desc);
        let copied = if transposes || copies_groups(desc) { copied_blocks(desc, tuning, &packing) } else { None };
        let (images, block, copies) = match copied {
            Some(Blocks { images, block, copies }) => (images, block, Some(copies)),
            None => {
                let [d, h, w] = desc.stride();
                let per_position = desc.group_in_channels().saturating_mul(d).saturating_mul(h).saturating_mul(w);
                let most = clamp(BLOCK_LEN / max(per_position, 1), 1, tuning.positions);
                // The block holds whole images, planes or rows if they fit, because tiles at the edges of a block have few rows.
                let block = largest_block(desc.output_size(), most);
                let images = clamp(most / volume(desc.output_size()), 1, max(desc.batch(), 1));
                (images, block, None)
            }
        };
        Self {
            images,
            block,
            copies,
            transposes,
            packing,
            tile: tuning.panel,
            packs: tuning.packs,
            halves: tuning.halves,
        }
    }

    /// The buffers of one thread: thresholds of all steps of all groups; what each padded tap adds to each output channel; the
    /// values from which the sums of a group's panels start; the copy of a window; the results of a panel; clamped inputs.
    pub(super) const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<6> {
        let taps = desc.taps();
        let padded = if desc.has_padding() { self.packing.all_lanes(desc).saturating_mul(taps) } else { 0 };
        let window = match &self.copies {
            None => 0,
            Some(copies) => copies.len(),
        };
        let results = if self.transposes { self.images * product(self.block) * self.packing.panel_width() } else { 0 };
        let thresholds = desc.in_channels().saturating_mul(taps);
        let packed = packed_len(desc, &self.packing, kernels);
        Buffers::new([thresholds, padded, self.packing.group_width(), window, results, packed], kernels.lanes)
    }

    pub(super) fn run(&self, call: &ForwardCall<'_>, part: OutputPart<'_>) {
        let desc = call.desc;
        let OutputPart { mut output, images, panels, space, workspace } = part;
        let ([thresholds, padded, start, copy, results, mut packed], _) =
            self.buffers(desc, call.kernels).carve(workspace);
        let linear = call.thresholds.is_linear();
        let packs = !linear && !packed.is_empty() && self.packs.unwrap_or_else(|| call.kernels.maxima_cost_products());
        if !packs {
            packed = &mut [];
        }
        tabulate_thresholds(call, thresholds);
        let walk = Walk {
            driver: self,
            call,
            thresholds,
            reads: Reads::all_forward(desc),
            pads: desc.has_padding() && !call.thresholds.adds_nothing_to_padding(),
            single: is_single(desc),
            halves: !packs
                && call.kernels.has_halves()
                && self.halves.unwrap_or_else(|| call.kernels.vectors_are_pairs()),
        };
        // All panels use the clamped inputs of a few tiles, and then those of the next few tiles. So the weights of all panels
        // are read many times. This is faster only if the last cache holds the weights.
        let few_weights = self.packing.depth(desc).saturating_mul(self.packing.group_width()) <= MOST_WEIGHTS;
        let mut first = true;
        for images in chunks(images, self.images) {
            for block in blocks(space.clone(), self.block) {
                let mut place = walk.place(images.clone(), block);
                let mut next = panels.start;
                while next < panels.end {
                    let together = !self.transposes && if packs { few_weights } else { place.only.is_some() };
                    let end = if together { min(walk.alike(next), panels.end) } else { next + 1 };
                    let panels = walk.panels(next..end);
                    if first {
                        walk.pad(&panels, padded);
                    }
                    let input =
                        place.source.of_group(panels.group, call.kernels, &desc.input_tensor(), call.input, &mut *copy);
                    let start = &mut start[..panels.lanes.len()];
                    if !self.transposes {
                        let mut target = Target {
                            packed: &mut *packed,
                            view: &mut output,
                            images: images.clone(),
                            origin: [0; 3],
                            channels: panels.channels.clone(),
                        };
                        walk.block(&panels, padded, start, &place, input, &mut target);
                    } else {
                        let own = Results { images: images.clone(), block, width: panels.width };
                        let tensor = &own.tensor();
                        let mut target = Target {
                            packed: &mut *packed,
                            view: &mut View::new(results, tensor),
                            images: 0..images.len(),
                            origin: block.start,
                            channels: 0..if walk.is_half(&panels) { panels.width / 2 } else { panels.width },
                        };
                        walk.block(&panels, padded, start, &place, input, &mut target);
                        own.store(call.kernels, results, panels.channels.clone(), &mut output, call.epilogue);
                    }
                    next = end;
                }
                first = false;
            }
        }
    }
}

/// Where a block stores its results, and its clamped inputs if they are packed.
struct Target<'a, 'v> {
    packed: &'a mut [f32],
    view: &'a mut View<'v>,
    images: Range<usize>,
    /// The position of the first result.
    origin: [usize; 3],
    channels: Range<usize>,
}

/// The part of a call that all blocks share.
struct Walk<'a> {
    driver: &'a BatchReduce,
    call: &'a ForwardCall<'a>,
    /// `[group][tap][channel]`
    thresholds: &'a [f32],
    reads: [Reads; 3],
    /// Whether padded taps add anything.
    pads: bool,
    /// Whether the layer has a single position.
    single: bool,
    /// Whether panels of one vector are computed with vectors of half the lanes, where they can. The sums are the same, bit by bit.
    halves: bool,
}

/// A block of positions of some images.
struct Place {
    images: Range<usize>,
    block: Block,
    /// The input, or a copy of the window that the block reads.
    source: Source,
    /// The only class of the block, if the block has just one. Then no panel needs to enumerate the classes. In small layers that
    /// would take a noticeable time.
    only: Option<Site>,
}

/// The part of a class that all panels share.
struct Site {
    class: Class,
    /// The first step that reads inside.
    first_step: usize,
    /// All steps that read inside, counted from that one. None if no tap reads inside.
    taps: Option<Lattice<2>>,
    /// The coordinates that the first position reads at that step.
    read: [usize; 3],
}

/// Panels of output channels of one group, all of the same width.
struct SomePanels<'a> {
    /// `[panel][step][lane]`
    weight: &'a [f32],
    /// One per step.
    thresholds: &'a [f32],
    group: usize,
    count: usize,
    /// Lanes of each panel.
    width: usize,
    /// Counted over all groups.
    channels: Range<usize>,
    /// Counted over all groups, lanes without a channel included.
    lanes: Range<usize>,
}

impl<'a> Walk<'a> {
    /// The end of the panels that belong to the same group as `panel` and are as wide. Panels are counted over all groups.
    fn alike(&self, panel: usize) -> usize {
        let packing = &self.driver.packing;
        panel + packing.panels().alike(packing.panel_of_all(panel).1)
    }

    /// Panels counted over all groups, which are [alike](Self::alike).
    fn panels(&self, panels: Range<usize>) -> SomePanels<'a> {
        let (desc, packing) = (self.call.desc, &self.driver.packing);
        let (group, _) = packing.panel_of_all(panels.start);
        let depth = packing.depth(desc);
        let [lanes, channels] = [
            packing.lane_of_all(panels.start)..packing.lane_of_all(panels.end),
            packing.channel_of_all(desc, panels.start)..packing.channel_of_all(desc, panels.end),
        ];
        SomePanels {
            weight: &self.call.weight[lanes.start * depth..lanes.end * depth],
            thresholds: &self.thresholds[group * depth..][..depth],
            group,
            count: panels.len(),
            width: lanes.len() / panels.len(),
            channels,
            lanes,
        }
    }

    /// Whether one vector of half the lanes computes these panels. (With a single position it would gain nothing.)
    fn is_half(&self, panels: &SomePanels<'_>) -> bool {
        let lanes = self.call.kernels.lanes;
        self.halves && !self.single && panels.count == 1 && panels.width == lanes && panels.channels.len() <= lanes / 2
    }

    /// Computes what padded taps add, for panels that no block has used yet: `padded[panel][tap][lane]`.
    fn pad(&self, panels: &SomePanels<'_>, padded: &mut [f32]) {
        if !self.pads {
            return;
        }
        let (taps, channels) = (self.call.desc.taps(), self.call.desc.group_in_channels());
        let sums = padded[panels.lanes.start * taps..panels.lanes.end * taps].chunks_exact_mut(panels.width);
        let thresholds = panels.thresholds.chunks_exact(channels).cycle();
        let weights = panels.weight.chunks_exact(channels * panels.width);
        for ((sums, weight), thresholds) in sums.zip(weights).zip(thresholds) {
            self.call.kernels.padded_tap(PaddedTap { weight, thresholds, sums });
        }
    }

    /// The part of a block that all panels share.
    fn place(&self, images: Range<usize>, block: Block) -> Place {
        let range = |axis: usize| block.start[axis]..block.start[axis] + block.size[axis];
        let axes = [0, 1, 2].map(|axis| self.reads[axis].read_by(range(axis)));
        let source = Source::new(self.driver.copies, &self.call.desc.input_tensor(), images.clone(), axes);
        let mut classes = classes_in(&self.reads, [range(0), range(1), range(2)]);
        let (first, others) = (classes.next(), classes.next());
        let only = if others.is_none() { first.map(|class| self.site(class, source.pixels())) } else { None };
        Place { images, block, source, only }
    }

    /// The positions of a block times some panels.
    fn block(
        &self,
        panels: &SomePanels<'_>,
        padded: &[f32],
        start: &mut [f32],
        place: &Place,
        input: &[f32],
        target: &mut Target<'_, '_>,
    ) {
        if let Some(site) = &place.only {
            self.start(panels, padded, &site.class, start);
            self.class(panels, start, place, input, site, target);
            return;
        }
        let Block { start: from, size } = place.block;
        let range = |axis: usize| from[axis]..from[axis] + size[axis];
        for class in classes_in(&self.reads, [range(0), range(1), range(2)]) {
            self.start(panels, padded, &class, start);
            self.class(panels, start, place, input, &self.site(class, place.source.pixels()), target);
        }
    }

    /// The positions of a class times some panels.
    fn class(
        &self,
        panels: &SomePanels<'_>,
        start: &[f32],
        place: &Place,
        input: &[f32],
        site: &Site,
        target: &mut Target<'_, '_>,
    ) {
        let desc = self.call.desc;
        let pixels = place.source.pixels();
        let first = if site.taps.is_some() {
            pixels.at(place.images.start, site.read, panels.group * desc.group_in_channels())
        } else {
            0
        };
        let [d, h, w] = target.origin;
        let [ds, hs, ws] = site.class.positions;
        let positions = [ds.before(d), hs.before(h), ws.before(w)];
        let output = target.view.pixels(target.images.clone(), &positions, target.channels.clone());
        // Where results are transposed, the epilogue follows the transposition.
        let epilogue = self.call.epilogue.filter(|_| !self.driver.transposes);
        let ending = epilogue.map(|epilogue| epilogue.from(panels.channels.start, output.offset));
        let call = TileCall {
            source: &input[first..],
            source_steps: pixels.steps(desc.stride()),
            taps: site.taps,
            weight: &panels.weight[site.first_step * panels.width..],
            panels: panels.count,
            width: panels.width,
            pitch: panels.weight.len() / panels.count,
            thresholds: if self.call.thresholds.is_linear() {
                None
            } else {
                Some(&panels.thresholds[site.first_step..])
            },
            start,
            output,
            tile: self.driver.tile,
            single: self.single,
            packed: target.packed,
            ending,
        };
        let lanes = self.call.kernels.lanes;
        // With both halves, linear layers would be slower than with whole vectors.
        let both = || call.thresholds.is_some() && panels.lanes.len() - panels.channels.len() < lanes / 2;
        if self.halves && panels.width == lanes && (self.is_half(panels) || both()) {
            self.call.kernels.batch_reduce_halves(call);
        } else {
            self.call.kernels.batch_reduce(call);
        }
    }

    /// The part of a class that all panels share.
    fn site(&self, class: Class, pixels: &Pixels) -> Site {
        let (first_step, taps) = self.taps(&class, pixels);
        let read = if taps.is_some() { class.first_read(&self.reads) } else { [0; 3] };
        Site { class, first_step, taps, read }
    }

    /// The values from which the sums of a class start: the bias, and what its padded taps add.
    fn start(&self, panels: &SomePanels<'_>, padded: &[f32], class: &Class, start: &mut [f32]) {
        start.fill(0.0);
        if let Some(bias) = self.call.bias {
            start[..panels.channels.len()].copy_from_slice(&bias[panels.channels.clone()]);
        }
        let taps = self.call.desc.taps();
        if !self.pads || class.taps_len() == taps {
            return;
        }
        let padded = padded[panels.lanes.start * taps..].chunks_exact(panels.width * taps);
        for (start, padded) in start.chunks_exact_mut(panels.width).zip(padded) {
            for tap in class.padded(self.call.desc.kernel()) {
                let own = &padded[tap * panels.width..];
                start.iter_mut().zip(own).for_each(|(start, own)| *start += own);
            }
        }
    }

    /// The steps of a class: the number of the first one, and the places of all of them, counted from the first, in the input and
    /// among all steps.
    fn taps(&self, class: &Class, pixels: &Pixels) -> (usize, Option<Lattice<2>>) {
        if class.taps_len() == 0 {
            return (0, None);
        }
        let desc = self.call.desc;
        let channels = desc.group_in_channels();
        let [_, height, width] = desc.kernel();
        let [d, h, w] = class.taps.map(|taps| taps.start);
        let first = ((d * height + h) * width + w) * channels;
        let [_, d, h, w] = pixels.steps([0, 1, 2].map(|axis| self.reads[axis].dilation()));
        let [ds, hs, ws] = class.taps.map(|taps| taps.len());
        let steps = [[d, h, w, 1], [height * width * channels, width * channels, channels, 1]];
        (first, Some(Lattice { counts: [ds, hs, ws, channels], steps }.joined_lines()))
    }
}

/// Thresholds of all steps, `[group][tap][channel]`.
fn tabulate_thresholds(call: &ForwardCall<'_>, thresholds: &mut [f32]) {
    let (channels, taps) = (call.desc.group_in_channels(), call.desc.taps());
    for (index, row) in thresholds.chunks_exact_mut(channels).enumerate() {
        let (group, tap) = (index / taps, index % taps);
        call.thresholds.copy_channels(group * channels..(group + 1) * channels, tap, row, 1);
    }
}
