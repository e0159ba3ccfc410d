//! Criterion benchmarks: `cargo bench --bench conv -- forward/d1/nchw/avx2`.
//!
//! Names are `pass/layer/layout/instruction set`; throughput is floating-point operations, padded taps counted.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use common::{LAYOUTS, Task, call, check_baseline, multiply_adds, shapes};
use convrelu::Isa;

fn passes(criterion: &mut Criterion) {
    for task in Task::ALL {
        let mut group = criterion.benchmark_group(task.name());
        for (layout_name, layout) in LAYOUTS {
            for (name, desc) in shapes(layout) {
                group.throughput(Throughput::Elements(desc.flops() as u64));
                for isa in task.isas() {
                    // The buffers are made inside, so that filtered-out benchmarks cost nothing.
                    group.bench_function(format!("{name}/{layout_name}/{isa}"), |bencher| {
                        if task == Task::Im2Col {
                            check_baseline(desc);
                        }
                        bencher.iter(call(task, desc, isa, 1));
                    });
                }
            }
        }
        group.finish();
    }
}

/// The roof: multiply-adds in registers.
fn peak(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peak");
    for isa in Isa::available() {
        if let Some(multiply_adds) = multiply_adds(isa) {
            group.throughput(Throughput::Elements(multiply_adds() as u64));
            group.bench_function(isa.name(), |bencher| bencher.iter(multiply_adds));
        }
    }
    group.finish();
}

criterion_group!(benches, passes, peak);
criterion_main!(benches);
