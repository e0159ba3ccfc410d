//! Carving a caller's workspace.

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
}
