//! Progressions: inputs a stride apart that are read through the same taps.
//!
//! ```text
//! stride 2, kernel 3, padding 1:     inputs  0 2 4 6 …   through tap 1
//!                                    inputs  1 3 5 7 …   through taps 0 and 2
//! ```
//!
//! Input `i` is read through the taps with `k · dilation ≡ i + padding` modulo the stride. The inputs with the same residue are a
//! phase. Within a phase, inputs read outputs as outputs read inputs, with stride 1. The next input reads the next output. A
//! later tap of the kernel reads an earlier output. So a phase has intervals, and these are the progressions.

use core::ops::Range;

use super::interval::{Interval, Intervals};
use super::reads::Reads;
use super::span::{Span, Steps};
use crate::arith::{gcd, min};

/// The inputs with the same residue modulo the stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) inputs: Steps,
    /// The kernel positions of the taps that read any of these inputs. There may be none.
    pub(crate) taps: Steps,
    /// How the inputs read outputs. Taps are numbered by ascending output, that is, from the last one in the kernel to the first.
    pub(crate) reads: Reads,
}

impl Phase {
    /// The number of phases of an axis.
    pub(crate) const fn count(forward: &Reads) -> usize {
        min(forward.stride, forward.source)
    }

    /// The phase of input `first`, which is less than the [`count`](Self::count), of an axis where outputs read inputs.
    ///
    /// Output `t + (first + padding − k · dilation) / stride` reads input `first + t · stride` through tap `k`, where the
    /// quotient is an integer.
    pub(crate) const fn new(forward: &Reads, first: usize) -> Self {
        let &Reads { positions, source, taps, stride, dilation, origin } = forward;
        let common = gcd(stride, dilation);
        let step = stride / common;
        let padded = first + origin.unsigned_abs();
        // If any tap has this residue, one of the first `step` taps has it.
        let (mut k, most) = (0, min(taps, step));
        while k < most && k * dilation % stride != padded % stride {
            k += 1;
        }
        let count = if k < most { (taps - 1 - k) / step + 1 } else { 0 };
        let taps = Steps { first: k, step, count };
        // Exact: both terms have the same residue.
        let last = if count > 0 { taps.at(count - 1) * dilation } else { 0 };
        let origin = if count > 0 { (padded as isize - last as isize) / stride as isize } else { 0 };
        let inputs = Steps { first, step: stride, count: (source - first).div_ceil(stride) };
        let reads = Reads {
            positions: inputs.count,
            source: positions,
            taps: count,
            stride: 1,
            dilation: dilation / common,
            origin,
        };
        Self { inputs, taps, reads }
    }
}

/// Inputs that are read through the same taps: input `j` is read through tap `t` by output `output + j − t · shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progression {
    pub(crate) inputs: Steps,
    /// Kernel positions, ascending. There is none if no tap reads these inputs.
    pub(crate) taps: Steps,
    /// The output that reads the first input through the first tap.
    pub(crate) output: usize,
    /// The output that reads the same input through the next tap lies this many outputs before.
    pub(crate) shift: usize,
}

impl Progression {
    const fn of(phase: &Phase, interval: Interval) -> Self {
        let Interval { positions, taps } = interval;
        let Phase { inputs, taps: all, reads } = phase;
        let inputs = Steps { first: inputs.at(positions.start), step: inputs.step, count: positions.len() };
        if taps.is_empty() {
            return Self {
                inputs,
                taps: Steps { first: 0, step: all.step, count: 0 },
                output: 0,
                shift: reads.dilation,
            };
        }
        // The taps of an interval read inside, so the coordinate is not negative.
        let output = reads.coordinate(positions.start, taps.end - 1) as usize;
        let taps = Steps { first: all.at(all.count - taps.end), step: all.step, count: taps.len() };
        Self { inputs, taps, output, shift: reads.dilation }
    }

    /// The output that reads input `index` through tap `tap` of the progression.
    #[cfg_attr(not(test), expect(dead_code, reason = "kernels step from input to input and from tap to tap"))]
    pub(crate) const fn output(&self, index: usize, tap: usize) -> usize {
        self.output + index - tap * self.shift
    }
}

/// The progressions of some inputs of an axis, phase by phase, the inputs of each in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progressions {
    forward: Reads,
    inputs: Span,
    /// The first input whose phase has not begun. Each of the first `stride` inputs begins a phase.
    next: usize,
    phase: Phase,
    intervals: Intervals,
}

impl Progressions {
    /// All progressions of an axis along which outputs read inputs.
    #[cfg(test)]
    pub(crate) const fn new(forward: &Reads) -> Self {
        Self::within(forward, 0..forward.source)
    }

    /// The progressions of a range of inputs, which is not empty.
    pub(crate) const fn within(forward: &Reads, inputs: Range<usize>) -> Self {
        let inputs = Span { start: inputs.start, end: inputs.end };
        let (phase, intervals) = phase_from(forward, inputs, inputs.start);
        Self { forward: *forward, inputs, next: inputs.start + 1, phase, intervals }
    }

    /// `Iterator::next` for `const fn`.
    pub(crate) const fn advance(&mut self) -> Option<Progression> {
        loop {
            if let Some(interval) = self.intervals.advance() {
                return Some(Progression::of(&self.phase, interval));
            }
            let Span { start, end } = self.inputs;
            if self.next >= end || self.next - start >= self.forward.stride {
                return None;
            }
            (self.phase, self.intervals) = phase_from(&self.forward, self.inputs, self.next);
            self.next += 1;
        }
    }

    /// The number of progressions that are left.
    #[cfg_attr(not(test), expect(dead_code, reason = "plans over progressions will"))]
    pub(crate) const fn remaining(mut self) -> usize {
        let mut count = 0;
        while self.advance().is_some() {
            count += 1;
        }
        count
    }
}

/// The phase of input `from`, and its intervals from there to the end of `inputs`.
const fn phase_from(forward: &Reads, inputs: Span, from: usize) -> (Phase, Intervals) {
    let phase = Phase::new(forward, from % forward.stride);
    let Steps { first, step, .. } = phase.inputs;
    (phase, phase.reads.intervals_in(from / step..(inputs.end - first).div_ceil(step)))
}

impl Iterator for Progressions {
    type Item = Progression;

    fn next(&mut self) -> Option<Progression> {
        self.advance()
    }
}

/// The boxes of progressions of a box of inputs. The axes are independent of each other.
pub(crate) fn progressions(
    forward: &[Reads; 3],
    inputs: [Range<usize>; 3],
) -> impl Iterator<Item = [Progression; 3]> + Clone {
    let [d, h, w] = inputs;
    let [d, h, w] = [(0, d), (1, h), (2, w)].map(|(axis, range)| Progressions::within(&forward[axis], range));
    d.flat_map(move |d| h.flat_map(move |h| w.map(move |w| [d, h, w])))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::super::shapes::{axes, extreme_axes, valid, volumes};
    use super::*;
    use crate::desc::{ConvDesc, volume};

    /// The taps that read an input, and the outputs that they belong to.
    fn readers(desc: &ConvDesc, axis: usize, i: usize) -> Vec<(usize, usize)> {
        let outputs = || 0..desc.output_size()[axis];
        let reader = |k| outputs().find(|&o| valid(desc, axis, o, k) == Some(i));
        (0..desc.kernel()[axis]).filter_map(|k| Some((k, reader(k)?))).collect()
    }

    /// The same, of an input of a progression.
    fn of_progression(progression: &Progression, index: usize) -> Vec<(usize, usize)> {
        let taps = progression.taps;
        (0..taps.count).map(|t| (taps.at(t), progression.output(index, t))).collect()
    }

    #[test]
    fn progressions_have_every_input_once_and_its_taps() {
        for desc in axes() {
            let forward = Reads::forward(&desc, 2);
            let mut seen = vec![false; desc.input_size()[2]];
            let mut last: Option<Progression> = None;
            for progression in Progressions::new(&forward) {
                let Steps { first, step, count } = progression.inputs;
                assert!(count > 0 && step == desc.stride()[2]);
                for index in 0..count {
                    let input = progression.inputs.at(index);
                    assert!(!core::mem::replace(&mut seen[input], true));
                    assert_eq!(of_progression(&progression, index), readers(&desc, 2, input), "{desc:?} {input}");
                }
                // The progression before it in the same phase ends where this one begins, and has other taps.
                if let Some(last) = last.filter(|last| last.inputs.first % step == first % step) {
                    assert_eq!(last.inputs.at(last.inputs.count), first);
                    assert_ne!(last.taps, progression.taps, "{desc:?}");
                }
                last = Some(progression);
            }
            assert!(seen.into_iter().all(|seen| seen), "{desc:?}");
            assert_eq!(Progressions::new(&forward).remaining(), Progressions::new(&forward).count());
        }
    }

    #[test]
    fn far_progressions_are_found_at_once() {
        for desc in extreme_axes() {
            let forward = Reads::forward(&desc, 2);
            let mut inputs = 0;
            for progression in Progressions::new(&forward) {
                let count = progression.inputs.count;
                inputs += count;
                for index in [0, count / 2, count - 1] {
                    let input = progression.inputs.at(index);
                    let expected = (0..desc.kernel()[2])
                        .filter_map(|k| Some((k, forward.position_of(input, k)?)))
                        .collect::<Vec<_>>();
                    assert_eq!(of_progression(&progression, index), expected, "{desc:?} {input}");
                }
            }
            assert_eq!(inputs, desc.input_size()[2]);
        }
    }

    #[test]
    fn a_range_of_inputs_has_its_own_progressions() {
        for desc in axes() {
            let (forward, inputs) = (Reads::forward(&desc, 2), desc.input_size()[2]);
            for range in [inputs / 3..inputs, 0..inputs - inputs / 3, inputs / 2..inputs / 2 + 1] {
                let mut seen = vec![false; inputs];
                for progression in Progressions::within(&forward, range.clone()) {
                    assert_ne!(progression.inputs.count, 0);
                    for index in 0..progression.inputs.count {
                        let input = progression.inputs.at(index);
                        assert!(!core::mem::replace(&mut seen[input], true));
                        assert_eq!(of_progression(&progression, index), readers(&desc, 2, input), "{desc:?} {input}");
                    }
                }
                assert!((0..inputs).all(|input| seen[input] == range.contains(&input)), "{desc:?} {range:?}");
            }
        }
    }

    #[test]
    fn boxes_of_progressions_cover_the_input() {
        for desc in volumes(200) {
            let [_, height, width] = desc.input_size();
            let mut seen = vec![false; volume(desc.input_size())];
            for axes in progressions(&Reads::all_forward(&desc), desc.input_size().map(|size| 0..size)) {
                let all = |axis: usize| (0..axes[axis].inputs.count).map(move |index| (axis, index));
                for (axis, index) in (0..3).flat_map(all) {
                    let expected = readers(&desc, axis, axes[axis].inputs.at(index));
                    assert_eq!(of_progression(&axes[axis], index), expected, "{desc:?}");
                }
                let [ds, hs, ws] = axes.map(|axis| (0..axis.inputs.count).map(move |index| axis.inputs.at(index)));
                for (d, h) in ds.flat_map(|d| hs.clone().map(move |h| (d, h))) {
                    for w in ws.clone() {
                        assert!(!core::mem::replace(&mut seen[(d * height + h) * width + w], true));
                    }
                }
            }
            assert!(seen.into_iter().all(|seen| seen));
        }
    }

    #[test]
    fn a_plan_can_count_them() {
        const DESC: ConvDesc = match ConvDesc::conv1d(1, 1, 1, [8], [3]).padding([1]).stride([2]).build() {
            Ok(desc) => desc,
            Err(_) => panic!("a constant descriptor"),
        };
        const COUNT: usize = Progressions::new(&Reads::forward(&DESC, 2)).remaining();
        // Even inputs; odd ones; the last, which no output reads through tap 0.
        assert_eq!(COUNT, 3);
    }
}
