//! The segments of taps of a depthwise layer.
//!
//! ```text
//! stride 1:             tap 0 1 2 of position p read what tap 0 of positions p, p + 1, p + 2 reads
//! stride 2:             tap 0 2   of position p             of positions p, p + 1;   and tap 1 alone
//! dilation 2:           tap 0 1 2 of position p             of positions p, p + 2, p + 4
//! backward, stride 2:   inputs 0 2 4 … through every other tap, inputs 1 3 5 … through the others
//! ```
//!
//! So along a row, positions and taps fall into phases. In a phase, the next tap of a position reads what the first tap of the
//! next position reads. The other axes only say through which kernel rows a row of positions reads inside.

use core::ops::Range;

use crate::arith::{gcd, min};
use crate::desc::ConvDesc;
use crate::geometry::{Interval, Panels, Phase, Progression, Progressions, Reads, Span, Steps};
use crate::kernel::{MOST_SEGMENT_TAPS, Segment, SegmentWords};

/// The direction of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Outputs read inputs.
    Forward,
    /// Inputs read output gradients.
    Backward,
}

/// Positions along depth or height that read inside through the same taps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alike {
    pub(super) positions: Steps,
    /// Numbered as in the kernel, ascending. There may be none.
    pub(super) taps: Steps,
    /// The coordinate that the first position reads through the first tap.
    source: usize,
    /// The distances between what two neighbouring positions read, and between what two neighbouring taps read.
    pub(super) source_step: usize,
    tap_step: isize,
}

impl Alike {
    fn forward(reads: &Reads, Interval { positions, taps }: Interval) -> Self {
        Self {
            positions: Steps { first: positions.start, step: 1, count: positions.len() },
            taps: Steps { first: taps.start, step: 1, count: taps.len() },
            source: reads.source_of(positions.start, taps.start).unwrap_or(0),
            // Positions that read only padding may lie any distance apart. Nobody uses it, so it is none.
            source_step: if taps.is_empty() { 0 } else { reads.stride },
            tap_step: reads.dilation as isize,
        }
    }

    const fn backward(progression: Progression) -> Self {
        let Progression { inputs, taps, output, shift } = progression;
        Self { positions: inputs, taps, source: output, source_step: 1, tap_step: -(shift as isize) }
    }

    /// All of these for some positions, in order.
    pub(super) fn all(reads: &Reads, direction: Direction, range: Range<usize>) -> impl Iterator<Item = Self> + Clone {
        let (reads, outputs) = (*reads, if direction == Direction::Forward { range.clone() } else { 0..0 });
        let intervals = reads.intervals_in(outputs).map(move |interval| Self::forward(&reads, interval));
        let progressions = (direction == Direction::Backward && !range.is_empty())
            .then(|| Progressions::within(&reads, range).map(Self::backward));
        intervals.chain(progressions.into_iter().flatten())
    }

    /// Only the position with a given index.
    pub(super) const fn only(self, index: usize) -> Self {
        let positions = Steps { first: self.positions.at(index), step: 1, count: 1 };
        Self { positions, source: self.source + index * self.source_step, ..self }
    }

    /// Whether a tap, numbered as in the kernel, reads inside.
    fn reads_through(&self, tap: usize) -> bool {
        let Steps { first, step, count } = self.taps;
        count > 0 && tap >= first && tap <= self.taps.at(count - 1) && (tap - first).is_multiple_of(step)
    }

    /// The coordinate that the first position reads through a tap, counted from the first tap here.
    const fn reads(&self, tap: usize) -> usize {
        self.source.wrapping_add_signed(tap as isize * self.tap_step)
    }
}

/// Positions along the last axis whose taps fall into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) positions: Steps,
    /// The coordinate that the first position reads through the first tap, which may be padding; the distance between what two
    /// neighbouring positions read; and that between what two neighbouring taps read.
    origin: isize,
    pub(super) source_step: usize,
    dilation: usize,
    source: usize,
    /// The number of taps, by ascending source, and their numbers in the kernel.
    taps: usize,
    first_tap: usize,
    kernel_step: isize,
    /// The distance of two neighbouring taps of a segment.
    segment_step: usize,
}

impl Columns {
    /// All phases of some positions of an axis.
    pub(super) fn all(
        forward: &Reads,
        direction: Direction,
        range: Range<usize>,
    ) -> impl Iterator<Item = Self> + Clone {
        let forward = *forward;
        let phases =
            if direction == Direction::Forward { min(range.len(), 1) } else { min(range.len(), forward.stride) };
        (0..phases).flat_map(move |phase| {
            let first = range.start + phase;
            let (reads, own, index, taps, kernel_step) = match direction {
                Direction::Forward => {
                    let own = Steps { first, step: 1, count: range.end - first };
                    (forward, own, first, Steps { first: 0, step: 1, count: forward.taps }, 1)
                }
                Direction::Backward => {
                    let (step, phase) = (forward.stride, Phase::new(&forward, first % forward.stride));
                    let own = Steps { first, step, count: (range.end - first).div_ceil(step) };
                    (phase.reads, own, first / step, phase.taps, -1)
                }
            };
            Self::phases(reads, own, index, taps, kernel_step)
        })
    }

    /// The phases of the positions `own`. The first of these is number `index` in `reads`.
    fn phases(
        reads: Reads,
        own: Steps,
        index: usize,
        taps: Steps,
        direction: isize,
    ) -> impl Iterator<Item = Self> + Clone {
        let common = gcd(reads.stride, reads.dilation);
        let apart = reads.dilation / common;
        // If no two positions lie so far apart, each position is a phase of its own, and its taps are one segment.
        let (source_step, segment_step) =
            if apart < reads.positions { (apart * reads.stride, reads.stride / common) } else { (reads.dilation, 1) };
        let first_tap = if direction > 0 || taps.count == 0 { taps.first } else { taps.at(taps.count - 1) };
        (0..min(apart, own.count)).map(move |phase| Self {
            positions: Steps {
                first: own.at(phase),
                // Saturates only where there is a single position, so that no step is taken.
                step: own.step.saturating_mul(apart),
                count: (own.count - phase).div_ceil(apart),
            },
            origin: reads.origin + ((index + phase) * reads.stride) as isize,
            source_step,
            dilation: reads.dilation,
            source: reads.source,
            taps: taps.count,
            first_tap,
            kernel_step: direction * taps.step as isize,
            segment_step,
        })
    }

    /// The distance of two neighbouring taps of a segment, numbered as in the kernel.
    pub(super) const fn tap_step(&self) -> isize {
        // Where each segment has a single tap, nobody uses the step.
        if self.segment_step < self.taps { self.kernel_step * self.segment_step as isize } else { 0 }
    }

    /// The segments of a kernel row: for each, the coordinate where it begins to read inside, the positions that do, and its
    /// taps.
    fn segments(self) -> impl Iterator<Item = (usize, Segment)> + Clone {
        (0..min(self.segment_step, self.taps)).flat_map(move |class| {
            let all = (self.taps - class).div_ceil(self.segment_step);
            Panels::of_at_most(all, MOST_SEGMENT_TAPS).iter().map(move |part| {
                let tap = class + part.start * self.segment_step;
                let first = self.origin + (tap * self.dilation) as isize;
                // The positions that read inside through the first tap. For each later tap they are one earlier.
                let reaches = |coordinate: usize| {
                    let steps = coordinate as isize - first;
                    if steps > 0 { (steps as usize).div_ceil(self.source_step) } else { 0 }
                };
                let most = self.positions.count + part.len() - 1;
                let end = min(reaches(self.source), most);
                let start = reaches(0);
                let inside = if start < end { Span { start, end } } else { Span::EMPTY };
                let coordinate = first + (inside.start * self.source_step) as isize;
                let tap = self.first_tap.wrapping_add_signed(tap as isize * self.kernel_step);
                // Where nothing is inside, nobody uses the coordinate.
                let coordinate = if inside.is_empty() { 0 } else { coordinate as usize };
                (coordinate, Segment { first: 0, inside, lanes: Span::EMPTY, tap, taps: part.len() })
            })
        })
    }
}

/// Rows of positions that read inside through the same kernel rows, and the columns of one phase in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) depths: Alike,
    pub(super) heights: Alike,
    pub(super) columns: Columns,
}

impl Rows {
    /// All rows of a box of positions. Each of these has a single depth.
    pub(super) fn all(
        reads: &[Reads; 3],
        direction: Direction,
        [d, h, w]: [Range<usize>; 3],
    ) -> impl Iterator<Item = Self> {
        let depths = Alike::all(&reads[0], direction, d);
        let depths = depths.flat_map(|depths| (0..depths.positions.count).map(move |index| depths.only(index)));
        let heights = Alike::all(&reads[1], direction, h);
        let columns = Columns::all(&reads[2], direction, w);
        depths.flat_map(move |depths| {
            let columns = columns.clone();
            heights
                .clone()
                .flat_map(move |heights| columns.clone().map(move |columns| Self { depths, heights, columns }))
        })
    }

    /// Fills a table of segments, for every kernel row that reads inside. `at` gives the offset of coordinates of the source. The
    /// table holds the segments that read inside at some position, and others only if they are `wanted`.
    pub(super) fn tabulate<'a>(
        &self,
        kernel: [usize; 3],
        at: impl Fn([usize; 3]) -> usize,
        lanes: usize,
        wanted: bool,
        table: &'a mut [SegmentWords],
    ) -> &'a [SegmentWords] {
        let (mut len, mut from) = (0, None);
        let [depths, heights] = [self.depths.taps, self.heights.taps];
        let row = |d: usize, h: usize| (depths.at(d) * kernel[1] + heights.at(h)) * kernel[2];
        if depths.count > 0 && heights.count > 0 {
            for (w, segment) in self.columns.segments() {
                if segment.inside.is_empty() && !wanted {
                    continue;
                }
                let mut first = 0;
                if !segment.inside.is_empty() {
                    first = at([self.depths.reads(0), self.heights.reads(0), w]);
                    from = Some((w, first));
                }
                let lanes = Span { start: 0, end: lanes };
                table[len] = Segment { first, lanes, tap: row(0, 0) + segment.tap, ..segment }.words();
                len += 1;
            }
        }
        // The other kernel rows have the same segments at other offsets.
        let (own, mut next) = (len, len);
        for (d, h) in (0..depths.count).flat_map(|d| (0..heights.count).map(move |h| (d, h))).skip(1) {
            let apart =
                from.map_or(0, |(w, first)| at([self.depths.reads(d), self.heights.reads(h), w]).wrapping_sub(first));
            for index in 0..own {
                let mut words = table[index];
                // Wraps around for rows before the first one.
                words[0] = words[0].wrapping_add(apart as u32);
                words[5] += (row(d, h) - row(0, 0)) as u32;
                table[next] = words;
                next += 1;
            }
        }
        &table[..next]
    }

    /// Fills a table of the kernel rows that read only padding: the first tap of each.
    pub(super) fn tabulate_outside<'a>(&self, kernel: [usize; 3], table: &'a mut [u32]) -> &'a [u32] {
        tabulate_outside(kernel, table, |d, h| self.depths.reads_through(d) && self.heights.reads_through(h))
    }
}

/// Fills a table of the kernel rows that do not read inside: the first tap of each.
fn tabulate_outside(kernel: [usize; 3], table: &mut [u32], inside: impl Fn(usize, usize) -> bool) -> &[u32] {
    let mut next = 0;
    for (d, h) in (0..kernel[0]).flat_map(|d| (0..kernel[1]).map(move |h| (d, h))) {
        if !inside(d, h) {
            // Fits 32 bits, because the number of taps does.
            table[next] = ((d * kernel[1] + h) * kernel[2]) as u32;
            next += 1;
        }
    }
    &table[..next]
}

/// The positions that a walk over strips treats as rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Across {
    /// The rows of one phase.
    Rows(Columns),
    /// The vectors of a single row, all of which read inside through all taps of a kernel row.
    Vectors(Alike, usize),
}

/// A strip of a plane, whose columns are in the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strips {
    depths: Alike,
    across: Across,
    /// The columns in the lanes.
    widths: Span,
    /// The distance from a column to what it reads through a kernel column, and the extent of the source.
    shift: isize,
    shift_step: isize,
    source: usize,
    lanes: usize,
}

impl Strips {
    /// Whether neighbouring columns read neighbouring coordinates.
    pub(super) const fn apply(desc: &ConvDesc) -> bool {
        desc.stride()[2] == 1
    }

    /// All strips of a box of positions, for vectors of a given number of lanes.
    pub(super) fn all(
        reads: &[Reads; 3],
        direction: Direction,
        [d, h, w]: [Range<usize>; 3],
        lanes: usize,
    ) -> impl Iterator<Item = Self> {
        let widths = Span { start: w.start, end: w.end };
        let (shift, shift_step, source) = match direction {
            Direction::Forward => (reads[2].origin, reads[2].dilation as isize, reads[2].source),
            Direction::Backward => (-reads[2].origin, -(reads[2].dilation as isize), reads[2].positions),
        };
        let last = shift + (reads[2].taps - 1) as isize * shift_step;
        // The columns that read inside through all taps.
        let first = (-shift.min(last)).max(0) as usize;
        let end = (source as isize - shift.max(last)).max(0) as usize;
        let start = widths.start + first.saturating_sub(widths.start).next_multiple_of(lanes);
        let vectors = min(end, widths.end).saturating_sub(start) / lanes;
        let single = h.len() == 1 && reads[1].taps == 1 && vectors > 1;
        // The columns behind them need a vector that overlaps the one before.
        let rest = widths.end.saturating_sub(start + vectors * lanes);
        let vectors = if rest > 0 && rest < lanes { vectors.saturating_sub(1) } else { vectors };
        let end = start + vectors * lanes;
        let edges = if single {
            [Span { start: widths.start, end: start }, Span { start: end, end: widths.end }]
        } else {
            [widths, Span::EMPTY]
        };
        let depths = Alike::all(&reads[0], direction, d);
        let depths = depths.flat_map(|depths| (0..depths.positions.count).map(move |index| depths.only(index)));
        let middle = Alike::all(&reads[1], direction, if single { h.clone() } else { 0..0 });
        let rows = Columns::all(&reads[1], direction, h);
        depths.flat_map(move |depths| {
            let of = move |across, widths| Self { depths, across, widths, shift, shift_step, source, lanes };
            let edges = edges.into_iter().filter(|edge| !edge.is_empty());
            let rows = rows.clone();
            let rows = edges.flat_map(move |edge| rows.clone().map(move |rows| of(Across::Rows(rows), edge)));
            let own = Span { start, end: start + lanes };
            rows.chain(middle.clone().map(move |row| of(Across::Vectors(row, vectors), own)))
        })
    }

    /// The first position, the number of positions along each axis, and their distance in columns or rows.
    pub(super) fn positions(&self) -> ([usize; 3], [usize; 3], usize) {
        let (depth, width) = (self.depths.positions.first, self.widths.start);
        match self.across {
            Across::Rows(rows) => {
                ([depth, rows.positions.first, width], [0, rows.positions.step, 0], rows.positions.count)
            }
            Across::Vectors(row, count) => ([depth, row.positions.first, width], [0, 0, self.lanes], count),
        }
    }

    /// The number of columns in the lanes.
    pub(super) const fn width(&self) -> usize {
        self.widths.len()
    }

    /// Columns of the vectors that hold those in the lanes.
    pub(super) const fn whole_width(&self) -> usize {
        self.widths.len().next_multiple_of(self.lanes)
    }

    /// The distance between what two neighbouring positions read, along each axis.
    pub(super) const fn source_step(&self) -> [usize; 3] {
        match self.across {
            Across::Rows(rows) => [0, rows.source_step, 0],
            Across::Vectors(..) => [0, 0, self.lanes],
        }
    }

    /// The distance of two neighbouring taps of a segment, numbered as in the kernel.
    pub(super) const fn tap_step(&self, kernel: [usize; 3]) -> isize {
        match self.across {
            Across::Rows(rows) => rows.tap_step() * kernel[2] as isize,
            Across::Vectors(..) => 0,
        }
    }

    /// As [`Rows::tabulate`].
    pub(super) fn tabulate<'a>(
        &self,
        kernel: [usize; 3],
        at: impl Fn([usize; 3]) -> usize,
        wanted: bool,
        table: &'a mut [SegmentWords],
    ) -> &'a [SegmentWords] {
        let mut len = 0;
        for d in 0..self.depths.taps.count {
            let (depth, slice) = (self.depths.reads(d), self.depths.taps.at(d) * kernel[1]);
            let mut add = |h: usize, segment: Segment, kernel_row: usize| {
                for w in 0..kernel[2] {
                    let column = self.widths.start as isize + self.shift + w as isize * self.shift_step;
                    let end = min((self.source as isize - column).max(0) as usize, self.width());
                    let start = min((-column).max(0) as usize, end);
                    let inside = !segment.inside.is_empty() && start < end;
                    if !(inside || wanted) {
                        continue;
                    }
                    let first = if inside { at([depth, h, (column + start as isize) as usize]) } else { 0 };
                    let tap = (slice + kernel_row) * kernel[2] + w;
                    table[len] = Segment { first, lanes: Span { start, end }, tap, ..segment }.words();
                    len += 1;
                }
            };
            match self.across {
                Across::Rows(rows) => rows.segments().for_each(|(h, segment)| add(h, segment, segment.tap)),
                Across::Vectors(row, count) if row.taps.count > 0 => {
                    let inside = Span { start: 0, end: count };
                    add(row.reads(0), Segment { first: 0, inside, lanes: Span::EMPTY, tap: 0, taps: 1 }, 0);
                }
                Across::Vectors(..) => (),
            }
        }
        &table[..len]
    }

    /// As [`Rows::tabulate_outside`].
    pub(super) fn tabulate_outside<'a>(&self, kernel: [usize; 3], table: &'a mut [u32]) -> &'a [u32] {
        tabulate_outside(kernel, table, |d, h| {
            let row = match self.across {
                Across::Rows(_) => true,
                Across::Vectors(row, _) => row.reads_through(h),
            };
            self.depths.reads_through(d) && row
        })
    }
}
