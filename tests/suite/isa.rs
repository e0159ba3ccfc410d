//! Detection and forcing of instruction sets.

use std::str::FromStr;

use convrelu::{ConvDesc, ConvRelu, Error, Isa, Pass};

use crate::common::{Axis, Shape, isas};

/// A green run must not hide a kernel that was skipped.
#[test]
fn required_instruction_sets_are_available() {
    let Ok(required) = std::env::var("CONVRELU_REQUIRE_ISA") else { return };
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let isa = Isa::from_str(name).unwrap_or_else(|error| panic!("CONVRELU_REQUIRE_ISA names {name}: {error}"));
        let available: Vec<Isa> = Isa::available().collect();
        assert!(
            available.contains(&isa) && isas().any(|tested| tested == isa),
            "CONVRELU_REQUIRE_ISA names {isa}, which this machine lacks: it has {available:?}"
        );
    }
}

/// For emulated CPUs, of which it is known what they have and what not.
#[test]
fn the_expected_instruction_set_is_detected() {
    let Ok(name) = std::env::var("CONVRELU_EXPECT_ISA") else { return };
    let expected = Isa::from_str(&name).unwrap_or_else(|error| panic!("CONVRELU_EXPECT_ISA={name}: {error}"));
    assert_eq!(Isa::detect(), expected);
    let all = [Isa::Simd128, Isa::Neon, Isa::Avx2, Isa::Avx512];
    let better: Vec<Isa> = all.into_iter().filter(|&isa| isa > expected).collect();
    assert!(!better.iter().any(|isa| isa.is_available()), "one of {better:?} is available");
}

#[test]
fn the_best_available_is_detected() {
    assert_eq!(Isa::available().max(), Some(Isa::detect()));
    assert!(Isa::available().is_sorted());
    assert!(Isa::available().all(|isa| isa != Isa::Emulated512), "emulation is for tests alone");
    let desc = Shape::new(1, 1, 1, &[Axis::new(1, 1)]).desc();
    assert_eq!(ConvRelu::new(desc).isa(), Isa::detect());
    for isa in isas() {
        assert_eq!(ConvRelu::with_isa(desc, isa).map(|plan| plan.isa()), Ok(isa));
    }
}

#[test]
fn names_are_parsed() {
    for isa in [Isa::Scalar, Isa::Simd128, Isa::Neon, Isa::Avx2, Isa::Avx512] {
        assert_eq!(isa.to_string().parse(), Ok(isa));
        assert_eq!(isa.name().to_uppercase().parse(), Ok(isa));
    }
    let error = "sse9".parse::<Isa>().unwrap_err();
    assert_eq!(error.to_string(), "an instruction set is one of scalar, simd128, neon, avx2, avx512");
}

/// What the target promises is there, and a constant plan is the plan that run time makes.
#[test]
fn the_baseline_is_available() {
    const DESC: ConvDesc = match ConvDesc::conv2d(3, 5, 7, [9, 11], [3, 3]).padding([1, 1]).build() {
        Ok(desc) => desc,
        Err(_) => panic!("a constant descriptor"),
    };
    const PLAN: ConvRelu = ConvRelu::baseline(DESC);
    const LENS: [usize; 5] = [
        PLAN.workspace_len(Pass::Forward),
        PLAN.workspace_len(Pass::BackwardInput),
        PLAN.workspace_len(Pass::BackwardWeight),
        PLAN.packed_weight_len(),
        PLAN.packed_weight_transposed_len(),
    ];
    assert!(Isa::BASELINE.is_available() && Isa::BASELINE <= Isa::detect());
    let plan = ConvRelu::with_isa(DESC, Isa::BASELINE).unwrap().with_threads(1);
    assert_eq!(format!("{PLAN:?}"), format!("{plan:?}"));
    let passes = [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight];
    let workspaces = passes.map(|pass| plan.workspace_len(pass));
    assert_eq!(LENS[..3], workspaces);
    assert_eq!(LENS[3..], [plan.packed_weight_len(), plan.packed_weight_transposed_len()]);
}

/// No machine has both families.
#[test]
fn another_architecture_is_refused() {
    let isa = if cfg!(target_arch = "x86_64") { Isa::Neon } else { Isa::Avx2 };
    let desc = Shape::new(1, 1, 1, &[Axis::new(1, 1)]).desc();
    assert_eq!(ConvRelu::with_isa(desc, isa).err(), Some(Error::IsaUnavailable { isa }));
}
