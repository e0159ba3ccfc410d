//! Kernels, written once over a SIMD vocabulary and compiled for each instruction set.
//!
//! This is the only module of the core with unsafe code, apart from the C interface. Its functions are safe to call. Every call
//! checks the lengths of its slices against its shape before it follows a pointer ([`Kernel`]). And calls go through [`Kernels`],
//! which exist only for instruction sets that are available ([`Available`]).
//!
//! # Another element type
//!
//! All elements are f32 so far. A second type (bf16, int8) would become a type parameter, from the bottom up:
//!
//! - [`Vector`] gets an element trait: the operand's type in memory, its vectors, how they are loaded and broadcast, and the
//!   multiply-add into the accumulator (f32 for bf16, i32 for int8). One multiply-add may take two or four steps of the sum.
//!   Tiles are counted in registers and lanes of the accumulator, so their shapes stay.
//! - The calls (`ForwardPanels` and its siblings) and [`View`] get the same parameter. They already count lengths and strides in
//!   elements, not in bytes.
//! - [`Kernels`] exists for each pair of instruction set and element type, because the numbers of lanes and steps differ.
//!   `kernels!` lists the calls of both types.
//! - `ConvRelu` names the element type in its plan, and [`crate::weight`] packs weights in groups of as many steps as one
//!   multiply-add takes. The geometry ([`crate::taps`], [`crate::blocking`]) does not depend on the type.

mod batch_reduce;
mod copy;
#[cfg(all(target_has_atomic = "8", not(target_os = "none")))]
mod deal;
mod depthwise;
mod detect;
mod epilogue;
mod lines;
mod masked;
mod offsets;
mod outer;
mod padded;
mod planar;
#[cfg(feature = "internal-testing")]
mod seen;
mod stripe;
mod tile;
mod vector;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use batch_reduce::{BatchReduce, packed_len};
pub(crate) use copy::{CopyBlock, TransposeBlock};
#[cfg(all(target_has_atomic = "8", not(target_os = "none")))]
pub(crate) use deal::Deal;
pub(crate) use depthwise::{
    DepthwiseBackwardInput, DepthwiseBackwardWeight, DepthwiseForward, Inputs, Line, MOST_TAPS as MOST_SEGMENT_TAPS,
    Own, Segment, SegmentWords, Thetas, Walk,
};
pub(crate) use epilogue::{Epilogue, FinishRows, Residual, made as epilogues_made, make as make_epilogues};
pub(crate) use lines::ClampLines;
pub(crate) use masked::{Mask, MaskedProducts};
pub(crate) use offsets::Offsets;
pub(crate) use outer::WeightPanels;
pub(crate) use padded::PaddedTap;
pub(crate) use planar::{BackwardInputPanels, ForwardPanels, PanelBlock, Positions};
#[cfg(feature = "internal-testing")]
pub use seen::Tiles;
pub(crate) use stripe::{PackTiles, StripeProducts, SumTiles};
pub(crate) use view::{RowsMut, View};

use pulp::{Simd, WithSimd};

use detect::Available;
use vector::Vector;

use crate::geometry::Widths;
use crate::isa::Isa;

/// Whether the build has vectors. Builds for microcontrollers have none: plans then never choose the algorithms that only pay
/// with vectors, and the compiler leaves their code out.
pub(crate) const VECTORS: bool =
    !matches!(Isa::BASELINE, Isa::Scalar) || cfg!(any(target_arch = "x86_64", feature = "internal-testing"));

/// The kernels of one instruction set, and the sizes of their tiles.
#[derive(Debug)]
pub(crate) struct Kernels {
    /// The instruction set. It is available, because only [`Available::kernels`] makes a `Kernels`.
    pub(crate) isa: Isa,
    /// Lanes of a vector.
    pub(crate) lanes: usize,
    /// Channels of a panel with positions in lanes.
    pub(crate) panel: Widths,
    /// Most vectors of input channels per tile of the weight gradient.
    pub(crate) vectors: usize,
    /// Most vectors of input channels per tile of [`MaskedProducts`].
    pub(crate) masked_vectors: usize,
    rows: [Widths; 4],
    /// Most output channels and vectors of input channels of a tile of the weight's gradient with channels last.
    pub(crate) stripe_rows: usize,
    pub(crate) stripe_vectors: usize,
    /// Most vectors of output channels in a tile over valid taps.
    pub(crate) channel_vectors: usize,
}

/// Evaluates `$body` with `$S` as the vocabulary of an instruction set. If the build does not have it, `$S` is the scalar one.
macro_rules! with_vocabulary {
    ($isa:expr, $S:ident => $body:expr) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                type $S = pulp::x86::V4;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                type $S = pulp::x86::V3;
                $body
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => {
                type $S = pulp::aarch64::Neon;
                $body
            }
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Isa::Simd128 => {
                type $S = pulp::wasm::Simd128;
                $body
            }
            #[cfg(all(feature = "internal-testing", target_arch = "x86_64"))]
            Isa::Emulated512 => {
                type $S = pulp::Scalar512b;
                $body
            }
            _ => {
                type $S = pulp::Scalar;
                $body
            }
        }
    };
}

#[cfg(feature = "internal-testing")]
use with_vocabulary;

/// The call of a kernel.
///
/// # Checked
///
/// A call is *checked* for the vocabulary `S` once [`check::<S>`](Self::check) has returned, for as long as nobody changes the
/// call. Then its slices hold all elements that its documentation says it reads, and it alone may write the elements that it says
/// it writes. Comments of unsafe blocks use the word *checked* for this.
trait Kernel {
    /// Asserts that the call's slices hold what it reads and writes.
    fn check<S: Vector>(&self);

    /// Computes what the call says.
    ///
    /// # Safety
    ///
    /// The call is [checked](Self#checked) for `S`.
    unsafe fn run<S: Vector>(self, simd: S);
}

/// Checks a call and runs it.
///
/// # Safety
///
/// The instruction set of `S` is [offered](Vector#offered).
unsafe fn run<S: Vector, K: Kernel>(call: K) {
    /// A [checked](Kernel#checked) call that runs in a function compiled with the instructions of `S`. Everything that it calls
    /// must be inlined: a function that is not inlined is compiled without these instructions.
    struct Checked<S, K> {
        simd: S,
        call: K,
    }

    impl<S: Vector, K: Kernel> WithSimd for Checked<S, K> {
        type Output = ();

        #[inline(always)]
        fn with_simd<T: Simd>(self, _: T) {
            // SAFETY: `run` has checked the call before it made this.
            unsafe { self.call.run(self.simd) }
        }
    }

    call.check::<S>();
    // SAFETY: offered, as this function asks.
    let simd = unsafe { S::token() };
    simd.vectorize(Checked { simd, call });
}

/// Methods of [`Kernels`] that check a call and run it. They select the instruction set by a `match`, not by pointers in a table.
/// So a program links only the kernels of the passes that it calls.
macro_rules! kernels {
    ($($name:ident($call:ident);)*) => {
        impl Kernels {
            $(pub(crate) fn $name(&self, call: $call<'_>) {
                // SAFETY: offered: only `Available::kernels` hands out a `Kernels`, and an `Available` exists only for an
                // instruction set that detection has found.
                with_vocabulary!(self.isa, S => unsafe { run::<S, _>(call) })
            })*
        }
    };
}

kernels! {
    batch_reduce(BatchReduce);
    forward(ForwardPanels);
    backward_input(BackwardInputPanels);
    backward_weight(WeightPanels);
    pack_tiles(PackTiles);
    stripe_products(StripeProducts);
    sum_tiles(SumTiles);
    padded_tap(PaddedTap);
    masked(MaskedProducts);
    copy(CopyBlock);
    clamp_lines(ClampLines);
    transpose(TransposeBlock);
    finish_rows(FinishRows);
    depthwise_forward(DepthwiseForward);
    depthwise_backward_input(DepthwiseBackwardInput);
    depthwise_backward_weight(DepthwiseBackwardWeight);
}

impl Kernels {
    const fn of<S: Vector>() -> Self {
        Self {
            isa: S::ISA,
            lanes: S::LANES,
            panel: tile::panel_widths::<S>(),
            vectors: outer::most_vectors::<S>(),
            masked_vectors: masked::most_vectors::<S>(),
            rows: [Widths::new(0, 0), outer::row_widths::<S>(1), outer::row_widths::<S>(2), outer::row_widths::<S>(3)],
            stripe_rows: stripe::most_rows::<S>(),
            stripe_vectors: stripe::most_vectors::<S>(),
            channel_vectors: batch_reduce::most_vectors::<S>(),
        }
    }

    /// Whether it pays to clamp an input once, rather than each time that it is loaded.
    pub(crate) fn maxima_cost_products(&self) -> bool {
        self.lanes > 1 && detect::maxima_cost_products()
    }

    /// Whether a vector of this instruction set costs as much as two of half its lanes.
    pub(crate) fn vectors_are_pairs(&self) -> bool {
        self.has_halves() && detect::splits_long_vectors()
    }

    /// Whether [`batch_reduce_halves`](Self::batch_reduce_halves) does more than [`batch_reduce`](Self::batch_reduce).
    pub(crate) const fn has_halves(&self) -> bool {
        matches!(self.isa, Isa::Avx512)
    }

    /// As [`batch_reduce`](Self::batch_reduce), with tiles of vectors of half the lanes. The call does not clamp once for all panels.
    /// These are a vector wide. Either there is one, without a channel in its second half, or the call clamps and each has one there.
    pub(crate) fn batch_reduce_halves(&self, call: BatchReduce<'_>) {
        #[cfg(target_arch = "x86_64")]
        if self.has_halves() {
            // SAFETY: offered: only `Available::kernels` hands out a `Kernels`, AVX-512 is available then, and includes AVX2.
            return unsafe { run::<pulp::x86::V3, _>(batch_reduce::Halves::new(call)) };
        }
        self.batch_reduce(call);
    }

    /// Output channels of a tile of the weight gradient with `vectors` vectors of input channels.
    pub(crate) const fn rows(&self, vectors: usize) -> Widths {
        self.rows[vectors]
    }
}

impl Available {
    /// The kernels of the instruction set.
    const fn kernels(self) -> &'static Kernels {
        with_vocabulary!(self.isa(), S => const { &Kernels::of::<S>() })
    }
}

impl Isa {
    /// The kernels of [`Isa::BASELINE`].
    pub(crate) const BASELINE_KERNELS: &'static Kernels = Available::BASELINE.kernels();

    /// The kernels of [`Isa::detect`].
    pub(crate) fn best_kernels() -> &'static Kernels {
        Available::best().kernels()
    }

    /// The kernels of this instruction set, if it is available.
    pub(crate) fn kernels(self) -> Option<&'static Kernels> {
        Available::new(self).map(Available::kernels)
    }
}
