//! What reaches the thresholds from padding: `∂E/∂θ[c,k] += [θ ≥ 0] · Σ_d w[d,c,k] · S[d,k]`, with the sum `S` of the
//! output's gradient over the positions where the tap reads padding.

use core::ops::Range;

use super::BackwardInputCall;
use crate::arith::max;
use crate::border::{is_inside, sum_outside, unpadded};
use crate::desc::ConvDesc;
use crate::geometry::Panels;
use crate::kernel::{Kernels, Product, Rows, Start, TileMut, VECTORS};
use crate::parallel;
use crate::weight::Packing;

/// Elements of workspace: the sums of all taps, and one row of a panel's gradient.
pub(super) const fn workspace_len(desc: &ConvDesc, kernels: &Kernels) -> usize {
    if desc.has_padding() { desc.taps().saturating_mul(desc.out_channels()) + row_len(kernels) } else { 0 }
}

const fn row_len(kernels: &Kernels) -> usize {
    max(kernels.panel.max(), kernels.product_vectors * kernels.lanes).next_multiple_of(kernels.lanes)
}

/// Adds the border's part to `grad_thresholds`. `thresholds` is the table in the order of the packed weights.
pub(super) fn add(
    call: &BackwardInputCall<'_>,
    packing: &Packing,
    thresholds: &[f32],
    grad_thresholds: &mut [f32],
    workspace: &mut [f32],
    threads: usize,
) {
    let desc = call.desc;
    if workspace.is_empty() {
        return;
    }
    let (sums, row) = workspace.split_at_mut(desc.taps() * desc.out_channels());
    let parts = Panels::into_parts(desc.taps(), threads);
    let mut rest = Some(&mut *sums);
    let jobs = parts.iter().map_while(move |taps| {
        let (sums, sums_rest) = rest.take()?.split_at_mut(taps.len() * desc.out_channels());
        rest = Some(sums_rest);
        Some((taps, sums))
    });
    parallel::for_each(parts.count(), jobs, &|(taps, sums): (Range<usize>, &mut [f32])| {
        for (tap, sums) in taps.zip(sums.chunks_exact_mut(desc.out_channels())) {
            sums.fill(0.0);
            sum_outside(desc, call.grad_output, &unpadded(desc, tap), sums);
        }
    });

    let (taps, depth) = (desc.taps(), desc.group_out_channels());
    let strides = desc.threshold_strides();
    for (tap, sums) in sums.chunks_exact(desc.out_channels()).enumerate() {
        if is_inside(desc, &unpadded(desc, tap)) {
            continue;
        }
        for (group, sums) in sums.chunks_exact(depth).enumerate() {
            for panel in 0..packing.panels().count() {
                let lanes = packing.lane(panel)..packing.lane(panel + 1);
                let width = lanes.len();
                let first = group * desc.group_in_channels() + packing.channel(desc, panel);
                let channels = packing.channel(desc, panel + 1) - packing.channel(desc, panel);
                let at = (group * packing.group_width() + lanes.start) * taps + tap * width;
                let weight = &call.weight[at * depth..][..width * depth];
                multiply(call.kernels, sums, weight, width, row);
                let to = &mut grad_thresholds[first * strides.channel + tap * strides.spatial[2]..];
                for lane in 0..channels {
                    if thresholds[at + lane] >= 0.0 {
                        to[lane * strides.channel] += row[lane];
                    }
                }
            }
        }
    }
}

/// `row[l] = Σ_d sums[d] · weight[d][l]`
fn multiply(kernels: &Kernels, sums: &[f32], weight: &[f32], width: usize, row: &mut [f32]) {
    if VECTORS && width.is_multiple_of(kernels.lanes) && width <= kernels.product_vectors * kernels.lanes {
        kernels.product(Product {
            rows: Rows::Plain { data: sums, pitch: sums.len(), count: 1, tile: 1 },
            columns: weight,
            depth: sums.len(),
            start: Start::Zero,
            output: TileMut::of_slice(row, 1, width / kernels.lanes, kernels.lanes),
        });
        return;
    }
    row[..width].fill(0.0);
    for (sum, weight) in sums.iter().zip(weight.chunks_exact(width)) {
        row.iter_mut().zip(weight).for_each(|(row, w)| *row += sum * w);
    }
}
