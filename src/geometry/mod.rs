//! Arithmetic on which positions read which inputs. Nothing here knows buffers or instruction sets.
//!
//! ```text
//! input   i = o · stride + k · dilation − padding      of output o through tap k
//!
//! taps     ┌ 0 1 ┐┌ 0 1 2 ┐┌ 1 2 ┐       kernel 3, padding 1: outputs of an interval read
//! outputs  0       1 2 3 4  5            inside through the same taps
//! ```
//!
//! | module | enumerates |
//! |---|---|
//! | [`reads`] | along one axis: what a position reads through a tap |
//! | [`interval`] | along one axis: positions in a row that read inside through the same taps |
//! | [`class`] | boxes of three intervals |
//! | [`lattice`] | boxes of places at constant steps in several tensors |
//! | [`progression`] | along one axis: inputs a stride apart that are read through the same taps; boxes of three |
//! | [`segment`] | sums over positions: where one partial sum ends |
//! | [`share`] | parts of nearly equal size, for threads and for panels of channels |
//! | [`split`] | parts of a box of images, positions and panels, for threads |
//!
//! Everything follows from the descriptor. The time grows with the number of things enumerated, never with the number of
//! positions.

mod class;
mod interval;
mod lattice;
mod progression;
mod reads;
mod segment;
#[cfg(test)]
mod shapes;
mod share;
mod span;
mod split;

pub(crate) use class::{Class, classes_in};
pub(crate) use interval::Interval;
pub(crate) use lattice::Lattice;
pub(crate) use progression::{Phase, Progression, Progressions, progressions};
pub(crate) use reads::Reads;
pub(crate) use segment::{MOST_SEGMENTS, SEGMENT, Segments, chain, paying_segments};
pub(crate) use share::{MOST_PARTS, Panels, THREADS, Widths, chunks, parts};
pub(crate) use span::{Span, Steps};
pub(crate) use split::{Split, Work, inner_positions, long_axis};
