//! `convrelu eval`: tests a trained network.

use std::path::PathBuf;

use clap::Args;
use convrelu::train::checkpoint::load_weights;
use convrelu::train::run::CHECKPOINT;
use convrelu::train::{Run, evaluate, input};
use serde_json::json;

use crate::options::Settings;
use crate::output::{self, Table};
use crate::{Failure, train};

/// Options of `eval`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// File of tensors, instead of the run's checkpoint
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Test on the training part
    #[arg(long)]
    on_train: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut config = options.settings.resolve(Run::config(&options.run)?)?;
    train::start_pool(config.train.threads)?;
    config.data.augment = false;
    let (train, test) = train::load(&config)?;
    let mut network = config.model.build(input(&train), config.train.isa()?, config.train.seed)?;
    network.set_threads(config.train.threads());
    let path = options.weights.clone().unwrap_or_else(|| options.run.join(CHECKPOINT));
    load_weights(&mut network, &path)?;
    let (part, data) = if options.on_train { ("train", &train) } else { ("test", &test) };
    let result = evaluate(&mut network, data, config.train.micro_batch())?;
    if options.json {
        let mut event = json!(result);
        event["event"] = "eval".into();
        event["examples"] = data.len().into();
        return output::print(&format!("{event}\n"));
    }
    let mut table = Table::new(["part", "examples", "loss", "accuracy %", "dead units %"]);
    table.row([
        part.to_owned(),
        data.len().to_string(),
        format!("{:.4}", result.loss),
        format!("{:.2}", 100.0 * result.accuracy),
        format!("{:.1}", 100.0 * result.units.dead as f64 / result.units.total.max(1) as f64),
    ]);
    output::print(&table.to_string())
}
