//! Small layers of any geometry, absurd distances included: a pass on every instruction set against the oracle.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use convrelu::{BackwardInputAlgorithm, ForwardAlgorithm, Layout, Pass, Tuning};
use libfuzzer_sys::{Corpus, fuzz_target};

mod chance;
#[allow(dead_code, unused_imports)] // The test suite uses more of it.
#[path = "../../tests/common/mod.rs"]
mod common;

use chance::rarely;
use common::{
    Axis, Case, Expected, How, PASSES, Parts, Placement, Results, Rng, Shape, Theta, Values, Workers, isas, plan, run,
};

/// Multiplications of the largest case, and elements of its largest tensor: of most, and of one in sixteen. A case takes as long as
/// its oracle, and most of what can go wrong goes wrong in small ones.
const LARGEST: [f64; 2] = [1_000.0, 8_000.0];

/// A distance: mostly small, sometimes any at all.
fn distance(u: &mut Unstructured<'_>, small: usize) -> arbitrary::Result<usize> {
    if rarely(u, 16)? { usize::arbitrary(u) } else { u.int_in_range(1..=small) }
}

/// An extent: mostly small, for the product of many is to be.
fn extent(u: &mut Unstructured<'_>, most: usize) -> arbitrary::Result<usize> {
    let most = if rarely(u, 8)? { most } else { 4 };
    u.int_in_range(1..=most)
}

fn axis(u: &mut Unstructured<'_>) -> arbitrary::Result<Axis> {
    let mut axis = Axis {
        size: extent(u, 70)?,
        kernel: extent(u, 7)?,
        stride: distance(u, 5)?,
        dilation: distance(u, 4)?,
        before: distance(u, 9)?.saturating_sub(1),
        after: distance(u, 9)?.saturating_sub(1),
    };
    // Most inputs are no smaller than the kernel, for others are refused.
    let reach = axis.dilation.saturating_mul(axis.kernel - 1).saturating_add(1);
    let least = reach.saturating_sub(axis.before.saturating_add(axis.after));
    if least <= 70 && !rarely(u, 16)? {
        axis.size = axis.size.max(least);
    }
    Ok(axis)
}

fn shape(u: &mut Unstructured<'_>) -> arbitrary::Result<Shape> {
    Ok(Shape {
        batch: if rarely(u, 32)? { 0 } else { u.int_in_range(1..=3)? },
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
    pass: Pass,
    shape: Shape,
    values: Values,
    uniform: Option<f32>,
    bias: bool,
    parts: Option<Parts>,
    tuning: Option<Tuning>,
    threads: usize,
    how: How,
    /// Which gradients are added to what their buffers hold.
    adds: [bool; 2],
    large: bool,
    seed: u64,
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
                strips: *u.choose(&[0, 1, 4, usize::MAX])?,
                depthwise: bool::arbitrary(u)?,
            })
        };
        // What shapes the work comes first, for inputs may run out of bytes.
        Ok(Self {
            pass: *u.choose(&PASSES)?,
            shape: shape(u)?,
            values: *u.choose(&[Values::Continuous, Values::Quantised, Values::Sparse])?,
            uniform: if bool::arbitrary(u)? { Some(*u.choose(&[0.0, 0.25, f32::NEG_INFINITY])?) } else { None },
            bias: bool::arbitrary(u)?,
            parts: if bool::arbitrary(u)? {
                Some(Parts {
                    has: <[bool; 3]>::arbitrary(u)?,
                    in_output: bool::arbitrary(u)?,
                    bounds: *u.choose(&Parts::BOUNDS)?,
                })
            } else {
                None
            },
            tuning: if bool::arbitrary(u)? { Some(tuning(u)?) } else { None },
            threads: u.int_in_range(1..=8)?,
            how: How {
                at: Placement { offset: u.int_in_range(0..=16)?, slack: u.int_in_range(0..=3)? },
                wanted: *u.choose(&[[true; 2], [true, false], [false, true], [false; 2]])?,
                scatter: u.int_in_range(0..=16)?,
                workspace: Option::arbitrary(u)?,
                // Threads take longer to begin than small layers to end.
                workers: if rarely(u, 16)? { *u.choose(Workers::ALL)? } else { Workers::Backwards },
            },
            adds: <[bool; 2]>::arbitrary(u)?,
            large: rarely(u, 16)?,
            seed: u64::arbitrary(u)?,
        })
    }
}

fuzz_target!(|input: Input| -> Corpus {
    // Refused descriptors are another target's.
    let Ok(desc) = input.shape.build() else { return Corpus::Reject };
    let largest = [desc.input_len(), desc.output_len(), desc.weight_len(), desc.threshold_len()].into_iter().max();
    let most = LARGEST[usize::from(input.large)];
    if desc.flops() > 2.0 * most || largest.is_none_or(|largest| largest as f64 > most) {
        return Corpus::Reject;
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
    let backward = !matches!(pass, Pass::Forward | Pass::ForwardPacked);
    let adds = [0, 1].map(|which| backward && input.how.wanted[which] && input.adds[which]);
    let mut rng = Rng(input.seed ^ 1);
    let prior = Results::prior(&case, pass, adds, |len| rng.values(Values::Continuous, len));
    let expected = Expected::new(&case, pass);
    for isa in isas() {
        let plan = plan(desc, isa, input.tuning).with_threads(input.threads);
        let results = run(&plan, pass, &case, input.how, Some(&prior));
        expected.check(&results, Some(&prior), || format!("{pass:?} on {isa}"));
    }
    Corpus::Keep
});
