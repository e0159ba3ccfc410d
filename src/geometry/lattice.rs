//! Lattices: boxes of places at constant steps in several tensors.
//!
//! ```text
//! axes      [image, depth, height, width]        of positions: steps in the input and in the output
//!           [depth, height, width, channel]      of taps: steps in the input and in the packed weight
//! ```
//!
//! Axes that follow one another without a gap in every tensor are joined to one axis. So a 1×1 layer is one line of positions
//! over the whole batch, and a kernel row over adjacent channels is one line of steps.

use super::share::Panels;

/// A box of places, the innermost axis last, in `T` tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lattice<const T: usize> {
    /// Places along each axis.
    pub(crate) counts: [usize; 4],
    /// Elements from a place to its neighbour, per tensor and axis.
    pub(crate) steps: [[usize; 4]; T],
}

impl<const T: usize> Lattice<T> {
    /// Number of places.
    pub(crate) const fn len(&self) -> usize {
        let [a, b, c, d] = self.counts;
        a * b * c * d
    }

    /// The distance of the last place from the first one in a tensor. There must be at least one place. Saturates.
    pub(crate) const fn last(&self, tensor: usize) -> usize {
        let (mut last, mut axis) = (0usize, 0);
        while axis < 4 {
            last = last.saturating_add((self.counts[axis] - 1).saturating_mul(self.steps[tensor][axis]));
            axis += 1;
        }
        last
    }

    /// The same places in the same order, in as few axes as possible. The innermost axes hold them.
    pub(crate) const fn joined(mut self) -> Self {
        let (mut inner, mut next) = (3, 3);
        while next > 0 {
            next -= 1;
            if self.counts[next] == 1 {
                continue;
            }
            if self.counts[inner] == 1 {
                self.move_into(next, inner, 1);
            } else if self.continues(next, inner) {
                self.move_into(next, inner, self.counts[inner]);
            } else {
                inner -= 1;
                if inner != next {
                    self.move_into(next, inner, 1);
                }
            }
        }
        self
    }

    /// As [`joined`](Self::joined), but if the innermost places are adjacent in every tensor, they stay adjacent. (`joined` may
    /// join a single innermost place with an axis whose places lie apart.)
    pub(crate) fn joined_lines(self) -> Self {
        let joined = self.joined();
        if joined.steps.iter().all(|steps| steps[3] == 1) { joined } else { self }
    }

    /// Whether a step along the `outer` axis continues where a line along the `inner` axis ends.
    const fn continues(&self, outer: usize, inner: usize) -> bool {
        let mut tensor = 0;
        while tensor < T {
            let steps = &self.steps[tensor];
            if steps[outer] != self.counts[inner].saturating_mul(steps[inner]) {
                return false;
            }
            tensor += 1;
        }
        true
    }

    /// Makes the `outer` axis part of the `inner` one, which has `count` places now.
    const fn move_into(&mut self, outer: usize, inner: usize, count: usize) {
        if count == 1 {
            let mut tensor = 0;
            while tensor < T {
                self.steps[tensor][inner] = self.steps[tensor][outer];
                tensor += 1;
            }
        }
        self.counts[inner] = count * self.counts[outer];
        self.counts[outer] = 1;
    }

    /// The axis along which tiles of at most `most` places cost the least. A tile of fewer than `least` places costs as much as
    /// one of `least`. Among axes of the same cost it is the innermost.
    pub(crate) const fn tile_axis(&self, most: usize, least: usize) -> usize {
        let (mut best, mut cheapest, mut axis) = (3, usize::MAX, 4);
        while axis > 0 {
            axis -= 1;
            let count = self.counts[axis];
            if count == 1 && axis < 3 {
                continue;
            }
            let tiles = Panels::of_at_most(count, most);
            let per_line = if tiles.min() < least { tiles.count() * least } else { count };
            let cost = self.len() / count * per_line;
            if cost < cheapest {
                (best, cheapest) = (axis, cost);
            }
        }
        best
    }

    /// The beginnings of the lines along an axis, in every tensor.
    pub(crate) fn lines(self, axis: usize) -> impl Iterator<Item = [usize; T]> + Clone {
        let mut counts = self.counts;
        counts[axis] = 1;
        let [a, b, c, d] = counts.map(|count| 0..count);
        let outer = a.flat_map(move |a| b.clone().map(move |b| [a, b]));
        let inner = c.flat_map(move |c| d.clone().map(move |d| [c, d]));
        outer.flat_map(move |[a, b]| {
            inner.clone().map(move |[c, d]| self.steps.map(|[i, j, k, l]| a * i + b * j + c * k + d * l))
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    fn places<const T: usize>(lattice: &Lattice<T>, axis: usize) -> Vec<[usize; T]> {
        let step = |tensor: usize| lattice.steps[tensor][axis];
        let line = |first: [usize; T]| {
            (0..lattice.counts[axis]).map(move |i| core::array::from_fn(|tensor| first[tensor] + i * step(tensor)))
        };
        lattice.lines(axis).flat_map(line).collect()
    }

    /// Small boxes, packed, with gaps, and with equal places (steps of 0).
    fn lattices() -> impl Iterator<Item = Lattice<2>> {
        let counts = (0..81).map(|n| [n / 27, n / 9 % 3, n / 3 % 3, n % 3].map(|count| 1 + count));
        counts.flat_map(|counts| {
            (0..32).map(move |gaps| {
                let steps = |gaps: usize, unit: usize| {
                    let (mut steps, mut next) = ([0; 4], unit);
                    for axis in (0..4).rev() {
                        steps[axis] = next;
                        next = counts[axis] * next + gaps / (1 << axis) % 2;
                    }
                    steps
                };
                Lattice { counts, steps: [steps(gaps % 16, 1), steps(if gaps < 16 { 0 } else { gaps % 16 }, gaps % 3)] }
            })
        })
    }

    #[test]
    fn joined_axes_hold_the_same_places_in_the_same_order() {
        let mut joined_all = 0;
        for lattice in lattices() {
            let joined = lattice.joined();
            assert_eq!(places(&joined, 3), places(&lattice, 3), "{lattice:?}");
            assert_eq!(joined.joined(), joined);
            // Outer axes have a single place. The other axes do not continue one another.
            let first = joined.counts.iter().position(|&count| count > 1).unwrap_or(3);
            assert!(joined.counts[first..].iter().all(|&count| count > 1) || first == 3);
            joined_all += usize::from(lattice.counts[0] > 1 && joined.counts[..3] == [1; 3]);
        }
        assert!(joined_all > 20);
    }

    #[test]
    fn lines_along_every_axis_hold_every_place_once() {
        for lattice in lattices() {
            let mut expected = places(&lattice, 3);
            expected.sort_unstable();
            for axis in 0..3 {
                let mut found = places(&lattice, axis);
                found.sort_unstable();
                assert_eq!(found, expected);
            }
            assert_eq!(lattice.len(), expected.len());
            for tensor in 0..2 {
                assert_eq!(expected.iter().map(|place| place[tensor]).max(), Some(lattice.last(tensor)));
            }
        }
    }

    #[test]
    fn tiles_lie_along_the_axis_with_the_cheapest_remainders() {
        let lattice = |counts| Lattice::<1> { counts, steps: [[0; 4]] };
        // One column of a border, four rows: along the rows.
        assert_eq!(lattice([1, 1, 4, 1]).tile_axis(6, 4), 2);
        // Planes of 4×4 in a batch of 12: tiles of six images.
        assert_eq!(lattice([12, 1, 3, 3]).tile_axis(6, 4), 0);
        // All axes cost the same, so it is the innermost.
        assert_eq!(lattice([8, 8, 8, 8]).tile_axis(6, 4), 3);
    }
}
