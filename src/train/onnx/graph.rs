//! A graph that is being made: nodes, constants, and the shapes of the values between them. Names are unique.

use std::collections::HashSet;

use super::proto::{
    AttributeProto, AttributeType, DataType, Dimension, DimensionProto, GraphProto, NodeProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::train::error::TrainError;

/// The symbol that stands for the number of examples.
pub(super) const BATCH: &str = "batch";

/// A tensor that depends on the input: its name and its extents for one example.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub(super) name: String,
    pub(super) dims: Vec<usize>,
    pub(super) tokens: bool,
}

impl Value {
    /// The extents of the axes behind the channels.
    pub(super) fn positions(&self) -> &[usize] {
        self.dims.get(1..).unwrap_or_default()
    }

    fn info(&self) -> ValueInfoProto {
        let extent = |&extent: &usize| Dimension::Value(extent as i64);
        let dims = [Dimension::Param(BATCH.to_owned())].into_iter().chain(self.dims.iter().map(extent));
        let shape = TensorShapeProto { dim: dims.map(|value| DimensionProto { value: Some(value) }).collect() };
        let elements = if self.tokens { DataType::Int64 } else { DataType::Float };
        let tensor = TensorTypeProto { elem_type: Some(elements.into()), shape: Some(shape) };
        ValueInfoProto { name: Some(self.name.clone()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
    }
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Constant {
    pub(super) name: String,
    pub(super) dims: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// Nodes, constants and values.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) constants: Vec<Constant>,
    /// The outputs of the nodes, without that of the graph.
    pub(super) values: Vec<Value>,
    pub(super) input: Value,
    pub(super) output: Value,
}

impl Graph {
    /// One that gives its input.
    pub(super) fn new(input: Value) -> Self {
        let output = input.clone();
        Self { nodes: Vec::new(), constants: Vec::new(), values: Vec::new(), input, output }
    }

    /// Adds a constant. Returns its name.
    pub(super) fn constant(&mut self, name: &str, dims: Vec<usize>, values: Vec<f32>) -> String {
        self.constants.push(Constant { name: name.to_owned(), dims, values });
        name.to_owned()
    }

    /// Adds a node that gives one value, which has the node's name, and becomes the output until another is added.
    pub(super) fn node(&mut self, node: NodeProto, dims: Vec<usize>) -> Value {
        let name = node.name.clone().unwrap_or_default();
        let value = Value { name: name.clone(), dims, tokens: false };
        self.nodes.push(NodeProto { output: vec![name], ..node });
        let before = std::mem::replace(&mut self.output, value.clone());
        if before.name != self.input.name {
            self.values.push(before);
        }
        value
    }

    /// Gives the output another name. A graph without nodes gets one, because an input cannot be an output.
    pub(super) fn name_output(&mut self, name: &str) {
        if self.nodes.is_empty() {
            let input = self.input.clone();
            self.node(node("Identity", name, vec![input.name]), input.dims);
        }
        let old = std::mem::replace(&mut self.output.name, name.to_owned());
        for output in self.nodes.iter_mut().flat_map(|node| &mut node.output).filter(|output| **output == old) {
            name.clone_into(output);
        }
        for input in self.nodes.iter_mut().flat_map(|node| &mut node.input).filter(|input| **input == old) {
            name.clone_into(input);
        }
    }

    /// The finished graph. Its constants are moved into it one by one, so that a large network is not held twice.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] if two tensors have one name.
    pub(super) fn finish(self, name: &str) -> Result<GraphProto, TrainError> {
        let names = self.constants.iter().map(|constant| &constant.name);
        let values = self.values.iter().chain([&self.input, &self.output]).map(|value| &value.name);
        let mut seen = HashSet::new();
        if let Some(twice) = names.chain(values).find(|name| !seen.insert(*name)) {
            return Err(TrainError::setting("network", twice, "two of its tensors have this name, each needs its own"));
        }
        Ok(GraphProto {
            node: self.nodes,
            name: Some(name.to_owned()),
            initializer: self.constants.into_iter().map(tensor).collect(),
            input: vec![self.input.info()],
            output: vec![self.output.info()],
            value_info: self.values.iter().map(Value::info).collect(),
        })
    }
}

fn tensor(constant: Constant) -> TensorProto {
    let bytes = constant.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto {
        dims: constant.dims.iter().map(|&extent| extent as i64).collect(),
        data_type: Some(DataType::Float.into()),
        name: Some(constant.name),
        raw_data: Some(bytes),
    }
}

/// A node of the standard, without attributes and outputs.
pub(super) fn node(op_type: &str, name: &str, input: Vec<String>) -> NodeProto {
    NodeProto { input, name: Some(name.to_owned()), op_type: Some(op_type.to_owned()), ..NodeProto::default() }
}

impl NodeProto {
    fn with(mut self, name: &str, kind: AttributeType, value: AttributeProto) -> Self {
        let (name, kind) = (Some(name.to_owned()), Some(kind.into()));
        self.attribute.push(AttributeProto { name, r#type: kind, ..value });
        self
    }

    /// With a whole number.
    pub(super) fn int(self, name: &str, value: usize) -> Self {
        self.with(name, AttributeType::Int, AttributeProto { i: Some(value as i64), ..AttributeProto::default() })
    }

    /// With whole numbers.
    pub(super) fn ints(self, name: &str, values: impl IntoIterator<Item = i64>) -> Self {
        let ints = values.into_iter().collect();
        self.with(name, AttributeType::Ints, AttributeProto { ints, ..AttributeProto::default() })
    }

    /// With a number.
    pub(super) fn float(self, name: &str, value: f32) -> Self {
        self.with(name, AttributeType::Float, AttributeProto { f: Some(value), ..AttributeProto::default() })
    }

    /// Inside a function: with the value that an attribute of the function has.
    pub(super) fn of_function(self, name: &str, kind: AttributeType, attribute: &str) -> Self {
        let ref_attr_name = Some(attribute.to_owned());
        self.with(name, kind, AttributeProto { ref_attr_name, ..AttributeProto::default() })
    }
}
