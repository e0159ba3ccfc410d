//! The test suite of the convolution kernels.
//!
//! Every test runs on every instruction set of the machine, and on x86-64 on sixteen emulated lanes, through one runner that puts
//! guard words around each buffer. Environment variables:
//!
//! - `CONVRELU_CASES`: random cases per property (default 2048; properties that take more per case use a fraction).
//! - `CONVRELU_REQUIRE_ISA`: comma-separated instruction sets that must be available, or the run fails.
//! - `CONVRELU_EXPECT_ISA`: the instruction set that must be detected, and no better one be available.
//! - `PROPTEST_RNG_SEED`: another seed than the fixed one, for other random cases.

#[path = "../common/mod.rs"]
mod common;

mod activation;
mod buffers;
mod coverage;
mod epilogue;
mod errors;
mod exact;
mod geometry;
mod isa;
mod oracle;
mod passes;
mod paths;
mod repeatable;
mod shares;
mod strategy;
mod sums;
mod transposed;
mod values;
