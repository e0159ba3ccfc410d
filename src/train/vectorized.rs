//! Loops compiled for the widest vectors of the machine.

/// Defines functions whose loops the compiler vectorises for the best instruction set, which is chosen at run time. They hold
/// plain arithmetic in a fixed order and no fused multiply-add. So every instruction set computes the same bits.
///
/// Functions that the body calls must be `#[inline(always)]`. Others are compiled for the baseline.
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

/// Partial sums of a reduction. Their number changes the bits of the result, so it is the same on every machine.
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
