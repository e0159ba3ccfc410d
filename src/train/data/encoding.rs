//! How texts become numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::train::error::TrainError;

/// Longest sequences.
const MAX_LENGTH: usize = 1 << 20;
/// Most words: with two numbers more they still fit in 16 bits.
pub(super) const MAX_VOCABULARY: usize = (1 << 16) - 2;

/// How a text becomes a sequence of numbers. What is longer is cut off, what is shorter is filled up with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Encoding {
    /// As Zhang, Zhao and LeCun (2015): characters in lower case, numbered from 1 in their alphabet of 70, others
    /// (spaces too) 0; backwards, the last character first, so that of a long text the end is kept.
    Characters {
        /// Characters of a text.
        length: usize,
    },
    /// Words in lower case: runs of letters and digits, and each other character but white space by itself. The most
    /// frequent ones of the training part are numbered from 2, those of equal number alphabetically; others are 1.
    Words {
        /// Words of a text.
        length: usize,
        /// Most words that have numbers of their own.
        vocabulary: usize,
    },
}

impl Encoding {
    pub(super) const fn length(self) -> usize {
        match self {
            Self::Characters { length } | Self::Words { length, .. } => length,
        }
    }

    /// Refuses what makes no sense, before anything is read.
    pub(super) fn check(self) -> Result<(), TrainError> {
        if !(1..=MAX_LENGTH).contains(&self.length()) {
            return Err(TrainError::setting("length", self.length(), format!("it must be from 1 to {MAX_LENGTH}")));
        }
        match self {
            Self::Words { vocabulary, .. } if !(1..=MAX_VOCABULARY).contains(&vocabulary) => {
                Err(TrainError::setting("vocabulary", vocabulary, format!("it must be from 1 to {MAX_VOCABULARY}")))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Characters { .. } => "characters",
            Self::Words { .. } => "words",
        })
    }
}
