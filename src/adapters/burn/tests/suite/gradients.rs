//! Which gradients there are, and that threads and checkpointing change none of them.

use burn::tensor::ops::ConvOptions;
use burn::tensor::{GradientCheckpointingStrategy, Tensor, activation};
use convrelu_burn::{conv_relu2d, conv2d};

use crate::layer::{Random, constant, values};

const INPUT: [usize; 4] = [2, 4, 9, 8];
const WEIGHT: [usize; 4] = [6, 2, 3, 3];
const THRESHOLDS: [usize; 3] = [4, 3, 3];

fn options() -> ConvOptions<2> {
    ConvOptions::new([2, 1], [1, 1], [1, 1], 2)
}

/// Gradients of input, weight, thresholds and bias, where they are wanted.
fn gradients(wanted: [bool; 4], thresholds: bool) -> [Option<Vec<f32>>; 4] {
    let random = &mut Random::new(5);
    let mut next = |shape: &[usize]| random.floats(shape.iter().product());
    let [input, weight, theta, bias] = [next(&INPUT), next(&WEIGHT), next(&THRESHOLDS), next(&[6])];
    let x = constant(&input, INPUT).set_require_grad(wanted[0]);
    let w = constant(&weight, WEIGHT).set_require_grad(wanted[1]);
    let t = constant(&theta, THRESHOLDS).set_require_grad(wanted[2]);
    let b = constant(&bias, [6]).set_require_grad(wanted[3]);
    let y = if thresholds {
        conv_relu2d(x.clone(), w.clone(), t.clone(), Some(b.clone()), options())
    } else {
        conv2d(x.clone(), w.clone(), Some(b.clone()), options())
    };
    let gradients = activation::tanh(y).sum().backward();
    [
        x.grad(&gradients).map(|g| values(&g)),
        w.grad(&gradients).map(|g| values(&g)),
        t.grad(&gradients).map(|g| values(&g)),
        b.grad(&gradients).map(|g| values(&g)),
    ]
}

#[test]
fn subsets() {
    for thresholds in [false, true] {
        let all = gradients([true, true, thresholds, true], thresholds);
        for subset in 1..16_usize {
            let wanted = [0, 1, 2, 3].map(|index| (subset >> index) & 1 == 1 && (index != 2 || thresholds));
            if wanted == [false; 4] {
                continue;
            }
            let mut expected = all.clone();
            for (gradient, wanted) in expected.iter_mut().zip(wanted) {
                gradient.take_if(|_| !wanted);
            }
            assert_eq!(gradients(wanted, thresholds), expected, "{wanted:?}");
        }
    }
}

#[test]
fn a_tensor_used_twice_gets_both_gradients() {
    let random = &mut Random::new(6);
    let (input, weight) = (random.floats(2 * 4 * 6 * 6), random.floats(4 * 4 * 3 * 3));
    let x = constant(&input, [2, 4, 6, 6]);
    let w = constant(&weight, [4, 4, 3, 3]).require_grad();
    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let once = conv2d(x.clone(), w.clone(), None, options.clone());
    let gradients = once.sum().backward();
    let single = values(&w.grad(&gradients).unwrap());
    let twice = conv2d(x.clone(), w.clone(), None, options.clone()) + conv2d(x, w.clone(), None, options);
    let gradients = twice.sum().backward();
    let double: Vec<f32> = single.iter().map(|g| g + g).collect();
    assert_eq!(values(&w.grad(&gradients).unwrap()), double);
}

#[test]
fn threads_do_not_change_a_bit() {
    let of = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(large)
    };
    let one = of(1);
    assert_eq!(of(2), one);
    assert_eq!(of(3), one);
}

/// Output and gradients of a layer that is large enough for several threads.
fn large() -> [Vec<f32>; 4] {
    let random = &mut Random::new(9);
    let x = constant(&random.floats(4 * 16 * 24 * 24), [4, 16, 24, 24]).require_grad();
    let w = constant(&random.floats(32 * 16 * 9), [32, 16, 3, 3]).require_grad();
    let t = constant(&random.floats(16 * 9), [16, 3, 3]).require_grad();
    let y = conv_relu2d(x.clone(), w.clone(), t.clone(), None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1));
    let output = values(&y);
    let gradients = activation::tanh(y).sum().backward();
    let [x, w] = [x, w].map(|tensor| values(&tensor.grad(&gradients).unwrap()));
    [output, x, w, values(&t.grad(&gradients).unwrap())]
}

/// A thread of the pool that waits for the tasks of a call may be given another call.
#[test]
fn calls_inside_tasks_of_a_pool() {
    use rayon::prelude::*;
    let one = large();
    let all: Vec<_> = (0..6).into_par_iter().map(|_| large()).collect();
    assert!(all.iter().all(|found| *found == one));
}

#[test]
fn checkpointing_changes_no_gradient() {
    let run = |strategy| {
        let random = &mut Random::new(10);
        let mut leaf4 = |shape: [usize; 4]| {
            let tensor = constant(&random.floats(shape.iter().product()), shape);
            tensor.with_gradient_checkpointing_strategy(strategy).require_grad()
        };
        let [x, w, v] = [leaf4([2, 3, 8, 8]), leaf4([5, 3, 3, 3]), leaf4([2, 5, 3, 3])];
        let t: Tensor<3> = constant(&random.floats(5 * 9), [5, 3, 3]);
        let t = t.with_gradient_checkpointing_strategy(strategy).require_grad();
        let options = || ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let hidden = activation::tanh(conv2d(x.clone(), w.clone(), None, options()).mul_scalar(0.5));
        let y = conv_relu2d(hidden, v.clone(), t.clone(), None, options());
        let gradients = y.powi_scalar(2).mean().backward();
        let mut all: Vec<_> = [x, w, v].iter().map(|tensor| values(&tensor.grad(&gradients).unwrap())).collect();
        all.push(values(&t.grad(&gradients).unwrap()));
        all
    };
    let strategies = [GradientCheckpointingStrategy::Disabled, GradientCheckpointingStrategy::Balanced];
    let [disabled, balanced] = strategies.map(run);
    assert_eq!(disabled, balanced);
}
