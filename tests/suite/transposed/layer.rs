//! Transposed layers: random ones, what they should compute by the definition, and one runner for all passes.

use std::fmt;

use convrelu::reference::{Sum, error_bound, gradient_error_bound};
use convrelu::transposed::{BackwardInput, BackwardWeight, ConvTranspose, ConvTransposeDesc, Forward};
use convrelu::{Accumulation, Error, Gradient, Isa, Layout, Pass, Tuning, Weight, WeightGradients};
use proptest::prelude::*;
use proptest::sample::select;

use crate::common::{Guarded, How, Placement, Rng, Shape, Values};
use crate::strategy;

/// A descriptor in the making: `size` of the shape's axes is the input's, `gaps` are those of input and output.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) shape: Shape,
    /// One per axis.
    pub(crate) output_padding: Vec<usize>,
}

impl Layer {
    /// Without output padding.
    pub(crate) fn new(shape: Shape) -> Self {
        let output_padding = vec![0; shape.axes.len()];
        Self { shape, output_padding }
    }

    pub(crate) fn output_padding(self, output_padding: &[usize]) -> Self {
        Self { output_padding: output_padding.to_vec(), ..self }
    }

    /// Through the constructor of its rank.
    pub(crate) fn build(&self) -> Result<ConvTransposeDesc, Error> {
        let Shape { batch, groups, group_in, group_out, layout, axes, gaps } = &self.shape;
        macro_rules! build {
            ($constructor:ident, $rank:literal) => {{
                macro_rules! axis {
                    ($field:ident) => {
                        std::array::from_fn::<usize, $rank, _>(|i| axes[i].$field)
                    };
                }
                let (inputs, outputs) = (groups * group_in, groups * group_out);
                let builder = ConvTransposeDesc::$constructor(*batch, inputs, outputs, axis!(size), axis!(kernel))
                    .stride(axis!(stride))
                    .dilation(axis!(dilation))
                    .padding_before_after(axis!(before), axis!(after))
                    .output_padding(std::array::from_fn(|i| self.output_padding[i]))
                    .groups(*groups)
                    .layout(*layout);
                let packed = builder.build()?;
                let pitched = builder.input_pitch(packed.input_pitch() + gaps[0]);
                pitched.output_pitch(packed.output_pitch() + gaps[1]).build()
            }};
        }
        match axes.len() {
            1 => build!(conv1d, 1),
            2 => build!(conv2d, 2),
            _ => build!(conv3d, 3),
        }
    }

    pub(crate) fn desc(&self) -> ConvTransposeDesc {
        self.build().unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }

    /// The output's extents by the formula.
    pub(crate) fn output_size(&self) -> [usize; 3] {
        let mut size = [1; 3];
        let first = 3 - self.shape.axes.len();
        for (i, axis) in self.shape.axes.iter().enumerate() {
            size[first + i] = unpadded(axis, self.output_padding[i]) - axis.before - axis.after;
        }
        size
    }
}

fn unpadded(axis: &crate::common::Axis, output_padding: usize) -> usize {
    (axis.size - 1) * axis.stride + axis.dilation * (axis.kernel - 1) + output_padding + 1
}

/// A random layer of about so many multiplications.
pub(crate) fn layer(products: usize) -> impl Strategy<Value = Layer> {
    let shapes = prop_oneof![
        6 => strategy::shape(products),
        2 => strategy::shape(products).prop_map(|shape| {
            let channels = shape.groups * shape.group_in.max(shape.group_out);
            Shape { groups: channels, group_in: 1, group_out: 1, ..shape }
        }),
        1 => strategy::long_shape(products),
    ];
    let output_padding = prop_oneof![2 => Just([0; 3]), 3 => [0..7usize, 0..7, 0..7]];
    (shapes, output_padding).prop_map(move |(mut shape, picks)| {
        let cost = |shape: &Shape| {
            let axes: usize = shape.axes.iter().map(|axis| axis.size * axis.kernel).product();
            shape.batch.max(1) * shape.groups * shape.group_in * shape.group_out * axes
        };
        while cost(&shape) > 2 * products {
            let Some(largest) = shape.axes.iter_mut().map(|axis| &mut axis.size).filter(|size| **size > 1).max() else {
                break;
            };
            *largest = largest.div_ceil(2);
        }
        let mut output_padding = Vec::new();
        for (axis, pick) in shape.axes.iter_mut().zip(picks) {
            output_padding.push(pick % axis.stride.max(axis.dilation));
            let most = unpadded(axis, output_padding[output_padding.len() - 1]) - 1;
            axis.before = axis.before.min(most);
            axis.after = axis.after.min(most - axis.before);
        }
        Layer { shape, output_padding }
    })
}

/// A layer, its parameters, an input and a gradient of its output.
#[derive(Clone)]
pub(crate) struct Case {
    made: (Values, u64),
    pub(crate) layer: Layer,
    pub(crate) desc: ConvTransposeDesc,
    pub(crate) input: Vec<f32>,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) grad_output: Vec<f32>,
}

/// What makes the case again, instead of its thousands of values.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}, bias: {}", self.layer, self.made, self.bias.is_some())
    }
}

pub(crate) fn case(products: usize) -> impl Strategy<Value = Case> {
    let values = select(vec![Values::Continuous, Values::Quantised, Values::Sparse]);
    (layer(products), values, any::<bool>(), any::<u64>()).prop_map(|(layer, values, bias, seed)| {
        let mut case = Case::new(layer, values, seed);
        case.bias = case.bias.filter(|_| bias);
        case
    })
}

impl Case {
    /// Values of one kind, and a bias. What lies between pixels or images is NaN.
    pub(crate) fn new(layer: Layer, kind: Values, seed: u64) -> Self {
        let (desc, mut rng) = (layer.desc(), Rng(seed));
        let mut case = Self {
            made: (kind, seed),
            input: rng.values(kind, desc.input_len()),
            weight: rng.values(kind, desc.weight_len()),
            bias: Some(rng.values(kind, desc.bias_len())),
            grad_output: rng.values(kind, desc.output_len()),
            layer,
            desc,
        };
        let [input, output] = tensors(&desc);
        for (values, tensor) in [(&mut case.input, input), (&mut case.grad_output, output)] {
            values.iter_mut().enumerate().filter(|(i, _)| tensor.is_gap(*i)).for_each(|(_, v)| *v = f32::NAN);
        }
        case
    }
}

/// Where the elements of an input or output lie.
#[derive(Clone, Copy)]
pub(crate) struct Tensor {
    layout: Layout,
    channels: usize,
    size: [usize; 3],
    pitch: usize,
}

/// Input and output.
pub(crate) fn tensors(desc: &ConvTransposeDesc) -> [Tensor; 2] {
    let layout = desc.layout();
    [
        Tensor { layout, channels: desc.in_channels(), size: desc.input_size(), pitch: desc.input_pitch() },
        Tensor { layout, channels: desc.out_channels(), size: desc.output_size(), pitch: desc.output_pitch() },
    ]
}

impl Tensor {
    fn positions(&self) -> usize {
        self.size.iter().product()
    }

    fn at(&self, image: usize, channel: usize, [d, h, w]: [usize; 3]) -> usize {
        let position = (d * self.size[1] + h) * self.size[2] + w;
        match self.layout {
            Layout::Nchw => image * self.pitch + channel * self.positions() + position,
            Layout::Nhwc => (image * self.positions() + position) * self.pitch + channel,
        }
    }

    /// Whether an element belongs to no channel.
    pub(crate) fn is_gap(&self, index: usize) -> bool {
        let used = match self.layout {
            Layout::Nchw => self.channels * self.positions(),
            Layout::Nhwc => self.channels,
        };
        index % self.pitch >= used
    }
}

fn positions(size: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..size[0]).flat_map(move |d| (0..size[1]).flat_map(move |h| (0..size[2]).map(move |w| [d, h, w])))
}

/// Visits what the definition adds up: places in output, input and weight, term by term.
fn for_each_term(desc: &ConvTransposeDesc, mut visit: impl FnMut([usize; 3])) {
    let (group_in, group_out) = (desc.in_channels() / desc.groups(), desc.out_channels() / desc.groups());
    let [input, output] = tensors(desc);
    for (n, c) in (0..desc.batch()).flat_map(|n| (0..desc.in_channels()).map(move |c| (n, c))) {
        for i in positions(desc.input_size()) {
            for (tap, k) in positions(desc.kernel()).enumerate() {
                let mut o = [0; 3];
                let inside = (0..3).all(|axis| {
                    let at = i[axis] * desc.stride()[axis] + k[axis] * desc.dilation()[axis];
                    o[axis] = at.wrapping_sub(desc.padding_before()[axis]);
                    o[axis] < output.size[axis]
                });
                if !inside {
                    continue;
                }
                for d in 0..group_out {
                    let weight = match desc.layout() {
                        Layout::Nchw => (c * group_out + d) * desc.taps() + tap,
                        Layout::Nhwc => (c * desc.taps() + tap) * group_out + d,
                    };
                    visit([output.at(n, c / group_in * group_out + d, o), input.at(n, c, i), weight]);
                }
            }
        }
    }
}

/// The results of one pass by the definition, in f64, and how far rounding may take each.
pub(crate) struct Expected {
    sums: [Vec<Sum<f64>>; 2],
    bounds: [Box<dyn Fn(f64) -> f64>; 2],
}

impl Expected {
    pub(crate) fn new(case: &Case, pass: Pass) -> Self {
        let desc = &case.desc;
        let mut sums = lens(desc, pass).map(|len| vec![Sum::<f64>::ZERO; len]);
        let [main, second] = &mut sums;
        let add = |sum: &mut Sum<f64>, a: f32, b: f32| {
            let product = f64::from(a) * f64::from(b);
            *sum = Sum { value: sum.value + product, magnitude: sum.magnitude + product.abs() };
        };
        let [input, output] = tensors(desc);
        let each_output = (0..desc.batch())
            .flat_map(|n| (0..desc.out_channels()).map(move |d| (n, d)))
            .flat_map(|(n, d)| positions(desc.output_size()).map(move |o| (d, output.at(n, d, o))));
        let (group_in, group_out) = (desc.in_channels() / desc.groups(), desc.out_channels() / desc.groups());
        let [inputs, outputs] = [input, output].map(|tensor| desc.batch() * tensor.positions());
        let bounds: [Box<dyn Fn(f64) -> f64>; 2] = match pass {
            Pass::Forward | Pass::ForwardPacked => {
                if let Some(bias) = &case.bias {
                    each_output.for_each(|(d, at)| add(&mut main[at], bias[d], 1.0));
                }
                for_each_term(desc, |[o, i, w]| add(&mut main[o], case.weight[w], case.input[i]));
                let terms = group_in * desc.taps();
                [Box::new(move |magnitude| error_bound(terms, magnitude)), Box::new(|_| 0.0)]
            }
            Pass::BackwardInput | Pass::BackwardInputPacked => {
                for_each_term(desc, |[o, i, w]| add(&mut main[i], case.weight[w], case.grad_output[o]));
                let terms = group_out * desc.taps();
                [Box::new(move |magnitude| error_bound(terms, magnitude)), Box::new(|_| 0.0)]
            }
            Pass::BackwardWeight => {
                for_each_term(desc, |[o, i, w]| add(&mut main[w], case.input[i], case.grad_output[o]));
                each_output.for_each(|(d, at)| add(&mut second[d], case.grad_output[at], 1.0));
                let bound = |positions| move |magnitude| gradient_error_bound(1, positions, magnitude);
                [Box::new(bound(inputs)), Box::new(bound(outputs))]
            }
        };
        Self { sums, bounds }
    }

    /// Compares element by element; `prior` is what an accumulating call found in its outputs.
    pub(crate) fn check(&self, results: &Results, prior: Option<&Results>, context: impl Fn() -> String) {
        for which in 0..2 {
            let Some(values) = &results[which] else { continue };
            assert_eq!(values.len(), self.sums[which].len());
            let prior = prior.and_then(|prior| prior[which].as_ref());
            for (i, (value, sum)) in values.iter().zip(&self.sums[which]).enumerate() {
                let found = prior.map_or(0.0, |prior| f64::from(prior[i]));
                let (want, bound) = (sum.value + found, self.bounds[which](sum.magnitude + found.abs()));
                let good = (f64::from(*value) - want).abs() <= bound;
                assert!(good, "[{i}] of output {which} is {value:e}, not {want:e} ± {bound:e}: {}", context());
            }
        }
    }
}

/// Lengths of what a pass writes.
pub(crate) fn lens(desc: &ConvTransposeDesc, pass: Pass) -> [usize; 2] {
    match pass {
        Pass::Forward | Pass::ForwardPacked => [desc.output_len(), 0],
        Pass::BackwardInput | Pass::BackwardInputPacked => [desc.input_len(), 0],
        Pass::BackwardWeight => [desc.weight_len(), desc.bias_len()],
    }
}

/// What a pass wrote; gaps hold zeros, or what they held before.
pub(crate) type Results = [Option<Vec<f32>>; 2];

/// A plan, of the instruction set's own tiles and blocks or of injected ones.
pub(crate) fn plan(desc: ConvTransposeDesc, isa: Isa, tuning: Option<Tuning>) -> ConvTranspose {
    let plan = match tuning {
        None => ConvTranspose::with_isa(desc, isa),
        Some(tuning) => ConvTranspose::with_tuning(desc, isa, tuning),
    };
    plan.unwrap_or_else(|error| panic!("{isa}: {error}"))
}

/// The buffers of a call.
pub(crate) struct Buffers<'a> {
    pub(crate) input: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) grad_output: &'a [f32],
    /// What is written, where it is asked for.
    pub(crate) outputs: [Option<(&'a mut [f32], Accumulation)>; 2],
    pub(crate) packed: &'a mut [f32],
    pub(crate) workspace: &'a mut [f32],
}

/// Elements of packed weights that a pass takes.
pub(crate) fn packed_len(plan: &ConvTranspose, pass: Pass) -> usize {
    match pass {
        Pass::ForwardPacked => plan.packed_weight_len(),
        Pass::BackwardInputPacked => plan.packed_weight_transposed_len(),
        _ => 0,
    }
}

/// Makes a call.
pub(crate) fn call(plan: &ConvTranspose, pass: Pass, buffers: Buffers<'_>, how: How) -> Result<(), Error> {
    let Buffers { input, weight, bias, grad_output, outputs, packed, workspace } = buffers;
    let packed_weight;
    let weight = match pass {
        Pass::ForwardPacked => {
            packed_weight = plan.pack_weight(weight, packed)?;
            Weight::Packed(&packed_weight)
        }
        Pass::BackwardInputPacked => {
            packed_weight = plan.pack_weight_transposed(weight, packed)?;
            Weight::Packed(&packed_weight)
        }
        _ => Weight::Plain(weight),
    };
    let [main, second] = outputs.map(|output| output.map(|(values, accumulation)| Gradient::new(values, accumulation)));
    match pass {
        Pass::Forward | Pass::ForwardPacked => {
            let mut operands = Forward::new(input, weight);
            operands.bias = bias;
            let output = main.expect("an output");
            plan.forward(operands, output.values, workspace, &how.workers)
        }
        Pass::BackwardInput | Pass::BackwardInputPacked => {
            let gradient = main.expect("a gradient of the input");
            plan.backward_input(BackwardInput::new(weight, grad_output), gradient, workspace, &how.workers)
        }
        Pass::BackwardWeight => {
            let mut gradients = WeightGradients::new();
            (gradients.grad_weight, gradients.grad_bias) = (main, second);
            plan.backward_weight(BackwardWeight::new(input, grad_output), gradients, workspace, &how.workers)
        }
    }
}

/// Runs one pass with exactly the workspace it asks for, between guard words; adds to the outputs of `prior` that there are.
///
/// # Panics
///
/// If the call fails, or writes outside of its buffers or between pixels or images.
pub(crate) fn run(plan: &ConvTranspose, pass: Pass, case: &Case, how: How, prior: Option<&Results>) -> Results {
    let desc = &case.desc;
    let exact = Placement { slack: 0, ..how.at };
    let mut workspace = Guarded::unwritten(plan.workspace_len(pass), exact);
    let mut packed = Guarded::unwritten(packed_len(plan, pass), exact);
    let both = matches!(pass, Pass::BackwardWeight);
    let asked = [!both || how.wanted[0], both && how.wanted[1]];
    let prior = |which: usize| prior.and_then(|prior| prior[which].as_ref());
    let [mut main, mut second] = [0, 1].map(|which| match prior(which) {
        Some(prior) => Guarded::new(prior, how.at),
        None => Guarded::unwritten(lens(desc, pass)[which], how.at),
    });
    let before = main.slice().to_vec();
    let accumulation = |which| if prior(which).is_some() { Accumulation::Add } else { Accumulation::Overwrite };
    let buffers = Buffers {
        input: &case.input,
        weight: &case.weight,
        bias: case.bias.as_deref(),
        grad_output: &case.grad_output,
        outputs: [
            asked[0].then(|| (main.slice_mut(), accumulation(0))),
            asked[1].then(|| (second.slice_mut(), accumulation(1))),
        ],
        packed: packed.slice_mut(),
        workspace: workspace.slice_mut(),
    };
    call(plan, pass, buffers, how).unwrap_or_else(|error| panic!("{pass:?} on {}: {error}: {case:?}", plan.isa()));
    workspace.into_values("workspace");
    packed.into_values("packed weight");
    let [mut main, second] = [main.into_values("main output"), second.into_values("second output")];
    let tensor = written(desc, pass);
    for (i, value) in main.iter_mut().enumerate().filter(|(i, _)| tensor.is_some_and(|tensor| tensor.is_gap(*i))) {
        // For MemorySanitizer, what nobody has written cannot be compared.
        let untouched = cfg!(convrelu_msan) || value.to_bits() == before[i].to_bits();
        assert!(untouched, "{pass:?} wrote [{i}], which belongs to no channel: {case:?}");
        *value = prior(0).map_or(0.0, |prior| prior[i]);
    }
    [asked[0].then_some(main), asked[1].then_some(second)]
}

/// The tensor that a pass writes, if it is one.
pub(crate) fn written(desc: &ConvTransposeDesc, pass: Pass) -> Option<Tensor> {
    let [input, output] = tensors(desc);
    match pass {
        Pass::Forward | Pass::ForwardPacked => Some(output),
        Pass::BackwardInput | Pass::BackwardInputPacked => Some(input),
        Pass::BackwardWeight => None,
    }
}

/// Bit patterns, for comparisons that mean identity.
pub(crate) fn bits(results: &Results) -> [Option<Vec<u32>>; 2] {
    results.each_ref().map(|values| values.as_ref().map(|values| values.iter().map(|v| v.to_bits()).collect()))
}
