//! Carving a caller's workspace into buffers that begin where a vector may: loads that cross cache lines cost twice.

use crate::kernel::PatchRun;

/// Elements that [`aligned`] may skip.
pub(crate) const fn slack(lanes: usize) -> usize {
    lanes - 1
}

/// A workspace from the first element on whose address is a multiple of a vector of `lanes`: at most [`slack`] later.
pub(crate) fn aligned(workspace: &mut [f32], lanes: usize) -> &mut [f32] {
    let skipped = workspace.as_ptr().align_offset(lanes * size_of::<f32>()).min(slack(lanes)).min(workspace.len());
    &mut workspace[skipped..]
}

/// Whole vectors. Saturates, as the layers that no memory could hold show.
pub(crate) const fn whole(len: usize, lanes: usize) -> usize {
    len.saturating_add(lanes - 1) / lanes * lanes
}

/// Elements of buffers that an [`Arena`] hands out.
pub(crate) const fn total<const N: usize>(lens: [usize; N], lanes: usize) -> usize {
    let mut sum = 0usize;
    let mut i = 0;
    while i < N {
        sum = sum.saturating_add(whole(lens[i], lanes));
        i += 1;
    }
    sum
}

/// Hands out consecutive parts of a workspace, each in whole vectors. The caller has checked its length against the
/// plan.
pub(crate) struct Arena<'a> {
    rest: &'a mut [f32],
    lanes: usize,
}

impl<'a> Arena<'a> {
    pub(crate) fn new(workspace: &'a mut [f32], lanes: usize) -> Self {
        Self { rest: workspace, lanes }
    }

    /// The next `len` elements, with whatever values they hold.
    pub(crate) fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (part, rest) = core::mem::take(&mut self.rest).split_at_mut(whole(len, self.lanes));
        self.rest = rest;
        &mut part[..len]
    }

    /// What has not been taken.
    pub(crate) fn rest(self) -> &'a mut [f32] {
        self.rest
    }

    /// The next `len` elements as offsets.
    pub(crate) fn take_offsets(&mut self, len: usize) -> &'a mut [u32] {
        bytemuck::cast_slice_mut(self.take(len))
    }

    /// The next `len` pairs of offsets.
    pub(crate) fn take_pairs(&mut self, len: usize) -> &'a mut [[u32; 2]] {
        bytemuck::cast_slice_mut(self.take(2 * len))
    }

    /// The next `len` runs of patches.
    pub(crate) fn take_runs(&mut self, len: usize) -> &'a mut [PatchRun] {
        bytemuck::cast_slice_mut(self.take(len * size_of::<PatchRun>() / size_of::<f32>()))
    }
}
