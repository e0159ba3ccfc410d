//! What a pass should give, and how far rounding may take it from there.

use convrelu::reference::{self, Sum, error_bound};
use convrelu::{ConvDesc, Pass};

use super::case::Case;
use super::runner::Results;

/// `f32` values as the `f64` that the oracle computes with: exact.
pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// The oracle's results of one pass: of the main output and of the optional one.
pub(crate) struct Expected {
    sums: [Vec<Sum<f64>>; 2],
    terms: [usize; 2],
}

impl Expected {
    pub(crate) fn new(case: &Case, pass: Pass) -> Self {
        let desc = &case.desc;
        let lens = pass_lens(desc, pass);
        let mut sums = lens.map(|len| vec![Sum::<f64>::ZERO; len]);
        let [main, second] = &mut sums;
        let (input, weight, theta) = (wide(&case.input), wide(&case.weight), wide(&case.theta.per_tap(desc)));
        let grad_output = wide(&case.grad_output);
        match pass {
            Pass::Forward | Pass::ForwardPacked => {
                reference::forward(desc, &input, &weight, &theta, case.bias.as_deref().map(wide).as_deref(), main);
            }
            Pass::BackwardInput | Pass::BackwardInputPacked => {
                reference::backward_input(desc, &input, &weight, &theta, &grad_output, main, second);
            }
            Pass::BackwardWeight => {
                reference::backward_weight(desc, &input, &theta, &grad_output, main, second);
            }
        }
        Self { sums, terms: pass_terms(desc, pass) }
    }

    /// Compares element by element, within the rounding error of a sum of that many terms.
    ///
    /// `prior` is what an accumulating call found in its outputs.
    ///
    /// # Panics
    ///
    /// If an element is farther away, with everything that is needed to see it again.
    pub(crate) fn check(&self, results: &Results, prior: Option<&Results>, context: impl Fn() -> String) {
        for (which, name) in results.names.iter().enumerate() {
            let Some(values) = &results.values[which] else { continue };
            let prior = prior.and_then(|prior| prior.values[which].as_deref());
            assert_eq!(values.len(), self.sums[which].len(), "length of {name}");
            for (i, (&value, sum)) in values.iter().zip(&self.sums[which]).enumerate() {
                let found = prior.map_or(0.0, |prior| f64::from(prior[i]));
                let want = sum.value + found;
                let bound = error_bound(self.terms[which], sum.magnitude + found.abs());
                let good = if want.is_finite() {
                    (f64::from(value) - want).abs() <= bound
                } else {
                    f64::from(value) == want || (value.is_nan() && want.is_nan())
                };
                assert!(good, "{name}[{i}] is {value:e}, not {want:e} ± {bound:e}: {}", context());
            }
        }
    }

    /// The values alone.
    pub(crate) fn values(&self, which: usize) -> impl Iterator<Item = f64> {
        self.sums[which].iter().map(|sum| sum.value)
    }
}

/// Lengths of the outputs of a pass; 0 for the second output of forward, which has one.
pub(crate) fn pass_lens(desc: &ConvDesc, pass: Pass) -> [usize; 2] {
    match pass {
        Pass::Forward | Pass::ForwardPacked => [desc.output_len(), 0],
        Pass::BackwardInput | Pass::BackwardInputPacked => [desc.input_len(), desc.threshold_len()],
        Pass::BackwardWeight => [desc.weight_len(), desc.bias_len()],
    }
}

/// The most products that one element of each output of a pass sums.
fn pass_terms(desc: &ConvDesc, pass: Pass) -> [usize; 2] {
    let positions = desc.batch() * desc.output_size().iter().product::<usize>();
    let group_in = desc.in_channels() / desc.groups();
    let group_out = desc.out_channels() / desc.groups();
    match pass {
        Pass::Forward | Pass::ForwardPacked => [group_in * desc.taps(), 0],
        Pass::BackwardInput | Pass::BackwardInputPacked => [group_out * desc.taps(), group_out * positions],
        Pass::BackwardWeight => [positions, positions],
    }
}
