//! Strided mutable views of tensors, gaps and all, that split into disjoint parts, so that threads can fill one tensor.

use core::marker::PhantomData;
use core::ops::Range;

use crate::geometry::{Lattice, Span};
use crate::layout::TensorLayout;

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

/// A box of a tensor `[image][channel][position]` that this view alone may write. Positions are counted in memory order over
/// depth, height and width, and are all equally far apart.
///
/// # Own
///
/// The elements in a view's claim are its *own*: they lie in the data that [`new`](Self::new) borrowed, each in a place of its
/// own, and no other view claims them, because views come from `new` and [`cut`](Self::split) alone. So are the gaps between
/// elements of the claim, where all channels and positions between them are claimed. Gaps are never written.
pub(crate) struct View<'a> {
    data: *mut f32,
    tensor: TensorLayout,
    /// What this view may write: images, channels, positions.
    claim: [Range<usize>; 3],
    _lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: what it reaches is its own, so sending it is sending a `&mut [f32]`.
unsafe impl Send for View<'_> {}

impl<'a> View<'a> {
    /// The whole of a tensor.
    ///
    /// # Panics
    ///
    /// If `data` ends before the last element, or the layout does not give every element a place of its own.
    pub(crate) fn new(data: &'a mut [f32], tensor: &TensorLayout) -> Self {
        let TensorLayout { images, channels, size: [depth, height, width], image_stride, strides } = *tensor;
        let positions = depth.saturating_mul(height).saturating_mul(width);
        let [d, h, w] = strides.spatial;
        // Saturates: what the measure of the data rests on must not wrap.
        let span = |count: usize, stride: usize| count.saturating_sub(1).saturating_mul(stride);
        let last = span(images, image_stride).saturating_add(span(channels, strides.channel));
        let last = last.saturating_add(span(positions, w));
        assert!(last < data.len() || images == 0 || channels == 0 || positions == 0);
        // Free of aliases: pixels of channels beside one another, or planes of positions beside one another.
        let channels_last = strides.channel == 1 && w >= channels && image_stride >= positions.saturating_mul(w);
        let channels_first =
            w == 1 && strides.channel == positions && image_stride >= channels.saturating_mul(positions);
        assert!(channels_last || channels_first);
        assert!(h == w.saturating_mul(width) && d == h.saturating_mul(height));
        let claim = [0..images, 0..channels, 0..positions];
        Self { data: data.as_mut_ptr(), tensor: *tensor, claim, _lifetime: PhantomData }
    }

    /// Cuts off the part before `at` along an axis (0 images, 1 channels, 2 positions); what remains begins there.
    pub(crate) fn cut(&mut self, axis: usize, at: usize) -> View<'a> {
        let at = at.clamp(self.claim[axis].start, self.claim[axis].end);
        let mut claim = self.claim.clone();
        claim[axis].end = at;
        self.claim[axis].start = at;
        View { claim, ..*self }
    }

    /// Distance of positions.
    fn position_stride(&self) -> usize {
        self.tensor.strides.spatial[2]
    }

    fn channel_stride(&self) -> usize {
        self.tensor.strides.channel
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
        let in_image = channel * self.channel_stride() + position * self.position_stride();
        let start = image * self.tensor.image_stride + in_image;
        // SAFETY: the asserts put the element in the claim, which lies in the data that `new` measured.
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
        let [_, height, width] = self.tensor.size;
        assert!(h < height && w < width && last.saturating_mul(step) < width - w);
        let first = self.at(image, channel, (d * height + h) * width + w, last * step + 1);
        // One value is written where this would overflow.
        let stride = step.saturating_mul(self.position_stride());
        // SAFETY: `at` has found the first element and the last in the claim, so all of them are this view's own.
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
        // SAFETY: `at` has found them in the claim, so they are this view's own.
        unsafe {
            match update {
                Update::Set(constant) => for_each(first, self.position_stride(), values, |y, v| *y = v + constant),
                Update::Add => for_each(first, self.position_stride(), values, |y, v| *y += v),
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
            // SAFETY: `at` has found the run in the claim, so it is this view's own.
            *value = unsafe { *first.add(index * self.position_stride()) };
        }
    }

    /// Consecutive positions of one channel, where positions are adjacent in memory.
    ///
    /// # Panics
    ///
    /// If they are not, or one of them lies outside the claim.
    pub(crate) fn run_mut(&mut self, image: usize, channel: usize, positions: Range<usize>) -> &mut [f32] {
        assert!(self.position_stride() == 1);
        let first = self.at(image, channel, positions.start, positions.len());
        // SAFETY: `at` has found the run in the claim, so it is this view's own.
        unsafe { core::slice::from_raw_parts_mut(first, positions.len()) }
    }

    /// All positions of consecutive channels of an image, where positions are adjacent in memory.
    ///
    /// # Panics
    ///
    /// If they are not, or one of them lies outside the claim.
    pub(crate) fn planes_mut(&mut self, image: usize, channels: Range<usize>) -> &mut [f32] {
        let positions = self.tensor.positions();
        assert!(self.position_stride() == 1 && self.channel_stride() == positions && self.claim[2] == (0..positions));
        assert!(!channels.is_empty() && channels.end <= self.claim[1].end);
        let first = self.at(image, channels.start, 0, positions);
        // SAFETY: planes of adjacent channels follow one another, all in the claim, so they are this view's own.
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
        // SAFETY: `at` and the assert have found the first and the last in the claim, so all are this view's own.
        unsafe {
            match update {
                Update::Set(constant) => for_each(first, self.channel_stride(), values, |y, v| *y = v + constant),
                Update::Add => for_each(first, self.channel_stride(), values, |y, v| *y += v),
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
        assert!(self.position_stride() == 1 && !channels.is_empty() && channels.end <= self.claim[1].end);
        let mut tile = TileMut::new(channels.len(), self.channel_stride(), vectors.len(), lanes);
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
    /// If some of it lies outside the claim, channels are not adjacent in memory, or images do not follow one another.
    pub(crate) fn tile_of_images(&mut self, images: Range<usize>, channels: Range<usize>, lanes: usize) -> TileMut<'_> {
        let positions = self.tensor.positions();
        assert!(self.claim[2] == (0..positions) && !images.is_empty() && images.end <= self.claim[0].end);
        assert!(self.tensor.image_stride == positions * self.position_stride());
        let mut tile = self.tile_of_positions(images.start, 0..positions, channels, lanes);
        // The images follow one another, so rows go on at the same distance.
        tile.rows *= images.len();
        tile
    }

    /// All channels of consecutive positions of an image, where channels are adjacent in memory: from the first channel of the
    /// first position to the last of the last, and the gaps between.
    ///
    /// # Panics
    ///
    /// If channels are not adjacent, or one of them lies outside the claim, or there is no position.
    pub(crate) fn pixels_mut(&mut self, image: usize, positions: Range<usize>) -> &mut [f32] {
        let channels = self.tensor.channels;
        assert!(self.channel_stride() == 1 && self.claim[1] == (0..channels) && !positions.is_empty());
        let first = self.at(image, 0, positions.start, positions.len());
        let len = (positions.len() - 1) * self.position_stride() + channels;
        // SAFETY: `at` has found the positions in the claim, which holds all channels, so they and what lies between are
        // this view's own.
        unsafe { core::slice::from_raw_parts_mut(first, len) }
    }

    /// Some channels of a box of positions of some images.
    ///
    /// # Panics
    ///
    /// If one of them lies outside the claim, there is none, or channels are not adjacent in memory.
    pub(crate) fn pixels(&mut self, images: Range<usize>, space: &[Span; 3], channels: Range<usize>) -> PixelsMut<'_> {
        assert!(self.channel_stride() == 1 && !channels.is_empty() && channels.end <= self.claim[1].end);
        assert!(!images.is_empty() && images.end <= self.claim[0].end);
        let size = self.tensor.size;
        assert!(space.iter().zip(size).all(|(span, size)| !span.is_empty() && span.end <= size));
        let position = |[d, h, w]: [usize; 3]| (d * size[1] + h) * size[2] + w;
        let [first, last] = [space.map(|span| span.start), space.map(|span| span.end - 1)].map(position);
        // All positions of the box are between these two.
        let first = self.at(images.start, channels.start, first, last - first + 1);
        let [d, h, w] = self.tensor.strides.spatial;
        let [depth, height, width] = space.map(Span::len);
        let counts = [images.len(), depth, height, width];
        let positions = Lattice { counts, steps: [[self.tensor.image_stride, d, h, w]] };
        PixelsMut { first, positions, channels: channels.len(), _lifetime: PhantomData }
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
        assert!(self.channel_stride() == 1 && !channels.is_empty() && channels.end <= self.claim[1].end);
        assert!(channels.len().is_multiple_of(lanes) && !positions.is_empty());
        let first = self.at(image, channels.start, positions.start, positions.len());
        let mut tile = TileMut::new(positions.len(), self.position_stride(), channels.len() / lanes, lanes);
        for (v, start) in tile.vectors.iter_mut().take(tile.count).enumerate() {
            *start = first.wrapping_add(v * lanes);
        }
        tile
    }
}

/// Pixels of a tensor with channels last, borrowed for writing: some channels of a box of positions.
pub(crate) struct PixelsMut<'a> {
    /// The first channel of the first position. Every position, and `channels` elements from there on, are this borrow's own.
    pub(super) first: *mut f32,
    /// `[image, depth, height, width]`, where they lie from the first on.
    pub(super) positions: Lattice<1>,
    pub(super) channels: usize,
    _lifetime: PhantomData<&'a mut [f32]>,
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
/// In reach: from `first`, `values.len()` elements `stride` apart, which are the caller's [own](View#own).
#[inline(always)]
unsafe fn for_each(first: *mut f32, stride: usize, values: &[f32], update: impl Fn(&mut f32, f32)) {
    if stride == 1 {
        // SAFETY: in reach, and own: consecutive elements are a slice.
        let row = unsafe { core::slice::from_raw_parts_mut(first, values.len()) };
        row.iter_mut().zip(values).for_each(|(y, v)| update(y, *v));
    } else {
        let mut next = first;
        for v in values {
            // SAFETY: in reach, and own: as many are updated as there are values.
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

    const SIZE: [usize; 3] = [1, 2, 2];

    /// Distances of pixels, or of images of two channels: without gaps and with.
    const PITCHES: [(Layout, usize); 4] = [(Layout::Nchw, 8), (Layout::Nchw, 11), (Layout::Nhwc, 2), (Layout::Nhwc, 5)];

    /// Runs `test` on a tensor of two images of two channels; it must add one to each element. No gap changes.
    fn covers(layout: Layout, pitch: usize, test: impl Fn(View<'_>)) {
        let mut data = [0.0; 2 * 4 * 5];
        let tensor = TensorLayout::new(layout, 2, 2, SIZE, pitch);
        // Ends with the last element.
        test(View::new(&mut data[..tensor.len()], &tensor));
        let mut expected = [0.0; 2 * 4 * 5];
        for (n, c, p) in (0..2).flat_map(|n| (0..2).flat_map(move |c| (0..4).map(move |p| (n, c, p)))) {
            expected[n * tensor.image_stride + c * tensor.strides.channel + p * tensor.strides.spatial[2]] = 1.0;
        }
        assert_eq!(data, expected, "{layout:?}, {pitch}");
    }

    fn add_one(values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value += 1.0);
    }

    #[test]
    fn parts_write_their_own_elements() {
        for (layout, pitch) in PITCHES {
            covers(layout, pitch, |mut high| {
                let mut low = high.cut(1, 1);
                for (n, h) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    low.row(n, 0, [0, h, 0], 1, &[1.0, 1.0], Update::Set(0.0));
                    high.row(n, 1, [0, h, 0], 1, &[1.0, 1.0], Update::Add);
                }
            });
        }
    }

    #[test]
    fn pieces_of_a_view_leave_out_the_gaps() {
        for (layout, pitch) in PITCHES {
            covers(layout, pitch, |mut high| {
                let mut low = high.cut(2, 1);
                for n in 0..2 {
                    low.pixel(n, 0, 0, &[1.0, 1.0], Update::Add);
                    for c in 0..2 {
                        high.run(n, c, 1, &[0.5; 3], Update::COPY);
                        let mut read = [0.0; 3];
                        high.load_run(n, c, 1, &mut read);
                        high.run(n, c, 1, &read, Update::Add);
                    }
                }
            });
            covers(layout, pitch, |mut view| match layout {
                Layout::Nchw => {
                    add_one(view.planes_mut(0, 0..2));
                    add_one(view.run_mut(1, 0, 0..4));
                    add_one(view.planes_mut(1, 1..2));
                }
                Layout::Nhwc => {
                    for positions in [0..1, 1..4] {
                        for n in 0..2 {
                            let pixels = view.pixels_mut(n, positions.clone());
                            assert_eq!(pixels.len(), (positions.len() - 1) * pitch + 2);
                            pixels.chunks_mut(pitch).for_each(|pixel| add_one(&mut pixel[..2]));
                        }
                    }
                }
            });
        }
    }

    #[test]
    fn rows_of_tiles_leave_out_the_gaps() {
        for (layout, pitch) in PITCHES {
            covers(layout, pitch, |mut view| {
                for n in 0..2 {
                    for c in 0..2 {
                        view.run(n, c, 0, &[7.0; 4], Update::COPY);
                    }
                }
                // What it clears is what it reaches.
                match layout {
                    Layout::Nchw => {
                        for n in 0..2 {
                            view.tile_of_channels(0..2, [(n, 0), (n, 2)].into_iter(), 2).clear(0..2);
                        }
                    }
                    Layout::Nhwc => {
                        view.tile_of_positions(0, 0..3, 0..2, 2).clear(0..3);
                        view.tile_of_images(0..2, 0..2, 1).clear(3..8);
                    }
                }
                for n in 0..2 {
                    for c in 0..2 {
                        view.run(n, c, 0, &[1.0; 4], Update::Add);
                    }
                }
            });
        }
    }

    #[test]
    #[should_panic]
    fn a_part_refuses_what_is_not_its_own() {
        let mut data = [0.0; 8];
        let tensor = TensorLayout::new(Layout::Nchw, 1, 2, SIZE, 8);
        let mut low = View::new(&mut data, &tensor).cut(1, 1);
        low.row(0, 1, [0, 0, 0], 1, &[1.0], Update::Set(0.0));
    }

    #[test]
    #[should_panic]
    fn a_part_refuses_pixels_of_which_it_has_some_channels() {
        let mut data = [0.0; 12];
        let mut low = View::new(&mut data, &TensorLayout::new(Layout::Nhwc, 1, 2, SIZE, 3)).cut(1, 1);
        low.pixels_mut(0, 0..4);
    }

    #[test]
    #[should_panic]
    fn pixels_that_overlap_are_refused() {
        View::new(&mut [0.0; 8], &TensorLayout::new(Layout::Nhwc, 1, 2, SIZE, 1));
    }

    #[test]
    #[should_panic]
    fn images_that_overlap_are_refused() {
        View::new(&mut [0.0; 16], &TensorLayout::new(Layout::Nchw, 2, 2, SIZE, 7));
    }

    #[test]
    #[should_panic]
    fn data_that_end_too_early_are_refused() {
        let tensor = TensorLayout::new(Layout::Nhwc, 2, 2, SIZE, 5);
        View::new(&mut [0.0; 36], &tensor);
    }
}
