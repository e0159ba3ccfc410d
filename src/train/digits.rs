//! The bundled data set: 1797 handwritten digits of 8×8 pixels (UCI, test part; CC BY 4.0, see `digits/README.md`).

use std::io::Read;

use flate2::read::GzDecoder;

use super::data::{Dataset, Shape};
use super::error::TrainError;

const FILE: &str = "digits.csv.gz";
static ARCHIVE: &[u8] = include_bytes!("digits/digits.csv.gz");

/// Images of the training part, in the order of the file; the 497 that follow are the test part.
pub const TRAIN_LEN: usize = 1300;

/// Training and test part, normalised by the moments of the training part.
///
/// # Errors
///
/// [`TrainError::Data`] if the bundled file is damaged.
pub fn load() -> Result<(Dataset, Dataset), TrainError> {
    let mut text = String::new();
    GzDecoder::new(ARCHIVE).read_to_string(&mut text).map_err(|error| TrainError::Data {
        file: FILE.to_owned(),
        line: 0,
        rule: error.to_string(),
    })?;
    let all = parse(FILE, &text)?;
    if all.len() <= TRAIN_LEN {
        let rule = format!("{} rows must be more than the {TRAIN_LEN} of the training part", all.len());
        return Err(TrainError::Data { file: FILE.to_owned(), line: 0, rule });
    }
    let (mut train, mut test) = all.split(TRAIN_LEN);
    let (mean, deviation) = train.moments();
    train.normalize(mean, deviation);
    test.normalize(mean, deviation);
    Ok((train, test))
}

/// Rows of 64 pixels from 0 to 16 and a label from 0 to 9, separated by commas.
fn parse(file: &str, text: &str) -> Result<Dataset, TrainError> {
    let shape = Shape { channels: 1, size: [1, 8, 8] };
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for (row, line) in text.lines().enumerate() {
        let broken = |rule| TrainError::Data { file: file.to_owned(), line: row + 1, rule };
        let mut fields = 0;
        for field in line.split(',') {
            let most = if fields < shape.len() { 16 } else { 9 };
            let value = field.trim().parse::<usize>().ok().filter(|&value| value <= most);
            let value = value.ok_or_else(|| broken(format!("'{field}' must be a whole number from 0 to {most}")))?;
            if fields < shape.len() {
                images.push(value as f32);
            } else {
                labels.push(value);
            }
            fields += 1;
        }
        if fields != shape.len() + 1 {
            return Err(broken(format!("{fields} fields must be {} pixels and a label", shape.len())));
        }
    }
    Dataset::new(file, shape, 10, images, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_digits_are_whole() {
        let (train, test) = load().unwrap();
        assert_eq!((train.len(), test.len()), (1300, 497));
        let mut counts = [0; 10];
        (0..train.len()).for_each(|i| counts[train.label(i)] += 1);
        (0..test.len()).for_each(|i| counts[test.label(i)] += 1);
        // The class sizes that the data set's description gives.
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        let (mean, deviation) = train.moments();
        assert!(mean.abs() < 1e-5 && (deviation - 1.0).abs() < 1e-5);
    }

    #[test]
    fn bad_rows_are_named() {
        let good = "0,".repeat(64) + "9\n";
        assert_eq!(parse("f", &good).unwrap().label(0), 9);
        for (bad, expected) in [
            ("0,".repeat(64) + "10", "f, line 2: '10' must be a whole number from 0 to 9"),
            ("17,".repeat(64) + "1", "f, line 2: '17' must be a whole number from 0 to 16"),
            ("0,".repeat(63) + "1", "f, line 2: 64 fields must be 64 pixels and a label"),
            ("0,".repeat(64) + "1,1", "f, line 2: 66 fields must be 64 pixels and a label"),
            ("x,".repeat(64) + "1", "f, line 2: 'x' must be a whole number from 0 to 16"),
        ] {
            assert_eq!(parse("f", &(good.clone() + &bad)).unwrap_err().to_string(), expected);
        }
    }
}
