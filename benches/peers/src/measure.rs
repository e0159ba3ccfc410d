//! Interleaved timing: a change of the clock rate, or a noisy neighbour, meets all rows alike.

use std::time::Duration;

use crate::clock::Clock;

/// Something to time.
pub(crate) struct Sampler<'a> {
    run: Box<dyn FnMut() + 'a>,
    clock: Clock,
    /// Calls per sample, so that a sample lasts long enough for the clock.
    repeats: u32,
    samples: Vec<Duration>,
}

impl<'a> Sampler<'a> {
    pub(crate) fn new(sample: Duration, clock: Clock, mut run: Box<dyn FnMut() + 'a>) -> Self {
        run();
        let start = clock.now();
        run();
        let once = (clock.now() - start).max(Duration::from_nanos(20));
        let repeats = sample.div_duration_f64(once).clamp(1.0, 1e6) as u32;
        Self { run, clock, repeats, samples: Vec::new() }
    }

    pub(crate) fn sample(&mut self) {
        // Untimed at first: the one before has left other data in the caches, and after a pause threads must wake.
        for _ in 0..1 + self.repeats / 16 {
            (self.run)();
        }
        let start = self.clock.now();
        for _ in 0..self.repeats {
            (self.run)();
        }
        self.samples.push((self.clock.now() - start) / self.repeats);
    }

    /// Median time of a call, in seconds.
    pub(crate) fn median(&self) -> f64 {
        let mut samples = self.samples.clone();
        samples.sort_unstable();
        samples.get(samples.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
    }
}
