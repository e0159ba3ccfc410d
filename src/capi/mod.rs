//! The C interface (feature `capi`): all that the core offers, for C, C++, Python, Zig and firmware.
//!
//! The header `src/capi/convrelu.h` is generated from this module. Nothing here allocates or keeps state. Descriptors, plans,
//! workspaces and errors belong to the caller. A plan is made of plain numbers. Every call reads and checks them again, and plans
//! the one pass that it needs, which takes 0.2 to 0.3 microseconds. So no bytes that a caller may put into a plan lead to
//! undefined behaviour.
//!
//! # How to use it
//!
//! 1. Make a descriptor: call [`convrelu_conv1d_init`], [`convrelu_conv2d_init`] or [`convrelu_conv3d_init`], then set the fields
//!    that differ from their defaults (`layout`, `stride`, `padding_before`, …). The kind [`CONVRELU_TRANSPOSED`] makes it a
//!    transposed convolution; the next steps stay the same.
//! 2. Make a plan of it: [`convrelu_plan_init`] checks the descriptor.
//! 3. Ask for the lengths of all buffers: [`convrelu_plan_lens`], [`convrelu_workspace_len`].
//! 4. Make arguments: call [`convrelu_forward_args_init`], then set buffers and `threshold_kind`.
//! 5. Call [`convrelu_forward`]. The gradients are [`convrelu_backward_input`] and [`convrelu_backward_weight`].
//!
//! `tests/capi/layer.c` in the repository is such a program.
//!
//! A forward pass can change its sums before it stores them. Call [`convrelu_epilogue_init`], set the parts that you want (scale
//! and shift of batch normalisation, a residual, bounds), and let the field `epilogue` of the arguments point to the struct.
//!
//! # Transposed convolutions
//!
//! A descriptor of the kind [`CONVRELU_TRANSPOSED`] describes a [`transposed`](crate::transposed) convolution, as `ConvTranspose`
//! of PyTorch and ONNX computes it. `size` is the extent of its input. Padding is cut off its output, and `output_padding` is
//! appended. The same functions plan it and run its passes. It has no thresholds and takes no epilogue:
//!
//! - `threshold_kind` stays unset, or is [`CONVRELU_THRESHOLDS_LINEAR`].
//! - `grad_thresholds` and `epilogue` are null, and [`convrelu_lens`] says that there are 0 thresholds.
//! - The gradient of the input does not depend on the input, so `input` may be null there.
//!
//! A call that breaks these rules returns [`CONVRELU_NOT_APPLICABLE`](convrelu_status::CONVRELU_NOT_APPLICABLE).
//!
//! # What every function does
//!
//! - It returns a [`convrelu_status`]: 0 for success. The last argument may be null. If not, it receives the error in numbers,
//!   and [`convrelu_error_message`] makes a sentence of them: the argument, its value, and the rule it breaks.
//! - It checks that pointers are not null and aligned, that structs have the right size, that reserved fields are zero, that
//!   buffers are long enough, and that no buffer it writes overlaps another. If a check fails, it writes nothing.
//! - Null with the length 0 is a buffer without elements. It is too short if the call needs some.
//! - It never unwinds into the caller. A panic would be a bug in this library, and aborts the process.
//!
//! Calls on different buffers may run at the same time.
//!
//! # What callers promise
//!
//! No function can check the following. So each is a contract with a name, which functions and safety comments cite:
//!
//! - **Struct pointer**: null, misaligned, or a pointer to a struct that begins with its size and is as long as that size says.
//!   If a function takes the size as an argument, the pointer points to room for so many bytes. During the call, nobody else
//!   writes the struct, and nobody else reads it if the call writes it. The library follows the pointer if it is neither null nor
//!   misaligned. It reads or writes beyond the size field only if the size is that of this version.
//! - **Number pointer**: null, misaligned, or a pointer to room for one value of its type, which nobody else reads or writes
//!   during the call. The library follows it if it is neither null nor misaligned.
//! - **Buffer pointer**: null, misaligned, or a pointer to as many elements as the length beside it says, all of one allocation.
//!   During the call, nobody else writes them, and nobody else reads them if the call writes them. The gaps between the pixels or
//!   images of a tensor with a pitch count as elements. The library follows the pointer if it is neither null nor misaligned, and
//!   if its buffer is not longer than an allocation can be and lies apart from all that the call writes.
//! - **Callback**: [`convrelu_parallel_for`] is null, or a function that may be called with the `context` beside it on the
//!   thread of the call. It passes the `task_context` that it is given, or null, to the `task` that it is given. It returns when
//!   every `task` that it has begun has returned, begins none afterwards, and throws nothing. Nothing else is a promise: the
//!   library checks how often each task ran. If a task ran twice or never, or if a number belongs to no task, the call returns
//!   [`CONVRELU_EXECUTOR`](convrelu_status::CONVRELU_EXECUTOR). Results are undefined then, but nothing is read or written out of
//!   bounds.
//!
//! # Threads
//!
//! Threads belong to the caller. A plan for several threads ([`convrelu_plan_set_threads`]) splits each call into at most as many
//! tasks. The function `parallel_for` of the arguments runs them. If it is null, they run one after another on the calling
//! thread. Nothing here starts a thread or uses rayon.
//!
//! # Binary interface
//!
//! [`CONVRELU_ABI`] numbers the interface, and [`convrelu_abi`] tells the number of the library that was loaded. A program that
//! was compiled with a header runs with every library of the same number that is no older than the header
//! ([`convrelu_version`] against `CONVRELU_VERSION_…`). The number goes up at most once in a minor version before 1.0, and at
//! most once in a major version afterwards; a patch version never changes it.
//!
//! While the number stays,
//!
//! - functions keep their names, arguments and meanings; structs keep their sizes, and their fields keep their places;
//! - constants (statuses, instruction sets, passes, layouts, kinds) keep their numbers;
//! - [`convrelu_version`] and [`convrelu_abi`] stay as they are even when the number goes up, so that any library can be asked.
//!
//! What may come without a new number:
//!
//! - functions, and constants. So a program takes a status that it does not know for an error, and asks
//!   [`convrelu_error_message`] what it says;
//! - fields in the place of reserved ones, of a meaning for which zero is what happens today;
//! - better kernels, and with them other roundings, other lengths of workspaces and of packed weights. A program asks for the
//!   lengths at run time. Packed weights do not outlive the version that made them: another one refuses them with
//!   [`CONVRELU_PACKED_ELSEWHERE`](convrelu_status::CONVRELU_PACKED_ELSEWHERE).
//!
//! How structs are told apart: each begins with its size in bytes, `struct_size`, which is `sizeof` the struct in the header that
//! the caller was compiled with. Initialisers take it as an argument and set the field. [`convrelu_lens`] and [`convrelu_error`]
//! have no initialiser: the caller sets their field before the call. The library compares it with its own size before it reads or
//! writes anything else. If they differ, it refuses the struct with
//! [`CONVRELU_STRUCT_SIZE`](convrelu_status::CONVRELU_STRUCT_SIZE). Reserved fields must be zero, or the call is
//! [`CONVRELU_RESERVED`](convrelu_status::CONVRELU_RESERVED): so a library never passes over a field that it does not know.
//! [`convrelu_input`] and [`convrelu_output`] are a pointer and a length, and stay so.
//!
//! Symbols carry no version. The `soname` of a library that `cargo cinstall` installs names its version: `libconvrelu.so.0.2`
//! before 1.0, when the interface may change with each minor version, and `libconvrelu.so.1` from 1.0 on.
//!
//! # How to build it
//!
//! ```sh
//! # target/release/libconvrelu.so, or libconvrelu.a with `staticlib`:
//! cargo rustc --release --no-default-features --features capi --crate-type cdylib
//! # cargo-c: library, header, pkg-config file:
//! cargo cinstall --release --no-default-features --prefix /usr/local
//! # For a target without operating system, whose C code defines `abort`:
//! cargo rustc --release --no-default-features --features capi-plain,panic-handler --crate-type staticlib \
//!     --target thumbv7em-none-eabihf
//! ```
//!
//! The linker cannot know what a descriptor and arguments will hold at run time. So a program that calls [`convrelu_forward`]
//! would also link the kernels of transposed convolutions and of epilogues. The feature `capi-plain` has every function, but
//! neither of these two: asked for them, it returns [`CONVRELU_LEFT_OUT`](convrelu_status::CONVRELU_LEFT_OUT). On a Cortex-M4F
//! that takes 27 KiB of flash instead of 53. The features `capi-epilogues` and `capi-transposed` add one of them, and `capi` has
//! both. The guide's page [firmware](crate::guide::firmware) says more.
//!
//! Where there is an operating system, the library links Rust's standard library. It needs it only to handle panics.

#![allow(non_camel_case_types)]

// A library that is linked needs a panic handler. Where there is an operating system, the standard library has one.
#[cfg(all(not(feature = "std"), not(target_os = "none")))]
extern crate std as _;

// Functions stand in the header in this order.
mod version;

mod init;

mod plan;

mod packed;

mod calls;

mod adarelu;

mod error;

mod check;
mod executor;
#[cfg(all(feature = "panic-handler", target_os = "none"))]
mod panic;
mod types;

pub use adarelu::*;
pub use calls::*;
pub use error::{convrelu_error, convrelu_error_message, convrelu_status};
pub use init::*;
pub use packed::{convrelu_check_packed_weight, convrelu_pack_weight};
pub use plan::*;
pub use types::*;
pub use version::*;
