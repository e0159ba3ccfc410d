//! Folders of images: the lists of Tiny ImageNet, and images.
//!
//! The first byte says which: the list of classes, the annotations, or an image (read as it is, or resized).
#![no_main]

use std::fs;
use std::sync::Once;

use convrelu::train::data::{Request, folder};
use libfuzzer_sys::fuzz_target;

#[path = "common/mod.rs"]
mod common;
#[path = "common/data.rs"]
mod data;

/// One black pixel.
const IMAGE: &[u8] = include_bytes!("pixel.png");

const CLASSES: &str = "n01\nn02\n";
const ANNOTATIONS: &str = "a.png\tn01\t0\t0\t1\t1\nb.png\tn02\n";

fuzz_target!(|input: &[u8]| {
    static GOOD: Once = Once::new();
    GOOD.call_once(|| {
        for path in ["train/n01/images/a.png", "train/n02/images/b.png", "val/images/a.png", "val/images/b.png"] {
            common::write(path, IMAGE);
        }
    });
    let Some((&mode, contents)) = input.split_first() else { return };
    let root = common::folder();
    let request = Request { resize: (mode & 4 != 0).then_some([2, 3]), ..Request::new(root) };
    common::write("wnids.txt", if mode & 3 == 0 { contents } else { CLASSES.as_bytes() });
    common::write("val/val_annotations.txt", if mode & 3 == 1 { contents } else { ANNOTATIONS.as_bytes() });
    if mode & 3 == 2 {
        let image = common::write("train/n01/images/c.png", contents);
        data::check(folder::image_folder(&request));
        fs::remove_file(image).expect("it was written");
    } else {
        data::check(folder::tiny_imagenet(&request));
    }
});
