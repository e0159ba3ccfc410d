//! Functions that the commands for trained networks share. They open a run and load its weights.

use std::path::Path;

use convrelu::train::checkpoint::load_weights;
use convrelu::train::run::CHECKPOINT;
use convrelu::train::{Config, Inventory, Network, Run};

use crate::{Failure, Usage};

/// The configuration of a run, and the inventory of its data.
pub(crate) fn open(run: &Path) -> Result<(Config, Option<Inventory>), Failure> {
    let no_run = |error| Usage(format!("RUN {}: it holds no run: {error}", run.display()));
    Ok((Run::config(run).map_err(no_run)?, Run::inventory(run)?))
}

/// Gives a network the weights of a run's checkpoint, or of another file.
pub(crate) fn weigh(network: &mut Network, run: &Path, weights: Option<&Path>) -> Result<(), Failure> {
    match weights {
        Some(path) => load_weights(network, path).map_err(|error| Usage(format!("--weights {error}")).into()),
        None => load_weights(network, &run.join(CHECKPOINT)).map_err(Into::into),
    }
}
