//! NaN, zeros, infinities and subnormal numbers in every operand, against the oracle.

use std::collections::BTreeMap;

use convrelu::capi::convrelu_status::*;
use convrelu::{BackwardInputAlgorithm, ConvDesc, ConvRelu, ForwardAlgorithm, Isa, Pass, Tuning};

use crate::call::{Asked, Call, is_packed, snapshot};
use crate::common::{self, Case, Expected, How, PASSES, Results, Rng, Tensor, Theta, Values, isas, run};
use crate::layer::Layer;
use crate::layers::layers;
use crate::raw::Raw;
use crate::rows::assert_untouched;

/// The algorithm of a pass that multiplies zeros that it has put where padding, or the outside of the gradient, is read:
/// with an ∞ or NaN in the other factor (the weight, or the gradient of the output) those products are NaN, where they should
/// not be there at all. The kernels that replace these algorithms read valid taps alone, and fulfil the demand of
/// [`special_values`]; a mark without a reason fails it.
fn multiplies_outside(plan: &ConvRelu, pass: Pass) -> Option<String> {
    let desc = plan.desc();
    let padded = [desc.padding_before(), desc.padding_after()] != [[0; 3]; 2];
    let marked = match pass {
        Pass::Forward | Pass::ForwardPacked => match plan.forward_algorithm() {
            ForwardAlgorithm::BatchReduce | ForwardAlgorithm::Depthwise | ForwardAlgorithm::Tiny => None,
            algorithm => padded.then(|| format!("{algorithm:?}")),
        },
        Pass::BackwardInput | Pass::BackwardInputPacked => match plan.backward_input_algorithm() {
            BackwardInputAlgorithm::Progressions | BackwardInputAlgorithm::Depthwise | BackwardInputAlgorithm::Tiny => {
                None
            }
            // Whatever the padding, some positions are read by fewer taps than others.
            algorithm => (desc.taps() > 1).then(|| format!("{algorithm:?}")),
        },
        Pass::BackwardWeight => match plan.backward_weight_algorithm() {
            "depthwise" | "stripes" | "tiny" => None,
            algorithm => padded.then(|| algorithm.to_owned()),
        },
    };
    marked.map(|algorithm| format!("{algorithm} in {pass:?}"))
}

/// What marked algorithms did: whether they deviated.
type Marks = BTreeMap<String, bool>;

/// Results that are what the oracle says, with a choice of the kind where the oracle leaves one.
///
/// A result is not finite exactly where the oracle's is not. It is ∞ where the oracle's is, of the same sign. It is NaN where
/// the oracle's is and no operand is infinite. Otherwise infinities of both signs may have met in the oracle's sum, or an
/// infinity a zero, which leaves the kind (NaN against ∞) to the order of summation: any result will do that is not finite.
fn check_reached(
    expected: &Expected,
    results: &Results,
    prior: Option<&Results>,
    infinities: bool,
    mut mark: Option<&mut bool>,
    context: impl Fn() -> String,
) {
    let mut results = results.clone();
    for (which, values) in results.values.iter_mut().enumerate() {
        let prior = prior.and_then(|prior| prior.values[which].as_deref());
        for (i, (value, sum)) in values.iter_mut().flatten().zip(expected.values(which)).enumerate() {
            let want = sum + prior.map_or(0.0, |prior| f64::from(prior[i]));
            match &mut mark {
                _ if value.is_finite() => continue,
                Some(deviates) if want.is_finite() => **deviates = true,
                // Where the zeros of marked algorithms meet an infinity, it becomes NaN.
                Some(_) => (),
                None if want.is_nan() && infinities => (),
                None => continue,
            }
            *value = want as f32;
        }
    }
    expected.check(&results, prior, context);
}

/// The plans of a layer that take different algorithms in a pass, on an instruction set.
fn plans_of(desc: ConvDesc, isa: Isa, pass: Pass) -> Vec<ConvRelu> {
    let usual = Tuning::default();
    let tunings = match pass {
        Pass::Forward | Pass::ForwardPacked => {
            let forced = [ForwardAlgorithm::Direct, ForwardAlgorithm::BatchReduce];
            forced.map(|algorithm| Tuning { forward: Some(algorithm), ..usual }).to_vec()
        }
        Pass::BackwardInput | Pass::BackwardInputPacked => {
            let forced = [BackwardInputAlgorithm::Progressions, BackwardInputAlgorithm::Planar];
            forced.map(|algorithm| Tuning { backward_input: Some(algorithm), ..usual }).to_vec()
        }
        Pass::BackwardWeight => vec![Tuning { depthwise: false, ..usual }],
    };
    [usual].into_iter().chain(tunings).map(|tuning| common::plan(desc, isa, Some(tuning))).collect()
}

/// Runs a case on all instruction sets and algorithms, and through C, whose bits are the same.
fn check_special(
    shared: &[Layer],
    case: &Case,
    pass: Pass,
    prior: Option<&Results>,
    marks: &mut Marks,
    context: impl Fn() -> String,
) {
    let expected = Expected::new(case, pass);
    let has = |special: fn(f32) -> bool, values: &[f32]| values.iter().any(|value| special(*value));
    let [not_finite, infinite]: [fn(f32) -> bool; 2] = [|value| !value.is_finite(), f32::is_infinite];
    // Gaps hold NaN, which nobody reads.
    let grad_output = channels_of(&case.grad_output, Tensor::Output, &case.desc);
    let factors = match pass {
        Pass::Forward | Pass::ForwardPacked => has(not_finite, &case.weight),
        Pass::BackwardInput | Pass::BackwardInputPacked => {
            has(not_finite, &case.weight) || has(not_finite, &grad_output)
        }
        Pass::BackwardWeight => has(not_finite, &grad_output),
    };
    let theta = case.theta.per_tap(&case.desc);
    let operands = [&case.input, &case.weight, &theta, &case.grad_output].into_iter().chain(&case.bias);
    let prior_values = prior.iter().flat_map(|prior| prior.values.iter().flatten());
    let infinities = operands.chain(prior_values).any(|values| has(infinite, values));
    for isa in isas() {
        for plan in plans_of(case.desc, isa, pass) {
            let mark = multiplies_outside(&plan, pass).filter(|_| factors).map(|name| marks.entry(name).or_default());
            let results = run(&plan, pass, case, How::default(), prior);
            check_reached(&expected, &results, prior, infinities, mark, || format!("{} on {isa}: {plan:?}", context()));
        }
    }
    for layer in shared {
        let results = run(&layer.plan, pass, case, How::default(), prior);
        let c = results_of_c(layer, case, pass, prior);
        assert!(same_numbers(&results, &c), "other bits in C: {} on {}", context(), layer.plan.isa());
    }
}

/// A tensor without what belongs to no channel.
fn channels_of(values: &[f32], tensor: Tensor, desc: &ConvDesc) -> Vec<f32> {
    values.iter().enumerate().filter(|(i, _)| !tensor.is_gap(desc, *i)).map(|(_, value)| *value).collect()
}

const SPECIALS: [f32; 8] = [
    f32::NAN,
    f32::from_bits(0xff80_0001),
    0.0,
    -0.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MIN_POSITIVE / 2.0,
    -f32::from_bits(1),
];

/// Where a special value lies.
#[derive(Clone, Copy, Debug)]
enum Where {
    First,
    Middle,
    /// In every ninth element: of several channels, whose thresholds have either sign.
    Scattered,
    Everywhere,
}

impl Where {
    fn put(self, values: &mut [f32], special: f32) {
        self.put_apart(values, special, |_| false);
    }

    /// In an element that is no gap.
    fn put_apart(self, values: &mut [f32], special: f32, is_gap: impl Fn(usize) -> bool) {
        match self {
            Self::First => values[0] = special,
            Self::Middle => {
                let at = (values.len() / 2..values.len()).find(|i| !is_gap(*i));
                values[at.expect("the last element is no gap")] = special;
            }
            Self::Scattered => values.iter_mut().step_by(9).for_each(|value| *value = special),
            Self::Everywhere => values.fill(special),
        }
    }
}

/// A case with a special value in one operand, and what its gradients are added to; none where the pass has no such operand.
fn special_case(desc: ConvDesc, pass: Pass, operand: &str, special: f32, at: Where) -> Option<(Case, Option<Results>)> {
    let mut case = Case::new(desc, Values::Continuous, 33);
    let backward = !matches!(pass, Pass::Forward | Pass::ForwardPacked);
    let mut prior = None;
    match operand {
        "input" => at.put_apart(&mut case.input, special, |i| Tensor::Input.is_gap(&desc, i)),
        "weight" if pass != Pass::BackwardWeight => at.put(&mut case.weight, special),
        "thresholds" if !special.is_nan() => {
            let mut theta = case.theta.per_tap(&desc);
            at.put(&mut theta, special);
            case.theta = Theta::PerTap(theta);
        }
        "threshold" if !special.is_nan() && matches!(at, Where::Everywhere) => case.theta = Theta::Uniform(special),
        "bias" if !backward => at.put(case.bias.as_mut().unwrap(), special),
        "grad_output" if backward => {
            at.put_apart(&mut case.grad_output, special, |i| Tensor::Output.is_gap(&desc, i));
        }
        "prior" if backward => {
            prior = Some(Results::prior(&case, pass, [true; 2], |len| {
                let mut values = vec![0.5; len];
                at.put(&mut values, special);
                values
            }));
        }
        _ => return None,
    }
    Some((case, prior))
}

/// NaN, zeros, infinities and subnormal numbers in every operand are no mistakes (but for NaN thresholds). They reach exactly
/// the results that they reach in the oracle, whatever the instruction set and the algorithm, but for those that are marked;
/// both interfaces give the same bits.
#[test]
fn special_values() {
    let mut rows = 0;
    let mut marks = Marks::new();
    for desc in layers() {
        let shared: Vec<Layer> = Isa::available().map(|isa| Layer::new(desc, isa)).collect();
        for pass in PASSES {
            for operand in ["input", "weight", "thresholds", "threshold", "bias", "grad_output", "prior"] {
                for special in SPECIALS {
                    for at in [Where::First, Where::Middle, Where::Scattered, Where::Everywhere] {
                        let Some((case, prior)) = special_case(desc, pass, operand, special, at) else { continue };
                        rows += 1;
                        check_special(&shared, &case, pass, prior.as_ref(), &mut marks, || {
                            format!("{special} in {operand}, {at:?}, {pass:?}")
                        });
                    }
                }
            }
        }
    }
    println!("special values: {rows} rows; marked: {marks:?}");
    assert!(rows > 4000);
    for (algorithm, deviates) in marks {
        assert!(deviates, "{algorithm} does what it should: it needs no mark any more");
    }
}

/// The same with special values in all operands at once.
#[test]
fn special_values_that_meet() {
    let mut rows = 0;
    let mut marks = Marks::new();
    for desc in layers() {
        let shared: Vec<Layer> = Isa::available().map(|isa| Layer::new(desc, isa)).collect();
        for seed in 0..12 {
            let mut case = Case::new(desc, Values::Quantised, seed);
            let mut rng = Rng(seed + 100);
            let mut put = |values: &mut [f32], specials: &[f32]| {
                for _ in 0..1 + rng.below(3) {
                    values[rng.below(values.len())] = specials[rng.below(specials.len())];
                }
            };
            let mut theta = case.theta.per_tap(&desc);
            put(&mut theta, &SPECIALS[2..]);
            case.theta = match seed % 4 {
                0 => Theta::Uniform(f32::NEG_INFINITY),
                1 => Theta::Uniform(0.0),
                _ => Theta::PerTap(theta),
            };
            for values in [&mut case.input, &mut case.weight, case.bias.as_mut().unwrap(), &mut case.grad_output] {
                put(values, &SPECIALS);
            }
            for pass in PASSES {
                rows += 1;
                check_special(&shared, &case, pass, None, &mut marks, || format!("seed {seed}, {pass:?}"));
            }
        }
    }
    println!("special values that meet: {rows} rows");
    assert!(rows > 500);
}

/// Equal bits, but for which NaN it is.
fn same_numbers(rust: &Results, c: &[Vec<f32>]) -> bool {
    let canonical = |value: f32| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() };
    rust.values
        .iter()
        .flatten()
        .zip(c)
        .all(|(rust, c)| rust.len() == c.len() && rust.iter().zip(c).all(|(rust, c)| canonical(*rust) == canonical(*c)))
}

/// What the C interface writes for a case.
fn results_of_c(layer: &Layer, case: &Case, pass: Pass, prior: Option<&Results>) -> Vec<Vec<f32>> {
    let layer = layer.with_case(case);
    let mut buffers = layer.buffers(Call::Pass(pass), true);
    if is_packed(pass) {
        let mut pack = layer.buffers(Call::Pack(pass), true);
        let (status, message) = Raw::new(&layer, Call::Pack(pass), &mut pack).call();
        assert_eq!(status, CONVRELU_OK, "{message}");
        buffers[1].memory = pack.swap_remove(1).memory;
    }
    let mut outputs = buffers.iter_mut().filter(|buffer| buffer.is_result());
    if let Some(prior) = prior {
        for (buffer, prior) in outputs.by_ref().zip(prior.values.iter().flatten()) {
            buffer.memory.clone_from(prior);
        }
    }
    let asked = Asked { adds: [prior.is_some(); 2], ..Asked::default() };
    let before = snapshot(&buffers);
    let mut raw = Raw::new(&layer, Call::Pass(pass), &mut buffers);
    raw.ask(&asked);
    let (status, message) = raw.call();
    assert_eq!(status, CONVRELU_OK, "{message}");
    assert_untouched(&layer, &asked, &buffers, &before);
    for buffer in buffers.iter_mut().filter(|_| prior.is_none()) {
        // As the results of Rust are handed over.
        let tensor = match buffer.name {
            "output" => Tensor::Output,
            "grad_input" => Tensor::Input,
            _ => continue,
        };
        let values = buffer.memory.iter_mut().enumerate();
        values.filter(|(i, _)| tensor.is_gap(&case.desc, *i)).for_each(|(_, value)| *value = 0.0);
    }
    let outputs = buffers.into_iter().filter(|buffer| buffer.is_result());
    outputs.map(|buffer| buffer.memory).collect()
}
