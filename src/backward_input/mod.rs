//! Gradients of the input and of the thresholds, in one pass over the input.
//!
//! For each input and each tap, the sum over output channels (`G` of the formulas) is computed first. Then the mask of eq. 5 and
//! 6 adds it to the input's gradient or to the threshold's. Every gradient is gathered where it is stored, and summed in one
//! fixed order.
//!
//! | algorithm | in lanes | chosen for |
//! |---|---|---|
//! | [`progressions`] | input channels | all others |
//! | [`depthwise`](crate::depthwise) | channels | one channel per group |
//! | [`planar`] | positions | few input channels; channels first with little work per input |
//! | [`tiny`](crate::tiny) | nothing | at most 256 multiply-adds |
//!
//! Padding has no input position. If a tap reads padding, x̂ is 0, so the gradient goes to the threshold if θ ≥ 0, and nowhere
//! otherwise. This part is one sum per tap over the border. [`border`] computes it outside of the hot loops.

mod border;
mod planar;
mod progressions;

use core::ops::Range;

use crate::arith::{equal, max, min};
use crate::calls::BackwardInputCall;
use crate::depthwise::{backward_input as depthwise, tabulate, thetas_of};
use crate::desc::{ConvDesc, volume};
use crate::error::Error;
use crate::geometry::{MOST_SEGMENTS, Panels, Split, THREADS, Work, inner_positions, long_axis, paying_segments};
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
    /// The numbers of parts of the images, and of the positions along the first axis that has several. The gradients of the
    /// thresholds are summed separately for each part, so that threads can share the parts.
    segments: [u8; 2],
    /// How threads share the work: segments, and panels of all groups.
    parts: Split,
    // Elements of workspace: for one thread; for the table of thresholds; for the sums of a segment; for the sums of the
    // positions before the current ones; for the border.
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
    /// Segments of images and of positions.
    segments: [Range<usize>; 2],
    /// Panels of all groups.
    panels: Range<usize>,
    grad_input: InputGradient<'a>,
    /// θ of the panels, in the order of the weight: `[panel][tap][channel of the panel]`.
    thresholds: &'a [f32],
    /// The sums of the thresholds' gradients, in the same order, with [`Driver::partial`] values each; and the sums of the
    /// positions before.
    sums: [&'a mut [f32]; 2],
    workspace: &'a mut [f32],
}

/// Where the gradient of the input is stored, if it is requested, and whether it is added to the values there.
struct InputGradient<'a> {
    view: Option<View<'a>>,
    add: bool,
}

/// What depthwise tasks with some channels of each pixel lose, in channels. Their gradients of the input lie in pieces between those
/// of other tasks, and a core fetches cache lines ahead that another core writes. Two such tasks took 1.4 to 3 times as long as on one
/// thread (Zen 4, 14×14 pixels of 512 channels). With this value, segments of images or rows come first, and small layers have two.
const INTERLEAVED: usize = 16;

/// The most elements of the sums of all segments: 320 KiB.
const MOST_SUMS: usize = 80 * 1024;

/// The segments of images, and of positions along the first axis that has several.
///
/// The segments decide the order of sums, so they do not depend on the number of threads. Their number is even (or one), so that
/// two threads share them equally. The function tries each such number up to `pay` for [`MOST_SEGMENTS`] threads, the most that can
/// share segments. It takes the number with which the largest share of a thread is the smallest, but prefers few segments. `shared`
/// is what the panels of a task [share](Work::shared).
const fn segments(desc: &ConvDesc, packing: &Packing, sums_len: usize, pay: usize, shared: usize) -> [Panels; 2] {
    /// The least positions of a segment. They keep its tiles full, and make it cheap to read the weights again for each segment.
    const LEAST_POSITIONS: usize = 64;
    /// Elements of weights, 1 MiB. Each segment reads all weights of the layer, but each panel reads only its own. With more
    /// weights than this, cutting into segments is no better than cutting into panels.
    const MANY_WEIGHTS: usize = 256 * 1024;

    let (batch, size) = (desc.batch(), desc.input_size());
    let rows = size[long_axis(size)];
    let full = batch.saturating_mul(volume(size)) / LEAST_POSITIONS;
    let most = max(min(pay, min(full, MOST_SUMS / max(sums_len, 1))), 1);
    let shared = if packing.len(desc) > MANY_WEIGHTS { 0 } else { shared };
    let mut best = [Panels::into_parts(batch, 1), Panels::into_parts(rows, 1)];
    if !THREADS || batch == 0 || most == 1 {
        return best;
    }
    let (mut least, mut count) = (usize::MAX, 1);
    while count <= most {
        // Images are cut first. Rows are cut only where each segment has a single image.
        let images = Panels::of_at_most(batch, batch.div_ceil(count));
        let positions = Panels::into_parts(rows, if images.max() > 1 { 1 } else { count / images.count() });
        let items = [images.count(), positions.count(), packing.all_panels(desc)];
        let work = Work { items, finest: items[1], shared, reading: 0, consecutive: true };
        let [of_images, of_positions, of_panels] = Split::new(work, MOST_SEGMENTS).largest();
        // Saturates, because layers that no memory could hold are planned as well.
        let images_of_part = of_images.saturating_mul(images.max());
        let positions_of_part = images_of_part.saturating_mul(of_positions.saturating_mul(positions.max()));
        let largest = positions_of_part.saturating_mul(of_panels.saturating_mul(16).saturating_add(shared));
        // More segments take a single thread a few percent more time. So a larger number must make the largest share smaller by
        // an eighth.
        if largest < least / 8 * 7 {
            (least, best) = (largest, [images, positions]);
        }
        count += if count == 1 { 1 } else { 2 };
    }
    best
}

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
            BackwardInputAlgorithm::Progressions if VECTORS && progressions::applies(desc, tuning, &lanes) => {
                (algorithm, lanes)
            }
            BackwardInputAlgorithm::Depthwise if depthwise.is_some() => {
                (algorithm, Packing::depthwise(desc, kernels.lanes, true))
            }
            _ => (
                BackwardInputAlgorithm::Planar,
                Packing::transposed(kernels.panel.panels(desc.group_in_channels(), tuning.panel)),
            ),
        };
        // Weights are packed as for a larger batch, because plans of any batch may share them.
        if let (Some(tiny), None) = (tiny, tuning.backward_input)
            && let Some(tiny) = tiny.reading(&packing, desc)
        {
            return Self::without_workspace(Driver::Tiny(tiny), packing);
        }
        let driver = match (algorithm, depthwise) {
            (BackwardInputAlgorithm::Progressions, _) if VECTORS => {
                Driver::Progressions(Progressions::new(desc, kernels, tuning, &packing))
            }
            (BackwardInputAlgorithm::Depthwise, Some(driver)) => Driver::Depthwise(driver),
            _ => Driver::Planar(Planar::new(desc, tuning)),
        };
        let panels = packing.all_panels(desc);
        // There is one threshold for each weight of a single output channel.
        let thresholds_len = packing.len(desc) / desc.group_out_channels();
        let depthwise = matches!(driver, Driver::Depthwise(_));
        let sums_len = thresholds_len.saturating_mul(driver.partial(kernels));
        let pay = paying_segments(desc.multiply_adds(), tuning.part);
        let (shared, pay) = match (depthwise, desc.layout()) {
            (true, Layout::Nchw) => (1, pay),
            (true, Layout::Nhwc) => (
                16 * INTERLEAVED / kernels.lanes,
                max(pay, min(paying_segments(desc.multiply_adds(), tuning.part / 4), 2)),
            ),
            // The panels of a task share the copy of the output's gradient.
            (false, _) => (1 + 16 / desc.taps(), pay),
        };
        let [images, positions] = segments(desc, &packing, sums_len, pay, shared);
        let items = [images.count(), positions.count(), panels];
        Self {
            driver,
            packing,
            segments: [images.count() as u8, positions.count() as u8],
            parts: Split::new(Work { items, finest: items[1], shared, reading: 0, consecutive: true }, threads),
            part_len: match &driver {
                Driver::Progressions(driver) => driver.buffers(kernels).len(),
                Driver::Planar(driver) => driver.buffers(kernels).len(),
                Driver::Depthwise(driver) => driver.workspace_len(desc, kernels),
                Driver::Tiny(_) => 0,
            },
            thresholds_len,
            sums_len,
            before_len: {
                let own = inner_positions(desc.input_size()) * positions.max();
                let positions = images.max().saturating_mul(own);
                SegmentedSums::before_len(sums_len, positions)
            },
            // The driver of depthwise layers sums the border itself.
            border_len: if depthwise { 0 } else { border::workspace_len(desc, kernels) },
        }
    }

    /// A plan of one task that needs no workspace.
    const fn without_workspace(driver: Driver, packing: Packing) -> Self {
        let (part_len, thresholds_len, sums_len, before_len, border_len) = (0, 0, 0, 0, 0);
        let (segments, parts) = ([1; 2], Split::whole([1; 3]));
        Self { driver, packing, segments, parts, part_len, thresholds_len, sums_len, before_len, border_len }
    }

    /// The number of inputs of each task.
    #[cfg(feature = "internal-testing")]
    pub(crate) fn shares(&self, desc: &ConvDesc) -> impl Iterator<Item = usize> {
        let (desc, inner, packing, [images, positions]) =
            (*desc, inner_positions(desc.input_size()), self.packing, self.segments(desc));
        self.parts.iter().map(move |[of_images, of_positions, panels]| {
            let [start, end] = [panels.start, panels.end].map(|panel| packing.channel_of_all(&desc, panel));
            images.items(&of_images).len() * positions.items(&of_positions).len() * inner * (end - start)
        })
    }

    /// The plain loops, if the plan chose them. They read the weight without packing it.
    pub(crate) const fn tiny(&self) -> Option<&Tiny> {
        match &self.driver {
            Driver::Tiny(tiny) if VECTORS => Some(tiny),
            _ => None,
        }
    }

    /// Whether gradients can start from given values. The driver does this if it computes the gradients in a copy. Other drivers
    /// would have to write the values first and read them again. The caller can do that itself: it writes the values and asks for
    /// an addition.
    pub(crate) const fn begins(&self) -> bool {
        match &self.driver {
            Driver::Progressions(driver) => VECTORS && driver.copies(),
            Driver::Depthwise(driver) => VECTORS && driver.copies(),
            Driver::Planar(_) | Driver::Tiny(_) => false,
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

    const fn segment_count(&self) -> usize {
        if THREADS { self.segments[0] as usize * self.segments[1] as usize } else { self.segments[0] as usize }
    }

    /// Segments of the images, and of the positions.
    fn segments(&self, desc: &ConvDesc) -> [Panels; 2] {
        if !THREADS {
            return [Panels::into_parts(desc.batch(), 1), Panels::into_parts(1, 1)];
        }
        let (size, [images, positions]) = (desc.input_size(), self.segments.map(usize::from));
        [Panels::into_parts(desc.batch(), images), Panels::into_parts(size[long_axis(size)], positions)]
    }

    /// The buffers: the table of thresholds; the sums of all segments; the sums of the positions before; the border's; those of
    /// all threads.
    const fn buffers(&self, lanes: usize) -> Buffers<5> {
        let count = self.segment_count();
        if count == 0 {
            return Buffers::new([0; 5], lanes);
        }
        let [sums, before] = [self.sums_len.saturating_mul(count), self.before_len.saturating_mul(count)];
        let parts = self.parts.count().saturating_mul(self.part_len);
        Buffers::new([self.thresholds_len, sums, before, self.border_len, parts], lanes)
    }

    /// Elements of workspace without packed weights.
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
        let Self { before_len, part_len, parts, .. } = *self;
        let segments = self.segments(desc);
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
        let tensor = &desc.input_tensor();
        let mut boxes = grad_input.map(|gradient| View::new(gradient.values, tensor).boxes());
        let [mut sums_rest, mut before_rest, mut workspace] = [&mut *sums, before, workspace].map(Rest::of);
        let inner = inner_positions(desc.input_size());
        let jobs = parts.iter().map(move |[images, positions, panels]| {
            let own = if THREADS { &thresholds[self.table(desc, panels.clone())] } else { thresholds };
            let sums = if THREADS {
                images.len() * positions.len() * own.len() * self.driver.partial(kernels)
            } else {
                self.sums_len
            };
            let view = boxes.as_mut().map(|boxes| {
                let [of_images, of_positions] =
                    [(&images, segments[0]), (&positions, segments[1])].map(|(part, all)| all.items(part));
                let positions = of_positions.start * inner..of_positions.end * inner;
                let [start, end] = [panels.start, panels.end].map(|panel| self.packing.channel_of_all(desc, panel));
                boxes.next([of_images, start..end, positions])
            });
            InputPart {
                segments: [images, positions],
                panels,
                grad_input: InputGradient { view, add },
                thresholds: own,
                sums: [sums_rest.cut(sums), before_rest.cut(if before_len == 0 { 0 } else { sums })],
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

    /// Runs the segments of a task one after another, each with its own sums.
    fn run_part(&self, call: &BackwardInputCall<'_>, part: InputPart<'_>) {
        let InputPart { segments, panels, mut grad_input, thresholds, sums: [sums, before], workspace } = part;
        let [images, positions] = segments;
        let [all_images, all_positions] = self.segments(call.desc);
        let count = if THREADS { images.len() * positions.len() } else { 1 };
        let (sums_len, before_len) = (sums.len() / count, before.len() / count);
        let [mut sums, mut before] = [sums, before].map(Rest::of);
        let size = call.desc.input_size();
        for index in 0..count {
            let mut sums = SegmentedSums::new(sums.cut(sums_len), before.cut(before_len));
            let mut space = size.map(|size| 0..size);
            let mut own_images = 0..call.desc.batch();
            if THREADS {
                let (image, position) = (index / positions.len(), index % positions.len());
                own_images = all_images.get(images.start + image);
                space[long_axis(size)] = all_positions.get(positions.start + position);
            }
            let segment =
                Segment { images: own_images, space, panels: panels.clone(), packing: self.packing, thresholds };
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
                space: segment.space.clone(),
                channels: start..end,
                thetas: thetas_of(&call.thresholds, segment.thresholds),
                grad_input: grad_input.view.as_mut(),
                add: grad_input.add,
                sums,
                workspace,
            },
        );
    }

    /// The range of some panels in the table of thresholds.
    fn table(&self, desc: &ConvDesc, panels: Range<usize>) -> Range<usize> {
        let [start, end] = [panels.start, panels.end].map(|panel| self.packing.lane_of_all(panel) * desc.taps());
        start..end
    }

    /// Input channels of a panel, both counted over all groups.
    fn channels(&self, desc: &ConvDesc, panel: usize) -> Range<usize> {
        self.packing.channel_of_all(desc, panel)..self.packing.channel_of_all(desc, panel + 1)
    }

    /// Fills the table of thresholds, in the order of the packed weights. Lanes without a channel hold zeros.
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

    /// Adds the sums of all segments to the gradient of the thresholds. Their order is `[part of the
    /// panels][segment][panel][tap][channel]`.
    fn add_sums(&self, call: &BackwardInputCall<'_>, sums: &[f32], grad_thresholds: &mut ThresholdGradient<'_>) {
        let (desc, count) = (call.desc, self.segment_count());
        let partial = self.driver.partial(call.kernels);
        // First all segments of one panel, then all segments of the next one, however threads share the panels. So the order of
        // additions is fixed even if a single threshold collects all sums.
        for panel in 0..self.packing.all_panels(desc) {
            let table = self.table(desc, panel..panel + 1);
            let channels = self.channels(desc, panel);
            let mut part = 0..self.thresholds_len;
            if THREADS {
                let parts = self.parts.panels();
                part = self.table(desc, parts.get(parts.index(panel)));
            }
            for segment in 0..count {
                let first = part.start * count + part.len() * segment + table.start - part.start;
                let own = &sums[first * partial..][..table.len() * partial];
                for (tap, row) in own.chunks_exact(own.len() / desc.taps()).enumerate() {
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
    if !VECTORS || 2 * desc.group_in_channels() < kernels.lanes || in_planes(desc, kernels.lanes) {
        BackwardInputAlgorithm::Planar
    } else {
        BackwardInputAlgorithm::Progressions
    }
}

/// Whether a layer with channels first has so few multiply-adds per input that transposing the input would take a noticeable
/// share of the time.
const fn in_planes(desc: &ConvDesc, lanes: usize) -> bool {
    /// The most steps of an input's sum: taps times output channels.
    const FEW_STEPS: usize = 128;
    /// The least vectors of positions of an image, and the least positions of a row if there are several taps. With fewer, too many
    /// lanes of a tile's vectors are empty.
    const LEAST_VECTORS: usize = 4;
    const LEAST_ROW: usize = 16;

    let [_, _, width] = desc.input_size();
    let positions = volume(desc.input_size());
    // Each tap visits the inputs of a tile and their gradients again. If planes lie a multiple of 4096 bytes apart, their lines
    // share a set of the first-level cache, which holds only eight of them.
    let revisited = desc.is_pointwise() || width >= LEAST_ROW && !positions.is_multiple_of(1024);
    matches!(desc.tensor_layout(), Layout::Nchw)
        && equal(desc.stride(), [1; 3])
        && desc.group_out_channels().saturating_mul(desc.taps()) <= FEW_STEPS
        && positions / lanes >= LEAST_VECTORS
        && revisited
}

impl Driver {
    /// The number of partial sums per threshold.
    const fn partial(&self, kernels: &Kernels) -> usize {
        match self {
            Self::Progressions(_) | Self::Depthwise(_) => 1,
            Self::Planar(_) => kernels.lanes,
            Self::Tiny(_) => 0,
        }
    }
}

/// The images, inputs and panels whose gradients a driver computes.
struct Segment<'a> {
    images: Range<usize>,
    /// Along each axis.
    space: [Range<usize>; 3],
    /// Of all groups.
    panels: Range<usize>,
    /// Says which weights, thresholds and sums belong to a panel.
    packing: Packing,
    /// θ of the panels: `[panel][tap][channel of the panel]`.
    thresholds: &'a [f32],
}

impl Segment<'_> {
    /// The first element of a panel, counted over all groups, in the thresholds, and in the sums where these have one value each.
    fn table_start(&self, desc: &ConvDesc, panel: usize) -> usize {
        let lane = |panel| self.packing.lane_of_all(panel);
        (lane(panel) - lane(self.panels.start)) * desc.taps()
    }
}
