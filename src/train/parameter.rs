//! Trained tensors.

/// What a parameter is, which decides its weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Weights of convolutions and linear layers.
    Weight,
    /// Thresholds θ.
    Threshold,
    /// Biases.
    Bias,
}

/// A trained tensor with its gradient.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Unique in its network: layer, dot, tensor, like `conv2.weight`.
    pub name: String,
    /// Extents in memory order.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: Kind,
    /// Its elements.
    pub value: Vec<f32>,
    /// Gradient of the loss, as many elements.
    pub grad: Vec<f32>,
}

impl Parameter {
    /// A parameter with a gradient of zero.
    pub fn new(name: String, shape: Vec<usize>, kind: Kind, value: Vec<f32>) -> Self {
        let grad = vec![0.0; value.len()];
        Self { name, shape, kind, value, grad }
    }
}
