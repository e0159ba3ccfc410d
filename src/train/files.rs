//! Files that are never half-written.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::error::TrainError;

/// Writes a file whole or not at all: under another name first, flushed to disk, then renamed.
///
/// # Errors
///
/// [`TrainError::Io`]; the file is then as it was.
pub fn write(path: &Path, contents: &[u8]) -> Result<(), TrainError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let written = File::create(partial).and_then(|mut file| {
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(partial, path)
    });
    written.map_err(|error| {
        // What is left of it is of no use; that removing it may fail too adds nothing.
        let _ = fs::remove_file(partial);
        TrainError::io(path.display(), error)
    })
}

/// Reads a file of text.
///
/// # Errors
///
/// [`TrainError::Io`], also for what is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, TrainError> {
    fs::read_to_string(path).map_err(|error| TrainError::io(path.display(), error))
}
