//! Executors that run the tasks of a call in another order, on other threads, too often, or not at all.

use std::ffi::c_void;
use std::ptr;

use convrelu::capi::convrelu_status::*;
use convrelu::capi::*;
use convrelu::{ConvDesc, Error, Isa, Layout};

use crate::call::{Asked, Behaviour, Call, STALE, bits, snapshot};
use crate::common::{Axis, PASSES, Shape};
use crate::layer::Layer;
use crate::raw::Raw;
use crate::rows::{assert_sentence, assert_untouched, results_of_both};

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

/// Another caller, who keeps the context of the tasks to himself.
unsafe extern "C" fn forgetful(_: *mut c_void, tasks: usize, task: convrelu_task, _: *mut c_void) {
    // SAFETY: null is no task.
    (0..tasks).for_each(|index| unsafe { task(ptr::null_mut(), index) });
}

/// Elements around a buffer: more than the widest vector.
const MARGIN: usize = 24;

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
