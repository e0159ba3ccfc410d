//! Micro-kernels, once over a SIMD vocabulary, and the table that names them per instruction set.
//!
//! The only module with unsafe code. What it offers the layers above is safe: every entry checks the lengths of its
//! slices against its shape before it follows a pointer, and entries are reached only through [`Isa::tiles`], which
//! hands out an instruction set's table where that instruction set is available.

mod copy;
mod depthwise;
mod gather;
mod isa;
mod offsets;
mod outer;
mod pack;
mod planar;
mod product;
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

/// The kernels of one instruction set and the tiles they work in.
pub(crate) struct Tiles {
    /// Lanes of a vector.
    pub(crate) lanes: usize,
    /// Most channels per panel with positions in lanes.
    pub(crate) panel: usize,
    /// Most vectors of input channels per tile of the weight gradient.
    pub(crate) vectors: usize,
    rows: [usize; 4],
    /// Most rows and vectors of a tile of a matrix product.
    pub(crate) product_rows: usize,
    pub(crate) product_vectors: usize,
    /// Most steps of a product, for its packed side to stay in the first-level cache.
    pub(crate) product_depth: usize,
    // Unsafe to call where the instruction set is missing, so private: see `Isa::tiles`.
    forward: unsafe fn(ForwardPanel<'_>),
    backward_input: unsafe fn(BackwardInputPanel<'_>),
    backward_weight: unsafe fn(WeightPanels<'_>),
    product: unsafe fn(Product<'_>),
    pack_columns: unsafe fn(PatchColumns<'_>),
    pack_rows: unsafe fn(PatchRows<'_>),
    gather: unsafe fn(GatherPanel<'_>),
    copy: unsafe fn(CopyBlock<'_>),
    depthwise_forward: unsafe fn(DepthwiseForward<'_>),
    depthwise_backward_input: unsafe fn(DepthwiseBackwardInput<'_>),
    depthwise_backward_weight: unsafe fn(DepthwiseBackwardWeight<'_>),
    transpose: unsafe fn(TransposeBlock<'_>),
}

impl Tiles {
    const fn of<S: Vector>() -> Self {
        Self {
            lanes: S::LANES,
            panel: S::PANEL,
            vectors: outer::most_vectors::<S>(),
            rows: [0, outer::most_rows::<S>(1), outer::most_rows::<S>(2), outer::most_rows::<S>(3)],
            forward: planar::forward::<S>,
            backward_input: planar::backward_input::<S>,
            backward_weight: outer::backward_weight::<S>,
            product_rows: product::most_rows::<S>(),
            product_vectors: product::most_vectors::<S>(),
            product_depth: product::most_steps::<S>(),
            product: product::product::<S>,
            pack_columns: pack::columns::<S>,
            pack_rows: pack::rows::<S>,
            gather: gather::gather::<S>,
            copy: copy::copy::<S>,
            depthwise_forward: depthwise::forward::<S>,
            depthwise_backward_input: depthwise::backward_input::<S>,
            depthwise_backward_weight: depthwise::backward_weight::<S>,
            transpose: copy::transpose::<S>,
        }
    }

    /// Most output channels per tile of the weight gradient with `vectors` vectors of input channels.
    pub(crate) fn rows(&self, vectors: usize) -> usize {
        self.rows[vectors]
    }

    pub(crate) fn forward(&self, panel: ForwardPanel<'_>) {
        // SAFETY: `self` came from `Isa::tiles`, which has seen the instruction set available.
        unsafe { (self.forward)(panel) }
    }

    pub(crate) fn backward_input(&self, panel: BackwardInputPanel<'_>) {
        // SAFETY: as in `forward`.
        unsafe { (self.backward_input)(panel) }
    }

    pub(crate) fn backward_weight(&self, tile: WeightPanels<'_>) {
        // SAFETY: as in `forward`.
        unsafe { (self.backward_weight)(tile) }
    }

    pub(crate) fn product(&self, product: Product<'_>) {
        // SAFETY: as in `forward`.
        unsafe { (self.product)(product) }
    }

    pub(crate) fn pack_columns(&self, patch: PatchColumns<'_>) {
        // SAFETY: as in `forward`.
        unsafe { (self.pack_columns)(patch) }
    }

    pub(crate) fn gather(&self, panel: GatherPanel<'_>) {
        // SAFETY: as in `forward`.
        unsafe { (self.gather)(panel) }
    }

    pub(crate) fn copy(&self, block: CopyBlock<'_>) {
        // SAFETY: as in `forward`.
        unsafe { (self.copy)(block) }
    }

    pub(crate) fn transpose(&self, block: TransposeBlock<'_>) {
        // SAFETY: as in `forward`.
        unsafe { (self.transpose)(block) }
    }

    pub(crate) fn depthwise_forward(&self, call: DepthwiseForward<'_>) {
        // SAFETY: as in `forward`.
        unsafe { (self.depthwise_forward)(call) }
    }

    pub(crate) fn depthwise_backward_input(&self, call: DepthwiseBackwardInput<'_>) {
        // SAFETY: as in `forward`.
        unsafe { (self.depthwise_backward_input)(call) }
    }

    pub(crate) fn depthwise_backward_weight(&self, call: DepthwiseBackwardWeight<'_>) {
        // SAFETY: as in `forward`.
        unsafe { (self.depthwise_backward_weight)(call) }
    }

    pub(crate) fn pack_rows(&self, patch: PatchRows<'_>) {
        // SAFETY: as in `forward`.
        unsafe { (self.pack_rows)(patch) }
    }
}

impl core::fmt::Debug for Tiles {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tiles").field("lanes", &self.lanes).field("panel", &self.panel).finish_non_exhaustive()
    }
}

impl Isa {
    /// [`Isa::detect`] with its kernels.
    pub(crate) fn best() -> (Self, &'static Tiles) {
        let detected = Self::detect();
        match detected.tiles() {
            Some(tiles) => (detected, tiles),
            None => (Self::Scalar, const { &Tiles::of::<pulp::Scalar>() }),
        }
    }

    /// The kernels of this instruction set, if it is available.
    pub(crate) fn tiles(self) -> Option<&'static Tiles> {
        if !self.is_available() {
            return None;
        }
        Some(match self {
            Self::Scalar => const { &Tiles::of::<pulp::Scalar>() },
            #[cfg(feature = "internal-testing")]
            Self::Emulated512 => const { &Tiles::of::<pulp::Scalar512b>() },
            #[cfg(target_arch = "aarch64")]
            Self::Neon => const { &Tiles::of::<pulp::aarch64::Neon>() },
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => const { &Tiles::of::<pulp::x86::V3>() },
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => const { &Tiles::of::<pulp::x86::V4>() },
            // Not available on this architecture, so not reached.
            #[allow(unreachable_patterns)]
            _ => return None,
        })
    }
}
