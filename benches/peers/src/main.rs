//! convrelu beside other libraries, in one process, interleaved.

#[path = "../../common/im2col.rs"]
mod im2col;
#[path = "../../common/peak.rs"]
mod peak;

mod buffer;
mod dnnl;
mod measure;
mod notation;
mod operands;
mod ours;
mod pass;
mod peer;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::{CommandFactory, Parser, ValueEnum};
use convrelu::{Isa, Layout};

use dnnl::Dnnl;
use measure::Sampler;
use notation::Problem;
use operands::Operands;
use ours::{Ours, Theta};
use pass::Pass;
use peer::{Peer, Task};
use report::{Report, Row};

/// Times convrelu's ConvReLU passes beside the plain convolutions of oneDNN and of Rust crates.
///
/// ratio = the peer's time / ours: above 1, convrelu is faster. Every result is compared with ours (θ = −∞) first.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Shapes in oneDNN's benchdnn notation, like mb8_g1ic48oc12_ih32oh32kh3ph1_n"d1"
    #[arg(value_name = "SHAPE")]
    notations: Vec<String>,
    /// File of shapes, one per line
    #[arg(long, value_name = "FILE")]
    shapes: Vec<PathBuf>,
    /// Threads on both sides; with one, the process is pinned to a core
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Instruction set that both sides are held to: scalar, avx2, avx512, neon [default: the best]
    #[arg(long, value_name = "NAME")]
    isa: Option<Isa>,
    /// Passes, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "forward,backward-input,backward-weight")]
    passes: Vec<Pass>,
    /// Layouts, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "nchw,nhwc")]
    layouts: Vec<LayoutName>,
    /// Peers, comma-separated [default: all that are there]
    #[arg(long, value_delimiter = ',')]
    peers: Option<Vec<Peer>>,
    /// Comma-separated values instead of a table
    #[arg(long)]
    csv: bool,
    /// Samples per side, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Least duration of a sample
    #[arg(long, value_name = "MS", default_value_t = 5)]
    sample_ms: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum LayoutName {
    Nchw,
    Nhwc,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let threads = usize::from(arguments.threads);
    let isa = arguments.isa.unwrap_or_else(Isa::detect);
    set_environment(isa, threads);
    let problems = match problems(&arguments) {
        Ok(problems) if problems.is_empty() => {
            let _ = Arguments::command().print_help();
            return ExitCode::from(2);
        }
        Ok(problems) => problems,
        Err(error) => return fail(&error),
    };
    if !isa.is_available() {
        return fail(&format!("--isa {isa}: this machine does not have it"));
    }
    let pinned = rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(move |_| {
        // The last core: the first one serves most interrupts. Several threads are left to the scheduler, because
        // OpenMP's inherit the place of the one that starts them.
        let last = core_affinity::get_core_ids().and_then(|cores| cores.last().copied());
        if threads == 1 && !last.is_some_and(core_affinity::set_for_current) {
            eprintln!("note: the thread could not be pinned to a core");
        }
    });
    match pinned.build() {
        // Inside the pool, so that no call pays for entering it.
        Ok(pool) => match pool.install(|| run(&arguments, &problems, isa, threads)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(2)
}

/// What the libraries read from the environment when they are loaded or first used.
fn set_environment(isa: Isa, threads: usize) {
    let set = |name: &str, value: &str| {
        // SAFETY: called before any other thread runs.
        unsafe { std::env::set_var(name, value) };
    };
    let limit = match isa.name() {
        "scalar" => "SSE41",
        "avx2" => "AVX2",
        _ => "ALL",
    };
    set("ONEDNN_MAX_CPU_ISA", limit);
    set("OMP_NUM_THREADS", &threads.to_string());
    set("RAYON_NUM_THREADS", &threads.to_string());
}

fn problems(arguments: &Arguments) -> Result<Vec<Problem>, String> {
    let mut problems = Vec::new();
    for path in &arguments.shapes {
        let text = std::fs::read_to_string(path).map_err(|error| format!("--shapes {}: {error}", path.display()))?;
        problems.extend(notation::parse_file(&text).map_err(|error| format!("--shapes {}: {error}", path.display()))?);
    }
    for text in &arguments.notations {
        problems.push(Problem::parse(text).map_err(|error| error.to_string())?);
    }
    Ok(problems)
}

/// oneDNN, if it is wanted and there.
fn load_onednn(arguments: &Arguments) -> Result<Option<Rc<Dnnl>>, String> {
    let asked = arguments.peers.as_ref().map(|peers| peers.iter().any(|peer| peer.is_onednn()));
    if asked == Some(false) {
        return Ok(None);
    }
    match std::env::var_os("DNNL_LIB") {
        Some(path) => Dnnl::load(path.as_ref()).map(Some).map_err(|error| format!("DNNL_LIB: {error}")),
        None if asked == Some(true) => {
            Err(String::from("--peers onednn: DNNL_LIB must name libdnnl.so (fetch-onednn.sh fetches one)"))
        }
        None => {
            eprintln!("note: no oneDNN: DNNL_LIB is not set (fetch-onednn.sh fetches one)");
            Ok(None)
        }
    }
}

fn run(arguments: &Arguments, problems: &[Problem], isa: Isa, threads: usize) -> Result<(), String> {
    let dnnl = load_onednn(arguments)?;
    let all = [Peer::Onednn, Peer::Im2colGemm, Peer::Candle, Peer::BurnFlex];
    let chosen = arguments.peers.clone().unwrap_or_else(|| all.to_vec());
    let mut report = Report::new(arguments.csv, isa, threads);
    report.header();
    for problem in problems {
        for &pass in &arguments.passes {
            for &layout in &arguments.layouts {
                let layout = match layout {
                    LayoutName::Nchw => Layout::Nchw,
                    LayoutName::Nhwc => Layout::Nhwc,
                };
                for row in compare(arguments, problem, pass, layout, &chosen, dnnl.as_ref(), isa, threads)? {
                    report.row(row);
                }
            }
        }
    }
    report.summary();
    Ok(())
}

/// All peers beside us on one pass of one problem.
#[expect(clippy::too_many_arguments, reason = "one row of the table")]
fn compare<'a>(
    arguments: &Arguments,
    problem: &'a Problem,
    pass: Pass,
    layout: Layout,
    chosen: &[Peer],
    dnnl: Option<&Rc<Dnnl>>,
    isa: Isa,
    threads: usize,
) -> Result<Vec<Row<'a>>, String> {
    let desc = problem.desc(layout)?;
    let operands = Rc::new(Operands::new(&desc));
    let mut ours =
        Ours::new(desc, isa, threads, pass, operands.clone()).map_err(|error| format!("{}: {error}", problem.name))?;
    ours.run(Theta::Linear).map_err(|error| error.to_string())?;
    let reference = ours.result().to_vec();

    let task = Task { problem, desc, pass, operands, dnnl };
    let sample = Duration::from_millis(arguments.sample_ms);
    let mut contestants = Vec::new();
    for peer in Peer::of_layout(chosen, layout) {
        if peer.is_onednn() && dnnl.is_none() {
            continue;
        }
        match task.contestant(peer) {
            Ok(contestant) => {
                agree(problem, pass, &reference, &contestant.result)
                    .map_err(|error| format!("{} {} {}: {error}", problem.name, pass.name(), peer.name()))?;
                contestants.push((peer, Sampler::new(sample, contestant.run)));
            }
            // Stated once per kind, in the README.
            Err(_) if !peer.is_onednn() => {}
            Err(error) => eprintln!("note: {} {} {}: {error}", problem.name, pass.name(), peer.name()),
        }
    }
    let mut ours = Sampler::new(
        sample,
        Box::new(move || {
            let done = ours.run(Theta::PerTap);
            debug_assert!(done.is_ok());
        }),
    );
    let flops_per_call = std::cell::Cell::new(0.0);
    let mut peak = Sampler::new(
        sample,
        Box::new(|| {
            if let Some(multiply_adds) = peak::multiply_adds(isa) {
                flops_per_call.set(multiply_adds());
            }
        }),
    );
    for _ in 0..arguments.rounds {
        peak.sample();
        ours.sample();
        contestants.iter_mut().for_each(|(_, contestant)| contestant.sample());
    }
    let roof = flops_per_call.get() / peak.median() * threads as f64;
    let ours = ours.median();
    let row = |peer: Option<(Peer, f64)>| Row {
        shape: &problem.name,
        pass,
        layout: if layout == Layout::Nchw { "nchw" } else { "nhwc" },
        ours,
        peer,
        gflops: desc.flops() / ours / 1e9,
        peak_percent: (roof > 0.0).then(|| 100.0 * desc.flops() / ours / roof),
    };
    if contestants.is_empty() {
        return Ok(vec![row(None)]);
    }
    Ok(contestants.into_iter().map(|(peer, contestant)| row(Some((peer, contestant.median())))).collect())
}

/// Whether two results of a plain convolution are as near as rounding explains.
fn agree(problem: &Problem, pass: Pass, ours: &[f32], theirs: &[f32]) -> Result<(), String> {
    let taps: usize = problem.axes.iter().map(|axis| axis.kernel).product();
    let outputs: usize = problem.axes.iter().map(|axis| axis.output).product();
    let terms = match pass {
        Pass::Forward => problem.in_channels / problem.groups * taps,
        Pass::BackwardInput => problem.out_channels / problem.groups * taps,
        Pass::BackwardWeight => problem.batch * outputs,
    };
    // Values are at most 1, so the magnitude of a sum is at most its terms; both sides round.
    let bound = 2.0 * convrelu::reference::error_bound(terms, terms as f64);
    if ours.len() != theirs.len() {
        return Err(format!("{} results instead of {}", theirs.len(), ours.len()));
    }
    let far = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).abs() > bound || a.is_nan() || b.is_nan();
    match ours.iter().zip(theirs).position(far) {
        Some(at) => Err(format!("the results differ at {at}: ours {}, theirs {}", ours[at], theirs[at])),
        None => Ok(()),
    }
}
