//! The part of the thresholds' gradients that comes from padding: `∂E/∂θ[c,k] += [θ ≥ 0] · Σ_d w[d,c,k] · S[d,k]`. `S` is the sum
//! of the output's gradient over the positions at which the tap reads padding.

use core::ops::Range;

use crate::arith::max;
use crate::border::{self, is_inside, sum_outside, unpadded};
use crate::calls::BackwardInputCall;
use crate::desc::ConvDesc;
use crate::error::Error;
use crate::geometry::{Lattice, Panels};
use crate::kernel::{Kernels, Mask, MaskedProducts, VECTORS};
use crate::threads::{Executor, Rest, for_each};
use crate::thresholds::ThresholdGradient;
use crate::weight::Packing;

/// Elements of workspace: the sums of all taps, and one row of a panel's gradient.
pub(super) const fn workspace_len(desc: &ConvDesc, kernels: &Kernels) -> usize {
    if desc.has_padding() { desc.taps().saturating_mul(desc.out_channels()) + row_len(kernels) } else { 0 }
}

const fn row_len(kernels: &Kernels) -> usize {
    max(kernels.panel.max(), kernels.masked_vectors * kernels.lanes).next_multiple_of(kernels.lanes)
}

/// Adds the border's part to the gradient of the thresholds.
pub(super) fn add(
    call: &BackwardInputCall<'_>,
    packing: &Packing,
    grad_thresholds: &mut ThresholdGradient<'_>,
    workspace: &mut [f32],
    threads: usize,
    executor: &dyn Executor,
) -> Result<(), Error> {
    let desc = call.desc;
    if workspace.is_empty() {
        return Ok(());
    }
    let all = border::all(desc);
    let (sums, row) = workspace.split_at_mut(desc.taps() * desc.out_channels());
    let parts = Panels::into_parts(desc.taps(), threads);
    let mut rest = Rest::of(&mut *sums);
    let jobs = parts.iter().map(move |taps| (rest.cut(taps.len() * desc.out_channels()), taps));
    for_each(executor, parts.count(), jobs, &|(sums, taps): (&mut [f32], Range<usize>)| {
        for (tap, sums) in taps.zip(sums.chunks_exact_mut(desc.out_channels())) {
            sums.fill(0.0);
            sum_outside(desc, call.grad_output, &all, &unpadded(desc, tap), 0..desc.out_channels(), sums);
        }
    })?;

    let depth = desc.group_out_channels();
    for (tap, sums) in sums.chunks_exact(desc.out_channels()).enumerate() {
        if is_inside(&all, &unpadded(desc, tap)) {
            continue;
        }
        for panel in 0..packing.all_panels(desc) {
            let (group, _) = packing.panel_of_all(panel);
            let channels = packing.channel_of_all(desc, panel)..packing.channel_of_all(desc, panel + 1);
            let weight = packing.panel(desc, call.weight, panel);
            let width = weight.len() / packing.depth(desc);
            let weight = &weight[tap * depth * width..][..depth * width];
            multiply(call.kernels, &sums[group * depth..][..depth], weight, width, row);
            for (channel, row) in channels.zip(&*row) {
                if call.thresholds.at(channel, tap) >= 0.0 {
                    grad_thresholds.add(channel, tap, *row);
                }
            }
        }
    }
    Ok(())
}

/// `row[l] = Σ_d sums[d] · weight[d][l]`
fn multiply(kernels: &Kernels, sums: &[f32], weight: &[f32], width: usize, row: &mut [f32]) {
    static ZEROS: [f32; 64] = [0.0; 64];

    row[..width].fill(0.0);
    if VECTORS
        && width.is_multiple_of(kernels.lanes)
        && width <= ZEROS.len().min(kernels.masked_vectors * kernels.lanes)
    {
        let one = Lattice { counts: [1; 4], steps: [[0; 4]; 2] };
        // The kernel gets zeros as input and as thresholds. In a tie the product goes to the threshold, and that is the product
        // wanted here.
        let (input, thresholds) = (&ZEROS[..width], &ZEROS[..width]);
        kernels.masked(MaskedProducts {
            inputs: one,
            taps: one,
            first_tap: 0,
            all_taps: 1,
            panels: 1,
            input,
            grad_output: sums,
            first_output: 0,
            depth: sums.len(),
            weight,
            thresholds,
            sums: row,
            channels: width,
            grad_input: None,
            add: false,
            mask: Mask::PerTap,
            tile: 1,
        });
        return;
    }
    for (sum, weight) in sums.iter().zip(weight.chunks_exact(width)) {
        row.iter_mut().zip(weight).for_each(|(row, w)| *row += sum * w);
    }
}
