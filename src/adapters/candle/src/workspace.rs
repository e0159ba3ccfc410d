//! What the kernels write on beside their results: a buffer of each thread's own, which grows and stays.

use std::cell::Cell;

thread_local! {
    static BUFFER: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls with `len` elements of any contents.
pub(crate) fn with<T>(len: usize, call: impl FnOnce(&mut [f32]) -> T) -> T {
    // Taken, not borrowed: while a thread waits for the others' tasks, rayon may give it another call.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    if buffer.len() < len {
        // Not `resize`, which would copy.
        buffer = vec![0.0; len];
    }
    let result = call(&mut buffer[..len]);
    // Where the thread is about to end, the buffer does too.
    let _ = BUFFER.try_with(|kept| {
        let other = kept.take();
        kept.set(if other.len() > buffer.len() { other } else { buffer });
    });
    result
}

#[cfg(test)]
mod tests {
    #[test]
    fn calls_within_calls_have_buffers_of_their_own() {
        super::with(3, |outer| {
            outer.fill(1.0);
            super::with(5, |inner| inner.fill(2.0));
            assert_eq!(outer, [1.0; 3]);
        });
        // The longest is kept.
        super::with(4, |buffer| assert_eq!(buffer, [2.0; 4]));
    }
}
