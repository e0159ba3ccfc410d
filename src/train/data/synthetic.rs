//! Random images with random labels, for benchmarks. A network cannot learn anything from them.

use rand::{Rng, RngExt};

use super::dataset::{Dataset, MAX_CLASSES, Values};
use super::entry::Entry;
use super::request::Request;
use crate::train::error::TrainError;
use crate::train::random::{Purpose, stream};
use crate::train::shape::Shape;

pub(super) const SYNTHETIC: Entry = Entry { title: "synthetic", directory: None, encoding: None, resizes: false, load };

/// Bytes between two reports to the watcher. It is a multiple of the words of the random numbers, so the bytes are the same as
/// without reports.
const CHUNK: usize = 1 << 20;

/// The largest part in bytes. More than any machine holds is refused before it is allocated.
const MAX_BYTES: usize = 1 << 36;

/// The largest number of channels. Each has a table of a kilobyte.
const MAX_CHANNELS: usize = 1 << 16;

/// The training part and the test part. Pixels are uniform over all bytes, and are normalised to mean 0 and deviation 1.
///
/// # Errors
///
/// [`TrainError::Setting`] for extents that are zero or more than the memory holds.
pub fn load(request: &Request<'_>) -> Result<(Dataset, Dataset), TrainError> {
    let synthetic = &request.synthetic;
    let [height, width] = synthetic.size;
    let shape = Shape::new(synthetic.channels, [1, height, width]);
    let extents = [synthetic.channels, height, width];
    let len = extents.iter().try_fold(1usize, |len, &extent| len.checked_mul(extent)).filter(|&len| len > 0);
    // One image must fit even if none is asked for, because the tables of the channels do not depend on the number of images.
    let fits = |count: usize| len.and_then(|len| len.checked_mul(count.max(1))).is_some_and(|len| len <= MAX_BYTES);
    if !fits(synthetic.train) || !fits(synthetic.test) {
        let (value, rule) =
            (format!("{} × {height} × {width}", synthetic.channels), "it must be positive and fit in memory");
        return Err(TrainError::setting("synthetic", value, rule));
    }
    if synthetic.channels > MAX_CHANNELS {
        let rule = format!("channels must be at most {MAX_CHANNELS}");
        return Err(TrainError::setting("synthetic", format!("channels={}", synthetic.channels), rule));
    }
    if !(1..=MAX_CLASSES).contains(&synthetic.classes) {
        let rule = format!("classes must be from 1 to {MAX_CLASSES}");
        return Err(TrainError::setting("synthetic", format!("classes={}", synthetic.classes), rule));
    }
    let part = |number: u64, count: usize| {
        let mut rng = stream(synthetic.seed, Purpose::Synthetic, [number, 0]);
        let labels = (0..count).map(|_| rng.random_range(0..synthetic.classes as u32) as u16).collect();
        let mut bytes = vec![0; count * shape.len()];
        let len = bytes.len();
        for (at, chunk) in bytes.chunks_mut(CHUNK).enumerate() {
            request.progress("drawing images", at * CHUNK, len)?;
            rng.fill_bytes(chunk);
        }
        let (mean, deviation) = (vec![0.5; synthetic.channels], vec![libm::sqrtf(1.0 / 12.0); synthetic.channels]);
        Dataset::new("synthetic", shape, synthetic.classes, Values::Bytes(bytes), labels)?
            .with_normalization(&mean, &deviation)
    };
    Ok((part(0, synthetic.train)?, part(1, synthetic.test)?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::request::Synthetic;
    use super::*;
    use crate::layout::Layout;

    fn load(synthetic: &Synthetic) -> Result<(Dataset, Dataset), TrainError> {
        super::load(&Request { synthetic: *synthetic, ..Request::new(Path::new("")) })
    }

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
        let (mean, deviation) = train.mean_and_deviation();
        assert!(mean.iter().all(|m| (m - 0.5).abs() < 0.05) && deviation.iter().all(|d| (d - 0.289).abs() < 0.03));
    }

    #[test]
    fn senseless_extents_are_refused() {
        for (config, expected) in [
            (
                Synthetic { size: [0, 3], ..Synthetic::default() },
                "synthetic is 3 × 0 × 3: it must be positive and fit in memory",
            ),
            (
                Synthetic { channels: usize::MAX, ..Synthetic::default() },
                "synthetic is 18446744073709551615 × 32 × 32: it must be positive and fit in memory",
            ),
            (
                Synthetic { channels: 1 << 30, size: [1, 1], train: 0, test: 0, ..Synthetic::default() },
                "synthetic is channels=1073741824: channels must be at most 65536",
            ),
            (
                Synthetic { classes: 0, ..Synthetic::default() },
                "synthetic is classes=0: classes must be from 1 to 65536",
            ),
        ] {
            assert_eq!(load(&config).unwrap_err().to_string(), expected);
        }
    }
}
