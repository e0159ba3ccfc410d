//! Trained networks as ONNX files, for other runtimes.
//!
//! [`export`] writes a network as it evaluates, channels first, for any number of examples, with operators of the standard alone
//! (opset 17). What is what:
//!
//! | layer | nodes |
//! |---|---|
//! | ConvReLU | `ConvReLU` of the domain `convrelu`: a function that the model brings along, made of standard operators |
//! | ReLU and convolution, also ConvReLU with all θ = 0 | `Relu`, `Conv` |
//! | convolution, also ConvReLU with all θ = −∞ | `Conv` |
//! | batch normalisation | `BatchNormalization`, or nothing where it is folded into the convolution before it |
//! | embedding, one-hot characters | `Gather`, `Transpose` |
//! | dense layer, residual addition | `Concat`, `Add` |
//! | linear | `Gemm` |
//! | dropout | nothing |
//!
//! The input is `images`, `f32` `[batch, channels, …]`, normalised as the metadata say; or `tokens`, `i64` `[batch, length]`,
//! each from 0 to less than the vocabulary. The output is `logits`, `f32` `[batch, classes]`. Nodes have the names of layers,
//! constants those that they have in a checkpoint.
//!
//! | file | what |
//! |---|---|
//! | `layers.rs` | from layers to nodes |
//! | `function.rs` | the ConvReLU layer as a function |
//! | `fold.rs` | batch normalisation folded into convolutions |
//! | `about.rs` | what the metadata say |
//! | `graph.rs`, `proto.rs` | a graph while it is made; the messages of a file |

mod about;
mod fold;
mod function;
mod graph;
mod layers;
mod proto;
#[cfg(test)]
mod tests;

use prost::Message;

pub use about::metadata;

use super::error::TrainError;
use super::network::Network;
use graph::Graph;
use proto::{ModelProto, StringStringEntryProto};

/// Version of the standard's operators.
pub const OPSET: i64 = 17;
/// Version of the file format, the first with functions.
const IR_VERSION: i64 = 8;
/// Most bytes of a protobuf message.
const MOST_BYTES: usize = i32::MAX as usize;

/// A network as the bytes of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its nodes.
    pub nodes: usize,
    /// Those of them that are ConvReLU layers.
    pub conv_relus: usize,
    /// Batch normalisations of the network.
    pub normalizations: usize,
    /// Those of them that are folded into convolutions.
    pub folded: usize,
}

/// Writes a network. `metadata` are entries of the file's metadata. With `fold`, batch normalisations are folded into the
/// convolutions before them, wherever nothing else reads what the convolution computes.
///
/// # Errors
///
/// [`TrainError::Setting`] for a layer that has no form in ONNX, for two layers of one name, and for a network that takes more
/// than the 2 GiB that such a file can hold.
pub fn export(
    network: &Network,
    name: &str,
    metadata: &[(String, String)],
    fold: bool,
) -> Result<Exported, TrainError> {
    let elements: usize = network.state().iter().map(|parameter| parameter.value.len()).sum();
    check_size(elements.saturating_mul(size_of::<f32>()), MOST_BYTES)?;
    let mut graph = layers::graph(network)?;
    let normalizations = fold::normalizations(&graph);
    let folded = if fold { fold::fold(&mut graph) } else { 0 };
    let nodes = graph.nodes.len();
    let conv_relus = graph.nodes.iter().filter(|node| node.domain.as_deref() == Some(function::DOMAIN)).count();
    let model = model(graph, name, metadata, conv_relus > 0)?;
    check_size(model.encoded_len(), MOST_BYTES)?;
    Ok(Exported { bytes: model.encode_to_vec(), nodes, conv_relus, normalizations, folded })
}

/// A whole file.
fn model(
    graph: Graph,
    name: &str,
    metadata: &[(String, String)],
    has_function: bool,
) -> Result<ModelProto, TrainError> {
    let mut opsets = vec![function::opset("", OPSET)];
    opsets.extend(has_function.then(|| function::opset(function::DOMAIN, function::VERSION)));
    let entry =
        |(key, value): &(String, String)| StringStringEntryProto { key: Some(key.clone()), value: Some(value.clone()) };
    Ok(ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("convrelu".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph.finish(name)?),
        opset_import: opsets,
        metadata_props: metadata.iter().map(entry).collect(),
        functions: has_function.then(function::conv_relu).into_iter().collect(),
    })
}

fn check_size(bytes: usize, most: usize) -> Result<(), TrainError> {
    if bytes <= most {
        return Ok(());
    }
    let rule = format!("an ONNX file holds at most {most} bytes, this network takes {bytes} at least");
    Err(TrainError::setting("onnx", format!("{bytes} bytes"), rule))
}
