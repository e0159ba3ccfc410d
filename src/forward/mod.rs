//! The forward pass: the choice of a layer's algorithm, and how threads share its output.
//!
//! | algorithm | in lanes | when inputs are clamped | chosen for |
//! |---|---|---|---|
//! | [`direct`] | positions | at each load, once per panel of output channels | few output channels, or few steps to sum |
//! | [`depthwise`](crate::depthwise) | channels, or columns | at each load | one channel per group |
//! | [`batch_reduce`] | output channels | at each broadcast, once per panel of output channels | all others |
//! | [`tiny`](crate::tiny) | nothing | for each position and tap | at most 256 multiply-adds |

mod batch_reduce;
mod direct;

use core::ops::Range;

use crate::arith::{clamp, equal, min};
use crate::calls::ForwardCall;
use crate::depthwise::forward as depthwise;
use crate::desc::{ConvDesc, volume};
use crate::error::Error;
use crate::geometry::{Split, THREADS, Work, inner_positions, long_axis};
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
    /// How threads share the work: images, positions along the first axis that has several, panels of all groups. Outputs do not
    /// depend on it, because the order of each sum does not.
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

/// The most vectors of output channels per panel. Every tile of positions reads the weights of the panel again, so they must stay
/// in the cache.
const fn most_vectors(desc: &ConvDesc, kernels: &Kernels) -> usize {
    /// Elements of weights that stay in a second-level cache of 1 MiB, as CPUs with AVX-512 have: 768 KiB. (512 channels with 3×3
    /// taps on Zen 4: panels of two vectors take 0.82 of the time of panels of four.)
    const MOST_WEIGHTS: usize = 192 * 1024;
    /// The least vectors per panel: with 6 rows they are 12 chains of multiply-adds, and 8 chains keep two units busy.
    const LEAST: usize = 2;
    let per_vector = desc.group_in_channels().saturating_mul(desc.taps()).saturating_mul(kernels.lanes);
    clamp(MOST_WEIGHTS / per_vector, min(LEAST, kernels.channel_vectors), kernels.channel_vectors)
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
        let lanes = Packing::lanes(desc, min(most_vectors(desc, kernels), tuning.tile), kernels.lanes);
        let (algorithm, packing) = match algorithm {
            ForwardAlgorithm::BatchReduce if VECTORS && batch_reduce::applies(desc, tuning, &lanes) => {
                (algorithm, lanes)
            }
            ForwardAlgorithm::Depthwise if depthwise.is_some() => {
                (algorithm, Packing::depthwise(desc, kernels.lanes, false))
            }
            _ => (ForwardAlgorithm::Direct, Packing::rows(kernels.panel.panels(channels, tuning.panel))),
        };
        // Weights are packed as for a larger batch, because plans of any batch may share them.
        if let (Some(tiny), None) = (tiny, tuning.forward)
            && let Some(tiny) = tiny.reading(&packing, desc)
        {
            return Self { driver: Driver::Tiny(tiny), packing, split: Split::whole([1; 3]), part_len: 0 };
        }
        let split =
            share_out(desc, packing.all_panels(desc), threads, matches!(algorithm, ForwardAlgorithm::Depthwise));
        let driver = match (algorithm, depthwise) {
            (ForwardAlgorithm::BatchReduce, _) if VECTORS => {
                Driver::BatchReduce(BatchReduce::new(desc, tuning, packing))
            }
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

    /// The number of outputs of each task.
    #[cfg(feature = "internal-testing")]
    pub(crate) fn shares(&self, desc: &ConvDesc) -> impl Iterator<Item = usize> {
        let (desc, inner, packing) = (*desc, inner_positions(desc.output_size()), self.packing);
        self.split.iter().map(move |[images, positions, panels]| {
            let [start, end] = [panels.start, panels.end].map(|panel| packing.channel_of_all(&desc, panel));
            images.len() * positions.len() * inner * (end - start)
        })
    }

    /// The plain loops, if the plan chose them. They read the weight without packing it.
    pub(crate) const fn tiny(&self) -> Option<&Tiny> {
        match &self.driver {
            Driver::Tiny(tiny) if VECTORS => Some(tiny),
            _ => None,
        }
    }

    /// Elements of workspace, packed weights apart.
    pub(crate) const fn workspace_len(&self) -> usize {
        self.split.count().saturating_mul(self.part_len)
    }

    pub(crate) fn run(
        &self,
        call: &ForwardCall<'_>,
        output: &mut [f32],
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = call.desc;
        let tensor = &desc.output_tensor();
        let mut boxes = View::new(output, tensor).boxes();
        let mut workspace = Rest::of(workspace);
        let (size, axis) = (desc.output_size(), long_axis(desc.output_size()));
        let inner = inner_positions(size);
        let jobs = self.split.iter().map(move |[images, positions, panels]| {
            let [start, end] = [panels.start, panels.end].map(|panel| self.packing.channel_of_all(desc, panel));
            let own = positions.start * inner..positions.end * inner;
            let output = boxes.next([images.clone(), start..end, own]);
            let mut space = size.map(|size| 0..size);
            if THREADS {
                space[axis] = positions;
            }
            OutputPart { output, images, panels, space, workspace: workspace.cut(self.part_len) }
        });
        for_each(executor, self.split.count(), jobs, &|part| match &self.driver {
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
    /// With fewer output positions, lanes of positions are too often empty.
    const FEW_POSITIONS: usize = 256;
    /// With at most this many steps of a sum, transposing the result takes a tenth of the sum's time or more.
    const FEW_STEPS: usize = 64;
    /// With at most this many input channels of a 1×1 layer, transposing the input takes longer than copying its planes. The
    /// limit is higher for layers with a stride, which read few elements of the planes.
    const FEW_CHANNELS: usize = 128;
    const FEW_STRIDED: usize = 256;

    /// With fewer multiply-adds per image, empty lanes cost less time than the beginnings of classes of positions. (An image with
    /// padding has up to nine classes.)
    const LITTLE_WORK: usize = 1 << 14;

    if !VECTORS {
        return ForwardAlgorithm::Direct;
    }
    let channels = desc.group_out_channels();
    let positions = volume(desc.output_size());
    // A lane without a channel costs as much time as any other lane. On large planes, positions leave fewer lanes empty.
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

/// Fills the tables over (input channel, tap): the offset to read at, in planes `pitch` apart, and the threshold.
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
        // Every offset fits 32 bits, here and below. The staging length bounds chunks of several channels, `block_size` bounds
        // the copy of a single channel, and `reads_whole_planes` bounds images that are read in place.
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

/// How threads share a layer.
const fn share_out(desc: &ConvDesc, panels: usize, threads: usize, depthwise: bool) -> Split {
    /// The least positions of a task that fill its tiles.
    const LEAST_POSITIONS: usize = 32;
    /// The positions that a panel could compute while its weights come from the last-level cache or from memory. For 512 → 512
    /// channels, 3×3, eight parts of 16 positions took twice the time of one part (AVX-512, Zen 4): 20 positions.
    const POSITIONS_PER_READING: usize = 16;

    let size = desc.output_size();
    let axis = long_axis(size);
    let finest = min(volume(size) / LEAST_POSITIONS, size[axis]);
    let first = matches!(desc.tensor_layout(), Layout::Nchw);
    let (shared, reading) = match (depthwise, first) {
        // With channels first, the panels of a block share a copy of its input. Making this copy takes about as long as the products
        // of one tap.
        (false, _) => {
            (1 + if first { 16 / desc.taps() } else { 0 }, 16 * POSITIONS_PER_READING / inner_positions(size))
        }
        // Planes share nothing, and rather than parts of all planes a task gets some whole ones, which lie together.
        (true, true) => (0, 1),
        (true, false) => (1, 0),
    };
    let items = [desc.batch(), size[axis], panels];
    Split::new(Work { items, finest, shared, reading, consecutive: false }, threads)
}
