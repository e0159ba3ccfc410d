//! `convrelu eval`: tests a trained network.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use convrelu::train::{Answers, Inventory, TrainError, evaluate_watched, files, input};
use serde_json::json;

use crate::load::load;
use crate::options::Settings;
use crate::output::{self, Table};
use crate::{Failure, Usage, train, trained};

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
    /// Write the answers of the network as CSV. A line per example has its number, its class and the class that the network
    /// finds, all from 0, and the output for each class
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if let Some(path) = options.logits.as_ref().filter(|path| path.is_dir()) {
        let rule = "it is a folder, it must be the name of a file";
        return Err(Usage(format!("--logits {}: {rule}", path.display())).into());
    }
    let (of_run, inventory) = trained::open(&options.run)?;
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
    trained::weigh(&mut network, &options.run, options.weights.as_deref())?;
    let (part, data) = if options.on_train { ("train", &train) } else { ("test", &test) };
    let mut table = options.logits.as_ref().map(|_| Logits::new(data.classes()));
    let evaluated = evaluate_watched(&mut network, data, config.train.micro_batch(), &mut |answers| {
        table.iter_mut().for_each(|table| table.add(answers));
        ControlFlow::Continue(())
    });
    let result = evaluated?.ok_or(TrainError::Interrupted)?;
    if let (Some(path), Some(table)) = (&options.logits, table) {
        files::write(path, &table.csv()?).map_err(|error| Usage(format!("--logits {error}")))?;
    }
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

/// The answers of a network, example by example.
struct Logits {
    writer: csv::Writer<Vec<u8>>,
    rows: usize,
    failed: Option<csv::Error>,
}

impl Logits {
    fn new(classes: usize) -> Self {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let heads = ["example", "label", "predicted"].map(str::to_owned);
        let failed =
            writer.write_record(heads.into_iter().chain((0..classes).map(|class| format!("logit_{class}")))).err();
        Self { writer, rows: 0, failed }
    }

    fn add(&mut self, answers: &Answers<'_>) {
        let classes = answers.logits.len() / answers.labels.len().max(1);
        for (logits, label) in answers.logits.chunks_exact(classes.max(1)).zip(answers.labels) {
            // Of equal ones the first, as the accuracy counts.
            let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let predicted = logits.iter().position(|&logit| logit == greatest).unwrap_or(0);
            // As many digits as tell a number from all others.
            let written = self.writer.serialize((self.rows, label, predicted, logits));
            self.failed = self.failed.take().or(written.err());
            self.rows += 1;
        }
    }

    fn csv(self) -> Result<Vec<u8>, Failure> {
        match self.failed {
            Some(error) => Err(error.into()),
            None => Ok(self.writer.into_inner().map_err(|error| error.into_error())?),
        }
    }
}

/// The number of examples that another limit leaves of a run, whose examples may be limited, too. None if it cannot be known.
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
    fn logits_are_rows_that_keep_every_bit() {
        let mut table = Logits::new(3);
        let third = 1.0_f32 / 3.0;
        table.add(&Answers { examples: 2, logits: &[0.5, third, 0.5, -1.0, f32::MIN_POSITIVE, 1e-3], labels: &[1, 0] });
        table.add(&Answers { examples: 3, logits: &[-0.0, -2.0, -1e30], labels: &[2] });
        let text = String::from_utf8(table.csv().unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "example,label,predicted,logit_0,logit_1,logit_2");
        for (line, expected) in lines[1..].iter().zip(["0,1,0,", "1,0,2,", "2,2,0,"]) {
            assert!(line.starts_with(expected), "{text}");
        }
        let values: Vec<f32> = lines[1].split(',').skip(3).map(|field| field.parse().unwrap()).collect();
        assert_eq!(values, [0.5, third, 0.5]);
        assert_eq!(lines.len(), 4);
    }

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
