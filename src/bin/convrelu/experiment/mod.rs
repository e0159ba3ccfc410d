//! `convrelu experiment`: trains the networks of the paper's tables and figures.

mod counts;
mod html;
mod lines;
pub(crate) mod matrix;
mod page;
mod report;
mod runs;

use std::ffi::OsString;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use clap::Args;
use convrelu::train::Config;
use convrelu::train::models::Activation;
use serde_json::json;

use crate::options::Settings;
use crate::output::{self, Table};
use crate::{Failure, Interrupted, Usage, stop};
use matrix::{Matrix, Name};
use report::{Origin, Report};
use runs::{Job, Outcome};

/// Trains the networks of a table or figure of the paper, several seeds each, and prints the results beside the paper's.
///
/// The network and the data set are the paper's unless you name others. The command keeps runs under OUT/runs. It does not
/// repeat finished runs, continues interrupted ones, and shares a run among tables that contain the same network. Table 6
/// counts parameters and trains nothing, so it ignores options of data and training.
#[derive(Args)]
pub(crate) struct Options {
    /// Table or figure of the paper
    #[arg(value_enum)]
    name: Name,
    /// Runs per row, each with a seed of its own
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Train and show these rows only, by the names that the table has
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    rows: Vec<String>,
    /// Directory of runs and results
    #[arg(long, value_name = "DIRECTORY", default_value = "runs/experiments")]
    out: PathBuf,
    /// Runs at the same time; they share the cores [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Print JSON lines instead of the table
    #[arg(long)]
    json: bool,
    /// Print which networks the command would train, and do not train
    #[arg(long, conflicts_with = "json")]
    list: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if options.name == Name::Table6 {
        return counts::run(options);
    }
    let matrix = Matrix::new(options.name, &options.settings, &options.rows)?;
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let at_once = options.jobs.map_or(cores, usize::from);
    // Several runs use the cores better than the layers of one run do.
    let threads = NonZeroUsize::new(cores / at_once).unwrap_or(NonZeroUsize::MIN);
    let jobs = jobs(options, &matrix, threads)?;
    if options.list {
        return list(&matrix, &jobs);
    }
    fs::create_dir_all(&options.out).map_err(|error| format!("--out {}: {error}", options.out.display()))?;

    let bar_is_seen = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let ended = |job: &Job, outcome: &Outcome| {
        if !bar_is_seen {
            output::note(&format!("{}, seed {}: {}", job.label, job.config.train.seed, report::result(outcome)));
        }
        if options.json {
            output::print(&format!("{}\n", event(job, outcome)));
        }
    };
    let load = |config: &Config| crate::load::load(config, None);
    let Some(outcomes) = runs::complete(&jobs, at_once, &stop::requested, load, &ended)? else {
        return Err(Interrupted::Saved.into());
    };
    let report = Report::new(&matrix, &jobs, &outcomes);
    let paths = report.write(&options.out, &Origin { command: command_line(std::env::args_os()), at_once })?;
    if options.json {
        output::print(&format!("{}\n", report.event()));
    } else {
        output::print(&report.text());
    }
    for path in paths {
        output::note(&path.display().to_string());
    }
    Ok(())
}

/// The jobs, all rows of one seed before the next seed. So an unfinished experiment has results in all rows.
fn jobs(options: &Options, matrix: &Matrix, threads: NonZeroUsize) -> Result<Vec<Job>, Failure> {
    let last = matrix.seed.checked_add(options.seeds - 1).filter(|&seed| i64::try_from(seed).is_ok());
    let last = last.ok_or_else(|| Usage(format!("--seed {}: seeds end at {}", matrix.seed, i64::MAX)))?;
    let mut jobs = Vec::new();
    for seed in matrix.seed..=last {
        for (index, row) in matrix.rows.iter().enumerate() {
            let mut config = row.config.clone();
            config.train.seed = seed;
            config.train.threads = config.train.threads.or(Some(threads));
            let directory = options.out.join("runs").join(matrix::directory_name(&config));
            jobs.push(Job { row: index, label: row.label.clone(), config, directory });
        }
    }
    Ok(jobs)
}

/// Prints the rows and how many epochs each run has finished.
fn list(matrix: &Matrix, jobs: &[Job]) -> Result<(), Failure> {
    let paper = matrix.paper_head();
    let mut table =
        Table::new(["row", "network", "activation", "region", "thresholds", "seed", "epochs", "run", paper.as_str()]);
    for job in jobs {
        let (model, train) = (&job.config.model, &job.config.train);
        let trained = match job.outcome()? {
            Some(Outcome { diverged: Some(epoch), .. }) => format!("diverged in {epoch}"),
            Some(outcome) => format!("{}/{}", outcome.history.len(), train.epochs),
            None => format!("{}/{}", job.epochs_done()?, train.epochs),
        };
        let of = |applies: bool, value: String| if applies { value } else { "–".to_owned() };
        let region = of(model.activation != Activation::Relu, model.region.to_string());
        let thresholds = of(model.activation.has_thresholds(), model.threshold_init.to_string());
        let directory = job.directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        table.row([
            job.label.clone(),
            model.network.to_string(),
            model.activation.to_string(),
            region,
            thresholds,
            train.seed.to_string(),
            trained,
            directory,
            report::percent(matrix.rows[job.row].paper),
        ]);
    }
    output::print(&format!("{}\n\n{}", matrix.title(), table.fitted()));
    Ok(())
}

/// A finished run for other programs.
fn event(job: &Job, outcome: &Outcome) -> serde_json::Value {
    let model = &job.config.model;
    json!({
        "event": "run",
        "row": job.label,
        "seed": job.config.train.seed,
        // JSON holds Unicode only. Names of files may be any bytes.
        "directory": job.directory.display().to_string(),
        "config": {
            "dataset": job.config.data.source.to_string(),
            "network": model.network,
            "activation": model.activation,
            "region": model.region,
            "threshold-init": model.threshold_init,
            "epochs": job.config.train.epochs,
        },
        "parameters": outcome.parameters,
        "diverged": outcome.diverged,
        "epoch": outcome.history.last(),
    })
}

/// The command line, quoted for a shell.
fn command_line(arguments: impl Iterator<Item = OsString>) -> String {
    let quoted = |argument: OsString| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,+@".contains(&byte);
        match argument.to_str() {
            Some(text) if !text.is_empty() && text.bytes().all(plain) => text.to_owned(),
            Some(text) => format!("'{}'", text.replace('\'', r"'\''")),
            // Bytes that are not text are written in the form that bash, zsh and POSIX shells (from 2024 on) read.
            None => {
                let byte =
                    |&byte: &u8| if plain(byte) { char::from(byte).to_string() } else { format!("\\x{byte:02x}") };
                format!("$'{}'", argument.as_encoded_bytes().iter().map(byte).collect::<String>())
            }
        }
    };
    let rest = arguments.skip(1).map(quoted);
    std::iter::once("convrelu".to_owned()).chain(rest).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_those_of_a_shell() {
        let arguments = ["/usr/bin/convrelu", "experiment", "--out", "it's here", "--limit=3"].map(OsString::from);
        assert_eq!(command_line(arguments.into_iter()), r"convrelu experiment --out 'it'\''s here' --limit=3");
    }

    #[test]
    #[cfg(unix)]
    fn arguments_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt;

        let arguments = [b"convrelu".to_vec(), b"a \xff".to_vec()].map(OsString::from_vec);
        assert_eq!(command_line(arguments.into_iter()), r"convrelu $'a\x20\xff'");
    }
}
