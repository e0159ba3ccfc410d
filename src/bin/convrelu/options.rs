//! Options that describe a run, shared by the commands that train.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use convrelu::train::data::{Encoding, Source};
use convrelu::train::models::{Activation, Architecture, Region};
use convrelu::train::{Config, Schedule, Sharing, ThresholdInit, WeightInit};

use crate::Failure;

/// Every setting of a run. What is not given comes from `--config`, and what is not there from the paper.
#[derive(Args, Clone, Default)]
pub(crate) struct Settings {
    /// TOML file with settings; options on the command line win
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
    /// digits, mnist, fashion-mnist, cifar10, cifar100, tiny-imagenet, image-folder, mr, ag-news, yelp-full, synthetic
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Option<Source>,
    /// Directory of its files
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
    /// Text: words or characters
    #[arg(long, value_name = "NAME")]
    pub(crate) encoding: Option<String>,
    /// Text: tokens per example
    #[arg(long, value_name = "N")]
    pub(crate) length: Option<usize>,
    /// Text: words of the vocabulary
    #[arg(long, value_name = "N")]
    pub(crate) vocabulary: Option<usize>,
}

#[derive(Args, Clone, Default)]
pub(crate) struct Model {
    /// small-cnn, densenet-cifar, densenet40, vgg16, resnet18, text-cnn
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<Architecture>,
    /// relu, leaky-relu, prelu, elu, selu, adarelu, convrelu
    #[arg(long, value_name = "NAME")]
    pub(crate) activation: Option<Activation>,
    /// Where it replaces ReLU: first (R1), last (R2) or all (R3) blocks
    #[arg(long, value_name = "NAME")]
    pub(crate) region: Option<Region>,
    /// What shares a coefficient of PReLU or AdaReLU: layer, channel, element
    #[arg(long, value_name = "NAME")]
    pub(crate) sharing: Option<Sharing>,
    /// Initial thresholds: zero, gaussian:SCALE, uniform:SCALE, glorot
    #[arg(long, value_name = "INIT", value_parser = threshold_init)]
    pub(crate) threshold_init: Option<ThresholdInit>,
    /// Initial weights: he, pytorch
    #[arg(long, value_name = "INIT", value_parser = weight_init)]
    pub(crate) weight_init: Option<WeightInit>,
    /// Keep activations channels last (NHWC)
    #[arg(long)]
    pub(crate) channels_last: bool,
    /// DenseNets: channels that a layer adds [default: 12]
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
    /// text-cnn: dimensions of a word [default: 128]
    #[arg(long, value_name = "N")]
    pub(crate) embedding: Option<usize>,
    /// text-cnn: share of units that dropout zeroes [default: 0.5]
    #[arg(long, value_name = "SHARE")]
    pub(crate) dropout: Option<f32>,
}

#[derive(Args, Clone, Default)]
pub(crate) struct Training {
    /// Passes over the training set [default: 350]
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// Examples per step [default: 128]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Examples at once, if fewer; gradients accumulate
    #[arg(long, value_name = "N")]
    pub(crate) micro_batch: Option<usize>,
    /// Learning rate at the start [default: 0.1]
    #[arg(long, value_name = "RATE")]
    pub(crate) learning_rate: Option<f32>,
    /// Epochs after which the learning rate falls to a tenth [default: at 150/350 and 250/350 of all]
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with = "cosine")]
    pub(crate) milestones: Option<Vec<usize>>,
    /// Let the learning rate fall along a cosine
    #[arg(long)]
    pub(crate) cosine: bool,
    /// Momentum of SGD [default: 0.9]
    #[arg(long, value_name = "M")]
    pub(crate) momentum: Option<f32>,
    /// Nesterov's momentum
    #[arg(long)]
    pub(crate) nesterov: bool,
    /// Weight decay of weights, thresholds, norms and biases [default: 5e-4]
    #[arg(long, value_name = "DECAY")]
    pub(crate) decay: Option<f32>,
    /// Weight decay of thresholds, if another
    #[arg(long, value_name = "DECAY")]
    pub(crate) threshold_decay: Option<f32>,
    /// Weight decay of norms, biases and slopes, if another
    #[arg(long, value_name = "DECAY")]
    pub(crate) norm_decay: Option<f32>,
    /// Share of the target that goes to all classes alike [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub(crate) label_smoothing: Option<f32>,
    /// Seed of everything random [default: 1]
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,
    /// Threads; results do not depend on it [default: all cores]
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
                let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
                Config::from_toml(&path.display().to_string(), &text)?
            }
            None => defaults,
        };
        self.data.apply(&mut config)?;
        self.model.apply(&mut config);
        self.train.apply(&mut config);
        Ok(config)
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
        let current = data.encoding.or_else(|| data.source.encoding());
        let (length, vocabulary) = (self.length, self.vocabulary);
        data.encoding = match (self.encoding.as_deref(), current) {
            (Some("words"), _) => {
                Some(Encoding::Words { length: length.unwrap_or(64), vocabulary: vocabulary.unwrap_or(20_000) })
            }
            (Some("characters"), _) => Some(Encoding::Characters { length: length.unwrap_or(1014) }),
            (Some(other), _) => return Err(format!("--encoding {other}: it must be words or characters").into()),
            (None, Some(Encoding::Words { length: l, vocabulary: v })) if length.is_some() || vocabulary.is_some() => {
                Some(Encoding::Words { length: length.unwrap_or(l), vocabulary: vocabulary.unwrap_or(v) })
            }
            (None, Some(Encoding::Characters { .. })) if length.is_some() => {
                length.map(|length| Encoding::Characters { length })
            }
            (None, _) => data.encoding,
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

fn threshold_init(text: &str) -> Result<ThresholdInit, String> {
    let (name, scale) = text.split_once(':').map_or((text, None), |(name, scale)| (name, Some(scale)));
    let scale = scale.map(|scale| scale.parse::<f32>().map_err(|error| format!("'{scale}': {error}"))).transpose()?;
    match (name, scale) {
        ("zero", None) => Ok(ThresholdInit::Zero),
        ("glorot", None) => Ok(ThresholdInit::Glorot),
        ("gaussian", Some(scale)) => Ok(ThresholdInit::Gaussian(scale)),
        ("uniform", Some(scale)) => Ok(ThresholdInit::Uniform(scale)),
        _ => Err("it must be zero, glorot, gaussian:SCALE or uniform:SCALE".to_owned()),
    }
}

fn weight_init(text: &str) -> Result<WeightInit, String> {
    match text {
        "he" => Ok(WeightInit::He),
        "pytorch" => Ok(WeightInit::Pytorch),
        _ => Err("it must be he or pytorch".to_owned()),
    }
}
