//! Files for parsers that read paths.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A folder of this process. (`.ci/fuzz` puts it into memory, and removes it.)
pub(crate) fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("convrelu-fuzz-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for temporary files");
        path
    })
}

/// Writes a file, and the folders above it.
pub(crate) fn write(name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = folder().join(name);
    if let Some(above) = path.parent() {
        fs::create_dir_all(above).expect("a folder");
    }
    fs::write(&path, contents).expect("a temporary file");
    path
}
