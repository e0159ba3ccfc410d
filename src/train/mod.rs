//! A reference trainer on the crate's own kernels.
//!
//! Small and plain: [`Network`] is a sequence of [`Layer`]s over batches of dense images, built from a description
//! ([`models`]) in which the activation of each place is data; [`fit`] trains it with SGD on a [`Dataset`].
//!
//! One seed gives the same bits on one instruction set, whatever the number of threads: kernels do not depend on it,
//! random numbers come from ChaCha, and `exp` and `ln` from `libm` rather than from the system.
//!
//! ```
//! use convrelu::train::{Activation, Config, Replacement, digits, fit, models};
//!
//! let (train, test) = digits::load()?;
//! let replacement = Replacement { activation: Activation::ConvRelu, blocks: models::FIRST };
//! let mut network = models::small_cnn(train.shape(), train.classes(), replacement, 1)?;
//! let config = Config { epochs: 1, ..Config::default() };
//! let history = fit(&mut network, &train, &test, &config, |_| {})?;
//! assert!(history[0].test_accuracy > 0.5);
//! # Ok::<(), convrelu::train::TrainError>(())
//! ```

#![forbid(unsafe_code)]

mod data;
pub mod digits;
mod error;
mod init;
mod layer;
mod loss;
pub mod models;
mod network;
mod optimizer;
mod parameter;
#[cfg(test)]
mod tests;
mod trainer;

pub use data::{Dataset, Shape};
pub use error::TrainError;
pub use init::ThresholdInit;
pub use layer::{Context, Conv, Layer, Linear, MaxPool, Mode, Relu, Units};
pub use loss::softmax_cross_entropy;
pub use models::{Activation, Replacement};
pub use network::Network;
pub use optimizer::Sgd;
pub use parameter::{Kind, Parameter};
pub use trainer::{Config, Epoch, evaluate, fit};
