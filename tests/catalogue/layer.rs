//! A layer, planned for Rust and for C, and good buffers for each of its calls.

use std::ptr;

use convrelu::capi::convrelu_status::*;
use convrelu::capi::*;
use convrelu::transposed::ConvTranspose;
use convrelu::{ConvRelu, Pass};

use crate::call::{Buffer, CALLS, Call, ELEMENTS, STALE, THETAS, is_packed};
use crate::common::{Case, Tensor};

/// A layer, planned for Rust and for C, and its weight, packed by C for both passes.
pub(crate) struct Layer {
    /// Of a transposed convolution, that of the mirrored one, whose output is this one's input; but the bias is its own.
    pub(crate) case: Case,
    pub(crate) plan: ConvRelu,
    pub(crate) transposed: Option<ConvTranspose>,
    pub(crate) c: convrelu_plan,
    pub(crate) packed: [Vec<f32>; 2],
}

impl Layer {
    /// The same layer, whose calls split into tasks.
    pub(crate) fn with_threads(self, threads: usize) -> Self {
        let mut c = self.c;
        // SAFETY: a plan.
        assert_eq!(unsafe { convrelu_plan_set_threads(&mut c, threads, ptr::null_mut()) }, CONVRELU_OK);
        let transposed = self.transposed.map(|plan| plan.with_threads(threads));
        Self { plan: self.plan.with_threads(threads), transposed, c, ..self }
    }

    /// The calls that there are of such a layer.
    pub(crate) fn calls(&self) -> impl Iterator<Item = Call> + use<> {
        let transposed = self.transposed.is_some();
        let plain = |call: &Call| matches!(call, Call::Ended(_) | Call::AdareluForward | Call::AdareluBackward);
        CALLS.into_iter().filter(move |call| !(transposed && plain(call)))
    }

    /// Where the input and the output lie.
    pub(crate) fn tensors(&self) -> [Tensor; 2] {
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
    pub(crate) fn packed_len(&self, pass: Pass) -> usize {
        let [forward, transposed] = match &self.transposed {
            None => [self.plan.packed_weight_len(), self.plan.packed_weight_transposed_len()],
            Some(plan) => [plan.packed_weight_len(), plan.packed_weight_transposed_len()],
        };
        if pass == Pass::ForwardPacked { forward } else { transposed }
    }

    /// The same layer with other values.
    pub(crate) fn with_case(&self, case: &Case) -> Self {
        Self { case: case.clone(), packed: self.packed.clone(), ..*self }
    }

    pub(crate) fn packed(&self, pass: Pass) -> &[f32] {
        &self.packed[usize::from(pass == Pass::BackwardInputPacked)]
    }

    /// Good buffers for a call, exactly as long as it needs, in the order of its arguments.
    pub(crate) fn buffers(&self, call: Call, c: bool) -> Vec<Buffer> {
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
}
