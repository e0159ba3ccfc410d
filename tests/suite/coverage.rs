//! Every algorithm is within the reach of the random layers, by the plan's own choice.

use std::collections::BTreeSet;

use convrelu::{BackwardInputAlgorithm, ConvRelu, ForwardAlgorithm, Isa, Layout, Pass, Tiles, Tuning};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::common::{Axis, Case, Expected, How, Shape, Theta, Values, isas, plan, run};
use crate::strategy;

#[test]
fn random_layers_take_every_path() {
    let mut runner = TestRunner::new(strategy::config(1));
    let descs: Vec<_> =
        (0..2000).map(|_| strategy::shape(20_000).new_tree(&mut runner).expect("a shape").current().desc()).collect();
    for isa in isas() {
        let plans = || descs.iter().map(|desc| ConvRelu::with_isa(*desc, isa).expect("an available instruction set"));
        let forward: BTreeSet<_> = plans().map(|plan| format!("{:?}", plan.forward_algorithm())).collect();
        let backward: BTreeSet<_> = plans().map(|plan| format!("{:?}", plan.backward_input_algorithm())).collect();
        for algorithm in [
            ForwardAlgorithm::Direct,
            ForwardAlgorithm::BatchReduce,
            ForwardAlgorithm::Depthwise,
            ForwardAlgorithm::Tiny,
        ] {
            assert!(forward.contains(&format!("{algorithm:?}")), "{algorithm:?} on {isa}: only {forward:?}");
        }
        for algorithm in [
            BackwardInputAlgorithm::Progressions,
            BackwardInputAlgorithm::Planar,
            BackwardInputAlgorithm::Depthwise,
            BackwardInputAlgorithm::Tiny,
        ] {
            // A single lane is never half empty.
            if isa.name() == "scalar" && algorithm == BackwardInputAlgorithm::Planar {
                continue;
            }
            assert!(backward.contains(&format!("{algorithm:?}")), "{algorithm:?} on {isa}: only {backward:?}");
        }
        let weight: BTreeSet<_> = plans().map(|plan| plan.backward_weight_algorithm()).collect();
        for algorithm in ["panels", "stripes", "patches", "taps in lanes", "depthwise", "tiny"] {
            if isa.name() == "scalar" && ["patches", "taps in lanes"].contains(&algorithm) {
                continue;
            }
            assert!(weight.contains(algorithm), "{algorithm} on {isa}: only {weight:?}");
        }
        // Groups of a few channels, of the input and of the output.
        let pairs = |channels: fn(&ConvRelu) -> usize| {
            plans()
                .any(|plan| plan.backward_weight_algorithm() == "depthwise" && channels(&plan) > plan.desc().groups())
        };
        let few = [pairs(|plan| plan.desc().in_channels()), pairs(|plan| plan.desc().out_channels())];
        assert_eq!(few, [isa.name() != "scalar"; 2], "{isa}");
    }
}

/// What the classes of positions of a layer with channels last can be: per axis, whether the first and the last position read
/// padding through some tap, or through all of them.
#[test]
fn random_layers_have_every_border() {
    let mut runner = TestRunner::new(strategy::config(1));
    let mut seen = BTreeSet::new();
    for _ in 0..4000 {
        let desc = strategy::shape(20_000).new_tree(&mut runner).expect("a shape").current().desc();
        if desc.layout() != Layout::Nhwc || desc.batch() == 0 {
            continue;
        }
        let borders = [0, 1, 2].map(|axis| {
            let reads = |o: usize, k: usize| {
                let at = o * desc.stride()[axis] + k * desc.dilation()[axis];
                (desc.padding_before()[axis]..desc.padding_before()[axis] + desc.input_size()[axis]).contains(&at)
            };
            [0, desc.output_size()[axis] - 1].map(|o| (0..desc.kernel()[axis]).filter(|k| reads(o, *k)).count())
        });
        for (axis, ends) in borders.iter().enumerate() {
            for (end, taps) in ends.iter().enumerate() {
                let others = (0..3).filter(|other| *other != axis);
                let alone = others.clone().all(|other| borders[other] == [desc.kernel()[other]; 2]);
                let together = others.clone().any(|other| borders[other].iter().any(|n| *n < desc.kernel()[other]));
                if *taps < desc.kernel()[axis] && alone {
                    seen.insert(format!("axis {axis}, end {end}, alone"));
                }
                if *taps < desc.kernel()[axis] && together {
                    seen.insert(format!("axis {axis}, end {end}, with another"));
                }
                if *taps == 0 {
                    seen.insert(format!("axis {axis}, end {end}, padding alone"));
                }
            }
        }
        let volume: usize = desc.output_size().iter().product();
        if desc.batch() > 1 && volume < 6 && desc.groups() == 1 {
            seen.insert("tiles over the batch".to_owned());
        }
        for lanes in [4, 8, 16] {
            let channels = desc.out_channels() / desc.groups();
            let kind = if channels.is_multiple_of(lanes) { "whole" } else { "partial" };
            seen.insert(format!("{kind} vectors of {lanes}"));
            seen.insert(format!("{} vectors of {lanes}", channels.div_ceil(lanes).min(5)));
        }
    }
    let borders = 3 * 2 * 3;
    let vectors = 3 * (2 + 5);
    assert_eq!(seen.len(), borders + 1 + vectors, "only {seen:?}");
}

/// As many rows as any tile has, and vectors.
const MOST_ROWS: usize = 12;
const MOST_VECTORS: usize = 4;

/// Every shape of a tile with channels last, of every pass: with whole vectors, and with a last one that is not.
#[test]
fn every_shape_of_a_tile_runs() {
    // Layers of few multiply-adds have tiles, too.
    let usual = Tuning { tiny: 0, packs: Some(false), halves: Some(false), ..Tuning::default() };
    let packs = Tuning { packs: Some(true), ..usual };
    for isa in isas() {
        let lanes = match isa {
            Isa::Scalar => 1,
            Isa::Simd128 | Isa::Neon => 4,
            Isa::Avx2 => 8,
            _ => 16,
        };
        for rows in 1..=MOST_ROWS {
            for vectors in 1..=MOST_VECTORS {
                let less = vectors * lanes - usize::from(lanes > 1);
                let channels = if rows % 2 == 0 { vectors * lanes } else { less };
                let layer = |inputs, outputs, axis| {
                    let shape = Shape::new(1, inputs, outputs, &[axis]).layout(Layout::Nhwc);
                    Case::new(shape.desc(), Values::Continuous, (rows * MOST_VECTORS + vectors) as u64)
                };
                // A position at each edge is a class of its own.
                let edges = layer(3, channels, Axis::new(3, 3).padding(1, 1));
                for theta in [None, Some(0.25), Some(f32::NEG_INFINITY)] {
                    let with_theta = |case: Case| match theta {
                        Some(theta) => case.with_theta(Theta::Uniform(theta)),
                        None => case,
                    };
                    // Rows are positions, and output channels for the weight.
                    let rows_of = |inputs, outputs| with_theta(layer(inputs, outputs, Axis::new(rows, 1)));
                    for (case, pass, tuning) in [
                        (with_theta(edges.clone()), Pass::Forward, usual),
                        (with_theta(edges.clone()), Pass::Forward, packs),
                        (rows_of(channels + 3, channels), Pass::Forward, usual),
                        (rows_of(channels + 3, channels), Pass::Forward, packs),
                        (rows_of(channels, 5), Pass::BackwardInput, usual),
                        (with_theta(layer(channels, rows, Axis::new(3, 1))), Pass::BackwardWeight, usual),
                        (with_theta(layer(vectors * lanes, rows, Axis::new(3, 1))), Pass::BackwardWeight, usual),
                        (with_theta(layer(less, rows, Axis::new(3, 1))), Pass::BackwardWeight, usual),
                    ] {
                        let results = run(&plan(case.desc, isa, Some(tuning)), pass, &case, How::default(), None);
                        Expected::new(&case, pass)
                            .check(&results, None, || format!("{pass:?} on {isa}, {rows} rows, {vectors} vectors"));
                    }
                }
            }
        }
        for tiles in Tiles::all() {
            let unseen: Vec<_> = tiles.unseen(isa).collect();
            assert!(unseen.is_empty(), "{tiles:?} on {isa}: tiles [kind, rows, vectors] that never ran: {unseen:?}");
        }
    }
}
