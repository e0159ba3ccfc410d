//! Gradients that are sums over positions, over more of them than an f32 can count one by one.

use convrelu::{ConvDesc, Layout, Pass};

use crate::common::{Case, How, Theta, Values, isas, plan, run};

/// 2²⁵ ones and some, in one image or in many: added one after another, they would sum up to 2²⁴.
#[test]
fn millions_of_positions_are_counted() {
    for (batch, width) in [(1, (1 << 25) + 64), (1 << 21, 16)] {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let desc = ConvDesc::conv1d(batch, 1, 1, [width], [1]).layout(layout).build().unwrap();
            let mut case = Case::new(desc, Values::Integers, 0).without_bias().with_theta(Theta::Uniform(1.0));
            for values in [&mut case.input, &mut case.weight, &mut case.grad_output] {
                values.fill(1.0);
            }
            let count = (batch * width) as f32;
            for isa in isas() {
                let plan = plan(desc, isa, None);
                let results = run(&plan, Pass::BackwardWeight, &case, How::default(), None);
                assert_eq!((results.main(), results.second()), (&[count][..], &[count][..]), "{isa}, {layout:?}");
                for theta in [Theta::PerTap(vec![1.0]), Theta::Uniform(1.0)] {
                    let case = case.clone().with_theta(theta);
                    let how = How { wanted: [false, true], ..How::default() };
                    let results = run(&plan, Pass::BackwardInput, &case, how, None);
                    assert_eq!(results.second(), [count], "{isa}, {layout:?}");
                }
            }
        }
    }
}
