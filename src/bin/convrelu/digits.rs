//! The main job: ReLU against ConvReLU on the bundled digits.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use convrelu::Isa;
use convrelu::train::{Activation, Config, Dataset, Epoch, Replacement, digits, fit, models};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use crate::output::{self, Table};
use crate::{Failure, plot};

/// Options of the main job.
#[derive(Args)]
pub(crate) struct Options {
    /// Passes over the training set
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Runs with different seeds, per activation
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Threads, that is, runs at the same time; results do not depend on it [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Where results are written
    #[arg(long, value_name = "DIRECTORY", default_value = "runs/digits")]
    out: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { epochs: 30, seeds: 3, threads: None, out: "runs/digits".into() }
    }
}

/// One trained network.
pub(crate) struct Run {
    pub(crate) activation: Activation,
    seed: u64,
    pub(crate) history: Vec<Epoch>,
    parameters: usize,
    pub(crate) thresholds: Vec<f32>,
}

/// The activations compared, in the order of the table.
pub(crate) const ACTIVATIONS: [Activation; 2] = [Activation::Relu, Activation::ConvRelu];

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    fs::create_dir_all(&options.out).map_err(|error| format!("--out {}: {error}", options.out.display()))?;
    if let Some(threads) = options.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build_global()?;
    }
    let (train, test) = digits::load()?;
    let start = Instant::now();
    eprintln!(
        "{} training and {} test digits, {} epochs, {} seeds, {} threads, {}",
        train.len(),
        test.len(),
        options.epochs,
        options.seeds,
        rayon::current_num_threads(),
        Isa::detect()
    );
    let jobs: Vec<_> = (1..=options.seeds).flat_map(|seed| ACTIVATIONS.map(|activation| (activation, seed))).collect();
    let bar = ProgressBar::new(jobs.len() as u64 * u64::from(options.epochs));
    bar.set_style(ProgressStyle::with_template("{bar:32} {pos}/{len} epochs, {eta} left  {msg}")?);
    let runs = jobs
        .into_par_iter()
        .map(|(activation, seed)| train_one(activation, seed, options, &train, &test, &bar))
        .collect::<Result<Vec<_>, Failure>>()?;
    bar.finish_and_clear();

    output::print(&summary(&runs).to_string())?;
    let files = [("metrics.csv", metrics(&runs)), ("digits.svg", plot::draw(&runs)?)];
    for (name, contents) in &files {
        output::write(&options.out.join(name), contents)?;
    }
    eprintln!(
        "{:.1} s in all; accuracy curves and learned thresholds: {}, figures per epoch: {}",
        start.elapsed().as_secs_f64(),
        options.out.join(files[1].0).display(),
        options.out.join(files[0].0).display()
    );
    Ok(())
}

fn train_one(
    activation: Activation,
    seed: u64,
    options: &Options,
    train: &Dataset,
    test: &Dataset,
    bar: &ProgressBar,
) -> Result<Run, Failure> {
    let replacement = Replacement { activation, blocks: models::FIRST };
    let mut network = models::small_cnn(train.shape(), train.classes(), replacement, seed)?;
    // One thread per run: runs share out the cores better than the layers of so small a network do.
    let config = Config { epochs: options.epochs as usize, seed, threads: 1, ..Config::default() };
    let history = fit(&mut network, train, test, &config, |epoch| {
        bar.set_message(format!(
            "{} seed {seed}: loss {:.3}, test {:.1} %",
            activation.name(),
            epoch.loss,
            100.0 * epoch.test_accuracy
        ));
        bar.inc(1);
    })?;
    let (parameters, thresholds) = (network.parameter_count(), network.thresholds().collect());
    Ok(Run { activation, seed, history, parameters, thresholds })
}

/// Mean and sample standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

fn summary(runs: &[Run]) -> Table<6> {
    let mut table = Table::new(["activation", "test accuracy %", "parameters", "seconds/run", "dead units %", "isa"]);
    for activation in ACTIVATIONS {
        let of = |value: fn(&Epoch) -> f64| {
            let runs = runs.iter().filter(|run| run.activation == activation);
            moments(&runs.filter_map(|run| run.history.last()).map(value).collect::<Vec<_>>())
        };
        let (accuracy, deviation) = of(|epoch| 100.0 * f64::from(epoch.test_accuracy));
        let dead = of(|epoch| 100.0 * epoch.units.dead as f64 / epoch.units.total.max(1) as f64).0;
        let parameters = runs.iter().find(|run| run.activation == activation).map_or(0, |run| run.parameters);
        table.row([
            activation.name().to_owned(),
            format!("{accuracy:.2} ± {deviation:.2}"),
            parameters.to_string(),
            format!("{:.1}", of(|epoch| epoch.seconds).0),
            format!("{dead:.1}"),
            Isa::detect().to_string(),
        ]);
    }
    table
}

/// One line per run and epoch.
fn metrics(runs: &[Run]) -> String {
    let mut csv = "activation,seed,epoch,loss,train_accuracy,test_accuracy,dead_units,units,seconds\n".to_owned();
    for run in runs {
        for epoch in &run.history {
            let Epoch { number, loss, train_accuracy, test_accuracy, units, seconds } = epoch;
            let (activation, seed) = (run.activation.name(), run.seed);
            // Writing to a string cannot fail.
            let _ = writeln!(
                csv,
                "{activation},{seed},{number},{loss},{train_accuracy},{test_accuracy},{},{},{seconds:.3}",
                units.dead, units.total
            );
        }
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_those_of_a_sample() {
        assert_eq!(moments(&[1.0, 2.0, 3.0]), (2.0, 1.0));
        assert_eq!(moments(&[4.0]), (4.0, 0.0));
    }

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            options: Options,
        }
        let parsed = <Only as clap::Parser>::parse_from(["test"]).options;
        let default = Options::default();
        assert_eq!(
            (parsed.epochs, parsed.seeds, parsed.threads, parsed.out),
            (default.epochs, default.seeds, default.threads, default.out)
        );
    }
}
