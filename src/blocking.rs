//! How large a block of positions a pass stages at a time.

use crate::backward_input::BackwardInputAlgorithm;
use crate::forward::ForwardAlgorithm;
use crate::kernel::Runs;
use crate::panels::Panels;
use crate::stage::plane_pitch;
use crate::taps::{Axis, Grid};

/// Limits that a plan works under; tests shrink them so that small layers cross every edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "internal-testing"), expect(unreachable_pub, reason = "public for tests alone"))]
pub struct Tuning {
    /// Elements of staged source per thread to aim for.
    pub staging_len: usize,
    /// Most channels per register panel.
    pub panel: usize,
    /// Most vectors of positions per register tile.
    pub tile: usize,
    /// Most positions per block.
    pub positions: usize,
    /// Most steps of a sum at a time.
    pub depth: usize,
    /// The algorithm of the forward pass, where it applies.
    pub forward: Option<ForwardAlgorithm>,
    /// The algorithm of the backward pass of the input, where it applies.
    pub backward_input: Option<BackwardInputAlgorithm>,
    /// Whether the backward pass of the weight has its own algorithm for depthwise layers.
    pub depthwise: bool,
}

impl Default for Tuning {
    /// A quarter of a 1 MiB second-level cache for the staged source; beside it lie a panel of weights and the block's
    /// results.
    fn default() -> Self {
        Self {
            staging_len: 48 * 1024,
            panel: usize::MAX,
            tile: usize::MAX,
            positions: usize::MAX,
            depth: usize::MAX,
            forward: None,
            backward_input: None,
            depthwise: true,
        }
    }
}

/// Positions below which a block is not shrunk for the cache's sake: fewer make the kernels' prologues show.
const FEW_POSITIONS: usize = 64;

/// A single channel's staged copy is kept below this by shrinking blocks to single positions if need be, so that
/// offsets fit 32 bits.
const MOST_STAGED: usize = 1 << 24;

/// The largest block (one position deep) that has at most `most` positions and that `fits`, but no smaller than a few
/// positions.
pub(crate) fn block_size(axes: &[Axis; 3], most: usize, fits: impl Fn(&Grid, usize) -> bool) -> [usize; 3] {
    let (height, width) = (axes[1].positions, axes[2].positions);
    let most = most.max(1);
    // Halving, then balancing: 30 rows in blocks of at most 16 are two blocks of 15.
    let mut block = [1, height, width];
    loop {
        let grid = Grid::new(*axes, block);
        let positions = block[1] * block[2];
        let small_enough =
            positions <= most && grid.len() <= MOST_STAGED && (positions <= FEW_POSITIONS || fits(&grid, positions));
        if small_enough || positions == 1 {
            break;
        }
        if block[1] > 1 {
            block[1] = block[1].div_ceil(2);
        } else {
            block[2] = block[2].div_ceil(2);
        }
    }
    [1, Panels::of_at_most(height, block[1]).max(), Panels::of_at_most(width, block[2]).max()]
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
    /// `most` bounds the positions of a block beside the tuning.
    pub(crate) fn new(axes: &[Axis; 3], channels: usize, most: usize, tuning: &Tuning) -> Self {
        let block = block_size(axes, most.min(tuning.positions), |grid, _| {
            grid.len().saturating_mul(channels) <= tuning.staging_len
        });
        let pitch = plane_pitch(Grid::new(*axes, block).len());
        let chunk = (tuning.staging_len / pitch).clamp(1, channels);
        Self { block, chunk: Panels::of_at_most(channels, chunk).max(), pitch }
    }

    /// Elements of the staged planes, with room for the last vector to run over.
    pub(crate) const fn staged_len(&self, lanes: usize) -> usize {
        self.chunk * self.pitch + lanes - 1
    }

    /// The most elements of one channel of a kernel's result over any block.
    pub(crate) const fn result_len(&self, lanes: usize) -> usize {
        // Row by row, the most that `runs` chooses.
        self.block[1] * self.block[2].next_multiple_of(lanes)
    }
}

/// The runs of a block of `height` rows of `width` positions whose staged rows are `row` apart: row by row, or in one
/// run across the gaps between rows where that takes fewer vectors.
pub(crate) const fn runs(height: usize, width: usize, row: usize, lanes: usize) -> Runs {
    let across = (height - 1) * row + width;
    if across.div_ceil(lanes) < height * width.div_ceil(lanes) || height == 1 {
        Runs { count: 1, len: across, source_step: row, result_step: row }
    } else {
        Runs { count: height, len: width, source_step: row, result_step: width.next_multiple_of(lanes) }
    }
}
