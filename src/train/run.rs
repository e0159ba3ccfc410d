//! A run directory: everything that a training run leaves behind, and what it takes to go on.
//!
//! | file | what |
//! |---|---|
//! | `config.toml` | the full configuration |
//! | `checkpoint.safetensors` | the newest state, after every epoch and interruption |
//! | `metrics.csv` | one line per epoch, see [`Epoch`] |
//! | `weights.safetensors` | the trained network, once finished |

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::checkpoint::save_weights;
use super::config::Config;
use super::data::Dataset;
use super::error::TrainError;
use super::files;
use super::trainer::{Epoch, Step, Trainer};

/// A directory and the trainer whose state it holds.
pub struct Run {
    directory: PathBuf,
    trainer: Trainer,
}

/// What those who watch a run are shown.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step of the optimiser.
    Step(&'a Step),
    /// A finished epoch, after its files have been written.
    Epoch(&'a Epoch),
}

/// Name of the configuration in a run directory.
pub const CONFIG: &str = "config.toml";
/// Name of the checkpoint.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Name of the figures per epoch.
pub const METRICS: &str = "metrics.csv";
/// Name of the trained network.
pub const WEIGHTS: &str = "weights.safetensors";

impl Run {
    /// Begins a run in a directory that has none, or goes on with the one that is there if `resume` is set and it has the
    /// same configuration.
    ///
    /// # Errors
    ///
    /// [`TrainError`] of the configuration, of files, or of a checkpoint that does not fit.
    pub fn open(directory: &Path, config: &Config, train: &Dataset, resume: bool) -> Result<Self, TrainError> {
        let io = |error| TrainError::io(directory.display(), error);
        let mut trainer = Trainer::new(config, train)?;
        let (checkpoint, settings) = (directory.join(CHECKPOINT), directory.join(CONFIG));
        if settings.exists() && !resume {
            let rule = "it holds a run already: resume it, or choose another directory";
            return Err(TrainError::setting("run directory", directory.display(), rule));
        }
        if checkpoint.exists() {
            trainer.restore(&checkpoint)?;
        } else if settings.exists() {
            // Interrupted before its first checkpoint.
            let found = Self::config(directory)?;
            if !found.is_same_run(config) {
                let rule = "it holds a run with another configuration";
                return Err(TrainError::setting("run directory", directory.display(), rule));
            }
        }
        fs::create_dir_all(directory).map_err(io)?;
        files::write(&settings, config.to_toml().as_bytes())?;
        Ok(Self { directory: directory.to_owned(), trainer })
    }

    /// The configuration of the run in a directory.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`] where there is none, [`TrainError::Data`] where it is damaged.
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

    /// The trainer, to be evaluated or profiled.
    pub fn trainer_mut(&mut self) -> &mut Trainer {
        &mut self.trainer
    }

    /// Trains until all epochs are finished or `observe` breaks off; a checkpoint is written after every epoch and on
    /// breaking off. Whether all epochs are finished.
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
            match self.trainer.epoch(train, test, &mut |step| observe(Event::Step(step)))? {
                Some(epoch) => {
                    self.trainer.save(&checkpoint)?;
                    files::write(&self.directory.join(METRICS), &metrics(self.trainer.history())?)?;
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

/// The figures of epochs as CSV.
fn metrics(history: &[Epoch]) -> Result<Vec<u8>, TrainError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| TrainError::io(METRICS, std::io::Error::other(error));
    history.iter().try_for_each(|epoch| writer.serialize(epoch)).map_err(failed)?;
    writer.into_inner().map_err(|error| TrainError::io(METRICS, error.into_error()))
}
