//! Records which shapes of tiles have run. Tests require that every shape runs.

use core::sync::atomic::{AtomicU32, Ordering};

use super::vector::Vector;
use super::{batch_reduce, masked, stripe, with_vocabulary};
use crate::isa::Isa;

/// A pass with channels last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    /// Kinds 0 and 1: linear, clamped; 2 and 3: the same of a single position; 4: clamped once for all panels.
    Forward,
    /// Kinds: a threshold per tap, one for all, none.
    BackwardInput,
    /// Kinds: of inputs that are clamped already, or need not be; clamped where they are read.
    BackwardWeight,
}

/// Most kinds of tiles of a pass.
const KINDS: usize = 5;
/// Most vectors of a tile.
const VECTORS: usize = 4;

/// By instruction set, pass, kind and vectors of a tile: a bit per number of rows.
static SEEN: [[[[AtomicU32; VECTORS]; KINDS]; 3]; 8] =
    [const { [const { [const { [const { AtomicU32::new(0) }; VECTORS] }; KINDS] }; 3] }; 8];

/// Records that a tile is about to run.
pub(super) fn see<S: Vector>(tiles: Tiles, kind: usize, rows: usize, vectors: usize) {
    let seen = &SEEN[S::ISA as usize][tiles as usize][kind][vectors - 1];
    if seen.load(Ordering::Relaxed) >> rows & 1 == 0 {
        seen.fetch_or(1 << rows, Ordering::Relaxed);
    }
}

impl Tiles {
    /// All passes. (It is a function because cbindgen would declare the type of a public associated constant in the C header.)
    pub const fn all() -> [Self; 3] {
        [Self::Forward, Self::BackwardInput, Self::BackwardWeight]
    }

    /// The tiles `[kind, rows, vectors]` of an instruction set that have not run yet in this process.
    pub fn unseen(self, isa: Isa) -> impl Iterator<Item = [usize; 3]> {
        let most = with_vocabulary!(isa, S => self.most_rows::<S>());
        let seen = &SEEN[isa as usize][self as usize];
        (0..KINDS).flat_map(move |kind| {
            (1..=VECTORS).flat_map(move |vectors| {
                let bits = seen[kind][vectors - 1].load(Ordering::Relaxed);
                (1..=most[kind][vectors - 1])
                    .filter(move |rows| bits >> rows & 1 == 0)
                    .map(move |rows| [kind, rows, vectors])
            })
        })
    }

    /// By kind and vectors.
    fn most_rows<S: Vector>(self) -> [[usize; VECTORS]; KINDS] {
        core::array::from_fn(|kind| {
            core::array::from_fn(|index| {
                let vectors = index + 1;
                let (kinds, most_vectors, most_rows) = match (self, kind) {
                    // Scalars are clamped where they are loaded.
                    (Self::Forward, 4) if S::LANES == 1 => (0, 0, 0),
                    (Self::Forward, 0..2 | 4) => {
                        (5, batch_reduce::most_vectors::<S>(), batch_reduce::most_rows::<S>(vectors))
                    }
                    (Self::Forward, _) => {
                        let single = if batch_reduce::chains::<S>(vectors) > 1 { 1 } else { 0 };
                        (5, batch_reduce::most_vectors::<S>(), single)
                    }
                    (Self::BackwardInput, _) => (3, masked::most_vectors::<S>(), masked::most_rows::<S>(vectors)),
                    (Self::BackwardWeight, _) => {
                        let kinds = if stripe::reads_in_place::<S>() { 2 } else { 1 };
                        (kinds, stripe::most_vectors::<S>(), stripe::most_rows::<S>())
                    }
                };
                if kind < kinds && vectors <= most_vectors { most_rows } else { 0 }
            })
        })
    }
}
