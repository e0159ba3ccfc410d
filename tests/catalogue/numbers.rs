//! The functions of the C interface that take numbers and no buffers, and the one that writes the sentence of an error.

use std::ffi::c_char;
use std::ptr;

use convrelu::capi::convrelu_status::{self as Status, *};
use convrelu::capi::*;
use convrelu::{Error, Isa};

use crate::rows::assert_sentence;
use crate::structs::{good_desc, message, no_error, stale_lens};
use crate::translate::c_plan;

/// The functions without buffers: null, misaligned, sizes, numbers.
#[test]
fn functions_of_numbers() {
    let mut rows = 0;
    let mut check = |call: &mut dyn FnMut(*mut convrelu_error) -> Status, status: Status, words: &[&str]| {
        let mut error = no_error();
        assert_eq!(call(&mut error), status, "{words:?}");
        assert_eq!(error.status, status as u32);
        assert_sentence(&message(&error), words);
        assert_eq!(call(ptr::null_mut()), status);
        error.struct_size = 3;
        assert_eq!(call(&mut error), CONVRELU_STRUCT_SIZE);
        rows += 1;
    };
    let null = ptr::null_mut::<u32>();
    let (mut a, mut b, mut c, mut len) = (99u32, 99u32, 99u32, 99usize);
    let odd = |number: &mut u32| ptr::from_mut(number).wrapping_byte_add(1);
    let desc = good_desc(2, CONVRELU_NCHW);
    let plan = c_plan(&desc, Isa::detect());
    let mut copy = plan;
    let mut lens = stale_lens();
    let (desc_size, plan_size) = (size_of::<convrelu_desc>(), size_of::<convrelu_plan>());
    // SAFETY: pointers are good, or such as the library must notice.
    unsafe {
        check(&mut |e| convrelu_version(null, &mut b, &mut c, e), CONVRELU_NULL, &["major", "null"]);
        check(&mut |e| convrelu_version(&mut a, null, &mut c, e), CONVRELU_NULL, &["minor", "null"]);
        check(&mut |e| convrelu_version(&mut a, &mut b, null, e), CONVRELU_NULL, &["patch", "null"]);
        check(&mut |e| convrelu_version(&mut a, &mut b, odd(&mut c), e), CONVRELU_MISALIGNED, &["patch"]);
        check(&mut |e| convrelu_abi(null, e), CONVRELU_NULL, &["abi", "null"]);
        check(&mut |e| convrelu_abi(odd(&mut a), e), CONVRELU_MISALIGNED, &["abi"]);
        check(&mut |e| convrelu_isa_detect(null, e), CONVRELU_NULL, &["isa", "null"]);
        check(&mut |e| convrelu_isa_detect(odd(&mut a), e), CONVRELU_MISALIGNED, &["isa"]);
        check(&mut |e| convrelu_isa_available(1, null, e), CONVRELU_NULL, &["available", "null"]);
        check(&mut |e| convrelu_isa_available(1, odd(&mut a), e), CONVRELU_MISALIGNED, &["available"]);
        for isa in [CONVRELU_ISA_AUTO, 6, u32::MAX] {
            let words = ["isa", &isa.to_string()];
            check(&mut |e| convrelu_isa_available(isa, &mut a, e), CONVRELU_INVALID_VALUE, &words);
        }
        let odd_plan = ptr::from_mut(&mut copy).wrapping_byte_add(4);
        let none = ptr::null_mut();
        check(&mut |e| convrelu_plan_init(none, plan_size, &desc, 0, e), CONVRELU_NULL, &["plan", "null"]);
        check(&mut |e| convrelu_plan_init(odd_plan, plan_size, &desc, 0, e), CONVRELU_MISALIGNED, &["plan"]);
        check(&mut |e| convrelu_plan_init(&mut copy, 8, &desc, 0, e), CONVRELU_STRUCT_SIZE, &["plan", "8"]);
        let no_desc = ptr::null();
        check(&mut |e| convrelu_plan_init(&mut copy, plan_size, no_desc, 0, e), CONVRELU_NULL, &["desc", "null"]);
        let odd_desc = ptr::from_ref(&desc).wrapping_byte_add(4);
        check(&mut |e| convrelu_plan_init(&mut copy, plan_size, odd_desc, 0, e), CONVRELU_MISALIGNED, &["desc"]);
        for isa in [6, u32::MAX] {
            let words = ["isa", &isa.to_string()];
            check(&mut |e| convrelu_plan_init(&mut copy, plan_size, &desc, isa, e), CONVRELU_INVALID_VALUE, &words);
        }
        for (size, reserved, status, word) in
            [(8, 0, CONVRELU_STRUCT_SIZE, "8"), (desc_size, 1, CONVRELU_RESERVED, "reserved")]
        {
            let mut bad = desc;
            (bad.struct_size, bad.reserved[1]) = (size, reserved);
            check(&mut |e| convrelu_plan_init(&mut copy, plan_size, &bad, 0, e), status, &["desc", word]);
        }
        check(&mut |e| convrelu_plan_set_threads(none, 3, e), CONVRELU_NULL, &["plan", "null"]);
        check(&mut |e| convrelu_plan_set_threads(odd_plan, 3, e), CONVRELU_MISALIGNED, &["plan"]);
        assert_eq!(copy, plan);
        check(&mut |e| convrelu_plan_isa(none, &mut a, e), CONVRELU_NULL, &["plan", "null"]);
        check(&mut |e| convrelu_plan_isa(&plan, null, e), CONVRELU_NULL, &["isa", "null"]);
        check(&mut |e| convrelu_plan_isa(&plan, odd(&mut a), e), CONVRELU_MISALIGNED, &["isa"]);
        check(&mut |e| convrelu_plan_lens(none, &mut lens, e), CONVRELU_NULL, &["plan", "null"]);
        check(&mut |e| convrelu_plan_lens(&plan, ptr::null_mut(), e), CONVRELU_NULL, &["lens", "null"]);
        let odd_lens = ptr::from_mut(&mut lens).wrapping_byte_add(4);
        check(&mut |e| convrelu_plan_lens(&plan, odd_lens, e), CONVRELU_MISALIGNED, &["lens"]);
        let mut small = convrelu_lens { struct_size: 8, ..stale_lens() };
        check(&mut |e| convrelu_plan_lens(&plan, &mut small, e), CONVRELU_STRUCT_SIZE, &["lens", "8"]);
        assert_eq!(small, convrelu_lens { struct_size: 8, ..stale_lens() });
        check(&mut |e| convrelu_workspace_len(none, 0, &mut len, e), CONVRELU_NULL, &["plan", "null"]);
        check(&mut |e| convrelu_workspace_len(&plan, 0, ptr::null_mut(), e), CONVRELU_NULL, &["len", "null"]);
        let odd_len = ptr::from_mut(&mut len).wrapping_byte_add(1);
        check(&mut |e| convrelu_workspace_len(&plan, 0, odd_len, e), CONVRELU_MISALIGNED, &["len"]);
        for pass in [5, u32::MAX] {
            let words = ["pass", &pass.to_string()];
            check(&mut |e| convrelu_workspace_len(&plan, pass, &mut len, e), CONVRELU_INVALID_VALUE, &words);
        }
    }
    assert_eq!((a, b, c, len, lens), (99, 99, 99, 99, stale_lens()));
    println!("functions of numbers: {rows} rows");
    assert!(rows >= 30);
}

/// The function that reports: any numbers give some sentence, cut between characters where there is no room.
#[test]
fn the_sentence_itself() {
    let mut text = [7u8; 8];
    let mut len = 99usize;
    let good = convrelu_error { status: CONVRELU_ZERO as u32, argument: 3, values: [0, 1, 0], ..no_error() };
    let (room, none) = (text.as_mut_ptr().cast::<c_char>(), ptr::null_mut::<c_char>());
    let odd = ptr::from_ref(&good).wrapping_byte_add(4);
    let old = convrelu_error { struct_size: 8, ..good };
    let odd_len = ptr::from_mut(&mut len).wrapping_byte_add(1);
    // SAFETY: pointers are good, or such as the library must notice.
    unsafe {
        assert_eq!(convrelu_error_message(ptr::null(), room, 8, &mut len), CONVRELU_NULL);
        assert_eq!(convrelu_error_message(odd, room, 8, &mut len), CONVRELU_MISALIGNED);
        assert_eq!(convrelu_error_message(&old, room, 8, &mut len), CONVRELU_STRUCT_SIZE);
        assert_eq!(convrelu_error_message(&good, none, 8, &mut len), CONVRELU_NULL);
        assert_eq!(convrelu_error_message(&good, room, 0, &mut len), CONVRELU_BUFFER_TOO_SHORT);
        assert_eq!(convrelu_error_message(&good, room, usize::MAX, &mut len), CONVRELU_OVERFLOW);
        assert_eq!(convrelu_error_message(&good, room, 8, odd_len), CONVRELU_MISALIGNED);
        assert_eq!((text, len), ([7; 8], 99));
        assert_eq!(convrelu_error_message(&good, text.as_mut_ptr().cast(), 8, ptr::null_mut()), CONVRELU_OK);
    }
    assert_eq!(&text, b"groups \0");

    let shape = Error::ThresholdShape { elements: 7, thresholds: 2, inner: 3 };
    let error =
        convrelu_error { status: CONVRELU_THRESHOLD_SHAPE as u32, argument: 10, values: [7, 2, 3], ..no_error() };
    let whole = message(&error);
    assert_eq!(whole, shape.to_string());
    for capacity in 1..whole.len() + 2 {
        let mut text = vec![b'x'; capacity];
        // SAFETY: room for as many bytes as announced.
        let status = unsafe { convrelu_error_message(&error, text.as_mut_ptr().cast(), capacity, &mut len) };
        assert_eq!((status, len), (CONVRELU_OK, whole.len()));
        let end = text.iter().position(|&byte| byte == 0).expect("a zero byte");
        let cut = std::str::from_utf8(&text[..end]).expect("whole characters");
        assert!(whole.starts_with(cut) && cut.len() + 3 > (capacity - 1).min(whole.len()), "{cut:?}");
    }
    for status in 0..30 {
        for argument in (0..62).chain([u32::MAX]) {
            for values in [[0; 3], [usize::MAX; 3], [6, 6, 6]] {
                assert!(!message(&convrelu_error { status, argument, values, ..no_error() }).is_empty());
            }
        }
    }
}

/// The library that is linked is the one of the header.
#[test]
fn version() {
    let (mut major, mut minor, mut patch, mut abi) = (99, 99, 99, 99);
    // SAFETY: pointers to numbers.
    let statuses = unsafe {
        let version = convrelu_version(&mut major, &mut minor, &mut patch, ptr::null_mut());
        [version, convrelu_abi(&mut abi, ptr::null_mut())]
    };
    assert_eq!(statuses, [CONVRELU_OK; 2]);
    assert_eq!(format!("{major}.{minor}.{patch}"), env!("CARGO_PKG_VERSION"));
    assert_eq!([major, minor, patch], [CONVRELU_VERSION_MAJOR, CONVRELU_VERSION_MINOR, CONVRELU_VERSION_PATCH]);
    assert_eq!(abi, CONVRELU_ABI);
}
