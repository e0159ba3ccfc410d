//! What a pass should give, and how far rounding may take it from there.

use convrelu::Pass;
use convrelu::reference::{self, Sum, Thetas, error_bound, gradient_error_bound};

use super::case::{Case, Ending, Tensor, Theta, channel_of};
use super::runner::Results;

/// `f32` values as the `f64` that the oracle computes with: exact.
pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// The oracle's results of one pass: of the main output and of the optional one.
pub(crate) struct Expected {
    sums: [Vec<Sum<f64>>; 2],
    bounds: [Bound; 2],
}

impl Expected {
    pub(crate) fn new(case: &Case, pass: Pass) -> Self {
        let desc = &case.desc;
        let lens = pass_lens(case, pass);
        let mut sums = lens.map(|len| vec![Sum::<f64>::ZERO; len]);
        let [main, second] = &mut sums;
        let (input, weight, per_tap) = (wide(&case.input), wide(&case.weight), wide(&case.theta.per_tap(desc)));
        let theta = match case.theta {
            Theta::PerTap(_) => Thetas::PerTap(&per_tap[..]),
            Theta::Uniform(theta) => Thetas::Uniform(f64::from(theta)),
        };
        let grad_output = wide(&case.grad_output);
        match pass {
            Pass::Forward | Pass::ForwardPacked => {
                reference::forward(desc, &input, &weight, theta, case.bias.as_deref().map(wide).as_deref(), main);
                if let Some(ending) = &case.ending {
                    finish(case, ending, main);
                }
            }
            Pass::BackwardInput | Pass::BackwardInputPacked => {
                reference::backward_input(desc, &input, &weight, theta, &grad_output, main, second);
            }
            Pass::BackwardWeight => {
                reference::backward_weight(desc, &input, theta, &grad_output, main, second);
            }
        }
        Self { sums, bounds: pass_bounds(case, pass) }
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
                let bound = self.bounds[which].of(sum.magnitude + found.abs());
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

/// What becomes of the sums of a forward pass.
fn finish(case: &Case, ending: &Ending, outputs: &mut [Sum<f64>]) {
    let desc = &case.desc;
    let at =
        |values: &Option<Vec<f32>>, index: usize, neutral| values.as_ref().map_or(neutral, |v| f64::from(v[index]));
    for (i, output) in outputs.iter_mut().enumerate().filter(|(i, _)| !Tensor::Output.is_gap(desc, *i)) {
        let channel = channel_of(desc, i);
        let [scale, shift] = [at(&ending.scale, channel, 1.0), at(&ending.shift, channel, 0.0)];
        let bounds = ending.bounds.map(f64::from);
        *output = reference::epilogue(*output, scale, shift, at(&ending.residual, i, 0.0), bounds);
    }
}

/// Lengths of the outputs of a pass; 0 for the second output of forward, which has one.
pub(crate) fn pass_lens(case: &Case, pass: Pass) -> [usize; 2] {
    let desc = &case.desc;
    match pass {
        Pass::Forward | Pass::ForwardPacked => [desc.output_len(), 0],
        Pass::BackwardInput | Pass::BackwardInputPacked => [desc.input_len(), case.theta.grad_len(desc)],
        Pass::BackwardWeight => [desc.weight_len(), desc.bias_len()],
    }
}

/// How far rounding may take one element of a result.
#[derive(Clone, Copy)]
enum Bound {
    /// A sum of so many products.
    Terms(usize),
    /// A sum over so many positions, of so many products each.
    Positions(usize, usize),
}

impl Bound {
    fn of(self, magnitude: f64) -> f64 {
        match self {
            Self::Terms(terms) => error_bound(terms, magnitude),
            Self::Positions(positions, terms) => gradient_error_bound(terms, positions, magnitude),
        }
    }
}

/// The bounds of the outputs of a pass.
fn pass_bounds(case: &Case, pass: Pass) -> [Bound; 2] {
    let desc = &case.desc;
    let positions = desc.batch() * desc.output_size().iter().product::<usize>();
    let group_in = desc.in_channels() / desc.groups();
    let group_out = desc.out_channels() / desc.groups();
    match pass {
        Pass::Forward | Pass::ForwardPacked => {
            let ends = if case.ending.is_some() { 2 } else { 0 };
            [Bound::Terms(group_in * desc.taps() + ends), Bound::Terms(0)]
        }
        Pass::BackwardInput | Pass::BackwardInputPacked => {
            // One threshold for all sums the gradients of all.
            let together = desc.threshold_len() / case.theta.grad_len(desc);
            [Bound::Terms(group_out * desc.taps()), Bound::Positions(positions, group_out + together)]
        }
        Pass::BackwardWeight => [Bound::Positions(positions, 1); 2],
    }
}
