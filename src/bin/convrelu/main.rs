//! The command line of convrelu.

// `println!` would end the program when a write fails. The functions of `output` do not.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod digits;
mod eval;
mod experiment;
mod export;
mod inspect;
mod load;
mod options;
mod output;
mod params;
mod plot;
mod profile;
mod records;
mod stop;
mod train;
mod trained;

use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use convrelu::Isa;
use convrelu::train::TrainError;

/// Convolutions with a trainable activation threshold per weight position (ConvReLU).
///
/// Without a command, the program trains a small network on the bundled digits, once with ReLU and once with ConvReLU in its
/// first layers, with several seeds each. It prints a table, and draws a picture in runs/digits.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 80,
    after_help = "Examples:
  convrelu                                   ReLU against ConvReLU, in under a minute
  convrelu train --dataset fashion-mnist --activation convrelu --out runs/first
  convrelu train --resume runs/first         continue after an interruption
  convrelu train --resume runs/first --epochs 400      continue for longer
  convrelu inspect runs/first                histogram of the run's thresholds
  convrelu export runs/first --onnx first.onnx         for other runtimes
  convrelu experiment table1 --dataset fashion-mnist --epochs 10
  convrelu params                            table 6 of the paper

Exit status: 0 success, 1 a failure while running, 2 wrong arguments or settings,
3 training diverged, 130 interrupted."
)]
struct Arguments {
    /// Write a log to standard error; give it twice for more detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Compare ReLU with ConvReLU on the bundled digits (the command without a name)
    Digits(digits::Options),
    /// Train a network
    Train(train::Options),
    /// Test a trained network
    Eval(eval::Options),
    /// Write a trained network as an ONNX file
    Export(export::Options),
    /// Count the parameters of a network with each activation (table 6)
    Params(params::Options),
    /// Show the learned thresholds of a run (figure 6)
    Inspect(inspect::Options),
    /// Rerun a table or figure of the paper
    Experiment(experiment::Options),
    /// List the instruction sets of the kernels, and those that this machine offers
    Isa,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match arguments.verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    // Colours are for terminals only. A log line that cannot be written is dropped.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_writer(std::io::stderr);
    log.with_ansi(colours).log_internal_errors(false).init();
    let result = match arguments.command.unwrap_or_else(|| Command::Digits(digits::Options::default())) {
        Command::Digits(options) => digits::run(&options),
        Command::Train(options) => stop::listen().and_then(|()| train::run(&options)),
        Command::Eval(options) => eval::run(&options),
        Command::Export(options) => export::run(&options),
        Command::Params(options) => params::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Experiment(options) => stop::listen().and_then(|()| experiment::run(&options)),
        Command::Isa => {
            list_isas();
            Ok(())
        }
    };
    match result.and_then(|()| output::lost()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("convrelu: {}", message(&*error)));
            ExitCode::from(status(&*error))
        }
    }
}

/// A failure with a message for a person.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Arguments that make no sense.
#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Work that was interrupted on request.
#[derive(Debug)]
enum Interrupted {
    /// The work can continue later.
    Saved,
    /// There was nothing to save.
    NothingBegun,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Saved => "interrupted; everything so far is saved",
            Self::NothingBegun => "interrupted before anything was trained",
        })
    }
}

impl std::error::Error for Interrupted {}

/// The message for a person. For a setting it names the option.
fn message(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<TrainError>() {
        Some(TrainError::Setting { name, value, rule }) => format!("--{name} {value}: {rule}"),
        _ => error.to_string(),
    }
}

/// The exit status of a failure.
fn status(error: &(dyn std::error::Error + 'static)) -> u8 {
    match error.downcast_ref::<TrainError>() {
        Some(TrainError::Setting { .. } | TrainError::Busy { .. }) => 2,
        Some(TrainError::Diverged { .. }) => 3,
        _ if error.is::<Usage>() => 2,
        _ if error.is::<Interrupted>() => stop::INTERRUPTED,
        _ => 1,
    }
}

fn list_isas() {
    let mut table = output::Table::new(["isa", "lanes", "available", "chosen"]);
    for (isa, lanes) in [(Isa::Avx512, 16), (Isa::Avx2, 8), (Isa::Neon, 4), (Isa::Simd128, 4), (Isa::Scalar, 1)] {
        let yes = |condition: bool| if condition { "yes" } else { "" }.to_owned();
        table.row([isa.to_string(), lanes.to_string(), yes(isa.is_available()), yes(isa == Isa::detect())]);
    }
    output::print(&table.fitted());
}
