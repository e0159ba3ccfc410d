//! One variant for each mistake a caller can make, with the values that show it.

use core::fmt;

use crate::isa::Isa;

/// Why a descriptor, a plan or a call was refused.
///
/// The [`Display`](fmt::Display) form is one line that names the argument, its value and the rule it breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The number of input or output channels is zero.
    ZeroChannels {
        /// `"in_channels"` or `"out_channels"`.
        argument: &'static str,
    },
    /// The number of groups is zero.
    ZeroGroups,
    /// A spatial extent of the input is zero.
    ZeroSize {
        /// `"depth"`, `"height"` or `"width"`.
        axis: &'static str,
    },
    /// A kernel extent is zero.
    ZeroKernel {
        /// `"depth"`, `"height"` or `"width"`.
        axis: &'static str,
    },
    /// A stride is zero.
    ZeroStride {
        /// `"depth"`, `"height"` or `"width"`.
        axis: &'static str,
    },
    /// A dilation is zero (1 is the dense kernel).
    ZeroDilation {
        /// `"depth"`, `"height"` or `"width"`.
        axis: &'static str,
    },
    /// The dilated kernel does not fit into the padded input, so there is no output position.
    KernelTooLarge {
        /// `"depth"`, `"height"` or `"width"`.
        axis: &'static str,
        /// `dilation · (kernel − 1) + 1`.
        kernel: usize,
        /// Input extent plus padding before and after.
        padded: usize,
    },
    /// The padding of a transposed convolution cuts off all of its output.
    PaddingTooLarge {
        /// `"depth"`, `"height"` or `"width"`.
        axis: &'static str,
        /// Padding before and after.
        padding: usize,
        /// The output's extent without padding.
        unpadded: usize,
    },
    /// The output padding of a transposed convolution is not less than the larger of stride and dilation.
    OutputPaddingTooLarge {
        /// `"depth"`, `"height"` or `"width"`.
        axis: &'static str,
        /// The output padding.
        output_padding: usize,
        /// The larger of stride and dilation.
        step: usize,
    },
    /// A number of channels is not a multiple of the number of groups.
    ChannelsNotDivisible {
        /// `"in_channels"` or `"out_channels"`.
        argument: &'static str,
        /// The number of channels.
        channels: usize,
        /// The number of groups.
        groups: usize,
    },
    /// A size that follows from the descriptor does not fit the address space.
    Overflow {
        /// The quantity that overflows.
        quantity: &'static str,
    },
    /// A pitch is smaller than the pixel or the image that it must step over.
    PitchTooSmall {
        /// `"input_pitch"` or `"output_pitch"`.
        argument: &'static str,
        /// The pitch.
        pitch: usize,
        /// The least: the channels of a pixel (channels last), or the elements of an image (channels first).
        packed: usize,
    },
    /// The backward pass of the input was called without an input. Only a linear layer
    /// ([`Thresholds::LINEAR`](crate::Thresholds::LINEAR)) needs none.
    MissingInput,
    /// An [`Executor`](crate::Executor) did not run each of its tasks exactly once. The results of the call are undefined.
    Executor {
        /// The number of tasks.
        tasks: usize,
        /// A task that never ran, or that ran more than once, or a number that no task has.
        task: usize,
        /// Whether the task never ran.
        never: bool,
    },
    /// A buffer holds fewer `f32` than the call reads or writes.
    BufferTooShort {
        /// The argument.
        argument: &'static str,
        /// Its length in elements.
        len: usize,
        /// The length the call needs.
        required: usize,
    },
    /// A threshold is NaN. `x > NaN` is never true, so the layer has no meaning.
    NanThreshold {
        /// Position in the threshold buffer (0 for a uniform threshold).
        index: usize,
    },
    /// A bound of an [`Epilogue`](crate::Epilogue) is NaN.
    NanBound {
        /// `"low"` or `"high"`.
        argument: &'static str,
    },
    /// The lower bound of an [`Epilogue`](crate::Epilogue) is above the upper bound.
    BoundsCrossed {
        /// The least output.
        low: f32,
        /// The greatest output.
        high: f32,
    },
    /// The instruction set is not available on this CPU, under this operating system, or in this build.
    IsaUnavailable {
        /// The instruction set asked for.
        isa: Isa,
    },
    /// A plan of another layer, another pass or another instruction set packed the weight.
    PackedElsewhere {
        /// The instruction set of the plan that packed the weight.
        packed: Isa,
        /// The instruction set of the plan that received the weight.
        plan: Isa,
    },
    /// The thresholds of AdaReLU cover `thresholds · inner` elements. The number of elements is not a multiple of that product,
    /// or the product is zero.
    ThresholdShape {
        /// Number of elements of the tensor.
        elements: usize,
        /// Number of thresholds.
        thresholds: usize,
        /// The number of consecutive elements that share one threshold: the spatial size with channels first, 1 with channels
        /// last.
        inner: usize,
    },
}

// The only floats are the bounds of `BoundsCrossed`. They are never NaN, because NaN bounds have an error of their own.
impl Eq for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZeroChannels { argument } => write!(f, "{argument} is 0: it must be at least 1"),
            Self::ZeroGroups => f.write_str("groups is 0: it must be at least 1"),
            Self::ZeroSize { axis } => write!(f, "input {axis} is 0: it must be at least 1"),
            Self::ZeroKernel { axis } => write!(f, "kernel {axis} is 0: it must be at least 1"),
            Self::ZeroStride { axis } => write!(f, "stride of {axis} is 0: it must be at least 1"),
            Self::ZeroDilation { axis } => write!(f, "dilation of {axis} is 0: it must be at least 1 (1 is dense)"),
            Self::KernelTooLarge { axis, kernel, padded } => {
                write!(f, "dilated kernel {axis} is {kernel}: it must not exceed the padded input {axis}, {padded}")
            }
            Self::PaddingTooLarge { axis, padding, unpadded } => {
                write!(
                    f,
                    "padding of {axis} is {padding}, before and after: \
                     it must be less than the unpadded output {axis}, {unpadded}"
                )
            }
            Self::OutputPaddingTooLarge { axis, output_padding, step } => {
                write!(
                    f,
                    "output_padding of {axis} is {output_padding}: \
                     it must be less than {step}, the larger of stride and dilation"
                )
            }
            Self::ChannelsNotDivisible { argument, channels, groups } => {
                write!(f, "{argument} is {channels}: it must be a multiple of groups, {groups}")
            }
            Self::Overflow { quantity } => {
                write!(f, "{quantity} overflows: its size in bytes must fit isize")
            }
            Self::PitchTooSmall { argument, pitch, packed } => {
                write!(f, "{argument} is {pitch}: it must be at least {packed}, what lies packed")
            }
            Self::MissingInput => {
                f.write_str("input is missing: it must be given unless thresholds are uniformly −∞ (linear)")
            }
            Self::Executor { tasks, task, never } => {
                let done = if never { "never ran" } else { "ran more than once" };
                write!(
                    f,
                    "executor {done} task {task}: it must run each of tasks 0 to {} once",
                    tasks.saturating_sub(1)
                )
            }
            Self::BufferTooShort { argument, len, required } => {
                write!(f, "{argument} holds {len} elements: it must hold at least {required}")
            }
            Self::NanThreshold { index } => write!(f, "thresholds[{index}] is NaN: a threshold must be ordered"),
            Self::NanBound { argument } => write!(f, "{argument} is NaN: a bound must be ordered"),
            Self::BoundsCrossed { low, high } => write!(f, "low is {low}: it must not exceed high, {high}"),
            Self::IsaUnavailable { isa } => write!(f, "isa is {isa}: this CPU, system or build does not offer it"),
            Self::PackedElsewhere { packed, plan } => {
                write!(f, "packed weight ({packed}) belongs to another plan: it must be packed by this one ({plan})")
            }
            Self::ThresholdShape { elements, thresholds, inner } => write!(
                f,
                "thresholds holds {thresholds} values for {elements} elements in runs of {inner}: \
                 thresholds · inner must be at least 1 and divide the number of elements"
            ),
        }
    }
}

impl core::error::Error for Error {}
