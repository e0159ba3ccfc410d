//! Random layers and numbers.

use candle_core::{Device, Tensor};
use convrelu::ConvDesc;
use convrelu_candle::Options;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// A source of numbers that are the same in every run.
pub(crate) fn source(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Numbers from −1 to 1.
pub(crate) fn numbers(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| 2.0 * rng.random::<f32>() - 1.0).collect()
}

/// A tensor of numbers from −1 to 1.
pub(crate) fn tensor(rng: &mut ChaCha8Rng, shape: &[usize]) -> Tensor {
    Tensor::from_vec(numbers(rng, shape.iter().product()), shape, &Device::Cpu).unwrap()
}

/// The elements of a tensor of 32 bits.
pub(crate) fn elements(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// A layer of `R` spatial axes.
#[derive(Clone, Debug)]
pub(crate) struct Layer<const R: usize> {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) size: [usize; R],
    pub(crate) kernel: [usize; R],
    pub(crate) options: Options<R>,
}

impl<const R: usize> Layer<R> {
    /// One that has outputs: dense, in groups or depthwise; axes differ in everything, and so do the ends of each.
    pub(crate) fn random(rng: &mut ChaCha8Rng) -> Self {
        loop {
            let per_group = [rng.random_range(1..=5), rng.random_range(1..=5)];
            let (groups, per_group) = match rng.random_range(0..4) {
                0 => (rng.random_range(2..=4), per_group),
                1 => (rng.random_range(2..=20), [1, rng.random_range(1..=2)]),
                _ => (1, per_group.map(|channels| channels * rng.random_range(1..=6))),
            };
            let most = [24, 11, 6][R - 1];
            let mut axes = |least, most: usize| std::array::from_fn(|_| rng.random_range(least..=most));
            let (size, kernel) = (axes(1, most), axes(1, 4));
            let options = Options {
                stride: axes(1, 3),
                padding_before: axes(0, 3),
                padding_after: axes(0, 3),
                dilation: axes(1, 2),
                groups,
            };
            let batch = rng.random_range(1..=3);
            let [in_channels, out_channels] = per_group.map(|channels| groups * channels);
            let layer = Self { batch, in_channels, out_channels, size, kernel, options };
            if layer.has_outputs() {
                return layer;
            }
        }
    }

    fn has_outputs(&self) -> bool {
        let Options { padding_before, padding_after, dilation, .. } = self.options;
        (0..R).all(|axis| {
            let padded = self.size[axis] + padding_before[axis] + padding_after[axis];
            dilation[axis] * (self.kernel[axis] - 1) < padded
        })
    }

    pub(crate) fn input_shape(&self) -> Vec<usize> {
        [&[self.batch, self.in_channels], &self.size[..]].concat()
    }

    pub(crate) fn weight_shape(&self) -> Vec<usize> {
        [&[self.out_channels, self.in_channels / self.options.groups], &self.kernel[..]].concat()
    }

    pub(crate) fn threshold_shape(&self) -> Vec<usize> {
        [&[self.in_channels], &self.kernel[..]].concat()
    }

    pub(crate) fn desc(&self) -> ConvDesc {
        let three = |numbers: [usize; R], missing| {
            let mut all = [missing; 3];
            all[3 - R..].copy_from_slice(&numbers);
            all
        };
        let Options { stride, padding_before, padding_after, dilation, groups } = self.options;
        let (size, kernel) = (three(self.size, 1), three(self.kernel, 1));
        ConvDesc::conv3d(self.batch, self.in_channels, self.out_channels, size, kernel)
            .stride(three(stride, 1))
            .padding_before_after(three(padding_before, 0), three(padding_after, 0))
            .dilation(three(dilation, 1))
            .groups(groups)
            .build()
            .unwrap()
    }

    pub(crate) fn output_shape(&self) -> Vec<usize> {
        [&[self.batch, self.out_channels], &self.desc().output_size()[3 - R..]].concat()
    }
}
