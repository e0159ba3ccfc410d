//! Initialisers: they fill structs with defaults.

use core::ptr::{null, null_mut};

use super::check::{expect_size, finish, write};
use super::error::{convrelu_error, convrelu_status};
use super::types::*;

/// Writes a struct where there is room for one of this version.
///
/// # Safety
///
/// `to` and `error` are **Struct pointers**.
unsafe fn init<T: Copy>(
    to: *mut T,
    struct_size: usize,
    argument: &'static str,
    value: T,
    error: *mut convrelu_error,
) -> convrelu_status {
    let make = || {
        expect_size::<T>(struct_size, argument)?;
        // SAFETY: **Struct pointer**: there is room for the struct.
        unsafe { write(to, argument, value) }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(make, error) }
}

/// A layer of `R` axes. They come first in the arrays, and the other entries are ignored.
fn plain<const R: usize>(
    batch: usize,
    [in_channels, out_channels]: [usize; 2],
    size: [usize; R],
    kernel: [usize; R],
) -> convrelu_desc {
    let axes = |values: [usize; R]| core::array::from_fn(|axis| values.get(axis).copied().unwrap_or(0));
    convrelu_desc {
        struct_size: size_of::<convrelu_desc>(),
        rank: R as u32,
        layout: CONVRELU_NCHW,
        batch,
        in_channels,
        out_channels,
        groups: 1,
        size: axes(size),
        kernel: axes(kernel),
        stride: [1; 3],
        dilation: [1; 3],
        padding_before: [0; 3],
        padding_after: [0; 3],
        output_padding: [0; 3],
        input_pitch: 0,
        output_pitch: 0,
        kind: CONVRELU_CONVOLUTION,
        reserved: [0; 7],
    }
}

/// Fills the descriptor of a 1D layer: a convolution with stride, dilation and groups 1, padding 0, channels first, and tensors
/// without gaps. Set other values afterwards, such as the kind `CONVRELU_TRANSPOSED`. `convrelu_plan_init` checks all of them.
///
/// `struct_size` is `sizeof(convrelu_desc)`.
///
/// # Safety
///
/// `desc` and `error` are **Struct pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_conv1d_init(
    desc: *mut convrelu_desc,
    struct_size: usize,
    batch: usize,
    in_channels: usize,
    out_channels: usize,
    size: usize,
    kernel: usize,
    error: *mut convrelu_error,
) -> convrelu_status {
    let value = plain(batch, [in_channels, out_channels], [size], [kernel]);
    // SAFETY: **Struct pointer**.
    unsafe { init(desc, struct_size, "desc", value, error) }
}

/// As `convrelu_conv1d_init`, for a 2D layer.
///
/// # Safety
///
/// `desc` and `error` are **Struct pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_conv2d_init(
    desc: *mut convrelu_desc,
    struct_size: usize,
    batch: usize,
    in_channels: usize,
    out_channels: usize,
    height: usize,
    width: usize,
    kernel_height: usize,
    kernel_width: usize,
    error: *mut convrelu_error,
) -> convrelu_status {
    let value = plain(batch, [in_channels, out_channels], [height, width], [kernel_height, kernel_width]);
    // SAFETY: **Struct pointer**.
    unsafe { init(desc, struct_size, "desc", value, error) }
}

/// As `convrelu_conv1d_init`, for a 3D layer.
///
/// # Safety
///
/// `desc` and `error` are **Struct pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_conv3d_init(
    desc: *mut convrelu_desc,
    struct_size: usize,
    batch: usize,
    in_channels: usize,
    out_channels: usize,
    depth: usize,
    height: usize,
    width: usize,
    kernel_depth: usize,
    kernel_height: usize,
    kernel_width: usize,
    error: *mut convrelu_error,
) -> convrelu_status {
    let kernel = [kernel_depth, kernel_height, kernel_width];
    let value = plain(batch, [in_channels, out_channels], [depth, height, width], kernel);
    // SAFETY: **Struct pointer**.
    unsafe { init(desc, struct_size, "desc", value, error) }
}

/// Fills an epilogue that changes nothing: no buffers, and bounds that are infinite.
///
/// `struct_size` is `sizeof(convrelu_epilogue)`.
///
/// # Safety
///
/// `epilogue` and `error` are **Struct pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_epilogue_init(
    epilogue: *mut convrelu_epilogue,
    struct_size: usize,
    error: *mut convrelu_error,
) -> convrelu_status {
    // SAFETY: **Struct pointer**.
    unsafe { init(epilogue, struct_size, "epilogue", NO_EPILOGUE, error) }
}

/// Fills the arguments of `convrelu_forward` with zeros and null pointers, and `threshold` with NaN. A call refuses the kind of
/// thresholds 0 (`CONVRELU_THRESHOLDS_UNSET`) and the threshold NaN, so that nobody forgets to set them.
///
/// `struct_size` is `sizeof(convrelu_forward_args)`.
///
/// # Safety
///
/// `args` and `error` are **Struct pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_forward_args_init(
    args: *mut convrelu_forward_args,
    struct_size: usize,
    error: *mut convrelu_error,
) -> convrelu_status {
    let value = convrelu_forward_args {
        struct_size: size_of::<convrelu_forward_args>(),
        input: NO_INPUT,
        weight: NO_INPUT,
        thresholds: NO_INPUT,
        bias: NO_INPUT,
        output: NO_OUTPUT,
        workspace: NO_OUTPUT,
        epilogue: null(),
        parallel_for: None,
        context: null_mut(),
        weight_kind: CONVRELU_WEIGHT_PLAIN,
        threshold_kind: CONVRELU_THRESHOLDS_UNSET,
        threshold: f32::NAN,
        reserved: [0; 5],
    };
    // SAFETY: **Struct pointer**.
    unsafe { init(args, struct_size, "args", value, error) }
}

/// As `convrelu_forward_args_init`, for `convrelu_backward_input`. Both gradients are left out. One that is set replaces what its
/// buffer holds.
///
/// # Safety
///
/// `args` and `error` are **Struct pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_backward_input_args_init(
    args: *mut convrelu_backward_input_args,
    struct_size: usize,
    error: *mut convrelu_error,
) -> convrelu_status {
    let value = convrelu_backward_input_args {
        struct_size: size_of::<convrelu_backward_input_args>(),
        input: NO_INPUT,
        weight: NO_INPUT,
        thresholds: NO_INPUT,
        grad_output: NO_INPUT,
        grad_input: NO_OUTPUT,
        grad_thresholds: NO_OUTPUT,
        workspace: NO_OUTPUT,
        parallel_for: None,
        context: null_mut(),
        weight_kind: CONVRELU_WEIGHT_PLAIN,
        threshold_kind: CONVRELU_THRESHOLDS_UNSET,
        threshold: f32::NAN,
        grad_input_accumulation: CONVRELU_OVERWRITE,
        grad_thresholds_accumulation: CONVRELU_OVERWRITE,
        reserved: [0; 5],
    };
    // SAFETY: **Struct pointer**.
    unsafe { init(args, struct_size, "args", value, error) }
}

/// As `convrelu_forward_args_init`, for `convrelu_backward_weight`. Both gradients are left out. One that is set replaces what
/// its buffer holds.
///
/// # Safety
///
/// `args` and `error` are **Struct pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_backward_weight_args_init(
    args: *mut convrelu_backward_weight_args,
    struct_size: usize,
    error: *mut convrelu_error,
) -> convrelu_status {
    let value = convrelu_backward_weight_args {
        struct_size: size_of::<convrelu_backward_weight_args>(),
        input: NO_INPUT,
        thresholds: NO_INPUT,
        grad_output: NO_INPUT,
        grad_weight: NO_OUTPUT,
        grad_bias: NO_OUTPUT,
        workspace: NO_OUTPUT,
        parallel_for: None,
        context: null_mut(),
        threshold_kind: CONVRELU_THRESHOLDS_UNSET,
        threshold: f32::NAN,
        grad_weight_accumulation: CONVRELU_OVERWRITE,
        grad_bias_accumulation: CONVRELU_OVERWRITE,
        reserved: [0; 4],
    };
    // SAFETY: **Struct pointer**.
    unsafe { init(args, struct_size, "args", value, error) }
}
