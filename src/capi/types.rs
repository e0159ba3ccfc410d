//! Structs and numbers that cross the boundary.

use crate::isa::Isa;
use crate::layout::Layout;
use crate::plan::{Accumulation, Pass};

/// Major version of the library that this header belongs to.
pub const CONVRELU_VERSION_MAJOR: u32 = 0;
/// Minor version.
pub const CONVRELU_VERSION_MINOR: u32 = 1;
/// Patch version.
pub const CONVRELU_VERSION_PATCH: u32 = 0;

/// Channels before the spatial axes: `N C D H W`, weight `O I D H W`, thresholds `I D H W`.
pub const CONVRELU_NCHW: u32 = 0;
/// Channels last: `N D H W C`, weight `O D H W I`, thresholds `D H W I`.
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

/// Gradients replace what their buffers hold.
pub const CONVRELU_OVERWRITE: u32 = 0;
/// Gradients are added to what their buffers hold.
pub const CONVRELU_ADD: u32 = 1;

/// The weight lies in the order of the layout.
pub const CONVRELU_WEIGHT_PLAIN: u32 = 0;
/// The weight was packed by `convrelu_pack_weight` for the same layer, pass and instruction set.
pub const CONVRELU_WEIGHT_PACKED: u32 = 1;

/// One threshold per input channel and tap (eq. 8).
pub const CONVRELU_THRESHOLDS_PER_TAP: u32 = 0;
/// The field `threshold` everywhere: 0 for ReLU, −INFINITY for a plain convolution.
pub const CONVRELU_THRESHOLDS_UNIFORM: u32 = 1;

/// A convolution. Initialise it with `convrelu_desc_init`, then set what differs from the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct convrelu_desc {
    /// `sizeof(convrelu_desc)`.
    pub struct_size: usize,
    /// Spatial axes, 1 to 3. Of the arrays below, the first `rank` entries count; the others are ignored.
    pub rank: u32,
    /// `CONVRELU_NCHW` or `CONVRELU_NHWC`.
    pub layout: u32,
    /// Images; 0 is an empty batch.
    pub batch: usize,
    /// Input channels of all groups.
    pub in_channels: usize,
    /// Output channels of all groups.
    pub out_channels: usize,
    /// Output channels of a group see its input channels only.
    pub groups: usize,
    /// Input extents: width; height, width; or depth, height, width.
    pub size: [usize; 3],
    /// Kernel extents.
    pub kernel: [usize; 3],
    /// Steps between output positions.
    pub stride: [usize; 3],
    /// Distances of kernel taps; 1 is dense.
    pub dilation: [usize; 3],
    /// Zeros before each axis.
    pub padding_before: [usize; 3],
    /// Zeros after each axis.
    pub padding_after: [usize; 3],
    /// Zero.
    pub reserved: [usize; 4],
}

/// A planned layer. Made by `convrelu_plan_init`; read it through functions alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct convrelu_plan {
    /// `sizeof(convrelu_plan)`.
    pub struct_size: usize,
    /// Says that the struct is a plan.
    pub magic: u32,
    /// The instruction set that was chosen, not `CONVRELU_ISA_AUTO`.
    pub isa: u32,
    /// The most threads per call.
    pub threads: usize,
    /// The layer.
    pub desc: convrelu_desc,
    /// Zero.
    pub reserved: [usize; 4],
}

/// Lengths of a layer's tensors, in elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct convrelu_lens {
    /// `sizeof(convrelu_lens)`, set by the caller.
    pub struct_size: usize,
    /// Input, and its gradient.
    pub input: usize,
    /// Output, and its gradient.
    pub output: usize,
    /// Plain weight, and its gradient.
    pub weight: usize,
    /// Thresholds, and their gradient.
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

/// `len` floats to read. They may be fewer than a call needs, which it then refuses, or more.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct convrelu_input {
    /// The first of them.
    pub data: *const f32,
    /// Elements.
    pub len: usize,
}

/// `len` floats to write.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct convrelu_output {
    /// The first of them.
    pub data: *mut f32,
    /// Elements.
    pub len: usize,
}

/// Arguments of `convrelu_forward`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct convrelu_forward_args {
    /// `sizeof(convrelu_forward_args)`.
    pub struct_size: usize,
    /// `x`
    pub input: convrelu_input,
    /// `w`
    pub weight: convrelu_input,
    /// `θ`; ignored for `CONVRELU_THRESHOLDS_UNIFORM`.
    pub thresholds: convrelu_input,
    /// `b`, or null for none.
    pub bias: convrelu_input,
    /// `y`, overwritten.
    pub output: convrelu_output,
    /// Any contents.
    pub workspace: convrelu_output,
    /// `CONVRELU_WEIGHT_…`
    pub weight_kind: u32,
    /// `CONVRELU_THRESHOLDS_…`
    pub threshold_kind: u32,
    /// The uniform threshold.
    pub threshold: f32,
    /// Zero.
    pub reserved: [u32; 5],
}

/// Arguments of `convrelu_backward_input`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct convrelu_backward_input_args {
    /// `sizeof(convrelu_backward_input_args)`.
    pub struct_size: usize,
    /// `x`
    pub input: convrelu_input,
    /// `w`
    pub weight: convrelu_input,
    /// `θ`; ignored for `CONVRELU_THRESHOLDS_UNIFORM`.
    pub thresholds: convrelu_input,
    /// `∂E/∂y`
    pub grad_output: convrelu_input,
    /// `∂E/∂x`
    pub grad_input: convrelu_output,
    /// `∂E/∂θ`, or null where thresholds are not trained.
    pub grad_thresholds: convrelu_output,
    /// Any contents.
    pub workspace: convrelu_output,
    /// `CONVRELU_WEIGHT_…`
    pub weight_kind: u32,
    /// `CONVRELU_THRESHOLDS_…`
    pub threshold_kind: u32,
    /// The uniform threshold.
    pub threshold: f32,
    /// `CONVRELU_OVERWRITE` or `CONVRELU_ADD`.
    pub accumulation: u32,
    /// Zero.
    pub reserved: [u32; 4],
}

/// Arguments of `convrelu_backward_weight`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct convrelu_backward_weight_args {
    /// `sizeof(convrelu_backward_weight_args)`.
    pub struct_size: usize,
    /// `x`
    pub input: convrelu_input,
    /// `θ`; ignored for `CONVRELU_THRESHOLDS_UNIFORM`.
    pub thresholds: convrelu_input,
    /// `∂E/∂y`
    pub grad_output: convrelu_input,
    /// `∂E/∂w`
    pub grad_weight: convrelu_output,
    /// `∂E/∂b`, or null where there is no bias.
    pub grad_bias: convrelu_output,
    /// Any contents.
    pub workspace: convrelu_output,
    /// `CONVRELU_THRESHOLDS_…`
    pub threshold_kind: u32,
    /// The uniform threshold.
    pub threshold: f32,
    /// `CONVRELU_OVERWRITE` or `CONVRELU_ADD`.
    pub accumulation: u32,
    /// Zero.
    pub reserved: [u32; 5],
}

/// Arguments of `convrelu_adarelu_backward`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct convrelu_adarelu_backward_args {
    /// `sizeof(convrelu_adarelu_backward_args)`.
    pub struct_size: usize,
    /// `x`
    pub input: convrelu_input,
    /// `θ`, each for `inner` consecutive elements, all of them over and over.
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
    /// Zero.
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

/// The instruction set of a number; not `CONVRELU_ISA_AUTO`.
pub(super) fn isa_of(number: u32) -> Option<Isa> {
    ISAS.iter().find(|(n, _)| *n == number).map(|(_, isa)| *isa)
}

/// The number of an instruction set; `CONVRELU_ISA_AUTO` for one that has none.
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
