//! The C interface (feature `capi`): everything the core offers, for C, C++, Python, Zig and firmware.
//!
//! `src/capi/convrelu.h` is generated from this module. Nothing here allocates or keeps state: descriptors, plans,
//! workspaces and errors are the caller's. A plan is made of plain numbers. Every call reads them anew, checks them anew, and
//! plans the one pass that it needs (0.2 to 0.3 microseconds): no bytes that a caller may put there lead to undefined behaviour.
//!
//! # The way in
//!
//! 1. A descriptor: [`convrelu_conv1d_init`], [`convrelu_conv2d_init`] or [`convrelu_conv3d_init`], then the fields that
//!    differ from their defaults (`layout`, `stride`, `padding_before`, …).
//! 2. A plan of it: [`convrelu_plan_init`], which checks the descriptor.
//! 3. Lengths of all buffers: [`convrelu_plan_lens`], [`convrelu_workspace_len`].
//! 4. Arguments: [`convrelu_forward_args_init`], then buffers and `threshold_kind`; then the call, [`convrelu_forward`]. The
//!    gradients are [`convrelu_backward_input`] and [`convrelu_backward_weight`].
//!
//! The README has it as a whole program.
//!
//! # What every function does
//!
//! - It returns a [`convrelu_status`]: 0 for success. The last argument, which may be null, receives what
//!   [`convrelu_error_message`] makes a sentence of: the argument, its value, and the rule it breaks.
//! - It checks pointers for null and alignment, the sizes of structs, reserved fields for zero, lengths of buffers, and that
//!   nothing it writes overlaps anything else. Where a check fails, nothing is written.
//! - It takes null with the length 0 as a buffer without elements, which is too short where some are needed.
//! - It never unwinds into the caller: a panic, which would be a bug in this library, aborts.
//!
//! Calls on different buffers may run at the same time.
//!
//! # What callers promise
//!
//! What no function can check is a contract. Each has a name, by which functions and safety comments cite it:
//!
//! - **Struct pointer**: null, misaligned, or to a struct that begins with its size and is as long as that says. Where a
//!   function takes the size as an argument, the pointer is to room for as many bytes. Nobody else writes the struct during
//!   the call; nobody else reads it where the call writes it. It is followed where it is neither null nor misaligned, and
//!   beyond the size where that is this version's.
//! - **Number pointer**: null, misaligned, or to room for one value of its type, which nobody else reads or writes during the
//!   call. It is followed where it is neither null nor misaligned.
//! - **Buffer pointer**: null, misaligned, or to as many elements as the length beside it says, all of one allocation. Nobody
//!   else writes them during the call; nobody else reads them where the call writes them. What lies between the pixels or
//!   images of a tensor with a pitch counts among them. The pointer is followed where it is neither null nor misaligned, its
//!   buffer is not longer than an allocation can be, and lies apart from all that the call writes.
//! - **Callback**: [`convrelu_parallel_for`] is null, or a function that may be called with the `context` beside it on the
//!   thread of the call. It passes the `task_context` that it is given, or null, to the `task` that it is given. It returns
//!   when every `task` that it has begun has returned, begins none afterwards, and throws nothing. What the tasks run on, in
//!   which order, how often and with which numbers is checked: a task that ran twice or never, or that there is not, is
//!   [`CONVRELU_EXECUTOR`](convrelu_status::CONVRELU_EXECUTOR). Results are undefined then, but nothing is read or written
//!   out of bounds.
//!
//! # Threads
//!
//! They are the caller's. A plan for several threads ([`convrelu_plan_set_threads`]) splits a call into as many tasks, and the
//! field `parallel_for` of its arguments runs them; where that is null, they run one after another on the calling thread.
//! Nothing here starts a thread or uses rayon by itself.
//!
//! # Binary interface
//!
//! Within one major version (before 1.0: one minor version), names, meanings and struct layouts stay:
//!
//! - Every struct begins with its size, which the initialiser sets, or the caller where there is none (`sizeof`). A library
//!   that knows another layout refuses the struct with [`CONVRELU_STRUCT_SIZE`](convrelu_status::CONVRELU_STRUCT_SIZE).
//! - Reserved fields are zero. A later version gives them a meaning for which zero is what happens today.
//! - Statuses, instruction sets, passes and layouts keep their numbers; new ones may appear.
//! - [`convrelu_version`] says which library was loaded, `CONVRELU_VERSION_…` for which one the caller was compiled.
//! - Symbols carry no version: what is incompatible gets another name, or another `soname`. That of a library which
//!   `cargo cinstall` installs ends in the digits that stand for one interface: `libconvrelu.so.0.2`, from 1.0 on one digit.
//!
//! # How to build it
//!
//! ```sh
//! # target/release/libconvrelu.so, or libconvrelu.a with `staticlib`:
//! cargo rustc --release --no-default-features --features capi --crate-type cdylib
//! # cargo-c: library, header, pkg-config file:
//! cargo cinstall --release --no-default-features --prefix /usr/local
//! # For a target without operating system, whose C code defines `abort`:
//! cargo rustc --release --no-default-features --features capi,panic-handler --crate-type staticlib \
//!     --target thumbv7em-none-eabihf
//! ```
//!
//! Where there is an operating system, the library links Rust's standard library for what a panic does, and for nothing else.

#![allow(non_camel_case_types)]

// A library that is linked needs a panic handler. Where there is an operating system, the standard library has one.
#[cfg(all(not(feature = "std"), not(target_os = "none")))]
extern crate std as _;

mod calls;
mod check;
mod error;
mod executor;
mod init;
#[cfg(all(feature = "panic-handler", target_os = "none"))]
mod panic;
mod types;

pub use calls::*;
pub use error::{convrelu_error, convrelu_error_message, convrelu_status};
pub use init::*;
pub use types::*;
