//! Runs of an experiment: several at the same time, each in a directory of its own, and none of them twice.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use convrelu::train::checkpoint::{Tensor, read_header, read_tensors};
use convrelu::train::run::{CHECKPOINT, Event};
use convrelu::train::{Config, Dataset, Epoch, EpochEvent, Run, Start, TrainError, files};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::{Failure, Usage, inspect};

/// A network to train.
pub(crate) struct Job {
    /// The number of its row.
    pub(crate) row: usize,
    pub(crate) label: String,
    /// The configuration, with the job's seed and threads.
    pub(crate) config: Config,
    pub(crate) directory: PathBuf,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Finished epochs.
    pub(crate) history: Vec<Epoch>,
    /// The number of trained values. Unknown for a run that diverged before its first checkpoint.
    pub(crate) parameters: Option<usize>,
    /// Epoch in which training diverged, if it did.
    pub(crate) diverged: Option<usize>,
    /// The learned thresholds, layer by layer.
    pub(crate) thresholds: Vec<Tensor>,
    /// The instruction set that computed the run.
    pub(crate) isa: Option<String>,
}

impl Outcome {
    /// Test accuracy after the last epoch, in %. None if training diverged.
    pub(crate) fn accuracy(&self) -> Option<f64> {
        let last = self.history.last().filter(|_| self.diverged.is_none());
        last.map(|epoch| 100.0 * epoch.test_accuracy)
    }
}

/// Name of the record of a run that diverged.
const DIVERGED: &str = "diverged.json";

/// Contents of [`DIVERGED`].
#[derive(Serialize, Deserialize)]
struct Diverged {
    /// Epoch, from 1.
    epoch: usize,
    message: String,
}

impl Job {
    /// The number of epochs in its directory.
    pub(crate) fn epochs_done(&self) -> Result<usize, Failure> {
        let path = self.directory.join(CHECKPOINT);
        Ok(if path.exists() { read_header(&path)?.progress.epochs } else { 0 })
    }

    /// The outcome in its directory, if the run has ended.
    pub(crate) fn outcome(&self) -> Result<Option<Outcome>, Failure> {
        let record = self.directory.join(DIVERGED);
        let diverged = if record.exists() {
            let text = files::read_text(&record)?;
            let Diverged { epoch, .. } =
                serde_json::from_str(&text).map_err(|error| format!("{}: {error}", record.display()))?;
            Some(epoch)
        } else {
            None
        };
        let path = self.directory.join(CHECKPOINT);
        if !path.exists() {
            let history = Vec::new();
            return Ok(diverged.map(|_| Outcome {
                history,
                parameters: None,
                diverged,
                thresholds: Vec::new(),
                isa: None,
            }));
        }
        let header = read_header(&path)?;
        if !header.config.is_same_run(&self.config) {
            let directory = self.directory.display();
            return Err(Usage(format!("{directory}: it holds a run with another configuration, remove it")).into());
        }
        if diverged.is_none() && header.history.len() < self.config.train.epochs {
            return Ok(None);
        }
        let diverged = diverged.or(poisoned(&header.history));
        // Each trained value has a velocity, and only these have.
        let is_velocity = |name: &str| name.starts_with("velocity/");
        let tensors = read_tensors(&path, |name| is_velocity(name) || inspect::is_thresholds(name))?;
        let (velocities, thresholds): (Vec<_>, Vec<_>) =
            tensors.into_iter().partition(|tensor| is_velocity(&tensor.name));
        let parameters = Some(velocities.iter().map(|tensor| tensor.values.len()).sum());
        Ok(Some(Outcome { history: header.history, parameters, diverged, thresholds, isa: Some(header.isa) }))
    }

    /// Trains to the end. Returns `None` if `observe` interrupts the run.
    fn train(
        &self,
        train: &Dataset,
        test: &Dataset,
        observe: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Outcome>, Failure> {
        let mut run = Run::open(&self.directory, &self.config, [train, test], Start::Resume)?;
        // Another process may have finished it in the meantime.
        if let Some(outcome) = self.outcome()? {
            return Ok(Some(outcome));
        }
        match run.train(train, test, observe) {
            Ok(_) => {}
            Err(error @ TrainError::Diverged { epoch }) => {
                let record = Diverged { epoch, message: error.to_string() };
                files::write(&self.directory.join(DIVERGED), serde_json::to_string(&record)?.as_bytes())?;
            }
            Err(error) => return Err(error.into()),
        }
        self.outcome()
    }
}

/// The epoch in which a run diverged and continued all the same. Versions before 0.2 wrote the greatest number where the test
/// loss was not finite.
fn poisoned(history: &[Epoch]) -> Option<usize> {
    history.iter().find(|epoch| epoch.test_loss == f64::MAX).map(|epoch| epoch.epoch)
}

/// Runs all jobs to their end, `at_once` of them at the same time, and calls `ended` for each when it ends.
///
/// Returns their outcomes in the order of the jobs, or `None` if `stop` asked to interrupt the work. In that case all runs that
/// have begun have a checkpoint.
///
/// # Errors
///
/// The first failure. The other runs stop with a checkpoint.
pub(crate) fn complete(
    jobs: &[Job],
    at_once: usize,
    stop: &(dyn Fn() -> bool + Sync),
    load: impl FnOnce(&Config) -> Result<(Dataset, Dataset), Failure>,
    ended: &(dyn Fn(&Job, &Outcome) + Sync),
) -> Result<Option<Vec<Outcome>>, Failure> {
    let mut outcomes = jobs.iter().map(Job::outcome).collect::<Result<Vec<_>, _>>()?;
    for (job, outcome) in jobs.iter().zip(&outcomes) {
        outcome.iter().for_each(|outcome| ended(job, outcome));
    }
    let open: Vec<usize> = (0..jobs.len()).filter(|&job| outcomes[job].is_none()).collect();
    let Some(&first) = open.first() else { return Ok(outcomes.into_iter().collect()) };
    if stop() {
        return Ok(None);
    }
    // The jobs of an experiment differ only in their networks, so one copy of the data serves all.
    let (train, test) = load(&jobs[first].config)?;
    let done = open.iter().map(|&job| jobs[job].epochs_done()).sum::<Result<usize, _>>()?;
    let epochs: usize = open.iter().map(|&job| jobs[job].config.train.epochs).sum();
    let bar = ProgressBar::new(epochs as u64).with_position(done as u64);
    bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} epochs, {eta} left  {wide_msg}")?);
    // The estimate of the remaining time must not count epochs of earlier calls.
    bar.reset_eta();

    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results = Mutex::new(Vec::new());
    let work = || {
        while let Some(&job) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = follow(&jobs[job], &train, &test, &bar, &|| stop() || failed.load(Ordering::Relaxed));
            if let Ok(Some(outcome)) = &result {
                bar.suspend(|| ended(&jobs[job], outcome));
            }
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            let end = !matches!(result, Ok(Some(_)));
            results.lock().unwrap_or_else(PoisonError::into_inner).push((job, result));
            if end {
                break;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, open.len()) {
            scope.spawn(work);
        }
    });
    bar.finish_and_clear();
    for (job, result) in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
        outcomes[job] = result?;
    }
    Ok(outcomes.into_iter().collect())
}

/// Trains a job and moves the bar.
fn follow(
    job: &Job,
    train: &Dataset,
    test: &Dataset,
    bar: &ProgressBar,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Outcome>, Failure> {
    if stop() {
        return Ok(None);
    }
    let (label, seed, epochs) = (&job.label, job.config.train.seed, job.config.train.epochs);
    let mut tested = String::new();
    let mut left = epochs - job.epochs_done()?.min(epochs);
    let outcome = job.train(train, test, |event| {
        match event {
            Event::Within(EpochEvent::Test { .. }) => {}
            Event::Within(EpochEvent::Step(step)) => {
                bar.set_message(format!("{label}, seed {seed}, epoch {}: loss {:.3}{tested}", step.epoch, step.loss));
            }
            Event::Epoch(epoch) => {
                tested = format!(", test {:.2} %", 100.0 * epoch.test_accuracy);
                left = left.saturating_sub(1);
                bar.inc(1);
            }
        }
        if stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if outcome.is_some() {
        // The epochs that a run which diverged does not need.
        bar.inc(left as u64);
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use convrelu::train::data::Source;
    use convrelu::train::models::{Activation, Architecture};

    /// A directory that is removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("convrelu-runs-{}-{name}", std::process::id())))
        }

        /// A ReLU and a ConvReLU network on a few digits.
        fn jobs(&self) -> Vec<Job> {
            let job = |(row, activation): (usize, Activation)| {
                let mut config = Config::default();
                config.data.source = Source::Digits;
                (config.data.train_limit, config.data.test_limit) = (Some(96), Some(50));
                (config.model.network, config.model.activation) = (Architecture::SmallCnn, activation);
                (config.train.epochs, config.train.batch, config.train.learning_rate) = (2, 32, 0.02);
                config.train.threads = std::num::NonZeroUsize::new(1);
                let directory = self.0.join(activation.key());
                Job { row, label: activation.name().to_owned(), config, directory }
            };
            [Activation::Relu, Activation::Convrelu].into_iter().enumerate().map(job).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn load(config: &Config) -> Result<(Dataset, Dataset), Failure> {
        Ok(config.data.load()?)
    }

    fn loaded_already(_: &Config) -> Result<(Dataset, Dataset), Failure> {
        Err("there is nothing left to train".into())
    }

    /// Tensors of a finished run, and what of its history does not depend on time.
    fn state(job: &Job) -> (Vec<Tensor>, Vec<(f64, f64)>) {
        let history = job.outcome().unwrap().unwrap().history;
        let figures = history.iter().map(|epoch| (epoch.loss, epoch.test_loss)).collect();
        (read_tensors(&job.directory.join(CHECKPOINT), |_| true).unwrap(), figures)
    }

    #[test]
    fn interrupted_runs_go_on_and_finished_ones_are_not_repeated() {
        let (whole, broken) = (Scratch::new("whole"), Scratch::new("broken"));
        let ended = Mutex::new(Vec::new());
        let note = |job: &Job, outcome: &Outcome| {
            ended.lock().unwrap().push((job.row, outcome.history.len()));
        };
        let outcomes = complete(&whole.jobs(), 2, &|| false, load, &note).unwrap().unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.history.len() == 2 && outcome.accuracy().is_some()));
        ended.lock().unwrap().sort_unstable();
        assert_eq!(*ended.lock().unwrap(), [(0, 2), (1, 2)]);
        assert!(outcomes[1].parameters > outcomes[0].parameters);

        // Broken off in the second epoch of the first run: behind its first step, then behind its last.
        let asked = AtomicUsize::new(0);
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= 8;
        assert!(complete(&broken.jobs(), 1, &stop, load, &|_, _| ()).unwrap().is_none());
        let first = &broken.jobs()[0];
        assert_eq!((first.outcome().unwrap(), first.epochs_done().unwrap()), (None, 1));
        asked.store(5, Ordering::Relaxed);
        assert!(complete(&broken.jobs(), 1, &stop, load, &|_, _| ()).unwrap().is_none());
        assert_eq!((first.outcome().unwrap(), first.epochs_done().unwrap()), (None, 1));
        let again = complete(&broken.jobs(), 1, &|| false, load, &|_, _| ()).unwrap().unwrap();
        for (one, other) in whole.jobs().iter().zip(&broken.jobs()) {
            assert!(state(one) == state(other), "{}", one.label);
        }
        let known = complete(&broken.jobs(), 1, &|| true, loaded_already, &|_, _| ()).unwrap();
        assert_eq!(known, Some(again));
    }

    #[test]
    fn runs_that_diverge_are_recorded() {
        let scratch = Scratch::new("diverged");
        let jobs = || {
            let mut jobs = scratch.jobs();
            jobs[1].config.train.learning_rate = 1e30;
            jobs
        };
        let outcomes = complete(&jobs(), 2, &|| false, load, &|_, _| ()).unwrap().unwrap();
        assert!(outcomes[0].accuracy().is_some());
        assert_eq!((outcomes[1].diverged, outcomes[1].accuracy()), (Some(1), None));
        let mut history = outcomes[0].history.clone();
        assert_eq!(complete(&jobs(), 2, &|| false, loaded_already, &|_, _| ()).unwrap(), Some(outcomes));
        assert_eq!(poisoned(&history), None);
        history[1].test_loss = f64::MAX;
        assert_eq!(poisoned(&history), Some(2));
    }

    #[test]
    fn failures_stop_all_runs() {
        let scratch = Scratch::new("failed");
        let message = |jobs: &[Job]| complete(jobs, 1, &|| false, load, &|_, _| ()).unwrap_err().to_string();
        let mut jobs = scratch.jobs();
        jobs[0].config.train.batch = 0;
        assert_eq!(message(&jobs), "batch is 0: it must be at least 1");
        assert!(!jobs[1].directory.exists());
        let jobs = scratch.jobs();
        let (train, test) = load(&jobs[0].config).unwrap();
        let held = Run::open(&jobs[0].directory, &jobs[0].config, [&train, &test], Start::New).unwrap();
        let refusal = message(&jobs);
        assert!(refusal.starts_with(&format!("process {} writes the run in ", std::process::id())), "{refusal}");
        drop(held);
        assert!(complete(&scratch.jobs(), 1, &|| false, load, &|_, _| ()).unwrap().is_some());
        let mut other = scratch.jobs();
        other[0].config.train.epochs = 9;
        assert!(message(&other).ends_with("relu: it holds a run with another configuration, remove it"));
    }
}
