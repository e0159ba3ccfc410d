//! Checks pointers of the caller and turns them into references.

use core::ops::Range;

use super::error::{Fault, convrelu_error, convrelu_status};
use super::types::*;
use crate::error::Error;
use crate::operands::Accumulation;

/// Checks that a pointer is not null and aligned.
pub(super) fn pointer<T>(pointer: *const T, argument: &'static str) -> Result<(), Fault> {
    if pointer.is_null() {
        Err(Fault::Null { argument })
    } else if !pointer.is_aligned() {
        Err(Fault::Misaligned { argument, address: pointer.addr() })
    } else {
        Ok(())
    }
}

/// Writes what a pointer points to.
///
/// # Safety
///
/// **Number pointer**; or **Struct pointer** to room for a whole `T`.
pub(super) unsafe fn write<T: Copy>(to: *mut T, argument: &'static str, value: T) -> Result<(), Fault> {
    pointer(to, argument)?;
    // SAFETY: the contract, with null and misaligned pointers excluded.
    unsafe { to.write(value) };
    Ok(())
}

/// A struct that begins with its size and ends in reserved fields.
pub(super) trait Versioned {
    /// Its name in messages.
    const NAME: &'static str;
    fn is_reserved_zero(&self) -> bool;
}

macro_rules! sized {
    ($($type:ident as $name:literal;)*) => {
        $(impl Versioned for $type {
            const NAME: &'static str = $name;
            fn is_reserved_zero(&self) -> bool {
                self.reserved.iter().all(|field| *field == 0)
            }
        })*
    };
}
sized! {
    convrelu_desc as "desc";
    convrelu_plan as "plan";
    convrelu_epilogue as "epilogue";
    convrelu_forward_args as "args";
    convrelu_backward_input_args as "args";
    convrelu_backward_weight_args as "args";
    convrelu_adarelu_backward_args as "args";
    convrelu_error as "error";
}

/// Checks the size field of a struct, and reads no other field.
///
/// # Safety
///
/// **Struct pointer**.
unsafe fn check_size<T>(from: *const T, argument: &'static str) -> Result<(), Fault> {
    pointer(from, argument)?;
    // SAFETY: **Struct pointer**, neither null nor misaligned: a size comes first.
    expect_size::<T>(unsafe { from.cast::<usize>().read() }, argument)
}

/// Checks that a size is that of the struct in this version.
pub(super) fn expect_size<T>(size: usize, argument: &'static str) -> Result<(), Fault> {
    let expected = size_of::<T>();
    if size == expected { Ok(()) } else { Err(Fault::StructSize { argument, size, expected }) }
}

/// The meaning of a number, or the error that it has none.
pub(super) fn known<T>(meaning: Option<T>, argument: &'static str, number: u32) -> Result<T, Fault> {
    meaning.ok_or(Fault::InvalidValue { argument, value: number as usize })
}

/// Whether a number says that a gradient replaces the values of its buffer or is added to them.
pub(super) fn accumulation(number: u32, name: &'static str) -> Result<Accumulation, Fault> {
    known(accumulation_of(number), name, number)
}

/// A copy of a struct of this version.
///
/// # Safety
///
/// **Struct pointer**.
pub(super) unsafe fn read_struct<T: Copy + Versioned>(from: *const T) -> Result<T, Fault> {
    // SAFETY: **Struct pointer**; the whole struct is read only if its size is that of this version. Its fields are numbers and
    // pointers, which may hold any bits, or a function, for which the **Callback** contract vouches.
    let value = unsafe {
        check_size(from, T::NAME)?;
        from.read()
    };
    check_reserved(&value)?;
    Ok(value)
}

/// Checks that reserved fields are zero.
pub(super) fn check_reserved<T: Versioned>(value: &T) -> Result<(), Fault> {
    if value.is_reserved_zero() { Ok(()) } else { Err(Fault::Reserved { argument: T::NAME }) }
}

/// Writes a struct whose size the caller has set.
///
/// # Safety
///
/// **Struct pointer**.
pub(super) unsafe fn write_struct<T: Copy>(to: *mut T, argument: &'static str, value: T) -> Result<(), Fault> {
    // SAFETY: **Struct pointer**; the struct is written only if its size is that of this version.
    unsafe {
        check_size(to, argument)?;
        to.write(value);
    }
    Ok(())
}

/// Makes a call, and reports its fault to `error` if that is not null. If `error` cannot hold a report, that is a fault as well,
/// found before the call does anything.
///
/// # Safety
///
/// `error` is a **Struct pointer**.
pub(super) unsafe fn finish(call: impl FnOnce() -> Result<(), Fault>, error: *mut convrelu_error) -> convrelu_status {
    if error.is_null() {
        return call().err().map_or(convrelu_status::CONVRELU_OK, Fault::status);
    }
    // SAFETY: **Struct pointer**.
    if let Err(fault) = unsafe { check_size(error, "error") } {
        return fault.status();
    }
    let (status, (argument, values)) = match call() {
        Ok(()) => (convrelu_status::CONVRELU_OK, (0, [0; 3])),
        Err(fault) => (fault.status(), fault.numbers()),
    };
    let struct_size = size_of::<convrelu_error>();
    let value = convrelu_error { struct_size, status: status as u32, argument, values, reserved: [0; 2] };
    // SAFETY: **Struct pointer**; it is aligned and of the right size.
    unsafe { error.write(value) };
    status
}

/// Elements of type `T` that no slice may exceed.
const fn most<T>() -> usize {
    isize::MAX as usize / size_of::<T>()
}

/// The elements of a buffer that is read. Null with the length 0 is a buffer without elements.
///
/// # Safety
///
/// **Buffer pointer**, for as long as `'a`.
pub(super) unsafe fn slice<'a>(buffer: convrelu_input, argument: &'static str) -> Result<&'a [f32], Fault> {
    if buffer.data.is_null() && buffer.len == 0 {
        return Ok(&[]);
    }
    pointer(buffer.data, argument)?;
    if buffer.len > most::<f32>() {
        return Err(Error::Overflow { quantity: argument }.into());
    }
    // SAFETY: **Buffer pointer**; not null, aligned, not longer than an allocation may be.
    Ok(unsafe { core::slice::from_raw_parts(buffer.data, buffer.len) })
}

/// The elements of a buffer that is written. Null with the length 0 is a buffer without elements.
///
/// # Safety
///
/// **Buffer pointer**, for as long as `'a`; it lies apart from all else that the call reads or writes ([`Extents`]).
pub(super) unsafe fn slice_mut<'a>(buffer: convrelu_output, argument: &'static str) -> Result<&'a mut [f32], Fault> {
    if buffer.data.is_null() && buffer.len == 0 {
        return Ok(&mut []);
    }
    pointer(buffer.data, argument)?;
    if buffer.len > most::<f32>() {
        return Err(Error::Overflow { quantity: argument }.into());
    }
    // SAFETY: **Buffer pointer**; not null, aligned, not longer than an allocation may be, apart from all else.
    Ok(unsafe { core::slice::from_raw_parts_mut(buffer.data, buffer.len) })
}

/// The bytes of a message.
///
/// # Safety
///
/// **Buffer pointer**, for as long as `'a`.
pub(super) unsafe fn bytes_mut<'a>(data: *mut u8, len: usize) -> Result<&'a mut [u8], Fault> {
    pointer(data, "message")?;
    if len > most::<u8>() {
        return Err(Error::Overflow { quantity: "message" }.into());
    }
    // SAFETY: **Buffer pointer**; not null, not longer than an allocation may be.
    Ok(unsafe { core::slice::from_raw_parts_mut(data, len) })
}

/// The extent of a buffer that is read.
pub(super) fn input(name: &'static str, buffer: convrelu_input) -> (&'static str, *const f32, usize, bool) {
    (name, buffer.data, if buffer.data.is_null() { 0 } else { buffer.len }, false)
}

/// The extent of a buffer that is written.
pub(super) fn output(name: &'static str, buffer: convrelu_output) -> (&'static str, *const f32, usize, bool) {
    (name, buffer.data, if buffer.data.is_null() { 0 } else { buffer.len }, true)
}

/// The memory of all buffers of a call. It is checked for overlap before references are made.
pub(super) struct Extents<const N: usize> {
    extents: [(&'static str, Range<usize>, bool); N],
    /// A buffer that is longer than the address space.
    endless: Option<&'static str>,
}

impl<const N: usize> Extents<N> {
    /// Names, addresses and lengths in elements of all buffers, and whether each is written.
    pub(super) fn new(buffers: [(&'static str, *const f32, usize, bool); N]) -> Self {
        let endless = buffers.iter().find(|(_, _, len, _)| *len > most::<f32>()).map(|(name, ..)| *name);
        let extents = buffers.map(|(name, data, len, written)| {
            let start = data.addr();
            (name, start..start.saturating_add(len.saturating_mul(size_of::<f32>())), written)
        });
        Self { extents, endless }
    }

    /// Checks that no buffer that is written overlaps another.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if let Some(quantity) = self.endless {
            return Err(Error::Overflow { quantity }.into());
        }
        for (i, (name, a, written)) in self.extents.iter().enumerate() {
            for (other, b, other_written) in &self.extents[..i] {
                let apart = a.is_empty() || b.is_empty() || a.end <= b.start || b.end <= a.start;
                if (*written || *other_written) && !apart {
                    let (argument, other) = if *written { (*name, *other) } else { (*other, *name) };
                    return Err(Fault::Overlap { argument, other });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::{null, null_mut};

    use super::super::*;
    use super::*;

    const ERROR: convrelu_error = convrelu_error {
        struct_size: size_of::<convrelu_error>(),
        status: 0,
        argument: 0,
        values: [0; 3],
        reserved: [0; 2],
    };

    #[test]
    fn an_error_that_cannot_be_filled_is_found_before_anything_is_written() {
        let (mut isa, mut error) = (77, convrelu_error { struct_size: 8, ..ERROR });
        // SAFETY: all pointers point to values of their types. The size in the error is wrong, which the call must find.
        let status = unsafe { convrelu_isa_detect(&mut isa, &mut error) };
        assert_eq!((status, isa), (convrelu_status::CONVRELU_STRUCT_SIZE, 77));
        assert_eq!(error, convrelu_error { struct_size: 8, ..ERROR });
    }

    #[test]
    fn of_several_results_all_are_written_or_none() {
        let (mut major, mut patch, mut error) = (77, 77, ERROR);
        // SAFETY: every pointer points to a value of its type, or is null.
        let status = unsafe { convrelu_version(&mut major, null_mut(), &mut patch, &mut error) };
        assert_eq!((status, error.status, major, patch), (convrelu_status::CONVRELU_NULL, status as u32, 77, 77));

        let (mut message, mut lens) = ([85; 8], [0usize; 2]);
        let odd = lens.as_mut_ptr().wrapping_byte_add(1);
        // SAFETY: the buffer is as long as the capacity says. The library does not follow a misaligned pointer.
        let status = unsafe { convrelu_error_message(&error, message.as_mut_ptr(), message.len(), odd) };
        assert_eq!((status, message), (convrelu_status::CONVRELU_MISALIGNED, [85; 8]));
        // SAFETY: the pointer to the struct is null, which the contract allows.
        let status = unsafe { convrelu_error_message(null(), message.as_mut_ptr(), message.len(), null_mut()) };
        assert_eq!((status, message), (convrelu_status::CONVRELU_NULL, [85; 8]));
    }
}
