pub(crate) const SEGMENT: usize = 8192;
pub(crate) const fn chain(positions: usize) -> usize {
    (if positions < SEGMENT { positions } else { SEGMENT }).saturating_add(positions.div_ceil(SEGMENT))
}
