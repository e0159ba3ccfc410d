//! The clocks.

use std::time::Duration;

use clap::ValueEnum;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What a sample is timed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Clock {
    /// The time that passes
    Wall,
    /// The time that the measuring thread is given on a CPU
    Cpu,
}

impl Clock {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Cpu => "cpu",
        }
    }

    /// Since a moment that stays the same.
    pub(crate) fn now(self) -> Duration {
        read(match self {
            Self::Wall => ClockId::Monotonic,
            Self::Cpu => ClockId::ThreadCPUTime,
        })
    }
}

/// CPU time of all threads of this process.
pub(crate) fn process_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    // These clocks do not go below zero.
    clock_gettime(clock).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_passes_without_cpu_time() {
        let starts = [Clock::Wall, Clock::Cpu].map(|clock| (clock, clock.now()));
        std::thread::sleep(Duration::from_millis(50));
        let [wall, cpu] = starts.map(|(clock, start)| clock.now() - start);
        assert!(wall >= Duration::from_millis(50), "{wall:?}");
        assert!(cpu < Duration::from_millis(25), "{cpu:?}");
    }

    #[test]
    fn the_process_includes_its_threads() {
        let start = process_cpu();
        let spent = std::thread::spawn(|| {
            let start = Clock::Cpu.now();
            while Clock::Cpu.now() - start < Duration::from_millis(5) {}
            Clock::Cpu.now() - start
        });
        let spent = spent.join().unwrap();
        assert!(process_cpu() - start >= spent);
    }
}
