//! Gradients through candle's whole autograd, beside differences of the loss.

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::{Optimizer, SGD, VarBuilder, VarMap};
use convrelu_candle::{Options, functional, nn};

use crate::layers::{numbers, source};

/// Variables of a network of three layers.
struct Network {
    input: Var,
    weights: [Var; 3],
    thresholds: Var,
    biases: [Var; 2],
}

impl Network {
    /// Inputs and thresholds lie on grids a sixteenth apart or more, so that a small step crosses no kink.
    fn new(dtype: DType) -> Result<Self> {
        let mut rng = source(21);
        let mut variable = |shape: &[usize], scale: f64, offset: f64| {
            let len = shape.iter().product();
            let values = numbers(&mut rng, len).into_iter().map(f64::from);
            let values = values.map(|v| if scale > 0.0 { (v * scale).round() / scale + offset } else { v }).collect();
            Var::from_tensor(&Tensor::from_vec::<_, f64>(values, shape, &Device::Cpu)?.to_dtype(dtype)?)
        };
        Ok(Self {
            input: variable(&[2, 4, 7, 6], 8.0, 0.0)?,
            weights: [
                variable(&[6, 2, 3, 2], 0.0, 0.0)?,
                variable(&[5, 6, 3, 3], 0.0, 0.0)?,
                variable(&[3, 12, 2], 0.0, 0.0)?,
            ],
            thresholds: variable(&[4, 3, 2], 8.0, 1.0 / 16.0)?,
            biases: [variable(&[6], 0.0, 0.0)?, variable(&[3], 0.0, 0.0)?],
        })
    }

    fn variables(&self) -> Vec<&Var> {
        let Self { input, weights, thresholds, biases } = self;
        [input, thresholds].into_iter().chain(weights).chain(biases).collect()
    }

    /// Thresholds, groups, unequal ends; a plain layer with stride, on what candle has computed; a layer of one axis.
    fn loss(&self) -> Result<Tensor> {
        let options = Options::new().padding_before_after([1, 0], [0, 2]).groups(2);
        let thresholds = self.thresholds.as_tensor();
        let x = functional::conv_relu2d(&self.input, &self.weights[0], thresholds, Some(&self.biases[0]), options)?;
        let x = functional::conv2d(&x.tanh()?, &self.weights[1], 1, 2, 1, 1)?;
        // A transposed view, of which the layer makes a copy: positions are its channels.
        let x = x.tanh()?.flatten_from(2)?.transpose(1, 2)?;
        let (bias, options) = (Some(self.biases[1].as_tensor()), Options::new().dilation(2));
        let x = functional::conv_relu1d(&x, &self.weights[2], f64::NEG_INFINITY, bias, options)?;
        (x.sqr()?.mean_all()? + x.sum_all()?)?.to_dtype(DType::F64)
    }
}

/// Moves each variable along a few random directions.
fn compare(dtype: DType, step: f64, tolerance: f64) -> Result<()> {
    let network = Network::new(dtype)?;
    let gradients = network.loss()?.backward()?;
    let mut rng = source(22);
    for (index, variable) in network.variables().into_iter().enumerate() {
        let at = variable.as_tensor().copy()?;
        let gradient = gradients.get(variable).unwrap();
        for _ in 0..4 {
            let direction = numbers(&mut rng, at.elem_count());
            let direction = Tensor::from_vec(direction, at.shape(), &Device::Cpu)?.to_dtype(dtype)?;
            let expected = (gradient * &direction)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
            let loss = |step: f64| {
                variable.set(&(&at + (&direction * step)?)?)?;
                network.loss()?.to_scalar::<f64>()
            };
            let found = (loss(step)? - loss(-step)?) / (2.0 * step);
            assert!(
                (found - expected).abs() <= tolerance * (1.0 + expected.abs()),
                "variable {index}, {dtype:?}: the loss changes by {found} per step, the gradient says {expected}"
            );
        }
        variable.set(&at)?;
    }
    Ok(())
}

#[test]
fn differences_of_the_loss_of_kernels() {
    compare(DType::F32, 4e-3, 5e-3).unwrap();
}

#[test]
fn differences_of_the_loss_of_the_composition() {
    compare(DType::F64, 1e-5, 1e-7).unwrap();
}

/// Only what is asked for has a gradient, and the others do not change it.
#[test]
fn subsets_of_gradients() {
    let mut rng = source(23);
    let mut tensor = |shape: &[usize]| crate::layers::tensor(&mut rng, shape);
    let values = [tensor(&[2, 3, 9, 9]), tensor(&[4, 3, 3, 3]), tensor(&[3, 3, 3]), tensor(&[4])];
    let options = Options::new().padding(1);
    let run = |asked: usize, detach: bool| {
        let variables = values.each_ref().map(|value| Var::from_tensor(value).unwrap());
        let argument = |index: usize| {
            let constant = if detach { variables[index].detach() } else { values[index].clone() };
            if asked >> index & 1 == 1 { variables[index].as_tensor().clone() } else { constant }
        };
        let [x, w, t, b] = [0, 1, 2, 3].map(argument);
        let y = functional::conv_relu2d(&x, &w, &t, Some(&b), options).unwrap();
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        variables.map(|variable| gradients.get(&variable).map(crate::layers::elements))
    };
    let all = run(0b1111, false);
    assert!(all.iter().all(Option::is_some));
    for asked in 0..16 {
        for (index, gradient) in run(asked, asked % 2 == 0).into_iter().enumerate() {
            let expected = if asked >> index & 1 == 1 { all[index].clone() } else { None };
            assert_eq!(gradient, expected, "gradient {index} of {asked:04b}");
        }
    }
}

/// One variable in several layers has the sum of its gradients.
#[test]
fn a_shared_weight() {
    let mut rng = source(24);
    let x = crate::layers::tensor(&mut rng, &[1, 4, 8, 8]);
    let w = Var::from_tensor(&crate::layers::tensor(&mut rng, &[4, 4, 3, 3])).unwrap();
    let gradient = |conv: fn(&Tensor, &Tensor) -> Result<Tensor>| {
        let y = conv(&conv(&x, &w).unwrap().tanh().unwrap(), &w).unwrap();
        crate::layers::elements(y.sum_all().unwrap().backward().unwrap().get(&w).unwrap())
    };
    let ours = gradient(|x, w| functional::conv2d(x, w, 1, 1, 1, 1));
    let candles = gradient(|x, w| x.conv2d(w, 1, 1, 1, 1));
    for (ours, candles) in ours.iter().zip(candles) {
        assert!((ours - candles).abs() < 1e-3 * (1.0 + candles.abs()), "{ours} {candles}");
    }
}

/// An optimiser of candle's moves weights, biases and thresholds until a network tells two patterns apart.
#[test]
fn an_optimiser_trains_a_module() {
    let device = Device::Cpu;
    let mut rng = source(25);
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &device);
    // What candle makes at random is not the same in every run.
    let layer = nn::conv_relu2d(1, 2, [5, 5], Options::new(), vb).unwrap();
    for variable in variables.all_vars() {
        let value = crate::layers::tensor(&mut rng, variable.dims());
        variable.set(&(value * 0.3).unwrap()).unwrap();
    }
    let before = crate::layers::elements(variables.data().lock().unwrap()["thresholds"].as_tensor());
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for index in 0..32u32 {
        let label = index % 2;
        // Brighter in the left column, or in the right.
        let noise = numbers(&mut rng, 25);
        images.extend(noise.iter().enumerate().map(|(i, v)| 0.3 * v + f32::from(i % 5 == 4 * label as usize)));
        labels.push(label);
    }
    let images = Tensor::from_vec(images, (32, 1, 5, 5), &device).unwrap();
    let labels = Tensor::from_vec(labels, 32, &device).unwrap();
    let mut optimiser = SGD::new(variables.all_vars(), 0.1).unwrap();
    let mut losses = Vec::new();
    for _ in 0..60 {
        let scores = layer.forward(&images).unwrap().flatten_from(1).unwrap();
        let loss = candle_nn::loss::cross_entropy(&scores, &labels).unwrap();
        losses.push(loss.to_scalar::<f32>().unwrap());
        optimiser.backward_step(&loss).unwrap();
    }
    assert!(losses[59] < 0.1 && losses[59] < losses[0] / 4.0, "{losses:?}");
    let after = crate::layers::elements(variables.data().lock().unwrap()["thresholds"].as_tensor());
    assert!(before.iter().zip(&after).any(|(before, after)| (before - after).abs() > 1e-3), "{before:?} {after:?}");
}
