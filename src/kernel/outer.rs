//! Kernel of the weight's gradient over staged input, with input channels in lanes: sums of outer products over positions.
//!
//! A tile is `ND` output channels by `NV` vectors of input channels at one tap. Each position costs `NV` loads, `ND`
//! broadcasts and `ND · NV` multiply-adds (AVX-512 8 × 3: 24 / 11, AVX2 6 × 2: 12 / 8, NEON 11 × 2, by lane: 22 / 5), and
//! one `max` per vector loaded. No sum crosses lanes, and only valid positions are visited.

use super::Kernel;
use super::offsets::Offsets;
use super::tile::{Interleaved, Sums, add_products, few, framed, load, panel_widths, unrolled, with_const};
use super::vector::Vector;
use crate::arith::min;
use crate::geometry::{Panels, Widths};

/// `grad_weight[d][l] += Σ_p grad_output[p][d] · f(input[position[p] + l]; θ[l])` for one tap, `l` over `vectors` vectors of input
/// channels, `d` over panels of output channels.
pub(crate) struct WeightPanels<'a> {
    /// Staged input, from where the first position of the block reads through the tap.
    pub(crate) input: &'a [f32],
    /// The offsets of the positions in the input.
    pub(crate) positions: Offsets<'a>,
    /// `[panel][position][channel of the panel]`.
    pub(crate) grad_output: &'a [f32],
    /// One per lane.
    pub(crate) thresholds: &'a [f32],
    /// Output channels, in panels of [`Kernels::rows`](super::Kernels::rows).
    pub(crate) panels: Panels,
    /// Vectors of input channels, at most [`Kernels::vectors`](super::Kernels::vectors).
    pub(crate) vectors: usize,
    /// `[channel][lane]`. The kernel adds to it.
    pub(crate) grad_weight: &'a mut [f32],
}

/// Most vectors of input channels in a tile. If registers hold several gradients (NEON), none is left for the thresholds of a
/// third vector.
pub(super) const fn most_vectors<S: Vector>() -> usize {
    if S::REGISTERS >= 32 && S::AT_HAND == 1 && !S::FEW_TILES { 3 } else { 2 }
}

/// Output channels in a tile with `vectors` vectors of input channels. Accumulators, the vectors and two broadcasts must fit the
/// register file. With more than 24 accumulators, a panel of output gradients would be larger than its share of the cache.
pub(super) const fn row_widths<S: Vector>(vectors: usize) -> Widths {
    if S::FEW_TILES {
        return panel_widths::<S>();
    }
    // With twelve rows, and with several gradients in registers, NEON would lack one register.
    let widest = if S::AT_HAND == 1 { 12 } else { 11 };
    let most = min(min((S::REGISTERS - vectors - 2) / vectors, 24 / vectors), widest);
    Widths::new(most, most)
}

impl Kernel for WeightPanels<'_> {
    fn check<S: Vector>(&self) {
        let lanes = self.vectors * S::LANES;
        assert!((1..=most_vectors::<S>()).contains(&self.vectors));
        // A panel that is not the widest is one channel narrower.
        let (rows, most) = (row_widths::<S>(self.vectors), self.panels.max());
        assert!(rows.contains(most) && (most == self.panels.min() || rows.contains(most - 1)));
        assert!(self.positions.max().saturating_add(lanes) <= self.input.len() && lanes <= self.thresholds.len());
        assert!(self.positions.table().len().saturating_mul(self.panels.len()) <= self.grad_output.len());
        assert!(self.panels.len().saturating_mul(lanes) <= self.grad_weight.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(mut self, simd: S) {
        for panel in 0..self.panels.count() {
            let channels = self.panels.get(panel);
            with_const!(self.vectors, NV in [1 2 3] if NV <= most_vectors::<S>() => {
                with_const!(channels.len(), ND in [1 2 3 4 5 6 7 8 9 10 11 12] if row_widths::<S>(NV).contains(ND) => {
                    // SAFETY: checked; the panel has `ND` channels.
                    framed!(simd => unsafe { outer_product::<S, ND, NV>(simd, &mut self, channels.start) });
                })
            });
        }
    }
}

/// # Safety
///
/// The call is [checked](Kernel#checked) and has `NV` vectors; `first` begins a panel of `ND` channels.
#[inline(always)]
unsafe fn outer_product<S: Vector, const ND: usize, const NV: usize>(
    simd: S,
    call: &mut WeightPanels<'_>,
    first: usize,
) {
    let mut sums = [[simd.splat_f32s(0.0); NV]; ND];
    // SAFETY: checked: a threshold per lane.
    let thetas = unsafe { load::<S, NV>(simd, call.thresholds.as_ptr()) };
    let (trips, rest) = call.positions.trips::<S>();
    // SAFETY: checked: panels hold one gradient per position and channel, and the panels before this one have `first` channels.
    let mut g = unsafe { call.grad_output.as_ptr().add(first * call.positions.table().len()) };
    let input = call.input.as_ptr();
    for trip in trips {
        unrolled!(STEP in 0..S::STEPS => {
            // SAFETY: checked: the vectors at the largest position, and `ND` gradients for each.
            unsafe { add_position(simd, &mut sums, thetas, input.add(trip[STEP] as usize), g) };
            g = g.wrapping_add(ND);
        });
    }
    for &position in rest {
        // SAFETY: checked: the vectors at the largest position, and `ND` gradients for each.
        unsafe { add_position(simd, &mut sums, thetas, input.add(position as usize), g) };
        g = g.wrapping_add(ND);
    }
    // SAFETY: checked: there is one gradient per channel and lane, and the panels before this one have `first` channels.
    let to = unsafe { call.grad_weight.as_mut_ptr().add(first * NV * S::LANES) };
    unrolled!(D in 0..ND => {
        // SAFETY: checked: the panel has `ND` channels, so channel `D` has a gradient per lane too.
        unsafe {
            let to = to.add(D * NV * S::LANES);
            let before = load::<S, NV>(simd, to);
            few!(V in 0..NV => simd.store(to.add(V * S::LANES), simd.add_f32s(before[V], sums[D][V])));
        }
    });
}

/// `sums[d][v] += g[d] · f(x[v]; θ[v])`
///
/// # Safety
///
/// [In reach](Vector#in-reach): `NV` vectors at `x` and `ND` gradients at `g`.
#[inline(always)]
unsafe fn add_position<S: Vector, const ND: usize, const NV: usize>(
    simd: S,
    sums: &mut Sums<S, ND, NV>,
    thetas: [S::f32s; NV],
    x: *const f32,
    g: *const f32,
) {
    // SAFETY: in reach: what is loaded from `x`, and the rows at `g`.
    unsafe {
        let mut x = load::<S, NV>(simd, x);
        few!(V in 0..NV => x[V] = simd.activate(x[V], thetas[V]));
        add_products(simd, sums, Interleaved::<ND>(g), x);
    }
}
