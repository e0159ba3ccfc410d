//! Computes what the firmware compares with, by the oracle on the host, from lines of the bundled digits on standard
//! input: 64 pixels and a label, separated by commas.
//!
//! `cargo run --example golden DIRECTORY` writes `samples.bin` and `golden.bin` there.

use std::error::Error;
use std::io::BufRead;
use std::path::PathBuf;

use convrelu::reference::{self, Sum, Thetas, error_bound, gradient_error_bound};
use convrelu_firmware::golden::{BYTES, STAGES, Stage};
use convrelu_firmware::network::{
    BATCH, CLASSES, INITIAL, LAYERS, LEARNING_RATE, Parameters, Samples, TRAINING, class, loss,
};

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// Results of a pass, as the firmware is to find them.
#[derive(Default)]
struct Results {
    /// What later stages compute with.
    values: Vec<f32>,
    bytes: Vec<u8>,
}

impl Results {
    fn new(values: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut results = Self::default();
        for (value, bound) in values {
            let nearest = value as f32;
            // What rounding the exact value took is no longer the firmware's to lose; f32 rounds the rest down.
            let bound = bound - (f64::from(nearest) - value).abs();
            let mut narrow = bound as f32;
            if f64::from(narrow) > bound {
                narrow = narrow.next_down();
            }
            assert!(narrow > 0.0, "no room between {value} and its f32");
            results.values.push(nearest);
            results.bytes.extend(nearest.to_le_bytes());
            results.bytes.extend(narrow.to_le_bytes());
        }
        results
    }

    /// With the bound of their magnitudes.
    fn of_sums(sums: &[Sum<f64>], bound: impl Fn(f64) -> f64) -> Self {
        Self::new(sums.iter().map(|sum| (sum.value, bound(sum.magnitude))))
    }
}

struct Network {
    parameters: Vec<f32>,
    outputs: Vec<Vec<f32>>,
}

impl Network {
    fn layer(&self, layer: usize) -> Parameters<Vec<f64>> {
        let all = self.parameters.as_slice().try_into().expect("all parameters");
        let Parameters { weight, thresholds, bias } = Parameters::of(all, layer);
        Parameters { weight: wide(weight), thresholds: wide(thresholds), bias: wide(bias) }
    }

    /// Outputs of all layers from the input on, each from the f32 of the one before.
    fn forward(&mut self, input: &[f32]) -> Vec<Results> {
        self.outputs = vec![input.to_vec()];
        let mut results = Vec::new();
        for (layer, plan) in TRAINING.iter().enumerate() {
            let desc = plan.desc();
            let Parameters { weight, thresholds, bias } = self.layer(layer);
            let (input, thresholds) = (wide(&self.outputs[layer]), Thetas::PerTap(&thresholds));
            let mut sums = vec![Sum::ZERO; desc.output_len()];
            reference::forward(desc, &input, &weight, thresholds, Some(&bias), &mut sums);
            let terms = desc.in_channels() * desc.taps();
            let result = Results::of_sums(&sums, |magnitude| error_bound(terms, magnitude));
            self.outputs.push(result.values.clone());
            results.push(result);
        }
        results
    }
}

/// Softmax cross entropy in f64, by `libm` so that every host finds the same bits: the mean loss, and the gradient by the logits.
fn softmax(logits: &[f32], labels: &[u8; BATCH]) -> (f64, Vec<f64>) {
    let mut sum = 0.0;
    let mut gradient = Vec::new();
    for (logits, label) in logits.chunks_exact(CLASSES).zip(labels) {
        let exps: Vec<f64> = logits.iter().map(|logit| libm::exp(f64::from(*logit))).collect();
        let total: f64 = exps.iter().sum();
        sum += libm::log(total / exps[usize::from(*label)]);
        for (class, exp) in exps.iter().enumerate() {
            gradient.push((exp / total - f64::from(class == usize::from(*label))) / BATCH as f64);
        }
    }
    (sum / BATCH as f64, gradient)
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("which directory to write to?")?);
    let mut samples = Samples { pixels: [[0; 64]; BATCH], labels: [0; BATCH], classes: [0; BATCH], losses: [0.0; 2] };
    let mut lines = std::io::stdin().lock().lines();
    for (pixels, label) in samples.pixels.iter_mut().zip(&mut samples.labels) {
        let line = lines.next().ok_or("too few digits")??;
        let mut numbers = line.split(',').map(str::parse::<u8>);
        for number in pixels.iter_mut().chain([label]) {
            *number = numbers.next().ok_or("too few pixels")??;
        }
    }
    let mut input = vec![0.0; TRAINING[0].desc().input_len()];
    samples.load(0, &mut input);

    let mut network = Network { parameters: INITIAL.to_vec(), outputs: Vec::new() };
    let mut golden: Vec<(Stage, Results)> = Vec::new();
    for (layer, result) in network.forward(&input).into_iter().enumerate() {
        golden.push((Stage::Output(layer), result));
    }

    let logits = &network.outputs[LAYERS];
    for (logits, of_sample) in logits.chunks_exact(CLASSES).zip(&mut samples.classes) {
        *of_sample = class(logits);
        let mut sorted = logits.to_vec();
        sorted.sort_by(f32::total_cmp);
        assert!(sorted[CLASSES - 1] - sorted[CLASSES - 2] > 1e-3, "two classes are too close to tell on f32");
    }
    let (mean, gradient) = softmax(logits, &samples.labels);
    samples.losses[0] = mean as f32;
    // Not the library's: a few roundings and two elementary functions of numbers below 1, divided by the batch.
    let gradient = Results::new(gradient.iter().map(|value| (*value, 16.0 * f64::from(f32::EPSILON) / BATCH as f64)));
    // The firmware's own loss, on the host.
    let mut ours = logits.clone();
    assert!((f64::from(loss(&mut ours, &samples.labels)) - mean).abs() < 1e-5);
    let mut grad_output = gradient.values.clone();
    golden.push((Stage::Loss, gradient));

    let mut gradients = vec![0.0; INITIAL.len()];
    for layer in (0..LAYERS).rev() {
        let desc = TRAINING[layer].desc();
        let Parameters { weight, thresholds, .. } = network.layer(layer);
        let (input, above) = (wide(&network.outputs[layer]), wide(&grad_output));
        let thresholds = Thetas::PerTap(&thresholds);
        let positions = desc.batch() * desc.output_size().iter().product::<usize>();
        // Of sums over positions, each a sum of so many terms.
        let over_positions = |terms| move |magnitude| gradient_error_bound(terms, positions, magnitude);

        let mut sums = (vec![Sum::ZERO; desc.weight_len()], vec![Sum::ZERO; desc.bias_len()]);
        reference::backward_weight(desc, &input, thresholds, &above, &mut sums.0, &mut sums.1);
        let (weight_results, bias_results) =
            (Results::of_sums(&sums.0, over_positions(1)), Results::of_sums(&sums.1, over_positions(1)));

        let mut sums = (vec![Sum::ZERO; desc.input_len()], vec![Sum::ZERO; desc.threshold_len()]);
        reference::backward_input(desc, &input, &weight, thresholds, &above, &mut sums.0, &mut sums.1);
        let terms = desc.out_channels() * desc.taps();
        let input_results = Results::of_sums(&sums.0, |magnitude| error_bound(terms, magnitude));
        let threshold_results = Results::of_sums(&sums.1, over_positions(desc.out_channels()));

        let all = gradients.as_mut_slice().try_into()?;
        let of_layer = Parameters::of_mut(all, layer);
        of_layer.weight.copy_from_slice(&weight_results.values);
        of_layer.thresholds.copy_from_slice(&threshold_results.values);
        of_layer.bias.copy_from_slice(&bias_results.values);
        grad_output.clone_from(&input_results.values);
        golden.push((Stage::GradWeight(layer), weight_results));
        golden.push((Stage::GradBias(layer), bias_results));
        golden.push((Stage::GradInput(layer), input_results));
        golden.push((Stage::GradThresholds(layer), threshold_results));
    }

    // One product and one sum.
    let step = Results::new(INITIAL.iter().zip(&gradients).map(|(parameter, gradient)| {
        let (parameter, change) = (f64::from(*parameter), f64::from(LEARNING_RATE) * f64::from(*gradient));
        (parameter - change, error_bound(1, parameter.abs() + change.abs()))
    }));
    network.parameters.clone_from(&step.values);
    golden.push((Stage::Step, step));
    network.forward(&input);
    samples.losses[1] = softmax(&network.outputs[LAYERS], &samples.labels).0 as f32;
    assert!(samples.losses[1] < samples.losses[0]);

    let mut bytes = Vec::new();
    for (stage, (made, results)) in STAGES.iter().zip(&golden) {
        assert_eq!(stage, made);
        assert_eq!(results.values.len(), stage.count());
        bytes.extend(&results.bytes);
    }
    assert_eq!(bytes.len(), BYTES);
    std::fs::write(directory.join("golden.bin"), bytes)?;

    let mut bytes = Vec::new();
    for sample in 0..BATCH {
        bytes.extend(samples.pixels[sample]);
        bytes.extend([samples.labels[sample], samples.classes[sample]]);
    }
    bytes.extend(samples.losses.iter().flat_map(|loss| loss.to_le_bytes()));
    assert_eq!(bytes.len(), Samples::LEN);
    std::fs::write(directory.join("samples.bin"), bytes)?;
    println!("loss {} before the step, {} after it", samples.losses[0], samples.losses[1]);
    Ok(())
}
