//! Gradients of the weight and of the bias.
//!
//! | algorithm | in lanes | chosen for |
//! |---|---|---|
//! | [`stripes`] | input channels | channels last; 1×1 layers; small planes |
//! | [`outer`] | input channels, perhaps of a row of taps | channels first; few channels |
//! | [`depthwise`](crate::depthwise) | channels | one channel per group |
//! | [`tiny`](crate::tiny) | nothing | very little work |

mod outer;
mod stripes;

use core::ops::Range;

use crate::arith::min;
use crate::calls::BackwardWeightCall;
use crate::depthwise::backward_weight as depthwise;
use crate::desc::{ConvDesc, volume};
use crate::error::Error;
use crate::geometry::Panels;
use crate::kernel::{Kernels, VECTORS};
use crate::layout::Layout;
use crate::operands::Gradient;
use crate::sums::add_positions;
use crate::threads::{Executor, Rest, for_each};
use crate::tiny::Tiny;
use crate::tuning::Tuning;

use outer::Outer;
use stripes::Stripes;

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
    Stripes(Stripes),
    Depthwise(depthwise::BackwardWeight),
    Tiny(Tiny),
}

/// Whether stripes are the faster way, where they apply: a stripe is copied for each tap, which a layer with channels first pays
/// on top of transposing its tensors; many taps of one copy are cheaper in [`outer`], unless the gradient of the weight is large
/// against the positions.
const fn suits_stripes(desc: &ConvDesc) -> bool {
    /// Positions of a small plane.
    const FEW_POSITIONS: usize = 100;
    matches!(desc.tensor_layout(), Layout::Nhwc) || desc.taps() == 1 || volume(desc.output_size()) <= FEW_POSITIONS
}

/// The output channels of one thread, with their gradients (that of the bias is added to) and its workspace.
struct WeightPart<'a> {
    channels: Range<usize>,
    grad_weight: Option<Gradient<'a>>,
    grad_bias: Option<&'a mut [f32]>,
    workspace: &'a mut [f32],
}

impl BackwardWeightPlan {
    pub(crate) const fn new(
        desc: &ConvDesc,
        kernels: &Kernels,
        tuning: &Tuning,
        threads: usize,
        tiny: Option<Tiny>,
    ) -> Self {
        if let Some(tiny) = tiny {
            return Self { driver: Driver::Tiny(tiny), unit: 1, parts: Panels::into_parts(1, 1), part_len: 0 };
        }
        let depthwise = match depthwise::BackwardWeight::new(desc, kernels, tuning) {
            Some(driver) if VECTORS && tuning.depthwise => Some(driver),
            _ => None,
        };
        let unit = if depthwise.is_some() { kernels.lanes } else { 1 };
        let units = desc.out_channels().div_ceil(unit);
        let parts = Panels::into_parts(units, if desc.batch() == 0 { 0 } else { threads });
        let own = min(parts.max() * unit, desc.out_channels());
        let (driver, part_len) = if let Some(driver) = depthwise {
            (Driver::Depthwise(driver), driver.workspace_len(desc, kernels, own))
        } else {
            let driver = Outer::new(desc, kernels, tuning, own);
            if VECTORS && driver.taps_in_lanes == 1 && suits_stripes(desc) && stripes::applies(desc, kernels, tuning) {
                let driver = Stripes::new(desc, kernels, tuning, own);
                (Driver::Stripes(driver), driver.buffers(desc, kernels).len())
            } else {
                (Driver::Outer(driver), driver.buffers(desc, kernels).len())
            }
        };
        Self { driver, unit, parts, part_len }
    }

    #[cfg(feature = "internal-testing")]
    pub(crate) fn algorithm(&self) -> &'static str {
        match self.driver {
            Driver::Depthwise(_) => "depthwise",
            Driver::Tiny(_) => "tiny",
            Driver::Stripes(_) => "stripes",
            Driver::Outer(Outer { taps_in_lanes: 2.., .. }) => "taps in lanes",
            Driver::Outer(_) => "panels",
        }
    }

    /// The plain loops, if they are planned.
    pub(crate) const fn tiny(&self) -> Option<&Tiny> {
        match &self.driver {
            Driver::Tiny(tiny) if VECTORS => Some(tiny),
            _ => None,
        }
    }

    pub(crate) const fn workspace_len(&self) -> usize {
        self.parts.count().saturating_mul(self.part_len)
    }

    /// Computes the gradients that are asked for; that of the bias is added to.
    pub(crate) fn run(
        &self,
        call: &BackwardWeightCall<'_>,
        grad_weight: Option<Gradient<'_>>,
        grad_bias: Option<&mut [f32]>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = call.desc;
        let filter = desc.group_in_channels() * desc.taps();
        let Self { unit, part_len, .. } = *self;
        if self.parts.count() == 0 {
            // An empty batch, and no task that would replace anything.
            grad_weight.map(Gradient::zeroed);
            return Ok(());
        }
        let mut grad_weight = grad_weight.map(|Gradient { values, accumulation }| (Rest::of(values), accumulation));
        let mut grad_bias = grad_bias.map(Rest::of);
        let mut workspace = Rest::of(workspace);
        let jobs = self.parts.iter().map(move |units| {
            let channels = units.start * unit..(units.end * unit).min(desc.out_channels());
            WeightPart {
                grad_weight: grad_weight
                    .as_mut()
                    .map(|(rest, accumulation)| Gradient::new(rest.cut(channels.len() * filter), *accumulation)),
                grad_bias: grad_bias.as_mut().map(|rest| rest.cut(channels.len())),
                workspace: workspace.cut(part_len),
                channels,
            }
        });
        for_each(executor, self.parts.count(), jobs, &|part| self.run_part(call, part))
    }

    fn run_part(&self, call: &BackwardWeightCall<'_>, part: WeightPart<'_>) {
        let WeightPart { channels, grad_weight, grad_bias, workspace } = part;
        if VECTORS && let Driver::Depthwise(driver) = &self.driver {
            let grad_weight = grad_weight.map(Gradient::zeroed);
            driver.run(call, depthwise::Part { channels, grad_weight, grad_bias, workspace });
            return;
        }
        if VECTORS && let Driver::Stripes(driver) = &self.driver {
            driver.run(call, channels, grad_weight, grad_bias, workspace);
            return;
        }
        if let Some(grad_bias) = grad_bias {
            let all = call.desc.output_size().map(|size| 0..size);
            add_positions(&call.desc.output_tensor(), call.grad_output, &[all], channels.clone(), grad_bias);
        }
        let Some(grad_weight) = grad_weight.map(Gradient::zeroed) else { return };
        match &self.driver {
            Driver::Outer(driver) => driver.run(call, channels, grad_weight, workspace),
            Driver::Depthwise(_) | Driver::Stripes(_) | Driver::Tiny(_) => {
                unreachable!("never planned, or done above")
            }
        }
    }
}
