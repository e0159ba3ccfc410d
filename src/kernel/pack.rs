//! Clamped patches, packed for the products of [`product`](super::product).
//!
//! Each element is loaded, clamped and stored once, whatever the number of output channels: about one cycle per vector,
//! against half a cycle of multiply-adds per vector and output channel.

use super::Kernel;
use super::offsets::Offsets;
use super::vector::{MOST_LANES, Vector};

/// Columns of positions, in tiles: `columns[tile][k][l] = f(source[offset[k] + position[tile][l]]; θ[k])`.
pub(crate) struct PatchColumns<'a> {
    pub(crate) source: &'a [f32],
    pub(crate) offsets: Offsets<'a>,
    /// One per offset.
    pub(crate) thresholds: &'a [f32],
    /// One per lane, ascending: whole vectors, of which the last tile may have fewer.
    pub(crate) positions: &'a [u32],
    /// Lanes of a tile.
    pub(crate) lanes: usize,
    pub(crate) columns: &'a mut [f32],
}

impl Kernel for PatchColumns<'_> {
    fn check<S: Vector>(&self) {
        let count = self.positions.len();
        assert!(count >= 1 && count.is_multiple_of(S::LANES));
        assert!(self.lanes.is_multiple_of(S::LANES) && self.lanes >= 1);
        assert!(self.positions.is_sorted_by(|a, b| a < b));
        let last = self.positions[count - 1] as usize;
        assert!(last.saturating_add(self.offsets.max()) < self.source.len());
        let steps = self.offsets.table().len();
        assert!(steps <= self.thresholds.len());
        assert!(steps.saturating_mul(count.next_multiple_of(self.lanes)) <= self.columns.len());
    }

    #[inline(always)]
    unsafe fn run<S: Vector>(self, simd: S) {
        let Self { source, offsets, thresholds, positions, lanes, columns } = self;
        let steps = offsets.table().len();
        let vectors = positions.len() / S::LANES;
        // Where a vector begins in its tile's columns, and how far apart its steps are: the last tile may be narrower.
        let place = |v: usize| {
            let tile = v * S::LANES / lanes;
            let pitch = lanes.min(positions.len() - tile * lanes);
            (tile * lanes * steps + v * S::LANES % lanes, pitch)
        };
        let mut v = 0;
        while v < vectors {
            let first = v * S::LANES;
            // A stretch of positions, whole tiles of two vectors: plane by plane, so that each page is seen once.
            let mut stretch = 0;
            if lanes == 2 * S::LANES && first.is_multiple_of(lanes) {
                while stretch < MOST_TILES
                    && first + (stretch + 1) * lanes <= positions.len()
                    && positions[first + (stretch + 1) * lanes - 1] - positions[first]
                        == ((stretch + 1) * lanes - 1) as u32
                {
                    stretch += 1;
                }
            }
            // SAFETY: checked: the last position reads inside through the largest offset; each step has a threshold, and
            // each tile its columns.
            unsafe {
                let (at, pitch) = place(v);
                let to = columns.as_mut_ptr().add(at);
                if stretch == 0 {
                    let positions = &positions[first..][..S::LANES];
                    pack_vector(simd, source, offsets, thresholds, positions, to, pitch);
                    v += 1;
                } else {
                    let from = source.as_ptr().add(positions[first] as usize);
                    pack_stretch(simd, from, offsets, thresholds, to, stretch);
                    v += 2 * stretch;
                }
            }
        }
    }
}

/// Most tiles that are packed step by step together.
const MOST_TILES: usize = 8;

/// Packs consecutive positions, `tiles` whole tiles of two vectors.
///
/// # Safety
///
/// The call is [checked](Kernel#checked), and its parts are given: `from` is where the first position reads, `to` where the
/// first of `tiles` tiles begins, all of them whole and of consecutive positions.
#[inline(always)]
unsafe fn pack_stretch<S: Vector>(
    simd: S,
    from: *const f32,
    offsets: Offsets<'_>,
    thresholds: &[f32],
    to: *mut f32,
    tiles: usize,
) {
    let table = offsets.table();
    for (k, &offset) in table.iter().enumerate() {
        // SAFETY: checked: the last position of the last tile reads inside through each offset; columns and thresholds have
        // a place per step.
        unsafe {
            let theta = simd.splat_f32s(*thresholds.as_ptr().add(k));
            let mut x = from.add(offset as usize);
            let mut to = to.add(k * 2 * S::LANES);
            for _ in 0..tiles {
                simd.store(to, simd.activate(simd.load(x), theta));
                simd.store(to.add(S::LANES), simd.activate(simd.load(x.add(S::LANES)), theta));
                // Past the last tile, where nothing is read or written, this may point beyond the buffers.
                x = x.wrapping_add(2 * S::LANES);
                to = to.wrapping_add(table.len() * 2 * S::LANES);
            }
        }
    }
}

/// Packs one vector of positions with gaps: each stretch of consecutive positions is a load of its own.
///
/// # Safety
///
/// The call is [checked](Kernel#checked), and its parts are given: `positions` is one vector of its positions, and at `to`,
/// `pitch` apart, lie that vector's columns.
#[inline(always)]
unsafe fn pack_vector<S: Vector>(
    simd: S,
    source: &[f32],
    offsets: Offsets<'_>,
    thresholds: &[f32],
    positions: &[u32],
    to: *mut f32,
    pitch: usize,
) {
    let mut lane_numbers = [0.0; MOST_LANES];
    for (l, number) in lane_numbers.iter_mut().enumerate() {
        *number = l as f32;
    }
    // SAFETY: a vector has at most MOST_LANES lanes.
    let lane_numbers = unsafe { simd.load(lane_numbers.as_ptr()) };
    // Where a vector is read that has the right elements from some lane on. Positions ascend, so a later stretch is
    // read at a later place; all loads end by the last position.
    let mut shifts = [positions[0] as usize; MOST_LANES];
    let mut starts = [lane_numbers; MOST_LANES];
    let mut stretches = 1;
    for lane in 1..S::LANES {
        if positions[lane] != positions[lane - 1] + 1 {
            shifts[stretches] = positions[lane] as usize - lane;
            starts[stretches] = simd.splat_f32s(lane as f32);
            stretches += 1;
        }
    }
    for (k, &offset) in offsets.table().iter().enumerate() {
        // SAFETY: checked: the last position reads inside through each offset, and no vector is read that ends after it;
        // columns and thresholds have a place per step.
        unsafe {
            let x = source.as_ptr().add(offset as usize);
            let mut value = simd.load(x.add(shifts[0]));
            for s in 1..stretches {
                let later = simd.greater_than_or_equal_f32s(lane_numbers, starts[s]);
                value = simd.select_f32s(later, simd.load(x.add(shifts[s])), value);
            }
            let theta = simd.splat_f32s(*thresholds.as_ptr().add(k));
            simd.store(to.add(k * pitch), simd.activate(value, theta));
        }
    }
}
