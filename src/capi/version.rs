//! The version of the library, and the instruction sets of the machine.

use super::check::{finish, known, pointer, write};
use super::error::{convrelu_error, convrelu_status};
use super::types::*;
use crate::isa::Isa;

/// Writes major, minor and patch version of the library that was loaded.
///
/// # Safety
///
/// `error` is a **Struct pointer**, the others are **Number pointers**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_version(
    major: *mut u32,
    minor: *mut u32,
    patch: *mut u32,
    error: *mut convrelu_error,
) -> convrelu_status {
    let get = || {
        pointer(major, "major")?;
        pointer(minor, "minor")?;
        pointer(patch, "patch")?;
        // SAFETY: **Number pointer**.
        unsafe {
            write(major, "major", CONVRELU_VERSION_MAJOR)?;
            write(minor, "minor", CONVRELU_VERSION_MINOR)?;
            write(patch, "patch", CONVRELU_VERSION_PATCH)
        }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(get, error) }
}

/// Writes the number of the interface of the library that was loaded. A program can use the library if the number is the
/// `CONVRELU_ABI` of the header that the program was compiled with, and if the library is not older than that header.
///
/// # Safety
///
/// `error` is a **Struct pointer**, `abi` a **Number pointer**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_abi(abi: *mut u32, error: *mut convrelu_error) -> convrelu_status {
    // SAFETY: **Number pointer** and **Struct pointer**.
    unsafe { finish(|| write(abi, "abi", CONVRELU_ABI), error) }
}

/// The best instruction set of this machine, a `CONVRELU_ISA_…`.
///
/// # Safety
///
/// `error` is a **Struct pointer**, `isa` a **Number pointer**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_isa_detect(isa: *mut u32, error: *mut convrelu_error) -> convrelu_status {
    // SAFETY: **Number pointer** and **Struct pointer**.
    unsafe { finish(|| write(isa, "isa", number_of(Isa::detect())), error) }
}

/// Whether (1 or 0) kernels of an instruction set can run here.
///
/// # Safety
///
/// `error` is a **Struct pointer**, `available` a **Number pointer**.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_isa_available(
    isa: u32,
    available: *mut u32,
    error: *mut convrelu_error,
) -> convrelu_status {
    let get = || {
        let isa = known(isa_of(isa), "isa", isa)?;
        // SAFETY: **Number pointer**.
        unsafe { write(available, "available", u32::from(isa.is_available())) }
    };
    // SAFETY: **Struct pointer**.
    unsafe { finish(get, error) }
}
