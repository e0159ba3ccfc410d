//! Strided mutable views of tensors, which may have gaps. They split into disjoint parts, so that several threads can fill one
//! tensor.

use core::marker::PhantomData;
use core::ops::Range;

use crate::geometry::{Lattice, Span, Steps, THREADS};
use crate::layout::TensorLayout;

/// A box of a tensor `[image][channel][position]` that this view alone may write. Positions are counted in memory order over
/// depth, height and width, and are all equally far apart.
///
/// # Own
///
/// The elements in a view's claim are its *own*. They lie in the data that [`new`](Self::new) borrowed, and each has a place of
/// its own. No other view claims them, because only `new` and [`cut`](Self::cut) make views. A gap between two elements of the
/// claim is the view's own too, if the view claims all channels and positions between them. Gaps are never written.
pub(crate) struct View<'a> {
    data: *mut f32,
    /// Borrowed and not copied, because the jobs of many threads wait on the stack, and each holds a view.
    tensor: &'a TensorLayout,
    /// The part that this view may write: images, channels, positions.
    claim: [Range<usize>; 3],
    _lifetime: PhantomData<&'a mut [f32]>,
}

/// The number of rests that a view keeps while it is cut into boxes. None if there is only one box.
const HELD: usize = if THREADS { 2 } else { 0 };

/// Cuts a view into boxes.
pub(crate) struct Boxes<'a> {
    rest: View<'a>,
    /// The rest of some channels, and the rest of some images of these channels.
    held: [View<'a>; HELD],
}

impl<'a> Boxes<'a> {
    /// The next box `[images, channels, positions]`. All boxes of some channels must come before those of the next channels, and
    /// among these all boxes of some images before those of the next images. A box out of order gets an empty claim.
    pub(crate) fn next(&mut self, [images, channels, positions]: [Range<usize>; 3]) -> View<'a> {
        let [of_channels, of_images] = &mut self.held[..] else { return self.rest.cut(2, usize::MAX) };
        let new = channels.start >= of_channels.claim[1].end;
        if new {
            *of_channels = self.rest.cut(1, channels.end);
        }
        if new || images.start >= of_images.claim[0].end {
            *of_images = of_channels.cut(0, images.end);
        }
        of_images.cut(2, positions.end)
    }
}

// SAFETY: a view reaches only elements of its own. So to send a view is to send a `&mut [f32]`.
unsafe impl Send for View<'_> {}

impl<'a> View<'a> {
    /// The whole of a tensor.
    ///
    /// # Panics
    ///
    /// If `data` ends before the last element, or the layout does not give every element a place of its own.
    pub(crate) fn new(data: &'a mut [f32], tensor: &'a TensorLayout) -> Self {
        let TensorLayout { images, channels, size: [depth, height, width], image_stride, strides } = *tensor;
        let positions = depth.saturating_mul(height).saturating_mul(width);
        let [d, h, w] = strides.spatial;
        // Saturates, because the check of the data's length below relies on it.
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
        Self { data: data.as_mut_ptr(), tensor, claim, _lifetime: PhantomData }
    }

    /// Cuts off the part before `at` along an axis (0 images, 1 channels, 2 positions). The view keeps the part from `at` on.
    fn cut(&mut self, axis: usize, at: usize) -> View<'a> {
        let at = at.clamp(self.claim[axis].start, self.claim[axis].end);
        let mut claim = self.claim.clone();
        claim[axis].end = at;
        self.claim[axis].start = at;
        View { claim, ..*self }
    }

    /// Cuts the view into boxes, in the order of [`Boxes::next`].
    pub(crate) fn boxes(mut self) -> Boxes<'a> {
        let held = core::array::from_fn(|_| self.cut(1, 0));
        Boxes { rest: self, held }
    }

    /// Extents of an image of the tensor.
    pub(crate) fn size(&self) -> [usize; 3] {
        self.tensor.size
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
        self.element(self.offset(image, channel, position, run))
    }

    /// The element at an [offset](Self::offset), which has found it in the claim.
    #[inline]
    fn element(&self, offset: usize) -> *mut f32 {
        self.data.wrapping_add(offset)
    }

    /// The offset of an element in the tensor.
    ///
    /// # Panics
    ///
    /// As [`at`](Self::at).
    #[inline]
    fn offset(&self, image: usize, channel: usize, position: usize, run: usize) -> usize {
        let [images, channels, positions] = &self.claim;
        assert!(images.contains(&image) && channels.contains(&channel));
        assert!(positions.contains(&position) && run <= positions.end - position);
        let in_image = channel * self.channel_stride() + position * self.position_stride();
        image * self.tensor.image_stride + in_image
    }

    /// Fills `count` elements of one row, `step` positions apart.
    ///
    /// # Panics
    ///
    /// If one of them lies outside the claim.
    pub(crate) fn fill(
        &mut self,
        image: usize,
        channel: usize,
        [d, h, w]: [usize; 3],
        step: usize,
        count: usize,
        value: f32,
    ) {
        let Some(last) = count.checked_sub(1) else { return };
        let [_, height, width] = self.tensor.size;
        assert!(h < height && w < width && last.saturating_mul(step) < width - w);
        let mut next = self.at(image, channel, (d * height + h) * width + w, last * step + 1);
        for _ in 0..count {
            // SAFETY: `at` has found the first element and the last in the claim, so all of them are this view's own.
            unsafe { *next = value };
            // `add` would be undefined behaviour here: after the last element, the pointer may lie beyond the tensor. If the
            // product overflows, `count` is 1 and the pointer is not used again.
            next = next.wrapping_add(step.wrapping_mul(self.position_stride()));
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

    /// Consecutive positions of some channels of an image, a row per channel.
    ///
    /// # Panics
    ///
    /// If some of it lies outside the claim, or there is none.
    pub(crate) fn runs(&mut self, image: usize, channels: Range<usize>, positions: Range<usize>) -> RowsMut<'_> {
        assert!(!positions.is_empty());
        assert!(!channels.is_empty() && channels.end <= self.claim[1].end);
        let offset = self.offset(image, channels.start, positions.start, positions.len());
        let (rows, step, len) = (channels.len(), self.channel_stride(), positions.len());
        RowsMut {
            first: self.element(offset),
            offset,
            rows,
            step,
            len,
            apart: self.position_stride(),
            _lifetime: PhantomData,
        }
    }

    /// Consecutive positions of some channels of an image, `count` times at some distance.
    ///
    /// # Panics
    ///
    /// If one of them lies outside the claim, there is none, or positions are not adjacent in memory.
    pub(crate) fn strips(
        &mut self,
        image: usize,
        channels: Range<usize>,
        [d, h, w]: [usize; 3],
        (apart, count): ([usize; 3], usize),
        len: usize,
    ) -> PixelsMut<'_> {
        assert!(self.position_stride() == 1 && count > 0 && len > 0);
        assert!(!channels.is_empty() && channels.end <= self.claim[1].end);
        let [_, height, width] = self.tensor.size;
        assert!(h < height && w < width);
        let [_, d_step, h_step, step] = self.tensor.steps(apart);
        // Saturates only if there is a single strip, and then no step is taken.
        let step = d_step.saturating_add(h_step).saturating_add(step);
        assert!(len <= step || count == 1);
        let last = (count - 1).saturating_mul(step).saturating_add(len);
        let offset = self.offset(image, channels.start, (d * height + h) * width + w, last);
        let positions = Lattice { counts: [1, 1, channels.len(), count], steps: [[0, 0, self.channel_stride(), step]] };
        PixelsMut { first: self.element(offset), offset, positions, channels: len, _lifetime: PhantomData }
    }

    /// Some channels of a box of positions of some images.
    ///
    /// # Panics
    ///
    /// If one of them lies outside the claim, there is none, or channels are not adjacent in memory.
    pub(crate) fn pixels(&mut self, images: Range<usize>, space: &[Span; 3], channels: Range<usize>) -> PixelsMut<'_> {
        let steps = |span: Span| Steps { first: span.start, step: 1, count: span.len() };
        self.pixels_apart(images, space.map(steps), channels)
    }

    /// As [`pixels`](Self::pixels), for positions at some steps along each axis.
    ///
    /// # Panics
    ///
    /// As [`pixels`](Self::pixels).
    pub(crate) fn pixels_apart(
        &mut self,
        images: Range<usize>,
        space: [Steps; 3],
        channels: Range<usize>,
    ) -> PixelsMut<'_> {
        assert!(self.channel_stride() == 1 && !channels.is_empty() && channels.end <= self.claim[1].end);
        assert!(!images.is_empty() && images.end <= self.claim[0].end);
        let size = self.tensor.size;
        assert!(space.iter().all(|steps| steps.count > 0));
        let last = space.map(|Steps { first, step, count }| first.saturating_add((count - 1).saturating_mul(step)));
        assert!(last.iter().zip(size).all(|(last, size)| *last < size));
        let position = |[d, h, w]: [usize; 3]| (d * size[1] + h) * size[2] + w;
        let [first, last] = [space.map(|steps| steps.first), last].map(position);
        // All positions of the box are between these two.
        let offset = self.offset(images.start, channels.start, first, last - first + 1);
        let [depth, height, width] = space.map(|steps| steps.count);
        let counts = [images.len(), depth, height, width];
        let positions = Lattice { counts, steps: [self.tensor.steps(space.map(|steps| steps.step))] };
        PixelsMut { first: self.element(offset), offset, positions, channels: channels.len(), _lifetime: PhantomData }
    }
}

/// Pixels of a tensor with channels last, borrowed for writing: some channels of a box of positions, which may lie some steps
/// apart. It also describes strips of planes, with columns in the place of channels, and channels in the place of rows.
pub(crate) struct PixelsMut<'a> {
    /// The first channel of the first position. Every position, and `channels` elements from there on, are this borrow's own.
    pub(super) first: *mut f32,
    /// `[image, depth, height, width]`, where they lie from the first on.
    pub(super) positions: Lattice<1>,
    pub(super) channels: usize,
    /// The offset of the first one in the tensor.
    pub(crate) offset: usize,
    _lifetime: PhantomData<&'a mut [f32]>,
}

impl PixelsMut<'_> {
    /// The distance of the last element from the first one. Saturates.
    pub(super) fn last(&self) -> usize {
        self.positions.last(0).saturating_add(self.channels - 1)
    }
}

/// Rows of elements at a constant distance, borrowed for writing.
pub(crate) struct RowsMut<'a> {
    /// The first element of the first row. All elements of the rows are this borrow's own.
    pub(super) first: *mut f32,
    pub(super) rows: usize,
    /// Distance of rows.
    pub(super) step: usize,
    /// Elements of a row.
    pub(super) len: usize,
    /// Distance of the elements of a row.
    pub(super) apart: usize,
    /// The offset of the first one in the tensor, or in the slice.
    pub(crate) offset: usize,
    _lifetime: PhantomData<&'a mut [f32]>,
}

impl<'a> RowsMut<'a> {
    /// Rows of adjacent elements in a slice.
    ///
    /// # Panics
    ///
    /// If the slice ends before the last of them, or they overlap.
    pub(crate) fn of_slice(data: &'a mut [f32], rows: usize, step: usize, len: usize) -> Self {
        // Saturates: what is too long to be computed is too long for the slice.
        let end = rows.saturating_sub(1).saturating_mul(step).saturating_add(len);
        assert!(end <= data.len() || rows == 0);
        assert!(len <= step || rows <= 1);
        Self { first: data.as_mut_ptr(), rows, step, len, apart: 1, offset: 0, _lifetime: PhantomData }
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

    fn all() -> [Steps; 3] {
        SIZE.map(|count| Steps { first: 0, step: 1, count })
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
                    low.fill(n, 0, [0, h, 0], 1, 2, 1.0);
                    high.fill(n, 1, [0, h, 0], 1, 2, 1.0);
                }
            });
        }
    }

    #[test]
    fn pieces_of_a_view_leave_out_the_gaps() {
        for (layout, pitch) in PITCHES {
            covers(layout, pitch, |mut high| {
                let mut low = high.cut(2, 1);
                for (n, c) in (0..2).flat_map(|n| (0..2).map(move |c| (n, c))) {
                    low.fill(n, c, [0; 3], 1, 1, 1.0);
                    high.fill(n, c, [0, 0, 1], 1, 1, 1.0);
                    high.fill(n, c, [0, 1, 0], 1, 2, 1.0);
                }
            });
            covers(layout, pitch, |mut view| match layout {
                Layout::Nchw => {
                    for n in 0..2 {
                        add_one(view.run_mut(n, 0, 0..4));
                        let RowsMut { first, rows, len, .. } = view.runs(n, 1..2, 0..4);
                        assert_eq!([rows, len], [1, 4]);
                        // SAFETY: the borrow is of so many elements.
                        add_one(unsafe { core::slice::from_raw_parts_mut(first, len) });
                    }
                }
                Layout::Nhwc => {
                    for n in 0..2 {
                        let PixelsMut { first, positions, channels, .. } = view.pixels_apart(n..n + 1, all(), 0..2);
                        let [_, _, row, column] = positions.steps[0];
                        assert_eq!((channels, row, column), (2, 2 * pitch, pitch));
                        for (h, w) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                            // SAFETY: the borrow is of so many pixels.
                            add_one(unsafe { core::slice::from_raw_parts_mut(first.add(h * row + w * column), 2) });
                        }
                    }
                }
            });
        }
    }

    #[test]
    fn strips_are_columns_of_planes() {
        for pitch in [8, 11] {
            covers(Layout::Nchw, pitch, |mut view| {
                for (n, w) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let PixelsMut { first, positions, channels, .. } =
                        view.strips(n, 0..2, [0, 0, w], ([0, 1, 0], 2), 1);
                    assert_eq!((positions.counts, positions.steps[0], channels), ([1, 1, 2, 2], [0, 0, 4, 2], 1));
                    for at in [0, 2, 4, 6] {
                        // SAFETY: the borrow is of a column of two planes.
                        unsafe { *first.add(at) += 1.0 };
                    }
                }
            });
        }
    }

    #[test]
    #[should_panic]
    fn strips_that_overlap_are_refused() {
        let mut data = [0.0; 8];
        let tensor = TensorLayout::new(Layout::Nchw, 1, 2, SIZE, 8);
        let mut view = View::new(&mut data, &tensor);
        view.strips(0, 0..2, [0; 3], ([0, 0, 1], 2), 2);
    }

    #[test]
    #[should_panic]
    fn a_part_refuses_strips_of_another() {
        let mut data = [0.0; 8];
        let tensor = TensorLayout::new(Layout::Nchw, 1, 2, SIZE, 8);
        let mut low = View::new(&mut data, &tensor).cut(2, 3);
        low.strips(0, 0..2, [0; 3], ([0, 1, 0], 2), 2);
    }

    #[test]
    #[should_panic]
    fn rows_beyond_a_slice_are_refused() {
        RowsMut::of_slice(&mut [0.0; 8], 2, 5, 4);
    }

    #[test]
    #[should_panic]
    fn rows_of_channels_of_another_part_are_refused() {
        let mut data = [0.0; 8];
        let tensor = TensorLayout::new(Layout::Nchw, 1, 2, SIZE, 8);
        let mut low = View::new(&mut data, &tensor).cut(1, 1);
        low.runs(0, 0..2, 0..4);
    }

    #[test]
    #[should_panic]
    fn a_part_refuses_what_is_not_its_own() {
        let mut data = [0.0; 8];
        let tensor = TensorLayout::new(Layout::Nchw, 1, 2, SIZE, 8);
        let mut low = View::new(&mut data, &tensor).cut(1, 1);
        low.fill(0, 1, [0, 0, 0], 1, 1, 1.0);
    }

    #[test]
    #[should_panic]
    fn a_part_refuses_pixels_of_which_it_has_some_channels() {
        let mut data = [0.0; 12];
        let tensor = TensorLayout::new(Layout::Nhwc, 1, 2, SIZE, 3);
        let mut low = View::new(&mut data, &tensor).cut(1, 1);
        low.pixels_apart(0..1, all(), 0..2);
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
