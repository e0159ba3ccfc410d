//! Arithmetic on sizes in `const fn`, where the methods of `Ord` cannot be called. Plans are constants where the sizes of static
//! buffers follow from them.

pub(crate) const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

pub(crate) const fn max(a: usize, b: usize) -> usize {
    if a < b { b } else { a }
}

/// `value`, or the nearer bound if it lies outside of `low..=high`. `low` is at most `high`.
pub(crate) const fn clamp(value: usize, low: usize, high: usize) -> usize {
    max(low, min(value, high))
}

/// The greatest common divisor.
pub(crate) const fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Product of three extents; saturates.
pub(crate) const fn product([a, b, c]: [usize; 3]) -> usize {
    a.saturating_mul(b).saturating_mul(c)
}

/// Whether two sizes or positions are equal.
pub(crate) const fn equal(a: [usize; 3], b: [usize; 3]) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2]
}
