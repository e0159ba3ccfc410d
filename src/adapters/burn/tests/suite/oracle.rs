//! Thresholds, and what burn cannot express, against `convrelu::reference`.

use burn::tensor::Tensor;
use convrelu::ConvDesc;
use convrelu::reference::{self, Sum, Thetas, error_bound, gradient_error_bound};

use crate::layer::{
    Layer, One, Random, Rank, Three, Two, constant, device, double, doubles, gradient, leaf, send_back, values,
};

/// Random layers of each rank.
const LAYERS: u64 = 80;

/// The operands of a layer. Inputs and thresholds are often equal.
struct Operands {
    input: Vec<f32>,
    weight: Vec<f32>,
    thresholds: Vec<f32>,
    bias: Vec<f32>,
    grad_output: Vec<f32>,
}

/// What the definition makes of them, in f64.
struct Wanted {
    output: Vec<Sum<f64>>,
    grad_input: Vec<Sum<f64>>,
    grad_thresholds: Vec<Sum<f64>>,
    grad_weight: Vec<Sum<f64>>,
    grad_bias: Vec<Sum<f64>>,
}

impl Operands {
    fn random(random: &mut Random, desc: &ConvDesc) -> Self {
        Self {
            input: random.quarters(desc.input_len()),
            weight: random.floats(desc.weight_len()),
            thresholds: random.quarters(desc.threshold_len()),
            bias: random.floats(desc.bias_len()),
            grad_output: random.floats(desc.output_len()),
        }
    }

    fn wanted(&self, desc: &ConvDesc, bias: bool) -> Wanted {
        let wide = |values: &[f32]| values.iter().map(|&value| value.into()).collect::<Vec<f64>>();
        let (input, weight, theta) = (wide(&self.input), wide(&self.weight), wide(&self.thresholds));
        let (bias_values, grad_output) = (wide(&self.bias), wide(&self.grad_output));
        let thetas = Thetas::PerTap(&theta);
        let sums = |len| vec![Sum::ZERO; len];
        let mut wanted = Wanted {
            output: sums(desc.output_len()),
            grad_input: sums(desc.input_len()),
            grad_thresholds: sums(desc.threshold_len()),
            grad_weight: sums(desc.weight_len()),
            grad_bias: sums(desc.bias_len()),
        };
        let bias = bias.then_some(&bias_values[..]);
        reference::forward(desc, &input, &weight, thetas, bias, &mut wanted.output);
        let (of_input, of_thresholds) = (&mut wanted.grad_input, &mut wanted.grad_thresholds);
        reference::backward_input(desc, &input, &weight, thetas, &grad_output, of_input, of_thresholds);
        let (of_weight, of_bias) = (&mut wanted.grad_weight, &mut wanted.grad_bias);
        reference::backward_weight(desc, &input, thetas, &grad_output, of_weight, of_bias);
        wanted
    }
}

#[track_caller]
fn assert_within(
    what: &str,
    found: &[f64],
    wanted: &[Sum<f64>],
    bound: impl Fn(f64) -> f64,
    about: &dyn std::fmt::Debug,
) {
    assert_eq!(found.len(), wanted.len(), "{what} of {about:?}");
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let (apart, bound) = ((found - wanted.value).abs(), bound(wanted.magnitude));
        assert!(apart <= bound, "{what}[{index}] is {found}, not {}, of {about:?}", wanted.value);
    }
}

fn wide(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

fn check<F: Rank<D, T, R>, const D: usize, const T: usize, const R: usize>() {
    for seed in 0..LAYERS {
        let random = &mut Random::new(1000 + seed);
        let mut layer = Layer::<R>::random(random, true);
        if seed % 16 == 15 {
            layer.batch = 0;
        }
        let (desc, about) = (layer.desc(), &(seed, &layer));
        let operands = Operands::random(random, &desc);
        let wanted = operands.wanted(&desc, layer.bias);
        let x = leaf(&operands.input, layer.input_shape::<D>());
        let w = leaf(&operands.weight, layer.weight_shape::<D>());
        let theta = leaf(&operands.thresholds, layer.threshold_shape::<T>());
        let b = layer.bias.then(|| leaf(&operands.bias, [layer.channels[1]]));
        let y = F::conv_relu(x.clone(), w.clone(), theta.clone(), b.clone(), layer.options.clone()).unwrap();
        let mut shape = [layer.batch; D];
        shape[1] = layer.channels[1];
        shape[2..].copy_from_slice(&desc.output_size()[3 - R..]);
        assert_eq!(y.dims(), shape, "{about:?}");

        let terms = desc.taps() * layer.channels[0] / layer.options.groups;
        assert_within("output", &wide(values(&y)), &wanted.output, |magnitude| error_bound(terms, magnitude), about);
        let gradients = send_back(y, constant(&operands.grad_output, shape));
        let outputs = layer.channels[1] / layer.options.groups;
        let positions = layer.batch * desc.output_size().iter().product::<usize>();
        let of_terms = |terms| move |magnitude| error_bound(terms, magnitude);
        let of_positions = |terms| move |magnitude| gradient_error_bound(terms, positions, magnitude);
        assert_within(
            "grad_input",
            &wide(gradient(&x, &gradients)),
            &wanted.grad_input,
            of_terms(outputs * desc.taps()),
            about,
        );
        assert_within(
            "grad_thresholds",
            &wide(gradient(&theta, &gradients)),
            &wanted.grad_thresholds,
            of_positions(outputs),
            about,
        );
        assert_within("grad_weight", &wide(gradient(&w, &gradients)), &wanted.grad_weight, of_positions(1), about);
        if let Some(b) = b {
            assert_within("grad_bias", &wide(gradient(&b, &gradients)), &wanted.grad_bias, of_positions(1), about);
        }
    }
}

#[test]
fn one_axis() {
    check::<One, 3, 2, 1>();
}

#[test]
fn two_axes() {
    check::<Two, 4, 3, 2>();
}

#[test]
fn three_axes() {
    check::<Three, 5, 4, 3>();
}

/// f64 goes to burn's own operations: the same mathematics, ties and gradients included, with the precision of f64.
fn check_doubles<F: Rank<D, T, R>, const D: usize, const T: usize, const R: usize>() {
    for seed in 0..LAYERS / 4 {
        let random = &mut Random::new(2000 + seed);
        let layer = Layer::<R>::random(random, true);
        let (desc, about) = (layer.desc(), &(seed, &layer));
        let operands = Operands::random(random, &desc);
        let wanted = operands.wanted(&desc, layer.bias);
        let x = double(&operands.input, layer.input_shape::<D>());
        let w = double(&operands.weight, layer.weight_shape::<D>());
        let theta = double(&operands.thresholds, layer.threshold_shape::<T>());
        let b = layer.bias.then(|| double(&operands.bias, [layer.channels[1]]));
        let y = F::conv_relu(x.clone(), w.clone(), theta.clone(), b.clone(), layer.options.clone()).unwrap();
        let bound = |magnitude| 1e-12 * (1.0 + magnitude);
        assert_within("output", &doubles(&y), &wanted.output, bound, about);
        let shape = y.dims();
        let gradients = send_back(y, double(&operands.grad_output, shape));
        let of = |tensor: Option<Tensor<D>>| doubles(&tensor.expect("a gradient"));
        assert_within("grad_input", &of(x.grad(&gradients)), &wanted.grad_input, bound, about);
        assert_within("grad_weight", &of(w.grad(&gradients)), &wanted.grad_weight, bound, about);
        let of_thresholds = doubles(&theta.grad(&gradients).expect("a gradient"));
        assert_within("grad_thresholds", &of_thresholds, &wanted.grad_thresholds, bound, about);
        if let Some(b) = b {
            let of_bias = doubles(&b.grad(&gradients).expect("a gradient"));
            assert_within("grad_bias", &of_bias, &wanted.grad_bias, bound, about);
        }
    }
}

#[test]
fn doubles_of_one_axis() {
    check_doubles::<One, 3, 2, 1>();
}

#[test]
fn doubles_of_two_axes() {
    check_doubles::<Two, 4, 3, 2>();
}

#[test]
fn doubles_of_three_axes() {
    check_doubles::<Three, 5, 4, 3>();
}

/// Without thresholds f64 is burn's own convolution, also where padding differs before and after.
#[test]
fn plain_doubles() {
    let layer = Layer::<3>::random(&mut Random::new(7), true);
    let (desc, random) = (layer.desc(), &mut Random::new(8));
    let mut operands = Operands::random(random, &desc);
    // θ below every input and below padding.
    operands.thresholds.fill(-2.0);
    let wanted = operands.wanted(&desc, true);
    let x = double(&operands.input, layer.input_shape::<5>());
    let w = double(&operands.weight, layer.weight_shape::<5>());
    let b = double(&operands.bias, [layer.channels[1]]);
    let y = Three::conv(x, w, Some(b), layer.options.clone()).unwrap();
    assert!(layer.options.is_asymmetric());
    assert_eq!(y.device(), device());
    assert_within("output", &doubles(&y), &wanted.output, |magnitude| 1e-12 * (1.0 + magnitude), &layer);
}
