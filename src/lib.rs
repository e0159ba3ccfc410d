//! Adaptive Convolutional ReLUs: convolution kernels with a trainable activation threshold per input channel and kernel tap.
//!
//! A ConvReLU layer (Gao, Cai, Ji: *Adaptive Convolutional ReLUs*, AAAI 2020) clamps each input from below before it multiplies
//! it. The threshold θ belongs to the input channel and the kernel tap; output channels and positions share it (eq. 8):
//!
//! ```text
//! y[i,j,d] = Σ_c Σ_a Σ_b w[a,b,c,d] · max(x[i+a, j+b, c], θ[a,b,c])
//! ```
//!
//! With θ = −∞ ([`Thresholds::LINEAR`]) this is a plain convolution, with θ = 0 ([`Thresholds::RELU`]) a ReLU and a convolution.
//! The crate computes it in one, two and three dimensions, forward and backward, channels first or last. It chooses SIMD kernels
//! at run time. It needs neither the standard library nor a heap.
//!
//! # A layer
//!
//! ```rust
//! use convrelu::{ConvDesc, ConvRelu, Error, Forward, Pass, Serial, Thresholds, Weight};
//!
//! // An image of 16 × 16 pixels, 3 → 8 channels, 3 × 3 taps, padded so that the output is as large as the input.
//! const DESC: ConvDesc = match ConvDesc::conv2d(1, 3, 8, [16, 16], [3, 3]).padding([1, 1]).build() {
//!     Ok(desc) => desc,
//!     Err(_) => panic!("a constant descriptor"),
//! };
//!
//! fn layer(
//!     input: &[f32; DESC.input_len()],
//!     weight: &[f32; DESC.weight_len()],
//!     thresholds: &[f32; DESC.threshold_len()],
//!     output: &mut [f32; DESC.output_len()],
//!     workspace: &mut [f32],
//! ) -> Result<(), Error> {
//!     let plan = ConvRelu::new(DESC);
//!     assert!(workspace.len() >= plan.workspace_len(Pass::Forward));
//!     let operands = Forward::new(input, Weight::Plain(weight), Thresholds::PerTap(thresholds));
//!     plan.forward(operands, output, workspace, &Serial)
//! }
//! ```
//!
//! # How to use it
//!
//! 1. Describe the layer: [`ConvDesc::conv2d`] and its siblings begin a builder, [`build`](ConvDescBuilder::build) checks it.
//! 2. Plan it: [`ConvRelu::new`] picks the best instruction set of the machine, [`ConvRelu::with_isa`] forces one.
//! 3. Call [`forward`](ConvRelu::forward), [`backward_input`](ConvRelu::backward_input) (gradients of input and thresholds) and
//!    [`backward_weight`](ConvRelu::backward_weight) (gradients of weight and bias) with your own buffers and a workspace of
//!    [`workspace_len`](ConvRelu::workspace_len) elements.
//! 4. For many calls with one weight, pack it once: [`pack_weight`](ConvRelu::pack_weight) for the forward pass,
//!    [`pack_weight_transposed`](ConvRelu::pack_weight_transposed) for `backward_input`.
//! 5. For several threads, plan for them ([`with_threads`](ConvRelu::with_threads)) and give the calls an [`Executor`] that has
//!    them: `Rayon` (feature `rayon`), or your own. [`Serial`] is the calling thread.
//!
//! Mistakes come back as an [`Error`] that names the argument, its value and the rule it breaks.
//!
//! # Where to read on
//!
//! | question | |
//! |---|---|
//! | How do I compute my framework's layers? | [`guide::frameworks`] |
//! | How do I run a layer on a microcontroller? | [`guide::firmware`] |
//! | How do I use threads? | [`guide::threads`] |
//! | Which layout do I choose, and when do I pack weights? | [`guide::layouts`] |
//! | What exactly is computed, with which errors? | [`guide::numerics`] |
//! | How do I train a network, and rerun the paper? | [`guide::training`] |
//! | Where does it run? | [`guide::targets`] |
//! | Why is it fast? How is it built, and how do I change it? | [`guide::speed`], [`guide::extending`], [`guide::contributing`] |
//!
//! # Features
//!
//! | feature | default | what it adds | what it needs |
//! |---|---|---|---|
//! | none | | the kernels, without the standard library and without a heap | the crates `pulp`, `bytemuck`, `libm` |
//! | `std` | yes | detection of the CPU through the operating system; the reference trainer `train` | the crates `gemm`, `rand`, `serde`, `toml`, `safetensors`, `csv`, `image`, `flate2` |
//! | `rayon` | | the executor `Rayon`, which runs calls on the threads of the current rayon pool | the crate `rayon` |
//! | `capi` | | the C interface `capi`, with the header `src/capi/convrelu.h` | `capi-epilogues`, `capi-transposed`; where there is an operating system, Rust's standard library (it handles panics) |
//! | `capi-plain` | | the C interface for firmware: every function, but neither epilogues nor transposed convolutions | as `capi` |
//! | `capi-epilogues` | | the C interface with epilogues | `capi-plain` |
//! | `capi-transposed` | | the C interface with transposed convolutions | `capi-plain` |
//! | `panic-handler` | | a panic calls C's `abort`: for static libraries on targets without an operating system | `capi-plain` |
//! | `onnx` | | trained networks as ONNX files, `train::onnx` | `std`, and the crate `prost` |
//! | `parquet` | | data sets as Parquet files, as the Hugging Face hub distributes them | `std`, and the crate `parquet`, which brings `zstd` and needs a C compiler for it |
//! | `cli` | | the program `convrelu` | `std`, `rayon`, `onnx`, and the crates `clap`, `indicatif`, `minijinja`, `plotters`, `tracing`, `ctrlc`, `terminal_size`, `libc` |

#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

pub mod adarelu;
mod arith;
mod backward_input;
mod backward_weight;
mod blocking;
mod border;
mod calls;
#[cfg(feature = "capi-plain")]
#[cfg_attr(docsrs, doc(cfg(feature = "capi")))]
#[allow(unsafe_code)]
pub mod capi;
mod depthwise;
mod desc;
mod error;
mod forward;
mod geometry;
#[cfg(any(doc, doctest))]
pub mod guide;
mod isa;
#[allow(unsafe_code)]
mod kernel;
mod layout;
#[cfg(feature = "std")]
mod matmul;
mod operands;
mod pass;
mod pixels;
mod plan;
pub mod reference;
mod stage;
mod strided;
mod sums;
mod taps;
mod threads;
mod thresholds;
mod tiny;
#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub mod train;
pub mod transposed;
mod tuning;
mod weight;
mod workspace;

pub use desc::{ConvDesc, ConvDescBuilder};
pub use error::Error;
pub use isa::{Isa, ParseIsaError};
#[cfg(feature = "internal-testing")]
#[doc(hidden)]
pub use kernel::Tiles;
pub use layout::Layout;
pub use operands::{
    Accumulation, BackwardInput, BackwardWeight, Epilogue, Forward, Gradient, InputGradients, Pass, Residual,
    Thresholds, Weight, WeightGradients,
};
pub use plan::ConvRelu;
#[cfg(feature = "rayon")]
pub use threads::Rayon;
pub use threads::{Executor, Serial};
#[cfg(feature = "internal-testing")]
#[doc(hidden)]
pub use tuning::{BackwardInputAlgorithm, ForwardAlgorithm, Tuning};
pub use weight::PackedWeight;

/// The README's example in Rust runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
