//! Two sides timed in turns, so that what else the machine does hits both.

use std::time::{Duration, Instant};

/// Fewest rounds: a median of fewer says little.
const LEAST: usize = 5;
/// Most rounds: more would not change the median.
const MOST: usize = 400;

/// Median seconds of each side: rounds of one call each, until the time is up. The first round only warms up.
pub(crate) fn in_turns(seconds: f64, mut ours: impl FnMut(), mut theirs: impl FnMut()) -> [f64; 2] {
    ours();
    theirs();
    let (start, budget) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut times = [Vec::new(), Vec::new()];
    while times[0].len() < LEAST || (start.elapsed() < budget && times[0].len() < MOST) {
        times[0].push(timed(&mut ours));
        times[1].push(timed(&mut theirs));
    }
    times.map(median)
}

fn timed(call: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    if times.len().is_multiple_of(2) { (times[middle - 1] + times[middle]) / 2.0 } else { times[middle] }
}
