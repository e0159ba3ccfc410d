//! The passes of a transposed convolution. Each runs another pass of the mirrored convolution, and does before and after it what
//! that pass lacks.

use core::ops::Range;

use super::{BackwardInput, BackwardWeight, ConvTransposeDesc, Forward};
use crate::arith::{clamp, max, min};
use crate::backward_input::BackwardInputPlan;
use crate::backward_weight::BackwardWeightPlan;
use crate::desc::ConvDesc;
use crate::error::Error;
use crate::forward::ForwardPlan;
use crate::geometry::{Panels, chunks};
use crate::layout::TensorLayout;
use crate::operands::{
    self, Accumulation, Gradient, InputGradients, Thresholds, WeightGradients, checked, checked_mut,
};
use crate::pass::{Layer, Planned};
use crate::strided;
use crate::sums::add_positions;
use crate::threads::{Executor, Rest, for_each};

impl Planned<'_, BackwardInputPlan> {
    /// [`ConvTranspose::forward`](super::ConvTranspose::forward)
    pub(crate) fn transposed_forward(
        &self,
        operands: Forward<'_>,
        output: &mut [f32],
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = ConvTransposeDesc::mirroring(self.layer().desc);
        let Forward { input, weight, bias } = operands;
        let input = checked("input", input, desc.input_len())?;
        let bias = bias.map(|bias| checked("bias", bias, desc.bias_len())).transpose()?;
        let output = checked_mut("output", output, desc.output_len())?;
        let (weight, workspace) = self.checked(weight, workspace)?;
        let (mut start, mut accumulation) = (bias, Accumulation::Overwrite);
        if let Some(bias) = bias
            && !self.begins()
        {
            fill(self.layer(), bias, output, executor)?;
            (start, accumulation) = (None, Accumulation::Add);
        }
        let operands = operands::BackwardInput::linear(weight, input);
        let gradients = InputGradients::new().input(Gradient::new(output, accumulation));
        self.backward_input(start, operands, gradients, workspace, executor)
    }
}

impl Planned<'_, ForwardPlan> {
    /// Elements of workspace of [`transposed_backward_input`](Self::transposed_backward_input).
    pub(crate) const fn transposed_workspace_len(&self, packed: bool) -> usize {
        let desc = self.layer().desc;
        let (batch, apart) = (desc.batch(), images_apart(desc));
        let (mut most, mut part) = (self.workspace_len(packed), 0);
        while part < 2 {
            let images = [min(apart, batch), batch % apart][part];
            if images > 0 {
                let desc = desc.of_images(images);
                let layer = Layer { desc: &desc, ..self.layer() };
                let workspace_len = layer.pass(&layer.plan_forward()).workspace_len(packed);
                most = max(most, desc.output_len().saturating_add(workspace_len));
            }
            part += 1;
        }
        most
    }

    /// [`ConvTranspose::backward_input`](super::ConvTranspose::backward_input). Without a gradient it only checks the operands.
    pub(crate) fn transposed_backward_input(
        &self,
        operands: BackwardInput<'_>,
        grad_input: Option<Gradient<'_>>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = ConvTransposeDesc::mirroring(self.layer().desc);
        let BackwardInput { weight, grad_output } = operands;
        let grad_output = checked("grad_output", grad_output, desc.output_len())?;
        let grad_input = grad_input.map(|gradient| gradient.checked("grad_input", desc.input_len())).transpose()?;
        let forward = |grad_output| operands::Forward::new(grad_output, weight, Thresholds::LINEAR);
        let Some(Gradient { values, accumulation }) = grad_input else {
            self.packer().checked(weight)?;
            checked_mut("workspace", workspace, self.workspace_len(weight.is_packed()))?;
            return Ok(());
        };
        if accumulation == Accumulation::Overwrite {
            return self.forward(forward(grad_output), values, workspace, executor);
        }
        let workspace = checked_mut("workspace", workspace, self.transposed_workspace_len(weight.is_packed()))?;
        let mirrored = self.layer().desc;
        let [from, to] = [mirrored.input_tensor(), mirrored.output_tensor()];
        for images in chunks(0..desc.batch(), images_apart(mirrored)) {
            let mirrored = mirrored.of_images(images.len());
            let layer = Layer { desc: &mirrored, ..self.layer() };
            let (apart, workspace) = workspace.split_at_mut(mirrored.output_len());
            let operands = forward(&grad_output[images.start * from.image_stride..]);
            layer.pass(&layer.plan_forward()).forward(operands, apart, workspace, executor)?;
            let values = &mut values[images.start * to.image_stride..];
            for row in Rows::of(&mirrored.output_tensor()).all() {
                strided::add(&apart[row.clone()], &mut values[row], 1);
            }
        }
        Ok(())
    }
}

impl Planned<'_, BackwardWeightPlan> {
    /// [`ConvTranspose::backward_weight`](super::ConvTranspose::backward_weight)
    pub(crate) fn transposed_backward_weight(
        &self,
        operands: BackwardWeight<'_>,
        gradients: WeightGradients<'_>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = ConvTransposeDesc::mirroring(self.layer().desc);
        let BackwardWeight { input, grad_output } = operands;
        let input = checked("input", input, desc.input_len())?;
        let grad_output = checked("grad_output", grad_output, desc.output_len())?;
        let WeightGradients { grad_weight, grad_bias } = gradients;
        let grad_bias = grad_bias.map(|gradient| gradient.checked("grad_bias", desc.bias_len())).transpose()?;
        let operands = operands::BackwardWeight::new(grad_output, Thresholds::LINEAR, input);
        let gradients = WeightGradients { grad_weight, grad_bias: None };
        self.backward_weight(operands, gradients, workspace, executor)?;
        match grad_bias {
            Some(grad_bias) => add_bias(self.layer(), grad_output, grad_bias.zeroed(), executor),
            None => Ok(()),
        }
    }
}

/// The number of images whose input gradients are computed in a buffer of their own and then added. The mirrored forward pass
/// cannot add, because it overwrites.
const fn images_apart(mirrored: &ConvDesc) -> usize {
    /// Elements of that buffer: 256 KiB, which stay in the second-level cache until they are added.
    const APART: usize = 64 * 1024;
    clamp(APART / mirrored.of_images(1).output_len(), 1, max(mirrored.batch(), 1))
}

/// Writes the bias to all positions of the output.
fn fill(mirrored: Layer<'_>, bias: &[f32], output: &mut [f32], executor: &dyn Executor) -> Result<(), Error> {
    let rows = Rows::of(&mirrored.desc.input_tensor());
    let parts = Panels::into_parts(rows.count, mirrored.parts_of(rows.count.saturating_mul(rows.len)));
    let mut rest = Rest::of(output);
    let jobs = parts.iter().map(move |own| {
        let [start, end] = [own.start, own.end].map(|row| rows.start(row));
        // The last row ends the tensor: no gap follows it.
        let len = if own.end == rows.count { rows.start(own.end - 1) + rows.len } else { end } - start;
        (rest.cut(len), own)
    });
    for_each(executor, parts.count(), jobs, &|(output, own): (&mut [f32], Range<usize>)| {
        if rows.of_pixels && rows.stride == rows.len {
            strided::repeat(bias, output);
            return;
        }
        let first = rows.start(own.start);
        for row in own {
            let output = &mut output[rows.start(row) - first..][..rows.len];
            if rows.of_pixels {
                output.copy_from_slice(bias);
            } else {
                output.fill(bias[row % bias.len()]);
            }
        }
    })
}

/// Adds the sums of the output's gradient to the gradient of the bias.
fn add_bias(
    mirrored: Layer<'_>,
    grad_output: &[f32],
    grad_bias: &mut [f32],
    executor: &dyn Executor,
) -> Result<(), Error> {
    let tensor = &mirrored.desc.input_tensor();
    let all = [tensor.size.map(|size| 0..size)];
    let work = tensor.positions().saturating_mul(tensor.images).saturating_mul(tensor.channels);
    let parts = Panels::into_parts(tensor.channels, mirrored.parts_of(work));
    let mut rest = Rest::of(grad_bias);
    let jobs = parts.iter().map(move |channels| (rest.cut(channels.len()), channels));
    for_each(executor, parts.count(), jobs, &|(sums, channels): (&mut [f32], Range<usize>)| {
        add_positions(tensor, grad_output, &all, channels, sums);
    })
}

/// The elements of a tensor without its gaps: pixels, or planes of channels, in memory order.
#[derive(Clone, Copy)]
struct Rows {
    count: usize,
    /// Elements of a row.
    len: usize,
    of_pixels: bool,
    /// Rows of an image, and elements from an image to the next.
    per_image: usize,
    image_stride: usize,
    /// Elements from a row to the next.
    stride: usize,
}

impl Rows {
    fn of(tensor: &TensorLayout) -> Self {
        let of_pixels = tensor.channels_last();
        let [per_image, len, stride] = if of_pixels {
            [tensor.positions(), tensor.channels, tensor.strides.spatial[2]]
        } else {
            [tensor.channels, tensor.positions(), tensor.strides.channel]
        };
        let image_stride = tensor.image_stride;
        Self { count: tensor.images * per_image, len, of_pixels, per_image, image_stride, stride }
    }

    /// The first element of a row.
    fn start(&self, row: usize) -> usize {
        row / self.per_image * self.image_stride + row % self.per_image * self.stride
    }

    fn all(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.count).map(move |row| self.start(row)..self.start(row) + self.len)
    }
}
