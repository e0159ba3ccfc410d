//! Clamped copies of short lines. The rows of a matrix of patches consist of such lines.

use super::Kernel;
use super::tile::{outlined, with_const};
use super::vector::Vector;
use crate::arith::min;
use crate::geometry::Lattice;

/// `to[p][i] = f(from[p][i]; θ[i])` for adjacent `i`, at the places of a lattice.
pub(crate) struct ClampLines<'a> {
    /// From the first place's line on.
    pub(crate) from: &'a [f32],
    /// The places of the lines, in `from` and in `to`.
    pub(crate) places: Lattice<2>,
    /// Elements of a line.
    pub(crate) len: usize,
    /// One per element of a line. None if the copies are not clamped.
    pub(crate) thresholds: Option<&'a [f32]>,
    pub(crate) to: &'a mut [f32],
}

impl Kernel for ClampLines<'_> {
    fn check<S: Vector>(&self) {
        let Self { from, places, len, thresholds, to } = self;
        assert!(*len >= 1 && places.len() >= 1);
        assert!(places.last(0).saturating_add(*len) <= from.len());
        assert!(places.last(1).saturating_add(*len) <= to.len());
        assert!(thresholds.is_none_or(|thresholds| *len <= thresholds.len()));
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        let to = self.to.as_mut_ptr();
        // SAFETY: checked.
        unsafe {
            match self.thresholds {
                Some(thetas) => lines::<S, true>(simd, self.from.as_ptr(), self.places, self.len, thetas.as_ptr(), to),
                None => lines::<S, false>(simd, self.from.as_ptr(), self.places, self.len, core::ptr::null(), to),
            }
        }
    }
}

/// # Safety
///
/// [In reach](Vector#in-reach): `len` elements at each of the places in both, and `len` thresholds where it clamps.
unsafe fn lines<S: Vector, const CLAMPS: bool>(
    simd: S,
    from: *const f32,
    places: Lattice<2>,
    len: usize,
    thetas: *const f32,
    to: *mut f32,
) {
    outlined!(simd => {
        let Lattice { counts: [na, nb, nc, count], steps: [source, target] } = places.joined();
        let mut line = 0;
        while line < na * nb * nc {
            let at = [line / (nb * nc), line / nc % nb, line % nc];
            let mut from = from.wrapping_add(at[0] * source[0] + at[1] * source[1] + at[2] * source[2]);
            let mut to = to.wrapping_add(at[0] * target[0] + at[1] * target[1] + at[2] * target[2]);
            let mut place = 0;
            while place < count {
                // SAFETY: in reach: one line at this place, in both.
                unsafe { clamp_line::<S, CLAMPS>(simd, from, thetas, len, to) };
                // `add` would be undefined behaviour here: after the last place, the pointers may lie beyond the slices.
                (from, to) = (from.wrapping_add(source[3]), to.wrapping_add(target[3]));
                place += 1;
            }
            line += 1;
        }
    });
}

/// `to[i] = f(from[i]; θ[i])`
///
/// # Safety
///
/// [In reach](Vector#in-reach): `len` elements of each, of the thresholds where it clamps. Source and target do not overlap.
#[inline(always)]
pub(super) unsafe fn clamp_line<S: Vector, const CLAMPS: bool>(
    simd: S,
    from: *const f32,
    thetas: *const f32,
    len: usize,
    to: *mut f32,
) {
    if len < S::LANES {
        if S::LANES <= 8 {
            // Two or three registers hold a line of at most seven elements. On most CPUs masked stores would take longer.
            // SAFETY: in reach: all elements.
            with_const!(len, N in [1 2 3 4 5 6 7] => unsafe { clamp_array::<N, CLAMPS>(from, thetas, to) });
            return;
        }
        // SAFETY: in reach: all elements.
        unsafe {
            let mut x = simd.load_first(from, len);
            if CLAMPS {
                x = simd.activate(x, simd.load_first(thetas, len));
            }
            simd.store_first(to, x, len);
        }
        return;
    }
    let mut i = 0;
    while i < len {
        // The last vector ends where the line ends, and may overlap the vector before it.
        let at = min(i, len - S::LANES);
        // SAFETY: in reach: a vector from element `at` on.
        unsafe {
            let x = simd.load(from.add(at));
            simd.store(to.add(at), if CLAMPS { simd.activate(x, simd.load(thetas.add(at))) } else { x });
        }
        i += S::LANES;
    }
}

/// [`clamp_line`] of `N` elements.
///
/// # Safety
///
/// [In reach](Vector#in-reach): `N` elements of each, of the thresholds where it clamps.
#[inline(always)]
unsafe fn clamp_array<const N: usize, const CLAMPS: bool>(from: *const f32, thetas: *const f32, to: *mut f32) {
    // SAFETY: in reach.
    unsafe {
        let mut x = from.cast::<[f32; N]>().read_unaligned();
        if CLAMPS {
            let thetas = thetas.cast::<[f32; N]>().read_unaligned();
            let mut i = 0;
            while i < N {
                // The comparison is false for a NaN, so the NaN stays.
                x[i] = if x[i] <= thetas[i] { thetas[i] } else { x[i] };
                i += 1;
            }
        }
        to.cast::<[f32; N]>().write_unaligned(x);
    }
}
