//! Plain convolutions beside candle's own: outputs and gradients of layers that candle has.

use candle_core::{Result, Tensor, Var};
use convrelu::reference::error_bound;
use convrelu_candle::{Options, functional};
use rand::rngs::ChaCha8Rng;

use crate::layers::{Layer, elements, source, tensor};

/// Whether candle has the layer and its gradients: the same numbers on all axes and at both ends. Its gradient of the input
/// ends all axes alike, where some of their last elements are read by no output, and does not know inputs that are shorter than
/// what no output reads.
fn is_candles<const R: usize>(layer: &Layer<R>) -> bool {
    let Options { stride, padding_before, padding_after, dilation, .. } = layer.options;
    let rest = |axis: usize| {
        let reach = dilation[axis] * (layer.kernel[axis] - 1) + 1;
        (layer.size[axis] + 2 * padding_before[axis] - reach) % stride[axis]
    };
    padding_before == padding_after
        && [stride, padding_before, dilation].iter().all(|axes| axes.iter().all(|number| *number == axes[0]))
        && (0..R).all(|axis| rest(axis) == rest(0) && rest(axis) < layer.size[axis])
}

/// A random layer that candle has.
fn random<const R: usize>(rng: &mut ChaCha8Rng) -> Layer<R> {
    loop {
        let mut layer = Layer::<R>::random(rng);
        let Options { stride, padding_before, dilation, groups, .. } = layer.options;
        layer.options =
            Options::new().stride(stride[0]).padding(padding_before[0]).dilation(dilation[0]).groups(groups);
        let reach = |axis: usize| dilation[0] * (layer.kernel[axis] - 1);
        if (0..R).all(|axis| reach(axis) < layer.size[axis] + 2 * padding_before[0]) && is_candles(&layer) {
            return layer;
        }
    }
}

/// Output, gradient of the input and gradient of the weight, where the gradient of the output is given.
fn passes(
    convolution: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    [input, weight, grad_output]: [&Tensor; 3],
) -> [Vec<f32>; 3] {
    let (input, weight) = (Var::from_tensor(input).unwrap(), Var::from_tensor(weight).unwrap());
    let output = convolution(&input, &weight).unwrap();
    let gradients = (&output * grad_output).unwrap().sum_all().unwrap().backward().unwrap();
    [&output, gradients.get(&input).unwrap(), gradients.get(&weight).unwrap()].map(elements)
}

/// Compares both for a layer.
fn compare<const R: usize>(layer: &Layer<R>, rng: &mut ChaCha8Rng) {
    let Options { stride, padding_before, dilation, groups, .. } = layer.options;
    let ours = |x: &Tensor, w: &Tensor| match R {
        1 => functional::conv1d(x, w, padding_before[0], stride[0], dilation[0], groups),
        _ => functional::conv2d(x, w, padding_before[0], stride[0], dilation[0], groups),
    };
    let candles = |x: &Tensor, w: &Tensor| match R {
        1 => x.conv1d(w, padding_before[0], stride[0], dilation[0], groups),
        _ => x.conv2d(w, padding_before[0], stride[0], dilation[0], groups),
    };
    let operands = [layer.input_shape(), layer.weight_shape(), layer.output_shape()].map(|shape| tensor(rng, &shape));
    let found = passes(ours, operands.each_ref());
    let expected = passes(candles, operands.each_ref());
    // Of absolute values, the sums that rounding errors are proportional to.
    let absolute = operands.map(|operand| operand.abs().unwrap());
    let magnitudes = passes(candles, absolute.each_ref());
    let taps: usize = layer.kernel.iter().product();
    let positions: usize = layer.output_shape()[2..].iter().product();
    let terms = [layer.in_channels / groups * taps, layer.out_channels / groups * taps, layer.batch * positions];
    // candle's gradients of layers of one axis are wrong for more than one image. (Ours are those of plain loops, see reference.rs.)
    // Its convolution reads weights that are not contiguous as if they were, and a gradient of the output, transposed, is such.
    let compared = if R == 1 && layer.batch > 1 { 1 } else { 3 };
    for (pass, name) in ["output", "gradient of the input", "gradient of the weight"][..compared].iter().enumerate() {
        assert_eq!(found[pass].len(), expected[pass].len(), "{name}, {layer:?}");
        for (index, (&found, &expected)) in found[pass].iter().zip(&expected[pass]).enumerate() {
            // Both may err.
            let bound = 2.0 * error_bound(terms[pass], f64::from(magnitudes[pass][index]));
            let error = f64::from(found - expected).abs();
            assert!(error <= bound, "{name}[{index}] is {found}, candle's is {expected}: {layer:?}");
        }
    }
}

#[test]
fn one_axis_is_candles_on_300_layers() {
    let mut rng = source(1);
    for _ in 0..150 {
        let layer = random::<1>(&mut rng);
        compare(&layer, &mut rng);
        compare(&Layer { batch: 1, ..layer }, &mut rng);
    }
}

#[test]
fn two_axes_are_candles_on_200_layers() {
    let mut rng = source(2);
    for _ in 0..200 {
        compare(&random::<2>(&mut rng), &mut rng);
    }
}

/// Larger ones, which more than one thread computes.
#[test]
fn layers_of_networks_are_candles() {
    let mut rng = source(3);
    let dense = |[in_channels, out_channels]: [usize; 2], size, kernel, stride| Layer {
        batch: 2,
        in_channels,
        out_channels,
        size: [size; 2],
        kernel: [kernel; 2],
        options: Options::new().stride(stride).padding(kernel / 2),
    };
    let depthwise = Layer { options: Options::new().padding(1).groups(32), ..dense([32, 32], 28, 3, 1) };
    for layer in [
        dense([3, 64], 32, 3, 1),
        dense([64, 64], 32, 3, 1),
        dense([64, 128], 32, 3, 2),
        dense([96, 48], 32, 1, 1),
        dense([256, 256], 8, 3, 1),
        depthwise,
    ] {
        compare(&layer, &mut rng);
    }
}
