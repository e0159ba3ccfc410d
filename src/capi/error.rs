//! Statuses, and the sentence behind them.

use core::ffi::c_char;
use core::fmt::{self, Write};

use super::check::{bytes_mut, pointer, read_struct, write};
use super::types::{CONVRELU_THRESHOLDS_UNSET, isa_of, number_of};
use crate::error::Error;
use crate::isa::Isa;

/// What a function returns: 0 for success.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum convrelu_status {
    /// Done.
    CONVRELU_OK = 0,
    /// A pointer that must not be null is null.
    CONVRELU_NULL = 1,
    /// A pointer is not aligned to its type.
    CONVRELU_MISALIGNED = 2,
    /// The size of a struct is not that of this version.
    CONVRELU_STRUCT_SIZE = 3,
    /// A number has no meaning where it stands (as a layout, an instruction set, a pass or a rank), or the kind of thresholds is
    /// not set.
    CONVRELU_INVALID_VALUE = 4,
    /// A reserved field is not zero.
    CONVRELU_RESERVED = 5,
    /// A struct is not a plan that `convrelu_plan_init` has made.
    CONVRELU_NOT_A_PLAN = 6,
    /// A buffer that is written overlaps another.
    CONVRELU_OVERLAP = 7,
    /// A buffer does not hold packed weights, or its header is damaged.
    CONVRELU_NOT_PACKED = 8,
    /// Packed weights belong to another layer, pass or instruction set.
    CONVRELU_PACKED_ELSEWHERE = 9,
    /// A count or extent that must be at least 1 is 0.
    CONVRELU_ZERO = 10,
    /// The dilated kernel does not fit into the padded input.
    CONVRELU_KERNEL_TOO_LARGE = 11,
    /// A number of channels is not a multiple of the number of groups.
    CONVRELU_CHANNELS_NOT_DIVISIBLE = 12,
    /// A size does not fit the address space.
    CONVRELU_OVERFLOW = 13,
    /// A buffer holds fewer elements than the call needs.
    CONVRELU_BUFFER_TOO_SHORT = 14,
    /// A threshold is NaN. A uniform threshold is NaN until the caller sets it.
    CONVRELU_NAN_THRESHOLD = 15,
    /// The instruction set is not available here.
    CONVRELU_ISA_UNAVAILABLE = 16,
    /// The number of elements is not a multiple of what the AdaReLU thresholds cover, or they cover nothing.
    CONVRELU_THRESHOLD_SHAPE = 17,
    /// An error of a later version of the library.
    CONVRELU_OTHER = 18,
    /// A pitch is smaller than the pixel or the image that it must step over.
    CONVRELU_PITCH_TOO_SMALL = 19,
    /// `input` is null, and the thresholds are not uniformly −INFINITY.
    CONVRELU_MISSING_INPUT = 20,
    /// `parallel_for` did not run each task exactly once. The results of the call are undefined.
    CONVRELU_EXECUTOR = 21,
    /// The padding of a transposed convolution cuts off all of its output.
    CONVRELU_PADDING_TOO_LARGE = 22,
    /// The output padding of a transposed convolution is not less than the larger of stride and dilation.
    CONVRELU_OUTPUT_PADDING_TOO_LARGE = 23,
    /// A bound of an epilogue is NaN.
    CONVRELU_NAN_BOUND = 24,
    /// The lower bound of an epilogue is above the upper bound.
    CONVRELU_BOUNDS_CROSSED = 25,
    /// An argument does not apply: thresholds or an epilogue of a transposed convolution, output padding of a plain one, or a
    /// residual where `output_accumulation` already says that the residual is what the output holds.
    CONVRELU_NOT_APPLICABLE = 26,
    /// The build of the library leaves this out: transposed convolutions without the feature `capi-transposed`, epilogues without
    /// the feature `capi-epilogues`. The feature `capi` has both.
    CONVRELU_LEFT_OUT = 27,
}
use convrelu_status::*;

/// Why a call was refused, in numbers. `convrelu_error_message` makes a sentence of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct convrelu_error {
    /// `sizeof(convrelu_error)`, set by the caller.
    pub struct_size: usize,
    /// A `convrelu_status`.
    pub status: u32,
    /// The argument, for `convrelu_error_message`.
    pub argument: u32,
    /// Its value, and the numbers of the rule that it breaks.
    pub values: [usize; 3],
    /// Set to zero.
    pub reserved: [usize; 2],
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Null { argument: &'static str },
    Misaligned { argument: &'static str, address: usize },
    StructSize { argument: &'static str, size: usize, expected: usize },
    InvalidValue { argument: &'static str, value: usize },
    Reserved { argument: &'static str },
    NotAPlan { magic: usize },
    Overlap { argument: &'static str, other: &'static str },
    NotPacked,
    UniformNan,
    NotApplicable { argument: &'static str, value: usize },
    LeftOut { argument: &'static str },
    Core(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

/// Fields whose errors have sentences of their own.
const UNIFORM: &str = "threshold";
const KIND: &str = "threshold_kind";
const OUTPUT_PADDING: &str = "output_padding";
const RESIDUAL: &str = "residual";
const EPILOGUE: &str = "epilogue";

/// The names of arguments and quantities. In [`convrelu_error`] a number stands for each.
const NAMES: [&str; 59] = [
    "?",
    "in_channels",
    "out_channels",
    "groups",
    "depth",
    "height",
    "width",
    "input",
    "output",
    "weight",
    "thresholds",
    "bias",
    "kernel",
    "padded input",
    "buffer",
    "workspace",
    "grad_output",
    "grad_input",
    "grad_thresholds",
    "grad_weight",
    "grad_bias",
    "desc",
    "plan",
    "args",
    "error",
    "lens",
    "len",
    "isa",
    "rank",
    "layout",
    "pass",
    "accumulation",
    "weight_kind",
    KIND,
    "packed",
    "message",
    "available",
    "major",
    "minor",
    "patch",
    "dilated kernel",
    "input_pitch",
    "output_pitch",
    "grad_input_accumulation",
    "grad_thresholds_accumulation",
    "grad_weight_accumulation",
    "grad_bias_accumulation",
    "parallel_for",
    UNIFORM,
    "abi",
    "kind",
    OUTPUT_PADDING,
    EPILOGUE,
    "scale",
    "shift",
    RESIDUAL,
    "output_accumulation",
    "low",
    "high",
];

fn number_of_name(name: &str) -> u32 {
    NAMES.iter().position(|n| *n == name).unwrap_or(0) as u32
}

fn name_of(number: usize) -> &'static str {
    NAMES.get(number).copied().unwrap_or(NAMES[0])
}

impl Fault {
    pub(super) fn status(self) -> convrelu_status {
        match self {
            Self::Null { .. } => CONVRELU_NULL,
            Self::Misaligned { .. } => CONVRELU_MISALIGNED,
            Self::StructSize { .. } => CONVRELU_STRUCT_SIZE,
            Self::InvalidValue { .. } => CONVRELU_INVALID_VALUE,
            Self::Reserved { .. } => CONVRELU_RESERVED,
            Self::NotAPlan { .. } => CONVRELU_NOT_A_PLAN,
            Self::Overlap { .. } => CONVRELU_OVERLAP,
            Self::NotPacked => CONVRELU_NOT_PACKED,
            Self::UniformNan => CONVRELU_NAN_THRESHOLD,
            Self::NotApplicable { .. } => CONVRELU_NOT_APPLICABLE,
            Self::LeftOut { .. } => CONVRELU_LEFT_OUT,
            Self::Core(error) => match error {
                Error::ZeroChannels { .. }
                | Error::ZeroGroups
                | Error::ZeroSize { .. }
                | Error::ZeroKernel { .. }
                | Error::ZeroStride { .. }
                | Error::ZeroDilation { .. } => CONVRELU_ZERO,
                Error::KernelTooLarge { .. } => CONVRELU_KERNEL_TOO_LARGE,
                Error::ChannelsNotDivisible { .. } => CONVRELU_CHANNELS_NOT_DIVISIBLE,
                Error::Overflow { .. } => CONVRELU_OVERFLOW,
                Error::PitchTooSmall { .. } => CONVRELU_PITCH_TOO_SMALL,
                Error::MissingInput => CONVRELU_MISSING_INPUT,
                Error::Executor { .. } => CONVRELU_EXECUTOR,
                Error::BufferTooShort { .. } => CONVRELU_BUFFER_TOO_SHORT,
                Error::NanThreshold { .. } => CONVRELU_NAN_THRESHOLD,
                Error::IsaUnavailable { .. } => CONVRELU_ISA_UNAVAILABLE,
                Error::PackedElsewhere { .. } => CONVRELU_PACKED_ELSEWHERE,
                Error::ThresholdShape { .. } => CONVRELU_THRESHOLD_SHAPE,
                Error::PaddingTooLarge { .. } => CONVRELU_PADDING_TOO_LARGE,
                Error::OutputPaddingTooLarge { .. } => CONVRELU_OUTPUT_PADDING_TOO_LARGE,
                Error::NanBound { .. } => CONVRELU_NAN_BOUND,
                Error::BoundsCrossed { .. } => CONVRELU_BOUNDS_CROSSED,
            },
        }
    }

    /// The numbers of the struct.
    pub(super) fn numbers(self) -> (u32, [usize; 3]) {
        let isa = |isa: Isa| number_of(isa) as usize;
        let (name, values) = match self {
            Self::Null { argument } | Self::Reserved { argument } | Self::LeftOut { argument } => (argument, [0; 3]),
            Self::Misaligned { argument, address } => (argument, [address, 0, 0]),
            Self::StructSize { argument, size, expected } => (argument, [size, expected, 0]),
            Self::InvalidValue { argument, value } | Self::NotApplicable { argument, value } => {
                (argument, [value, 0, 0])
            }
            Self::NotAPlan { magic } => ("plan", [magic, 0, 0]),
            Self::Overlap { argument, other } => (argument, [number_of_name(other) as usize, 0, 0]),
            Self::NotPacked => ("weight", [0; 3]),
            Self::UniformNan => (UNIFORM, [0; 3]),
            Self::Core(error) => match error {
                Error::ZeroChannels { argument } => (argument, [0; 3]),
                Error::ZeroGroups => ("groups", [0, 1, 0]),
                Error::ZeroSize { axis } => (axis, [0, 2, 0]),
                Error::ZeroKernel { axis } => (axis, [0, 3, 0]),
                Error::ZeroStride { axis } => (axis, [0, 4, 0]),
                Error::ZeroDilation { axis } => (axis, [0, 5, 0]),
                Error::KernelTooLarge { axis, kernel, padded } => (axis, [kernel, padded, 0]),
                Error::ChannelsNotDivisible { argument, channels, groups } => (argument, [channels, groups, 0]),
                Error::Overflow { quantity } => (quantity, [0; 3]),
                Error::PitchTooSmall { argument, pitch, packed } => (argument, [pitch, packed, 0]),
                Error::MissingInput => ("input", [0; 3]),
                Error::Executor { tasks, task, never } => ("parallel_for", [tasks, task, usize::from(never)]),
                Error::BufferTooShort { argument, len, required } => (argument, [len, required, 0]),
                Error::NanThreshold { index } => ("thresholds", [index, 0, 0]),
                Error::NanBound { argument } => (argument, [0; 3]),
                Error::BoundsCrossed { low, high } => ("low", [low.to_bits() as usize, high.to_bits() as usize, 0]),
                Error::IsaUnavailable { isa: asked } => ("isa", [isa(asked), 0, 0]),
                Error::PackedElsewhere { packed, plan } => ("weight", [isa(packed), isa(plan), 0]),
                Error::ThresholdShape { elements, thresholds, inner } => ("thresholds", [elements, thresholds, inner]),
                Error::PaddingTooLarge { axis, padding, unpadded } => (axis, [padding, unpadded, 0]),
                Error::OutputPaddingTooLarge { axis, output_padding, step } => (axis, [output_padding, step, 0]),
            },
        };
        (number_of_name(name), values)
    }
}

/// The sentence that belongs to the numbers. Any numbers give some sentence.
impl fmt::Display for convrelu_error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (argument, [value, other, third]) = (name_of(self.argument as usize), self.values);
        let isa = |number: usize| u32::try_from(number).ok().and_then(isa_of).unwrap_or(Isa::Scalar);
        let is = |status: convrelu_status| self.status == status as u32;
        let error = if is(CONVRELU_OK) {
            return f.write_str("no error");
        } else if is(CONVRELU_NULL) {
            return write!(f, "{argument} is null: it must point to something");
        } else if is(CONVRELU_MISALIGNED) {
            return write!(f, "{argument} is at {value:#x}: it must be aligned to its type");
        } else if is(CONVRELU_STRUCT_SIZE) {
            return write!(f, "{argument}.struct_size is {value}: it must be {other} for this version of the library");
        } else if is(CONVRELU_INVALID_VALUE) && argument == KIND && value == CONVRELU_THRESHOLDS_UNSET as usize {
            return write!(
                f,
                "{argument} is unset: it must be set to CONVRELU_THRESHOLDS_PER_TAP, CONVRELU_THRESHOLDS_LINEAR, \
                 CONVRELU_THRESHOLDS_RELU or CONVRELU_THRESHOLDS_UNIFORM"
            );
        } else if is(CONVRELU_INVALID_VALUE) {
            return write!(f, "{argument} is {value}: it must be one of the values that the header lists");
        } else if is(CONVRELU_RESERVED) {
            return write!(f, "a reserved field of {argument} is not 0: it must be");
        } else if is(CONVRELU_NOT_A_PLAN) {
            return write!(f, "plan.magic is {value:#x}: convrelu_plan_init must have made the plan");
        } else if is(CONVRELU_OVERLAP) {
            return write!(f, "{argument} overlaps {}: what is written must lie apart", name_of(value));
        } else if is(CONVRELU_NOT_PACKED) {
            return write!(
                f,
                "{argument} holds no packed weights, or their header is damaged: \
                 it must be what convrelu_pack_weight wrote"
            );
        } else if is(CONVRELU_ZERO) {
            match other {
                0 => Error::ZeroChannels { argument },
                1 => Error::ZeroGroups,
                2 => Error::ZeroSize { axis: argument },
                3 => Error::ZeroKernel { axis: argument },
                4 => Error::ZeroStride { axis: argument },
                _ => Error::ZeroDilation { axis: argument },
            }
        } else if is(CONVRELU_KERNEL_TOO_LARGE) {
            Error::KernelTooLarge { axis: argument, kernel: value, padded: other }
        } else if is(CONVRELU_CHANNELS_NOT_DIVISIBLE) {
            Error::ChannelsNotDivisible { argument, channels: value, groups: other }
        } else if is(CONVRELU_OVERFLOW) {
            Error::Overflow { quantity: argument }
        } else if is(CONVRELU_PITCH_TOO_SMALL) {
            Error::PitchTooSmall { argument, pitch: value, packed: other }
        } else if is(CONVRELU_MISSING_INPUT) {
            Error::MissingInput
        } else if is(CONVRELU_EXECUTOR) {
            Error::Executor { tasks: value, task: other, never: third != 0 }
        } else if is(CONVRELU_PADDING_TOO_LARGE) {
            Error::PaddingTooLarge { axis: argument, padding: value, unpadded: other }
        } else if is(CONVRELU_OUTPUT_PADDING_TOO_LARGE) {
            Error::OutputPaddingTooLarge { axis: argument, output_padding: value, step: other }
        } else if is(CONVRELU_NAN_BOUND) {
            Error::NanBound { argument }
        } else if is(CONVRELU_BOUNDS_CROSSED) {
            Error::BoundsCrossed { low: f32::from_bits(value as u32), high: f32::from_bits(other as u32) }
        } else if is(CONVRELU_NOT_APPLICABLE) {
            return match argument {
                KIND => write!(
                    f,
                    "{argument} is {value}: a transposed convolution has no thresholds, \
                     so it must be unset or CONVRELU_THRESHOLDS_LINEAR"
                ),
                OUTPUT_PADDING => write!(f, "{argument} is {value}: it must be 0 but for CONVRELU_TRANSPOSED"),
                RESIDUAL => {
                    write!(f, "{argument} is given: it must be null where output_accumulation is CONVRELU_ADD")
                }
                _ => write!(f, "{argument} is given: it must be null for a transposed convolution"),
            };
        } else if is(CONVRELU_LEFT_OUT) {
            return match argument {
                EPILOGUE => write!(
                    f,
                    "{argument} is given: this build of the library has no epilogues (feature capi-epilogues), \
                     so it must be null"
                ),
                _ => write!(
                    f,
                    "{argument} is CONVRELU_TRANSPOSED: this build of the library has no transposed convolutions \
                     (feature capi-transposed), so it must be CONVRELU_CONVOLUTION"
                ),
            };
        } else if is(CONVRELU_BUFFER_TOO_SHORT) {
            Error::BufferTooShort { argument, len: value, required: other }
        } else if is(CONVRELU_NAN_THRESHOLD) && argument == UNIFORM {
            return write!(f, "{argument} is NaN: for CONVRELU_THRESHOLDS_UNIFORM it must be set to a number");
        } else if is(CONVRELU_NAN_THRESHOLD) {
            Error::NanThreshold { index: value }
        } else if is(CONVRELU_ISA_UNAVAILABLE) {
            Error::IsaUnavailable { isa: isa(value) }
        } else if is(CONVRELU_PACKED_ELSEWHERE) {
            Error::PackedElsewhere { packed: isa(value), plan: isa(other) }
        } else if is(CONVRELU_THRESHOLD_SHAPE) {
            Error::ThresholdShape { elements: value, thresholds: other, inner: third }
        } else {
            return write!(f, "status {}", self.status);
        };
        error.fmt(f)
    }
}

/// Text that is cut where the buffer ends, at the end of a character.
struct Cut<'a> {
    bytes: &'a mut [u8],
    /// Bytes that the buffer holds.
    kept: usize,
    /// Bytes of the whole text.
    len: usize,
}

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let end = self.len + character.len_utf8();
            if self.kept == self.len && end <= self.bytes.len() {
                character.encode_utf8(&mut self.bytes[self.kept..]);
                self.kept = end;
            }
            self.len = end;
        }
        Ok(())
    }
}

/// Writes one line about `error` to the `capacity` bytes at `message`: the argument, its value, and the rule it breaks. A line
/// that does not fit is cut. A zero byte always ends it.
///
/// `len`, which may be null, receives the length of the whole line without that byte.
///
/// # Safety
///
/// `error` is a **Struct pointer**, `len` a **Number pointer**, `message` with `capacity` a **Buffer pointer** of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_error_message(
    error: *const convrelu_error,
    message: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> convrelu_status {
    // SAFETY: what `message_of` asks.
    let written = unsafe { message_of(error, message, capacity, len) };
    written.err().map_or(CONVRELU_OK, Fault::status)
}

/// # Safety
///
/// That of [`convrelu_error_message`].
unsafe fn message_of(
    error: *const convrelu_error,
    message: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> Result<(), Fault> {
    if !len.is_null() {
        // This check comes before anything is written.
        pointer(len, "len")?;
    }
    // SAFETY: **Struct pointer** and **Buffer pointer**.
    let (error, bytes) = unsafe { (read_struct(error)?, bytes_mut(message.cast(), capacity)?) };
    let Some(last) = bytes.len().checked_sub(1) else {
        return Err(Error::BufferTooShort { argument: "message", len: 0, required: 1 }.into());
    };
    let mut text = Cut { bytes: &mut bytes[..last], kept: 0, len: 0 };
    // `Cut` never fails.
    let _ = write!(text, "{error}");
    let (kept, whole) = (text.kept, text.len);
    bytes[kept] = 0;
    if !len.is_null() {
        // SAFETY: **Number pointer**.
        unsafe { write(len, "len", whole)? };
    }
    Ok(())
}
