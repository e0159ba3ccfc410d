//! Every call that takes buffers, its buffers, and what it is asked for.

use convrelu::{Accumulation, Executor, Gradient, Pass, Serial};

/// What everything that may be written holds before.
pub(crate) const STALE: f32 = f32::from_bits(0x7fc0_beef);

/// Every call that takes buffers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Call {
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

pub(crate) const CALLS: [Call; 13] = [
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
pub(crate) const ELEMENTS: usize = 30;
pub(crate) const THETAS: usize = 5;
pub(crate) const INNER: usize = 2;

/// Between which values an epilogue keeps the outputs, unless a row says otherwise.
pub(crate) const BOUNDS: [f32; 2] = [-0.75, 1.5];

pub(crate) fn is_packed(pass: Pass) -> bool {
    matches!(pass, Pass::ForwardPacked | Pass::BackwardInputPacked)
}

/// A buffer of a call.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    pub(crate) name: &'static str,
    pub(crate) memory: Vec<f32>,
    pub(crate) written: bool,
}

impl Buffer {
    /// Whether a call leaves its results there.
    pub(crate) fn is_result(&self) -> bool {
        self.written && self.name != "workspace"
    }
}

/// Bit patterns of everything that a call was given.
pub(crate) fn snapshot(buffers: &[Buffer]) -> Vec<Vec<u32>> {
    buffers.iter().map(|buffer| bits(&buffer.memory)).collect()
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// What runs the tasks of a call.
pub(crate) type Behaviour = fn(usize, &(dyn Fn(usize) + Sync));

/// That of a Rust caller, if any.
pub(crate) struct Behaves(Option<Behaviour>);

impl Executor for Behaves {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        match self.0 {
            None => Serial.run(tasks, task),
            Some(behaviour) => behaviour(tasks, task),
        }
    }
}

/// What a call is asked for, where that is not all there is, written anew, on the calling thread.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    /// Instead of the thresholds of the layer.
    pub(crate) uniform: Option<f32>,
    /// Buffers that are left out.
    pub(crate) without: &'a [&'a str],
    /// Whether gradients, or the output of an epilogue, are added to what is there.
    pub(crate) adds: [bool; 2],
    /// Instead of [`BOUNDS`].
    pub(crate) bounds: Option<[f32; 2]>,
    pub(crate) behaviour: Option<Behaviour>,
}

impl Asked<'_> {
    pub(crate) fn uniform(threshold: f32) -> Self {
        Self { uniform: Some(threshold), ..Self::default() }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.without.contains(&name)
    }

    pub(crate) fn executor(&self) -> Behaves {
        Behaves(self.behaviour)
    }

    pub(crate) fn gradient<'b>(&self, buffer: &'b mut Buffer, which: usize) -> Option<Gradient<'b>> {
        let accumulation = if self.adds[which] { Accumulation::Add } else { Accumulation::Overwrite };
        self.has(buffer.name).then(|| Gradient::new(&mut buffer.memory, accumulation))
    }
}
