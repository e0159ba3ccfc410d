//! Structs and numbers that cross the boundary.

use core::ffi::c_void;
use core::ptr::{null, null_mut};

use crate::isa::Isa;
use crate::layout::Layout;
use crate::operands::{Accumulation, Pass};

/// Major version of the library that this header belongs to.
pub const CONVRELU_VERSION_MAJOR: u32 = 0;
/// Minor version.
pub const CONVRELU_VERSION_MINOR: u32 = 2;
/// Patch version.
pub const CONVRELU_VERSION_PATCH: u32 = 0;

/// Number of this interface. It goes up with every change that makes it necessary to compile programs again. See `convrelu_abi`.
pub const CONVRELU_ABI: u32 = 2;

/// A convolution, plain or with thresholds.
pub const CONVRELU_CONVOLUTION: u32 = 0;
/// A transposed convolution ("deconvolution"), as `ConvTranspose` of PyTorch and ONNX. It has no thresholds.
pub const CONVRELU_TRANSPOSED: u32 = 1;

/// Channels before the spatial axes: `N C D H W`, weight `O I D H W` (transposed `I O D H W`), thresholds `I D H W`.
pub const CONVRELU_NCHW: u32 = 0;
/// Channels last: `N D H W C`, weight `O D H W I` (transposed `I D H W O`), thresholds `D H W I`.
pub const CONVRELU_NHWC: u32 = 1;

/// The best instruction set of this machine.
pub const CONVRELU_ISA_AUTO: u32 = 0;
/// Plain code, on every target.
pub const CONVRELU_ISA_SCALAR: u32 = 1;
/// AArch64 Advanced SIMD.
pub const CONVRELU_ISA_NEON: u32 = 2;
/// x86-64 AVX2 with FMA.
pub const CONVRELU_ISA_AVX2: u32 = 3;
/// x86-64 AVX-512 (F, BW, CD, DQ, VL).
pub const CONVRELU_ISA_AVX512: u32 = 4;
/// WebAssembly's 128-bit SIMD.
pub const CONVRELU_ISA_SIMD128: u32 = 5;

/// `convrelu_forward` with a plain weight.
pub const CONVRELU_FORWARD: u32 = 0;
/// `convrelu_forward` with a packed weight.
pub const CONVRELU_FORWARD_PACKED: u32 = 1;
/// `convrelu_backward_input` with a plain weight.
pub const CONVRELU_BACKWARD_INPUT: u32 = 2;
/// `convrelu_backward_input` with a packed weight.
pub const CONVRELU_BACKWARD_INPUT_PACKED: u32 = 3;
/// `convrelu_backward_weight`.
pub const CONVRELU_BACKWARD_WEIGHT: u32 = 4;

/// A gradient, or the output, replaces what its buffer holds.
pub const CONVRELU_OVERWRITE: u32 = 0;
/// A gradient, or the output, is added to what its buffer holds.
pub const CONVRELU_ADD: u32 = 1;

/// The weight lies in the order of the layout.
pub const CONVRELU_WEIGHT_PLAIN: u32 = 0;
/// The weight was packed by `convrelu_pack_weight` for the same layer, pass and instruction set.
pub const CONVRELU_WEIGHT_PACKED: u32 = 1;

/// Not set. A call refuses it.
pub const CONVRELU_THRESHOLDS_UNSET: u32 = 0;
/// One threshold per input channel and tap (eq. 8).
pub const CONVRELU_THRESHOLDS_PER_TAP: u32 = 1;
/// θ = −∞ everywhere: a plain convolution.
pub const CONVRELU_THRESHOLDS_LINEAR: u32 = 2;
/// θ = 0 everywhere: ReLU, then convolution.
pub const CONVRELU_THRESHOLDS_RELU: u32 = 3;
/// The field `threshold` everywhere.
pub const CONVRELU_THRESHOLDS_UNIFORM: u32 = 4;

/// Runs the task `index` of a call, on any thread. A `convrelu_parallel_for` receives such a function and calls it.
pub type convrelu_task = unsafe extern "C" fn(task_context: *mut c_void, index: usize);

/// A function of the caller that runs the tasks of a call on threads. It calls `task(task_context, 0)`, …, `task(task_context,
/// tasks − 1)`, each exactly once, in any order, and at the same time or not. It returns when all of them have returned. It must
/// not return before, and must not call `task` afterwards.
///
/// `context` is the field beside it in the arguments. `task` never throws, and this function must not throw either. A call asks
/// once or several times, for at most as many tasks as its plan has threads. For a single task it does not ask.
///
/// If a task runs twice or never, or if the function asks for a task that does not exist, the call returns `CONVRELU_EXECUTOR`.
/// The results are undefined then, but the call reads and writes nothing out of bounds.
pub type convrelu_parallel_for =
    Option<unsafe extern "C" fn(context: *mut c_void, tasks: usize, task: convrelu_task, task_context: *mut c_void)>;

/// A convolution, or a transposed one. Initialise it with `convrelu_conv2d_init` or its siblings, then set the fields that differ
/// from the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct convrelu_desc {
    /// `sizeof(convrelu_desc)`.
    pub struct_size: usize,
    /// Spatial axes, 1 to 3. In the arrays below, the first `rank` entries count. The others are ignored.
    pub rank: u32,
    /// `CONVRELU_NCHW` or `CONVRELU_NHWC`.
    pub layout: u32,
    /// Images; 0 is an empty batch.
    pub batch: usize,
    /// Input channels of all groups.
    pub in_channels: usize,
    /// Output channels of all groups.
    pub out_channels: usize,
    /// Number of groups. The output channels of a group read the input channels of the same group only.
    pub groups: usize,
    /// Input extents: width; height, width; or depth, height, width.
    pub size: [usize; 3],
    /// Kernel extents.
    pub kernel: [usize; 3],
    /// Steps between output positions. For a transposed convolution: steps between the outputs of neighbouring input positions.
    pub stride: [usize; 3],
    /// Distances of kernel taps; 1 is dense.
    pub dilation: [usize; 3],
    /// Zeros before each axis. For a transposed convolution: outputs that are cut off there.
    pub padding_before: [usize; 3],
    /// As `padding_before`, after each axis.
    pub padding_after: [usize; 3],
    /// For a transposed convolution: outputs that are appended to each axis, less than the larger of stride and dilation.
    /// Otherwise zero.
    pub output_padding: [usize; 3],
    /// For an input that is a range of channels of a wider tensor: the elements from the first channel of a pixel to that of the
    /// next pixel (channels last), or from image to image (channels first). 0 means that there are no gaps. The gradient of the
    /// input has the same pitch. A call neither reads nor writes the gaps. Still no other buffer that the call writes may lie
    /// there: that is a `CONVRELU_OVERLAP`.
    pub input_pitch: usize,
    /// As `input_pitch`, for the output and its gradient.
    pub output_pitch: usize,
    /// `CONVRELU_CONVOLUTION` or `CONVRELU_TRANSPOSED`.
    pub kind: u32,
    /// Must be zero.
    pub reserved: [u32; 7],
}

/// A planned layer. `convrelu_plan_init` makes it. Read it only through functions.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct convrelu_plan {
    /// `sizeof(convrelu_plan)`.
    pub struct_size: usize,
    /// Says that the struct is a plan.
    pub magic: u32,
    /// The instruction set that was chosen, not `CONVRELU_ISA_AUTO`.
    pub isa: u32,
    /// The most tasks per call.
    pub threads: usize,
    /// The layer.
    pub desc: convrelu_desc,
    /// Must be zero.
    pub reserved: [usize; 4],
}

/// Lengths of a layer's tensors, in elements. Those of input and output count from the first to the last element, including the
/// gaps that the pitches leave.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct convrelu_lens {
    /// `sizeof(convrelu_lens)`, set by the caller.
    pub struct_size: usize,
    /// Input, and its gradient, gaps included.
    pub input: usize,
    /// Output, and its gradient, gaps included.
    pub output: usize,
    /// Plain weight, and its gradient.
    pub weight: usize,
    /// Thresholds, and their gradient. 0 for a transposed convolution. (The gradient of a uniform threshold has one element.)
    pub thresholds: usize,
    /// Bias, and its gradient.
    pub bias: usize,
    /// Weight packed for the forward pass.
    pub packed_weight: usize,
    /// Weight packed for the backward pass of the input.
    pub packed_weight_transposed: usize,
    /// Output extents `depth, height, width`; 1 beyond the rank.
    pub output_size: [usize; 3],
    /// Set to zero.
    pub reserved: [usize; 4],
}

/// `len` floats to read. A call refuses fewer than it needs, and ignores more. Null with the length 0 is a buffer without
/// elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct convrelu_input {
    /// The first of them.
    pub data: *const f32,
    /// Elements.
    pub len: usize,
}

/// `len` floats to write. Null with the length 0 is a buffer without elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct convrelu_output {
    /// The first of them.
    pub data: *mut f32,
    /// Elements.
    pub len: usize,
}

/// Nothing to read.
pub(super) const NO_INPUT: convrelu_input = convrelu_input { data: null(), len: 0 };

/// Nothing to write.
pub(super) const NO_OUTPUT: convrelu_output = convrelu_output { data: null_mut(), len: 0 };

/// What `convrelu_forward` does with its sums before it stores them: `y = clamp(scale · (Σ + bias) + shift + residual, low,
/// high)`. Initialise it with `convrelu_epilogue_init`, which makes an epilogue that changes nothing. Then set the parts that you
/// want.
///
/// Each step is rounded, except that the product and the shift may be fused. The clamp keeps a NaN.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct convrelu_epilogue {
    /// `sizeof(convrelu_epilogue)`.
    pub struct_size: usize,
    /// A factor per output channel, or null for none.
    pub scale: convrelu_input,
    /// A summand per output channel, or null for none.
    pub shift: convrelu_input,
    /// A summand for each output, or null for none. The tensor has the layout and the pitch of the output. Gaps are not read.
    pub residual: convrelu_input,
    /// `CONVRELU_ADD` if the residual is what the output holds before the call. `residual` is null then.
    pub output_accumulation: u32,
    /// The least output, −INFINITY for none. 0 with an infinite `high` is ReLU.
    pub low: f32,
    /// The greatest output, INFINITY for none.
    pub high: f32,
    /// Must be zero.
    pub reserved: [u32; 5],
}

/// An epilogue that changes nothing.
pub(super) const NO_EPILOGUE: convrelu_epilogue = convrelu_epilogue {
    struct_size: size_of::<convrelu_epilogue>(),
    scale: NO_INPUT,
    shift: NO_INPUT,
    residual: NO_INPUT,
    output_accumulation: CONVRELU_OVERWRITE,
    low: f32::NEG_INFINITY,
    high: f32::INFINITY,
    reserved: [0; 5],
};

/// Arguments of `convrelu_forward`. Initialise them with `convrelu_forward_args_init`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct convrelu_forward_args {
    /// `sizeof(convrelu_forward_args)`.
    pub struct_size: usize,
    /// `x`
    pub input: convrelu_input,
    /// `w`
    pub weight: convrelu_input,
    /// `θ`. Read only for `CONVRELU_THRESHOLDS_PER_TAP`.
    pub thresholds: convrelu_input,
    /// `b`, or null for none.
    pub bias: convrelu_input,
    /// `y`. The call overwrites it, but not the gaps that its pitch leaves.
    pub output: convrelu_output,
    /// Scratch memory. It may hold anything.
    pub workspace: convrelu_output,
    /// What changes the sums before they are stored, or null. A transposed convolution takes none.
    pub epilogue: *const convrelu_epilogue,
    /// Runs tasks on threads. If null, they run one after another on the calling thread.
    pub parallel_for: convrelu_parallel_for,
    /// The call passes it to `parallel_for`.
    pub context: *mut c_void,
    /// `CONVRELU_WEIGHT_…`
    pub weight_kind: u32,
    /// `CONVRELU_THRESHOLDS_…`. For a transposed convolution: unset or `_LINEAR`.
    pub threshold_kind: u32,
    /// The threshold for `CONVRELU_THRESHOLDS_UNIFORM`. Otherwise ignored.
    pub threshold: f32,
    /// Must be zero.
    pub reserved: [u32; 5],
}

/// Arguments of `convrelu_backward_input`. Initialise them with `convrelu_backward_input_args_init`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct convrelu_backward_input_args {
    /// `sizeof(convrelu_backward_input_args)`.
    pub struct_size: usize,
    /// `x`. It may be null for `CONVRELU_THRESHOLDS_LINEAR` and for a transposed convolution, where the call does not read it.
    pub input: convrelu_input,
    /// `w`
    pub weight: convrelu_input,
    /// `θ`. Read only for `CONVRELU_THRESHOLDS_PER_TAP`.
    pub thresholds: convrelu_input,
    /// `∂E/∂y`
    pub grad_output: convrelu_input,
    /// `∂E/∂x`, or null to leave it out.
    pub grad_input: convrelu_output,
    /// `∂E/∂θ`, or null to leave it out. Without `CONVRELU_THRESHOLDS_PER_TAP` it has one element. Null for a transposed
    /// convolution.
    pub grad_thresholds: convrelu_output,
    /// Scratch memory. It may hold anything.
    pub workspace: convrelu_output,
    /// Runs tasks on threads. If null, they run one after another on the calling thread.
    pub parallel_for: convrelu_parallel_for,
    /// The call passes it to `parallel_for`.
    pub context: *mut c_void,
    /// `CONVRELU_WEIGHT_…`
    pub weight_kind: u32,
    /// `CONVRELU_THRESHOLDS_…`. For a transposed convolution: unset or `_LINEAR`.
    pub threshold_kind: u32,
    /// The threshold for `CONVRELU_THRESHOLDS_UNIFORM`. Otherwise ignored.
    pub threshold: f32,
    /// `CONVRELU_OVERWRITE` or `CONVRELU_ADD`: whether the gradient replaces the values in `grad_input` or is added to them.
    pub grad_input_accumulation: u32,
    /// As `grad_input_accumulation`, for `grad_thresholds`.
    pub grad_thresholds_accumulation: u32,
    /// Must be zero.
    pub reserved: [u32; 5],
}

/// Arguments of `convrelu_backward_weight`. Initialise them with `convrelu_backward_weight_args_init`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct convrelu_backward_weight_args {
    /// `sizeof(convrelu_backward_weight_args)`.
    pub struct_size: usize,
    /// `x`
    pub input: convrelu_input,
    /// `θ`. Read only for `CONVRELU_THRESHOLDS_PER_TAP`.
    pub thresholds: convrelu_input,
    /// `∂E/∂y`
    pub grad_output: convrelu_input,
    /// `∂E/∂w`, or null to leave it out.
    pub grad_weight: convrelu_output,
    /// `∂E/∂b`, or null to leave it out.
    pub grad_bias: convrelu_output,
    /// Scratch memory. It may hold anything.
    pub workspace: convrelu_output,
    /// Runs tasks on threads. If null, they run one after another on the calling thread.
    pub parallel_for: convrelu_parallel_for,
    /// The call passes it to `parallel_for`.
    pub context: *mut c_void,
    /// `CONVRELU_THRESHOLDS_…`. For a transposed convolution: unset or `_LINEAR`.
    pub threshold_kind: u32,
    /// The threshold for `CONVRELU_THRESHOLDS_UNIFORM`. Otherwise ignored.
    pub threshold: f32,
    /// `CONVRELU_OVERWRITE` or `CONVRELU_ADD`: whether the gradient replaces the values in `grad_weight` or is added to them.
    pub grad_weight_accumulation: u32,
    /// As `grad_weight_accumulation`, for `grad_bias`.
    pub grad_bias_accumulation: u32,
    /// Must be zero.
    pub reserved: [u32; 4],
}

/// Arguments of `convrelu_adarelu_backward`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct convrelu_adarelu_backward_args {
    /// `sizeof(convrelu_adarelu_backward_args)`.
    pub struct_size: usize,
    /// `x`
    pub input: convrelu_input,
    /// `θ`. Each threshold covers `inner` consecutive elements, and the thresholds repeat over the tensor.
    pub thresholds: convrelu_input,
    /// `∂E/∂y`, at least as long as the input.
    pub grad_output: convrelu_input,
    /// `∂E/∂x`, at least as long as the input.
    pub grad_input: convrelu_output,
    /// `∂E/∂θ`, at least as long as the thresholds.
    pub grad_thresholds: convrelu_output,
    /// Elements that share one threshold in a row.
    pub inner: usize,
    /// `CONVRELU_OVERWRITE` or `CONVRELU_ADD`.
    pub accumulation: u32,
    /// Must be zero.
    pub reserved: [u32; 5],
}

/// Instruction sets and their numbers.
const ISAS: [(u32, Isa); 5] = [
    (CONVRELU_ISA_SCALAR, Isa::Scalar),
    (CONVRELU_ISA_NEON, Isa::Neon),
    (CONVRELU_ISA_AVX2, Isa::Avx2),
    (CONVRELU_ISA_AVX512, Isa::Avx512),
    (CONVRELU_ISA_SIMD128, Isa::Simd128),
];

/// The instruction set of a number. None for `CONVRELU_ISA_AUTO`.
pub(super) fn isa_of(number: u32) -> Option<Isa> {
    ISAS.iter().find(|(n, _)| *n == number).map(|(_, isa)| *isa)
}

/// The number of an instruction set, or `CONVRELU_ISA_AUTO` for one that has none.
pub(super) fn number_of(isa: Isa) -> u32 {
    ISAS.iter().find(|(_, i)| *i == isa).map_or(CONVRELU_ISA_AUTO, |(n, _)| *n)
}

pub(super) fn layout_of(number: u32) -> Option<Layout> {
    match number {
        CONVRELU_NCHW => Some(Layout::Nchw),
        CONVRELU_NHWC => Some(Layout::Nhwc),
        _ => None,
    }
}

/// Whether a kind of layer is a transposed convolution.
pub(super) fn is_transposed(kind: u32) -> Option<bool> {
    match kind {
        CONVRELU_CONVOLUTION => Some(false),
        CONVRELU_TRANSPOSED => Some(true),
        _ => None,
    }
}

pub(super) fn pass_of(number: u32) -> Option<Pass> {
    match number {
        CONVRELU_FORWARD => Some(Pass::Forward),
        CONVRELU_FORWARD_PACKED => Some(Pass::ForwardPacked),
        CONVRELU_BACKWARD_INPUT => Some(Pass::BackwardInput),
        CONVRELU_BACKWARD_INPUT_PACKED => Some(Pass::BackwardInputPacked),
        CONVRELU_BACKWARD_WEIGHT => Some(Pass::BackwardWeight),
        _ => None,
    }
}

pub(super) fn accumulation_of(number: u32) -> Option<Accumulation> {
    match number {
        CONVRELU_OVERWRITE => Some(Accumulation::Overwrite),
        CONVRELU_ADD => Some(Accumulation::Add),
        _ => None,
    }
}
