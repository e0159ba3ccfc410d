//! Whole networks: their gradients, learning by heart, the same bits on any number of threads.

use std::ops::ControlFlow;

use crate::isa::Isa;
use crate::train::data::{Request, Values, synthetic};
use crate::train::models::{Activation, Architecture, Input, ModelConfig, Region};
use crate::train::*;

/// Every network, narrow where its architecture allows it, with an activation everywhere that it can stand.
pub(super) fn models(activation: Activation) -> Vec<ModelConfig> {
    Architecture::ALL_VALUES
        .iter()
        .map(|&network| {
            let model = ModelConfig {
                network,
                activation,
                region: Region::All,
                growth: Some(4),
                depth: Some(3),
                features: Some(12),
                units: Some(16),
                embedding: Some(8),
                ..ModelConfig::default()
            }
            .relevant();
            ModelConfig { dropout: if network.reads_text() { 0.0 } else { model.dropout }, ..model }
        })
        .collect()
}

/// A data set that suits a network: random images, or random texts of one word more often than others.
pub(super) fn data(network: Architecture, examples: usize) -> Dataset {
    if network == Architecture::TextCnn {
        let length = 30;
        let ids = (0..examples * length).map(|i| (i * i % 37 + i % 3) as u16).collect();
        let labels = (0..examples).map(|i| (i % 4) as u16).collect();
        let values = Values::Tokens { ids, text: Text::Words(40) };
        return Dataset::new("texts", Shape::new(1, [1, 1, length]), 4, values, labels).unwrap();
    }
    let synthetic = data::Synthetic { classes: 4, train: examples, test: 1, ..data::Synthetic::default() };
    synthetic::load(&Request { synthetic, ..Request::new("".as_ref()) }).unwrap().0
}

fn input_of(data: &Dataset) -> Input {
    input(data)
}

/// Sum of the loss over a batch, and the network's gradients if asked.
fn loss(network: &mut Network, images: &[f32], labels: &[usize], backward: bool) -> f64 {
    let logits = network.forward(Mode::Train, images).unwrap();
    if !backward {
        let mut unused = vec![0.0; logits.len()];
        return softmax_cross_entropy(logits, labels, 4, 0.0, 1, &mut unused).0;
    }
    network.backward(|logits, grad| softmax_cross_entropy(logits, labels, 4, 0.0, 1, grad).0).unwrap()
}

/// Along a direction through the parameters of a kind, the loss changes as its gradient says.
#[test]
fn gradients_are_those_of_the_networks() {
    for activation in [Activation::Relu, Activation::Convrelu, Activation::Prelu, Activation::Elu] {
        for mut model in models(activation) {
            let large = matches!(model.network, Architecture::Vgg16 | Architecture::Resnet18);
            if large && activation != Activation::Convrelu {
                // Their layers are those of the others, and a pass takes seconds.
                continue;
            }
            // Zero is where every padded tap is a tie, and a step in one direction meets another slope than in the other.
            model.threshold_init = ThresholdInit::Gaussian(0.3);
            let model = model.relevant();
            // Normalising over few values is far from linear: the deepest network ends at one position per image.
            let batch = if model.network == Architecture::Vgg16 { 24 } else { 8 };
            let data = data(model.network, batch);
            let mut network = model.build(input_of(&data), Isa::detect(), 3).unwrap();
            let layout = network.input().layout;
            let mut images = vec![0.0; batch * data.shape().len()];
            for (index, image) in images.chunks_exact_mut(data.shape().len()).enumerate() {
                data.read(index, None, layout, image);
            }
            let labels: Vec<_> = (0..batch).map(|index| data.label(index)).collect();
            loss(&mut network, &images, &labels, true);
            for kind in [Kind::Weight, Kind::Threshold, Kind::Norm, Kind::Bias, Kind::Slope] {
                // The steepest parameters of the kind: were all of a large network changed at once, each step would be
                // lost in rounding.
                let state = network.state();
                let grads: Vec<f32> =
                    state.iter().filter(|p| p.kind == kind).flat_map(|p| p.grad.iter().copied()).collect();
                let mut steepest: Vec<usize> = (0..grads.len()).collect();
                steepest.sort_by(|&a, &b| grads[b].abs().total_cmp(&grads[a].abs()));
                steepest.truncate(48);
                let mut direction = vec![0.0; grads.len()];
                steepest.iter().for_each(|&index| direction[index] = f64::from(grads[index].signum()));
                let slope: f64 = steepest.iter().map(|&index| f64::from(grads[index].abs())).sum();
                if direction.is_empty() {
                    continue;
                }
                // Such a step changes the loss by a thousandth: above the rounding of `f32`, below most kinks.
                let step = 1e-3 / slope.max(1e-12);
                let mut at = |factor: f64| {
                    let mut before = Vec::new();
                    let mut directions = direction.iter();
                    network.visit_mut(|parameter| {
                        if parameter.kind == kind {
                            before.push(parameter.value.clone());
                            for (value, d) in parameter.value.iter_mut().zip(&mut directions) {
                                *value = (f64::from(*value) + factor * step * d) as f32;
                            }
                        }
                    });
                    let loss = loss(&mut network, &images, &labels, false);
                    let mut before = before.into_iter();
                    network.visit_mut(|parameter| {
                        if parameter.kind == kind
                            && let Some(value) = before.next()
                        {
                            parameter.value = value;
                        }
                    });
                    loss
                };
                let found = (at(1.0) - at(-1.0)) / (2.0 * step);
                let name = model.network;
                assert!(slope > 0.0, "{name}, {activation}, {kind:?}: no gradient");
                assert!((found - slope).abs() <= 0.1 * slope, "{name}, {activation}, {kind:?}: {found} {slope}");
            }
        }
    }
}

/// A few random images, which only the weights can remember.
#[test]
fn a_few_examples_are_learnt_by_heart() {
    for model in models(Activation::Convrelu) {
        let text = model.network == Architecture::TextCnn;
        let mut config = Config { model, ..Config::default() };
        let data = data(config.model.network, 16);
        let small = matches!(config.model.network, Architecture::SmallCnn | Architecture::TextCnn);
        (config.train.epochs, config.train.batch) = if small { (120, 8) } else { (30, 8) };
        config.train.learning_rate = 0.01;
        config.train.schedule = Schedule::Step { milestones: vec![usize::MAX], factor: 1.0 };
        config.train.decay = Decay { weights: 0.0, thresholds: 0.0, norms_and_biases: 0.0 };
        let mut trainer = Trainer::new(&config, &data).unwrap();
        let mut best = 0.0f64;
        while best < 1.0 && !trainer.is_finished() {
            let epoch = trainer.epoch(&data, &data, &mut |_| ControlFlow::Continue(())).unwrap().unwrap();
            best = best.max(epoch.accuracy);
        }
        let learnt = trainer.history().last().map(|epoch| epoch.loss);
        assert!(best >= 1.0, "{}: {best} of 16 examples, loss {learnt:?}, text {text}", config.model.network);
    }
}

/// All bits of a network's state.
pub(super) fn bits(network: &Network) -> Vec<u32> {
    network.state().iter().flat_map(|parameter| parameter.value.iter().map(|value| value.to_bits())).collect()
}

#[test]
fn one_seed_gives_the_same_bits_whatever_the_threads() {
    for channels_last in [false, true] {
        for model in models(Activation::Convrelu) {
            if model.network == Architecture::Vgg16 || model.network == Architecture::Resnet18 {
                // Made of the layers of the others, and slow.
                continue;
            }
            let data = data(model.network, 13);
            let run = |seed, threads| {
                let mut config = Config { model: model.clone(), ..Config::default() };
                (config.train.epochs, config.train.batch, config.train.seed) = (1, 6, seed);
                config.model.channels_last = channels_last;
                config.model.dropout = 0.3;
                config.model = config.model.relevant();
                config.train.threads = std::num::NonZeroUsize::new(threads);
                let mut trainer = Trainer::new(&config, &data).unwrap();
                trainer.epoch(&data, &data, &mut |_| ControlFlow::Continue(())).unwrap();
                bits(trainer.network())
            };
            let first = run(5, 1);
            assert_eq!(first, run(5, 1), "{}", model.network);
            assert_eq!(first, run(5, 3), "{}", model.network);
            assert_ne!(first, run(6, 1), "{}", model.network);
        }
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let data = data(Architecture::SmallCnn, 4);
    let refusal = |change: &dyn Fn(&mut TrainConfig)| {
        let mut config = Config::default();
        change(&mut config.train);
        Trainer::new(&config, &data).err().unwrap().to_string()
    };
    assert_eq!(refusal(&|train| train.batch = 0), "batch is 0: it must be at least 1");
    assert_eq!(refusal(&|train| train.micro_batch = Some(100)), "micro-batch is 100: it must divide the batch, 128");
    assert_eq!(
        refusal(&|train| train.learning_rate = f32::NAN),
        "learning-rate is NaN: it must be a finite number, 0 or greater"
    );
    assert_eq!(
        refusal(&|train| train.label_smoothing = 1.0),
        "label-smoothing is 1: it must be at least 0 and less than 1"
    );
    assert!(refusal(&|train| train.isa = Some("mmx".to_owned())).starts_with("isa is mmx: "));
    let mut config = Config::default();
    (config.train.learning_rate, config.train.epochs, config.train.batch) = (1e30, 3, 2);
    let mut trainer = Trainer::new(&config, &data).unwrap();
    let mut failure = None;
    while failure.is_none() && !trainer.is_finished() {
        failure = trainer.epoch(&data, &data, &mut |_| ControlFlow::Continue(())).err();
    }
    let failure = failure.map(|error| error.to_string()).unwrap_or_default();
    assert!(failure.contains("diverged") || failure.contains("NaN"), "{failure}");
}

#[test]
fn micro_batches_add_up_to_a_batch() {
    // No normalisation, whose moments are those of what goes through the network at once.
    let data = data(Architecture::SmallCnn, 10);
    let run = |micro_batch| {
        let mut config = Config::default();
        (config.train.epochs, config.train.batch, config.train.micro_batch) = (2, 4, micro_batch);
        config.train.learning_rate = 0.01;
        let mut trainer = Trainer::new(&config, &data).unwrap();
        while !trainer.is_finished() {
            trainer.epoch(&data, &data, &mut |_| ControlFlow::Continue(())).unwrap();
        }
        trainer.network().state().iter().flat_map(|parameter| parameter.value.clone()).collect::<Vec<_>>()
    };
    let whole = run(None);
    for (a, b) in whole.iter().zip(run(Some(2))) {
        assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} {b}");
    }
}
