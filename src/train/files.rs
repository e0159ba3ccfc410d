//! Files that are never half-written.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::error::TrainError;

/// The end of the names of files that are not complete yet.
const PARTIAL: &str = ".partial";

/// Writes a file completely or not at all. It writes another file first, whose name no other process uses, flushes it to disk,
/// and then renames it.
///
/// # Errors
///
/// [`TrainError::Io`]. An existing file is unchanged then.
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
        // The incomplete file is of no use. If removing it fails as well, the first error says enough.
        let _ = fs::remove_file(partial);
        TrainError::io(path.display(), error)
    })
}

/// Removes incomplete files that killed processes have left in a directory. Ignores failures.
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
/// [`TrainError::Io`], also if the file is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, TrainError> {
    fs::read_to_string(path).map_err(|error| TrainError::io(path.display(), error))
}
