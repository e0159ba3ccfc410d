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
    /// Output channels per panel.
    pub(crate) panels: Panels,
}

/// Packs for the forward pass: `[group][panel of output channels][input channel][tap][output channel of the panel]`.
pub(crate) fn pack_forward(desc: &ConvDesc, panels: Panels, weight: &[f32], packed: &mut [f32]) {
    let (in_channels, out_channels, taps) = (desc.group_in_channels(), desc.group_out_channels(), desc.taps());
    let (channel, tap) = channel_and_tap_strides(desc);
    let filter = in_channels * taps;
    for group in 0..desc.groups() {
        for panel in panels.iter() {
            let first = group * out_channels + panel.start;
            let out = &mut packed[first * filter..][..panel.len() * filter];
            for (lane, filter) in weight[first * filter..][..panel.len() * filter].chunks_exact(filter).enumerate() {
                for c in 0..in_channels {
                    let out = &mut out[c * taps * panel.len() + lane..];
                    strided::copy(&filter[c * channel..], tap, out, panel.len(), taps);
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
