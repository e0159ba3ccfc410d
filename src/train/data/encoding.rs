//! How texts become numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::train::error::TrainError;

/// The greatest length of a sequence.
const MAX_LENGTH: usize = 1 << 20;
/// The largest vocabulary. The words and two more numbers fit in 16 bits.
pub(super) const MAX_VOCABULARY: usize = (1 << 16) - 2;

/// How a text becomes a sequence of numbers of one length. Longer texts are cut off, and shorter texts are filled up with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Encoding {
    /// The characters of a text in lower case, as Zhang, Zhao and LeCun (2015) encode them. The 70 characters of their alphabet
    /// are numbered from 1, and all others, also spaces, are 0. The last character comes first, so a long text keeps its end.
    Characters {
        /// Characters of a text.
        length: usize,
    },
    /// The words of a text in lower case. A word is a run of letters and digits, or any other single character but white space.
    /// The most frequent words of the training part are numbered from 2, and equally frequent ones alphabetically. All other
    /// words are 1.
    Words {
        /// Words of a text.
        length: usize,
        /// The largest number of words with a number of their own.
        vocabulary: usize,
    },
}

impl Encoding {
    pub(super) const fn length(self) -> usize {
        match self {
            Self::Characters { length } | Self::Words { length, .. } => length,
        }
    }

    /// Refuses impossible settings before any file is read.
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
