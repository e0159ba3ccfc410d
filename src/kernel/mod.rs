//! Micro-kernels, once over a SIMD vocabulary, and the table that names them per instruction set.
//!
//! The only module with unsafe code. What it offers the layers above is safe: every entry checks the lengths of its
//! slices against its shape before it follows a pointer, and entries are reached only through the [`Kernels`] that
//! [`Isa::kernels`] hands out where the instruction set is available.
//!
//! # Another element type
//!
//! Everything is f32 so far. A second one (bf16, int8) enters as a type parameter, from the bottom up:
//!
//! - [`Vector`] gets an element trait with the operand's type in memory, its vectors, how they are loaded and broadcast,
//!   and the multiply-add into its accumulator (f32 for bf16, i32 for int8, both of which may take two or four steps of
//!   the sum at a time). Register tiles are counted in registers and lanes of the accumulator, so their shapes stay.
//! - The calls (`ForwardPanel` and its siblings) and [`View`] get the same parameter: they hold slices, lengths in elements
//!   and strides in elements, never in bytes.
//! - [`Kernels`] is made per (instruction set, element type), for the lanes and the most steps differ; `kernels!` lists the
//!   entries of both.
//! - Above, `ConvRelu` names the element type in its plan and packs weights in groups of as many steps as one
//!   multiply-add takes ([`crate::weight`]); geometry ([`crate::taps`], [`crate::blocking`]) does not know of elements at all.

mod copy;
mod depthwise;
mod gather;
mod isa;
mod offsets;
mod outer;
mod pack;
mod planar;
mod product;
mod tile;
mod vector;
mod view;

pub(crate) use copy::{CopyBlock, TransposeBlock};
pub(crate) use depthwise::{
    ABSENT, DepthwiseBackwardInput, DepthwiseBackwardWeight, DepthwiseForward, Line, MOST_TAPS, Walk,
};
pub(crate) use gather::{GatherPanel, Pairs};
pub use isa::{Isa, ParseIsaError};
pub(crate) use offsets::Offsets;
pub(crate) use outer::WeightPanels;
pub(crate) use pack::{PatchColumns, PatchRows, Run};
pub(crate) use planar::{BackwardInputPanel, ForwardPanel, Runs};
pub(crate) use product::{Product, Rows, Start};
pub(crate) use view::{TileMut, Update, View};

use vector::Vector;

use crate::geometry::Widths;

/// Whether the build has vectors. Where it has none (microcontrollers), the algorithms that pay with vectors alone are
/// never planned, and their code is left out.
pub(crate) const VECTORS: bool =
    !matches!(Isa::BASELINE, Isa::Scalar) || cfg!(any(target_arch = "x86_64", feature = "internal-testing"));

/// The kernels of one instruction set and the tiles they work in.
#[derive(Debug)]
pub(crate) struct Kernels {
    /// Of the kernels; available, for only methods of [`Isa`] hand out tiles.
    pub(crate) isa: Isa,
    /// Lanes of a vector.
    pub(crate) lanes: usize,
    /// Channels of a panel with positions in lanes.
    pub(crate) panel: Widths,
    /// Most vectors of input channels per tile of the weight gradient.
    pub(crate) vectors: usize,
    rows: [Widths; 4],
    /// Most rows and vectors of a tile of a matrix product.
    pub(crate) product_rows: usize,
    pub(crate) product_vectors: usize,
    /// Most steps of a product, for its packed side to stay in the first-level cache.
    pub(crate) product_depth: usize,
}

/// Evaluates `$body` where `$S` names the vocabulary of an instruction set: the scalar one where the build has no other.
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
            #[cfg(feature = "internal-testing")]
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

/// Methods of [`Kernels`] that run a kernel. Calls are matched, not made through pointers in a table: a program links the
/// kernels of the passes that it calls, and no others.
macro_rules! kernels {
    ($($name:ident($call:ident) is $module:ident::$entry:ident;)*) => {
        impl Kernels {
            $(pub(crate) fn $name(&self, call: $call<'_>) {
                // SAFETY: the instruction set is available: `self` came from `Isa::kernels`, `best_kernels` or `BASELINE_KERNELS`.
                with_vocabulary!(self.isa, S => unsafe { $module::$entry::<S>(call) })
            })*
        }
    };
}

kernels! {
    forward(ForwardPanel) is planar::forward;
    backward_input(BackwardInputPanel) is planar::backward_input;
    backward_weight(WeightPanels) is outer::backward_weight;
    product(Product) is product::product;
    pack_columns(PatchColumns) is pack::columns;
    pack_rows(PatchRows) is pack::rows;
    gather(GatherPanel) is gather::gather;
    copy(CopyBlock) is copy::copy;
    transpose(TransposeBlock) is copy::transpose;
    depthwise_forward(DepthwiseForward) is depthwise::forward;
    depthwise_backward_input(DepthwiseBackwardInput) is depthwise::backward_input;
    depthwise_backward_weight(DepthwiseBackwardWeight) is depthwise::backward_weight;
}

impl Kernels {
    const fn of<S: Vector>() -> Self {
        Self {
            isa: S::ISA,
            lanes: S::LANES,
            panel: planar::panel_widths::<S>(),
            vectors: outer::most_vectors::<S>(),
            rows: [Widths::new(0, 0), outer::row_widths::<S>(1), outer::row_widths::<S>(2), outer::row_widths::<S>(3)],
            product_rows: product::most_rows::<S>(),
            product_vectors: product::most_vectors::<S>(),
            product_depth: product::most_steps::<S>(),
        }
    }

    /// Output channels of a tile of the weight gradient with `vectors` vectors of input channels.
    pub(crate) const fn rows(&self, vectors: usize) -> Widths {
        self.rows[vectors]
    }
}

impl Isa {
    /// The kernels of [`Isa::BASELINE`].
    pub(crate) const BASELINE_KERNELS: &'static Kernels = Self::BASELINE.kernels_if_available();

    /// The kernels of [`Isa::detect`].
    pub(crate) fn best_kernels() -> &'static Kernels {
        Self::detect().kernels_if_available()
    }

    /// The kernels of this instruction set, if it is available.
    pub(crate) fn kernels(self) -> Option<&'static Kernels> {
        self.is_available().then(|| self.kernels_if_available())
    }

    /// The kernels of an instruction set that the caller has seen available.
    const fn kernels_if_available(self) -> &'static Kernels {
        with_vocabulary!(self, S => const { &Kernels::of::<S>() })
    }
}
