//! Plain convolutions and all their gradients against burn's own.

use burn::tensor::Tensor;
use burn::tensor::ops::ConvOptions;
use convrelu::reference::{self, Sum, Thetas};

use crate::layer::{Layer, One, Random, Rank, Three, Two, assert_close, constant, gradient, leaf, send_back, values};

/// Of the largest value of a tensor: sums of up to a few thousand terms, in different orders.
const TOLERANCE: f32 = 1e-5;
/// Random layers of each rank.
const LAYERS: u64 = 120;

fn check<F: Rank<D, T, R>, const D: usize, const T: usize, const R: usize>(asymmetric: bool) {
    for seed in 0..LAYERS {
        let random = &mut Random::new(seed);
        let layer = Layer::<R>::random(random, asymmetric && seed % 2 == 0);
        let about = &(seed, &layer);
        let (input_shape, weight_shape) = (layer.input_shape::<D>(), layer.weight_shape::<D>());
        let input = random.floats(input_shape.iter().product());
        let weight = random.floats(weight_shape.iter().product());
        let bias = random.floats(layer.channels[1]);
        let run = |convolve: &dyn Fn(Tensor<D>, Tensor<D>, Option<Tensor<1>>) -> Tensor<D>| {
            let (x, w) = (leaf(&input, input_shape), leaf(&weight, weight_shape));
            let b = layer.bias.then(|| leaf(&bias, [layer.channels[1]]));
            let y = convolve(x.clone(), w.clone(), b.clone());
            let shape = y.dims();
            let grad_output = Random::new(!seed).floats(shape.iter().product());
            let output = values(&y);
            let gradients = send_back(y, constant(&grad_output, shape));
            let of_bias = b.map(|b| gradient(&b, &gradients)).unwrap_or_default();
            (shape, [output, gradient(&x, &gradients), gradient(&w, &gradients), of_bias])
        };
        let (shape, ours) = run(&|x, w, b| F::conv(x, w, b, layer.options.clone()).unwrap());
        let (wanted_shape, theirs) = run(&|x, w, b| F::burns_own(x, w, b, layer.options.clone()));
        assert_eq!(shape, wanted_shape, "{about:?}");
        for (index, what) in ["output", "grad_input", "grad_weight", "grad_bias"].into_iter().enumerate() {
            // burn 0.22.1 spoils this gradient of a grouped 1D layer that does not read its last inputs.
            if what == "grad_weight" && R == 1 && layer.options.groups > 1 && leaves_inputs(&layer) {
                let wanted = weight_gradient(&layer, &input, &Random::new(!seed).floats(shape.iter().product()));
                assert_close(what, &ours[index], &wanted, TOLERANCE, about);
            } else {
                assert_close(what, &ours[index], &theirs[index], TOLERANCE, about);
            }
        }
    }
}

/// Whether the last inputs are read by no output.
fn leaves_inputs<const R: usize>(layer: &Layer<R>) -> bool {
    let ConvOptions { stride, padding, dilation, .. } = &layer.options;
    (0..R).any(|axis| {
        let padded = layer.size[axis] + padding[axis].0 + padding[axis].1;
        !(padded - dilation[axis] * (layer.kernel[axis] - 1) - 1).is_multiple_of(stride[axis])
    })
}

/// By definition.
fn weight_gradient<const R: usize>(layer: &Layer<R>, input: &[f32], grad_output: &[f32]) -> Vec<f32> {
    let (desc, linear) = (layer.desc(), Thetas::Uniform(f32::NEG_INFINITY));
    let (mut of_weight, mut of_bias) = (vec![Sum::ZERO; desc.weight_len()], vec![Sum::ZERO; desc.bias_len()]);
    reference::backward_weight(&desc, input, linear, grad_output, &mut of_weight, &mut of_bias);
    of_weight.iter().map(|sum| sum.value).collect()
}

#[test]
fn one_axis() {
    check::<One, 3, 2, 1>(true);
}

#[test]
fn two_axes() {
    check::<Two, 4, 3, 2>(true);
}

#[test]
fn three_axes() {
    // burn's own has no padding here that differs before and after.
    check::<Three, 5, 4, 3>(false);
}
