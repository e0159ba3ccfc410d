//! Random images with random labels, for benchmarks: nothing can be learnt from them.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::{Dataset, Values};
use crate::train::error::TrainError;
use crate::train::random::{Purpose, stream};
use crate::train::shape::Shape;

/// Extents and numbers of synthetic images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Synthetic {
    /// Channels.
    pub channels: usize,
    /// `[height, width]`.
    pub size: [usize; 2],
    /// Classes.
    pub classes: usize,
    /// Images of the training part.
    pub train: usize,
    /// Images of the test part.
    pub test: usize,
    /// Seed of the values.
    pub seed: u64,
}

impl Default for Synthetic {
    /// CIFAR-10's extents.
    fn default() -> Self {
        Self { channels: 3, size: [32, 32], classes: 10, train: 1024, test: 256, seed: 0 }
    }
}

/// Most bytes of a part: what no machine holds is refused before it is asked for.
const MAX_BYTES: usize = 1 << 36;

/// Most channels: a table of a kilobyte is kept for each.
const MAX_CHANNELS: usize = 1 << 16;

/// Training and test part: pixels spread evenly over all bytes, normalised to mean 0 and deviation 1.
///
/// # Errors
///
/// [`TrainError::Setting`] for extents that are zero or more than the memory holds.
pub fn load(synthetic: &Synthetic) -> Result<(Dataset, Dataset), TrainError> {
    let [height, width] = synthetic.size;
    let shape = Shape::new(synthetic.channels, [1, height, width]);
    let extents = [synthetic.channels, height, width];
    let len = extents.iter().try_fold(1usize, |len, &extent| len.checked_mul(extent)).filter(|&len| len > 0);
    // Of no images, one has to fit: what is kept for each channel does not depend on their number.
    let fits = |count: usize| len.and_then(|len| len.checked_mul(count.max(1))).is_some_and(|len| len <= MAX_BYTES);
    if !fits(synthetic.train) || !fits(synthetic.test) {
        let (value, rule) =
            (format!("{} channels of {height}x{width}", synthetic.channels), "must be positive and fit in memory");
        return Err(TrainError::setting("synthetic", value, rule));
    }
    if synthetic.channels > MAX_CHANNELS {
        let rule = format!("must be at most {MAX_CHANNELS}");
        return Err(TrainError::setting("synthetic.channels", synthetic.channels, rule));
    }
    if !(1..=super::MAX_CLASSES).contains(&synthetic.classes) {
        let rule = format!("must be from 1 to {}", super::MAX_CLASSES);
        return Err(TrainError::setting("synthetic.classes", synthetic.classes, rule));
    }
    let part = |number: u64, count: usize| {
        let mut rng = stream(synthetic.seed, Purpose::Synthetic, [number, 0]);
        let labels = (0..count).map(|_| rng.random_range(0..synthetic.classes as u32) as u16).collect();
        let mut bytes = vec![0; count * shape.len()];
        rng.fill_bytes(&mut bytes);
        let (mean, deviation) = (vec![0.5; synthetic.channels], vec![libm::sqrtf(1.0 / 12.0); synthetic.channels]);
        Dataset::new("synthetic", shape, synthetic.classes, Values::Bytes(bytes), labels)?
            .with_normalization(&mean, &deviation)
    };
    Ok((part(0, synthetic.train)?, part(1, synthetic.test)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    #[test]
    fn values_are_spread_and_depend_on_the_seed() {
        let config = Synthetic { channels: 2, size: [4, 6], train: 50, test: 10, ..Synthetic::default() };
        let (train, test) = load(&config).unwrap();
        assert_eq!((train.len(), test.len(), train.classes()), (50, 10, 10));
        assert_eq!(train.shape(), Shape::new(2, [1, 4, 6]));
        let read = |data: &Dataset| {
            let mut out = vec![0.0; 48];
            data.read(0, None, Layout::Nchw, &mut out);
            out
        };
        assert_eq!(read(&train), read(&load(&config).unwrap().0));
        assert_ne!(read(&train), read(&test));
        assert_ne!(read(&train), read(&load(&Synthetic { seed: 1, ..config }).unwrap().0));
        let (mean, deviation) = train.moments();
        assert!(mean.iter().all(|m| (m - 0.5).abs() < 0.05) && deviation.iter().all(|d| (d - 0.289).abs() < 0.03));
    }

    #[test]
    fn senseless_extents_are_refused() {
        for (config, expected) in [
            (
                Synthetic { size: [0, 3], ..Synthetic::default() },
                "synthetic is 3 channels of 0x3: must be positive and fit in memory",
            ),
            (
                Synthetic { channels: usize::MAX, ..Synthetic::default() },
                "synthetic is 18446744073709551615 channels of 32x32: must be positive and fit in memory",
            ),
            (
                Synthetic { channels: 1 << 30, size: [1, 1], train: 0, test: 0, ..Synthetic::default() },
                "synthetic.channels is 1073741824: must be at most 65536",
            ),
            (Synthetic { classes: 0, ..Synthetic::default() }, "synthetic.classes is 0: must be from 1 to 65536"),
        ] {
            assert_eq!(load(&config).unwrap_err().to_string(), expected);
        }
    }
}
