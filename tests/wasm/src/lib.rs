//! The forward pass of one 2D layer for JavaScript, which owns all memory: see `run.mjs`.
#![no_std]

use core::slice;

use convrelu::{ConvDesc, ConvRelu, Error, Forward, Pass, Serial, Thresholds, Weight};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// One image, channels first, square kernels or flat ones, stride 1.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Layer {
    in_channels: usize,
    out_channels: usize,
    size: [usize; 2],
    kernel: [usize; 2],
    padding: [usize; 2],
}

impl Layer {
    fn plan(self) -> Result<ConvRelu, Error> {
        ConvDesc::conv2d(1, self.in_channels, self.out_channels, self.size, self.kernel)
            .padding(self.padding)
            .build()
            .map(ConvRelu::new)
    }
}

/// Floats of workspace that [`forward`] needs; `usize::MAX` for a layer that cannot be.
///
/// # Safety
///
/// `layer` points to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn workspace_len(layer: *const Layer) -> usize {
    // SAFETY: the caller's.
    let layer = unsafe { layer.read() };
    layer.plan().map_or(usize::MAX, |plan| plan.workspace_len(Pass::Forward))
}

/// Whether the layer could be computed.
///
/// # Safety
///
/// The pointers are aligned and lead to as many floats as the layer has, disjoint from one another.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn forward(
    layer: *const Layer,
    input: *const f32,
    weight: *const f32,
    thresholds: *const f32,
    output: *mut f32,
    workspace: *mut f32,
) -> bool {
    // SAFETY: the caller's.
    let Ok(plan) = (unsafe { layer.read() }).plan() else { return false };
    let desc = *plan.desc();
    // SAFETY: the caller's, for each of them.
    let (input, weight, thresholds, output, workspace) = unsafe {
        (
            slice::from_raw_parts(input, desc.input_len()),
            slice::from_raw_parts(weight, desc.weight_len()),
            slice::from_raw_parts(thresholds, desc.threshold_len()),
            slice::from_raw_parts_mut(output, desc.output_len()),
            slice::from_raw_parts_mut(workspace, plan.workspace_len(Pass::Forward)),
        )
    };
    let operands = Forward::new(input, Weight::Plain(weight), Thresholds::PerTap(thresholds));
    plan.forward(operands, output, workspace, &Serial).is_ok()
}
