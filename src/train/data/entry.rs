//! An entry of the table of data sets.

use super::dataset::Dataset;
use super::encoding::Encoding;
use super::request::Request;
use crate::train::error::TrainError;

/// A data set or a format, as its module describes it.
pub(super) struct Entry {
    /// The usual name, for tables and pictures.
    pub(super) title: &'static str,
    /// The default directory of its files. None if it needs no files.
    pub(super) directory: Option<&'static str>,
    /// The default encoding of its texts. None for images.
    pub(super) encoding: Option<Encoding>,
    /// Whether its images can be resized.
    pub(super) resizes: bool,
    /// Loads the training part and the test part.
    pub(super) load: fn(&Request<'_>) -> Result<(Dataset, Dataset), TrainError>,
}

impl Entry {
    /// A data set of images of one size, from files.
    pub(super) const fn images(
        title: &'static str,
        directory: &'static str,
        load: fn(&Request<'_>) -> Result<(Dataset, Dataset), TrainError>,
    ) -> Self {
        Self { title, directory: Some(directory), encoding: None, resizes: false, load }
    }
}
