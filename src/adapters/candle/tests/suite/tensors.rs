//! Tensors of any strides, without elements, on any number of threads.

use candle_core::{DType, Device, Tensor, Var};
use convrelu_candle::{Options, functional};

use crate::layers::{elements, source, tensor};

/// Output and gradients of the variables that arguments are views of.
fn passes(variables: &[Var; 4], view: impl Fn(usize, &Tensor) -> Tensor) -> Vec<Vec<f32>> {
    let [x, w, t, b] = std::array::from_fn(|index| view(index, &variables[index]));
    let y = functional::conv_relu2d(&x, &w, &t, Some(&b), Options::new().padding(1).stride([1, 2])).unwrap();
    // Transposed again, the gradient of the output is strided as well.
    let loss = y.transpose(0, 3).unwrap().sqr().unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let of = variables.iter().map(|variable| elements(gradients.get(variable).unwrap()));
    [elements(&y)].into_iter().chain(of).collect()
}

fn variables(shapes: [&[usize]; 4]) -> [Var; 4] {
    let mut rng = source(31);
    shapes.map(|shape| Var::from_tensor(&tensor(&mut rng, shape)).unwrap())
}

#[test]
fn strided_arguments() {
    let variables = variables([&[6, 5, 4, 7], &[3, 2, 4, 5], &[2, 3, 4], &[9]]);
    let view = |index: usize, tensor: &Tensor| match index {
        // Channels last; transposed; every axis reversed; some of many.
        0 => tensor.permute((0, 3, 1, 2)).unwrap().narrow(1, 2, 4).unwrap().narrow(0, 1, 4).unwrap(),
        1 => tensor.permute((3, 2, 0, 1)).unwrap(),
        2 => tensor.permute((2, 1, 0)).unwrap(),
        _ => tensor.narrow(0, 3, 5).unwrap(),
    };
    let copied = passes(&variables, |index, tensor| view(index, tensor).force_contiguous().unwrap());
    assert_eq!(passes(&variables, view), copied);
}

#[test]
fn broadcast_arguments() {
    let variables = variables([&[1, 4, 1, 7], &[1, 4, 3, 2], &[4, 1, 1], &[1]]);
    let view = |index: usize, tensor: &Tensor| match index {
        0 => tensor.broadcast_as((3, 4, 6, 7)).unwrap(),
        1 => tensor.broadcast_as((5, 4, 3, 2)).unwrap(),
        2 => tensor.broadcast_as((4, 3, 2)).unwrap(),
        _ => tensor.broadcast_as(5).unwrap(),
    };
    let copied = passes(&variables, |index, tensor| view(index, tensor).force_contiguous().unwrap());
    assert_eq!(passes(&variables, view), copied);
}

/// Contiguous, but not at the beginning of their storage.
#[test]
fn parts_of_a_storage() {
    let variables = variables([&[3, 4, 6, 7], &[7, 4, 3, 2], &[6, 3, 2], &[9]]);
    let first = |index: usize| [1, 2, 2, 3][index];
    let len = |index: usize| [2, 5, 4, 5][index];
    let view = |index: usize, tensor: &Tensor| tensor.narrow(0, first(index), len(index)).unwrap();
    assert!((0..4).all(|index| view(index, &variables[index]).is_contiguous()));
    let copied = passes(&variables, |index, tensor| view(index, tensor).force_contiguous().unwrap());
    assert_eq!(passes(&variables, view), copied);
}

#[test]
fn empty_batches() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let zeros = |shape: &[usize]| Var::zeros(shape, dtype, &Device::Cpu).unwrap();
        let [x, w, t, b] = [&[0, 4, 6, 7][..], &[5, 4, 3, 2], &[4, 3, 2], &[5]].map(zeros);
        let y = functional::conv_relu2d(&x, &w, t.as_tensor(), Some(&b), Options::new().stride(2)).unwrap();
        assert_eq!((y.dims(), y.dtype()), (&[0, 5, 2, 3][..], dtype));
        if dtype == DType::F64 {
            // candle's operations leave out the gradient of the bias.
            continue;
        }
        let gradients = y.backward().unwrap();
        for (name, variable) in [("x", &x), ("w", &w), ("t", &t), ("b", &b)] {
            let gradient = gradients.get(variable).unwrap_or_else(|| panic!("no gradient of {name}, {dtype:?}"));
            assert_eq!(gradient.dims(), variable.dims());
            let gradient = gradient.to_dtype(DType::F32).unwrap();
            assert!(elements(&gradient).iter().all(|&value| value == 0.0), "{dtype:?}");
        }
    }
}

/// Also within the pool, where a thread may be given a call while it waits for another.
#[test]
fn results_do_not_depend_on_threads() {
    let mut rng = source(32);
    let (x, w) = (tensor(&mut rng, &[4, 32, 24, 24]), tensor(&mut rng, &[48, 32, 3, 3]));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let layer = || {
                let (x, w) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&w).unwrap());
                let y = functional::conv_relu2d(&x, &w, 0.25, None, Options::new().padding(1)).unwrap();
                let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                [&y, gradients.get(&x).unwrap(), gradients.get(&w).unwrap()].map(elements)
            };
            let ((a, b), c) = rayon::join(|| rayon::join(layer, layer), layer);
            assert!(a == b && b == c);
            a
        })
    };
    let alone = run(1);
    assert!(run(2) == alone && run(5) == alone);
}

/// As the kernels' documentation says.
#[test]
fn ties_and_infinite_inputs() {
    let x = Var::new(&[[[1f32, 2.0, f32::NAN, f32::NEG_INFINITY]]], &Device::Cpu).unwrap();
    let (w, t) = (Tensor::new(&[[[1f32]]], &Device::Cpu).unwrap(), Var::new(&[[2f32]], &Device::Cpu).unwrap());
    let y = functional::conv_relu1d(&x, &w, t.as_tensor(), None, Options::new()).unwrap();
    let found = elements(&y);
    assert!(found[..2] == [2.0, 2.0] && found[2].is_nan() && found[3] == 2.0, "{found:?}");
    let gradients = y.backward().unwrap();
    assert_eq!(elements(gradients.get(&x).unwrap()), [0.0; 4]);
    assert_eq!(elements(gradients.get(&t).unwrap()), [3.0]);
}
