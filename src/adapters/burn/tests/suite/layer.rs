//! Random layers, and the functions of each rank under one name.

use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData, module};
use convrelu::ConvDesc;
use convrelu_burn::{self as ours, Error};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Numbers of a seed.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        self.0.random_range(low..=high)
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.0.random()
    }

    /// From −1 to 1.
    pub(crate) fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.0.random_range(-1.0..1.0)).collect()
    }

    /// Multiples of 0.25 from −1 to 1: many of them are equal.
    pub(crate) fn quarters(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.0.random_range(-4..=4) as f32 / 4.0).collect()
    }
}

/// A layer with `R` spatial axes.
#[derive(Clone, Debug)]
pub(crate) struct Layer<const R: usize> {
    pub(crate) batch: usize,
    pub(crate) channels: [usize; 2],
    pub(crate) size: [usize; R],
    pub(crate) kernel: [usize; R],
    pub(crate) bias: bool,
    pub(crate) options: ConvOptions<R>,
}

impl<const R: usize> Layer<R> {
    /// A small layer of any kind, whose kernel fits. A tenth of them is depthwise.
    pub(crate) fn random(random: &mut Random, asymmetric: bool) -> Self {
        let most = [40, 14, 7][R - 1];
        let depthwise = random.between(0, 9) == 0;
        let groups = if depthwise { random.between(1, 20) } else { [1, 1, 2, 3][random.between(0, 3)] };
        let (group_inputs, group_outputs) =
            if depthwise { (1, random.between(1, 2)) } else { (random.between(1, 9), random.between(1, 9)) };
        let kernel = [(); R].map(|()| random.between(1, 4));
        let dilation = [(); R].map(|()| [1, 1, 2, 3][random.between(0, 3)]);
        let stride = [(); R].map(|()| [1, 1, 2, 3][random.between(0, 3)]);
        let padding = [(); R].map(|()| {
            let before = random.between(0, 3);
            (before, if asymmetric { random.between(0, 3) } else { before })
        });
        let size = std::array::from_fn(|axis| {
            let reach = dilation[axis] * (kernel[axis] - 1) + 1;
            let padded = padding[axis].0 + padding[axis].1;
            random.between(reach.saturating_sub(padded).max(1), most.max(reach))
        });
        Self {
            batch: random.between(1, 3),
            channels: [groups * group_inputs, groups * group_outputs],
            size,
            kernel,
            bias: random.coin(),
            options: ConvOptions { stride, padding, dilation, groups },
        }
    }

    /// As convrelu describes it.
    pub(crate) fn desc(&self) -> ConvDesc {
        let three = |values: [usize; R], missing| {
            let mut all = [missing; 3];
            all[3 - R..].copy_from_slice(&values);
            all
        };
        let ([inputs, outputs], options) = (self.channels, &self.options);
        ConvDesc::conv3d(self.batch, inputs, outputs, three(self.size, 1), three(self.kernel, 1))
            .stride(three(options.stride, 1))
            .dilation(three(options.dilation, 1))
            .padding_before_after(three(options.padding_begin(), 0), three(options.padding_end(), 0))
            .groups(options.groups)
            .build()
            .unwrap()
    }

    pub(crate) fn shape<const N: usize>(first: &[usize], rest: &[usize; R]) -> [usize; N] {
        [first, rest].concat().try_into().unwrap()
    }

    pub(crate) fn input_shape<const D: usize>(&self) -> [usize; D] {
        Self::shape(&[self.batch, self.channels[0]], &self.size)
    }

    pub(crate) fn weight_shape<const D: usize>(&self) -> [usize; D] {
        Self::shape(&[self.channels[1], self.channels[0] / self.options.groups], &self.kernel)
    }

    pub(crate) fn threshold_shape<const T: usize>(&self) -> [usize; T] {
        Self::shape(&[self.channels[0]], &self.kernel)
    }
}

/// The functions of `R` spatial axes, ours and burn's.
pub(crate) trait Rank<const D: usize, const T: usize, const R: usize> {
    fn conv_relu(
        input: Tensor<D>,
        weight: Tensor<D>,
        thresholds: Tensor<T>,
        bias: Option<Tensor<1>>,
        options: ConvOptions<R>,
    ) -> Result<Tensor<D>, Error>;

    fn conv(
        x: Tensor<D>,
        weight: Tensor<D>,
        bias: Option<Tensor<1>>,
        options: ConvOptions<R>,
    ) -> Result<Tensor<D>, Error>;

    fn burns_own(x: Tensor<D>, weight: Tensor<D>, bias: Option<Tensor<1>>, options: ConvOptions<R>) -> Tensor<D>;
}

macro_rules! rank {
    ($Rank:ident, $D:literal, $T:literal, $R:literal, $conv_relu:ident, $try_conv:ident, $conv:ident) => {
        pub(crate) struct $Rank;

        impl Rank<$D, $T, $R> for $Rank {
            fn conv_relu(
                input: Tensor<$D>,
                weight: Tensor<$D>,
                thresholds: Tensor<$T>,
                bias: Option<Tensor<1>>,
                options: ConvOptions<$R>,
            ) -> Result<Tensor<$D>, Error> {
                ours::$conv_relu(input, weight, thresholds, bias, options)
            }

            fn conv(
                x: Tensor<$D>,
                weight: Tensor<$D>,
                bias: Option<Tensor<1>>,
                options: ConvOptions<$R>,
            ) -> Result<Tensor<$D>, Error> {
                ours::$try_conv(x, weight, bias, options)
            }

            fn burns_own(
                x: Tensor<$D>,
                weight: Tensor<$D>,
                bias: Option<Tensor<1>>,
                options: ConvOptions<$R>,
            ) -> Tensor<$D> {
                module::$conv(x, weight, bias, options)
            }
        }
    };
}

rank!(One, 3, 2, 1, try_conv_relu1d, try_conv1d, conv1d);
rank!(Two, 4, 3, 2, try_conv_relu2d, try_conv2d, conv2d);
rank!(Three, 5, 4, 3, try_conv_relu3d, try_conv3d, conv3d);

/// Where gradients are recorded.
pub(crate) fn device() -> Device {
    Device::flex().autodiff()
}

/// A tensor whose gradient is wanted.
pub(crate) fn leaf<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    constant(values, shape).require_grad()
}

pub(crate) fn constant<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &device())
}

/// The same in f64.
pub(crate) fn double<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    let values: Vec<f64> = values.iter().map(|&value| value.into()).collect();
    Tensor::from_data(TensorData::new(values, shape), (&device(), DType::F64)).require_grad()
}

pub(crate) fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}

pub(crate) fn doubles<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.to_data().iter::<f64>().collect()
}

pub(crate) fn gradient<const D: usize>(tensor: &Tensor<D>, gradients: &Gradients) -> Vec<f32> {
    values(&tensor.grad(gradients).expect("a gradient"))
}

/// `Σ y · g`, which sends `g` back.
pub(crate) fn send_back<const D: usize>(output: Tensor<D>, grad_output: Tensor<D>) -> Gradients {
    (output * grad_output).sum().backward()
}

/// Fails where values lie farther apart than a share of the largest.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f32], wanted: &[f32], tolerance: f32, about: &dyn std::fmt::Debug) {
    assert_eq!(found.len(), wanted.len(), "{what} of {about:?}");
    let scale = wanted.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let apart = (found - wanted).abs() / scale;
        assert!(apart <= tolerance, "{what}[{index}] is {found}, not {wanted}, {apart:e} apart, of {about:?}");
    }
}
