//! How much stack a call takes: 64 KiB at most, on every instruction set of the machine.
//!
//! Where nothing is optimised it takes more: `CONVRELU_STACK_KIB` sets another limit. (`.ci/stack` builds this file in such a
//! crate, with 256.)
#![cfg(all(unix, not(miri)))]

use std::hint::black_box;

use convrelu::{
    BackwardInput, BackwardWeight, ConvDesc, ConvDescBuilder, ConvRelu, Epilogue, Forward, Gradient, InputGradients,
    Isa, Layout, Pass, Residual, Serial, Thresholds, Weight, WeightGradients,
};

/// Bytes of stack that are watched.
const WATCHED: usize = 1 << 20;

/// Bytes of stack of the thread that makes the calls: more than any of them needs that fails.
const STACK: usize = 64 << 20;

/// Bytes below a frame that what watches the stack may need itself. A call that takes less is taken to need so many.
const OWN: usize = 4096;

const PATTERN: u64 = 0x5a17_c0de_5a17_c0de;

/// Bytes of stack below the frame of this function that `call` writes to. On a thread with [`STACK`] bytes.
#[inline(never)]
fn stack_of(call: &mut dyn FnMut()) -> usize {
    let mut here = 0u64;
    let top = (&raw mut here).expose_provenance() & !7;
    let words = (WATCHED - OWN) / size_of::<u64>();
    let first = std::ptr::with_exposed_provenance_mut::<u64>(top - WATCHED);
    // SAFETY: the words lie in the stack of this thread, for it is far larger and begins little above this frame. Nobody uses
    // them now: they lie below all frames, this one's and those of the functions that are called meanwhile, which fit into
    // `OWN` bytes. Volatile, for to the compiler they are in no variable.
    unsafe { (0..words).for_each(|word| first.add(word).write_volatile(PATTERN)) };
    call();
    // SAFETY: as above. Frames that are no more have left some bits.
    let untouched = (0..words).take_while(|word| unsafe { first.add(*word).read_volatile() } == PATTERN).count();
    black_box(&mut here);
    WATCHED - untouched * size_of::<u64>()
}

/// A layer with channels first and one with channels last.
fn both<const R: usize>(builder: ConvDescBuilder<R>) -> [ConvDesc; 2] {
    [Layout::Nchw, Layout::Nhwc].map(|layout| builder.layout(layout).build().unwrap())
}

/// Layers that between them take every path, with the largest tiles and with partial ones.
fn layers() -> Vec<ConvDesc> {
    let mut layers = Vec::new();
    for channels in [[64, 48], [32, 24], [24, 64], [48, 16], [16, 48], [8, 12], [5, 7], [2, 33], [1, 3]] {
        layers.extend(both(ConvDesc::conv2d(2, channels[0], channels[1], [4, 5], [3, 3]).padding([1, 1])));
    }
    // One tap; one position; several groups; steps.
    layers.extend(both(ConvDesc::conv2d(1, 64, 48, [5, 5], [1, 1])));
    layers.extend(both(ConvDesc::conv2d(3, 33, 40, [3, 3], [3, 3])));
    layers.extend(both(ConvDesc::conv2d(2, 32, 48, [5, 6], [3, 3]).groups(2).padding([1, 1])));
    layers.extend(both(ConvDesc::conv2d(1, 16, 24, [9, 8], [3, 3]).stride([2, 2]).padding([1, 1])));
    layers.extend(both(ConvDesc::conv2d(1, 16, 24, [9, 8], [3, 2]).dilation([2, 3]).padding([2, 2])));
    // Wide planes, of few channels too.
    layers.extend(both(ConvDesc::conv2d(1, 16, 24, [13, 13], [3, 3])));
    layers.extend(both(ConvDesc::conv2d(1, 3, 5, [18, 20], [5, 5]).padding([2, 2])));
    layers.extend(both(ConvDesc::conv2d(1, 3, 20, [18, 20], [3, 3])));
    layers.extend(both(ConvDesc::conv2d(1, 4, 26, [16, 17], [3, 3])));
    // Other ranks.
    layers.extend(both(ConvDesc::conv1d(2, 16, 24, [40], [5]).padding([2])));
    layers.extend(both(ConvDesc::conv3d(1, 8, 12, [3, 4, 5], [2, 3, 3]).padding([1, 1, 1])));
    // Images and work for all threads.
    layers.extend(both(ConvDesc::conv2d(128, 32, 16, [3, 5], [3, 3]).padding([1, 1])));
    // Depthwise.
    for channels in [32, 16, 5] {
        let builder = ConvDesc::conv2d(2, channels, channels, [6, 19], [3, 3]);
        layers.extend(both(builder.groups(channels).padding([1, 1])));
    }
    layers.extend(both(ConvDesc::conv2d(1, 16, 16, [9, 9], [3, 3]).groups(16).stride([2, 2])));
    layers
}

/// Small numbers of both signs.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7 % 11) as f32 * 0.25 - 1.0).collect()
}

/// The stack that the passes of a plan take at most, by name.
fn stacks_of(plan: &ConvRelu) -> Vec<(&'static str, usize)> {
    let desc = plan.desc();
    let (input, weight, grad_output) =
        (numbers(desc.input_len()), numbers(desc.weight_len()), numbers(desc.output_len()));
    let (per_tap, bias) = (numbers(desc.threshold_len()), numbers(desc.bias_len()));
    let mut output = vec![0.0; desc.output_len()];
    let (mut grad_input, mut grad_thresholds) = (vec![0.0; desc.input_len()], vec![0.0; desc.threshold_len()]);
    let (mut grad_weight, mut grad_bias) = (vec![0.0; desc.weight_len()], vec![0.0; desc.bias_len()]);
    let passes = [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight];
    let mut workspace = vec![0.0; passes.map(|pass| plan.workspace_len(pass)).into_iter().max().unwrap()];
    let mut packed = vec![0.0; plan.packed_weight_len().max(plan.packed_weight_transposed_len())];
    let thresholds = [Thresholds::PerTap(&per_tap), Thresholds::RELU, Thresholds::Uniform(0.25), Thresholds::LINEAR];
    // More threads make room for more jobs, whatever the thresholds are.
    let thresholds = if plan.threads() == 1 { &thresholds[..] } else { &thresholds[..1] };
    let (plain, input, workspace) = (Weight::Plain(&weight), &input[..], &mut workspace[..]);

    let pack = stack_of(&mut || assert!(plan.pack_weight(&weight, &mut packed).is_ok()));
    let forward = stack_of(&mut || {
        for &thresholds in thresholds {
            let operands = Forward::new(input, plain, thresholds).bias(&bias);
            plan.forward(operands, &mut output, workspace, &Serial).unwrap();
            let epilogue = Epilogue::new().scale(&bias).shift(&bias).clamp(0.0, 6.0);
            for residual in [Residual::Output, Residual::Tensor(&grad_output)] {
                let operands = operands.epilogue(epilogue.residual(residual));
                plan.forward(operands, &mut output, workspace, &Serial).unwrap();
            }
        }
    });
    let pack_transposed = stack_of(&mut || assert!(plan.pack_weight_transposed(&weight, &mut packed).is_ok()));
    let backward_input = stack_of(&mut || {
        for &thresholds in thresholds {
            let per_threshold = if matches!(thresholds, Thresholds::PerTap(_)) { grad_thresholds.len() } else { 1 };
            let operands = BackwardInput::new(input, plain, thresholds, &grad_output);
            let gradients = InputGradients::new().input(Gradient::overwrite(&mut grad_input));
            plan.backward_input(operands, gradients, workspace, &Serial).unwrap();
            let operands = BackwardInput::new(input, plain, thresholds, &grad_output);
            let gradients =
                InputGradients::new().thresholds(Gradient::overwrite(&mut grad_thresholds[..per_threshold]));
            plan.backward_input(operands, gradients, workspace, &Serial).unwrap();
            let operands = BackwardInput::new(input, plain, thresholds, &grad_output);
            let gradients = InputGradients::new()
                .input(Gradient::add(&mut grad_input))
                .thresholds(Gradient::add(&mut grad_thresholds[..per_threshold]));
            plan.backward_input(operands, gradients, workspace, &Serial).unwrap();
        }
        let operands = BackwardInput::linear(plain, &grad_output);
        let gradients = InputGradients::new().input(Gradient::overwrite(&mut grad_input));
        plan.backward_input(operands, gradients, workspace, &Serial).unwrap();
    });
    let backward_weight = stack_of(&mut || {
        for &thresholds in thresholds {
            let gradients = WeightGradients::new()
                .weight(Gradient::overwrite(&mut grad_weight))
                .bias(Gradient::overwrite(&mut grad_bias));
            let operands = BackwardWeight::new(input, thresholds, &grad_output);
            plan.backward_weight(operands, gradients, workspace, &Serial).unwrap();
            let gradients =
                WeightGradients::new().weight(Gradient::add(&mut grad_weight)).bias(Gradient::add(&mut grad_bias));
            let operands = BackwardWeight::new(input, thresholds, &grad_output);
            plan.backward_weight(operands, gradients, workspace, &Serial).unwrap();
        }
    });
    vec![
        ("pack_weight", pack),
        ("pack_weight_transposed", pack_transposed),
        ("forward", forward),
        ("backward_input", backward_input),
        ("backward_weight", backward_weight),
    ]
}

/// What runs on a thread with [`STACK`] bytes.
fn on_a_large_stack<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).unwrap();
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn a_call_takes_little_stack() {
    let limit = std::env::var("CONVRELU_STACK_KIB").map_or(64, |limit| limit.parse().unwrap()) * 1024;
    on_a_large_stack(|| {
        let mut worst = Vec::new();
        for isa in Isa::available() {
            for desc in layers() {
                // Jobs wait on the stack: room for 8, 32 or 128.
                for threads in [1, 4, 16, 128] {
                    let mut plan = None;
                    let made =
                        stack_of(&mut || plan = Some(ConvRelu::with_isa(desc, isa).unwrap().with_threads(threads)));
                    let plan = plan.unwrap();
                    let passes = stacks_of(&plan).into_iter().chain([("with_isa", made)]);
                    worst.extend(passes.map(|(pass, stack)| (stack, pass, isa, threads, desc)));
                }
            }
        }
        worst.sort_by_key(|(stack, ..)| std::cmp::Reverse(*stack));
        let mut told = Vec::new();
        for (stack, pass, isa, threads, desc) in worst {
            // The worst of each pass and instruction set.
            if !told.contains(&(pass, isa)) {
                told.push((pass, isa));
                println!("{stack:7} bytes: {pass} on {isa}, threads: {threads}");
            }
            assert!(stack <= limit, "{pass} on {isa} takes {stack} bytes of stack, threads: {threads}: {desc:?}");
        }
    });
}

/// What is measured is what is taken.
#[test]
fn the_stack_that_a_function_takes_is_seen() {
    #[inline(never)]
    fn takes<const LEN: usize>() {
        black_box([1u8; LEN]);
    }
    on_a_large_stack(|| {
        assert_eq!(stack_of(&mut || ()), OWN);
        let taken = [stack_of(&mut takes::<{ 70 << 10 }>), stack_of(&mut takes::<{ 300 << 10 }>)];
        // Where nothing is optimised, an array is there twice.
        assert!((70 << 10..150 << 10).contains(&taken[0]), "{taken:?}");
        assert!((300 << 10..650 << 10).contains(&taken[1]), "{taken:?}");
        // Again less: each is measured anew.
        assert_eq!(stack_of(&mut || ()), OWN);
    });
}

/// Without it, a path that no layer takes might take any stack.
#[cfg(feature = "internal-testing")]
#[test]
fn the_layers_take_every_path() {
    for isa in Isa::available() {
        let plans = || layers().into_iter().map(|desc| ConvRelu::with_isa(desc, isa).unwrap());
        let has = |name: &str, found: Vec<String>| {
            assert!(found.iter().any(|found| found == name), "{name} on {isa}: {found:?}")
        };
        for algorithm in ["Direct", "BatchReduce", "Depthwise"] {
            has(algorithm, plans().map(|plan| format!("{:?}", plan.forward_algorithm())).collect());
        }
        for algorithm in ["Progressions", "Planar", "Depthwise"] {
            // A single lane is never half empty.
            if isa != Isa::Scalar || algorithm != "Planar" {
                has(algorithm, plans().map(|plan| format!("{:?}", plan.backward_input_algorithm())).collect());
            }
        }
        for algorithm in ["panels", "stripes", "patches", "taps in lanes", "depthwise"] {
            if isa != Isa::Scalar || !["patches", "taps in lanes"].contains(&algorithm) {
                has(algorithm, plans().map(|plan| plan.backward_weight_algorithm().to_owned()).collect());
            }
        }
    }
}
