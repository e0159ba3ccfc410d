//! Silence between the sides. The threads of a pool wait for more work awake, and take the core from the other pool's:
//! so there is a pause until they sleep, and a check that it suffices.

use std::cell::Cell;
use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use convrelu::Isa;

use crate::clock::{Clock, process_cpu};
use crate::dnnl::Dnnl;
use crate::measure::Sampler;
use crate::roof::{self, Loop};

/// How long the process must use no CPU.
const STEP: Duration = Duration::from_millis(5);

/// The share of a step below which all threads count as asleep.
const ASLEEP: f64 = 0.02;

/// Longer, a pool never sleeps.
const LIMIT: u32 = 100;

/// What each side's loop may lose to the other side.
const TOLERANCE: f64 = 0.05;

/// Sleeps until all other threads of the process sleep; returns the CPU time that they used until then.
pub(crate) fn pause() -> Result<Duration, String> {
    let begin = process_cpu();
    for _ in 0..LIMIT {
        let before = process_cpu();
        sleep(STEP);
        let now = process_cpu();
        if now - before < STEP.mul_f64(ASLEEP) {
            return Ok(now - begin);
        }
    }
    Err(String::from(
        "the threads of a pool do not fall asleep: OMP_WAIT_POLICY and GOMP_SPINCOUNT must not let them spin",
    ))
}

/// Speeds of one side's loop of multiply-adds, in GFLOP/s.
struct Side {
    name: &'static str,
    /// After neither side has run for a while.
    alone: f64,
    /// Right after the other side's loop and the pause.
    paused: f64,
    /// Right after the other side's loop.
    unpaused: f64,
    /// CPU time that the side's own threads use after their loop until they sleep.
    awake: Duration,
}

/// What the sides lose to one another.
pub(crate) struct Check([Side; 2]);

impl Check {
    /// `None` where there is no loop to check with.
    pub(crate) fn run(isa: Isa, threads: usize, dnnl: &Dnnl, rounds: u32) -> Result<Option<Self>, String> {
        let (Some(ours), Some(theirs)) = (roof::ours(isa, threads), roof::onednn(isa, dnnl)) else {
            return Ok(None);
        };
        let loops = [ours, theirs];
        let flops = [const { Cell::new(0.0) }; 2];
        let sampler = |side: usize| {
            let (run, flops): (&Loop<'_>, _) = (&loops[side], &flops[side]);
            Sampler::new(STEP, Clock::Wall, Box::new(move || flops.set(run())))
        };
        let mut alone = [sampler(0), sampler(1)];
        let mut paused = [sampler(0), sampler(1)];
        let mut unpaused = [sampler(0), sampler(1)];
        let mut other = [sampler(1), sampler(0)];
        let mut awake = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for side in 0..2 {
                pause()?;
                sleep(STEP * 10);
                alone[side].sample();
                pause()?;
                other[side].sample();
                awake[1 - side].push(pause()?);
                paused[side].sample();
                pause()?;
                other[side].sample();
                unpaused[side].sample();
            }
        }
        let side = |side: usize, name| {
            let speed = |samplers: &[Sampler<'_>; 2]| flops[side].get() / samplers[side].median() / 1e9;
            let mut awake = awake[side].clone();
            awake.sort_unstable();
            let awake = awake.get(awake.len() / 2).copied().unwrap_or_default();
            Side { name, alone: speed(&alone), paused: speed(&paused), unpaused: speed(&unpaused), awake }
        };
        Ok(Some(Self([side(0, "ours"), side(1, "onednn")])))
    }

    /// Whether the pause suffices.
    pub(crate) fn is_quiet(&self) -> bool {
        self.0.iter().all(|side| side.paused >= side.alone * (1.0 - TOLERANCE))
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "multiply-adds on all threads, GFLOP/s, and what they lose to the other side's threads")?;
        for Side { name, alone, paused, unpaused, awake } in &self.0 {
            let lost = |speed: &f64| 100.0 * (1.0 - speed / alone);
            write!(
                f,
                "\n  {name:6} alone {alone:.1}; after the other side and a pause {paused:.1} (loses {:.1} %), without \
                 the pause {unpaused:.1} (loses {:.1} %); its own threads stay awake for {:.2} ms of CPU time",
                lost(paused),
                lost(unpaused),
                awake.as_secs_f64() * 1e3,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_is_what_loses_little() {
        let side = |paused| Side { name: "ours", alone: 100.0, paused, unpaused: 50.0, awake: Duration::ZERO };
        assert!(Check([side(96.0), side(103.0)]).is_quiet());
        assert!(!Check([side(96.0), side(94.0)]).is_quiet());
        let text = Check([side(96.0), side(103.0)]).to_string();
        assert!(text.contains("a pause 96.0 (loses 4.0 %), without the pause 50.0 (loses 50.0 %)"), "{text}");
    }
}
