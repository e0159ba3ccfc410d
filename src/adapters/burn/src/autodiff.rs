//! What burn's `Autodiff` records of the layer.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};
use convrelu::ConvDesc;

use crate::backend::{ConvReluBackend, ConvReluGradients, Optional, Outcome};

impl<B: ConvReluGradients, C: CheckpointStrategy> ConvReluBackend for Autodiff<B, C> {
    fn conv_relu(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        thresholds: Optional<Self>,
        bias: Optional<Self>,
        desc: ConvDesc,
    ) -> Outcome<Self> {
        let (thresholds, bias) = (thresholds.into_option(), bias.into_option());
        let layer = Layer { input, weight, thresholds, bias, desc };
        let (input, weight) = (layer.input.node(), layer.weight.node());
        match (layer.thresholds.as_ref().map(|t| t.node()), layer.bias.as_ref().map(|t| t.node())) {
            (None, None) => layer.record([input, weight]),
            (Some(thresholds), None) => layer.record([input, weight, thresholds]),
            (None, Some(bias)) => layer.record([input, weight, bias]),
            (Some(thresholds), Some(bias)) => layer.record([input, weight, thresholds, bias]),
        }
    }
}

/// The operands of a call.
struct Layer<B: Backend, C: CheckpointStrategy> {
    input: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    thresholds: Option<FloatTensor<Autodiff<B, C>>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
    desc: ConvDesc,
}

impl<B: ConvReluGradients, C: CheckpointStrategy> Layer<B, C> {
    /// The output, and a step back to its parents: input, weight, and those of thresholds and bias that there are.
    fn record<const N: usize>(self, parents: [NodeGuard; N]) -> Outcome<Autodiff<B, C>> {
        let Self { input, weight, thresholds, bias, desc } = self;
        let primitive = |tensor: &FloatTensor<Autodiff<B, C>>| tensor.primitive().clone();
        let output = B::conv_relu(
            primitive(&input),
            primitive(&weight),
            Optional::new(thresholds.as_ref().map(primitive)),
            Optional::new(bias.as_ref().map(primitive)),
            desc,
        );
        let output = match output {
            Outcome::Output(output) => output,
            Outcome::Refused(error) => return Outcome::Refused(error),
        };
        let tracked = |tensor: &Option<FloatTensor<Autodiff<B, C>>>| tensor.as_ref().is_some_and(|t| t.is_tracked());
        let to_input = input.is_tracked() || tracked(&thresholds);
        let to_weight = weight.is_tracked() || tracked(&bias);
        Outcome::Output(match Step.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                // Each pass keeps what it reads. Where θ is −∞, the gradient of the input does not read the input.
                let state = State {
                    desc,
                    input: (to_weight || thresholds.is_some()).then(|| prep.checkpoint(&input)),
                    weight: to_input.then(|| prep.checkpoint(&weight)),
                    thresholds: thresholds.as_ref().map(|thresholds| prep.checkpoint(thresholds)),
                };
                prep.finish(state, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        })
    }
}

/// What the backward passes read: operands of the forward pass, as the checkpointer knows them.
#[derive(Clone, Debug)]
struct State {
    desc: ConvDesc,
    input: Option<NodeId>,
    weight: Option<NodeId>,
    thresholds: Option<NodeId>,
}

#[derive(Debug)]
struct Step;

impl<B: ConvReluGradients, const N: usize> Backward<B, N> for Step {
    type State = State;

    fn backward(self, ops: Ops<State, N>, gradients: &mut Gradients, checkpointer: &mut Checkpointer) {
        let mut retrieve =
            |id: Option<NodeId>| id.map(|id| checkpointer.retrieve_node_output::<B::FloatTensorPrimitive>(id));
        let State { desc, input, weight, thresholds } = ops.state;
        let [input, weight, thresholds] = [input, weight, thresholds].map(&mut retrieve);
        let grad_output = gradients.consume::<B>(&ops.node);

        let mut parents = ops.parents.into_iter();
        let mut parent = || parents.next().flatten().map(|node| node.id);
        let (of_input, of_weight) = (parent(), parent());
        let of_thresholds = if thresholds.is_some() { parent() } else { None };
        let of_bias = parent();

        let mut register = |nodes: [Option<NodeId>; 2], values: [Option<FloatTensor<B>>; 2]| {
            for (node, value) in nodes.into_iter().zip(values) {
                if let (Some(node), Some(value)) = (node, value) {
                    gradients.register::<B>(node, value);
                }
            }
        };
        if let Some(weight) = weight {
            let wanted = [of_input.is_some(), of_thresholds.is_some()];
            let values =
                B::input_gradients(input.clone(), weight, thresholds.clone(), grad_output.clone(), desc, wanted);
            register([of_input, of_thresholds], values);
        }
        let wanted = [of_weight.is_some(), of_bias.is_some()];
        if let Some(input) = input
            && wanted.contains(&true)
        {
            let values = B::weight_gradients(input, thresholds, grad_output, desc, wanted);
            register([of_weight, of_bias], values);
        }
    }
}
