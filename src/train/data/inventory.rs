//! The record of its data that a run keeps, so that it can refuse other data.

use serde::{Deserialize, Serialize};

use super::dataset::{Dataset, Text};
use crate::train::error::TrainError;
use crate::train::shape::Shape;

/// Names and numbers of a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Inventory {
    /// Number of classes.
    pub classes: usize,
    /// Names of the classes. Empty if they have none.
    pub class_names: Vec<String>,
    /// Training examples.
    pub train: usize,
    /// Test examples.
    pub test: usize,
    /// Words with numbers of their own. Empty if the examples do not consist of words.
    pub vocabulary: Vec<String>,
    /// What a network reads. None if the version that recorded the run did not record this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<Example>,
}

/// What an example is, and how it is read. Resizing may change it, so it is not compared with that of other data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Example {
    /// Channels.
    pub channels: usize,
    /// `[depth, height, width]`.
    pub size: [usize; 3],
    /// The meaning of tokens of text. None for images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    /// The factor that a stored value is first multiplied with: 1/255 if pixels are bytes.
    pub scale: f32,
    /// `[mean, deviation]` of each channel. After the multiplication, a value `x` becomes `(x − mean) / deviation`.
    pub normalization: Vec<[f32; 2]>,
}

impl Example {
    fn of(data: &Dataset) -> Self {
        let Shape { channels, size, .. } = data.shape();
        let (text, normalization) = (data.text(), data.normalization().to_vec());
        Self { channels, size, text, scale: data.scale(), normalization }
    }

    /// Its shape, channels first.
    pub fn shape(&self) -> Shape {
        Shape::new(self.channels, self.size)
    }
}

impl Inventory {
    /// The inventory of a training part and a test part.
    pub fn of(train: &Dataset, test: &Dataset) -> Self {
        Self {
            classes: train.classes(),
            class_names: train.class_names().to_vec(),
            train: train.len(),
            test: test.len(),
            vocabulary: train.vocabulary().to_vec(),
            example: Some(Example::of(train)),
        }
    }

    /// Refuses data that differ from these. `origin` says where the data come from, for the message.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] with the first difference: classes, vocabulary, or numbers of examples.
    pub fn check(&self, found: &Self, origin: &str) -> Result<(), TrainError> {
        let refused = |rule: String| Err(TrainError::setting("data", origin, rule));
        if self.classes != found.classes {
            return refused(format!("the run has {} classes, these data have {}", self.classes, found.classes));
        }
        for (what, ours, theirs) in
            [("class", &self.class_names, &found.class_names), ("word", &self.vocabulary, &found.vocabulary)]
        {
            let pair = |at: usize| (ours.get(at).map_or("", |s| s), theirs.get(at).map_or("", |s| s));
            let differ = |&at: &usize| pair(at).0 != pair(at).1;
            if let Some(at) = (0..ours.len().max(theirs.len())).find(differ) {
                let (run, here) = pair(at);
                return refused(format!("{what} {at} of the run is '{run}', of these data '{here}'"));
            }
        }
        for (what, ours, theirs) in [("training", self.train, found.train), ("test", self.test, found.test)] {
            if ours != theirs {
                return refused(format!("the run has {ours} {what} examples, these data have {theirs}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let run = Inventory {
            classes: 2,
            class_names: names(&["cat", "dog"]),
            train: 10,
            test: 5,
            vocabulary: names(&["a", "b"]),
            example: None,
        };
        assert!(run.check(&run.clone(), "d").is_ok());
        for (found, expected) in [
            (Inventory { classes: 3, ..run.clone() }, "data is d: the run has 2 classes, these data have 3"),
            (
                Inventory { class_names: names(&["cat", "emu"]), ..run.clone() },
                "data is d: class 1 of the run is 'dog', of these data 'emu'",
            ),
            (
                Inventory { vocabulary: names(&["a"]), ..run.clone() },
                "data is d: word 1 of the run is 'b', of these data ''",
            ),
            (Inventory { train: 9, ..run.clone() }, "data is d: the run has 10 training examples, these data have 9"),
            (Inventory { test: 6, ..run.clone() }, "data is d: the run has 5 test examples, these data have 6"),
        ] {
            assert_eq!(run.check(&found, "d").unwrap_err().to_string(), expected);
        }
    }
}
