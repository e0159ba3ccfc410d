//! The adapter as its users see it.

mod autograd;
mod candles_own;
mod errors;
mod files;
mod layers;
mod modules;
mod reference;
mod tensors;
