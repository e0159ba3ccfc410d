//! Options that describe a run, shared by the commands that train.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use convrelu::train::data::{Encoding, Source, Synthetic};
use convrelu::train::models::{Activation, Architecture, Region};
use convrelu::train::{Config, Rule, Schedule, Sharing, ThresholdInit, TrainError, WeightInit};

use crate::{Failure, Usage};

/// Every setting of a run. A setting that is not given comes from the file of `--config`, or else from the paper.
#[derive(Args, Clone, Default)]
pub(crate) struct Settings {
    /// TOML file with settings; options on the command line override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Data")]
    pub(crate) data: Data,
    #[command(flatten, next_help_heading = "Network")]
    pub(crate) model: Model,
    #[command(flatten, next_help_heading = "Training")]
    pub(crate) train: Training,
}

#[derive(Args, Clone, Default)]
pub(crate) struct Data {
    #[arg(long, value_name = "NAME", help = Source::names())]
    pub(crate) dataset: Option<Source>,
    /// Directory of the data set's files
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) data: Option<PathBuf>,
    /// Use the first N training examples only
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Use the first N test examples only
    #[arg(long, value_name = "N")]
    pub(crate) test_limit: Option<usize>,
    /// No random crops and flips
    #[arg(long)]
    pub(crate) no_augment: bool,
    /// Images in folders: resize them to HEIGHTxWIDTH
    #[arg(long, value_name = "HxW", value_parser = size)]
    pub(crate) resize: Option<[usize; 2]>,
    /// Text: tokens are words or characters
    #[arg(long, value_name = "NAME")]
    pub(crate) encoding: Option<Token>,
    /// Text: tokens per example
    #[arg(long, value_name = "N")]
    pub(crate) length: Option<usize>,
    /// Text: number of words in the vocabulary
    #[arg(long, value_name = "N")]
    pub(crate) vocabulary: Option<usize>,
    /// Random images: any of channels=, height=, width=, classes=, train=, test=, seed=. The others are those of CIFAR-10, with
    /// 1024 training and 256 test images
    #[arg(long, value_name = "KEY=N,…", value_parser = synthetic)]
    pub(crate) synthetic: Option<Synthetic>,
}

/// The meaning of a number of an encoded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Token {
    Words,
    Characters,
}

#[derive(Args, Clone, Default)]
pub(crate) struct Model {
    #[arg(long, value_name = "NAME", help = Architecture::names())]
    pub(crate) network: Option<Architecture>,
    #[arg(long, value_name = "NAME", help = Activation::names())]
    pub(crate) activation: Option<Activation>,
    /// Blocks in which it replaces ReLU: first (R1), last (R2) or all (R3)
    #[arg(long, value_name = "NAME")]
    pub(crate) region: Option<Region>,
    /// Which units share a coefficient of PReLU or AdaReLU: those of a layer, channel or element
    #[arg(long, value_name = "NAME")]
    pub(crate) sharing: Option<Sharing>,
    /// Initial thresholds: zero, gaussian:SCALE, uniform:SCALE, glorot
    #[arg(long, value_name = "INIT")]
    pub(crate) threshold_init: Option<ThresholdInit>,
    /// Initial weights: he, pytorch
    #[arg(long, value_name = "INIT")]
    pub(crate) weight_init: Option<WeightInit>,
    /// Keep activations in memory with channels last (NHWC)
    #[arg(long)]
    pub(crate) channels_last: bool,
    /// DenseNets: channels that each layer adds [default: 12]
    #[arg(long, value_name = "N")]
    pub(crate) growth: Option<usize>,
    /// densenet40: layers per block [default: 8]
    #[arg(long, value_name = "N")]
    pub(crate) depth: Option<usize>,
    /// text-cnn: features per convolution [default: 256; large: 1024]
    #[arg(long, value_name = "N")]
    pub(crate) features: Option<usize>,
    /// text-cnn: units per fully connected layer [default: 1024; large: 2048]
    #[arg(long, value_name = "N")]
    pub(crate) units: Option<usize>,
    /// text-cnn: dimensions of a word's vector [default: 128]
    #[arg(long, value_name = "N")]
    pub(crate) embedding: Option<usize>,
    /// text-cnn: standard deviation of the initial word vectors [default: 1]
    #[arg(long, value_name = "DEVIATION")]
    pub(crate) embedding_deviation: Option<f32>,
    /// text-cnn: share of the elements of word vectors that dropout zeroes [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub(crate) embedding_dropout: Option<f32>,
    /// text-cnn: share of units that dropout zeroes [default: 0.5]
    #[arg(long, value_name = "SHARE")]
    pub(crate) dropout: Option<f32>,
}

#[derive(Args, Clone, Default)]
pub(crate) struct Training {
    /// Passes over the training set [default: 350]
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// Examples per step [default: 128]; with batch normalisation at least 2, and a last batch of one is left out
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Examples computed together, if fewer than a batch; their gradients accumulate
    #[arg(long, value_name = "N")]
    pub(crate) micro_batch: Option<usize>,
    /// Learning rate at the start [default: 0.1]
    #[arg(long, value_name = "RATE")]
    pub(crate) learning_rate: Option<f32>,
    /// Epochs after which the learning rate falls to a tenth [default: 150/350 and 250/350 of the epochs]
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with = "cosine")]
    pub(crate) milestones: Option<Vec<usize>>,
    /// Let the learning rate fall along a cosine
    #[arg(long)]
    pub(crate) cosine: bool,
    /// How gradients change the parameters: sgd, adam (with decoupled weight decay) [default: sgd]
    #[arg(long, value_name = "NAME")]
    pub(crate) optimizer: Option<Rule>,
    /// Momentum of SGD, or Adam's β₁ [default: 0.9]
    #[arg(long, value_name = "M")]
    pub(crate) momentum: Option<f32>,
    /// Use Nesterov's momentum
    #[arg(long)]
    pub(crate) nesterov: bool,
    /// Weight decay of weights, thresholds, norms and biases [default: 5e-4]
    #[arg(long, value_name = "DECAY")]
    pub(crate) decay: Option<f32>,
    /// Weight decay of thresholds, if different
    #[arg(long, value_name = "DECAY")]
    pub(crate) threshold_decay: Option<f32>,
    /// Weight decay of norms, biases and slopes, if different
    #[arg(long, value_name = "DECAY")]
    pub(crate) norm_decay: Option<f32>,
    /// Share of the target that is spread equally over all classes [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub(crate) label_smoothing: Option<f32>,
    /// Seed of everything random [default: 1]
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,
    /// Threads; their number does not change results [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Instruction set of the kernels: scalar, neon, avx2, avx512 [default: the best]
    #[arg(long, value_name = "NAME")]
    pub(crate) isa: Option<String>,
}

impl Settings {
    /// The configuration: defaults, then the file, then these options.
    pub(crate) fn resolve(&self, defaults: Config) -> Result<Config, Failure> {
        let mut config = match &self.config {
            Some(path) => {
                let refused = |error: &dyn std::fmt::Display| Usage(format!("--config {}: {error}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|error| refused(&error))?;
                Config::from_toml(&path.display().to_string(), &text)
                    .map_err(|error| Usage(format!("--config {error}")))?
            }
            None => defaults,
        };
        self.data.apply(&mut config)?;
        self.model.apply(&mut config);
        self.train.apply(&mut config);
        Ok(config)
    }

    /// Refuses a weight decay of thresholds where there are none. A configuration holds all decays, so it does not show whether
    /// the user has given this one.
    pub(crate) fn check(&self, config: &Config) -> Result<(), Failure> {
        match self.train.threshold_decay {
            Some(decay) if !config.model.activation.has_thresholds() => {
                let rule = format!("the activation {} has no thresholds", config.model.activation);
                let value = decay.to_string();
                Err(TrainError::Setting { name: "threshold-decay", value, rule }.into())
            }
            _ => Ok(()),
        }
    }
}

/// Replaces a setting by an option that is given.
fn set<T: Clone>(setting: &mut T, option: &Option<T>) {
    if let Some(value) = option {
        *setting = value.clone();
    }
}

impl Data {
    fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        let data = &mut config.data;
        set(&mut data.source, &self.dataset);
        for (setting, option) in [(&mut data.train_limit, self.limit), (&mut data.test_limit, self.test_limit)] {
            *setting = option.or(*setting);
        }
        data.directory = self.data.clone().or(data.directory.take());
        data.augment &= !self.no_augment;
        data.resize = self.resize.or(data.resize);
        data.synthetic = self.synthetic.or(data.synthetic);
        let (length, vocabulary) = (self.length, self.vocabulary);
        let of = |token: Token| match (token, data.encoding.or_else(|| data.source.encoding())) {
            (Token::Words, Some(encoding @ Encoding::Words { .. })) => encoding,
            (Token::Words, _) => Encoding::Words { length: 64, vocabulary: 20_000 },
            (Token::Characters, Some(encoding @ Encoding::Characters { .. })) => encoding,
            (Token::Characters, _) => Encoding::Characters { length: 1014 },
        };
        let given = [("length", length), ("vocabulary", vocabulary)].into_iter().find(|(_, value)| value.is_some());
        let base = match self.encoding {
            Some(unit) => Some(of(unit)),
            None => data.encoding.or_else(|| data.source.encoding()),
        };
        let refused = |(name, value): (&'static str, Option<usize>), rule: String| {
            let value = value.unwrap_or_default().to_string();
            Err(TrainError::Setting { name, value, rule }.into())
        };
        data.encoding = match (base, given) {
            (_, None) => self.encoding.map(of).or(data.encoding),
            (None, Some(given)) => return refused(given, format!("the data set {} is not text", data.source)),
            (Some(Encoding::Words { length: l, vocabulary: v }), Some(_)) => {
                Some(Encoding::Words { length: length.unwrap_or(l), vocabulary: vocabulary.unwrap_or(v) })
            }
            (Some(Encoding::Characters { .. }), Some(_)) if vocabulary.is_some() => {
                return refused(("vocabulary", vocabulary), "characters have an alphabet, not a vocabulary".to_owned());
            }
            (Some(Encoding::Characters { length: l }), Some(_)) => {
                Some(Encoding::Characters { length: length.unwrap_or(l) })
            }
        };
        Ok(())
    }
}

impl Model {
    fn apply(&self, config: &mut Config) {
        let model = &mut config.model;
        set(&mut model.network, &self.network);
        set(&mut model.activation, &self.activation);
        set(&mut model.region, &self.region);
        set(&mut model.sharing, &self.sharing);
        set(&mut model.threshold_init, &self.threshold_init);
        set(&mut model.weight_init, &self.weight_init);
        set(&mut model.dropout, &self.dropout);
        model.embedding_deviation = self.embedding_deviation.or(model.embedding_deviation);
        model.embedding_dropout = self.embedding_dropout.or(model.embedding_dropout);
        model.channels_last |= self.channels_last;
        for (setting, option) in [
            (&mut model.growth, self.growth),
            (&mut model.depth, self.depth),
            (&mut model.features, self.features),
            (&mut model.units, self.units),
            (&mut model.embedding, self.embedding),
        ] {
            *setting = option.or(*setting);
        }
    }
}

impl Training {
    fn apply(&self, config: &mut Config) {
        let train = &mut config.train;
        set(&mut train.epochs, &self.epochs);
        set(&mut train.batch, &self.batch);
        train.micro_batch = self.micro_batch.or(train.micro_batch);
        set(&mut train.learning_rate, &self.learning_rate);
        if let Some(milestones) = &self.milestones {
            train.schedule = Schedule::Step { milestones: milestones.clone(), factor: 0.1 };
        }
        if self.cosine {
            train.schedule = Schedule::Cosine;
        }
        set(&mut train.optimizer, &self.optimizer);
        set(&mut train.momentum, &self.momentum);
        train.nesterov |= self.nesterov;
        if let Some(decay) = self.decay {
            let all = &mut train.decay;
            (all.weights, all.thresholds, all.norms_and_biases) = (decay, decay, decay);
        }
        set(&mut train.decay.thresholds, &self.threshold_decay);
        set(&mut train.decay.norms_and_biases, &self.norm_decay);
        set(&mut train.label_smoothing, &self.label_smoothing);
        set(&mut train.seed, &self.seed);
        train.threads = self.threads.and_then(|threads| NonZeroUsize::new(threads.into())).or(train.threads);
        train.isa = self.isa.clone().or(train.isa.take());
    }
}

/// `HEIGHTxWIDTH`.
fn size(text: &str) -> Result<[usize; 2], String> {
    let sides = text.split_once('x').and_then(|(height, width)| Some([height.parse().ok()?, width.parse().ok()?]));
    sides.ok_or_else(|| "it must be HEIGHTxWIDTH, as in 32x32".to_owned())
}

/// `KEY=N,…`.
fn synthetic(text: &str) -> Result<Synthetic, String> {
    let mut images = Synthetic::default();
    for part in text.split(',') {
        let (key, number) = part.split_once('=').ok_or_else(|| format!("'{part}' must be KEY=N"))?;
        let value: u64 = number.parse().map_err(|_| format!("'{number}' must be a whole number"))?;
        let len = usize::try_from(value).map_err(|_| format!("'{number}' is too large"))?;
        match key {
            "channels" => images.channels = len,
            "height" => images.size[0] = len,
            "width" => images.size[1] = len,
            "classes" => images.classes = len,
            "train" => images.train = len,
            "test" => images.test = len,
            "seed" => images.seed = value,
            _ => {
                let keys = "channels, height, width, classes, train, test, seed";
                return Err(format!("'{key}' must be one of {keys}"));
            }
        }
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn resolve(line: &str) -> Result<Config, Failure> {
        let settings = Line::try_parse_from(format!("test {line}").split_whitespace())?.settings;
        settings.resolve(Config::default())
    }

    #[test]
    fn texts_are_encoded_as_asked() {
        let encoding = |line: &str| resolve(line).unwrap().data.encoding;
        let words = |length, vocabulary| Some(Encoding::Words { length, vocabulary });
        assert_eq!(encoding("--dataset mr"), None);
        assert_eq!(encoding("--dataset mr --length 9"), words(9, 20_000));
        assert_eq!(encoding("--dataset mr --encoding words --vocabulary 7"), words(64, 7));
        assert_eq!(encoding("--dataset ag-news --encoding words --length 9"), words(9, 20_000));
        assert_eq!(encoding("--dataset ag-news --length 200"), Some(Encoding::Characters { length: 200 }));
        assert_eq!(encoding("--dataset mr --encoding characters"), Some(Encoding::Characters { length: 1014 }));
        let refusal = |line: &str| crate::message(&*resolve(line).unwrap_err());
        assert_eq!(refusal("--length 9"), "--length 9: the data set digits is not text");
        assert_eq!(
            refusal("--dataset ag-news --vocabulary 9"),
            "--vocabulary 9: characters have an alphabet, not a vocabulary"
        );
        assert!(refusal("--encoding foo").contains("[possible values: words, characters]"));
    }

    #[test]
    fn sizes_and_random_images_are_read() {
        assert_eq!(resolve("--resize 32x48").unwrap().data.resize, Some([32, 48]));
        let images = resolve("--synthetic channels=1,height=8,width=9,classes=3,train=5,test=6,seed=7").unwrap();
        let expected = Synthetic { channels: 1, size: [8, 9], classes: 3, train: 5, test: 6, seed: 7 };
        assert_eq!(images.data.synthetic, Some(expected));
        for line in ["--resize 32", "--resize x3", "--synthetic train", "--synthetic train=x", "--synthetic sice=3"] {
            assert!(resolve(line).is_err(), "{line}");
        }
    }

    /// Whoever reads an error finds the option that it speaks of.
    #[test]
    fn every_setting_that_an_error_names_is_an_option() {
        let command = Line::command();
        let mut options: Vec<_> = command.get_arguments().filter_map(|option| option.get_long()).collect();
        options.extend(["out", "resume", "onnx"]);
        // These belong to layers, which programs make and configurations do not.
        let of_layers = ["pooling window", "pooled image", "layer"];
        let mut found = 0;
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/train"))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                for call in text.split("TrainError::setting(").skip(1) {
                    let Some(name) = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
                        continue;
                    };
                    assert!(options.contains(&name) || of_layers.contains(&name), "{}: {name}", path.display());
                    found += 1;
                }
            }
        }
        assert!(found > 20, "{found}");
    }
}
