//! Gradients of inputs and thresholds, input channels in lanes.
//!
//! A tile is `R` inputs by `V` vectors of input channels at one tap: the sum over output channels runs like that of a
//! [`product`](super::product) with rows apart (`V` loads, `R` broadcasts, `R · V` multiply-adds per output channel; AVX-512
//! 12 × 2: 24 / 14, AVX2 6 × 2: 12 / 8, NEON 9 × 2, four steps of a row at a load: 18 / 4.25), then each accumulator is
//! masked by its input, 7 instructions per vector: with 12 output channels a quarter of the instructions, with 64 a
//! twentieth. Inputs that the tap does not read are not visited.

use super::Kernel;
use super::tile::{Separate, accumulate, framed, with_const};
use super::vector::{MOST_LANES, Vector, inputs_or_infinite};
use super::view::TileMut;
use crate::geometry::Panels;

/// Which row of the output's gradient each row of the input meets, with the largest of both: what a kernel's bounds
/// check needs to know about the table.
#[derive(Clone, Copy)]
pub(crate) struct Pairs<'a> {
    table: &'a [[u32; 2]],
    max: [usize; 2],
}

impl<'a> Pairs<'a> {
    /// Reads the table once.
    pub(crate) fn new(table: &'a [[u32; 2]]) -> Self {
        let mut max = [0; 2];
        for &[g, x] in table {
            max = [g.max(max[0]), x.max(max[1])];
        }
        Self { table, max: max.map(|max| max as usize) }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

/// One panel of input channels at one tap. With the sum over output channels
/// `G[r][l] = Σ_d grad_output[pair[r][0]][d] · weight[d][l]`:
///
/// ```text
/// grad_input[pair[r][1]][l]  += G[r][l] where input[pair[r][1]][l] > θ[l]
/// grad_thresholds[l]         += G[r][l] where input[pair[r][1]][l] ≤ θ[l]
/// ```
///
/// Without `input` the layer is linear, all thresholds are −∞: every input exceeds them, even NaN and −∞.
pub(crate) struct GatherPanel<'a> {
    pub(crate) pairs: Pairs<'a>,
    /// `[row][pitch]`
    pub(crate) grad_output: &'a [f32],
    pub(crate) grad_output_pitch: usize,
    /// Output channels to sum over.
    pub(crate) depth: usize,
    /// `[output channel][lane]`
    pub(crate) weight: &'a [f32],
    /// One per lane.
    pub(crate) thresholds: &'a [f32],
    /// Rows as far apart as those of `grad_input`.
    pub(crate) input: Option<&'a [f32]>,
    /// Added to, or replaced where there are pairs.
    pub(crate) grad_input: TileMut<'a>,
    pub(crate) replace: bool,
    /// One per lane, added to.
    pub(crate) grad_thresholds: &'a mut [f32],
    /// Most rows per tile.
    pub(crate) tile: usize,
}

/// Most rows of a tile: one more register for the zero that masks select, and one per row where several steps of each
/// are loaded together.
pub(super) const fn most_rows<S: Vector>(vectors: usize) -> usize {
    let per_row = if S::AT_HAND == 1 { vectors } else { vectors + 1 };
    let fit = (S::REGISTERS - 1 - vectors) / per_row;
    if fit < 12 { fit } else { 12 }
}

impl Kernel for GatherPanel<'_> {
    fn check<S: Vector>(&self) {
        let output = &self.grad_input;
        assert!((1..=2).contains(&output.count) && output.lanes == S::LANES && self.tile >= 1);
        let lanes = output.count * S::LANES;
        let [g, x] = self.pairs.max;
        assert!(self.pairs.len() == 0 || x < output.rows);
        assert!(g.saturating_mul(self.grad_output_pitch).saturating_add(self.depth) <= self.grad_output.len());
        if let Some(input) = self.input {
            assert!(x.saturating_mul(output.row_step).saturating_add(lanes) <= input.len());
        }
        assert!(self.depth.saturating_mul(lanes) <= self.weight.len());
        assert!(lanes <= self.thresholds.len() && lanes <= self.grad_thresholds.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(mut self, simd: S) {
        with_const!(self.grad_input.count, V in [1 2] => {
            // SAFETY: checked; the tile has `V` vectors.
            unsafe { walk::<S, V>(simd, &mut self) }
        });
    }
}

/// # Safety
///
/// The call is [checked](Kernel#checked), and its tile has `V` vectors.
#[inline(always)]
unsafe fn walk<S: Vector, const V: usize>(simd: S, panel: &mut GatherPanel<'_>) {
    let most = most_rows::<S>(V).min(panel.tile);
    let tiles = Panels::of_at_most(panel.pairs.len(), most);
    for index in 0..tiles.count() {
        let rows = tiles.get(index);
        with_const!(rows.len(), R in [1 2 3 4 5 6 7 8 9 10 11 12] if R <= most_rows::<S>(V) => {
            // SAFETY: checked; `R` pairs follow the first of the tile.
            framed!(simd => unsafe { tile::<S, R, V>(simd, panel, rows.start) });
        });
    }
}

/// # Safety
///
/// The call is [checked](Kernel#checked), and its tile has `V` vectors; the table has `R` pairs from `first` on.
#[inline(always)]
unsafe fn tile<S: Vector, const R: usize, const V: usize>(simd: S, panel: &mut GatherPanel<'_>, first: usize) {
    let zero = simd.splat_f32s(0.0);
    let mut g = [panel.grad_output.as_ptr(); R];
    // SAFETY: checked: no row exceeds the largest of the table, and each has `depth` steps, as the weights have.
    unsafe {
        let pairs = panel.pairs.table.as_ptr().add(first);
        for (r, g) in g.iter_mut().enumerate() {
            *g = g.add((*pairs.add(r))[0] as usize * panel.grad_output_pitch);
        }
        let mut sums = [[zero; V]; R];
        accumulate(simd, &mut sums, Separate(g), panel.weight.as_ptr(), panel.depth);
        let mut offsets = [0; R];
        for (r, offset) in offsets.iter_mut().enumerate() {
            *offset = (*pairs.add(r))[1] as usize * panel.grad_input.row_step;
        }
        // One call per vector: as a loop around the rows it is too long to unroll, and sums that are indexed by a loop
        // live in memory all through the sum above.
        mask(simd, panel, &sums, &offsets, 0);
        if V == 2 {
            mask(simd, panel, &sums, &offsets, V - 1);
        }
    }
}

/// Adds the sums of vector `v` to both gradients.
///
/// # Safety
///
/// The call is [checked](Kernel#checked), and its tile has `V` vectors, of which `v` is one; the offsets are those of rows in
/// the table.
#[inline(always)]
unsafe fn mask<S: Vector, const R: usize, const V: usize>(
    simd: S,
    panel: &mut GatherPanel<'_>,
    sums: &[[S::f32s; V]; R],
    offsets: &[usize; R],
    v: usize,
) {
    let (x, look) = inputs_or_infinite(panel.input);
    // What is replaced is not read: it may lie in memory. A branch at each would cost more than an address.
    let zeros = [0.0; MOST_LANES];
    let keep = if panel.replace { 0 } else { usize::MAX };
    // SAFETY: checked: no row exceeds the largest of the table; what is added to lies at offset 0 if it is not the tile; and
    // what stands in for inputs has two vectors.
    unsafe {
        let theta = simd.load(panel.thresholds.as_ptr().add(v * S::LANES));
        let x = x.add(v * S::LANES);
        let to = panel.grad_input.vectors[v];
        let before = if panel.replace { zeros.as_ptr() } else { to };
        let mut held = simd.splat_f32s(0.0);
        for r in 0..R {
            let x = simd.load(x.add(offsets[r] & look));
            let passed = simd.keep(simd.greater_than_f32s(x, theta), sums[r][v]);
            simd.store(to.add(offsets[r]), simd.add_f32s(simd.load(before.add(offsets[r] & keep)), passed));
            held = simd.add_f32s(held, simd.keep(simd.less_than_or_equal_f32s(x, theta), sums[r][v]));
        }
        let to = panel.grad_thresholds.as_mut_ptr().add(v * S::LANES);
        simd.store(to, simd.add_f32s(simd.load(to), held));
    }
}
