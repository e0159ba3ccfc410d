//! CIFAR's files: one is the fuzzer's, a short pattern over and over, for records are long.
//!
//! The first byte says which variant and part, the next two the file's length, 3073 or 3074 times `length / 8` and a rest.
#![no_main]

use convrelu::train::data::{Request, cifar};
use libfuzzer_sys::fuzz_target;

#[path = "common/mod.rs"]
mod common;
#[path = "common/data.rs"]
mod data;

fuzz_target!(|input: &[u8]| {
    let Some((&[mode, high, low], pattern)) = input.split_first_chunk() else { return };
    let (hundred, test) = (mode & 1 != 0, mode & 2 != 0);
    let record = if hundred { 3074 } else { 3073 };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let rest = if mode & 4 != 0 { length % 8 } else { 0 };
    let contents: Vec<u8> = pattern.iter().copied().cycle().take(record * (length / 8 % 16) + rest).collect();
    let good = vec![1; record];
    if hundred {
        common::write("train.bin", if test { &good } else { &contents });
        common::write("test.bin", if test { &contents } else { &good });
        data::check(cifar::cifar100(&Request::new(common::folder())));
    } else {
        for batch in 1..=5 {
            let fuzzed = !test && batch == 1 + usize::from(mode >> 3) % 5;
            common::write(&format!("data_batch_{batch}.bin"), if fuzzed { &contents } else { &good });
        }
        common::write("test_batch.bin", if test { &contents } else { &good });
        data::check(cifar::cifar10(&Request::new(common::folder())));
    }
});
