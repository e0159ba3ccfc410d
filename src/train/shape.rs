//! Extents and memory order of a layer's activations.

use std::fmt;

use crate::layout::Layout;

/// Extents and memory order of one image, signal or volume, or of a layer's output for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Channels.
    pub channels: usize,
    /// `[depth, height, width]`. Axes that do not exist are 1.
    pub size: [usize; 3],
    /// Whether channels come before or after positions.
    pub layout: Layout,
}

impl Shape {
    /// Channels first, PyTorch's order.
    pub const fn new(channels: usize, size: [usize; 3]) -> Self {
        Self { channels, size, layout: Layout::Nchw }
    }

    /// The same extents in another order.
    #[must_use]
    pub const fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// The same positions and order with another number of channels.
    #[must_use]
    pub const fn with_channels(self, channels: usize) -> Self {
        Self { channels, ..self }
    }

    /// Elements.
    pub const fn len(&self) -> usize {
        self.channels * self.positions()
    }

    /// Whether there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions of one channel.
    pub const fn positions(&self) -> usize {
        self.size[0] * self.size[1] * self.size[2]
    }

    /// A batch as runs: `[outer][channels][inner]`, where `inner` elements in a row share a channel.
    pub(super) const fn runs(&self, batch: usize) -> Runs {
        match self.layout {
            Layout::Nchw => Runs { outer: batch, channels: self.channels, inner: self.positions() },
            Layout::Nhwc => Runs { outer: batch * self.positions(), channels: self.channels, inner: 1 },
        }
    }
}

impl fmt::Display for Shape {
    /// Channels and extents, without leading axes that are not there: `3 × 32 × 32`, `1 × 64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = self.size.iter().position(|&extent| extent != 1).unwrap_or(2);
        f.write_str(&extents(&[&[self.channels], &self.size[there..]].concat()))
    }
}

/// The extents as text for readers.
pub(super) fn extents(extents: &[usize]) -> String {
    extents.iter().map(usize::to_string).collect::<Vec<_>>().join(" × ")
}

/// See [`Shape::runs`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    pub(super) outer: usize,
    pub(super) channels: usize,
    pub(super) inner: usize,
}

impl Runs {
    /// Elements of one step of `outer`.
    pub(super) const fn step(&self) -> usize {
        self.channels * self.inner
    }
}

/// Channels of a batch of images: all channels of a tensor, or some channels of a wider one.
#[derive(Clone, Copy, Debug)]
pub struct Channels {
    pub(super) runs: Runs,
    pub(super) layout: Layout,
    /// Elements from one outer step to the next.
    pub(super) pitch: usize,
    /// Elements before the first channel.
    pub(super) offset: usize,
}

impl Channels {
    /// The channels from `first` on, in a tensor of `total` channels: as many as `shape` has, for `batch` images with its
    /// positions.
    pub(super) const fn of(total: usize, first: usize, shape: Shape, batch: usize) -> Self {
        let runs = shape.runs(batch);
        Self { runs, layout: shape.layout, pitch: total * runs.inner, offset: first * runs.inner }
    }

    /// All channels of a tensor.
    pub(super) const fn all(shape: Shape, batch: usize) -> Self {
        Self::of(shape.channels, 0, shape, batch)
    }

    /// Whether there are no gaps.
    pub(super) const fn is_dense(&self) -> bool {
        self.pitch == self.runs.step()
    }

    /// The same channels without gaps.
    pub(super) const fn dense(self) -> Self {
        Self { pitch: self.runs.step(), offset: 0, ..self }
    }

    /// Elements, gaps not counted.
    pub(super) const fn len(&self) -> usize {
        self.runs.outer * self.runs.step()
    }

    /// Values of each channel.
    pub(super) const fn count(&self) -> usize {
        self.runs.outer * self.runs.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_words_for_people() {
        for (size, expected) in
            [([1, 8, 9], "2 × 8 × 9"), ([1, 1, 64], "2 × 64"), ([4, 1, 3], "2 × 4 × 1 × 3"), ([1, 1, 1], "2 × 1")]
        {
            assert_eq!(Shape::new(2, size).to_string(), expected);
        }
    }
}
