//! Shares: parts of nearly equal size, of channels for panels and of work for threads.
//!
//! ```text
//! 64 channels, panels of at most 12:   11 11 11 11 10 10
//! ```

use core::ops::Range;

use crate::arith::{clamp, max, min};

/// Whether a call may be cut into tasks. Firmware has one thread, and the code for more would cost flash.
pub(crate) const THREADS: bool = cfg!(all(target_has_atomic = "8", not(target_os = "none")));

/// The most tasks of a call, for any number of threads. Each task has memory of its own, so there must be a limit.
pub(crate) const MOST_PARTS: usize = 128;

/// The number of tasks that is worth its cost: one per thread, if each gets at least `least` multiply-adds.
pub(crate) const fn parts(threads: usize, multiply_adds: usize, least: usize) -> usize {
    clamp(multiply_adds / max(least, 1), 1, clamp(threads, 1, MOST_PARTS))
}

/// `len` items in `count` consecutive parts. Their sizes differ by at most one, and the larger parts come first.
///
/// Equal parts are faster than full panels and a narrow last one: 64 channels in panels of at most 12 are 11+11+11+11+10+10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Panels {
    len: usize,
    count: usize,
    // The struct keeps both results of the division, because tiles ask for them so often that to divide each time would take too
    // long. `size` is the size of the smaller parts. `larger` is the number of parts that have one item more.
    size: usize,
    larger: usize,
}

impl Panels {
    /// As few parts of at most `max` items as possible. `max` is at least 1.
    pub(crate) const fn of_at_most(len: usize, max: usize) -> Self {
        Self::new(len, len.div_ceil(max))
    }

    /// `count` parts, or `len` of them where there are fewer items. `count` is at least 1.
    pub(crate) const fn into_parts(len: usize, count: usize) -> Self {
        Self::new(len, if count < len { count } else { len })
    }

    const fn new(len: usize, count: usize) -> Self {
        let Some(size) = len.checked_div(count) else { return Self { len, count, size: 0, larger: 0 } };
        Self { len, count, size, larger: len - size * count }
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Items of all parts.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Size of the largest part.
    pub(crate) const fn max(&self) -> usize {
        self.size + if self.larger > 0 { 1 } else { 0 }
    }

    /// Size of the smallest part.
    pub(crate) const fn min(&self) -> usize {
        self.size
    }

    /// The number of parts from `index` on that are as large as part `index`.
    pub(crate) const fn alike(&self, index: usize) -> usize {
        if index < self.larger { self.larger - index } else { self.count - index }
    }

    /// The part that holds an item.
    pub(crate) const fn index(&self, item: usize) -> usize {
        let larger = self.larger * (self.size + 1);
        if item < larger { item / (self.size + 1) } else { self.larger + (item - larger) / self.size }
    }

    /// First item of part `index`. For `count` it is the end.
    pub(crate) const fn start(&self, index: usize) -> usize {
        index * self.size + if index < self.larger { index } else { self.larger }
    }

    pub(crate) const fn get(&self, index: usize) -> Range<usize> {
        self.start(index)..self.start(index + 1)
    }

    /// Items of some consecutive parts.
    pub(crate) const fn items(&self, parts: &Range<usize>) -> Range<usize> {
        self.start(parts.start)..self.start(parts.end)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Range<usize>> + Clone {
        (0..self.count).map(move |index| self.get(index))
    }
}

/// Consecutive parts of `range`, of `size` items each (at least 1). The last one may be smaller. (`Iterator::step_by` would
/// divide at the start of each loop.)
pub(crate) fn chunks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let mut next = range.start;
    core::iter::from_fn(move || {
        let start = next;
        if start >= range.end {
            return None;
        }
        next = start + min(size, range.end - start);
        Some(start..next)
    })
}

/// The widths of panels for which kernels are compiled: all from 1 to some width, and perhaps a single larger one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widths {
    whole: usize,
    rest: usize,
}

impl Widths {
    /// All of `1..=rest`, and `whole`, which is at least `rest`.
    pub(crate) const fn new(whole: usize, rest: usize) -> Self {
        Self { whole, rest }
    }

    /// The largest.
    pub(crate) const fn max(self) -> usize {
        self.whole
    }

    pub(crate) const fn contains(self, width: usize) -> bool {
        width == self.whole || (width >= 1 && width <= self.rest)
    }

    /// `len` items in panels of such widths and of at most `most` items, which is at least 1. There are as few panels as
    /// possible, or panels of the largest width if these leave no remainder.
    pub(crate) const fn panels(self, len: usize, most: usize) -> Panels {
        let widest = if self.whole <= most && len.is_multiple_of(self.whole) { self.whole } else { self.rest };
        Panels::of_at_most(len, min(widest, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_are_balanced_and_cover_everything() {
        for len in 1..70 {
            for max in 1..20 {
                let panels = Panels::of_at_most(len, max);
                let mut next = 0;
                for range in panels.iter() {
                    assert_eq!(range.start, next);
                    assert!(range.len() <= panels.max() && range.len() + 1 >= panels.max());
                    next = range.end;
                }
                assert_eq!(next, len);
                assert!(panels.max() <= max);
            }
        }
        assert!(Panels::of_at_most(64, 12).iter().map(|r| r.len()).eq([11, 11, 11, 11, 10, 10]));
        assert_eq!(Panels::into_parts(3, 8).count(), 3);
    }

    #[test]
    fn parts_are_no_smaller_than_pays() {
        for threads in [0, 1, 2, 5, 127, 128, 129, usize::MAX] {
            for multiply_adds in [0, 1, 999, 1000, 1999, 2000, 10_000, usize::MAX] {
                for least in [0, 1, 1000, usize::MAX] {
                    let parts = parts(threads, multiply_adds, least);
                    assert!(parts >= 1 && parts <= threads.max(1) && parts <= MOST_PARTS);
                    assert!(parts == 1 || multiply_adds / parts >= least);
                    // One part more would be more than there are threads, or would make the parts too small.
                    let more = parts + 1;
                    assert!(more > threads.min(MOST_PARTS) || multiply_adds / more < least.max(1));
                }
            }
        }
    }

    #[test]
    fn chunks_cover_a_range() {
        assert!(chunks(3..10, 3).eq([3..6, 6..9, 9..10]));
        assert_eq!(chunks(3..10, usize::MAX).map(|part| part.len()).sum::<usize>(), 7);
        assert!(chunks(4..4, 2).next().is_none());
    }

    #[test]
    fn panels_are_of_widths_that_there_are() {
        for (whole, rest) in [(8, 4), (12, 12), (4, 2)] {
            let widths = Widths::new(whole, rest);
            for len in 1..70 {
                for most in 1..20 {
                    let panels = widths.panels(len, most);
                    assert!(panels.max() <= most && panels.iter().all(|panel| widths.contains(panel.len())));
                }
                assert_eq!(widths.panels(len * whole, usize::MAX).max(), whole);
            }
        }
    }
}
