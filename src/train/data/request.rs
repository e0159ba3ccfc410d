//! The request that a loader answers, and its watcher.

use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::encoding::Encoding;
use crate::train::error::TrainError;

/// The largest numbers of examples to load. They are the first ones, after the shuffle if the files are sorted by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For the training part.
    pub train: Option<usize>,
    /// For the test part.
    pub test: Option<usize>,
}

/// Extents and numbers of synthetic images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Synthetic {
    /// Channels.
    pub channels: usize,
    /// `[height, width]`.
    pub size: [usize; 2],
    /// Classes.
    pub classes: usize,
    /// Images of the training part.
    pub train: usize,
    /// Images of the test part.
    pub test: usize,
    /// Seed of the values.
    pub seed: u64,
}

impl Default for Synthetic {
    /// CIFAR-10's extents.
    fn default() -> Self {
        Self { channels: 3, size: [32, 32], classes: 10, train: 1024, test: 256, seed: 0 }
    }
}

/// Watches a data set while it is loaded.
pub trait Watch: Sync {
    /// A stage has come as far as `done`, out of `of`. If the end is not known, `of` is 0. A break soon ends the loading with
    /// [`TrainError::Interrupted`]. Several threads call this often.
    fn progress(&self, stage: &str, done: u64, of: u64) -> ControlFlow<()>;

    /// A message for the user that is not an error.
    fn warn(&self, message: &str);
}

/// A watcher that ignores all and never interrupts.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn progress(&self, _: &str, _: u64, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn warn(&self, _: &str) {}
}

/// A request for a data set. Each loader uses the fields that apply to it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The directory of its files.
    pub directory: &'a Path,
    /// The largest numbers of examples.
    pub limits: Limits,
    /// `[height, width]` that images in folders are resized to.
    pub resize: Option<[usize; 2]>,
    /// How texts are encoded. If None, the loader decides.
    pub encoding: Option<Encoding>,
    /// Words with numbers of their own. If None, they are the most frequent words of the training part.
    pub vocabulary: Option<&'a [String]>,
    /// Extents of synthetic images.
    pub synthetic: Synthetic,
    /// The watcher.
    pub watch: &'a dyn Watch,
}

impl<'a> Request<'a> {
    /// A request for all examples of a directory, without a watcher.
    pub fn new(directory: &'a Path) -> Self {
        Self {
            directory,
            limits: Limits::default(),
            resize: None,
            encoding: None,
            vocabulary: None,
            synthetic: Synthetic::default(),
            watch: &Unwatched,
        }
    }

    /// Reports progress to the watcher.
    pub(super) fn progress(&self, stage: &str, done: usize, of: usize) -> Result<(), TrainError> {
        match self.watch.progress(stage, done as u64, of as u64) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(TrainError::Interrupted),
        }
    }

    /// Warns if a file of a published data set holds another number of examples than the published file. If a file was cut off
    /// between two examples, nothing else shows it.
    pub(super) fn expect(&self, file: &Path, what: &str, found: usize, published: usize) {
        if found != published {
            let file = file.display();
            self.watch.warn(&format!("{file} holds {found} {what}, the published file holds {published}"));
        }
    }
}
