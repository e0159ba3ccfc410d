//! Identities that hold to the last bit on integers, where every sum is exact in f32 whatever its order: no oracle
//! and no tolerance, so the layers may be larger.

use convrelu::{ConvDesc, Isa, Layout, Pass};
use proptest::prelude::*;

use crate::common::{Axis, Case, How, Results, Shape, Tensor, Theta, Values, isas, plan, run, wide};
use crate::strategy;

/// The passes that compute something different.
const DISTINCT: [Pass; 3] = [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight];

fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    wide(a).iter().zip(wide(b)).map(|(a, b)| a * b).sum()
}

/// `⟨y, g⟩ = ⟨w, ∂w⟩ + ⟨b, ∂b⟩ = ⟨x, ∂x⟩ + ⟨θ, ∂θ⟩ + ⟨b, ∂b⟩`: the output is linear in the weight, and every
/// activated tap is either the input or the threshold that gets its gradient.
fn check_adjoint(case: &Case, [forward, backward_input, backward_weight]: &[Results; 3], context: &str) {
    let bias = case.bias.as_ref().map_or(0.0, |bias| dot(bias, backward_weight.second()));
    let through_output = dot(forward.main(), &case.grad_output);
    let through_weight = dot(&case.weight, backward_weight.main()) + bias;
    let through_theta = match &case.theta {
        Theta::PerTap(theta) => dot(theta, backward_input.second()),
        Theta::Uniform(theta) => dot(&[*theta], backward_input.second()),
    };
    let through_input = dot(&case.input, backward_input.main()) + through_theta + bias;
    assert_eq!(through_output, through_weight, "⟨y, g⟩ = ⟨w, ∂w⟩ + ⟨b, ∂b⟩ {context}");
    assert_eq!(through_output, through_input, "⟨y, g⟩ = ⟨x, ∂x⟩ + ⟨θ, ∂θ⟩ + ⟨b, ∂b⟩ {context}");
}

/// `blocks` of `rows` × `columns`, each transposed.
fn transposed(values: &[f32], blocks: usize, rows: usize, columns: usize) -> Vec<f32> {
    assert_eq!(values.len(), blocks * rows * columns);
    let mut result = Vec::with_capacity(values.len());
    for block in 0..blocks {
        for column in 0..columns {
            result.extend((0..rows).map(|row| values[(block * rows + row) * columns + column]));
        }
    }
    result
}

/// The rows and columns of each block of a tensor of a layer, for the layout it is in.
struct Transposition<'a>(&'a ConvDesc);

impl Transposition<'_> {
    fn swap(&self, values: &[f32], blocks: usize, channels: usize, size: [usize; 3]) -> Vec<f32> {
        let positions = size.iter().product();
        match self.0.layout() {
            Layout::Nchw => transposed(values, blocks, channels, positions),
            Layout::Nhwc => transposed(values, blocks, positions, channels),
        }
    }

    fn input(&self, values: &[f32]) -> Vec<f32> {
        self.swap(values, self.0.batch(), self.0.in_channels(), self.0.input_size())
    }

    fn output(&self, values: &[f32]) -> Vec<f32> {
        self.swap(values, self.0.batch(), self.0.out_channels(), self.0.output_size())
    }

    fn weight(&self, values: &[f32]) -> Vec<f32> {
        self.swap(values, self.0.out_channels(), self.0.in_channels() / self.0.groups(), self.0.kernel())
    }

    fn thresholds(&self, values: &[f32]) -> Vec<f32> {
        self.swap(values, 1, self.0.in_channels(), self.0.kernel())
    }

    fn case(&self, case: &Case, other: ConvDesc) -> Case {
        let theta = match &case.theta {
            Theta::PerTap(theta) => Theta::PerTap(self.thresholds(theta)),
            Theta::Uniform(theta) => Theta::Uniform(*theta),
        };
        Case {
            desc: other,
            input: self.input(&case.input),
            weight: self.weight(&case.weight),
            theta,
            grad_output: self.output(&case.grad_output),
            ..case.clone()
        }
    }

    fn results(&self, results: &[Results; 3]) -> [Results; 3] {
        let [mut forward, mut backward_input, mut backward_weight] = results.clone();
        forward.values[0] = Some(self.output(forward.main()));
        backward_input.values[0] = Some(self.input(backward_input.main()));
        if backward_input.second().len() > 1 {
            backward_input.values[1] = Some(self.thresholds(backward_input.second()));
        }
        backward_weight.values[0] = Some(self.weight(backward_weight.main()));
        [forward, backward_input, backward_weight]
    }
}

fn in_layout(shape: &Shape, layout: Layout) -> ConvDesc {
    shape.clone().layout(layout).desc()
}

/// All identities of one integer case, in both layouts, on all instruction sets.
fn check(shape: &Shape, case: &Case) {
    let other = match case.desc.layout() {
        Layout::Nchw => in_layout(shape, Layout::Nhwc),
        Layout::Nhwc => in_layout(shape, Layout::Nchw),
    };
    let swapped = Transposition(&case.desc).case(case, other);
    let mut first: Option<(Isa, [Results; 3])> = None;
    for isa in isas() {
        for (case, swap) in [(case, false), (&swapped, true)] {
            let context = format!("on {isa}: {:?}", case.desc);
            let plan = plan(case.desc, isa, None);
            let mut results = DISTINCT.map(|pass| run(&plan, pass, case, How::default(), None));
            check_adjoint(case, &results, &context);
            if swap {
                results = Transposition(&other).results(&results);
            }
            let (first_isa, first) = first.get_or_insert_with(|| (isa, results.clone()));
            for (first, results) in first.iter().zip(&results) {
                assert!(first.values == results.values, "{:?} {context} differs from {first_isa}", first.names);
            }
        }
    }
}

proptest! {
    #![proptest_config(strategy::config(8))]

    #[test]
    fn adjoints_layouts_and_instruction_sets_agree((shape, case) in strategy::integer_case()) {
        check(&shape, &case);
    }
}

/// A case whose tensors are ranges of channels of wider ones.
fn spread(case: &Case, desc: ConvDesc) -> Case {
    let spread = |values: &[f32], len: usize, tensor: Tensor| {
        let mut next = values.iter();
        let mut value = |i| if tensor.is_gap(&desc, i) { f32::NAN } else { *next.next().expect("as many elements") };
        (0..len).map(&mut value).collect::<Vec<f32>>()
    };
    let input = spread(&case.input, desc.input_len(), Tensor::Input);
    let grad_output = spread(&case.grad_output, desc.output_len(), Tensor::Output);
    Case { desc, input, grad_output, ..case.clone() }
}

/// The elements that belong to channels.
fn gathered(values: &[f32], desc: &ConvDesc, tensor: Tensor) -> Vec<f32> {
    values.iter().enumerate().filter(|(i, _)| !tensor.is_gap(desc, *i)).map(|(_, value)| *value).collect()
}

proptest! {
    #![proptest_config(strategy::config(8))]

    #[test]
    fn ranges_of_channels_give_what_packed_tensors_give(
        (shape, case) in strategy::integer_case(),
        gaps in any::<[u8; 2]>(),
    ) {
        let desc = shape.gaps(gaps.map(|gap| usize::from(gap % 20))).desc();
        let wide = spread(&case, desc);
        for isa in isas() {
            for pass in DISTINCT {
                let [packed, wide] = [&case, &wide].map(|case| run(&plan(case.desc, isa, None), pass, case, How::default(), None));
                let main = match pass {
                    Pass::BackwardWeight => wide.main().to_vec(),
                    Pass::BackwardInput => gathered(wide.main(), &desc, Tensor::Input),
                    _ => gathered(wide.main(), &desc, Tensor::Output),
                };
                prop_assert_eq!((&main[..], &wide.values[1]), (packed.main(), &packed.values[1]));
            }
        }
    }
}

/// Layers of real networks, one image each (and fewer rows where a scalar pass would take seconds).
#[test]
fn on_layers_of_real_networks() {
    let same = |size, kernel| Axis::new(size, kernel).padding(kernel / 2, kernel / 2);
    let shapes = [
        Shape::new(1, 48, 12, &[same(32, 3); 2]),
        Shape::new(1, 96, 48, &[same(32, 1); 2]),
        Shape::new(2, 48, 12, &[same(8, 3); 2]),
        Shape::new(1, 3, 64, &[same(32, 3); 2]),
        Shape::new(3, 160, 144, &[same(4, 3); 2]),
        Shape::new(1, 32, 64, &[same(32, 3).stride(2); 2]),
        Shape::new(1, 1, 1, &[same(56, 3); 2]).groups(32),
        Shape::new(1, 70, 64, &[Axis::new(300, 7)]),
        Shape::new(1, 16, 24, &[same(6, 3), same(14, 3), same(14, 3)]),
    ];
    for (shape, seed) in shapes.iter().zip(0..) {
        check(shape, &Case::new(shape.desc(), Values::Integers, seed));
    }
}
