//! Random changes of training images.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::layout::Layout;
use crate::train::shape::Shape;

/// Random changes of a training image, as in torchvision: a crop of the padded image, then a flip.
///
/// Padding is black, a raw value of 0 before normalisation. Axes of one position are not cropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Pixels of padding on each side. A part of the image's size is cut out of the padded image.
    pub crop_padding: usize,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
}

/// A crop of the padded image, and whether it is flipped. `down` and `right` are the distances of its corner from that of the
/// image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CropAndFlip {
    down: isize,
    right: isize,
    flip: bool,
}

impl CropAndFlip {
    pub(super) fn draw(augment: Augment, shape: Shape, rng: &mut ChaCha8Rng) -> Self {
        let mut shift = |extent: usize| {
            // With padding as wide as the image, a crop could miss the image. An axis of one position is not padded.
            let padding = augment.crop_padding.min(extent - 1) as i64;
            rng.random_range(-padding..=padding) as isize
        };
        let (down, right) = (shift(shape.size[1]), shift(shape.size[2]));
        Self { down, right, flip: augment.flip && rng.random() }
    }

    /// Copies the crop of an image. The default value of `T` is the padding.
    pub(super) fn copy<T: Copy + Default>(
        self,
        image: &[T],
        shape: Shape,
        layout: Layout,
        out: &mut [f32],
        value: impl Fn(usize, T) -> f32,
    ) {
        let (channels, [_, height, width]) = (shape.channels, shape.size);
        let (channel_stride, stride) = match layout {
            Layout::Nchw => (shape.positions(), 1),
            Layout::Nhwc => (1, channels),
        };
        for (c, image) in image.chunks_exact(shape.positions()).enumerate() {
            for (d, plane) in image.chunks_exact(height * width).enumerate() {
                for y in 0..height {
                    // To the left of the image and above it, the sum wraps around to a position outside of the image.
                    let source = y.wrapping_add_signed(self.down);
                    let row = if source < height { &plane[source * width..][..width] } else { &[] };
                    let start = c * channel_stride + (d * height + y) * width * stride;
                    for (x, out) in out[start..].iter_mut().step_by(stride).take(width).enumerate() {
                        let x = if self.flip { width - 1 - x } else { x };
                        *out = value(c, row.get(x.wrapping_add_signed(self.right)).copied().unwrap_or_default());
                    }
                }
            }
        }
    }
}
