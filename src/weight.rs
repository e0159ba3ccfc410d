//! Packed weights: the order in which the kernels with positions in lanes read them.

use crate::desc::ConvDesc;
use crate::kernel::Isa;
use crate::panels::Panels;
use crate::strided;

/// Weights packed by [`ConvRelu::pack_weight`](crate::ConvRelu::pack_weight), for many calls of
/// [`ConvRelu::forward`](crate::ConvRelu::forward).
///
/// They belong to the plan that packed them, and to plans of the same layer (all of the descriptor but batch and
/// input size) for the same instruction set; every other plan refuses them.
#[derive(Clone, Copy, Debug)]
pub struct PackedWeight<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) layer: ConvDesc,
    pub(crate) isa: Isa,
    pub(crate) packing: Packing,
}

/// How the forward pass reads weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// `[group][panel of output channels][input channel][tap][output channel of the panel]`, read one by one.
    Rows(Panels),
    /// `[group][panel of vectors of output channels][tap][input channel][lane of the panel]`, read by vectors; lanes
    /// without a channel hold zeros.
    Lanes { vectors: Panels, lanes: usize },
}

impl Packing {
    /// Panels of a group.
    pub(crate) const fn panels(&self) -> usize {
        match self {
            Self::Rows(panels) | Self::Lanes { vectors: panels, .. } => panels.count(),
        }
    }

    /// First output channel of a panel of a group; of the last one's successor, the end.
    pub(crate) fn channel(&self, desc: &ConvDesc, panel: usize) -> usize {
        match self {
            Self::Rows(panels) => panels.start(panel),
            Self::Lanes { vectors, lanes } => (vectors.start(panel) * lanes).min(desc.group_out_channels()),
        }
    }

    /// Elements of a group's packed weights; saturates.
    pub(crate) fn group_len(&self, desc: &ConvDesc) -> usize {
        let filter = desc.group_in_channels() * desc.taps();
        match self {
            Self::Rows(panels) => panels.len() * filter,
            Self::Lanes { vectors, lanes } => (vectors.len() * lanes).saturating_mul(filter),
        }
    }

    /// Elements of all packed weights; saturates.
    pub(crate) fn len(&self, desc: &ConvDesc) -> usize {
        desc.groups().saturating_mul(self.group_len(desc))
    }

    /// Packs all of a layer's weights.
    pub(crate) fn pack(&self, desc: &ConvDesc, weight: &[f32], packed: &mut [f32]) {
        let (in_channels, taps) = (desc.group_in_channels(), desc.taps());
        let (channel, tap) = channel_and_tap_strides(desc);
        let filter = in_channels * taps;
        let group_weight = desc.group_out_channels() * filter;
        let groups = packed[..self.len(desc)].chunks_exact_mut(self.group_len(desc));
        for (packed, weight) in groups.zip(weight.chunks_exact(group_weight)) {
            match *self {
                Self::Rows(panels) => {
                    for panel in panels.iter() {
                        let out = &mut packed[panel.start * filter..][..panel.len() * filter];
                        let filters = weight[panel.start * filter..][..panel.len() * filter].chunks_exact(filter);
                        for (lane, filter) in filters.enumerate() {
                            for c in 0..in_channels {
                                let out = &mut out[c * taps * panel.len() + lane..];
                                strided::copy(&filter[c * channel..], tap, out, panel.len(), taps);
                            }
                        }
                    }
                }
                Self::Lanes { vectors, lanes } => {
                    for panel in vectors.iter() {
                        let width = panel.len() * lanes;
                        let first = panel.start * lanes;
                        let used = width.min(desc.group_out_channels() - first);
                        let out = &mut packed[first * filter..][..width * filter];
                        if used < width {
                            out.fill(0.0);
                        }
                        for t in 0..taps {
                            let out = &mut out[t * in_channels * width..][..in_channels * width];
                            let weight = &weight[first * filter + t * tap..];
                            if channel == 1 {
                                strided::transpose(weight, filter, out, width, used, in_channels);
                            } else {
                                for d in 0..used {
                                    strided::copy(&weight[d * filter..], channel, &mut out[d..], width, in_channels);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Packs one panel of input channels of a group for the backward pass of the input:
/// `[tap][output channel][input channel of the panel]`.
pub(crate) fn pack_backward_input(
    desc: &ConvDesc,
    group: usize,
    panel: core::ops::Range<usize>,
    weight: &[f32],
    packed: &mut [f32],
) {
    let (out_channels, taps) = (desc.group_out_channels(), desc.taps());
    let (channel, tap) = channel_and_tap_strides(desc);
    let filter = desc.group_in_channels() * taps;
    let filters = weight[group * out_channels * filter..][..out_channels * filter].chunks_exact(filter);
    for (d, filter) in filters.enumerate() {
        for (lane, c) in panel.clone().enumerate() {
            let out = &mut packed[d * panel.len() + lane..];
            strided::copy(&filter[c * channel..], tap, out, out_channels * panel.len(), taps);
        }
    }
}

/// Distance of the input channels, and of the taps, of one filter.
pub(crate) const fn channel_and_tap_strides(desc: &ConvDesc) -> (usize, usize) {
    // Taps are dense in both layouts, so one stride walks all three kernel axes.
    let strides = desc.weight_strides();
    (strides.channel, strides.spatial[2])
}
