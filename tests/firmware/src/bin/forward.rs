//! Inference: real digits, one after another, through packed weights.

#![no_std]
#![no_main]

use convrelu::{Error, Pass};
use convrelu_firmware::board::{Clock, exit, peak_stack, report, spoiled};
use convrelu_firmware::golden::{BYTES, Stage, settle};
use convrelu_firmware::kernels::{Packed, infer, pack};
use convrelu_firmware::network::{
    BATCH, INFERENCE, INFERENCE_OUTPUTS, INITIAL, LAYERS, MACS, PACKED, Parameters, Samples, class, part, workspace_len,
};
use cortex_m_rt::entry;

static SAMPLES: Samples = Samples::parse(include_bytes!("../samples.bin"));
static GOLDEN: &[u8; BYTES] = include_bytes!("../golden.bin");

const INPUT_LEN: usize = INFERENCE[0].desc().input_len();
const OUTPUTS_LEN: usize = INFERENCE_OUTPUTS[LAYERS];
const PACKED_LEN: usize = PACKED[LAYERS];
const WORKSPACE_LEN: usize = workspace_len(&INFERENCE, &[Pass::ForwardPacked]);

/// Everything that the network works in.
struct Inference<'a> {
    input: &'a mut [f32; INPUT_LEN],
    outputs: &'a mut [f32; OUTPUTS_LEN],
    workspace: &'a mut [f32; WORKSPACE_LEN],
    weights: [Packed<'a>; LAYERS],
    clock: Clock,
}

impl Inference<'_> {
    /// The class of a digit, and whether each layer's outputs were the host's (if they are checked).
    fn run(&mut self, sample: usize, checked: bool, spoiled: Option<usize>) -> Result<(u8, bool), Error> {
        let mut good = true;
        SAMPLES.load(sample, self.input);
        if sample == 0 && spoiled == Some(LAYERS) {
            self.input[INPUT_LEN / 2] += 1.0;
        }
        let spoiled = spoiled.filter(|_| sample == 0);
        good &= self.layer::<0>(sample, checked, spoiled)?;
        good &= self.layer::<1>(sample, checked, spoiled)?;
        good &= self.layer::<2>(sample, checked, spoiled)?;
        Ok((class(&self.outputs[INFERENCE_OUTPUTS[LAYERS - 1]..]), good))
    }

    fn layer<const LAYER: usize>(
        &mut self,
        sample: usize,
        checked: bool,
        spoiled: Option<usize>,
    ) -> Result<bool, Error> {
        let (before, output) = self.outputs.split_at_mut(INFERENCE_OUTPUTS[LAYER]);
        let output = &mut output[..part(&INFERENCE_OUTPUTS, LAYER).len()];
        let input = match LAYER.checked_sub(1) {
            None => &self.input[..],
            Some(layer) => &before[INFERENCE_OUTPUTS[layer]..],
        };
        let (weight, parameters) = (&self.weights[LAYER], Parameters::of(&INITIAL, LAYER));
        let workspace = &mut *self.workspace;
        let (done, instructions) = self.clock.count(|| infer::<LAYER>(input, weight, parameters, output, workspace));
        done?;
        if !checked {
            return Ok(true);
        }
        if sample == 0 {
            report("infer", &[LAYER as u32, MACS[LAYER], instructions]);
        }
        let first = sample * output.len();
        Ok(settle(GOLDEN, Stage::Output(LAYER), first, output, spoiled == Some(LAYER)))
    }
}

#[entry]
fn main() -> ! {
    static mut INPUT: [f32; INPUT_LEN] = [0.0; INPUT_LEN];
    static mut OUTPUTS: [f32; OUTPUTS_LEN] = [0.0; OUTPUTS_LEN];
    static mut WEIGHTS: [f32; PACKED_LEN] = [0.0; PACKED_LEN];
    static mut WORKSPACE: [f32; WORKSPACE_LEN] = [0.0; WORKSPACE_LEN];

    exit(run(INPUT, OUTPUTS, WEIGHTS, WORKSPACE) == Some(true))
}

/// Whether everything was as it should be.
fn run(
    input: &'static mut [f32; INPUT_LEN],
    outputs: &'static mut [f32; OUTPUTS_LEN],
    weights: &'static mut [f32; PACKED_LEN],
    workspace: &'static mut [f32; WORKSPACE_LEN],
) -> Option<bool> {
    let clock = Clock::start()?;
    let spoiled = spoiled();
    let (first, rest) = weights.split_at_mut(PACKED[1]);
    let (second, third) = rest.split_at_mut(PACKED[2] - PACKED[1]);
    let weight = |layer| Parameters::of(&INITIAL, layer).weight;
    let weights =
        [pack::<0>(weight(0), first).ok()?, pack::<1>(weight(1), second).ok()?, pack::<2>(weight(2), third).ok()?];
    let mut network = Inference { input, outputs, workspace, weights, clock };
    let mut good = true;
    for sample in 0..BATCH {
        good &= network.run(sample, true, spoiled).ok()?.1;
        // Once more on the results of its own.
        good &= network.run(sample, false, None).ok()?.0 == SAMPLES.classes[sample];
    }
    report("stack", &[peak_stack()]);
    let buffers = [INPUT_LEN + OUTPUTS_LEN, PACKED_LEN, WORKSPACE_LEN].map(|len| 4 * len as u32);
    report("buffers", &buffers);
    Some(good)
}
