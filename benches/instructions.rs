//! Calls to count instructions of: `cargo bench --bench instructions -- v2 forward nchw neon 1` makes one call and prints
//! its multiply-adds. `benches/instructions.sh` runs it under QEMU and tabulates the counts.

#[expect(dead_code, unused_imports, reason = "what the other benchmarks time")]
mod common;

use common::{LAYOUTS, Task, call, shapes};
use convrelu::Isa;

const USAGE: &str = "arguments: layer pass layout isa calls";

/// Makes the calls; the multiply-adds of one.
fn run(arguments: &[String]) -> Option<f64> {
    let [layer, pass, layout, isa, calls] = arguments else { return None };
    let task = Task::ALL.into_iter().find(|task| task.name() == pass)?;
    let (_, layout) = LAYOUTS.into_iter().find(|(name, _)| name == layout)?;
    let (_, desc) = shapes(layout).into_iter().find(|(name, _)| name == layer)?;
    let isa: Isa = isa.parse().ok().filter(|isa: &Isa| isa.is_available())?;
    let mut call = call(task, desc, isa, 1);
    for _ in 0..calls.parse().ok()? {
        call();
    }
    Some(desc.flops() / 2.0)
}

fn main() {
    // Cargo passes `--bench` to a benchmark, and nothing else where it only wants to see it run.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.is_empty() {
        println!("{USAGE}");
    } else if let Some(multiply_adds) = run(&arguments) {
        println!("{multiply_adds}");
    } else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    }
}
