//! Stride, padding, dilation, groups.

use candle_nn::{Conv1dConfig, Conv2dConfig};

/// One number per spatial axis: `[width]`, `[height, width]` or `[depth, height, width]`. A single number stands for all axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axes<const R: usize>(pub [usize; R]);

impl<const R: usize> From<usize> for Axes<R> {
    fn from(number: usize) -> Self {
        Self([number; R])
    }
}

impl<const R: usize> From<[usize; R]> for Axes<R> {
    fn from(numbers: [usize; R]) -> Self {
        Self(numbers)
    }
}

/// How a kernel of `R` spatial axes moves over its input. [`new`](Self::new) has stride 1, padding 0, dilation 1, 1 group.
///
/// candle's own [`Conv1dConfig`] and [`Conv2dConfig`] convert into it.
///
/// ```
/// use convrelu_candle::Options;
///
/// // Every second row, every column; two zeros before the rows, none after them.
/// let options = Options::<2>::new().stride([2, 1]).padding_before_after([2, 1], [0, 1]);
/// assert_eq!(options, Options { stride: [2, 1], padding_before: [2, 1], padding_after: [0, 1], ..Options::new() });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options<const R: usize> {
    /// Steps between output positions, at least 1.
    pub stride: [usize; R],
    /// Zeros before each axis.
    pub padding_before: [usize; R],
    /// Zeros after each axis.
    pub padding_after: [usize; R],
    /// Distance between kernel taps, at least 1; 1 is dense.
    pub dilation: [usize; R],
    /// Groups: output channels of a group see its input channels only. As many as input channels: depthwise.
    pub groups: usize,
}

impl<const R: usize> Options<R> {
    /// Stride 1, padding 0, dilation 1, 1 group.
    pub const fn new() -> Self {
        Self { stride: [1; R], padding_before: [0; R], padding_after: [0; R], dilation: [1; R], groups: 1 }
    }

    /// With this stride.
    #[must_use]
    pub fn stride(self, stride: impl Into<Axes<R>>) -> Self {
        Self { stride: stride.into().0, ..self }
    }

    /// With as many zeros before as after each axis.
    #[must_use]
    pub fn padding(self, padding: impl Into<Axes<R>>) -> Self {
        let padding = padding.into();
        self.padding_before_after(padding, padding)
    }

    /// With these zeros before and after each axis.
    #[must_use]
    pub fn padding_before_after(self, before: impl Into<Axes<R>>, after: impl Into<Axes<R>>) -> Self {
        Self { padding_before: before.into().0, padding_after: after.into().0, ..self }
    }

    /// With this dilation.
    #[must_use]
    pub fn dilation(self, dilation: impl Into<Axes<R>>) -> Self {
        Self { dilation: dilation.into().0, ..self }
    }

    /// With this number of groups.
    #[must_use]
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }
}

impl<const R: usize> Default for Options<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// The algorithm that it names for cuDNN does not matter to the kernels here.
impl From<Conv1dConfig> for Options<1> {
    fn from(config: Conv1dConfig) -> Self {
        Self::new().stride(config.stride).padding(config.padding).dilation(config.dilation).groups(config.groups)
    }
}

/// The algorithm that it names for cuDNN does not matter to the kernels here.
impl From<Conv2dConfig> for Options<2> {
    fn from(config: Conv2dConfig) -> Self {
        Self::new().stride(config.stride).padding(config.padding).dilation(config.dilation).groups(config.groups)
    }
}
