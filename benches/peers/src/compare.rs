//! All peers beside us on one pass of one problem.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use convrelu::Isa;

use crate::arguments::Arguments;
use crate::dnnl::Dnnl;
use crate::measure::Sampler;
use crate::notation::Problem;
use crate::operands::Operands;
use crate::ours::{Ours, Theta};
use crate::pass::{LayoutName, Pass};
use crate::peer::{Peer, Task};
use crate::row::{Row, Setting};
use crate::{quiet, roof};

/// What all comparisons of a run share.
pub(crate) struct Comparison<'a> {
    pub(crate) arguments: &'a Arguments,
    pub(crate) setting: Setting,
    pub(crate) isa: Isa,
    pub(crate) peers: Vec<Peer>,
    pub(crate) dnnl: Option<Rc<Dnnl>>,
}

impl Comparison<'_> {
    /// A row for each peer, or one for us alone; and the floating-point operations of a call.
    pub(crate) fn rows(&self, problem: &Problem, pass: Pass, layout: LayoutName) -> Result<(Vec<Row>, f64), String> {
        let Setting { threads, theta, clock, .. } = self.setting;
        let desc = problem.desc(layout.layout())?;
        let operands = Rc::new(Operands::new(&desc));
        let mut ours = Ours::new(desc, self.isa, threads, pass, operands.clone())
            .map_err(|error| format!("{}: {error}", problem.name))?;
        ours.run(Theta::Linear).map_err(|error| error.to_string())?;
        let reference = ours.result().to_vec();

        let task = Task { problem, desc, pass, operands, dnnl: self.dnnl.as_ref() };
        let sample = Duration::from_millis(self.arguments.sample_ms);
        let mut contestants = Vec::new();
        for peer in Peer::of_layout(&self.peers, layout) {
            if peer.is_onednn() && self.dnnl.is_none() {
                continue;
            }
            match task.contestant(peer) {
                Ok(contestant) => {
                    agree(problem, pass, &reference, &contestant.result)
                        .map_err(|error| format!("{} {} {}: {error}", problem.name, pass.name(), peer.name()))?;
                    contestants.push((peer, Sampler::new(sample, clock, contestant.run)));
                }
                // Stated once per kind, in the README.
                Err(_) if !peer.is_onednn() => {}
                Err(error) => eprintln!("note: {} {} {}: {error}", problem.name, pass.name(), peer.name()),
            }
        }
        let mut ours = Sampler::new(
            sample,
            clock,
            Box::new(move || {
                let done = ours.run(theta);
                debug_assert!(done.is_ok());
            }),
        );
        let flops_per_call = Cell::new(0.0);
        let roof = roof::ours(self.isa, threads);
        let mut peak = Sampler::new(
            sample,
            clock,
            Box::new(|| {
                if let Some(multiply_adds) = &roof {
                    flops_per_call.set(multiply_adds());
                }
            }),
        );
        // Two pools of threads: ours, which the Rust peers share, and OpenMP's. On one thread nobody waits awake.
        let two_pools = threads > 1 && contestants.iter().any(|(peer, _)| peer.is_onednn());
        for _ in 0..self.arguments.rounds {
            for onednn in [false, true] {
                if two_pools {
                    quiet::pause()?;
                }
                if !onednn {
                    peak.sample();
                    ours.sample();
                }
                let block = contestants.iter_mut().filter(|(peer, _)| peer.is_onednn() == onednn);
                block.for_each(|(_, contestant)| contestant.sample());
            }
        }
        let roof = flops_per_call.get() / peak.median();
        let ours = ours.median();
        let row = |peer: Peer, theirs: Option<f64>| Row {
            shape: problem.name.clone(),
            pass,
            layout,
            isa: self.setting.isa.clone(),
            threads,
            ours_us: round(ours * 1e6, 3),
            peer,
            peer_us: theirs.map(|theirs| round(theirs * 1e6, 3)),
            ratio: theirs.map(|theirs| round(theirs / ours, 4)),
            peak_percent: (roof > 0.0).then(|| round(100.0 * desc.flops() / ours / roof, 1)),
            theta,
            clock,
            notation: problem.notation.clone(),
        };
        let rows = if contestants.is_empty() {
            vec![row(Peer::None, None)]
        } else {
            contestants.into_iter().map(|(peer, contestant)| row(peer, Some(contestant.median()))).collect()
        };
        Ok((rows, desc.flops()))
    }
}

fn round(value: f64, decimals: i32) -> f64 {
    let unit = 10f64.powi(decimals);
    (value * unit).round() / unit
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
