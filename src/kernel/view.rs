//! Strided mutable views of dense tensors that split into disjoint parts, so that threads can fill one tensor.

use core::marker::PhantomData;
use core::ops::Range;

use crate::layout::Strides;

/// What happens to the values already in a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Update {
    /// They are replaced by the new value plus a constant.
    Set(f32),
    /// The new value is added.
    Add,
}

/// A box of a dense tensor `[image][channel][depth][height][width]` that this view alone may write.
pub(crate) struct View<'a> {
    data: *mut f32,
    image_stride: usize,
    strides: Strides,
    /// What this view may write: images, channels, depth, height, width.
    claim: [Range<usize>; 5],
    _lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view is an exclusive borrow of the elements in its claim, and claims of different views of one tensor are
// disjoint, so sending it is sending a `&mut [f32]`.
unsafe impl Send for View<'_> {}

impl<'a> View<'a> {
    /// The whole of a dense tensor: `images` times `channels` of `size`, whose images lie `image_stride` apart.
    ///
    /// # Panics
    ///
    /// If `data` is shorter than the tensor, or the strides do not give every element a place of its own.
    pub(crate) fn new(data: &'a mut [f32], images: usize, channels: usize, size: [usize; 3], strides: Strides) -> Self {
        let len = channels * size[0] * size[1] * size[2];
        assert!(images * len <= data.len());
        // Dense and free of aliases: sorted by stride, each axis steps over all that the ones before it cover. Both
        // layouts pass; an axis of extent 1 steps over nothing.
        let [d, h, w] = strides.spatial;
        let channels_last = strides.channel == 1 && w == channels && h == w * size[2] && d == h * size[1];
        let channels_first = w == 1 && h == size[2] && d == h * size[1] && strides.channel == d * size[0];
        assert!(channels_last || channels_first);
        let [depth, height, width] = size;
        Self {
            data: data.as_mut_ptr(),
            image_stride: len,
            strides,
            claim: [0..images, 0..channels, 0..depth, 0..height, 0..width],
            _lifetime: PhantomData,
        }
    }

    /// The part before `at` along an axis (0 images, 1 channels, 2 to 4 depth, height, width) and the part from there.
    pub(crate) fn split(self, axis: usize, at: usize) -> (Self, Self) {
        let at = at.clamp(self.claim[axis].start, self.claim[axis].end);
        let (mut before, mut after) = (self.claim.clone(), self.claim);
        before[axis].end = at;
        after[axis].start = at;
        let with = |claim| Self { claim, ..self };
        (with(before), with(after))
    }

    /// Indices this view may write along an axis.
    pub(crate) fn claim(&self, axis: usize) -> Range<usize> {
        self.claim[axis].clone()
    }

    /// Updates `values.len()` elements of one row, `step` positions apart.
    ///
    /// # Panics
    ///
    /// If one of them lies outside the claim.
    #[inline]
    pub(crate) fn row(
        &mut self,
        image: usize,
        channel: usize,
        [d, h, w]: [usize; 3],
        step: usize,
        values: &[f32],
        update: Update,
    ) {
        let Some(last) = values.len().checked_sub(1) else { return };
        let [images, channels, depth, height, width] = &self.claim;
        assert!(images.contains(&image) && channels.contains(&channel));
        assert!(depth.contains(&d) && height.contains(&h) && width.contains(&w));
        assert!(last.saturating_mul(step) < width.end - w);
        let spatial = self.strides.spatial;
        let start = image * self.image_stride
            + channel * self.strides.channel
            + d * spatial[0]
            + h * spatial[1]
            + w * spatial[2];
        // SAFETY: the asserts put every element in the claim, which lies inside the tensor that `new` measured; no
        // other view's claim holds it, because views come from `new` (an exclusive borrow) and `split` alone, and the
        // strides give each element a place of its own.
        let first = unsafe { self.data.add(start) };
        // One value is written where this would overflow.
        let stride = step.saturating_mul(spatial[2]);
        // SAFETY: as above, from the first element to the last.
        unsafe {
            match update {
                Update::Set(constant) => for_each(first, stride, values, |y, v| *y = v + constant),
                Update::Add => for_each(first, stride, values, |y, v| *y += v),
            }
        }
    }
}

/// Applies `update` to elements `stride` apart.
///
/// # Safety
///
/// From `first`, `values.len()` elements `stride` apart are writable, and no one else reads or writes them meanwhile.
#[inline(always)]
unsafe fn for_each(first: *mut f32, stride: usize, values: &[f32], update: impl Fn(&mut f32, f32)) {
    if stride == 1 {
        // SAFETY: the caller's, for consecutive elements.
        let row = unsafe { core::slice::from_raw_parts_mut(first, values.len()) };
        row.iter_mut().zip(values).for_each(|(y, v)| update(y, *v));
    } else {
        let mut next = first;
        for v in values {
            // SAFETY: the caller's.
            update(unsafe { &mut *next }, *v);
            // Not `add`: after the last element it may point beyond the tensor.
            next = next.wrapping_add(stride);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    #[test]
    fn parts_write_their_own_elements() {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let mut data = [0.0; 2 * 3 * 4];
            let strides = layout.strides(3, [1, 2, 2]);
            let (mut low, mut high) = View::new(&mut data, 2, 3, [1, 2, 2], strides).split(1, 1);
            for (n, h) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                low.row(n, 0, [0, h, 0], 1, &[1.0, 1.0], Update::Set(0.0));
                for c in 1..3 {
                    high.row(n, c, [0, h, 0], 1, &[1.0, 1.0], Update::Add);
                }
            }
            assert_eq!(data, [1.0; 24]);
        }
    }

    #[test]
    #[should_panic]
    fn a_part_refuses_what_is_not_its_own() {
        let mut data = [0.0; 8];
        let strides = Layout::Nchw.strides(2, [1, 2, 2]);
        let (mut low, _high) = View::new(&mut data, 1, 2, [1, 2, 2], strides).split(1, 1);
        low.row(0, 1, [0, 0, 0], 1, &[1.0], Update::Set(0.0));
    }
}
