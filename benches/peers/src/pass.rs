//! The passes that are compared.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pass {
    Forward,
    /// Ours with the gradient of the thresholds, the peers' of the input alone.
    BackwardInput,
    /// With the gradient of the bias.
    BackwardWeight,
}

impl Pass {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::BackwardInput => "backward-input",
            Self::BackwardWeight => "backward-weight",
        }
    }
}
