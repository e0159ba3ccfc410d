//! Consecutive numbers, and numbers at a constant step.

use core::ops::Range;

/// `start..end`. Unlike `Range`, it is `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    /// At least `start`.
    pub(crate) end: usize,
}

impl Span {
    pub(crate) const EMPTY: Self = Self { start: 0, end: 0 };

    pub(crate) const fn len(self) -> usize {
        self.end - self.start
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The same numbers less `first`, which is at most the start.
    pub(crate) const fn before(self, first: usize) -> Self {
        Self { start: self.start - first, end: self.end - first }
    }

    pub(crate) const fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// `first, first + step, …`: `count` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    pub(crate) first: usize,
    pub(crate) step: usize,
    pub(crate) count: usize,
}

impl Steps {
    /// Number `index`, which is less than the count.
    pub(crate) const fn at(self, index: usize) -> usize {
        self.first + index * self.step
    }
}
