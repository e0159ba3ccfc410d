//! Images in folders: one folder per class, as torchvision's `ImageFolder`, or as Tiny ImageNet.
//!
//! Images are read as RGB, gray ones too, and normalised as ImageNet is. Training images are flipped and cropped from
//! padding of an eighth of the smaller side.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Component, Path, PathBuf};
use std::thread;

use image::imageops::FilterType;
use image::{ImageError, ImageReader, RgbImage};

use super::{Augment, Dataset, Limits, Values, files, shuffled};
use crate::train::error::{FilePosition, TrainError};
use crate::train::shape::Shape;

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Largest side that `resize` may ask for.
const MAX_SIDE: usize = 4096;

/// Image files and their labels.
type Listing = Vec<(PathBuf, u16)>;

/// `train/<class>/…` and `test/<class>/…` or `val/<class>/…` with images (`.png`, `.jpg`, `.jpeg`) at any depth.
/// Classes are numbered in the order of their names. Every image has the size of the first, or is resized to
/// `[height, width]`.
///
/// # Errors
///
/// [`TrainError::Io`] where a file is missing, [`TrainError::Data`] where one breaks the format, and
/// [`TrainError::Setting`] for sizes that make no sense.
pub fn image_folder(
    directory: &Path,
    resize: Option<[usize; 2]>,
    limits: Limits,
) -> Result<(Dataset, Dataset), TrainError> {
    let hint = "an image folder has `train/<class>/` and `test/<class>/` or `val/<class>/` with PNG or JPEG images";
    let root = files::find(directory, &["train"], hint)?;
    let classes = numbered(folders(&root)?);
    let train = classed(&root, &classes)?;
    let test = classed(&files::find(directory, &["test", "val"], hint)?, &classes)?;
    assemble("image-folder", classes.len(), [train, test], resize, limits)
}

/// Tiny ImageNet: `train/<id>/images/*.JPEG`, and `val/images/*.JPEG` with their ids in `val/val_annotations.txt`.
/// Classes are the ids of `wnids.txt`, or the folders if there is no such file, numbered in the order of their names.
///
/// # Errors
///
/// As [`image_folder`].
pub fn tiny_imagenet(
    directory: &Path,
    resize: Option<[usize; 2]>,
    limits: Limits,
) -> Result<(Dataset, Dataset), TrainError> {
    let hint = "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip and name its folder by `directory`";
    let root = files::find(directory, &["train"], hint)?;
    let ids = directory.join("wnids.txt");
    let classes = if ids.exists() {
        let text = files::utf8(&ids, files::read(&ids)?)?;
        let mut names = Vec::new();
        for (row, line) in text.lines().enumerate() {
            let name = line.trim();
            if !is_plain(name) || !root.join(name).is_dir() {
                let rule = format!("'{name}' must be a folder in {}", root.display());
                return Err(TrainError::data(ids.display(), FilePosition::Line(row as u64 + 1), rule));
            }
            names.push(name.to_owned());
        }
        numbered(names)
    } else {
        numbered(folders(&root)?)
    };
    let mut train = Listing::new();
    for (class, &label) in &classes {
        listed(&root.join(class), label, &mut train)?;
    }
    let annotations = files::find(directory, &["val/val_annotations.txt"], hint)?;
    let mut test = Listing::new();
    for (row, line) in files::utf8(&annotations, files::read(&annotations)?)?.lines().enumerate() {
        let broken = |rule| TrainError::data(annotations.display(), FilePosition::Line(row as u64 + 1), rule);
        let mut fields = line.split('\t');
        let (Some(file), Some(id)) = (fields.next(), fields.next()) else {
            return Err(broken(format!("'{line}' must be a file and an id, separated by a tabulator")));
        };
        let label = classes.get(id).ok_or_else(|| broken(format!("'{id}' must be one of the classes")))?;
        let path = directory.join("val/images").join(file);
        if !is_plain(file) || !path.is_file() {
            return Err(broken(format!("{} must be a file", path.display())));
        }
        test.push((path, *label));
    }
    assemble("tiny-imagenet", classes.len(), [train, test], resize, limits)
}

/// Whether a name from a list stays in its folder: `..` or `/` would have the whole file system read.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
}

/// Names with their places in alphabetical order.
fn numbered(mut names: Vec<String>) -> BTreeMap<String, u16> {
    names.sort_unstable();
    names.dedup();
    // More than 65536 classes are refused with the data set; until then their labels are as good as any.
    names.into_iter().enumerate().map(|(label, name)| (name, label as u16)).collect()
}

/// Entries of a folder in the order of their names.
fn entries(path: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let read = || fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut entries = read().map_err(|error| TrainError::io(path.display(), error))?;
    entries.sort_unstable();
    Ok(entries)
}

/// Names of the folders in a folder.
fn folders(path: &Path) -> Result<Vec<String>, TrainError> {
    let mut names = Vec::new();
    for entry in entries(path)?.iter().filter(|entry| entry.is_dir()) {
        let name = entry.file_name().and_then(|name| name.to_str());
        let broken = || TrainError::data(entry.display(), FilePosition::Whole, "the name of a class must be UTF-8");
        names.push(name.ok_or_else(broken)?.to_owned());
    }
    Ok(names)
}

/// Images of all classes in a folder that has a folder per class.
fn classed(root: &Path, classes: &BTreeMap<String, u16>) -> Result<Listing, TrainError> {
    let mut listing = Listing::new();
    for name in folders(root)? {
        let path = root.join(&name);
        let label = classes.get(&name);
        let broken = || TrainError::data(path.display(), FilePosition::Whole, "must be a class of the training part");
        listed(&path, *label.ok_or_else(broken)?, &mut listing)?;
    }
    Ok(listing)
}

/// Adds the images of one class, at any depth.
fn listed(path: &Path, label: u16, listing: &mut Listing) -> Result<(), TrainError> {
    let before = listing.len();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder)? {
            let extension = entry.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
            if entry.is_dir() {
                folders.push(entry);
            } else if matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg")) {
                listing.push((entry, label));
            }
        }
    }
    if listing.len() == before {
        return Err(TrainError::data(
            path.display(),
            FilePosition::Whole,
            "must hold a .png, .jpg or .jpeg image at least",
        ));
    }
    Ok(())
}

/// Reads the listed images, in the fixed order of the shuffle.
fn assemble(
    name: &str,
    classes: usize,
    parts: [Listing; 2],
    resize: Option<[usize; 2]>,
    limits: Limits,
) -> Result<(Dataset, Dataset), TrainError> {
    if let Some([height, width]) = resize.filter(|size| size.iter().any(|side| !(1..=MAX_SIDE).contains(side))) {
        let rule = format!("each side must be from 1 to {MAX_SIDE}");
        return Err(TrainError::setting("resize", format!("[{height}, {width}]"), rule));
    }
    let [Some((first, _)), Some(_)] = parts.each_ref().map(|part| part.first()) else {
        return Err(TrainError::data(name, FilePosition::Whole, "both parts must hold an image at least"));
    };
    let first = first.clone();
    let size = match resize {
        Some(size) => size,
        None => {
            let (width, height) = open(&first)?.dimensions();
            [height as usize, width as usize]
        }
    };
    let part = |listing: Listing, limit: Option<usize>| {
        let len = limit.unwrap_or(usize::MAX).min(listing.len());
        let listing: Listing = shuffled(listing.len())[..len].iter().map(|&i| listing[i].clone()).collect();
        let bytes = pixels(&listing, size, resize.is_some(), &first)?;
        let labels = listing.iter().map(|&(_, label)| label).collect();
        Dataset::new(name, Shape::new(3, [1, size[0], size[1]]), classes, Values::Bytes(bytes), labels)?
            .with_normalization(&MEAN, &DEVIATION)
    };
    let [train, test] = parts;
    let augment = Augment { crop_padding: size[0].min(size[1]) / 8, flip: true };
    Ok((part(train, limits.train)?.with_augment(augment), part(test, limits.test)?))
}

/// Decodes images on all cores, for that is most of the work; channels first.
fn pixels(listing: &Listing, size: [usize; 2], resize: bool, first: &Path) -> Result<Vec<u8>, TrainError> {
    let len = 3 * size[0] * size[1];
    let mut bytes = vec![0; listing.len() * len];
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = listing.len().div_ceil(threads).max(1);
    let work = |out: &mut [u8], listing: &[(PathBuf, u16)]| -> Result<(), TrainError> {
        for (out, (path, _)) in out.chunks_exact_mut(len).zip(listing) {
            let image = fitted(path, size, resize, first)?;
            let (red, rest) = out.split_at_mut(len / 3);
            let (green, blue) = rest.split_at_mut(len / 3);
            for (((pixel, red), green), blue) in image.as_raw().as_chunks::<3>().0.iter().zip(red).zip(green).zip(blue)
            {
                [*red, *green, *blue] = *pixel;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let jobs = bytes.chunks_mut(share * len).zip(listing.chunks(share));
        let jobs: Vec<_> = jobs.map(|(out, listing)| scope.spawn(move || work(out, listing))).collect();
        // The first error in the order of the files, whatever the timing.
        jobs.into_iter().try_for_each(|job| job.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })?;
    Ok(bytes)
}

/// One image of the size that all have.
fn fitted(path: &Path, [height, width]: [usize; 2], resize: bool, first: &Path) -> Result<RgbImage, TrainError> {
    let image = open(path)?;
    let (w, h) = image.dimensions();
    if [h as usize, w as usize] == [height, width] {
        return Ok(image);
    }
    if resize {
        return Ok(image::imageops::resize(&image, width as u32, height as u32, FilterType::Triangle));
    }
    let rule = format!(
        "{h}x{w} pixels must be {height}x{width}, as in {}; the option `resize` makes them so",
        first.display()
    );
    Err(TrainError::data(path.display(), FilePosition::Whole, rule))
}

/// Decodes an image of whatever kind its first bytes say.
fn open(path: &Path) -> Result<RgbImage, TrainError> {
    let io = |error| TrainError::io(path.display(), error);
    let reader = ImageReader::open(path).map_err(io)?.with_guessed_format().map_err(io)?;
    let image = reader.decode().map_err(|error| match error {
        ImageError::IoError(error) => io(error),
        error => TrainError::data(path.display(), FilePosition::Whole, format!("must be a PNG or JPEG image: {error}")),
    })?;
    Ok(image.into_rgb8())
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb};

    use super::super::Scratch;
    use super::*;
    use crate::layout::Layout;

    fn rgb(scratch: &Scratch, name: &str, [height, width]: [u32; 2], color: [u8; 3]) {
        scratch.write(name, "");
        RgbImage::from_pixel(width, height, Rgb(color)).save(scratch.0.join(name)).unwrap();
    }

    fn good(scratch: &Scratch) {
        for (n, class) in ["cat", "dog", "emu"].into_iter().enumerate() {
            let n = n as u8;
            rgb(scratch, &format!("train/{class}/a.png"), [2, 3], [n, 10 + n, 20 + n]);
            rgb(scratch, &format!("train/{class}/b.PNG"), [2, 3], [n, 10 + n, 20 + n]);
            scratch.write(&format!("train/{class}/notes.txt"), "not an image");
        }
        rgb(scratch, "val/dog/deep/a.png", [2, 3], [1, 11, 21]);
        scratch.write("train/stray.png", "not in a class");
    }

    /// Raw bytes of an example.
    fn raw(data: &Dataset, index: usize) -> Vec<u8> {
        let mut out = vec![0.0; data.shape().len()];
        data.read(index, None, Layout::Nhwc, &mut out);
        out.iter().enumerate().map(|(i, x)| ((x * DEVIATION[i % 3] + MEAN[i % 3]) * 255.0).round() as u8).collect()
    }

    #[test]
    fn classes_are_folders() {
        let scratch = Scratch::new("folder-good");
        good(&scratch);
        let (train, test) = image_folder(&scratch.0, None, Limits::default()).unwrap();
        assert_eq!((train.len(), test.len(), train.classes()), (6, 1, 3));
        assert_eq!((train.shape(), test.label(0)), (Shape::new(3, [1, 2, 3]), 1));
        for i in 0..6 {
            let n = train.label(i) as u8;
            assert_eq!(raw(&train, i), [n, 10 + n, 20 + n].repeat(6));
        }
        assert_eq!((0..3).map(|n| (0..6).filter(|&i| train.label(i) == n).count()).collect::<Vec<_>>(), [2; 3]);
        assert_ne!((0..6).map(|i| train.label(i)).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2], "must be shuffled");
        let limits = Limits { train: Some(4), test: Some(9) };
        let (short, test) = image_folder(&scratch.0, None, limits).unwrap();
        assert_eq!((short.len(), test.len()), (4, 1));
        assert!((0..4).all(|i| short.label(i) == train.label(i)));
        let (large, _) = image_folder(&scratch.0, Some([16, 24]), Limits::default()).unwrap();
        assert_eq!(
            (large.shape(), large.augment()),
            (Shape::new(3, [1, 16, 24]), Augment { crop_padding: 2, flip: true })
        );
        let n = large.label(0) as u8;
        assert_eq!(raw(&large, 0)[..3], [n, 10 + n, 20 + n]);
    }

    #[test]
    fn bad_folders_are_named() {
        let scratch = Scratch::new("folder-bad");
        let load = |resize| scratch.message(image_folder(&scratch.0, resize, Limits::default()));
        let hint = "an image folder has `train/<class>/` and `test/<class>/` or `val/<class>/` with PNG or JPEG images";
        assert_eq!(load(None), format!("train: not found; {hint}"));
        rgb(&scratch, "train/cat/a.png", [2, 3], [0; 3]);
        assert_eq!(load(None), format!("test: not found; {hint}"));
        good(&scratch);
        for resize in [[0, 3], [4, 5000]] {
            let expected = format!("resize is {resize:?}: each side must be from 1 to 4096");
            assert_eq!(load(Some(resize)), expected);
        }
        rgb(&scratch, "train/emu/c.png", [3, 2], [0; 3]);
        assert_eq!(
            load(None),
            "train/emu/c.png: 3x2 pixels must be 2x3, as in train/cat/a.png; the option `resize` makes them so"
        );
        scratch.write("train/emu/c.png", "no image");
        let message = load(None);
        assert!(message.starts_with("train/emu/c.png: must be a PNG or JPEG image: "), "{message}");
        scratch.remove("train/emu/c.png");
        let whole = fs::read(scratch.0.join("train/cat/a.png")).unwrap();
        scratch.write("val/dog/deep/a.png", &whole[..whole.len() / 2]);
        let message = load(None);
        assert!(message.starts_with("val/dog/deep/a.png: "), "{message}");
        scratch.remove("val/dog/deep/a.png");
        assert_eq!(load(None), "val/dog: must hold a .png, .jpg or .jpeg image at least");
        rgb(&scratch, "test/fox/a.png", [2, 3], [0; 3]);
        assert_eq!(load(None), "test/fox: must be a class of the training part");
    }

    fn tiny(scratch: &Scratch) {
        for id in ["n02", "n01"] {
            for i in 0..2 {
                let name = format!("train/{id}/images/{id}_{i}.JPEG");
                scratch.write(&name, "");
                // Gray, as some of the real ones are.
                let image = GrayImage::from_pixel(8, 8, Luma([if id == "n01" { 10 } else { 200 }]));
                image.save_with_format(scratch.0.join(name), image::ImageFormat::Jpeg).unwrap();
            }
        }
        rgb(scratch, "val/images/val_0.JPEG", [8, 8], [30, 30, 30]);
        scratch.write("val/val_annotations.txt", "val_0.JPEG\tn02\t0\t0\t7\t7\n");
        scratch.write("wnids.txt", "n02\nn01\n");
    }

    #[test]
    fn tiny_imagenet_is_read() {
        let scratch = Scratch::new("tiny-good");
        tiny(&scratch);
        for ids in [true, false] {
            if !ids {
                scratch.remove("wnids.txt");
            }
            let (train, test) = tiny_imagenet(&scratch.0, None, Limits::default()).unwrap();
            assert_eq!((train.len(), test.len(), train.classes(), test.label(0)), (4, 1, 2, 1));
            assert_eq!(train.shape(), Shape::new(3, [1, 8, 8]));
            for i in 0..4 {
                assert_eq!(raw(&train, i), [[10, 200][train.label(i)]; 192]);
            }
            assert_eq!(train.augment(), Augment { crop_padding: 1, flip: true });
        }
    }

    #[test]
    fn bad_tiny_imagenets_are_named() {
        let scratch = Scratch::new("tiny-bad");
        let load = || scratch.message(tiny_imagenet(&scratch.0, None, Limits::default()));
        let hint = "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip and name its folder by `directory`";
        assert_eq!(load(), format!("train: not found; {hint}"));
        for (name, text, expected) in [
            ("wnids.txt", &b"n02\nn03\n"[..], "wnids.txt, line 2: 'n03' must be a folder in train"),
            ("wnids.txt", b"n02\n\xff\n", "wnids.txt, byte 4: must be UTF-8"),
            // Both are there, and lead out of the folder.
            ("wnids.txt", b"..", "wnids.txt, line 1: '..' must be a folder in train"),
            ("wnids.txt", b"/", "wnids.txt, line 1: '/' must be a folder in train"),
            (
                "val/val_annotations.txt",
                b"../images/val_0.JPEG\tn02",
                "val/val_annotations.txt, line 1: val/images/../images/val_0.JPEG must be a file",
            ),
            (
                "val/val_annotations.txt",
                b"val_0.JPEG n02",
                "val/val_annotations.txt, line 1: 'val_0.JPEG n02' must be a file and an id, separated by a tabulator",
            ),
            (
                "val/val_annotations.txt",
                b"val_0.JPEG\tn02\nval_0.JPEG\tn03",
                "val/val_annotations.txt, line 2: 'n03' must be one of the classes",
            ),
            (
                "val/val_annotations.txt",
                b"val_1.JPEG\tn02",
                "val/val_annotations.txt, line 1: val/images/val_1.JPEG must be a file",
            ),
            ("val/val_annotations.txt", b"", "tiny-imagenet: both parts must hold an image at least"),
        ] {
            tiny(&scratch);
            scratch.write(name, text);
            assert_eq!(load(), expected);
        }
        tiny(&scratch);
        scratch.remove("val/val_annotations.txt");
        assert_eq!(load(), format!("val/val_annotations.txt: not found; {hint}"));
    }
}
