//! Batch normalisation folded into the convolution before it.
//!
//! With its running moments a normalisation is `a · x + b` per channel. Where nothing else reads `x`, and a convolution computes
//! it, that is the same convolution with another weight and another bias, padding and thresholds included: these lie before the
//! sum. A pre-activation DenseNet also has normalisations of features that other layers read, or that an addition or a pooling
//! computes. Those stay.

use std::collections::HashMap;

use super::function;
use super::graph::{Constant, Graph};
use super::proto::NodeProto;

const NORMALIZATION: &str = "BatchNormalization";

/// How many normalisations the graph has.
pub(super) fn normalizations(graph: &Graph) -> usize {
    graph.nodes.iter().filter(|node| is(node, "", NORMALIZATION)).count()
}

/// Folds normalisations where it can. Returns their number.
pub(super) fn fold(graph: &mut Graph) -> usize {
    let mut readers: HashMap<String, usize> = HashMap::new();
    for input in graph.nodes.iter().flat_map(|node| &node.input) {
        *readers.entry(input.clone()).or_default() += 1;
    }
    let mut constants: HashMap<String, Constant> =
        graph.constants.iter().map(|constant| (constant.name.clone(), constant.clone())).collect();
    let (mut kept, mut folded): (Vec<NodeProto>, usize) = (Vec::new(), 0);
    for node in std::mem::take(&mut graph.nodes) {
        let x = node.input.first().cloned().unwrap_or_default();
        let alone = readers.get(&x) == Some(&1) && is(&node, "", NORMALIZATION);
        let convolution = kept.iter_mut().rev().find(|before| alone && before.output.first() == Some(&x));
        let done = convolution.and_then(|convolution| into(convolution, &node, &mut constants));
        if done.is_none() {
            kept.push(node);
            continue;
        }
        graph.values.retain(|value| value.name != x);
        folded += 1;
    }
    graph.nodes = kept;
    // Those of folded normalisations are read no more. The others stay in the order of the layers, new biases behind them.
    let read = |name: &str| graph.nodes.iter().any(|node| node.input.iter().any(|input| input == name));
    let mut order: Vec<String> = graph.constants.iter().map(|constant| constant.name.clone()).collect();
    let mut new: Vec<String> = constants.keys().filter(|name| !order.contains(name)).cloned().collect();
    new.sort();
    order.append(&mut new);
    graph.constants = order.iter().filter(|name| read(name)).filter_map(|name| constants.remove(name)).collect();
    folded
}

fn is(node: &NodeProto, domain: &str, op_type: &str) -> bool {
    node.domain.as_deref().unwrap_or_default() == domain && node.op_type.as_deref() == Some(op_type)
}

/// Makes a convolution compute its normalised output. Does nothing if the node is no convolution.
fn into(convolution: &mut NodeProto, norm: &NodeProto, constants: &mut HashMap<String, Constant>) -> Option<()> {
    let operands = if is(convolution, "", "Conv") {
        2
    } else if is(convolution, function::DOMAIN, function::NAME) {
        3
    } else {
        return None;
    };
    let epsilon = f64::from(norm.attribute.iter().find(|attribute| attribute.name.as_deref() == Some("epsilon"))?.f?);
    let [_, weight, shift, mean, variance] = norm.input.as_slice() else { return None };
    let values = |name: &String| constants.get(name).map(|constant| constant.values.clone());
    let [weight, shift, mean, variance] = [values(weight)?, values(shift)?, values(mean)?, values(variance)?];
    let scales: Vec<f64> = weight
        .iter()
        .zip(&variance)
        .map(|(&weight, &variance)| f64::from(weight) / libm::sqrt(f64::from(variance) + epsilon))
        .collect();
    let bias = convolution.input.get(operands).and_then(values);
    let shifts = (0..shift.len()).map(|c| {
        let bias = bias.as_ref().map_or(0.0, |bias| bias[c]);
        (f64::from(shift[c]) + (f64::from(bias) - f64::from(mean[c])) * scales[c]) as f32
    });
    let shifts: Vec<f32> = shifts.collect();
    let weight = constants.get_mut(&convolution.input[1])?;
    let row = weight.values.len() / scales.len().max(1);
    for (row, scale) in weight.values.chunks_exact_mut(row.max(1)).zip(&scales) {
        row.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
    }
    if convolution.input.len() == operands {
        convolution.input.push(format!("{}.bias", convolution.name.as_deref().unwrap_or_default()));
    }
    let name = convolution.input[operands].clone();
    constants.insert(name.clone(), Constant { name, dims: vec![shifts.len()], values: shifts });
    convolution.output = norm.output.clone();
    Some(())
}
