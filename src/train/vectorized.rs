//! Loops compiled for the widest vectors of the machine.

/// Defines functions whose loops the compiler turns into vectors of the best instruction set, chosen at run time. They
/// hold plain arithmetic in a fixed order, never a fused multiply-add, so every instruction set computes the same bits.
///
/// What the body calls must be `#[inline(always)]`, or it is compiled for the baseline.
macro_rules! vectorized {
    ($($(#[$meta:meta])* $visibility:vis fn $name:ident<$life:lifetime>($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $visibility fn $name<$life>($($arg: $type),*) $(-> $result)? {
            struct Operation<$life> { $($arg: $type),* }
            impl<$life> pulp::WithSimd for Operation<$life> {
                type Output = vectorized!(@output $($result)?);
                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
                    let Self { $($arg),* } = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Operation { $($arg),* })
        }
    )*};
    (@output) => { () };
    (@output $result:ty) => { $result };
}
pub(super) use vectorized;

/// Partial sums of a reduction: their number is part of the result's bits, so it is the same on every machine.
pub(super) const LANES: usize = 16;

/// Sum of partial sums, by halves.
#[inline(always)]
pub(super) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}
