//! Buffers of every length that is wrong, the shortest that is right, and those of an empty batch.

use std::ptr;

use convrelu::capi::convrelu_status::*;
use convrelu::{Error, Isa};

use crate::call::{Asked, Buffer, Call, ELEMENTS, INNER, THETAS, is_packed, snapshot};
use crate::layer::Layer;
use crate::layers::{benches, layers, transposed_benches};
use crate::raw::Raw;
use crate::rows::{Rows, assert_sentence, assert_untouched};

/// Every buffer of every call one element short, and empty; exactly as long as needed is enough.
#[test]
fn lengths() {
    let mut rows = Rows::default();
    for layer in benches().chain(transposed_benches()) {
        for call in layer.calls() {
            for c in [false, true] {
                let mut buffers = layer.buffers(call, c);
                let before = snapshot(&buffers);
                if c {
                    let (status, message) = Raw::new(&layer, call, &mut buffers).call();
                    assert_eq!((status, &message[..]), (CONVRELU_OK, "no error"));
                } else if let Some(result) = layer.rust(call, &mut buffers, &Asked::default()) {
                    assert_eq!(result, Ok(()));
                }
                if matches!(call, Call::Pass(_) | Call::Ended(_)) {
                    assert_untouched(&layer, &Asked::default(), &buffers, &before);
                }
                rows.0 += 1;
            }
            for (i, (buffer, in_c)) in layer.buffers(call, false).iter().zip(layer.buffers(call, true)).enumerate() {
                for empty in [false, true] {
                    // An instruction set without vectors may need no workspace.
                    let (argument, required) = (buffer.name, buffer.memory.len());
                    if required == 0 {
                        continue;
                    }
                    let left = |len: usize| if empty { 0 } else { len - 1 };
                    let shorten = |buffers: &mut Vec<Buffer>| {
                        let memory = &mut buffers[i].memory;
                        memory.truncate(left(memory.len()));
                    };
                    let elementwise = matches!(call, Call::AdareluForward | Call::AdareluBackward);
                    let error = |c: bool| match argument {
                        "input" if elementwise => {
                            Error::ThresholdShape { elements: left(ELEMENTS), thresholds: THETAS, inner: INNER }
                        }
                        "thresholds" if elementwise => {
                            Error::ThresholdShape { elements: ELEMENTS, thresholds: left(THETAS), inner: INNER }
                        }
                        _ => {
                            let required = if c { in_c.memory.len() } else { required };
                            Error::BufferTooShort { argument, len: left(required), required }
                        }
                    };
                    // The elementwise calls see no length that is wrong by itself.
                    let shape = elementwise && matches!(argument, "input" | "thresholds");
                    let words = [if shape { "thresholds" } else { argument }, &left(required).to_string()];
                    assert_sentence(&error(false).to_string(), &words);
                    if elementwise && argument == "input" && empty {
                        // No elements at all are a tensor.
                    } else if matches!(call, Call::Pass(pass) | Call::Ended(pass) if is_packed(pass))
                        && argument == "weight"
                    {
                        // In Rust they have a type.
                        let sentence = error(true).to_string();
                        let refused = (CONVRELU_BUFFER_TOO_SHORT, &sentence[..]);
                        rows.refused_by_c(&layer, call, shorten, |_| (), refused);
                    } else {
                        rows.refused(&layer, call, shorten, &Asked::default(), error);
                    }
                }
            }
        }
    }
    println!("lengths: {} rows", rows.0);
    assert!(rows.0 > 1000);
}

/// An empty batch is no mistake: outputs are empty, gradients zero.
#[test]
fn an_empty_batch() {
    for desc in layers() {
        for (isa, new) in
            Isa::available().flat_map(|isa| [(isa, Layer::new as fn(_, _) -> _), (isa, Layer::transposed)])
        {
            let layer = new(desc.with_batch(0).unwrap(), isa);
            for call in layer.calls().filter(|call| matches!(call, Call::Pass(_) | Call::Ended(_))) {
                for c in [false, true] {
                    let mut buffers = layer.buffers(call, c);
                    if c {
                        let (status, message) = Raw::new(&layer, call, &mut buffers).call();
                        assert_eq!(status, CONVRELU_OK, "{message}");
                    } else {
                        assert_eq!(layer.rust(call, &mut buffers, &Asked::default()), Some(Ok(())));
                    }
                    let zeros = |buffers: &[Buffer]| {
                        for buffer in buffers.iter().filter(|buffer| buffer.is_result()) {
                            let zero = buffer.memory.iter().all(|value| value.to_bits() == 0);
                            assert!(zero, "{} of {call:?}", buffer.name);
                        }
                    };
                    zeros(&buffers);
                    if c {
                        // What has no elements may be null.
                        let mut buffers = layer.buffers(call, c);
                        let mut raw = Raw::new(&layer, call, &mut buffers);
                        raw.buffers
                            .iter_mut()
                            .filter(|(.., len)| *len == 0)
                            .for_each(|(_, data, _)| *data = ptr::null_mut());
                        let (status, message) = raw.call();
                        assert_eq!(status, CONVRELU_OK, "{message}");
                        zeros(&buffers);
                    }
                }
            }
        }
    }
}
