//! Cuts a caller's workspace into buffers, each aligned to a vector. (A load that crosses from one cache line into the next takes
//! as long as two loads.)
//!
//! A driver lists its buffers once, as [`Buffers`]. Both the length of the workspace and the buffers themselves follow from that
//! list.

/// Elements that [`aligned`] may skip.
pub(crate) const fn slack(lanes: usize) -> usize {
    lanes - 1
}

/// The workspace from its first element on whose address is a multiple of a vector of `lanes`. It skips at most [`slack`]
/// elements.
pub(crate) fn aligned(workspace: &mut [f32], lanes: usize) -> &mut [f32] {
    let skipped = workspace.as_ptr().align_offset(lanes * size_of::<f32>()).min(slack(lanes)).min(workspace.len());
    &mut workspace[skipped..]
}

/// `len` rounded up to whole vectors. Saturates, because layers that no memory could hold are planned as well.
const fn whole(len: usize, lanes: usize) -> usize {
    len.saturating_add(lanes - 1) / lanes * lanes
}

/// Elements from a row of `len` elements to the next. It avoids multiples of 4096 bytes, because such rows would share a few sets
/// of the cache. Saturates.
pub(crate) const fn row_pitch(len: usize) -> usize {
    if len.is_multiple_of(1024) { len.saturating_add(ROW_GAP) } else { len }
}

/// The elements that [`row_pitch`] adds at most: a cache line.
pub(crate) const ROW_GAP: usize = 16;

/// Lengths of consecutive buffers, each in whole vectors of `lanes`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffers<const N: usize> {
    lens: [usize; N],
    lanes: usize,
}

impl<const N: usize> Buffers<N> {
    pub(crate) const fn new(lens: [usize; N], lanes: usize) -> Self {
        Self { lens, lanes }
    }

    /// Elements of all buffers. Saturates.
    pub(crate) const fn len(&self) -> usize {
        let mut sum = 0usize;
        let mut i = 0;
        while i < N {
            sum = sum.saturating_add(whole(self.lens[i], self.lanes));
            i += 1;
        }
        sum
    }

    /// The buffers, with whatever values they hold, and the rest of the workspace.
    ///
    /// # Panics
    ///
    /// If the workspace has fewer than [`len`](Self::len) elements.
    pub(crate) fn carve<'a>(&self, workspace: &'a mut [f32]) -> ([&'a mut [f32]; N], &'a mut [f32]) {
        let mut rest = workspace;
        let buffers = self.lens.map(|len| {
            let (part, behind) = core::mem::take(&mut rest).split_at_mut(whole(len, self.lanes));
            rest = behind;
            &mut part[..len]
        });
        (buffers, rest)
    }
}

/// A buffer seen as offsets, pairs of offsets, or other plain data made of words. Its length must be a multiple of their size.
pub(crate) fn words<T: bytemuck::Pod>(buffer: &mut [f32]) -> &mut [T] {
    bytemuck::cast_slice_mut(buffer)
}
