//! Memory order of tensors, weights and thresholds.

/// Memory order of activations, weights and thresholds. All tensors are dense.
///
/// | | activations | weight | thresholds |
/// |---|---|---|---|
/// | [`Nchw`](Layout::Nchw) | `N C D H W` (`NCHW`, `NCL`) | `O I D H W` | `I D H W` |
/// | [`Nhwc`](Layout::Nhwc) | `N D H W C` (`NHWC`, `NLC`) | `O D H W I` | `D H W I` |
///
/// `I` counts the channels of one group in the weight and all input channels in the thresholds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Channels before the spatial axes, PyTorch's default.
    #[default]
    Nchw,
    /// Channels last, the order of TensorFlow and XNNPACK.
    Nhwc,
}

/// Element strides of one dense image: `channels` of `[depth, height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strides {
    pub(crate) channel: usize,
    pub(crate) spatial: [usize; 3],
}

impl Layout {
    /// Strides of an image (or of the thresholds, or of one output channel's weight) of `channels` × `size`.
    pub(crate) const fn strides(self, channels: usize, size: [usize; 3]) -> Strides {
        let [_, h, w] = size;
        match self {
            Self::Nchw => Strides { channel: size[0] * h * w, spatial: [h * w, w, 1] },
            Self::Nhwc => Strides { channel: 1, spatial: [h * w * channels, w * channels, channels] },
        }
    }
}
