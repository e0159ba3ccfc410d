//! The command line of convrelu.

mod digits;
mod output;
mod plot;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use convrelu::Isa;

/// Convolutions with a trainable activation threshold per weight position (ConvReLU).
///
/// Without a command it runs the main job: a small network on the bundled digits, once with ReLU and once with ConvReLU
/// in its first layers, several seeds each. It ends with a table on the terminal and a picture on disk.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  convrelu                      the main job, in under a minute\n  convrelu digits --seeds 10    the same with ten seeds\n  convrelu isa                  what this machine offers\n\nExit status: 0 success, 1 a failure while running, 2 wrong arguments."
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// The main job: ReLU against ConvReLU on the bundled digits
    Digits(digits::Options),
    /// List the instruction sets that the kernels know and this machine offers
    Isa,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command.unwrap_or_else(|| Command::Digits(digits::Options::default())) {
        Command::Digits(options) => digits::run(&options),
        Command::Isa => list_isas(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("convrelu: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A failure with a message for a person.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn list_isas() -> Result<(), Failure> {
    let mut table = output::Table::new(["isa", "lanes", "available", "chosen"]);
    for (isa, lanes) in [(Isa::Avx512, 16), (Isa::Avx2, 8), (Isa::Neon, 4), (Isa::Scalar, 1)] {
        let yes = |condition: bool| if condition { "yes" } else { "" }.to_owned();
        table.row([isa.to_string(), lanes.to_string(), yes(isa.is_available()), yes(isa == Isa::detect())]);
    }
    output::print(&table.to_string())
}
