//! Files of tests.

use std::ops::ControlFlow;
use std::sync::Mutex;

use super::request::Watch;
use crate::train::error::TrainError;

/// A watcher that remembers all messages, and interrupts at a given report of progress.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) stages: Mutex<Vec<String>>,
    pub(super) said: Mutex<Vec<String>>,
    pub(super) break_at: Option<usize>,
}

impl Heard {
    /// The warnings, without the name of the folder.
    pub(super) fn warnings(&self, scratch: &Scratch) -> Vec<String> {
        let folder = format!("{}/", scratch.0.display());
        self.said.lock().unwrap().iter().map(|said| said.replace(&folder, "")).collect()
    }
}

impl Watch for Heard {
    fn progress(&self, stage: &str, _: u64, _: u64) -> ControlFlow<()> {
        let mut stages = self.stages.lock().unwrap();
        stages.push(stage.to_owned());
        let stop = self.break_at.is_some_and(|at| stages.len() >= at);
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn warn(&self, message: &str) {
        self.said.lock().unwrap().push(message.to_owned());
    }
}

/// A folder for the files of a test, which is removed when this value is dropped.
pub(super) struct Scratch(pub(super) std::path::PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("convrelu-data-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file, and the folders above it.
    pub(super) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).unwrap();
    }

    /// The message of an error, without the name of the folder.
    pub(super) fn message<T: std::fmt::Debug>(&self, result: Result<T, TrainError>) -> String {
        result.unwrap_err().to_string().replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
