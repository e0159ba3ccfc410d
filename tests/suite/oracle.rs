//! The oracle itself: against the paper's example, and its gradients against finite differences.

use convrelu::reference::{self, Sum, Thetas, activate, error_bound, gradient_error_bound};
use convrelu::{ConvDesc, Layout};
use proptest::prelude::*;

use crate::common::{Case, Rng, Values, wide};
use crate::strategy;

/// The real parameters and inputs of a layer, in f64.
#[derive(Clone)]
struct Point {
    input: Vec<f64>,
    weight: Vec<f64>,
    theta: Vec<f64>,
    bias: Vec<f64>,
}

impl Point {
    /// Inputs, zeros of the padding included, are multiples of ½ and thresholds lie between them: a step of ⅛ in
    /// either crosses no kink.
    fn away_from_ties(desc: &ConvDesc, seed: u64) -> Self {
        let case = Case::new(*desc, Values::Integers, seed);
        let mut rng = Rng(!seed);
        Self {
            input: wide(&case.input).iter().map(|x| x / 2.0).collect(),
            theta: wide(&case.theta.per_tap(desc)).iter().map(|theta| theta / 2.0 + 0.25).collect(),
            weight: wide(&rng.values(Values::Continuous, desc.weight_len())),
            bias: wide(&rng.values(Values::Continuous, desc.bias_len())),
        }
    }

    /// `E = ⟨y, g⟩`.
    fn energy(&self, desc: &ConvDesc, grad_output: &[f64]) -> f64 {
        let mut output = vec![Sum::ZERO; desc.output_len()];
        reference::forward(desc, &self.input, &self.weight, Thetas::PerTap(&self.theta), Some(&self.bias), &mut output);
        output.iter().zip(grad_output).map(|(y, g)| y.value * g).sum()
    }
}

/// Compares a few components of one gradient with central differences, which are exact up to rounding because the
/// energy is linear between the kinks.
fn check_gradient(
    name: &str,
    desc: &ConvDesc,
    point: &Point,
    grad_output: &[f64],
    gradient: &[Sum<f64>],
    variable: fn(&mut Point) -> &mut Vec<f64>,
) {
    const STEP: f64 = 0.125;
    for i in (0..gradient.len()).step_by(gradient.len() / 4 + 1) {
        let energy_at = |step: f64| {
            let mut point = point.clone();
            variable(&mut point)[i] += step;
            point.energy(desc, grad_output)
        };
        let difference = (energy_at(STEP) - energy_at(-STEP)) / (2.0 * STEP);
        let value = gradient[i].value;
        assert!(
            (difference - value).abs() < 1e-9,
            "∂E/∂{name}[{i}] = {value}, differences give {difference}: {desc:?}"
        );
    }
}

proptest! {
    #![proptest_config(strategy::config(8))]

    #[test]
    fn gradients_match_finite_differences(shape in strategy::shape(2_000), seed in any::<u64>()) {
        let desc = shape.gaps([0; 2]).desc();
        let point = Point::away_from_ties(&desc, seed);
        let grad_output = wide(&Rng(seed).values(Values::Continuous, desc.output_len()));
        let sums = |len| vec![Sum::ZERO; len];
        let (mut input, mut theta) = (sums(desc.input_len()), sums(desc.threshold_len()));
        let (mut weight, mut bias) = (sums(desc.weight_len()), sums(desc.bias_len()));
        let thetas = Thetas::PerTap(&point.theta[..]);
        reference::backward_input(&desc, &point.input, &point.weight, thetas, &grad_output, &mut input, &mut theta);
        reference::backward_weight(&desc, &point.input, thetas, &grad_output, &mut weight, &mut bias);
        check_gradient("x", &desc, &point, &grad_output, &input, |point| &mut point.input);
        check_gradient("θ", &desc, &point, &grad_output, &theta, |point| &mut point.theta);
        check_gradient("w", &desc, &point, &grad_output, &weight, |point| &mut point.weight);
        check_gradient("b", &desc, &point, &grad_output, &bias, |point| &mut point.bias);
    }
}

/// The values of sums that the oracle leaves, without their magnitudes.
fn values(sums: &[Sum<f64>]) -> Vec<f64> {
    sums.iter().map(|sum| sum.value).collect()
}

/// Two channels of two positions, padding on the right, computed by hand.
#[test]
fn by_hand_in_both_layouts() {
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let desc = ConvDesc::conv1d(1, 2, 1, [2], [2]).padding_before_after([0], [1]).layout(layout).build().unwrap();
        let (input, weight, theta) = match layout {
            // Channel 0: x = 1 −2, w = 1 10, θ = 0 −1; channel 1: x = 3 4, w = 100 1000, θ = 3 5.
            Layout::Nchw => ([1.0, -2.0, 3.0, 4.0], [1.0, 10.0, 100.0, 1000.0], [0.0, -1.0, 3.0, 5.0]),
            Layout::Nhwc => ([1.0, 3.0, -2.0, 4.0], [1.0, 100.0, 10.0, 1000.0], [0.0, 3.0, -1.0, 5.0]),
        };
        let mut output = [Sum::ZERO; 2];
        let theta = Thetas::PerTap(&theta[..]);
        reference::forward(&desc, &input, &weight, theta, Some(&[0.5]), &mut output);
        // o = 0: 1·max(1, 0) + 10·max(−2, −1) + 100·max(3, 3) + 1000·max(4, 5)
        // o = 1: 1·max(−2, 0) + 10·max(0, −1) + 100·max(4, 3) + 1000·max(0, 5), the zeros being padding
        assert_eq!(values(&output), [0.5 + 1.0 - 10.0 + 300.0 + 5000.0, 0.5 + 400.0 + 5000.0]);
        assert_eq!(output[0].magnitude, 0.5 + 1.0 + 10.0 + 300.0 + 5000.0);

        let (mut grad_input, mut grad_theta) = ([Sum::ZERO; 4], [Sum::ZERO; 4]);
        let (mut grad_weight, mut grad_bias) = ([Sum::ZERO; 4], [Sum::ZERO; 1]);
        let g = [1.0, 2.0];
        reference::backward_input(&desc, &input, &weight, theta, &g, &mut grad_input, &mut grad_theta);
        reference::backward_weight(&desc, &input, theta, &g, &mut grad_weight, &mut grad_bias);
        // 3 ties with its threshold 3, so its gradient goes there; the padded zero exceeds θ = −1 and goes nowhere.
        let (want_input, want_theta, want_weight) = match layout {
            Layout::Nchw => ([1.0, 0.0, 0.0, 200.0], [2.0, 10.0, 100.0, 3000.0], [1.0, -1.0, 11.0, 15.0]),
            Layout::Nhwc => ([1.0, 0.0, 0.0, 200.0], [2.0, 100.0, 10.0, 3000.0], [1.0, 11.0, -1.0, 15.0]),
        };
        assert_eq!(values(&grad_input), want_input, "{layout:?}");
        assert_eq!(values(&grad_theta), want_theta, "{layout:?}");
        assert_eq!(values(&grad_weight), want_weight, "{layout:?}");
        assert_eq!(values(&grad_bias), [3.0]);
    }
}

#[test]
fn activation() {
    assert_eq!([activate(1.0, 0.5), activate(0.25, 0.5), activate(0.5, 0.5)], [1.0, 0.5, 0.5]);
    assert_eq!(activate(-3.0f32, f32::NEG_INFINITY), -3.0);
    assert!(activate(f32::NAN, 1.0).is_nan());
    assert_eq!(activate(f64::INFINITY, 1.0), f64::INFINITY);
}

/// The bound stays a small multiple of the number of terms and of the unit roundoff.
#[test]
fn the_error_bound_is_tight() {
    assert!(error_bound(1, 1.0) < 20.0 * f64::from(f32::EPSILON));
    assert!(error_bound(1000, 1.0) < 1010.0 * f64::from(f32::EPSILON));
    assert!(error_bound(10, 0.0) < f64::from(f32::MIN_POSITIVE));
    // 2²⁵ positions: a segment (8192, at most twice that) and the 4096 sums of segments, not all of them.
    assert!(gradient_error_bound(1, 1 << 25, 1.0) < 20_500.0 * f64::from(f32::EPSILON));
}

/// θ = −∞ everywhere is a plain convolution: no input decides, and NaN and −∞ get their gradient too.
#[test]
fn uniformly_unbounded_thresholds_are_linear() {
    let desc = ConvDesc::conv1d(1, 1, 1, [3], [1]).build().unwrap();
    let input = [f64::NAN, f64::NEG_INFINITY, 1.0];
    let (weight, g) = ([2.0], [1.0, 10.0, 100.0]);
    let (mut grad_input, mut grad_theta) = ([Sum::ZERO; 3], [Sum::ZERO; 1]);
    let theta = Thetas::Uniform(f64::NEG_INFINITY);
    reference::backward_input(&desc, &input, &weight, theta, &g, &mut grad_input, &mut grad_theta);
    assert_eq!((values(&grad_input), values(&grad_theta)), (vec![2.0, 20.0, 200.0], vec![0.0]));
    // The same threshold given per tap is compared with: a tie goes to it, a NaN to neither.
    let theta = Thetas::PerTap(&[f64::NEG_INFINITY][..]);
    reference::backward_input(&desc, &input, &weight, theta, &g, &mut grad_input, &mut grad_theta);
    assert_eq!((values(&grad_input), values(&grad_theta)), (vec![0.0, 0.0, 200.0], vec![20.0]));
}

/// One threshold for all has one gradient, the sum of all.
#[test]
fn a_uniform_threshold_has_one_gradient() {
    let desc = ConvDesc::conv1d(1, 2, 1, [2], [2]).padding_before_after([0], [1]).build().unwrap();
    let (input, weight, g) = ([0.5, -2.0, 3.0, 1.0], [1.0, 10.0, 100.0, 1000.0], [1.0, 2.0]);
    let (mut grad_input, mut per_tap, mut uniform) = ([Sum::ZERO; 4], [Sum::ZERO; 4], [Sum::ZERO; 1]);
    reference::backward_input(&desc, &input, &weight, Thetas::PerTap(&[1.0; 4]), &g, &mut grad_input, &mut per_tap);
    reference::backward_input(&desc, &input, &weight, Thetas::Uniform(1.0), &g, &mut grad_input, &mut uniform);
    assert_eq!(values(&uniform)[0], values(&per_tap).iter().sum::<f64>());
}

/// Padding with θ ≤ 0 contributes nothing, not even NaN as the product of an infinite factor and zero.
#[test]
fn padding_below_its_threshold_contributes_nothing() {
    let desc = ConvDesc::conv1d(1, 1, 1, [1], [3]).padding([1]).build().unwrap();
    for theta in [0.0, -1.0, f64::NEG_INFINITY] {
        let (weight, g) = ([f64::INFINITY, 2.0, f64::NAN], [f64::INFINITY]);
        let mut output = [Sum::ZERO; 1];
        reference::forward(&desc, &[3.0], &weight, Thetas::Uniform(theta), None, &mut output);
        assert_eq!(output[0].value, 6.0);
        let (mut grad_weight, mut grad_bias) = ([Sum::ZERO; 3], [Sum::ZERO; 1]);
        reference::backward_weight(&desc, &[3.0], Thetas::Uniform(theta), &g, &mut grad_weight, &mut grad_bias);
        assert_eq!(values(&grad_weight), [0.0, f64::INFINITY, 0.0]);
    }
}
