//! Padded, transposed copies of blocks of a tensor: the one place where kernels' inputs meet layout and padding.

use core::ops::Range;

use crate::layout::Strides;
use crate::strided;
use crate::taps::Grid;

/// One image to copy from.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) strides: Strides,
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
    let [ds, hs, ws] = range;
    let span = move |range: &Range<usize>, start: usize, size: usize| size.min(range.end - start);
    ds.clone().step_by(size[0]).flat_map(move |d| {
        let (ds, ws, hs_end) = (ds.clone(), ws.clone(), hs.clone());
        hs.clone().step_by(size[1]).flat_map(move |h| {
            let (ds, hs, ws_end) = (ds.clone(), hs_end.clone(), ws.clone());
            ws.clone().step_by(size[2]).map(move |w| Block {
                start: [d, h, w],
                size: [span(&ds, d, size[0]), span(&hs, h, size[1]), span(&ws_end, w, size[2])],
            })
        })
    })
}

/// How a staged copy lies in memory: `[channel / lanes][grid position][channel % lanes]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Staging {
    pub(crate) grid: Grid,
    /// Channels side by side at each position: 1 for planes.
    pub(crate) lanes: usize,
    /// Distance of consecutive groups of `lanes` channels, at least `grid.len() · lanes`.
    pub(crate) pitch: usize,
    /// What padding, and lanes without a channel, hold.
    pub(crate) fill: f32,
}

/// Distance of staged planes of `len`: a multiple of 4096 bytes would map all channels to the same few cache sets.
pub(crate) const fn plane_pitch(len: usize) -> usize {
    if len.is_multiple_of(512) { len.saturating_add(16) } else { len }
}

impl Staging {
    /// Copies `channels` of `image` for one block of positions.
    pub(crate) fn copy(&self, image: Image<'_>, channels: Range<usize>, block: Block, out: &mut [f32]) {
        let axes = &self.grid.axes;
        let segments = self.grid.segments();
        // Not the grid's own extent: the last block may be smaller than those the grid was laid out for.
        let extent = |axis: usize| block.size[axis] + axes[axis].reach();
        let (depths, heights, width) = (extent(0), extent(1), extent(2));
        for sd in 0..segments[0] {
            let inside_d = axes[0].inside(sd, block.start[0], depths);
            for sh in 0..segments[1] {
                let inside_h = axes[1].inside(sh, block.start[1], heights);
                for sw in 0..segments[2] {
                    let inside_w = axes[2].inside(sw, block.start[2], width);
                    for (d, h) in (0..depths).flat_map(|d| (0..heights).map(move |h| (d, h))) {
                        let row = self.grid.row([sd, sh, sw], d, h) * self.lanes;
                        let source = if inside_d.contains(&d) && inside_h.contains(&h) && !inside_w.is_empty() {
                            let at = [
                                axes[0].source_index(sd, block.start[0], d),
                                axes[1].source_index(sh, block.start[1], h),
                                axes[2].source_index(sw, block.start[2], inside_w.start),
                            ];
                            let base: usize = at.iter().zip(image.strides.spatial).map(|(i, stride)| i * stride).sum();
                            Some(Row {
                                data: &image.data[base..],
                                // One element is inside where this would overflow.
                                step: image.strides.spatial[2].saturating_mul(axes[2].stride()),
                                channel: image.strides.channel,
                                inside: inside_w.clone(),
                            })
                        } else {
                            None
                        };
                        self.copy_row(source, channels.clone(), width, row, out);
                    }
                }
            }
        }
    }

    /// Writes one staged row of all `channels`; `None` is a row of padding.
    fn copy_row(&self, source: Option<Row<'_>>, channels: Range<usize>, width: usize, row: usize, out: &mut [f32]) {
        let lanes = self.lanes;
        let inside = source.as_ref().map_or(0..0, |source| source.inside.clone());
        for first in (0..channels.len()).step_by(lanes) {
            let out = &mut out[first / lanes * self.pitch + row..][..width * lanes];
            let used = lanes.min(channels.len() - first);
            if used < lanes {
                out.fill(self.fill);
            } else {
                out[..inside.start * lanes].fill(self.fill);
                out[inside.end * lanes..].fill(self.fill);
            }
        }
        let Some(Row { data, step, channel, .. }) = source else { return };
        let elements = inside.len();
        if channel == 1 && lanes == 1 {
            // Channels last to planes.
            let out = &mut out[row + inside.start..];
            strided::transpose(&data[channels.start..], step, out, self.pitch, elements, channels.len());
            return;
        }
        for first in channels.clone().step_by(lanes) {
            let used = lanes.min(channels.end - first);
            let out = &mut out[(first - channels.start) / lanes * self.pitch + row + inside.start * lanes..];
            let data = &data[first * channel..];
            if channel == 1 {
                // Channels last to groups of channels.
                for e in 0..elements {
                    out[e * lanes..][..used].copy_from_slice(&data[e * step..][..used]);
                }
            } else if step == 1 && lanes > 1 {
                // Planes to groups of channels.
                strided::transpose(data, channel, out, lanes, used, elements);
            } else {
                // Planes to planes, or with a stride.
                for lane in 0..used {
                    strided::copy(&data[lane * channel..], step, &mut out[lane..], lanes, elements);
                }
            }
        }
    }
}

/// The part of one source row that a staged row holds.
struct Row<'a> {
    /// From the first element inside, channel 0.
    data: &'a [f32],
    /// Distance of consecutive staged elements in the source.
    step: usize,
    /// Distance of consecutive channels in the source.
    channel: usize,
    /// The staged elements that lie in the source; at least one.
    inside: Range<usize>,
}
