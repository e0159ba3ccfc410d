//! Batches, which a thread assembles during training.

use std::ops::ControlFlow;
use std::sync::mpsc::sync_channel;
use std::thread;

use super::Dataset;
use crate::layout::Layout;
use crate::train::random::{Purpose, stream};

/// Batches in memory: one in use, one that waits, and one that is being filled.
const BUFFERS: usize = 3;

/// Examples and their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Batch {
    pub(crate) input: Vec<f32>,
    pub(crate) labels: Vec<usize>,
}

impl Batch {
    fn fill(&mut self, data: &Dataset, indices: &[usize], layout: Layout, augmented: Option<(u64, u64)>) {
        let len = data.shape().len();
        self.labels.clear();
        self.labels.extend(indices.iter().map(|&index| data.label(index)));
        self.input.resize(indices.len() * len, 0.0);
        for (&index, out) in indices.iter().zip(self.input.chunks_exact_mut(len)) {
            let mut rng = augmented.map(|(seed, epoch)| stream(seed, Purpose::Augment, [epoch, index as u64]));
            data.read(index, rng.as_mut(), layout, out);
        }
    }
}

/// Gives the examples that `order` names to `consume`, `batch` at a time. The last batch may be shorter. Meanwhile, a thread
/// assembles the next batches. `augmented` is a seed and an epoch. If it is given, examples are changed at random. The changes
/// depend on seed, epoch and example only.
///
/// # Errors
///
/// The first error of `consume`. It ends the loop, as [`ControlFlow::Break`] does.
///
/// # Panics
///
/// If `order` names an example that does not exist, or if the system cannot start a thread.
pub(crate) fn batches<E>(
    data: &Dataset,
    order: &[usize],
    batch: usize,
    layout: Layout,
    augmented: Option<(u64, u64)>,
    mut consume: impl FnMut(&Batch) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    // Each channel has room for every buffer, so sending never waits. Both sides wait for buffers only.
    let (filled, ready) = sync_channel(BUFFERS);
    let (emptied, free) = sync_channel(BUFFERS);
    thread::scope(move |scope| {
        scope.spawn(move || {
            let mut new = BUFFERS;
            for indices in order.chunks(batch.max(1)) {
                let buffer = if new > 0 { Ok(Batch::default()) } else { free.recv() };
                new = new.saturating_sub(1);
                // Both calls fail after the other side has stopped.
                let Ok(mut buffer) = buffer else { return };
                buffer.fill(data, indices, layout, augmented);
                if filled.send(buffer).is_err() {
                    return;
                }
            }
        });
        // Moved in here, so they are dropped before the scope waits for the thread. Then the thread ends.
        let (ready, emptied) = (ready, emptied);
        for batch in ready {
            if consume(&batch)?.is_break() {
                break;
            }
            // After the last batch, nobody receives it.
            let _ = emptied.send(batch);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::super::{Augment, Values};
    use super::*;
    use crate::train::shape::Shape;

    fn data() -> Dataset {
        let shape = Shape::new(2, [1, 4, 4]);
        let bytes = (0..50 * shape.len()).map(|i| (i * 7 % 256) as u8).collect();
        let labels = (0..50).map(|i| i % 5).collect();
        let data = Dataset::new("loader", shape, 5, Values::Bytes(bytes), labels).unwrap();
        data.with_augment(Augment { crop_padding: 1, flip: true })
    }

    /// Batches of an order, with a pause on the consumer's side.
    fn collect(data: &Dataset, order: &[usize], pause: impl Fn(usize) -> u64) -> Vec<Batch> {
        let mut found = vec![];
        let done: Result<(), Infallible> = batches(data, order, 8, Layout::Nhwc, Some((1, 2)), |batch| {
            thread::sleep(Duration::from_millis(pause(found.len())));
            found.push(batch.clone());
            Ok(ControlFlow::Continue(()))
        });
        done.unwrap();
        found
    }

    #[test]
    fn neither_timing_nor_interruption_changes_batches() {
        let data = data();
        let order: Vec<usize> = (0..50).map(|i| i * 21 % 50).collect();
        let whole = collect(&data, &order, |_| 0);
        assert_eq!(whole.iter().map(|batch| batch.labels.len()).collect::<Vec<_>>(), [8, 8, 8, 8, 8, 8, 2]);
        assert_eq!(whole, collect(&data, &order, |n| if n == 0 { 30 } else { 0 }));
        assert_eq!(whole, collect(&data, &order, |n| n as u64 % 3));
        for consumed in 0..=whole.len() {
            assert_eq!(collect(&data, &order[(8 * consumed).min(50)..], |_| 0), whole[consumed..]);
        }
        // What the batches hold is what the examples are.
        let mut plain = Batch::default();
        plain.fill(&data, &order[8..16], Layout::Nhwc, Some((1, 2)));
        assert_eq!(plain, whole[1]);
        let mut other = Batch::default();
        other.fill(&data, &order[8..16], Layout::Nhwc, Some((1, 3)));
        assert_ne!(other, whole[1]);
        other.fill(&data, &order[8..16], Layout::Nhwc, None);
        assert_ne!(other, whole[1]);
    }

    #[test]
    fn a_break_or_an_error_ends_it_at_once() {
        let (data, order) = (data(), (0..50).collect::<Vec<_>>());
        for stop in 0..7 {
            for pause in [0, 5] {
                let run = |end: Result<ControlFlow<()>, &'static str>| {
                    let mut seen = 0;
                    let result = batches(&data, &order, 8, Layout::Nchw, None, |_| {
                        thread::sleep(Duration::from_millis(pause));
                        seen += 1;
                        if seen == stop + 1 { end } else { Ok(ControlFlow::Continue(())) }
                    });
                    (result, seen)
                };
                assert_eq!(run(Ok(ControlFlow::Break(()))), (Ok(()), stop + 1));
                assert_eq!(run(Err("enough")), (Err("enough"), stop + 1));
            }
        }
    }

    #[test]
    fn a_panic_in_the_consumer_comes_through() {
        let (data, order) = (data(), (0..50).collect::<Vec<_>>());
        let panicked = std::panic::catch_unwind(|| {
            batches(&data, &order, 8, Layout::Nchw, None, |_| -> Result<ControlFlow<()>, Infallible> { panic!("so") })
        });
        assert!(panicked.is_err());
    }

    #[test]
    fn buffers_are_recycled() {
        let (data, order) = (data(), (0..48).collect::<Vec<_>>());
        let mut places = std::collections::BTreeSet::new();
        let done: Result<(), Infallible> = batches(&data, &order, 2, Layout::Nchw, None, |batch| {
            places.insert(batch.input.as_ptr() as usize);
            Ok(ControlFlow::Continue(()))
        });
        done.unwrap();
        assert!(places.len() <= BUFFERS, "{}", places.len());
    }

    #[test]
    fn no_examples_are_no_batches() {
        let done: Result<(), &str> = batches(&data(), &[], 8, Layout::Nchw, None, |_| Err("called"));
        done.unwrap();
    }
}
