//! Layers with channels first take the path of the forward pass that was measured to be faster.

use convrelu::{ConvRelu, ForwardAlgorithm, Isa};

use crate::common::{Axis, Shape};

/// The layers of `benches/peers/shapes` and `shapes-networks` but depthwise ones, in benchdnn's notation, and the times of the
/// forward pass, of one core of an AMD EPYC (Zen 3, AVX2), in multiples of oneDNN's for the same tensors at the same moment:
/// with positions in lanes (`Direct`), and transposed around lanes of channels (`BatchReduce`).
#[rustfmt::skip]
const MEASURED: &[(&str, &str, [f64; 2])] = &[
    ("d1", "mb8_g1ic48oc12_ih32oh32kh3sh1ph1_iw32ow32kw3sw1pw1", [0.64, 0.75]),
    ("d2", "mb8_g1ic96oc48_ih32oh32kh1sh1ph0_iw32ow32kw1sw1pw0", [1.07, 1.04]),
    ("d3", "mb8_g1ic48oc12_ih16oh16kh3sh1ph1_iw16ow16kw3sw1pw1", [0.57, 0.77]),
    ("d4", "mb8_g1ic48oc12_ih8oh8kh3sh1ph1_iw8ow8kw3sw1pw1", [0.79, 0.63]),
    ("v1", "mb8_g1ic3oc64_ih32oh32kh3sh1ph1_iw32ow32kw3sw1pw1", [0.78, 1.29]),
    ("v2", "mb8_g1ic64oc64_ih32oh32kh3sh1ph1_iw32ow32kw3sw1pw1", [1.08, 0.94]),
    ("v3", "mb8_g1ic256oc256_ih8oh8kh3sh1ph1_iw8ow8kw3sw1pw1", [1.25, 0.77]),
    ("v4", "mb8_g1ic512oc512_ih4oh4kh3sh1ph1_iw4ow4kw3sw1pw1", [1.50, 0.77]),
    ("r1", "mb8_g1ic64oc128_ih32oh16kh3sh2ph1_iw32ow16kw3sw2pw1", [1.03, 0.89]),
    ("r2", "mb1_g1ic128oc128_ih28oh28kh3sh1ph1_iw28ow28kw3sw1pw1", [1.15, 0.92]),
    ("r3", "mb1_g1ic64oc64_ih56oh56kh3sh1ph1_iw56ow56kw3sw1pw1", [1.15, 0.96]),
    ("t1", "mb8_g1ic70oc256_iw1014ow1008kw7sw1pw0", [1.07, 0.91]),
    ("t2", "mb8_g1ic256oc256_iw336ow330kw7sw1pw0", [1.03, 0.94]),
    ("t3", "mb8_g1ic256oc256_iw110ow108kw3sw1pw0", [0.93, 0.87]),
    ("c1", "mb1_g1ic32oc64_id16od16kd3sd1pd1_ih28oh28kh3sh1ph1_iw28ow28kw3sw1pw1", [1.35, 1.06]),
    ("c2", "mb1_g1ic128oc128_id8od8kd3sd1pd1_ih14oh14kh3sh1ph1_iw14ow14kw3sw1pw1", [1.78, 0.98]),
    ("resnet_50-res3a_branch2c4", "mb2_ic128ih28oc512oh28kh1ph0", [1.10, 1.15]),
    ("resnet_50-res4a_branch2b6", "mb2_ic256ih14oc256oh14kh3ph1", [1.43, 0.88]),
    ("resnet_50-res3a_branch1", "mb2_g1ic256ih56iw56oc512oh28ow28kh1kw1sh2sw2ph0pw0", [0.90, 1.02]),
    ("resnet_50-res4a_branch2c6", "mb2_ic256ih14oc1024oh14kh1ph0", [1.18, 1.02]),
    ("resnet_50-res2a_branch2a", "mb2_ic64ih56oc64oh56kh1ph0", [1.40, 1.37]),
    ("resnet_50-res3b_branch2a3", "mb2_ic512ih28oc128oh28kh1ph0", [1.29, 1.27]),
    ("mobilenet-conv104", "mb2_g1ic1024oc1024_ih7oh7kh1sh1dh0ph0_iw7ow7kw1sw1dw0pw0", [1.49, 1.10]),
    ("mobilenet-conv24", "mb2_g1ic32oc64_ih112oh112kh1sh1dh0ph0_iw112ow112kw1sw1dw0pw0", [1.38, 1.54]),
    ("mobilenet-conv94", "mb2_g1ic512oc1024_ih7oh7kh1sh1dh0ph0_iw7ow7kw1sw1dw0pw0", [1.46, 1.06]),
    ("vgg_19-conv2_1", "mb1_ic64ih112oc128oh112kh3ph1", [1.05, 0.99]),
    ("googlenet_v1-inception_4d-3x3", "mb2_ic144ih14oc288oh14kh3ph1", [1.46, 0.90]),
    ("googlenet_v1-inception_5a-5x5_reduce", "mb2_ic832ih7oc32oh7kh1ph0", [1.37, 0.96]),
    ("googlenet_v1-inception_4c-3x3", "mb2_ic128ih14oc256oh14kh3ph1", [1.47, 0.89]),
    ("wavenet-conv1d_1x1_2", "mb2_g1ic512oc256_iw812ow812kw1sw1dw0pw0", [1.38, 1.15]),
    ("wavenet-conv1d_6", "mb2_g1ic32oc32_iw2635ow2634kw2sw1dw0pw0", [0.88, 0.93]),
    ("shapes_3d_i3d", "mb1_ic64oc64_id32od32kd1sd1dd0pd0_ih56oh56kh1sh1dh0ph0_iw56ow56kw1sw1dw0pw0", [0.91, 0.95]),
    ("shapes_3d_i3d", "mb1_ic160oc320_id16od16kd3sd1dd0pd1_ih14oh14kh3sh1dh0ph1_iw14ow14kw3sw1dw0pw1", [1.86, 1.13]),
    ("densenet-conv7", "mb2_g1ic88oc12_ih32oh32kh3sh1dh0ph1_iw32ow32kw3sw1dw0pw1", [0.64, 0.79]),
    ("densenet-conv11", "mb2_g1ic136oc12_ih32oh32kh3sh1dh0ph1_iw32ow32kw3sw1dw0pw1", [0.68, 0.77]),
    ("densenet-conv4", "mb2_g1ic52oc12_ih32oh32kh3sh1dh0ph1_iw32ow32kw3sw1dw0pw1", [0.58, 0.77]),
    ("efficientdet-conv353", "mb1_ic28oc672_ih1oh1kh1sh1dh0ph0_iw1ow1kw1sw1dw0pw0", [1.12, 1.11]),
    ("efficientdet-conv24", "mb1_ic240oc80_ih32oh32kh1sh1dh0ph0_iw32ow32kw1sw1dw0pw0", [1.03, 1.01]),
    ("efficientdet-conv60", "mb1_ic64oc36_ih64oh64kh1sh1dh0ph0_iw64ow64kw1sw1dw0pw0", [0.78, 1.05]),
    ("googlenet_v3-mixed_1_conv_conv2d3", "mb2_g1ic256ih35iw35oc64oh35ow35kh1kw1ph0pw0sh1sw1", [1.42, 1.21]),
    ("googlenet_v3-mixed_7_tower_conv_1_conv2d4", "mb2_g1ic192ih17iw17oc192oh17ow17kh1kw7ph0pw3sh1sw1", [1.27, 0.77]),
    ("googlenet_v3-mixed_5_tower_1_conv_4_conv2d2", "mb2_g1ic160ih17iw17oc192oh17ow17kh1kw7ph0pw3sh1sw1", [1.25, 0.79]),
    ("resnext_101-conv81", "mb1_g32_ic1024oc1024_ih56oh28kh3sh2dh0ph1_iw56ow28kw3sw2dw0pw1", [1.13, 0.89]),
    ("resnext_101-conv191", "mb1_ic1024oc4096_ih14oh14kh1sh1dh0ph0_iw14ow14kw1sw1dw0pw0", [1.36, 1.07]),
    ("dilated_rfcn", "mb1_ic512ih38iw57oc512oh38ow57kh3kw3ph3pw3dh2dw2", [1.29, 1.13]),
    ("linear-10", "mb4_g1ic512oc10_ih1oh1kh1sh1ph0_iw1ow1kw1sw1pw0", [0.75, 0.73]),
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
fn shape(notation: &str) -> Shape {
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
    let slow: Vec<_> = MEASURED
        .iter()
        .filter_map(|(name, notation, [direct, transposed])| {
            let desc = shape(notation).desc();
            let chosen = ConvRelu::with_isa(desc, isa).expect("it is available").forward_algorithm();
            let time = match chosen {
                ForwardAlgorithm::Direct => direct,
                ForwardAlgorithm::BatchReduce => transposed,
                _ => panic!("{name}: {chosen:?}"),
            };
            let best = direct.min(*transposed);
            (*time > TOLERANCE * best).then(|| format!("{name}: {chosen:?} takes {time}, the other way {best}"))
        })
        .collect();
    assert!(slow.is_empty(), "{slow:#?}");
}
