//! How large a block of positions a pass stages at a time.

use crate::arith::{clamp, max, min};
use crate::geometry::Panels;
use crate::stage::plane_pitch;
use crate::taps::{Axis, Grid};
use crate::tuning::Tuning;

/// A block of at most this many positions is not shrunk to fit a cache. With fewer, a kernel would spend a noticeable share of
/// its time before and after its loop. (No measurement of other numbers is recorded.)
const FEW_POSITIONS: usize = 64;

/// The most elements of a single channel's staged copy, so that offsets fit 32 bits. Blocks shrink to single positions if they
/// must.
const MOST_STAGED: usize = 1 << 24;

/// What a block costs, and the most that it may.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    /// Most positions.
    pub(crate) positions: usize,
    /// Most elements of all that follows. Blocks of a few positions may exceed it.
    pub(crate) len: usize,
    /// Elements per element of a channel's staged copy.
    pub(crate) per_staged: usize,
    /// Elements per position.
    pub(crate) per_position: usize,
}

impl Budget {
    /// A budget that bounds the positions, and the staged copies of `channels` channels.
    pub(crate) const fn staged(positions: usize, len: usize, channels: usize) -> Self {
        Self { positions, len, per_staged: channels, per_position: 0 }
    }
}

/// Finds the size of a block: halves it until it fits, then makes the blocks equal. 30 rows in blocks of at most 16 become two
/// blocks of 15.
pub(crate) struct Halving<'a> {
    axes: &'a [Axis; 3],
    most: usize,
    block: [usize; 3],
}

impl<'a> Halving<'a> {
    /// Begins with the largest block that is one position deep. The final block has at most `most` positions.
    pub(crate) const fn new(axes: &'a [Axis; 3], most: usize) -> Self {
        Self { axes, most: max(most, 1), block: [1, axes[1].positions, axes[2].positions] }
    }

    pub(crate) const fn grid(&self) -> Grid {
        Grid::new(*self.axes, self.block)
    }

    pub(crate) const fn positions(&self) -> usize {
        self.block[1] * self.block[2]
    }

    /// Whether the block is small enough, given whether it `fits` the caches.
    pub(crate) const fn done(&self, fits: bool) -> bool {
        let positions = self.positions();
        positions == 1
            || (positions <= self.most && self.grid().len() <= MOST_STAGED && (positions <= FEW_POSITIONS || fits))
    }

    pub(crate) const fn halve(&mut self) {
        let axis = if self.block[1] > 1 { 1 } else { 2 };
        self.block[axis] = self.block[axis].div_ceil(2);
    }

    pub(crate) const fn balanced(&self) -> [usize; 3] {
        let [_, height, width] = self.block;
        [
            1,
            Panels::of_at_most(self.axes[1].positions, height).max(),
            Panels::of_at_most(self.axes[2].positions, width).max(),
        ]
    }
}

/// The largest block within a budget.
pub(crate) const fn block_size(axes: &[Axis; 3], budget: Budget) -> [usize; 3] {
    let mut halving = Halving::new(axes, budget.positions);
    loop {
        let staged = halving.grid().len().saturating_mul(budget.per_staged);
        let positions = halving.positions().saturating_mul(budget.per_position);
        if halving.done(staged.saturating_add(positions) <= budget.len) {
            return halving.balanced();
        }
        halving.halve();
    }
}

/// How a pass with positions in lanes walks its source: staged planes of some channels for blocks of positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planar {
    pub(crate) block: [usize; 3],
    /// Source channels staged at a time.
    pub(crate) chunk: usize,
    /// Distance of staged planes.
    pub(crate) pitch: usize,
}

impl Planar {
    /// A block has at most `most` positions, and at most those that the tuning allows.
    pub(crate) const fn new(axes: &[Axis; 3], channels: usize, most: usize, tuning: &Tuning) -> Self {
        let block = block_size(axes, Budget::staged(min(most, tuning.positions), tuning.staging_len, channels));
        let pitch = plane_pitch(Grid::new(*axes, block).len());
        let chunk = clamp(tuning.staging_len / pitch, 1, channels);
        Self { block, chunk: Panels::of_at_most(channels, chunk).max(), pitch }
    }

    /// Elements of the staged planes. The last vector may read beyond the last plane, so there is room for it.
    pub(crate) const fn staged_len(&self, lanes: usize) -> usize {
        self.chunk * self.pitch + lanes - 1
    }
}
