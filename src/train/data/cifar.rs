//! CIFAR-10 and CIFAR-100.
//!
//! The loader takes the binary version, in the directory or in the folder that its archive unpacks to. If there is none, it takes
//! Parquet files (feature `parquet`).

use std::path::{Path, PathBuf};

use super::augment::Augment;
use super::dataset::{Dataset, Values};
use super::entry::Entry;
use super::files;
use super::hub;
use super::request::Request;
use crate::train::error::{FilePosition, TrainError};
use crate::train::shape::Shape;

const SHAPE: Shape = Shape::new(3, [1, 32, 32]);

pub(super) const TEN: Entry = Entry::images("CIFAR-10", "data/cifar10", cifar10);
pub(super) const HUNDRED: Entry = Entry::images("CIFAR-100", "data/cifar100", cifar100);

/// The differences between the two data sets.
struct Variant {
    name: &'static str,
    folder: &'static str,
    hint: &'static str,
    /// Names of the column of a Parquet file that holds the label.
    columns: &'static [&'static str],
    classes: &'static [(&'static str, usize)],
    /// Files of the training part, and the number of records that each published file has.
    train: (&'static [&'static str], usize),
    test: &'static str,
    mean: [f32; 3],
    deviation: [f32; 3],
}

/// CIFAR-10: `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`. Training images are
/// flipped, and cropped after padding with 4 pixels.
///
/// # Errors
///
/// [`TrainError::Io`] if a file is missing, [`TrainError::Data`] if a file breaks the format.
pub fn cifar10(request: &Request<'_>) -> Result<(Dataset, Dataset), TrainError> {
    let train = &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
    load(
        request,
        &Variant {
            name: "cifar10",
            folder: "cifar-10-batches-bin",
            hint: "unpack the \"CIFAR-10 binary version\" of https://www.cs.toronto.edu/~kriz/cifar.html there, or the \
                   Parquet files of huggingface.co/datasets/uoft-cs/cifar10",
            columns: &["label"],
            classes: &[("label", 10)],
            train: (train, 10_000),
            test: "test_batch.bin",
            mean: [0.4914, 0.4822, 0.4465],
            deviation: [0.2023, 0.1994, 0.2010],
        },
    )
}

/// CIFAR-100: `train.bin` and `test.bin`. The labels are the fine ones. Training images are flipped, and cropped after padding
/// with 4 pixels.
///
/// # Errors
///
/// As [`cifar10`].
pub fn cifar100(request: &Request<'_>) -> Result<(Dataset, Dataset), TrainError> {
    load(
        request,
        &Variant {
            name: "cifar100",
            folder: "cifar-100-binary",
            hint: "unpack the \"CIFAR-100 binary version\" of https://www.cs.toronto.edu/~kriz/cifar.html there, or \
                   the Parquet files of huggingface.co/datasets/uoft-cs/cifar100",
            columns: &["fine_label", "label"],
            classes: &[("coarse label", 20), ("label", 100)],
            train: (&["train.bin"], 50_000),
            test: "test.bin",
            mean: [0.5071, 0.4867, 0.4408],
            deviation: [0.2675, 0.2565, 0.2761],
        },
    )
}

/// The number of images of the test part.
const TEST_LEN: usize = 10_000;

fn load(request: &Request<'_>, variant: &Variant) -> Result<(Dataset, Dataset), TrainError> {
    let (train, test) = match hub(request, variant)? {
        Some(parts) => parts,
        None => (part(request, variant, variant.train)?, part(request, variant, (&[variant.test], TEST_LEN))?),
    };
    Ok((train.with_augment(Augment { crop_padding: 4, flip: true }), test))
}

/// Both parts from Parquet files. None if there are no Parquet files, or if there is a binary version.
fn hub(request: &Request<'_>, variant: &Variant) -> Result<Option<(Dataset, Dataset)>, TrainError> {
    let (names, published) = variant.train;
    if find(request, variant, names[0]).is_ok() {
        return Ok(None);
    }
    let images = hub::Images {
        name: variant.name,
        labels: variant.columns,
        classes: variant.classes[variant.classes.len() - 1].1,
        channels: SHAPE.channels,
        size: Some([SHAPE.size[1], SHAPE.size[2]]),
        mean: &variant.mean,
        deviation: &variant.deviation,
        published: [names.len() * published, TEST_LEN],
    };
    hub::load(request, &images)
}

/// A file of the binary version.
fn find(request: &Request<'_>, variant: &Variant, name: &str) -> Result<PathBuf, TrainError> {
    files::find(request.directory, &[name.into(), Path::new(variant.folder).join(name)], variant.hint)
}

/// Reads records: label bytes, of which the last one counts, and an image with channels first.
fn part(request: &Request<'_>, variant: &Variant, (names, published): (&[&str], usize)) -> Result<Dataset, TrainError> {
    let (header, classes) = (variant.classes.len(), variant.classes[variant.classes.len() - 1].1);
    let record = header + SHAPE.len();
    let (mut pixels, mut labels) = (Vec::new(), Vec::<u16>::new());
    for name in names {
        let path = find(request, variant, name)?;
        let bytes = files::read(request, &path)?;
        let broken =
            |offset: usize, rule: String| TrainError::data(path.display(), FilePosition::Offset(offset as u64), rule);
        if bytes.is_empty() || bytes.len() % record != 0 {
            let rule = format!("{} bytes must be a whole number of records of {record}, and one at least", bytes.len());
            return Err(broken(bytes.len(), rule));
        }
        request.expect(&path, "records", bytes.len() / record, published);
        pixels.reserve(bytes.len());
        for (row, bytes) in bytes.chunks_exact(record).enumerate() {
            for (at, (&label, (what, classes))) in bytes.iter().zip(variant.classes).enumerate() {
                if usize::from(label) >= *classes {
                    let rule = format!("{what} {label} must be less than the number of classes, {classes}");
                    return Err(broken(row * record + at, rule));
                }
            }
            labels.push(bytes[header - 1].into());
            pixels.extend_from_slice(&bytes[header..]);
        }
    }
    let data = Dataset::new(variant.name, SHAPE, classes, Values::Bytes(pixels), labels)?;
    data.with_normalization(&variant.mean, &variant.deviation)
}

#[cfg(test)]
mod tests {
    use super::super::scratch::{Heard, Scratch};
    use super::*;
    use crate::layout::Layout;

    /// Records with these label bytes, the first byte of each channel 1, 2 and 3.
    fn records(labels: &[&[u8]]) -> Vec<u8> {
        let image: Vec<u8> = (1..4).flat_map(|c| [c].into_iter().chain([0; 1023])).collect();
        labels.iter().flat_map(|labels| labels.iter().chain(&image)).copied().collect()
    }

    fn good(scratch: &Scratch) {
        (1..6).for_each(|n| scratch.write(&format!("data_batch_{n}.bin"), records(&[&[n], &[9]])));
        scratch.write("test_batch.bin", records(&[&[3]]));
        scratch.write("cifar-100-binary/train.bin", records(&[&[19, 99], &[0, 1]]));
        scratch.write("cifar-100-binary/test.bin", records(&[&[1, 50]]));
    }

    #[test]
    fn good_files_are_read() {
        let scratch = Scratch::new("cifar-good");
        good(&scratch);
        let (train, test) = cifar10(&Request::new(&scratch.0)).unwrap();
        assert_eq!((train.len(), test.len(), train.classes(), train.shape()), (10, 1, 10, SHAPE));
        assert_eq!((0..10).map(|i| train.label(i)).collect::<Vec<_>>(), [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]);
        assert_eq!((train.augment(), test.augment()), (Augment { crop_padding: 4, flip: true }, Augment::default()));
        let mut out = vec![0.0; 3072];
        train.read(3, None, Layout::Nhwc, &mut out);
        let expected =
            [(1.0 / 255.0 - 0.4914) / 0.2023, (2.0 / 255.0 - 0.4822) / 0.1994, (3.0 / 255.0 - 0.4465) / 0.2010];
        assert_eq!(out[..3], expected);
        let (train, test) = cifar100(&Request::new(&scratch.0)).unwrap();
        assert_eq!((train.len(), test.len(), train.classes()), (2, 1, 100));
        assert_eq!((train.label(0), train.label(1), test.label(0)), (99, 1, 50));
    }

    /// If a file was cut off between two records, only the number of records shows it.
    #[test]
    fn files_of_other_lengths_are_mentioned() {
        let scratch = Scratch::new("cifar-cut");
        good(&scratch);
        let heard = Heard::default();
        cifar10(&Request { watch: &heard, ..Request::new(&scratch.0) }).unwrap();
        let said = heard.warnings(&scratch);
        assert_eq!(said.len(), 6, "{said:?}");
        assert_eq!(said[0], "data_batch_1.bin holds 2 records, the published file holds 10000");
        assert_eq!(said[5], "test_batch.bin holds 1 records, the published file holds 10000");
        let heard = Heard::default();
        cifar100(&Request { watch: &heard, ..Request::new(&scratch.0) }).unwrap();
        let said = heard.warnings(&scratch);
        assert_eq!(said[0], "cifar-100-binary/train.bin holds 2 records, the published file holds 50000");
    }

    #[test]
    fn bad_files_are_named() {
        let scratch = Scratch::new("cifar-bad");
        for (name, bytes, expected) in [
            (
                "data_batch_2.bin",
                records(&[&[1]])[1..].to_vec(),
                "byte 3072: 3072 bytes must be a whole number of records of 3073, and one at least",
            ),
            ("data_batch_1.bin", vec![], "byte 0: 0 bytes must be a whole number of records of 3073, and one at least"),
            (
                "test_batch.bin",
                records(&[&[1], &[10]]),
                "byte 3073: label 10 must be less than the number of classes, 10",
            ),
        ] {
            good(&scratch);
            scratch.write(name, bytes);
            assert_eq!(scratch.message(cifar10(&Request::new(&scratch.0))), format!("{name}, {expected}"));
        }
        for (labels, expected) in [
            ([20, 1], "byte 0: coarse label 20 must be less than the number of classes, 20"),
            ([1, 100], "byte 1: label 100 must be less than the number of classes, 100"),
        ] {
            scratch.write("cifar-100-binary/test.bin", records(&[&labels]));
            assert_eq!(
                scratch.message(cifar100(&Request::new(&scratch.0))),
                format!("cifar-100-binary/test.bin, {expected}")
            );
        }
        scratch.remove("data_batch_5.bin");
        assert_eq!(
            scratch.message(cifar10(&Request::new(&scratch.0))),
            "data_batch_5.bin: not found; unpack the \"CIFAR-10 binary version\" of \
             https://www.cs.toronto.edu/~kriz/cifar.html there, or the Parquet files of \
             huggingface.co/datasets/uoft-cs/cifar10"
        );
    }
}
