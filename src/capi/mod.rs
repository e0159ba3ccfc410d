//! The C interface (feature `capi`): everything the core offers, for C, C++, Python, Zig and firmware.
//!
//! `src/capi/convrelu.h` is generated from this module. Nothing here allocates or keeps state: descriptors, plans,
//! workspaces and errors are the caller's. A plan is made of plain numbers and read anew, and checked anew, by every call
//! (about a microsecond): no bytes that a caller may put there lead to undefined behaviour.
//!
//! # What every function does
//!
//! - It returns a [`convrelu_status`]: 0 for success. The last argument, which may be null, receives what
//!   [`convrelu_error_message`] makes a sentence of: the argument, its value, and the rule it breaks.
//! - It checks pointers for null and alignment, the sizes of structs, reserved fields for zero, lengths of buffers, and that
//!   nothing it writes overlaps anything else. Where a check fails, nothing is written.
//! - It never unwinds into the caller: a panic, which would be a bug in this library, aborts.
//!
//! What it cannot check is the caller's promise: a pointer with a length points to that many elements, and nobody else
//! writes them during the call. Calls on different buffers may run at the same time.
//!
//! # Binary interface
//!
//! Within one major version (before 1.0: one minor version), names, meanings and struct layouts stay:
//!
//! - Every struct begins with its size, which the initialiser sets (or the caller, for arguments: `sizeof`). A library
//!   that knows another layout refuses the struct with [`CONVRELU_STRUCT_SIZE`](convrelu_status::CONVRELU_STRUCT_SIZE).
//! - Reserved fields are zero. A later version gives them a meaning for which zero is what happens today.
//! - Statuses, instruction sets, passes and layouts keep their numbers; new ones may appear.
//! - [`convrelu_version`] says which library was loaded, `CONVRELU_VERSION_…` for which one the caller was compiled.
//! - Symbols carry no version: what is incompatible gets another name, or another `soname`. That of a library which
//!   `cargo cinstall` installs ends in the digits that stand for one interface: `libconvrelu.so.0.1`, from 1.0 on one digit.
//!
//! # How to build it
//!
//! ```sh
//! cargo rustc --release --features capi --crate-type cdylib     # target/release/libconvrelu.so
//! cargo rustc --release --features capi --crate-type staticlib  # target/release/libconvrelu.a
//! cargo cinstall --release --prefix /usr/local                  # cargo-c: library, header, pkg-config file
//! # For a target without operating system, whose C code defines `abort`:
//! cargo rustc --release --no-default-features --features capi,panic-handler --crate-type staticlib \
//!     --target thumbv7em-none-eabihf
//! ```

#![allow(non_camel_case_types)]

mod calls;
mod check;
mod error;
#[cfg(all(feature = "panic-handler", target_os = "none"))]
mod panic;
mod types;

pub use calls::*;
pub use error::{convrelu_error, convrelu_error_message, convrelu_status};
pub use types::*;
