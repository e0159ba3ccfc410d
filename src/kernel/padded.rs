//! The part of a tap that reads padding: `Σ_c w[c] · max(0, θ[c])`. It is the same at every position.

use super::Kernel;
use super::vector::Vector;

/// `sums[l] = Σ_c weight[c][l] · max(0, θ[c])`, without the terms where `θ ≤ 0`, whatever their weight.
pub(crate) struct PaddedTap<'a> {
    /// `[channel][lane]`
    pub(crate) weight: &'a [f32],
    pub(crate) thresholds: &'a [f32],
    /// Whole vectors.
    pub(crate) sums: &'a mut [f32],
}

impl Kernel for PaddedTap<'_> {
    fn check<S: Vector>(&self) {
        assert!(self.sums.len().is_multiple_of(S::LANES));
        assert!(self.sums.len().saturating_mul(self.thresholds.len()) <= self.weight.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        let pitch = self.sums.len();
        let zero = simd.splat_f32s(0.0);
        for lane in (0..pitch).step_by(S::LANES) {
            // Four chains of additions. In a single chain, each addition would wait for the one before.
            let mut sums = [zero; 4];
            for (quad, thresholds) in self.thresholds.chunks(4).enumerate() {
                for (c, (sum, theta)) in sums.iter_mut().zip(thresholds).enumerate() {
                    let theta = simd.splat_f32s(*theta);
                    // SAFETY: checked: there are as many channels as thresholds, each with whole vectors of `pitch` lanes.
                    let weight = unsafe { simd.load(self.weight.as_ptr().add((4 * quad + c) * pitch + lane)) };
                    // Without the mask, an infinite weight times zero would be NaN.
                    let weight = simd.keep(simd.greater_than_f32s(theta, zero), weight);
                    let theta = simd.keep(simd.greater_than_f32s(theta, zero), theta);
                    *sum = simd.mul_add(theta, weight, *sum);
                }
            }
            let [a, b, c, d] = sums;
            let sum = simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d));
            // SAFETY: checked: the vector is one of the sums'.
            unsafe { simd.store(self.sums.as_mut_ptr().add(lane), sum) };
        }
    }
}
