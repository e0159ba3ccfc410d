//! AdaReLU, elementwise.

use super::check::{Extents, accumulation, finish, input, output, read_struct, slice, slice_mut};
use super::error::{convrelu_error, convrelu_status};
use super::types::*;
use crate::adarelu;

/// `y = x` if `x > θ`, else `θ` (eq. 4), for each element. Each threshold covers `inner` elements in a row: see
/// `adarelu::forward`.
///
/// # Safety
///
/// `error` is a **Struct pointer**, buffers are **Buffer pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_adarelu_forward(
    x: convrelu_input,
    thresholds: convrelu_input,
    inner: usize,
    y: convrelu_output,
    error: *mut convrelu_error,
) -> convrelu_status {
    let call = || {
        Extents::new([input("input", x), input("thresholds", thresholds), output("output", y)]).check()?;
        // SAFETY: **Buffer pointer**; what is written lies apart from all else.
        unsafe {
            let (x, thresholds) = (slice(x, "input")?, slice(thresholds, "thresholds")?);
            Ok(adarelu::forward(x, thresholds, inner, slice_mut(y, "output")?)?)
        }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(call, error) }
}

/// Gradients of AdaReLU's input and thresholds (eq. 5 and 6): see `adarelu::backward`.
///
/// # Safety
///
/// `args` and `error` are **Struct pointers**. In `args`, buffers are **Buffer pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_adarelu_backward(
    args: *const convrelu_adarelu_backward_args,
    error: *mut convrelu_error,
) -> convrelu_status {
    let call = || {
        // SAFETY: **Struct pointer**.
        let args = unsafe { read_struct(args)? };
        Extents::new([
            input("input", args.input),
            input("thresholds", args.thresholds),
            input("grad_output", args.grad_output),
            output("grad_input", args.grad_input),
            output("grad_thresholds", args.grad_thresholds),
        ])
        .check()?;
        let accumulation = accumulation(args.accumulation, "accumulation")?;
        // SAFETY: **Buffer pointer**; what is written lies apart from all else.
        unsafe {
            let (x, thresholds) = (slice(args.input, "input")?, slice(args.thresholds, "thresholds")?);
            let grad_output = slice(args.grad_output, "grad_output")?;
            let grad_input = slice_mut(args.grad_input, "grad_input")?;
            let grad_thresholds = slice_mut(args.grad_thresholds, "grad_thresholds")?;
            let inner = args.inner;
            Ok(adarelu::backward(x, thresholds, inner, grad_output, grad_input, grad_thresholds, accumulation)?)
        }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(call, error) }
}
