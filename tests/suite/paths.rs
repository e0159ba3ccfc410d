//! Layers with channels first take the path that was measured to be faster.

use convrelu::{BackwardInputAlgorithm, ConvRelu, ForwardAlgorithm, Isa};

use crate::common::{Axis, Shape};

/// The layers of `benches/peers/shapes` and `shapes-networks` but depthwise ones, in benchdnn's notation, and the times of the
/// forward pass and of the backward pass of the input, of one core of an AMD EPYC (Zen 3, AVX2), in multiples of oneDNN's for the
/// same tensors at the same moment: with positions in lanes (`Direct`, `Planar`), and transposed around lanes of channels
/// (`BatchReduce`, `Progressions`).
#[rustfmt::skip]
pub(crate) const MEASURED: &[(&str, &str, [f64; 2], [f64; 2])] = &[
    ("d1", "mb8_g1ic48oc12_ih32oh32kh3sh1ph1_iw32ow32kw3sw1pw1", [0.64, 0.75], [1.49, 1.19]),
    ("d2", "mb8_g1ic96oc48_ih32oh32kh1sh1ph0_iw32ow32kw1sw1pw0", [1.07, 1.04], [1.04, 1.45]),
    ("d3", "mb8_g1ic48oc12_ih16oh16kh3sh1ph1_iw16ow16kw3sw1pw1", [0.57, 0.77], [1.05, 1.14]),
    ("d4", "mb8_g1ic48oc12_ih8oh8kh3sh1ph1_iw8ow8kw3sw1pw1", [0.79, 0.63], [1.85, 1.39]),
    ("v1", "mb8_g1ic3oc64_ih32oh32kh3sh1ph1_iw32ow32kw3sw1pw1", [0.78, 1.29], [1.16, 1.18]),
    ("v2", "mb8_g1ic64oc64_ih32oh32kh3sh1ph1_iw32ow32kw3sw1pw1", [1.08, 0.94], [1.32, 1.14]),
    ("v3", "mb8_g1ic256oc256_ih8oh8kh3sh1ph1_iw8ow8kw3sw1pw1", [1.25, 0.77], [1.67, 1.06]),
    ("v4", "mb8_g1ic512oc512_ih4oh4kh3sh1ph1_iw4ow4kw3sw1pw1", [1.50, 0.77], [4.17, 1.10]),
    ("r1", "mb8_g1ic64oc128_ih32oh16kh3sh2ph1_iw32ow16kw3sw2pw1", [1.03, 0.89], [2.13, 0.91]),
    ("r2", "mb1_g1ic128oc128_ih28oh28kh3sh1ph1_iw28ow28kw3sw1pw1", [1.15, 0.92], [1.32, 1.05]),
    ("r3", "mb1_g1ic64oc64_ih56oh56kh3sh1ph1_iw56ow56kw3sw1pw1", [1.15, 0.96], [1.27, 1.12]),
    ("t1", "mb8_g1ic70oc256_iw1014ow1008kw7sw1pw0", [1.07, 0.91], [1.30, 1.01]),
    ("t2", "mb8_g1ic256oc256_iw336ow330kw7sw1pw0", [1.03, 0.94], [0.92, 0.88]),
    ("t3", "mb8_g1ic256oc256_iw110ow108kw3sw1pw0", [0.93, 0.87], [0.92, 0.91]),
    ("c1", "mb1_g1ic32oc64_id16od16kd3sd1pd1_ih28oh28kh3sh1ph1_iw28ow28kw3sw1pw1", [1.35, 1.06], [1.59, 1.27]),
    ("c2", "mb1_g1ic128oc128_id8od8kd3sd1pd1_ih14oh14kh3sh1ph1_iw14ow14kw3sw1pw1", [1.78, 0.98], [2.22, 1.18]),
    ("resnet_50-res3a_branch2c4", "mb2_ic128ih28oc512oh28kh1ph0", [1.10, 1.15], [1.37, 1.23]),
    ("resnet_50-res4a_branch2b6", "mb2_ic256ih14oc256oh14kh3ph1", [1.43, 0.88], [1.92, 1.01]),
    ("resnet_50-res3a_branch1", "mb2_g1ic256ih56iw56oc512oh28ow28kh1kw1sh2sw2ph0pw0", [0.90, 1.02], [1.96, 1.39]),
    ("resnet_50-res4a_branch2c6", "mb2_ic256ih14oc1024oh14kh1ph0", [1.18, 1.02], [1.18, 0.99]),
    ("resnet_50-res2a_branch2a", "mb2_ic64ih56oc64oh56kh1ph0", [1.40, 1.37], [1.69, 2.04]),
    ("resnet_50-res3b_branch2a3", "mb2_ic512ih28oc128oh28kh1ph0", [1.29, 1.27], [1.22, 1.43]),
    ("mobilenet-conv104", "mb2_g1ic1024oc1024_ih7oh7kh1sh1dh0ph0_iw7ow7kw1sw1dw0pw0", [1.49, 1.10], [1.49, 1.10]),
    ("mobilenet-conv24", "mb2_g1ic32oc64_ih112oh112kh1sh1dh0ph0_iw112ow112kw1sw1dw0pw0", [1.38, 1.54], [1.47, 1.92]),
    ("mobilenet-conv94", "mb2_g1ic512oc1024_ih7oh7kh1sh1dh0ph0_iw7ow7kw1sw1dw0pw0", [1.46, 1.06], [1.39, 1.00]),
    ("vgg_19-conv2_1", "mb1_ic64ih112oc128oh112kh3ph1", [1.05, 0.99], [1.20, 1.12]),
    ("googlenet_v1-inception_4d-3x3", "mb2_ic144ih14oc288oh14kh3ph1", [1.46, 0.90], [1.72, 1.08]),
    ("googlenet_v1-inception_5a-5x5_reduce", "mb2_ic832ih7oc32oh7kh1ph0", [1.37, 0.96], [1.28, 1.37]),
    ("googlenet_v1-inception_4c-3x3", "mb2_ic128ih14oc256oh14kh3ph1", [1.47, 0.89], [1.85, 1.11]),
    ("wavenet-conv1d_1x1_2", "mb2_g1ic512oc256_iw812ow812kw1sw1dw0pw0", [1.38, 1.15], [1.22, 1.22]),
    ("wavenet-conv1d_6", "mb2_g1ic32oc32_iw2635ow2634kw2sw1dw0pw0", [0.88, 0.93], [1.00, 1.06]),
    ("shapes_3d_i3d", "mb1_ic64oc64_id32od32kd1sd1dd0pd0_ih56oh56kh1sh1dh0ph0_iw56ow56kw1sw1dw0pw0", [0.91, 0.95], [0.95, 1.23]),
    ("shapes_3d_i3d", "mb1_ic160oc320_id16od16kd3sd1dd0pd1_ih14oh14kh3sh1dh0ph1_iw14ow14kw3sw1dw0pw1", [1.86, 1.13], [2.56, 1.22]),
    ("densenet-conv7", "mb2_g1ic88oc12_ih32oh32kh3sh1dh0ph1_iw32ow32kw3sw1dw0pw1", [0.64, 0.79], [1.11, 0.88]),
    ("densenet-conv11", "mb2_g1ic136oc12_ih32oh32kh3sh1dh0ph1_iw32ow32kw3sw1dw0pw1", [0.68, 0.77], [1.11, 0.85]),
    ("densenet-conv4", "mb2_g1ic52oc12_ih32oh32kh3sh1dh0ph1_iw32ow32kw3sw1dw0pw1", [0.58, 0.77], [0.95, 0.85]),
    ("efficientdet-conv353", "mb1_ic28oc672_ih1oh1kh1sh1dh0ph0_iw1ow1kw1sw1dw0pw0", [1.12, 1.11], [5.88, 1.22]),
    ("efficientdet-conv24", "mb1_ic240oc80_ih32oh32kh1sh1dh0ph0_iw32ow32kw1sw1dw0pw0", [1.03, 1.01], [1.20, 1.49]),
    ("efficientdet-conv60", "mb1_ic64oc36_ih64oh64kh1sh1dh0ph0_iw64ow64kw1sw1dw0pw0", [0.78, 1.05], [1.12, 1.49]),
    ("googlenet_v3-mixed_1_conv_conv2d3", "mb2_g1ic256ih35iw35oc64oh35ow35kh1kw1ph0pw0sh1sw1", [1.42, 1.21], [1.25, 2.17]),
    ("googlenet_v3-mixed_7_tower_conv_1_conv2d4", "mb2_g1ic192ih17iw17oc192oh17ow17kh1kw7ph0pw3sh1sw1", [1.27, 0.77], [1.33, 0.73]),
    ("googlenet_v3-mixed_5_tower_1_conv_4_conv2d2", "mb2_g1ic160ih17iw17oc192oh17ow17kh1kw7ph0pw3sh1sw1", [1.25, 0.79], [1.56, 0.82]),
    ("resnext_101-conv81", "mb1_g32_ic1024oc1024_ih56oh28kh3sh2dh0ph1_iw56ow28kw3sw2dw0pw1", [1.13, 0.89], [1.64, 1.01]),
    ("resnext_101-conv191", "mb1_ic1024oc4096_ih14oh14kh1sh1dh0ph0_iw14ow14kw1sw1dw0pw0", [1.36, 1.07], [1.72, 1.18]),
    ("dilated_rfcn", "mb1_ic512ih38iw57oc512oh38ow57kh3kw3ph3pw3dh2dw2", [1.29, 1.13], [1.89, 1.25]),
    ("linear-10", "mb4_g1ic512oc10_ih1oh1kh1sh1ph0_iw1ow1kw1sw1pw0", [0.75, 0.73], [20.00, 2.00]),
];

/// Some layers are as fast either way, and all measurements differ by as much from run to run.
const TOLERANCE: f64 = 1.05;

/// A number of the notation, such as 48 of `ic48`, or what stands for one that is left out.
fn number(notation: &str, key: &str) -> Option<usize> {
    notation.match_indices(key).find_map(|(at, _)| {
        let before = notation[..at].chars().next_back();
        let digits: String = notation[at + key.len()..].chars().take_while(char::is_ascii_digit).collect();
        // No part of a longer key.
        if before.is_some_and(|c| c.is_ascii_alphabetic()) { None } else { digits.parse().ok() }
    })
}

/// The layer of a notation. Axes that it does not name are as the next one in `d`, `h`, `w` order that it does.
pub(crate) fn shape(notation: &str) -> Shape {
    let rank = if number(notation, "id").is_some() {
        3
    } else if number(notation, "ih").is_some() {
        2
    } else {
        1
    };
    let axes: Vec<_> = ["d", "h", "w"][3 - rank..]
        .iter()
        .map(|axis| {
            let of =
                |key: &str| number(notation, &format!("{key}{axis}")).or_else(|| number(notation, &format!("{key}h")));
            let (size, kernel) = (of("i").expect("a size"), of("k").expect("a kernel"));
            let padding = of("p").unwrap_or(0);
            let axis = Axis::new(size, kernel).padding(padding, padding);
            axis.stride(of("s").unwrap_or(1)).dilation(of("d").unwrap_or(0) + 1)
        })
        .collect();
    let get = |key: &str| number(notation, key);
    let groups = get("g").unwrap_or(1);
    let [inputs, outputs] = ["ic", "oc"].map(|key| get(key).expect("channels") / groups);
    Shape::new(get("mb").expect("a batch"), inputs, outputs, &axes).groups(groups)
}

#[test]
fn layers_take_the_faster_path() {
    let Some(isa) = Isa::available().find(|isa| isa.name() == "avx2") else { return };
    let mut slow = Vec::new();
    for (name, notation, forward, backward) in MEASURED {
        let plan = ConvRelu::with_isa(shape(notation).desc(), isa).expect("it is available");
        let ways = [
            ("forward", plan.forward_algorithm() == ForwardAlgorithm::Direct, forward),
            ("backward", plan.backward_input_algorithm() == BackwardInputAlgorithm::Planar, backward),
        ];
        for (pass, in_planes, [planes, transposed]) in ways {
            let (chosen, other) = if in_planes { (planes, transposed) } else { (transposed, planes) };
            if *chosen > TOLERANCE * other {
                slow.push(format!("{name}, {pass}: {chosen}, the other way {other}"));
            }
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
}
