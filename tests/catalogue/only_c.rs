//! What Rust's types exclude and only a C caller can get wrong: pointers, sizes of structs, numbers without meaning, overlaps.

use std::ptr;

use convrelu::capi::convrelu_status::{self as Status, *};
use convrelu::capi::*;
use convrelu::{ConvDesc, Error, Isa, Pass};

use crate::call::{Buffer, Call, ELEMENTS, INNER, THETAS, snapshot};
use crate::layer::Layer;
use crate::layers::{layers, small};
use crate::raw::{Pointer, Raw};
use crate::rows::{Rows, assert_plan_is_refused, assert_sentence};
use crate::structs::{good_desc, no_epilogue};
use crate::translate::{isa_number, status_of};

/// Pointers, sizes, reserved fields, numbers that name nothing, overlaps: what Rust's types exclude.
#[test]
fn what_only_c_can_get_wrong() {
    let mut rows = Rows::default();
    let nothing = |_: &mut Vec<Buffer>| ();
    let descs = [small(), layers().nth(3).unwrap()];
    let of = |layer: fn(ConvDesc, Isa) -> Layer| descs.map(|desc| layer(desc, Isa::detect()));
    for layer in of(Layer::new).into_iter().chain(of(Layer::transposed)) {
        let transposed = layer.transposed.is_some();
        for call in layer.calls() {
            let mut probe = layer.buffers(call, true);
            let raw = Raw::new(&layer, call, &mut probe);
            let mut check = |tamper: &dyn Fn(&mut Raw), status: Status, sentence: &str| {
                rows.refused_by_c(&layer, call, nothing, tamper, (status, sentence));
            };
            if raw.has_plan() {
                check(&|raw| raw.plan_at = Pointer::Null, CONVRELU_NULL, "plan is null: it must point to something");
                spoiled_plans(|spoil, status, sentence| {
                    check(&|raw| spoil(&mut raw.plan), status, sentence);
                    let mut plan = layer.c;
                    spoil(&mut plan);
                    assert_plan_is_refused(&plan, (status, sentence));
                });
            }
            if raw.has_args() {
                check(&|raw| raw.args_at = Pointer::Null, CONVRELU_NULL, "args is null: it must point to something");
                for size in [0, 8, usize::MAX] {
                    let expected = args_size(call);
                    let sentence = struct_size("args", size, expected);
                    check(&|raw| raw.args_size = Some(size), CONVRELU_STRUCT_SIZE, &sentence);
                }
                for field in 0..20 {
                    let sentence = "a reserved field of args is not 0: it must be";
                    check(&|raw| raw.reserved = Some(field), CONVRELU_RESERVED, sentence);
                }
            }
            for (name, ..) in raw.buffers.clone() {
                let optional = matches!(call, Call::Pass(_) | Call::Ended(_))
                    && (["bias", "scale", "shift", "residual"].contains(&name) || name.starts_with("grad_"))
                    && name != "grad_output";
                if name == "input" && matches!(call, Call::Pass(Pass::BackwardInput | Pass::BackwardInputPacked)) {
                    let sentence = Error::MissingInput.to_string();
                    check(&|raw| raw.buffer(name).1 = ptr::null_mut(), CONVRELU_MISSING_INPUT, &sentence);
                } else if !optional {
                    let sentence = format!("{name} is null: it must point to something");
                    check(&|raw| raw.buffer(name).1 = ptr::null_mut(), CONVRELU_NULL, &sentence);
                }
                // Null and no elements are a buffer without any, which is too short.
                let required = raw.clone().buffer(name).2;
                let nothing = |raw: &mut Raw| (raw.buffer(name).1, raw.buffer(name).2) = (ptr::null_mut(), 0);
                let error = match call {
                    Call::Pass(Pass::BackwardInput | Pass::BackwardInputPacked) if name == "input" => {
                        Some(Error::MissingInput)
                    }
                    Call::AdareluForward | Call::AdareluBackward if name == "input" => None,
                    Call::AdareluForward | Call::AdareluBackward if name == "thresholds" => {
                        Some(Error::ThresholdShape { elements: ELEMENTS, thresholds: 0, inner: INNER })
                    }
                    _ if optional => None,
                    _ => Some(Error::BufferTooShort { argument: name, len: 0, required }),
                };
                if let Some(error) = error {
                    check(&nothing, status_of(error), &error.to_string());
                }
                for len in [isize::MAX as usize / 4 + 1, usize::MAX / 4 + 2, usize::MAX] {
                    let sentence = Error::Overflow { quantity: name }.to_string();
                    check(&|raw| raw.buffer(name).2 = len, CONVRELU_OVERFLOW, &sentence);
                }
            }
            if matches!(call, Call::Pass(_)) && transposed {
                for number in [CONVRELU_THRESHOLDS_PER_TAP, CONVRELU_THRESHOLDS_RELU, CONVRELU_THRESHOLDS_UNIFORM, 5] {
                    let sentence = format!(
                        "threshold_kind is {number}: a transposed convolution has no thresholds, \
                         so it must be unset or CONVRELU_THRESHOLDS_LINEAR"
                    );
                    check(&|raw| raw.threshold_kind = number, CONVRELU_NOT_APPLICABLE, &sentence);
                }
                let given = |name: &str| format!("{name} is given: it must be null for a transposed convolution");
                if matches!(call, Call::Pass(Pass::Forward | Pass::ForwardPacked)) {
                    check(&|raw| raw.epilogue_at = Pointer::Good, CONVRELU_NOT_APPLICABLE, &given("epilogue"));
                }
                if matches!(call, Call::Pass(Pass::BackwardInput | Pass::BackwardInputPacked)) {
                    let mut own = [0.0];
                    let data = own.as_mut_ptr();
                    let give = |raw: &mut Raw| raw.buffers.push(("grad_thresholds", data, 1));
                    check(&give, CONVRELU_NOT_APPLICABLE, &given("grad_thresholds"));
                }
            } else if matches!(call, Call::Pass(_) | Call::Ended(_)) {
                for number in [5, u32::MAX] {
                    let sentence = invalid("threshold_kind", number);
                    check(&|raw| raw.threshold_kind = number, CONVRELU_INVALID_VALUE, &sentence);
                }
                let unset = "threshold_kind is unset: it must be set to CONVRELU_THRESHOLDS_PER_TAP, \
                             CONVRELU_THRESHOLDS_LINEAR, CONVRELU_THRESHOLDS_RELU or CONVRELU_THRESHOLDS_UNIFORM";
                check(&|raw| raw.threshold_kind = CONVRELU_THRESHOLDS_UNSET, CONVRELU_INVALID_VALUE, unset);
            }
            if matches!(call, Call::Ended(_)) {
                for size in [0, 8, usize::MAX] {
                    let sentence = struct_size("epilogue", size, size_of::<convrelu_epilogue>());
                    check(&|raw| raw.epilogue.struct_size = size, CONVRELU_STRUCT_SIZE, &sentence);
                }
                for field in 0..no_epilogue().reserved.len() {
                    let sentence = "a reserved field of epilogue is not 0: it must be";
                    check(&|raw| raw.epilogue.reserved[field] = 1, CONVRELU_RESERVED, sentence);
                }
                for number in [2, u32::MAX] {
                    let sentence = invalid("output_accumulation", number);
                    check(&|raw| raw.epilogue.output_accumulation = number, CONVRELU_INVALID_VALUE, &sentence);
                }
                let both = "residual is given: it must be null where output_accumulation is CONVRELU_ADD";
                check(&|raw| raw.epilogue.output_accumulation = CONVRELU_ADD, CONVRELU_NOT_APPLICABLE, both);
            }
            if matches!(call, Call::Ended(_)) || matches!(call, Call::Pass(pass) if pass != Pass::BackwardWeight) {
                check(&|raw| raw.weight_kind = 2, CONVRELU_INVALID_VALUE, &invalid("weight_kind", 2));
            }
            for (which, argument) in accumulations(call).into_iter().enumerate() {
                for number in [2, u32::MAX] {
                    let sentence = invalid(argument, number);
                    check(&|raw| raw.accumulation[which] = number, CONVRELU_INVALID_VALUE, &sentence);
                }
            }
            if matches!(call, Call::Pack(_) | Call::CheckPacked(_)) {
                for number in [CONVRELU_BACKWARD_WEIGHT, 5, u32::MAX] {
                    check(&|raw| raw.pass = number, CONVRELU_INVALID_VALUE, &invalid("pass", number));
                }
            }
            if matches!(call, Call::AdareluForward | Call::AdareluBackward) {
                for inner in [0, 4, usize::MAX] {
                    let error = Error::ThresholdShape { elements: ELEMENTS, thresholds: THETAS, inner };
                    check(&|raw| raw.inner = inner, CONVRELU_THRESHOLD_SHAPE, &error.to_string());
                }
            }
            // A call that could not report is not made.
            check(&|raw| raw.error_at = Pointer::Misaligned, CONVRELU_MISALIGNED, "");
            for size in [0, 8, size_of::<convrelu_error>() + 8] {
                check(&|raw| raw.error_size = size, CONVRELU_STRUCT_SIZE, "");
            }
            misaligned(&mut rows, &layer, call);
            overlapping(&mut rows, &layer, call);
        }
    }
    println!("C alone: {} rows", rows.0);
    assert!(rows.0 > 1000);
}

/// Pointers that are not aligned to their types; addresses differ from run to run, and so do the sentences.
fn misaligned(rows: &mut Rows, layer: &Layer, call: Call) {
    let names: Vec<_> = layer.buffers(call, true).iter().map(|buffer| buffer.name).collect();
    let mut check = |name: &str, tamper: &dyn Fn(&mut Raw) -> Option<usize>| {
        let mut buffers = layer.buffers(call, true);
        let before = snapshot(&buffers);
        let mut raw = Raw::new(layer, call, &mut buffers);
        let address = tamper(&mut raw);
        let (status, message) = raw.call();
        assert_eq!(status, CONVRELU_MISALIGNED, "{name} of {call:?}: {message}");
        assert_sentence(&message, &[name, "aligned"]);
        if let Some(address) = address {
            assert_sentence(&message, &[&format!("{address:#x}")]);
        }
        assert!(snapshot(&buffers) == before);
        rows.0 += 1;
    };
    for name in names {
        for bytes in 1..size_of::<f32>() {
            check(name, &|raw| {
                let (_, data, len) = raw.buffer(name);
                // One element less: the rest of it lies elsewhere.
                (*data, *len) = (data.wrapping_byte_add(bytes), *len - 1);
                Some(data.addr())
            });
        }
    }
    let mut probe = layer.buffers(call, true);
    let raw = Raw::new(layer, call, &mut probe);
    if raw.has_plan() {
        check("plan", &|raw| {
            raw.plan_at = Pointer::Misaligned;
            None
        });
    }
    if raw.has_args() {
        check("args", &|raw| {
            raw.args_at = Pointer::Misaligned;
            None
        });
    }
    if matches!(call, Call::Ended(_)) {
        check("epilogue", &|raw| {
            raw.epilogue_at = Pointer::Misaligned;
            None
        });
    }
}

/// Whatever is written, on top of everything else: whole, by its last element, by its first one.
fn overlapping(rows: &mut Rows, layer: &Layer, call: Call) {
    let buffers = layer.buffers(call, true);
    for (i, written) in buffers.iter().enumerate().filter(|(_, buffer)| buffer.written) {
        for (j, other) in buffers.iter().enumerate().filter(|&(j, _)| j != i) {
            let (len, other_len) = (written.memory.len(), other.memory.len());
            for at in [0, other_len - 1] {
                // The other buffer, with room behind it for all of the written one.
                let spoil = |buffers: &mut Vec<Buffer>| buffers[j].memory.resize(other_len + len, 0.25);
                let tamper = |raw: &mut Raw| {
                    raw.buffers[j].2 = other_len;
                    raw.buffers[i].1 = raw.buffers[j].1.wrapping_add(at);
                };
                // Of two that are written, the later one is named first.
                let (first, second) =
                    if other.written && j > i { (other.name, written.name) } else { (written.name, other.name) };
                let sentence = format!("{first} overlaps {second}: what is written must lie apart");
                rows.refused_by_c(layer, call, spoil, tamper, (CONVRELU_OVERLAP, &sentence));
            }
            // One behind the other is apart.
            let mut apart = layer.buffers(call, true);
            apart[j].memory.resize(other_len + len, 0.25);
            let mut raw = Raw::new(layer, call, &mut apart);
            raw.buffers[j].2 = other_len;
            raw.buffers[i].1 = raw.buffers[j].1.wrapping_add(other_len);
            let (status, message) = raw.call();
            assert_eq!(status, CONVRELU_OK, "{message}");
        }
    }
}

/// What the fields are called that say what becomes of the values of each gradient.
fn accumulations(call: Call) -> Vec<&'static str> {
    match call {
        Call::Pass(Pass::BackwardInput | Pass::BackwardInputPacked) => {
            vec!["grad_input_accumulation", "grad_thresholds_accumulation"]
        }
        Call::Pass(Pass::BackwardWeight) => vec!["grad_weight_accumulation", "grad_bias_accumulation"],
        Call::AdareluBackward => vec!["accumulation"],
        _ => vec![],
    }
}

fn invalid(argument: &str, value: u32) -> String {
    format!("{argument} is {value}: it must be one of the values that the header lists")
}

fn struct_size(argument: &str, size: usize, expected: usize) -> String {
    format!("{argument}.struct_size is {size}: it must be {expected} for this version of the library")
}

fn args_size(call: Call) -> usize {
    match call {
        Call::Pass(Pass::Forward | Pass::ForwardPacked) | Call::Ended(_) => size_of::<convrelu_forward_args>(),
        Call::Pass(Pass::BackwardInput | Pass::BackwardInputPacked) => size_of::<convrelu_backward_input_args>(),
        Call::Pass(Pass::BackwardWeight) => size_of::<convrelu_backward_weight_args>(),
        _ => size_of::<convrelu_adarelu_backward_args>(),
    }
}

/// Plans that are none.
fn spoiled_plans(mut check: impl FnMut(&dyn Fn(&mut convrelu_plan), Status, &str)) {
    let (plan_size, desc_size) = (size_of::<convrelu_plan>(), size_of::<convrelu_desc>());
    for size in [0, 8, plan_size - 8, plan_size + 8, usize::MAX] {
        check(&|plan| plan.struct_size = size, CONVRELU_STRUCT_SIZE, &struct_size("plan", size, plan_size));
        check(&|plan| plan.desc.struct_size = size, CONVRELU_STRUCT_SIZE, &struct_size("desc", size, desc_size));
    }
    let reserved = |name: &str| format!("a reserved field of {name} is not 0: it must be");
    for field in 0..good_desc(1, CONVRELU_NCHW).reserved.len() {
        check(&|plan| plan.desc.reserved[field] = 1, CONVRELU_RESERVED, &reserved("desc"));
    }
    for field in 0..4 {
        check(&|plan| plan.reserved[field] = 1, CONVRELU_RESERVED, &reserved("plan"));
    }
    for magic in [0u32, 1, u32::MAX] {
        let sentence = format!("plan.magic is {magic:#x}: convrelu_plan_init must have made the plan");
        check(&|plan| plan.magic = magic, CONVRELU_NOT_A_PLAN, &sentence);
    }
    for isa in [CONVRELU_ISA_AUTO, 6, u32::MAX] {
        check(&|plan| plan.isa = isa, CONVRELU_INVALID_VALUE, &invalid("isa", isa));
    }
    for isa in [Isa::Neon, Isa::Avx2, Isa::Avx512, Isa::Simd128] {
        if !isa.is_available() {
            let sentence = Error::IsaUnavailable { isa }.to_string();
            assert!(sentence.contains(isa.name()), "{sentence}");
            check(&|plan| plan.isa = isa_number(isa), CONVRELU_ISA_UNAVAILABLE, &sentence);
        }
    }
    for rank in [0, 4, u32::MAX] {
        check(&|plan| plan.desc.rank = rank, CONVRELU_INVALID_VALUE, &invalid("rank", rank));
    }
    for layout in [2, u32::MAX] {
        check(&|plan| plan.desc.layout = layout, CONVRELU_INVALID_VALUE, &invalid("layout", layout));
    }
    for kind in [2, u32::MAX] {
        check(&|plan| plan.desc.kind = kind, CONVRELU_INVALID_VALUE, &invalid("kind", kind));
    }
    let padded = |plan: &mut convrelu_plan| (plan.desc.kind, plan.desc.output_padding[0]) = (CONVRELU_CONVOLUTION, 7);
    check(&padded, CONVRELU_NOT_APPLICABLE, "output_padding is 7: it must be 0 but for CONVRELU_TRANSPOSED");
}
