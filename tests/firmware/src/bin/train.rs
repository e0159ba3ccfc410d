//! One step of gradient descent on real digits: forward, loss, backward, update.

#![no_std]
#![no_main]

use convrelu::{Error, Pass};
use convrelu_firmware::board::{Clock, exit, peak_stack, report, spoiled};
use convrelu_firmware::golden::{BYTES, STAGES, Stage, settle};
use convrelu_firmware::kernels::{backward_input, backward_weight, forward};
use convrelu_firmware::network::{
    BATCH, INITIAL, LAYERS, LEARNING_RATE, MACS, PARAMETERS, Parameters, Samples, TRAINING, TRAINING_OUTPUTS, loss,
    part, workspace_len,
};
use cortex_m_rt::entry;

static SAMPLES: Samples = Samples::parse(include_bytes!("../samples.bin"));
static GOLDEN: &[u8; BYTES] = include_bytes!("../golden.bin");

const INPUT_LEN: usize = TRAINING[0].desc().input_len();
const OUTPUTS_LEN: usize = TRAINING_OUTPUTS[LAYERS];
const PARAMETERS_LEN: usize = PARAMETERS[LAYERS];
const WORKSPACE_LEN: usize = workspace_len(&TRAINING, &[Pass::Forward, Pass::BackwardWeight, Pass::BackwardInput]);

/// Everything that training works in.
struct Training {
    parameters: &'static mut [f32; PARAMETERS_LEN],
    gradients: &'static mut [f32; PARAMETERS_LEN],
    input: &'static mut [f32; INPUT_LEN],
    grad_input: &'static mut [f32; INPUT_LEN],
    outputs: &'static mut [f32; OUTPUTS_LEN],
    grad_outputs: &'static mut [f32; OUTPUTS_LEN],
    workspace: &'static mut [f32; WORKSPACE_LEN],
    clock: Clock,
}

/// Compares results with the host's.
struct Check {
    /// Whether to compare at all.
    on: bool,
    spoiled: Option<usize>,
    good: bool,
}

impl Check {
    fn settle(&mut self, stage: Stage, values: &mut [f32]) {
        if self.on {
            let spoil = self.spoiled.and_then(|index| STAGES.get(index)) == Some(&stage);
            self.good &= settle(GOLDEN, stage, 0, values, spoil);
        }
    }

    fn report(&self, name: &str, layer: usize, instructions: u32) {
        if self.on {
            report(name, &[layer as u32, BATCH as u32 * MACS[layer], instructions]);
        }
    }
}

impl Training {
    /// The mean loss; `outputs` end in the gradient of it by the logits.
    fn forward(&mut self, check: &mut Check) -> Result<f32, Error> {
        self.forward_layer::<0>(check)?;
        self.forward_layer::<1>(check)?;
        self.forward_layer::<2>(check)?;
        Ok(loss(&mut self.outputs[part(&TRAINING_OUTPUTS, LAYERS - 1)], &SAMPLES.labels))
    }

    fn forward_layer<const LAYER: usize>(&mut self, check: &mut Check) -> Result<(), Error> {
        let (before, output) = self.outputs.split_at_mut(TRAINING_OUTPUTS[LAYER]);
        let output = &mut output[..part(&TRAINING_OUTPUTS, LAYER).len()];
        let input = match LAYER.checked_sub(1) {
            None => &self.input[..],
            Some(layer) => &before[TRAINING_OUTPUTS[layer]..],
        };
        let parameters = Parameters::of(self.parameters, LAYER);
        let workspace = &mut *self.workspace;
        let (done, instructions) = self.clock.count(|| forward::<LAYER>(input, parameters, output, workspace));
        done?;
        check.report("forward", LAYER, instructions);
        check.settle(Stage::Output(LAYER), output);
        Ok(())
    }

    /// The mean loss before the step.
    fn step(&mut self, check: &mut Check) -> Result<f32, Error> {
        let loss = self.forward(check)?;
        let logits = part(&TRAINING_OUTPUTS, LAYERS - 1);
        check.settle(Stage::Loss, &mut self.outputs[logits.clone()]);
        self.grad_outputs[logits.clone()].copy_from_slice(&self.outputs[logits]);
        self.backward_layer::<2>(check)?;
        self.backward_layer::<1>(check)?;
        self.backward_layer::<0>(check)?;
        for (parameter, gradient) in self.parameters.iter_mut().zip(self.gradients.iter()) {
            *parameter -= LEARNING_RATE * gradient;
        }
        check.settle(Stage::Step, self.parameters);
        Ok(loss)
    }

    fn backward_layer<const LAYER: usize>(&mut self, check: &mut Check) -> Result<(), Error> {
        let (grad_before, grad_output) = self.grad_outputs.split_at_mut(TRAINING_OUTPUTS[LAYER]);
        let grad_output = &grad_output[..part(&TRAINING_OUTPUTS, LAYER).len()];
        let (input, grad_input) = match LAYER.checked_sub(1) {
            None => (&self.input[..], &mut self.grad_input[..]),
            Some(layer) => (&self.outputs[part(&TRAINING_OUTPUTS, layer)], &mut grad_before[TRAINING_OUTPUTS[layer]..]),
        };
        let parameters = Parameters::of(self.parameters, LAYER);
        let mut gradients = Parameters::of_mut(self.gradients, LAYER);
        let workspace = &mut *self.workspace;
        let (done, instructions) =
            self.clock.count(|| backward_weight::<LAYER>(input, &parameters, grad_output, &mut gradients, workspace));
        done?;
        check.report("backward_weight", LAYER, instructions);
        check.settle(Stage::GradWeight(LAYER), gradients.weight);
        check.settle(Stage::GradBias(LAYER), gradients.bias);

        let (done, instructions) = self
            .clock
            .count(|| backward_input::<LAYER>(input, &parameters, grad_output, grad_input, &mut gradients, workspace));
        done?;
        check.report("backward_input", LAYER, instructions);
        check.settle(Stage::GradInput(LAYER), grad_input);
        check.settle(Stage::GradThresholds(LAYER), gradients.thresholds);
        Ok(())
    }
}

#[entry]
fn main() -> ! {
    static mut A: [f32; PARAMETERS_LEN] = [0.0; PARAMETERS_LEN];
    static mut B: [f32; PARAMETERS_LEN] = [0.0; PARAMETERS_LEN];
    static mut C: [f32; INPUT_LEN] = [0.0; INPUT_LEN];
    static mut D: [f32; INPUT_LEN] = [0.0; INPUT_LEN];
    static mut E: [f32; OUTPUTS_LEN] = [0.0; OUTPUTS_LEN];
    static mut F: [f32; OUTPUTS_LEN] = [0.0; OUTPUTS_LEN];
    static mut G: [f32; WORKSPACE_LEN] = [0.0; WORKSPACE_LEN];

    let good = Clock::start().and_then(|clock| {
        run(Training {
            parameters: A,
            gradients: B,
            input: C,
            grad_input: D,
            outputs: E,
            grad_outputs: F,
            workspace: G,
            clock,
        })
    });
    exit(good == Some(true))
}

/// Whether everything was as it should be.
fn run(mut training: Training) -> Option<bool> {
    let mut check = Check { on: true, spoiled: spoiled(), good: true };
    SAMPLES.load(0, training.input);
    training.parameters.copy_from_slice(&INITIAL);
    if check.spoiled == Some(STAGES.len()) {
        training.parameters[0] += 0.125;
    }
    let mut losses = [training.step(&mut check).ok()?, 0.0];

    // Once more on the results of its own, and on to the loss after the step.
    let mut unchecked = Check { on: false, spoiled: None, good: true };
    training.parameters.copy_from_slice(&INITIAL);
    training.step(&mut unchecked).ok()?;
    losses[1] = training.forward(&mut unchecked).ok()?;
    let mut good = check.good && losses[1] < losses[0];
    for (loss, want) in losses.iter().zip(SAMPLES.losses) {
        good &= (loss - want).abs() < 1e-4;
    }

    report("stack", &[peak_stack()]);
    let numbers = 2 * (PARAMETERS_LEN + INPUT_LEN + OUTPUTS_LEN);
    report("buffers", &[4 * numbers as u32, 0, 4 * WORKSPACE_LEN as u32]);
    Some(good)
}
