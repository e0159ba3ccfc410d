//! What both benchmarks run: every pass of every layer, the baseline, and the roof.

mod im2col;
mod peak;
mod shapes;

#[cfg(feature = "rayon")]
use convrelu::Rayon as Pool;
use convrelu::Serial;
#[cfg(not(feature = "rayon"))]
use convrelu::Serial as Pool;
use convrelu::{
    BackwardInput, BackwardWeight, ConvDesc, ConvRelu, Forward, Gradient, InputGradients, Isa, Layout, Pass,
    Thresholds, Weight, WeightGradients,
};

pub(crate) use peak::multiply_adds;
pub(crate) use shapes::shapes;

/// Layouts and their names.
pub(crate) const LAYOUTS: [(&str, Layout); 2] = [("nchw", Layout::Nchw), ("nhwc", Layout::Nhwc)];

/// What is measured on a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// With packed weights.
    Forward,
    BackwardInput,
    BackwardWeight,
    /// Forward through im2col and the `gemm` crate, whatever instruction set that finds.
    Im2Col,
}

impl Task {
    pub(crate) const ALL: [Self; 4] = [Self::Forward, Self::BackwardInput, Self::BackwardWeight, Self::Im2Col];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::BackwardInput => "backward_input",
            Self::BackwardWeight => "backward_weight",
            Self::Im2Col => "im2col",
        }
    }

    /// The instruction sets to measure: the baseline chooses its own.
    pub(crate) fn isas(self) -> Vec<Isa> {
        if self == Self::Im2Col { vec![Isa::detect()] } else { Isa::available().collect() }
    }
}

/// `len` values in −1..1.
fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed | 1;
    let mut draw = || {
        // Marsaglia's xorshift32.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| draw()).collect()
}

/// A call with everything it needs, allocated and packed beforehand.
pub(crate) fn call(task: Task, desc: ConvDesc, isa: Isa, threads: usize) -> Box<dyn FnMut()> {
    let plan = ConvRelu::with_isa(desc, isa).expect("an available instruction set").with_threads(threads);
    let workspace = |pass| vec![0.0; plan.workspace_len(pass)];
    let (input, weight) = (values(desc.input_len(), 1), values(desc.weight_len(), 2));
    let (theta, grad_output) = (values(desc.threshold_len(), 3), values(desc.output_len(), 4));
    match task {
        Task::Forward => {
            // Packed weights borrow their buffer, which here lives as long as the program.
            let buffer = Box::leak(vec![0.0; plan.packed_weight_len()].into_boxed_slice());
            let packed = plan.pack_weight(&weight, buffer).expect("a buffer of packed_weight_len");
            let (mut output, mut workspace) = (vec![0.0; desc.output_len()], workspace(Pass::ForwardPacked));
            Box::new(move || {
                let (weight, thresholds) = (Weight::Packed(&packed), Thresholds::PerTap(&theta));
                let operands = Forward::new(&input, weight, thresholds);
                plan.forward(operands, &mut output, &mut workspace, &Pool).expect("buffers of the right lengths");
            })
        }
        Task::BackwardInput => {
            let (mut grad_input, mut grad_theta) = (vec![0.0; desc.input_len()], vec![0.0; desc.threshold_len()]);
            let buffer = Box::leak(vec![0.0; plan.packed_weight_transposed_len()].into_boxed_slice());
            let packed = plan.pack_weight_transposed(&weight, buffer).expect("a buffer of the right length");
            let mut workspace = workspace(Pass::BackwardInputPacked);
            Box::new(move || {
                let (weight, thresholds) = (Weight::Packed(&packed), Thresholds::PerTap(&theta));
                let operands = BackwardInput::new(&input, weight, thresholds, &grad_output);
                let gradients = InputGradients::new()
                    .input(Gradient::overwrite(&mut grad_input))
                    .thresholds(Gradient::overwrite(&mut grad_theta));
                plan.backward_input(operands, gradients, &mut workspace, &Pool).expect("buffers of the right lengths");
            })
        }
        Task::BackwardWeight => {
            let (mut grad_weight, mut grad_bias) = (vec![0.0; desc.weight_len()], vec![0.0; desc.bias_len()]);
            let mut workspace = workspace(Pass::BackwardWeight);
            Box::new(move || {
                let operands = BackwardWeight::new(&input, Thresholds::PerTap(&theta), &grad_output);
                let gradients = WeightGradients::new()
                    .weight(Gradient::overwrite(&mut grad_weight))
                    .bias(Gradient::overwrite(&mut grad_bias));
                plan.backward_weight(operands, gradients, &mut workspace, &Pool).expect("buffers of the right lengths");
            })
        }
        Task::Im2Col => {
            let mut baseline = im2col::Im2Col::new(desc);
            let mut output = vec![0.0; desc.output_len()];
            Box::new(move || baseline.forward(&input, &weight, &theta, &mut output))
        }
    }
}

/// Asserts that the baseline computes what the kernels compute: a faster wrong answer is no baseline.
pub(crate) fn check_baseline(desc: ConvDesc) {
    let plan = ConvRelu::new(desc);
    let (input, weight, theta) =
        (values(desc.input_len(), 1), values(desc.weight_len(), 2), values(desc.threshold_len(), 3));
    let (mut ours, mut theirs) = (vec![0.0; desc.output_len()], vec![0.0; desc.output_len()]);
    let operands = Forward::new(&input, Weight::Plain(&weight), Thresholds::PerTap(&theta));
    let mut workspace = vec![0.0; plan.workspace_len(Pass::Forward)];
    plan.forward(operands, &mut ours, &mut workspace, &Serial).expect("good buffers");
    im2col::Im2Col::new(desc).forward(&input, &weight, &theta, &mut theirs);
    let terms = desc.in_channels() / desc.groups() * desc.taps();
    let bound = convrelu::reference::error_bound(terms, terms as f64) as f32;
    assert!(ours.iter().zip(&theirs).all(|(ours, theirs)| (ours - theirs).abs() <= bound), "{desc:?}");
}
