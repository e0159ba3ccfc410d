//! IDX files: one of the four is the fuzzer's, compressed or not, the others are good.
//!
//! The first byte says which (two bits), whether its name ends in `.gz`, and whether the labels follow from the images.
#![no_main]

use std::fs;

use convrelu::train::data::{Request, idx};
use libfuzzer_sys::fuzz_target;

#[path = "common/mod.rs"]
mod common;
#[path = "common/data.rs"]
mod data;

/// Part, kind and a good file of 2×3 pixels.
const FILES: [(&str, &[u8]); 4] = [
    ("train-images-idx3-ubyte", b"\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x03abcdefghijkl"),
    ("train-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x02\0\x09"),
    ("t10k-images-idx3-ubyte", b"\0\0\x08\x03\0\0\0\x01\0\0\0\x02\0\0\0\x03abcdef"),
    ("t10k-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x01\x05"),
];

fuzz_target!(|input: &[u8]| {
    let Some((&mode, contents)) = input.split_first() else { return };
    let fuzzed = usize::from(mode & 3);
    for (file, (name, good)) in FILES.iter().enumerate() {
        let compressed = format!("{name}.gz");
        let (to, other) = if file == fuzzed && mode & 4 != 0 { (&*compressed, *name) } else { (*name, &*compressed) };
        // Whichever name is found first counts.
        let _ = fs::remove_file(common::folder().join(other));
        common::write(to, if file == fuzzed { contents } else { good });
    }
    if mode & 8 != 0 && fuzzed == 0 {
        // As many labels as the header says, within reason, and a test part of the same size.
        let word = |at: usize| contents.get(at..at + 4).map_or(0, |word| u32::from_be_bytes(word.try_into().unwrap()));
        let count = word(4).min(4096);
        let labels = [b"\0\0\x08\x01".as_slice(), &count.to_be_bytes(), &vec![3; count as usize]].concat();
        common::write(FILES[1].0, labels);
        let [height, width] = [word(8), word(12)];
        let pixels = vec![7; (height.min(4096) * width.min(4096)) as usize % (1 << 20)];
        let header = [[0, 0, 8, 3], [0, 0, 0, 1], height.to_be_bytes(), width.to_be_bytes()];
        common::write(FILES[2].0, [header.as_flattened(), &pixels].concat());
    }
    data::check(idx::mnist(&Request::new(common::folder())));
    data::check(idx::fashion_mnist(&Request::new(common::folder())));
});
