//! Carving a caller's workspace.

use crate::kernel::Run;

/// Hands out consecutive parts of a workspace. The caller has checked its length against the plan.
pub(crate) struct Arena<'a>(&'a mut [f32]);

impl<'a> Arena<'a> {
    pub(crate) fn new(workspace: &'a mut [f32]) -> Self {
        Self(workspace)
    }

    /// The next `len` elements, with whatever values they hold.
    pub(crate) fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (part, rest) = core::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        part
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
    pub(crate) fn take_runs(&mut self, len: usize) -> &'a mut [Run] {
        bytemuck::cast_slice_mut(self.take(len * size_of::<Run>() / size_of::<f32>()))
    }
}
