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

impl Update {
    /// They are replaced by the new value as it is: negative zero adds nothing, not even to negative zero.
    pub(crate) const COPY: Self = Self::Set(-0.0);
}

/// A box of a dense tensor `[image][channel][position]` that this view alone may write. Positions are counted in memory
/// order over depth, height and width.
pub(crate) struct View<'a> {
    data: *mut f32,
    image_stride: usize,
    channel_stride: usize,
    position_stride: usize,
    /// Extents of height and width.
    plane: [usize; 2],
    /// What this view may write: images, channels, positions.
    claim: [Range<usize>; 3],
    _lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view is an exclusive borrow of the elements in its claim, and claims of different views of one tensor are
// disjoint, so sending it is sending a `&mut [f32]`.
unsafe impl Send for View<'_> {}

impl<'a> View<'a> {
    /// The whole of a dense tensor: `images` times `channels` of `size`, whose images follow one another.
    ///
    /// # Panics
    ///
    /// If `data` is shorter than the tensor, or the strides do not give every element a place of its own.
    pub(crate) fn new(data: &'a mut [f32], images: usize, channels: usize, size: [usize; 3], strides: Strides) -> Self {
        let [depth, height, width] = size;
        let positions = depth * height * width;
        let image_stride = channels * positions;
        assert!(images * image_stride <= data.len());
        // Dense and free of aliases: channels beside one another at each position, or whole planes of positions.
        let [d, h, w] = strides.spatial;
        let channels_last = strides.channel == 1 && w == channels;
        let channels_first = w == 1 && strides.channel == positions;
        assert!((channels_last || channels_first) && h == w * width && d == h * height);
        Self {
            data: data.as_mut_ptr(),
            image_stride,
            channel_stride: strides.channel,
            position_stride: w,
            plane: [height, width],
            claim: [0..images, 0..channels, 0..positions],
            _lifetime: PhantomData,
        }
    }

    /// Cuts off the part before `at` along an axis (0 images, 1 channels, 2 positions); what remains begins there.
    pub(crate) fn cut(&mut self, axis: usize, at: usize) -> View<'a> {
        let at = at.clamp(self.claim[axis].start, self.claim[axis].end);
        let mut claim = self.claim.clone();
        claim[axis].end = at;
        self.claim[axis].start = at;
        View { claim, ..*self }
    }

    /// The part before `at` along an axis (0 images, 1 channels, 2 positions) and the part from there.
    pub(crate) fn split(self, axis: usize, at: usize) -> (Self, Self) {
        let at = at.clamp(self.claim[axis].start, self.claim[axis].end);
        let (mut before, mut after) = (self.claim.clone(), self.claim);
        before[axis].end = at;
        after[axis].start = at;
        let with = |claim| Self { claim, ..self };
        (with(before), with(after))
    }

    /// Channels of the tensor, where they are adjacent in memory.
    fn channels(&self) -> usize {
        self.position_stride
    }

    /// The element of an image, a channel and a position.
    ///
    /// # Panics
    ///
    /// If the claim does not hold it and, at the same image and channel, the `run` positions from there.
    #[inline]
    fn at(&self, image: usize, channel: usize, position: usize, run: usize) -> *mut f32 {
        let [images, channels, positions] = &self.claim;
        assert!(images.contains(&image) && channels.contains(&channel));
        assert!(positions.contains(&position) && run <= positions.end - position);
        let start = image * self.image_stride + channel * self.channel_stride + position * self.position_stride;
        // SAFETY: the asserts put the element in the claim, which lies inside the tensor that `new` measured.
        unsafe { self.data.add(start) }
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
        let [height, width] = self.plane;
        assert!(h < height && w < width && last.saturating_mul(step) < width - w);
        let first = self.at(image, channel, (d * height + h) * width + w, last * step + 1);
        // One value is written where this would overflow.
        let stride = step.saturating_mul(self.position_stride);
        // SAFETY: `at` has found the first element and the last in the claim; no other view's claim holds them, because
        // views come from `new` (an exclusive borrow) and `split` alone, and the strides give each element a place of
        // its own.
        unsafe {
            match update {
                Update::Set(constant) => for_each(first, stride, values, |y, v| *y = v + constant),
                Update::Add => for_each(first, stride, values, |y, v| *y += v),
            }
        }
    }

    /// Updates consecutive positions of one channel.
    ///
    /// # Panics
    ///
    /// If one of them lies outside the claim.
    #[inline]
    pub(crate) fn run(&mut self, image: usize, channel: usize, position: usize, values: &[f32], update: Update) {
        if values.is_empty() {
            return;
        }
        let first = self.at(image, channel, position, values.len());
        // SAFETY: as in `row`.
        unsafe {
            match update {
                Update::Set(constant) => for_each(first, self.position_stride, values, |y, v| *y = v + constant),
                Update::Add => for_each(first, self.position_stride, values, |y, v| *y += v),
            }
        }
    }

    /// Reads consecutive positions of one channel.
    ///
    /// # Panics
    ///
    /// If one of them lies outside the claim.
    #[inline]
    pub(crate) fn load_run(&mut self, image: usize, channel: usize, position: usize, values: &mut [f32]) {
        if values.is_empty() {
            return;
        }
        let first = self.at(image, channel, position, values.len());
        for (index, value) in values.iter_mut().enumerate() {
            // SAFETY: `at` has found the run in the claim, which is this borrow's own.
            *value = unsafe { *first.add(index * self.position_stride) };
        }
    }

    /// Consecutive positions of one channel, where positions are adjacent in memory.
    ///
    /// # Panics
    ///
    /// If they are not, or one of them lies outside the claim.
    pub(crate) fn run_mut(&mut self, image: usize, channel: usize, positions: Range<usize>) -> &mut [f32] {
        assert!(self.position_stride == 1);
        let first = self.at(image, channel, positions.start, positions.len());
        // SAFETY: `at` has found the run in the claim, which is this borrow's own.
        unsafe { core::slice::from_raw_parts_mut(first, positions.len()) }
    }

    /// All positions of consecutive channels of an image, where positions are adjacent in memory.
    ///
    /// # Panics
    ///
    /// If they are not, or one of them lies outside the claim.
    pub(crate) fn planes_mut(&mut self, image: usize, channels: Range<usize>) -> &mut [f32] {
        let positions = self.channel_stride;
        assert!(self.position_stride == 1 && self.claim[2] == (0..positions));
        assert!(!channels.is_empty() && channels.end <= self.claim[1].end);
        let first = self.at(image, channels.start, 0, positions);
        // SAFETY: planes of adjacent channels follow one another, all in the claim, which is this borrow's own.
        unsafe { core::slice::from_raw_parts_mut(first, channels.len() * positions) }
    }

    /// Updates consecutive channels of one position.
    ///
    /// # Panics
    ///
    /// If one of them lies outside the claim.
    #[inline]
    pub(crate) fn pixel(&mut self, image: usize, channel: usize, position: usize, values: &[f32], update: Update) {
        assert!(values.len() <= self.claim[1].end.saturating_sub(channel));
        if values.is_empty() {
            return;
        }
        let first = self.at(image, channel, position, 1);
        // SAFETY: as in `row`.
        unsafe {
            match update {
                Update::Set(constant) => for_each(first, self.channel_stride, values, |y, v| *y = v + constant),
                Update::Add => for_each(first, self.channel_stride, values, |y, v| *y += v),
            }
        }
    }

    /// A tile whose rows are `channels` and whose vectors are `lanes` consecutive positions from each (image, position).
    ///
    /// # Panics
    ///
    /// If some of it lies outside the claim, or positions are not adjacent in memory.
    pub(crate) fn tile_of_channels(
        &mut self,
        channels: Range<usize>,
        vectors: impl ExactSizeIterator<Item = (usize, usize)>,
        lanes: usize,
    ) -> TileMut<'_> {
        assert!(self.position_stride == 1 && !channels.is_empty() && channels.end <= self.claim[1].end);
        let mut tile = TileMut::new(channels.len(), self.channel_stride, vectors.len(), lanes);
        for (start, (image, position)) in tile.vectors.iter_mut().zip(vectors) {
            *start = self.at(image, channels.start, position, lanes);
        }
        tile
    }

    /// A tile whose rows are all positions of some images, one image after another, and whose vectors are consecutive
    /// channels.
    ///
    /// # Panics
    ///
    /// If some of it lies outside the claim, or channels are not adjacent in memory.
    pub(crate) fn tile_of_images(&mut self, images: Range<usize>, channels: Range<usize>, lanes: usize) -> TileMut<'_> {
        let positions = self.image_stride / self.channels();
        assert!(self.claim[2] == (0..positions) && !images.is_empty() && images.end <= self.claim[0].end);
        let mut tile = self.tile_of_positions(images.start, 0..positions, channels, lanes);
        // The images follow one another, so rows go on at the same distance.
        tile.rows *= images.len();
        tile
    }

    /// All channels of consecutive positions of an image, where channels are adjacent in memory.
    ///
    /// # Panics
    ///
    /// If they are not, or one of them lies outside the claim.
    pub(crate) fn pixels_mut(&mut self, image: usize, positions: Range<usize>) -> &mut [f32] {
        let channels = self.channels();
        assert!(self.channel_stride == 1 && self.claim[1] == (0..channels));
        let first = self.at(image, 0, positions.start, positions.len());
        // SAFETY: `at` has found the positions in the claim, which is this borrow's own, and they follow one another.
        unsafe { core::slice::from_raw_parts_mut(first, positions.len() * channels) }
    }

    /// A tile whose rows are consecutive positions of an image and whose vectors are consecutive channels.
    ///
    /// # Panics
    ///
    /// If some of it lies outside the claim, or channels are not adjacent in memory.
    pub(crate) fn tile_of_positions(
        &mut self,
        image: usize,
        positions: Range<usize>,
        channels: Range<usize>,
        lanes: usize,
    ) -> TileMut<'_> {
        assert!(self.channel_stride == 1 && !channels.is_empty() && channels.end <= self.claim[1].end);
        assert!(channels.len().is_multiple_of(lanes) && !positions.is_empty());
        let first = self.at(image, channels.start, positions.start, positions.len());
        let mut tile = TileMut::new(positions.len(), self.position_stride, channels.len() / lanes, lanes);
        for (v, start) in tile.vectors.iter_mut().take(tile.count).enumerate() {
            *start = first.wrapping_add(v * lanes);
        }
        tile
    }
}

/// The most vectors of a [`TileMut`].
const MOST_VECTORS: usize = 4;

/// Rows of a few vectors, borrowed for writing: element `(r, v, l)` lies at `vectors[v] + r · row_step + l`.
pub(crate) struct TileMut<'a> {
    pub(super) rows: usize,
    pub(super) row_step: usize,
    /// Vectors in use.
    pub(super) count: usize,
    pub(super) lanes: usize,
    /// Where the first row of each vector begins; all elements of the tile are this borrow's own.
    pub(super) vectors: [*mut f32; MOST_VECTORS],
    _lifetime: PhantomData<&'a mut [f32]>,
}

impl<'a> TileMut<'a> {
    fn new(rows: usize, row_step: usize, count: usize, lanes: usize) -> Self {
        assert!(count <= MOST_VECTORS);
        let vectors = [core::ptr::null_mut(); MOST_VECTORS];
        Self { rows, row_step, count, lanes, vectors, _lifetime: PhantomData }
    }

    /// Zeroes some rows.
    ///
    /// # Panics
    ///
    /// If the tile has no such rows.
    pub(crate) fn clear(&mut self, rows: Range<usize>) {
        assert!(rows.end <= self.rows);
        for row in rows {
            for start in &self.vectors[..self.count] {
                for lane in 0..self.lanes {
                    // SAFETY: the row is one of the tile's, whose elements are this borrow's own.
                    unsafe { start.add(row * self.row_step + lane).write(0.0) };
                }
            }
        }
    }

    /// The first `rows · vectors · lanes` elements of a buffer.
    pub(crate) fn of_slice(data: &'a mut [f32], rows: usize, vectors: usize, lanes: usize) -> Self {
        assert!(rows * vectors * lanes <= data.len());
        let mut tile = Self::new(rows, vectors * lanes, vectors, lanes);
        for (v, start) in tile.vectors.iter_mut().take(vectors).enumerate() {
            *start = data.as_mut_ptr().wrapping_add(v * lanes);
        }
        tile
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
