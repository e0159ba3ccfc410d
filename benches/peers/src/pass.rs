//! What is compared: passes and layouts, as options and tables name them.

use clap::ValueEnum;
use convrelu::Layout;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pass {
    Forward,
    /// Ours with the gradient of the thresholds, the peers' of the input alone.
    BackwardInput,
    /// With the gradient of the bias.
    BackwardWeight,
}

impl Pass {
    pub(crate) const ALL: [Self; 3] = [Self::Forward, Self::BackwardInput, Self::BackwardWeight];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::BackwardInput => "backward-input",
            Self::BackwardWeight => "backward-weight",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LayoutName {
    Nchw,
    Nhwc,
}

impl LayoutName {
    pub(crate) const ALL: [Self; 2] = [Self::Nchw, Self::Nhwc];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nchw => "nchw",
            Self::Nhwc => "nhwc",
        }
    }

    pub(crate) fn layout(self) -> Layout {
        match self {
            Self::Nchw => Layout::Nchw,
            Self::Nhwc => Layout::Nhwc,
        }
    }
}
