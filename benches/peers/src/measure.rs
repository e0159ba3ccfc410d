//! Interleaved timing: a change of the clock, or a noisy neighbour, meets all rows alike.

use std::time::{Duration, Instant};

/// Something to time.
pub(crate) struct Sampler<'a> {
    run: Box<dyn FnMut() + 'a>,
    /// Calls per sample, so that a sample lasts long enough for the clock.
    repeats: u32,
    samples: Vec<Duration>,
}

impl<'a> Sampler<'a> {
    pub(crate) fn new(sample: Duration, mut run: Box<dyn FnMut() + 'a>) -> Self {
        run();
        let start = Instant::now();
        run();
        let repeats = sample.div_duration_f64(start.elapsed().max(Duration::from_nanos(20))).clamp(1.0, 1e6) as u32;
        Self { run, repeats, samples: Vec::new() }
    }

    pub(crate) fn sample(&mut self) {
        // Once untimed: the one before has left other data in the caches, and other threads awake.
        (self.run)();
        let start = Instant::now();
        for _ in 0..self.repeats {
            (self.run)();
        }
        self.samples.push(start.elapsed() / self.repeats);
    }

    /// Median time of a call, in seconds.
    pub(crate) fn median(&self) -> f64 {
        let mut samples = self.samples.clone();
        samples.sort_unstable();
        samples.get(samples.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
    }
}
