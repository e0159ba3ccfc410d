//! Finding and reading data files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::request::Request;
use crate::train::error::{FilePosition, TrainError};

/// Bytes between two reports to the watcher.
const CHUNK: u64 = 1 << 20;

/// The first of these files that exists. `hint` says how to get them.
pub(super) fn find<S: AsRef<Path>>(directory: &Path, names: &[S], hint: &str) -> Result<PathBuf, TrainError> {
    let paths = || names.iter().map(|name| directory.join(name));
    let found = paths().find(|path| path.exists());
    found.ok_or_else(|| missing(&paths().next().unwrap_or_else(|| directory.to_owned()), hint))
}

/// The error for a missing file.
pub(super) fn missing(path: &Path, hint: &str) -> TrainError {
    TrainError::io(path.display(), io::Error::new(io::ErrorKind::NotFound, format!("not found; {hint}")))
}

/// The name of the stage that the watcher sees while a file is read.
pub(super) fn stage(path: &Path) -> String {
    format!("reading {}", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Reads a whole file, and decompresses it if its name ends in `.gz`.
pub(super) fn read(request: &Request<'_>, path: &Path) -> Result<Vec<u8>, TrainError> {
    let file = path.display();
    let io = |error| TrainError::io(&file, error);
    let mut source = File::open(path).map_err(io)?;
    let len = source.metadata().map_or(0, |metadata| metadata.len() as usize);
    let (stage, mut bytes) = (stage(path), Vec::new());
    while source.by_ref().take(CHUNK).read_to_end(&mut bytes).map_err(io)? > 0 {
        request.progress(&stage, bytes.len(), len)?;
    }
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    if compressed { decompress(request, &file, &bytes) } else { Ok(bytes) }
}

/// Decompresses the bytes of a gzip file.
pub(super) fn decompress(
    request: &Request<'_>,
    file: impl std::fmt::Display,
    bytes: &[u8],
) -> Result<Vec<u8>, TrainError> {
    let mut decoder = MultiGzDecoder::new(bytes);
    let mut out = Vec::new();
    loop {
        let read = decoder.by_ref().take(CHUNK).read_to_end(&mut out);
        let offset = bytes.len() - decoder.get_ref().len();
        match read {
            Ok(0) => return Ok(out),
            Ok(_) => request.progress("decompressing", offset, bytes.len())?,
            Err(error) => {
                let rule = format!("must be whole gzip data: {error}");
                return Err(TrainError::data(file, FilePosition::Offset(offset as u64), rule));
            }
        }
    }
}

/// The text of a file, which must be UTF-8.
pub(super) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, TrainError> {
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to() as u64;
        TrainError::data(path.display(), FilePosition::Offset(offset), "must be UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn gzip_is_read_whole_or_not_at_all() {
        let scratch = Scratch::new("gzip");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"some bytes").unwrap();
        let whole = encoder.finish().unwrap();
        scratch.write("a.gz", &whole);
        assert_eq!(read(&Request::new(&scratch.0), &scratch.0.join("a.gz")).unwrap(), b"some bytes");
        scratch.write("b.gz", &whole[..whole.len() - 4]);
        let message = scratch.message(read(&Request::new(&scratch.0), &scratch.0.join("b.gz")));
        let start = format!("b.gz, byte {}: must be whole gzip data: ", whole.len() - 4);
        assert!(message.starts_with(&start), "{message}");
        scratch.write("c.gz", b"plain");
        let message = scratch.message(read(&Request::new(&scratch.0), &scratch.0.join("c.gz")));
        assert!(message.starts_with("c.gz, byte ") && message.contains("must be whole gzip data: "), "{message}");
    }

    #[test]
    fn what_is_not_there_comes_with_a_hint() {
        let scratch = Scratch::new("missing");
        let found = find(&scratch.0, &["a", "b"], "make it yourself");
        assert_eq!(scratch.message(found), "a: not found; make it yourself");
        scratch.write("b", "");
        assert_eq!(find(&scratch.0, &["a", "b"], "").unwrap(), scratch.0.join("b"));
        scratch.write("text", b"ab\xff");
        let path = scratch.0.join("text");
        assert_eq!(
            scratch.message(utf8(&path, read(&Request::new(&scratch.0), &path).unwrap())),
            "text, byte 2: must be UTF-8"
        );
    }
}
