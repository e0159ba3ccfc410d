//! The main job: it compares ReLU with ConvReLU on the bundled digits.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use convrelu::Isa;
use convrelu::train::data::Source;
use convrelu::train::models::{Activation, Architecture, Region};
use convrelu::train::{Config, Dataset, Epoch, EpochEvent, Schedule, Trainer, files};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use serde::Serialize;

use crate::output::{self, Table};
use crate::plot::{self, Curves, Histogram, Panel, Series, mean_and_deviation};
use crate::records::csv;
use crate::{Failure, Interrupted, stop};

/// Options of the main job.
#[derive(Args)]
pub(crate) struct Options {
    /// Passes over the training set
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Runs with different seeds, per activation
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Threads. Each trains one network at a time. Their number does not change results [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Directory of the results
    #[arg(long, value_name = "DIRECTORY", default_value = "runs/digits")]
    out: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { epochs: 30, seeds: 3, threads: None, out: "runs/digits".into() }
    }
}

/// One trained network.
struct Trained {
    activation: Activation,
    seed: u64,
    history: Vec<Epoch>,
    parameters: usize,
    thresholds: Vec<f32>,
}

/// The activations compared, in the order of the table.
const ACTIVATIONS: [Activation; 2] = [Activation::Relu, Activation::Convrelu];

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    std::fs::create_dir_all(&options.out).map_err(|error| format!("--out {}: {error}", options.out.display()))?;
    if let Some(threads) = options.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build_global()?;
    }
    let (train, test) = config(Activation::Relu, options, 1).data.load()?;
    let start = Instant::now();
    output::note(&format!(
        "{} training and {} test digits, {} epochs, {} seeds, {} threads, {}",
        train.len(),
        test.len(),
        options.epochs,
        options.seeds,
        rayon::current_num_threads(),
        Isa::detect()
    ));
    let jobs: Vec<_> = (1..=options.seeds).flat_map(|seed| ACTIVATIONS.map(|activation| (activation, seed))).collect();
    let bar = ProgressBar::new(jobs.len() as u64 * u64::from(options.epochs));
    bar.set_style(ProgressStyle::with_template("{bar:32} {pos}/{len} epochs, {eta} left  {wide_msg}")?);
    let runs = jobs
        .into_par_iter()
        .map(|(activation, seed)| train_one(activation, seed, options, &train, &test, &bar))
        .collect::<Result<Vec<_>, Failure>>()?;
    bar.finish_and_clear();

    output::print(&summary(&runs).fitted());
    let written = [("metrics.csv", metrics(&runs)?), ("digits.svg", draw(&runs)?.into_bytes())];
    for (name, contents) in &written {
        files::write(&options.out.join(name), contents)?;
    }
    output::note(&format!("{:.1} s in all", start.elapsed().as_secs_f64()));
    output::note(&format!("figures per epoch: {}", options.out.join(written[0].0).display()));
    output::note(&format!("accuracy curves and learned thresholds: {}", options.out.join(written[1].0).display()));
    Ok(())
}

/// The paper's settings, except for smaller batches and a smaller learning rate, which so small a task needs.
fn config(activation: Activation, options: &Options, seed: u64) -> Config {
    let mut config = Config::default();
    config.data.source = Source::Digits;
    (config.model.network, config.model.activation, config.model.region) =
        (Architecture::SmallCnn, activation, Region::First);
    let epochs = options.epochs as usize;
    (config.train.epochs, config.train.batch, config.train.learning_rate, config.train.seed) = (epochs, 32, 0.02, seed);
    let mut milestones = vec![epochs.div_ceil(2), (3 * epochs).div_ceil(4)];
    milestones.dedup();
    config.train.schedule = Schedule::Step { milestones, factor: 0.1 };
    // One thread per run, because several runs use the cores better than one layer of so small a network does.
    config.train.threads = std::num::NonZeroUsize::new(1);
    config
}

fn train_one(
    activation: Activation,
    seed: u64,
    options: &Options,
    train: &Dataset,
    test: &Dataset,
    bar: &ProgressBar,
) -> Result<Trained, Failure> {
    let mut trainer = Trainer::new(&config(activation, options, seed), train)?;
    while !trainer.is_finished() {
        let flow =
            |_: EpochEvent<'_>| if stop::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let Some(epoch) = trainer.epoch(train, test, &mut { flow })? else { return Err(Interrupted::Saved.into()) };
        bar.set_message(format!(
            "{} seed {seed}: loss {:.3}, test {:.1} %",
            activation.name(),
            epoch.loss,
            100.0 * epoch.test_accuracy
        ));
        bar.inc(1);
    }
    let network = trainer.network();
    let (parameters, thresholds) = (network.parameter_count(), network.thresholds());
    Ok(Trained { activation, seed, history: trainer.history().to_vec(), parameters, thresholds })
}

fn summary(runs: &[Trained]) -> Table {
    let mut table = Table::new(["activation", "test accuracy %", "parameters", "seconds/run", "dead units %", "isa"]);
    for activation in ACTIVATIONS {
        let runs = || runs.iter().filter(move |run| run.activation == activation);
        let of =
            |value: fn(&[Epoch]) -> f64| mean_and_deviation(&runs().map(|run| value(&run.history)).collect::<Vec<_>>());
        let last = |value: fn(&Epoch) -> f64| {
            mean_and_deviation(&runs().filter_map(|run| run.history.last()).map(value).collect::<Vec<_>>())
        };
        let (accuracy, deviation) = last(|epoch| 100.0 * epoch.test_accuracy);
        let dead = last(|epoch| 100.0 * epoch.dead_units as f64 / epoch.units.max(1) as f64).0;
        let seconds = of(|history| history.iter().map(|epoch| epoch.seconds).sum()).0;
        table.row([
            activation.name().to_owned(),
            format!("{accuracy:.2} ± {deviation:.2}"),
            runs().next().map_or(0, |run| run.parameters).to_string(),
            format!("{seconds:.1}"),
            format!("{dead:.1}"),
            Isa::detect().to_string(),
        ]);
    }
    table
}

/// An epoch of a run.
#[derive(Serialize)]
struct Line {
    activation: &'static str,
    seed: u64,
    epoch: usize,
    loss: f64,
    accuracy: f64,
    test_loss: f64,
    test_accuracy: f64,
    seconds: f64,
    dead_units: usize,
    units: usize,
}

/// One line per run and epoch.
fn metrics(runs: &[Trained]) -> Result<Vec<u8>, Failure> {
    let line = |run: &Trained, epoch: &Epoch| Line {
        activation: run.activation.key(),
        seed: run.seed,
        epoch: epoch.epoch,
        loss: epoch.loss,
        accuracy: epoch.accuracy,
        test_loss: epoch.test_loss,
        test_accuracy: epoch.test_accuracy,
        seconds: epoch.seconds,
        dead_units: epoch.dead_units,
        units: epoch.units,
    };
    csv(runs.iter().flat_map(|run| run.history.iter().map(move |epoch| line(run, epoch))))
}

/// Accuracy curves and the histogram of learned thresholds (figures 5 and 6 of the paper).
fn draw(runs: &[Trained]) -> Result<String, Failure> {
    let of = |activation| runs.iter().filter(move |run| run.activation == activation);
    let series = ACTIVATIONS.into_iter().map(|activation| Series {
        name: activation.name().to_owned(),
        runs: of(activation).map(|run| run.history.iter().map(|epoch| 100.0 * epoch.test_accuracy).collect()).collect(),
    });
    let values = of(Activation::Convrelu).flat_map(|run| run.thresholds.iter().copied()).collect();
    plot::draw(&[
        Panel::Curves(Curves::percent("Test accuracy (%)", series.collect())),
        Panel::Histogram(Histogram::new("Learned thresholds θ", values)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

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
