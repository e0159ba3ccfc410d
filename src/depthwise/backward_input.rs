//! Depthwise driver of the gradients of input and thresholds, including the part of the thresholds' gradients that comes from
//! padding.

use core::ops::Range;

use super::forward::counted_from;
use super::geometry::{Direction, Rows, Strips};
use super::outside::{Gradients, Outside, where_true};
use super::{BLOCK_LEN, Blocking, Field, Plane, Tables, axes_of, positions_of, ranges_of, table_lens, thetas_from};
use crate::calls::BackwardInputCall;
use crate::desc::{ConvDesc, volume};
use crate::geometry::{Reads, Segments, Steps, chunks};
use crate::kernel::{DepthwiseBackwardInput, Kernels, Thetas, View};
use crate::pixels::{Reading, Results};
use crate::stage::blocks;
use crate::sums::SegmentedSums;
use crate::tuning::Tuning;
use crate::workspace::Buffers;

#[derive(Clone, Copy, Debug)]
pub(crate) struct BackwardInput(Blocking);

/// The gradients that one task computes.
pub(crate) struct Part<'a, 'b> {
    pub(crate) images: Range<usize>,
    /// Inputs, along each axis.
    pub(crate) space: [Range<usize>; 3],
    /// The first channel is the first of a vector.
    pub(crate) channels: Range<usize>,
    /// The thresholds of the task's channels.
    pub(crate) thetas: Thetas<'a>,
    pub(crate) grad_input: Option<&'b mut View<'a>>,
    pub(crate) add: bool,
    /// Sums of the thresholds' gradients, `[vector][tap][lane]`. If one threshold serves all taps, the caller adds up all of
    /// them.
    pub(crate) sums: &'b mut SegmentedSums<'a>,
    pub(crate) workspace: &'b mut [f32],
}

impl BackwardInput {
    /// None if the layer is not depthwise.
    pub(crate) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning) -> Option<Self> {
        match Blocking::of_depthwise(desc, kernels, tuning, Reading::Backward, [2, 3]) {
            Some(blocking) => Some(Self(blocking)),
            None => None,
        }
    }

    /// The buffers of one thread: sums over padding, tables of a walk, a window, inputs and their gradients.
    const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<7> {
        let lanes = desc.in_channels().next_multiple_of(kernels.lanes);
        let [segments, rows] = table_lens(desc);
        let outside = if desc.has_padding() { desc.taps().saturating_mul(lanes) } else { 0 };
        let (window, block) = (self.0.window_len(), self.0.block_len());
        let spread = self.0.spread_len(desc, kernels, 3);
        Buffers::new([outside, segments, rows, spread, window, block, block], kernels.lanes)
    }

    /// Whether gradients are computed in a copy.
    pub(crate) const fn copies(&self) -> bool {
        self.0.copies_own
    }

    pub(crate) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels) -> usize {
        self.buffers(desc, kernels).len()
    }

    pub(crate) fn run(&self, call: &BackwardInputCall<'_>, part: Part<'_, '_>) {
        let (desc, kernels) = (call.desc, call.kernels);
        let Part { images, space, channels, thetas, mut grad_input, add, sums, workspace } = part;
        let ([outside, segments, kernel_rows, spread, window, inputs, results], _) =
            self.buffers(desc, kernels).carve(workspace);
        let mut tables = Tables { chunk: self.0.chunk, segments, outside: kernel_rows, spread };
        let finite = all_finite(call.weight);
        let (taps, first) = (desc.taps(), channels.start);
        let weight = &call.weight[first * taps..];
        // Padding is zero, so its gradient never goes to a threshold below zero.
        let reached = match thetas {
            Thetas::PerTap(_) => desc.has_padding(),
            Thetas::Uniform(theta) => desc.has_padding() && theta >= 0.0,
            Thetas::Linear => false,
        };
        let outputs = outputs_of(desc, &space);
        let boxed = outputs.iter().map(Range::len).product();
        let weighted = !(finite && matches!(thetas, Thetas::PerTap(_)));
        let mut outside = Outside::new(desc, kernels, if reached { outside } else { &mut [] });
        let [read, own_copies] = self.0.pitches();
        let reads = Reads::all_forward(desc);
        let (input, output) = (desc.input_tensor(), desc.output_tensor());
        // As large as a block, an image is in the second-level cache.
        let rows_together = volume(desc.input_size()).saturating_mul(desc.in_channels()) <= BLOCK_LEN;
        let (mut counted, table) = (Segments::default(), channels.len().next_multiple_of(kernels.lanes) * taps);
        if self.0.strips {
            for image in images {
                let source = Plane::new(&output, call.grad_output, image, first);
                let x = call.input.map(|data| Plane::new(&input, data, image, first));
                for block in blocks(space.clone(), self.0.block) {
                    Strips::all(&reads, Direction::Backward, ranges_of(&block), kernels.lanes).for_each(|strips| {
                        let (from, apart, count) = strips.positions();
                        let (walk, room, spread) = tables.strips(desc, &strips, Some(&source), channels.len(), false);
                        let to = grad_input
                            .as_mut()
                            .map(|view| view.strips(image, channels.clone(), from, (apart, count), strips.width()));
                        kernels.depthwise_backward_input(DepthwiseBackwardInput {
                            walk,
                            room,
                            spread,
                            source: source.data,
                            weight,
                            finite,
                            thetas,
                            input: x.as_ref().map(|x| x.own(&strips)),
                            grad_input: to,
                            add,
                            rows_together: false,
                            sums: &mut *sums.current,
                        });
                    });
                    if counted.advance(block.len()) {
                        sums.end_segment(0..table);
                    }
                }
                if reached {
                    outside.add_strips(call.grad_output, image, channels.clone(), outputs.clone(), &mut tables);
                    if outside.advance(boxed) {
                        outside.take(0..table, |at, outside| {
                            add_outside(sums.current, weight, thetas, weighted, at, outside);
                        });
                    }
                }
            }
        } else {
            for image in images {
                let before = counted;
                for group in chunks(channels.clone(), self.0.channels) {
                    counted = before;
                    let in_part = group.start - first..group.end - first;
                    let own_sums = in_part.start * taps..in_part.end.next_multiple_of(kernels.lanes) * taps;
                    let g = Gradients { data: call.grad_output, image, channels: group.clone(), in_sums: in_part };
                    // The rows of outputs that were copied whole. The part of padding has been added for them.
                    let mut met: Option<Range<usize>> = None;
                    for block in blocks(space.clone(), self.0.block) {
                        let axes = Reading::Backward.read(&reads, &block);
                        let source =
                            Field::new(kernels, read, (&output, call.grad_output), (image, axes), &group, window);
                        if reached && read.is_some() && covers(desc, &axes) {
                            let [depths, rows, widths] = outputs.clone();
                            let start = met.as_ref().map_or(axes[1].first, |met| met.end).clamp(rows.start, rows.end);
                            let end = (axes[1].first + axes[1].count).min(rows.end).max(start);
                            outside.add_field(&self.0, &g, &source, [depths, start..end, widths], &mut tables);
                            met = Some(met.map_or(start, |met| met.start)..end);
                        }
                        let x = call.input.map(|data| {
                            Field::new(
                                kernels,
                                own_copies,
                                (&input, data),
                                (image, axes_of(&ranges_of(&block))),
                                &group,
                                inputs,
                            )
                        });
                        let results_of = Results { images: image..image + 1, block, width: self.0.pitch };
                        match (&mut grad_input, call.start, own_copies) {
                            (Some(_), Some(start), Some(_)) => results_of.begin(&start[group.clone()], results),
                            (Some(view), None, Some(_)) if add => {
                                results_of.load(kernels, view, group.clone(), results);
                            }
                            _ => (),
                        }
                        let copied_tensor = &results_of.tensor();
                        let mut copied = own_copies.map(|_| View::new(results, copied_tensor));
                        let width = self.0.width(&group, kernels.lanes);
                        Rows::all(&reads, Direction::Backward, ranges_of(&block)).for_each(|rows| {
                            let positions = positions_of(&rows);
                            let (walk, room, spread) = tables.walk(desc, &rows, Some(&source), width, false);
                            let to = grad_input.as_mut().map(|view| match &mut copied {
                                None => view.pixels_apart(image..image + 1, positions, group.clone()),
                                Some(own) => own.pixels_apart(0..1, counted_from(positions, block.start), 0..width),
                            });
                            kernels.depthwise_backward_input(DepthwiseBackwardInput {
                                walk,
                                room,
                                spread,
                                source: source.data,
                                weight: &weight[own_sums.start..],
                                finite,
                                thetas: thetas_from(thetas, own_sums.start),
                                input: x.as_ref().map(|x| x.rows(&rows)),
                                grad_input: to,
                                add: add || call.start.is_some(),
                                rows_together,
                                sums: &mut sums.current[own_sums.clone()],
                            });
                        });
                        if let (Some(view), true) = (&mut grad_input, copied.is_some()) {
                            results_of.store(kernels, results, group.clone(), view, None);
                        }
                        if counted.advance(block.len()) {
                            sums.end_segment(own_sums.clone());
                        }
                    }
                    if reached {
                        let [depths, rows, widths] = outputs.clone();
                        let met = met.unwrap_or(rows.start..rows.start);
                        for rows in [rows.start..met.start, met.end..rows.end] {
                            outside.add(&self.0, &g, [depths.clone(), rows, widths.clone()], window, &mut tables);
                        }
                    }
                }
                if reached && outside.advance(boxed) {
                    outside
                        .take(0..table, |at, outside| add_outside(sums.current, weight, thetas, weighted, at, outside));
                }
            }
        }
        if reached {
            outside.take(0..table, |at, outside| add_outside(sums.current, weight, thetas, weighted, at, outside));
        }
        if !weighted {
            sums.multiply(weight);
        }
    }
}

/// Whether no value is infinite or NaN.
fn all_finite(values: &[f32]) -> bool {
    // Of these alone, all bits of the exponent are set. Without branches, the compiler uses vectors.
    const EXPONENT: u32 = f32::INFINITY.to_bits();
    values.iter().fold(0, |found, value| found | u32::from(value.to_bits() & EXPONENT == EXPONENT)) == 0
}

/// The outputs whose part of padding belongs to a box of inputs. Boxes into which the inputs fall get each output once.
fn outputs_of(desc: &ConvDesc, space: &[Range<usize>; 3]) -> [Range<usize>; 3] {
    let (inputs, outputs) = (desc.input_size(), desc.output_size());
    // Products of an axis's sizes may exceed the numbers of a small target.
    let share = |axis: usize, at: usize| (at as u64 * outputs[axis] as u64 / inputs[axis] as u64) as usize;
    [0, 1, 2].map(|axis| share(axis, space[axis].start)..share(axis, space[axis].end))
}

/// Whether the coordinates hold all depths and all columns of the output. They may hold only some rows.
fn covers(desc: &ConvDesc, axes: &[Steps; 3]) -> bool {
    [0, 2].into_iter().all(|axis| axes[axis].first == 0 && axes[axis].count == desc.output_size()[axis])
}

/// Adds the gradients of output positions that read padding, where the threshold gets them.
fn add_outside(
    sums: &mut [f32],
    weight: &[f32],
    thetas: Thetas<'_>,
    weighted: bool,
    at: Range<usize>,
    outside: &[f32],
) {
    let own = sums[at.clone()].iter_mut().zip(&weight[at.clone()]).zip(outside);
    let reached = |value: f32, theta: f32| where_true(theta >= 0.0, value);
    match thetas {
        Thetas::PerTap(table) if weighted => {
            for (((sum, weight), outside), theta) in own.zip(&table[at]) {
                *sum += reached(weight * outside, *theta);
            }
        }
        Thetas::PerTap(table) => {
            for (((sum, _), outside), theta) in own.zip(&table[at]) {
                *sum += reached(*outside, *theta);
            }
        }
        _ => own.for_each(|((sum, weight), outside)| *sum += weight * outside),
    }
}
