//! From layers to nodes.

use super::function;
use super::graph::{Graph, Value, node};
use super::proto::NodeProto;
use crate::desc::ConvDesc;
use crate::layout::Layout;
use crate::train::error::TrainError;
use crate::train::layer::{Clamped, Layer, Operation, Pointwise, PoolWindow, SELU, Sequence, Table};
use crate::train::network::Network;
use crate::train::parameter::Parameter;

/// Name of a graph's input of images, its input of texts, and its output.
pub(super) const IMAGES: &str = "images";
pub(super) const TOKENS: &str = "tokens";
pub(super) const LOGITS: &str = "logits";

/// The graph of a network, channels first.
///
/// # Errors
///
/// [`TrainError::Setting`] that names a layer which has no form in ONNX.
pub(super) fn graph(network: &Network) -> Result<Graph, TrainError> {
    let layers = network.layers();
    let rank = rank(layers, 1.max(3 - leading_ones(network.input().size)));
    let shape = network.input();
    let positions = &shape.size[3 - rank..];
    let input = if first(layers).is_some_and(|layer| matches!(layer.operation(), Operation::Lookup(_))) {
        Value { name: TOKENS.to_owned(), dims: positions.to_vec(), tokens: true }
    } else {
        let dims = [&[shape.channels], positions].concat();
        Value { name: IMAGES.to_owned(), dims, tokens: false }
    };
    let mut writer = Writer { graph: Graph::new(input.clone()), rank, layout: shape.layout };
    writer.sequence(layers, input)?;
    writer.graph.name_output(LOGITS);
    Ok(writer.graph)
}

/// How many axes in front are not there.
fn leading_ones(size: [usize; 3]) -> usize {
    size.iter().take_while(|&&extent| extent == 1).count()
}

/// The first layer that is not made of others.
fn first(layers: &Sequence) -> Option<&dyn Layer> {
    let layer = layers.layers().next()?;
    match layer.operation() {
        Operation::Sequence(layers) => first(layers),
        _ => Some(layer),
    }
}

/// The most spatial axes that a layer works on, `least` or more. (An axis of one position may be there all the same.)
fn rank(layers: &Sequence, least: usize) -> usize {
    layers.layers().fold(least, |least, layer| match layer.operation() {
        Operation::Convolution { desc, .. } => least.max(desc.rank()),
        Operation::Sequence(layers) => rank(layers, least),
        Operation::Sum { body, shortcut } => {
            shortcut.map_or(rank(body, least), |shortcut| rank(shortcut, rank(body, least)))
        }
        Operation::Dense(layers) => layers.iter().flatten().fold(least, |least, (_, body)| rank(body, least)),
        _ => least,
    })
}

/// Writes layers into a graph, with the spatial axes that the whole network has.
struct Writer {
    graph: Graph,
    rank: usize,
    layout: Layout,
}

impl Writer {
    fn sequence(&mut self, layers: &Sequence, input: Value) -> Result<Value, TrainError> {
        layers.layers().try_fold(input, |x, layer| self.layer(layer, x))
    }

    fn layer(&mut self, layer: &dyn Layer, x: Value) -> Result<Value, TrainError> {
        let name = layer.name();
        if x.tokens && !matches!(layer.operation(), Operation::Lookup(_) | Operation::Sequence(_)) {
            return Err(refused(name, "it comes before the vectors of the tokens"));
        }
        let spatial = matches!(
            layer.operation(),
            Operation::Convolution { .. }
                | Operation::MaxPool(_)
                | Operation::AveragePool(_)
                | Operation::GlobalAveragePool
        );
        if spatial && x.dims.len() == 1 {
            return Err(refused(name, "it needs positions, which a layer before it has made channels"));
        }
        Ok(match layer.operation() {
            Operation::Identity => x,
            Operation::Sequence(layers) => self.sequence(layers, x)?,
            Operation::Sum { body, shortcut } => {
                let made = self.sequence(body, x.clone())?;
                let other = shortcut.map_or(Ok(x.clone()), |shortcut| self.sequence(shortcut, x.clone()))?;
                if made.dims != other.dims {
                    return Err(refused(name, "one of its sides has positions, the other has made them channels"));
                }
                self.graph.node(node("Add", &format!("{name}.add"), vec![made.name, other.name]), made.dims)
            }
            Operation::Dense(layers) => {
                let mut features = x;
                for layer in layers {
                    let mut made = features.clone();
                    let mut concat = format!("{name}.concat");
                    for (norm, body) in layer {
                        made = self.layer(norm, made)?;
                        made = self.sequence(body, made)?;
                        concat = format!("{}.concat", body.name());
                    }
                    let mut dims = features.dims.clone();
                    if let (Some(channels), Some(new)) = (dims.first_mut(), made.dims.first()) {
                        *channels += new;
                    }
                    let concat = node("Concat", &concat, vec![made.name, features.name]).int("axis", 1);
                    features = self.graph.node(concat, dims);
                }
                features
            }
            Operation::Convolution { desc, clamped, weight, bias } => {
                self.convolution(name, desc, clamped, (weight, bias), x)
            }
            Operation::Linear { weight, bias } => {
                let x = self.flat(name, x)?;
                let parameters = [self.parameter(weight), self.parameter(bias)];
                let inputs = [x.name].into_iter().chain(parameters).collect();
                self.graph.node(node("Gemm", name, inputs).int("transB", 1), vec![weight.shape[0]])
            }
            Operation::Normalization { weight, bias, mean, variance, epsilon } => {
                let parameters = [weight, bias, mean, variance].map(|parameter| self.parameter(parameter));
                let inputs = [x.name].into_iter().chain(parameters).collect();
                self.graph.node(node("BatchNormalization", name, inputs).float("epsilon", epsilon as f32), x.dims)
            }
            Operation::Activation(pointwise, parameter) => self.activation(name, pointwise, parameter, x),
            Operation::MaxPool(window) => self.pool("MaxPool", layer, window, x),
            Operation::AveragePool(window) => self.pool("AveragePool", layer, window, x),
            Operation::GlobalAveragePool => {
                let dims =
                    x.dims.iter().enumerate().map(|(axis, &extent)| if axis == 0 { extent } else { 1 }).collect();
                self.graph.node(node("GlobalAveragePool", name, vec![x.name]), dims)
            }
            Operation::Flatten => {
                let len = x.dims.iter().product();
                self.graph.node(node("Flatten", name, vec![x.name]).int("axis", 1), vec![len])
            }
            Operation::Lookup(table) => self.lookup(name, table, x)?,
            Operation::Opaque => return Err(refused(name, "it does not say what it computes")),
        })
    }

    /// A constant with the values of a parameter, in its own shape.
    fn parameter(&mut self, parameter: &Parameter) -> String {
        self.shaped(parameter, parameter.shape.clone())
    }

    /// A constant with the values of a parameter, in PyTorch's order.
    fn shaped(&mut self, parameter: &Parameter, dims: Vec<usize>) -> String {
        self.graph.constant(&parameter.name, dims, parameter.canonical(&parameter.value))
    }

    fn convolution(
        &mut self,
        name: &str,
        desc: &ConvDesc,
        clamped: Clamped<'_>,
        (weight, bias): (&Parameter, Option<&Parameter>),
        mut x: Value,
    ) -> Value {
        let axes = 3 - self.rank..3;
        let kernel = &desc.kernel()[axes.clone()];
        let clamped = match clamped {
            Clamped::Thresholds(thresholds) => of_one_kind(&thresholds.value).unwrap_or(clamped),
            clamped => clamped,
        };
        if let Clamped::Relu = clamped {
            x = self.graph.node(node("Relu", &format!("{name}.relu"), vec![x.name]), x.dims);
        }
        let per_group = desc.in_channels() / desc.groups();
        let weight = self.shaped(weight, [&[desc.out_channels(), per_group], kernel].concat());
        let mut inputs = vec![x.name, weight];
        if let Clamped::Thresholds(thresholds) = clamped {
            inputs.push(self.shaped(thresholds, [&[desc.in_channels()], kernel].concat()));
        }
        inputs.extend(bias.map(|bias| self.parameter(bias)));
        let numbers = |values: [usize; 3]| values[axes.clone()].iter().map(|&value| value as i64).collect::<Vec<_>>();
        let pads = [numbers(desc.padding_before()), numbers(desc.padding_after())].concat();
        let mut conv = node("Conv", name, inputs)
            .ints("dilations", numbers(desc.dilation()))
            .int("group", desc.groups())
            .ints("kernel_shape", numbers(desc.kernel()))
            .ints("pads", pads)
            .ints("strides", numbers(desc.stride()));
        if let Clamped::Thresholds(_) = clamped {
            conv = NodeProto {
                op_type: Some(function::NAME.to_owned()),
                domain: Some(function::DOMAIN.to_owned()),
                ..conv.int(function::CHANNELS, desc.in_channels())
            };
        }
        self.graph.node(conv, [&[desc.out_channels()], &desc.output_size()[axes.clone()]].concat())
    }

    /// A layer's input without spatial axes.
    fn flat(&mut self, name: &str, x: Value) -> Result<Value, TrainError> {
        if x.dims.len() == 1 {
            return Ok(x);
        }
        if self.layout == Layout::Nhwc && x.positions().iter().product::<usize>() != 1 {
            return Err(refused(name, "it reads positions before channels: a flattening must come before it"));
        }
        let len = x.dims.iter().product();
        Ok(self.graph.node(node("Flatten", &format!("{name}.flatten"), vec![x.name]).int("axis", 1), vec![len]))
    }

    fn activation(&mut self, name: &str, pointwise: Pointwise, parameter: Option<&Parameter>, x: Value) -> Value {
        let plain = |op_type: &str| node(op_type, name, vec![x.name.clone()]);
        let node = match pointwise {
            Pointwise::Relu => plain("Relu"),
            Pointwise::LeakyRelu(slope) => plain("LeakyRelu").float("alpha", slope),
            Pointwise::Elu(alpha) => plain("Elu").float("alpha", alpha),
            Pointwise::Selu => plain("Selu").float("gamma", SELU[0]).float("alpha", SELU[1]),
            Pointwise::PRelu { .. } | Pointwise::AdaRelu { .. } => {
                let op_type = if matches!(pointwise, Pointwise::PRelu { .. }) { "PRelu" } else { "Max" };
                let mut node = plain(op_type);
                node.input.extend(parameter.map(|parameter| {
                    // There is one for all, one per channel, or one per element. It repeats along the axes with an extent of 1.
                    let (values, elements) = (parameter.value.len(), x.dims.iter().product::<usize>());
                    let mut dims = x.dims.clone();
                    if values != elements {
                        dims.iter_mut().skip(usize::from(values != 1)).for_each(|extent| *extent = 1);
                    }
                    self.shaped(parameter, dims)
                }));
                node
            }
        };
        self.graph.node(node, x.dims)
    }

    fn pool(&mut self, op_type: &str, layer: &dyn Layer, window: PoolWindow, x: Value) -> Value {
        let axes = 3 - self.rank..3;
        let numbers = |values: [usize; 3]| values[axes.clone()].iter().map(|&value| value as i64).collect::<Vec<_>>();
        let node = node(op_type, layer.name(), vec![x.name]);
        let node = node.ints("kernel_shape", numbers(window.kernel)).ints("strides", numbers(window.stride));
        let output = layer.output();
        self.graph.node(node, [&[output.channels], &output.size[axes.clone()]].concat())
    }

    /// Vectors of tokens: those of a table, with their elements as channels.
    fn lookup(&mut self, name: &str, table: Table<'_>, tokens: Value) -> Result<Value, TrainError> {
        if !tokens.tokens {
            return Err(refused(name, "it takes tokens, which are the input of a network"));
        }
        let (weight, vectors, dim, mut values) = match table {
            Table::Trained(weight) => {
                (weight.name.clone(), weight.shape[0], weight.shape[1], weight.canonical(&weight.value))
            }
            Table::OneHot(channels) => {
                let mut values = vec![0.0; (channels + 1) * channels];
                values[channels..].iter_mut().step_by(channels + 1).for_each(|value| *value = 1.0);
                (format!("{name}.weight"), channels + 1, channels, values)
            }
        };
        values[..dim].fill(0.0);
        let table = self.graph.constant(&weight, vec![vectors, dim], values);
        let gather = node("Gather", &format!("{name}.gather"), vec![table, tokens.name]).int("axis", 0);
        let vectors = self.graph.node(gather, [&tokens.dims[..], &[dim]].concat());
        let axes = tokens.dims.len() as i64;
        let order = [0, axes + 1].into_iter().chain(1..=axes);
        let channels_first = node("Transpose", name, vec![vectors.name]).ints("perm", order);
        Ok(self.graph.node(channels_first, [&[dim], &tokens.dims[..]].concat()))
    }
}

/// Thresholds that need no maximum with θ: all zero, or all −∞.
fn of_one_kind<'a>(thresholds: &[f32]) -> Option<Clamped<'a>> {
    let all = |value: f32| thresholds.iter().all(|&threshold| threshold == value);
    if all(0.0) {
        Some(Clamped::Relu)
    } else if all(f32::NEG_INFINITY) {
        Some(Clamped::No)
    } else {
        None
    }
}

fn refused(layer: &str, rule: &str) -> TrainError {
    TrainError::setting("layer", layer, format!("it has no form in ONNX: {rule}"))
}
