//! Labelled images in memory.

use super::error::TrainError;

/// Extents of one image or of a layer's output for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Channels.
    pub channels: usize,
    /// `[depth, height, width]`; axes that are not there are 1.
    pub size: [usize; 3],
}

impl Shape {
    /// Elements.
    pub const fn len(&self) -> usize {
        self.channels * self.positions()
    }

    /// Whether there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions of one channel.
    pub const fn positions(&self) -> usize {
        self.size[0] * self.size[1] * self.size[2]
    }
}

/// Images of one shape (NCHW) with labels.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: String,
    shape: Shape,
    classes: usize,
    images: Vec<f32>,
    labels: Vec<usize>,
}

impl Dataset {
    /// `images` holds `labels.len()` images of `shape` one after the other; labels count from 0 to `classes - 1`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] where the number of images or a label does not fit.
    pub fn new(
        name: &str,
        shape: Shape,
        classes: usize,
        images: Vec<f32>,
        labels: Vec<usize>,
    ) -> Result<Self, TrainError> {
        let broken = |line, rule| Err(TrainError::Data { file: name.to_owned(), line, rule });
        if images.len() != labels.len() * shape.len() {
            return broken(0, format!("{} values are not {} images of {}", images.len(), labels.len(), shape.len()));
        }
        if let Some(row) = labels.iter().position(|&label| label >= classes) {
            return broken(
                row + 1,
                format!("label {} must be less than the number of classes, {classes}", labels[row]),
            );
        }
        Ok(Self { name: name.to_owned(), shape, classes, images, labels })
    }

    /// What the data set is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shape of an image.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// One image.
    ///
    /// # Panics
    ///
    /// If there is no image `index`.
    pub fn image(&self, index: usize) -> &[f32] {
        &self.images[index * self.shape.len()..][..self.shape.len()]
    }

    /// Its label.
    ///
    /// # Panics
    ///
    /// If there is no image `index`.
    pub fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    /// The first `len` images and the rest.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn split(mut self, len: usize) -> (Self, Self) {
        let rest = Self {
            name: self.name.clone(),
            images: self.images.split_off(len * self.shape.len()),
            labels: self.labels.split_off(len),
            ..self
        };
        (self, rest)
    }

    /// Replaces each value `x` by `(x − mean) / deviation`.
    pub fn normalize(&mut self, mean: f32, deviation: f32) {
        self.images.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
    }

    /// Mean and standard deviation of all values.
    pub fn moments(&self) -> (f32, f32) {
        let count = self.images.len().max(1) as f64;
        let mean = self.images.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let variance = self.images.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
        (mean as f32, libm::sqrt(variance) as f32)
    }
}
