//! An entry of the table of networks.

use super::Input;
use super::builder::Builder;
use crate::train::error::TrainError;
use crate::train::layer::Sequence;

/// A network.
pub(super) struct Entry {
    /// The paper's name, or the usual one.
    pub(super) title: &'static str,
    /// Whether it reads texts. Otherwise it reads images.
    pub(super) reads_text: bool,
    /// The settings of size that apply to it.
    pub(super) sizes: &'static [Size],
    /// Builds its layers.
    pub(super) build: fn(Builder<'_>, Input) -> Result<Sequence, TrainError>,
}

/// A setting of a network's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Growth,
    Depth,
    Features,
    Units,
    Embedding,
    Dropout,
}

impl Entry {
    /// A network that reads images.
    pub(super) const fn images(
        title: &'static str,
        sizes: &'static [Size],
        build: fn(Builder<'_>, Input) -> Result<Sequence, TrainError>,
    ) -> Self {
        Self { title, reads_text: false, sizes, build }
    }
}
