//! AdaReLU as an elementwise operation (eq. 4 to 6), with thresholds per layer, per channel or per element.
//!
//! Two numbers describe all three: each threshold covers `inner` elements in a row, and the thresholds repeat over the tensor.
//! So the threshold of element `e` is `thresholds[(e / inner) % thresholds.len()]`.
//!
//! | thresholds per | `thresholds.len()` | `inner` |
//! |---|---|---|
//! | layer | 1 | 1 |
//! | channel, NCHW | channels | spatial size |
//! | channel, NHWC | channels | 1 |
//! | element of an image | elements of an image | 1 |

use crate::error::Error;
use crate::operands::Accumulation;

/// Checks that no threshold is NaN, and that a tensor of `elements` is a whole number of repetitions of the thresholds, each of
/// which covers `inner` elements.
pub(crate) fn check(elements: usize, thresholds: &[f32], inner: usize) -> Result<(), Error> {
    let period = thresholds.len().checked_mul(inner).filter(|&period| period > 0);
    if period.is_none_or(|period| !elements.is_multiple_of(period)) {
        return Err(Error::ThresholdShape { elements, thresholds: thresholds.len(), inner });
    }
    match thresholds.iter().position(|theta| theta.is_nan()) {
        Some(index) => Err(Error::NanThreshold { index }),
        None => Ok(()),
    }
}

fn check_len(argument: &'static str, len: usize, required: usize) -> Result<(), Error> {
    if len < required { Err(Error::BufferTooShort { argument, len, required }) } else { Ok(()) }
}

/// `y = x` if `x > θ`, else `θ` (eq. 4); a NaN in `x` stays NaN.
///
/// Reads all of `input` and writes as many elements of `output`.
///
/// # Errors
///
/// [`Error::ThresholdShape`], [`Error::NanThreshold`], [`Error::BufferTooShort`].
///
/// ```
/// let mut y = [0.0; 4];
/// convrelu::adarelu::forward(&[-1.0, 2.0, 0.5, 3.0], &[1.0, 2.5], 1, &mut y)?;
/// assert_eq!(y, [1.0, 2.5, 1.0, 3.0]);
/// # Ok::<(), convrelu::Error>(())
/// ```
pub fn forward(input: &[f32], thresholds: &[f32], inner: usize, output: &mut [f32]) -> Result<(), Error> {
    check(input.len(), thresholds, inner)?;
    check_len("output", output.len(), input.len())?;
    if inner == 1 {
        // With `inner` = 1, the inner loop at the end of this function would have a single iteration. The inner loop here is as
        // long as the thresholds, so the compiler vectorises it.
        let rows = input.chunks_exact(thresholds.len()).zip(output.chunks_exact_mut(thresholds.len()));
        for (x, y) in rows {
            for ((x, y), theta) in x.iter().zip(y).zip(thresholds) {
                *y = if x <= theta { *theta } else { *x };
            }
        }
        return Ok(());
    }
    let runs = input.chunks_exact(inner).zip(output.chunks_exact_mut(inner));
    for ((x, y), &theta) in runs.zip(thresholds.iter().cycle()) {
        for (x, y) in x.iter().zip(y) {
            *y = if *x <= theta { theta } else { *x };
        }
    }
    Ok(())
}

/// Gradients of the input and of the thresholds (eq. 5 and 6): `∂E/∂x = g` where `x > θ`, and `∂E/∂θ` is the sum of `g` where `x
/// ≤ θ`. A NaN input passes its gradient to neither. `accumulation` says whether both gradients are replaced or added to.
/// `grad_output` and `grad_input` are at least as long as `input`, `grad_thresholds` at least as long as `thresholds`.
///
/// # Errors
///
/// [`Error::ThresholdShape`], [`Error::NanThreshold`], [`Error::BufferTooShort`].
pub fn backward(
    input: &[f32],
    thresholds: &[f32],
    inner: usize,
    grad_output: &[f32],
    grad_input: &mut [f32],
    grad_thresholds: &mut [f32],
    accumulation: Accumulation,
) -> Result<(), Error> {
    check(input.len(), thresholds, inner)?;
    check_len("grad_output", grad_output.len(), input.len())?;
    check_len("grad_input", grad_input.len(), input.len())?;
    check_len("grad_thresholds", grad_thresholds.len(), thresholds.len())?;
    let (grad_input, grad_thresholds) = (&mut grad_input[..input.len()], &mut grad_thresholds[..thresholds.len()]);
    if accumulation == Accumulation::Overwrite {
        grad_input.fill(0.0);
        grad_thresholds.fill(0.0);
    }
    if inner == 1 {
        // As in `forward`: a long inner loop, which the compiler vectorises.
        let step = thresholds.len();
        let rows = input.chunks_exact(step).zip(grad_output.chunks_exact(step)).zip(grad_input.chunks_exact_mut(step));
        for ((x, g), dx) in rows {
            let parameters = thresholds.iter().zip(&mut *grad_thresholds);
            for (((x, g), dx), (theta, sum)) in x.iter().zip(g).zip(dx).zip(parameters) {
                *dx += if x > theta { *g } else { 0.0 };
                *sum += if x <= theta { *g } else { 0.0 };
            }
        }
        return Ok(());
    }
    let runs = input.chunks_exact(inner).zip(grad_output.chunks_exact(inner)).zip(grad_input.chunks_exact_mut(inner));
    for (run, ((x, g), dx)) in runs.enumerate() {
        let index = run % thresholds.len();
        let theta = thresholds[index];
        let mut sum = 0.0;
        for ((x, g), dx) in x.iter().zip(g).zip(dx) {
            *dx += if *x > theta { *g } else { 0.0 };
            sum += if *x <= theta { *g } else { 0.0 };
        }
        grad_thresholds[index] += sum;
    }
    Ok(())
}
