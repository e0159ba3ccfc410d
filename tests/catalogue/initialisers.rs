//! The initialisers of the C interface's structs: what they refuse and what they write.

use std::ptr;

use convrelu::ConvDesc;
use convrelu::capi::convrelu_status::{self as Status, *};
use convrelu::capi::*;

use crate::rows::assert_sentence;
use crate::structs::{Init, bytes_of, initialised, message, no_epilogue, no_error, plain_desc, try_plan};
use crate::translate::rust_desc;

/// An initialiser with wrong pointers and sizes, which writes nothing then.
fn assert_init_is_checked<T: Copy>(name: &str, init: Init<'_, T>) {
    let mut room = std::mem::MaybeUninit::<[T; 2]>::zeroed();
    let to = room.as_mut_ptr().cast::<T>();
    let mut refused = |to: *mut T, size: usize, status: Status, words: &[&str]| {
        let mut error = no_error();
        assert_eq!(init(to, size, &mut error), status);
        assert_eq!(error.status, status as u32);
        assert_sentence(&message(&error), words);
        assert_eq!(init(to, size, ptr::null_mut()), status);
    };
    refused(ptr::null_mut(), size_of::<T>(), CONVRELU_NULL, &[name, "null"]);
    refused(to.wrapping_byte_add(4), size_of::<T>(), CONVRELU_MISALIGNED, &[name, "aligned"]);
    for size in [0, 8, size_of::<T>() - 8, size_of::<T>() + 8, usize::MAX] {
        refused(to, size, CONVRELU_STRUCT_SIZE, &[name, &size.to_string(), &size_of::<T>().to_string()]);
    }
    let mut error = convrelu_error { struct_size: 3, ..no_error() };
    assert_eq!(init(to, size_of::<T>(), &mut error), CONVRELU_STRUCT_SIZE);
    // SAFETY: bytes that were zeroed.
    let bytes = unsafe { std::slice::from_raw_parts(room.as_ptr().cast::<u8>(), size_of::<[T; 2]>()) };
    assert!(bytes.iter().all(|&byte| byte == 0), "something was written");
}

/// Layers as Rust's builders begin them; arguments of nothing, whose thresholds are to be set.
#[test]
fn initialisers() {
    // SAFETY: the pointers of `initialised` and `assert_init_is_checked`, which are good, or such as the library must notice.
    unsafe {
        assert_init_is_checked::<convrelu_desc>("desc", &mut |to, len, e| {
            convrelu_conv1d_init(to, len, 1, 2, 3, 4, 5, e)
        });
        assert_init_is_checked::<convrelu_desc>("desc", &mut |to, len, e| {
            convrelu_conv2d_init(to, len, 1, 2, 3, 4, 5, 6, 7, e)
        });
        assert_init_is_checked::<convrelu_desc>("desc", &mut |to, len, e| {
            convrelu_conv3d_init(to, len, 1, 2, 3, 4, 5, 6, 7, 8, 9, e)
        });
        assert_init_is_checked("epilogue", &mut |to, len, e| convrelu_epilogue_init(to, len, e));
        assert_init_is_checked("args", &mut |to, len, e| convrelu_forward_args_init(to, len, e));
        assert_init_is_checked("args", &mut |to, len, e| convrelu_backward_input_args_init(to, len, e));
        assert_init_is_checked("args", &mut |to, len, e| convrelu_backward_weight_args_init(to, len, e));
    }
    // SAFETY: as above.
    let descs = unsafe {
        [
            initialised(&mut |to, len, e| convrelu_conv1d_init(to, len, 2, 3, 4, 9, 5, e)),
            initialised(&mut |to, len, e| convrelu_conv2d_init(to, len, 2, 3, 4, 9, 8, 5, 6, e)),
            initialised(&mut |to, len, e| convrelu_conv3d_init(to, len, 2, 3, 4, 9, 8, 7, 5, 6, 3, e)),
        ]
    };
    let built = [
        ConvDesc::conv1d(2, 3, 4, [9], [5]).build(),
        ConvDesc::conv2d(2, 3, 4, [9, 8], [5, 6]).build(),
        ConvDesc::conv3d(2, 3, 4, [9, 8, 7], [5, 6, 3]).build(),
    ];
    for (rank, (desc, built)) in (1..).zip(descs.into_iter().zip(built)) {
        assert_eq!(rust_desc(&desc), built);
        assert!(try_plan(&desc, CONVRELU_ISA_AUTO).is_ok());
        assert_eq!((desc.rank, desc.layout, desc.groups), (rank, CONVRELU_NCHW, 1));
        assert_eq!((desc.stride, desc.dilation), ([1; 3], [1; 3]));
        assert_eq!((desc.padding_before, desc.padding_after), ([0; 3], [0; 3]));
        assert_eq!((desc.input_pitch, desc.output_pitch, desc.reserved), (0, 0, [0; 7]));
        assert_eq!((desc.kind, desc.output_padding), (CONVRELU_CONVOLUTION, [0; 3]));
    }
    // What cannot be is the plan's to refuse.
    let (status, sentence) = try_plan(&plain_desc(2, [1, 0, 1], 3, 3), CONVRELU_ISA_AUTO).unwrap_err();
    assert_eq!((status, &sentence[..]), (CONVRELU_ZERO, "in_channels is 0: it must be at least 1"));

    // SAFETY: as above.
    let (mut forward, mut backward_input, mut backward_weight) = unsafe {
        (
            initialised(&mut |to, len, e| convrelu_forward_args_init(to, len, e)),
            initialised(&mut |to, len, e| convrelu_backward_input_args_init(to, len, e)),
            initialised(&mut |to, len, e| convrelu_backward_weight_args_init(to, len, e)),
        )
    };
    assert!(forward.threshold.is_nan() && backward_input.threshold.is_nan() && backward_weight.threshold.is_nan());
    // All else is zero.
    (forward.threshold, backward_input.threshold, backward_weight.threshold) = (0.0, 0.0, 0.0);
    let all_zero = |bytes: &[u8], size: usize| {
        assert_eq!(bytes[..8], size.to_ne_bytes()[..]);
        assert!(bytes[8..].iter().all(|&byte| byte == 0), "{bytes:?}");
    };
    let mut epilogue = no_epilogue();
    assert_eq!((epilogue.low, epilogue.high), (f32::NEG_INFINITY, f32::INFINITY));
    (epilogue.low, epilogue.high) = (0.0, 0.0);
    all_zero(bytes_of(&epilogue), size_of::<convrelu_epilogue>());
    all_zero(bytes_of(&forward), size_of::<convrelu_forward_args>());
    all_zero(bytes_of(&backward_input), size_of::<convrelu_backward_input_args>());
    all_zero(bytes_of(&backward_weight), size_of::<convrelu_backward_weight_args>());
}
