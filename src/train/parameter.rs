//! Tensors of a network's state.

use serde::{Deserialize, Serialize};

use crate::layout::Layout;

/// The kind of a tensor. It decides about its weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Weights of convolutions, linear layers and embeddings.
    Weight,
    /// Thresholds θ of ConvReLU and AdaReLU.
    Threshold,
    /// Scale of a normalisation.
    Norm,
    /// Biases, also those of normalisations.
    Bias,
    /// Slopes of PReLU.
    Slope,
    /// State that no gradient trains: running statistics. They do not count as parameters.
    Buffer,
}

/// A tensor of a network's state, with its gradient if it is trained.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Unique in its network: layer, dot, tensor, like `layer1.0.conv2.weight`.
    pub name: String,
    /// Extents in PyTorch's order (`O I H W` for a weight).
    pub shape: Vec<usize>,
    /// Its kind.
    pub kind: Kind,
    /// Memory order of a tensor with spatial axes. [`Layout::Nchw`] is the order of `shape`.
    pub layout: Layout,
    /// Its elements.
    pub value: Vec<f32>,
    /// Gradient of the loss, with as many elements. Empty for a [`Kind::Buffer`].
    pub grad: Vec<f32>,
}

impl Parameter {
    /// A parameter in the order of its shape, with a gradient of zero.
    pub fn new(name: String, shape: Vec<usize>, kind: Kind, value: Vec<f32>) -> Self {
        let grad = vec![0.0; if kind == Kind::Buffer { 0 } else { value.len() }];
        Self { name, shape, kind, layout: Layout::Nchw, value, grad }
    }

    /// The parameter in the memory order of a layout. `inputs` is the axis of `shape` that counts input channels. The axes after
    /// it are spatial.
    pub(super) fn in_layout(mut self, layout: Layout, inputs: usize) -> Self {
        if layout == Layout::Nhwc {
            self.value = permuted(&self.value, &self.shape, inputs, layout);
            self.layout = layout;
        }
        self
    }

    /// Whether it is trained.
    pub fn is_trained(&self) -> bool {
        self.kind != Kind::Buffer
    }

    /// Its values (or a tensor of the same shape, like its velocity) in PyTorch's order.
    pub(super) fn canonical(&self, values: &[f32]) -> Vec<f32> {
        match self.layout {
            Layout::Nchw => values.to_vec(),
            Layout::Nhwc => permuted(values, &self.shape, self.input_axis(), Layout::Nchw),
        }
    }

    /// The inverse of [`canonical`](Self::canonical).
    pub(super) fn restored(&self, values: &[f32]) -> Vec<f32> {
        match self.layout {
            Layout::Nchw => values.to_vec(),
            Layout::Nhwc => permuted(values, &self.shape, self.input_axis(), Layout::Nhwc),
        }
    }

    /// Weights count input channels behind the output channels, thresholds first.
    fn input_axis(&self) -> usize {
        usize::from(self.kind == Kind::Weight)
    }
}

/// `[outer][channels][positions]` to `[outer][positions][channels]` (`to` NHWC) or back.
fn permuted(values: &[f32], shape: &[usize], inputs: usize, to: Layout) -> Vec<f32> {
    let (channels, positions) = (shape[inputs], shape[inputs + 1..].iter().product::<usize>());
    let (rows, columns) = if to == Layout::Nhwc { (channels, positions) } else { (positions, channels) };
    let mut out = vec![0.0; values.len()];
    for (out, values) in out.chunks_exact_mut(rows * columns).zip(values.chunks_exact(rows * columns)) {
        crate::strided::transpose(values, columns, out, rows, rows, columns);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_hold_the_same_values() {
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let plain = Parameter::new("w".to_owned(), vec![2, 3, 2, 2], Kind::Weight, values.clone());
        let last = plain.in_layout(Layout::Nhwc, 1);
        assert_eq!(last.value[..6], [0.0, 4.0, 8.0, 1.0, 5.0, 9.0]);
        assert_eq!(last.canonical(&last.value), values);
        assert_eq!(last.restored(&values), last.value);
        let thresholds = Parameter::new("t".to_owned(), vec![3, 2], Kind::Threshold, values[..6].to_vec());
        let thresholds = thresholds.in_layout(Layout::Nhwc, 0);
        assert_eq!(thresholds.value, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        assert_eq!(thresholds.canonical(&thresholds.value), values[..6]);
    }
}
