//! Kernels between canaries, and what they do without some of their operands.

extern crate std;

use std::vec::Vec;

use super::{
    ABSENT, BackwardInputPanels, DepthwiseBackwardInput, DepthwiseBackwardWeight, DepthwiseForward, Isa, Kernels, Line,
    Offsets, Positions, RowsMut, Walk,
};
use crate::geometry::Panels;

/// Small integers, so that sums are exact in any order.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    Vec::from_iter((0..len).map(|i| ((i * 7 + seed * 3) % 11) as f32 - 5.0))
}

fn all_kernels() -> impl Iterator<Item = &'static Kernels> {
    Isa::available().filter_map(Isa::kernels)
}

/// A depthwise layer with channels last and a gap after each pixel: 2 × 4 outputs read 2 × 5 inputs through two taps that
/// are adjacent in a row, the third is absent.
struct Gaps {
    lanes: usize,
    channels: usize,
    pitch: usize,
}

const OFFSETS: usize = 3;

impl Gaps {
    fn new(kernels: &Kernels) -> Self {
        Self { lanes: kernels.lanes, channels: 2 * kernels.lanes, pitch: 2 * kernels.lanes + 3 }
    }

    fn offsets(&self) -> [u32; OFFSETS] {
        [0, ABSENT, self.pitch as u32]
    }

    /// Elements up to the last channel of the last of `pixels`.
    fn len(&self, pixels: usize) -> usize {
        (pixels - 1) * self.pitch + self.channels
    }

    fn walk<'a>(&self, offsets: &'a [u32]) -> Walk<'a> {
        let rows = Line { count: 2, source_step: 5 * self.pitch, own_step: 4 * self.pitch };
        let columns = Line { count: 4, source_step: self.pitch, own_step: self.pitch };
        Walk::of_channels(offsets, rows, columns, 2)
    }

    /// Where a channel lies in `[vector][tap]` of `step` vectors each.
    fn at(&self, channel: usize, tap: usize, step: usize) -> usize {
        (channel / self.lanes * OFFSETS + tap) * step * self.lanes + channel % self.lanes
    }

    /// Each output and channel: where it lies, and where it reads through the taps 0 and 2.
    fn outputs(&self) -> impl Iterator<Item = (usize, usize, [(usize, usize); 2])> {
        let (pitch, channels) = (self.pitch, self.channels);
        (0..8).flat_map(move |p| {
            (0..channels).map(move |c| {
                let source = (p / 4 * 5 + p % 4) * pitch + c;
                (p * pitch + c, c, [(0, source), (2, source + pitch)])
            })
        })
    }
}

#[test]
fn depthwise_forward_leaves_out_the_gaps() {
    for kernels in all_kernels() {
        let gaps = Gaps::new(kernels);
        let (source, start) = (numbers(gaps.len(10), 1), numbers(gaps.channels, 2));
        let mut coefficients = numbers(2 * OFFSETS * gaps.channels, 3);
        for c in 0..gaps.channels {
            // Weights of padding: where it stays zero, they do not count.
            let at = gaps.at(c, 1, 2);
            if coefficients[at + gaps.lanes] <= 0.0 {
                coefficients[at] = [f32::NAN, f32::INFINITY][c % 2];
            }
        }
        let (mut output, mut expected) = (std::vec![-100.0; gaps.len(8)], std::vec![-100.0; gaps.len(8)]);
        for (at, c, reads) in gaps.outputs() {
            let theta = coefficients[gaps.at(c, 1, 2) + gaps.lanes];
            let padded = if theta > 0.0 { coefficients[gaps.at(c, 1, 2)] * theta } else { 0.0 };
            let sum = reads.map(|(tap, read)| {
                coefficients[gaps.at(c, tap, 2)] * source[read].max(coefficients[gaps.at(c, tap, 2) + gaps.lanes])
            });
            expected[at] = start[c] + padded + sum[0] + sum[1];
        }
        kernels.depthwise_forward(DepthwiseForward {
            walk: gaps.walk(&gaps.offsets()),
            source: &source,
            coefficients: &coefficients,
            start: &start,
            output: &mut output,
        });
        assert_eq!(output, expected, "{}", kernels.isa);
    }
}

#[test]
fn depthwise_gradients_leave_out_the_gaps() {
    for kernels in all_kernels() {
        let gaps = Gaps::new(kernels);
        let (source, own) = (numbers(gaps.len(10), 1), numbers(gaps.len(8), 2));
        let (coefficients, thetas) = (numbers(2 * OFFSETS * gaps.channels, 3), numbers(OFFSETS * gaps.channels, 4));
        let (mut weights, mut sums) =
            (std::vec![0.0; OFFSETS * gaps.channels], std::vec![1.0; OFFSETS * gaps.channels]);
        let (mut gradient, mut linear) = (std::vec![-100.0; gaps.len(8)], std::vec![-100.0; gaps.len(8)]);
        for (at, c, reads) in gaps.outputs() {
            (gradient[at], linear[at]) = (0.0, 0.0);
            for (tap, read) in reads {
                let g = coefficients[gaps.at(c, tap, 2)] * source[read];
                let passes = own[at] > coefficients[gaps.at(c, tap, 2) + gaps.lanes];
                *if passes { &mut gradient[at] } else { &mut sums[gaps.at(c, tap, 1)] } += g;
                linear[at] += g;
                weights[gaps.at(c, tap, 1)] += own[at] * source[read].max(thetas[gaps.at(c, tap, 1)]);
            }
        }
        for (input, expected) in [(Some(&*own), &gradient), (None, &linear)] {
            for wanted in [true, false] {
                let mut found_sums = std::vec![1.0; OFFSETS * gaps.channels];
                let mut found = std::vec![-100.0; gaps.len(8)];
                kernels.depthwise_backward_input(DepthwiseBackwardInput {
                    walk: gaps.walk(&gaps.offsets()),
                    source: &source,
                    coefficients: &coefficients,
                    input,
                    grad_input: wanted.then_some(&mut found),
                    add: false,
                    sums: &mut found_sums,
                });
                let unchanged = std::vec![1.0; OFFSETS * gaps.channels];
                assert_eq!(found_sums, if input.is_some() { &*sums } else { &*unchanged }, "{}", kernels.isa);
                assert!(!wanted || found == *expected, "{}: {found:?}, not {expected:?}", kernels.isa);
                assert!(wanted || found.iter().all(|value| *value == -100.0));
            }
        }
        for stretch in [None, Some(3)] {
            let mut found = std::vec![0.0; OFFSETS * gaps.channels];
            kernels.depthwise_backward_weight(DepthwiseBackwardWeight {
                walk: gaps.walk(&gaps.offsets()),
                source: &source,
                thresholds: &thetas,
                stretch,
                grad_output: &own,
                sums: &mut found,
            });
            assert_eq!(found, weights, "{}", kernels.isa);
        }
    }
}

/// Inputs that exceed thresholds of −∞ do what no inputs do, in rows that are no whole vectors too.
#[test]
fn depthwise_rows_without_inputs_are_linear() {
    for kernels in all_kernels() {
        let lanes = kernels.lanes;
        for len in [1, lanes.div_ceil(2), lanes, 2 * lanes + 1, 6 * lanes] {
            for add in [false, true] {
                let width = len.max(lanes);
                let (source, offsets) = (numbers(2 * width + 2, 1), [0, 1]);
                let coefficients = Vec::from_iter(numbers(2 * lanes, 2).chunks(lanes).flat_map(|weights| {
                    weights.iter().copied().chain(std::iter::repeat_n(f32::NEG_INFINITY, lanes)).collect::<Vec<_>>()
                }));
                let inputs = numbers(2 * width, 3);
                let mut results = Vec::new();
                for (input, wanted) in [(Some(&*inputs), true), (None, true), (None, false)] {
                    let (mut gradient, mut sums) = (numbers(2 * width, 4), numbers(2 * lanes, 5));
                    let rows = Line { count: 2, source_step: width, own_step: width };
                    kernels.depthwise_backward_input(DepthwiseBackwardInput {
                        walk: Walk::of_positions(&offsets, rows, len, lanes),
                        source: &source,
                        coefficients: &coefficients,
                        input,
                        grad_input: wanted.then_some(&mut gradient),
                        add,
                        sums: &mut sums,
                    });
                    assert_eq!(sums, numbers(2 * lanes, 5));
                    results.push(gradient);
                }
                assert_eq!(results[0], results[1], "{}, {len}", kernels.isa);
                assert_eq!(results[2], numbers(2 * width, 4));
            }
        }
    }
}

#[test]
fn planes_without_inputs_are_linear() {
    for kernels in all_kernels() {
        let (lanes, channels, depth) = (kernels.lanes, kernels.panel.max(), 3);
        let (columns, pitch) = (5 * lanes, 10 * lanes);
        let positions = Positions { rows: 2, columns, source_row: columns, row: columns, column: 1 };
        let (source, weight) = (numbers(depth * (pitch + 1), 1), numbers(2 * depth * channels, 2));
        let inputs = numbers(channels * pitch, 3);
        let results = [Some(&*inputs), None].map(|input| {
            let (mut gradient, mut thresholds) = (numbers(channels * pitch, 4), numbers(2 * channels * lanes, 5));
            kernels.backward_input(BackwardInputPanels {
                source: &source,
                source_pitch: pitch + 1,
                depth,
                all_depth: depth,
                first_step: 0,
                offsets: Offsets::new(&[1, 0]),
                weight_taps: Offsets::new(&[0, 1]),
                all_taps: 2,
                weight: &weight,
                thresholds: &std::vec![f32::NEG_INFINITY; 2 * channels],
                panels: Panels::of_at_most(channels, channels),
                range: 0..1,
                positions,
                input,
                step: pitch,
                apart: 1,
                grad_input: Some(RowsMut::of_slice(&mut gradient, channels, pitch, pitch)),
                add: true,
                grad_thresholds: &mut thresholds,
                tile: 4,
            });
            assert_eq!(thresholds, numbers(2 * channels * lanes, 5));
            gradient
        });
        assert_eq!(results[0], results[1], "{}", kernels.isa);
    }
}
