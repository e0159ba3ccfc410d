//! A layer out of candle's own operations: for elements of 64 bits, and for other devices than the CPU.

use candle_core::{DType, Error, Result, Tensor};
use convrelu::ConvDesc;

use crate::arguments::Arguments;
use crate::options::Options;
use crate::thresholds::Thresholds;

/// The output of a layer: the sum over taps of products of matrices, each of the tap's weights and the inputs that it meets.
pub(crate) fn forward<const R: usize>(
    arguments: &Arguments<'_>,
    options: &Options<R>,
    desc: &ConvDesc,
    shape: &[usize],
) -> Result<Tensor> {
    let Arguments { input, weight, thresholds, bias } = *arguments;
    check_thresholds(&thresholds)?;
    let (batch, groups) = (desc.batch(), desc.groups());
    let (in_channels, out_channels) = (desc.in_channels(), desc.out_channels());
    let size: [usize; R] = std::array::from_fn(|axis| shape[2 + axis]);
    let kernel: [usize; R] = std::array::from_fn(|axis| weight.dims()[2 + axis]);
    let positions: usize = size.iter().product();
    let mut padded = input.clone();
    for axis in 0..R {
        padded = padded.pad_with_zeros(2 + axis, options.padding_before[axis], options.padding_after[axis])?;
    }
    let theta = match thresholds {
        Thresholds::Uniform(_) if thresholds.is_linear() => None,
        Thresholds::Uniform(theta) => Some(Tensor::new(theta, input.device())?.to_dtype(input.dtype())?),
        Thresholds::Tensor(tensor) => Some(tensor.clone()),
    };
    let mut sum: Option<Tensor> = None;
    for index in 0..desc.taps() {
        let tap = tap(kernel, index);
        let mut met = padded.clone();
        for axis in 0..R {
            met = every(&met, 2 + axis, tap[axis] * options.dilation[axis], options.stride[axis], size[axis])?;
        }
        let met = met.contiguous()?.reshape((batch, in_channels, positions))?;
        let met = match &theta {
            None => met,
            Some(theta) => {
                let theta = if theta.rank() == 0 { theta.clone() } else { at(theta, 1, tap)?.reshape((1, (), 1))? };
                let theta = theta.broadcast_as(met.shape())?.contiguous()?;
                // A tie sends its gradient to θ; a NaN stays one.
                met.le(&theta)?.where_cond(&theta, &met)?
            }
        };
        let met = met.reshape((batch, groups, in_channels / groups, positions))?;
        let weight = at(weight, 2, tap)?.contiguous()?;
        let weight = weight.reshape((1, groups, out_channels / groups, in_channels / groups))?;
        let products = weight.broadcast_matmul(&met)?;
        sum = Some(match sum {
            None => products,
            Some(sum) => (sum + products)?,
        });
    }
    // A kernel has a tap at least.
    let sum = sum.ok_or_else(|| Error::msg("kernel has no tap: it must have at least 1"))?.reshape(shape)?;
    match bias {
        None => Ok(sum),
        Some(bias) => sum.broadcast_add(&bias.reshape([&[1, out_channels][..], &[1; R]].concat())?),
    }
}

/// The position of a tap by its index.
fn tap<const R: usize>(kernel: [usize; R], index: usize) -> [usize; R] {
    let mut rest = index;
    let mut tap = [0; R];
    for axis in (0..R).rev() {
        tap[axis] = rest % kernel[axis];
        rest /= kernel[axis];
    }
    tap
}

/// `count` elements along an axis, from `first` on, `step` apart.
fn every(tensor: &Tensor, axis: usize, first: usize, step: usize, count: usize) -> Result<Tensor> {
    let span = tensor.narrow(axis, first, (count - 1) * step + 1)?;
    if step == 1 {
        return Ok(span);
    }
    let indices = (0..count).map(|index| (index * step) as u32).collect::<Vec<_>>();
    span.contiguous()?.index_select(&Tensor::new(indices, tensor.device())?, axis)
}

/// What a weight or thresholds hold for one tap. Their kernel axes follow the first `outer` axes.
fn at<const R: usize>(parameters: &Tensor, outer: usize, tap: [usize; R]) -> Result<Tensor> {
    let mut parameters = parameters.clone();
    for (axis, &place) in tap.iter().enumerate() {
        parameters = parameters.narrow(outer + axis, place, 1)?;
    }
    Ok(parameters)
}

/// What the kernels check themselves. Not on other devices, which would have to wait for the answer.
fn check_thresholds(thresholds: &Thresholds<'_>) -> Result<()> {
    let index = match thresholds {
        Thresholds::Uniform(theta) => theta.is_nan().then_some(0),
        Thresholds::Tensor(tensor) if tensor.device().is_cpu() => {
            let thetas = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            thetas.iter().position(|theta| theta.is_nan())
        }
        Thresholds::Tensor(_) => None,
    };
    match index {
        Some(index) => Err(Error::wrap(convrelu::Error::NanThreshold { index })),
        None => Ok(()),
    }
}
