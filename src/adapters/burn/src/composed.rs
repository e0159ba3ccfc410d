//! The layer out of burn's own operations: for element types and backends without kernels of ours.

use burn::tensor::ops::{ConvOptions, PadMode};
use burn::tensor::{Slice, Tensor};
use convrelu::ConvDesc;

/// `y = Σ w · max(x, θ) + b` of tensors with three spatial axes. Each tap is a slice of the padded input; clamped, they are the
/// columns of a matrix product. A tie sends its gradient to the threshold, as the kernels do.
pub(crate) fn conv_relu(
    input: Tensor<5>,
    weight: Tensor<5>,
    thresholds: Tensor<4>,
    bias: Option<Tensor<1>>,
    desc: &ConvDesc,
) -> Tensor<5> {
    let (batch, channels, groups, taps) = (desc.batch(), desc.in_channels(), desc.groups(), desc.taps());
    let [depth, height, width] = desc.output_size();
    let positions = depth * height * width;
    let padding: [_; 3] = std::array::from_fn(|axis| (desc.padding_before()[axis], desc.padding_after()[axis]));
    let padded = input.pad(padding, PadMode::Constant(0.0));
    let taps_of_input = (0..taps).map(|tap| {
        let [_, kernel_height, kernel_width] = desc.kernel();
        let at = [tap / (kernel_height * kernel_width), tap / kernel_width % kernel_height, tap % kernel_width];
        let spatial: [Slice; 3] = std::array::from_fn(|axis| {
            let (start, step) = (at[axis] * desc.dilation()[axis], desc.stride()[axis]);
            let end = start + (desc.output_size()[axis] - 1) * step + 1;
            Slice::new(start as isize, Some(end as isize), step as isize)
        });
        let [d, h, w] = spatial;
        padded.clone().slice([Slice::full(), Slice::full(), d, h, w]).reshape([batch, channels, 1, positions])
    });
    let columns = Tensor::cat(taps_of_input.collect(), 2);
    let theta = thresholds.reshape([1, channels, taps, 1]).expand([batch, channels, taps, positions]);
    let below = columns.clone().lower_equal(theta.clone());
    let rows = channels / groups * taps;
    let columns = columns.mask_where(below, theta).reshape([batch, groups, rows, positions]);
    let weight = weight.reshape([1, groups, desc.out_channels() / groups, rows]);
    let output = weight.matmul(columns).reshape([batch, desc.out_channels(), depth, height, width]);
    match bias {
        Some(bias) => output + bias.reshape([1, desc.out_channels(), 1, 1, 1]),
        None => output,
    }
}

/// An input that is padded already where its padding before and after differs, which not all of burn's convolutions take.
pub(crate) fn padded<const D: usize, const R: usize>(
    input: Tensor<D>,
    options: ConvOptions<R>,
) -> (Tensor<D>, ConvOptions<R>) {
    if !options.is_asymmetric() {
        return (input, options);
    }
    let input = input.pad(options.padding, PadMode::Constant(0.0));
    (input, ConvOptions { padding: [(0, 0); R], ..options })
}
