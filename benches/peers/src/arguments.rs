//! The command line.

use std::path::PathBuf;

use clap::Parser;
use convrelu::Isa;

use crate::clock::Clock;
use crate::notation::{self, Problem};
use crate::ours::Theta;
use crate::pass::{LayoutName, Pass};
use crate::peer::Peer;

/// Times convrelu's ConvReLU passes beside the plain convolutions of oneDNN and of Rust crates.
///
/// ratio = the peer's time / ours: above 1, convrelu is faster. Every result is compared with ours (θ = −∞) first.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// Shapes in oneDNN's benchdnn notation, like mb8_g1ic48oc12_ih32oh32kh3ph1_n"d1"
    #[arg(value_name = "SHAPE")]
    notations: Vec<String>,
    /// File of shapes, one per line
    #[arg(long, value_name = "FILE")]
    shapes: Vec<PathBuf>,
    /// Threads on both sides; with one, the process is pinned to a core
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// Instruction set that both sides are held to: scalar, avx2, avx512, neon [default: the best]
    #[arg(long, value_name = "NAME")]
    pub(crate) isa: Option<Isa>,
    /// Passes, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "forward,backward-input,backward-weight")]
    pub(crate) passes: Vec<Pass>,
    /// Layouts, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "nchw,nhwc")]
    pub(crate) layouts: Vec<LayoutName>,
    /// Peers, comma-separated [default: all that are there]
    #[arg(long, value_delimiter = ',')]
    pub(crate) peers: Option<Vec<Peer>>,
    /// Thresholds that our side is run with
    #[arg(long, value_name = "KIND", default_value = "per-tap")]
    pub(crate) theta: Theta,
    /// Comma-separated values instead of a table, to the standard output or into a file
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub(crate) csv: Option<Option<PathBuf>>,
    /// Markdown at the end: geometric means, all layers, and the rows where peer's time / ours is below THRESHOLD
    /// [default: 0.9], against oneDNN's same plain format and its best format separately
    #[arg(long, value_name = "THRESHOLD", num_args = 0..=1, require_equals = true, default_missing_value = "0.9")]
    pub(crate) summary: Option<f64>,
    /// Measures nothing: summary of files that --csv=FILE has written
    #[arg(long, value_name = "FILE", conflicts_with_all = ["csv", "shapes", "notations"])]
    pub(crate) from_csv: Vec<PathBuf>,
    /// Measures no shape: checks that neither side's threads disturb the other's, and fails if they do
    #[arg(long)]
    pub(crate) check_quiet: bool,
    /// Samples per side, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Least duration of a sample
    #[arg(long, value_name = "MS", default_value_t = 5)]
    pub(crate) sample_ms: u64,
    /// Clock of the samples; cpu, for one thread, leaves out what other programs take of a shared machine
    #[arg(long, default_value = "wall")]
    pub(crate) clock: Clock,
}

impl Arguments {
    /// What options rule out together, beyond what the parser knows.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.clock == Clock::Cpu && self.threads > 1 {
            return Err(String::from(
                "--clock cpu is the time of the measuring thread alone: it needs --threads 1 (several: --clock wall)",
            ));
        }
        if self.check_quiet && self.threads == 1 {
            return Err(String::from("--check-quiet needs --threads 2 or more"));
        }
        if self.csv == Some(None) && self.summary.is_some() {
            return Err(String::from("--summary with --csv: give the rows a file, --csv=FILE"));
        }
        Ok(())
    }

    /// The shapes of all files, then those of the command line.
    pub(crate) fn problems(&self) -> Result<Vec<Problem>, String> {
        let mut problems = Vec::new();
        for path in &self.shapes {
            let named = |error: String| format!("--shapes {}: {error}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
            problems.extend(notation::parse_file(&text).map_err(named)?);
        }
        for text in &self.notations {
            problems.push(Problem::parse(text).map_err(|error| error.to_string())?);
        }
        Ok(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: &str) -> Result<(), String> {
        Arguments::try_parse_from(["peers"].into_iter().chain(options.split_whitespace())).unwrap().check()
    }

    #[test]
    fn options_that_rule_each_other_out() {
        assert!(check("--clock cpu --threads 2").unwrap_err().contains("--threads 1"));
        assert!(check("--check-quiet").is_err());
        assert!(check("--csv --summary").is_err());
        for options in ["--clock cpu", "--clock wall --threads 2", "--check-quiet --threads 2", "--csv=f --summary=0.8"]
        {
            assert_eq!(check(options), Ok(()), "{options}");
        }
    }

    #[test]
    fn the_threshold_has_a_default() {
        let summary = |options: &str| Arguments::parse_from(["peers", "ic1oc1iw8kw3", options]).summary;
        assert_eq!((summary("--summary"), summary("--summary=0.5"), summary("--csv")), (Some(0.9), Some(0.5), None));
    }
}
