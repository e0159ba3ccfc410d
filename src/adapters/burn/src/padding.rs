//! burn's padding configurations as zeros before and after each axis.

use burn::nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};

/// A padding configuration of `R` axes.
pub(crate) trait Padding<const R: usize> {
    /// Zeros before and after each axis.
    fn pairs(&self, input: [usize; R], window: Window<R>) -> [(usize, usize); R];
}

/// What a layer reads at once, and its steps.
#[derive(Clone, Copy)]
pub(crate) struct Window<const R: usize> {
    pub(crate) kernel: [usize; R],
    pub(crate) stride: [usize; R],
}

impl<const R: usize> Window<R> {
    /// Zeros that leave `⌈input / stride⌉` positions; an odd one goes behind. As burn has it, taps are taken to be dense.
    fn same(&self, input: [usize; R]) -> [(usize, usize); R] {
        std::array::from_fn(|axis| {
            let (kernel, stride) = (self.kernel[axis], self.stride[axis]);
            let positions = input[axis].div_ceil(stride);
            let total = (positions.saturating_sub(1) * stride + kernel).saturating_sub(input[axis]);
            (total / 2, total - total / 2)
        })
    }
}

impl Padding<1> for PaddingConfig1d {
    fn pairs(&self, input: [usize; 1], window: Window<1>) -> [(usize, usize); 1] {
        match *self {
            Self::Valid => [(0, 0)],
            Self::Same => window.same(input),
            Self::Explicit(left, right) => [(left, right)],
        }
    }
}

impl Padding<2> for PaddingConfig2d {
    fn pairs(&self, input: [usize; 2], window: Window<2>) -> [(usize, usize); 2] {
        match *self {
            Self::Valid => [(0, 0); 2],
            Self::Same => window.same(input),
            Self::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
        }
    }
}

impl Padding<3> for PaddingConfig3d {
    fn pairs(&self, input: [usize; 3], window: Window<3>) -> [(usize, usize); 3] {
        match *self {
            Self::Valid => [(0, 0); 3],
            Self::Same => window.same(input),
            Self::Explicit(depth, height, width) => [depth, height, width].map(|padding| (padding, padding)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_keeps_the_size() {
        for (input, kernel, stride) in [(8, 3, 1), (8, 4, 1), (9, 3, 2), (8, 2, 3), (5, 1, 2), (1, 5, 1)] {
            let [(before, after)] = PaddingConfig1d::Same.pairs([input], Window { kernel: [kernel], stride: [stride] });
            let padded: usize = input + before + after;
            assert_eq!((padded - kernel) / stride + 1, input.div_ceil(stride), "{input} {kernel} {stride}");
            assert!(after - before <= 1);
        }
    }

    #[test]
    fn explicit_sides_keep_their_places() {
        let window = Window { kernel: [3, 3], stride: [1, 1] };
        assert_eq!(PaddingConfig2d::Explicit(1, 2, 3, 4).pairs([8, 8], window), [(1, 3), (2, 4)]);
        assert_eq!(PaddingConfig2d::Valid.pairs([8, 8], window), [(0, 0); 2]);
        let window = Window { kernel: [3; 3], stride: [1; 3] };
        assert_eq!(PaddingConfig3d::Explicit(1, 2, 3).pairs([8; 3], window), [(1, 1), (2, 2), (3, 3)]);
    }
}
