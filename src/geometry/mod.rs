//! Numbers alone: no buffers, no instruction sets.

mod share;

pub(crate) use share::{Panels, Widths, chunks};
