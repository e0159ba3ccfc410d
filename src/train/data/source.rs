//! Which data set to train on, by name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::text::Encoding;
use super::{Augment, Dataset, Limits, Synthetic, cifar, digits, folder, idx, synthetic, text};
use crate::train::error::TrainError;

/// A data set or a format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The bundled digits.
    #[default]
    Digits,
    /// MNIST.
    Mnist,
    /// Fashion-MNIST.
    FashionMnist,
    /// CIFAR-10.
    Cifar10,
    /// CIFAR-100.
    Cifar100,
    /// Tiny ImageNet.
    TinyImagenet,
    /// A folder of images for each class.
    ImageFolder,
    /// Movie Review.
    Mr,
    /// AG's News.
    AgNews,
    /// Yelp Review Full.
    YelpFull,
    /// Random images.
    Synthetic,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Digits,
        Self::Mnist,
        Self::FashionMnist,
        Self::Cifar10,
        Self::Cifar100,
        Self::TinyImagenet,
        Self::ImageFolder,
        Self::Mr,
        Self::AgNews,
        Self::YelpFull,
        Self::Synthetic,
    ];

    /// Its name in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
            Self::TinyImagenet => "tiny-imagenet",
            Self::ImageFolder => "image-folder",
            Self::Mr => "mr",
            Self::AgNews => "ag-news",
            Self::YelpFull => "yelp-full",
            Self::Synthetic => "synthetic",
        }
    }

    /// Where its files are sought if a configuration does not say: where Debian installs Fashion-MNIST, `data/<name>`
    /// for the others, nowhere for what needs no files.
    pub fn directory(self) -> Option<PathBuf> {
        match self {
            Self::Digits | Self::Synthetic => None,
            Self::FashionMnist => Some("/usr/share/datasets/fashion-mnist".into()),
            other => Some(["data", other.name()].iter().collect()),
        }
    }

    /// How texts are encoded if a configuration does not say; nothing for images.
    pub const fn encoding(self) -> Option<Encoding> {
        match self {
            Self::Mr => Some(Encoding::Words { length: 64, vocabulary: 20_000 }),
            Self::AgNews | Self::YelpFull => Some(Encoding::Characters { length: 1014 }),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Source {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Self, TrainError> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|source| source.name() == name);
        found.ok_or_else(|| TrainError::setting("source", format!("'{name}'"), format!("must be one of {}", names())))
    }
}

/// A data set and how it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataConfig {
    /// Which.
    pub source: Source,
    /// Where its files are; see [`Source::directory`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Most training examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Most test examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
    /// Whether training images are changed at random, in the way that is customary for the data set.
    pub augment: bool,
    /// `[height, width]` that images in folders are resized to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<[usize; 2]>,
    /// How texts are encoded; see [`Source::encoding`].
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
    /// Training and test part.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] for a setting that makes no sense or is not the source's, [`TrainError::Io`] where a
    /// file is missing (it says how to get it), and [`TrainError::Data`] where one breaks its format.
    pub fn load(&self) -> Result<(Dataset, Dataset), TrainError> {
        self.check()?;
        let source = self.source;
        let directory = self.directory.clone().or_else(|| source.directory()).unwrap_or_default();
        let limits = Limits { train: self.train_limit, test: self.test_limit };
        // Only texts have an encoding, and only they ask for it.
        let encoding = self.encoding.or(source.encoding()).unwrap_or(Encoding::Characters { length: 1 });
        let (train, test) = match source {
            Source::Digits => digits::load(),
            Source::Mnist => idx::mnist(&directory),
            Source::FashionMnist => idx::fashion_mnist(&directory),
            Source::Cifar10 => cifar::cifar10(&directory),
            Source::Cifar100 => cifar::cifar100(&directory),
            Source::TinyImagenet => folder::tiny_imagenet(&directory, self.resize, limits),
            Source::ImageFolder => folder::image_folder(&directory, self.resize, limits),
            Source::Mr => text::movie_review(&directory, encoding, limits),
            Source::AgNews => text::ag_news(&directory, encoding, limits),
            Source::YelpFull => text::yelp_full(&directory, encoding, limits),
            Source::Synthetic => synthetic::load(&self.synthetic.unwrap_or_default()),
        }?;
        let train = if self.augment { train } else { train.with_augment(Augment::default()) };
        let limited = |data: Dataset, limit: Option<usize>| data.truncated(limit.unwrap_or(usize::MAX));
        Ok((limited(train, limits.train), limited(test, limits.test)))
    }

    /// Settings that the source has no use for are mistakes, not to be passed over.
    fn check(&self) -> Result<(), TrainError> {
        let source = self.source;
        for (name, limit) in [("train-limit", self.train_limit), ("test-limit", self.test_limit)] {
            if limit == Some(0) {
                return Err(TrainError::setting(name, 0, "must be at least 1"));
            }
        }
        if let (Some(directory), None) = (&self.directory, source.directory()) {
            let rule = format!("the source {source} needs no files");
            return Err(TrainError::setting("directory", directory.display(), rule));
        }
        if let Some(resize) = self.resize
            && !matches!(source, Source::ImageFolder | Source::TinyImagenet)
        {
            let rule = format!("only images in folders are resized, not the source {source}");
            return Err(TrainError::setting("resize", format!("{resize:?}"), rule));
        }
        if let (Some(encoding), None) = (self.encoding, source.encoding()) {
            let value = match encoding {
                Encoding::Characters { .. } => "characters",
                Encoding::Words { .. } => "words",
            };
            return Err(TrainError::setting("encoding", value, format!("the source {source} is not text")));
        }
        if self.synthetic.is_some() && source != Source::Synthetic {
            let rule = format!("the source {source} has extents of its own");
            return Err(TrainError::setting("synthetic", "given", rule));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scratch;
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for source in Source::ALL {
            assert_eq!(source.name().parse::<Source>().unwrap(), source);
            assert_eq!(serde_json::to_string(&source).unwrap(), format!("\"{source}\""));
        }
        assert_eq!(
            "imagenet".parse::<Source>().unwrap_err().to_string(),
            "source is 'imagenet': must be one of digits, mnist, fashion-mnist, cifar10, cifar100, tiny-imagenet, \
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

    #[test]
    fn settings_that_do_not_belong_are_refused() {
        let of = |source| DataConfig { source, ..DataConfig::default() };
        for (config, expected) in [
            (DataConfig { train_limit: Some(0), ..of(Source::Mnist) }, "train-limit is 0: must be at least 1"),
            (DataConfig { test_limit: Some(0), ..of(Source::Mnist) }, "test-limit is 0: must be at least 1"),
            (
                DataConfig { directory: Some("d".into()), ..of(Source::Digits) },
                "directory is d: the source digits needs no files",
            ),
            (
                DataConfig { resize: Some([8, 8]), ..of(Source::Mnist) },
                "resize is [8, 8]: only images in folders are resized, not the source mnist",
            ),
            (
                DataConfig { encoding: Some(Encoding::Characters { length: 1 }), ..of(Source::Cifar10) },
                "encoding is characters: the source cifar10 is not text",
            ),
            (
                DataConfig { synthetic: Some(Synthetic::default()), ..of(Source::Cifar10) },
                "synthetic is given: the source cifar10 has extents of its own",
            ),
            (
                DataConfig { directory: Some("nowhere".into()), ..of(Source::Cifar100) },
                "nowhere/train.bin: not found; unpack the \"CIFAR-100 binary version\" of \
                 https://www.cs.toronto.edu/~kriz/cifar.html there",
            ),
        ] {
            assert_eq!(config.load().unwrap_err().to_string(), expected);
        }
    }
}
