//! Softmax cross-entropy.

/// Mean over the batch of `−ln softmax(logits)[label]`, with its gradient in `grad`; also how many images the greatest
/// logit classifies rightly. `logits` and `grad` are `[labels.len(), classes]`.
///
/// # Panics
///
/// If a buffer is shorter than that or a label is no class.
pub fn softmax_cross_entropy(logits: &[f32], labels: &[usize], classes: usize, grad: &mut [f32]) -> (f32, usize) {
    let (mut loss, mut right) = (0.0, 0);
    let share = 1.0 / labels.len() as f32;
    for (image, &label) in labels.iter().enumerate() {
        let logits = &logits[image * classes..][..classes];
        let grad = &mut grad[image * classes..][..classes];
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for (p, logit) in grad.iter_mut().zip(logits) {
            *p = libm::expf(logit - best);
        }
        let sum: f32 = grad.iter().sum();
        loss -= logits[label] - best - libm::logf(sum);
        right += usize::from(logits.iter().position(|&logit| logit == best) == Some(label));
        for p in grad.iter_mut() {
            *p *= share / sum;
        }
        grad[label] -= share;
    }
    (loss * share, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradient_is_that_of_the_loss() {
        let logits = [0.5, -1.0, 2.0, 0.0, 0.25, -0.5];
        let labels = [2, 0];
        let mut grad = [0.0; 6];
        let (_, right) = softmax_cross_entropy(&logits, &labels, 3, &mut grad);
        assert_eq!(right, 1);
        for i in 0..6 {
            let step = 1e-2;
            let at = |delta| {
                let mut logits = logits;
                logits[i] += delta;
                softmax_cross_entropy(&logits, &labels, 3, &mut [0.0; 6]).0
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            assert!((slope - grad[i]).abs() < 1e-4, "{i}: {slope} {}", grad[i]);
        }
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let mut grad = [0.0; 2];
        let (loss, right) = softmax_cross_entropy(&[1000.0, -1000.0], &[0], 2, &mut grad);
        assert_eq!((loss, right, grad), (0.0, 1, [0.0, 0.0]));
    }
}
