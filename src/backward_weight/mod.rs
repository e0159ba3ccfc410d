//! Gradients of the weight and of the bias.
//!
//! | algorithm | in lanes | chosen for |
//! |---|---|---|
//! | [`stripes`] | input channels | channels last; 1×1 layers; small planes |
//! | [`patches`] | output channels, or taps and input channels | few input channels |
//! | [`outer`] | input channels, or a row of taps with them | channels first, where the others do not suit; few input and output channels |
//! | [`depthwise`](crate::depthwise) | groups | one channel per group, or a few |
//! | [`tiny`](crate::tiny) | nothing | at most 256 multiply-adds |

mod outer;
mod patches;
mod stripes;

use core::ops::Range;

use crate::arith::{max, min};
use crate::border;
use crate::calls::BackwardWeightCall;
use crate::depthwise::backward_weight as depthwise;
use crate::desc::{ConvDesc, volume};
use crate::error::Error;
use crate::geometry::{Panels, Split, THREADS, Work, long_axis, paying_segments};
use crate::kernel::{Kernels, VECTORS};
use crate::layout::Layout;
use crate::operands::{Accumulation, Gradient};
use crate::strided;
use crate::sums::{Positions, add_positions};
use crate::threads::{Executor, Rest, Serial, for_each};
use crate::tiny::Tiny;
use crate::tuning::Tuning;

use outer::Outer;
use patches::Patches;
use stripes::Stripes;

/// How the backward pass of the weight runs on one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackwardWeightPlan {
    driver: Driver,
    /// Output channels that stay together in one task.
    unit: usize,
    /// The numbers of parts of the images, and of the positions of each image. Each part has sums of its own, so that threads can
    /// share the parts.
    segments: u8,
    cuts: u8,
    /// How threads share the work: segments, and units of output channels of all groups.
    parts: Split,
    /// Elements of one thread's workspace.
    part_len: usize,
}

/// The most elements of the sums of all segments: 2 MiB. Layers with larger gradients have enough channels for threads to
/// share.
const MOST_SUMS: usize = 512 * 1024;

/// Elements of sums, 256 KiB. A single thread adds up this many in less time than another thread needs to wake up.
const ADDED_ALONE: usize = 64 * 1024;

/// The least positions of a segment. To add its sums to others then costs one or two hundredths of its time. [`outer`] needs more
/// positions, because it transposes its sums first.
const LEAST_POSITIONS: usize = 256;
const LEAST_POSITIONS_OF_OUTER: usize = 768;

/// The most segments where images are cut. Eight cost a single thread one or two hundredths of its time. More than eight threads
/// share the channels as well.
const MOST_CUTS: usize = 8;

/// The segments: images, and, where each segment has a single image, the number of parts of its positions along the first long
/// axis. That number is a power of two, as numbers of threads often are. The segments decide the order of sums, so they do not
/// depend on the number of threads.
const fn segments(desc: &ConvDesc, tuning: &Tuning, least_positions: usize) -> (Panels, usize) {
    let (batch, size) = (desc.batch(), desc.output_size());
    let pay = paying_segments(desc.multiply_adds(), tuning.part);
    let positions = batch.saturating_mul(volume(size)) / least_positions;
    let sums = MOST_SUMS / max(gradient_len(desc, desc.out_channels()), 1);
    let most = max(min(pay, min(positions, sums)), 1);
    let images = Panels::of_at_most(batch, max(batch.div_ceil(most), 1));
    if images.max() > 1 || batch == 0 {
        return (images, 1);
    }
    let cuts = min(min(most, MOST_CUTS) / batch, size[long_axis(size)]);
    (images, if cuts > 1 { 1 << cuts.ilog2() } else { 1 })
}

/// Elements of the gradients of some output channels, their biases included.
const fn gradient_len(desc: &ConvDesc, channels: usize) -> usize {
    let filter = desc.group_in_channels().saturating_mul(desc.taps());
    channels.saturating_mul(filter.saturating_add(1))
}

#[derive(Clone, Copy, Debug)]
enum Driver {
    Outer(Outer),
    Patches(Patches),
    Stripes(Stripes),
    Depthwise(depthwise::BackwardWeight),
    Tiny(Tiny),
}

/// Whether [`stripes`] are the faster algorithm for a layer that they can compute. They copy a stripe for each tap. If the layer
/// has channels first, they also transpose its tensors. [`outer`] makes one copy for all taps, so it is faster for layers of many
/// taps. But it is slower if there are few positions beside a large gradient of the weight.
const fn suits_stripes(desc: &ConvDesc) -> bool {
    /// The most positions of a small plane.
    const FEW_POSITIONS: usize = 100;
    matches!(desc.tensor_layout(), Layout::Nhwc) || desc.taps() == 1 || volume(desc.output_size()) <= FEW_POSITIONS
}

/// The images and the output channels of one thread, with its workspace.
struct WeightPart<'a> {
    segments: Range<usize>,
    channels: Range<usize>,
    gradients: Gradients<'a>,
    workspace: &'a mut [f32],
}

/// Where the gradients of some output channels go.
enum Gradients<'a> {
    /// To the caller's buffers, from the only segment. The gradient of the bias is added to its buffer.
    Whole(Option<Gradient<'a>>, Option<&'a mut [f32]>),
    /// To the caller's buffers, too. Each segment is summed in the last buffer first, `[weight, then bias][channel]`.
    InTurn(Option<Gradient<'a>>, Option<&'a mut [f32]>, &'a mut [f32]),
    /// To sums of each segment, `[segment][weight, then bias][channel]`. The flags say which of the two are requested.
    Apart(&'a mut [f32], [bool; 2]),
}

/// The sums of segments, and the gradients of some of their channels.
struct SegmentSums<'a> {
    /// `[segment][weight, then bias][channel]`, `len` elements of a segment's `all` channels.
    sums: &'a [f32],
    len: usize,
    all: usize,
    /// Of those, and their gradients.
    channels: Range<usize>,
    weights: Option<(&'a mut [f32], Accumulation)>,
    biases: Option<&'a mut [f32]>,
}

impl SegmentSums<'_> {
    /// Adds one segment after another, or replaces the gradients of the weights with the first one. `filter` is the number of
    /// weights of a channel.
    fn add(self, filter: usize) {
        let Self { sums, len, all, channels, mut weights, mut biases } = self;
        for segment in sums.chunks_exact(len) {
            let (of_weights, of_biases) = segment.split_at(all * filter);
            if let Some((values, accumulation)) = &mut weights {
                let sums = &of_weights[channels.start * filter..channels.end * filter];
                match core::mem::replace(accumulation, Accumulation::Add) {
                    Accumulation::Overwrite => values.copy_from_slice(sums),
                    Accumulation::Add => strided::add(sums, values, 1),
                }
            }
            if let Some(values) = &mut biases {
                strided::add(&of_biases[channels.clone()], values, 1);
            }
        }
    }
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
            let parts = Split::whole([1; 3]);
            return Self { driver: Driver::Tiny(tiny), unit: 1, segments: 1, cuts: 1, parts, part_len: 0 };
        }
        let depthwise =
            if VECTORS && tuning.depthwise { depthwise::BackwardWeight::new(desc, kernels, tuning) } else { None };
        let taps_in_lanes = outer::taps_in_lanes(desc, kernels, tuning);
        let by_patches = VECTORS
            && depthwise.is_none()
            && patches::suits(desc, kernels, taps_in_lanes)
            && Patches::new(desc, kernels, tuning, desc.out_channels()).is_some();
        let unit = if depthwise.is_some() {
            kernels.lanes * desc.group_out_channels()
        } else if by_patches {
            Patches::unit(desc, kernels)
        } else {
            1
        };
        let units = desc.out_channels().div_ceil(unit);
        let transposes = !by_patches && !suits_stripes(desc);
        let least_positions = if transposes { LEAST_POSITIONS_OF_OUTER } else { LEAST_POSITIONS };
        // Segments cost a depthwise layer about a twentieth of its time, and it has channels to share.
        let many_channels = depthwise.is_some() && desc.group_in_channels() * desc.group_out_channels() == 1;
        let (segments, cuts) = if THREADS && !many_channels {
            segments(desc, tuning, least_positions)
        } else {
            (Panels::into_parts(desc.batch(), 1), 1)
        };
        // All output channels share the copies of the input, which cost about as much as three output channels do.
        let shared = if depthwise.is_some() { 0 } else { 48 / min(unit, 48) };
        let work =
            Work { items: [segments.count() * cuts, 1, units], finest: 1, shared, reading: 0, consecutive: true };
        let parts = Split::new(work, threads);
        let own = min(parts.panels().max() * unit, desc.out_channels());
        let all = desc;
        let desc = &all.of_images(segments.max());
        let patches = if by_patches { Patches::new(desc, kernels, tuning, own) } else { None };
        assert!(patches.is_some() == by_patches, "the window of a position fits or not, whatever the images");
        let (driver, part_len) = if let Some(driver) = depthwise {
            (Driver::Depthwise(driver), driver.workspace_len(desc, kernels, own))
        } else if let Some(driver) = patches {
            (Driver::Patches(driver), driver.buffers(desc, kernels).len())
        } else if VECTORS && taps_in_lanes == 1 && suits_stripes(desc) && stripes::applies(desc, kernels, tuning) {
            let driver = Stripes::new(desc, kernels, tuning, own);
            (Driver::Stripes(driver), driver.buffers(desc, kernels).len())
        } else {
            let driver = Outer::new(desc, kernels, tuning, own);
            (Driver::Outer(driver), driver.buffers(desc, kernels).len())
        };
        Self { driver, unit, segments: segments.count() as u8, cuts: cuts as u8, parts, part_len }
    }

    #[cfg(feature = "internal-testing")]
    pub(crate) fn algorithm(&self) -> &'static str {
        match self.driver {
            Driver::Depthwise(_) => "depthwise",
            Driver::Tiny(_) => "tiny",
            Driver::Stripes(_) => "stripes",
            Driver::Patches(_) => "patches",
            Driver::Outer(Outer { taps_in_lanes: 2.., .. }) => "taps in lanes",
            Driver::Outer(_) => "panels",
        }
    }

    /// The work of each task: positions of all images times output channels.
    #[cfg(feature = "internal-testing")]
    pub(crate) fn shares(&self, desc: &ConvDesc) -> impl Iterator<Item = usize> {
        let (this, desc) = (*self, *desc);
        self.parts.iter().map(move |[segments, _, units]| {
            let positions = segments.map(|segment| {
                let (images, positions) = this.segment(&desc, segment);
                images.len() * positions.iter().map(Range::len).product::<usize>()
            });
            positions.sum::<usize>() * this.channels(&desc, &units).len()
        })
    }

    /// The plain loops, if the plan chose them.
    pub(crate) const fn tiny(&self) -> Option<&Tiny> {
        match &self.driver {
            Driver::Tiny(tiny) if VECTORS => Some(tiny),
            _ => None,
        }
    }

    pub(crate) const fn workspace_len(&self, desc: &ConvDesc) -> usize {
        self.parts.count().saturating_mul(self.part_len).saturating_add(self.sums_len(desc))
    }

    /// Parts of the images and their positions that are summed apart.
    const fn segments(&self) -> usize {
        self.segments as usize * self.cuts as usize
    }

    /// How many segments have sums at the same time. If threads share the segments, all segments have. A single thread needs the
    /// sums of one segment at a time.
    const fn kept(&self) -> usize {
        if self.parts.images().count() > 1 { self.segments() } else { 1 }
    }

    /// Elements of the sums of segments.
    const fn sums_len(&self, desc: &ConvDesc) -> usize {
        if THREADS && self.segments() > 1 {
            gradient_len(desc, desc.out_channels()).saturating_mul(self.kept())
        } else {
            0
        }
    }

    /// The images of a segment, and their positions.
    fn segment(&self, desc: &ConvDesc, segment: usize) -> (Range<usize>, Positions) {
        let (images, cuts) = (Panels::into_parts(desc.batch(), self.segments.into()), usize::from(self.cuts));
        let axis = long_axis(desc.output_size());
        let mut positions = border::all(desc);
        positions[axis] = Panels::into_parts(desc.output_size()[axis], cuts).get(segment % cuts);
        (images.get(segment / cuts), positions)
    }

    /// Output channels of some units.
    fn channels(&self, desc: &ConvDesc, units: &Range<usize>) -> Range<usize> {
        units.start * self.unit..(units.end * self.unit).min(desc.out_channels())
    }

    /// Computes the requested gradients. That of the bias is added to its buffer.
    pub(crate) fn run(
        &self,
        call: &BackwardWeightCall<'_>,
        grad_weight: Option<Gradient<'_>>,
        grad_bias: Option<&mut [f32]>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = call.desc;
        let Self { part_len, .. } = *self;
        if self.parts.count() == 0 {
            // An empty batch has no task, so no task would replace the values. They are zeroed here.
            grad_weight.map(Gradient::zeroed);
            return Ok(());
        }
        // The threads' buffers come first, because they have to be aligned as the workspace is.
        let (workspace, sums) = workspace.split_at_mut(self.parts.count() * part_len);
        let sums = &mut sums[..self.sums_len(desc)];
        let mut workspace = Rest::of(workspace);
        if !THREADS || self.kept() == 1 {
            let filter = desc.group_in_channels() * desc.taps();
            let mut weights = grad_weight.map(|Gradient { values, accumulation }| (Rest::of(values), accumulation));
            let mut biases = grad_bias.map(Rest::of);
            let mut sums = Rest::of(sums);
            let in_turn = THREADS && self.segments() > 1;
            let jobs = self.parts.iter().map(move |[segments, _, units]| {
                let channels = self.channels(desc, &units);
                let weights = weights
                    .as_mut()
                    .map(|(rest, accumulation)| Gradient::new(rest.cut(channels.len() * filter), *accumulation));
                let biases = biases.as_mut().map(|rest| rest.cut(channels.len()));
                let gradients = if in_turn {
                    Gradients::InTurn(weights, biases, sums.cut(gradient_len(desc, channels.len())))
                } else {
                    Gradients::Whole(weights, biases)
                };
                WeightPart { segments, channels, gradients, workspace: workspace.cut(part_len) }
            });
            return for_each(executor, self.parts.count(), jobs, &|part| self.run_part(call, part));
        }
        let wanted = [grad_weight.is_some(), grad_bias.is_some()];
        let mut rest = Rest::of(&mut *sums);
        let jobs = self.parts.iter().map(move |[segments, _, units]| {
            let channels = self.channels(desc, &units);
            let own = rest.cut(segments.len() * gradient_len(desc, channels.len()));
            let gradients = Gradients::Apart(own, wanted);
            WeightPart { segments, channels, gradients, workspace: workspace.cut(part_len) }
        });
        for_each(executor, self.parts.count(), jobs, &|part| self.run_part(call, part))?;
        self.add_segments(desc, sums, (grad_weight, grad_bias), executor)
    }

    /// Adds the sums of all segments to the gradients, one segment after another. Threads share the channels. The sums lie in the
    /// order of the parts of the channels.
    fn add_segments(
        &self,
        desc: &ConvDesc,
        sums: &[f32],
        (grad_weight, grad_bias): (Option<Gradient<'_>>, Option<&mut [f32]>),
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let filter = desc.group_in_channels() * desc.taps();
        let panels = self.parts.panels();
        let threads = min(self.parts.count(), sums.len() / ADDED_ALONE);
        let each = max(threads / panels.count(), 1);
        let executor = if threads > 1 { executor } else { &Serial };
        let mut weights = grad_weight.map(|Gradient { values, accumulation }| (Rest::of(values), accumulation));
        let mut biases = grad_bias.map(Rest::of);
        let mut rest = sums;
        let jobs = (0..panels.count() * each).map(move |index| {
            let channels = self.channels(desc, &panels.get(index / each));
            let len = gradient_len(desc, channels.len());
            let own = &rest[..len * self.segments()];
            if index % each == each - 1 {
                rest = &rest[own.len()..];
            }
            let parts = Panels::into_parts(channels.len(), each);
            let part = parts.start(min(index % each, parts.count()))..parts.start(min(index % each + 1, parts.count()));
            let weights = weights.as_mut().map(|(rest, accumulation)| (rest.cut(part.len() * filter), *accumulation));
            let biases = biases.as_mut().map(|rest| rest.cut(part.len()));
            SegmentSums { sums: own, len, all: channels.len(), channels: part, weights, biases }
        });
        for_each(executor, panels.count() * each, jobs, &|part: SegmentSums<'_>| part.add(filter))
    }

    fn run_part(&self, call: &BackwardWeightCall<'_>, part: WeightPart<'_>) {
        let WeightPart { segments, channels, gradients, workspace } = part;
        match gradients {
            Gradients::Whole(weights, biases) => {
                let all = border::all(call.desc);
                self.run_channels(call, &all, channels, weights, biases, workspace);
            }
            Gradients::InTurn(mut weights, mut biases, sums) if THREADS => {
                let wanted = [weights.is_some(), biases.is_some()];
                for segment in segments {
                    self.run_segment(call, segment, &channels, (&mut *sums, wanted), &mut *workspace);
                    let part = SegmentSums {
                        sums: &*sums,
                        len: sums.len(),
                        all: channels.len(),
                        channels: 0..channels.len(),
                        weights: weights.as_mut().map(|gradient| (&mut *gradient.values, gradient.accumulation)),
                        biases: biases.as_deref_mut(),
                    };
                    part.add(call.desc.group_in_channels() * call.desc.taps());
                    if let Some(gradient) = &mut weights {
                        gradient.accumulation = Accumulation::Add;
                    }
                }
            }
            Gradients::Apart(sums, wanted) if THREADS => {
                let len = gradient_len(call.desc, channels.len());
                for (segment, sums) in segments.zip(sums.chunks_exact_mut(len)) {
                    self.run_segment(call, segment, &channels, (sums, wanted), &mut *workspace);
                }
            }
            Gradients::InTurn(..) | Gradients::Apart(..) => unreachable!("segments are never planned"),
        }
    }

    /// Replaces `sums` with the sums of a segment.
    fn run_segment(
        &self,
        call: &BackwardWeightCall<'_>,
        segment: usize,
        channels: &Range<usize>,
        (sums, [weight, bias]): (&mut [f32], [bool; 2]),
        workspace: &mut [f32],
    ) {
        let (images, positions) = self.segment(call.desc, segment);
        let [input, output] = [call.desc.input_tensor(), call.desc.output_tensor()];
        let call = BackwardWeightCall {
            desc: &call.desc.of_images(images.len()),
            input: &call.input[images.start * input.image_stride..],
            grad_output: &call.grad_output[images.start * output.image_stride..],
            ..*call
        };
        let (weights, biases) = sums.split_at_mut(sums.len() - channels.len());
        biases.fill(0.0);
        let weights = weight.then_some(Gradient::overwrite(weights));
        let biases = bias.then_some(biases);
        self.run_channels(&call, &positions, channels.clone(), weights, biases, workspace);
    }

    /// Computes the gradients of some output channels, at all positions, or at some where images are cut.
    fn run_channels(
        &self,
        call: &BackwardWeightCall<'_>,
        positions: &Positions,
        channels: Range<usize>,
        mut grad_weight: Option<Gradient<'_>>,
        grad_bias: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) {
        if VECTORS && let Driver::Depthwise(driver) = &self.driver {
            let grad_weight = grad_weight.map(Gradient::zeroed);
            driver.run(
                call,
                depthwise::Part { channels, positions: positions.clone(), grad_weight, grad_bias, workspace },
            );
            return;
        }
        if VECTORS && let Driver::Stripes(driver) = &self.driver {
            driver.run(call, positions, channels, grad_weight, grad_bias, workspace);
            return;
        }
        if VECTORS
            && let Driver::Patches(driver) = &self.driver
            && let Some(grad_weight) = grad_weight.take()
        {
            driver.run(call, positions, channels, grad_weight.zeroed(), grad_bias, workspace);
            return;
        }
        if let Some(grad_bias) = grad_bias {
            let positions = core::slice::from_ref(positions);
            add_positions(&call.desc.output_tensor(), call.grad_output, positions, channels.clone(), grad_bias);
        }
        let Some(grad_weight) = grad_weight.map(Gradient::zeroed) else { return };
        match &self.driver {
            Driver::Outer(driver) => driver.run(call, positions, channels, grad_weight, workspace),
            Driver::Depthwise(_) | Driver::Patches(_) | Driver::Stripes(_) | Driver::Tiny(_) => {
                unreachable!("never planned, or done above")
            }
        }
    }
}
