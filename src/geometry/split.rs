//! Splits: how the tasks of a call share a box of work.
//!
//! ```text
//! 3 images, 28 rows, 8 panels, 16 threads:    1 × 4 × 4 parts of 3 images, 7 rows, 2 panels
//! ```

use core::ops::Range;

use super::{MOST_PARTS, Panels, THREADS};
use crate::arith::min;

/// A box of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Items along `[image, position, panel]`.
    pub(crate) items: [usize; 3],
    /// The most parts along the positions.
    pub(crate) finest: usize,
    /// The work that the panels of an image and a position share, and that each task does again. The unit is a sixteenth of a
    /// panel's work.
    pub(crate) shared: usize,
    /// What it costs a task to read the weights of a panel for the first time, in the same unit.
    pub(crate) reading: usize,
    /// Whether positions may be cut only where each part has a single image. The parts of some panels then hold consecutive
    /// items.
    pub(crate) consecutive: bool,
}

/// The first axis with more than one position. Parts along it are consecutive in memory.
pub(crate) const fn long_axis(size: [usize; 3]) -> usize {
    if size[0] > 1 {
        0
    } else if size[1] > 1 {
        1
    } else {
        2
    }
}

/// The positions behind each position along the [first axis that has several](long_axis).
pub(crate) const fn inner_positions(size: [usize; 3]) -> usize {
    match long_axis(size) {
        0 => size[1] * size[2],
        1 => size[2],
        _ => 1,
    }
}

/// A box of items, cut along each axis into nearly equal parts. (The struct is small because plans are constants in a
/// microcontroller's flash.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    items: [usize; 3],
    /// At most [`MOST_PARTS`] together.
    parts: [u8; 3],
}

impl Split {
    /// A single part, or none if there are no images.
    pub(crate) const fn whole(items: [usize; 3]) -> Self {
        Self { items, parts: [min(items[0], 1) as u8, min(items[1], 1) as u8, min(items[2], 1) as u8] }
    }

    /// The split into at most one part per thread whose largest part is the smallest. Among equals it cuts images rather than
    /// positions, and positions rather than panels.
    pub(crate) const fn new(work: Work, threads: usize) -> Self {
        let Work { items, finest, shared, reading, consecutive } = work;
        let [images, positions, panels] = items;
        let mut best = Self::whole(items);
        let threads = min(threads, MOST_PARTS);
        if !THREADS || threads <= 1 || images == 0 || positions == 0 || panels == 0 {
            return best;
        }
        let mut least = usize::MAX;
        let mut a = min(threads, images);
        while a > 0 {
            let own_images = images.div_ceil(a);
            let most = if consecutive && own_images > 1 { 1 } else { min(threads / a, finest) };
            let mut b = if most > 1 { most } else { 1 };
            while b > 0 {
                let c = min(threads / a / b, panels);
                let [own_positions, own_panels] = [positions.div_ceil(b), panels.div_ceil(c)];
                let cost = own_panels.saturating_mul(16).saturating_add(shared);
                let cost = cost.saturating_mul(own_images).saturating_mul(own_positions);
                let cost = cost.saturating_add(own_panels.saturating_mul(reading));
                if cost < least {
                    least = cost;
                    // The least number of parts of that size.
                    best.parts = [
                        images.div_ceil(own_images) as u8,
                        positions.div_ceil(own_positions) as u8,
                        panels.div_ceil(own_panels) as u8,
                    ];
                }
                b -= 1;
            }
            a -= 1;
        }
        best
    }

    /// The number of parts.
    pub(crate) const fn count(&self) -> usize {
        if !THREADS {
            return self.parts[0] as usize;
        }
        self.parts[0] as usize * self.parts[1] as usize * self.parts[2] as usize
    }

    /// Parts along an axis.
    const fn axis(&self, axis: usize) -> Panels {
        Panels::into_parts(self.items[axis], self.parts[axis] as usize)
    }

    /// Items of the largest part along each axis.
    pub(crate) const fn largest(&self) -> [usize; 3] {
        [self.axis(0).max(), self.axis(1).max(), self.axis(2).max()]
    }

    /// Parts of the images.
    pub(crate) const fn images(&self) -> Panels {
        self.axis(0)
    }

    /// Parts of the panels.
    pub(crate) const fn panels(&self) -> Panels {
        self.axis(2)
    }

    /// The parts. Those of the first panels come first, and among these those of the first images.
    pub(crate) fn iter(self) -> impl Iterator<Item = [Range<usize>; 3]> {
        (0..self.count()).map(move |index| if THREADS { self.get(index) } else { self.items.map(|items| 0..items) })
    }

    fn get(&self, index: usize) -> [Range<usize>; 3] {
        let [images, positions, panels] = [0, 1, 2].map(|axis| self.axis(axis));
        let (outer, position) = (index / positions.count(), index % positions.count());
        [images.get(outer % images.count()), positions.get(position), panels.get(outer / images.count())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work { items: [1; 3], finest: usize::MAX, shared: 0, reading: 0, consecutive: false };

    fn items() -> impl Iterator<Item = [usize; 3]> {
        let counts = [0, 1, 2, 3, 8, 13];
        counts.into_iter().flat_map(move |a| counts.into_iter().flat_map(move |b| counts.map(|c| [a, b, c])))
    }

    #[test]
    fn parts_hold_every_item_once() {
        for items @ [images, positions, panels] in items() {
            for threads in [0, 1, 2, 3, 5, 16, 33] {
                for consecutive in [false, true] {
                    let split = Split::new(Work { items, consecutive, ..WORK }, threads);
                    assert!(split.count() <= threads.max(1));
                    assert_eq!(split.iter().count(), split.count());
                    let mut seen = [[[0; 13]; 13]; 13];
                    let mut last = None;
                    for [a, b, c] in split.iter() {
                        let first = (c.start, a.start, b.start);
                        assert!(last.is_none_or(|last| last < first));
                        last = Some(first);
                        assert!(!consecutive || a.len() == 1 || b.len() == positions);
                        for (a, b) in a.flat_map(|a| b.clone().map(move |b| (a, b))) {
                            c.clone().for_each(|c| seen[a][b][c] += 1);
                        }
                    }
                    let inside = |a: usize, b: usize, c: usize| i32::from(a < images && b < positions && c < panels);
                    for (a, b) in (0..13).flat_map(|a| (0..13).map(move |b| (a, b))) {
                        assert!((0..13).all(|c| seen[a][b][c] == inside(a, b, c)));
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_part_is_small() {
        let largest = |items: [usize; 3], threads| {
            let split = Split::new(Work { items, ..WORK }, threads);
            split.iter().map(|part| part.iter().map(Range::len).product::<usize>()).max()
        };
        assert_eq!(largest([3, 28, 8], 16), Some(42));
        assert_eq!(largest([8, 1, 1], 16), Some(1));
        assert_eq!(largest([1, 7, 1], 3), Some(3));
        // A cut between panels costs the work that they share.
        let split = Split::new(Work { items: [1, 2, 2], shared: 1, ..WORK }, 2);
        assert!(split.iter().eq([[0..1, 0..1, 0..2], [0..1, 1..2, 0..2]]));
        let split = Split::new(Work { items: [1, 2, 2], finest: 1, ..WORK }, 2);
        assert!(split.iter().eq([[0..1, 0..2, 0..1], [0..1, 0..2, 1..2]]));
        // Each task reads the weights of its panels.
        let split = Split::new(Work { items: [2, 1, 2], reading: 16, ..WORK }, 2);
        assert!(split.iter().eq([[0..2, 0..1, 0..1], [0..2, 0..1, 1..2]]));
    }
}
