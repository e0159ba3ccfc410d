//! The functions on plans and on tensors.
//!
//! Each is a thin shell: it turns pointers into references ([`check`](super::check)), calls the library, and reports. The
//! contracts that they cite are those of [the module](super).

use core::hash::{Hash, Hasher};

use super::check::{
    Extents, check_reserved, expect_size, finish, known, pointer, read_struct, slice, slice_mut, write, write_struct,
};
use super::error::{Fault, convrelu_error, convrelu_status};
use super::executor::Callback;
use super::types::*;
use crate::adarelu;
use crate::arith::max;
use crate::desc::{ConvDesc, ConvDescBuilder};
use crate::error::Error;
use crate::isa::Isa;
use crate::layout::Layout;
use crate::operands::{
    Accumulation, BackwardInput, BackwardWeight, Forward, Gradient, InputGradients, Pass, Thresholds, Weight,
    WeightGradients,
};
use crate::pass::{Layer, Packer};
use crate::tuning::Tuning;
use crate::weight::PackedWeight;

/// What `convrelu_plan.magic` holds: "CvRP".
const PLAN: u32 = 0x5052_7643;

/// What begins packed weights: "CvRW".
const PACKED: u32 = 0x5752_7643;

/// Elements of the header of packed weights.
const HEADER: usize = 16;

/// Writes major, minor and patch version of the library that was loaded.
///
/// # Safety
///
/// `error` is a **Struct pointer**, the others are **Number pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_version(
    major: *mut u32,
    minor: *mut u32,
    patch: *mut u32,
    error: *mut convrelu_error,
) -> convrelu_status {
    let get = || {
        pointer(major, "major")?;
        pointer(minor, "minor")?;
        pointer(patch, "patch")?;
        // SAFETY: **Number pointer**.
        unsafe {
            write(major, "major", CONVRELU_VERSION_MAJOR)?;
            write(minor, "minor", CONVRELU_VERSION_MINOR)?;
            write(patch, "patch", CONVRELU_VERSION_PATCH)
        }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(get, error) }
}

/// The best instruction set of this machine, a `CONVRELU_ISA_…`.
///
/// # Safety
///
/// `error` is a **Struct pointer**, `isa` a **Number pointer**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_isa_detect(isa: *mut u32, error: *mut convrelu_error) -> convrelu_status {
    // SAFETY: **Number pointer** and **Struct pointer**.
    unsafe { finish(|| write(isa, "isa", number_of(Isa::detect())), error) }
}

/// Whether (1 or 0) kernels of an instruction set can run here.
///
/// # Safety
///
/// `error` is a **Struct pointer**, `available` a **Number pointer**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_isa_available(
    isa: u32,
    available: *mut u32,
    error: *mut convrelu_error,
) -> convrelu_status {
    let get = || {
        let isa = known(isa_of(isa), "isa", isa)?;
        // SAFETY: **Number pointer**.
        unsafe { write(available, "available", u32::from(isa.is_available())) }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(get, error) }
}

/// The checked form of a descriptor, whose rank is 1 to 3.
fn checked(desc: &convrelu_desc, layout: Layout) -> Result<ConvDesc, Error> {
    fn build<const R: usize>(
        builder: ConvDescBuilder<R>,
        desc: &convrelu_desc,
        layout: Layout,
    ) -> Result<ConvDesc, Error> {
        let mut builder = builder
            .stride(first(&desc.stride))
            .dilation(first(&desc.dilation))
            .padding_before_after(first(&desc.padding_before), first(&desc.padding_after))
            .groups(desc.groups)
            .layout(layout);
        if desc.input_pitch != 0 {
            builder = builder.input_pitch(desc.input_pitch);
        }
        if desc.output_pitch != 0 {
            builder = builder.output_pitch(desc.output_pitch);
        }
        builder.build()
    }
    fn first<const R: usize>(values: &[usize; 3]) -> [usize; R] {
        core::array::from_fn(|axis| values[axis])
    }
    let convrelu_desc { batch, in_channels: i, out_channels: o, size, kernel, .. } = desc;
    match desc.rank {
        1 => build(ConvDesc::conv1d(*batch, *i, *o, first(size), first(kernel)), desc, layout),
        2 => build(ConvDesc::conv2d(*batch, *i, *o, first(size), first(kernel)), desc, layout),
        _ => build(ConvDesc::conv3d(*batch, *i, *o, *size, *kernel), desc, layout),
    }
}

/// Gives `call` the layer of a plan, whatever the bytes of the struct are; it plans the pass that it needs, if any.
fn planned<T>(plan: &convrelu_plan, call: impl FnOnce(Layer<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
    if plan.magic != PLAN {
        return Err(Fault::NotAPlan { magic: plan.magic as usize });
    }
    let desc = &plan.desc;
    expect_size::<convrelu_desc>(desc.struct_size, "desc")?;
    check_reserved(desc)?;
    let isa = known(isa_of(plan.isa), "isa", plan.isa)?;
    let rank = matches!(desc.rank, 1..=3).then_some(desc.rank);
    known(rank, "rank", desc.rank)?;
    let layout = known(layout_of(desc.layout), "layout", desc.layout)?;
    let desc = &checked(desc, layout)?;
    let kernels = isa.kernels().ok_or(Error::IsaUnavailable { isa })?;
    call(Layer { desc, kernels, tuning: &Tuning::DEFAULT, threads: max(plan.threads, 1) })
}

/// Gives `call` the layer of a plan of the caller's.
///
/// # Safety
///
/// **Struct pointer**.
unsafe fn with_plan<T>(
    plan: *const convrelu_plan,
    call: impl FnOnce(Layer<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    // SAFETY: **Struct pointer**.
    planned(&unsafe { read_struct(plan) }?, call)
}

/// Plans a layer for an instruction set (`CONVRELU_ISA_AUTO`: the best of this machine) and one thread.
///
/// `struct_size` is `sizeof(convrelu_plan)`. The plan may be copied and moved; it owns nothing.
///
/// # Safety
///
/// `plan`, `desc` and `error` are **Struct pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_plan_init(
    plan: *mut convrelu_plan,
    struct_size: usize,
    desc: *const convrelu_desc,
    isa: u32,
    error: *mut convrelu_error,
) -> convrelu_status {
    let make = || {
        expect_size::<convrelu_plan>(struct_size, "plan")?;
        // SAFETY: **Struct pointer**.
        let desc = unsafe { read_struct(desc)? };
        let isa = if isa == CONVRELU_ISA_AUTO { number_of(Isa::detect()) } else { isa };
        let value = convrelu_plan { struct_size, magic: PLAN, isa, threads: 1, desc, reserved: [0; 4] };
        planned(&value, |_| Ok(()))?;
        // SAFETY: **Struct pointer**: there is room for the struct.
        unsafe { write(plan, "plan", value) }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(make, error) }
}

/// Lets calls split into at most so many tasks (0 counts as 1), which `parallel_for` of their arguments spreads over threads.
/// A plan takes fewer where more would not pay. Results do not depend on it; workspaces do.
///
/// # Safety
///
/// `plan` and `error` are **Struct pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_plan_set_threads(
    plan: *mut convrelu_plan,
    threads: usize,
    error: *mut convrelu_error,
) -> convrelu_status {
    let set = || {
        // SAFETY: **Struct pointer**.
        let value = unsafe { read_struct(plan.cast_const())? };
        planned(&value, |_| Ok(()))?;
        // SAFETY: **Struct pointer**.
        unsafe { write_struct(plan, "plan", convrelu_plan { threads, ..value }) }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(set, error) }
}

/// The instruction set of a plan, a `CONVRELU_ISA_…`.
///
/// # Safety
///
/// `plan` and `error` are **Struct pointers**, `isa` a **Number pointer**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_plan_isa(
    plan: *const convrelu_plan,
    isa: *mut u32,
    error: *mut convrelu_error,
) -> convrelu_status {
    // SAFETY: **Number pointer**.
    let get = |layer: Layer<'_>| unsafe { write(isa, "isa", number_of(layer.kernels.isa)) };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, get), error) }
}

/// Lengths of all tensors of a plan's layer, gaps included.
///
/// # Safety
///
/// `plan`, `lens` and `error` are **Struct pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_plan_lens(
    plan: *const convrelu_plan,
    lens: *mut convrelu_lens,
    error: *mut convrelu_error,
) -> convrelu_status {
    let get = |layer: Layer<'_>| {
        let desc = layer.desc;
        let value = convrelu_lens {
            struct_size: size_of::<convrelu_lens>(),
            input: desc.input_len(),
            output: desc.output_len(),
            weight: desc.weight_len(),
            thresholds: desc.threshold_len(),
            bias: desc.bias_len(),
            packed_weight: packed_len(&layer.packer(layer.plan_forward().packing)),
            packed_weight_transposed: packed_len(&layer.packer(layer.plan_backward_input().packing)),
            output_size: desc.output_size(),
            reserved: [0; 4],
        };
        // SAFETY: **Struct pointer**.
        unsafe { write_struct(lens, "lens", value) }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, get), error) }
}

/// Elements of workspace that a pass (a `CONVRELU_FORWARD…` or `CONVRELU_BACKWARD_…`) needs.
///
/// # Safety
///
/// `plan` and `error` are **Struct pointers**, `len` a **Number pointer**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_workspace_len(
    plan: *const convrelu_plan,
    pass: u32,
    len: *mut usize,
    error: *mut convrelu_error,
) -> convrelu_status {
    let get = |layer: Layer<'_>| {
        let pass = known(pass_of(pass), "pass", pass)?;
        let value = match pass {
            Pass::Forward | Pass::ForwardPacked => {
                layer.pass(&layer.plan_forward()).workspace_len(pass == Pass::ForwardPacked)
            }
            Pass::BackwardInput | Pass::BackwardInputPacked => {
                layer.pass(&layer.plan_backward_input()).workspace_len(pass == Pass::BackwardInputPacked)
            }
            Pass::BackwardWeight => layer.pass(&layer.plan_backward_weight()).workspace_len(),
        };
        // SAFETY: **Number pointer**.
        unsafe { write(len, "len", value) }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, get), error) }
}

/// Fowler, Noll and Vo's hash (FNV-1a, 64 bits): what the headers of packed weights are compared by.
struct Fnv(u64);

impl Fnv {
    const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    fn of(value: &impl Hash) -> u64 {
        let mut hasher = Self::EMPTY;
        value.hash(&mut hasher);
        hasher.0
    }

    /// The hash of elements, a whole one at a step.
    fn of_elements(elements: &[f32]) -> u64 {
        elements.iter().fold(Self::EMPTY, |hash, element| hash.then(element.to_bits())).0
    }

    fn then(self, unit: impl Into<u64>) -> Self {
        Self((self.0 ^ unit.into()).wrapping_mul(0x0100_0000_01b3))
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            *self = Self(self.0).then(byte);
        }
    }
}

/// Elements of packed weights with their header.
fn packed_len(packer: &Packer<'_>) -> usize {
    packer.len().saturating_add(HEADER)
}

/// A pass that has packed weights.
#[derive(Clone, Copy, PartialEq)]
enum Packs {
    Forward,
    BackwardInput,
}

impl Packs {
    fn of(pass: u32) -> Result<Self, Fault> {
        match pass {
            CONVRELU_FORWARD | CONVRELU_FORWARD_PACKED => Ok(Self::Forward),
            CONVRELU_BACKWARD_INPUT | CONVRELU_BACKWARD_INPUT_PACKED => Ok(Self::BackwardInput),
            _ => Err(Fault::InvalidValue { argument: "pass", value: pass as usize }),
        }
    }

    /// What packs the weight of a layer for this pass.
    fn packer(self, layer: Layer<'_>) -> Packer<'_> {
        match self {
            Self::Forward => layer.packer(layer.plan_forward().packing),
            Self::BackwardInput => layer.packer(layer.plan_backward_input().packing),
        }
    }
}

/// The header of packed weights: what they are, where the elements begin, and hashes of the elements and of itself.
fn header(packer: &Packer<'_>, pass: Packs, skipped: usize, elements: u64) -> [u32; HEADER] {
    let halves = |value: u64| [value as u32, (value >> 32) as u32];
    let [layer_low, layer_high] = halves(Fnv::of(&packer.identity()));
    let [elements_low, elements_high] = halves(elements);
    let version = CONVRELU_VERSION_MAJOR << 16 | CONVRELU_VERSION_MINOR << 8 | CONVRELU_VERSION_PATCH;
    let mut header = [0; HEADER];
    header[..9].copy_from_slice(&[
        PACKED,
        version,
        number_of(packer.isa()),
        u32::from(pass == Packs::BackwardInput),
        // At most a vector.
        skipped as u32,
        layer_low,
        layer_high,
        elements_low,
        elements_high,
    ]);
    header[HEADER - 1] = Fnv::of(&header[..HEADER - 1].as_ref()) as u32;
    header
}

/// The packed weights behind a header, and the hash that their elements should have.
fn packed<'a>(packer: &Packer<'_>, pass: Packs, buffer: &'a [f32]) -> Result<(PackedWeight<'a>, u64), Fault> {
    let required = packed_len(packer);
    let Some((found, elements)) = buffer.split_first_chunk::<HEADER>() else {
        return Err(Error::BufferTooShort { argument: "weight", len: buffer.len(), required }.into());
    };
    let found = found.map(f32::to_bits);
    if found[0] != PACKED || found[HEADER - 1] != Fnv::of(&found[..HEADER - 1].as_ref()) as u32 {
        return Err(Fault::NotPacked);
    }
    let hash = u64::from(found[7]) | u64::from(found[8]) << 32;
    let skipped = found[4] as usize;
    if found != header(packer, pass, skipped, hash) {
        let packed = isa_of(found[2]).unwrap_or(Isa::Scalar);
        return Err(Error::PackedElsewhere { packed, plan: packer.isa() }.into());
    }
    if buffer.len() < required {
        return Err(Error::BufferTooShort { argument: "weight", len: buffer.len(), required }.into());
    }
    // A whole header that says something else has been forged.
    let elements = elements.get(skipped..).unwrap_or_default();
    let weight = packer.packed_before(elements).ok_or(Fault::NotPacked)?;
    Ok((weight, hash))
}

/// Packs a weight for many calls of `convrelu_forward` (`CONVRELU_FORWARD`) or `convrelu_backward_input`
/// (`CONVRELU_BACKWARD_INPUT`), with a header that says for which layer, pass, instruction set and version.
///
/// `buffer` holds `convrelu_lens.packed_weight` or `packed_weight_transposed` elements. They may be moved, and used by plans
/// of the same layer for any batch and image size.
///
/// # Safety
///
/// `plan` and `error` are **Struct pointers**, `weight` and `buffer` **Buffer pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_pack_weight(
    plan: *const convrelu_plan,
    pass: u32,
    weight: convrelu_input,
    buffer: convrelu_output,
    error: *mut convrelu_error,
) -> convrelu_status {
    let pack = |layer: Layer<'_>| {
        let pass = Packs::of(pass)?;
        let packer = pass.packer(layer);
        Extents::new([input("weight", weight), output("buffer", buffer)]).check()?;
        // SAFETY: **Buffer pointer**; they lie apart.
        let (weight, buffer) = unsafe { (slice(weight, "weight")?, slice_mut(buffer, "buffer")?) };
        let (len, required) = (buffer.len(), packed_len(&packer));
        let short = Error::BufferTooShort { argument: "buffer", len, required };
        if len < required {
            return Err(short.into());
        }
        let (head, rest) = buffer.split_first_chunk_mut::<HEADER>().ok_or(short)?;
        let first = rest.as_ptr();
        let packed = packer.pack(weight, rest)?;
        let skipped = (packed.data.as_ptr().addr() - first.addr()) / size_of::<f32>();
        *head = header(&packer, pass, skipped, Fnv::of_elements(packed.data)).map(f32::from_bits);
        Ok(())
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, pack), error) }
}

/// Whether a buffer holds the weights that `convrelu_pack_weight` packed for this plan and pass, every element of
/// them. Calls check the header alone.
///
/// # Safety
///
/// `plan` and `error` are **Struct pointers**, `buffer` is a **Buffer pointer**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_check_packed_weight(
    plan: *const convrelu_plan,
    pass: u32,
    buffer: convrelu_input,
    error: *mut convrelu_error,
) -> convrelu_status {
    let check = |layer: Layer<'_>| {
        // SAFETY: **Buffer pointer**; nothing is written.
        let buffer = unsafe { slice(buffer, "weight")? };
        let pass = Packs::of(pass)?;
        let (weight, hash) = packed(&pass.packer(layer), pass, buffer)?;
        if Fnv::of_elements(weight.data) == hash { Ok(()) } else { Err(Fault::NotPacked) }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, check), error) }
}

/// The thresholds that arguments name.
///
/// # Safety
///
/// That of [`slice`].
unsafe fn thresholds<'a>(kind: u32, uniform: f32, buffer: convrelu_input) -> Result<Thresholds<'a>, Fault> {
    match kind {
        // SAFETY: what `slice` asks.
        CONVRELU_THRESHOLDS_PER_TAP => Ok(Thresholds::PerTap(unsafe { slice(buffer, "thresholds")? })),
        CONVRELU_THRESHOLDS_LINEAR => Ok(Thresholds::LINEAR),
        CONVRELU_THRESHOLDS_RELU => Ok(Thresholds::RELU),
        // Not set, as a rule.
        CONVRELU_THRESHOLDS_UNIFORM if uniform.is_nan() => Err(Fault::UniformNan),
        CONVRELU_THRESHOLDS_UNIFORM => Ok(Thresholds::Uniform(uniform)),
        _ => Err(Fault::InvalidValue { argument: "threshold_kind", value: kind as usize }),
    }
}

/// The buffer of thresholds, or none where it is not read.
fn per_tap(kind: u32, buffer: convrelu_input) -> convrelu_input {
    if kind == CONVRELU_THRESHOLDS_PER_TAP { buffer } else { NO_INPUT }
}

/// Runs `call` with the weight that arguments name.
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

/// The extent of a buffer that is read.
fn input(name: &'static str, buffer: convrelu_input) -> (&'static str, *const f32, usize, bool) {
    (name, buffer.data, if buffer.data.is_null() { 0 } else { buffer.len }, false)
}

/// The extent of a buffer that is written.
fn output(name: &'static str, buffer: convrelu_output) -> (&'static str, *const f32, usize, bool) {
    (name, buffer.data, if buffer.data.is_null() { 0 } else { buffer.len }, true)
}

/// A buffer that is read and may be left out.
///
/// # Safety
///
/// That of [`slice`].
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

fn accumulation(number: u32, name: &'static str) -> Result<Accumulation, Fault> {
    known(accumulation_of(number), name, number)
}

/// Forward pass (eq. 8 with bias): see `ConvRelu::forward`.
///
/// # Safety
///
/// `plan`, `args` and `error` are **Struct pointers**. In `args`, buffers are **Buffer pointers**; `parallel_for` with
/// `context` is a **Callback**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_forward(
    plan: *const convrelu_plan,
    args: *const convrelu_forward_args,
    error: *mut convrelu_error,
) -> convrelu_status {
    let call = |layer: Layer<'_>| {
        // SAFETY: **Struct pointer**.
        let args = unsafe { read_struct(args)? };
        Extents::new([
            input("input", args.input),
            input("weight", args.weight),
            input("thresholds", per_tap(args.threshold_kind, args.thresholds)),
            input("bias", args.bias),
            output("output", args.output),
            output("workspace", args.workspace),
        ])
        .check()?;
        // SAFETY: **Buffer pointer**; what is written lies apart from all else. **Callback**.
        unsafe {
            let thresholds = thresholds(args.threshold_kind, args.threshold, args.thresholds)?;
            let bias = optional(args.bias, "bias")?;
            let (input, weight) = (slice(args.input, "input")?, slice(args.weight, "weight")?);
            let (output, workspace) = (slice_mut(args.output, "output")?, slice_mut(args.workspace, "workspace")?);
            let executor = Callback::new(args.parallel_for, args.context);
            let plan = layer.plan_forward();
            let pass = layer.pass(&plan);
            with_weight(&pass.packer(), Packs::Forward, args.weight_kind, weight, |weight| {
                pass.forward(Forward { input, weight, thresholds, bias, epilogue: None }, output, workspace, &executor)
            })
        }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, call), error) }
}

/// Gradients of the input and of the thresholds (eq. 5 and 6), whichever are asked for: see `ConvRelu::backward_input`.
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
    let call = |layer: Layer<'_>| {
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
        let add_input = accumulation(args.grad_input_accumulation, "grad_input_accumulation")?;
        let add_thresholds = accumulation(args.grad_thresholds_accumulation, "grad_thresholds_accumulation")?;
        // SAFETY: **Buffer pointer**; what is written lies apart from all else. **Callback**.
        unsafe {
            let thresholds = thresholds(args.threshold_kind, args.threshold, args.thresholds)?;
            let (input, weight) = (optional(args.input, "input")?, slice(args.weight, "weight")?);
            // Of an empty batch, null is all of it.
            let none = args.input.len == 0 && layer.desc.input_len() == 0;
            let input = if none { Some(&[][..]) } else { input };
            let grad_output = slice(args.grad_output, "grad_output")?;
            let gradients = InputGradients {
                grad_input: gradient(args.grad_input, "grad_input", add_input)?,
                grad_thresholds: gradient(args.grad_thresholds, "grad_thresholds", add_thresholds)?,
            };
            let workspace = slice_mut(args.workspace, "workspace")?;
            let executor = Callback::new(args.parallel_for, args.context);
            let plan = layer.plan_backward_input();
            let pass = layer.pass(&plan);
            with_weight(&pass.packer(), Packs::BackwardInput, args.weight_kind, weight, |weight| {
                let operands = BackwardInput { input, weight, thresholds, grad_output };
                pass.backward_input(None, operands, gradients, workspace, &executor)
            })
        }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, call), error) }
}

/// Gradients of the weight and of the bias, whichever are asked for: see `ConvRelu::backward_weight`.
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
    let call = |layer: Layer<'_>| {
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
            let thresholds = thresholds(args.threshold_kind, args.threshold, args.thresholds)?;
            let (input, grad_output) = (slice(args.input, "input")?, slice(args.grad_output, "grad_output")?);
            let gradients = WeightGradients {
                grad_weight: gradient(args.grad_weight, "grad_weight", add_weight)?,
                grad_bias: gradient(args.grad_bias, "grad_bias", add_bias)?,
            };
            let workspace = slice_mut(args.workspace, "workspace")?;
            let executor = Callback::new(args.parallel_for, args.context);
            Ok(layer.pass(&layer.plan_backward_weight()).backward_weight(
                BackwardWeight { input, thresholds, grad_output },
                gradients,
                workspace,
                &executor,
            )?)
        }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, call), error) }
}

/// `y = x` if `x > θ`, else `θ` (eq. 4), elementwise; each threshold stands for `inner` elements in a row: see
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
