//! Images in folders: one folder per class, as in torchvision's `ImageFolder`, or as in Tiny ImageNet.
//!
//! Every image is read as RGB. Gray images get three equal channels, and transparency is ignored. If a file holds several images,
//! the first one counts. Images are normalised with the mean and deviation of ImageNet. The loader ignores the orientation that a
//! camera notes in EXIF, so photographs must be turned before. Training images are flipped, and cropped after padding with an
//! eighth of the smaller side.
//!
//! The loader skips `__MACOSX` and hidden files and folders, whose names begin with a dot. It skips files of other formats and
//! counts them in a warning. It follows links, but reads no folder twice.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use image::imageops::FilterType;
use image::{ImageError, ImageReader, RgbImage};

use super::augment::Augment;
use super::dataset::{Dataset, Values};
use super::entry::Entry;
use super::files;
use super::order::shuffled;
use super::request::Request;
use crate::train::error::{FilePosition, TrainError};
use crate::train::shape::Shape;

pub(super) const FOLDER: Entry =
    Entry { resizes: true, ..Entry::images("image-folder", "data/image-folder", image_folder) };
pub(super) const TINY: Entry =
    Entry { resizes: true, ..Entry::images("Tiny ImageNet", "data/tiny-imagenet", tiny_imagenet) };

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Extensions of image files, in small or capital letters.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "bmp", "gif"];

/// The greatest side that `resize` allows.
const MAX_SIDE: usize = 4096;

/// Image files and their labels.
type Listing = Vec<(PathBuf, u16)>;

/// Classes and their labels.
type Classes = BTreeMap<String, u16>;

/// Images (`.png`, `.jpg`, `.jpeg`, `.webp`, `.bmp`, `.gif`) at any depth below `train/<class>/` and `test/<class>/` or
/// `val/<class>/`. Classes are numbered in the order of their names. Images are resized to `[height, width]`. If no size is
/// given, all images must have the size of the first.
///
/// # Errors
///
/// [`TrainError::Io`] if a file is missing, [`TrainError::Data`] if a file breaks the format, and
/// [`TrainError::Setting`] for impossible sizes.
pub fn image_folder(request: &Request<'_>) -> Result<(Dataset, Dataset), TrainError> {
    let hint = "an image folder has `train/<class>/` and `test/<class>/` or `val/<class>/` with images";
    let root = files::find(request.directory, &["train"], hint)?;
    let classes = numbered(folders(&root)?);
    let train = classed(request, &root, &classes)?;
    let test = classed(request, &files::find(request.directory, &["test", "val"], hint)?, &classes)?;
    assemble(request, "image-folder", classes, [train, test])
}

/// Numbers of images of both parts of Tiny ImageNet.
const PUBLISHED: [usize; 2] = [100_000, 10_000];

/// Tiny ImageNet: `train/<id>/images/*.JPEG` and `val/images/*.JPEG`. The ids of the latter are in `val/val_annotations.txt`.
/// Classes are the ids in `wnids.txt`, or the folders if that file is missing. They are numbered in the order of their names.
///
/// # Errors
///
/// As [`image_folder`].
pub fn tiny_imagenet(request: &Request<'_>) -> Result<(Dataset, Dataset), TrainError> {
    let hint = "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip and name its folder by `--data`";
    let root = files::find(request.directory, &["train"], hint)?;
    let ids = request.directory.join("wnids.txt");
    let classes = if ids.exists() {
        let text = files::utf8(&ids, files::read(request, &ids)?)?;
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
    let train = listed(request, &root, classes.iter().map(|(class, &label)| (root.join(class), label)).collect())?;
    request.expect(&root, "images", train.len(), PUBLISHED[0]);
    let annotations = files::find(request.directory, &["val/val_annotations.txt"], hint)?;
    let mut test = Listing::new();
    for (row, line) in files::utf8(&annotations, files::read(request, &annotations)?)?.lines().enumerate() {
        let broken = |rule| TrainError::data(annotations.display(), FilePosition::Line(row as u64 + 1), rule);
        let mut fields = line.split('\t');
        let (Some(file), Some(id)) = (fields.next(), fields.next()) else {
            return Err(broken(format!("'{line}' must be a file and an id, separated by a tabulator")));
        };
        let label = classes.get(id).ok_or_else(|| broken(format!("'{id}' must be one of the classes")))?;
        let path = request.directory.join("val/images").join(file);
        if !is_plain(file) || !path.is_file() {
            return Err(broken(format!("{} must be a file", path.display())));
        }
        test.push((path, *label));
    }
    request.expect(&annotations, "images", test.len(), PUBLISHED[1]);
    assemble(request, "tiny-imagenet", classes, [train, test])
}

/// Whether a name from a list stays in its folder. With `..` or `/` a list could make the loader read any file.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
}

/// Names with their positions in alphabetical order.
fn numbered(mut names: Vec<String>) -> Classes {
    names.sort_unstable();
    names.dedup();
    // `Dataset::new` refuses more than 65536 classes, so wrong labels of more classes do no harm here.
    names.into_iter().enumerate().map(|(label, name)| (name, label as u16)).collect()
}

/// Entries of a folder in the order of their names, without hidden ones.
fn entries(path: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let read = || fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut entries = read().map_err(|error| TrainError::io(path.display(), error))?;
    entries.retain(|entry| {
        let name = entry.file_name().unwrap_or_default();
        !name.as_encoded_bytes().starts_with(b".") && name != "__MACOSX"
    });
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
fn classed(request: &Request<'_>, root: &Path, classes: &Classes) -> Result<Listing, TrainError> {
    let label = |name: String| {
        let path = root.join(&name);
        let broken = || TrainError::data(path.display(), FilePosition::Whole, "must be a class of the training part");
        let label = *classes.get(&name).ok_or_else(broken)?;
        Ok((path, label))
    };
    let roots = folders(root)?.into_iter().map(label).collect::<Result<Listing, TrainError>>()?;
    let beside = entries(root)?.len() - roots.len();
    if beside > 0 {
        request.watch.warn(&format!("{}: skipped {beside} files beside the classes' folders", root.display()));
    }
    listed(request, root, roots)
}

/// The images of a part, at any depth below the folders of its classes, and the other files there.
struct Walk<'a> {
    request: &'a Request<'a>,
    images: Listing,
    /// Links to folders. They are followed last.
    links: VecDeque<(PathBuf, u16)>,
    /// The path by which each folder was reached. The key is the path without links.
    reached: HashMap<PathBuf, PathBuf>,
    /// Numbers of files of other formats by their extension.
    others: BTreeMap<String, usize>,
}

impl Walk<'_> {
    /// Notes that a folder is reached. Returns the path by which it was reached before, if it was.
    fn reach(&mut self, folder: &Path) -> Result<Option<PathBuf>, TrainError> {
        let real = folder.canonicalize().map_err(|error| TrainError::io(folder.display(), error))?;
        let before = self.reached.get(&real).cloned();
        if before.is_none() {
            self.reached.insert(real, folder.to_owned());
        }
        Ok(before)
    }

    /// Adds the images in a folder and below it. Links to folders are kept for later.
    fn walk(&mut self, path: PathBuf, label: u16) -> Result<(), TrainError> {
        let mut folders = vec![path];
        while let Some(folder) = folders.pop() {
            for entry in entries(&folder)? {
                self.request.progress("listing images", self.images.len(), 0)?;
                let extension = entry.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
                if entry.is_dir() && entry.is_symlink() {
                    self.links.push_back((entry, label));
                } else if entry.is_dir() {
                    self.reach(&entry)?;
                    folders.push(entry);
                } else if EXTENSIONS.contains(&extension.as_str()) {
                    self.images.push((entry, label));
                } else {
                    *self.others.entry(extension).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    /// Adds the images behind links to folders that have not been reached yet.
    fn follow(&mut self) -> Result<(), TrainError> {
        while let Some((link, label)) = self.links.pop_front() {
            match self.reach(&link)? {
                None => self.walk(link, label)?,
                Some(other) => self.request.watch.warn(&format!(
                    "{}: skipped, because it leads to {}, which is read once",
                    link.display(),
                    other.display()
                )),
            }
        }
        Ok(())
    }
}

/// The images in the folders of the classes of a part, class by class.
fn listed(request: &Request<'_>, part: &Path, classes: Listing) -> Result<Listing, TrainError> {
    let mut walk = Walk {
        request,
        images: Listing::new(),
        links: VecDeque::new(),
        reached: HashMap::new(),
        others: BTreeMap::new(),
    };
    // All folders of classes are noted before any is read, and links are followed last. So a link from one class to another
    // does not decide which class the images belong to.
    walk.reach(part)?;
    for (path, _) in &classes {
        if let Some(other) = walk.reach(path)? {
            let rule = format!("must not be the same folder as {}", other.display());
            return Err(TrainError::data(path.display(), FilePosition::Whole, rule));
        }
    }
    for (path, label) in &classes {
        walk.walk(path.clone(), *label)?;
    }
    walk.follow()?;
    walk.images.sort_by_key(|&(_, label)| label);
    let empty = |label: &u16| walk.images.binary_search_by_key(label, |&(_, label)| label).is_err();
    if let Some((path, _)) = classes.iter().find(|(_, label)| empty(label)) {
        let rule = format!("must hold an image at least (.{})", EXTENSIONS.join(", ."));
        return Err(TrainError::data(path.display(), FilePosition::Whole, rule));
    }
    if !walk.others.is_empty() {
        let count: usize = walk.others.values().sum();
        let name = |extension: &str| if extension.is_empty() { "none".to_owned() } else { format!(".{extension}") };
        let kinds: Vec<_> = walk.others.iter().map(|(kind, count)| format!("{}: {count}", name(kind))).collect();
        let (part, kinds) = (part.display(), kinds.join(", "));
        request.watch.warn(&format!("{part}: skipped {count} files that are not images ({kinds})"));
    }
    Ok(walk.images)
}

/// Reads the listed images in the order of the fixed shuffle.
fn assemble(
    request: &Request<'_>,
    name: &str,
    classes: Classes,
    parts: [Listing; 2],
) -> Result<(Dataset, Dataset), TrainError> {
    if let Some([height, width]) = request.resize.filter(|size| size.iter().any(|side| !(1..=MAX_SIDE).contains(side)))
    {
        let rule = format!("each side must be from 1 to {MAX_SIDE}");
        return Err(TrainError::setting("resize", format!("{height}x{width}"), rule));
    }
    let [Some((first, _)), Some(_)] = parts.each_ref().map(|part| part.first()) else {
        return Err(TrainError::data(name, FilePosition::Whole, "both parts must hold an image at least"));
    };
    let first = first.clone();
    let size = match request.resize {
        Some(size) => size,
        None => {
            let (width, height) = open(&first)?.dimensions();
            [height as usize, width as usize]
        }
    };
    let names: Vec<String> = classes.into_keys().collect();
    let part = |listing: Listing, limit: Option<usize>| {
        let len = limit.unwrap_or(usize::MAX).min(listing.len());
        let listing: Listing = shuffled(listing.len())[..len].iter().map(|&i| listing[i].clone()).collect();
        let bytes = pixels(request, &listing, size, &first)?;
        let labels = listing.iter().map(|&(_, label)| label).collect();
        Dataset::new(name, Shape::new(3, [1, size[0], size[1]]), names.len(), Values::Bytes(bytes), labels)?
            .with_normalization(&MEAN, &DEVIATION)?
            .with_class_names(names.clone())
    };
    let [train, test] = parts;
    let augment = Augment { crop_padding: size[0].min(size[1]) / 8, flip: true };
    Ok((part(train, request.limits.train)?.with_augment(augment), part(test, request.limits.test)?))
}

/// Decodes images on all cores, because that is most of the work. Channels come first.
fn pixels(request: &Request<'_>, listing: &Listing, size: [usize; 2], first: &Path) -> Result<Vec<u8>, TrainError> {
    let len = 3 * size[0] * size[1];
    let mut bytes = vec![0; listing.len() * len];
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = listing.len().div_ceil(threads).max(1);
    let (done, count) = (AtomicUsize::new(0), listing.len());
    let work = |out: &mut [u8], listing: &[(PathBuf, u16)]| -> Result<(), TrainError> {
        for (out, (path, _)) in out.chunks_exact_mut(len).zip(listing) {
            request.progress("reading images", done.fetch_add(1, Ordering::Relaxed), count)?;
            let image = fitted(path, size, request.resize.is_some(), first)?;
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
        // The first error in the order of the files, whichever thread was faster.
        jobs.into_iter().try_for_each(|job| job.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })?;
    Ok(bytes)
}

/// Reads an image of the size that all images have.
fn fitted(path: &Path, [height, width]: [usize; 2], resize: bool, first: &Path) -> Result<RgbImage, TrainError> {
    let image = open(path)?;
    let (w, h) = image.dimensions();
    if [h as usize, w as usize] == [height, width] {
        return Ok(image);
    }
    if resize {
        return Ok(image::imageops::resize(&image, width as u32, height as u32, FilterType::Triangle));
    }
    let rule = format!("{h}x{w} pixels must be {height}x{width}, as in {}; `--resize` makes them so", first.display());
    Err(TrainError::data(path.display(), FilePosition::Whole, rule))
}

/// Decodes an image. Its first bytes tell the format.
fn open(path: &Path) -> Result<RgbImage, TrainError> {
    let io = |error| TrainError::io(path.display(), error);
    let reader = ImageReader::open(path).map_err(io)?.with_guessed_format().map_err(io)?;
    let image = reader.decode().map_err(|error| match error {
        ImageError::IoError(error) => io(error),
        error => TrainError::data(path.display(), FilePosition::Whole, format!("must be an image: {error}")),
    })?;
    Ok(image.into_rgb8())
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb};

    use super::super::request::Limits;
    use super::super::scratch::{Heard, Scratch};
    use super::*;
    use crate::layout::Layout;

    fn request(scratch: &Scratch, resize: Option<[usize; 2]>, limits: Limits) -> Request<'_> {
        Request { resize, limits, ..Request::new(&scratch.0) }
    }

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
        let (train, test) = image_folder(&request(&scratch, None, Limits::default())).unwrap();
        assert_eq!((train.len(), test.len(), train.classes()), (6, 1, 3));
        assert_eq!((train.shape(), test.label(0)), (Shape::new(3, [1, 2, 3]), 1));
        for i in 0..6 {
            let n = train.label(i) as u8;
            assert_eq!(raw(&train, i), [n, 10 + n, 20 + n].repeat(6));
        }
        assert_eq!((0..3).map(|n| (0..6).filter(|&i| train.label(i) == n).count()).collect::<Vec<_>>(), [2; 3]);
        assert_ne!((0..6).map(|i| train.label(i)).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2], "must be shuffled");
        let limits = Limits { train: Some(4), test: Some(9) };
        let (short, test) = image_folder(&request(&scratch, None, limits)).unwrap();
        assert_eq!((short.len(), test.len()), (4, 1));
        assert!((0..4).all(|i| short.label(i) == train.label(i)));
        let (large, _) = image_folder(&request(&scratch, Some([16, 24]), Limits::default())).unwrap();
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
        let load = |resize| scratch.message(image_folder(&request(&scratch, resize, Limits::default())));
        let hint = "an image folder has `train/<class>/` and `test/<class>/` or `val/<class>/` with images";
        assert_eq!(load(None), format!("train: not found; {hint}"));
        rgb(&scratch, "train/cat/a.png", [2, 3], [0; 3]);
        assert_eq!(load(None), format!("test: not found; {hint}"));
        good(&scratch);
        for resize in [[0, 3], [4, 5000]] {
            let expected = format!("resize is {}x{}: each side must be from 1 to 4096", resize[0], resize[1]);
            assert_eq!(load(Some(resize)), expected);
        }
        rgb(&scratch, "train/emu/c.png", [3, 2], [0; 3]);
        assert_eq!(
            load(None),
            "train/emu/c.png: 3x2 pixels must be 2x3, as in train/cat/a.png; `--resize` makes them so"
        );
        scratch.write("train/emu/c.png", "no image");
        let message = load(None);
        assert!(message.starts_with("train/emu/c.png: must be an image: "), "{message}");
        scratch.remove("train/emu/c.png");
        let whole = fs::read(scratch.0.join("train/cat/a.png")).unwrap();
        scratch.write("val/dog/deep/a.png", &whole[..whole.len() / 2]);
        let message = load(None);
        assert!(message.starts_with("val/dog/deep/a.png: "), "{message}");
        scratch.remove("val/dog/deep/a.png");
        assert_eq!(load(None), "val/dog: must hold an image at least (.png, .jpg, .jpeg, .webp, .bmp, .gif)");
        rgb(&scratch, "test/fox/a.png", [2, 3], [0; 3]);
        assert_eq!(load(None), "test/fox: must be a class of the training part");
    }

    /// The warnings of `image_folder`, and the number of images of each class.
    fn heard(scratch: &Scratch) -> (Vec<String>, Vec<usize>) {
        let heard = Heard::default();
        let asked = Request { watch: &heard, ..Request::new(&scratch.0) };
        let (train, _) = image_folder(&asked).unwrap();
        let count = |class| (0..train.len()).filter(|&i| train.label(i) == class).count();
        (heard.warnings(scratch), (0..train.classes()).map(count).collect())
    }

    #[test]
    fn hidden_files_are_passed_over_and_other_formats_counted() {
        let scratch = Scratch::new("folder-hidden");
        good(&scratch);
        let lines = |said: &[String]| said.iter().map(|line| line.replace("/", "|")).collect::<Vec<_>>();
        let expected = [
            "train: skipped 1 files beside the classes' folders",
            "train: skipped 3 files that are not images (.txt: 3)",
        ];
        assert_eq!(heard(&scratch), (expected.map(str::to_owned).into(), vec![2, 2, 2]));
        for name in [
            "train/.ipynb_checkpoints/a.png",
            "train/__MACOSX/cat/a.png",
            "train/cat/._a.png",
            "train/cat/.ipynb_checkpoints/a-checkpoint.png",
            "train/dog/__MACOSX/a.png",
            "val/.DS_Store",
        ] {
            scratch.write(name, "no image");
        }
        scratch.write("train/emu/README", "no image");
        let (said, counts) = heard(&scratch);
        assert_eq!(counts, [2, 2, 2]);
        assert_eq!(lines(&said)[1], "train: skipped 4 files that are not images (none: 1, .txt: 3)");
    }

    #[test]
    fn images_of_more_formats_are_read() {
        let scratch = Scratch::new("folder-formats");
        rgb(&scratch, "val/cat/a.png", [2, 3], [0, 255, 0]);
        for name in ["a.bmp", "b.gif", "c.webp", "d.PNG"] {
            rgb(&scratch, &format!("train/cat/{name}"), [2, 3], [0, 255, 0]);
        }
        let (train, _) = image_folder(&Request::new(&scratch.0)).unwrap();
        assert_eq!((train.len(), train.class_names()), (4, &["cat".to_owned()][..]));
        for i in 0..4 {
            assert_eq!(raw(&train, i), [0, 255, 0].repeat(6));
        }
    }

    #[test]
    #[cfg(unix)]
    fn links_lead_nowhere_twice() {
        use std::os::unix::fs::symlink;

        let scratch = Scratch::new("folder-links");
        good(&scratch);
        fs::remove_file(scratch.0.join("train/stray.png")).unwrap();
        let link = |to: &str, from: &str| symlink(scratch.0.join(to), scratch.0.join(from)).unwrap();
        link("train/cat", "train/cat/itself");
        link("train", "train/cat/up");
        link("train/emu", "train/cat/other");
        rgb(&scratch, "train/dog/deep/c.png", [2, 3], [1, 11, 21]);
        link("train/dog/deep", "train/cat/deep");
        // A folder outside of the part counts as any other, but once.
        rgb(&scratch, "more/a.png", [2, 3], [2, 12, 22]);
        link("more", "train/emu/more");
        link("more", "train/emu/once-more");
        let (said, counts) = heard(&scratch);
        assert_eq!(counts, [2, 3, 3]);
        let twice = |link: &str, to: &str| format!("{link}: skipped, because it leads to {to}, which is read once");
        assert_eq!(
            said[..5],
            [
                twice("train/cat/deep", "train/dog/deep"),
                twice("train/cat/itself", "train/cat"),
                twice("train/cat/other", "train/emu"),
                twice("train/cat/up", "train"),
                twice("train/emu/once-more", "train/emu/more"),
            ]
        );
        link("train/cat", "train/dog2");
        let message = scratch.message(image_folder(&Request::new(&scratch.0)));
        assert_eq!(message, "train/dog2: must not be the same folder as train/cat");
    }

    #[test]
    fn reading_images_can_be_broken_off() {
        let scratch = Scratch::new("folder-broken-off");
        good(&scratch);
        let steps = {
            let heard = Heard::default();
            image_folder(&Request { watch: &heard, ..Request::new(&scratch.0) }).unwrap();
            let stages = heard.stages.lock().unwrap();
            assert!(stages.iter().any(|stage| stage == "listing images"));
            assert!(stages.iter().any(|stage| stage == "reading images"));
            stages.len()
        };
        for at in 1..=steps {
            let heard = Heard { break_at: Some(at), ..Heard::default() };
            let result = image_folder(&Request { watch: &heard, ..Request::new(&scratch.0) });
            assert!(matches!(result, Err(TrainError::Interrupted)), "{at}");
        }
    }

    fn tiny(scratch: &Scratch) {
        for id in ["n02", "n01"] {
            for i in 0..2 {
                let name = format!("train/{id}/images/{id}_{i}.JPEG");
                scratch.write(&name, "");
                // Some of the real images are gray.
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
            let (train, test) = tiny_imagenet(&request(&scratch, None, Limits::default())).unwrap();
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
        let load = || scratch.message(tiny_imagenet(&request(&scratch, None, Limits::default())));
        let hint = "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip and name its folder by `--data`";
        assert_eq!(load(), format!("train: not found; {hint}"));
        for (name, text, expected) in [
            ("wnids.txt", &b"n02\nn03\n"[..], "wnids.txt, line 2: 'n03' must be a folder in train"),
            ("wnids.txt", b"n02\n\xff\n", "wnids.txt, byte 4: must be UTF-8"),
            // Both exist, but lead out of the folder.
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
