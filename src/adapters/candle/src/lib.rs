//! Convolutions for [candle](candle_core) by the SIMD kernels of [`convrelu`], forward and backward, under candle's autograd.
//!
//! ```text
//! y[i,j,d] = Σ_c Σ_a Σ_b w[a,b,c,d] · max(x[i+a, j+b, c], θ[a,b,c])          (eq. 8)
//! ```
//!
//! A ConvReLU layer (Gao, Cai, Ji: *Adaptive Convolutional ReLUs*, AAAI 2020) has a trained threshold θ per input channel and
//! tap. With θ = −∞ it is a plain convolution, with θ = 0 a ReLU followed by one: fast ones, whether anything is trained or
//! not.
//!
//! - [`functional`] has layers as functions of tensors: [`functional::conv2d`] stands in the place of candle's
//!   [`Tensor::conv2d`](candle_core::Tensor::conv2d).
//! - [`nn`] has them as modules that are made from a [`VarBuilder`](candle_nn::VarBuilder), and read what convrelu's trainer
//!   writes.
//!
//! # Semantics
//!
//! They are the kernels' own: a tie `x = θ` sends its gradient to θ; padding is zero before the comparison; a NaN in the input
//! reaches exactly the outputs whose window holds it; a NaN threshold is an error; an empty batch gives an empty output and,
//! by the kernels, gradients of zeros.
//!
//! # Threads and memory
//!
//! Calls run on the threads of the current rayon pool, as candle's own do. Results do not depend on how many there are. A layer
//! is planned anew in every call, which takes less than a microsecond. What the kernels need beside their results is a buffer of
//! each calling thread, which grows to the longest that a call has asked for, and stays until the thread ends.
//!
//! # How it is built
//!
//! ```text
//! nn.rs               modules
//! functional.rs       functions: checks, then one of the two below
//!   kernels.rs        an operation of candle's whose passes are the kernels'
//!     workspace.rs    their buffer
//!   composition.rs    candle's own operations
//! arguments.rs        which tensors fit together;  options.rs, thresholds.rs  what else a call is given
//! ```

#![deny(missing_docs)]

mod arguments;
mod composition;
pub mod functional;
mod kernels;
pub mod nn;
mod options;
mod thresholds;
mod workspace;

pub use options::{Axes, Options};
pub use thresholds::Thresholds;

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
