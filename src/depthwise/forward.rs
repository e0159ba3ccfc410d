//! Depthwise driver of the forward pass.

use core::ops::Range;

use super::geometry::{Direction, Rows, Strips};
use super::{Blocking, Field, Plane, Tables, positions_of, ranges_of, table_lens, tabulate, thetas_from, thetas_of};
use crate::calls::ForwardCall;
use crate::desc::ConvDesc;
use crate::geometry::{Reads, Steps, chunks};
use crate::kernel::{DepthwiseForward, Kernels, View};
use crate::pixels::{Reading, Results};
use crate::stage::blocks;
use crate::tuning::Tuning;
use crate::workspace::Buffers;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Forward(Blocking);

/// The output that one task computes.
pub(crate) struct Part<'a> {
    pub(crate) output: View<'a>,
    pub(crate) images: Range<usize>,
    /// The first channel is the first of a vector.
    pub(crate) channels: Range<usize>,
    pub(crate) space: [Range<usize>; 3],
    pub(crate) workspace: &'a mut [f32],
}

impl Forward {
    /// None if the layer is not depthwise.
    pub(crate) const fn new(desc: &ConvDesc, kernels: &Kernels, tuning: &Tuning) -> Option<Self> {
        match Blocking::of_depthwise(desc, kernels, tuning, Reading::Forward, [1, 2]) {
            Some(blocking) => Some(Self(blocking)),
            None => None,
        }
    }

    /// The buffers of one thread: thresholds and biases of all channels, tables of a walk, vectors of strips, a window and its
    /// results.
    const fn buffers(&self, desc: &ConvDesc, kernels: &Kernels) -> Buffers<7> {
        let lanes = desc.out_channels().next_multiple_of(kernels.lanes);
        let [segments, outside] = table_lens(desc);
        let (window, results) = (self.0.window_len(), self.0.block_len());
        let (thetas, spread) = (desc.taps().saturating_mul(lanes), self.0.spread_len(desc, kernels, 2));
        Buffers::new([thetas, lanes, segments, outside, spread, window, results], kernels.lanes)
    }

    pub(crate) const fn workspace_len(&self, desc: &ConvDesc, kernels: &Kernels) -> usize {
        self.buffers(desc, kernels).len()
    }

    pub(crate) fn run(&self, call: &ForwardCall<'_>, part: Part<'_>) {
        let (desc, kernels) = (call.desc, call.kernels);
        let Part { mut output, images, channels, space, workspace } = part;
        let ([thetas, start, segments, outside, spread, window, results], _) =
            self.buffers(desc, kernels).carve(workspace);
        tabulate(kernels, desc, &call.thresholds, channels.clone(), thetas);
        let thetas = thetas_of(&call.thresholds, thetas);
        match call.bias {
            Some(bias) => start[..channels.len()].copy_from_slice(&bias[channels.clone()]),
            None => start.fill(0.0),
        }
        let (taps, first) = (desc.taps(), channels.start);
        let weight = &call.weight[first * taps..];
        let adds = desc.has_padding() && !call.thresholds.adds_nothing_to_padding();
        let mut tables = Tables { chunk: self.0.chunk, segments, outside, spread };
        let (reads, tensor) = (Reads::all_forward(desc), desc.input_tensor());
        if self.0.strips {
            for image in images {
                let source = Plane::new(&tensor, call.input, image, first);
                Strips::all(&reads, Direction::Forward, space.clone(), kernels.lanes).for_each(|strips| {
                    let (from, apart, count) = strips.positions();
                    let (walk, room, spread) = tables.strips(desc, &strips, Some(&source), channels.len(), adds);
                    let output = output.strips(image, channels.clone(), from, (apart, count), strips.width());
                    let ending = call.epilogue.map(|epilogue| epilogue.from(first, output.offset));
                    kernels.depthwise_forward(DepthwiseForward {
                        walk,
                        room,
                        spread,
                        source: source.data,
                        weight,
                        thetas,
                        start,
                        output,
                        ending,
                    });
                });
            }
            return;
        }
        let [read, own_copies] = self.0.pitches();
        for image in images {
            for group in chunks(channels.clone(), self.0.channels) {
                for block in blocks(space.clone(), self.0.block) {
                    let axes = Reading::Forward.read(&reads, &block);
                    let source = Field::new(kernels, read, (&tensor, call.input), (image, axes), &group, window);
                    let results_of = Results { images: image..image + 1, block, width: self.0.pitch };
                    let own_tensor = &results_of.tensor();
                    let mut own = own_copies.map(|_| View::new(results, own_tensor));
                    let width = self.0.width(&group, kernels.lanes);
                    // Where results are transposed, the epilogue follows the transposition.
                    let epilogue = call.epilogue.filter(|_| own.is_none());
                    Rows::all(&reads, Direction::Forward, ranges_of(&block)).for_each(|rows| {
                        let positions = positions_of(&rows);
                        let (walk, room, spread) = tables.walk(desc, &rows, Some(&source), width, adds);
                        let output = match &mut own {
                            None => output.pixels_apart(image..image + 1, positions, group.clone()),
                            Some(own) => own.pixels_apart(0..1, counted_from(positions, block.start), 0..width),
                        };
                        kernels.depthwise_forward(DepthwiseForward {
                            walk,
                            room,
                            spread,
                            source: source.data,
                            weight: &weight[(group.start - first) * taps..],
                            thetas: thetas_from(thetas, (group.start - first) * taps),
                            start: &start[group.start - first..],
                            ending: epilogue.map(|epilogue| epilogue.from(group.start, output.offset)),
                            output,
                        });
                    });
                    if own.is_some() {
                        results_of.store(kernels, results, group.clone(), &mut output, call.epilogue);
                    }
                }
            }
        }
    }
}

/// Positions, counted from the start of a block.
pub(super) fn counted_from(positions: [Steps; 3], start: [usize; 3]) -> [Steps; 3] {
    [0, 1, 2].map(|axis| Steps { first: positions[axis].first - start[axis], ..positions[axis] })
}
