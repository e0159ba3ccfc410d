//! Headers of packed weights that look whole: what the C interface must not rely on.

/// Makes the last word of a header of sixteen the hash (FNV-1a) of the others, as the C interface does.
pub(crate) fn rehash(header: &mut [f32]) {
    let bytes = header[..15].iter().flat_map(|word| word.to_bits().to_ne_bytes());
    // A slice is hashed with its length first.
    let hash = 15usize
        .to_ne_bytes()
        .into_iter()
        .chain(bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    header[15] = f32::from_bits(hash as u32);
}
