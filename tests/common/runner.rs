//! One runner for every pass on every instruction set, between guard words.

use convrelu::{
    Accumulation, BackwardInput, BackwardWeight, ConvDesc, ConvRelu, Epilogue, Forward, Gradient, InputGradients, Isa,
    Pass, Residual, Thresholds, Tuning, Weight, WeightGradients,
};

use super::buffer::{Guarded, Placement};
use super::case::{Case, Ending, Rng, Tensor, Theta};
use super::oracle::pass_lens;
use super::workers::Workers;

/// Every call of a plan.
pub(crate) const PASSES: [Pass; 5] =
    [Pass::Forward, Pass::ForwardPacked, Pass::BackwardInput, Pass::BackwardInputPacked, Pass::BackwardWeight];

/// The instruction sets to test: all that this machine has, and the sixteen emulated lanes where the build has them.
pub(crate) fn isas() -> impl Iterator<Item = Isa> {
    // MemorySanitizer does not see what inline assembly writes, as vectors' partial stores are, and takes offence at a
    // selection in lanes that nobody stores.
    let seen = |isa: &Isa| !cfg!(convrelu_msan) || *isa == Isa::Scalar;
    Isa::available().chain([Isa::Emulated512]).filter(|isa| isa.is_available()).filter(seen)
}

/// A plan, of the instruction set's own tiles and blocks or of injected ones.
pub(crate) fn plan(desc: ConvDesc, isa: Isa, tuning: Option<Tuning>) -> ConvRelu {
    let plan = match tuning {
        None => ConvRelu::with_isa(desc, isa),
        Some(tuning) => ConvRelu::with_tuning(desc, isa, tuning),
    };
    plan.unwrap_or_else(|error| panic!("{isa}: {error}"))
}

/// How to make a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) at: Placement,
    /// Whether to ask for the gradient of the input or of the weight, and for that of the thresholds or of the bias.
    pub(crate) wanted: [bool; 2],
    /// How many floats farther each buffer lies than the one before, up to a cache line: no two need be aligned alike.
    pub(crate) scatter: usize,
    /// The seed of what the workspace holds before: any bits, or NaN everywhere.
    pub(crate) workspace: Option<u64>,
    pub(crate) workers: Workers,
}

impl Default for How {
    fn default() -> Self {
        let (at, workers) = (Placement::default(), Workers::USUAL);
        Self { at, wanted: [true; 2], scatter: 0, workspace: None, workers }
    }
}

/// What a pass wrote: its main output, and its optional one if it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Results {
    pub(crate) names: [&'static str; 2],
    pub(crate) values: [Option<Vec<f32>>; 2],
}

impl Results {
    /// The values of the main output.
    pub(crate) fn main(&self) -> &[f32] {
        self.values[0].as_deref().expect("the main output was not asked for")
    }

    /// The values of the optional output.
    pub(crate) fn second(&self) -> &[f32] {
        self.values[1].as_deref().expect("the second output was not asked for")
    }

    /// Bit patterns, for comparisons that mean identity.
    pub(crate) fn bits(&self) -> [Option<Vec<u32>>; 2] {
        self.values.each_ref().map(|values| values.as_ref().map(|values| values.iter().map(|v| v.to_bits()).collect()))
    }

    /// Numbers to accumulate on, where that is asked for, in the form of the results of a pass.
    pub(crate) fn prior(case: &Case, pass: Pass, adds: [bool; 2], mut fill: impl FnMut(usize) -> Vec<f32>) -> Self {
        let lens = pass_lens(case, pass);
        let values = [0, 1].map(|which| adds[which].then(|| fill(lens[which])));
        Self { names: pass_names(pass), values }
    }
}

fn pass_names(pass: Pass) -> [&'static str; 2] {
    match pass {
        Pass::Forward | Pass::ForwardPacked => ["output", ""],
        Pass::BackwardInput | Pass::BackwardInputPacked => ["grad_input", "grad_thresholds"],
        Pass::BackwardWeight => ["grad_weight", "grad_bias"],
    }
}

/// Runs one pass with exactly the workspace it asks for; adds to the gradients of `prior` that there are.
///
/// # Panics
///
/// If the call fails, or writes outside of its buffers or between pixels or images.
pub(crate) fn run(plan: &ConvRelu, pass: Pass, case: &Case, how: How, prior: Option<&Results>) -> Results {
    let desc = &case.desc;
    let at = |buffer: usize| Placement { offset: how.at.offset + buffer * how.scatter % 17, ..how.at };
    let exact = |buffer| Placement { slack: 0, ..at(buffer) };
    let mut workspace = Guarded::unwritten(plan.workspace_len(pass), exact(0));
    if let Some(seed) = how.workspace {
        let mut rng = Rng(seed);
        workspace.slice_mut().fill_with(|| f32::from_bits(rng.bits()));
    }
    let lens = pass_lens(case, pass);
    let forward = matches!(pass, Pass::Forward | Pass::ForwardPacked);
    let ending = case.ending.as_ref().filter(|_| forward);
    let before = |which: usize| ending.filter(|_| which == 0).and_then(|ending| ending.before());
    let output = |which: usize| match before(which).or(prior.and_then(|prior| prior.values[which].as_ref())) {
        Some(prior) => Guarded::new(prior, at(1 + which)),
        None => Guarded::unwritten(lens[which], at(1 + which)),
    };
    let asked = [forward || how.wanted[0], !forward && how.wanted[1]];
    let mut outputs = [0, 1].map(|which| asked[which].then(|| output(which)));
    // Gaps must stay as they are.
    let before = outputs.each_ref().map(|output| output.as_ref().map(|output| output.slice().to_vec()));

    let input = Guarded::new(&case.input, at(3));
    let weight = Guarded::new(&case.weight, at(4));
    let grad_output = Guarded::new(&case.grad_output, at(5));
    let bias = case.bias.as_ref().map(|bias| Guarded::new(bias, at(6)));
    let part = |part: fn(&Ending) -> &Option<Vec<f32>>, buffer| {
        ending.and_then(|ending| part(ending).as_ref()).map(|values| Guarded::new(values, at(buffer)))
    };
    let (scale, shift) = (part(|ending| &ending.scale, 9), part(|ending| &ending.shift, 10));
    let residual = part(|ending| &ending.residual, 11);
    let per_tap;
    let thresholds = match &case.theta {
        Theta::Uniform(theta) => Thresholds::Uniform(*theta),
        Theta::PerTap(theta) => {
            per_tap = Guarded::new(theta, at(7));
            Thresholds::PerTap(per_tap.slice())
        }
    };
    let (input, weight, grad_output) = (input.slice(), weight.slice(), grad_output.slice());
    let packed_len = match pass {
        Pass::Forward | Pass::ForwardPacked => plan.packed_weight_len(),
        Pass::BackwardInput | Pass::BackwardInputPacked => plan.packed_weight_transposed_len(),
        Pass::BackwardWeight => 0,
    };
    let mut buffer = Guarded::unwritten(packed_len, exact(8));
    let packed;
    let weight = match pass {
        Pass::ForwardPacked => {
            packed = plan.pack_weight(weight, buffer.slice_mut()).expect("a buffer of packed_weight_len");
            Weight::Packed(&packed)
        }
        Pass::BackwardInputPacked => {
            packed = plan.pack_weight_transposed(weight, buffer.slice_mut()).expect("a buffer of the right length");
            Weight::Packed(&packed)
        }
        _ => Weight::Plain(weight),
    };

    let accumulation = |which: usize| match prior.and_then(|prior| prior.values[which].as_ref()) {
        Some(_) => Accumulation::Add,
        None => Accumulation::Overwrite,
    };
    let accumulations = [0, 1].map(accumulation);
    let [main, second] = &mut outputs;
    let done = match pass {
        Pass::Forward | Pass::ForwardPacked => {
            let mut operands = Forward::new(input, weight, thresholds);
            if let Some(bias) = &bias {
                operands = operands.bias(bias.slice());
            }
            if let Some(ending) = ending {
                let mut epilogue = Epilogue::new().clamp(ending.bounds[0], ending.bounds[1]);
                (epilogue.scale, epilogue.shift) =
                    (scale.as_ref().map(Guarded::slice), shift.as_ref().map(Guarded::slice));
                epilogue.residual = residual.as_ref().map(|residual| match ending.in_output {
                    true => Residual::Output,
                    false => Residual::Tensor(residual.slice()),
                });
                operands = operands.epilogue(epilogue);
            }
            let output = main.as_mut().map_or(&mut [][..], Guarded::slice_mut);
            plan.forward(operands, output, workspace.slice_mut(), &how.workers)
        }
        Pass::BackwardInput | Pass::BackwardInputPacked => {
            let operands = match case.theta.is_linear() {
                true => BackwardInput::linear(weight, grad_output),
                false => BackwardInput::new(input, weight, thresholds, grad_output),
            };
            let mut gradients = InputGradients::new();
            gradients.grad_input = main.as_mut().map(|to| Gradient::new(to.slice_mut(), accumulations[0]));
            gradients.grad_thresholds = second.as_mut().map(|to| Gradient::new(to.slice_mut(), accumulations[1]));
            plan.backward_input(operands, gradients, workspace.slice_mut(), &how.workers)
        }
        Pass::BackwardWeight => {
            let mut gradients = WeightGradients::new();
            gradients.grad_weight = main.as_mut().map(|to| Gradient::new(to.slice_mut(), accumulations[0]));
            gradients.grad_bias = second.as_mut().map(|to| Gradient::new(to.slice_mut(), accumulations[1]));
            let operands = BackwardWeight::new(input, thresholds, grad_output);
            plan.backward_weight(operands, gradients, workspace.slice_mut(), &how.workers)
        }
    };
    done.unwrap_or_else(|error| panic!("{pass:?} on {}: {error}: {desc:?}", plan.isa()));

    workspace.into_values("workspace");
    buffer.into_values("buffer");
    let names = pass_names(pass);
    let [main, second] = outputs;
    let mut values = [main.map(|main| main.into_values(names[0])), second.map(|second| second.into_values(names[1]))];
    if let ([Some(main), _], [Some(before), _]) = (&mut values, &before) {
        check_gaps(desc, pass, main, before, accumulations[0]);
    }
    Results { names, values }
}

/// That nothing was written between pixels or images. Puts there what the oracle says of it.
fn check_gaps(desc: &ConvDesc, pass: Pass, main: &mut [f32], before: &[f32], accumulation: Accumulation) {
    let tensor = match pass {
        Pass::Forward | Pass::ForwardPacked => Tensor::Output,
        Pass::BackwardInput | Pass::BackwardInputPacked => Tensor::Input,
        Pass::BackwardWeight => return,
    };
    for (i, (value, before)) in main.iter_mut().zip(before).enumerate().filter(|(i, _)| tensor.is_gap(desc, *i)) {
        let untouched = cfg!(convrelu_msan) || value.to_bits() == before.to_bits();
        assert!(untouched, "{}[{i}] was written, which belongs to no channel: {desc:?}", pass_names(pass)[0]);
        *value = if accumulation == Accumulation::Add { *before } else { 0.0 };
    }
}
