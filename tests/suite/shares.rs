//! How threads share a call: equally in large layers, by what each part multiplies; and without writing between each other's channels.

use convrelu::{BackwardInput, ConvDesc, ConvRelu, Error, Gradient, InputGradients, Layout, Pass, Weight};

use crate::common::isas;
use crate::errors::Wrong;
use crate::paths::{MEASURED, shape};

/// The depthwise layers of `benches/peers/shapes` and `shapes-networks`, and some of others' networks.
#[rustfmt::skip]
const DEPTHWISE: &[(&str, &str)] = &[
    ("g1", "mb1_g128ic128oc128_ih56oh56kh3sh1ph1_iw56ow56kw3sw1pw1"),
    ("mobilenet-conv2_1-dw", "mb2_g32ic32ih112iw112oc32oh112ow112kh3kw3sh1sw1ph1pw1"),
    ("mobilenet-conv2_2-dw", "mb2_g64ic64ih112iw112oc64oh56ow56kh3kw3sh2sw2ph1pw1"),
    ("mobilenet-conv4_1-dw", "mb2_g256ic256ih28iw28oc256oh28ow28kh3kw3sh1sw1ph1pw1"),
    ("mobilenet-conv5_1-dw", "mb2_g512ic512ih14iw14oc512oh14ow14kh3kw3sh1sw1ph1pw1"),
    ("x3d_dw-conv_1", "mb1_g24_ic24oc24_id8od8kd5sd1dd0pd2_ih112oh112kh1sh1dh0ph0_iw112ow112kw1sw1dw0pw0"),
    ("convnext-56", "mb1_g96ic96oc96_ih56oh56kh7sh1ph3_iw56ow56kw7sw1pw3"),
    ("causal-1d", "mb1_g1536ic1536oc1536_iw2048ow2048kw4sw1pw3"),
];

/// Multiply-adds of a layer that is worth sixteen threads: 50 MFLOP.
const LARGE: usize = 25_000_000;

/// Layers that sixteen threads share less evenly, by their rows and panels: 17 or 35 rows, five panels, twelve output channels; and
/// pointwise ones, for which smaller parts would cost more, because each part copies what its panels share.
const UNEVEN: [&str; 11] = [
    "densenet-conv11",
    "googlenet_v1-inception_4d-3x3",
    "googlenet_v3-mixed_1_conv_conv2d3",
    "googlenet_v3-mixed_5_tower_1_conv_4_conv2d2",
    "googlenet_v3-mixed_7_tower_conv_1_conv2d4",
    "mobilenet-conv24",
    "resnet_50-res2a_branch2a",
    "resnet_50-res3a_branch1",
    "resnet_50-res3a_branch2c4",
    "resnet_50-res3b_branch2a3",
    "resnet_50-res4a_branch2c6",
];

/// The share of `threads` that have work while the largest part runs.
fn efficiency(plan: &ConvRelu, pass: Pass, threads: usize) -> f64 {
    let (mut all, mut largest) = (0, 0);
    plan.with_threads(threads).for_each_share(pass, |own| (all, largest) = (all + own, largest.max(own)));
    all as f64 / (threads * largest) as f64
}

#[test]
#[cfg_attr(not(target_pointer_width = "64"), ignore = "the multiply-adds of these layers do not fit 32 bits")]
fn sixteen_threads_share_large_layers_evenly() {
    let mut uneven = Vec::new();
    for isa in isas() {
        for (name, notation) in
            MEASURED.iter().map(|&(name, notation, ..)| (name, notation)).chain(DEPTHWISE.iter().copied())
        {
            for layout in [Layout::Nchw, Layout::Nhwc] {
                let desc = shape(notation).layout(layout).desc();
                let plan = ConvRelu::with_isa(desc, isa).expect("it is available");
                let work = desc.output_len() * (desc.weight_len() / desc.out_channels());
                for pass in [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight] {
                    let [four, sixteen, many] = [4, 16, 64].map(|threads| efficiency(&plan, pass, threads));
                    let row = format!("{isa} {name} {layout:?} {pass:?} {work}: {four:.2} {sixteen:.2} {many:.2}");
                    println!("{row}");
                    let least = match (isa.name(), UNEVEN.contains(&name)) {
                        ("avx2", false) => 0.9,
                        ("avx2", true) => 0.55,
                        // As they are: of AVX-512's panels, four times as wide, many layers have few.
                        ("avx512" | "emulated512", _) => 0.5,
                        ("scalar", _) => 0.75,
                        // Not looked at one by one: no large layer is left to a few threads.
                        _ => 0.3,
                    };
                    if work >= LARGE && sixteen < least {
                        uneven.push(row);
                    }
                }
            }
        }
    }
    assert!(uneven.is_empty(), "the share of 4, 16 and 64 threads that have work: {uneven:#?}");
}

/// With channels last, a task that computes some channels of each pixel writes pieces between those of another task, and its core
/// fetches lines that the other's core writes: two threads were slower than one.
#[test]
fn tasks_of_depthwise_layers_write_whole_pixels() {
    const CHANNELS: usize = 512;
    for isa in isas() {
        for (batch, stride) in [(2, 1), (2, 2), (1, 1)] {
            let desc = ConvDesc::conv2d(batch, CHANNELS, CHANNELS, [14, 14], [3, 3])
                .padding([1, 1])
                .stride([stride, stride])
                .groups(CHANNELS)
                .layout(Layout::Nhwc)
                .build()
                .expect("a layer");
            let plan = ConvRelu::with_isa(desc, isa).expect("it is available").with_threads(2);
            let [weight, grad] = [desc.weight_len(), desc.output_len()].map(|len| vec![1.0; len]);
            let mut workspace = vec![0.0; plan.workspace_len(Pass::BackwardInput)];
            let mut input = vec![f32::NAN; desc.input_len()];
            let result = plan.backward_input(
                BackwardInput::linear(Weight::Plain(&weight), &grad),
                InputGradients::new().input(Gradient::overwrite(&mut input)),
                &mut workspace,
                &Wrong(|_, run| run(0)),
            );
            assert!(matches!(result, Err(Error::Executor { tasks: 2, never: true, .. })), "{isa}: {result:?}");
            let written: Vec<usize> =
                input.chunks(CHANNELS).map(|pixel| pixel.iter().filter(|value| !value.is_nan()).count()).collect();
            let whole = written.iter().filter(|&&count| count == CHANNELS).count();
            assert!(
                written.iter().all(|count| [0, CHANNELS].contains(count)) && whole * 2 == batch * 14 * 14,
                "{isa}, batch {batch}, stride {stride}: the first task wrote {whole} whole pixels, and of others {written:?}"
            );
        }
    }
}
