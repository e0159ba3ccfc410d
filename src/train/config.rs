//! The configuration of a run, as TOML.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use super::data::DataConfig;
use super::error::TrainError;
use super::models::ModelConfig;
use super::optimizer::{Decay, Rule, Schedule};
use crate::isa::Isa;

/// All settings of a run. They determine its result on one instruction set. (The number of threads is among them, and does not
/// change the result.)
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The data set.
    pub data: DataConfig,
    /// The network.
    pub model: ModelConfig,
    /// Training.
    pub train: TrainConfig,
}

/// How a network is trained. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainConfig {
    /// Passes over the training set.
    pub epochs: usize,
    /// Examples per step of the optimiser. With batch normalisation, at least 2 examples go through the network together. If a
    /// single example remains at the end of an epoch, the epoch leaves it out. The next epoch has another order, and leaves out
    /// another one.
    pub batch: usize,
    /// Examples that go through the network together, if fewer than a batch. Their gradients accumulate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Learning rate at the start.
    pub learning_rate: f32,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// How gradients change the parameters.
    #[serde(skip_serializing_if = "is_default")]
    pub optimizer: Rule,
    /// Momentum of SGD, or the share of its past that Adam's mean of gradients keeps per step (β₁).
    pub momentum: f32,
    /// Nesterov's momentum, with SGD only.
    pub nesterov: bool,
    /// Weight decay by kind of parameter.
    pub decay: Decay,
    /// Share of the target that is spread equally over all classes. 0 is off.
    pub label_smoothing: f32,
    /// Seed of initial values, order, augmentation and dropout.
    pub seed: u64,
    /// Number of threads. If None, as many as the current rayon pool has, or one without the feature `rayon`. It does not change
    /// results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<NonZeroUsize>,
    /// Name of the instruction set of the kernels. If None, the best one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isa: Option<String>,
}

/// Whether a setting that older versions did not have is as if it were not there. Such a setting is not written, so that
/// configurations without it remain what they were, bit for bit: experiments name the directories of runs after them.
pub(super) fn is_default<T: Default + PartialEq>(setting: &T) -> bool {
    *setting == T::default()
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 350,
            batch: 128,
            micro_batch: None,
            learning_rate: 0.1,
            schedule: Schedule::default(),
            optimizer: Rule::default(),
            momentum: 0.9,
            nesterov: false,
            decay: Decay::default(),
            label_smoothing: 0.0,
            seed: 1,
            threads: None,
            isa: None,
        }
    }
}

impl Config {
    /// Reads TOML.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] with the file, the line and the rule that it breaks.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, TrainError> {
        toml::from_str(text).map_err(|error| {
            let place = error.span().map_or(super::FilePosition::Whole, |span| {
                super::FilePosition::Line(text[..span.start.min(text.len())].matches('\n').count() as u64 + 1)
            });
            TrainError::data(file, place, error.message())
        })
    }

    /// Writes TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| unreachable!("every configuration is TOML: {error}"))
    }

    /// Whether a run that began with an earlier configuration can continue with this one. It must be the same run with as many
    /// epochs or more. The remaining epochs have the learning rates of a run with the new number of epochs.
    pub fn continues(&self, earlier: &Self) -> bool {
        let mut same = earlier.clone();
        same.train.epochs = self.train.epochs;
        self.is_same_run(&same) && self.train.epochs >= earlier.train.epochs
    }

    /// The configuration without threads, instruction set and directory of the data, which do not make another run. (A checkpoint
    /// names the instruction set that computed it.)
    pub fn is_same_run(&self, other: &Self) -> bool {
        let plain = |config: &Self| {
            let train = TrainConfig { threads: None, isa: None, ..config.train.clone() };
            let data = DataConfig { directory: None, ..config.data.clone() };
            Self { train, data, ..config.clone() }
        };
        plain(self) == plain(other)
    }
}

impl TrainConfig {
    /// The instruction set of the kernels.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] for an unknown name, [`TrainError::Kernel`] if this machine does not offer it.
    pub fn isa(&self) -> Result<Isa, TrainError> {
        let Some(name) = &self.isa else { return Ok(Isa::detect()) };
        let isa: Isa = name.parse().map_err(|error| TrainError::setting("isa", name, error))?;
        if isa.is_available() {
            Ok(isa)
        } else {
            Err(TrainError::setting("isa", name, "this CPU, system or build does not offer it"))
        }
    }

    /// The number of threads that layers use.
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(super::threads::of_pool, NonZeroUsize::get)
    }

    /// Examples that go through the network together.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch.unwrap_or(self.batch).min(self.batch)
    }

    pub(super) fn check(&self) -> Result<(), TrainError> {
        for (name, value) in [("batch", self.batch), ("micro-batch", self.micro_batch()), ("epochs", self.epochs)] {
            if value == 0 {
                return Err(TrainError::setting(name, value, "it must be at least 1"));
            }
        }
        self.isa()?;
        if !self.batch.is_multiple_of(self.micro_batch()) {
            let rule = format!("it must divide the batch, {}", self.batch);
            return Err(TrainError::setting("micro-batch", self.micro_batch(), rule));
        }
        for (name, value) in [
            ("learning-rate", self.learning_rate),
            ("momentum", self.momentum),
            ("decay", self.decay.weights),
            ("threshold-decay", self.decay.thresholds),
            ("norm-decay", self.decay.norms_and_biases),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err(TrainError::setting(name, value, "it must be a finite number, 0 or greater"));
            }
        }
        if self.nesterov && self.momentum == 0.0 {
            return Err(TrainError::setting("nesterov", true, "Nesterov's momentum needs a momentum greater than 0"));
        }
        if self.optimizer == Rule::Adam && self.nesterov {
            return Err(TrainError::setting("nesterov", true, "Adam has no Nesterov's momentum, SGD has"));
        }
        if self.optimizer == Rule::Adam && self.momentum >= 1.0 {
            return Err(TrainError::setting("momentum", self.momentum, "Adam needs a momentum less than 1"));
        }
        self.schedule.check()?;
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let rule = "it must be at least 0 and less than 1";
            return Err(TrainError::setting("label-smoothing", self.label_smoothing, rule));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_holds_everything() {
        let mut config = Config::default();
        config.train.seed = 7;
        config.train.micro_batch = Some(32);
        config.model.threshold_init = crate::train::ThresholdInit::Gaussian(0.1);
        config.train.schedule = Schedule::Step { milestones: vec![2, 3], factor: 0.2 };
        assert_eq!(Config::from_toml("f", &config.to_toml()).unwrap(), config);
        assert_eq!(Config::from_toml("f", "").unwrap(), Config::default());
        assert!(!config.to_toml().contains("optimizer"), "settings of older versions must be written as they were");
        config.train.optimizer = Rule::Adam;
        assert_eq!(Config::from_toml("f", &config.to_toml()).unwrap(), config);
        config.train.seed = u64::MAX;
        assert_eq!(Config::from_toml("f", &config.to_toml()).unwrap(), config);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let error = Config::from_toml("f.toml", "[train]\nepochs = 3\nepoch = 4\n").unwrap_err().to_string();
        assert!(error.starts_with("f.toml, line 3: unknown field `epoch`"), "{error}");
        let error = Config::from_toml("f.toml", "[train]\nepochs = -3\n").unwrap_err().to_string();
        assert!(error.starts_with("f.toml, line 2: "), "{error}");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let refusal = |change: fn(&mut TrainConfig)| {
            let mut config = TrainConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        let step = |milestones: &[usize]| Schedule::Step { milestones: milestones.to_vec(), factor: 0.1 };
        let rule = "each must be greater than the one before, the first at least 1";
        for milestones in [&[0][..], &[3, 3], &[2, 5, 4]] {
            let config = TrainConfig { schedule: step(milestones), ..TrainConfig::default() };
            let value = milestones.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            assert_eq!(config.check().unwrap_err().to_string(), format!("milestones is {value}: {rule}"));
        }
        assert!(TrainConfig { schedule: step(&[1, 2, 9]), ..TrainConfig::default() }.check().is_ok());
        assert!(refusal(|c| (c.nesterov, c.momentum) = (true, 0.0)).starts_with("nesterov is true: "));
        assert!(refusal(|c| (c.nesterov, c.optimizer) = (true, Rule::Adam)).starts_with("nesterov is true: Adam"));
        let message = refusal(|c| (c.momentum, c.optimizer) = (1.0, Rule::Adam));
        assert_eq!(message, "momentum is 1: Adam needs a momentum less than 1");
        assert!(refusal(|c| c.isa = Some("mmx".to_owned())).starts_with("isa is mmx: "));
    }

    #[test]
    fn more_epochs_continue_a_run() {
        let earlier = Config::default();
        let with = |epochs| {
            let mut config = earlier.clone();
            config.train.epochs = epochs;
            config
        };
        assert!(with(350).continues(&earlier) && with(351).continues(&earlier) && !with(349).continues(&earlier));
        let mut other = with(351);
        other.train.seed += 1;
        assert!(!other.continues(&earlier));
    }

    #[test]
    fn threads_do_not_make_another_run() {
        let mut other = Config::default();
        other.train.threads = NonZeroUsize::new(3);
        assert!(other.is_same_run(&Config::default()));
        other.train.seed = 9;
        assert!(!other.is_same_run(&Config::default()));
    }
}
