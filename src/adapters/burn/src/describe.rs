//! From the shapes of tensors and burn's options to a descriptor, with every check that needs no elements.

use burn::tensor::Tensor;
use burn::tensor::ops::ConvOptions;
use convrelu::ConvDesc;

use crate::error::Error;

/// What the axes of the tensors stand for.
const WEIGHT: &str = "[out_channels, in_channels / groups, *kernel]";
const THRESHOLDS: &str = "[in_channels, *kernel]";
const BIAS: &str = "[out_channels]";

/// The layer that these tensors and options make, with `R` spatial axes, `D = R + 2` and `T = R + 1`.
pub(crate) fn describe<const D: usize, const T: usize, const R: usize>(
    input: &Tensor<D>,
    weight: &Tensor<D>,
    thresholds: Option<&Tensor<T>>,
    bias: Option<&Tensor<1>>,
    options: &ConvOptions<R>,
) -> Result<ConvDesc, Error> {
    const { assert!(R >= 1 && R <= 3 && D == R + 2 && T == R + 1) }
    let (input_shape, weight_shape) = (input.dims(), weight.dims());
    let ([batch, channels], [out_channels, _]) = (first(input_shape), first(weight_shape));
    let kernel = &weight_shape[2..];
    let (before, after) = (options.padding_begin(), options.padding_end());
    let desc = ConvDesc::conv3d(batch, channels, out_channels, three(&input_shape[2..], 1), three(kernel, 1))
        .stride(three(&options.stride, 1))
        .dilation(three(&options.dilation, 1))
        .padding_before_after(three(&before, 0), three(&after, 0))
        .groups(options.groups)
        .build()?;

    let input_type = input.dtype();
    let check = |argument, found: &[usize], wanted: Vec<usize>, axes, found_type| {
        if found != wanted {
            return Err(Error::Shape { argument, found: found.to_vec(), wanted, axes });
        }
        if found_type != input_type {
            return Err(Error::ElementType { argument, found: found_type, wanted: input_type });
        }
        Ok(())
    };
    let wanted = [&[out_channels, channels / options.groups], kernel].concat();
    check("weight", &weight_shape, wanted, WEIGHT, weight.dtype())?;
    if let Some(thresholds) = thresholds {
        let wanted = [&[channels], kernel].concat();
        check("thresholds", &thresholds.dims(), wanted, THRESHOLDS, thresholds.dtype())?;
    }
    if let Some(bias) = bias {
        check("bias", &bias.dims(), vec![out_channels], BIAS, bias.dtype())?;
    }
    Ok(desc)
}

fn first<const D: usize>(shape: [usize; D]) -> [usize; 2] {
    [shape[0], shape[1]]
}

/// The same for three spatial axes. (The leading ones of layers with fewer have one position: it is the same layer.)
fn three(values: &[usize], missing: usize) -> [usize; 3] {
    let mut all = [missing; 3];
    all[3 - values.len()..].copy_from_slice(values);
    all
}
