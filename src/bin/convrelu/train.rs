//! `convrelu train`: one network, one data set, one run directory.

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use convrelu::train::run::{CHECKPOINT, Event, METRICS};
use convrelu::train::{Config, Dataset, Epoch, Run, Step, Trainer, files};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::options::Settings;
use crate::output::{self, Table};
use crate::{Failure, Interrupted, plot, profile, stop};

/// Options of `train`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Where the run is written
    #[arg(long, value_name = "DIRECTORY", default_value = "runs/train", conflicts_with = "resume")]
    out: PathBuf,
    /// Go on with the run in a directory, with its own settings; only --threads, --isa and --data may differ
    #[arg(long, value_name = "DIRECTORY")]
    resume: Option<PathBuf>,
    /// Print the settings, the parameters and the time that an epoch will take, and train nothing
    #[arg(long)]
    dry_run: bool,
    /// Print where the time went
    #[arg(long)]
    profile: bool,
    /// Print events as lines of JSON instead of tables
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let (directory, config) = match &options.resume {
        Some(directory) => {
            let config = Run::config(directory)?;
            let asked = options.settings.resolve(config.clone())?;
            if !asked.is_same_run(&config) {
                let rule =
                    "a run goes on with the settings that it began with; only --threads, --isa and --data may differ";
                return Err(format!("--resume {}: {rule}", directory.display()).into());
            }
            (directory, asked)
        }
        None => (&options.out, options.settings.resolve(Config::default())?),
    };
    start_pool(config.train.threads)?;
    let (train, test) = load(&config)?;
    if options.dry_run {
        return dry_run(&config, &train, &test, options.json);
    }
    let mut run = Run::open(directory, &config, &train, options.resume.is_some())?;
    let done = run.trainer().history().len();
    if options.resume.is_some() {
        let examples = run.trainer().progress().examples;
        tracing::info!(epochs = done, examples, "goes on where the checkpoint was written");
    }
    eprintln!(
        "{} on {} ({} training, {} test examples), {} parameters, {} threads, {}: {} of {} epochs to go, {}",
        config.model.network,
        train.name(),
        train.len(),
        test.len(),
        run.trainer().network().parameter_count(),
        config.train.threads(),
        config.train.isa()?,
        config.train.epochs.saturating_sub(done),
        config.train.epochs,
        directory.display(),
    );
    let mut watcher = Watcher::new(&config, &train, run.trainer(), options.json)?;
    let finished = run.train(&train, &test, |event| watcher.see(event))?;
    watcher.bar.finish_and_clear();
    if let Some(failure) = watcher.failure {
        return Err(failure);
    }
    let history = run.trainer().history().to_vec();
    if options.profile {
        let profile = profile::table(run.trainer_mut().network_mut().profile());
        if options.json { eprint!("{profile}") } else { output::print(&profile.to_string())? }
    }
    if !finished {
        eprintln!("go on with: convrelu train --resume {}", directory.display());
        return Err(Interrupted.into());
    }
    let picture = directory.join("curves.svg");
    let thresholds = run.trainer().network().thresholds();
    files::write(&picture, plot::run(&history, &thresholds)?.as_bytes())?;
    let summary = summary(&history);
    files::write(&directory.join("summary.md"), summary.markdown().as_bytes())?;
    if !options.json {
        output::print(&summary.to_string())?;
    }
    eprintln!(
        "curves: {}, figures per epoch: {}, state: {}",
        picture.display(),
        directory.join(METRICS).display(),
        directory.join(CHECKPOINT).display()
    );
    Ok(())
}

/// The data set of a run.
pub(crate) fn load(config: &Config) -> Result<(Dataset, Dataset), Failure> {
    let start = Instant::now();
    let (train, test) = config.data.load()?;
    let seconds = start.elapsed().as_secs_f64();
    tracing::info!(train = train.len(), test = test.len(), seconds, "loaded {}", train.name());
    Ok((train, test))
}

/// The threads of all kernels and layers, if not as many as there are cores.
pub(crate) fn start_pool(threads: Option<NonZeroUsize>) -> Result<(), Failure> {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global()?;
    }
    Ok(())
}

/// The last and the best epoch.
fn summary(history: &[Epoch]) -> Table {
    let mut table =
        Table::new(["epoch", "loss", "train %", "test loss", "test %", "images/s", "dead units %", "θ mean", "θ σ"]);
    let best = history.iter().max_by(|a, b| a.test_accuracy.total_cmp(&b.test_accuracy));
    for (name, epoch) in [("last", history.last()), ("best", best)] {
        let Some(epoch) = epoch else { continue };
        let optional = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.4}"));
        table.row([
            format!("{name}: {}", epoch.epoch),
            format!("{:.4}", epoch.loss),
            format!("{:.2}", 100.0 * epoch.accuracy),
            format!("{:.4}", epoch.test_loss),
            format!("{:.2}", 100.0 * epoch.test_accuracy),
            format!("{:.0}", epoch.images_per_second),
            format!("{:.1}", 100.0 * epoch.dead_units as f64 / epoch.units.max(1) as f64),
            optional(epoch.theta_mean),
            optional(epoch.theta_deviation),
        ]);
    }
    table
}

/// Shows a run on the terminal: a bar, or lines where there is no terminal, or JSON.
struct Watcher {
    bar: ProgressBar,
    json: bool,
    lines: bool,
    failure: Option<Failure>,
}

impl Watcher {
    fn new(config: &Config, train: &Dataset, trainer: &Trainer, json: bool) -> Result<Self, Failure> {
        let total = config.train.epochs * train.len();
        let done = trainer.progress().epochs * train.len() + trainer.progress().examples;
        // Hidden where there is no terminal.
        let bar = ProgressBar::new(total as u64).with_position(done as u64);
        bar.set_style(ProgressStyle::with_template("{bar:32} {percent}% {eta} left  {msg}")?);
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_secs(1));
        Ok(Self { bar, json, lines: !std::io::stderr().is_terminal() && !json, failure: None })
    }

    fn see(&mut self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Step(step) => self.step(step),
            Event::Epoch(epoch) => self.epoch(epoch),
        }
        if stop::requested() || self.failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn step(&self, step: &Step) {
        tracing::debug!(epoch = step.epoch, examples = step.examples, loss = step.loss, "step");
        self.bar.set_position(((step.epoch - 1) * step.of + step.examples) as u64);
        self.bar.set_message(format!(
            "epoch {}: loss {:.3}, {:.2} %, {:.0} images/s",
            step.epoch,
            step.loss,
            100.0 * step.accuracy,
            step.images_per_second
        ));
    }

    fn epoch(&mut self, epoch: &Epoch) {
        tracing::info!(epoch = epoch.epoch, "checkpoint written");
        let line = if self.json {
            let mut event = json!(epoch);
            event["event"] = "epoch".into();
            event.to_string()
        } else {
            format!(
                "epoch {}: loss {:.4}, train {:.2} %, test {:.2} %, {:.1} s, {:.0} images/s",
                epoch.epoch,
                epoch.loss,
                100.0 * epoch.accuracy,
                100.0 * epoch.test_accuracy,
                epoch.seconds,
                epoch.images_per_second
            )
        };
        if self.json {
            self.failure = output::print(&format!("{line}\n")).and_then(|()| Ok(std::io::stdout().flush()?)).err();
        } else if self.lines {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }
}

/// Steps that are timed to tell how long an epoch takes, behind one that warms up.
const TIMED: usize = 3;

fn dry_run(config: &Config, train: &Dataset, test: &Dataset, json: bool) -> Result<(), Failure> {
    let mut trainer = Trainer::new(config, train)?;
    let parameters = trainer.network().parameter_count();
    let thresholds = trainer.network().thresholds().len();
    let mut steps = Vec::new();
    let mut start = Instant::now();
    trainer.epoch(train, test, &mut |_| {
        steps.push(start.elapsed().as_secs_f64());
        start = Instant::now();
        if steps.len() > TIMED || stop::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let timed = steps
        .split_first()
        .map_or(&[][..], |(first, rest)| if rest.is_empty() { std::slice::from_ref(first) } else { rest });
    let step = timed.iter().sum::<f64>() / timed.len().max(1) as f64;
    let per_epoch = step * train.len().div_ceil(config.train.batch) as f64;
    if json {
        let event = json!({
            "event": "dry-run", "config": config, "parameters": parameters, "thresholds": thresholds,
            "seconds_per_step": step, "seconds_per_epoch": per_epoch,
        });
        return output::print(&format!("{event}\n"));
    }
    let mut text = config.to_toml();
    text += &format!(
        "\n# {} training and {} test examples of {:?} in {} classes\n# {parameters} parameters, {thresholds} of them thresholds\n",
        train.len(),
        test.len(),
        train.shape(),
        train.classes()
    );
    text += &format!(
        "# about {per_epoch:.0} s per epoch to train, {:.1} h for {} epochs, without tests ({} images/s)\n",
        per_epoch * config.train.epochs as f64 / 3600.0,
        config.train.epochs,
        (config.train.batch.min(train.len()) as f64 / step.max(1e-9)).round()
    );
    output::print(&text)
}
