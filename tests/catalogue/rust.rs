//! Calls of a layer through the Rust interface.

use convrelu::transposed::{self, ConvTranspose};
use convrelu::{
    Accumulation, BackwardInput, BackwardWeight, ConvRelu, Epilogue, Error, Forward, InputGradients, PackedWeight,
    Pass, Residual, Thresholds, Weight, WeightGradients, adarelu,
};

use crate::call::{Asked, BOUNDS, Buffer, Call, INNER, is_packed};
use crate::common::Theta;
use crate::layer::Layer;

impl Layer {
    /// Makes a call of the Rust interface; `None` where it has none such.
    pub(crate) fn rust(&self, call: Call, buffers: &mut [Buffer], asked: &Asked<'_>) -> Option<Result<(), Error>> {
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
