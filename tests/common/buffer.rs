//! Buffers that notice what they should not: writes outside, elements left unwritten, reads of stale memory.

/// A NaN no computation makes: what surrounds every buffer, and what outputs and workspaces hold before a call.
const SENTINEL: u32 = 0x7fc0_beef;

/// Sentinels on either side of a slice: more than the widest vector.
const GUARD: usize = 24;

/// Has MemorySanitizer take values for uninitialised.
#[cfg(convrelu_msan)]
fn poison(values: &[f32]) {
    unsafe extern "C" {
        fn __msan_allocated_memory(start: *const std::ffi::c_void, bytes: usize);
    }
    // SAFETY: changes what the sanitizer knows, not the memory.
    unsafe { __msan_allocated_memory(values.as_ptr().cast(), size_of_val(values)) };
}

/// Where a buffer lies and how much longer than necessary it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Placement {
    /// Floats between the start of the allocation's guard and the slice: odd ones break every vector alignment.
    pub(crate) offset: usize,
    /// Floats beyond the length that the call needs; they must stay as they are.
    pub(crate) slack: usize,
}

/// A slice between guard words.
pub(crate) struct Guarded {
    memory: Vec<f32>,
    start: usize,
    len: usize,
    slack: usize,
}

impl Guarded {
    /// A copy of `values`.
    pub(crate) fn new(values: &[f32], at: Placement) -> Self {
        let mut buffer = Self::unwritten(values.len(), at);
        buffer.memory[buffer.start..][..values.len()].copy_from_slice(values);
        buffer
    }

    /// `len` elements that hold a NaN.
    pub(crate) fn unwritten(len: usize, at: Placement) -> Self {
        let start = GUARD + at.offset;
        let buffer = Self {
            memory: vec![f32::from_bits(SENTINEL); start + len + at.slack + GUARD],
            start,
            len,
            slack: at.slack,
        };
        #[cfg(convrelu_msan)]
        poison(&buffer.memory[start..][..len]);
        buffer
    }

    /// What a call is given to read.
    pub(crate) fn slice(&self) -> &[f32] {
        &self.memory[self.start..][..self.len + self.slack]
    }

    /// What a call is given to write.
    pub(crate) fn slice_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.start..][..self.len + self.slack]
    }

    /// The elements, once nothing beside them has changed.
    ///
    /// # Panics
    ///
    /// If a call has written outside of them.
    pub(crate) fn into_values(mut self, name: &str) -> Vec<f32> {
        let elements = self.start..self.start + self.len;
        for (i, value) in self.memory.iter().enumerate() {
            if !elements.contains(&i) && value.to_bits() != SENTINEL {
                let (at, len) = (i as isize - self.start as isize, self.len);
                panic!("{name}: element {at} was written, outside of 0..{len}");
            }
        }
        self.memory.truncate(elements.end);
        self.memory.split_off(elements.start)
    }
}
