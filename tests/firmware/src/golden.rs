//! The host's results: for each number the f32 nearest to the oracle's, and how far rounding may take a kernel from it.
//!
//! A stage is one result of one pass. Its operands are golden values themselves: whoever runs it puts them in place of
//! its own results, so the bound of one pass ([`convrelu::reference::error_bound`]) is all that may lie between.

use core::ops::Range;

use crate::network::{BATCH, CLASSES, LAYERS, PARAMETERS, TRAINING, TRAINING_OUTPUTS, part};

/// A result of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Outputs of a layer.
    Output(usize),
    /// Gradient of the loss by the logits.
    Loss,
    GradWeight(usize),
    GradBias(usize),
    GradInput(usize),
    GradThresholds(usize),
    /// All parameters after the step.
    Step,
}

/// In the order of a training step.
pub const STAGES: [Stage; 2 + 5 * LAYERS] = {
    let mut stages = [Stage::Step; 2 + 5 * LAYERS];
    let mut layer = 0;
    while layer < LAYERS {
        stages[layer] = Stage::Output(layer);
        let backward = LAYERS + 1 + 4 * (LAYERS - 1 - layer);
        stages[backward] = Stage::GradWeight(layer);
        stages[backward + 1] = Stage::GradBias(layer);
        stages[backward + 2] = Stage::GradInput(layer);
        stages[backward + 3] = Stage::GradThresholds(layer);
        layer += 1;
    }
    stages[LAYERS] = Stage::Loss;
    stages
};

impl Stage {
    /// Numbers of the result.
    pub const fn count(self) -> usize {
        match self {
            Self::Output(layer) => part(&TRAINING_OUTPUTS, layer).end - part(&TRAINING_OUTPUTS, layer).start,
            Self::Loss => BATCH * CLASSES,
            Self::GradWeight(layer) => TRAINING[layer].desc().weight_len(),
            Self::GradBias(layer) => TRAINING[layer].desc().bias_len(),
            Self::GradInput(layer) => TRAINING[layer].desc().input_len(),
            Self::GradThresholds(layer) => TRAINING[layer].desc().threshold_len(),
            Self::Step => PARAMETERS[LAYERS],
        }
    }

    const fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Output(a), Self::Output(b))
            | (Self::GradWeight(a), Self::GradWeight(b))
            | (Self::GradBias(a), Self::GradBias(b))
            | (Self::GradInput(a), Self::GradInput(b))
            | (Self::GradThresholds(a), Self::GradThresholds(b)) => a == b,
            (Self::Loss, Self::Loss) | (Self::Step, Self::Step) => true,
            _ => false,
        }
    }

    /// Where it lies among the numbers of all stages.
    const fn range(self) -> Range<usize> {
        let mut at = 0;
        let mut i = 0;
        while !STAGES[i].is(self) {
            at += STAGES[i].count();
            i += 1;
        }
        at..at + self.count()
    }
}

/// Numbers of all stages.
pub const LEN: usize = Stage::Step.range().end;

/// Bytes of the file: a value and a bound, little-endian, for each number.
pub const BYTES: usize = 8 * LEN;

/// Compares a part of a stage, from its number `first` on, with the host's, and puts the host's in its place.
///
/// Returns whether every number was within its bound. `spoil` is for a test of this test: it moves the last number four
/// bounds away.
#[must_use]
pub fn settle(golden: &[u8; BYTES], stage: Stage, first: usize, values: &mut [f32], spoil: bool) -> bool {
    let start = stage.range().start + first;
    let (records, _) = golden.as_chunks::<8>();
    let mut good = true;
    let mut left = values.len();
    for (value, record) in values.iter_mut().zip(&records[start..]) {
        let [v0, v1, v2, v3, b0, b1, b2, b3] = *record;
        let want = f32::from_le_bytes([v0, v1, v2, v3]);
        let bound = f32::from_le_bytes([b0, b1, b2, b3]);
        left -= 1;
        if spoil && left == 0 {
            *value += 4.0 * bound;
        }
        // In f64, where this difference is exact; a NaN is not within the bound.
        let difference = f64::from(*value) - f64::from(want);
        good &= -f64::from(bound) <= difference && difference <= f64::from(bound);
        *value = want;
    }
    good
}
