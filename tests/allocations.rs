//! Training allocates nothing per step once it is warm, but for the matrix products of the crate `gemm`.
#![cfg(feature = "std")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use convrelu::train::data::{Source, Synthetic};
use convrelu::train::models::{Activation, Architecture, Region};
use convrelu::train::{Config, EpochEvent, Trainer};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, because others beside it would allocate too.
#[test]
fn a_warm_step_allocates_nothing_of_its_own() {
    for network in [Architecture::SmallCnn, Architecture::Densenet40, Architecture::Resnet18] {
        for activation in [Activation::Convrelu, Activation::Prelu, Activation::Adarelu] {
            for channels_last in [false, true] {
                let mut config = Config::default();
                config.data.source = Source::Synthetic;
                config.data.synthetic = Some(Synthetic { train: 24, test: 2, size: [16, 16], ..Synthetic::default() });
                config.model.network = network;
                (config.model.growth, config.model.depth) = (Some(4), Some(2));
                (config.model.activation, config.model.region) = (activation, Region::All);
                config.model.channels_last = channels_last;
                config.model = config.model.relevant();
                (config.train.epochs, config.train.batch, config.train.learning_rate) = (1, 4, 1e-3);
                config.train.threads = std::num::NonZeroUsize::new(1);
                let (train, test) = config.data.load().unwrap();
                let mut trainer = Trainer::new(&config, &train).unwrap();
                let mut counts = Vec::with_capacity(train.len());
                trainer
                    .epoch(&train, &test, &mut |event| {
                        if let EpochEvent::Step(_) = event {
                            counts.push(ALLOCATIONS.load(Ordering::Relaxed));
                        }
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                // The first steps make the buffers of layers and loader.
                let warm: Vec<_> = counts.windows(2).skip(2).map(|pair| pair[1] - pair[0]).collect();
                // One linear layer: forward, and backward of input and weight; one or two buffers each.
                let products = 2 * 3;
                assert!(
                    warm.iter().all(|&count| count <= products),
                    "{network} {activation} {channels_last}: {warm:?}"
                );
            }
        }
    }
}
