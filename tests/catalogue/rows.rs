//! The checks of the catalogue: calls that must be refused, calls that must have the same results in Rust and in C, and the
//! sentences of errors.

use convrelu::Error;
use convrelu::capi::convrelu_status::{self as Status, *};
use convrelu::capi::*;

use crate::call::{Asked, Buffer, Call, STALE, bits, snapshot};
use crate::layer::Layer;
use crate::raw::Raw;
use crate::structs::{message, no_error, stale_lens};
use crate::translate::status_of;

/// One line that says what (`words`) is wrong and what must be.
pub(crate) fn assert_sentence(message: &str, words: &[&str]) {
    assert!(!message.contains('\n') && message.len() < 200, "{message}");
    for word in words.iter().chain(&["must"]) {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
}

/// Counts rows, so that a table that lost most of them is noticed.
#[derive(Default)]
pub(crate) struct Rows(pub(crate) usize);

impl Rows {
    /// A call that both interfaces must refuse with `error`, writing nothing.
    pub(crate) fn refused(
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
    pub(crate) fn refused_by_rust(
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
    pub(crate) fn refused_by_c(
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

/// That a call has written nothing between pixels or images, nor what was left out.
pub(crate) fn assert_untouched(layer: &Layer, asked: &Asked<'_>, buffers: &[Buffer], before: &[Vec<u32>]) {
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

/// The functions that take a plan and no buffers.
pub(crate) fn assert_plan_is_refused(plan: &convrelu_plan, (status, sentence): (Status, &str)) {
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

/// Bits of the gradients (or the output) of a call that succeeds, which are the same in Rust and in C.
pub(crate) fn results_of_both(layer: &Layer, call: Call, asked: &Asked<'_>) -> Vec<Vec<u32>> {
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
        let results = buffers.iter().filter(|buffer| buffer.is_result());
        results.map(|buffer| bits(&buffer.memory)).collect::<Vec<_>>()
    });
    assert!(rust == c, "{}", context("other bits in C".to_owned()));
    rust
}
