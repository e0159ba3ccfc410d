//! Shares of the work on a batch, for threads: some outer steps with all channels, or some channels of one step.

use std::ops::Range;

use super::shape::{Channels, Runs};
use super::threads::{Threads, share};

/// How a batch is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    runs: Runs,
    /// Outer steps of a share, the last one aside.
    steps: usize,
    /// Channels of a share, the last one of a step aside. If these are not all, a share has one step.
    channels: usize,
}

/// A part of the runs of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    outer: Range<usize>,
    pub(super) channels: Range<usize>,
}

impl Shares {
    /// Shares of outer steps if these come out even, else shares of channels: a thread would wait for another that has one image
    /// more.
    pub(super) fn new(runs: Runs, threads: Threads) -> Self {
        let Runs { outer, channels, inner } = runs;
        let steps = share(outer, runs.step(), threads);
        let some = share(channels, inner, threads);
        if steps * threads.count() <= outer + outer / 8 || some >= channels {
            Self { runs, steps, channels }
        } else {
            Self { runs, steps: 1, channels: some }
        }
    }

    /// The parts of a tensor that has these outer steps and channels. Its runs may have another length. None of an empty tensor.
    pub(super) fn of_mut(self, tensor: &mut [f32], at: Channels) -> PartsMut<'_> {
        let count = if tensor.is_empty() { 0 } else { self.runs.outer.div_ceil(self.steps) * self.per_step() };
        PartsMut { shares: self, at, indices: 0..count, rest: tensor, step: &mut [] }
    }

    /// Shares of one step, or of some whole ones.
    fn per_step(&self) -> usize {
        self.runs.channels.div_ceil(self.channels.max(1))
    }
}

/// The shares of a tensor, each with its elements from the first one on. Nothing is allocated.
pub(super) struct PartsMut<'a> {
    shares: Shares,
    at: Channels,
    indices: Range<usize>,
    /// What lies behind the current steps.
    rest: &'a mut [f32],
    /// The channels of the current step that are not cut off yet.
    step: &'a mut [f32],
}

/// The first elements, which are cut off, or all if there are fewer.
fn cut<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let len = len.min(rest.len());
    let (first, others) = std::mem::take(rest).split_at_mut(len);
    *rest = others;
    first
}

impl<'a> Iterator for PartsMut<'a> {
    type Item = (Share, &'a mut [f32]);

    fn next(&mut self) -> Option<Self::Item> {
        let Self { shares, at, .. } = *self;
        let Shares { runs: Runs { outer, channels, .. }, steps, channels: some } = shares;
        let index = self.indices.next()?;
        let (step, part) = (index / shares.per_step() * steps, index % shares.per_step());
        if part == 0 {
            let steps = cut(&mut self.rest, steps * at.pitch);
            self.step = &mut steps[at.offset..];
        }
        let share =
            Share { outer: step..(step + steps).min(outer), channels: part * some..((part + 1) * some).min(channels) };
        let tensor = if share.channels.len() < channels {
            cut(&mut self.step, share.channels.len() * at.runs.inner)
        } else {
            std::mem::take(&mut self.step)
        };
        Some((share, tensor))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indices.size_hint()
    }
}

impl ExactSizeIterator for PartsMut<'_> {}

impl Share {
    /// Where the part of a tensor lies that begins at the share.
    pub(super) fn at(&self, at: Channels) -> Channels {
        Channels { runs: Runs { outer: self.outer.len(), channels: self.channels.len(), ..at.runs }, offset: 0, ..at }
    }

    /// The values of its channels.
    pub(super) fn of_channels<'a, const N: usize>(&self, all: [&'a [f32]; N]) -> [&'a [f32]; N] {
        all.map(|values| &values[self.channels.clone()])
    }

    /// The part of a tensor from the share on, and where the share lies in it.
    pub(super) fn of<'a>(&self, tensor: &'a [f32], at: Channels) -> (&'a [f32], Channels) {
        let first = self.outer.start * at.pitch + at.offset + self.channels.start * at.runs.inner;
        (&tensor[first..], self.at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::shape::Shape;

    /// Every element is in one share, and reading finds what writing has left, with gaps between images or not.
    #[test]
    fn shares_cover_a_batch() {
        for (outer, channels, positions) in [(1, 8, 4096), (3, 5, 5000), (4, 2, 40_000), (5, 3, 10), (7, 64, 1024)] {
            for (threads, (total, first)) in [(1, (0, 0)), (2, (0, 0)), (3, (2, 1)), (8, (1, 1))] {
                let shape = Shape::new(channels, [1, 1, positions]);
                let at = Channels::of(channels + total, first, shape, outer);
                let mut tensor = vec![0.0; outer * at.pitch];
                let shares = Shares::new(at.runs, Threads::new(threads));
                let parts: Vec<_> = shares.of_mut(&mut tensor, at).collect();
                let most = parts.iter().map(|(share, _)| share.outer.len() * share.channels.len()).max().unwrap();
                // Free threads fetch the next share, and a share is worth a thread.
                let ideal = (outer * channels).div_ceil(threads);
                assert!(
                    most * positions <= (ideal + ideal / 4 + 1) * positions + (1 << 14),
                    "{most} planes of {ideal}"
                );
                let found: Vec<Share> = parts
                    .into_iter()
                    .map(|(share, part)| {
                        let own = share.at(at);
                        for step in part.chunks_mut(own.pitch).take(own.runs.outer) {
                            step[..own.runs.step()].iter_mut().for_each(|x| *x += 1.0);
                        }
                        share
                    })
                    .collect();
                for step in tensor.chunks(at.pitch) {
                    let (gaps, own) = (step[..at.offset].iter(), &step[at.offset..]);
                    let (own, rest) = own.split_at(at.runs.step());
                    assert!(own.iter().all(|&x| x == 1.0) && gaps.chain(rest).all(|&x| x == 0.0));
                }
                for share in found {
                    let (part, own) = share.of(&tensor, at);
                    for step in part.chunks(own.pitch).take(own.runs.outer) {
                        assert!(step[..own.runs.step()].iter().all(|&x| x == 1.0));
                    }
                }
            }
        }
    }
}
