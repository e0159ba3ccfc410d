//! What can go wrong in training.

use std::fmt;

use crate::error::Error;

/// Why training, or loading what it needs, stopped.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrainError {
    /// A layer's geometry, or a threshold that became NaN because training diverged.
    Kernel(Error),
    /// A data file that breaks a rule of its format.
    Data {
        /// The file.
        file: String,
        /// Line, from 1; 0 for the file as a whole.
        line: usize,
        /// The rule, and what was found instead.
        rule: String,
    },
    /// A setting that makes no sense.
    Setting {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The loss is no longer finite.
    Diverged {
        /// Epoch, from 1.
        epoch: usize,
    },
}

impl fmt::Display for TrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => error.fmt(f),
            Self::Data { file, line: 0, rule } => write!(f, "{file}: {rule}"),
            Self::Data { file, line, rule } => write!(f, "{file}, line {line}: {rule}"),
            Self::Setting { name, value, rule } => write!(f, "{name} is {value}: {rule}"),
            Self::Diverged { epoch } => {
                write!(
                    f,
                    "the loss of epoch {epoch} is not finite: training diverged, a smaller learning rate may help"
                )
            }
        }
    }
}

impl std::error::Error for TrainError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for TrainError {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}
