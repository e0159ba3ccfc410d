//! Choices that still make sense where an input has run out of bytes.

use arbitrary::{Result, Unstructured};

/// True once in `every` times, and not where no bytes are left. (`Unstructured::ratio` is true there, so that short inputs
/// would be odd in every way at once.)
pub(crate) fn rarely(u: &mut Unstructured<'_>, every: u8) -> Result<bool> {
    Ok(!u.is_empty() && u.ratio(1, every)?)
}
