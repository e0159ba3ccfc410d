//! Tables of offsets that kernels follow without further checks.

use core::slice::ChunksExact;

use super::vector::Vector;

/// Offsets into a staged copy, with the largest of them, which a kernel's bounds check needs.
#[derive(Clone, Copy)]
pub(crate) struct Offsets<'a> {
    table: &'a [u32],
    max: usize,
}

impl<'a> Offsets<'a> {
    /// Reads the table once.
    pub(crate) fn new(table: &'a [u32]) -> Self {
        Self { table, max: table.iter().fold(0, |max, &offset| max.max(offset)) as usize }
    }

    pub(super) fn table(&self) -> &'a [u32] {
        self.table
    }

    /// The table in groups of [`Vector::STEPS`], if that is more than one, and the rest.
    #[inline(always)]
    pub(super) fn trips<S: Vector>(&self) -> (ChunksExact<'a, u32>, &'a [u32]) {
        let whole = if S::STEPS == 1 { 0 } else { self.table.len() / S::STEPS * S::STEPS };
        let (trips, rest) = self.table.split_at(whole);
        (trips.chunks_exact(S::STEPS), rest)
    }

    /// The largest offset, or 0 for an empty table.
    pub(super) fn max(&self) -> usize {
        self.max
    }
}
