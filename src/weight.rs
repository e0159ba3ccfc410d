//! Packed weights.
/// Weights packed by [`ConvRelu::pack_weight`](crate::ConvRelu::pack_weight).
#[derive(Clone, Copy, Debug)]
pub struct PackedWeight<'a> {
    pub(crate) data: &'a [f32],
}
