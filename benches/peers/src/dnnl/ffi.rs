//! The part of oneDNN's C API (version 3) that convolutions need, loaded at run time.

use std::ffi::{c_int, c_void};
use std::path::Path;

use libloading::Library;

use super::openmp::OpenMp;

pub(super) type Handle = *mut c_void;
pub(super) type Dims = [i64; 12];

pub(super) const F32: c_int = 3;
pub(super) const FORMAT_ANY: c_int = 1;
pub(super) const CPU: c_int = 1;
pub(super) const FORWARD_TRAINING: c_int = 64;
pub(super) const DIRECT: c_int = 1;
/// Lets the library allocate the memory of an object.
pub(super) const ALLOCATE: Handle = usize::MAX as Handle;

pub(super) mod arg {
    use std::ffi::c_int;
    pub(crate) const SRC: c_int = 1;
    pub(crate) const DST: c_int = 17;
    pub(crate) const WEIGHTS: c_int = 33;
    pub(crate) const DIFF_SRC: c_int = 129;
    pub(crate) const DIFF_DST: c_int = 145;
    pub(crate) const DIFF_WEIGHTS: c_int = 161;
    pub(crate) const DIFF_BIAS: c_int = 169;
}

pub(super) mod query {
    use std::ffi::c_int;
    pub(crate) const SRC: c_int = 129;
    pub(crate) const DIFF_SRC: c_int = 130;
    pub(crate) const WEIGHTS: c_int = 131;
    pub(crate) const DIFF_WEIGHTS: c_int = 132;
    pub(crate) const DST: c_int = 133;
    pub(crate) const DIFF_DST: c_int = 134;
}

/// `dnnl_exec_arg_t`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct ExecArg {
    pub(super) arg: c_int,
    pub(super) memory: Handle,
}

/// Declares the table of functions and its loader.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Functions of the library, which stays loaded as long as the table lives.
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            library: Library,
        }

        impl Functions {
            pub(super) fn load(path: &Path) -> Result<Self, libloading::Error> {
                // SAFETY: the caller names a oneDNN library, whose initialisers have no requirements.
                let library = unsafe { Library::new(path) }?;
                Ok(Self {
                    // SAFETY: the types are those of oneDNN 3's `dnnl.h`.
                    $($name: *unsafe { library.get(concat!("dnnl_", stringify!($name)).as_bytes()) }?,)*
                    library,
                })
            }
        }
    };
}

impl Functions {
    /// Looked up among the libraries that this one needs, too.
    pub(super) fn openmp(&self) -> Option<OpenMp<'_>> {
        // SAFETY: the type is that of GNU OpenMP, which other OpenMPs imitate.
        unsafe { self.library.get(b"GOMP_parallel") }.ok().map(OpenMp)
    }
}

functions! {
    engine_create: fn(*mut Handle, c_int, usize) -> c_int;
    stream_create: fn(*mut Handle, Handle, u32) -> c_int;
    stream_wait: fn(Handle) -> c_int;
    memory_desc_create_with_tag: fn(*mut Handle, c_int, *const i64, c_int, c_int) -> c_int;
    memory_desc_create_with_strides: fn(*mut Handle, c_int, *const i64, c_int, *const i64) -> c_int;
    memory_desc_destroy: fn(Handle) -> c_int;
    memory_desc_equal: fn(Handle, Handle) -> c_int;
    memory_create: fn(*mut Handle, Handle, Handle, Handle) -> c_int;
    memory_destroy: fn(Handle) -> c_int;
    reorder_primitive_desc_create: fn(*mut Handle, Handle, Handle, Handle, Handle, Handle) -> c_int;
    convolution_forward_primitive_desc_create: fn(
        *mut Handle, Handle, c_int, c_int, Handle, Handle, Handle, Handle,
        *const i64, *const i64, *const i64, *const i64, Handle
    ) -> c_int;
    convolution_backward_data_primitive_desc_create: fn(
        *mut Handle, Handle, c_int, Handle, Handle, Handle,
        *const i64, *const i64, *const i64, *const i64, Handle, Handle
    ) -> c_int;
    convolution_backward_weights_primitive_desc_create: fn(
        *mut Handle, Handle, c_int, Handle, Handle, Handle, Handle,
        *const i64, *const i64, *const i64, *const i64, Handle, Handle
    ) -> c_int;
    primitive_desc_query_md: fn(Handle, c_int, c_int) -> Handle;
    primitive_desc_destroy: fn(Handle) -> c_int;
    primitive_create: fn(*mut Handle, Handle) -> c_int;
    primitive_execute: fn(Handle, Handle, c_int, *const ExecArg) -> c_int;
    primitive_destroy: fn(Handle) -> c_int;
}
