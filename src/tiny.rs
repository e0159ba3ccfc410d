//! Plain loops for the smallest layers. They have so few multiply-adds that to prepare blocks, panels and vectors would take
//! longer than to compute the layer. The loops run on the calling thread, over the tensors as they lie in memory, and need no
//! workspace.
//!
//! A tap that reads padding is multiplied only where its threshold is above zero.

use crate::arith::min;
use crate::desc::{ConvDesc, volume};
use crate::geometry::{Reads, Span};
use crate::kernel::{Epilogue, VECTORS};
use crate::layout::Layout;
use crate::operands::Weight;
use crate::strided;
use crate::thresholds::{ThresholdGradient, ThresholdTable};
use crate::tuning::Tuning;
use crate::weight::{Packing, WeightTable, plain_strides};

/// The most multiply-adds of a layer. It also bounds the values of a run (channels times positions), which wait on the stack.
const MOST: usize = 256;

/// The highest estimated cost at which the loops are faster than the drivers, measured on Zen 3. The estimate is rows × taps ×
/// (pairs of channels + 4). The 4 stands for what each row and tap costs beside its pairs. (A layer of 256 multiply-adds is
/// faster here if it is one row of positions, and slower if it is 16 channels of one position.)
const MOST_VISITS: usize = 100;

/// Most positions of a run.
const LONGEST: usize = 32;

/// The loops of a layer with one group, whose tensors have no gaps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiny {
    images: usize,
    axes: [Reads; 3],
    input: Places,
    output: Places,
    /// Distances of output channels, input channels and taps in packed weights.
    packed: [usize; 3],
}

/// Channels of a tensor, and the distances of its images, channels and positions.
#[derive(Clone, Copy, Debug)]
struct Places {
    channels: usize,
    image: usize,
    channel: usize,
    position: usize,
}

impl Places {
    const fn new(layout: Layout, channels: usize, positions: usize) -> Self {
        let (channel, position) = match layout {
            Layout::Nchw => (positions, 1),
            Layout::Nhwc => (1, channels),
        };
        Self { channels, image: channels * positions, channel, position }
    }
}

impl Tiny {
    /// The loops of a layer, if the layer is small enough and its tensors have no gaps. Builds without vectors leave the loops
    /// out, because their drivers have less to prepare and the size of their code matters.
    pub(crate) const fn of(desc: &ConvDesc, tuning: &Tuning) -> Option<Self> {
        if !VECTORS || desc.multiply_adds() > min(tuning.tiny, MOST) || desc.batch() == 0 || desc.groups() != 1 {
            return None;
        }
        let [inputs, outputs] = [volume(desc.input_size()), volume(desc.output_size())];
        let (input_pitch, output_pitch) = match desc.layout() {
            Layout::Nchw => (desc.in_channels() * inputs, desc.out_channels() * outputs),
            Layout::Nhwc => (desc.in_channels(), desc.out_channels()),
        };
        if desc.input_pitch() != input_pitch || desc.output_pitch() != output_pitch {
            return None;
        }
        let batch = desc.batch();
        let (images, axes, [inputs, outputs]) = if !desc.is_pointwise() {
            (batch, Reads::all_forward(desc), [inputs, outputs])
        } else {
            // All positions of an image are one row. With channels last, the positions of all images are one row.
            let (images, row) = match desc.layout() {
                Layout::Nchw => (batch, outputs),
                Layout::Nhwc => (1, batch * outputs),
            };
            (images, [Reads::same(1), Reads::same(1), Reads::same(row)], [row; 2])
        };
        let runs = images * axes[0].positions * axes[1].positions * desc.taps();
        if runs.saturating_mul(desc.in_channels() * desc.out_channels() + 4) > MOST_VISITS {
            return None;
        }
        Some(Self {
            images,
            axes,
            input: Places::new(desc.layout(), desc.in_channels(), inputs),
            output: Places::new(desc.layout(), desc.out_channels(), outputs),
            packed: [0; 3],
        })
    }

    /// The loops that read weights in a given packing. None if it has several panels.
    pub(crate) const fn reading(self, packing: &Packing, desc: &ConvDesc) -> Option<Self> {
        match packing.strides(desc) {
            Some(packed) => Some(Self { packed, ..self }),
            None => None,
        }
    }

    /// The weights of a call, with their strides.
    pub(crate) fn weight<'a>(&self, desc: &ConvDesc, weight: Weight<'a>) -> WeightTable<'a> {
        match weight {
            Weight::Plain(values) => WeightTable::new(values, plain_strides(desc)),
            Weight::Packed(weight) => WeightTable::new(weight.data, self.packed),
        }
    }

    /// Visits each tap with runs of output positions. The positions of a run lie in one row, and either all read inside through
    /// the tap or all read padding.
    #[inline(always)]
    fn walk(&self, mut visit: impl FnMut(usize, Run)) {
        let [depth, height, width] = &self.axes;
        let (output_step, input_step) = (self.output.position, self.input.position);
        for image in 0..self.images {
            let (mut row, input) = (image * self.output.image, image * self.input.image);
            for (d, h) in (0..depth.positions).flat_map(|d| (0..height.positions).map(move |h| (d, h))) {
                let mut tap = 0;
                for (kd, kh) in (0..depth.taps).flat_map(|d| (0..height.taps).map(move |h| (d, h))) {
                    let above = match (depth.source_of(d, kd), height.source_of(h, kh)) {
                        (Some(d), Some(h)) => Some((d * height.source + h) * width.source),
                        _ => None,
                    };
                    for kw in 0..width.taps {
                        let inside = if above.is_some() { width.unpadded(kw) } else { Span::EMPTY };
                        let mut run = |positions: Span, read: Option<usize>| {
                            for start in (positions.start..positions.end).step_by(LONGEST) {
                                let read = read
                                    .map(|read| input + (read + (start - positions.start) * width.stride) * input_step);
                                let count = min(LONGEST, positions.end - start);
                                visit(tap, Run { at: row + start * output_step, read, count });
                            }
                        };
                        // Where no position reads inside, there is none at the start.
                        let first = if inside.is_empty() { None } else { width.source_of(inside.start, kw) };
                        if let (Some(above), Some(first)) = (above, first) {
                            run(inside, Some(above + first));
                        }
                        run(Span { start: 0, end: inside.start }, None);
                        run(Span { start: inside.end, end: width.positions }, None);
                        tap += 1;
                    }
                }
                row += width.positions * output_step;
            }
        }
    }

    /// Elements between the inputs of two neighbouring positions.
    const fn read_step(&self) -> usize {
        self.axes[2].stride.saturating_mul(self.input.position)
    }

    /// `f(x; θ)` of a run, `[input channel][position]`. The caller must [skip](Run::skips) padding that stays zero.
    #[inline(always)]
    fn activate(&self, input: &[f32], thresholds: &ThresholdTable<'_>, tap: usize, run: &Run, values: &mut [f32]) {
        for (c, values) in values.chunks_exact_mut(run.count).enumerate() {
            let theta = thresholds.at(c, tap);
            match run.read {
                Some(read) => {
                    strided::copy(&input[read + c * self.input.channel..], self.read_step(), values, 1, run.count);
                    values.iter_mut().for_each(|x| *x = if *x <= theta { theta } else { *x });
                }
                None => values.fill(if theta > 0.0 { theta } else { 0.0 }),
            }
        }
    }

    /// The output's gradient of a run, `[output channel][position]`.
    #[inline(always)]
    fn gradients(&self, grad_output: &[f32], run: &Run, values: &mut [f32]) {
        for (d, values) in values.chunks_exact_mut(run.count).enumerate() {
            strided::copy(&grad_output[run.at + d * self.output.channel..], self.output.position, values, 1, run.count);
        }
    }

    /// Overwrites the output.
    pub(crate) fn forward(
        &self,
        input: &[f32],
        weight: &WeightTable<'_>,
        thresholds: &ThresholdTable<'_>,
        bias: Option<&[f32]>,
        epilogue: Option<&Epilogue<'_>>,
        output: &mut [f32],
    ) {
        let Some(epilogue) = epilogue else { return self.sums(input, weight, thresholds, bias, output) };
        let mut sums = [0.0; MOST];
        // Fits: each output has at least one multiply-add, and the layer has at most MOST of them.
        let sums = &mut sums[..output.len()];
        self.sums(input, weight, thresholds, bias, sums);
        let Places { channels, channel, .. } = self.output;
        for (at, (to, sum)) in output.iter_mut().zip(sums).enumerate() {
            *to = epilogue.of_one(*sum, at / channel % channels, at, to);
        }
    }

    /// Overwrites the output with sums.
    fn sums(
        &self,
        input: &[f32],
        weight: &WeightTable<'_>,
        thresholds: &ThresholdTable<'_>,
        bias: Option<&[f32]>,
        output: &mut [f32],
    ) {
        let to = self.output;
        let (mut inputs, mut sums) = ([0.0; MOST], [0.0; LONGEST]);
        let positions = self.axes.iter().map(|axis| axis.positions).product::<usize>();
        for image in output.chunks_exact_mut(to.image) {
            for d in 0..to.channels {
                let (bias, mut at) = (bias.map_or(0.0, |bias| bias[d]), d * to.channel);
                for _ in 0..positions {
                    image[at] = bias;
                    at += to.position;
                }
            }
        }
        self.walk(|tap, run| {
            let inputs = &mut inputs[..self.input.channels * run.count];
            self.activate(input, thresholds, tap, &run, inputs);
            let sums = &mut sums[..run.count];
            for d in 0..to.channels {
                let output = &mut output[run.at + d * to.channel..];
                strided::copy(output, to.position, sums, 1, run.count);
                for (c, x) in inputs.chunks_exact(run.count).enumerate() {
                    if run.skips(x) {
                        continue;
                    }
                    let weight = weight.at(d, c, tap);
                    sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += weight * x);
                }
                strided::copy(sums, 1, output, to.position, run.count);
            }
        });
    }

    /// Adds to the requested gradients. Without an input, the layer is linear.
    pub(crate) fn backward_input(
        &self,
        input: Option<&[f32]>,
        weight: &WeightTable<'_>,
        thresholds: &ThresholdTable<'_>,
        grad_output: &[f32],
        mut grad_input: Option<&mut [f32]>,
        mut grad_thresholds: Option<ThresholdGradient<'_>>,
    ) {
        let (mut gradients, mut sums, mut inputs) = ([0.0; MOST], [0.0; LONGEST], [0.0; LONGEST]);
        self.walk(|tap, run| {
            let gradients = &mut gradients[..self.output.channels * run.count];
            self.gradients(grad_output, &run, gradients);
            let (sums, inputs) = (&mut sums[..run.count], &mut inputs[..run.count]);
            for c in 0..self.input.channels {
                sums.fill(0.0);
                for (d, g) in gradients.chunks_exact(run.count).enumerate() {
                    let weight = weight.at(d, c, tap);
                    sums.iter_mut().zip(g).for_each(|(sum, g)| *sum += weight * g);
                }
                let theta = thresholds.at(c, tap);
                let mut held = 0.0;
                if let Some(read) = run.read {
                    let (read, step) = (read + c * self.input.channel, self.read_step());
                    if let Some(input) = input {
                        strided::copy(&input[read..], step, inputs, 1, run.count);
                        for (x, sum) in inputs.iter().zip(&mut *sums) {
                            // A NaN passes its gradient to neither.
                            held += if *x <= theta { *sum } else { 0.0 };
                            *sum = if *x > theta { *sum } else { 0.0 };
                        }
                    }
                    if let Some(grad_input) = &mut grad_input {
                        strided::add(sums, &mut grad_input[read..], step);
                    }
                } else if theta >= 0.0 {
                    held = sums.iter().sum();
                }
                if let Some(grad_thresholds) = &mut grad_thresholds {
                    grad_thresholds.add(c, tap, held);
                }
            }
        });
    }

    /// Adds to the requested gradients. That of the weight has the order of the layout.
    pub(crate) fn backward_weight(
        &self,
        input: &[f32],
        thresholds: &ThresholdTable<'_>,
        grad_output: &[f32],
        mut grad_weight: Option<(&mut [f32], [usize; 3])>,
        mut grad_bias: Option<&mut [f32]>,
    ) {
        let (mut inputs, mut gradients) = ([0.0; MOST], [0.0; MOST]);
        self.walk(|tap, run| {
            let gradients = &mut gradients[..self.output.channels * run.count];
            self.gradients(grad_output, &run, gradients);
            if tap == 0
                && let Some(grad_bias) = &mut grad_bias
            {
                for (bias, g) in grad_bias.iter_mut().zip(gradients.chunks_exact(run.count)) {
                    *bias += g.iter().sum::<f32>();
                }
            }
            let Some((grad_weight, [filter, channel, step])) = &mut grad_weight else { return };
            let inputs = &mut inputs[..self.input.channels * run.count];
            self.activate(input, thresholds, tap, &run, inputs);
            for (c, x) in inputs.chunks_exact(run.count).enumerate() {
                if run.skips(x) {
                    continue;
                }
                for (d, g) in gradients.chunks_exact(run.count).enumerate() {
                    let sum: f32 = x.iter().zip(g).map(|(x, g)| x * g).sum();
                    grad_weight[d * *filter + c * *channel + tap * *step] += sum;
                }
            }
        });
    }
}

/// Positions of a row that read through the same tap: at least one, at most [`LONGEST`].
struct Run {
    /// The offset of the first output channel at the first position.
    at: usize,
    /// The offset of the first input channel that the first position reads. None if the run reads padding.
    read: Option<usize>,
    count: usize,
}

impl Run {
    /// Whether the activations are padding that stays zero. They then add nothing, even if they meet an infinity.
    #[inline(always)]
    fn skips(&self, activations: &[f32]) -> bool {
        self.read.is_none() && activations[0] == 0.0
    }
}
