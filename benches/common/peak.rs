//! How fast one core multiplies and adds: the roof of every kernel.

use std::hint::black_box;

use convrelu::Isa;
use pulp::{Simd, WithSimd};

/// Independent accumulators: enough to hide the latency of two multiply-adds per cycle, few enough for 16 registers.
const ACCUMULATORS: usize = 12;

/// Multiply-adds per accumulator in one call.
const DEPTH: usize = 20_000;

struct MultiplyAdd;

impl WithSimd for MultiplyAdd {
    type Output = f64;

    /// Returns the floating-point operations done.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let (a, b) = (simd.splat_f32s(black_box(0.5)), simd.splat_f32s(black_box(1.0)));
        let mut sums = [simd.splat_f32s(0.0); ACCUMULATORS];
        for _ in 0..DEPTH {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, a, b);
            }
        }
        for sum in sums {
            black_box(simd.reduce_sum_f32s(sum));
        }
        2.0 * (DEPTH * ACCUMULATORS * S::F32_LANES) as f64
    }
}

/// A loop of fused multiply-adds in registers that returns how many floating-point operations it was; `None` where
/// the instruction set is not available, and for `scalar`, whose roof is what the compiler makes of each loop.
pub(crate) fn multiply_adds(isa: Isa) -> Option<fn() -> f64> {
    fn on<S: Simd>(token: fn() -> Option<S>) -> f64 {
        token().map_or(0.0, |simd| simd.vectorize(Dispatched(simd)))
    }
    if !isa.is_available() {
        return None;
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Some(|| on(pulp::x86::V3::try_new)),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Some(|| on(pulp::x86::V4::try_new)),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Some(|| on(pulp::aarch64::Neon::try_new)),
        _ => None,
    }
}

/// [`MultiplyAdd`] inside the target features of a token.
struct Dispatched<S>(S);

impl<S: Simd> pulp::NullaryFnOnce for Dispatched<S> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        MultiplyAdd.with_simd(self.0)
    }
}
