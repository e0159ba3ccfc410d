//! One line of the table, and of files of comma-separated values.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::ours::Theta;
use crate::pass::{LayoutName, Pass};
use crate::peer::Peer;

/// What holds for all rows of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) isa: String,
    pub(crate) threads: usize,
    pub(crate) theta: Theta,
    pub(crate) clock: Clock,
}

/// Us and one peer, or us alone. The fields are the columns of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) shape: String,
    pub(crate) pass: Pass,
    pub(crate) layout: LayoutName,
    pub(crate) isa: String,
    pub(crate) threads: usize,
    pub(crate) ours_us: f64,
    pub(crate) peer: Peer,
    pub(crate) peer_us: Option<f64>,
    /// The peer's time / ours.
    pub(crate) ratio: Option<f64>,
    /// Ours, where there is a roof to compare with.
    pub(crate) peak_percent: Option<f64>,
    pub(crate) theta: Theta,
    pub(crate) clock: Clock,
    /// Names need not be unique, notations are.
    pub(crate) notation: String,
}

impl Row {
    pub(crate) fn setting(&self) -> Setting {
        Setting { isa: self.isa.clone(), threads: self.threads, theta: self.theta, clock: self.clock }
    }
}

/// Reads a file that an earlier run has written.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>, String> {
    let named = |error: csv::Error| format!("{}: {error}", path.display());
    csv::Reader::from_path(path).map_err(named)?.deserialize().collect::<Result<_, _>>().map_err(named)
}
