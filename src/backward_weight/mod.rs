//! Gradients of the weight and of the bias.
//!
//! | algorithm | in lanes | chosen for |
//! |---|---|---|
//! | [`outer`] | input channels | most layers |
//! | [`depthwise`] | positions or channels | one channel per group |

mod depthwise;
mod outer;

use core::ops::Range;

use crate::blocking::Tuning;
use crate::depthwise::applies;
use crate::desc::{ConvDesc, volume};
use crate::geometry::Panels;
use crate::kernel::{Kernels, VECTORS};
use crate::layout::Layout;
use crate::parallel;
use crate::plan::{Accumulation, Thresholds};

use depthwise::Depthwise;
use outer::Outer;

/// How the backward pass of the weight runs on one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackwardWeightPlan {
    driver: Driver,
    /// Output channels that are not cut.
    unit: usize,
    /// Units of output channels of all groups, shared out among the threads: each owns its channels' gradients.
    parts: Panels,
    /// Elements of one thread's workspace.
    part_len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Driver {
    Outer(Outer),
    Depthwise(Depthwise),
}

/// Operands of a call, lengths checked.
pub(crate) struct BackwardWeightCall<'a> {
    pub(crate) desc: &'a ConvDesc,
    pub(crate) kernels: &'static Kernels,
    pub(crate) input: &'a [f32],
    pub(crate) thresholds: Thresholds<'a>,
    pub(crate) grad_output: &'a [f32],
    pub(crate) accumulation: Accumulation,
}

/// The output channels of one thread, with their gradients and its workspace.
struct Part<'a> {
    channels: Range<usize>,
    grad_weight: &'a mut [f32],
    grad_bias: Option<&'a mut [f32]>,
    workspace: &'a mut [f32],
}

impl BackwardWeightPlan {
    pub(crate) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning, threads: usize) -> Self {
        let depthwise = VECTORS && tuning.depthwise && applies(desc, kernels);
        let unit = if depthwise && matches!(desc.layout(), Layout::Nhwc) { kernels.lanes } else { 1 };
        let parts = Panels::into_parts(desc.out_channels() / unit, if desc.batch() == 0 { 0 } else { threads });
        let own = parts.max() * unit;
        let (driver, part_len) = if depthwise {
            let driver = Depthwise::new(desc, tuning);
            (Driver::Depthwise(driver), driver.workspace_len(desc, kernels, own))
        } else {
            let driver = Outer::new(desc, kernels, tuning, own);
            (Driver::Outer(driver), driver.workspace_len(desc, kernels))
        };
        Self { driver, unit, parts, part_len }
    }

    #[cfg(feature = "internal-testing")]
    pub(crate) fn algorithm(&self) -> &'static str {
        match self.driver {
            Driver::Depthwise(_) => "depthwise",
            Driver::Outer(Outer { taps_in_lanes: 2.., .. }) => "taps in lanes",
            Driver::Outer(_) => "panels",
        }
    }

    pub(crate) const fn workspace_len(&self) -> usize {
        self.parts.count().saturating_mul(self.part_len)
    }

    pub(crate) fn run(
        &self,
        call: &BackwardWeightCall<'_>,
        grad_weight: &mut [f32],
        mut grad_bias: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) {
        let desc = call.desc;
        if call.accumulation == Accumulation::Overwrite {
            grad_weight.fill(0.0);
            if let Some(grad_bias) = &mut grad_bias {
                grad_bias.fill(0.0);
            }
        }
        if self.parts.count() == 0 {
            return;
        }
        let filter = desc.group_in_channels() * desc.taps();
        let Self { unit, part_len, .. } = *self;
        let mut rest = Some((grad_weight, grad_bias, workspace));
        let jobs = self.parts.iter().map_while(move |units| {
            let channels = units.start * unit..units.end * unit;
            let (grad_weight, grad_bias, workspace) = rest.take()?;
            let (grad_weight, grad_weight_rest) = grad_weight.split_at_mut(channels.len() * filter);
            let (grad_bias, grad_bias_rest) = grad_bias.map(|bias| bias.split_at_mut(channels.len())).unzip();
            let (workspace, workspace_rest) = workspace.split_at_mut(part_len);
            rest = Some((grad_weight_rest, grad_bias_rest, workspace_rest));
            Some(Part { channels, grad_weight, grad_bias, workspace })
        });
        parallel::for_each(self.parts.count(), jobs, &|part| self.run_part(call, part));
    }

    fn run_part(&self, call: &BackwardWeightCall<'_>, part: Part<'_>) {
        let Part { channels, grad_weight, grad_bias, workspace } = part;
        if let Some(grad_bias) = grad_bias {
            add_bias_gradient(call.desc, call.grad_output, channels.clone(), grad_bias);
        }
        match &self.driver {
            Driver::Outer(driver) => driver.run(call, channels, grad_weight, workspace),
            Driver::Depthwise(driver) if VECTORS => driver.run(call, channels, grad_weight, workspace),
            Driver::Depthwise(_) => unreachable!("a driver that is never planned"),
        }
    }
}

/// Adds the sums of the output's gradient over images and positions (eq. for ∂E/∂b) for `channels`.
fn add_bias_gradient(desc: &ConvDesc, grad_output: &[f32], channels: Range<usize>, grad_bias: &mut [f32]) {
    let positions = volume(desc.output_size());
    for image in grad_output.chunks_exact(desc.output_image_len()).take(desc.batch()) {
        match desc.layout() {
            Layout::Nchw => {
                let planes = image.chunks_exact(positions).skip(channels.start);
                for (bias, plane) in grad_bias.iter_mut().zip(planes) {
                    *bias += sum(plane);
                }
            }
            Layout::Nhwc => {
                for pixel in image.chunks_exact(desc.out_channels()) {
                    grad_bias.iter_mut().zip(&pixel[channels.clone()]).for_each(|(bias, g)| *bias += g);
                }
            }
        }
    }
}

/// A sum in sixteen partial sums: one would wait for each addition, and round more.
fn sum(values: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    let chunks = values.chunks_exact(16);
    let tail = chunks.remainder();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, v)| *sum += v);
    }
    sums.iter().chain(tail).sum()
}
