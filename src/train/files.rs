//! Files that are never half-written.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::error::TrainError;

/// What ends the names of files that are not whole yet.
const PARTIAL: &str = ".partial";

/// Writes a file whole or not at all: under another name first, that of no other process, flushed to disk, then renamed.
///
/// # Errors
///
/// [`TrainError::Io`]; the file is then as it was.
pub fn write(path: &Path, contents: &[u8]) -> Result<(), TrainError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}{PARTIAL}", std::process::id()));
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

/// Removes what processes that were killed left half-written of these files in a directory. Failing adds nothing.
pub(super) fn remove_partial(directory: &Path, names: &[&str]) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let of = |&whole: &&str| {
            let rest = name.to_str().and_then(|name| name.strip_prefix(whole)?.strip_prefix('.'));
            let process = rest.and_then(|rest| rest.strip_suffix(PARTIAL));
            process.is_some_and(|process| process.bytes().all(|byte| byte.is_ascii_digit()))
        };
        if names.iter().any(of) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Reads a file of text.
///
/// # Errors
///
/// [`TrainError::Io`], also for what is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, TrainError> {
    fs::read_to_string(path).map_err(|error| TrainError::io(path.display(), error))
}
