//! `convrelu eval`: tests a trained network.

use std::path::PathBuf;

use clap::Args;
use convrelu::train::checkpoint::load_weights;
use convrelu::train::run::CHECKPOINT;
use convrelu::train::{Inventory, Run, evaluate, input};
use serde_json::json;

use crate::load::load;
use crate::options::Settings;
use crate::output::{self, Table};
use crate::{Failure, Usage, train};

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
    let no_run = |error| Usage(format!("RUN {}: it holds no run: {error}", options.run.display()));
    let of_run = Run::config(&options.run).map_err(no_run)?;
    let inventory = Run::inventory(&options.run)?;
    let mut config = options.settings.resolve(of_run.clone())?;
    train::start_pool(config.train.threads)?;
    config.data.augment = false;
    // Of another part of the data another vocabulary would follow.
    let same_part = config.data.train_limit == of_run.data.train_limit;
    let words = inventory.as_ref().filter(|_| !same_part).map(|inventory| inventory.vocabulary.as_slice());
    let (train, test) = load(&config, words.filter(|words| !words.is_empty()))?;
    if let Some(mut expected) = inventory {
        let found = Inventory::of(&train, &test);
        let (run, asked) = (&of_run.data, &config.data);
        expected.train = limited(expected.train, run.train_limit, asked.train_limit).unwrap_or(found.train);
        expected.test = limited(expected.test, run.test_limit, asked.test_limit).unwrap_or(found.test);
        expected.check(&found, &config.data.origin())?;
    }
    let mut network = config.model.build(input(&train), config.train.isa()?, config.train.seed)?;
    network.set_threads(config.train.threads());
    match &options.weights {
        Some(path) => load_weights(&mut network, path).map_err(|error| Usage(format!("--weights {error}")))?,
        None => load_weights(&mut network, &options.run.join(CHECKPOINT))?,
    }
    let (part, data) = if options.on_train { ("train", &train) } else { ("test", &test) };
    let result = evaluate(&mut network, data, config.train.micro_batch())?;
    if options.json {
        let mut event = json!(result);
        event["event"] = "eval".into();
        event["examples"] = data.len().into();
        output::print(&format!("{event}\n"));
        return Ok(());
    }
    let mut table = Table::new(["part", "examples", "loss", "accuracy %", "dead units %"]);
    table.row([
        part.to_owned(),
        data.len().to_string(),
        format!("{:.4}", result.loss),
        format!("{:.2}", 100.0 * result.accuracy),
        format!("{:.1}", 100.0 * result.units.dead as f64 / result.units.total.max(1) as f64),
    ]);
    output::print(&table.fitted());
    Ok(())
}

/// How many of the examples of a run, which were limited themselves, another limit leaves; nothing if it cannot be told.
fn limited(count: usize, of_run: Option<usize>, asked: Option<usize>) -> Option<usize> {
    match asked {
        _ if asked == of_run => Some(count),
        Some(limit) if of_run.is_none() || limit <= count => Some(limit.min(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_limits() {
        assert_eq!(limited(50, None, None), Some(50));
        assert_eq!(limited(50, None, Some(20)), Some(20));
        assert_eq!(limited(50, None, Some(80)), Some(50));
        assert_eq!(limited(50, Some(50), Some(50)), Some(50));
        assert_eq!(limited(50, Some(50), Some(20)), Some(20));
        assert_eq!(limited(50, Some(50), Some(80)), None);
    }
}
