//! Image data sets as the Hugging Face hub distributes them. Each part has one or more Parquet files, in the folder or in a
//! folder below it. A row holds an image, as the bytes of a PNG, and its label.

use std::fs;
use std::path::{Path, PathBuf};

use super::dataset::Dataset;
use super::files;
use super::request::Request;
use crate::train::error::{FilePosition, TrainError};

/// A data set of images, and the names of its columns.
#[cfg_attr(not(feature = "parquet"), expect(dead_code, reason = "only the reader of rows needs it"))]
pub(super) struct Images<'a> {
    pub(super) name: &'a str,
    /// Names that the column of the label may have. Files have one of them.
    pub(super) labels: &'a [&'a str],
    pub(super) classes: usize,
    /// 1 for gray images, 3 for coloured ones.
    pub(super) channels: usize,
    /// `[height, width]`. If None, those of the first image.
    pub(super) size: Option<[usize; 2]>,
    pub(super) mean: &'a [f32],
    pub(super) deviation: &'a [f32],
    /// Numbers of examples of the published training and test part.
    pub(super) published: [usize; 2],
}

/// The training part and the test part. None if the folder has no such files.
///
/// # Errors
///
/// [`TrainError::Data`] for files that break the format, [`TrainError::Io`] for missing ones, and [`TrainError::Setting`] if this
/// build cannot read Parquet files.
pub(super) fn load(request: &Request<'_>, images: &Images<'_>) -> Result<Option<(Dataset, Dataset)>, TrainError> {
    let Some(train) = shards(request.directory, "train")? else { return Ok(None) };
    let hint = "the training part is there, so the test part must be";
    let missing = || files::missing(&train[0].with_file_name("test-00000-of-00001.parquet"), hint);
    let folder = train[0].parent().unwrap_or(request.directory);
    let test = in_folder(folder, "test")?.ok_or_else(missing)?;
    let train = part(request, images, &train, images.size, images.published[0])?;
    let [_, height, width] = train.shape().size;
    let test = part(request, images, &test, Some([height, width]), images.published[1])?;
    Ok(Some((train, test)))
}

#[cfg(feature = "parquet")]
fn part(
    request: &Request<'_>,
    images: &Images<'_>,
    shards: &[PathBuf],
    size: Option<[usize; 2]>,
    published: usize,
) -> Result<Dataset, TrainError> {
    super::parquet::read(request, images, shards, size, published)
}

#[cfg(not(feature = "parquet"))]
fn part(
    request: &Request<'_>,
    _: &Images<'_>,
    shards: &[PathBuf],
    _: Option<[usize; 2]>,
    _: usize,
) -> Result<Dataset, TrainError> {
    let rule = format!("this build does not read {}: it needs the feature `parquet`", shards[0].display());
    Err(TrainError::setting("data", request.directory.display(), rule))
}

/// The files of a part in their order, from the folder or a folder below it. None if there are no files.
fn shards(directory: &Path, part: &str) -> Result<Option<Vec<PathBuf>>, TrainError> {
    if let Some(found) = in_folder(directory, part)? {
        return Ok(Some(found));
    }
    let mut below: Vec<PathBuf> = entries(directory).into_iter().filter(|path| path.is_dir()).collect();
    below.sort();
    let mut found: Option<Vec<PathBuf>> = None;
    for folder in below {
        let Some(here) = in_folder(&folder, part)? else { continue };
        if let Some(there) = &found {
            let rule = format!("{} has a {part} part as well: name one of the two folders", there[0].display());
            return Err(TrainError::data(here[0].display(), FilePosition::Whole, rule));
        }
        found = Some(here);
    }
    Ok(found)
}

/// The files of a part in a folder: `PART-00000-of-00002.parquet` and so on. A hash may follow the numbers.
fn in_folder(folder: &Path, part: &str) -> Result<Option<Vec<PathBuf>>, TrainError> {
    let mut found: Vec<(usize, usize, PathBuf)> = Vec::new();
    for path in entries(folder) {
        let numbers = path.file_name().and_then(|name| shard(name.to_str()?, part));
        found.extend(numbers.map(|(number, of)| (number, of, path)));
    }
    found.sort();
    let Some((_, of, first)) = found.first() else { return Ok(None) };
    for (expected, (number, others, path)) in found.iter().enumerate() {
        if others != of || *number != expected {
            let rule = format!("it must be file {expected} of {of}, because {} is of {of}", first.display());
            return Err(TrainError::data(path.display(), FilePosition::Whole, rule));
        }
    }
    if found.len() != *of {
        let next = first.with_file_name(format!("{part}-{:05}-of-{of:05}.parquet", found.len()));
        return Err(files::missing(&next, &format!("the part has {of} files, of which {} are there", found.len())));
    }
    Ok(Some(found.into_iter().map(|(_, _, path)| path).collect()))
}

/// The number of a file, and the number of files of its part, from its name.
fn shard(name: &str, part: &str) -> Option<(usize, usize)> {
    let rest = name.strip_suffix(".parquet")?.strip_prefix(part)?.strip_prefix('-')?;
    let (number, rest) = rest.split_once("-of-")?;
    let of = rest.split_once('-').map_or(rest, |(of, _)| of);
    Some((number.parse().ok()?, of.parse().ok()?))
}

/// The entries of a folder. None of a folder that cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn names_of_shards() {
        assert_eq!(shard("train-00001-of-00003.parquet", "train"), Some((1, 3)));
        assert_eq!(shard("train-00000-of-00001-0123456789abcdef.parquet", "train"), Some((0, 1)));
        for other in
            ["train.parquet", "test-00000-of-00001.parquet", "train-0-of-x.parquet", "train-00000-of-00001.csv"]
        {
            assert_eq!(shard(other, "train"), None, "{other}");
        }
    }

    #[test]
    fn shards_are_found_whole_or_not_at_all() {
        let scratch = Scratch::new("shards");
        let found = |part| shards(&scratch.0, part);
        assert_eq!(found("train").unwrap(), None);
        scratch.write("plain_text/train-00001-of-00002.parquet", "");
        let message = scratch.message(found("train"));
        assert_eq!(
            message,
            "plain_text/train-00001-of-00002.parquet: it must be file 0 of 2, because plain_text/train-00001-of-00002.parquet \
             is of 2"
        );
        scratch.write("plain_text/train-00000-of-00002.parquet", "");
        let names = ["plain_text/train-00000-of-00002.parquet", "plain_text/train-00001-of-00002.parquet"];
        assert_eq!(found("train").unwrap().unwrap(), names.map(|name| scratch.0.join(name)));
        scratch.remove("plain_text/train-00001-of-00002.parquet");
        assert_eq!(
            scratch.message(found("train")),
            "plain_text/train-00001-of-00002.parquet: not found; the part has 2 files, of which 1 are there"
        );
        scratch.write("plain_text/train-00001-of-00002.parquet", "");
        scratch.write("other/train-00000-of-00001.parquet", "");
        assert_eq!(
            scratch.message(found("train")),
            "plain_text/train-00000-of-00002.parquet: other/train-00000-of-00001.parquet has a train part as well: name \
             one of the two folders"
        );
        // The folder itself comes first.
        scratch.write("train-00000-of-00001.parquet", "");
        assert_eq!(found("train").unwrap().unwrap(), [scratch.0.join("train-00000-of-00001.parquet")]);
    }
}
