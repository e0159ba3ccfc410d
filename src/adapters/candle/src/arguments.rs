//! What a call is given, checked once.

use candle_core::{DType, Error, Result, Tensor, bail};
use convrelu::ConvDesc;

use crate::options::Options;
use crate::thresholds::Thresholds;

/// The tensors of a layer.
#[derive(Clone, Copy)]
pub(crate) struct Arguments<'a> {
    pub(crate) input: &'a Tensor,
    pub(crate) weight: &'a Tensor,
    pub(crate) thresholds: Thresholds<'a>,
    pub(crate) bias: Option<&'a Tensor>,
}

impl Arguments<'_> {
    /// The layer that these tensors make.
    ///
    /// # Errors
    ///
    /// An error that names the argument, its value and the rule it breaks.
    pub(crate) fn layer<const R: usize>(&self, options: &Options<R>) -> Result<ConvDesc> {
        const { assert!(1 <= R && R <= 3, "a convolution has one, two or three spatial axes") };
        self.check_types()?;
        let axes = &["depth", "height", "width"][3 - R..];
        let (batch, in_channels, size) = outer::<R>("input", self.input, axes, ["batch", "in_channels"])?;
        let (out_channels, per_group, kernel) =
            outer::<R>("weight", self.weight, axes, ["out_channels", "in_channels / groups"])?;
        // Leading axes of extent 1 change nothing, so every layer is one of three axes.
        let desc = ConvDesc::conv3d(batch, in_channels, out_channels, three(size, 1), three(kernel, 1))
            .stride(three(options.stride, 1))
            .padding_before_after(three(options.padding_before, 0), three(options.padding_after, 0))
            .dilation(three(options.dilation, 1))
            .groups(options.groups)
            .build()
            .map_err(Error::wrap)?;
        let groups = options.groups;
        if per_group != in_channels / groups {
            bail!(
                "weight has shape {:?}: its axis 1 must be {}, the {in_channels} channels of input / {groups} groups",
                self.weight.dims(),
                in_channels / groups
            );
        }
        if let Some(thresholds) = self.thresholds.tensor() {
            let per_tap = [&[in_channels], &kernel[..]].concat();
            if thresholds.rank() > 0 && thresholds.dims() != per_tap {
                bail!(
                    "thresholds has shape {:?}: it must be {per_tap:?}, in_channels and kernel, or [] for a single one",
                    thresholds.dims()
                );
            }
        }
        if let Some(bias) = self.bias
            && bias.dims() != [out_channels]
        {
            bail!("bias has shape {:?}: it must be [{out_channels}], the output channels of weight", bias.dims());
        }
        Ok(desc)
    }

    /// All tensors and their names, the input first.
    fn named(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let (thresholds, bias) = (self.thresholds.tensor(), self.bias);
        let optional = [thresholds.map(|t| ("thresholds", t)), bias.map(|b| ("bias", b))];
        [("input", self.input), ("weight", self.weight)].into_iter().chain(optional.into_iter().flatten())
    }

    /// Whether all tensors have one element type that can be computed with, and lie on one device.
    fn check_types(&self) -> Result<()> {
        let (dtype, device) = (self.input.dtype(), self.input.device());
        if !matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
            bail!("input has type {dtype:?}: it must be F32, F64, F16 or BF16");
        }
        for (name, tensor) in self.named() {
            if tensor.dtype() != dtype {
                bail!("{name} has type {:?}: it must have that of input, {dtype:?}", tensor.dtype());
            }
            if !tensor.device().same_device(device) {
                let (its, wanted) = (tensor.device().location(), device.location());
                bail!("{name} is on {its:?}: it must be on the device of input, {wanted:?}");
            }
        }
        Ok(())
    }
}

/// The first two extents of a tensor, and the `R` that follow.
fn outer<const R: usize>(
    name: &str,
    tensor: &Tensor,
    axes: &[&str],
    [first, second]: [&str; 2],
) -> Result<(usize, usize, [usize; R])> {
    if let [a, b, rest @ ..] = tensor.dims()
        && let Ok(rest) = rest.try_into()
    {
        return Ok((*a, *b, rest));
    }
    bail!("{name} has shape {:?}: it must have {} axes, {first}, {second}, {}", tensor.dims(), R + 2, axes.join(", "))
}

/// The numbers of three axes, of which the first may be missing.
fn three<const R: usize>(numbers: [usize; R], missing: usize) -> [usize; 3] {
    let mut all = [missing; 3];
    all[3 - R..].copy_from_slice(&numbers);
    all
}
