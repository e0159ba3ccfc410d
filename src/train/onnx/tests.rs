use std::collections::HashSet;

use super::graph::BATCH;
use super::proto::{AttributeType, Dimension, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use super::*;
use crate::desc::ConvDesc;
use crate::error::Error;
use crate::isa::Isa;
use crate::layout::Layout;
use crate::train::context::{Context, Mode};
use crate::train::init::{ThresholdInit, WeightInit};
use crate::train::layer::{
    BatchNorm, Clamp, Conv, DenseBlock, Embedding, GlobalAveragePool, Layer, LayerKind, Linear, MaxPool, PoolWindow,
    Residual, Sequence,
};
use crate::train::models::{Activation, Architecture, Input, ModelConfig, Region};
use crate::train::random::{Purpose, stream};
use crate::train::shape::Shape;

fn text(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

/// What a file holds, read as others read it.
fn decoded(network: &Network, fold: bool) -> ModelProto {
    let exported = export(network, "net", &[("key".to_owned(), "value".to_owned())], fold).unwrap();
    let model = ModelProto::decode(&exported.bytes[..]).unwrap();
    assert_eq!(model.graph.as_ref().unwrap().node.len(), exported.nodes);
    model
}

fn graph(model: &ModelProto) -> &GraphProto {
    model.graph.as_ref().unwrap()
}

/// Extents, −1 for the number of examples.
fn extents(value: &ValueInfoProto) -> Vec<i64> {
    let shape = value.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap().shape.as_ref().unwrap();
    let extent = |value: &Option<Dimension>| match value {
        Some(Dimension::Value(value)) => *value,
        Some(Dimension::Param(name)) if name == BATCH => -1,
        other => panic!("{other:?}"),
    };
    shape.dim.iter().map(|dim| extent(&dim.value)).collect()
}

fn floats(tensor: &TensorProto) -> Vec<f32> {
    let bytes = tensor.raw_data.as_ref().unwrap();
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn constant<'a>(graph: &'a GraphProto, name: &str) -> &'a TensorProto {
    graph.initializer.iter().find(|tensor| text(&tensor.name) == name).unwrap_or_else(|| panic!("no {name}"))
}

fn ints(node: &NodeProto, name: &str) -> Vec<i64> {
    let attribute = node.attribute.iter().find(|attribute| text(&attribute.name) == name).unwrap();
    attribute.i.map_or_else(|| attribute.ints.clone(), |i| vec![i])
}

fn kinds(graph: &GraphProto) -> Vec<(&str, &str)> {
    graph.node.iter().map(|node| (text(&node.name), text(&node.op_type))).collect()
}

/// Every node reads what is there, and gives something new.
fn check_order<'a>(nodes: &'a [NodeProto], known: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
    let mut known: HashSet<&str> = known.collect();
    for node in nodes {
        for input in &node.input {
            assert!(known.contains(&input[..]), "{} reads {input}", text(&node.name));
        }
        for output in &node.output {
            assert!(known.insert(output), "{output} is there twice");
        }
    }
    known
}

fn check(model: &ModelProto) {
    let graph = graph(model);
    let inputs = graph.input.iter().map(|value| text(&value.name));
    let known = check_order(&graph.node, inputs.chain(graph.initializer.iter().map(|tensor| text(&tensor.name))));
    assert!(known.contains(text(&graph.output[0].name)));
    for tensor in &graph.initializer {
        let len = tensor.dims.iter().product::<i64>() as usize;
        assert_eq!(floats(tensor).len(), len, "{}", text(&tensor.name));
        let used = graph.node.iter().any(|node| node.input.iter().any(|input| input == text(&tensor.name)));
        assert!(used, "nothing reads {}", text(&tensor.name));
    }
    let produced: HashSet<&str> = graph.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
    let stated: HashSet<&str> = graph.value_info.iter().chain(&graph.output).map(|value| text(&value.name)).collect();
    assert_eq!(produced, stated);
    let domains: HashSet<&str> = graph.node.iter().map(|node| text(&node.domain)).collect();
    let imported: HashSet<&str> = model.opset_import.iter().map(|set| text(&set.domain)).collect();
    assert!(domains.is_subset(&imported));
    assert_eq!(imported.contains(function::DOMAIN), !model.functions.is_empty());
}

fn network(model: &ModelConfig, classes: usize) -> Network {
    let shape = if model.network.reads_text() { Shape::new(1, [1, 1, 30]) } else { Shape::new(3, [1, 32, 32]) };
    let text = model.network.reads_text().then_some(crate::train::data::Text::Words(9));
    model.build(Input { shape, text, classes }, Isa::detect(), 1).unwrap()
}

fn convrelu(network: Architecture) -> ModelConfig {
    ModelConfig {
        network,
        activation: Activation::Convrelu,
        region: Region::All,
        threshold_init: ThresholdInit::Gaussian(0.3),
        growth: Some(4),
        depth: Some(2),
        features: Some(6),
        units: Some(5),
        embedding: Some(4),
        ..ModelConfig::default()
    }
    .relevant()
}

#[test]
fn every_network_is_a_sound_graph() {
    for &architecture in Architecture::ALL_VALUES {
        let small = matches!(architecture, Architecture::SmallCnn | Architecture::TextCnn);
        let activations = if small {
            &[Activation::Convrelu, Activation::Prelu, Activation::Adarelu, Activation::Elu, Activation::Relu][..]
        } else {
            &[Activation::Convrelu]
        };
        for &activation in activations {
            let model = ModelConfig { activation, ..convrelu(architecture) }.relevant();
            let network = network(&model, 7);
            for fold in [false, true] {
                let model = decoded(&network, fold);
                check(&model);
                assert_eq!((extents(&graph(&model).output[0]), graph(&model).output.len()), (vec![-1, 7], 1));
                assert_eq!(model.functions.len(), usize::from(activation == Activation::Convrelu));
                if !fold {
                    // All that the network has, value for value.
                    for parameter in network.state().iter().filter(|parameter| parameter.name != "embedding.weight") {
                        let tensor = constant(graph(&model), &parameter.name);
                        assert_eq!(floats(tensor), parameter.canonical(&parameter.value), "{}", parameter.name);
                    }
                }
            }
        }
    }
}

#[test]
fn a_file_says_what_it_is() {
    let network = network(&convrelu(Architecture::SmallCnn), 10);
    let model = decoded(&network, false);
    assert_eq!((model.ir_version, text(&model.producer_name)), (Some(8), "convrelu"));
    assert_eq!(text(&model.producer_version), env!("CARGO_PKG_VERSION"));
    let sets: Vec<_> = model.opset_import.iter().map(|set| (text(&set.domain), set.version)).collect();
    assert_eq!(sets, [("", Some(17)), ("convrelu", Some(1))]);
    let entries: Vec<_> = model.metadata_props.iter().map(|entry| (text(&entry.key), text(&entry.value))).collect();
    assert_eq!(entries, [("key", "value")]);
    let graph = graph(&model);
    assert_eq!((text(&graph.input[0].name), extents(&graph.input[0])), ("images", vec![-1, 3, 32, 32]));
    assert_eq!(text(&graph.output[0].name), "logits");
    assert_eq!(
        kinds(graph),
        [
            ("conv1", "Conv"),
            ("conv2", "ConvReLU"),
            ("pool1", "MaxPool"),
            ("conv3", "ConvReLU"),
            ("conv4", "ConvReLU"),
            ("pool2", "MaxPool"),
            ("act4", "Relu"),
            ("flatten", "Flatten"),
            ("linear", "Gemm"),
        ]
    );
    let layer = &graph.node[1];
    assert_eq!(layer.input, ["conv1", "conv2.weight", "conv2.thresholds", "conv2.bias"]);
    for (name, expected) in [
        ("group", &[1][..]),
        ("channels", &[16]),
        ("kernel_shape", &[3, 3]),
        ("pads", &[1; 4]),
        ("strides", &[1, 1]),
        ("dilations", &[1, 1]),
    ] {
        assert_eq!(ints(layer, name), expected, "{name}");
    }
    assert_eq!(constant(graph, "conv2.thresholds").dims, [16, 3, 3]);
}

/// Nothing in the function's body is undefined, and its attributes are those that its nodes are given.
#[test]
fn the_function_is_sound() {
    let model = decoded(&network(&convrelu(Architecture::SmallCnn), 10), false);
    let [function] = &model.functions[..] else { panic!("one function") };
    assert_eq!((text(&function.domain), text(&function.name)), ("convrelu", "ConvReLU"));
    let known = check_order(&function.node, function.input.iter().map(String::as_str));
    assert!(known.contains(&function.output[0][..]));
    let mut referred: Vec<&str> = Vec::new();
    for attribute in function.node.iter().flat_map(|node| &node.attribute) {
        if let Some(name) = &attribute.ref_attr_name {
            assert!(attribute.i.is_none() && attribute.ints.is_empty());
            assert_ne!(attribute.r#type, Some(AttributeType::Undefined.into()));
            referred.push(name);
        }
    }
    referred.sort_unstable();
    let mut declared: Vec<&str> = function.attribute.iter().map(String::as_str).collect();
    declared.sort_unstable();
    assert_eq!(referred, declared);
    let layer = graph(&model).node.iter().find(|node| text(&node.domain) == "convrelu").unwrap();
    let mut given: Vec<&str> = layer.attribute.iter().map(|attribute| text(&attribute.name)).collect();
    given.sort_unstable();
    assert_eq!(given, declared);
    assert!(function.node.iter().all(|node| text(&node.domain).is_empty()));
}

#[test]
fn texts_are_tokens() {
    let mut network = network(&convrelu(Architecture::TextCnn), 3);
    network.visit_mut(|parameter| {
        if parameter.name == "embedding.weight" {
            parameter.value[0] = 5.0;
        }
    });
    let model = decoded(&network, false);
    let graph = graph(&model);
    assert_eq!((text(&graph.input[0].name), extents(&graph.input[0])), ("tokens", vec![-1, 30]));
    let elements = graph.input[0].r#type.as_ref().unwrap().tensor_type.as_ref().unwrap().elem_type;
    assert_eq!(elements, Some(proto::DataType::Int64.into()));
    assert_eq!(kinds(graph)[..3], [("embedding.gather", "Gather"), ("embedding", "Transpose"), ("conv1", "Conv")]);
    assert_eq!(ints(&graph.node[1], "perm"), [0, 2, 1]);
    // The padding is zero, whatever lies there.
    assert_eq!(floats(constant(graph, "embedding.weight"))[..4], [0.0; 4]);
    assert_eq!(ints(&graph.node[2], "pads"), [3, 3]);
}

#[test]
fn thresholds_of_one_kind_are_no_maxima() {
    let mut network = network(&convrelu(Architecture::SmallCnn), 10);
    for (value, expected) in [
        (0.0, &[("conv2.relu", "Relu"), ("conv2", "Conv")][..]),
        (-0.0, &[("conv2.relu", "Relu"), ("conv2", "Conv")]),
        (f32::NEG_INFINITY, &[("conv2", "Conv")]),
        (0.5, &[("conv2", "ConvReLU")]),
    ] {
        network.visit_mut(|parameter| {
            if parameter.name == "conv2.thresholds" {
                parameter.value.fill(value);
            }
        });
        let model = decoded(&network, false);
        let nodes = kinds(graph(&model));
        let of_layer: Vec<_> = nodes.into_iter().filter(|(name, _)| name.starts_with("conv2")).collect();
        assert_eq!(of_layer, expected, "{value}");
    }
}

fn conv(name: &str, desc: ConvDesc, clamp: Clamp, bias: bool) -> Conv {
    let mut rng = stream(1, Purpose::Init, [1, 0]);
    Conv::new(name, desc, Isa::detect(), clamp, bias, WeightInit::He, &mut rng).unwrap()
}

/// A convolution of one number with a normalisation: what is folded into it is a weight and a bias.
#[test]
fn folding_gives_the_same_numbers() {
    for (clamp, bias, inputs) in [(Clamp::Linear, true, 3), (Clamp::Trained(ThresholdInit::Zero), false, 4)] {
        let desc = ConvDesc::conv1d(1, 1, 2, [1], [1]).build().unwrap();
        let mut layers = Sequence::new("", Shape::new(1, [1; 3]));
        layers.push(conv("conv", desc, clamp, bias));
        layers.push(BatchNorm::new("norm", layers.output()));
        let mut network = Network::new(layers);
        network.visit_mut(|parameter| match &parameter.name[..] {
            "conv.thresholds" => parameter.value.fill(0.25),
            "norm.running_var" => parameter.value.copy_from_slice(&[4.0, 0.25]),
            "conv.weight" => parameter.value.copy_from_slice(&[1.5, -2.0]),
            _ => parameter.value.iter_mut().enumerate().for_each(|(at, value)| *value = 0.75 + at as f32),
        });
        let model = decoded(&network, true);
        check(&model);
        let graph = graph(&model);
        let [node] = &graph.node[..] else { panic!("one node") };
        assert_eq!((node.input.len(), &node.output[..]), (inputs, &["logits".to_owned()][..]));
        let weight = floats(constant(graph, &node.input[1]));
        let shift = floats(constant(graph, &node.input[inputs - 1]));
        for x in [-1.0_f32, 0.5, 3.0] {
            let clamped = if inputs == 4 { x.max(0.25) } else { x };
            let expected = network.forward(Mode::Evaluate, &[x]).unwrap();
            for (c, expected) in expected.iter().enumerate() {
                let found = weight[c] * clamped + shift[c];
                assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{x}: {found} for {expected}");
            }
        }
    }
}

/// What another layer reads too is not folded away.
#[test]
fn folding_leaves_what_others_read() {
    let shape = Shape::new(2, [1, 4, 4]);
    let desc = ConvDesc::conv2d(1, 2, 2, [4, 4], [1, 1]).build().unwrap();
    let mut layers = Sequence::new("", shape);
    layers.push(conv("stem", desc, Clamp::Linear, false));
    let mut block = DenseBlock::new("dense", shape);
    let mut first = Sequence::new("dense.0", shape);
    first.push(conv("dense.0.conv1", desc, Clamp::Relu, false));
    let mut second = Sequence::new("dense.0", shape);
    second.push(conv("dense.0.conv2", desc, Clamp::Relu, false));
    block.push([(BatchNorm::new("dense.0.bn1", shape), first), (BatchNorm::new("dense.0.bn2", shape), second)]);
    layers.push(block);
    layers.push(MaxPool::new("pool", layers.output(), PoolWindow::apart([1, 2, 2])).unwrap());
    layers.push(BatchNorm::new("bn", layers.output()));
    let network = Network::new(layers);
    let exported = export(&network, "net", &[], true).unwrap();
    assert_eq!((exported.normalizations, exported.folded), (3, 1));
    let model = decoded(&network, true);
    check(&model);
    assert_eq!(
        kinds(graph(&model)),
        [
            ("stem", "Conv"),
            ("dense.0.bn1", "BatchNormalization"),
            ("dense.0.conv1.relu", "Relu"),
            ("dense.0.conv1", "Conv"),
            ("dense.0.conv2.relu", "Relu"),
            ("dense.0.conv2", "Conv"),
            ("dense.0.concat", "Concat"),
            ("pool", "MaxPool"),
            ("bn", "BatchNormalization"),
        ]
    );
    assert_eq!(graph(&model).node[6].input, ["dense.0.conv2", "stem"]);
    assert_eq!(exported.folded, usize::from(graph(&model).node[4].input == ["dense.0.bn2"]));
}

#[test]
fn volumes_strides_dilation_and_groups_are_written() {
    let desc = ConvDesc::conv3d(1, 4, 6, [5, 6, 7], [2, 3, 1]).stride([1, 2, 3]).dilation([2, 1, 1]).groups(2);
    let desc = desc.padding_before_after([0, 1, 2], [1, 0, 3]).layout(Layout::Nhwc).build().unwrap();
    let shape = Shape::new(4, [5, 6, 7]).with_layout(Layout::Nhwc);
    let mut layers = Sequence::new("", shape);
    layers.push(conv("conv", desc, Clamp::Trained(ThresholdInit::Gaussian(0.5)), true));
    let network = Network::new(layers);
    let model = decoded(&network, false);
    check(&model);
    let graph = graph(&model);
    let node = &graph.node[0];
    assert_eq!(ints(node, "pads"), [0, 1, 2, 1, 0, 3]);
    assert_eq!((ints(node, "strides"), ints(node, "dilations")), (vec![1, 2, 3], vec![2, 1, 1]));
    assert_eq!((ints(node, "group"), ints(node, "channels")), (vec![2], vec![4]));
    assert_eq!(constant(graph, "conv.weight").dims, [6, 2, 2, 3, 1]);
    assert_eq!(constant(graph, "conv.thresholds").dims, [4, 2, 3, 1]);
    let state = network.state();
    let weight = state.iter().find(|parameter| parameter.name == "conv.weight").unwrap();
    assert_eq!(floats(constant(graph, "conv.weight")), weight.canonical(&weight.value));
    assert_ne!(floats(constant(graph, "conv.weight")), weight.value);
    let size = desc.output_size().map(|extent| extent as i64);
    assert_eq!(extents(&graph.output[0]), [&[-1, 6][..], &size].concat());
}

/// A layer that says nothing about itself.
struct Secret;

impl Layer for Secret {
    fn name(&self) -> &str {
        "secret"
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Activation
    }

    fn output(&self) -> Shape {
        Shape::new(2, [1; 3])
    }

    fn forward(&mut self, _: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        output.copy_from_slice(input);
        Ok(())
    }

    fn backward(&mut self, _: &mut Context, _: &[f32], _: &[f32], _: Option<&mut [f32]>) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn what_has_no_form_is_refused() {
    let refusal = |layers: Sequence| export(&Network::new(layers), "net", &[], false).unwrap_err().to_string();
    let sequence = || Sequence::new("", Shape::new(2, [1; 3]));
    let mut layers = sequence();
    layers.push(Secret);
    assert_eq!(refusal(layers), "layer is secret: it has no form in ONNX: it does not say what it computes");
    let mut rng = stream(1, Purpose::Init, [1, 0]);
    let mut layers = sequence();
    layers.push(Linear::new("fc", layers.output(), 1, WeightInit::He, &mut rng));
    layers.push(Embedding::new("words", layers.output(), 5, 2, 1.0, &mut rng));
    let rule = "it takes tokens, which are the input of a network";
    assert_eq!(refusal(layers), format!("layer is words: it has no form in ONNX: {rule}"));
    let mut layers = Sequence::new("", Shape::new(2, [1, 2, 2]).with_layout(Layout::Nhwc));
    layers.push(Linear::new("fc", layers.output(), 1, WeightInit::He, &mut rng));
    let rule = "it reads positions before channels: a flattening must come before it";
    assert_eq!(refusal(layers), format!("layer is fc: it has no form in ONNX: {rule}"));
    let mut layers = sequence();
    layers.push(Linear::new("fc", layers.output(), 2, WeightInit::He, &mut rng));
    layers.push(GlobalAveragePool::new("pool", layers.output()));
    let rule = "it needs positions, which a layer before it has made channels";
    assert_eq!(refusal(layers), format!("layer is pool: it has no form in ONNX: {rule}"));
    let mut body = sequence();
    body.push(Linear::new("fc", body.output(), 2, WeightInit::He, &mut rng));
    let mut layers = sequence();
    layers.push(Residual::new(body, None));
    let rule = "one of its sides has positions, the other has made them channels";
    assert_eq!(refusal(layers), format!("layer is : it has no form in ONNX: {rule}"));
    let mut layers = sequence();
    for _ in 0..2 {
        layers.push(Linear::new("fc", layers.output(), 2, WeightInit::He, &mut rng));
    }
    let rule = "two of its tensors have this name, each needs its own";
    assert_eq!(refusal(layers), format!("network is fc.weight: {rule}"));
    assert!(check_size(MOST_BYTES, MOST_BYTES).is_ok());
    assert_eq!(
        check_size(MOST_BYTES + 1, MOST_BYTES).unwrap_err().to_string(),
        "onnx is 2147483648 bytes: an ONNX file holds at most 2147483647 bytes, this network takes 2147483648 at least"
    );
}

#[test]
fn a_network_of_nothing_gives_its_input() {
    let model = decoded(&Network::new(Sequence::new("", Shape::new(2, [1, 2, 2]))), true);
    assert_eq!(kinds(graph(&model)), [("logits", "Identity")]);
    check(&model);
}
