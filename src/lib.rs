//! Adaptive Convolutional ReLUs.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

pub mod adarelu;
mod desc;
mod error;
#[allow(unsafe_code)]
mod kernel;
mod layout;
mod plan;
pub mod reference;
mod weight;

pub use desc::{ConvDesc, ConvDescBuilder};
pub use error::Error;
pub use kernel::{Isa, ParseIsaError};
pub use layout::Layout;
pub use plan::{Accumulation, BackwardInput, BackwardWeight, ConvRelu, Forward, Pass, Thresholds, Weight};
pub use weight::PackedWeight;
