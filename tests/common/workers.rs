//! Executors: whose threads a call runs on.

use convrelu::{Executor, Serial};

/// Some executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// The calling thread.
    Serial,
    /// The calling thread, the last task first.
    Backwards,
    /// A thread of the standard library for each task.
    Scoped,
    /// The current rayon pool.
    #[cfg(feature = "rayon")]
    Rayon,
}

impl Workers {
    /// All of them.
    pub(crate) const ALL: &[Self] = &[
        Self::Serial,
        Self::Backwards,
        // There are no threads under Node.
        #[cfg(not(target_family = "wasm"))]
        Self::Scoped,
        #[cfg(feature = "rayon")]
        Self::Rayon,
    ];

    /// What users would take.
    pub(crate) const USUAL: Self = {
        #[cfg(feature = "rayon")]
        let usual = Self::Rayon;
        #[cfg(not(feature = "rayon"))]
        let usual = Self::Serial;
        usual
    };
}

impl Executor for Workers {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        match self {
            Self::Serial => Serial.run(tasks, task),
            Self::Backwards => (0..tasks).rev().for_each(task),
            Self::Scoped => std::thread::scope(|scope| {
                for index in 0..tasks {
                    scope.spawn(move || task(index));
                }
            }),
            #[cfg(feature = "rayon")]
            Self::Rayon => convrelu::Rayon.run(tasks, task),
        }
    }
}
