//! The adapter against burn's own convolutions, convrelu's oracle, finite differences and convrelu's trainer.

mod arguments;
mod burns_own;
mod differences;
mod gradients;
mod layer;
mod memory;
mod oracle;
mod weights;
