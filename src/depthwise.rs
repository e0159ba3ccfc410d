//! What the passes of depthwise layers share: which layers they are, and how channels-last rows are walked.
//!
//! With channels first, each channel's block is staged (padded, strides resolved) and walked as one run of positions, the
//! gaps between rows included. With channels last, the tensors themselves are walked, row by row: the positions that
//! read inside through every tap are one stretch, the few beside them are walked one by one.

use core::ops::Range;

use crate::desc::ConvDesc;
use crate::kernel::{ABSENT, Tiles, TransposeBlock};
use crate::layout::Layout;

/// Whether a layer is depthwise, with one output channel for each input channel, in a form that the kernels walk.
pub(crate) fn applies(desc: &ConvDesc, tiles: &Tiles) -> bool {
    desc.group_in_channels() == 1
        && desc.group_out_channels() == 1
        && desc.input_image_len().max(desc.output_image_len()) < ABSENT as usize
        && match desc.layout() {
            // From here on staging a channel at a time costs more than it saves.
            Layout::Nchw => desc.taps() <= MOST_TAPS,
            Layout::Nhwc => desc.in_channels().is_multiple_of(tiles.lanes) && desc.taps() <= MOST_TAPS,
        }
}

/// More taps than that make tables of coefficients too large.
const MOST_TAPS: usize = 128;

/// `[channel][tap]` to `[tap][channel]`.
pub(crate) fn by_tap(tiles: &Tiles, desc: &ConvDesc, by_channel: &[f32], by_tap: &mut [f32]) {
    tiles.transpose(TransposeBlock {
        from: by_channel,
        from_step: desc.taps(),
        to: by_tap,
        to_step: desc.in_channels(),
        rows: desc.in_channels(),
        columns: desc.taps(),
    });
}

/// A stretch of positions of one row, `step` apart, that read through the same taps.
pub(crate) struct Stretch {
    pub(crate) first: usize,
    pub(crate) step: usize,
    pub(crate) count: usize,
}

/// Positions of a row, cut into stretches: `range` stepped by `step`, of which `complete` are one, the others alone.
pub(crate) fn stretches(
    range: Range<usize>,
    step: usize,
    complete: impl Fn(usize) -> bool,
) -> impl Iterator<Item = Stretch> {
    let mut next = range.start;
    core::iter::from_fn(move || {
        if next >= range.end {
            return None;
        }
        let first = next;
        let mut count = 1;
        next = next.saturating_add(step);
        if complete(first) {
            while next < range.end && complete(next) {
                next = next.saturating_add(step);
                count += 1;
            }
        }
        Some(Stretch { first, step, count })
    })
}

/// Fills the table of a stretch that begins at a position: for each tap, the coordinates that it reads, if any, in a
/// source of `size` with channels last.
pub(crate) fn tabulate(
    desc: &ConvDesc,
    size: [usize; 3],
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
                    (Some(d), Some(h), Some(w)) => (((d * size[1] + h) * size[2] + w) * desc.in_channels()) as u32,
                    _ => ABSENT,
                };
            }
        }
    }
}

/// The input that output `o` reads through tap `k`, unless it is padding.
pub(crate) fn input_of(desc: &ConvDesc, axis: usize, o: usize, k: usize) -> Option<usize> {
    let padded = o * desc.stride()[axis] + k * desc.dilation()[axis];
    padded.checked_sub(desc.padding_before()[axis]).filter(|&i| i < desc.input_size()[axis])
}

/// The output that reads input `i` through tap `k`, if any.
pub(crate) fn output_of(desc: &ConvDesc, axis: usize, i: usize, k: usize) -> Option<usize> {
    let at = (i + desc.padding_before()[axis]).checked_sub(k * desc.dilation()[axis])?;
    let stride = desc.stride()[axis];
    let o = at / stride;
    (at.is_multiple_of(stride) && o < desc.output_size()[axis]).then_some(o)
}
