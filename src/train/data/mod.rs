//! Labelled examples in memory, and the file formats that they come from.
//!
//! [`DataConfig`] names a data set and loads it. The memory holds examples as their files do, with one byte per pixel. Reading an
//! example normalises and augments it.
//!
//! | what | where |
//! |---|---|
//! | the table of data sets, and the settings that choose one | `source.rs` |
//! | the request that a loader answers, and its watcher | `request.rs` |
//! | loaders, one file for each | `digits.rs`, `idx.rs`, `cifar.rs`, `folder.rs`, `text.rs`, `synthetic.rs` |
//! | finding and reading files | `files.rs` |
//! | image data sets as Parquet files: finding the files; reading their rows (feature `parquet`) | `hub.rs`, `parquet.rs` |
//! | examples in memory, and their random changes | `dataset.rs`, `augment.rs` |
//! | batches, which a thread assembles during training | `loader.rs` |
//! | the record of its data that a run keeps | `inventory.rs` |
//!
//! A new data set is a file with a loader and an entry that describes it, its `mod` here, and one line in the table of
//! `source.rs`. The parser, the configuration, the help text and the names in tables follow from that line.

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
