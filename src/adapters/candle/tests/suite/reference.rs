//! All that candle has no operation for, beside plain loops in 64 bits: thresholds, three axes, unequal axes and ends.

use candle_core::{DType, Device, Tensor, Var};
use convrelu::reference::{self, Sum, Thetas, error_bound};
use convrelu_candle::{Thresholds, functional};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::layers::{Layer, numbers, source};

/// What the thresholds of a layer are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    PerTap,
    Single,
    Number(f64),
}

/// Values of a layer's tensors.
struct Values {
    input: Vec<f32>,
    weight: Vec<f32>,
    thresholds: Vec<f32>,
    bias: Vec<f32>,
    grad_output: Vec<f32>,
}

/// Names, values and allowed errors of everything that a layer computes.
type Results = Vec<(&'static str, Vec<Sum<f64>>, usize)>;

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// By plain loops.
fn expected<const R: usize>(layer: &Layer<R>, kind: Kind, values: &Values) -> Results {
    let desc = layer.desc();
    let [x, w, t, b, g] =
        [&values.input, &values.weight, &values.thresholds, &values.bias, &values.grad_output].map(|v| wide(v));
    let thetas = match kind {
        Kind::PerTap => Thetas::PerTap(&t),
        Kind::Single => Thetas::Uniform(t[0]),
        Kind::Number(theta) => Thetas::Uniform(f64::from(theta as f32)),
    };
    let sums = |len| vec![Sum::ZERO; len];
    let mut y = sums(desc.output_len());
    reference::forward(&desc, &x, &w, thetas, Some(&b), &mut y);
    let theta_len = if kind == Kind::PerTap { t.len() } else { 1 };
    let (mut grad_input, mut grad_thresholds) = (sums(x.len()), sums(theta_len));
    reference::backward_input(&desc, &x, &w, thetas, &g, &mut grad_input, &mut grad_thresholds);
    let (mut grad_weight, mut grad_bias) = (sums(w.len()), sums(b.len()));
    reference::backward_weight(&desc, &x, thetas, &g, &mut grad_weight, &mut grad_bias);
    let positions = layer.batch * desc.output_size().iter().product::<usize>();
    let [per_output, per_input] =
        [layer.in_channels, layer.out_channels].map(|c| c / layer.options.groups * desc.taps());
    let all = if kind == Kind::PerTap { 1 } else { desc.threshold_len() };
    let mut results = vec![
        ("output", y, per_output),
        ("gradient of input", grad_input, per_input),
        ("gradient of weight", grad_weight, positions),
        ("gradient of bias", grad_bias, positions),
    ];
    if !matches!(kind, Kind::Number(_)) {
        results.push(("gradient of thresholds", grad_thresholds, positions * per_input * all));
    }
    results
}

/// By the adapter, in elements of a type, with the gradients that are asked for.
fn found<const R: usize>(layer: &Layer<R>, kind: Kind, values: &Values, dtype: DType) -> Vec<Vec<f64>> {
    let tensor = |values: &[f32], shape: Vec<usize>| {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    };
    let variable = |values: &[f32], shape| Var::from_tensor(&tensor(values, shape)).unwrap();
    let input = variable(&values.input, layer.input_shape());
    let weight = variable(&values.weight, layer.weight_shape());
    let bias = variable(&values.bias, vec![layer.out_channels]);
    let theta = match kind {
        Kind::PerTap => Some(variable(&values.thresholds, layer.threshold_shape())),
        Kind::Single => Some(variable(&values.thresholds[..1], vec![])),
        Kind::Number(_) => None,
    };
    let thresholds = match (&theta, kind) {
        (Some(theta), _) => Thresholds::from(theta.as_tensor()),
        (None, Kind::Number(theta)) => theta.into(),
        (None, _) => unreachable!("only a number is no variable"),
    };
    let y = functional::conv_relu(&input, &weight, thresholds, Some(&bias), &layer.options).unwrap();
    assert_eq!((y.dims(), y.dtype()), (&layer.output_shape()[..], dtype), "{layer:?}");
    let grad_output = tensor(&values.grad_output, layer.output_shape());
    let gradients = (&y * grad_output).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |variable: &Var| {
        let gradient = gradients.get(variable).unwrap();
        assert_eq!(gradient.dims(), variable.dims(), "{layer:?}");
        gradient.clone()
    };
    let mut results = vec![y.clone(), of(&input), of(&weight), of(&bias)];
    results.extend(theta.as_ref().map(of));
    results.iter().map(|r| r.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()).collect()
}

fn compare<const R: usize>(layer: &Layer<R>, kind: Kind, dtype: DType, rng: &mut ChaCha8Rng) {
    // On a grid, so that some inputs equal their thresholds; and both are exact in 16 bits.
    let grid = |values: Vec<f32>| values.into_iter().map(|v| (v * 8.0).round() / 8.0).collect::<Vec<_>>();
    let len = |shape: Vec<usize>| shape.iter().product::<usize>();
    let values = Values {
        input: grid(numbers(rng, len(layer.input_shape()))),
        weight: grid(numbers(rng, len(layer.weight_shape()))),
        thresholds: grid(numbers(rng, len(layer.threshold_shape()))),
        bias: grid(numbers(rng, layer.out_channels)),
        grad_output: grid(numbers(rng, len(layer.output_shape()))),
    };
    let found = found(layer, kind, &values, dtype);
    let expected = expected(layer, kind, &values);
    assert_eq!(found.len(), expected.len());
    for (found, (name, expected, terms)) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len(), "{name}, {layer:?}");
        for (index, (&found, expected)) in found.iter().zip(&expected).enumerate() {
            let bound = match dtype {
                DType::F64 => 1e-12 * (1.0 + expected.magnitude),
                // The result is rounded once more: to 11 and 8 bits, by half of the last.
                DType::F16 => error_bound(terms, expected.magnitude) + expected.value.abs() / 2048.0 + 1e-7,
                DType::BF16 => error_bound(terms, expected.magnitude) + expected.value.abs() / 256.0,
                _ => error_bound(terms, expected.magnitude),
            };
            let error = (found - expected.value).abs();
            assert!(
                error <= bound,
                "{name}[{index}] is {found}, not {}: {kind:?}, {dtype:?}, {layer:?}",
                expected.value
            );
        }
    }
}

fn kind(rng: &mut ChaCha8Rng) -> Kind {
    match rng.random_range(0..8) {
        0 => Kind::Single,
        1 => Kind::Number(f64::NEG_INFINITY),
        2 => Kind::Number(0.0),
        3 => Kind::Number(0.25),
        _ => Kind::PerTap,
    }
}

fn many<const R: usize>(seed: u64, count: usize, dtype: DType) {
    let mut rng = source(seed);
    for _ in 0..count {
        let (layer, kind) = (Layer::<R>::random(&mut rng), kind(&mut rng));
        compare(&layer, kind, dtype, &mut rng);
    }
}

#[test]
fn kernels_of_one_axis() {
    many::<1>(11, 120, DType::F32);
}

#[test]
fn kernels_of_two_axes() {
    many::<2>(12, 120, DType::F32);
}

#[test]
fn kernels_of_three_axes() {
    many::<3>(13, 120, DType::F32);
}

#[test]
fn composition_of_one_axis() {
    many::<1>(14, 30, DType::F64);
}

#[test]
fn composition_of_two_axes() {
    many::<2>(15, 30, DType::F64);
}

#[test]
fn composition_of_three_axes() {
    many::<3>(16, 20, DType::F64);
}

#[test]
fn elements_of_sixteen_bits() {
    many::<2>(17, 20, DType::F16);
    many::<2>(18, 20, DType::BF16);
}
