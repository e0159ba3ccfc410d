//! The micro-kernels and the instruction sets they are built for. The only module with unsafe code.
mod isa;
pub use isa::{Isa, ParseIsaError};
