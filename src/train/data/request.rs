//! What a loader is asked for, and who watches it.

use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::encoding::Encoding;
use crate::train::error::TrainError;

/// Most examples to load of each part; the first ones, or the first after the shuffle of sorted files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of the training part.
    pub train: Option<usize>,
    /// Of the test part.
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
    /// So much of a stage is done, out of so much, which is 0 where it is not known. A break ends the loading within
    /// moments, with [`TrainError::Interrupted`]. Called often, and by several threads.
    fn progress(&self, stage: &str, done: u64, of: u64) -> ControlFlow<()>;

    /// Something that the user should know, and that is no error.
    fn warn(&self, message: &str);
}

/// Loads in silence to the end.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn progress(&self, _: &str, _: u64, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn warn(&self, _: &str) {}
}

/// A data set to be loaded. Each loader takes from it what concerns it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Where its files are.
    pub directory: &'a Path,
    /// Most examples of each part.
    pub limits: Limits,
    /// `[height, width]` that images in folders are resized to.
    pub resize: Option<[usize; 2]>,
    /// How texts are encoded; without it as the loader says.
    pub encoding: Option<Encoding>,
    /// Words with numbers of their own, instead of the most frequent ones of the training part.
    pub vocabulary: Option<&'a [String]>,
    /// Extents of synthetic images.
    pub synthetic: Synthetic,
    /// Who is told what happens.
    pub watch: &'a dyn Watch,
}

impl<'a> Request<'a> {
    /// All that there is in a directory, unwatched.
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

    /// Tells the watcher how far loading is.
    pub(super) fn progress(&self, stage: &str, done: usize, of: usize) -> Result<(), TrainError> {
        match self.watch.progress(stage, done as u64, of as u64) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(TrainError::Interrupted),
        }
    }

    /// Warns where a part of a published data set holds another number of examples than it was published with: a file
    /// that was cut off between two of them is otherwise as good as whole.
    pub(super) fn expect(&self, file: &Path, what: &str, found: usize, published: usize) {
        if found != published {
            let file = file.display();
            self.watch.warn(&format!("{file} holds {found} {what}, the published file holds {published}"));
        }
    }
}
