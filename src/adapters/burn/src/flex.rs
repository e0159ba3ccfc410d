//! The layer on burn's CPU backend: slices of tensors go to the kernels, on the threads of the current rayon pool.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::TensorData;
use convrelu::{
    BackwardInput, BackwardWeight, ConvDesc, ConvRelu, Error, Forward, Gradient, InputGradients, Pass, Rayon,
    Thresholds, Weight, WeightGradients,
};

use crate::backend::{ConvReluBackend, ConvReluGradients, Optional, Outcome};

impl ConvReluBackend for Flex {
    fn conv_relu(
        input: FlexTensor,
        weight: FlexTensor,
        thresholds: Optional<Self>,
        bias: Optional<Self>,
        desc: ConvDesc,
    ) -> Outcome<Self> {
        let plan = plan(desc);
        let (input, weight) = (input.to_contiguous(), weight.to_contiguous());
        let [thresholds, bias] =
            [thresholds, bias].map(|tensor| tensor.into_option().map(|tensor| tensor.to_contiguous()));
        let mut operands = Forward::new(values(&input), Weight::Plain(values(&weight)), clamp(thresholds.as_ref()));
        operands.bias = bias.as_ref().map(values);
        let mut output = vec![0.0; desc.output_len()];
        // Made for the call. One that the thread keeps was no faster, on layers that take 0.07 to 10 ms.
        let mut workspace = vec![0.0; plan.workspace_len(Pass::Forward)];
        match plan.forward(operands, &mut output, &mut workspace, &Rayon) {
            Ok(()) => Outcome::Output(tensor(output, output_shape(&input, &desc))),
            Err(error) => Outcome::Refused(error),
        }
    }
}

impl ConvReluGradients for Flex {
    fn input_gradients(
        input: Option<FlexTensor>,
        weight: FlexTensor,
        thresholds: Option<FlexTensor>,
        grad_output: FlexTensor,
        desc: ConvDesc,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let plan = plan(desc);
        let (weight, grad_output) = (weight.to_contiguous(), grad_output.to_contiguous());
        let [input, thresholds] = [input, thresholds].map(|tensor| tensor.map(|tensor| tensor.to_contiguous()));
        let clamp = clamp(thresholds.as_ref());
        let mut operands = BackwardInput::linear(Weight::Plain(values(&weight)), values(&grad_output));
        (operands.input, operands.thresholds) = (input.as_ref().map(values), clamp);
        let [to_input, to_thresholds] = wanted;
        let mut grad_input = to_input.then(|| vec![0.0; desc.input_len()]);
        let mut grad_thresholds = to_thresholds.then(|| vec![0.0; clamp.grad_len(&desc)]);
        let mut gradients = InputGradients::new();
        gradients.grad_input = grad_input.as_deref_mut().map(Gradient::overwrite);
        gradients.grad_thresholds = grad_thresholds.as_deref_mut().map(Gradient::overwrite);
        let mut workspace = vec![0.0; plan.workspace_len(Pass::BackwardInput)];
        accepted(plan.backward_input(operands, gradients, &mut workspace, &Rayon));
        let input_shape = input_shape(&grad_output, &desc);
        [
            grad_input.map(|values| tensor(values, input_shape)),
            grad_thresholds.zip(thresholds).map(|(values, like)| tensor(values, like.layout().shape().to_vec())),
        ]
    }

    fn weight_gradients(
        input: FlexTensor,
        thresholds: Option<FlexTensor>,
        grad_output: FlexTensor,
        desc: ConvDesc,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let plan = plan(desc);
        let (input, grad_output) = (input.to_contiguous(), grad_output.to_contiguous());
        let thresholds = thresholds.map(|tensor| tensor.to_contiguous());
        let operands = BackwardWeight::new(values(&input), clamp(thresholds.as_ref()), values(&grad_output));
        let [to_weight, to_bias] = wanted;
        let mut grad_weight = to_weight.then(|| vec![0.0; desc.weight_len()]);
        let mut grad_bias = to_bias.then(|| vec![0.0; desc.bias_len()]);
        let mut gradients = WeightGradients::new();
        gradients.grad_weight = grad_weight.as_deref_mut().map(Gradient::overwrite);
        gradients.grad_bias = grad_bias.as_deref_mut().map(Gradient::overwrite);
        let mut workspace = vec![0.0; plan.workspace_len(Pass::BackwardWeight)];
        accepted(plan.backward_weight(operands, gradients, &mut workspace, &Rayon));
        [
            grad_weight.map(|values| tensor(values, weight_shape(&input, &desc))),
            grad_bias.map(|values| tensor(values, vec![desc.out_channels()])),
        ]
    }
}

fn plan(desc: ConvDesc) -> ConvRelu {
    ConvRelu::new(desc).with_threads(rayon::current_num_threads())
}

/// The elements of a contiguous tensor.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a contiguous tensor of f32")
}

fn tensor(values: Vec<f32>, shape: Vec<usize>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

fn clamp(thresholds: Option<&FlexTensor>) -> Thresholds<'_> {
    thresholds.map_or(Thresholds::LINEAR, |tensor| Thresholds::PerTap(values(tensor)))
}

/// Of a tensor with as many axes as `like`: two extents, and the last of three spatial ones.
fn shape(like: &FlexTensor, first: [usize; 2], spatial: [usize; 3]) -> Vec<usize> {
    let rank = like.layout().shape().num_dims() - 2;
    [&first, &spatial[3 - rank..]].concat()
}

fn input_shape(like: &FlexTensor, desc: &ConvDesc) -> Vec<usize> {
    shape(like, [desc.batch(), desc.in_channels()], desc.input_size())
}

fn output_shape(like: &FlexTensor, desc: &ConvDesc) -> Vec<usize> {
    shape(like, [desc.batch(), desc.out_channels()], desc.output_size())
}

fn weight_shape(like: &FlexTensor, desc: &ConvDesc) -> Vec<usize> {
    shape(like, [desc.out_channels(), desc.in_channels() / desc.groups()], desc.kernel())
}

/// What a backward pass computes, the forward pass has checked.
fn accepted(result: Result<(), Error>) {
    result.unwrap_or_else(|error| unreachable!("the forward pass has accepted this layer: {error}"));
}
