//! Limits that plans work under, and names of the algorithms among which they choose.

/// An algorithm of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "internal-testing"), expect(unreachable_pub, reason = "public for tests alone"))]
pub enum ForwardAlgorithm {
    /// Clamped at each load.
    Direct,
    /// Output channels in lanes, valid taps.
    BatchReduce,
    /// One channel per group.
    Depthwise,
    /// Plain loops.
    #[cfg(feature = "internal-testing")]
    Tiny,
}

/// An algorithm of the backward pass of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "internal-testing"), expect(unreachable_pub, reason = "public for tests alone"))]
pub enum BackwardInputAlgorithm {
    /// Input channels in lanes.
    Progressions,
    /// Positions in lanes.
    Planar,
    /// One channel per group.
    Depthwise,
    /// Plain loops.
    #[cfg(feature = "internal-testing")]
    Tiny,
}

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
    /// Least multiply-adds of a thread's part.
    pub part: usize,
    /// Most multiply-adds of a layer that plain loops compute, where no algorithm is given; they compute
    /// no larger ones than by default.
    pub tiny: usize,
    /// The algorithm of the forward pass, where it applies.
    pub forward: Option<ForwardAlgorithm>,
    /// The algorithm of the backward pass of the input, where it applies.
    pub backward_input: Option<BackwardInputAlgorithm>,
    /// Whether the forward pass clamps inputs once for all panels of output channels, where it can; where none is given, the CPU
    /// decides.
    pub packs: Option<bool>,
    /// Columns of depthwise layers with channels first from which on these are in lanes.
    pub strips: usize,
    /// Whether the backward pass of the weight has its own algorithm for depthwise layers.
    pub depthwise: bool,
}

impl Tuning {
    /// A quarter of a 1 MiB second-level cache for the staged source; beside it lie a panel of weights and the block's
    /// results. A part of 2¹⁶ multiply-adds takes a core about 2 µs, which is what waking a thread for it costs.
    pub(crate) const DEFAULT: Self = Self {
        staging_len: 48 * 1024,
        panel: usize::MAX,
        tile: usize::MAX,
        positions: usize::MAX,
        // Of fewer, too many vectors read padding or overlap.
        strips: 24,
        depth: usize::MAX,
        part: 1 << 16,
        tiny: usize::MAX,
        forward: None,
        backward_input: None,
        packs: None,
        depthwise: true,
    };
}

impl Default for Tuning {
    fn default() -> Self {
        Self::DEFAULT
    }
}
