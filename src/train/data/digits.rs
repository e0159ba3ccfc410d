//! The bundled data set: 1797 handwritten digits of 8×8 pixels (UCI, test part; CC BY 4.0, see `digits/README.md`).

use std::path::Path;

use super::dataset::{Dataset, Values};
use super::entry::Entry;
use super::files;
use super::request::Request;
use crate::train::error::{FilePosition, TrainError};
use crate::train::shape::Shape;

pub(super) const DIGITS: Entry =
    Entry { title: "digits", directory: None, encoding: None, resizes: false, load: |_| load() };

const FILE: &str = "digits.csv.gz";
static ARCHIVE: &[u8] = include_bytes!("digits/digits.csv.gz");

const SHAPE: Shape = Shape::new(1, [1, 8, 8]);

/// Images of the training part, which the file has first. The other 497 are the test part.
pub const TRAIN_LEN: usize = 1300;

/// The training part and the test part, both normalised with the mean and deviation of the training part.
///
/// # Errors
///
/// [`TrainError::Data`] if the bundled file is damaged.
pub fn load() -> Result<(Dataset, Dataset), TrainError> {
    let all = parse(FILE, &files::decompress(&Request::new(Path::new("")), FILE, ARCHIVE)?)?;
    if all.len() <= TRAIN_LEN {
        let rule = format!("{} rows must be more than the {TRAIN_LEN} of the training part", all.len());
        return Err(TrainError::data(FILE, FilePosition::Whole, rule));
    }
    let (train, test) = all.split(TRAIN_LEN);
    let (mean, deviation) = train.mean_and_deviation();
    Ok((train.with_normalization(&mean, &deviation)?, test.with_normalization(&mean, &deviation)?))
}

/// Reads rows of 64 pixels from 0 to 16 and a label from 0 to 9, separated by commas.
fn parse(file: &str, text: &[u8]) -> Result<Dataset, TrainError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|&byte| byte == b'\n');
    for (row, line) in lines.enumerate() {
        let broken = |rule| TrainError::data(file, FilePosition::Line(row as u64 + 1), rule);
        let mut fields = 0;
        for field in line.split(|&byte| byte == b',') {
            let most = if fields < SHAPE.len() { 16 } else { 9 };
            let field = String::from_utf8_lossy(field);
            let value = field.trim().parse::<u8>().ok().filter(|&value| value <= most);
            let value = value.ok_or_else(|| broken(format!("'{field}' must be a whole number from 0 to {most}")))?;
            if fields < SHAPE.len() {
                pixels.push(value);
            } else {
                labels.push(value.into());
            }
            fields += 1;
        }
        if fields != SHAPE.len() + 1 {
            return Err(broken(format!("{fields} fields must be {} pixels and a label", SHAPE.len())));
        }
    }
    Dataset::new("digits", SHAPE, 10, Values::Bytes(pixels), labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    #[test]
    fn the_bundled_digits_are_whole() {
        let (train, test) = load().unwrap();
        assert_eq!((train.len(), test.len()), (1300, 497));
        let mut counts = [0; 10];
        (0..train.len()).for_each(|i| counts[train.label(i)] += 1);
        (0..test.len()).for_each(|i| counts[test.label(i)] += 1);
        // The class sizes that the data set's description gives.
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        let mut values = vec![0.0; train.len() * SHAPE.len()];
        for (i, out) in values.chunks_exact_mut(SHAPE.len()).enumerate() {
            train.read(i, None, Layout::Nchw, out);
        }
        let shape = Shape::new(1, [1, 1, values.len()]);
        let (mean, deviation) =
            Dataset::new("", shape, 1, Values::Floats(values), vec![0]).unwrap().mean_and_deviation();
        assert!(mean[0].abs() < 1e-5 && (deviation[0] - 1.0).abs() < 1e-5);
    }

    #[test]
    fn bad_rows_are_named() {
        let good = "0,".repeat(64) + "9\n";
        assert_eq!(parse("f", good.as_bytes()).unwrap().label(0), 9);
        for (bad, expected) in [
            ("0,".repeat(64) + "10", "f, line 2: '10' must be a whole number from 0 to 9"),
            ("17,".repeat(64) + "1", "f, line 2: '17' must be a whole number from 0 to 16"),
            ("0,".repeat(63) + "1", "f, line 2: 64 fields must be 64 pixels and a label"),
            ("0,".repeat(64) + "1,1", "f, line 2: 66 fields must be 64 pixels and a label"),
            ("x,".repeat(64) + "1", "f, line 2: 'x' must be a whole number from 0 to 16"),
        ] {
            assert_eq!(parse("f", (good.clone() + &bad).as_bytes()).unwrap_err().to_string(), expected);
        }
        let message = parse("f", b"\xff,1").unwrap_err().to_string();
        assert_eq!(message, "f, line 1: '\u{fffd}' must be a whole number from 0 to 16");
    }
}
