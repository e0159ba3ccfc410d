//! Runs: taps of a class whose elements follow one another in memory.
//!
//! ```text
//! kernel row       k₀       k₁       k₂
//! in the image  [c₀ … cₙ][c₀ … cₙ][c₀ … cₙ]     channels last, packed: one run of 3n elements
//! ```
//!
//! Elsewhere, that is with channels first, groups, gaps after pixels, or a dilation, each tap is a run of its own.

use super::class::Class;
use super::reads::Reads;
use crate::desc::ConvDesc;
use crate::layout::Strides;

/// Where the taps of classes lie in an input image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TapRuns {
    reads: [Reads; 3],
    strides: Strides,
    /// Of a group.
    channels: usize,
    most_taps: usize,
}

/// Taps along one kernel row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TapRun {
    /// Kernel position of the first tap.
    pub(crate) tap: [usize; 3],
    /// Where the first position of the class reads through it, in the image.
    pub(crate) offset: usize,
    pub(crate) taps: usize,
    /// Steps of the sum: taps times the channels of a group.
    pub(crate) elements: usize,
}

impl TapRuns {
    /// `strides` are those of the input.
    pub(crate) const fn new(desc: &ConvDesc, strides: Strides) -> Self {
        let reads = Reads::all_forward(desc);
        let channels = desc.group_in_channels();
        let adjacent = strides.channel == 1 && strides.spatial[2] == channels && reads[2].dilation == 1;
        Self { reads, strides, channels, most_taps: if adjacent { reads[2].taps } else { 1 } }
    }

    /// The most taps that a run has: a kernel row, or one.
    pub(crate) const fn most_taps(&self) -> usize {
        self.most_taps
    }

    /// How far apart positions next to each other read, per axis. Saturates where there is but one position.
    pub(crate) const fn steps(&self) -> [usize; 3] {
        let ([d, h, w], spatial) = (self.reads, self.strides.spatial);
        [d.stride.saturating_mul(spatial[0]), h.stride.saturating_mul(spatial[1]), w.stride.saturating_mul(spatial[2])]
    }

    /// The runs of a class, in the order of their taps.
    pub(crate) fn of(self, class: &Class) -> impl Iterator<Item = TapRun> + Clone {
        let [ds, hs, ws] = class.taps;
        let first = class.positions.map(|positions| positions.start);
        // Taps of a class read inside.
        let at = move |axis: usize, tap: usize| {
            self.reads[axis].coordinate(first[axis], tap) as usize * self.strides.spatial[axis]
        };
        let rows = ds.range().flat_map(move |d| hs.range().map(move |h| (d, h)));
        rows.flat_map(move |(d, h)| {
            let row = at(0, d) + at(1, h);
            let runs = ws.len().div_ceil(self.most_taps);
            (0..runs).map(move |index| {
                // Valid taps are fewer than a run may have, or each its own run.
                let w = ws.start + index;
                let taps = if self.most_taps == 1 { 1 } else { ws.len() };
                TapRun { tap: [d, h, w], offset: row + at(2, w), taps, elements: taps * self.channels }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::super::class::classes;
    use super::super::shapes::{valid, volumes};
    use super::*;
    use crate::layout::{Layout, TensorLayout};

    #[test]
    fn runs_are_the_taps_of_every_position() {
        let mut rows = 0;
        for desc in volumes(300) {
            for gap in [0, 3] {
                let (channels, size) = (desc.in_channels(), desc.input_size());
                let pitch = desc.input_pitch() + gap;
                let strides = TensorLayout::new(desc.layout(), 1, channels, size, pitch).strides;
                let runs = TapRuns::new(&desc, strides);
                let row = runs.most_taps() > 1;
                rows += usize::from(row);
                assert!(!row || gap == 0 && desc.layout() == Layout::Nhwc && desc.groups() == 1);
                for class in classes(&Reads::all_forward(&desc)) {
                    check(&desc, strides, &runs, &class);
                }
            }
        }
        assert!(rows > 5);
    }

    /// Compares with a loop over positions, taps and channels.
    fn check(desc: &ConvDesc, strides: Strides, runs: &TapRuns, class: &Class) {
        let [ds, hs, ws] = class.positions.map(|positions| positions.range());
        for (index_d, d) in ds.enumerate() {
            for (index_h, h) in hs.clone().enumerate() {
                for (index_w, w) in ws.clone().enumerate() {
                    let mut expected = Vec::new();
                    for tap in 0..desc.taps() {
                        let k = desc.kernel_position(tap);
                        let i = [d, h, w].into_iter().enumerate().map(|(axis, o)| valid(desc, axis, o, k[axis]));
                        let Some(i) = i.collect::<Option<Vec<_>>>() else { continue };
                        let pixel: usize = i.iter().zip(strides.spatial).map(|(i, stride)| i * stride).sum();
                        expected.extend((0..desc.group_in_channels()).map(|c| (tap, pixel + c * strides.channel)));
                    }
                    let mut found = vec![];
                    for run in runs.of(class) {
                        let [kd, kh, kw] = run.tap;
                        let tap = (kd * desc.kernel()[1] + kh) * desc.kernel()[2] + kw;
                        let steps = [index_d, index_h, index_w].into_iter().zip(runs.steps());
                        let first = run.offset + steps.map(|(index, step)| index.saturating_mul(step)).sum::<usize>();
                        assert_eq!(run.elements, run.taps * desc.group_in_channels());
                        // Elements of several taps follow one another; those of one tap are channels.
                        let step = if run.taps > 1 { 1 } else { strides.channel };
                        let element = |e: usize| (tap + e / desc.group_in_channels(), first + e * step);
                        found.extend((0..run.elements).map(element));
                    }
                    assert_eq!(found, expected, "{desc:?} {class:?}");
                }
            }
        }
    }
}
