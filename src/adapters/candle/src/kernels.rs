//! A layer as an operation of candle's, forward and backward by the kernels: elements of 32 bits on the CPU.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Device, Error, Layout, Result, Shape, Storage, Tensor, bail};
use convrelu::{
    BackwardInput, BackwardWeight, ConvDesc, ConvRelu, Forward, Gradient, InputGradients, Pass, Rayon, Thresholds,
    Weight, WeightGradients,
};

use crate::arguments::Arguments;
use crate::workspace;

/// The output of a layer.
pub(crate) fn forward(arguments: &Arguments<'_>, desc: ConvDesc, shape: Vec<usize>) -> Result<Tensor> {
    let Arguments { input, weight, thresholds, bias } = *arguments;
    let theta = match thresholds {
        crate::Thresholds::Uniform(theta) => Theta::Number(theta as f32),
        crate::Thresholds::Tensor(tensor) if tensor.rank() == 0 => Theta::Single,
        crate::Thresholds::Tensor(_) => Theta::PerTap,
    };
    let tracked = |tensor: Option<&Tensor>| tensor.is_some_and(Tensor::track_op);
    let operation = Operation {
        plan: ConvRelu::new(desc).with_threads(rayon::current_num_threads()),
        shape,
        theta,
        wanted: Wanted {
            input: input.track_op(),
            weight: weight.track_op(),
            thresholds: tracked(thresholds.tensor()),
            bias: tracked(bias),
        },
    };
    let (input, weight) = (input.contiguous()?, weight.contiguous()?);
    // candle's operations have three arguments at most: thresholds and bias share the last.
    let parameters = match (thresholds.tensor(), bias) {
        (Some(thresholds), Some(bias)) => Some(Tensor::cat(&[&thresholds.flatten_all()?, bias], 0)?),
        (Some(parameter), None) | (None, Some(parameter)) => Some(parameter.contiguous()?),
        (None, None) => None,
    };
    match parameters {
        Some(parameters) => input.apply_op3(&weight, &parameters, operation),
        None => input.apply_op2(&weight, operation),
    }
}

/// Where the thresholds are.
#[derive(Clone, Copy)]
enum Theta {
    /// Here.
    Number(f32),
    /// The first of the parameters.
    Single,
    /// As many of the parameters as the layer has input channels times taps.
    PerTap,
}

/// The gradients that something asks for. candle does not say so when it calls back, and takes gradients of constants as
/// well; but it knows from the beginning which tensors are variables, or come from some.
struct Wanted {
    input: bool,
    weight: bool,
    thresholds: bool,
    bias: bool,
}

/// A layer with what autograd needs to know.
struct Operation {
    plan: ConvRelu,
    /// Of the output.
    shape: Vec<usize>,
    theta: Theta,
    wanted: Wanted,
}

impl Operation {
    /// How many of the parameters are thresholds. The rest is the bias.
    fn threshold_len(&self) -> usize {
        match self.theta {
            Theta::Number(_) => 0,
            Theta::Single => 1,
            Theta::PerTap => self.plan.desc().threshold_len(),
        }
    }

    /// Thresholds and bias.
    fn split<'a>(&self, parameters: &'a [f32]) -> (Thresholds<'a>, &'a [f32]) {
        let (thresholds, bias) = parameters.split_at(self.threshold_len());
        let thresholds = match self.theta {
            Theta::Number(theta) => Thresholds::Uniform(theta),
            Theta::Single => Thresholds::Uniform(thresholds[0]),
            Theta::PerTap => Thresholds::PerTap(thresholds),
        };
        (thresholds, bias)
    }

    fn forward(&self, input: &[f32], weight: &[f32], parameters: &[f32]) -> Result<(CpuStorage, Shape)> {
        let (thresholds, bias) = self.split(parameters);
        let mut operands = Forward::new(input, Weight::Plain(weight), thresholds);
        if !bias.is_empty() {
            operands = operands.bias(bias);
        }
        let mut output = vec![0.0; self.plan.desc().output_len()];
        workspace::with(self.plan.workspace_len(Pass::Forward), |workspace| {
            self.plan.forward(operands, &mut output, workspace, &Rayon).map_err(Error::wrap)
        })?;
        Ok((CpuStorage::F32(output), self.shape.as_slice().into()))
    }

    /// Gradients of input, weight and parameters.
    fn backward(
        &self,
        input: &Tensor,
        weight: &Tensor,
        parameters: Option<&Tensor>,
        grad_output: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let Self { plan, wanted, .. } = self;
        let grad_output = grad_output.contiguous()?;
        let guards = [Some(input), Some(weight), parameters, Some(&grad_output)]
            .map(|tensor| tensor.map(Tensor::storage_and_layout));
        let slice = |index: usize| match &guards[index] {
            Some((storage, layout)) => match &**storage {
                Storage::Cpu(storage) => elements(storage, layout),
                _ => bail!("a layer that was computed on the CPU has a gradient on another device"),
            },
            None => Ok(&[][..]),
        };
        let [x, w, p, g] = [slice(0)?, slice(1)?, slice(2)?, slice(3)?];
        let (thresholds, bias) = self.split(p);
        let buffer = |wanted: bool, len: usize| if wanted { vec![0.0; len] } else { Vec::new() };
        let mut grad_input = buffer(wanted.input, x.len());
        let mut grad_weight = buffer(wanted.weight, w.len());
        let mut grad_parameters = buffer(wanted.thresholds || wanted.bias, p.len());
        let (grad_thresholds, grad_bias) = if grad_parameters.is_empty() {
            Default::default()
        } else {
            grad_parameters.split_at_mut(p.len() - bias.len())
        };
        let some = |wanted: bool, values| wanted.then_some(Gradient::overwrite(values));
        let mut gradients = WeightGradients::new();
        gradients.grad_weight = some(wanted.weight, &mut grad_weight);
        gradients.grad_bias = some(wanted.bias, grad_bias);
        let operands = BackwardWeight::new(x, thresholds, g);
        if wanted.weight || wanted.bias {
            workspace::with(plan.workspace_len(Pass::BackwardWeight), |workspace| {
                plan.backward_weight(operands, gradients, workspace, &Rayon).map_err(Error::wrap)
            })?;
        }
        let mut gradients = InputGradients::new();
        gradients.grad_input = some(wanted.input, &mut grad_input);
        gradients.grad_thresholds = some(wanted.thresholds, grad_thresholds);
        let operands = BackwardInput::new(x, Weight::Plain(w), thresholds, g);
        if wanted.input || wanted.thresholds {
            workspace::with(plan.workspace_len(Pass::BackwardInput), |workspace| {
                plan.backward_input(operands, gradients, workspace, &Rayon).map_err(Error::wrap)
            })?;
        }
        let tensor = |wanted: bool, values, like: Option<&Tensor>| match like {
            Some(like) if wanted => Tensor::from_vec(values, like.shape(), &Device::Cpu).map(Some),
            _ => Ok(None),
        };
        Ok([
            tensor(wanted.input, grad_input, Some(input))?,
            tensor(wanted.weight, grad_weight, Some(weight))?,
            tensor(wanted.thresholds || wanted.bias, grad_parameters, parameters)?,
        ])
    }
}

/// The elements of a contiguous tensor.
fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    let range = layout.contiguous_offsets().and_then(|(first, end)| all.get(first..end));
    range.ok_or_else(|| Error::RequiresContiguous { op: NAME }.bt())
}

/// What candle's messages call the operation.
const NAME: &str = "conv-relu";

impl CustomOp2 for Operation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(elements(input, input_layout)?, elements(weight, weight_layout)?, &[])
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        _output: &Tensor,
        grad_output: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [input, weight, _] = self.backward(input, weight, None, grad_output)?;
        Ok((input, weight))
    }
}

impl CustomOp3 for Operation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let parameters = elements(parameters, parameters_layout)?;
        self.forward(elements(input, input_layout)?, elements(weight, weight_layout)?, parameters)
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        parameters: &Tensor,
        _output: &Tensor,
        grad_output: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [input, weight, parameters] = self.backward(input, weight, Some(parameters), grad_output)?;
        Ok((input, weight, parameters))
    }
}
