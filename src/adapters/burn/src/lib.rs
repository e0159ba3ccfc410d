#![doc = include_str!("../README.md")]
//!
//! # How it is made
//!
//! | what | where |
//! |---|---|
//! | modules and their configurations | `modules.rs`, `padding.rs` |
//! | burn's own modules with our kernels | `convolve.rs` |
//! | functions of tensors | `functions.rs` |
//! | shapes and options as a descriptor, checked | `describe.rs`, `error.rs` |
//! | the operation of a backend | `backend.rs` |
//! | on burn's CPU backend | `flex.rs` |
//! | with gradients | `autodiff.rs` |
//! | other element types and backends | `composed.rs` |

mod autodiff;
pub mod backend;
mod composed;
mod convolve;
mod describe;
mod error;
mod flex;
mod functions;
mod modules;
mod padding;

pub use convolve::Convolve;
pub use error::Error;
pub use functions::{
    conv_relu1d, conv_relu2d, conv_relu3d, conv1d, conv2d, conv3d, try_conv_relu1d, try_conv_relu2d, try_conv_relu3d,
    try_conv1d, try_conv2d, try_conv3d,
};
pub use modules::{ConvRelu1d, ConvRelu1dConfig, ConvRelu2d, ConvRelu2dConfig, ConvRelu3d, ConvRelu3dConfig};
