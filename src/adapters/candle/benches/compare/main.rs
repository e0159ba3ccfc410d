//! The adapter beside candle's own convolutions: `cargo bench --bench compare -- --help`.
//!
//! candle reads the number of its threads from the environment, once. So each number of threads is measured by a process of its
//! own, which this program starts, and which hands its rows over on its standard output.

// Of the crate's comparison with peers and of its own benches.
#[allow(dead_code, unused_imports)]
#[path = "../../../../../benches/peers/src/clock.rs"]
mod clock;
mod layers;
#[path = "../../../../../benches/peers/src/measure.rs"]
mod measure;
mod networks;
mod report;
#[path = "../../../../../benches/common/shapes.rs"]
mod shapes;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use clock::Clock;
use measure::Sampler;
use report::Row;

/// Times the adapter's plain convolutions beside candle's: outputs, outputs and gradients, and steps of training.
///
/// Prints a table in Markdown for each number of threads: medians of interleaved samples of wall-clock time, and geometric means
/// of the ratios. Both sides' results are compared before they are timed.
#[derive(Parser)]
struct Options {
    /// Numbers of threads, one after the other
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Vec<u32>,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["layers", "networks"])]
    parts: Vec<Part>,
    /// Only layers and networks whose names contain this text
    #[arg(long, default_value = "", hide_default_value = true)]
    only: String,
    /// Samples of each layer and side; networks have as many, but three at most
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long a sample lasts at least, in milliseconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    sample: u64,
    /// Writes all rows into this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Measures in this process, and prints rows
    #[arg(long, hide = true)]
    worker: Option<u32>,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The layers of the crate's own benches, and that of candle's issue 3119
    Layers,
    /// Steps of training of networks for small images
    Networks,
}

/// A call of one side.
type Call<'a> = Box<dyn FnMut() + 'a>;

/// Median times of both sides in microseconds.
fn interleaved<'a>(ours: Call<'a>, candles: Option<Call<'a>>, rounds: u32, sample: Duration) -> (f64, Option<f64>) {
    let sampler = |call| Sampler::new(sample, Clock::Wall, call);
    let (mut ours, mut candles) = (sampler(ours), candles.map(sampler));
    for _ in 0..rounds {
        ours.sample();
        candles.iter_mut().for_each(Sampler::sample);
    }
    (1e6 * ours.median(), candles.map(|candles| 1e6 * candles.median()))
}

/// Whether two results are the same but for rounding.
fn is_same(ours: &[f32], candles: &[f32]) -> bool {
    let largest = candles.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    ours.len() == candles.len()
        && ours.iter().zip(candles).all(|(ours, candle)| (ours - candle).abs() <= 1e-3 * largest)
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match options.worker {
        Some(threads) => work(&options, threads),
        None => run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What goes wrong, in words.
type Failure = Box<dyn std::error::Error>;

/// Measures with the threads that this process has.
fn work(options: &Options, threads: u32) -> Result<(), Failure> {
    let mut writer = csv::Writer::from_writer(std::io::stdout());
    let sample = Duration::from_millis(options.sample);
    let mut found = |row: Row| -> Result<(), Failure> {
        eprintln!("{row}");
        writer.serialize(row)?;
        Ok(writer.flush()?)
    };
    for part in &options.parts {
        let (only, rounds) = (&options.only[..], options.rounds);
        match part {
            Part::Layers => layers::measure(threads, only, rounds, sample, &mut found)?,
            Part::Networks => networks::measure(threads, only, rounds.min(3), sample, &mut found)?,
        }
    }
    Ok(())
}

/// Has each number of threads measured, and prints tables.
fn run(options: &Options) -> Result<(), Failure> {
    let mut rows: Vec<Row> = Vec::new();
    for threads in &options.threads {
        let mut worker = Command::new(std::env::current_exe()?);
        let text = threads.to_string();
        worker.args(["--worker", &text, "--only", &options.only]);
        worker.args(["--rounds", &options.rounds.to_string(), "--sample", &options.sample.to_string()]);
        for part in &options.parts {
            worker.args(["--parts", if *part == Part::Layers { "layers" } else { "networks" }]);
        }
        // Of rayon's pool and of candle's products of matrices.
        worker.env("RAYON_NUM_THREADS", &text).stdout(Stdio::piped());
        let output = worker.spawn()?.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("the measurement on {threads} threads has failed: {}", output.status).into());
        }
        for row in csv::Reader::from_reader(&output.stdout[..]).deserialize() {
            rows.push(row?);
        }
    }
    if rows.is_empty() {
        return Err(format!("--only {:?}: no name contains it", options.only).into());
    }
    print!("{}", report::markdown(&rows));
    if let Some(path) = &options.csv {
        let mut writer = csv::Writer::from_writer(Vec::new());
        rows.iter().try_for_each(|row| writer.serialize(row))?;
        convrelu::train::files::write(path, &writer.into_inner()?)
            .map_err(|error| format!("--csv {}: {error}", path.display()))?;
    }
    Ok(())
}
