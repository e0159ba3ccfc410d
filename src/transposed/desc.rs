//! The geometry of a transposed convolution, checked once: that of the mirrored convolution, with input and output swapped.

use crate::arith::max;
use crate::desc::{AXES, ConvDesc, ConvDescBuilder, MAX_EXTENT, check, check_axis, dilated_extent};
use crate::error::Error;
use crate::layout::Layout;

/// A validated transposed convolution: shapes, stride, padding, output padding, dilation, groups and [`Layout`].
///
/// Made by [`conv1d`](Self::conv1d), [`conv2d`](Self::conv2d) or [`conv3d`](Self::conv3d) and
/// [`build`](ConvTransposeDescBuilder::build); all of it is `const`.
///
/// ```
/// use convrelu::transposed::ConvTransposeDesc;
///
/// // 8 images of 16×16, 64 → 32 channels, twice as high and as wide.
/// const UP: ConvTransposeDesc =
///     match ConvTransposeDesc::conv2d(8, 64, 32, [16, 16], [4, 4]).stride([2, 2]).padding([1, 1]).build() {
///         Ok(desc) => desc,
///         Err(_) => panic!("a constant descriptor"),
///     };
/// assert_eq!(UP.output_size(), [1, 32, 32]);
/// assert_eq!(UP.weight_len(), 64 * 32 * 16);
/// assert_eq!(UP.bias_len(), 32);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvTransposeDesc {
    /// The convolution whose input has the shape of this one's output, and whose output has the shape of this one's input.
    mirrored: ConvDesc,
}

/// Builder of a [`ConvTransposeDesc`] with `R` spatial axes.
///
/// Defaults: stride 1, padding 0, output padding 0, dilation 1, groups 1, [`Layout::Nchw`], packed tensors.
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ConvTransposeDescBuilder<const R: usize> {
    /// The mirrored convolution, except that `size` holds the extents of its output.
    mirrored: ConvDescBuilder<R>,
    output_padding: [usize; R],
}

impl ConvTransposeDesc {
    /// A 1D transposed convolution of `batch` signals: `in_channels` → `out_channels`, `size = [width]` of the input,
    /// `kernel = [width]`.
    pub const fn conv1d(
        batch: usize,
        in_channels: usize,
        out_channels: usize,
        size: [usize; 1],
        kernel: [usize; 1],
    ) -> ConvTransposeDescBuilder<1> {
        ConvTransposeDescBuilder::new(batch, in_channels, out_channels, size, kernel)
    }

    /// A 2D transposed convolution of `batch` images; `size`, of the input, and `kernel` are `[height, width]`.
    pub const fn conv2d(
        batch: usize,
        in_channels: usize,
        out_channels: usize,
        size: [usize; 2],
        kernel: [usize; 2],
    ) -> ConvTransposeDescBuilder<2> {
        ConvTransposeDescBuilder::new(batch, in_channels, out_channels, size, kernel)
    }

    /// A 3D transposed convolution of `batch` volumes; `size`, of the input, and `kernel` are `[depth, height, width]`.
    pub const fn conv3d(
        batch: usize,
        in_channels: usize,
        out_channels: usize,
        size: [usize; 3],
        kernel: [usize; 3],
    ) -> ConvTransposeDescBuilder<3> {
        ConvTransposeDescBuilder::new(batch, in_channels, out_channels, size, kernel)
    }

    /// The same layer with `batch` images.
    ///
    /// # Errors
    ///
    /// [`Error::Overflow`] if the input or the output would not fit the address space.
    pub const fn with_batch(self, batch: usize) -> Result<Self, Error> {
        Self::of(self.mirrored.with_batch(batch))
    }

    /// The descriptor whose mirrored convolution is given. An error of that convolution is renamed.
    const fn of(mirrored: Result<ConvDesc, Error>) -> Result<Self, Error> {
        match mirrored {
            Ok(mirrored) => Ok(Self { mirrored }),
            Err(error) => Err(renamed(error)),
        }
    }

    /// The descriptor that mirrors a convolution.
    pub(crate) const fn mirroring(mirrored: &ConvDesc) -> Self {
        Self { mirrored: *mirrored }
    }

    /// The convolution that this one mirrors.
    pub(crate) const fn mirrored(&self) -> ConvDesc {
        self.mirrored
    }

    /// Number of spatial axes, 1 to 3.
    pub const fn rank(&self) -> usize {
        self.mirrored.rank()
    }

    /// Images in a batch; 0 is an empty batch.
    pub const fn batch(&self) -> usize {
        self.mirrored.batch()
    }

    /// Input channels of all groups together.
    pub const fn in_channels(&self) -> usize {
        self.mirrored.out_channels()
    }

    /// Output channels of all groups together.
    pub const fn out_channels(&self) -> usize {
        self.mirrored.in_channels()
    }

    /// Number of groups; `in_channels` for a depthwise layer.
    pub const fn groups(&self) -> usize {
        self.mirrored.groups()
    }

    /// Memory order of the tensors.
    pub const fn layout(&self) -> Layout {
        self.mirrored.layout()
    }

    /// Input extents `[depth, height, width]`; axes beyond the rank are 1.
    pub const fn input_size(&self) -> [usize; 3] {
        self.mirrored.output_size()
    }

    /// Output extents `[depth, height, width]`:
    /// `(input − 1) · stride − padding before − padding after + dilation · (kernel − 1) + output_padding + 1`.
    pub const fn output_size(&self) -> [usize; 3] {
        self.mirrored.input_size()
    }

    /// Kernel extents `[depth, height, width]`.
    pub const fn kernel(&self) -> [usize; 3] {
        self.mirrored.kernel()
    }

    /// Strides `[depth, height, width]`.
    pub const fn stride(&self) -> [usize; 3] {
        self.mirrored.stride()
    }

    /// Dilations `[depth, height, width]`; 1 is dense.
    pub const fn dilation(&self) -> [usize; 3] {
        self.mirrored.dilation()
    }

    /// Outputs that are cut off before each axis `[depth, height, width]`.
    pub const fn padding_before(&self) -> [usize; 3] {
        self.mirrored.padding_before()
    }

    /// Outputs that are cut off after each axis `[depth, height, width]`.
    pub const fn padding_after(&self) -> [usize; 3] {
        self.mirrored.padding_after()
    }

    /// Outputs that are appended to each axis `[depth, height, width]`.
    pub const fn output_padding(&self) -> [usize; 3] {
        let (mut appended, mut axis) = (self.output_size(), 0);
        while axis < 3 {
            let scattered = (self.input_size()[axis] - 1) * self.stride()[axis];
            let extent = self.dilation()[axis] * (self.kernel()[axis] - 1) + 1;
            appended[axis] += self.padding_before()[axis] + self.padding_after()[axis];
            appended[axis] -= scattered + extent;
            axis += 1;
        }
        appended
    }

    /// Kernel positions: the product of the kernel extents.
    pub const fn taps(&self) -> usize {
        self.mirrored.taps()
    }

    /// Elements between the input's pixels (channels last) or images (channels first), counted from first to first:
    /// [`in_channels`](Self::in_channels), or `in_channels · input size`, where nothing lies between them.
    pub const fn input_pitch(&self) -> usize {
        self.mirrored.output_pitch()
    }

    /// Elements between the output's pixels (channels last) or images (channels first), counted from first to first.
    pub const fn output_pitch(&self) -> usize {
        self.mirrored.input_pitch()
    }

    /// Elements of the input, `batch · in_channels · input size`; with a [pitch](ConvTransposeDescBuilder::input_pitch), those
    /// from its first to its last, gaps included.
    pub const fn input_len(&self) -> usize {
        self.mirrored.output_len()
    }

    /// Elements of the output, `batch · out_channels · output size`; with a [pitch](ConvTransposeDescBuilder::output_pitch),
    /// those from its first to its last, gaps included.
    pub const fn output_len(&self) -> usize {
        self.mirrored.input_len()
    }

    /// Elements of the weight, `in_channels · out_channels / groups · taps`.
    pub const fn weight_len(&self) -> usize {
        self.mirrored.weight_len()
    }

    /// Elements of the bias, `out_channels`.
    pub const fn bias_len(&self) -> usize {
        self.out_channels()
    }

    /// Floating-point operations of one pass, `2 · input elements · out_channels / groups · taps`. Those that padding cuts off
    /// count as well. An `f64`, because large layers exceed 2³².
    pub const fn flops(&self) -> f64 {
        self.mirrored.flops()
    }
}

impl<const R: usize> ConvTransposeDescBuilder<R> {
    const fn new(batch: usize, in_channels: usize, out_channels: usize, size: [usize; R], kernel: [usize; R]) -> Self {
        Self::of_layer(ConvDescBuilder::new(batch, in_channels, out_channels, size, kernel))
    }

    /// The builder of a layer whose numbers a builder of plain convolutions holds.
    pub(crate) const fn of_layer(layer: ConvDescBuilder<R>) -> Self {
        Self { mirrored: layer.mirrored(), output_padding: [0; R] }
    }

    /// Steps between the outputs of neighbouring input positions, per axis.
    pub const fn stride(self, stride: [usize; R]) -> Self {
        Self { mirrored: self.mirrored.stride(stride), ..self }
    }

    /// Outputs that are cut off before and after each axis, the same on both sides.
    pub const fn padding(self, padding: [usize; R]) -> Self {
        self.padding_before_after(padding, padding)
    }

    /// Outputs that are cut off before and after each axis, which may differ.
    pub const fn padding_before_after(self, before: [usize; R], after: [usize; R]) -> Self {
        Self { mirrored: self.mirrored.padding_before_after(before, after), ..self }
    }

    /// Outputs that are appended to each axis: less than the larger of stride and dilation. (With a stride, several output sizes
    /// belong to one input size; this chooses among them.) Outputs that no tap reaches hold the bias.
    pub const fn output_padding(self, output_padding: [usize; R]) -> Self {
        Self { output_padding, ..self }
    }

    /// Distance between kernel taps, per axis; 1 is dense.
    pub const fn dilation(self, dilation: [usize; R]) -> Self {
        Self { mirrored: self.mirrored.dilation(dilation), ..self }
    }

    /// Number of groups. The output channels of a group read the input channels of the same group only.
    pub const fn groups(self, groups: usize) -> Self {
        Self { mirrored: self.mirrored.groups(groups), ..self }
    }

    /// Memory order of all tensors of the layer.
    pub const fn layout(self, layout: Layout) -> Self {
        Self { mirrored: self.mirrored.layout(layout), ..self }
    }

    /// Makes the input (and its gradient) a range of channels of a wider tensor: `pitch` elements lie between the first
    /// channels of neighbouring pixels with channels last, of neighbouring images with channels first. The slice that a call
    /// takes begins at the first channel of the range. What lies between is neither read nor written.
    pub const fn input_pitch(self, pitch: usize) -> Self {
        Self { mirrored: self.mirrored.output_pitch(pitch), ..self }
    }

    /// Makes the output (and its gradient) a range of channels of a wider tensor; see [`input_pitch`](Self::input_pitch).
    pub const fn output_pitch(self, pitch: usize) -> Self {
        Self { mirrored: self.mirrored.input_pitch(pitch), ..self }
    }

    /// Checks all numbers and makes the descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroChannels`], [`Error::ZeroGroups`], [`Error::ChannelsNotDivisible`], [`Error::ZeroSize`],
    /// [`Error::ZeroKernel`], [`Error::ZeroStride`], [`Error::ZeroDilation`], [`Error::OutputPaddingTooLarge`],
    /// [`Error::PaddingTooLarge`] if no output is left, [`Error::PitchTooSmall`]. [`Error::Overflow`] if a tensor, the output
    /// before padding is cut off or the dilated kernel would not fit the address space, or if the kernel has more than 2²⁴ taps.
    pub const fn build(self) -> Result<ConvTransposeDesc, Error> {
        let (mut mirrored, mut axis) = (self.mirrored, 0);
        while axis < R {
            mirrored.size[axis] = check!(output_extent(&self.mirrored, axis, self.output_padding[axis]));
            axis += 1;
        }
        // If the output padding is a stride or more, the mirrored convolution has room for more positions than the input has. So
        // its output size is given.
        ConvTransposeDesc::of(mirrored.build_with_output(self.mirrored.size))
    }
}

/// Output positions along one axis; `size` is the extent of the input.
const fn output_extent<const R: usize>(
    layer: &ConvDescBuilder<R>,
    axis: usize,
    output_padding: usize,
) -> Result<usize, Error> {
    let (size, kernel, stride, dilation) =
        (layer.size[axis], layer.kernel[axis], layer.stride[axis], layer.dilation[axis]);
    let padding = layer.padding_before[axis].saturating_add(layer.padding_after[axis]);
    let axis = AXES[3 - R + axis];
    check!(check_axis(axis, size, kernel, stride, dilation));
    let step = max(stride, dilation);
    if output_padding >= step {
        return Err(Error::OutputPaddingTooLarge { axis, output_padding, step });
    }
    let extent = check!(dilated_extent(kernel, dilation));
    let unpadded = match (size - 1).checked_mul(stride) {
        // None of the three exceeds the limit, a quarter of `isize::MAX`, so their sum fits.
        Some(scattered) if scattered <= MAX_EXTENT && output_padding <= MAX_EXTENT => {
            scattered + extent + output_padding
        }
        _ => return Err(Error::Overflow { quantity: "output" }),
    };
    if padding >= unpadded {
        return Err(Error::PaddingTooLarge { axis, padding, unpadded });
    }
    if unpadded > MAX_EXTENT {
        return Err(Error::Overflow { quantity: "output" });
    }
    Ok(unpadded - padding)
}

/// An error of the mirrored convolution, with the arguments that the caller of the transposed one has given.
const fn renamed(error: Error) -> Error {
    match error {
        Error::ZeroChannels { argument } => Error::ZeroChannels { argument: renamed_argument(argument) },
        Error::ChannelsNotDivisible { argument, channels, groups } => {
            Error::ChannelsNotDivisible { argument: renamed_argument(argument), channels, groups }
        }
        Error::PitchTooSmall { argument, pitch, packed } => {
            Error::PitchTooSmall { argument: renamed_argument(argument), pitch, packed }
        }
        Error::Overflow { quantity } => Error::Overflow { quantity: renamed_argument(quantity) },
        other => other,
    }
}

/// The caller's name of an argument of the mirrored convolution.
const fn renamed_argument(argument: &'static str) -> &'static str {
    match argument.as_bytes() {
        b"in_channels" => "out_channels",
        b"out_channels" => "in_channels",
        b"input_pitch" => "output_pitch",
        b"output_pitch" => "input_pitch",
        b"input" => "output",
        b"output" => "input",
        // The mirrored convolution has no more thresholds than weights, so the caller's weight is too large as well.
        b"thresholds" => "weight",
        _ => argument,
    }
}
