//! What a call demands of its buffers, and that the guards around them work.

use convrelu::{
    BackwardInput, BackwardWeight, ConvDesc, ConvRelu, Error, Forward, Gradient, InputGradients, Layout, Pass, Serial,
    Thresholds, Weight, WeightGradients,
};

use crate::common::{Axis, Case, Expected, Guarded, How, PASSES, Placement, Shape, Values, isas, plan, run};

/// Lengths that a pass needs, in the order of its arguments.
fn required(plan: &ConvRelu, pass: Pass) -> Vec<(&'static str, usize)> {
    let desc = plan.desc();
    let workspace = ("workspace", plan.workspace_len(pass));
    let (input, weight) = (("input", desc.input_len()), ("weight", desc.weight_len()));
    let thresholds = ("thresholds", desc.threshold_len());
    let grad_output = ("grad_output", desc.output_len());
    match pass {
        Pass::Forward => {
            vec![input, weight, thresholds, ("bias", desc.bias_len()), ("output", desc.output_len()), workspace]
        }
        Pass::ForwardPacked => vec![weight, ("buffer", plan.packed_weight_len()), workspace],
        Pass::BackwardInput | Pass::BackwardInputPacked => {
            let gradients = [("grad_input", desc.input_len()), ("grad_thresholds", desc.threshold_len())];
            [vec![input, weight, thresholds, grad_output], gradients.to_vec(), vec![workspace]].concat()
        }
        Pass::BackwardWeight => {
            let gradients = [("grad_weight", desc.weight_len()), ("grad_bias", desc.bias_len())];
            [vec![input, thresholds, grad_output], gradients.to_vec(), vec![workspace]].concat()
        }
    }
}

/// Makes a call in which `argument` is `len` long and everything else as long as needed.
fn call(plan: &ConvRelu, pass: Pass, argument: &str, len: usize) -> Result<(), Error> {
    let desc = plan.desc();
    let buffer = |name: &str, required: usize| vec![0.0f32; if name == argument { len } else { required }];
    let input = buffer("input", desc.input_len());
    let weight = buffer("weight", desc.weight_len());
    let thresholds = buffer("thresholds", desc.threshold_len());
    let bias = buffer("bias", desc.bias_len());
    let grad_output = buffer("grad_output", desc.output_len());
    let mut workspace = buffer("workspace", plan.workspace_len(pass));
    let (input, weight, grad_output) = (&input[..], &weight[..], &grad_output[..]);
    let thresholds = Thresholds::PerTap(&thresholds);
    let packed_len = match pass {
        Pass::BackwardInputPacked => plan.packed_weight_transposed_len(),
        _ => plan.packed_weight_len(),
    };
    let mut memory = buffer("buffer", packed_len);
    let packed;
    let weight = match pass {
        Pass::ForwardPacked => {
            packed = plan.pack_weight(weight, &mut memory)?;
            Weight::Packed(&packed)
        }
        Pass::BackwardInputPacked => {
            packed = plan.pack_weight_transposed(weight, &mut memory)?;
            Weight::Packed(&packed)
        }
        _ => Weight::Plain(weight),
    };
    match pass {
        Pass::Forward | Pass::ForwardPacked => {
            let mut output = buffer("output", desc.output_len());
            let operands = Forward::new(input, weight, thresholds).bias(&bias);
            plan.forward(operands, &mut output, &mut workspace, &Serial)
        }
        Pass::BackwardInput | Pass::BackwardInputPacked => {
            let mut grad_input = buffer("grad_input", desc.input_len());
            let mut grad_thresholds = buffer("grad_thresholds", desc.threshold_len());
            let gradients = InputGradients::new()
                .input(Gradient::overwrite(&mut grad_input))
                .thresholds(Gradient::overwrite(&mut grad_thresholds));
            let operands = BackwardInput::new(input, weight, thresholds, grad_output);
            plan.backward_input(operands, gradients, &mut workspace, &Serial)
        }
        Pass::BackwardWeight => {
            let mut grad_weight = buffer("grad_weight", desc.weight_len());
            let mut grad_bias = buffer("grad_bias", desc.bias_len());
            let gradients = WeightGradients::new()
                .weight(Gradient::overwrite(&mut grad_weight))
                .bias(Gradient::overwrite(&mut grad_bias));
            let operands = BackwardWeight::new(input, thresholds, grad_output);
            plan.backward_weight(operands, gradients, &mut workspace, &Serial)
        }
    }
}

fn descs() -> impl Iterator<Item = ConvDesc> {
    let axis = Axis::new(9, 3).padding(1, 1);
    let shapes = [
        Shape::new(2, 3, 5, &[axis; 2]),
        Shape::new(1, 20, 33, &[axis]),
        Shape::new(1, 1, 1, &[axis; 2]).groups(6),
        Shape::new(1, 2, 2, &[Axis::new(1, 1); 3]),
        Shape::new(2, 3, 5, &[axis; 2]).gaps([5, 2]),
        Shape::new(2, 1, 1, &[axis; 2]).groups(8).gaps([3, 8]),
    ];
    shapes.into_iter().flat_map(|shape| [Layout::Nchw, Layout::Nhwc].map(|layout| shape.clone().layout(layout).desc()))
}

/// One element less than needed is refused by name, nothing at all too; exactly enough and more is not.
#[test]
fn every_length_is_checked() {
    for desc in descs() {
        for isa in isas() {
            for threads in [1, 3] {
                let plan = plan(desc, isa, None).with_threads(threads);
                for pass in PASSES {
                    for (argument, required) in required(&plan, pass) {
                        for len in [required, required + 1, 2 * required] {
                            assert_eq!(
                                call(&plan, pass, argument, len),
                                Ok(()),
                                "{argument} of {len}, {pass:?} on {isa}"
                            );
                        }
                        for len in [0, required.saturating_sub(1)] {
                            if len < required {
                                let error = Error::BufferTooShort { argument, len, required };
                                assert_eq!(call(&plan, pass, argument, len), Err(error), "{pass:?} on {isa}");
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Every offset from the start of an allocation to beyond a cache line of the widest vectors.
#[test]
fn every_alignment() {
    for desc in descs() {
        let case = Case::new(desc, Values::Continuous, 13);
        for pass in PASSES {
            let expected = Expected::new(&case, pass);
            for isa in isas() {
                for offset in 0..=16 {
                    let how = How { at: Placement { offset, slack: offset % 4 }, ..How::default() };
                    let results = run(&plan(desc, isa, None), pass, &case, how, None);
                    expected.check(&results, None, || format!("{pass:?} on {isa}, offset {offset}: {desc:?}"));
                }
            }
        }
    }
}

/// An absent bias is a bias of zeros.
#[test]
fn the_bias_is_optional() {
    for desc in descs() {
        let with = Case { bias: Some(vec![0.0; desc.bias_len()]), ..Case::new(desc, Values::Integers, 14) };
        let without = with.clone().without_bias();
        for isa in isas() {
            let plan = plan(desc, isa, None);
            let [with, without] = [&with, &without].map(|case| run(&plan, Pass::Forward, case, How::default(), None));
            assert_eq!(with.values, without.values, "{isa}: {desc:?}");
        }
    }
}

const AT: Placement = Placement { offset: 1, slack: 2 };

#[test]
fn guarded_values_come_back() {
    let mut buffer = Guarded::new(&[1.0, 2.0], AT);
    assert_eq!(buffer.slice().len(), 4);
    buffer.slice_mut()[1] = 3.0;
    assert_eq!(buffer.into_values("buffer"), [1.0, 3.0]);
    assert!(Guarded::unwritten(1, AT).into_values("buffer")[0].is_nan());
}

#[test]
#[should_panic = "element 2 was written, outside of 0..2"]
fn the_excess_of_a_buffer_is_guarded() {
    let mut buffer = Guarded::new(&[1.0, 2.0], AT);
    buffer.slice_mut()[2] = 0.0;
    buffer.into_values("buffer");
}
