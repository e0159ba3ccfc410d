//! Whole layers and networks: gradients against finite differences, learning, repeatability.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::layer::{Context, Mode};
use super::*;
use crate::desc::ConvDesc;

const BATCH: usize = 2;
const TRAIN: Context = Context { batch: BATCH, threads: 1, mode: Mode::Train };

/// Values that are spread out, so that few lie within a step of a threshold or of each other.
fn spread(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| libm::sinf((i * i + 7 * i + 31 * seed) as f32)).collect()
}

/// The loss whose gradient with respect to the output is `direction`.
fn loss(layer: &mut dyn Layer, input: &[f32], direction: &[f32]) -> f64 {
    let mut output = vec![0.0; direction.len()];
    layer.forward(TRAIN, input, &mut output).unwrap();
    output.iter().zip(direction).map(|(y, d)| f64::from(*y) * f64::from(*d)).sum()
}

/// Compares all gradients of a layer with central differences; the share of elements where a kink lies within the step,
/// which may differ, is bounded.
fn check_gradients(mut layer: impl Layer, input: Shape) {
    let name = layer.name().to_owned();
    let mut x = spread(BATCH * input.len(), 1);
    let direction = spread(BATCH * layer.output().len(), 2);
    loss(&mut layer, &x, &direction);
    let mut grad_input = vec![f32::NAN; x.len()];
    layer.backward(TRAIN, &x, &direction, Some(&mut grad_input)).unwrap();

    let (mut wrong, mut total) = (0, 0);
    let mut compare = |plus: f64, minus: f64, step: f32, grad: f32| {
        let slope = (plus - minus) / (2.0 * f64::from(step));
        wrong += usize::from((slope - f64::from(grad)).abs() > 1e-2 * f64::from(grad).abs().max(1.0));
        total += 1;
    };
    let step = 2e-3;
    for i in 0..x.len() {
        let at = x[i];
        let [plus, minus] = [step, -step].map(|delta| {
            x[i] = at + delta;
            loss(&mut layer, &x, &direction)
        });
        x[i] = at;
        compare(plus, minus, step, grad_input[i]);
    }
    for p in 0..layer.parameters().len() {
        let grad = layer.parameters()[p].grad.clone();
        assert!(grad.iter().any(|&g| g != 0.0), "{name}: parameter {p} has no gradient");
        for (i, grad) in grad.into_iter().enumerate() {
            let at = layer.parameters()[p].value[i];
            let [plus, minus] = [step, -step].map(|delta| {
                layer.parameters_mut()[p].value[i] = at + delta;
                loss(&mut layer, &x, &direction)
            });
            layer.parameters_mut()[p].value[i] = at;
            compare(plus, minus, step, grad);
        }
    }
    assert!(wrong * 50 <= total, "{name}: {wrong} of {total} gradients differ from finite differences");
}

#[test]
fn gradients_are_those_of_the_layers() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let input = Shape { channels: 3, size: [1, 5, 4] };
    let desc = ConvDesc::conv3d(1, 3, 4, input.size, [1, 3, 3]).padding([0, 1, 1]).build().unwrap();
    check_gradients(Conv::new("conv", desc, None, &mut rng), input);
    // Gaussian thresholds, because with zero every padded tap is a tie, where the gradient jumps.
    check_gradients(Conv::new("convrelu", desc, Some(ThresholdInit::Gaussian(0.5)), &mut rng), input);
    check_gradients(Linear::new("linear", input, 6, &mut rng), input);
    check_gradients(MaxPool::new("pool", input), input);
    check_gradients(Relu::new("relu", input), input);
}

fn convrelu(seed: u64) -> (Network, Dataset, Dataset) {
    let (train, test) = digits::load().unwrap();
    let replacement = Replacement { activation: Activation::ConvRelu, blocks: models::ALL };
    (models::small_cnn(train.shape(), train.classes(), replacement, seed).unwrap(), train, test)
}

#[test]
fn a_few_images_are_learnt_by_heart() {
    let (mut network, train, _) = convrelu(1);
    let (few, _) = train.split(48);
    let config = Config { epochs: 40, batch: 16, weight_decay: 0.0, ..Config::default() };
    let history = fit(&mut network, &few, &few, &config, |_| {}).unwrap();
    assert_eq!(history.last().unwrap().test_accuracy, 1.0);
}

#[test]
fn one_seed_gives_the_same_bits_whatever_the_threads() {
    let run = |seed, threads| {
        let (mut network, train, test) = convrelu(seed);
        let (few, _) = train.split(200);
        let config = Config { epochs: 2, seed, threads, ..Config::default() };
        fit(&mut network, &few, &test, &config, |_| {}).unwrap();
        network.parameters().flat_map(|p| p.value.iter().map(|v| v.to_bits())).collect::<Vec<_>>()
    };
    let first = run(5, 1);
    assert_eq!(first, run(5, 1));
    assert_eq!(first, run(5, 3));
    assert_ne!(first, run(6, 1));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let (mut network, train, test) = convrelu(1);
    let mut refusal = |config: Config| fit(&mut network, &train, &test, &config, |_| {}).unwrap_err().to_string();
    assert_eq!(refusal(Config { batch: 0, ..Config::default() }), "batch is 0: it must be at least 1");
    assert_eq!(
        refusal(Config { learning_rate: f32::NAN, ..Config::default() }),
        "learning rate is NaN: it must be a finite number, 0 or greater"
    );
    let diverged = refusal(Config { learning_rate: 1e30, epochs: 2, ..Config::default() });
    assert!(diverged.contains("diverged") || diverged.contains("NaN"), "{diverged}");
}
