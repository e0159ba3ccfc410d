//! Loads the data of a run and shows the progress.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use convrelu::train::data::Watch;
use convrelu::train::{Config, Dataset, TrainError};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{Failure, Interrupted, output, stop};

/// The time between two lines of progress, if there is no terminal for a bar.
const EVERY: Duration = Duration::from_secs(5);

/// Both parts of the data set of a run. If a vocabulary is given, it numbers the words.
pub(crate) fn load(config: &Config, vocabulary: Option<&[String]>) -> Result<(Dataset, Dataset), Failure> {
    let start = Instant::now();
    let loading = Loading::new(EVERY)?;
    let loaded = stop::while_loading(|| config.data.load_watched(&loading, vocabulary));
    loading.bar.finish_and_clear();
    let (train, test) = match loaded {
        Ok(parts) => parts,
        Err(TrainError::Interrupted) => return Err(Interrupted::NothingBegun.into()),
        Err(error) => return Err(error.into()),
    };
    let seconds = start.elapsed().as_secs_f64();
    tracing::info!(train = train.len(), test = test.len(), seconds, "loaded {}", train.name());
    if stop::requested() { Err(Interrupted::NothingBegun.into()) } else { Ok((train, test)) }
}

/// Shows the progress of loading: a bar on a terminal, otherwise a line now and then.
struct Loading {
    bar: ProgressBar,
    lines: bool,
    every: Duration,
    /// The current stage, and when it was last shown.
    said: Mutex<(String, Instant)>,
}

impl Loading {
    fn new(every: Duration) -> Result<Self, Failure> {
        // Without a terminal, the bar hides itself.
        let bar = ProgressBar::no_length();
        bar.set_style(ProgressStyle::with_template("{msg} {bar:24} {pos}/{len}")?);
        let lines = !std::io::stderr().is_terminal();
        Ok(Self { bar, lines, every, said: Mutex::new((String::new(), Instant::now())) })
    }

    /// The line of progress, if it is time for one.
    fn line(&self, stage: &str, done: u64, of: u64) -> Option<String> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.0 != stage {
            stage.clone_into(&mut said.0);
            self.bar.set_message(said.0.clone());
        }
        if said.1.elapsed() < self.every {
            return None;
        }
        said.1 = Instant::now();
        Some(match done.saturating_mul(100).checked_div(of) {
            Some(percent) => format!("{stage}: {percent} %"),
            None => format!("{stage}: {done}"),
        })
    }
}

impl Watch for Loading {
    fn progress(&self, stage: &str, done: u64, of: u64) -> ControlFlow<()> {
        let line = self.line(stage, done, of);
        if of > 0 {
            self.bar.set_length(of);
        }
        self.bar.set_position(done);
        if let Some(line) = line.filter(|_| self.lines) {
            output::note(&line);
        }
        if stop::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn warn(&self, message: &str) {
        self.bar.suspend(|| output::note(&format!("warning: {message}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_now_and_then() {
        let often = Loading::new(Duration::ZERO).unwrap();
        assert_eq!(often.line("reading images", 5, 20).as_deref(), Some("reading images: 25 %"));
        assert_eq!(often.line("listing images", 5, 0).as_deref(), Some("listing images: 5"));
        let seldom = Loading::new(Duration::from_secs(3600)).unwrap();
        assert_eq!(seldom.line("reading images", 5, 20), None);
        assert_eq!(seldom.bar.message(), "reading images");
    }
}
