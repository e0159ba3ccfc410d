//! The results of an experiment: tables, pictures, and confidence intervals.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use convrelu::Isa;
use convrelu::train::checkpoint::Tensor;
use convrelu::train::{Epoch, Rule, Schedule, files};
use serde_json::json;

use super::matrix::{Matrix, Name};
use super::runs::{Job, Outcome};
use super::{lines, page};
use crate::output::{PROSE, Table, grouped, wrapped};
use crate::plot::{self, BINS, Curves, Histogram, Panel, Rows, Series, mean_and_deviation};
use crate::{Failure, inspect};

/// The results of an experiment.
pub(crate) struct Report<'a> {
    matrix: &'a Matrix,
    jobs: &'a [Job],
    outcomes: &'a [Outcome],
    rows: Vec<Summary>,
}

/// How the results of an experiment came about.
pub(crate) struct Origin {
    /// The command line.
    pub(crate) command: String,
    /// Runs at the same time.
    pub(crate) at_once: usize,
}

/// The results of a row.
#[derive(Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) label: String,
    /// Seed and test accuracy in % after the last epoch. Runs that diverged are left out.
    accuracies: Vec<(u64, f64)>,
    diverged: usize,
    parameters: Option<usize>,
    paper: Option<f64>,
}

impl Summary {
    fn values(&self) -> Vec<f64> {
        self.accuracies.iter().map(|&(_, accuracy)| accuracy).collect()
    }

    /// Mean and sample standard deviation. The latter needs at least two runs.
    fn accuracy(&self) -> String {
        let values = self.values();
        match (mean_and_deviation(&values), values.len()) {
            (_, 0) => "diverged".to_owned(),
            ((mean, _), 1) => format!("{mean:.2}"),
            ((mean, deviation), _) => format!("{mean:.2} ± {deviation:.2}"),
        }
    }

    fn seeds(&self) -> String {
        match (self.accuracies.len(), self.diverged) {
            (seeds, 0) => seeds.to_string(),
            (seeds, diverged) => format!("{seeds}, {diverged} diverged"),
        }
    }
}

/// The difference of two rows over the seeds that both have.
#[derive(Debug, PartialEq)]
pub(super) struct Difference {
    pub(super) mean: f64,
    /// Standard error of the mean. It needs at least two seeds.
    pub(super) error: Option<f64>,
    pub(super) seeds: usize,
}

impl Difference {
    /// Runs with the same seed begin with the same weights and see the same batches. So their difference varies less than the
    /// runs do.
    fn between(one: &Summary, other: &Summary) -> Option<Self> {
        let of = |seed| other.accuracies.iter().find(|&&(other, _)| other == seed);
        let pairs = one.accuracies.iter().filter_map(|&(seed, accuracy)| of(seed).map(|&(_, other)| accuracy - other));
        let differences: Vec<f64> = pairs.collect();
        let seeds = differences.len();
        let (mean, deviation) = mean_and_deviation(&differences);
        let error = (seeds > 1).then(|| deviation / (seeds as f64).sqrt());
        (seeds > 0).then_some(Self { mean, error, seeds })
    }

    /// Half of the 95 % confidence interval of the mean.
    fn reach(&self) -> Option<f64> {
        self.error.map(|error| error * student(self.seeds - 1))
    }

    /// The 95 % confidence interval of the mean.
    pub(super) fn interval(&self) -> Option<(f64, f64)> {
        self.reach().map(|reach| (self.mean - reach, self.mean + reach))
    }

    fn sentence(&self, one: &str, other: &str) -> String {
        let Self { mean, seeds, .. } = self;
        let Some((error, reach)) = self.error.zip(self.reach()) else {
            return format!(
                "{one} − {other}: {mean:+.2} percentage points of one seed, which says nothing of the noise: \
                 use more seeds."
            );
        };
        // Accuracies are multiples of one test example, so a few seeds may agree by chance.
        let remark = if *seeds < 3 || error < 1e-9 {
            "too few seeds to tell from noise: use more".to_owned()
        } else if mean.abs() <= reach {
            format!("within the noise of {seeds} seeds (95 % interval ±{reach:.2})")
        } else {
            format!("beyond the noise of {seeds} seeds (95 % interval ±{reach:.2})")
        };
        format!(
            "{one} − {other}: {mean:+.2} ± {error:.2} percentage points (standard error, paired by seed), {remark}."
        )
    }
}

/// The 97.5 % quantile of Student's t distribution.
fn student(freedom: usize) -> f64 {
    const QUANTILES: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    // For more degrees of freedom: the first terms of the expansion around the quantile of the normal distribution.
    QUANTILES.get(freedom.saturating_sub(1)).copied().unwrap_or(1.960 + 2.372 / freedom as f64)
}

impl<'a> Report<'a> {
    pub(crate) fn new(matrix: &'a Matrix, jobs: &'a [Job], outcomes: &'a [Outcome]) -> Self {
        let rows = matrix.rows.iter().enumerate().map(|(index, row)| {
            let of_row = || jobs.iter().zip(outcomes).filter(move |(job, _)| job.row == index);
            Summary {
                label: row.label.clone(),
                accuracies: of_row().filter_map(|(job, run)| Some((job.config.train.seed, run.accuracy()?))).collect(),
                diverged: of_row().filter(|(_, run)| run.diverged.is_some()).count(),
                parameters: of_row().find_map(|(_, run)| run.parameters),
                paper: row.paper,
            }
        });
        Self { matrix, jobs, outcomes, rows: rows.collect() }
    }

    pub(super) fn matrix(&self) -> &Matrix {
        self.matrix
    }

    pub(super) fn rows(&self) -> &[Summary] {
        &self.rows
    }

    /// All runs, row by row.
    pub(super) fn runs(&self) -> Vec<(&'a Job, &'a Outcome)> {
        (0..self.rows.len()).flat_map(|row| self.runs_of(row)).collect()
    }

    /// The runs of a row.
    pub(super) fn runs_of(&self, row: usize) -> impl Iterator<Item = (&'a Job, &'a Outcome)> {
        self.jobs.iter().zip(self.outcomes).filter(move |(job, _)| job.row == row)
    }

    /// The thresholds of a row, or of all rows, layer by layer. Each layer has those of all runs that trained to the end.
    pub(super) fn thresholds(&self, row: Option<usize>) -> Vec<Tensor> {
        let mut merged: Vec<Tensor> = Vec::new();
        let runs = self.jobs.iter().zip(self.outcomes).filter(|(job, _)| row.is_none_or(|row| job.row == row));
        for (_, run) in runs.filter(|(_, run)| run.accuracy().is_some()) {
            for tensor in &run.thresholds {
                match merged.iter_mut().find(|other| other.name == tensor.name) {
                    Some(other) => other.values.extend(&tensor.values),
                    None => merged.push(tensor.clone()),
                }
            }
        }
        merged
    }

    /// Figure 6 is about thresholds: its text has their figures.
    fn thresholds_of_text(&self) -> Vec<Tensor> {
        if self.matrix.name == Name::Figure6 { self.thresholds(None) } else { Vec::new() }
    }

    pub(super) fn table(&self) -> Table {
        let accuracy = format!("{}: test accuracy %", self.matrix.source.title());
        let mut table =
            Table::new(["row", accuracy.as_str(), "seeds", self.matrix.paper_head().as_str(), "parameters"]);
        for row in &self.rows {
            let parameters = row.parameters.map_or("–".to_owned(), grouped);
            table.row([row.label.clone(), row.accuracy(), row.seeds(), percent(row.paper), parameters]);
        }
        table
    }

    /// The pairs of rows that the experiment compares, and their differences. None if no seed trained both to the end.
    pub(super) fn differences(&self) -> Vec<(&Summary, &Summary, Option<Difference>)> {
        let pairs = self.matrix.comparisons.iter().map(|&(one, other)| (&self.rows[one], &self.rows[other]));
        pairs.map(|(one, other)| (one, other, Difference::between(one, other))).collect()
    }

    /// The differences in words.
    pub(super) fn sentences(&self) -> Vec<String> {
        let sentence = |(one, other, difference): (&Summary, &Summary, Option<Difference>)| match difference {
            Some(difference) => difference.sentence(&one.label, &other.label),
            None => format!("{} − {}: no seed trained both to the end.", one.label, other.label),
        };
        self.differences().into_iter().map(sentence).collect()
    }

    /// One line that says what was trained.
    pub(super) fn conditions(&self) -> String {
        let config = &self.matrix.rows[0].config;
        let (data, train) = (&config.data, &config.train);
        let mut parts = vec![
            format!("data: {}", data.source.title()),
            format!("network: {}", self.matrix.network),
            format!("epochs: {}", train.epochs),
            format!("batch: {}", train.batch),
            format!("learning rate: {}", train.learning_rate),
        ];
        if train.optimizer != Rule::default() {
            parts.push(format!("optimizer: {}", train.optimizer));
        }
        if train.schedule != Schedule::default() {
            parts.push(format!("schedule: {}", train.schedule));
        }
        parts.extend(data.train_limit.map(|limit| format!("training examples: the first {limit}")));
        parts.extend(data.test_limit.map(|limit| format!("test examples: the first {limit}")));
        if !data.augment {
            parts.push("no augmentation".to_owned());
        }
        parts.push(format!("kernels: {}", train.isa.clone().unwrap_or_else(|| Isa::detect().to_string())));
        parts.join("; ")
    }

    /// The report for the terminal.
    pub(crate) fn text(&self) -> String {
        let prose = |text: &str| wrapped(text, PROSE).join("\n");
        let mut text = format!("{}\n{}\n\n{}", self.matrix.title(), prose(&self.conditions()), self.table().fitted());
        let thresholds = self.thresholds_of_text();
        if !thresholds.is_empty() {
            text += &format!("\n{}", inspect::table(&thresholds).fitted());
        }
        for sentence in self.sentences() {
            text += &format!("\n{}", prose(&sentence));
        }
        let remark = "Accuracies are those after the last epoch: mean ± sample standard deviation over the seeds.";
        text + &format!("\n{}\n", prose(remark))
    }

    /// The report as Markdown, for a file.
    fn markdown(&self, command: &str, picture: &str) -> String {
        let mut text = format!(
            "# {}\n\n{}.\n\n{}\nTest accuracy after the last epoch: mean ± sample standard deviation over the seeds.\n",
            self.matrix.title(),
            self.conditions(),
            self.table().markdown()
        );
        if !self.matrix.paper.same {
            text += "The paper's results belong to its own network, data and training: they are an orientation only.\n";
        }
        for sentence in self.sentences() {
            text += &format!("\n- {sentence}");
        }
        if !self.matrix.comparisons.is_empty() {
            text.push('\n');
        }
        let thresholds = self.thresholds_of_text();
        if !thresholds.is_empty() {
            text += &format!("\nThresholds of all seeds:\n\n{}", inspect::table(&thresholds).markdown());
        }
        text + &format!("\n![{}]({picture})\n\n```sh\n{command}\n```\n", self.matrix.title())
    }

    /// The report as CSV. One line per run. Figure 5 has one per run and epoch, figure 6 one per bin of the histogram.
    fn csv(&self) -> Result<Vec<u8>, Failure> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        if self.matrix.name == Name::Figure6 {
            let (reach, shares) = plot::shares_of_bins(&self.all_thresholds(), BINS, None);
            let width = 2.0 * reach / shares.len() as f64;
            writer.write_record(["from", "to", "share"])?;
            for (bin, share) in shares.iter().enumerate() {
                let from = bin as f64 * width - reach;
                writer.write_record([from, from + width, share / 100.0].map(|value| value.to_string()))?;
            }
        } else {
            writer.write_record([
                "row",
                "dataset",
                "network",
                "activation",
                "region",
                "seed",
                "epoch",
                "loss",
                "accuracy",
                "test_loss",
                "test_accuracy",
                "diverged",
                "parameters",
                "paper",
                "run",
            ])?;
            for (job, run) in self.jobs.iter().zip(self.outcomes) {
                let skip = if self.matrix.name == Name::Figure5 { 0 } else { run.history.len().saturating_sub(1) };
                let mut epochs: Vec<_> = run.history[skip..].iter().map(Some).collect();
                if epochs.is_empty() {
                    epochs.push(None);
                }
                for epoch in epochs {
                    let model = &job.config.model;
                    let of = |value: fn(&Epoch) -> f64| epoch.map(value).map_or(String::new(), text_of);
                    writer.write_record([
                        job.label.clone(),
                        job.config.data.source.to_string(),
                        model.network.to_string(),
                        model.activation.to_string(),
                        model.region.to_string(),
                        job.config.train.seed.to_string(),
                        epoch.map_or(String::new(), |epoch| epoch.epoch.to_string()),
                        of(|epoch| epoch.loss),
                        of(|epoch| epoch.accuracy),
                        of(|epoch| epoch.test_loss),
                        of(|epoch| epoch.test_accuracy),
                        run.diverged.map_or(String::new(), text_of),
                        run.parameters.map_or(String::new(), text_of),
                        self.matrix.rows[job.row].paper.map_or(String::new(), text_of),
                        job.directory.display().to_string(),
                    ])?;
                }
            }
        }
        Ok(writer.into_inner().map_err(csv::IntoInnerError::into_error)?)
    }

    fn all_thresholds(&self) -> Vec<f32> {
        self.thresholds(None).into_iter().flat_map(|tensor| tensor.values).collect()
    }

    /// A value per epoch of all runs, row by row.
    pub(super) fn series(&self, value: fn(&Epoch) -> f64) -> Vec<Series> {
        let series = |(index, row): (usize, &Summary)| {
            let runs = self.runs_of(index).map(|(_, run)| run.history.iter().map(value).collect());
            Series { name: row.label.clone(), runs: runs.collect() }
        };
        self.rows.iter().enumerate().map(series).collect()
    }

    /// The test accuracies of all rows.
    pub(super) fn accuracies(&self) -> Panel {
        let row = |row: &Summary| plot::Row { name: row.label.clone(), values: row.values(), reference: row.paper };
        Panel::Rows(Rows {
            title: format!("{}: test accuracy (%)", self.matrix.title()),
            rows: self.rows.iter().map(row).collect(),
            reference: Some(self.matrix.paper_head()),
        })
    }

    fn picture(&self) -> Result<String, Failure> {
        let title = self.matrix.title();
        let panel = match self.matrix.name {
            Name::Figure5 => {
                let series = self.series(|epoch| 100.0 * epoch.test_accuracy);
                Panel::Curves(Curves::percent(&format!("{title} (%)"), series))
            }
            Name::Figure6 => Panel::Histogram(Histogram::new(&title, self.all_thresholds())),
            _ => self.accuracies(),
        };
        plot::draw(&[panel])
    }

    /// Writes the results and returns their paths.
    pub(crate) fn write(&self, out: &Path, origin: &Origin) -> Result<Vec<PathBuf>, Failure> {
        fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
        let name = |end: &str| format!("{}{end}", self.matrix.file_stem);
        let runs = self.runs();
        let contents = [
            (name(".md"), self.markdown(&origin.command, &name(".svg")).into_bytes()),
            (name(".html"), page::html(self, origin)?.into_bytes()),
            (name(".csv"), self.csv()?),
            (name("-epochs.csv"), lines::epochs(&runs)?),
            (name("-units.csv"), lines::units(&runs)?),
            (name("-thresholds.csv"), lines::thresholds(self)?),
            (name("-differences.csv"), lines::differences(self)?),
            (name(".svg"), self.picture()?.into_bytes()),
        ];
        let mut paths = Vec::new();
        for (name, contents) in contents {
            let path = out.join(name);
            if contents.is_empty() {
                // There are no lines, for example because an experiment compares no rows. An older file would contradict that.
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(format!("{}: {error}", path.display()).into());
                    }
                    _ => continue,
                }
            }
            files::write(&path, &contents)?;
            paths.push(path);
        }
        Ok(paths)
    }

    /// The report as JSON, for other programs.
    pub(crate) fn event(&self) -> serde_json::Value {
        let row = |row: &Summary| {
            let values = row.values();
            let (mean, deviation) = mean_and_deviation(&values);
            json!({
                "row": row.label,
                "mean": (!values.is_empty()).then_some(mean),
                "deviation": (values.len() > 1).then_some(deviation),
                "seeds": row.accuracies.iter().map(|&(seed, _)| seed).collect::<Vec<_>>(),
                "accuracies": values,
                "diverged": row.diverged,
                "parameters": row.parameters,
                "paper": row.paper,
            })
        };
        let comparison = |(one, other, difference): (&Summary, &Summary, Option<Difference>)| {
            json!({
                "row": one.label,
                "minus": other.label,
                "mean": difference.as_ref().map(|difference| difference.mean),
                "error": difference.as_ref().and_then(|difference| difference.error),
                "interval95": difference.as_ref().and_then(Difference::reach),
                "seeds": difference.map_or(0, |difference| difference.seeds),
            })
        };
        json!({
            "event": "table",
            "name": self.matrix.name.key(),
            "title": self.matrix.title(),
            "paper": self.matrix.paper_head(),
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "comparisons": self.differences().into_iter().map(comparison).collect::<Vec<_>>(),
        })
    }
}

fn text_of(value: impl ToString) -> String {
    value.to_string()
}

/// A result of the paper.
pub(crate) fn percent(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.2}"))
}

/// How a run ended, in words.
pub(crate) fn result(outcome: &Outcome) -> String {
    match (outcome.diverged, outcome.history.last()) {
        (Some(epoch), _) => format!("diverged in epoch {epoch}"),
        (None, Some(last)) => format!(
            "loss {:.3}, test {:.2} % after {} epochs",
            last.loss,
            100.0 * last.test_accuracy,
            outcome.history.len()
        ),
        (None, None) => "no epochs".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use convrelu::train::Config;

    fn epoch(number: usize, test_accuracy: f64) -> Epoch {
        Epoch {
            epoch: number,
            loss: 0.5,
            accuracy: 0.8,
            test_loss: 0.6,
            test_accuracy,
            learning_rate: 0.1,
            seconds: 1.0,
            images_per_second: 10.0,
            dead_units: 0,
            units: 1,
            units_by_layer: Vec::new(),
            theta_mean: None,
            theta_deviation: None,
        }
    }

    /// Table 1 with two seeds: the accuracies of a row are 0.5, 0.6 plus its number in hundredths; LeakyReLU diverged.
    fn finished() -> (Matrix, Vec<Job>, Vec<Outcome>) {
        let settings = crate::options::Settings {
            data: crate::options::Data { dataset: "fashion-mnist".parse().ok(), ..Default::default() },
            ..Default::default()
        };
        let matrix = Matrix::new(Name::Table1, &settings, &[]).unwrap();
        let (mut jobs, mut outcomes) = (Vec::new(), Vec::new());
        for seed in [1, 2] {
            for (row, label) in matrix.rows.iter().map(|row| row.label.clone()).enumerate() {
                let mut config: Config = matrix.rows[row].config.clone();
                config.train.seed = seed;
                jobs.push(Job { row, label, config, directory: PathBuf::from("d") });
                let accuracy = (40 + 10 * seed + row as u64) as f64 / 100.0;
                let history = vec![epoch(1, 0.1), epoch(2, accuracy)];
                let diverged = (row == 1).then_some(3);
                let (parameters, isa) = (Some(1_234_567), Some("scalar".to_owned()));
                outcomes.push(Outcome { history, parameters, diverged, thresholds: Vec::new(), isa });
            }
        }
        (matrix, jobs, outcomes)
    }

    #[test]
    fn rows_are_means_over_seeds() {
        let (matrix, jobs, outcomes) = finished();
        let report = Report::new(&matrix, &jobs, &outcomes);
        let text = report.text();
        let line = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("ReLU"), "ReLU 55.00 ± 7.07 2 94.29 1,234,567");
        assert_eq!(line("LeakyReLU "), "LeakyReLU diverged 0, 2 diverged 94.45 1,234,567");
        assert!(
            line("row").ends_with("paper: DenseNet-40 on CIFAR-10, orientation only parameters"),
            "{}",
            line("row")
        );
        assert!(text.contains("ConvReLU − ReLU: +5.00 ± 0.00 percentage points"), "{text}");
    }

    #[test]
    fn files_hold_the_same_results() {
        let (matrix, jobs, outcomes) = finished();
        let report = Report::new(&matrix, &jobs, &outcomes);
        let markdown = report.markdown("convrelu experiment table1", "a.svg");
        assert!(markdown.starts_with("# Table 1: activation functions; DenseNet-40, Fashion-MNIST\n"), "{markdown}");
        for part in [
            "| ReLU | 55.00 ± 7.07 | 2 | 94.29 | 1,234,567 |\n",
            "epochs: 350",
            "\n- ConvReLU − ReLU: ",
            "```sh\nconvrelu experiment table1\n```\n",
            "orientation only",
        ] {
            assert!(markdown.contains(part), "{part} is missing in {markdown}");
        }
        let csv = String::from_utf8(report.csv().unwrap()).unwrap();
        assert_eq!(csv.lines().count(), 1 + jobs.len());
        assert!(
            csv.contains("ConvReLU,fashion-mnist,densenet40,convrelu,first,2,2,0.5,0.8,0.6,0.65,,1234567,94.72,d"),
            "{csv}"
        );
        let event = report.event();
        assert_eq!(event["rows"][5]["accuracies"].as_array().unwrap().len(), 2);
        assert!(event["rows"][1]["mean"].is_null() && event["rows"][1]["diverged"] == 2);
        assert!(report.picture().unwrap().contains("LeakyReLU(A)"));
    }

    #[test]
    fn differences_are_paired_and_honest() {
        let summary = |accuracies: &[(u64, f64)]| Summary {
            label: String::new(),
            accuracies: accuracies.to_vec(),
            diverged: 0,
            parameters: None,
            paper: None,
        };
        let one = summary(&[(1, 91.0), (2, 92.0), (3, 96.0), (4, 9.0)]);
        let other = summary(&[(1, 90.0), (3, 93.0), (2, 90.0)]);
        let difference = Difference::between(&one, &other).unwrap();
        assert_eq!((difference.mean, difference.seeds), (2.0, 3));
        assert!((difference.error.unwrap() - 1.0 / 3.0_f64.sqrt()).abs() < 1e-12);
        let sentence = difference.sentence("A", "B");
        assert!(sentence.starts_with("A − B: +2.00 ± 0.58 percentage points"), "{sentence}");
        assert!(sentence.ends_with("within the noise of 3 seeds (95 % interval ±2.48)."), "{sentence}");
        let clear = Difference { mean: -2.0, error: Some(0.1), seeds: 3 }.sentence("A", "B");
        assert!(clear.starts_with("A − B: -2.00 ± 0.10") && clear.contains("beyond the noise"), "{clear}");
        for (error, seeds) in [(0.1, 2), (0.0, 3)] {
            let few = Difference { mean: 2.0, error: Some(error), seeds }.sentence("A", "B");
            assert!(few.ends_with("too few seeds to tell from noise: use more."), "{few}");
        }
        let single = Difference::between(&summary(&[(1, 2.0)]), &summary(&[(1, 1.0)])).unwrap();
        assert!(single.error.is_none() && single.sentence("A", "B").contains("+1.00 percentage points of one seed"));
        assert_eq!(Difference::between(&one, &summary(&[])), None);
    }

    #[test]
    fn quantiles_are_those_of_students_t() {
        assert_eq!((student(2), student(30)), (4.303, 2.042));
        assert!((student(60) - 2.000).abs() < 2e-3);
    }
}
