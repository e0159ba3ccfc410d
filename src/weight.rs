//! Packed weights: the order in which the kernels read them.

use core::ops::Range;

use crate::desc::ConvDesc;
use crate::error::Error;
use crate::geometry::Panels;
use crate::isa::Isa;
use crate::kernel::{CopyBlock, Kernels, RowsMut, TransposeBlock, VECTORS};
use crate::strided;
use crate::threads::{Executor, Rest, for_each};

/// Weights packed for many calls. [`ConvRelu::pack_weight`](crate::ConvRelu::pack_weight) packs them for the forward pass,
/// [`ConvRelu::pack_weight_transposed`](crate::ConvRelu::pack_weight_transposed) for the backward pass of the input.
///
/// A plan accepts them if it has the same instruction set, the same layer (the descriptor without batch and input size), and
/// reads weights in the same order. Plans that differ only in the batch always do. Every other plan refuses them with
/// [`Error::PackedElsewhere`].
#[derive(Clone, Copy, Debug)]
pub struct PackedWeight<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) layer: ConvDesc,
    pub(crate) isa: Isa,
    pub(crate) packing: Packing,
}

impl PackedWeight<'_> {
    /// Whether a plan of a layer for an instruction set reads them in this packing.
    pub(crate) fn belongs_to(&self, desc: &ConvDesc, isa: Isa, packing: Packing) -> bool {
        self.isa == isa && self.packing == packing && self.layer.is_layer_of(desc)
    }
}

/// How a pass reads weights: panels of channels side by side, for each group, panel, and step of the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Packing {
    order: Order,
    /// Panels of the channels side by side, counted in `lanes`.
    panels: Panels,
    /// 1, or the lanes of a vector. Lanes without a channel hold zeros.
    lanes: usize,
}

/// Which channels lie side by side, and the order of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Order {
    /// `[input channel][tap][output channel of the panel]`
    ChannelTap,
    /// `[tap][input channel][output channel of the panel]`
    TapChannel,
    /// `[tap][output channel][input channel of the panel]`
    Transposed,
    /// `[tap][output channel of the panel]`. The panel holds output channels of all groups, each of which has one input channel.
    /// The flag tells the weights of the two passes apart, which otherwise have the same order.
    Depthwise { backward: bool },
}

impl Packing {
    /// Panels of a group's output channels, `[input channel][tap][output channel]`.
    pub(crate) const fn rows(panels: Panels) -> Self {
        Self { order: Order::ChannelTap, panels, lanes: 1 }
    }

    /// Panels of at most `most` vectors of output channels, `[tap][input channel][lane]`.
    pub(crate) const fn lanes(desc: &ConvDesc, most: usize, lanes: usize) -> Self {
        let vectors = desc.group_out_channels().div_ceil(lanes);
        Self { order: Order::TapChannel, panels: Panels::of_at_most(vectors, most), lanes }
    }

    /// Panels of a group's input channels, `[tap][output channel][input channel]`.
    pub(crate) const fn transposed(panels: Panels) -> Self {
        Self { order: Order::Transposed, panels, lanes: 1 }
    }

    /// Panels of at most `most` vectors of input channels, `[tap][output channel][lane]`.
    pub(crate) const fn transposed_lanes(desc: &ConvDesc, most: usize, lanes: usize) -> Self {
        let vectors = desc.group_in_channels().div_ceil(lanes);
        Self { order: Order::Transposed, panels: Panels::of_at_most(vectors, most), lanes }
    }

    /// Vectors of the output channels of all groups, each of which has one input channel: `[tap][lane]`.
    pub(crate) const fn depthwise(desc: &ConvDesc, lanes: usize, backward: bool) -> Self {
        let vectors = desc.out_channels().div_ceil(lanes);
        Self { order: Order::Depthwise { backward }, panels: Panels::of_at_most(vectors, 1), lanes }
    }

    /// The number of groups whose panels lie apart.
    const fn groups(&self, desc: &ConvDesc) -> usize {
        if VECTORS && matches!(self.order, Order::Depthwise { .. }) { 1 } else { desc.groups() }
    }

    /// Panels of all groups.
    pub(crate) const fn all_panels(&self, desc: &ConvDesc) -> usize {
        self.groups(desc) * self.panels.count()
    }

    /// Channels of a group that lie side by side in panels.
    const fn channels(&self, desc: &ConvDesc) -> usize {
        match self.order {
            Order::Depthwise { .. } if VECTORS => desc.out_channels(),
            Order::ChannelTap | Order::TapChannel | Order::Depthwise { .. } => desc.group_out_channels(),
            Order::Transposed => desc.group_in_channels(),
        }
    }

    /// Panels of a group, counted in vectors or channels.
    pub(crate) const fn panels(&self) -> Panels {
        self.panels
    }

    /// First lane of a panel of a group, lanes without a channel counted. For the number of panels, it is the end.
    pub(crate) const fn lane(&self, panel: usize) -> usize {
        self.panels.start(panel) * self.lanes
    }

    /// Lanes of the widest panel.
    pub(crate) const fn panel_width(&self) -> usize {
        self.panels.max() * self.lanes
    }

    /// Lanes of a group.
    pub(crate) const fn group_width(&self) -> usize {
        self.panels.len() * self.lanes
    }

    /// First channel of a panel of a group. For the number of panels, it is the end.
    pub(crate) fn channel(&self, desc: &ConvDesc, panel: usize) -> usize {
        self.lane(panel).min(self.channels(desc))
    }

    /// First channel of a panel, both counted over all groups.
    pub(crate) fn channel_of_all(&self, desc: &ConvDesc, panel: usize) -> usize {
        let (group, panel) = self.panel_of_all(panel);
        group * self.channels(desc) + self.channel(desc, panel)
    }

    /// Lanes of all groups, those without a channel counted. Saturates.
    pub(crate) const fn all_lanes(&self, desc: &ConvDesc) -> usize {
        self.groups(desc).saturating_mul(self.group_width())
    }

    /// First lane of a panel counted over all groups, lanes without a channel counted.
    pub(crate) fn lane_of_all(&self, panel: usize) -> usize {
        let (group, panel) = self.panel_of_all(panel);
        group * self.group_width() + self.lane(panel)
    }

    /// The group of a panel that is counted over all groups, and the panel's number in its group.
    pub(crate) const fn panel_of_all(&self, panel: usize) -> (usize, usize) {
        (panel / self.panels.count(), panel % self.panels.count())
    }

    /// The packed weights of a panel, counted over all groups: `[step][lane]`.
    pub(crate) fn panel<'a>(&self, desc: &ConvDesc, packed: &'a [f32], panel: usize) -> &'a [f32] {
        let depth = self.depth(desc);
        &packed[self.lane_of_all(panel) * depth..self.lane_of_all(panel + 1) * depth]
    }

    /// Steps of the sum: weights per lane.
    pub(crate) const fn depth(&self, desc: &ConvDesc) -> usize {
        match self.order {
            Order::Depthwise { .. } if VECTORS => desc.taps(),
            Order::ChannelTap | Order::TapChannel | Order::Depthwise { .. } => desc.group_in_channels() * desc.taps(),
            Order::Transposed => desc.group_out_channels() * desc.taps(),
        }
    }

    /// Distances of output channels, input channels and taps, if there is only one panel.
    pub(crate) const fn strides(&self, desc: &ConvDesc) -> Option<[usize; 3]> {
        if self.panels.count() != 1 || desc.groups() != 1 {
            return None;
        }
        let width = self.group_width();
        Some(match self.order {
            Order::ChannelTap => [1, desc.taps() * width, width],
            Order::TapChannel => [1, width, desc.in_channels() * width],
            Order::Transposed => [width, 1, desc.out_channels() * width],
            Order::Depthwise { .. } => [1, 0, width],
        })
    }

    /// Elements of all packed weights; saturates.
    pub(crate) const fn len(&self, desc: &ConvDesc) -> usize {
        self.all_lanes(desc).saturating_mul(self.depth(desc))
    }

    /// Filters of a group, where the panels of groups lie apart.
    const fn group_filters(&self, desc: &ConvDesc) -> usize {
        desc.out_channels() / self.groups(desc)
    }

    /// Packs all of a layer's weights.
    pub(crate) fn pack(&self, desc: &ConvDesc, kernels: &Kernels, weight: &[f32], packed: &mut [f32]) {
        self.pack_panels(desc, kernels, weight, 0..self.all_panels(desc), &mut packed[..self.len(desc)]);
    }

    /// Packs all of a layer's weights, too. Threads share the panels.
    pub(crate) fn pack_in_parts(
        &self,
        layer: (&ConvDesc, &Kernels),
        weight: &[f32],
        packed: &mut [f32],
        threads: usize,
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let (desc, kernels) = layer;
        let parts = Panels::into_parts(self.all_panels(desc), threads);
        let mut rest = Rest::of(packed);
        let jobs = parts.iter().map(move |panels| {
            let lanes = self.lane_of_all(panels.end) - self.lane_of_all(panels.start);
            (rest.cut(lanes * self.depth(desc)), panels)
        });
        for_each(executor, parts.count(), jobs, &|(packed, panels): (&mut [f32], _)| {
            self.pack_panels(desc, kernels, weight, panels, packed);
        })
    }

    /// Packs some panels, counted over all groups.
    fn pack_panels(
        &self,
        desc: &ConvDesc,
        kernels: &Kernels,
        weight: &[f32],
        panels: Range<usize>,
        mut packed: &mut [f32],
    ) {
        let (in_channels, taps) = (desc.group_in_channels(), desc.taps());
        let (channel, tap) = channel_and_tap_strides(desc);
        let filter = in_channels * taps;
        let group_len = self.group_filters(desc) * filter;
        for panel in panels {
            let (group, panel) = self.panel_of_all(panel);
            let weight = &weight[group * group_len..][..group_len];
            let (first, width) = (self.lane(panel), self.lane(panel + 1) - self.lane(panel));
            let used = self.channel(desc, panel + 1) - first;
            let (out, rest) = packed.split_at_mut(width * self.depth(desc));
            packed = rest;
            if used < width {
                out.fill(0.0);
            }
            match self.order {
                Order::Depthwise { .. } if VECTORS => {
                    transpose(kernels, &weight[first * filter..], filter, out, width, [used, filter]);
                }
                // Builds without vectors never plan it.
                Order::Depthwise { .. } => (),
                // The steps have the order of the layout, so one transposition does it.
                Order::ChannelTap if tap == 1 => {
                    transpose(kernels, &weight[first * filter..], filter, out, width, [used, filter]);
                }
                Order::TapChannel if VECTORS && channel == 1 => {
                    transpose(kernels, &weight[first * filter..], filter, out, width, [used, filter]);
                }
                Order::ChannelTap | Order::TapChannel => {
                    let (channel_step, tap_step) =
                        if !VECTORS || self.order == Order::ChannelTap { (taps, 1) } else { (1, in_channels) };
                    for t in 0..taps {
                        for d in 0..used {
                            let out = &mut out[t * tap_step * width + d..];
                            let weight = &weight[(first + d) * filter + t * tap..];
                            strided::copy(weight, channel, out, channel_step * width, in_channels);
                        }
                    }
                }
                Order::Transposed => {
                    let tap_pitch = desc.group_out_channels() * width;
                    if channel == 1 {
                        kernels.copy(CopyBlock {
                            from: &weight[first..],
                            from_plane: filter,
                            from_row: tap,
                            step: 1,
                            to: out,
                            to_plane: width,
                            to_row: tap_pitch,
                            planes: weight.len() / filter,
                            rows: taps,
                            len: used,
                        });
                        continue;
                    }
                    for (d, filter) in weight.chunks_exact(filter).enumerate() {
                        transpose(
                            kernels,
                            &filter[first * channel..],
                            channel,
                            &mut out[d * width..],
                            tap_pitch,
                            [used, taps],
                        );
                    }
                }
            }
        }
    }
}

/// Weights that are read one by one: in the order of the layout, or packed in one panel.
pub(crate) struct WeightTable<'a> {
    values: &'a [f32],
    /// Distances of output channels, input channels and taps.
    strides: [usize; 3],
}

impl<'a> WeightTable<'a> {
    pub(crate) const fn new(values: &'a [f32], strides: [usize; 3]) -> Self {
        Self { values, strides }
    }

    #[inline(always)]
    pub(crate) fn at(&self, out_channel: usize, in_channel: usize, tap: usize) -> f32 {
        let [d, c, k] = self.strides;
        self.values[out_channel * d + in_channel * c + tap * k]
    }
}

/// Distances of output channels, input channels and taps in the order of the layout.
pub(crate) const fn plain_strides(desc: &ConvDesc) -> [usize; 3] {
    let (channel, tap) = channel_and_tap_strides(desc);
    [desc.group_in_channels() * desc.taps(), channel, tap]
}

fn transpose(
    kernels: &Kernels,
    from: &[f32],
    from_step: usize,
    to: &mut [f32],
    to_step: usize,
    [rows, columns]: [usize; 2],
) {
    let to = RowsMut::of_slice(to, columns, to_step, rows);
    kernels.transpose(TransposeBlock { from, from_step, from_column: 1, to });
}

/// Distance of the input channels, and of the taps, of one filter.
pub(crate) const fn channel_and_tap_strides(desc: &ConvDesc) -> (usize, usize) {
    // Taps are dense in both layouts, so one stride walks all three kernel axes.
    let strides = desc.weight_strides();
    (strides.channel, strides.spatial[2])
}
