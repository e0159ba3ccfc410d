//! The limits within which plans choose, and the names of the algorithms.

/// An algorithm of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "internal-testing"), expect(unreachable_pub, reason = "public for tests alone"))]
pub enum ForwardAlgorithm {
    /// Positions in lanes; inputs are clamped when they are loaded.
    Direct,
    /// Output channels in lanes; only taps that read inside are multiplied.
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

/// The limits of a plan. Tests shrink them, so that small layers reach every edge of blocks, panels and tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "internal-testing"), expect(unreachable_pub, reason = "public for tests alone"))]
pub struct Tuning {
    /// The elements of staged source that a thread's block aims for.
    pub staging_len: usize,
    /// The most channels per panel.
    pub panel: usize,
    /// The most vectors of positions, or of channels, per tile.
    pub tile: usize,
    /// The most positions per block.
    pub positions: usize,
    /// The most steps of a sum at a time.
    pub depth: usize,
    /// The least multiply-adds of a task.
    pub part: usize,
    /// The most multiply-adds of a layer that plain loops compute, where no algorithm is given. A number above the default has no
    /// effect.
    pub tiny: usize,
    /// The algorithm of the forward pass, if it can compute the layer.
    pub forward: Option<ForwardAlgorithm>,
    /// The algorithm of the backward pass of the input, if it can compute the layer.
    pub backward_input: Option<BackwardInputAlgorithm>,
    /// Whether the forward pass clamps inputs once for all panels of output channels, where it can. If None, the CPU decides.
    pub packs: Option<bool>,
    /// Whether the forward pass computes panels of one vector of output channels with vectors of half its lanes, where it can: with
    /// one if that holds all channels, else with two. If None, the CPU decides.
    pub halves: Option<bool>,
    /// The least vectors of columns with which depthwise layers with channels first keep columns in lanes.
    pub strips: usize,
    /// Whether the backward pass of the weight has its own algorithm for depthwise layers.
    pub depthwise: bool,
}

impl Tuning {
    /// The limits of plans that are not for tests.
    ///
    /// - The staged source, 192 KiB, takes less than a quarter of a second-level cache of 1 MiB. A panel of weights and the
    ///   results of the block lie beside it.
    /// - A task of 2¹⁶ multiply-adds takes a core about 2 µs. To wake a thread for it costs about as much.
    /// - With fewer than four vectors of columns, too many of them would read padding or overlap.
    pub(crate) const DEFAULT: Self = Self {
        staging_len: 48 * 1024,
        panel: usize::MAX,
        tile: usize::MAX,
        positions: usize::MAX,
        strips: 4,
        depth: usize::MAX,
        part: 1 << 16,
        tiny: usize::MAX,
        forward: None,
        backward_input: None,
        packs: None,
        halves: None,
        depthwise: true,
    };
}

impl Default for Tuning {
    fn default() -> Self {
        Self::DEFAULT
    }
}
