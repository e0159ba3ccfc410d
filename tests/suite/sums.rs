//! Gradients that are sums over positions, over more of them than an f32 can count one by one.

use convrelu::{ConvDesc, Isa, Layout, Pass};

use crate::common::{Case, How, Theta, Values, isas, plan, run};

/// 2²⁴ ones and some, in one image or in many: added one after another, they would sum up to 2²⁴.
#[test]
fn millions_of_positions_are_counted() {
    for (batch, width) in [(1, (1 << 24) + 64), ((1 << 20) + 4, 16)] {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let desc = ConvDesc::conv1d(batch, 1, 1, [width], [1]).layout(layout).build().unwrap();
            let mut case = Case::new(desc, Values::Integers, 0).without_bias();
            for values in [&mut case.input, &mut case.weight, &mut case.grad_output] {
                values.fill(1.0);
            }
            let count = (batch * width) as f32;
            // Sixteen emulated lanes count as those of AVX-512 do, and take most of the time.
            let isas = || isas().filter(|isa| *isa != Isa::Emulated512);
            for theta in [Theta::PerTap(vec![1.0]), Theta::Uniform(1.0)] {
                case.theta = theta;
                for isa in isas() {
                    let plan = plan(desc, isa, None);
                    let how = How { wanted: [false, true], ..How::default() };
                    let results = run(&plan, Pass::BackwardInput, &case, how, None);
                    assert_eq!(results.second(), [count], "{isa}, {layout:?}");
                }
            }
            for isa in isas() {
                let results = run(&plan(desc, isa, None), Pass::BackwardWeight, &case, How::default(), None);
                assert_eq!((results.main(), results.second()), (&[count][..], &[count][..]), "{isa}, {layout:?}");
            }
        }
    }
}

/// A large term hides the small ones that are added to it, but no more of them than the partial sum has that it is in.
#[test]
fn a_large_term_hides_one_segment_at_most() {
    const POSITIONS: usize = 10 * 8192;
    const LARGE: f32 = (1 << 25) as f32;
    for (layout, inputs) in [Layout::Nchw, Layout::Nhwc].into_iter().flat_map(|layout| [9, 40].map(|c| (layout, c))) {
        for (batch, width) in [(1, POSITIONS), (POSITIONS / 64, 64)] {
            let desc = ConvDesc::conv1d(batch, inputs, 1, [width], [1]).layout(layout).build().unwrap();
            let mut case = Case::new(desc, Values::Integers, 0).without_bias();
            for values in [&mut case.input, &mut case.weight, &mut case.grad_output] {
                values.fill(1.0);
            }
            case.grad_output[0] = LARGE;
            let case = case.with_theta(Theta::PerTap(vec![1.0; inputs]));
            for isa in isas() {
                let plan = plan(desc, isa, None);
                let results = run(&plan, Pass::BackwardInput, &case, How::default(), None);
                // What follows the large term's own segment, but for the rounding of so many partial sums.
                let least = LARGE + (POSITIONS - 2 * 8192) as f32 - 64.0;
                assert!(results.second().iter().all(|sum| *sum >= least), "{isa}: {:?}, {desc:?}", results.second());
            }
        }
    }
}
