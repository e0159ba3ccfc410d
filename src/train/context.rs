//! What layers share during a pass: the batch, the threads, buffers to borrow, and the profile.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use super::layer::LayerKind;
use super::threads::Threads;
use crate::threads::Executor;

/// Whether a forward pass belongs to training or to evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A backward pass follows. Normalisations use the statistics of the batch, and dropout drops units.
    Train,
    /// No backward pass follows. Layers record which of their units are alive. Normalisations use their running statistics.
    Evaluate,
}

/// The settings of a pass, and the buffers that layers borrow during it.
#[derive(Debug)]
pub struct Context {
    pub(super) batch: usize,
    pub(super) threads: Threads,
    pub(super) mode: Mode,
    pub(super) seed: u64,
    pub(super) step: u64,
    scratch: Vec<Vec<f32>>,
    /// Time by kind of layer.
    pub(super) profile: Profile,
}

impl Context {
    /// A context for passes over `batch` images on at most `threads` threads.
    pub fn new(batch: usize, threads: usize, mode: Mode) -> Self {
        Self {
            batch,
            threads: Threads::new(threads),
            mode,
            seed: 0,
            step: 0,
            scratch: Vec::new(),
            profile: Profile::default(),
        }
    }

    /// Images in the batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Threads that a layer may use.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// The executor for calls of the kernels: the current rayon pool with the feature `rayon`, otherwise the calling thread.
    pub fn executor(&self) -> &dyn Executor {
        self.threads.executor()
    }

    /// Training or evaluation.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Seed of the run and number of the pass. Together they determine which units dropout drops.
    pub fn seed_and_step(&self) -> (u64, u64) {
        (self.seed, self.step)
    }

    /// Lends a buffer of `len` elements with whatever values they hold. Give it back with [`give`](Self::give).
    pub fn take(&mut self, len: usize) -> Buffer {
        // The smallest buffer that is large enough, if it is not much too large: a small request must not take a buffer that a
        // large one will need.
        let most = len.saturating_mul(4).max(4096);
        let fits = (0..self.scratch.len()).filter(|&i| (len..=most).contains(&self.scratch[i].len()));
        let best = fits.min_by_key(|&i| self.scratch[i].len());
        let data = best.map_or_else(|| vec![0.0; len], |index| self.scratch.swap_remove(index));
        Buffer { data, len }
    }

    /// Takes a buffer back for others.
    pub fn give(&mut self, buffer: Buffer) {
        self.scratch.push(buffer.data);
    }
}

/// See [`Context::take`].
#[derive(Debug)]
pub struct Buffer {
    data: Vec<f32>,
    len: usize,
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}

/// A buffer that grows to the length that a pass needs, and that the next pass uses again.
pub(super) fn grown(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// The parts of a training step in a [`Profile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProfilePart {
    /// Layers of a kind, forward.
    Forward(LayerKind),
    /// Layers of a kind, backward.
    Backward(LayerKind),
    /// The loss and its gradient.
    Loss,
    /// The step of the optimiser.
    Optimizer,
    /// Waiting for data, and copying it into the network.
    Data,
}

/// Where the time goes.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    parts: Vec<(ProfilePart, Duration)>,
}

impl Profile {
    /// Adds the time since `start`.
    pub(super) fn add(&mut self, part: ProfilePart, start: Instant) {
        let elapsed = start.elapsed();
        match self.parts.iter_mut().find(|(known, _)| *known == part) {
            Some((_, sum)) => *sum += elapsed,
            None => self.parts.push((part, elapsed)),
        }
    }

    /// Time by part, in the order of [`ProfilePart`].
    pub fn parts(&self) -> Vec<(ProfilePart, Duration)> {
        let mut parts = self.parts.clone();
        parts.sort();
        parts
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.parts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back() {
        let mut context = Context::new(1, 1, Mode::Train);
        let (small, large) = (context.take(100), context.take(1_000_000));
        assert_eq!((small.len(), large.len()), (100, 1_000_000));
        let addresses = [small.as_ptr(), large.as_ptr()];
        context.give(large);
        context.give(small);
        let again = [context.take(50), context.take(900_000)];
        assert_eq!([again[0].len(), again[1].len()], [50, 900_000]);
        assert_eq!([again[0].as_ptr(), again[1].as_ptr()], addresses);
        again.into_iter().for_each(|buffer| context.give(buffer));
        assert_eq!(context.scratch.len(), 2);
    }
}
