//! Makes plans of descriptors, and answers questions about plans.

use super::check::{check_reserved, expect_size, finish, known, read_struct, write, write_struct};
use super::error::{Fault, convrelu_error, convrelu_status};
use super::packed::{Packs, packed_len};
use super::types::*;
use crate::arith::max;
use crate::desc::ConvDesc;
use crate::error::Error;
use crate::isa::Isa;
use crate::layout::Layout;
use crate::operands::Pass;
use crate::pass::Layer;
use crate::transposed::{ConvTransposeDesc, ConvTransposeDescBuilder};
use crate::tuning::Tuning;

/// The value of `convrelu_plan.magic`: "CvRP".
const PLAN: u32 = 0x5052_7643;

/// The layer that a plan computes. A call plans only the pass that it needs.
#[derive(Clone, Copy)]
pub(super) enum Convolution<'a> {
    Plain(Layer<'a>),
    /// A transposed convolution, with the layer that it mirrors.
    Transposed(Layer<'a>, TransposedBuilt),
}

/// Says that the build has transposed convolutions. If it has none, this type has no value, and the compiler leaves out the code
/// of [`Convolution::Transposed`].
#[derive(Clone, Copy)]
pub(super) enum TransposedBuilt {
    #[cfg(feature = "capi-transposed")]
    Yes,
}

impl TransposedBuilt {
    #[cfg(feature = "capi-transposed")]
    const OF_BUILD: Option<Self> = Some(Self::Yes);
    #[cfg(not(feature = "capi-transposed"))]
    const OF_BUILD: Option<Self> = None;
}

impl<'a> Convolution<'a> {
    /// The layer whose kernels run.
    pub(super) fn layer(self) -> Layer<'a> {
        match self {
            Self::Plain(layer) | Self::Transposed(layer, _) => layer,
        }
    }

    pub(super) fn is_transposed(self) -> bool {
        matches!(self, Self::Transposed(..))
    }

    fn isa(self) -> Isa {
        self.layer().kernels.isa
    }

    fn lens(self) -> convrelu_lens {
        macro_rules! of {
            ($desc:expr, $thresholds:expr) => {{
                let desc = $desc;
                let packed = |pass: Packs| packed_len(&pass.packer(self.layer()));
                convrelu_lens {
                    struct_size: size_of::<convrelu_lens>(),
                    input: desc.input_len(),
                    output: desc.output_len(),
                    weight: desc.weight_len(),
                    thresholds: $thresholds,
                    bias: desc.bias_len(),
                    packed_weight: packed(Packs::forward(self)),
                    packed_weight_transposed: packed(Packs::backward_input(self)),
                    output_size: desc.output_size(),
                    reserved: [0; 4],
                }
            }};
        }
        match self {
            Self::Plain(layer) => of!(layer.desc, layer.desc.threshold_len()),
            Self::Transposed(layer, _) => of!(ConvTransposeDesc::mirroring(layer.desc), 0),
        }
    }

    fn workspace_len(self, pass: Pass) -> usize {
        let packed = matches!(pass, Pass::ForwardPacked | Pass::BackwardInputPacked);
        let layer = self.layer();
        match (pass, self) {
            (Pass::Forward | Pass::ForwardPacked, Self::Plain(_)) => {
                layer.pass(&layer.plan_forward()).workspace_len(packed)
            }
            (Pass::BackwardInput | Pass::BackwardInputPacked, Self::Transposed(..)) => {
                layer.pass(&layer.plan_forward()).transposed_workspace_len(packed)
            }
            (Pass::BackwardWeight, _) => layer.pass(&layer.plan_backward_weight()).workspace_len(),
            _ => layer.pass(&layer.plan_backward_input()).workspace_len(packed),
        }
    }
}

/// The checked form of a descriptor, whose rank must be 1 to 3. For a transposed one it is that of the mirrored convolution.
///
/// Every rank is checked as three axes, so that this code is in a program once.
fn checked(desc: &convrelu_desc, layout: Layout, transposed: Option<TransposedBuilt>) -> Result<ConvDesc, Error> {
    let rank = desc.rank as usize;
    let axes = |&[first, second, third]: &[usize; 3], leading: usize| match rank {
        1 => [leading, leading, first],
        2 => [leading, first, second],
        _ => [first, second, third],
    };
    let convrelu_desc { batch, in_channels, out_channels, size, kernel, .. } = desc;
    let mut builder = ConvDesc::conv3d(*batch, *in_channels, *out_channels, axes(size, 1), axes(kernel, 1))
        .of_rank(rank)
        .stride(axes(&desc.stride, 1))
        .dilation(axes(&desc.dilation, 1))
        .padding_before_after(axes(&desc.padding_before, 0), axes(&desc.padding_after, 0))
        .groups(desc.groups)
        .layout(layout);
    if desc.input_pitch != 0 {
        builder = builder.input_pitch(desc.input_pitch);
    }
    if desc.output_pitch != 0 {
        builder = builder.output_pitch(desc.output_pitch);
    }
    if transposed.is_some() {
        let builder = ConvTransposeDescBuilder::of_layer(builder).output_padding(axes(&desc.output_padding, 0));
        return builder.build().map(|desc| desc.mirrored());
    }
    builder.build()
}

/// Calls `call` with the layer of a plan. The struct may hold any bytes.
fn planned<T>(plan: &convrelu_plan, call: impl FnOnce(Convolution<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
    if plan.magic != PLAN {
        return Err(Fault::NotAPlan { magic: plan.magic as usize });
    }
    let desc = &plan.desc;
    expect_size::<convrelu_desc>(desc.struct_size, "desc")?;
    check_reserved(desc)?;
    let isa = known(isa_of(plan.isa), "isa", plan.isa)?;
    let rank = matches!(desc.rank, 1..=3).then_some(desc.rank);
    let rank = known(rank, "rank", desc.rank)?;
    let layout = known(layout_of(desc.layout), "layout", desc.layout)?;
    let transposed = if known(is_transposed(desc.kind), "kind", desc.kind)? {
        Some(TransposedBuilt::OF_BUILD.ok_or(Fault::LeftOut { argument: "kind" })?)
    } else {
        None
    };
    let output_padding = desc.output_padding.iter().take(rank as usize).find(|padding| **padding != 0);
    if let (None, Some(&value)) = (transposed, output_padding) {
        return Err(Fault::NotApplicable { argument: "output_padding", value });
    }
    let desc = &checked(desc, layout, transposed)?;
    let kernels = isa.kernels().ok_or(Error::IsaUnavailable { isa })?;
    let layer = Layer { desc, kernels, tuning: &Tuning::DEFAULT, threads: max(plan.threads, 1) };
    call(match transposed {
        Some(built) => Convolution::Transposed(layer, built),
        None => Convolution::Plain(layer),
    })
}

/// Calls `call` with the layer of the caller's plan.
///
/// # Safety
///
/// **Struct pointer**.
pub(super) unsafe fn with_plan<T>(
    plan: *const convrelu_plan,
    call: impl FnOnce(Convolution<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    // SAFETY: **Struct pointer**.
    planned(&unsafe { read_struct(plan) }?, call)
}

/// Plans a layer for an instruction set (`CONVRELU_ISA_AUTO`: the best of this machine) and one thread.
///
/// `struct_size` is `sizeof(convrelu_plan)`. You may copy and move the plan, because it owns nothing.
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

/// Lets calls split into at most `threads` tasks (0 counts as 1). The `parallel_for` of their arguments spreads them over
/// threads. A call makes fewer tasks where more would not pay. The number does not change results, but it changes the lengths of
/// workspaces.
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
    let get = |layer: Convolution<'_>| unsafe { write(isa, "isa", number_of(layer.isa())) };
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
    // SAFETY: **Struct pointer**.
    let get = |layer: Convolution<'_>| unsafe { write_struct(lens, "lens", layer.lens()) };
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
    let get = |layer: Convolution<'_>| {
        let pass = known(pass_of(pass), "pass", pass)?;
        // SAFETY: **Number pointer**.
        unsafe { write(len, "len", layer.workspace_len(pass)) }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(|| with_plan(plan, get), error) }
}
