//! The forward pass: which algorithm a layer takes, and how its output is shared out among threads.
//!
//! | algorithm | in lanes | the clamp is paid | chosen for |
//! |---|---|---|---|
//! | [`direct`] | positions | at each load, once per panel of output channels | few output channels, or few steps to sum |
//! | [`depthwise`](crate::depthwise) | channels | at each load | one channel per group |
//! | [`batch_reduce`] | output channels | at each broadcast, once per panel of output channels | all others |
//! | [`tiny`](crate::tiny) | nothing | for each position and tap | very little work |

mod batch_reduce;
mod direct;

use core::ops::Range;

use crate::arith::{equal, min};
use crate::calls::ForwardCall;
use crate::depthwise::forward as depthwise;
use crate::desc::{ConvDesc, volume};
use crate::error::Error;
use crate::geometry::Panels;
use crate::kernel::{Kernels, VECTORS, View};
use crate::layout::Layout;
use crate::taps::Grid;
use crate::threads::{Executor, Rest, for_each};
use crate::tiny::Tiny;
use crate::tuning::{ForwardAlgorithm, Tuning};
use crate::weight::Packing;

use batch_reduce::BatchReduce;
use direct::Direct;

/// How the forward pass of one layer runs on one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardPlan {
    driver: Driver,
    pub(crate) packing: Packing,
    split: Split,
    /// Elements of one thread's workspace.
    part_len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Driver {
    Direct(Direct),
    BatchReduce(BatchReduce),
    Depthwise(depthwise::Forward),
    Tiny(Tiny),
}

/// What the threads share out among themselves. Outputs do not depend on it: each is summed in one order.
#[derive(Clone, Copy, Debug)]
struct Split {
    axis: SplitAxis,
    /// Images, panels of all groups, or positions along an axis.
    parts: Panels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SplitAxis {
    Images,
    Panels,
    /// Along one spatial axis; the axes before it have extent 1.
    Positions(usize),
}

/// The output that one thread computes.
struct OutputPart<'a> {
    output: View<'a>,
    images: Range<usize>,
    /// Panels of all groups.
    panels: Range<usize>,
    /// Output positions.
    space: [Range<usize>; 3],
    workspace: &'a mut [f32],
}

impl ForwardPlan {
    pub(crate) const fn new(
        desc: &ConvDesc,
        kernels: &Kernels,
        tuning: &Tuning,
        threads: usize,
        tiny: Option<Tiny>,
    ) -> Self {
        let depthwise = if VECTORS { depthwise::Forward::new(desc, kernels, tuning) } else { None };
        let algorithm = match tuning.forward {
            Some(algorithm) => algorithm,
            None if depthwise.is_some() => ForwardAlgorithm::Depthwise,
            None => choose(desc, kernels),
        };
        let channels = desc.group_out_channels();
        let lanes = Packing::lanes(desc, min(kernels.channel_vectors, tuning.tile), kernels.lanes);
        let (algorithm, packing) = match algorithm {
            ForwardAlgorithm::BatchReduce if batch_reduce::applies(desc, tuning, &lanes) => (algorithm, lanes),
            ForwardAlgorithm::Depthwise if depthwise.is_some() => {
                (algorithm, Packing::depthwise(desc, kernels.lanes, false))
            }
            _ => (ForwardAlgorithm::Direct, Packing::rows(kernels.panel.panels(channels, tuning.panel))),
        };
        // Weights are packed as for larger batches, which may share them.
        if let (Some(tiny), None) = (tiny, tuning.forward)
            && let Some(tiny) = tiny.reading(&packing, desc)
        {
            let split = Split { axis: SplitAxis::Images, parts: Panels::into_parts(1, 1) };
            return Self { driver: Driver::Tiny(tiny), packing, split, part_len: 0 };
        }
        let split = Split::new(desc, packing.all_panels(desc), kernels, threads);
        let driver = match (algorithm, depthwise) {
            (ForwardAlgorithm::BatchReduce, _) => Driver::BatchReduce(BatchReduce::new(desc, tuning, packing)),
            (ForwardAlgorithm::Depthwise, Some(driver)) => Driver::Depthwise(driver),
            _ => Driver::Direct(Direct::new(desc, kernels, tuning, packing)),
        };
        let part_len = match &driver {
            Driver::Direct(driver) => driver.buffers(desc, kernels).len(),
            Driver::BatchReduce(driver) => driver.buffers(desc, kernels).len(),
            Driver::Depthwise(driver) => driver.workspace_len(desc, kernels),
            Driver::Tiny(_) => 0,
        };
        Self { driver, packing, split, part_len }
    }

    #[cfg(feature = "internal-testing")]
    pub(crate) fn algorithm(&self) -> ForwardAlgorithm {
        match self.driver {
            Driver::Direct(_) => ForwardAlgorithm::Direct,
            Driver::BatchReduce(_) => ForwardAlgorithm::BatchReduce,
            Driver::Depthwise(_) => ForwardAlgorithm::Depthwise,
            Driver::Tiny(_) => ForwardAlgorithm::Tiny,
        }
    }

    /// The plain loops, if they are planned. They take the weight as it is.
    pub(crate) const fn tiny(&self) -> Option<&Tiny> {
        match &self.driver {
            Driver::Tiny(tiny) if VECTORS => Some(tiny),
            _ => None,
        }
    }

    /// Elements of workspace, packed weights apart.
    pub(crate) const fn workspace_len(&self) -> usize {
        self.split.parts.count().saturating_mul(self.part_len)
    }

    pub(crate) fn run(
        &self,
        call: &ForwardCall<'_>,
        output: &mut [f32],
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = call.desc;
        let Split { axis, parts } = self.split;
        let mut output = View::new(output, &desc.output_tensor());
        let mut workspace = Rest::of(workspace);
        let jobs = parts.iter().map(move |range| {
            let mut images = 0..desc.batch();
            let mut panels = 0..self.packing.all_panels(desc);
            let mut space = desc.output_size().map(|size| 0..size);
            let output = match axis {
                SplitAxis::Images => {
                    images = range;
                    output.cut(0, images.end)
                }
                SplitAxis::Panels => {
                    panels = range;
                    output.cut(1, self.packing.channel_of_all(desc, panels.end))
                }
                SplitAxis::Positions(axis) => {
                    let inner: usize = desc.output_size()[axis + 1..].iter().product();
                    let end = range.end * inner;
                    space[axis] = range;
                    output.cut(2, end)
                }
            };
            OutputPart { output, images, panels, space, workspace: workspace.cut(self.part_len) }
        });
        for_each(executor, parts.count(), jobs, &|part| match &self.driver {
            Driver::Direct(driver) => driver.run(call, part),
            Driver::BatchReduce(driver) if VECTORS => driver.run(call, part),
            Driver::Depthwise(driver) if VECTORS => self.run_depthwise(driver, call, part),
            _ => unreachable!("a driver that is never planned"),
        })
    }

    fn run_depthwise(&self, driver: &depthwise::Forward, call: &ForwardCall<'_>, part: OutputPart<'_>) {
        let OutputPart { output, images, panels, space, workspace } = part;
        let [start, end] = [panels.start, panels.end].map(|panel| self.packing.channel_of_all(call.desc, panel));
        driver.run(call, depthwise::Part { output, images, channels: start..end, space, workspace });
    }
}

/// The algorithm that suits a layer that is not depthwise.
const fn choose(desc: &ConvDesc, kernels: &Kernels) -> ForwardAlgorithm {
    /// Output positions below which lanes of positions are too often empty.
    const FEW_POSITIONS: usize = 256;
    /// Steps of a sum up to which to transpose its result costs a tenth or more of it.
    const FEW_STEPS: usize = 64;
    /// Input channels of a pointwise layer up to which to transpose its input costs more than to copy it in planes; more where a
    /// stride leaves out most of these.
    const FEW_CHANNELS: usize = 128;
    const FEW_STRIDED: usize = 256;

    /// Multiply-adds of an image below which to begin a class of positions, of which there may be nine, costs more than lanes
    /// without a position.
    const LITTLE_WORK: usize = 1 << 14;

    if !VECTORS {
        return ForwardAlgorithm::Direct;
    }
    let channels = desc.group_out_channels();
    let positions = volume(desc.output_size());
    // Lanes without a channel cost as much as others; on large planes, positions fill them better.
    let empty = channels < 24 && channels * 5 < channels.next_multiple_of(kernels.lanes) * 4;
    let steps = desc.group_in_channels() * desc.taps();
    let transposed = matches!(desc.tensor_layout(), Layout::Nchw);
    let most = if equal(desc.stride(), [1; 3]) { FEW_CHANNELS } else { FEW_STRIDED };
    let in_planes = transposed && (steps <= FEW_STEPS || desc.taps() == 1 && steps <= most);
    let work = steps.saturating_mul(desc.out_channels()).saturating_mul(positions);
    let little = matches!(desc.layout(), Layout::Nchw) && desc.has_padding() && work < LITTLE_WORK;
    if little || positions >= FEW_POSITIONS && (empty || in_planes) {
        ForwardAlgorithm::Direct
    } else {
        ForwardAlgorithm::BatchReduce
    }
}

/// Fills the table of (input channel, tap): where to read in planes `pitch` apart, and the threshold.
fn tabulate(
    call: &ForwardCall<'_>,
    grid: &Grid,
    pitch: usize,
    channels: Range<usize>,
    offsets: &mut [u32],
    thresholds: &mut [f32],
) {
    let (desc, taps) = (call.desc, call.desc.taps());
    let (first, others) = offsets[..channels.len() * taps].split_at_mut(taps);
    for (tap, offset) in first.iter_mut().enumerate() {
        // Fits, here and below: chunks of several channels are bounded by the staging length, single channels by
        // `block_size`, images read in place by their length.
        *offset = grid.tap(desc.kernel_position(tap)) as u32;
    }
    for (index, offsets) in (1..).zip(others.chunks_exact_mut(taps)) {
        for (offset, first) in offsets.iter_mut().zip(&*first) {
            *offset = first + (index * pitch) as u32;
        }
    }
    for (channel, thresholds) in channels.zip(thresholds.chunks_exact_mut(taps)) {
        call.thresholds.copy_taps(channel, 0..taps, thresholds);
    }
}

/// The part of a range of panels, counted over all groups, that lies in one group.
fn panels_of_group(panels: &Range<usize>, per_group: usize, group: usize) -> Range<usize> {
    let first = group * per_group;
    panels.start.max(first) - first..panels.end.min(first + per_group) - first
}

impl Split {
    /// Images if they share out evenly, else positions where there are enough of them, else panels of channels.
    const fn new(desc: &ConvDesc, panels: usize, kernels: &Kernels, threads: usize) -> Self {
        let (batch, output) = (desc.batch(), desc.output_size());
        // The first axis that is more than one position long: parts are consecutive in memory.
        let long = if output[0] > 1 {
            0
        } else if output[1] > 1 {
            1
        } else {
            2
        };
        let (axis, len) = if threads <= 1 || batch.is_multiple_of(threads) || batch / 4 >= threads {
            (SplitAxis::Images, batch)
        } else if volume(output) >= threads.saturating_mul(16 * kernels.lanes) && output[long] >= threads {
            // Enough that each thread's share still fills its tiles.
            (SplitAxis::Positions(long), output[long])
        } else {
            (SplitAxis::Panels, panels)
        };
        Self { axis, parts: Panels::into_parts(len, threads) }
    }
}
