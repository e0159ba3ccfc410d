//! What the passes of depthwise layers share: which layers they are, and how channels-last rows are walked.
//!
//! With channels first, each channel's block is staged (padded, strides resolved) and walked row by row, positions in
//! lanes, straight into the result; rows shorter than a vector are walked as one run, the gaps between them included, and copied.
//! With channels last, the tensors themselves are walked: each box of positions that read inside through the same taps in
//! one call.

use crate::arith::{max, min};
use crate::blocking::{Budget, block_size};
use crate::desc::ConvDesc;
use crate::geometry::Steps;
use crate::kernel::{ABSENT, Kernels, Line, MOST_TAPS, RowsMut, TransposeBlock};
use crate::layout::Layout;
use crate::taps::{Axis, Grid};
use crate::tuning::Tuning;

/// Whether a layer is depthwise, with one output channel for each input channel, in a form that the kernels walk.
pub(crate) const fn applies(desc: &ConvDesc, kernels: &Kernels) -> bool {
    desc.group_in_channels() == 1
        && desc.group_out_channels() == 1
        && max(desc.input_tensor().image_len(), desc.output_tensor().image_len()) < ABSENT as usize
        && desc.taps() <= MOST_TAPS
        && (matches!(desc.layout(), Layout::Nchw) || desc.in_channels().is_multiple_of(kernels.lanes))
}

/// The blocks of planes, and the staged copy of one of at most `most` elements.
pub(crate) const fn plane_blocks(axes: [Axis; 3], most: usize, tuning: &Tuning) -> ([usize; 3], Grid) {
    let block = block_size(&axes, Budget::staged(tuning.positions, min(most, tuning.staging_len), 1));
    (block, Grid::new(axes, block))
}

/// `[channel][tap]` to every `step`-th vector of `[vector][tap][lane]`.
pub(crate) fn by_vector(kernels: &Kernels, taps: usize, by_channel: &[f32], by_vector: &mut [f32], step: usize) {
    let lanes = kernels.lanes;
    for (from, to) in by_channel.chunks_exact(taps * lanes).zip(by_vector.chunks_mut(step * taps * lanes)) {
        kernels.transpose(TransposeBlock {
            from,
            from_step: taps,
            from_column: 1,
            to: RowsMut::of_slice(to, taps, step * lanes, lanes),
        });
    }
}

/// Consecutive parts of at most `most` steps.
pub(crate) fn shorter(steps: Steps, most: usize) -> impl Iterator<Item = Steps> {
    let Steps { first, step, count } = steps;
    (0..count.div_ceil(most)).map(move |part| {
        let done = part * most;
        Steps { first: first + done * step, step, count: most.min(count - done) }
    })
}

/// The rows and columns of outputs of a layer with channels last.
pub(crate) fn output_lines(desc: &ConvDesc, rows: usize, columns: usize) -> [Line; 2] {
    let [input, output] = [desc.input_tensor(), desc.output_tensor()].map(|tensor| tensor.strides.spatial);
    [(1, rows), (2, columns)].map(|(axis, count)| {
        // Used where there is a next position, which then bounds it.
        Line { count, source_step: input[axis].saturating_mul(desc.stride()[axis]), own_step: output[axis] }
    })
}

/// Fills the table of a box that begins at a position: for each tap, the coordinates that it reads, if any, in a
/// source of `size` with channels last, its pixels `pitch` apart.
pub(crate) fn tabulate(
    desc: &ConvDesc,
    size: [usize; 3],
    pitch: usize,
    read: impl Fn(usize, usize) -> Option<usize>,
    offsets: &mut [u32],
) {
    let [depth, height, width] = desc.kernel();
    let mut next = offsets.iter_mut();
    for d in 0..depth {
        let at_d = read(0, d);
        for h in 0..height {
            let at_h = read(1, h);
            for (w, offset) in (0..width).zip(&mut next) {
                *offset = match (at_d, at_h, read(2, w)) {
                    // Fits: `applies` bounds an image.
                    (Some(d), Some(h), Some(w)) => (((d * size[1] + h) * size[2] + w) * pitch) as u32,
                    _ => ABSENT,
                };
            }
        }
    }
}
