//! What a call may leave out: its input, gradients, the bias, the parts of an epilogue. Rust and C must give the same bits.

use std::ptr;

use convrelu::capi::convrelu_status::*;
use convrelu::capi::*;
use convrelu::{Error, Pass};

use crate::call::{Asked, BOUNDS, Buffer, Call};
use crate::common::PASSES;
use crate::layer::Layer;
use crate::layers::{benches, transposed_benches};
use crate::rows::{Rows, assert_sentence, results_of_both};
use crate::structs::stale_lens;
use crate::translate::number;

/// What a call needs no input for, and what it does.
#[test]
fn missing_input() {
    let mut rows = Rows::default();
    let sentence = Error::MissingInput.to_string();
    assert_sentence(&sentence, &["input", "missing", "−∞"]);
    for layer in benches() {
        for call in [Call::Pass(Pass::BackwardInput), Call::Pass(Pass::BackwardInputPacked)] {
            let without = &["input"][..];
            for uniform in [None, Some(0.0), Some(-0.0), Some(f32::MIN), Some(f32::INFINITY)] {
                let asked = Asked { uniform, without, ..Asked::default() };
                rows.refused(&layer, call, |_| (), &asked, |_| Error::MissingInput);
            }
            // One threshold per tap decides by the input, whatever it is.
            let asked = Asked { without, ..Asked::default() };
            let lowest = |buffers: &mut Vec<Buffer>| buffers[2].memory.fill(f32::NEG_INFINITY);
            rows.refused(&layer, call, lowest, &asked, |_| Error::MissingInput);
            // With it or without, a plain convolution has the same gradients.
            let results = [&[][..], without].map(|without| {
                let asked = Asked { without, ..Asked::uniform(f32::NEG_INFINITY) };
                results_of_both(&layer, call, &asked)
            });
            assert!(results[0] == results[1], "{call:?} on {}: {:?}", layer.plan.isa(), layer.plan.desc());
            rows.0 += 2;
        }
    }
    println!("missing input: {} rows", rows.0);
    assert!(rows.0 > 400);
}

/// Each gradient is left out, is written anew, or is added to, whatever becomes of the other.
#[test]
fn each_gradient_is_optional() {
    let mut rows = 0;
    let mut bits_of = |layer: &Layer, call, asked: &Asked<'_>| {
        rows += 2;
        results_of_both(layer, call, asked)
    };
    for layer in benches() {
        for pass in [Pass::BackwardInput, Pass::BackwardInputPacked, Pass::BackwardWeight] {
            let call = Call::Pass(pass);
            let names = match pass {
                Pass::BackwardWeight => ["grad_weight", "grad_bias"],
                _ => ["grad_input", "grad_thresholds"],
            };
            let all = bits_of(&layer, call, &Asked::default());
            for (which, name) in names.iter().enumerate() {
                let asked = Asked { without: &[name], ..Asked::default() };
                let found = bits_of(&layer, call, &asked);
                assert!(found[1 - which] == all[1 - which], "without {name} on {}", layer.plan.isa());
            }
            bits_of(&layer, call, &Asked { without: &names, ..Asked::default() });
            for which in 0..2 {
                let mut adds = [false; 2];
                adds[which] = true;
                // What is there is a NaN, to which nothing can be added.
                let found = bits_of(&layer, call, &Asked { adds, ..Asked::default() });
                assert!(found[1 - which] == all[1 - which], "adding to {} on {}", names[which], layer.plan.isa());
                assert!(found[which].iter().all(|&value| f32::from_bits(value).is_nan()), "{}", names[which]);
            }
        }
    }
    println!("optional gradients: {rows} rows");
    assert!(rows > 400);
}

/// Every part of an epilogue, in Rust and in C; and bounds that are none.
#[test]
fn epilogues() {
    let mut rows = Rows::default();
    for layer in benches() {
        for pass in [Pass::Forward, Pass::ForwardPacked] {
            let (call, whole) = (Call::Ended(pass), [f32::NEG_INFINITY, f32::INFINITY]);
            let plain = results_of_both(&layer, Call::Pass(pass), &Asked::default());
            for parts in 0..16 {
                let names = ["scale", "shift", "residual"];
                let mut without: Vec<_> = (0..3).filter(|i| parts >> i & 1 == 0).map(|i| names[i]).collect();
                let adds = [parts & 8 != 0, false];
                if adds[0] && !without.contains(&"residual") {
                    without.push("residual");
                }
                let found = [None, Some(whole)].map(|bounds| {
                    let asked = Asked { without: &without, adds, bounds, ..Asked::default() };
                    results_of_both(&layer, call, &asked)
                });
                rows.0 += 4;
                // Gaps hold what they held before.
                let ([_, output], desc) = (layer.tensors(), layer.plan.desc());
                let values = |bits: &[Vec<u32>]| -> Vec<f32> {
                    let values = bits[0].iter().enumerate().filter(|(i, _)| !output.is_gap(desc, *i));
                    values.map(|(_, bits)| f32::from_bits(*bits)).collect()
                };
                let [clamped, free, plain] = [&found[0], &found[1], &plain].map(|bits| values(bits));
                assert!(clamped.iter().zip(&free).all(|(clamped, free)| *clamped == free.clamp(BOUNDS[0], BOUNDS[1])));
                assert_eq!(plain == free, without.len() == 3 && !adds[0], "{without:?} {adds:?}");
            }
            for (bounds, error) in [
                ([f32::NAN, 1.0], Error::NanBound { argument: "low" }),
                ([1.0, -f32::NAN], Error::NanBound { argument: "high" }),
                ([1.0, 0.5], Error::BoundsCrossed { low: 1.0, high: 0.5 }),
                ([f32::INFINITY, f32::NEG_INFINITY], Error::BoundsCrossed { low: whole[1], high: whole[0] }),
            ] {
                let asked = Asked { bounds: Some(bounds), ..Asked::default() };
                rows.refused(&layer, call, |_| (), &asked, |_| error);
            }
        }
    }
    println!("epilogues: {} rows", rows.0);
    assert!(rows.0 > 4000);
}

/// Transposed convolutions in C: lengths, and the bits of Rust's for each gradient that is left out, written anew or added to.
#[test]
fn transposed_convolutions() {
    let mut rows = 0;
    for layer in transposed_benches() {
        let mut lens = stale_lens();
        // SAFETY: pointers to what they say.
        assert_eq!(unsafe { convrelu_plan_lens(&layer.c, &mut lens, ptr::null_mut()) }, CONVRELU_OK);
        let plan = layer.transposed.as_ref().unwrap();
        let desc = plan.desc();
        let found = [lens.input, lens.output, lens.weight, lens.thresholds, lens.bias];
        assert_eq!(found, [desc.input_len(), desc.output_len(), desc.weight_len(), 0, desc.bias_len()]);
        assert_eq!(lens.output_size, desc.output_size());
        let packed = [plan.packed_weight_len(), plan.packed_weight_transposed_len()].map(|len| len + 16);
        assert_eq!([lens.packed_weight, lens.packed_weight_transposed], packed);
        for pass in PASSES {
            let mut len = 0;
            // SAFETY: as above.
            let status = unsafe { convrelu_workspace_len(&layer.c, number(pass), &mut len, ptr::null_mut()) };
            assert_eq!((status, len), (CONVRELU_OK, plan.workspace_len(pass)));
            let optional: &[&str] = match pass {
                Pass::Forward | Pass::ForwardPacked => &["bias"],
                Pass::BackwardWeight => &["grad_weight", "grad_bias"],
                _ => &["grad_input"],
            };
            let mut different = Vec::new();
            for adds in [[false; 2], [true, false], [false, true], [true; 2]] {
                for without in [&[], &optional[..1], &optional[optional.len() - 1..], optional] {
                    different.push(results_of_both(
                        &layer,
                        Call::Pass(pass),
                        &Asked { without, adds, ..Asked::default() },
                    ));
                    rows += 2;
                }
            }
            assert!(different[0] != different[3], "{pass:?}: what is left out is not missed");
        }
    }
    println!("transposed convolutions: {rows} rows");
    assert!(rows > 2000);
}
