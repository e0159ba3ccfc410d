//! Random geometries, values and tuning.

use convrelu::{BackwardInputAlgorithm, ForwardAlgorithm, Layout, Tuning};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed};

use crate::common::{Axis, Case, Parts, Placement, Rng, Shape, Theta, Values, Workers};

/// `1/fraction` of the number of cases asked for, from a seed that is fixed unless `PROPTEST_RNG_SEED` is set.
pub(crate) fn config(fraction: u32) -> Config {
    let cases: u32 = match std::env::var("CONVRELU_CASES") {
        Ok(cases) => cases.parse().unwrap_or_else(|_| panic!("CONVRELU_CASES={cases}: not a number")),
        Err(_) => 2048,
    };
    let default = Config { failure_persistence: None, ..Config::with_cases(cases.div_ceil(fraction)) };
    match default.rng_seed {
        RngSeed::Random => Config { rng_seed: RngSeed::Fixed(20), ..default },
        RngSeed::Fixed(_) => default,
    }
}

/// Channels of a group: below, at and above every vector and panel.
fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![1..=6usize, select(vec![7, 8, 9, 11, 12, 13, 15, 16, 17, 23, 24, 25, 31, 32, 33, 47, 48, 49, 65])]
}

/// Groups and channels per group: dense, grouped, depthwise with a multiplier, groups of a few channels.
fn grouping() -> impl Strategy<Value = [usize; 3]> {
    prop_oneof![
        4 => (channels(), channels()).prop_map(|(inputs, outputs)| [1, inputs, outputs]),
        2 => (2..=4usize, channels(), channels()).prop_map(|(groups, inputs, outputs)| [groups, inputs, outputs]),
        2 => (channels(), 1..=3usize).prop_map(|(groups, multiplier)| [groups, 1, multiplier]),
        1 => (channels(), 1..=4usize, 1..=4usize).prop_map(|(groups, inputs, outputs)| [groups, inputs, outputs]),
    ]
}

fn axis() -> impl Strategy<Value = Axis> {
    let size = prop_oneof![4 => 1..=9usize, 2 => select(vec![12, 14, 15, 16, 17, 20, 28, 31, 32, 33, 40, 49, 65])];
    let stride = prop_oneof![6 => Just(1usize), 3 => 2..=3usize, 1 => 4..=7usize];
    let dilation = prop_oneof![3 => Just(1usize), 1 => 2..=3usize];
    (size, 1..=5usize, stride, dilation).prop_flat_map(|(size, kernel, stride, dilation)| {
        let same = dilation * (kernel - 1);
        let padding = prop_oneof![
            3 => Just((same / 2, same.div_ceil(2))),
            2 => Just((0, 0)),
            2 => (0..=2usize, 0..=2usize),
            1 => (0..=9usize, 0..=9usize),
        ];
        padding.prop_map(move |(before, after)| Axis { size, kernel, stride, dilation, before, after })
    })
}

/// A geometry of at most `products` multiplications, and rarely an empty batch.
pub(crate) fn shape(products: usize) -> impl Strategy<Value = Shape> {
    let batch = prop_oneof![20 => Just(1usize), 20 => 2..=3usize, 1 => Just(0usize)];
    let layout = select(vec![Layout::Nchw, Layout::Nhwc]);
    (batch, grouping(), layout, proptest::collection::vec(axis(), 1..=3), gaps(), 0..4usize).prop_map(
        move |(batch, [groups, group_in, group_out], layout, axes, gaps, first_cut)| {
            fit(Shape { batch, groups, group_in, group_out, layout, axes, gaps }, products, first_cut)
        },
    )
}

/// Cuts a shape down until it costs no more than `products`, each time elsewhere; grows inputs that are smaller than
/// the kernel.
fn fit(mut shape: Shape, products: usize, first_cut: usize) -> Shape {
    for cut in first_cut.. {
        for axis in &mut shape.axes {
            let reach = axis.dilation * (axis.kernel - 1) + 1;
            axis.size = axis.size.max(reach.saturating_sub(axis.before + axis.after));
        }
        let desc = shape.desc();
        let smallest = shape.groups * shape.group_in * shape.group_out == 1 && shape.axes.iter().all(|a| a.size == 1);
        if desc.flops() <= 2.0 * products as f64 || smallest {
            break;
        }
        if cut > first_cut + 64 {
            // Small inputs whose padded kernels cost too much cannot be cut further.
            shape.axes.iter_mut().for_each(|axis| *axis = Axis::new(axis.size, 1));
        }
        match cut % 4 {
            0 => shape.batch = shape.batch.min(1),
            1 => {
                if let Some(axis) = shape.axes.iter_mut().max_by_key(|axis| axis.size) {
                    axis.size = axis.size.div_ceil(2);
                    axis.kernel = axis.kernel.min(axis.size.max(3));
                }
            }
            2 => {
                let largest = [&mut shape.groups, &mut shape.group_in, &mut shape.group_out].into_iter().max();
                if let Some(largest) = largest {
                    *largest = largest.div_ceil(2);
                }
            }
            _ => {
                if let Some(axis) = shape.axes.iter_mut().max_by_key(|axis| axis.before + axis.after) {
                    (axis.before, axis.after) = (axis.before.min(2), axis.after.min(2));
                    axis.kernel = axis.kernel.min(3);
                }
            }
        }
    }
    shape
}

/// Rows far longer than a vector, of few or many channels, mostly without padding: what threads cut along the positions,
/// and what is read in place.
pub(crate) fn long_shape(products: usize) -> impl Strategy<Value = Shape> {
    let size = prop_oneof![1..=600usize, select(vec![96, 128, 256, 400, 512, 528, 576])];
    let kernel = prop_oneof![3 => Just(1usize), 1 => 2..=4usize];
    let row = (size, kernel, prop_oneof![3 => Just(0usize), 1 => 0..=3usize])
        .prop_map(|(size, kernel, padding)| Axis::new(size.max(kernel), kernel).padding(padding, padding));
    let channels = || prop_oneof![1..=100usize, select(vec![1, 8, 16, 24, 32, 48, 64, 96])];
    let layout = select(vec![Layout::Nchw, Layout::Nchw, Layout::Nhwc]);
    let folded = prop_oneof![2 => Just(1usize), 1 => 2..=24usize];
    (1..=2usize, channels(), channels(), layout, row, folded, gaps(), 0..4usize).prop_map(
        move |(batch, group_in, group_out, layout, row, rows, gaps, first_cut)| {
            let axes = if rows == 1 {
                vec![row]
            } else {
                vec![Axis::new(rows, 1), Axis { size: (row.size / rows).max(row.kernel), ..row }]
            };
            fit(Shape { batch, groups: 1, group_in, group_out, layout, axes, gaps }, products, first_cut)
        },
    )
}

/// What lies between the pixels or images of input and output: mostly nothing.
fn gaps() -> impl Strategy<Value = [usize; 2]> {
    let gap = || prop_oneof![3 => Just(0usize), 1 => 1..=9usize, 1 => select(vec![16, 24, 61])];
    prop_oneof![2 => Just([0; 2]), 1 => [gap(), gap()]]
}

/// Whose threads run a call's tasks.
pub(crate) fn workers() -> impl Strategy<Value = Workers> {
    select(Workers::ALL)
}

/// Threads of a plan. More than there are parts, too.
pub(crate) fn threads() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1..=8usize, 1 => Just(33usize)]
}

fn theta() -> impl Strategy<Value = Option<f32>> {
    prop_oneof![6 => Just(None), 1 => Just(Some(0.0)), 1 => Just(Some(0.25)), 1 => Just(Some(f32::NEG_INFINITY))]
}

/// A case that the oracle computes in about a millisecond.
pub(crate) fn case() -> impl Strategy<Value = Case> {
    case_of(shape(20_000), select(vec![Values::Continuous, Values::Quantised, Values::Sparse]))
        .prop_map(|(_, case)| case)
}

/// A case with enough work for several tuning and threads.
pub(crate) fn larger_case() -> impl Strategy<Value = Case> {
    case_of(shape(200_000), Just(Values::Continuous)).prop_map(|(_, case)| case)
}

/// A case of long rows.
pub(crate) fn long_case() -> impl Strategy<Value = Case> {
    case_of(long_shape(500_000), select(vec![Values::Continuous, Values::Quantised])).prop_map(|(_, case)| case)
}

/// A case of groups whose pixels lie 4096 bytes apart, channels last.
pub(crate) fn far_case() -> impl Strategy<Value = Case> {
    let far = shape(500).prop_map(|shape| {
        let shape = shape.layout(Layout::Nhwc);
        let groups = shape.groups.max(2);
        let gap = |channels: usize| channels.next_multiple_of(1024) - channels;
        let gaps = [gap(groups * shape.group_in), gap(groups * shape.group_out)];
        shape.groups(groups).gaps(gaps)
    });
    case_of(far, Just(Values::Continuous)).prop_map(|(_, case)| case)
}

/// A depthwise case; at times its pixels lie so far apart that they share a few sets of a cache, at times its kernel has three rows
/// and columns, for which there are tiles of two rows.
pub(crate) fn depthwise_case() -> impl Strategy<Value = Case> {
    let axis = |most: usize| {
        let padding = select(vec![[0, 0], [1, 1], [1, 1], [0, 1], [1, 0], [2, 3]]);
        (3..=most, padding).prop_map(|(size, [before, after])| Axis::new(size, 3).padding(before, after))
    };
    let square = prop_oneof![2 => Just(None), 1 => (axis(9), axis(20)).prop_map(Some)];
    let shapes = (shape(60_000), any::<bool>(), 0..8usize, square).prop_map(|(shape, wide, far, square)| {
        let axes = square.map_or(shape.axes.clone(), |(height, width)| vec![height, width]);
        let shape = Shape { axes, ..shape };
        let (many, few) = (shape.group_in.max(shape.group_out), shape.group_in.min(shape.group_out));
        let channels = shape.groups * if wide { many } else { few };
        let shape = Shape { groups: channels, group_in: 1, group_out: 1, ..shape };
        let gap = channels.next_multiple_of(1024) - channels;
        match (shape.layout, far) {
            (Layout::Nhwc, 0) => shape.gaps([gap, 0]),
            (Layout::Nhwc, 1) => shape.gaps([0, gap]),
            _ => shape,
        }
    });
    case_of(shapes, select(vec![Values::Continuous, Values::Quantised, Values::Sparse])).prop_map(|(_, case)| case)
}

/// A larger case of integers, and its shape: where sums are exact, no oracle is needed.
pub(crate) fn integer_case() -> impl Strategy<Value = (Shape, Case)> {
    let packed = shape(200_000).prop_map(|shape| shape.gaps([0; 2]));
    case_of(packed, Just(Values::Integers)).prop_map(|(shape, mut case)| {
        if let Theta::Uniform(theta) = &mut case.theta {
            *theta = theta.max(-4.0).round();
        }
        (shape, case)
    })
}

fn case_of(
    shape: impl Strategy<Value = Shape>,
    values: impl Strategy<Value = Values>,
) -> impl Strategy<Value = (Shape, Case)> {
    (shape, values, theta(), any::<bool>(), any::<u64>()).prop_map(|(shape, values, theta, bias, seed)| {
        let mut case = Case::new(shape.desc(), values, seed);
        if let Some(theta) = theta {
            case = case.with_theta(Theta::Uniform(theta));
        }
        (shape, if bias { case } else { case.without_bias() })
    })
}

/// What becomes of sums: any of the parts, one bound or both or none.
pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    let bounds = select(&Parts::BOUNDS);
    (any::<[bool; 3]>(), any::<bool>(), bounds).prop_map(|(has, in_output, bounds)| Parts { has, in_output, bounds })
}

/// The same case, at times with something that becomes of its sums.
pub(crate) fn perhaps_ending(case: impl Strategy<Value = Case>) -> impl Strategy<Value = Case> {
    (case, proptest::option::of(parts())).prop_map(|(case, parts)| match parts {
        Some(parts) => case.with_ending(parts),
        None => case,
    })
}

/// The library's own limits, but that parts of any size pay.
pub(crate) fn usual() -> Tuning {
    Tuning { part: 1, ..Tuning::default() }
}

/// Limits that cut even small inputs into several tiles and tuning.
pub(crate) fn tuning() -> impl Strategy<Value = Tuning> {
    let limit = || select(vec![1, 2, 3, 5, usize::MAX]);
    let strips = prop_oneof![Just(0usize), 1..=4usize, Just(usize::MAX)];
    let staging_len = prop_oneof![Just(1usize), 2..=300usize, Just(usize::MAX)];
    let forward =
        prop_oneof![Just(None), select(vec![ForwardAlgorithm::Direct, ForwardAlgorithm::BatchReduce]).prop_map(Some),];
    let backward_input = prop_oneof![
        Just(None),
        select(vec![BackwardInputAlgorithm::Progressions, BackwardInputAlgorithm::Planar,]).prop_map(Some),
    ];
    let tiny = select(vec![0, usize::MAX]);
    let chosen = || proptest::option::of(any::<bool>());
    let flags = (any::<bool>(), chosen(), chosen(), strips);
    (staging_len, limit(), limit(), limit(), limit(), tiny, forward, backward_input, flags).prop_map(
        |(staging_len, panel, tile, positions, depth, tiny, forward, backward_input, flags)| {
            let (depthwise, packs, halves, strips) = flags;
            Tuning {
                staging_len,
                strips,
                panel,
                tile,
                positions,
                depth,
                part: 1,
                tiny,
                forward,
                backward_input,
                packs,
                halves,
                depthwise,
            }
        },
    )
}

pub(crate) fn placement() -> impl Strategy<Value = Placement> {
    (0..=16usize, 0..=3usize).prop_map(|(offset, slack)| Placement { offset, slack })
}

/// Something to accumulate on.
pub(crate) fn prior(seed: u64) -> impl FnMut(usize) -> Vec<f32> {
    let mut rng = Rng(seed);
    move |len| rng.values(Values::Continuous, len)
}
