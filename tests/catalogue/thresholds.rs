//! Thresholds that are NaN, that have a name, and that are one for all taps.

use std::ptr;

use convrelu::capi::convrelu_status::*;
use convrelu::capi::*;
use convrelu::{Error, Pass};

use crate::call::{Asked, Buffer, Call, STALE, bits};
use crate::common::{PASSES, Theta};
use crate::layers::benches;
use crate::raw::Raw;
use crate::rows::{Rows, assert_sentence, results_of_both};

/// A threshold that orders nothing, at either end or everywhere.
#[test]
fn nan_thresholds() {
    let mut rows = Rows::default();
    for layer in benches() {
        for call in layer.calls() {
            let Some(at) = layer.buffers(call, false).iter().position(|buffer| buffer.name == "thresholds") else {
                continue;
            };
            let last = layer.buffers(call, false)[at].memory.len() - 1;
            for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
                for index in [0, last] {
                    let error = Error::NanThreshold { index };
                    assert_sentence(&error.to_string(), &[&format!("thresholds[{index}]"), "NaN"]);
                    let spoil = |buffers: &mut Vec<Buffer>| buffers[at].memory[index] = nan;
                    rows.refused(&layer, call, spoil, &Asked::default(), |_| error);
                }
                if matches!(call, Call::Pass(_) | Call::Ended(_)) {
                    let asked = Asked::uniform(nan);
                    rows.refused_by_rust(&layer, call, |_| (), &asked, Error::NanThreshold { index: 0 });
                    // As an initialiser leaves it, as a rule.
                    let sentence = "threshold is NaN: for CONVRELU_THRESHOLDS_UNIFORM it must be set to a number";
                    let refused = (CONVRELU_NAN_THRESHOLD, sentence);
                    rows.refused_by_c(&layer, call, |_| (), |raw| raw.ask(&asked), refused);
                }
            }
        }
    }
    println!("NaN thresholds: {} rows", rows.0);
    assert!(rows.0 > 100);
}

/// Thresholds that have a name are the uniform ones of their number; neither number nor buffer is looked at where it is not asked
/// for.
#[test]
fn kinds_of_thresholds() {
    let mut rows = 0;
    for layer in benches() {
        for pass in PASSES {
            let results = |tamper: &dyn Fn(&mut Raw)| {
                let mut buffers = layer.buffers(Call::Pass(pass), true);
                let mut raw = Raw::new(&layer, Call::Pass(pass), &mut buffers);
                tamper(&mut raw);
                let (status, message) = raw.call();
                assert_eq!(status, CONVRELU_OK, "{message}");
                let written = buffers.iter().filter(|buffer| buffer.is_result());
                written.map(|buffer| bits(&buffer.memory)).collect::<Vec<_>>()
            };
            for (kind, theta) in [(CONVRELU_THRESHOLDS_LINEAR, f32::NEG_INFINITY), (CONVRELU_THRESHOLDS_RELU, 0.0)] {
                let uniform = |raw: &mut Raw| {
                    (raw.threshold_kind, raw.threshold) = (CONVRELU_THRESHOLDS_UNIFORM, theta);
                };
                let expected = results(&uniform);
                for number in [f32::NAN, 0.25] {
                    let named = |raw: &mut Raw| (raw.threshold_kind, raw.threshold) = (kind, number);
                    assert!(results(&named) == expected);
                    // Whatever the buffer of thresholds is.
                    for (data, len) in [(ptr::null_mut(), 0), (ptr::null_mut(), 1), (ptr::dangling_mut(), usize::MAX)] {
                        let without = |raw: &mut Raw| {
                            named(raw);
                            (raw.buffer("thresholds").1, raw.buffer("thresholds").2) = (data, len);
                        };
                        assert!(results(&without) == expected);
                        rows += 1;
                    }
                }
            }
        }
    }
    println!("kinds of thresholds: {rows} rows");
    assert!(rows > 400);
}

/// The gradient of a uniform threshold is one element; what lies behind it is not written.
#[test]
fn the_gradient_of_a_uniform_threshold() {
    let mut rows = Rows::default();
    for layer in benches() {
        for theta in [0.25, 0.0, f32::NEG_INFINITY] {
            let layer = layer.with_case(&layer.case.clone().with_theta(Theta::Uniform(theta)));
            for pass in [Pass::BackwardInput, Pass::BackwardInputPacked] {
                let call = Call::Pass(pass);
                let found = results_of_both(&layer, call, &Asked::default());
                assert_eq!(found[1].len(), 1);
                rows.0 += 2;
                let argument = "grad_thresholds";
                let error = Error::BufferTooShort { argument, len: 0, required: 1 };
                assert_sentence(&error.to_string(), &[argument, "0", "1"]);
                let empty = |buffers: &mut Vec<Buffer>| buffers[5].memory.clear();
                rows.refused(&layer, call, empty, &Asked::default(), |_| error);
                // As long as that of one per tap.
                let mut longer = layer.buffers(call, true);
                longer[5].memory.resize(layer.plan.desc().threshold_len(), STALE);
                let (status, message) = Raw::new(&layer, call, &mut longer).call();
                assert_eq!(status, CONVRELU_OK, "{message}");
                assert_eq!(bits(&longer[5].memory[..1]), found[1]);
                assert!(longer[5].memory[1..].iter().all(|value| value.to_bits() == STALE.to_bits()));
            }
        }
    }
    println!("uniform thresholds: {} rows", rows.0);
    assert!(rows.0 > 400);
}
