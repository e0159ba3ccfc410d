//! One layer: forward, and forward and backward with the gradients of input, weight and bias.

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Distribution, Tensor, module};

use crate::clock::in_turns;
use crate::notation::{Problem, parse_file};
use crate::report::Row;

/// The layers of the comparison with peers.
const SHAPES: &str = include_str!("../../../../../benches/peers/shapes");
/// A large image of few channels.
const IMAGE: &str = "mb2_g1ic3oc16_ih320oh320kh3sh1ph1_iw320ow320kw3sw1pw1_n\"p1\"";

pub(crate) fn all() -> Result<Vec<Problem>, String> {
    parse_file(&format!("{SHAPES}\n{IMAGE}"))
}

pub(crate) fn measure(problem: &Problem, threads: usize, seconds: f64) -> Result<Row, String> {
    let [forward, training] = match problem.rank {
        1 => times::<3, 1>(problem, seconds, convrelu_burn::conv1d, module::conv1d),
        2 => times::<4, 2>(problem, seconds, convrelu_burn::conv2d, module::conv2d),
        _ => times::<5, 3>(problem, seconds, convrelu_burn::conv3d, module::conv3d),
    }?;
    Ok(Row { name: problem.name.clone(), threads, forward: Some(forward), training })
}

type Convolution<const D: usize, const R: usize> =
    fn(Tensor<D>, Tensor<D>, Option<Tensor<1>>, ConvOptions<R>) -> Tensor<D>;

/// Median seconds of both sides, forward, and forward and backward.
fn times<const D: usize, const R: usize>(
    problem: &Problem,
    seconds: f64,
    ours: Convolution<D, R>,
    theirs: Convolution<D, R>,
) -> Result<[[f64; 2]; 2], String> {
    let axes = &problem.axes[3 - R..];
    let options = ConvOptions {
        stride: std::array::from_fn(|axis| axes[axis].stride),
        // Where the last inputs are not read, there is nothing to pad.
        padding: std::array::from_fn(|axis| (axes[axis].before, axes[axis].before)),
        dilation: std::array::from_fn(|axis| axes[axis].dilation),
        groups: problem.groups,
    };
    let (inputs, outputs) = (problem.in_channels, problem.out_channels);
    let shape = |first: [usize; 2], rest: [usize; R]| -> [usize; D] {
        std::array::from_fn(|axis| if axis < 2 { first[axis] } else { rest[axis - 2] })
    };
    let input_shape = shape([problem.batch, inputs], std::array::from_fn(|axis| axes[axis].input));
    let weight_shape = shape([outputs, inputs / problem.groups], std::array::from_fn(|axis| axes[axis].kernel));
    let operands = |device: &Device, grad: bool| {
        let x: Tensor<D> = Tensor::random(input_shape, Distribution::Uniform(-1.0, 1.0), device);
        let w: Tensor<D> = Tensor::random(weight_shape, Distribution::Uniform(-1.0, 1.0), device);
        let b: Tensor<1> = Tensor::random([outputs], Distribution::Uniform(-1.0, 1.0), device);
        (x.set_require_grad(grad), w.set_require_grad(grad), b.set_require_grad(grad))
    };
    let (x, w, b) = operands(&Device::flex(), false);
    let call = |convolve: Convolution<D, R>| convolve(x.clone(), w.clone(), Some(b.clone()), options.clone());
    let apart = (call(ours) - call(theirs)).abs().max().into_scalar::<f32>();
    let largest = call(theirs).abs().max().into_scalar::<f32>();
    if apart > 1e-4 * largest {
        return Err(format!("{}: the outputs of both sides are {apart} apart, of {largest}", problem.name));
    }
    let forward = in_turns(seconds, || drop(call(ours)), || drop(call(theirs)));

    let (x, w, b) = operands(&Device::flex().autodiff(), true);
    let call = |convolve: Convolution<D, R>| {
        let y = convolve(x.clone(), w.clone(), Some(b.clone()), options.clone());
        drop(y.backward());
    };
    Ok([forward, in_turns(seconds, || call(ours), || call(theirs))])
}
