//! Output positions that read padding.

use core::ops::Range;

use crate::desc::ConvDesc;
use crate::geometry::Reads;
use crate::sums::{Positions, add_positions};

/// All output positions.
pub(crate) fn all(desc: &ConvDesc) -> Positions {
    desc.output_size().map(|size| 0..size)
}

/// The output positions that read the input, not padding, through a tap: a range per axis.
pub(crate) fn unpadded(desc: &ConvDesc, tap: usize) -> Positions {
    let k = desc.kernel_position(tap);
    [0, 1, 2].map(|axis| Reads::forward(desc, axis).unpadded(k[axis]).range())
}

/// Whether none of some output positions reads padding through the tap that the box `unpadded` belongs to.
pub(crate) fn is_inside(positions: &Positions, unpadded: &Positions) -> bool {
    positions.iter().zip(unpadded).all(|(own, inside)| inside.start <= own.start && own.end <= inside.end)
}

/// Adds to `sums`, one for each of some output channels, the gradients of the `positions` outside the box `unpadded`.
pub(crate) fn sum_outside(
    desc: &ConvDesc,
    grad_output: &[f32],
    positions: &Positions,
    unpadded: &Positions,
    channels: Range<usize>,
    sums: &mut [f32],
) {
    let [planes, rows, columns] = positions.clone();
    // The part of the box that is among the positions.
    let [d, h, w] = [0, 1, 2].map(|axis| {
        let (own, inside) = (&positions[axis], &unpadded[axis]);
        let start = inside.start.clamp(own.start, own.end);
        start..inside.end.clamp(start, own.end)
    });
    // Planes before and after, rows of the planes between, columns of the rows between.
    let mut boxes = [
        [planes.start..d.start, rows.clone(), columns.clone()],
        [d.end..planes.end, rows.clone(), columns.clone()],
        [d.clone(), rows.start..h.start, columns.clone()],
        [d.clone(), h.end..rows.end, columns.clone()],
        [d.clone(), h.clone(), columns.start..w.start],
        [d, h, w.end..columns.end],
    ];
    // Most boxes are empty. They are dropped here, so that not every channel of every image looks at them.
    let mut used = 0;
    for index in 0..boxes.len() {
        if !boxes[index].iter().any(Range::is_empty) {
            boxes.swap(used, index);
            used += 1;
        }
    }
    add_positions(&desc.output_tensor(), grad_output, &boxes[..used], channels, sums);
}
