//! Classes: boxes of positions that read inside through the same taps.
//!
//! ```text
//! ┌───┬───────┬───┐
//! ├───┼───────┼───┤    the products of the intervals of the axes
//! │   │       │   │
//! ├───┼───────┼───┤
//! └───┴───────┴───┘
//! ```

use core::ops::Range;

use super::interval::Interval;
use super::reads::Reads;
use super::span::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// Positions, per axis.
    pub(crate) positions: [Span; 3],
    /// The taps that read inside, per axis.
    pub(crate) taps: [Span; 3],
}

/// The classes of a box of positions, in memory order of their first positions.
pub(crate) fn classes_in(reads: &[Reads; 3], positions: [Range<usize>; 3]) -> impl Iterator<Item = Class> + Clone {
    let [d, h, w] = positions;
    let [d, h, w] = [reads[0].intervals_in(d), reads[1].intervals_in(h), reads[2].intervals_in(w)];
    d.flat_map(move |d| h.flat_map(move |h| w.map(move |w| Class::of([d, h, w]))))
}

/// The classes of all positions.
#[cfg(test)]
pub(crate) fn classes(reads: &[Reads; 3]) -> impl Iterator<Item = Class> + Clone {
    classes_in(reads, reads.map(|axis| 0..axis.positions))
}

impl Class {
    const fn of([d, h, w]: [Interval; 3]) -> Self {
        Self { positions: [d.positions, h.positions, w.positions], taps: [d.taps, h.taps, w.taps] }
    }
}

impl Class {
    /// The coordinates that the first position reads through the first tap. The class has at least one tap.
    pub(crate) fn first_read(&self, reads: &[Reads; 3]) -> [usize; 3] {
        // The taps of a class read inside, so the coordinates are not negative.
        [0, 1, 2].map(|axis| reads[axis].coordinate(self.positions[axis].start, self.taps[axis].start) as usize)
    }

    /// Number of positions.
    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        let [d, h, w] = self.positions;
        d.len() * h.len() * w.len()
    }

    /// Number of taps that read inside.
    pub(crate) const fn taps_len(&self) -> usize {
        let [d, h, w] = self.taps;
        d.len() * h.len() * w.len()
    }

    /// The taps of a kernel that read padding, counted in memory order.
    pub(crate) fn padded(self, [depth, height, width]: [usize; 3]) -> impl Iterator<Item = usize> + Clone {
        let [ds, hs, ws] = self.taps.map(Span::range);
        (0..depth * height * width).filter(move |tap| {
            let [d, h, w] = [tap / (height * width), tap / width % height, tap % width];
            !(ds.contains(&d) && hs.contains(&h) && ws.contains(&w))
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;

    use super::super::shapes::{valid, volumes};
    use super::*;
    use crate::desc::volume;

    #[test]
    fn positions_of_a_class_read_through_its_taps() {
        for desc in volumes(300) {
            let reads = Reads::all_forward(&desc);
            let [_, height, width] = desc.output_size();
            let mut seen = vec![false; volume(desc.output_size())];
            for class in classes(&reads) {
                assert_ne!(class.len(), 0);
                let [ds, hs, ws] = class.positions.map(Span::range);
                for [d, h, w] in ds
                    .flat_map(|d| hs.clone().map(move |h| (d, h)))
                    .flat_map(|(d, h)| ws.clone().map(move |w| [d, h, w]))
                {
                    assert!(!core::mem::replace(&mut seen[(d * height + h) * width + w], true));
                    let pads = |tap: &usize| {
                        let k = desc.kernel_position(*tap);
                        (0..3).any(|axis| valid(&desc, axis, [d, h, w][axis], k[axis]).is_none())
                    };
                    assert!(class.padded(desc.kernel()).eq((0..desc.taps()).filter(pads)), "{desc:?} {class:?}");
                }
                assert_eq!(class.taps_len() + class.padded(desc.kernel()).count(), desc.taps());
            }
            assert!(seen.into_iter().all(|seen| seen));
            // No two neighbouring classes have the same taps.
            let mut count = 1;
            for axis in reads {
                count *= axis.intervals().remaining();
            }
            assert_eq!(classes(&reads).count(), count);
        }
    }

    #[test]
    fn a_box_of_positions_has_its_own_classes() {
        for desc in volumes(100) {
            let reads = Reads::all_forward(&desc);
            let part = desc.output_size().map(|size| size / 3..size);
            let positions: usize = classes_in(&reads, part.clone()).map(|class| class.len()).sum();
            assert_eq!(positions, part.iter().map(ExactSizeIterator::len).product::<usize>());
            for class in classes_in(&reads, part) {
                let first = class.positions.map(|positions| positions.start);
                assert!((0..3).all(|axis| reads[axis].taps_of(first[axis]) == class.taps[axis]));
            }
        }
    }
}
