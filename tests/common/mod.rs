//! What the test suite and the fuzz targets share: cases, guarded buffers, one runner for every pass, and the
//! comparison with the oracle.

mod buffer;
mod case;
mod oracle;
mod runner;
mod workers;

pub(crate) use buffer::{Guarded, Placement};
pub(crate) use case::{Axis, Case, Parts, Rng, Shape, Tensor, Theta, Values, channel_of};
pub(crate) use oracle::{Expected, wide};
pub(crate) use runner::{How, PASSES, Results, isas, plan, run};
pub(crate) use workers::Workers;
