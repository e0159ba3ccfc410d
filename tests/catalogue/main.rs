//! The catalogue of bad input: every mistake that a caller can make, through the Rust and the C interface, with the error
//! and the sentence that each must give, and proof that nothing was written.

// Other tests use the rest.
#[allow(dead_code, unused_imports)]
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/rehash.rs"]
mod rehash;

// What the tests are made of.
mod call;
mod layer;
mod layers;
mod raw;
mod rows;
mod rust;
mod structs;
mod translate;

// The tests, by what is wrong.
mod descriptors;
mod executors;
mod initialisers;
mod lengths;
mod numbers;
mod only_c;
mod optional;
mod packed;
mod special;
mod thresholds;
