//! Small layers of any geometry, absurd distances included: a pass on every instruction set against the oracle.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use convrelu::{BackwardInputAlgorithm, ForwardAlgorithm, Layout, Pass, Tuning};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports)] // The test suite uses more of it.
#[path = "../../tests/common/mod.rs"]
mod common;

use common::{Axis, Case, Expected, How, PASSES, Parts, Placement, Shape, Theta, Values, Workers, isas, plan, run};

/// Multiplications of the largest case, and elements of its largest tensor: of most, and of one in sixteen. A case takes as long as
/// its oracle, and most of what can go wrong goes wrong in small ones.
const LARGEST: [f64; 2] = [1_000.0, 20_000.0];

/// A distance: mostly small, sometimes any at all.
fn distance(u: &mut Unstructured<'_>, small: usize) -> arbitrary::Result<usize> {
    if u.ratio(1, 16)? { usize::arbitrary(u) } else { u.int_in_range(1..=small) }
}

/// An extent: mostly small, for the product of many is to be.
fn extent(u: &mut Unstructured<'_>, most: usize) -> arbitrary::Result<usize> {
    let most = if u.ratio(1, 8)? { most } else { 4 };
    u.int_in_range(1..=most)
}

fn axis(u: &mut Unstructured<'_>) -> arbitrary::Result<Axis> {
    Ok(Axis {
        size: extent(u, 70)?,
        kernel: extent(u, 7)?,
        stride: distance(u, 5)?,
        dilation: distance(u, 4)?,
        before: distance(u, 9)?.saturating_sub(1),
        after: distance(u, 9)?.saturating_sub(1),
    })
}

fn shape(u: &mut Unstructured<'_>) -> arbitrary::Result<Shape> {
    Ok(Shape {
        batch: u.int_in_range(0..=3)?,
        groups: extent(u, 40)?,
        group_in: extent(u, 70)?,
        group_out: extent(u, 70)?,
        layout: if bool::arbitrary(u)? { Layout::Nhwc } else { Layout::Nchw },
        axes: (0..u.int_in_range(1..=3)?).map(|_| axis(u)).collect::<Result<_, _>>()?,
        gaps: if bool::arbitrary(u)? { [u.int_in_range(0..=9)?, u.int_in_range(0..=9)?] } else { [0; 2] },
    })
}

#[derive(Debug)]
struct Input {
    shape: Shape,
    seed: u64,
    values: Values,
    uniform: Option<f32>,
    bias: bool,
    parts: Option<Parts>,
    tuning: Option<Tuning>,
    threads: usize,
    how: How,
    pass: Pass,
    large: bool,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let limit = |u: &mut Unstructured<'a>| if bool::arbitrary(u)? { Ok(usize::MAX) } else { u.int_in_range(0..=5) };
        let tuning = |u: &mut Unstructured<'a>| -> arbitrary::Result<_> {
            Ok(Tuning {
                staging_len: u.int_in_range(0..=400)?,
                panel: limit(u)?,
                tile: limit(u)?,
                positions: limit(u)?,
                depth: limit(u)?,
                part: 1,
                tiny: *u.choose(&[0, usize::MAX])?,
                forward: *u.choose(&[None, Some(ForwardAlgorithm::Direct), Some(ForwardAlgorithm::BatchReduce)])?,
                backward_input: *u.choose(&[
                    None,
                    Some(BackwardInputAlgorithm::Progressions),
                    Some(BackwardInputAlgorithm::Planar),
                ])?,
                packs: *u.choose(&[None, Some(false), Some(true)])?,
                halves: *u.choose(&[None, Some(false), Some(true)])?,
                strips: *u.choose(&[1, 24, usize::MAX])?,
                depthwise: bool::arbitrary(u)?,
            })
        };
        Ok(Self {
            shape: shape(u)?,
            seed: u64::arbitrary(u)?,
            values: *u.choose(&[Values::Continuous, Values::Quantised, Values::Sparse])?,
            uniform: if bool::arbitrary(u)? { Some(*u.choose(&[0.0, 0.25, f32::NEG_INFINITY])?) } else { None },
            bias: bool::arbitrary(u)?,
            parts: if bool::arbitrary(u)? {
                Some(Parts {
                    has: <[bool; 3]>::arbitrary(u)?,
                    in_output: bool::arbitrary(u)?,
                    bounds: *u.choose(&[[f32::NEG_INFINITY, f32::INFINITY], [0.0, f32::INFINITY], [-0.5, 0.75]])?,
                })
            } else {
                None
            },
            tuning: if bool::arbitrary(u)? { Some(tuning(u)?) } else { None },
            threads: u.int_in_range(1..=8)?,
            how: How {
                at: Placement { offset: u.int_in_range(0..=16)?, slack: u.int_in_range(0..=3)? },
                wanted: <[bool; 2]>::arbitrary(u)?,
                scatter: u.int_in_range(0..=16)?,
                workspace: Option::arbitrary(u)?,
                // Threads take longer to begin than small layers to end.
                workers: if u.ratio(1, 16)? { *u.choose(Workers::ALL)? } else { Workers::Backwards },
            },
            pass: *u.choose(&PASSES)?,
            large: u.ratio(1, 16)?,
        })
    }
}

fuzz_target!(|input: Input| {
    let Ok(desc) = input.shape.build() else { return };
    let largest = [desc.input_len(), desc.output_len(), desc.weight_len(), desc.threshold_len()].into_iter().max();
    let most = LARGEST[usize::from(input.large)];
    if desc.flops() > 2.0 * most || largest.is_none_or(|largest| largest as f64 > most) {
        return;
    }
    let mut case = Case::new(desc, input.values, input.seed);
    if let Some(theta) = input.uniform {
        case = case.with_theta(Theta::Uniform(theta));
    }
    if !input.bias {
        case = case.without_bias();
    }
    if let Some(parts) = input.parts {
        case = case.with_ending(parts);
    }
    let pass = input.pass;
    let expected = Expected::new(&case, pass);
    for isa in isas() {
        let plan = plan(desc, isa, input.tuning).with_threads(input.threads);
        let results = run(&plan, pass, &case, input.how, None);
        expected.check(&results, None, || format!("{pass:?} on {isa}"));
    }
});
