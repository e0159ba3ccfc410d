//! A reference trainer on the crate's own kernels, for the paper's experiments.
//!
//! A [`Config`] (TOML) names a data set ([`data`]), a network with an activation in a region ([`models`]) and how to train;
//! [`Trainer`] trains it, and [`Run`] keeps it in a directory where it can be interrupted and resumed. Networks are sequences of
//! [`Layer`]s, some of which hold sequences of their own ([`DenseBlock`], [`Residual`]). Every layer works with channels first
//! and with channels last.
//!
//! The guide's page [training](crate::guide::training) shows the program, and [extending](crate::guide::extending) says how to
//! add a data set, a network or a layer.
//!
//! One seed gives the same bits on one instruction set, for any number of threads and interruptions. Kernels do not depend on
//! threads, and sums have a fixed order. Random numbers depend on their index (epoch, example, layer), not on what was drawn
//! before. `exp` and `ln` come from the crate `libm`, not from the system. After the first step, a step allocates only what the
//! crate `gemm` needs.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use convrelu::train::models::Activation;
//! use convrelu::train::{Config, Trainer};
//!
//! let mut config = Config::default(); // the bundled digits, a small network
//! config.model.activation = Activation::Convrelu;
//! (config.train.epochs, config.train.batch, config.train.learning_rate) = (1, 32, 0.02);
//! let (train, test) = config.data.load()?;
//! let mut trainer = Trainer::new(&config, &train)?;
//! while !trainer.is_finished() {
//!     trainer.epoch(&train, &test, &mut |_| ControlFlow::Continue(()))?;
//! }
//! assert!(trainer.history()[0].test_accuracy > 0.5);
//! # Ok::<(), convrelu::train::TrainError>(())
//! ```

#![forbid(unsafe_code)]

pub mod checkpoint;
mod config;
mod context;
pub mod data;
mod error;
pub mod files;
mod init;
mod layer;
mod lock;
mod loss;
pub mod models;
mod named;
mod network;
#[cfg(feature = "onnx")]
#[cfg_attr(docsrs, doc(cfg(feature = "onnx")))]
pub mod onnx;
mod optimizer;
mod parameter;
mod random;
pub mod run;
mod shape;
mod shares;
#[cfg(test)]
mod tests;
mod threads;
mod trainer;
mod vectorized;

pub use config::{Config, TrainConfig};
pub use context::{Context, Mode, Profile, ProfilePart};
pub use data::{Augment, DataConfig, Dataset, Encoding, Inventory, Source, Text};
pub use error::{FilePosition, TrainError};
pub use init::{ThresholdInit, WeightInit};
pub use layer::*;
pub use loss::softmax_cross_entropy;
pub use network::Network;
pub use optimizer::{Decay, Memory, Optimizer, Rule, Schedule};
pub use parameter::{Kind, Parameter};
pub use run::{Run, Start};
pub use shape::{Channels, Shape};
pub use trainer::{
    Answers, Epoch, EpochEvent, Evaluation, Progress, Step, Trainer, evaluate, evaluate_watched, input,
    mean_and_deviation, recorded_input,
};
