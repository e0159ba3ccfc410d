//! Labelled examples in memory.

use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::augment::{Augment, CropAndFlip};
use crate::layout::Layout;
use crate::train::error::{FilePosition, TrainError};
use crate::train::shape::Shape;

/// The largest number of classes. Labels have 16 bits.
pub(super) const MAX_CLASSES: usize = 1 << 16;

/// The meaning of the numbers of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Text {
    /// Characters of an alphabet of this size, from 1. 0 stands for all others.
    Characters(usize),
    /// Words of a vocabulary of this size, from 0. 0 is padding.
    Words(usize),
}

impl Text {
    /// The number of different numbers.
    pub const fn ids(self) -> usize {
        match self {
            Self::Characters(alphabet) => alphabet + 1,
            Self::Words(vocabulary) => vocabulary,
        }
    }
}

/// The values of all examples, one example after another, channels first.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Pixels. 255 is read as 1.
    Bytes(Vec<u8>),
    /// Numbers that are read as they are.
    Floats(Vec<f32>),
    /// Numbers of words or characters.
    Tokens {
        /// Each less than [`Text::ids`].
        ids: Vec<u16>,
        /// Their meaning.
        text: Text,
    },
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Tokens { ids, .. } => ids.len(),
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::Bytes(values) => Self::Bytes(values.split_off(at)),
            Self::Floats(values) => Self::Floats(values.split_off(at)),
            Self::Tokens { ids, text } => Self::Tokens { ids: ids.split_off(at), text: *text },
        }
    }
}

/// Examples of one shape with labels.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: String,
    shape: Shape,
    classes: usize,
    labels: Vec<u16>,
    values: Values,
    /// Names of the classes, if they have any.
    class_names: Vec<String>,
    /// Words with numbers of their own, which begin at 2.
    vocabulary: Vec<String>,
    /// `[mean, deviation]` of each channel.
    normalization: Vec<[f32; 2]>,
    /// For each channel, the value that each byte is read as. Empty if the values are not bytes.
    tables: Vec<[f32; 256]>,
    augment: Augment,
}

impl Dataset {
    /// A data set without normalisation and augmentation. `values` holds `labels.len()` examples of `shape`. Labels are from 0 to
    /// `classes - 1`. The layout of the shape is ignored, and is [`Layout::Nchw`].
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] if the number of values, a label or a token does not fit.
    pub fn new(name: &str, shape: Shape, classes: usize, values: Values, labels: Vec<u16>) -> Result<Self, TrainError> {
        let broken = |rule: String| Err(TrainError::data(name, FilePosition::Whole, rule));
        let shape = shape.with_layout(Layout::Nchw);
        if shape.is_empty() {
            return broken(format!("examples of {shape} values must hold a value at least"));
        }
        if !(1..=MAX_CLASSES).contains(&classes) {
            return broken(format!("{classes} classes must be from 1 to {MAX_CLASSES}"));
        }
        if values.len() != labels.len() * shape.len() {
            return broken(format!("{} values are not {} examples of {}", values.len(), labels.len(), shape.len()));
        }
        if let Some(row) = labels.iter().position(|&label| usize::from(label) >= classes) {
            let label = labels[row];
            return broken(format!(
                "label {label} of example {row} must be less than the number of classes, {classes}"
            ));
        }
        if let Values::Tokens { ids, text } = &values
            && let Some(at) = ids.iter().position(|&id| usize::from(id) >= text.ids())
        {
            let (id, row) = (ids[at], at / shape.len());
            return broken(format!("token {id} of example {row} must be less than the vocabulary, {}", text.ids()));
        }
        let normalization = vec![[0.0, 1.0]; shape.channels];
        let mut data = Self {
            name: name.to_owned(),
            shape,
            classes,
            labels,
            values,
            class_names: vec![],
            vocabulary: vec![],
            normalization,
            tables: vec![],
            augment: Augment::default(),
        };
        data.tabulate();
        Ok(data)
    }

    /// The same data with normalisation: a value `x` of channel `c` is read as `(x − mean[c]) / deviation[c]`. Tokens stay the
    /// same.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] unless there are a finite mean and a positive deviation for each channel.
    pub fn with_normalization(mut self, mean: &[f32], deviation: &[f32]) -> Result<Self, TrainError> {
        let channels = self.shape.channels;
        if mean.len() != channels || deviation.len() != channels {
            let rule = format!("{} means and {} deviations must be {channels} each", mean.len(), deviation.len());
            return Err(TrainError::data(&self.name, FilePosition::Whole, rule));
        }
        self.normalization = mean.iter().zip(deviation).map(|(&mean, &deviation)| [mean, deviation]).collect();
        if let Some(c) = self.normalization.iter().position(|[m, d]| !(m.is_finite() && d.is_finite() && *d > 0.0)) {
            let [mean, deviation] = self.normalization[c];
            let rule = format!(
                "mean {mean} and deviation {deviation} of channel {c} must be finite and the deviation positive"
            );
            return Err(TrainError::data(&self.name, FilePosition::Whole, rule));
        }
        self.tabulate();
        Ok(self)
    }

    /// The same data with other random changes. Tokens are never changed.
    #[must_use]
    pub fn with_augment(self, augment: Augment) -> Self {
        Self { augment, ..self }
    }

    /// The same data with a name for each class.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] unless there are as many names as classes.
    pub fn with_class_names(self, class_names: Vec<String>) -> Result<Self, TrainError> {
        if class_names.len() != self.classes {
            let rule = format!("{} names must be {}, one for each class", class_names.len(), self.classes);
            return Err(TrainError::data(&self.name, FilePosition::Whole, rule));
        }
        Ok(Self { class_names, ..self })
    }

    /// The same data with the words that have numbers of their own. Their numbers begin at 2.
    #[must_use]
    pub fn with_vocabulary(self, vocabulary: Vec<String>) -> Self {
        Self { vocabulary, ..self }
    }

    /// Normalises each of the 256 values of a byte once, instead of every pixel.
    fn tabulate(&mut self) {
        if let Values::Bytes(_) = self.values {
            let entry = |byte: usize, [mean, deviation]: [f32; 2]| (byte as f32 / 255.0 - mean) / deviation;
            self.tables = self.normalization.iter().map(|&m| std::array::from_fn(|byte| entry(byte, m))).collect();
        }
    }

    /// The name of the data set.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shape of an example, channels first.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Names of the classes by label. Empty if the data set has no names for them.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Words with numbers of their own, which begin at 2. Empty if the examples do not consist of words.
    pub fn vocabulary(&self) -> &[String] {
        &self.vocabulary
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// `[mean, deviation]` of each channel, with which [`read`](Self::read) normalises.
    pub fn normalization(&self) -> &[[f32; 2]] {
        &self.normalization
    }

    /// The factor that [`read`](Self::read) multiplies a stored value with before it normalises. A byte of 255 becomes 1.
    pub fn scale(&self) -> f32 {
        if let Values::Bytes(_) = self.values { 1.0 / 255.0 } else { 1.0 }
    }

    /// Label of an example.
    ///
    /// # Panics
    ///
    /// If there is no example `index`.
    pub fn label(&self, index: usize) -> usize {
        usize::from(self.labels[index])
    }

    /// The meaning of the values, if they are tokens of text.
    pub fn text(&self) -> Option<Text> {
        match self.values {
            Values::Tokens { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The random changes that [`Dataset::read`] makes if it gets random numbers.
    pub fn augment(&self) -> Augment {
        self.augment
    }

    /// The first `len` examples, and the rest. The rest is empty if there are no more examples.
    pub fn split(mut self, len: usize) -> (Self, Self) {
        let len = len.min(self.len());
        let rest = Self {
            name: self.name.clone(),
            labels: self.labels.split_off(len),
            values: self.values.split_off(len * self.shape.len()),
            class_names: self.class_names.clone(),
            vocabulary: self.vocabulary.clone(),
            normalization: self.normalization.clone(),
            tables: self.tables.clone(),
            ..self
        };
        (self, rest)
    }

    /// The first `len` examples, or all if there are fewer.
    #[must_use]
    pub fn truncated(self, len: usize) -> Self {
        self.split(len).0
    }

    /// Mean and standard deviation of each channel before normalisation.
    pub fn mean_and_deviation(&self) -> (Vec<f32>, Vec<f32>) {
        let value = |i: usize| match &self.values {
            Values::Bytes(values) => f64::from(values[i]) / 255.0,
            Values::Floats(values) => f64::from(values[i]),
            Values::Tokens { ids, .. } => f64::from(ids[i]),
        };
        let (len, positions) = (self.shape.len(), self.shape.positions());
        let count = (self.len() * positions).max(1) as f64;
        let channel = |c: usize| {
            let values = || {
                (0..self.len()).flat_map(move |n| (0..positions).map(move |p| n * len + c * positions + p)).map(value)
            };
            let mean = values().sum::<f64>() / count;
            let variance = values().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
            (mean as f32, libm::sqrt(variance) as f32)
        };
        (0..self.shape.channels).map(channel).unzip()
    }

    /// Writes an example in a layout. It is normalised, and changed at random if random numbers are given. Token ids stay the
    /// same.
    ///
    /// # Panics
    ///
    /// If there is no example `index`, or if `out` is not as long as an example.
    pub fn read(&self, index: usize, augment: Option<&mut ChaCha8Rng>, layout: Layout, out: &mut [f32]) {
        let len = self.shape.len();
        assert_eq!(out.len(), len, "an example of {len} values");
        let range = index * len..(index + 1) * len;
        let window = || augment.map_or(CropAndFlip::default(), |rng| CropAndFlip::draw(self.augment, self.shape, rng));
        match &self.values {
            Values::Bytes(values) => {
                window().copy(&values[range], self.shape, layout, out, |c, byte| self.tables[c][usize::from(byte)]);
            }
            Values::Floats(values) => window().copy(&values[range], self.shape, layout, out, |c, x: f32| {
                let [mean, deviation] = self.normalization[c];
                (x - mean) / deviation
            }),
            Values::Tokens { ids, .. } => {
                CropAndFlip::default().copy(&ids[range], self.shape, layout, out, |_, id| f32::from(id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::random::{Purpose, stream};

    fn counting(channels: usize, size: [usize; 3], len: usize) -> Dataset {
        let shape = Shape::new(channels, size);
        let bytes = (0..len * shape.len()).map(|i| (i % 251) as u8 + 1).collect();
        Dataset::new("counting", shape, 2, Values::Bytes(bytes), (0..len).map(|i| (i % 2) as u16).collect()).unwrap()
    }

    fn read(data: &Dataset, index: usize, rng: Option<&mut ChaCha8Rng>, layout: Layout) -> Vec<f32> {
        let mut out = vec![f32::NAN; data.shape().len()];
        data.read(index, rng, layout, &mut out);
        out
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let new = |values, labels| Dataset::new("set", Shape::new(1, [1, 1, 2]), 3, values, labels);
        for (result, expected) in [
            (new(Values::Bytes(vec![0; 5]), vec![0, 1]), "set: 5 values are not 2 examples of 2"),
            (
                new(Values::Floats(vec![0.0; 4]), vec![0, 3]),
                "set: label 3 of example 1 must be less than the number of classes, 3",
            ),
            (
                new(Values::Tokens { ids: vec![0, 1, 2, 1], text: Text::Words(2) }, vec![0, 1]),
                "set: token 2 of example 1 must be less than the vocabulary, 2",
            ),
            (
                Dataset::new("set", Shape::new(0, [1, 1, 2]), 3, Values::Bytes(vec![]), vec![]),
                "set: examples of 0 × 2 values must hold a value at least",
            ),
            (
                Dataset::new("set", Shape::new(1, [1, 1, 2]), 0, Values::Bytes(vec![]), vec![]),
                "set: 0 classes must be from 1 to 65536",
            ),
            (
                counting(2, [1, 1, 2], 1).with_class_names(vec!["one".to_owned()]),
                "counting: 1 names must be 2, one for each class",
            ),
            (
                counting(2, [1, 1, 2], 1).with_normalization(&[0.0], &[1.0, 2.0]),
                "counting: 1 means and 2 deviations must be 2 each",
            ),
            (
                counting(2, [1, 1, 2], 1).with_normalization(&[0.0, 0.5], &[1.0, 0.0]),
                "counting: mean 0.5 and deviation 0 of channel 1 must be finite and the deviation positive",
            ),
        ] {
            assert_eq!(result.unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn values_are_normalised_per_channel() {
        let data = counting(2, [1, 1, 2], 1).with_normalization(&[0.5, 0.25], &[0.5, 2.0]).unwrap();
        let pixel = |x: f32| x / 255.0;
        let expected =
            [(pixel(1.0) - 0.5) / 0.5, (pixel(2.0) - 0.5) / 0.5, (pixel(3.0) - 0.25) / 2.0, (pixel(4.0) - 0.25) / 2.0];
        assert_eq!(read(&data, 0, None, Layout::Nchw), expected);
        let floats = Values::Floats(vec![1.0, 2.0, 3.0, 4.0]);
        let data = Dataset::new("floats", Shape::new(2, [1, 1, 2]), 1, floats, vec![0]).unwrap();
        assert_eq!(data.mean_and_deviation(), (vec![1.5, 3.5], vec![0.5, 0.5]));
        let data = data.with_normalization(&[1.5, 3.5], &[0.5, 0.5]).unwrap();
        assert_eq!(read(&data, 0, None, Layout::Nchw), [-1.0, 1.0, -1.0, 1.0]);
        let tokens = Values::Tokens { ids: vec![7, 0, 65535], text: Text::Characters(65535) };
        let data = Dataset::new("text", Shape::new(1, [1, 1, 3]), 1, tokens, vec![0]).unwrap();
        assert_eq!(
            (read(&data, 0, None, Layout::Nhwc), data.text()),
            (vec![7.0, 0.0, 65535.0], Some(Text::Characters(65535)))
        );
    }

    #[test]
    fn channels_last_is_the_transpose() {
        let data = counting(3, [2, 4, 5], 3)
            .with_normalization(&[0.1, 0.2, 0.3], &[1.0, 2.0, 3.0])
            .unwrap()
            .with_augment(Augment { crop_padding: 2, flip: true });
        for example in 0..30 {
            let rng = || stream(1, Purpose::Augment, [0, example]);
            let first = read(&data, example as usize % 3, Some(&mut rng()), Layout::Nchw);
            let last = read(&data, example as usize % 3, Some(&mut rng()), Layout::Nhwc);
            let transposed: Vec<f32> =
                (0..40).flat_map(|p| (0..3).map(move |c| (p, c))).map(|(p, c)| first[c * 40 + p]).collect();
            assert_eq!(last, transposed);
        }
    }

    #[test]
    fn splits_keep_order_and_all_else() {
        let data = counting(1, [1, 2, 2], 5).with_normalization(&[0.5], &[0.5]).unwrap();
        let whole: Vec<_> = (0..5).map(|i| (read(&data, i, None, Layout::Nchw), data.label(i))).collect();
        let (first, rest) = data.clone().split(2);
        let of = |data: &Dataset| -> Vec<_> {
            (0..data.len()).map(|i| (read(data, i, None, Layout::Nchw), data.label(i))).collect()
        };
        assert_eq!((of(&first), of(&rest)), (whole[..2].to_vec(), whole[2..].to_vec()));
        assert_eq!(of(&data.clone().truncated(3)), whole[..3]);
        assert_eq!((data.clone().truncated(9).len(), data.split(9).1.is_empty()), (5, true));
    }

    #[test]
    fn crops_and_flips_are_those_of_the_padded_image() {
        let (height, width, padding) = (3, 4, 2);
        let data = counting(1, [1, height, width], 1).with_augment(Augment { crop_padding: padding, flip: true });
        let raw = read(&data, 0, None, Layout::Nchw);
        // Every crop of the padded image, with a plain loop.
        let mut windows = vec![];
        for (top, left) in (0..=2 * padding).flat_map(|top| (0..=2 * padding).map(move |left| (top, left))) {
            for flip in [false, true] {
                let mut window = vec![0.0; height * width];
                for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                    let (row, column) = (top + y, left + if flip { width - 1 - x } else { x });
                    if (padding..padding + height).contains(&row) && (padding..padding + width).contains(&column) {
                        window[y * width + x] = raw[(row - padding) * width + column - padding];
                    }
                }
                windows.push(window);
            }
        }
        let mut counts = vec![0; windows.len()];
        let draws = 10_000;
        for example in 0..draws {
            let rng = || stream(3, Purpose::Augment, [0, example]);
            let found = read(&data, 0, Some(&mut rng()), Layout::Nchw);
            assert_eq!(found, read(&data, 0, Some(&mut rng()), Layout::Nchw));
            counts[windows.iter().position(|window| *window == found).expect("a window of the padded image")] += 1;
        }
        let flipped: u64 = counts.iter().skip(1).step_by(2).sum();
        assert!((flipped as f64 / draws as f64 - 0.5).abs() < 0.02, "{flipped} flips");
        // 200 are expected of each, with a deviation of 14.
        assert!(counts.iter().all(|&count| (130..270).contains(&count)), "{counts:?}");
        // Padding is black before normalisation.
        let data = data.with_normalization(&[0.5], &[0.25]).unwrap();
        let read = |example| read(&data, 0, Some(&mut stream(3, Purpose::Augment, [0, example])), Layout::Nchw);
        assert!((0..20).any(|example| read(example).contains(&-2.0)));
    }

    #[test]
    fn signals_are_cropped_along_their_length_only() {
        let data = counting(1, [1, 1, 6], 1).with_augment(Augment { crop_padding: 2, flip: false });
        let raw = read(&data, 0, None, Layout::Nchw);
        for example in 0..50 {
            let found = read(&data, 0, Some(&mut stream(1, Purpose::Augment, [0, example])), Layout::Nchw);
            assert!(found.contains(&raw[3]) && found.contains(&raw[2]), "{found:?}");
        }
    }
}
