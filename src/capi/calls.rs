//! The passes of a plan.
//!
//! Each function turns pointers into references ([`check`](super::check)), calls the library, and reports the result. The
//! contracts that the comments name are those of [the module](super).

use super::check::{Extents, accumulation, finish, input, output, read_struct, slice, slice_mut};
use super::error::{Fault, convrelu_error, convrelu_status};
use super::executor::Callback;
use super::packed::{Packs, packed};
use super::plan::{Convolution, with_plan};
use super::types::*;
use crate::error::Error;
use crate::operands::{
    Accumulation, BackwardInput, BackwardWeight, Epilogue, Forward, Gradient, InputGradients, Residual, Thresholds,
    Weight, WeightGradients,
};
use crate::pass::Packer;
use crate::transposed;

/// Whether the build has epilogues.
const EPILOGUES: bool = cfg!(feature = "capi-epilogues");

/// The thresholds that the arguments name. A transposed convolution has none, so its arguments need not name any.
///
/// # Safety
///
/// That of [`slice()`].
unsafe fn thresholds<'a>(
    layer: Convolution<'_>,
    kind: u32,
    uniform: f32,
    buffer: convrelu_input,
) -> Result<Thresholds<'a>, Fault> {
    let argument = "threshold_kind";
    match kind {
        CONVRELU_THRESHOLDS_LINEAR => Ok(Thresholds::LINEAR),
        CONVRELU_THRESHOLDS_UNSET if layer.is_transposed() => Ok(Thresholds::LINEAR),
        _ if layer.is_transposed() => Err(Fault::NotApplicable { argument, value: kind as usize }),
        // SAFETY: what `slice` asks.
        CONVRELU_THRESHOLDS_PER_TAP => Ok(Thresholds::PerTap(unsafe { slice(buffer, "thresholds")? })),
        CONVRELU_THRESHOLDS_RELU => Ok(Thresholds::RELU),
        // The initialiser sets NaN. So most callers with a NaN here have forgotten to set the threshold.
        CONVRELU_THRESHOLDS_UNIFORM if uniform.is_nan() => Err(Fault::UniformNan),
        CONVRELU_THRESHOLDS_UNIFORM => Ok(Thresholds::Uniform(uniform)),
        _ => Err(Fault::InvalidValue { argument, value: kind as usize }),
    }
}

/// The buffer of thresholds, or an empty one if the call does not read it.
fn per_tap(kind: u32, buffer: convrelu_input) -> convrelu_input {
    if kind == CONVRELU_THRESHOLDS_PER_TAP { buffer } else { NO_INPUT }
}

/// Runs `call` with the weight that the arguments name.
fn with_weight(
    packer: &Packer<'_>,
    pass: Packs,
    kind: u32,
    weight: &[f32],
    call: impl FnOnce(Weight<'_>) -> Result<(), Error>,
) -> Result<(), Fault> {
    match kind {
        CONVRELU_WEIGHT_PLAIN => Ok(call(Weight::Plain(weight))?),
        CONVRELU_WEIGHT_PACKED => {
            let (weight, _) = packed(packer, pass, weight)?;
            Ok(call(Weight::Packed(&weight))?)
        }
        _ => Err(Fault::InvalidValue { argument: "weight_kind", value: kind as usize }),
    }
}

/// A buffer to read that may be left out.
///
/// # Safety
///
/// That of [`slice()`].
unsafe fn optional<'a>(buffer: convrelu_input, name: &'static str) -> Result<Option<&'a [f32]>, Fault> {
    // SAFETY: what `slice` asks.
    if buffer.data.is_null() { Ok(None) } else { unsafe { slice(buffer, name).map(Some) } }
}

/// A gradient that may be left out.
///
/// # Safety
///
/// That of [`slice_mut`].
unsafe fn gradient<'a>(
    buffer: convrelu_output,
    name: &'static str,
    accumulation: Accumulation,
) -> Result<Option<Gradient<'a>>, Fault> {
    if buffer.data.is_null() {
        return Ok(None);
    }
    // SAFETY: what `slice_mut` asks.
    let values = unsafe { slice_mut(buffer, name)? };
    Ok(Some(Gradient::new(values, accumulation)))
}

/// The epilogue that the arguments name.
///
/// # Safety
///
/// That of [`slice()`].
unsafe fn epilogue<'a>(value: &convrelu_epilogue) -> Result<Epilogue<'a>, Fault> {
    let accumulation = accumulation(value.output_accumulation, "output_accumulation")?;
    // SAFETY: what `slice` asks.
    let [scale, shift, residual] = unsafe {
        [optional(value.scale, "scale")?, optional(value.shift, "shift")?, optional(value.residual, "residual")?]
    };
    let mut epilogue = Epilogue::new().clamp(value.low, value.high);
    (epilogue.scale, epilogue.shift) = (scale, shift);
    epilogue.residual = match (residual, accumulation) {
        (Some(_), Accumulation::Add) => return Err(Fault::NotApplicable { argument: "residual", value: 0 }),
        (Some(values), Accumulation::Overwrite) => Some(Residual::Tensor(values)),
        (None, Accumulation::Add) => Some(Residual::Output),
        (None, Accumulation::Overwrite) => None,
    };
    Ok(epilogue)
}

/// Forward pass (eq. 8 with bias): see `ConvRelu::forward`, and `ConvTranspose::forward` for a transposed convolution.
///
/// # Safety
///
/// `plan`, `args` and `error` are **Struct pointers**. In `args`, `epilogue` is a **Struct pointer**; buffers, those of the
/// epilogue too, are **Buffer pointers**; `parallel_for` with `context` is a **Callback**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_forward(
    plan: *const convrelu_plan,
    args: *const convrelu_forward_args,
    error: *mut convrelu_error,
) -> convrelu_status {
    let call = |layer: Convolution<'_>| {
        // SAFETY: **Struct pointer**.
        let (args, ending) = unsafe {
            let args: convrelu_forward_args = read_struct(args)?;
            (args, if args.epilogue.is_null() { None } else { Some(read_struct(args.epilogue)?) })
        };
        if ending.is_some() && !EPILOGUES {
            return Err(Fault::LeftOut { argument: "epilogue" });
        }
        if ending.is_some() && layer.is_transposed() {
            return Err(Fault::NotApplicable { argument: "epilogue", value: 0 });
        }
        let parts = ending.unwrap_or(NO_EPILOGUE);
        Extents::new([
            input("input", args.input),
            input("weight", args.weight),
            input("thresholds", per_tap(args.threshold_kind, args.thresholds)),
            input("bias", args.bias),
            input("scale", parts.scale),
            input("shift", parts.shift),
            input("residual", parts.residual),
            output("output", args.output),
            output("workspace", args.workspace),
        ])
        .check()?;
        // SAFETY: **Buffer pointer**; what is written lies apart from all else. **Callback**.
        unsafe {
            let thresholds = thresholds(layer, args.threshold_kind, args.threshold, args.thresholds)?;
            let bias = optional(args.bias, "bias")?;
            let (input, weight) = (slice(args.input, "input")?, slice(args.weight, "weight")?);
            let (output, workspace) = (slice_mut(args.output, "output")?, slice_mut(args.workspace, "workspace")?);
            let executor = Callback::new(args.parallel_for, args.context);
            let epilogue = match &ending {
                Some(ending) if EPILOGUES => Some(epilogue(ending)?),
                _ => None,
            };
            match layer {
                Convolution::Plain(layer) => {
                    let plan = layer.plan_forward();
                    let pass = layer.pass(&plan);
                    with_weight(&pass.packer(), Packs::Forward, args.weight_kind, weight, |weight| {
                        let operands = Forward { input, weight, thresholds, bias, epilogue };
                        pass.forward(operands, output, workspace, &executor)
                    })
                }
                Convolution::Transposed(layer, _) => {
                    let plan = layer.plan_backward_input();
                    let pass = layer.pass(&plan);
                    with_weight(&pass.packer(), Packs::TransposedForward, args.weight_kind, weight, |weight| {
                        let operands = transposed::Forward { input, weight, bias };
                        pass.transposed_forward(operands, output, workspace, &executor)
                    })
                }
            }
        }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, call), error) }
}

/// Gradients of the input and of the thresholds (eq. 5 and 6): those whose buffers are not null. See `ConvRelu::backward_input`,
/// and `ConvTranspose::backward_input` for a transposed convolution.
///
/// # Safety
///
/// As for `convrelu_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_backward_input(
    plan: *const convrelu_plan,
    args: *const convrelu_backward_input_args,
    error: *mut convrelu_error,
) -> convrelu_status {
    let call = |layer: Convolution<'_>| {
        // SAFETY: **Struct pointer**.
        let args = unsafe { read_struct(args)? };
        Extents::new([
            input("input", args.input),
            input("weight", args.weight),
            input("thresholds", per_tap(args.threshold_kind, args.thresholds)),
            input("grad_output", args.grad_output),
            output("grad_input", args.grad_input),
            output("grad_thresholds", args.grad_thresholds),
            output("workspace", args.workspace),
        ])
        .check()?;
        if !args.grad_thresholds.data.is_null() && layer.is_transposed() {
            return Err(Fault::NotApplicable { argument: "grad_thresholds", value: 0 });
        }
        let add_input = accumulation(args.grad_input_accumulation, "grad_input_accumulation")?;
        let add_thresholds = accumulation(args.grad_thresholds_accumulation, "grad_thresholds_accumulation")?;
        // SAFETY: **Buffer pointer**; what is written lies apart from all else. **Callback**.
        unsafe {
            let thresholds = thresholds(layer, args.threshold_kind, args.threshold, args.thresholds)?;
            let (input, weight) = (optional(args.input, "input")?, slice(args.weight, "weight")?);
            let grad_output = slice(args.grad_output, "grad_output")?;
            let grad_input = gradient(args.grad_input, "grad_input", add_input)?;
            let grad_thresholds = gradient(args.grad_thresholds, "grad_thresholds", add_thresholds)?;
            let workspace = slice_mut(args.workspace, "workspace")?;
            let executor = Callback::new(args.parallel_for, args.context);
            match layer {
                Convolution::Plain(layer) => {
                    // The input of an empty batch has no elements, so null is a complete one.
                    let none = args.input.len == 0 && layer.desc.input_len() == 0;
                    let input = if none { Some(&[][..]) } else { input };
                    let plan = layer.plan_backward_input();
                    let pass = layer.pass(&plan);
                    with_weight(&pass.packer(), Packs::BackwardInput, args.weight_kind, weight, |weight| {
                        let operands = BackwardInput { input, weight, thresholds, grad_output };
                        let gradients = InputGradients { grad_input, grad_thresholds };
                        pass.backward_input(None, operands, gradients, workspace, &executor)
                    })
                }
                Convolution::Transposed(layer, _) => {
                    let plan = layer.plan_forward();
                    let pass = layer.pass(&plan);
                    with_weight(&pass.packer(), Packs::TransposedBackwardInput, args.weight_kind, weight, |weight| {
                        let operands = transposed::BackwardInput { weight, grad_output };
                        pass.transposed_backward_input(operands, grad_input, workspace, &executor)
                    })
                }
            }
        }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, call), error) }
}

/// Gradients of the weight and of the bias: those whose buffers are not null. See `ConvRelu::backward_weight`, and
/// `ConvTranspose::backward_weight` for a transposed convolution.
///
/// # Safety
///
/// As for `convrelu_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_backward_weight(
    plan: *const convrelu_plan,
    args: *const convrelu_backward_weight_args,
    error: *mut convrelu_error,
) -> convrelu_status {
    let call = |layer: Convolution<'_>| {
        // SAFETY: **Struct pointer**.
        let args = unsafe { read_struct(args)? };
        Extents::new([
            input("input", args.input),
            input("thresholds", per_tap(args.threshold_kind, args.thresholds)),
            input("grad_output", args.grad_output),
            output("grad_weight", args.grad_weight),
            output("grad_bias", args.grad_bias),
            output("workspace", args.workspace),
        ])
        .check()?;
        let add_weight = accumulation(args.grad_weight_accumulation, "grad_weight_accumulation")?;
        let add_bias = accumulation(args.grad_bias_accumulation, "grad_bias_accumulation")?;
        // SAFETY: **Buffer pointer**; what is written lies apart from all else. **Callback**.
        unsafe {
            let thresholds = thresholds(layer, args.threshold_kind, args.threshold, args.thresholds)?;
            let (input, grad_output) = (slice(args.input, "input")?, slice(args.grad_output, "grad_output")?);
            let gradients = WeightGradients {
                grad_weight: gradient(args.grad_weight, "grad_weight", add_weight)?,
                grad_bias: gradient(args.grad_bias, "grad_bias", add_bias)?,
            };
            let workspace = slice_mut(args.workspace, "workspace")?;
            let executor = Callback::new(args.parallel_for, args.context);
            let plan = layer.layer().plan_backward_weight();
            let pass = layer.layer().pass(&plan);
            match layer {
                Convolution::Plain(_) => {
                    let operands = BackwardWeight { input, thresholds, grad_output };
                    pass.backward_weight(operands, gradients, workspace, &executor)?;
                }
                Convolution::Transposed(..) => {
                    let operands = transposed::BackwardWeight { input, grad_output };
                    pass.transposed_backward_weight(operands, gradients, workspace, &executor)?;
                }
            }
            Ok(())
        }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, call), error) }
}
