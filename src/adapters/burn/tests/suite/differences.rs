//! Gradients through burn's whole autodiff against finite differences of the loss.

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, activation};
use convrelu_burn::{conv_relu1d, conv_relu2d, conv_relu3d, conv2d};

use crate::layer::{Random, constant, doubles, gradient, leaf};

/// The loss of a network, and its parameters, flat, with their extents.
struct Network {
    shapes: Vec<Vec<usize>>,
    loss: fn(&[Vec<f32>], bool) -> Loss,
}

/// The loss, and the gradients of the parameters where they are asked for.
type Loss = (f64, Vec<Vec<f32>>);

fn check(network: &Network, seed: u64) {
    let random = &mut Random::new(seed);
    let values: Vec<Vec<f32>> = network.shapes.iter().map(|shape| random.floats(shape.iter().product())).collect();
    let (_, gradients) = (network.loss)(&values, true);
    assert_eq!(gradients.len(), values.len());
    for (index, gradient) in gradients.iter().enumerate() {
        // Along the gradient itself, where the slope is its norm, and along a random direction.
        for along in [gradient.clone(), random.floats(gradient.len())] {
            let norm = along.iter().map(|d| f64::from(d * d)).sum::<f64>().sqrt();
            assert!(norm > 0.0, "parameter {index} has no gradient");
            let step = 2e-3;
            let at = |side: f64| {
                let mut moved = values.clone();
                for (value, d) in moved[index].iter_mut().zip(&along) {
                    *value += (side * step * f64::from(*d) / norm) as f32;
                }
                (network.loss)(&moved, false).0
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
            let wanted = gradient.iter().zip(&along).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum::<f64>() / norm;
            let size = gradient.iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt();
            assert!((slope - wanted).abs() < 0.02 * size, "parameter {index}: {slope}, not {wanted}, of {size}");
        }
    }
}

macro_rules! parameters {
    ($values:ident, $grad:ident; $($name:ident: $shape:expr),+) => {
        let mut rest = $values.iter();
        $(
            let values = rest.next().unwrap();
            let $name = if $grad { leaf(values, $shape) } else { constant(values, $shape) };
        )+
        assert!(rest.next().is_none());
    };
}

/// The loss in f64, and the gradients of the parameters.
macro_rules! finish {
    ($loss:expr, $grad:ident; $($name:ident),+) => {{
        let loss: Tensor<1> = $loss;
        let value = doubles(&loss)[0];
        if !$grad {
            return (value, Vec::new());
        }
        let gradients = loss.backward();
        (value, vec![$(gradient(&$name, &gradients)),+])
    }};
}

#[test]
fn two_layers_of_two_axes() {
    fn loss(values: &[Vec<f32>], grad: bool) -> Loss {
        parameters!(values, grad; x: [2, 3, 9, 8], w: [4, 3, 3, 2], t: [3, 3, 2], b: [4], v: [6, 2, 3, 3], u: [4, 3, 3], c: [6]);
        let first = ConvOptions::new_with_padding([2, 1], [(1, 2), (0, 1)], [1, 2], 1);
        let hidden = conv_relu2d(x.clone(), w.clone(), t.clone(), Some(b.clone()), first);
        let second = ConvOptions::new([1, 1], [1, 1], [1, 1], 2);
        let y = conv_relu2d(hidden, v.clone(), u.clone(), Some(c.clone()), second);
        finish!(activation::tanh(y).powi_scalar(2).sum(), grad; x, w, t, b, v, u, c)
    }
    let shapes = [vec![2, 3, 9, 8], vec![4, 3, 3, 2], vec![3, 3, 2], vec![4], vec![6, 2, 3, 3], vec![4, 3, 3], vec![6]];
    (0..5).for_each(|seed| check(&Network { shapes: shapes.to_vec(), loss }, seed));
}

#[test]
fn one_axis_and_a_plain_layer() {
    fn loss(values: &[Vec<f32>], grad: bool) -> Loss {
        parameters!(values, grad; x: [2, 3, 20], w: [4, 3, 5], t: [3, 5], v: [2, 1, 1, 3]);
        let hidden = conv_relu1d(x.clone(), w.clone(), t.clone(), None, ConvOptions::new([1], [2], [1], 1));
        let hidden = activation::tanh(hidden).reshape([2, 1, 4, 20]);
        let y = conv2d(hidden, v.clone(), None, ConvOptions::new([1, 1], [0, 1], [1, 1], 1));
        finish!(y.powi_scalar(2).sum(), grad; x, w, t, v)
    }
    let shapes = [vec![2, 3, 20], vec![4, 3, 5], vec![3, 5], vec![2, 1, 1, 3]];
    (10..15).for_each(|seed| check(&Network { shapes: shapes.to_vec(), loss }, seed));
}

#[test]
fn three_axes() {
    fn loss(values: &[Vec<f32>], grad: bool) -> Loss {
        parameters!(values, grad; x: [1, 2, 5, 6, 4], w: [3, 2, 2, 3, 3], t: [2, 2, 3, 3], b: [3]);
        let options = ConvOptions::new_with_padding([1, 2, 1], [(1, 0), (1, 1), (2, 1)], [2, 1, 1], 1);
        let y = conv_relu3d(x.clone(), w.clone(), t.clone(), Some(b.clone()), options);
        finish!(activation::tanh(y).powi_scalar(2).sum(), grad; x, w, t, b)
    }
    let shapes = [vec![1, 2, 5, 6, 4], vec![3, 2, 2, 3, 3], vec![2, 2, 3, 3], vec![3]];
    (20..25).for_each(|seed| check(&Network { shapes: shapes.to_vec(), loss }, seed));
}
