//! The ConvReLU layer as a function of standard operators.
//!
//! A convolution with one-hot kernels takes each tap to a channel of its own, `Max` clamps the channels to their thresholds, a
//! 1×1 convolution sums them: what the Python package's export writes as well.
//!
//! Here these nodes are the body of a function, which the model brings along. A runtime that has the operator takes the layer
//! as one node, with its weight and thresholds as they are in a checkpoint. Any other puts the body in the node's place.
//!
//! One function does for all layers. What a layer's tensors determine, its body computes from their shapes: kernels, and the
//! shapes of weight and thresholds beside them. All of that depends on constants alone, so a runtime computes it once, when it
//! loads the model; one-hot kernels in the file would take `taps²` numbers per channel there. An attribute of its own is left,
//! `channels`: the first convolution has as many groups, and groups are an attribute.

use super::OPSET;
use super::graph::node;
use super::proto::{AttributeType, FunctionProto, NodeProto, OperatorSetIdProto};

/// The domain of the function.
pub(super) const DOMAIN: &str = "convrelu";
/// Version of the domain.
pub(super) const VERSION: i64 = 1;
/// The name of the function.
pub(super) const NAME: &str = "ConvReLU";
/// The attribute that no convolution of the standard has: the number of input channels.
pub(super) const CHANNELS: &str = "channels";

/// Attributes of the standard's convolution that the function has too.
const GEOMETRY: [&str; 4] = ["dilations", "kernel_shape", "pads", "strides"];

const TEXT: &str = "y = B + sum over channels and taps of W * max(x, theta) (eq. 8 of Adaptive Convolutional ReLUs, Gao, Cai, Ji; \
                    AAAI 2020). X: (N, C, ...). W: (O, C / group, kernel). theta: (C, kernel), -infinity where nothing is clamped. \
                    B: (O), may be left out. Padding is zero before the maximum. The attributes are those of Conv, without \
                    auto_pad, all of them given, and channels: C.";

/// An operator set.
pub(super) fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}

/// The function.
pub(super) fn conv_relu() -> FunctionProto {
    let op = |op_type: &str, inputs: &[&str], output: &str| NodeProto {
        output: vec![output.to_owned()],
        ..node(op_type, output, inputs.iter().map(|&input| input.to_owned()).collect())
    };
    let number = |value: i64, output: &str| op("Constant", &[], output).ints("value_ints", [value]);
    let concat = |inputs: &[&str], output: &str| op("Concat", inputs, output).int("axis", 0);
    let spread = GEOMETRY.iter().fold(op("Conv", &["X", "one_hot_kernels"], "taps_as_channels"), |conv, name| {
        conv.of_function(name, AttributeType::Ints, name)
    });
    let body = vec![
        number(1, "one"),
        number(0, "as_it_is"),
        number(-1, "the_rest"),
        op("Shape", &["theta"], "channels").int("start", 0).int("end", 1),
        op("Shape", &["theta"], "kernel").int("start", 1),
        op("ReduceProd", &["kernel"], "taps").int("keepdims", 1),
        // A one for each axis of the kernel.
        op("Shape", &["kernel"], "rank"),
        op("Expand", &["one", "rank"], "ones"),
        // The kernels: one tap each, all of them for every channel.
        concat(&["taps", "taps"], "square"),
        op("ConstantOfShape", &["square"], "zeros"),
        op("EyeLike", &["zeros"], "identity"),
        concat(&["taps", "one", "kernel"], "kernels_of_a_channel"),
        op("Reshape", &["identity", "kernels_of_a_channel"], "one_hot"),
        concat(&["channels", "one", "ones"], "copies"),
        op("Tile", &["one_hot", "copies"], "one_hot_kernels"),
        spread.of_function("group", AttributeType::Int, CHANNELS),
        concat(&["one", "the_rest", "ones"], "threshold_shape"),
        op("Reshape", &["theta", "threshold_shape"], "thresholds"),
        op("Max", &["taps_as_channels", "thresholds"], "clamped"),
        concat(&["as_it_is", "the_rest", "ones"], "weight_shape"),
        op("Reshape", &["W", "weight_shape"], "weights"),
        op("Conv", &["clamped", "weights", "B"], "Y").of_function("group", AttributeType::Int, "group"),
    ];
    FunctionProto {
        name: Some(NAME.to_owned()),
        input: ["X", "W", "theta", "B"].map(str::to_owned).to_vec(),
        output: vec!["Y".to_owned()],
        attribute: GEOMETRY.iter().chain(&["group", CHANNELS]).map(|&name| name.to_owned()).collect(),
        node: body,
        doc_string: Some(TEXT.to_owned()),
        opset_import: vec![opset("", OPSET)],
        domain: Some(DOMAIN.to_owned()),
    }
}
