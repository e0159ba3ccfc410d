//! Memory order of tensors, weights and thresholds, and where the images of a batch lie.

/// Memory order of activations, weights and thresholds.
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

/// A batch of images in memory, which may be some channels of a wider tensor. Then a gap follows each pixel (channels last) or
/// each image (channels first). The gaps are neither read nor written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TensorLayout {
    pub(crate) images: usize,
    pub(crate) channels: usize,
    pub(crate) size: [usize; 3],
    /// Elements from an image to the next.
    pub(crate) image_stride: usize,
    pub(crate) strides: Strides,
}

impl TensorLayout {
    /// `pitch` is the distance of two pixels (channels last) or of two images (channels first). It is at least that of a packed
    /// tensor.
    pub(crate) const fn new(layout: Layout, images: usize, channels: usize, size: [usize; 3], pitch: usize) -> Self {
        let [d, h, w] = size;
        let (image_stride, strides) = match layout {
            Layout::Nchw => (pitch, layout.strides(channels, size)),
            Layout::Nhwc => (d * h * w * pitch, layout.strides(pitch, size)),
        };
        Self { images, channels, size, image_stride, strides }
    }

    /// Every `step`-th channel from the first on, `channels` of them.
    pub(crate) const fn every(mut self, step: usize, channels: usize) -> Self {
        self.strides.channel *= step;
        self.channels = channels;
        self
    }

    /// Positions of an image.
    pub(crate) const fn positions(&self) -> usize {
        self.size[0] * self.size[1] * self.size[2]
    }

    /// Elements from the first to the last of an image, gaps between pixels included.
    pub(crate) const fn image_len(&self) -> usize {
        (self.positions() - 1) * self.strides.spatial[2] + (self.channels - 1) * self.strides.channel + 1
    }

    /// Elements from the first to the last of the batch, gaps included; 0 for an empty batch.
    pub(crate) const fn len(&self) -> usize {
        match self.images.checked_sub(1) {
            Some(last) => last * self.image_stride + self.image_len(),
            None => 0,
        }
    }

    /// Elements from an image to the next, and between positions that are `positions` apart along each axis. Saturates: a step
    /// along an axis with a single position is never taken.
    pub(crate) fn steps(&self, positions: [usize; 3]) -> [usize; 4] {
        let [d, h, w] = [0, 1, 2].map(|axis| positions[axis].saturating_mul(self.strides.spatial[axis]));
        [self.image_stride, d, h, w]
    }

    /// Whether this is a tensor with channels last, in which the channels of a position lie together. A tensor with channels
    /// first and a single position counts as channels first, although its channels lie together too.
    pub(crate) const fn channels_last(&self) -> bool {
        self.strides.channel == 1 && self.strides.spatial[2] >= self.channels
    }

    /// One image, up to its last element.
    pub(crate) fn image<'a>(&self, data: &'a [f32], image: usize) -> &'a [f32] {
        &data[image * self.image_stride..][..self.image_len()]
    }
}
