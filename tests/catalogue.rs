//! The catalogue of bad input: every mistake that a caller can make, through the Rust and the C interface, with the error
//! and the sentence that each must give, and proof that nothing was written.

// Other tests use the rest.
#[allow(dead_code, unused_imports)]
mod common;
#[path = "common/rehash.rs"]
mod rehash;

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::ptr;

use convrelu::capi::convrelu_status::{self as Status, *};
use convrelu::capi::*;
use convrelu::transposed::{self, ConvTranspose, ConvTransposeDesc};
use convrelu::{
    Accumulation, BackwardInput, BackwardInputAlgorithm, BackwardWeight, ConvDesc, ConvDescBuilder, ConvRelu, Epilogue,
    Error, Executor, Forward, ForwardAlgorithm, Gradient, InputGradients, Isa, Layout, PackedWeight, Pass, Residual,
    Serial, Thresholds, Tuning, Weight, WeightGradients, adarelu,
};

use common::{Axis, Case, Expected, How, PASSES, Results, Rng, Shape, Tensor, Theta, Values, isas, run};

/// What everything that may be written holds before.
const STALE: f32 = f32::from_bits(0x7fc0_beef);

/// Every call that takes buffers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Pass(Pass),
    /// A forward pass with an epilogue.
    Ended(Pass),
    /// For this pass.
    Pack(Pass),
    /// Of C alone: Rust's types say what is packed.
    CheckPacked(Pass),
    AdareluForward,
    AdareluBackward,
}

const CALLS: [Call; 13] = [
    Call::Pass(Pass::Forward),
    Call::Pass(Pass::ForwardPacked),
    Call::Pass(Pass::BackwardInput),
    Call::Pass(Pass::BackwardInputPacked),
    Call::Pass(Pass::BackwardWeight),
    Call::Ended(Pass::Forward),
    Call::Ended(Pass::ForwardPacked),
    Call::Pack(Pass::ForwardPacked),
    Call::Pack(Pass::BackwardInputPacked),
    Call::CheckPacked(Pass::ForwardPacked),
    Call::CheckPacked(Pass::BackwardInputPacked),
    Call::AdareluForward,
    Call::AdareluBackward,
];

/// Of the elementwise calls: 30 elements, such that one element or threshold less is no shape any more.
const ELEMENTS: usize = 30;
const THETAS: usize = 5;
const INNER: usize = 2;

/// Between which values an epilogue keeps the outputs, unless a row says otherwise.
const BOUNDS: [f32; 2] = [-0.75, 1.5];

fn is_packed(pass: Pass) -> bool {
    matches!(pass, Pass::ForwardPacked | Pass::BackwardInputPacked)
}

/// A buffer of a call.
#[derive(Clone, Debug)]
struct Buffer {
    name: &'static str,
    memory: Vec<f32>,
    written: bool,
}

/// Bit patterns of everything that a call was given.
fn snapshot(buffers: &[Buffer]) -> Vec<Vec<u32>> {
    buffers.iter().map(|buffer| bits(&buffer.memory)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// What runs the tasks of a call.
type Behaviour = fn(usize, &(dyn Fn(usize) + Sync));

/// That of a Rust caller, if any.
struct Behaves(Option<Behaviour>);

impl Executor for Behaves {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        match self.0 {
            None => Serial.run(tasks, task),
            Some(behaviour) => behaviour(tasks, task),
        }
    }
}

/// That of a C caller: the context is where a [`Behaviour`] lies.
unsafe extern "C" fn parallel_for(context: *mut c_void, tasks: usize, task: convrelu_task, task_context: *mut c_void) {
    struct Shared(*mut c_void);
    // SAFETY: what the header says: a task runs on any thread.
    unsafe impl Sync for Shared {}
    let shared = Shared(task_context);
    // SAFETY: the context that `Raw::call` gives.
    let behaviour = unsafe { *context.cast::<Behaviour>() };
    behaviour(tasks, &|index| {
        let Shared(task_context) = &shared;
        // SAFETY: with the context that belongs to it, before this function returns.
        unsafe { task(*task_context, index) };
    });
}

/// Another caller, who keeps the context of the tasks to himself.
unsafe extern "C" fn forgetful(_: *mut c_void, tasks: usize, task: convrelu_task, _: *mut c_void) {
    // SAFETY: null is no task.
    (0..tasks).for_each(|index| unsafe { task(ptr::null_mut(), index) });
}

/// What a call is asked for, where that is not all there is, written anew, on the calling thread.
#[derive(Clone, Copy, Default)]
struct Asked<'a> {
    /// Instead of the thresholds of the layer.
    uniform: Option<f32>,
    /// Buffers that are left out.
    without: &'a [&'a str],
    /// Whether gradients, or the output of an epilogue, are added to what is there.
    adds: [bool; 2],
    /// Instead of [`BOUNDS`].
    bounds: Option<[f32; 2]>,
    behaviour: Option<Behaviour>,
}

impl Asked<'_> {
    fn uniform(threshold: f32) -> Self {
        Self { uniform: Some(threshold), ..Self::default() }
    }

    fn has(&self, name: &str) -> bool {
        !self.without.contains(&name)
    }

    fn executor(&self) -> Behaves {
        Behaves(self.behaviour)
    }

    fn gradient<'b>(&self, buffer: &'b mut Buffer, which: usize) -> Option<Gradient<'b>> {
        let accumulation = if self.adds[which] { Accumulation::Add } else { Accumulation::Overwrite };
        self.has(buffer.name).then(|| Gradient::new(&mut buffer.memory, accumulation))
    }
}

/// A layer, planned for Rust and for C, and its weight, packed by C for both passes.
struct Layer {
    /// Of a transposed convolution, that of the mirrored one, whose output is this one's input; but the bias is its own.
    case: Case,
    plan: ConvRelu,
    transposed: Option<ConvTranspose>,
    c: convrelu_plan,
    packed: [Vec<f32>; 2],
}

impl Layer {
    fn new(desc: ConvDesc, isa: Isa) -> Self {
        Self::of(Case::new(desc, Values::Continuous, 31), None, c_plan(&c_desc(&desc), isa), isa)
    }

    /// The transposed convolution that mirrors one.
    fn transposed(mirrored: ConvDesc, isa: Isa) -> Self {
        let mut case = Case::new(mirrored, Values::Continuous, 31);
        case.bias = Some(Rng(7).values(Values::Continuous, mirrored.in_channels()));
        let c = c_transposed(&mirrored);
        let plan = ConvTranspose::with_isa(rust_transposed(&c).unwrap(), isa).unwrap();
        Self::of(case, Some(plan), c_plan(&c, isa), isa)
    }

    fn of(case: Case, transposed: Option<ConvTranspose>, c: convrelu_plan, isa: Isa) -> Self {
        let plan = ConvRelu::with_isa(case.desc, isa).unwrap();
        let mut layer = Self { case, plan, transposed, c, packed: [const { Vec::new() }; 2] };
        layer.packed = [Pass::ForwardPacked, Pass::BackwardInputPacked].map(|pass| {
            let mut buffers = layer.buffers(Call::Pack(pass), true);
            let (status, message) = Raw::new(&layer, Call::Pack(pass), &mut buffers).call();
            assert_eq!(status, CONVRELU_OK, "{message}");
            buffers.swap_remove(1).memory
        });
        layer
    }

    /// The same layer, whose calls split into tasks.
    fn with_threads(self, threads: usize) -> Self {
        let mut c = self.c;
        // SAFETY: a plan.
        assert_eq!(unsafe { convrelu_plan_set_threads(&mut c, threads, ptr::null_mut()) }, CONVRELU_OK);
        let transposed = self.transposed.map(|plan| plan.with_threads(threads));
        Self { plan: self.plan.with_threads(threads), transposed, c, ..self }
    }

    /// The calls that there are of such a layer.
    fn calls(&self) -> impl Iterator<Item = Call> + use<> {
        let transposed = self.transposed.is_some();
        let plain = |call: &Call| matches!(call, Call::Ended(_) | Call::AdareluForward | Call::AdareluBackward);
        CALLS.into_iter().filter(move |call| !(transposed && plain(call)))
    }

    /// Where the input and the output lie.
    fn tensors(&self) -> [Tensor; 2] {
        if self.transposed.is_some() { [Tensor::Output, Tensor::Input] } else { [Tensor::Input, Tensor::Output] }
    }

    /// What a pass takes whose gradients are written anew.
    fn workspace_len(&self, pass: Pass) -> usize {
        match (pass, &self.transposed) {
            (_, None) => self.plan.workspace_len(pass),
            // Room for what is to be added is not needed.
            (Pass::BackwardInput, Some(_)) => self.plan.workspace_len(Pass::Forward),
            (Pass::BackwardInputPacked, Some(_)) => self.plan.workspace_len(Pass::ForwardPacked),
            (_, Some(plan)) => plan.workspace_len(pass),
        }
    }

    /// Elements of the weight, packed for a pass by Rust.
    fn packed_len(&self, pass: Pass) -> usize {
        let [forward, transposed] = match &self.transposed {
            None => [self.plan.packed_weight_len(), self.plan.packed_weight_transposed_len()],
            Some(plan) => [plan.packed_weight_len(), plan.packed_weight_transposed_len()],
        };
        if pass == Pass::ForwardPacked { forward } else { transposed }
    }

    /// The same layer with other values.
    fn with_case(&self, case: &Case) -> Self {
        Self { case: case.clone(), packed: self.packed.clone(), ..*self }
    }

    fn packed(&self, pass: Pass) -> &[f32] {
        &self.packed[usize::from(pass == Pass::BackwardInputPacked)]
    }

    /// Good buffers for a call, exactly as long as it needs, in the order of its arguments.
    fn buffers(&self, call: Call, c: bool) -> Vec<Buffer> {
        let Case { input, weight, bias, grad_output, .. } = &self.case;
        let (desc, transposed, mut own) = (self.plan.desc(), self.transposed.is_some(), [input, grad_output]);
        let mut lens = [desc.input_len(), desc.output_len()];
        if transposed {
            own.reverse();
            lens.reverse();
        }
        let ([input, grad_output], [input_len, output_len]) = (own, lens);
        let bias_len = bias.as_ref().unwrap().len();
        let read = |name, values: &[f32]| Buffer { name, memory: values.to_vec(), written: false };
        let write = |name, len: usize| Buffer { name, memory: vec![STALE; len], written: true };
        let input = || read("input", input);
        let weight = |pass| read("weight", if c && is_packed(pass) { self.packed(pass) } else { weight });
        let thresholds = || read("thresholds", &self.case.theta.per_tap(desc));
        let grad_output = || read("grad_output", grad_output);
        let workspace = |pass| write("workspace", self.workspace_len(pass));
        let header = if c { 16 } else { 0 };
        let bias = || read("bias", bias.as_ref().unwrap());
        match call {
            Call::Pass(pass @ (Pass::Forward | Pass::ForwardPacked)) if transposed => {
                vec![input(), weight(pass), bias(), write("output", output_len), workspace(pass)]
            }
            Call::Pass(pass @ (Pass::BackwardInput | Pass::BackwardInputPacked)) if transposed => {
                vec![weight(pass), grad_output(), write("grad_input", input_len), workspace(pass)]
            }
            Call::Pass(pass @ (Pass::Forward | Pass::ForwardPacked)) => {
                vec![input(), weight(pass), thresholds(), bias(), write("output", output_len), workspace(pass)]
            }
            Call::Ended(pass) => {
                let channels =
                    |from: usize| -> Vec<f32> { (0..bias_len).map(|d| (from + d % 5) as f32 / 4.0).collect() };
                let mut buffers = self.buffers(Call::Pass(pass), c);
                // What is a gradient of the output lies as a residual does.
                let residual = grad_output().memory;
                buffers.extend([read("scale", &channels(2)), read("shift", &channels(1)), read("residual", &residual)]);
                buffers
            }
            Call::Pass(pass @ (Pass::BackwardInput | Pass::BackwardInputPacked)) => {
                let (grad_input, grad_thresholds) =
                    (write("grad_input", input_len), write("grad_thresholds", self.case.theta.grad_len(desc)));
                let gradients = [grad_input, grad_thresholds, workspace(pass)];
                [vec![input(), weight(pass), thresholds(), grad_output()], gradients.to_vec()].concat()
            }
            Call::Pass(pass @ Pass::BackwardWeight) => {
                let (grad_weight, grad_bias) = (write("grad_weight", desc.weight_len()), write("grad_bias", bias_len));
                let mut buffers = vec![input(), thresholds(), grad_output(), grad_weight, grad_bias, workspace(pass)];
                if transposed {
                    buffers.remove(1);
                }
                buffers
            }
            Call::Pack(pass) => vec![weight(Pass::Forward), write("buffer", self.packed_len(pass) + header)],
            Call::CheckPacked(pass) => vec![weight(pass)],
            Call::AdareluForward => {
                let (x, theta) = (vec![0.5; ELEMENTS], vec![0.25; THETAS]);
                vec![read("input", &x), read("thresholds", &theta), write("output", ELEMENTS)]
            }
            Call::AdareluBackward => {
                let (x, theta) = (vec![0.5; ELEMENTS], vec![0.25; THETAS]);
                vec![
                    read("input", &x),
                    read("thresholds", &theta),
                    read("grad_output", &x),
                    write("grad_input", ELEMENTS),
                    write("grad_thresholds", THETAS),
                ]
            }
        }
    }

    /// Makes a call of the Rust interface; `None` where it has none such.
    fn rust(&self, call: Call, buffers: &mut [Buffer], asked: &Asked<'_>) -> Option<Result<(), Error>> {
        if let Some(plan) = &self.transposed {
            return self.rust_transposed(plan, call, buffers, asked);
        }
        let plan = &self.plan;
        let mut memory = vec![0.0; plan.packed_weight_len().max(plan.packed_weight_transposed_len())];
        let packed;
        let theta = |thetas| match (asked.uniform, &self.case.theta) {
            (Some(theta), _) | (None, &Theta::Uniform(theta)) => Thresholds::Uniform(theta),
            (None, Theta::PerTap(_)) => Thresholds::PerTap(thetas),
        };
        let executor = &asked.executor();
        Some(match (call, buffers) {
            (Call::Pass(pass @ (Pass::Forward | Pass::ForwardPacked)), [x, w, t, b, y, workspace]) => {
                packed = pack(plan, pass, &w.memory, &mut memory);
                let weight = packed.as_ref().map_or(Weight::Plain(&w.memory), Weight::Packed);
                let mut operands = Forward::new(&x.memory, weight, theta(&t.memory));
                operands.bias = asked.has("bias").then_some(&b.memory);
                plan.forward(operands, &mut y.memory, &mut workspace.memory, executor)
            }
            (Call::Ended(pass), [x, w, t, b, y, workspace, scale, shift, residual]) => {
                packed = pack(plan, pass, &w.memory, &mut memory);
                let weight = packed.as_ref().map_or(Weight::Plain(&w.memory), Weight::Packed);
                let [low, high] = asked.bounds.unwrap_or(BOUNDS);
                let mut epilogue = Epilogue::new().clamp(low, high);
                let optional = |buffer: &'_ Buffer| asked.has(buffer.name);
                epilogue.scale = optional(scale).then_some(&scale.memory);
                epilogue.shift = optional(shift).then_some(&shift.memory);
                epilogue.residual = match (optional(residual), asked.adds[0]) {
                    (true, false) => Some(Residual::Tensor(&residual.memory)),
                    (false, true) => Some(Residual::Output),
                    (false, false) => None,
                    (true, true) => panic!("Rust cannot say so"),
                };
                let mut operands = Forward::new(&x.memory, weight, theta(&t.memory)).epilogue(epilogue);
                operands.bias = asked.has("bias").then_some(&b.memory);
                plan.forward(operands, &mut y.memory, &mut workspace.memory, executor)
            }
            (Call::Pass(pass @ (Pass::BackwardInput | Pass::BackwardInputPacked)), [x, w, t, g, dx, dt, workspace]) => {
                packed = pack(plan, pass, &w.memory, &mut memory);
                let weight = packed.as_ref().map_or(Weight::Plain(&w.memory), Weight::Packed);
                let mut operands = BackwardInput::new(&x.memory, weight, theta(&t.memory), &g.memory);
                operands.input = operands.input.filter(|_| asked.has("input"));
                let mut gradients = InputGradients::new();
                gradients.grad_input = asked.gradient(dx, 0);
                gradients.grad_thresholds = asked.gradient(dt, 1);
                plan.backward_input(operands, gradients, &mut workspace.memory, executor)
            }
            (Call::Pass(Pass::BackwardWeight), [x, t, g, dw, db, workspace]) => {
                let operands = BackwardWeight::new(&x.memory, theta(&t.memory), &g.memory);
                let mut gradients = WeightGradients::new();
                gradients.grad_weight = asked.gradient(dw, 0);
                gradients.grad_bias = asked.gradient(db, 1);
                plan.backward_weight(operands, gradients, &mut workspace.memory, executor)
            }
            (Call::Pack(Pass::ForwardPacked), [w, buffer]) => {
                plan.pack_weight(&w.memory, &mut buffer.memory).map(|_| ())
            }
            (Call::Pack(_), [w, buffer]) => plan.pack_weight_transposed(&w.memory, &mut buffer.memory).map(|_| ()),
            (Call::CheckPacked(_), _) => return None,
            (Call::AdareluForward, [x, t, y]) => adarelu::forward(&x.memory, &t.memory, INNER, &mut y.memory),
            (Call::AdareluBackward, [x, t, g, dx, dt]) => {
                let accumulation = if asked.adds[0] { Accumulation::Add } else { Accumulation::Overwrite };
                adarelu::backward(&x.memory, &t.memory, INNER, &g.memory, &mut dx.memory, &mut dt.memory, accumulation)
            }
            (call, buffers) => panic!("{call:?} has other buffers than {buffers:?}"),
        })
    }
}

impl Layer {
    /// The same of a transposed convolution.
    fn rust_transposed(
        &self,
        plan: &ConvTranspose,
        call: Call,
        buffers: &mut [Buffer],
        asked: &Asked<'_>,
    ) -> Option<Result<(), Error>> {
        let mut memory = vec![0.0; plan.packed_weight_len().max(plan.packed_weight_transposed_len())];
        let executor = &asked.executor();
        let packed;
        Some(match (call, buffers) {
            (Call::Pass(pass @ (Pass::Forward | Pass::ForwardPacked)), [x, w, b, y, workspace]) => {
                packed = is_packed(pass).then(|| plan.pack_weight(&w.memory, &mut memory).unwrap());
                let weight = packed.as_ref().map_or(Weight::Plain(&w.memory), Weight::Packed);
                let mut operands = transposed::Forward::new(&x.memory, weight);
                operands.bias = asked.has("bias").then_some(&b.memory);
                plan.forward(operands, &mut y.memory, &mut workspace.memory, executor)
            }
            (Call::Pass(pass @ (Pass::BackwardInput | Pass::BackwardInputPacked)), [w, g, dx, workspace]) => {
                packed = is_packed(pass).then(|| plan.pack_weight_transposed(&w.memory, &mut memory).unwrap());
                let weight = packed.as_ref().map_or(Weight::Plain(&w.memory), Weight::Packed);
                let operands = transposed::BackwardInput::new(weight, &g.memory);
                match asked.gradient(dx, 0) {
                    Some(gradient) => plan.backward_input(operands, gradient, &mut workspace.memory, executor),
                    // Rust makes no such call.
                    None => Ok(()),
                }
            }
            (Call::Pass(Pass::BackwardWeight), [x, g, dw, db, workspace]) => {
                let mut gradients = WeightGradients::new();
                gradients.grad_weight = asked.gradient(dw, 0);
                gradients.grad_bias = asked.gradient(db, 1);
                let operands = transposed::BackwardWeight::new(&x.memory, &g.memory);
                plan.backward_weight(operands, gradients, &mut workspace.memory, executor)
            }
            (Call::Pack(Pass::ForwardPacked), [w, buffer]) => {
                plan.pack_weight(&w.memory, &mut buffer.memory).map(|_| ())
            }
            (Call::Pack(_), [w, buffer]) => plan.pack_weight_transposed(&w.memory, &mut buffer.memory).map(|_| ()),
            (Call::CheckPacked(_), _) => return None,
            (call, buffers) => panic!("{call:?} has other buffers than {buffers:?}"),
        })
    }
}

/// The weight, packed for a pass that takes it so.
fn pack<'a>(plan: &ConvRelu, pass: Pass, weight: &[f32], memory: &'a mut [f32]) -> Option<PackedWeight<'a>> {
    match pass {
        Pass::ForwardPacked => Some(plan.pack_weight(weight, memory).unwrap()),
        Pass::BackwardInputPacked => Some(plan.pack_weight_transposed(weight, memory).unwrap()),
        _ => None,
    }
}

/// How a pointer to a struct is handed over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pointer {
    Good,
    Null,
    Misaligned,
}

impl Pointer {
    fn of<T>(self, value: &T) -> *const T {
        match self {
            Self::Good => value,
            Self::Null => ptr::null(),
            Self::Misaligned => ptr::from_ref(value).wrapping_byte_add(1),
        }
    }
}

/// A call of the C interface in the making: rows spoil its fields.
#[derive(Clone)]
struct Raw {
    call: Call,
    plan: convrelu_plan,
    plan_at: Pointer,
    args_at: Pointer,
    error_at: Pointer,
    error_size: usize,
    args_size: Option<usize>,
    epilogue_at: Pointer,
    /// All but its buffers.
    epilogue: convrelu_epilogue,
    /// Which reserved field of the arguments is not zero.
    reserved: Option<usize>,
    buffers: Vec<(&'static str, *mut f32, usize)>,
    pass: u32,
    weight_kind: u32,
    threshold_kind: u32,
    threshold: f32,
    /// Of each gradient; the elementwise call has but the first.
    accumulation: [u32; 2],
    inner: usize,
    parallel_for: convrelu_parallel_for,
    behaviour: Behaviour,
}

impl Raw {
    fn new(layer: &Layer, call: Call, buffers: &mut [Buffer]) -> Self {
        let pass = match call {
            Call::Pass(pass) | Call::Ended(pass) | Call::Pack(pass) | Call::CheckPacked(pass) => pass,
            _ => Pass::Forward,
        };
        let (threshold_kind, threshold) = match layer.case.theta {
            _ if layer.transposed.is_some() => (CONVRELU_THRESHOLDS_UNSET, f32::NAN),
            Theta::PerTap(_) => (CONVRELU_THRESHOLDS_PER_TAP, f32::NAN),
            Theta::Uniform(theta) => uniform_kind(theta),
        };
        Self {
            call,
            plan: layer.c,
            plan_at: Pointer::Good,
            args_at: Pointer::Good,
            error_at: Pointer::Good,
            error_size: size_of::<convrelu_error>(),
            args_size: None,
            epilogue_at: if matches!(call, Call::Ended(_)) { Pointer::Good } else { Pointer::Null },
            epilogue: convrelu_epilogue { low: BOUNDS[0], high: BOUNDS[1], ..no_epilogue() },
            reserved: None,
            buffers: buffers.iter_mut().map(|b| (b.name, b.memory.as_mut_ptr(), b.memory.len())).collect(),
            pass: number(pass),
            weight_kind: if is_packed(pass) { CONVRELU_WEIGHT_PACKED } else { CONVRELU_WEIGHT_PLAIN },
            threshold_kind,
            threshold,
            accumulation: [CONVRELU_OVERWRITE; 2],
            inner: INNER,
            parallel_for: None,
            behaviour: |_, _| (),
        }
    }

    /// As the Rust interface is asked.
    fn ask(&mut self, asked: &Asked<'_>) {
        if let Some(uniform) = asked.uniform {
            (self.threshold_kind, self.threshold) = uniform_kind(uniform);
        }
        for buffer in self.buffers.iter_mut().filter(|buffer| !asked.has(buffer.0)) {
            buffer.1 = ptr::null_mut();
        }
        self.accumulation = asked.adds.map(|adds| if adds { CONVRELU_ADD } else { CONVRELU_OVERWRITE });
        self.epilogue.output_accumulation = self.accumulation[0];
        [self.epilogue.low, self.epilogue.high] = asked.bounds.unwrap_or(BOUNDS);
        if let Some(behaviour) = asked.behaviour {
            self.parallel_for = Some(parallel_for);
            self.behaviour = behaviour;
        }
    }

    fn buffer(&mut self, name: &str) -> &mut (&'static str, *mut f32, usize) {
        self.buffers.iter_mut().find(|buffer| buffer.0 == name).unwrap()
    }

    fn has_plan(&self) -> bool {
        !matches!(self.call, Call::AdareluForward | Call::AdareluBackward)
    }

    fn has_args(&self) -> bool {
        matches!(self.call, Call::Pass(_) | Call::Ended(_) | Call::AdareluBackward)
    }

    fn given(&self, name: &str) -> Option<(*mut f32, usize)> {
        self.buffers.iter().find(|buffer| buffer.0 == name).map(|&(_, data, len)| (data, len))
    }

    fn input(&self, name: &str) -> convrelu_input {
        let (data, len) = self.given(name).unwrap_or((ptr::null_mut(), 0));
        convrelu_input { data, len }
    }

    fn output(&self, name: &str) -> convrelu_output {
        let (data, len) = self.given(name).unwrap_or((ptr::null_mut(), 0));
        convrelu_output { data, len }
    }

    fn reserved<const N: usize>(&self) -> [u32; N] {
        let mut fields = [0; N];
        if let Some(which) = self.reserved {
            fields[which % N] = 1;
        }
        fields
    }

    fn forward_args(&self, epilogue: &convrelu_epilogue, context: *mut c_void) -> convrelu_forward_args {
        convrelu_forward_args {
            struct_size: self.args_size.unwrap_or(size_of::<convrelu_forward_args>()),
            input: self.input("input"),
            weight: self.input("weight"),
            thresholds: self.input("thresholds"),
            bias: self.input("bias"),
            output: self.output("output"),
            workspace: self.output("workspace"),
            epilogue: self.epilogue_at.of(epilogue),
            parallel_for: self.parallel_for,
            context,
            weight_kind: self.weight_kind,
            threshold_kind: self.threshold_kind,
            threshold: self.threshold,
            reserved: self.reserved(),
        }
    }

    fn backward_input_args(&self, context: *mut c_void) -> convrelu_backward_input_args {
        convrelu_backward_input_args {
            struct_size: self.args_size.unwrap_or(size_of::<convrelu_backward_input_args>()),
            input: self.input("input"),
            weight: self.input("weight"),
            thresholds: self.input("thresholds"),
            grad_output: self.input("grad_output"),
            grad_input: self.output("grad_input"),
            grad_thresholds: self.output("grad_thresholds"),
            workspace: self.output("workspace"),
            parallel_for: self.parallel_for,
            context,
            weight_kind: self.weight_kind,
            threshold_kind: self.threshold_kind,
            threshold: self.threshold,
            grad_input_accumulation: self.accumulation[0],
            grad_thresholds_accumulation: self.accumulation[1],
            reserved: self.reserved(),
        }
    }

    fn backward_weight_args(&self, context: *mut c_void) -> convrelu_backward_weight_args {
        convrelu_backward_weight_args {
            struct_size: self.args_size.unwrap_or(size_of::<convrelu_backward_weight_args>()),
            input: self.input("input"),
            thresholds: self.input("thresholds"),
            grad_output: self.input("grad_output"),
            grad_weight: self.output("grad_weight"),
            grad_bias: self.output("grad_bias"),
            workspace: self.output("workspace"),
            parallel_for: self.parallel_for,
            context,
            threshold_kind: self.threshold_kind,
            threshold: self.threshold,
            grad_weight_accumulation: self.accumulation[0],
            grad_bias_accumulation: self.accumulation[1],
            reserved: self.reserved(),
        }
    }

    fn adarelu_backward_args(&self) -> convrelu_adarelu_backward_args {
        convrelu_adarelu_backward_args {
            struct_size: self.args_size.unwrap_or(size_of::<convrelu_adarelu_backward_args>()),
            input: self.input("input"),
            thresholds: self.input("thresholds"),
            grad_output: self.input("grad_output"),
            grad_input: self.output("grad_input"),
            grad_thresholds: self.output("grad_thresholds"),
            inner: self.inner,
            accumulation: self.accumulation[0],
            reserved: self.reserved(),
        }
    }

    /// The status, and the sentence of its error.
    fn call(&self) -> (Status, String) {
        let mut behaviour = self.behaviour;
        let context = ptr::from_mut(&mut behaviour).cast::<c_void>();
        let (plan, args_at) = (self.plan_at.of(&self.plan), self.args_at);
        let mut error = convrelu_error { struct_size: self.error_size, ..no_error() };
        let error_pointer = match self.error_at {
            Pointer::Good => ptr::from_mut(&mut error),
            Pointer::Null => ptr::null_mut(),
            Pointer::Misaligned => ptr::from_mut(&mut error).wrapping_byte_add(1),
        };
        let [input, weight, thresholds, scale, shift, residual] =
            ["input", "weight", "thresholds", "scale", "shift", "residual"].map(|name| self.input(name));
        let epilogue = convrelu_epilogue { scale, shift, residual, ..self.epilogue };
        // SAFETY: pointers are good, or such as the library must notice.
        let status = unsafe {
            match self.call {
                Call::Pass(Pass::Forward | Pass::ForwardPacked) | Call::Ended(_) => {
                    convrelu_forward(plan, args_at.of(&self.forward_args(&epilogue, context)), error_pointer)
                }
                Call::Pass(Pass::BackwardInput | Pass::BackwardInputPacked) => {
                    convrelu_backward_input(plan, args_at.of(&self.backward_input_args(context)), error_pointer)
                }
                Call::Pass(Pass::BackwardWeight) => {
                    convrelu_backward_weight(plan, args_at.of(&self.backward_weight_args(context)), error_pointer)
                }
                Call::Pack(_) => convrelu_pack_weight(plan, self.pass, weight, self.output("buffer"), error_pointer),
                Call::CheckPacked(_) => convrelu_check_packed_weight(plan, self.pass, weight, error_pointer),
                Call::AdareluForward => {
                    convrelu_adarelu_forward(input, thresholds, self.inner, self.output("output"), error_pointer)
                }
                Call::AdareluBackward => {
                    convrelu_adarelu_backward(args_at.of(&self.adarelu_backward_args()), error_pointer)
                }
            }
        };
        if self.error_at != Pointer::Good || self.error_size != size_of::<convrelu_error>() {
            assert_eq!(error, convrelu_error { struct_size: self.error_size, ..no_error() });
            return (status, String::new());
        }
        assert_eq!(error.status, status as u32);
        (status, message(&error))
    }
}

/// How C says a uniform threshold: by its name, if it has one, which needs no number.
fn uniform_kind(theta: f32) -> (u32, f32) {
    if theta == f32::NEG_INFINITY {
        (CONVRELU_THRESHOLDS_LINEAR, f32::NAN)
    } else if theta.to_bits() == 0 {
        (CONVRELU_THRESHOLDS_RELU, f32::NAN)
    } else {
        (CONVRELU_THRESHOLDS_UNIFORM, theta)
    }
}

/// What every initialiser of a struct is like, its own arguments apart.
type Init<'a, T> = &'a mut dyn FnMut(*mut T, usize, *mut convrelu_error) -> Status;

/// A struct as its initialiser leaves it.
fn initialised<T: Copy>(init: Init<'_, T>) -> T {
    let mut value = std::mem::MaybeUninit::<T>::uninit();
    assert_eq!(init(value.as_mut_ptr(), size_of::<T>(), ptr::null_mut()), CONVRELU_OK);
    // SAFETY: initialised whole where the call succeeds.
    unsafe { value.assume_init() }
}

/// A layer of equal axes.
fn plain_desc(rank: usize, [batch, i, o]: [usize; 3], size: usize, kernel: usize) -> convrelu_desc {
    let (n, k) = (size, kernel);
    // SAFETY: room for the struct, as long as it says.
    initialised(&mut |to, len, error| unsafe {
        match rank {
            1 => convrelu_conv1d_init(to, len, batch, i, o, n, k, error),
            2 => convrelu_conv2d_init(to, len, batch, i, o, n, n, k, k, error),
            _ => convrelu_conv3d_init(to, len, batch, i, o, n, n, n, k, k, k, error),
        }
    })
}

fn number(pass: Pass) -> u32 {
    match pass {
        Pass::Forward => CONVRELU_FORWARD,
        Pass::ForwardPacked => CONVRELU_FORWARD_PACKED,
        Pass::BackwardInput => CONVRELU_BACKWARD_INPUT,
        Pass::BackwardInputPacked => CONVRELU_BACKWARD_INPUT_PACKED,
        Pass::BackwardWeight => CONVRELU_BACKWARD_WEIGHT,
    }
}

fn no_error() -> convrelu_error {
    let struct_size = size_of::<convrelu_error>();
    convrelu_error { struct_size, status: 0, argument: 0, values: [0; 3], reserved: [0; 2] }
}

fn no_epilogue() -> convrelu_epilogue {
    // SAFETY: room for the struct, as long as it says.
    initialised(&mut |to, len, error| unsafe { convrelu_epilogue_init(to, len, error) })
}

fn message(error: &convrelu_error) -> String {
    let (mut text, mut len) = ([0u8; 256], 0);
    // SAFETY: room for what is announced.
    let status = unsafe { convrelu_error_message(error, text.as_mut_ptr().cast::<c_char>(), text.len(), &mut len) };
    assert_eq!((status, text[len]), (CONVRELU_OK, 0));
    String::from_utf8(text[..len].to_vec()).unwrap()
}

fn isa_number(isa: Isa) -> u32 {
    match isa {
        Isa::Scalar => CONVRELU_ISA_SCALAR,
        Isa::Neon => CONVRELU_ISA_NEON,
        Isa::Avx2 => CONVRELU_ISA_AVX2,
        Isa::Avx512 => CONVRELU_ISA_AVX512,
        Isa::Simd128 => CONVRELU_ISA_SIMD128,
        other => panic!("{other} has no number"),
    }
}

fn good_desc(rank: usize, layout: u32) -> convrelu_desc {
    let mut desc = plain_desc(rank, [1, 4, 6], 5, 3);
    desc.layout = layout;
    (desc.padding_before, desc.padding_after) = ([1; 3], [2; 3]);
    desc
}

fn c_desc(desc: &ConvDesc) -> convrelu_desc {
    let rank = desc.rank();
    let axes = |values: [usize; 3], rest| std::array::from_fn(|i| if i < rank { values[3 - rank + i] } else { rest });
    convrelu_desc {
        layout: if desc.layout() == Layout::Nchw { CONVRELU_NCHW } else { CONVRELU_NHWC },
        batch: desc.batch(),
        in_channels: desc.in_channels(),
        out_channels: desc.out_channels(),
        groups: desc.groups(),
        // Entries beyond the rank are ignored, whatever they are.
        size: axes(desc.input_size(), 0),
        kernel: axes(desc.kernel(), usize::MAX),
        stride: axes(desc.stride(), 0),
        dilation: axes(desc.dilation(), 0),
        padding_before: axes(desc.padding_before(), usize::MAX),
        padding_after: axes(desc.padding_after(), usize::MAX),
        output_padding: axes([0; 3], usize::MAX),
        input_pitch: desc.input_pitch(),
        output_pitch: desc.output_pitch(),
        ..good_desc(rank, CONVRELU_NCHW)
    }
}

/// The descriptor that Rust makes of C's.
fn rust_desc(c: &convrelu_desc) -> Result<ConvDesc, Error> {
    fn build<const R: usize>(builder: ConvDescBuilder<R>, c: &convrelu_desc) -> Result<ConvDesc, Error> {
        let mut builder = builder
            .stride(first(&c.stride))
            .dilation(first(&c.dilation))
            .padding_before_after(first(&c.padding_before), first(&c.padding_after))
            .groups(c.groups)
            .layout(if c.layout == CONVRELU_NCHW { Layout::Nchw } else { Layout::Nhwc });
        if c.input_pitch > 0 {
            builder = builder.input_pitch(c.input_pitch);
        }
        if c.output_pitch > 0 {
            builder = builder.output_pitch(c.output_pitch);
        }
        builder.build()
    }
    fn first<const R: usize>(values: &[usize; 3]) -> [usize; R] {
        std::array::from_fn(|axis| values[axis])
    }
    let convrelu_desc { batch, in_channels, out_channels, size, kernel, .. } = c;
    match c.rank {
        1 => build(ConvDesc::conv1d(*batch, *in_channels, *out_channels, first(size), first(kernel)), c),
        2 => build(ConvDesc::conv2d(*batch, *in_channels, *out_channels, first(size), first(kernel)), c),
        _ => build(ConvDesc::conv3d(*batch, *in_channels, *out_channels, first(size), first(kernel)), c),
    }
}

/// The transposed convolution that mirrors one.
fn c_transposed(mirrored: &ConvDesc) -> convrelu_desc {
    let mut desc = c_desc(mirrored);
    for axis in 0..mirrored.rank() {
        let full = 3 - mirrored.rank() + axis;
        let (size, output) = (mirrored.output_size()[full], mirrored.input_size()[full]);
        let scattered = (size - 1) * desc.stride[axis] + desc.dilation[axis] * (desc.kernel[axis] - 1) + 1;
        desc.size[axis] = size;
        desc.output_padding[axis] = output + desc.padding_before[axis] + desc.padding_after[axis] - scattered;
    }
    (desc.in_channels, desc.out_channels) = (mirrored.out_channels(), mirrored.in_channels());
    (desc.input_pitch, desc.output_pitch) = (mirrored.output_pitch(), mirrored.input_pitch());
    desc.kind = CONVRELU_TRANSPOSED;
    desc
}

/// The transposed convolution that Rust makes of C's descriptor.
fn rust_transposed(c: &convrelu_desc) -> Result<ConvTransposeDesc, Error> {
    macro_rules! build {
        ($constructor:ident, $rank:literal) => {{
            macro_rules! axes {
                ($field:ident) => {
                    std::array::from_fn::<usize, $rank, _>(|axis| c.$field[axis])
                };
            }
            let (inputs, outputs) = (c.in_channels, c.out_channels);
            let mut builder = ConvTransposeDesc::$constructor(c.batch, inputs, outputs, axes!(size), axes!(kernel))
                .stride(axes!(stride))
                .dilation(axes!(dilation))
                .padding_before_after(axes!(padding_before), axes!(padding_after))
                .output_padding(axes!(output_padding))
                .groups(c.groups)
                .layout(if c.layout == CONVRELU_NCHW { Layout::Nchw } else { Layout::Nhwc });
            if c.input_pitch > 0 {
                builder = builder.input_pitch(c.input_pitch);
            }
            if c.output_pitch > 0 {
                builder = builder.output_pitch(c.output_pitch);
            }
            builder.build()
        }};
    }
    match c.rank {
        1 => build!(conv1d, 1),
        2 => build!(conv2d, 2),
        _ => build!(conv3d, 3),
    }
}

/// Bytes of a struct, of which some are reserved or padding.
fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: a struct of the C interface that was filled with zeros or initialised whole; it has no padding.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Plans; the struct holds another pattern before, which stays where that fails.
fn try_plan(desc: &convrelu_desc, isa: u32) -> Result<convrelu_plan, (Status, String)> {
    let mut plan = convrelu_plan {
        struct_size: 77,
        magic: 78,
        isa: 79,
        threads: 80,
        desc: good_desc(1, CONVRELU_NCHW),
        reserved: [81; 4],
    };
    let before = bytes_of(&plan).to_vec();
    let mut error = no_error();
    // SAFETY: room for the struct; the descriptor's size is set.
    let status = unsafe { convrelu_plan_init(&mut plan, size_of::<convrelu_plan>(), desc, isa, &mut error) };
    assert_eq!(error.status, status as u32);
    if status == CONVRELU_OK {
        return Ok(plan);
    }
    assert_eq!(bytes_of(&plan), before, "a plan was written");
    Err((status, message(&error)))
}

fn c_plan(desc: &convrelu_desc, isa: Isa) -> convrelu_plan {
    try_plan(desc, isa_number(isa)).unwrap()
}

/// The status of an error.
fn status_of(error: Error) -> Status {
    match error {
        Error::ZeroChannels { .. }
        | Error::ZeroGroups
        | Error::ZeroSize { .. }
        | Error::ZeroKernel { .. }
        | Error::ZeroStride { .. }
        | Error::ZeroDilation { .. } => CONVRELU_ZERO,
        Error::KernelTooLarge { .. } => CONVRELU_KERNEL_TOO_LARGE,
        Error::ChannelsNotDivisible { .. } => CONVRELU_CHANNELS_NOT_DIVISIBLE,
        Error::Overflow { .. } => CONVRELU_OVERFLOW,
        Error::PitchTooSmall { .. } => CONVRELU_PITCH_TOO_SMALL,
        Error::MissingInput => CONVRELU_MISSING_INPUT,
        Error::Executor { .. } => CONVRELU_EXECUTOR,
        Error::BufferTooShort { .. } => CONVRELU_BUFFER_TOO_SHORT,
        Error::NanThreshold { .. } => CONVRELU_NAN_THRESHOLD,
        Error::IsaUnavailable { .. } => CONVRELU_ISA_UNAVAILABLE,
        Error::PackedElsewhere { .. } => CONVRELU_PACKED_ELSEWHERE,
        Error::ThresholdShape { .. } => CONVRELU_THRESHOLD_SHAPE,
        Error::PaddingTooLarge { .. } => CONVRELU_PADDING_TOO_LARGE,
        Error::OutputPaddingTooLarge { .. } => CONVRELU_OUTPUT_PADDING_TOO_LARGE,
        Error::NanBound { .. } => CONVRELU_NAN_BOUND,
        Error::BoundsCrossed { .. } => CONVRELU_BOUNDS_CROSSED,
        other => panic!("a new error: {other}"),
    }
}

/// One line that says what (`words`) is wrong and what must be.
fn assert_sentence(message: &str, words: &[&str]) {
    assert!(!message.contains('\n') && message.len() < 200, "{message}");
    for word in words.iter().chain(&["must"]) {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
}

/// Counts rows, so that a table that lost most of them is noticed.
#[derive(Default)]
struct Rows(usize);

impl Rows {
    /// A call that both interfaces must refuse with `error`, writing nothing.
    fn refused(
        &mut self,
        layer: &Layer,
        call: Call,
        spoil: impl Fn(&mut Vec<Buffer>),
        asked: &Asked<'_>,
        error: impl Fn(bool) -> Error,
    ) {
        self.refused_by_rust(layer, call, &spoil, asked, error(false));
        self.refused_by_c(layer, call, spoil, |raw| raw.ask(asked), (status_of(error(true)), &error(true).to_string()));
    }

    /// A call that Rust must refuse, writing nothing.
    fn refused_by_rust(
        &mut self,
        layer: &Layer,
        call: Call,
        spoil: impl Fn(&mut Vec<Buffer>),
        asked: &Asked<'_>,
        error: Error,
    ) {
        let context = || format!("Rust, {call:?} on {}: {:?}", layer.plan.isa(), layer.plan.desc());
        let mut buffers = layer.buffers(call, false);
        spoil(&mut buffers);
        let before = snapshot(&buffers);
        if let Some(result) = layer.rust(call, &mut buffers, asked) {
            self.0 += 1;
            assert_eq!(result, Err(error), "{}", context());
            assert!(snapshot(&buffers) == before, "something was written: {}", context());
        }
    }

    /// A call that C must refuse, writing nothing.
    fn refused_by_c(
        &mut self,
        layer: &Layer,
        call: Call,
        spoil: impl Fn(&mut Vec<Buffer>),
        tamper: impl Fn(&mut Raw),
        (status, sentence): (Status, &str),
    ) {
        self.0 += 1;
        let context = || format!("C, {call:?} on {}: {:?}", layer.plan.isa(), layer.plan.desc());
        let mut buffers = layer.buffers(call, true);
        spoil(&mut buffers);
        let before = snapshot(&buffers);
        let mut raw = Raw::new(layer, call, &mut buffers);
        tamper(&mut raw);
        let (found, message) = raw.call();
        assert_eq!((found, &message[..]), (status, sentence), "{}", context());
        assert!(snapshot(&buffers) == before, "something was written: {}", context());
    }
}

/// Small layers of both layouts: dense, grouped, depthwise, one to three axes, with and without gaps.
fn layers() -> impl Iterator<Item = ConvDesc> {
    let same = Axis::new(5, 3).padding(1, 1);
    let shapes = [
        Shape::new(2, 3, 5, &[same; 2]),
        Shape::new(1, 17, 33, &[Axis::new(6, 1)]),
        Shape::new(1, 1, 2, &[same.stride(2); 2]).groups(3),
        Shape::new(1, 2, 3, &[Axis::new(4, 2).dilation(2); 3]).groups(2),
        Shape::new(2, 2, 4, &[same, Axis::new(6, 2)]).gaps([3, 2]),
        Shape::new(2, 1, 1, &[same; 2]).groups(16).gaps([1, 4]),
    ];
    shapes.into_iter().flat_map(|shape| [Layout::Nchw, Layout::Nhwc].map(|layout| shape.clone().layout(layout).desc()))
}

fn benches() -> impl Iterator<Item = Layer> {
    layers().flat_map(|desc| Isa::available().map(move |isa| Layer::new(desc, isa)))
}

/// Their transposed counterparts.
fn transposed_benches() -> impl Iterator<Item = Layer> {
    layers().flat_map(|desc| Isa::available().map(move |isa| Layer::transposed(desc, isa)))
}

fn small() -> ConvDesc {
    layers().next().unwrap()
}

/// That a call has written nothing between pixels or images, nor what was left out.
fn assert_untouched(layer: &Layer, asked: &Asked<'_>, buffers: &[Buffer], before: &[Vec<u32>]) {
    let (desc, [input, output]) = (layer.plan.desc(), layer.tensors());
    for (Buffer { name, memory, .. }, before) in buffers.iter().zip(before) {
        let gap = |i: usize| match *name {
            "output" => output.is_gap(desc, i),
            "grad_input" => input.is_gap(desc, i),
            _ => false,
        };
        for (i, (after, before)) in bits(memory).iter().zip(before).enumerate() {
            let untouched = after == before || asked.has(name) && !gap(i);
            assert!(untouched, "{name}[{i}] was written: {desc:?}");
        }
    }
}

const AXES: [&str; 3] = ["depth", "height", "width"];

/// A mistake in a descriptor.
type Mistake = (Box<dyn Fn(&mut convrelu_desc)>, Error, Vec<String>);

/// Mistakes in the pitches of a descriptor of some rank.
fn pitch_mistakes(rank: usize, layout: u32) -> Vec<Mistake> {
    const MOST: usize = isize::MAX as usize / size_of::<f32>();
    const ROOT: usize = 1 << (usize::BITS / 2);
    let mut rows: Vec<Mistake> = Vec::new();
    let mut row = |spoil: Box<dyn Fn(&mut convrelu_desc)>, error: Error, words: &[&dyn std::fmt::Display]| {
        rows.push((spoil, error, words.iter().map(|word| word.to_string()).collect()));
    };
    let axes = u32::try_from(rank).unwrap();
    let [input, output] = if layout == CONVRELU_NCHW { [4 * 5usize.pow(axes), 6 * 6usize.pow(axes)] } else { [4, 6] };
    let small = |argument, pitch, packed| Error::PitchTooSmall { argument, pitch, packed };
    for pitch in [1, input - 1] {
        let argument = "input_pitch";
        row(Box::new(move |d| d.input_pitch = pitch), small(argument, pitch, input), &[&argument, &pitch, &input]);
        // That of the output is too small as well.
        let both = move |d: &mut convrelu_desc| (d.input_pitch, d.output_pitch) = (pitch, 1);
        row(Box::new(both), small(argument, pitch, input), &[&argument, &pitch, &input]);
    }
    for pitch in [1, output - 1] {
        let argument = "output_pitch";
        row(Box::new(move |d| d.output_pitch = pitch), small(argument, pitch, output), &[&argument, &pitch, &output]);
    }
    let [input, output] = ["input", "output"].map(|quantity| Error::Overflow { quantity });
    for far in [MOST + 1, isize::MAX as usize, usize::MAX] {
        for batch in [0, 1] {
            let far_input = move |d: &mut convrelu_desc| (d.batch, d.input_pitch) = (batch, far);
            let far_output = move |d: &mut convrelu_desc| (d.batch, d.output_pitch) = (batch, far);
            row(Box::new(far_input), input, &[&"input"]);
            row(Box::new(far_output), output, &[&"output"]);
        }
    }
    // Products that wrap to something small.
    row(Box::new(|d| (d.batch, d.input_pitch) = (ROOT / 256, ROOT * 256)), input, &[&"input"]);
    row(Box::new(|d| (d.batch, d.output_pitch) = (ROOT / 256, ROOT * 256)), output, &[&"output"]);
    rows
}

/// All mistakes in a descriptor of some rank.
fn mistakes(rank: usize) -> Vec<Mistake> {
    const LIMIT: usize = isize::MAX as usize / 4;
    const MOST: usize = isize::MAX as usize / size_of::<f32>();
    /// Its square is no `usize`.
    const ROOT: usize = 1 << (usize::BITS / 2);
    let mut rows: Vec<Mistake> = Vec::new();
    let mut row = |spoil: Box<dyn Fn(&mut convrelu_desc)>, error: Error, words: &[&dyn std::fmt::Display]| {
        rows.push((spoil, error, words.iter().map(|word| word.to_string()).collect()));
    };
    let overflow = |quantity| Error::Overflow { quantity };
    let indivisible = |argument, channels, groups| Error::ChannelsNotDivisible { argument, channels, groups };

    let argument = "in_channels";
    row(Box::new(|d| d.in_channels = 0), Error::ZeroChannels { argument }, &[&argument, &0]);
    for groups in [3, 5, 8, usize::MAX] {
        row(Box::new(move |d| d.groups = groups), indivisible(argument, 4, groups), &[&argument, &4, &groups]);
    }
    let argument = "out_channels";
    row(Box::new(|d| d.out_channels = 0), Error::ZeroChannels { argument }, &[&argument, &0]);
    row(Box::new(|d| d.groups = 4), indivisible(argument, 6, 4), &[&argument, &6, &4]);
    row(Box::new(|d| d.groups = 0), Error::ZeroGroups, &[&"groups", &0]);

    for i in 0..rank {
        let axis = AXES[3 - rank + i];
        row(Box::new(move |d| d.size[i] = 0), Error::ZeroSize { axis }, &[&"input", &axis, &0]);
        row(Box::new(move |d| d.kernel[i] = 0), Error::ZeroKernel { axis }, &[&"kernel", &axis, &0]);
        row(Box::new(move |d| d.stride[i] = 0), Error::ZeroStride { axis }, &[&"stride", &axis, &0]);
        row(Box::new(move |d| d.dilation[i] = 0), Error::ZeroDilation { axis }, &[&"dilation", &axis, &0]);
        // The padded input is 8.
        let too_large = |kernel| Error::KernelTooLarge { axis, kernel, padded: 8 };
        row(Box::new(move |d| d.kernel[i] = 9), too_large(9), &[&"kernel", &axis, &9, &8]);
        row(Box::new(move |d| d.dilation[i] = 4), too_large(9), &[&"kernel", &axis, &9, &8]);
        let (padded, dilated) = (overflow("padded input"), overflow("dilated kernel"));
        for far in [LIMIT + 1, isize::MAX as usize, isize::MAX as usize + 1, usize::MAX - 1, usize::MAX] {
            row(Box::new(move |d| d.padding_before[i] = far), padded, &[&"padded input"]);
            row(Box::new(move |d| d.padding_after[i] = far), padded, &[&"padded input"]);
            row(Box::new(move |d| d.size[i] = far), padded, &[&"padded input"]);
            row(Box::new(move |d| d.dilation[i] = far), dilated, &[&"dilated kernel"]);
            row(Box::new(move |d| d.kernel[i] = far), dilated, &[&"dilated kernel"]);
        }
        // As far as an axis may go: more output than memory.
        row(Box::new(move |d| d.padding_before[i] = LIMIT), overflow("output"), &[&"output"]);
        row(Box::new(move |d| d.padding_after[i] = LIMIT), overflow("output"), &[&"output"]);
        row(Box::new(move |d| d.size[i] = LIMIT), overflow("input"), &[&"input"]);
        // More taps than offsets.
        let taps = move |d: &mut convrelu_desc| {
            d.stride[i] = LIMIT;
            d.padding_before[i] = 1 << 25;
            d.kernel[i] = (1 << 24) + 1;
        };
        row(Box::new(taps), overflow("kernel"), &[&"kernel"]);
    }

    for many in [MOST, MOST + 1, isize::MAX as usize, usize::MAX] {
        row(Box::new(move |d| d.batch = many), overflow("input"), &[&"input"]);
        row(Box::new(move |d| d.in_channels = many), overflow("input"), &[&"input"]);
        row(Box::new(move |d| d.out_channels = many), overflow("output"), &[&"output"]);
    }
    // An empty batch does not make an image addressable.
    row(Box::new(|d| (d.batch, d.in_channels) = (0, usize::MAX)), overflow("input"), &[&"input"]);
    row(Box::new(|d| (d.batch, d.out_channels) = (0, usize::MAX)), overflow("output"), &[&"output"]);
    // Products that wrap to something small.
    row(Box::new(|d| (d.batch, d.in_channels) = (ROOT, ROOT)), overflow("input"), &[&"input"]);
    row(Box::new(|d| (d.batch, d.out_channels) = (ROOT, ROOT)), overflow("output"), &[&"output"]);
    let pointwise = |d: &mut convrelu_desc| {
        (d.size, d.kernel, d.padding_before, d.padding_after) = ([1; 3], [1; 3], [0; 3], [0; 3]);
    };
    let weights = move |d: &mut convrelu_desc| {
        pointwise(d);
        (d.in_channels, d.out_channels) = (ROOT, ROOT);
    };
    row(Box::new(weights), overflow("weight"), &[&"weight"]);
    let thresholds = move |d: &mut convrelu_desc| {
        pointwise(d);
        (d.in_channels, d.out_channels) = (MOST / 4, 1);
        (d.kernel[0], d.padding_before[0]) = (5, 4);
    };
    row(Box::new(thresholds), overflow("thresholds"), &[&"thresholds"]);
    if rank >= 2 {
        let square = move |d: &mut convrelu_desc| {
            pointwise(d);
            (d.size[0], d.size[1]) = (ROOT, ROOT);
        };
        row(Box::new(square), overflow("input"), &[&"input"]);
        let kernel = move |d: &mut convrelu_desc| {
            (d.kernel, d.padding_before, d.stride) = ([4097; 3], [5000; 3], [usize::MAX; 3]);
            (d.in_channels, d.out_channels) = (1, 1);
        };
        row(Box::new(kernel), overflow(if usize::BITS == 32 && rank == 3 { "thresholds" } else { "kernel" }), &[]);
        #[cfg(target_pointer_width = "32")]
        row(Box::new(|d| (d.size[0], d.size[1]) = (1 << 16, 1 << 16)), overflow("input"), &[&"input"]);
    }
    rows
}

/// Rust's builder, `convrelu_plan_init`, and every call with a plan into which the descriptor was put by hand.
#[test]
fn descriptors() {
    let mut rows = Rows::default();
    let layer = Layer::new(small(), Isa::detect());
    for rank in 1..=3 {
        for layout in [CONVRELU_NCHW, CONVRELU_NHWC] {
            let good = good_desc(rank, layout);
            assert!(rust_desc(&good).is_ok() && try_plan(&good, CONVRELU_ISA_AUTO).is_ok());
            for (spoil, error, words) in mistakes(rank).into_iter().chain(pitch_mistakes(rank, layout)) {
                let mut desc = good;
                spoil(&mut desc);
                let sentence = error.to_string();
                assert_sentence(&sentence, &words.iter().map(String::as_str).collect::<Vec<_>>());
                assert_eq!(rust_desc(&desc), Err(error), "{desc:?}");
                let refused = (status_of(error), sentence);
                assert_eq!(try_plan(&desc, CONVRELU_ISA_AUTO), Err(refused.clone()), "{desc:?}");
                rows.0 += 2;
                let forged = convrelu_plan { desc, ..layer.c };
                for call in layer.calls().filter(|call| !matches!(call, Call::AdareluForward | Call::AdareluBackward)) {
                    rows.refused_by_c(&layer, call, |_| (), |raw| raw.plan = forged, (refused.0, &refused.1));
                }
                assert_plan_is_refused(&forged, (refused.0, &refused.1));
            }
        }
    }
    let batch = small().with_batch(usize::MAX);
    assert_eq!(batch, Err(Error::Overflow { quantity: "input" }));
    println!("descriptors: {} rows", rows.0);
    assert!(rows.0 > 5000);
}

/// Extents whose product does not fit 32 bits are good where addresses have 64.
#[cfg(target_pointer_width = "64")]
#[test]
fn products_beyond_32_bits() {
    let mut desc = good_desc(2, CONVRELU_NCHW);
    (desc.size, desc.batch) = ([1 << 16; 3], 3);
    let rust = rust_desc(&desc).unwrap();
    assert_eq!(rust.input_len(), 12 << 32);
    assert!(try_plan(&desc, CONVRELU_ISA_AUTO).is_ok());
    let layer = Layer::new(small(), Isa::detect());
    let plan = ConvRelu::new(rust).with_threads(1);
    // A call with small buffers sees it.
    let mut short = vec![0.0; 8];
    let operands = Forward::new(&layer.case.input, Weight::Plain(&layer.case.weight), Thresholds::RELU);
    let error = Error::BufferTooShort { argument: "input", len: layer.case.input.len(), required: 12 << 32 };
    assert_eq!(plan.forward(operands, &mut short, &mut [], &Serial), Err(error));
}

/// The functions that take a plan and no buffers.
fn assert_plan_is_refused(plan: &convrelu_plan, (status, sentence): (Status, &str)) {
    let mut error = no_error();
    let mut check = |call: &mut dyn FnMut(*mut convrelu_error) -> Status| {
        error = no_error();
        assert_eq!(call(&mut error), status);
        assert_eq!((error.status, &message(&error)[..]), (status as u32, sentence));
    };
    let (mut copy, mut isa, mut len) = (*plan, 99, 99);
    let mut lens = stale_lens();
    // SAFETY: pointers to what they say.
    unsafe {
        check(&mut |error| convrelu_plan_set_threads(&mut copy, 3, error));
        check(&mut |error| convrelu_plan_isa(plan, &mut isa, error));
        check(&mut |error| convrelu_plan_lens(plan, &mut lens, error));
        check(&mut |error| convrelu_workspace_len(plan, CONVRELU_FORWARD, &mut len, error));
    }
    assert_eq!((copy, isa, len, lens), (*plan, 99, 99, stale_lens()));
}

fn stale_lens() -> convrelu_lens {
    convrelu_lens {
        struct_size: size_of::<convrelu_lens>(),
        input: 99,
        output: 99,
        weight: 99,
        thresholds: 99,
        bias: 99,
        packed_weight: 99,
        packed_weight_transposed: 99,
        output_size: [99; 3],
        reserved: [99; 4],
    }
}

/// Every buffer of every call one element short, and empty; exactly as long as needed is enough.
#[test]
fn lengths() {
    let mut rows = Rows::default();
    for layer in benches().chain(transposed_benches()) {
        for call in layer.calls() {
            for c in [false, true] {
                let mut buffers = layer.buffers(call, c);
                let before = snapshot(&buffers);
                if c {
                    let (status, message) = Raw::new(&layer, call, &mut buffers).call();
                    assert_eq!((status, &message[..]), (CONVRELU_OK, "no error"));
                } else if let Some(result) = layer.rust(call, &mut buffers, &Asked::default()) {
                    assert_eq!(result, Ok(()));
                }
                if matches!(call, Call::Pass(_) | Call::Ended(_)) {
                    assert_untouched(&layer, &Asked::default(), &buffers, &before);
                }
                rows.0 += 1;
            }
            for (i, (buffer, in_c)) in layer.buffers(call, false).iter().zip(layer.buffers(call, true)).enumerate() {
                for empty in [false, true] {
                    // An instruction set without vectors may need no workspace.
                    let (argument, required) = (buffer.name, buffer.memory.len());
                    if required == 0 {
                        continue;
                    }
                    let left = |len: usize| if empty { 0 } else { len - 1 };
                    let shorten = |buffers: &mut Vec<Buffer>| {
                        let memory = &mut buffers[i].memory;
                        memory.truncate(left(memory.len()));
                    };
                    let elementwise = matches!(call, Call::AdareluForward | Call::AdareluBackward);
                    let error = |c: bool| match argument {
                        "input" if elementwise => {
                            Error::ThresholdShape { elements: left(ELEMENTS), thresholds: THETAS, inner: INNER }
                        }
                        "thresholds" if elementwise => {
                            Error::ThresholdShape { elements: ELEMENTS, thresholds: left(THETAS), inner: INNER }
                        }
                        _ => {
                            let required = if c { in_c.memory.len() } else { required };
                            Error::BufferTooShort { argument, len: left(required), required }
                        }
                    };
                    // The elementwise calls see no length that is wrong by itself.
                    let shape = elementwise && matches!(argument, "input" | "thresholds");
                    let words = [if shape { "thresholds" } else { argument }, &left(required).to_string()];
                    assert_sentence(&error(false).to_string(), &words);
                    if elementwise && argument == "input" && empty {
                        // No elements at all are a tensor.
                    } else if matches!(call, Call::Pass(pass) | Call::Ended(pass) if is_packed(pass))
                        && argument == "weight"
                    {
                        // In Rust they have a type.
                        let sentence = error(true).to_string();
                        let refused = (CONVRELU_BUFFER_TOO_SHORT, &sentence[..]);
                        rows.refused_by_c(&layer, call, shorten, |_| (), refused);
                    } else {
                        rows.refused(&layer, call, shorten, &Asked::default(), error);
                    }
                }
            }
        }
    }
    println!("lengths: {} rows", rows.0);
    assert!(rows.0 > 1000);
}

/// A threshold that orders nothing, at either end or everywhere.
#[test]
fn nan_thresholds() {
    let mut rows = Rows::default();
    for layer in benches() {
        for call in layer.calls() {
            let Some(at) = layer.buffers(call, false).iter().position(|buffer| buffer.name == "thresholds") else {
                continue;
            };
            let last = layer.buffers(call, false)[at].memory.len() - 1;
            for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
                for index in [0, last] {
                    let error = Error::NanThreshold { index };
                    assert_sentence(&error.to_string(), &[&format!("thresholds[{index}]"), "NaN"]);
                    let spoil = |buffers: &mut Vec<Buffer>| buffers[at].memory[index] = nan;
                    rows.refused(&layer, call, spoil, &Asked::default(), |_| error);
                }
                if matches!(call, Call::Pass(_) | Call::Ended(_)) {
                    let asked = Asked::uniform(nan);
                    rows.refused_by_rust(&layer, call, |_| (), &asked, Error::NanThreshold { index: 0 });
                    // As an initialiser leaves it, as a rule.
                    let sentence = "threshold is NaN: for CONVRELU_THRESHOLDS_UNIFORM it must be set to a number";
                    let refused = (CONVRELU_NAN_THRESHOLD, sentence);
                    rows.refused_by_c(&layer, call, |_| (), |raw| raw.ask(&asked), refused);
                }
            }
        }
    }
    println!("NaN thresholds: {} rows", rows.0);
    assert!(rows.0 > 100);
}

/// Changes a word of the header of packed weights, and its hash so that it looks whole.
fn forge(packed: &mut [f32], word: usize, value: u32) {
    packed[word] = f32::from_bits(value);
    rehash::rehash(packed);
}

/// Weights packed for another layer, pass, instruction set or version, damaged ones, and what was never packed.
#[test]
fn packed_weights() {
    let mut rows = Rows::default();
    const NOT_PACKED: &str = "weight holds no packed weights, or their header is damaged: \
                              it must be what convrelu_pack_weight wrote";
    for layer in benches().chain(transposed_benches()) {
        let isa = layer.plan.isa();
        let like = if layer.transposed.is_some() { Layer::transposed } else { Layer::new };
        let unlike = if layer.transposed.is_some() { Layer::new } else { Layer::transposed };
        let elsewhere = |packed: Isa| Error::PackedElsewhere { packed, plan: isa };
        for pass in [Pass::ForwardPacked, Pass::BackwardInputPacked] {
            let call = Call::Pass(pass);
            let other_pass = if pass == Pass::ForwardPacked { Pass::BackwardInputPacked } else { Pass::ForwardPacked };
            let mut check = |call: Call, packed: &[f32], (status, sentence): (Status, &str)| {
                let spoil = |buffers: &mut Vec<Buffer>| {
                    let weight = buffers.iter_mut().find(|buffer| buffer.name == "weight");
                    weight.unwrap().memory = packed.to_vec();
                };
                rows.refused_by_c(&layer, call, spoil, |_| (), (status, sentence));
            };
            let good = layer.packed(pass).to_vec();
            for call in [call, Call::CheckPacked(pass)] {
                let mut refused_elsewhere = |packed: &[f32], by: Isa| {
                    let sentence = elsewhere(by).to_string();
                    assert_sentence(&sentence, &["weight", by.name(), isa.name()]);
                    check(call, packed, (CONVRELU_PACKED_ELSEWHERE, &sentence));
                };
                refused_elsewhere(layer.packed(other_pass), isa);
                let desc = layer.plan.desc();
                for other in layers().filter(|other| other != desc) {
                    refused_elsewhere(like(other, isa).packed(pass), isa);
                }
                for other in Isa::available().filter(|&other| other != isa) {
                    refused_elsewhere(like(*desc, other).packed(pass), other);
                }
                // What runs as the same pass of the same kernels is another layer's all the same.
                for pass in [pass, other_pass] {
                    refused_elsewhere(unlike(*desc, isa).packed(pass), isa);
                }
                // Version, instruction set, pass, and the two halves of the layer's hash.
                for word in [1, 2, 3, 5, 6] {
                    let mut forged = good.clone();
                    let value = if word == 2 { 5 } else { good[word].to_bits() ^ 1 };
                    forge(&mut forged, word, value);
                    refused_elsewhere(&forged, if word == 2 { Isa::Simd128 } else { isa });
                }
                // Elements that begin farther on than there are.
                for skipped in [16, 1 << 20, u32::MAX] {
                    let mut forged = good.clone();
                    forge(&mut forged, 4, skipped);
                    check(call, &forged, (CONVRELU_NOT_PACKED, NOT_PACKED));
                }
                for word in 0..16 {
                    for bit in [0, 13, 31] {
                        let mut damaged = good.clone();
                        damaged[word] = f32::from_bits(good[word].to_bits() ^ (1 << bit));
                        check(call, &damaged, (CONVRELU_NOT_PACKED, NOT_PACKED));
                    }
                }
                for nothing in [0.0, 1.0, f32::NAN, f32::from_bits(u32::MAX)] {
                    check(call, &vec![nothing; good.len()], (CONVRELU_NOT_PACKED, NOT_PACKED));
                }
            }
            // Elements are not looked at by every call.
            for at in [16 + good[4].to_bits() as usize, 17 + good[4].to_bits() as usize] {
                let mut damaged = good.clone();
                damaged[at] = f32::from_bits(good[at].to_bits() ^ 1);
                check(Call::CheckPacked(pass), &damaged, (CONVRELU_NOT_PACKED, NOT_PACKED));
            }
        }
    }
    println!("packed weights: {} rows", rows.0);
    assert!(rows.0 > 1000);
}

/// The same in Rust, whose types leave another layer, pass and instruction set.
#[test]
fn packed_weights_in_rust() {
    let mut rows = 0;
    let plans = || layers().flat_map(|desc| isas().map(move |isa| ConvRelu::with_isa(desc, isa).unwrap()));
    for plan in plans() {
        let case = Case::new(*plan.desc(), Values::Continuous, 32);
        let desc = plan.desc();
        for packer in plans() {
            for transposed in [false, true] {
                let weight = vec![0.5; packer.desc().weight_len()];
                let len = packer.packed_weight_len().max(packer.packed_weight_transposed_len());
                let mut memory = vec![0.0; len];
                let pack = if transposed { ConvRelu::pack_weight_transposed } else { ConvRelu::pack_weight };
                let packed = pack(&packer, &weight, &mut memory).unwrap();
                let (input, thresholds, weight) = (&case.input[..], Thresholds::RELU, Weight::Packed(&packed));
                let mut outputs = [vec![STALE; desc.output_len()], vec![STALE; desc.input_len()]];
                let mut workspace =
                    [Pass::ForwardPacked, Pass::BackwardInputPacked].map(|pass| vec![STALE; plan.workspace_len(pass)]);
                let [y, dx] = &mut outputs;
                let operands = BackwardInput::new(input, weight, thresholds, &case.grad_output);
                let gradients = InputGradients::new().input(Gradient::overwrite(dx));
                let results = [
                    plan.forward(Forward::new(input, weight, thresholds), y, &mut workspace[0], &Serial),
                    plan.backward_input(operands, gradients, &mut workspace[1], &Serial),
                ];
                let same = (plan.desc(), plan.isa()) == (packer.desc(), packer.isa());
                for (i, result) in results.into_iter().enumerate() {
                    if same && (i == 1) == transposed {
                        assert_eq!(result, Ok(()));
                        continue;
                    }
                    rows += 1;
                    let error = Error::PackedElsewhere { packed: packer.isa(), plan: plan.isa() };
                    assert_eq!(result, Err(error), "{packer:?} for {plan:?}");
                    let stale = |values: &[f32]| values.iter().all(|value| value.to_bits() == STALE.to_bits());
                    assert!(stale(&outputs[i]) && stale(&workspace[i]));
                }
            }
        }
    }
    println!("packed weights in Rust: {rows} rows");
    assert!(rows > 1000);
}

/// Pointers, sizes, reserved fields, numbers that name nothing, overlaps: what Rust's types exclude.
#[test]
fn what_only_c_can_get_wrong() {
    let mut rows = Rows::default();
    let nothing = |_: &mut Vec<Buffer>| ();
    let descs = [small(), layers().nth(3).unwrap()];
    let of = |layer: fn(ConvDesc, Isa) -> Layer| descs.map(|desc| layer(desc, Isa::detect()));
    for layer in of(Layer::new).into_iter().chain(of(Layer::transposed)) {
        let transposed = layer.transposed.is_some();
        for call in layer.calls() {
            let mut probe = layer.buffers(call, true);
            let raw = Raw::new(&layer, call, &mut probe);
            let mut check = |tamper: &dyn Fn(&mut Raw), status: Status, sentence: &str| {
                rows.refused_by_c(&layer, call, nothing, tamper, (status, sentence));
            };
            if raw.has_plan() {
                check(&|raw| raw.plan_at = Pointer::Null, CONVRELU_NULL, "plan is null: it must point to something");
                spoiled_plans(|spoil, status, sentence| {
                    check(&|raw| spoil(&mut raw.plan), status, sentence);
                    let mut plan = layer.c;
                    spoil(&mut plan);
                    assert_plan_is_refused(&plan, (status, sentence));
                });
            }
            if raw.has_args() {
                check(&|raw| raw.args_at = Pointer::Null, CONVRELU_NULL, "args is null: it must point to something");
                for size in [0, 8, usize::MAX] {
                    let expected = args_size(call);
                    let sentence = struct_size("args", size, expected);
                    check(&|raw| raw.args_size = Some(size), CONVRELU_STRUCT_SIZE, &sentence);
                }
                for field in 0..20 {
                    let sentence = "a reserved field of args is not 0: it must be";
                    check(&|raw| raw.reserved = Some(field), CONVRELU_RESERVED, sentence);
                }
            }
            for (name, ..) in raw.buffers.clone() {
                let optional = matches!(call, Call::Pass(_) | Call::Ended(_))
                    && (["bias", "scale", "shift", "residual"].contains(&name) || name.starts_with("grad_"))
                    && name != "grad_output";
                if name == "input" && matches!(call, Call::Pass(Pass::BackwardInput | Pass::BackwardInputPacked)) {
                    let sentence = Error::MissingInput.to_string();
                    check(&|raw| raw.buffer(name).1 = ptr::null_mut(), CONVRELU_MISSING_INPUT, &sentence);
                } else if !optional {
                    let sentence = format!("{name} is null: it must point to something");
                    check(&|raw| raw.buffer(name).1 = ptr::null_mut(), CONVRELU_NULL, &sentence);
                }
                // Null and no elements are a buffer without any, which is too short.
                let required = raw.clone().buffer(name).2;
                let nothing = |raw: &mut Raw| (raw.buffer(name).1, raw.buffer(name).2) = (ptr::null_mut(), 0);
                let error = match call {
                    Call::Pass(Pass::BackwardInput | Pass::BackwardInputPacked) if name == "input" => {
                        Some(Error::MissingInput)
                    }
                    Call::AdareluForward | Call::AdareluBackward if name == "input" => None,
                    Call::AdareluForward | Call::AdareluBackward if name == "thresholds" => {
                        Some(Error::ThresholdShape { elements: ELEMENTS, thresholds: 0, inner: INNER })
                    }
                    _ if optional => None,
                    _ => Some(Error::BufferTooShort { argument: name, len: 0, required }),
                };
                if let Some(error) = error {
                    check(&nothing, status_of(error), &error.to_string());
                }
                for len in [isize::MAX as usize / 4 + 1, usize::MAX / 4 + 2, usize::MAX] {
                    let sentence = Error::Overflow { quantity: name }.to_string();
                    check(&|raw| raw.buffer(name).2 = len, CONVRELU_OVERFLOW, &sentence);
                }
            }
            if matches!(call, Call::Pass(_)) && transposed {
                for number in [CONVRELU_THRESHOLDS_PER_TAP, CONVRELU_THRESHOLDS_RELU, CONVRELU_THRESHOLDS_UNIFORM, 5] {
                    let sentence = format!(
                        "threshold_kind is {number}: a transposed convolution has no thresholds, \
                         so it must be unset or CONVRELU_THRESHOLDS_LINEAR"
                    );
                    check(&|raw| raw.threshold_kind = number, CONVRELU_NOT_APPLICABLE, &sentence);
                }
                let given = |name: &str| format!("{name} is given: it must be null for a transposed convolution");
                if matches!(call, Call::Pass(Pass::Forward | Pass::ForwardPacked)) {
                    check(&|raw| raw.epilogue_at = Pointer::Good, CONVRELU_NOT_APPLICABLE, &given("epilogue"));
                }
                if matches!(call, Call::Pass(Pass::BackwardInput | Pass::BackwardInputPacked)) {
                    let mut own = [0.0];
                    let data = own.as_mut_ptr();
                    let give = |raw: &mut Raw| raw.buffers.push(("grad_thresholds", data, 1));
                    check(&give, CONVRELU_NOT_APPLICABLE, &given("grad_thresholds"));
                }
            } else if matches!(call, Call::Pass(_) | Call::Ended(_)) {
                for number in [5, u32::MAX] {
                    let sentence = invalid("threshold_kind", number);
                    check(&|raw| raw.threshold_kind = number, CONVRELU_INVALID_VALUE, &sentence);
                }
                let unset = "threshold_kind is unset: it must be set to CONVRELU_THRESHOLDS_PER_TAP, \
                             CONVRELU_THRESHOLDS_LINEAR, CONVRELU_THRESHOLDS_RELU or CONVRELU_THRESHOLDS_UNIFORM";
                check(&|raw| raw.threshold_kind = CONVRELU_THRESHOLDS_UNSET, CONVRELU_INVALID_VALUE, unset);
            }
            if matches!(call, Call::Ended(_)) {
                for size in [0, 8, usize::MAX] {
                    let sentence = struct_size("epilogue", size, size_of::<convrelu_epilogue>());
                    check(&|raw| raw.epilogue.struct_size = size, CONVRELU_STRUCT_SIZE, &sentence);
                }
                for field in 0..no_epilogue().reserved.len() {
                    let sentence = "a reserved field of epilogue is not 0: it must be";
                    check(&|raw| raw.epilogue.reserved[field] = 1, CONVRELU_RESERVED, sentence);
                }
                for number in [2, u32::MAX] {
                    let sentence = invalid("output_accumulation", number);
                    check(&|raw| raw.epilogue.output_accumulation = number, CONVRELU_INVALID_VALUE, &sentence);
                }
                let both = "residual is given: it must be null where output_accumulation is CONVRELU_ADD";
                check(&|raw| raw.epilogue.output_accumulation = CONVRELU_ADD, CONVRELU_NOT_APPLICABLE, both);
            }
            if matches!(call, Call::Ended(_)) || matches!(call, Call::Pass(pass) if pass != Pass::BackwardWeight) {
                check(&|raw| raw.weight_kind = 2, CONVRELU_INVALID_VALUE, &invalid("weight_kind", 2));
            }
            for (which, argument) in accumulations(call).into_iter().enumerate() {
                for number in [2, u32::MAX] {
                    let sentence = invalid(argument, number);
                    check(&|raw| raw.accumulation[which] = number, CONVRELU_INVALID_VALUE, &sentence);
                }
            }
            if matches!(call, Call::Pack(_) | Call::CheckPacked(_)) {
                for number in [CONVRELU_BACKWARD_WEIGHT, 5, u32::MAX] {
                    check(&|raw| raw.pass = number, CONVRELU_INVALID_VALUE, &invalid("pass", number));
                }
            }
            if matches!(call, Call::AdareluForward | Call::AdareluBackward) {
                for inner in [0, 4, usize::MAX] {
                    let error = Error::ThresholdShape { elements: ELEMENTS, thresholds: THETAS, inner };
                    check(&|raw| raw.inner = inner, CONVRELU_THRESHOLD_SHAPE, &error.to_string());
                }
            }
            // A call that could not report is not made.
            check(&|raw| raw.error_at = Pointer::Misaligned, CONVRELU_MISALIGNED, "");
            for size in [0, 8, size_of::<convrelu_error>() + 8] {
                check(&|raw| raw.error_size = size, CONVRELU_STRUCT_SIZE, "");
            }
            misaligned(&mut rows, &layer, call);
            overlapping(&mut rows, &layer, call);
        }
    }
    println!("C alone: {} rows", rows.0);
    assert!(rows.0 > 1000);
}

/// Pointers that are not aligned to their types; addresses differ from run to run, and so do the sentences.
fn misaligned(rows: &mut Rows, layer: &Layer, call: Call) {
    let names: Vec<_> = layer.buffers(call, true).iter().map(|buffer| buffer.name).collect();
    let mut check = |name: &str, tamper: &dyn Fn(&mut Raw) -> Option<usize>| {
        let mut buffers = layer.buffers(call, true);
        let before = snapshot(&buffers);
        let mut raw = Raw::new(layer, call, &mut buffers);
        let address = tamper(&mut raw);
        let (status, message) = raw.call();
        assert_eq!(status, CONVRELU_MISALIGNED, "{name} of {call:?}: {message}");
        assert_sentence(&message, &[name, "aligned"]);
        if let Some(address) = address {
            assert_sentence(&message, &[&format!("{address:#x}")]);
        }
        assert!(snapshot(&buffers) == before);
        rows.0 += 1;
    };
    for name in names {
        for bytes in 1..size_of::<f32>() {
            check(name, &|raw| {
                let (_, data, len) = raw.buffer(name);
                // One element less: the rest of it lies elsewhere.
                (*data, *len) = (data.wrapping_byte_add(bytes), *len - 1);
                Some(data.addr())
            });
        }
    }
    let mut probe = layer.buffers(call, true);
    let raw = Raw::new(layer, call, &mut probe);
    if raw.has_plan() {
        check("plan", &|raw| {
            raw.plan_at = Pointer::Misaligned;
            None
        });
    }
    if raw.has_args() {
        check("args", &|raw| {
            raw.args_at = Pointer::Misaligned;
            None
        });
    }
    if matches!(call, Call::Ended(_)) {
        check("epilogue", &|raw| {
            raw.epilogue_at = Pointer::Misaligned;
            None
        });
    }
}

/// Whatever is written, on top of everything else: whole, by its last element, by its first one.
fn overlapping(rows: &mut Rows, layer: &Layer, call: Call) {
    let buffers = layer.buffers(call, true);
    for (i, written) in buffers.iter().enumerate().filter(|(_, buffer)| buffer.written) {
        for (j, other) in buffers.iter().enumerate().filter(|&(j, _)| j != i) {
            let (len, other_len) = (written.memory.len(), other.memory.len());
            for at in [0, other_len - 1] {
                // The other buffer, with room behind it for all of the written one.
                let spoil = |buffers: &mut Vec<Buffer>| buffers[j].memory.resize(other_len + len, 0.25);
                let tamper = |raw: &mut Raw| {
                    raw.buffers[j].2 = other_len;
                    raw.buffers[i].1 = raw.buffers[j].1.wrapping_add(at);
                };
                // Of two that are written, the later one is named first.
                let (first, second) =
                    if other.written && j > i { (other.name, written.name) } else { (written.name, other.name) };
                let sentence = format!("{first} overlaps {second}: what is written must lie apart");
                rows.refused_by_c(layer, call, spoil, tamper, (CONVRELU_OVERLAP, &sentence));
            }
            // One behind the other is apart.
            let mut apart = layer.buffers(call, true);
            apart[j].memory.resize(other_len + len, 0.25);
            let mut raw = Raw::new(layer, call, &mut apart);
            raw.buffers[j].2 = other_len;
            raw.buffers[i].1 = raw.buffers[j].1.wrapping_add(other_len);
            let (status, message) = raw.call();
            assert_eq!(status, CONVRELU_OK, "{message}");
        }
    }
}

/// What the fields are called that say what becomes of the values of each gradient.
fn accumulations(call: Call) -> Vec<&'static str> {
    match call {
        Call::Pass(Pass::BackwardInput | Pass::BackwardInputPacked) => {
            vec!["grad_input_accumulation", "grad_thresholds_accumulation"]
        }
        Call::Pass(Pass::BackwardWeight) => vec!["grad_weight_accumulation", "grad_bias_accumulation"],
        Call::AdareluBackward => vec!["accumulation"],
        _ => vec![],
    }
}

fn invalid(argument: &str, value: u32) -> String {
    format!("{argument} is {value}: it must be one of the values that the header lists")
}

fn struct_size(argument: &str, size: usize, expected: usize) -> String {
    format!("{argument}.struct_size is {size}: it must be {expected} for this version of the library")
}

fn args_size(call: Call) -> usize {
    match call {
        Call::Pass(Pass::Forward | Pass::ForwardPacked) | Call::Ended(_) => size_of::<convrelu_forward_args>(),
        Call::Pass(Pass::BackwardInput | Pass::BackwardInputPacked) => size_of::<convrelu_backward_input_args>(),
        Call::Pass(Pass::BackwardWeight) => size_of::<convrelu_backward_weight_args>(),
        _ => size_of::<convrelu_adarelu_backward_args>(),
    }
}

/// Plans that are none.
fn spoiled_plans(mut check: impl FnMut(&dyn Fn(&mut convrelu_plan), Status, &str)) {
    let (plan_size, desc_size) = (size_of::<convrelu_plan>(), size_of::<convrelu_desc>());
    for size in [0, 8, plan_size - 8, plan_size + 8, usize::MAX] {
        check(&|plan| plan.struct_size = size, CONVRELU_STRUCT_SIZE, &struct_size("plan", size, plan_size));
        check(&|plan| plan.desc.struct_size = size, CONVRELU_STRUCT_SIZE, &struct_size("desc", size, desc_size));
    }
    let reserved = |name: &str| format!("a reserved field of {name} is not 0: it must be");
    for field in 0..good_desc(1, CONVRELU_NCHW).reserved.len() {
        check(&|plan| plan.desc.reserved[field] = 1, CONVRELU_RESERVED, &reserved("desc"));
    }
    for field in 0..4 {
        check(&|plan| plan.reserved[field] = 1, CONVRELU_RESERVED, &reserved("plan"));
    }
    for magic in [0u32, 1, u32::MAX] {
        let sentence = format!("plan.magic is {magic:#x}: convrelu_plan_init must have made the plan");
        check(&|plan| plan.magic = magic, CONVRELU_NOT_A_PLAN, &sentence);
    }
    for isa in [CONVRELU_ISA_AUTO, 6, u32::MAX] {
        check(&|plan| plan.isa = isa, CONVRELU_INVALID_VALUE, &invalid("isa", isa));
    }
    for isa in [Isa::Neon, Isa::Avx2, Isa::Avx512, Isa::Simd128] {
        if !isa.is_available() {
            let sentence = Error::IsaUnavailable { isa }.to_string();
            assert!(sentence.contains(isa.name()), "{sentence}");
            check(&|plan| plan.isa = isa_number(isa), CONVRELU_ISA_UNAVAILABLE, &sentence);
        }
    }
    for rank in [0, 4, u32::MAX] {
        check(&|plan| plan.desc.rank = rank, CONVRELU_INVALID_VALUE, &invalid("rank", rank));
    }
    for layout in [2, u32::MAX] {
        check(&|plan| plan.desc.layout = layout, CONVRELU_INVALID_VALUE, &invalid("layout", layout));
    }
    for kind in [2, u32::MAX] {
        check(&|plan| plan.desc.kind = kind, CONVRELU_INVALID_VALUE, &invalid("kind", kind));
    }
    let padded = |plan: &mut convrelu_plan| (plan.desc.kind, plan.desc.output_padding[0]) = (CONVRELU_CONVOLUTION, 7);
    check(&padded, CONVRELU_NOT_APPLICABLE, "output_padding is 7: it must be 0 but for CONVRELU_TRANSPOSED");
}

/// The functions without buffers: null, misaligned, sizes, numbers.
#[test]
fn functions_of_numbers() {
    let mut rows = 0;
    let mut check = |call: &mut dyn FnMut(*mut convrelu_error) -> Status, status: Status, words: &[&str]| {
        let mut error = no_error();
        assert_eq!(call(&mut error), status, "{words:?}");
        assert_eq!(error.status, status as u32);
        assert_sentence(&message(&error), words);
        assert_eq!(call(ptr::null_mut()), status);
        error.struct_size = 3;
        assert_eq!(call(&mut error), CONVRELU_STRUCT_SIZE);
        rows += 1;
    };
    let null = ptr::null_mut::<u32>();
    let (mut a, mut b, mut c, mut len) = (99u32, 99u32, 99u32, 99usize);
    let odd = |number: &mut u32| ptr::from_mut(number).wrapping_byte_add(1);
    let desc = good_desc(2, CONVRELU_NCHW);
    let plan = c_plan(&desc, Isa::detect());
    let mut copy = plan;
    let mut lens = stale_lens();
    let (desc_size, plan_size) = (size_of::<convrelu_desc>(), size_of::<convrelu_plan>());
    // SAFETY: pointers are good, or such as the library must notice.
    unsafe {
        check(&mut |e| convrelu_version(null, &mut b, &mut c, e), CONVRELU_NULL, &["major", "null"]);
        check(&mut |e| convrelu_version(&mut a, null, &mut c, e), CONVRELU_NULL, &["minor", "null"]);
        check(&mut |e| convrelu_version(&mut a, &mut b, null, e), CONVRELU_NULL, &["patch", "null"]);
        check(&mut |e| convrelu_version(&mut a, &mut b, odd(&mut c), e), CONVRELU_MISALIGNED, &["patch"]);
        check(&mut |e| convrelu_abi(null, e), CONVRELU_NULL, &["abi", "null"]);
        check(&mut |e| convrelu_abi(odd(&mut a), e), CONVRELU_MISALIGNED, &["abi"]);
        check(&mut |e| convrelu_isa_detect(null, e), CONVRELU_NULL, &["isa", "null"]);
        check(&mut |e| convrelu_isa_detect(odd(&mut a), e), CONVRELU_MISALIGNED, &["isa"]);
        check(&mut |e| convrelu_isa_available(1, null, e), CONVRELU_NULL, &["available", "null"]);
        check(&mut |e| convrelu_isa_available(1, odd(&mut a), e), CONVRELU_MISALIGNED, &["available"]);
        for isa in [CONVRELU_ISA_AUTO, 6, u32::MAX] {
            let words = ["isa", &isa.to_string()];
            check(&mut |e| convrelu_isa_available(isa, &mut a, e), CONVRELU_INVALID_VALUE, &words);
        }
        let odd_plan = ptr::from_mut(&mut copy).wrapping_byte_add(4);
        let none = ptr::null_mut();
        check(&mut |e| convrelu_plan_init(none, plan_size, &desc, 0, e), CONVRELU_NULL, &["plan", "null"]);
        check(&mut |e| convrelu_plan_init(odd_plan, plan_size, &desc, 0, e), CONVRELU_MISALIGNED, &["plan"]);
        check(&mut |e| convrelu_plan_init(&mut copy, 8, &desc, 0, e), CONVRELU_STRUCT_SIZE, &["plan", "8"]);
        let no_desc = ptr::null();
        check(&mut |e| convrelu_plan_init(&mut copy, plan_size, no_desc, 0, e), CONVRELU_NULL, &["desc", "null"]);
        let odd_desc = ptr::from_ref(&desc).wrapping_byte_add(4);
        check(&mut |e| convrelu_plan_init(&mut copy, plan_size, odd_desc, 0, e), CONVRELU_MISALIGNED, &["desc"]);
        for isa in [6, u32::MAX] {
            let words = ["isa", &isa.to_string()];
            check(&mut |e| convrelu_plan_init(&mut copy, plan_size, &desc, isa, e), CONVRELU_INVALID_VALUE, &words);
        }
        for (size, reserved, status, word) in
            [(8, 0, CONVRELU_STRUCT_SIZE, "8"), (desc_size, 1, CONVRELU_RESERVED, "reserved")]
        {
            let mut bad = desc;
            (bad.struct_size, bad.reserved[1]) = (size, reserved);
            check(&mut |e| convrelu_plan_init(&mut copy, plan_size, &bad, 0, e), status, &["desc", word]);
        }
        check(&mut |e| convrelu_plan_set_threads(none, 3, e), CONVRELU_NULL, &["plan", "null"]);
        check(&mut |e| convrelu_plan_set_threads(odd_plan, 3, e), CONVRELU_MISALIGNED, &["plan"]);
        assert_eq!(copy, plan);
        check(&mut |e| convrelu_plan_isa(none, &mut a, e), CONVRELU_NULL, &["plan", "null"]);
        check(&mut |e| convrelu_plan_isa(&plan, null, e), CONVRELU_NULL, &["isa", "null"]);
        check(&mut |e| convrelu_plan_isa(&plan, odd(&mut a), e), CONVRELU_MISALIGNED, &["isa"]);
        check(&mut |e| convrelu_plan_lens(none, &mut lens, e), CONVRELU_NULL, &["plan", "null"]);
        check(&mut |e| convrelu_plan_lens(&plan, ptr::null_mut(), e), CONVRELU_NULL, &["lens", "null"]);
        let odd_lens = ptr::from_mut(&mut lens).wrapping_byte_add(4);
        check(&mut |e| convrelu_plan_lens(&plan, odd_lens, e), CONVRELU_MISALIGNED, &["lens"]);
        let mut small = convrelu_lens { struct_size: 8, ..stale_lens() };
        check(&mut |e| convrelu_plan_lens(&plan, &mut small, e), CONVRELU_STRUCT_SIZE, &["lens", "8"]);
        assert_eq!(small, convrelu_lens { struct_size: 8, ..stale_lens() });
        check(&mut |e| convrelu_workspace_len(none, 0, &mut len, e), CONVRELU_NULL, &["plan", "null"]);
        check(&mut |e| convrelu_workspace_len(&plan, 0, ptr::null_mut(), e), CONVRELU_NULL, &["len", "null"]);
        let odd_len = ptr::from_mut(&mut len).wrapping_byte_add(1);
        check(&mut |e| convrelu_workspace_len(&plan, 0, odd_len, e), CONVRELU_MISALIGNED, &["len"]);
        for pass in [5, u32::MAX] {
            let words = ["pass", &pass.to_string()];
            check(&mut |e| convrelu_workspace_len(&plan, pass, &mut len, e), CONVRELU_INVALID_VALUE, &words);
        }
    }
    assert_eq!((a, b, c, len, lens), (99, 99, 99, 99, stale_lens()));
    println!("functions of numbers: {rows} rows");
    assert!(rows >= 30);
}

/// An initialiser with wrong pointers and sizes, which writes nothing then.
fn assert_init_is_checked<T: Copy>(name: &str, init: Init<'_, T>) {
    let mut room = std::mem::MaybeUninit::<[T; 2]>::zeroed();
    let to = room.as_mut_ptr().cast::<T>();
    let mut refused = |to: *mut T, size: usize, status: Status, words: &[&str]| {
        let mut error = no_error();
        assert_eq!(init(to, size, &mut error), status);
        assert_eq!(error.status, status as u32);
        assert_sentence(&message(&error), words);
        assert_eq!(init(to, size, ptr::null_mut()), status);
    };
    refused(ptr::null_mut(), size_of::<T>(), CONVRELU_NULL, &[name, "null"]);
    refused(to.wrapping_byte_add(4), size_of::<T>(), CONVRELU_MISALIGNED, &[name, "aligned"]);
    for size in [0, 8, size_of::<T>() - 8, size_of::<T>() + 8, usize::MAX] {
        refused(to, size, CONVRELU_STRUCT_SIZE, &[name, &size.to_string(), &size_of::<T>().to_string()]);
    }
    let mut error = convrelu_error { struct_size: 3, ..no_error() };
    assert_eq!(init(to, size_of::<T>(), &mut error), CONVRELU_STRUCT_SIZE);
    // SAFETY: bytes that were zeroed.
    let bytes = unsafe { std::slice::from_raw_parts(room.as_ptr().cast::<u8>(), size_of::<[T; 2]>()) };
    assert!(bytes.iter().all(|&byte| byte == 0), "something was written");
}

/// Layers as Rust's builders begin them; arguments of nothing, whose thresholds are to be set.
#[test]
fn initialisers() {
    // SAFETY: the pointers of `initialised` and `assert_init_is_checked`, which are good, or such as the library must notice.
    unsafe {
        assert_init_is_checked::<convrelu_desc>("desc", &mut |to, len, e| {
            convrelu_conv1d_init(to, len, 1, 2, 3, 4, 5, e)
        });
        assert_init_is_checked::<convrelu_desc>("desc", &mut |to, len, e| {
            convrelu_conv2d_init(to, len, 1, 2, 3, 4, 5, 6, 7, e)
        });
        assert_init_is_checked::<convrelu_desc>("desc", &mut |to, len, e| {
            convrelu_conv3d_init(to, len, 1, 2, 3, 4, 5, 6, 7, 8, 9, e)
        });
        assert_init_is_checked("epilogue", &mut |to, len, e| convrelu_epilogue_init(to, len, e));
        assert_init_is_checked("args", &mut |to, len, e| convrelu_forward_args_init(to, len, e));
        assert_init_is_checked("args", &mut |to, len, e| convrelu_backward_input_args_init(to, len, e));
        assert_init_is_checked("args", &mut |to, len, e| convrelu_backward_weight_args_init(to, len, e));
    }
    // SAFETY: as above.
    let descs = unsafe {
        [
            initialised(&mut |to, len, e| convrelu_conv1d_init(to, len, 2, 3, 4, 9, 5, e)),
            initialised(&mut |to, len, e| convrelu_conv2d_init(to, len, 2, 3, 4, 9, 8, 5, 6, e)),
            initialised(&mut |to, len, e| convrelu_conv3d_init(to, len, 2, 3, 4, 9, 8, 7, 5, 6, 3, e)),
        ]
    };
    let built = [
        ConvDesc::conv1d(2, 3, 4, [9], [5]).build(),
        ConvDesc::conv2d(2, 3, 4, [9, 8], [5, 6]).build(),
        ConvDesc::conv3d(2, 3, 4, [9, 8, 7], [5, 6, 3]).build(),
    ];
    for (rank, (desc, built)) in (1..).zip(descs.into_iter().zip(built)) {
        assert_eq!(rust_desc(&desc), built);
        assert!(try_plan(&desc, CONVRELU_ISA_AUTO).is_ok());
        assert_eq!((desc.rank, desc.layout, desc.groups), (rank, CONVRELU_NCHW, 1));
        assert_eq!((desc.stride, desc.dilation), ([1; 3], [1; 3]));
        assert_eq!((desc.padding_before, desc.padding_after), ([0; 3], [0; 3]));
        assert_eq!((desc.input_pitch, desc.output_pitch, desc.reserved), (0, 0, [0; 7]));
        assert_eq!((desc.kind, desc.output_padding), (CONVRELU_CONVOLUTION, [0; 3]));
    }
    // What cannot be is the plan's to refuse.
    let (status, sentence) = try_plan(&plain_desc(2, [1, 0, 1], 3, 3), CONVRELU_ISA_AUTO).unwrap_err();
    assert_eq!((status, &sentence[..]), (CONVRELU_ZERO, "in_channels is 0: it must be at least 1"));

    // SAFETY: as above.
    let (mut forward, mut backward_input, mut backward_weight) = unsafe {
        (
            initialised(&mut |to, len, e| convrelu_forward_args_init(to, len, e)),
            initialised(&mut |to, len, e| convrelu_backward_input_args_init(to, len, e)),
            initialised(&mut |to, len, e| convrelu_backward_weight_args_init(to, len, e)),
        )
    };
    assert!(forward.threshold.is_nan() && backward_input.threshold.is_nan() && backward_weight.threshold.is_nan());
    // All else is zero.
    (forward.threshold, backward_input.threshold, backward_weight.threshold) = (0.0, 0.0, 0.0);
    let all_zero = |bytes: &[u8], size: usize| {
        assert_eq!(bytes[..8], size.to_ne_bytes()[..]);
        assert!(bytes[8..].iter().all(|&byte| byte == 0), "{bytes:?}");
    };
    let mut epilogue = no_epilogue();
    assert_eq!((epilogue.low, epilogue.high), (f32::NEG_INFINITY, f32::INFINITY));
    (epilogue.low, epilogue.high) = (0.0, 0.0);
    all_zero(bytes_of(&epilogue), size_of::<convrelu_epilogue>());
    all_zero(bytes_of(&forward), size_of::<convrelu_forward_args>());
    all_zero(bytes_of(&backward_input), size_of::<convrelu_backward_input_args>());
    all_zero(bytes_of(&backward_weight), size_of::<convrelu_backward_weight_args>());
}

/// Thresholds that have a name are the uniform ones of their number; neither number nor buffer is looked at where it is not asked
/// for.
#[test]
fn kinds_of_thresholds() {
    let mut rows = 0;
    for layer in benches() {
        for pass in PASSES {
            let results = |tamper: &dyn Fn(&mut Raw)| {
                let mut buffers = layer.buffers(Call::Pass(pass), true);
                let mut raw = Raw::new(&layer, Call::Pass(pass), &mut buffers);
                tamper(&mut raw);
                let (status, message) = raw.call();
                assert_eq!(status, CONVRELU_OK, "{message}");
                let written = buffers.iter().filter(|buffer| buffer.written && buffer.name != "workspace");
                written.map(|buffer| bits(&buffer.memory)).collect::<Vec<_>>()
            };
            for (kind, theta) in [(CONVRELU_THRESHOLDS_LINEAR, f32::NEG_INFINITY), (CONVRELU_THRESHOLDS_RELU, 0.0)] {
                let uniform = |raw: &mut Raw| {
                    (raw.threshold_kind, raw.threshold) = (CONVRELU_THRESHOLDS_UNIFORM, theta);
                };
                let expected = results(&uniform);
                for number in [f32::NAN, 0.25] {
                    let named = |raw: &mut Raw| (raw.threshold_kind, raw.threshold) = (kind, number);
                    assert!(results(&named) == expected);
                    // Whatever the buffer of thresholds is.
                    for (data, len) in [(ptr::null_mut(), 0), (ptr::null_mut(), 1), (ptr::dangling_mut(), usize::MAX)] {
                        let without = |raw: &mut Raw| {
                            named(raw);
                            (raw.buffer("thresholds").1, raw.buffer("thresholds").2) = (data, len);
                        };
                        assert!(results(&without) == expected);
                        rows += 1;
                    }
                }
            }
        }
    }
    println!("kinds of thresholds: {rows} rows");
    assert!(rows > 400);
}

/// The function that reports: any numbers give some sentence, cut between characters where there is no room.
#[test]
fn the_sentence_itself() {
    let mut text = [7u8; 8];
    let mut len = 99usize;
    let good = convrelu_error { status: CONVRELU_ZERO as u32, argument: 3, values: [0, 1, 0], ..no_error() };
    let (room, none) = (text.as_mut_ptr().cast::<c_char>(), ptr::null_mut::<c_char>());
    let odd = ptr::from_ref(&good).wrapping_byte_add(4);
    let old = convrelu_error { struct_size: 8, ..good };
    let odd_len = ptr::from_mut(&mut len).wrapping_byte_add(1);
    // SAFETY: pointers are good, or such as the library must notice.
    unsafe {
        assert_eq!(convrelu_error_message(ptr::null(), room, 8, &mut len), CONVRELU_NULL);
        assert_eq!(convrelu_error_message(odd, room, 8, &mut len), CONVRELU_MISALIGNED);
        assert_eq!(convrelu_error_message(&old, room, 8, &mut len), CONVRELU_STRUCT_SIZE);
        assert_eq!(convrelu_error_message(&good, none, 8, &mut len), CONVRELU_NULL);
        assert_eq!(convrelu_error_message(&good, room, 0, &mut len), CONVRELU_BUFFER_TOO_SHORT);
        assert_eq!(convrelu_error_message(&good, room, usize::MAX, &mut len), CONVRELU_OVERFLOW);
        assert_eq!(convrelu_error_message(&good, room, 8, odd_len), CONVRELU_MISALIGNED);
        assert_eq!((text, len), ([7; 8], 99));
        assert_eq!(convrelu_error_message(&good, text.as_mut_ptr().cast(), 8, ptr::null_mut()), CONVRELU_OK);
    }
    assert_eq!(&text, b"groups \0");

    let shape = Error::ThresholdShape { elements: 7, thresholds: 2, inner: 3 };
    let error =
        convrelu_error { status: CONVRELU_THRESHOLD_SHAPE as u32, argument: 10, values: [7, 2, 3], ..no_error() };
    let whole = message(&error);
    assert_eq!(whole, shape.to_string());
    for capacity in 1..whole.len() + 2 {
        let mut text = vec![b'x'; capacity];
        // SAFETY: room for as many bytes as announced.
        let status = unsafe { convrelu_error_message(&error, text.as_mut_ptr().cast(), capacity, &mut len) };
        assert_eq!((status, len), (CONVRELU_OK, whole.len()));
        let end = text.iter().position(|&byte| byte == 0).expect("a zero byte");
        let cut = std::str::from_utf8(&text[..end]).expect("whole characters");
        assert!(whole.starts_with(cut) && cut.len() + 3 > (capacity - 1).min(whole.len()), "{cut:?}");
    }
    for status in 0..30 {
        for argument in (0..62).chain([u32::MAX]) {
            for values in [[0; 3], [usize::MAX; 3], [6, 6, 6]] {
                assert!(!message(&convrelu_error { status, argument, values, ..no_error() }).is_empty());
            }
        }
    }
}

/// An empty batch is no mistake: outputs are empty, gradients zero.
#[test]
fn an_empty_batch() {
    for desc in layers() {
        for (isa, new) in
            Isa::available().flat_map(|isa| [(isa, Layer::new as fn(_, _) -> _), (isa, Layer::transposed)])
        {
            let layer = new(desc.with_batch(0).unwrap(), isa);
            for call in layer.calls().filter(|call| matches!(call, Call::Pass(_) | Call::Ended(_))) {
                for c in [false, true] {
                    let mut buffers = layer.buffers(call, c);
                    if c {
                        let (status, message) = Raw::new(&layer, call, &mut buffers).call();
                        assert_eq!(status, CONVRELU_OK, "{message}");
                    } else {
                        assert_eq!(layer.rust(call, &mut buffers, &Asked::default()), Some(Ok(())));
                    }
                    let zeros = |buffers: &[Buffer]| {
                        for buffer in buffers.iter().filter(|buffer| buffer.written && buffer.name != "workspace") {
                            let zero = buffer.memory.iter().all(|value| value.to_bits() == 0);
                            assert!(zero, "{} of {call:?}", buffer.name);
                        }
                    };
                    zeros(&buffers);
                    if c {
                        // What has no elements may be null.
                        let mut buffers = layer.buffers(call, c);
                        let mut raw = Raw::new(&layer, call, &mut buffers);
                        raw.buffers
                            .iter_mut()
                            .filter(|(.., len)| *len == 0)
                            .for_each(|(_, data, _)| *data = ptr::null_mut());
                        let (status, message) = raw.call();
                        assert_eq!(status, CONVRELU_OK, "{message}");
                        zeros(&buffers);
                    }
                }
            }
        }
    }
}

/// What a call needs no input for, and what it does.
#[test]
fn missing_input() {
    let mut rows = Rows::default();
    let sentence = Error::MissingInput.to_string();
    assert_sentence(&sentence, &["input", "missing", "−∞"]);
    for layer in benches() {
        for call in [Call::Pass(Pass::BackwardInput), Call::Pass(Pass::BackwardInputPacked)] {
            let without = &["input"][..];
            for uniform in [None, Some(0.0), Some(-0.0), Some(f32::MIN), Some(f32::INFINITY)] {
                let asked = Asked { uniform, without, ..Asked::default() };
                rows.refused(&layer, call, |_| (), &asked, |_| Error::MissingInput);
            }
            // One threshold per tap decides by the input, whatever it is.
            let asked = Asked { without, ..Asked::default() };
            let lowest = |buffers: &mut Vec<Buffer>| buffers[2].memory.fill(f32::NEG_INFINITY);
            rows.refused(&layer, call, lowest, &asked, |_| Error::MissingInput);
            // With it or without, a plain convolution has the same gradients.
            let results = [&[][..], without].map(|without| {
                let asked = Asked { without, ..Asked::uniform(f32::NEG_INFINITY) };
                results_of_both(&layer, call, &asked)
            });
            assert!(results[0] == results[1], "{call:?} on {}: {:?}", layer.plan.isa(), layer.plan.desc());
            rows.0 += 2;
        }
    }
    println!("missing input: {} rows", rows.0);
    assert!(rows.0 > 400);
}

/// Bits of the gradients (or the output) of a call that succeeds, which are the same in Rust and in C.
fn results_of_both(layer: &Layer, call: Call, asked: &Asked<'_>) -> Vec<Vec<u32>> {
    let context = |what| format!("{what}, {call:?} on {}: {:?}", layer.plan.isa(), layer.plan.desc());
    let [rust, c] = [false, true].map(|in_c| {
        let mut buffers = layer.buffers(call, in_c);
        if let Call::Ended(_) = call {
            // What may be added to.
            buffers[4].memory.iter_mut().enumerate().for_each(|(i, value)| *value = (i % 7) as f32 / 8.0);
        }
        if let (Call::Pass(pass), Some(plan), true) = (call, &layer.transposed, asked.adds[0]) {
            buffers.last_mut().unwrap().memory.resize(plan.workspace_len(pass), STALE);
        }
        let before = snapshot(&buffers);
        if in_c {
            let mut raw = Raw::new(layer, call, &mut buffers);
            raw.ask(asked);
            let (status, message) = raw.call();
            assert_eq!(status, CONVRELU_OK, "{}", context(message));
        } else {
            assert_eq!(layer.rust(call, &mut buffers, asked), Some(Ok(())), "{}", context("Rust".to_owned()));
        }
        assert_untouched(layer, asked, &buffers, &before);
        let results = buffers.iter().filter(|buffer| buffer.written && buffer.name != "workspace");
        results.map(|buffer| bits(&buffer.memory)).collect::<Vec<_>>()
    });
    assert!(rust == c, "{}", context("other bits in C".to_owned()));
    rust
}

/// Each gradient is left out, is written anew, or is added to, whatever becomes of the other.
#[test]
fn each_gradient_is_optional() {
    let mut rows = 0;
    let mut bits_of = |layer: &Layer, call, asked: &Asked<'_>| {
        rows += 2;
        results_of_both(layer, call, asked)
    };
    for layer in benches() {
        for pass in [Pass::BackwardInput, Pass::BackwardInputPacked, Pass::BackwardWeight] {
            let call = Call::Pass(pass);
            let names = match pass {
                Pass::BackwardWeight => ["grad_weight", "grad_bias"],
                _ => ["grad_input", "grad_thresholds"],
            };
            let all = bits_of(&layer, call, &Asked::default());
            for (which, name) in names.iter().enumerate() {
                let asked = Asked { without: &[name], ..Asked::default() };
                let found = bits_of(&layer, call, &asked);
                assert!(found[1 - which] == all[1 - which], "without {name} on {}", layer.plan.isa());
            }
            bits_of(&layer, call, &Asked { without: &names, ..Asked::default() });
            for which in 0..2 {
                let mut adds = [false; 2];
                adds[which] = true;
                // What is there is a NaN, to which nothing can be added.
                let found = bits_of(&layer, call, &Asked { adds, ..Asked::default() });
                assert!(found[1 - which] == all[1 - which], "adding to {} on {}", names[which], layer.plan.isa());
                assert!(found[which].iter().all(|&value| f32::from_bits(value).is_nan()), "{}", names[which]);
            }
        }
    }
    println!("optional gradients: {rows} rows");
    assert!(rows > 400);
}

/// Every part of an epilogue, in Rust and in C; and bounds that are none.
#[test]
fn epilogues() {
    let mut rows = Rows::default();
    for layer in benches() {
        for pass in [Pass::Forward, Pass::ForwardPacked] {
            let (call, whole) = (Call::Ended(pass), [f32::NEG_INFINITY, f32::INFINITY]);
            let plain = results_of_both(&layer, Call::Pass(pass), &Asked::default());
            for parts in 0..16 {
                let names = ["scale", "shift", "residual"];
                let mut without: Vec<_> = (0..3).filter(|i| parts >> i & 1 == 0).map(|i| names[i]).collect();
                let adds = [parts & 8 != 0, false];
                if adds[0] && !without.contains(&"residual") {
                    without.push("residual");
                }
                let found = [None, Some(whole)].map(|bounds| {
                    let asked = Asked { without: &without, adds, bounds, ..Asked::default() };
                    results_of_both(&layer, call, &asked)
                });
                rows.0 += 4;
                // Gaps hold what they held before.
                let ([_, output], desc) = (layer.tensors(), layer.plan.desc());
                let values = |bits: &[Vec<u32>]| -> Vec<f32> {
                    let values = bits[0].iter().enumerate().filter(|(i, _)| !output.is_gap(desc, *i));
                    values.map(|(_, bits)| f32::from_bits(*bits)).collect()
                };
                let [clamped, free, plain] = [&found[0], &found[1], &plain].map(|bits| values(bits));
                assert!(clamped.iter().zip(&free).all(|(clamped, free)| *clamped == free.clamp(BOUNDS[0], BOUNDS[1])));
                assert_eq!(plain == free, without.len() == 3 && !adds[0], "{without:?} {adds:?}");
            }
            for (bounds, error) in [
                ([f32::NAN, 1.0], Error::NanBound { argument: "low" }),
                ([1.0, -f32::NAN], Error::NanBound { argument: "high" }),
                ([1.0, 0.5], Error::BoundsCrossed { low: 1.0, high: 0.5 }),
                ([f32::INFINITY, f32::NEG_INFINITY], Error::BoundsCrossed { low: whole[1], high: whole[0] }),
            ] {
                let asked = Asked { bounds: Some(bounds), ..Asked::default() };
                rows.refused(&layer, call, |_| (), &asked, |_| error);
            }
        }
    }
    println!("epilogues: {} rows", rows.0);
    assert!(rows.0 > 4000);
}

/// Transposed convolutions in C: lengths, and the bits of Rust's for each gradient that is left out, written anew or added to.
#[test]
fn transposed_convolutions() {
    let mut rows = 0;
    for layer in transposed_benches() {
        let mut lens = stale_lens();
        // SAFETY: pointers to what they say.
        assert_eq!(unsafe { convrelu_plan_lens(&layer.c, &mut lens, ptr::null_mut()) }, CONVRELU_OK);
        let plan = layer.transposed.as_ref().unwrap();
        let desc = plan.desc();
        let found = [lens.input, lens.output, lens.weight, lens.thresholds, lens.bias];
        assert_eq!(found, [desc.input_len(), desc.output_len(), desc.weight_len(), 0, desc.bias_len()]);
        assert_eq!(lens.output_size, desc.output_size());
        let packed = [plan.packed_weight_len(), plan.packed_weight_transposed_len()].map(|len| len + 16);
        assert_eq!([lens.packed_weight, lens.packed_weight_transposed], packed);
        for pass in PASSES {
            let mut len = 0;
            // SAFETY: as above.
            let status = unsafe { convrelu_workspace_len(&layer.c, number(pass), &mut len, ptr::null_mut()) };
            assert_eq!((status, len), (CONVRELU_OK, plan.workspace_len(pass)));
            let optional: &[&str] = match pass {
                Pass::Forward | Pass::ForwardPacked => &["bias"],
                Pass::BackwardWeight => &["grad_weight", "grad_bias"],
                _ => &["grad_input"],
            };
            let mut different = Vec::new();
            for adds in [[false; 2], [true, false], [false, true], [true; 2]] {
                for without in [&[], &optional[..1], &optional[optional.len() - 1..], optional] {
                    different.push(results_of_both(
                        &layer,
                        Call::Pass(pass),
                        &Asked { without, adds, ..Asked::default() },
                    ));
                    rows += 2;
                }
            }
            assert!(different[0] != different[3], "{pass:?}: what is left out is not missed");
        }
    }
    println!("transposed convolutions: {rows} rows");
    assert!(rows > 2000);
}

/// Whatever is wrong with a descriptor of a transposed convolution, Rust's builder and C's plan say the same.
#[test]
fn transposed_descriptors() {
    let mut refused = 0;
    for rank in 1..=3 {
        for layout in [CONVRELU_NCHW, CONVRELU_NHWC] {
            let mut good = good_desc(rank, layout);
            (good.kind, good.stride, good.output_padding) = (CONVRELU_TRANSPOSED, [2; 3], [1; 3]);
            assert!(rust_transposed(&good).is_ok() && try_plan(&good, CONVRELU_ISA_AUTO).is_ok());
            let mut check = |desc: &convrelu_desc| match rust_transposed(desc) {
                Ok(_) => {
                    try_plan(desc, CONVRELU_ISA_AUTO).unwrap_or_else(|error| panic!("{error:?}: {desc:?}"));
                    None
                }
                Err(error) => {
                    let sentence = error.to_string();
                    assert_eq!(try_plan(desc, CONVRELU_ISA_AUTO), Err((status_of(error), sentence)), "{desc:?}");
                    refused += 1;
                    Some(error)
                }
            };
            for (spoil, ..) in mistakes(rank).into_iter().chain(pitch_mistakes(rank, layout)) {
                let mut desc = good;
                spoil(&mut desc);
                check(&desc);
            }
            for axis in 0..rank {
                let name = AXES[3 - rank + axis];
                let mut desc = good;
                desc.output_padding[axis] = 2;
                let error = Error::OutputPaddingTooLarge { axis: name, output_padding: 2, step: 2 };
                assert_eq!(check(&desc), Some(error));
                desc.dilation[axis] = 3;
                assert_eq!(check(&desc), None);
                let mut desc = good;
                // (5 − 1) · 2 + 3 + 1 outputs.
                (desc.padding_before[axis], desc.padding_after[axis]) = (5, 7);
                assert_eq!(check(&desc), Some(Error::PaddingTooLarge { axis: name, padding: 12, unpadded: 12 }));
            }
            let channels = convrelu_desc { in_channels: 0, ..good };
            assert_eq!(check(&channels), Some(Error::ZeroChannels { argument: "in_channels" }));
            let pitch = convrelu_desc { output_pitch: 1, ..good };
            assert!(matches!(check(&pitch), Some(Error::PitchTooSmall { argument: "output_pitch", pitch: 1, .. })));
        }
    }
    println!("descriptors of transposed convolutions: {refused} rows");
    assert!(refused > 300);
}

/// The library that is linked is the one of the header.
#[test]
fn version() {
    let (mut major, mut minor, mut patch, mut abi) = (99, 99, 99, 99);
    // SAFETY: pointers to numbers.
    let statuses = unsafe {
        let version = convrelu_version(&mut major, &mut minor, &mut patch, ptr::null_mut());
        [version, convrelu_abi(&mut abi, ptr::null_mut())]
    };
    assert_eq!(statuses, [CONVRELU_OK; 2]);
    assert_eq!(format!("{major}.{minor}.{patch}"), env!("CARGO_PKG_VERSION"));
    assert_eq!([major, minor, patch], [CONVRELU_VERSION_MAJOR, CONVRELU_VERSION_MINOR, CONVRELU_VERSION_PATCH]);
    assert_eq!(abi, CONVRELU_ABI);
}

/// The gradient of a uniform threshold is one element; what lies behind it is not written.
#[test]
fn the_gradient_of_a_uniform_threshold() {
    let mut rows = Rows::default();
    for layer in benches() {
        for theta in [0.25, 0.0, f32::NEG_INFINITY] {
            let layer = layer.with_case(&layer.case.clone().with_theta(Theta::Uniform(theta)));
            for pass in [Pass::BackwardInput, Pass::BackwardInputPacked] {
                let call = Call::Pass(pass);
                let found = results_of_both(&layer, call, &Asked::default());
                assert_eq!(found[1].len(), 1);
                rows.0 += 2;
                let argument = "grad_thresholds";
                let error = Error::BufferTooShort { argument, len: 0, required: 1 };
                assert_sentence(&error.to_string(), &[argument, "0", "1"]);
                let empty = |buffers: &mut Vec<Buffer>| buffers[5].memory.clear();
                rows.refused(&layer, call, empty, &Asked::default(), |_| error);
                // As long as that of one per tap.
                let mut longer = layer.buffers(call, true);
                longer[5].memory.resize(layer.plan.desc().threshold_len(), STALE);
                let (status, message) = Raw::new(&layer, call, &mut longer).call();
                assert_eq!(status, CONVRELU_OK, "{message}");
                assert_eq!(bits(&longer[5].memory[..1]), found[1]);
                assert!(longer[5].memory[1..].iter().all(|value| value.to_bits() == STALE.to_bits()));
            }
        }
    }
    println!("uniform thresholds: {} rows", rows.0);
    assert!(rows.0 > 400);
}

/// Layers whose calls split into three tasks.
fn threaded() -> impl Iterator<Item = Layer> {
    let shape = Shape::new(6, 20, 30, &[Axis::new(13, 3).padding(1, 1); 2]).gaps([1, 2]);
    let descs = [Layout::Nchw, Layout::Nhwc].map(|layout| shape.clone().layout(layout).desc());
    let of = move |layer: fn(ConvDesc, Isa) -> Layer| {
        descs.into_iter().flat_map(move |desc| Isa::available().map(move |isa| layer(desc, isa).with_threads(3)))
    };
    of(Layer::new).chain(of(Layer::transposed))
}

const PASS_CALLS: [Call; 5] = {
    let [a, b, c, d, e] = PASSES;
    [Call::Pass(a), Call::Pass(b), Call::Pass(c), Call::Pass(d), Call::Pass(e)]
};

/// Tasks in any order, on any threads, give the bits of one thread.
#[test]
fn executors() {
    let behaviours: [Behaviour; 3] = [
        |tasks, task| (0..tasks).for_each(task),
        |tasks, task| (0..tasks).rev().for_each(task),
        |tasks, task| {
            std::thread::scope(|scope| {
                for index in 0..tasks {
                    scope.spawn(move || task(index));
                }
            });
        },
    ];
    for layer in threaded() {
        let new = if layer.transposed.is_some() { Layer::transposed } else { Layer::new };
        let alone = new(layer.case.desc, layer.plan.isa());
        for call in PASS_CALLS {
            let expected = results_of_both(&alone, call, &Asked::default());
            for behaviour in [None].into_iter().chain(behaviours.map(Some)) {
                let found = results_of_both(&layer, call, &Asked { behaviour, ..Asked::default() });
                assert!(found == expected, "{call:?} on {}: {:?}", layer.plan.isa(), layer.plan.desc());
            }
            // One task is not worth asking for.
            let never: Behaviour = |_, _| unreachable!("asked for one task");
            let found = results_of_both(&alone, call, &Asked { behaviour: Some(never), ..Asked::default() });
            assert!(found == expected);
        }
    }
}

/// A task twice, never, or one that there is not: an error, and nothing outside of the buffers is written.
#[test]
fn wrong_executors() {
    let twice: Behaviour = |tasks, task| (0..tasks).chain([1]).for_each(task);
    let all_twice: Behaviour = |tasks, task| (0..2 * tasks).for_each(|index| task(index / 2));
    let not_the_first: Behaviour = |tasks, task| (1..tasks).for_each(task);
    let not_the_last: Behaviour = |tasks, task| (0..tasks - 1).for_each(task);
    let none: Behaviour = |_, _| ();
    let one_more: Behaviour = |tasks, task| (0..=tasks).for_each(task);
    let far: Behaviour = |tasks, task| (0..tasks).chain([usize::MAX - 1]).for_each(task);
    // Each on a thread of its own, at the same time.
    let together: Behaviour = |tasks, task| {
        std::thread::scope(|scope| {
            for _ in 0..tasks {
                scope.spawn(|| task(0));
            }
        });
    };
    let mut rows = 0;
    for layer in threaded() {
        for call in PASS_CALLS {
            // Without a behaviour, C's caller is forgetful.
            let mut check = |behaviour: Option<Behaviour>, task: usize, never: bool| {
                let error = Error::Executor { tasks: 3, task, never };
                let done = if never { "never" } else { "more than once" };
                assert_sentence(&error.to_string(), &["executor", done, &task.to_string(), "tasks 0 to 2"]);
                let asked = Asked { behaviour, ..Asked::default() };
                for c in [false, true] {
                    let mut buffers = layer.buffers(call, c);
                    let before = snapshot(&buffers);
                    let lens: Vec<usize> = buffers.iter().map(|buffer| buffer.memory.len()).collect();
                    for buffer in &mut buffers {
                        buffer.memory.splice(0..0, [STALE; MARGIN]);
                        buffer.memory.extend([STALE; MARGIN]);
                    }
                    if c {
                        let mut raw = Raw::new(&layer, call, &mut buffers);
                        raw.ask(&asked);
                        raw.parallel_for = raw.parallel_for.or(Some(forgetful));
                        for ((_, data, len), exact) in raw.buffers.iter_mut().zip(&lens) {
                            (*data, *len) = (data.wrapping_add(MARGIN), *exact);
                        }
                        assert_eq!(raw.call(), (CONVRELU_EXECUTOR, error.to_string()), "{call:?}");
                    } else if behaviour.is_some() {
                        // Rust's slices have an end, and may be longer.
                        buffers.iter_mut().for_each(|buffer| drop(buffer.memory.drain(..MARGIN)));
                        assert_eq!(layer.rust(call, &mut buffers, &asked), Some(Err(error)), "{call:?}");
                        buffers.iter_mut().for_each(|buffer| drop(buffer.memory.splice(0..0, [STALE; MARGIN])));
                    } else {
                        continue;
                    }
                    for (buffer, len) in buffers.iter_mut().zip(lens) {
                        let margins = [buffer.memory.split_off(MARGIN + len), buffer.memory.drain(..MARGIN).collect()];
                        assert!(margins.iter().flatten().all(|value| value.to_bits() == STALE.to_bits()));
                    }
                    // What is read stays as it is, and what is written keeps its gaps.
                    assert_untouched(&layer, &asked, &buffers, &before);
                    let unread = buffers.iter().zip(&before).filter(|(buffer, _)| !buffer.written);
                    unread.for_each(|(buffer, before)| assert!(bits(&buffer.memory) == *before, "{}", buffer.name));
                    rows += 1;
                }
            };
            let wrong = [
                (twice, 1, false),
                (all_twice, 2, false),
                (not_the_first, 0, true),
                (not_the_last, 2, true),
                (none, 0, true),
                (one_more, 3, false),
                (far, usize::MAX - 1, false),
                (together, 0, false),
            ];
            for (behaviour, task, never) in wrong {
                check(Some(behaviour), task, never);
            }
            check(None, 0, true);
        }
    }
    println!("wrong executors: {rows} rows");
    assert!(rows > 100);
}

/// Elements around a buffer: more than the widest vector.
const MARGIN: usize = 24;

/// The algorithm of a pass that multiplies zeros that it has put where padding, or the outside of the gradient, is read:
/// with an ∞ or NaN in the other factor (the weight, or the gradient of the output) those products are NaN, where they should
/// not be there at all. The kernels that replace these algorithms read valid taps alone, and fulfil the demand of
/// [`special_values`]; a mark without a reason fails it.
fn multiplies_outside(plan: &ConvRelu, pass: Pass) -> Option<String> {
    let desc = plan.desc();
    let padded = [desc.padding_before(), desc.padding_after()] != [[0; 3]; 2];
    let marked = match pass {
        Pass::Forward | Pass::ForwardPacked => match plan.forward_algorithm() {
            ForwardAlgorithm::BatchReduce | ForwardAlgorithm::Depthwise | ForwardAlgorithm::Tiny => None,
            algorithm => padded.then(|| format!("{algorithm:?}")),
        },
        Pass::BackwardInput | Pass::BackwardInputPacked => match plan.backward_input_algorithm() {
            BackwardInputAlgorithm::Progressions | BackwardInputAlgorithm::Depthwise | BackwardInputAlgorithm::Tiny => {
                None
            }
            // Whatever the padding, some positions are read by fewer taps than others.
            algorithm => (desc.taps() > 1).then(|| format!("{algorithm:?}")),
        },
        Pass::BackwardWeight => match plan.backward_weight_algorithm() {
            "depthwise" | "stripes" | "tiny" => None,
            algorithm => padded.then(|| algorithm.to_owned()),
        },
    };
    marked.map(|algorithm| format!("{algorithm} in {pass:?}"))
}

/// What marked algorithms did: whether they deviated.
type Marks = BTreeMap<String, bool>;

/// Results that are what the oracle says, with a choice of the kind where the oracle leaves one.
///
/// A result is not finite exactly where the oracle's is not. It is ∞ where the oracle's is, of the same sign. It is NaN where
/// the oracle's is and no operand is infinite. Otherwise infinities of both signs may have met in the oracle's sum, or an
/// infinity a zero, which leaves the kind (NaN against ∞) to the order of summation: any result will do that is not finite.
fn check_reached(
    expected: &Expected,
    results: &Results,
    prior: Option<&Results>,
    infinities: bool,
    mut mark: Option<&mut bool>,
    context: impl Fn() -> String,
) {
    let mut results = results.clone();
    for (which, values) in results.values.iter_mut().enumerate() {
        let prior = prior.and_then(|prior| prior.values[which].as_deref());
        for (i, (value, sum)) in values.iter_mut().flatten().zip(expected.values(which)).enumerate() {
            let want = sum + prior.map_or(0.0, |prior| f64::from(prior[i]));
            match &mut mark {
                _ if value.is_finite() => continue,
                Some(deviates) if want.is_finite() => **deviates = true,
                // Where the zeros of marked algorithms meet an infinity, it becomes NaN.
                Some(_) => (),
                None if want.is_nan() && infinities => (),
                None => continue,
            }
            *value = want as f32;
        }
    }
    expected.check(&results, prior, context);
}

/// The plans of a layer that take different algorithms in a pass, on an instruction set.
fn plans_of(desc: ConvDesc, isa: Isa, pass: Pass) -> Vec<ConvRelu> {
    let usual = Tuning::default();
    let tunings = match pass {
        Pass::Forward | Pass::ForwardPacked => {
            let forced = [ForwardAlgorithm::Direct, ForwardAlgorithm::BatchReduce];
            forced.map(|algorithm| Tuning { forward: Some(algorithm), ..usual }).to_vec()
        }
        Pass::BackwardInput | Pass::BackwardInputPacked => {
            let forced = [BackwardInputAlgorithm::Progressions, BackwardInputAlgorithm::Planar];
            forced.map(|algorithm| Tuning { backward_input: Some(algorithm), ..usual }).to_vec()
        }
        Pass::BackwardWeight => vec![Tuning { depthwise: false, ..usual }],
    };
    [usual].into_iter().chain(tunings).map(|tuning| common::plan(desc, isa, Some(tuning))).collect()
}

/// Runs a case on all instruction sets and algorithms, and through C, whose bits are the same.
fn check_special(
    shared: &[Layer],
    case: &Case,
    pass: Pass,
    prior: Option<&Results>,
    marks: &mut Marks,
    context: impl Fn() -> String,
) {
    let expected = Expected::new(case, pass);
    let has = |special: fn(f32) -> bool, values: &[f32]| values.iter().any(|value| special(*value));
    let [not_finite, infinite]: [fn(f32) -> bool; 2] = [|value| !value.is_finite(), f32::is_infinite];
    // Gaps hold NaN, which nobody reads.
    let grad_output = channels_of(&case.grad_output, Tensor::Output, &case.desc);
    let factors = match pass {
        Pass::Forward | Pass::ForwardPacked => has(not_finite, &case.weight),
        Pass::BackwardInput | Pass::BackwardInputPacked => {
            has(not_finite, &case.weight) || has(not_finite, &grad_output)
        }
        Pass::BackwardWeight => has(not_finite, &grad_output),
    };
    let theta = case.theta.per_tap(&case.desc);
    let operands = [&case.input, &case.weight, &theta, &case.grad_output].into_iter().chain(&case.bias);
    let prior_values = prior.iter().flat_map(|prior| prior.values.iter().flatten());
    let infinities = operands.chain(prior_values).any(|values| has(infinite, values));
    for isa in isas() {
        for plan in plans_of(case.desc, isa, pass) {
            let mark = multiplies_outside(&plan, pass).filter(|_| factors).map(|name| marks.entry(name).or_default());
            let results = run(&plan, pass, case, How::default(), prior);
            check_reached(&expected, &results, prior, infinities, mark, || format!("{} on {isa}: {plan:?}", context()));
        }
    }
    for layer in shared {
        let results = run(&layer.plan, pass, case, How::default(), prior);
        let c = results_of_c(layer, case, pass, prior);
        assert!(same_numbers(&results, &c), "other bits in C: {} on {}", context(), layer.plan.isa());
    }
}

/// A tensor without what belongs to no channel.
fn channels_of(values: &[f32], tensor: Tensor, desc: &ConvDesc) -> Vec<f32> {
    values.iter().enumerate().filter(|(i, _)| !tensor.is_gap(desc, *i)).map(|(_, value)| *value).collect()
}

const SPECIALS: [f32; 8] = [
    f32::NAN,
    f32::from_bits(0xff80_0001),
    0.0,
    -0.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MIN_POSITIVE / 2.0,
    -f32::from_bits(1),
];

/// Where a special value lies.
#[derive(Clone, Copy, Debug)]
enum Where {
    First,
    Middle,
    /// In every ninth element: of several channels, whose thresholds have either sign.
    Scattered,
    Everywhere,
}

impl Where {
    fn put(self, values: &mut [f32], special: f32) {
        self.put_apart(values, special, |_| false);
    }

    /// In an element that is no gap.
    fn put_apart(self, values: &mut [f32], special: f32, is_gap: impl Fn(usize) -> bool) {
        match self {
            Self::First => values[0] = special,
            Self::Middle => {
                let at = (values.len() / 2..values.len()).find(|i| !is_gap(*i));
                values[at.expect("the last element is no gap")] = special;
            }
            Self::Scattered => values.iter_mut().step_by(9).for_each(|value| *value = special),
            Self::Everywhere => values.fill(special),
        }
    }
}

/// A case with a special value in one operand, and what its gradients are added to; none where the pass has no such operand.
fn special_case(desc: ConvDesc, pass: Pass, operand: &str, special: f32, at: Where) -> Option<(Case, Option<Results>)> {
    let mut case = Case::new(desc, Values::Continuous, 33);
    let backward = !matches!(pass, Pass::Forward | Pass::ForwardPacked);
    let mut prior = None;
    match operand {
        "input" => at.put_apart(&mut case.input, special, |i| Tensor::Input.is_gap(&desc, i)),
        "weight" if pass != Pass::BackwardWeight => at.put(&mut case.weight, special),
        "thresholds" if !special.is_nan() => {
            let mut theta = case.theta.per_tap(&desc);
            at.put(&mut theta, special);
            case.theta = Theta::PerTap(theta);
        }
        "threshold" if !special.is_nan() && matches!(at, Where::Everywhere) => case.theta = Theta::Uniform(special),
        "bias" if !backward => at.put(case.bias.as_mut().unwrap(), special),
        "grad_output" if backward => {
            at.put_apart(&mut case.grad_output, special, |i| Tensor::Output.is_gap(&desc, i));
        }
        "prior" if backward => {
            prior = Some(Results::prior(&case, pass, [true; 2], |len| {
                let mut values = vec![0.5; len];
                at.put(&mut values, special);
                values
            }));
        }
        _ => return None,
    }
    Some((case, prior))
}

/// NaN, zeros, infinities and subnormal numbers in every operand are no mistakes (but for NaN thresholds). They reach exactly
/// the results that they reach in the oracle, whatever the instruction set and the algorithm, but for those that are marked;
/// both interfaces give the same bits.
#[test]
fn special_values() {
    let mut rows = 0;
    let mut marks = Marks::new();
    for desc in layers() {
        let shared: Vec<Layer> = Isa::available().map(|isa| Layer::new(desc, isa)).collect();
        for pass in PASSES {
            for operand in ["input", "weight", "thresholds", "threshold", "bias", "grad_output", "prior"] {
                for special in SPECIALS {
                    for at in [Where::First, Where::Middle, Where::Scattered, Where::Everywhere] {
                        let Some((case, prior)) = special_case(desc, pass, operand, special, at) else { continue };
                        rows += 1;
                        check_special(&shared, &case, pass, prior.as_ref(), &mut marks, || {
                            format!("{special} in {operand}, {at:?}, {pass:?}")
                        });
                    }
                }
            }
        }
    }
    println!("special values: {rows} rows; marked: {marks:?}");
    assert!(rows > 4000);
    for (algorithm, deviates) in marks {
        assert!(deviates, "{algorithm} does what it should: it needs no mark any more");
    }
}

/// The same with special values in all operands at once.
#[test]
fn special_values_that_meet() {
    let mut rows = 0;
    let mut marks = Marks::new();
    for desc in layers() {
        let shared: Vec<Layer> = Isa::available().map(|isa| Layer::new(desc, isa)).collect();
        for seed in 0..12 {
            let mut case = Case::new(desc, Values::Quantised, seed);
            let mut rng = Rng(seed + 100);
            let mut put = |values: &mut [f32], specials: &[f32]| {
                for _ in 0..1 + rng.below(3) {
                    values[rng.below(values.len())] = specials[rng.below(specials.len())];
                }
            };
            let mut theta = case.theta.per_tap(&desc);
            put(&mut theta, &SPECIALS[2..]);
            case.theta = match seed % 4 {
                0 => Theta::Uniform(f32::NEG_INFINITY),
                1 => Theta::Uniform(0.0),
                _ => Theta::PerTap(theta),
            };
            for values in [&mut case.input, &mut case.weight, case.bias.as_mut().unwrap(), &mut case.grad_output] {
                put(values, &SPECIALS);
            }
            for pass in PASSES {
                rows += 1;
                check_special(&shared, &case, pass, None, &mut marks, || format!("seed {seed}, {pass:?}"));
            }
        }
    }
    println!("special values that meet: {rows} rows");
    assert!(rows > 500);
}

/// Equal bits, but for which NaN it is.
fn same_numbers(rust: &Results, c: &[Vec<f32>]) -> bool {
    let canonical = |value: f32| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() };
    rust.values
        .iter()
        .flatten()
        .zip(c)
        .all(|(rust, c)| rust.len() == c.len() && rust.iter().zip(c).all(|(rust, c)| canonical(*rust) == canonical(*c)))
}

/// What the C interface writes for a case.
fn results_of_c(layer: &Layer, case: &Case, pass: Pass, prior: Option<&Results>) -> Vec<Vec<f32>> {
    let layer = layer.with_case(case);
    let mut buffers = layer.buffers(Call::Pass(pass), true);
    if is_packed(pass) {
        let mut pack = layer.buffers(Call::Pack(pass), true);
        let (status, message) = Raw::new(&layer, Call::Pack(pass), &mut pack).call();
        assert_eq!(status, CONVRELU_OK, "{message}");
        buffers[1].memory = pack.swap_remove(1).memory;
    }
    let mut outputs = buffers.iter_mut().filter(|buffer| buffer.written && buffer.name != "workspace");
    if let Some(prior) = prior {
        for (buffer, prior) in outputs.by_ref().zip(prior.values.iter().flatten()) {
            buffer.memory.clone_from(prior);
        }
    }
    let asked = Asked { adds: [prior.is_some(); 2], ..Asked::default() };
    let before = snapshot(&buffers);
    let mut raw = Raw::new(&layer, Call::Pass(pass), &mut buffers);
    raw.ask(&asked);
    let (status, message) = raw.call();
    assert_eq!(status, CONVRELU_OK, "{message}");
    assert_untouched(&layer, &asked, &buffers, &before);
    for buffer in buffers.iter_mut().filter(|_| prior.is_none()) {
        // As the results of Rust are handed over.
        let tensor = match buffer.name {
            "output" => Tensor::Output,
            "grad_input" => Tensor::Input,
            _ => continue,
        };
        let values = buffer.memory.iter_mut().enumerate();
        values.filter(|(i, _)| tensor.is_gap(&case.desc, *i)).for_each(|(_, value)| *value = 0.0);
    }
    let outputs = buffers.into_iter().filter(|buffer| buffer.written && buffer.name != "workspace");
    outputs.map(|buffer| buffer.memory).collect()
}
