//! Padded copies of blocks of a tensor, transposed where the kernel wants it. Kernels that read such a copy know neither layout
//! nor padding.

use core::ops::Range;

use crate::geometry::{Panels, chunks};
use crate::kernel::{CopyBlock, Kernels, RowsMut, TransposeBlock};
use crate::layout::{Strides, TensorLayout};
use crate::taps::Grid;

/// One image to copy from.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) strides: Strides,
}

impl<'a> Image<'a> {
    /// An image of a batch.
    pub(crate) fn of(tensor: &TensorLayout, data: &'a [f32], image: usize) -> Self {
        Self { data: tensor.image(data, image), strides: tensor.strides }
    }
}

/// A box of positions: where a block begins and how many positions it has along each axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) start: [usize; 3],
    pub(crate) size: [usize; 3],
}

impl Block {
    /// Positions of the block.
    pub(crate) const fn len(&self) -> usize {
        self.size[0] * self.size[1] * self.size[2]
    }
}

/// The blocks of at most `size` that tile `range`, in memory order.
pub(crate) fn blocks(range: [Range<usize>; 3], size: [usize; 3]) -> impl Iterator<Item = Block> {
    let first = [range[0].start, range[1].start, range[2].start];
    let mut next = if range.iter().any(Range::is_empty) { None } else { Some(first) };
    core::iter::from_fn(move || {
        let start = next?;
        let mut block = Block { start, size: [0; 3] };
        let mut following = start;
        // The innermost axis that has another block moves on to it. The axes inside of that axis begin again.
        let mut moved = false;
        for axis in [2, 1, 0] {
            let end = range[axis].end;
            block.size[axis] = size[axis].min(end - start[axis]);
            if !moved {
                following[axis] += block.size[axis];
                moved = following[axis] < end;
                if !moved {
                    following[axis] = first[axis];
                }
            }
        }
        next = moved.then_some(following);
        Some(block)
    })
}

/// The largest block of at most `most` positions that is cut along one axis only. It holds all positions along the axes behind
/// that one, and a single position along those before.
pub(crate) const fn largest_block([depth, height, width]: [usize; 3], most: usize) -> [usize; 3] {
    if width > most {
        [1, 1, Panels::of_at_most(width, most).max()]
    } else if height > most / width {
        [1, Panels::of_at_most(height, most / width).max(), width]
    } else {
        [Panels::of_at_most(depth, most / width / height).max(), height, width]
    }
}

/// How a staged copy lies in memory: `[channel / lanes][grid position][channel % lanes]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Staging {
    pub(crate) grid: Grid,
    /// Channels side by side at each position: 1 for planes.
    pub(crate) lanes: usize,
    /// Distance of consecutive groups of `lanes` channels, at least `grid.len() · lanes`.
    pub(crate) pitch: usize,
    /// The value of padding, and of lanes without a channel.
    pub(crate) fill: f32,
}

/// Distance of staged planes of `len` elements. It avoids multiples of 4096 bytes, which would map all channels to the same few
/// sets of the cache.
pub(crate) const fn plane_pitch(len: usize) -> usize {
    if len.is_multiple_of(512) { len.saturating_add(16) } else { len }
}

impl Staging {
    /// Copies `channels` of `image` for one block of positions.
    pub(crate) fn copy(
        &self,
        kernels: &Kernels,
        image: Image<'_>,
        channels: Range<usize>,
        block: Block,
        out: &mut [f32],
    ) {
        let axes = &self.grid.axes;
        let segments = self.grid.segments();
        // The extent comes from the block and not from the grid, because the last block may be smaller than the blocks for which
        // the grid was made.
        let extent = |axis: usize| block.size[axis] + axes[axis].reach();
        let (depths, heights, width) = (extent(0), extent(1), extent(2));
        for sd in 0..segments[0] {
            let inside_d = axes[0].inside(sd, block.start[0], depths);
            for sh in 0..segments[1] {
                let inside_h = axes[1].inside(sh, block.start[1], heights);
                for sw in 0..segments[2] {
                    let inside_w = axes[2].inside(sw, block.start[2], width);
                    for d in 0..depths {
                        let slab = Slab {
                            first: self.grid.row([sd, sh, sw], d, 0),
                            row: self.grid.extent[2],
                            rows: heights,
                            width,
                        };
                        let covers = inside_d.contains(&d) && !inside_w.is_empty();
                        let inside_h = if covers { inside_h.clone() } else { 0..0 };
                        self.pad(&slab, &inside_h, &inside_w, channels.len(), out);
                        if inside_h.is_empty() {
                            continue;
                        }
                        let at = [
                            axes[0].source_index(sd, block.start[0], d),
                            axes[1].source_index(sh, block.start[1], inside_h.start),
                            axes[2].source_index(sw, block.start[2], inside_w.start),
                        ];
                        let base: usize = at.iter().zip(image.strides.spatial).map(|(i, stride)| i * stride).sum();
                        let source = Source {
                            data: &image.data[base..],
                            channel: image.strides.channel,
                            // Saturates only if a single row or element is inside, and then no step is taken.
                            row: image.strides.spatial[1].saturating_mul(axes[1].stride()),
                            step: image.strides.spatial[2].saturating_mul(axes[2].stride()),
                        };
                        let inside = Slab {
                            first: slab.first + inside_h.start * slab.row + inside_w.start,
                            row: slab.row,
                            rows: inside_h.len(),
                            width: inside_w.len(),
                        };
                        self.copy_slab(kernels, &source, &inside, channels.clone(), out);
                    }
                }
            }
        }
    }

    /// Fills the padding of one slab of all channels, and the lanes without a channel.
    fn pad(&self, slab: &Slab, inside_h: &Range<usize>, inside_w: &Range<usize>, channels: usize, out: &mut [f32]) {
        let lanes = self.lanes;
        for (index, own) in chunks(0..channels, lanes).enumerate() {
            let out = &mut out[index * self.pitch..];
            let partial = own.len() < lanes;
            for h in 0..slab.rows {
                let row = &mut out[(slab.first + h * slab.row) * lanes..][..slab.width * lanes];
                if partial || !inside_h.contains(&h) {
                    row.fill(self.fill);
                } else if inside_w.len() < slab.width {
                    // Loops and not `fill`: `fill` would call `memset`, and the call would take longer than these few elements.
                    row[..inside_w.start * lanes].iter_mut().for_each(|v| *v = self.fill);
                    row[inside_w.end * lanes..].iter_mut().for_each(|v| *v = self.fill);
                }
            }
        }
    }

    /// Copies the part of one slab of all `channels` that lies inside the source.
    fn copy_slab(&self, kernels: &Kernels, source: &Source<'_>, slab: &Slab, channels: Range<usize>, out: &mut [f32]) {
        let lanes = self.lanes;
        let Source { data, channel, row, step } = *source;
        if lanes == 1 && channel != 1 {
            // From planes to planes.
            kernels.copy(CopyBlock {
                from: &data[channels.start * channel..],
                from_plane: channel,
                from_row: row,
                step,
                to: &mut out[slab.first..],
                to_plane: self.pitch,
                to_row: slab.row,
                planes: channels.len(),
                rows: slab.rows,
                len: slab.width,
            });
            return;
        }
        if lanes == 1 {
            // From channels last to planes.
            for h in 0..slab.rows {
                kernels.transpose(TransposeBlock {
                    from: &data[h * row + channels.start..],
                    from_step: step,
                    from_column: 1,
                    to: RowsMut::of_slice(
                        &mut out[slab.first + h * slab.row..],
                        channels.len(),
                        self.pitch,
                        slab.width,
                    ),
                });
            }
            return;
        }
        for (index, own) in chunks(channels, lanes).enumerate() {
            let used = own.len();
            let out = &mut out[index * self.pitch + slab.first * lanes..];
            let data = &data[own.start * channel..];
            if channel == 1 {
                // From channels last to groups of channels.
                kernels.copy(CopyBlock {
                    from: data,
                    from_plane: row,
                    from_row: step,
                    step: 1,
                    to: out,
                    to_plane: slab.row * lanes,
                    to_row: lanes,
                    planes: slab.rows,
                    rows: slab.width,
                    len: used,
                });
                continue;
            }
            // From planes to groups of channels. Rows that follow one another on both sides are copied as one row.
            let (rows, width) = if step == 1 && row == slab.width && slab.row == slab.width {
                (1, slab.rows * slab.width)
            } else {
                (slab.rows, slab.width)
            };
            for h in 0..rows {
                let (data, out) = (&data[h * row..], &mut out[h * slab.row * lanes..]);
                kernels.transpose(TransposeBlock {
                    from: data,
                    from_step: channel,
                    from_column: step,
                    to: RowsMut::of_slice(out, width, lanes, used),
                });
            }
        }
    }
}

/// Rows of a staged copy, in positions.
struct Slab {
    first: usize,
    /// Positions from a row to the next.
    row: usize,
    rows: usize,
    width: usize,
}

/// The source of a slab's elements.
struct Source<'a> {
    /// The source from the first element inside on, channel 0.
    data: &'a [f32],
    // Distances in the source of consecutive channels, staged rows, and staged elements.
    channel: usize,
    row: usize,
    step: usize,
}
