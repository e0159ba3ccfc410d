//! Softmax cross-entropy.

/// Returns `−Σ target · ln softmax(logits)`, summed over the examples, and the number of examples that the greatest logit
/// classifies correctly. Writes to `grad` the gradient of the mean over the `step` examples of a step of the optimiser. These
/// examples may be a part of the step. `logits` and `grad` have the shape `[labels.len(), classes]`.
///
/// The target is 1 for the label and 0 elsewhere, smoothed as in PyTorch: `(1 − smoothing)` times that plus
/// `smoothing / classes`.
///
/// # Panics
///
/// If a buffer is shorter than that, or if a label is not less than the number of classes.
pub fn softmax_cross_entropy(
    logits: &[f32],
    labels: &[usize],
    classes: usize,
    smoothing: f32,
    step: usize,
    grad: &mut [f32],
) -> (f64, usize) {
    let (mut loss, mut right) = (0.0, 0);
    let share = 1.0 / step as f32;
    let uniform = smoothing / classes as f32;
    for (image, &label) in labels.iter().enumerate() {
        let logits = &logits[image * classes..][..classes];
        let grad = &mut grad[image * classes..][..classes];
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for (p, logit) in grad.iter_mut().zip(logits) {
            *p = libm::expf(logit - best);
        }
        let sum: f32 = grad.iter().sum();
        // The greatest logit is subtracted first: otherwise large logits would hide the other terms.
        let surprise = |logit: f32| f64::from(libm::logf(sum)) - f64::from(logit - best);
        loss += f64::from(1.0 - smoothing) * surprise(logits[label]);
        if smoothing != 0.0 {
            loss += f64::from(uniform) * logits.iter().map(|&logit| surprise(logit)).sum::<f64>();
        }
        right += usize::from(logits.iter().position(|&logit| logit == best) == Some(label));
        for p in grad.iter_mut() {
            *p = share * (*p / sum - uniform);
        }
        grad[label] -= share * (1.0 - smoothing);
    }
    (loss, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradient_is_that_of_the_loss() {
        let logits = [0.5, -1.0, 2.0, 0.0, 0.25, -0.5];
        let labels = [2, 0];
        let mut grad = [0.0; 6];
        for smoothing in [0.0, 0.1] {
            let (_, right) = softmax_cross_entropy(&logits, &labels, 3, smoothing, 2, &mut grad);
            assert_eq!(right, 1);
            for i in 0..6 {
                let step = 1e-2;
                let at = |delta| {
                    let mut logits = logits;
                    logits[i] += delta;
                    softmax_cross_entropy(&logits, &labels, 3, smoothing, 2, &mut [0.0; 6]).0 / 2.0
                };
                let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
                assert!((slope - f64::from(grad[i])).abs() < 1e-4, "{i}: {slope} {}", grad[i]);
            }
        }
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let mut grad = [0.0; 2];
        let (loss, right) = softmax_cross_entropy(&[1000.0, -1000.0], &[0], 2, 0.0, 1, &mut grad);
        assert_eq!((loss, right, grad), (0.0, 1, [0.0, 0.0]));
    }

    /// Computed by hand: softmax of (0, ln 3) is (1/4, 3/4).
    #[test]
    fn smoothing_mixes_in_the_uniform_target() {
        let mut grad = [0.0; 2];
        let (loss, _) = softmax_cross_entropy(&[0.0, libm::logf(3.0)], &[1], 2, 0.2, 1, &mut grad);
        let want = -0.9 * libm::log(0.75) - 0.1 * libm::log(0.25);
        assert!((loss - want).abs() < 1e-6, "{loss} {want}");
        assert!((grad[0] - 0.15).abs() < 1e-6 && (grad[1] + 0.15).abs() < 1e-6, "{grad:?}");
    }
}
