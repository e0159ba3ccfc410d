//! Thresholds by channel and tap, and their gradient. No other module knows how they lie in memory, or whether there is one for
//! all.

use core::ops::Range;

use crate::strided;

/// Distances of two input channels (counted over all groups) and of two taps (in memory order). Both are 0 where one threshold
/// serves all.
pub(crate) type ThresholdStrides = [usize; 2];

/// Checked thresholds: none of them is NaN.
#[derive(Clone, Copy)]
pub(crate) struct ThresholdTable<'a> {
    values: &'a [f32],
    strides: ThresholdStrides,
    linear: bool,
}

impl<'a> ThresholdTable<'a> {
    pub(crate) const fn new(values: &'a [f32], strides: ThresholdStrides, linear: bool) -> Self {
        Self { values, strides, linear }
    }

    /// Whether the layer is a plain convolution, whose gradient does not depend on the input.
    pub(crate) const fn is_linear(&self) -> bool {
        self.linear
    }

    /// Whether one threshold serves all channels and taps.
    pub(crate) const fn is_uniform(&self) -> bool {
        let [channel, tap] = self.strides;
        channel == 0 && tap == 0
    }

    pub(crate) const fn strides(&self) -> ThresholdStrides {
        self.strides
    }

    /// Whether `max(0, θ)` is known to be zero for every threshold. The function looks only at a uniform threshold, because
    /// looking at many would take time. For others it returns false.
    pub(crate) fn adds_nothing_to_padding(&self) -> bool {
        self.is_uniform() && self.values.iter().all(|&theta| theta <= 0.0)
    }

    /// θ of an input channel (of all groups) at a tap.
    #[inline]
    pub(crate) fn at(&self, channel: usize, tap: usize) -> f32 {
        let [channel_stride, tap_stride] = self.strides;
        self.values[channel * channel_stride + tap * tap_stride]
    }

    /// The thresholds from an input channel (counted over all groups) on.
    pub(crate) fn from(&self, channel: usize) -> &'a [f32] {
        &self.values[channel * self.strides[0]..]
    }

    /// Those of every `step`-th input channel, from the channel `first` on.
    pub(crate) fn every(&self, step: usize, first: usize) -> Self {
        let [channel, tap] = self.strides;
        Self { values: self.from(first), strides: [channel * step, tap], ..*self }
    }

    /// θ of some channels at one tap, `step` apart.
    pub(crate) fn copy_channels(&self, channels: Range<usize>, tap: usize, to: &mut [f32], step: usize) {
        let [channel_stride, tap_stride] = self.strides;
        let from = &self.values[channels.start * channel_stride + tap * tap_stride..];
        strided::copy(from, channel_stride, to, step, channels.len());
    }

    /// θ of one channel at some taps, one after another.
    pub(crate) fn copy_taps(&self, channel: usize, taps: Range<usize>, to: &mut [f32]) {
        let [channel_stride, tap_stride] = self.strides;
        let from = &self.values[channel * channel_stride + taps.start * tap_stride..];
        strided::copy(from, tap_stride, to, 1, taps.len());
    }
}

/// The gradient of the thresholds, to which sums are added.
pub(crate) struct ThresholdGradient<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) strides: ThresholdStrides,
}

impl ThresholdGradient<'_> {
    /// Adds to the gradient of θ of an input channel (of all groups) at a tap.
    #[inline]
    pub(crate) fn add(&mut self, channel: usize, tap: usize, value: f32) {
        let [channel_stride, tap_stride] = self.strides;
        self.values[channel * channel_stride + tap * tap_stride] += value;
    }

    /// Adds the first elements of `sums` to the gradients of θ of some channels at one tap.
    pub(crate) fn add_channels(&mut self, channels: Range<usize>, tap: usize, sums: &[f32]) {
        let [channel_stride, tap_stride] = self.strides;
        let (sums, to) =
            (&sums[..channels.len()], &mut self.values[channels.start * channel_stride + tap * tap_stride..]);
        if channel_stride == 0 {
            to[0] += sums.iter().sum::<f32>();
        } else {
            strided::add(sums, to, channel_stride);
        }
    }
}
