//! Adaptive Convolutional ReLUs: convolution kernels with a trainable activation threshold per weight position.
//!
//! A ConvReLU layer (Gao, Cai, Ji: *Adaptive Convolutional ReLUs*, AAAI 2020) gives every input channel and kernel tap
//! its own threshold θ, shared over output channels and positions (eq. 8):
//!
//! ```text
//! y[i,j,d] = Σ_c Σ_a Σ_b w[a,b,c,d] · max(x[i+a, j+b, c], θ[a,b,c])
//! ```
//!
//! With θ = −∞ ([`Thresholds::LINEAR`]) it is a plain convolution, with θ = 0 ([`Thresholds::RELU`]) a ReLU followed by
//! one. This crate computes it in one, two and three dimensions, forward and backward, channels first or last, with SIMD
//! kernels chosen at run time, without the standard library and without allocating.
//!
//! # The architecture in one screen
//!
//! A call goes one way, and each room knows those below it only:
//!
//! ```text
//! above    transposed/          ConvTranspose: a transposed convolution is the gradient of the mirrored one
//! plan     plan.rs              ConvRelu: the plans of all passes
//! call     pass.rs              checks the operands (operands.rs), packs the weight (weight.rs)
//!   pass   forward/mod.rs       splits the work into tasks for the caller's executor (threads.rs)
//!     driver   forward/batch_reduce.rs  walks blocks of positions, panels of channels, classes of positions
//!       kernel   kernel/        one register tile after another, on the instruction set of the plan
//!
//! beside them: desc.rs, layout.rs   what the layer is, where its tensors lie
//!              geometry/            which positions read what: numbers only
//!              depthwise/           the drivers of all passes of layers with one channel per group, and their geometry
//!              thresholds.rs        θ by channel and tap
//!              pixels.rs            pixels with their channels together: a tensor's own, or transposed windows
//!              taps.rs, stage.rs    staged planes of blocks;  sums.rs  sums over positions in segments
//!              calls.rs             what drivers are given;  workspace.rs  their buffers
//!              tiny.rs              plain loops for layers that no driver pays for
//! ```
//!
//! The loops of a pass, outermost first (here the forward pass of most layers):
//!
//! ```text
//! for each task                                  its images, positions or panels      forward/mod.rs
//!   for each block of positions of some images   1 MiB of the input                  forward/batch_reduce.rs
//!     (channels first: its window is transposed  160 KiB)                             pixels.rs
//!     for each panel of output channels          its weights stay in L1 and L2
//!       for each class of positions              they have the same valid taps       geometry/class.rs
//!         for each tile of positions             accumulators in registers           kernel/batch_reduce.rs
//!           for each line of adjacent steps      a kernel row, or a tap
//!             for each (tap, input channel)      broadcasts, maxima, multiply-adds
//! ```
//!
//! What a new thing touches:
//!
//! | a new … | touches |
//! |---|---|
//! | instruction set | `isa.rs` (its name), `kernel/detect.rs`, `kernel/vector.rs` (its vocabulary), `with_vocabulary!` in `kernel/mod.rs` |
//! | element type | `kernel/` (its documentation says how), `weight.rs` |
//! | padding mode | `desc.rs`, `geometry/`, `stage.rs` (what padding holds), `border.rs` (gradients of padding) |
//! | layout | `layout.rs`, `pixels.rs`, `stage.rs`, `kernel/view.rs` |
//! | algorithm | a driver beside the others, its name in `tuning.rs`, the choice in `mod.rs` of its pass |
//!
//! # The paper's example
//!
//! Input `[2, 3, 4]`, weights `[1, −1]`, thresholds `[0, 3.5]`, no padding:
//!
//! ```
//! use convrelu::{ConvDesc, ConvRelu, Forward, Pass, Serial, Thresholds, Weight};
//!
//! let desc = ConvDesc::conv1d(1, 1, 1, [3], [2]).build()?;
//! let plan = ConvRelu::new(desc);
//! let mut workspace = vec![0.0; plan.workspace_len(Pass::Forward)];
//! let mut output = [0.0; 2];
//! let (weight, thresholds) = (Weight::Plain(&[1.0, -1.0]), Thresholds::PerTap(&[0.0, 3.5]));
//! let operands = Forward::new(&[2.0, 3.0, 4.0], weight, thresholds);
//! plan.forward(operands, &mut output, &mut workspace, &Serial)?;
//! assert_eq!(output, [-1.5, -1.0]);
//! # Ok::<(), convrelu::Error>(())
//! ```
//!
//! # How to use it
//!
//! 1. Describe the layer: [`ConvDesc::conv2d`] and its siblings, then [`build`](ConvDescBuilder::build).
//! 2. Plan it: [`ConvRelu::new`] picks the best instruction set of the machine, [`ConvRelu::with_isa`] forces one.
//! 3. Call [`forward`](ConvRelu::forward), [`backward_input`](ConvRelu::backward_input) (gradients of input and
//!    thresholds) and [`backward_weight`](ConvRelu::backward_weight) (of weight and bias) with your own buffers and a
//!    workspace of [`workspace_len`](ConvRelu::workspace_len) elements. Each gradient may be left out, and each replaces
//!    or adds to what its buffer holds ([`Gradient`]). For many calls with one weight, pack it with
//!    [`pack_weight`](ConvRelu::pack_weight) (forward) or [`pack_weight_transposed`](ConvRelu::pack_weight_transposed)
//!    (backward).
//! 4. For several threads, plan for them ([`with_threads`](ConvRelu::with_threads)) and hand the calls an [`Executor`] that
//!    has them: `Rayon` (feature `rayon`), or one of your own. [`Serial`] is the calling thread.
//!
//! Small programs stand where their calls are documented: [a plain convolution of a framework's tensors](ConvRelu::forward),
//! [inference with folded batch normalisation](ConvRelu::pack_weight), [training](ConvRelu::backward_weight).
//!
//! **Transposed convolutions** have plans and a builder of their own: [`transposed`].
//!
//! What follows a convolution may be part of it: an [`Epilogue`] scales and shifts each channel (batch normalisation), adds a
//! residual and clamps, before the sums reach memory.
//!
//! A tensor may be a range of channels of a wider one: [`input_pitch`](ConvDescBuilder::input_pitch),
//! [`output_pitch`](ConvDescBuilder::output_pitch).
//!
//! Buffers may lie anywhere. Tensors that begin at a multiple of 64 bytes are the fastest, for no vector of theirs crosses
//! cache lines that it need not; workspaces and packed weights see to it themselves.
//!
//! A call takes at most 64 KiB of stack. Where nothing is optimised, it takes at most 256 KiB.
//!
//! Mistakes come back as an [`Error`] that names the argument, its value and the rule. [`mod@reference`] is the same
//! mathematics as one plain loop, for tests of your own.
//!
//! # Semantics
//!
//! - `f(x; θ) = x` if `x > θ`, else `θ`. A **tie** sends its gradient to θ (eq. 6).
//! - **Padding** is zero before the activation: a padded tap contributes `w · max(0, θ)`, nothing at all where `θ ≤ 0`, and
//!   its gradient goes to θ where `θ ≥ 0`.
//! - [`Thresholds::LINEAR`], **uniformly −∞**, makes the layer linear: the gradient always goes to the input, which is not
//!   read. A uniform threshold has one gradient, the sum of all.
//! - A **NaN** in the input reaches exactly the outputs whose window holds it; going backward it passes its gradient to
//!   neither side. A NaN threshold is an error.
//! - Gradients that **sum over positions** (of weight, bias, thresholds) are sums of partial sums over segments of positions,
//!   so that millions of them round no worse than thousands ([`reference::gradient_error_bound`]).
//! - **Determinism**: the same plan gives the same bits, whatever the number of threads. Instruction sets differ by
//!   rounding, within [`reference::error_bound`].
//! - An **empty batch** is a no-op that still writes zero gradients.
//!
//! # Features
//!
//! | feature | default | what it adds | what it needs |
//! |---|---|---|---|
//! | none | | the kernels, `no_std` and without `alloc` | `pulp`, `bytemuck`, `libm` |
//! | `std` | yes | detection of the CPU through the operating system; the reference trainer `train` | `gemm` and crates for data sets, files and random numbers |
//! | `rayon` | | the executor `Rayon`: calls spread over the threads of the current pool | `rayon` |
//! | `capi` | | the C interface `capi`, `src/capi/convrelu.h` | what a panic does: `std`, where there is an operating system |
//! | `panic-handler` | | for a static library without operating system: a panic calls C's `abort` | `capi` |
//! | `onnx` | | trained networks as ONNX files, `train::onnx` | `std`, `prost` |
//! | `parquet` | | data sets as Parquet files, as the Hugging Face hub distributes them | `std`, `parquet` (with it `zstd`, which is C) |
//! | `cli` | | the program `convrelu` | `std`, `rayon`, `onnx`, crates for terminals and plots |
//!
//! # Instruction sets
//!
//! | [`Isa`] | lanes | chosen where |
//! |---|---|---|
//! | `avx512` | 16 | x86-64 with AVX-512 F, BW, CD, DQ, VL, enabled by the operating system |
//! | `avx2` | 8 | x86-64 with AVX2 and FMA, enabled by the operating system |
//! | `neon` | 4 | AArch64 |
//! | `simd128` | 4 | WebAssembly, in builds with the target feature `simd128` |
//! | `scalar` | 1 | everywhere |
//!
//! The kernels are one source, generic over these; detection happens once and then costs a load.

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
#[cfg(feature = "capi")]
#[cfg_attr(docsrs, doc(cfg(feature = "capi")))]
#[allow(unsafe_code)]
pub mod capi;
mod depthwise;
mod desc;
mod error;
mod forward;
mod geometry;
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

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
