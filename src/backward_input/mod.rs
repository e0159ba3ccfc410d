//! Gradients of the input and of the thresholds in one gather.
//!
//! For each tap, the sum over output channels that reaches it (`G` of the formulas) is finished and added to the input's
//! gradient or to the threshold's, by the mask of eq. 5 and 6. Every input's gradient is summed in one order; nothing is
//! scattered.
//!
//! | algorithm | in lanes | chosen for |
//! |---|---|---|
//! | [`gather`] | input channels | most layers |
//! | [`depthwise`] | positions or channels | one channel per group |
//! | [`planar`] | positions | fewer input channels than half a vector |
//!
//! Padding has no input position: where a tap reads it, x̂ = 0, so its gradient goes to the threshold if θ ≥ 0 and
//! nowhere otherwise. That part is one sum per tap over the border ([`border`]), apart from the hot loops.

mod border;
mod depthwise;
mod gather;
mod planar;

use core::ops::Range;

use crate::arith::min;
use crate::blocking::Tuning;
use crate::desc::ConvDesc;
use crate::geometry::Panels;
use crate::kernel::{Kernels, VECTORS, View};
use crate::layout::Layout;
use crate::parallel;
use crate::plan::{Accumulation, Thresholds};
use crate::weight::Packing;
use crate::workspace::{Arena, total};

use depthwise::Depthwise;
use gather::Gather;
use planar::Planar;

/// An algorithm of the backward pass of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "internal-testing"), expect(unreachable_pub, reason = "public for tests alone"))]
pub enum BackwardInputAlgorithm {
    /// Input channels in lanes.
    Gather,
    /// Positions in lanes.
    Planar,
    /// One channel per group.
    Depthwise,
}

/// How the backward pass of the input runs on one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackwardInputPlan {
    driver: Driver,
    pub(crate) packing: Packing,
    /// Images that are summed apart for the gradient of the thresholds, so that threads may share them out; 1 where they
    /// share out panels of input channels.
    segments: Panels,
    /// What the threads share out: segments, or panels of all groups.
    parts: Panels,
    // Elements of workspace: one thread's own, the table of thresholds, one segment's sums, the border's.
    part_len: usize,
    thresholds_len: usize,
    sums_len: usize,
    border_len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Driver {
    Gather(Gather),
    Planar(Planar),
    Depthwise(Depthwise),
}

/// Operands of a call, lengths checked.
pub(crate) struct BackwardInputCall<'a> {
    pub(crate) desc: &'a ConvDesc,
    pub(crate) kernels: &'static Kernels,
    pub(crate) input: &'a [f32],
    /// In the plan's [`Packing`].
    pub(crate) weight: &'a [f32],
    pub(crate) thresholds: Thresholds<'a>,
    pub(crate) grad_output: &'a [f32],
    pub(crate) accumulation: Accumulation,
}

/// The gradients that one thread computes.
struct Part<'a> {
    images: Range<usize>,
    /// Panels of all groups.
    panels: Range<usize>,
    grad_input: View<'a>,
    /// θ of the panels, in the order of the weight: `[panel][tap][channel of the panel]`.
    thresholds: &'a [f32],
    /// Sums of the gradients of the thresholds, in the same order, of [`Driver::partial`] values each. Added to.
    sums: &'a mut [f32],
    workspace: &'a mut [f32],
}

/// The most images' worth of sums that are kept apart.
const MOST_SEGMENTS: usize = 4;

/// Vectors of input channels per panel of [`gather`].
const MOST_VECTORS: usize = 2;

/// From this many panels on, threads share them out evenly enough.
const MANY_PANELS: usize = 8;

/// Elements of sums beyond which they are not kept apart.
const MOST_SUMS: usize = 16 * 1024;

impl BackwardInputPlan {
    pub(crate) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning, threads: usize) -> Self {
        let algorithm = match tuning.backward_input {
            Some(algorithm) => algorithm,
            None => choose(desc, kernels),
        };
        let (driver, packing) = match algorithm {
            BackwardInputAlgorithm::Gather if gather::applies(desc) => {
                let packing = Packing::transposed_lanes(desc, min(MOST_VECTORS, tuning.tile), kernels.lanes);
                (Driver::Gather(Gather::new(desc, kernels, tuning, packing.panels())), packing)
            }
            BackwardInputAlgorithm::Depthwise if depthwise::applies(desc, kernels) => (
                Driver::Depthwise(Depthwise::new(desc, tuning)),
                Packing::transposed(Panels::of_at_most(desc.group_in_channels(), 1)),
            ),
            _ => {
                let packing = Packing::transposed(kernels.panel.panels(desc.group_in_channels(), tuning.panel));
                (Driver::Planar(Planar::new(desc, tuning, packing.panels())), packing)
            }
        };
        let panels = desc.groups() * packing.panels().count();
        // A panel of weights has as many rows per output channel.
        let thresholds_len = packing.len(desc) / desc.group_out_channels();
        let sums_len = thresholds_len.saturating_mul(driver.partial(desc, kernels));
        // Independent of the number of threads: the segments decide the order of sums.
        // The vectors of channels of a depthwise layer with channels last are not cut.
        let uncut = matches!((&driver, desc.layout()), (Driver::Depthwise(_), Layout::Nhwc));
        let apart = panels < MANY_PANELS && sums_len <= MOST_SUMS || uncut;
        let segments = Panels::into_parts(desc.batch(), if apart { MOST_SEGMENTS } else { 1 });
        Self {
            driver,
            packing,
            segments,
            parts: match segments.count() {
                0 | 1 => Panels::into_parts(panels, if uncut { 1 } else { threads }),
                count => Panels::into_parts(count, threads),
            },
            part_len: match &driver {
                Driver::Gather(driver) => driver.workspace_len(desc, kernels),
                Driver::Planar(driver) => driver.workspace_len(kernels),
                Driver::Depthwise(driver) => driver.workspace_len(desc, kernels),
            },
            thresholds_len,
            sums_len,
            border_len: border::workspace_len(desc, kernels),
        }
    }

    #[cfg(feature = "internal-testing")]
    pub(crate) fn algorithm(&self) -> BackwardInputAlgorithm {
        match self.driver {
            Driver::Gather(_) => BackwardInputAlgorithm::Gather,
            Driver::Planar(_) => BackwardInputAlgorithm::Planar,
            Driver::Depthwise(_) => BackwardInputAlgorithm::Depthwise,
        }
    }

    /// Elements of workspace, packed weights apart.
    pub(crate) const fn workspace_len(&self, lanes: usize) -> usize {
        if self.segments.count() == 0 {
            return 0;
        }
        let sums = self.sums_len.saturating_mul(self.segments.count());
        let parts = self.parts.count().saturating_mul(self.part_len);
        total([self.thresholds_len, sums, self.border_len, parts], lanes)
    }

    pub(crate) fn run(
        &self,
        call: &BackwardInputCall<'_>,
        grad_input: &mut [f32],
        grad_thresholds: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) {
        let (desc, kernels) = (call.desc, call.kernels);
        if desc.batch() == 0 {
            if let (Some(grad_thresholds), Accumulation::Overwrite) = (grad_thresholds, call.accumulation) {
                grad_thresholds.fill(0.0);
            }
            return;
        }
        let mut arena = Arena::new(workspace, kernels.lanes);
        let thresholds = arena.take(self.thresholds_len);
        let Self { sums_len, part_len, parts, .. } = *self;
        let sums = arena.take(sums_len * self.segments.count());
        let border = arena.take(self.border_len);
        let workspace = arena.rest();
        self.tabulate_thresholds(call, thresholds);
        sums.fill(0.0);
        let thresholds = &*thresholds;

        let grad_input =
            View::new(grad_input, desc.batch(), desc.in_channels(), desc.input_size(), desc.input_strides());
        let mut rest = Some((grad_input, &mut *sums, workspace));
        let jobs = parts.iter().map_while(move |range| {
            let (grad_input, sums, workspace) = rest.take()?;
            let (workspace, workspace_rest) = workspace.split_at_mut(part_len);
            let all_panels = desc.groups() * self.packing.panels().count();
            let part;
            if self.segments.count() > 1 {
                let images = self.segments.start(range.start)..self.segments.start(range.end);
                let (grad_input, grad_input_rest) = grad_input.split(0, images.end);
                let (sums, sums_rest) = sums.split_at_mut(range.len() * sums_len);
                rest = Some((grad_input_rest, sums_rest, workspace_rest));
                part = Part { images, panels: 0..all_panels, grad_input, thresholds, sums, workspace };
            } else {
                let at = |panel: usize| self.table_start(desc, panel);
                let (grad_input, grad_input_rest) = grad_input.split(1, self.panel_start(desc, range.end));
                let own = at(range.end) - at(range.start);
                let (sums, sums_rest) = sums.split_at_mut(own * self.driver.partial(desc, kernels));
                rest = Some((grad_input_rest, sums_rest, workspace_rest));
                let thresholds = &thresholds[at(range.start)..][..own];
                part = Part { images: 0..desc.batch(), panels: range, grad_input, thresholds, sums, workspace };
            }
            Some(part)
        });
        parallel::for_each(parts.count(), jobs, &|part| self.run_part(call, part));

        if let Some(grad_thresholds) = grad_thresholds {
            if call.accumulation == Accumulation::Overwrite {
                grad_thresholds.fill(0.0);
            }
            self.add_sums(call, sums, grad_thresholds);
            border::add(call, &self.packing, thresholds, grad_thresholds, border, parts.count());
        }
    }

    /// Runs the segments of a part one after another, each with its own sums.
    fn run_part(&self, call: &BackwardInputCall<'_>, part: Part<'_>) {
        let Part { images, panels, mut grad_input, thresholds, sums, workspace } = part;
        let segments = self.segments.iter().filter(|segment| images.contains(&segment.start));
        let sums_len = sums.len() / segments.clone().count().max(1);
        for (images, sums) in segments.zip(sums.chunks_exact_mut(sums_len.max(1))) {
            let segment = Segment { images, panels: panels.clone(), thresholds };
            match &self.driver {
                Driver::Planar(driver) => driver.run(call, &segment, &mut grad_input, sums, workspace),
                Driver::Gather(driver) if VECTORS => driver.run(call, &segment, &mut grad_input, sums, workspace),
                Driver::Depthwise(driver) if VECTORS => driver.run(call, &segment, &mut grad_input, sums, workspace),
                _ => unreachable!("a driver that is never planned"),
            }
        }
    }

    /// First input channel of a panel, both counted over all groups.
    fn panel_start(&self, desc: &ConvDesc, panel: usize) -> usize {
        let count = self.packing.panels().count();
        let (group, panel) = (panel / count, panel % count);
        group * desc.group_in_channels() + self.packing.channel(desc, panel)
    }

    /// Where a panel begins in the table of thresholds.
    fn table_start(&self, desc: &ConvDesc, panel: usize) -> usize {
        let count = self.packing.panels().count();
        let (group, panel) = (panel / count, panel % count);
        (group * self.packing.group_width() + self.packing.lane(panel)) * desc.taps()
    }

    /// The thresholds, in the order of the packed weights; lanes without a channel hold zeros.
    fn tabulate_thresholds(&self, call: &BackwardInputCall<'_>, table: &mut [f32]) {
        let desc = call.desc;
        table.fill(0.0);
        for panel in 0..desc.groups() * self.packing.panels().count() {
            let channels = self.panel_start(desc, panel)..self.panel_start(desc, panel + 1);
            let table = &mut table[self.table_start(desc, panel)..self.table_start(desc, panel + 1)];
            for (tap, row) in table.chunks_exact_mut(table.len() / desc.taps()).enumerate() {
                let k = desc.kernel_position(tap);
                for (theta, channel) in row.iter_mut().zip(channels.clone()) {
                    *theta = call.thresholds.at(desc, channel, k);
                }
            }
        }
    }

    /// Adds the sums of all segments to the gradient of the thresholds.
    fn add_sums(&self, call: &BackwardInputCall<'_>, sums: &[f32], grad_thresholds: &mut [f32]) {
        let desc = call.desc;
        let partial = self.driver.partial(desc, call.kernels);
        let strides = desc.threshold_strides();
        for segment in sums.chunks_exact(self.sums_len) {
            for panel in 0..desc.groups() * self.packing.panels().count() {
                let channels = self.panel_start(desc, panel)..self.panel_start(desc, panel + 1);
                let [start, end] = [panel, panel + 1].map(|panel| self.table_start(desc, panel) * partial);
                let segment = &segment[start..end];
                for (tap, row) in segment.chunks_exact(segment.len() / desc.taps()).enumerate() {
                    let to = &mut grad_thresholds[tap * strides.spatial[2]..];
                    for (channel, partials) in channels.clone().zip(row.chunks_exact(partial)) {
                        to[channel * strides.channel] += partials.iter().sum::<f32>();
                    }
                }
            }
        }
    }
}

/// The algorithm that suits a layer.
const fn choose(desc: &ConvDesc, kernels: &Kernels) -> BackwardInputAlgorithm {
    if !VECTORS {
        BackwardInputAlgorithm::Planar
    } else if depthwise::applies(desc, kernels) {
        BackwardInputAlgorithm::Depthwise
    } else if 2 * desc.group_in_channels() < kernels.lanes {
        BackwardInputAlgorithm::Planar
    } else {
        BackwardInputAlgorithm::Gather
    }
}

impl Driver {
    /// Partial sums per threshold.
    const fn partial(&self, desc: &ConvDesc, kernels: &Kernels) -> usize {
        match (self, desc.layout()) {
            (Self::Gather(_), _) | (Self::Depthwise(_), Layout::Nhwc) => 1,
            (Self::Depthwise(_), Layout::Nchw) | (Self::Planar(_), _) => kernels.lanes,
        }
    }
}

/// Images and panels whose gradients a driver computes.
struct Segment<'a> {
    images: Range<usize>,
    /// Of all groups.
    panels: Range<usize>,
    /// θ of the panels: `[panel][tap][channel of the panel]`.
    thresholds: &'a [f32],
}

fn image_of(tensor: &[f32], len: usize, image: usize) -> &[f32] {
    &tensor[image * len..][..len]
}
