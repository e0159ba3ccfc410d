//! Kernels of depthwise layers. Each output channel has a single input channel, so a loaded value serves one channel only. The
//! lanes hold channels, or columns of planes, in strips.
//!
//! ```text
//!                                              lanes are channels        columns
//! for each chunk of lanes                      of channels               there is one
//!   for each row of positions                  of an image               a channel's plane
//!     for each tile of R positions in the row                            R rows of the plane
//!       for each vector                        of channels               a strip
//!         for each segment of T taps           of a kernel row           of a kernel column
//!           for each of R + T − 1 loaded vectors
//!             it meets T taps                  of as many positions
//! ```
//!
//! In a segment, each tap reads one position further than the tap before. So each loaded vector serves all taps of the segment.
//! With a stride or a dilation, the callers cut positions and taps into phases in which this holds.
//!
//! Two neighbouring rows of positions read mostly the same through a kernel of three rows and columns. With 32 registers, the
//! forward pass and the gradient of the weight have tiles of two rows: each loaded vector then serves six taps, of two kernel rows.
//! So rows of the source are loaded four times for two rows of positions, not six times. In the gradient of the input, a tile goes
//! through all rows before the next tile, if the caches hold them.
//!
//! A tile all of whose taps read inside checks no bounds. The other tiles check for each vector whether it is inside. A mask of
//! bits per segment says so, and the branch goes the same way for all vectors. Vectors with some lanes beyond the edge are loaded
//! with masks.
//!
//! The last strip of a row overlaps the one before, because a vector that is stored in part costs more than one that is stored
//! twice. It is computed first, so the other strip replaces what it has stored in the overlap.

/// Runs `$body` for each of the tiles alike, all in one function. `$at` is what `$after` gives for the positions of the row's tiles
/// before it, `$R` positions each.
macro_rules! alike {
    ($simd:expr, $tile:expr, $R:ident, $at:ident in $after:expr => $body:expr) => {
        $crate::kernel::tile::outlined!($simd => for n in 0..$tile.count {
            let $at = $after(n * $R);
            $body;
        })
    };
}

mod backward_input;
mod backward_weight;
mod forward;

pub(crate) use backward_input::DepthwiseBackwardInput;
pub(crate) use backward_weight::{DepthwiseBackwardWeight, Inputs};
pub(crate) use forward::DepthwiseForward;

use core::ops::Range;

use pulp::MemMask;

use super::tile::outlined;
use super::vector::{MOST_LANES, Vector};
use super::view::PixelsMut;
use crate::arith::min;
use crate::geometry::{Panels, Span};

/// Most taps of a segment. For more, there are no registers for their coefficients beside the sums.
pub(crate) const MOST_TAPS: usize = 3;

/// The rows and columns of the kernels that have tiles of two rows.
const SQUARE: usize = 3;

/// Most positions of each row in a tile of two rows: their sums or gradients, the coefficients of two or three kernel rows, a
/// maximum. More are no faster, for each loaded vector serves two kernel rows.
const PAIRED: usize = 4;

/// At least as many vectors as the largest tile reads through a segment.
const MOST_READ: usize = 8 + MOST_TAPS - 1;

/// A segment in a table.
pub(crate) type SegmentWords = [u32; 8];

/// Taps of which each reads one position further than the one before: position `p` reads through tap `t` what lies in the source
/// `p + t − inside.start` positions from `first`, or padding where `p + t` is not `inside`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The offset of the first lane.
    pub(crate) first: usize,
    pub(crate) inside: Span,
    /// The lanes that do not read padding. Those that the walk does not have do not count, so that walks over some channels and
    /// over others share a table.
    pub(crate) lanes: Span,
    /// The first tap, numbered as in the kernel, and the number of taps.
    pub(crate) tap: usize,
    pub(crate) taps: usize,
}

impl Segment {
    /// The words of a table. All numbers fit, because the callers bound images and kernels.
    pub(crate) const fn words(self) -> SegmentWords {
        let Self { first, inside, lanes, tap, taps } = self;
        [
            first as u32,
            inside.start as u32,
            inside.end as u32,
            lanes.start as u32,
            lanes.end as u32,
            tap as u32,
            taps as u32,
            0,
        ]
    }

    #[inline(always)]
    const fn of([first, start, end, first_lane, end_lane, tap, taps, _]: SegmentWords) -> Self {
        let inside = Span { start: start as usize, end: end as usize };
        let lanes = Span { start: first_lane as usize, end: end_lane as usize };
        Self { first: first as usize, inside, lanes, tap: tap as usize, taps: taps as usize }
    }

    /// The lanes of a walk that do not read padding.
    #[inline(always)]
    const fn lanes_of(&self, walk: &Walk<'_>) -> Span {
        let Span { start, end } = self.lanes;
        Span { start, end: if end < walk.lanes { end } else { walk.lanes } }
    }

    /// The form in which the tiles of a walk use it.
    #[inline(always)]
    const fn prepared<S: Vector>(self, walk: &Walk<'_>) -> Prepared {
        let Self { first, inside, tap, taps, .. } = self;
        let (lanes, step) = (self.lanes_of(walk), walk.columns.source_step);
        // Wraps around before the source, where nothing is inside.
        let source =
            (first as isize - lanes.start as isize).wrapping_sub((inside.start as isize).wrapping_mul(step as isize));
        Prepared { source: source as usize, table: tap * S::LANES, taps, inside, lanes }
    }
}

/// A segment in the form in which tiles use it, for each vector.
#[derive(Clone, Copy)]
struct Prepared {
    /// The offset of what position 0 reads through the first tap in lane 0. May wrap around.
    source: usize,
    /// The offset of the first tap in a vector's tables.
    table: usize,
    taps: usize,
    // As a segment's.
    inside: Span,
    lanes: Span,
}

impl Prepared {
    #[inline(always)]
    const fn words(self) -> SegmentWords {
        let Self { source, table, taps, inside, lanes } = self;
        [
            source as u32,
            (source as u64 >> 32) as u32,
            table as u32,
            taps as u32,
            inside.start as u32,
            inside.end as u32,
            lanes.start as u32,
            lanes.end as u32,
        ]
    }

    #[inline(always)]
    const fn of([low, high, table, taps, start, end, first_lane, end_lane]: SegmentWords) -> Self {
        Self {
            source: ((high as u64) << 32 | low as u64) as usize,
            table: table as usize,
            taps: taps as usize,
            inside: Span { start: start as usize, end: end as usize },
            lanes: Span { start: first_lane as usize, end: end_lane as usize },
        }
    }

    /// Bit `j` says whether a position reads inside through tap `j`.
    #[inline(always)]
    const fn inside<const KIND: usize>(&self, position: usize) -> u32 {
        let Span { start, end } = self.inside;
        if KIND == INSIDE { u32::MAX } else { below(end, position) & !below(start, position) }
    }

    /// The range of lanes that are inside, in the vector that begins at lane `first`.
    #[inline(always)]
    const fn lanes(&self, first: usize) -> [usize; 2] {
        let Span { start, end } = self.lanes;
        [start.saturating_sub(first), end.saturating_sub(first)]
    }
}

/// Bit `j` says whether `position + j` lies before `end`.
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
    /// The segments of taps of the first row, each as the words of a [`Segment`].
    pub(crate) segments: &'a [SegmentWords],
    /// The distance of two neighbouring taps of a segment, numbered as in the kernel.
    pub(crate) tap_step: isize,
    /// The first tap of each kernel row that reads only padding, and the number of taps in it.
    pub(crate) outside: &'a [u32],
    pub(crate) outside_taps: usize,
    /// Taps of the kernel.
    pub(crate) taps: usize,
    pub(crate) rows: Line,
    pub(crate) columns: Line,
    /// The lanes: channels, or the columns of strips. The rows of strips are channels.
    pub(crate) lanes: usize,
    /// Lanes that go through all rows before the next ones do: whole vectors. Their coefficients stay in the first-level cache.
    pub(crate) chunk: usize,
    pub(crate) strips: bool,
}

/// The rows of a tensor that is read in place.
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
    /// The length that must match other tables.
    fn len(&self) -> usize {
        if let Self::PerTap(thetas) = self { thetas.len() } else { usize::MAX }
    }

    /// A vector of the uniform threshold, if there is one.
    fn splat(&self) -> [f32; MOST_LANES] {
        [if let Self::Uniform(theta) = self { *theta } else { 0.0 }; MOST_LANES]
    }

    /// The table, which may be `splat`, and the mask of offsets into it.
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

    /// The table of a channel of strips: a vector of each of its thresholds, which `to` holds then. A single vector stays.
    ///
    /// # Safety
    ///
    /// [In reach](Vector#in-reach): the thresholds of the channel; a vector per tap at `to`.
    unsafe fn spread<S: Vector>(self, simd: S, channel: usize, taps: usize, to: *mut f32) -> Self {
        if self.bits == 0 {
            return self;
        }
        // SAFETY: in reach.
        outlined!(simd => unsafe { spread(simd, self.at(in_table::<S>(channel, taps)), taps, to) });
        Self { first: to, ..self }
    }
}

/// The kinds of tiles: all taps read inside; some taps may read padding; some lanes may read padding as well.
const INSIDE: usize = 0;
const EDGE: usize = 1;
const PARTIAL: usize = 2;

/// Most positions of a tile without vectors, or with emulated ones. Builds without vectors leave these kernels out
/// ([`VECTORS`](super::VECTORS)), so they run on old x86-64 CPUs and in tests alone: little code is worth more there than time.
const fn few_positions<S: Vector>() -> usize {
    if S::LANES > 1 { 2 } else { 4 }
}

/// A tile of positions of a row, or of two neighbouring rows.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    position: usize,
    len: usize,
    /// [`INSIDE`], [`EDGE`] or [`PARTIAL`].
    kind: usize,
    /// How many tiles alike follow one another.
    count: usize,
}

impl Walk<'_> {
    /// Asserts that the source holds what is read, tables a vector for each tap and vector of channels, and that there is room for the
    /// segments.
    fn check<S: Vector>(&self, source: usize, tables: &[usize], room: &[SegmentWords]) {
        assert!(self.segments.len() <= room.len());
        let Self { rows, columns, taps, lanes, chunk, tap_step, .. } = *self;
        assert!(rows.count >= 1 && columns.count >= 1 && lanes >= 1);
        assert!(chunk > 0 && chunk.is_multiple_of(S::LANES) && (chunk >= lanes || !self.strips));
        let table = taps.saturating_mul(self.channels().next_multiple_of(S::LANES));
        assert!(tables.iter().all(|&len| table <= len));
        assert!(self.outside.iter().all(|&tap| (tap as usize).saturating_add(self.outside_taps) <= taps));
        let below = (rows.count - 1).saturating_mul(rows.source_step);
        for &words in self.segments {
            let segment = Segment::of(words);
            let (Segment { first, inside, tap, taps: count, .. }, own) = (segment, segment.lanes_of(self));
            assert!((1..=MOST_TAPS).contains(&count) && inside.start <= inside.end);
            assert!(own.start <= own.end && own.end <= lanes);
            let last = tap.wrapping_add_signed(tap_step.wrapping_mul(count as isize - 1));
            assert!(tap < taps && last < taps && tap_step.unsigned_abs() <= taps);
            // No position reads further than the last one does through the last tap.
            let read = inside.end.min(columns.count.saturating_add(count - 1)).saturating_sub(inside.start);
            if let Some(last) = read.checked_sub(1) {
                let end = first.saturating_add(last.saturating_mul(columns.source_step)).saturating_add(own.len());
                assert!(own.is_empty() || end.saturating_add(below) <= source);
            }
        }
    }

    /// Asserts that a tensor holds the rows.
    fn check_own(&self, own: &Own<'_>) {
        let span = |count: usize, step: usize| (count - 1).saturating_mul(step);
        let last = span(self.rows.count, own.steps[0]).saturating_add(span(self.columns.count, own.steps[1]));
        assert!(last.saturating_add(self.lanes) <= own.data.len());
    }

    /// Asserts that pixels are those of the rows.
    fn check_pixels(&self, pixels: &PixelsMut<'_>) {
        assert!(pixels.positions.counts == [1, 1, self.rows.count, self.columns.count]);
        assert!(pixels.channels == self.lanes);
    }

    /// Asserts that there is room for the given number of vectors, if the rows need any.
    fn check_spread<S: Vector>(&self, vectors: usize, spread: &[f32]) {
        assert!(!self.strips || vectors.saturating_mul(S::LANES) <= spread.len());
    }

    const fn channels(&self) -> usize {
        if self.strips { self.rows.count } else { self.lanes }
    }

    /// The tiles of at most `most` positions into which some rows fall.
    #[inline(always)]
    fn tiles<S: Vector>(&self, rows: usize, most: usize) -> Tiles {
        let vectors = self.lanes / S::LANES;
        let (mut start, mut end) = (0, usize::MAX);
        let mut whole = Span { start: 0, end: vectors };
        for &words in self.segments {
            let segment = Segment::of(words);
            let (Segment { inside, taps, .. }, lanes) = (segment, segment.lanes_of(self));
            (start, end) = (start.max(inside.start), end.min(inside.end.saturating_sub(taps - 1)));
            if self.strips {
                whole.start = whole.start.max(lanes.start.div_ceil(S::LANES)).min(vectors);
                whole.end = whole.end.min(lanes.end / S::LANES);
            }
        }
        whole.end = whole.end.max(whole.start);
        Tiles { rows, positions: Panels::of_at_most(self.columns.count, most), inside: Span { start, end }, whole }
    }

    /// Whether two rows are computed together: where a row reads through a kernel of three rows and columns what the next row reads
    /// through the kernel row before, and registers hold the coefficients of two kernel rows.
    fn pairs<S: Vector>(&self) -> bool {
        if S::REGISTERS < 32 || self.rows.count < 2 || self.segments.len() != SQUARE || self.taps != SQUARE * SQUARE {
            return false;
        }
        let above = Segment::of(self.segments[0]);
        let below = |row: usize| {
            let first = above.first.wrapping_add(row.wrapping_mul(self.rows.source_step));
            Segment { first, tap: row * SQUARE, taps: SQUARE, ..above }
        };
        self.tap_step == 1 && (0..SQUARE).all(|row| Segment::of(self.segments[row]) == below(row))
    }

    /// The segments in the form in which tiles use them.
    fn prepare<'a, S: Vector>(&self, room: &'a mut [SegmentWords]) -> &'a [SegmentWords] {
        for (to, &words) in room.iter_mut().zip(self.segments) {
            *to = Segment::of(words).prepared::<S>(self).words();
        }
        &room[..self.segments.len()]
    }

    /// The chunks of lanes: the first lane, and that behind the last.
    fn chunks(&self) -> impl Iterator<Item = [usize; 2]> {
        let Self { lanes, chunk, .. } = *self;
        (0..lanes).step_by(chunk).map(move |start| [start, min(lanes, start.saturating_add(chunk))])
    }

    /// Elements of tables from a lane to the next one.
    const fn per_lane(&self) -> usize {
        if self.strips { 0 } else { self.taps }
    }
}

/// The tiles of a row, or of two neighbouring rows.
struct Tiles {
    rows: usize,
    positions: Panels,
    /// The positions that read inside through all taps.
    inside: Span,
    /// The vectors all of whose lanes are inside.
    whole: Span,
}

impl Tiles {
    /// Visits all tiles of a chunk of lanes in a row of the walk, which reads what begins at `source`. The segments are the walk's,
    /// prepared.
    #[inline(always)]
    fn for_each<S: Vector>(
        &self,
        walk: &Walk<'_>,
        [start, end]: [usize; 2],
        source: *const f32,
        segments: &[SegmentWords],
        mut visit: impl FnMut(Tile, Place<'_>),
    ) {
        let Self { rows, positions, inside, whole } = self;
        let Walk { columns: Line { source_step, .. }, strips, .. } = *walk;
        let (first, vectors, odd) = (start / S::LANES, end / S::LANES, end % S::LANES);
        let whole = Span { start: whole.start, end: min(whole.end, vectors) };
        let alone = odd == 0 && whole.start <= first && whole.end == vectors;
        let mut panels = positions.iter().peekable();
        while let Some(positions) = panels.next() {
            let (position, len) = (positions.start, positions.len());
            let is_inside = |positions: &Range<usize>| positions.start >= inside.start && positions.end <= inside.end;
            let source = source.wrapping_add(position.wrapping_mul(source_step));
            let mut next = if odd > 0 { vectors } else { first };
            let mut comes_first = odd > 0;
            while comes_first || next < vectors {
                let (lanes, own, kind);
                (lanes, own, kind, next) = if comes_first && strips && vectors > 0 {
                    ([end - S::LANES, end], [S::LANES - odd, S::LANES], PARTIAL, first)
                } else if comes_first {
                    ([next * S::LANES, (next + 1) * S::LANES], [0, odd], PARTIAL, first)
                } else if next >= whole.start && next < whole.end {
                    let kind = if is_inside(&positions) { INSIDE } else { EDGE };
                    ([next * S::LANES, whole.end * S::LANES], [0, S::LANES], kind, whole.end)
                } else {
                    ([next * S::LANES, (next + 1) * S::LANES], [0, S::LANES], PARTIAL, next + 1)
                };
                comes_first = false;
                let mut count = 1;
                while alone && panels.next_if(|next| next.len() == len && is_inside(next) == (kind == INSIDE)).is_some()
                {
                    count += 1;
                }
                let place = Place { segments, source, position, lanes, own, stored: strips && vectors > 0 };
                visit(Tile { rows: *rows, position, len, kind, count }, place);
            }
        }
    }
}

/// The place of a tile, for all passes.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Each [`Prepared`].
    segments: &'a [SegmentWords],
    /// What the first position of the tile reads counts from here, at lane 0.
    source: *const f32,
    position: usize,
    /// The first lane of the first vector, and that behind the last.
    lanes: [usize; 2],
    /// For a vector that is not whole: the range of lanes that belong to no other vector, and whether the other lanes may be
    /// stored as well.
    own: [usize; 2],
    stored: bool,
}

impl Place<'_> {
    /// That of a tile some positions further, in the same row.
    #[inline(always)]
    const fn after(self, positions: usize, walk: &Walk<'_>) -> Self {
        let source = self.source.wrapping_add(positions.wrapping_mul(walk.columns.source_step));
        Self { source, position: self.position + positions, ..self }
    }

    /// What the first positions of two rows read through the kernel rows of a [pair](Walk::pairs), which are one row more than the
    /// kernel's, and bit `j` for whether the vector `j` positions further is inside.
    #[inline(always)]
    fn of_pair<const KIND: usize>(&self, walk: &Walk<'_>) -> ([*const f32; SQUARE + 1], u32) {
        let segments = [0, 1, 2].map(|row| Prepared::of(self.segments[row]));
        let [first, second, third] = segments.map(|row| self.source.wrapping_add(row.source));
        let last = third.wrapping_add(walk.rows.source_step);
        ([first, second, third, last], segments[0].inside::<KIND>(self.position))
    }

    /// That of the same positions, some rows further.
    #[inline(always)]
    const fn below(self, rows: usize, walk: &Walk<'_>) -> Self {
        Self { source: self.source.wrapping_add(rows.wrapping_mul(walk.rows.source_step)), ..self }
    }
}

/// The offset of a channel in a table of vectors of channels.
const fn in_table<S: Vector>(channel: usize, taps: usize) -> usize {
    channel / S::LANES * S::LANES * taps + channel % S::LANES
}

/// Fills vectors with the coefficients of a channel.
///
/// # Safety
///
/// [In reach](Vector#in-reach): a vector per tap at `to`; the first lane of each at `from`.
#[inline(always)]
unsafe fn spread<S: Vector>(simd: S, from: *const f32, taps: usize, to: *mut f32) {
    for offset in (0..taps * S::LANES).step_by(S::LANES) {
        // SAFETY: in reach.
        unsafe { simd.store(to.add(offset), simd.splat_f32s(*from.add(offset))) };
    }
}

/// Adds the lanes of vectors to the sums of a channel.
///
/// # Safety
///
/// As [`spread`], the other way round.
#[inline(always)]
unsafe fn gather<S: Vector>(simd: S, from: *const f32, taps: usize, to: *mut f32) {
    for offset in (0..taps * S::LANES).step_by(S::LANES) {
        // SAFETY: in reach.
        unsafe { *to.add(offset) += simd.reduce_sum_f32s(simd.load(from.add(offset))) };
    }
}

/// Whether they are all that a vector has.
#[inline(always)]
const fn all_lanes<S: Vector>([start, end]: [usize; 2]) -> bool {
    start == 0 && end >= S::LANES
}

/// Some lanes of a [`PARTIAL`] tile. Other tiles use all lanes, and no mask.
#[inline(always)]
fn mask_of<S: Vector, const KIND: usize>(simd: S, [start, end]: [usize; 2]) -> MemMask<S::m32s> {
    let (start, end) = if KIND == PARTIAL { (start.min(S::LANES), end.min(S::LANES)) } else { (0, S::LANES) };
    // A range that begins behind the last lane is empty. pulp's table of masks for AVX-512 has no entry for such a start.
    let (start, end) = if start == S::LANES { (0, 0) } else { (start as u32, end as u32) };
    // A new mask, because pulp's carries functions, and around calls of these the compiler saves all registers.
    MemMask::new(simd.mask_between_m32s(start, end).mask())
}

/// `N` elements a step apart, from `at` on.
#[inline(always)]
fn apart<const N: usize>(at: *const f32, step: usize) -> [*const f32; N] {
    let mut all = [at; N];
    for n in 1..N {
        // Each pointer is computed from another one, so that two registers hold the multiples of the step. Pointers may wrap
        // around where a walk stays in one row: with 32-bit pointers the step is still the distance of rows, but nothing is read
        // that far away.
        let (from, steps) = if n % 4 == 0 { (n - 4, 4) } else { (n / 4 * 4, n % 4) };
        all[n] = all[from].wrapping_add(step.wrapping_mul(steps));
    }
    all
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
