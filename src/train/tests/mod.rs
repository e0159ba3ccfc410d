//! Tests across modules: [`layers`] one at a time, [`networks`] whole, [`runs`] with their files.

mod layers;
mod networks;
mod runs;
