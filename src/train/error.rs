//! Errors of training.

use std::{fmt, io};

use crate::error::Error;

/// Why training, or loading what it needs, stopped.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrainError {
    /// An error of the kernels: a layer with an impossible geometry, or a threshold that became NaN because training diverged.
    Kernel(Error),
    /// A data file that breaks a rule of its format.
    Data {
        /// The file.
        file: String,
        /// The position in the file.
        position: FilePosition,
        /// The rule, and what was found instead.
        rule: String,
    },
    /// A file that could not be read or written.
    Io {
        /// The file.
        file: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// A checkpoint that is damaged or belongs to another run.
    Checkpoint {
        /// The file.
        file: String,
        /// The rule, and what was found instead.
        rule: String,
    },
    /// A setting that breaks a rule.
    Setting {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// The rule it breaks.
        rule: String,
    },
    /// Another process already writes to the run directory.
    Busy {
        /// The directory.
        directory: String,
        /// The number of that process, if it has left one.
        process: Option<u32>,
    },
    /// The caller's watch or observer has interrupted the work.
    Interrupted,
    /// The loss, a weight or a threshold is no longer finite.
    Diverged {
        /// Epoch, from 1.
        epoch: usize,
    },
}

/// A position in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilePosition {
    /// The file as a whole.
    Whole,
    /// A line, from 1.
    Line(u64),
    /// A byte, from 0.
    Offset(u64),
    /// A row of a table, from 0.
    Row(u64),
}

impl TrainError {
    /// A file that breaks a rule.
    pub(super) fn data(file: impl fmt::Display, position: FilePosition, rule: impl fmt::Display) -> Self {
        Self::Data { file: file.to_string(), position, rule: rule.to_string() }
    }

    /// A file that the operating system could not read or write.
    pub(super) fn io(file: impl fmt::Display, error: io::Error) -> Self {
        Self::Io { file: file.to_string(), error }
    }

    /// A setting that makes no sense.
    pub(super) fn setting(name: &'static str, value: impl fmt::Display, rule: impl fmt::Display) -> Self {
        Self::Setting { name, value: value.to_string(), rule: rule.to_string() }
    }
}

impl fmt::Display for TrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => error.fmt(f),
            Self::Data { file, position: FilePosition::Whole, rule } => write!(f, "{file}: {rule}"),
            Self::Data { file, position: FilePosition::Line(line), rule } => write!(f, "{file}, line {line}: {rule}"),
            Self::Data { file, position: FilePosition::Offset(offset), rule } => {
                write!(f, "{file}, byte {offset}: {rule}")
            }
            Self::Data { file, position: FilePosition::Row(row), rule } => write!(f, "{file}, row {row}: {rule}"),
            Self::Io { file, error } => write!(f, "{file}: {error}"),
            Self::Checkpoint { file, rule } => write!(f, "checkpoint {file}: {rule}"),
            Self::Setting { name, value, rule } => write!(f, "{name} is {value}: {rule}"),
            Self::Busy { directory, process } => {
                match process {
                    Some(process) => write!(f, "process {process}")?,
                    None => f.write_str("another process")?,
                }
                write!(f, " writes the run in {directory}: one process at a time writes a run")
            }
            Self::Interrupted => f.write_str("interrupted"),
            Self::Diverged { epoch } => {
                write!(f, "training diverged in epoch {epoch}: its loss, or a weight, is not finite; ")?;
                f.write_str("a smaller learning rate may help")
            }
        }
    }
}

impl std::error::Error for TrainError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel(error) => Some(error),
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for TrainError {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}
