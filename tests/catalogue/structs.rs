//! Structs of the C interface as its initialisers leave them, the sentence of an error, and plans made or refused.

use std::ffi::c_char;
use std::ptr;

use convrelu::capi::convrelu_status::{self as Status, *};
use convrelu::capi::*;

/// What every initialiser of a struct is like, its own arguments apart.
pub(crate) type Init<'a, T> = &'a mut dyn FnMut(*mut T, usize, *mut convrelu_error) -> Status;

/// A struct as its initialiser leaves it.
pub(crate) fn initialised<T: Copy>(init: Init<'_, T>) -> T {
    let mut value = std::mem::MaybeUninit::<T>::uninit();
    assert_eq!(init(value.as_mut_ptr(), size_of::<T>(), ptr::null_mut()), CONVRELU_OK);
    // SAFETY: initialised whole where the call succeeds.
    unsafe { value.assume_init() }
}

/// A layer of equal axes.
pub(crate) fn plain_desc(rank: usize, [batch, i, o]: [usize; 3], size: usize, kernel: usize) -> convrelu_desc {
    let (n, k) = (size, kernel);
    // SAFETY: room for the struct, as long as it says.
    initialised(&mut |to, len, error| unsafe {
        match rank {
            1 => convrelu_conv1d_init(to, len, batch, i, o, n, k, error),
            2 => convrelu_conv2d_init(to, len, batch, i, o, n, n, k, k, error),
            _ => convrelu_conv3d_init(to, len, batch, i, o, n, n, n, k, k, k, error),
        }
    })
}

pub(crate) fn good_desc(rank: usize, layout: u32) -> convrelu_desc {
    let mut desc = plain_desc(rank, [1, 4, 6], 5, 3);
    desc.layout = layout;
    (desc.padding_before, desc.padding_after) = ([1; 3], [2; 3]);
    desc
}

pub(crate) fn no_error() -> convrelu_error {
    let struct_size = size_of::<convrelu_error>();
    convrelu_error { struct_size, status: 0, argument: 0, values: [0; 3], reserved: [0; 2] }
}

pub(crate) fn no_epilogue() -> convrelu_epilogue {
    // SAFETY: room for the struct, as long as it says.
    initialised(&mut |to, len, error| unsafe { convrelu_epilogue_init(to, len, error) })
}

pub(crate) fn stale_lens() -> convrelu_lens {
    convrelu_lens {
        struct_size: size_of::<convrelu_lens>(),
        input: 99,
        output: 99,
        weight: 99,
        thresholds: 99,
        bias: 99,
        packed_weight: 99,
        packed_weight_transposed: 99,
        output_size: [99; 3],
        reserved: [99; 4],
    }
}

pub(crate) fn message(error: &convrelu_error) -> String {
    let (mut text, mut len) = ([0u8; 256], 0);
    // SAFETY: room for what is announced.
    let status = unsafe { convrelu_error_message(error, text.as_mut_ptr().cast::<c_char>(), text.len(), &mut len) };
    assert_eq!((status, text[len]), (CONVRELU_OK, 0));
    String::from_utf8(text[..len].to_vec()).unwrap()
}

/// Bytes of a struct, of which some are reserved or padding.
pub(crate) fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: a struct of the C interface that was filled with zeros or initialised whole; it has no padding.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Plans; the struct holds another pattern before, which stays where that fails.
pub(crate) fn try_plan(desc: &convrelu_desc, isa: u32) -> Result<convrelu_plan, (Status, String)> {
    let mut plan = convrelu_plan {
        struct_size: 77,
        magic: 78,
        isa: 79,
        threads: 80,
        desc: good_desc(1, CONVRELU_NCHW),
        reserved: [81; 4],
    };
    let before = bytes_of(&plan).to_vec();
    let mut error = no_error();
    // SAFETY: room for the struct; the descriptor's size is set.
    let status = unsafe { convrelu_plan_init(&mut plan, size_of::<convrelu_plan>(), desc, isa, &mut error) };
    assert_eq!(error.status, status as u32);
    if status == CONVRELU_OK {
        return Ok(plan);
    }
    assert_eq!(bytes_of(&plan), before, "a plan was written");
    Err((status, message(&error)))
}
