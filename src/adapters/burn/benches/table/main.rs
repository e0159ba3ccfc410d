//! convrelu beside burn's own convolutions, on the same backend and in the same autodiff.
//!
//!     cargo bench --bench table -- --help

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use convrelu::Isa;

use report::Row;

mod clock;
mod layers;
mod networks;
#[path = "../../../../../benches/peers/src/notation.rs"]
#[allow(dead_code, reason = "the comparison with peers uses all of it")]
mod notation;
mod report;

/// Times convolutions of convrelu and of burn in turns, and prints medians, their ratios and geometric means as Markdown.
#[derive(Parser)]
struct Options {
    /// Threads of the rayon pool that both sides use
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// Only layers and networks with these names
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Seconds for each pass of each layer, both sides together
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Where the table is written as CSV too
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "it must be a number from 0 to 3600".to_owned())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let layers = layers::all()?;
    let known = || layers.iter().map(|layer| &layer.name[..]).chain(networks::NAMES);
    if let Some(name) = options.only.iter().find(|name| !known().any(|known| known == name.as_str())) {
        return Err(format!("--only {name}: it must be one of {}", known().collect::<Vec<_>>().join(", ")).into());
    }
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    println!("{}, {}, {} cores, burn 0.22 on its backend Flex\n", cpu(), Isa::detect(), cores());
    println!("{}", report::HEADER);
    let mut rows: Vec<Row> = Vec::new();
    for &threads in &options.threads {
        let threads = usize::from(threads);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let mut add = |row: Row| {
            println!("{row}");
            rows.push(row);
        };
        for layer in layers.iter().filter(|layer| wanted(&layer.name)) {
            add(pool.install(|| layers::measure(layer, threads, options.seconds))?);
        }
        for name in networks::NAMES.into_iter().filter(|name| wanted(name)) {
            add(pool.install(|| networks::measure(name, threads, options.seconds)));
        }
    }
    println!("\n{}", report::means(&rows));
    if let Some(path) = &options.csv {
        report::write_csv(&rows, path).map_err(|error| format!("--csv {}: {error}", path.display()))?;
    }
    Ok(())
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    match (field("model name"), field("cpu family"), field("model\t")) {
        (Some(name), Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => std::env::consts::ARCH.to_owned(),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
