//! The geometry of a convolution, checked once.
//!
//! Everything behind [`ConvDesc`] works on three spatial axes; a 1D or 2D convolution has leading axes of extent 1.

use crate::arith::equal;
use crate::error::Error;
use crate::layout::{Layout, Strides, TensorLayout};

/// Names of the three spatial axes, in memory order.
pub(crate) const AXES: [&str; 3] = ["depth", "height", "width"];

/// The most elements a buffer may hold: its size in bytes must fit `isize`.
const MAX_LEN: usize = isize::MAX as usize / size_of::<f32>();

/// The largest input extent, padding and dilated kernel. Coordinates run from −padding to the input's extent + padding − 1, plus
/// at most one stride or one dilated kernel. All of it must fit `isize`, so each part is at most a quarter of it.
pub(crate) const MAX_EXTENT: usize = isize::MAX as usize / 4;

/// `?` for `const fn`.
macro_rules! check {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Err(error),
        }
    };
}
pub(crate) use check;

/// A validated convolution: shapes, stride, padding, dilation, groups and [`Layout`].
///
/// [`conv1d`](Self::conv1d), [`conv2d`](Self::conv2d) or [`conv3d`](Self::conv3d) begin one, and
/// [`build`](ConvDescBuilder::build) checks it. All of these are `const fn`.
///
/// ```
/// use convrelu::{ConvDesc, Layout};
///
/// // 8 images of 32×32, 48 → 12 channels, 3×3, "same" padding.
/// const D1: ConvDesc = match ConvDesc::conv2d(8, 48, 12, [32, 32], [3, 3]).padding([1, 1]).build() {
///     Ok(desc) => desc,
///     Err(_) => panic!("a constant descriptor"),
/// };
/// assert_eq!(D1.output_size(), [1, 32, 32]);
/// assert_eq!(D1.weight_len(), 12 * 48 * 9);
/// assert_eq!(D1.threshold_len(), 48 * 9); // one per input channel and tap (eq. 8)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvDesc {
    rank: usize,
    batch: usize,
    in_channels: usize,
    out_channels: usize,
    groups: usize,
    layout: Layout,
    input: [usize; 3],
    output: [usize; 3],
    kernel: [usize; 3],
    stride: [usize; 3],
    dilation: [usize; 3],
    padding_before: [usize; 3],
    padding_after: [usize; 3],
    input_pitch: usize,
    output_pitch: usize,
}

/// Builder of a [`ConvDesc`] with `R` spatial axes.
///
/// Defaults: stride 1, padding 0, dilation 1, groups 1, [`Layout::Nchw`], packed tensors.
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ConvDescBuilder<const R: usize> {
    /// At most `R`. The leading axes of the arrays do not count if it is less.
    rank: usize,
    batch: usize,
    in_channels: usize,
    out_channels: usize,
    groups: usize,
    layout: Layout,
    pub(crate) size: [usize; R],
    pub(crate) kernel: [usize; R],
    pub(crate) stride: [usize; R],
    pub(crate) dilation: [usize; R],
    pub(crate) padding_before: [usize; R],
    pub(crate) padding_after: [usize; R],
    input_pitch: Option<usize>,
    output_pitch: Option<usize>,
}

impl ConvDesc {
    /// A 1D convolution of `batch` signals: `in_channels` → `out_channels`, `size = [width]`, `kernel = [width]`.
    pub const fn conv1d(
        batch: usize,
        in_channels: usize,
        out_channels: usize,
        size: [usize; 1],
        kernel: [usize; 1],
    ) -> ConvDescBuilder<1> {
        ConvDescBuilder::new(batch, in_channels, out_channels, size, kernel)
    }

    /// A 2D convolution of `batch` images; `size` and `kernel` are `[height, width]`.
    pub const fn conv2d(
        batch: usize,
        in_channels: usize,
        out_channels: usize,
        size: [usize; 2],
        kernel: [usize; 2],
    ) -> ConvDescBuilder<2> {
        ConvDescBuilder::new(batch, in_channels, out_channels, size, kernel)
    }

    /// A 3D convolution of `batch` volumes; `size` and `kernel` are `[depth, height, width]`.
    pub const fn conv3d(
        batch: usize,
        in_channels: usize,
        out_channels: usize,
        size: [usize; 3],
        kernel: [usize; 3],
    ) -> ConvDescBuilder<3> {
        ConvDescBuilder::new(batch, in_channels, out_channels, size, kernel)
    }

    /// The same layer with `batch` images.
    ///
    /// # Errors
    ///
    /// [`Error::Overflow`] if the input or the output would not fit the address space.
    pub const fn with_batch(mut self, batch: usize) -> Result<Self, Error> {
        self.batch = batch;
        check!(self.check_lens());
        Ok(self)
    }

    /// The same layer with another output pitch, so that its output is a range of channels of a wider tensor. The pitch must be
    /// at least that of a packed tensor.
    #[cfg(feature = "std")]
    pub(crate) const fn with_output_pitch(mut self, pitch: usize) -> Result<Self, Error> {
        self.output_pitch = pitch;
        check!(self.check_lens());
        Ok(self)
    }

    /// Checks that every tensor fits the address space.
    const fn check_lens(&self) -> Result<(), Error> {
        let kernel = self.kernel;
        check!(self.check_tensor("input", self.in_channels, self.input, self.input_pitch));
        check!(self.check_tensor("output", self.out_channels, self.output, self.output_pitch));
        check!(checked_len("thresholds", &[kernel[0], kernel[1], kernel[2], self.in_channels]));
        check!(checked_len("weight", &[kernel[0], kernel[1], kernel[2], self.group_in_channels(), self.out_channels]));
        // The kernels address staged copies with 32-bit offsets, and each tap takes at least one element of them.
        if self.taps() > 1 << 24 {
            return Err(Error::Overflow { quantity: "kernel" });
        }
        Ok(())
    }

    /// Checks that a tensor fits the address space, its gaps included.
    const fn check_tensor(
        &self,
        quantity: &'static str,
        channels: usize,
        [d, h, w]: [usize; 3],
        pitch: usize,
    ) -> Result<(), Error> {
        check!(checked_len(quantity, &[d, h, w, channels, self.batch]));
        match self.layout {
            Layout::Nchw => check!(checked_len(quantity, &[pitch, self.batch])),
            Layout::Nhwc => check!(checked_len(quantity, &[d, h, w, pitch, self.batch])),
        };
        Ok(())
    }

    /// Number of spatial axes, 1 to 3.
    pub const fn rank(&self) -> usize {
        self.rank
    }

    /// The same layer with fewer images.
    pub(crate) const fn of_images(&self, images: usize) -> Self {
        let mut desc = *self;
        desc.batch = images;
        desc
    }

    /// The layer that has one channel of each group, in the same tensors.
    pub(crate) const fn one_per_group(&self) -> Self {
        let mut desc = *self;
        (desc.in_channels, desc.out_channels) = (desc.groups, desc.groups);
        desc
    }

    /// Images in a batch; 0 is an empty batch.
    pub const fn batch(&self) -> usize {
        self.batch
    }

    /// Input channels of all groups together.
    pub const fn in_channels(&self) -> usize {
        self.in_channels
    }

    /// Output channels of all groups together.
    pub const fn out_channels(&self) -> usize {
        self.out_channels
    }

    /// Number of groups; `in_channels` for a depthwise convolution.
    pub const fn groups(&self) -> usize {
        self.groups
    }

    /// Memory order of the tensors.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Input extents `[depth, height, width]`; axes beyond the rank are 1.
    pub const fn input_size(&self) -> [usize; 3] {
        self.input
    }

    /// Output extents `[depth, height, width]`:
    /// `(input + padding − dilation · (kernel − 1) − 1) / stride + 1`.
    pub const fn output_size(&self) -> [usize; 3] {
        self.output
    }

    /// Kernel extents `[depth, height, width]`.
    pub const fn kernel(&self) -> [usize; 3] {
        self.kernel
    }

    /// Strides `[depth, height, width]`.
    pub const fn stride(&self) -> [usize; 3] {
        self.stride
    }

    /// Dilations `[depth, height, width]`; 1 is dense.
    pub const fn dilation(&self) -> [usize; 3] {
        self.dilation
    }

    /// Zeros before each axis `[depth, height, width]`.
    pub const fn padding_before(&self) -> [usize; 3] {
        self.padding_before
    }

    /// Zeros after each axis `[depth, height, width]`.
    pub const fn padding_after(&self) -> [usize; 3] {
        self.padding_after
    }

    /// Kernel positions: the product of the kernel extents.
    pub const fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.kernel[2]
    }

    /// Elements between the input's pixels (channels last) or images (channels first), counted from first to first:
    /// [`in_channels`](Self::in_channels), or `in_channels · input size`, where nothing lies between them.
    pub const fn input_pitch(&self) -> usize {
        self.input_pitch
    }

    /// Elements between the output's pixels (channels last) or images (channels first), counted from first to first.
    pub const fn output_pitch(&self) -> usize {
        self.output_pitch
    }

    /// Elements of the input, `batch · in_channels · input size`; with a [pitch](ConvDescBuilder::input_pitch), those from its
    /// first to its last, gaps included.
    pub const fn input_len(&self) -> usize {
        self.input_tensor().len()
    }

    /// Elements of the output, `batch · out_channels · output size`; with a [pitch](ConvDescBuilder::output_pitch), those from
    /// its first to its last, gaps included.
    pub const fn output_len(&self) -> usize {
        self.output_tensor().len()
    }

    /// Elements of the weight, `out_channels · in_channels / groups · taps`.
    pub const fn weight_len(&self) -> usize {
        self.out_channels * self.group_in_channels() * self.taps()
    }

    /// Elements of the thresholds, `in_channels · taps` (eq. 8).
    pub const fn threshold_len(&self) -> usize {
        self.in_channels * self.taps()
    }

    /// Elements of the bias, `out_channels`.
    pub const fn bias_len(&self) -> usize {
        self.out_channels
    }

    /// Multiply-adds of one pass. Saturates.
    pub(crate) const fn multiply_adds(&self) -> usize {
        let outputs = (self.batch * self.out_channels).saturating_mul(volume(self.output));
        outputs.saturating_mul(self.group_in_channels() * self.taps())
    }

    /// Floating-point operations of one pass, `2 · output elements · in_channels / groups · taps`
    /// (padded taps counted), as an `f64` because large layers exceed 2³².
    pub const fn flops(&self) -> f64 {
        let outputs = self.batch * self.out_channels * volume(self.output);
        2.0 * outputs as f64 * (self.group_in_channels() * self.taps()) as f64
    }

    pub(crate) const fn group_in_channels(&self) -> usize {
        self.in_channels / self.groups
    }

    pub(crate) const fn group_out_channels(&self) -> usize {
        self.out_channels / self.groups
    }

    /// How the input lies in memory, and its gradient.
    pub(crate) const fn input_tensor(&self) -> TensorLayout {
        TensorLayout::new(self.tensor_layout(), self.batch, self.in_channels, self.input, self.input_pitch)
    }

    /// How the output lies in memory, and its gradient.
    pub(crate) const fn output_tensor(&self) -> TensorLayout {
        TensorLayout::new(self.tensor_layout(), self.batch, self.out_channels, self.output, self.output_pitch)
    }

    /// The layout of the tensors as the passes see them. Where each image has a single position, both layouts are the same
    /// memory. The passes then treat it as channels last, which is faster. Weights and thresholds keep the layout of the
    /// descriptor.
    pub(crate) const fn tensor_layout(&self) -> Layout {
        let single = equal(self.input, [1; 3]) && equal(self.output, [1; 3]);
        // The algorithms for one channel per group look at the descriptor's own layout.
        if single && self.groups == 1 && self.in_channels > 1 { Layout::Nhwc } else { self.layout }
    }

    /// Strides of the thresholds over (input channel, kernel position).
    pub(crate) const fn threshold_strides(&self) -> Strides {
        self.layout.strides(self.in_channels, self.kernel)
    }

    /// Strides of one output channel's weight over (channel of the group, kernel position).
    pub(crate) const fn weight_strides(&self) -> Strides {
        self.layout.strides(self.group_in_channels(), self.kernel)
    }

    /// Whether the forward pass may read the planes of the input in place: no padding, stride 1, channels first.
    pub(crate) const fn reads_whole_planes(&self) -> bool {
        matches!(self.layout, Layout::Nchw)
            && equal(self.stride, [1; 3])
            && !self.has_padding()
            && self.input_tensor().image_len() <= u32::MAX as usize
    }

    pub(crate) const fn has_padding(&self) -> bool {
        !(equal(self.padding_before, [0; 3]) && equal(self.padding_after, [0; 3]))
    }

    /// Whether each output position reads exactly the input position with the same number.
    pub(crate) const fn is_pointwise(&self) -> bool {
        self.taps() == 1 && equal(self.stride, [1; 3]) && !self.has_padding() && equal(self.input, self.output)
    }

    /// Kernel position of a tap, counted in memory order.
    pub(crate) const fn kernel_position(&self, tap: usize) -> [usize; 3] {
        let [_, height, width] = self.kernel;
        [tap / (height * width), tap / width % height, tap % width]
    }

    /// Whether two layers differ at most in batch, image size and pitch. Every call asks this, so it makes no copy of either.
    pub(crate) const fn is_layer_of(&self, other: &Self) -> bool {
        self.rank == other.rank
            && self.in_channels == other.in_channels
            && self.out_channels == other.out_channels
            && self.groups == other.groups
            && self.layout as u8 == other.layout as u8
            && equal(self.kernel, other.kernel)
            && equal(self.stride, other.stride)
            && equal(self.dilation, other.dilation)
            && equal(self.padding_before, other.padding_before)
            && equal(self.padding_after, other.padding_after)
    }

    /// The layer without batch, image size and pitch. Packed weights depend on these fields only.
    pub(crate) const fn layer(&self) -> Self {
        let mut layer = *self;
        layer.batch = 0;
        layer.input = [1; 3];
        layer.output = [1; 3];
        layer.input_pitch = 0;
        layer.output_pitch = 0;
        layer
    }
}

/// Product of three extents that [`ConvDescBuilder::build`] has checked.
pub(crate) const fn volume(size: [usize; 3]) -> usize {
    size[0] * size[1] * size[2]
}

/// `Ok(a · b · c · …)` or the overflow of `quantity`.
const fn checked_len(quantity: &'static str, factors: &[usize]) -> Result<usize, Error> {
    let mut product = 1usize;
    let mut overflow = false;
    let mut i = 0;
    while i < factors.len() {
        match product.checked_mul(factors[i]) {
            Some(next) if next <= MAX_LEN => product = next,
            // A later factor may be zero (an empty batch). A single image must fit the address space even then.
            _ => overflow = true,
        }
        i += 1;
    }
    if overflow { Err(Error::Overflow { quantity }) } else { Ok(product) }
}

impl<const R: usize> ConvDescBuilder<R> {
    pub(crate) const fn new(
        batch: usize,
        in_channels: usize,
        out_channels: usize,
        size: [usize; R],
        kernel: [usize; R],
    ) -> Self {
        Self {
            rank: R,
            batch,
            in_channels,
            out_channels,
            groups: 1,
            layout: Layout::Nchw,
            size,
            kernel,
            stride: [1; R],
            dilation: [1; R],
            padding_before: [0; R],
            padding_after: [0; R],
            input_pitch: None,
            output_pitch: None,
        }
    }

    /// The builder with the channels and pitches of input and output exchanged.
    pub(crate) const fn mirrored(self) -> Self {
        Self {
            in_channels: self.out_channels,
            out_channels: self.in_channels,
            input_pitch: self.output_pitch,
            output_pitch: self.input_pitch,
            ..self
        }
    }

    /// The builder of a layer of fewer axes, which are the last ones here.
    #[cfg(feature = "capi-plain")]
    pub(crate) const fn of_rank(mut self, rank: usize) -> Self {
        self.rank = rank;
        self
    }

    /// Steps between output positions, per axis.
    pub const fn stride(mut self, stride: [usize; R]) -> Self {
        self.stride = stride;
        self
    }

    /// Zeros before and after each axis, the same on both sides.
    pub const fn padding(self, padding: [usize; R]) -> Self {
        self.padding_before_after(padding, padding)
    }

    /// Zeros before and after each axis, which may differ.
    pub const fn padding_before_after(mut self, before: [usize; R], after: [usize; R]) -> Self {
        self.padding_before = before;
        self.padding_after = after;
        self
    }

    /// Distance between kernel taps, per axis; 1 is dense.
    pub const fn dilation(mut self, dilation: [usize; R]) -> Self {
        self.dilation = dilation;
        self
    }

    /// Number of groups. The output channels of a group read the input channels of the same group only.
    pub const fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Memory order of all tensors of the layer.
    pub const fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Makes the input (and its gradient) a range of channels of a wider tensor: `pitch` elements lie between the first
    /// channels of neighbouring pixels with channels last, of neighbouring images with channels first. The slice that a call
    /// takes begins at the first channel of the range. What lies between is neither read nor written.
    ///
    /// ```
    /// use convrelu::{ConvDesc, Layout};
    ///
    /// // Channels 16 to 28 of a tensor of 240 channels: 28×28 pixels, channels last.
    /// let desc = ConvDesc::conv2d(1, 12, 32, [28, 28], [3, 3]).layout(Layout::Nhwc).input_pitch(240).build()?;
    /// let wide = vec![0.0; 28 * 28 * 240];
    /// assert!(wide[16..].len() >= desc.input_len());
    /// # Ok::<(), convrelu::Error>(())
    /// ```
    pub const fn input_pitch(mut self, pitch: usize) -> Self {
        self.input_pitch = Some(pitch);
        self
    }

    /// Makes the output (and its gradient) a range of channels of a wider tensor; see [`input_pitch`](Self::input_pitch).
    pub const fn output_pitch(mut self, pitch: usize) -> Self {
        self.output_pitch = Some(pitch);
        self
    }

    /// Checks all numbers and makes the descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroChannels`], [`Error::ZeroGroups`], [`Error::ChannelsNotDivisible`], [`Error::ZeroSize`],
    /// [`Error::ZeroKernel`], [`Error::ZeroStride`], [`Error::ZeroDilation`], [`Error::KernelTooLarge`],
    /// [`Error::PitchTooSmall`]. [`Error::Overflow`] if a tensor, the padded input or the dilated kernel would not fit the
    /// address space, or if the kernel has more than 2²⁴ taps.
    pub const fn build(self) -> Result<ConvDesc, Error> {
        self.build_of(None)
    }

    /// As [`build`](Self::build), but with a given output size. It may be smaller than the padded input allows. No output then
    /// reads the end of the input.
    ///
    /// # Panics
    ///
    /// If the given output is larger than the padded input allows.
    pub(crate) const fn build_with_output(self, size: [usize; R]) -> Result<ConvDesc, Error> {
        self.build_of(Some(size))
    }

    const fn build_of(self, output: Option<[usize; R]>) -> Result<ConvDesc, Error> {
        if self.in_channels == 0 {
            return Err(Error::ZeroChannels { argument: "in_channels" });
        }
        if self.out_channels == 0 {
            return Err(Error::ZeroChannels { argument: "out_channels" });
        }
        let groups = self.groups;
        if groups == 0 {
            return Err(Error::ZeroGroups);
        }
        if !self.in_channels.is_multiple_of(groups) {
            return Err(Error::ChannelsNotDivisible { argument: "in_channels", channels: self.in_channels, groups });
        }
        if !self.out_channels.is_multiple_of(groups) {
            return Err(Error::ChannelsNotDivisible { argument: "out_channels", channels: self.out_channels, groups });
        }
        let mut desc = ConvDesc {
            rank: self.rank,
            batch: self.batch,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            groups,
            layout: self.layout,
            input: [1; 3],
            output: [1; 3],
            kernel: [1; 3],
            stride: [1; 3],
            dilation: [1; 3],
            padding_before: [0; 3],
            padding_after: [0; 3],
            input_pitch: 0,
            output_pitch: 0,
        };
        let mut i = R - self.rank;
        while i < R {
            let axis = 3 - R + i;
            let (size, kernel, stride, dilation) = (self.size[i], self.kernel[i], self.stride[i], self.dilation[i]);
            let (before, after) = (self.padding_before[i], self.padding_after[i]);
            let most = check!(output_extent(AXES[axis], size, kernel, stride, dilation, before, after));
            desc.output[axis] = match output {
                Some(output) => {
                    assert!(output[i] <= most, "an output beyond the padded input");
                    output[i]
                }
                None => most,
            };
            desc.input[axis] = size;
            desc.kernel[axis] = kernel;
            desc.stride[axis] = stride;
            desc.dilation[axis] = dilation;
            desc.padding_before[axis] = before;
            desc.padding_after[axis] = after;
            i += 1;
        }
        desc.input_pitch =
            check!(pitch("input_pitch", self.layout, self.in_channels, desc.input, self.input_pitch, "input"));
        desc.output_pitch =
            check!(pitch("output_pitch", self.layout, self.out_channels, desc.output, self.output_pitch, "output"));
        check!(desc.check_lens());
        Ok(desc)
    }
}

/// The pitch of a tensor: the requested one, or that of a packed tensor.
const fn pitch(
    argument: &'static str,
    layout: Layout,
    channels: usize,
    [d, h, w]: [usize; 3],
    asked: Option<usize>,
    quantity: &'static str,
) -> Result<usize, Error> {
    let packed = match layout {
        Layout::Nchw => check!(checked_len(quantity, &[d, h, w, channels])),
        Layout::Nhwc => channels,
    };
    match asked {
        Some(pitch) if pitch < packed => Err(Error::PitchTooSmall { argument, pitch, packed }),
        Some(pitch) => Ok(pitch),
        None => Ok(packed),
    }
}

/// Output positions along one axis.
const fn output_extent(
    axis: &'static str,
    size: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    after: usize,
) -> Result<usize, Error> {
    check!(check_axis(axis, size, kernel, stride, dilation));
    if size > MAX_EXTENT || before > MAX_EXTENT || after > MAX_EXTENT {
        return Err(Error::Overflow { quantity: "padded input" });
    }
    let padded = size + before + after;
    let extent = check!(dilated_extent(kernel, dilation));
    if extent > padded {
        return Err(Error::KernelTooLarge { axis, kernel: extent, padded });
    }
    Ok((padded - extent) / stride + 1)
}

/// Checks that size, kernel, stride and dilation of an axis are not zero.
pub(crate) const fn check_axis(
    axis: &'static str,
    size: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
) -> Result<(), Error> {
    if size == 0 {
        return Err(Error::ZeroSize { axis });
    }
    if kernel == 0 {
        return Err(Error::ZeroKernel { axis });
    }
    if stride == 0 {
        return Err(Error::ZeroStride { axis });
    }
    if dilation == 0 {
        return Err(Error::ZeroDilation { axis });
    }
    Ok(())
}

/// The distance from a kernel's first tap to its last, both included.
pub(crate) const fn dilated_extent(kernel: usize, dilation: usize) -> Result<usize, Error> {
    match dilation.checked_mul(kernel - 1) {
        Some(reach) if reach < MAX_EXTENT => Ok(reach + 1),
        _ => Err(Error::Overflow { quantity: "dilated kernel" }),
    }
}
