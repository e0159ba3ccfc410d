//! Gradients of the input and of the thresholds in one gather.
//!
//! For each tap, the sum over output channels that reaches it (`G` of the formulas) is finished and added to the input's
//! gradient or to the threshold's, by the mask of eq. 5 and 6. Every input's gradient is summed in one order; nothing is
//! scattered.
//!
//! | algorithm | in lanes | chosen for |
//! |---|---|---|
//! | [`progressions`] | input channels | all others |
//! | [`depthwise`](crate::depthwise) | channels | one channel per group |
//! | [`planar`] | positions | few input channels, or little work per input of planes |
//! | [`tiny`](crate::tiny) | nothing | very little work |
//!
//! Padding has no input position: where a tap reads it, x̂ = 0, so its gradient goes to the threshold if θ ≥ 0 and
//! nowhere otherwise. That part is one sum per tap over the border ([`border`]), apart from the hot loops.

mod border;
mod planar;
mod progressions;

use core::ops::Range;

use crate::arith::{clamp, equal, min};
use crate::calls::BackwardInputCall;
use crate::depthwise::{backward_input as depthwise, tabulate, thetas_of};
use crate::desc::{ConvDesc, volume};
use crate::error::Error;
use crate::geometry::Panels;
use crate::kernel::{Kernels, VECTORS, View};
use crate::layout::Layout;
use crate::operands::{Accumulation, Gradient};
use crate::sums::SegmentedSums;
use crate::threads::{Executor, Rest, for_each};
use crate::thresholds::ThresholdGradient;
use crate::tiny::Tiny;
use crate::tuning::{BackwardInputAlgorithm, Tuning};
use crate::weight::Packing;
use crate::workspace::Buffers;

use planar::Planar;
use progressions::Progressions;

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
    // Elements of workspace: one thread's own, the table of thresholds, the sums of some images, those of the positions
    // before the current ones, the border's.
    part_len: usize,
    thresholds_len: usize,
    sums_len: usize,
    before_len: usize,
    border_len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Driver {
    Progressions(Progressions),
    Planar(Planar),
    Depthwise(depthwise::BackwardInput),
    Tiny(Tiny),
}

/// The gradients that one thread computes.
struct InputPart<'a> {
    images: Range<usize>,
    /// Panels of all groups.
    panels: Range<usize>,
    grad_input: InputGradient<'a>,
    /// θ of the panels, in the order of the weight: `[panel][tap][channel of the panel]`.
    thresholds: &'a [f32],
    /// Sums of the gradients of the thresholds, in the same order, of [`Driver::partial`] values each; and those of the
    /// positions before.
    sums: [&'a mut [f32]; 2],
    workspace: &'a mut [f32],
}

/// Where the gradient of the input goes, if anywhere, and whether it is added to what lies there.
struct InputGradient<'a> {
    view: Option<View<'a>>,
    add: bool,
}

/// The most images' worth of sums that are kept apart.
const MOST_SEGMENTS: usize = 4;

/// A segment is as much work as so many threads need at least: its sums cost time, too.
const PARTS_PER_SEGMENT: usize = 12;

/// From this many panels on, threads share them out evenly enough.
const MANY_PANELS: usize = 8;

/// Elements of sums beyond which they are not kept apart.
const MOST_SUMS: usize = 16 * 1024;

impl BackwardInputPlan {
    pub(crate) const fn new(
        desc: &ConvDesc,
        kernels: &Kernels,
        tuning: &Tuning,
        threads: usize,
        tiny: Option<Tiny>,
    ) -> Self {
        let depthwise = if VECTORS { depthwise::BackwardInput::new(desc, kernels, tuning) } else { None };
        let algorithm = match tuning.backward_input {
            Some(algorithm) => algorithm,
            None if depthwise.is_some() => BackwardInputAlgorithm::Depthwise,
            None => choose(desc, kernels),
        };
        let most = min(progressions::most_vectors(desc, kernels), tuning.tile);
        let lanes = Packing::transposed_lanes(desc, most, kernels.lanes);
        let (algorithm, packing) = match algorithm {
            BackwardInputAlgorithm::Progressions if progressions::applies(desc, tuning, &lanes) => (algorithm, lanes),
            BackwardInputAlgorithm::Depthwise if depthwise.is_some() => {
                (algorithm, Packing::depthwise(desc, kernels.lanes, true))
            }
            _ => (
                BackwardInputAlgorithm::Planar,
                Packing::transposed(kernels.panel.panels(desc.group_in_channels(), tuning.panel)),
            ),
        };
        // Weights are packed as for larger batches, which may share them.
        if let (Some(tiny), None) = (tiny, tuning.backward_input)
            && let Some(tiny) = tiny.reading(&packing, desc)
        {
            return Self::without_workspace(Driver::Tiny(tiny), packing);
        }
        let driver = match (algorithm, depthwise) {
            (BackwardInputAlgorithm::Progressions, _) => {
                Driver::Progressions(Progressions::new(desc, kernels, tuning, &packing))
            }
            (BackwardInputAlgorithm::Depthwise, Some(driver)) => Driver::Depthwise(driver),
            _ => Driver::Planar(Planar::new(desc, tuning)),
        };
        let panels = packing.all_panels(desc);
        // A panel of weights has as many rows per output channel.
        let thresholds_len = packing.len(desc) / desc.group_out_channels();
        let depthwise = matches!(driver, Driver::Depthwise(_));
        let sums_len = thresholds_len.saturating_mul(driver.partial(kernels));
        // Independent of the number of threads: the segments decide the order of sums.
        let apart = panels < MANY_PANELS && sums_len <= MOST_SUMS;
        let pay = clamp(desc.multiply_adds() / tuning.part.saturating_mul(PARTS_PER_SEGMENT), 1, MOST_SEGMENTS);
        let segments = Panels::into_parts(desc.batch(), if apart { pay } else { 1 });
        Self {
            driver,
            packing,
            segments,
            parts: match segments.count() {
                0 | 1 => Panels::into_parts(panels, threads),
                count => Panels::into_parts(count, threads),
            },
            part_len: match &driver {
                Driver::Progressions(driver) => driver.buffers(kernels).len(),
                Driver::Planar(driver) => driver.buffers(kernels).len(),
                Driver::Depthwise(driver) => driver.workspace_len(desc, kernels),
                Driver::Tiny(_) => 0,
            },
            thresholds_len,
            sums_len,
            before_len: {
                let positions = segments.max().saturating_mul(volume(desc.input_size()));
                SegmentedSums::before_len(sums_len, positions)
            },
            // Those of depthwise layers sum them on their way.
            border_len: if depthwise { 0 } else { border::workspace_len(desc, kernels) },
        }
    }

    /// A plan of one task that needs nothing but its operands.
    const fn without_workspace(driver: Driver, packing: Packing) -> Self {
        let one = Panels::into_parts(1, 1);
        let (part_len, thresholds_len, sums_len, before_len, border_len) = (0, 0, 0, 0, 0);
        let (segments, parts) = (one, one);
        Self { driver, packing, segments, parts, part_len, thresholds_len, sums_len, before_len, border_len }
    }

    /// The plain loops, if they are planned. They take the weight as it is.
    pub(crate) const fn tiny(&self) -> Option<&Tiny> {
        match &self.driver {
            Driver::Tiny(tiny) if VECTORS => Some(tiny),
            _ => None,
        }
    }

    #[cfg(feature = "internal-testing")]
    pub(crate) fn algorithm(&self) -> BackwardInputAlgorithm {
        match self.driver {
            Driver::Progressions(_) => BackwardInputAlgorithm::Progressions,
            Driver::Planar(_) => BackwardInputAlgorithm::Planar,
            Driver::Depthwise(_) => BackwardInputAlgorithm::Depthwise,
            Driver::Tiny(_) => BackwardInputAlgorithm::Tiny,
        }
    }

    /// The table of thresholds, sums of all segments, those of the positions before, the border's, all threads' own.
    const fn buffers(&self, lanes: usize) -> Buffers<5> {
        let count = self.segments.count();
        if count == 0 {
            return Buffers::new([0; 5], lanes);
        }
        let [sums, before] = [self.sums_len.saturating_mul(count), self.before_len.saturating_mul(count)];
        let parts = self.parts.count().saturating_mul(self.part_len);
        Buffers::new([self.thresholds_len, sums, before, self.border_len, parts], lanes)
    }

    /// Elements of workspace, packed weights apart.
    pub(crate) const fn workspace_len(&self, lanes: usize) -> usize {
        self.buffers(lanes).len()
    }

    pub(crate) fn run(
        &self,
        call: &BackwardInputCall<'_>,
        grad_input: Option<Gradient<'_>>,
        grad_thresholds: Option<ThresholdGradient<'_>>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let (desc, kernels) = (call.desc, call.kernels);
        if desc.batch() == 0 || grad_input.is_none() && grad_thresholds.is_none() {
            return Ok(());
        }
        let Self { sums_len, before_len, part_len, parts, .. } = *self;
        let ([thresholds, sums, before, border, workspace], _) = self.buffers(kernels.lanes).carve(workspace);
        if let Driver::Depthwise(_) = self.driver
            && VECTORS
        {
            tabulate(kernels, desc, &call.thresholds, 0..desc.in_channels(), thresholds);
        } else {
            self.tabulate_thresholds(call, thresholds);
        }
        let thresholds = &*thresholds;

        let add = grad_input.as_ref().is_some_and(|gradient| gradient.accumulation == Accumulation::Add);
        let mut view = grad_input.map(|gradient| View::new(gradient.values, &desc.input_tensor()));
        let [mut sums_rest, mut before_rest, mut workspace] = [&mut *sums, before, workspace].map(Rest::of);
        let jobs = parts.iter().map(move |range| {
            let (images, panels, axis, end, sums, before);
            let own;
            if self.segments.count() > 1 {
                images = self.segments.start(range.start)..self.segments.start(range.end);
                panels = 0..self.packing.all_panels(desc);
                own = thresholds;
                (axis, end) = (0, images.end);
                (sums, before) = (range.len() * sums_len, range.len() * before_len);
            } else {
                images = 0..desc.batch();
                (axis, end) = (1, self.packing.channel_of_all(desc, range.end));
                own = &thresholds[self.table(desc, range.clone())];
                sums = own.len() * self.driver.partial(kernels);
                before = if before_len == 0 { 0 } else { sums };
                panels = range;
            }
            let view = view.as_mut().map(|view| view.cut(axis, end));
            InputPart {
                images,
                panels,
                grad_input: InputGradient { view, add },
                thresholds: own,
                sums: [sums_rest.cut(sums), before_rest.cut(before)],
                workspace: workspace.cut(part_len),
            }
        });
        for_each(executor, parts.count(), jobs, &|part| self.run_part(call, part))?;

        if let Some(mut grad_thresholds) = grad_thresholds
            && !call.thresholds.is_linear()
        {
            self.add_sums(call, sums, &mut grad_thresholds);
            if !matches!(self.driver, Driver::Depthwise(_)) {
                border::add(call, &self.packing, &mut grad_thresholds, border, parts.count(), executor)?;
            }
        }
        Ok(())
    }

    /// Runs the segments of a part one after another, each with its own sums.
    fn run_part(&self, call: &BackwardInputCall<'_>, part: InputPart<'_>) {
        let InputPart { images, panels, mut grad_input, thresholds, sums: [sums, before], workspace } = part;
        let segments = self.segments.iter().filter(|segment| images.contains(&segment.start));
        let count = segments.clone().count().max(1);
        let (sums_len, before_len) = (sums.len() / count, before.len() / count);
        let [mut sums, mut before] = [sums, before].map(Rest::of);
        for images in segments {
            let mut sums = SegmentedSums::new(sums.cut(sums_len), before.cut(before_len));
            let segment = Segment { images, panels: panels.clone(), packing: self.packing, thresholds };
            let (grad_input, own) = (&mut grad_input, &mut sums);
            match &self.driver {
                Driver::Planar(driver) => driver.run(call, &segment, grad_input, own, workspace),
                Driver::Progressions(driver) if VECTORS => driver.run(call, &segment, grad_input, own, workspace),
                Driver::Depthwise(driver) if VECTORS => {
                    self.run_depthwise(driver, call, &segment, grad_input, own, workspace);
                }
                _ => unreachable!("a driver that is never planned"),
            }
            sums.finish();
        }
    }

    fn run_depthwise<'a>(
        &self,
        driver: &depthwise::BackwardInput,
        call: &BackwardInputCall<'_>,
        segment: &Segment<'a>,
        grad_input: &mut InputGradient<'a>,
        sums: &mut SegmentedSums<'a>,
        workspace: &mut [f32],
    ) {
        let [start, end] =
            [segment.panels.start, segment.panels.end].map(|panel| self.packing.channel_of_all(call.desc, panel));
        driver.run(
            call,
            depthwise::Part {
                images: segment.images.clone(),
                channels: start..end,
                thetas: thetas_of(&call.thresholds, segment.thresholds),
                grad_input: grad_input.view.as_mut(),
                add: grad_input.add,
                sums,
                workspace,
            },
        );
    }

    /// Where some panels lie in the table of thresholds.
    fn table(&self, desc: &ConvDesc, panels: Range<usize>) -> Range<usize> {
        let [start, end] = [panels.start, panels.end].map(|panel| self.packing.lane_of_all(panel) * desc.taps());
        start..end
    }

    /// Input channels of a panel, both counted over all groups.
    fn channels(&self, desc: &ConvDesc, panel: usize) -> Range<usize> {
        self.packing.channel_of_all(desc, panel)..self.packing.channel_of_all(desc, panel + 1)
    }

    /// The thresholds, in the order of the packed weights; lanes without a channel hold zeros.
    fn tabulate_thresholds(&self, call: &BackwardInputCall<'_>, table: &mut [f32]) {
        let desc = call.desc;
        table.fill(0.0);
        for panel in 0..self.packing.all_panels(desc) {
            let table = &mut table[self.table(desc, panel..panel + 1)];
            for (tap, row) in table.chunks_exact_mut(table.len() / desc.taps()).enumerate() {
                call.thresholds.copy_channels(self.channels(desc, panel), tap, row, 1);
            }
        }
    }

    /// Adds the sums of all segments to the gradient of the thresholds.
    fn add_sums(&self, call: &BackwardInputCall<'_>, sums: &[f32], grad_thresholds: &mut ThresholdGradient<'_>) {
        let desc = call.desc;
        let partial = self.driver.partial(call.kernels);
        for segment in sums.chunks_exact(self.sums_len) {
            for panel in 0..self.packing.all_panels(desc) {
                let table = self.table(desc, panel..panel + 1);
                let segment = &segment[table.start * partial..table.end * partial];
                let channels = self.channels(desc, panel);
                for (tap, row) in segment.chunks_exact(segment.len() / desc.taps()).enumerate() {
                    if VECTORS && partial == 1 {
                        grad_thresholds.add_channels(channels.clone(), tap, row);
                        continue;
                    }
                    for (channel, partials) in channels.clone().zip(row.chunks_exact(partial)) {
                        grad_thresholds.add(channel, tap, partials.iter().sum());
                    }
                }
            }
        }
    }
}

/// The algorithm that suits a layer that is not depthwise.
const fn choose(desc: &ConvDesc, kernels: &Kernels) -> BackwardInputAlgorithm {
    if !VECTORS || 2 * desc.group_in_channels() < kernels.lanes || in_planes(desc) {
        BackwardInputAlgorithm::Planar
    } else {
        BackwardInputAlgorithm::Progressions
    }
}

/// Whether a layer of planes has so few multiply-adds per input that to transpose it would show.
const fn in_planes(desc: &ConvDesc) -> bool {
    /// Steps of an input's sum: its taps times output channels.
    const FEW_STEPS: usize = 128;
    /// Positions, and those of a row where there are several taps, that fill the vectors of a tile well enough.
    const LEAST_POSITIONS: usize = 32;
    const LEAST_ROW: usize = 16;

    let [_, _, width] = desc.input_size();
    let positions = volume(desc.input_size());
    // Each tap visits a tile's inputs and their gradients: of planes 4096 bytes apart, the first-level cache keeps but eight lines.
    let revisited = desc.is_pointwise() || width >= LEAST_ROW && !positions.is_multiple_of(1024);
    matches!(desc.tensor_layout(), Layout::Nchw)
        && equal(desc.stride(), [1; 3])
        && desc.group_out_channels().saturating_mul(desc.taps()) <= FEW_STEPS
        && positions >= LEAST_POSITIONS
        && revisited
}

impl Driver {
    /// Partial sums per threshold.
    const fn partial(&self, kernels: &Kernels) -> usize {
        match self {
            Self::Progressions(_) | Self::Depthwise(_) => 1,
            Self::Planar(_) => kernels.lanes,
            Self::Tiny(_) => 0,
        }
    }
}

/// Images and panels whose gradients a driver computes.
struct Segment<'a> {
    images: Range<usize>,
    /// Of all groups.
    panels: Range<usize>,
    /// Which weights, thresholds and sums are a panel's.
    packing: Packing,
    /// θ of the panels: `[panel][tap][channel of the panel]`.
    thresholds: &'a [f32],
}

impl Segment<'_> {
    /// Where a panel, counted over all groups, begins in the thresholds, and in sums of one value each.
    fn table_start(&self, desc: &ConvDesc, panel: usize) -> usize {
        let lane = |panel| self.packing.lane_of_all(panel);
        (lane(panel) - lane(self.panels.start)) * desc.taps()
    }
}
