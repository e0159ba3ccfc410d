//! The table of data sets, and the settings that choose one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::augment::Augment;
use super::dataset::Dataset;
use super::encoding::Encoding;
use super::entry::Entry;
use super::request::{Limits, Request, Synthetic, Unwatched, Watch};
use super::{cifar, digits, folder, idx, synthetic, text};
use crate::train::error::TrainError;
use crate::train::named::{named, table};

table! {
    /// A data set or a format: the table of all of them.
    #[derive(Default)]
    pub enum Source: Entry, "dataset" {
        /// The bundled digits.
        #[default]
        Digits = "digits" => digits::DIGITS,
        /// MNIST.
        Mnist = "mnist" => idx::MNIST,
        /// Fashion-MNIST.
        FashionMnist = "fashion-mnist" => idx::FASHION,
        /// CIFAR-10.
        Cifar10 = "cifar10" => cifar::TEN,
        /// CIFAR-100.
        Cifar100 = "cifar100" => cifar::HUNDRED,
        /// Tiny ImageNet.
        TinyImagenet = "tiny-imagenet" => folder::TINY,
        /// A folder of images for each class.
        ImageFolder = "image-folder" => folder::FOLDER,
        /// Movie Review.
        Mr = "mr" => text::MOVIE_REVIEW,
        /// AG's News.
        AgNews = "ag-news" => text::AG_NEWS,
        /// Yelp Review Full.
        YelpFull = "yelp-full" => text::YELP_FULL,
        /// Random images.
        Synthetic = "synthetic" => synthetic::SYNTHETIC,
    }
}

impl Source {
    /// The usual name.
    pub const fn title(self) -> &'static str {
        self.entry().title
    }

    /// The default directory of its files. None if it needs no files.
    pub fn directory(self) -> Option<PathBuf> {
        self.entry().directory.map(PathBuf::from)
    }

    /// The default encoding of its texts. None for images.
    pub const fn encoding(self) -> Option<Encoding> {
        self.entry().encoding
    }
}

/// A data set, and how it is loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataConfig {
    /// The data set.
    pub source: Source,
    /// The directory of its files. If None, [`Source::directory`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// The largest number of training examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// The largest number of test examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
    /// Whether training images are changed at random, as is customary for the data set.
    pub augment: bool,
    /// `[height, width]` that images in folders are resized to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<[usize; 2]>,
    /// How texts are encoded. If None, [`Source::encoding`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// Extents of synthetic images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<Synthetic>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: Source::default(),
            directory: None,
            train_limit: None,
            test_limit: None,
            augment: true,
            resize: None,
            encoding: None,
            synthetic: None,
        }
    }
}

impl DataConfig {
    /// Loads the training part and the test part.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] for a setting that is impossible or that the data set does not have, [`TrainError::Io`] if a file
    /// is missing (the message says how to get it), and [`TrainError::Data`] if a file breaks its format.
    pub fn load(&self) -> Result<(Dataset, Dataset), TrainError> {
        self.load_watched(&Unwatched, None)
    }

    /// As [`load`](Self::load), with a watcher. If `vocabulary` is given, words have their numbers from there, and not from the
    /// training part.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and [`TrainError::Interrupted`] if the watcher interrupts.
    pub fn load_watched(
        &self,
        watch: &dyn Watch,
        vocabulary: Option<&[String]>,
    ) -> Result<(Dataset, Dataset), TrainError> {
        self.check()?;
        let directory = self.folder();
        let request = Request {
            limits: Limits { train: self.train_limit, test: self.test_limit },
            resize: self.resize,
            encoding: self.encoding.or(self.source.encoding()),
            vocabulary,
            synthetic: self.synthetic.unwrap_or_default(),
            watch,
            ..Request::new(&directory)
        };
        let (train, test) = (self.source.entry().load)(&request)?;
        let train = if self.augment { train } else { train.with_augment(Augment::default()) };
        let limited = |data: Dataset, limit: Option<usize>| data.truncated(limit.unwrap_or(usize::MAX));
        Ok((limited(train, self.train_limit), limited(test, self.test_limit)))
    }

    /// The directory of the files. None if the data set needs no files.
    pub fn folder(&self) -> PathBuf {
        self.directory.clone().or_else(|| self.source.directory()).unwrap_or_default()
    }

    /// The directory as text, or the name of the data set if it needs no files.
    pub fn origin(&self) -> String {
        if self.folder().as_os_str().is_empty() { self.source.to_string() } else { self.folder().display().to_string() }
    }

    /// Refuses settings that the data set does not use, because they are mistakes.
    pub(in crate::train) fn check(&self) -> Result<(), TrainError> {
        let source = self.source;
        for (name, limit) in [("limit", self.train_limit), ("test-limit", self.test_limit)] {
            if limit == Some(0) {
                return Err(TrainError::setting(name, 0, "it must be at least 1"));
            }
        }
        if let Some(directory) = &self.directory {
            let refused = |rule: String| Err(TrainError::setting("data", directory.display(), rule));
            if source.directory().is_none() {
                return refused(format!("the data set {source} needs no files"));
            }
            if directory.to_str().is_none() {
                return refused("it must be UTF-8, because the configuration that names it is UTF-8".to_owned());
            }
        }
        if let Some([height, width]) = self.resize
            && !source.entry().resizes
        {
            let rule = format!("only images in folders are resized, not the data set {source}");
            return Err(TrainError::setting("resize", format!("{height}x{width}"), rule));
        }
        if let (Some(encoding), None) = (self.encoding, source.encoding()) {
            return Err(TrainError::setting("encoding", encoding, format!("the data set {source} is not text")));
        }
        if self.synthetic.is_some() && source != Source::Synthetic {
            let rule = format!("the data set {source} has extents of its own");
            return Err(TrainError::setting("synthetic", "given", rule));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::{Heard, Scratch};
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for &source in Source::ALL_VALUES {
            assert_eq!(source.key().parse::<Source>().unwrap(), source);
            assert_eq!(serde_json::to_string(&source).unwrap(), format!("\"{source}\""));
            assert!(Source::names().contains(source.key()) && !source.title().is_empty());
        }
        assert_eq!(
            "imagenet".parse::<Source>().unwrap_err().to_string(),
            "dataset is imagenet: it must be one of digits, mnist, fashion-mnist, cifar10, cifar100, tiny-imagenet, \
             image-folder, mr, ag-news, yelp-full, synthetic"
        );
    }

    #[test]
    fn configurations_survive_toml_and_have_defaults() {
        let full = DataConfig {
            source: Source::Mr,
            directory: Some("some/where".into()),
            train_limit: Some(5),
            test_limit: Some(6),
            augment: false,
            resize: Some([3, 4]),
            encoding: Some(Encoding::Words { length: 3, vocabulary: 4 }),
            synthetic: Some(Synthetic::default()),
        };
        for config in [full, DataConfig::default()] {
            assert_eq!(toml::from_str::<DataConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
            assert_eq!(serde_json::from_str::<DataConfig>(&serde_json::to_string(&config).unwrap()).unwrap(), config);
        }
        let text = "source = \"ag-news\"\nencoding.characters.length = 7\n";
        let expected = DataConfig {
            source: Source::AgNews,
            encoding: Some(Encoding::Characters { length: 7 }),
            ..DataConfig::default()
        };
        assert_eq!(toml::from_str::<DataConfig>(text).unwrap(), expected);
        for unknown in ["sauce = 1", "[encoding.words]\nlength = 1\nvocabulary = 2\nmore = 3", "[synthetic]\nsice = 3"]
        {
            assert!(toml::from_str::<DataConfig>(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn limits_and_augmentation_are_applied() {
        let config = DataConfig { train_limit: Some(100), test_limit: Some(10_000), ..DataConfig::default() };
        let (train, test) = config.load().unwrap();
        assert_eq!((train.name(), train.len(), test.len()), ("digits", 100, 497));
        let scratch = Scratch::new("source");
        let record = |label: u8| [label].into_iter().chain([0; 3072]).collect::<Vec<u8>>();
        (1..6).for_each(|n| scratch.write(&format!("data_batch_{n}.bin"), record(n)));
        scratch.write("test_batch.bin", record(0));
        for augment in [false, true] {
            let directory = Some(scratch.0.clone());
            let config = DataConfig { source: Source::Cifar10, directory, augment, ..DataConfig::default() };
            assert_eq!(config.load().unwrap().0.augment() != Augment::default(), augment);
        }
        let config = DataConfig { source: Source::Synthetic, ..DataConfig::default() };
        assert_eq!(config.load().unwrap().0.len(), 1024);
    }

    /// Loading ends wherever the watcher interrupts.
    #[test]
    fn loading_is_watched_and_can_be_broken_off() {
        let scratch = Scratch::new("watched");
        let rows = |count: usize| (0..count).map(|i| format!("{},a word\n", i % 4 + 1)).collect::<String>();
        scratch.write("train.csv", rows(50));
        scratch.write("test.csv", rows(20));
        let encoding = Some(Encoding::Words { length: 4, vocabulary: 10 });
        let directory = Some(scratch.0.clone());
        let news = DataConfig { source: Source::AgNews, directory, encoding, ..DataConfig::default() };
        let images = DataConfig { source: Source::Synthetic, ..DataConfig::default() };
        for (config, stages) in [
            (&news, &["reading train.csv", "reading test.csv", "counting words", "encoding texts"][..]),
            (&images, &["drawing images"]),
        ] {
            let heard = Heard::default();
            config.load_watched(&heard, None).unwrap();
            let mut found = heard.stages.lock().unwrap().clone();
            let steps = found.len();
            found.dedup();
            assert_eq!(found, stages);
            for at in [1, steps / 3, steps / 2, steps] {
                let heard = Heard { break_at: Some(at.max(1)), ..Heard::default() };
                let result = config.load_watched(&heard, None);
                assert!(matches!(result, Err(TrainError::Interrupted)), "{at} of {steps}");
                assert_eq!(heard.stages.lock().unwrap().len(), at.max(1));
            }
        }
    }

    #[test]
    fn settings_that_do_not_belong_are_refused() {
        let of = |source| DataConfig { source, ..DataConfig::default() };
        for (config, expected) in [
            (DataConfig { train_limit: Some(0), ..of(Source::Mnist) }, "limit is 0: it must be at least 1"),
            (DataConfig { test_limit: Some(0), ..of(Source::Mnist) }, "test-limit is 0: it must be at least 1"),
            (
                DataConfig { directory: Some("d".into()), ..of(Source::Digits) },
                "data is d: the data set digits needs no files",
            ),
            (
                DataConfig { resize: Some([8, 8]), ..of(Source::Mnist) },
                "resize is 8x8: only images in folders are resized, not the data set mnist",
            ),
            (
                DataConfig { encoding: Some(Encoding::Characters { length: 1 }), ..of(Source::Cifar10) },
                "encoding is characters: the data set cifar10 is not text",
            ),
            (
                DataConfig { synthetic: Some(Synthetic::default()), ..of(Source::Cifar10) },
                "synthetic is given: the data set cifar10 has extents of its own",
            ),
            (
                DataConfig { directory: Some("nowhere".into()), ..of(Source::Cifar100) },
                "nowhere/train.bin: not found; unpack the \"CIFAR-100 binary version\" of \
                 https://www.cs.toronto.edu/~kriz/cifar.html there, or the Parquet files of \
                 huggingface.co/datasets/uoft-cs/cifar100",
            ),
        ] {
            assert_eq!(config.load().unwrap_err().to_string(), expected);
        }
    }
}
