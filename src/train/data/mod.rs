//! Labelled examples in memory, and the formats they come in.
//!
//! [`DataConfig`] names a data set and loads it. Examples are kept as they are in their files, a byte a pixel, and
//! normalised and augmented when they are read.
//!
//! | what | where |
//! |---|---|
//! | the table of data sets, and the settings that choose one | `source.rs` |
//! | what a loader is asked for, and who watches it | `request.rs` |
//! | a loader: a file of its own | `digits.rs`, `idx.rs`, `cifar.rs`, `folder.rs`, `text.rs`, `synthetic.rs` |
//! | finding and reading files | `files.rs` |
//! | image data sets as Parquet files: their names; their rows (feature `parquet`) | `hub.rs`, `parquet.rs` |
//! | examples in memory, and their random changes | `dataset.rs`, `augment.rs` |
//! | batches, assembled beside the training | `loader.rs` |
//! | what a run remembers of its data | `inventory.rs` |
//!
//! A new data set is a file with a loader and an entry that describes it, its `mod` here, and one line in the table of
//! `source.rs`. Parser, configuration, help text and the names in tables come from there.

mod augment;
pub mod cifar;
mod dataset;
pub mod digits;
mod encoding;
mod entry;
mod files;
pub mod folder;
mod hub;
pub mod idx;
mod inventory;
mod loader;
mod order;
#[cfg(feature = "parquet")]
mod parquet;
mod request;
#[cfg(test)]
mod scratch;
mod source;
pub mod synthetic;
pub mod text;

pub use augment::Augment;
pub use dataset::{Dataset, Text, Values};
pub use encoding::Encoding;
pub use inventory::{Example, Inventory};
pub(crate) use loader::{Batch, batches};
pub use order::SHUFFLE_SEED;
pub use request::{Limits, Request, Synthetic, Unwatched, Watch};
pub use source::{DataConfig, Source};
