//! A lock, so that only one process at a time writes a run.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::error::TrainError;

/// Name of the file that a process keeps locked while it writes a run. The file stays. The lock ends with its process, however
/// that ends, so a file without a living process does not block anyone.
const LOCK: &str = "lock";

/// Keeps other processes from writing a run, until it is dropped or this process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a directory that exists.
    ///
    /// # Errors
    ///
    /// [`TrainError::Busy`] with the number of the process that holds the lock, [`TrainError::Io`].
    pub(super) fn take(directory: &Path) -> Result<Self, TrainError> {
        let path = directory.join(LOCK);
        let io = |error| TrainError::io(path.display(), error);
        // The file is not truncated here, because a second process has to read the number that the first one wrote.
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(io)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
            }
            Err(TryLockError::WouldBlock) => {
                let directory = directory.display().to_string();
                return Err(TrainError::Busy { directory, process: holder(&mut file) });
            }
            // The file system has no locks. To train without a lock is better than not to train.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        Ok(Self { _file: file })
    }
}

/// The number of the process with the lock. It may take that process a moment to write it.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    for _ in 0..5 {
        if file.read_to_string(&mut text).is_err() {
            return None;
        }
        if let Ok(process) = text.trim().parse() {
            return Some(process);
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}
