//! Tensors that do not lie one element after the other.

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Slice, Tensor};
use convrelu_burn::conv_relu2d;

use crate::layer::{Random, constant, gradient, leaf, send_back, values};

/// The same elements, one after the other.
fn packed<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    constant(&values(tensor), tensor.dims())
}

#[test]
fn strided_and_broadcast_tensors() {
    let random = &mut Random::new(3);
    let input = random.floats(2 * 6 * 10 * 12);
    let base: Tensor<4> = constant(&input, [2, 10, 12, 6]);
    let inputs: [(&str, Tensor<4>); 5] = [
        ("permuted", base.clone().permute([0, 3, 1, 2])),
        ("sliced", constant(&input, [2, 6, 10, 12]).slice([0..2, 0..6, 2..9, 1..11])),
        ("stepped", constant(&input, [2, 6, 10, 12]).slice([Slice::full(), Slice::full(), Slice::new(0, None, 2)])),
        ("flipped", constant(&input, [2, 6, 10, 12]).flip([2, 3])),
        ("broadcast", constant(&input[..6], [1, 6, 1, 1]).expand([2, 6, 10, 12])),
    ];
    let weights: [Tensor<4>; 2] = [
        constant(&random.floats(4 * 6 * 9), [3, 3, 6, 4]).permute([3, 2, 0, 1]),
        constant(&random.floats(4), [4, 1, 1, 1]).expand([4, 6, 3, 3]),
    ];
    let thresholds: [Tensor<3>; 2] = [
        constant(&random.floats(6 * 9), [3, 3, 6]).permute([2, 0, 1]),
        constant(&random.floats(6), [6, 1, 1]).expand([6, 3, 3]),
    ];
    let bias: Tensor<1> = constant(&random.floats(1), [1]).expand([4]);
    let options = || ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    for (name, input) in &inputs {
        for (weight, thresholds) in weights.iter().zip(&thresholds) {
            let run = |x: Tensor<4>, w: Tensor<4>, t: Tensor<3>, b: Tensor<1>| {
                values(&conv_relu2d(x, w, t, Some(b), options()))
            };
            let found = run(input.clone(), weight.clone(), thresholds.clone(), bias.clone());
            let wanted = run(packed(input), packed(weight), packed(thresholds), packed(&bias));
            assert_eq!(found, wanted, "{name}");
        }
    }
}

#[test]
fn gradients_through_views_and_from_views() {
    let random = &mut Random::new(4);
    let (input, weight) = (random.floats(2 * 5 * 7 * 3), random.floats(4 * 3 * 3 * 3));
    let (thresholds, grad_output) = (random.floats(3 * 9), random.floats(2 * 4 * 5 * 7));
    let options = || ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let theta = leaf(&thresholds, [3, 3, 3]);
    let w = leaf(&weight, [4, 3, 3, 3]);
    // Channels last, seen as channels first; the gradient of the output comes back permuted too.
    let x = leaf(&input, [2, 5, 7, 3]);
    let y = conv_relu2d(x.clone().permute([0, 3, 1, 2]), w.clone(), theta.clone(), None, options());
    let gradients = send_back(y.permute([0, 2, 3, 1]), constant(&grad_output, [2, 5, 7, 4]));
    let found = [gradient(&x, &gradients), gradient(&w, &gradients), gradient(&theta, &gradients)];

    let plain = |values: &[f32], shape: [usize; 4], order| -> Vec<f32> {
        self::values(&constant(values, shape).permute(order).mul_scalar(1.0))
    };
    let x = leaf(&plain(&input, [2, 5, 7, 3], [0, 3, 1, 2]), [2, 3, 5, 7]);
    let y = conv_relu2d(x.clone(), w.clone(), theta.clone(), None, options());
    let grad_output = plain(&grad_output, [2, 5, 7, 4], [0, 3, 1, 2]);
    let gradients = send_back(y, constant(&grad_output, [2, 4, 5, 7]));
    let of_x = plain(&gradient(&x, &gradients), [2, 3, 5, 7], [0, 2, 3, 1]);
    assert_eq!(found, [of_x, gradient(&w, &gradients), gradient(&theta, &gradients)]);
}
