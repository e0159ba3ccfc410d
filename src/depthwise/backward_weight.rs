//! Depthwise driver of the gradients of weight and bias.

use core::ops::Range;

use super::geometry::{Direction, Rows, Strips};
use super::outside::Outside;
use super::{Blocking, Field, Plane, Tables, axes_of, ranges_of, table_lens, tabulate, thetas_from, thetas_of};
use crate::calls::BackwardWeightCall;
use crate::desc::ConvDesc;
use crate::geometry::{Reads, Segments, chunks};
use crate::kernel::{DepthwiseBackwardWeight, Inputs, Kernels, RowsMut, Thetas, TransposeBlock, Walk};
use crate::pixels::Reading;
use crate::stage::blocks;
use crate::tuning::Tuning;
use crate::workspace::Buffers;

#[derive(Clone, Copy, Debug)]
pub(crate) struct BackwardWeight(Blocking);

/// The gradients that one task computes and adds to their buffers: `[channel][tap]` and `[channel]`.
pub(crate) struct Part<'a> {
    pub(crate) channels: Range<usize>,
    pub(crate) grad_weight: Option<&'a mut [f32]>,
    pub(crate) grad_bias: Option<&'a mut [f32]>,
    pub(crate) workspace: &'a mut [f32],
}

impl BackwardWeight {
    /// None if the layer is not depthwise.
    pub(crate) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning) -> Option<Self> {
        match Blocking::new(desc, kernels, tuning, Reading::Forward, [1, 2]) {
            Some(blocking) => Some(Self(blocking)),
            None => None,
        }
    }

    /// The buffers of one thread: thresholds and sums of its `channels`, sums over padding, sums of the bias, the sums of one
    /// vector transposed, tables of a walk, a window and the gradients of a block.
    const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels, channels: usize) -> Buffers<10> {
        let lanes = channels.next_multiple_of(kernels.lanes);
        let table = desc.taps().saturating_mul(lanes);
        let outside = if desc.has_padding() { table } else { 0 };
        let vector = desc.taps().saturating_mul(kernels.lanes);
        let [segments, rows] = table_lens(desc);
        let (window, block) = (self.0.window_len(), self.0.block_len());
        let spread = self.0.spread_len(desc, kernels, 3);
        Buffers::new([table, table, outside, lanes, vector, segments, rows, spread, window, block], kernels.lanes)
    }

    pub(crate) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels, channels: usize) -> usize {
        self.buffers(desc, kernels, channels).len()
    }

    pub(crate) fn run(&self, call: &BackwardWeightCall<'_>, part: Part<'_>) {
        let (desc, kernels) = (call.desc, call.kernels);
        let Part { channels, grad_weight, grad_bias, workspace } = part;
        let ([thetas, weight, outside, bias, transposed, segments, kernel_rows, spread, window, gradients], _) =
            self.buffers(desc, kernels, channels.len()).carve(workspace);
        tabulate(kernels, desc, &call.thresholds, channels.clone(), thetas);
        let thetas = thetas_of(&call.thresholds, thetas);
        weight.fill(0.0);
        bias.fill(0.0);
        let adds = desc.has_padding() && grad_weight.is_some() && !call.thresholds.adds_nothing_to_padding();
        let outside = Outside::new(desc, kernels, if adds { outside } else { &mut [] });
        let mut sums = Sums { desc, kernels, thetas, weight, outside, bias, transposed, grad_weight, grad_bias };
        let mut tables = Tables { segments, outside: kernel_rows, spread };
        let (taps, first) = (desc.taps(), channels.start);
        let [read, own_copies] = self.0.pitches();
        let reads = Reads::all_forward(desc);
        let (input, output) = (desc.input_tensor(), desc.output_tensor());
        let mut counted = Segments::default();
        if self.0.strips {
            for image in 0..desc.batch() {
                let source = Plane::new(&input, call.input, image, first);
                let own = Plane::new(&output, call.grad_output, image, first);
                for block in blocks(desc.output_size().map(|size| 0..size), self.0.block) {
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
                for block in blocks(desc.output_size().map(|size| 0..size), self.0.block) {
                    let axes = Reading::Forward.read(&reads, &block);
                    let source = Field::new(kernels, read, (&input, call.input), (image, axes), &group, window);
                    let at = (image, axes_of(&ranges_of(&block)));
                    let own = Field::new(kernels, own_copies, (&output, call.grad_output), at, &group, gradients);
                    let widest = self.0.widest(&group, kernels.lanes);
                    Rows::all(&reads, Direction::Forward, ranges_of(&block)).for_each(|rows| {
                        let (walk, room, spread) = tables.walk(desc, &rows, Some(&source), widest, adds);
                        for chunk in chunks(group.clone(), self.0.chunk) {
                            let width = self.0.width(&chunk, kernels.lanes);
                            let (in_group, in_part) = (chunk.start - group.start, chunk.start - first);
                            let table = in_part * taps..(in_part + width).next_multiple_of(kernels.lanes) * taps;
                            kernels.depthwise_backward_weight(DepthwiseBackwardWeight {
                                walk: Walk { lanes: width, ..walk },
                                room: &mut *room,
                                spread: &mut *spread,
                                inputs: sums.grad_weight.as_ref().map(|_| Inputs {
                                    source: &source.data[in_group..],
                                    thetas: thetas_from(thetas, table.start),
                                    sums: &mut sums.weight[table.clone()],
                                }),
                                grad_output: own.rows(&rows, in_group),
                                outside: adds.then(|| &mut sums.outside.sums()[table.clone()]),
                                bias: sums.grad_bias.as_ref().map(|_| &mut sums.bias[in_part..]),
                            });
                        }
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

/// The sums of the current segment of positions, and the gradients that they are added to.
struct Sums<'a> {
    desc: &'a ConvDesc,
    kernels: &'static Kernels,
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
                        *sum += if *theta > 0.0 { theta * outside } else { 0.0 };
                    }
                }
                Thetas::Uniform(theta) => sums.for_each(|(sum, outside)| *sum += theta * outside),
                Thetas::Linear => (),
            }
        });
        let all = self
            .grad_weight
            .iter_mut()
            .flat_map(|all| all[channels.start * taps..channels.end * taps].chunks_mut(taps * lanes));
        let vectors = self.weight[table].chunks_exact_mut(taps * lanes);
        for (sums, gradients) in vectors.zip(all) {
            self.kernels.transpose(TransposeBlock {
                from: sums,
                from_step: lanes,
                from_column: 1,
                to: RowsMut::of_slice(self.transposed, gradients.len() / taps, taps, taps),
            });
            gradients.iter_mut().zip(&*self.transposed).for_each(|(gradient, sum)| *gradient += sum);
            sums.fill(0.0);
        }
        if let Some(gradients) = &mut self.grad_bias {
            for (gradient, sum) in gradients[channels.clone()].iter_mut().zip(&mut self.bias[channels]) {
                *gradient += core::mem::take(sum);
            }
        }
    }
}
