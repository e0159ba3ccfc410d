//! Epilogues of sums: `clamp(scale · Σ + shift + residual, low, high)`.
//!
//! The kernels of tiles do not know epilogues. If a call has one, a tile stores its sums in a copy in the first-level cache, and
//! one function finishes them from there. It serves kernels with channels in lanes and kernels with positions in lanes. If an
//! epilogue lacks a part, a neutral vector (1 or −0) stands for that part's whole table. So the loop need not ask which parts
//! there are.

use core::sync::atomic::{AtomicBool, Ordering};

use super::tile::framed;
use super::vector::{MOST_LANES, Vector};
use super::view::RowsMut;
use super::{Kernel, VECTORS};
use crate::arith::min;

/// The epilogue of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epilogue<'a> {
    /// One per output channel, from the call's first on.
    pub(crate) scale: Option<&'a [f32]>,
    pub(crate) shift: Option<&'a [f32]>,
    pub(crate) residual: Residual<'a>,
    /// Neither is NaN.
    pub(crate) low: f32,
    pub(crate) high: f32,
}

/// Whether the program has made an epilogue. Builds with vectors do not use it.
static MADE: AtomicBool = AtomicBool::new(false);

/// Remembers that the program makes an epilogue.
pub(crate) fn make() {
    if !VECTORS {
        MADE.store(true, Ordering::Relaxed);
    }
}

/// Whether there may be an epilogue. On microcontrollers this makes programs without epilogues smaller: nothing in such a program
/// writes the flag that this function reads, so the optimiser removes all code that depends on it.
#[inline(always)]
pub(crate) fn made() -> bool {
    VECTORS || MADE.load(Ordering::Relaxed)
}

/// The values that are added to scaled sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Residual<'a> {
    None,
    /// A tensor with the layout of the output, from the call's first output on.
    Tensor(&'a [f32]),
    /// The values that the output holds.
    Output,
}

/// An epilogue from a channel and an element on, as a call of a kernel receives it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending<'a> {
    epilogue: &'a Epilogue<'a>,
    /// The first output channel.
    channel: usize,
    /// The offset of the first output in the tensor.
    element: usize,
    /// Whether the sums are the first part of whole sums, and whether they are the last part. Each part is added to the parts
    /// before it, which lie in the output. Every step but the clamp is linear. So the first part gets shift and residual, and the
    /// last part is clamped.
    part: [bool; 2],
}

impl<'a> Epilogue<'a> {
    /// From a channel and an element of the output on.
    pub(crate) const fn from(&'a self, channel: usize, element: usize) -> Ending<'a> {
        Ending { epilogue: self, channel, element, part: [true; 2] }
    }

    /// The result for one sum, which belongs to a channel and to an element of the output that holds `before`. Nobody reads
    /// `before` but for [`Residual::Output`].
    pub(crate) fn of_one(&self, sum: f32, channel: usize, element: usize, before: &f32) -> f32 {
        let scale = self.scale.map_or(1.0, |scale| scale[channel]);
        let shift = self.shift.map_or(-0.0, |shift| shift[channel]);
        let residual = match self.residual {
            Residual::None => -0.0,
            Residual::Tensor(values) => values[element],
            Residual::Output => *before,
        };
        let value = sum * scale + shift + residual;
        // A NaN is neither below nor above.
        if value < self.low {
            self.low
        } else if value > self.high {
            self.high
        } else {
            value
        }
    }
}

impl<'a> Ending<'a> {
    /// The same ending for one part of the sums: the first part, the last part, both or neither.
    pub(crate) const fn of(self, first: bool, last: bool) -> Self {
        Self { part: [first, last], ..self }
    }

    /// Whether it adds the values that the outputs hold.
    pub(super) fn adds(&self) -> bool {
        !self.part[0] || self.epilogue.residual == Residual::Output
    }

    /// The result for one sum. Channel and element are counted from the first ones here.
    pub(super) fn one(&self, sum: f32, channel: usize, element: usize, before: &f32) -> f32 {
        self.of_part().of_one(sum, self.channel + channel, self.element + element, before)
    }

    /// The epilogue for this part of the sums.
    fn of_part(&self) -> Epilogue<'a> {
        let (mut own, [first, last]) = (*self.epilogue, self.part);
        if !first {
            (own.shift, own.residual) = (None, Residual::Output);
        }
        if !last {
            (own.low, own.high) = (f32::NEG_INFINITY, f32::INFINITY);
        }
        own
    }

    /// The epilogue of this part, with tables that begin at this ending's first channel and first element.
    fn own(&self) -> Epilogue<'a> {
        let own = self.of_part();
        let of = |values: Option<&'a [f32]>| values.map(|values| &values[self.channel..]);
        let residual = match own.residual {
            Residual::Tensor(values) => Residual::Tensor(&values[self.element..]),
            other => other,
        };
        Epilogue { scale: of(own.scale), shift: of(own.shift), residual, ..own }
    }

    /// The tables that tiles read. The output of the tiles begins at `output`.
    pub(super) fn tables(&self, output: *mut f32) -> Tables {
        self.own().tables(output)
    }

    /// Asserts that it has so many channels, and a residual for each output up to the last one.
    pub(super) fn check(&self, channels: usize, last: usize) {
        self.own().check(channels, last);
    }
}

impl Epilogue<'_> {
    /// Asserts that it has so many channels, and a residual for each output up to the last one.
    fn check(&self, channels: usize, last: usize) {
        assert!(self.scale.is_none_or(|scale| channels <= scale.len()));
        assert!(self.shift.is_none_or(|shift| channels <= shift.len()));
        assert!(if let Residual::Tensor(values) = self.residual { last < values.len() } else { true });
    }

    /// The tables that tiles read. The output of the tiles begins at `output`.
    fn tables(&self, output: *mut f32) -> Tables {
        static ONES: [f32; MOST_LANES] = [1.0; MOST_LANES];
        let of = |values: Option<&[f32]>, neutral| match values {
            Some(values) => Table { first: values.as_ptr(), bits: usize::MAX },
            None => neutral,
        };
        let residual = match self.residual {
            Residual::None => Table::NOTHING,
            Residual::Tensor(values) => Table { first: values.as_ptr(), bits: usize::MAX },
            Residual::Output => Table { first: output, bits: usize::MAX },
        };
        Tables {
            scale: of(self.scale, Table { first: ONES.as_ptr(), bits: 0 }),
            shift: of(self.shift, Table::NOTHING),
            residual,
            output,
            low: self.low,
            high: self.high,
        }
    }
}

/// A table, or a single vector that stands for all of it.
#[derive(Clone, Copy)]
pub(super) struct Table {
    first: *const f32,
    /// Offsets are masked with this: 0 for a single vector.
    bits: usize,
}

impl Table {
    /// Adds nothing. A zero keeps its sign.
    const NOTHING: Self = {
        static MINUS_ZEROS: [f32; MOST_LANES] = [-0.0; MOST_LANES];
        Self { first: MINUS_ZEROS.as_ptr(), bits: 0 }
    };

    #[inline(always)]
    pub(super) const fn at(self, offset: usize) -> *const f32 {
        self.first.wrapping_add(offset & self.bits)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.bits == 0
    }
}

/// An [`Epilogue`] as tiles see it.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    scale: Table,
    shift: Table,
    /// Its elements lie as those of the output do, and it begins at the same element.
    pub(super) residual: Table,
    pub(super) output: *mut f32,
    low: f32,
    high: f32,
}

/// Sums in a copy, and the outputs that they become.
#[derive(Clone, Copy)]
pub(super) struct Finished {
    pub(super) from: *const f32,
    /// From a row of the copy to the next one.
    pub(super) from_step: usize,
    /// The offset of the first row from the tables' output.
    pub(super) at: usize,
    /// From a row to the next one.
    pub(super) step: usize,
    pub(super) rows: usize,
    /// Adjacent elements of a row.
    pub(super) len: usize,
    pub(super) channels: Channels,
}

/// The channels of finished sums, counted from the tables' first one.
#[derive(Clone, Copy)]
pub(super) enum Channels {
    /// One per element of a row, from this one on.
    InLanes(usize),
    /// One per row.
    PerRow(usize),
    /// The same for all.
    One(usize),
}

impl Tables {
    /// The same tables for sums that are finished in place, with a residual of the same layout.
    pub(super) fn onto(&self, sums: *mut f32, residual: *const f32) -> Self {
        Self { residual: Table { first: residual, ..self.residual }, output: sums, ..*self }
    }

    /// Prefetches the cache lines of the rows that will be written, and those of the residual.
    #[inline(always)]
    pub(super) fn ask_for<S: Vector>(&self, simd: S, at: usize, step: usize, rows: usize, len: usize) {
        /// Elements of a cache line.
        const LINE: usize = 16;
        for row in 0..rows {
            let at = at.wrapping_add(row * step);
            let mut line = 0;
            while line < len {
                simd.prefetch_for_writing(self.output.wrapping_add(at + line));
                simd.prefetch(self.residual.at(at + line));
                line += LINE;
            }
        }
    }

    /// Finishes the sums and writes the outputs.
    ///
    /// # Safety
    ///
    /// The epilogue of the tables is [checked](Ending::check), and its channels and outputs include those of the sums. The caller
    /// alone may write the outputs. [In reach](Vector#in-reach): the rows of the copy.
    #[inline(always)]
    pub(super) unsafe fn finish<S: Vector>(&self, simd: S, sums: Finished) {
        let Finished { from, from_step, at, step, rows, len, channels } = sums;
        framed!(simd => {
            let bounds = [simd.splat_f32s(self.low), simd.splat_f32s(self.high)];
            let (residual, to) = (self.residual.at(at), self.output.wrapping_add(at));
            let mut line = Line { from, from_step, residual, bits: self.residual.bits, to, step, count: rows };
            // SAFETY: as this function asks. The lines read and write only rows of the copy, of the residual and of the output,
            // and every channel has coefficients.
            unsafe {
                match channels {
                    Channels::InLanes(first) => {
                        let mut lane = 0;
                        while lane < len {
                            let own = min(len - lane, S::LANES);
                            let scale = simd.load_first(self.scale.at(first + lane), own);
                            let shift = simd.load_first(self.shift.at(first + lane), own);
                            line.run(simd, [scale, shift], bounds, own);
                            line.skip(S::LANES, S::LANES);
                            lane += S::LANES;
                        }
                    }
                    Channels::PerRow(first) | Channels::One(first) => {
                        let each = usize::from(matches!(channels, Channels::PerRow(_)));
                        (line.from_step, line.step) = (S::LANES, S::LANES);
                        for row in 0..rows {
                            let channel = first + row * each;
                            let scale = simd.splat_f32s(*self.scale.at(channel));
                            let shift = simd.splat_f32s(*self.shift.at(channel));
                            let mut own = Line { count: len / S::LANES, ..line };
                            own.run(simd, [scale, shift], bounds, S::LANES);
                            let rest = len % S::LANES;
                            if rest > 0 {
                                own.skip(len - rest, len - rest);
                                own.count = 1;
                                own.run(simd, [scale, shift], bounds, rest);
                            }
                            line.skip(from_step, step);
                        }
                    }
                }
            }
        });
    }
}

/// Vectors at constant steps with the same coefficients.
#[derive(Clone, Copy)]
struct Line {
    from: *const f32,
    from_step: usize,
    residual: *const f32,
    /// Steps in the residual are masked with this: 0 if a single vector stands for the residual.
    bits: usize,
    to: *mut f32,
    step: usize,
    count: usize,
}

impl Line {
    #[inline(always)]
    const fn skip(&mut self, from: usize, to: usize) {
        self.from = self.from.wrapping_add(from);
        self.residual = self.residual.wrapping_add(to & self.bits);
        self.to = self.to.wrapping_add(to);
    }

    /// Finishes the first `own` lanes of each vector.
    ///
    /// # Safety
    ///
    /// [In reach](Vector#in-reach): the lanes of the vectors. What is written is the caller's own.
    #[inline(always)]
    unsafe fn run<S: Vector>(&self, simd: S, coefficients: [S::f32s; 2], bounds: [S::f32s; 2], own: usize) {
        let Self { mut from, from_step, mut residual, bits, mut to, step, count } = *self;
        let residual_step = step & bits;
        // SAFETY: in reach.
        unsafe {
            if own == S::LANES {
                for _ in 0..count {
                    let value = finished(simd, simd.load(from), simd.load(residual), coefficients, bounds);
                    simd.store(to, value);
                    // `add` would be undefined behaviour here: after the last vector, the pointers may lie beyond the tensors.
                    from = from.wrapping_add(from_step);
                    residual = residual.wrapping_add(residual_step);
                    to = to.wrapping_add(step);
                }
            } else {
                for _ in 0..count {
                    let (sum, before) = (simd.load_first(from, own), simd.load_first(residual, own));
                    simd.store_first(to, finished(simd, sum, before, coefficients, bounds), own);
                    from = from.wrapping_add(from_step);
                    residual = residual.wrapping_add(residual_step);
                    to = to.wrapping_add(step);
                }
            }
        }
    }
}

/// The result for a vector of sums. A NaN stays a NaN, because the bounds are the first operands, as [`Vector::activate`]
/// explains.
#[inline(always)]
fn finished<S: Vector>(
    simd: S,
    sums: S::f32s,
    residual: S::f32s,
    [scale, shift]: [S::f32s; 2],
    [low, high]: [S::f32s; 2],
) -> S::f32s {
    let value = simd.add_f32s(simd.mul_add(sums, scale, shift), residual);
    simd.limit(simd.activate(value, low), high)
}

/// Finishes sums of some channels, a row per channel: `to[c][p]` becomes the result for `from[c][p]`.
pub(crate) struct FinishRows<'a> {
    pub(crate) from: &'a [f32],
    /// Distance of rows.
    pub(crate) from_step: usize,
    pub(crate) to: RowsMut<'a>,
    pub(crate) ending: Ending<'a>,
}

impl Kernel for FinishRows<'_> {
    fn check<S: Vector>(&self) {
        let RowsMut { rows, step, len, apart, .. } = self.to;
        assert!(apart == 1 && rows >= 1 && len >= 1);
        let span = |step: usize| (rows - 1).saturating_mul(step).saturating_add(len);
        assert!(span(self.from_step) <= self.from.len());
        self.ending.check(rows, span(step) - 1);
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        let Self { from, from_step, to, ending } = self;
        let RowsMut { first, rows, step, len, .. } = to;
        let sums = Finished { from: from.as_ptr(), from_step, at: 0, step, rows, len, channels: Channels::PerRow(0) };
        // SAFETY: checked: the epilogue has the channels and outputs of the rows, the slice holds the sums.
        unsafe { ending.tables(first).finish(simd, sums) }
    }
}
