//! Every buffer of every call against a page that no access survives: before its first element, and behind its last.
//!
//! Guard words (the suite's) see writes; these pages see reads as well, of one element, masked or not.
#![cfg(unix)]

// Other tests use the rest.
#[allow(dead_code, unused_imports)]
mod common;
#[allow(dead_code)]
#[path = "suite/strategy.rs"]
mod strategy;
#[allow(dead_code)]
#[path = "suite/transposed/layer.rs"]
mod transposed;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use convrelu::{
    Accumulation, BackwardInput, BackwardWeight, ConvRelu, Epilogue, Forward, Gradient, InputGradients, Layout, Pass,
    Residual, Serial, Thresholds, Weight, WeightGradients, adarelu,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use common::{Axis, Case, How, PASSES, Results, Rng, Shape, Tensor, Theta, Values, Workers, isas, plan, run};

/// Room for the largest buffer of a case; pages that are never touched cost nothing. With `PROPTEST_RNG_SEED=323`, one takes 39 MiB.
const ROOM: usize = 64 << 20;

/// What outputs and workspaces hold before a call.
const STALE: f32 = f32::from_bits(0x7fc0_beef);

/// Which end of a buffer lies against a page without access.
#[derive(Clone, Copy, Debug)]
enum Edge {
    Start,
    End,
}

const EDGES: [Edge; 2] = [Edge::Start, Edge::End];

/// Memory between two pages without access.
struct Region {
    mapping: *mut libc::c_void,
    page: usize,
}

impl Region {
    fn new() -> Self {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a page size");
        assert!(ROOM.is_multiple_of(page));
        // SAFETY: a mapping of its own, of which the middle is then made accessible.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
            let mapping = libc::mmap(ptr::null_mut(), ROOM + 2 * page, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(mapping.byte_add(page), ROOM, libc::PROT_READ | libc::PROT_WRITE), 0);
            Self { mapping, page }
        }
    }

    /// `len` stale elements that begin, or end, where the accessible memory does.
    fn stale(&mut self, len: usize, edge: Edge) -> &mut [f32] {
        let bytes = len * size_of::<f32>();
        assert!(bytes <= ROOM, "{len} elements");
        let skipped = match edge {
            Edge::Start => 0,
            Edge::End => ROOM - bytes,
        };
        // SAFETY: inside of the mapping, aligned (pages and lengths are multiples of an element), zeros at first; borrowed
        // as the region is.
        let buffer = unsafe { slice::from_raw_parts_mut(self.mapping.byte_add(self.page + skipped).cast(), len) };
        buffer.fill(STALE);
        buffer
    }

    /// A copy of `values` there.
    fn copy(&mut self, values: &[f32], edge: Edge) -> &mut [f32] {
        let buffer = self.stale(values.len(), edge);
        buffer.copy_from_slice(values);
        buffer
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: nothing borrows the mapping any more.
        unsafe { libc::munmap(self.mapping, ROOM + 2 * self.page) };
    }
}

/// One region for each buffer that a call may have, used for all cases.
struct Regions([Region; 12]);

impl Regions {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Region::new()))
    }

    /// What [`run`] does, with every buffer exactly as long as it must be and at an edge of its region.
    fn run(&mut self, plan: &ConvRelu, pass: Pass, case: &Case, call: &Call<'_>, edge: Edge) -> [Option<Vec<u32>>; 2] {
        let [input, weight, thresholds, bias, grad_output, main, other, workspace, packed, scale, shift, residual] =
            &mut self.0;
        let (desc, linear) = (&case.desc, case.theta.is_linear());
        let workspace = workspace.stale(plan.workspace_len(pass), edge);
        let forward = matches!(pass, Pass::Forward | Pass::ForwardPacked);
        let lens = match pass {
            Pass::Forward | Pass::ForwardPacked => [desc.output_len(), 0],
            Pass::BackwardInput | Pass::BackwardInputPacked => [desc.input_len(), case.theta.grad_len(desc)],
            Pass::BackwardWeight => [desc.weight_len(), desc.bias_len()],
        };
        let ending = case.ending.as_ref().filter(|_| forward);
        let before = |which: usize| ending.filter(|_| which == 0).and_then(|ending| ending.before());
        let prior = |which: usize| call.prior.and_then(|prior| prior.values[which].as_ref());
        let wanted = [forward || call.wanted[0], !forward && call.wanted[1]];
        let (main, other) = (main.stale(lens[0], edge), other.stale(lens[1], edge));
        for (which, buffer) in [&mut *main, &mut *other].into_iter().enumerate() {
            if let Some(prior) = before(which).or(prior(which)) {
                buffer.copy_from_slice(prior);
            }
        }
        let (input, weight) = (&*input.copy(&case.input, edge), &*weight.copy(&case.weight, edge));
        let thresholds = match &case.theta {
            Theta::Uniform(theta) => Thresholds::Uniform(*theta),
            Theta::PerTap(theta) => Thresholds::PerTap(thresholds.copy(theta, edge)),
        };
        let bias = case.bias.as_ref().map(|values| &*bias.copy(values, edge));
        let grad_output = &*grad_output.copy(&case.grad_output, edge);
        let packed_weight;
        let weight = match pass {
            Pass::ForwardPacked => {
                packed_weight = plan.pack_weight(weight, packed.stale(plan.packed_weight_len(), edge)).unwrap();
                Weight::Packed(&packed_weight)
            }
            Pass::BackwardInputPacked => {
                let buffer = packed.stale(plan.packed_weight_transposed_len(), edge);
                packed_weight = plan.pack_weight_transposed(weight, buffer).unwrap();
                Weight::Packed(&packed_weight)
            }
            _ => Weight::Plain(weight),
        };
        let accumulation = |which| if prior(which).is_some() { Accumulation::Add } else { Accumulation::Overwrite };
        let gradients = [(0, &mut *main), (1, &mut *other)]
            .map(|(which, buffer)| wanted[which].then(|| Gradient::new(buffer, accumulation(which))));
        let [first, second] = gradients;
        match pass {
            Pass::Forward | Pass::ForwardPacked => {
                let mut operands = Forward::new(input, weight, thresholds);
                operands.bias = bias;
                operands.epilogue = ending.map(|ending| {
                    let mut epilogue = Epilogue::new().clamp(ending.bounds[0], ending.bounds[1]);
                    epilogue.scale = ending.scale.as_ref().map(|values| &*scale.copy(values, edge));
                    epilogue.shift = ending.shift.as_ref().map(|values| &*shift.copy(values, edge));
                    epilogue.residual = ending.residual.as_ref().map(|values| match ending.in_output {
                        true => Residual::Output,
                        false => Residual::Tensor(residual.copy(values, edge)),
                    });
                    epilogue
                });
                let output = first.map_or(&mut [][..], |output| output.values);
                plan.forward(operands, output, workspace, &call.workers)
            }
            Pass::BackwardInput | Pass::BackwardInputPacked => {
                let mut operands = BackwardInput::new(input, weight, thresholds, grad_output);
                operands.input = operands.input.filter(|_| !linear);
                let mut gradients = InputGradients::new();
                (gradients.grad_input, gradients.grad_thresholds) = (first, second);
                plan.backward_input(operands, gradients, workspace, &call.workers)
            }
            Pass::BackwardWeight => {
                let mut gradients = WeightGradients::new();
                (gradients.grad_weight, gradients.grad_bias) = (first, second);
                plan.backward_weight(
                    BackwardWeight::new(input, thresholds, grad_output),
                    gradients,
                    workspace,
                    &call.workers,
                )
            }
        }
        .unwrap();
        [wanted[0].then(|| bits(main)), wanted[1].then(|| bits(other))]
    }
}

/// What varies between calls beside the case.
#[derive(Debug)]
struct Call<'a> {
    wanted: [bool; 2],
    prior: Option<&'a Results>,
    workers: Workers,
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The call that is being made, for the handler.
static CALL: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static CALL_LEN: AtomicUsize = AtomicUsize::new(0);

/// Runs `call`; should it touch a page that it must not, `text` says what it was.
fn announced<T>(text: &str, call: impl FnOnce() -> T) -> T {
    CALL_LEN.store(0, Ordering::SeqCst);
    CALL.store(text.as_ptr().cast_mut(), Ordering::SeqCst);
    CALL_LEN.store(text.len(), Ordering::SeqCst);
    let result = call();
    CALL_LEN.store(0, Ordering::SeqCst);
    result
}

/// Says which call it was, and lets the signal do what it does by default when the access is tried again.
extern "C" fn report(signal: libc::c_int) {
    const TEXT: &[u8] = b"\naccess outside of the buffers by ";
    // SAFETY: `write` and `signal` may be called by handlers; the text lives as long as its length is not zero.
    unsafe {
        libc::write(2, TEXT.as_ptr().cast(), TEXT.len());
        libc::write(2, CALL.load(Ordering::SeqCst).cast(), CALL_LEN.load(Ordering::SeqCst));
        libc::write(2, b"\n".as_ptr().cast(), 1);
        libc::signal(signal, libc::SIG_DFL);
    }
}

fn report_faults() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: an action of zeros is the default one; the handler keeps to what handlers may do.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = report as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_ONSTACK;
            assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
        }
    }
}

#[test]
fn convolutions_stay_inside() {
    report_faults();
    let regions = RefCell::new(Regions::new());
    let tuning = prop_oneof![2 => Just(strategy::usual()), 1 => strategy::tuning()];
    let case = prop_oneof![7 => strategy::case(), 1 => strategy::long_case(), 1 => strategy::depthwise_case()];
    let case = strategy::perhaps_ending(case);
    let who = (strategy::threads(), strategy::workers());
    let cases = (case, tuning, who, any::<[bool; 2]>(), any::<[bool; 2]>());
    let check = |(case, tuning, (threads, workers), wanted, adds): (Case, _, _, [bool; 2], [bool; 2])| {
        for isa in isas() {
            let plan = plan(case.desc, isa, Some(tuning)).with_threads(threads);
            for pass in PASSES {
                let backward = !matches!(pass, Pass::Forward | Pass::ForwardPacked);
                let adds = [0, 1].map(|which| backward && adds[which] && wanted[which]);
                let prior = Results::prior(&case, pass, adds, strategy::prior(case.made.1));
                let how = How { wanted, workers, ..How::default() };
                let usual = run(&plan, pass, &case, how, Some(&prior)).bits();
                let call = Call { wanted, prior: Some(&prior), workers };
                for edge in EDGES {
                    let text = format!(
                        "{pass:?} on {isa}, {edge:?}, threads: {threads}, {workers:?}, {wanted:?} {adds:?} {tuning:?}: {case:?}"
                    );
                    let mut results = announced(&text, || regions.borrow_mut().run(&plan, pass, &case, &call, edge));
                    hide_gaps(&mut results[0], &usual[0], pass, &case);
                    assert!(results == usual, "other bits than usual from {text}");
                }
            }
        }
        Ok(())
    };
    TestRunner::new(strategy::config(1)).run(&cases, check).unwrap();
}

/// Gaps between pixels and images hold whatever they held before.
fn hide_gaps(results: &mut Option<Vec<u32>>, usual: &Option<Vec<u32>>, pass: Pass, case: &Case) {
    let tensor = match pass {
        Pass::Forward | Pass::ForwardPacked => Tensor::Output,
        Pass::BackwardInput | Pass::BackwardInputPacked => Tensor::Input,
        Pass::BackwardWeight => return,
    };
    if let (Some(results), Some(usual)) = (results, usual) {
        for (i, (result, usual)) in results.iter_mut().zip(usual).enumerate() {
            if tensor.is_gap(&case.desc, i) {
                *result = *usual;
            }
        }
    }
}

#[test]
fn transposed_convolutions_stay_inside() {
    report_faults();
    let regions = RefCell::new(Regions::new());
    let tuning = prop_oneof![2 => Just(strategy::usual()), 1 => strategy::tuning()];
    let cases = (transposed::case(20_000), tuning, (strategy::threads(), strategy::workers()), any::<[bool; 2]>());
    let check = |(case, tuning, (threads, workers), adds): (transposed::Case, _, _, [bool; 2])| {
        let how = How { workers, ..How::default() };
        for isa in isas() {
            let plan = transposed::plan(case.desc, isa, Some(tuning)).with_threads(threads);
            for pass in PASSES {
                let lens = transposed::lens(&case.desc, pass);
                let backward = !matches!(pass, Pass::Forward | Pass::ForwardPacked);
                let mut fill = strategy::prior(5);
                let prior = [0, 1].map(|which| (backward && adds[which]).then(|| fill(lens[which])));
                let usual = transposed::run(&plan, pass, &case, how, Some(&prior));
                for edge in EDGES {
                    let text = format!(
                        "{pass:?} on {isa}, {edge:?}, threads: {threads}, {workers:?} {adds:?} {tuning:?}: {case:?}"
                    );
                    let mut results = announced(&text, || {
                        let [x, w, b, g, main, second, workspace, packed, ..] = &mut regions.borrow_mut().0;
                        let (main, second) = (main.stale(lens[0], edge), second.stale(lens[1], edge));
                        let mut outputs =
                            [Some((main, Accumulation::Overwrite)), Some((second, Accumulation::Overwrite))];
                        for (output, prior) in outputs.iter_mut().zip(&prior) {
                            if let (Some((output, accumulation)), Some(prior)) = (output, prior) {
                                output.copy_from_slice(prior);
                                *accumulation = Accumulation::Add;
                            }
                        }
                        let [main, second] = outputs.each_mut().map(Option::as_mut);
                        let given = transposed::Buffers {
                            input: x.copy(&case.input, edge),
                            weight: w.copy(&case.weight, edge),
                            bias: case.bias.as_ref().map(|bias| &*b.copy(bias, edge)),
                            grad_output: g.copy(&case.grad_output, edge),
                            outputs: [main, second].map(|output| output.map(|(values, how)| (&mut **values, *how))),
                            packed: packed.stale(transposed::packed_len(&plan, pass), edge),
                            workspace: workspace.stale(plan.workspace_len(pass), edge),
                        };
                        transposed::call(&plan, pass, given, how).unwrap();
                        outputs.map(|output| output.map(|(values, _)| values.to_vec()))
                    });
                    if let ([Some(main), _], [Some(usual), _]) = (&mut results, &usual)
                        && let Some(tensor) = transposed::written(&case.desc, pass)
                    {
                        let pairs = main.iter_mut().zip(usual).enumerate();
                        pairs.filter(|(i, _)| tensor.is_gap(*i)).for_each(|(_, (result, usual))| *result = *usual);
                    }
                    let results = [0, 1].map(|which| usual[which].as_ref().and(results[which].clone()));
                    assert!(
                        transposed::bits(&results) == transposed::bits(&usual),
                        "other bits than usual from {text}"
                    );
                }
            }
        }
        Ok(())
    };
    TestRunner::new(strategy::config(2)).run(&cases, check).unwrap();
}

#[test]
fn adarelu_stays_inside() {
    report_faults();
    let regions = RefCell::new(Regions::new());
    let cases = (1..=70usize, prop_oneof![Just(1usize), 2..=40usize], 0..=4usize, any::<bool>(), any::<u64>());
    let check = |(thresholds, inner, periods, adds, seed): (usize, usize, usize, bool, u64)| {
        let len = thresholds * inner * periods;
        let mut rng = Rng(seed);
        let mut values = |len| rng.values(Values::Quantised, len);
        let (x, theta, g) = (values(len), values(thresholds), values(len));
        let (dx, dtheta) = (values(len), values(thresholds));
        let accumulation = if adds { Accumulation::Add } else { Accumulation::Overwrite };
        let mut usual = [vec![STALE; len], dx.clone(), dtheta.clone()];
        let [y, usual_dx, usual_dtheta] = &mut usual;
        adarelu::forward(&x, &theta, inner, y).unwrap();
        adarelu::backward(&x, &theta, inner, &g, usual_dx, usual_dtheta, accumulation).unwrap();
        for edge in EDGES {
            let text = format!("adarelu of {thresholds} · {inner} · {periods}, {edge:?}, {accumulation:?}");
            let results = announced(&text, || {
                let [a, b, c, d, e, f, ..] = &mut regions.borrow_mut().0;
                let (x, theta, g) = (a.copy(&x, edge), b.copy(&theta, edge), c.copy(&g, edge));
                let (y, dx, dtheta) = (d.stale(len, edge), e.copy(&dx, edge), f.copy(&dtheta, edge));
                adarelu::forward(x, theta, inner, y).unwrap();
                adarelu::backward(x, theta, inner, g, dx, dtheta, accumulation).unwrap();
                [bits(y), bits(dx), bits(dtheta)]
            });
            assert!(results == usual.each_ref().map(|values| bits(values)), "other bits than usual from {text}");
        }
        Ok(())
    };
    TestRunner::new(strategy::config(1)).run(&cases, check).unwrap();
}

/// The signal that ends a child process which does what `touch` does. `touch` must not allocate: another thread may have
/// held the allocator's lock when the process was copied.
fn signal_of(touch: impl FnOnce()) -> Option<i32> {
    // SAFETY: the child touches memory, and ends without returning to the test harness.
    unsafe {
        let child = libc::fork();
        assert_ne!(child, -1);
        if child == 0 {
            let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &no_core);
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
            let done = catch_unwind(AssertUnwindSafe(touch));
            libc::_exit(i32::from(done.is_err()));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        if libc::WIFSIGNALED(status) {
            return Some(libc::WTERMSIG(status));
        }
        assert_eq!(libc::WEXITSTATUS(status), 0, "the child panicked");
        None
    }
}

fn is_fault(signal: Option<i32>) -> bool {
    matches!(signal, Some(libc::SIGSEGV | libc::SIGBUS))
}

#[test]
fn one_element_too_far_is_fatal() {
    for len in [1, 7, 1024, 5000] {
        let mut region = Region::new();
        for (edge, beyond) in [(Edge::Start, -1), (Edge::End, len as isize)] {
            let first = region.stale(len, edge).as_mut_ptr();
            let last = len as isize - 1;
            for (at, fatal) in [(0, false), (last, false), (beyond, true)] {
                let element = first.wrapping_offset(at);
                // SAFETY: in a child process, and volatile: it is done as it is said.
                let read = signal_of(|| unsafe {
                    element.read_volatile();
                });
                // SAFETY: as above.
                let written = signal_of(|| unsafe { element.write_volatile(0.0) });
                assert_eq!((is_fault(read), is_fault(written)), (fatal, fatal), "{at} of {len}, {edge:?}");
            }
        }
    }
}

/// Buffers one element shorter than the kernels are told: each kernel that trusted a wrong length would be found.
#[test]
fn kernels_that_go_too_far_are_fatal() {
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let desc = Shape::new(1, 5, 6, &[Axis::new(7, 3); 2]).layout(layout).desc();
        let lens = [desc.input_len(), desc.weight_len(), desc.threshold_len(), desc.bias_len(), desc.output_len()];
        for isa in isas() {
            // Without other threads: there are none in a child.
            let plan = plan(desc, isa, None).with_threads(1);
            let mut workspace = vec![0.0; plan.workspace_len(Pass::Forward)];
            for edge in EDGES {
                for short in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
                    let mut regions = Regions::new();
                    let mut firsts = [ptr::null_mut::<f32>(); 5];
                    for (i, first) in firsts.iter_mut().enumerate() {
                        let missing = usize::from(short == Some(i));
                        let buffer = regions.0[i].stale(lens[i] - missing, edge);
                        buffer.fill(0.5);
                        *first = match edge {
                            Edge::Start => buffer.as_mut_ptr().wrapping_sub(missing),
                            Edge::End => buffer.as_mut_ptr(),
                        };
                    }
                    let signal = signal_of(|| {
                        // SAFETY: in a child process; the element that does not exist is what this is about.
                        let [input, weight, thresholds, bias, output] =
                            std::array::from_fn(|i| unsafe { slice::from_raw_parts_mut(firsts[i], lens[i]) });
                        let (weight, thresholds) = (Weight::Plain(weight), Thresholds::PerTap(thresholds));
                        let operands = Forward::new(input, weight, thresholds).bias(bias);
                        assert!(plan.forward(operands, output, &mut workspace, &Serial).is_ok());
                    });
                    assert_eq!(is_fault(signal), short.is_some(), "{short:?} short, {edge:?}, {isa}, {layout:?}");
                }
            }
        }
    }
}
