//! Calls of a layer through the C interface, whose every field the tests may spoil.

use std::ffi::c_void;
use std::ptr;

use convrelu::Pass;
use convrelu::capi::convrelu_status as Status;
use convrelu::capi::*;

use crate::call::{Asked, BOUNDS, Behaviour, Buffer, Call, INNER, is_packed};
use crate::common::Theta;
use crate::layer::Layer;
use crate::structs::{message, no_epilogue, no_error};
use crate::translate::{number, uniform_kind};

/// How a pointer to a struct is handed over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pointer {
    Good,
    Null,
    Misaligned,
}

impl Pointer {
    pub(crate) fn of<T>(self, value: &T) -> *const T {
        match self {
            Self::Good => value,
            Self::Null => ptr::null(),
            Self::Misaligned => ptr::from_ref(value).wrapping_byte_add(1),
        }
    }
}

/// A call of the C interface in the making: rows spoil its fields.
#[derive(Clone)]
pub(crate) struct Raw {
    call: Call,
    pub(crate) plan: convrelu_plan,
    pub(crate) plan_at: Pointer,
    pub(crate) args_at: Pointer,
    pub(crate) error_at: Pointer,
    pub(crate) error_size: usize,
    pub(crate) args_size: Option<usize>,
    pub(crate) epilogue_at: Pointer,
    /// All but its buffers.
    pub(crate) epilogue: convrelu_epilogue,
    /// Which reserved field of the arguments is not zero.
    pub(crate) reserved: Option<usize>,
    pub(crate) buffers: Vec<(&'static str, *mut f32, usize)>,
    pub(crate) pass: u32,
    pub(crate) weight_kind: u32,
    pub(crate) threshold_kind: u32,
    pub(crate) threshold: f32,
    /// Of each gradient; the elementwise call has but the first.
    pub(crate) accumulation: [u32; 2],
    pub(crate) inner: usize,
    pub(crate) parallel_for: convrelu_parallel_for,
    behaviour: Behaviour,
}

impl Raw {
    pub(crate) fn new(layer: &Layer, call: Call, buffers: &mut [Buffer]) -> Self {
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
    pub(crate) fn ask(&mut self, asked: &Asked<'_>) {
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

    pub(crate) fn buffer(&mut self, name: &str) -> &mut (&'static str, *mut f32, usize) {
        self.buffers.iter_mut().find(|buffer| buffer.0 == name).unwrap()
    }

    pub(crate) fn has_plan(&self) -> bool {
        !matches!(self.call, Call::AdareluForward | Call::AdareluBackward)
    }

    pub(crate) fn has_args(&self) -> bool {
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
    pub(crate) fn call(&self) -> (Status, String) {
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
