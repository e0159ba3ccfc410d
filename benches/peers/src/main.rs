//! convrelu beside other libraries, in one process, interleaved.

#[path = "../../common/im2col.rs"]
mod im2col;
#[path = "../../common/peak.rs"]
mod peak;

mod arguments;
mod buffer;
mod clock;
mod compare;
mod dnnl;
mod measure;
mod notation;
mod operands;
mod ours;
mod pass;
mod peer;
mod placement;
mod quiet;
mod report;
mod roof;
mod row;
mod summary;

use std::process::ExitCode;
use std::rc::Rc;

use clap::{CommandFactory, Parser};
use convrelu::Isa;
use core_affinity::CoreId;

use arguments::Arguments;
use compare::Comparison;
use dnnl::Dnnl;
use notation::Problem;
use peer::Peer;
use report::Report;
use row::Setting;

/// The summary's, where none is asked for.
const THRESHOLD: f64 = 0.9;

/// Rounds of the check that precedes a run.
const CHECK_ROUNDS: u32 = 5;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn start(arguments: &Arguments) -> Result<ExitCode, String> {
    arguments.check()?;
    if !arguments.from_csv.is_empty() {
        let mut rows = Vec::new();
        for path in &arguments.from_csv {
            rows.extend(row::read(path)?);
        }
        print!("{}", summary::markdown(&rows, arguments.summary.unwrap_or(THRESHOLD))?);
        return Ok(ExitCode::SUCCESS);
    }
    let threads = usize::from(arguments.threads);
    let isa = arguments.isa.unwrap_or_else(Isa::detect);
    let cores = placement::cores(threads);
    set_environment(isa, threads, &cores);
    let problems = arguments.problems()?;
    if problems.is_empty() && !arguments.check_quiet {
        let _ = Arguments::command().print_help();
        return Ok(ExitCode::from(2));
    }
    if !isa.is_available() {
        return Err(format!("--isa {isa}: this machine does not have it"));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| error.to_string())?;
    // Inside the pool, so that no call pays for entering it.
    pool.install(|| {
        // oneDNN first: OpenMP takes only cores that are free to the thread that loads it.
        let dnnl = load_onednn(arguments)?;
        placement::pin(&cores);
        run(arguments, &problems, isa, threads, dnnl)
    })
}

/// What the libraries read from the environment when they are loaded or first used.
fn set_environment(isa: Isa, threads: usize, cores: &[CoreId]) {
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
    if !cores.is_empty() {
        set("OMP_PLACES", &placement::openmp(cores));
        set("OMP_PROC_BIND", "true");
    }
    // Awake between the calls of a sample, asleep in the pause: see the README.
    if std::env::var_os("OMP_WAIT_POLICY").is_none() && std::env::var_os("GOMP_SPINCOUNT").is_none() {
        set("GOMP_SPINCOUNT", "300000");
    }
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

fn run(
    arguments: &Arguments,
    problems: &[Problem],
    isa: Isa,
    threads: usize,
    dnnl: Option<Rc<Dnnl>>,
) -> Result<ExitCode, String> {
    if arguments.check_quiet {
        let dnnl = dnnl.ok_or("--check-quiet needs oneDNN: there is no other side")?;
        let check = quiet::Check::run(isa, threads, &dnnl, arguments.rounds)?;
        let check =
            check.ok_or_else(|| format!("--check-quiet: no loop of multiply-adds for {isa} and this OpenMP"))?;
        println!("{check}");
        return Ok(ExitCode::from(u8::from(!check.is_quiet())));
    }
    if threads > 1
        && let Some(dnnl) = &dnnl
        && let Some(check) = quiet::Check::run(isa, threads, dnnl, CHECK_ROUNDS)?
    {
        eprintln!("note: {check}");
        if !check.is_quiet() {
            eprintln!("note: the sides disturb one another, or another program disturbs both: see --check-quiet");
        }
    }
    let all = [Peer::Onednn, Peer::Im2colGemm, Peer::Candle, Peer::BurnFlex];
    let setting = Setting { isa: isa.to_string(), threads, theta: arguments.theta, clock: arguments.clock };
    let mut report = match &arguments.csv {
        Some(path) => Report::csv(path.as_deref())?,
        None => Report::table(&setting),
    };
    let peers = arguments.peers.clone().unwrap_or_else(|| all.to_vec());
    let comparison = Comparison { arguments, setting, isa, peers, dnnl };
    for problem in problems {
        for &pass in &arguments.passes {
            for &layout in &arguments.layouts {
                let (rows, flops) = comparison.rows(problem, pass, layout)?;
                for row in rows {
                    let gflops = flops / row.ours_us / 1e3;
                    report.row(row, gflops)?;
                }
            }
        }
    }
    match arguments.summary {
        Some(threshold) => print!("{}", summary::markdown(&report.rows, threshold)?),
        None if arguments.csv.is_none() => print!("{}", summary::means(&report.rows)?),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}
