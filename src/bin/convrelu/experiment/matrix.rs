//! The paper's tables and figures as data: the networks that each compares, and the results that the paper reports.

use std::path::PathBuf;

use convrelu::train::data::Source;
use convrelu::train::models::{Activation, Architecture, ModelConfig, Region};
use convrelu::train::{Config, ThresholdInit, TrainConfig, TrainError};

use crate::options::Settings;
use crate::{Failure, Usage};

/// A table or figure of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// Activation functions in DenseNet-40
    Table1,
    /// Activation functions in the text network
    Table2,
    /// ReLU and ConvReLU in VGG-16, ResNet-18 and DenseNet-40
    Table3,
    /// Initial thresholds
    Table4,
    /// Which blocks have ConvReLU
    Table5,
    /// Numbers of parameters
    Table6,
    /// Test accuracy per epoch
    Figure5,
    /// Learned thresholds
    Figure6,
}

impl Name {
    /// The name on the command line and in files.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Table1 => "table1",
            Self::Table2 => "table2",
            Self::Table3 => "table3",
            Self::Table4 => "table4",
            Self::Table5 => "table5",
            Self::Table6 => "table6",
            Self::Figure5 => "figure5",
            Self::Figure6 => "figure6",
        }
    }

    /// The title, which says what it shows.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Table1 => "Table 1: activation functions",
            Self::Table2 => "Table 2: activation functions on text",
            Self::Table3 => "Table 3: networks",
            Self::Table4 => "Table 4: initial thresholds",
            Self::Table5 => "Table 5: regions with ConvReLU",
            Self::Table6 => "Table 6: numbers of parameters",
            Self::Figure5 => "Figure 5: test accuracy per epoch",
            Self::Figure6 => "Figure 6: learned thresholds",
        }
    }
}

/// The settings of the network that a row changes. Those that are `None` stay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) activation: Activation,
    pub(crate) region: Option<Region>,
    pub(crate) init: Option<ThresholdInit>,
}

impl Change {
    /// The network of a row.
    pub(crate) fn apply(self, model: &ModelConfig) -> ModelConfig {
        let mut model = model.clone();
        model.activation = self.activation;
        model.region = self.region.unwrap_or(model.region);
        model.threshold_init = self.init.unwrap_or(model.threshold_init);
        model
    }
}

/// A row of the paper.
#[derive(Clone, Debug)]
struct Published {
    label: &'static str,
    network: Architecture,
    change: Change,
    /// Test accuracy in % per data set of the paper.
    accuracies: Vec<f64>,
}

/// The six rows of tables 1, 2 and 6. "(A)" means all blocks. Without it, the activation replaces ReLU in the same places as
/// ConvReLU does.
pub(crate) const ACTIVATIONS: [(&str, Activation, Region); 6] = [
    ("ReLU", Activation::Relu, Region::First),
    ("LeakyReLU", Activation::LeakyRelu, Region::First),
    ("LeakyReLU(A)", Activation::LeakyRelu, Region::All),
    ("PReLU", Activation::Prelu, Region::First),
    ("PReLU(A)", Activation::Prelu, Region::All),
    ("ConvReLU", Activation::Convrelu, Region::First),
];

/// CIFAR-10, CIFAR-100, Tiny ImageNet.
const TABLE1: [[f64; 3]; 6] = [
    [94.29, 75.87, 56.31],
    [94.45, 76.06, 56.38],
    [94.32, 75.29, 55.97],
    [94.58, 75.78, 56.09],
    [94.03, 74.87, 54.38],
    [94.72, 76.41, 56.47],
];

/// MR, AG's News, Yelp Full.
const TABLE2: [[f64; 3]; 6] = [
    [78.51, 88.64, 62.69],
    [77.48, 88.98, 62.93],
    [78.33, 88.55, 62.69],
    [77.19, 88.77, 63.03],
    [79.83, 88.52, 62.94],
    [80.39, 89.13, 63.19],
];

/// CIFAR-10, CIFAR-100; ReLU, ConvReLU.
const TABLE3: [(Architecture, [[f64; 2]; 2]); 3] = [
    (Architecture::Vgg16, [[93.71, 73.31], [94.01, 74.04]]),
    (Architecture::Resnet18, [[94.37, 75.17], [94.48, 75.97]]),
    (Architecture::Densenet40, [[94.29, 75.87], [94.72, 76.41]]),
];

/// CIFAR-10, CIFAR-100. The paper gives no scale of "random".
const TABLE4: [(&str, ThresholdInit, [f64; 2]); 3] = [
    ("zero", ThresholdInit::Zero, [94.72, 76.41]),
    ("random", ThresholdInit::Gaussian(0.1), [94.55, 75.81]),
    ("Glorot", ThresholdInit::Glorot, [94.45, 75.44]),
];

/// CIFAR-10.
const TABLE5: [(&str, Region, f64); 3] = [
    ("R1: first block", Region::First, 94.72),
    ("R2: last block", Region::Last, 94.34),
    ("R3: all blocks", Region::All, 94.55),
];

/// An experiment as the paper has it.
struct Design {
    sources: &'static [Source],
    rows: Vec<Published>,
    /// Pairs of rows, by number, whose difference is reported: the first minus the second.
    comparisons: Vec<(usize, usize)>,
}

fn activations(network: Architecture, accuracies: &[[f64; 3]]) -> Vec<Published> {
    let rows = ACTIVATIONS.into_iter().zip(accuracies);
    let row = |((label, activation, region), accuracies): (_, &[f64; 3])| Published {
        label,
        network,
        change: Change { activation, region: Some(region), init: None },
        accuracies: accuracies.to_vec(),
    };
    rows.map(row).collect()
}

/// `None` for table 6, which trains nothing.
fn design(name: Name) -> Option<Design> {
    const IMAGES: &[Source] = &[Source::Cifar10, Source::Cifar100, Source::TinyImagenet];
    const TEXTS: &[Source] = &[Source::Mr, Source::AgNews, Source::YelpFull];
    let network = Architecture::Densenet40;
    let convrelu = Change { activation: Activation::Convrelu, region: None, init: None };
    Some(match name {
        Name::Table1 | Name::Figure5 => {
            Design { sources: IMAGES, rows: activations(network, &TABLE1), comparisons: vec![(5, 0)] }
        }
        Name::Table2 => {
            let rows = activations(Architecture::TextCnn, &TABLE2);
            Design { sources: TEXTS, rows, comparisons: vec![(5, 0)] }
        }
        Name::Table3 => {
            let rows = TABLE3.iter().flat_map(|&(network, accuracies)| {
                let activations = [("ReLU", Activation::Relu), ("ConvReLU", Activation::Convrelu)];
                activations.into_iter().zip(accuracies).map(move |((label, activation), accuracies)| Published {
                    label,
                    network,
                    change: Change { activation, ..convrelu },
                    accuracies: accuracies.to_vec(),
                })
            });
            Design { sources: &IMAGES[..2], rows: rows.collect(), comparisons: vec![(1, 0), (3, 2), (5, 4)] }
        }
        Name::Table4 => {
            let rows = TABLE4.iter().map(|&(label, init, accuracies)| {
                let change = Change { init: Some(init), ..convrelu };
                Published { label, network, change, accuracies: accuracies.to_vec() }
            });
            Design { sources: &IMAGES[..2], rows: rows.collect(), comparisons: vec![(0, 1), (0, 2)] }
        }
        Name::Table5 => {
            let rows = TABLE5.iter().map(|&(label, region, accuracy)| {
                let change = Change { region: Some(region), ..convrelu };
                Published { label, network, change, accuracies: vec![accuracy] }
            });
            Design { sources: &IMAGES[..1], rows: rows.collect(), comparisons: vec![(0, 1), (0, 2)] }
        }
        Name::Figure6 => {
            let rows = activations(network, &TABLE1).split_off(5);
            Design { sources: IMAGES, rows, comparisons: vec![] }
        }
        Name::Table6 => return None,
    })
}

/// An experiment with the settings of a user: all that is trained.
pub(crate) struct Matrix {
    pub(crate) name: Name,
    pub(crate) source: Source,
    /// The names of the networks for readers.
    pub(crate) network: String,
    /// The start of names of files.
    pub(crate) file_stem: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) comparisons: Vec<(usize, usize)>,
    /// The paper's results that stand beside ours.
    pub(crate) paper: Paper,
    /// The first seed.
    pub(crate) seed: u64,
}

/// The paper's results that stand beside ours.
pub(crate) struct Paper {
    pub(crate) source: Source,
    /// Whether the paper's data, network and training are the same as ours. If not, its results are an orientation only.
    pub(crate) same: bool,
    /// The networks of the results.
    pub(crate) network: String,
}

/// A row with the settings of a user.
pub(crate) struct Row {
    pub(crate) label: String,
    /// The configuration, with the seed of the settings.
    pub(crate) config: Config,
    pub(crate) paper: Option<f64>,
}

impl Matrix {
    /// The experiment with all rows, or with those of these names.
    ///
    /// # Errors
    ///
    /// For names that no row has, for settings that the rows of the experiment decide, and for settings that are wrong.
    pub(crate) fn new(name: Name, settings: &Settings, names: &[String]) -> Result<Self, Failure> {
        let design = design(name).ok_or("table6 trains nothing")?;
        let decided = |all: fn(&Change) -> bool| design.rows.iter().any(|row| all(&row.change));
        let model = &settings.model;
        for (option, given, decided) in [
            ("activation", model.activation.map(|value| value.to_string()), true),
            ("region", model.region.map(|value| value.to_string()), decided(|change| change.region.is_some())),
            (
                "threshold-init",
                model.threshold_init.map(|value| value.to_string()),
                decided(|change| change.init.is_some()),
            ),
        ] {
            if let Some(value) = given.filter(|_| decided) {
                let rule = format!("the rows of {} decide that", name.key());
                return Err(TrainError::Setting { name: option, value, rule }.into());
            }
        }
        let given = Given::find(settings)?;
        let mut settings = settings.clone();
        if !given.source {
            settings.data.dataset = Some(design.sources[0]);
        }
        let config = settings.resolve(Config::default())?;

        let mut rows = design.rows;
        let mut comparisons = design.comparisons;
        if given.network {
            // If the rows repeat for several networks, keep those of this network. If there are none, keep those of the last one.
            let of = |network| rows.iter().any(|row| row.network == network).then_some(network);
            let kept = of(config.model.network).or(rows.last().map(|row| row.network));
            let numbers: Vec<_> = (0..rows.len()).filter(|&row| Some(rows[row].network) == kept).collect();
            (rows, comparisons) = keep(rows, comparisons, &numbers);
        }
        let several = rows.iter().any(|row| row.network != rows[0].network);
        let label = |row: &Published| {
            if several { format!("{} {}", row.network.title(), row.label) } else { row.label.to_owned() }
        };
        let labels: Vec<String> = rows.iter().map(label).collect();
        let numbers = chosen(&labels, names)?;
        let subset: String = if numbers.len() < labels.len() {
            numbers.iter().map(|&number| format!("-{}", file_name(&labels[number]))).collect()
        } else {
            String::new()
        };
        (rows, comparisons) = keep(rows, comparisons, &numbers);
        let labels: Vec<String> = numbers.iter().map(|&number| labels[number].clone()).collect();
        let sizes = sizes(&config.model);
        let column = design.sources.iter().position(|&source| source == config.data.source);
        let mut same = column.is_some() && sizes.is_empty() && is_published(&config);
        let paper_network = networks(rows.iter().map(|row| row.network));
        for row in &mut rows {
            if given.network && row.network != config.model.network {
                row.network = config.model.network;
                same = false;
            }
        }
        let network = networks(rows.iter().map(|row| row.network)) + &sizes;
        let mut keys: Vec<_> = rows.iter().map(|row| row.network.key()).collect();
        keys.dedup();
        let file_stem = format!("{}-{}-{}{}", name.key(), config.data.source, keys.join("-"), sizes.replace(", ", "-"));
        let model = |row: &Published| ModelConfig { network: row.network, ..row.change.apply(&config.model) };
        check_use(&rows.iter().map(model).collect::<Vec<_>>())?;
        let row = |(row, label): (Published, String)| {
            // Rows with the same network get equal configurations, and so share their runs.
            let model = model(&row).relevant();
            Row {
                label,
                config: Config { model, ..config.clone() },
                paper: row.accuracies.get(column.unwrap_or(0)).copied(),
            }
        };
        Ok(Self {
            name,
            source: config.data.source,
            network,
            file_stem: file_stem.replace(' ', "") + &subset,
            rows: rows.into_iter().zip(labels).map(row).collect(),
            comparisons,
            paper: Paper { source: design.sources[column.unwrap_or(0)], same, network: paper_network },
            seed: config.train.seed,
        })
    }

    /// Title of tables and pictures.
    pub(crate) fn title(&self) -> String {
        format!("{}; {}, {}", self.name.title(), self.network, self.source.title())
    }

    /// The head of the column with the paper's results.
    pub(crate) fn paper_head(&self) -> String {
        let orientation = if self.paper.same { "" } else { ", orientation only" };
        format!("paper: {} on {}{orientation}", self.paper.network, self.paper.source.title())
    }
}

/// The rows of these numbers, and the comparisons among them.
fn keep(
    rows: Vec<Published>,
    comparisons: Vec<(usize, usize)>,
    numbers: &[usize],
) -> (Vec<Published>, Vec<(usize, usize)>) {
    let position = |row: usize| numbers.iter().position(|&number| number == row);
    let comparisons = comparisons.into_iter().filter_map(|(a, b)| position(a).zip(position(b))).collect();
    let rows = rows.into_iter().enumerate().filter(|(number, _)| numbers.contains(number)).map(|(_, row)| row);
    (rows.collect(), comparisons)
}

/// The numbers of the rows that have these names, in the order of the rows. All rows, if there are no names.
///
/// # Errors
///
/// [`TrainError::Setting`] for a name that no row has.
pub(crate) fn chosen(labels: &[impl AsRef<str>], names: &[String]) -> Result<Vec<usize>, TrainError> {
    let has_name = |label: &str, name: &String| label.eq_ignore_ascii_case(name.trim());
    if let Some(name) = names.iter().find(|name| labels.iter().all(|label| !has_name(label.as_ref(), name))) {
        let good = labels.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
        return Err(TrainError::Setting {
            name: "rows",
            value: name.clone(),
            rule: format!("each must be one of {good}"),
        });
    }
    let wanted = |&number: &usize| names.is_empty() || names.iter().any(|name| has_name(labels[number].as_ref(), name));
    Ok((0..labels.len()).filter(wanted).collect())
}

/// The name of a row as a part of a file's name.
fn file_name(label: &str) -> String {
    let words = label.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

/// Refuses a setting that no row uses. If one row uses it, the others ignore it.
fn check_use(models: &[ModelConfig]) -> Result<(), TrainError> {
    let useless: Vec<_> = models.iter().map(ModelConfig::useless).collect();
    let everywhere = |name: &str| useless.iter().all(|row| row.iter().any(|(other, ..)| *other == name));
    match useless.first().and_then(|row| row.iter().find(|(name, ..)| everywhere(name))) {
        Some((name, value, _)) => {
            let rule = "no network of the experiment has such a setting".to_owned();
            Err(TrainError::Setting { name, value: value.clone(), rule })
        }
        None => Ok(()),
    }
}

/// Which settings the user has given, among those for which an experiment has values of its own.
struct Given {
    network: bool,
    source: bool,
}

impl Given {
    fn find(settings: &Settings) -> Result<Self, Failure> {
        let mut given = Self { network: settings.model.network.is_some(), source: settings.data.dataset.is_some() };
        if let Some(path) = &settings.config {
            let text = convrelu::train::files::read_text(path);
            let text = text.map_err(|error| Usage(format!("--config {error}")))?;
            // Errors in the file are reported when it is read as a configuration.
            let file: toml::Table = text.parse().unwrap_or_default();
            let has = |table: &str, key: &str| file.get(table).is_some_and(|table| table.get(key).is_some());
            given.network |= has("model", "network");
            given.source |= has("data", "source");
        }
        Ok(given)
    }
}

/// Whether all data are used, and training is the paper's.
fn is_published(config: &Config) -> bool {
    let TrainConfig { micro_batch, seed, threads, ref isa, .. } = config.train;
    let plain = TrainConfig { micro_batch, seed, threads, isa: isa.clone(), ..TrainConfig::default() };
    let data = &config.data;
    data.train_limit.is_none() && data.test_limit.is_none() && data.augment && config.train == plain
}

/// The names of different networks.
fn networks(networks: impl Iterator<Item = Architecture>) -> String {
    let mut names: Vec<_> = networks.map(Architecture::title).collect();
    names.dedup();
    names.join(", ")
}

/// The sizes of a network that differ from the paper's.
pub(crate) fn sizes(model: &ModelConfig) -> String {
    [("growth", model.growth), ("depth", model.depth), ("features", model.features), ("units", model.units)]
        .into_iter()
        .filter_map(|(name, size)| size.map(|size| format!(", {name} {size}")))
        .collect()
}

/// Name of the directory of a run, the same in all experiments that contain it.
pub(crate) fn directory_name(config: &Config) -> PathBuf {
    let model = &config.model;
    let mut key = model.activation.key().to_owned();
    if model.region != Region::First {
        key = format!("{key}-{}", model.region);
    }
    key += match model.threshold_init {
        ThresholdInit::Zero => "",
        ThresholdInit::Gaussian(_) => "-gaussian",
        ThresholdInit::Uniform(_) => "-uniform",
        ThresholdInit::Glorot => "-glorot",
    };
    let (source, network, seed) = (config.data.source, model.network, config.train.seed);
    PathBuf::from(format!("{source}-{network}-{key}-{}-seed{seed}", fingerprint(config)))
}

/// A hash of a configuration without its threads and seed. It is FNV-1a, because the hash of the standard library may change with
/// its version.
fn fingerprint(config: &Config) -> String {
    let mut config = config.clone();
    (config.train.threads, config.train.seed) = (None, 0);
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = config.to_toml().bytes().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{:08x}", (hash ^ (hash >> 32)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use convrelu::Isa;
    use convrelu::train::Shape;
    use convrelu::train::models::{Input, Text};

    const TRAINED: [Name; 7] =
        [Name::Table1, Name::Table2, Name::Table3, Name::Table4, Name::Table5, Name::Figure5, Name::Figure6];

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn matrix(name: Name, line: &str) -> Matrix {
        matrix_of_rows(name, line, &[]).unwrap()
    }

    fn matrix_of_rows(name: Name, line: &str, names: &[&str]) -> Result<Matrix, Failure> {
        let settings = Line::parse_from(format!("test {line}").split_whitespace()).settings;
        Matrix::new(name, &settings, &names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    fn refusal(name: Name, line: &str) -> String {
        matrix_of_rows(name, line, &[]).err().unwrap().to_string()
    }

    fn input(source: Source) -> Input {
        let (shape, text, classes) = match source {
            Source::Cifar10 => (Shape::new(3, [1, 32, 32]), None, 10),
            Source::Cifar100 => (Shape::new(3, [1, 32, 32]), None, 100),
            Source::TinyImagenet => (Shape::new(3, [1, 64, 64]), None, 200),
            Source::Mr => (Shape::new(1, [1, 1, 64]), Some(Text::Words(20_000)), 2),
            Source::AgNews => (Shape::new(1, [1, 1, 1014]), Some(Text::Characters(70)), 4),
            Source::YelpFull => (Shape::new(1, [1, 1, 1014]), Some(Text::Characters(70)), 5),
            other => panic!("{other} is not in the paper"),
        };
        Input { shape, text, classes }
    }

    #[test]
    fn every_row_builds_its_network() {
        for name in TRAINED {
            let matrix = matrix(name, "");
            for row in &matrix.rows {
                let network = row.config.model.build(input(matrix.source), Isa::detect(), 1);
                assert!(network.is_ok(), "{} {}: {}", name.key(), row.label, network.err().unwrap());
            }
        }
    }

    #[test]
    fn every_row_has_its_label_and_its_results() {
        for name in TRAINED {
            for (column, source) in design(name).unwrap().sources.iter().enumerate() {
                let matrix = matrix(name, &format!("--dataset {source}"));
                assert!(matrix.paper.same && matrix.source == *source, "{}", name.key());
                for (index, row) in matrix.rows.iter().enumerate() {
                    let published = &design(name).unwrap().rows[index];
                    assert_eq!(row.paper, Some(published.accuracies[column]), "{} {}", name.key(), row.label);
                    assert!(matrix.rows[..index].iter().all(|other| other.label != row.label), "{}", row.label);
                }
            }
        }
    }

    #[test]
    fn tables_share_runs() {
        let directory = |name, row: usize| directory_name(&matrix(name, "").rows[row].config);
        let convrelu = directory(Name::Table1, 5);
        for (name, row) in
            [(Name::Table3, 5), (Name::Table4, 0), (Name::Table5, 0), (Name::Figure5, 5), (Name::Figure6, 0)]
        {
            assert_eq!(directory(name, row), convrelu, "{}", name.key());
        }
        assert_eq!(directory(Name::Table3, 4), directory(Name::Table1, 0));
        let mut all: Vec<_> = [Name::Table1, Name::Table2, Name::Table3, Name::Table4, Name::Table5]
            .into_iter()
            .flat_map(|name| matrix(name, "").rows)
            .map(|row| directory_name(&row.config))
            .collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6 + 6 + 4 + 2 + 2);
    }

    #[test]
    fn directories_tell_configurations_apart_but_not_threads() {
        let directory = |line: &str| directory_name(&matrix(Name::Table4, line).rows[1].config);
        let first = directory("");
        assert!(first.to_str().unwrap().starts_with("cifar10-densenet40-convrelu-gaussian-"), "{first:?}");
        assert!(first.to_str().unwrap().ends_with("-seed1"), "{first:?}");
        assert_eq!(directory("--threads 2"), first);
        for line in ["--epochs 3", "--growth 4", "--seed 2", "--limit 9", "--dataset cifar100"] {
            assert_ne!(directory(line), first, "{line}");
        }
        let (one, two) = (directory(""), directory("--seed 2"));
        assert_eq!(one.to_str().unwrap().strip_suffix('1'), two.to_str().unwrap().strip_suffix('2'));
    }

    /// Directories of runs of earlier versions keep their names.
    #[test]
    fn names_of_runs_stay() {
        let line = "--dataset fashion-mnist --data /usr/share/datasets/fashion-mnist --network densenet40 --limit 10000 --epochs 12";
        let name = |line: &str| directory_name(&matrix(Name::Table1, line).rows[0].config).display().to_string();
        assert_eq!(name(line), "fashion-mnist-densenet40-relu-451adde8-seed1");
        assert_ne!(name(&format!("{line} --optimizer adam")), name(line));
    }

    #[test]
    fn what_is_not_the_papers_says_so() {
        let paper = matrix(Name::Table1, "");
        assert_eq!(paper.title(), "Table 1: activation functions; DenseNet-40, CIFAR-10");
        assert_eq!(paper.paper_head(), "paper: DenseNet-40 on CIFAR-10");
        assert_eq!(paper.file_stem, "table1-cifar10-densenet40");
        let other = matrix(Name::Table1, "--network small-cnn --dataset fashion-mnist");
        assert_eq!(other.title(), "Table 1: activation functions; small-cnn, Fashion-MNIST");
        assert_eq!(other.paper_head(), "paper: DenseNet-40 on CIFAR-10, orientation only");
        assert_eq!(other.rows[5].paper, Some(94.72));
        let smaller = matrix(Name::Table4, "--growth 4");
        assert_eq!((smaller.network.as_str(), smaller.paper.same), ("DenseNet-40, growth 4", false));
        assert!(!matrix(Name::Table1, "--epochs 9").paper.same && !matrix(Name::Table1, "--limit 9").paper.same);
        assert_eq!(smaller.file_stem, "table4-cifar10-densenet40-growth4");
    }

    #[test]
    fn a_network_takes_the_place_of_those_of_table_3() {
        let all = matrix(Name::Table3, "");
        assert_eq!((all.rows.len(), all.comparisons.len()), (6, 3));
        assert_eq!(
            (all.rows[2].label.as_str(), all.network.as_str()),
            ("ResNet-18 ReLU", "VGG-16, ResNet-18, DenseNet-40")
        );
        let one = matrix(Name::Table3, "--network resnet18");
        assert_eq!((one.rows.len(), one.comparisons.as_slice(), one.rows[1].paper), (2, &[(1, 0)][..], Some(94.48)));
        assert!(one.paper.same && one.rows[0].label == "ReLU");
        let other = matrix(Name::Table3, "--network small-cnn");
        assert_eq!((other.rows.len(), other.paper.same), (2, false));
        assert_eq!(other.paper_head(), "paper: DenseNet-40 on CIFAR-10, orientation only");
    }

    #[test]
    fn rows_are_chosen_by_their_names() {
        let labels = |matrix: &Matrix| matrix.rows.iter().map(|row| row.label.clone()).collect::<Vec<_>>();
        let some = matrix_of_rows(Name::Table1, "", &["ConvReLU", " relu", "PReLU(A)", "ReLU"]).unwrap();
        assert_eq!(labels(&some), ["ReLU", "PReLU(A)", "ConvReLU"]);
        assert_eq!((some.comparisons.as_slice(), some.rows[2].paper), (&[(2, 0)][..], Some(94.72)));
        assert_eq!(some.file_stem, "table1-cifar10-densenet40-relu-prelu-a-convrelu");
        // Their runs are those of the whole table.
        let whole = matrix(Name::Table1, "");
        assert_eq!(directory_name(&some.rows[2].config), directory_name(&whole.rows[5].config));
        let one = matrix_of_rows(Name::Table1, "", &["PReLU"]).unwrap();
        assert!(one.comparisons.is_empty() && one.paper.same);
        let all = ["VGG-16 ReLU", "DenseNet-40 ReLU", "DenseNet-40 ConvReLU"];
        let networks = matrix_of_rows(Name::Table3, "--growth 4", &all).unwrap();
        assert_eq!(labels(&networks), all);
        assert_eq!(
            (networks.network.as_str(), networks.comparisons.as_slice()),
            ("VGG-16, DenseNet-40, growth 4", &[(2, 1)][..])
        );
        let whole: Vec<_> = labels(&whole);
        let names: Vec<&str> = whole.iter().map(String::as_str).collect();
        assert_eq!(matrix_of_rows(Name::Table1, "", &names).unwrap().file_stem, "table1-cifar10-densenet40");
        for (name, wrong, good) in [
            (Name::Table1, "Relu6", "ReLU, LeakyReLU, LeakyReLU(A), PReLU, PReLU(A), ConvReLU"),
            (Name::Table5, "", "R1: first block, R2: last block, R3: all blocks"),
        ] {
            let refusal = matrix_of_rows(name, "", &["R1: first block", wrong])
                .err()
                .or_else(|| matrix_of_rows(name, "", &[wrong]).err());
            let refusal = refusal.unwrap().to_string();
            assert!(refusal.ends_with(&format!(": each must be one of {good}")), "{refusal}");
        }
    }

    #[test]
    fn rows_decide_what_they_compare() {
        for (name, line, message) in [
            (Name::Table3, "--activation relu", "activation is relu: the rows of table3 decide that"),
            (Name::Table5, "--region all", "region is all: the rows of table5 decide that"),
            (Name::Table4, "--threshold-init glorot", "threshold-init is glorot: the rows of table4 decide that"),
        ] {
            assert_eq!(refusal(name, line), message);
        }
        for (name, line, message) in [
            (
                Name::Table3,
                "--network vgg16 --growth 4",
                "growth is 4: no network of the experiment has such a setting",
            ),
            (Name::Table4, "--sharing channel", "sharing is channel: no network of the experiment has such a setting"),
            (Name::Table1, "--dropout 0.1", "dropout is 0.1: no network of the experiment has such a setting"),
        ] {
            assert_eq!(refusal(name, line), message);
        }
        // What one row has a use for, the others do without.
        let growth =
            |line: &str| matrix(Name::Table3, line).rows.iter().map(|row| row.config.model.growth).collect::<Vec<_>>();
        assert_eq!(growth("--growth 4"), [None, None, None, None, Some(4), Some(4)]);
        let table4 = matrix(Name::Table4, "--region all");
        assert!(table4.rows.iter().all(|row| row.config.model.region == Region::All));
    }
}
