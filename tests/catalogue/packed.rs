//! Packed weights of another plan, damaged ones, and what is none.

use convrelu::capi::convrelu_status::{self as Status, *};
use convrelu::{
    BackwardInput, ConvRelu, Error, Forward, Gradient, InputGradients, Isa, Pass, Serial, Thresholds, Weight,
};

use crate::call::{Buffer, Call, STALE};
use crate::common::{Case, Values, isas};
use crate::layer::Layer;
use crate::layers::{benches, layers, transposed_benches};
use crate::rehash;
use crate::rows::{Rows, assert_sentence};

/// Changes a word of the header of packed weights, and its hash so that it looks whole.
fn forge(packed: &mut [f32], word: usize, value: u32) {
    packed[word] = f32::from_bits(value);
    rehash::rehash(packed);
}

/// Weights packed for another layer, pass, instruction set or version, damaged ones, and what was never packed.
#[test]
fn packed_weights() {
    let mut rows = Rows::default();
    const NOT_PACKED: &str = "weight holds no packed weights, or their header is damaged: \
                              it must be what convrelu_pack_weight wrote";
    for layer in benches().chain(transposed_benches()) {
        let isa = layer.plan.isa();
        let like = if layer.transposed.is_some() { Layer::transposed } else { Layer::new };
        let unlike = if layer.transposed.is_some() { Layer::new } else { Layer::transposed };
        let elsewhere = |packed: Isa| Error::PackedElsewhere { packed, plan: isa };
        for pass in [Pass::ForwardPacked, Pass::BackwardInputPacked] {
            let call = Call::Pass(pass);
            let other_pass = if pass == Pass::ForwardPacked { Pass::BackwardInputPacked } else { Pass::ForwardPacked };
            let mut check = |call: Call, packed: &[f32], (status, sentence): (Status, &str)| {
                let spoil = |buffers: &mut Vec<Buffer>| {
                    let weight = buffers.iter_mut().find(|buffer| buffer.name == "weight");
                    weight.unwrap().memory = packed.to_vec();
                };
                rows.refused_by_c(&layer, call, spoil, |_| (), (status, sentence));
            };
            let good = layer.packed(pass).to_vec();
            for call in [call, Call::CheckPacked(pass)] {
                let mut refused_elsewhere = |packed: &[f32], by: Isa| {
                    let sentence = elsewhere(by).to_string();
                    assert_sentence(&sentence, &["weight", by.name(), isa.name()]);
                    check(call, packed, (CONVRELU_PACKED_ELSEWHERE, &sentence));
                };
                refused_elsewhere(layer.packed(other_pass), isa);
                let desc = layer.plan.desc();
                for other in layers().filter(|other| other != desc) {
                    refused_elsewhere(like(other, isa).packed(pass), isa);
                }
                for other in Isa::available().filter(|&other| other != isa) {
                    refused_elsewhere(like(*desc, other).packed(pass), other);
                }
                // What runs as the same pass of the same kernels is another layer's all the same.
                for pass in [pass, other_pass] {
                    refused_elsewhere(unlike(*desc, isa).packed(pass), isa);
                }
                // Version, instruction set, pass, and the two halves of the layer's hash.
                for word in [1, 2, 3, 5, 6] {
                    let mut forged = good.clone();
                    let value = if word == 2 { 5 } else { good[word].to_bits() ^ 1 };
                    forge(&mut forged, word, value);
                    refused_elsewhere(&forged, if word == 2 { Isa::Simd128 } else { isa });
                }
                // Elements that begin farther on than there are.
                for skipped in [16, 1 << 20, u32::MAX] {
                    let mut forged = good.clone();
                    forge(&mut forged, 4, skipped);
                    check(call, &forged, (CONVRELU_NOT_PACKED, NOT_PACKED));
                }
                for word in 0..16 {
                    for bit in [0, 13, 31] {
                        let mut damaged = good.clone();
                        damaged[word] = f32::from_bits(good[word].to_bits() ^ (1 << bit));
                        check(call, &damaged, (CONVRELU_NOT_PACKED, NOT_PACKED));
                    }
                }
                for nothing in [0.0, 1.0, f32::NAN, f32::from_bits(u32::MAX)] {
                    check(call, &vec![nothing; good.len()], (CONVRELU_NOT_PACKED, NOT_PACKED));
                }
            }
            // Elements are not looked at by every call.
            for at in [16 + good[4].to_bits() as usize, 17 + good[4].to_bits() as usize] {
                let mut damaged = good.clone();
                damaged[at] = f32::from_bits(good[at].to_bits() ^ 1);
                check(Call::CheckPacked(pass), &damaged, (CONVRELU_NOT_PACKED, NOT_PACKED));
            }
        }
    }
    println!("packed weights: {} rows", rows.0);
    assert!(rows.0 > 1000);
}

/// The same in Rust, whose types leave another layer, pass and instruction set.
#[test]
fn packed_weights_in_rust() {
    let mut rows = 0;
    let plans = || layers().flat_map(|desc| isas().map(move |isa| ConvRelu::with_isa(desc, isa).unwrap()));
    for plan in plans() {
        let case = Case::new(*plan.desc(), Values::Continuous, 32);
        let desc = plan.desc();
        for packer in plans() {
            for transposed in [false, true] {
                let weight = vec![0.5; packer.desc().weight_len()];
                let len = packer.packed_weight_len().max(packer.packed_weight_transposed_len());
                let mut memory = vec![0.0; len];
                let pack = if transposed { ConvRelu::pack_weight_transposed } else { ConvRelu::pack_weight };
                let packed = pack(&packer, &weight, &mut memory).unwrap();
                let (input, thresholds, weight) = (&case.input[..], Thresholds::RELU, Weight::Packed(&packed));
                let mut outputs = [vec![STALE; desc.output_len()], vec![STALE; desc.input_len()]];
                let mut workspace =
                    [Pass::ForwardPacked, Pass::BackwardInputPacked].map(|pass| vec![STALE; plan.workspace_len(pass)]);
                let [y, dx] = &mut outputs;
                let operands = BackwardInput::new(input, weight, thresholds, &case.grad_output);
                let gradients = InputGradients::new().input(Gradient::overwrite(dx));
                let results = [
                    plan.forward(Forward::new(input, weight, thresholds), y, &mut workspace[0], &Serial),
                    plan.backward_input(operands, gradients, &mut workspace[1], &Serial),
                ];
                let same = (plan.desc(), plan.isa()) == (packer.desc(), packer.isa());
                for (i, result) in results.into_iter().enumerate() {
                    if same && (i == 1) == transposed {
                        assert_eq!(result, Ok(()));
                        continue;
                    }
                    rows += 1;
                    let error = Error::PackedElsewhere { packed: packer.isa(), plan: plan.isa() };
                    assert_eq!(result, Err(error), "{packer:?} for {plan:?}");
                    let stale = |values: &[f32]| values.iter().all(|value| value.to_bits() == STALE.to_bits());
                    assert!(stale(&outputs[i]) && stale(&workspace[i]));
                }
            }
        }
    }
    println!("packed weights in Rust: {rows} rows");
    assert!(rows > 1000);
}
