//! `convrelu train`: one network, one data set, one run directory.

use std::fmt::Display;
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use convrelu::train::run::{CHECKPOINT, Event, METRICS, WEIGHTS};
use convrelu::train::{Config, Dataset, Epoch, EpochEvent, Run, Start, Step, TrainError, Trainer, files};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::load::load;
use crate::options::Settings;
use crate::output::{self, Table};
use crate::{Failure, Interrupted, Usage, plot, profile, stop};

/// Options of `train`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Directory of the run, which must not hold one yet
    #[arg(long, value_name = "DIRECTORY", default_value = "runs/train", conflicts_with = "resume")]
    out: PathBuf,
    /// Continue the run in a directory, with its own settings. Only --threads, --isa and --data may differ, and --epochs may
    /// grow. The remaining epochs then have the learning rates of a run of that many epochs
    #[arg(long, value_name = "DIRECTORY")]
    resume: Option<PathBuf>,
    /// Begin with the weights of a file, such as the weights.safetensors of another run
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    init_from: Option<PathBuf>,
    /// Print the settings, the number of parameters and the time that an epoch will take, and do not train
    #[arg(long)]
    dry_run: bool,
    /// Print which layers the time was spent on
    #[arg(long)]
    profile: bool,
    /// Print events as lines of JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let (directory, config) = match &options.resume {
        Some(directory) => {
            let refused = |rule: &dyn Display| Usage(format!("--resume {}: {rule}", directory.display()));
            let config = Run::config(directory).map_err(|error| refused(&error))?;
            let asked = options.settings.resolve(config.clone())?;
            if !asked.continues(&config) {
                let rule = "a run continues with the settings that it began with; only --threads, --isa and --data may \
                            differ, and --epochs may grow";
                return Err(refused(&rule).into());
            }
            (directory, asked)
        }
        None => (&options.out, options.settings.resolve(Config::default())?),
    };
    options.settings.check(&config)?;
    start_pool(config.train.threads)?;
    let (train, test) = load(&config, None)?;
    if options.dry_run {
        return dry_run(&config, &train, &test, options.json);
    }
    let start = match (&options.resume, &options.init_from) {
        (Some(_), _) => Start::Resume,
        (None, Some(path)) => {
            check_words(path, &train)?;
            Start::Weights(path)
        }
        (None, None) => Start::New,
    };
    let opened = Run::open(directory, &config, [&train, &test], start);
    let mut run = opened.map_err(|error| of_weights(options.init_from.as_deref(), error))?;
    let done = run.trainer().history().len();
    if options.resume.is_some() {
        let examples = run.trainer().progress().examples;
        tracing::info!(epochs = done, examples, "goes on where the checkpoint was written");
    }
    let (network, data) = (config.model.network, train.name());
    let (examples, tests, parameters) = (train.len(), test.len(), run.trainer().network().parameter_count());
    output::note(&format!("{network} on {data}: {examples} training, {tests} test examples"));
    output::note(&format!("{parameters} parameters, {} threads, {}", config.train.threads(), config.train.isa()?));
    let (left, all) = (config.train.epochs.saturating_sub(done), config.train.epochs);
    output::note(&format!("{left} of {all} epochs to go, {}", directory.display()));
    let mut watcher = Watcher::new(&config, &train, run.trainer(), options.json)?;
    let trained = run.train(&train, &test, |event| watcher.see(event));
    watcher.bar.finish_and_clear();
    if let Err(TrainError::Diverged { .. }) = trained
        && !run.trainer().history().is_empty()
    {
        let (epochs, path) = (run.trainer().history().len(), directory.join(CHECKPOINT));
        output::note(&format!("the state after {epochs} epochs is kept: {}", path.display()));
    }
    let finished = trained?;
    let history = run.trainer().history().to_vec();
    if options.profile {
        let profile = profile::table(run.trainer_mut().network_mut().profile());
        if options.json { output::note(profile.to_string().trim_end()) } else { output::print(&profile.fitted()) }
    }
    if !finished {
        output::note(&format!("to continue: convrelu train --resume {}", directory.display()));
        return Err(Interrupted::Saved.into());
    }
    let picture = directory.join("curves.svg");
    let thresholds = run.trainer().network().thresholds();
    files::write(&picture, plot::run(&history, &thresholds)?.as_bytes())?;
    let summary = summary(&history);
    files::write(&directory.join("summary.md"), summary.markdown().as_bytes())?;
    if !options.json {
        output::print(&summary.fitted());
    }
    for (what, path) in [
        ("curves", picture),
        ("figures per epoch", directory.join(METRICS)),
        ("state", directory.join(CHECKPOINT)),
        ("weights", directory.join(WEIGHTS)),
    ] {
        output::note(&format!("{what}: {}", path.display()));
    }
    Ok(())
}

/// Refuses weights of a run whose vocabulary gives other numbers to words. Of a file outside of a run the vocabulary is not
/// known.
fn check_words(weights: &Path, train: &Dataset) -> Result<(), Failure> {
    let inventory = weights.parent().map(Run::inventory).transpose()?.flatten();
    match inventory {
        Some(inventory) if inventory.vocabulary != train.vocabulary() => {
            let rule = "its run numbers the words in another way than these data do";
            Err(Usage(format!("--init-from {}: {rule}", weights.display())).into())
        }
        _ => Ok(()),
    }
}

/// An error in the file that `--init-from` names counts as a wrong argument.
fn of_weights(path: Option<&Path>, error: TrainError) -> Failure {
    match (path, &error) {
        (Some(path), TrainError::Checkpoint { file, .. } | TrainError::Io { file, .. })
            if *file == path.display().to_string() =>
        {
            Usage(format!("--init-from {error}")).into()
        }
        _ => error.into(),
    }
}

/// Starts the threads of all kernels and layers, if their number is given. Otherwise there is one per core.
pub(crate) fn start_pool(threads: Option<NonZeroUsize>) -> Result<(), Failure> {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global()?;
    }
    Ok(())
}

/// The last and the best epoch.
fn summary(history: &[Epoch]) -> Table {
    let mut table =
        Table::new(["epoch", "loss", "train %", "test loss", "test %", "images/s", "dead %", "θ mean", "θ σ"]);
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

/// Shows a run: with a bar on a terminal, otherwise with lines, or as JSON.
struct Watcher {
    bar: ProgressBar,
    json: bool,
    lines: bool,
}

impl Watcher {
    fn new(config: &Config, train: &Dataset, trainer: &Trainer, json: bool) -> Result<Self, Failure> {
        let len = trainer.epoch_len(train.len());
        let total = config.train.epochs.saturating_mul(len);
        let done = trainer.progress().epochs * len + trainer.progress().examples;
        // Without a terminal, the bar hides itself.
        let bar = ProgressBar::new(total as u64).with_position(done as u64);
        bar.set_style(ProgressStyle::with_template("{bar:32} {percent}% {eta} left  {wide_msg}")?);
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_secs(1));
        Ok(Self { bar, json, lines: !std::io::stderr().is_terminal() && !json })
    }

    fn see(&mut self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Within(EpochEvent::Step(step)) => self.step(step),
            Event::Within(EpochEvent::Test { examples, of }) => {
                self.bar.set_message(format!("testing: {examples} of {of} examples"));
            }
            Event::Epoch(epoch) => self.epoch(epoch),
        }
        if stop::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
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
            output::print(&format!("{line}\n"));
        } else if self.lines {
            output::note(&line);
        } else {
            self.bar.println(line);
        }
    }
}

/// Steps that are timed to estimate how long an epoch takes. One untimed step comes before them.
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
    if stop::requested() {
        return Err(Interrupted::NothingBegun.into());
    }
    let timed = steps
        .split_first()
        .map_or(&[][..], |(first, rest)| if rest.is_empty() { std::slice::from_ref(first) } else { rest });
    let step = timed.iter().sum::<f64>() / timed.len().max(1) as f64;
    let per_epoch = step * trainer.epoch_len(train.len()).div_ceil(config.train.batch) as f64;
    if json {
        let event = json!({
            "event": "dry-run", "config": config, "parameters": parameters, "thresholds": thresholds,
            "seconds_per_step": step, "seconds_per_epoch": per_epoch,
        });
        output::print(&format!("{event}\n"));
        return Ok(());
    }
    let mut text = config.to_toml();
    let (examples, tests, shape, classes) = (train.len(), test.len(), train.shape(), train.classes());
    text += &format!("\n# {examples} training and {tests} test examples of {shape} in {classes} classes\n");
    text += &format!("# {parameters} parameters, {thresholds} of them thresholds\n");
    let speed = (config.train.batch.min(train.len()) as f64 / step.max(1e-9)).round();
    text += &format!("# about {per_epoch:.0} s per epoch to train, without tests ({speed} images/s)\n");
    let hours = per_epoch * config.train.epochs as f64 / 3600.0;
    text += &format!("# {hours:.1} h for {} epochs\n", config.train.epochs);
    output::print(&text);
    Ok(())
}
