//! Adaptive Convolutional ReLUs.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

pub mod adarelu;
mod backward_input;
mod backward_weight;
mod blocking;
mod desc;
mod error;
mod forward;
#[allow(unsafe_code)]
mod kernel;
mod layout;
mod panels;
mod parallel;
mod plan;
pub mod reference;
mod stage;
mod taps;
mod weight;
mod workspace;

#[cfg(feature = "internal-testing")]
#[doc(hidden)]
pub use blocking::Tuning;
pub use desc::{ConvDesc, ConvDescBuilder};
pub use error::Error;
pub use kernel::{Isa, ParseIsaError};
pub use layout::Layout;
pub use plan::{Accumulation, BackwardInput, BackwardWeight, ConvRelu, Forward, Pass, Thresholds, Weight};
pub use weight::PackedWeight;
