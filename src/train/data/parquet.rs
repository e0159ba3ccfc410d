//! Reading the Parquet files of an image data set, see [`hub`](super::hub).

use std::fs::File;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use super::dataset::{Dataset, Values};
use super::files;
use super::hub::Images;
use super::request::Request;
use crate::train::error::{FilePosition, TrainError};
use crate::train::shape::{Shape, extents};

/// Rows that are read at once. Besides the pixels that are kept, the memory holds a page of each column and the images of these
/// rows.
const ROWS: usize = 64;
/// The rule for every file.
const WHOLE: &str = "it must be a whole Parquet file";
/// Names that the column of the image may have.
const IMAGE: [&str; 2] = ["img", "image"];

/// Reads all rows of the files of a part.
///
/// # Errors
///
/// [`TrainError::Io`], or [`TrainError::Data`] with the row that breaks a rule.
pub(super) fn read(
    request: &Request<'_>,
    images: &Images<'_>,
    shards: &[PathBuf],
    size: Option<[usize; 2]>,
    published: usize,
) -> Result<Dataset, TrainError> {
    let mut part = ReadImages { images, size, pixels: Vec::new(), labels: Vec::new() };
    for path in shards {
        // Damaged files break assertions of the reader. The known ones are checked before. If there are others, the file is
        // refused all the same, and the images that have been read are not used.
        let read = catch_unwind(AssertUnwindSafe(|| part.shard(request, path)));
        let panicked =
            |_| TrainError::data(path.display(), FilePosition::Whole, format!("{WHOLE}: its reader gave up"));
        read.map_err(panicked)??;
    }
    let Some([height, width]) = part.size.filter(|_| !part.labels.is_empty()) else {
        return Err(TrainError::data(shards[0].display(), FilePosition::Whole, "it must have a row at least"));
    };
    request.expect(&shards[0], "rows with the other files of its part", part.labels.len(), published);
    let shape = Shape::new(images.channels, [1, height, width]);
    let data = Dataset::new(images.name, shape, images.classes, Values::Bytes(part.pixels), part.labels)?;
    data.with_normalization(images.mean, images.deviation)
}

/// The images of a part that have been read.
struct ReadImages<'a> {
    images: &'a Images<'a>,
    size: Option<[usize; 2]>,
    /// All images, one after another, channels first.
    pixels: Vec<u8>,
    labels: Vec<u16>,
}

impl ReadImages<'_> {
    fn shard(&mut self, request: &Request<'_>, path: &Path) -> Result<(), TrainError> {
        let file = File::open(path).map_err(|error| TrainError::io(path.display(), error))?;
        let broken = |position, rule: String| TrainError::data(path.display(), position, rule);
        let damaged = |position| move |error: ParquetError| broken(position, format!("{WHOLE}: {error}"));
        let reader = SerializedFileReader::new(file).map_err(damaged(FilePosition::Whole))?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let image = column(path, schema, &IMAGE.map(|name| vec![name, "bytes"]))?;
        let labels: Vec<_> = self.images.labels.iter().map(|&name| vec![name]).collect();
        let label = column(path, schema, &labels)?;
        let (stage, all) = (files::stage(path), reader.metadata().file_metadata().num_rows());
        let mut row = 0;
        for group in 0..reader.num_row_groups() {
            let damaged = damaged(FilePosition::Row(row));
            let group = reader.get_row_group(group).map_err(damaged)?;
            let open = |column: usize| {
                let chunk = group.metadata().column(column);
                let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
                if start.min(chunk.compressed_size()) < 0 {
                    let rule =
                        format!("{WHOLE}: a column begins at byte {start} and has {} bytes", chunk.compressed_size());
                    return Err(broken(FilePosition::Row(row), rule));
                }
                let there = schema.column(column).max_def_level();
                Column::new(path, group.get_column_reader(column).map_err(damaged)?, there)
            };
            let (mut image, mut label) = (open(image)?, open(label)?);
            loop {
                request.progress(&stage, row as usize, usize::try_from(all).unwrap_or(0))?;
                let damaged = |error| broken(FilePosition::Row(row), format!("{WHOLE}: {error}"));
                let (mut found, mut classes) = (image.read().map_err(damaged)?, label.read().map_err(damaged)?);
                if found.len() != classes.len() {
                    let rule = format!("{} images must have as many labels, not {}", found.len(), classes.len());
                    return Err(broken(FilePosition::Row(row), rule));
                }
                if found.is_empty() {
                    break;
                }
                for (image, label) in found.drain(..).zip(classes.drain(..)) {
                    self.row(image, label).map_err(|rule| broken(FilePosition::Row(row), rule))?;
                    row += 1;
                }
            }
        }
        if i64::try_from(row) != Ok(all) {
            return Err(broken(
                FilePosition::Row(row),
                format!("the file must have the {all} rows that it says it has"),
            ));
        }
        Ok(())
    }

    /// Adds a row. The error is the rule that it breaks.
    fn row(&mut self, image: Option<Value>, label: Option<Value>) -> Result<(), String> {
        let Some(Value::Number(label)) = label else { return Err("it must have a label".to_owned()) };
        let classes = self.images.classes;
        let label = u16::try_from(label)
            .ok()
            .filter(|&label| usize::from(label) < classes)
            .ok_or_else(|| format!("label {label} must be from 0 to less than the number of classes, {classes}"))?;
        let Some(Value::Bytes(bytes)) = image else { return Err("it must have an image".to_owned()) };
        let no_png = |error| format!("its image must be a PNG: {error}");
        let decoder = PngDecoder::new(Cursor::new(bytes.data())).map_err(no_png)?;
        let (width, height) = decoder.dimensions();
        let found = [height as usize, width as usize];
        let [height, width] = *self.size.get_or_insert(found);
        if found != [height, width] {
            let found = extents(&found);
            return Err(format!("its image of {found} pixels must be of {}", extents(&[height, width])));
        }
        let channels = self.images.channels;
        let (wanted, name) =
            if channels == 1 { (ColorType::L8, "gray") } else { (ColorType::Rgb8, "red, green and blue") };
        if decoder.color_type() != wanted {
            return Err(format!("its image of colour type {:?} must be {name}, 8 bits each", decoder.color_type()));
        }
        let mut pixels = vec![0; channels * height * width];
        if decoder.total_bytes() != pixels.len() as u64 {
            return Err(format!("its image of {} bytes must have {}", decoder.total_bytes(), pixels.len()));
        }
        decoder.read_image(&mut pixels).map_err(no_png)?;
        for channel in 0..channels {
            self.pixels.extend(pixels.iter().skip(channel).step_by(channels));
        }
        self.labels.push(label);
        Ok(())
    }
}

/// The number of the column with one of these paths.
fn column(path: &Path, schema: &SchemaDescriptor, names: &[Vec<&str>]) -> Result<usize, TrainError> {
    let same = |wanted: &[&str], parts: &[String]| parts.iter().eq(wanted.iter());
    let found = schema.columns().iter().position(|column| names.iter().any(|name| same(name, column.path().parts())));
    let broken = |rule: String| TrainError::data(path.display(), FilePosition::Whole, rule);
    let names: Vec<String> = names.iter().map(|name| format!("'{}'", name.join("."))).collect();
    let names = names.join(" or ");
    let Some(index) = found else { return Err(broken(format!("it must have a column {names}"))) };
    if schema.column(index).max_rep_level() > 0 {
        return Err(broken(format!("its column {names} must hold one value a row, not lists")));
    }
    Ok(index)
}

/// A value of a row.
enum Value {
    Bytes(ByteArray),
    Number(i64),
}

/// A column of a group of rows.
struct Column {
    reader: Typed,
    /// The definition level of a value that is not missing.
    there: i16,
}

enum Typed {
    Bytes(ColumnReaderImpl<ByteArrayType>),
    Int(ColumnReaderImpl<Int32Type>),
    Long(ColumnReaderImpl<Int64Type>),
}

impl Column {
    fn new(path: &Path, reader: ColumnReader, there: i16) -> Result<Self, TrainError> {
        let reader = match reader {
            ColumnReader::ByteArrayColumnReader(reader) => Typed::Bytes(reader),
            ColumnReader::Int32ColumnReader(reader) => Typed::Int(reader),
            ColumnReader::Int64ColumnReader(reader) => Typed::Long(reader),
            _ => {
                let rule = "its images must be bytes, its labels whole numbers of 32 or 64 bits";
                return Err(TrainError::data(path.display(), FilePosition::Whole, rule));
            }
        };
        Ok(Self { reader, there })
    }

    /// The next values, and None for each row without one. After the last row, there are no values.
    fn read(&mut self) -> Result<Vec<Option<Value>>, ParquetError> {
        match &mut self.reader {
            Typed::Bytes(reader) => next(reader, self.there, Value::Bytes),
            Typed::Int(reader) => next(reader, self.there, |value| Value::Number(value.into())),
            Typed::Long(reader) => next(reader, self.there, Value::Number),
        }
    }
}

fn next<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    there: i16,
    value: impl Fn(T::T) -> Value,
) -> Result<Vec<Option<Value>>, ParquetError> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    reader.read_records(ROWS, Some(&mut levels), None, &mut values)?;
    let mut values = values.into_iter().map(value);
    // A column without missing values has no levels.
    Ok(if there == 0 {
        values.map(Some).collect()
    } else {
        levels.into_iter().map(|level| if level == there { values.next() } else { None }).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use image::{GrayAlphaImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::column::writer::ColumnWriter;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::super::scratch::{Heard, Scratch};
    use super::super::{cifar, idx};
    use super::*;
    use crate::layout::Layout;

    /// The columns of CIFAR-10 on the hub.
    const CIFAR: &str = "message schema { optional group img { optional binary bytes; optional binary path (utf8); }
                         optional int64 label; }";

    fn png(image: &impl Fn(&mut Cursor<Vec<u8>>)) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image(&mut bytes);
        bytes.into_inner()
    }

    /// A coloured image, all pixels alike but the first one, which is black.
    fn coloured(size: u32, color: [u8; 3]) -> Vec<u8> {
        let mut image = RgbImage::from_pixel(size, size, Rgb(color));
        image.put_pixel(0, 0, Rgb([0; 3]));
        png(&|to| image.write_to(to, ImageFormat::Png).unwrap())
    }

    fn gray(height: u32, width: u32, value: u8) -> Vec<u8> {
        let image = GrayImage::from_fn(width, height, |x, y| Luma([value + (y * width + x) as u8]));
        png(&|to| image.write_to(to, ImageFormat::Png).unwrap())
    }

    /// Values of a leaf with their definition levels, which are `there` where a value is.
    fn levels<T: Clone>(values: &[Option<T>], there: i16) -> (Vec<T>, Vec<i16>) {
        let level = |value: &Option<T>| if value.is_some() { there } else { 0 };
        (values.iter().flatten().cloned().collect(), values.iter().map(level).collect())
    }

    /// A file of so many rows a group. Its first leaf is the image's bytes, whole numbers are the label, and other bytes are
    /// missing in every row.
    fn file(schema: &str, rows: &[(Option<Vec<u8>>, Option<i64>)], group: usize, compression: Compression) -> Vec<u8> {
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
        for rows in rows.chunks(group) {
            let mut group = writer.next_row_group().unwrap();
            let mut leaf = 0;
            while let Some(mut column) = group.next_column().unwrap() {
                match column.untyped() {
                    ColumnWriter::ByteArrayColumnWriter(column) => {
                        let there = column.get_descriptor().max_def_level();
                        let bytes = |(image, _): &(Option<Vec<u8>>, _)| image.clone().filter(|_| leaf == 0);
                        let (values, levels) = levels(&rows.iter().map(bytes).collect::<Vec<_>>(), there);
                        let values: Vec<ByteArray> = values.into_iter().map(ByteArray::from).collect();
                        column.write_batch(&values, Some(&levels), None).unwrap();
                    }
                    ColumnWriter::Int64ColumnWriter(column) => {
                        let there = column.get_descriptor().max_def_level();
                        let (values, levels) = levels(&rows.iter().map(|row| row.1).collect::<Vec<_>>(), there);
                        column.write_batch(&values, Some(&levels), None).unwrap();
                    }
                    ColumnWriter::Int32ColumnWriter(column) => {
                        let there = column.get_descriptor().max_def_level();
                        let values: Vec<_> = rows.iter().map(|row| row.1.map(|label| label as i32)).collect();
                        let (values, levels) = levels(&values, there);
                        column.write_batch(&values, Some(&levels), None).unwrap();
                    }
                    _ => panic!("no such column"),
                }
                column.close().unwrap();
                leaf += 1;
            }
            group.close().unwrap();
        }
        writer.into_inner().unwrap()
    }

    fn rows(labels: &[i64]) -> Vec<(Option<Vec<u8>>, Option<i64>)> {
        labels.iter().map(|&label| (Some(coloured(32, [label as u8, 100, 200])), Some(label))).collect()
    }

    #[test]
    fn good_files_are_read() {
        let scratch = Scratch::new("parquet-good");
        let labels: Vec<i64> = (0..150).map(|i| i * i % 10).collect();
        let kinds = [Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default()), Compression::UNCOMPRESSED];
        for (group, compression) in [1000, 70, 1].into_iter().zip(kinds) {
            for (number, labels) in [&labels[..100], &labels[100..]].into_iter().enumerate() {
                let bytes = file(CIFAR, &rows(labels), group, compression);
                scratch.write(&format!("plain_text/train-{number:05}-of-00002.parquet"), bytes);
            }
            scratch.write("plain_text/test-00000-of-00001.parquet", file(CIFAR, &rows(&[3]), group, compression));
            let heard = Heard::default();
            let (train, test) = cifar::cifar10(&Request { watch: &heard, ..Request::new(&scratch.0) }).unwrap();
            assert_eq!((train.len(), test.len(), train.classes(), train.shape()), (150, 1, 10, test.shape()));
            assert!(train.augment().flip && !test.augment().flip);
            let found: Vec<i64> = (0..150).map(|i| train.label(i) as i64).collect();
            assert_eq!(found, labels);
            let mut out = vec![0.0; 3072];
            train.read(149, None, Layout::Nchw, &mut out);
            let black = [(0.0 - 0.4914) / 0.2023, (0.0 - 0.4822) / 0.1994, (0.0 - 0.4465) / 0.2010];
            assert_eq!([out[0], out[1024], out[2048]], black);
            let pixel = |byte: u8, mean: f32, deviation: f32| (f32::from(byte) / 255.0 - mean) / deviation;
            let color =
                [pixel(labels[149] as u8, 0.4914, 0.2023), pixel(100, 0.4822, 0.1994), pixel(200, 0.4465, 0.2010)];
            assert_eq!([out[1], out[1025], out[3071]], color);
            assert_eq!(
                heard.warnings(&scratch),
                [
                    "plain_text/train-00000-of-00002.parquet holds 150 rows with the other files of its part, the published \
                     file holds 50000",
                    "plain_text/test-00000-of-00001.parquet holds 1 rows with the other files of its part, the published file \
                     holds 10000",
                ]
            );
        }
    }

    #[test]
    fn columns_have_the_names_and_types_of_the_hub() {
        let scratch = Scratch::new("parquet-names");
        let schema = "message schema { optional group img { optional binary bytes; optional binary path (utf8); }
                      optional int64 fine_label; }";
        for part in ["train", "test"] {
            let bytes = file(schema, &rows(&[99, 5]), 9, Compression::SNAPPY);
            scratch.write(&format!("{part}-00000-of-00001-0123456789abcdef.parquet"), bytes);
        }
        let (train, test) = cifar::cifar100(&Request::new(&scratch.0)).unwrap();
        assert_eq!((train.classes(), train.label(0), test.label(1)), (100, 99, 5));
        // Nothing may be missing, labels of 32 bits, images of another size, gray ones.
        let scratch = Scratch::new("parquet-gray");
        let schema = "message schema { required group image { required binary bytes; } required int32 label; }";
        let digits = [(Some(gray(5, 4, 7)), Some(3)), (Some(gray(5, 4, 9)), Some(8))];
        for part in ["train", "test"] {
            let bytes = file(schema, &digits, 9, Compression::SNAPPY);
            scratch.write(&format!("data/{part}-00000-of-00001.parquet"), bytes);
        }
        let (train, test) = idx::mnist(&Request::new(&scratch.0)).unwrap();
        assert_eq!((train.shape(), train.label(1), test.len()), (Shape::new(1, [1, 5, 4]), 8, 2));
        let mut out = vec![0.0; 20];
        test.read(1, None, Layout::Nchw, &mut out);
        let expected: Vec<f32> = (9..29).map(|byte| (byte as f32 / 255.0 - 0.1307) / 0.3081).collect();
        assert_eq!(out, expected);
        let (fashion, _) = idx::fashion_mnist(&Request::new(&scratch.0)).unwrap();
        assert!(fashion.augment().flip && fashion.name() == "fashion-mnist");
    }

    #[test]
    fn the_binary_version_wins() {
        let scratch = Scratch::new("parquet-binary");
        for part in ["train", "test"] {
            let bytes = file(CIFAR, &rows(&[3]), 9, Compression::SNAPPY);
            scratch.write(&format!("{part}-00000-of-00001.parquet"), bytes);
        }
        assert_eq!(cifar::cifar10(&Request::new(&scratch.0)).unwrap().0.len(), 1);
        (1..6).for_each(|n| scratch.write(&format!("data_batch_{n}.bin"), [n; 3073]));
        scratch.write("test_batch.bin", [9; 3073]);
        let (train, test) = cifar::cifar10(&Request::new(&scratch.0)).unwrap();
        assert_eq!((train.len(), test.label(0)), (5, 9));
        // Not by parts of each.
        scratch.remove("data_batch_4.bin");
        let message = scratch.message(cifar::cifar10(&Request::new(&scratch.0)));
        assert!(message.starts_with("data_batch_4.bin: not found; "), "{message}");
    }

    #[test]
    fn bad_files_are_named_with_their_row() {
        let scratch = Scratch::new("parquet-bad");
        let (good, name) = (rows(&[1, 2]), "train-00000-of-00001.parquet");
        let transparent = GrayAlphaImage::new(32, 32);
        let transparent = png(&|to| transparent.write_to(to, ImageFormat::Png).unwrap());
        let whole = coloured(32, [1, 2, 3]);
        let (jpeg, cut) = (b"\xff\xd8\xff\xe0 no PNG".to_vec(), whole[..whole.len() / 2].to_vec());
        let with = |image: Option<Vec<u8>>, label| [&good[..], &[(image, label)]].concat();
        for (rows, expected) in [
            (
                with(Some(whole.clone()), Some(10)),
                "row 2: label 10 must be from 0 to less than the number of classes, 10",
            ),
            (
                with(Some(whole.clone()), Some(-1)),
                "row 2: label -1 must be from 0 to less than the number of classes, 10",
            ),
            (with(Some(whole.clone()), Some(1 << 40)), "row 2: label 1099511627776 must be from 0 to less than"),
            (with(Some(whole.clone()), None), "row 2: it must have a label"),
            (with(None, Some(1)), "row 2: it must have an image"),
            (with(Some(coloured(31, [1; 3])), Some(1)), "row 2: its image of 31 × 31 pixels must be of 32 × 32"),
            (with(Some(gray(32, 32, 0)), Some(1)), "row 2: its image of colour type L8 must be red, green and blue"),
            (with(Some(transparent), Some(1)), "row 2: its image of colour type La8 must be red, green and blue"),
            (with(Some(jpeg), Some(1)), "row 2: its image must be a PNG: "),
            (with(Some(cut), Some(1)), "row 2: its image must be a PNG: "),
            (with(Some(vec![]), Some(1)), "row 2: its image must be a PNG: "),
        ] {
            // In a group of their own, and behind others.
            for group in [1, 9] {
                scratch.write(name, file(CIFAR, &rows, group, Compression::SNAPPY));
                scratch.write("test-00000-of-00001.parquet", file(CIFAR, &good, 9, Compression::SNAPPY));
                let message = scratch.message(cifar::cifar10(&Request::new(&scratch.0)));
                assert!(message.starts_with(&format!("{name}, {expected}")), "{message}");
            }
        }
        let schema = |text: &str| file(text, &good, 9, Compression::SNAPPY);
        for (bytes, expected) in [
            (
                schema("message schema { optional group img { optional binary bytes; } optional int64 class; }"),
                "it must have a column 'label'",
            ),
            (
                schema("message schema { optional binary img; optional int64 label; }"),
                "it must have a column 'img.bytes' or 'image.bytes'",
            ),
            (
                schema("message schema { optional group img { optional binary bytes; } optional binary label; }"),
                "row 0: it must have a label",
            ),
            (file(CIFAR, &[], 9, Compression::SNAPPY), "it must have a row at least"),
            (b"PAR1 and more".to_vec(), "it must be a whole Parquet file: "),
            (vec![], "it must be a whole Parquet file: "),
        ] {
            scratch.write(name, bytes);
            let message = scratch.message(cifar::cifar10(&Request::new(&scratch.0)));
            let rest = message.strip_prefix(name).unwrap_or_else(|| panic!("{message}"));
            assert!(rest.trim_start_matches([',', ':', ' ']).starts_with(expected), "{message}");
        }
        scratch.remove("test-00000-of-00001.parquet");
        scratch.write(name, file(CIFAR, &good, 9, Compression::SNAPPY));
        let message = scratch.message(cifar::cifar10(&Request::new(&scratch.0)));
        let rule = "not found; the training part is there, so the test part must be";
        assert_eq!(message, format!("test-00000-of-00001.parquet: {rule}"));
    }

    /// Whatever becomes of a file, it is read or refused.
    #[test]
    fn damaged_files_end_no_program() {
        let scratch = Scratch::new("parquet-damaged");
        let path = scratch.0.join("file.parquet");
        let images = Images {
            name: "damaged",
            labels: &["label"],
            classes: 10,
            channels: 1,
            size: None,
            mean: &[0.5],
            deviation: &[0.5],
            published: [2; 2],
        };
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&Request::new(&scratch.0), &images, std::slice::from_ref(&path), None, 2)
        };
        let rows = [(Some(gray(2, 3, 1)), Some(3)), (None, Some(4)), (Some(gray(2, 3, 9)), Some(8))];
        let whole = [rows[0].clone(), rows[2].clone()];
        for compression in [Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default()), Compression::UNCOMPRESSED] {
            let good = file(CIFAR, &whole, 1, compression);
            assert_eq!(read(&good).unwrap().len(), 2);
            for len in 0..good.len() {
                assert!(read(&good[..len]).is_err(), "{len}");
            }
            for bytes in [good, file(CIFAR, &rows, 9, compression)] {
                for at in 0..bytes.len() {
                    for change in [1, 0x80, 0xff] {
                        let mut other = bytes.clone();
                        other[at] ^= change;
                        let _ = read(&other);
                    }
                }
            }
        }
    }
}
