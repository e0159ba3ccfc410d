//! Layers for the tests, and the formula that they compare with.

extern crate std;

use std::vec::Vec;

use crate::desc::{ConvDesc, ConvDescBuilder};
use crate::layout::Layout;

/// The input that an output reads through a tap, unless it is padding. Computed in numbers that cannot overflow.
pub(super) fn valid(desc: &ConvDesc, axis: usize, o: usize, k: usize) -> Option<usize> {
    let at = o as i128 * desc.stride()[axis] as i128 + k as i128 * desc.dilation()[axis] as i128
        - desc.padding_before()[axis] as i128;
    (0..desc.input_size()[axis] as i128).contains(&at).then_some(at as usize)
}

fn axis(size: usize, kernel: usize) -> ConvDescBuilder<1> {
    ConvDesc::conv1d(1, 1, 1, [size], [kernel])
}

/// Small layers of one axis (the last).
pub(super) fn axes() -> impl Iterator<Item = ConvDesc> {
    let shapes = (1..=12).flat_map(|size| (1..=5).map(move |kernel| (size, kernel)));
    let steps = (1..=4).flat_map(|stride| (1..=4).map(move |dilation| (stride, dilation)));
    let paddings = [0, 1, 2, 5, 9].into_iter().flat_map(|before| [0, 1, 3, 9].map(|after| (before, after)));
    shapes
        .flat_map(move |shape| steps.clone().map(move |steps| (shape, steps)))
        .flat_map(move |(shape, steps)| paddings.clone().map(move |padding| (shape, steps, padding)))
        .filter_map(|((size, kernel), (stride, dilation), (before, after))| {
            let layer = axis(size, kernel).stride([stride]).dilation([dilation]);
            layer.padding_before_after([before], [after]).build().ok()
        })
}

/// Layers with the largest numbers that are allowed, but few taps and few residues or inputs.
pub(super) fn extreme_axes() -> Vec<ConvDesc> {
    const FAR: usize = 100_000_000;
    const LIMIT: usize = isize::MAX as usize / 4;
    let layers = [
        axis(3, 3).dilation([FAR]).padding([FAR]),
        axis(1, 2).dilation([FAR]).padding_before_after([FAR], [0]),
        axis(5, 4).dilation([FAR]).padding([4 * FAR]).stride([3]),
        axis(5, 4).dilation([FAR]).padding([2 * FAR]).stride([FAR + 1]),
        axis(7, 3).dilation([FAR + 3]).padding([9 * FAR]).stride([2]),
        axis(4, 1).dilation([usize::MAX]).padding([FAR]),
        axis(4, 3).stride([usize::MAX]).padding([1]),
        axis(LIMIT, 1),
        axis(LIMIT, 3).padding([1]),
        axis(LIMIT, 5).padding([LIMIT]).stride([3]).dilation([2]),
        axis(LIMIT, 2).padding([LIMIT]).stride([4]).dilation([LIMIT - 1]),
        axis(7, 2).padding([LIMIT]).stride([usize::MAX]).dilation([LIMIT - 1]),
        axis(7, 2).padding([LIMIT]).stride([3]).dilation([LIMIT - 1]),
        axis(7, 3).padding_before_after([LIMIT - 9], [3]).dilation([5]),
    ];
    layers.into_iter().map(|layer| layer.build().unwrap()).collect()
}

/// Layers of three axes in both layouts, axes drawn at random, with every other one of several groups.
pub(super) fn volumes(count: usize) -> impl Iterator<Item = ConvDesc> {
    let mut state = 1u64;
    let mut below = move |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    core::iter::from_fn(move || {
        let mut draw = |most: usize| [1 + below(most), 1 + below(most), 1 + below(most)];
        let (size, kernel, stride, dilation) = (draw(7), draw(3), draw(3), draw(3));
        let (before, after) = (draw(6).map(|n| n - 1), draw(6).map(|n| n - 1));
        let [groups, channels, last] = draw(3);
        let layout = if last == 1 { Layout::Nchw } else { Layout::Nhwc };
        let layer = ConvDesc::conv3d(1, groups * channels, groups, size, kernel).stride(stride).dilation(dilation);
        Some(layer.padding_before_after(before, after).groups(groups).layout(layout).build())
    })
    .filter_map(Result::ok)
    .take(count)
}
