//! Depthwise driver of the gradients of weight and bias.
//!
//! It also serves groups of a few channels. Each input channel of a group and each output channel of it, one pair after another, make
//! a depthwise layer with as many channels as there are groups. Where channels are last, these channels are copied together.

use core::ops::Range;

use super::geometry::{Direction, Rows, Strips};
use super::outside::{Outside, where_true};
use super::{
    Blocking, Field, Plane, Tables, axes_of, fits_tables, ranges_of, table_lens, tabulate, thetas_from, thetas_of,
};
use crate::arith::min;
use crate::calls::BackwardWeightCall;
use crate::desc::ConvDesc;
use crate::geometry::{Reads, Segments, chunks};
use crate::kernel::{DepthwiseBackwardWeight, Inputs, Kernels, RowsMut, Thetas, TransposeBlock};
use crate::layout::Layout;
use crate::pixels::Reading;
use crate::stage::blocks;
use crate::strided;
use crate::sums::Positions;
use crate::tuning::Tuning;
use crate::workspace::Buffers;

#[derive(Clone, Copy, Debug)]
pub(crate) struct BackwardWeight(Blocking);

/// Whether each pair of an input and an output channel of a group is better computed as a depthwise layer.
///
/// Measured on Zen 4, 32 layers in both layouts, groups of 1 to 8 channels: with AVX-512 the time was about a 32nd of that of the
/// other algorithms for each pair, with AVX2 and channels first a 16th. Lanes without a group cost as much as others. Copies of
/// channels that are not together cost as much as three taps. Without vectors, nothing is gained.
const fn suits(desc: &ConvDesc, lanes: usize) -> bool {
    const MOST_PAIRS: usize = 24;
    let (groups, pairs) = (desc.groups(), desc.group_in_channels().saturating_mul(desc.group_out_channels()));
    let (filled, most) = match desc.layout() {
        Layout::Nchw => (groups, min(MOST_PAIRS, 3 * lanes / 2)),
        Layout::Nhwc => (groups.next_multiple_of(lanes), min(MOST_PAIRS, 4 * desc.taps())),
    };
    pairs == 1 || groups > 1 && lanes > 1 && pairs.saturating_mul(filled) <= most * groups
}

/// The gradients that one task computes and adds to their buffers, those of the output channels of some groups.
pub(crate) struct Part<'a> {
    /// The first group is the first of a vector.
    pub(crate) channels: Range<usize>,
    /// Outputs, along each axis, of all images.
    pub(crate) positions: Positions,
    pub(crate) grad_weight: Option<&'a mut [f32]>,
    pub(crate) grad_bias: Option<&'a mut [f32]>,
    pub(crate) workspace: &'a mut [f32],
}

impl BackwardWeight {
    /// None if groups have many channels.
    pub(crate) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning) -> Option<Self> {
        let apart = [desc.group_in_channels(), desc.group_out_channels()];
        if !(fits_tables(desc) && suits(desc, kernels.lanes)) {
            return None;
        }
        match Blocking::new(&desc.one_per_group(), kernels, tuning, Reading::Forward, [1, 2], apart) {
            Some(blocking) => Some(Self(blocking)),
            None => None,
        }
    }

    /// The buffers of one thread: thresholds and sums of a channel of each of its `groups`, sums over padding, sums of the bias, the
    /// sums of one vector transposed, tables of a walk, a window and the gradients of a block. The layer has a channel per group.
    const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels, groups: usize) -> Buffers<10> {
        let lanes = groups.next_multiple_of(kernels.lanes);
        let table = desc.taps().saturating_mul(lanes);
        let outside = if desc.has_padding() { table } else { 0 };
        let vector = desc.taps().saturating_mul(kernels.lanes);
        let [segments, rows] = table_lens(desc);
        let (window, block) = (self.0.window_len(), self.0.block_len());
        let spread = self.0.spread_len(desc, kernels, 3);
        Buffers::new([table, table, outside, lanes, vector, segments, rows, spread, window, block], kernels.lanes)
    }

    pub(crate) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels, channels: usize) -> usize {
        let groups = channels.div_ceil(desc.group_out_channels());
        self.buffers(&desc.one_per_group(), kernels, groups).len()
    }

    pub(crate) fn run(&self, call: &BackwardWeightCall<'_>, part: Part<'_>) {
        let Part { channels, positions, mut grad_weight, mut grad_bias, workspace } = part;
        let [inputs, outputs] = [call.desc.group_in_channels(), call.desc.group_out_channels()];
        let groups = channels.start / outputs..channels.end / outputs;
        for input in 0..inputs {
            for output in 0..outputs {
                // The gradient of the bias needs each output channel once.
                let grad_bias = grad_bias.as_deref_mut().filter(|_| input == 0);
                if grad_weight.is_some() || grad_bias.is_some() {
                    let pair = Pair { all: [inputs, outputs], input, output };
                    self.run_pair(
                        call,
                        pair,
                        (&groups, &positions),
                        grad_weight.as_deref_mut(),
                        grad_bias,
                        &mut *workspace,
                    );
                }
            }
        }
    }

    fn run_pair(
        &self,
        call: &BackwardWeightCall<'_>,
        pair: Pair,
        (groups, positions): (&Range<usize>, &Positions),
        grad_weight: Option<&mut [f32]>,
        grad_bias: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) {
        let (desc, kernels, channels) = (&call.desc.one_per_group(), call.kernels, groups.clone());
        let ([thetas, weight, outside, bias, transposed, segments, kernel_rows, spread, window, gradients], _) =
            self.buffers(desc, kernels, channels.len()).carve(workspace);
        let thresholds = call.thresholds.every(pair.all[0], pair.input);
        tabulate(kernels, desc, &thresholds, channels.clone(), thetas);
        let thetas = thetas_of(&thresholds, thetas);
        weight.fill(0.0);
        bias.fill(0.0);
        let adds = desc.has_padding() && grad_weight.is_some() && !thresholds.adds_nothing_to_padding();
        let outside = Outside::new(desc, kernels, if adds { outside } else { &mut [] });
        let mut sums = Sums { desc, kernels, pair, thetas, weight, outside, bias, transposed, grad_weight, grad_bias };
        let mut tables = Tables { chunk: self.0.chunk, segments, outside: kernel_rows, spread };
        let (taps, first) = (desc.taps(), channels.start);
        let [read, own_copies] = self.0.pitches();
        let reads = Reads::all_forward(desc);
        let [input, output] = [call.desc.input_tensor(), call.desc.output_tensor()];
        let source_data = &call.input[pair.input * input.strides.channel..];
        let own_data = &call.grad_output[pair.output * output.strides.channel..];
        let (input, output) = (input.every(pair.all[0], desc.groups()), output.every(pair.all[1], desc.groups()));
        let mut counted = Segments::default();
        if self.0.strips {
            for image in 0..desc.batch() {
                let source = Plane::new(&input, source_data, image, first);
                let own = Plane::new(&output, own_data, image, first);
                for block in blocks(positions.clone(), self.0.block) {
                    Strips::all(&reads, Direction::Forward, ranges_of(&block), kernels.lanes).for_each(|strips| {
                        let (walk, room, spread) = tables.strips(desc, &strips, Some(&source), channels.len(), adds);
                        kernels.depthwise_backward_weight(DepthwiseBackwardWeight {
                            walk,
                            room,
                            spread,
                            inputs: sums.grad_weight.as_ref().map(|_| Inputs {
                                source: source.data,
                                thetas,
                                sums: &mut *sums.weight,
                            }),
                            grad_output: own.own(&strips),
                            outside: adds.then(|| sums.outside.sums()),
                            bias: sums.grad_bias.as_ref().map(|_| &mut *sums.bias),
                        });
                    });
                    if counted.advance(block.len()) {
                        sums.end_segment(0..channels.len());
                    }
                }
            }
            sums.end_segment(0..channels.len());
            return;
        }
        for image in 0..desc.batch() {
            let before = counted;
            for group in chunks(channels.clone(), self.0.channels) {
                counted = before;
                for block in blocks(positions.clone(), self.0.block) {
                    let axes = Reading::Forward.read(&reads, &block);
                    let source = Field::new(kernels, read, (&input, source_data), (image, axes), &group, window);
                    let at = (image, axes_of(&ranges_of(&block)));
                    let own = Field::new(kernels, own_copies, (&output, own_data), at, &group, gradients);
                    let (width, in_part) = (self.0.width(&group, kernels.lanes), group.start - first);
                    let table = in_part * taps..(in_part + width).next_multiple_of(kernels.lanes) * taps;
                    Rows::all(&reads, Direction::Forward, ranges_of(&block)).for_each(|rows| {
                        let (walk, room, spread) = tables.walk(desc, &rows, Some(&source), width, adds);
                        kernels.depthwise_backward_weight(DepthwiseBackwardWeight {
                            walk,
                            room,
                            spread,
                            inputs: sums.grad_weight.as_ref().map(|_| Inputs {
                                source: source.data,
                                thetas: thetas_from(thetas, table.start),
                                sums: &mut sums.weight[table.clone()],
                            }),
                            grad_output: own.rows(&rows),
                            outside: adds.then(|| &mut sums.outside.sums()[table.clone()]),
                            bias: sums.grad_bias.as_ref().map(|_| &mut sums.bias[in_part..]),
                        });
                    });
                    if counted.advance(block.len()) {
                        sums.end_segment(group.start - first..group.end - first);
                    }
                }
            }
        }
        sums.end_segment(0..channels.len());
    }
}

/// A channel of each group of the input, and one of the output.
#[derive(Clone, Copy)]
struct Pair {
    /// The channels of a group.
    all: [usize; 2],
    input: usize,
    output: usize,
}

/// The sums of the current segment of positions, and the gradients that they are added to.
struct Sums<'a> {
    desc: &'a ConvDesc,
    kernels: &'static Kernels,
    pair: Pair,
    thetas: Thetas<'a>,
    /// `[vector][tap][lane]`
    weight: &'a mut [f32],
    outside: Outside<'a>,
    /// `[vector][lane]`
    bias: &'a mut [f32],
    /// The sums of one vector, `[lane][tap]`.
    transposed: &'a mut [f32],
    grad_weight: Option<&'a mut [f32]>,
    grad_bias: Option<&'a mut [f32]>,
}

impl Sums<'_> {
    /// Adds the sums of some channels to the gradients, and sets them to zero.
    fn end_segment(&mut self, channels: Range<usize>) {
        let (taps, lanes) = (self.desc.taps(), self.kernels.lanes);
        let table = channels.start * taps..channels.end.next_multiple_of(lanes) * taps;
        self.outside.take(table.clone(), |at, outside| {
            let sums = self.weight[at.clone()].iter_mut().zip(outside);
            match self.thetas {
                Thetas::PerTap(thetas) => {
                    for ((sum, outside), theta) in sums.zip(&thetas[at]) {
                        *sum += where_true(*theta > 0.0, theta * outside);
                    }
                }
                Thetas::Uniform(theta) => sums.for_each(|(sum, outside)| *sum += theta * outside),
                Thetas::Linear => (),
            }
        });
        let Pair { all: [inputs, outputs], input, output } = self.pair;
        // A filter holds the weights of an input channel together, or those of a tap.
        let (first, step) = match self.desc.layout() {
            Layout::Nchw => (input * taps, 1),
            Layout::Nhwc => (input, inputs),
        };
        let filters = channels.start * outputs * inputs * taps..channels.end * outputs * inputs * taps;
        let all = self
            .grad_weight
            .iter_mut()
            .flat_map(|all| all[filters.clone()].chunks_mut(outputs * inputs * taps * lanes));
        let vectors = self.weight[table].chunks_exact_mut(taps * lanes);
        for (sums, gradients) in vectors.zip(all) {
            let groups = gradients.len() / (outputs * inputs * taps);
            self.kernels.transpose(TransposeBlock {
                from: sums,
                from_step: lanes,
                from_column: 1,
                to: RowsMut::of_slice(self.transposed, groups, taps, taps),
            });
            sums.fill(0.0);
            if outputs * inputs == 1 {
                gradients.iter_mut().zip(&*self.transposed).for_each(|(gradient, sum)| *gradient += sum);
                continue;
            }
            let filters = gradients.chunks_exact_mut(inputs * taps).skip(output).step_by(outputs);
            for (filter, sums) in filters.zip(self.transposed.chunks_exact(taps)) {
                strided::add(sums, &mut filter[first..], step);
            }
        }
        if let Some(gradients) = &mut self.grad_bias {
            let gradients = gradients[channels.start * outputs..channels.end * outputs].iter_mut();
            for (gradient, sum) in gradients.skip(output).step_by(outputs).zip(&mut self.bias[channels]) {
                *gradient += core::mem::take(sum);
            }
        }
    }
}
