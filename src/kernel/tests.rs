//! Kernels between canaries, and what they do without some of their operands.

extern crate std;

use std::vec::Vec;

use super::view::PixelsMut;
use super::{
    BackwardInputPanels, DepthwiseBackwardInput, DepthwiseBackwardWeight, DepthwiseForward, Inputs, Isa, Kernels, Line,
    Offsets, Own, PanelBlock, Positions, RowsMut, Segment, SegmentWords, Thetas, View, Walk,
};
use crate::geometry::{Panels, Span, Steps};
use crate::layout::{Layout, TensorLayout};

/// Small integers, so that sums are exact in any order.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    Vec::from_iter((0..len).map(|i| ((i * 7 + seed * 3) % 11) as f32 - 5.0))
}

fn all_kernels() -> impl Iterator<Item = &'static Kernels> {
    Isa::available().filter_map(Isa::kernels)
}

/// Two rows of positions of a depthwise layer with channels last, the last vector of which is partial, and a gap after each pixel.
/// A segment of three taps reads one position before the row, and one behind it; three taps read padding alone.
struct Rows {
    lanes: usize,
    channels: usize,
    pitch: usize,
    columns: usize,
    segments: [SegmentWords; 1],
}

const TAPS: usize = 6;
const OUTSIDE: [u32; 1] = [3];

impl Rows {
    fn all(kernels: &Kernels) -> impl Iterator<Item = Self> {
        let lanes = kernels.lanes;
        (1..=17).flat_map(move |columns| {
            [lanes, 2 * lanes, 2 * lanes + lanes / 2, lanes.div_ceil(2)].map(|channels| {
                let inside = Span { start: 1, end: columns + 1 };
                let lanes_inside = Span { start: 0, end: channels };
                let segments = [Segment { first: 0, inside, lanes: lanes_inside, tap: 0, taps: 3 }.words()];
                Self { lanes, channels, pitch: channels + 3, columns, segments }
            })
        })
    }

    /// Elements up to the last channel of the last position.
    fn len(&self) -> usize {
        (2 * self.columns - 1) * self.pitch + self.channels
    }

    fn table(&self) -> usize {
        self.channels.next_multiple_of(self.lanes) * TAPS
    }

    fn walk(&self) -> Walk<'_> {
        Walk {
            segments: &self.segments,
            tap_step: 1,
            outside: &OUTSIDE,
            outside_taps: 3,
            taps: TAPS,
            rows: Line { count: 2, source_step: self.columns * self.pitch },
            columns: Line { count: self.columns, source_step: self.pitch },
            lanes: self.channels,
            chunk: 16,
            strips: false,
        }
    }

    fn own<'a>(&self, data: &'a [f32]) -> Own<'a> {
        Own { data, steps: [self.columns * self.pitch, self.pitch] }
    }

    fn tensor(&self) -> TensorLayout {
        TensorLayout::new(Layout::Nhwc, 1, self.channels, [1, 2, self.columns], self.pitch)
    }

    /// All of its pixels.
    fn pixels<'a>(&self, view: &'a mut View<'_>) -> PixelsMut<'a> {
        let space = [1, 2, self.columns].map(|count| Steps { first: 0, step: 1, count });
        view.pixels_apart(0..1, space, 0..self.channels)
    }

    /// For each position and channel: its place, and for each tap the place of the channel's coefficient and the place that the
    /// position reads. The latter is None for padding.
    fn reads(&self) -> impl Iterator<Item = (usize, usize, [(usize, Option<usize>); TAPS])> {
        let (pitch, columns, lanes) = (self.pitch, self.columns, self.lanes);
        (0..2 * columns).flat_map(move |p| {
            (0..self.channels).map(move |c| {
                let reads = core::array::from_fn(|tap| {
                    let column = (p % columns + tap).checked_sub(1).filter(|column| tap < 3 && *column < columns);
                    let read = column.map(|column| (p / columns * columns + column) * pitch + c);
                    ((c / lanes * TAPS + tap) * lanes + c % lanes, read)
                });
                (p * pitch + c, c, reads)
            })
        })
    }
}

#[test]
fn depthwise_forward_leaves_out_the_gaps() {
    for kernels in all_kernels() {
        for rows in Rows::all(kernels) {
            let (source, start) = (numbers(rows.len(), 1), numbers(rows.table(), 2));
            let per_tap = numbers(rows.table(), 4);
            for thetas in [Thetas::PerTap(&per_tap), Thetas::Uniform(1.0), Thetas::Uniform(-1.0), Thetas::Linear] {
                let theta = |at: usize| match thetas {
                    Thetas::PerTap(table) => table[at],
                    Thetas::Uniform(theta) => theta,
                    Thetas::Linear => f32::NEG_INFINITY,
                };
                let mut weight = numbers(rows.table(), 3);
                for at in (0..weight.len()).filter(|at| at / rows.lanes % TAPS >= 3 && theta(*at) <= 0.0) {
                    // The weights of padding. Padding that stays zero adds nothing, whatever its weight.
                    weight[at] = [f32::NAN, f32::INFINITY][at % 2];
                }
                let (mut output, mut expected) = (std::vec![-100.0; rows.len()], std::vec![-100.0; rows.len()]);
                for (at, c, reads) in rows.reads() {
                    expected[at] = start[c];
                    for (coefficient, read) in reads {
                        let x = read.map_or(0.0, |read| source[read]).max(theta(coefficient));
                        expected[at] += if read.is_none() && x <= 0.0 { 0.0 } else { weight[coefficient] * x };
                    }
                }
                let tensor = rows.tensor();
                let mut view = View::new(&mut output, &tensor);
                kernels.depthwise_forward(DepthwiseForward {
                    walk: rows.walk(),
                    room: &mut [[0; 8]],
                    spread: &mut [],
                    source: &source,
                    weight: &weight,
                    thetas,
                    start: &start,
                    output: rows.pixels(&mut view),
                    ending: None,
                });
                assert_eq!(output, expected, "{}, {thetas:?}", kernels.isa);
            }
        }
    }
}

#[test]
fn depthwise_gradients_of_inputs_leave_out_the_gaps() {
    for kernels in all_kernels() {
        for rows in Rows::all(kernels) {
            let (source, input, weight) = (numbers(rows.len(), 1), numbers(rows.len(), 2), numbers(rows.table(), 3));
            let per_tap = numbers(rows.table(), 4);
            for thetas in [Thetas::PerTap(&per_tap), Thetas::Uniform(1.0), Thetas::Linear] {
                for (finite, wanted, add, rows_together) in [
                    (true, true, false, false),
                    (true, true, false, true),
                    (true, false, false, true),
                    (true, true, true, true),
                    (false, true, false, true),
                ] {
                    let (mut expected, mut expected_sums) = (numbers(rows.len(), 5), numbers(rows.table(), 6));
                    let (mut found, mut sums) = (expected.clone(), expected_sums.clone());
                    for (at, c, reads) in rows.reads() {
                        let mut gradient = if add { expected[at] } else { 0.0 };
                        for (coefficient, read) in reads {
                            let g = read.map_or(0.0, |read| source[read]);
                            let (passes, sum) = match thetas {
                                Thetas::PerTap(table) => (input[at] > table[coefficient], coefficient),
                                Thetas::Uniform(theta) => {
                                    (input[at] > theta, (c / rows.lanes * TAPS) * rows.lanes + c % rows.lanes)
                                }
                                Thetas::Linear => (true, 0),
                            };
                            let unweighted = finite && matches!(thetas, Thetas::PerTap(_));
                            if passes {
                                gradient += weight[coefficient] * g;
                            } else {
                                expected_sums[sum] += if unweighted { g } else { weight[coefficient] * g };
                            }
                        }
                        if wanted {
                            expected[at] = gradient;
                        }
                    }
                    let tensor = rows.tensor();
                    let mut view = View::new(&mut found, &tensor);
                    kernels.depthwise_backward_input(DepthwiseBackwardInput {
                        walk: rows.walk(),
                        room: &mut [[0; 8]],
                        spread: &mut [],
                        source: &source,
                        weight: &weight,
                        finite,
                        thetas,
                        input: (thetas != Thetas::Linear).then(|| rows.own(&input)),
                        grad_input: wanted.then(|| rows.pixels(&mut view)),
                        add,
                        rows_together,
                        sums: &mut sums,
                    });
                    assert_eq!(
                        found, expected,
                        "{}, {thetas:?}, {finite}, {wanted}, {add}, {rows_together}",
                        kernels.isa
                    );
                    for (_, _, reads) in rows.reads() {
                        for (at, _) in reads {
                            assert_eq!(sums[at], expected_sums[at], "{}, {thetas:?}, {finite}", kernels.isa);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn depthwise_gradients_of_weights_leave_out_the_gaps() {
    for kernels in all_kernels() {
        for rows in Rows::all(kernels) {
            let (source, g) = (numbers(rows.len(), 1), numbers(rows.len(), 2));
            let per_tap = numbers(rows.table(), 4);
            for thetas in [Some(Thetas::PerTap(&per_tap)), Some(Thetas::Uniform(1.0)), Some(Thetas::Linear), None] {
                let [mut weights, mut outside, mut bias] = [5, 6, 7].map(|seed| numbers(rows.table(), seed));
                let [mut found_weights, mut found_outside, mut found_bias] =
                    [5, 6, 7].map(|seed| numbers(rows.table(), seed));
                for (at, c, reads) in rows.reads() {
                    bias[c] += g[at];
                    for (coefficient, read) in reads {
                        match (read, thetas) {
                            (None, _) => outside[coefficient] += g[at],
                            (Some(_), None) => (),
                            (Some(read), Some(thetas)) => {
                                let theta = match thetas {
                                    Thetas::PerTap(table) => table[coefficient],
                                    Thetas::Uniform(theta) => theta,
                                    Thetas::Linear => f32::NEG_INFINITY,
                                };
                                weights[coefficient] += g[at] * source[read].max(theta);
                            }
                        }
                    }
                }
                kernels.depthwise_backward_weight(DepthwiseBackwardWeight {
                    walk: rows.walk(),
                    room: &mut [[0; 8]],
                    spread: &mut [],
                    inputs: thetas.map(|thetas| Inputs { source: &source, thetas, sums: &mut found_weights }),
                    grad_output: rows.own(&g),
                    outside: Some(&mut found_outside),
                    bias: Some(&mut found_bias),
                });
                for (_, c, reads) in rows.reads() {
                    assert_eq!(found_bias[c], bias[c], "{}, {thetas:?}", kernels.isa);
                    for (at, _) in reads {
                        let found = [found_weights[at], found_outside[at]];
                        assert_eq!(found, [weights[at], outside[at]], "{}, {thetas:?}", kernels.isa);
                    }
                }
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
                block: PanelBlock { panels: Panels::of_at_most(channels, channels), range: 0..1, positions, tile: 4 },
                input,
                step: pitch,
                apart: 1,
                grad_input: Some(RowsMut::of_slice(&mut gradient, channels, pitch, pitch)),
                add: true,
                grad_thresholds: &mut thresholds,
            });
            assert_eq!(thresholds, numbers(2 * channels * lanes, 5));
            gradient
        });
        assert_eq!(results[0], results[1], "{}", kernels.isa);
    }
}
