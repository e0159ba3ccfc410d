//! A run directory: all that a training run leaves behind, and all that it needs to continue.
//!
//! | file | what |
//! |---|---|
//! | `config.toml` | the full configuration |
//! | `data.json` | classes, numbers of examples and vocabulary of the data, and what an example is, see [`Inventory`] |
//! | `checkpoint.safetensors` | the newest state, after every epoch and interruption |
//! | `metrics.csv` | one line per epoch, see [`Epoch`] |
//! | `units.csv` | one line per epoch and layer: its dead units and all its units, see [`LayerUnits`] |
//! | `weights.safetensors` | the trained network, once finished |
//! | `lock` | the number of the process that writes the run; the process keeps the file locked from [`Run::open`] on |

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::checkpoint::{load_weights, save_weights};
use super::config::Config;
use super::data::{Dataset, Inventory};
use super::error::{FilePosition, TrainError};
use super::files;
use super::layer::LayerUnits;
use super::lock::Lock;
use super::trainer::{Epoch, EpochEvent, Trainer};

/// A directory and the trainer whose state it holds. No other process can write the directory while this value lives.
pub struct Run {
    directory: PathBuf,
    trainer: Trainer,
    _lock: Lock,
}

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// A new run with initial values, in a directory that holds none.
    New,
    /// A new run with the weights of a file, in a directory that holds none. The first checkpoint holds these weights and is
    /// written before training begins, so that the run no longer needs the file.
    Weights(&'a Path),
    /// The run in the directory continues. If there is none, it begins as with [`New`](Self::New). The run may get more epochs
    /// than it began with. The remaining epochs then have the learning rates of a run with that number.
    Resume,
}

/// An event of a run, for its observer.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step of the optimiser, or a batch of the test that ends an epoch.
    Within(EpochEvent<'a>),
    /// A finished epoch, after its files have been written.
    Epoch(&'a Epoch),
}

/// Name of the configuration in a run directory.
pub const CONFIG: &str = "config.toml";
/// Name of the inventory of the data.
pub const DATA: &str = "data.json";
/// Name of the checkpoint.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Name of the figures per epoch.
pub const METRICS: &str = "metrics.csv";
/// Name of the units per epoch and layer.
pub const UNITS: &str = "units.csv";
/// Name of the trained network.
pub const WEIGHTS: &str = "weights.safetensors";

impl Run {
    /// Opens the run of a directory with both parts of its data (training and test), and keeps other processes from writing it.
    ///
    /// # Errors
    ///
    /// [`TrainError`] of the configuration, of files, of a checkpoint that does not fit, and of data other than those with which
    /// the run began. [`TrainError::Busy`] if another process writes the run.
    pub fn open(
        directory: &Path,
        config: &Config,
        [train, test]: [&Dataset; 2],
        start: Start<'_>,
    ) -> Result<Self, TrainError> {
        let mut trainer = Trainer::new(config, train)?;
        if let Start::Weights(path) = start {
            load_weights(trainer.network_mut(), path)?;
        }
        fs::create_dir_all(directory).map_err(|error| TrainError::io(directory.display(), error))?;
        let lock = Lock::take(directory)?;
        let (checkpoint, settings) = (directory.join(CHECKPOINT), directory.join(CONFIG));
        let occupied = settings.exists() || checkpoint.exists();
        if occupied && start != Start::Resume {
            let rule = "it holds a run already: resume it, or choose another directory";
            return Err(TrainError::setting("out", directory.display(), rule));
        }
        let found = Inventory::of(train, test);
        if occupied && let Some(inventory) = Self::inventory(directory)? {
            inventory.check(&found, &config.data.origin())?;
        }
        if checkpoint.exists() {
            trainer.restore(&checkpoint)?;
        } else if settings.exists() && !config.continues(&Self::config(directory)?) {
            // The run was interrupted before its first checkpoint.
            let rule = "it holds a run with another configuration";
            return Err(TrainError::setting("resume", directory.display(), rule));
        }
        if occupied {
            files::remove_partial(directory, &[CONFIG, DATA, CHECKPOINT, METRICS, UNITS, WEIGHTS]);
        }
        let inventory = serde_json::to_vec(&found).map_err(|error| TrainError::io(DATA, error.into()))?;
        files::write(&directory.join(DATA), &inventory)?;
        if let Start::Weights(_) = start {
            trainer.save(&checkpoint)?;
        }
        files::write(&settings, config.to_toml().as_bytes())?;
        Ok(Self { directory: directory.to_owned(), trainer, _lock: lock })
    }

    /// The inventory of the data of the run in a directory. None if the run began with a version that did not write one.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`], [`TrainError::Data`] if the file is damaged.
    pub fn inventory(directory: &Path) -> Result<Option<Inventory>, TrainError> {
        let path = directory.join(DATA);
        if !path.exists() {
            return Ok(None);
        }
        let broken = |error| TrainError::data(path.display(), FilePosition::Whole, error);
        serde_json::from_str(&files::read_text(&path)?).map(Some).map_err(broken)
    }

    /// The configuration of the run in a directory.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`] if there is none, [`TrainError::Data`] if it is damaged.
    pub fn config(directory: &Path) -> Result<Config, TrainError> {
        let path = directory.join(CONFIG);
        Config::from_toml(&path.display().to_string(), &files::read_text(&path)?)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// The trainer, for evaluation or profiling.
    pub fn trainer_mut(&mut self) -> &mut Trainer {
        &mut self.trainer
    }

    /// Trains until all epochs are finished or `observe` interrupts. Writes a checkpoint after every epoch and when interrupted.
    /// Returns whether all epochs are finished.
    ///
    /// # Errors
    ///
    /// [`TrainError`] of training and of files.
    pub fn train(
        &mut self,
        train: &Dataset,
        test: &Dataset,
        mut observe: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<bool, TrainError> {
        let checkpoint = self.directory.join(CHECKPOINT);
        let mut going = true;
        while going && !self.trainer.is_finished() {
            match self.trainer.epoch(train, test, &mut |event| observe(Event::Within(event)))? {
                Some(epoch) => {
                    self.trainer.save(&checkpoint)?;
                    let history = self.trainer.history();
                    files::write(&self.directory.join(METRICS), &csv(METRICS, history.iter().map(figures))?)?;
                    files::write(&self.directory.join(UNITS), &csv(UNITS, history.iter().flat_map(units))?)?;
                    going = observe(Event::Epoch(&epoch)).is_continue();
                }
                None => {
                    self.trainer.save(&checkpoint)?;
                    going = false;
                }
            }
        }
        if self.trainer.is_finished() {
            save_weights(self.trainer.network(), &self.directory.join(WEIGHTS))?;
        }
        Ok(self.trainer.is_finished())
    }
}

/// The figures of an epoch without its layers, for which a line of CSV has no room.
fn figures(epoch: &Epoch) -> Epoch {
    Epoch { units_by_layer: Vec::new(), ..epoch.clone() }
}

/// A line of [`UNITS`].
#[derive(Serialize)]
struct UnitsLine<'a> {
    epoch: usize,
    layer: &'a str,
    dead: usize,
    total: usize,
}

/// The units of an epoch.
fn units(epoch: &Epoch) -> impl Iterator<Item = UnitsLine<'_>> {
    let number = epoch.epoch;
    epoch.units_by_layer.iter().map(move |LayerUnits { layer, dead, total }| UnitsLine {
        epoch: number,
        layer,
        dead: *dead,
        total: *total,
    })
}

/// Lines as CSV, below the names of their fields.
fn csv<T: Serialize>(file: &str, mut lines: impl Iterator<Item = T>) -> Result<Vec<u8>, TrainError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| TrainError::io(file, std::io::Error::other(error));
    lines.try_for_each(|line| writer.serialize(line)).map_err(failed)?;
    writer.into_inner().map_err(|error| TrainError::io(file, error.into_error()))
}
