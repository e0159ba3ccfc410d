//! What the table of data sets says of each.

use super::dataset::Dataset;
use super::encoding::Encoding;
use super::request::Request;
use crate::train::error::TrainError;

/// A data set or a format, as its module describes it.
pub(super) struct Entry {
    /// The usual name, for tables and pictures.
    pub(super) title: &'static str,
    /// Where its files are sought if nobody says; nothing where it needs none.
    pub(super) directory: Option<&'static str>,
    /// How its texts are encoded if nobody says; nothing for images.
    pub(super) encoding: Option<Encoding>,
    /// Whether its images can be resized.
    pub(super) resizes: bool,
    /// Training and test part.
    pub(super) load: fn(&Request<'_>) -> Result<(Dataset, Dataset), TrainError>,
}

impl Entry {
    /// Images of one size, from files.
    pub(super) const fn images(
        title: &'static str,
        directory: &'static str,
        load: fn(&Request<'_>) -> Result<(Dataset, Dataset), TrainError>,
    ) -> Self {
        Self { title, directory: Some(directory), encoding: None, resizes: false, load }
    }
}
