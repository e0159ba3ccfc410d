//! Depthwise layers: every channel is convolved with itself alone, so there is nothing to broadcast a loaded value to. Lanes
//! are channels.
//!
//! ```text
//! for each row of positions
//!   for each tile of R positions in the row
//!     for each vector of channels
//!       for each segment of T taps             a kernel row, or a part of it
//!         for each of R + T − 1 loaded vectors
//!           it meets T taps                    of as many positions
//! ```
//!
//! A segment's taps read one position further each, so each loaded vector serves all of them. Where a stride or a dilation
//! keeps taps from doing so, the callers cut positions and taps into phases that do.
//!
//! Tiles of which all taps read inside look at no bounds. The others ask for each vector whether it is there: a mask of bits
//! per segment knows, and the branch goes the same way for all vectors of channels.

mod backward_input;
mod backward_weight;
mod forward;

pub(crate) use backward_input::DepthwiseBackwardInput;
pub(crate) use backward_weight::{DepthwiseBackwardWeight, Inputs};
pub(crate) use forward::DepthwiseForward;

use pulp::MemMask;

use super::vector::{MOST_LANES, Vector};
use super::view::PixelsMut;
use crate::geometry::{Panels, Span};

/// Most taps of a segment: more find no registers for their coefficients beside the sums.
pub(crate) const MOST_TAPS: usize = 3;

/// A segment in a table.
pub(crate) type SegmentWords = [u32; 5];

/// Taps of which each reads one position further than the one before: position `p` reads through tap `t` what lies in the source
/// `p + t − inside.start` positions from `first`, or padding where `p + t` is not `inside`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) first: usize,
    pub(crate) inside: Span,
    /// The first tap, as the kernel counts them, and how many there are.
    pub(crate) tap: usize,
    pub(crate) taps: usize,
}

impl Segment {
    /// As a table holds it. All of it fits: the callers bound images and kernels.
    pub(crate) const fn words(self) -> SegmentWords {
        let Self { first, inside: Span { start, end }, tap, taps } = self;
        [first as u32, start as u32, end as u32, tap as u32, taps as u32]
    }

    #[inline(always)]
    const fn of([first, start, end, tap, taps]: SegmentWords) -> Self {
        let inside = Span { start: start as usize, end: end as usize };
        Self { first: first as usize, inside, tap: tap as usize, taps: taps as usize }
    }

    /// What a tile that begins at a position knows of it.
    #[inline(always)]
    const fn at<S: Vector>(self, position: usize, step: usize) -> TileSegment {
        let Self { first, inside: Span { start, end }, tap, taps } = self;
        let steps = (position as isize - start as isize).wrapping_mul(step as isize);
        TileSegment {
            // Wraps before the source, where nothing is inside.
            source: first.wrapping_add_signed(steps),
            inside: below(end, position) & !below(start, position),
            table: tap * S::LANES,
            taps,
        }
    }
}

/// A segment as a tile meets it, for each vector of channels.
#[derive(Clone, Copy)]
struct TileSegment {
    /// Where the first position reads the source through the first tap; it lies there if it is inside.
    source: usize,
    /// Bit `j`: whether what the first position reads through tap `j`, if there are so many, is inside.
    inside: u32,
    /// Where the first tap lies in a vector's tables.
    table: usize,
    taps: usize,
}

impl TileSegment {
    const fn words(self) -> SegmentWords {
        let Self { source, inside, table, taps } = self;
        [source as u32, (source as u64 >> 32) as u32, inside, table as u32, taps as u32]
    }

    #[inline(always)]
    const fn of([low, high, inside, table, taps]: SegmentWords) -> Self {
        let source = (high as u64) << 32 | low as u64;
        Self { source: source as usize, inside, table: table as usize, taps: taps as usize }
    }
}

/// Bit `j`: whether `position + j` lies before `end`.
#[inline(always)]
const fn below(end: usize, position: usize) -> u32 {
    let bits = end.saturating_sub(position);
    !(u32::MAX << if bits < 31 { bits } else { 31 })
}

/// Positions, and the distance at which they read the source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) count: usize,
    pub(crate) source_step: usize,
}

/// Rows of positions that read through the same kernel rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk<'a> {
    /// Where the taps of the first row read the source, each a [`Segment`].
    pub(crate) segments: &'a [SegmentWords],
    /// From a tap of a segment to the next one, as the kernel counts them.
    pub(crate) tap_step: isize,
    /// The first tap of each kernel row that reads padding alone, and how many taps follow it.
    pub(crate) outside: &'a [u32],
    pub(crate) outside_taps: usize,
    /// Taps of the kernel.
    pub(crate) taps: usize,
    pub(crate) rows: Line,
    pub(crate) columns: Line,
    pub(crate) channels: usize,
}

/// The rows in a tensor that is read where they lie.
#[derive(Clone, Copy)]
pub(crate) struct Own<'a> {
    pub(crate) data: &'a [f32],
    /// Elements from a row, and from a position, to the next one.
    pub(crate) steps: [usize; 2],
}

/// Thresholds of the taps of a walk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Thetas<'a> {
    /// `[vector][tap][lane]`
    PerTap(&'a [f32]),
    /// One for all.
    Uniform(f32),
    /// All are −∞.
    Linear,
}

impl Thetas<'_> {
    /// What must be as long as other tables.
    fn len(&self) -> usize {
        if let Self::PerTap(thetas) = self { thetas.len() } else { usize::MAX }
    }

    /// A vector of the one for all, if there is one.
    fn splat(&self) -> [f32; MOST_LANES] {
        [if let Self::Uniform(theta) = self { *theta } else { 0.0 }; MOST_LANES]
    }

    /// A table, `splat` if need be, and the bits of offsets into it that count.
    fn table(&self, splat: &[f32; MOST_LANES]) -> ThetaTable {
        match self {
            Self::PerTap(thetas) => ThetaTable { first: thetas.as_ptr(), bits: usize::MAX },
            Self::Uniform(_) | Self::Linear => ThetaTable { first: splat.as_ptr(), bits: 0 },
        }
    }
}

/// A table of thresholds, or a single vector that stands for all of it.
#[derive(Clone, Copy)]
struct ThetaTable {
    first: *const f32,
    bits: usize,
}

impl ThetaTable {
    /// The vector at an offset.
    #[inline(always)]
    const fn at(self, offset: usize) -> *const f32 {
        self.first.wrapping_add(offset & self.bits)
    }
}

/// How tiles load: all taps inside; perhaps not; nor as many channels as there are lanes.
const INSIDE: usize = 0;
const EDGE: usize = 1;
const PARTIAL: usize = 2;

/// A tile of positions of a row.
#[derive(Clone, Copy)]
struct Tile {
    row: usize,
    position: usize,
    len: usize,
    /// [`INSIDE`] or [`EDGE`].
    kind: usize,
}

impl Walk<'_> {
    /// Asserts that the source holds what is read, tables a vector for each tap and vector of channels, and that there is room for the
    /// segments.
    fn check<S: Vector>(&self, source: usize, tables: &[usize], room: &[SegmentWords]) {
        assert!(self.segments.len() <= room.len());
        let Self { rows, columns, taps, channels, tap_step, .. } = *self;
        assert!(rows.count >= 1 && columns.count >= 1 && channels >= 1);
        let table = taps.saturating_mul(channels.next_multiple_of(S::LANES));
        assert!(tables.iter().all(|&len| table <= len));
        assert!(self.outside.iter().all(|&tap| (tap as usize).saturating_add(self.outside_taps) <= taps));
        let below = (rows.count - 1).saturating_mul(rows.source_step).saturating_add(channels);
        for &words in self.segments {
            let Segment { first, inside, tap, taps: own } = Segment::of(words);
            assert!((1..=MOST_TAPS).contains(&own) && inside.start <= inside.end);
            let last = tap.wrapping_add_signed(tap_step.wrapping_mul(own as isize - 1));
            assert!(tap < taps && last < taps && tap_step.unsigned_abs() <= taps);
            // What the last position reads through the last tap is the last that any does.
            let read = inside.end.min(columns.count.saturating_add(own - 1)).saturating_sub(inside.start);
            if let Some(last) = read.checked_sub(1) {
                let end = first.saturating_add(last.saturating_mul(columns.source_step)).saturating_add(below);
                assert!(end <= source);
            }
        }
    }

    /// Asserts that a tensor holds the rows.
    fn check_own(&self, own: &Own<'_>) {
        let span = |count: usize, step: usize| (count - 1).saturating_mul(step);
        let last = span(self.rows.count, own.steps[0]).saturating_add(span(self.columns.count, own.steps[1]));
        assert!(last.saturating_add(self.channels) <= own.data.len());
    }

    /// Asserts that pixels are those of the rows.
    fn check_pixels(&self, pixels: &PixelsMut<'_>) {
        assert!(pixels.positions.counts == [1, 1, self.rows.count, self.columns.count]);
        assert!(pixels.channels == self.channels);
    }

    /// Visits all tiles of at most `most` positions, row by row, with their segments.
    #[inline(always)]
    fn for_each_tile<S: Vector>(
        &self,
        most: usize,
        room: &mut [SegmentWords],
        mut visit: impl FnMut(Tile, &[SegmentWords]),
    ) {
        let (mut start, mut end) = (0, usize::MAX);
        for &words in self.segments {
            let Segment { inside, taps, .. } = Segment::of(words);
            (start, end) = (start.max(inside.start), end.min(inside.end.saturating_sub(taps - 1)));
        }
        let tiles = Panels::of_at_most(self.columns.count, most);
        for row in 0..self.rows.count {
            for positions in tiles.iter() {
                let kind = if positions.start >= start && positions.end <= end { INSIDE } else { EDGE };
                for (to, &words) in room.iter_mut().zip(self.segments) {
                    *to = Segment::of(words).at::<S>(positions.start, self.columns.source_step).words();
                }
                let tile = Tile { row, position: positions.start, len: positions.len(), kind };
                visit(tile, &room[..self.segments.len()]);
            }
        }
    }

    /// Vectors of channels that are whole, and the lanes of the one that is not.
    #[inline(always)]
    const fn vectors<S: Vector>(&self) -> (usize, usize) {
        (self.channels / S::LANES, self.channels % S::LANES)
    }
}

/// What tiles of all passes know.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Each a [`TileSegment`].
    segments: &'a [SegmentWords],
    /// What the row of the tile reads begins here, at channel 0.
    source: *const f32,
    /// The first lane of the first vector, and of the one behind the last.
    lanes: [usize; 2],
    /// The lanes of a vector that is not whole.
    partial: usize,
}

/// Loads a vector, or the lanes of `mask`.
///
/// # Safety
///
/// [In reach](Vector#in-reach): the lanes at `from`.
#[inline(always)]
unsafe fn load<S: Vector, const KIND: usize>(simd: S, mask: MemMask<S::m32s>, from: *const f32) -> S::f32s {
    // SAFETY: in reach.
    unsafe { if KIND == PARTIAL { simd.mask_load_ptr_f32s(mask, from) } else { simd.load(from) } }
}

/// Stores a vector, or the lanes of `mask`.
///
/// # Safety
///
/// [In reach](Vector#in-reach): the lanes at `to`.
#[inline(always)]
unsafe fn store<S: Vector, const KIND: usize>(simd: S, mask: MemMask<S::m32s>, to: *mut f32, value: S::f32s) {
    // SAFETY: in reach.
    unsafe { if KIND == PARTIAL { simd.mask_store_ptr_f32s(mask, to, value) } else { simd.store(to, value) } }
}
