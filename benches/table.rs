//! A table in a minute: `cargo bench --bench table -- d1 v2 --pass forward --layout nchw --isa avx2`.
//!
//! Medians of interleaved rounds, so that a change of the clock meets all rows alike, on one pinned thread (unless
//! `--threads` asks for more, with the feature `rayon`), beside the roof that the same rounds measured.

mod common;

use std::time::{Duration, Instant};

use common::{LAYOUTS, Task, call, check_baseline, multiply_adds, shapes};
use convrelu::Isa;

const USAGE: &str =
    "arguments: [layer]... [--pass NAME]... [--layout NAME]... [--isa NAME]... [--rounds N] [--threads N]";

/// What to measure; an empty list means all.
struct Options {
    layers: Vec<String>,
    passes: Vec<String>,
    layouts: Vec<String>,
    isas: Vec<String>,
    rounds: usize,
    threads: usize,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        // Cargo passes `--bench` to a benchmark; without it this is `cargo test`, which wants to see it run, once.
        let mut options = Self { layers: vec![], passes: vec![], layouts: vec![], isas: vec![], rounds: 1, threads: 1 };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            let number = |value: String| value.parse().map_err(|_| format!("{value} is no number"));
            match argument.as_str() {
                "--bench" => options.rounds = options.rounds.max(15),
                "--pass" => options.passes.push(value()?),
                "--layout" => options.layouts.push(value()?),
                "--isa" => options.isas.push(value()?),
                "--rounds" => options.rounds = number(value()?)?,
                "--threads" => options.threads = number(value()?)?,
                flag if flag.starts_with('-') => return Err(format!("{flag} is unknown")),
                layer => options.layers.push(layer.to_owned()),
            }
        }
        if options.threads > 1 && !cfg!(feature = "rayon") {
            return Err(format!("{} threads need the feature rayon", options.threads));
        }
        Ok(options)
    }
}

fn chosen(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|chosen| chosen == name)
}

/// One line of the table.
struct Row {
    label: String,
    isa: Isa,
    flops: f64,
    /// Calls per sample, so that a sample lasts long enough for the clock.
    repeats: u32,
    call: Box<dyn FnMut()>,
    samples: Vec<Duration>,
}

impl Row {
    fn new(label: String, isa: Isa, flops: f64, mut call: Box<dyn FnMut()>) -> Self {
        const SAMPLE: Duration = Duration::from_millis(5);
        let start = Instant::now();
        call();
        let repeats = SAMPLE.div_duration_f64(start.elapsed().max(Duration::from_nanos(1))).clamp(1.0, 1e6) as u32;
        Self { label, isa, flops, repeats, call, samples: Vec::new() }
    }

    fn sample(&mut self) {
        // Once untimed: the round before has left other data in the caches.
        (self.call)();
        let start = Instant::now();
        for _ in 0..self.repeats {
            (self.call)();
        }
        self.samples.push(start.elapsed() / self.repeats);
    }

    fn median(&self) -> f64 {
        let mut samples = self.samples.clone();
        samples.sort_unstable();
        samples.get(samples.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
    }

    fn gflops(&self) -> f64 {
        self.flops / self.median() / 1e9
    }
}

fn main() {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            std::process::exit(2);
        }
    };
    if options.threads == 1 {
        // The last core: the first one serves most interrupts.
        let last = core_affinity::get_core_ids().and_then(|cores| cores.last().copied());
        if !last.is_some_and(core_affinity::set_for_current) {
            eprintln!("this thread could not be pinned to a core");
        }
    }

    let peak = |isa| Some(Row::new(String::from("peak"), isa, multiply_adds(isa)?(), Box::new(move || run_peak(isa))));
    let mut peaks: Vec<Row> =
        Isa::available().filter(|isa| chosen(&options.isas, isa.name())).filter_map(peak).collect();
    let mut rows = Vec::new();
    for task in Task::ALL.into_iter().filter(|task| chosen(&options.passes, task.name())) {
        for (layout_name, layout) in LAYOUTS.into_iter().filter(|(name, _)| chosen(&options.layouts, name)) {
            for (name, desc) in shapes(layout).into_iter().filter(|(name, _)| chosen(&options.layers, name)) {
                if task == Task::Im2Col {
                    check_baseline(desc);
                }
                for isa in task.isas().into_iter().filter(|isa| chosen(&options.isas, isa.name())) {
                    let label = format!("{name:5} {:15} {layout_name:6}", task.name());
                    rows.push(Row::new(label, isa, desc.flops(), call(task, desc, isa, options.threads)));
                }
            }
        }
    }
    for _ in 0..options.rounds {
        peaks.iter_mut().chain(&mut rows).for_each(Row::sample);
    }

    println!("layer pass            layout isa         median µs    GFLOP/s  % of {} × peak", options.threads);
    for row in &rows {
        let roof = peaks.iter().find(|peak| peak.isa == row.isa).map(|peak| peak.gflops() * options.threads as f64);
        let share = roof.map_or_else(|| String::from("–"), |roof| format!("{:.1}", 100.0 * row.gflops() / roof));
        println!("{} {:8} {:12.1} {:10.1} {share:>7}", row.label, row.isa, row.median() * 1e6, row.gflops());
    }
    for peak in &peaks {
        println!("peak of {} on one core: {:.1} GFLOP/s", peak.isa, peak.gflops());
    }
}

fn run_peak(isa: Isa) {
    if let Some(multiply_adds) = multiply_adds(isa) {
        std::hint::black_box(multiply_adds());
    }
}
